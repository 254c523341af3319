//! What lies beside the journal is removed when no kept run names it, and never before.

mod engine_support;
mod net_raw_server;
mod sse_support;
mod state_root_scratch;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine_support::World;
use engine_support::model::{Answer, Bench, Changing, bash, bypass, call, done, model};
use kheish_daemon::api::prune_results::{Selected, select};
use kheish_daemon::blobs::Blobs;
use kheish_daemon::core::{Command, RunStatus};
use kheish_daemon::engine::Toolbox;
use kheish_daemon::ids::RunId;
use kheish_daemon::journal::fake_disk::FakeDisk;
use serde_json::json;

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn unnamed(selected: &Selected) -> Vec<&str> {
    selected.unnamed.iter().map(|kept| kept.sha256.as_str()).collect()
}

struct Place {
    world: World,
    bench: Arc<Bench>,
}

impl Place {
    /// The model calls what the run's text says: the fake tool `large` keeps the same blob each time.
    fn new() -> (Self, net_raw_server::RawServer) {
        let question = json!({"questions": [{"id": "q", "question": "?", "options": [{"id": "x", "label": "X"}]}]});
        let server = model(move |request, _| {
            let newest = request["input"].as_array().unwrap().last().unwrap().clone();
            let asks = |word: &str| newest.to_string().contains(word);
            match newest["type"] == "function_call_output" {
                true => done("done"),
                false if asks("hang") => Answer::Items(vec![bash("l", "large"), bash("h", "hang")]),
                false if asks("ask") => {
                    Answer::Items(vec![bash("l", "large"), call("q", "ask_user_question", question.clone())])
                }
                false => Answer::Items(vec![bash("l", "large")]),
            }
        });
        let bench = Bench::new();
        let settings = Arc::new(Changing::default());
        *settings.0.lock().unwrap() = bypass();
        let toolbox = Toolbox::with_workers(bench.workers());
        let world = World::open(&server.url(), "", FakeDisk::new(1), toolbox, settings);
        (Self { world, bench }, server)
    }

    fn run(&self, text: &str) -> RunId {
        let run = self.world.submit(text);
        self.world.wait_for(run, RunStatus::Completed);
        run
    }

    fn blob_of(&self, run: RunId) -> String {
        let finished = self.world.bodies(run, "tool_call.finished");
        finished[0]["blob"]["sha256"].as_str().expect("a blob").to_string()
    }

    /// As if it were `after_ms` later: what ended before that is old.
    fn select(&self, after_ms: u64) -> Selected {
        select(&self.world.core, &self.world.reader, &self.world.blobs, now_ms() + after_ms).unwrap()
    }

    fn blobs(&self) -> &Blobs {
        &self.world.blobs
    }
}

const LATER: u64 = 60_000;

#[test]
fn what_only_runs_name_that_ended_long_ago_may_go_and_what_nobody_names_too() {
    let (place, _server) = Place::new();
    let run = place.run("large");
    let blob = place.blob_of(run);
    let orphan = place.blobs().put(b"stored for a record that never came").unwrap();
    // They have just been stored, and the run has just ended.
    let hour_ago = now_ms() - 3_600_000;
    let selected = select(&place.world.core, &place.world.reader, place.blobs(), hour_ago).unwrap();
    assert_eq!(unnamed(&selected), [""; 0]);
    let selected = place.select(LATER);
    let mut both = [blob.as_str(), &orphan];
    both.sort_unstable();
    let mut found = unnamed(&selected);
    found.sort_unstable();
    assert_eq!(found, both);
}

#[test]
fn a_blob_that_a_kept_run_names_stays_whatever_else_names_it() {
    let (place, _server) = Place::new();
    let old = place.run("large");
    let blob = place.blob_of(old);
    // The same content, named by a run that waits for a person.
    let waiting = place.world.submit("ask");
    place.world.bell.wait_until("a question", || {
        let status = place.world.core.run(waiting).unwrap().unwrap().status;
        (status == RunStatus::WaitingForUserQuestion).then_some(())
    });
    assert_eq!(place.blob_of(waiting), blob, "it is the same one");
    let selected = place.select(LATER);
    assert_eq!((unnamed(&selected), selected.named_count), (vec![], 1));
    place.world.core.execute(Command::CancelRun { run: waiting, reason: None }).unwrap();
    assert_eq!(unnamed(&place.select(LATER)), [blob.as_str()], "nobody needs it any more");
    // Evidence that an operator holds.
    let hold = |held| Command::SetRetentionHold { run: old, held, reason: None };
    place.world.core.execute(hold(true)).unwrap();
    assert_eq!(place.select(LATER).named_count, 1);
    place.world.core.execute(hold(false)).unwrap();
    assert_eq!(unnamed(&place.select(LATER)), [blob.as_str()]);
}

/// Between the storing and the record that names it lies a moment in which no record speaks for it.
#[test]
fn what_a_run_in_hand_has_stored_and_not_yet_named_stays() {
    let (place, _server) = Place::new();
    let run = place.world.submit("hang");
    place.bench.is_hanging.recv().unwrap();
    // Stored after the run began, named by nobody, old by now.
    let unrecorded = place.blobs().put(b"about to be named").unwrap();
    let selected = place.select(LATER);
    assert!(!unnamed(&selected).contains(&unrecorded.as_str()), "{selected:?}");
    assert!(selected.before_ms <= now_ms());
    place.world.core.execute(Command::CancelRun { run, reason: None }).unwrap();
    assert!(unnamed(&place.select(LATER)).contains(&unrecorded.as_str()));
}

/// Another run stores the same content between the choice and the removal.
#[test]
fn what_is_stored_again_while_others_choose_stays() {
    let (place, _server) = Place::new();
    let blob = place.blob_of(place.run("large"));
    let path = place.world._scratch.path().join("blobs").join(&blob);
    let long_ago = UNIX_EPOCH + Duration::from_secs(1_000);
    std::fs::File::open(&path).unwrap().set_modified(long_ago).unwrap();
    let cutoff_ms = now_ms();
    let chosen = select(&place.world.core, &place.world.reader, place.blobs(), cutoff_ms).unwrap();
    assert_eq!(unnamed(&chosen), [blob.as_str()]);
    let again = place.run("large");
    assert_eq!(place.blob_of(again), blob);
    // What decided is looked at once more under the lock of the store.
    let removed = place.blobs().retire(&blob, chosen.before_ms).unwrap();
    assert!(!removed && place.blobs().has(&blob), "named by {again} by now");
}
