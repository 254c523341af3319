//! Dead letters and failing targets among the other kinds of waiting, as status and `slo` tell them.
//! Owns: one mixed state. Never: waits for an age.

#[path = "support/daemon.rs"]
mod daemon;
mod delivery_support;
#[path = "support/http.rs"]
mod http;

use daemon::{Daemon, Home, Provider, eventually};
use delivery_support::{Answer, Receiver};
use serde_json::{Value, json};

const ASKS: &str = r#"
[[turn]]
match = "ask"
tool_calls = [{ name = "bash", arguments = '{"command":"git push"}' }]
"#;

fn level(home: &Home, daemon: &Daemon, profile: &str, id: &str) -> String {
    let args = ["--output", "json", "slo", "--profile", profile, "--interval", "10ms"];
    let (_, stdout, stderr) = home.cli(daemon, &args);
    let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
    let row = report["rows"].as_array().expect("rows").iter().find(|row| row["id"] == id).expect("the row");
    row["level"].as_str().expect("a level").to_string()
}

fn raises(daemon: &Daemon, code: &str) -> bool {
    daemon.get("/v1/status").json()["health"]["warnings"].to_string().contains(&format!("\"{code}\""))
}

#[test]
fn a_mixed_state_is_told_whole_and_each_kind_of_waiting_by_its_own_row() {
    let (provider, receiver) = (Provider::start(ASKS), Receiver::start());
    let home = Home::new("slo-delivery", Some(&provider));
    let quick = [("KHEISH_DELIVERY_INITIAL_RETRY_MS", "60000"), ("KHEISH_DELIVERY_MAX_RETRY_MS", "60000")];
    let daemon = home.serve().variables(&quick).options(&["--egress-allow-private", "connector"]).start();
    receiver.script("/gone", vec![Answer::Status(410, "", "gone")]);
    receiver.script("/busy", vec![Answer::Status(503, "", "later")]);
    daemon.create_session("s");
    daemon.create_session("t");
    assert_eq!(level(&home, &daemon, "production", "dead_letters"), "ok");
    for path in ["/gone", "/busy"] {
        let target = json!({"plugin": "http", "address": format!("http://{}{path}", receiver.address)});
        let reply = daemon.post("/v1/sessions/s/runs", &json!({"content": "go", "reply_targets": [target]}));
        assert_eq!(reply.status, 202, "{reply:?}");
    }
    let asking = daemon.submit("t", "ask");
    daemon.submit("t", "later");
    let delivery = || daemon.get("/v1/status").json()["delivery"].clone();
    let status = eventually("one dead letter and one retry", || {
        let status = daemon.get("/v1/status").json();
        let (delivery, runs) = (&status["delivery"], &status["runs"]);
        let there = delivery["unresolved_dead_lettered"] == 1 && delivery["retrying"] == 1;
        (there && runs["waiting_for_approval"] == 1 && runs["queued"] == 1).then_some(status.clone())
    });
    let figures = |name: &str| status["delivery"][name].clone();
    assert_eq!((figures("dead_lettered"), figures("pending"), figures("delivered")), (json!(1), json!(0), json!(0)));
    assert_eq!(figures("blocked_target_count"), json!(1));
    assert_eq!(status["runs"]["completed"], 2);
    assert_eq!(status["runs"]["oldest_waiting_for_approval_run_id"], json!(asking));
    assert!(raises(&daemon, "delivery_dead_letters") && raises(&daemon, "delivery_targets_blocked"));
    // The main thread looks twice a second for what has grown; a status does so as well.
    assert_eq!(delivery()["dead_letter_growth"]["windows_10m"], json!([1, 0, 0]));
    assert_eq!(level(&home, &daemon, "production", "dead_letters"), "page");
    assert_eq!(level(&home, &daemon, "staging", "dead_letters"), "warning");
    assert_eq!(level(&home, &daemon, "staging", "health"), "ok", "a dead letter in staging is its own row's affair");
    assert_eq!(level(&home, &daemon, "production", "pending"), "ok");
    let letters = daemon.get("/v1/deliveries?status=dead_lettered").json();
    let id = letters[0]["delivery_id"].as_str().expect("an id").to_string();
    home.cli_json(&daemon, &["deliveries", "resolve", &id, "--reason", "known"]);
    assert_eq!(level(&home, &daemon, "production", "health"), "ok");
    assert_eq!(level(&home, &daemon, "production", "dead_letters"), "warning", "it has grown, and is settled");
    let text = String::from_utf8(daemon.get("/metrics").body).expect("text");
    for line in [
        "kheish_delivery_dead_lettered_total 1",
        "kheish_delivery_unresolved_dead_lettered 0",
        "kheish_delivery_items{state=\"retrying\"} 1",
        "kheish_runs_pending{kind=\"approval\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let (code, ..) = home.cli(&daemon, &["runtime", "hold"]);
    assert_eq!(code, 0);
    daemon.kill();
    // What was dead before the restart is no growth after it.
    let daemon = home.serve().variables(&quick).options(&["--egress-allow-private", "connector"]).start();
    let again = daemon.get("/v1/status").json()["delivery"].clone();
    assert_eq!((&again["dead_lettered"], &again["dead_letter_growth"]["count"]), (&json!(1), &json!(0)));
    daemon.stop();
}
