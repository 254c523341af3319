//! The real binary on a file system of 16 MB that is filled up and freed again.
//! Needs root (mounts, in a namespace of their own that ends with the test): `make test-root`.

#[path = "support/skip.rs"]
mod skip;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const TOKEN: &str = "root-test-admin-token-0123456789";
const SESSION: &str = "small";

/// A mounted file system that ends with this guard.
struct SmallFileSystem {
    holder: Child,
    mount: PathBuf,
    scratch: PathBuf,
}

impl SmallFileSystem {
    /// Runs `mount_command` (with `$1` = the mount point, `$2` = a scratch file) in a fresh mount namespace.
    /// `None`, with a line that says so, where this machine does not allow it.
    fn mount(test: &str, mount_command: &str) -> Option<Self> {
        let scratch = std::env::temp_dir().join(format!("kheish-{test}-{}", std::process::id()));
        let mount = scratch.join("mount");
        std::fs::create_dir_all(&mount).expect("a scratch folder");
        let script = format!("{mount_command} && echo mounted && read -r _");
        let mut holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script, "sh"])
            .arg(&mount)
            .arg(scratch.join("image"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is part of util-linux");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut line).expect("a line or the end");
        if line != "mounted\n" {
            holder.wait().expect("a child of ours");
            std::fs::remove_dir_all(&scratch).expect("a scratch folder of ours");
            skip::skip(test, "this machine does not let root mount it");
            return None;
        }
        Some(Self { holder, mount, scratch })
    }

    /// The mounted folder as seen from outside the namespace.
    fn path(&self) -> PathBuf {
        let inside = self.mount.strip_prefix("/").expect("an absolute path");
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(inside)
    }

    /// Writes a file until nothing more fits, down to the last byte.
    fn fill(&self, name: &str) {
        let mut file = std::fs::File::create(self.path().join(name)).expect("an inode is left");
        for piece in [64 * 1024, 4 * 1024, 512, 1] {
            while file.write_all(&vec![b'f'; piece]).is_ok() {}
        }
    }

    fn free(&self, name: &str) {
        std::fs::remove_file(self.path().join(name)).expect("the filler");
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        // The namespace, and with it the mount, ends with its last process.
        let _may_have_ended = self.holder.kill();
        let _reaped = self.holder.wait();
        let _left_for_the_system = std::fs::remove_dir_all(&self.scratch);
    }
}

struct Daemon {
    child: Child,
    address: SocketAddr,
}

impl Daemon {
    fn start(file_system: &SmallFileSystem) -> Self {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).expect("a free port");
        // Held runs are never sent anywhere; submissions only need a route that exists.
        let routes = file_system.scratch.join("routes.toml");
        let route =
            "[routes.main]\ndriver = \"openai\"\ndefault_model = \"gpt-5.4\"\nbase_url = \"http://127.0.0.1:9/v1\"\n";
        std::fs::write(&routes, format!("version = 1\n{route}")).expect("a scratch folder");
        let child = Command::new("nsenter")
            .args(["--mount", "--target", &file_system.holder.id().to_string(), env!("CARGO_BIN_EXE_kheish-daemon")])
            .args(["serve", "--hold", "--bind", &address.to_string(), "--http-admin-token", TOKEN, "--state-root"])
            .arg(file_system.mount.join("state"))
            .arg("--workspace-root")
            .arg(file_system.scratch.join("workspace"))
            .args(["--log-level", "warn", "--routes-file"])
            .arg(&routes)
            .env("KHEISH_AUTH_STORE_MASTER_KEY", "cm9vdC10ZXN0LW1hc3Rlci1rZXktMDEyMzQ1Njc4OTA=")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nsenter is part of util-linux");
        let mut daemon = Self { child, address };
        let started = Instant::now();
        while daemon.try_get("/healthz").is_none_or(|reply| reply.status != 200) {
            assert!(daemon.child.try_wait().expect("a child of ours").is_none(), "the daemon ended at start");
            assert!(started.elapsed() < Duration::from_secs(50), "no answer from /healthz");
            std::thread::yield_now();
        }
        daemon
    }

    fn kill(&mut self) {
        self.child.kill().expect("a child of ours");
        self.child.wait().expect("a child of ours");
    }

    fn try_get(&self, path: &str) -> Option<Reply> {
        exchange(self.address, "GET", path, "").ok()
    }

    fn get(&self, path: &str) -> Reply {
        exchange(self.address, "GET", path, "").expect("a reply")
    }

    fn post(&self, path: &str, body: &str) -> Reply {
        exchange(self.address, "POST", path, body).expect("a reply")
    }

    fn submit(&self, text: &str) -> Reply {
        self.post(&format!("/v1/sessions/{SESSION}/runs"), &format!(r#"{{"content":"{text}"}}"#))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _may_have_ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[derive(Debug)]
struct Reply {
    status: u16,
    body: serde_json::Value,
}

fn exchange(address: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<Reply> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(50)))?;
    write!(
        socket,
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    let invalid = || std::io::Error::new(std::io::ErrorKind::InvalidData, text.clone());
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(invalid)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(invalid)?;
    Ok(Reply { status, body: serde_json::from_str(body).unwrap_or(serde_json::Value::Null) })
}

/// The body of every test here: fill, refuse, contain, die, come back, free, go on.
fn a_full_disk_loses_nothing_and_heals(file_system: &SmallFileSystem) {
    let mut daemon = Daemon::start(file_system);
    assert_eq!(daemon.post("/v1/sessions", &format!(r#"{{"session_id":"{SESSION}"}}"#)).status, 201);
    let record =
        r#"{"slot_id":"openai.prod","provider":"openai","mode":"api_key","state":{"api_key":"sk-small-0123456789"}}"#;
    assert_eq!(daemon.post("/v1/runtime/secrets", record).status, 200);
    let first = daemon.submit("before");
    assert_eq!(first.status, 202, "{first:?}");

    file_system.fill("filler");
    let text = "x".repeat(16 * 1024);
    let mut acknowledged = vec![first.body["run_id"].clone()];
    // The preallocated segment and its reserve hold some more; 16 MB cannot hold all of these.
    let refused = (0..2_000).find_map(|_| {
        let reply = daemon.submit(&text);
        if reply.status == 202 {
            acknowledged.push(reply.body["run_id"].clone());
            return None;
        }
        Some(reply)
    });
    let refused = refused.expect("a refusal before 32 MB were accepted on 16 MB");
    assert_eq!((refused.status, refused.body["code"].as_str()), (507, Some("storage_full")), "{refused:?}");

    assert_eq!(daemon.get("/v1/status").status, 200, "reads go on");
    // What the journal gave back when it refused would be room for a probe.
    file_system.fill("rest");
    let (code, line) = diagnose(&daemon, |code, line| code == 1 && line.contains("storage_probe_failed"));
    file_system.free("rest");
    assert!(line.contains("; next: "), "{code}: {line}");
    let contained = daemon.post(&format!("/v1/runs/{}/cancel", acknowledged[1].as_str().expect("a run id")), "");
    assert_eq!(contained.status, 200, "containment works from the reserve: {contained:?}");

    let revoke = |daemon: &Daemon, number: u32| {
        let reply =
            daemon.post(&format!("/v1/runtime/auth/subjects/session%3A{number}/revoke"), r#"{"reason":"full disk"}"#);
        assert_eq!(reply.status, 200, "revocation {number} on a full disk: {reply:?}");
    };
    (0..100).for_each(|number| revoke(&daemon, number));

    daemon.kill();
    drop(daemon);
    let daemon = Daemon::start(file_system);
    for number in 0..100 {
        let shown = daemon.get(&format!("/v1/runtime/auth/subjects/session%3A{number}"));
        assert_eq!((shown.status, &shown.body["revoked"]), (200, &serde_json::Value::Bool(true)), "{shown:?}");
    }
    // The disk is full still, and what was reserved before the restart serves after it.
    (100..150).for_each(|number| revoke(&daemon, number));
    for run_id in &acknowledged {
        let run = daemon.get(&format!("/v1/runs/{}", run_id.as_str().expect("a run id")));
        assert_eq!((run.status, &run.body["run_id"]), (200, run_id), "{run:?}");
    }

    file_system.free("filler");
    // Service resumes by itself; how soon is the daemon's choice, so this waits for the event.
    let freed = Instant::now();
    let healed = loop {
        let reply = daemon.submit("after");
        if reply.status == 202 {
            break reply;
        }
        assert_eq!(reply.body["code"].as_str(), Some("storage_full"), "{reply:?}");
        assert!(freed.elapsed() < Duration::from_secs(50), "did not heal: {reply:?}");
    };
    assert!(!acknowledged.contains(&healed.body["run_id"]), "a run id was used twice: {healed:?}");
    assert_eq!(daemon.get("/readyz").status, 200);
    diagnose(&daemon, |code, _| code == 0);
}

/// What `doctor` says once it says what is waited for: the write probes look every ten seconds.
fn diagnose(daemon: &Daemon, is_wanted: impl Fn(i32, &str) -> bool) -> (i32, String) {
    let since = Instant::now();
    loop {
        let output = Command::new(env!("CARGO_BIN_EXE_kheish-daemon"))
            .env_clear()
            .args(["--base-url", &format!("http://{}", daemon.address), "--token", TOKEN, "doctor"])
            .stdin(Stdio::null())
            .output()
            .expect("it runs");
        let code = output.status.code().expect("an exit code");
        let line = String::from_utf8_lossy(&output.stderr).into_owned();
        if is_wanted(code, &line) {
            return (code, line);
        }
        assert!(since.elapsed() < Duration::from_secs(50), "{code}: {line}");
    }
}

#[test]
#[ignore = "needs root: make test-root"]
fn a_full_tmpfs_of_16_mb_loses_nothing_and_heals() {
    let command = r#"mount -t tmpfs -o size=16m,mode=0755 tmpfs "$1""#;
    if let Some(file_system) = SmallFileSystem::mount("tmpfs", command) {
        a_full_disk_loses_nothing_and_heals(&file_system);
    }
}

#[test]
#[ignore = "needs root: make test-root"]
fn a_full_ext4_of_16_mb_loses_nothing_and_heals() {
    let command = r#"truncate -s 16M "$2" && mkfs.ext4 -q -F -m 0 "$2" && mount -o loop "$2" "$1""#;
    if let Some(file_system) = SmallFileSystem::mount("ext4", command) {
        a_full_disk_loses_nothing_and_heals(&file_system);
    }
}
