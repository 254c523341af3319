//! Replacing a file as a whole: a new file beside it, then one rename.
//! Owns: the lock of the old file, the staged new one, and the way back.
//! May touch: one directory of the workspace, by its descriptor.
//! Never: writes into the old file; leaves a staged file behind when it can remove it.

use std::ffi::OsString;
use std::fs::{File, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use super::Control;
use super::error::ToolError;
use super::workspace::{Workspace, explain, not_a_file};
use crate::hex::to_hex;
use crate::limits::{TOOL_EDIT_BYTES_MAX, TOOL_LOCK_STEP_MS, TOOL_LOCK_TRIES_MAX};
use crate::sys::files::{self, Kind, Open};

/// Where a file is or will be.
#[derive(Debug)]
pub(super) struct Target {
    directory: File,
    name: OsString,
    /// As the model wrote it.
    pub(super) raw: String,
}

/// A file as it was found, locked against other tools.
#[derive(Debug)]
pub(super) struct Original {
    /// Its content.
    pub(super) bytes: Vec<u8>,
    mode: u32,
    /// The lock lives as long as this.
    _locked: File,
}

impl Original {
    /// SHA-256 of its content, hexadecimal.
    pub(super) fn sha256(&self) -> String {
        sha256(&self.bytes)
    }
}

/// SHA-256, hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    to_hex(digest(&SHA256, bytes).as_ref())
}

impl Target {
    /// The place that `raw` names. Missing directories are made when `create`.
    pub(super) fn find(workspace: &Workspace, raw: &str, create: bool) -> Result<Self, ToolError> {
        let (directory, name) = workspace.parent(raw, create)?;
        Ok(Self { directory, name, raw: raw.to_string() })
    }

    /// The file that is there, locked and read; `None` when there is none.
    pub(super) fn original(&self, control: &Control) -> Result<Option<Original>, ToolError> {
        for _ in 0..TOOL_LOCK_TRIES_MAX {
            let found = match files::look_at(&self.directory, &self.name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                found => found.map_err(|error| explain(&self.raw, &error))?,
            };
            match found.kind {
                Kind::File => {}
                Kind::Link => return Err(explain(&self.raw, &files::link_error())),
                Kind::Directory => return Err(not_a_file(&self.raw, 0o040_000)),
                Kind::Other => return Err(not_a_file(&self.raw, 0o010_000)),
            }
            if found.bytes > TOOL_EDIT_BYTES_MAX as u64 {
                return Err(too_large(&self.raw, found.bytes));
            }
            let mut file = match files::open_entry(&self.directory, &self.name, Open::Any) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(|error| explain(&self.raw, &error))?,
            };
            let locked = match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                // Some network file systems have no locks; the digest is the guard there.
                Err(TryLockError::Error(_)) => true,
            };
            // Whoever had the lock may have put another file there.
            let metadata = file.metadata().map_err(|error| explain(&self.raw, &error))?;
            let still_there = files::look_at(&self.directory, &self.name)
                .is_ok_and(|entry| entry.identity == (metadata.dev(), metadata.ino()));
            if locked && still_there {
                if !metadata.is_file() {
                    return Err(not_a_file(&self.raw, metadata.mode()));
                }
                let bytes = read_bounded(&mut file, TOOL_EDIT_BYTES_MAX).map_err(|error| explain(&self.raw, &error))?;
                let bytes = bytes.ok_or_else(|| too_large(&self.raw, metadata.len()))?;
                return Ok(Some(Original { bytes, mode: metadata.mode() & 0o777, _locked: file }));
            }
            control.pause(TOOL_LOCK_STEP_MS)?;
        }
        Err(ToolError::Refused {
            code: "file_busy",
            cause: format!("{:?} is being changed by somebody else", self.raw),
            next: "try again".to_string(),
        })
    }

    /// Writes `bytes` beside the target, synced, with the mode of the file that it will replace.
    pub(super) fn stage(self, bytes: &[u8], original: Option<Original>) -> Result<Staged, ToolError> {
        let explained = |error: &io::Error, target: &Self| explain(&target.raw, error);
        let (name, mut file) = self.create_beside().map_err(|error| explained(&error, &self))?;
        let mut staged = Staged { target: self, name, original, linked: None, done: false };
        let mode = staged.original.as_ref().map(|original| original.mode);
        let written = file
            .write_all(bytes)
            .and_then(|()| mode.map_or(Ok(()), |mode| file.set_permissions(Permissions::from_mode(mode))))
            .and_then(|()| file.sync_data());
        match written {
            Ok(()) => Ok(staged),
            Err(error) => {
                staged.discard();
                Err(explained(&error, &staged.target))
            }
        }
    }

    fn create_beside(&self) -> io::Result<(OsString, File)> {
        let mut tries = 8;
        loop {
            let name = fresh_name();
            match files::create_entry(&self.directory, &name, 0o666) {
                Ok(file) => return Ok((name, file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries > 0 => tries -= 1,
                Err(error) => return Err(error),
            }
        }
    }
}

fn fresh_name() -> OsString {
    let mut random = [0; 8];
    SystemRandom::new().fill(&mut random).expect("the kernel has random bytes");
    format!(".kheish-{}.tmp", to_hex(&random)).into()
}

fn read_bounded(file: &mut File, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= bytes_max).then_some(bytes))
}

fn too_large(raw: &str, bytes: u64) -> ToolError {
    ToolError::File {
        path: raw.chars().take(200).collect(),
        code: "file_too_large",
        cause: format!("it has {bytes} bytes, at most {TOOL_EDIT_BYTES_MAX} can be edited"),
    }
}

/// A new file beside its target. Dropped before [`Staged::commit`] it is removed again.
#[derive(Debug)]
pub(super) struct Staged {
    target: Target,
    name: OsString,
    original: Option<Original>,
    /// Second name of the replaced file, for the way back.
    linked: Option<OsString>,
    done: bool,
}

impl Staged {
    /// As the model wrote the path.
    pub(super) fn raw(&self) -> &str {
        &self.target.raw
    }

    /// Puts the new file in place of the old one. With `keep_way_back` the old one can be restored until
    /// [`Staged::settle`].
    pub(super) fn commit(&mut self, keep_way_back: bool) -> Result<(), ToolError> {
        let Target { directory, name, raw } = &self.target;
        if keep_way_back && self.original.is_some() {
            let second = fresh_name();
            // Without hard links the way back is a copy of what was read.
            self.linked = files::link_entry(directory, name, &second).ok().map(|()| second);
        }
        let renamed = if self.original.is_some() {
            files::rename_entry(directory, &self.name, name, false)
        } else {
            match files::rename_entry(directory, &self.name, name, true) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    files::rename_entry(directory, &self.name, name, false)
                }
                renamed => renamed,
            }
        };
        match renamed {
            Ok(()) => {
                self.done = true;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(ToolError::Refused {
                code: "file_changed",
                cause: format!("{raw:?} was created by somebody else meanwhile"),
                next: "read it, then decide".to_string(),
            }),
            Err(error) => Err(explain(raw, &error)),
        }
    }

    /// Puts the old file back; tells whether that worked.
    pub(super) fn restore(&mut self) -> bool {
        if !self.done {
            return true;
        }
        let Target { directory, name, .. } = &self.target;
        if let Some(second) = self.linked.take() {
            return files::rename_entry(directory, &second, name, false).is_ok();
        }
        let Some(original) = &self.original else { return files::remove_entry(directory, name).is_ok() };
        let Ok((second, mut file)) = self.target.create_beside() else { return false };
        file.write_all(&original.bytes).is_ok()
            && file.set_permissions(Permissions::from_mode(original.mode)).is_ok()
            && files::rename_entry(directory, &second, name, false).is_ok()
    }

    /// Gives up the way back.
    pub(super) fn settle(&mut self) {
        if let Some(second) = self.linked.take() {
            // A second name that stays is untidy, not wrong.
            drop(files::remove_entry(&self.target.directory, &second));
        }
    }

    fn discard(&mut self) {
        if !self.done {
            // As above.
            drop(files::remove_entry(&self.target.directory, &self.name));
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.settle();
        self.discard();
    }
}
