//! Walking a segment batch by batch, checking everything that can be checked on the way.
//! Owns: the rule of what a whole batch is, and of what distinguishes a torn tail from damage.
//! May touch: segment files, for reading.
//! Never: decides what to do about a bad line.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::chain::Chain;
use super::disk::DiskFile;
use super::record::Line;
use super::window::{LineEnd, Window, line_length};
use crate::ids::Seq;
use crate::limits::{JOURNAL_BATCH_BYTES_MAX, JOURNAL_READ_BYTES};

/// What the next line must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// Its position.
    pub seq: Seq,
    /// The chain value before it.
    pub chain: Chain,
    /// Its batch's number.
    pub batch: u64,
}

impl Position {
    /// Before the first line of a journal that starts at `seq`.
    pub fn start(seq: Seq) -> Self {
        Self { seq, chain: Chain::START, batch: 1 }
    }
}

/// A whole batch.
pub(super) struct Batch<'a> {
    /// File offset of its first byte.
    pub offset: u64,
    bytes: &'a [u8],
    lines: &'a [Found],
}

impl<'a> Batch<'a> {
    /// Its lines.
    pub fn lines(&self) -> impl Iterator<Item = BatchLine<'a>> + use<'a> {
        let (bytes, offset) = (self.bytes, self.offset);
        self.lines.iter().map(move |found| BatchLine {
            line: &found.line,
            bytes: &bytes[found.range.clone()],
            offset: offset + found.range.start as u64,
            chain: found.chain,
        })
    }

    /// File offset behind its last byte.
    pub fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

/// A line of a whole batch.
pub(super) struct BatchLine<'a> {
    pub line: &'a Line,
    pub bytes: &'a [u8],
    /// File offset.
    pub offset: u64,
    /// Its chain value.
    pub chain: Chain,
}

struct Found {
    line: Line,
    range: Range<usize>,
    chain: Chain,
}

/// Bytes that are not what must follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bad {
    /// File offset of the first bad line.
    pub offset: u64,
    /// The position that was expected there.
    pub seq: Seq,
    /// File offset of the first line of the batch it belongs to.
    pub batch_offset: u64,
    /// Number of that batch.
    pub batch: u64,
    /// Last position of that batch, when its first line was good.
    pub batch_last: Option<Seq>,
    /// What is wrong.
    pub cause: String,
}

/// One step of a walk.
pub(super) enum Step<'a> {
    /// A whole, checked batch.
    Batch(Batch<'a>),
    /// The lines end here: end of file, or a NUL byte where a batch would begin.
    End {
        /// File offset.
        offset: u64,
    },
    /// Something else follows.
    Bad(Bad),
}

enum Next {
    Whole,
    End,
    Bad { at: usize, cause: String },
}

/// A walk over one segment.
pub(super) struct Scanner {
    window: Window,
    position: Position,
    lines: Vec<Found>,
    taken: usize,
    /// The first line is believed as it stands.
    unanchored: bool,
}

impl Scanner {
    /// A walk from `offset` to `limit`, where `position` must be found first.
    pub fn new(file: Arc<dyn DiskFile>, offset: u64, limit: u64, position: Position) -> Self {
        let window = Window::new(file, offset, limit);
        Self { window, position, lines: Vec::new(), taken: 0, unanchored: false }
    }

    /// A walk that begins in the middle of a journal: what must come first is not known.
    pub fn unanchored(file: Arc<dyn DiskFile>) -> Self {
        Self { unanchored: true, ..Self::new(file, 0, u64::MAX, Position::start(0)) }
    }

    /// What must follow the batches walked so far.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The next batch.
    ///
    /// # Errors
    /// The file could not be read.
    pub fn step(&mut self) -> io::Result<Step<'_>> {
        self.window.advance(std::mem::take(&mut self.taken));
        self.lines.clear();
        let mut position = self.position;
        let offset = self.window.offset();
        match self.find(&mut position)? {
            Next::Whole => {
                let length = self.lines.last().map_or(0, |found| found.range.end);
                position.batch += 1;
                self.position = position;
                self.taken = length;
                let bytes = &self.window.bytes()[..length];
                Ok(Step::Batch(Batch { offset, bytes, lines: &self.lines }))
            }
            Next::End => Ok(Step::End { offset }),
            Next::Bad { at, cause } => Ok(Step::Bad(Bad {
                offset: offset + at as u64,
                seq: position.seq,
                batch_offset: offset,
                batch: self.position.batch,
                batch_last: self.batch_count().map(|count| self.position.seq + u64::from(count) - 1),
                cause,
            })),
        }
    }

    fn batch_count(&self) -> Option<u32> {
        self.lines.first().and_then(|found| found.line.batch).map(|(_, count)| count)
    }

    fn find(&mut self, position: &mut Position) -> io::Result<Next> {
        let mut at = 0;
        loop {
            let bad = |cause: String| Ok(Next::Bad { at, cause });
            let missing = self.batch_count().map(|count| (count, count as usize - self.lines.len()));
            match (self.window.byte(at)?, missing) {
                (_, Some((_, 0))) => return Ok(Next::Whole),
                (None | Some(0), None) => return Ok(Next::End),
                (None | Some(0), Some((count, missing))) => {
                    return bad(format!("{missing} of the {count} lines of batch {} are missing", self.position.batch));
                }
                (Some(_), _) => {}
            }
            let end = match self.window.line_end(at, JOURNAL_BATCH_BYTES_MAX.saturating_sub(at))? {
                LineEnd::At(end) => end,
                LineEnd::Missing => return bad("the line has no end".to_string()),
                LineEnd::TooLong => return bad(format!("the batch is longer than {JOURNAL_BATCH_BYTES_MAX} bytes")),
            };
            let bytes = &self.window.bytes()[at..end];
            let line = match Line::parse(bytes) {
                Ok(line) => line,
                Err(cause) => return bad(cause.to_string()),
            };
            let checked = match (self.unanchored, line.batch, line.chain(bytes)) {
                (true, Some((batch, _)), Some(chain)) => {
                    self.unanchored = false;
                    self.position = Position { seq: line.seq, chain, batch };
                    *position = Position { seq: line.seq + 1, chain, batch };
                    Ok(())
                }
                _ => check(&line, bytes, position, self.lines.is_empty()),
            };
            if let Err(cause) = checked {
                return bad(cause);
            }
            self.lines.push(Found { line, range: at..end, chain: position.chain });
            at = end;
        }
    }
}

/// Checks one line against what must follow and moves on.
fn check(line: &Line, bytes: &[u8], position: &mut Position, first: bool) -> Result<(), String> {
    let Position { seq, chain, batch } = *position;
    // The chain is checked first: a line that fails it proves nothing by its other members.
    let chain = line.follows(bytes, chain).ok_or_else(|| match (first, line.batch) {
        (true, Some((found, _))) if found > batch => {
            format!("the chain is broken: batch {batch} must follow and batch {found} is here; lines are missing")
        }
        _ => "the chain value does not match the line and its predecessors".to_string(),
    })?;
    if line.seq != seq {
        return Err(format!("the line has seq {} where {seq} must follow", line.seq));
    }
    match (first, line.batch) {
        (true, Some((number, _))) if number == batch => {}
        (false, None) => {}
        (true, _) => return Err(format!("the first line of batch {batch} must follow")),
        (false, Some(_)) => return Err(format!("a batch begins inside batch {batch}")),
    }
    *position = Position { seq: seq + 1, chain, batch };
    Ok(())
}

/// What lies behind the last good batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// File offset behind the last byte that is not NUL; `from` when there is none.
    pub garbage_end: u64,
    /// File offset and position of a line that belongs to a later batch, which proves that the bad one had been
    /// whole and synced.
    pub later: Option<(u64, Seq)>,
}

/// Looks through everything from `from` to the end of the file. A line of a later batch is one with a number
/// above `batch`, or a position above `batch_last`.
pub(super) fn survey(file: Arc<dyn DiskFile>, from: u64, batch: u64, batch_last: Option<Seq>) -> io::Result<Survey> {
    let mut window = Window::new(file, from, u64::MAX);
    let mut survey = Survey { garbage_end: from, later: None };
    loop {
        let nul = window.bytes().iter().take_while(|byte| **byte == 0).count();
        window.advance(nul);
        if window.bytes().is_empty() {
            if !window.grow()? {
                return Ok(survey);
            }
            continue;
        }
        // A line may have lost its end; whatever is buffered then is as much as a line could have.
        let piece = match window.line_end(0, JOURNAL_BATCH_BYTES_MAX)? {
            LineEnd::At(end) => end,
            LineEnd::Missing | LineEnd::TooLong => window.bytes().len(),
        };
        let (offset, bytes) = (window.offset(), &window.bytes()[..piece]);
        if survey.later.is_none() {
            survey.later = later_line(bytes, batch, batch_last).map(|(at, seq)| (offset + at as u64, seq));
        }
        let last = bytes.iter().rposition(|byte| *byte != 0).expect("the first byte of the piece is not NUL");
        survey.garbage_end = offset + last as u64 + 1;
        window.advance(piece);
    }
}

/// A line of a later batch in `bytes`, which end with a line feed. It may stand behind other bytes: the line feed
/// before it can be what was damaged.
fn later_line(bytes: &[u8], batch: u64, batch_last: Option<Seq>) -> Option<(usize, Seq)> {
    const OPENING: &[u8] = b"{\"seq\":";
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(OPENING.len()).position(|window| window == OPENING) {
        at += found;
        let candidate = &bytes[at..];
        // An object inside a body can look like the start of a line; only a line has nothing left over behind its
        // body.
        if let Ok(line) = Line::parse(candidate)
            && line.record(candidate).is_ok()
        {
            let later_number = line.batch.is_some_and(|(number, _)| number > batch);
            let later_seq = batch_last.is_some_and(|last| line.seq > last);
            if later_number || later_seq {
                return Some((at, line.seq));
            }
        }
        at += OPENING.len();
    }
    None
}

/// Whether a file holds nothing but NUL bytes, or nothing.
pub(super) fn is_blank(file: &dyn DiskFile) -> io::Result<bool> {
    let mut buffer = vec![0; JOURNAL_READ_BYTES];
    let mut offset = 0;
    loop {
        let count = file.read_at(&mut buffer, offset)?;
        if buffer[..count].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        if count < buffer.len() {
            return Ok(true);
        }
        offset += count as u64;
    }
}

/// The lines of `bytes`, which begin at a line, as parsed envelopes with their ranges; ends at the first byte
/// that is no whole line.
pub(super) fn lines_of(bytes: &[u8]) -> impl Iterator<Item = (Result<Line, String>, Range<usize>)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let length = line_length(&bytes[at..])?;
        let range = at..at + length;
        at += length;
        Some((Line::parse(&bytes[range.clone()]).map_err(|cause| cause.to_string()), range))
    })
}
