//! Leases, grants and revocations: who may use which version of which slot, and who could.
//! Owns: the fold of the broker's log. The same code replays entries and makes new ones take effect.
//! May touch: nothing outside its arguments; time is handed in.
//! Never: holds a secret; forgets a revocation.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::entry::{EndReason, Entry, IssuedLease, Order};
use super::slot::SlotId;
use super::subject::{Subject, SubjectId};
use crate::limits::{LEASE_HISTORY_MAX, LEASE_HISTORY_MS_MAX, LEASES_MAX, REVOKED_SUBJECTS_MAX};

/// What is known of a subject beyond its leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SubjectMark {
    /// How often it was revoked.
    pub(super) epoch: u64,
    /// Since when it is revoked; `None` after it was reinstated.
    pub(super) revoked_at_ms: Option<u64>,
    /// Whether anything was known of it when it was revoked.
    pub(super) known: bool,
    /// Who revoked it, and why.
    pub(super) order: Order,
}

/// A slot of which a version is not leased any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SlotBlock {
    pub(super) version: u64,
    pub(super) at_ms: u64,
    pub(super) order: Order,
}

/// What is known of a slot beyond its leases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SlotMark {
    /// The version that was set under our eyes and never leased since. Any other one counts as leased.
    pub(super) fresh_version: Option<u64>,
    /// The newest version whose leasing was made durable, so that it is made so once.
    pub(super) leased_version: u64,
    pub(super) block: Option<SlotBlock>,
}

/// A lease that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) lease: IssuedLease,
    pub(super) at_ms: u64,
    pub(super) reason: EndReason,
}

/// Why no lease can be issued, as far as the ledger knows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    Subject(SubjectId),
    Slot(SlotId),
}

/// The fold of the log.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    alive: HashMap<String, IssuedLease>,
    by_expiry: BTreeSet<(u64, String)>,
    by_token: HashMap<String, String>,
    ended: HashMap<String, Ended>,
    /// Ids of `ended`, oldest first.
    ended_order: VecDeque<String>,
    subjects: BTreeMap<SubjectId, SubjectMark>,
    slots: BTreeMap<SlotId, SlotMark>,
    /// The highest version of any slot that was ever heard of.
    version_max: u64,
}

impl Ledger {
    /// Makes `entry` take effect; the ids of the leases that it ends.
    pub(super) fn apply(&mut self, at_ms: u64, entry: &Entry) -> Vec<String> {
        match entry {
            Entry::LogOpened { version_max, .. } => {
                self.version_max = self.version_max.max(*version_max);
                Vec::new()
            }
            Entry::AccountRefreshed { .. } => Vec::new(),
            Entry::DaemonStarted => {
                self.forget_expired(at_ms);
                self.end_where(at_ms, EndReason::Restart, |_| true)
            }
            Entry::SlotSet { slot, version } => {
                self.version_max = self.version_max.max(*version);
                let mark = self.slots.entry(slot.clone()).or_default();
                mark.fresh_version = Some(*version);
                if mark.block.as_ref().is_some_and(|block| block.version < *version) {
                    mark.block = None;
                }
                let is_older =
                    |lease: &IssuedLease| lease.slots.iter().any(|b| b.slot == *slot && b.version < *version);
                self.end_where(at_ms, EndReason::SlotOverwritten, is_older)
            }
            Entry::SlotDeleted { slot } => {
                self.slots.remove(slot);
                self.end_where(at_ms, EndReason::SlotDeleted, |lease| uses(lease, slot))
            }
            Entry::SlotLeased { slot, version } => {
                self.version_max = self.version_max.max(*version);
                let mark = self.slots.entry(slot.clone()).or_default();
                mark.fresh_version = mark.fresh_version.filter(|fresh| fresh != version);
                mark.leased_version = mark.leased_version.max(*version);
                Vec::new()
            }
            Entry::SlotRevoked { slot, blocked_version, order } => {
                if let Some(version) = *blocked_version {
                    self.version_max = self.version_max.max(version);
                    let block = SlotBlock { version, at_ms, order: order.clone() };
                    self.slots.entry(slot.clone()).or_default().block = Some(block);
                }
                // Without a block the present version was never leased, or is to be kept.
                let ends = |lease: &IssuedLease| match blocked_version {
                    Some(_) => uses(lease, slot),
                    None => false,
                };
                self.end_where(at_ms, EndReason::SlotRevoked, ends)
            }
            Entry::SubjectRevoked { subject, epoch, known, order } => {
                let mark =
                    SubjectMark { epoch: *epoch, revoked_at_ms: Some(at_ms), known: *known, order: order.clone() };
                self.subjects.insert(subject.clone(), mark);
                self.end_where(at_ms, EndReason::SubjectRevoked, |lease| lease.subject.chain().any(|id| id == subject))
            }
            Entry::SubjectReinstated { subject, epoch, .. } => {
                let mark = SubjectMark { epoch: *epoch, revoked_at_ms: None, known: true, order: Order::default() };
                self.subjects.insert(subject.clone(), mark);
                self.forget_reinstated();
                Vec::new()
            }
            Entry::LeaseRevoked { lease, .. } => self.end(at_ms, lease, EndReason::LeaseRevoked).into_iter().collect(),
            Entry::LeaseIssued(lease) => {
                self.by_expiry.insert((lease.expires_at_ms, lease.id.clone()));
                if let Some(digest) = &lease.token_digest {
                    self.by_token.insert(digest.clone(), lease.id.clone());
                }
                self.alive.insert(lease.id.clone(), lease.clone());
                Vec::new()
            }
            Entry::LeaseEnded { lease, reason } => self.end(at_ms, lease, *reason).into_iter().collect(),
        }
    }

    /// Whether `subject` may have a lease of these slots at these versions.
    pub(super) fn permits<'a>(
        &self,
        subject: &Subject,
        mut slots: impl Iterator<Item = (&'a SlotId, u64)>,
    ) -> Result<(), Refused> {
        if let Some(revoked) = self.revoked_in(subject) {
            return Err(Refused::Subject(revoked.clone()));
        }
        if let Some((slot, _)) = slots.find(|(slot, version)| self.is_blocked(slot, *version)) {
            return Err(Refused::Slot(slot.clone()));
        }
        if self.alive.len() >= LEASES_MAX { Err(Refused::Full) } else { Ok(()) }
    }

    /// The revoked one of a subject and those it acts for.
    pub(super) fn revoked_in<'a>(&self, subject: &'a Subject) -> Option<&'a SubjectId> {
        subject.chain().find(|id| self.subjects.get(id).is_some_and(|mark| mark.revoked_at_ms.is_some()))
    }

    /// Whether this version of the slot is blocked.
    pub(super) fn is_blocked(&self, slot: &SlotId, version: u64) -> bool {
        self.block(slot, version).is_some()
    }

    /// The block of this version of the slot.
    pub(super) fn block(&self, slot: &SlotId, version: u64) -> Option<&SlotBlock> {
        self.slots.get(slot)?.block.as_ref().filter(|block| version <= block.version)
    }

    /// Whether this version may have been seen by others than the store.
    pub(super) fn was_leased(&self, slot: &SlotId, version: u64) -> bool {
        self.slots.get(slot).is_none_or(|mark| mark.fresh_version != Some(version))
    }

    /// Whether it still has to be made durable that this version is leased.
    pub(super) fn is_first_lease(&self, slot: &SlotId, version: u64) -> bool {
        self.slots.get(slot).is_none_or(|mark| mark.leased_version < version)
    }

    /// The highest version of any slot that was ever heard of.
    pub(super) fn version_max(&self) -> u64 {
        self.version_max
    }

    pub(super) fn alive(&self, id: &str) -> Option<&IssuedLease> {
        self.alive.get(id)
    }

    pub(super) fn ended(&self, id: &str) -> Option<&Ended> {
        self.ended.get(id)
    }

    pub(super) fn by_token(&self, digest: &str) -> Option<&IssuedLease> {
        self.alive.get(self.by_token.get(digest)?)
    }

    pub(super) fn alive_count(&self) -> usize {
        self.alive.len()
    }

    /// Leases alive, in no order.
    pub(super) fn all_alive(&self) -> impl Iterator<Item = &IssuedLease> {
        self.alive.values()
    }

    /// Leases that are over, newest first.
    pub(super) fn all_ended(&self) -> impl Iterator<Item = &Ended> {
        self.ended_order.iter().rev().filter_map(|id| self.ended.get(id))
    }

    pub(super) fn subject(&self, id: &SubjectId) -> Option<&SubjectMark> {
        self.subjects.get(id)
    }

    pub(super) fn subjects(&self) -> impl Iterator<Item = (&SubjectId, &SubjectMark)> {
        self.subjects.iter()
    }

    pub(super) fn slot_marks(&self) -> impl Iterator<Item = (&SlotId, &SlotMark)> {
        self.slots.iter()
    }

    /// Whether one more subject can be remembered as revoked.
    pub(super) fn has_room_for(&self, subject: &SubjectId) -> bool {
        self.subjects.get(subject).is_some_and(|mark| mark.revoked_at_ms.is_some())
            || self.subjects.values().filter(|mark| mark.revoked_at_ms.is_some()).count() < REVOKED_SUBJECTS_MAX
    }

    /// Whether a lease of this subject, or one for it, was seen.
    pub(super) fn has_seen(&self, subject: &SubjectId) -> bool {
        let names = |lease: &IssuedLease| lease.subject.chain().any(|id| id == subject);
        self.alive.values().any(names)
            || self.ended.values().any(|ended| names(&ended.lease))
            || self.subjects.get(subject).is_some_and(|mark| mark.known)
    }

    /// Ends what has expired by `now_ms`, and forgets what ended long ago.
    pub(super) fn forget_expired(&mut self, now_ms: u64) -> Vec<String> {
        let mut expired = Vec::new();
        while let Some((expires_at_ms, id)) = self.by_expiry.first().filter(|(at_ms, _)| *at_ms < now_ms).cloned() {
            self.end(expires_at_ms, &id, EndReason::Expired);
            expired.push(id);
        }
        let is_old = |at_ms: u64| at_ms.saturating_add(LEASE_HISTORY_MS_MAX) < now_ms;
        while self.ended_order.front().is_some_and(|id| self.ended.get(id).is_none_or(|ended| is_old(ended.at_ms))) {
            if let Some(id) = self.ended_order.pop_front() {
                self.ended.remove(&id);
            }
        }
        expired
    }

    fn end_where(&mut self, at_ms: u64, reason: EndReason, ends: impl Fn(&IssuedLease) -> bool) -> Vec<String> {
        let mut ids: Vec<String> =
            self.alive.values().filter(|lease| ends(lease)).map(|lease| lease.id.clone()).collect();
        ids.sort_unstable();
        ids.iter().for_each(|id| drop(self.end(at_ms, id, reason)));
        ids
    }

    fn end(&mut self, at_ms: u64, id: &str, reason: EndReason) -> Option<String> {
        let lease = self.alive.remove(id)?;
        self.by_expiry.remove(&(lease.expires_at_ms, lease.id.clone()));
        if let Some(digest) = &lease.token_digest {
            self.by_token.remove(digest);
        }
        if self.ended_order.len() >= LEASE_HISTORY_MAX
            && let Some(oldest) = self.ended_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
        self.ended_order.push_back(id.to_string());
        self.ended.insert(id.to_string(), Ended { lease, at_ms, reason });
        Some(id.to_string())
    }

    /// A reinstated subject is kept for its epoch alone, so the first ones go when there is no room.
    fn forget_reinstated(&mut self) {
        while self.subjects.len() > REVOKED_SUBJECTS_MAX {
            let reinstated = self.subjects.iter().find(|(_, mark)| mark.revoked_at_ms.is_none());
            let Some(id) = reinstated.map(|(id, _)| id.clone()) else { return };
            self.subjects.remove(&id);
        }
    }
}

/// Whether a lease is for the slot.
pub(super) fn uses(lease: &IssuedLease, slot: &SlotId) -> bool {
    lease.slots.iter().any(|bound| bound.slot == *slot)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) use tests::{lease, slot};
