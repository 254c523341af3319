//! What the core thread's loop promises, one pass at a time on a fake disk.
//! Owns: a loop that is driven by hand, so that a test decides what arrives together.
//! Never: starts a thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use crossbeam_channel::{Receiver, bounded};
use serde_json::value::RawValue;

use super::handle::{Job, Message, Query};
use super::{CommandError, CommitLoop, CoreHandle, Effects, Parts, SnapshotJob};
use crate::actor::{Actor, ActorRole};
use crate::audit::key::SigningKey;
use crate::clock::Clock;
use crate::core::{
    Command, ControlIntent, ControlOutcome, ControlResult, DebugLevel, Decision, Failure, Outcome, Refusal, RunStatus,
    RuntimeEdit, SessionChange, SessionView, State,
};
use crate::ids::{RunId, SessionId};
use crate::journal::fake_disk::{FakeDisk, FaultMode, Op};
use crate::journal::{Journal, Options, Reader};
use crate::limits::{CORE_PUMP_RUNS_MAX, CORE_TICK_MS, JOURNAL_BATCH_BYTES_MAX};
use crate::permissions::Mode;

const EIO: i32 = 5;

struct HandClock(AtomicU64);

impl Clock for HandClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

struct World {
    disk: FakeDisk,
    clock: Arc<HandClock>,
    core: CommitLoop,
    handle: CoreHandle,
    reader: Reader,
    snapshots: Receiver<SnapshotJob>,
    stopped: Arc<Mutex<Vec<RunId>>>,
    /// Age of the pass as seen when the others were told of a commit.
    ages: Arc<Mutex<Vec<Option<u64>>>>,
}

type Answer = Receiver<Result<Decision, CommandError>>;

impl World {
    fn new(disk: FakeDisk, snapshot_interval_records: u64) -> Self {
        struct Nothing;
        impl crate::journal::Restore for Nothing {
            fn reset(&mut self) {}
            fn snapshot_line(&mut self, _: &[u8]) -> Result<(), String> {
                Ok(())
            }
            fn record(&mut self, _: &crate::journal::RecordRef<'_>) -> Result<(), String> {
                Ok(())
            }
        }
        let clock = Arc::new(HandClock(AtomicU64::new(1_764_057_600_000)));
        let options = Options { segment_bytes: 64 * 1024, ..Options::default() };
        let signer = Arc::new(SigningKey::from_seed(&[7; 32]));
        let (journal, _) =
            Journal::open(disk.handle(), disk.snapshots(), options, signer, clock.now_ms(), &mut Nothing).unwrap();
        let mut state = State::default();
        state.open_epoch(journal.epoch());
        let reader = journal.reader();
        let (sender, snapshots) = bounded(2);
        let (stopped, ages) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let own_handle: Arc<OnceLock<CoreHandle>> = Arc::default();
        let (for_stops, for_ages, for_handle) = (stopped.clone(), ages.clone(), own_handle.clone());
        let (core, handle) = CommitLoop::new(Parts {
            state,
            journal,
            clock: clock.clone(),
            effects: Effects {
                stop_task: Box::new(|_, _| {}),
                committed: Box::new(move || {
                    let age = for_handle.get().and_then(CoreHandle::batch_age_ms);
                    for_ages.lock().unwrap().push(age);
                }),
                stopped: Box::new(move |run| for_stops.lock().unwrap().push(run)),
                acted: Box::new(|_| {}),
            },
            answers: None,
            snapshots: sender,
            snapshot_interval_records,
            records_since_snapshot: 0,
        });
        assert!(own_handle.set(handle.clone()).is_ok());
        Self { disk, clock, core, handle, reader, snapshots, stopped, ages }
    }

    fn pass(&mut self) {
        self.core.pass(&mut Vec::new(), &mut Vec::new());
    }

    fn submit(&self, command: Command) -> Answer {
        self.submit_for(None, command)
    }

    fn submit_for(&self, by: Option<Actor>, command: Command) -> Answer {
        let (reply, answer) = bounded(1);
        self.handle.submit(command, by, Box::new(move |result| drop(reply.send(result))));
        answer
    }

    /// Decides one command in a batch of its own.
    fn decide(&mut self, command: Command) -> Result<Decision, CommandError> {
        let answer = self.submit(command);
        self.pass();
        answer.try_recv().expect("each command is answered in its pass")
    }

    fn ask_session(&self, id: &str) -> Receiver<Option<SessionView>> {
        let (reply, answer) = bounded(1);
        assert!(self.handle.send(Message::Ask(Box::new(Query::Session(session(id), reply)))).is_ok());
        answer
    }

    /// Kinds of the committed records but the journal's own.
    fn kinds(&self) -> Vec<String> {
        let records = self.reader.scan(self.reader.floor(), usize::MAX).unwrap();
        records.into_iter().map(|record| record.kind).filter(|kind| !kind.starts_with("journal.")).collect()
    }

    /// Kind and caller's request of each committed record but the journal's own.
    fn callers(&self) -> Vec<(String, Option<String>)> {
        let records = self.reader.scan(self.reader.floor(), usize::MAX).unwrap();
        let own = records.into_iter().filter(|record| !record.kind.starts_with("journal."));
        own.map(|record| (record.kind, record.by.map(|by| by.request_id().to_string()))).collect()
    }

    /// A disk without room for another reserve, filled until the core refuses; gives an accepted run.
    fn fill(&mut self) -> RunId {
        self.decide(create("a")).unwrap();
        let first = self.decide(submit("a", 10)).unwrap();
        self.disk.limit_bytes(Some(self.disk.used_bytes()));
        while self.decide(submit("a", 500)).is_ok() {}
        match first {
            Decision::Accepted { run, .. } => run,
            other => panic!("{other:?}"),
        }
    }
}

fn world() -> World {
    World::new(FakeDisk::new(1), u64::MAX)
}

fn session(id: &str) -> SessionId {
    SessionId::parse(id).unwrap()
}

fn create(id: &str) -> Command {
    Command::CreateSession { id: session(id), thread_id: None }
}

fn submit(id: &str, content_bytes: usize) -> Command {
    Command::SubmitRun {
        session: session(id),
        request: RawValue::from_string(format!("{{\"content\":\"{}\"}}", "x".repeat(content_bytes))).unwrap(),
        route: "main".to_string(),
        model: "m".to_string(),
        idempotency: None,
        reply_targets: Vec::new(),
    }
}

fn hold(held: bool) -> Command {
    Command::SetHold { held, reason: None }
}

fn is_full(answer: &Result<Decision, CommandError>) -> bool {
    matches!(answer, Err(CommandError::StorageFull { reason }) if reason.contains("; next: "))
}

fn caller(request: &str) -> Option<Actor> {
    Some(Actor::new(ActorRole::Admin, Some([7; 4]), "127.0.0.1:9".parse().ok(), request))
}

#[test]
fn every_record_of_a_callers_command_names_the_caller_and_no_other_record_does() {
    let mut world = world();
    let answers = [
        world.submit_for(caller("r-1"), create("a")),
        world.submit_for(caller("r-2"), submit("nobody", 1)),
        world.submit_for(caller("r-3"), submit("a", 1)),
        world.submit(submit("a", 1)),
        world.submit_for(caller("r-4"), Command::EndSession { session: session("a"), reason: None }),
    ];
    world.pass();
    assert_eq!(answers.iter().filter(|answer| answer.try_recv().unwrap().is_ok()).count(), 4);
    let named = |kind: &str, request: Option<&str>| (kind.to_string(), request.map(str::to_string));
    assert_eq!(
        world.callers(),
        [
            named("session.created", Some("r-1")),
            named("run.accepted", Some("r-3")),
            named("run.started", Some("r-3")),
            named("run.accepted", None),
            named("session.ended", Some("r-4")),
            named("run.cancelled", Some("r-4")),
            named("run.interrupted", Some("r-4")),
        ]
    );
}

#[test]
fn on_a_full_disk_a_containing_act_is_recorded_with_its_caller_and_any_other_is_refused() {
    let mut world = world();
    world.fill();
    let before = world.callers().len();
    let intent = |act: &str, containment| Command::ControlIntent {
        intent: ControlIntent { act: act.to_string(), target: "openai.prod".to_string() },
        containment,
    };
    let put = world.submit_for(caller("r-1"), intent("secret.put", false));
    let revoke = world.submit_for(caller("r-2"), intent("slot.revoke", true));
    world.pass();
    assert!(is_full(&put.try_recv().unwrap()));
    let Ok(Decision::Recorded { last_seq }) = revoke.try_recv().unwrap() else { panic!("it is recorded") };
    let result = ControlResult { intent: last_seq, outcome: ControlOutcome::Done, code: None };
    let result = world.submit_for(caller("r-2"), Command::ControlResult { result, containment: true });
    world.pass();
    assert!(result.try_recv().unwrap().is_ok());
    let named = |kind: &str| (kind.to_string(), Some("r-2".to_string()));
    assert_eq!(world.callers()[before..], [named("control.intent"), named("control.result")]);
}

#[test]
fn on_a_full_disk_modes_and_capture_can_be_turned_down_and_not_up() {
    let mut world = world();
    world.fill();
    let change = |edit| Command::ChangeRuntime { edit, expected_revision: None };
    let debug = |level| change(RuntimeEdit::DebugLevel { level, ttl_ms: None, ticket: None });
    let own = |mode| Command::UpdateSession { session: session("a"), change: SessionChange::PermissionMode(mode) };
    let up = [
        change(RuntimeEdit::PermissionMode(Mode::BypassPermissions)),
        debug(DebugLevel::On),
        own(Some(Mode::BypassPermissions)),
    ]
    .map(|command| world.submit(command));
    let down = [change(RuntimeEdit::PermissionMode(Mode::DontAsk)), own(Some(Mode::DontAsk)), debug(DebugLevel::Off)]
        .map(|command| world.submit(command));
    world.pass();
    assert!(up.iter().all(|answer| is_full(&answer.try_recv().unwrap())), "more rights wait for space");
    for answer in down {
        answer.try_recv().unwrap().expect("served from the reserve");
    }
    assert_eq!(world.handle.view().runtime.settings().permission_mode, Mode::DontAsk);
    let settings = world.handle.session_settings(&session("a")).expect("its own");
    assert_eq!(settings.permission_mode, Some(Mode::DontAsk));
}

#[test]
fn a_refused_command_leaves_its_neighbours_in_one_batch() {
    let mut world = world();
    let answers = [create("a"), submit("nobody", 1), submit("a", 1), create("a"), submit("a", 1)]
        .map(|command| world.submit(command));
    world.pass();
    let answers = answers.map(|answer| answer.try_recv().unwrap());
    assert_eq!(answers[0], Ok(Decision::Session { number: 1, created: true }));
    assert_eq!(answers[1], Err(CommandError::Refused(Refusal::SessionNotFound(session("nobody")))));
    assert!(matches!(answers[2], Ok(Decision::Accepted { position: 0, .. })), "{answers:?}");
    assert_eq!(answers[3], Ok(Decision::Session { number: 1, created: false }));
    assert!(matches!(answers[4], Ok(Decision::Accepted { position: 1, .. })), "{answers:?}");
    assert_eq!(world.kinds(), ["session.created", "run.accepted", "run.started", "run.accepted"]);
    assert_eq!(world.handle.view().batches, 1);
}

#[test]
fn a_read_sees_the_batch_it_came_with_only_once_that_is_on_disk() {
    let mut world = world();
    world.disk.fail_ops_at(&[Op::Write], 1, EIO, FaultMode::Once);
    let (created, seen) = (world.submit(create("a")), world.ask_session("a"));
    world.pass();
    assert!(created.try_recv().unwrap().is_err());
    assert_eq!(seen.try_recv().unwrap(), None, "what is not on disk was shown");

    // Asked before the command in the same batch: the answer is as of the end of the batch.
    let (seen, created) = (world.ask_session("a"), world.submit(create("a")));
    world.pass();
    assert_eq!(created.try_recv().unwrap(), Ok(Decision::Session { number: 1, created: true }));
    assert_eq!(seen.try_recv().unwrap().map(|view| view.session.id), Some(session("a")));
}

/// An operator's daemon stayed unready for good, and its engines dropped their runs, after one failed write that the
/// journal had taken back. Every error but a full disk was taken for a failed sync. Only the journal's own word counts.
#[test]
fn a_failed_write_refuses_its_batch_and_nothing_after_it() {
    let mut world = world();
    world.disk.fail_ops_at(&[Op::Write], 1, EIO, FaultMode::Once);
    let refused = world.decide(create("a"));
    assert!(
        matches!(&refused, Err(CommandError::WriteFailed { reason }) if reason.contains("; next: ")),
        "{refused:?}"
    );
    let view = world.handle.view();
    assert_eq!((view.poisoned.clone(), view.refusing.clone()), (None, refused.err()));
    assert_eq!(world.decide(create("a")), Ok(Decision::Session { number: 1, created: true }));
    assert_eq!(world.handle.view().refusing, None);
}

#[test]
fn after_a_failed_sync_every_command_hears_the_same_reason_and_reads_go_on() {
    let mut world = world();
    world.decide(create("a")).unwrap();
    world.disk.fail_ops_at(&[Op::Sync], 1, EIO, FaultMode::Once);
    let first = world.decide(create("b")).unwrap_err();
    assert!(matches!(&first, CommandError::Poisoned { reason } if reason.contains("; next: ")), "{first:?}");
    let cancel = Command::CancelRun { run: RunId { number: 1, epoch: 0 }, reason: None };
    let (again, seen) = (world.submit(cancel), world.ask_session("a"));
    world.pass();
    assert_eq!(again.try_recv().unwrap(), Err(first.clone()));
    assert!(seen.try_recv().unwrap().is_some());
    assert_eq!(world.handle.view().poisoned, Some(first.to_string()));
    assert_eq!(world.kinds(), ["session.created"]);
}

/// On a full disk an operator could not stop anything: what was committed together was refused together.
#[test]
fn a_full_disk_refuses_new_work_and_serves_containment_from_the_reserve() {
    let mut world = world();
    let run = world.fill();
    let before = world.kinds().len();
    let cancel = world.submit(Command::CancelRun { run, reason: None });
    let refused = world.submit(submit("a", 500));
    let unknown = world.submit(Command::InterruptSession { session: session("nobody") });
    let held = world.submit(hold(true));
    let interrupted = world.submit(Command::InterruptSession { session: session("a") });
    world.pass();
    assert_eq!(
        cancel.try_recv().unwrap(),
        Ok(Decision::Run { run, status: RunStatus::Cancelled, changed: true }),
        "{:?}",
        world.handle.view()
    );
    assert!(is_full(&refused.try_recv().unwrap()));
    assert_eq!(unknown.try_recv().unwrap(), Err(CommandError::Refused(Refusal::SessionNotFound(session("nobody")))));
    assert_eq!(held.try_recv().unwrap(), Ok(Decision::Hold { held: true }));
    let next = RunId { number: run.number + 1, epoch: 0 };
    assert_eq!(interrupted.try_recv().unwrap(), Ok(Decision::Stopped { run: Some(next), cancelled: 0, changed: true }));
    assert_eq!(
        world.kinds()[before..],
        ["run.cancelled", "run.started", "hold.changed", "session.interrupted", "run.interrupted"]
    );
    assert_eq!(*world.stopped.lock().unwrap(), [run, next], "engines are told of what was stopped");

    // Releasing the hold starts work, so it waits for space like everything else.
    assert!(is_full(&world.decide(hold(false))));
    assert!(matches!(
        world.decide(Command::EndSession { session: session("a"), reason: None }),
        Ok(Decision::Stopped { .. })
    ));
    let view = world.handle.view();
    assert!(matches!(view.refusing, Some(CommandError::StorageFull { .. })), "{view:?}");
    assert_eq!(view.poisoned, None);
}

#[test]
fn service_resumes_and_status_says_so_once_space_is_back() {
    let mut world = world();
    world.fill();
    assert!(matches!(world.handle.view().refusing, Some(CommandError::StorageFull { .. })));
    world.disk.limit_bytes(None);
    world.clock.0.fetch_add(CORE_TICK_MS, Ordering::SeqCst);
    // Only a read arrives: nothing is committed, and the upkeep finds out.
    let _answered = world.ask_session("a");
    world.pass();
    assert_eq!(world.handle.view().refusing, None);
    assert!(world.decide(submit("a", 500)).is_ok());
}

/// A run failed with `record_too_large` although its own answer was small: a neighbour's answer broke the bound of the
/// batch that both were in. A command that may be too large stands in a batch of its own.
#[test]
fn a_command_too_large_for_any_batch_takes_no_neighbour_with_it() {
    let mut world = world();
    let answers = [create("a"), submit("a", JOURNAL_BATCH_BYTES_MAX + 1), submit("a", 1)].map(|it| world.submit(it));
    for _ in 0..3 {
        world.pass();
    }
    let answers = answers.map(|answer| answer.try_recv().unwrap());
    assert_eq!(answers[0], Ok(Decision::Session { number: 1, created: true }));
    assert!(matches!(answers[1], Err(CommandError::TooLarge { .. })), "{:?}", answers[1]);
    assert!(matches!(answers[2], Ok(Decision::Accepted { .. })), "{:?}", answers[2]);
    assert_eq!(world.handle.view().refusing, None, "the disk refused nothing");
}

#[test]
fn released_runs_start_in_bounded_batches_and_commands_in_between_are_served() {
    let mut world = world();
    world.decide(hold(true)).unwrap();
    let runs = CORE_PUMP_RUNS_MAX + 44;
    for n in 0..runs {
        world.submit(create(&format!("s{n}")));
        world.submit(submit(&format!("s{n}"), 1));
        if n % 200 == 199 {
            world.pass();
        }
    }
    world.pass();
    assert_eq!(world.handle.view().counts.status(RunStatus::Queued), runs as u64);
    world.decide(hold(false)).unwrap();
    let running = |world: &World| world.handle.view().counts.status(RunStatus::Running);
    assert_eq!(running(&world), 0, "a release starts nothing in its own batch");
    // The session is beyond the first slice: its run is still queued when the next command is decided.
    let last = format!("s{}", runs - 1);
    let end = world.decide(Command::EndSession { session: session(&last), reason: None });
    assert_eq!(end, Ok(Decision::Stopped { run: None, cancelled: 1, changed: true }));
    assert_eq!(running(&world), CORE_PUMP_RUNS_MAX as u64);
    world.pass();
    assert_eq!(running(&world), runs as u64 - 1);
}

#[test]
fn a_snapshot_is_offered_at_its_interval_and_at_the_end() {
    let mut world = World::new(FakeDisk::new(2), 3);
    world.decide(create("a")).unwrap();
    world.decide(create("b")).unwrap();
    assert!(world.snapshots.try_recv().is_err());
    world.decide(create("c")).unwrap();
    assert_eq!(world.snapshots.try_recv().unwrap().head.seq, world.reader.committed());
    world.handle.stop();
    let World { core, reader, snapshots, .. } = world;
    core.run().unwrap();
    assert_eq!(snapshots.try_recv().unwrap().head.seq, reader.committed(), "the last one stands behind the last seal");
}

#[test]
fn a_command_that_comes_too_late_for_the_core_is_answered() {
    let world = world();
    world.handle.stop();
    let late = world.submit(create("late"));
    let World { core, reader, .. } = world;
    core.run().unwrap();
    assert_eq!(late.try_recv(), Ok(Err(CommandError::Stopping)));
    let last = reader.read(reader.committed()).unwrap();
    assert!(last.kind.starts_with("journal."), "{last:?}");
}

/// A sync that hung outside of a batch, in the timed upkeep, was not seen by readiness: only the write of a batch
/// counted. The whole pass counts now.
#[test]
fn a_core_that_hangs_anywhere_in_its_pass_shows_an_age() {
    let mut world = world();
    world.decide(create("a")).unwrap();
    world.decide(create("b")).unwrap();
    let ages = world.ages.lock().unwrap();
    assert!(ages.len() == 2 && ages.iter().all(Option::is_some), "{ages:?}");
}

#[test]
fn a_stopped_run_is_reported_once_to_whoever_carries_it() {
    let mut world = world();
    world.decide(create("a")).unwrap();
    let Ok(Decision::Accepted { run, .. }) = world.decide(submit("a", 1)) else { panic!("accepted") };
    let cancel = Command::CancelRun { run, reason: None };
    assert_eq!(world.decide(cancel.clone()), Ok(Decision::Run { run, status: RunStatus::Cancelled, changed: true }));
    assert_eq!(world.decide(cancel), Ok(Decision::Run { run, status: RunStatus::Cancelled, changed: false }));
    let failure = Failure { code: "late".to_string(), message: String::new() };
    let finish = Command::Finish { run, notes: Vec::new(), outcome: Outcome::Failed(failure) };
    let conflict = Refusal::RunStateConflict { run, status: RunStatus::Cancelled };
    assert_eq!(world.decide(finish), Err(CommandError::Refused(conflict)));
    assert_eq!(*world.stopped.lock().unwrap(), [run]);
}

/// A sync that hung held the workers that answer requests, and with them every read, for as long as it hung.
#[test]
fn a_caller_is_told_when_the_core_does_not_answer_and_the_command_may_still_take_effect() {
    let mut world = World::new(FakeDisk::new(1), 1_000);
    let id = SessionId::parse("s").unwrap();
    let create = Command::CreateSession { id: id.clone(), thread_id: None };
    // Nobody drives the core meanwhile.
    let limit = std::time::Duration::from_millis(1);
    assert_eq!(world.handle.request_within(create, None, limit), Err(CommandError::NoAnswer { waited_ms: 1 }));
    let (mut commands, mut queries) = (Vec::new(), Vec::new());
    world.core.pass(&mut commands, &mut queries);
    assert_eq!(world.handle.view().counts.sessions, 1);
}

/// A run that waits for a place on its route is in nobody's hands.
#[test]
fn a_run_that_was_let_go_is_handed_out_again_when_it_is_called_and_never_after_its_end() {
    let mut world = world();
    world.decide(create("a")).unwrap();
    let Decision::Accepted { run, .. } = world.decide(submit("a", 10)).unwrap() else { panic!("accepted") };
    // An engine that asks for work.
    let ask = |world: &mut World| {
        let (engine, job) = bounded(1);
        assert!(world.handle.send(Message::TakeRun(engine)).is_ok());
        world.pass();
        job
    };
    let got = |job: &Receiver<Job>| job.try_recv().ok().map(|job| job.id);
    assert_eq!(got(&ask(&mut world)), Some(run));
    let second = ask(&mut world);
    assert_eq!(got(&second), None, "it is in hand");
    world.handle.hand_again(run);
    world.pass();
    assert_eq!(got(&second), Some(run));
    let third = ask(&mut world);
    assert_eq!(got(&third), None, "once for each call");
    world.decide(Command::CancelRun { run, reason: None }).unwrap();
    world.handle.hand_again(run);
    world.pass();
    assert_eq!(got(&third), None, "it has ended");
}
