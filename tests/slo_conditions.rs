//! Health codes produced for real: what an operator does or breaks, and the finding that follows.
//! Owns: those scenarios. Never: needs the finding's own threshold to pass by waiting.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use std::fs;
use std::path::Path;

use daemon::{Daemon, Home, Place, Provider, eventually};
use http::Client;
use kheish_daemon::api::status::health_codes::find;
use serde_json::{Value, json};

const READ_ONLY: &str = "read-only-token-of-a-test-0123456789";

const ASKS: &str = r#"
[[turn]]
match = "ask"
tool_calls = [{ name = "bash", arguments = '{"command":"git push"}' }]

[[turn]]
match = "hello"
text = "hello"
"#;

/// The findings as `severity code`, each checked against the table of codes.
fn findings(status: &Value) -> Vec<String> {
    let warnings = status["health"]["warnings"].as_array().cloned().unwrap_or_default();
    let found = warnings.iter().map(|warning| {
        let text = |name: &str| warning[name].as_str().unwrap_or_else(|| panic!("{warning} has no {name}"));
        let row = find(text("code")).unwrap_or_else(|| panic!("{warning} is in no row of the table"));
        assert!(row.severities.iter().any(|severity| severity.as_str() == text("severity")), "{warning}");
        assert!(!text("message").is_empty() && !text("action").is_empty(), "{warning}");
        format!("{} {}", text("severity"), text("code"))
    });
    found.collect()
}

fn raises(daemon: &Daemon, wanted: &str) {
    eventually(wanted, || findings(&daemon.get("/v1/status").json()).iter().any(|found| found == wanted).then_some(()));
}

fn settles(daemon: &Daemon, gone: &str) {
    eventually(gone, || (!findings(&daemon.get("/v1/status").json()).iter().any(|found| found == gone)).then_some(()));
}

fn read_only_daemon(home: &Home, place: &Place) -> Daemon {
    let file = place.file("read-only.token", READ_ONLY);
    home.serve().options(&["--http-readonly-token-file", &file.display().to_string()]).start()
}

#[test]
fn an_admin_token_that_is_gone_is_an_error_that_a_read_only_token_sees() {
    let (home, place) = (Home::new("conditions-admin", None), Place::new("conditions-tokens"));
    let daemon = read_only_daemon(&home, &place);
    let seen = || {
        let mut client = Client::connect(daemon.address, READ_ONLY).expect("connected");
        client.request("GET", "/v1/status", &[], "").expect("an answer").json()
    };
    let admin = fs::read_to_string(home.token_file()).expect("the token");
    fs::remove_file(home.token_file()).expect("removed");
    eventually("no admin token", || {
        findings(&seen()).contains(&"error control_plane_admin_auth_unavailable".to_string()).then_some(())
    });
    let status = seen();
    let warnings = status["health"]["warnings"].as_array().expect("warnings");
    let warning = warnings.iter().find(|warning| warning["code"] == "control_plane_admin_auth_unavailable");
    assert_eq!(warning.expect("the finding")["related_id"], home.token_file().display().to_string());
    assert_eq!((&status["health"]["ok"], &status["ready"]), (&json!(false), &json!(true)));
    home_file(home.token_file(), &admin);
    eventually("the token again", || (seen()["health"]["ok"] == true).then_some(()));
    daemon.stop();
}

fn home_file(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes())).expect("written");
}

#[test]
fn a_key_in_the_routes_file_and_its_change_are_information() {
    let place = Place::new("conditions-routes");
    let routes = "version = 1\n[routes.main]\ndriver = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
                  default_model = \"m\"\nmodel_support = \"any\"\napi_key = \"sk-inline-0123456789abcdef\"\n";
    let home = Home::with_routes(place, routes);
    let daemon = home.start();
    raises(&daemon, "info provider_inline_credentials");
    assert_eq!(daemon.get("/v1/status").json()["health"]["ok"], true);
    home_file(&home.join("routes.toml"), &format!("{routes}# edited\n"));
    raises(&daemon, "info provider_readiness_warning");
    raises(&daemon, "info route_diagnostics_warning");
    assert_eq!(daemon.get("/v1/status").json()["health"]["ok"], true);
    daemon.stop();
}

#[test]
fn lag_is_listed_from_the_thresholds_that_the_daemon_was_given() {
    let provider = Provider::start(ASKS);
    let home = Home::new("conditions-lag", Some(&provider));
    let options = ["--queued-run-lag-threshold-ms", "1", "--stale-run-threshold-ms", "1"];
    let daemon = home.serve().options(&options).start();
    daemon.create_session("s");
    let asking = daemon.submit("s", "ask");
    eventually("it waits", || (daemon.status_of(&asking) == "waiting_for_approval").then_some(()));
    let queued = daemon.submit("s", "hello");
    raises(&daemon, "info queued_run_lag");
    raises(&daemon, "info stale_non_terminal_runs");
    let status = daemon.get("/v1/status").json();
    let runs = &status["runs"];
    assert_eq!(
        (
            &runs["oldest_queued_behind_active_run_id"],
            &runs["oldest_queued_behind_run_id"],
            &runs["oldest_queued_behind_run_status"],
            &runs["oldest_waiting_for_approval_run_id"],
        ),
        (&json!(queued), &json!(asking), &json!("waiting_for_approval"), &json!(asking))
    );
    assert_eq!((&runs["stale_non_terminal_run_count"], &status["health"]["ok"]), (&json!(2), &json!(true)));
    daemon.kill();
    // The same state, found again after a kill.
    let daemon = home.serve().options(&options).start();
    raises(&daemon, "info queued_run_lag");
    let again = daemon.get("/v1/status").json()["runs"].clone();
    for field in ["oldest_queued_behind_run_id", "oldest_waiting_for_approval_run_id", "stale_non_terminal_run_ids"] {
        assert_eq!(again[field], runs[field], "{field}");
    }
    assert!(
        again["oldest_waiting_for_approval_age_ms"].as_u64() >= runs["oldest_waiting_for_approval_age_ms"].as_u64(),
        "the age goes on across a kill"
    );
    daemon.post(&format!("/v1/runs/{asking}/cancel"), &json!({}));
    assert_eq!(daemon.wait_end(&queued), "completed");
    settles(&daemon, "info queued_run_lag");
    settles(&daemon, "info stale_non_terminal_runs");
    daemon.stop();
}

#[test]
fn debug_capture_is_told_and_what_it_cannot_keep_is_counted_and_forgotten() {
    let provider = Provider::start(ASKS);
    let home = Home::new("conditions-debug", Some(&provider));
    let daemon = home.start();
    let (code, ..) = home.cli(&daemon, &["runtime", "set-debug-level", "on"]);
    assert_eq!(code, 0);
    raises(&daemon, "info debug_capture_on");
    daemon.create_session("s");
    // What stands where a run's artifacts would be cannot be written into, by root neither.
    let debug = home.root().join("debug");
    fs::remove_dir_all(&debug).expect("removed");
    fs::write(&debug, "no folder").expect("written");
    let run = daemon.submit("s", "hello");
    assert_eq!(daemon.wait_end(&run), "completed", "a run does not depend on what is kept of it");
    raises(&daemon, "warning debug_artifact_persist_failures");
    let status = daemon.get("/v1/status").json();
    assert!(status["runtime"]["debug_capture"]["debug_artifact_persist_failures"].as_u64() > Some(0));
    assert_eq!(status["health"]["ok"], false);
    daemon.stop();
}

#[test]
fn a_daemon_that_everybody_reaches_without_a_token_is_unhealthy() {
    let home = Home::new("conditions-open", None);
    let daemon = home.serve().without_token().options(&["--http-auth-mode", "none", "--bind", "0.0.0.0:0"]).spawn();
    match daemon.listening() {
        Ok(daemon) => {
            raises(&daemon, "error control_plane_auth_disabled_off_loopback");
            daemon.stop();
        }
        Err((status, log)) => {
            // Refusing such a start is the stronger answer.
            assert!(!status.success() && log.contains("next:"), "{log}");
        }
    }
}

#[test]
fn without_routes_nothing_is_unhealthy_and_slo_calls_somebody() {
    let home = Home::with_routes(Place::new("conditions-none"), "version = 1\n");
    match home.serve().spawn().listening() {
        Ok(daemon) => {
            raises(&daemon, "info routes_missing");
            assert_eq!(daemon.get("/v1/status").json()["provider_readiness"]["active_route_state"], "none");
            daemon.stop();
        }
        Err((_, log)) => assert!(log.contains("next:"), "{log}"),
    }
}
