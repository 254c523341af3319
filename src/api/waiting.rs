//! Approvals and questions on the wire.
//! Owns: how an open one is shown, read from the record that asked.
//! Never: decides; the core knows what is open.

use serde::Serialize;
use serde_json::value::RawValue;

use super::run_view::{ViewError, content_of};
use crate::core::{ApprovalRequested, QuestionAsked, UserQuestion};
use crate::journal::Record;

/// An open approval.
#[derive(Debug, Clone, Serialize)]
pub struct ApprovalView {
    /// Its id.
    pub id: String,
    /// The call.
    pub tool_call_id: String,
    /// Tool name.
    pub tool_name: String,
    /// The call's arguments.
    pub input: Box<RawValue>,
    /// Scope of the rule that asks.
    pub scope: String,
    /// Why it asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the answer is bound to: tool, arguments, working directory and policy.
    pub digest: String,
    /// When it was asked for, Unix milliseconds.
    pub requested_at_ms: u64,
    /// When it counts as denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
}

impl ApprovalView {
    /// From its `approval.requested` record.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn of(record: &Record) -> Result<Self, ViewError> {
        let asked: ApprovalRequested = content_of(record, record.body.get())?;
        let ApprovalRequested { id, call, tool, input, scope, reason, digest, expires_at_ms } = asked;
        Ok(Self {
            id,
            tool_call_id: call,
            tool_name: tool,
            input,
            scope,
            reason,
            digest,
            requested_at_ms: record.at_ms,
            expires_at_ms,
        })
    }
}

/// An open question request.
#[derive(Debug, Clone, Serialize)]
pub struct QuestionView {
    /// Its id.
    pub id: String,
    /// The call that asks.
    pub tool_call_id: String,
    /// Answered or declined together.
    pub questions: Vec<UserQuestion>,
    /// When it was asked, Unix milliseconds.
    pub created_at_ms: u64,
    /// When the run is cancelled without an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    /// A child agent asks the agent that made it; people may answer as well.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub to_parent: bool,
    /// The MCP server on whose behalf a call asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
}

impl QuestionView {
    /// From its `question.asked` record.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn of(record: &Record) -> Result<Self, ViewError> {
        let asked: QuestionAsked = content_of(record, record.body.get())?;
        let QuestionAsked { id, call, questions, expires_at_ms, to_parent, server } = asked;
        Ok(Self { id, tool_call_id: call, questions, created_at_ms: record.at_ms, expires_at_ms, to_parent, server })
    }
}
