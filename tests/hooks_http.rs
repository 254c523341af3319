//! Hooks over HTTP and hooks that are told from the journal, with the real binary: credentials and signatures, retries, redirects,
//! names that lead inside, kills at the worst moment, copies.
//! Owns: those scenarios. Never: reaches beyond this host.

#[path = "support/daemon.rs"]
mod daemon;
mod delivery_support;
#[path = "support/http.rs"]
mod http;
#[path = "support/skip.rs"]
mod skip;

use daemon::{Daemon, Home, Provider, Serve, eventually};
use delivery_support::{Answer, Receiver, Seen};
use ring::hmac;
use serde_json::{Value, json};

const ASKS_FOR_A_SHELL: &str = r#"
[[turn]]
match = "use the shell"
match_result = "{"
text = "Done."

[[turn]]
match = "use the shell"
tool_calls = [{ name = "bash", arguments = '{"command":"echo ran >> mark"}', call_id = "c1" }]

[default]
text = "Hello."
"#;

struct Stage {
    _provider: Provider,
    home: Home,
    receiver: Receiver,
}

impl Stage {
    fn new(test: &str) -> Self {
        let provider = Provider::start(ASKS_FOR_A_SHELL);
        let home = Home::with_slot(test, Some(&provider));
        Self { _provider: provider, home, receiver: Receiver::start() }
    }

    fn serve(&self) -> Serve<'_> {
        self.home.serve().options(&["--sandbox", "off", "--egress-allow-private", "hook"])
    }

    fn start(&self) -> Daemon {
        let daemon = self.serve().start();
        daemon.set_key("sk-test-of-hooks-0123456789");
        let reply = daemon.post("/v1/runtime/permission-mode", &json!({"mode": "bypassPermissions"}));
        assert_eq!(reply.status, 200, "{reply:?}");
        daemon
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.receiver.address)
    }

    fn http(&self, name: &str, path: &str, more: Value) -> Value {
        let mut hook = json!({"name": name, "executor": {"type": "http", "url": self.url(path), "timeout_ms": 20_000}});
        for (field, value) in more.as_object().cloned().unwrap_or_default() {
            match field.as_str() {
                "auth" | "signature" => hook["executor"][field] = value,
                _ => hook[field] = value,
            }
        }
        hook
    }

    fn result(&self, run: &str) -> Value {
        let finished = self.home.records(&self.home.root(), &["--kind", "tool_call.finished"]);
        finished.iter().rfind(|record| record["run"] == run).cloned().unwrap_or_default()["body"].clone()
    }

    fn marks(&self) -> usize {
        std::fs::read_to_string(self.home.join("workspace").join("mark")).unwrap_or_default().lines().count()
    }
}

fn set(daemon: &Daemon, event: &str, hooks: &[Value]) {
    let reply = daemon.post("/v1/runtime/hooks", &json!({"hooks": {event: hooks}}));
    assert_eq!(reply.status, 200, "{reply:?}");
}

fn slot(daemon: &Daemon, id: &str, value: &str) {
    let record = json!({"slot_id": id, "provider": "generic", "mode": "opaque_secret", "state": {"value": value}});
    let reply = daemon.post("/v1/runtime/secrets", &record);
    assert_eq!(reply.status, 200, "{reply:?}");
}

fn body(seen: &Seen) -> Value {
    serde_json::from_str(&seen.body).unwrap()
}

fn letters(daemon: &Daemon) -> Vec<Value> {
    daemon.get("/v1/runtime/hooks/dead-letter").json()["dead_letters"].as_array().unwrap().clone()
}

#[test]
fn a_guard_over_http_proves_who_asks_and_its_word_is_narrowed_to_no() {
    let stage = Stage::new("hooks-http-guard");
    let daemon = stage.start();
    slot(&daemon, "hooks.token", "token-of-the-hook-012345");
    slot(&daemon, "hooks.key", "key-of-the-hook-01234567");
    let credentials = json!({"auth": {"secret_ref": "hooks.token"}, "signature": {"secret_ref": "hooks.key"}});
    set(&daemon, "pre_tool_use", &[stage.http("guard", "/guard?a=1", credentials)]);
    // It may say yes as loudly as it likes: the rules refuse the command.
    stage
        .receiver
        .script("/guard?a=1", vec![Answer::Status(200, "", r#"{"permission":"allow","decision":"approve"}"#)]);
    daemon.create_session("s");
    let run = daemon.submit("s", "use the shell");
    assert_eq!(daemon.wait_end(&run), "completed");
    assert_eq!((stage.result(&run)["outcome"].clone(), stage.marks()), (json!("ok"), 1));
    let seen = stage.receiver.at("/guard?a=1");
    assert_eq!(seen.len(), 1);
    let (headers, told) = (&seen[0].headers, body(&seen[0]));
    assert_eq!(headers["authorization"], "Bearer token-of-the-hook-012345");
    let signed = format!("v1:POST:/guard?a=1:{}:{}", headers["x-kheish-timestamp"], seen[0].body);
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"key-of-the-hook-01234567"), signed.as_bytes());
    let hex: String = mac.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(headers["x-kheish-signature"], format!("v1={hex}"));
    assert_eq!(
        (&told["event"], &told["subject"], &told["run_id"], &told["payload"]["tool_input"]["command"]),
        (&json!("pre_tool_use"), &json!("bash"), &json!(run), &json!("echo ran >> mark"))
    );
    let status = daemon.get("/v1/status").json()["hooks"]["diagnostics"].clone();
    assert_eq!(status, json!([]), "both slots are there");
    // A slot that a hook names cannot be deleted.
    let reply = daemon.client().request("DELETE", "/v1/runtime/secrets/hooks.key", &[], "").unwrap();
    assert_eq!(reply.refusal(), (409, "secret_conflict".to_string()));
    // Neither secret is anywhere but in the store.
    let actions = daemon.get(&format!("/v1/runs/{run}/external-actions")).json().to_string();
    assert!(actions.contains("hook_http:pre_tool_use:guard:127.0.0.1:"), "{actions}");
    assert!(!actions.contains("of-the-hook") && !daemon.log().contains("of-the-hook"));
    // A rule that denies is not overruled, and the hook is not even asked.
    let rules = json!({"rules": [{"scope": "project", "tool_name_pattern": "bash", "behavior": "deny"}]});
    let reply = daemon.client().request("PUT", "/v1/runtime/permissions/rules", &[], &rules.to_string()).unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    let run = daemon.submit("s", "use the shell");
    assert_eq!(daemon.wait_end(&run), "completed");
    assert_eq!((stage.result(&run)["outcome"].clone(), stage.marks()), (json!("denied"), 1));
    assert_eq!(stage.receiver.at("/guard?a=1").len(), 1, "nothing was to be decided");
    // Taken away, the credential closes the guard.
    let reply = daemon.client().request("PUT", "/v1/runtime/permissions/rules", &[], r#"{"rules":[]}"#).unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    let reply = daemon.post("/v1/runtime/auth/subjects/hook:guard/revoke", &Value::Null);
    assert_eq!(reply.status, 200, "{reply:?}");
    let run = daemon.submit("s", "use the shell");
    assert_eq!(daemon.wait_end(&run), "completed");
    assert_eq!((stage.result(&run)["outcome"].clone(), stage.marks()), (json!("denied"), 1));
    assert_eq!(letters(&daemon).last().unwrap()["class"], "credential_refused");
    let codes = daemon.get("/v1/status").json()["hooks"]["diagnostics"].to_string();
    assert!(codes.contains("subject_revoked") && codes.contains("reinstate-subject hook:guard"), "{codes}");
    daemon.stop();
    stage.home.assert_journal_verifies(&stage.home.root());
}

#[test]
fn arguments_of_a_hook_are_held_to_the_rules_and_a_question_of_a_hook_is_put_to_a_person() {
    let stage = Stage::new("hooks-http-narrow");
    let daemon = stage.start();
    let reply = daemon.post("/v1/runtime/permission-mode", &json!({"mode": "default"}));
    assert_eq!(reply.status, 200, "{reply:?}");
    let rules = json!({"rules": [
        {"scope": "project", "tool_name_pattern": "bash", "behavior": "allow"},
        {"scope": "project", "tool_name_pattern": "bash", "argument": {"command_prefix": "touch"}, "behavior": "deny"}]});
    let put = daemon.client().request("PUT", "/v1/runtime/permissions/rules", &[], &rules.to_string()).unwrap();
    assert_eq!(put.status, 200, "{put:?}");
    set(&daemon, "pre_tool_use", &[stage.http("guard", "/guard", json!({}))]);
    daemon.create_session("s");
    let widened = r#"{"updated_input":{"command":"touch widened"}}"#;
    stage.receiver.script("/guard", vec![Answer::Status(200, "", widened)]);
    let run = daemon.submit("s", "use the shell");
    assert_eq!(daemon.wait_end(&run), "completed");
    let result = stage.result(&run);
    assert!(result["content"].as_str().unwrap().contains("hook_input_refused"), "{result}");
    assert!(!stage.home.join("workspace").join("widened").exists());
    // Arguments that no schema takes.
    stage.receiver.script("/guard", vec![Answer::Status(200, "", r#"{"updated_input":{"cmd":1}}"#)]);
    let allow = json!({"rules": [{"scope": "project", "tool_name_pattern": "bash", "behavior": "allow"}]});
    let put = daemon.client().request("PUT", "/v1/runtime/permissions/rules", &[], &allow.to_string()).unwrap();
    assert_eq!(put.status, 200, "{put:?}");
    let run = daemon.submit("s", "use the shell");
    assert_eq!(daemon.wait_end(&run), "completed");
    assert!(stage.result(&run)["content"].as_str().unwrap().contains("hook_input_refused"));
    assert_eq!(stage.marks(), 0);
    // Narrower arguments run, and the model is told.
    stage
        .receiver
        .script("/guard", vec![Answer::Status(200, "", r#"{"updated_input":{"command":"echo mine >> mark"}}"#)]);
    let run = daemon.submit("s", "use the shell");
    assert_eq!(daemon.wait_end(&run), "completed");
    let result = stage.result(&run);
    assert!(result["content"].as_str().unwrap().contains("a hook changed the arguments"), "{result}");
    assert_eq!(stage.marks(), 1);
    // A question of the hook: nothing runs before a person has answered, and the answer is for this call only.
    stage.receiver.script("/guard", vec![Answer::Status(200, "", r#"{"permission":"ask","stop_reason":"sure?"}"#)]);
    for (behavior, marks) in [("deny", 1), ("allow", 2)] {
        let run = daemon.submit("s", "use the shell");
        eventually("a run that waits", || (daemon.status_of(&run) == "waiting_for_approval").then_some(()));
        let asked = daemon.run(&run)["pending_approvals"][0].clone();
        assert!(asked["reason"].as_str().unwrap().contains("hook guard: sure?"), "{asked}");
        assert_eq!(stage.marks(), 1);
        let decision = json!({"resolutions": [{"request_id": asked["id"], "behavior": behavior}]});
        let reply = daemon.post(&format!("/v1/runs/{run}/approvals"), &decision);
        assert_eq!(reply.status, 202, "{reply:?}");
        assert_eq!(daemon.wait_end(&run), "completed");
        assert_eq!(stage.marks(), marks, "{behavior}");
    }
    daemon.stop();
}

#[test]
fn attempts_share_a_key_and_a_redirect_leads_nowhere() {
    let stage = Stage::new("hooks-http-retry");
    let daemon = stage.start();
    let policy = json!({"failure_policy": {"mode": "closed", "max_retries": 2}});
    set(&daemon, "pre_tool_use", &[stage.http("guard", "/guard", policy)]);
    let unavailable = Answer::Status(503, "", "{}");
    stage.receiver.script("/guard", vec![unavailable, Answer::Reset, Answer::Status(200, "", "")]);
    daemon.create_session("s");
    let run = daemon.submit("s", "use the shell");
    assert_eq!(daemon.wait_end(&run), "completed");
    assert_eq!(stage.marks(), 1);
    let seen = stage.receiver.at("/guard");
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|one| one.key() == seen[0].key() && one.body == seen[0].body), "{seen:#?}");
    assert_eq!(daemon.get("/v1/status").json()["hooks"]["retry_count"], 2);

    for (answer, class) in [
        (Answer::Status(302, "location: http://169.254.169.254/latest/meta-data\r\n", ""), "status"),
        (Answer::Status(307, "location: http://127.0.0.1:1/\r\n", ""), "status"),
        (Answer::Status(403, "", "{}"), "status"),
        (Answer::HugeBody, "answer_too_large"),
        (Answer::Raw(b"garbage\r\n\r\n".to_vec()), "protocol"),
        (Answer::Status(200, "", "<html>{}</html>"), "answer_malformed"),
    ] {
        stage.receiver.script("/guard", vec![answer]);
        let before = stage.receiver.at("/guard").len();
        // In a session of its own: a model that repeats a failing call would be stopped for that.
        let session = format!("s-{before}");
        daemon.create_session(&session);
        let run = daemon.submit(&session, "use the shell");
        assert_eq!(daemon.wait_end(&run), "completed");
        assert_eq!((stage.result(&run)["outcome"].clone(), stage.marks()), (json!("denied"), 1), "{class}");
        assert_eq!(letters(&daemon).last().unwrap()["class"], class);
        assert_eq!(stage.receiver.at("/guard").len(), before + 1, "{class}: for good at once");
    }
    daemon.stop();
}

#[test]
fn what_is_told_from_the_journal_comes_once_in_order_and_after_a_kill_under_the_same_key() {
    let stage = Stage::new("hooks-http-told");
    let daemon = stage.start();
    // Of what was before nobody is told.
    daemon.create_session("early");
    let told = |event: &str| stage.http(&format!("told-{event}"), &format!("/{event}"), json!({"blocking": false}));
    let events = ["session_start", "stop", "session_end", "config_change"];
    let document: serde_json::Map<String, Value> =
        events.iter().map(|event| (event.to_string(), json!([told(event)]))).collect();
    let reply = daemon.post("/v1/runtime/hooks", &json!({"hooks": document}));
    assert_eq!(reply.status, 200, "{reply:?}");
    for session in ["a", "b"] {
        daemon.create_session(session);
    }
    let seen = stage.receiver.wait_count("/session_start", 2);
    let of: Vec<Value> = seen.iter().map(|one| body(one)["session_id"].clone()).collect();
    assert_eq!(of, [json!("a"), json!("b")]);

    // Killed while the receiver has the request and has not answered.
    stage.receiver.script("/stop", vec![Answer::Stall]);
    let run = daemon.submit("a", "hello");
    assert_eq!(daemon.wait_end(&run), "completed");
    stage.receiver.wait("a stalled request", |_, stalled| (stalled == 1).then_some(()));
    daemon.kill();
    stage.receiver.script("/stop", vec![Answer::Status(200, "", "")]);
    let daemon = stage.serve().start();
    let seen = stage.receiver.wait_count("/stop", 2);
    assert_eq!((seen[0].key(), &seen[0].body), (seen[1].key(), &seen[1].body));
    assert_eq!(body(&seen[0])["run_id"], json!(run));
    // The open request is on record as of unknown outcome.
    let actions = daemon.get(&format!("/v1/runs/{run}/external-actions")).json().to_string();
    assert!(actions.contains("unknown"), "{actions}");
    // Nothing else is told again, now or after another restart.
    eventually("hooks that have caught up", || {
        (daemon.get("/v1/status").json()["hooks"]["lag_records"].as_u64() < Some(50)).then_some(())
    });
    daemon.stop();
    let daemon = stage.serve().start();
    daemon.create_session("c");
    let seen = stage.receiver.wait_count("/session_start", 3);
    let of: Vec<Value> = seen.iter().map(|one| body(one)["session_id"].clone()).collect();
    assert_eq!(of, [json!("a"), json!("b"), json!("c")]);
    assert_eq!(stage.receiver.at("/stop").len(), 2);
    daemon.stop();
    stage.home.assert_journal_verifies(&stage.home.root());
}

#[test]
fn a_told_command_that_a_kill_has_cut_off_is_not_run_again_and_says_so() {
    let stage = Stage::new("hooks-told-command");
    let daemon = stage.start();
    let mark = stage.home.join("told");
    let command = format!("echo x >> {}; sleep 600", mark.display());
    let hook = json!({"name": "slow", "executor": {"type": "command", "command": command, "timeout_ms": 30_000}});
    set(&daemon, "session_end", &[hook]);
    daemon.create_session("s");
    let reply = daemon.post("/v1/sessions/s/end", &Value::Null);
    assert_eq!(reply.status, 200, "{reply:?}");
    let runs = || std::fs::read_to_string(&mark).unwrap_or_default().lines().count();
    eventually("the hook runs", || (runs() == 1).then_some(()));
    daemon.kill();
    let daemon = stage.serve().start();
    let letter = eventually("a dead letter", || letters(&daemon).pop());
    assert_eq!((&letter["class"], &letter["hook_name"]), (&json!("interrupted"), &json!("slow")));
    assert!(letter["error"].as_str().unwrap().contains("UNKNOWN"), "{letter}");
    // It goes on behind it.
    daemon.create_session("t");
    let reply = daemon.post("/v1/sessions/t/end", &Value::Null);
    assert_eq!(reply.status, 200, "{reply:?}");
    eventually("the next event", || (runs() == 2).then_some(()));
    // A stop does not wait for it for ever, and does not repeat it either.
    daemon.stop();
    assert_eq!(runs(), 2);
    let dead = stage.home.records(&stage.home.root(), &["--kind", "hook.dead_lettered"]);
    assert_eq!(dead.len(), 2, "{dead:#?}");
    assert_eq!(dead[1]["body"]["class"], "interrupted");
}

#[test]
fn a_guard_whose_daemon_was_killed_is_asked_again_under_the_same_key_and_the_call_runs_once() {
    let stage = Stage::new("hooks-guard-killed");
    let daemon = stage.start();
    set(&daemon, "pre_tool_use", &[stage.http("guard", "/guard", json!({}))]);
    stage.receiver.script("/guard", vec![Answer::Stall]);
    daemon.create_session("s");
    let run = daemon.submit("s", "use the shell");
    stage.receiver.wait("a stalled request", |_, stalled| (stalled == 1).then_some(()));
    daemon.kill();
    assert_eq!(stage.marks(), 0);
    stage.receiver.script("/guard", vec![Answer::Status(200, "", "{}")]);
    let daemon = stage.serve().start();
    assert_eq!(daemon.wait_end(&run), "completed");
    assert_eq!(stage.marks(), 1);
    let seen = stage.receiver.at("/guard");
    assert_eq!(seen.len(), 2);
    assert_eq!((seen[0].key(), &seen[0].body), (seen[1].key(), &seen[1].body));
    let actions = daemon.get(&format!("/v1/runs/{run}/external-actions")).json().to_string();
    assert!(actions.contains("unknown"), "{actions}");
    daemon.stop();
}

#[test]
fn a_copied_state_root_tells_nobody_until_it_is_released() {
    let stage = Stage::new("hooks-copy");
    let daemon = stage.start();
    set(&daemon, "session_start", &[stage.http("told", "/told", json!({}))]);
    daemon.create_session("original");
    stage.receiver.wait_count("/told", 1);
    daemon.stop();
    let copy = stage.home.join("copy");
    let status = std::process::Command::new("cp").arg("-a").arg(stage.home.root()).arg(&copy).status().unwrap();
    assert!(status.success());
    let daemon = stage.serve().root(&copy).start();
    daemon.create_session("held");
    let status = daemon.get("/v1/status").json();
    assert_eq!(status["hooks"]["held"], true, "{}", status["hooks"]);
    assert!(status["health"]["warnings"].to_string().contains("hooks_held"));
    let reply = daemon.post("/v1/deliveries/hold", &json!({"held": false}));
    assert_eq!(reply.status, 200, "{reply:?}");
    let seen = stage.receiver.wait_count("/told", 2);
    let of: Vec<Value> = seen.iter().map(|one| body(one)["session_id"].clone()).collect();
    assert_eq!(of, [json!("original"), json!("held")]);
    daemon.stop();
}

/// A name of this host's own table that leads to an address which hooks do not reach, if there is one.
fn name_that_leads_inside() -> Option<String> {
    let table = std::fs::read_to_string("/etc/hosts").ok()?;
    let lines = table.lines().map(|line| line.split('#').next().unwrap_or_default().split_whitespace());
    for mut words in lines {
        let Some(address) = words.next().and_then(|word| word.parse::<std::net::Ipv4Addr>().ok()) else { continue };
        let inside = address.is_loopback() || address.is_private();
        if let Some(name) = words.find(|name| inside && !name.contains("localhost")) {
            return Some(name.to_string());
        }
    }
    None
}

fn findings(home: &Home, daemon: &Daemon) -> (i32, Value) {
    let (code, stdout, stderr) = home.cli(daemon, &["--output", "json", "doctor"]);
    (code, serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}")))
}

/// What doctor has found under a code.
fn has(report: &Value, code: &str) -> Option<Value> {
    let checks = report["checks"].as_array().unwrap_or_else(|| panic!("{report}"));
    checks.iter().find(|check| check["ok"] != true && check["code"] == code).cloned()
}

#[test]
fn doctor_sees_a_private_address_behind_a_hooks_name() {
    const TEST: &str = "doctor_sees_a_private_address_behind_a_hooks_name";
    let Some(name) = name_that_leads_inside() else {
        return skip::skip(TEST, "/etc/hosts names no local address but localhost");
    };
    let home = Home::new("hooks-doctor-name", None);
    let daemon = home.start();
    let hook = json!({"name": "told", "blocking": false, "executor": {"type": "http",
        "url": format!("https://{name}/hooks")}});
    set(&daemon, "stop", &[hook]);
    let (code, report) = eventually("the name is looked up", || {
        let (code, report) = findings(&home, &daemon);
        has(&report, "hook_target_private").is_some().then_some((code, report))
    });
    assert_eq!(code, 1, "{report}");
    let finding = has(&report, "hook_target_private").unwrap();
    assert!(finding.to_string().contains(&name) && finding.to_string().contains("stop:told"), "{finding}");
    daemon.stop();
}

#[test]
fn doctor_sees_a_file_that_the_next_start_would_refuse_and_a_guard_that_became_unusable() {
    let home = Home::new("hooks-doctor-file", None);
    let path = home.join("hooks.json");
    let shell = home.join("shell");
    std::fs::copy("/bin/sh", &shell).unwrap();
    let good = json!({"hooks": {"stop": [{"name": "guard", "executor": {"type": "command", "command": "true",
        "shell": shell.to_str().unwrap()}}]}});
    std::fs::write(&path, good.to_string()).unwrap();
    let options = ["--hooks-config", path.to_str().unwrap()];
    let daemon = home.serve().options(&options).start();
    let (_, report) = findings(&home, &daemon);
    assert_eq!(has(&report, "hook_invalid"), None, "{report}");
    daemon.stop();

    // A shell that is gone: the file of a later start is refused, and a daemon that has it in force says so.
    std::fs::remove_file(&shell).unwrap();
    let (code, log) = home.serve().options(&options).refused();
    assert!(code != Some(0) && log.contains("stop guard"), "{log}");
    let daemon = home.serve().start();
    let (code, report) = findings(&home, &daemon);
    let finding = has(&report, "hook_invalid").unwrap_or_else(|| panic!("{report}"));
    assert_eq!(code, 1, "{report}");
    assert!(finding.to_string().contains("stop:guard"), "{finding}");
    let health = daemon.get("/v1/status").json()["health"].to_string();
    assert!(health.contains("hook_definitions_invalid"), "{health}");
    daemon.stop();

    // A file that is spoilt under a running daemon.
    std::fs::copy("/bin/sh", &shell).unwrap();
    let daemon = home.serve().options(&options).start();
    std::fs::write(&path, "{\"hooks\":").unwrap();
    // Any change of the hooks has the file looked at.
    set(&daemon, "session_end", &[]);
    let finding = eventually("the file is looked at", || {
        daemon.get("/v1/status");
        has(&findings(&home, &daemon).1, "hook_invalid")
    });
    assert!(finding.to_string().contains("The next start will refuse it"), "{finding}");
    daemon.stop();
}
