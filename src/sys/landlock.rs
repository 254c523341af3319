//! Landlock: rules on files, ports and other processes that a process puts on itself.
//! Owns: the three calls and their structures.
//! Never: decides anything; what is allowed where is the caller's.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::long;

const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;

const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_DIR: u64 = 1 << 7;
const MAKE_REG: u64 = 1 << 8;
const MAKE_FIFO: u64 = 1 << 10;
const MAKE_SYM: u64 = 1 << 12;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const FILE_ONLY: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | (1 << 15);

const CONNECT_AND_BIND_TCP: u64 = 0b11;
const SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS: u64 = 0b11;

/// What is allowed beneath a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// List directories.
    List,
    /// Read files and list directories.
    Read,
    /// That, and execute.
    ReadExecute,
    /// Everything but device files and sockets.
    All,
    /// Read and write one existing file.
    ReadWriteFile,
}

#[repr(C)]
struct RulesetAttributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// The kernel's Landlock version.
///
/// # Errors
/// `ENOSYS` and `EOPNOTSUPP`: it has none, or it is off.
pub fn version() -> io::Result<u32> {
    let null = std::ptr::null::<RulesetAttributes>();
    // SAFETY: for this flag the pointer must be null and the size 0.
    long(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, null, 0usize, CREATE_RULESET_VERSION) })
        .map(|version| version as u32)
}

/// Rules being collected. Every kind of access to files that the kernel's version knows is denied unless a rule allows
/// it.
#[derive(Debug)]
pub struct Ruleset {
    fd: OwnedFd,
    files: u64,
}

impl Ruleset {
    /// Denies all access to files; with `tcp`, all TCP as well (version 4); with `scope`, signals to and abstract unix
    /// sockets of processes outside (version 6).
    pub fn new(version: u32, files: bool, tcp: bool, scope: bool) -> io::Result<Self> {
        let kinds = match version {
            0 | 1 => 13,
            2 => 14,
            3 | 4 => 15,
            _ => 16,
        };
        let files = if files { (1u64 << kinds) - 1 } else { 0 };
        let attributes = RulesetAttributes {
            handled_access_fs: files,
            handled_access_net: if tcp { CONNECT_AND_BIND_TCP } else { 0 },
            scoped: if scope { SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS } else { 0 },
        };
        let bytes = match version {
            0..=3 => 8usize,
            4 | 5 => 16,
            _ => 24,
        };
        // SAFETY: the struct has at least `bytes` readable bytes and outlives the call.
        let fd = long(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &attributes, bytes, 0u32) })?;
        // SAFETY: `fd` was just returned by the kernel and is not used elsewhere.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }, files })
    }

    /// Allows `access` to `path` and all beneath it.
    pub fn allow(&self, path: &Path, access: Access) -> io::Result<()> {
        let target = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(path)?;
        let mut allowed = match access {
            Access::List => READ_DIR,
            Access::Read => READ_FILE | READ_DIR,
            Access::ReadExecute => READ_FILE | READ_DIR | EXECUTE,
            Access::ReadWriteFile => READ_FILE | WRITE_FILE,
            Access::All => {
                let reading = READ_FILE | READ_DIR | EXECUTE;
                let writing = WRITE_FILE | TRUNCATE | REFER | REMOVE_DIR | REMOVE_FILE;
                reading | writing | MAKE_DIR | MAKE_REG | MAKE_FIFO | MAKE_SYM
            }
        };
        if !target.metadata()?.is_dir() {
            allowed &= FILE_ONLY;
        }
        let rule = PathBeneath { allowed_access: allowed & self.files, parent_fd: target.as_raw_fd() };
        // SAFETY: a valid rule of that type; it and the descriptor outlive the call.
        long(unsafe { libc::syscall(libc::SYS_landlock_add_rule, self.fd.as_raw_fd(), RULE_PATH_BENEATH, &rule, 0u32) })
            .map(drop)
    }

    /// Puts the rules on this thread and its descendants, for good. Needs no_new_privs.
    pub fn restrict_self(&self) -> io::Result<()> {
        // SAFETY: no pointers.
        long(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.fd.as_raw_fd(), 0u32) }).map(drop)
    }
}
