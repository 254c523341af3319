//! Signing of what an auditor must be able to check offline.
//! Owns: the Ed25519 audit key and its public half.
//! May touch: `audit-signing.key` and `audit-signing.pub.pem` in the state root, or the file named instead.
//! Never: makes a new key for records that another key has signed.

pub mod control_plane;
pub mod key;
