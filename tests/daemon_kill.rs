//! The real binary killed with SIGKILL again and again under load, also while it starts. What it had acknowledged is
//! there and comes to its end once; what it had shown is never taken back or shown as something else.
//! `KHEISH_KILL_ROUNDS` says how often (`make test-kill` takes 200), `KHEISH_KILL_SEED` with which numbers.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
#[path = "support/rng.rs"]
#[allow(dead_code)]
mod rng;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daemon::{Daemon, Home, Provider, TOKEN, eventually, pause};
use http::{Client, EventStream, Frame, is_terminal};
use kheish_daemon::limits::JOURNAL_SEGMENT_BYTES_MIN;
use rng::Rng;
use serde_json::{Value, json};

const ROUNDS_DEFAULT: u64 = 25;
/// The smallest there are: kills hit rotations too.
const SEGMENT_BYTES: u64 = JOURNAL_SEGMENT_BYTES_MIN;
const CLIENTS: u64 = 5;
const SESSIONS: u64 = 8;
/// Rounds for which a set of sessions is used; a transcript without end would only slow the provider down.
const SESSION_ROUNDS: u64 = 3;
/// New runs of one client in one round: enough to keep all engines busy, few enough to be finished at the end.
const RUNS_PER_CLIENT: u64 = 10;
/// The load is cut off at a random moment up to this one, and every fifth start as well.
const LOAD_US_MAX: u64 = 250_000;
const START_US_MAX: u64 = 60_000;

/// An input says how fast it is to be answered; all answers are echoes.
const SCRIPT: &str = "
[[turn]]
match = 'pace-1'
delay_ms = 3
[[turn]]
match = 'pace-2'
delay_ms = 25
[[turn]]
match = 'pace-3'
chunk_chars = 6
chunk_delay_ms = 8
[default]
chunk_chars = 8
";

/// One input that is to become one run.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Submission {
    key: String,
    session: String,
    text: String,
}

/// What the outside world knows: the model against which the daemon is held.
#[derive(Default)]
struct Known {
    /// Every input that was ever sent, by key.
    sent: BTreeMap<String, Submission>,
    /// The run that each acknowledged key got.
    acknowledged: BTreeMap<String, String>,
    /// Keys whose answer never came.
    in_flight: Vec<Submission>,
    /// Every frame with an id that a client has read.
    frames: BTreeMap<u64, Frame>,
    /// How often the provider was asked for each input.
    asked: BTreeMap<String, usize>,
    /// Provider requests counted so far.
    provider_seen: u64,
}

impl Known {
    fn acknowledge(&mut self, submission: &Submission, run: &str) {
        let before = self.acknowledged.insert(submission.key.clone(), run.to_string());
        assert!(
            before.as_deref().is_none_or(|before| before == run),
            "{submission:?} became {before:?} and then {run}"
        );
    }

    fn saw(&mut self, frame: &Frame) {
        let Some(id) = frame.id else { return };
        if let Some(before) = self.frames.insert(id, frame.clone()) {
            assert_eq!(&before, frame, "event id {id} was used twice");
        }
    }

    fn count_requests(&mut self, provider: &Provider) {
        for (number, body) in provider.requests() {
            if number <= self.provider_seen {
                continue;
            }
            assert_eq!(number, self.provider_seen + 1, "requests were forgotten before they were counted");
            self.provider_seen = number;
            // The newest input comes last.
            let at = body.rfind("<<").unwrap_or_else(|| panic!("no input in {body}"));
            let text = body[at..].split_inclusive(">>").next().expect("an end of the input").to_string();
            *self.asked.entry(text).or_default() += 1;
        }
    }
}

#[derive(Default)]
struct World {
    known: Mutex<Known>,
}

impl World {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, client: &mut Client, submission: &Submission) -> std::io::Result<()> {
        let target = format!("/v1/sessions/{}/runs", submission.session);
        let body = json!({"content": submission.text}).to_string();
        let reply = client.request("POST", &target, &[("idempotency-key", &submission.key)], &body)?;
        assert_eq!(reply.status, 202, "{submission:?}: {reply:?}");
        self.known().acknowledge(submission, reply.json()["run_id"].as_str().expect("a run id"));
        Ok(())
    }

    /// Everything one client does until the daemon dies under it.
    fn load(&self, daemon: &Daemon, round: u64, number: u64, rng: &mut Rng) {
        let Ok(mut client) = Client::connect(daemon.address, TOKEN) else { return };
        let mut fresh = 0;
        loop {
            // What was in flight at the last kill comes first: it may be a run already, or not.
            let taken = self.known().in_flight.pop();
            let submission = match taken {
                Some(lost) => lost,
                None if fresh < RUNS_PER_CLIENT => {
                    fresh += 1;
                    let key = format!("key-{round}-{number}-{fresh}");
                    let session = format!("s{}-{}", round / SESSION_ROUNDS, rng.below(SESSIONS));
                    let text = format!("<<pace-{} {key}>>", rng.below(4));
                    Submission { key, session, text }
                }
                // A client that lost its answer asks again, however late; the answer is the same run.
                None => {
                    let known = self.known();
                    let any = known.acknowledged.keys().nth(rng.below(known.acknowledged.len() as u64) as usize);
                    known.sent[any.expect("this client's own at least")].clone()
                }
            };
            self.known().sent.insert(submission.key.clone(), submission.clone());
            if self.submit(&mut client, &submission).is_err() {
                self.known().in_flight.push(submission);
                return;
            }
        }
    }

    /// Reads events until the daemon dies, from the beginning or from the last one seen.
    fn watch(&self, daemon: &Daemon, from_the_beginning: bool) {
        let newest = self.known().frames.keys().next_back().copied().unwrap_or(0);
        let mut last = if from_the_beginning { 0 } else { newest };
        let target = format!("/v1/events/stream?cursor={last}");
        let Ok(mut stream) = EventStream::open(daemon.address, TOKEN, &target) else { return };
        while let Ok(frame) = stream.next() {
            let Some(id) = frame.id else { continue };
            assert_ne!(frame.event, "stream_gap", "{frame:?}");
            assert!(id > last, "event {id} came after {last}");
            last = id;
            self.known().saw(&frame);
        }
    }

    fn round(&self, daemon: Daemon, round: u64, rng: &mut Rng) {
        let load_time = Duration::from_micros(rng.below(LOAD_US_MAX));
        let mut client = daemon.client();
        for session in 0..SESSIONS {
            let body = json!({"session_id": format!("s{}-{session}", round / SESSION_ROUNDS)}).to_string();
            assert_eq!(client.request("POST", "/v1/sessions", &[], &body).expect("an answer").status, 201);
        }
        std::thread::scope(|scope| {
            for number in 0..CLIENTS {
                let (daemon, mut rng) = (&daemon, Rng::new(rng.next()));
                scope.spawn(move || self.load(daemon, round, number, &mut rng));
            }
            scope.spawn(|| self.watch(&daemon, round.is_multiple_of(2)));
            pause(load_time);
            daemon.strike();
        });
        daemon.kill();
    }

    /// All that was in flight is sent again, and everything that was accepted comes to its end.
    fn settle(&self, daemon: &Daemon, provider: &Provider) {
        let mut client = daemon.client();
        let in_flight = std::mem::take(&mut self.known().in_flight);
        for submission in in_flight {
            self.submit(&mut client, &submission).expect("an answer");
        }
        eventually("the end of all runs", || {
            self.known().count_requests(provider);
            let runs = &daemon.get("/v1/status").json()["runs"];
            (runs["queued"] == 0 && runs["running"] == 0).then_some(())
        });
    }
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// Exactly the acknowledged runs are there, each with its own input, completed, with the answer to that input.
fn assert_runs(known: &Known, runs: &[Value]) {
    let shown: BTreeMap<&str, (&str, &str, usize, &str)> = runs
        .iter()
        .map(|run| {
            let outputs = run["outputs"].as_array().map_or(0, Vec::len);
            let answer = run["outputs"][0]["content"].as_str().unwrap_or("nothing");
            (text(run, "run_id"), (text(run, "session_id"), text(run, "status"), outputs, answer))
        })
        .collect();
    let owed: BTreeMap<&str, (&str, &str, usize, &str)> = known
        .acknowledged
        .iter()
        .map(|(key, run)| {
            (run.as_str(), (known.sent[key].session.as_str(), "completed", 1, known.sent[key].text.as_str()))
        })
        .collect();
    assert_eq!(known.acknowledged.len(), known.sent.len(), "a key has no run");
    assert_eq!(owed.len(), known.sent.len(), "two keys share a run");
    assert!(shown == owed, "runs differ: {:?}", different(&shown, &owed));
}

fn different<K: Ord + Clone, V: PartialEq + Clone>(
    left: &BTreeMap<K, V>,
    right: &BTreeMap<K, V>,
) -> Vec<(K, Option<V>, Option<V>)> {
    let keys: BTreeSet<&K> = left.keys().chain(right.keys()).collect();
    let pairs = keys.into_iter().map(|key| (key.clone(), left.get(key).cloned(), right.get(key).cloned()));
    pairs.filter(|(_, left, right)| left != right).take(5).collect()
}

/// A replay of everything holds every frame that anybody ever saw, in order, and one end for each run.
fn assert_frames(known: &Known, replay: &[Frame]) {
    let ids: Vec<u64> = replay.iter().map(|frame| frame.id.expect("only those with an id")).collect();
    assert!(ids.is_sorted_by(|before, after| before < after), "ids are not strictly increasing");
    let replayed: BTreeMap<u64, &Frame> = replay.iter().map(|frame| (frame.id.expect("as above"), frame)).collect();
    for (id, seen) in &known.frames {
        assert_eq!(replayed.get(id), Some(&seen), "an event that was shown is gone or another one");
    }
    let mut ends: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (run, status) in replay.iter().filter_map(Frame::run_status).filter(|(_, status)| is_terminal(status)) {
        ends.entry(run).or_default().push(status);
    }
    let owed: BTreeMap<String, Vec<String>> =
        known.acknowledged.values().map(|run| (run.clone(), vec!["completed".to_string()])).collect();
    assert!(ends == owed, "ends differ: {:?}", different(&ends, &owed));
}

/// Every request to the provider stands in the journal before it was made, asking again is explained by a restart
/// that found the answer missing, and nothing at all happens to a run after its end.
fn assert_asked_once(known: &Known, records: &[Value]) {
    let inputs: BTreeMap<&str, &str> =
        known.acknowledged.iter().map(|(key, run)| (run.as_str(), known.sent[key].text.as_str())).collect();
    let mut by_run: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for record in records.iter().filter(|record| record["run"].is_string()) {
        by_run.entry(text(record, "run")).or_default().push(record);
    }
    assert!(by_run.keys().eq(inputs.keys()), "the journal has other runs than the daemon");
    let (mut resumed_total, mut asked_total) = (0, 0);
    for (run, records) in by_run {
        let count = |wanted: &dyn Fn(&Value) -> bool| records.iter().filter(|record| wanted(record)).count();
        let intents = count(&|record| record["kind"] == "external_action.request");
        let failures =
            count(&|record| record["kind"] == "external_action.response" && record["body"]["outcome"] == "failed");
        let resumed = count(&|record| record["body"]["found"] == "model_call_in_flight");
        let asked = known.asked.get(inputs[run]).copied().unwrap_or(0);
        assert!(asked <= intents, "{run}: {asked} requests, {intents} of them recorded first");
        assert!(asked >= 1, "{run}: completed without a request");
        assert!(intents <= 1 + resumed + failures, "{run}: asked again without a reason: {records:?}");
        assert_eq!(records.last().map(|record| text(record, "kind")), Some("run.completed"), "{run}: {records:?}");
        resumed_total += resumed;
        asked_total += asked;
    }
    println!("{asked_total} requests for {} runs; {resumed_total} times a restart found one in flight", inputs.len());
}

#[test]
fn nothing_acknowledged_is_lost_repeated_or_taken_back_however_often_the_daemon_is_killed() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let rounds = number("KHEISH_KILL_ROUNDS", ROUNDS_DEFAULT);
    let mut rng = Rng::new(number("KHEISH_KILL_SEED", 1));
    let provider = Provider::start(SCRIPT);
    let home = Home::new("kill", Some(&provider));
    let world = World::default();
    for round in 0..rounds {
        if rng.chance(5) {
            let starting = home.serve().segment_bytes(SEGMENT_BYTES).spawn();
            pause(Duration::from_micros(rng.below(START_US_MAX)));
            starting.kill();
        }
        world.round(home.serve().segment_bytes(SEGMENT_BYTES).start(), round, &mut rng);
        world.known().count_requests(&provider);
    }

    let daemon = home.start();
    world.settle(&daemon, &provider);
    let runs = daemon.all_runs();
    let mut stream = daemon.stream("/v1/events/stream?cursor=0");
    daemon.create_session("marker");
    let mut replay = Vec::new();
    stream.until("the marker", |frame| {
        replay.extend(frame.id.is_some().then(|| frame.clone()));
        frame.event == "session_state_changed" && text(&frame.json(), "session_id") == "marker"
    });
    daemon.stop();
    let mut known = world.known();
    known.count_requests(&provider);
    println!("{rounds} kills, {} runs, {} events", runs.len(), replay.len());
    assert_runs(&known, &runs);
    assert_frames(&known, &replay);
    let records = home.records(&home.root(), &[]);
    assert_asked_once(&known, &records);
    home.assert_journal_verifies(&home.root());
}
