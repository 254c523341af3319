//! Writing a backup's files: hashed, synced as they grow, no faster than asked for, and sealed where a key is given.
//! Owns: the outer file, the stream of an archive, and the entries that it has written.
//! May touch: the directory of the backup.
//! Never: writes over a file; leaves a file readable by others.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ring::digest::{Context, SHA256};

use super::error::BackupError;
use super::manifest::{Entry, Kind, Outer};
use super::seal::{Binding, Sealer};
use super::tar::{END, header, padding};
use crate::hex::to_hex;
use crate::limits::{BACKUP_COPY_BYTES, BACKUP_FILES_MAX, BACKUP_SYNC_BYTES};

/// No more bytes in a second than asked for.
pub(super) struct Pace {
    bytes_per_s: u64,
    began: Instant,
    done: u64,
}

impl Pace {
    /// 0 is without a limit.
    pub fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s, began: Instant::now(), done: 0 }
    }

    fn spend(&mut self, bytes: u64) {
        self.done += bytes;
        let Some(ms) = (self.done * 1_000).checked_div(self.bytes_per_s) else { return };
        let ahead = Duration::from_millis(ms).saturating_sub(self.began.elapsed());
        if !ahead.is_zero() {
            // Nobody sends there: only the time passes.
            let _passed = crossbeam_channel::never::<()>().recv_timeout(ahead);
        }
    }
}

/// A file of the backup.
struct OutFile {
    name: String,
    file: File,
    context: Context,
    bytes: u64,
    unsynced: u64,
}

impl OutFile {
    fn create(directory: &Path, name: &str) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(directory.join(name))?;
        Ok(Self { name: name.to_string(), file, context: Context::new(&SHA256), bytes: 0, unsynced: 0 })
    }

    fn finish(self) -> io::Result<Outer> {
        self.file.sync_all()?;
        Ok(Outer { name: self.name, bytes: self.bytes, sha256: to_hex(self.context.finish().as_ref()) })
    }
}

impl Write for OutFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.context.update(bytes);
        self.bytes += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= BACKUP_SYNC_BYTES {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file of the backup as it is, or sealed.
enum Sink {
    Plain(Box<OutFile>),
    Sealed(Box<Sealer<OutFile>>),
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(bytes),
            Self::Sealed(sealer) => sealer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn create(directory: &Path, name: &str, binding: Option<Binding>) -> io::Result<Self> {
        let out = OutFile::create(directory, name)?;
        Ok(match binding {
            None => Self::Plain(Box::new(out)),
            Some(binding) => Self::Sealed(Box::new(Sealer::new(binding, out))),
        })
    }

    fn finish(self) -> io::Result<Outer> {
        match self {
            Self::Plain(out) => out.finish(),
            Self::Sealed(sealer) => sealer.finish()?.finish(),
        }
    }
}

/// Writes a whole file of the backup.
pub(super) fn write_file(
    directory: &Path,
    name: &str,
    binding: Option<Binding>,
    bytes: &[u8],
) -> Result<Outer, BackupError> {
    let path = directory.join(name);
    let write = || {
        let mut sink = Sink::create(directory, name, binding)?;
        sink.write_all(bytes)?;
        sink.finish()
    };
    write().map_err(BackupError::io("write", &path))
}

/// An archive under construction.
pub(super) struct ArchiveWriter<'a> {
    path: PathBuf,
    sink: Sink,
    at_ms: u64,
    pace: &'a mut Pace,
    buffer: Vec<u8>,
    entries: Vec<Entry>,
    bytes: u64,
}

impl<'a> ArchiveWriter<'a> {
    pub fn create(
        directory: &Path,
        name: &str,
        binding: Option<Binding>,
        at_ms: u64,
        pace: &'a mut Pace,
    ) -> Result<Self, BackupError> {
        let path = directory.join(name);
        let sink = Sink::create(directory, name, binding).map_err(BackupError::io("create", &path))?;
        Ok(Self { path, sink, at_ms, pace, buffer: vec![0; BACKUP_COPY_BYTES], entries: Vec::new(), bytes: 0 })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.sink.write_all(bytes).map_err(BackupError::io("write", &self.path))
    }

    fn admit(&self, from: &Path) -> Result<(), BackupError> {
        if self.entries.len() < BACKUP_FILES_MAX {
            Ok(())
        } else {
            Err(BackupError::TooMany { path: from.to_path_buf() })
        }
    }

    /// Adds a directory.
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<(), BackupError> {
        self.plain(Entry { path: path.into(), kind: Kind::Directory, bytes: 0, mode, sha256: None, target: None })
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> Result<(), BackupError> {
        let target = Some(target.to_string());
        self.plain(Entry { path: path.into(), kind: Kind::Link, bytes: 0, mode: 0o777, sha256: None, target })
    }

    fn plain(&mut self, entry: Entry) -> Result<(), BackupError> {
        self.admit(Path::new(&entry.path))?;
        self.put(&header(&entry, self.at_ms))?;
        self.entries.push(entry);
        Ok(())
    }

    /// Adds the first `bytes` bytes of an open file; returns the last ones, up to 4 KiB of them.
    pub fn file(
        &mut self,
        path: &str,
        mode: u32,
        bytes: u64,
        file: &dyn ReadAt,
        from: &Path,
    ) -> Result<Vec<u8>, BackupError> {
        self.admit(from)?;
        let mut entry = Entry { path: path.into(), kind: Kind::File, bytes, mode, sha256: None, target: None };
        self.put(&header(&entry, self.at_ms))?;
        let (mut context, mut done, mut tail) = (Context::new(&SHA256), 0, Vec::new());
        let mut buffer = std::mem::take(&mut self.buffer);
        while done < bytes {
            let wanted = (bytes - done).min(buffer.len() as u64) as usize;
            let count = file.read_at(&mut buffer[..wanted], done).map_err(BackupError::io("read", from))?;
            if count == 0 {
                return Err(BackupError::Changed { path: from.to_path_buf() });
            }
            context.update(&buffer[..count]);
            self.put(&buffer[..count])?;
            self.pace.spend(count as u64);
            done += count as u64;
            if done == bytes {
                tail = buffer[count.saturating_sub(TAIL_BYTES)..count].to_vec();
            }
        }
        self.buffer = buffer;
        self.put(&END[..padding(bytes)])?;
        entry.sha256 = Some(to_hex(context.finish().as_ref()));
        self.entries.push(entry);
        self.bytes += bytes;
        Ok(tail)
    }

    /// Bytes of content so far.
    pub fn content_bytes(&self) -> u64 {
        self.bytes
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Result<(Outer, Vec<Entry>), BackupError> {
        self.put(&END)?;
        let outer = self.sink.finish().map_err(BackupError::io("sync", &self.path))?;
        Ok((outer, self.entries))
    }
}

const TAIL_BYTES: usize = 4 * 1024;

/// What can be copied.
pub(super) trait ReadAt {
    /// Reads at `offset`; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

impl ReadAt for std::sync::Arc<dyn crate::journal::DiskFile> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        (**self).read_at(buffer, offset)
    }
}
