//! What can go wrong with the journal, as an operator should read it.
//! Owns: the error types and their texts.
//! Never: carries record contents.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::ids::Seq;

/// Why the journal refused.
#[derive(Debug)]
pub enum JournalError {
    /// A file operation failed while opening, closing, or taking a snapshot.
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What failed.
        cause: io::Error,
    },
    /// What is on disk is not what was written.
    Damaged {
        /// The file.
        path: PathBuf,
        /// Offset of the first bad byte range in the file.
        offset: u64,
        /// The position that was expected there.
        seq: Seq,
        /// What is wrong.
        cause: String,
    },
    /// A newer build wrote it.
    FormatNewer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format this build reads.
        supported: u32,
    },
    /// A good record was not understood by whoever folds the state.
    NotUnderstood {
        /// The file.
        path: PathBuf,
        /// Offset of the line in the file.
        offset: u64,
        /// The record's position.
        seq: Seq,
        /// What is wrong with it.
        cause: String,
    },
    /// A signed snapshot contradicts the journal, or the journal lacks what the snapshot was made from.
    SnapshotContradicts {
        /// The snapshot.
        path: PathBuf,
        /// Where the snapshot stands.
        seq: Seq,
        /// How they differ.
        cause: String,
    },
    /// No space. Nothing of the batch is kept; the next one may succeed.
    Full {
        /// Bytes that were asked for.
        needed_bytes: u64,
        /// Bytes that the file system had left.
        available_bytes: u64,
    },
    /// A write failed for another reason than space. Nothing of the batch is kept; the next one may succeed.
    WriteFailed {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What failed.
        cause: io::Error,
    },
    /// It is unknown what the medium holds of the last batch; nothing is written until a restart has found out.
    Poisoned {
        /// The first failure.
        reason: String,
    },
    /// The batch is larger than any batch may be. Nothing was written.
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { action, path, cause } => write!(
                f,
                "cannot {action} {}: {cause}; next: check the disk and the file's owner and mode, then start again",
                path.display()
            ),
            Self::Damaged { path, offset, seq, cause } => write!(
                f,
                "{} is damaged at byte {offset}, where record {seq} must stand: {cause}; next: run \
                 'kheish-daemon journal verify --offline', keep a copy of the state root, and restore the last backup",
                path.display()
            ),
            Self::FormatNewer { path, found, supported } => write!(
                f,
                "{} has format {found} and this build reads up to {supported}; next: start the daemon version that \
                 wrote it",
                path.display()
            ),
            Self::NotUnderstood { path, offset, seq, cause } => write!(
                f,
                "record {seq} at byte {offset} of {} is whole but not understood: {cause}; next: start the daemon \
                 version that wrote it",
                path.display()
            ),
            Self::SnapshotContradicts { path, seq, cause } => write!(
                f,
                "snapshot {} stands at record {seq} and {cause}; next: restore journal and snapshots from the same \
                 backup; remove the snapshot only if the journal alone is known to be complete",
                path.display()
            ),
            Self::Full { needed_bytes, available_bytes } => write!(
                f,
                "no space for the journal: {needed_bytes} bytes needed, {available_bytes} available; next: free space \
                 or inodes on the state root's file system; service resumes by itself"
            ),
            Self::WriteFailed { action, path, cause } => write!(
                f,
                "cannot {action} {}: {cause}; the batch was not written; next: check the disk; the next batch is \
                 tried again",
                path.display()
            ),
            Self::Poisoned { reason } => write!(
                f,
                "the journal takes no more records since {reason}; next: check the disk, then restart the daemon, \
                 which finds out what was written"
            ),
            Self::TooLarge { bytes, bytes_max } => {
                write!(f, "a batch of {bytes} bytes exceeds {bytes_max}; next: submit less at once")
            }
        }
    }
}

impl std::error::Error for JournalError {}

/// Why a record could not be read.
#[derive(Debug, Clone)]
pub enum ReadError {
    /// The position lies before the first record that is kept.
    Retired {
        /// The first position that is kept.
        floor: Seq,
    },
    /// Nothing is committed at the position: it is ahead of the tail or between two epochs.
    Absent {
        /// The last committed position.
        committed: Seq,
    },
    /// The file could not be read.
    Io {
        /// The file.
        path: PathBuf,
        /// What failed.
        cause: String,
    },
    /// The bytes at the position are not the record.
    Damaged {
        /// The file.
        path: PathBuf,
        /// Offset in the file.
        offset: u64,
        /// The position.
        seq: Seq,
        /// What is wrong.
        cause: String,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retired { floor } => write!(f, "the journal begins at record {floor}; next: ask from there on"),
            Self::Absent { committed } => {
                write!(f, "no such record; the journal ends at {committed}; next: ask for an id that was given out")
            }
            Self::Io { path, cause } => write!(f, "cannot read {}: {cause}; next: check the disk", path.display()),
            Self::Damaged { path, offset, seq, cause } => write!(
                f,
                "{} is damaged at byte {offset}, where record {seq} must stand: {cause}; next: run 'kheish-daemon \
                 journal verify' and restore the last backup",
                path.display()
            ),
        }
    }
}

impl std::error::Error for ReadError {}
