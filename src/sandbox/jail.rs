//! The steps by which a worker shuts itself in.
//! Owns: their order. Each is a wall by itself; docs/security-model.md says what each one stops.
//! May touch: this process and its own namespaces.
//! Never: goes on after a wall failed that the policy asks for. Only a probe does, which runs nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::features::{Feature, FeatureReport};
use super::memory;
use super::policy::Policy;
use super::root::{self, DEVICES, ETC_ENTRIES, PROGRAM_TREES};
use crate::limits::{SANDBOX_FIRST_PROCESS_IDS, SANDBOX_OOM_SCORE};
use crate::sys::jail::{self as own, Resource};
use crate::sys::landlock::{self, Access, Ruleset};
use crate::sys::namespaces::{self, Namespace};
use crate::sys::seccomp;

/// User and group id of a worker in its own user namespace.
const WORKER_ID: u32 = 1000;

/// How the number of processes is kept in bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessLimit {
    /// By the kernel, or not at all.
    Kernel,
    /// The first process of the pid namespace counts, and ends everything above the bound.
    Counted,
}

/// A jail being built.
#[derive(Debug)]
pub struct Jail {
    policy: Policy,
    features: Vec<FeatureReport>,
    scratch: Option<PathBuf>,
    /// Who counts processes.
    pub process_limit: ProcessLimit,
    runs_as_root: bool,
}

impl Jail {
    /// Nothing built yet.
    pub fn new(policy: Policy) -> Self {
        let runs_as_root = own::user_and_group().0 == 0;
        Self { policy, features: Vec::new(), scratch: None, process_limit: ProcessLimit::Kernel, runs_as_root }
    }

    /// What was built and what was not.
    pub fn features(&self) -> &[FeatureReport] {
        &self.features
    }

    /// Whether `wall` was built.
    pub fn has(&self, wall: Feature) -> bool {
        self.features.iter().any(|feature| feature.name == wall && feature.active)
    }

    /// The directory that the worker is for.
    pub fn workspace(&self) -> &Path {
        &self.policy.workspace
    }

    /// Bytes that all processes of the worker may hold together.
    pub fn total_memory_bytes(&self) -> u64 {
        self.policy.total_memory_bytes
    }

    /// Whether only a report is wanted.
    pub fn is_probe(&self) -> bool {
        self.policy.probe
    }

    /// The worker's own directory in the host's temp directory, where it has no private root.
    pub fn scratch(&self) -> Option<&Path> {
        self.scratch.as_deref()
    }

    /// Builds one wall if the policy asks for it.
    fn wall(&mut self, name: Feature, build: impl FnOnce(&mut Self) -> io::Result<String>) -> Result<(), String> {
        if !self.policy.wants(name) {
            return Ok(());
        }
        let (active, reason) = match build(self) {
            Ok(how) => (true, how),
            Err(error) => (false, error.to_string()),
        };
        self.features.push(FeatureReport { name, active, reason: reason.clone() });
        // A host that hides parts of /proc grants no fresh one; a worker without /proc is no weaker.
        if active || self.policy.probe || !name.is_wall() {
            return Ok(());
        }
        Err(format!("wall {} cannot be built: {reason}", serde_json::to_string(&name).expect("a name")))
    }

    /// What the outermost process does before it forks the first one of the pid namespace.
    ///
    /// # Errors
    /// The wall and why.
    pub fn outside(&mut self) -> Result<(), String> {
        // The host's memory is worth more than a tool: the kernel takes the worker first. Best effort, no wall.
        let _without = fs::write("/proc/self/oom_score_adj", SANDBOX_OOM_SCORE);
        self.wall(Feature::UserNamespace, |_| enter_user_namespace())?;
        self.wall(Feature::PidNamespace, |_| plain(namespaces::unshare(Namespace::Pid)))?;
        self.wall(Feature::MemoryLimit, |_| {
            memory::is_countable()?;
            Ok("summed up by its outermost process".to_string())
        })?;
        if !self.policy.wants(Feature::PrivateRoot) {
            self.scratch = Some(make_scratch().map_err(|error| format!("no private temp directory: {error}"))?);
        }
        Ok(())
    }

    /// What the first process of the pid namespace does for itself and all others.
    ///
    /// # Errors
    /// The wall and why.
    pub fn inside(&mut self) -> Result<(), String> {
        self.wall(Feature::IpcNamespace, |_| plain(namespaces::unshare(Namespace::Ipc)))?;
        self.wall(Feature::NetNamespace, |_| {
            namespaces::unshare(Namespace::Net)?;
            plain(namespaces::bring_up_loopback())
        })?;
        self.wall(Feature::HostNameNamespace, |_| {
            namespaces::unshare(Namespace::HostName)?;
            plain(namespaces::set_host_name("worker"))
        })?;
        // Before the host's /proc is out of sight: one of the ways is a file there.
        self.wall(Feature::ProcessLimit, Self::limit_processes)?;
        let mut proc_missing = Some("there is no private root to mount it in".to_string());
        self.wall(Feature::PrivateRoot, |jail| {
            namespaces::unshare(Namespace::Mount)?;
            proc_missing = root::enter(&jail.policy, jail.policy.wants(Feature::PrivateProc))?;
            Ok(String::new())
        })?;
        self.wall(Feature::PrivateProc, |_| {
            proc_missing.map_or(Ok(String::new()), |cause| Err(io::Error::other(cause)))
        })?;
        self.limit_resources().map_err(|error| format!("a resource limit cannot be set: {error}"))?;
        if self.process_limit == ProcessLimit::Counted && !self.has(Feature::PrivateProc) {
            let missing = "this kernel cannot bound it, and without /proc nobody can count";
            for feature in self.features.iter_mut().filter(|feature| feature.name == Feature::ProcessLimit) {
                (feature.active, feature.reason) = (false, missing.to_string());
            }
            if !self.policy.probe {
                return Err(format!("wall process_limit cannot be built: {missing}"));
            }
        }
        self.wall(Feature::CapabilitiesDropped, |_| plain(own::drop_capabilities()))?;
        self.wall(Feature::NoNewPrivileges, |_| plain(own::no_new_privileges()))?;
        self.wall(Feature::Landlock, Self::restrict_files)?;
        self.wall(Feature::LandlockScope, |_| {
            restrict_scope()?;
            Ok(String::new())
        })?;
        let internet = self.policy.network || self.has(Feature::NetNamespace);
        let ipc = self.has(Feature::IpcNamespace);
        self.wall(Feature::Seccomp, |_| plain(seccomp::restrict_self(seccomp::Allowed { internet, ipc })))?;
        if !self.policy.walls.is_empty() {
            own::set_dumpable(false).map_err(|error| format!("the worker's memory cannot be shut off: {error}"))?;
        }
        if let Some(scratch) = &self.scratch {
            own::set_environment("TMPDIR", scratch);
            own::set_environment("HOME", scratch);
        }
        let workspace = &self.policy.workspace;
        match std::env::set_current_dir(workspace) {
            Err(error) if !self.policy.probe => Err(format!("workspace {}: {error}", workspace.display())),
            _ => Ok(()),
        }
    }

    /// The kernel's own ways first. A limit per user holds from Linux 5.14 in a user namespace, but never for root.
    fn limit_processes(&mut self) -> io::Result<String> {
        if self.has(Feature::UserNamespace) && !self.runs_as_root && own::kernel_is_at_least(5, 14) {
            own::limit(Resource::Processes, self.policy.processes)?;
            return Ok("user limit in its own user namespace".to_string());
        }
        if !self.has(Feature::PidNamespace) {
            return Err(io::Error::other("it needs a pid namespace"));
        }
        // Ids up to this number are given once; later ones start above it again.
        let ids = SANDBOX_FIRST_PROCESS_IDS + self.policy.processes;
        if own::kernel_is_at_least(6, 14) && fs::write("/proc/sys/kernel/pid_max", ids.to_string()).is_ok() {
            return Ok("process ids of its own pid namespace".to_string());
        }
        self.process_limit = ProcessLimit::Counted;
        Ok("counted by its first process".to_string())
    }

    fn limit_resources(&self) -> io::Result<()> {
        own::limit(Resource::Core, 0)?;
        own::limit(Resource::Memory, self.policy.memory_bytes)?;
        own::limit(Resource::OpenFiles, self.policy.open_files)?;
        own::limit(Resource::FileSize, self.policy.file_bytes)?;
        own::limit(Resource::LockedMemory, 0)?;
        own::limit(Resource::MessageQueues, 0)
    }

    /// The second wall: the same list as the private root, checked by another part of the kernel.
    fn restrict_files(&mut self) -> io::Result<String> {
        let version = landlock::version()?;
        // Where the network is shut off by its namespace, TCP on its loopback stays: tests of many projects need it.
        let tcp = version >= 4 && !self.policy.network && !self.has(Feature::NetNamespace);
        let rules = Ruleset::new(version, true, tcp, false)?;
        let allow = |path: &Path, access: Access| match rules.allow(path, access) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        };
        for path in PROGRAM_TREES {
            allow(Path::new(path), Access::ReadExecute)?;
        }
        for path in &self.policy.read_only_paths {
            allow(path, Access::ReadExecute)?;
        }
        for path in DEVICES {
            allow(Path::new(path), Access::ReadWriteFile)?;
        }
        let is_private = self.has(Feature::PrivateRoot);
        if is_private {
            // Names are no secret where everything is on the list anyway.
            allow(Path::new("/"), Access::List)?;
            allow(Path::new("/etc"), Access::Read)?;
            allow(Path::new("/proc"), Access::Read)?;
        } else {
            // The host's /proc shows what every process of the user does: none of it.
            for path in ETC_ENTRIES {
                allow(Path::new(path), Access::Read)?;
            }
        }
        allow(self.scratch.as_deref().unwrap_or(Path::new("/tmp")), Access::All)?;
        let workspace = if self.policy.workspace_read_only { Access::ReadExecute } else { Access::All };
        allow(&self.policy.workspace, workspace)?;
        rules.restrict_self()?;
        Ok(format!("version {version}"))
    }
}

/// Shuts signals and abstract sockets in. A command that a tool starts puts this on itself once more, so that it
/// reaches neither the worker's memory nor its life.
///
/// # Errors
/// `ENOSYS` and alike on kernels without Landlock 6.
pub fn restrict_scope() -> io::Result<()> {
    let version = landlock::version()?;
    if version < 6 {
        return Err(io::Error::other(format!("Landlock version {version}, from 6 on")));
    }
    Ruleset::new(version, false, false, true)?.restrict_self()
}

fn plain(result: io::Result<()>) -> io::Result<String> {
    result.map(|()| String::new())
}

fn enter_user_namespace() -> io::Result<String> {
    let (user, group) = own::user_and_group();
    // Only root can; for others the groups stay, and open nothing that the root shows.
    let _cannot = own::drop_groups();
    namespaces::unshare(Namespace::User)?;
    let maps = [
        ("/proc/self/setgroups", "deny".to_string()),
        ("/proc/self/uid_map", format!("{WORKER_ID} {user} 1")),
        ("/proc/self/gid_map", format!("{WORKER_ID} {group} 1")),
    ];
    for (path, text) in maps {
        fs::write(path, text).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
    }
    Ok(format!("user {user} outside"))
}

/// A directory of its own in the host's temp directory. Its parent's sticky bit keeps others from replacing it.
fn make_scratch() -> io::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let path = Path::new("/tmp").join(format!("kheish-worker-{}", std::process::id()));
    let make = || fs::DirBuilder::new().mode(0o700).create(&path);
    match make() {
        // Left by a worker with this id that could not tidy up.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_dir_all(&path)?;
            make()?;
        }
        other => other?,
    }
    Ok(path)
}
