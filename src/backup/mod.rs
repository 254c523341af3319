//! Backups: a consistent copy of a running daemon's state root, its verification, and its restore.
//! Owns: the form of a backup (docs/operators/backup.md), what belongs into one, and the barrier under which it is begun.
//! May touch: a state root and a workspace for reading; the directory of a backup; the empty directory of a restore.
//! Never: needs a daemon to verify or restore; writes into a directory that holds something; takes a half-made backup for one.
//!
//! `create` is a command that reads the state root itself, as the daemon's user. The daemon only seals its journal and keeps two
//! writers still while the command opens their files: an open file and its length are enough, since none of them is ever
//! changed below its length. Journal segments are copied up to the seal, blobs after them.

mod archive;
pub mod barrier;
mod create;
mod error;
mod key;
mod manifest;
mod out;
mod restore;
mod seal;
mod source;
mod tar;
mod verify;

pub use archive::Backup;
pub use create::{Gate, Kept, OfflineGate, Pass, Request, Summary, create};
pub use error::{BackupError, Problem};
pub use key::BackupKey;
pub use manifest::{AuditKeyNote, FORMAT, HEAD_FILE, Manifest, Note};
pub use restore::{Restored, Target, restore};
pub use verify::{Checks, Report, verify};

/// The archive of the state root.
pub const STATE_ARCHIVE: &str = "state.tar";
/// The archive of the workspace.
pub const WORKSPACE_ARCHIVE: &str = "workspace.tar";
/// What stands behind the name of a file that is encrypted.
pub const SEALED_SUFFIX: &str = ".sealed";
