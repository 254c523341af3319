//! What a backup says of itself: `backup.json` beside its files, and the manifest of what they hold.
//! Owns: both forms, the format's number, and which paths may stand in a manifest.
//! Never: follows a path; believes a document of a newer format.

use std::collections::HashSet;
use std::path::{Component, Path};

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::{SEALED_SUFFIX, STATE_ARCHIVE, WORKSPACE_ARCHIVE};
use crate::hex::{parse_hex, to_hex};
use crate::journal::Cut;
use crate::limits::{BACKUP_FILE_BYTES_MAX, BACKUP_FILES_MAX, BACKUP_PATH_BYTES_MAX};

/// The format that is written, and the newest one that is read.
pub const FORMAT: u32 = 1;
/// The one file of a backup that is always readable; without it a directory is no backup.
pub const HEAD_FILE: &str = "backup.json";
/// The manifest's name.
pub(super) const MANIFEST_FILE: &str = "manifest.json";
/// What `type` says in `backup.json`.
pub(super) const TYPE: &str = "kheish-backup";

/// `backup.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    pub r#type: String,
    pub format: u32,
    /// 32 hex digits, drawn; every sealed chunk names it.
    pub id: String,
    pub created_at_ms: u64,
    pub daemon_version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// The other files.
    pub files: Vec<Outer>,
}

/// How the other files are encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Encryption {
    pub cipher: String,
    pub key_fingerprint: String,
    /// 64 hex digits.
    pub salt: String,
}

/// A file beside `backup.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Outer {
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
}

impl Head {
    /// The file's name beside `backup.json`.
    pub fn file_name(&self, plain: &str) -> String {
        if self.encryption.is_some() { format!("{plain}{SEALED_SUFFIX}") } else { plain.to_string() }
    }

    /// What is wrong with it, if anything is.
    pub fn fault(&self) -> Option<String> {
        let is_hex = |text: &str, digits: usize| text.len() == digits && parse_hex(text.as_bytes()).is_some();
        if self.r#type != TYPE {
            return Some(format!("its type is {:?}", self.r#type));
        }
        if !is_hex(&self.id, 32) {
            return Some("its id is not 32 hex digits".to_string());
        }
        if self.encryption.as_ref().is_some_and(|how| !is_hex(&how.salt, 64)) {
            return Some("its salt is not 64 hex digits".to_string());
        }
        let allowed = [MANIFEST_FILE, STATE_ARCHIVE, WORKSPACE_ARCHIVE].map(|plain| self.file_name(plain));
        let mut seen = HashSet::new();
        for file in &self.files {
            if !allowed.contains(&file.name) || !seen.insert(&file.name) {
                return Some(format!("it names a file {:?}", file.name));
            }
            if !is_hex(&file.sha256, 64) {
                return Some(format!("the digest of {} is not 64 hex digits", file.name));
            }
        }
        let lacks = allowed[..2].iter().find(|name| !seen.contains(name));
        lacks.map(|name| format!("it does not name {name}"))
    }
}

/// What a path in an archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A plain file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; in a workspace only.
    Link,
}

/// One path of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Below the root, with `/`.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Bytes of a file; 0 of others.
    pub bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// Of a file's bytes, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Where a link leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// One archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archived {
    /// `state.tar` or `workspace.tar`.
    pub name: String,
    /// In the order of the archive.
    pub entries: Vec<Entry>,
}

/// The signing key of the journal and the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditKeyNote {
    /// Its id, where the daemon told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// Whether the backup holds it; one that was moved out of the state root is to be kept separately.
    pub included: bool,
}

/// Something that is not in the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// Its path, or what it is.
    pub name: String,
    /// Why not.
    pub cause: String,
}

/// The manifest: everything that the archives hold, and what the backup stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The same as in `backup.json`.
    pub id: String,
    /// The same.
    pub created_at_ms: u64,
    /// The version that made it.
    pub daemon_version: String,
    /// Of a running daemon, and not of the files of a stopped one.
    pub live: bool,
    /// Format of the state root.
    pub state_root_format: u32,
    /// Newest format of the journal that the maker reads.
    pub journal_format: u32,
    /// Where the journal was cut.
    pub cut: Cut,
    /// The signing key.
    pub audit_key: AuditKeyNote,
    /// Fingerprint of the master key that opens the auth store, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master_key_fingerprint: Option<String>,
    /// What a complete restore needs and the backup does not hold.
    pub missing: Vec<Note>,
    /// What lay in the state root or workspace and was left out.
    pub left_out: Vec<Note>,
    /// The archives.
    pub archives: Vec<Archived>,
}

impl Manifest {
    /// Stands in until the real one is read.
    pub(super) fn nothing() -> Self {
        Self {
            format: 0,
            id: String::new(),
            created_at_ms: 0,
            daemon_version: String::new(),
            live: false,
            state_root_format: 0,
            journal_format: 0,
            cut: Cut { seq: 0, chain: crate::journal::Chain::START, batch: 0, sealed_seq: 0, segments: Vec::new() },
            audit_key: AuditKeyNote { key_id: None, included: false },
            master_key_fingerprint: None,
            missing: Vec::new(),
            left_out: Vec::new(),
            archives: Vec::new(),
        }
    }

    /// The archive of that name.
    pub fn archive(&self, name: &str) -> Option<&Archived> {
        self.archives.iter().find(|archive| archive.name == name)
    }

    /// What is wrong with it, if anything is: the place and the cause.
    pub(super) fn fault(&self, head: &Head) -> Option<(Option<String>, String)> {
        let whole = |cause: &str| Some((None, cause.to_string()));
        if (&self.id, self.created_at_ms) != (&head.id, head.created_at_ms) || self.format != head.format {
            return whole("it belongs to another backup.json");
        }
        if !self.cut.is_consistent() {
            return whole("its cut of the journal is not consistent");
        }
        let names: Vec<&str> = self.archives.iter().map(|archive| archive.name.as_str()).collect();
        if names != [STATE_ARCHIVE] && names != [STATE_ARCHIVE, WORKSPACE_ARCHIVE] {
            return whole("it does not name its archives");
        }
        let outer = 1 + self.archives.len();
        if head.files.len() != outer {
            return whole("backup.json names other archives");
        }
        for archive in &self.archives {
            let links = archive.name == WORKSPACE_ARCHIVE;
            if let Some((path, cause)) = fault_of(&archive.entries, links) {
                return Some((Some(path), cause.to_string()));
            }
        }
        None
    }
}

/// The first entry that must not be there.
fn fault_of(entries: &[Entry], links: bool) -> Option<(String, &'static str)> {
    if entries.len() > BACKUP_FILES_MAX {
        return Some((String::new(), "there are too many paths"));
    }
    let mut kinds = std::collections::HashMap::new();
    for entry in entries {
        let fault = path_fault(&entry.path).or(match (entry.kind, &entry.sha256, &entry.target) {
            (Kind::File, Some(sha256), None) if sha256.len() == 64 && parse_hex(sha256.as_bytes()).is_some() => None,
            (Kind::Directory, None, None) if entry.bytes == 0 => None,
            (Kind::Link, None, Some(target)) if entry.bytes == 0 && links => {
                let fits = !target.is_empty() && target.len() <= BACKUP_PATH_BYTES_MAX && !target.contains('\0');
                (!fits).then_some("its target is none")
            }
            (Kind::Link, ..) if !links => Some("a state root has no links"),
            _ => Some("its members do not fit its kind"),
        });
        let fault = fault.or((entry.bytes > BACKUP_FILE_BYTES_MAX).then_some("it is larger than any file may be"));
        let fault = fault.or((entry.mode & !0o777 != 0).then_some("its mode has more than permission bits"));
        if let Some(fault) = fault {
            return Some((entry.path.clone(), fault));
        }
        if kinds.insert(entry.path.as_str(), entry.kind).is_some() {
            return Some((entry.path.clone(), "it is there twice"));
        }
    }
    // Nothing lies below a file or a link.
    for entry in entries {
        let mut above = entry.path.as_str();
        while let Some((parent, _)) = above.rsplit_once('/') {
            if kinds.get(parent).is_some_and(|kind| *kind != Kind::Directory) {
                return Some((entry.path.clone(), "it lies below what is no directory"));
            }
            above = parent;
        }
    }
    None
}

/// Why a path may not stand in an archive: it leads out of the root, or has another spelling.
pub(super) fn path_fault(path: &str) -> Option<&'static str> {
    if path.is_empty() || path.len() > BACKUP_PATH_BYTES_MAX {
        return Some("its path is empty or too long");
    }
    if path.bytes().any(|byte| byte == 0) {
        return Some("its path holds a NUL byte");
    }
    let parts_are_plain = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    let components = Path::new(path).components().all(|component| matches!(component, Component::Normal(_)));
    (!parts_are_plain || !components).then_some("its path leads out of the root")
}

/// SHA-256 in hex.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    to_hex(digest(&SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> Entry {
        let (kind, sha256) = (Kind::File, Some("0".repeat(64)));
        Entry { path: path.into(), kind, bytes: 1, mode: 0o600, sha256, target: None }
    }

    fn directory(path: &str) -> Entry {
        Entry { path: path.into(), kind: Kind::Directory, bytes: 0, mode: 0o700, sha256: None, target: None }
    }

    fn link(path: &str, target: &str) -> Entry {
        Entry { kind: Kind::Link, target: Some(target.into()), ..directory(path) }
    }

    #[test]
    fn no_path_leads_out_of_the_root_and_nothing_lies_below_a_file_or_a_link() {
        let good = [directory("a"), file("a/b"), file("c"), file("d e\u{e9}")];
        assert_eq!(fault_of(&good, false), None);
        assert_eq!(fault_of(&[directory("a"), link("a/l", "../../anywhere")], true), None);
        for bad in [
            vec![file("../x")],
            vec![file("/etc/passwd")],
            vec![file("a/../../x")],
            vec![file("a//b")],
            vec![file("./a")],
            vec![file("a/.")],
            vec![file("a/")],
            vec![file("")],
            vec![file("a\0b")],
            vec![file(&"a".repeat(BACKUP_PATH_BYTES_MAX + 1))],
            vec![file("a"), file("a")],
            vec![file("a"), file("a/b")],
            vec![link("a", "/etc"), file("a/passwd")],
            vec![file("a/b/c"), link("a", "/etc")],
            vec![link("a", "")],
            vec![Entry { mode: 0o4755, ..file("a") }],
            vec![Entry { sha256: None, ..file("a") }],
            vec![Entry { bytes: u64::MAX, ..file("a") }],
            vec![Entry { bytes: 5, ..directory("a") }],
            vec![Entry { target: Some("x".into()), ..file("a") }],
        ] {
            assert!(fault_of(&bad, true).is_some(), "{bad:?}");
        }
        assert!(fault_of(&[link("l", "x")], false).is_some(), "a state root has no links");
    }
}
