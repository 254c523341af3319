//! The workspace as an opened directory.
//! Owns: the root's descriptor; every path of a tool is resolved beneath it.
//! May touch: files beneath the root, through `crate::sys`.
//! Never: opens a path by its absolute name after start.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// An opened root.
#[derive(Debug)]
pub struct Workspace {
    root: File,
    path: PathBuf,
}

impl Workspace {
    /// Opens the directory at `path`, which is also what absolute paths in arguments are compared with.
    ///
    /// # Errors
    /// It is no directory, or may not be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let root = File::open(&path)?;
        if !root.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        Ok(Self { root, path })
    }

    /// The root's descriptor.
    pub fn root(&self) -> &File {
        &self.root
    }

    /// The root's path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
