//! Appending: one write and one sync a batch.
//! Owns: the tail segment, the reserve, and the verdict on a failed write or sync.
//! May touch: the tail and the reserve; it signs seals.
//! Never: retries a sync, or writes after one has failed.

use std::io;
use std::sync::Arc;

use super::chain::Chain;
use super::cut::Cut;
use super::disk::{Disk, DiskFile, is_out_of_space};
use super::error::JournalError;
use super::opening::own_draft;
use super::reader::Reader;
use super::record::{Draft, encode};
use super::seal::{KEY_ROTATED, KeyRotated, SEAL, Seal, to_body};
use super::segment::{SPARE, Segment, Shared, segment_name};
use super::snapshot::{OpenedAt, SnapshotWriter};
use super::{Head, Options, SealedHead};
use crate::audit::key::SigningKey;
use crate::ids::Seq;
use crate::limits::{
    JOURNAL_BATCH_BYTES_MAX, JOURNAL_BUFFER_BYTES_KEPT, JOURNAL_FILE_BYTES_MAX, JOURNAL_FILL_AHEAD_BYTES,
    JOURNAL_ROOM_BYTES, JOURNAL_SEGMENT_BYTES_MAX, JOURNAL_SEGMENT_BYTES_MIN, JOURNAL_SEGMENT_SPACE_SHARE,
};

/// The size of a new segment: what is wanted, or a share of the space that is left.
pub(super) fn segment_bytes_for(wanted: u64, available: u64) -> u64 {
    let share = (available / JOURNAL_SEGMENT_SPACE_SHARE).max(JOURNAL_SEGMENT_BYTES_MIN);
    wanted.min(share).min(JOURNAL_SEGMENT_BYTES_MAX)
}

/// The segment that is being written.
pub(super) struct Tail {
    pub file: Arc<dyn DiskFile>,
    /// First position, which names it.
    pub first: Seq,
    /// Where the next batch goes.
    pub offset: u64,
    /// Bytes that are preallocated; writing beyond them may meet a full disk.
    pub allocated: u64,
    /// Up to here every block was written before, with lines or NUL bytes.
    pub filled: u64,
}

impl Tail {
    /// How many NUL bytes to write behind a batch of `bytes`. A first write to a preallocated block changes the file's
    /// metadata, which makes the sync wait for the file system's own journal; so blocks are filled ahead, many at once,
    /// and most syncs wait for the batch's bytes alone.
    fn fill_ahead(&self, bytes: u64) -> u64 {
        let end = self.offset + bytes;
        if end <= self.filled {
            return 0;
        }
        let target = (end + JOURNAL_FILL_AHEAD_BYTES) / JOURNAL_FILL_AHEAD_BYTES * JOURNAL_FILL_AHEAD_BYTES;
        target.min(self.allocated).saturating_sub(end)
    }

    /// Fifteen sixteenths full: the next batch should find a fresh segment.
    fn is_due(&self) -> bool {
        self.offset >= self.allocated - self.allocated / 16
    }
}

struct Reserve {
    file: Arc<dyn DiskFile>,
    bytes: u64,
}

/// What a journal is made of.
pub(super) struct Parts {
    pub disk: Arc<dyn Disk>,
    pub snapshots: Arc<dyn Disk>,
    pub shared: Arc<Shared>,
    pub signer: Arc<SigningKey>,
    pub options: Options,
    pub tail: Tail,
    pub head: Head,
    /// Chain value of the very first record.
    pub journal: Chain,
    pub opened: OpenedAt,
    pub unsealed_records: u64,
    pub now_ms: u64,
}

/// The writing end. One thread owns it.
pub struct Journal {
    parts: Parts,
    reserve: Option<Reserve>,
    /// When the oldest unsealed record was written.
    unsealed_since_ms: u64,
    sealed: Option<SealedHead>,
    poisoned: Option<String>,
    buffer: Vec<u8>,
    starts: Vec<u64>,
}

impl Journal {
    pub(super) fn assemble(parts: Parts) -> Self {
        let unsealed_since_ms = parts.now_ms;
        Self {
            parts,
            reserve: None,
            unsealed_since_ms,
            sealed: None,
            poisoned: None,
            buffer: Vec::with_capacity(JOURNAL_BUFFER_BYTES_KEPT),
            starts: Vec::new(),
        }
    }

    /// Position of the next draft. An append may be followed by a seal, which takes a position of its own, so
    /// this is asked before every batch.
    pub fn next_seq(&self) -> Seq {
        self.parts.head.seq + 1
    }

    /// The epoch of records that are written now.
    pub fn epoch(&self) -> u32 {
        self.parts.opened.epoch
    }

    /// The first epoch of this journal.
    pub fn home_epoch(&self) -> u32 {
        self.parts.shared.home_epoch
    }

    /// The newest seal of this life.
    pub fn sealed(&self) -> Option<SealedHead> {
        self.sealed
    }

    /// Records behind the newest seal.
    pub fn unsealed_records(&self) -> u64 {
        self.parts.unsealed_records
    }

    /// Where the journal stands.
    pub fn head(&self) -> Head {
        self.parts.head
    }

    /// The key that signs seals, and the records of external actions.
    pub fn signer(&self) -> &SigningKey {
        &self.parts.signer
    }

    /// Why nothing more is written, once a sync has failed.
    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    /// Whether the reserve for a full disk is there. Without it [`Journal::append`] first tries to make one.
    pub fn reserve_is_intact(&self) -> bool {
        self.reserve.is_some()
    }

    /// A handle for reading.
    pub fn reader(&self) -> Reader {
        Reader { shared: self.parts.shared.clone() }
    }

    /// A handle for writing snapshots. It stays usable after the journal was closed.
    pub fn snapshot_writer(&self) -> SnapshotWriter {
        SnapshotWriter {
            shared: self.parts.shared.clone(),
            disk: self.parts.snapshots.clone(),
            signer: self.parts.signer.clone(),
            journal: self.parts.journal,
            opened: self.parts.opened,
        }
    }

    /// Writes a batch: all of it is on the medium when this returns, or none of it will be shown. Nothing is
    /// taken from the reserve.
    ///
    /// # Errors
    /// [`JournalError::Full`] and [`JournalError::WriteFailed`]: nothing was kept, a later batch may succeed.
    /// [`JournalError::TooLarge`]: nothing was written. [`JournalError::Poisoned`]: only a restart finds out
    /// whether the batch is on the medium; until then nothing more is written.
    ///
    /// # Panics
    /// The drafts are not numbered from [`Journal::next_seq`] on, or break the rules of [`Draft`].
    pub fn append(&mut self, drafts: &[Draft]) -> Result<(), JournalError> {
        self.check()?;
        if self.reserve.is_none() {
            self.make_reserve()?;
        }
        self.append_from_reserve(drafts)
    }

    /// As [`Journal::append`], also when the reserve cannot be had: for what contains or ends work, so that a
    /// full disk can be dealt with.
    ///
    /// # Errors
    /// As [`Journal::append`].
    ///
    /// # Panics
    /// As [`Journal::append`].
    pub fn append_from_reserve(&mut self, drafts: &[Draft]) -> Result<(), JournalError> {
        let Some(newest) = drafts.last() else { return self.check() };
        self.commit(drafts)?;
        let due = self.parts.unsealed_records >= self.parts.options.seal_interval_records;
        let upkeep = if due { self.seal(newest.at_ms) } else { Ok(()) };
        let upkeep = upkeep.and_then(|()| self.rotate_if_due(newest.at_ms));
        if let Err(error) = upkeep {
            // The batch itself is committed. A poisoned journal says so to the next one; anything else is tried
            // again then.
            log::warn!("after record {}: {error}", newest.seq);
        }
        Ok(())
    }

    /// Lets the present key vouch for `next`, which signs from here on.
    ///
    /// # Errors
    /// As [`Journal::append`]; the present key stays then.
    pub fn hand_over(&mut self, next: Arc<SigningKey>, now_ms: u64) -> Result<(), JournalError> {
        let body = to_body(&KeyRotated::sign(&self.parts.signer, next.public()));
        self.append(&[own_draft(self.next_seq(), now_ms, KEY_ROTATED, body)])?;
        self.parts.signer = next;
        Ok(())
    }

    /// Timed upkeep: seals records that have waited long enough, makes the reserve again, and catches up on a
    /// rotation. Returns whether a record was written. To be called about once a second, and cheap when nothing
    /// is due. A disk that is still full is no error here; [`Journal::reserve_is_intact`] tells.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub fn maintain(&mut self, now_ms: u64) -> Result<bool, JournalError> {
        self.check()?;
        let before = self.parts.head.seq;
        if self.reserve.is_none() {
            match self.make_reserve() {
                Ok(()) | Err(JournalError::Full { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let waited_ms = now_ms.saturating_sub(self.unsealed_since_ms);
        if self.parts.unsealed_records > 0 && waited_ms >= self.parts.options.seal_interval_ms {
            self.seal(now_ms)?;
        }
        self.rotate_if_due(now_ms)?;
        Ok(self.parts.head.seq != before)
    }

    /// Seals, removes the padding, and syncs. On a full disk the seal is left out.
    ///
    /// # Errors
    /// What was acknowledged is on the medium all the same.
    pub fn close(mut self, now_ms: u64) -> Result<Head, JournalError> {
        self.check()?;
        if self.parts.unsealed_records > 0 {
            match self.seal(now_ms) {
                Ok(()) | Err(JournalError::Full { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        // Without a reserve the padding is what the next start can write to.
        if self.reserve.is_some() {
            self.trim()?;
        }
        Ok(self.parts.head)
    }

    /// Seals what is not sealed yet and tells how far the files reach there, for whoever copies them. The bytes that it
    /// names never change any more.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub fn cut(&mut self, now_ms: u64) -> Result<Cut, JournalError> {
        self.check()?;
        if self.parts.unsealed_records > 0 {
            self.seal(now_ms)?;
        }
        let sealed = self.sealed.map_or(0, |sealed| sealed.seq);
        Ok(Cut::new(self.parts.head, sealed, &self.parts.shared.table()))
    }

    fn check(&self) -> Result<(), JournalError> {
        match &self.poisoned {
            None => Ok(()),
            Some(reason) => Err(JournalError::Poisoned { reason: reason.clone() }),
        }
    }

    fn poison(&mut self, action: &str, cause: &io::Error) -> JournalError {
        let name = segment_name(self.parts.tail.first);
        let reason = format!("it could not {action} {}: {cause}", self.parts.disk.path(&name).display());
        self.poisoned = Some(reason.clone());
        JournalError::Poisoned { reason }
    }

    fn failed(&self, action: &'static str, name: &str, needed_bytes: u64, cause: io::Error) -> JournalError {
        if is_out_of_space(&cause) {
            let available_bytes = self.parts.disk.available_bytes().unwrap_or(0);
            return JournalError::Full { needed_bytes, available_bytes };
        }
        JournalError::WriteFailed { action, path: self.parts.disk.path(name), cause }
    }

    fn commit(&mut self, drafts: &[Draft]) -> Result<(), JournalError> {
        self.check()?;
        let head = self.encode(drafts)?;
        let bytes = self.buffer.len() as u64;
        self.make_room(bytes)?;
        let tail = &self.parts.tail;
        // In the same write, so that a batch is still one.
        self.buffer.resize(self.buffer.len() + tail.fill_ahead(bytes) as usize, 0);
        if let Err(cause) = tail.file.write_at(&self.buffer, tail.offset) {
            return Err(self.cut_back(bytes, cause));
        }
        if let Err(cause) = tail.file.sync_data() {
            return Err(self.poison("sync", &cause));
        }
        let tail = &mut self.parts.tail;
        tail.filled = tail.filled.max(tail.offset + self.buffer.len() as u64);
        let end = tail.offset + bytes;
        tail.offset = end;
        self.parts.head = head;
        self.parts.shared.commit(drafts[0].seq, &self.starts, end);
        if self.parts.unsealed_records == 0 {
            self.unsealed_since_ms = drafts[0].at_ms;
        }
        self.parts.unsealed_records += drafts.len() as u64;
        self.buffer.clear();
        self.buffer.shrink_to(JOURNAL_BUFFER_BYTES_KEPT);
        Ok(())
    }

    /// Fills the buffer with the batch's lines.
    fn encode(&mut self, drafts: &[Draft]) -> Result<Head, JournalError> {
        self.buffer.clear();
        self.starts.clear();
        let (mut head, count) =
            (self.parts.head, u32::try_from(drafts.len()).expect("a batch is bounded by its bytes"));
        head.batch += 1;
        for (index, draft) in drafts.iter().enumerate() {
            head.seq += 1;
            assert_eq!(draft.seq, head.seq, "drafts are numbered from next_seq on, without a hole");
            self.starts.push(self.parts.tail.offset + self.buffer.len() as u64);
            let batch = (index == 0).then_some((head.batch, count));
            head.chain = encode(&mut self.buffer, draft, batch, head.chain);
            if self.buffer.len() > JOURNAL_BATCH_BYTES_MAX {
                let bytes = self.buffer.len();
                self.buffer = Vec::with_capacity(JOURNAL_BUFFER_BYTES_KEPT);
                return Err(JournalError::TooLarge { bytes, bytes_max: JOURNAL_BATCH_BYTES_MAX });
            }
        }
        Ok(head)
    }

    /// Preallocates what a batch of `bytes` needs beyond the segment's size.
    fn make_room(&mut self, bytes: u64) -> Result<(), JournalError> {
        let tail = &mut self.parts.tail;
        let needed = tail.offset + bytes;
        if needed <= tail.allocated {
            return Ok(());
        }
        let size = needed + JOURNAL_ROOM_BYTES;
        if size > JOURNAL_FILE_BYTES_MAX {
            // Rotation has failed for a whole segment's length.
            let available_bytes = self.parts.disk.available_bytes().unwrap_or(0);
            return Err(JournalError::Full { needed_bytes: bytes, available_bytes });
        }
        match tail.file.allocate(size) {
            Ok(()) => {
                tail.allocated = size;
                Ok(())
            }
            Err(cause) => {
                let name = segment_name(tail.first);
                Err(self.failed("preallocate", &name, bytes, cause))
            }
        }
    }

    /// After a failed write: removes what it left, on the medium too, so that a batch that was refused can never
    /// come back.
    fn cut_back(&mut self, bytes: u64, cause: io::Error) -> JournalError {
        match self.trim() {
            Ok(()) => self.failed("write", &segment_name(self.parts.tail.first), bytes, cause),
            Err(_) if self.poisoned.is_some() => {
                JournalError::Poisoned { reason: self.poisoned.clone().unwrap_or_default() }
            }
            Err(JournalError::WriteFailed { cause, .. }) => self.poison("cut back", &cause),
            Err(_) => self.poison("cut back", &cause),
        }
    }

    /// Cuts the tail to its committed bytes, durably.
    fn trim(&mut self) -> Result<(), JournalError> {
        let tail = &mut self.parts.tail;
        tail.allocated = tail.offset;
        tail.filled = tail.filled.min(tail.offset);
        if let Err(cause) = tail.file.truncate(tail.offset) {
            let name = segment_name(tail.first);
            return Err(self.failed("truncate", &name, 0, cause));
        }
        tail.file.sync_data().map_err(|cause| self.poison("sync", &cause))
    }

    fn seal(&mut self, at_ms: u64) -> Result<(), JournalError> {
        let Head { seq, chain, .. } = self.parts.head;
        let seal = Seal::sign(seq, chain, &self.parts.signer);
        self.commit(&[own_draft(seq + 1, at_ms, SEAL, to_body(&seal))])?;
        self.parts.unsealed_records = 0;
        self.sealed = Some(SealedHead { seq, chain, at_ms });
        Ok(())
    }

    /// Preallocates the next segment ahead of need, so that a full disk leaves room to contain and end work.
    pub(super) fn make_reserve(&mut self) -> Result<(), JournalError> {
        let disk = &self.parts.disk;
        let available = disk.available_bytes().map_err(|cause| self.failed("measure", "", 0, cause))?;
        let bytes = segment_bytes_for(self.parts.options.segment_bytes, available);
        if available < bytes {
            return Err(JournalError::Full { needed_bytes: bytes, available_bytes: available });
        }
        let created = match disk.create(SPARE, bytes) {
            // Left by a rename that was reported as failed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                disk.remove(SPARE).and_then(|()| disk.create(SPARE, bytes))
            }
            other => other,
        };
        let file = created.map_err(|cause| self.failed("preallocate", SPARE, bytes, cause))?;
        self.reserve = Some(Reserve { file, bytes });
        Ok(())
    }

    /// Goes on in the reserve once the tail is nearly full. Without a reserve the tail is used up instead.
    fn rotate_if_due(&mut self, at_ms: u64) -> Result<(), JournalError> {
        self.check()?;
        if !self.parts.tail.is_due() || self.reserve.is_none() {
            return Ok(());
        }
        if self.parts.unsealed_records > 0 {
            self.seal(at_ms)?;
        }
        self.trim()?;
        let first = self.next_seq();
        let name = segment_name(first);
        let Some(Reserve { file, bytes }) = self.reserve.take() else { return Ok(()) };
        // Whether a failed rename has happened is not known, so the reserve is made anew then; a blank segment that
        // it may leave is removed by the next start.
        self.parts.disk.rename(SPARE, &name).map_err(|cause| self.failed("rename the reserve to", &name, 0, cause))?;
        if let Err(cause) = self.parts.disk.sync_dir() {
            return Err(self.poison("sync the directory of", &cause));
        }
        self.parts.tail = Tail { file, first, offset: 0, allocated: bytes, filled: 0 };
        let head = self.parts.head;
        self.parts.shared.begin(Segment::empty(first, head.chain, head.batch + 1));
        self.make_reserve()
    }
}
