//! Conversations that grow: when they are summarised, what stands for the part that goes, and what it costs to go on.

mod engine_support;
mod net_raw_server;
mod sse_support;
mod state_root_scratch;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine_support::World;
use engine_support::model::{Answer, Bench, Changing, bash, bypass, done, model, results};
use kheish_daemon::core::RunStatus;
use kheish_daemon::engine::Toolbox;
use kheish_daemon::journal::fake_disk::FakeDisk;
use serde_json::{Value, json};

/// A window that a few turns of [`long`] fill.
const WINDOW: &str = "context_window_tokens = 16000";
/// Four fifths of it, in bytes of text.
const FULL: usize = 16_000 / 5 * 4 * 4;

fn world(url: &str, disk: FakeDisk, bench: &Arc<Bench>) -> World {
    let settings = Arc::new(Changing::default());
    *settings.0.lock().unwrap() = bypass();
    World::open(url, WINDOW, disk, Toolbox::with_workers(bench.workers()), settings)
}

/// A call whose arguments and result together have 8,000 bytes.
fn long(number: usize) -> Value {
    bash(&format!("c{number}"), &format!("step {number} {}", "x".repeat(4_000)))
}

fn is_for_a_summary(request: &Value) -> bool {
    request["input"].to_string().contains("<conversation>")
}

/// Which steps a request shows.
fn steps(request: &Value) -> Vec<usize> {
    let text = request["input"].to_string();
    (0..100).filter(|step| text.contains(&format!("step {step} "))).collect()
}

/// Goes on for `turns` turns; summaries are what `summary` says.
fn worker(turns: usize, summary: impl Fn() -> Answer + Send + 'static) -> impl Fn(&Value, usize) -> Answer + Send {
    let asked = AtomicUsize::new(0);
    move |request, _| {
        if is_for_a_summary(request) {
            return summary();
        }
        match asked.fetch_add(1, Ordering::SeqCst) {
            turn if turn < turns => Answer::Items(vec![long(turn)]),
            _ => done(&json!(steps(request)).to_string()),
        }
    }
}

#[test]
fn a_conversation_that_fills_its_window_is_summarised_before_it_is_too_long_and_not_at_every_turn() {
    let server = model(worker(12, || done("SUMMARY")));
    let bench = Bench::new();
    let world = world(&server.url(), FakeDisk::new(1), &bench);
    let run = world.submit("the task itself");
    world.wait_for(run, RunStatus::Completed);
    assert_eq!(bench.ran().len(), 12, "each call ran once");
    let boundaries = world.bodies(run, "context.compacted");
    for boundary in &boundaries {
        assert_eq!((&boundary["strategy"], &boundary["trigger"]), (&json!("model"), &json!("auto")));
        let (before, after) = (boundary["pre_tokens"].as_u64().unwrap(), boundary["post_tokens"].as_u64().unwrap());
        assert!(before as usize * 4 < FULL + 20_000 && after < before && (after as usize * 4) < FULL, "{boundary}");
    }
    // 96,000 bytes went through a window of 51,200, of which a summary frees half.
    assert!((1..=5).contains(&boundaries.len()), "{} summaries in 12 turns", boundaries.len());
    let shown: Vec<usize> = serde_json::from_str(world.output(run)[0].as_str().unwrap()).unwrap();
    assert!(shown.contains(&11) && !shown.contains(&0), "{shown:?}");
}

/// A provider that fails whenever it is asked for a summary must not stop the work.
#[test]
fn where_the_model_gives_no_summary_the_two_ends_of_what_was_said_stand_for_it() {
    let refused: fn() -> Answer =
        || Answer::Error(400, json!({"error": {"message": "no", "type": "invalid_request_error"}}));
    let empty: fn() -> Answer = || done("  \n ");
    for refusal in [refused, empty] {
        let server = model(worker(8, refusal));
        let bench = Bench::new();
        let world = world(&server.url(), FakeDisk::new(1), &bench);
        let run = world.submit("the task itself");
        world.wait_for(run, RunStatus::Completed);
        assert_eq!(bench.ran().len(), 8);
        let boundaries = world.bodies(run, "context.compacted");
        assert!(!boundaries.is_empty());
        for boundary in &boundaries {
            assert_eq!(boundary["strategy"], json!("truncate"));
            let summary = boundary["summary"].as_str().unwrap();
            assert!(summary.len() <= 17 * 1024 && summary.contains("bytes left out"), "{} bytes", summary.len());
        }
        let first = boundaries[0]["summary"].as_str().unwrap();
        assert!(first.starts_with("USER: the task itself"), "{}", &first[..60]);
    }
}

#[test]
fn a_summary_holds_over_a_restart_and_is_not_made_again_for_what_it_stands_for() {
    // The model hangs up at the first turn after the summary, so that the next life begins there.
    let summaries = Arc::new(AtomicUsize::new(0));
    let counted = summaries.clone();
    let server = model(move |request, _| {
        if is_for_a_summary(request) {
            counted.fetch_add(1, Ordering::SeqCst);
            return done("SUMMARY");
        }
        let is_summarised = request["input"].to_string().contains("SUMMARY");
        match (results(request).len(), is_summarised) {
            (_, true) if request["input"].to_string().contains("hang") => done(&json!(steps(request)).to_string()),
            (_, true) => Answer::Items(vec![bash("h", "hang")]),
            (count, false) => Answer::Items(vec![long(count)]),
        }
    });
    let bench = Bench::new();
    let first = world(&server.url(), FakeDisk::new(1), &bench);
    let run = first.submit("the task itself");
    bench.is_hanging.recv().unwrap();
    let before = first.bodies(run, "context.compacted");
    assert_eq!(before.len(), 1);
    let disk = first.kill();
    let second = world(&server.url(), disk, &bench);
    second.wait_for(run, RunStatus::Completed);
    assert_eq!(second.bodies(run, "context.compacted"), before);
    assert_eq!(summaries.load(Ordering::SeqCst), 1);
    let shown: Vec<usize> = serde_json::from_str(second.output(run)[0].as_str().unwrap()).unwrap();
    assert!(!shown.contains(&0), "what the summary stands for is not shown again: {shown:?}");
}

/// The cost of a turn must not grow with the conversation: what is written for each is its own.
#[test]
fn what_a_turn_writes_does_not_grow_with_the_conversation() {
    let server = model(move |request, _| match results(request).len() {
        count if count < 40 => Answer::Items(vec![bash(&format!("c{count}"), &format!("step {count:02}"))]),
        _ => done("done"),
    });
    let bench = Bench::new();
    let settings = Arc::new(Changing::default());
    *settings.0.lock().unwrap() = bypass();
    let toolbox = Toolbox::with_workers(bench.workers());
    let world = World::open(&server.url(), "", FakeDisk::new(1), toolbox, settings);
    let run = world.submit("go");
    world.wait_for(run, RunStatus::Completed);
    let mut sizes = Vec::new();
    for (kind, body) in world.records(run) {
        if kind == "message.appended" {
            sizes.push(0);
        }
        if let Some(turn) = sizes.last_mut() {
            *turn += body.to_string().len();
        }
    }
    let (early, late) = (sizes[5], sizes[39]);
    assert!(late < early + 100, "turn 5 wrote {early} bytes, turn 39 {late}");
}
