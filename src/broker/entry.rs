//! What `auth/broker.jsonl` tells: one entry a line, in the order in which things happened.
//! Owns: the JSON forms of the entries. docs/secrets.md lists them.
//! May touch: nothing; it is data.
//! Never: holds a secret or a token; of a token there is a digest.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::slot::SlotId;
use super::subject::{Audience, Subject, SubjectId};

/// A lease as it was issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedLease {
    /// Names the lease everywhere.
    pub id: String,
    /// Names what was granted: the same subject, audience and epoch give the same grant.
    pub grant_id: String,
    /// For whom.
    #[serde(flatten)]
    pub subject: Subject,
    /// How often the subject had been revoked by then.
    pub subject_epoch: u64,
    /// What for.
    pub audience: Audience,
    /// The slots with the versions of their secrets.
    pub slots: Vec<BoundSlot>,
    /// SHA-256 of the token that stands for the lease outside of this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_digest: Option<String>,
    /// When.
    pub issued_at_ms: u64,
    /// The last millisecond of its life.
    pub expires_at_ms: u64,
}

/// A slot in a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundSlot {
    /// Which slot.
    pub slot: SlotId,
    /// Which version of its secret.
    pub version: u64,
    /// Under which name a sidecar asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_key: Option<String>,
}

/// Why a lease is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Its user gave it back.
    Released,
    /// Its time was up.
    Expired,
    /// The daemon ended.
    Restart,
    /// It was revoked by its id.
    LeaseRevoked,
    /// Its subject, or one that the subject acts for, was revoked.
    SubjectRevoked,
    /// A slot of it was revoked.
    SlotRevoked,
    /// A slot of it was overwritten.
    SlotOverwritten,
    /// A slot of it was deleted.
    SlotDeleted,
}

impl EndReason {
    /// Whether somebody took the lease away.
    pub fn is_revocation(self) -> bool {
        !matches!(self, Self::Released | Self::Expired | Self::Restart)
    }
}

/// Who ordered a revocation, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Order {
    /// Words for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// The API caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) by: Option<Value>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub(super) enum Entry {
    /// The first line of a file; `previous` is the chain value of its predecessor's last line, `version_max` the highest
    /// version of a slot that was ever heard of.
    #[serde(rename = "log.opened")]
    LogOpened {
        format: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous: Option<String>,
        version_max: u64,
    },
    /// A daemon began: the leases of its predecessor are over.
    #[serde(rename = "daemon.started")]
    DaemonStarted,
    /// A slot was created or overwritten.
    #[serde(rename = "slot.set")]
    SlotSet { slot: SlotId, version: u64 },
    /// A slot was deleted.
    #[serde(rename = "slot.deleted")]
    SlotDeleted { slot: SlotId },
    /// The first lease of a version is about to be issued: from now on it counts as known to others.
    #[serde(rename = "slot.leased")]
    SlotLeased { slot: SlotId, version: u64 },
    /// A slot was revoked; `blocked_version` is not leased any more.
    #[serde(rename = "slot.revoked")]
    SlotRevoked {
        slot: SlotId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        blocked_version: Option<u64>,
        #[serde(flatten)]
        order: Order,
    },
    /// A subject was revoked, for the `epoch`th time.
    #[serde(rename = "subject.revoked")]
    SubjectRevoked {
        subject: SubjectId,
        epoch: u64,
        known: bool,
        #[serde(flatten)]
        order: Order,
    },
    /// A subject may have credentials again.
    #[serde(rename = "subject.reinstated")]
    SubjectReinstated {
        subject: SubjectId,
        epoch: u64,
        #[serde(flatten)]
        order: Order,
    },
    /// A lease was revoked by its id.
    #[serde(rename = "lease.revoked")]
    LeaseRevoked {
        lease: String,
        #[serde(flatten)]
        order: Order,
    },
    /// A lease was issued.
    #[serde(rename = "lease.issued")]
    LeaseIssued(IssuedLease),
    /// A lease ended for a reason that no other line implies. In a rewritten file also for those that do.
    #[serde(rename = "lease.ended")]
    LeaseEnded { lease: String, reason: EndReason },
    /// An account's token was refreshed, or not.
    #[serde(rename = "account.refreshed")]
    AccountRefreshed { slot: SlotId, outcome: String },
}

impl Entry {
    /// Whether the answer to whoever caused it waits for the disk.
    pub(super) fn is_durable(&self) -> bool {
        matches!(
            self,
            Self::SlotLeased { .. }
                | Self::SlotRevoked { .. }
                | Self::SubjectRevoked { .. }
                | Self::SubjectReinstated { .. }
                | Self::LeaseRevoked { .. }
        )
    }
}
