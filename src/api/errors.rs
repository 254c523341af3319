//! From the core's answers to problem documents.
//! Owns: which code each refusal has; exhaustive, so a new refusal does not compile without one.
//! Never: reads a text back.

use crate::commit::CommandError;
use crate::core::{AgentRefusal, Refusal, RuntimeInvalid};
use crate::http::problem::{Problem, codes};
use crate::journal::ReadError;

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        let code = match &error {
            CommandError::Refused(refusal) => refusal_code(refusal),
            CommandError::Busy => &codes::CORE_BUSY,
            CommandError::StorageFull { .. } => &codes::STORAGE_FULL,
            CommandError::WriteFailed { .. } => &codes::SERVICE_UNAVAILABLE,
            CommandError::Poisoned { .. } => &codes::JOURNAL_POISONED,
            CommandError::TooLarge { .. } => &codes::PAYLOAD_TOO_LARGE,
            CommandError::NoAnswer { .. } | CommandError::Stopping => &codes::CORE_UNAVAILABLE,
        };
        let problem = Self::new(code, error.to_string());
        match code.status {
            429 | 503 | 507 => problem.header("retry-after", "1"),
            _ => problem,
        }
    }
}

fn refusal_code(refusal: &Refusal) -> &'static codes::Code {
    match refusal {
        Refusal::SessionNotFound(_) => &codes::SESSION_NOT_FOUND,
        Refusal::SessionEnded(_) => &codes::SESSION_ENDED,
        Refusal::SessionLimit => &codes::SESSION_LIMIT,
        Refusal::SessionQueueFull(_) => &codes::SESSION_QUEUE_FULL,
        Refusal::RunQueueFull => &codes::RUN_QUEUE_FULL,
        Refusal::RetentionHoldLimit => &codes::RUN_RETENTION_INVALID_REQUEST,
        Refusal::RuntimeRevisionConflict { .. } => &codes::RUNTIME_REVISION_CONFLICT,
        Refusal::RuntimeRevisionNotFound(_) => &codes::RUNTIME_REVISION_NOT_FOUND,
        Refusal::RuntimeInvalid(RuntimeInvalid::ToolLimit { .. }) => &codes::INVALID_TOOL_RUNTIME_LIMITS,
        Refusal::RuntimeInvalid(RuntimeInvalid::Rules(_)) => &codes::PERMISSION_RULES_INVALID,
        Refusal::RuntimeInvalid(_) => &codes::RUNTIME_VALIDATION_FAILED,
        Refusal::IdempotencyConflict { .. } => &codes::IDEMPOTENCY_CONFLICT,
        Refusal::HookDeadLetterNotFound(_) => &codes::HOOK_DEAD_LETTER_NOT_FOUND,
        Refusal::RunNotFound(_) => &codes::RUN_NOT_FOUND,
        Refusal::ApprovalStateConflict { .. } => &codes::APPROVAL_STATE_CONFLICT,
        Refusal::ApprovalBatchEmpty => &codes::APPROVAL_BATCH_EMPTY,
        Refusal::ApprovalDuplicate(_) => &codes::APPROVAL_DUPLICATE_RESOLUTION,
        Refusal::ApprovalNotPending(_) => &codes::APPROVAL_REQUEST_NOT_PENDING,
        Refusal::QuestionStateConflict { .. } => &codes::QUESTION_STATE_CONFLICT,
        Refusal::QuestionMismatch { .. } => &codes::QUESTION_REQUEST_MISMATCH,
        Refusal::QuestionExpired(_) => &codes::QUESTION_EXPIRED,
        Refusal::RecordConflict { .. } => &codes::INTERNAL_ERROR,
        Refusal::Agent(refusal) => match refusal {
            AgentRefusal::Policy { .. } => &codes::SPAWN_POLICY_DENIED,
            AgentRefusal::Scope(_) => &codes::AGENT_SCOPE_REFUSED,
            AgentRefusal::SessionTaken(_) => &codes::SESSION_EXISTS,
            AgentRefusal::Closed(_) => &codes::AGENT_CLOSED,
            AgentRefusal::MailboxFull(_) => &codes::MAILBOX_FULL,
            AgentRefusal::MailTaken(_) => &codes::MAILBOX_MESSAGE_CONFLICT,
            AgentRefusal::MailNotFound(_) => &codes::MAILBOX_MESSAGE_NOT_FOUND,
        },
        Refusal::DeliveryNotFound(_) => &codes::DELIVERY_NOT_FOUND,
        Refusal::DeliveryStateConflict { .. } => &codes::DELIVERY_STATE_CONFLICT,
        Refusal::DeliveryLimit { .. } => &codes::DELIVERY_LIMIT,
        Refusal::TaskNotFound(_) => &codes::TASK_NOT_FOUND,
        Refusal::TaskStateConflict { .. } => &codes::TASK_STATE_CONFLICT,
        Refusal::TaskLimit { .. } => &codes::TASK_LIMIT,
        Refusal::ConnectorNotFound { .. } => &codes::CONNECTOR_NOT_FOUND,
        Refusal::ConnectorRevisionConflict { .. } => &codes::CONNECTOR_REVISION_CONFLICT,
        Refusal::ConnectorLimit { .. } => &codes::CONNECTOR_LIMIT,
        Refusal::ConnectorsHeld { .. } => &codes::CONNECTORS_HELD,
        Refusal::RunStateConflict { .. } => &codes::RUN_STATE_CONFLICT,
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        log::error!("a record could not be read: {error}");
        Self::new(&codes::INTERNAL_ERROR, error.to_string())
    }
}
