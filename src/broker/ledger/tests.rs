//! Tests of the ledger alone: what ends what, and what is remembered.
//! Owns: a few leases to end.
//! Never: ships.

use super::*;
use crate::broker::entry::{BoundSlot, Order};
use crate::broker::subject::Audience;

pub(in crate::broker) fn slot(raw: &str) -> SlotId {
    SlotId::parse(raw).unwrap()
}

/// A route lease of `openai.prod` unless told otherwise.
pub(in crate::broker) fn lease(id: &str, subject: Subject, version: u64) -> IssuedLease {
    IssuedLease {
        id: id.to_string(),
        grant_id: "grant".to_string(),
        subject,
        subject_epoch: 0,
        audience: Audience::Route { route_id: "main".to_string(), slot_id: slot("openai.prod") },
        slots: vec![BoundSlot { slot: slot("openai.prod"), version, env_key: None }],
        token_digest: None,
        issued_at_ms: 1_000,
        expires_at_ms: 61_000,
    }
}

fn ledger(leases: &[IssuedLease]) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.apply(1, &Entry::SlotSet { slot: slot("openai.prod"), version: 1 });
    for lease in leases {
        let version = lease.slots[0].version;
        ledger.apply(1, &Entry::SlotLeased { slot: slot("openai.prod"), version });
        ledger.apply(1, &Entry::LeaseIssued(lease.clone()));
    }
    ledger
}

fn revoked(subject: SubjectId, epoch: u64) -> Entry {
    Entry::SubjectRevoked { subject, epoch, known: true, order: Order::default() }
}

fn agent(agent: &str, session: &str) -> Subject {
    Subject::agent_of(agent, session)
}

#[test]
fn a_revoked_session_takes_its_agents_leases_along_and_no_others() {
    let deep =
        Subject { id: SubjectId::agent("child"), acts_for: vec![SubjectId::agent("a1"), SubjectId::session("s1")] };
    let mut ledger =
        ledger(&[lease("l1", agent("a1", "s1"), 1), lease("l2", agent("a2", "s2"), 1), lease("l3", deep.clone(), 1)]);
    assert_eq!(ledger.apply(5, &revoked(SubjectId::session("s1"), 1)), ["l1", "l3"]);
    assert_eq!(ledger.alive_count(), 1);
    assert_eq!(ledger.ended("l3").map(|ended| (ended.at_ms, ended.reason)), Some((5, EndReason::SubjectRevoked)));
    let none = || std::iter::empty::<(&SlotId, u64)>();
    assert_eq!(ledger.permits(&deep, none()), Err(Refused::Subject(SubjectId::session("s1"))));
    assert_eq!(ledger.permits(&agent("a2", "s2"), none()), Ok(()));
    // A delegating agent in the middle counts as well.
    ledger.apply(6, &Entry::SubjectReinstated { subject: SubjectId::session("s1"), epoch: 1, order: Order::default() });
    assert_eq!(ledger.permits(&deep, none()), Ok(()));
    ledger.apply(7, &revoked(SubjectId::agent("a1"), 1));
    assert_eq!(ledger.permits(&deep, none()), Err(Refused::Subject(SubjectId::agent("a1"))));
}

#[test]
fn a_version_counts_as_leased_unless_it_was_set_under_our_eyes_and_never_leased() {
    let mut ledger = Ledger::default();
    let id = slot("openai.prod");
    assert!(ledger.was_leased(&id, 7), "nothing is known of it");
    ledger.apply(1, &Entry::SlotSet { slot: id.clone(), version: 7 });
    assert!(!ledger.was_leased(&id, 7) && ledger.was_leased(&id, 6) && ledger.was_leased(&id, 8));
    assert!(ledger.is_first_lease(&id, 7));
    ledger.apply(2, &Entry::SlotLeased { slot: id.clone(), version: 7 });
    assert!(ledger.was_leased(&id, 7) && !ledger.is_first_lease(&id, 7) && ledger.is_first_lease(&id, 8));
}

#[test]
fn a_blocked_version_stays_blocked_until_a_higher_one_is_set() {
    let mut ledger = ledger(&[lease("l1", agent("a1", "s1"), 1)]);
    let id = slot("openai.prod");
    let block = |version| Entry::SlotRevoked { slot: id.clone(), blocked_version: version, order: Order::default() };
    assert_eq!(ledger.apply(5, &block(None)), Vec::<String>::new(), "without a block the present version goes on");
    assert_eq!(ledger.apply(6, &block(Some(1))), ["l1"]);
    assert!(ledger.is_blocked(&id, 1) && !ledger.is_blocked(&id, 2));
    // An older store beside a newer log: a version that is not above the blocked one is not trusted.
    ledger.apply(7, &Entry::SlotSet { slot: id.clone(), version: 1 });
    assert!(ledger.is_blocked(&id, 1));
    ledger.apply(8, &Entry::SlotSet { slot: id.clone(), version: 2 });
    assert!(!ledger.is_blocked(&id, 2) && !ledger.is_blocked(&id, 1));
}

#[test]
fn leases_end_by_overwriting_and_deletion_by_expiry_and_by_restart_each_with_its_reason() {
    let mut ledger = ledger(&[
        lease("l1", agent("a1", "s1"), 1),
        lease("l2", agent("a1", "s1"), 2),
        lease("l3", agent("a1", "s1"), 3),
    ]);
    assert_eq!(ledger.apply(5, &Entry::SlotSet { slot: slot("openai.prod"), version: 2 }), ["l1"]);
    assert_eq!(ledger.apply(6, &Entry::LeaseEnded { lease: "l2".into(), reason: EndReason::Released }), ["l2"]);
    assert_eq!(
        ledger.apply(7, &Entry::LeaseEnded { lease: "l2".into(), reason: EndReason::Released }),
        Vec::<String>::new()
    );
    assert_eq!(ledger.forget_expired(61_000), Vec::<String>::new(), "alive through its last millisecond");
    assert_eq!(ledger.forget_expired(61_001), ["l3"]);
    let reasons = ["l1", "l2", "l3"].map(|id| ledger.ended(id).map(|ended| ended.reason));
    assert_eq!(reasons, [EndReason::SlotOverwritten, EndReason::Released, EndReason::Expired].map(Some));

    let mut old = lease("old", agent("a1", "s1"), 1);
    old.expires_at_ms = 2_000;
    let mut ledger = self::ledger(&[old, lease("l1", agent("a1", "s1"), 1)]);
    assert_eq!(ledger.apply(3_000, &Entry::DaemonStarted), ["l1"]);
    assert_eq!(ledger.ended("old").map(|ended| (ended.at_ms, ended.reason)), Some((2_000, EndReason::Expired)));
    assert_eq!(ledger.ended("l1").map(|ended| ended.reason), Some(EndReason::Restart));
}

#[test]
fn ended_leases_are_kept_for_a_day_and_not_more_than_their_number() {
    let mut ledger = ledger(&[]);
    for number in 0..=LEASE_HISTORY_MAX {
        let id = format!("l{number}");
        ledger.apply(1, &Entry::LeaseIssued(lease(&id, agent("a1", "s1"), 1)));
        ledger.apply(10_000, &Entry::LeaseEnded { lease: id, reason: EndReason::Released });
    }
    assert!(ledger.ended("l0").is_none() && ledger.ended("l1").is_some());
    assert_eq!(ledger.all_ended().count(), LEASE_HISTORY_MAX);
    ledger.forget_expired(10_000 + LEASE_HISTORY_MS_MAX);
    assert_eq!(ledger.all_ended().count(), LEASE_HISTORY_MAX);
    ledger.forget_expired(10_001 + LEASE_HISTORY_MS_MAX);
    assert_eq!((ledger.all_ended().count(), ledger.ended.len()), (0, 0));
}

#[test]
fn revoked_subjects_are_bounded_and_reinstated_ones_make_room() {
    let mut ledger = Ledger::default();
    for number in 0..REVOKED_SUBJECTS_MAX {
        ledger.apply(1, &revoked(SubjectId::session(number), 1));
    }
    assert!(!ledger.has_room_for(&SubjectId::session("more")) && ledger.has_room_for(&SubjectId::session(7)));
    ledger.apply(2, &Entry::SubjectReinstated { subject: SubjectId::session(7), epoch: 1, order: Order::default() });
    assert!(ledger.has_room_for(&SubjectId::session("more")));
    ledger.apply(3, &revoked(SubjectId::session("more"), 1));
    assert!(!ledger.has_room_for(&SubjectId::session(7)));
}

#[test]
fn a_token_leads_to_its_lease_while_that_lives() {
    let mut ledger = Ledger::default();
    let mut issued = lease("l1", Subject::alone(SubjectId::connector("hook")), 1);
    issued.token_digest = Some("digest".to_string());
    ledger.apply(1, &Entry::LeaseIssued(issued));
    assert_eq!(ledger.by_token("digest").map(|lease| lease.id.as_str()), Some("l1"));
    ledger.apply(2, &Entry::LeaseRevoked { lease: "l1".to_string(), order: Order::default() });
    assert!(ledger.by_token("digest").is_none() && ledger.by_token.is_empty());
}
