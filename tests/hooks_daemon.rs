//! Hooks with the real binary: guards that deny, hang, flood, lie and die; definitions with every kind of mistake; what is on
//! record of it.
//! Owns: those scenarios. Never: needs a sandbox or rights; commands run with the walls switched off.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
#[path = "support/skip.rs"]
mod skip;

use std::path::Path;

use daemon::{Daemon, Home, Provider};
use serde_json::{Value, json};

/// The model asks for a command and says what came of it.
const ASKS_FOR_A_SHELL: &str = r#"
[[turn]]
match = "use the shell"
match_result = "{"
text = "Done."

[[turn]]
match = "use the shell"
tool_calls = [{ name = "bash", arguments = '{"command":"echo ran > mark"}', call_id = "c1" }]
"#;

fn guard(command: &str) -> Value {
    hooks(
        "pre_tool_use",
        &json!({"name": "guard", "matcher": "bash", "executor": {"type": "command",
        "command": command, "timeout_ms": 20_000}}),
    )
}

fn hooks(event: &str, hook: &Value) -> Value {
    json!({"hooks": {event: [hook]}})
}

struct Stage {
    provider: Provider,
    home: Home,
}

impl Stage {
    fn new(test: &str) -> Self {
        let provider = Provider::start(ASKS_FOR_A_SHELL);
        let home = Home::new(test, Some(&provider));
        Self { provider, home }
    }

    fn file(&self, document: &Value) -> String {
        let path = self.home.join("hooks.json");
        std::fs::write(&path, document.to_string()).unwrap();
        path.display().to_string()
    }

    /// A daemon whose rules let everything run.
    fn start(&self, options: &[&str]) -> Daemon {
        let daemon = self.home.serve().options(&["--sandbox", "off"]).options(options).start();
        let reply = daemon.post("/v1/runtime/permission-mode", &json!({"mode": "bypassPermissions"}));
        assert_eq!(reply.status, 200, "{reply:?}");
        daemon
    }

    fn set(&self, daemon: &Daemon, document: &Value) -> Value {
        let reply = daemon.post("/v1/runtime/hooks", document);
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    /// One run in a session of its own; how it ended, and what the model was told of its call.
    fn run(&self, daemon: &Daemon, session: &str) -> (String, Value) {
        daemon.create_session(session);
        let run = daemon.submit(session, "use the shell");
        let status = daemon.wait_end(&run);
        (status, self.result(&run))
    }

    /// The result of a run's call, as the journal has it.
    fn result(&self, run: &str) -> Value {
        let finished = self.home.records(&self.home.root(), &["--kind", "tool_call.finished"]);
        let mine = finished.iter().rfind(|record| record["run"] == run).cloned().unwrap_or_default();
        mine["body"].clone()
    }

    fn kinds(&self, run: &str) -> Vec<String> {
        let all = self.home.records(&self.home.root(), &[]);
        all.iter().filter(|record| record["run"] == run).map(|r| r["kind"].as_str().unwrap().to_string()).collect()
    }
}

fn has_run(stage: &Stage) -> bool {
    Path::new(&stage.home.join("workspace")).join("mark").exists()
}

fn error(result: &Value) -> (String, String) {
    let content: Value = serde_json::from_str(result["content"].as_str().unwrap_or_default()).unwrap_or_default();
    let text = |name: &str| content[name].as_str().unwrap_or_default().to_string();
    (text("code"), text("error"))
}

#[test]
fn a_guard_of_the_file_denies_a_call_that_the_rules_allow_and_all_of_it_is_on_record() {
    let stage = Stage::new("hooks-deny");
    let document = guard("cat > /dev/null; echo 'not in this house' >&2; exit 2");
    let file = stage.file(&document);
    let daemon = stage.start(&["--hooks-config", &file]);
    let view = stage.home.cli_json(&daemon, &["runtime", "hooks", "get"]);
    assert_eq!((&view["source"], &view["settings"]), (&json!("file"), &document));

    let (status, result) = stage.run(&daemon, "s");
    assert_eq!((status.as_str(), &result["outcome"]), ("completed", &json!("denied")), "{result}");
    let (code, text) = error(&result);
    assert_eq!(code, "hook_blocked", "{text}");
    assert!(text.contains("hook guard did not allow it: not in this house"), "{text}");
    assert!(!has_run(&stage), "it ran");

    // Requested before it was asked, answered after, and the decision behind both.
    let kinds = stage.kinds("run-1");
    let at = |kind: &str| kinds.iter().rposition(|other| other == kind).unwrap_or_else(|| panic!("{kind}: {kinds:?}"));
    assert!(at("permission.decided") < at("tool_call.finished"), "{kinds:?}");
    assert!(!kinds.contains(&"tool_call.started".to_string()), "{kinds:?}");
    let actions = stage.home.cli_json(&daemon, &["runs", "external-actions", "run-1"]);
    let actions = actions.as_array().unwrap_or_else(|| panic!("{actions}"));
    let shown = |action: &Value| ["phase", "target", "outcome", "result"].map(|name| action[name].clone());
    let of_hooks: Vec<_> = actions.iter().filter(|action| action["kind"] == "hook").map(shown).collect();
    let target = json!("hook_command:pre_tool_use:guard");
    let request = [json!("request"), target.clone(), Value::Null, Value::Null];
    let response = [json!("response"), target, json!("succeeded"), json!("blocked")];
    assert_eq!(of_hooks, [request, response]);
    let status = daemon.get("/v1/status").json();
    let group = &status["hooks"];
    let figures = ["supported", "configured_count", "invalid_count", "execution_count", "failure_count"];
    assert_eq!(
        figures.map(|name| group[name].clone()),
        [json!(true), json!(1), json!(0), json!(1), json!(0)],
        "{group}"
    );
    assert_eq!(status["runtime"]["hooks"]["hooks"]["pre_tool_use"][0]["executor"]["command"], "<redacted>");
    daemon.stop();
    stage.home.assert_journal_verifies(&stage.home.root());
    drop(stage.provider);
}

#[test]
fn hooks_are_replaced_as_a_whole_or_not_at_all_and_a_file_is_taken_once() {
    let stage = Stage::new("hooks-set");
    let file = stage.file(&guard("exit 2"));
    let options = ["--hooks-config", file.as_str()];
    let daemon = stage.start(&options);
    let before = stage.home.cli_json(&daemon, &["runtime", "hooks", "get"]);
    // A wrong one among good ones: nothing changes, and each mistake is named.
    let mistaken = json!({"hooks": {"stop": [
        {"name": "good", "executor": {"type": "command", "command": "true"}},
        {"name": "bad", "executor": {"type": "http", "url": "http://169.254.169.254/latest"}},
        {"name": "worse", "executor": {"type": "prompt"}}]}});
    let path = stage.home.join("mistaken.json");
    std::fs::write(&path, mistaken.to_string()).unwrap();
    let (code, _, text) = stage.home.cli(&daemon, &["runtime", "hooks", "set", "--file", path.to_str().unwrap()]);
    assert_ne!(code, 0, "{text}");
    for word in ["invalid_hook_settings", "stop bad", "stop worse", "metadata"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(stage.home.cli_json(&daemon, &["runtime", "hooks", "get"]), before);
    // A revision that is not in force.
    let reply = daemon.post("/v1/runtime/hooks", &json!({"hooks": {}, "expected_revision": 99}));
    assert_eq!(reply.refusal(), (409, "runtime_revision_conflict".to_string()));
    // A reviewed file, and a restart with the old one: the reviewed one stays.
    let reviewed = guard("exit 0");
    let path = stage.home.join("reviewed.json");
    std::fs::write(&path, reviewed.to_string()).unwrap();
    let answer = stage.home.cli_json(&daemon, &["runtime", "hooks", "set", "--file", path.to_str().unwrap()]);
    assert_eq!(answer["changed"], true);
    daemon.stop();
    let daemon = stage.start(&options);
    let view = stage.home.cli_json(&daemon, &["runtime", "hooks", "get"]);
    assert_eq!((&view["source"], &view["settings"]), (&json!("daemon"), &reviewed));
    let (status, result) = stage.run(&daemon, "s");
    assert_eq!((status.as_str(), &result["outcome"]), ("completed", &json!("ok")), "{result}");
    daemon.stop();
    // A changed file is taken.
    let changed = guard("exit 2");
    stage.file(&json!({"schema_version": 1, "hooks": changed["hooks"]}));
    let daemon = stage.start(&options);
    let view = stage.home.cli_json(&daemon, &["runtime", "hooks", "get"]);
    assert_eq!((&view["source"], &view["settings"]["schema_version"]), (&json!("file"), &json!(1)));
    daemon.stop();
}

#[test]
fn a_guard_that_gives_no_word_stops_what_it_guards_and_an_open_one_does_not() {
    let stage = Stage::new("hooks-failing");
    let daemon = stage.start(&[]);
    for (number, (command, class)) in [
        ("exec sleep 600", "timeout"),
        ("yes", "answer_too_large"),
        ("kill -KILL $$", "signal"),
        ("exit 7", "exit_status"),
        ("echo sure, go ahead", "answer_malformed"),
        ("echo '{\"decision\":\"perhaps\"}'", "answer_malformed"),
        ("echo '{\"contract_version\":9}'", "answer_malformed"),
        ("printf '\\377\\376'", "answer_malformed"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut document = guard(command);
        if class == "timeout" {
            document["hooks"]["pre_tool_use"][0]["executor"]["timeout_ms"] = json!(300);
        }
        stage.set(&daemon, &document);
        let (status, result) = stage.run(&daemon, &format!("closed-{number}"));
        assert_eq!((status.as_str(), &result["outcome"]), ("completed", &json!("denied")), "{command}: {result}");
        let (code, text) = error(&result);
        assert_eq!(code, "hook_blocked", "{command}");
        assert!(text.contains("could not decide") && text.contains(class), "{command}: {text}");
        assert!(!has_run(&stage), "{command}: it ran");
    }
    let letters = stage.home.cli_json(&daemon, &["runtime", "hooks", "dead-letter"]);
    let letters = letters["dead_letters"].as_array().unwrap().clone();
    assert_eq!(letters.len(), 8);
    assert_eq!((&letters[0]["hook_name"], &letters[0]["class"]), (&json!("guard"), &json!("timeout")));
    let status = daemon.get("/v1/status").json();
    let codes = status["health"]["warnings"].to_string();
    assert!(codes.contains("hook_dead_letters"), "{codes}");
    // Settled, each once.
    for letter in &letters {
        let id = letter["id"].as_str().unwrap();
        let settled =
            stage.home.cli_json(&daemon, &["runtime", "hooks", "resolve-dead-letter", id, "--reason", "seen"]);
        assert_eq!((&settled["id"], &settled["resolution_reason"]), (&letter["id"], &json!("seen")));
    }
    let id = letters[0]["id"].as_str().unwrap();
    let again = stage.home.cli_json(&daemon, &["runtime", "hooks", "resolve-dead-letter", id, "--reason", "other"]);
    assert_eq!(again["resolution_reason"], "seen", "the first reason stays");
    let reply = daemon.post("/v1/runtime/hooks/dead-letter/hook-dlq-1/resolve", &Value::Null);
    assert_eq!(reply.refusal(), (404, "hook_dead_letter_not_found".to_string()));
    assert_eq!(daemon.get("/v1/status").json()["hooks"]["unresolved_dead_lettered_count"], 0);

    let mut open = guard("exit 7");
    open["hooks"]["pre_tool_use"][0]["failure_policy"] = json!({"mode": "open", "max_retries": 2});
    stage.set(&daemon, &open);
    let (status, result) = stage.run(&daemon, "open");
    assert_eq!((status.as_str(), &result["outcome"]), ("completed", &json!("ok")), "{result}");
    let letters = stage.home.cli_json(&daemon, &["runtime", "hooks", "dead-letter"]);
    let last = letters["dead_letters"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["failure_mode"], &last["attempt_count"]), (&json!("open"), &json!(3)), "{last}");
    daemon.stop();
}

#[test]
fn a_file_that_cannot_be_used_ends_the_start() {
    let stage = Stage::new("hooks-refused");
    let good = json!({"name": "g", "executor": {"type": "command", "command": "true"}});
    let http = |url: &str| json!({"name": "h", "executor": {"type": "http", "url": url}});
    for (text, word) in [
        ("{".to_string(), "not valid JSON"),
        ("[]".to_string(), "not of the form"),
        (hooks("pre_tool_uze", &good).to_string(), "no such event"),
        (hooks("stop", &http("http://localhost/")).to_string(), "loopback"),
        (hooks("stop", &http("http://10.0.0.1/")).to_string(), "private"),
        (hooks("stop", &http("http://[fd00::1]/")).to_string(), "next: "),
        (hooks("stop", &http("http://0x7f.1/")).to_string(), "next: "),
        (json!({"hooks": {"stop": [good, good]}}).to_string(), "another hook has this name"),
    ] {
        let path = stage.home.join("hooks.json");
        std::fs::write(&path, &text).unwrap();
        let (code, log) = stage.home.serve().options(&["--hooks-config", path.to_str().unwrap()]).refused();
        assert_ne!(code, Some(0), "{text}");
        assert!(log.contains("hooks file") && log.contains(word), "{word}: {log}");
    }
}

#[test]
fn a_command_has_the_walls_of_tools_and_its_words_are_masked() {
    const TEST: &str = "a_command_has_the_walls_of_tools_and_its_words_are_masked";
    let stage = Stage::new("hooks-walls");
    let daemon = stage.home.serve().start();
    let sandbox = daemon.get("/v1/status").json()["sandbox"].clone();
    if sandbox["strength"] != "full" {
        return skip::skip(TEST, &format!("the walls are {}", sandbox["strength"]));
    }
    let reply = daemon.post("/v1/runtime/permission-mode", &json!({"mode": "bypassPermissions"}));
    assert_eq!(reply.status, 200, "{reply:?}");
    // Each is tried; what could be done stands in the reason.
    let (root, token) = (stage.home.root(), stage.home.token_file().display().to_string());
    let port = daemon.address.port();
    let command = format!(
        "r=; cat {root}/FORMAT >/dev/null 2>&1 && r=\"$r state\"; cat {token} >/dev/null 2>&1 && r=\"$r token\"; \
         env | grep -qi -e kheish_auth -e rust_ && r=\"$r env\"; (: </dev/tcp/127.0.0.1/{port}) 2>/dev/null && r=\"$r net\"; \
         echo \"could:$r sk-proj-0123456789abcdefghij\" >&2; exit 2",
        root = root.display()
    );
    stage.set(&daemon, &guard(&command));
    let (status, result) = stage.run(&daemon, "s");
    let (_, text) = error(&result);
    assert_eq!(status, "completed", "{text}");
    assert!(text.contains("could: ") && !text.contains("sk-proj"), "{text}");
    for deed in ["state", "token", "env", "net"] {
        assert!(!text.contains(&format!(" {deed}")), "{deed}: {text}");
    }
    daemon.stop();
}
