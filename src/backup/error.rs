//! Why a backup was not made, is not good, or was not restored.
//! Owns: the variants, their codes and their wording.
//! Never: holds a part of a secret.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::broker::StoreError;
use crate::journal::JournalError;
use crate::limits::{BACKUP_BARRIER_ATTEMPTS, BACKUP_FILES_MAX};
use crate::state_root::StateRootError;

/// One thing that is wrong with a backup, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Stable name.
    pub code: &'static str,
    /// The file of the backup.
    pub file: String,
    /// Offset in its plaintext, where one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// What lies there, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        if let Some(member) = &self.member {
            write!(f, " ({member})")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// Why a backup was not made, read or restored.
#[derive(Debug)]
#[allow(missing_docs, reason = "each variant's line says what its fields hold")]
pub enum BackupError {
    /// A file operation failed.
    Io { action: &'static str, path: PathBuf, cause: io::Error },
    /// The place for the backup is taken.
    OutTaken { path: PathBuf },
    /// Another command makes a backup there.
    OutBusy { path: PathBuf },
    /// The backup would lie in what it copies.
    OutInside { out: PathBuf, source: PathBuf },
    /// A file was shorter when it was read than when it was opened.
    Changed { path: PathBuf },
    /// The files hold another journal than the daemon said.
    OtherJournal { path: PathBuf, cause: String },
    /// A state root or workspace holds more than an archive may.
    TooMany { path: PathBuf },
    /// A name or kind of file that an archive cannot hold.
    Unfit { path: PathBuf, cause: String },
    /// The daemon did not let the backup begin, in its own words.
    Gate { cause: String },
    /// The daemon went on before all files were open, each time.
    Lapsed,
    /// The journal of a stopped daemon cannot be read.
    Journal(JournalError),
    /// The state root of a stopped daemon cannot be taken.
    StateRoot(StateRootError),
    /// The key file is unusable.
    KeyFile { path: PathBuf, cause: String },
    /// The system gave no random bytes.
    NoRandom,
    /// The directory is no backup.
    NotABackup { path: PathBuf, cause: String },
    /// A newer build made it.
    Newer { path: PathBuf, what: &'static str, found: u64, supported: u32 },
    /// It is encrypted and no key was given.
    KeyMissing { path: PathBuf },
    /// It is encrypted with another key; both fingerprints.
    WrongKey { path: PathBuf, made_with: String, given: String },
    /// It is not encrypted and a key was given.
    KeyNeedless { path: PathBuf },
    /// It is altered, cut, or not what it says.
    Damaged { path: PathBuf, problems: Vec<Problem> },
    /// The place of the restore is taken.
    TargetTaken { path: PathBuf, found: String },
    /// The place of the restore is open to others, or is not a directory.
    TargetUnfit { path: PathBuf, cause: String },
    /// The auth store of the backup is not opened by the key at hand.
    MasterKey(StoreError),
    /// The backup has no archive of the workspace.
    NoWorkspace { path: PathBuf },
}

impl BackupError {
    /// Wraps an error of the system.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |cause| Self::Io { action, path, cause }
    }

    /// A stable name for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "backup_io",
            Self::OutTaken { .. } | Self::OutBusy { .. } | Self::OutInside { .. } => "backup_out_unusable",
            Self::Changed { .. } | Self::OtherJournal { .. } => "backup_source_changed",
            Self::TooMany { .. } | Self::Unfit { .. } => "backup_source_unfit",
            Self::Gate { .. } | Self::Lapsed => "backup_barrier_failed",
            Self::Journal(_) | Self::StateRoot(_) => "backup_source_unreadable",
            Self::KeyFile { .. } | Self::NoRandom => "backup_key_unusable",
            Self::NotABackup { .. } => "backup_unknown",
            Self::Newer { .. } => "backup_newer",
            Self::KeyMissing { .. } => "backup_key_missing",
            Self::WrongKey { .. } | Self::KeyNeedless { .. } => "backup_key_wrong",
            Self::Damaged { .. } => "backup_damaged",
            Self::TargetTaken { .. } | Self::TargetUnfit { .. } => "restore_target_unusable",
            Self::MasterKey(_) => "restore_master_key_wrong",
            Self::NoWorkspace { .. } => "restore_workspace_missing",
        }
    }
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { action, path, cause } => write!(
                f,
                "cannot {action} {}: {cause}; next: check space, owner and modes there, then try again",
                path.display()
            ),
            Self::OutTaken { path } => write!(
                f,
                "{} exists and is no empty directory; next: name a directory that does not exist yet",
                path.display()
            ),
            Self::OutBusy { path } => write!(
                f,
                "another backup is being written to {}; next: wait for it, or name another directory",
                path.display()
            ),
            Self::OutInside { out, source } => write!(
                f,
                "{} lies in {}, which is copied; next: name a directory elsewhere, best on another disk",
                out.display(),
                source.display()
            ),
            Self::Changed { path } => write!(
                f,
                "{} became shorter while it was copied; next: let nothing but the daemon change it, then try again",
                path.display()
            ),
            Self::OtherJournal { path, cause } => write!(
                f,
                "{} is not the journal of the daemon that was asked: {cause}; next: check --state-root and --base-url",
                path.display()
            ),
            Self::TooMany { path } => write!(
                f,
                "{} holds more than {BACKUP_FILES_MAX} files, or files too deep; next: clean it up, or archive it by other means",
                path.display()
            ),
            Self::Unfit { path, cause } => {
                write!(f, "{} cannot be in a backup: {cause}; next: move it away or rename it", path.display())
            }
            Self::Gate { cause } => f.write_str(cause),
            Self::Lapsed => write!(
                f,
                "the daemon went on before its files were open, {BACKUP_BARRIER_ATTEMPTS} times; next: try again when the host \
                 has less to do"
            ),
            Self::Journal(error) => error.fmt(f),
            Self::StateRoot(error) => error.fmt(f),
            Self::KeyFile { path, cause } => write!(
                f,
                "{}: {cause}; next: name a file of mode 600 with 32 random bytes, or what `kheish-daemon secrets generate` prints",
                path.display()
            ),
            Self::NoRandom => {
                write!(f, "the system gave no random bytes; next: check that /dev/urandom and getrandom(2) work")
            }
            Self::NotABackup { path, cause } => write!(
                f,
                "{} is no backup: {cause}; next: name the directory that `kheish-daemon backup create` made",
                path.display()
            ),
            Self::Newer { path, what, found, supported } => write!(
                f,
                "{}: the format of {what} is {found} and this build reads up to {supported}; next: use the kheish-daemon that \
                 made it, or a newer one",
                path.display()
            ),
            Self::KeyMissing { path } => {
                write!(f, "{} is encrypted; next: give its key with --decrypt-key-file", path.display())
            }
            Self::WrongKey { path, made_with, given } => write!(
                f,
                "{} is encrypted with the key of fingerprint {made_with}, and the one given has {given}; next: give the key \
                 that it was made with",
                path.display()
            ),
            Self::KeyNeedless { path } => write!(
                f,
                "{} is not encrypted although a key was given; next: find out whether it is the backup that was meant, then \
                 leave --decrypt-key-file out",
                path.display()
            ),
            Self::Damaged { path, problems } => {
                write!(f, "{} is not what was written: {} problems", path.display(), problems.len())?;
                if let Some(first) = problems.first() {
                    write!(f, ", first {first}")?;
                }
                write!(f, "; next: take another backup, or another copy of this one")
            }
            Self::TargetTaken { path, found } => write!(
                f,
                "{} holds {found:?} already; next: name a directory that does not exist yet, or an empty one",
                path.display()
            ),
            Self::TargetUnfit { path, cause } => {
                write!(f, "{} cannot take a restore: {cause}; next: name another directory", path.display())
            }
            Self::MasterKey(error) => error.fmt(f),
            Self::NoWorkspace { path } => write!(
                f,
                "{} has no archive of a workspace; next: leave --workspace-root out, or restore it from elsewhere",
                path.display()
            ),
        }
    }
}

impl std::error::Error for BackupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { cause, .. } => Some(cause),
            Self::Journal(error) => Some(error),
            Self::StateRoot(error) => Some(error),
            Self::MasterKey(error) => Some(error),
            _ => None,
        }
    }
}
