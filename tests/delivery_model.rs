//! Deliveries in the core, from seeds: none is lost or made twice, a target has one in flight and in order, and a fold of
//! the events and a snapshot tell the same as the live state.

#[path = "support/rng.rs"]
mod rng;

use std::collections::{BTreeMap, BTreeSet};

use kheish_daemon::audit::key::SigningKey;
use kheish_daemon::core::{
    AttemptOutcome, Command, ConnectorCommand, Decision, DeliveryCommand, DeliveryError, DeliveryJob, DeliveryPolicy,
    DeliveryQuery, DeliveryStatus, Event, Note, NoteKind, Outcome, ReplyPlugin, RunReplyTarget, State, TargetKey, Txn,
};
use kheish_daemon::ids::SessionId;
use kheish_daemon::limits::DELIVERY_SENDERS_UNPROVEN_MAX;
use rng::{Rng, seeds};
use serde_json::value::RawValue;

const POLICY: DeliveryPolicy = DeliveryPolicy {
    initial_retry_ms: 10,
    max_retry_ms: 100,
    max_retry_after_ms: 1_000,
    max_attempts: 3,
    target_min_interval_ms: 0,
    circuit_failure_threshold: 2,
    circuit_cooldown_ms: 50,
};

fn note(kind: NoteKind, text: &str) -> Note {
    Note { kind, body: RawValue::from_string(text.to_string()).expect("JSON") }
}

fn everything(state: &State) -> String {
    let all = state.delivery_page(&DeliveryQuery { limit: usize::MAX, ..DeliveryQuery::default() });
    let counts = state.counts().deliveries;
    format!(
        "{all:?} {:?}",
        (
            counts.pending,
            counts.retrying,
            counts.delivered,
            counts.dead_lettered,
            counts.unresolved,
            counts.owed,
            counts.targets
        )
    )
}

fn one_life(seed: u64) {
    let mut rng = Rng::new(seed);
    let signer = SigningKey::from_seed(&[7; 32]);
    let (mut state, mut log, mut now_ms, mut seq) = (State::default(), Vec::<Event>::new(), 1_000, 1);
    state.open_epoch(7);
    let mut hands: Vec<DeliveryJob> = Vec::new();
    let mut owed = 0;
    let mut last_of_target: BTreeMap<TargetKey, u32> = BTreeMap::new();
    for step in 0..300 {
        now_ms += rng.below(40);
        let mut txn = Txn::new(&state, now_ms, seq).signed_by(&signer);
        match rng.below(6) {
            0 | 1 => {
                let session = SessionId::parse(&format!("s{step}")).expect("legal");
                let count = rng.below(4) as usize;
                let target = |_| RunReplyTarget {
                    plugin: ReplyPlugin::Http,
                    address: format!("https://a.example/{}", rng.below(30)),
                };
                let reply_targets: Vec<RunReplyTarget> = (0..count).map(target).collect();
                txn.decide(Command::CreateSession { id: session.clone(), thread_id: None }).expect("created");
                let submitted = txn.decide(Command::SubmitRun {
                    session,
                    request: RawValue::from_string("{}".to_string()).expect("JSON"),
                    route: "main".to_string(),
                    model: "m".to_string(),
                    idempotency: None,
                    reply_targets,
                });
                let Ok(Decision::Accepted { run, .. }) = submitted else { panic!("{submitted:?}") };
                let completes = rng.chance(2);
                let outcome = if completes { Some(Outcome::Completed) } else { None };
                match outcome {
                    Some(outcome) => {
                        let notes = vec![note(NoteKind::Output, r#"{"output":{"content":"x"}}"#)];
                        txn.decide(Command::Finish { run, notes, outcome }).expect("finished");
                        owed += count;
                    }
                    None => drop(txn.decide(Command::CancelRun { run, reason: None }).expect("cancelled")),
                }
            }
            2 | 3 if !hands.is_empty() => {
                let job = hands.swap_remove(rng.below(hands.len() as u64) as usize);
                let number = job.delivery.id.number;
                let outcome = match rng.below(4) {
                    0 => {
                        AttemptOutcome::Dead(DeliveryError { class: "x".to_string(), detail: None, http_status: None })
                    }
                    1 => AttemptOutcome::Retry {
                        error: DeliveryError { class: "y".to_string(), detail: None, http_status: None },
                        retry_after_ms: None,
                    },
                    _ => AttemptOutcome::Delivered { http_status: Some(200) },
                };
                let asked = note(NoteKind::ActionRequest, &format!(r#"{{"action":{number},"kind":"k","target":"t"}}"#));
                let told = note(NoteKind::ActionResponse, &format!(r#"{{"action":{number},"outcome":"succeeded"}}"#));
                for command in [
                    DeliveryCommand::Begin { number, note: asked },
                    DeliveryCommand::Settle { number, note: told, outcome, policy: POLICY },
                ] {
                    txn.decide(Command::Delivery(Box::new(command))).expect("in hand");
                }
            }
            4 => {
                let query = DeliveryQuery { unresolved_only: true, limit: 3, ..DeliveryQuery::default() };
                for item in state.delivery_page(&query).items {
                    let id = item.delivery.id;
                    let command = if rng.chance(2) {
                        DeliveryCommand::Replay { id, force: false }
                    } else {
                        DeliveryCommand::Resolve { id, reason: "r".to_string() }
                    };
                    let decided = txn.decide(Command::Delivery(Box::new(command)));
                    if matches!(decided, Ok(Decision::Delivery(ref again, false)) if again.id != id) {
                        owed += 1;
                    }
                }
            }
            _ => {}
        }
        let (delta, events) = txn.finish();
        seq += events.len() as u64;
        log.extend(events);
        state.absorb(delta);
        while let Some(job) = state.take_delivery(now_ms) {
            let key = job.delivery.target;
            assert!(hands.iter().all(|hand| hand.delivery.target != key), "one in flight for a target");
            let number = job.delivery.id.number;
            assert!(last_of_target.insert(key, number).is_none_or(|before| before <= number), "in order");
            hands.push(job);
        }
        assert!(state.counts().deliveries.in_flight_unproven as usize <= DELIVERY_SENDERS_UNPROVEN_MAX);
    }
    let all = state.delivery_page(&DeliveryQuery { limit: usize::MAX, ..DeliveryQuery::default() });
    assert_eq!(all.total, owed as u64, "none is lost and none is made twice");
    let keys: BTreeSet<_> =
        all.items.iter().filter(|item| item.replayed_from.is_none()).map(|item| item.delivery.queued).collect();
    assert!(!keys.is_empty());
    let open = all.items.iter().filter(|item| item.delivery.status == DeliveryStatus::Pending).count();
    assert_eq!(open as u64, state.counts().deliveries.pending);
    let mut folded = State::default();
    folded.open_epoch(7);
    log.iter().for_each(|event| folded.replay(event).expect("it follows"));
    folded.finish_replay();
    assert_eq!(everything(&folded), everything(&state), "a fold of the events");
    let mut restored = State::default();
    state.freeze().into_lines().for_each(|line| restored.restore_line(&line).expect("it fits"));
    restored.finish_replay();
    assert_eq!(everything(&restored), everything(&state), "a snapshot");
    assert_eq!(state.counts().deliveries.held, restored.counts().deliveries.held);
}

#[test]
fn no_delivery_is_lost_or_passed_by_another_and_replay_and_snapshot_agree() {
    for seed in seeds(12) {
        one_life(seed);
    }
}

/// A state with one completed run that owes one delivery to each of `targets`; the time is 1.
fn owing(targets: Vec<RunReplyTarget>) -> State {
    let mut state = State::default();
    state.open_epoch(7);
    let session = SessionId::parse("s").expect("legal");
    let submit = Command::SubmitRun {
        session: session.clone(),
        request: RawValue::from_string("{}".to_string()).expect("JSON"),
        route: "main".to_string(),
        model: "m".to_string(),
        idempotency: None,
        reply_targets: targets,
    };
    decide(&mut state, 1, Command::CreateSession { id: session, thread_id: None });
    let Decision::Accepted { run, .. } = decide(&mut state, 1, submit) else { panic!("not accepted") };
    let notes = vec![note(NoteKind::Output, r#"{"output":{"content":"x"}}"#)];
    decide(&mut state, 1, Command::Finish { run, notes, outcome: Outcome::Completed });
    state
}

/// One command as a batch of its own.
fn decide(state: &mut State, now_ms: u64, command: Command) -> Decision {
    let signer = SigningKey::from_seed(&[7; 32]);
    let mut txn = Txn::new(state, now_ms, now_ms).signed_by(&signer);
    let decision = txn.decide(command).expect("legal");
    let (delta, _) = txn.finish();
    state.absorb(delta);
    decision
}

fn settle(state: &mut State, now_ms: u64, job: &DeliveryJob, outcome: AttemptOutcome) {
    let number = job.delivery.id.number;
    let asked = note(NoteKind::ActionRequest, &format!(r#"{{"action":{number},"kind":"k","target":"t"}}"#));
    let told = note(NoteKind::ActionResponse, &format!(r#"{{"action":{number},"outcome":"failed"}}"#));
    decide(state, now_ms, Command::Delivery(Box::new(DeliveryCommand::Begin { number, note: asked })));
    let settle = DeliveryCommand::Settle { number, note: told, outcome, policy: POLICY };
    decide(state, now_ms, Command::Delivery(Box::new(settle)));
}

fn dead() -> AttemptOutcome {
    AttemptOutcome::Dead(DeliveryError { class: "x".to_string(), detail: None, http_status: None })
}

/// An operator's pause is no failure: it used up the attempts, and what waited was dead before it ended.
#[test]
fn what_goes_through_a_connector_waits_while_connectors_are_held_and_uses_no_attempt() {
    let target = |plugin, address: &str| RunReplyTarget { plugin, address: address.to_string() };
    let mut state = owing(vec![target(ReplyPlugin::Slack, "{}"), target(ReplyPlugin::Http, "{}")]);
    let hold = |held| Command::Connector(Box::new(ConnectorCommand::Hold { held, reason: None }));
    decide(&mut state, 10, hold(true));
    let job = state.take_delivery(20).expect("the plain one");
    assert_eq!(job.delivery.target.plugin, ReplyPlugin::Http);
    assert_eq!((state.take_delivery(u64::MAX), state.next_delivery_ms()), (None, None));
    // The same after a restart from a snapshot.
    let mut restored = State::default();
    state.freeze().into_lines().for_each(|line| restored.restore_line(&line).expect("it fits"));
    restored.finish_replay();
    assert_eq!(restored.take_delivery(u64::MAX).map(|job| job.delivery.target.plugin), Some(ReplyPlugin::Http));
    assert_eq!(restored.take_delivery(u64::MAX), None);
    decide(&mut state, 30, hold(false));
    let waited = state.take_delivery(40).expect("the other one");
    assert_eq!((waited.delivery.target.plugin, waited.delivery.attempts), (ReplyPlugin::Slack, 0));
}

/// The oldest dead letters, sent again already, used up each bulk's limit, and it never came to the others.
#[test]
fn dead_letters_that_were_sent_again_are_told_from_those_that_were_not() {
    let target = |number: u32| RunReplyTarget { plugin: ReplyPlugin::Http, address: number.to_string() };
    let mut state = owing((0..2).map(target).collect());
    while let Some(job) = state.take_delivery(100) {
        settle(&mut state, 100, &job, dead());
    }
    let ask = |state: &State, without_replay| {
        let query =
            DeliveryQuery { unresolved_only: true, without_replay, limit: usize::MAX, ..DeliveryQuery::default() };
        state.delivery_page(&query).items.iter().map(|item| item.delivery.id.number).collect::<Vec<_>>()
    };
    assert_eq!(ask(&state, true), [1, 2]);
    let id = state.delivery_page(&DeliveryQuery { limit: 1, ..DeliveryQuery::default() }).items[0].delivery.id;
    decide(&mut state, 200, Command::Delivery(Box::new(DeliveryCommand::Replay { id, force: false })));
    assert_eq!(ask(&state, true), [2], "the first is under way again");
    let job = state.take_delivery(300).expect("the replay");
    settle(&mut state, 300, &job, dead());
    assert_eq!((ask(&state, true), ask(&state, false)), (vec![2, 3], vec![1, 2, 3]), "the replay is dead as well");
}
