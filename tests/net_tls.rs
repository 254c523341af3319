//! TLS of the outbound client: private CAs, wrong CAs, wrong names. Certificates are made with openssl on the spot.

#[path = "support/port.rs"]
mod port;
#[path = "support/skip.rs"]
mod skip;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kheish_daemon::net::{Auth, BaseUrl, Cancel, Method, Net, NetConfig, NetError, Purpose, Request, Timeouts, Trust};
use kheish_daemon::secret::Secret;
use port::Port;

/// A directory of its own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("kheish-tls-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("scratch directory");
        Self(path)
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl").current_dir(&self.0).args(arguments.split(' ')).output().expect("openssl");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn authority(&self, name: &str) -> PathBuf {
        self.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name} \
             -keyout {name}.key -out {name}.pem"
        ));
        self.0.join(format!("{name}.pem"))
    }

    fn server_certificate(&self, authority: &str, host: &str) {
        std::fs::write(self.0.join("san.cnf"), format!("subjectAltName=DNS:{host}\n")).expect("extension file");
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={host} -keyout {host}.key -out {host}.csr"
        ));
        self.openssl(&format!(
            "x509 -req -in {host}.csr -CA {authority}.pem -CAkey {authority}.key -days 2 \
             -extfile san.cnf -out {host}.pem"
        ));
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("scratch directory is ours");
    }
}

/// `openssl s_server`, which answers every GET with a status page.
struct TlsServer(Child, Port);

impl TlsServer {
    fn start(scratch: &Scratch, host: &str) -> Self {
        let port = Port::reserve();
        let (certificate, key) = (format!("{host}.pem"), format!("{host}.key"));
        let mut child = Command::new("openssl")
            .current_dir(&scratch.0)
            .args(["s_server", "-accept", &port.address().to_string(), "-www", "-cert", &certificate, "-key", &key])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl runs");
        let output = child.stdout.take().expect("piped");
        // It prints ACCEPT when it listens.
        let ready = BufReader::new(output).lines().map_while(Result::ok).any(|line| line.contains("ACCEPT"));
        assert!(ready, "openssl s_server did not start");
        Self(child, port)
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.0.kill().expect("our child");
        self.0.wait().expect("our child");
    }
}

/// Asks with a credential; tells the outcome and how often the credential was asked for.
fn ask(ca_file: &Path, host: &str, port: u16) -> (Result<u16, NetError>, usize) {
    ask_by(&net(ca_file), host, port)
}

fn net(ca_file: &Path) -> Net {
    let ca_file = Some(ca_file.to_path_buf());
    Net::new(&NetConfig { ca_file, resolver_threads: 1, ..NetConfig::default() }).expect("client")
}

fn ask_by(net: &Net, host: &str, port: u16) -> (Result<u16, NetError>, usize) {
    let target = BaseUrl::parse(&format!("https://{host}:{port}")).expect("URL").target("/");
    let asked = Arc::new(AtomicUsize::new(0));
    let auth = Auth::bearer_from({
        let asked = asked.clone();
        move || {
            asked.fetch_add(1, Ordering::SeqCst);
            Ok(Secret::new(b"only-for-the-right-peer".to_vec()))
        }
    });
    let timeouts = Timeouts { connect_ms: 20_000, first_byte_ms: 20_000, idle_ms: 20_000, total_ms: None };
    let request = Request {
        method: Method::Get,
        target: &target,
        purpose: Purpose::Provider,
        allow_private: false,
        headers: &[],
        auth: Some(auth),
        body: None,
        timeouts,
        body_bytes_max: 1_000_000,
    };
    let outcome = net.send(request, &Cancel::new()).map(|response| response.status);
    (outcome, asked.load(Ordering::SeqCst))
}

#[test]
fn only_a_peer_with_a_certificate_of_the_trusted_ca_and_the_right_name_gets_the_credential() {
    if Command::new("openssl").arg("version").output().is_err() {
        skip::skip("net_tls", "openssl is not installed");
        return;
    }
    let scratch = Scratch::new();
    let (right, wrong) = (scratch.authority("right-ca"), scratch.authority("wrong-ca"));
    scratch.server_certificate("right-ca", "localhost");
    let server = TlsServer::start(&scratch, "localhost");

    assert_eq!(ask(&right, "localhost", server.1.number()), (Ok(200), 1));

    let (outcome, asked) = ask(&wrong, "localhost", server.1.number());
    assert!(matches!(&outcome, Err(NetError::Tls { reason, .. }) if reason.contains("UnknownIssuer")), "{outcome:?}");
    assert_eq!(asked, 0, "the credential was released to an unknown peer");
    let text = outcome.expect_err("refused").to_string();
    assert!(text.contains("--ca-file"), "{text}");

    // A route's own authority holds for that route alone, whatever the daemon trusts, and in both directions.
    let daemon = net(&wrong);
    let trust = |file: &Path| Arc::new(Trust::of_file(file).expect("usable"));
    assert_eq!(ask_by(&daemon.trusting(&trust(&right)), "localhost", server.1.number()), (Ok(200), 1));
    let (outcome, asked) = ask_by(&daemon, "localhost", server.1.number());
    assert!(matches!(outcome, Err(NetError::Tls { .. })) && asked == 0, "{outcome:?}");
    let (outcome, asked) = ask_by(&net(&right).trusting(&trust(&wrong)), "localhost", server.1.number());
    assert!(matches!(outcome, Err(NetError::Tls { .. })) && asked == 0, "{outcome:?}");

    let (outcome, asked) = ask(&right, "127.0.0.1", server.1.number());
    assert!(matches!(outcome, Err(NetError::Tls { .. })), "{outcome:?}");
    assert_eq!(asked, 0, "the credential was released to a peer with another name");
}

#[test]
fn a_server_that_speaks_no_tls_is_named_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = listener.local_addr().expect("bound").port();
    let server = std::thread::spawn(move || {
        use std::io::Write;
        let (mut stream, _) = listener.accept().expect("accepted");
        stream.write_all(b"HTTP/1.1 400 plain text here\r\n\r\n").expect("written");
    });
    let scratch = std::env::temp_dir().join(format!("kheish-tls-plain-{}.pem", std::process::id()));
    std::fs::write(&scratch, "-----BEGIN CERTIFICATE-----\nMAEA\n-----END CERTIFICATE-----\n").expect("scratch file");
    let (outcome, asked) = ask(&scratch, "localhost", port);
    assert!(matches!(outcome, Err(NetError::Tls { .. })), "{outcome:?}");
    assert_eq!(asked, 0);
    server.join().expect("server");
    std::fs::remove_file(&scratch).expect("scratch file is ours");
}
