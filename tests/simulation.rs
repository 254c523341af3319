//! Core, commit loop and journal together on a simulated disk that crashes, tears writes and fails on order.
//!
//! Each seed lives through several starts of one state root. In each life random commands are given in groups;
//! a group follows when the one before was answered, so batches are formed as in the daemon, on one thread.
//! At a random call the disk loses power or begins to fail. What must hold at every later start:
//! what was acknowledged is there; a record once committed never changes and its id is never used again; a run
//! ends at most once; a fold of the whole log gives the state that was live.
//!
//! A failing seed prints itself and is replayed with KHEISH_SIM_SEED; KHEISH_SIM_SEEDS sets how many are tried.

#[path = "support/rng.rs"]
mod rng;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use kheish_daemon::audit::key::SigningKey;
use kheish_daemon::clock::Clock;
use kheish_daemon::commit::{CommandError, CommitLoop, CoreHandle, Effects, Parts, Restored, Snapshotter};
use kheish_daemon::core::{
    Command, Counts, Decision, IdempotencyKey, Note, NoteKind, Outcome, Resolution, RunStatus, Target,
};
use kheish_daemon::ids::{RunId, Seq, SessionId};
use kheish_daemon::journal::fake_disk::{FakeDisk, FaultMode};
use kheish_daemon::journal::{Journal, Options, Reader};
use rng::{Rng, seeds};
use serde_json::value::RawValue;

const EIO: i32 = 5;
/// In the middle of the simulated time, so that some approvals expire and some do not.
const EXPIRY: u64 = 1_764_000_001_500;
const ENOSPC: i32 = 28;

struct FakeClock(AtomicU64);

impl Clock for FakeClock {
    fn now_ms(&self) -> u64 {
        // Moves by itself, so that timed seals happen.
        self.0.fetch_add(7, Ordering::SeqCst)
    }
}

/// What callers were told, and so may rely on.
#[derive(Default)]
struct Told {
    sessions: Vec<SessionId>,
    accepted: BTreeMap<RunId, Option<IdempotencyKey>>,
    ended: HashMap<RunId, RunStatus>,
    /// Approvals that were acknowledged as resolved, with the run's records so far known to hold them.
    resolved: Vec<String>,
    /// Committed records by id: kind and body as written.
    records: BTreeMap<Seq, String>,
}

type Answer = (Command, Result<Decision, CommandError>);

/// The commands of one life and what was answered.
struct Script {
    handle: CoreHandle,
    groups: VecDeque<Vec<Command>>,
    waiting: usize,
    answers: Vec<Answer>,
}

fn next_group(script: &Arc<Mutex<Script>>) {
    let (handle, group) = {
        let mut this = script.lock().expect("one thread");
        let group = this.groups.pop_front();
        this.waiting = group.as_ref().map_or(0, Vec::len);
        (this.handle.clone(), group)
    };
    let Some(group) = group else { return handle.stop() };
    for command in group {
        let script = script.clone();
        let asked = command.clone();
        handle.submit(
            command,
            None,
            Box::new(move |result| {
                let done = {
                    let mut this = script.lock().expect("one thread");
                    this.answers.push((asked, result));
                    this.waiting -= 1;
                    this.waiting == 0
                };
                if done {
                    next_group(&script);
                }
            }),
        );
    }
}

fn options() -> Options {
    // Small, so that rotation and seals come often.
    Options { segment_bytes: 8 * 1024, seal_interval_records: 13, seal_interval_ms: 400, ..Options::default() }
}

/// One life: open, obey, close or crash. `None` when the start was refused by a fault.
fn live(world: &mut World, groups: VecDeque<Vec<Command>>, faulty: bool) -> Option<Life> {
    let World { disk, key, clock, told } = world;
    let mut restored = Restored::default();
    let opened = Journal::open(disk.handle(), disk.snapshots(), options(), key.clone(), clock.now_ms(), &mut restored);
    let (journal, _) = match opened {
        Ok(opened) => opened,
        // A start may fail only because a call of the disk failed, never because of what a crash left behind.
        Err(error) => {
            assert!(disk.is_off() || faulty, "start refused without a fault: {error}\n{}", disk.trace().join("\n"));
            return None;
        }
    };
    let mut state = restored.state;
    state.open_epoch(journal.epoch());
    state.finish_replay();
    let reader = journal.reader();
    check_log(told, disk, &reader);
    let at_start = state.counts();
    let (snapshotter, snapshots) = Snapshotter::new();
    let snapshotter = Arc::new(snapshotter);
    let writer = snapshotter.clone();
    let (core, handle) = CommitLoop::new(Parts {
        state,
        journal,
        clock: clock.clone(),
        effects: Effects {
            committed: Box::new(move || writer.write_pending()),
            stopped: Box::new(|_| {}),
            stop_task: Box::new(|_, _| {}),
            acted: Box::new(|_| {}),
        },
        answers: None,
        snapshots,
        snapshot_interval_records: 60,
        records_since_snapshot: restored.records,
    });
    let script = Arc::new(Mutex::new(Script { handle: handle.clone(), groups, waiting: 0, answers: Vec::new() }));
    next_group(&script);
    let closed = core.run();
    snapshotter.write_pending();
    take_note(told, std::mem::take(&mut script.lock().expect("one thread").answers));
    check_log(told, disk, &reader);
    // A batch whose sync failed was acknowledged to nobody and may or may not be found again.
    let clean = closed.is_ok() && !disk.is_off() && handle.view().poisoned.is_none();
    Some(Life { at_start, at_end: handle.view().counts.clone(), clean })
}

struct World {
    disk: FakeDisk,
    key: Arc<SigningKey>,
    clock: Arc<FakeClock>,
    told: Told,
}

struct Life {
    at_start: Counts,
    at_end: Counts,
    clean: bool,
}

fn session_id(index: u64) -> SessionId {
    SessionId::parse(&format!("s{index}")).expect("legal")
}

fn raw(text: String) -> Box<RawValue> {
    RawValue::from_string(text).expect("JSON")
}

fn random_command(rng: &mut Rng, told: &Told) -> Command {
    let run = |rng: &mut Rng| {
        // Also runs that may not exist: ids a little ahead of what was told.
        let highest = told.accepted.len() as u64 + 8;
        RunId { number: 1 + rng.below(highest) as u32, epoch: 0 }
    };
    match rng.below(14) {
        10 | 11 => {
            let run = run(rng);
            // Few ids, so that answers meet open approvals.
            let ids = (0..=rng.below(2)).map(|n| format!("approval-{}-{n}", run.number));
            let note = |id: String| Note {
                kind: NoteKind::ApprovalRequested,
                body: raw(format!(
                    r#"{{"id":"{id}","call":"c-{id}","tool":"bash","input":{{}},"expires_at_ms":{EXPIRY}}}"#
                )),
            };
            Command::Suspend { run, notes: ids.map(note).collect() }
        }
        12 | 13 => {
            let run = run(rng);
            let resolution = |n: u64| Resolution {
                id: format!("approval-{}-{n}", run.number),
                allow: true,
                updated_input: None,
                justification: None,
                reason: None,
            };
            let resolutions = (0..=rng.below(2)).map(resolution).collect();
            Command::ResolveApprovals { target: Target::Run(run), resolutions, idempotency: None }
        }
        0 => Command::CreateSession { id: session_id(rng.below(5)), thread_id: None },
        1..=4 => {
            let idempotency = rng.chance(2).then(|| {
                let key = 1 + rng.below(60) as u8;
                IdempotencyKey { key: [key; 16], fingerprint: [rng.below(3) as u8; 16] }
            });
            let padding = "x".repeat(rng.below(900) as usize);
            Command::SubmitRun {
                session: session_id(rng.below(5)),
                request: raw(format!("{{\"content\":\"{padding}\"}}")),
                route: "main".to_string(),
                model: "m".to_string(),
                idempotency,
                reply_targets: Vec::new(),
            }
        }
        5 => Command::CancelRun { run: run(rng), reason: None },
        6 if rng.chance(2) => Command::InterruptSession { session: session_id(rng.below(5)) },
        6 => Command::SetHold { held: rng.chance(2), reason: None },
        _ => Command::Finish {
            run: run(rng),
            notes: vec![Note { kind: NoteKind::Output, body: raw("{\"output\":{}}".to_string()) }],
            outcome: Outcome::Completed,
        },
    }
}

/// What the answers promise.
fn take_note(told: &mut Told, answers: Vec<Answer>) {
    for (command, answer) in answers {
        match (command, answer) {
            (Command::CreateSession { id, .. }, Ok(Decision::Session { .. })) if !told.sessions.contains(&id) => {
                told.sessions.push(id);
            }
            (Command::SubmitRun { idempotency, .. }, Ok(Decision::Accepted { run, .. })) => {
                assert!(told.accepted.insert(run, idempotency).is_none(), "{run} was given out twice");
            }
            (Command::SubmitRun { idempotency: Some(key), .. }, Ok(Decision::Repeated { run, .. })) => {
                // The first answer may have been lost in a crash, but never contradicts.
                if let Some(Some(first)) = told.accepted.get(&run) {
                    assert_eq!(*first, key);
                }
            }
            (Command::ResolveApprovals { resolutions, .. }, Ok(Decision::Run { .. })) => {
                told.resolved.extend(resolutions.into_iter().map(|resolution| resolution.id));
            }
            (_, Ok(Decision::Run { run, status, .. })) if status.is_terminal() => {
                let before = told.ended.insert(run, status);
                assert!(before.is_none_or(|before| before == status), "{run} ended as {before:?} and {status:?}");
            }
            _ => {}
        }
    }
}

/// Everything in the log: nothing told is missing, nothing committed has changed, each run ends once.
fn check_log(told: &mut Told, disk: &FakeDisk, reader: &Reader) {
    if disk.is_off() {
        return;
    }
    let mut found: BTreeMap<Seq, String> = BTreeMap::new();
    let mut accepted = Vec::new();
    let mut ended: HashMap<RunId, RunStatus> = HashMap::new();
    let mut open: HashMap<RunId, Vec<String>> = HashMap::new();
    let mut resolved = Vec::new();
    let mut from = reader.floor();
    while from <= reader.committed() {
        let records = reader.scan(from, 4096).expect("committed records can be read");
        let Some(last) = records.last() else { break };
        from = last.seq + 1;
        for record in records {
            let status = match record.kind.as_str() {
                "run.completed" => Some(RunStatus::Completed),
                "run.cancelled" => Some(RunStatus::Cancelled),
                "run.interrupted" => Some(RunStatus::Interrupted),
                _ => None,
            };
            if let (Some(run), Some(status)) = (record.run, status) {
                assert_eq!(ended.insert(run, status), None, "{run} ends twice");
            }
            if let Some(run) = record.run {
                let open = open.entry(run).or_default();
                let id = || {
                    let body: serde_json::Value = serde_json::from_str(record.body.get()).expect("JSON");
                    body["id"].as_str().expect("names its approval").to_string()
                };
                match record.kind.as_str() {
                    "approval.requested" => open.push(id()),
                    "approval.resolved" => {
                        let id = id();
                        assert!(open.contains(&id), "{id} is resolved and was not open");
                        open.retain(|other| *other != id);
                        resolved.push(id);
                    }
                    "run.waiting" => assert!(!open.is_empty(), "{run} waits for nothing"),
                    "run.continued" => assert!(open.is_empty(), "{run} goes on while {open:?} is open"),
                    "run.completed" | "run.cancelled" | "run.interrupted" => open.clear(),
                    _ => {}
                }
            }
            if record.kind == "run.accepted" {
                accepted.push(record.run.expect("names its run"));
            }
            found.insert(record.seq, format!("{} {}", record.kind, record.body.get()));
        }
    }
    for (seq, record) in &told.records {
        assert_eq!(found.get(seq), Some(record), "committed record {seq} has changed or gone");
    }
    for run in told.accepted.keys() {
        assert!(accepted.contains(run), "{run} was acknowledged and is lost");
    }
    for (run, status) in &told.ended {
        assert_eq!(ended.get(run), Some(status), "the end of {run} was acknowledged");
    }
    for id in &told.resolved {
        assert!(resolved.contains(id), "the answer to {id} was acknowledged and is lost");
    }
    told.records = found;
}

fn simulate(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut world = World {
        disk: FakeDisk::new(seed),
        key: Arc::new(SigningKey::from_seed(&[7; 32])),
        clock: Arc::new(FakeClock(AtomicU64::new(1_764_000_000_000))),
        told: Told::default(),
    };
    let mut before: Option<Counts> = None;
    for _ in 0..rng.below(5) + 3 {
        let groups = (0..rng.below(25))
            .map(|_| (0..=rng.below(5)).map(|_| random_command(&mut rng, &world.told)).collect())
            .collect();
        let mut faulty = false;
        match rng.below(4) {
            0 => world.disk.crash_at(1 + rng.below(60)),
            1 => {
                let mode = if rng.chance(2) { FaultMode::Once } else { FaultMode::ForGood };
                let errno = if rng.chance(2) { EIO } else { ENOSPC };
                world.disk.fail_at(1 + rng.below(60), errno, mode);
                faulty = true;
            }
            _ => {}
        }
        let life = live(&mut world, groups, faulty);
        let mut clean = false;
        if let Some(life) = life {
            if let Some(before) = before.take() {
                assert_eq!(
                    life.at_start,
                    Counts { ready: 0, ..before },
                    "a fold of the log is the state that was live"
                );
            }
            clean = life.clean;
            if clean {
                before = Some(life.at_end);
            }
        }
        world.disk.heal();
        if !clean || rng.chance(2) {
            world.disk.crash();
        }
    }
    // A last life without faults: everything told must be there.
    world.disk.crash();
    live(&mut world, VecDeque::new(), false).expect("a healthy disk opens");
    for session in &world.told.sessions {
        let created = world.told.records.values().filter(|record| record.starts_with("session.created")).count();
        assert!(created >= world.told.sessions.len(), "{session} or another session is lost");
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_no_id_is_used_twice_at_any_crash_or_fault() {
    for seed in seeds(150) {
        println!("replay with KHEISH_SIM_SEED={seed}");
        simulate(seed);
    }
}
