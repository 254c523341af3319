//! Child agents through the engine: made, waited for without an engine, told and asked, narrowed, ended with their
//! parent, and found again after a crash at any moment. One engine carries all of them.

mod engine_support;
mod net_raw_server;
mod sse_support;
mod state_root_scratch;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use engine_support::model::{Answer, Bench, bash, call, done, model, results};
use engine_support::{FROM_SLOT, World, session};
use kheish_daemon::core::{
    AgentQuery, AgentView, Answer as Reply, Command, Decision, QuestionAnswer, RunStatus, SessionChange, Target,
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
        let query = kheish_daemon::core::RunQuery {
            session: Some(child),
            order: kheish_daemon::core::Order::Ascending,
            after: None,
            limit: 100,
        };
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
