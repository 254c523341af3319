//! Fingerprints of requests that tell equal from different and nothing else.
//! Owns: the state root's key for them, `auth/request-mac.key`.
//! May touch: that file.
//! Never: is guessable: without the key a fingerprint confirms no guess of what a request said.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ring::hmac::{self, HMAC_SHA256};
use ring::rand::SecureRandom;
use zeroize::Zeroizing;

const KEY_BYTES: usize = 32;
/// The key's name below `auth/`.
pub const KEY_FILE: &str = "request-mac.key";

/// Makes fingerprints.
pub struct RequestMac(hmac::Key);

impl RequestMac {
    /// One with this key.
    pub fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(HMAC_SHA256, key))
    }

    /// Reads the state root's key, or makes it. A lost key is no loss of work: a repeated request is answered 409 once.
    ///
    /// # Errors
    /// The file cannot be read or written, or there is no randomness.
    pub fn load_or_create(directory: &Path, random: &dyn SecureRandom) -> io::Result<Self> {
        let path = directory.join(KEY_FILE);
        match fs::read(&path) {
            Ok(key) if key.len() == KEY_BYTES => return Ok(Self::new(&Zeroizing::new(key))),
            Ok(_) => return Err(io::Error::other(format!("{KEY_FILE} does not hold {KEY_BYTES} bytes"))),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) => {}
        }
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        random.fill(&mut *key).map_err(|_| io::Error::other("the host gives no random bytes"))?;
        let temporary = directory.join(format!("{KEY_FILE}.new"));
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(&*key)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        fs::File::open(directory)?.sync_all()?;
        Ok(Self::new(&*key))
    }

    /// First 128 bits of HMAC-SHA-256 over length-prefixed parts, so that no two lists of parts look alike.
    pub fn fingerprint(&self, purpose: &str, parts: &[&str]) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in std::iter::once(&purpose).chain(parts) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut truncated = [0; 16];
        truncated.copy_from_slice(&context.sign().as_ref()[..16]);
        truncated
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::TempDir;

    #[test]
    fn a_fingerprint_depends_on_the_roots_key_which_is_made_once_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let (one, other) = (TempDir::new("mac"), TempDir::new("mac"));
        let random = ring::rand::SystemRandom::new();
        let open = |dir: &TempDir| RequestMac::load_or_create(dir.path(), &random).unwrap();
        let print = |mac: &RequestMac| mac.fingerprint("request", &["a", "b"]);
        let first = print(&open(&one));
        assert_eq!(first, print(&open(&one)), "over restarts");
        assert_ne!(first, print(&open(&other)), "in another root");
        assert_ne!(first, open(&one).fingerprint("request", &["ab", ""]));
        let file = one.path().join(KEY_FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&file, "short").unwrap();
        assert!(RequestMac::load_or_create(one.path(), &random).is_err(), "never replaced silently");
    }
}
