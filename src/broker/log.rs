//! `auth/broker.jsonl`: leases and revocations as they happened, hash-chained, one JSON line each.
//! Owns: the file, its chain, the disk space held ready for revocations, and its rewriting when it has grown.
//! May touch: that file, its temporary neighbour and its one predecessor, under the state root's lock.
//! Never: reports a revocation as recorded before it is on disk; spends the reserve on leases; reads past damage.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::entry::Entry;
use super::ledger::Ledger;
use crate::hex::{parse_hex, to_hex};
use crate::limits::{
    BROKER_LOG_BUFFER_BYTES_MAX, BROKER_LOG_BYTES_MAX, BROKER_LOG_LINE_BYTES_MAX, BROKER_LOG_READ_BYTES_MAX,
    BROKER_LOG_RESERVE_BYTES, BROKER_LOG_SLACK_BYTES, BROKER_LOG_STEP_BYTES,
};
use crate::state_root::replace::{Step, clear_leftover, replace_with, sync_directory};
use crate::state_root::{Directory, StateRoot};
use crate::sys;

mod rewrite;

/// The log's file name in `auth/`.
pub const LOG_FILE_NAME: &str = "broker.jsonl";
/// The file that a rewriting leaves behind, until the next one.
pub const LOG_PREVIOUS_FILE_NAME: &str = "broker.previous.jsonl";
/// The format that this build reads and writes.
const FORMAT: u32 = 1;

type Chain = [u8; 32];

/// Why the broker's log was not opened, or an entry not recorded.
#[derive(Debug)]
#[allow(missing_docs, reason = "each variant's line says what its fields hold")]
pub enum BrokerLogError {
    /// A line does not verify and cannot be what a crash leaves.
    Damaged { path: PathBuf, line: u64, reason: &'static str },
    /// A newer build wrote it.
    Newer { path: PathBuf, line: u64 },
    /// It is longer than any log.
    TooLong { path: PathBuf },
    /// It is not a plain file, or others may use it.
    NotOurs { path: PathBuf, reason: &'static str },
    /// The disk is full, the reserve included.
    Full { path: PathBuf },
    /// An earlier sync failed, so nothing is certain any more until a restart.
    Poisoned { path: PathBuf, reason: String },
    /// The system refused a step.
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

impl fmt::Display for BrokerLogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { path, line, reason } => write!(
                f,
                "broker log {} is damaged at line {line}: {reason}; revocations may be lost; next: restore auth/ from \
                 the backup of this state root, or move the file away and revoke again what it shows as revoked",
                path.display()
            ),
            Self::Newer { path, line } => write!(
                f,
                "broker log {} holds, at line {line}, what this build does not know; next: run the newer kheish-daemon",
                path.display()
            ),
            Self::TooLong { path } => write!(
                f,
                "broker log {} has more than {BROKER_LOG_READ_BYTES_MAX} bytes; next: restore auth/ from the backup of \
                 this state root, or move the file away and revoke again what it shows as revoked",
                path.display()
            ),
            Self::NotOurs { path, reason } => {
                write!(f, "broker log {} {reason}; next: make it a plain file of mode 0600", path.display())
            }
            Self::Full { path } => write!(
                f,
                "broker log {}: the disk is full and its reserve is used up; next: free space under the state root",
                path.display()
            ),
            Self::Poisoned { path, reason } => write!(
                f,
                "broker log {}: {reason}, so nothing more is recorded; next: check the disk and restart the daemon",
                path.display()
            ),
            Self::Io { action, path, source } => write!(
                f,
                "cannot {action} broker log {}: {source}; next: check the path, its owner and its disk",
                path.display()
            ),
        }
    }
}

impl std::error::Error for BrokerLogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// How the log is doing, for status.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LogStats {
    /// Size of the file.
    pub bytes: u64,
    /// Bytes that are held ready on disk beyond it; 0 where the file system cannot do that.
    pub reserved_bytes: u64,
    /// Lease entries since start that were not recorded, for want of space.
    pub unrecorded_count: u64,
    /// Bytes of an incomplete end that were cut at start.
    pub cut_bytes: u64,
    /// Why nothing more is recorded, after a failed sync.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poisoned: Option<String>,
}

/// The open log.
#[derive(Debug)]
pub struct BrokerLog {
    path: PathBuf,
    file: File,
    /// Bytes of the file that are good.
    written: u64,
    /// Disk blocks are there up to this length; equals `written` where they cannot be reserved.
    reserved: u64,
    can_reserve: bool,
    /// Chain value of the last line that was written.
    written_chain: Chain,
    /// Lines that wait to be written, and the chain value of the last of them.
    buffer: Vec<u8>,
    buffered_count: u64,
    chain: Chain,
    rewrite_at: u64,
    unrecorded_count: u64,
    cut_bytes: u64,
    poisoned: Option<String>,
    /// What the file told; taken by the broker.
    ledger: Ledger,
    #[cfg(test)]
    pub(super) faults: Faults,
}

/// What tests make fail.
#[cfg(test)]
#[derive(Debug, Default, Clone)]
pub(super) struct Faults {
    pub(super) reserve: Option<i32>,
    pub(super) write: Option<i32>,
    pub(super) sync: Option<i32>,
}

impl BrokerLog {
    /// Opens the log of `root`, or begins one. An incomplete end, as a crash leaves it, is cut off.
    ///
    /// # Errors
    /// The file is damaged before its end, newer, not ours, or cannot be read.
    pub fn open(root: &StateRoot) -> Result<Self, BrokerLogError> {
        let directory = root.directory(Directory::Auth);
        let path = directory.join(LOG_FILE_NAME);
        clear_leftover(&path).map_err(io_error("clear the leftover of", &path))?;
        let existing = read(&path)?;
        let is_new = existing.is_none();
        let bytes = existing.unwrap_or_default();
        let found = verify(&bytes, &path)?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(is_new).mode(0o600).open(&path);
        let file = file.map_err(io_error("open", &path))?;
        let cut_bytes = bytes.len() as u64 - found.good;
        if cut_bytes > 0 {
            log::warn!("broker log {}: {cut_bytes} bytes of an incomplete end were cut", path.display());
            file.set_len(found.good).and_then(|()| file.sync_data()).map_err(io_error("cut the end of", &path))?;
        }
        let mut log = Self {
            path,
            file,
            written: found.good,
            reserved: found.good,
            can_reserve: true,
            written_chain: found.chain,
            buffer: Vec::new(),
            buffered_count: 0,
            chain: found.chain,
            rewrite_at: BROKER_LOG_BYTES_MAX,
            unrecorded_count: 0,
            cut_bytes,
            poisoned: None,
            ledger: found.ledger,
            #[cfg(test)]
            faults: Faults::default(),
        };
        if found.good == 0 {
            log.append(0, &Entry::LogOpened { format: FORMAT, previous: None, version_max: 0 })?;
            sync_directory(&directory).map_err(io_error("make durable", &log.path))?;
        }
        if !log.reserve_for(0) {
            log::warn!("broker log {}: less disk space than usual is held ready for revocations", log.path.display());
            if log.can_reserve {
                // The disk is full. What the predecessor reserved is there still, but for the file system's own blocks.
                let allocated = log.file.metadata().map_or(0, |metadata| metadata.blocks() * 512);
                log.reserved = log.written.max(allocated.saturating_sub(BROKER_LOG_SLACK_BYTES));
            }
        }
        Ok(log)
    }

    /// What the file told.
    pub(super) fn take_ledger(&mut self) -> Ledger {
        std::mem::take(&mut self.ledger)
    }

    /// How the log is doing.
    pub(super) fn stats(&self) -> LogStats {
        LogStats {
            bytes: self.written,
            reserved_bytes: self.reserved.saturating_sub(self.written),
            unrecorded_count: self.unrecorded_count,
            cut_bytes: self.cut_bytes,
            poisoned: self.poisoned.clone(),
        }
    }

    /// Records an entry some time soon: with the next durable one, when the broker is idle, or when many wait.
    pub(super) fn push(&mut self, at_ms: u64, entry: &Entry) {
        if self.poisoned.is_some() {
            self.unrecorded_count += 1;
            return;
        }
        let (line, chain) = line(at_ms, entry, &self.chain);
        self.buffer.extend_from_slice(&line);
        self.buffered_count += 1;
        self.chain = chain;
        if self.buffer.len() >= BROKER_LOG_BUFFER_BYTES_MAX {
            self.flush();
        }
    }

    /// Writes what waits, without a sync. Without space beyond the reserve it is dropped and counted.
    pub(super) fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let is_written = self.poisoned.is_none()
            && (self.reserve_for(self.buffer.len() as u64) || !self.can_reserve)
            && self.write(&self.buffer).is_ok();
        if is_written {
            self.written += self.buffer.len() as u64;
            self.written_chain = self.chain;
            self.reserved = self.reserved.max(self.written);
        } else {
            self.unrecorded_count += self.buffered_count;
            self.chain = self.written_chain;
        }
        self.buffer.clear();
        self.buffered_count = 0;
    }

    /// Records an entry; durable when it returns. May use the reserve.
    ///
    /// # Errors
    /// The entry is not on disk; after a failed sync none will be.
    pub(super) fn append(&mut self, at_ms: u64, entry: &Entry) -> Result<(), BrokerLogError> {
        if let Some(reason) = &self.poisoned {
            return Err(BrokerLogError::Poisoned { path: self.path.clone(), reason: reason.clone() });
        }
        self.flush();
        let (line, chain) = line(at_ms, entry, &self.written_chain);
        let bytes = line.len() as u64;
        let fits = self.written + bytes <= self.reserved || self.reserve_for(bytes) || !self.can_reserve;
        if !fits {
            return Err(BrokerLogError::Full { path: self.path.clone() });
        }
        self.write(&line).map_err(|source| match source.raw_os_error() {
            Some(ENOSPC | EDQUOT) => BrokerLogError::Full { path: self.path.clone() },
            _ => BrokerLogError::Io { action: "write to", path: self.path.clone(), source },
        })?;
        if let Err(error) = self.sync() {
            self.poisoned = Some(format!("a sync failed: {error}"));
            return Err(BrokerLogError::Io { action: "sync", path: self.path.clone(), source: error });
        }
        self.written += bytes;
        self.reserved = self.reserved.max(self.written);
        (self.written_chain, self.chain) = (chain, chain);
        Ok(())
    }

    /// Sees to it that `bytes` more and the reserve behind them have their blocks; false when the disk has none.
    fn reserve_for(&mut self, bytes: u64) -> bool {
        let wanted = self.written + bytes + BROKER_LOG_RESERVE_BYTES;
        if !self.can_reserve || wanted <= self.reserved {
            return self.can_reserve;
        }
        let length = wanted.next_multiple_of(BROKER_LOG_STEP_BYTES);
        match self.reserve_blocks(length) {
            Ok(()) => self.reserved = length,
            Err(error) => {
                // Any other error comes from a file system without such a thing; it is written to as usual.
                self.can_reserve = matches!(error.raw_os_error(), Some(ENOSPC | EDQUOT));
                return false;
            }
        }
        true
    }

    fn reserve_blocks(&self, length: u64) -> io::Result<()> {
        #[cfg(test)]
        if let Some(errno) = self.faults.reserve {
            return Err(io::Error::from_raw_os_error(errno));
        }
        sys::reserve_blocks(&self.file, length)
    }

    /// Writes behind the good bytes. What a failed write leaves there is cut, or overwritten by the next one.
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        if let Some(errno) = self.faults.write {
            return Err(io::Error::from_raw_os_error(errno));
        }
        self.file.write_all_at(bytes, self.written).inspect_err(|_| {
            let _overwritten_by_the_next = self.file.set_len(self.written);
        })
    }

    fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        if let Some(errno) = self.faults.sync {
            return Err(io::Error::from_raw_os_error(errno));
        }
        self.file.sync_data()
    }
}

const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BrokerLogError {
    move |source| BrokerLogError::Io { action, path: path.to_path_buf(), source }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, BrokerLogError> {
    let not_ours = |reason| BrokerLogError::NotOurs { path: path.to_path_buf(), reason };
    // Looked at before it is opened: opening a FIFO would wait, and a link may lead out of the root.
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(io_error("look at", path))?,
    };
    if !metadata.is_file() {
        return Err(not_ours("is not a plain file"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(not_ours("can be used by group or others"));
    }
    if metadata.len() > BROKER_LOG_READ_BYTES_MAX {
        return Err(BrokerLogError::TooLong { path: path.to_path_buf() });
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    let file = File::open(path).map_err(io_error("open", path))?;
    file.take(BROKER_LOG_READ_BYTES_MAX).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    Ok(Some(bytes))
}

#[derive(Serialize)]
struct LineOut<'a> {
    chain: &'a str,
    entry: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LineIn<'a> {
    chain: &'a str,
    #[serde(borrow)]
    entry: &'a RawValue,
}

#[derive(Serialize, Deserialize)]
struct Dated<E> {
    at_ms: u64,
    #[serde(flatten)]
    entry: E,
}

/// The line of an entry, with its line end, and the chain value to go on with.
fn line(at_ms: u64, entry: &Entry, before: &Chain) -> (Vec<u8>, Chain) {
    let entry = serde_json::value::to_raw_value(&Dated { at_ms, entry }).expect("an entry is text and numbers");
    let chain = next(before, entry.get().as_bytes());
    let mut line = serde_json::to_vec(&LineOut { chain: &to_hex(&chain), entry: &entry }).expect("a line is text");
    line.push(b'\n');
    debug_assert!(line.len() <= BROKER_LOG_LINE_BYTES_MAX, "ids and reasons are bounded");
    (line, chain)
}

fn next(before: &Chain, entry: &[u8]) -> Chain {
    let mut context = Context::new(&SHA256);
    context.update(before);
    context.update(entry);
    let mut chain = Chain::default();
    chain.copy_from_slice(context.finish().as_ref());
    chain
}

/// What a file holds.
struct Found {
    good: u64,
    chain: Chain,
    ledger: Ledger,
}

enum Bad {
    Damaged(&'static str),
    Newer,
}

fn verify(bytes: &[u8], path: &Path) -> Result<Found, BrokerLogError> {
    let mut found = Found { good: 0, chain: Chain::default(), ledger: Ledger::default() };
    let (mut rest, mut number) = (bytes, 0);
    while !rest.is_empty() {
        number += 1;
        let end = rest.iter().position(|byte| *byte == b'\n');
        let text = &rest[..end.unwrap_or(rest.len())];
        let outcome =
            if end.is_some() { parse(text, &found.chain, number) } else { Err(Bad::Damaged("it is cut off")) };
        match outcome {
            Ok((at_ms, entry, chain)) => {
                found.ledger.apply(at_ms, &entry);
                found.chain = chain;
                found.good += text.len() as u64 + 1;
                rest = &rest[text.len() + 1..];
            }
            Err(_) if is_torn(rest, end) => break,
            Err(Bad::Newer) => return Err(BrokerLogError::Newer { path: path.to_path_buf(), line: number }),
            Err(Bad::Damaged(reason)) => {
                return Err(BrokerLogError::Damaged { path: path.to_path_buf(), line: number, reason });
            }
        }
    }
    Ok(found)
}

fn parse(text: &[u8], before: &Chain, number: u64) -> Result<(u64, Entry, Chain), Bad> {
    if text.len() > BROKER_LOG_LINE_BYTES_MAX {
        return Err(Bad::Damaged("it is longer than any entry"));
    }
    let line: LineIn<'_> = serde_json::from_slice(text).map_err(|_| Bad::Damaged("it is no line of this log"))?;
    let chain = next(before, line.entry.get().as_bytes());
    if parse_hex(line.chain.as_bytes()).as_deref() != Some(&chain[..]) {
        return Err(Bad::Damaged("its chain value does not fit what stands before it and in it"));
    }
    // It verifies, so what cannot be read in it is not damage.
    let dated: Dated<Entry> = serde_json::from_str(line.entry.get()).map_err(|_| Bad::Newer)?;
    match &dated.entry {
        Entry::LogOpened { format, .. } if *format > FORMAT => Err(Bad::Newer),
        Entry::LogOpened { .. } if number != 1 => Err(Bad::Damaged("a log begins inside another one")),
        Entry::LogOpened { .. } => Ok((dated.at_ms, dated.entry, chain)),
        _ if number == 1 => Err(Bad::Damaged("the first lines are missing")),
        _ => Ok((dated.at_ms, dated.entry, chain)),
    }
}

/// Whether `rest`, which begins with a bad line, is what a crash leaves behind: bytes that were never synced. A line that
/// was synced stands behind whole ones only, and lost pages read as zero bytes.
fn is_torn(rest: &[u8], end: Option<usize>) -> bool {
    let looks_torn = end.is_none_or(|end| rest[..end].contains(&0));
    looks_torn && !rest.split(|byte| *byte == b'\n').skip(1).any(is_durable_line)
}

fn is_durable_line(text: &[u8]) -> bool {
    let entry = serde_json::from_slice::<LineIn<'_>>(text).ok();
    let dated = entry.and_then(|line| serde_json::from_str::<Dated<Entry>>(line.entry.get()).ok());
    dated.is_some_and(|dated| dated.entry.is_durable())
}

#[cfg(test)]
mod tests;
