//! What hooks are called for.
//! Owns: the one table of events: their names, and which of them a hook can hold up.
//! Never: decides what a hook's answer does.

/// An event that hooks can be defined for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HookEvent {
    /// A tool call is about to run.
    PreToolUse,
    /// A tool call has a result.
    PostToolUse,
    /// A tool call has failed.
    PostToolUseFailure,
    /// A person is about to be asked to allow a tool call.
    PermissionRequest,
    /// A tool call was not allowed.
    PermissionDenied,
    /// A run is about to ask the model for the first time.
    UserPromptSubmit,
    /// The conversation is about to be summarised.
    PreCompact,
    /// It was.
    PostCompact,
    /// A run is about to end with a result.
    Stop,
    /// A run has failed.
    StopFailure,
    /// A session exists.
    SessionStart,
    /// A session exists that an agent has made.
    SubagentStart,
    /// A session takes no further input.
    SessionEnd,
    /// A task exists.
    TaskCreated,
    /// A task has ended.
    TaskCompleted,
    /// Somebody waits for a person.
    Notification,
    /// The runtime configuration was changed.
    ConfigChange,
}

/// Name, whether a hook can hold it up, and what a matcher is compared with.
type Row = (HookEvent, &'static str, bool, &'static str);

/// Every event.
const TABLE: [Row; 17] = [
    (HookEvent::PreToolUse, "pre_tool_use", true, "tool name"),
    (HookEvent::PostToolUse, "post_tool_use", true, "tool name"),
    (HookEvent::PostToolUseFailure, "post_tool_use_failure", true, "tool name"),
    (HookEvent::PermissionRequest, "permission_request", true, "tool name"),
    (HookEvent::PermissionDenied, "permission_denied", false, "tool name"),
    (HookEvent::UserPromptSubmit, "user_prompt_submit", true, "session id"),
    (HookEvent::PreCompact, "pre_compact", true, "trigger"),
    (HookEvent::PostCompact, "post_compact", false, "trigger"),
    (HookEvent::Stop, "stop", true, "session id"),
    (HookEvent::StopFailure, "stop_failure", false, "error code"),
    (HookEvent::SessionStart, "session_start", false, "session id"),
    (HookEvent::SubagentStart, "subagent_start", false, "session id"),
    (HookEvent::SessionEnd, "session_end", false, "session id"),
    (HookEvent::TaskCreated, "task_created", false, "task id"),
    (HookEvent::TaskCompleted, "task_completed", false, "task id"),
    (HookEvent::Notification, "notification", false, "what is waited for"),
    (HookEvent::ConfigChange, "config_change", false, "setting"),
];

impl HookEvent {
    /// All of them, in the order of the documentation.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.0 == self).expect("every event has its row")
    }

    /// The name in definitions.
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// Reads a name.
    pub fn parse(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// Whether what happens waits for its hooks' answers.
    pub fn is_gate(self) -> bool {
        self.row().2
    }

    /// What a matcher is compared with.
    pub fn subject(self) -> &'static str {
        self.row().3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_one_row_and_its_name_reads_back() {
        for event in HookEvent::all() {
            assert_eq!(HookEvent::parse(event.as_str()), Some(event));
            assert_eq!(TABLE.iter().filter(|row| row.0 == event || row.1 == event.as_str()).count(), 1, "{event:?}");
            assert!(!event.subject().is_empty());
        }
        assert_eq!(HookEvent::parse("worktree_create"), None);
    }
}
