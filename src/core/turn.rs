//! Bodies of the records of a turn: permission decisions, tool calls, approvals and user questions.
//! Owns: their JSON shapes (docs/journal-format.md lists them), shared by core, engine and control plane.
//! Never: interprets a tool's input or output.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::event::RunTimes;

/// What a rule or a person says to a tool call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ruling {
    /// It may run.
    Allow,
    /// A person decides.
    Ask,
    /// It may not run.
    Deny,
}

/// Body of `permission.decided`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionDecided {
    /// The call.
    pub call: String,
    /// Tool name.
    pub tool: String,
    /// What holds.
    pub decision: Ruling,
    /// What the rules alone say.
    pub base_decision: Ruling,
    /// Mode in force, as on the wire.
    pub effective_mode: String,
    /// What the mode changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode_effect: Option<String>,
    /// Pattern of the rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched_rule_pattern: Option<String>,
    /// Where that rule comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched_rule_origin: Option<String>,
    /// Scope of the decision.
    pub scope: String,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The approval asked for, or the one that allowed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<String>,
}

/// Body of `tool_call.started`: durable before the tool runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCallStarted {
    /// The call.
    pub call: String,
    /// Tool name.
    pub tool: String,
    /// SHA-256 over tool, canonical arguments, working directory and policy revision, hex.
    pub digest: String,
    /// Whether it may be run again when a crash hides its outcome.
    pub idempotent: bool,
}

/// What became of a tool call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallOutcome {
    /// The tool ran and succeeded.
    Ok,
    /// The tool ran and failed, or the call was no good.
    Error,
    /// A rule or a person said no; it did not run.
    Denied,
    /// The daemon ended while it ran: its outcome is not known and it was not run again.
    Interrupted,
    /// The run was stopped while it ran.
    Cancelled,
    /// It was stopped at its time limit.
    TimedOut,
}

impl CallOutcome {
    /// Whether the model is told of an error.
    pub fn is_error(self) -> bool {
        self != Self::Ok
    }
}

/// Where the whole of a large text is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRef {
    /// SHA-256 of the content, hex; also its file name.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

/// Body of `tool_call.finished`: durable before the next model call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCallFinished {
    /// The call.
    pub call: String,
    /// Tool name.
    pub tool: String,
    /// What became of it.
    pub outcome: CallOutcome,
    /// What the model is told.
    pub content: String,
    /// `content` is not all that the tool gave.
    pub truncated: bool,
    /// All that the tool gave, where it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<BlobRef>,
    /// How long it took; 0 for a call that did not run.
    pub duration_ms: u64,
}

/// Body of `approval.requested`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApprovalRequested {
    /// `approval-<tool>-<n>-<8 hex>`.
    pub id: String,
    /// The call.
    pub call: String,
    /// Tool name.
    pub tool: String,
    /// Its arguments as the model gave them.
    pub input: Box<RawValue>,
    /// Scope of the rule that asks.
    pub scope: String,
    /// Why it asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// As in [`ToolCallStarted::digest`]; what the answer is bound to.
    pub digest: String,
    /// When it counts as denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
}

/// Body of `approval.resolved`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApprovalResolved {
    /// The approval.
    pub id: String,
    /// The call that it was asked for.
    pub call: String,
    /// `allow` or `deny`.
    pub behavior: Ruling,
    /// Arguments that replace the model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_input: Option<Box<RawValue>>,
    /// Words of the person who decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub justification: Option<String>,
    /// Reason given, or the code of the rule that settled it: `expired`, `permission_mode_dont_ask`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Hashes that make a repeated answer return this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<super::event::Idempotency>,
}

/// One choice of a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuestionOption {
    /// Unique in its question.
    pub id: String,
    /// Shown to people.
    pub label: String,
    /// More words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What choosing it would look like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<String>,
}

/// One question of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserQuestion {
    /// Unique in its request.
    pub id: String,
    /// A few words above it.
    #[serde(default)]
    pub header: String,
    /// The question.
    pub question: String,
    /// Choices; none asks for free text.
    #[serde(default)]
    pub options: Vec<QuestionOption>,
    /// Whether several choices may be taken.
    #[serde(default)]
    pub multi_select: bool,
    /// It is a field of a server's form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<FormField>,
}

/// What the answer to a field of a form has to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormField {
    /// Whether it may be left out. One with a usable default may in any case.
    pub required: bool,
    /// Type, bounds, format and default: a part of JSON Schema.
    pub schema: serde_json::Value,
}

/// Body of `question.asked`: the request as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuestionAsked {
    /// `question-<n>-<8 hex>`.
    pub id: String,
    /// The call that asks.
    pub call: String,
    /// Answered or declined together.
    pub questions: Vec<UserQuestion>,
    /// When the run is cancelled without an answer; a question to a parent counts as declined then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    /// A child asks the agent that made it; people may answer as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub to_parent: bool,
    /// The server on whose behalf a call of its tool asks. Without an answer in time the run goes on, and the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
}

/// Body of `agents.awaited`: the run waits for child agents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentsAwaited {
    /// The call that waits.
    pub call: String,
    /// Numbers of the children's sessions, which are those of the agents.
    pub agents: Vec<u32>,
    /// The first of them that rests ends the wait, instead of the last.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any: bool,
    /// When the wait ends in any case.
    pub until_ms: u64,
}

/// The answer to one question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuestionAnswer {
    /// Which one.
    pub question_id: String,
    /// Chosen options.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub selected_option_ids: Vec<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeform_answer: Option<String>,
}

/// Body of `question.resolved`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuestionResolved {
    /// The request.
    pub id: String,
    /// The call that asked.
    pub call: String,
    /// One for each question, unless declined.
    #[serde(default)]
    pub answers: Vec<QuestionAnswer>,
    /// The person would not answer.
    #[serde(default)]
    pub declined: bool,
    /// Words of the person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub justification: Option<String>,
    /// Code of the rule that settled it: `expired`, `cancelled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Hashes that make a repeated answer return this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<super::event::Idempotency>,
}

/// What a run waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitsFor {
    /// Approvals.
    Approval,
    /// An answer of a person.
    UserQuestion,
    /// Child agents. The run counts as running: they work for it.
    Agents,
}

/// Body of `run.waiting`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunWaiting {
    /// The run's times.
    #[serde(flatten)]
    pub times: RunTimes,
    /// What for.
    #[serde(rename = "for")]
    pub waits_for: WaitsFor,
    /// The open approvals, or the question.
    #[serde(default)]
    pub request_ids: Vec<String>,
}

/// What a restart found of the calls of a run's turn.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallFindings {
    /// Finished calls: their results are kept.
    pub kept: u32,
    /// Calls that had not started and may be.
    pub issued: u32,
    /// Calls that had started and have no result.
    pub unknown: Vec<String>,
}
