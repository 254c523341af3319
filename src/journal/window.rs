//! Sequential reading of a file, line by line, in bounded memory.
//! Owns: the buffer over the file.
//! Never: holds more than one line or batch and one read ahead of it.

use std::io::{self, BufRead};
use std::sync::Arc;

use super::disk::DiskFile;
use crate::limits::JOURNAL_READ_BYTES;

/// A sliding view of a file.
pub(super) struct Window {
    file: Arc<dyn DiskFile>,
    buffer: Vec<u8>,
    /// Where the view starts and ends in `buffer`.
    start: usize,
    end: usize,
    /// File offset of the view's first byte.
    offset: u64,
    /// No bytes exist behind the buffered ones, or none are to be read.
    ended: bool,
    /// File offset to stop at.
    limit: u64,
}

/// Where a line ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineEnd {
    /// Index behind the line feed.
    At(usize),
    /// The bytes end first.
    Missing,
    /// No line feed within the bound.
    TooLong,
}

impl Window {
    /// A view from `offset`; bytes at or behind `limit` do not exist for it.
    pub fn new(file: Arc<dyn DiskFile>, offset: u64, limit: u64) -> Self {
        Self { file, buffer: Vec::new(), start: 0, end: 0, offset, ended: false, limit }
    }

    /// File offset of the view's first byte.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What is in view.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Drops the first `count` bytes of the view.
    pub fn advance(&mut self, count: usize) {
        self.start += count;
        self.offset += count as u64;
    }

    /// The byte at `index`, read if need be; none at the end.
    pub fn byte(&mut self, index: usize) -> io::Result<Option<u8>> {
        while self.bytes().len() <= index {
            if !self.grow()? {
                return Ok(None);
            }
        }
        Ok(Some(self.bytes()[index]))
    }

    /// Finds the end of the line that begins at `from`; a line has at most `bytes_max` bytes.
    pub fn line_end(&mut self, from: usize, bytes_max: usize) -> io::Result<LineEnd> {
        let mut searched = from;
        loop {
            let view = self.bytes();
            if let Some(length) = line_length(&view[searched.min(view.len())..]) {
                let end = searched + length;
                return Ok(if end - from <= bytes_max { LineEnd::At(end) } else { LineEnd::TooLong });
            }
            searched = view.len().max(from);
            if searched - from > bytes_max {
                return Ok(LineEnd::TooLong);
            }
            if !self.grow()? {
                return Ok(LineEnd::Missing);
            }
        }
    }

    /// Reads on; false at the end.
    pub fn grow(&mut self) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        let at = self.offset + (self.end - self.start) as u64;
        let wanted = (self.limit.saturating_sub(at)).min(JOURNAL_READ_BYTES as u64) as usize;
        if self.end + wanted > self.buffer.len() {
            self.make_room(wanted);
        }
        let count = self.file.read_at(&mut self.buffer[self.end..self.end + wanted], at)?;
        self.end += count;
        self.ended = count < wanted || wanted == 0;
        Ok(count > 0)
    }

    /// Moves the view to the front of a buffer that has room for `wanted` more bytes.
    fn make_room(&mut self, wanted: usize) {
        let length = self.end - self.start;
        if length + wanted > self.buffer.len() {
            let mut larger = vec![0; (length + wanted).max(2 * length)];
            larger[..length].copy_from_slice(self.bytes());
            self.buffer = larger;
        } else {
            self.buffer.copy_within(self.start..self.end, 0);
        }
        (self.start, self.end) = (0, length);
    }
}

/// Bytes up to and with the first line feed. std's buffered reading has the fast search that slices lack.
pub(super) fn line_length(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    let length = rest.skip_until(b'\n').expect("a slice cannot fail to be read");
    (length > 0 && bytes[length - 1] == b'\n').then_some(length)
}
