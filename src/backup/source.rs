//! What is copied: which files a state root's backup holds, and walking a tree that others may change meanwhile.
//! Owns: what belongs to the barrier, what comes behind it, and what is left out.
//! May touch: a state root and a workspace, for reading.
//! Never: follows a symbolic link; opens a FIFO so that it waits.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::BackupError;
use super::manifest::Note;
use super::out::ArchiveWriter;
use crate::ids::Seq;
use crate::journal::snapshot_of_file;
use crate::limits::{BACKUP_DEPTH_MAX, BACKUP_FILES_MAX};
use crate::state_root::{Directory, FORMAT_FILE, LOCK_FILE, LOST_AND_FOUND};
use crate::sys::files::{Entries, Open, is_link, open_entry};

/// An open file and how much of it is copied. It is never changed below that length.
pub(super) struct Held {
    pub path: String,
    pub file: File,
    pub bytes: u64,
    pub mode: u32,
}

/// The files that must fit each other, opened while nobody changes them.
pub(super) struct HeldFiles {
    /// Without `FORMAT`.
    pub files: Vec<Held>,
    pub format: Held,
    /// What was found there and is no plain file.
    pub left_out: Vec<Note>,
}

impl HeldFiles {
    /// The open file of that path.
    pub fn get(&self, path: &str) -> Option<&Held> {
        self.files.iter().find(|held| held.path == path)
    }
}

/// Whether a name is that of a file that is being written or was left by a crash.
fn is_unfinished(name: &str) -> bool {
    name.ends_with(".new") || name.ends_with(".rewrite") || (name.starts_with('.') && name.ends_with(".tmp"))
}

/// Opens everything of the state root that is copied as it is in this moment: its own files, those of auth and audit, and the
/// snapshots up to `seq`.
pub(super) fn hold(root: &Path, seq: Seq) -> Result<HeldFiles, BackupError> {
    let (mut files, mut left_out, mut format) = (Vec::new(), Vec::new(), None);
    let groups = [None, Some(Directory::Auth), Some(Directory::ControlPlaneAuth), Some(Directory::Snapshots)];
    for group in groups {
        let prefix = group.map_or(String::new(), |directory| format!("{}/", directory.name()));
        let path = group.map_or(root.to_path_buf(), |directory| root.join(directory.name()));
        let directory = File::open(&path).map_err(BackupError::io("open", &path))?;
        for name in names(&directory, &path)? {
            let text = name.to_string_lossy().into_owned();
            let is_wanted = match group {
                None => text != LOCK_FILE,
                Some(Directory::Snapshots) => snapshot_of_file(&text).is_some_and(|at| at <= seq),
                Some(_) => true,
            };
            if !is_wanted || is_unfinished(&text) {
                continue;
            }
            match open(&directory, &name, &path)? {
                Opened::File(file, metadata) => {
                    let (bytes, mode) = (metadata.len(), metadata.mode() & 0o777);
                    let held = Held { path: format!("{prefix}{text}"), file, bytes, mode };
                    match group.is_none() && text == FORMAT_FILE {
                        true => format = Some(held),
                        false => files.push(held),
                    }
                }
                Opened::Directory(_) if group.is_none() => {}
                Opened::Gone => {}
                Opened::Directory(_) | Opened::Link | Opened::Other => {
                    left_out.push(Note { name: format!("{prefix}{text}"), cause: "it is no plain file".to_string() });
                }
            }
        }
    }
    let path = root.join(FORMAT_FILE);
    let missing = || BackupError::Io { action: "open", path, cause: io::Error::from(io::ErrorKind::NotFound) };
    Ok(HeldFiles { files, format: format.ok_or_else(missing)?, left_out })
}

/// The directories that come behind the barrier: whatever is in them is whole by itself, or bounded by its journal.
pub(super) fn loose_directories(root: &Path) -> Result<Vec<String>, BackupError> {
    let own =
        [Directory::Journal, Directory::Snapshots, Directory::Auth, Directory::ControlPlaneAuth, Directory::Probe]
            .map(Directory::name);
    let directory = File::open(root).map_err(BackupError::io("open", root))?;
    let mut loose = Vec::new();
    for name in names(&directory, root)? {
        let text = name.to_string_lossy().into_owned();
        let is_loose = !own.contains(&text.as_str()) && text != LOST_AND_FOUND;
        if is_loose && matches!(open(&directory, &name, root)?, Opened::Directory(_)) {
            loose.push(text);
        }
    }
    Ok(loose)
}

/// How a tree is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tree {
    /// Of a state root: unfinished files and links are left out.
    State,
    /// Of a workspace: everything is somebody's.
    Workspace,
}

/// Copies what lies below `root`/`below` (which is empty for all of it) into an archive.
pub(super) fn copy_tree(
    root: &Path,
    below: &str,
    tree: Tree,
    archive: &mut ArchiveWriter<'_>,
    left_out: &mut Vec<Note>,
) -> Result<(), BackupError> {
    let path = root.join(below);
    let directory = File::open(&path).map_err(BackupError::io("open", &path))?;
    copy_directory(&directory, &path, below, tree, archive, left_out, 0)
}

fn copy_directory(
    directory: &File,
    path: &Path,
    prefix: &str,
    tree: Tree,
    archive: &mut ArchiveWriter<'_>,
    left_out: &mut Vec<Note>,
    depth: usize,
) -> Result<(), BackupError> {
    if depth > BACKUP_DEPTH_MAX || left_out.len() > BACKUP_FILES_MAX {
        return Err(BackupError::TooMany { path: path.to_path_buf() });
    }
    for name in names(directory, path)? {
        let from = path.join(&name);
        let mut leave = |cause: &str| {
            let shown = if prefix.is_empty() {
                name.to_string_lossy().into_owned()
            } else {
                format!("{prefix}/{}", name.to_string_lossy())
            };
            left_out.push(Note { name: shown, cause: cause.to_string() });
        };
        let Some(text) = name.to_str() else {
            leave("its name is not UTF-8");
            continue;
        };
        let below = if prefix.is_empty() { text.to_string() } else { format!("{prefix}/{text}") };
        if tree == Tree::State && is_unfinished(text) {
            continue;
        }
        match open(directory, &name, path)? {
            Opened::Gone => {}
            Opened::File(file, metadata) => {
                archive.file(&below, metadata.mode() & 0o777, metadata.len(), &file, &from)?;
            }
            Opened::Directory(file) => {
                let metadata = file.metadata().map_err(BackupError::io("look at", &from))?;
                archive.directory(&below, metadata.mode() & 0o777)?;
                copy_directory(&file, &from, &below, tree, archive, left_out, depth + 1)?;
            }
            Opened::Link if tree == Tree::Workspace => match fs::read_link(&from) {
                Ok(target) => match target.to_str() {
                    Some(target) => archive.link(&below, target)?,
                    None => leave("its target is not UTF-8"),
                },
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {}
                Err(error) => return Err(BackupError::io("read", &from)(error)),
            },
            Opened::Link => leave("it is a symbolic link"),
            Opened::Other => leave("it is no plain file"),
        }
    }
    Ok(())
}

enum Opened {
    File(File, fs::Metadata),
    Directory(File),
    Link,
    Other,
    Gone,
}

fn open(directory: &File, name: &OsStr, path: &Path) -> Result<Opened, BackupError> {
    let at = || -> PathBuf { path.join(name) };
    let file = match open_entry(directory, name, Open::Any) {
        Ok(file) => file,
        Err(error) if is_link(&error) => return Ok(Opened::Link),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Opened::Gone),
        // A socket cannot be opened.
        Err(error) if error.raw_os_error() == Some(ENXIO) => return Ok(Opened::Other),
        Err(error) => return Err(BackupError::io("open", &at())(error)),
    };
    let metadata = file.metadata().map_err(BackupError::io("look at", &at()))?;
    Ok(match metadata.file_type() {
        kind if kind.is_file() => Opened::File(file, metadata),
        kind if kind.is_dir() => Opened::Directory(file),
        _ => Opened::Other,
    })
}

const ENXIO: i32 = 6;

/// The names in a directory, sorted, so that two backups of the same files are alike.
fn names(directory: &File, path: &Path) -> Result<Vec<OsString>, BackupError> {
    // A descriptor of its own: listing uses up the position.
    let own = open_entry(directory, OsStr::new("."), Open::Directory);
    let listed = own.and_then(Entries::of).map_err(BackupError::io("list", path))?;
    let mut names = Vec::new();
    for entry in listed {
        names.push(entry.map_err(BackupError::io("list", path))?.0);
    }
    names.sort();
    Ok(names)
}
