//! Changing the signing key, and moving it out of the state root.
//! Owns: the order of steps, which a crash may cut anywhere.
//! May touch: the key files and, under the state root's lock, the journal.
//! Never: removes a key before its successor or its copy is durable and was read back; works on a root in use.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::rand::SecureRandom;
use serde::Serialize;

use super::key::{KEY_FILE, KeyError, PUBLIC_FILE, SigningKey};
use crate::journal::{Journal, JournalError, KeyRotated, Options, RealDisk, RecordRef, Restore, verify_with};
use crate::state_root::{Directory, StateRoot};

/// What follows the key's file name while its successor waits to take its place.
const NEXT_SUFFIX: &str = ".next";

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rotation {
    /// Who signed until now.
    pub old_key_id: String,
    /// Who signs from now on.
    pub new_key_id: String,
    /// Where the key lies.
    pub key_file: PathBuf,
    /// Whether this finished a rotation that an earlier call had begun.
    pub resumed: bool,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Relocation {
    /// The key.
    pub key_id: String,
    /// Where it lies now.
    pub key_file: PathBuf,
    /// What to start the daemon with from now on.
    pub next: String,
}

/// Why the key stays as it is.
#[derive(Debug)]
pub enum RotateError {
    /// A key could not be read or written.
    Key(KeyError),
    /// The journal could not be opened or written.
    Journal(JournalError),
    /// A file operation failed.
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What failed.
        cause: io::Error,
    },
    /// The key is not the one that signs this journal, or the journal does not verify with it.
    NotVerified {
        /// Why.
        cause: String,
    },
    /// The file that the key is to be moved to exists.
    TargetExists {
        /// Which.
        path: PathBuf,
    },
    /// The target lies in the state root, from which the key is to leave.
    TargetInside {
        /// Which.
        path: PathBuf,
    },
}

impl fmt::Display for RotateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(error) => error.fmt(f),
            Self::Journal(error) => error.fmt(f),
            Self::Io { action, path, cause } => write!(
                f,
                "cannot {action} {}: {cause}; next: check the path, its owner and its disk, then run the command again",
                path.display()
            ),
            Self::NotVerified { cause } => write!(
                f,
                "the journal does not verify with this key: {cause}; next: run kheish-daemon audit verify --offline, and \
                 name the key that signs this state root"
            ),
            Self::TargetExists { path } => {
                write!(f, "{} exists and holds another key; next: name a new file", path.display())
            }
            Self::TargetInside { path } => {
                write!(f, "{} lies in the state root; next: name a file outside of it", path.display())
            }
        }
    }
}

impl std::error::Error for RotateError {}

impl From<KeyError> for RotateError {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

impl From<JournalError> for RotateError {
    fn from(error: JournalError) -> Self {
        Self::Journal(error)
    }
}

/// The file in which a successor waits. While it exists a rotation is unfinished and no daemon starts.
pub fn waiting_successor(key_file: &Path) -> PathBuf {
    let mut name = key_file.file_name().unwrap_or_default().to_os_string();
    name.push(NEXT_SUFFIX);
    key_file.with_file_name(name)
}

/// Makes a new key, lets the old one vouch for it in the journal, and puts it in the old one's place. Called again
/// after a crash it finishes what was begun. `key_file` is the key's file, where it does not lie in the state root.
///
/// # Errors
/// See [`RotateError`]; the old key then still holds, or the next call goes on.
pub fn rotate(
    root: &StateRoot,
    key_file: Option<&Path>,
    now_ms: u64,
    random: &dyn SecureRandom,
) -> Result<Rotation, RotateError> {
    let key_file = key_file.map_or_else(|| root.path().join(KEY_FILE), Path::to_path_buf);
    let successor = waiting_successor(&key_file);
    let old = Arc::new(SigningKey::read(&key_file)?);
    let resumed = successor.exists();
    if !resumed {
        require_signer(root, &old)?;
        SigningKey::create(&successor, random)?;
    }
    let new = Arc::new(SigningKey::read(&successor)?);
    let rotation = Rotation { old_key_id: old.key_id(), new_key_id: new.key_id(), key_file: key_file.clone(), resumed };
    if !has_handed_over(root, &new) {
        let mut journal = open_journal(root, old, now_ms)?;
        journal.hand_over(new.clone(), now_ms)?;
        journal.close(now_ms)?;
    }
    new.public().publish(&root.path().join(PUBLIC_FILE))?;
    fs::rename(&successor, &key_file).map_err(|cause| io_error("replace", &key_file, cause))?;
    sync_directory(&key_file)?;
    Ok(rotation)
}

/// Copies the state root's key to `target`, reads it back, and only then removes it from the state root.
///
/// # Errors
/// See [`RotateError`]; the key in the state root stays then.
pub fn relocate(root: &StateRoot, target: &Path) -> Result<Relocation, RotateError> {
    let own = root.path().join(KEY_FILE);
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parent = fs::canonicalize(parent).map_err(|cause| io_error("find the directory of", target, cause))?;
    let state_root = fs::canonicalize(root.path()).map_err(|cause| io_error("find", root.path(), cause))?;
    if parent.starts_with(&state_root) {
        return Err(RotateError::TargetInside { path: target.to_path_buf() });
    }
    let key = SigningKey::read(&own)?;
    require_signer(root, &key)?;
    match SigningKey::read(target) {
        // An earlier call was cut off behind the copy.
        Ok(copy) if copy.key_id() == key.key_id() => {}
        Ok(_) => return Err(RotateError::TargetExists { path: target.to_path_buf() }),
        Err(_) if fs::symlink_metadata(target).is_ok() => {
            return Err(RotateError::TargetExists { path: target.to_path_buf() });
        }
        Err(_) => SigningKey::copy_file(&own, target)?,
    }
    let copy = SigningKey::read(target)?;
    if copy.key_id() != key.key_id() {
        return Err(RotateError::NotVerified { cause: "the copy holds another key".to_string() });
    }
    fs::remove_file(&own).map_err(|cause| io_error("remove", &own, cause))?;
    sync_directory(&own)?;
    let next = format!("start the daemon with --audit-signing-key-file {}", target.display());
    Ok(Relocation { key_id: key.key_id(), key_file: target.to_path_buf(), next })
}

/// The journal must verify, and `key` must be the one that signs it now.
fn require_signer(root: &StateRoot, key: &SigningKey) -> Result<(), RotateError> {
    let mut last = None;
    let mut inspect = |record: &RecordRef<'_>, _: &[super::key::PublicKey]| {
        if record.kind == "journal.seal" || record.kind == "journal.key_rotated" {
            last = signer_after(record);
        }
        Ok(())
    };
    let report = verify_with(root.path(), &[], &mut |_| {}, &mut inspect);
    if let Some(problem) = report.problem {
        // A root in which nothing was recorded has nothing to verify.
        if report.records > 0 {
            return Err(RotateError::NotVerified { cause: problem.reason });
        }
    }
    match last {
        Some(signer) if signer != key.key_id() => {
            Err(RotateError::NotVerified { cause: format!("it is signed by key {signer}, not by {}", key.key_id()) })
        }
        _ => Ok(()),
    }
}

fn signer_after(record: &RecordRef<'_>) -> Option<String> {
    if record.kind == "journal.key_rotated" {
        return serde_json::from_str::<KeyRotated>(record.body.get()).ok().map(|rotated| rotated.new_key_id);
    }
    serde_json::from_str::<crate::journal::Seal>(record.body.get()).ok().map(|seal| seal.key_id)
}

fn has_handed_over(root: &StateRoot, new: &SigningKey) -> bool {
    let mut found = false;
    let mut inspect = |record: &RecordRef<'_>, _: &[super::key::PublicKey]| {
        found |= record.kind == "journal.key_rotated" && signer_after(record) == Some(new.key_id());
        Ok(())
    };
    verify_with(root.path(), &[], &mut |_| {}, &mut inspect);
    found
}

fn open_journal(root: &StateRoot, signer: Arc<SigningKey>, now_ms: u64) -> Result<Journal, RotateError> {
    struct Nothing;
    impl Restore for Nothing {
        fn reset(&mut self) {}
        fn snapshot_line(&mut self, _line: &[u8]) -> Result<(), String> {
            Ok(())
        }
        fn record(&mut self, _record: &RecordRef<'_>) -> Result<(), String> {
            Ok(())
        }
    }
    let disk = |directory: PathBuf| {
        RealDisk::open(&directory).map(Box::new).map_err(|cause| io_error("open", &directory, cause))
    };
    let (journal, snapshots) = (disk(root.directory(Directory::Journal))?, disk(root.directory(Directory::Snapshots))?);
    let (journal, _) = Journal::open(journal, snapshots, Options::default(), signer, now_ms, &mut Nothing)?;
    Ok(journal)
}

fn io_error(action: &'static str, path: &Path, cause: io::Error) -> RotateError {
    RotateError::Io { action, path: path.to_path_buf(), cause }
}

fn sync_directory(file: &Path) -> Result<(), RotateError> {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|cause| io_error("sync the directory of", file, cause))
}
