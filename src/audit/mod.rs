//! Signing of what an auditor must be able to check offline.
//! Owns: the Ed25519 audit key and its public half, checkpoints, and the verification of the whole trail.
//! May touch: `audit-signing.key` and `audit-signing.pub.pem` in the state root, or the file named instead.
//! Never: makes a new key for records that another key has signed.

pub mod checkpoint;
pub mod control_plane;
pub mod incident;
pub mod key;
pub mod rotate;
pub mod verify;
