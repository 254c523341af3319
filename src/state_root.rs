//! The state root: one directory, one format, one process.
//! Owns: `daemon.lock`, `FORMAT`, the modes and owner of the root and its directories.
//! May touch: nothing inside the directories but the probe's leftovers; their rooms own them.
//! Never: opens a root that another process holds, a newer build wrote, or others may read.

use std::fmt;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fs2::FileExt;
use serde::Serialize;

use crate::clock::{Clock, SystemClock};
use crate::limits::STATE_ROOT_SMALL_FILE_BYTES_MAX;
use crate::sys::{self, FileSystemFigures};

pub mod probe;
pub mod replace;
#[cfg(test)]
pub(crate) mod scratch;

use replace::{ReplaceError, atomic_replace, clear_leftover, sync_directory};

/// The format this build reads and writes.
pub const FORMAT_VERSION: u32 = 1;
/// The file that says which format.
pub const FORMAT_FILE: &str = "FORMAT";
/// What a file system makes at its top; it is not ours.
pub const LOST_AND_FOUND: &str = "lost+found";
/// The file that is locked.
pub const LOCK_FILE: &str = "daemon.lock";
const MECHANISM: &str = "flock";
/// Files that may be placed in a root before its first start: a kept signing key and its public half.
const PLACED_BEFORE_START: [&str; 2] = ["audit-signing.key", "audit-signing.pub.pem"];

/// The directories of a state root; each belongs to one room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directory {
    /// Segments of the log.
    Journal,
    /// Folded state.
    Snapshots,
    /// Content-addressed bytes.
    Blobs,
    /// What was captured for debugging.
    Debug,
    /// The encrypted auth store.
    Auth,
    /// Who was let in and who was refused.
    ControlPlaneAuth,
    /// Where the write probe writes.
    Probe,
    /// Output of background commands.
    ShellTasks,
}

impl Directory {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Journal,
        Self::Snapshots,
        Self::Blobs,
        Self::Debug,
        Self::Auth,
        Self::ControlPlaneAuth,
        Self::Probe,
        Self::ShellTasks,
    ];

    /// Its name below the root.
    pub fn name(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Snapshots => "snapshots",
            Self::Blobs => "blobs",
            Self::Debug => "debug",
            Self::Auth => "auth",
            Self::ControlPlaneAuth => "control-plane-auth",
            Self::Probe => "probe",
            Self::ShellTasks => "shell-tasks",
        }
    }
}

/// Who holds a state root, as far as `daemon.lock` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Process id on `host`.
    pub pid: u32,
    /// Host name, which matters on shared storage and in containers.
    pub host: String,
}

/// The lock as `/v1/status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LockStatus {
    /// Path of `daemon.lock`.
    pub path: String,
    /// Whether the file at the path is still the one that is locked. Who removes or replaces it lets a second daemon in.
    pub held: bool,
    /// `flock`.
    pub mechanism: &'static str,
}

/// Tells whether the lock of an open root still stands at its path.
#[derive(Debug, Clone)]
pub struct LockWatch {
    path: PathBuf,
    /// Device and inode of the locked file.
    identity: (u64, u64),
}

impl LockWatch {
    /// Looks at the path once.
    pub fn look(&self) -> LockStatus {
        let found = fs::symlink_metadata(&self.path).map(|found| (found.dev(), found.ino()));
        LockStatus {
            path: self.path.display().to_string(),
            held: found.is_ok_and(|found| found == self.identity),
            mechanism: MECHANISM,
        }
    }
}

/// Why a state root was not opened.
#[derive(Debug)]
#[allow(missing_docs, reason = "each variant's line says what its fields hold")]
pub enum StateRootError {
    /// There is nothing at the path and creating was not asked for.
    Missing { path: PathBuf },
    /// The path or one of the root's own names is of the wrong kind, such as a link or a plain file.
    WrongKind { path: PathBuf, expected: &'static str },
    /// A directory that holds other things, or a root whose `FORMAT` was lost.
    NotAStateRoot { path: PathBuf, found: Option<String> },
    /// Another user owns it.
    WrongOwner { path: PathBuf, owner: u32, user: u32 },
    /// Its group or everybody may enter or read it.
    ModeTooOpen { path: PathBuf, mode: u32 },
    /// Another process holds the lock.
    Held { path: PathBuf, holder: Option<Holder> },
    /// `daemon.lock` was removed or replaced while it was being locked.
    LockReplaced { path: PathBuf },
    /// A newer build wrote the root.
    NewerFormat { path: PathBuf, found: u64 },
    /// `FORMAT` does not hold a format number.
    DamagedFormat { path: PathBuf },
    /// The root has been in use, and its journal directory is gone.
    JournalMissing { path: PathBuf },
    /// `FORMAT` could not be written.
    Replace(ReplaceError),
    /// The system refused a step.
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

impl fmt::Display for StateRootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { path } => write!(
                f,
                "state root {} does not exist; next: check --state-root, or start the daemon once to create it",
                path.display()
            ),
            Self::WrongKind { path, expected } => {
                write!(f, "{} is not {expected}; next: move it away, or name another --state-root", path.display())
            }
            Self::NotAStateRoot { path, found: Some(found) } => write!(
                f,
                "{} holds {found:?} but no FORMAT file, so it is no kheish-daemon state root; \
                 next: name an empty directory, or restore the whole root from its backup",
                path.display()
            ),
            Self::NotAStateRoot { path, found: None } => write!(
                f,
                "{} holds no FORMAT file, so it is no kheish-daemon state root; \
                 next: check --state-root, or start the daemon once to create it",
                path.display()
            ),
            Self::WrongOwner { path, owner, user } => write!(
                f,
                "{} belongs to user id {owner}, and this process runs as {user}; \
                 next: run as that user, or chown it",
                path.display()
            ),
            Self::ModeTooOpen { path, mode } => write!(
                f,
                "{} has mode {mode:04o}, so others may read it; next: chmod go-rwx {}",
                path.display(),
                path.display()
            ),
            Self::Held { path, holder: Some(Holder { pid, host }) } => write!(
                f,
                "state root {} is held by process {pid} on host {host}; \
                 next: use that daemon (drop --offline), or stop it first",
                path.display()
            ),
            Self::Held { path, holder: None } => write!(
                f,
                "state root {} is held by another process that has not written its pid; \
                 next: find it with `fuser {}/{LOCK_FILE}` and stop it",
                path.display(),
                path.display()
            ),
            Self::LockReplaced { path } => write!(
                f,
                "{} was replaced while it was being locked; next: let nothing remove it, then try again",
                path.display()
            ),
            Self::NewerFormat { path, found } => write!(
                f,
                "{} says format {found}, and this build knows {FORMAT_VERSION}; \
                 next: run the newer kheish-daemon, or restore the backup made before the upgrade",
                path.display()
            ),
            Self::DamagedFormat { path } => write!(
                f,
                "{} does not hold a format number; next: restore it from the backup of this state root",
                path.display()
            ),
            Self::JournalMissing { path } => write!(
                f,
                "{} is gone although the state root has been in use; next: restore the whole root from its backup",
                path.display()
            ),
            Self::Replace(error) => error.fmt(f),
            Self::Io { action, path, source } => {
                write!(f, "cannot {action} {}: {source}; next: check the path, its owner and its disk", path.display())
            }
        }
    }
}

impl std::error::Error for StateRootError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Replace(error) => Some(error),
            _ => None,
        }
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateRootError {
    move |source| StateRootError::Io { action, path: path.to_path_buf(), source }
}

/// An open state root. Holding the value is holding the lock.
#[derive(Debug)]
pub struct StateRoot {
    path: PathBuf,
    /// The lock belongs to this open file, which children do not inherit (close-on-exec).
    lock: File,
}

impl StateRoot {
    /// Opens the root at `path` and takes its lock; `create` also makes a missing or empty one.
    ///
    /// `path` may lead through links, as systemd's `DynamicUser` makes it: it is resolved once, the
    /// directory found is judged, and later changes of the links mean nothing. Inside the root no name of
    /// ours may be a link.
    ///
    /// # Errors
    /// One variant per reason; nothing is changed in a directory that is refused as not ours.
    pub fn open(path: &Path, create: bool) -> Result<Self, StateRootError> {
        if create {
            create_private_directory(path)?;
        }
        let path = resolve(path)?;
        check_private(&path, &metadata(&path)?)?;
        recognise(&path, create)?;

        let lock = take_lock(&path)?;
        check_own_files(&path)?;
        let format = path.join(FORMAT_FILE);
        if read_format(&format)? {
            require_journal(&path)?;
            make_directories(&path)?;
        } else if create {
            make_directories(&path)?;
            // Last, so that a root with a FORMAT has all its directories.
            atomic_replace(&format, format!("{FORMAT_VERSION}\n").as_bytes()).map_err(StateRootError::Replace)?;
        } else {
            return Err(StateRootError::NotAStateRoot { path, found: None });
        }
        clear_leftover(&format).map_err(io_error("clear the leftover of", &format))?;
        let probe_directory = path.join(Directory::Probe.name());
        probe::sweep(&probe_directory).map_err(io_error("sweep", &probe_directory))?;
        Ok(Self { path, lock })
    }

    /// The resolved path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of one of its directories, which exists and is 0700.
    pub fn directory(&self, directory: Directory) -> PathBuf {
        self.path.join(directory.name())
    }

    /// What tells later whether the lock still stands.
    ///
    /// # Errors
    /// The locked file cannot be looked at.
    pub fn lock_watch(&self) -> io::Result<LockWatch> {
        let locked = self.lock.metadata()?;
        Ok(LockWatch { path: self.path.join(LOCK_FILE), identity: (locked.dev(), locked.ino()) })
    }

    /// Space and inodes of its file system.
    ///
    /// # Errors
    /// The file system does not tell.
    pub fn space(&self) -> io::Result<FileSystemFigures> {
        sys::file_system_figures(&self.path)
    }
}

impl Drop for StateRoot {
    /// Closing would do, but for a child that another thread is just starting: until it runs its program it
    /// shares the open file, and with it the lock.
    fn drop(&mut self) {
        let _closing_releases_it_as_well = FileExt::unlock(&self.lock);
    }
}

/// Creates `path` and what is missing above it, 0700, durable up to the first directory that existed.
fn create_private_directory(path: &Path) -> Result<(), StateRootError> {
    let made: Vec<&Path> = path.ancestors().take_while(|part| !part.as_os_str().is_empty() && !part.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error("create the state root", path))?;
    for part in made {
        let parent = part.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_directory(parent).map_err(io_error("sync", parent))?;
    }
    Ok(())
}

fn resolve(path: &Path) -> Result<PathBuf, StateRootError> {
    let resolved = match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StateRootError::Missing { path: path.to_path_buf() });
        }
        other => other.map_err(io_error("resolve", path))?,
    };
    if !resolved.is_dir() {
        return Err(StateRootError::WrongKind { path: resolved, expected: "a directory" });
    }
    Ok(resolved)
}

fn metadata(path: &Path) -> Result<Metadata, StateRootError> {
    fs::symlink_metadata(path).map_err(io_error("look at", path))
}

fn metadata_if_present(path: &Path) -> Result<Option<Metadata>, StateRootError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some).map_err(io_error("look at", path)),
    }
}

fn check_private(path: &Path, metadata: &Metadata) -> Result<(), StateRootError> {
    let user = sys::effective_user_id();
    if metadata.uid() != user {
        return Err(StateRootError::WrongOwner { path: path.to_path_buf(), owner: metadata.uid(), user });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StateRootError::ModeTooOpen { path: path.to_path_buf(), mode });
    }
    Ok(())
}

/// Refuses a directory that is neither a state root nor empty nor a root whose first start was cut short.
/// Runs before the lock is taken, so that a directory that is not ours is left as it was.
fn recognise(path: &Path, create: bool) -> Result<(), StateRootError> {
    let has_format = || Ok(metadata_if_present(&path.join(FORMAT_FILE))?.is_some());
    if has_format()? {
        return Ok(());
    }
    if !create {
        return Err(StateRootError::NotAStateRoot { path: path.to_path_buf(), found: None });
    }
    for entry in fs::read_dir(path).map_err(io_error("read", path))? {
        let name = entry.map_err(io_error("read", path))?.file_name();
        // Another process may have completed its first start since the look above; its lock decides then.
        if !may_precede_format(path, &name.to_string_lossy())? && !has_format()? {
            let found = Some(name.to_string_lossy().into_owned());
            return Err(StateRootError::NotAStateRoot { path: path.to_path_buf(), found });
        }
    }
    Ok(())
}

fn may_precede_format(root: &Path, name: &str) -> Result<bool, StateRootError> {
    if name == LOCK_FILE || name == ".FORMAT.tmp" || name == LOST_AND_FOUND || PLACED_BEFORE_START.contains(&name) {
        return Ok(true);
    }
    if Directory::ALL.iter().all(|directory| directory.name() != name) {
        return Ok(false);
    }
    let path = root.join(name);
    let is_directory = metadata_if_present(&path)?.is_some_and(|metadata| metadata.is_dir());
    Ok(is_directory && fs::read_dir(&path).map_err(io_error("read", &path))?.next().is_none())
}

fn take_lock(root: &Path) -> Result<File, StateRootError> {
    let path = root.join(LOCK_FILE);
    if metadata_if_present(&path)?.is_some_and(|metadata| !metadata.is_file()) {
        return Err(StateRootError::WrongKind { path, expected: "a plain file" });
    }
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error("open", &path))?;
    if let Err(error) = FileExt::try_lock_exclusive(&file) {
        if error.kind() == io::ErrorKind::WouldBlock {
            return Err(StateRootError::Held { path: root.to_path_buf(), holder: read_holder(&mut file) });
        }
        return Err(io_error("lock", &path)(error));
    }
    // A file that was removed or replaced in between guards nothing: the next process locks another one.
    let locked = file.metadata().map_err(io_error("look at", &path))?;
    let named = metadata_if_present(&path)?;
    if named.is_none_or(|named| (named.dev(), named.ino()) != (locked.dev(), locked.ino())) {
        return Err(StateRootError::LockReplaced { path });
    }
    check_private(&path, &locked)?;
    if let Err(error) = write_holder(&mut file) {
        // The lock is what keeps others out; its text only names the holder, and a full disk must not keep
        // the daemon from starting.
        log::warn!("cannot write {}: {error}; next: free space", path.display());
    }
    Ok(file)
}

fn write_holder(file: &mut File) -> io::Result<()> {
    let body = format!(
        "pid={}\nstarted_at_ms={}\nhost={}\nmechanism={MECHANISM}\n",
        std::process::id(),
        SystemClock.now_ms(),
        host_name()
    );
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(body.as_bytes())
}

fn read_holder(file: &mut File) -> Option<Holder> {
    let text = read_small(file).ok()?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    Some(Holder { pid: value("pid")?.parse().ok()?, host: value("host").unwrap_or("unknown").to_string() })
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "unknown".to_string() } else { name.to_string() }
}

fn read_small(file: &mut File) -> io::Result<String> {
    let mut text = String::new();
    file.take(STATE_ROOT_SMALL_FILE_BYTES_MAX as u64).read_to_string(&mut text)?;
    Ok(text)
}

/// Modes, owner and kind of the names that are ours.
fn check_own_files(root: &Path) -> Result<(), StateRootError> {
    let files = [FORMAT_FILE].into_iter().chain(PLACED_BEFORE_START);
    for (name, is_directory) in
        files.map(|name| (name, false)).chain(Directory::ALL.map(|directory| (directory.name(), true)))
    {
        let path = root.join(name);
        let Some(metadata) = metadata_if_present(&path)? else { continue };
        if is_directory && !metadata.is_dir() {
            return Err(StateRootError::WrongKind { path, expected: "a directory" });
        }
        if !is_directory && !metadata.is_file() {
            return Err(StateRootError::WrongKind { path, expected: "a plain file" });
        }
        // A public key may be public.
        if !name.ends_with(".pub.pem") {
            check_private(&path, &metadata)?;
        }
    }
    Ok(())
}

/// Whether there is a `FORMAT`; refuses every number but ours.
fn read_format(path: &Path) -> Result<bool, StateRootError> {
    if metadata_if_present(path)?.is_none() {
        return Ok(false);
    }
    let damaged = || StateRootError::DamagedFormat { path: path.to_path_buf() };
    let mut file = File::open(path).map_err(io_error("open", path))?;
    let text = match read_small(&mut file) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(damaged()),
        other => other.map_err(io_error("read", path))?,
    };
    let number = text.strip_suffix('\n').ok_or_else(damaged)?;
    if number.is_empty() || number.starts_with('0') || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(damaged());
    }
    match number.parse::<u64>().map_err(|_| damaged())? {
        found if found == u64::from(FORMAT_VERSION) => Ok(true),
        found => Err(StateRootError::NewerFormat { path: path.to_path_buf(), found }),
    }
}

/// `FORMAT` is written after the directories, so a root that has it and no journal has lost its journal.
fn require_journal(root: &Path) -> Result<(), StateRootError> {
    let path = root.join(Directory::Journal.name());
    if metadata_if_present(&path)?.is_none() {
        return Err(StateRootError::JournalMissing { path });
    }
    Ok(())
}

fn make_directories(root: &Path) -> Result<(), StateRootError> {
    for directory in Directory::ALL {
        let path = root.join(directory.name());
        if metadata_if_present(&path)?.is_none() {
            DirBuilder::new().mode(0o700).create(&path).map_err(io_error("create", &path))?;
        }
    }
    sync_directory(root).map_err(io_error("sync", root))
}
