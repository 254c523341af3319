//! Encryption in chunks: a file that can be written as a stream, read at any place, and altered nowhere unseen.
//! Owns: the layout of a sealed file and the associated data of its chunks.
//! Never: gives out a byte of a chunk that did not verify.
//!
//! A sealed file is its plaintext in chunks of [`BACKUP_CHUNK_BYTES`], each followed by its tag; the last one may be shorter, and
//! is there also when it is empty. Each file has a key of its own, so a chunk's number is nonce enough. The associated data
//! names backup, file, number, and whether it is the last: a chunk that is moved, repeated, left out or cut off does not verify.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use ring::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};

use super::archive::Bytes;
use super::key::BackupKey;
use crate::limits::BACKUP_CHUNK_BYTES;

const LABEL: &[u8] = b"kheish-backup-v1 chunk";
const TAG_BYTES: usize = 16;
const SEALED_CHUNK_BYTES: u64 = (BACKUP_CHUNK_BYTES + TAG_BYTES) as u64;

/// What every chunk of a file is bound to.
pub(super) struct Binding {
    key: LessSafeKey,
    id: String,
    name: String,
}

impl Binding {
    pub fn new(key: &BackupKey, salt: &[u8], id: &str, name: &str) -> Self {
        Self { key: key.of_file(salt, id, name), id: id.to_string(), name: name.to_string() }
    }

    fn nonce(index: u64) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[NONCE_LEN - 8..].copy_from_slice(&index.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    fn associated(&self, index: u64, is_last: bool) -> Aad<Vec<u8>> {
        let parts: [&[u8]; 7] =
            [LABEL, &[0], self.id.as_bytes(), &[0], self.name.as_bytes(), &index.to_be_bytes(), &[u8::from(is_last)]];
        Aad::from(parts.concat())
    }
}

/// Seals a stream.
pub(super) struct Sealer<W> {
    binding: Binding,
    to: W,
    chunk: Vec<u8>,
    index: u64,
}

impl<W: Write> Sealer<W> {
    pub fn new(binding: Binding, to: W) -> Self {
        Self { binding, to, chunk: Vec::with_capacity(BACKUP_CHUNK_BYTES + TAG_BYTES), index: 0 }
    }

    fn emit(&mut self, is_last: bool) -> io::Result<()> {
        let (nonce, associated) = (Binding::nonce(self.index), self.binding.associated(self.index, is_last));
        let sealed = self.binding.key.seal_in_place_append_tag(nonce, associated, &mut self.chunk);
        sealed.map_err(|_| io::Error::other("the chunk is longer than the cipher takes"))?;
        self.to.write_all(&self.chunk)?;
        self.chunk.clear();
        self.index += 1;
        Ok(())
    }

    /// Writes the last chunk.
    pub fn finish(mut self) -> io::Result<W> {
        self.emit(true)?;
        Ok(self.to)
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk waits for the next byte: whether it is the last one is not known before.
        if self.chunk.len() == BACKUP_CHUNK_BYTES && !bytes.is_empty() {
            self.emit(false)?;
        }
        let count = bytes.len().min(BACKUP_CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A sealed file, read as its plaintext.
pub(super) struct Sealed {
    binding: Binding,
    file: File,
    chunks: u64,
    bytes: u64,
    sealed_bytes: u64,
    /// The chunk that was opened last.
    recent: Mutex<Option<(u64, Vec<u8>)>>,
}

impl Sealed {
    /// Looks at the file's length; its chunks are opened when they are read.
    pub fn open(binding: Binding, file: File) -> io::Result<Self> {
        let sealed_bytes = file.metadata()?.len();
        let chunks = sealed_bytes.div_ceil(SEALED_CHUNK_BYTES);
        let rest = sealed_bytes % SEALED_CHUNK_BYTES;
        if chunks == 0 || (rest != 0 && rest < TAG_BYTES as u64) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut inside a chunk"));
        }
        let bytes = sealed_bytes - chunks * TAG_BYTES as u64;
        Ok(Self { binding, file, chunks, bytes, sealed_bytes, recent: Mutex::default() })
    }

    fn chunk(&self, index: u64) -> io::Result<Vec<u8>> {
        let from = index * SEALED_CHUNK_BYTES;
        let length = SEALED_CHUNK_BYTES.min(self.sealed_bytes - from);
        let mut chunk = vec![0; length as usize];
        self.file.read_exact_at(&mut chunk, from)?;
        let associated = self.binding.associated(index, index + 1 == self.chunks);
        let opened = self.binding.key.open_in_place(Binding::nonce(index), associated, &mut chunk);
        let length = opened.map(|plain| plain.len()).map_err(|_| {
            let cause = format!("chunk {index} at byte {from} does not verify: it was altered, moved or cut");
            io::Error::new(io::ErrorKind::InvalidData, cause)
        })?;
        chunk.truncate(length);
        Ok(chunk)
    }
}

impl Bytes for Sealed {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        while filled < buffer.len() {
            let at = offset + filled as u64;
            // An empty file has one chunk, which is to verify as well.
            if at >= self.bytes && !(self.bytes == 0 && recent.is_none()) {
                break;
            }
            let index = at / BACKUP_CHUNK_BYTES as u64;
            if recent.as_ref().is_none_or(|(held, _)| *held != index) {
                *recent = Some((index, self.chunk(index)?));
            }
            let Some((_, chunk)) = recent.as_ref() else { break };
            let from = (at % BACKUP_CHUNK_BYTES as u64) as usize;
            let count = chunk.len().saturating_sub(from).min(buffer.len() - filled);
            if count == 0 {
                break;
            }
            buffer[filled..filled + count].copy_from_slice(&chunk[from..from + count]);
            filled += count;
        }
        Ok(filled)
    }
}

/// The cipher's name as it stands in `backup.json`.
pub(super) const CIPHER: &str = "aes-256-gcm-chunks-v1";

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::state_root::scratch::Scratch;

    fn key(scratch: &Scratch) -> BackupKey {
        use std::os::unix::fs::PermissionsExt;
        let path = scratch.path().join("key");
        fs::write(&path, (60..92).collect::<Vec<u8>>()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        BackupKey::from_file(&path).unwrap()
    }

    fn seal(scratch: &Scratch, name: &str, plain: &[u8]) -> Vec<u8> {
        let mut sealer = Sealer::new(Binding::new(&key(scratch), b"salt", "id", name), Vec::new());
        sealer.write_all(plain).unwrap();
        sealer.finish().unwrap()
    }

    fn read(scratch: &Scratch, name: &str, sealed: &[u8]) -> io::Result<Vec<u8>> {
        let path = scratch.path().join("sealed");
        fs::write(&path, sealed).unwrap();
        let file = Sealed::open(Binding::new(&key(scratch), b"salt", "id", name), File::open(&path).unwrap())?;
        let mut plain = vec![0; file.len() as usize + 10];
        let count = file.read_at(&mut plain, 0)?;
        plain.truncate(count);
        Ok(plain)
    }

    #[test]
    fn what_was_sealed_is_read_back_at_every_length_around_a_chunk() {
        let scratch = Scratch::new("backup-seal");
        for length in [0, 1, BACKUP_CHUNK_BYTES - 1, BACKUP_CHUNK_BYTES, BACKUP_CHUNK_BYTES + 1, 3 * BACKUP_CHUNK_BYTES]
        {
            let plain: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            assert_eq!(read(&scratch, "a", &seal(&scratch, "a", &plain)).unwrap(), plain, "{length}");
        }
    }

    #[test]
    fn no_chunk_can_be_altered_moved_repeated_left_out_or_cut_off() {
        let scratch = Scratch::new("backup-seal");
        let plain: Vec<u8> = (0..3 * BACKUP_CHUNK_BYTES + 100).map(|at| (at % 253) as u8).collect();
        let good = seal(&scratch, "a", &plain);
        let size = SEALED_CHUNK_BYTES as usize;
        let chunk = |index: usize| good[index * size..good.len().min((index + 1) * size)].to_vec();
        let mut broken: Vec<(&str, Vec<u8>)> = vec![
            ("cut at a chunk", good[..2 * size].to_vec()),
            ("cut to a whole number of chunks", good[..3 * size].to_vec()),
            ("cut inside a chunk", good[..good.len() - 1].to_vec()),
            ("cut inside a tag", good[..3 * size + 5].to_vec()),
            ("empty", Vec::new()),
            ("swapped", [chunk(1), chunk(0), chunk(2), chunk(3)].concat()),
            ("repeated", [chunk(0), chunk(0), chunk(1), chunk(2), chunk(3)].concat()),
            ("left out", [chunk(0), chunk(2), chunk(3)].concat()),
            ("appended", [good.clone(), chunk(3)].concat()),
            ("of another file", seal(&scratch, "b", &plain)),
        ];
        for index in 0..4 {
            for at in [index * size, good.len().min((index + 1) * size) - 1] {
                let mut flipped = good.clone();
                flipped[at] ^= 1;
                broken.push(("flipped", flipped));
            }
        }
        for (how, bytes) in broken {
            let refused = read(&scratch, "a", &bytes).expect_err(how).to_string();
            assert!(refused.contains("chunk"), "{how}: {refused}");
        }
        assert_eq!(read(&scratch, "a", &good).unwrap(), plain);
    }
}
