//! Replacing a small file so that a crash leaves the old bytes or the new ones, never a mixture.
//! Owns: the order create, write, sync, rename, sync directory, and the temporary file's name.
//! May touch: the target and `.<target>.tmp` beside it.
//! Never: follows a link at the temporary name, or leaves a file readable by others.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The steps of a replacement, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Remove what an earlier crash left at the temporary name.
    Clear,
    /// Create the temporary file, 0600.
    Create,
    /// Write all bytes.
    Write,
    /// Sync the temporary file.
    Sync,
    /// Rename it over the target: the commit point.
    Rename,
    /// Sync the directory, so that a power cut cannot take the rename back.
    SyncDirectory,
}

impl Step {
    /// All steps, in order.
    pub const ALL: [Self; 6] = [Self::Clear, Self::Create, Self::Write, Self::Sync, Self::Rename, Self::SyncDirectory];
}

/// A replacement failed at `step`.
#[derive(Debug)]
pub struct ReplaceError {
    /// The file that was to be replaced.
    pub target: PathBuf,
    /// Where it failed.
    pub step: Step,
    /// What the system said.
    pub source: io::Error,
}

impl ReplaceError {
    /// Whether the rename took place: the new bytes are visible, but a power cut may still bring the old
    /// ones back. The caller must not go on as if either were certain.
    pub fn is_renamed(&self) -> bool {
        self.step == Step::SyncDirectory
    }
}

impl fmt::Display for ReplaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.target.display();
        let source = &self.source;
        let (done, next) = match self.step {
            Step::SyncDirectory => {
                ("replaced it, but cannot sync its directory", "check the disk and restart the daemon")
            }
            Step::Clear | Step::Create => ("cannot create its temporary file", "check the directory's mode and space"),
            Step::Write | Step::Sync => ("cannot write its temporary file", "free space or check the disk"),
            Step::Rename => ("cannot rename its temporary file", "check that the target is a plain file"),
        };
        write!(f, "replacing {target}: {done}: {source}; next: {next}, then try again")
    }
}

impl std::error::Error for ReplaceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Replaces `target` by a file (0600) that holds `bytes`; durable when it returns. One writer per target.
///
/// # Errors
/// Up to and including the rename the target is unchanged and the temporary file is removed;
/// [`ReplaceError::is_renamed`] tells the one later failure.
pub fn atomic_replace(target: &Path, bytes: &[u8]) -> Result<(), ReplaceError> {
    replace_with(target, bytes, &mut |_| Ok(()))
}

/// As [`atomic_replace`]; `before` is asked before each step and may make it fail.
pub(crate) fn replace_with(
    target: &Path,
    bytes: &[u8],
    before: &mut dyn FnMut(Step) -> io::Result<()>,
) -> Result<(), ReplaceError> {
    let fail = |step| move |source| ReplaceError { target: target.to_path_buf(), step, source };
    let (directory, temporary) = neighbours(target).map_err(fail(Step::Clear))?;

    before(Step::Clear).and_then(|()| remove_if_present(&temporary)).map_err(fail(Step::Clear))?;
    let written = write_temporary(&temporary, bytes, before).and_then(|()| {
        before(Step::Rename).and_then(|()| fs::rename(&temporary, target)).map_err(|source| (Step::Rename, source))
    });
    if let Err((step, source)) = written {
        // A leftover is harmless: it is removed before the next replacement and never read.
        let _left_for_the_next_replacement = fs::remove_file(&temporary);
        return Err(fail(step)(source));
    }
    before(Step::SyncDirectory).and_then(|()| sync_directory(&directory)).map_err(fail(Step::SyncDirectory))
}

fn write_temporary(
    temporary: &Path,
    bytes: &[u8],
    before: &mut dyn FnMut(Step) -> io::Result<()>,
) -> Result<(), (Step, io::Error)> {
    let at = |step| move |source| (step, source);
    let mut file = before(Step::Create)
        .and_then(|()| OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary))
        .map_err(at(Step::Create))?;
    before(Step::Write).and_then(|()| file.write_all(bytes)).map_err(at(Step::Write))?;
    before(Step::Sync).and_then(|()| file.sync_all()).map_err(at(Step::Sync))
}

fn neighbours(target: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let (Some(directory), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file"));
    };
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(".tmp");
    Ok((directory.to_path_buf(), directory.join(temporary)))
}

/// Makes the names in `directory` durable.
///
/// # Errors
/// The directory cannot be opened or synced.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Removes what a crash during the replacement of `target` may have left.
///
/// # Errors
/// A leftover exists and cannot be removed.
pub fn clear_leftover(target: &Path) -> io::Result<()> {
    neighbours(target).and_then(|(_, temporary)| remove_if_present(&temporary))
}

fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::state_root::scratch::Scratch;

    #[test]
    fn a_crash_before_any_step_leaves_the_old_or_the_new_bytes_whole() {
        for (index, crash) in Step::ALL.into_iter().enumerate() {
            let scratch = Scratch::new("replace-crash");
            let target = scratch.path().join("file");
            atomic_replace(&target, b"old").unwrap();

            // A panic skips every clean-up, as a crash does.
            let crashed = catch_unwind(AssertUnwindSafe(|| {
                let _ = replace_with(&target, b"new", &mut |step| {
                    assert_ne!(step, crash, "crash");
                    Ok(())
                });
            }));

            assert!(crashed.is_err(), "{crash:?} was never reached");
            let expected: &[u8] = if index < 5 { b"old" } else { b"new" };
            assert_eq!(fs::read(&target).unwrap(), expected, "crash before {crash:?}");

            atomic_replace(&target, b"later").unwrap();
            assert_eq!(fs::read(&target).unwrap(), b"later", "after a crash before {crash:?}");
            assert_eq!(names(scratch.path()), ["file"], "after a crash before {crash:?}");
        }
    }

    #[test]
    fn an_error_before_the_rename_leaves_the_target_alone_and_no_leftover() {
        for failing in Step::ALL {
            let scratch = Scratch::new("replace-error");
            let target = scratch.path().join("file");
            atomic_replace(&target, b"old").unwrap();

            let error = replace_with(&target, b"new", &mut |step| {
                if step == failing { Err(io::Error::from_raw_os_error(28)) } else { Ok(()) }
            })
            .unwrap_err();

            assert_eq!(error.step, failing);
            assert_eq!(error.is_renamed(), failing == Step::SyncDirectory);
            let expected: &[u8] = if failing == Step::SyncDirectory { b"new" } else { b"old" };
            assert_eq!(fs::read(&target).unwrap(), expected, "{failing:?}");
            assert_eq!(names(scratch.path()), ["file"], "{failing:?}");
        }
    }

    #[test]
    fn a_half_written_temporary_file_or_a_planted_link_is_removed_and_never_followed() {
        let scratch = Scratch::new("replace-leftover");
        let target = scratch.path().join("file");
        let victim = scratch.path().join("victim");
        fs::write(&victim, b"untouched").unwrap();
        std::os::unix::fs::symlink(&victim, scratch.path().join(".file.tmp")).unwrap();

        atomic_replace(&target, b"new").unwrap();

        assert_eq!(fs::read(&victim).unwrap(), b"untouched");
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o7777, 0o600);

        fs::write(scratch.path().join(".file.tmp"), b"ne").unwrap();
        clear_leftover(&target).unwrap();
        assert_eq!(names(scratch.path()), ["file", "victim"]);
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}
