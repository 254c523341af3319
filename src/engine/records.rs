//! The records an engine writes and reads.
//! Owns: their JSON shapes (docs/journal-format.md lists them).
//! Never: carries a credential; a lease is named by its id.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::core::{Note, NoteKind};
use crate::ids::{RunId, Seq, SessionId};
use crate::journal::Record;
use crate::providers::{ToolCall, Usage};

/// The parts of `run.accepted` that an engine needs.
#[derive(Deserialize)]
pub(super) struct AcceptedBody<'a> {
    pub agent: String,
    pub route: String,
    pub model: String,
    #[serde(borrow)]
    pub request: &'a RawValue,
}

/// Body of `message.appended`.
#[derive(Serialize, Deserialize)]
pub(super) struct MessageBody {
    pub role: Role,
    pub text: String,
    /// Output items as the provider sent them; replayed unchanged on later calls.
    pub items: Vec<Box<RawValue>>,
    pub route: String,
    pub model: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Tools asked for, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

/// Body of `context.compacted`.
#[derive(Serialize, Deserialize)]
pub(super) struct CompactedBody {
    /// The summary stands for everything of the session up to this record.
    pub until: Seq,
    pub summary: String,
    /// `model` or `truncate`.
    pub strategy: String,
    /// `auto` or `context_window_exceeded`.
    pub trigger: String,
    /// Estimated tokens of the context before and after.
    pub pre_tokens: u64,
    pub post_tokens: u64,
}

/// Body of `route.failover`.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct RouteMoved {
    pub from_route: String,
    pub from_model: String,
    pub to_route: String,
    pub to_model: String,
    /// Code of the failure, as a failed run would have it.
    pub reason: String,
    pub message: String,
}

impl CompactedBody {
    /// The message that stands for what was summarised; with the task where that was part of it.
    pub(super) fn shown(&self, task: Option<&str>) -> String {
        let head = "Summary of this conversation so far; earlier messages are no longer shown:";
        match task {
            None => format!("{head}\n\n{}", self.summary),
            Some(task) => {
                format!("{head}\n\n{}\n\nThe task that you are working on, word for word:\n\n{task}", self.summary)
            }
        }
    }
}

/// Who wrote a message.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    Assistant,
}

/// Body of `output.rejected`.
#[derive(Serialize, Deserialize)]
pub(super) struct OutputRejected {
    /// Which answer of the run it was that did not fit, from 1.
    pub attempt: u32,
    /// Where it does not fit.
    pub error: String,
    /// What the model is told.
    pub told: String,
}

/// Body of `run.output`.
#[derive(Serialize)]
struct OutputBody<'a> {
    output: Output<'a>,
}

#[derive(Serialize)]
struct Output<'a> {
    session_id: &'a SessionId,
    run_id: RunId,
    plugin: &'static str,
    address: &'static str,
    content: &'a str,
    parts: [TextPart<'a>; 1],
    artifacts: [(); 0],
    source_kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    structured_output: Option<&'a serde_json::Value>,
}

#[derive(Serialize)]
struct TextPart<'a> {
    #[serde(rename = "type")]
    part_type: &'static str,
    text: &'a str,
}

/// Body of `external_action.request`.
#[derive(Serialize)]
pub(super) struct ActionRequest<'a> {
    /// Counts within the run from 1; names the action together with the run.
    pub action: u32,
    pub kind: &'static str,
    /// Driver and URL without query.
    pub target: &'a str,
    pub route: &'a str,
    pub model: &'a str,
    /// SHA-256 of the request body, hex.
    #[serde(rename = "request_digest")]
    pub request_sha256: &'a str,
    /// The broker's lease; absent for a route without a credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<&'a str>,
    pub context_truncated: bool,
}

/// Body of `external_action.response`.
#[derive(Serialize)]
pub(super) struct ActionResponse<'a> {
    pub action: u32,
    pub outcome: ActionOutcome,
    /// HTTP status, where one was received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// Bytes of the response body that were read.
    pub response_bytes: u64,
    /// SHA-256 of these, hex.
    #[serde(rename = "response_digest", skip_serializing_if = "Option::is_none")]
    pub response_sha256: Option<String>,
    /// Provider's id of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_id: Option<&'a str>,
    /// Error class, for failures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
}

/// What became of a call.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ActionOutcome {
    Succeeded,
    Failed,
}

/// A record's body, typed.
pub(super) fn body<'a, T: Deserialize<'a>>(record: &'a Record) -> Result<T, String> {
    serde_json::from_str(record.body.get()).map_err(|error| format!("{} at seq {}: {error}", record.kind, record.seq))
}

/// A note for the core.
pub(super) fn note(kind: NoteKind, body: &impl Serialize) -> Note {
    let body = serde_json::value::to_raw_value(body).expect("bodies have string keys and no failing serialisers");
    Note { kind, body }
}

/// The note that carries a run's text to its caller.
pub(super) fn output_note(session: &SessionId, run: RunId, text: &str) -> Note {
    note(NoteKind::Output, &OutputBody { output: output(session, run, text) })
}

/// The note that carries a run's JSON to its caller: as text, and as what it says.
pub(super) fn structured_note(session: &SessionId, run: RunId, text: &str, value: &serde_json::Value) -> Note {
    let output =
        Output { output_kind: Some("structured_output"), structured_output: Some(value), ..output(session, run, text) };
    note(NoteKind::Output, &OutputBody { output })
}

fn output<'a>(session: &'a SessionId, run: RunId, text: &'a str) -> Output<'a> {
    Output {
        session_id: session,
        run_id: run,
        plugin: "daemon",
        address: "",
        content: text,
        parts: [TextPart { part_type: "text", text }],
        artifacts: [],
        source_kind: "assistant_text",
        output_kind: None,
        structured_output: None,
    }
}
