//! Making a backup: barrier, copy, manifest, rename.
//! Owns: the order of the steps, the temporary directory, and what the summary tells.
//! May touch: the state root and workspace for reading; the directory of the backup and its temporary neighbour.
//! Never: leaves something under the backup's name that is not whole and synced.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fs2::FileExt;
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;

use super::error::BackupError;
use super::key::BackupKey;
use super::manifest::{
    Archived, AuditKeyNote, Encryption, FORMAT, HEAD_FILE, Head, MANIFEST_FILE, Manifest, Note, Outer, TYPE, sha256_hex,
};
use super::out::{ArchiveWriter, Pace, write_file};
use super::seal::{Binding, CIPHER};
use super::source::{HeldFiles, Tree, copy_tree, hold, loose_directories};
use super::{STATE_ARCHIVE, WORKSPACE_ARCHIVE};
use crate::audit::key::{KEY_FILE, PUBLIC_FILE};
use crate::broker::FILE_NAME;
use crate::hex::to_hex;
use crate::journal::{Cut, JOURNAL_FORMAT, RealDisk, cut_of, open_segment, segment_file};
use crate::limits::{AUTH_STORE_FILE_BYTES_MAX, BACKUP_BARRIER_ATTEMPTS};
use crate::state_root::replace::sync_directory;
use crate::state_root::{Directory, FORMAT_VERSION, StateRoot};

/// What is to be made.
#[derive(Debug)]
pub struct Request<'a> {
    /// The backup's directory; it does not exist yet, or is empty.
    pub out: &'a Path,
    /// The state root.
    pub state_root: &'a Path,
    /// The workspace, to be archived beside it.
    pub workspace: Option<&'a Path>,
    /// The key to encrypt with.
    pub key: Option<BackupKey>,
    /// Bytes copied in a second at most; 0 is without a limit.
    pub bytes_per_s: u64,
    /// Unix milliseconds.
    pub now_ms: u64,
}

/// What the keeper of the state root lets a backup begin with.
#[derive(Debug, Clone)]
pub struct Pass {
    /// How far the journal is copied.
    pub cut: Cut,
    /// Id of the signing key, where it is known.
    pub key_id: Option<String>,
    /// Of a running daemon.
    pub live: bool,
}

/// Whoever keeps the state root: a running daemon, or nobody.
pub trait Gate {
    /// Seals the journal and keeps others from changing the files of auth and audit until [`Gate::close`].
    ///
    /// # Errors
    /// It is refused.
    fn open(&mut self) -> Result<Pass, BackupError>;

    /// Lets them go on; whether nothing was changed since [`Gate::open`].
    ///
    /// # Errors
    /// It is not known.
    fn close(&mut self) -> Result<bool, BackupError>;
}

/// The files of a stopped daemon, under the lock of the state root.
#[derive(Debug)]
pub struct OfflineGate {
    root: StateRoot,
}

impl OfflineGate {
    /// Takes the lock.
    ///
    /// # Errors
    /// Somebody holds it, or the directory is no state root.
    pub fn new(state_root: &Path) -> Result<Self, BackupError> {
        StateRoot::open(state_root, false).map(|root| Self { root }).map_err(BackupError::StateRoot)
    }
}

impl Gate for OfflineGate {
    fn open(&mut self) -> Result<Pass, BackupError> {
        let path = self.root.directory(Directory::Journal);
        let disk = RealDisk::open(&path).map_err(BackupError::io("open", &path))?;
        let cut = cut_of(&disk).map_err(BackupError::Journal)?;
        let cause = || "it holds no journal: the daemon was never started on it".to_string();
        let cut = cut.ok_or_else(|| BackupError::Unfit { path: path.clone(), cause: cause() })?;
        Ok(Pass { cut, key_id: None, live: false })
    }

    fn close(&mut self) -> Result<bool, BackupError> {
        Ok(true)
    }
}

/// One archive that was made.
#[derive(Debug, Clone, Serialize)]
pub struct Kept {
    /// Its file.
    pub name: String,
    /// Paths in it.
    pub entries: usize,
    /// Bytes of content.
    pub content_bytes: u64,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// What came of it, to be kept elsewhere: `sha256` vouches for the whole backup.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// It is there and synced.
    pub ok: bool,
    /// Where.
    pub out: String,
    /// The backup's id.
    pub id: String,
    /// SHA-256 of `backup.json`.
    pub sha256: String,
    /// When it was begun, Unix milliseconds.
    pub created_at_ms: u64,
    /// Of a running daemon.
    pub live: bool,
    /// The last record in it.
    pub journal_seq: u64,
    /// The newest record that a seal in it vouches for.
    pub journal_sealed_seq: u64,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// Fingerprint of the master key that its auth store needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_key_fingerprint: Option<String>,
    /// The archives.
    pub archives: Vec<Kept>,
    /// What a complete restore needs and the backup does not hold.
    pub missing: Vec<Note>,
    /// What was left out.
    pub left_out: Vec<Note>,
    /// For how long others were kept from changing their files, milliseconds.
    pub paused_ms: u64,
    /// From the begin to the rename, milliseconds.
    pub duration_ms: u64,
}

/// Makes a backup: everything lands in a temporary neighbour of `out`, is synced, and is renamed at the end.
///
/// # Errors
/// Nothing is left under `out`; what was written meanwhile is removed.
pub fn create(request: &Request<'_>, gate: &mut dyn Gate) -> Result<Summary, BackupError> {
    let began = Instant::now();
    let place = Place::claim(request)?;
    let made = make(request, gate, &place).and_then(|summary| place.publish().map(|()| summary));
    match made {
        Ok(summary) => Ok(Summary { duration_ms: began.elapsed().as_millis() as u64, ..summary }),
        Err(error) => {
            // The first error is the one to report; a leftover is removed by the next backup of that name.
            let _left_for_the_next_backup = fs::remove_dir_all(&place.partial);
            Err(error)
        }
    }
}

/// Where a backup grows.
struct Place {
    out: PathBuf,
    parent: PathBuf,
    partial: PathBuf,
    /// Held so that a second command does not take the directory for a leftover.
    _lock: File,
}

impl Place {
    fn claim(request: &Request<'_>) -> Result<Self, BackupError> {
        let out = std::path::absolute(request.out).map_err(BackupError::io("resolve", request.out))?;
        let (Some(parent), Some(name)) = (out.parent(), out.file_name()) else {
            return Err(BackupError::OutTaken { path: out });
        };
        let parent = parent.canonicalize().map_err(BackupError::io("use", parent))?;
        let out = parent.join(name);
        match fs::read_dir(&out).map(|mut listed| listed.next().is_none()) {
            Ok(true) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(false) | Err(_) => return Err(BackupError::OutTaken { path: out }),
        }
        for source in std::iter::once(request.state_root).chain(request.workspace) {
            let source = source.canonicalize().map_err(BackupError::io("use", source))?;
            if out.starts_with(&source) {
                return Err(BackupError::OutInside { out, source });
            }
        }
        let mut partial = OsString::from(".");
        partial.push(name);
        partial.push(".partial");
        let partial = parent.join(partial);
        let lock = claim(&partial, &out)?;
        Ok(Self { out, parent, partial, _lock: lock })
    }

    /// Gives the whole backup its name.
    fn publish(&self) -> Result<(), BackupError> {
        sync_directory(&self.partial).map_err(BackupError::io("sync", &self.partial))?;
        fs::rename(&self.partial, &self.out).map_err(BackupError::io("rename the backup to", &self.out))?;
        sync_directory(&self.parent).map_err(BackupError::io("sync", &self.parent))
    }
}

/// Makes the temporary directory; what an earlier command left there is removed, unless that is still at work.
fn claim(partial: &Path, out: &Path) -> Result<File, BackupError> {
    if let Ok(left) = File::open(partial) {
        if left.try_lock_exclusive().is_err() {
            return Err(BackupError::OutBusy { path: out.to_path_buf() });
        }
        fs::remove_dir_all(partial).map_err(BackupError::io("remove", partial))?;
    }
    DirBuilder::new().mode(0o700).create(partial).map_err(BackupError::io("create", partial))?;
    let lock = File::open(partial).map_err(BackupError::io("open", partial))?;
    match lock.try_lock_exclusive() {
        Ok(()) => Ok(lock),
        Err(_) => Err(BackupError::OutBusy { path: out.to_path_buf() }),
    }
}

fn make(request: &Request<'_>, gate: &mut dyn Gate, place: &Place) -> Result<Summary, BackupError> {
    let mut random = [0; 48];
    SystemRandom::new().fill(&mut random).map_err(|_| BackupError::NoRandom)?;
    let (id, salt) = (to_hex(&random[..16]), &random[16..]);
    let encryption = request.key.as_ref().map(|key| Encryption {
        cipher: CIPHER.to_string(),
        key_fingerprint: key.fingerprint(),
        salt: to_hex(salt),
    });
    let (pass, held, paused_ms) = pass_barrier(request.state_root, gate)?;
    let mut head = Head {
        r#type: TYPE.to_string(),
        format: FORMAT,
        id: id.clone(),
        created_at_ms: request.now_ms,
        daemon_version: env!("CARGO_PKG_VERSION").to_string(),
        encryption,
        files: Vec::new(),
    };
    let binding =
        |head: &Head, plain: &str| request.key.as_ref().map(|key| Binding::new(key, salt, &id, &head.file_name(plain)));
    let mut pace = Pace::new(request.bytes_per_s);
    let mut left_out = held.left_out.clone();
    let (master_key_fingerprint, missing, included) =
        (fingerprint(&held), missing(&held), held.get(KEY_FILE).is_some());
    let (mut archives, mut kept, mut outers) = (Vec::new(), Vec::new(), Vec::new());
    let mut add = |plain: &str, finished: (Outer, Vec<super::manifest::Entry>), content_bytes: u64| {
        let (outer, entries) = finished;
        let (name, sha256) = (outer.name.clone(), outer.sha256.clone());
        kept.push(Kept { name, entries: entries.len(), content_bytes, sha256 });
        outers.push(outer);
        archives.push(Archived { name: plain.to_string(), entries });
    };
    let name = head.file_name(STATE_ARCHIVE);
    let mut archive =
        ArchiveWriter::create(&place.partial, &name, binding(&head, STATE_ARCHIVE), request.now_ms, &mut pace)?;
    copy_state(request.state_root, &pass.cut, held, &mut archive, &mut left_out)?;
    let content_bytes = archive.content_bytes();
    add(STATE_ARCHIVE, archive.finish()?, content_bytes);
    if let Some(workspace) = request.workspace {
        let name = head.file_name(WORKSPACE_ARCHIVE);
        let mut archive =
            ArchiveWriter::create(&place.partial, &name, binding(&head, WORKSPACE_ARCHIVE), request.now_ms, &mut pace)?;
        copy_tree(workspace, "", Tree::Workspace, &mut archive, &mut left_out)?;
        let content_bytes = archive.content_bytes();
        add(WORKSPACE_ARCHIVE, archive.finish()?, content_bytes);
    }
    let manifest = Manifest {
        format: FORMAT,
        id: id.clone(),
        created_at_ms: request.now_ms,
        daemon_version: head.daemon_version.clone(),
        live: pass.live,
        state_root_format: FORMAT_VERSION,
        journal_format: JOURNAL_FORMAT,
        cut: pass.cut,
        audit_key: AuditKeyNote { key_id: pass.key_id, included },
        master_key_fingerprint,
        missing,
        left_out,
        archives,
    };
    let text = json(&manifest)?;
    let name = head.file_name(MANIFEST_FILE);
    head.files = outers;
    head.files.push(write_file(&place.partial, &name, binding(&head, MANIFEST_FILE), &text)?);
    let text = json(&head)?;
    // Last, so that a directory with this file has all others.
    write_file(&place.partial, HEAD_FILE, None, &text)?;
    Ok(Summary {
        ok: true,
        out: place.out.display().to_string(),
        id,
        sha256: sha256_hex(&text),
        created_at_ms: request.now_ms,
        live: pass.live,
        journal_seq: manifest.cut.seq,
        journal_sealed_seq: manifest.cut.sealed_seq,
        encrypted: head.encryption.is_some(),
        master_key_fingerprint: manifest.master_key_fingerprint,
        archives: kept,
        missing: manifest.missing,
        left_out: manifest.left_out,
        paused_ms,
        duration_ms: 0,
    })
}

/// Opens what must fit each other while nothing of it changes. A barrier that fell too early is tried again.
fn pass_barrier(root: &Path, gate: &mut dyn Gate) -> Result<(Pass, HeldFiles, u64), BackupError> {
    for _ in 0..BACKUP_BARRIER_ATTEMPTS {
        let began = Instant::now();
        let pass = gate.open()?;
        let held = hold(root, pass.cut.seq);
        // Closed whatever came of it: nobody is to wait for the limit.
        let stood = gate.close()?;
        let held = held?;
        if stood {
            return Ok((pass, held, began.elapsed().as_millis() as u64));
        }
    }
    Err(BackupError::Lapsed)
}

fn copy_state(
    root: &Path,
    cut: &Cut,
    held: HeldFiles,
    archive: &mut ArchiveWriter<'_>,
    left_out: &mut Vec<Note>,
) -> Result<(), BackupError> {
    for directory in Directory::ALL {
        archive.directory(directory.name(), 0o700)?;
    }
    for file in &held.files {
        archive.file(&file.path, file.mode, file.bytes, &file.file, &root.join(&file.path))?;
    }
    copy_journal(root, cut, archive)?;
    for directory in loose_directories(root)? {
        if Directory::ALL.iter().all(|own| own.name() != directory) {
            archive.directory(&directory, 0o700)?;
        }
        copy_tree(root, &directory, Tree::State, archive, left_out)?;
    }
    // Last, so that what a cut-off `tar -x` leaves is no state root.
    let format = &held.format;
    archive.file(&format.path, format.mode, format.bytes, &format.file, &root.join(&format.path)).map(drop)
}

fn copy_journal(root: &Path, cut: &Cut, archive: &mut ArchiveWriter<'_>) -> Result<(), BackupError> {
    let path = root.join(Directory::Journal.name());
    let disk = RealDisk::open(&path).map_err(BackupError::io("open", &path))?;
    let mut tail = Vec::new();
    for segment in &cut.segments {
        let name = segment_file(segment.first);
        let from = path.join(&name);
        let file = open_segment(&disk, *segment)
            .map_err(|cause| BackupError::OtherJournal { path: from.clone(), cause: cause.to_string() })?;
        let below = format!("{}/{name}", Directory::Journal.name());
        tail = archive.file(&below, 0o600, segment.bytes, &file, &from)?;
    }
    // The last line carries the chain value that the daemon told, so these are its files.
    let wanted = format!(",\"chain\":\"{}\"}}\n", cut.chain);
    if tail.ends_with(wanted.as_bytes()) {
        return Ok(());
    }
    Err(BackupError::OtherJournal { path, cause: format!("record {} is not its last one", cut.seq) })
}

/// The fingerprint of the key that the store was written with.
fn fingerprint(held: &HeldFiles) -> Option<String> {
    let store = held.get(&format!("{}/{FILE_NAME}", Directory::Auth.name()))?;
    let mut bytes = vec![0; store.bytes.min(AUTH_STORE_FILE_BYTES_MAX as u64) as usize];
    std::os::unix::fs::FileExt::read_exact_at(&store.file, &mut bytes, 0).ok()?;
    let value: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    value["key_fingerprint"].as_str().map(str::to_string)
}

fn missing(held: &HeldFiles) -> Vec<Note> {
    let mut missing = Vec::new();
    if held.get(KEY_FILE).is_none() {
        missing.push(Note {
            name: KEY_FILE.to_string(),
            cause:
                "the signing key lies outside of the state root; keep the file of --audit-signing-key-file separately"
                    .to_string(),
        });
    }
    if held.get(PUBLIC_FILE).is_none() {
        missing.push(Note { name: PUBLIC_FILE.to_string(), cause: "it is not in the state root".to_string() });
    }
    missing
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, BackupError> {
    let failed =
        |cause| BackupError::Io { action: "write", path: PathBuf::from(MANIFEST_FILE), cause: io::Error::other(cause) };
    let mut text = serde_json::to_vec_pretty(value).map_err(failed)?;
    text.push(b'\n');
    Ok(text)
}
