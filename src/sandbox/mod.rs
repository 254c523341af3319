//! The room in which everything runs that a model asks for on files or processes.
//! Owns: what a sandbox is asked to be, what this kernel offers of it, and the worker processes.
//! May touch: child processes of this same binary, and nothing else of the host.
//! Never: weakens a policy. A wall that cannot be built is reported, and where it was promised the worker is refused.
//!
//! A worker is this binary started as `kheish-daemon __tool-worker <policy>` with a cleared environment and one inherited
//! descriptor, its end of a socket pair. It jails itself after exec, before it reads its first message. The daemon's
//! side is [`ToolWorker`]; docs/security-model.md says what the walls promise.

use std::fmt;
use std::path::PathBuf;

mod frame;
pub mod inside;
mod tool_worker;

pub use inside::ToolOutput;
pub use tool_worker::{ToolWorker, WorkerError};

use crate::limits::{
    SANDBOX_FILE_BYTES_MAX, SANDBOX_MEMORY_BYTES_MAX, SANDBOX_OPEN_FILES_MAX, SANDBOX_PROCESSES_MAX,
    SANDBOX_SCRATCH_BYTES_MAX,
};

/// The hidden verb under which the binary becomes a worker.
pub const WORKER_VERB: &str = "__tool-worker";

/// How much sandbox is asked for (`--sandbox`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// Every wall, or no tool runs.
    Required,
    /// The strongest that the kernel offers; what is missing is reported.
    #[default]
    Auto,
    /// None: tools run with the rights of the daemon's user.
    Off,
}

impl Level {
    /// Reads the value of `--sandbox`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "required" => Some(Self::Required),
            "auto" => Some(Self::Auto),
            "off" => Some(Self::Off),
            _ => None,
        }
    }

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Auto => "auto",
            Self::Off => "off",
        }
    }
}

/// What the processes of one worker may use, all together where the kernel can count so, else each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Address space of one process, bytes.
    pub memory_bytes: u64,
    /// Open files of one process.
    pub open_files: u64,
    /// Size of any file written, bytes.
    pub file_bytes: u64,
    /// Processes and threads of the worker.
    pub processes: u64,
}

impl Default for ResourceLimits {
    fn default() -> Self {
        Self {
            memory_bytes: SANDBOX_MEMORY_BYTES_MAX,
            open_files: SANDBOX_OPEN_FILES_MAX,
            file_bytes: SANDBOX_FILE_BYTES_MAX,
            processes: SANDBOX_PROCESSES_MAX,
        }
    }
}

/// What one worker is to be.
#[derive(Debug, Clone)]
pub struct SandboxSpec {
    /// The workspace, canonical; the only place of the host that can be written, under its own path.
    pub workspace: PathBuf,
    /// The workspace can only be read.
    pub workspace_read_only: bool,
    /// How much sandbox is asked for.
    pub level: Level,
    /// The host's network can be used. The configuration decides where that is refused.
    pub network: bool,
    /// Size of the private temp directory, bytes.
    pub scratch_bytes: u64,
    /// Resource limits.
    pub limits: ResourceLimits,
    /// The binary to start: this one.
    pub program: PathBuf,
}

impl SandboxSpec {
    /// A worker of this binary on `workspace`: writable, no network, default limits.
    pub fn new(workspace: PathBuf, level: Level) -> Self {
        Self {
            workspace,
            workspace_read_only: false,
            level,
            network: false,
            scratch_bytes: SANDBOX_SCRATCH_BYTES_MAX,
            limits: ResourceLimits::default(),
            // Not current_exe(): the file may have been replaced by an upgrade, this is the one that runs.
            program: PathBuf::from("/proc/self/exe"),
        }
    }
}

/// Why no worker could be started.
#[derive(Debug)]
pub enum SandboxError {
    /// The process could not be started.
    Start {
        /// What the operating system said.
        cause: String,
    },
    /// The worker could not build a wall that the policy promises.
    Refused {
        /// Which, and why.
        cause: String,
    },
}

impl SandboxError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Start { .. } => "sandbox_start_failed",
            Self::Refused { .. } => "sandbox_refused",
        }
    }
}

impl fmt::Display for SandboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { cause } => write!(
                f,
                "tool worker: cannot be started: {cause}; next: check the limits of processes and memory of the daemon"
            ),
            Self::Refused { cause } => write!(
                f,
                "tool worker: {cause}; next: see `sandbox` in `kheish-daemon status` and docs/security-model.md"
            ),
        }
    }
}

impl std::error::Error for SandboxError {}
