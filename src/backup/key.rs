//! The key of an encrypted backup, and what is derived from it.
//! Owns: the two spellings of a key file, the fingerprint, and the derivation of one key a file.
//! May touch: the key file.
//! Never: writes a key; uses one key for two files.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroizing;

use super::error::BackupError;
use crate::credential::lets_others_in;
use crate::hex::to_hex;
use crate::limits::MASTER_KEY_FILE_BYTES_MAX;
use crate::secret::Secret;
use crate::sys;

const KEY_BYTES: usize = 32;
/// A random key has about 30 different bytes; one with fewer than this was typed, not drawn.
const DISTINCT_BYTES_MIN: usize = 8;
const LABEL: &[u8] = b"kheish-backup-v1";
const FINGERPRINT_BYTES: usize = 8;

/// 32 bytes that live outside of every backup.
#[derive(Debug)]
pub struct BackupKey(Secret);

impl BackupKey {
    /// The key in a file that nobody else may use: 32 raw bytes, or base64 of 32 bytes.
    ///
    /// # Errors
    /// The file is missing, usable by others, or holds no key.
    pub fn from_file(path: &Path) -> Result<Self, BackupError> {
        let refuse = |cause: String| BackupError::KeyFile { path: path.to_path_buf(), cause };
        let unreadable = |cause: std::io::Error| refuse(format!("it cannot be read: {cause}"));
        // Looked at before it is opened: opening a FIFO would wait for a writer.
        let metadata = fs::metadata(path).map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(refuse("it is no plain file".to_string()));
        }
        if lets_others_in(&metadata, sys::effective_user_id()) {
            return Err(refuse(format!("it has mode {:04o}, so others may use it", metadata.mode() & 0o7777)));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(MASTER_KEY_FILE_BYTES_MAX));
        let file = File::open(path).map_err(unreadable)?;
        file.take(MASTER_KEY_FILE_BYTES_MAX as u64).read_to_end(&mut bytes).map_err(unreadable)?;
        Self::parse(&bytes).ok_or_else(|| refuse("it holds no key of 32 random bytes".to_string()))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut key = Zeroizing::new(Vec::with_capacity(bytes.len()));
        if bytes.len() == KEY_BYTES {
            key.extend_from_slice(bytes);
        } else {
            let text = std::str::from_utf8(bytes).ok()?.trim();
            STANDARD.decode_vec(text, &mut key).ok().filter(|()| key.len() == KEY_BYTES)?;
        }
        let mut seen = [false; 256];
        key.iter().for_each(|byte| seen[usize::from(*byte)] = true);
        let distinct = seen.into_iter().filter(|seen| *seen).count();
        (distinct >= DISTINCT_BYTES_MIN).then(|| Self(Secret::new(std::mem::take(&mut *key))))
    }

    /// Names the key without telling anything of it.
    pub fn fingerprint(&self) -> String {
        let mut bytes = [0; FINGERPRINT_BYTES];
        self.expand(LABEL, &[b"fingerprint"], &mut bytes);
        to_hex(&bytes)
    }

    /// The key of the file `name` of the backup `id`, drawn with its salt: never used for anything else.
    pub(super) fn of_file(&self, salt: &[u8], id: &str, name: &str) -> LessSafeKey {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        self.expand(salt, &[LABEL, b"\nfile\n", id.as_bytes(), b"\n", name.as_bytes()], &mut *bytes);
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*bytes).expect("32 bytes are a key of this cipher"))
    }

    fn expand(&self, salt: &[u8], info: &[&[u8]], into: &mut [u8]) {
        /// Output of a length that the caller chose.
        struct Bytes(usize);
        impl ring::hkdf::KeyType for Bytes {
            fn len(&self) -> usize {
                self.0
            }
        }
        let derived = Salt::new(HKDF_SHA256, salt).extract(self.0.expose());
        let okm = derived.expand(info, Bytes(into.len()));
        okm.and_then(|okm| okm.fill(into)).expect("at most one block of the hash is asked for");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::state_root::scratch::Scratch;

    #[test]
    fn a_key_file_is_32_raw_bytes_or_their_base64_and_nobody_elses() {
        let scratch = Scratch::new("backup-key");
        let path = scratch.path().join("key");
        let raw: Vec<u8> = (100..132).collect();
        let write = |bytes: &[u8], mode: u32| {
            // The one before may be read-only.
            let _absent_at_first = fs::remove_file(&path);
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            BackupKey::from_file(&path)
        };
        let one = write(&raw, 0o600).unwrap().fingerprint();
        let text = format!("{}\n", STANDARD.encode(&raw));
        assert_eq!(write(text.as_bytes(), 0o400).unwrap().fingerprint(), one, "both spellings are one key");
        assert_ne!(write(&[raw.clone(), vec![]].concat()[1..], 0o600).map(|key| key.fingerprint()).ok(), Some(one));
        for (bytes, mode) in [
            (raw.as_slice(), 0o640),
            (raw.as_slice(), 0o604),
            (&raw[..31], 0o600),
            (b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".as_slice(), 0o600),
            (b"".as_slice(), 0o600),
            (b"correct horse battery staple".as_slice(), 0o600),
        ] {
            let refused = write(bytes, mode).unwrap_err().to_string();
            assert!(refused.contains("next:") && !refused.contains("horse"), "{refused}");
        }
        assert!(BackupKey::from_file(scratch.path()).is_err());
        assert!(BackupKey::from_file(&scratch.path().join("none")).is_err());
    }
}
