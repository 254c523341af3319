//! The file of `--hooks-config`.
//! Owns: reading it, at start and later, to tell whether the next start will take it.
//! May touch: that file.
//! Never: takes a file that others than its owner can write; repeats what is in it.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::definition::{Definitions, Host};
use crate::commit::{CommandError, CoreHandle};
use crate::core::{Command, RuntimeEdit};
use crate::hex::to_hex;
use crate::limits::HOOKS_DOCUMENT_BYTES_MAX;

/// A file that can be used.
#[derive(Debug, Clone)]
pub struct HooksFile {
    /// Where it lies.
    pub path: PathBuf,
    /// What it holds.
    pub document: Value,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
}

/// The file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HooksFileError {
    path: PathBuf,
    cause: String,
}

impl fmt::Display for HooksFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.cause)
    }
}

impl std::error::Error for HooksFileError {}

impl HooksFile {
    /// Reads the file and checks every definition in it.
    ///
    /// # Errors
    /// Names the hooks and what is wrong with each.
    pub fn load(path: &Path, host: &dyn Host) -> Result<Self, HooksFileError> {
        let refused = |cause: String| HooksFileError { path: path.to_path_buf(), cause };
        let open =
            |error: std::io::Error| refused(format!("cannot be read: {error}; next: check the path and its owner"));
        let file = std::fs::File::open(path).map_err(open)?;
        let metadata = file.metadata().map_err(open)?;
        if !metadata.is_file() {
            return Err(refused("it is no regular file; next: name a file".to_string()));
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(refused("others than its owner can write it; next: chmod go-w".to_string()));
        }
        let mut bytes = Vec::new();
        file.take(HOOKS_DOCUMENT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(open)?;
        if bytes.len() > HOOKS_DOCUMENT_BYTES_MAX {
            return Err(refused(format!("it has more than {HOOKS_DOCUMENT_BYTES_MAX} bytes; next: shorten it")));
        }
        let document: Value = serde_json::from_slice(&bytes).map_err(|error| {
            refused(format!(
                "line {} column {} is not valid JSON; next: correct it there",
                error.line(),
                error.column()
            ))
        })?;
        if let Some(problems) = Definitions::read(&document, host).problems() {
            return Err(refused(problems));
        }
        Ok(Self { path: path.to_path_buf(), document, sha256: to_hex(digest(&SHA256, &bytes).as_ref()) })
    }

    /// Puts the hooks of the file in force, unless this very file was taken before: what a caller has set since stays.
    ///
    /// # Errors
    /// It could not be recorded.
    pub fn take(self, core: &CoreHandle) -> Result<Self, CommandError> {
        let runtime = core.view().runtime.clone();
        let taken = runtime.settings().hooks.as_ref().and_then(|hooks| hooks.file_sha256.as_ref());
        if taken != Some(&self.sha256) {
            let edit = RuntimeEdit::Hooks { document: self.document.clone(), file_sha256: Some(self.sha256.clone()) };
            core.execute(Command::ChangeRuntime { edit, expected_revision: None })?;
            log::info!("the hooks of {} are in force", self.path.display());
        }
        Ok(self)
    }
}
