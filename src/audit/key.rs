//! The audit signing key: Ed25519, as a file of the state root or handed in.
//! Owns: `audit-signing.key` (JSON, mode 0600) and `audit-signing.pub.pem` beside it.
//! May touch: these two files and the one key file that is named instead.
//! Never: prints or logs key material; reads a key file that others may read; replaces a key.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};
use ring::rand::SecureRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::core::Signer;
use crate::credential;
use crate::hex::{parse_hex, to_hex};
use crate::limits::{AUDIT_KEY_FILE_BYTES_MAX, AUDIT_PUBLIC_KEYS_MAX};
use crate::secret::Secret;
use crate::sys;

/// The key's name in the state root.
pub const KEY_FILE: &str = "audit-signing.key";
/// The public half's name in the state root.
pub const PUBLIC_FILE: &str = "audit-signing.pub.pem";

const SEED_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 8;
const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_END: &str = "-----END PUBLIC KEY-----";
/// What stands before the 32 key bytes in an Ed25519 SubjectPublicKeyInfo (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Where the key comes from.
#[derive(Debug)]
pub struct KeySources<'a> {
    /// The state root; the public half is kept there whatever the source.
    pub state_root: &'a Path,
    /// Value of `KHEISH_EXTERNAL_ACTION_AUDIT_SIGNING_KEY`.
    pub inline: Option<Secret>,
    /// Value of `KHEISH_EXTERNAL_ACTION_AUDIT_SIGNING_KEY_FILE` or `--audit-signing-key-file`.
    pub file: Option<&'a Path>,
    /// Whether nothing has been signed in this state root: only then may a key be made.
    pub nothing_signed: bool,
}

/// Where the key came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyOrigin {
    /// Made at this start and written to the state root.
    Created,
    /// Found in the state root, beside what it signs; worth a warning.
    StateRoot,
    /// Handed in as a value.
    Inline,
    /// Read from the file named instead.
    File(PathBuf),
}

impl KeyOrigin {
    /// The file that the key came from; `own` is that of the state root.
    fn path<'a>(&'a self, own: &'a Path) -> Option<&'a Path> {
        match self {
            Self::Created | Self::StateRoot => Some(own),
            Self::Inline => None,
            Self::File(path) => Some(path),
        }
    }
}

/// The signing key. The seed is wiped after loading; ring keeps the expanded key in memory it does not wipe.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

/// The public half.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey([u8; SEED_BYTES]);

/// Why there is no signing key.
#[derive(Debug)]
pub enum KeyError {
    /// Both a value and a file were given.
    TwoSources,
    /// A file operation failed.
    Io {
        /// The file.
        path: PathBuf,
        /// What failed.
        cause: io::Error,
    },
    /// Others than the owner may read the file.
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The content is none of the accepted forms.
    Malformed {
        /// The file, or the variable.
        source: String,
        /// What is wrong; never the content.
        cause: &'static str,
    },
    /// Records were signed and their key is gone.
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// `audit rotate-key` was cut off.
    RotationUnfinished {
        /// The key that waits to take its place.
        path: PathBuf,
    },
    /// The host gave no random bytes.
    Random,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TwoSources => f.write_str(
                "the audit signing key is given as a value and as a file; next: unset \
                 KHEISH_EXTERNAL_ACTION_AUDIT_SIGNING_KEY or the key file setting",
            ),
            Self::Io { path, cause } => write!(
                f,
                "audit signing key {}: {cause}; next: check that the path exists and belongs to the daemon's user",
                path.display()
            ),
            Self::Exposed { path, mode } => write!(
                f,
                "audit signing key {} has mode {mode:04o}, so others may use it; next: chmod 600 {}, and replace \
                 the key if they could have read it",
                path.display(),
                path.display()
            ),
            Self::Malformed { source, cause } => write!(
                f,
                "audit signing key in {source}: {cause}; next: restore it from the backup, or give a 32-byte Ed25519 \
                 seed as JSON, hex or base64"
            ),
            Self::Missing { path } => write!(
                f,
                "{} is missing and this state root holds signed records; next: restore the key from the backup, or \
                 name it with KHEISH_EXTERNAL_ACTION_AUDIT_SIGNING_KEY_FILE",
                path.display()
            ),
            Self::RotationUnfinished { path } => write!(
                f,
                "{} shows that a rotation of the audit signing key was cut off; next: run kheish-daemon audit rotate-key \
                 again, which finishes it",
                path.display()
            ),
            Self::Random => f.write_str("the host gives no random bytes; next: check /dev/urandom"),
        }
    }
}

impl std::error::Error for KeyError {}

impl SigningKey {
    /// The key of a 32-byte seed.
    pub fn from_seed(seed: &[u8; SEED_BYTES]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed has 32 bytes, and any 32 bytes are one");
        let mut public = [0; SEED_BYTES];
        public.copy_from_slice(pair.public_key().as_ref());
        Self { pair, public: PublicKey(public) }
    }

    /// Finds the key in the order value, file, state root; makes one in a state root where nothing has been
    /// signed yet. Leaves the public half in the state root, above those of earlier keys.
    ///
    /// # Errors
    /// See [`KeyError`]. A missing key of a used state root is never made anew.
    pub fn load_or_create(sources: KeySources<'_>, random: &dyn SecureRandom) -> Result<(Self, KeyOrigin), KeyError> {
        let own = sources.state_root.join(KEY_FILE);
        let (key, origin) = match (&sources.inline, sources.file) {
            (Some(_), Some(_)) => return Err(KeyError::TwoSources),
            (Some(value), None) => {
                let source = "KHEISH_EXTERNAL_ACTION_AUDIT_SIGNING_KEY";
                (Self::parse(value.expose(), source)?, KeyOrigin::Inline)
            }
            (None, Some(path)) => (Self::read(path)?, KeyOrigin::File(path.to_path_buf())),
            (None, None) if exists(&own)? => (Self::read(&own)?, KeyOrigin::StateRoot),
            (None, None) if sources.nothing_signed => (Self::create(&own, random)?, KeyOrigin::Created),
            (None, None) => return Err(KeyError::Missing { path: own }),
        };
        if let Some(path) = origin.path(&own) {
            let waiting = super::rotate::waiting_successor(path);
            if exists(&waiting)? {
                return Err(KeyError::RotationUnfinished { path: waiting });
            }
        }
        key.public.publish(&sources.state_root.join(PUBLIC_FILE))?;
        Ok((key, origin))
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// It is missing, exposed to others, or no key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let io = |cause| KeyError::Io { path: path.to_path_buf(), cause };
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if credential::lets_others_in(&metadata, sys::effective_user_id()) {
            return Err(KeyError::Exposed { path: path.to_path_buf(), mode: metadata.mode() & 0o777 });
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(AUDIT_KEY_FILE_BYTES_MAX + 1));
        file.take(AUDIT_KEY_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
        Self::parse(&bytes, &path.display().to_string())
    }

    fn parse(bytes: &[u8], source: &str) -> Result<Self, KeyError> {
        let malformed = |cause| KeyError::Malformed { source: source.to_string(), cause };
        if bytes.len() > AUDIT_KEY_FILE_BYTES_MAX {
            return Err(malformed("it is longer than any accepted form"));
        }
        if bytes.len() == SEED_BYTES {
            return Self::from_bytes(bytes).ok_or_else(|| malformed("it is no seed"));
        }
        let text = bytes.trim_ascii();
        if text.is_empty() {
            return Err(malformed("it is empty"));
        }
        if text.starts_with(b"{") {
            return Self::parse_json(text).map_err(malformed);
        }
        let decoded = Zeroizing::new(
            parse_hex(&text.to_ascii_lowercase())
                .filter(|seed| seed.len() == SEED_BYTES)
                .or_else(|| URL_SAFE_NO_PAD.decode(text).ok())
                .or_else(|| STANDARD.decode(text).ok())
                .unwrap_or_default(),
        );
        Self::from_bytes(&decoded).ok_or_else(|| malformed("it is not a 32-byte seed in hex, base64 or JSON"))
    }

    fn parse_json(text: &[u8]) -> Result<Self, &'static str> {
        #[derive(Deserialize)]
        struct KeyFile<'a> {
            algorithm: &'a str,
            secret_key_hex: &'a str,
        }
        let file: KeyFile<'_> =
            serde_json::from_slice(text).map_err(|_| "the JSON has no algorithm and secret_key_hex")?;
        if file.algorithm != "ed25519" {
            return Err("the algorithm is not ed25519");
        }
        let seed = parse_hex(&file.secret_key_hex.as_bytes().to_ascii_lowercase()).map(Zeroizing::new);
        seed.and_then(|seed| Self::from_bytes(&seed)).ok_or("secret_key_hex is not 64 hex digits")
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let seed: Zeroizing<[u8; SEED_BYTES]> = Zeroizing::new(bytes.try_into().ok()?);
        Some(Self::from_seed(&seed))
    }

    /// Makes a key and writes it to a new file.
    ///
    /// # Errors
    /// The file cannot be written, or the host has no random bytes.
    pub fn create(path: &Path, random: &dyn SecureRandom) -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; SEED_BYTES]);
        random.fill(&mut *seed).map_err(|_| KeyError::Random)?;
        let hex = Zeroizing::new(to_hex(&*seed));
        let text =
            Zeroizing::new(format!("{{\n  \"algorithm\": \"ed25519\",\n  \"secret_key_hex\": \"{}\"\n}}\n", *hex));
        write_whole(path, text.as_bytes(), 0o600)?;
        Ok(Self::from_seed(&seed))
    }

    /// Copies a key file, byte for byte, to a new file that only its owner can read.
    ///
    /// # Errors
    /// The source is no key, or the target cannot be written.
    pub fn copy_file(source: &Path, target: &Path) -> Result<(), KeyError> {
        let bytes = fs::read(source).map_err(|cause| KeyError::Io { path: source.to_path_buf(), cause })?;
        let bytes = Zeroizing::new(bytes);
        Self::parse(&bytes, &source.display().to_string())?;
        write_whole(target, &bytes, 0o600)
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The key's short name in records.
    pub fn key_id(&self) -> String {
        self.public.key_id()
    }

    /// The 64-byte signature of `message`.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl Signer for SigningKey {
    fn key_id(&self) -> String {
        self.public.key_id()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.key_id())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.key_id())
    }
}

impl PublicKey {
    /// Hex of the first 8 bytes of SHA-256 over the 32 key bytes.
    pub fn key_id(&self) -> String {
        to_hex(&digest(&SHA256, &self.0).as_ref()[..KEY_ID_BYTES])
    }

    /// The key of these 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `signature` is this key's over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }

    /// The key as PEM (SubjectPublicKeyInfo), as openssl reads it.
    pub fn to_pem(&self) -> String {
        let der: Vec<u8> = SPKI_PREFIX.iter().chain(&self.0).copied().collect();
        format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", STANDARD.encode(der))
    }

    /// All Ed25519 public keys of a PEM file, in order.
    ///
    /// # Errors
    /// What is wrong, for a message.
    pub fn parse_pem(text: &str) -> Result<Vec<Self>, &'static str> {
        let mut keys = Vec::new();
        for block in text.split(PEM_BEGIN).skip(1) {
            let (encoded, _) = block.split_once(PEM_END).ok_or("a PEM block has no end")?;
            let compact: String = encoded.split_whitespace().collect();
            let der = STANDARD.decode(compact).map_err(|_| "a PEM block is not base64")?;
            let key = der.strip_prefix(&SPKI_PREFIX[..]).ok_or("a PEM block holds no Ed25519 public key")?;
            keys.push(Self(key.try_into().map_err(|_| "an Ed25519 public key has 32 bytes")?));
            if keys.len() > AUDIT_PUBLIC_KEYS_MAX {
                return Err("there are too many keys in one file");
            }
        }
        if keys.is_empty() { Err("there is no PEM block 'PUBLIC KEY'") } else { Ok(keys) }
    }

    /// Puts this key first in the PEM file at `path`. Earlier keys stay below it: what they signed must remain
    /// checkable.
    ///
    /// # Errors
    /// The file cannot be read, understood or written.
    pub fn publish(&self, path: &Path) -> Result<(), KeyError> {
        let io = |cause| KeyError::Io { path: path.to_path_buf(), cause };
        let mut keys = match fs::read_to_string(path) {
            Ok(text) => Self::parse_pem(&text)
                .map_err(|cause| KeyError::Malformed { source: path.display().to_string(), cause })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(cause) => return Err(io(cause)),
        };
        if keys.first() == Some(self) {
            return Ok(());
        }
        keys.retain(|key| key != self);
        keys.insert(0, self.clone());
        keys.truncate(AUDIT_PUBLIC_KEYS_MAX);
        let text: String = keys.iter().map(Self::to_pem).collect();
        write_whole(path, text.as_bytes(), 0o600)
    }
}

fn exists(path: &Path) -> Result<bool, KeyError> {
    path.try_exists().map_err(|cause| KeyError::Io { path: path.to_path_buf(), cause })
}

/// Writes a file so that a crash leaves either all of it or what was there before.
fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeyError> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let write = || -> io::Result<()> {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    };
    write().map_err(|cause| KeyError::Io { path: path.to_path_buf(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use std::os::unix::fs::PermissionsExt;

    fn root(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("kheish-key-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn sources(root: &Path, nothing_signed: bool) -> KeySources<'_> {
        KeySources { state_root: root, inline: None, file: None, nothing_signed }
    }

    fn load(sources: KeySources<'_>) -> Result<(SigningKey, KeyOrigin), KeyError> {
        SigningKey::load_or_create(sources, &SystemRandom::new())
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_key_is_made_once_private_and_found_again() {
        let root = root("create");
        let (first, origin) = load(sources(&root, true)).unwrap();
        assert_eq!((origin, mode(&root.join(KEY_FILE))), (KeyOrigin::Created, 0o600));
        let (second, origin) = load(sources(&root, false)).unwrap();
        assert_eq!((origin, second.public()), (KeyOrigin::StateRoot, first.public()));
        let pem = fs::read_to_string(root.join(PUBLIC_FILE)).unwrap();
        assert_eq!(PublicKey::parse_pem(&pem).unwrap(), vec![first.public().clone()]);
        assert_eq!(fs::read_dir(&root).unwrap().count(), 2, "no temporary file is left");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_lost_key_of_a_used_state_root_is_not_made_anew() {
        let root = root("lost");
        assert!(matches!(load(sources(&root, false)), Err(KeyError::Missing { .. })));
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let root = root("exposed");
        load(sources(&root, true)).unwrap();
        for bits in [0o640, 0o604, 0o620, 0o666] {
            fs::set_permissions(root.join(KEY_FILE), fs::Permissions::from_mode(bits)).unwrap();
            assert!(matches!(load(sources(&root, false)), Err(KeyError::Exposed { mode, .. }) if mode == bits));
        }
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn every_accepted_form_gives_the_same_key_and_others_are_refused() {
        let seed: [u8; 32] = std::array::from_fn(|index| (index as u8).wrapping_mul(37) ^ 0xa5);
        let expected = SigningKey::from_seed(&seed);
        let hex = to_hex(&seed);
        let json = format!("{{\"algorithm\":\"ed25519\",\"secret_key_hex\":\"{hex}\",\"legacy_hmac_key_hex\":\"00\"}}");
        let forms = [
            hex.clone().into_bytes(),
            STANDARD.encode(seed).into(),
            URL_SAFE_NO_PAD.encode(seed).into(),
            seed.into(),
            json.into(),
        ];
        for form in forms {
            let key = SigningKey::parse(&form, "test").unwrap();
            assert_eq!(key.public(), expected.public(), "{:?}", String::from_utf8_lossy(&form));
        }
        let refused =
            ["", "{}", "abc", &hex[2..], "{\"algorithm\":\"rsa\",\"secret_key_hex\":\"00\"}", &"a".repeat(9_000)];
        for form in refused {
            let error = SigningKey::parse(form.as_bytes(), "test").expect_err(form).to_string();
            assert!(form.is_empty() || !error.contains(form), "the content is in the message: {error}");
        }
    }

    #[test]
    fn another_key_keeps_the_earlier_public_keys_for_verification() {
        let root = root("rotate");
        let (first, _) = load(sources(&root, true)).unwrap();
        let inline = Some(Secret::new(to_hex(&[9; 32]).into_bytes()));
        let (second, origin) = load(KeySources { inline, ..sources(&root, false) }).unwrap();
        assert_eq!(origin, KeyOrigin::Inline);
        let pem = fs::read_to_string(root.join(PUBLIC_FILE)).unwrap();
        assert_eq!(PublicKey::parse_pem(&pem).unwrap(), vec![second.public().clone(), first.public().clone()]);
        let both =
            KeySources { inline: Some(Secret::new(vec![1; 32])), file: Some(Path::new("x")), ..sources(&root, false) };
        assert!(matches!(load(both), Err(KeyError::TwoSources)));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn the_key_and_its_pem_are_those_of_rfc_8032_and_openssl() {
        // RFC 8032 section 7.1, test 1.
        let seed = parse_hex(b"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let key = SigningKey::from_seed(&seed.try_into().unwrap());
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(to_hex(&key.public().0), public);
        assert_eq!(&to_hex(&key.sign(b""))[..32], "e5564300c360ac729086e2cc806e828a");
        // openssl pkey -pubin -outform DER of the same key, as base64.
        let expected = "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
        assert_eq!(key.public().to_pem(), format!("{PEM_BEGIN}\n{expected}\n{PEM_END}\n"));
        assert!(key.public().verify(b"", &key.sign(b"")) && !key.public().verify(b"x", &key.sign(b"")));
    }
}
