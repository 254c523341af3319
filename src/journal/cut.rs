//! A cut: how far the journal reaches at a sealed position, as whoever copies its files needs it.
//! Owns: the form of a cut, and finding the one that the files of a stopped daemon end at.
//! May touch: segments, for reading.
//! Never: changes a file; counts bytes that are no whole committed batch.

use std::io;

use serde::{Deserialize, Serialize};

use super::chain::Chain;
use super::disk::{Access, Disk, DiskFile};
use super::error::JournalError;
use super::record::RecordRef;
use super::recovery::replay_all;
use super::seal::{SEAL, Seal, body};
use super::segment::{Segment, parse_segment_name, segment_name};
use super::snapshot::parse_snapshot_name;
use super::{Head, Restore};
use crate::ids::Seq;

/// A file that a restore leaves in `journal/`: the next start takes the root for a copy, whatever its files' identities
/// say, and removes it once the new epoch is on disk.
pub const RESTORED: &str = "restored";

/// Bytes of one segment that belong to a cut. Once written they never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutSegment {
    /// Its first position, which names it.
    pub first: Seq,
    /// Bytes from its beginning.
    pub bytes: u64,
}

/// A position and the bytes of every segment up to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// The last record of the cut.
    pub seq: Seq,
    /// Its chain value.
    pub chain: Chain,
    /// Number of its batch.
    pub batch: u64,
    /// The newest position that a seal within the cut vouches for; 0 when there is none.
    pub sealed_seq: Seq,
    /// Segments with records, ascending.
    pub segments: Vec<CutSegment>,
}

impl Cut {
    pub(super) fn new(head: Head, sealed_seq: Seq, table: &[Segment]) -> Self {
        let filled = table.iter().filter(|segment| !segment.is_empty());
        let segments = filled.map(|segment| CutSegment { first: segment.first, bytes: segment.bytes }).collect();
        Self { seq: head.seq, chain: head.chain, batch: head.batch, sealed_seq, segments }
    }

    /// Whether its segments ascend and hold something; a cut from elsewhere may be anything.
    pub fn is_consistent(&self) -> bool {
        let ascending = self.segments.windows(2).all(|pair| pair[0].first < pair[1].first);
        let bounded = self.segments.iter().all(|segment| segment.bytes > 0 && segment.first > 0);
        ascending && bounded && self.segments.last().is_some_and(|last| last.first <= self.seq)
    }
}

/// File name of the segment that begins at `first`.
pub fn segment_file(first: Seq) -> String {
    segment_name(first)
}

/// The first position of the segment of that name; none for other files.
pub fn segment_of_file(name: &str) -> Option<Seq> {
    parse_segment_name(name)
}

/// Where the snapshot of that file name stands; none for other files.
pub fn snapshot_of_file(name: &str) -> Option<Seq> {
    parse_snapshot_name(name)
}

/// The cut that the files of a stopped daemon end at: everything up to the last whole batch. `None` when there is no
/// journal.
///
/// # Errors
/// The journal is damaged, of a newer format, or cannot be read.
pub fn cut_of(disk: &dyn Disk) -> Result<Option<Cut>, JournalError> {
    #[derive(Default)]
    struct Sealed(Seq);
    impl Restore for Sealed {
        fn reset(&mut self) {
            self.0 = 0;
        }
        fn snapshot_line(&mut self, _line: &[u8]) -> Result<(), String> {
            Ok(())
        }
        fn record(&mut self, record: &RecordRef<'_>) -> Result<(), String> {
            if record.kind == SEAL {
                self.0 = body::<Seal>(record.body)?.head;
            }
            Ok(())
        }
    }
    let mut sealed = Sealed::default();
    let Some(found) = replay_all(disk, &mut sealed)? else { return Ok(None) };
    let head = Head { seq: found.last, chain: found.position.chain, batch: found.position.batch - 1 };
    Ok(Some(Cut::new(head, sealed.0, &found.table)))
}

/// Opens the segment of a cut and checks that it is as long as the cut says.
///
/// # Errors
/// It cannot be opened, or is shorter.
pub fn open_segment(disk: &dyn Disk, segment: CutSegment) -> io::Result<std::sync::Arc<dyn DiskFile>> {
    let file = disk.open(&segment_name(segment.first), Access::Read)?;
    let length = file.len()?;
    if length < segment.bytes {
        let cause = format!("it has {length} bytes where {} were committed", segment.bytes);
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, cause));
    }
    Ok(file)
}
