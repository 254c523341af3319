//! Verification of a journal offline: read-only, on the original or a copy, with public keys alone.
//! Owns: the report.
//! May touch: segments and snapshots, for reading.
//! Never: takes the state-root lock, needs a private key, or changes a file.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Restore;
use super::chain::Chain;
use super::disk::{Disk, RealDisk};
use super::error::JournalError;
use super::record::RecordRef;
use super::recovery::{Found, is_placed, replay_all};
use super::seal::{KEY_ROTATED, KeyRotated, OPENED, Opened, SEAL, Seal, SealCheck, body};
use super::snapshot::{Snapshot, list_snapshots, snapshot_name};
use crate::audit::key::PublicKey;
use crate::ids::Seq;
use crate::limits::JOURNAL_BESIDE_READINGS_MAX;

/// Records between two reports of progress.
const PROGRESS_RECORDS: u64 = 65_536;

/// How far a verification has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Records checked.
    pub records: u64,
    /// The last of them.
    pub seq: Seq,
}

/// The first thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Offset in the file.
    pub offset: u64,
    /// The position at fault, where one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub next: String,
}

/// A torn batch at the end. It was never acknowledged; the next start cuts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TornTail {
    /// The segment.
    pub segment: String,
    /// Where it begins.
    pub offset: u64,
    /// Its bytes.
    pub bytes: u64,
    /// What is missing.
    pub cause: String,
}

/// What was found about one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotReport {
    /// Its file name.
    pub file: String,
    /// What is wrong with it; nothing when it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The result of a verification.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// The journal directory.
    pub directory: PathBuf,
    /// Segments read.
    pub segments: u64,
    /// Records checked.
    pub records: u64,
    /// Bytes of records.
    pub bytes: u64,
    /// First and last position; 0 when there are none.
    pub seq_first: Seq,
    /// See `seq_first`.
    pub seq_last: Seq,
    /// Chain value of the last record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<Chain>,
    /// Epochs declared, in order.
    pub epochs: Vec<u32>,
    /// Seals seen.
    pub seals: u64,
    /// Whether signatures were checked: keys were given.
    pub signatures_checked: bool,
    /// The last position covered by a good signature, or by any seal when signatures were not checked.
    pub sealed_through: Seq,
    /// Records behind it.
    pub records_unsealed: u64,
    /// Ids of the keys that signed.
    pub key_ids: Vec<String>,
    /// A torn tail, which is no problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub torn_tail: Option<TornTail>,
    /// The snapshots.
    pub snapshots: Vec<SnapshotReport>,
    /// The first problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// The journal directory of a path that is a state root or a journal directory itself.
pub(super) fn journal_directory(directory: &Path) -> PathBuf {
    let inner = directory.join("journal");
    if inner.is_dir() { inner } else { directory.to_path_buf() }
}

/// Verifies the journal under `directory`, a state root or its `journal` directory: every line, its chain, its
/// batch, every seal, and the snapshots beside it. Every seal must be signed by one of `keys`; without keys the
/// chain is checked and signatures are not.
pub fn verify(directory: &Path, keys: &[PublicKey], on_progress: &mut dyn FnMut(Progress)) -> VerifyReport {
    verify_with(directory, keys, on_progress, &mut |_: &RecordRef<'_>, _: &[PublicKey]| Ok(()))
}

/// As [`verify`], beside a daemon that may be writing: what is read while a segment grows or follows another can look damaged.
/// Damage that is found at one place twice is damage.
pub fn verify_beside(directory: &Path, keys: &[PublicKey]) -> VerifyReport {
    read_beside(|| verify(directory, keys, &mut |_progress| {}), |report| report.problem.as_ref())
}

/// Reads until no problem is found, or two readings agree on its place; at most [`JOURNAL_BESIDE_READINGS_MAX`] times.
pub fn read_beside<R>(mut read: impl FnMut() -> R, problem: impl Fn(&R) -> Option<&Problem>) -> R {
    let place = |report: &R| problem(report).map(|problem| (problem.file.clone(), problem.offset));
    let mut report = read();
    for _ in 1..JOURNAL_BESIDE_READINGS_MAX {
        let Some(found) = place(&report) else { break };
        report = read();
        if place(&report).as_ref() == Some(&found) {
            break;
        }
    }
    report
}

/// Looks at every record of a verification; given the keys that count at its place, none when signatures are not
/// checked. An error is the verification's problem.
pub trait Inspect {
    /// One record, in order, its line and chain already found good.
    ///
    /// # Errors
    /// What is wrong with it.
    fn inspect(&mut self, record: &RecordRef<'_>, keys: &[PublicKey]) -> Result<(), String>;
}

impl<F: FnMut(&RecordRef<'_>, &[PublicKey]) -> Result<(), String>> Inspect for F {
    fn inspect(&mut self, record: &RecordRef<'_>, keys: &[PublicKey]) -> Result<(), String> {
        self(record, keys)
    }
}

/// As [`verify`], with somebody who looks at each record as well.
pub fn verify_with(
    directory: &Path,
    keys: &[PublicKey],
    on_progress: &mut dyn FnMut(Progress),
    inspect: &mut dyn Inspect,
) -> VerifyReport {
    let journal = journal_directory(directory);
    let disk = match RealDisk::open(&journal) {
        Ok(disk) => disk,
        Err(cause) => {
            let mut report = begin(journal.clone(), keys);
            report.problem = Some(problem(JournalError::Io { action: "open", path: journal, cause }));
            return report;
        }
    };
    let snapshots = RealDisk::open(&journal.with_file_name("snapshots")).ok();
    let snapshots = snapshots.as_ref().map(|disk| disk as &dyn Disk);
    verify_disks(&journal, &disk, snapshots, keys, on_progress, inspect)
}

fn begin(directory: PathBuf, keys: &[PublicKey]) -> VerifyReport {
    VerifyReport { directory, signatures_checked: !keys.is_empty(), ..VerifyReport::default() }
}

/// As [`verify_with`], of a journal and snapshots that need not lie in directories, such as an archive's. `directory`
/// names the journal in the report.
pub fn verify_disks(
    directory: &Path,
    disk: &dyn Disk,
    snapshots: Option<&dyn Disk>,
    keys: &[PublicKey],
    on_progress: &mut dyn FnMut(Progress),
    inspect: &mut dyn Inspect,
) -> VerifyReport {
    let journal = directory.to_path_buf();
    let mut report = begin(journal.clone(), keys);
    let (known, retired) = (keys.to_vec(), Vec::new());
    let mut check = Check { report: &mut report, keys: known, retired, on_progress, inspect, forged: false };
    let outcome = replay_all(disk, &mut check);
    let forged = check.forged;
    let known: Vec<PublicKey> = check.keys.into_iter().chain(check.retired).collect();
    match outcome {
        Ok(Some(found)) => note(&mut report, found),
        Ok(None) => {
            report.problem = Some(Problem {
                file: journal.clone(),
                offset: 0,
                seq: None,
                reason: "there is no segment".to_string(),
                next: "name the state root, or its journal directory".to_string(),
            });
        }
        Err(error) => {
            let mut found = problem(error);
            if forged {
                found.next = "treat the journal as altered; compare it with an earlier copy, and the key with one \
                              kept elsewhere"
                    .to_string();
            }
            report.problem = Some(found);
        }
    }
    if let Some(snapshots) = snapshots {
        check_snapshots(&mut report, disk, snapshots, &known);
    }
    report.ok = report.problem.is_none();
    report
}

fn note(report: &mut VerifyReport, found: Found) {
    report.segments = found.table.len() as u64;
    report.bytes = found.table.iter().map(|segment| segment.bytes).sum();
    report.chain = Some(found.position.chain);
    report.torn_tail = found.torn.map(|torn| TornTail {
        segment: torn.segment,
        offset: torn.offset,
        bytes: torn.bytes,
        cause: torn.cause,
    });
}

fn problem(error: JournalError) -> Problem {
    let text = error.to_string();
    let next = text.rsplit_once("next: ").map_or_else(String::new, |(_, next)| next.to_string());
    match error {
        JournalError::Damaged { path, offset, seq, cause } => {
            Problem { file: path, offset, seq: Some(seq), reason: cause, next }
        }
        JournalError::NotUnderstood { path, offset, seq, cause } => {
            Problem { file: path, offset, seq: Some(seq), reason: cause, next }
        }
        JournalError::SnapshotContradicts { path, seq, cause } => {
            Problem { file: path, offset: 0, seq: Some(seq), reason: format!("the snapshot {cause}"), next }
        }
        JournalError::FormatNewer { path, found, .. } => {
            Problem { file: path, offset: 0, seq: None, reason: format!("its format {found} is newer"), next }
        }
        JournalError::Io { path, cause, .. } => {
            Problem { file: path, offset: 0, seq: None, reason: cause.to_string(), next }
        }
        _ => Problem { file: PathBuf::new(), offset: 0, seq: None, reason: text, next },
    }
}

fn check_snapshots(report: &mut VerifyReport, disk: &dyn Disk, snapshots: &dyn Disk, keys: &[PublicKey]) {
    let keys = (!keys.is_empty()).then_some(keys);
    for seq in list_snapshots(snapshots).unwrap_or_default() {
        let found = match Snapshot::open(snapshots, seq, keys) {
            Err(cause) => Err(cause),
            Ok(snapshot) => match is_placed(disk, &snapshot) {
                Ok(true) => Ok(()),
                Ok(false) => Err("the journal ends before it".to_string()),
                Err(error) => Err(problem(error).reason),
            },
        };
        let file = snapshot_name(seq);
        if let Err(cause) = &found {
            report.problem.get_or_insert(Problem {
                file: snapshots.path(&file),
                offset: 0,
                seq: Some(seq),
                reason: cause.clone(),
                next: "if the journal itself is good, remove the snapshot; the next start reads the journal instead"
                    .to_string(),
            });
        }
        report.snapshots.push(SnapshotReport { file, problem: found.err() });
    }
}

/// Takes the place of the state while the journal is read.
struct Check<'a> {
    report: &'a mut VerifyReport,
    /// Those that count at this place.
    keys: Vec<PublicKey>,
    /// Those that have handed over.
    retired: Vec<PublicKey>,
    on_progress: &'a mut dyn FnMut(Progress),
    inspect: &'a mut dyn Inspect,
    forged: bool,
}

impl Check<'_> {
    fn seal(&mut self, record: &RecordRef<'_>) -> Result<(), String> {
        // That it names the record before it with its chain value was checked by the replay.
        let seal: Seal = body(record.body)?;
        if !self.keys.is_empty() {
            let cause = match seal.check(&self.keys) {
                SealCheck::Good => None,
                SealCheck::UnknownKey if self.retired.iter().any(|key| key.key_id() == seal.key_id) => {
                    Some(format!("the seal is signed by key {}, which had handed over before", seal.key_id))
                }
                SealCheck::UnknownKey => {
                    Some(format!("the seal is signed by key {}, which was not given", seal.key_id))
                }
                SealCheck::Forged => Some(format!("the seal's signature is not key {}'s", seal.key_id)),
            };
            if let Some(cause) = cause {
                self.forged = true;
                return Err(cause);
            }
        }
        self.report.seals += 1;
        self.report.sealed_through = seal.head;
        self.report.records_unsealed = 0;
        if !self.report.key_ids.contains(&seal.key_id) {
            self.report.key_ids.push(seal.key_id);
        }
        Ok(())
    }
}

impl Check<'_> {
    /// From a hand-over on the new key counts and the old one no longer does.
    fn key_rotated(&mut self, record: &RecordRef<'_>) -> Result<(), String> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let rotated: KeyRotated = body(record.body)?;
        let new = rotated.check(&self.keys).inspect_err(|_| self.forged = true)?;
        self.keys.retain(|key| *key != new);
        let old = self.keys.iter().position(|key| key.key_id() == rotated.old_key_id);
        self.retired.extend(old.map(|index| self.keys.remove(index)));
        self.keys.push(new);
        Ok(())
    }
}

impl Restore for Check<'_> {
    fn reset(&mut self) {}

    fn snapshot_line(&mut self, _line: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn record(&mut self, record: &RecordRef<'_>) -> Result<(), String> {
        if self.report.records == 0 {
            self.report.seq_first = record.seq;
        }
        self.report.records += 1;
        self.report.records_unsealed += 1;
        self.report.seq_last = record.seq;
        match record.kind {
            SEAL => self.seal(record)?,
            KEY_ROTATED => self.key_rotated(record)?,
            OPENED => {
                let opened: Opened = body(record.body)?;
                if self.report.epochs.last() != Some(&opened.epoch) {
                    self.report.epochs.push(opened.epoch);
                }
            }
            _ => {}
        }
        self.inspect.inspect(record, &self.keys)?;
        if self.report.records.is_multiple_of(PROGRESS_RECORDS) {
            (self.on_progress)(Progress { records: self.report.records, seq: record.seq });
        }
        Ok(())
    }
}
