//! Encrypting the auth store under another master key, with the daemon stopped.
//! Owns: the order of the steps, and which of the two keys a store is readable with after each.
//! May touch: the store, its temporary neighbour; the backup, reading.
//! Never: replaces a store by bytes that were not read back and compared; goes on without the backup it was given.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use zeroize::Zeroizing;

use super::super::envelope::{self, TAG_BYTES};
use super::super::master_key::MasterKey;
use super::{FILE_NAME, Step, StoreError, decode, io_error, read_file, refused, replace_with};
use crate::state_root::replace::clear_leftover;
use crate::state_root::{Directory, StateRoot};

mod backup;

pub use backup::BackupError;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rekeyed {
    /// Whether the store was encrypted anew; false when it was under the new key already.
    pub rekeyed: bool,
    /// The key with which the store can be read now.
    pub readable_with: &'static str,
    /// Slots in the store.
    pub slots: usize,
    /// Names the former key.
    pub old_key_fingerprint: String,
    /// Names the new key.
    pub new_key_fingerprint: String,
    /// Where a store with the same slots was found readable with the former key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified_backup: Option<String>,
}

/// Why the store was not encrypted anew. Unless said otherwise it is as it was, readable with the former key.
#[derive(Debug)]
#[allow(missing_docs, reason = "each variant's line says what its fields hold")]
pub enum RekeyError {
    /// There is nothing to encrypt.
    NoStore { path: PathBuf },
    /// Both keys are one.
    SameKey,
    /// The store can be read with neither key.
    Store(StoreError),
    /// The backup is not one of this store.
    Backup(BackupError),
    /// What was written could not be read back as it should.
    NotReadBack { path: PathBuf },
    /// The new store is in place and may be lost by a power cut.
    Uncertain { path: PathBuf, cause: String },
}

impl fmt::Display for RekeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStore { path } => {
                write!(f, "there is no auth store {}; next: start the daemon with the new key at once", path.display())
            }
            Self::SameKey => f.write_str(
                "both keys are the same; next: make another one with `kheish-daemon secrets generate`, and name its file \
                 with --new-key-file",
            ),
            Self::Store(error) => error.fmt(f),
            Self::Backup(error) => error.fmt(f),
            Self::NotReadBack { path } => write!(
                f,
                "the re-encrypted copy of {} did not read back as it was written and was thrown away; the store is as it \
                 was, readable with the old key; next: check the disk",
                path.display()
            ),
            Self::Uncertain { path, cause } => write!(
                f,
                "{} was replaced and is readable with the new key, and a power cut may bring back the one readable with \
                 the old key ({cause}); next: keep both keys, check the disk, and run the command again",
                path.display()
            ),
        }
    }
}

impl std::error::Error for RekeyError {}

impl From<StoreError> for RekeyError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Encrypts the store of `root`, whose lock the caller holds by having it, under `new`. A backup, if one is given, must
/// hold a store with the same slots that can be read with `old`. A crash at any moment leaves the store readable with
/// exactly one of the keys; running it again tells with which, and goes on.
///
/// # Errors
/// The store is as it was, but for [`RekeyError::Uncertain`].
pub fn rekey(root: &StateRoot, old: &MasterKey, new: &MasterKey, backup: Option<&Path>) -> Result<Rekeyed, RekeyError> {
    rekey_with(root, old, new, backup, &mut |_| Ok(()))
}

fn rekey_with(
    root: &StateRoot,
    old: &MasterKey,
    new: &MasterKey,
    backup: Option<&Path>,
    before: &mut dyn FnMut(Step) -> io::Result<()>,
) -> Result<Rekeyed, RekeyError> {
    let path = root.directory(Directory::Auth).join(FILE_NAME);
    let (old_key_fingerprint, new_key_fingerprint) = (envelope::key_fingerprint(old), envelope::key_fingerprint(new));
    if old_key_fingerprint == new_key_fingerprint {
        return Err(RekeyError::SameKey);
    }
    clear_leftover(&path).map_err(io_error("clear the leftover of", &path))?;
    let Some((bytes, _)) = read_file(&path)? else { return Err(RekeyError::NoStore { path }) };
    let done = |rekeyed, slots, verified_backup| Rekeyed {
        rekeyed,
        readable_with: "new_key",
        slots,
        old_key_fingerprint,
        new_key_fingerprint,
        verified_backup,
    };
    if let Ok(contents) = envelope::open(&bytes, new) {
        return Ok(done(false, decode(&contents, &path)?.1.len(), None));
    }
    let contents = envelope::open(&bytes, old).map_err(|refusal| refused(refusal, path.clone()))?;
    let (_, slots) = decode(&contents, &path)?;
    let verified_backup = match backup {
        Some(given) => Some(verify_backup(given, root, old, &contents).map_err(RekeyError::Backup)?),
        None => None,
    };
    let sealed = envelope::seal(with_room(&contents), new).ok_or(StoreError::NoRandom)?;
    replace(&path, &sealed, new, &contents, before)?;
    match read_file(&path)? {
        Some((bytes, _)) if envelope::open(&bytes, new).is_ok_and(|found| *found == *contents) => {}
        _ => return Err(RekeyError::NotReadBack { path }),
    }
    Ok(done(true, slots.len(), verified_backup))
}

/// Renames `sealed` into place after it was read back from the disk and found to hold `contents`.
fn replace(
    path: &Path,
    sealed: &[u8],
    key: &MasterKey,
    contents: &Zeroizing<Vec<u8>>,
    before: &mut dyn FnMut(Step) -> io::Result<()>,
) -> Result<(), RekeyError> {
    let temporary = path.with_file_name(format!(".{FILE_NAME}.tmp"));
    let mut is_read_back = true;
    let replaced = replace_with(path, sealed, &mut |step| {
        before(step)?;
        if step == Step::Rename {
            let found = fs::read(&temporary)?;
            is_read_back = envelope::open(&found, key).is_ok_and(|found| *found == **contents);
            if !is_read_back {
                return Err(io::Error::other("it does not read back"));
            }
        }
        Ok(())
    });
    match replaced {
        Ok(()) => Ok(()),
        Err(_) if !is_read_back => Err(RekeyError::NotReadBack { path: path.to_path_buf() }),
        Err(error) if error.is_renamed() => {
            Err(RekeyError::Uncertain { path: path.to_path_buf(), cause: error.to_string() })
        }
        Err(error) => Err(StoreError::Replace(error).into()),
    }
}

/// A copy with the room that sealing needs.
fn with_room(contents: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut copy = Zeroizing::new(Vec::with_capacity(contents.len() + TAG_BYTES));
    copy.extend_from_slice(contents);
    copy
}

/// Ids and versions are compared, and not the bytes: a store that was merely saved again is still a backup.
fn verify_backup(given: &Path, root: &StateRoot, old: &MasterKey, live: &[u8]) -> Result<String, BackupError> {
    let is_live = |path: &Path| {
        let live = fs::metadata(root.directory(Directory::Auth).join(FILE_NAME));
        let found = fs::metadata(path);
        matches!((live, found), (Ok(live), Ok(found)) if (live.dev(), live.ino()) == (found.dev(), found.ino()))
    };
    let (bytes, whence) = backup::store_in(given, &is_live)?;
    let contents = envelope::open(&bytes, old).map_err(|_| BackupError::Unreadable { path: given.to_path_buf() })?;
    let slots = |contents: &[u8]| {
        let decoded = decode(contents, given).map_err(|_| BackupError::Unreadable { path: given.to_path_buf() });
        decoded.map(|(_, slots)| slots.into_iter().map(|(id, entry)| (id, entry.version)).collect::<Vec<_>>())
    };
    let (theirs, ours) = (slots(&contents)?, slots(live)?);
    match ours.iter().find(|slot| !theirs.contains(slot)) {
        Some((slot, _)) => Err(BackupError::Stale { path: given.to_path_buf(), slot: slot.to_string() }),
        None => Ok(whence),
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::super::{Store, key, record};
    use super::*;
    use crate::state_root::scratch::Scratch;

    fn other() -> MasterKey {
        MasterKey::parse(b"fedcba9876543210FEDCBA9876543210", "test").unwrap()
    }

    /// A store with two slots, and the file's bytes.
    fn filled(scratch: &Scratch) -> (StateRoot, Vec<u8>) {
        let root = StateRoot::open(&scratch.path().join("root"), true).unwrap();
        let mut store = Store::open(&root, Some(key())).unwrap();
        store.put(record("a", "secret-one")).unwrap();
        store.put(record("b", "secret-two")).unwrap();
        let bytes = fs::read(root.directory(Directory::Auth).join(FILE_NAME)).unwrap();
        (root, bytes)
    }

    fn opens(root: &StateRoot, key: MasterKey) -> bool {
        Store::open(root, Some(key)).is_ok_and(|store| store.list().len() == 2)
    }

    #[test]
    fn a_crash_before_any_step_leaves_a_store_that_exactly_one_key_opens_and_the_next_try_completes_it() {
        for (index, crash) in Step::ALL.into_iter().enumerate() {
            let scratch = Scratch::new("rekey-crash");
            let (root, _) = filled(&scratch);
            // A panic skips every clean-up, as a crash does.
            let crashed = catch_unwind(AssertUnwindSafe(|| {
                let _ = rekey_with(&root, &key(), &other(), None, &mut |step| {
                    assert_ne!(step, crash, "crash");
                    Ok(())
                });
            }));
            assert!(crashed.is_err(), "{crash:?} was never reached");
            let is_new = index == 5;
            assert_eq!((opens(&root, key()), opens(&root, other())), (!is_new, is_new), "crash before {crash:?}");
            let again = rekey(&root, &key(), &other(), None).unwrap();
            assert_eq!((again.rekeyed, again.slots, again.readable_with), (!is_new, 2, "new_key"), "{crash:?}");
            assert_eq!((opens(&root, key()), opens(&root, other())), (false, true), "after {crash:?}");
        }
    }

    #[test]
    fn what_does_not_read_back_is_thrown_away() {
        let scratch = Scratch::new("rekey-read-back");
        let (root, before) = filled(&scratch);
        let temporary = root.directory(Directory::Auth).join(format!(".{FILE_NAME}.tmp"));
        let error = rekey_with(&root, &key(), &other(), None, &mut |step| {
            if step == Step::Rename {
                let mut bytes = fs::read(&temporary)?;
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(&temporary, bytes)?;
            }
            Ok(())
        });
        assert!(matches!(error, Err(RekeyError::NotReadBack { .. })), "{error:?}");
        assert_eq!(fs::read(root.directory(Directory::Auth).join(FILE_NAME)).unwrap(), before);
        assert!(!temporary.exists());
    }

    #[test]
    fn a_failing_step_is_an_error_that_says_which_key_opens_the_store() {
        for step in Step::ALL {
            let scratch = Scratch::new("rekey-fault");
            let (root, _) = filled(&scratch);
            let failing = |at| if at == step { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) };
            let error = rekey_with(&root, &key(), &other(), None, &mut { failing }).unwrap_err();
            let is_new = matches!(error, RekeyError::Uncertain { .. });
            assert_eq!(is_new, step == Step::SyncDirectory, "{step:?}: {error}");
            assert_eq!((opens(&root, key()), opens(&root, other())), (!is_new, is_new), "{step:?}");
            assert!(error.to_string().contains("; next: "), "{error}");
        }
    }

    #[test]
    fn one_key_a_foreign_key_and_no_store_are_refused() {
        let scratch = Scratch::new("rekey-refused");
        let root = StateRoot::open(&scratch.path().join("root"), true).unwrap();
        assert!(matches!(rekey(&root, &key(), &other(), None), Err(RekeyError::NoStore { .. })));
        drop(root);
        let (root, before) = filled(&scratch);
        assert!(matches!(rekey(&root, &key(), &key(), None), Err(RekeyError::SameKey)));
        let third = MasterKey::parse(b"0123456789abcdefghijklmnopqrstuv", "test").unwrap();
        let error = rekey(&root, &third, &other(), None).unwrap_err();
        assert!(matches!(error, RekeyError::Store(StoreError::WrongKey { .. })), "{error}");
        assert_eq!(fs::read(root.directory(Directory::Auth).join(FILE_NAME)).unwrap(), before);
    }
}
