//! Reading committed records by position.
//! Owns: nothing; it looks at the table that the writer keeps.
//! May touch: segment files, for reading.
//! Never: shows a record that is not committed, or holds a lock while it reads a file.

use std::path::PathBuf;
use std::sync::Arc;

use super::error::ReadError;
use super::record::{Line, Record};
use super::scan::{Scanner, Step, lines_of};
use super::segment::{Shared, Stretch, segment_name};
use super::window::line_length;
use crate::ids::Seq;
use crate::limits::{JOURNAL_BATCH_BYTES_MAX, JOURNAL_READ_BYTES};

/// A handle for reading; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Reader {
    pub(super) shared: Arc<Shared>,
}

/// What a position handed out earlier means now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A committed record stands there.
    Here,
    /// Before the first record that is kept.
    Retired,
    /// Behind the last committed record.
    Ahead,
    /// Between two epochs: another copy of this journal may have given it out.
    Foreign,
}

/// A segment as the scrub sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentRange {
    /// Its first position.
    pub first: Seq,
    /// Its last committed position; `first - 1` when it has none.
    pub last: Seq,
    /// Bytes up to the end of that record.
    pub bytes: u64,
}

impl Reader {
    /// Position of the last committed record.
    pub fn committed(&self) -> Seq {
        self.shared.committed()
    }

    /// First position that is kept; a cursor below it has a gap.
    pub fn floor(&self) -> Seq {
        self.shared.floor()
    }

    /// The epoch of records that are written now.
    pub fn epoch(&self) -> u32 {
        self.shared.epoch
    }

    /// The first epoch of this journal.
    pub fn home_epoch(&self) -> u32 {
        self.shared.home_epoch
    }

    /// What `seq` means in this journal. Looks at the table only.
    pub fn place(&self, seq: Seq) -> Place {
        if seq > self.committed() {
            return Place::Ahead;
        }
        match self.locate(seq) {
            Ok(_) => Place::Here,
            Err(ReadError::Retired { .. }) => Place::Retired,
            Err(_) => Place::Foreign,
        }
    }

    /// The record at `seq`.
    ///
    /// # Errors
    /// There is none, or its file cannot be read.
    pub fn read(&self, seq: Seq) -> Result<Record, ReadError> {
        let stretch = self.locate(seq)?;
        let mut found = None;
        self.walk(&stretch, seq, |record, _| {
            found = Some(record);
            false
        })?;
        found.ok_or_else(|| self.damaged(&stretch, stretch.offset, seq, "the record is not there".to_string()))
    }

    /// Committed records from `from` on, ascending, until their lines exceed `bytes_max`; at least one if there
    /// is any at or behind `from`. Positions between two epochs are passed over.
    ///
    /// # Errors
    /// `from` lies before the first record that is kept, or a file cannot be read.
    pub fn scan(&self, from: Seq, bytes_max: usize) -> Result<Vec<Record>, ReadError> {
        let committed = self.committed();
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut next = from;
        while next <= committed && (records.is_empty() || bytes < bytes_max) {
            let Some(stretch) = self.at_or_behind(next)? else { break };
            next = next.max(stretch.seq);
            let before = next;
            self.walk(&stretch, next, |record, length| {
                bytes += length;
                next = record.seq + 1;
                let more = bytes < bytes_max && record.seq < stretch.last && record.seq < committed;
                records.push(record);
                more
            })?;
            if next == before {
                return Err(self.damaged(&stretch, stretch.end, next, "the record is not there".to_string()));
            }
        }
        Ok(records)
    }

    /// All segments, ascending; the last one is being written.
    pub fn segments(&self) -> Vec<SegmentRange> {
        let range = |s: &super::segment::Segment| SegmentRange { first: s.first, last: s.last, bytes: s.bytes };
        self.shared.table().iter().map(range).collect()
    }

    /// Re-hashes the committed part of the segment that begins at `first`, from the medium or the page cache.
    ///
    /// # Errors
    /// The first difference from what was written, with its file and offset.
    pub fn rehash(&self, first: Seq) -> Result<(), ReadError> {
        let (position, bytes, last, after) = {
            let table = self.shared.table();
            let Ok(index) = table.binary_search_by_key(&first, |segment| segment.first) else {
                return Err(ReadError::Absent { committed: self.committed() });
            };
            let segment = &table[index];
            (segment.position(), segment.bytes, segment.last, table.get(index + 1).map(|next| next.chain_before))
        };
        let path = self.shared.disk.path(&segment_name(first));
        let io = |cause: std::io::Error| ReadError::Io { path: path.clone(), cause: cause.to_string() };
        let damaged = |offset, seq, cause| ReadError::Damaged { path: path.clone(), offset, seq, cause };
        let file = self.shared.file(first).map_err(io)?;
        let mut scanner = Scanner::new(file, 0, bytes, position);
        loop {
            match scanner.step().map_err(io)? {
                Step::Batch(_) => {}
                Step::Bad(bad) => return Err(damaged(bad.offset, bad.seq, bad.cause)),
                Step::End { offset } => {
                    let position = scanner.position();
                    let whole = offset == bytes && position.seq == last + 1;
                    let linked = after.is_none_or(|chain| chain == position.chain);
                    return match whole && linked {
                        true => Ok(()),
                        false => Err(damaged(offset, position.seq, "records are missing at the end".to_string())),
                    };
                }
            }
        }
    }

    fn locate(&self, seq: Seq) -> Result<Stretch, ReadError> {
        let table = self.shared.table();
        let index = table.partition_point(|segment| segment.first <= seq);
        let Some(index) = index.checked_sub(1) else {
            return Err(ReadError::Retired { floor: table[0].first });
        };
        let segment = &table[index];
        if seq > segment.last {
            drop(table);
            return Err(ReadError::Absent { committed: self.committed() });
        }
        Ok(stretch_of(segment, seq))
    }

    /// The stretch of the first committed record at or behind `seq`.
    fn at_or_behind(&self, seq: Seq) -> Result<Option<Stretch>, ReadError> {
        match self.locate(seq) {
            Ok(stretch) => Ok(Some(stretch)),
            Err(ReadError::Absent { .. }) => {
                let table = self.shared.table();
                let index = table.partition_point(|segment| segment.first <= seq);
                let next = table[index..].iter().find(|segment| !segment.is_empty());
                Ok(next.map(|segment| stretch_of(segment, segment.first)))
            }
            Err(error) => Err(error),
        }
    }

    /// Hands over records from `from` to the end of the stretch, with the bytes of their lines, for as long as
    /// `take` wants more.
    fn walk(&self, stretch: &Stretch, from: Seq, mut take: impl FnMut(Record, usize) -> bool) -> Result<(), ReadError> {
        let path = || self.shared.disk.path(&segment_name(stretch.segment));
        let io = |cause: std::io::Error| ReadError::Io { path: path(), cause: cause.to_string() };
        let file = self.shared.file(stretch.segment).map_err(io)?;
        let (mut offset, mut seq) = (stretch.offset, stretch.seq);
        let mut wanted = JOURNAL_READ_BYTES;
        while offset < stretch.end {
            let mut buffer = vec![0; wanted.min((stretch.end - offset) as usize)];
            let count = file.read_at(&mut buffer, offset).map_err(io)?;
            let bytes = &buffer[..count];
            let mut used = 0;
            // Lines before the wanted one are stepped over unread.
            while seq < from {
                let Some(length) = line_length(&bytes[used..]) else { break };
                used += length;
                seq += 1;
            }
            if seq >= from {
                for (line, range) in lines_of(&bytes[used..]) {
                    let at = offset + (used + range.start) as u64;
                    let record = self.record(stretch, at, seq, line, &bytes[used..][range.clone()])?;
                    seq += 1;
                    if !take(record, range.len()) {
                        return Ok(());
                    }
                }
                used = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            }
            if used == 0 {
                if count < buffer.len() || wanted >= JOURNAL_BATCH_BYTES_MAX {
                    return Err(self.damaged(stretch, offset, seq, "the line has no end".to_string()));
                }
                wanted = (wanted * 4).min(JOURNAL_BATCH_BYTES_MAX);
            }
            offset += used as u64;
        }
        Ok(())
    }

    fn record(
        &self,
        stretch: &Stretch,
        offset: u64,
        seq: Seq,
        line: Result<Line, String>,
        bytes: &[u8],
    ) -> Result<Record, ReadError> {
        let record = line.and_then(|line| line.record(bytes).map(|r| r.to_record()).map_err(|cause| cause.to_string()));
        match record {
            Ok(record) if record.seq == seq => Ok(record),
            Ok(record) => Err(self.damaged(stretch, offset, seq, format!("the line has seq {}", record.seq))),
            Err(cause) => Err(self.damaged(stretch, offset, seq, cause)),
        }
    }

    fn damaged(&self, stretch: &Stretch, offset: u64, seq: Seq, cause: String) -> ReadError {
        let path: PathBuf = self.shared.disk.path(&segment_name(stretch.segment));
        ReadError::Damaged { path, offset, seq, cause }
    }
}

fn stretch_of(segment: &super::segment::Segment, seq: Seq) -> Stretch {
    let (offset, first) = segment.mark(seq);
    Stretch { segment: segment.first, offset, seq: first, end: segment.mark_end(seq), last: segment.last }
}
