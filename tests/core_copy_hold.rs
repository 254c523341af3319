//! What a copied state root brought waits until it is released; what is new does not. The core alone, without a daemon.

use kheish_daemon::audit::key::SigningKey;
use kheish_daemon::core::{
    COPIED_STATE_ROOT, Command, ConnectorCommand, Decision, DeliveryCommand, Note, NoteKind, Outcome, Resolution,
    RunStatus, State, Target, Txn,
};
use kheish_daemon::ids::{RunId, SessionId};
use serde_json::value::RawValue;

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_string()).expect("JSON")
}

fn id(name: &str) -> SessionId {
    SessionId::parse(name).expect("legal")
}

struct World {
    state: State,
    seq: u64,
}

impl World {
    fn new() -> Self {
        let mut state = State::default();
        state.open_epoch(7);
        Self { state, seq: 1 }
    }

    /// One batch with one command.
    fn decide(&mut self, command: Command) -> Decision {
        let signer = SigningKey::from_seed(&[7; 32]);
        let mut txn = Txn::new(&self.state, 1_000, self.seq).signed_by(&signer);
        let decision = txn.decide(command).expect("not refused");
        let (delta, events) = txn.finish();
        self.seq += events.len() as u64;
        self.state.absorb(delta);
        decision
    }

    /// What the core's loop does after each batch.
    fn pump(&mut self) {
        while self.state.wants_pump() {
            self.decide(Command::Pump { limit: 2 });
        }
    }

    fn session(&mut self, name: &str) {
        self.decide(Command::CreateSession { id: id(name), thread_id: None });
    }

    fn submit(&mut self, session: &str) -> RunId {
        let (session, request) = (id(session), raw("{}"));
        let (route, model) = ("main".to_string(), "m".to_string());
        let command =
            Command::SubmitRun { session, request, route, model, idempotency: None, reply_targets: Vec::new() };
        let Decision::Accepted { run, .. } = self.decide(command) else { panic!("not accepted") };
        run
    }

    fn ask(&mut self, run: RunId) {
        let body = raw(r#"{"id":"ask-1","call":"call-1","tool":"bash","input":{}}"#);
        self.decide(Command::Suspend { run, notes: vec![Note { kind: NoteKind::ApprovalRequested, body }] });
    }

    fn allow(&mut self, run: RunId) {
        let resolution =
            Resolution { id: "ask-1".into(), allow: true, updated_input: None, justification: None, reason: None };
        let target = Target::Run(run);
        self.decide(Command::ResolveApprovals { target, resolutions: vec![resolution], idempotency: None });
    }

    fn finish(&mut self, run: RunId) {
        self.decide(Command::Finish { run, notes: Vec::new(), outcome: Outcome::Completed });
    }

    fn release(&mut self) {
        self.decide(Command::SetHold { held: false, reason: None });
        self.pump();
    }

    fn status(&self, run: RunId) -> RunStatus {
        self.state.run_position(run).expect("it exists").status
    }

    /// Everything that waits for an engine.
    fn ready(&mut self) -> Vec<RunId> {
        let mut ready = Vec::new();
        while let Some(number) = self.state.take_ready() {
            ready.push(self.state.position_of(number).id);
        }
        ready
    }

    /// The state as a restart reads it from a snapshot.
    fn restarted(&self) -> Self {
        let mut state = State::default();
        for line in self.state.freeze().into_lines() {
            state.restore_line(&line).expect("own lines restore");
        }
        state.open_epoch(if self.state.copy_held() { 9 } else { 7 });
        state.finish_replay();
        Self { state, seq: self.seq }
    }

    /// The same in a copied root.
    fn copied(&self, epoch: u32) -> Self {
        let mut state = State::default();
        for line in self.state.freeze().into_lines() {
            state.restore_line(&line).expect("own lines restore");
        }
        state.open_epoch(epoch);
        state.finish_replay();
        Self { state, seq: u64::from(epoch) << 32 | 2 }
    }
}

/// An active run with one queued behind it, a run that waits for an approval, and one that has ended.
fn original() -> (World, [RunId; 4]) {
    let mut world = World::new();
    ["a", "b", "c"].iter().for_each(|name| world.session(name));
    let (active, queued) = (world.submit("a"), world.submit("a"));
    let waiting = world.submit("b");
    world.ask(waiting);
    let ended = world.submit("c");
    world.finish(ended);
    (world, [active, queued, waiting, ended])
}

#[test]
fn a_copy_starts_new_runs_and_nothing_that_it_brought_before_and_after_a_restart() {
    let (world, [active, queued, waiting, _]) = original();
    let mut copy = world.copied(9);
    for _ in 0..2 {
        copy.pump();
        assert!(copy.state.copy_held() && copy.state.counts().copy_held);
        assert_eq!(copy.ready(), []);
        assert_eq!(
            [active, queued, waiting].map(|run| copy.status(run)),
            [RunStatus::Running, RunStatus::Queued, RunStatus::WaitingForApproval]
        );
        copy = copy.restarted();
    }
    let fresh = copy.submit("c");
    let behind = copy.submit("a");
    assert_eq!(copy.ready(), [fresh]);
    assert_eq!(copy.status(behind), RunStatus::Queued);
    copy.state.ready_again(active);
    assert_eq!(copy.ready(), [], "whoever let go of it");

    // An answer is taken, and its run waits all the same.
    copy.allow(waiting);
    copy.pump();
    assert_eq!((copy.status(waiting), copy.ready()), (RunStatus::Running, vec![]));
    // A run that is cancelled does not bring the next one of the copy along.
    copy.decide(Command::CancelRun { run: active, reason: None });
    copy.pump();
    assert_eq!((copy.status(queued), copy.ready()), (RunStatus::Queued, vec![]));
    // Behind what is gone a new one goes on.
    copy.decide(Command::CancelRun { run: queued, reason: None });
    copy.pump();
    assert_eq!((copy.status(behind), copy.ready()), (RunStatus::Running, vec![behind]));

    copy.release();
    assert_eq!((copy.state.copy_held(), copy.ready()), (false, vec![waiting]));
    copy.release();
    assert_eq!(copy.ready(), [], "a second release finds nothing");
}

#[test]
fn one_release_lets_runs_deliveries_and_connectors_of_a_copy_go_and_leaves_an_operators_own_holds() {
    let (world, [active, queued, waiting, _]) = original();
    let mut copy = world.copied(9);
    assert_eq!(copy.state.delivery_hold().and_then(|hold| hold.reason.as_deref()), Some(COPIED_STATE_ROOT));
    let reason = Some(kheish_daemon::core::COPIED_CONNECTORS.to_string());
    copy.decide(Command::Connector(Box::new(ConnectorCommand::Hold { held: true, reason })));
    copy.release();
    assert_eq!(copy.ready(), [active]);
    assert!(copy.state.delivery_hold().is_none() && copy.state.connectors().hold.is_none());
    copy.finish(active);
    assert_eq!(copy.ready(), [queued]);
    copy.allow(waiting);
    assert_eq!(copy.ready(), [waiting]);

    let mine = || Some("mine".to_string());
    copy.decide(Command::Delivery(Box::new(DeliveryCommand::SetHold { held: true, reason: mine() })));
    copy.decide(Command::Connector(Box::new(ConnectorCommand::Hold { held: true, reason: mine() })));
    copy.decide(Command::SetHold { held: true, reason: None });
    copy.release();
    assert!(copy.state.delivery_hold().is_some() && copy.state.connectors().hold.is_some());
}

#[test]
fn a_copy_of_a_copy_holds_what_both_brought_and_a_copy_of_a_rested_root_holds_no_run() {
    let (world, [active, ..]) = original();
    let mut copy = world.copied(9);
    let fresh = copy.submit("c");
    assert_eq!(copy.ready(), [fresh]);
    let mut second = copy.copied(11);
    second.pump();
    assert_eq!(second.ready(), []);
    second.release();
    let mut ready = second.ready();
    ready.sort();
    let mut wanted = vec![active, fresh];
    wanted.sort();
    assert_eq!(ready, wanted);

    let mut rested = World::new();
    rested.session("a");
    let run = rested.submit("a");
    rested.finish(run);
    assert!(!rested.copied(9).state.copy_held());
}
