//! Large texts beside the journal, named by their digest.
//! Owns: `blobs/` of the state root: one file for each content, 0600, never changed.
//! May touch: that directory only.
//! Never: returns bytes that do not have the digest they were asked for by.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ring::digest::{SHA256, digest};

use crate::hex::to_hex;
use crate::limits::BLOB_BYTES_MAX;
use crate::state_root::replace::sync_directory;

/// The store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Blobs {
    directory: Arc<PathBuf>,
    writes: Arc<AtomicU64>,
    /// Held while one is found to be there and marked as used again, and while one is removed.
    retiring: Arc<Mutex<()>>,
}

/// A kept content, as the directory has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its digest.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// When it was last stored, Unix milliseconds.
    pub stored_at_ms: u64,
}

/// Why a blob was not stored or read.
#[derive(Debug)]
pub enum BlobError {
    /// Too large.
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The disk refused.
    Io {
        /// What was being done.
        step: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// The file does not hold what its name says.
    Damaged {
        /// Which file.
        path: PathBuf,
    },
    /// There is no such blob; also for what is no digest.
    Unknown {
        /// What was asked for.
        sha256: String,
    },
}

impl fmt::Display for BlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes } => {
                write!(f, "blob: {bytes} bytes, at most {BLOB_BYTES_MAX} are kept; next: ask the tool for less at once")
            }
            Self::Io { step, path, cause } => write!(
                f,
                "blob: cannot {step} {}: {cause}; next: check space and permissions of the state root",
                path.display()
            ),
            Self::Damaged { path } => write!(
                f,
                "blob: {} does not hold what its name says; next: restore it from a backup, the journal has the digest",
                path.display()
            ),
            Self::Unknown { sha256 } => write!(f, "blob: none is named {sha256:?}; next: check the digest"),
        }
    }
}

impl std::error::Error for BlobError {}

impl Blobs {
    /// The blobs in `directory`, which is made if it is missing; what an interrupted write left is removed.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(directory: PathBuf) -> Result<Self, BlobError> {
        let failed = |step| {
            let path = directory.clone();
            move |cause| BlobError::Io { step, path, cause }
        };
        DirBuilder::new().mode(0o700).recursive(true).create(&directory).map_err(failed("create"))?;
        for entry in fs::read_dir(&directory).map_err(failed("read"))? {
            let path = entry.map_err(failed("read"))?.path();
            if path.extension().is_some_and(|extension| extension == "new") {
                fs::remove_file(&path).map_err(|cause| BlobError::Io { step: "remove", path, cause })?;
            }
        }
        Ok(Self { directory: Arc::new(directory), writes: Arc::default(), retiring: Arc::default() })
    }

    /// Stores `bytes`, durable before it returns: their digest as hex. The same content is stored once.
    ///
    /// # Errors
    /// It is too large or the disk refused; nothing is left behind under its name.
    pub fn put(&self, bytes: &[u8]) -> Result<String, BlobError> {
        if bytes.len() > BLOB_BYTES_MAX {
            return Err(BlobError::TooLarge { bytes: bytes.len() });
        }
        let sha256 = to_hex(digest(&SHA256, bytes).as_ref());
        let target = self.directory.join(&sha256);
        {
            // Nobody removes it between the look and the mark, and once it is marked it is young.
            let _retiring = self.retiring.lock().unwrap_or_else(PoisonError::into_inner);
            if self.read(&target).is_ok_and(|kept| kept == bytes) && mark_as_used(&target).is_ok() {
                return Ok(sha256);
            }
        }
        let write = self.writes.fetch_add(1, Ordering::Relaxed);
        let fresh = self.directory.join(format!("{sha256}.{write}.new"));
        let written = Self::write(&fresh, bytes).and_then(|()| {
            fs::rename(&fresh, &target).map_err(|cause| io_error("rename", &fresh, cause))?;
            sync_directory(&self.directory).map_err(|cause| io_error("sync", &self.directory, cause))
        });
        if written.is_err() {
            // Gone already when the rename took place.
            let _leftover_is_removed_at_the_next_start = fs::remove_file(&fresh);
        }
        written.map(|()| sha256)
    }

    fn write(path: &Path, bytes: &[u8]) -> Result<(), BlobError> {
        let open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file = open.map_err(|cause| io_error("create", path, cause))?;
        file.write_all(bytes).map_err(|cause| io_error("write", path, cause))?;
        file.sync_all().map_err(|cause| io_error("sync", path, cause))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(BLOB_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Everything that is kept, in no order.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<Kept>, BlobError> {
        let failed = |cause| io_error("read", &self.directory, cause);
        let mut kept = Vec::new();
        for entry in fs::read_dir(&*self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(sha256) = entry.file_name().to_str().filter(|name| is_digest(name)).map(str::to_string) else {
                continue;
            };
            // Gone meanwhile is no error.
            if let Ok(metadata) = entry.metadata() {
                kept.push(Kept { sha256, bytes: metadata.len(), stored_at_ms: stored_at_ms(&metadata) });
            }
        }
        Ok(kept)
    }

    /// Whether this content is kept; says nothing of damage.
    pub fn has(&self, sha256: &str) -> bool {
        is_digest(sha256) && self.directory.join(sha256).is_file()
    }

    /// Removes the content with this digest unless it was stored at `before_ms` or later, which is looked at anew. Tells
    /// whether it is gone. The caller knows that nothing which is kept names it.
    ///
    /// # Errors
    /// The disk refused.
    pub fn retire(&self, sha256: &str, before_ms: u64) -> Result<bool, BlobError> {
        if !is_digest(sha256) {
            return Ok(false);
        }
        let path = self.directory.join(sha256);
        let _retiring = self.retiring.lock().unwrap_or_else(PoisonError::into_inner);
        match fs::metadata(&path) {
            Ok(metadata) if stored_at_ms(&metadata) >= before_ms => return Ok(false),
            Ok(_) => {}
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(cause) => return Err(io_error("look at", &path, cause)),
        }
        fs::remove_file(&path).map(|()| true).map_err(|cause| io_error("remove", &path, cause))
    }

    /// The content with this digest (64 hex digits), checked.
    ///
    /// # Errors
    /// There is none, it cannot be read, or it has been changed.
    pub fn get(&self, sha256: &str) -> Result<Vec<u8>, BlobError> {
        let unknown = || BlobError::Unknown { sha256: sha256.to_string() };
        if !is_digest(sha256) {
            return Err(unknown());
        }
        let path = self.directory.join(sha256);
        let bytes = match self.read(&path) {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Err(unknown()),
            Err(cause) => return Err(io_error("read", &path, cause)),
        };
        if to_hex(digest(&SHA256, &bytes).as_ref()) == sha256 { Ok(bytes) } else { Err(BlobError::Damaged { path }) }
    }
}

fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn stored_at_ms(metadata: &fs::Metadata) -> u64 {
    let since = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn mark_as_used(path: &Path) -> io::Result<()> {
    File::open(path)?.set_modified(SystemTime::now())
}

fn io_error(step: &'static str, path: &Path, cause: io::Error) -> BlobError {
    BlobError::Io { step, path: path.to_path_buf(), cause }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::state_root::scratch::Scratch;

    #[test]
    fn what_is_kept_is_found_whole_by_its_digest_and_damage_is_told() {
        let scratch = Scratch::new("blobs");
        let directory = scratch.path().join("blobs");
        let blobs = Blobs::open(directory.clone()).unwrap();
        let sha256 = blobs.put(b"a large text").unwrap();
        assert_eq!(sha256, to_hex(digest(&SHA256, b"a large text").as_ref()));
        assert_eq!(blobs.put(b"a large text").unwrap(), sha256);
        assert_eq!(blobs.get(&sha256).unwrap(), b"a large text");
        let path = directory.join(&sha256);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "no leftover");
        fs::write(&path, b"another text").unwrap();
        assert!(matches!(blobs.get(&sha256), Err(BlobError::Damaged { .. })));
        assert_eq!(blobs.put(b"a large text").unwrap(), sha256, "what was damaged is written again");
        assert_eq!(blobs.get(&sha256).unwrap(), b"a large text");
    }

    #[test]
    fn what_is_stored_again_is_young_again_and_only_what_is_old_is_removed() {
        let scratch = Scratch::new("blobs");
        let directory = scratch.path().join("blobs");
        let blobs = Blobs::open(directory.clone()).unwrap();
        let (old, used) = (blobs.put(b"old").unwrap(), blobs.put(b"used").unwrap());
        let long_ago = UNIX_EPOCH + std::time::Duration::from_secs(1_000);
        for sha256 in [&old, &used] {
            File::open(directory.join(sha256)).unwrap().set_modified(long_ago).unwrap();
        }
        assert_eq!(blobs.list().unwrap().iter().map(|kept| kept.stored_at_ms).collect::<Vec<_>>(), [1_000_000; 2]);
        assert!(!blobs.retire(&old, 1_000_000).unwrap(), "not before its own time");
        assert_eq!(blobs.put(b"used").unwrap(), used);
        for sha256 in [&old, &used] {
            assert_eq!(blobs.retire(sha256, 2_000_000).unwrap(), *sha256 == old);
        }
        assert_eq!((blobs.has(&old), blobs.has(&used)), (false, true));
        assert!(blobs.retire(&old, 2_000_000).unwrap(), "gone already is gone");
        assert!(!blobs.retire("../blobs", u64::MAX).unwrap());
        assert_eq!(blobs.list().unwrap().len(), 1);
    }

    #[test]
    fn nothing_but_a_digest_names_a_blob() {
        let scratch = Scratch::new("blobs");
        let blobs = Blobs::open(scratch.path().join("blobs")).unwrap();
        let upper = "A".repeat(64);
        for name in ["", "../daemon.lock", "..", "x", upper.as_str(), &"a".repeat(64)] {
            assert!(matches!(blobs.get(name), Err(BlobError::Unknown { .. })), "{name}");
        }
        assert!(matches!(blobs.put(&vec![0; BLOB_BYTES_MAX + 1]), Err(BlobError::TooLarge { .. })));
    }

    #[test]
    fn an_interrupted_write_is_removed_at_the_next_start() {
        let scratch = Scratch::new("blobs");
        let directory = scratch.path().join("blobs");
        Blobs::open(directory.clone()).unwrap();
        fs::write(directory.join("x.0.new"), b"half").unwrap();
        Blobs::open(directory.clone()).unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    }
}
