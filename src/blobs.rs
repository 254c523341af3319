//! Large texts beside the journal, named by their digest.
//! Owns: `blobs/` of the state root: one file for each content, 0600, never changed.
//! May touch: that directory only.
//! Never: returns bytes that do not have the digest they were asked for by.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ring::digest::{SHA256, digest};

use crate::hex::to_hex;
use crate::limits::BLOB_BYTES_MAX;
use crate::state_root::replace::sync_directory;

/// The store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Blobs {
    directory: Arc<PathBuf>,
    writes: Arc<AtomicU64>,
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
        Ok(Self { directory: Arc::new(directory), writes: Arc::default() })
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
        if self.read(&target).is_ok_and(|kept| kept == bytes) {
            return Ok(sha256);
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

    /// The content with this digest (64 hex digits), checked.
    ///
    /// # Errors
    /// There is none, it cannot be read, or it has been changed.
    pub fn get(&self, sha256: &str) -> Result<Vec<u8>, BlobError> {
        let is_digest = sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let unknown = || BlobError::Unknown { sha256: sha256.to_string() };
        if !is_digest {
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
