//! Request bodies: by length or chunked.
//! Owns: the chunk grammar, read strictly, and its limits.
//! May touch: memory only.
//! Never: allocates for what was announced; memory grows with what has arrived.

use super::codes;
use super::head::{BodyFraming, Refusal};
use crate::limits::{HTTP_CHUNK_EXTENSION_BYTES_MAX, HTTP_CHUNK_SIZE_DIGITS_MAX, HTTP_TRAILER_BYTES_MAX};

const fn malformed(detail: &'static str) -> Refusal {
    Refusal::new(&codes::MALFORMED_REQUEST, detail)
}

const TOO_LARGE: Refusal = Refusal::new(&codes::PAYLOAD_TOO_LARGE, "the body is larger than this route accepts");

/// What one call of [`Decoder::feed`] did.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fed {
    /// Bytes of the input that belong to this body; all of it unless the body is complete.
    pub consumed: usize,
    /// The body has ended.
    pub done: bool,
}

/// Takes a body out of the byte stream.
#[derive(Debug)]
pub(super) enum Decoder {
    Length { remaining: u64 },
    Chunked(Chunked),
}

impl Decoder {
    pub(super) fn new(framing: BodyFraming) -> Self {
        match framing {
            BodyFraming::None => Self::Length { remaining: 0 },
            BodyFraming::Length(remaining) => Self::Length { remaining },
            BodyFraming::Chunked => Self::Chunked(Chunked::new()),
        }
    }

    /// Most bytes that can be read from the socket without reaching into the next request, if known.
    pub(super) fn remaining(&self) -> Option<u64> {
        match self {
            Self::Length { remaining } => Some(*remaining),
            Self::Chunked(_) => None,
        }
    }

    /// Appends the body bytes of `input` to `body`, which never grows beyond `bytes_max`.
    pub(super) fn feed(&mut self, input: &[u8], body: &mut Vec<u8>, bytes_max: usize) -> Result<Fed, Refusal> {
        match self {
            Self::Length { remaining } => {
                let consumed = input.len().min(usize::try_from(*remaining).unwrap_or(usize::MAX));
                if body.len() + consumed > bytes_max {
                    return Err(TOO_LARGE);
                }
                body.extend_from_slice(&input[..consumed]);
                *remaining -= consumed as u64;
                Ok(Fed { consumed, done: *remaining == 0 })
            }
            Self::Chunked(chunked) => chunked.feed(input, body, bytes_max),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size { digits: usize },
    Extension,
    SizeLineFeed,
    Data,
    DataCarriageReturn,
    DataLineFeed,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    EndLineFeed,
}

/// A chunked body, byte by byte outside of chunk data.
#[derive(Debug)]
pub(super) struct Chunked {
    state: State,
    chunk_remaining: u64,
    extension_bytes: usize,
    trailer_bytes: usize,
}

impl Chunked {
    fn new() -> Self {
        Self { state: State::Size { digits: 0 }, chunk_remaining: 0, extension_bytes: 0, trailer_bytes: 0 }
    }

    fn feed(&mut self, input: &[u8], body: &mut Vec<u8>, bytes_max: usize) -> Result<Fed, Refusal> {
        let mut index = 0;
        while index < input.len() {
            if self.state == State::Data {
                let taken = (input.len() - index).min(usize::try_from(self.chunk_remaining).unwrap_or(usize::MAX));
                body.extend_from_slice(&input[index..index + taken]);
                self.chunk_remaining -= taken as u64;
                index += taken;
                if self.chunk_remaining == 0 {
                    self.state = State::DataCarriageReturn;
                }
                continue;
            }
            let byte = input[index];
            index += 1;
            if self.state == State::EndLineFeed {
                return match byte {
                    b'\n' => Ok(Fed { consumed: index, done: true }),
                    _ => Err(malformed("a carriage return without a line feed after the chunks")),
                };
            }
            self.state = self.step(byte, bytes_max.saturating_sub(body.len()))?;
        }
        Ok(Fed { consumed: input.len(), done: false })
    }

    fn step(&mut self, byte: u8, room: usize) -> Result<State, Refusal> {
        match (self.state, byte) {
            (State::Size { digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == HTTP_CHUNK_SIZE_DIGITS_MAX {
                    return Err(malformed("a chunk size has too many digits"));
                }
                let digit = (byte as char).to_digit(16).expect("a hexadecimal digit was matched");
                self.chunk_remaining = self.chunk_remaining * 16 + u64::from(digit);
                Ok(State::Size { digits: digits + 1 })
            }
            (State::Size { digits: 0 }, _) => Err(malformed("a chunk has no size")),
            (State::Size { .. }, b'\r') => Ok(State::SizeLineFeed),
            (State::Size { .. }, b';') => Ok(State::Extension),
            (State::Size { .. }, _) => Err(malformed("a chunk size is not a hexadecimal number")),
            (State::Extension, b'\r') => Ok(State::SizeLineFeed),
            (State::Extension, _) => {
                self.extension_bytes += 1;
                if self.extension_bytes > HTTP_CHUNK_EXTENSION_BYTES_MAX {
                    return Err(malformed("the chunk extensions are too long"));
                }
                text_byte(byte).map(|()| State::Extension)
            }
            (State::SizeLineFeed, b'\n') if self.chunk_remaining == 0 => Ok(State::TrailerStart),
            (State::SizeLineFeed, b'\n') if self.chunk_remaining > room as u64 => Err(TOO_LARGE),
            (State::SizeLineFeed, b'\n') => Ok(State::Data),
            (State::DataCarriageReturn, b'\r') => Ok(State::DataLineFeed),
            (State::DataLineFeed, b'\n') => Ok(State::Size { digits: 0 }),
            (State::SizeLineFeed | State::DataCarriageReturn | State::DataLineFeed, _) => {
                Err(malformed("a chunk does not end in a line end"))
            }
            (State::TrailerStart, b'\r') => Ok(State::EndLineFeed),
            (State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLineFeed, _) => {
                self.trailer_bytes += 1;
                if self.trailer_bytes > HTTP_TRAILER_BYTES_MAX {
                    return Err(malformed("the trailer is too long"));
                }
                self.trailer_step(byte)
            }
            (State::Data | State::EndLineFeed, _) => unreachable!("handled where bytes are taken"),
        }
    }

    fn trailer_step(&self, byte: u8) -> Result<State, Refusal> {
        match (self.state, byte) {
            (State::TrailerStart, _) if is_token(byte) => Ok(State::TrailerName),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerName, _) if is_token(byte) => Ok(State::TrailerName),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLineFeed),
            (State::TrailerValue, _) => text_byte(byte).map(|()| State::TrailerValue),
            (State::TrailerLineFeed, b'\n') => Ok(State::TrailerStart),
            _ => Err(malformed("a trailer line is not a header line")),
        }
    }
}

fn text_byte(byte: u8) -> Result<(), Refusal> {
    if (byte < 0x20 && byte != b'\t') || byte == 0x7f {
        return Err(malformed("a control character among the chunks"));
    }
    Ok(())
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 16;

    /// Feeds `input` in pieces of `step` bytes; returns the body and how many bytes it took.
    fn decode(framing: BodyFraming, input: &[u8], step: usize) -> Result<Option<(Vec<u8>, usize)>, u16> {
        let (mut decoder, mut body, mut taken) = (Decoder::new(framing), Vec::new(), 0);
        for piece in input.chunks(step) {
            let fed = decoder.feed(piece, &mut body, MAX).map_err(|refusal| refusal.code.status)?;
            taken += fed.consumed;
            if fed.done {
                return Ok(Some((body, taken)));
            }
            assert_eq!(fed.consumed, piece.len());
        }
        Ok(None)
    }

    #[test]
    fn a_chunked_body_is_read_alike_however_it_is_split() {
        let stream = b"5;a=\"b\"\r\nhello\r\n00A\r\n0123456789\r\n0\r\nX-T: 1\r\ny:\r\n\r\nGET";
        let end = stream.len() - 3;
        for step in 1..=stream.len() {
            let got = decode(BodyFraming::Chunked, stream, step);
            assert_eq!(got, Ok(Some((b"hello0123456789".to_vec(), end))), "in pieces of {step}");
        }
    }

    #[test]
    fn a_chunked_body_that_breaks_the_grammar_is_refused() {
        let long_extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(HTTP_CHUNK_EXTENSION_BYTES_MAX + 1));
        let long_trailer = format!("0\r\nx:{}\r\n\r\n", "x".repeat(HTTP_TRAILER_BYTES_MAX));
        for (stream, status) in [
            ("\r\n", 400),
            (";x\r\n", 400),
            ("g\r\n", 400),
            ("+1\r\n", 400),
            ("0x1\r\n", 400),
            (" 1\r\n", 400),
            ("1 \r\n", 400),
            ("1\n", 400),
            ("1\r\r\n", 400),
            ("000000001\r\n", 400),
            ("1\r\nab\r\n", 400),
            ("1\r\na\n", 400),
            ("1\r\na\rb", 400),
            ("1;x\0\r\n", 400),
            ("1;x\ny\r\n", 400),
            ("0\r\n\n", 400),
            ("0\r\n\rx", 400),
            ("0\r\nx\r\n", 400),
            ("0\r\n: y\r\n", 400),
            ("0\r\nx : y\r\n", 400),
            ("0\r\n x: y\r\n", 400),
            ("0\r\nx: \0\r\n", 400),
            ("0\r\nx: y\n", 400),
            ("11\r\n", 413),
            ("ffffffff\r\n", 413),
            ("f\r\n0123456789abcde\r\n2\r\n", 413),
            (long_extension.as_str(), 400),
            (long_trailer.as_str(), 400),
        ] {
            for step in [1, 2, stream.len()] {
                assert_eq!(decode(BodyFraming::Chunked, stream.as_bytes(), step), Err(status), "{stream:?}");
            }
        }
    }

    #[test]
    fn a_body_of_known_length_takes_exactly_its_bytes() {
        assert_eq!(decode(BodyFraming::Length(3), b"abcGET", 2), Ok(Some((b"abc".to_vec(), 3))));
        assert_eq!(decode(BodyFraming::Length(7), b"abc", 2), Ok(None));
        assert_eq!(decode(BodyFraming::Length(u64::MAX), &[0; 17], 17), Err(413));
    }
}
