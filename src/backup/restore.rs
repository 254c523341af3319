//! Restoring a backup into a directory that holds nothing.
//! Owns: the order: everything is checked, then written, and `FORMAT` last, without which the directory is no state root.
//! May touch: the backup for reading; the directory of the restored state root, and that of the workspace.
//! Never: writes before the backup was found good; into a directory that holds something; through a link.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use serde::Serialize;

use super::WORKSPACE_ARCHIVE;
use super::archive::{Archive, Backup};
use super::error::{BackupError, Problem};
use super::key::BackupKey;
use super::manifest::{Archived, Entry, Kind};
use super::verify::{Checks, Report, verify};
use crate::audit::control_plane;
use crate::hex::to_hex;
use crate::journal::RESTORED;
use crate::limits::BACKUP_COPY_BYTES;
use crate::state_root::replace::sync_directory;
use crate::state_root::{Directory, FORMAT_FILE, LOST_AND_FOUND};
use crate::sys;

/// Where a backup is restored to.
#[derive(Debug)]
pub struct Target<'a> {
    /// The new state root.
    pub state_root: &'a Path,
    /// The new workspace, if its archive is to be unpacked as well.
    pub workspace: Option<&'a Path>,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Restored {
    /// It is there and synced.
    pub ok: bool,
    /// The state root.
    pub state_root: PathBuf,
    /// The workspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace: Option<PathBuf>,
    /// Files written.
    pub files: u64,
    /// Bytes written.
    pub bytes: u64,
    /// What was checked before.
    pub backup: Report,
}

/// Checks the backup in `from` and, when nothing is wrong with it, restores it. `checks` should have a master key.
///
/// # Errors
/// The backup is not good, or the target takes nothing; nothing is written then. Or the disk failed; what was written is removed.
pub fn restore(
    from: &Path,
    target: &Target<'_>,
    key: Option<BackupKey>,
    checks: Checks,
) -> Result<Restored, BackupError> {
    for place in std::iter::once(target.state_root).chain(target.workspace) {
        check_target(place)?;
    }
    let (backup, report) = verify(from, key, checks)?;
    if !report.ok {
        return Err(BackupError::Damaged { path: from.to_path_buf(), problems: report.problems });
    }
    let workspace = backup.manifest.archive(WORKSPACE_ARCHIVE);
    if target.workspace.is_some() && workspace.is_none() {
        return Err(BackupError::NoWorkspace { path: from.to_path_buf() });
    }
    let mut written = Written { files: 0, bytes: 0, buffer: vec![0; BACKUP_COPY_BYTES] };
    let workspace_existed = target.workspace.is_some_and(Path::exists);
    if let (Some(place), Some(archived)) = (target.workspace, workspace) {
        written.unpack(&backup, archived, place)?;
    }
    let unpacked = written.unpack(&backup, &backup.manifest.archives[0], target.state_root);
    if let (Err(_), Some(place)) = (&unpacked, target.workspace) {
        clear(place, workspace_existed);
    }
    unpacked?;
    let Written { files, bytes, .. } = written;
    let workspace = target.workspace.map(Path::to_path_buf);
    Ok(Restored { ok: true, state_root: target.state_root.to_path_buf(), workspace, files, bytes, backup: report })
}

/// The directory is absent, or empty, private and ours.
fn check_target(place: &Path) -> Result<(), BackupError> {
    let unfit = |cause: String| BackupError::TargetUnfit { path: place.to_path_buf(), cause };
    let metadata = match fs::symlink_metadata(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(BackupError::io("look at", place))?,
    };
    if !metadata.is_dir() {
        return Err(unfit("it is no directory".to_string()));
    }
    if metadata.uid() != sys::effective_user_id() {
        return Err(unfit(format!("it belongs to user id {}", metadata.uid())));
    }
    for entry in fs::read_dir(place).map_err(BackupError::io("read", place))? {
        let name = entry.map_err(BackupError::io("read", place))?.file_name();
        if name != LOST_AND_FOUND {
            let found = name.to_string_lossy().into_owned();
            return Err(BackupError::TargetTaken { path: place.to_path_buf(), found });
        }
    }
    Ok(())
}

struct Written {
    files: u64,
    bytes: u64,
    buffer: Vec<u8>,
}

impl Written {
    fn unpack(&mut self, backup: &Backup, archived: &Archived, place: &Path) -> Result<(), BackupError> {
        let existed = place.exists();
        make_directory(place)?;
        let unpacked = self.unpack_into(backup, archived, place);
        if unpacked.is_err() {
            clear(place, existed);
        }
        unpacked
    }

    fn unpack_into(&mut self, backup: &Backup, archived: &Archived, place: &Path) -> Result<(), BackupError> {
        let archive = backup.archive(archived).map_err(BackupError::io("read", &backup.directory))?;
        let is_state = archived.name != WORKSPACE_ARCHIVE;
        let mut last = None;
        for (index, entry) in archive.entries.iter().enumerate() {
            match entry.kind {
                Kind::Directory => make_directory(&place.join(&entry.path))?,
                Kind::File if is_state && entry.path == FORMAT_FILE => last = Some(index),
                Kind::File => self.file(backup, &archive, index, place, is_state)?,
                Kind::Link => {}
            }
        }
        // Behind everything that is written below a path: nothing is written through them.
        for entry in archive.entries.iter().filter(|entry| entry.kind == Kind::Link) {
            let path = place.join(&entry.path);
            let target = entry.target.as_deref().unwrap_or_default();
            symlink(target, &path).map_err(BackupError::io("create the link", &path))?;
        }
        if is_state {
            check_audit_file(backup, place)?;
            let marker = place.join(Directory::Journal.name()).join(RESTORED);
            let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&marker);
            made.and_then(|file| file.sync_all()).map_err(BackupError::io("create", &marker))?;
        }
        settle(place, archive.entries, is_state)?;
        if let Some(index) = last {
            self.file(backup, &archive, index, place, is_state)?;
            sync_directory(place).map_err(BackupError::io("sync", place))?;
        }
        Ok(())
    }

    fn file(
        &mut self,
        backup: &Backup,
        archive: &Archive<'_>,
        index: usize,
        place: &Path,
        is_state: bool,
    ) -> Result<(), BackupError> {
        let entry = &archive.entries[index];
        let path = place.join(&entry.path);
        if let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) {
            make_directory(parent)?;
        }
        let mode = if is_state { 0o600 } else { entry.mode };
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(BackupError::io("create", &path))?;
        let mut context = Context::new(&SHA256);
        let copied = archive.copy(index, &mut self.buffer, &mut |bytes| {
            context.update(bytes);
            file.write_all(bytes)
        });
        copied
            .and_then(|()| file.set_permissions(Permissions::from_mode(mode)))
            .and_then(|()| file.sync_all())
            .map_err(BackupError::io("write", &path))?;
        // The backup was good a moment ago; what is restored is what was checked.
        if entry.sha256.as_deref() != Some(to_hex(context.finish().as_ref()).as_str()) {
            return Err(damaged(backup, &entry.path, "it changed while it was restored".to_string()));
        }
        self.files += 1;
        self.bytes += entry.bytes;
        Ok(())
    }
}

fn damaged(backup: &Backup, member: &str, reason: String) -> BackupError {
    let problem = Problem {
        code: "backup_altered",
        file: super::STATE_ARCHIVE.to_string(),
        offset: None,
        member: Some(member.to_string()),
        reason,
    };
    BackupError::Damaged { path: backup.directory.clone(), problems: vec![problem] }
}

/// The chains of the audit file, which can be read only where it lies.
fn check_audit_file(backup: &Backup, place: &Path) -> Result<(), BackupError> {
    let directory = place.join(Directory::ControlPlaneAuth.name());
    if !directory.is_dir() {
        return Ok(());
    }
    let report = control_plane::check(&directory).map_err(BackupError::io("read", &directory))?;
    match report.problem {
        None => Ok(()),
        Some(bad) => {
            let member = bad.file.strip_prefix(place).unwrap_or(&bad.file).display().to_string();
            Err(damaged(backup, &member, format!("line {}: {}", bad.line, bad.reason)))
        }
    }
}

/// 0700, with what is missing above it.
fn make_directory(path: &Path) -> Result<(), BackupError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o700)))
        .map_err(BackupError::io("create the directory", path))
}

/// Gives directories their modes, the deepest first, and makes all names durable.
fn settle(place: &Path, entries: &[Entry], is_state: bool) -> Result<(), BackupError> {
    for entry in entries.iter().rev().filter(|entry| entry.kind == Kind::Directory) {
        let path = place.join(&entry.path);
        let mode = if is_state { 0o700 } else { entry.mode };
        sync_directory(&path)
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(mode)))
            .map_err(BackupError::io("sync", &path))?;
    }
    sync_directory(place).map_err(BackupError::io("sync", place))?;
    match place.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent).and_then(|file| file.sync_all()).map_err(BackupError::io("sync", parent)),
        None => Ok(()),
    }
}

/// Removes what a failed restore wrote; the first error is the one to report.
fn clear(place: &Path, existed: bool) {
    if !existed {
        let _reported_before = fs::remove_dir_all(place);
        return;
    }
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name() == LOST_AND_FOUND {
            continue;
        }
        let _reported_before = match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
            _ => fs::remove_file(&path),
        };
    }
}
