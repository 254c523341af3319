//! Reading a backup: its head, its manifest, and what lies where in its archives.
//! Owns: the order in which a backup's parts are believed, and an archive as a directory of the journal.
//! May touch: the backup, for reading.
//! Never: follows a link in the backup's directory; writes.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::error::{BackupError, Problem};
use super::key::BackupKey;
use super::manifest::{Archived, Entry, FORMAT, HEAD_FILE, Head, Kind, MANIFEST_FILE, Manifest, sha256_hex};
use super::seal::{Binding, CIPHER, Sealed};
use super::tar::{BLOCK, END, header, padding};
use crate::hex::parse_hex;
use crate::journal::{Access, Disk, DiskFile, Identity, JOURNAL_FORMAT};
use crate::limits::{BACKUP_HEAD_BYTES_MAX, BACKUP_MANIFEST_BYTES_MAX};
use crate::state_root::FORMAT_VERSION;

/// Bytes that can be read at any place: a plain file, or the plaintext of a sealed one.
pub(super) trait Bytes: Send + Sync {
    /// Their number.
    fn len(&self) -> u64;
    /// Reads at `offset`; fewer bytes than asked for only at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

struct Plain(File, u64);

impl Bytes for Plain {
    fn len(&self) -> u64 {
        self.1
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// A backup whose head and manifest are good.
pub struct Backup {
    pub(super) directory: PathBuf,
    pub(super) head: Head,
    /// SHA-256 of `backup.json`, which vouches for everything else.
    pub sha256: String,
    /// What it holds.
    pub manifest: Manifest,
    salt: Vec<u8>,
    pub(super) key: Option<BackupKey>,
}

impl Backup {
    /// Reads head and manifest of the backup in `directory`.
    ///
    /// # Errors
    /// It is no backup, of a newer format, encrypted and the key is not at hand, or altered.
    pub fn open(directory: &Path, key: Option<BackupKey>) -> Result<Self, BackupError> {
        let not_one = |cause: String| BackupError::NotABackup { path: directory.to_path_buf(), cause };
        let path = directory.join(HEAD_FILE);
        let text =
            read_plain(&path, BACKUP_HEAD_BYTES_MAX).map_err(|cause| not_one(format!("{HEAD_FILE}: {cause}")))?;
        check_format(directory, &text)?;
        let head: Head = serde_json::from_slice(&text)
            .map_err(|cause| not_one(format!("{HEAD_FILE} is not as documented: {cause}")))?;
        if let Some(cause) = head.fault() {
            return Err(not_one(format!("{HEAD_FILE}: {cause}")));
        }
        let salt = check_key(directory, &head, key.as_ref())?;
        let mut backup = Self {
            directory: directory.to_path_buf(),
            sha256: sha256_hex(&text),
            manifest: Manifest::nothing(),
            head,
            salt,
            key,
        };
        backup.manifest = backup.read_manifest()?;
        let manifest = &backup.manifest;
        for (what, found, supported) in [
            ("the state root", manifest.state_root_format, FORMAT_VERSION),
            ("the journal", manifest.journal_format, JOURNAL_FORMAT),
        ] {
            if found > supported {
                let (path, found) = (directory.to_path_buf(), u64::from(found));
                return Err(BackupError::Newer { path, what, found, supported });
            }
        }
        Ok(backup)
    }

    fn damaged(&self, problem: Problem) -> BackupError {
        BackupError::Damaged { path: self.directory.clone(), problems: vec![problem] }
    }

    fn read_manifest(&self) -> Result<Manifest, BackupError> {
        let name = self.head.file_name(MANIFEST_FILE);
        let bad = |code, reason: String, member: Option<String>| {
            self.damaged(Problem { code, file: name.clone(), offset: None, member, reason })
        };
        let read = || -> io::Result<Vec<u8>> {
            let file = self.content(MANIFEST_FILE)?;
            if file.len() > BACKUP_MANIFEST_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large"));
            }
            let mut text = vec![0; file.len() as usize];
            let count = file.read_at(&mut text, 0)?;
            text.truncate(count);
            Ok(text)
        };
        let outer = self.head.files.iter().find(|file| file.name == name);
        let found = self.digest(&name).map_err(|cause| bad("backup_unreadable", cause.to_string(), None))?;
        if outer.is_none_or(|outer| (outer.bytes, outer.sha256.as_str()) != (found.0, found.1.as_str())) {
            let cause = "it does not have the length and digest of backup.json".to_string();
            return Err(bad("backup_altered", cause, None));
        }
        let text = read().map_err(|cause| bad("backup_unreadable", cause.to_string(), None))?;
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|cause| bad("backup_altered", format!("it is not as documented: {cause}"), None))?;
        match manifest.fault(&self.head) {
            None => Ok(manifest),
            Some((member, cause)) => Err(bad("backup_altered", cause, member)),
        }
    }

    /// Length and SHA-256 of a file as it lies there.
    pub(super) fn digest(&self, name: &str) -> io::Result<(u64, String)> {
        let path = self.directory.join(name);
        let bytes = plain_length(&path)?;
        Ok((bytes, crate::incident::inventory::hash_file(&path)?))
    }

    /// The content of a file, decrypted as it is read.
    pub(super) fn content(&self, plain: &str) -> io::Result<Arc<dyn Bytes>> {
        let name = self.head.file_name(plain);
        let path = self.directory.join(&name);
        let bytes = plain_length(&path)?;
        let file = File::open(&path)?;
        Ok(match &self.key {
            None => Arc::new(Plain(file, bytes)),
            Some(key) => Arc::new(Sealed::open(Binding::new(key, &self.salt, &self.head.id, &name), file)?),
        })
    }

    /// The archive of that name, with the place of each of its entries.
    pub(super) fn archive<'a>(&self, archived: &'a Archived) -> io::Result<Archive<'a>> {
        let bytes = self.content(&archived.name)?;
        Ok(Archive::new(archived, bytes, self.manifest.created_at_ms))
    }
}

/// The format is looked at first, and alone: a newer one may have any other members.
fn check_format(directory: &Path, text: &[u8]) -> Result<(), BackupError> {
    #[derive(Deserialize)]
    struct Outline {
        format: u64,
    }
    match serde_json::from_slice::<Outline>(text) {
        Ok(Outline { format }) if format > u64::from(FORMAT) => {
            let path = directory.to_path_buf();
            Err(BackupError::Newer { path, what: "the backup", found: format, supported: FORMAT })
        }
        Ok(Outline { format: 0 }) | Err(_) => Err(BackupError::NotABackup {
            path: directory.to_path_buf(),
            cause: format!("{HEAD_FILE} names no format"),
        }),
        Ok(_) => Ok(()),
    }
}

/// The salt, when the key at hand is the right one or none is needed.
fn check_key(directory: &Path, head: &Head, key: Option<&BackupKey>) -> Result<Vec<u8>, BackupError> {
    let path = || directory.to_path_buf();
    match (&head.encryption, key) {
        (None, None) => Ok(Vec::new()),
        (None, Some(_)) => Err(BackupError::KeyNeedless { path: path() }),
        (Some(_), None) => Err(BackupError::KeyMissing { path: path() }),
        (Some(how), Some(key)) => {
            let given = key.fingerprint();
            if how.cipher != CIPHER {
                let cause = format!("its cipher {:?} is not known", how.cipher);
                return Err(BackupError::NotABackup { path: path(), cause });
            }
            if how.key_fingerprint != given {
                return Err(BackupError::WrongKey { path: path(), made_with: how.key_fingerprint.clone(), given });
            }
            Ok(parse_hex(how.salt.as_bytes()).unwrap_or_default())
        }
    }
}

/// The length of what must be a plain file.
fn plain_length(path: &Path) -> io::Result<u64> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_file() {
        return Ok(metadata.len());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "it is no plain file"))
}

fn read_plain(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    if plain_length(path)? > bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large"));
    }
    let mut text = Vec::new();
    File::open(path)?.take(bytes_max).read_to_end(&mut text)?;
    Ok(text)
}

/// An archive and where its entries lie, as the manifest tells.
pub(super) struct Archive<'a> {
    pub entries: &'a [Entry],
    pub bytes: Arc<dyn Bytes>,
    at_ms: u64,
    /// Offset of each entry's header.
    offsets: Vec<u64>,
    /// Where the end mark must stand.
    end: u64,
}

impl<'a> Archive<'a> {
    fn new(archived: &'a Archived, bytes: Arc<dyn Bytes>, at_ms: u64) -> Self {
        let (mut offsets, mut at) = (Vec::with_capacity(archived.entries.len()), 0u64);
        for entry in &archived.entries {
            offsets.push(at);
            // No overflow: a manifest's sizes and their number are bounded.
            at += header(entry, at_ms).len() as u64 + entry.bytes + padding(entry.bytes) as u64;
        }
        Self { entries: &archived.entries, bytes, at_ms, offsets, end: at }
    }

    /// Whether the length is that of the entries and the end mark stands where it must; else what is wrong, and where.
    pub fn end_fault(&self) -> io::Result<Option<(u64, String)>> {
        debug_assert!(self.end.is_multiple_of(BLOCK));
        let wanted = self.end + END.len() as u64;
        if self.bytes.len() != wanted {
            let cause = format!("it has {} bytes and not {wanted}", self.bytes.len());
            return Ok(Some((self.bytes.len().min(wanted), cause)));
        }
        let is_end = self.read(self.end, END.len() as u64)? == END;
        Ok((!is_end).then(|| (self.end, "the end mark is not there".to_string())))
    }

    /// Offset of an entry's header, and whether the header is what it must be.
    pub fn header_is_good(&self, index: usize) -> io::Result<(u64, bool)> {
        let (offset, wanted) = (self.offsets[index], header(&self.entries[index], self.at_ms));
        Ok((offset, self.read(offset, wanted.len() as u64)? == wanted))
    }

    /// Offset of an entry's content.
    pub fn content_offset(&self, index: usize) -> u64 {
        self.offsets[index] + header(&self.entries[index], self.at_ms).len() as u64
    }

    /// Whether the bytes behind an entry's content are blank.
    pub fn padding_is_blank(&self, index: usize) -> io::Result<bool> {
        let bytes = self.entries[index].bytes;
        let padding = padding(bytes) as u64;
        Ok(self.read(self.content_offset(index) + bytes, padding)?.iter().all(|byte| *byte == 0))
    }

    /// Hands an entry's content over in pieces.
    pub fn copy(
        &self,
        index: usize,
        buffer: &mut [u8],
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let (from, bytes) = (self.content_offset(index), self.entries[index].bytes);
        let mut done = 0;
        while done < bytes {
            let wanted = (bytes - done).min(buffer.len() as u64) as usize;
            let count = self.bytes.read_at(&mut buffer[..wanted], from + done)?;
            if count == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends inside it"));
            }
            take(&buffer[..count])?;
            done += count as u64;
        }
        Ok(())
    }

    /// A small entry's content as a whole.
    pub fn small(&self, path: &str, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
        let found = self.entries.iter().position(|entry| entry.path == path && entry.kind == Kind::File);
        let Some(index) = found else { return Ok(None) };
        let bytes = self.entries[index].bytes;
        if bytes > bytes_max {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large"));
        }
        self.read(self.content_offset(index), bytes).map(Some)
    }

    fn read(&self, offset: u64, bytes: u64) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; bytes as usize];
        let count = self.bytes.read_at(&mut buffer, offset)?;
        buffer.truncate(count);
        Ok(buffer)
    }

    /// The files right below `directory` as the journal reads them. `root` names the backup in messages.
    pub fn disk(&self, root: &Path, directory: &str) -> ArchiveDisk {
        let prefix = format!("{directory}/");
        let mut files = HashMap::new();
        for (index, entry) in self.entries.iter().enumerate() {
            let name = entry.path.strip_prefix(&prefix).filter(|name| !name.contains('/'));
            if let (Some(name), Kind::File) = (name, entry.kind) {
                files.insert(name.to_string(), (self.content_offset(index), entry.bytes));
            }
        }
        ArchiveDisk { bytes: self.bytes.clone(), files, path: root.join(super::STATE_ARCHIVE).join(directory) }
    }
}

/// A directory inside an archive; nothing in it can be changed.
pub(super) struct ArchiveDisk {
    bytes: Arc<dyn Bytes>,
    files: HashMap<String, (u64, u64)>,
    path: PathBuf,
}

fn unchangeable() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "an archive is not changed")
}

impl Disk for ArchiveDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.keys().cloned().collect())
    }

    fn create(&self, _name: &str, _bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        Err(unchangeable())
    }

    fn open(&self, name: &str, _access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let (offset, length) = *self.files.get(name).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Arc::new(Member { bytes: self.bytes.clone(), offset, length }))
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Err(unchangeable())
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Err(unchangeable())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Err(unchangeable())
    }

    fn identity(&self) -> io::Result<Identity> {
        Err(unchangeable())
    }

    fn available_bytes(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

struct Member {
    bytes: Arc<dyn Bytes>,
    offset: u64,
    length: u64,
}

impl DiskFile for Member {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = self.length.saturating_sub(offset).min(buffer.len() as u64) as usize;
        if left == 0 {
            return Ok(0);
        }
        self.bytes.read_at(&mut buffer[..left], self.offset + offset)
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        Err(unchangeable())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(unchangeable())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.length)
    }

    fn allocate(&self, _bytes: u64) -> io::Result<()> {
        Err(unchangeable())
    }

    fn truncate(&self, _bytes: u64) -> io::Result<()> {
        Err(unchangeable())
    }

    fn identity(&self) -> io::Result<Identity> {
        Err(unchangeable())
    }
}
