//! The key that encrypts the bodies of artifacts.
//! Owns: its derivation, its id, sealing and opening.
//! Never: is the key that it comes from; an artifact gives nothing away of the auth store.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use crate::broker::MasterKey;
use crate::hex::to_hex;

/// A derived key. Its `Debug` shows its id alone.
pub struct CaptureKey {
    key: LessSafeKey,
    id: String,
}

impl fmt::Debug for CaptureKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CaptureKey").field(&self.id).finish()
    }
}

impl CaptureKey {
    /// The key that `source` gives for this purpose and no other.
    pub fn new(source: &MasterKey) -> Self {
        let bytes = source.derive("kheish-debug-capture-v1");
        let key = UnboundKey::new(&AES_256_GCM, bytes.expose()).expect("a derived key has 32 bytes");
        let id = to_hex(&digest(&SHA256, source.derive("kheish-debug-capture-key-id-v1").expose()).as_ref()[..8]);
        Self { key: LessSafeKey::new(key), id }
    }

    /// Tells keys apart and gives nothing away.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A fresh nonce; `None` when the system gives no random bytes.
    pub(super) fn nonce() -> Option<[u8; NONCE_LEN]> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok().map(|()| nonce)
    }

    /// Encrypts in place and appends the tag. `header` is bound to the body, so that neither can be exchanged.
    pub(super) fn seal(&self, nonce: [u8; NONCE_LEN], header: &[u8], body: &mut Vec<u8>) {
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(header), body)
            .expect("an artifact is far below the cipher's length limit");
    }

    /// Decrypts; `None` when body or header are not what was sealed.
    pub(super) fn open(&self, nonce: [u8; NONCE_LEN], header: &[u8], mut body: Vec<u8>) -> Option<Vec<u8>> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let length = self.key.open_in_place(nonce, Aad::from(header), &mut body).ok()?.len();
        body.truncate(length);
        Some(body)
    }
}
