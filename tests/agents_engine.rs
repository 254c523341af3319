//! Child agents through the engine: made, waited for without an engine, told and asked, narrowed, ended with their
//! parent, and found again after a crash at any moment. One engine carries all of them.

mod engine_support;
mod net_raw_server;
mod sse_support;
mod state_root_scratch;

use std::sync::Arc;

use engine_support::model::{Answer, Bench, bash, call, done, model, results};
use engine_support::{FROM_SLOT, World, session};
use kheish_daemon::broker::{Revocation, SubjectId};
use kheish_daemon::clock::{Clock, SystemClock};
use kheish_daemon::core::{
    AgentCommand, AgentQuery, AgentView, Answer as Reply, Command, Decision, Mail, Mailbox, Order, QuestionAnswer,
    RunQuery, RunStatus, SessionChange, Target,
};
use kheish_daemon::engine::Toolbox;
use kheish_daemon::ids::{RunId, SessionId};
use kheish_daemon::journal::fake_disk::FakeDisk;
use kheish_daemon::permissions::Mode;
use serde_json::{Value, json};

fn world(url: &str, bench: &Arc<Bench>) -> World {
    on_disk(url, bench, FakeDisk::new(1))
}

fn on_disk(url: &str, bench: &Arc<Bench>, disk: FakeDisk) -> World {
    World::with_agents(url, "", disk, Toolbox::with_workers(bench.workers()))
}

/// The first words of a conversation: whose it is.
fn task(request: &Value) -> String {
    let text = &request["input"][0]["content"];
    text.as_str().map_or_else(|| text[0]["text"].as_str().unwrap_or_default().to_string(), str::to_string)
}

fn result(request: &Value, id: &str) -> Option<Value> {
    let found = results(request).into_iter().rev().find(|(call, _)| call == id)?;
    Some(serde_json::from_str(&found.1).unwrap_or(Value::String(found.1)))
}

fn spawn(id: &str, task: &str, more: Value) -> Value {
    let mut input = json!({"task": task});
    for (key, value) in more.as_object().unwrap() {
        input[key] = value.clone();
    }
    call(id, "spawn_agent", input)
}

fn wait(id: &str, agents: &[&Value]) -> Value {
    call(id, "wait_agent", json!({"agent_ids": agents}))
}

fn agents(world: &World) -> Vec<AgentView> {
    let query = AgentQuery { below: Some(session()), after: 0, limit: 100 };
    world.core.read(move |state| state.agent_page(&query)).unwrap().items
}

fn child_runs(world: &World, child: &SessionId) -> Vec<RunId> {
    let child = child.clone();
    let runs = world.core.read(move |state| {
        let query = RunQuery { session: Some(child), order: Order::Ascending, after: None, limit: 100 };
        state.run_page(&query).items.into_iter().map(|run| run.id).collect::<Vec<_>>()
    });
    runs.unwrap()
}

/// A parent that has two children do something and says what they answered.
fn delegating(request: &Value) -> Answer {
    match task(request).as_str() {
        "parent" => match (result(request, "s1"), result(request, "s2"), result(request, "w")) {
            (None, _, _) => Answer::Items(vec![
                spawn("s1", "child one", json!({"name": "one"})),
                spawn("s2", "child two", json!({})),
            ]),
            (Some(one), Some(two), None) => Answer::Items(vec![wait("w", &[&one["agent_id"], &two["agent_id"]])]),
            (_, _, Some(waited)) => done(&waited.to_string()),
            other => panic!("{other:?}"),
        },
        "child one" => done("answer one"),
        "child two" => match result(request, "b") {
            None => Answer::Items(vec![bash("b", "two")]),
            Some(_) => done("answer two"),
        },
        other => panic!("{other:?}"),
    }
}

fn bypass(world: &World) {
    let change = SessionChange::PermissionMode(Some(Mode::BypassPermissions));
    world.core.execute(Command::UpdateSession { session: session(), change }).unwrap();
}

#[test]
fn a_parent_waits_for_its_children_without_an_engine_and_is_told_what_they_answered() {
    let server = model(|request, _| delegating(request));
    let bench = Bench::new();
    let world = world(&server.url(), &bench);
    bypass(&world);
    let run = world.submit("parent");
    world.wait_for(run, RunStatus::Completed);
    let said: Value = serde_json::from_str(world.output(run)[0].as_str().unwrap()).unwrap();
    assert_eq!(said["timed_out"], false);
    let shown = |at: usize| {
        let agent = &said["agents"][at];
        (agent["name"].clone(), agent["status"].clone(), agent["output"].clone(), agent["closed"].clone())
    };
    assert_eq!(shown(0), (json!("one"), json!("completed"), json!("answer one"), json!(true)));
    assert_eq!(shown(1), (Value::Null, json!("completed"), json!("answer two"), json!(true)));
    assert_eq!(bench.ran(), ["two"]);
    let kinds = world.kinds(run);
    let count = |wanted: &str| kinds.iter().filter(|kind| *kind == wanted).count();
    assert_eq!((count("agents.awaited"), count("run.waiting"), count("run.continued")), (1, 1, 1), "{kinds:?}");
    // Each is a session and a run like any other, below the one that made it.
    let tree = agents(&world);
    let place = |agent: &AgentView| agent.view.session.child.as_ref().map(|child| (child.parent, child.depth));
    assert_eq!(tree.iter().map(place).collect::<Vec<_>>(), [None, Some((1, 1)), Some((1, 1))]);
    let counts = world.core.view().counts.agents;
    assert_eq!((counts.total, counts.children, counts.open_children, counts.closed), (3, 2, 0, 2));
}

fn child_of(world: &World) -> AgentView {
    world.bell.wait_until("a child", || agents(world).into_iter().nth(1))
}

fn status_of(world: &World, run: RunId) -> RunStatus {
    world.core.run(run).unwrap().unwrap().status
}

fn until(world: &World, run: RunId, status: RunStatus) {
    world.bell.wait_until(status.as_str(), || (status_of(world, run) == status).then_some(()));
}

/// Until the run waits for agents.
fn until_parked(world: &World, run: RunId) {
    world.bell.wait_until("the wait for agents", || {
        world.kinds(run).iter().any(|kind| kind == "agents.awaited").then_some(())
    });
}

/// A parent that waits for one child, which does what `child` says.
fn with_child(
    more: Value,
    child: impl Fn(&Value) -> Answer + Send + 'static,
) -> impl Fn(&Value, usize) -> Answer + Send + 'static {
    move |request, _| match task(request).as_str() {
        "parent" => match (result(request, "s"), result(request, "w")) {
            (None, _) => Answer::Items(vec![spawn("s", "child", more.clone())]),
            (Some(made), None) => match &made["agent_id"] {
                Value::Null => done(&made.to_string()),
                id => Answer::Items(vec![wait("w", &[id])]),
            },
            (_, Some(waited)) => done(&waited.to_string()),
        },
        _ => child(request),
    }
}

fn said(world: &World, run: RunId) -> Value {
    serde_json::from_str(world.output(run)[0].as_str().unwrap()).unwrap()
}

#[test]
fn what_stops_a_parent_reaches_the_children_that_it_waits_for() {
    type Stop = fn(&World, RunId);
    let stops: [(Stop, RunStatus); 3] = [
        (
            |world, run| drop(world.core.execute(Command::CancelRun { run, reason: None }).unwrap()),
            RunStatus::Cancelled,
        ),
        (
            |world, _| drop(world.core.execute(Command::InterruptSession { session: session() }).unwrap()),
            RunStatus::Interrupted,
        ),
        (
            |world, _| drop(world.core.execute(Command::EndSession { session: session(), reason: None }).unwrap()),
            RunStatus::Interrupted,
        ),
    ];
    for (stop, expected) in stops {
        let server = model(with_child(json!({"retention": "retain"}), |_| Answer::Items(vec![bash("b", "hang")])));
        let bench = Bench::new();
        let world = world(&server.url(), &bench);
        bypass(&world);
        let run = world.submit("parent");
        until_parked(&world, run);
        bench.is_hanging.recv_timeout(engine_support::PATIENCE).unwrap();
        let child = child_of(&world);
        let child_run = child.view.active.expect("it is hanging");
        stop(&world, run);
        assert_eq!((status_of(&world, run), status_of(&world, child_run)), (expected, RunStatus::Interrupted));
        let closed = agents(&world)[1].view.session.ended;
        assert!(closed, "{expected:?}");
        // The engine is free again, and nothing of the child goes on.
        world.bell.wait_until("an idle engine", || world.stops.is_empty().then_some(()));
        assert_eq!(child_runs(&world, &child.view.session.id), [child_run]);
    }
}

#[test]
fn a_parent_that_fails_closes_its_children_and_one_that_completes_does_not() {
    for (fails, closed) in [(true, true), (false, false)] {
        let server = model(move |request, _| match (task(request).as_str(), result(request, "s")) {
            ("parent", None) => Answer::Items(vec![spawn("s", "child", json!({"retention": "retain"}))]),
            ("parent", Some(_)) if fails => Answer::Error(400, json!({"error": {"message": "no"}})),
            ("parent", Some(_)) => done("left to itself"),
            _ => done("child done"),
        });
        let world = world(&server.url(), &Bench::new());
        let run = world.submit("parent");
        world.wait_for(run, if fails { RunStatus::Failed } else { RunStatus::Completed });
        let child = child_of(&world).view.session;
        assert_eq!(child.ended, closed);
        let runs = child_runs(&world, &child.id);
        until(&world, runs[0], if fails { RunStatus::Interrupted } else { RunStatus::Completed });
    }
}

#[test]
fn a_child_asks_its_parent_which_answers_and_waits_again() {
    let asks = call(
        "q",
        "request_parent_clarification",
        json!({"questions": [{"id": "colour", "question": "Which?",
        "options": [{"id": "red", "label": "Red"}, {"id": "blue", "label": "Blue"}]}]}),
    );
    let server = model(move |request, _| match task(request).as_str() {
        "parent" => match (result(request, "s"), result(request, "w"), result(request, "a"), result(request, "w2")) {
            (None, ..) => Answer::Items(vec![spawn("s", "child", json!({}))]),
            (Some(made), None, ..) => Answer::Items(vec![wait("w", &[&made["agent_id"]])]),
            (Some(made), Some(waited), None, _) => {
                let question = &waited["agents"][0]["question"];
                assert_eq!(question["questions"][0]["id"], "colour", "{waited}");
                assert_eq!(waited["timed_out"], false);
                let wrong = json!([{"question_id": "colour", "selected_option_ids": ["green"]}]);
                let right = json!([{"question_id": "colour", "selected_option_ids": ["blue"]}]);
                let answer = |id: &str, answers: Value| {
                    call(
                        id,
                        "answer_agent",
                        json!({"agent_id": made["agent_id"], "question_id": question["id"],
                        "answers": answers}),
                    )
                };
                Answer::Items(vec![answer("x", wrong), answer("a", right.clone()), answer("again", right)])
            }
            (Some(made), Some(_), Some(_), None) => Answer::Items(vec![wait("w2", &[&made["agent_id"]])]),
            (.., Some(waited)) => {
                let code = |id: &str| result(request, id).unwrap()["code"].clone();
                done(&json!([waited, code("x"), code("again")]).to_string())
            }
        },
        _ => match result(request, "q") {
            None => Answer::Items(vec![asks.clone()]),
            Some(answer) => done(&answer.to_string()),
        },
    });
    let world = world(&server.url(), &Bench::new());
    let run = world.submit("parent");
    world.wait_for(run, RunStatus::Completed);
    let said = said(&world, run);
    let heard: Value = serde_json::from_str(said[0]["agents"][0]["output"].as_str().unwrap()).unwrap();
    assert_eq!(heard["answers"], json!([{"question_id": "colour", "selected_option_ids": ["blue"]}]));
    assert_eq!((&said[1], &said[2]), (&json!("invalid_arguments"), &json!("question_not_open")));
}

/// The parent of the grandchild was looked at alone, and whoever waited further up slept until its deadline.
#[test]
fn an_agent_that_waits_for_a_grandchild_goes_on_when_that_ends() {
    let server = model(|request, _| match task(request).as_str() {
        "parent" => match (result(request, "s"), result(request, "w"), result(request, "l"), result(request, "v")) {
            (None, ..) => Answer::Items(vec![spawn("s", "child", json!({"retention": "retain"}))]),
            (Some(made), None, ..) => Answer::Items(vec![wait("w", &[&made["agent_id"]])]),
            (Some(_), Some(_), None, _) => Answer::Items(vec![call("l", "list_agents", json!({}))]),
            (Some(made), Some(_), Some(listed), None) => {
                let all = listed["agents"].as_array().expect("a list");
                let other = all.iter().find(|agent| agent["agent_id"] != made["agent_id"]).expect("the grandchild");
                Answer::Items(vec![wait("v", &[&other["agent_id"]])])
            }
            (.., Some(waited)) => done(&waited.to_string()),
        },
        "child" => match result(request, "g") {
            None => Answer::Items(vec![spawn("g", "grandchild", json!({"retention": "retain"}))]),
            Some(_) => done("made it"),
        },
        _ => match result(request, "q") {
            None => {
                let questions = json!({"questions": [{"id": "q", "question": "Why?"}]});
                Answer::Items(vec![call("q", "ask_user_question", questions)])
            }
            Some(_) => done("because"),
        },
    });
    let world = world(&server.url(), &Bench::new());
    bypass(&world);
    let parent = world.submit("parent");
    world.bell.wait_until("both waits", || {
        (world.kinds(parent).iter().filter(|kind| *kind == "agents.awaited").count() == 2).then_some(())
    });
    let grandchild = agents(&world)[2].view.session.id.clone();
    let run = child_runs(&world, &grandchild)[0];
    until(&world, run, RunStatus::WaitingForUserQuestion);
    let id = world.bodies(run, "question.asked")[0]["id"].as_str().unwrap().to_string();
    let answers = vec![QuestionAnswer {
        question_id: "q".to_string(),
        selected_option_ids: Vec::new(),
        freeform_answer: Some("because".to_string()),
    }];
    let answer = Box::new(Reply { id, answers, declined: false, justification: None });
    let target = Target::Session(grandchild);
    world.core.execute(Command::ResolveQuestion { target, answer, idempotency: None }).unwrap();
    world.wait_for(parent, RunStatus::Completed);
    let waited = said(&world, parent);
    assert_eq!((&waited["timed_out"], &waited["agents"][0]["output"]), (&json!(false), &json!("because")));
}

#[test]
fn a_person_may_answer_what_a_child_asks_its_parent_and_its_deadline_lets_it_go_on() {
    let asks = |more: Value| {
        let mut input = json!({"questions": [{"id": "q", "question": "Why?"}]});
        for (key, value) in more.as_object().unwrap() {
            input[key] = value.clone();
        }
        call("q", "request_parent_clarification", input)
    };
    for expires in [false, true] {
        let more = if expires { json!({"expires_after_ms": 1_000}) } else { json!({}) };
        let asked = asks(more);
        // The parent does not wait: nobody but a person or the deadline answers.
        let server =
            model(move |request, _| match (task(request).as_str(), result(request, "s"), result(request, "q")) {
                ("parent", None, _) => Answer::Items(vec![spawn("s", "child", json!({}))]),
                ("parent", ..) => done("not waiting"),
                (_, _, None) => Answer::Items(vec![asked.clone()]),
                (.., Some(answer)) => done(&answer.to_string()),
            });
        let world = world(&server.url(), &Bench::new());
        let parent = world.submit("parent");
        world.wait_for(parent, RunStatus::Completed);
        let child = child_of(&world).view.session.id;
        let run = child_runs(&world, &child)[0];
        if !expires {
            until(&world, run, RunStatus::WaitingForUserQuestion);
            let id = world.bodies(run, "question.asked")[0]["id"].as_str().unwrap().to_string();
            let answers = vec![QuestionAnswer {
                question_id: "q".to_string(),
                selected_option_ids: Vec::new(),
                freeform_answer: Some("because".to_string()),
            }];
            let answer = Box::new(Reply { id, answers, declined: false, justification: None });
            let target = Target::Session(child);
            world.core.execute(Command::ResolveQuestion { target, answer, idempotency: None }).unwrap();
        }
        world.wait_for(run, RunStatus::Completed);
        let heard = said(&world, run);
        if expires {
            assert_eq!((&heard["declined"], &heard["reason"]), (&json!(true), &json!("expired")));
        } else {
            assert_eq!(heard["answers"][0]["freeform_answer"], "because");
        }
    }
}

#[test]
fn only_a_child_is_offered_the_question_to_a_parent_and_only_what_its_scope_grants() {
    let server = model(with_child(
        json!({"allowed_tools": ["read_file", "bash", "request_parent_*"], "blocked_tools": ["bash"]}),
        |request| {
            let names: Vec<&str> =
                request["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
            match results(request).is_empty() {
                // What is not offered may be called all the same.
                true => Answer::Items(vec![bash("b", "out"), call("s2", "spawn_agent", json!({"task": "x"}))]),
                false => {
                    let code = |id: &str| result(request, id).unwrap()["code"].clone();
                    done(&json!([names, code("b"), code("s2")]).to_string())
                }
            }
        },
    ));
    let bench = Bench::new();
    let world = world(&server.url(), &bench);
    bypass(&world);
    let run = world.submit("parent");
    world.wait_for(run, RunStatus::Completed);
    let output = said(&world, run)["agents"][0]["output"].as_str().unwrap().to_string();
    let expected = json!([["read_file", "request_parent_clarification"], "tool_not_granted", "tool_not_granted"]);
    assert_eq!(serde_json::from_str::<Value>(&output).unwrap(), expected);
    assert_eq!(bench.ran(), Vec::<String>::new());
}

#[test]
fn a_child_is_never_given_a_wider_mode_and_follows_its_parents_when_that_is_narrowed_later() {
    // Asking for more is refused, and makes nothing.
    let server = model(with_child(json!({"mode": "bypassPermissions"}), |_| done("never")));
    let refused = world(&server.url(), &Bench::new());
    let run = refused.submit("parent");
    refused.wait_for(run, RunStatus::Completed);
    assert_eq!(said(&refused, run)["code"], "agent_scope_refused");
    assert_eq!(agents(&refused).len(), 1);
    drop(refused);

    // The child's own mode stays wide in its settings; the parent's counts all the same.
    let server = model(with_child(json!({}), |request| match results(request).len() {
        0 => Answer::Items(vec![bash("b1", "gate")]),
        1 => Answer::Items(vec![bash("b2", "later")]),
        _ => done(&json!(result(request, "b2").unwrap()["code"]).to_string()),
    }));
    let bench = Bench::new();
    let world = world(&server.url(), &bench);
    bypass(&world);
    let run = world.submit("parent");
    bench.is_hanging.recv_timeout(engine_support::PATIENCE).unwrap();
    let change = SessionChange::PermissionMode(Some(Mode::Plan));
    world.core.execute(Command::UpdateSession { session: session(), change }).unwrap();
    bench.let_go();
    world.wait_for(run, RunStatus::Completed);
    assert_eq!(said(&world, run)["agents"][0]["output"], "\"permission_denied\"");
    assert_eq!(bench.ran(), ["gate"]);
}

#[test]
fn one_run_makes_so_many_children_and_no_more_and_a_tree_is_so_deep_and_no_deeper() {
    let server = model(|request, _| {
        let at = |id: &str| result(request, id);
        match (task(request).as_str(), at("s0"), at("s9")) {
            ("wide", None, _) => {
                Answer::Items((0..8).map(|n| spawn(&format!("s{n}"), "leaf", json!({"retention": "retain"}))).collect())
            }
            ("wide", ..) => {
                let made = (0..8).map(|n| at(&format!("s{n}")).unwrap());
                done(&json!(made.map(|made| made["code"].clone()).collect::<Vec<_>>()).to_string())
            }
            ("leaf", ..) => done("leaf"),
            (_, _, None) => Answer::Items(vec![spawn("s9", "deeper", json!({"retention": "retain"}))]),
            (_, _, Some(made)) => done(&made.to_string()),
        }
    });
    let wide = world(&server.url(), &Bench::new());
    let run = wide.submit("wide");
    wide.wait_for(run, RunStatus::Completed);
    let denied = json!("spawn_policy_denied");
    assert_eq!(said(&wide, run), json!([null, null, null, null, null, null, denied, denied]));
    drop(wide);
    let deep = world(&server.url(), &Bench::new());
    deep.submit("deep");
    let last = deep.bell.wait_until("the deepest child's end", || {
        let child = agents(&deep).into_iter().nth(4)?;
        let run = child_runs(&deep, &child.view.session.id).first().copied()?;
        (status_of(&deep, run) == RunStatus::Completed).then_some((run, child))
    });
    assert_eq!(last.1.view.session.child.unwrap().depth, 4);
    assert_eq!(said(&deep, last.0)["code"], "spawn_policy_denied");
    assert_eq!(agents(&deep).len(), 5);
}

fn mailbox(world: &World, number: u32) -> Mailbox {
    world.core.read(move |state| state.mailbox(number).cloned()).unwrap().unwrap_or_default()
}

fn mail(id: &str, payload: &str) -> Box<Mail> {
    Box::new(Mail {
        id: id.to_string(),
        from: "test".to_string(),
        subject: "s".to_string(),
        payload: json!(payload),
        expires_at_ms: None,
        route: "main".to_string(),
        model: "m".to_string(),
    })
}

#[test]
fn a_message_is_told_by_a_run_of_its_own_once_the_agent_is_free_and_dies_with_a_stopped_one() {
    let server = model(|request, _| {
        let last = request["input"].as_array().unwrap().last().unwrap().to_string();
        if last.contains("die") && !last.contains("function_call_output") {
            return Answer::Items(vec![bash("b", "hang")]);
        }
        if task(request) == "first" && results(request).is_empty() && !last.contains("Messages") {
            return Answer::Items(vec![bash("b0", "gate")]);
        }
        done(&last)
    });
    let bench = Bench::new();
    let world = world(&server.url(), &bench);
    bypass(&world);
    let first = world.submit("first");
    bench.is_hanging.recv_timeout(engine_support::PATIENCE).unwrap();
    let post = |id: &str, payload: &str| {
        world.core.execute(Command::Agent(AgentCommand::Post { to: session(), mail: mail(id, payload) }))
    };
    let new = |id: &str, is_new| Ok(Decision::Posted { id: id.to_string(), is_new });
    assert_eq!(post("m1", "alpha"), new("m1", true));
    // Posted again it is the same one; something else under its id is refused.
    assert_eq!(post("m1", "alpha"), new("m1", false));
    assert!(post("m1", "other").is_err());
    assert_eq!(post("m2", "beta"), new("m2", true));
    let waiting = mailbox(&world, 1);
    assert_eq!((waiting.delivering.len(), waiting.pending.len()), (1, 1), "one run takes what was there");
    bench.let_go();
    world.wait_for(first, RunStatus::Completed);
    world.bell.wait_until("an empty mailbox", || (mailbox(&world, 1) == Mailbox::default()).then_some(()));
    let runs = child_runs(&world, &session());
    assert_eq!(runs.len(), 3);
    let heard: Vec<String> = runs[1..].iter().map(|run| world.output(*run)[0].to_string()).collect();
    assert!(heard[0].contains("alpha") && !heard[0].contains("beta"), "{}", heard[0]);
    assert!(heard[1].contains("beta"), "{}", heard[1]);
    assert_eq!(world.bodies(runs[1], "run.accepted")[0]["kind"], "mailbox_delivery");

    post("m3", "die").unwrap();
    bench.is_hanging.recv_timeout(engine_support::PATIENCE).unwrap();
    world.core.execute(Command::InterruptSession { session: session() }).unwrap();
    let dead = mailbox(&world, 1).dead;
    let shown: Vec<_> = dead.iter().map(|held| (held.mail.id.as_str(), held.attempts, held.error.as_deref())).collect();
    assert_eq!(shown, [("m3", 1, Some("the run that took it is interrupted"))]);
    let ack = |id: &str| {
        world.core.execute(Command::Agent(AgentCommand::Acknowledge { session: session(), id: id.to_string() }))
    };
    assert!(ack("m3").is_ok() && ack("m3").is_err());
    assert_eq!(mailbox(&world, 1), Mailbox::default());
    world.core.execute(Command::EndSession { session: session(), reason: None }).unwrap();
    assert!(post("m4", "too late").is_err());
}

#[test]
fn revoking_the_parent_takes_the_childs_credentials_away() {
    for subject in [SubjectId::session(session()), SubjectId::agent("agent-1"), SubjectId::agent("agent-2")] {
        let server = model(with_child(json!({"retention": "retain"}), |request| match results(request).len() {
            0 => Answer::Items(vec![bash("b", "gate")]),
            _ => done("child done"),
        }));
        let bench = Bench::new();
        let toolbox = Toolbox::with_workers(bench.workers());
        let world = World::with_agents(&server.url(), FROM_SLOT, FakeDisk::new(1), toolbox);
        bypass(&world);
        world.submit("parent");
        bench.is_hanging.recv_timeout(engine_support::PATIENCE).unwrap();
        let run = child_of(&world).view.active.unwrap();
        let how = Revocation { dry_run: false, keep_current: false, known: true, reason: None, by: None };
        world.secrets.revoke_subject(&subject, how, SystemClock.now_ms()).unwrap();
        bench.let_go();
        until(&world, run, RunStatus::Failed);
        assert_eq!(world.failure(run).0, "provider_auth", "{subject}");
    }
}

/// Whatever call of the disk is the last one: the parent ends with both answers, each child was made once, and the
/// child's command ran at most once, or the child was told that nobody knows.
#[test]
fn a_power_cut_at_any_call_of_the_disk_loses_no_child_and_makes_none_twice() {
    let every = if std::env::var_os("KHEISH_BATTERIES").is_some() { 1 } else { 15 };
    let mut cut_at = 1;
    loop {
        let server = model(|request, _| delegating(request));
        let bench = Bench::new();
        let first = world(&server.url(), &bench);
        bypass(&first);
        first.disk.crash_at(cut_at);
        let submitted = first.try_submit("parent");
        let ended = first.until_off_or_ended(submitted);
        let disk = first.kill();
        let Some(run) = submitted.filter(|_| !ended) else {
            if ended {
                break;
            }
            cut_at += every;
            continue;
        };
        let second = on_disk(&server.url(), &bench, disk);
        second.wait_for(run, RunStatus::Completed);
        let said = said(&second, run);
        let outputs: Vec<&Value> = said["agents"].as_array().unwrap().iter().map(|agent| &agent["output"]).collect();
        assert_eq!(outputs, ["answer one", "answer two"], "cut at {cut_at}");
        assert_eq!(agents(&second).len(), 3, "cut at {cut_at}");
        assert!(bench.ran().len() <= 1, "cut at {cut_at}: {:?}", bench.ran());
        cut_at += every;
    }
    println!("the disk was called {cut_at} times");
    assert!(cut_at > 20, "the cuts reached the whole tree: {cut_at}");
}

/// What a run is at when the daemon is asked to end is finished and recorded; the next start goes on behind it.
#[test]
fn a_drain_cuts_nothing_off_and_the_next_start_goes_on() {
    let server = model(|request, _| match results(request).len() {
        0 => Answer::Items(vec![bash("a", "gate")]),
        1 => Answer::Items(vec![bash("b", "second")]),
        _ => done("both done"),
    });
    let bench = Bench::new();
    let first = world(&server.url(), &bench);
    bypass(&first);
    let run = first.submit("go");
    bench.is_hanging.recv_timeout(engine_support::PATIENCE).unwrap();
    assert!(!first.stops.drain(std::time::Duration::from_millis(1)), "it is in the middle of a tool");
    bench.let_go();
    assert!(first.stops.drain(engine_support::PATIENCE), "it let the run go");
    assert_eq!(status_of(&first, run), RunStatus::Running);
    let second = on_disk(&server.url(), &bench, first.kill());
    second.wait_for(run, RunStatus::Completed);
    let outcomes: Vec<Value> =
        second.bodies(run, "tool_call.finished").iter().map(|body| body["outcome"].clone()).collect();
    assert_eq!(outcomes, [json!("ok"), json!("ok")]);
    assert_eq!(bench.ran(), ["gate", "second"]);
}

/// The first of two children rests long before the other: a parent that waits for both goes on with the second one's end.
#[test]
fn a_parent_that_waits_for_all_goes_on_with_the_last_and_one_that_waits_for_any_with_the_first() {
    for any in [false, true] {
        let server = model(move |request, _| match task(request).as_str() {
            "parent" => match (result(request, "s1"), result(request, "s2"), result(request, "w")) {
                (Some(one), Some(two), None) => {
                    let ids = [&one["agent_id"], &two["agent_id"]];
                    Answer::Items(vec![call("w", "wait_agent", json!({"agent_ids": ids, "any": any}))])
                }
                (_, _, Some(waited)) => done(&waited.to_string()),
                _ => Answer::Items(vec![spawn("s1", "quick", json!({})), spawn("s2", "slow", json!({}))]),
            },
            "quick" => done("at once"),
            _ if results(request).is_empty() => Answer::Items(vec![bash("b", "gate")]),
            _ => done("at last"),
        });
        let bench = Bench::new();
        let world = world(&server.url(), &bench);
        bypass(&world);
        let run = world.submit("parent");
        bench.is_hanging.recv_timeout(engine_support::PATIENCE).unwrap();
        let rests = || agents(&world).iter().filter(|agent| agent.view.session.ended).count() == 1;
        world.bell.wait_until("the quick child's end", || rests().then_some(()));
        let continued = || world.kinds(run).iter().filter(|kind| *kind == "run.continued").count();
        assert_eq!(continued(), usize::from(any), "the batch that brings it to rest decides");
        bench.let_go();
        world.wait_for(run, RunStatus::Completed);
        assert_eq!(continued(), 1);
        if !any {
            assert_eq!(said(&world, run)["agents"][1]["output"], "at last");
        }
    }
}

/// What an earlier run left to itself is no part of the run at hand, and is reached by an interruption all the same; it is
/// not closed by it.
#[test]
fn an_interruption_reaches_agents_that_an_earlier_run_made() {
    let server = model(|request, _| match (task(request).as_str(), result(request, "s")) {
        ("parent", None) => Answer::Items(vec![spawn("s", "child", json!({"retention": "retain"}))]),
        ("parent", Some(_)) => done("left to itself"),
        _ => Answer::Items(vec![bash("b", "hang")]),
    });
    let bench = Bench::new();
    let world = world(&server.url(), &bench);
    bypass(&world);
    let run = world.submit("parent");
    world.wait_for(run, RunStatus::Completed);
    bench.is_hanging.recv_timeout(engine_support::PATIENCE).unwrap();
    let child_run = child_of(&world).view.active.expect("it is hanging");
    world.core.execute(Command::InterruptSession { session: session() }).unwrap();
    assert_eq!(status_of(&world, child_run), RunStatus::Interrupted);
    assert!(!child_of(&world).view.session.ended, "it may be given other work");
}

/// One after the other, so that never two are open.
#[test]
fn a_run_that_makes_children_one_after_the_other_is_bounded_too() {
    let server = model(|request, _| {
        if task(request) != "parent" {
            return done("leaf");
        }
        let made = (0..).take_while(|n| result(request, &format!("s{n}")).is_some()).count();
        match made.checked_sub(1).and_then(|n| result(request, &format!("s{n}"))) {
            Some(last) if last["code"] == "spawn_policy_denied" => done(&json!([made, last["code"]]).to_string()),
            Some(last) if result(request, &format!("w{}", made - 1)).is_none() => {
                Answer::Items(vec![wait(&format!("w{}", made - 1), &[&last["agent_id"]])])
            }
            _ => Answer::Items(vec![spawn(&format!("s{made}"), "leaf", json!({}))]),
        }
    });
    let world = world(&server.url(), &Bench::new());
    let run = world.submit("parent");
    world.wait_for(run, RunStatus::Completed);
    let most = kheish_daemon::limits::AGENT_SPAWNS_PER_RUN_MAX;
    assert_eq!(said(&world, run), json!([most + 1, "spawn_policy_denied"]));
}
