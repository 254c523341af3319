//! Commands: what callers may ask of the core, and what it answers.
//! Owns: the typed requests, decisions and refusals.
//! Never: carries a reply channel; that is the commit loop's business.

use std::fmt;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::agent_decide::{AgentCommand, AgentRefusal};
use super::connectors::{ConnectorCommand, ConnectorKind, Ingested};
use super::control::{ControlIntent, ControlResult};
use super::delivery::{Delivery, DeliveryCommand, RunReplyTarget, TargetKey};
use super::event::Failure;
use super::hooks::{HookCommand, HookDeadLetter};
use super::routes_loaded::RoutesLoaded;
use super::run::{Run, RunStatus};
use super::runtime_config::RuntimeInvalid;
use super::runtime_decide::RuntimeEdit;
use super::session_settings::SessionChange;
use super::task::{Task, TaskCommand};
use super::turn::QuestionAnswer;
use crate::ids::{DeliveryId, RunId, Seq, SessionId};
use crate::limits::{
    DELIVERIES_OPEN_MAX, QUEUED_RUNS_MAX, REPLY_TARGETS_MAX, RETENTION_HOLDS_MAX, SESSION_QUEUE_RUNS_MAX, SESSIONS_MAX,
};

/// Hashes of an idempotency key and of the request that came with it.
pub type IdempotencyKey = super::event::Idempotency;

/// Records that belong to a run without changing its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoteKind {
    /// Text for the caller.
    Output,
    /// A message of the transcript.
    Message,
    /// A call is about to leave the daemon.
    ActionRequest,
    /// The outcome of such a call.
    ActionResponse,
    /// What rules and mode say to a tool call.
    PermissionDecided,
    /// A tool call is about to run.
    ToolCallStarted,
    /// What a tool call gave.
    ToolCallFinished,
    /// A person is asked to allow a tool call.
    ApprovalRequested,
    /// A person is asked questions.
    QuestionAsked,
    /// The run waits for child agents.
    AgentsAwaited,
    /// Older messages are replaced by a summary.
    ContextCompacted,
    /// The run goes on with another route.
    RouteFailover,
    /// An answer does not fit the schema that was asked for, and the model is told so.
    OutputRejected,
}

impl NoteKind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::Output,
        Self::Message,
        Self::ActionRequest,
        Self::ActionResponse,
        Self::PermissionDecided,
        Self::ToolCallStarted,
        Self::ToolCallFinished,
        Self::ApprovalRequested,
        Self::QuestionAsked,
        Self::AgentsAwaited,
        Self::ContextCompacted,
        Self::RouteFailover,
        Self::OutputRejected,
    ];

    /// The record kind.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Output => "run.output",
            Self::Message => "message.appended",
            Self::ActionRequest => "external_action.request",
            Self::ActionResponse => "external_action.response",
            Self::PermissionDecided => "permission.decided",
            Self::ToolCallStarted => "tool_call.started",
            Self::ToolCallFinished => "tool_call.finished",
            Self::ApprovalRequested => "approval.requested",
            Self::QuestionAsked => "question.asked",
            Self::AgentsAwaited => "agents.awaited",
            Self::ContextCompacted => "context.compacted",
            Self::RouteFailover => "route.failover",
            Self::OutputRejected => "output.rejected",
        }
    }

    /// Whether it is about an external action, whose records are signed.
    pub fn is_action(self) -> bool {
        matches!(self, Self::ActionRequest | Self::ActionResponse)
    }

    /// Reads a record kind back.
    pub fn parse(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|note| note.as_str() == kind)
    }
}

/// One record for a run, written with the command that carries it.
#[derive(Debug, Clone)]
pub struct Note {
    /// Which record.
    pub kind: NoteKind,
    /// Its body.
    pub body: Box<RawValue>,
}

/// How a run ended, as its engine saw it.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// With a result.
    Completed,
    /// With an error.
    Failed(Failure),
}

/// Whose approvals or question a command means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// This run's.
    Run(RunId),
    /// Those of this session's active run.
    Session(SessionId),
}

/// One answer to a pending approval.
#[derive(Debug, Clone)]
pub struct Resolution {
    /// The approval.
    pub id: String,
    /// Allowed or denied.
    pub allow: bool,
    /// Arguments that replace the model's.
    pub updated_input: Option<Box<RawValue>>,
    /// Words of the person who decided.
    pub justification: Option<String>,
    /// A reason, shown to the model when denied.
    pub reason: Option<String>,
}

/// What a person says to a question.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The question's id.
    pub id: String,
    /// One for each question, unless declined.
    pub answers: Vec<QuestionAnswer>,
    /// The person would not answer.
    pub declined: bool,
    /// Words of the person.
    pub justification: Option<String>,
}

/// A request to change state.
#[derive(Debug, Clone)]
pub enum Command {
    /// Create a session, or return the one with this id.
    CreateSession {
        /// The caller's id; a generated one otherwise is the caller's business too.
        id: SessionId,
        /// Provider-side thread id.
        thread_id: Option<String>,
    },
    /// Accept a run.
    SubmitRun {
        /// The session.
        session: SessionId,
        /// The normalised submission.
        request: Box<RawValue>,
        /// Route id, resolved by the caller.
        route: String,
        /// Model, resolved by the caller.
        model: String,
        /// For repeated submissions.
        idempotency: Option<IdempotencyKey>,
        /// Where its output goes; the session's own targets where it names none.
        reply_targets: Vec<RunReplyTarget>,
    },
    /// Stop one run.
    CancelRun {
        /// The run.
        run: RunId,
        /// Operator's words.
        reason: Option<String>,
    },
    /// Stop the active run of a session.
    InterruptSession {
        /// The session.
        session: SessionId,
    },
    /// Accept no further input; stop what is active and what is queued.
    EndSession {
        /// The session.
        session: SessionId,
        /// Operator's words.
        reason: Option<String>,
    },
    /// Suspend or allow the starting of queued runs.
    SetHold {
        /// Whether to hold.
        held: bool,
        /// Operator's words.
        reason: Option<String>,
    },
    /// Change the runtime configuration.
    ChangeRuntime {
        /// What to change.
        edit: RuntimeEdit,
        /// Refuse when another revision is in force.
        expected_revision: Option<u64>,
    },
    /// Hold a run's evidence, or let it be removed again.
    SetRetentionHold {
        /// The run.
        run: RunId,
        /// Whether to hold.
        held: bool,
        /// Operator's words.
        reason: Option<String>,
    },
    /// Record which routes file the daemon was started with, if it is another one than before. Once, at start.
    NoteRoutes(RoutesLoaded),
    /// Change what a session has of its own.
    UpdateSession {
        /// The session.
        session: SessionId,
        /// What to change.
        change: SessionChange,
    },
    /// Record an external action outside an active run: a token refresh, a delivery, a connection. Its handle, for the
    /// response, is the position that [`Decision::Recorded`] tells of the request.
    RecordAction {
        /// The session and run that it serves, if any; a run may have ended.
        run: Option<RunId>,
        /// [`Note::action_request`] or [`Note::action_response`].
        note: Note,
    },
    /// Say of the daemon's own actions that were open when it ended that their outcome is not known. Once, at start.
    SettleActions,
    /// Record that something outside the journal is about to be changed. The change must wait for the outcome.
    ControlIntent {
        /// What, and what to.
        intent: ControlIntent,
        /// Whether it only takes rights away: then it is served from the reserve on a full disk.
        containment: bool,
    },
    /// Record what became of it; served from the reserve as its intent was.
    ControlResult {
        /// Which, and what.
        result: ControlResult,
        /// As of the intent.
        containment: bool,
    },
    /// Record something for an active run before going on.
    Record {
        /// The run.
        run: RunId,
        /// What to record, in order.
        notes: Vec<Note>,
    },
    /// End an active run, with all that belongs to its end in one batch.
    Finish {
        /// The run.
        run: RunId,
        /// What to record before the end, in order.
        notes: Vec<Note>,
        /// How it ended.
        outcome: Outcome,
    },
    /// Let an active run wait: the notes ask for approvals or ask a question.
    Suspend {
        /// The run.
        run: RunId,
        /// What to record before, in order.
        notes: Vec<Note>,
    },
    /// Give or refuse pending approvals of one run: all of the batch or none. The run goes on when none is left.
    ResolveApprovals {
        /// Whose.
        target: Target,
        /// At least one, each approval once.
        resolutions: Vec<Resolution>,
        /// For repeated answers.
        idempotency: Option<IdempotencyKey>,
    },
    /// Answer or decline the pending question of a run. That the answers fit the question is the caller's business.
    ResolveQuestion {
        /// Whose.
        target: Target,
        /// What the person says.
        answer: Box<Answer>,
        /// For repeated answers.
        idempotency: Option<IdempotencyKey>,
    },
    /// Withdraw the pending question of a run, which cancels the run.
    CancelQuestion {
        /// The run.
        run: RunId,
        /// The question's id.
        id: String,
        /// Words of the person.
        justification: Option<String>,
        /// For repeated requests.
        idempotency: Option<IdempotencyKey>,
    },
    /// Settle every pending approval as denied, of one session or of all: nobody is to be asked any more.
    DenyPending {
        /// Only this session's.
        session: Option<SessionId>,
        /// A code that the records carry, e.g. `permission_mode_dont_ask`.
        reason: String,
    },
    /// Settle what is past its deadline: approvals as denied; a question with the cancellation of its run.
    Expire {
        /// Runs to settle at most.
        limit: usize,
    },
    /// Make a child agent, or tell one something.
    Agent(AgentCommand),
    /// Note something about hooks.
    Hook(HookCommand),
    /// Change something about tasks.
    Task(Box<TaskCommand>),
    /// Change something about connectors, or accept what came through one.
    Connector(Box<ConnectorCommand>),
    /// Change something about deliveries.
    Delivery(Box<DeliveryCommand>),
    /// Start queued runs of sessions without an active one, and resume runs left active by a restart:
    /// at most `limit` of them. Does nothing while held.
    Pump {
        /// Runs to start or resume at most.
        limit: usize,
    },
}

impl Command {
    /// Whether it only stops work or holds it back. On a full disk such a command is served from the journal's reserve,
    /// so that an operator can still act.
    pub fn is_containment(&self) -> bool {
        match self {
            Self::ChangeRuntime { edit, .. } => return edit.is_containment(),
            Self::UpdateSession { change, .. } => return change.is_containment(),
            _ => {}
        }
        matches!(
            self,
            Self::CancelRun { .. }
                | Self::InterruptSession { .. }
                | Self::EndSession { .. }
                | Self::SetHold { held: true, .. }
                | Self::ControlIntent { containment: true, .. }
                | Self::ControlResult { containment: true, .. }
        ) || matches!(self, Self::Task(command) if matches!(**command, TaskCommand::Stop(..)))
            || matches!(self, Self::Connector(command)
                if matches!(**command, ConnectorCommand::Delete { .. } | ConnectorCommand::Hold { held: true, .. }))
            || matches!(self, Self::Delivery(command) if matches!(**command, DeliveryCommand::SetHold { held: true, .. }))
    }
}

/// What was decided; true once the batch is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The session exists.
    Session {
        /// Its number.
        number: u32,
        /// Whether this command created it.
        created: bool,
    },
    /// The run was accepted.
    Accepted {
        /// The run.
        run: RunId,
        /// Its session's number.
        session_number: u32,
        /// Place in the queue; 0 when it started.
        position: u32,
        /// When it was accepted.
        submitted_at_ms: u64,
    },
    /// An earlier submission with the same key and request made this run.
    Repeated {
        /// The run.
        run: RunId,
        /// Its session's number.
        session_number: u32,
        /// The run as it stands.
        state: Run,
    },
    /// The run is in this state now.
    Run {
        /// The run.
        run: RunId,
        /// Its state.
        status: RunStatus,
        /// Whether this command changed it.
        changed: bool,
    },
    /// The session was interrupted or ended.
    Stopped {
        /// The active run that was stopped.
        run: Option<RunId>,
        /// Queued runs that were cancelled.
        cancelled: u32,
        /// Whether this command changed anything.
        changed: bool,
    },
    /// The hold is in this state now.
    Hold {
        /// Whether runs are held.
        held: bool,
    },
    /// The runtime configuration is at this revision now.
    Runtime {
        /// Its number.
        revision: u64,
        /// Whether this command made it.
        changed: bool,
        /// Waiting approvals that were settled as denied.
        settled: u32,
    },
    /// The run's evidence is held or not now.
    RetentionHold {
        /// Whether it is held.
        held: bool,
        /// Whether this command changed it.
        changed: bool,
    },
    /// The routes file in force is on record.
    RoutesNoted {
        /// Whether it is another one than before.
        changed: bool,
        /// Since when it is in force, Unix milliseconds; none without one ever.
        since_ms: Option<u64>,
    },
    /// The session has these settings now.
    SessionUpdated {
        /// Whether this command changed something.
        changed: bool,
        /// Waiting approvals that were settled as denied.
        settled: u32,
    },
    /// Recorded.
    Recorded {
        /// The last record written.
        last_seq: Seq,
    },
    /// Approvals were settled.
    Settled {
        /// How many.
        count: u32,
    },
    /// The child agent exists.
    Spawned {
        /// Its number, which is its session's.
        number: u32,
        /// Its session.
        session: SessionId,
        /// Its first run, if it has one.
        run: Option<RunId>,
        /// Whether this command made it.
        created: bool,
    },
    /// The message is in the mailbox, or was before.
    Posted {
        /// Its id.
        id: String,
        /// Whether this command put it there.
        is_new: bool,
    },
    /// The dead letter of a hook is like this now.
    HookDeadLetter {
        /// The dead letter.
        letter: Arc<HookDeadLetter>,
        /// Whether this command changed it.
        changed: bool,
    },
    /// The task is like this now.
    Task(Arc<Task>),
    /// The connectors are at this revision now.
    Connectors {
        /// Its number.
        revision: u64,
    },
    /// What became of an event.
    Ingested(Box<Ingested>),
    /// The delivery is like this now; whether an earlier request had made it.
    Delivery(Box<Delivery>, bool),
    /// The failures of these targets are forgotten.
    TargetsReset(Vec<TargetKey>),
    /// Runs started or resumed.
    Pumped {
        /// How many.
        count: usize,
    },
}

/// Why a command was refused. The caller's mistake or a bound, never damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No such session.
    SessionNotFound(SessionId),
    /// The session was ended.
    SessionEnded(SessionId),
    /// [`SESSIONS_MAX`] reached.
    SessionLimit,
    /// [`SESSION_QUEUE_RUNS_MAX`] reached.
    SessionQueueFull(SessionId),
    /// [`QUEUED_RUNS_MAX`] reached, or run numbers are used up.
    RunQueueFull,
    /// Same key, other request.
    IdempotencyConflict {
        /// The run that the key made.
        run: RunId,
    },
    /// [`RETENTION_HOLDS_MAX`] reached.
    RetentionHoldLimit,
    /// Another runtime revision is in force than the caller expects.
    RuntimeRevisionConflict {
        /// The caller's.
        expected: u64,
        /// The one in force.
        current: u64,
    },
    /// No such runtime revision, or none before the one in force.
    RuntimeRevisionNotFound(Option<u64>),
    /// Settings that cannot be used.
    RuntimeInvalid(RuntimeInvalid),
    /// Something about agents.
    Agent(AgentRefusal),
    /// No such dead letter of a hook, or it is no longer kept.
    HookDeadLetterNotFound(String),
    /// No such run.
    RunNotFound(RunId),
    /// No such delivery, or it is no longer kept.
    DeliveryNotFound(String),
    /// The delivery is not in a state for this.
    DeliveryStateConflict {
        /// The delivery.
        id: DeliveryId,
        /// Which rule it is.
        reason: &'static str,
    },
    /// [`DELIVERIES_OPEN_MAX`] or [`REPLY_TARGETS_MAX`] reached.
    DeliveryLimit {
        /// Deliveries that are owed or wait for somebody to deal with them.
        open: usize,
    },
    /// The session has no such task, or it is no longer kept.
    TaskNotFound(String),
    /// The task is not in a state for this.
    TaskStateConflict {
        /// The task.
        id: String,
        /// Which rule it is.
        reason: &'static str,
    },
    /// A bound of tasks is reached.
    TaskLimit {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// No connector of this kind has that name, or it is not one of the runtime's.
    ConnectorNotFound {
        /// The kind.
        kind: ConnectorKind,
        /// The name.
        name: String,
    },
    /// Another revision of the connector is in force than the caller expects.
    ConnectorRevisionConflict {
        /// The caller's; 0 is none.
        expected: u64,
        /// The one in force; 0 is none.
        current: u64,
    },
    /// A bound of connectors is reached.
    ConnectorLimit {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// Nothing passes through connectors at the moment.
    ConnectorsHeld {
        /// Why.
        reason: Option<String>,
    },
    /// The run does not wait for an approval.
    ApprovalStateConflict {
        /// The run, if there is one.
        run: Option<RunId>,
        /// Its state.
        status: Option<RunStatus>,
    },
    /// A batch of answers without an answer.
    ApprovalBatchEmpty,
    /// A batch answers one approval twice.
    ApprovalDuplicate(String),
    /// The run has no such open approval.
    ApprovalNotPending(String),
    /// The run does not wait for an answer.
    QuestionStateConflict {
        /// The run, if there is one.
        run: Option<RunId>,
        /// Its state.
        status: Option<RunStatus>,
    },
    /// Another question is open.
    QuestionMismatch {
        /// Which one was answered.
        asked: String,
        /// Which one is open.
        pending: String,
    },
    /// The question's deadline has passed.
    QuestionExpired(String),
    /// The engine's records do not follow from those before.
    RecordConflict {
        /// The run.
        run: RunId,
        /// Why.
        reason: String,
    },
    /// The run is not in a state for this.
    RunStateConflict {
        /// The run.
        run: RunId,
        /// Its state.
        status: RunStatus,
    },
}

impl Refusal {
    /// Whether the run of a record waits for people, and will go on.
    pub fn is_wait_for_people(&self) -> bool {
        let Self::RunStateConflict { status, .. } = self else { return false };
        matches!(status, RunStatus::WaitingForApproval | RunStatus::WaitingForUserQuestion)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SessionNotFound(id) => {
                write!(f, "unknown session {id}; next: create it with POST /v1/sessions or list them")
            }
            Self::SessionEnded(id) => write!(f, "session {id} was ended; next: submit to another session"),
            Self::SessionLimit => {
                write!(f, "{SESSIONS_MAX} sessions exist, which is the limit; next: use a new state root")
            }
            Self::SessionQueueFull(id) => write!(
                f,
                "session {id} has {SESSION_QUEUE_RUNS_MAX} queued runs, which is the limit; next: wait, cancel some, \
                 or use another session"
            ),
            Self::RunQueueFull => write!(
                f,
                "{QUEUED_RUNS_MAX} runs are queued, which is the limit; next: release the hold or cancel some"
            ),
            Self::IdempotencyConflict { run } => {
                write!(f, "this idempotency key made {run} with another request; next: use a new key for a new request")
            }
            Self::RetentionHoldLimit => {
                write!(f, "the evidence of {RETENTION_HOLDS_MAX} runs is held, which is the limit; next: release some")
            }
            Self::RuntimeRevisionConflict { expected, current } => {
                write!(f, "runtime revision {current} is in force, not {expected}; next: read it again and decide anew")
            }
            Self::RuntimeRevisionNotFound(Some(number)) => {
                write!(f, "runtime revision {number} is not kept; next: see GET /v1/runtime/revisions")
            }
            Self::RuntimeRevisionNotFound(None) => {
                f.write_str("there is no earlier runtime revision; next: nothing is to be rolled back")
            }
            Self::RuntimeInvalid(invalid) => invalid.fmt(f),
            Self::Agent(refusal) => refusal.fmt(f),
            Self::HookDeadLetterNotFound(id) => {
                write!(f, "hooks have no dead letter {id:?}; next: list them with runtime hooks dead-letter")
            }
            Self::RunNotFound(run) => write!(f, "unknown run {run}; next: list runs"),
            Self::ApprovalStateConflict { run, status } => {
                conflict(f, *run, *status, "does not wait for an approval; next: list pending approvals")
            }
            Self::DeliveryNotFound(id) => {
                write!(
                    f,
                    "there is no delivery {id}, or it finished long ago; next: list deliveries, or read the run's records"
                )
            }
            Self::DeliveryStateConflict { id, reason } => write!(f, "{id}: {reason}; next: read it again"),
            Self::DeliveryLimit { open } => write!(
                f,
                "{open} deliveries are owed or dead, at most {DELIVERIES_OPEN_MAX}, and a run has at most \
                 {REPLY_TARGETS_MAX} reply targets; next: resolve or drop dead letters, or name fewer targets"
            ),
            Self::TaskNotFound(id) => write!(f, "the session has no task {id}; next: list its tasks"),
            Self::TaskStateConflict { id, reason } => write!(f, "task {id}: {reason}; next: read it again"),
            Self::TaskLimit { what, most } => {
                write!(f, "{most} {what} exist, which is the limit; next: end some, or wait for them")
            }
            Self::ConnectorNotFound { kind, name } => {
                write!(f, "no {kind} connector {name:?} was configured at runtime; next: list the connectors")
            }
            Self::ConnectorRevisionConflict { expected, current } => write!(
                f,
                "revision {current} of the connector is in force, not {expected}; next: read it again and decide anew"
            ),
            Self::ConnectorLimit { what, most } => {
                write!(f, "{most} {what} exist, which is the limit; next: delete connectors that are not needed")
            }
            Self::ConnectorsHeld { reason } => write!(
                f,
                "connectors are held ({}); next: check the restored state, then run `kheish-daemon connectors release`",
                reason.as_deref().unwrap_or("by an operator")
            ),
            Self::ApprovalBatchEmpty => f.write_str("the batch resolves nothing; next: name at least one approval"),
            Self::ApprovalDuplicate(id) => {
                write!(f, "approval {id} is resolved twice in one batch; next: name it once")
            }
            Self::ApprovalNotPending(id) => {
                write!(f, "approval {id} is not pending for this run; next: list pending approvals")
            }
            Self::QuestionStateConflict { run, status } => {
                conflict(f, *run, *status, "does not wait for an answer; next: list pending questions")
            }
            Self::QuestionMismatch { asked, pending } => {
                write!(f, "question {asked} is not pending, {pending} is; next: list pending questions")
            }
            Self::QuestionExpired(id) => {
                write!(f, "question {id} has expired and its run is being cancelled; next: submit again")
            }
            Self::RecordConflict { run, reason } => {
                write!(f, "{run}: {reason}; next: report this as a defect and submit the work again")
            }
            Self::RunStateConflict { run, status } => {
                write!(f, "{run} is {}; next: read it again before acting on it", status.as_str())
            }
        }
    }
}

fn conflict(f: &mut fmt::Formatter<'_>, run: Option<RunId>, status: Option<RunStatus>, what: &str) -> fmt::Result {
    match (run, status) {
        (Some(run), Some(status)) => write!(f, "{run} is {} and {what}", status.as_str()),
        _ => write!(f, "the session has no active run and {what}"),
    }
}

impl std::error::Error for Refusal {}
