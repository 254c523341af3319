//! A state root examined from its files: lock, format, modes, journal, signing key, auth store, space, stored secrets.
//! Owns: which files are looked at, in which order, and the judgement.
//! May touch: the files of one state root, for reading, and for an instant the shared side of its lock.
//! Never: changes a file, keeps the lock, or tells which secret was found where.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fs2::FileExt;
use serde::Serialize;

use super::finding::Findings;
use crate::audit::key::{KEY_FILE, PUBLIC_FILE, PublicKey, SigningKey};
use crate::audit::verify::{AuditReport, verify};
use crate::broker::scan::{ScanReport, scan};
use crate::broker::{FILE_NAME, MasterKey, Store};
use crate::ids::Seq;
use crate::journal::Chain;
use crate::limits::{
    DOCTOR_NAMED_MAX, DOCTOR_SPACE_BYTES_MIN, INODES_USED_ERROR_PERCENT, SPACE_USED_WARNING_PERCENT,
    STATE_ROOT_SMALL_FILE_BYTES_MAX,
};
use crate::state_root::{Directory, FORMAT_FILE, FORMAT_VERSION, LOCK_FILE};
use crate::sys::file_system_figures;
use crate::upkeep::Space;

/// What is to be examined.
pub struct Subject<'a> {
    /// The state root, or a copy of one.
    pub root: &'a Path,
    /// The signing key, where it lies elsewhere.
    pub key_file: Option<&'a Path>,
    /// With which the auth store is opened.
    pub master_key: Option<MasterKey>,
    /// Whether stored secrets are looked for in every file.
    pub scan: bool,
}

/// What was seen, beside the findings.
#[derive(Debug, Default, Serialize)]
pub struct Seen {
    /// Who holds the lock, as far as the lock file tells; null when nobody does.
    pub lock_holder: Option<String>,
    /// The format number.
    pub format: Option<u32>,
    /// The journal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal: Option<JournalSeen>,
    /// Id of the signing key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_key_id: Option<String>,
    /// Slots of the auth store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot_count: Option<usize>,
    /// Use of the file system in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub space_used_percent: Option<u64>,
    /// The search for stored secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scan: Option<ScanReport>,
}

/// What the journal holds.
#[derive(Debug, Serialize)]
pub struct JournalSeen {
    records: u64,
    seq_last: Seq,
    #[serde(skip_serializing_if = "Option::is_none")]
    chain: Option<Chain>,
    seals: u64,
    records_unsealed: u64,
    signed_actions: u64,
    key_ids: Vec<String>,
}

/// Examines a state root.
pub fn examine(subject: Subject<'_>, found: &mut Findings) -> Seen {
    let mut seen = Seen::default();
    let metadata = match fs::metadata(subject.root).and_then(|metadata| fs::read_dir(subject.root).map(|_| metadata)) {
        Ok(metadata) => metadata,
        Err(error) => {
            let message = format!("{}: {error}", subject.root.display());
            found.add("offline_root_unusable", message, Some(subject.root.display().to_string()));
            return seen;
        }
    };
    found.pass("state_root", format!("{} can be read", subject.root.display()));
    seen.format = format(subject.root, found);
    seen.lock_holder = lock(subject.root, seen.format.is_some(), found);
    permissions(subject.root, &metadata, found);
    let has_signed = journal(subject.root, &mut seen, found);
    audit_key(&subject, has_signed, &mut seen, found);
    space(subject.root, &mut seen, found);
    store(subject, &mut seen, found);
    seen
}

fn shown(path: &Path) -> Option<String> {
    Some(path.display().to_string())
}

fn read_small(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(STATE_ROOT_SMALL_FILE_BYTES_MAX as u64).read_to_string(&mut text)?;
    Ok(text)
}

fn format(root: &Path, found: &mut Findings) -> Option<u32> {
    let path = root.join(FORMAT_FILE);
    let (number, message) = match read_small(&path) {
        Err(error) => (None, format!("{}: {error}", path.display())),
        Ok(text) => match text.trim_end().parse::<u32>() {
            Ok(FORMAT_VERSION) => (Some(FORMAT_VERSION), String::new()),
            Ok(other) => {
                (Some(other), format!("{} says {other}, and this build knows {FORMAT_VERSION}", path.display()))
            }
            Err(_) => (None, format!("{} holds no format number", path.display())),
        },
    };
    if message.is_empty() {
        found.pass("format", format!("format {FORMAT_VERSION}"));
    } else {
        found.add("offline_format_unknown", message, shown(&path));
    }
    number
}

/// Whoever holds the exclusive lock keeps the shared one away; it is given back at once.
fn lock(root: &Path, in_use: bool, found: &mut Findings) -> Option<String> {
    let path = root.join(LOCK_FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if in_use {
                found.add("offline_lock_missing", format!("{} is missing", path.display()), shown(&path));
            }
            return None;
        }
        Err(error) => {
            found.add("offline_lock_unreadable", format!("{}: {error}", path.display()), shown(&path));
            return None;
        }
    };
    match FileExt::try_lock_shared(&file) {
        Ok(()) => {
            // Closing the file would do it too; the result tells nothing that matters.
            let _given_back = FileExt::unlock(&file);
            found.pass("state_root_lock", "no daemon holds the lock");
            None
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let text = read_small(&path).unwrap_or_default();
            let holder = text.lines().collect::<Vec<_>>().join(" ");
            found.add("offline_lock_held", format!("held: {holder}"), shown(&path));
            Some(holder)
        }
        Err(error) => {
            found.add("offline_lock_unreadable", format!("{}: {error}", path.display()), shown(&path));
            None
        }
    }
}

/// Findings of one kind: the first are named, the rest is counted.
struct Named {
    code: &'static str,
    count: usize,
}

impl Named {
    fn add(&mut self, found: &mut Findings, path: &Path, what: &str) {
        self.count += 1;
        if self.count <= DOCTOR_NAMED_MAX {
            found.add(self.code, format!("{}: {what}", path.display()), shown(path));
        }
    }

    fn end(&self, found: &mut Findings) {
        if self.count > DOCTOR_NAMED_MAX {
            let message = format!("{} more of the same", self.count - DOCTOR_NAMED_MAX);
            found.add(self.code, message, Some("more".to_string()));
        }
    }
}

fn permissions(root: &Path, root_metadata: &Metadata, found: &mut Findings) {
    let mut open = Named { code: "offline_mode_open", count: 0 };
    let mut foreign = Named { code: "offline_owner_foreign", count: 0 };
    let mut link = Named { code: "offline_link", count: 0 };
    let mut judge = |path: &Path, metadata: &Metadata, found: &mut Findings| {
        let mode = metadata.mode() & 0o7777;
        // A public key may be public.
        let allowed = if path.ends_with(PUBLIC_FILE) { 0o044 } else { 0 };
        if !(metadata.is_dir() || metadata.is_file()) {
            link.add(found, path, "no plain file and no directory");
        } else if mode & 0o077 & !allowed != 0 {
            open.add(found, path, &format!("mode {mode:04o}"));
        }
        if metadata.uid() != root_metadata.uid() {
            let what = format!("belongs to user {}, and the root to {}", metadata.uid(), root_metadata.uid());
            foreign.add(found, path, &what);
        }
    };
    judge(root, root_metadata, found);
    let mut directories = vec![root.to_path_buf()];
    let mut count = 0;
    while let Some(directory) = directories.pop() {
        for (path, metadata) in match entries(&directory) {
            Ok(entries) => entries,
            Err(error) => {
                found.add("offline_root_unusable", format!("{}: {error}", directory.display()), shown(&directory));
                continue;
            }
        } {
            count += 1;
            judge(&path, &metadata, found);
            if metadata.is_dir() {
                directories.push(path);
            }
        }
    }
    for named in [&open, &foreign, &link] {
        named.end(found);
    }
    found.pass("permissions", format!("{count} names, all of the root's owner and closed to others"));
}

/// The entries of a directory; one that went meanwhile is left out.
fn entries(directory: &Path) -> io::Result<Vec<(PathBuf, Metadata)>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        match fs::symlink_metadata(&path) {
            Ok(metadata) => entries.push((path, metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(entries)
}

fn public_keys(root: &Path) -> Vec<PublicKey> {
    let text = fs::read_to_string(root.join(PUBLIC_FILE)).unwrap_or_default();
    PublicKey::parse_pem(&text).unwrap_or_default()
}

/// Tells whether anything in it was signed.
fn journal(root: &Path, seen: &mut Seen, found: &mut Findings) -> bool {
    let report: AuditReport = verify(root, &public_keys(root), None);
    let signed_actions = report.actions.requests + report.actions.responses;
    if let Some(problem) = &report.problem {
        let message = format!("{} at byte {}: {}", problem.file.display(), problem.offset, problem.reason);
        found.add_with("offline_journal_damaged", message, shown(&problem.file), Some(problem.next.clone()));
    }
    for snapshot in report.journal.snapshots.iter().filter(|snapshot| snapshot.problem.is_some()) {
        let reason = snapshot.problem.clone().unwrap_or_default();
        let message = format!("snapshot {}: {reason}", snapshot.file);
        let next = "remove the snapshot; the daemon replays the journal without it".to_string();
        found.add_with("offline_journal_damaged", message, Some(snapshot.file.clone()), Some(next));
    }
    let journal = report.journal;
    found.pass("journal", format!("{} records, every line, seal and signed action is good", journal.records));
    let has_signed = signed_actions > report.actions.unsigned || journal.seals > 0;
    seen.journal = Some(JournalSeen {
        records: journal.records,
        seq_last: journal.seq_last,
        chain: journal.chain,
        seals: journal.seals,
        records_unsealed: journal.records_unsealed,
        signed_actions,
        key_ids: journal.key_ids,
    });
    has_signed
}

fn audit_key(subject: &Subject<'_>, has_signed: bool, seen: &mut Seen, found: &mut Findings) {
    let own = subject.root.join(KEY_FILE);
    let path = subject.key_file.map_or(own, Path::to_path_buf);
    if subject.key_file.is_none() && !path.exists() {
        if has_signed {
            found.add("offline_key_missing", format!("{} is missing", path.display()), shown(&path));
        }
        return;
    }
    let key = match SigningKey::read(&path) {
        Ok(key) => key,
        Err(error) => return found.add("offline_key_unusable", error.to_string(), shown(&path)),
    };
    seen.audit_key_id = Some(key.key_id());
    match public_keys(subject.root).first() {
        Some(public) if public != key.public() => {
            let message = format!(
                "{} is key {}, and {PUBLIC_FILE} begins with key {}",
                path.display(),
                key.key_id(),
                public.key_id()
            );
            found.add("offline_key_mismatch", message, shown(&path));
        }
        None if has_signed => {
            let message = format!("{PUBLIC_FILE} holds no key, so nothing could be checked against it");
            found.add("offline_key_mismatch", message, shown(&path));
        }
        _ => found.pass("audit_key", format!("key {} signs and its public half is there", key.key_id())),
    }
}

fn space(root: &Path, seen: &mut Seen, found: &mut Findings) {
    let figures = match file_system_figures(root) {
        Ok(figures) => figures,
        Err(error) => return found.add("offline_space_unknown", error.to_string(), shown(root)),
    };
    let Space { available_bytes, used_percent, inodes_used_percent, .. } = Space::from(figures);
    let inodes = inodes_used_percent.unwrap_or(0);
    seen.space_used_percent = Some(used_percent);
    let message = format!(
        "{used_percent} % of the space and {inodes} % of the inodes are used, {available_bytes} bytes are left"
    );
    if available_bytes < DOCTOR_SPACE_BYTES_MIN || inodes >= INODES_USED_ERROR_PERCENT {
        found.add("offline_space_exhausted", message, shown(root));
    } else if used_percent >= SPACE_USED_WARNING_PERCENT {
        found.add("offline_space_low", message, shown(root));
    } else {
        found.pass("space", message);
    }
}

fn store(subject: Subject<'_>, seen: &mut Seen, found: &mut Findings) {
    let path = subject.root.join(Directory::Auth.name()).join(FILE_NAME);
    let has_file = path.exists();
    if has_file && subject.master_key.is_none() {
        found.add("offline_store_key_unknown", "the auth store was not opened", shown(&path));
        if subject.scan {
            let message = "without the master key nobody knows what to look for".to_string();
            found.add("secret_scan_failed", message, shown(&path));
        }
        return;
    }
    let store = match Store::read_beside(subject.root, subject.master_key) {
        Ok(store) => store,
        Err(error) => {
            found.add("offline_store_unusable", error.to_string(), shown(&path));
            if subject.scan {
                found.add("secret_scan_failed", "the auth store could not be read", shown(&path));
            }
            return;
        }
    };
    let count = store.list().len();
    seen.slot_count = Some(count);
    found.pass("auth_store", format!("{count} slots"));
    if !subject.scan {
        return;
    }
    match scan(subject.root, &store) {
        Err(error) => found.add("secret_scan_failed", error.to_string(), shown(subject.root)),
        Ok(report) => {
            for one in &report.findings {
                let message = format!("{} holds a stored secret at or behind byte {}", one.file.display(), one.offset);
                found.add("secret_found", message, shown(&one.file));
            }
            found.pass("secrets", format!("{} files with {} bytes hold no stored secret", report.files, report.bytes));
            seen.scan = Some(report);
        }
    }
}
