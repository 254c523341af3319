//! The broker's log with the real daemon around it: what it costs, what a start makes of a damaged or missing one.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
#[path = "support/strace.rs"]
mod strace;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use daemon::{Daemon, Home, Provider, SLOT, eventually};
use serde_json::{Value, json};

fn log_path(home: &Home) -> PathBuf {
    home.root().join("auth/broker.jsonl")
}

fn entries(home: &Home) -> Vec<Value> {
    let text = fs::read_to_string(log_path(home)).expect("the log");
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    whole.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["entry"].clone()).collect()
}

fn count(home: &Home, kind: &str) -> usize {
    entries(home).iter().filter(|entry| entry["kind"] == json!(kind)).count()
}

fn revoke(daemon: &Daemon, path: &str) -> Value {
    let reply = daemon.post(path, &Value::Null);
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

fn revoke_slot(daemon: &Daemon) -> Value {
    revoke(daemon, &format!("/v1/runtime/auth/slots/{SLOT}/revoke"))
}

/// A daemon on which one run has used the key of the slot.
fn used(test: &str, provider: &Provider) -> (Home, Daemon) {
    let home = Home::with_slot(test, Some(provider));
    let daemon = home.start();
    daemon.set_key("sk-secret-one-0123456789");
    daemon.create_session("s");
    let run = daemon.submit("s", "hello");
    assert_eq!(daemon.wait_end(&run), "completed");
    (home, daemon)
}

#[test]
fn leases_are_recorded_without_a_sync_of_their_own_and_a_revocation_with_one() {
    let test = "leases_are_recorded_without_a_sync_of_their_own_and_a_revocation_with_one";
    if !strace::is_usable(test) {
        return;
    }
    let provider = Provider::start("");
    let home = Home::with_slot("broker-log-syncs", Some(&provider));
    drop(home.start().stop());
    let report = home.join("syncs");
    let words = ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-e", "trace=fdatasync,fsync", "-o"];
    let mut wrapper: Vec<String> = words.map(str::to_string).into();
    wrapper.push(report.display().to_string());
    wrapper.extend(["-P".to_string(), log_path(&home).display().to_string()]);
    let daemon = home.serve().under(&wrapper).start();
    daemon.set_key("sk-secret-one-0123456789");
    daemon.create_session("s");
    let syncs = || fs::read_to_string(&report).unwrap_or_default().matches("sync(").count();
    for _ in 0..30 {
        let run = daemon.submit("s", "hello");
        assert_eq!(daemon.wait_end(&run), "completed");
    }
    eventually("the leases on record", || (count(&home, "lease.issued") >= 30).then_some(()));
    eventually("their ends on record", || (count(&home, "lease.ended") >= 30).then_some(()));
    assert_eq!(syncs(), 1, "the first lease of a secret, and no other");
    assert_eq!(revoke_slot(&daemon)["blocked"], json!(true));
    assert_eq!(syncs(), 2);
    daemon.stop();
    assert_eq!(fs::metadata(log_path(&home)).unwrap().permissions().mode() & 0o777, 0o600);
    let kinds: Vec<Value> = entries(&home).iter().map(|entry| entry["kind"].clone()).take(4).collect();
    assert_eq!(kinds, [json!("log.opened"), json!("daemon.started"), json!("daemon.started"), json!("slot.set")]);
}

#[test]
fn an_incomplete_end_is_cut_and_said_so_and_nothing_before_it_is_lost() {
    let provider = Provider::start("");
    let (home, daemon) = used("broker-log-torn", &provider);
    revoke(&daemon, "/v1/runtime/auth/subjects/session%3Aone/revoke");
    daemon.kill();
    let before = fs::read(log_path(&home)).unwrap();
    fs::write(log_path(&home), [&before[..], b"{\"chain\":\"00"].concat()).unwrap();
    let daemon = home.start();
    let log = daemon.get("/v1/status").json()["broker"]["log"].clone();
    assert_eq!(log["cut_bytes"], json!(12));
    assert!(daemon.log().contains("bytes of an incomplete end were cut"));
    let shown = daemon.get("/v1/runtime/auth/subjects/session%3Aone").json();
    assert_eq!(shown["revoked"], json!(true));
    assert_eq!(revoke_slot(&daemon)["blocked"], json!(true), "the key was leased before");
    daemon.stop();
}

#[test]
fn a_log_damaged_before_its_end_is_refused_with_the_line_and_the_way_out() {
    let provider = Provider::start("");
    let (home, daemon) = used("broker-log-damaged", &provider);
    revoke(&daemon, "/v1/runtime/auth/subjects/session%3Aone/revoke");
    daemon.stop();
    let before = fs::read(log_path(&home)).unwrap();
    let at = before.windows(9).position(|window| window == b"slot.set\"").unwrap();
    let mut damaged = before.clone();
    damaged[at] = b'X';
    fs::write(log_path(&home), &damaged).unwrap();
    let (code, log) = home.serve().refused();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("broker.jsonl is damaged at line 3") && log.contains("next: restore auth/"), "{log}");
    assert_eq!(fs::read(log_path(&home)).unwrap(), damaged, "evidence is left as it is");
    fs::write(log_path(&home), &before).unwrap();
    home.start().stop();
}

#[test]
fn without_its_log_every_secret_counts_as_leased() {
    let provider = Provider::start("");
    let (home, daemon) = used("broker-log-missing", &provider);
    daemon.set_key("sk-secret-two-0123456789");
    daemon.stop();
    fs::remove_file(log_path(&home)).unwrap();
    let daemon = home.start();
    assert_eq!(revoke_slot(&daemon)["blocked"], json!(true), "nobody can tell that it was not");
    daemon.set_key("sk-secret-three-0123456789");
    assert_eq!(revoke_slot(&daemon)["blocked"], json!(false), "this one was set under our eyes");
    daemon.stop();
}

/// A backup of the store that is older than the log: versions that the log knows are not used again.
#[test]
fn a_store_older_than_its_log_gets_no_version_that_was_revoked() {
    let provider = Provider::start("");
    let (home, daemon) = used("broker-log-older-store", &provider);
    let store = home.root().join("auth/global-slots.json");
    let old = fs::read(&store).unwrap();
    daemon.set_key("sk-secret-two-0123456789");
    let run = daemon.submit("s", "hello");
    assert_eq!(daemon.wait_end(&run), "completed");
    assert_eq!((&revoke_slot(&daemon)["blocked"], &revoke_slot(&daemon)["current_version"]), (&json!(true), &json!(2)));
    daemon.stop();
    fs::write(&store, old).unwrap();
    let daemon = home.start();
    let code = |daemon: &Daemon| daemon.get("/v1/status").json()["provider_readiness"]["routes"][0]["code"].clone();
    assert_eq!(code(&daemon), json!("slot_revoked"), "the older secret is no better");
    assert_eq!(daemon.set_key("sk-secret-three-0123456789")["version"], json!(3));
    assert_eq!(code(&daemon), json!("route_auth_ready"));
    daemon.stop();
}
