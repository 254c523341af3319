//! Server-sent events from bytes.
//! Owns: the framing rules, independent of how the bytes were cut on the way.
//! Never: interprets a frame's data, or dispatches a frame whose closing empty line has not come.

use std::fmt;

use crate::limits::SSE_STRAY_BYTES_MAX;

/// Why a stream is not a valid event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SseError {
    /// One frame is longer than allowed.
    FrameTooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// A line is not UTF-8.
    NotUtf8,
}

impl fmt::Display for SseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FrameTooLarge { limit_bytes } => {
                write!(f, "one event is over {limit_bytes} bytes; next: check that the URL names an event stream")
            }
            Self::NotUtf8 => {
                f.write_str("the event stream is not UTF-8; next: check that the URL names an event stream")
            }
        }
    }
}

impl std::error::Error for SseError {}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SseFrame {
    /// The `event:` field.
    pub event: Option<String>,
    /// The `id:` field of this frame.
    pub id: Option<String>,
    /// The `data:` lines, joined by line feeds.
    pub data: String,
}

/// An incremental parser: feed it bytes as they come, take frames out.
#[derive(Debug)]
pub struct SseParser {
    bytes: Vec<u8>,
    /// Start of the first line not yet taken out of `bytes`.
    line_start: usize,
    /// Bytes before this position hold no line end.
    scanned: usize,
    /// The last line ended with CR: an LF that follows belongs to it.
    after_cr: bool,
    at_start: bool,
    frame: SseFrame,
    has_data: bool,
    frame_bytes_max: usize,
    /// See [`SseParser::last_id`].
    last_id: Option<String>,
    /// See [`SseParser::retry_ms`].
    retry_ms: Option<u64>,
    /// Lines that are no fields, for [`SseParser::stray`].
    stray: Vec<u8>,
}

impl SseParser {
    /// A parser that refuses frames over `frame_bytes_max` bytes.
    pub fn new(frame_bytes_max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            line_start: 0,
            scanned: 0,
            after_cr: false,
            at_start: true,
            frame: SseFrame::default(),
            has_data: false,
            frame_bytes_max,
            last_id: None,
            retry_ms: None,
            stray: Vec::new(),
        }
    }

    /// What came outside of any field since the start, line by line, and the last line if it was not closed: some
    /// servers report a failure as plain JSON in the middle of an event stream. At most
    /// [`SSE_STRAY_BYTES_MAX`] bytes; meant for the end of the stream.
    pub fn stray(&mut self) -> &[u8] {
        let rest = self.line_start.min(self.bytes.len())..self.bytes.len();
        if self.stray.len() + rest.len() <= SSE_STRAY_BYTES_MAX && is_stray(&self.bytes[rest.clone()]) {
            self.stray.extend_from_slice(&self.bytes[rest]);
            self.line_start = self.bytes.len();
            self.scanned = self.bytes.len();
        }
        &self.stray
    }

    /// The newest `id:` so far, of whichever frame: where the stream can be taken up again.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// The newest `retry:` so far, in milliseconds.
    pub fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    /// Adds bytes. Call [`SseParser::next_frame`] until it returns `None` before adding more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.line_start);
        self.scanned -= self.line_start;
        self.line_start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next complete frame, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// A frame is too long or not UTF-8; the stream cannot be read any further.
    pub fn next_frame(&mut self) -> Result<Option<SseFrame>, SseError> {
        loop {
            if self.after_cr && self.line_start < self.bytes.len() {
                self.after_cr = false;
                if self.bytes[self.line_start] == b'\n' {
                    self.line_start += 1;
                    self.scanned = self.scanned.max(self.line_start);
                }
            }
            let Some(offset) = find_line_end(&self.bytes[self.scanned..]) else {
                self.scanned = self.bytes.len();
                self.check_length(self.bytes.len() - self.line_start)?;
                return Ok(None);
            };
            let end = self.scanned + offset;
            let line = self.line_start..end;
            self.after_cr = self.bytes[end] == b'\r';
            self.line_start = end + 1;
            self.scanned = end + 1;
            self.check_length(line.len())?;
            if let Some(frame) = self.take_line(line)? {
                return Ok(Some(frame));
            }
        }
    }

    fn check_length(&self, line_bytes: usize) -> Result<(), SseError> {
        if self.frame.data.len() + line_bytes > self.frame_bytes_max {
            return Err(SseError::FrameTooLarge { limit_bytes: self.frame_bytes_max });
        }
        Ok(())
    }

    fn take_line(&mut self, line: std::ops::Range<usize>) -> Result<Option<SseFrame>, SseError> {
        let mut line = std::str::from_utf8(&self.bytes[line]).map_err(|_| SseError::NotUtf8)?;
        if std::mem::take(&mut self.at_start) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            let frame = std::mem::take(&mut self.frame);
            return Ok(std::mem::take(&mut self.has_data).then_some(frame));
        }
        // By far the most frequent line, and not worth a search for its colon.
        let (field, value) = match line.strip_prefix("data:") {
            Some(value) => ("data", value),
            None => line.split_once(':').unwrap_or((line, "")),
        };
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if self.has_data {
                    self.frame.data.push('\n');
                }
                self.frame.data.push_str(value);
                self.has_data = true;
            }
            "event" => self.frame.event = Some(value.to_string()),
            "id" if !value.contains('\0') => {
                self.frame.id = Some(value.to_string());
                self.last_id = Some(value.to_string());
            }
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry_ms = value.parse().ok();
            }
            // Comments (an empty field name) and unknown fields carry nothing for us.
            _ => {
                if is_stray(line.as_bytes()) && self.stray.len() + line.len() < SSE_STRAY_BYTES_MAX {
                    self.stray.extend_from_slice(line.as_bytes());
                    self.stray.push(b'\n');
                }
            }
        }
        Ok(None)
    }
}

/// Whether a line is a piece of JSON rather than a field.
fn is_stray(line: &[u8]) -> bool {
    line.trim_ascii_start().first().is_some_and(|byte| b"{}[]\"".contains(byte))
}

/// Position of the first CR or LF. Eight bytes at a time: this loop sees every byte that any provider sends.
fn find_line_end(bytes: &[u8]) -> Option<usize> {
    const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    let has_zero = |word: u64| word.wrapping_sub(LOW) & !word & HIGH != 0;
    let (words, rest) = bytes.as_chunks::<8>();
    let is_line_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
    for (index, word) in words.iter().enumerate() {
        let value = u64::from_ne_bytes(*word);
        if has_zero(value ^ (LOW * b'\n' as u64)) || has_zero(value ^ (LOW * b'\r' as u64)) {
            return word.iter().position(is_line_end).map(|at| index * 8 + at);
        }
    }
    rest.iter().position(is_line_end).map(|at| words.len() * 8 + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(event: Option<&str>, id: Option<&str>, data: &str) -> SseFrame {
        SseFrame { event: event.map(Into::into), id: id.map(Into::into), data: data.to_string() }
    }

    fn parse_in_pieces(bytes: &[u8], piece: usize) -> Result<Vec<SseFrame>, SseError> {
        let mut parser = SseParser::new(1_000);
        let mut frames = Vec::new();
        for piece in bytes.chunks(piece) {
            parser.push(piece);
            while let Some(frame) = parser.next_frame()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn frames_do_not_depend_on_where_the_bytes_were_cut_nor_on_the_kind_of_line_end() {
        let text = "\u{feff}: hello\n\nevent: a\nid: 7\ndata: one\ndata:two\ndata\n\n\
                    data:  x\u{2028}\u{85}é\u{1f600}:y\nretry: 5\nunknown: z\n\n\
                    event: no data\n\nid: 8\nevent:\ndata: last\n\ndata: never closed\n";
        let expected = vec![
            frame(Some("a"), Some("7"), "one\ntwo\n"),
            frame(None, None, " x\u{2028}\u{85}é\u{1f600}:y"),
            frame(Some(""), Some("8"), "last"),
        ];
        for line_end in ["\n", "\r\n", "\r"] {
            let bytes = text.replace('\n', line_end);
            for piece in 1..=bytes.len() {
                let frames = parse_in_pieces(bytes.as_bytes(), piece);
                assert_eq!(frames.as_ref(), Ok(&expected), "{line_end:?}, pieces of {piece}");
            }
        }
    }

    #[test]
    fn line_ends_are_found_wherever_they_stand() {
        for length in 0..40 {
            assert_eq!(find_line_end(&vec![b'x'; length]), None);
            for at in 0..length {
                for end in [b'\n', b'\r'] {
                    // Neighbours of the two values, and bytes with the high bit, must not be taken for them.
                    let mut bytes = vec![b'\x0b'; length];
                    bytes[..at].fill(0x8a);
                    bytes[at] = end;
                    assert_eq!(find_line_end(&bytes), Some(at), "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn plain_json_in_a_stream_is_kept_apart_whole_or_cut_into_lines() {
        let text = "data: a\n\n{\"error\": {\n  \"code\": 429\n}}\nretry: 3\nfoo: bar\n: {comment}\n{\"last\":1}";
        for piece in 1..=text.len() {
            let mut parser = SseParser::new(1_000);
            for piece in text.as_bytes().chunks(piece) {
                parser.push(piece);
                while parser.next_frame().expect("valid").is_some() {}
            }
            let stray = String::from_utf8_lossy(parser.stray()).into_owned();
            assert_eq!(stray, "{\"error\": {\n  \"code\": 429\n}}\n{\"last\":1}");
        }
        let mut parser = SseParser::new(1_000);
        parser.push("{\"x\":1}\n".repeat(1_000_000).as_bytes());
        assert!(parser.next_frame().expect("valid").is_none());
        assert!(parser.stray().len() <= SSE_STRAY_BYTES_MAX);
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_before_it_is_whole() {
        let too_large = Err(SseError::FrameTooLarge { limit_bytes: 1_000 });
        assert_eq!(parse_in_pieces(&[b'x'; 1_001], 7), too_large);
        assert_eq!(parse_in_pieces("data: 0123456789\n".repeat(100).as_bytes(), 7), too_large);
        let fits = format!("data: {}\n\n", "x".repeat(900)).repeat(3);
        assert_eq!(parse_in_pieces(fits.as_bytes(), 64).expect("each fits").len(), 3);
    }

    #[test]
    fn bytes_that_are_not_utf8_end_the_stream() {
        assert_eq!(parse_in_pieces(b"data: \xff\n\n", 3), Err(SseError::NotUtf8));
    }
}
