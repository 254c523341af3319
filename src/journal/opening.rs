//! Opening: making sure that what was read is on the medium, and beginning to write.
//! Owns: the rewrite of the tail, the start of an epoch, and the first batch of every opening.
//! May touch: the tail segment, the reserve, leftovers of an earlier opening.
//! Never: lets anything that was read be shown before the rewritten tail and its directory are synced.

use std::io;
use std::sync::Arc;

use super::chain::Chain;
use super::cut::RESTORED;
use super::disk::{Access, Disk, DiskFile, Identity, is_out_of_space};
use super::error::JournalError;
use super::record::{Draft, Line, encode};
use super::recovery::{Found, epoch_of, recover};
use super::scan::Position;
use super::seal::{OPENED, OpenCause, Opened, RECOVERED, Recovered, to_body};
use super::segment::{REWRITE, SPARE, Segment, Shared, parse_segment_name, segment_name};
use super::snapshot::{OpenedAt, remove_leftovers};
use super::writer::{Journal, Parts, Tail, segment_bytes_for};
use super::{Head, JOURNAL_FORMAT, Options, Recovery, Restore};
use crate::audit::key::SigningKey;
use crate::ids::Seq;
use crate::limits::{JOURNAL_ROOM_BYTES, SNAPSHOT_WRITE_BYTES};

impl Journal {
    /// Reads what is there, folds it into `restore`, makes sure that all of it is on the medium, and begins to
    /// write: a `journal.opened` record, which `restore` is shown too.
    ///
    /// # Errors
    /// What is there is damaged, newer, or not understood; or the disk failed. Nothing is repaired then.
    pub fn open(
        disk: Box<dyn Disk>,
        snapshots: Box<dyn Disk>,
        options: Options,
        signer: Arc<SigningKey>,
        now_ms: u64,
        restore: &mut dyn Restore,
    ) -> Result<(Self, Recovery), JournalError> {
        let (disk, snapshots): (Arc<dyn Disk>, Arc<dyn Disk>) = (disk.into(), snapshots.into());
        let found = recover(&*disk, &*snapshots, &[signer.public().clone()], restore)?;
        let opening = Opening { disk: &disk, options: &options, now_ms };
        let cause = opening.cause(found.as_ref())?;
        opening.remove_leftovers(found.as_ref())?;
        let leftovers = |cause| JournalError::Io { action: "clear", path: snapshots.path(""), cause };
        remove_leftovers(&*snapshots).map_err(leftovers)?;
        let begun = match found {
            Some(found) if cause == OpenCause::Reopened => opening.reopen(found)?,
            found => opening.begin_epoch(found, cause)?,
        };
        let Begun { tail, table, records, head, opened, found } = begun;
        if cause == OpenCause::Copied {
            opening.forget_restore()?;
        }
        show_own_records(restore, &records)?;
        let shared = Arc::new(Shared::new(disk.clone(), opened.epoch, found.home_epoch, table));
        let own_records = head.seq - found.last_before_own;
        let mut journal = Journal::assemble(Parts {
            disk,
            snapshots,
            shared,
            signer,
            options,
            tail,
            head,
            journal: found.journal,
            opened,
            unsealed_records: found.unsealed_records + own_records,
            now_ms,
        });
        let reserve_is_intact = journal.make_reserve().is_ok();
        let recovery = Recovery {
            cause,
            epoch: opened.epoch,
            snapshot: found.snapshot,
            snapshots_skipped: found.snapshots_skipped,
            records_replayed: found.records,
            torn: found.torn,
            reserve_is_intact,
        };
        Ok((journal, recovery))
    }
}

/// What is kept of [`Found`] once writing has begun.
struct Kept {
    home_epoch: u32,
    journal: Chain,
    /// Position before the first record of this opening.
    last_before_own: Seq,
    unsealed_records: u64,
    records: u64,
    snapshot: Option<Seq>,
    snapshots_skipped: Vec<String>,
    torn: Option<Recovered>,
}

struct Begun {
    tail: Tail,
    table: Vec<Segment>,
    /// The lines that the opening wrote.
    records: Vec<u8>,
    head: Head,
    opened: OpenedAt,
    found: Kept,
}

struct Opening<'a> {
    disk: &'a Arc<dyn Disk>,
    options: &'a Options,
    now_ms: u64,
}

/// The first batch of an opening, encoded for the file that will hold it.
struct FirstBatch {
    bytes: Vec<u8>,
    starts: Vec<u64>,
    head: Head,
    first_chain: Chain,
    opened: OpenedAt,
}

/// What the first batch says.
struct Announcement {
    position: Position,
    epoch: u32,
    cause: OpenCause,
    directory: Identity,
    segment: Seq,
    torn: Option<Recovered>,
}

impl Opening<'_> {
    fn io(&self, action: &'static str, name: &str) -> impl FnOnce(io::Error) -> JournalError + use<> {
        let path = self.disk.path(name);
        move |cause| JournalError::Io { action, path, cause }
    }

    /// Compares the directory and the file that holds the last opening with what that opening wrote down.
    fn cause(&self, found: Option<&Found>) -> Result<OpenCause, JournalError> {
        let Some(found) = found else { return Ok(OpenCause::Created) };
        let directory = self.disk.identity().map_err(self.io("identify", ""))?;
        let name = segment_name(found.opened.segment);
        let file = self.disk.open(&name, Access::Read).and_then(|file| file.identity());
        let file = file.map_err(self.io("identify", &name))?;
        let is_restored = self.disk.list().map_err(self.io("list", ""))?.iter().any(|name| name == RESTORED);
        if is_restored || (found.opened.directory, found.opened.file) != (directory, file) {
            return Ok(OpenCause::Copied);
        }
        match &found.ahead {
            None => Ok(OpenCause::Reopened),
            Some((path, seq)) => Err(JournalError::SnapshotContradicts {
                path: path.clone(),
                seq: *seq,
                cause: format!("the journal ends at {}: acknowledged records are missing", found.last),
            }),
        }
    }

    /// Only once the new epoch is on disk: a crash before it must not make the root the original again.
    fn forget_restore(&self) -> Result<(), JournalError> {
        match self.disk.remove(RESTORED) {
            Ok(()) => self.disk.sync_dir().map_err(self.io("sync", "")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.io("remove", RESTORED)(error)),
        }
    }

    fn remove_leftovers(&self, found: Option<&Found>) -> Result<(), JournalError> {
        let blanks = found.map(|found| found.blanks.as_slice()).unwrap_or_default();
        for name in self.disk.list().map_err(self.io("list", ""))? {
            let unfinished = name.strip_suffix(REWRITE).and_then(parse_segment_name).is_some();
            let blank = parse_segment_name(&name).is_some_and(|first| blanks.contains(&first));
            if name == SPARE || unfinished || blank {
                self.disk.remove(&name).map_err(self.io("remove", &name))?;
            }
        }
        Ok(())
    }

    /// Goes on in the same epoch: the tail is rewritten into a fresh file that ends with the first batch.
    fn reopen(&self, found: Found) -> Result<Begun, JournalError> {
        let segment = found.table.last().expect("something was found");
        let announcement = Announcement {
            position: found.position,
            epoch: found.opened.epoch,
            cause: OpenCause::Reopened,
            directory: self.disk.identity().map_err(self.io("identify", ""))?,
            segment: segment.first,
            torn: found.torn.clone(),
        };
        let (first, keep) = (segment.first, segment.bytes);
        let (tail, batch) = match self.write_fresh(first, keep, Some(&announcement)) {
            Err(JournalError::Io { cause, .. }) if is_out_of_space(&cause) => {
                self.write_in_place(first, keep, found.unproven_from, &announcement)?
            }
            other => other?,
        };
        Ok(self.begun(tail, batch.expect("an announcement makes a batch"), keep, found))
    }

    /// Begins a new epoch, in an empty directory or behind the segments of another one.
    fn begin_epoch(&self, found: Option<Found>, cause: OpenCause) -> Result<Begun, JournalError> {
        let now_s = u32::try_from(self.now_ms / 1_000).unwrap_or(u32::MAX).max(1);
        let epoch = match &found {
            None => now_s,
            Some(found) => now_s.max(epoch_of(found.last) + 1).max(found.opened.epoch + 1),
        };
        let first = u64::from(epoch) << 32 | 1;
        let mut found = match found {
            Some(found) => self.settle_copy(found)?,
            None => fresh(first),
        };
        let position = Position { seq: first, ..found.position };
        let announcement = Announcement {
            position,
            epoch,
            cause,
            directory: self.disk.identity().map_err(self.io("identify", ""))?,
            segment: first,
            torn: found.torn.clone(),
        };
        let (tail, batch) = self.write_fresh(first, 0, Some(&announcement)).map_err(|error| self.full(error))?;
        found.table.push(Segment::empty(first, position.chain, position.batch));
        found.last = first - 1;
        Ok(self.begun(tail, batch.expect("an announcement makes a batch"), 0, found))
    }

    /// Makes sure that the segments of a copied journal are on the medium, without its torn tail.
    fn settle_copy(&self, mut found: Found) -> Result<Found, JournalError> {
        let (tail, older) = found.table.split_last().expect("something was found");
        for segment in older {
            let name = segment_name(segment.first);
            let synced = self.disk.open(&name, Access::Write).and_then(|file| file.sync_data());
            synced.map_err(self.io("sync", &name))?;
        }
        let name = segment_name(tail.first);
        if tail.is_empty() {
            self.disk.remove(&name).map_err(self.io("remove", &name))?;
            self.disk.sync_dir().map_err(self.io("sync", ""))?;
            found.table.pop();
            return Ok(found);
        }
        match self.write_fresh(tail.first, tail.bytes, None) {
            Err(JournalError::Io { cause, .. }) if is_out_of_space(&cause) => {
                let settle = || -> io::Result<()> {
                    let file = self.disk.open(&name, Access::Write)?;
                    file.truncate(tail.bytes)?;
                    let unproven = read(&*file, found.unproven_from, tail.bytes)?;
                    file.write_at(&unproven, found.unproven_from)?;
                    file.sync_data()?;
                    self.disk.sync_dir()
                };
                settle().map_err(self.io("settle", &name))?;
            }
            other => drop(other?),
        }
        Ok(found)
    }

    /// Writes the first `keep` bytes of a segment and, if there is something to announce, the first batch into a
    /// fresh file which then takes the segment's name.
    fn write_fresh(
        &self,
        first: Seq,
        keep: u64,
        announcement: Option<&Announcement>,
    ) -> Result<(Tail, Option<FirstBatch>), JournalError> {
        let name = segment_name(first);
        let temporary = format!("{name}{REWRITE}");
        let available = self.disk.available_bytes().map_err(self.io("measure", ""))?;
        let size = match announcement {
            None => keep,
            Some(_) => segment_bytes_for(self.options.segment_bytes, available).max(keep + JOURNAL_ROOM_BYTES),
        };
        let write = || -> io::Result<(Arc<dyn DiskFile>, Option<FirstBatch>)> {
            let file = self.disk.create(&temporary, size)?;
            if keep > 0 {
                copy(&*self.disk.open(&name, Access::Read)?, &*file, keep)?;
            }
            let batch = announcement.map(|what| file.identity().map(|it| self.first_batch(what, it))).transpose()?;
            if let Some(batch) = &batch {
                file.write_at(&batch.bytes, keep)?;
            }
            file.sync_data()?;
            self.disk.rename(&temporary, &name)?;
            Ok((file, batch))
        };
        let written = write();
        if written.is_err() {
            // The next start removes it too; the first error is the one to report.
            drop(self.disk.remove(&temporary));
        }
        let (file, batch) = written.map_err(self.io("rewrite", &name))?;
        // Whatever the errno, and also when it says that space ran out: the new name is seen and may never reach
        // the medium, so going on in place would write to a file that a crash takes away.
        self.disk.sync_dir().map_err(|cause| self.io("sync", "")(io::Error::other(cause.to_string())))?;
        let end = keep + batch.as_ref().map_or(0, |batch| batch.bytes.len() as u64);
        Ok((Tail { file, first, offset: end, allocated: size.max(end), filled: end }, batch))
    }

    /// The way without space for a fresh file: the bytes that nothing proves to be synced are written again where
    /// they are, together with the first batch and NUL bytes over what was torn, in one write.
    fn write_in_place(
        &self,
        first: Seq,
        keep: u64,
        unproven_from: u64,
        announcement: &Announcement,
    ) -> Result<(Tail, Option<FirstBatch>), JournalError> {
        let name = segment_name(first);
        let torn_end = announcement.torn.as_ref().map_or(0, |torn| torn.offset + torn.bytes);
        let write = || -> io::Result<(Tail, FirstBatch)> {
            let file = self.disk.open(&name, Access::Write)?;
            let batch = self.first_batch(announcement, file.identity()?);
            let end = keep + batch.bytes.len() as u64;
            let mut bytes = read(&*file, unproven_from, keep)?;
            bytes.extend_from_slice(&batch.bytes);
            let covered = torn_end.saturating_sub(unproven_from) as usize;
            bytes.resize(bytes.len().max(covered), 0);
            let mut allocated = file.len()?;
            if allocated < unproven_from + bytes.len() as u64 {
                allocated = end + JOURNAL_ROOM_BYTES;
                file.allocate(allocated)?;
            }
            file.write_at(&bytes, unproven_from)?;
            file.sync_data()?;
            self.disk.sync_dir()?;
            Ok((Tail { file, first, offset: end, allocated, filled: end }, batch))
        };
        let (tail, batch) = write().map_err(self.io("write", &name)).map_err(|error| self.full(error))?;
        Ok((tail, Some(batch)))
    }

    /// Tells a lack of space from other failures.
    fn full(&self, error: JournalError) -> JournalError {
        match error {
            JournalError::Io { cause, .. } if is_out_of_space(&cause) => JournalError::Full {
                needed_bytes: JOURNAL_ROOM_BYTES,
                available_bytes: self.disk.available_bytes().unwrap_or(0),
            },
            other => other,
        }
    }

    fn first_batch(&self, what: &Announcement, file: Identity) -> FirstBatch {
        let opened = Opened {
            format: JOURNAL_FORMAT,
            epoch: what.epoch,
            cause: what.cause,
            directory: what.directory,
            file,
            version: self.options.version.to_string(),
            pid: std::process::id(),
        };
        let mut drafts = vec![(OPENED, to_body(&opened))];
        drafts.extend(what.torn.as_ref().map(|torn| (RECOVERED, to_body(torn))));
        let count = drafts.len() as u32;
        let (mut bytes, mut starts, mut chain) = (Vec::new(), Vec::new(), what.position.chain);
        let (first, batch) = (what.position.seq, what.position.batch);
        let mut first_chain = chain;
        for (index, (kind, body)) in drafts.into_iter().enumerate() {
            starts.push(bytes.len() as u64);
            let draft = own_draft(first + index as u64, self.now_ms, kind, body);
            chain = encode(&mut bytes, &draft, (index == 0).then_some((batch, count)), chain);
            if index == 0 {
                first_chain = chain;
            }
        }
        let opened = OpenedAt { seq: first, segment: what.segment, epoch: what.epoch, directory: what.directory, file };
        let head = Head { seq: first + u64::from(count) - 1, chain, batch };
        FirstBatch { bytes, starts, head, first_chain, opened }
    }

    fn begun(&self, tail: Tail, batch: FirstBatch, keep: u64, found: Found) -> Begun {
        let mut table = found.table;
        let segment = table.last_mut().expect("the tail's entry was made");
        for (index, start) in batch.starts.iter().enumerate() {
            segment.add(batch.opened.seq + index as u64, keep + start);
        }
        segment.bytes = tail.offset;
        let is_first = batch.head.batch == 1;
        let kept = Kept {
            home_epoch: found.home_epoch,
            journal: if is_first { batch.first_chain } else { found.journal },
            last_before_own: batch.opened.seq - 1,
            unsealed_records: found.unsealed_records,
            records: found.records,
            snapshot: found.snapshot,
            snapshots_skipped: found.snapshots_skipped,
            torn: found.torn,
        };
        Begun { tail, table, records: batch.bytes, head: batch.head, opened: batch.opened, found: kept }
    }
}

/// What there is before the first record of a journal.
fn fresh(first: Seq) -> Found {
    let identity = Identity { device: 0, inode: 0, born_ns: None };
    let epoch = epoch_of(first);
    Found {
        table: Vec::new(),
        position: Position::start(first),
        last: first - 1,
        journal: Chain::START,
        home_epoch: epoch,
        opened: OpenedAt { seq: first, segment: first, epoch, directory: identity, file: identity },
        torn: None,
        unproven_from: 0,
        unsealed_records: 0,
        records: 0,
        snapshot: None,
        snapshots_skipped: Vec::new(),
        ahead: None,
        blanks: Vec::new(),
    }
}

/// A draft of one of the journal's own records.
pub(super) fn own_draft(seq: Seq, at_ms: u64, kind: &'static str, body: Vec<u8>) -> Draft {
    Draft { seq, at_ms, kind, session: None, run: None, session_prev: 0, run_prev: 0, run_first: 0, by: None, body }
}

fn show_own_records(restore: &mut dyn Restore, lines: &[u8]) -> Result<(), JournalError> {
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let parsed = Line::parse(line).expect("it was just encoded");
        let record = parsed.record(line).expect("it was just encoded");
        restore.record(&record).map_err(|cause| JournalError::NotUnderstood {
            path: segment_name(record.seq).into(),
            offset: 0,
            seq: record.seq,
            cause,
        })?;
    }
    Ok(())
}

fn read(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; to.saturating_sub(from) as usize];
    let count = file.read_at(&mut bytes, from)?;
    if count < bytes.len() { Err(io::Error::from(io::ErrorKind::UnexpectedEof)) } else { Ok(bytes) }
}

fn copy(source: &dyn DiskFile, target: &dyn DiskFile, bytes: u64) -> io::Result<()> {
    let mut at = 0;
    while at < bytes {
        let end = bytes.min(at + SNAPSHOT_WRITE_BYTES as u64);
        target.write_at(&read(source, at, end)?, at)?;
        at = end;
    }
    Ok(())
}
