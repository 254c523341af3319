//! The disk as the journal sees it: one flat directory of files.
//! Owns: the narrow traits that the journal and the snapshots write through, and their real implementation.
//! May touch: one directory of the state root.
//! Never: retries, hides an error, or opens a file again on the append path.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::JOURNAL_DIRECTORY_ENTRIES_MAX;
use crate::sys;

/// What tells one directory or file from every other, copies included.
///
/// An inode number alone is reused as soon as its file is gone, so the time of birth belongs to it where the
/// file system keeps one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Birth time in nanoseconds since 1970; absent where the file system has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub born_ns: Option<u64>,
}

/// How an existing file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// For reading only; works on a read-only copy.
    Read,
    /// For reading and writing.
    Write,
}

/// An open file. It follows its file through renames.
pub trait DiskFile: Send + Sync {
    /// Reads at `offset` into `buffer`; fewer bytes than asked for only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`. On an error any part of them may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns when everything written so far, and the size needed to read it back, is on the medium.
    fn sync_data(&self) -> io::Result<()>;
    /// Size in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reserves blocks for the first `bytes` bytes; a shorter file grows to that size with NUL bytes.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// Cuts the file to `bytes`.
    fn truncate(&self, bytes: u64) -> io::Result<()>;
    /// The file's identity.
    fn identity(&self) -> io::Result<Identity>;
}

/// One directory. Names are plain file names.
pub trait Disk: Send + Sync {
    /// Names of everything but directories, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates a file that must not exist (mode 0600) with `bytes` preallocated. When preallocation fails,
    /// the file is removed again.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file that must exist.
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name; a file of that name is replaced. Atomic, durable after [`Disk::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a name; durable after [`Disk::sync_dir`].
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Returns when all creations, renames and removals so far are on the medium.
    fn sync_dir(&self) -> io::Result<()>;
    /// The directory's identity.
    fn identity(&self) -> io::Result<Identity>;
    /// Bytes that may still be used on the file system.
    fn available_bytes(&self) -> io::Result<u64>;
    /// How to name a file of this directory to an operator.
    fn path(&self, name: &str) -> PathBuf;
}

/// Whether an error means that space (or quota, or inodes) has run out, as opposed to a broken medium.
pub fn is_out_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A directory of the real file system.
#[derive(Debug)]
pub struct RealDisk {
    directory: PathBuf,
}

impl RealDisk {
    /// The directory must exist; its mode is the state root's affair.
    ///
    /// # Errors
    /// It does not exist, or is something else.
    pub fn open(directory: &Path) -> io::Result<Self> {
        if !fs::metadata(directory)?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        Ok(Self { directory: directory.to_path_buf() })
    }
}

fn identity_of(metadata: &fs::Metadata) -> Identity {
    let born_ns = metadata
        .created()
        .ok()
        .and_then(|born| born.duration_since(std::time::UNIX_EPOCH).ok())
        .and_then(|born| u64::try_from(born.as_nanos()).ok());
    Identity { device: metadata.dev(), inode: metadata.ino(), born_ns }
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            // A link counts: a segment that was moved elsewhere must not look like a missing one.
            if entry.file_type()?.is_dir() {
                continue;
            }
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry.file_name().into_string() {
                names.push(name);
            }
            if names.len() > JOURNAL_DIRECTORY_ENTRIES_MAX {
                return Err(io::Error::other(format!("more than {JOURNAL_DIRECTORY_ENTRIES_MAX} files")));
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.directory.join(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        if bytes > 0
            && let Err(error) = sys::preallocate(&file, bytes)
        {
            // An empty leftover is harmless: every start removes it. The first error is the one to report.
            drop(fs::remove_file(&path));
            return Err(error);
        }
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let write = access == Access::Write;
        let file = OpenOptions::new().read(true).write(write).open(self.directory.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.directory.join(from), self.directory.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.directory.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    fn identity(&self) -> io::Result<Identity> {
        fs::metadata(&self.directory).map(|metadata| identity_of(&metadata))
    }

    fn available_bytes(&self) -> io::Result<u64> {
        sys::file_system_figures(&self.directory).map(|figures| figures.available_bytes)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
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

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.0.metadata().map(|metadata| metadata.len())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        sys::preallocate(&self.0, bytes)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn identity(&self) -> io::Result<Identity> {
        self.0.metadata().map(|metadata| identity_of(&metadata))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("kheish-disk-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_created_file_is_private_preallocated_and_never_replaces_another() {
        let directory = scratch("create");
        let disk = RealDisk::open(&directory).unwrap();
        let file = disk.create("a", 8_192).unwrap();
        assert_eq!((file.len().unwrap(), fs::metadata(directory.join("a")).unwrap().mode() & 0o777), (8_192, 0o600));
        assert_eq!(disk.create("a", 0).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_directory_made_again_under_the_same_name_has_another_identity() {
        let directory = scratch("identity");
        let first = RealDisk::open(&directory).unwrap().identity().unwrap();
        fs::remove_dir_all(&directory).unwrap();
        fs::create_dir_all(&directory).unwrap();
        assert_ne!(RealDisk::open(&directory).unwrap().identity().unwrap(), first);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn an_impossible_preallocation_reports_its_cause_and_leaves_no_file() {
        let directory = scratch("preallocate");
        let disk = RealDisk::open(&directory).unwrap();
        let error = disk.create("a", 1 << 60).err().unwrap();
        assert!(is_out_of_space(&error) || error.kind() == io::ErrorKind::FileTooLarge, "{error:?}");
        assert_eq!(disk.list().unwrap(), Vec::<String>::new());
        fs::remove_dir_all(directory).unwrap();
    }
}
