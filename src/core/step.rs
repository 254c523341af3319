//! The turn at hand of an active run: its calls, and what it waits for.
//! Owns: the fold of a run's turn records into what a restart, an operator and a deadline need to know.
//! Never: holds inputs, outputs or questions; these are read from the journal by the positions kept here.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::action::is_model_call;
use super::command::NoteKind;
use super::turn::{AgentsAwaited, CallFindings, WaitsFor};
use crate::ids::Seq;

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallPhase {
    /// Decided upon, not started.
    Known,
    /// Started; its result is not recorded.
    Started,
    /// Its result is recorded.
    Finished,
}

/// A call of the turn at hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Its id.
    pub id: String,
    /// How far it has come.
    pub phase: CallPhase,
}

/// An approval that nobody has given or refused yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingApproval {
    /// Its id.
    pub id: String,
    /// The call.
    pub call: String,
    /// Tool name.
    pub tool: String,
    /// Its `approval.requested` record, which has the input.
    pub seq: Seq,
    /// When it was asked for, Unix milliseconds.
    pub at_ms: u64,
    /// When it counts as denied.
    pub expires_at_ms: Option<u64>,
}

/// A question that nobody has answered yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingQuestion {
    /// Its id.
    pub id: String,
    /// The call that asks.
    pub call: String,
    /// Its `question.asked` record.
    pub seq: Seq,
    /// When it was asked, Unix milliseconds.
    pub at_ms: u64,
    /// When the run is cancelled without an answer.
    pub expires_at_ms: Option<u64>,
    /// A child asks its parent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub to_parent: bool,
    /// A call that is under way asks on behalf of a server.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub for_server: bool,
}

/// Child agents that the run waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingAgents {
    /// Numbers of their sessions.
    pub sessions: Vec<u32>,
    /// The first that rests ends the wait.
    pub any: bool,
    /// When it ends in any case, Unix milliseconds.
    pub until_ms: u64,
}

/// The turn at hand of one active run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Calls of the newest model answer, in its order.
    pub calls: Vec<Call>,
    /// In the order in which they were asked for.
    pub approvals: Vec<PendingApproval>,
    /// At most one at a time.
    pub question: Option<PendingQuestion>,
    /// Set while it waits for child agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<PendingAgents>,
}

/// What a note means for the turn at hand.
#[derive(Debug)]
pub(super) enum Mark {
    /// A call of a new answer; also a second decision about it.
    Known(String),
    /// A call starts; again, if it may.
    Started { call: String, idempotent: bool },
    /// A call has its result.
    Finished(String),
    /// An approval is asked for.
    Approval(PendingApproval),
    /// A question is asked.
    Question(PendingQuestion),
    /// Child agents are waited for.
    Agents(PendingAgents),
    /// A model call begins: the turn before is over.
    NextTurn,
    /// Nothing.
    None,
}

#[derive(Deserialize)]
struct CallFields {
    call: String,
    #[serde(default)]
    idempotent: bool,
}

#[derive(Deserialize)]
struct AskFields {
    id: String,
    call: String,
    #[serde(default)]
    tool: String,
    #[serde(default)]
    expires_at_ms: Option<u64>,
    #[serde(default)]
    to_parent: bool,
    #[serde(default)]
    server: Option<serde::de::IgnoredAny>,
}

impl Mark {
    /// Reads what a note at `seq` means.
    ///
    /// # Errors
    /// The body lacks what its kind must have.
    pub(super) fn read(kind: NoteKind, body: &RawValue, seq: Seq, at_ms: u64) -> Result<Self, String> {
        let unreadable = |error: serde_json::Error| format!("{}: {error}", kind.as_str());
        let call = || serde_json::from_str::<CallFields>(body.get()).map_err(unreadable);
        let ask = || serde_json::from_str::<AskFields>(body.get()).map_err(unreadable);
        Ok(match kind {
            NoteKind::PermissionDecided => Self::Known(call()?.call),
            NoteKind::ToolCallStarted => {
                let CallFields { call, idempotent } = call()?;
                Self::Started { call, idempotent }
            }
            NoteKind::ToolCallFinished => Self::Finished(call()?.call),
            NoteKind::ApprovalRequested => {
                let AskFields { id, call, tool, expires_at_ms, .. } = ask()?;
                Self::Approval(PendingApproval { id, call, tool, seq, at_ms, expires_at_ms })
            }
            NoteKind::QuestionAsked => {
                let AskFields { id, call, expires_at_ms, to_parent, server, .. } = ask()?;
                let for_server = server.is_some();
                Self::Question(PendingQuestion { id, call, seq, at_ms, expires_at_ms, to_parent, for_server })
            }
            NoteKind::AgentsAwaited => {
                let AgentsAwaited { agents, any, until_ms, .. } =
                    serde_json::from_str(body.get()).map_err(unreadable)?;
                Self::Agents(PendingAgents { sessions: agents, any, until_ms })
            }
            // Other actions belong to the turn at hand.
            NoteKind::ActionRequest if is_model_call(body) => Self::NextTurn,
            NoteKind::ActionRequest
            | NoteKind::Output
            | NoteKind::Message
            | NoteKind::ActionResponse
            | NoteKind::RouteFailover
            | NoteKind::OutputRejected
            | NoteKind::ContextCompacted => Self::None,
        })
    }
}

impl Step {
    /// What the run waits for, if it does.
    pub fn waits_for(&self) -> Option<WaitsFor> {
        match (&self.question, self.approvals.is_empty()) {
            (Some(_), _) => Some(WaitsFor::UserQuestion),
            (None, false) => Some(WaitsFor::Approval),
            (None, true) => self.agents.as_ref().map(|_| WaitsFor::Agents),
        }
    }

    /// Since when the oldest item has waited that is open for people.
    pub fn waits_since_ms(&self) -> Option<u64> {
        let approvals = self.approvals.iter().map(|approval| approval.at_ms);
        approvals.chain(self.question.iter().map(|question| question.at_ms)).min()
    }

    /// The next deadline of an open item.
    pub fn deadline_ms(&self) -> Option<u64> {
        let approvals = self.approvals.iter().filter_map(|approval| approval.expires_at_ms);
        let questions = self.question.iter().filter_map(|question| question.expires_at_ms);
        approvals.chain(questions).chain(self.agents.iter().map(|wait| wait.until_ms)).min()
    }

    /// Whether there is nothing to keep.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.approvals.is_empty() && self.question.is_none() && self.agents.is_none()
    }

    /// What a restart finds.
    pub fn findings(&self) -> Option<CallFindings> {
        if self.calls.is_empty() {
            return None;
        }
        let count = |phase| self.calls.iter().filter(|call| call.phase == phase).count() as u32;
        let started = self.calls.iter().filter(|call| call.phase == CallPhase::Started);
        Some(CallFindings {
            kept: count(CallPhase::Finished),
            issued: count(CallPhase::Known),
            unknown: started.map(|call| call.id.clone()).collect(),
        })
    }

    fn call(&mut self, id: &str) -> &mut Call {
        let place = match self.calls.iter().position(|call| call.id == id) {
            Some(place) => place,
            None => {
                self.calls.push(Call { id: id.to_string(), phase: CallPhase::Known });
                self.calls.len() - 1
            }
        };
        &mut self.calls[place]
    }

    /// Whether the note may follow what is recorded. The engine's order of things is checked here, so that a mistake
    /// in it ends one run instead of letting a tool run twice.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn admits(&self, mark: &Mark) -> Result<(), String> {
        let phase = |id: &String| self.calls.iter().find(|call| call.id == *id).map(|call| call.phase);
        match mark {
            Mark::Started { call, idempotent } => match phase(call) {
                Some(CallPhase::Finished) => Err(format!("call {call} has ended and is started again")),
                Some(CallPhase::Started) if !idempotent => Err(format!("call {call} is started twice")),
                _ => Ok(()),
            },
            Mark::Finished(call) if phase(call) == Some(CallPhase::Finished) => {
                Err(format!("call {call} has two results"))
            }
            Mark::Approval(asked) if self.approvals.iter().any(|approval| approval.id == asked.id) => {
                Err(format!("approval {} is asked for twice", asked.id))
            }
            Mark::Question(_) if self.question.is_some() => Err("a second question is asked".to_string()),
            Mark::Agents(_) if self.agents.is_some() => Err("agents are waited for twice".to_string()),
            Mark::NextTurn => match self.calls.iter().find(|call| call.phase != CallPhase::Finished) {
                Some(open) => Err(format!("a model call is made while call {} has no result", open.id)),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Folds a note.
    pub(super) fn fold(&mut self, mark: Mark) {
        match mark {
            Mark::Known(id) => {
                self.call(&id);
            }
            Mark::Started { call, .. } => self.call(&call).phase = CallPhase::Started,
            Mark::Finished(id) => self.call(&id).phase = CallPhase::Finished,
            Mark::Approval(approval) => self.approvals.push(approval),
            Mark::Question(question) => self.question = Some(question),
            Mark::Agents(wait) => self.agents = Some(wait),
            Mark::NextTurn => self.calls.clear(),
            Mark::None => {}
        }
    }
}
