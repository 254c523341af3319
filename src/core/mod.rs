//! The functional core: sessions, runs, per-session queues, idempotency.
//! Owns: the meaning of every record that is not the journal's own, and the state folded from them.
//! May touch: nothing outside this folder but the pure `permissions`, `actor`, `ids`, `hex` and `limits`, the hash
//! function, and the signer that is handed in.
//! Never: reads a clock, a file, a socket or a random source; starts a thread; blocks.
//!
//! Commands go in ([`Command`]), events come out ([`Event`]), and [`Txn::apply`] is the only code that turns
//! an event into state: live traffic, replay and the simulation share it. A [`Txn`] stages one batch over the
//! committed [`State`]; a batch that could not be written is dropped with its transaction, never undone.

mod action;
mod agent;
mod agent_decide;
mod agent_scope;
mod agent_view;
mod approvals;
mod command;
mod connectors;
mod control;
mod decide;
mod delivery;
mod delivery_decide;
mod delivery_table;
mod delivery_view;
mod digest_map;
mod event;
mod hooks;
mod lag;
mod ledger;
mod questions;
mod receipts;
mod retention;
mod routes_loaded;
mod run;
mod runtime_config;
mod runtime_decide;
mod session;
mod session_settings;
mod snapshot;
mod state;
mod step;
mod task;
mod turn;
mod txn;
mod view;

/// Why deliveries are held in a state root that was copied or restored.
pub const COPIED_STATE_ROOT: &str = "copied_state_root";
/// Why connectors are held there.
pub const COPIED_CONNECTORS: &str = "the state root was copied or restored";
/// Why everything is held after `serve --hold`.
pub const STARTED_HELD: &str = "started with --hold";

/// Whether a hold of deliveries or connectors was begun by the start of the daemon: releasing the runtime ends it too.
fn is_hold_of_start(reason: &str) -> bool {
    [COPIED_STATE_ROOT, COPIED_CONNECTORS, STARTED_HELD].contains(&reason)
}

pub use action::{ActionRequest, ActionResponse, DAEMON_CHAIN, RECORD_TAIL_BYTES, SignedRecord, Signer, record_hash};
pub use agent::{AgentLink, ChildOf, Held, Mail, MailAcknowledged, MailRecord, Mailbox, Retention};
pub use agent_decide::{AgentCommand, AgentRefusal, MAILBOX_DELIVERY, Spawn, SpawnTask};
pub use agent_scope::{AgentScope, ScopeWish, ToolScope};
pub use agent_view::{AgentCounts, AgentPage, AgentQuery, AgentView};
pub use command::{Answer, Command, Decision, IdempotencyKey, Note, NoteKind, Outcome, Refusal, Resolution, Target};
pub use connectors::{
    BindingKey, Connector, ConnectorCommand, ConnectorDeleted, ConnectorKind, ConnectorPut, ConnectorRecord,
    Connectors, ConnectorsHold, ConnectorsHoldChanged, Ingest, IngestOutcome, Ingested, SessionBound,
};
pub use control::{ControlIntent, ControlOutcome, ControlResult};
pub use delivery::{
    AttemptOutcome, Delivery, DeliveryCommand, DeliveryCounts, DeliveryDead, DeliveryDelivered, DeliveryError,
    DeliveryFilter, DeliveryHoldChanged, DeliveryJob, DeliveryPolicy, DeliveryQueued, DeliveryRecord, DeliveryResolved,
    DeliveryRetrying, DeliveryStatus, ReplyPlugin, RunReplyTarget, TargetKey, TargetPressure, TargetsReset,
};
pub use delivery_table::DeliveryHold;
pub use delivery_view::{DeliveryItem, DeliveryPage, DeliveryQuery};
pub use event::{Body, DecodeError, Event, Failure, Idempotency, ResumeFinding};
pub use hooks::{
    HookAdvanced, HookCommand, HookDeadLetter, HookDeadLettered, HookFailure, HookLedger, HookNotified, HookProgress,
    HookRecord, HookResolved, HooksSetting,
};
pub use lag::{Idlest, QueuedBehind, idle_before};
pub use retention::{RetentionChanged, RetentionHold};
pub use routes_loaded::{RoutesInForce, RoutesLoaded};
pub use run::{Run, RunStatus, RunTable};
pub use runtime_config::{
    ChangeSource, DebugLevel, DebugSetting, MaxSandbox, McpServerState, Revision, RuntimeChange, RuntimeChanged,
    RuntimeConfig, RuntimeInvalid, Settings, SystemPrompt, ToolLimits,
};
pub use runtime_decide::RuntimeEdit;
pub use session::{Session, SessionStatus};
pub use session_settings::{InputContract, OutputContract, RoutePolicy, SessionChange, SessionSettings};
pub use snapshot::{Frozen, RestoreError};
pub use state::{Counts, State};
pub use step::{Call, CallPhase, PendingAgents, PendingApproval, PendingQuestion, Step};
pub use task::{
    ShellTask, Task, TaskCommand, TaskCounts, TaskCreated, TaskEnd, TaskFinished, TaskRecord, TaskStarted, TaskStatus,
    TaskStopRequested, TaskUpdated, Todo, TodosWritten,
};
pub use turn::{
    AgentsAwaited, ApprovalRequested, ApprovalResolved, BlobRef, CallFindings, CallOutcome, FormField,
    PermissionDecided, QuestionAnswer, QuestionAsked, QuestionOption, QuestionResolved, Ruling, RunWaiting,
    ToolCallFinished, ToolCallStarted, UserQuestion, WaitsFor,
};
pub use txn::{Delta, Txn};
pub use view::{Order, RunPage, RunPosition, RunQuery, SessionPage, SessionView, WaitingPage, WaitingRun};
