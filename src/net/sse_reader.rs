//! Server-sent events from bytes.
//! Owns: the framing rules, independent of how the bytes were cut on the way.
//! Never: interprets a frame's data, or dispatches a frame whose closing empty line has not come.

use std::fmt;

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
        }
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
            let Some(offset) = self.bytes[self.scanned..].iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
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
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
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
            "id" if !value.contains('\0') => self.frame.id = Some(value.to_string()),
            // Comments (an empty field name), `retry` and unknown fields carry nothing for us.
            _ => {}
        }
        Ok(None)
    }
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
