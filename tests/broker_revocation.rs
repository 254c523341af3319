//! Revocations through the real daemon: what falls at once, what is blocked from then on, and that a kill does not lift it.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use daemon::{Daemon, Home, Provider, SLOT};
use serde_json::{Value, json};

const HANG: &str = "[[turn]]\nmatch = \"hang\"\ntext = \"abcdef\"\nchunk_chars = 3\n\
                    fault = { kind = \"hang\", after_frames = 5 }\n";

/// The daemon, a session `s`, and a key in the slot.
fn start(test: &str, provider: &Provider) -> (Home, Daemon) {
    let home = Home::with_slot(test, Some(provider));
    let daemon = home.start();
    daemon.set_key("sk-secret-one-0123456789");
    daemon.create_session("s");
    (home, daemon)
}

fn post(daemon: &Daemon, path: &str, body: Value) -> Value {
    let reply = daemon.post(path, &body);
    assert_eq!(reply.status, 200, "{path}: {reply:?}");
    reply.json()
}

fn get(daemon: &Daemon, path: &str) -> Value {
    let reply = daemon.get(path);
    assert_eq!(reply.status, 200, "{path}: {reply:?}");
    reply.json()
}

fn revoke_slot(daemon: &Daemon, body: Value) -> Value {
    post(daemon, &format!("/v1/runtime/auth/slots/{SLOT}/revoke"), body)
}

/// The route's verdict: state and code.
fn readiness(daemon: &Daemon) -> (Value, Value) {
    let route = get(daemon, "/v1/status")["provider_readiness"]["routes"][0].clone();
    (route["state"].clone(), route["code"].clone())
}

/// A run whose call hangs at the provider.
fn hanging(daemon: &Daemon, provider: &Provider) -> String {
    let before = provider.requests().len();
    let run = daemon.submit("s", "hang");
    provider.wait_asked("hang", before + 1);
    run
}

/// Waits for the failure of a run; what it says.
fn failure(daemon: &Daemon, run: &str) -> String {
    assert_eq!(daemon.wait_end(run), "failed");
    daemon.run(run)["error"].to_string()
}

#[test]
fn a_leaked_key_stops_being_used_at_once_and_is_blocked_until_another_one_is_set() {
    let provider = Provider::start(HANG);
    let (home, daemon) = start("revoke-leaked", &provider);
    let run = hanging(&daemon, &provider);
    let lease = get(&daemon, "/v1/runtime/auth/leases")[0]["lease"]["id"].as_str().expect("a lease").to_string();

    let answer = home.cli_json(&daemon, &["runtime", "auth", "revoke-slot", SLOT, "--reason", "leaked"]);
    assert_eq!(
        (&answer["slot_id"], &answer["revoked_leases"], &answer["blocked"], &answer["current_version"]),
        (&json!(SLOT), &json!(1), &json!(true), &json!(1))
    );
    // The call that hung at the provider is over, and so is the run.
    let error = failure(&daemon, &run);
    assert!(error.contains("slot openai.prod was revoked"), "{error}");
    assert_eq!(provider.requests().len(), 1, "nothing more was asked with it");
    let view = home.cli_json(&daemon, &["runtime", "auth", "lease", &lease]);
    assert_eq!(
        (&view["revoked"], &view["active"], &view["end_reason"]),
        (&json!(true), &json!(false), &json!("slot_revoked"))
    );
    assert!(!view.to_string().contains("token_digest"), "{view}");

    assert_eq!(readiness(&daemon), (json!("error"), json!("slot_revoked")));
    let status = get(&daemon, "/v1/status");
    assert_eq!((&status["broker"]["blocked_slot_count"], &status["health"]["ok"]), (&json!(1), &json!(false)));
    let refused = daemon.try_submit("s", "hello");
    assert_eq!(refused.refusal(), (400, "route_not_ready".to_string()));
    assert!(String::from_utf8_lossy(&refused.body).contains("secrets set"), "{refused:?}");

    daemon.set_key("sk-secret-two-0123456789");
    assert_eq!(readiness(&daemon), (json!("ok"), json!("route_auth_ready")));
    let run = daemon.submit("s", "hello");
    assert_eq!(daemon.wait_end(&run), "completed");
    daemon.stop();
}

#[test]
fn a_key_that_was_set_before_the_revocation_stays_usable_and_with_keep_current_even_one_in_use() {
    let provider = Provider::start(HANG);
    let (_home, daemon) = start("revoke-rotated", &provider);
    let run = daemon.submit("s", "hello");
    assert_eq!(daemon.wait_end(&run), "completed");
    // The order of the rotation runbook: set, then revoke.
    assert_eq!(daemon.set_key("sk-secret-two-0123456789")["revoked_leases"], json!(0));
    let answer = revoke_slot(&daemon, Value::Null);
    assert_eq!((&answer["revoked_leases"], &answer["blocked"]), (&json!(0), &json!(false)), "{answer}");
    assert_eq!(readiness(&daemon), (json!("ok"), json!("route_auth_ready")));
    let run = daemon.submit("s", "hello");
    assert_eq!(daemon.wait_end(&run), "completed");
    // Under load somebody has used the new key already.
    let dry = revoke_slot(&daemon, json!({"dry_run": true}));
    assert_eq!((&dry["blocked"], &dry["dry_run"]), (&json!(true), &json!(true)));
    let kept = revoke_slot(&daemon, json!({"keep_current": true}));
    assert_eq!((&kept["blocked"], &kept["revoked_leases"]), (&json!(false), &json!(0)));
    assert_eq!(readiness(&daemon).0, json!("ok"));
    let blocked = revoke_slot(&daemon, json!({"reason": "and now for good"}));
    assert_eq!(blocked["blocked"], json!(true));
    assert_eq!(readiness(&daemon).1, json!("slot_revoked"));
    daemon.stop();
}

#[test]
fn a_key_overwritten_under_a_call_in_flight_ends_the_call_and_the_run_goes_on_with_the_new_one() {
    // The first such request hangs, the next one is answered.
    let script = "[[turn]]\nmatch = \"rotate\"\ntimes = 1\ntext = \"abc\"\nfault = { kind = \"hang\", after_frames = 3 }\n\
                  [[turn]]\nmatch = \"rotate\"\ntext = \"done\"\n";
    let provider = Provider::start(script);
    let (_home, daemon) = start("revoke-overwritten", &provider);
    let run = daemon.submit("s", "rotate");
    provider.wait_asked("rotate", 1);
    assert_eq!(daemon.set_key("sk-secret-two-0123456789")["revoked_leases"], json!(1));
    assert_eq!(daemon.wait_end(&run), "completed");
    assert_eq!(provider.requests().len(), 2);
    daemon.stop();
}

#[test]
fn a_revoked_session_loses_its_agents_leases_and_gets_none_until_it_is_reinstated() {
    let provider = Provider::start(HANG);
    let (home, daemon) = start("revoke-session", &provider);
    daemon.create_session("other");
    let run = hanging(&daemon, &provider);
    let agent = format!("agent:{}", daemon.run(&run)["agent_id"].as_str().expect("an agent"));
    let shown = home.cli_json(&daemon, &["runtime", "auth", "subject", &agent]);
    assert_eq!((&shown["revoked"], &shown["known"]), (&json!(false), &json!(true)));
    assert_eq!(shown["active_route_lease_ids"].as_array().map(Vec::len), Some(1));

    let dry = home.cli_json(&daemon, &["runtime", "auth", "revoke-subject", "session:s", "--dry-run"]);
    assert_eq!((&dry["dry_run"], &dry["revoked"], &dry["revoked_leases"]), (&json!(true), &json!(false), &json!(1)));
    assert_eq!(dry["affected_subjects"], json!([agent]));
    assert_eq!(daemon.status_of(&run), "running", "a dry run changes nothing");

    let revoked = home.cli_json(&daemon, &["runtime", "auth", "revoke-subject", "session:s", "--reason", "stolen"]);
    let parts =
        ["subject_id", "revoked", "known", "current_epoch", "revoked_leases", "reason"].map(|key| revoked[key].clone());
    assert_eq!(parts, [json!("session:s"), json!(true), json!(true), json!(1), json!(1), json!("stolen")]);
    assert_eq!(revoked["affected_subjects"], json!([agent]));
    assert!(revoked.get("active_route_lease_ids").is_none(), "{revoked}");
    let error = failure(&daemon, &run);
    assert!(error.contains("session:s, which is revoked") && error.contains("reinstate-subject"), "{error}");

    // Another session goes on; this one does not.
    let others = daemon.submit("other", "hello");
    assert_eq!(daemon.wait_end(&others), "completed");
    let refused = daemon.submit("s", "hello");
    assert_eq!(daemon.wait_end(&refused), "failed");
    home.cli_json(&daemon, &["runtime", "auth", "reinstate-subject", "session:s"]);
    let again = daemon.submit("s", "hello");
    assert_eq!(daemon.wait_end(&again), "completed");
    let listed = get(&daemon, "/v1/runtime/auth/subjects");
    assert_eq!((&listed[0]["subject_id"], &listed[0]["current_epoch"]), (&json!("session:s"), &json!(1)));
    daemon.stop();
}

#[test]
fn a_revoked_lease_ends_its_call_and_the_run_asks_for_another_lease() {
    let script = "[[turn]]\nmatch = \"once\"\ntimes = 1\ntext = \"abc\"\nfault = { kind = \"hang\", after_frames = 3 }\n\
                  [[turn]]\nmatch = \"once\"\ntext = \"done\"\n";
    let provider = Provider::start(script);
    let (home, daemon) = start("revoke-lease", &provider);
    let run = daemon.submit("s", "once");
    provider.wait_asked("once", 1);
    let lease = get(&daemon, "/v1/runtime/auth/leases")[0]["lease"]["id"].as_str().expect("a lease").to_string();
    let view = home.cli_json(&daemon, &["runtime", "auth", "revoke-lease", &lease]);
    assert_eq!(
        (&view["revoked"], &view["active"], &view["end_reason"]),
        (&json!(true), &json!(false), &json!("lease_revoked"))
    );
    assert_eq!(daemon.wait_end(&run), "completed");
    // Once more changes nothing; one that nobody knows is named.
    assert_eq!(home.cli_json(&daemon, &["runtime", "auth", "revoke-lease", &lease]), view);
    assert_eq!(home.cli(&daemon, &["runtime", "auth", "lease", "route-lease-abc123"]).0, 5);
    assert_eq!(home.cli(&daemon, &["runtime", "auth", "revoke-lease", "route-lease-abc123"]).0, 5);
    let all = get(&daemon, &format!("/v1/runtime/auth/leases?all=true&slot_id={SLOT}"));
    let reasons: Vec<&Value> = all.as_array().expect("a list").iter().map(|lease| &lease["end_reason"]).collect();
    assert_eq!(reasons, [&json!("released"), &json!("lease_revoked")], "newest first");
    daemon.stop();
}

#[test]
fn unknown_and_malformed_subjects_have_their_answers() {
    let provider = Provider::start("");
    let (home, daemon) = start("revoke-unknown", &provider);
    let revoked = home.cli_json(&daemon, &["runtime", "auth", "revoke-subject", "session:compromised-session"]);
    assert_eq!(
        (&revoked["revoked"], &revoked["known"], &revoked["revoked_leases"]),
        (&json!(true), &json!(false), &json!(0))
    );
    assert_eq!(home.cli(&daemon, &["runtime", "auth", "subject", "session:nobody"]).0, 5);
    assert_eq!(home.cli(&daemon, &["runtime", "auth", "reinstate-subject", "session:nobody"]).0, 5);
    let known = home.cli_json(&daemon, &["runtime", "auth", "subject", "session:s"]);
    assert_eq!((&known["known"], &known["current_epoch"]), (&json!(true), &json!(0)), "a session without leases");
    for bad in ["", "user:x", "session:", "daemon:x"] {
        assert_ne!(home.cli(&daemon, &["runtime", "auth", "revoke-subject", bad]).0, 0, "{bad:?}");
    }
    assert_eq!(daemon.get("/v1/runtime/auth/subjects/user%3Ax").refusal(), (400, "auth_subject_invalid".to_string()));
    let missing = daemon.post("/v1/runtime/auth/slots/openai.none/revoke", &Value::Null);
    assert_eq!(missing.refusal(), (404, "secret_not_found".to_string()));
    for body in [json!({"dry_runn": true}), json!({"dry_run": "yes"}), json!([])] {
        let reply = daemon.post("/v1/runtime/auth/subjects/session%3As/revoke", &body);
        assert_eq!(reply.status, 422, "{body}: {reply:?}");
    }
    daemon.stop();
}

#[test]
fn revocations_outlive_a_kill_right_after_their_answer() {
    let provider = Provider::start("");
    let home = Home::with_slot("revoke-kill", Some(&provider));
    let mut daemon = home.start();
    daemon.create_session("s");
    for round in 0..6u64 {
        daemon.set_key(&format!("sk-secret-round-{round}-0123456789"));
        let run = daemon.submit("s", "hello");
        assert_eq!(daemon.wait_end(&run), "completed");
        let subject = format!("session:round-{round}");
        match round % 2 {
            0 => assert_eq!(revoke_slot(&daemon, Value::Null)["blocked"], json!(true)),
            _ => drop(post(&daemon, &format!("/v1/runtime/auth/subjects/session%3Around-{round}/revoke"), Value::Null)),
        }
        daemon.kill();
        daemon = home.start();
        match round % 2 {
            0 => assert_eq!(readiness(&daemon), (json!("error"), json!("slot_revoked")), "round {round}"),
            _ => {
                let shown = home.cli_json(&daemon, &["runtime", "auth", "subject", &subject]);
                assert_eq!((&shown["revoked"], &shown["known"]), (&json!(true), &json!(false)), "round {round}");
            }
        }
        let ended = get(&daemon, "/v1/runtime/auth/leases?all=true");
        assert!(ended.as_array().expect("a list").iter().all(|lease| lease["active"] == json!(false)), "{ended}");
    }
    daemon.stop();
}

/// A version that was leased before a crash counts as leased after it, whatever else was lost.
#[test]
fn a_key_that_was_leased_before_a_kill_is_blocked_by_a_revocation_after_it() {
    let provider = Provider::start(HANG);
    let (home, daemon) = start("revoke-leased-kill", &provider);
    hanging(&daemon, &provider);
    daemon.kill();
    let daemon = home.start();
    let lease = get(&daemon, "/v1/runtime/auth/leases?all=true");
    assert_eq!(revoke_slot(&daemon, Value::Null)["blocked"], json!(true), "{lease}");
    daemon.stop();
}

#[test]
fn the_journal_and_the_brokers_log_name_who_revoked() {
    let provider = Provider::start("");
    let (home, daemon) = start("revoke-witness", &provider);
    revoke_slot(&daemon, json!({"reason": "leaked"}));
    post(&daemon, "/v1/runtime/auth/subjects/session%3As/revoke", json!({"reason": "stolen"}));
    daemon.stop();
    let acts: Vec<(String, String, Value)> = home
        .records(&home.root(), &["--kind", "control.intent"])
        .into_iter()
        .map(|record| {
            let body = if record["body"].is_object() { record["body"].clone() } else { record.clone() };
            let text = |key: &str| body[key].as_str().unwrap_or_default().to_string();
            (text("act"), text("target"), record["by"]["role"].clone())
        })
        .collect();
    let admin = |act: &str, target: &str| (act.to_string(), target.to_string(), json!("admin"));
    assert_eq!(acts, [admin("secret.put", SLOT), admin("slot.revoke", SLOT), admin("subject.revoke", "session:s")]);
    let log = std::fs::read_to_string(home.root().join("auth/broker.jsonl")).expect("the broker's log");
    let revoked: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON")["entry"].clone())
        .filter(|entry| entry["kind"].as_str().is_some_and(|kind| kind.ends_with(".revoked")))
        .collect();
    assert_eq!(revoked.len(), 2, "{log}");
    for (entry, kind, reason) in [(&revoked[0], "slot.revoked", "leaked"), (&revoked[1], "subject.revoked", "stolen")] {
        assert_eq!(
            (&entry["kind"], &entry["reason"], &entry["by"]["role"]),
            (&json!(kind), &json!(reason), &json!("admin"))
        );
        assert!(entry["by"]["request_id"].is_string() && entry["by"]["token"].is_string(), "{entry}");
    }
}
