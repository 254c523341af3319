//! Bad input against the real binary: every route, every refusal, and nothing changes by it.

mod api_check;

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use api_check::{Answer, Target, call};
use kheish_daemon::api::routes::ROUTES;

const ADMIN: &str = "bad-input-admin-token-01";
const READER: &str = "bad-input-reader-token-01";

struct Daemon {
    child: Child,
    log: Option<JoinHandle<()>>,
    address: SocketAddr,
    dir: PathBuf,
}

fn write_private(path: &Path, text: &str) {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).expect("writable");
    file.write_all(text.as_bytes()).expect("writable");
}

impl Daemon {
    fn start() -> Self {
        let dir = std::env::temp_dir().join(format!("kheish-bad-input-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("the temporary directory is writable");
        write_private(&dir.join("admin"), ADMIN);
        write_private(&dir.join("reader"), READER);
        let path = |name: &str| dir.join(name).display().to_string();
        let mut child = Command::new(env!("CARGO_BIN_EXE_kheish-daemon"))
            .env_clear()
            .args(["serve", "--bind", "127.0.0.1:0", "--http-auth-mode", "bearer", "--log-format", "json"])
            .args(["--state-root", &path("state"), "--workspace-root", &path("workspace")])
            .args(["--http-admin-token-file", &path("admin"), "--http-readonly-token-file", &path("reader")])
            .env("KHEISH_AUTH_STORE_MASTER_KEY", "0123456789abcdef0123456789abcdef")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut log = BufReader::new(child.stderr.take().expect("stderr is a pipe"));
        let mut seen = String::new();
        let address = loop {
            let mut line = String::new();
            let count = log.read_line(&mut line).expect("the log is text");
            assert!(count > 0, "the daemon ended at start: {seen}");
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split(['"', '\n']).next().and_then(|text| text.parse().ok()).expect("an address");
            }
            seen.push_str(&line);
        };
        // A daemon whose log nobody reads would be another test.
        let log = std::thread::spawn(move || drop(std::io::copy(&mut log, &mut std::io::sink())));
        Self { child, log: Some(log), address, dir }
    }

    fn get(&self, path: &str) -> Answer {
        let bearer = format!("Bearer {ADMIN}");
        call(self.address, "GET", path, &[("authorization", &bearer)], None)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already; the directory is of no use to anybody.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(self.log.take().map(JoinHandle::join));
        drop(fs::remove_dir_all(&self.dir));
    }
}

/// Everything that a request could have changed, as the daemon itself shows it. Not the journal's head: the
/// daemon seals on a timer.
fn durable_state(daemon: &Daemon) -> String {
    let status = daemon.get("/v1/status").json();
    let paths = ["/v1/sessions", "/v1/sessions/demo/events", "/v1/runs", "/v1/runtime", "/v1/runtime/secrets"];
    let views = paths.map(|path| daemon.get(path).json());
    format!("{} {} {views:?}", status["runs"], status["sessions"])
}

#[test]
fn bad_input_is_refused_with_documented_codes_and_changes_nothing() {
    let mut daemon = Daemon::start();
    let admin = format!("Bearer {ADMIN}");
    let json = [("authorization", admin.as_str()), ("content-type", "application/json")];
    let created = call(daemon.address, "POST", "/v1/sessions", &json, Some(b"{\"session_id\":\"demo\"}"));
    assert_eq!(created.status, 201, "{created:?}");
    let document = daemon.get("/v1/openapi.json").json();
    api_check::check_openapi(ROUTES, &document);
    let target = Target { address: daemon.address, admin: ADMIN, read_only: READER };
    let before = durable_state(&daemon);
    assert!(before.contains("\"total\":0") && before.contains("\"total\":1") && before.contains("demo"), "{before}");
    api_check::check_over_http(ROUTES, &target, &mut || durable_state(&daemon));
    assert_eq!(durable_state(&daemon), before);
    assert!(daemon.child.try_wait().expect("a child").is_none(), "the daemon has ended");
}
