//! Deliveries in the core, from seeds: none is lost or made twice, a target has one in flight and in order, and a fold of
//! the events and a snapshot tell the same as the live state.

#[path = "support/rng.rs"]
mod rng;

use std::collections::{BTreeMap, BTreeSet};

use kheish_daemon::audit::key::SigningKey;
use kheish_daemon::core::{
    AttemptOutcome, Command, Decision, DeliveryCommand, DeliveryError, DeliveryJob, DeliveryPolicy, DeliveryQuery,
    DeliveryStatus, Event, Note, NoteKind, Outcome, ReplyPlugin, RunReplyTarget, State, TargetKey, Txn,
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
