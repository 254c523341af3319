//! What happened to a run, entry by entry.
//! Owns: the entries of a run's event list.
//! May touch: the records it is handed.
//! Never: shows a tool's input or output; approvals and outputs have their own places.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::run_view::{ViewError, accepted_view, body_of, changes_state, content_of, output_of};
use crate::core::{
    Body, CallFindings, CallOutcome, Failure, ResumeFinding, ToolCallFinished, ToolCallStarted, WaitsFor,
};
use crate::ids::{RunId, SessionId};
use crate::journal::Record;

/// One entry of a run's event list.
#[derive(Debug, Clone, Serialize)]
pub struct RunEventEntry {
    /// When it happened, Unix milliseconds.
    pub timestamp_ms: u64,
    /// The run.
    pub run_id: RunId,
    /// Its session.
    pub session_id: SessionId,
    /// The session's root agent.
    pub agent_id: String,
    /// What happened.
    pub event: RunEvent,
}

/// What happened to a run.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RunEvent {
    /// It was accepted.
    Accepted,
    /// It waits behind others.
    Queued {
        /// Its place, from 1.
        position: u32,
    },
    /// It became its session's active run.
    Started,
    /// A restart found it active and went on with it.
    Resumed {
        /// What the restart found.
        found: ResumeFinding,
        /// What it found of the tool calls of the run's turn.
        #[serde(skip_serializing_if = "Option::is_none")]
        findings: Option<CallFindings>,
    },
    /// A tool call began to run.
    ToolCallStarted {
        /// The call.
        call: String,
        /// Tool name.
        tool: String,
    },
    /// A tool call has its result.
    ToolCallFinished {
        /// The call.
        call: String,
        /// Tool name.
        tool: String,
        /// What became of it.
        outcome: CallOutcome,
        /// The model sees only a part.
        truncated: bool,
        /// How long it took.
        duration_ms: u64,
    },
    /// It waits for child agents and holds no engine.
    WaitingForAgents,
    /// It waits for approvals.
    WaitingForApproval {
        /// Which.
        request_ids: Vec<String>,
    },
    /// An approval was given or refused.
    ApprovalResolved {
        /// The answer.
        resolution: Box<RawValue>,
    },
    /// It waits for an answer.
    WaitingForUserQuestion {
        /// Which question.
        request_ids: Vec<String>,
    },
    /// A question was answered, declined or withdrawn.
    UserQuestionResolved {
        /// The answer.
        resolution: Box<RawValue>,
    },
    /// Nothing is open any more and it goes on.
    Continued,
    /// Older messages of its context were replaced by a summary.
    ContextCompacted,
    /// Its route failed and it went on with another one.
    RouteFailover {
        /// From where, to where and why.
        failover: Box<RawValue>,
    },
    /// An answer did not fit the schema and was sent back.
    OutputRejected {
        /// Which one, from 1.
        attempt: u32,
        /// Where it does not fit.
        error: String,
    },
    /// It put something out.
    Output {
        /// The output record.
        output: Box<RawValue>,
    },
    /// It ended with a result.
    Completed,
    /// It ended with an error.
    Failed {
        /// Why.
        error: Failure,
    },
    /// It ended by a broader stop.
    Interrupted {
        /// The operator's words.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// It was stopped deliberately.
    Cancelled {
        /// The operator's words.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

#[derive(Deserialize)]
struct Rejected {
    attempt: u32,
    error: String,
}

/// A run's event list from all its records, oldest first.
///
/// # Errors
/// As [`fold`].
pub fn run_events(records: &[Record]) -> Result<Vec<RunEventEntry>, ViewError> {
    let (accepted, later) = records.split_first().ok_or(ViewError::NotAccepted { seq: None })?;
    let (view, _) = accepted_view(accepted)?;
    let entry = |record: &Record, event| RunEventEntry {
        timestamp_ms: record.at_ms,
        run_id: view.run_id,
        session_id: view.session_id.clone(),
        agent_id: view.agent_id.clone(),
        event,
    };
    let mut entries = vec![entry(accepted, RunEvent::Accepted)];
    if let Some(position) = view.queued_position {
        entries.push(entry(accepted, RunEvent::Queued { position }));
    }
    for record in later {
        if record.run != Some(view.run_id) {
            return Err(ViewError::Foreign { seq: record.seq });
        }
        if let Some(event) = event_of(record)? {
            entries.push(entry(record, event));
        }
    }
    Ok(entries)
}

/// Of a record that leaves the run's state as it is.
fn note_event(record: &Record) -> Result<Option<RunEvent>, ViewError> {
    Ok(Some(match record.kind.as_str() {
        "tool_call.started" => {
            let ToolCallStarted { call, tool, .. } = content_of(record, record.body.get())?;
            RunEvent::ToolCallStarted { call, tool }
        }
        "tool_call.finished" => {
            let body: ToolCallFinished = content_of(record, record.body.get())?;
            let ToolCallFinished { call, tool, outcome, truncated, duration_ms, .. } = body;
            RunEvent::ToolCallFinished { call, tool, outcome, truncated, duration_ms }
        }
        "approval.resolved" => RunEvent::ApprovalResolved { resolution: record.body.clone() },
        "question.resolved" => RunEvent::UserQuestionResolved { resolution: record.body.clone() },
        "context.compacted" => RunEvent::ContextCompacted,
        "route.failover" => RunEvent::RouteFailover { failover: record.body.clone() },
        "output.rejected" => {
            let Rejected { attempt, error } = content_of(record, record.body.get())?;
            RunEvent::OutputRejected { attempt, error }
        }
        _ => return Ok(None),
    }))
}

fn event_of(record: &Record) -> Result<Option<RunEvent>, ViewError> {
    if record.kind == "run.output" {
        return Ok(Some(RunEvent::Output { output: output_of(record)? }));
    }
    if !changes_state(&record.kind) {
        return note_event(record);
    }
    Ok(Some(match body_of(record)? {
        Body::RunStarted(_) => RunEvent::Started,
        Body::RunResumed(body) => RunEvent::Resumed { found: body.found, findings: body.findings },
        Body::RunContinued(_) => RunEvent::Continued,
        Body::RunWaiting(body) => match body.waits_for {
            WaitsFor::Approval => RunEvent::WaitingForApproval { request_ids: body.request_ids },
            WaitsFor::UserQuestion => RunEvent::WaitingForUserQuestion { request_ids: body.request_ids },
            WaitsFor::Agents => RunEvent::WaitingForAgents,
        },
        Body::RunCompleted(_) => RunEvent::Completed,
        Body::RunFailed(body) => RunEvent::Failed { error: body.error },
        Body::RunInterrupted(times) => RunEvent::Interrupted { reason: times.reason },
        Body::RunCancelled(times) => RunEvent::Cancelled { reason: times.reason },
        _ => return Err(ViewError::Foreign { seq: record.seq }),
    }))
}
