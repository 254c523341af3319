//! External actions of the daemon itself: what it sends without an active run that would record it.
//! Owns: the drafts of their two records, and that the first is durable before anything is sent.
//! May touch: the core.
//! Never: sends anything; retries.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::handle::{CommandError, CoreHandle};
use crate::core::{Command, Decision, Note, NoteKind};
use crate::ids::{RunId, Seq};
use crate::limits::OWN_ACTION_RECORD_MS_MAX;

/// What is known of an action before its bytes leave. Every member lands in the signed record as it is.
#[derive(Debug, Serialize)]
pub struct OwnRequest<'a> {
    /// `oauth`, `hook`, `connector_delivery`, `mcp`.
    pub kind: &'a str,
    /// Method and address, without query or credential.
    pub target: &'a str,
    /// The broker's lease; absent where no credential is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<&'a str>,
    /// SHA-256 of the request body, hex; left out where the body holds a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_digest: Option<&'a str>,
    /// What the kind has beyond that; an object, merged into the record.
    #[serde(flatten)]
    pub detail: Value,
}

/// What is known of an action after it.
#[derive(Debug, Serialize)]
pub struct OwnResponse<'a> {
    /// What [`ActionLedger::requested`] returned.
    pub action: Seq,
    /// `succeeded`, `failed`, `unknown`.
    pub outcome: &'a str,
    /// SHA-256 of the response body, hex; left out where the body holds a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_digest: Option<&'a str>,
    /// What the kind has beyond that; an object, merged into the record.
    #[serde(flatten)]
    pub detail: Value,
}

/// Keeps signed records of what is sent outside an active run. A request without a response is told as of unknown outcome
/// at the next start.
pub trait ActionLedger: Send + Sync {
    /// Makes a request's record durable. Nothing may be sent unless it succeeds. `run` is the one that the action serves,
    /// ended or not.
    ///
    /// # Errors
    /// It is not known to be durable.
    fn requested(&self, run: Option<RunId>, request: &OwnRequest<'_>) -> Result<Seq, CommandError>;

    /// Makes the record of the outcome durable.
    ///
    /// # Errors
    /// It is not known to be durable; what came back is the caller's to keep or to throw away.
    fn responded(&self, run: Option<RunId>, response: &OwnResponse<'_>) -> Result<(), CommandError>;
}

impl CoreHandle {
    fn record_own(&self, run: Option<RunId>, kind: NoteKind, draft: &impl Serialize) -> Result<Seq, CommandError> {
        let body = serde_json::value::to_raw_value(draft).expect("drafts have string keys and no failing serialisers");
        let command = Command::RecordAction { run, note: Note { kind, body } };
        match self.request_within(command, None, Duration::from_millis(OWN_ACTION_RECORD_MS_MAX))? {
            Decision::Recorded { last_seq } => Ok(last_seq),
            other => unreachable!("a record is answered by its position, not by {other:?}"),
        }
    }
}

impl ActionLedger for CoreHandle {
    fn requested(&self, run: Option<RunId>, request: &OwnRequest<'_>) -> Result<Seq, CommandError> {
        self.record_own(run, NoteKind::ActionRequest, request)
    }

    fn responded(&self, run: Option<RunId>, response: &OwnResponse<'_>) -> Result<(), CommandError> {
        self.record_own(run, NoteKind::ActionResponse, response).map(|_| ())
    }
}
