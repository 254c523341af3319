//! Snapshots: the folded state at one position, so that a start replays only what came after.
//! Owns: their format (docs/journal-format.md), writing, and checking.
//! May touch: the snapshots directory.
//! Never: is believed before its digest, its signature and its place in the journal have been checked.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::JOURNAL_FORMAT;
use super::chain::{Chain, parse_hex, to_hex};
use super::disk::{Access, Disk, DiskFile, Identity};
use super::error::JournalError;
use super::segment::{Segment, Shared};
use super::window::{LineEnd, Window};
use super::{Head, Restore};
use crate::audit::key::{PublicKey, SigningKey};
use crate::ids::Seq;
use crate::limits::{SNAPSHOT_LINE_BYTES_MAX, SNAPSHOT_WRITE_BYTES, SNAPSHOTS_KEPT};

const TEMPORARY: &str = ".new";

/// First line of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHead {
    /// Format of the snapshot and of the journal it belongs to.
    pub format: u32,
    /// When it was taken, Unix milliseconds.
    pub at_ms: u64,
    /// Chain value of the journal's very first record: which journal this is.
    pub journal: Chain,
    /// The last record folded in.
    pub seq: Seq,
    /// Its chain value.
    pub chain: Chain,
    /// Number of its batch.
    pub batch: u64,
    /// The journal's first epoch.
    pub home_epoch: u32,
    /// The last opening at or before `seq`.
    pub opened: OpenedAt,
    /// Lines of the segment table that follow.
    pub segments: u32,
}

/// What an opening leaves behind for the next one to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedAt {
    /// Position of the `journal.opened` record.
    pub seq: Seq,
    /// First position of the segment that holds it.
    pub segment: Seq,
    /// The epoch it declared.
    pub epoch: u32,
    /// The journal directory then.
    pub directory: Identity,
    /// The segment's file then.
    pub file: Identity,
}

/// Last line of a snapshot.
#[derive(Serialize, Deserialize)]
struct Trailer {
    /// SHA-256 of everything before this line, hex.
    sha256: String,
    key_id: String,
    /// Ed25519 over [`snapshot_message`], hex.
    signature: String,
}

/// The bytes that a snapshot's trailer signs.
pub fn snapshot_message(seq: Seq, chain: Chain, sha256: &str) -> Vec<u8> {
    format!("kheish-journal-snapshot-v1\n{seq}\n{chain}\n{sha256}\n").into_bytes()
}

/// File name of the snapshot at `seq`.
pub(super) fn snapshot_name(seq: Seq) -> String {
    format!("{seq:020}.json")
}

pub(super) fn parse_snapshot_name(name: &str) -> Option<Seq> {
    let digits = name.strip_suffix(".json")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Positions of all snapshots, newest first.
pub(super) fn list_snapshots(disk: &dyn Disk) -> io::Result<Vec<Seq>> {
    let mut seqs: Vec<Seq> = disk.list()?.iter().filter_map(|name| parse_snapshot_name(name)).collect();
    seqs.sort_unstable_by(|a, b| b.cmp(a));
    Ok(seqs)
}

/// Writes snapshots of one journal; handed to the thread that does so.
#[derive(Clone)]
pub struct SnapshotWriter {
    pub(super) shared: Arc<Shared>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) signer: Arc<SigningKey>,
    pub(super) journal: Chain,
    pub(super) opened: OpenedAt,
}

impl SnapshotWriter {
    /// Writes the snapshot at `head`, which must have been the journal's head; `lines` is the state there, each
    /// line without line feeds. Keeps the newest [`SNAPSHOTS_KEPT`] snapshots.
    ///
    /// # Errors
    /// The disk refused; what was there before is still there.
    ///
    /// # Panics
    /// A line holds a line feed or is longer than [`SNAPSHOT_LINE_BYTES_MAX`].
    pub fn write(&self, head: &Head, at_ms: u64, lines: &mut dyn Iterator<Item = Vec<u8>>) -> Result<(), JournalError> {
        let table = self.table(head.seq);
        let head = SnapshotHead {
            format: JOURNAL_FORMAT,
            at_ms,
            journal: self.journal,
            seq: head.seq,
            chain: head.chain,
            batch: head.batch,
            home_epoch: self.shared.home_epoch,
            opened: self.opened,
            segments: u32::try_from(table.len()).expect("the directory listing bounds the segments"),
        };
        write(&*self.disk, &head, &table, lines, &self.signer)
    }

    /// The segments as they stood at `seq`; where the last one ends is found again through its marks.
    fn table(&self, seq: Seq) -> Vec<Segment> {
        let table = self.shared.table();
        let count = table.partition_point(|segment| segment.first <= seq);
        let mut segments = table[..count].to_vec();
        drop(table);
        if let Some(tail) = segments.last_mut()
            && tail.last > seq
        {
            tail.last = seq;
            tail.bytes = 0;
            tail.marks.truncate(tail.mark_index(seq) + 1);
        }
        segments
    }
}

fn write(
    disk: &dyn Disk,
    head: &SnapshotHead,
    table: &[Segment],
    lines: &mut dyn Iterator<Item = Vec<u8>>,
    signer: &SigningKey,
) -> Result<(), JournalError> {
    let name = snapshot_name(head.seq);
    let temporary = format!("{name}{TEMPORARY}");
    let failed = |cause: io::Error| JournalError::Io { action: "write the snapshot", path: disk.path(&name), cause };
    remove_leftovers(disk).map_err(failed)?;
    let written = write_file(disk, &temporary, head, table, lines, signer)
        .and_then(|()| disk.rename(&temporary, &name))
        .and_then(|()| disk.sync_dir());
    if let Err(cause) = written {
        // The next snapshot and the next start remove it too; the first error is the one to report.
        drop(disk.remove(&temporary));
        return Err(failed(cause));
    }
    let kept = list_snapshots(disk).map_err(failed)?;
    for old in kept.iter().skip(SNAPSHOTS_KEPT) {
        disk.remove(&snapshot_name(*old)).map_err(failed)?;
    }
    Ok(())
}

/// Removes what a crash during a write left.
pub(super) fn remove_leftovers(disk: &dyn Disk) -> io::Result<()> {
    for name in disk.list()? {
        if name.strip_suffix(TEMPORARY).and_then(parse_snapshot_name).is_some() {
            disk.remove(&name)?;
        }
    }
    Ok(())
}

fn write_file(
    disk: &dyn Disk,
    name: &str,
    head: &SnapshotHead,
    table: &[Segment],
    lines: &mut dyn Iterator<Item = Vec<u8>>,
    signer: &SigningKey,
) -> io::Result<()> {
    let mut sink = Sink::new(disk.create(name, 0)?);
    sink.line(&json(head))?;
    for segment in table {
        sink.line(&json(segment))?;
    }
    for line in lines {
        sink.line(&line)?;
    }
    let (mut sink, digest) = sink.digest();
    let signature = to_hex(&signer.sign(&snapshot_message(head.seq, head.chain, &digest)));
    sink.line(&json(&Trailer { sha256: digest, key_id: signer.key_id(), signature }))?;
    sink.finish()
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("snapshot lines have string keys and no failing serialisers")
}

/// Buffered, hashed writing.
struct Sink {
    file: Arc<dyn DiskFile>,
    buffer: Vec<u8>,
    offset: u64,
    context: Context,
}

impl Sink {
    fn new(file: Arc<dyn DiskFile>) -> Self {
        Self { file, buffer: Vec::with_capacity(SNAPSHOT_WRITE_BYTES), offset: 0, context: Context::new(&SHA256) }
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        assert!(!line.contains(&b'\n') && line.len() < SNAPSHOT_LINE_BYTES_MAX, "a snapshot line breaks the rules");
        self.context.update(line);
        self.context.update(b"\n");
        self.buffer.extend_from_slice(line);
        self.buffer.push(b'\n');
        if self.buffer.len() >= SNAPSHOT_WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// The digest of everything so far, hex.
    fn digest(self) -> (Self, String) {
        let digest = to_hex(self.context.clone().finish().as_ref());
        (self, digest)
    }

    fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.file.sync_data()
    }
}

/// A snapshot whose digest, signature and head are good. Its place in the journal is still to be checked.
pub(super) struct Snapshot {
    pub head: SnapshotHead,
    pub table: Vec<Segment>,
    pub path: PathBuf,
    file: Arc<dyn DiskFile>,
    /// Where the state begins and ends.
    state: std::ops::Range<u64>,
}

impl Snapshot {
    /// Opens and checks the snapshot at `seq`; without keys its signature is not looked at.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open(disk: &dyn Disk, seq: Seq, keys: Option<&[PublicKey]>) -> Result<Self, String> {
        let name = snapshot_name(seq);
        let read = |cause: io::Error| format!("it cannot be read: {cause}");
        let file = disk.open(&name, Access::Read).map_err(read)?;
        let length = file.len().map_err(read)?;
        let mut window = Window::new(file.clone(), 0, length);
        let head: SnapshotHead = parse(next_line(&mut window)?)?;
        if head.format > JOURNAL_FORMAT {
            return Err(format!("its format {} is newer than this build's {JOURNAL_FORMAT}", head.format));
        }
        if head.seq != seq {
            return Err(format!("it stands at {} and its name says {seq}", head.seq));
        }
        let mut context = Context::new(&SHA256);
        let mut table = Vec::new();
        hash_line(&mut context, &mut window)?;
        for _ in 0..head.segments {
            table.push(parse(next_line(&mut window)?)?);
            hash_line(&mut context, &mut window)?;
        }
        let start = window.offset();
        // The last line is the trailer; it is the only one that is not covered by the digest.
        let (trailer, end) = loop {
            let begin = window.offset();
            let line = next_line(&mut window)?;
            if begin + line.len() as u64 == length {
                break (parse::<Trailer>(line)?, begin);
            }
            hash_line(&mut context, &mut window)?;
        };
        check_trailer(&head, &trailer, &to_hex(context.finish().as_ref()), keys)?;
        check_table(&head, &table)?;
        Ok(Self { head, table, path: disk.path(&name), file, state: start..end })
    }

    /// Hands the state to whoever folds it.
    ///
    /// # Errors
    /// A line was not understood, or the file cannot be read any more.
    pub fn restore(&self, restore: &mut dyn Restore) -> Result<(), String> {
        let mut window = Window::new(self.file.clone(), self.state.start, self.state.end);
        while window.offset() < self.state.end {
            let line = next_line(&mut window)?;
            let length = line.len();
            restore.snapshot_line(&line[..length - 1])?;
            window.advance(length);
        }
        Ok(())
    }
}

/// The line in view, with its line feed; it stays in view.
fn next_line(window: &mut Window) -> Result<&[u8], String> {
    match window.line_end(0, SNAPSHOT_LINE_BYTES_MAX).map_err(|cause| format!("it cannot be read: {cause}"))? {
        LineEnd::At(end) => Ok(&window.bytes()[..end]),
        LineEnd::Missing => Err("it is cut short".to_string()),
        LineEnd::TooLong => Err("a line is too long".to_string()),
    }
}

fn hash_line(context: &mut Context, window: &mut Window) -> Result<(), String> {
    let line = next_line(window)?;
    context.update(line);
    let length = line.len();
    window.advance(length);
    Ok(())
}

fn parse<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(line).map_err(|cause| format!("a line is not as documented: {cause}"))
}

fn check_trailer(
    head: &SnapshotHead,
    trailer: &Trailer,
    digest: &str,
    keys: Option<&[PublicKey]>,
) -> Result<(), String> {
    if trailer.sha256 != digest {
        return Err("its digest does not match its content".to_string());
    }
    let Some(keys) = keys else { return Ok(()) };
    let Some(key) = keys.iter().find(|key| key.key_id() == trailer.key_id) else {
        return Err(format!("it is signed by another key, {}", trailer.key_id));
    };
    let signature = parse_hex(trailer.signature.as_bytes()).unwrap_or_default();
    if !key.verify(&snapshot_message(head.seq, head.chain, digest), &signature) {
        return Err("its signature is not good".to_string());
    }
    Ok(())
}

/// What the index relies on; a table that breaks it could not have been written here.
fn check_table(head: &SnapshotHead, table: &[Segment]) -> Result<(), String> {
    let ascending = table.windows(2).all(|pair| pair[0].last < pair[1].first);
    let ends_at_head = table.last().is_some_and(|tail| tail.last == head.seq);
    if ascending && ends_at_head && table.iter().all(Segment::is_consistent) {
        return Ok(());
    }
    Err("its segment table is not consistent".to_string())
}
