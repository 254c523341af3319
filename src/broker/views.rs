//! What may be shown of leases, subjects and revocations.
//! Owns: the JSON shapes of `runtime auth …`.
//! Never: has a field for a token, its digest, or any part of a secret.

use serde::Serialize;

use super::entry::{EndReason, IssuedLease};
use super::ledger::{Ended, Ledger};
use super::slot::{SlotId, SlotStatus};
use super::subject::{Audience, SubjectId};
use crate::limits::LEASE_LIST_MAX;

/// A lease without its token's digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeaseView {
    /// The lease.
    pub id: String,
    /// Its grant.
    pub grant_id: String,
    /// For whom.
    pub subject_id: SubjectId,
    /// On whose behalf.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub acts_for: Vec<SubjectId>,
    /// How often the subject had been revoked by then.
    pub subject_epoch: u64,
    /// What for.
    pub audience: Audience,
    /// The slots with the versions of their secrets.
    pub slots: Vec<LeasedSlot>,
    /// When.
    pub issued_at_ms: u64,
    /// The last millisecond of its life.
    pub expires_at_ms: u64,
}

/// A slot of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeasedSlot {
    /// The slot.
    pub slot_id: SlotId,
    /// The version of its secret.
    pub version: u64,
}

/// `GET /v1/runtime/auth/leases/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeaseStatus {
    /// The lease.
    pub lease: LeaseView,
    /// Somebody took it away.
    pub revoked: bool,
    /// It can be used.
    pub active: bool,
    /// When it ended, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<u64>,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
}

/// `GET /v1/runtime/auth/subjects/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubjectStatus {
    /// The subject.
    pub subject_id: SubjectId,
    /// The word before its colon.
    pub kind: String,
    /// How often it was revoked.
    pub current_epoch: u64,
    /// It gets no credential.
    pub revoked: bool,
    /// Anything was ever seen of it.
    pub known: bool,
    /// Since when it is revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at_ms: Option<u64>,
    /// Words of whoever revoked it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Leases of it, and of those that act for it, by audience.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub active_route_lease_ids: Vec<String>,
    /// As above.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub active_connector_lease_ids: Vec<String>,
    /// As above.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub active_mcp_lease_ids: Vec<String>,
    /// Leases of HTTP hooks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub active_hook_lease_ids: Vec<String>,
}

/// Answer to a subject's revocation: how it stands now, and what fell with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubjectRevocation {
    /// How the subject stands; of a dry run, how it stood.
    #[serde(flatten)]
    pub status: SubjectStatus,
    /// Leases that ended, or would.
    pub revoked_leases: usize,
    /// Their ids, the first [`LEASE_LIST_MAX`].
    pub revoked_lease_ids: Vec<String>,
    /// Subjects that held them.
    pub affected_subjects: Vec<SubjectId>,
    /// Nothing was changed.
    #[serde(skip_serializing_if = "is_false")]
    pub dry_run: bool,
}

/// Answer to a slot's revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotRevocation {
    /// The slot.
    pub slot_id: SlotId,
    /// Leases that ended, or would.
    pub revoked_leases: usize,
    /// The version of the secret that the slot holds.
    pub current_version: u64,
    /// That version gets no lease until the slot is set again.
    pub blocked: bool,
    /// Why it is blocked, or not.
    pub detail: &'static str,
    /// Nothing was changed.
    #[serde(skip_serializing_if = "is_false")]
    pub dry_run: bool,
}

/// Answer to the writing of a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Written {
    /// What may be shown of it.
    #[serde(flatten)]
    pub status: SlotStatus,
    /// The version of its secret.
    pub version: u64,
    /// Leases of the former secret that ended.
    pub revoked_leases: usize,
}

/// A slot with what the broker knows of its use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotState {
    /// What may be shown of it.
    #[serde(flatten)]
    pub status: SlotStatus,
    /// The version of its secret.
    pub version: u64,
    /// It was revoked, and not set since.
    #[serde(skip_serializing_if = "is_false")]
    pub blocked: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// Which leases to show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseFilter {
    /// Only those of this subject, and of those that act for it.
    pub subject: Option<SubjectId>,
    /// Only those with this slot.
    pub slot: Option<SlotId>,
    /// Also those that have ended.
    pub include_ended: bool,
}

impl LeaseFilter {
    fn takes(&self, lease: &IssuedLease) -> bool {
        self.subject.as_ref().is_none_or(|subject| lease.subject.chain().any(|id| id == subject))
            && self.slot.as_ref().is_none_or(|slot| lease.slots.iter().any(|bound| bound.slot == *slot))
    }
}

impl From<&IssuedLease> for LeaseView {
    fn from(lease: &IssuedLease) -> Self {
        let slots = lease.slots.iter();
        Self {
            id: lease.id.clone(),
            grant_id: lease.grant_id.clone(),
            subject_id: lease.subject.id.clone(),
            acts_for: lease.subject.acts_for.clone(),
            subject_epoch: lease.subject_epoch,
            audience: lease.audience.clone(),
            slots: slots.map(|bound| LeasedSlot { slot_id: bound.slot.clone(), version: bound.version }).collect(),
            issued_at_ms: lease.issued_at_ms,
            expires_at_ms: lease.expires_at_ms,
        }
    }
}

fn alive(lease: &IssuedLease) -> LeaseStatus {
    LeaseStatus { lease: lease.into(), revoked: false, active: true, ended_at_ms: None, end_reason: None }
}

fn ended(ended: &Ended) -> LeaseStatus {
    LeaseStatus {
        lease: (&ended.lease).into(),
        revoked: ended.reason.is_revocation(),
        active: false,
        ended_at_ms: Some(ended.at_ms),
        end_reason: Some(ended.reason),
    }
}

impl Ledger {
    /// A lease, alive or ended not too long ago.
    pub(super) fn lease_status(&self, id: &str) -> Option<LeaseStatus> {
        self.alive(id).map(alive).or_else(|| self.ended(id).map(ended))
    }

    /// Leases, newest first, at most [`LEASE_LIST_MAX`].
    pub(super) fn lease_list(&self, filter: &LeaseFilter) -> Vec<LeaseStatus> {
        let mut list: Vec<&IssuedLease> = self.all_alive().filter(|lease| filter.takes(lease)).collect();
        list.sort_unstable_by(|one, other| (other.issued_at_ms, &other.id).cmp(&(one.issued_at_ms, &one.id)));
        let over = self.all_ended().filter(|lease| filter.include_ended && filter.takes(&lease.lease));
        list.into_iter().map(alive).chain(over.map(ended)).take(LEASE_LIST_MAX).collect()
    }

    /// How a subject stands; `known` tells whether others than the ledger know it.
    pub(super) fn subject_status(&self, id: &SubjectId, known: bool) -> SubjectStatus {
        let mark = self.subject(id);
        let mut status = SubjectStatus {
            subject_id: id.clone(),
            kind: id.kind().to_string(),
            current_epoch: mark.map_or(0, |mark| mark.epoch),
            revoked: mark.is_some_and(|mark| mark.revoked_at_ms.is_some()),
            known: known || self.has_seen(id),
            revoked_at_ms: mark.and_then(|mark| mark.revoked_at_ms),
            reason: mark.and_then(|mark| mark.order.reason.clone()),
            active_route_lease_ids: Vec::new(),
            active_connector_lease_ids: Vec::new(),
            active_mcp_lease_ids: Vec::new(),
            active_hook_lease_ids: Vec::new(),
        };
        for lease in self.all_alive().filter(|lease| lease.subject.chain().any(|other| other == id)) {
            let ids = match lease.audience {
                Audience::Route { .. } => &mut status.active_route_lease_ids,
                Audience::Connector { .. } => &mut status.active_connector_lease_ids,
                Audience::McpServer { .. } => &mut status.active_mcp_lease_ids,
                Audience::Hook { .. } => &mut status.active_hook_lease_ids,
            };
            ids.push(lease.id.clone());
        }
        for ids in [
            &mut status.active_route_lease_ids,
            &mut status.active_connector_lease_ids,
            &mut status.active_mcp_lease_ids,
            &mut status.active_hook_lease_ids,
        ] {
            ids.sort_unstable();
        }
        status
    }
}
