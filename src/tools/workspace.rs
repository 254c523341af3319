//! The workspace as an opened directory.
//! Owns: the root's descriptor, and the one way from a model's path to an open file.
//! May touch: files beneath the root, through `crate::sys::files`.
//! Never: follows a link out of the root; blocks on a FIFO or a device; reads what is no regular file.
//!
//! A path is first cleaned as text (`.` dropped, `..` only within the root) and then resolved by the kernel beneath the
//! root's descriptor (openat2). Where that call is missing, each component is opened by itself and none may be a symbolic
//! link: stricter, never weaker.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::error::ToolError;
use crate::limits::TOOL_PATH_BYTES_MAX;
use crate::sys::files::{self, Open};

/// An opened root.
#[derive(Debug)]
pub struct Workspace {
    root: File,
    path: PathBuf,
    /// As it was given; absolute paths may begin with it as well.
    given: PathBuf,
    /// Open component by component even where openat2 exists.
    stepwise: bool,
}

impl Workspace {
    /// Opens the directory at `path`, which is also what absolute paths in arguments are compared with.
    ///
    /// # Errors
    /// It is no directory, or may not be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let given = std::path::absolute(path)?;
        let path = path.canonicalize()?;
        let root = File::open(&path)?;
        if !root.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        Ok(Self { root, path, given, stepwise: false })
    }

    /// The same, without openat2: how old kernels are served.
    ///
    /// # Errors
    /// As [`Workspace::open`].
    pub fn open_stepwise(path: &Path) -> io::Result<Self> {
        Ok(Self { stepwise: true, ..Self::open(path)? })
    }

    /// The root's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A model's path as a clean relative one; empty is the root itself.
    pub(super) fn clean(&self, raw: &str) -> Result<PathBuf, ToolError> {
        let refuse = |cause: &str| ToolError::Path { path: shorten(raw), cause: cause.to_string() };
        if raw.len() > TOOL_PATH_BYTES_MAX {
            return Err(refuse("it is too long"));
        }
        if raw.contains('\0') {
            return Err(refuse("it has a NUL character"));
        }
        let path = Path::new(raw);
        let path = if path.is_absolute() {
            let inside = path.strip_prefix(&self.path).or_else(|_| path.strip_prefix(&self.given));
            inside.map_err(|_| refuse("it is absolute and not below the workspace"))?
        } else {
            path
        };
        let mut clean = PathBuf::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => clean.push(name),
                Component::CurDir => {}
                Component::ParentDir => {
                    if !clean.pop() {
                        return Err(refuse("`..` leads out of the workspace"));
                    }
                }
                Component::RootDir | Component::Prefix(_) => return Err(refuse("it is absolute")),
            }
        }
        Ok(clean)
    }

    /// The directory that `raw` names, for a command to start in.
    ///
    /// # Errors
    /// It is not there, or not inside the workspace.
    pub fn open_directory(&self, raw: &str) -> Result<File, ToolError> {
        self.directory(raw)
    }

    /// The directory that `raw` names.
    pub(super) fn directory(&self, raw: &str) -> Result<File, ToolError> {
        self.open_clean(&self.clean(raw)?, Open::Directory).map_err(|error| explain(raw, &error))
    }

    /// The regular file that `raw` names, opened for reading.
    pub(crate) fn regular_file(&self, raw: &str) -> Result<(File, Metadata), ToolError> {
        let clean = self.clean(raw)?;
        let file = self.open_clean(&clean, Open::Any).map_err(|error| explain(raw, &error))?;
        let metadata = file.metadata().map_err(|error| explain(raw, &error))?;
        if metadata.is_file() { Ok((file, metadata)) } else { Err(not_a_file(raw, metadata.mode())) }
    }

    /// Whether `raw` names a regular file rather than a directory.
    pub(super) fn is_file(&self, raw: &str) -> Result<bool, ToolError> {
        let clean = self.clean(raw)?;
        let file = self.open_clean(&clean, Open::Any).map_err(|error| explain(raw, &error))?;
        Ok(file.metadata().map_err(|error| explain(raw, &error))?.is_file())
    }

    /// The directory in which `raw` is or will be, and its name there. Missing directories are made when `create`.
    pub(super) fn parent(&self, raw: &str, create: bool) -> Result<(File, OsString), ToolError> {
        let clean = self.clean(raw)?;
        let Some(name) = clean.file_name() else {
            return Err(ToolError::Path { path: shorten(raw), cause: "it is the workspace itself".to_string() });
        };
        let parent = clean.parent().unwrap_or(Path::new(""));
        let directory = match self.open_clean(parent, Open::Directory) {
            Err(error) if create && error.kind() == io::ErrorKind::NotFound => self.create_directories(parent),
            opened => opened,
        };
        Ok((directory.map_err(|error| explain(raw, &error))?, name.to_os_string()))
    }

    fn create_directories(&self, path: &Path) -> io::Result<File> {
        let mut missing: Vec<&OsStr> = Vec::new();
        let mut present = path;
        let mut directory = loop {
            match self.open_clean(present, Open::Directory) {
                Ok(directory) => break directory,
                Err(error) if error.kind() == io::ErrorKind::NotFound && present.file_name().is_some() => {
                    missing.extend(present.file_name());
                    present = present.parent().unwrap_or(Path::new(""));
                }
                Err(error) => return Err(error),
            }
        };
        for name in missing.into_iter().rev() {
            match files::create_directory(&directory, name) {
                Ok(()) => {}
                // Somebody else made it meanwhile; if it is no directory, the next step says so.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            directory = files::open_entry(&directory, name, Open::Directory)?;
        }
        Ok(directory)
    }

    fn open_clean(&self, clean: &Path, open: Open) -> io::Result<File> {
        let whole = if clean.as_os_str().is_empty() { Path::new(".") } else { clean };
        if !self.stepwise {
            match files::open_beneath(&self.root, whole, open) {
                Err(error) if files::is_missing_call(&error) => {}
                opened => return opened,
            }
        }
        let mut names = clean.components().map(Component::as_os_str).peekable();
        let mut at = files::open_entry(&self.root, OsStr::new("."), Open::Directory)?;
        while let Some(name) = names.next() {
            let last = names.peek().is_none();
            let step = if last { open } else { Open::Directory };
            at = match files::open_entry(&at, name, step) {
                // The kernel says "not a directory" of a link that it does not follow.
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                    let is_link = files::look_at(&at, name).is_ok_and(|entry| entry.kind == files::Kind::Link);
                    return Err(if is_link { files::link_error() } else { error });
                }
                opened => opened?,
            };
        }
        Ok(at)
    }
}

/// Why a file cannot be used, for the model.
pub(super) fn explain(raw: &str, error: &io::Error) -> ToolError {
    if files::leads_out(error) {
        let cause = "a symbolic link in it leads out of the workspace".to_string();
        return ToolError::Path { path: shorten(raw), cause };
    }
    if files::is_link(error) {
        let cause = "a symbolic link in it is not followed".to_string();
        return ToolError::Path { path: shorten(raw), cause };
    }
    let (code, cause) = match error.kind() {
        io::ErrorKind::NotFound => ("not_found", "there is no such file or directory"),
        io::ErrorKind::PermissionDenied => ("unreadable", "permission is denied"),
        io::ErrorKind::NotADirectory => ("not_a_directory", "a part of it is no directory"),
        io::ErrorKind::IsADirectory => ("not_a_file", "it is a directory"),
        io::ErrorKind::InvalidFilename => ("name_too_long", "a name in it is too long"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ("storage_full", "the disk is full"),
        io::ErrorKind::ReadOnlyFilesystem => ("read_only", "the workspace can only be read"),
        _ => {
            return ToolError::File { path: shorten(raw), code: "file_error", cause: error.to_string() };
        }
    };
    ToolError::File { path: shorten(raw), code, cause: cause.to_string() }
}

/// What stands there instead of a regular file.
pub(super) fn not_a_file(raw: &str, mode: u32) -> ToolError {
    const KINDS: [(u32, &str); 5] = [
        (0o040_000, "it is a directory"),
        (0o010_000, "it is a FIFO and is not opened"),
        (0o020_000, "it is a device and is not opened"),
        (0o060_000, "it is a device and is not opened"),
        (0o140_000, "it is a socket"),
    ];
    let kind = KINDS.iter().find(|(bits, _)| mode & 0o170_000 == *bits);
    let cause = kind.map_or("it is no regular file", |(_, cause)| cause).to_string();
    ToolError::File { path: shorten(raw), code: "not_a_file", cause }
}

fn shorten(raw: &str) -> String {
    raw.chars().take(200).collect()
}
