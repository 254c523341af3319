//! Runs whose model asks for tools: order of records, permissions, approvals, questions, failures, resumption. The model
//! is a function and the tools are counters; everything between them is real.

mod engine_support;
mod net_raw_server;
mod sse_support;
mod state_root_scratch;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use engine_support::model::{Answer, Bench, Changing, bash, bypass, call, done, model, policy, results, rule};
use engine_support::{SECRET, World, session};
use kheish_daemon::commit::CommandError;
use kheish_daemon::core::{Answer as Reply, Command, Decision, Refusal, Resolution, RunStatus, Target};
use kheish_daemon::engine::{Caller, DaemonTool, InForce, Toolbox};
use kheish_daemon::ids::RunId;
use kheish_daemon::journal::fake_disk::FakeDisk;
use kheish_daemon::net::Cancel;
use kheish_daemon::permissions::Behavior;
use kheish_daemon::tools::{ToolDef, ToolOutput};
use serde_json::value::RawValue;
use serde_json::{Value, json};

struct Stage {
    world: World,
    bench: Arc<Bench>,
    settings: Arc<Changing>,
}

fn stage(url: &str, in_force: InForce) -> Stage {
    on_disk(url, in_force, FakeDisk::new(1), Bench::new())
}

fn on_disk(url: &str, in_force: InForce, disk: FakeDisk, bench: Arc<Bench>) -> Stage {
    let settings = Arc::new(Changing::default());
    *settings.0.lock().unwrap() = in_force;
    let toolbox = Toolbox::with_workers(bench.workers());
    let world = World::open(url, "", disk, toolbox, settings.clone());
    Stage { world, bench, settings }
}

fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).unwrap()
}

impl Stage {
    fn wait_status(&self, run: RunId, status: RunStatus) {
        self.world.bell.wait_until(status.as_str(), || {
            (self.world.core.run(run).unwrap().unwrap().status == status).then_some(())
        });
    }

    fn approval_ids(&self, run: RunId) -> Vec<String> {
        let asked = self.world.bodies(run, "approval.requested");
        let resolved = self.world.bodies(run, "approval.resolved");
        let ids = asked.into_iter().map(|body| body["id"].as_str().unwrap().to_string());
        ids.filter(|id| resolved.iter().all(|body| body["id"] != json!(id))).collect()
    }

    fn resolve(&self, run: RunId, allow: bool, updated: Option<Value>) -> Result<Decision, CommandError> {
        let resolution = |id| Resolution {
            id,
            allow,
            updated_input: updated.as_ref().map(raw),
            justification: Some("because".to_string()),
            reason: None,
        };
        let resolutions = self.approval_ids(run).into_iter().map(resolution).collect();
        let target = Target::Session(session());
        self.world.core.execute(Command::ResolveApprovals { target, resolutions, idempotency: None })
    }

    /// The model's view of the results, as recorded.
    fn outcomes(&self, run: RunId) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_string();
        let finished = self.world.bodies(run, "tool_call.finished");
        finished.iter().map(|body| (text(&body["call"]), text(&body["outcome"]))).collect()
    }
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
}

/// Answers once with these calls and then says what the results were.
fn once(calls: Vec<Value>) -> impl Fn(&Value, usize) -> Answer + Send + 'static {
    move |request, _| {
        let results = results(request);
        if results.is_empty() { Answer::Items(calls.clone()) } else { done(&json!(results).to_string()) }
    }
}

fn said(stage: &Stage, run: RunId) -> Vec<(String, String)> {
    let output = stage.world.output(run);
    serde_json::from_str(output[0].as_str().unwrap()).unwrap()
}

#[test]
fn a_turn_is_recorded_before_its_tools_run_and_its_results_before_the_model_is_asked_again() {
    let calls = vec![call("a", "read_file", json!({"path": "x"})), call("b", "read_file", json!({"path": "y"}))];
    let server = model(once(calls));
    let stage = stage(&server.url(), InForce::default());
    let run = stage.world.submit("go");
    stage.world.wait_for(run, RunStatus::Completed);
    let expected = [
        "run.accepted",
        "run.started",
        "external_action.request",
        "external_action.response",
        "message.appended",
        "permission.decided",
        "permission.decided",
        "tool_call.started",
        "tool_call.started",
        "tool_call.finished",
        "tool_call.finished",
        "external_action.request",
        "external_action.response",
        "message.appended",
        "run.output",
        "run.completed",
    ];
    assert_eq!(stage.world.kinds(run), expected);
    assert_eq!(stage.outcomes(run), pairs(&[("a", "ok"), ("b", "ok")]));
    let told = said(&stage, run);
    assert_eq!(told[0], ("a".to_string(), json!({"ok": "", "tool": "read_file", "path": "x"}).to_string()));
    let decided = &stage.world.bodies(run, "permission.decided")[0];
    assert_eq!((&decided["decision"], &decided["effective_mode"]), (&json!("allow"), &json!("default")));
    // The next run of the session is shown the whole turn.
    let next = stage.world.submit("again");
    stage.world.wait_for(next, RunStatus::Completed);
    assert_eq!(said(&stage, next).len(), 2);
}

#[test]
fn a_turn_costs_at_most_four_syncs_however_many_calls_it_has() {
    for (count, expected) in [(1, 2), (2, 3), (3, 4), (9, 4)] {
        let calls: Vec<Value> = (0..count).map(|n| bash(&format!("c{n}"), &format!("step {n}"))).collect();
        let server = model(once(calls));
        let stage = stage(&server.url(), bypass());
        let before = stage.world.core.view().batches;
        let run = stage.world.submit("go");
        stage.world.wait_for(run, RunStatus::Completed);
        let batches = stage.world.core.view().batches - before;
        // Of others: the acceptance with the start, the second turn's request with the first one's last results, and the
        // last answer with the end.
        assert_eq!(batches - 3, expected, "{count} calls: {:#?}", stage.world.kinds(run));
        assert_eq!(stage.bench.ran().len(), count);
    }
}

/// Pages of the web in the same turn: each waits until all three are being fetched.
struct Meeting(Mutex<u32>, Condvar);

impl DaemonTool for Meeting {
    fn has(&self, def: &ToolDef) -> bool {
        def.name == "web_fetch"
    }

    fn call(&self, caller: &Caller, _: &ToolDef, _: &RawValue, _: u64, _: &Cancel) -> ToolOutput {
        let mut here = self.0.lock().unwrap();
        *here += 1;
        self.1.notify_all();
        let (here, _) = self.1.wait_timeout_while(here, engine_support::PATIENCE, |here| *here < 3).unwrap();
        ToolOutput {
            content: json!({"page": caller.call, "met": *here >= 3}).to_string(),
            is_error: false,
            truncated: false,
            overflow: None,
        }
    }
}

#[test]
fn calls_that_wait_for_the_network_wait_together_and_their_results_keep_the_models_order() {
    let fetch = |id: &str| call(id, "web_fetch", json!({"url": "https://example.com/"}));
    let calls =
        vec![fetch("a"), call("b", "read_file", json!({"path": "x"})), fetch("c"), fetch("d"), bash("e", "last")];
    let server = model(once(calls));
    let bench = Bench::new();
    let settings = Arc::new(Changing::default());
    *settings.0.lock().unwrap() = bypass();
    let meeting = Arc::new(Meeting(Mutex::new(0), Condvar::new()));
    let toolbox = Toolbox::with_workers(bench.workers()).with_room(meeting);
    let world = World::open(&server.url(), "", FakeDisk::new(1), toolbox, settings.clone());
    let stage = Stage { world, bench, settings };
    let batches = stage.world.core.view().batches;
    let run = stage.world.submit("go");
    stage.world.wait_for(run, RunStatus::Completed);
    let told = said(&stage, run);
    let ids: Vec<&str> = told.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c", "d", "e"]);
    for (id, text) in told.iter().filter(|(id, _)| ["a", "c", "d"].contains(&id.as_str())) {
        assert_eq!(*text, json!({"page": id, "met": true}).to_string());
    }
    assert_eq!(stage.bench.ran(), ["read_file", "last"]);
    // One group of readers and one of the command: as before.
    assert_eq!(stage.world.core.view().batches - batches - 3, 3, "{:#?}", stage.world.kinds(run));
}

#[test]
fn a_call_that_needs_an_approval_waits_without_an_engine_and_runs_once_it_is_given() {
    let server = model(once(vec![bash("a", "first"), call("b", "read_file", json!({"path": "x"}))]));
    let stage = stage(&server.url(), InForce::default());
    let run = stage.world.submit("go");
    stage.wait_status(run, RunStatus::WaitingForApproval);
    stage.world.bell.wait_until("an idle engine", || stage.world.stops.is_empty().then_some(()));
    assert_eq!(stage.bench.ran(), [""; 0], "nothing of the turn runs before all of it is decided");
    assert_eq!(*stage.bench.started.lock().unwrap(), 0);
    let asked = &stage.world.bodies(run, "approval.requested")[0];
    assert_eq!((&asked["tool"], &asked["input"]), (&json!("bash"), &json!({"command": "first"})));
    assert!(asked["id"].as_str().unwrap().starts_with("approval-bash-1-"), "{asked}");
    let waiting = &stage.world.bodies(run, "run.waiting")[0];
    assert_eq!((&waiting["for"], &waiting["request_ids"]), (&json!("approval"), &json!([asked["id"]])));
    // Another session's run gets the engine meanwhile; the same session's waits behind.
    stage.resolve(run, true, None).unwrap();
    stage.world.wait_for(run, RunStatus::Completed);
    assert_eq!(stage.bench.ran(), ["first", "read_file"]);
    assert_eq!(stage.outcomes(run), pairs(&[("a", "ok"), ("b", "ok")]));
    let decided = stage.world.bodies(run, "permission.decided");
    let last = decided.iter().rfind(|body| body["call"] == "a").unwrap();
    assert_eq!((&last["decision"], &last["base_decision"]), (&json!("allow"), &json!("ask")));
    assert_eq!(last["approval"], asked["id"], "the record names the approval that allowed it");
}

#[test]
fn a_denied_call_is_told_to_the_model_with_the_words_of_the_person() {
    let server = model(once(vec![bash("a", "first")]));
    let stage = stage(&server.url(), InForce::default());
    let run = stage.world.submit("go");
    stage.wait_status(run, RunStatus::WaitingForApproval);
    stage.resolve(run, false, None).unwrap();
    stage.world.wait_for(run, RunStatus::Completed);
    assert_eq!(stage.bench.ran(), [""; 0]);
    assert_eq!(stage.outcomes(run), pairs(&[("a", "denied")]));
    assert!(said(&stage, run)[0].1.contains("because"), "{:?}", said(&stage, run));
}

#[test]
fn arguments_written_by_a_person_run_instead_and_are_held_to_schema_and_rules() {
    for (updated, outcome, ran) in [
        (json!({"command": "second"}), "ok", vec!["second"]),
        (json!({"cmd": "second"}), "error", vec![]),
        (json!({"command": "rm -rf x"}), "denied", vec![]),
    ] {
        let server = model(once(vec![bash("a", "first")]));
        let mut deny = rule("bash", Behavior::Deny);
        deny.argument = Some(kheish_daemon::permissions::ArgumentMatcher::CommandPrefix("rm".to_string()));
        let stage = stage(&server.url(), policy(&[deny]));
        let run = stage.world.submit("go");
        stage.wait_status(run, RunStatus::WaitingForApproval);
        stage.resolve(run, true, Some(updated.clone())).unwrap();
        stage.world.wait_for(run, RunStatus::Completed);
        assert_eq!(stage.bench.ran(), ran, "{updated}");
        assert_eq!(stage.outcomes(run), pairs(&[("a", outcome)]), "{updated}");
    }
}

#[test]
fn an_approval_given_under_other_rules_is_asked_for_again() {
    let server = model(once(vec![bash("a", "first")]));
    let stage = stage(&server.url(), InForce::default());
    let run = stage.world.submit("go");
    stage.wait_status(run, RunStatus::WaitingForApproval);
    *stage.settings.0.lock().unwrap() = policy(&[rule("write_file", Behavior::Deny)]);
    stage.resolve(run, true, None).unwrap();
    stage
        .world
        .bell
        .wait_until("a second approval", || (stage.world.bodies(run, "run.waiting").len() == 2).then_some(()));
    assert_eq!(stage.bench.ran(), [""; 0]);
    let asked = stage.world.bodies(run, "approval.requested");
    assert_ne!((&asked[0]["id"], &asked[0]["digest"]), (&asked[1]["id"], &asked[1]["digest"]));
    stage.resolve(run, true, None).unwrap();
    stage.world.wait_for(run, RunStatus::Completed);
    assert_eq!(stage.bench.ran(), ["first"]);
}

#[test]
fn pending_approvals_that_are_settled_as_denied_leave_nothing_hanging() {
    let server = model(once(vec![bash("a", "first"), bash("b", "second")]));
    let stage = stage(&server.url(), InForce::default());
    let run = stage.world.submit("go");
    stage.wait_status(run, RunStatus::WaitingForApproval);
    let deny = Command::DenyPending { session: None, reason: "permission_mode_dont_ask".to_string() };
    assert_eq!(stage.world.core.execute(deny), Ok(Decision::Settled { count: 2 }));
    stage.world.wait_for(run, RunStatus::Completed);
    assert_eq!(stage.outcomes(run), pairs(&[("a", "denied"), ("b", "denied")]));
    assert!(said(&stage, run)[0].1.contains("permission_mode_dont_ask"));
    assert_eq!(
        stage.resolve(run, true, None),
        Err(CommandError::Refused(Refusal::ApprovalBatchEmpty)),
        "nothing is pending"
    );
}

#[test]
fn a_question_suspends_the_run_and_its_answer_is_the_result() {
    let questions = json!({"questions": [{"id": "q", "question": "Which?", "options": [{"id": "x", "label": "X"}]}]});
    let calls = vec![bash("a", "before"), call("b", "ask_user_question", questions), bash("c", "after")];
    let server = model(once(calls));
    let stage = stage(&server.url(), bypass());
    let run = stage.world.submit("go");
    stage.wait_status(run, RunStatus::WaitingForUserQuestion);
    assert_eq!(stage.bench.ran(), ["before"], "calls keep the model's order");
    let asked = stage.world.bodies(run, "question.asked").remove(0);
    assert_eq!(asked["questions"][0]["question"], "Which?");
    let answer = |id: &str| {
        stage.world.core.execute(Command::ResolveQuestion {
            target: Target::Run(run),
            answer: Box::new(Reply {
                id: id.to_string(),
                answers: serde_json::from_value(json!([{"question_id": "q", "selected_option_ids": ["x"]}])).unwrap(),
                declined: false,
                justification: None,
            }),
            idempotency: None,
        })
    };
    assert!(matches!(answer("other"), Err(CommandError::Refused(Refusal::QuestionMismatch { .. }))));
    answer(asked["id"].as_str().unwrap()).unwrap();
    stage.world.wait_for(run, RunStatus::Completed);
    assert_eq!(stage.bench.ran(), ["before", "after"], "what had run is not run again");
    assert!(said(&stage, run)[1].1.contains(r#""selected_option_ids":["x"]"#), "{:?}", said(&stage, run));
}

#[test]
fn what_a_model_gets_wrong_is_told_to_it_and_the_run_goes_on() {
    let calls = vec![
        json!({"type": "function_call", "call_id": "a", "name": "bash", "arguments": "{\"command\": "}),
        call("b", "bash", json!({"command": 7})),
        call("c", "no_such_tool", json!({})),
        call("d", "bad name!", json!({})),
        bash("e", "good"),
    ];
    let server = model(once(calls));
    let stage = stage(&server.url(), bypass());
    let run = stage.world.submit("go");
    stage.world.wait_for(run, RunStatus::Completed);
    assert_eq!(stage.bench.ran(), ["good"]);
    let outcomes: Vec<String> = stage.outcomes(run).into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(outcomes, ["error", "error", "error", "error", "ok"]);
    let ids: Vec<String> = stage.outcomes(run).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["a", "b", "c", "d", "e"]);
    let told: Vec<String> = said(&stage, run).into_iter().map(|(id, _)| id).collect();
    assert_eq!(told, ids, "the provider is told of each call by the id that it is known by");
}

/// Refusals that come before rules and modes had no record: an auditor could not tell who had refused.
#[test]
fn every_call_that_is_decided_upon_has_its_record_whoever_refuses_it() {
    let mut in_force = policy(&[rule("write_file", Behavior::Deny)]);
    in_force.limits.max_calls_per_turn = 4;
    in_force.limits.max_input_bytes = 200;
    let calls = vec![
        call("a", "read_file", json!({"path": "x"})),
        call("b", "write_file", json!({"path": "x", "content": ""})),
        call("c", "read_file", json!({"path": "y".repeat(300)})),
        call("d", "glob_search", json!({"pattern": "*"})),
        call("e", "glob_search", json!({"pattern": "*"})),
    ];
    let server = model(once(calls));
    let stage = stage(&server.url(), in_force);
    let run = stage.world.submit("go");
    stage.world.wait_for(run, RunStatus::Completed);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let decided: Vec<(String, String, String)> = stage
        .world
        .bodies(run, "permission.decided")
        .iter()
        .map(|body| (text(&body["call"]), text(&body["decision"]), text(&body["scope"])))
        .collect();
    let expected = [
        ("a", "allow", "session"),
        ("b", "deny", "user"),
        ("c", "deny", "tool_limits"),
        ("d", "allow", "session"),
        ("e", "deny", "tool_limits"),
    ];
    let expected: Vec<_> = expected.map(|(a, b, c)| (a.to_string(), b.to_string(), c.to_string())).into();
    assert_eq!(decided, expected);
    let reasons = stage.world.bodies(run, "permission.decided");
    assert!(text(&reasons[2]["reason"]).starts_with("input_too_large: "), "{}", reasons[2]);
    assert!(text(&reasons[4]["reason"]).starts_with("too_many_calls: "), "{}", reasons[4]);
    assert_eq!(stage.bench.ran(), ["read_file", "glob_search"]);
}

#[test]
fn a_model_that_repeats_a_failing_call_is_warned_and_then_stopped() {
    let server = model(|_, _| Answer::Items(vec![bash("a", "fail always")]));
    let stage = stage(&server.url(), bypass());
    let run = stage.world.submit("go");
    stage.world.wait_for(run, RunStatus::Failed);
    assert_eq!(stage.world.failure(run).0, "tool_loop");
    assert_eq!(stage.bench.ran().len(), 6);
    let warned: Vec<bool> = stage
        .world
        .bodies(run, "tool_call.finished")
        .iter()
        .map(|body| body["content"].as_str().unwrap().contains("loop_warning"))
        .collect();
    assert_eq!(warned, [false, false, true, true, true, false]);
}

#[test]
fn a_stop_reaches_a_running_tool_and_frees_its_engine() {
    for interrupt in [false, true] {
        let server = model(once(vec![bash("a", "hang")]));
        let stage = stage(&server.url(), bypass());
        let run = stage.world.submit("go");
        stage.bench.is_hanging.recv().unwrap();
        let status = if interrupt {
            stage.world.core.execute(Command::InterruptSession { session: session() }).unwrap();
            RunStatus::Interrupted
        } else {
            stage.world.core.execute(Command::CancelRun { run, reason: None }).unwrap();
            RunStatus::Cancelled
        };
        // Terminal by the very batch that stops it: nobody waits for the tool.
        assert_eq!(stage.world.core.run(run).unwrap().unwrap().status, status);
        stage.world.bell.wait_until("an idle engine", || stage.world.stops.is_empty().then_some(()));
        assert_eq!(stage.outcomes(run), []);
        let next = stage.world.submit("next");
        // It may be over before anybody looks; that it was begun is what counts.
        stage.world.bell.wait_until("the next run", || {
            stage.world.kinds(next).iter().any(|kind| kind == "run.started").then_some(())
        });
    }
}

#[test]
fn a_worker_that_ends_is_told_to_the_model_and_replaced() {
    let server = model(once(vec![bash("a", "die"), bash("b", "good")]));
    let stage = stage(&server.url(), bypass());
    let run = stage.world.submit("go");
    stage.world.wait_for(run, RunStatus::Completed);
    assert_eq!(stage.outcomes(run), pairs(&[("a", "error"), ("b", "ok")]));
    assert_eq!(*stage.bench.started.lock().unwrap(), 2);
}

/// A panic took the engine with it: the run stayed active in nobody's hands, its session was blocked, and the next start met
/// the same.
#[test]
fn a_defect_fails_the_run_that_met_it_and_the_engine_goes_on() {
    let server = model(|request, _| match results(request).len() {
        0 if request["input"].to_string().contains("bad") => Answer::Items(vec![bash("a", "panic")]),
        _ => done("fine"),
    });
    let stage = stage(&server.url(), bypass());
    let run = stage.world.submit("bad");
    let next = stage.world.submit("good");
    stage.world.wait_for(run, RunStatus::Failed);
    assert_eq!(stage.world.failure(run).0, "engine_defect");
    assert_eq!(stage.outcomes(run), [], "what the tool did is not known, and nothing is said of it");
    // The one engine of this world carries the session's next run.
    stage.world.bell.wait_until("the next run", || {
        let status = stage.world.core.run(next).unwrap().unwrap().status;
        status.is_terminal().then_some(())
    });
}

#[test]
fn a_budget_ends_a_run_that_would_go_on() {
    for (budget, code, turns) in [
        (json!({"max_turns": 2}), "run_turns_exceeded", 2),
        (json!({"max_total_output_tokens": 25}), "run_tokens_exceeded", 3),
    ] {
        let server = model(|_, number| Answer::Items(vec![bash("a", &format!("step {number}"))]));
        let stage = stage(&server.url(), bypass());
        let request = json!({"content": "go", "source_plugin": "daemon", "source_kind": "api", "budget": budget});
        let run = stage.world.submit_request(request);
        stage.world.wait_for(run, RunStatus::Failed);
        assert_eq!(stage.world.failure(run).0, code);
        assert_eq!(stage.bench.ran().len(), turns, "what was asked for is done and recorded");
        assert_eq!(stage.outcomes(run).len(), turns);
    }
}

#[test]
fn a_conversation_that_does_not_fit_is_summarised_and_the_task_stays() {
    let refused = AtomicBool::new(false);
    let server = model(move |request, _| {
        let text = request["input"].to_string();
        if text.contains("<conversation>") {
            return done("SUMMARY OF THE BEGINNING");
        }
        match results(request).len() {
            count if count < 12 && !refused.load(Ordering::SeqCst) => {
                Answer::Items(vec![bash(&format!("c{count}"), &format!("step {count}"))])
            }
            _ if !refused.swap(true, Ordering::SeqCst) => Answer::Error(
                400,
                json!({"error": {"code": "context_length_exceeded", "message": "too long", "type": "invalid_request_error"}}),
            ),
            _ => done(&text),
        }
    });
    let stage = stage(&server.url(), bypass());
    let run = stage.world.submit("the task itself");
    stage.world.wait_for(run, RunStatus::Completed);
    let boundary = &stage.world.bodies(run, "context.compacted")[0];
    assert_eq!((&boundary["strategy"], &boundary["trigger"]), (&json!("model"), &json!("context_window_exceeded")));
    let shown = stage.world.output(run)[0].as_str().unwrap().to_string();
    for kept in ["SUMMARY OF THE BEGINNING", "the task itself", "step 11"] {
        assert!(shown.contains(kept), "{kept} is gone: {shown}");
    }
    assert!(!shown.contains("step 2"), "the older part is not shown any more");
    // The next run of the session begins with the summary too.
    let next = stage.world.submit("another task");
    stage.world.wait_for(next, RunStatus::Completed);
    let shown = stage.world.output(next)[0].as_str().unwrap().to_string();
    assert!(shown.contains("SUMMARY OF THE BEGINNING") && shown.contains("another task"));
    assert!(!shown.contains("step 2"));
}

#[test]
fn a_restart_keeps_what_is_done_issues_what_was_not_begun_and_never_repeats_what_is_unknown() {
    let calls = vec![bash("a", "one"), bash("b", "hang"), bash("c", "three")];
    let server = model(once(calls));
    let first = stage(&server.url(), bypass());
    let run = first.world.submit("go");
    first.bench.is_hanging.recv().unwrap();
    let bench = first.bench.clone();
    let disk = first.world.kill();
    let second = on_disk(&server.url(), bypass(), disk, bench);
    second.world.wait_for(run, RunStatus::Completed);
    assert_eq!(second.bench.ran(), ["one", "hang", "three"], "each ran once");
    assert_eq!(second.outcomes(run), pairs(&[("a", "ok"), ("b", "interrupted"), ("c", "ok")]));
    let resumed = &second.world.bodies(run, "run.resumed")[0];
    assert_eq!(resumed["found"], "tool_calls_open");
    assert_eq!(resumed["findings"], json!({"kept": 1, "issued": 1, "unknown": ["b"]}));
    let told = said(&second, run);
    assert!(told[1].1.contains("UNKNOWN") && told[1].1.contains("NOT run again"), "{told:?}");
}

/// Reading changes nothing, so a call that a crash cut off is made again instead of leaving the model in the dark.
#[test]
fn a_call_that_is_idempotent_runs_again_after_a_crash_and_its_result_is_its_own() {
    let server = model(once(vec![call("a", "read_file", json!({"path": "hang"}))]));
    let first = stage(&server.url(), InForce::default());
    let run = first.world.submit("go");
    first.bench.is_hanging.recv().unwrap();
    let disk = first.world.kill();
    let second = on_disk(&server.url(), InForce::default(), disk, Bench::new());
    second.bench.is_hanging.recv().unwrap();
    assert_eq!(second.bench.ran(), ["read_file"]);
    assert_eq!(second.world.bodies(run, "tool_call.started").len(), 2, "the second start is recorded too");
    second.world.core.execute(Command::CancelRun { run, reason: None }).unwrap();
}

#[test]
fn a_secret_that_a_tool_finds_reaches_neither_journal_nor_blob_nor_model() {
    let calls = vec![bash("a", "secret"), bash("b", "large"), bash("c", &format!("echo {SECRET}"))];
    let server = model(once(calls));
    let stage = stage(&server.url(), bypass());
    let run = stage.world.submit("go");
    stage.world.wait_for(run, RunStatus::Completed);
    assert_eq!(stage.outcomes(run), pairs(&[("a", "ok"), ("b", "ok"), ("c", "ok")]));
    assert!(!stage.world.journal_text().contains(SECRET));
    assert!(!json!(said(&stage, run)).to_string().contains(SECRET));
    let finished = &stage.world.bodies(run, "tool_call.finished")[1];
    assert_eq!(finished["truncated"], json!(true));
    let kept = stage.world.blobs.get(finished["blob"]["sha256"].as_str().unwrap()).unwrap();
    let kept = String::from_utf8(kept).unwrap();
    assert!(kept.starts_with("all of it, with ") && !kept.contains(SECRET), "{kept}");
    assert_eq!(finished["blob"]["bytes"], json!(kept.len()));
}

#[test]
fn a_waiting_run_survives_a_restart_and_goes_on_with_the_same_call() {
    let server = model(once(vec![bash("a", "first")]));
    let first = stage(&server.url(), InForce::default());
    let run = first.world.submit("go");
    first.wait_status(run, RunStatus::WaitingForApproval);
    let bench = first.bench.clone();
    let disk = first.world.kill();
    let second = on_disk(&server.url(), InForce::default(), disk, bench);
    assert_eq!(second.world.core.run(run).unwrap().unwrap().status, RunStatus::WaitingForApproval);
    second.resolve(run, true, None).unwrap();
    second.world.wait_for(run, RunStatus::Completed);
    assert_eq!(second.bench.ran(), ["first"]);
    assert_eq!(server.connections(), 2, "the model was not asked for the call again");
}

#[test]
fn a_power_cut_at_any_call_of_the_disk_loses_no_run_and_repeats_no_tool_silently() {
    const STEPS: usize = 6;
    // Each cut takes two lives; all of them are tried by the full batteries.
    let every = if std::env::var_os("KHEISH_BATTERIES").is_some() { 1 } else { 5 };
    let mut cut_at = 1;
    loop {
        let server = model(move |request, _| match results(request).len() {
            count if count < STEPS => Answer::Items(vec![bash(&format!("c{count}"), &format!("step {count}"))]),
            _ => done("all done"),
        });
        let first = stage(&server.url(), bypass());
        let bench = first.bench.clone();
        first.world.disk.crash_at(cut_at);
        let submitted = first.world.try_submit("go");
        let ended = first.world.until_off_or_ended(submitted);
        let disk = first.world.kill();
        let second = on_disk(&server.url(), bypass(), disk, bench);
        let Some(run) = submitted.filter(|_| !ended) else {
            if ended {
                break;
            }
            cut_at += every;
            continue;
        };
        second.world.wait_for(run, RunStatus::Completed);
        let outcomes = second.outcomes(run);
        assert_eq!(outcomes.len(), STEPS, "cut at {cut_at}");
        let counts = second.bench.counts.lock().unwrap().clone();
        for (step, (_, outcome)) in outcomes.iter().enumerate() {
            let ran = counts.get(&format!("step {step}")).copied().unwrap_or(0);
            match outcome.as_str() {
                "ok" => assert_eq!(ran, 1, "step {step}, cut at {cut_at}"),
                "interrupted" => assert!(ran <= 1, "step {step} ran {ran} times, cut at {cut_at}"),
                other => panic!("{other} at {cut_at}"),
            }
        }
        cut_at += every;
    }
    println!("the disk was called {cut_at} times");
    assert!(cut_at > 15, "the cuts reached the whole run: {cut_at}");
}
