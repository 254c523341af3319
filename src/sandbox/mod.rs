//! The room in which everything runs that a model asks for on files or processes.
//! Owns: what a sandbox is asked to be, what this kernel offers of it, and the worker processes.
//! May touch: child processes of this same binary, and nothing else of the host.
//! Never: weakens a policy. A wall that cannot be built is reported, and where it was promised the worker is refused.
//!
//! A worker is this binary started as `kheish-daemon __tool-worker <policy>` with a cleared environment and one inherited
//! descriptor, its end of a socket pair. It jails itself after exec, before it reads its first message. The daemon's
//! side is [`ToolWorker`]; docs/security-model.md says what the walls promise.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

mod features;
pub(crate) mod frame;
pub mod inside;
mod jail;
mod memory;
mod offer;
pub mod places;
mod policy;
mod root;
mod supervise;
mod tool_worker;

pub use features::{Feature, FeatureReport, Strength};
pub use offer::{Sandbox, SandboxReport, SandboxSettings};
pub use supervise::ended_by_memory;
pub use tool_worker::{ToolWorker, WorkerError, worker_command};

use crate::limits::{
    SANDBOX_FILE_BYTES_MAX, SANDBOX_MEMORY_BYTES_MAX, SANDBOX_OPEN_FILES_MAX, SANDBOX_PROCESSES_MAX,
    SANDBOX_SCRATCH_BYTES_MAX, SANDBOX_TOTAL_MEMORY_BYTES_MAX,
};

/// The hidden verb under which the binary becomes a worker.
pub const WORKER_VERB: &str = "__tool-worker";

/// All that is in a worker's environment. HOME and TMPDIR are its private temp directory.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/tmp"),
    ("TMPDIR", "/tmp"),
    ("LANG", "C.UTF-8"),
];

/// Has `command`, which a tool starts inside a worker, shut itself off from the worker's own process: it can neither
/// signal it nor look into it (Landlock 6; on older kernels the command starts without that).
pub fn shut_command_in(command: &mut Command) {
    crate::sys::jail::before_exec(command, || {
        // What cannot be had here was reported at start.
        let _older_kernel = jail::restrict_scope();
        Ok(())
    });
}

/// How much sandbox is asked for (`--sandbox`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "snake_case")]
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
    /// Private writable memory of one process, bytes.
    pub memory_bytes: u64,
    /// Anonymous and shared memory of all processes, bytes.
    pub total_memory_bytes: u64,
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
            total_memory_bytes: SANDBOX_TOTAL_MEMORY_BYTES_MAX,
            open_files: SANDBOX_OPEN_FILES_MAX,
            file_bytes: SANDBOX_FILE_BYTES_MAX,
            processes: SANDBOX_PROCESSES_MAX,
        }
    }
}

/// Which walls a worker must build. One that it cannot build is an error, never left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Walls {
    /// All.
    All,
    /// Those that a probe found on this kernel.
    Probed(Vec<Feature>),
    /// None (`--sandbox off`).
    None,
}

/// What one worker is to be.
#[derive(Debug, Clone)]
pub struct SandboxSpec {
    /// The workspace, canonical; the only place of the host that can be written, under its own path.
    pub workspace: PathBuf,
    /// Device and inode that the workspace must turn out to be, where somebody inside a larger one could have put
    /// something else in its place. Needs the private root.
    pub workspace_identity: Option<(u64, u64)>,
    /// The workspace can only be read.
    pub workspace_read_only: bool,
    /// Further places that can be read and executed from, canonical.
    pub read_only_paths: Vec<PathBuf>,
    /// The walls.
    pub walls: Walls,
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
    /// A worker of this binary on `workspace`: writable, no network, default limits. [`Sandbox::spec`] gives one that
    /// fits this kernel.
    pub fn new(workspace: PathBuf, walls: Walls) -> Self {
        Self {
            workspace,
            workspace_identity: None,
            workspace_read_only: false,
            read_only_paths: Vec::new(),
            walls,
            network: false,
            scratch_bytes: SANDBOX_SCRATCH_BYTES_MAX,
            limits: ResourceLimits::default(),
            // Not current_exe(): the file may have been replaced by an upgrade, this is the one that runs.
            program: PathBuf::from("/proc/self/exe"),
        }
    }

    /// Refuses what these walls cannot express.
    fn check(&self) -> Result<(), SandboxError> {
        let unexpressible = |what: String| Err(SandboxError::Unexpressible { what });
        let has = |wall: Feature| match &self.walls {
            Walls::All => true,
            Walls::Probed(walls) => walls.contains(&wall),
            Walls::None => false,
        };
        let workspace = self.workspace.display();
        if !self.workspace.is_absolute() || self.workspace.components().any(|part| part == Component::ParentDir) {
            return unexpressible(format!("workspace {workspace}: no canonical path"));
        }
        // Granting the whole host, or one of the places that the root is made of, is no workspace.
        let is_system = [Path::new("/proc"), Path::new("/sys"), Path::new("/dev")]
            .iter()
            .any(|place| self.workspace.starts_with(place));
        let holds_system = ["/usr", "/etc", "/tmp", "/proc", "/dev", "/bin", "/lib", "/run", "/var"]
            .iter()
            .any(|place| Path::new(place).starts_with(&self.workspace));
        if is_system || holds_system {
            return unexpressible(format!("workspace {workspace}: it is, or holds, a part of the system"));
        }
        if self.workspace_read_only && !has(Feature::PrivateRoot) && !has(Feature::Landlock) {
            return unexpressible(format!("workspace {workspace} read-only: it needs a private root or Landlock"));
        }
        if self.workspace_identity.is_some() && !has(Feature::PrivateRoot) {
            return unexpressible(format!("workspace {workspace} as a part of a larger one: it needs a private root"));
        }
        if !matches!(self.walls, Walls::None) && !self.network && !has(Feature::NetNamespace) && !has(Feature::Seccomp)
        {
            return unexpressible("no network: it needs a net namespace or the system-call filter".to_string());
        }
        Ok(())
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
    /// The policy asks for something that the walls of this kernel cannot express.
    Unexpressible {
        /// What.
        what: String,
    },
    /// This kernel offers less than `--sandbox` asks for.
    Unavailable {
        /// What is asked for.
        level: Level,
        /// The missing walls with their reasons.
        missing: String,
    },
}

impl SandboxError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Start { .. } => "sandbox_start_failed",
            Self::Refused { .. } => "sandbox_refused",
            Self::Unexpressible { .. } => "sandbox_policy_unexpressible",
            Self::Unavailable { .. } => "sandbox_unavailable",
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
            Self::Unexpressible { what } => {
                write!(
                    f,
                    "tool worker: {what}; next: change the grant, docs/security-model.md says what each wall can do"
                )
            }
            Self::Unavailable { level, missing } => write!(
                f,
                "tool worker: --sandbox {} cannot be had here: {missing}; next: allow user namespaces and Landlock on this \
                 host, or choose a weaker --sandbox knowingly (docs/security-model.md)",
                level.name()
            ),
        }
    }
}

impl std::error::Error for SandboxError {}
