//! The daemon's signature under the evidence of an incident.
//! Owns: its label, the exact bytes that are signed, and its JSON form.
//! Never: signs anything but the label followed by a digest of 32 bytes, so no other document can be had signed this way.

use serde::{Deserialize, Serialize};

use super::key::{PublicKey, SigningKey};
use crate::hex::{parse_hex, to_hex};

/// What `type` says.
pub const TYPE: &str = "kheish-incident-signature";

/// What stands before the digest in the signed bytes. No other signature of this key begins so.
pub const LABEL: &[u8] = b"kheish-incident-manifest-v1\n";

/// Bytes of a SHA-256 digest.
const DIGEST_BYTES: usize = 32;

/// A signed manifest digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentSignature {
    /// [`TYPE`].
    pub r#type: String,
    /// Version of this form: 1.
    pub version: u32,
    /// SHA-256 of the manifest, hex.
    pub manifest_sha256: String,
    /// Which key signed.
    pub key_id: String,
    /// Ed25519 over [`LABEL`] and the 32 bytes of the digest, hex.
    pub signature: String,
}

/// The bytes that are signed.
pub fn message(digest: &[u8; DIGEST_BYTES]) -> Vec<u8> {
    [LABEL, digest.as_slice()].concat()
}

/// A digest from 64 hex digits in lower case.
pub fn parse_digest(text: &str) -> Option<[u8; DIGEST_BYTES]> {
    parse_hex(text.as_bytes()).and_then(|bytes| bytes.try_into().ok())
}

impl IncidentSignature {
    /// Signs a digest.
    pub fn sign(digest: &[u8; DIGEST_BYTES], key: &SigningKey) -> Self {
        Self {
            r#type: TYPE.to_string(),
            version: 1,
            manifest_sha256: to_hex(digest),
            key_id: key.key_id(),
            signature: to_hex(&key.sign(&message(digest))),
        }
    }

    /// Whether one of `keys` has signed `digest` with this.
    ///
    /// # Errors
    /// Why it is not to be believed.
    pub fn check(&self, digest: &[u8; DIGEST_BYTES], keys: &[PublicKey]) -> Result<(), String> {
        if self.r#type != TYPE || self.version != 1 {
            return Err(format!("it is a {:?} of version {}", self.r#type, self.version));
        }
        if parse_digest(&self.manifest_sha256).as_ref() != Some(digest) {
            return Err(format!("it is for a manifest with digest {:?}, not {}", self.manifest_sha256, to_hex(digest)));
        }
        let Some(key) = keys.iter().find(|key| key.key_id() == self.key_id) else {
            return Err(format!("it is signed by key {}, which was not given", self.key_id));
        };
        let signature = parse_hex(self.signature.as_bytes()).unwrap_or_default();
        match key.verify(&message(digest), &signature) {
            true => Ok(()),
            false => Err(format!("its signature is not key {}'s", self.key_id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::checkpoint::checkpoint_message;
    use crate::journal::Chain;

    #[test]
    fn a_signature_holds_for_its_digest_and_its_key_only() {
        let (key, other) = (SigningKey::from_seed(&[7; 32]), SigningKey::from_seed(&[8; 32]));
        let digest = [3; 32];
        let signature = IncidentSignature::sign(&digest, &key);
        let keys = [other.public().clone(), key.public().clone()];
        assert_eq!(signature.check(&digest, &keys), Ok(()));
        assert!(signature.check(&[4; 32], &keys).is_err_and(|cause| cause.contains("not 0404")));
        assert!(signature.check(&digest, &keys[..1]).is_err_and(|cause| cause.contains("was not given")));
        for altered in [
            IncidentSignature { signature: String::new(), ..signature.clone() },
            IncidentSignature { signature: "zz".into(), ..signature.clone() },
            IncidentSignature { key_id: other.key_id(), ..signature.clone() },
            IncidentSignature { version: 2, ..signature.clone() },
            IncidentSignature { r#type: "kheish-audit-checkpoint".into(), ..signature.clone() },
        ] {
            assert!(altered.check(&digest, &keys).is_err(), "{altered:?}");
        }
    }

    #[test]
    fn no_digest_makes_the_bytes_of_a_checkpoint_and_nothing_but_a_digest_is_one() {
        assert!(!checkpoint_message(1, Chain([0; 32]), 1).starts_with(LABEL));
        assert_eq!(message(&[5; 32]).len(), LABEL.len() + 32);
        for bad in ["", "00", &"0".repeat(62), &"0".repeat(66), &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(parse_digest(bad), None, "{bad}");
        }
    }
}
