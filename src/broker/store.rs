//! The auth store: all slots of a state root in one encrypted file.
//! Owns: `auth/global-slots.json` and the plaintext of every slot.
//! May touch: that file and its temporary neighbour, under the state root's lock.
//! Never: opens a store partly, writes plaintext, or overwrites a file that somebody else has changed.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::envelope::{self, Refusal, TAG_BYTES};
use super::master_key::{KEY_FILE_VARIABLE, KEY_VARIABLE, MasterKey};
use super::slot::{SlotId, SlotRecord, SlotStatus};
use super::wire::{RecordIn, RecordOut, json_length};
use crate::limits::{AUTH_STORE_FILE_BYTES_MAX, AUTH_STORE_PLAINTEXT_BYTES_MAX, SLOTS_MAX};
use crate::secret::Secret;
use crate::state_root::replace::{ReplaceError, Step, clear_leftover, replace_with};
use crate::state_root::{Directory, StateRoot};

mod rekey;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) use tests::{key, record};

pub use rekey::{BackupError, RekeyError, Rekeyed, rekey};

/// The store's file name in `auth/`.
pub const FILE_NAME: &str = "global-slots.json";

/// Why the auth store was not opened or not changed. No variant holds anything of a slot's state.
#[derive(Debug)]
#[allow(missing_docs, reason = "each variant's line says what its fields hold")]
pub enum StoreError {
    /// There is an encrypted store and no key.
    KeyMissing { path: PathBuf },
    /// There is no key to write with.
    KeyMissingForWrite,
    /// Another key wrote the store; both fingerprints.
    WrongKey { path: PathBuf, written_with: String, given: String },
    /// Bytes were changed or lost.
    Damaged { path: PathBuf, reason: &'static str },
    /// A newer build wrote the store.
    Newer { path: PathBuf, version: u64 },
    /// The file is JSON and not encrypted.
    Plaintext { path: PathBuf },
    /// The file decrypts, and a record in it is unknown to this build.
    UnknownRecord { path: PathBuf },
    /// The path is not a plain file.
    NotAFile { path: PathBuf },
    /// Group or others may read the file.
    ModeTooOpen { path: PathBuf, mode: u32 },
    /// The file was changed by somebody else since this process read or wrote it.
    ChangedOutside { path: PathBuf },
    /// The slots would exceed their number or their bytes.
    Full,
    /// The system gave no random bytes.
    NoRandom,
    /// An earlier change was renamed into place and could not be made durable.
    EarlierFailure { path: PathBuf },
    /// The file could not be replaced.
    Replace(ReplaceError),
    /// The system refused a step.
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyMissing { path } => write!(
                f,
                "auth store {} is encrypted and no master key is given; next: set {KEY_VARIABLE} or \
                 {KEY_FILE_VARIABLE} to the key kept with this state root",
                path.display()
            ),
            Self::KeyMissingForWrite => write!(
                f,
                "the auth store cannot be written without a master key; next: make one with \
                 `kheish-daemon secrets generate`, set {KEY_VARIABLE} or {KEY_FILE_VARIABLE}, and restart"
            ),
            Self::WrongKey { path, written_with, given } => write!(
                f,
                "auth store {} was written with the master key of fingerprint {written_with}, and the one given \
                 has {given}; next: set {KEY_VARIABLE} or {KEY_FILE_VARIABLE} to the key kept with this state root",
                path.display()
            ),
            Self::Damaged { path, reason } => write!(
                f,
                "auth store {} is damaged: {reason}; next: restore it from the backup of this state root, \
                 or move it away and set every slot again",
                path.display()
            ),
            Self::Newer { path, version } => write!(
                f,
                "auth store {} has version {version}, and this build knows {}; next: run the newer \
                 kheish-daemon, or restore the backup made before the upgrade",
                path.display(),
                envelope::VERSION
            ),
            Self::Plaintext { path } => write!(
                f,
                "auth store {} is not encrypted and is not read; next: move it out of the state root, set its \
                 slots with `kheish-daemon secrets set`, then shred it",
                path.display()
            ),
            Self::UnknownRecord { path } => write!(
                f,
                "auth store {} holds a slot that this build does not know; next: run the kheish-daemon that \
                 wrote it",
                path.display()
            ),
            Self::NotAFile { path } => {
                write!(f, "auth store {} is not a plain file; next: move it away", path.display())
            }
            Self::ModeTooOpen { path, mode } => write!(
                f,
                "auth store {} has mode {mode:04o}, so others may use it; next: chmod 600 {}",
                path.display(),
                path.display()
            ),
            Self::ChangedOutside { path } => write!(
                f,
                "auth store {} was changed by another program and is left as it is; next: restart the daemon to \
                 read it, or put the former file back",
                path.display()
            ),
            Self::Full => write!(
                f,
                "the auth store holds at most {SLOTS_MAX} slots and {AUTH_STORE_PLAINTEXT_BYTES_MAX} bytes; \
                 next: delete slots that are not used"
            ),
            Self::NoRandom => {
                write!(f, "the system gave no random bytes; next: check that /dev/urandom and getrandom(2) work")
            }
            Self::EarlierFailure { path } => write!(
                f,
                "an earlier change of auth store {} could not be made durable, so no further one is accepted; \
                 next: check the disk and restart the daemon",
                path.display()
            ),
            Self::Replace(error) => error.fmt(f),
            Self::Io { action, path, source } => write!(
                f,
                "cannot {action} auth store {}: {source}; next: check the path, its owner and its disk",
                path.display()
            ),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Replace(error) => Some(error),
            _ => None,
        }
    }
}

/// A slot in memory.
#[derive(Debug)]
pub(super) struct Entry {
    /// Counts up with every write of any slot and never repeats in this store, so that a lease of a deleted
    /// and set-again slot stays dead.
    pub(super) version: u64,
    pub(super) record: SlotRecord,
}

/// What the file held when this process last read or wrote it.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    fn at(path: &Path) -> Result<Option<Self>, StoreError> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(|metadata| Some(Self::of(&metadata))).map_err(io_error("look at", path)),
        }
    }
}

/// Asked before each step of a replacement; the real one agrees to all.
type BeforeStep = Box<dyn FnMut(Step) -> io::Result<()> + Send>;

/// An open auth store. The rename of a change is its commit point: when a change is refused, memory and file
/// are as before it.
pub struct Store {
    path: PathBuf,
    key: Option<MasterKey>,
    slots: BTreeMap<SlotId, Entry>,
    next_version: u64,
    stamp: Option<Stamp>,
    is_poisoned: bool,
    before_step: BeforeStep,
}

impl Store {
    /// Opens the store of `root`, whose lock the caller holds by having it. Without a file the store is
    /// empty, and without a key it can then be read but not written.
    ///
    /// # Errors
    /// The file is unreadable in any part, readable by others, not encrypted, newer, or of another key.
    pub fn open(root: &StateRoot, key: Option<MasterKey>) -> Result<Self, StoreError> {
        let path = root.directory(Directory::Auth).join(FILE_NAME);
        clear_leftover(&path).map_err(io_error("clear the leftover of", &path))?;
        Self::load(path, key, false)
    }

    /// Reads the store of the state root at `root` beside whoever uses it. Nothing can be written with what is returned.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn read_beside(root: &Path, key: Option<MasterKey>) -> Result<Self, StoreError> {
        Self::load(root.join(Directory::Auth.name()).join(FILE_NAME), key, true)
    }

    /// Whether `key` opens the bytes of a store that lie elsewhere, such as in a backup; `path` names them in errors. How many
    /// slots there are.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn check_bytes(bytes: &[u8], key: Option<MasterKey>, path: &Path) -> Result<usize, StoreError> {
        let store = Self::empty(path.to_path_buf(), key, true);
        decode(&store.decrypt(bytes)?, path).map(|(_, slots)| slots.len())
    }

    fn empty(path: PathBuf, key: Option<MasterKey>, is_poisoned: bool) -> Self {
        Self {
            path,
            key,
            slots: BTreeMap::new(),
            next_version: 1,
            stamp: None,
            is_poisoned,
            before_step: Box::new(|_| Ok(())),
        }
    }

    fn load(path: PathBuf, key: Option<MasterKey>, is_poisoned: bool) -> Result<Self, StoreError> {
        let mut store = Self::empty(path, key, is_poisoned);
        if let Some((bytes, stamp)) = read_file(&store.path)? {
            let contents = store.decrypt(&bytes)?;
            (store.next_version, store.slots) = decode(&contents, &store.path)?;
            store.stamp = Some(stamp);
        }
        Ok(store)
    }

    /// What may be shown of each slot, sorted by id.
    pub fn list(&self) -> Vec<SlotStatus> {
        self.slots.values().map(|entry| entry.record.status()).collect()
    }

    /// What may be shown of one slot.
    pub fn get(&self, id: &SlotId) -> Option<SlotStatus> {
        self.slots.get(id).map(|entry| entry.record.status())
    }

    /// Creates or overwrites a slot; durable when it returns.
    ///
    /// # Errors
    /// Nothing was changed, unless the error says that the directory could not be synced.
    pub fn put(&mut self, record: SlotRecord) -> Result<SlotStatus, StoreError> {
        let status = record.status();
        self.replace(record).map(|_wiped_by_its_drop| status)
    }

    /// Deletes a slot, durably; false when there was none.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn delete(&mut self, id: &SlotId) -> Result<bool, StoreError> {
        self.remove(id).map(|removed| removed.is_some())
    }

    /// Creates or overwrites many slots with one save: all of them or none. Returns what may be shown of
    /// each.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn put_all(&mut self, records: Vec<SlotRecord>) -> Result<Vec<SlotStatus>, StoreError> {
        let statuses = records.iter().map(SlotRecord::status).collect();
        self.replace_all(records).map(|_wiped_by_its_drop| statuses)
    }

    /// As [`Self::put`]; returns the secrets that were overwritten.
    pub(super) fn replace(&mut self, record: SlotRecord) -> Result<Vec<Secret>, StoreError> {
        self.replace_all(vec![record])
    }

    /// As [`Self::put_all`]; returns the secrets that were overwritten.
    pub(super) fn replace_all(&mut self, records: Vec<SlotRecord>) -> Result<Vec<Secret>, StoreError> {
        let added = records.iter().filter(|record| !self.slots.contains_key(record.id())).count();
        if self.slots.len() + added > SLOTS_MAX {
            return Err(StoreError::Full);
        }
        let first_version = self.next_version;
        let mut former: Vec<(SlotId, Option<Entry>)> = Vec::with_capacity(records.len());
        for record in records {
            let (id, version) = (record.id().clone(), self.next_version);
            self.next_version += 1;
            let before = self.slots.insert(id.clone(), Entry { version, record });
            former.push((id, before));
        }
        if let Err(error) = self.save() {
            self.next_version = first_version;
            // Backwards, for a slot that was written twice.
            for (id, before) in former.into_iter().rev() {
                self.restore(id, before);
            }
            return Err(error);
        }
        Ok(former.into_iter().filter_map(|(_, before)| before).flat_map(|entry| entry.record.into_secrets()).collect())
    }

    /// Replaces what a slot holds and keeps its version: a refreshed token is the same credential. Returns the secrets
    /// that are no longer in it.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub(super) fn renew(&mut self, record: SlotRecord) -> Result<Vec<Secret>, StoreError> {
        let id = record.id().clone();
        let Some(version) = self.slots.get(&id).map(|entry| entry.version) else { return Ok(Vec::new()) };
        let former = self.slots.insert(id.clone(), Entry { version, record });
        if let Err(error) = self.save() {
            self.restore(id, former);
            return Err(error);
        }
        Ok(former.map(|entry| entry.record.into_secrets()).unwrap_or_default())
    }

    fn restore(&mut self, id: SlotId, before: Option<Entry>) {
        match before {
            Some(before) => self.slots.insert(id, before),
            None => self.slots.remove(&id),
        };
    }

    /// As [`Self::delete`]; returns the secrets that were deleted.
    pub(super) fn remove(&mut self, id: &SlotId) -> Result<Option<Vec<Secret>>, StoreError> {
        let Some(former) = self.slots.remove(id) else { return Ok(None) };
        if let Err(error) = self.save() {
            self.slots.insert(id.clone(), former);
            return Err(error);
        }
        Ok(Some(former.record.into_secrets()))
    }

    /// Sees to it that the next version is above `version`, which an older store does not know of.
    pub(super) fn skip_versions(&mut self, version: u64) {
        self.next_version = self.next_version.max(version.saturating_add(1));
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&SlotId, &Entry)> {
        self.slots.iter()
    }

    pub(super) fn entry(&self, id: &SlotId) -> Option<&Entry> {
        self.slots.get(id)
    }

    pub(super) fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.slots.values().flat_map(|entry| entry.record.secrets())
    }

    fn save(&mut self) -> Result<(), StoreError> {
        if self.is_poisoned {
            return Err(StoreError::EarlierFailure { path: self.path.clone() });
        }
        let key = self.key.as_ref().ok_or(StoreError::KeyMissingForWrite)?;
        if Stamp::at(&self.path)? != self.stamp {
            return Err(StoreError::ChangedOutside { path: self.path.clone() });
        }
        let bytes = envelope::seal(encode(self.next_version, &self.slots)?, key).ok_or(StoreError::NoRandom)?;
        replace_with(&self.path, &bytes, &mut self.before_step).map_err(|error| {
            // The new bytes are visible and may yet be lost: neither state can be built upon.
            self.is_poisoned = error.is_renamed();
            StoreError::Replace(error)
        })?;
        self.stamp = Stamp::at(&self.path)?;
        Ok(())
    }

    fn decrypt(&self, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let path = self.path.clone();
        let Some(key) = &self.key else {
            return Err(match envelope::outline(bytes) {
                Some(refusal) => refused(refusal, path),
                None => StoreError::KeyMissing { path },
            });
        };
        envelope::open(bytes, key).map_err(|refusal| refused(refusal, path))
    }
}

fn refused(refusal: Refusal, path: PathBuf) -> StoreError {
    match refusal {
        Refusal::Plaintext => StoreError::Plaintext { path },
        Refusal::Newer { version } => StoreError::Newer { path, version },
        Refusal::WrongKey { written_with, given } => StoreError::WrongKey { path, written_with, given },
        Refusal::Damaged { reason } => StoreError::Damaged { path, reason },
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { action, path: path.to_path_buf(), source }
}

fn read_file(path: &Path) -> Result<Option<(Vec<u8>, Stamp)>, StoreError> {
    // Looked at before it is opened: opening a FIFO would wait, and a link may lead out of the root.
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if !metadata.is_file() => return Err(StoreError::NotAFile { path: path.to_path_buf() }),
        other => other.map_err(io_error("look at", path))?,
    };
    let file = File::open(path).map_err(io_error("open", path))?;
    let metadata = file.metadata().map_err(io_error("look at", path))?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StoreError::ModeTooOpen { path: path.to_path_buf(), mode });
    }
    if metadata.len() > AUTH_STORE_FILE_BYTES_MAX as u64 {
        return Err(StoreError::Damaged { path: path.to_path_buf(), reason: "it is longer than any store" });
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    file.take(AUTH_STORE_FILE_BYTES_MAX as u64).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    Ok(Some((bytes, Stamp::of(&metadata))))
}

#[derive(Serialize)]
struct ContentsOut<'a> {
    next_version: u64,
    slots: BTreeMap<&'a SlotId, EntryOut<'a>>,
}

#[derive(Serialize)]
struct EntryOut<'a> {
    version: u64,
    record: RecordOut<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ContentsIn {
    next_version: u64,
    slots: BTreeMap<String, EntryIn>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryIn {
    version: u64,
    record: RecordIn,
}

fn encode(next_version: u64, slots: &BTreeMap<SlotId, Entry>) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let slots = slots.iter().map(|(id, entry)| {
        let record = entry.record.wire();
        (id, EntryOut { version: entry.version, record })
    });
    let contents = ContentsOut { next_version, slots: slots.collect() };
    let bytes = json_length(&contents);
    if bytes > AUTH_STORE_PLAINTEXT_BYTES_MAX {
        return Err(StoreError::Full);
    }
    // The exact capacity, so that growing leaves no unwiped copy behind.
    let mut text = Zeroizing::new(Vec::with_capacity(bytes + TAG_BYTES));
    serde_json::to_writer(&mut *text, &contents).expect("slots are text and numbers");
    Ok(text)
}

/// Reads what decrypted. Parse errors are not passed on: their text may repeat what they met.
fn decode(contents: &[u8], path: &Path) -> Result<(u64, BTreeMap<SlotId, Entry>), StoreError> {
    let unknown = || StoreError::UnknownRecord { path: path.to_path_buf() };
    let contents: ContentsIn = serde_json::from_slice(contents).map_err(|_| unknown())?;
    let mut slots = BTreeMap::new();
    for (id, entry) in contents.slots {
        let record = entry.record.check(None).map_err(|_| unknown())?;
        if record.id().as_str() != id || entry.version >= contents.next_version {
            return Err(unknown());
        }
        slots.insert(record.id().clone(), Entry { version: entry.version, record });
    }
    Ok((contents.next_version, slots))
}
