//! Why a tool call failed, told so that the model can do better next time.
//! Owns: the error type and its codes.
//! Never: repeats file content or a path outside the workspace.

use std::fmt;

/// A failed call. The run goes on; the model sees the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolError {
    /// The arguments do not fit the schema.
    Arguments {
        /// Path of the field, for example `hunks[2].path`; empty for the arguments as a whole.
        field: String,
        /// What is wrong with it.
        cause: String,
        /// What it has to be.
        expected: String,
    },
    /// There is no such tool here.
    Unknown {
        /// The name that was called.
        tool: String,
    },
    /// The path leads out of the workspace, or is none.
    Path {
        /// As the model wrote it.
        path: String,
        /// Which rule it broke.
        cause: String,
    },
    /// The file or directory cannot be used.
    File {
        /// As the model wrote it.
        path: String,
        /// Stable code: `not_found`, `not_a_file`, `unreadable`, …
        code: &'static str,
        /// What was found.
        cause: String,
    },
    /// The call is well formed and cannot be done.
    Refused {
        /// Stable code.
        code: &'static str,
        /// What stands in the way.
        cause: String,
        /// What the model can do.
        next: String,
    },
    /// The time was up.
    TimedOut {
        /// What had been done by then.
        done: String,
    },
    /// The call was cancelled.
    Cancelled,
}

impl ToolError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Arguments { .. } => "invalid_arguments",
            Self::Unknown { .. } => "unknown_tool",
            Self::Path { .. } => "path_refused",
            Self::File { code, .. } | Self::Refused { code, .. } => code,
            Self::TimedOut { .. } => "timed_out",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arguments { field, cause, expected } if field.is_empty() => {
                write!(f, "arguments: {cause}; next: send {expected}")
            }
            Self::Arguments { field, cause, expected } => {
                write!(f, "argument {field}: {cause}; next: send {expected}")
            }
            Self::Unknown { tool } => write!(f, "there is no tool {tool:?}; next: use one of the offered tools"),
            Self::Path { path, cause } => {
                write!(f, "path {path:?}: {cause}; next: name a path inside the workspace")
            }
            Self::File { path, cause, .. } => {
                write!(f, "{path:?}: {cause}; next: look with list_files, then use another path")
            }
            Self::Refused { cause, next, .. } => write!(f, "{cause}; next: {next}"),
            Self::TimedOut { done } => write!(f, "the time was up {done}; next: ask for less at once"),
            Self::Cancelled => f.write_str("the call was cancelled; next: wait for new instructions"),
        }
    }
}

impl std::error::Error for ToolError {}
