//! The encrypted form of the auth store: bytes in, bytes out. docs/secrets.md has the format.
//! Owns: cipher, key derivation, associated data, and the difference between a wrong key and damage.
//! May touch: the system's random source.
//! Never: reads or writes a file; returns a part of a plaintext that did not verify.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::master_key::MasterKey;
use crate::hex::to_hex;

/// The envelope version that this build reads and writes.
pub(super) const VERSION: u32 = 1;
const SALT_BYTES: usize = 32;
const FINGERPRINT_BYTES: usize = 16;
/// Bytes that sealing appends.
pub(super) const TAG_BYTES: usize = 16;
const FINGERPRINT_LABEL: &[u8] = b"kheish-daemon auth store: key fingerprint";
const SAVE_KEY_LABEL: &[u8] = b"kheish-daemon auth store: key of one save";
const PURPOSE: &[u8] = b"kheish-daemon auth store: slots";

/// Why an envelope was not opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A JSON object without salt and ciphertext.
    Plaintext,
    /// Written by a newer build.
    Newer { version: u64 },
    /// Another key wrote it; both fingerprints, as hex.
    WrongKey { written_with: String, given: String },
    /// Bytes were changed or lost.
    Damaged { reason: &'static str },
}

/// The envelope as JSON. The field order is the canonical one.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    version: u64,
    key_fingerprint: String,
    salt: String,
    nonce: String,
    ciphertext: String,
}

/// Encrypts `plaintext`, which has [`TAG_BYTES`] of spare capacity so that it is not moved and left behind;
/// `None` when the system gives no random bytes.
pub(super) fn seal(mut plaintext: Zeroizing<Vec<u8>>, key: &MasterKey) -> Option<Vec<u8>> {
    debug_assert!(plaintext.capacity() >= plaintext.len() + TAG_BYTES, "room for the tag");
    let random = SystemRandom::new();
    let (mut salt, mut nonce) = ([0; SALT_BYTES], [0; NONCE_LEN]);
    random.fill(&mut salt).ok()?;
    random.fill(&mut nonce).ok()?;
    let fingerprint = fingerprint(key);
    save_key(key, &salt)
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(associated_data(u64::from(VERSION), &fingerprint)),
            &mut *plaintext,
        )
        .expect("a store is far below the cipher's length limit");
    let envelope = Envelope {
        version: u64::from(VERSION),
        key_fingerprint: to_hex(&fingerprint),
        salt: STANDARD.encode(salt),
        nonce: STANDARD.encode(nonce),
        ciphertext: STANDARD.encode(&*plaintext),
    };
    Some(canonical(&envelope))
}

/// Decrypts `bytes`; all of the plaintext or none.
pub(super) fn open(bytes: &[u8], key: &MasterKey) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let envelope = parse(bytes)?;
    let own = fingerprint(key);
    let parts = decode(&envelope);
    // With the key's own header instead of the file's: when that opens, the key is right and a header that
    // says otherwise was altered; when it does not, the header tells why.
    let opened = parts.as_ref().and_then(|parts| decrypt(parts, key, &own));
    let is_own_header = envelope.version == u64::from(VERSION) && envelope.key_fingerprint == to_hex(&own);
    match opened {
        Some(_) if !is_own_header => Err(Refusal::Damaged { reason: "its header was altered" }),
        Some(_) if canonical(&envelope) != bytes => Err(Refusal::Damaged { reason: "its text was altered" }),
        Some(plaintext) => Ok(plaintext),
        None if envelope.version > u64::from(VERSION) => Err(Refusal::Newer { version: envelope.version }),
        None if parts.is_none() => Err(Refusal::Damaged { reason: "a field is not of its form" }),
        None if is_own_header => Err(Refusal::Damaged { reason: "its bytes do not verify under the right key" }),
        None if envelope.version == 0 => Err(Refusal::Damaged { reason: "its version is not a version" }),
        None => Err(Refusal::WrongKey { written_with: envelope.key_fingerprint, given: to_hex(&own) }),
    }
}

/// Why `bytes` cannot be opened under any key; `None` when they look like an envelope of this version.
pub(super) fn outline(bytes: &[u8]) -> Option<Refusal> {
    match parse(bytes) {
        Err(refusal) => Some(refusal),
        Ok(envelope) if envelope.version > u64::from(VERSION) => Some(Refusal::Newer { version: envelope.version }),
        Ok(_) => None,
    }
}

fn parse(bytes: &[u8]) -> Result<Envelope, Refusal> {
    if let Ok(envelope) = serde_json::from_slice(bytes) {
        return Ok(envelope);
    }
    // Only the fields that tell what else it may be; their siblings are skipped unread. One damaged byte
    // cannot take away both the salt's name and the ciphertext's.
    #[derive(Deserialize)]
    struct Outline {
        version: Option<u64>,
        salt: Option<serde::de::IgnoredAny>,
        ciphertext: Option<serde::de::IgnoredAny>,
    }
    match serde_json::from_slice::<Outline>(bytes) {
        Ok(Outline { salt: None, ciphertext: None, .. }) => Err(Refusal::Plaintext),
        Ok(Outline { version: Some(version), .. }) if version > u64::from(VERSION) => Err(Refusal::Newer { version }),
        _ => Err(Refusal::Damaged { reason: "it is not an envelope" }),
    }
}

struct Parts {
    salt: [u8; SALT_BYTES],
    nonce: [u8; NONCE_LEN],
    ciphertext: Vec<u8>,
}

fn decode(envelope: &Envelope) -> Option<Parts> {
    Some(Parts {
        salt: STANDARD.decode(&envelope.salt).ok()?.try_into().ok()?,
        nonce: STANDARD.decode(&envelope.nonce).ok()?.try_into().ok()?,
        ciphertext: STANDARD.decode(&envelope.ciphertext).ok()?,
    })
}

fn decrypt(parts: &Parts, key: &MasterKey, own: &[u8; FINGERPRINT_BYTES]) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(parts.ciphertext.clone());
    let aad = Aad::from(associated_data(u64::from(VERSION), own));
    let nonce = Nonce::assume_unique_for_key(parts.nonce);
    let length = save_key(key, &parts.salt).open_in_place(nonce, aad, &mut bytes).ok()?.len();
    bytes.truncate(length);
    Some(bytes)
}

/// Purpose, version and fingerprint, each of a fixed length but the first, which is a constant.
fn associated_data(version: u64, fingerprint: &[u8; FINGERPRINT_BYTES]) -> Vec<u8> {
    [PURPOSE, &[0], &version.to_be_bytes(), fingerprint].concat()
}

/// [`fingerprint`] as it stands in the file.
pub(super) fn key_fingerprint(key: &MasterKey) -> String {
    to_hex(&fingerprint(key))
}

/// Names a key without telling anything of it.
fn fingerprint(key: &MasterKey) -> [u8; FINGERPRINT_BYTES] {
    struct Length;
    impl KeyType for Length {
        fn len(&self) -> usize {
            FINGERPRINT_BYTES
        }
    }
    let mut fingerprint = [0; FINGERPRINT_BYTES];
    Salt::new(HKDF_SHA256, &[])
        .extract(key.expose())
        .expand(&[FINGERPRINT_LABEL], Length)
        .and_then(|okm| okm.fill(&mut fingerprint))
        .expect("sixteen bytes are within HKDF's limit");
    fingerprint
}

/// A key for one save, so that no two saves share a key and nonce even if the random nonces collide.
fn save_key(key: &MasterKey, salt: &[u8; SALT_BYTES]) -> LessSafeKey {
    let derived = Salt::new(HKDF_SHA256, salt).extract(key.expose());
    let okm = derived.expand(&[SAVE_KEY_LABEL], &AES_256_GCM).expect("one key is within HKDF's limit");
    LessSafeKey::new(UnboundKey::from(okm))
}

fn canonical(envelope: &Envelope) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(envelope).expect("an envelope's fields are text and a number");
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAINTEXT: &[u8] = br#"{"next_version":2,"slots":{"a":"canary-canary"}}"#;

    fn key(first: u8) -> MasterKey {
        let bytes: Vec<u8> = (first..first + 32).collect();
        MasterKey::parse(STANDARD.encode(bytes).as_bytes(), "test").unwrap()
    }

    fn sealed(key: &MasterKey) -> Vec<u8> {
        let mut plaintext = Zeroizing::new(Vec::with_capacity(PLAINTEXT.len() + TAG_BYTES));
        plaintext.extend_from_slice(PLAINTEXT);
        seal(plaintext, key).unwrap()
    }

    #[test]
    fn what_was_sealed_opens_under_its_key_and_shows_nothing_without_it() {
        let bytes = sealed(&key(1));
        assert_eq!(*open(&bytes, &key(1)).unwrap(), PLAINTEXT);
        assert!(!String::from_utf8(bytes.clone()).unwrap().contains("canary"));
        let refusal = open(&bytes, &key(2)).unwrap_err();
        let expected =
            Refusal::WrongKey { written_with: to_hex(&fingerprint(&key(1))), given: to_hex(&fingerprint(&key(2))) };
        assert_eq!(refusal, expected);
    }

    #[test]
    fn two_saves_of_the_same_slots_share_no_salt_nonce_or_ciphertext() {
        let [one, other] = [sealed(&key(1)), sealed(&key(1))].map(|bytes| parse(&bytes).ok().unwrap());
        assert_eq!(one.key_fingerprint, other.key_fingerprint);
        assert!(one.salt != other.salt && one.nonce != other.nonce && one.ciphertext != other.ciphertext);
    }

    /// A damaged file must never be blamed on the key: an operator would go looking for another one.
    #[test]
    fn every_other_value_of_every_byte_is_refused_and_not_as_a_wrong_key() {
        let key = key(1);
        let bytes = sealed(&key);
        for position in 0..bytes.len() {
            for value in (0..=255u8).filter(|value| *value != bytes[position]) {
                let mut damaged = bytes.clone();
                damaged[position] = value;
                match open(&damaged, &key) {
                    Err(Refusal::Damaged { .. }) => {}
                    other => panic!("byte {position} as {value}: {:?}", other.map(|_| "opened")),
                }
            }
        }
    }

    #[test]
    fn every_truncation_and_every_extension_is_refused() {
        let key = key(1);
        let bytes = sealed(&key);
        for length in 0..bytes.len() {
            assert!(matches!(open(&bytes[..length], &key), Err(Refusal::Damaged { .. })), "cut to {length}");
        }
        for extra in ["\n", " ", "x", "\0", "{}"] {
            let longer = [&bytes, extra.as_bytes()].concat();
            assert!(matches!(open(&longer, &key), Err(Refusal::Damaged { .. })), "{extra:?} appended");
        }
    }

    #[test]
    fn an_altered_header_is_damage_and_a_newer_envelope_is_newer() {
        let key = key(1);
        let text = String::from_utf8(sealed(&key)).unwrap();
        let other = to_hex(&fingerprint(&self::key(2)));
        let header = text.replace(&to_hex(&fingerprint(&key)), &other);
        assert_eq!(open(header.as_bytes(), &key).unwrap_err(), Refusal::Damaged { reason: "its header was altered" });
        // Under the key that the altered header names it is damage no less.
        assert_eq!(
            open(header.as_bytes(), &self::key(2)).unwrap_err(),
            Refusal::Damaged { reason: "its bytes do not verify under the right key" }
        );
        let version = text.replace("\"version\": 1", "\"version\": 2");
        assert_eq!(open(version.as_bytes(), &key).unwrap_err(), Refusal::Damaged { reason: "its header was altered" });
        let newer = r#"{"version": 2, "recipients": [], "ciphertext": {"a": 1}}"#;
        assert_eq!(open(newer.as_bytes(), &key).unwrap_err(), Refusal::Newer { version: 2 });
    }

    #[test]
    fn salt_nonce_and_ciphertext_of_different_saves_do_not_mix() {
        let key = key(1);
        let [one, other] = [sealed(&key), sealed(&key)].map(|bytes| parse(&bytes).ok().unwrap());
        for part in 0..3 {
            let mut mixed = parse(&canonical(&one)).ok().unwrap();
            match part {
                0 => mixed.salt.clone_from(&other.salt),
                1 => mixed.nonce.clone_from(&other.nonce),
                _ => mixed.ciphertext.clone_from(&other.ciphertext),
            }
            assert!(matches!(open(&canonical(&mixed), &key), Err(Refusal::Damaged { .. })), "part {part}");
        }
    }

    #[test]
    fn a_store_that_is_not_encrypted_is_told_apart_from_a_damaged_one() {
        for text in [r#"{"slots":{"a":{"slot_id":"a"}}}"#, "{}", r#"{"version":1,"slots":{}}"#] {
            assert_eq!(open(text.as_bytes(), &key(1)).unwrap_err(), Refusal::Plaintext, "{text}");
        }
        for text in ["", "[]", "null", "secret", r#"{"version":1,"ciphertext":"AA=="}"#] {
            assert_eq!(
                open(text.as_bytes(), &key(1)).unwrap_err(),
                Refusal::Damaged { reason: "it is not an envelope" },
                "{text}"
            );
        }
    }
}
