//! What the reaper and a task's worker say to each other.
//! Owns: the frames on their socket: four bytes of length, little endian, one byte of kind, the content.
//! Never: allocates for a length beyond the bound, whatever the other side writes.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use crate::limits::TASK_FRAME_BYTES_MAX;

/// Kinds of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To the worker: what to run, a [`Start`].
    Start,
    /// To the worker: end it.
    Stop,
    /// From the worker: the command runs; its process id as decimal text.
    Running,
    /// From the worker: output.
    Output,
    /// From the worker: it is over, an [`Ended`].
    Ended,
    /// From the worker: it could not be started; why.
    Refused,
}

impl Kind {
    const ALL: [Self; 6] = [Self::Start, Self::Stop, Self::Running, Self::Output, Self::Ended, Self::Refused];

    fn byte(self) -> u8 {
        match self {
            Self::Start => b's',
            Self::Stop => b'x',
            Self::Running => b'r',
            Self::Output => b'o',
            Self::Ended => b'e',
            Self::Refused => b'n',
        }
    }

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.byte() == byte)
    }
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) id: String,
    pub(super) token: String,
    pub(super) command: String,
    pub(super) workdir: String,
}

/// How it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
    /// Its end had been asked for.
    pub(crate) stopped: bool,
    /// Processes that could not be ended, as the worker numbers them.
    pub(crate) left: Vec<u32>,
}

/// A frame as bytes.
pub(crate) fn frame(kind: Kind, content: &[u8]) -> Vec<u8> {
    debug_assert!(content.len() <= TASK_FRAME_BYTES_MAX);
    let mut bytes = Vec::with_capacity(content.len() + 5);
    bytes.extend_from_slice(&(content.len() as u32).to_le_bytes());
    bytes.push(kind.byte());
    bytes.extend_from_slice(content);
    bytes
}

/// Writes a frame.
pub(crate) fn write(channel: &mut impl Write, kind: Kind, content: &[u8]) -> io::Result<()> {
    channel.write_all(&frame(kind, content))
}

/// Frames out of bytes as they come.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    /// Takes in what is there; `false` at the end of the stream.
    pub(crate) fn read(&mut self, channel: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
        let count = channel.read(buffer)?;
        self.bytes.extend_from_slice(&buffer[..count]);
        Ok(count > 0)
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// Not what a worker writes: an unknown kind, or a length beyond the bound.
    pub(crate) fn next(&mut self) -> io::Result<Option<(Kind, Vec<u8>)>> {
        let Some((head, rest)) = self.bytes.split_at_checked(5) else { return Ok(None) };
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = Kind::of(head[4]).filter(|_| length <= TASK_FRAME_BYTES_MAX);
        let kind = kind.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no frame of a task"))?;
        let Some(content) = rest.get(..length) else { return Ok(None) };
        let content = content.to_vec();
        self.bytes.drain(..5 + length);
        Ok(Some((kind, content)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_the_bytes_arrive() {
        let wire = [frame(Kind::Running, b"7"), frame(Kind::Output, b""), frame(Kind::Ended, b"{}")].concat();
        for step in 1..wire.len() {
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for mut chunk in wire.chunks(step) {
                frames.read(&mut chunk, &mut [0; 64]).unwrap();
                while let Some(frame) = frames.next().unwrap() {
                    found.push(frame);
                }
            }
            let expected = [(Kind::Running, b"7".to_vec()), (Kind::Output, Vec::new()), (Kind::Ended, b"{}".to_vec())];
            assert_eq!(found, expected, "step {step}");
        }
    }

    #[test]
    fn bytes_of_somebody_else_are_no_frame() {
        for wire in [&b"\xff\xff\xff\xffo"[..], b"\x01\x00\x00\x00?a"] {
            let mut frames = Frames::default();
            frames.read(&mut &wire[..], &mut [0; 64]).unwrap();
            assert_eq!(frames.next().unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
