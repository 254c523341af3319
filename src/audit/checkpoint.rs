//! A signed chain head that is kept elsewhere: what it vouches for cannot be cut off later without being noticed.
//! Owns: its JSON form and the exact bytes that are signed.
//! Never: touches a file; whoever prints or keeps one does.

use serde::{Deserialize, Serialize};

use super::key::{PublicKey, SigningKey};
use crate::hex::{parse_hex, to_hex};
use crate::ids::Seq;
use crate::journal::Chain;

/// What `type` says.
pub const TYPE: &str = "kheish-audit-checkpoint";

/// A signed head of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// [`TYPE`].
    pub r#type: String,
    /// Version of this form: 1.
    pub version: u32,
    /// Position of the last record.
    pub head: Seq,
    /// Its chain value, which covers everything before it.
    pub chain: Chain,
    /// When it was made, Unix milliseconds.
    pub at_ms: u64,
    /// Which key signed.
    pub key_id: String,
    /// Ed25519 over [`checkpoint_message`], hex.
    pub signature: String,
}

/// The bytes that a checkpoint signs.
pub fn checkpoint_message(head: Seq, chain: Chain, at_ms: u64) -> Vec<u8> {
    format!("kheish-audit-checkpoint-v1\n{head}\n{chain}\n{at_ms}\n").into_bytes()
}

impl Checkpoint {
    /// Signs a head.
    pub fn sign(head: Seq, chain: Chain, at_ms: u64, key: &SigningKey) -> Self {
        let signature = to_hex(&key.sign(&checkpoint_message(head, chain, at_ms)));
        Self { r#type: TYPE.to_string(), version: 1, head, chain, at_ms, key_id: key.key_id(), signature }
    }

    /// Reads one back.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let checkpoint: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if checkpoint.r#type != TYPE || checkpoint.version != 1 {
            return Err(format!("it is a {:?} of version {}", checkpoint.r#type, checkpoint.version));
        }
        Ok(checkpoint)
    }

    /// Whether one of `keys` has signed it.
    ///
    /// # Errors
    /// Why it is not to be believed.
    pub fn check(&self, keys: &[PublicKey]) -> Result<(), String> {
        let Some(key) = keys.iter().find(|key| key.key_id() == self.key_id) else {
            return Err(format!("it is signed by key {}, which was not given", self.key_id));
        };
        let signature = parse_hex(self.signature.as_bytes()).unwrap_or_default();
        match key.verify(&checkpoint_message(self.head, self.chain, self.at_ms), &signature) {
            true => Ok(()),
            false => Err(format!("its signature is not key {}'s", self.key_id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_holds_for_its_head_chain_time_and_key_only() {
        let (key, other) = (SigningKey::from_seed(&[7; 32]), SigningKey::from_seed(&[8; 32]));
        let checkpoint = Checkpoint::sign(9, Chain([1; 32]), 5, &key);
        let keys = [other.public().clone(), key.public().clone()];
        let text = serde_json::to_vec(&checkpoint).expect("serialises");
        assert_eq!(Checkpoint::parse(&text).as_ref(), Ok(&checkpoint));
        assert_eq!(checkpoint.check(&keys), Ok(()));
        assert!(checkpoint.check(&keys[..1]).is_err_and(|cause| cause.contains("was not given")));
        for altered in [
            Checkpoint { head: 8, ..checkpoint.clone() },
            Checkpoint { chain: Chain([2; 32]), ..checkpoint.clone() },
            Checkpoint { at_ms: 6, ..checkpoint.clone() },
            Checkpoint { key_id: other.key_id(), ..checkpoint.clone() },
            Checkpoint { signature: String::new(), ..checkpoint.clone() },
        ] {
            assert!(altered.check(&keys).is_err_and(|cause| cause.contains("signature is not")), "{altered:?}");
        }
        for other in ["{}", "[]", "{\"type\":\"x\"}"] {
            assert!(Checkpoint::parse(other.as_bytes()).is_err(), "{other}");
        }
    }
}
