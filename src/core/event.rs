//! Events: what happened, as typed records.
//! Owns: the kinds and bodies of all records but the journal's own, and their JSON form.
//! Never: interprets the request, output or message inside a body; those are kept as they were written.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::agent::{AgentLink, MailRecord};
use super::command::NoteKind;
use super::connectors::ConnectorRecord;
use super::control::{ControlIntent, ControlResult};
use super::delivery::{DeliveryRecord, RunReplyTarget};
use super::hooks::HookRecord;
use super::retention::RetentionChanged;
use super::routes_loaded::RoutesLoaded;
use super::runtime_config::RuntimeChanged;
use super::session_settings::SessionChange;
use super::task::TaskRecord;
use super::turn::{ApprovalResolved, CallFindings, QuestionResolved, RunWaiting};
use crate::actor::Actor;
use crate::ids::{RunId, Seq, SessionId};

/// One event with the envelope that becomes a journal line.
#[derive(Debug, Clone)]
pub struct Event {
    /// Position in the journal.
    pub seq: Seq,
    /// When it was decided, Unix milliseconds.
    pub at_ms: u64,
    /// The session it belongs to.
    pub session: Option<SessionId>,
    /// The run it belongs to.
    pub run: Option<RunId>,
    /// Previous record of the same session; 0 is none.
    pub session_prev: Seq,
    /// Previous record of the same run; 0 is none.
    pub run_prev: Seq,
    /// The run's `run.accepted` record; 0 for that record itself and where there is no run.
    pub run_first: Seq,
    /// The API caller on whose behalf it happened.
    pub by: Option<Actor>,
    /// What happened.
    pub body: Body,
}

/// The idempotency part of an accepted run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// First 128 bits of SHA-256 over session id and key.
    #[serde(with = "hex16")]
    pub key: [u8; 16],
    /// First 128 bits of SHA-256 over the normalised request.
    #[serde(with = "hex16")]
    pub fingerprint: [u8; 16],
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable code, e.g. `provider_auth`.
    pub code: String,
    /// Text for people, redacted.
    pub message: String,
}

/// What a restart found of a run that was active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResumeFinding {
    /// Nothing had left the daemon for the step at hand.
    NotStarted,
    /// A model call had been requested and no outcome was recorded; it is asked again.
    ModelCallInFlight,
    /// The model had asked for tools and not all of them have results; see the findings.
    ToolCallsOpen,
}

/// What happened. The variants' JSON forms are listed in docs/journal-format.md.
#[derive(Debug, Clone)]
pub enum Body {
    /// The journal was opened; the only journal record with a meaning here.
    JournalOpened {
        /// Epoch from here on.
        epoch: u32,
    },
    /// Any other record of the journal itself.
    JournalOther,
    /// A session exists from here on.
    SessionCreated(SessionCreated),
    /// An operator stopped the session's active run.
    SessionInterrupted,
    /// No further input is accepted.
    SessionEnded(Reason),
    /// A run was accepted.
    RunAccepted(RunAccepted),
    /// The run became its session's active one.
    RunStarted(RunTimes),
    /// A restart found the run active and goes on with it.
    RunResumed(RunResumed),
    /// Something that belongs to the run and does not change its state.
    RunNote(NoteKind, Box<RawValue>),
    /// The run holds no engine until somebody decides or answers.
    RunWaiting(RunWaiting),
    /// Nothing is open any more and the run goes on.
    RunContinued(RunTimes),
    /// An approval was given or refused.
    ApprovalResolved(ApprovalResolved),
    /// A question was answered or declined.
    QuestionResolved(QuestionResolved),
    /// The run ended with a result.
    RunCompleted(RunTimes),
    /// The run ended with an error.
    RunFailed(RunFailed),
    /// The run ended by a broader stop.
    RunInterrupted(RunTimes),
    /// The run was stopped deliberately.
    RunCancelled(RunTimes),
    /// Starting of queued runs was suspended or allowed again.
    HoldChanged(HoldChanged),
    /// The runtime configuration has one more revision.
    RuntimeChanged(RuntimeChanged),
    /// A run's evidence is held, or not any more.
    RetentionChanged(RetentionChanged),
    /// The daemon runs with another routes file than before.
    RoutesLoaded(RoutesLoaded),
    /// A session has other settings of its own.
    SessionUpdated(SessionChange),
    /// Something outside the journal is about to be changed.
    ControlIntent(ControlIntent),
    /// What became of it.
    ControlResult(ControlResult),
    /// Something happened to hooks.
    Hook(HookRecord),
    /// Something happened to a task of the session.
    Task(TaskRecord),
    /// Something happened to connectors.
    Connector(ConnectorRecord),
    /// Something happened to the mailbox of the session's agent.
    Mail(MailRecord),
    /// Something happened to a delivery, or to all of them.
    Delivery(DeliveryRecord),
}

/// Body of `session.created`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionCreated {
    /// The session's root agent, `agent-<n>`.
    pub agent: String,
    /// Provider-side thread id named by the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread_id: Option<String>,
    /// Who made it, where another agent is its parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<AgentLink>,
}

/// Body with an optional reason.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Reason {
    /// Operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What `run.accepted` ordinarily holds besides its request.
const RUN_ACCEPTED_BYTES_ORDINARY: usize = 512;

/// Body of `run.accepted`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunAccepted {
    /// The session's root agent.
    pub agent: String,
    /// What made the run: `input` or `mailbox_delivery`.
    pub kind: String,
    /// Place in the queue, from 1; 0 when it starts in the same batch.
    pub position: u32,
    /// Route id pinned at acceptance.
    pub route: String,
    /// Model pinned at acceptance.
    pub model: String,
    /// Hashes that make a repeated submission return this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<Idempotency>,
    /// Messages of the mailbox that the run takes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mail: Vec<String>,
    /// Where the output goes: those of the request, or the session's at that time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reply_targets: Vec<RunReplyTarget>,
    /// The normalised submission.
    pub request: Box<RawValue>,
}

/// Times every state record repeats, so that one record suffices to show the run's state.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RunTimes {
    /// When the run was accepted.
    pub submitted_at_ms: u64,
    /// When it became active, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at_ms: Option<u64>,
    /// Operator's words, for stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Body of `run.resumed`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunResumed {
    /// The run's times.
    #[serde(flatten)]
    pub times: RunTimes,
    /// What was found.
    pub found: ResumeFinding,
    /// What was found of the tool calls of its turn, if it had any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub findings: Option<CallFindings>,
}

/// Body of `run.failed`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunFailed {
    /// The run's times.
    #[serde(flatten)]
    pub times: RunTimes,
    /// Why.
    pub error: Failure,
}

/// Body of `hold.changed`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HoldChanged {
    /// Whether queued runs stay queued.
    pub held: bool,
    /// Operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Deserialize)]
struct JournalOpened {
    epoch: u32,
}

/// A record whose kind or body this build does not understand.
#[derive(Debug)]
pub struct DecodeError {
    kind: String,
    cause: String,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "record of kind {:?} cannot be read: {}; next: start the daemon version that wrote this state root",
            self.kind, self.cause
        )
    }
}

impl std::error::Error for DecodeError {}

impl Body {
    /// Why an action that is open when this happens to its run has an unknown outcome; `None` when it may still be
    /// answered.
    pub(super) fn leaves_actions_open(&self) -> Option<&'static str> {
        match self {
            Self::RunResumed(_) => Some("restart"),
            Self::RunCompleted(_) | Self::RunFailed(_) => Some("run_ended"),
            Self::RunInterrupted(_) => Some("run_interrupted"),
            Self::RunCancelled(_) => Some("run_cancelled"),
            _ => None,
        }
    }

    /// The record kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::JournalOpened { .. } => "journal.opened",
            Self::JournalOther => "journal.other",
            Self::SessionCreated(_) => "session.created",
            Self::SessionInterrupted => "session.interrupted",
            Self::SessionEnded(_) => "session.ended",
            Self::RunAccepted(_) => "run.accepted",
            Self::RunStarted(_) => "run.started",
            Self::RunResumed(_) => "run.resumed",
            Self::RunNote(note, _) => note.as_str(),
            Self::RunWaiting(_) => "run.waiting",
            Self::RunContinued(_) => "run.continued",
            Self::ApprovalResolved(_) => "approval.resolved",
            Self::QuestionResolved(_) => "question.resolved",
            Self::RunCompleted(_) => "run.completed",
            Self::RunFailed(_) => "run.failed",
            Self::RunInterrupted(_) => "run.interrupted",
            Self::RunCancelled(_) => "run.cancelled",
            Self::HoldChanged(_) => "hold.changed",
            Self::RuntimeChanged(_) => "runtime.changed",
            Self::SessionUpdated(_) => "session.updated",
            Self::RetentionChanged(_) => "retention.changed",
            Self::RoutesLoaded(_) => "routes.loaded",
            Self::ControlIntent(_) => "control.intent",
            Self::ControlResult(_) => "control.result",
            Self::Hook(record) => record.kind(),
            Self::Task(record) => record.kind(),
            Self::Connector(record) => record.kind(),
            Self::Mail(record) => record.kind(),
            Self::Delivery(record) => record.kind(),
        }
    }

    /// The body as one compact JSON object.
    ///
    /// # Panics
    /// For the journal's own records, which the core never writes.
    pub fn encode(&self) -> Vec<u8> {
        fn json(value: &impl Serialize) -> Vec<u8> {
            serde_json::to_vec(value).expect("bodies have string keys and no failing serialisers")
        }
        match self {
            Self::JournalOpened { .. } | Self::JournalOther => unreachable!("journal records are not the core's"),
            Self::SessionInterrupted => b"{}".to_vec(),
            Self::SessionCreated(body) => json(body),
            Self::SessionEnded(body) => json(body),
            Self::RunAccepted(body) => {
                // Room for all of it: the request is the large part, and this is the record written most.
                let mut bytes = Vec::with_capacity(body.request.get().len() + RUN_ACCEPTED_BYTES_ORDINARY);
                serde_json::to_writer(&mut bytes, body).expect("as above");
                bytes
            }
            Self::RunWaiting(body) => json(body),
            Self::ApprovalResolved(body) => json(body),
            Self::QuestionResolved(body) => json(body),
            Self::RunStarted(body)
            | Self::RunContinued(body)
            | Self::RunCompleted(body)
            | Self::RunInterrupted(body)
            | Self::RunCancelled(body) => json(body),
            Self::RunResumed(body) => json(body),
            Self::RunNote(_, body) => body.get().as_bytes().to_vec(),
            Self::RunFailed(body) => json(body),
            Self::HoldChanged(body) => json(body),
            Self::RuntimeChanged(body) => json(body),
            Self::SessionUpdated(body) => json(body),
            Self::RetentionChanged(body) => json(body),
            Self::RoutesLoaded(body) => json(body),
            Self::ControlIntent(body) => json(body),
            Self::ControlResult(body) => json(body),
            Self::Hook(record) => record.encode(),
            Self::Task(record) => record.encode(),
            Self::Connector(record) => record.encode(),
            Self::Mail(record) => record.encode(),
            Self::Delivery(record) => record.encode(),
        }
    }

    /// Reads a record's body back.
    ///
    /// # Errors
    /// The kind is unknown or the body does not have its shape: the state root was written by another build.
    pub fn decode(kind: &str, body: &RawValue) -> Result<Self, DecodeError> {
        fn parse<'de, T: Deserialize<'de>>(kind: &str, body: &'de RawValue) -> Result<T, DecodeError> {
            serde_json::from_str(body.get())
                .map_err(|error| DecodeError { kind: kind.to_string(), cause: error.to_string() })
        }
        Ok(match kind {
            "journal.opened" => Self::JournalOpened { epoch: parse::<JournalOpened>(kind, body)?.epoch },
            kind if kind.starts_with("journal.") => Self::JournalOther,
            "session.created" => Self::SessionCreated(parse(kind, body)?),
            "session.interrupted" => Self::SessionInterrupted,
            "session.ended" => Self::SessionEnded(parse(kind, body)?),
            "run.accepted" => Self::RunAccepted(parse(kind, body)?),
            "run.started" => Self::RunStarted(parse(kind, body)?),
            "run.resumed" => Self::RunResumed(parse(kind, body)?),
            "run.waiting" => Self::RunWaiting(parse(kind, body)?),
            "run.continued" => Self::RunContinued(parse(kind, body)?),
            "approval.resolved" => Self::ApprovalResolved(parse(kind, body)?),
            "question.resolved" => Self::QuestionResolved(parse(kind, body)?),
            "run.completed" => Self::RunCompleted(parse(kind, body)?),
            "run.failed" => Self::RunFailed(parse(kind, body)?),
            "run.interrupted" => Self::RunInterrupted(parse(kind, body)?),
            "run.cancelled" => Self::RunCancelled(parse(kind, body)?),
            "hold.changed" => Self::HoldChanged(parse(kind, body)?),
            "runtime.changed" => Self::RuntimeChanged(parse(kind, body)?),
            "session.updated" => Self::SessionUpdated(parse(kind, body)?),
            "retention.changed" => Self::RetentionChanged(parse(kind, body)?),
            "routes.loaded" => Self::RoutesLoaded(parse(kind, body)?),
            "control.intent" => Self::ControlIntent(parse(kind, body)?),
            "control.result" => Self::ControlResult(parse(kind, body)?),
            kind => {
                let unreadable =
                    |error: serde_json::Error| DecodeError { kind: kind.to_string(), cause: error.to_string() };
                if let Some(note) = NoteKind::parse(kind) {
                    Self::RunNote(note, body.to_owned())
                } else if let Some(record) = TaskRecord::decode(kind, body) {
                    Self::Task(record.map_err(unreadable)?)
                } else if let Some(record) = ConnectorRecord::decode(kind, body) {
                    Self::Connector(record.map_err(unreadable)?)
                } else if let Some(record) = DeliveryRecord::decode(kind, body) {
                    Self::Delivery(record.map_err(unreadable)?)
                } else if let Some(record) = MailRecord::decode(kind, body) {
                    Self::Mail(record.map_err(unreadable)?)
                } else if let Some(record) = HookRecord::decode(kind, body.get()) {
                    Self::Hook(record.map_err(unreadable)?)
                } else {
                    return Err(DecodeError { kind: kind.to_string(), cause: "unknown kind".to_string() });
                }
            }
        })
    }
}

/// Sixteen bytes as 32 lower-case hex digits.
pub(super) mod hex16 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::hex::{parse_hex, to_hex};

    pub fn serialize<S: Serializer>(bytes: &[u8; 16], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&to_hex(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 16], D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let bytes = parse_hex(text.as_bytes()).and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| D::Error::custom("expected 32 lower-case hex digits"))
    }
}
