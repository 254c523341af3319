//! What a decision needs to know of a tool.
//! Owns: the tables of tools that are asked about by default, that edit, and that are safe while planning.
//! Never: knows what a tool does beyond that.

use super::mode::Behavior;

/// A tool, as far as permissions are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// It changes workspace files and nothing else, so `acceptEdits` covers it.
    pub edits: bool,
    /// It only reads or coordinates, so `plan` lets it through.
    pub plan_safe: bool,
    /// What holds when no rule matches.
    pub default: Behavior,
}

const EDITS: &[&str] = &["write_file", "edit_file", "apply_patch"];

const MCP_HELPERS: &[&str] =
    &["list_mcp_resources", "list_mcp_resource_templates", "read_mcp_resource", "list_mcp_prompts", "get_mcp_prompt"];

const PLAN_SAFE: &[&str] = &[
    "read_file",
    "list_files",
    "glob_search",
    "grep_search",
    "web_fetch",
    "web_search",
    "list_skills",
    "read_channel_thread",
    "ask_operator",
    "ask_user_question",
    "request_parent_clarification",
    "spawn_agent",
    "list_agents",
    "list_agent_summaries",
    "message_agent",
    "answer_agent",
    "wait_agent",
    "get_agent",
    "enter_plan_mode",
    "exit_plan_mode",
    "task_get",
    "task_list",
    "task_output",
    "schedule_get",
    "schedule_list",
    "get_goal",
];

impl Facts {
    /// What holds for a tool of this name. A name that no table knows is allowed by default and not safe to plan with.
    pub fn of_name(name: &str) -> Self {
        let edits = EDITS.contains(&name);
        let is_helper = MCP_HELPERS.contains(&name);
        let asks = edits || is_helper || name == "bash" || name == "exit_plan_mode" || name.starts_with("mcp__");
        Self {
            edits,
            plan_safe: is_helper || PLAN_SAFE.contains(&name),
            default: if asks { Behavior::Ask } else { Behavior::Allow },
        }
    }
}

/// Tools that look at everything below their `base`; without one, at the whole workspace.
const SEARCHES: &[&str] = &["list_files", "glob_search", "grep_search"];

/// Whether `name` is one of [`SEARCHES`].
pub(super) fn is_search(name: &str) -> bool {
    SEARCHES.contains(&name)
}
