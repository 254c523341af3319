//! Bounds of agents: depth, number, scopes, mailboxes.
//! Owns: numbers, each with its reason.
//! Never: reads configuration.

// --- agents ----------------------------------------------------------------------------------

/// Levels of agents below a session's root agent; a deeper one is refused with 429 `spawn_policy_denied`.
pub const AGENT_DEPTH_MAX: u32 = 4;
/// Open children of one agent; the next one is refused with 429 `spawn_policy_denied`.
pub const AGENT_CHILDREN_OPEN_MAX: usize = 6;
/// Open agents below one root agent. What ends with their root ends in one batch, so they are few.
pub const AGENT_DESCENDANTS_OPEN_MAX: usize = 24;
/// Agents that one run may make: a model that only delegates is stopped.
pub const AGENT_SPAWNS_PER_RUN_MAX: usize = 6;
/// Open child agents of the whole daemon; the next one is refused with 429 `spawn_policy_denied`.
pub const AGENTS_OPEN_MAX: u64 = 128;
/// Runs waiting in a child agent's session; the next one is refused with 429 `session_queue_full`. Small, since they are
/// cancelled in the batch that ends the parent.
pub const AGENT_QUEUE_RUNS_MAX: u32 = 64;
/// Name of a child agent.
pub const AGENT_NAME_BYTES_MAX: usize = 64;
/// Tools in one list of a scope.
pub const AGENT_SCOPE_TOOLS_MAX: usize = 64;
/// One tool pattern of a scope.
pub const AGENT_SCOPE_TOOL_BYTES_MAX: usize = 128;
/// Routes in a scope.
pub const AGENT_SCOPE_ROUTES_MAX: usize = 16;
/// Directory of a child agent, relative to its parent's.
pub const AGENT_WORKSPACE_BYTES_MAX: usize = 1_024;
/// What a child agent is told to do, and what an agent tells another one.
pub const AGENT_TASK_BYTES_MAX: usize = 64 * 1024;
/// Longest wait of a model for its child agents. It holds no thread.
pub const AGENT_WAIT_MS_MAX: u64 = 60 * 60 * 1_000;
/// The same when the model does not say.
pub const AGENT_WAIT_MS_DEFAULT: u64 = 10 * 60 * 1_000;
/// What is shown to its parent of a child's last output.
pub const AGENT_OUTPUT_SHOWN_BYTES: usize = 32 * 1024;
/// Records of a run looked at to find its last output.
pub const AGENT_OUTPUT_RECORDS_MAX: usize = 64;
/// Agents on one page.
pub const AGENT_PAGE_MAX: usize = 200;
/// Messages that wait in a mailbox, those under way included; the next one is refused with 429 `mailbox_full`.
pub const MAILBOX_MESSAGES_MAX: usize = 64;
/// Bytes of the messages that wait in a mailbox: they are kept in memory.
pub const MAILBOX_BYTES_MAX: usize = 256 * 1024;
/// Messages that could not be delivered and are kept; the oldest go first.
pub const MAILBOX_DEAD_MAX: usize = 32;
/// Id, sender or subject of a message.
pub const MAILBOX_LABEL_BYTES_MAX: usize = 256;
/// Longest life of a message that nobody takes: thirty days.
pub const MAILBOX_EXPIRY_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1_000;
const _: () = assert!(MAILBOX_BYTES_MAX >= AGENT_TASK_BYTES_MAX, "the largest message fits into an empty mailbox");
