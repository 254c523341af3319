//! A token file, read once for each change of its metadata.
//! Owns: the rules for token files and the detection of change.
//! May touch: the one path it is given.
//! Never: writes; keeps the token.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::digest::{TokenDefect, TokenDigest};
use crate::limits::{TOKEN_BYTES_MAX, TOKEN_FILE_SETTLE_MS};

/// Why a token file gives no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenFileError {
    /// It cannot be opened or read.
    Unreadable(io::ErrorKind),
    /// A directory, pipe or device.
    NotAFile,
    /// Its content is no token.
    Token(TokenDefect),
    /// Others on this host can read or write it. Fatal at start only.
    Exposed {
        /// Its permission bits.
        mode: u32,
    },
}

impl fmt::Display for TokenFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(kind) => write!(f, "{kind}; next: make it readable for the daemon's user"),
            Self::NotAFile => f.write_str("not a regular file; next: write the token to a regular file"),
            Self::Token(defect) => {
                write!(f, "its content {defect}; next: write one token to a new file with mode 600 and rename it here")
            }
            Self::Exposed { mode } => {
                write!(f, "its mode {mode:03o} lets others on this host at it; next: chmod 600, and rotate the token")
            }
        }
    }
}

/// What tells one content of a path from the next. The inode matters: a rename can keep coarse times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The stamp of what is at `path` now.
    pub(super) fn at(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }

    /// Whether a later change must show in the stamp. A content read within the clock tick of its own
    /// change could be replaced without any trace; a time stamp from the future never settles.
    fn is_settled(&self, now_ms: u64) -> bool {
        let (seconds, nanos) = self.changed.max(self.modified);
        let changed_ms = i128::from(seconds) * 1_000 + i128::from(nanos) / 1_000_000;
        i128::from(now_ms) - changed_ms > i128::from(TOKEN_FILE_SETTLE_MS)
    }
}

/// What one reading of a token file found.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    /// The token, or why there is none.
    pub(super) token: Result<TokenDigest, TokenFileError>,
    /// Set when others on this host can read or write the file.
    pub(super) exposed: Option<TokenFileError>,
    /// Bytes of the token, to warn of short ones.
    pub(super) token_bytes: usize,
    stamp: Option<Stamp>,
    settled: bool,
}

impl Reading {
    /// Reads the file at `path`.
    pub(super) fn of(path: &Path, now_ms: u64) -> Self {
        let mut reading =
            Self { token: Err(TokenFileError::NotAFile), exposed: None, token_bytes: 0, stamp: None, settled: false };
        reading.token = reading.fill(path, now_ms);
        reading
    }

    fn fill(&mut self, path: &Path, now_ms: u64) -> Result<TokenDigest, TokenFileError> {
        let unreadable = |error: io::Error| TokenFileError::Unreadable(error.kind());
        // Looked at before it is opened: opening a pipe would wait for its writer.
        let found = std::fs::metadata(path).map_err(unreadable)?;
        self.stamp = Some(Stamp::of(&found));
        if !found.is_file() {
            return Err(TokenFileError::NotAFile);
        }
        let file = File::open(path).map_err(unreadable)?;
        // From the opened file and before reading it: a change during the read then shows as a new stamp.
        let metadata = file.metadata().map_err(unreadable)?;
        let stamp = Stamp::of(&metadata);
        self.stamp = Some(stamp);
        self.settled = stamp.is_settled(now_ms);
        self.exposed = exposure(&metadata);
        let mut content = Zeroizing::new(Vec::with_capacity(TOKEN_BYTES_MAX + 64));
        let bytes_max = TOKEN_BYTES_MAX as u64 + 64;
        file.take(bytes_max).read_to_end(&mut content).map_err(unreadable)?;
        self.token_bytes = content.trim_ascii().len();
        TokenDigest::of_configured(&content).map_err(TokenFileError::Token)
    }

    /// Whether what is at `path` now may differ from what was read.
    pub(super) fn is_stale(&self, path: &Path) -> bool {
        !self.settled || Stamp::at(path) != self.stamp
    }
}

/// Bits for group and others, except where the group is root's: so systemd hands over a credential.
fn exposure(metadata: &Metadata) -> Option<TokenFileError> {
    let mode = metadata.mode() & 0o777;
    let group_is_root = metadata.uid() == 0 && metadata.gid() == 0;
    let forbidden = if group_is_root { 0o026 } else { 0o066 };
    (mode & forbidden != 0).then_some(TokenFileError::Exposed { mode })
}
