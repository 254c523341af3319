//! Revocations: what falls, what is blocked from then on, and what lifts it again.
//! Owns: the meaning of revoke-lease, revoke-slot, revoke-subject and reinstate-subject.
//! May touch: ledger and log; the in-flight calls of leases that end.
//! Never: waits to take effect until it is recorded, or claims to be recorded when it is not.

use super::actor::Actor;
use super::entry::{Entry, IssuedLease, Order};
use super::error::BrokerError;
use super::ledger::uses;
use super::slot::SlotId;
use super::subject::SubjectId;
use super::views::{LeaseFilter, LeaseStatus, SlotRevocation, SubjectRevocation, SubjectStatus};
use crate::actor::Actor as Caller;
use crate::limits::{LEASE_LIST_MAX, REVOCATION_REASON_BYTES_MAX};

/// What goes along with a revocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocation {
    /// Only tell what would fall.
    pub dry_run: bool,
    /// Of a slot: end the leases of former versions, and leave the present one usable.
    pub keep_current: bool,
    /// Others than the broker know the subject.
    pub known: bool,
    /// Words for the record.
    pub reason: Option<String>,
    /// The API caller.
    pub by: Option<Caller>,
}

impl Revocation {
    fn order(&self) -> Order {
        let reason = self.reason.clone().map(|mut reason| {
            let longest = reason.len().min(REVOCATION_REASON_BYTES_MAX);
            let end = (0..=longest).rev().find(|end| reason.is_char_boundary(*end));
            reason.truncate(end.unwrap_or(0));
            reason
        });
        let by = self.by.as_ref().map(|by| serde_json::to_value(by).expect("a caller is text and numbers"));
        Order { reason, by }
    }
}

impl Actor {
    /// The status of a subject; `None` when nobody knows it.
    pub(super) fn subject(&mut self, id: &SubjectId, known: bool, now_ms: u64) -> Option<SubjectStatus> {
        self.ledger.forget_expired(now_ms);
        let status = self.ledger.subject_status(id, known);
        (status.known || status.revoked || status.current_epoch > 0).then_some(status)
    }

    /// Subjects that are revoked or hold leases, sorted, at most [`LEASE_LIST_MAX`].
    pub(super) fn subjects(&mut self, now_ms: u64) -> Vec<SubjectStatus> {
        self.ledger.forget_expired(now_ms);
        let mut ids: Vec<SubjectId> = self.ledger.subjects().map(|(id, _)| id.clone()).collect();
        ids.extend(self.ledger.all_alive().flat_map(|lease| lease.subject.chain().cloned()));
        ids.sort_unstable();
        ids.dedup();
        ids.truncate(LEASE_LIST_MAX);
        ids.iter().map(|id| self.ledger.subject_status(id, false)).collect()
    }

    pub(super) fn lease_status(&mut self, id: &str, now_ms: u64) -> Option<LeaseStatus> {
        self.ledger.forget_expired(now_ms);
        self.ledger.lease_status(id)
    }

    pub(super) fn leases(&mut self, filter: &LeaseFilter, now_ms: u64) -> Vec<LeaseStatus> {
        self.ledger.forget_expired(now_ms);
        self.ledger.lease_list(filter)
    }

    /// Ends one lease. One that has ended already is shown as it is.
    pub(super) fn revoke_lease(&mut self, id: &str, how: &Revocation, now_ms: u64) -> Result<LeaseStatus, BrokerError> {
        self.ledger.forget_expired(now_ms);
        let unknown = || BrokerError::LeaseUnknown { id: id.to_string() };
        if self.ledger.alive(id).is_some() && !how.dry_run {
            let entry = Entry::LeaseRevoked { lease: id.to_string(), order: how.order() };
            self.enforce(&entry, || format!("the revocation of {id}"))?;
            log::warn!("{id} revoked");
        }
        self.ledger.lease_status(id).ok_or_else(unknown)
    }

    /// Ends every lease of a slot. The version that it holds is blocked if it may have been seen by others.
    pub(super) fn revoke_slot(
        &mut self,
        slot: &SlotId,
        how: &Revocation,
        now_ms: u64,
    ) -> Result<SlotRevocation, BrokerError> {
        self.ledger.forget_expired(now_ms);
        let Some(entry) = self.store.entry(slot) else { return Err(BrokerError::SlotMissing { slot: slot.clone() }) };
        let current_version = entry.version;
        let was_leased = self.ledger.was_leased(slot, current_version);
        let blocks = was_leased && !how.keep_current;
        let mut answer = SlotRevocation {
            slot_id: slot.clone(),
            revoked_leases: 0,
            current_version,
            blocked: blocks,
            detail: match (was_leased, how.keep_current) {
                (false, _) => {
                    "the present secret was set after the last lease and has not been leased: it stays usable"
                }
                (true, true) => "the present secret stays usable, as asked for; leases of former ones have ended",
                (true, false) => "the present secret has been leased: it gets no lease until the slot is set again",
            },
            dry_run: how.dry_run,
        };
        if how.dry_run {
            answer.revoked_leases = self.ledger.all_alive().filter(|lease| blocks && uses(lease, slot)).count();
            return Ok(answer);
        }
        let blocked_version = blocks.then_some(current_version);
        let entry = Entry::SlotRevoked { slot: slot.clone(), blocked_version, order: how.order() };
        if blocks {
            self.drop_account(slot);
        }
        answer.revoked_leases = self.enforce(&entry, || format!("the revocation of slot {slot}"))?.len();
        log::warn!("slot {slot} revoked: {} leases, blocked: {blocks}", answer.revoked_leases);
        Ok(answer)
    }

    /// Ends the leases of a subject and of those that act for it, and gives them no other ones.
    pub(super) fn revoke_subject(
        &mut self,
        id: &SubjectId,
        how: &Revocation,
        now_ms: u64,
    ) -> Result<SubjectRevocation, BrokerError> {
        self.ledger.forget_expired(now_ms);
        let mut fallen: Vec<&IssuedLease> =
            self.ledger.all_alive().filter(|lease| lease.subject.chain().any(|other| other == id)).collect();
        fallen.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        let mut affected_subjects: Vec<SubjectId> = fallen.iter().map(|lease| lease.subject.id.clone()).collect();
        affected_subjects.sort_unstable();
        affected_subjects.dedup();
        affected_subjects.truncate(LEASE_LIST_MAX);
        let revoked_leases = fallen.len();
        let revoked_lease_ids = fallen.into_iter().take(LEASE_LIST_MAX).map(|lease| lease.id.clone()).collect();
        if !how.dry_run {
            if !self.ledger.has_room_for(id) {
                return Err(BrokerError::SubjectsFull);
            }
            let known = how.known || self.ledger.has_seen(id);
            let epoch = self.ledger.subject(id).map_or(0, |mark| mark.epoch) + 1;
            let entry = Entry::SubjectRevoked { subject: id.clone(), epoch, known, order: how.order() };
            self.enforce(&entry, || format!("the revocation of {id}"))?;
            log::warn!("{id} revoked: {revoked_leases} leases");
        }
        let status = self.ledger.subject_status(id, how.known);
        Ok(SubjectRevocation { status, revoked_leases, revoked_lease_ids, affected_subjects, dry_run: how.dry_run })
    }

    /// Lets a subject have credentials again; leases that ended stay ended.
    pub(super) fn reinstate_subject(
        &mut self,
        id: &SubjectId,
        how: &Revocation,
        now_ms: u64,
    ) -> Result<Option<SubjectStatus>, BrokerError> {
        let Some(mark) = self.ledger.subject(id) else { return Ok(self.subject(id, how.known, now_ms)) };
        if mark.revoked_at_ms.is_some() {
            let entry = Entry::SubjectReinstated { subject: id.clone(), epoch: mark.epoch, order: how.order() };
            let at_ms = self.clock.now_ms();
            // The other way round than a revocation: it must not take effect before it is recorded.
            self.log.append(at_ms, &entry)?;
            self.ledger.apply(at_ms, &entry);
            self.republish();
            log::warn!("{id} reinstated");
        }
        Ok(self.subject(id, how.known, now_ms))
    }

    /// A revocation takes effect at once, also when it cannot be recorded; only then is it recorded and answered.
    fn enforce(&mut self, entry: &Entry, what: impl FnOnce() -> String) -> Result<Vec<String>, BrokerError> {
        let at_ms = self.clock.now_ms();
        let ended = self.ledger.apply(at_ms, entry);
        self.shared.watches.end(&ended);
        self.republish();
        self.log.append(at_ms, entry).map_err(|error| {
            let what = what();
            log::error!("{what} is in force and was not recorded: {error}");
            BrokerError::NotRecorded { what, error }
        })?;
        Ok(ended)
    }
}
