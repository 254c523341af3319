//! The real binary with real tools in its sandbox: approvals and questions over HTTP and command line, kills in the middle
//! of a tool.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use std::process::{Command, Stdio};

use daemon::{Daemon, Home, Provider, TOKEN, eventually};
use serde_json::{Value, json};

/// Asks once for a command that appends a line to a file of the workspace, then says so.
const APPENDS: &str = "[[turn]]\nmatch = \"append\"\ntimes = 1\ntext = \"appending\"\n\
    tool_calls = [{ name = \"bash\", call_id = \"c1\", arguments = '{\"command\":\"echo line >> log.txt; cat log.txt\"}' }]\n\
    [[turn]]\nmatch = \"append\"\ntext = \"appended\"\n";

/// Exit code and what was printed on standard output.
fn cli(daemon: &Daemon, args: &[&str]) -> (i32, Value) {
    let url = format!("http://{}", daemon.address);
    let mut command = Command::new(env!("CARGO_BIN_EXE_kheish-daemon"));
    command.env_clear().args(args).args(["--base-url", &url, "--token", TOKEN]).stdin(Stdio::null());
    let output = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().expect("an exit code"), serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn wait_status(daemon: &Daemon, run: &str, status: &str) {
    eventually(status, || (daemon.status_of(run) == status).then_some(()));
}

#[test]
fn an_approval_is_seen_and_given_from_the_command_line_and_the_tool_runs() {
    let provider = Provider::start(APPENDS);
    let home = Home::new("approval", Some(&provider));
    let daemon = home.start();
    daemon.create_session("s");
    let mut stream = daemon.stream("/v1/sessions/s/stream?cursor=0");
    let run = daemon.submit("s", "append please");
    wait_status(&daemon, &run, "waiting_for_approval");

    let view = daemon.run(&run);
    let id = view["pending_approval_ids"][0].as_str().expect("an id").to_string();
    assert_eq!(view["pending_approvals"][0]["tool_name"], "bash");
    let runs = daemon.get("/v1/status").json()["runs"].clone();
    assert_eq!((&runs["waiting_for_approval"], &runs["pending_approval_count"]), (&json!(1), &json!(1)));
    assert_eq!(runs["oldest_waiting_for_approval_run_id"], json!(run));
    assert!(runs["oldest_waiting_for_approval_age_ms"].is_u64());
    let session = daemon.get("/v1/sessions/s").json();
    assert_eq!((&session["status"], &session["pending_approval_ids"]), (&json!("waiting_for_approval"), &json!([id])));

    let (code, listed) = cli(&daemon, &["approvals", "list"]);
    assert_eq!((code, &listed[0]["id"], &listed[0]["run_id"]), (0, &json!(id), &json!(run)));
    let (code, shown) = cli(&daemon, &["approvals", "show", &id]);
    assert_eq!((code, &shown["input"]["command"]), (0, &json!("echo line >> log.txt; cat log.txt")));
    let (code, _) = cli(&daemon, &["approvals", "show", "approval-none"]);
    assert_eq!(code, 5);
    let allow = ["approvals", "allow", &id, "--justification", "fine", "--wait", "--timeout-ms", "60000"];
    let (code, ended) = cli(&daemon, &allow);
    assert_eq!((code, &ended["status"]), (0, &json!("completed")), "{ended}");
    assert_eq!(ended["outputs"][0]["content"], "appended");
    let asked = provider.requests().pop().expect("a second request").1;
    assert!(asked.contains("line\\\\n") || asked.contains("line"), "the model saw the output: {asked}");

    let mut traced = Vec::new();
    stream.until("the run's end", |frame| {
        match frame.event.as_str() {
            "trace" => traced.push(frame.json()["trace"]["kind"].as_str().expect("a kind").to_string()),
            "run_updated" => {
                let run = &frame.json()["run"];
                if run["status"] == "waiting_for_approval" {
                    assert_eq!(run["pending_approval_ids"], json!([id]));
                }
                return run["status"] == "completed";
            }
            _ => {}
        }
        false
    });
    let expected = ["approval.requested", "approval.resolved", "tool_call.started", "tool_call.finished"];
    assert_eq!(traced, expected);

    let again = json!({"resolutions": [{"request_id": id, "behavior": "deny"}]});
    let refused = daemon.post(&format!("/v1/runs/{run}/approvals"), &again);
    assert_eq!(refused.refusal(), (409, "approval_state_conflict".to_string()));
    let events = daemon.events_of(&run);
    for event in ["waiting_for_approval", "approval_resolved", "continued", "tool_call_started", "tool_call_finished"] {
        assert!(events.iter().any(|seen| seen == event), "{event} is missing in {events:?}");
    }
    daemon.stop();
    home.assert_journal_verifies(&home.root());
}

#[test]
fn a_batch_of_answers_is_taken_whole_or_not_at_all_and_once_under_its_key() {
    let provider = Provider::start(APPENDS);
    let home = Home::new("batch", Some(&provider));
    let daemon = home.start();
    daemon.create_session("s");
    let run = daemon.submit("s", "append please");
    wait_status(&daemon, &run, "waiting_for_approval");
    let id = daemon.run(&run)["pending_approval_ids"][0].clone();
    let path = format!("/v1/runs/{run}/approvals");
    let deny = |id: &Value| json!({"request_id": id, "behavior": "deny", "justification": "no"});
    for (resolutions, code) in [
        (json!([]), "approval_batch_empty"),
        (json!([deny(&id), deny(&id)]), "approval_duplicate_resolution"),
        (json!([deny(&id), deny(&json!("approval-other"))]), "approval_request_not_pending"),
    ] {
        let refused = daemon.post(&path, &json!({"resolutions": resolutions}));
        assert_eq!(refused.refusal(), (400, code.to_string()));
    }
    assert_eq!(daemon.status_of(&run), "waiting_for_approval", "nothing of a refused batch was applied");
    let body = json!({"idempotency_key": "k", "resolutions": [deny(&id)]});
    assert_eq!(daemon.post(&path, &body).status, 202);
    daemon.wait_end(&run);
    assert_eq!(daemon.post(&path, &body).status, 202, "the same answer under the same key");
    let other = json!({"idempotency_key": "k", "resolutions": [{"request_id": id, "behavior": "allow"}]});
    assert_eq!(daemon.post(&path, &other).refusal(), (409, "idempotency_conflict".to_string()));
    assert_eq!(daemon.post("/v1/runs/run-99/approvals", &other).refusal().0, 404);
    assert_eq!(daemon.post("/v1/sessions/none/approvals", &body).refusal().0, 404);
}

#[test]
fn a_question_is_answered_from_the_command_line() {
    let script = "[[turn]]\nmatch = \"ask\"\ntimes = 1\ntool_calls = [{ name = \"ask_user_question\", call_id = \"q\", \
        arguments = '{\"questions\":[{\"id\":\"way\",\"question\":\"Which way?\"}]}' }]\n\
        [[turn]]\nmatch = \"ask\"\ntext = \"thanks\"\n";
    let provider = Provider::start(script);
    let home = Home::new("question", Some(&provider));
    let daemon = home.start();
    daemon.create_session("s");
    let run = daemon.submit("s", "ask me");
    wait_status(&daemon, &run, "waiting_for_user_question");
    let (code, listed) = cli(&daemon, &["questions", "list", "--session-id", "s"]);
    assert_eq!((code, &listed[0]["request"]["questions"][0]["question"]), (0, &json!("Which way?")));
    let id = listed[0]["request"]["id"].as_str().expect("an id");
    let empty = json!({"resolution": {"request_id": id, "answers": []}});
    let refused = daemon.post(&format!("/v1/runs/{run}/questions"), &empty);
    assert_eq!(refused.refusal(), (400, "question_answer_missing".to_string()));
    let (code, ended) = cli(&daemon, &["questions", "answer", id, "to the left", "--wait"]);
    assert_eq!((code, &ended["status"]), (0, &json!("completed")), "{ended}");
    assert!(provider.requests().pop().expect("asked").1.contains("to the left"));

    let run = daemon.submit("s", "ask me again");
    let ended = daemon.wait_end(&run);
    assert_eq!(ended, "completed", "the script asks once");
}

#[test]
fn withdrawing_a_question_cancels_its_run() {
    let script = "[default]\ntool_calls = [{ name = \"ask_user_question\", \
        arguments = '{\"questions\":[{\"id\":\"way\",\"question\":\"Which way?\"}]}' }]\n";
    let provider = Provider::start(script);
    let home = Home::new("withdrawn", Some(&provider));
    let daemon = home.start();
    daemon.create_session("s");
    let run = daemon.submit("s", "ask");
    wait_status(&daemon, &run, "waiting_for_user_question");
    let id = daemon.run(&run)["pending_question_ids"][0].as_str().expect("an id").to_string();
    let (code, ended) = cli(&daemon, &["questions", "cancel", &id]);
    assert_eq!((code, &ended["status"]), (0, &json!("cancelled")), "{ended}");
}

#[test]
fn an_approval_that_nobody_resolves_in_time_is_denied_and_the_run_goes_on() {
    let provider = Provider::start(APPENDS);
    let home = Home::new("expired", Some(&provider));
    let daemon = home.serve().options(&["--approval-expires-after-s", "1"]).start();
    daemon.create_session("s");
    let run = daemon.submit("s", "append please");
    assert_eq!(daemon.wait_end(&run), "completed");
    assert!(!home.join("workspace").join("log.txt").exists());
    assert!(provider.requests().pop().expect("asked again").1.contains("nobody allowed this call in time"));
}

#[test]
fn a_kill_in_the_middle_of_a_tool_leaves_an_unknown_outcome_and_no_second_run() {
    let script = "[[turn]]\nmatch = \"slow\"\ntimes = 1\ntool_calls = [{ name = \"bash\", call_id = \"c1\", \
        arguments = '{\"command\":\"echo once >> count.txt; sleep 60\",\"timeout_ms\":100000}' }]\n\
        [[turn]]\nmatch = \"slow\"\ntext = \"noted\"\n";
    let provider = Provider::start(script);
    let home = Home::new("unknown", Some(&provider));
    let daemon = home.start();
    daemon.create_session("s");
    assert_eq!(daemon.post("/v1/sessions/s/permission-mode", &json!({"mode": "bypassPermissions"})).status, 200);
    let run = daemon.submit("s", "slow please");
    let counted = home.join("workspace").join("count.txt");
    eventually("the tool's side effect", || std::fs::read_to_string(&counted).ok().filter(|text| !text.is_empty()));
    daemon.kill();
    let daemon = home.start();
    assert_eq!(daemon.wait_end(&run), "completed");
    assert_eq!(std::fs::read_to_string(&counted).expect("counted"), "once\n");
    let asked = provider.requests().pop().expect("asked again").1;
    assert!(asked.contains("UNKNOWN") && asked.contains("NOT run again"), "{asked}");
    daemon.stop();
    let resumed = home.records(&home.root(), &["--kind", "run.resumed"]).remove(0);
    assert_eq!(resumed["body"]["findings"], json!({"kept": 0, "issued": 0, "unknown": ["c1"]}));
}

#[test]
fn a_cancelled_run_frees_its_engine_and_leaves_no_process_of_its_tool() {
    let mark = format!("kheish_mark_cancelled_{}", std::process::id());
    let arguments = json!({"command": format!("echo $$ > pid.txt; exec -a {mark} sleep 1000"), "timeout_ms": 100_000});
    let provider = Provider::start(&format!(
        "[default]\ntool_calls = [{{ name = \"bash\", arguments = {} }}]\n",
        Value::from(arguments.to_string())
    ));
    let home = Home::new("cancelled", Some(&provider));
    let daemon = home.start();
    daemon.create_session("s");
    assert_eq!(daemon.post("/v1/sessions/s/permission-mode", &json!({"mode": "bypassPermissions"})).status, 200);
    let run = daemon.submit("s", "sleep");
    let file = home.join("workspace").join("pid.txt");
    eventually("the tool", || std::fs::read_to_string(&file).ok().filter(|text| !text.is_empty()));
    let sleeps = || {
        let all = std::fs::read_dir("/proc").expect("/proc").filter_map(|entry| {
            let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
            line.starts_with(mark.as_bytes()).then_some(())
        });
        all.count()
    };
    eventually("the tool's process", || (sleeps() > 0).then_some(()));
    assert_eq!(daemon.post(&format!("/v1/runs/{run}/cancel"), &json!({})).json()["status"], "cancelled");
    eventually("an idle engine", || (daemon.get("/v1/status").json()["runs"]["in_hand"] == 0).then_some(()));
    eventually("the end of the tool's process", || (sleeps() == 0).then_some(()));
}

/// An approval speaks of a program as it was when somebody read it. The file changed while it was pending: allowing it ran
/// what nobody had seen.
#[test]
fn an_approval_of_a_program_that_was_replaced_meanwhile_is_asked_for_again() {
    let script = "[[turn]]\nmatch = \"deploy\"\ntimes = 1\ntext = \"deploying\"\n\
        tool_calls = [{ name = \"bash\", call_id = \"c1\", arguments = '{\"command\":\"sh tools/deploy.sh prod\"}' }]\n\
        [[turn]]\nmatch = \"deploy\"\ntext = \"deployed\"\n";
    let provider = Provider::start(script);
    let home = Home::new("approval_program", Some(&provider));
    let daemon = home.start();
    let workspace = home.join("workspace");
    std::fs::create_dir_all(workspace.join("tools")).expect("a folder of the workspace");
    let write = |text: &str| std::fs::write(workspace.join("tools/deploy.sh"), text).expect("a file of the workspace");
    write("#!/bin/sh\necho harmless >> ran.txt\n");
    std::fs::write(workspace.join("notes.txt"), "one").expect("a file of the workspace");
    daemon.create_session("s");
    let run = daemon.submit("s", "deploy");
    wait_status(&daemon, &run, "waiting_for_approval");
    let pending = || daemon.run(&run)["pending_approval_ids"][0].as_str().map(str::to_string);
    let first = pending().expect("an approval");
    write("#!/bin/sh\necho harmful >> ran.txt\n");
    assert_eq!(cli(&daemon, &["approvals", "allow", &first]).0, 0);
    let second = eventually("a second approval", || pending().filter(|id| *id != first));
    assert!(!workspace.join("ran.txt").exists(), "what nobody has seen did not run");
    // Data that changes is not what the approval speaks of.
    std::fs::write(workspace.join("notes.txt"), "two").expect("a file of the workspace");
    assert_eq!(cli(&daemon, &["approvals", "allow", &second]).0, 0);
    assert_eq!(daemon.wait_end(&run), "completed", "{}", daemon.run(&run));
    assert_eq!(std::fs::read_to_string(workspace.join("ran.txt")).expect("it ran"), "harmful\n");
    daemon.stop();
    home.assert_journal_verifies(&home.root());
}
