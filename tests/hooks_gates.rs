//! Every gate of a run with the real binary: prompts, results, requests for approval, ends; and what a hook may say at each.
//! Owns: those scenarios. Never: needs a sandbox or rights; commands run with the walls switched off.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use daemon::{Daemon, Home, Provider};
use serde_json::{Value, json};

const MODEL: &str = r#"
[[turn]]
match = "use the shell"
match_result = "{"
text = "Done."

[[turn]]
match = "use the shell"
tool_calls = [{ name = "bash", arguments = '{"command":"echo canary"}', call_id = "c1" }]

[default]
text = "Hello."
"#;

struct Stage {
    provider: Provider,
    home: Home,
    daemon: Daemon,
    sessions: std::cell::Cell<u32>,
}

impl Stage {
    fn new(test: &str, mode: &str) -> Self {
        let provider = Provider::start(MODEL);
        let home = Home::new(test, Some(&provider));
        let daemon = home.serve().options(&["--sandbox", "off"]).start();
        let reply = daemon.post("/v1/runtime/permission-mode", &json!({"mode": mode}));
        assert_eq!(reply.status, 200, "{reply:?}");
        Self { provider, home, daemon, sessions: std::cell::Cell::new(0) }
    }

    fn hook(&self, event: &str, command: &str) {
        let hook = json!({"name": "gate", "executor": {"type": "command", "command": command, "timeout_ms": 20_000}});
        let reply = self.daemon.post("/v1/runtime/hooks", &json!({"hooks": {event: [hook]}}));
        assert_eq!(reply.status, 200, "{reply:?}");
    }

    /// A run in a session of its own, and how it ended: its status, or the code of its failure.
    fn run(&self, text: &str) -> (String, String) {
        self.sessions.set(self.sessions.get() + 1);
        let session = format!("s-{}", self.sessions.get());
        self.daemon.create_session(&session);
        let run = self.daemon.submit(&session, text);
        let status = self.daemon.wait_end(&run);
        let failed = self.records("run.failed", &run);
        let code = failed.last().map(|record| record["body"]["error"]["code"].as_str().unwrap().to_string());
        (run, code.unwrap_or(status))
    }

    fn records(&self, kind: &str, run: &str) -> Vec<Value> {
        let all = self.home.records(&self.home.root(), &["--kind", kind]);
        all.into_iter().filter(|record| record["run"] == run).collect()
    }

    /// What the model was told of its call.
    fn told(&self, run: &str) -> String {
        let finished = self.records("tool_call.finished", run);
        finished.last().unwrap_or_else(|| panic!("{run} has no result"))["body"]["content"]
            .as_str()
            .unwrap()
            .to_string()
    }
}

fn says(answer: &Value) -> String {
    format!("echo '{answer}'")
}

#[test]
fn a_prompt_that_a_hook_refuses_is_not_shown_to_any_model() {
    let stage = Stage::new("gates-prompt", "bypassPermissions");
    stage.hook("user_prompt_submit", "grep -q 'the password' && { echo 'no passwords' >&2; exit 2; }; exit 0");
    let (run, end) = stage.run("here is the password");
    assert_eq!(end, "hook_blocked");
    let failed = &stage.records("run.failed", &run)[0];
    assert!(failed["body"]["error"]["message"].as_str().unwrap().contains("no passwords"), "{failed}");
    assert_eq!(stage.provider.requests().len(), 0);
    assert_eq!(stage.run("here is nothing").1, "completed");
    // A hook that gives no word is another failure, so that nobody looks for a reason in the prompt.
    stage.hook("user_prompt_submit", "exit 3");
    assert_eq!(stage.run("here is nothing").1, "hook_failed");
    assert_eq!(stage.provider.requests().len(), 1);
    // Nobody can be asked there, so whoever would have somebody asked says no.
    stage.hook("user_prompt_submit", &says(&json!({"permission": "ask"})));
    assert_eq!(stage.run("here is nothing").1, "hook_blocked");
    stage.daemon.stop();
}

#[test]
fn a_result_can_be_withheld_replaced_or_commented_before_anybody_has_it() {
    let stage = Stage::new("gates-result", "bypassPermissions");
    stage.hook("post_tool_use", "grep -q canary && { echo 'a secret bird' >&2; exit 2; }; exit 0");
    let (run, end) = stage.run("use the shell");
    assert_eq!(end, "completed");
    let told = stage.told(&run);
    assert!(told.contains("hook_withheld") && told.contains("a secret bird") && !told.contains("canary"), "{told}");
    let results = stage.provider.requests().last().unwrap().1.clone();
    assert!(results.contains("a secret bird"), "{results}");
    assert_eq!(stage.records("tool_call.started", &run).len(), 1, "it ran");

    stage.hook("post_tool_use", &says(&json!({"updated_output": {"bird": true}})));
    assert_eq!(stage.told(&stage.run("use the shell").0), "{\"bird\":true}");
    stage.hook("post_tool_use", &says(&json!({"additional_contexts": ["birds are protected"]})));
    let told: Value = serde_json::from_str(&stage.told(&stage.run("use the shell").0)).unwrap();
    assert_eq!((&told["hook_contexts"], &told["stdout"]), (&json!(["birds are protected"]), &json!("canary\n")));
    stage.hook("post_tool_use", &says(&json!({"continue_execution": false, "stop_reason": "enough"})));
    let (run, end) = stage.run("use the shell");
    assert_eq!(end, "hook_stopped");
    assert!(stage.told(&run).contains("enough"));
    // A failing hook withholds as well; one for failures is not asked about successes.
    stage.hook("post_tool_use", "exit 1");
    assert!(stage.told(&stage.run("use the shell").0).contains("hook_withheld"));
    stage.hook("post_tool_use_failure", "exit 1");
    assert!(stage.told(&stage.run("use the shell").0).contains("canary"));
    stage.daemon.stop();
    stage.home.assert_journal_verifies(&stage.home.root());
}

#[test]
fn an_end_that_a_hook_refuses_goes_back_to_the_model_a_few_times() {
    let stage = Stage::new("gates-stop", "bypassPermissions");
    stage.hook("stop", "grep -q '\"blocked_before\":0' && { echo 'add the date' >&2; exit 2; }; exit 0");
    let (run, end) = stage.run("say hello");
    assert_eq!(end, "completed");
    let rejected = stage.records("output.rejected", &run);
    assert_eq!(rejected.len(), 1);
    assert!(rejected[0]["body"]["told"].as_str().unwrap().contains("add the date"), "{rejected:?}");
    let asked = stage.provider.requests();
    assert_eq!(asked.len(), 2);
    assert!(asked[1].1.contains("add the date") && !asked[0].1.contains("add the date"));
    assert_eq!(stage.records("run.output", &run).len(), 1);

    stage.hook("stop", "echo 'never good enough' >&2; exit 2");
    let (run, end) = stage.run("say hello");
    assert_eq!(end, "hook_blocked");
    assert_eq!((stage.records("output.rejected", &run).len(), stage.records("run.output", &run).len()), (3, 0));
    stage.hook("stop", "exit 1");
    let (run, end) = stage.run("say hello");
    assert_eq!(
        (end.as_str(), stage.records("output.rejected", &run).len()),
        ("hook_failed", 0),
        "not the model's fault"
    );
    stage.daemon.stop();
}

#[test]
fn a_hook_can_say_no_before_a_person_is_asked_and_cannot_say_yes() {
    let stage = Stage::new("gates-request", "default");
    stage.hook("permission_request", "echo 'not at night' >&2; exit 2");
    let (run, end) = stage.run("use the shell");
    assert_eq!(end, "completed");
    assert!(stage.told(&run).contains("not at night"));
    assert!(stage.records("approval.requested", &run).is_empty());
    let decided = stage.records("permission.decided", &run);
    assert_eq!(decided.last().unwrap()["body"]["decision"], "deny");

    stage.hook("permission_request", &says(&json!({"permission": "allow", "decision": "approve"})));
    stage.daemon.create_session("asks");
    let run = stage.daemon.submit("asks", "use the shell");
    daemon::eventually("a person is asked", || (stage.daemon.status_of(&run) == "waiting_for_approval").then_some(()));
    let cancelled = stage.daemon.post(&format!("/v1/runs/{run}/cancel"), &Value::Null);
    assert_eq!(cancelled.status, 200, "{cancelled:?}");
    stage.daemon.stop();
}

#[test]
fn a_run_that_is_cancelled_does_not_wait_for_its_hook() {
    let stage = Stage::new("gates-cancel", "bypassPermissions");
    let mark = stage.home.join("asked");
    let command = format!("touch {}; sleep 600", mark.display());
    let hook = json!({"name": "slow", "executor": {"type": "command", "command": command, "timeout_ms": 30_000}});
    let reply = stage.daemon.post("/v1/runtime/hooks", &json!({"hooks": {"pre_tool_use": [hook]}}));
    assert_eq!(reply.status, 200, "{reply:?}");
    stage.daemon.create_session("s");
    let run = stage.daemon.submit("s", "use the shell");
    daemon::eventually("the hook runs", || mark.exists().then_some(()));
    let cancelled = stage.daemon.post(&format!("/v1/runs/{run}/cancel"), &Value::Null);
    assert_eq!(cancelled.status, 200, "{cancelled:?}");
    assert_eq!(stage.daemon.wait_end(&run), "cancelled");
    // The engine is free again and nothing of the hook counts as its word or its failure.
    stage.hook("pre_tool_use", "exit 0");
    assert_eq!(stage.run("use the shell").1, "completed");
    let letters = stage.daemon.get("/v1/runtime/hooks/dead-letter").json();
    assert_eq!(letters["dead_lettered_count"], 0, "{letters}");
    stage.daemon.stop();
}
