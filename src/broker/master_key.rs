//! The key of the auth store: 32 bytes that live outside the state root.
//! Owns: where the key comes from and which spellings are accepted.
//! May touch: the two environment variables and the file that one of them names.
//! Never: derives a key from a passphrase, writes a key to disk, or reads it a second time: a key file that
//! is edited under a running daemon changes nothing.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::credential::{self, CredentialError};
use crate::limits::MASTER_KEY_FILE_BYTES_MAX;
use crate::secret::Secret;
use crate::sys;

/// The environment variable that holds the key itself.
pub const KEY_VARIABLE: &str = "KHEISH_AUTH_STORE_MASTER_KEY";
/// The environment variable that names a file with the key.
pub const KEY_FILE_VARIABLE: &str = "KHEISH_AUTH_STORE_MASTER_KEY_FILE";
const KEY_BYTES: usize = 32;
/// A random key has about 30 different bytes; one with fewer than this was typed, not drawn.
const DISTINCT_BYTES_MIN: usize = 8;

/// Why there is no usable master key.
#[derive(Debug)]
#[allow(missing_docs, reason = "each variant's line says what its fields hold")]
pub enum MasterKeyError {
    /// Both variables are set.
    BothSet,
    /// The text from `source` is not one of the accepted forms.
    Malformed { source: String },
    /// The text from `source` is a key that nobody drew at random.
    Guessable { source: String },
    /// The key file is not a plain file.
    NotAFile { path: PathBuf },
    /// Group or others may use the key file.
    ModeTooOpen { path: PathBuf, mode: u32 },
    /// The key file cannot be read.
    Unreadable { path: PathBuf, source: io::Error },
    /// The file is a credential that was not handed over.
    Credential(CredentialError),
    /// The system gave no random bytes.
    NoRandom,
}

impl fmt::Display for MasterKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BothSet => {
                write!(f, "{KEY_VARIABLE} and {KEY_FILE_VARIABLE} are both set; next: unset one, keeping the file")
            }
            Self::Malformed { source } => write!(
                f,
                "{source} holds no master key: expected base64 of 32 bytes, or exactly 32 bytes of text; \
                 next: use the key kept with this state root, or `kheish-daemon secrets generate` for a new one"
            ),
            Self::Guessable { source } => write!(
                f,
                "{source} holds a master key of only a few different bytes; \
                 next: use one made by `kheish-daemon secrets generate`"
            ),
            Self::NotAFile { path } => write!(
                f,
                "{} (from {KEY_FILE_VARIABLE}) is not a plain file; next: name the file that holds the key",
                path.display()
            ),
            Self::ModeTooOpen { path, mode } => write!(
                f,
                "{} (from {KEY_FILE_VARIABLE}) has mode {mode:04o}, so others may use it; next: chmod 600 {}",
                path.display(),
                path.display()
            ),
            Self::Unreadable { path, source } => write!(
                f,
                "cannot read {} (from {KEY_FILE_VARIABLE}): {source}; next: check the path and its owner",
                path.display()
            ),
            Self::Credential(error) => write!(f, "{KEY_FILE_VARIABLE}: {error}"),
            Self::NoRandom => {
                write!(f, "the system gave no random bytes; next: check that /dev/urandom and getrandom(2) work")
            }
        }
    }
}

impl std::error::Error for MasterKeyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// The cipher key of an auth store.
#[derive(Debug)]
pub struct MasterKey(Secret);

impl MasterKey {
    /// The key that the environment names, or `None` when neither variable is set.
    ///
    /// # Errors
    /// The environment is contradictory, or what it names is no key. An empty value is no key.
    pub fn from_environment() -> Result<Option<Self>, MasterKeyError> {
        Self::from_sources(std::env::var_os(KEY_VARIABLE), std::env::var_os(KEY_FILE_VARIABLE))
    }

    /// As [`Self::from_environment`], with the two values given.
    ///
    /// # Errors
    /// As there.
    pub fn from_sources(value: Option<OsString>, file: Option<OsString>) -> Result<Option<Self>, MasterKeyError> {
        match (value.map(|value| Zeroizing::new(value.into_vec())), file) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(MasterKeyError::BothSet),
            (Some(value), None) => Self::parse(&value, KEY_VARIABLE).map(Some),
            (None, Some(path)) => {
                let path = credential::file(&path).map_err(MasterKeyError::Credential)?;
                Self::from_file(&path).map(Some)
            }
        }
    }

    /// The key in the file at `path`. Links are followed, since mounted secrets are links.
    ///
    /// # Errors
    /// The file is missing, not plain, usable by others, or holds no key.
    pub fn from_file(path: &Path) -> Result<Self, MasterKeyError> {
        let unreadable = |source| MasterKeyError::Unreadable { path: path.to_path_buf(), source };
        // Looked at before it is opened: opening a FIFO would wait for a writer.
        if !fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(MasterKeyError::NotAFile { path: path.to_path_buf() });
        }
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if credential::lets_others_in(&metadata, sys::effective_user_id()) {
            return Err(MasterKeyError::ModeTooOpen { path: path.to_path_buf(), mode: metadata.mode() & 0o7777 });
        }
        let mut text = Zeroizing::new(Vec::with_capacity(MASTER_KEY_FILE_BYTES_MAX));
        file.take(MASTER_KEY_FILE_BYTES_MAX as u64).read_to_end(&mut text).map_err(unreadable)?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads a key from `text`, blanks at the ends ignored: standard base64 of 32 bytes, else 32 bytes of
    /// UTF-8. `source` names the origin in errors.
    ///
    /// # Errors
    /// The text has neither form, or the key is made of few different bytes.
    pub fn parse(text: &[u8], source: &str) -> Result<Self, MasterKeyError> {
        let malformed = || MasterKeyError::Malformed { source: source.to_string() };
        let text = std::str::from_utf8(text).map_err(|_| malformed())?.trim();
        // Never more than three quarters of the text, so the buffer is not moved while it is filled.
        let mut key = Zeroizing::new(Vec::with_capacity(text.len()));
        if STANDARD.decode_vec(text, &mut key).is_err() || key.len() != KEY_BYTES {
            key.clear();
            key.extend_from_slice(text.as_bytes());
        }
        if key.len() != KEY_BYTES {
            return Err(malformed());
        }
        if distinct_bytes(&key) < DISTINCT_BYTES_MIN {
            return Err(MasterKeyError::Guessable { source: source.to_string() });
        }
        Ok(Self(Secret::new(std::mem::take(&mut *key))))
    }

    /// 32 bytes for another purpose, which give nothing away of the key or of those for a third one.
    pub fn derive(&self, purpose: &str) -> Secret {
        let salt = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, b"kheish-derived-key");
        let derived = salt.extract(self.expose());
        let mut bytes = vec![0; KEY_BYTES];
        derived
            .expand(&[purpose.as_bytes()], ring::hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut bytes))
            .expect("32 bytes are one block of the hash");
        Secret::new(bytes)
    }

    /// The 32 key bytes, for the envelope.
    pub(super) fn expose(&self) -> &[u8] {
        self.0.expose()
    }
}

/// A new key as `secrets generate` prints it: 44 characters of base64, without a newline.
///
/// # Errors
/// The system gave no random bytes.
pub fn generate() -> Result<String, MasterKeyError> {
    let mut key = Zeroizing::new([0u8; KEY_BYTES]);
    SystemRandom::new().fill(&mut *key).map_err(|_| MasterKeyError::NoRandom)?;
    Ok(STANDARD.encode(*key))
}

fn distinct_bytes(key: &[u8]) -> usize {
    let mut seen = [false; 256];
    key.iter().for_each(|byte| seen[usize::from(*byte)] = true);
    seen.into_iter().filter(|seen| *seen).count()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::state_root::scratch::Scratch;

    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlBQkNERUY=";

    fn parse(text: &str) -> Result<Vec<u8>, String> {
        MasterKey::parse(text.as_bytes(), "X").map(|key| key.expose().to_vec()).map_err(|error| error.to_string())
    }

    #[test]
    fn exactly_the_two_documented_spellings_are_keys() {
        let raw = b"0123456789abcdef0123456789ABCDEF".to_vec();
        for text in [KEY, &format!(" {KEY}\n"), &format!("{KEY}\r\n"), "0123456789abcdef0123456789ABCDEF"] {
            assert_eq!(parse(text), Ok(raw.clone()), "{text:?}");
        }
        let hex = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
        let url_safe = "-_".repeat(21) + "-8=";
        for text in ["", " \n", &KEY[..43], &KEY[1..], hex, &url_safe, "0123456789abcdef0123456789ABCDE"] {
            let refused = parse(text).unwrap_err();
            assert!(refused.contains("X holds no master key"), "{text:?}: {refused}");
        }
        assert!(matches!(MasterKey::parse(&[0xff; 32], "X"), Err(MasterKeyError::Malformed { .. })));
    }

    #[test]
    fn a_key_that_nobody_drew_is_refused() {
        for text in ["A".repeat(43) + "=", "passpasspasspasspasspasspasspass".to_string()] {
            assert!(parse(&text).unwrap_err().contains("few different bytes"), "{text}");
        }
    }

    #[test]
    fn generated_keys_are_accepted_and_differ() {
        let (one, other) = (generate().unwrap(), generate().unwrap());
        assert_eq!((one.len(), parse(&one).unwrap().len()), (44, 32));
        assert_ne!(one, other);
    }

    #[test]
    fn two_sources_are_one_too_many_and_an_empty_one_is_no_key() {
        let os = |text: &str| Some(OsString::from(text));
        assert!(MasterKey::from_sources(None, None).unwrap().is_none());
        for (value, file) in [(os(KEY), os("/nowhere")), (os(""), os("")), (os(""), os("/nowhere"))] {
            assert!(matches!(MasterKey::from_sources(value, file), Err(MasterKeyError::BothSet)));
        }
        assert!(matches!(MasterKey::from_sources(os(""), None), Err(MasterKeyError::Malformed { .. })));
        let not_text = Some(OsString::from_vec(vec![0xff; 44]));
        assert!(matches!(MasterKey::from_sources(not_text, None), Err(MasterKeyError::Malformed { .. })));
        let refused = MasterKey::from_sources(None, os("/nowhere/key")).unwrap_err().to_string();
        assert!(refused.contains("/nowhere/key") && refused.contains(KEY_FILE_VARIABLE), "{refused}");
    }

    #[test]
    fn a_key_file_that_others_may_use_is_refused() {
        let scratch = Scratch::new("key-file");
        let path = scratch.path().join("key");
        fs::write(&path, format!("{KEY}\n")).unwrap();
        for mode in [0o600, 0o400, 0o700] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(MasterKey::from_file(&path).is_ok(), "{mode:o}");
        }
        for mode in [0o640, 0o660, 0o604, 0o644, 0o601, 0o610, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refused = MasterKey::from_file(&path).unwrap_err();
            assert!(matches!(refused, MasterKeyError::ModeTooOpen { mode: found, .. } if found == mode), "{mode:o}");
        }
        assert!(matches!(MasterKey::from_file(scratch.path()), Err(MasterKeyError::NotAFile { .. })));
    }

    #[test]
    fn no_error_and_no_debug_text_shows_key_bytes() {
        let key = MasterKey::parse(KEY.as_bytes(), "X").unwrap();
        assert_eq!(format!("{key:?}"), "MasterKey(Secret(..))");
        let refused = MasterKey::parse(b"canary-canary", "X").unwrap_err();
        assert!(!format!("{refused} {refused:?}").contains("canary"));
    }
}
