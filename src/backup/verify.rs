//! Checking a backup, without a daemon and without unpacking it.
//! Owns: what makes a backup good, in the order in which it is looked at, and the report.
//! May touch: the backup, for reading.
//! Never: stops at the first problem where a second one can be told; trusts a digest that lies in the same file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use serde::Serialize;

use super::STATE_ARCHIVE;
use super::archive::{Archive, Backup};
use super::error::{BackupError, Problem};
use super::key::BackupKey;
use super::manifest::{Archived, HEAD_FILE, Kind, Note};
use crate::audit::key::{PUBLIC_FILE, PublicKey};
use crate::audit::verify::{AuditReport, verify_disks};
use crate::broker::{FILE_NAME, MasterKey, Store, StoreError};
use crate::hex::to_hex;
use crate::journal::segment_file;
use crate::limits::{
    AUTH_STORE_FILE_BYTES_MAX, BACKUP_COPY_BYTES, BACKUP_PROBLEMS_MAX, CLI_PUBLIC_KEY_BYTES_MAX,
    STATE_ROOT_SMALL_FILE_BYTES_MAX,
};
use crate::state_root::{Directory, FORMAT_FILE, FORMAT_VERSION};

/// What a backup is compared with, beyond itself.
#[derive(Debug, Default)]
pub struct Checks {
    /// SHA-256 of `backup.json`, kept elsewhere.
    pub sha256: Option<String>,
    /// Public keys kept elsewhere; those in the backup otherwise.
    pub keys: Option<Vec<PublicKey>>,
    /// The key that must open its auth store, if there is one; `None` leaves that out.
    pub master_key: Option<Option<MasterKey>>,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Nothing is wrong.
    pub ok: bool,
    /// The backup.
    pub directory: PathBuf,
    /// Its id.
    pub id: String,
    /// SHA-256 of `backup.json`.
    pub sha256: String,
    /// When it was begun, Unix milliseconds.
    pub created_at_ms: u64,
    /// Which version made it.
    pub daemon_version: String,
    /// Of a running daemon.
    pub live: bool,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// The last record in it.
    pub journal_seq: u64,
    /// Files checked.
    pub files: u64,
    /// Bytes of their contents.
    pub bytes: u64,
    /// Slots of the auth store, when a master key opened it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<usize>,
    /// Fingerprint of the master key that its auth store needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_key_fingerprint: Option<String>,
    /// What a complete restore needs and the backup does not hold.
    pub missing: Vec<Note>,
    /// What was left out.
    pub left_out: Vec<Note>,
    /// Lines, chain, seals, snapshots and signed actions; left out when the archive itself is not good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditReport>,
    /// Everything that is wrong, at most [`BACKUP_PROBLEMS_MAX`].
    pub problems: Vec<Problem>,
}

/// Checks the backup in `directory`.
///
/// # Errors
/// There is nothing to report on: it is no backup, of a newer format, its key is not at hand or its manifest is altered, or
/// the master key is not the one of its auth store.
pub fn verify(directory: &Path, key: Option<BackupKey>, checks: Checks) -> Result<(Backup, Report), BackupError> {
    let backup = Backup::open(directory, key)?;
    let mut check = Check { backup: &backup, problems: Vec::new(), files: 0, bytes: 0 };
    if checks.sha256.is_some_and(|kept| !kept.eq_ignore_ascii_case(&backup.sha256)) {
        check.note("backup_altered", HEAD_FILE, None, None, "its SHA-256 is not the one that was kept".to_string());
    }
    check.outer_files();
    for archived in &backup.manifest.archives {
        check.contents(archived);
    }
    check.journal_files();
    let (mut audit, mut slots) = (None, None);
    if check.problems.is_empty() {
        match backup.archive(&backup.manifest.archives[0]) {
            Err(error) => check.unreadable(STATE_ARCHIVE, None, &error),
            Ok(archive) => {
                check.format(&archive)?;
                audit = check.audit(&archive, checks.keys);
                if let Some(master_key) = checks.master_key {
                    slots = check.store(&archive, master_key)?;
                }
            }
        }
    }
    let Check { problems, files, bytes, .. } = check;
    let manifest = &backup.manifest;
    let report = Report {
        ok: problems.is_empty(),
        directory: directory.to_path_buf(),
        id: manifest.id.clone(),
        sha256: backup.sha256.clone(),
        created_at_ms: manifest.created_at_ms,
        daemon_version: manifest.daemon_version.clone(),
        live: manifest.live,
        encrypted: backup.head.encryption.is_some(),
        journal_seq: manifest.cut.seq,
        files,
        bytes,
        slots,
        master_key_fingerprint: manifest.master_key_fingerprint.clone(),
        missing: manifest.missing.clone(),
        left_out: manifest.left_out.clone(),
        audit,
        problems,
    };
    Ok((backup, report))
}

struct Check<'a> {
    backup: &'a Backup,
    problems: Vec<Problem>,
    files: u64,
    bytes: u64,
}

impl Check<'_> {
    fn note(&mut self, code: &'static str, file: &str, offset: Option<u64>, member: Option<&str>, reason: String) {
        if self.problems.len() < BACKUP_PROBLEMS_MAX {
            let member = member.map(str::to_string);
            self.problems.push(Problem { code, file: file.to_string(), offset, member, reason });
        }
    }

    fn unreadable(&mut self, file: &str, member: Option<&str>, error: &std::io::Error) {
        self.note("backup_unreadable", file, None, member, error.to_string());
    }

    /// Every file beside `backup.json` as it tells, and no other.
    fn outer_files(&mut self) {
        for outer in &self.backup.head.files {
            match self.backup.digest(&outer.name) {
                Err(error) => self.unreadable(&outer.name, None, &error),
                Ok((bytes, _)) if bytes != outer.bytes => {
                    let cause = format!("it has {bytes} bytes and had {}", outer.bytes);
                    self.note("backup_cut", &outer.name, Some(bytes.min(outer.bytes)), None, cause);
                }
                Ok((_, sha256)) if sha256 != outer.sha256 => {
                    self.note(
                        "backup_altered",
                        &outer.name,
                        None,
                        None,
                        "its digest is not that of backup.json".into(),
                    );
                }
                Ok(_) => {}
            }
        }
        let known: BTreeSet<&str> =
            self.backup.head.files.iter().map(|outer| outer.name.as_str()).chain([HEAD_FILE]).collect();
        let listed = fs::read_dir(&self.backup.directory);
        let names: Vec<String> = listed
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .collect();
        for name in names.iter().filter(|name| !known.contains(name.as_str())) {
            self.note("backup_extra", name, None, None, "backup.json does not name it".to_string());
        }
    }

    /// Every header and content of an archive.
    fn contents(&mut self, archived: &Archived) {
        let name = self.backup.head.file_name(&archived.name);
        let archive = match self.backup.archive(archived) {
            Ok(archive) => archive,
            Err(error) => return self.unreadable(&name, None, &error),
        };
        let mut buffer = vec![0; BACKUP_COPY_BYTES];
        for (index, entry) in archive.entries.iter().enumerate() {
            if self.problems.len() >= BACKUP_PROBLEMS_MAX {
                return;
            }
            let path = Some(entry.path.as_str());
            match archive.header_is_good(index) {
                Err(error) => self.unreadable(&name, path, &error),
                Ok((_, true)) => {}
                Ok((offset, false)) => {
                    let cause = "its header is not what the manifest says".to_string();
                    self.note("backup_altered", &name, Some(offset), path, cause);
                }
            }
            if entry.kind != Kind::File {
                continue;
            }
            let mut context = Context::new(&SHA256);
            let copied = archive.copy(index, &mut buffer, &mut |bytes| {
                context.update(bytes);
                Ok(())
            });
            let offset = Some(archive.content_offset(index));
            if let Err(error) = copied {
                self.note("backup_unreadable", &name, offset, path, error.to_string());
                continue;
            }
            let sha256 = to_hex(context.finish().as_ref());
            if entry.sha256.as_ref() != Some(&sha256) {
                let cause = "its content is not what the manifest says".to_string();
                self.note("backup_altered", &name, offset, path, cause);
            }
            let blobs = format!("{}/", Directory::Blobs.name());
            if entry.path.strip_prefix(&blobs).is_some_and(|named| named != sha256) && archived.name == STATE_ARCHIVE {
                self.note("backup_altered", &name, offset, path, "a blob is named by another digest".to_string());
            }
            match archive.padding_is_blank(index) {
                Ok(true) => {}
                Ok(false) => self.note("backup_altered", &name, offset, path, "bytes stand behind its end".to_string()),
                Err(error) => self.unreadable(&name, path, &error),
            }
            self.files += 1;
            self.bytes += entry.bytes;
        }
        match archive.end_fault() {
            Ok(None) => {}
            Ok(Some((offset, cause))) => self.note("backup_cut", &name, Some(offset), None, cause),
            Err(error) => self.unreadable(&name, None, &error),
        }
    }

    /// The journal's files are those of the cut.
    fn journal_files(&mut self) {
        let manifest = &self.backup.manifest;
        let prefix = format!("{}/", Directory::Journal.name());
        let entries = manifest.archives[0].entries.iter().filter(|entry| entry.kind == Kind::File);
        let found: Vec<(String, u64)> =
            entries.filter_map(|entry| Some((entry.path.strip_prefix(&prefix)?.to_string(), entry.bytes))).collect();
        let wanted = manifest.cut.segments.iter().map(|segment| (segment_file(segment.first), segment.bytes));
        if !found.into_iter().eq(wanted) {
            let cause = "the segments are not those of the cut".to_string();
            self.note("backup_altered", STATE_ARCHIVE, None, Some(&prefix), cause);
        }
    }

    fn format(&mut self, archive: &Archive<'_>) -> Result<(), BackupError> {
        let text = archive.small(FORMAT_FILE, STATE_ROOT_SMALL_FILE_BYTES_MAX as u64);
        let number = match &text {
            Ok(Some(text)) => std::str::from_utf8(text).ok().and_then(|text| text.trim().parse::<u64>().ok()),
            _ => None,
        };
        match number {
            Some(found) if found > u64::from(FORMAT_VERSION) => {
                let (path, what, supported) = (self.backup.directory.clone(), "the state root", FORMAT_VERSION);
                Err(BackupError::Newer { path, what, found, supported })
            }
            Some(_) => Ok(()),
            None => {
                self.note("backup_altered", STATE_ARCHIVE, None, Some(FORMAT_FILE), "it names no format".to_string());
                Ok(())
            }
        }
    }

    /// The journal inside the archive, as `audit verify` checks one on disk.
    fn audit(&mut self, archive: &Archive<'_>, keys: Option<Vec<PublicKey>>) -> Option<AuditReport> {
        let keys = match keys {
            Some(keys) => keys,
            None => match archive.small(PUBLIC_FILE, CLI_PUBLIC_KEY_BYTES_MAX as u64) {
                Ok(text) => {
                    let text = text.and_then(|text| String::from_utf8(text).ok()).unwrap_or_default();
                    PublicKey::parse_pem(&text).unwrap_or_default()
                }
                Err(error) => {
                    self.unreadable(STATE_ARCHIVE, Some(PUBLIC_FILE), &error);
                    return None;
                }
            },
        };
        let root = &self.backup.directory;
        let journal = archive.disk(root, Directory::Journal.name());
        let snapshots = archive.disk(root, Directory::Snapshots.name());
        let named = root.join(STATE_ARCHIVE).join(Directory::Journal.name());
        let report = verify_disks(&named, &journal, Some(&snapshots), &keys);
        let cut = &self.backup.manifest.cut;
        if let Some(problem) = &report.problem {
            let member = problem.file.strip_prefix(root.join(STATE_ARCHIVE)).unwrap_or(&problem.file);
            let member = member.display().to_string();
            let reason = format!("{} (byte {} of it)", problem.reason, problem.offset);
            self.note("backup_journal_damaged", STATE_ARCHIVE, None, Some(&member), reason);
        } else if report.journal.seq_last != cut.seq || report.journal.chain != Some(cut.chain) {
            let cause = format!("the journal ends at {} and not at {}", report.journal.seq_last, cut.seq);
            self.note("backup_journal_damaged", STATE_ARCHIVE, None, None, cause);
        }
        Some(report)
    }

    /// Whether the master key at hand opens the auth store; `None` when there is no store.
    fn store(&mut self, archive: &Archive<'_>, key: Option<MasterKey>) -> Result<Option<usize>, BackupError> {
        let path = format!("{}/{FILE_NAME}", Directory::Auth.name());
        match archive.small(&path, AUTH_STORE_FILE_BYTES_MAX as u64) {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => {
                let named = self.backup.directory.join(STATE_ARCHIVE).join(&path);
                let checked: Result<usize, StoreError> = Store::check_bytes(&bytes, key, &named);
                checked.map(Some).map_err(BackupError::MasterKey)
            }
            Err(error) => {
                self.unreadable(STATE_ARCHIVE, Some(&path), &error);
                Ok(None)
            }
        }
    }
}
