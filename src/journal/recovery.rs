//! Reading at start: from the files to the state, checking everything that is read.
//! Owns: the choice of a snapshot, the replay, and the verdict on a bad tail.
//! May touch: segments and snapshots, for reading.
//! Never: changes a file; that happens only after all of this succeeded.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use ring::digest::{Context, SHA256};

use super::JOURNAL_FORMAT;
use super::Restore;
use super::chain::{Chain, to_hex};
use super::disk::{Access, Disk, DiskFile};
use super::error::JournalError;
use super::record::{Line, RecordRef};
use super::scan::{Bad, Batch, BatchLine, Position, Scanner, Step, is_blank, survey};
use super::seal::{OPENED, Opened, Recovered, SEAL, Seal, body};
use super::segment::{Segment, list_segments, segment_name};
use super::snapshot::{OpenedAt, Snapshot, list_snapshots, snapshot_name};
use super::window::{LineEnd, Window};
use crate::audit::key::PublicKey;
use crate::ids::Seq;
use crate::limits::{JOURNAL_BATCH_BYTES_MAX, JOURNAL_FILE_BYTES_MAX, JOURNAL_READ_BYTES};

/// Everything that was learnt from the files.
pub(super) struct Found {
    pub table: Vec<Segment>,
    /// What the next record must be, were the epoch to go on.
    pub position: Position,
    /// Position of the last record.
    pub last: Seq,
    /// Chain value of the very first record.
    pub journal: Chain,
    pub home_epoch: u32,
    pub opened: OpenedAt,
    pub torn: Option<Recovered>,
    /// Where in the tail the last batch begins that nothing proves to have been synced.
    pub unproven_from: u64,
    pub unsealed_records: u64,
    pub records: u64,
    pub snapshot: Option<Seq>,
    pub snapshots_skipped: Vec<String>,
    /// A good snapshot of records that are not here.
    pub ahead: Option<(PathBuf, Seq)>,
    /// Segment files without any byte, left by a rename that was reported as failed.
    pub blanks: Vec<Seq>,
}

/// Reads everything; `None` when there is nothing.
pub(super) fn recover(
    disk: &dyn Disk,
    snapshots: &dyn Disk,
    keys: &[PublicKey],
    restore: &mut dyn Restore,
) -> Result<Option<Found>, JournalError> {
    let list = |cause| JournalError::Io { action: "list the segments in", path: disk.path(""), cause };
    let firsts = list_segments(disk).map_err(list)?;
    let list = |cause| JournalError::Io { action: "list the snapshots in", path: snapshots.path(""), cause };
    let candidates = list_snapshots(snapshots).map_err(list)?;
    let Some(home) = firsts.first() else {
        return match candidates.first() {
            None => Ok(None),
            Some(seq) => Err(JournalError::SnapshotContradicts {
                path: snapshots.path(&snapshot_name(*seq)),
                seq: *seq,
                cause: "the journal has no segment".to_string(),
            }),
        };
    };
    let mut replay = Replay::new(disk, &firsts, restore);
    replay.start(*home);
    replay.use_snapshot(snapshots, &candidates, keys)?;
    replay.run()?;
    replay.finish().map(Some)
}

/// Reads all of the journal and no snapshot; `None` when there is nothing.
pub(super) fn replay_all(disk: &dyn Disk, restore: &mut dyn Restore) -> Result<Option<Found>, JournalError> {
    let list = |cause| JournalError::Io { action: "list the segments in", path: disk.path(""), cause };
    let firsts = list_segments(disk).map_err(list)?;
    let Some(home) = firsts.first() else { return Ok(None) };
    let mut replay = Replay::new(disk, &firsts, restore);
    replay.start(*home);
    replay.run()?;
    replay.finish().map(Some)
}

/// Compares a snapshot with the record that it stands at; false when the journal ends before it.
pub(super) fn is_placed(disk: &dyn Disk, snapshot: &Snapshot) -> Result<bool, JournalError> {
    struct Nothing;
    impl Restore for Nothing {
        fn reset(&mut self) {}
        fn snapshot_line(&mut self, _line: &[u8]) -> Result<(), String> {
            Ok(())
        }
        fn record(&mut self, _record: &RecordRef<'_>) -> Result<(), String> {
            Ok(())
        }
    }
    let list = |cause| JournalError::Io { action: "list the segments in", path: disk.path(""), cause };
    let firsts = list_segments(disk).map_err(list)?;
    Replay::new(disk, &firsts, &mut Nothing).place(snapshot).map(|end| end.is_some())
}

struct Replay<'a> {
    disk: &'a dyn Disk,
    firsts: &'a [Seq],
    restore: &'a mut dyn Restore,
    table: Vec<Segment>,
    position: Position,
    last: Seq,
    journal: Option<Chain>,
    home_epoch: u32,
    opened: Option<OpenedAt>,
    torn: Option<Recovered>,
    unproven_from: u64,
    unsealed_records: u64,
    records: u64,
    snapshot: Option<Seq>,
    snapshots_skipped: Vec<String>,
    ahead: Option<(PathBuf, Seq)>,
    blanks: Vec<Seq>,
    /// The next record must be `journal.opened`: a journal or an epoch begins.
    must_open: bool,
    /// Where the replay begins: segment and offset, when a snapshot stands for what is before.
    resume: Option<(Seq, u64)>,
}

impl<'a> Replay<'a> {
    fn new(disk: &'a dyn Disk, firsts: &'a [Seq], restore: &'a mut dyn Restore) -> Self {
        Self {
            disk,
            firsts,
            restore,
            table: Vec::new(),
            position: Position::start(0),
            last: 0,
            journal: None,
            home_epoch: 0,
            opened: None,
            torn: None,
            unproven_from: 0,
            unsealed_records: 0,
            records: 0,
            snapshot: None,
            snapshots_skipped: Vec::new(),
            ahead: None,
            blanks: Vec::new(),
            must_open: false,
            resume: None,
        }
    }

    fn start(&mut self, home: Seq) {
        self.restore.reset();
        self.position = Position::start(home);
        self.home_epoch = epoch_of(home);
    }

    fn path(&self, first: Seq) -> PathBuf {
        self.disk.path(&segment_name(first))
    }

    fn io(&self, action: &'static str, first: Seq) -> impl FnOnce(io::Error) -> JournalError + use<> {
        let path = self.path(first);
        move |cause| JournalError::Io { action, path, cause }
    }

    fn damaged(&self, first: Seq, offset: u64, seq: Seq, cause: impl Into<String>) -> JournalError {
        JournalError::Damaged { path: self.path(first), offset, seq, cause: cause.into() }
    }

    fn open(&self, first: Seq) -> Result<Arc<dyn DiskFile>, JournalError> {
        self.disk.open(&segment_name(first), Access::Read).map_err(self.io("open", first))
    }

    /// Restores from the newest snapshot that is good, stands in this journal and is understood.
    fn use_snapshot(
        &mut self,
        snapshots: &dyn Disk,
        candidates: &[Seq],
        keys: &[PublicKey],
    ) -> Result<(), JournalError> {
        for seq in candidates {
            let name = snapshot_name(*seq);
            let snapshot = match Snapshot::open(snapshots, *seq, Some(keys)) {
                Ok(snapshot) => snapshot,
                Err(cause) => {
                    self.snapshots_skipped.push(format!("{name}: {cause}"));
                    continue;
                }
            };
            let Some(end) = self.place(&snapshot)? else {
                self.ahead.get_or_insert((snapshot.path.clone(), *seq));
                self.snapshots_skipped.push(format!("{name}: the journal ends before it"));
                continue;
            };
            if let Err(cause) = snapshot.restore(self.restore) {
                self.snapshots_skipped.push(format!("{name}: {cause}"));
                self.restore.reset();
                continue;
            }
            self.resume_from(snapshot, end);
            return Ok(());
        }
        Ok(())
    }

    fn resume_from(&mut self, snapshot: Snapshot, end: u64) {
        let Snapshot { head, mut table, .. } = snapshot;
        let tail = table.last_mut().expect("a checked table is not empty");
        tail.bytes = end;
        self.resume = Some((tail.first, end));
        self.unproven_from = end;
        self.table = table;
        self.position = Position { seq: head.seq + 1, chain: head.chain, batch: head.batch + 1 };
        self.last = head.seq;
        self.journal = Some(head.journal);
        self.home_epoch = head.home_epoch;
        self.opened = Some(head.opened);
        self.snapshot = Some(head.seq);
        // How many of them a seal covers is not known; one seal too many does no harm.
        self.unsealed_records = 1;
    }

    /// Finds the record that a snapshot stands at and compares; returns where it ends in its segment, or nothing
    /// when the journal ends before it.
    fn place(&self, snapshot: &Snapshot) -> Result<Option<u64>, JournalError> {
        let head = &snapshot.head;
        let contradicts = |cause: String| {
            Err(JournalError::SnapshotContradicts { path: snapshot.path.clone(), seq: head.seq, cause })
        };
        let (tail, older) = snapshot.table.split_last().expect("a checked table is not empty");
        if self.firsts.last().is_some_and(|newest| *newest < tail.first) {
            return Ok(None);
        }
        for segment in older {
            self.check_older(segment)?;
        }
        if !self.firsts.contains(&tail.first) {
            return Err(self.damaged(tail.first, 0, tail.first, "the segment is missing"));
        }
        for first in self.firsts.iter().filter(|first| **first <= head.seq) {
            let known = snapshot.table.binary_search_by_key(first, |segment| segment.first).is_ok();
            if !known && !is_blank(&*self.open(*first)?).map_err(self.io("read", *first))? {
                return contradicts(format!("does not know segment {}", segment_name(*first)));
            }
        }
        match self.chain_at(tail, head.seq)? {
            None => Ok(None),
            Some((chain, end)) if chain == head.chain => Ok(Some(end)),
            Some((chain, _)) => {
                contradicts(format!("was made from a record with chain value {}, not {chain}", head.chain))
            }
        }
    }

    /// A segment before the snapshot is not read at start, but it has to be there in full.
    fn check_older(&self, segment: &Segment) -> Result<(), JournalError> {
        if !self.firsts.contains(&segment.first) {
            return Err(self.damaged(segment.first, 0, segment.first, "the segment is missing"));
        }
        let length = self.open(segment.first)?.len().map_err(self.io("measure", segment.first))?;
        if length < segment.bytes {
            let cause = format!("the segment had {} bytes and has {length}", segment.bytes);
            return Err(self.damaged(segment.first, length, segment.last, cause));
        }
        Ok(())
    }

    /// The checked chain value of the record at `seq` and where the record ends; nothing when no whole line stands
    /// there.
    fn chain_at(&self, segment: &Segment, seq: Seq) -> Result<Option<(Chain, u64)>, JournalError> {
        // The record before it, which holds the chain value to continue from, may lie in the stretch before.
        let (offset, mut at) = segment.mark(seq.saturating_sub(1).max(segment.first));
        let mut window = Window::new(self.open(segment.first)?, offset, u64::MAX);
        let mut chain = (seq == segment.first).then_some(segment.chain_before);
        loop {
            let offset = window.offset();
            let end = match window.line_end(0, JOURNAL_BATCH_BYTES_MAX).map_err(self.io("read", segment.first))? {
                LineEnd::At(end) => end,
                LineEnd::Missing | LineEnd::TooLong => return Ok(None),
            };
            let bytes = &window.bytes()[..end];
            // Whether other bytes are a torn tail or damage is found out by reading everything.
            let Some(line) = Line::parse(bytes).ok().filter(|line| line.seq == at) else { return Ok(None) };
            if at < seq {
                chain = line.chain(bytes);
                at += 1;
                window.advance(end);
                continue;
            }
            let chain = chain.and_then(|before| line.follows(bytes, before));
            return Ok(chain.map(|chain| (chain, offset + end as u64)));
        }
    }

    fn run(&mut self) -> Result<(), JournalError> {
        let firsts = self.firsts;
        let resume = self.resume;
        for first in firsts {
            match resume {
                Some((segment, _)) if *first < segment => {}
                Some((segment, offset)) if *first == segment => self.walk(*first, offset)?,
                _ => self.enter(*first)?,
            }
        }
        Ok(())
    }

    /// Goes on with the next segment.
    fn enter(&mut self, first: Seq) -> Result<(), JournalError> {
        let continues = first == self.position.seq;
        let begins_epoch = first & u64::from(u32::MAX) == 1 && epoch_of(first) > epoch_of(self.last);
        if !continues && !begins_epoch {
            if is_blank(&*self.open(first)?).map_err(self.io("read", first))? {
                self.blanks.push(first);
                return Ok(());
            }
            let cause = format!("records {} and following must stand here or in a segment before", self.position.seq);
            return Err(self.damaged(first, 0, self.position.seq, cause));
        }
        self.position.seq = first;
        self.must_open = !continues || self.table.is_empty();
        self.table.push(Segment::empty(first, self.position.chain, self.position.batch));
        self.unproven_from = 0;
        self.walk(first, 0)?;
        // The file of a journal's or an epoch's first segment gets its name only once it holds a record.
        if self.must_open {
            return Err(self.damaged(first, 0, first, "the segment holds no record"));
        }
        Ok(())
    }

    fn tail(&mut self) -> &mut Segment {
        self.table.last_mut().expect("a segment was entered")
    }

    fn walk(&mut self, first: Seq, from: u64) -> Result<(), JournalError> {
        let file = self.open(first)?;
        if file.len().map_err(self.io("measure", first))? > JOURNAL_FILE_BYTES_MAX {
            let cause = format!("the file is larger than {JOURNAL_FILE_BYTES_MAX} bytes");
            return Err(self.damaged(first, JOURNAL_FILE_BYTES_MAX, self.position.seq, cause));
        }
        let mut scanner = Scanner::new(file.clone(), from, u64::MAX, self.position);
        // Up to here a survey has seen bytes, and nothing but NUL behind it.
        let mut surveyed = 0;
        loop {
            let before = scanner.position().chain;
            let bad = match scanner.step().map_err(self.io("read", first))? {
                Step::Batch(batch) => {
                    self.take(first, &batch, before)?;
                    self.position = scanner.position();
                    continue;
                }
                Step::Bad(bad) => bad,
                Step::End { offset } => {
                    if surveyed != 0 && offset >= surveyed {
                        return Ok(());
                    }
                    let rest = survey(file.clone(), offset, self.position.batch, None);
                    let rest = rest.map_err(self.io("read", first))?;
                    if rest.garbage_end == offset {
                        return Ok(());
                    }
                    surveyed = rest.garbage_end;
                    Bad {
                        offset,
                        seq: self.position.seq,
                        batch_offset: offset,
                        batch: self.position.batch,
                        batch_last: None,
                        cause: "NUL bytes stand before other bytes".to_string(),
                    }
                }
            };
            let offset = bad.batch_offset;
            match self.judge(first, file.clone(), bad) {
                // A daemon that writes was overtaken: what was half there is whole by now. Otherwise it never becomes so.
                Err(JournalError::Damaged { .. }) if self.is_whole_now(first, &file, offset)? => {
                    scanner = Scanner::new(file.clone(), offset, u64::MAX, self.position);
                }
                outcome => return outcome,
            }
        }
    }

    /// Whether a whole batch that continues what was read stands at `offset`.
    fn is_whole_now(&self, first: Seq, file: &Arc<dyn DiskFile>, offset: u64) -> Result<bool, JournalError> {
        let mut scanner = Scanner::new(file.clone(), offset, u64::MAX, self.position);
        let step = scanner.step().map_err(self.io("read", first))?;
        Ok(matches!(step, Step::Batch(_)))
    }

    /// Folds a whole batch.
    fn take(&mut self, first: Seq, batch: &Batch<'_>, before: Chain) -> Result<(), JournalError> {
        let mut previous = before;
        for BatchLine { line, bytes, offset, chain } in batch.lines() {
            let seq = line.seq;
            let not_understood =
                |cause: String| JournalError::NotUnderstood { path: self.path(first), offset, seq, cause };
            let record = line.record(bytes).map_err(|cause| not_understood(cause.to_string()))?;
            self.note(first, &record, offset, previous)?;
            self.restore.record(&record).map_err(|cause| JournalError::NotUnderstood {
                path: self.disk.path(&segment_name(first)),
                offset,
                seq,
                cause,
            })?;
            self.tail().add(seq, offset);
            self.last = seq;
            self.records += 1;
            previous = chain;
            self.journal.get_or_insert(chain);
        }
        self.tail().bytes = batch.end();
        self.unproven_from = batch.offset;
        Ok(())
    }

    /// Looks at the journal's own records.
    fn note(&mut self, first: Seq, record: &RecordRef<'_>, offset: u64, previous: Chain) -> Result<(), JournalError> {
        let path = self.path(first);
        let seq = record.seq;
        let not_understood = |cause| JournalError::NotUnderstood { path: path.clone(), offset, seq, cause };
        self.unsealed_records += 1;
        match record.kind {
            OPENED => {
                let opened: Opened = body(record.body).map_err(not_understood)?;
                if opened.format > JOURNAL_FORMAT {
                    return Err(JournalError::FormatNewer { path, found: opened.format, supported: JOURNAL_FORMAT });
                }
                let Opened { epoch, directory, file, .. } = opened;
                self.opened = Some(OpenedAt { seq, segment: first, epoch, directory, file });
            }
            SEAL => {
                let seal: Seal = body(record.body).map_err(not_understood)?;
                if (seal.head, seal.chain) != (self.last, previous) {
                    return Err(self.damaged(
                        first,
                        offset,
                        seq,
                        "the seal names another record than the one before it",
                    ));
                }
                self.unsealed_records = 0;
            }
            _ if self.must_open => {
                return Err(self.damaged(first, offset, seq, "an epoch must begin with journal.opened"));
            }
            _ => {}
        }
        self.must_open = false;
        Ok(())
    }

    /// Decides whether bad bytes are a torn tail, which is noted, or damage, which ends the start.
    fn judge(&mut self, first: Seq, file: Arc<dyn DiskFile>, bad: Bad) -> Result<(), JournalError> {
        let damaged = |cause: String| Err(self.damaged(first, bad.offset, bad.seq, cause));
        for later in self.firsts.iter().filter(|later| **later > first) {
            if !is_blank(&*self.open(*later)?).map_err(self.io("read", *later))? {
                return damaged(bad.cause);
            }
        }
        let survey = survey(file.clone(), bad.offset, bad.batch, bad.batch_last).map_err(self.io("read", first))?;
        if let Some((offset, seq)) = survey.later {
            return damaged(format!("{}; record {seq} of a later batch stands at byte {offset}", bad.cause));
        }
        let bytes = survey.garbage_end.max(bad.offset) - bad.batch_offset;
        let sha256 = hash(&*file, bad.batch_offset, bytes).map_err(self.io("read", first))?;
        self.torn = Some(Recovered {
            segment: segment_name(first),
            offset: bad.batch_offset,
            bytes,
            batch: bad.batch,
            sha256,
            cause: bad.cause,
        });
        Ok(())
    }

    fn finish(self) -> Result<Found, JournalError> {
        let home = self.firsts[0];
        let no_record = || JournalError::Damaged {
            path: self.disk.path(&segment_name(home)),
            offset: 0,
            seq: home,
            cause: "the journal does not begin with journal.opened".to_string(),
        };
        let opened = self.opened.ok_or_else(no_record)?;
        let journal = self.journal.ok_or_else(no_record)?;
        Ok(Found {
            table: self.table,
            position: self.position,
            last: self.last,
            journal,
            home_epoch: self.home_epoch,
            opened,
            torn: self.torn,
            unproven_from: self.unproven_from,
            unsealed_records: self.unsealed_records,
            records: self.records,
            snapshot: self.snapshot,
            snapshots_skipped: self.snapshots_skipped,
            ahead: self.ahead,
            blanks: self.blanks,
        })
    }
}

/// The upper half of a position.
pub(super) fn epoch_of(seq: Seq) -> u32 {
    (seq >> 32) as u32
}

fn hash(file: &dyn DiskFile, from: u64, bytes: u64) -> io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; JOURNAL_READ_BYTES];
    let mut done = 0;
    while done < bytes {
        let wanted = (bytes - done).min(buffer.len() as u64) as usize;
        let count = file.read_at(&mut buffer[..wanted], from + done)?;
        if count == 0 {
            break;
        }
        context.update(&buffer[..count]);
        done += count as u64;
    }
    Ok(to_hex(context.finish().as_ref()))
}
