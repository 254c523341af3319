//! Permissions, runtime configuration and debug capture with the real binary: the containment commands of the runbook,
//! what survives a restart, and what a window of debug capture keeps.
//! Owns: those scenarios. Never: needs a sandbox; whether a call may run is decided before it would.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use daemon::{Daemon, Home, Provider, TOKEN, eventually};
use serde_json::{Value, json};

/// The model asks for a shell and goes on with whatever it is told.
const ASKS_FOR_A_SHELL: &str = r#"
[[turn]]
match = "use the shell"
match_result = "permission_denied"
text = "Then not."

[[turn]]
match = "use the shell"
tool_calls = [{ name = "bash", arguments = '{"command":"git status"}' }]
"#;

const SECRET_SHAPED: &str = "sk-proj-0123456789abcdefghij";

/// A command of the operator, as the runbook has it; the printed document.
fn kheish(home: &Home, daemon: &Daemon, args: &[&str]) -> Value {
    let url = format!("http://{}", daemon.address);
    let (code, text) = home.command(&[&["--base-url", &url, "--token", TOKEN], args].concat());
    assert_eq!(code, 0, "{args:?}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
}

fn refused(home: &Home, daemon: &Daemon, args: &[&str]) -> (i32, String) {
    let url = format!("http://{}", daemon.address);
    home.command(&[&["--base-url", &url, "--token", TOKEN], args].concat())
}

fn waits_for_an_approval(daemon: &Daemon, session: &str) -> String {
    let run = daemon.submit(session, "use the shell");
    eventually("a run that waits", || (daemon.status_of(&run) == "waiting_for_approval").then_some(()));
    run
}

fn decisions(daemon: &Daemon, session: &str) -> Vec<(String, String)> {
    let page = daemon.get(&format!("/v1/sessions/{session}/permission-audits")).json();
    let entries = page["items"].as_array().unwrap_or_else(|| panic!("{page}")).iter();
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_string();
    entries.map(|entry| (text(entry, "decision"), text(entry, "effective_mode"))).collect()
}

#[test]
fn dont_ask_settles_what_waits_and_refuses_what_would_wait_in_every_session() {
    let provider = Provider::start(ASKS_FOR_A_SHELL);
    let home = Home::new("permissions-contain", Some(&provider));
    let daemon = home.start();
    for session in ["plain", "loose", "later"] {
        daemon.create_session(session);
    }
    kheish(&home, &daemon, &["sessions", "set-permission-mode", "loose", "accept-edits"]);
    let waiting = ["plain", "loose"].map(|session| waits_for_an_approval(&daemon, session));
    assert_eq!(daemon.get("/v1/status").json()["runs"]["waiting_for_approval"], 2);

    let answer = kheish(&home, &daemon, &["runtime", "set-permission-mode", "dont-ask"]);
    assert_eq!((&answer["permission_mode"], &answer["settled_approval_count"]), (&json!("dontAsk"), &json!(2)));
    for run in &waiting {
        assert_eq!(daemon.wait_end(run), "completed", "it goes on with what it was told");
    }
    let again = kheish(&home, &daemon, &["runtime", "set-permission-mode", "dont-ask"]);
    assert_eq!((&again["changed"], &again["config"]["revision"]), (&json!(false), &json!(1)));

    // From here on nothing waits, whatever a session has of its own.
    kheish(&home, &daemon, &["sessions", "set-permission-mode", "later", "default"]);
    let run = daemon.submit("later", "use the shell");
    assert_eq!(daemon.wait_end(&run), "completed");
    assert_eq!(decisions(&daemon, "later"), [("deny".to_string(), "dontAsk".to_string())]);
    let view = kheish(&home, &daemon, &["sessions", "settings", "later"]);
    assert_eq!(
        (&view["permission_mode"], &view["effective_permission_mode"], &view["contained"]),
        (&json!("default"), &json!("dontAsk"), &json!(true))
    );
    assert_eq!(daemon.get("/v1/status").json()["runs"]["waiting_for_approval"], 0);
    daemon.stop();
    home.assert_journal_verifies(&home.root());
    let resolved = home.records(&home.root(), &["--kind", "approval.resolved"]);
    assert_eq!(resolved.len(), 2);
    for record in resolved {
        assert_eq!(record["body"]["reason"], "permission_mode_dont_ask", "{record}");
        assert_eq!(record["by"]["role"], "admin", "the record names who contained: {record}");
    }
}

#[test]
fn a_sessions_own_dont_ask_settles_only_what_waits_in_it() {
    let provider = Provider::start(ASKS_FOR_A_SHELL);
    let home = Home::new("permissions-session", Some(&provider));
    let daemon = home.start();
    let runs = ["a", "b"].map(|session| {
        daemon.create_session(session);
        waits_for_an_approval(&daemon, session)
    });
    let view = kheish(&home, &daemon, &["sessions", "set-permission-mode", "a", "dont-ask"]);
    assert_eq!(view["settled_approval_count"], 1);
    assert_eq!(daemon.wait_end(&runs[0]), "completed");
    assert_eq!(daemon.status_of(&runs[1]), "waiting_for_approval");
    let first = decisions(&daemon, "a").pop().expect("newest first");
    assert_eq!(first.0, "ask", "the decision stands as it was made");
    daemon.stop();
}

#[test]
fn the_configuration_survives_kills_and_goes_back_by_rollback() {
    let home = Home::new("permissions-restart", None);
    let daemon = home.start();
    let rules = home.join("rules.json");
    std::fs::write(
        &rules,
        r#"[{"scope":"user","tool_name_pattern":"bash","argument":{"command_prefix":"git status"},"behavior":"allow"},
            {"scope":"project","tool_name_pattern":"*","argument":{"path":"secrets/**"},"behavior":"deny"}]"#,
    )
    .expect("writable");
    kheish(&home, &daemon, &["runtime", "permissions", "set-rules", "--file", rules.to_str().expect("UTF-8")]);
    kheish(&home, &daemon, &["runtime", "set-prompt", "Be brief."]);
    kheish(&home, &daemon, &["runtime", "set-model", "--route", "main", "another-model"]);
    daemon.create_session("ops");
    kheish(&home, &daemon, &["sessions", "set-permission-mode", "ops", "plan"]);
    kheish(&home, &daemon, &["runtime", "permissions", "add-rule", "deny", "web_*", "--reason", "no network"]);
    kheish(&home, &daemon, &["runtime", "set-permission-mode", "dont-ask"]);
    daemon.kill();

    let daemon = home.start();
    let runtime = kheish(&home, &daemon, &["runtime", "get"]);
    assert_eq!((&runtime["permission_mode"], &runtime["model"]), (&json!("dontAsk"), &json!("another-model")));
    assert_eq!((&runtime["permission_rule_count"], &runtime["config"]["revision"]), (&json!(3), &json!(5)));
    assert_eq!(runtime["system_prompt"]["custom_prompt"], "Be brief.");
    let check = |args: &[&str]| {
        let answer = kheish(&home, &daemon, &[&["runtime", "permissions", "check"], args].concat());
        answer["decision"].as_str().expect("a decision").to_string()
    };
    assert_eq!(check(&["bash", "--input-json", r#"{"command":"git status"}"#]), "allow", "a rule allows it");
    assert_eq!(check(&["bash", "--input-json", r#"{"command":"git status; rm -rf /"}"#]), "deny");
    assert_eq!(check(&["bash", "--input-json", r#"{"command":"ls"}"#, "--mode", "default"]), "ask");
    assert_eq!(
        check(&["read_file", "--input-json", r#"{"path":"secrets/key"}"#, "--mode", "bypass-permissions"]),
        "deny"
    );
    assert_eq!(check(&["web_fetch", "--mode", "bypassPermissions"]), "deny");
    assert_eq!(check(&["task_stop", "--session-id", "ops"]), "deny", "the session's own mode is plan");
    let (code, text) = refused(&home, &daemon, &["runtime", "permissions", "check", "bash", "--session-id", "nobody"]);
    assert_eq!(code, 5, "{text}");

    let (code, text) = refused(&home, &daemon, &["runtime", "rollback", "--expected-revision", "4"]);
    assert!(code == 6 && text.contains("revision 5 is in force, not 4"), "{code} {text}");
    kheish(&home, &daemon, &["runtime", "rollback", "--target-revision", "1", "--expected-revision", "5"]);
    let runtime = kheish(&home, &daemon, &["runtime", "get"]);
    assert_eq!((&runtime["permission_mode"], &runtime["model"]), (&json!("default"), &json!("scripted")));
    assert_eq!(runtime["permission_rule_count"], 2);
    let history = kheish(&home, &daemon, &["runtime", "history"]);
    let settings: Vec<&str> =
        history["revisions"].as_array().expect("a list").iter().filter_map(|entry| entry["setting"].as_str()).collect();
    assert_eq!(
        settings,
        ["rollback", "permission_mode", "permission_rules", "model", "system_prompt", "permission_rules", "default"]
    );
    daemon.stop();
    home.assert_journal_verifies(&home.root());
}

#[test]
fn routes_and_models_follow_the_submission_then_the_session_then_the_operator() {
    let provider = Provider::start("");
    let home = Home::new("permissions-routes", Some(&provider));
    let daemon = home.start();
    daemon.create_session("ops");
    let model_of = |body: Value| {
        let reply = daemon.post("/v1/sessions/ops/runs", &body);
        assert_eq!(reply.status, 202, "{reply:?}");
        let run = reply.json();
        daemon.wait_end(run["run_id"].as_str().expect("an id"));
        run["request"]["model"].as_str().expect("a model").to_string()
    };
    assert_eq!(model_of(json!({"content": "1"})), "scripted");
    kheish(&home, &daemon, &["runtime", "set-model", "operators"]);
    assert_eq!(model_of(json!({"content": "2"})), "operators");
    kheish(&home, &daemon, &["sessions", "set-route", "ops", "--model", "main/sessions"]);
    assert_eq!(model_of(json!({"content": "3"})), "sessions");
    assert_eq!(model_of(json!({"content": "4", "generation": {"model": "callers"}})), "callers");
    kheish(&home, &daemon, &["sessions", "set-route", "ops", "--clear"]);
    kheish(&home, &daemon, &["runtime", "set-model", "--reset"]);
    assert_eq!(model_of(json!({"content": "5"})), "scripted");
    for args in
        [&["runtime", "set-model", "--route", "nowhere"][..], &["sessions", "set-route", "ops", "--route", "nowhere"]]
    {
        let (code, text) = refused(&home, &daemon, args);
        assert!(code == 2 && text.contains("nowhere"), "{code} {text}");
    }
    daemon.stop();
}

#[test]
fn a_debug_window_keeps_exchanges_without_credentials_and_is_told_by_status() {
    let provider = Provider::start(ASKS_FOR_A_SHELL);
    let home = Home::new("debug-window", Some(&provider));
    let daemon = home.start();
    daemon.create_session("ops");
    let before = daemon.submit("ops", "nothing is kept of this");
    assert_eq!(daemon.wait_end(&before), "completed");
    let (code, text) = refused(&home, &daemon, &["runs", "debug", &before]);
    assert!(code == 5 && text.contains("has no debug capture"), "{code} {text}");

    let full = ["runtime", "set-debug-level", "full", "--ttl", "30m", "--ticket", "OPS-7"];
    let runtime = kheish(&home, &daemon, &full);
    assert_eq!((&runtime["debug_level"], &runtime["debug"]["ticket"]), (&json!("full"), &json!("OPS-7")));
    let left_ms = runtime["debug"]["ttl_ms"].as_u64().expect("a window");
    assert!(left_ms > 0 && left_ms <= 30 * 60 * 1_000, "{left_ms}");
    let status = daemon.get("/v1/status").json();
    assert_eq!((&status["runtime"]["debug_level"], &status["health"]["ok"]), (&json!("full"), &json!(true)));

    let run = daemon.submit("ops", &format!("my key is {SECRET_SHAPED}, use it well"));
    assert_eq!(daemon.wait_end(&run), "completed");
    let bundle = kheish(&home, &daemon, &["runs", "debug", &run]);
    let kinds: Vec<&str> = bundle["artifacts"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|entry| entry["content_kind"].as_str())
        .collect();
    assert_eq!(kinds, ["provider_request", "provider_response"]);
    assert_eq!(bundle["level"], "full");
    let id = bundle["artifacts"][0]["artifact_id"].as_str().expect("an id");
    let request = kheish(&home, &daemon, &["runs", "debug-artifact", &run, id]);
    assert!(request.to_string().contains("use it well") && !request.to_string().contains(SECRET_SHAPED), "{request}");
    let (code, text) = refused(&home, &daemon, &["runs", "debug-artifact", &run, "../../audit-signing.key"]);
    assert_eq!(code, 5, "{text}");

    // Without a ticket it is a warning; off is off.
    kheish(&home, &daemon, &["runtime", "set-debug-level", "full"]);
    let health = daemon.get("/v1/status").json()["health"].clone();
    assert_eq!(health["ok"], false, "{health}");
    assert!(health.to_string().contains("debug_capture_full"), "{health}");
    kheish(&home, &daemon, &["runtime", "set-debug-level", "off"]);
    let after = daemon.submit("ops", "nor of this");
    assert_eq!(daemon.wait_end(&after), "completed");
    assert_eq!(daemon.get(&format!("/v1/runs/{after}/debug")).status, 404);
    daemon.stop();
}

#[test]
fn turning_capture_off_ends_it_for_runs_under_way_too() {
    let provider = Provider::start("[[turn]]\nmatch = \"slow\"\ntimes = 1\nfault = { kind = \"hang\" }\n");
    let home = Home::new("debug-off", Some(&provider));
    let daemon = home.start();
    daemon.create_session("ops");
    kheish(&home, &daemon, &["runtime", "set-debug-level", "full", "--ticket", "OPS-8"]);
    let run = daemon.submit("ops", "slow one");
    provider.wait_asked("slow", 1);
    assert_eq!(daemon.get(&format!("/v1/runs/{run}/debug")).json()["artifacts"].as_array().map(Vec::len), Some(1));
    kheish(&home, &daemon, &["runtime", "set-debug-level", "off"]);
    daemon.kill();
    // The restart asks the model again.
    let daemon = home.start();
    assert_eq!(daemon.wait_end(&run), "completed");
    let kept = daemon.get(&format!("/v1/runs/{run}/debug")).json();
    assert_eq!(kept["artifacts"].as_array().map(Vec::len), Some(1), "{kept}");
    daemon.stop();
}

#[test]
fn evidence_is_pruned_by_age_and_held_where_an_operator_says_so() {
    let provider = Provider::start("");
    let home = Home::new("debug-prune", Some(&provider));
    let daemon = home.start();
    kheish(&home, &daemon, &["runtime", "set-debug-level", "redacted"]);
    let runs = ["a", "b"].map(|session| {
        daemon.create_session(session);
        let run = daemon.submit(session, "hello");
        assert_eq!(daemon.wait_end(&run), "completed");
        assert_eq!(daemon.get(&format!("/v1/runs/{run}/debug")).status, 200);
        run
    });
    let prune = |args: &[&str]| kheish(&home, &daemon, &[&["runs", "prune", "--older-than-ms", "1"], args].concat());
    assert_eq!(
        kheish(&home, &daemon, &["runs", "prune", "--older-than", "1d"])["pruned_count"],
        0,
        "nothing is so old"
    );
    assert_eq!(prune(&["--dry-run"])["pruned_count"], 2);
    kheish(&home, &daemon, &["runs", "retention-hold", &runs[0], "--reason", "case 12"]);
    let found = prune(&["--dry-run"]);
    assert_eq!(
        (&found["pruned_count"], &found["skipped"][0]),
        (&json!(1), &json!({"run_id": runs[0], "reason": "held"}))
    );
    assert_eq!(prune(&["--session-id", "a"])["pruned_count"], 0);
    let pruned = prune(&[]);
    assert_eq!((&pruned["pruned_count"], &pruned["pruned"][0]["run_id"]), (&json!(1), &json!(runs[1])));
    assert_eq!(daemon.get(&format!("/v1/runs/{}/debug", runs[1])).status, 404);
    assert_eq!(daemon.status_of(&runs[1]), "completed", "the run itself stays");
    daemon.kill();

    let daemon = home.start();
    let kept = daemon.get(&format!("/v1/runs/{}/debug", runs[0])).json();
    assert_eq!(kept["retention_hold"]["reason"], "case 12", "{kept}");
    kheish(&home, &daemon, &["runs", "retention-hold", &runs[0], "--release"]);
    let pruned = kheish(&home, &daemon, &["runs", "prune", "--older-than-ms", "1"]);
    assert_eq!(pruned["pruned_count"], 1);
    let (code, text) = refused(&home, &daemon, &["runs", "prune", "--older-than-ms", "0"]);
    assert!(code == 2 && text.contains("older_than_ms"), "{code} {text}");
    daemon.stop();
    let acts = home.records(&home.root(), &["--kind", "control.intent"]);
    assert!(acts.iter().any(|act| act["body"]["act"] == "debug.prune"), "a removal is on record before it happens");
}
