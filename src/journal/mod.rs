//! The journal: one totally ordered, hash-chained, synced log that is database, event stream and audit trail.
//! Owns: everything under `journal/` and `snapshots/`; docs/journal-format.md is its contract.
//! May touch: the two directories handed to it, and the audit key for signing.
//! Never: shows a record before its sync returned; goes on after a failed sync; repairs damage.
//!
//! One thread owns the [`Journal`] and appends; any number of threads hold a [`Reader`]. A start folds what is
//! on disk into a [`Restore`], from the newest good snapshot on if there is one.

pub mod chain;
mod cut;
pub mod disk;
mod error;
pub mod fake_disk;
mod opening;
mod reader;
mod record;
mod recovery;
mod scan;
mod seal;
mod segment;
mod show;
mod snapshot;
mod verify;
mod window;
mod writer;

use std::io;
use std::path::Path;

use serde::Serialize;

pub use chain::Chain;
pub use cut::{Cut, CutSegment, RESTORED, cut_of, open_segment, segment_file, segment_of_file, snapshot_of_file};
pub use disk::{Access, Disk, DiskFile, Identity, RealDisk};
pub use error::{JournalError, ReadError};
pub use reader::{Place, Reader, SegmentRange};
pub use record::{Draft, Record, RecordRef};
pub use seal::{KeyRotated, OpenCause, Opened, Recovered, Seal, hand_over_message, seal_message};
pub use show::{ShowFilter, Shown, show};
pub use snapshot::{OpenedAt, SnapshotHead, SnapshotWriter, snapshot_message};
pub use verify::{
    Inspect, Problem, Progress, SnapshotReport, TornTail, VerifyReport, read_beside, verify, verify_beside,
    verify_disks, verify_with,
};
pub use writer::Journal;

use crate::ids::Seq;
use crate::limits::{
    JOURNAL_SEAL_INTERVAL_MS_DEFAULT, JOURNAL_SEAL_INTERVAL_RECORDS_DEFAULT, JOURNAL_SEGMENT_BYTES_DEFAULT,
};

/// The format written, and the newest one read. `journal.opened` and every snapshot carry it. Format 2 has `by`.
pub const JOURNAL_FORMAT: u32 = 2;

/// Where the journal stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Head {
    /// Position of the last committed record.
    pub seq: Seq,
    /// Its chain value.
    pub chain: Chain,
    /// Number of its batch.
    pub batch: u64,
}

/// A position that a seal vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedHead {
    /// The record that was sealed.
    pub seq: Seq,
    /// Its chain value.
    pub chain: Chain,
    /// When, Unix milliseconds.
    pub at_ms: u64,
}

/// Whoever folds records into state at start.
pub trait Restore {
    /// Forgets everything: a snapshot turned out to be unusable, or the fold begins.
    fn reset(&mut self);

    /// One line of a snapshot, as the state wrote it, without its line feed.
    ///
    /// # Errors
    /// The line is not understood; an older snapshot or the whole journal is tried next.
    fn snapshot_line(&mut self, line: &[u8]) -> Result<(), String>;

    /// One record, in order; the journal's own records (`journal.…`) are among them.
    ///
    /// # Errors
    /// The record is not understood, which ends the start.
    fn record(&mut self, record: &RecordRef<'_>) -> Result<(), String>;
}

/// Settings of a journal.
#[derive(Debug, Clone)]
pub struct Options {
    /// Size of a segment; less where the file system has little room.
    pub segment_bytes: u64,
    /// Time after which unsealed records are sealed by [`Journal::maintain`].
    pub seal_interval_ms: u64,
    /// Unsealed records after which an append is followed by a seal.
    pub seal_interval_records: u64,
    /// Daemon version, for `journal.opened`.
    pub version: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: JOURNAL_SEGMENT_BYTES_DEFAULT,
            seal_interval_ms: JOURNAL_SEAL_INTERVAL_MS_DEFAULT,
            seal_interval_records: JOURNAL_SEAL_INTERVAL_RECORDS_DEFAULT,
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// What a start found and did.
#[derive(Debug, Clone, Serialize)]
pub struct Recovery {
    /// How the journal was opened.
    pub cause: OpenCause,
    /// The epoch from here on.
    pub epoch: u32,
    /// The snapshot that the state was restored from.
    pub snapshot: Option<Seq>,
    /// Snapshots that were passed over, with the reason of each; worth a warning.
    pub snapshots_skipped: Vec<String>,
    /// Records folded, without those that the snapshot stands for.
    pub records_replayed: u64,
    /// The torn batch that was cut, if there was one.
    pub torn: Option<Recovered>,
    /// Whether the reserve could be made; without it only [`Journal::append_from_reserve`] is served.
    pub reserve_is_intact: bool,
}

/// Whether a journal directory holds any segment; a missing directory does not. Tells a first start from a lost
/// signing key.
///
/// # Errors
/// The directory cannot be read.
pub fn is_empty(directory: &Path) -> io::Result<bool> {
    match RealDisk::open(directory) {
        Ok(disk) => Ok(segment::list_segments(&disk)?.is_empty()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}
