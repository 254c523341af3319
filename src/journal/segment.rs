//! Segments: which files the log consists of, and where in them a record is.
//! Owns: file names, the table of segments and its sparse index, shared between the writer and all readers.
//! Never: holds its lock during a read, a write or a sync.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use super::chain::Chain;
use super::disk::{Access, Disk, DiskFile};
use super::scan::Position;
use crate::ids::Seq;
use crate::limits::{JOURNAL_MARK_RECORDS, JOURNAL_READ_HANDLES_MAX};

/// The preallocated segment that is kept as a reserve.
pub(super) const SPARE: &str = "spare";
/// Ending of a segment that is being rewritten.
pub(super) const REWRITE: &str = ".rewrite";

/// File name of the segment that begins at `first`.
pub(super) fn segment_name(first: Seq) -> String {
    format!("{first:020}.jsonl")
}

/// The first position of the segment of that name; none for other files.
pub(super) fn parse_segment_name(name: &str) -> Option<Seq> {
    let digits = name.strip_suffix(".jsonl")?;
    let canonical = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    // Positions start at 1, and the last 32-bit stretch is left out so that counting on cannot overflow.
    let legal = 1..=u64::MAX - (1 << 32);
    if canonical { digits.parse().ok().filter(|first| legal.contains(first)) } else { None }
}

/// First positions of all segments, ascending.
pub(super) fn list_segments(disk: &dyn Disk) -> io::Result<Vec<Seq>> {
    let mut firsts: Vec<Seq> = disk.list()?.iter().filter_map(|name| parse_segment_name(name)).collect();
    firsts.sort_unstable();
    Ok(firsts)
}

/// One segment as readers need it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Segment {
    /// Position of its first record.
    pub first: Seq,
    /// Position of its last committed record; `first - 1` when it has none.
    pub last: Seq,
    /// Bytes up to the end of that record.
    pub bytes: u64,
    /// Chain value before its first line.
    pub chain_before: Chain,
    /// Number of its first batch.
    pub batch_first: u64,
    /// File offset of every [`JOURNAL_MARK_RECORDS`]th record, beginning with the first.
    pub marks: Vec<u32>,
    /// Open for reading, if a reader has needed it.
    #[serde(skip)]
    file: Option<Arc<dyn DiskFile>>,
}

impl Segment {
    pub fn empty(first: Seq, chain_before: Chain, batch_first: u64) -> Self {
        Self { first, last: first - 1, bytes: 0, chain_before, batch_first, marks: Vec::new(), file: None }
    }

    /// Takes in a record that begins at `offset`; records come in order.
    pub fn add(&mut self, seq: Seq, offset: u64) {
        if (seq - self.first).is_multiple_of(JOURNAL_MARK_RECORDS) {
            self.marks.push(u32::try_from(offset).expect("a segment stays below 4 GiB"));
        }
        self.last = seq;
    }

    pub fn is_empty(&self) -> bool {
        self.last < self.first
    }

    /// What its first line must be.
    pub fn position(&self) -> Position {
        Position { seq: self.first, chain: self.chain_before, batch: self.batch_first }
    }

    /// Which mark is the last one at or before `seq`.
    pub fn mark_index(&self, seq: Seq) -> usize {
        ((seq - self.first) / JOURNAL_MARK_RECORDS) as usize
    }

    /// Whether there is a mark for every stretch, in order.
    pub fn is_consistent(&self) -> bool {
        let marks = if self.is_empty() { 0 } else { self.mark_index(self.last) + 1 };
        self.first > 0
            && self.last >= self.first - 1
            && self.marks.len() == marks
            && self.marks.first().is_none_or(|offset| *offset == 0)
            && self.marks.is_sorted_by(|a, b| a < b)
    }

    /// The mark at or before `seq`: file offset and position.
    pub fn mark(&self, seq: Seq) -> (u64, Seq) {
        let index = self.mark_index(seq);
        (u64::from(self.marks[index]), self.first + index as u64 * JOURNAL_MARK_RECORDS)
    }

    /// Where the marked stretch of `seq` ends.
    pub fn mark_end(&self, seq: Seq) -> u64 {
        self.marks.get(self.mark_index(seq) + 1).map_or(self.bytes, |offset| u64::from(*offset))
    }
}

/// A stretch of a segment that is known to be committed.
#[derive(Clone)]
pub(super) struct Stretch {
    /// First position of the segment, which names it.
    pub segment: Seq,
    /// File offset where it begins, at a record.
    pub offset: u64,
    /// Position of that record.
    pub seq: Seq,
    /// File offset where the marked stretch ends.
    pub end: u64,
    /// Last committed position of the segment.
    pub last: Seq,
}

/// What the writer and the readers share.
pub(super) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub epoch: u32,
    pub home_epoch: u32,
    committed: AtomicU64,
    table: Mutex<Vec<Segment>>,
}

impl Shared {
    /// `table` holds at least one segment.
    pub fn new(disk: Arc<dyn Disk>, epoch: u32, home_epoch: u32, table: Vec<Segment>) -> Self {
        let committed = table.iter().rev().find(|segment| !segment.is_empty()).map_or(0, |segment| segment.last);
        Self { disk, epoch, home_epoch, committed: AtomicU64::new(committed), table: Mutex::new(table) }
    }

    pub fn committed(&self) -> Seq {
        self.committed.load(Ordering::Acquire)
    }

    pub fn table(&self) -> MutexGuard<'_, Vec<Segment>> {
        self.table.lock().expect("no holder of the table panics")
    }

    /// Makes a batch visible: `starts` are the offsets of its records, the first of which is `first`.
    pub fn commit(&self, first: Seq, starts: &[u64], end: u64) {
        let mut table = self.table();
        let tail = table.last_mut().expect("the table is never empty");
        for (index, start) in starts.iter().enumerate() {
            tail.add(first + index as u64, *start);
        }
        tail.bytes = end;
        let last = tail.last;
        drop(table);
        self.committed.store(last, Ordering::Release);
    }

    /// Begins a new tail.
    pub fn begin(&self, segment: Segment) {
        self.table().push(segment);
    }

    /// First position that is kept.
    pub fn floor(&self) -> Seq {
        self.table()[0].first
    }

    /// The file of a segment. At most [`JOURNAL_READ_HANDLES_MAX`] stay open.
    pub fn file(&self, first: Seq) -> io::Result<Arc<dyn DiskFile>> {
        let find = |table: &[Segment]| table.binary_search_by_key(&first, |segment| segment.first);
        {
            let table = self.table();
            if let Ok(index) = find(&table)
                && let Some(file) = &table[index].file
            {
                return Ok(file.clone());
            }
        }
        let file = self.disk.open(&segment_name(first), Access::Read)?;
        let mut table = self.table();
        if table.iter().filter(|segment| segment.file.is_some()).count() >= JOURNAL_READ_HANDLES_MAX {
            table.iter_mut().for_each(|segment| segment.file = None);
        }
        if let Ok(index) = find(&table) {
            table[index].file = Some(file.clone());
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_name_has_one_spelling() {
        assert_eq!(parse_segment_name(&segment_name(7)), Some(7));
        assert_eq!(parse_segment_name(&segment_name(0)), None);
        assert_eq!(parse_segment_name(&segment_name(u64::MAX)), None);
        for name in [
            "7.jsonl",
            "spare",
            "00000000000000000007.jsonl.rewrite",
            "+0000000000000000007.jsonl",
            "99999999999999999999.jsonl",
        ] {
            assert_eq!(parse_segment_name(name), None, "{name}");
        }
    }

    #[test]
    fn marks_lead_to_the_stretch_that_holds_a_record() {
        let mut segment = Segment::empty(100, Chain::START, 1);
        for index in 0..130 {
            segment.add(100 + index, index * 10);
        }
        segment.bytes = 1_300;
        assert_eq!(segment.marks, vec![0, 640, 1_280]);
        assert_eq!((segment.mark(163), segment.mark_end(163)), ((0, 100), 640));
        assert_eq!((segment.mark(164), segment.mark_end(164)), ((640, 164), 1_280));
        assert_eq!((segment.mark(229), segment.mark_end(229)), ((1_280, 228), 1_300));
    }
}
