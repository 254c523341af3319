//! The daemon under a service manager: what it is told, what it is handed, and what its children see of that.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
#[path = "support/strace.rs"]
mod strace;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{self, UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use daemon::{Home, MASTER_KEY, Provider, TOKEN, eventually};
use http::PATIENCE;
use kheish_daemon::sys;
use serde_json::json;

const BINARY: &str = env!("CARGO_BIN_EXE_kheish-daemon");

/// A service manager's ear: a datagram socket without a file.
struct Manager {
    socket: UnixDatagram,
    name: String,
}

impl Manager {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("kheish-manager-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let address = net::SocketAddr::from_abstract_name(&name).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("a name that nobody has");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        Self { socket, name: format!("@{name}") }
    }

    fn hear(&self) -> String {
        let mut bytes = [0; 4096];
        let count = self.socket.recv(&mut bytes).expect("a notice within the deadline");
        String::from_utf8(bytes[..count].to_vec()).expect("text")
    }

    /// The first notice that `is_it` accepts, with all before it.
    fn hear_until(&self, is_it: impl Fn(&str) -> bool) -> Vec<String> {
        let mut heard = Vec::new();
        loop {
            heard.push(self.hear());
            if is_it(heard.last().expect("just heard")) {
                return heard;
            }
        }
    }
}

#[test]
fn a_service_manager_hears_of_the_start_of_life_and_of_the_stop_and_of_nothing_before_it_is_true() {
    let manager = Manager::new();
    let home = Home::new("supervisor_notify", None);
    let variables = [("NOTIFY_SOCKET", manager.name.as_str()), ("WATCHDOG_USEC", "30000000")];
    let starting = home.serve().variables(&variables).spawn();
    let heard = manager.hear_until(|notice| notice.starts_with("READY=1\n"));
    assert!(heard[..heard.len() - 1].iter().all(|notice| notice.starts_with("STATUS=starting")), "{heard:?}");
    let ready = heard.last().expect("READY=1");
    let address = ready.strip_prefix("READY=1\nSTATUS=listening on ").expect("where it listens");
    // Not a moment later: it said that it is ready.
    let address: SocketAddr = address.parse().expect("an address");
    let reply = http::Client::connect(address, TOKEN).and_then(|mut client| client.request("GET", "/readyz", &[], ""));
    assert_eq!(reply.expect("an answer").status, 200);
    let daemon = starting.listening().expect("it listens");
    for _ in 0..3 {
        assert_eq!(manager.hear(), "WATCHDOG=1");
    }
    let hold = daemon.post("/v1/runtime/hold", &json!({"held": true}));
    assert_eq!(hold.status, 200, "{hold:?}");
    let heard = manager.hear_until(|notice| notice.starts_with("STATUS="));
    assert_eq!(heard.last(), Some(&format!("STATUS=listening on {address}; new runs are held")));
    daemon.stop();
    let heard = manager.hear_until(|notice| notice.starts_with("STOPPING=1\n"));
    let stopping = heard.last().expect("STOPPING=1");
    assert!(stopping.contains("\nEXTEND_TIMEOUT_USEC=40000000\nWATCHDOG_USEC=40000000\n"), "{stopping}");
}

#[test]
fn a_refused_start_tells_the_service_manager_why_and_never_that_it_is_ready() {
    let manager = Manager::new();
    let home = Home::new("supervisor_refused", None);
    let options = ["--http-readonly-token-file", "/nowhere/token"];
    let (code, log) = home.serve().variables(&[("NOTIFY_SOCKET", &manager.name)]).options(&options).refused();
    assert_eq!(code, Some(1), "{log}");
    let heard = manager.hear_until(|notice| notice.starts_with("STATUS=start refused: "));
    assert!(heard.iter().all(|notice| !notice.contains("READY=1")), "{heard:?}");
    assert!(heard.last().is_some_and(|notice| notice.contains("/nowhere/token")), "{heard:?}");
}

/// The core is held in the sync of a batch by strace, as a disk would hold it that answers late: the process and its main
/// thread go on, only that thread does not.
#[test]
fn the_watchdog_is_not_fed_while_a_sync_hangs_and_is_again_once_it_has_returned() {
    let test = "the_watchdog_is_not_fed_while_a_sync_hangs_and_is_again_once_it_has_returned";
    if !strace::is_usable(test) {
        return;
    }
    let manager = Manager::new();
    let home = Home::new("supervisor_watchdog", None);
    let words = ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e"];
    let mut wrapper: Vec<String> = words.map(str::to_string).into();
    // Each thread counts its own calls; which of them it is does not matter, as long as the start is over.
    wrapper.push("inject=fdatasync:delay_enter=4000000:when=20".to_string());
    // Limits of a third: 1 s.
    let variables = [("NOTIFY_SOCKET", manager.name.as_str()), ("WATCHDOG_USEC", "3000000")];
    let daemon = home.serve().variables(&variables).under(&wrapper).start();
    manager.hear_until(|notice| notice == "WATCHDOG=1");
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, address) = (stop.clone(), daemon.address);
    let work = std::thread::spawn(move || {
        let mut client = http::Client::connect(address, TOKEN).expect("it accepts");
        for number in 0.. {
            if stopped.load(Ordering::Relaxed) {
                break;
            }
            let body = json!({"session_id": format!("s-{number}")}).to_string();
            // A hanging sync is answered late or with 503; both are beside the point.
            let _answer = client.request("POST", "/v1/sessions", &[], &body);
        }
    });
    manager.hear_until(|notice| notice.starts_with("STATUS=stalled: "));
    stop.store(true, Ordering::Relaxed);
    let after = manager.hear_until(|notice| notice.starts_with("STATUS=listening on "));
    let (_, between) = after.split_last().expect("the last one was just heard");
    // The sign of life that comes with the recovery stands right before the line that tells of it.
    let fed_while_stalled = between.iter().rev().skip(1).filter(|notice| *notice == "WATCHDOG=1").count();
    assert_eq!(fed_while_stalled, 0, "{after:?}");
    assert_eq!(between.last().map(String::as_str), Some("WATCHDOG=1"), "{after:?}");
    work.join().expect("the client");
    drop(daemon);
}

#[test]
fn a_poisoned_journal_ends_the_signs_of_life_for_good() {
    let test = "a_poisoned_journal_ends_the_signs_of_life_for_good";
    if !strace::is_usable(test) {
        return;
    }
    let manager = Manager::new();
    let home = Home::new("supervisor_poisoned", None);
    let fault = strace::Fault { calls: "fdatasync", errno: "EIO", when: "20".to_string(), paths: Vec::new() };
    let variables = [("NOTIFY_SOCKET", manager.name.as_str()), ("WATCHDOG_USEC", "3000000")];
    let daemon = home.serve().variables(&variables).under(&fault.wrapper(Path::new("/dev/null"))).start();
    manager.hear_until(|notice| notice == "WATCHDOG=1");
    let mut number = 0;
    while daemon.post("/v1/sessions", &json!({"session_id": format!("s-{number}")})).status == 201 {
        number += 1;
        assert!(number < 1_000, "no sync failed");
    }
    assert_eq!(daemon.get("/readyz").status, 503);
    manager.hear_until(|notice| notice.starts_with("STATUS=stalled: journal poisoned: "));
    daemon.strike();
    drop(daemon);
    // Nothing more had been said until it was struck down.
    manager.socket.set_nonblocking(true).expect("a socket option");
    let mut left = [0; 4096];
    assert!(manager.socket.recv(&mut left).is_err(), "{}", String::from_utf8_lossy(&left));
}

/// A daemon to which this test passes a listening socket, as a service manager would.
struct Activated(Child);

impl Activated {
    /// `serve` of `home` with `sockets` as descriptors 3 and up; a shell puts them there and tells their number.
    fn command(home: &Home, sockets: Vec<OwnedFd>, options: &[&str]) -> (Command, PathBuf) {
        let log = home.join("activated.log");
        let output = fs::File::create(&log).expect("a log");
        // The first socket comes in as standard input, a second one as standard output.
        let count = sockets.len();
        let place = if count == 2 { "3<&0 4<&1" } else { "3<&0" };
        let script = format!("export LISTEN_PID=$$ LISTEN_FDS={count}; exec \"$@\" {place} 0</dev/null 1>&2");
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh", BINARY, "serve", "--log-format", "json"]);
        command.arg("--state-root").arg(home.root()).arg("--workspace-root").arg(home.join("workspace"));
        command.arg("--segment-bytes").arg("1048576").arg("--http-admin-token-file").arg(home.token_file());
        command.arg("--routes-file").arg(home.join("routes.toml")).args(options);
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.env("LISTEN_FDNAMES", "control-plane:other").stderr(output);
        let mut sockets = sockets.into_iter();
        command.stdin(Stdio::from(sockets.next().expect("a socket")));
        command.stdout(sockets.next().map_or_else(Stdio::null, Stdio::from));
        (command, log)
    }

    fn start(home: &Home, socket: OwnedFd, variables: &[(&str, &str)]) -> Self {
        let (mut command, _) = Self::command(home, vec![socket], &[]);
        Self(command.envs(variables.iter().copied()).spawn().expect("a shell"))
    }

    fn stop(&mut self) -> ExitStatus {
        sys::kill(self.0.id(), sys::SIGTERM).expect("a child of ours");
        eventually("the end of a daemon", || self.0.try_wait().expect("a child of ours"))
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn passed(listener: &TcpListener) -> OwnedFd {
    listener.try_clone().expect("a descriptor").into()
}

/// One whole exchange on a connection of its own; what came back.
fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    let exchange = stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .and_then(|()| stream.read_to_string(&mut answer));
    // From here on the connection was made; what became of it is told apart from a refusal.
    Ok(exchange.map_or_else(|error| format!("cut off: {error}"), |_| answer))
}

#[derive(Default)]
struct Seen {
    answered: AtomicU32,
    cut_off: AtomicU32,
    refused: AtomicU32,
    over: AtomicBool,
}

/// The socket is held by this test, as by a service manager, and passed to one daemon after the other.
#[test]
fn no_connection_is_refused_over_many_restarts() {
    let rounds: u32 = std::env::var("KHEISH_RESTARTS").ok().map_or(12, |text| text.parse().expect("a number"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let home = Home::new("supervisor_restarts", None);
    let seen = Arc::new(Seen::default());
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let seen = seen.clone();
            std::thread::spawn(move || {
                while !seen.over.load(Ordering::Relaxed) {
                    let counter = match ask(address) {
                        Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => &seen.answered,
                        Ok(answer) if answer.is_empty() || answer.starts_with("cut off") => &seen.cut_off,
                        Ok(answer) => panic!("{answer}"),
                        Err(_) => &seen.refused,
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..rounds {
        let before = seen.answered.load(Ordering::Relaxed);
        let mut daemon = Activated::start(&home, passed(&listener), &[]);
        eventually("an answer of the new daemon", || {
            (seen.answered.load(Ordering::Relaxed) > before + 4).then_some(())
        });
        if round % 4 == 3 {
            daemon.0.kill().expect("a child of ours");
        } else {
            assert_eq!(daemon.stop().code(), Some(0), "round {round}");
        }
    }
    seen.over.store(true, Ordering::Relaxed);
    // The last ones wait in the queue until somebody serves them.
    let mut last = Activated::start(&home, passed(&listener), &[]);
    for client in clients {
        client.join().expect("a client");
    }
    assert_eq!(last.stop().code(), Some(0));
    let count = |counter: &AtomicU32| counter.load(Ordering::Relaxed);
    println!(
        "{rounds} restarts: {} answered, {} cut off, {} refused",
        count(&seen.answered),
        count(&seen.cut_off),
        count(&seen.refused)
    );
    assert_eq!(count(&seen.refused), 0);
    // A daemon that is killed cuts off what it had accepted; each of the two clients has one connection at a time.
    assert!(count(&seen.cut_off) <= 2 * rounds, "{}", count(&seen.cut_off));
}

#[test]
fn a_passed_unix_socket_is_served_and_its_file_left_to_whom_it_belongs() {
    let place = std::env::temp_dir().join(format!("kheish-activated-{}", std::process::id()));
    fs::create_dir(&place).expect("a scratch folder");
    let path = place.join("control.sock");
    let listener = UnixListener::bind(&path).expect("bound");
    let home = Home::new("supervisor_unix", None);
    for _ in 0..2 {
        let mut daemon = Activated::start(&home, listener.try_clone().expect("a descriptor").into(), &[]);
        let mut stream = UnixStream::connect(&path).expect("it listens all the time");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(daemon.stop().code(), Some(0));
        assert!(path.exists(), "the file of somebody else was removed");
    }
    fs::remove_dir_all(&place).expect("a scratch folder of ours");
}

#[test]
fn what_cannot_be_listened_on_ends_the_start_and_names_the_next_step() {
    let home = Home::new("supervisor_sockets", None);
    let tcp = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").expect("a port"));
    let name = format!("kheish-nameless-{}", std::process::id());
    let nameless = UnixListener::bind_addr(&net::SocketAddr::from_abstract_name(&name).expect("a name"));
    let datagram = OwnedFd::from(UnixDatagram::unbound().expect("a socket"));
    // Of a passed listener on all interfaces, authentication is asked for as of a bound one.
    let everywhere = OwnedFd::from(TcpListener::bind("0.0.0.0:0").expect("a port"));
    let cases: [(Vec<OwnedFd>, &[&str], &str); 4] = [
        (vec![tcp(), tcp()], &[], "2 sockets were passed (control-plane, other)"),
        (vec![datagram], &[], "descriptor control-plane is no listening stream socket"),
        (vec![nameless.expect("bound").into()], &[], "unix socket without a path"),
        (vec![everywhere], &["--http-auth-mode", "none"], "would leave the control plane open to the network"),
    ];
    for (sockets, options, expected) in cases {
        let (mut command, log) = Activated::command(&home, sockets, options);
        let mut child = command.spawn().expect("a shell");
        let status = eventually("a refusal", || child.try_wait().expect("a child of ours"));
        let log = fs::read_to_string(log).expect("a log");
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains(expected) && log.contains("next: "), "{expected}: {log}");
    }
}

#[test]
fn a_command_of_a_model_sees_neither_the_variables_nor_the_sockets_of_the_service_manager() {
    let manager = Manager::new();
    let arguments = json!({"command": "env; ls -l /proc/self/fd /dev/fd/ 2>/dev/null; echo the-end"}).to_string();
    let quoted = serde_json::to_string(&arguments).expect("a text is a TOML string as well");
    let provider = Provider::start(&format!(
        "[[turn]]\nmatch = \"look\"\nmatch_result = \"the-end\"\ntext = \"done\"\n\
         [[turn]]\nmatch = \"look\"\ntool_calls = [{{ name = \"bash\", arguments = {quoted} }}]\n"
    ));
    let home = Home::new("supervisor_children", Some(&provider));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let inode =
        fs::metadata(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&listener))).expect("ours").ino();
    let credentials = home.join("credentials").display().to_string();
    let variables = [
        ("NOTIFY_SOCKET", manager.name.as_str()),
        ("WATCHDOG_USEC", "30000000"),
        ("CREDENTIALS_DIRECTORY", &credentials),
    ];
    let mut daemon = Activated::start(&home, passed(&listener), &variables);
    manager.hear_until(|notice| notice.starts_with("READY=1"));
    let mut client = http::Client::connect(address, TOKEN).expect("it accepts");
    let mut post = |target: &str, body: serde_json::Value| {
        let reply = client.request("POST", target, &[], &body.to_string()).expect("an answer");
        assert!(reply.status < 300, "{reply:?}");
        reply.json()
    };
    post("/v1/runtime/permission-mode", json!({"mode": "bypassPermissions"}));
    post("/v1/sessions", json!({"session_id": "s"}));
    let run = post("/v1/sessions/s/runs", json!({"content": "look"}))["run_id"].as_str().expect("an id").to_string();
    let mut client = http::Client::connect(address, TOKEN).expect("it accepts");
    eventually("the end of the run", || {
        let run = client.request("GET", &format!("/v1/runs/{run}"), &[], "").expect("an answer").json();
        let status = run["status"].as_str().expect("a status").to_string();
        http::is_terminal(&status).then_some(())
    });
    let asked: Vec<String> = provider.requests().into_iter().map(|(_, body)| body).collect();
    let seen = asked.iter().find(|body| body.contains("function_call_output")).unwrap_or_else(|| panic!("{asked:?}"));
    assert!(seen.contains("PATH="), "the command printed its environment: {seen}");
    for hidden in ["LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_", "CREDENTIALS_DIRECTORY", &format!("socket:[{inode}]")] {
        assert!(!seen.contains(hidden), "{hidden}: {seen}");
    }
    assert_eq!(daemon.stop().code(), Some(0));
}

/// Every secret that `serve` takes from a file, with what it is and how the file is named.
const SECRET_FILES: &[(&str, &str)] = &[
    ("--http-admin-token-file", "admin"),
    ("--http-readonly-token-file", "readonly"),
    ("--audit-signing-key-file", "signing"),
    ("KHEISH_AUTH_STORE_MASTER_KEY_FILE", "master"),
    ("KHEISH_DEBUG_CAPTURE_KEY_FILE", "capture"),
    ("KHEISH_DEBUG_REDACT_TOKENS_FILE", "redact"),
];

#[test]
fn every_secret_file_may_be_a_credential_and_is_checked_as_any_other_file() {
    let home = Home::new("supervisor_credentials", None);
    let directory = home.join("credentials");
    fs::create_dir(&directory).expect("a folder");
    let write = |name: &str| {
        let text = match name {
            "admin" => TOKEN.to_string(),
            "signing" => "5a".repeat(32),
            "master" => MASTER_KEY.to_string(),
            "capture" => "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU=".to_string(),
            other => format!("{other}-0123456789abcdef0123456789"),
        };
        fs::write(directory.join(name), text).expect("a credential");
        fs::set_permissions(directory.join(name), fs::Permissions::from_mode(0o400)).expect("ours");
    };
    SECRET_FILES.iter().for_each(|(_, name)| write(name));
    let (mut options, mut variables) = (Vec::new(), Vec::new());
    for (setting, name) in SECRET_FILES {
        let credential = format!("credential:{name}");
        if setting.starts_with("--") {
            options.extend([(*setting).to_string(), credential]);
        } else {
            variables.push(((*setting).to_string(), credential));
        }
    }
    variables.push(("CREDENTIALS_DIRECTORY".to_string(), directory.display().to_string()));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let serve = || home.serve().without_token().options(&options).variables(&variables);
    let daemon = serve().start();
    let output = Command::new(BINARY)
        .env_clear()
        .env("CREDENTIALS_DIRECTORY", &directory)
        .args(["--token-file", "credential:admin", "--base-url", &daemon.base_url(), "runtime", "get"])
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    daemon.stop();
    for (setting, name) in SECRET_FILES {
        let path = directory.join(name);
        fs::remove_file(&path).expect("ours");
        let (_, log) = serve().refused();
        assert!(log.contains(&path.display().to_string()) && log.contains("next: "), "{setting}: {log}");
        write(name);
        if *name != "redact" {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("ours");
            let (_, log) = serve().refused();
            assert!(log.contains("644") && log.contains("next: "), "{setting}: {log}");
            write(name);
        }
    }
    let nothing: Vec<(&str, &str)> =
        variables.iter().filter(|(name, _)| *name != "CREDENTIALS_DIRECTORY").copied().collect();
    let (_, log) = home.serve().without_token().options(&options).variables(&nothing).refused();
    assert!(log.contains("LoadCredential="), "{log}");
}
