//! The audit file on disk: append, rotate, recover.
//! Owns: `audit.jsonl`, and the rotated files of each book.
//! May touch: nothing outside its directory.
//! Never: leaves half a line behind a failed write; grows beyond its bound; lets one book push out the other.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::book::{Book, Placed, Position};
use super::derive::Last;
use super::{AuditLimits, AuditLine};
use crate::limits::AUDIT_TAIL_BYTES;

/// Name of the current file.
pub(super) const NAME: &str = "audit.jsonl";
/// Name of a full file until its lines have gone to the files of their books.
const ROTATING: &str = "audit.jsonl.rotating";

pub(super) struct AuditFile {
    dir: PathBuf,
    path: PathBuf,
    limits: AuditLimits,
    /// `None` after a failed write: it is opened anew then.
    open: Option<Open>,
    /// The file and its size before a failed write, of which parts may be there.
    undo: Option<((u64, u64), u64)>,
    /// By `Book as usize`.
    positions: [Position; 2],
    /// The newest journal record that a line stands for.
    derived_through: u64,
    /// That line.
    last: Option<Last>,
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
            positions: Default::default(),
            derived_through: 0,
            last: None,
            buffer: Vec::new(),
        };
        let open = audit.reopen()?;
        audit.open = Some(open);
        audit.find_positions()?;
        audit.split_rotated()?;
        Ok(audit)
    }

    /// The newest journal record that a line stands for; 0 is none.
    pub(super) fn derived_through(&self) -> u64 {
        self.derived_through
    }

    /// The newest such line, as of the opening.
    pub(super) fn last(&self) -> Option<Last> {
        self.last.clone()
    }

    /// Appends `lines` with one write. `lost` refusals before them could not be kept; they use up their numbers, so that
    /// a gap tells.
    pub(super) fn append(&mut self, lines: &[AuditLine], lost: u64) -> io::Result<()> {
        self.buffer.clear();
        let mut positions = self.positions.clone();
        positions[Book::Refusals as usize].next_seq += lost;
        for line in lines {
            let position = &mut positions[line.book() as usize];
            position.chain = line.write(position, &mut self.buffer);
            position.next_seq += 1;
        }
        let mut open = match self.open.take() {
            Some(open) if open.is_at(&self.path) => open,
            // The file was moved away or removed under the daemon, or the last write failed.
            _ => self.reopen()?,
        };
        if open.bytes > 0 && open.bytes + self.buffer.len() as u64 > self.limits.file_bytes_max {
            // A full file that could not be taken apart earlier goes first, so that there is never more than one.
            self.split_rotated()?;
            open.file.sync_data()?;
            fs::rename(&self.path, self.dir.join(ROTATING))?;
            self.sync_dir()?;
            open = self.reopen()?;
            if let Err(error) = self.split_rotated() {
                log::warn!("{}: the full file waits to be taken apart: {error}", self.path.display());
            }
        }
        if let Err(error) = open.file.write_all(&self.buffer) {
            self.undo = Some((open.identity, open.bytes));
            return Err(error);
        }
        open.bytes += self.buffer.len() as u64;
        self.open = Some(open);
        self.positions = positions;
        let newest = lines.iter().filter_map(|line| line.journal_seq).max();
        self.derived_through = self.derived_through.max(newest.unwrap_or(0));
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.open.as_ref().map_or(Ok(()), |open| open.file.sync_data())
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    /// Each book goes on behind its newest line, wherever that stands.
    fn find_positions(&mut self) -> io::Result<()> {
        let mut found: [Option<Position>; 2] = [None, None];
        let newest_first = [Some(self.path.clone()), Some(self.dir.join(ROTATING))].into_iter().flatten();
        let archives = Book::ALL.into_iter().filter_map(|book| archives(&self.dir, book).ok()?.pop());
        for path in newest_first.chain(archives) {
            let Ok(bytes) = fs::read(&path) else { continue };
            for placed in bytes.split(|byte| *byte == b'\n').rev().filter_map(Placed::read) {
                if let Some(seq) = placed.journal_seq.filter(|seq| *seq > self.derived_through) {
                    self.derived_through = seq;
                    let named = placed.request_id.clone().zip(placed.act.clone());
                    self.last = named.map(|(request, act)| Last { seq, request, act });
                }
                found[placed.book() as usize].get_or_insert_with(|| placed.position());
            }
        }
        self.positions = found.map(Option::unwrap_or_default);
        Ok(())
    }

    /// Moves the lines of a full file to the files of their books. After a crash it is done again: what a book has
    /// already is left out.
    fn split_rotated(&self) -> io::Result<()> {
        let rotating = self.dir.join(ROTATING);
        let bytes = match fs::read(&rotating) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for book in Book::ALL {
            let lines: Vec<(u64, &[u8])> = bytes
                .split_inclusive(|byte| *byte == b'\n')
                .filter_map(|line| Some((Placed::read(line)?, line)))
                .filter(|(placed, _)| placed.book() == book)
                .map(|(placed, line)| (placed.seq, line))
                .collect();
            self.archive(book, &lines)?;
        }
        fs::remove_file(&rotating)?;
        self.sync_dir()
    }

    /// Appends lines to the newest file of a book, or to a new one when that is full, and removes the oldest.
    fn archive(&self, book: Book, lines: &[(u64, &[u8])]) -> io::Result<()> {
        let mut existing = archives(&self.dir, book)?;
        let mut newest = existing.last().map(|path| open_private(path)).transpose()?;
        let mut last = 0;
        if let (Some(file), Some(path)) = (&mut newest, existing.last()) {
            let bytes = file.metadata()?.size();
            cut_incomplete_line(file, bytes, path)?;
            last = last_seq(file)?.unwrap_or(0);
        }
        let new: Vec<&(u64, &[u8])> = lines.iter().filter(|(seq, _)| *seq > last).collect();
        let Some((first, _)) = new.first() else { return Ok(()) };
        let bytes: usize = new.iter().map(|(_, line)| line.len()).sum();
        let room = match &newest {
            Some(file) => self.limits.file_bytes_max.saturating_sub(file.metadata()?.size()),
            None => 0,
        };
        let mut file = match newest.filter(|_| bytes as u64 <= room) {
            Some(file) => file,
            None => {
                let path = self.dir.join(format!("audit.{}.{first:020}.jsonl", book.as_str()));
                let file = open_private(&path)?;
                existing.push(path);
                file
            }
        };
        let text: Vec<u8> = new.iter().flat_map(|(_, line)| line.iter().copied()).collect();
        file.write_all(&text)?;
        file.sync_data()?;
        self.sync_dir()?;
        let surplus = existing.len().saturating_sub(self.limits.rotated_files_max as usize);
        existing[..surplus].iter().try_for_each(fs::remove_file)
    }

    fn reopen(&mut self) -> io::Result<Open> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        // Looked at before it is opened: a pipe would block, a device would swallow.
        match fs::symlink_metadata(&self.path) {
            Ok(found) if !found.is_file() => return Err(io::Error::other("it is not a regular file")),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = open_private(&self.path)?;
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

fn open_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// The rotated files of a book, oldest first.
pub(super) fn archives(dir: &Path, book: Book) -> io::Result<Vec<PathBuf>> {
    let prefix = format!("audit.{}.", book.as_str());
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".jsonl"));
        if number.is_some_and(|number| number.len() == 20 && number.bytes().all(|byte| byte.is_ascii_digit())) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The files that hold lines, so that each book's are met in order.
pub(super) fn files_in_order(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = archives(dir, Book::Refusals)?;
    files.extend(archives(dir, Book::Acts)?);
    files.extend([dir.join(ROTATING), dir.join(NAME)].into_iter().filter(|path| path.exists()));
    Ok(files)
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
    let tail = tail(file)?;
    let mut lines = tail.split(|byte| *byte == b'\n').rev();
    Ok(lines.find_map(Placed::read).map(|placed| placed.seq))
}
