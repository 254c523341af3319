//! Which routes file a daemon runs with: on record, compared with the disk, and never replaced under a running daemon.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use std::fs;
use std::path::Path;

use daemon::{Daemon, Home, Provider, eventually};
use kheish_daemon::hex::to_hex;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

fn sha256(path: &Path) -> String {
    to_hex(digest(&SHA256, &fs::read(path).expect("the routes file")).as_ref())
}

fn drift(daemon: &Daemon) -> Value {
    daemon.get("/v1/runtime").json()["routes_file"]["drift"].clone()
}

fn until_drift(daemon: &Daemon, state: &str, is_right: impl Fn(&Value) -> bool) -> Value {
    eventually(state, || Some(drift(daemon)).filter(|drift| drift["state"] == state && is_right(drift)))
}

#[test]
fn a_routes_file_is_on_record_once_and_its_drift_shows_while_the_loaded_routes_stay() {
    let provider = Provider::start("[[turn]]\ntext = \"here\"\n");
    let home = Home::new("routes-drift", Some(&provider));
    let path = home.join("routes.toml");
    let (loaded, loaded_sha256) = (fs::read_to_string(&path).expect("the routes file"), sha256(&path));
    let daemon = home.start();

    let status = daemon.get("/v1/status").json();
    let source = &status["provider_readiness"]["routes_file"];
    assert_eq!((&source["path"], &source["sha256"]), (&json!(path), &json!(loaded_sha256)));
    assert_eq!(source["drift"]["state"], "in_sync");
    assert_eq!(source, &status["runtime"]["routes_file"]);
    let route = &status["runtime"]["routes"][0];
    assert_eq!((&route["route_id"], &route["is_default"]), (&status["runtime"]["route_id"], &json!(true)));
    assert_eq!(status["runtime"]["route_diagnostics"], json!([]));

    // A file that would load.
    let other = format!("{loaded}\n# another byte\n");
    fs::write(&path, &other).expect("written");
    let found = until_drift(&daemon, "changed", |drift| drift["sha256"] == json!(sha256(&path)));
    assert_eq!((&found["loads"], found.get("diagnostics")), (&json!(true), None), "{found}");
    let message = found["message"].as_str().expect("a message");
    assert!(message.contains(&loaded_sha256[..16]) && message.contains(&sha256(&path)[..16]), "{message}");
    let diagnostics = daemon.get("/v1/runtime").json()["route_diagnostics"].clone();
    assert_eq!((&diagnostics[0]["code"], &diagnostics[0]["severity"]), (&json!("route_file_drift"), &json!("warning")));

    // One that would not: the verdict says why, never what stands there; and runs go on as before.
    fs::write(&path, "[routes.main]\ndriver = 'openai'\ndefault_model = 'gpt-5.4'\nsk-live-0123456789 = 1\n")
        .expect("written");
    let found = until_drift(&daemon, "changed", |drift| drift["loads"] == false);
    let codes: Vec<&str> =
        found["diagnostics"].as_array().expect("a list").iter().filter_map(|it| it["code"].as_str()).collect();
    assert_eq!(codes, ["credential_missing", "unknown_key"]);
    assert!(!found.to_string().contains("sk-live"), "{found}");
    daemon.create_session("s");
    let run = daemon.submit("s", "are you there?");
    assert_eq!(daemon.wait_end(&run), "completed");

    fs::remove_file(&path).expect("removed");
    until_drift(&daemon, "unreadable", |drift| drift.get("sha256").is_none());
    fs::write(&path, &loaded).expect("written");
    until_drift(&daemon, "in_sync", |drift| drift.get("message").is_none());
    daemon.stop();

    // The same file is not recorded again, another one is.
    home.start().stop();
    fs::write(&path, &other).expect("written");
    let daemon = home.start();
    let source = daemon.get("/v1/runtime").json()["routes_file"].clone();
    daemon.stop();
    let records: Vec<Value> =
        home.records(&home.root(), &[]).into_iter().filter(|it| it["kind"] == "routes.loaded").collect();
    let digests: Vec<&Value> = records.iter().map(|record| &record["body"]["sha256"]).collect();
    assert_eq!(digests, [&json!(loaded_sha256), &json!(sha256(&path))]);
    assert_eq!(source["since_ms"], records[1]["at_ms"], "{source} {}", records[1]);
    home.assert_journal_verifies(&home.root());
}

#[test]
fn a_daemon_does_not_start_with_a_broken_file_and_says_where_it_is_broken() {
    let home = Home::new("routes-broken", None);
    let path = home.join("routes.toml");
    let good = fs::read_to_string(&path).expect("the routes file");
    fs::write(&path, format!("{good}failover = \"nowhere\"\nauth_reff = \"x\"\n")).expect("written");
    let (code, log) = home.serve().refused();
    assert_eq!(code, Some(1), "{log}");
    let file = format!("routes file {} cannot be used", path.display());
    for part in [
        file.as_str(),
        "line 7, column 1: route \"main\": `failover` names no route of this file; next: name one of its [routes.<id>] [failover_unknown]",
        "line 8, column 1: route \"main\": unknown key; next: did you mean `auth_ref`? [unknown_key]",
    ] {
        assert!(log.contains(part), "{part}\nis not in\n{log}");
    }
}
