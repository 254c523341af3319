//! Showing records offline, read-only, without the state-root lock.
//! Owns: the filter.
//! May touch: segments, for reading.
//! Never: shows a part of a batch.

use std::ops::ControlFlow;
use std::path::Path;

use super::disk::{Access, Disk, RealDisk};
use super::error::JournalError;
use super::record::RecordRef;
use super::scan::{BatchLine, Position, Scanner, Step};
use super::segment::{list_segments, segment_name};
use super::verify::journal_directory;
use crate::ids::{RunId, Seq, SessionId};

/// Which records to show; everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct ShowFilter {
    /// Of this session.
    pub session: Option<SessionId>,
    /// Of this run.
    pub run: Option<RunId>,
    /// Of this kind, or of every kind that begins with it when it ends in `.`.
    pub kind: Option<String>,
    /// From this position on.
    pub from: Option<Seq>,
    /// Up to and with this position.
    pub to: Option<Seq>,
    /// At most so many.
    pub limit: Option<u64>,
}

impl ShowFilter {
    fn holds(&self, record: &RecordRef<'_>) -> bool {
        let kind = |wanted: &String| match wanted.ends_with('.') {
            true => record.kind.starts_with(wanted.as_str()),
            false => record.kind == wanted,
        };
        self.session.as_ref().is_none_or(|session| record.session.as_ref() == Some(session))
            && self.run.is_none_or(|run| record.run == Some(run))
            && self.kind.as_ref().is_none_or(kind)
            && self.from.is_none_or(|from| record.seq >= from)
    }
}

/// How a showing ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// Records shown.
    pub records: u64,
    /// Why it ended before the end of the last segment: a torn or a growing tail.
    pub unfinished: Option<String>,
}

/// Hands the matching records under `directory` (a state root or its `journal` directory) to `take`, each with its
/// line as written, until `take` breaks.
///
/// # Errors
/// A file cannot be read, or a segment before the last one is damaged.
pub fn show(
    directory: &Path,
    filter: &ShowFilter,
    take: &mut dyn FnMut(&RecordRef<'_>, &[u8]) -> ControlFlow<()>,
) -> Result<Shown, JournalError> {
    let journal = journal_directory(directory);
    let io = |action, name: &str| {
        let path = journal.join(name);
        move |cause| JournalError::Io { action, path, cause }
    };
    let disk = RealDisk::open(&journal).map_err(io("open", ""))?;
    let firsts = list_segments(&disk).map_err(io("list", ""))?;
    let from = filter.from.unwrap_or(0);
    let start = firsts.partition_point(|first| *first <= from).saturating_sub(1);
    let mut shown = Shown::default();
    let mut position: Option<Position> = None;
    for (index, first) in firsts.iter().enumerate().skip(start) {
        let name = segment_name(*first);
        let file = disk.open(&name, Access::Read).map_err(io("open", &name))?;
        let mut scanner = match position {
            None => Scanner::unanchored(file),
            Some(position) => Scanner::new(file, 0, u64::MAX, Position { seq: *first, ..position }),
        };
        loop {
            let batch = match scanner.step().map_err(io("read", &name))? {
                Step::Batch(batch) => batch,
                Step::End { .. } => break,
                Step::Bad(bad) if index + 1 == firsts.len() => {
                    shown.unfinished = Some(format!("{name} at byte {}: {}", bad.offset, bad.cause));
                    return Ok(shown);
                }
                Step::Bad(bad) => {
                    let path = journal.join(&name);
                    return Err(JournalError::Damaged { path, offset: bad.offset, seq: bad.seq, cause: bad.cause });
                }
            };
            for BatchLine { line, bytes, offset, .. } in batch.lines() {
                let record = line.record(bytes).map_err(|cause| JournalError::NotUnderstood {
                    path: journal.join(&name),
                    offset,
                    seq: line.seq,
                    cause: cause.to_string(),
                })?;
                let done = filter.to.is_some_and(|to| record.seq > to)
                    || filter.limit.is_some_and(|limit| shown.records >= limit);
                if done {
                    return Ok(shown);
                }
                if filter.holds(&record) {
                    shown.records += 1;
                    if take(&record, bytes).is_break() {
                        return Ok(shown);
                    }
                }
            }
        }
        position = Some(scanner.position()).filter(|position| position.seq > *first).or(position);
    }
    Ok(shown)
}
