//! Messages between the daemon and a worker: four bytes of length, little endian, then that many bytes.
//! Owns: the framing and the shapes of the messages.
//! Never: allocates for a length beyond the bound, whatever the other side writes.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::features::FeatureReport;

/// The worker's first message.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Why nothing will be run; absent when all is well.
    pub refused: Option<String>,
    /// The walls, and what became of each.
    pub features: Vec<FeatureReport>,
}

/// One call, daemon to worker.
#[derive(Debug, Serialize, Deserialize)]
pub struct CallFrame<'a> {
    /// Name in the table of tools.
    pub tool: &'a str,
    /// The arguments as the model wrote them.
    #[serde(borrow)]
    pub input: &'a RawValue,
    /// The tool's own deadline, milliseconds from receipt.
    pub deadline_ms: u64,
}

/// The answer to a call. A raw frame of `overflow_bytes` follows when that is there.
#[derive(Debug, Serialize, Deserialize)]
pub struct AnswerFrame {
    /// What the model gets.
    pub content: String,
    /// The tool failed.
    pub is_error: bool,
    /// `content` is not all there was.
    pub truncated: bool,
    /// Length of the whole text, which follows.
    pub overflow_bytes: Option<u32>,
}

/// Writes one frame.
///
/// # Errors
/// `InvalidInput` when `bytes` exceeds `bytes_max`; else what the channel says.
pub fn write(channel: &mut impl Write, bytes: &[u8], bytes_max: usize) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= bytes_max);
    let length = length.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("a message of {} bytes, at most {bytes_max}", bytes.len()))
    })?;
    channel.write_all(&length.to_le_bytes())?;
    channel.write_all(bytes)?;
    channel.flush()
}

/// Reads one frame.
///
/// # Errors
/// `InvalidData` for a length beyond `bytes_max`, `UnexpectedEof` when the other side is gone.
pub fn read(channel: &mut impl Read, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    channel.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a message of {length} bytes, at most {bytes_max}"),
        ));
    }
    // Grown as the bytes come: a length alone costs nothing.
    let mut bytes = Vec::new();
    channel.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_as_it_was_written() {
        let mut wire = Vec::new();
        write(&mut wire, b"one", 8).expect("fits");
        write(&mut wire, b"", 8).expect("fits");
        let mut reader = wire.as_slice();
        assert_eq!(read(&mut reader, 8).expect("whole"), b"one");
        assert_eq!(read(&mut reader, 8).expect("whole"), b"");
        assert_eq!(read(&mut reader, 8).expect_err("end").kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_anything_is_read() {
        let wire = [0xff, 0xff, 0xff, 0xff, b'x'];
        assert_eq!(read(&mut wire.as_slice(), 1024).expect_err("too long").kind(), io::ErrorKind::InvalidData);
        assert_eq!(write(&mut Vec::new(), &[0; 9], 8).expect_err("too long").kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_torn_frame_is_no_frame() {
        let mut wire = Vec::new();
        write(&mut wire, b"whole", 8).expect("fits");
        for end in 0..wire.len() {
            let error = read(&mut &wire[..end], 8).expect_err("torn");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{end}");
        }
    }
}
