//! Why the broker refused.
//! Owns: the variants and their wording.
//! Never: holds a part of a secret.

use std::fmt;

use super::log::BrokerLogError;
use super::slot::{Provider, SlotId};
use super::store::StoreError;
use super::subject::SubjectId;
use crate::limits::{
    BROKER_MAILBOX_MAX, BROKER_REPLY_MS_MAX, LEASE_SLOTS_MAX, LEASE_TEXT_BYTES_MAX, REVOKED_SUBJECTS_MAX,
};

/// Why the broker refused.
#[derive(Debug)]
#[allow(missing_docs, reason = "each variant's line says what its fields hold")]
pub enum BrokerError {
    /// The mailbox is full.
    Busy,
    /// The broker's thread has ended.
    Gone,
    /// No answer in time; a change may still take place.
    NoAnswer,
    /// There is no such slot.
    SlotMissing { slot: SlotId },
    /// The slot is still named by these.
    SlotReferenced { slot: SlotId, by: Vec<String> },
    /// The slot was revoked, and not set since.
    SlotRevoked { slot: SlotId },
    /// The slot holds another provider's credential.
    ProviderMismatch { slot: SlotId, has: Provider, needs: Provider },
    /// The slot holds no account.
    NotAnAccount { slot: SlotId },
    /// The request for a lease is out of bounds.
    LeaseText,
    /// Too many leases are alive.
    LeasesFull,
    /// The subject, or `revoked` for which it acts, was revoked.
    SubjectRevoked { subject: SubjectId, revoked: SubjectId },
    /// As many revoked subjects are remembered as may be.
    SubjectsFull,
    /// The lease was not issued by this broker, or was given back.
    LeaseUnknown { id: String },
    /// The lease has expired.
    LeaseExpired { id: String },
    /// The lease was taken away; `reason` tells by what, in words.
    LeaseRevoked { id: String, slot: SlotId, reason: &'static str },
    /// The account's token has ended and no other one could be got.
    RefreshFailed { slot: SlotId, class: &'static str, reason: String, retry_after_ms: Option<u64> },
    /// The revocation is in force and was not recorded, so that a restart would lift it.
    NotRecorded { what: String, error: BrokerLogError },
    /// The log refused.
    Log(BrokerLogError),
    /// The store refused.
    Store(StoreError),
}

impl BrokerError {
    /// Whether the broker itself did not decide, so that asking again may help.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Busy | Self::NoAnswer)
    }
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => {
                write!(f, "{BROKER_MAILBOX_MAX} commands wait for the credential broker; next: try again in a moment")
            }
            Self::Gone => write!(f, "the credential broker has stopped; next: restart the daemon and read its log"),
            Self::NoAnswer => write!(
                f,
                "the credential broker gave no answer within {BROKER_REPLY_MS_MAX} ms; next: check the disk of \
                 the state root, and look at the slot before a change is tried again"
            ),
            Self::SlotMissing { slot } => {
                write!(f, "slot {slot} does not exist; next: kheish-daemon secrets set {slot}")
            }
            Self::SlotReferenced { slot, by } => write!(
                f,
                "slot {slot} is still referenced by {}; next: point these at another slot first, or overwrite the slot",
                by.join(", ")
            ),
            Self::SlotRevoked { slot } => write!(
                f,
                "slot {slot} was revoked and holds the same secret still; next: rotate it at its issuer, then \
                 kheish-daemon secrets set {slot}"
            ),
            Self::ProviderMismatch { slot, has, needs } => write!(
                f,
                "slot {slot} holds a credential of {has}, and {needs} is needed; \
                 next: kheish-daemon secrets set {slot} --provider {needs}, or name another slot"
            ),
            Self::NotAnAccount { slot } => {
                write!(f, "slot {slot} holds no account that could be refreshed; next: name a slot below mcp.oauth.")
            }
            Self::LeaseText => write!(
                f,
                "subject and audience of a lease have 1 to {LEASE_TEXT_BYTES_MAX} bytes, and a lease has at most \
                 {LEASE_SLOTS_MAX} slots; next: shorten the id, or ask for less"
            ),
            Self::LeasesFull => write!(f, "too many leases are alive; next: try again when some have expired"),
            Self::SubjectRevoked { subject, revoked } if subject == revoked => write!(
                f,
                "{subject} is revoked and gets no credential; next: when it may have one again, kheish-daemon runtime \
                 auth reinstate-subject {revoked}"
            ),
            Self::SubjectRevoked { subject, revoked } => write!(
                f,
                "{subject} acts for {revoked}, which is revoked, and gets no credential; next: when it may have one \
                 again, kheish-daemon runtime auth reinstate-subject {revoked}"
            ),
            Self::SubjectsFull => write!(
                f,
                "{REVOKED_SUBJECTS_MAX} subjects are revoked already; next: reinstate those that are gone for good \
                 (kheish-daemon runtime auth reinstate-subject), or revoke the slot"
            ),
            Self::LeaseUnknown { id } => write!(f, "{id} is not a live lease; next: ask for a new one"),
            Self::LeaseExpired { id } => write!(f, "{id} has expired; next: ask for a new one"),
            Self::LeaseRevoked { id, slot, reason } => {
                write!(f, "{id} of slot {slot} is revoked, since {reason}; next: ask for a new one")
            }
            Self::RefreshFailed { slot, class, reason, retry_after_ms: Some(ms) } => write!(
                f,
                "the token of account {slot} has ended and could not be refreshed ({class}): {reason}; next: it is tried \
                 again in {ms} ms; check the authorization server"
            ),
            Self::RefreshFailed { slot, class, reason, retry_after_ms: None } => write!(
                f,
                "the token of account {slot} has ended and could not be refreshed ({class}): {reason}; next: log in again"
            ),
            Self::NotRecorded { what, error } => write!(
                f,
                "{what} is in force in this process and could not be recorded, so that a restart would lift it: {error}, \
                 then revoke again"
            ),
            Self::Log(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BrokerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::Log(error) | Self::NotRecorded { error, .. } => Some(error),
            _ => None,
        }
    }
}

impl From<StoreError> for BrokerError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<BrokerLogError> for BrokerError {
    fn from(error: BrokerLogError) -> Self {
        Self::Log(error)
    }
}
