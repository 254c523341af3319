//! The tools that a model is offered: one table, and the code that runs in the sandbox worker.
//! Owns: names, schemas and classes of the tools; argument checks; results and their bounds.
//! May touch: files and processes of a workspace, inside the worker only; `crate::sys` for it.
//! Never: decides whether a call is permitted; reaches the network; names a path outside its workspace.

mod capture;
mod edit;
mod error;
mod glob;
mod hook;
mod ignore;
mod offered;
mod output;
pub mod process;
pub mod prompt;
mod read;
mod schema;
mod search;
mod shell;
mod table;
mod target;
mod walk;
mod workspace;

use std::time::{Duration, Instant};

use serde_json::value::RawValue;

pub use error::ToolError;
pub use hook::{HOOK, HookCall, HookEnded, hook};
pub use offered::{RoomTool, Tool};
pub use output::ToolOutput;
pub(crate) use output::{cut_bytes, cut_escaped};
pub use table::TOOLS;
pub use workspace::Workspace;

use crate::permissions::Facts;
use crate::providers::ToolSpec;

/// Where a tool runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the sandboxed worker of the run, through [`run`].
    Worker,
    /// In the daemon itself: it touches no file and no process of the workspace.
    Daemon,
}

/// What a tool can do, for permission modes and lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Reads the workspace or the daemon's own lists.
    ReadOnly,
    /// Changes files of the workspace.
    Edit,
    /// Starts processes.
    Shell,
    /// Reaches the network.
    Network,
    /// Changes what the daemon keeps for the session, or talks to people.
    Control,
}

impl Class {
    /// The name in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read_only",
            Self::Edit => "edit",
            Self::Shell => "shell",
            Self::Network => "network",
            Self::Control => "control",
        }
    }
}

pub use crate::permissions::Behavior;

/// One tool, of the table or made from a [`Tool`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToolDef<'t> {
    /// Name as the model calls it.
    pub name: &'t str,
    /// What it does, for the model.
    pub description: &'t str,
    /// JSON Schema of its arguments.
    pub input_schema: &'t str,
    /// Where it runs.
    pub place: Place,
    /// What it can do.
    pub class: Class,
    /// Longest time of a call in milliseconds. [`timeout_ms`] knows the time of one call.
    pub timeout_ms: u64,
    /// Running it again after a crash changes nothing that the first time did not.
    pub idempotent: bool,
    /// May run beside other calls of the same turn.
    pub parallel: bool,
    /// Stays available in plan mode.
    pub plan_safe: bool,
    /// What holds when no rule matches: allow or ask.
    pub default_rule: Behavior,
}

impl ToolDef<'_> {
    /// What a permission decision needs to know of it.
    pub fn facts(&self) -> Facts {
        Facts { edits: self.class == Class::Edit, plan_safe: self.plan_safe, default: self.default_rule }
    }
}

/// The tool with this name.
pub fn find(name: &str) -> Option<&'static ToolDef<'static>> {
    TOOLS.iter().find(|def| def.name == name)
}

/// The tools that `offered` takes, as a provider is told of them.
pub fn specs(offered: impl Fn(&ToolDef) -> bool) -> Vec<ToolSpec> {
    let spec = |def: &ToolDef<'static>| ToolSpec {
        name: def.name.to_string(),
        description: def.description.to_string(),
        input_schema: def.input_schema.into(),
    };
    TOOLS.iter().filter(|def| offered(def)).map(spec).collect()
}

/// What a model wrote as arguments, as JSON; nothing at all counts as `{}`.
///
/// # Errors
/// It is no JSON object or too long; the text is for the model.
pub fn arguments(text: &str) -> Result<Box<RawValue>, ToolError> {
    schema::arguments(text)
}

/// Checks `input` against the tool's schema before anybody is asked for permission.
///
/// # Errors
/// Names the field and what is expected of it.
pub fn check(def: &ToolDef, input: &RawValue) -> Result<(), ToolError> {
    schema::check(def.input_schema, input)
}

/// Where this call runs: a command for the background is the daemon's, since it outlives the run's worker.
pub fn place(def: &ToolDef, input: &RawValue) -> Place {
    let in_background = || schema::field(input, "run_in_background").is_some_and(|value| value == true);
    if def.class == Class::Shell && in_background() { Place::Daemon } else { def.place }
}

/// Milliseconds that this call gets.
pub fn timeout_ms(def: &ToolDef, input: &RawValue) -> u64 {
    let asked = schema::field(input, "timeout_ms").and_then(|value| value.as_u64());
    match asked {
        Some(asked) if def.class == Class::Shell => asked.min(def.timeout_ms),
        None if def.class == Class::Shell => crate::limits::TOOL_SHELL_TIMEOUT_MS_DEFAULT.min(def.timeout_ms),
        _ => def.timeout_ms,
    }
}

/// How a running call is bounded.
#[derive(Debug)]
pub struct Control {
    deadline: Instant,
}

impl Control {
    /// A call that ends within `limit_ms` milliseconds.
    pub fn new(limit_ms: u64) -> Self {
        let limit_ms = limit_ms.max(crate::limits::TOOL_TIMEOUT_MS_MIN);
        Self { deadline: Instant::now() + Duration::from_millis(limit_ms) }
    }

    /// What is left of the time.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Whether the time is up.
    pub fn is_over(&self) -> bool {
        self.remaining().is_zero()
    }

    /// Waits for somebody else for a moment.
    fn pause(&self, limit_ms: u64) -> Result<(), ToolError> {
        if self.is_over() {
            return Err(ToolError::TimedOut { done: "while waiting for a file".to_string() });
        }
        let limit = Duration::from_millis(limit_ms).min(self.remaining());
        // Nothing is waited for but the time itself.
        drop(crate::sys::process::wait_readable(&[], limit));
        Ok(())
    }
}

/// Runs a call of [`Place::Worker`] on the workspace. Never panics on what a model wrote or a file holds: a mistake is an
/// output that says so.
pub fn run(def: &ToolDef, input: &RawValue, workspace: &Workspace, control: &Control) -> ToolOutput {
    let result = check(def, input).and_then(|()| match def.name {
        "read_file" => read::read(input, workspace, control),
        "write_file" => edit::write(input, workspace, control),
        "edit_file" => edit::edit(input, workspace, control),
        "apply_patch" => edit::patch(input, workspace, control),
        "list_files" => search::list(input, workspace, control),
        "glob_search" => search::glob(input, workspace, control),
        "grep_search" => search::grep(input, workspace, control),
        "bash" => shell::bash(input, workspace, control),
        other => Err(ToolError::Unknown { tool: other.to_string() }),
    });
    result.unwrap_or_else(ToolOutput::from)
}

/// The longest end of `text` that takes at most `bytes_max` bytes inside a JSON string.
pub fn cut_tail(text: &str, bytes_max: usize) -> &str {
    output::cut_escaped_tail(text, bytes_max)
}

/// Checked arguments as a type.
///
/// # Errors
/// They were not checked.
pub fn parse<'de, T: serde::Deserialize<'de>>(input: &'de RawValue) -> Result<T, ToolError> {
    serde_json::from_str(input.get()).map_err(|error| ToolError::Arguments {
        field: String::new(),
        cause: error.to_string(),
        expected: "the fields of the tool's schema".to_string(),
    })
}
