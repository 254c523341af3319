//! Backups of a running daemon: what was acknowledged before is in them, nothing is in them twice, and nobody is kept waiting by
//! a command that has died. The real binary on both sides.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use daemon::{Daemon, Home, Provider, SLOT, eventually};
use serde_json::{Value, json};

/// Leaves every input with "hang" in it without an end.
const HANGS: &str = "[[turn]]\nmatch = \"hang\"\nfault = { kind = \"hang\" }\n";
const BINARY: &str = env!("CARGO_BIN_EXE_kheish-daemon");

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// `backup create` of the daemon's root.
fn create(home: &Home, daemon: &Daemon, out: &Path, more: &[&str]) -> (i32, String, String) {
    let root = home.root();
    let base = ["backup", "create", "--state-root", text(&root), "--out", text(out), "--rate-mib-s", "0"];
    home.cli(daemon, &[&base, more].concat())
}

/// `backup restore`, with the home's master key.
fn restore(home: &Home, from: &Path, root: &Path, more: &[&str]) -> (i32, String) {
    let output = Command::new(BINARY)
        .env_clear()
        .env("KHEISH_AUTH_STORE_MASTER_KEY_FILE", home.master_key_file())
        .args(["backup", "restore", "--from", text(from), "--state-root", text(root)])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().expect("an exit code"), told)
}

/// Every path below `root` with its permission bits.
fn modes(root: &Path) -> BTreeMap<PathBuf, u32> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root).expect("a folder") {
        let path = entry.expect("an entry").path();
        let metadata = fs::symlink_metadata(&path).expect("an entry");
        found.insert(path.clone(), metadata.permissions().mode() & 0o7777);
        if metadata.is_dir() {
            found.extend(modes(&path));
        }
    }
    found
}

/// Submits runs and overwrites a secret until it is told to stop; what was acknowledged.
struct Load {
    stop: Arc<AtomicBool>,
    accepted: Arc<Mutex<Vec<String>>>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn start(daemon: &Arc<Daemon>) -> Self {
        let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let mut threads = Vec::new();
        for number in 0..2 {
            let (daemon, stop, accepted) = (daemon.clone(), stop.clone(), accepted.clone());
            threads.push(thread::spawn(move || {
                let session = format!("load-{number}");
                daemon.create_session(&session);
                let mut count = 0;
                while !stop.load(Ordering::SeqCst) {
                    let reply = daemon.try_submit(&session, &format!("{session} number {count}"));
                    // A full queue is an answer; anything else is none.
                    match reply.status {
                        202 => accepted.lock().unwrap().push(reply.json()["run_id"].as_str().unwrap().to_string()),
                        429 => {}
                        _ => panic!("{reply:?}"),
                    }
                    count += 1;
                }
            }));
        }
        let (of_secrets, stopped) = (daemon.clone(), stop.clone());
        threads.push(thread::spawn(move || {
            let mut count = 0;
            while !stopped.load(Ordering::SeqCst) {
                of_secrets.set_key(&format!("sk-test-of-a-backup-{count:08}"));
                count += 1;
            }
        }));
        Self { stop, accepted, threads }
    }

    fn accepted(&self) -> BTreeSet<String> {
        self.accepted.lock().unwrap().iter().cloned().collect()
    }

    fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("the load met no error");
        }
    }
}

#[test]
fn a_backup_under_load_holds_every_run_acknowledged_before_it_and_its_copy_holds_what_it_brought_until_it_is_released()
{
    let provider = Provider::start(HANGS);
    let home = Home::with_slot("backup-live", Some(&provider));
    let daemon = Arc::new(home.start());
    daemon.set_key("sk-test-of-a-backup-first");
    daemon.create_session("stuck");
    let stuck = daemon.submit("stuck", "hang on");
    provider.wait_asked("hang on", 1);
    let waiting = daemon.submit("stuck", "behind it");
    fs::create_dir_all(home.join("workspace/deep")).unwrap();
    fs::write(home.join("workspace/deep/marker.txt"), "a marker").unwrap();
    std::os::unix::fs::symlink("/nowhere/outside", home.join("workspace/link")).unwrap();

    let load = Load::start(&daemon);
    eventually("some runs", || (load.accepted().len() >= 20).then_some(()));
    let before = load.accepted();
    let (out, workspace) = (home.join("backup"), home.join("workspace"));
    let (code, stdout, stderr) = create(&home, &daemon, &out, &["--workspace", text(&workspace), "--output", "json"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    eventually("more runs", || (load.accepted().len() > before.len()).then_some(()));
    load.stop();
    let summary: Value = serde_json::from_str(&stdout).expect("a document");
    assert_eq!((&summary["ok"], &summary["live"]), (&json!(true), &json!(true)), "{summary}");
    for (path, mode) in modes(&out) {
        assert_eq!(mode, 0o600, "{}", path.display());
    }
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o7777, 0o700);
    // The act is on record, and the original has not noticed more than that.
    let audit = fs::read_to_string(home.root().join("control-plane-auth/audit.jsonl")).unwrap();
    assert!(audit.contains("/v1/backup/barrier"), "the barrier has its audit line");
    let originals = daemon.all_runs();
    // Overwriting the secret has made it ask again for the run that hangs; from here on only the copy could.
    Arc::into_inner(daemon).expect("the load has ended").stop();
    let asked = || provider.requests().iter().filter(|(_, body)| body.contains("hang on")).count();
    let asked_before = asked();

    let kept = summary["sha256"].as_str().unwrap();
    let (code, report) = home.command(&["backup", "verify", text(&out), "--sha256", kept]);
    assert_eq!(code, 0, "{report}");
    let (root, new_workspace) = (home.join("restored"), home.join("restored-workspace"));
    let (code, told) = restore(&home, &out, &root, &["--workspace-root", text(&new_workspace)]);
    assert_eq!(code, 0, "{told}");
    assert_eq!(fs::read_to_string(new_workspace.join("deep/marker.txt")).unwrap(), "a marker");
    assert_eq!(fs::read_link(new_workspace.join("link")).unwrap(), Path::new("/nowhere/outside"));
    for (path, mode) in modes(&root) {
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
    }
    home.assert_journal_verifies(&root);
    let (code, report) = home.command(&["audit", "verify", "--state-root", text(&root)]);
    assert_eq!(code, 0, "{report}");

    let copy = home.serve().root(&root).workspace(&new_workspace).start();
    let brought = copy.all_runs();
    let id = |run: &Value| run["run_id"].as_str().expect("an id").to_string();
    let ids: BTreeSet<String> = brought.iter().map(id).collect();
    assert_eq!(ids.len(), brought.len(), "a run is there twice");
    assert!(before.is_subset(&ids), "missing: {:?}", before.difference(&ids));
    let known: BTreeSet<String> = originals.iter().map(id).collect();
    assert!(ids.is_subset(&known), "never acknowledged: {:?}", ids.difference(&known));
    let (code, told, _) = home.cli(&copy, &["secrets", "get", SLOT]);
    assert_eq!(code, 0, "{told}");

    // What it brought waits, new work does not, and none of that is unhealthy.
    let status = copy.get("/v1/status").json();
    assert_eq!(status["health"]["ok"], json!(true), "{}", status["health"]);
    assert_eq!(status["runs"]["copy_held"], json!(true), "{}", status["runs"]);
    assert!(status["health"].to_string().contains("copied_runs_held"), "{}", status["health"]);
    copy.create_session("fresh");
    let fresh = copy.submit("fresh", "new work");
    assert_eq!(copy.wait_end(&fresh), "completed");
    assert!(!ids.contains(&fresh) && !known.contains(&fresh), "{fresh} was given out before");
    assert_eq!((copy.status_of(&stuck).as_str(), copy.status_of(&waiting).as_str()), ("running", "queued"));
    assert_eq!(asked(), asked_before, "the copy has called a model for a run that it brought");

    // A restart forgets neither.
    copy.stop();
    let copy = home.serve().root(&root).workspace(&new_workspace).start();
    let behind = copy.submit("stuck", "new, behind what was brought");
    assert_eq!((copy.status_of(&stuck).as_str(), copy.status_of(&behind).as_str()), ("running", "queued"));
    assert_eq!(asked(), asked_before);
    home.cli_json(&copy, &["runtime", "release", "--output", "json"]);
    provider.wait_asked("hang on", asked_before + 1);
    let status = copy.get("/v1/status").json();
    assert_eq!(status["runs"]["copy_held"], json!(false), "{}", status["runs"]);
    copy.post(&format!("/v1/runs/{stuck}/cancel"), &json!({}));
    assert_eq!(copy.wait_end(&waiting), "completed");
    assert_eq!(copy.wait_end(&behind), "completed");
    assert_eq!(copy.get("/v1/deliveries/hold").json()["held"], json!(false), "one release lets everything go");
}

#[test]
fn a_command_that_dies_leaves_no_backup_and_a_daemon_that_goes_on() {
    let home = Home::with_slot("backup-dies", None);
    let daemon = home.start();
    daemon.set_key("sk-test-of-a-backup-early");
    // Opens a barrier and never closes it, as a command does that was killed in between.
    let opened = daemon.post("/v1/backup/barrier", &json!({}));
    assert_eq!(opened.status, 200, "{opened:?}");
    let barrier = opened.json();
    // While it stands nobody else gets one, and runs are accepted.
    let second = daemon.post("/v1/backup/barrier", &json!({}));
    assert_eq!(second.refusal(), (409, "backup_in_progress".to_string()));
    daemon.create_session("s");
    daemon.submit("s", "meanwhile");
    // A change of the store waits until the barrier has fallen by itself, and then takes place.
    daemon.set_key("sk-test-of-a-backup-late");
    let id = barrier["barrier_id"].as_str().unwrap();
    let closed = daemon.post(&format!("/v1/backup/barrier/{id}/close"), &json!({}));
    assert_eq!((closed.status, &closed.json()["stood"]), (200, &json!(false)), "it had fallen before");
    let unknown = daemon.post(&format!("/v1/backup/barrier/{id}/close"), &json!({}));
    assert_eq!(unknown.refusal(), (404, "backup_barrier_unknown".to_string()));

    // A command that is killed while it copies leaves only what the next one takes for a leftover.
    let (root, out) = (home.root(), home.join("backup"));
    fs::write(root.join("blobs").join("0".repeat(64)), vec![7u8; 4 << 20]).unwrap();
    let mut command = Command::new(BINARY);
    command.env_clear().arg("--base-url").arg(daemon.base_url()).arg("--token-file").arg(home.token_file());
    command.args(["backup", "create", "--state-root", text(&root), "--out", text(&out), "--rate-mib-s", "1"]);
    let mut slow = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
    let partial = home.join(".backup.partial");
    eventually("a half-made backup", || partial.join("state.tar").exists().then_some(()));
    let (code, _, told) = create(&home, &daemon, &out, &[]);
    assert!(code == 1 && told.contains("another backup is being written"), "{told}");
    slow.kill().expect("a child of ours");
    slow.wait().expect("a child of ours");
    assert!(partial.exists() && !out.exists());
    let (code, told) = home.command(&["backup", "verify", text(&partial)]);
    assert!(code == 1 && told.contains("is no backup"), "{told}");
    fs::remove_file(root.join("blobs").join("0".repeat(64))).unwrap();
    let (code, _, told) = create(&home, &daemon, &out, &[]);
    assert_eq!(code, 0, "{told}");
    assert!(!partial.exists() && out.exists());
    // Nor is one backup written over another.
    let (code, _, told) = create(&home, &daemon, &out, &[]);
    assert!(code == 1 && told.contains("is no empty directory"), "{told}");
}

#[test]
fn a_daemon_killed_behind_its_barrier_starts_as_after_any_kill_and_the_command_makes_no_backup() {
    let home = Home::with_slot("backup-killed", None);
    let daemon = home.start();
    daemon.set_key("sk-test-of-a-backup-early");
    daemon.create_session("s");
    let run = daemon.submit("s", "before");
    assert_eq!(daemon.post("/v1/backup/barrier", &json!({})).status, 200);
    let acknowledged = daemon.submit("s", "behind the barrier");
    daemon.kill();

    let daemon = home.start();
    for run in [&run, &acknowledged] {
        assert_eq!(&daemon.run(run)["run_id"], run);
    }
    daemon.set_key("sk-test-of-a-backup-again");
    let base_url = daemon.base_url();
    daemon.kill();
    let (root, out) = (home.root(), home.join("backup"));
    let (code, told) =
        home.command(&["--base-url", &base_url, "backup", "create", "--state-root", text(&root), "--out", text(&out)]);
    assert_eq!(code, 3, "{told}");
    assert!(!out.exists() && !home.join(".backup.partial").exists());
}

#[test]
fn a_stopped_daemon_is_backed_up_under_its_lock_and_a_foreign_root_is_refused() {
    let home = Home::with_slot("backup-offline", None);
    let daemon = home.start();
    daemon.set_key("sk-test-of-a-backup-kept");
    daemon.create_session("s");
    let run = daemon.submit("s", "kept");
    let (root, out) = (home.root(), home.join("backup"));
    let offline = ["backup", "create", "--offline", "--state-root", text(&root), "--out", text(&out)];
    let (code, told) = home.command(&offline);
    assert!(code == 1 && told.contains("is held by process"), "{told}");

    // Files of another root are not taken for this daemon's.
    let other = Home::with_slot("backup-other", None);
    other.start().stop();
    let foreign = other.root();
    let arguments = ["backup", "create", "--state-root", text(&foreign), "--out", text(&out)];
    let (code, _, told) = home.cli(&daemon, &arguments);
    assert!(code == 1 && told.contains("uses another state root"), "{told}");
    daemon.set_key("sk-test-of-a-backup-not-paused");
    // Nor does a backup lie in what it copies.
    let inside = root.join("blobs/backup");
    let (code, _, told) = create(&home, &daemon, &inside, &[]);
    assert!(code == 1 && told.contains("which is copied"), "{told}");

    // Killed, so that the tail is neither sealed nor trimmed.
    daemon.kill();
    let (code, told) = home.command(&offline);
    assert_eq!(code, 0, "{told}");
    let (code, told) = home.command(&["backup", "verify", text(&out)]);
    assert_eq!(code, 0, "{told}");
    let copy_root = home.join("copy");
    let (code, told) = restore(&home, &out, &copy_root, &[]);
    assert_eq!(code, 0, "{told}");
    let copy = home.serve().root(&copy_root).start();
    assert_eq!(&copy.run(&run)["run_id"], &run);
}

#[test]
fn a_root_started_with_hold_begins_nothing_until_it_is_released() {
    let provider = Provider::start("");
    let home = Home::new("backup-hold", Some(&provider));
    let daemon = home.start();
    daemon.create_session("s");
    daemon.stop();
    let daemon = home.serve().options(&["--hold"]).start();
    let run = daemon.submit("s", "held");
    let held = daemon.get("/v1/deliveries/hold").json();
    assert_eq!(held["held"], json!(true), "{held}");
    assert_eq!(daemon.status_of(&run), "queued");
    home.cli_json(&daemon, &["runtime", "release", "--output", "json"]);
    assert_eq!(daemon.wait_end(&run), "completed");
    assert_eq!(daemon.get("/v1/deliveries/hold").json()["held"], json!(false));
}
