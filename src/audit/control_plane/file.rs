//! The audit file on disk: append, rotate, recover.
//! Owns: `audit.jsonl` and its rotated predecessors `audit.jsonl.1` (newest) and up.
//! May touch: nothing outside its directory.
//! Never: leaves half a line behind a failed write; grows beyond its bound.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{AuditLimits, AuditLine};
use crate::limits::AUDIT_TAIL_BYTES;

/// Name of the current file.
pub(super) const NAME: &str = "audit.jsonl";

pub(super) struct AuditFile {
    dir: PathBuf,
    path: PathBuf,
    limits: AuditLimits,
    /// `None` after a failed write: it is opened anew then.
    open: Option<Open>,
    /// The file and its size before a failed write, of which parts may be there.
    undo: Option<((u64, u64), u64)>,
    next_seq: u64,
    buffer: Vec<u8>,
}

struct Open {
    file: File,
    identity: (u64, u64),
    bytes: u64,
}

impl AuditFile {
    pub(super) fn open(dir: &Path, limits: AuditLimits) -> io::Result<Self> {
        let mut audit = Self {
            dir: dir.to_path_buf(),
            path: dir.join(NAME),
            limits,
            open: None,
            undo: None,
            next_seq: 1,
            buffer: Vec::new(),
        };
        let open = audit.reopen()?;
        let last = match last_seq(&open.file)? {
            Some(seq) => Some(seq),
            // Just rotated: the count goes on from the newest predecessor, if that can be read.
            None => File::open(audit.rotated(1)).ok().and_then(|file| last_seq(&file).ok().flatten()),
        };
        audit.next_seq = last.map_or(1, |seq| seq + 1);
        audit.open = Some(open);
        Ok(audit)
    }

    /// Appends `lines` with one write. `lost` lines before them could not be kept; they use up their numbers, so
    /// that a gap tells.
    pub(super) fn append(&mut self, lines: &[AuditLine], lost: u64) -> io::Result<()> {
        self.buffer.clear();
        let first = self.next_seq + lost;
        for (seq, line) in (first..).zip(lines) {
            line.write(seq, &mut self.buffer);
        }
        let mut open = match self.open.take() {
            Some(open) if open.is_at(&self.path) => open,
            // The file was moved away or removed under the daemon, or the last write failed.
            _ => self.reopen()?,
        };
        if open.bytes > 0 && open.bytes + self.buffer.len() as u64 > self.limits.file_bytes_max {
            open.file.sync_data()?;
            self.rotate()?;
            open = self.reopen()?;
        }
        if let Err(error) = open.file.write_all(&self.buffer) {
            self.undo = Some((open.identity, open.bytes));
            return Err(error);
        }
        open.bytes += self.buffer.len() as u64;
        self.open = Some(open);
        self.next_seq = first + lines.len() as u64;
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.open.as_ref().map_or(Ok(()), |open| open.file.sync_data())
    }

    fn rotated(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{NAME}.{number}"))
    }

    fn rotate(&self) -> io::Result<()> {
        for number in (1..self.limits.rotated_files_max).rev() {
            ignore_missing(fs::rename(self.rotated(number), self.rotated(number + 1)))?;
        }
        if self.limits.rotated_files_max == 0 {
            return fs::remove_file(&self.path);
        }
        fs::rename(&self.path, self.rotated(1))?;
        File::open(&self.dir)?.sync_all()
    }

    fn reopen(&mut self) -> io::Result<Open> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        // Looked at before it is opened: a pipe would block, a device would swallow.
        match fs::symlink_metadata(&self.path) {
            Ok(found) if !found.is_file() => return Err(io::Error::other("it is not a regular file")),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        let metadata = file.metadata()?;
        let identity = (metadata.dev(), metadata.ino());
        let bytes = match self.undo {
            // The lines are written again as a whole.
            Some((written_to, bytes)) if written_to == identity && bytes <= metadata.size() => {
                file.set_len(bytes)?;
                bytes
            }
            _ => cut_incomplete_line(&mut file, metadata.size(), &self.path)?,
        };
        self.undo = None;
        Ok(Open { file, identity, bytes })
    }
}

impl Open {
    fn is_at(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity)
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn tail(mut file: &File) -> io::Result<Vec<u8>> {
    let bytes = file.metadata()?.size();
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(bytes.saturating_sub(AUDIT_TAIL_BYTES)))?;
    file.take(AUDIT_TAIL_BYTES).read_to_end(&mut tail)?;
    Ok(tail)
}

/// Cuts what follows the last line feed; returns the size that is left.
fn cut_incomplete_line(file: &mut File, bytes: u64, path: &Path) -> io::Result<u64> {
    let tail = tail(file)?;
    let complete = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let excess = (tail.len() - complete) as u64;
    if excess == 0 {
        return Ok(bytes);
    }
    log::warn!("{}: an incomplete last line of {excess} bytes was cut off", path.display());
    file.set_len(bytes - excess)?;
    Ok(bytes - excess)
}

/// Number of the last complete line.
fn last_seq(file: &File) -> io::Result<Option<u64>> {
    #[derive(Deserialize)]
    struct Numbered {
        seq: u64,
    }
    let tail = tail(file)?;
    let mut lines = tail.split(|byte| *byte == b'\n').rev();
    Ok(lines.find_map(|line| serde_json::from_slice::<Numbered>(line).ok()).map(|line| line.seq))
}
