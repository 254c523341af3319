//! Runs from their submission to their end: engine, core, journal, broker and network client together, against the
//! scripted provider and servers of raw bytes. Only the disk is a fake one.

mod engine_support;
mod net_raw_server;
mod sse_support;
mod state_root_scratch;

use std::io::Write;
use std::sync::atomic::Ordering;

use crossbeam_channel::bounded;
use engine_support::{
    EIO, ENOSPC, FROM_SLOT, SECRET, STREAM_HEAD, World, frames, message_item, previews, requests, server,
};
use kheish_daemon::broker::{Provider, Revocation, SlotId, SlotRecord, SubjectId};
use kheish_daemon::commit::CommandError;
use kheish_daemon::core::{Command, Decision, RunStatus};
use kheish_daemon::journal::fake_disk::{FaultMode, Op};
use kheish_daemon::secret::Secret;
use net_raw_server::{RawServer, read_request, wait_for_close};
use serde_json::{Value, json};
use state_root_scratch::record;

const ONE_CALL: [&str; 7] = [
    "run.accepted",
    "run.started",
    "external_action.request",
    "external_action.response",
    "message.appended",
    "run.output",
    "run.completed",
];

#[test]
fn the_second_run_of_a_session_is_asked_with_the_first_exchange_and_its_own_settings() {
    let server = server("[[turn]]\nmatch = 'first'\ntext = 'one'\n[[turn]]\nmatch = 'second'\ntext = 'two'");
    let world = World::scripted(&server, FROM_SLOT);
    let first = world.submit("the first");
    let second = world.submit_request(json!({"content": "the second", "max_output_tokens": 99, "temperature": 0.5}));
    world.wait_for(second, RunStatus::Completed);
    assert_eq!(
        (world.kinds(first), world.kinds(second)),
        (ONE_CALL.map(String::from).to_vec(), ONE_CALL.map(String::from).to_vec())
    );
    assert_eq!((world.output(first), world.output(second)), (vec![json!("one")], vec![json!("two")]));
    let seen = requests(&server);
    let user = |text: &str| json!({"role": "user", "content": [{"type": "input_text", "text": text}]});
    assert_eq!(seen[0]["body"]["input"], json!([user("the first")]));
    assert_eq!(seen[0]["body"].get("temperature"), None);
    let input = seen[1]["body"]["input"].as_array().unwrap();
    assert_eq!((input.len(), &input[0], &input[2]), (3, &user("the first"), &user("the second")));
    assert_eq!((&input[1]["type"], &input[1]["content"][0]["text"]), (&json!("message"), &json!("one")));
    assert_eq!((&seen[1]["body"]["max_output_tokens"], &seen[1]["body"]["temperature"]), (&json!(99), &json!(0.5)));
}

#[test]
fn a_refused_attempt_is_tried_again_and_both_are_recorded_with_one_output() {
    let server = server(
        "[[turn]]\nmatch = 'busy'\ntimes = 1\nerror = {status = 429, retry_after_ms = 1}\n\
         [[turn]]\nmatch = 'busy'\ntext = 'now'",
    );
    let world = World::scripted(&server, FROM_SLOT);
    let run = world.submit("busy");
    world.wait_for(run, RunStatus::Completed);
    let mut kinds = ONE_CALL.to_vec();
    kinds.splice(2..2, ["external_action.request", "external_action.response"]);
    assert_eq!(world.kinds(run), kinds);
    let (asked, answered) =
        (world.bodies(run, "external_action.request"), world.bodies(run, "external_action.response"));
    let outcomes: Vec<_> =
        answered.iter().map(|it| (&it["action"], &it["outcome"], &it["http_status"], &it["error"])).collect();
    assert_eq!(
        outcomes,
        [
            (&json!(1), &json!("failed"), &json!(429), &json!("provider_rate_limit")),
            (&json!(2), &json!("succeeded"), &json!(200), &Value::Null)
        ]
    );
    assert_eq!((&asked[0]["action"], &asked[1]["action"]), (&json!(1), &json!(2)));
    assert_eq!(asked[0]["request_digest"], asked[1]["request_digest"], "the same request");
    assert_ne!(asked[0]["lease"], asked[1]["lease"], "each attempt has its own lease");
    assert_eq!(world.output(run), [json!("now")]);
    // The broker is told without being waited for.
    world.bell.wait_until("every lease given back", || (world.secrets.stats().lease_count == 0).then_some(()));
}

#[test]
fn a_stream_that_breaks_after_text_is_asked_again_and_the_output_has_the_text_once() {
    let server = server(
        "[[turn]]\nmatch = 'break'\ntimes = 1\ntext = 'some text'\nchunk_chars = 3\nfault = {kind = 'disconnect', after_frames = 6}\n\
         [[turn]]\nmatch = 'break'\ntext = 'some text'\nchunk_chars = 3",
    );
    let world = World::scripted(&server, FROM_SLOT);
    let mut client = world.stream();
    let run = world.submit("break");
    let (texts, _) = previews(&mut client);
    world.wait_for(run, RunStatus::Completed);
    assert_eq!(texts, ["som", "e t", "ext"], "what is said again is not shown again");
    assert_eq!(world.output(run), [json!("some text")]);
    let answered = world.bodies(run, "external_action.response");
    let ends: Vec<_> = answered.iter().map(|it| (&it["outcome"], &it["error"])).collect();
    assert_eq!(ends, [(&json!("failed"), &json!("provider_malformed_stream")), (&json!("succeeded"), &Value::Null)]);
}

#[test]
fn an_attempt_that_says_something_else_takes_back_what_was_shown() {
    let server = server(
        "[[turn]]\nmatch = 'break'\ntimes = 1\ntext = 'some text'\nchunk_chars = 3\nfault = {kind = 'disconnect', after_frames = 6}\n\
         [[turn]]\nmatch = 'break'\ntimes = 1\ntext = 'somewhere else'\nchunk_chars = 5\nfault = {kind = 'truncate'}\n\
         [[turn]]\nmatch = 'break'\ntext = 'some'",
    );
    let world = World::scripted(&server, FROM_SLOT);
    let mut client = world.stream();
    let run = world.submit("break");
    let (texts, _) = previews(&mut client);
    world.wait_for(run, RunStatus::Completed);
    let expected = ["som", "e t", "<withdrawn>", "somew", "here ", "else", "<withdrawn>"];
    assert_eq!(texts, expected, "the last attempt says less than was shown");
    assert_eq!(world.output(run), [json!("some")]);
}

#[test]
fn a_refused_credential_fails_the_run_at_once_and_shows_no_secret() {
    let message = format!("Incorrect API key provided: {SECRET}");
    let server =
        server(&format!("[default]\nerror = {{status = 401, code = 'invalid_api_key', message = '{message}'}}"));
    let world = World::scripted(&server, FROM_SLOT);
    let run = world.submit("hi");
    world.wait_for(run, RunStatus::Failed);
    let (code, message) = world.failure(run);
    assert_eq!(code, "provider_auth");
    assert!(message.contains("HTTP 401") && message.contains("; next: "), "{message}");
    assert_eq!(requests(&server).len(), 1, "asked again with a refused key");
    assert!(!world.journal_text().contains(SECRET));
}

#[test]
fn a_slot_overwritten_before_the_call_is_sent_ends_its_lease_and_the_next_attempt_uses_the_new_secret() {
    let server = server("");
    let world = World::scripted(&server, FROM_SLOT);
    let secrets = world.secrets.clone();
    *world.clock.at_exchange.lock().unwrap() = Some(Box::new(move || {
        secrets.put(record("openai.test", Provider::OpenAi, "sk-another-secret")).unwrap();
    }));
    let run = world.submit("hi");
    world.wait_for(run, RunStatus::Completed);
    let seen: Vec<Value> = requests(&server).iter().map(|request| request["authorization"].clone()).collect();
    let digest: String = ring::digest::digest(&ring::digest::SHA256, b"sk-another-secret")
        .as_ref()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(seen.len(), 1, "nothing was sent with the former secret: {seen:?}");
    assert!(seen[0].to_string().contains(&digest), "{seen:?}");
    let answered = world.bodies(run, "external_action.response");
    let outcomes: Vec<_> = answered.iter().map(|body| (body["outcome"].clone(), body.get("error").cloned())).collect();
    assert_eq!(outcomes, [(json!("failed"), Some(json!("provider_auth"))), (json!("succeeded"), None)]);
}

#[test]
fn organization_and_project_of_the_slot_go_along_with_its_key() {
    let server = server("");
    let world = World::scripted(&server, FROM_SLOT);
    let (slot, secret) = (SlotId::parse("openai.test").unwrap(), Secret::new(b"sk-of-an-organization".to_vec()));
    let (organization, project) = (Some("org-1".to_string()), Some("proj-1".to_string()));
    world.secrets.put(SlotRecord::new(slot, Provider::OpenAi, secret, organization, project, 1).unwrap()).unwrap();
    let run = world.submit("hi");
    world.wait_for(run, RunStatus::Completed);
    let seen = &requests(&server)[0];
    assert_eq!((&seen["organization"], &seen["project"]), (&json!("org-1"), &json!("proj-1")));
}

#[test]
fn a_slot_revoked_before_the_call_is_sent_fails_the_run_with_nothing_sent_until_it_is_set_again() {
    let server = server("");
    let world = World::scripted(&server, FROM_SLOT);
    let secrets = world.secrets.clone();
    *world.clock.at_exchange.lock().unwrap() = Some(Box::new(move || {
        let slot = SlotId::parse("openai.test").unwrap();
        assert!(secrets.revoke_slot(&slot, Revocation::default(), 1_764_057_600_000).unwrap().blocked);
    }));
    let run = world.submit("hi");
    world.wait_for(run, RunStatus::Failed);
    let (code, message) = world.failure(run);
    assert_eq!(code, "provider_auth");
    assert!(message.contains("slot openai.test was revoked") && message.contains("; next: "), "{message}");
    assert_eq!(requests(&server), Vec::<Value>::new());
    world.secrets.put(record("openai.test", Provider::OpenAi, "sk-another-secret")).unwrap();
    let next = world.submit("again");
    world.wait_for(next, RunStatus::Completed);
}

#[test]
fn a_revoked_session_takes_the_call_in_flight_from_its_agent() {
    let server =
        server("[[turn]]\nmatch = 'hang'\ntext = 'abcdef'\nchunk_chars = 3\nfault = {kind = 'hang', after_frames = 5}");
    let world = World::scripted(&server, FROM_SLOT);
    let mut client = world.stream();
    let run = world.submit("hang");
    while !client.event().contains("event: preview") {}
    let session = SubjectId::session("s");
    let fallen = world.secrets.revoke_subject(&session, Revocation::default(), 1_764_057_600_000).unwrap();
    assert_eq!((fallen.revoked_leases, fallen.affected_subjects), (1, vec![SubjectId::agent("agent-1")]));
    world.wait_for(run, RunStatus::Failed);
    let (code, message) = world.failure(run);
    assert_eq!(code, "provider_auth");
    assert!(message.contains("agent:agent-1 acts for session:s, which is revoked"), "{message}");
    assert_eq!(requests(&server).len(), 1, "no further call was made");
    world.bell.wait_until("an idle engine", || world.stops.is_empty().then_some(()));
}

#[test]
fn a_cancelled_run_lets_go_of_a_hanging_stream_and_of_its_engine() {
    let server =
        server("[[turn]]\nmatch = 'hang'\ntext = 'abcdef'\nchunk_chars = 3\nfault = {kind = 'hang', after_frames = 5}");
    let world = World::scripted(&server, FROM_SLOT);
    let mut client = world.stream();
    let run = world.submit("hang");
    let behind = world.submit("behind");
    while !client.event().contains("event: preview") {}
    let decision = world.core.execute(Command::CancelRun { run, reason: Some("enough".to_string()) });
    assert_eq!(decision, Ok(Decision::Run { run, status: RunStatus::Cancelled, changed: true }));
    world.wait_for(behind, RunStatus::Completed);
    assert_eq!(
        world.kinds(run),
        ["run.accepted", "run.started", "external_action.request", "external_action.response", "run.cancelled"]
    );
    let closing = &world.bodies(run, "external_action.response")[0];
    assert_eq!((&closing["outcome"], &closing["cause"]), (&json!("unknown"), &json!("run_cancelled")));
    assert_eq!(world.bodies(run, "run.cancelled")[0]["reason"], json!("enough"));
    world.bell.wait_until("an idle engine", || world.stops.is_empty().then_some(()));
}

/// A session was broken for good once a model had asked for a tool: its call was replayed with every later input, and
/// providers refuse a call without its result.
#[test]
fn a_model_that_asks_for_tools_where_there_are_none_is_told_so_and_does_not_break_the_session() {
    let server =
        server("[[turn]]\nmatch = 'tool'\ntimes = 1\ntext = 'let me'\ntool_calls = [{name = 'add', call_id = 'a'}]");
    let world = World::scripted(&server, FROM_SLOT);
    let run = world.submit("tool");
    world.wait_for(run, RunStatus::Completed);
    assert_eq!(world.bodies(run, "tool_call.finished")[0]["outcome"], json!("error"));
    let next = world.submit("go on");
    world.wait_for(next, RunStatus::Completed);
    let seen = requests(&server);
    let kinds = |request: &Value| -> Vec<String> {
        let items = request["body"]["input"].as_array().unwrap();
        items.iter().map(|item| item["type"].as_str().or(item["role"].as_str()).unwrap().to_string()).collect()
    };
    let turn = ["user", "message", "function_call", "function_call_output"];
    assert_eq!(kinds(&seen[1]), turn);
    assert_eq!(kinds(&seen[2]), [&turn[..], &["message", "user"]].concat());
}

#[test]
fn an_answer_that_no_batch_can_hold_fails_its_run_and_stays_recorded_as_received() {
    // Four copies of it must be written; each item stays below the bound of a frame.
    let item = message_item(&"x".repeat(6 * 1024 * 1024)).to_string();
    let raw = RawServer::start(move |mut stream| {
        read_request(&mut stream);
        let mut answer = STREAM_HEAD.to_string();
        for index in 0..3 {
            answer += &format!(
                "data: {{\"type\":\"response.output_item.done\",\"output_index\":{index},\"item\":{item}}}\n\n"
            );
        }
        answer += &frames(&[json!({"type": "response.completed", "response": {"id": "resp_1"}})]);
        stream.write_all(answer.as_bytes()).expect("the client reads it all");
    });
    let world = World::new(&raw.url(), "");
    let run = world.submit("hi");
    world.wait_for(run, RunStatus::Failed);
    assert_eq!(world.failure(run).0, "record_too_large");
    assert_eq!(
        world.kinds(run),
        ["run.accepted", "run.started", "external_action.request", "external_action.response", "run.failed"]
    );
    assert_eq!(world.bodies(run, "external_action.response")[0]["response_id"], json!("resp_1"));
}

/// An answer was paid for and then lost, or its run left without an engine, when the disk refused it once.
#[test]
fn an_answer_that_the_disk_refuses_is_kept_until_it_takes_it() {
    for (errno, mode) in [(ENOSPC, FaultMode::ForGood), (EIO, FaultMode::Once)] {
        let (go, gate) = bounded::<()>(1);
        let raw = RawServer::start(move |mut stream| {
            read_request(&mut stream);
            let delta = json!({"type": "response.output_text.delta", "output_index": 0, "delta": "answer"});
            stream.write_all((STREAM_HEAD.to_string() + &frames(&[delta])).as_bytes()).unwrap();
            gate.recv().unwrap();
            let item = json!({"type": "response.output_item.done", "output_index": 0, "item": message_item("answer")});
            let done = json!({"type": "response.completed", "response": {}});
            stream.write_all(frames(&[item, done]).as_bytes()).unwrap();
            wait_for_close(&mut stream);
        });
        let world = World::new(&raw.url(), "");
        let mut client = world.stream();
        let run = world.submit("hi");
        while !client.event().contains("event: preview") {}
        world.disk.fail_ops_at(&[Op::Write], 1, errno, mode);
        go.send(()).unwrap();
        let refusal = world.bell.wait_until("a refusal", || world.core.view().refusing.clone());
        assert_eq!(matches!(refusal, CommandError::StorageFull { .. }), errno == ENOSPC, "{refusal}");
        assert_eq!(world.core.run(run).unwrap().unwrap().status, RunStatus::Running);
        world.disk.heal();
        world.wait_for(run, RunStatus::Completed);
        assert_eq!((world.kinds(run), raw.connections()), (ONE_CALL.map(String::from).to_vec(), 1), "asked again");
        assert_eq!(world.core.view().poisoned, None);
    }
}

#[test]
fn a_secret_that_a_model_repeats_reaches_neither_journal_nor_stream() {
    // The second one stands in the routes file alone, and no slot has ever held it.
    let inline = "sk-inline-secret-987654321";
    for (secret, credential) in [(SECRET, FROM_SLOT.to_string()), (inline, format!("api_key = '{inline}'"))] {
        let server = server(&format!(
            "[default]\ntext = 'the key is {secret}, really'\nreasoning = 'r {secret}'\nchunk_chars = 4"
        ));
        let world = World::scripted(&server, &credential);
        let mut client = world.stream();
        let run = world.submit("what is the key?");
        let (texts, frame) = previews(&mut client);
        world.wait_for(run, RunStatus::Completed);
        assert_eq!(requests(&server)[0]["authorization"]["scheme"], "Bearer");
        let hidden = "the key is <redacted>, really";
        assert_eq!(texts.concat(), hidden, "{texts:?}");
        assert!(frame.contains(hidden) && !frame.contains(secret), "{frame}");
        assert_eq!(world.output(run), [json!(hidden)]);
        let message = &world.bodies(run, "message.appended")[0];
        assert_eq!(message["items"][0]["encrypted_content"], "r <redacted>");
        assert_eq!(message["items"][1]["content"][0]["text"], hidden);
        let written = world.journal_text();
        assert!(!written.contains(secret) && !written.contains(&secret[3..]), "{written}");
    }
}

/// Runs were failed for good as `provider_auth` in the moment between the broker's end and the daemon's.
#[test]
fn without_its_broker_an_engine_leaves_runs_to_the_next_start() {
    let server = server("");
    let mut world = World::scripted(&server, FROM_SLOT);
    world.broker.take().unwrap().stop().unwrap();
    let run = world.submit("hi");
    world.bell.wait_until("the engine has met the run and let go", || {
        (world.clock.asked.load(Ordering::SeqCst) > 0 && world.stops.is_empty()).then_some(())
    });
    assert_eq!(world.kinds(run), ["run.accepted", "run.started"]);
}
