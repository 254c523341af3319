//! What lies in a state root: path, kind, size, mode, owner, time and digest of every name.
//! Owns: the walk and the form of a line.
//! May touch: the files of one state root, for reading.
//! Never: copies content; a digest tells nothing of a secret.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use serde::Serialize;

use crate::hex::to_hex;
use crate::limits::SCAN_CHUNK_BYTES;
use crate::state_root::LOST_AND_FOUND;

/// One name.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Path below the root; `.` is the root.
    pub path: String,
    /// `file`, `directory`, `link` or `other`.
    pub kind: &'static str,
    /// Bytes.
    pub size: u64,
    /// Permission bits, octal.
    pub mode: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content, Unix milliseconds.
    pub modified_ms: i64,
    /// SHA-256 of a file's content as it was read; a daemon may have gone on writing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
}

/// An inventory as JSON lines, and the names that could not be read.
#[derive(Debug)]
pub struct Inventory {
    /// One line a name, in order of the paths.
    pub text: Vec<u8>,
    /// Path and cause.
    pub unread: Vec<String>,
}

/// Takes the inventory of a state root. Names that go meanwhile are left out.
///
/// # Errors
/// The root itself cannot be read.
pub fn take(root: &Path) -> io::Result<Inventory> {
    let mut entries: Vec<Entry> = entry(root, Path::new("."), &fs::symlink_metadata(root)?).into_iter().collect();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let listed = match fs::read_dir(root.join(&directory)) {
            Ok(listed) => listed,
            Err(error) if directory.as_os_str().is_empty() => return Err(error),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                let known = entries.iter_mut().find(|entry| entry.path == directory.to_string_lossy());
                known.into_iter().for_each(|entry| entry.unread = Some(error.to_string()));
                continue;
            }
        };
        for listed in listed {
            let relative = directory.join(listed?.file_name());
            let path = root.join(&relative);
            let metadata = match fs::symlink_metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            entries.extend(entry(&path, &relative, &metadata));
            // What a file system makes at its top is not the daemon's, and may not be readable.
            if metadata.is_dir() && relative != Path::new(LOST_AND_FOUND) {
                directories.push(relative);
            }
        }
    }
    entries.sort_by(|one, other| one.path.cmp(&other.path));
    let mut inventory = Inventory { text: Vec::new(), unread: Vec::new() };
    for entry in &entries {
        serde_json::to_writer(&mut inventory.text, entry).map_err(io::Error::other)?;
        inventory.text.push(b'\n');
        inventory.unread.extend(entry.unread.iter().map(|cause| format!("{}: {cause}", entry.path)));
    }
    Ok(inventory)
}

/// `None` when the file went meanwhile.
fn entry(path: &Path, relative: &Path, metadata: &Metadata) -> Option<Entry> {
    let kind = match metadata.file_type() {
        kind if kind.is_file() => "file",
        kind if kind.is_dir() => "directory",
        kind if kind.is_symlink() => "link",
        _ => "other",
    };
    let (sha256, unread) = match (kind == "file").then(|| hash_file(path)) {
        None => (None, None),
        Some(Ok(sha256)) => (Some(sha256), None),
        Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => return None,
        Some(Err(error)) => (None, Some(error.to_string())),
    };
    Some(Entry {
        path: relative.to_string_lossy().into_owned(),
        kind,
        size: metadata.len(),
        mode: format!("{:04o}", metadata.mode() & 0o7777),
        uid: metadata.uid(),
        gid: metadata.gid(),
        modified_ms: metadata.mtime() * 1_000 + metadata.mtime_nsec() / 1_000_000,
        sha256,
        unread,
    })
}

/// SHA-256 of a file in hex.
///
/// # Errors
/// It cannot be read.
pub fn hash_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let (mut context, mut buffer) = (Context::new(&SHA256), vec![0; SCAN_CHUNK_BYTES]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(to_hex(context.finish().as_ref())),
            Ok(count) => context.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
