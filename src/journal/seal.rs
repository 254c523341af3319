//! The journal's own records: seals, openings, and reports of a cut.
//! Owns: their bodies and the exact bytes that a seal signs.
//! Never: writes.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::chain::{Chain, parse_hex, to_hex};
use super::disk::Identity;
use crate::audit::key::{PublicKey, SigningKey};
use crate::ids::Seq;

/// Kind of a seal.
pub(super) const SEAL: &str = "journal.seal";
/// Kind of the record that each opening writes.
pub(super) const OPENED: &str = "journal.opened";
/// Kind of the record that reports a cut tail.
pub(super) const RECOVERED: &str = "journal.recovered";

/// Kind of the record by which one key hands over to the next.
pub(super) const KEY_ROTATED: &str = "journal.key_rotated";

/// Body of `journal.key_rotated`: the old key vouches for the new one, which alone signs from there on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRotated {
    /// Who signs this record.
    pub old_key_id: String,
    /// Who signs everything behind it.
    pub new_key_id: String,
    /// The new key's 32 public bytes, hex.
    pub new_public_key: String,
    /// Ed25519 of the old key over [`hand_over_message`], hex.
    pub signature: String,
}

/// The bytes that the old key signs.
pub fn hand_over_message(old_key_id: &str, new_public_key: &str) -> Vec<u8> {
    format!("kheish-audit-key-rotation-v1\n{old_key_id}\n{new_public_key}\n").into_bytes()
}

impl KeyRotated {
    /// Lets `old` vouch for `new`.
    pub fn sign(old: &SigningKey, new: &PublicKey) -> Self {
        let new_public_key = to_hex(new.bytes());
        let signature = to_hex(&old.sign(&hand_over_message(&old.key_id(), &new_public_key)));
        Self { old_key_id: old.key_id(), new_key_id: new.key_id(), new_public_key, signature }
    }

    /// The new key, if one of `keys` vouches for it.
    ///
    /// # Errors
    /// Why it is not to be believed.
    pub fn check(&self, keys: &[PublicKey]) -> Result<PublicKey, String> {
        let bytes = parse_hex(self.new_public_key.as_bytes()).and_then(|bytes| bytes.try_into().ok());
        let new = PublicKey::from_bytes(bytes.ok_or("the new key is not 64 hex digits")?);
        if new.key_id() != self.new_key_id {
            return Err(format!("the new key is not the one that it names, {}", self.new_key_id));
        }
        let Some(old) = keys.iter().find(|key| key.key_id() == self.old_key_id) else {
            return Err(format!("the hand-over is signed by key {}, which is not known here", self.old_key_id));
        };
        let signature = parse_hex(self.signature.as_bytes()).unwrap_or_default();
        match old.verify(&hand_over_message(&self.old_key_id, &self.new_public_key), &signature) {
            true => Ok(new),
            false => Err(format!("the hand-over's signature is not key {}'s", self.old_key_id)),
        }
    }
}

/// Body of `journal.seal`: a signed chain head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Position of the record before the seal.
    pub head: Seq,
    /// That record's chain value.
    pub chain: Chain,
    /// Which key signed.
    pub key_id: String,
    /// Ed25519 over [`seal_message`], hex.
    pub signature: String,
}

/// The bytes that a seal signs.
pub fn seal_message(head: Seq, chain: Chain) -> Vec<u8> {
    format!("kheish-journal-seal-v1\n{head}\n{chain}\n").into_bytes()
}

/// How a seal relates to a set of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SealCheck {
    /// Signed by one of them.
    Good,
    /// Signed by a key that is not among them.
    UnknownKey,
    /// Signed in the name of one of them, and not by it.
    Forged,
}

impl Seal {
    /// Signs a head.
    pub fn sign(head: Seq, chain: Chain, key: &SigningKey) -> Self {
        let signature = to_hex(&key.sign(&seal_message(head, chain)));
        Self { head, chain, key_id: key.key_id(), signature }
    }

    pub(super) fn check(&self, keys: &[PublicKey]) -> SealCheck {
        let Some(key) = keys.iter().find(|key| key.key_id() == self.key_id) else { return SealCheck::UnknownKey };
        let good = parse_hex(self.signature.as_bytes())
            .is_some_and(|signature| key.verify(&seal_message(self.head, self.chain), &signature));
        if good { SealCheck::Good } else { SealCheck::Forged }
    }
}

/// Why the journal was opened the way it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenCause {
    /// There was nothing.
    Created,
    /// The same directory as before.
    Reopened,
    /// A copy or a restored backup: a new epoch begins.
    Copied,
}

/// Body of `journal.opened`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Format of everything that follows.
    pub format: u32,
    /// Epoch of everything that follows.
    pub epoch: u32,
    /// Why.
    pub cause: OpenCause,
    /// The journal directory.
    pub directory: Identity,
    /// The file that holds this record.
    pub file: Identity,
    /// Daemon version.
    pub version: String,
    /// Process id.
    pub pid: u32,
}

/// Body of `journal.recovered`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// File name of the segment that was cut.
    pub segment: String,
    /// Where it was cut.
    pub offset: u64,
    /// Bytes that were cut, up to the last one that was not NUL.
    pub bytes: u64,
    /// Number of the batch that was torn.
    pub batch: u64,
    /// SHA-256 of the bytes that were cut.
    pub sha256: String,
    /// What was wrong with them.
    pub cause: String,
}

/// Reads a body of the journal's own.
pub(super) fn body<'a, T: Deserialize<'a>>(body: &'a RawValue) -> Result<T, String> {
    serde_json::from_str(body.get()).map_err(|cause| format!("its body is not as documented: {cause}"))
}

/// Writes a body of the journal's own.
pub(super) fn to_body(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("bodies have string keys and no failing serialisers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_holds_for_its_head_its_chain_and_its_key_only() {
        let key = SigningKey::from_seed(&[7; 32]);
        let other = SigningKey::from_seed(&[8; 32]);
        let seal = Seal::sign(5, Chain([1; 32]), &key);
        let keys = [other.public().clone(), key.public().clone()];
        assert_eq!(seal.check(&keys), SealCheck::Good);
        assert_eq!(seal.check(&keys[..1]), SealCheck::UnknownKey);
        for forged in [
            Seal { head: 6, ..seal.clone() },
            Seal { chain: Chain([2; 32]), ..seal.clone() },
            Seal { key_id: other.key_id(), ..seal.clone() },
            Seal { signature: String::new(), ..seal.clone() },
        ] {
            assert_eq!(forged.check(&keys), SealCheck::Forged);
        }
    }

    #[test]
    fn the_signed_bytes_are_those_of_the_documentation() {
        let expected = format!("kheish-journal-seal-v1\n9\n{}\n", "00".repeat(32));
        assert_eq!(seal_message(9, Chain::START), expected.into_bytes());
    }
}
