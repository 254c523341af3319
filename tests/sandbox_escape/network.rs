//! Commands that reach for the network, for sockets of the host and for the daemon's own API.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::Duration;

use kheish_daemon::sandbox::Feature;

use crate::daemon::{Home, TOKEN};
use crate::port::Port;
use crate::stage::{Outside, Stage};

const NET: &[Feature] = &[Feature::NetNamespace];
const FILTER: &[Feature] = &[Feature::Seccomp];

#[test]
fn the_daemons_api_is_not_reached_with_or_without_its_token() {
    let test = "the_daemons_api_is_not_reached_with_or_without_its_token";
    let Some(mut stage) = Stage::new(test, NET) else { return };
    let home = Home::new("escape-api", None);
    let daemon = home.start();
    let port = daemon.address.port();
    for header in ["X-Nothing: x".to_string(), format!("Authorization: Bearer {TOKEN}")] {
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET /v1/status HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n{header}\\r\\n\
             Connection: close\\r\\n\\r\\n' >&3 && head -c 12 <&3 | grep -q HTTP && echo ESCAPED"
        );
        // A failed redirection of exec ends the shell, so it runs in one of its own.
        let script = format!("bash -c '{}'", script.replace('\'', "'\\''"));
        stage.refused(Outside::Works, &script);
    }
}

#[test]
fn loopback_of_the_host_is_not_reached() {
    let Some(mut stage) = Stage::new("loopback_of_the_host_is_not_reached", NET) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = listener.local_addr().expect("bound").port();
    let code = format!("socket.create_connection(('127.0.0.1', {port}), 5)\nescaped()");
    stage.refused_with(Outside::Works, "ECONNREFUSED", &code);
}

#[test]
fn loopback_of_the_host_is_not_reached_by_its_sixth_version() {
    let test = "loopback_of_the_host_is_not_reached_by_its_sixth_version";
    let Some(mut stage) = Stage::new(test, NET) else { return };
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        crate::skip::skip(test, "no IPv6 here");
        return;
    };
    let port = listener.local_addr().expect("bound").port();
    let said =
        stage.refused_python(Outside::Works, &format!("socket.create_connection(('::1', {port}), 5)\nescaped()"));
    assert!(said.is_empty() || said.starts_with("refused E"), "{said}");
}

#[test]
fn no_address_beyond_is_reached() {
    let Some(mut stage) = Stage::new("no_address_beyond_is_reached", NET) else { return };
    // Addresses for documentation and the one of cloud metadata services.
    for address in ["192.0.2.1", "169.254.169.254", "10.0.0.1"] {
        let code = format!("socket.create_connection(('{address}', 80), 5)\nescaped()");
        stage.refused_with(Outside::NotTried, "ENETUNREACH", &code);
    }
}

#[test]
fn no_datagram_leaves() {
    let Some(mut stage) = Stage::new("no_datagram_leaves", NET) else { return };
    let receiver = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    receiver.set_nonblocking(true).expect("a socket of ours");
    let port = receiver.local_addr().expect("bound").port();
    let send = format!("s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'out', ('127.0.0.1', {port}))");
    std::fs::write(stage.workspace().join("send.py"), format!("import socket\n{send}\n")).expect("a scratch file");
    stage.outside("python3 send.py");
    let mut buffer = [0; 8];
    assert!(receiver.recv(&mut buffer).is_ok(), "no attempt at all: it does not arrive from outside either");
    stage.inside("/usr/bin/python3 send.py");
    assert_eq!(receiver.recv(&mut buffer).expect_err("nothing").kind(), ErrorKind::WouldBlock);
    for address in ["192.0.2.1", "255.255.255.255", "224.0.0.1"] {
        let code = format!(
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)\n\
             s.sendto(b'x', ('{address}', 53))\nescaped()"
        );
        stage.refused_with(Outside::NotTried, "ENETUNREACH", &code);
    }
}

#[test]
fn names_are_not_looked_up() {
    let Some(mut stage) = Stage::new("names_are_not_looked_up", NET) else { return };
    let said = stage.refused_python(Outside::NotTried, "socket.getaddrinfo('example.com', 80)\nescaped()");
    assert!(said.is_empty() || said.starts_with("refused"), "{said}");
}

#[test]
fn a_listener_inside_is_not_reached_from_outside() {
    let Some(mut stage) = Stage::new("a_listener_inside_is_not_reached_from_outside", NET) else { return };
    let port = Port::reserve();
    let (free, address) = (port.number(), port.address());
    // Its own loopback works: tests of many projects need it. It says when it listens, and waits for a sign.
    let script = format!(
        "cat > serve.py <<'P'\nimport os, socket, time\nl = socket.create_server(('127.0.0.1', {free}))\n\
         c = socket.create_connection(('127.0.0.1', {free})); l.accept()\nopen('listening', 'w')\n\
         while not os.path.exists('tried'): time.sleep(0.01)\nP\n/usr/bin/python3 serve.py && echo OWN"
    );
    let (listening, tried) = (stage.workspace().join("listening"), stage.workspace().join("tried"));
    let prober = std::thread::spawn(move || {
        crate::daemon::eventually("a listener inside", || listening.exists().then_some(()));
        let reached = TcpStream::connect_timeout(&address, Duration::from_secs(5)).is_ok();
        std::fs::write(tried, "").expect("a scratch file");
        reached
    });
    let ran = stage.inside(&script);
    assert!(!prober.join().expect("the prober"), "a command listens on the host's loopback");
    assert!(ran.stdout.contains("OWN"), "{ran:?}");
}

#[test]
fn a_path_socket_in_the_workspace_is_not_reached() {
    let Some(mut stage) = Stage::new("a_path_socket_in_the_workspace_is_not_reached", FILTER) else { return };
    let _listener = UnixListener::bind(stage.workspace().join("s")).expect("a socket");
    let code = "socket.socket(socket.AF_UNIX).connect('s')\nescaped()";
    stage.refused_with(Outside::Works, "EAFNOSUPPORT", code);
}

#[test]
fn a_pair_of_sockets_is_not_pointed_at_a_path_socket() {
    let Some(mut stage) = Stage::new("a_pair_of_sockets_is_not_pointed_at_a_path_socket", FILTER) else { return };
    let receiver = UnixDatagram::bind(stage.workspace().join("d")).expect("a socket");
    receiver.set_nonblocking(true).expect("a socket of ours");
    let code = "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\na.sendto(b'x', 'd')\nescaped()";
    stage.refused_with(Outside::Works, "EPERM", code);
    assert!(receiver.recv(&mut [0; 8]).is_ok(), "the control's datagram");
    assert!(receiver.recv(&mut [0; 8]).is_err(), "a datagram from inside");
    let _listener = UnixListener::bind(stage.workspace().join("s")).expect("a socket");
    let code = "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)\na.connect('s')\nescaped()";
    stage.refused_with(Outside::NotTried, "EISCONN", code);
    let code = "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)\nb.close()\na.connect('s')\nescaped()";
    stage.refused_with(Outside::NotTried, "EISCONN", code);
}

#[test]
fn an_abstract_socket_is_not_reached() {
    use std::os::linux::net::SocketAddrExt;
    let Some(mut stage) = Stage::new("an_abstract_socket_is_not_reached", FILTER) else { return };
    let name = format!("kheish-escape-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
    let _listener = UnixListener::bind_addr(&address).expect("a socket");
    let code = format!("socket.socket(socket.AF_UNIX).connect('\\0{name}')\nescaped()");
    stage.refused_with(Outside::Works, "EAFNOSUPPORT", &code);
}

#[test]
fn no_socket_of_the_host_is_there() {
    let test = "no_socket_of_the_host_is_there";
    let Some(mut stage) = Stage::new(test, &[Feature::PrivateRoot]) else { return };
    let script = "find / -type s 2>/dev/null | grep -q . && echo ESCAPED; \
                  for s in /run /var/run /dev/log /dev/shm/x; do [ -e $s ] && echo ESCAPED $s; done; true";
    stage.refused(Outside::NotTried, script);
}

fn family(test: &'static str, outside: Outside, error: &str, open: &str) {
    let Some(mut stage) = Stage::new(test, FILTER) else { return };
    stage.refused_with(outside, error, &format!("socket.socket({open})\nescaped()"));
}

#[test]
fn the_kernels_own_sockets_are_not_opened() {
    for protocol in [0, 4, 9, 12, 15, 16] {
        let open = format!("socket.AF_NETLINK, socket.SOCK_RAW, {protocol}");
        let outside = if protocol == 0 { Outside::Works } else { Outside::NotTried };
        family("the_kernels_own_sockets_are_not_opened", outside, "EAFNOSUPPORT", &open);
    }
}

#[test]
fn a_virtual_machines_host_is_not_reached() {
    family("a_virtual_machines_host_is_not_reached", Outside::NotTried, "EAFNOSUPPORT", "40, socket.SOCK_STREAM");
}

#[test]
fn raw_sockets_are_not_opened() {
    family("raw_sockets_are_not_opened", Outside::WorksForRoot, "EPERM", "socket.AF_INET, socket.SOCK_RAW, 1");
    family("raw_sockets_are_not_opened", Outside::NotTried, "EPERM", "socket.AF_INET6, socket.SOCK_RAW, 58");
    family("raw_sockets_are_not_opened", Outside::NotTried, "EAFNOSUPPORT", "socket.AF_PACKET, socket.SOCK_RAW, 3");
}

#[test]
fn other_families_are_not_opened() {
    // Bluetooth, crypto, SMC, XDP, CAN, TIPC, KCM, RDS, AX.25, IUCV, NFC, CAIF, X.25, AppleTalk, Phonet, MCTP.
    for number in [31, 38, 43, 44, 29, 30, 41, 21, 3, 32, 39, 37, 9, 5, 35, 45, 1, 0, 46, 255] {
        let open = format!("{number}, socket.SOCK_DGRAM");
        family("other_families_are_not_opened", Outside::NotTried, "EAFNOSUPPORT", &open);
    }
}

#[test]
fn interfaces_are_not_changed() {
    let Some(mut stage) = Stage::new("interfaces_are_not_changed", &[Feature::CapabilitiesDropped]) else { return };
    let code = "import fcntl\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                fcntl.ioctl(s, 0x8914, struct.pack('16sh22x', b'lo', 0))\nescaped()";
    stage.refused_with(Outside::NotTried, "EPERM", code);
}

/// A grant is a grant: the host's network, and still none of its unix sockets.
#[test]
fn a_granted_network_opens_the_internet_families_only() {
    let test = "a_granted_network_opens_the_internet_families_only";
    let Some(mut stage) = Stage::with(test, FILTER, |spec| spec.network = true) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = listener.local_addr().expect("bound").port();
    std::fs::write(
        stage.workspace().join("reach.py"),
        format!("import socket\nsocket.create_connection(('127.0.0.1', {port}), 5)\nprint('REACHED')\n"),
    )
    .expect("a scratch file");
    let ran = stage.inside("/usr/bin/python3 reach.py");
    assert!(ran.stdout.contains("REACHED"), "{ran:?}");
    let _listener = UnixListener::bind(stage.workspace().join("s")).expect("a socket");
    stage.refused_with(Outside::Works, "EAFNOSUPPORT", "socket.socket(socket.AF_UNIX).connect('s')\nescaped()");
    stage.refused_with(
        Outside::NotTried,
        "EAFNOSUPPORT",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\nescaped()",
    );
    stage.refused(Outside::Works, r#"cat "$S/secret""#);
}
