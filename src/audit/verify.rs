//! Verification of the whole audit trail offline, with the public key alone.
//! Owns: the rules for records of external actions, and what a checkpoint proves.
//! May touch: a state root or a copy of one, for reading.
//! Never: needs the private key, the lock or a daemon; changes a file.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::checkpoint::Checkpoint;
use super::control_plane::{self, AuditFileReport};
use super::key::PublicKey;
use crate::core::{SignedRecord, record_hash};
use crate::ids::Seq;
use crate::journal::{
    Chain, Disk, Inspect, Problem, RecordRef, ShowFilter, VerifyReport, read_beside, show, verify_with,
};
use crate::limits::AUDIT_OPEN_ACTIONS_SHOWN_MAX;
use crate::state_root::Directory;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// The first problem: the first bad record, or what a checkpoint misses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// Records of external actions.
    pub actions: ActionReport,
    /// Recorded acts outside the journal whose result is not recorded: what they changed is to be looked at.
    pub control_intents_open: Vec<Seq>,
    /// The checkpoint, where one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointReport>,
    /// The control-plane audit file, where the copy holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_file: Option<AuditFileReport>,
    /// Lines, chain, seals and snapshots.
    pub journal: VerifyReport,
}

/// Figures of the action records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ActionReport {
    /// Requests.
    pub requests: u64,
    /// Responses.
    pub responses: u64,
    /// Responses by outcome.
    pub outcomes: std::collections::BTreeMap<String, u64>,
    /// Records without a signature, from before there was one.
    pub unsigned: u64,
    /// Actions in flight at the end: their number, and the first of them.
    pub open: u64,
    /// See `open`.
    pub open_ids: Vec<String>,
}

/// What the checkpoint says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckpointReport {
    /// The position that it vouches for.
    pub head: Seq,
    /// When it was made.
    pub at_ms: u64,
    /// Whether the journal holds exactly what it vouches for.
    pub holds: bool,
}

/// The members of an action record that are checked.
#[derive(Deserialize)]
struct Members {
    #[serde(default)]
    action_id: String,
    #[serde(default)]
    chain: String,
    #[serde(default)]
    index: u64,
    #[serde(default)]
    prev_hash: String,
    #[serde(default)]
    timestamp_ms: u64,
    #[serde(default)]
    session_id: Option<String>,
    #[serde(default)]
    run_id: Option<String>,
    #[serde(default)]
    phase: String,
    #[serde(default)]
    outcome: Option<String>,
    #[serde(default)]
    signature_alg: String,
    #[serde(default)]
    key_id: String,
    #[serde(default)]
    record_hash: Option<String>,
}

#[derive(Deserialize)]
struct ResultMembers {
    intent: Seq,
}

/// Looks at each record of the journal.
#[derive(Default)]
struct Ledger {
    report: ActionReport,
    /// Records and last hash of each chain that may go on.
    chains: HashMap<String, (u64, String)>,
    /// Actions without an outcome, with the chain that they belong to.
    open: HashMap<String, String>,
    intents: Vec<Seq>,
    /// Every key that counted anywhere.
    keys: Vec<PublicKey>,
    signed_seen: bool,
}

impl Ledger {
    fn action(&mut self, record: &RecordRef<'_>, keys: &[PublicKey], is_request: bool) -> Result<(), String> {
        let members: Members = serde_json::from_str(record.body.get())
            .map_err(|error| format!("the action record is not as documented: {error}"))?;
        if members.record_hash.is_none() && !self.signed_seen {
            self.report.unsigned += 1;
            return Ok(());
        }
        self.signed_seen = true;
        let split = SignedRecord::split(record.body.get()).ok_or("the action record is not signed where it must be")?;
        if record_hash(split.signed.as_bytes()) != split.record_hash {
            return Err("the action record's hash is not that of its bytes".to_string());
        }
        if !keys.is_empty() {
            let Some(key) = keys.iter().find(|key| key.key_id() == members.key_id) else {
                return Err(format!(
                    "the action record is signed by key {}, which does not count here",
                    members.key_id
                ));
            };
            if members.signature_alg != "ed25519" || !key.verify(split.signed.as_bytes(), &split.signature) {
                return Err(format!("the action record's signature is not key {}'s", members.key_id));
            }
        }
        self.place(record, &members, is_request)?;
        self.follow(&members, split.record_hash)?;
        self.pair(members, is_request)
    }

    /// The line around the record must say the same as the record.
    fn place(&self, record: &RecordRef<'_>, members: &Members, is_request: bool) -> Result<(), String> {
        let phase = if is_request { "request" } else { "response" };
        let run = record.run.map(|run| run.to_string());
        let session = record.session.as_ref().map(|session| session.as_str());
        let agrees = members.phase == phase
            && members.timestamp_ms == record.at_ms
            && members.run_id == run
            && members.session_id.as_deref() == session
            && (members.chain == crate::core::DAEMON_CHAIN || Some(&members.chain) == run.as_ref());
        if agrees { Ok(()) } else { Err("the action record stands in a line that says otherwise".to_string()) }
    }

    fn follow(&mut self, members: &Members, hash: &str) -> Result<(), String> {
        let (count, last) = self.chains.entry(members.chain.clone()).or_default();
        if members.index != *count + 1 || members.prev_hash != *last {
            return Err(format!(
                "action record {} of chain {} does not follow record {count}: records are missing or out of order",
                members.index, members.chain
            ));
        }
        (*count, *last) = (members.index, hash.to_string());
        Ok(())
    }

    fn pair(&mut self, members: Members, is_request: bool) -> Result<(), String> {
        if is_request {
            self.report.requests += 1;
            return match self.open.insert(members.action_id.clone(), members.chain) {
                None => Ok(()),
                Some(_) => Err(format!("{} is asked for twice", members.action_id)),
            };
        }
        self.report.responses += 1;
        *self.report.outcomes.entry(members.outcome.unwrap_or_default()).or_default() += 1;
        match self.open.remove(&members.action_id) {
            Some(_) => Ok(()),
            None => Err(format!("{} is answered and was not asked for", members.action_id)),
        }
    }

    fn run_ended(&mut self, record: &RecordRef<'_>) -> Result<(), String> {
        let Some(run) = record.run.map(|run| run.to_string()) else { return Ok(()) };
        self.chains.remove(&run);
        match self.open.iter().find(|(_, chain)| **chain == run) {
            None => Ok(()),
            Some((id, _)) => Err(format!("{run} ends and {id} has no outcome on record")),
        }
    }
}

impl Inspect for Ledger {
    fn inspect(&mut self, record: &RecordRef<'_>, keys: &[PublicKey]) -> Result<(), String> {
        if self.keys.len() < keys.len() || keys.last() != self.keys.last() {
            self.keys.retain(|known| !keys.contains(known));
            self.keys.extend_from_slice(keys);
        }
        match record.kind {
            "external_action.request" => self.action(record, keys, true),
            "external_action.response" => self.action(record, keys, false),
            "run.completed" | "run.failed" | "run.interrupted" | "run.cancelled" => self.run_ended(record),
            "control.intent" => {
                self.intents.push(record.seq);
                Ok(())
            }
            "control.result" => {
                let result: ResultMembers = serde_json::from_str(record.body.get())
                    .map_err(|error| format!("the result of an act is not as documented: {error}"))?;
                self.intents.retain(|intent| *intent != result.intent);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Verifies the state root at `root`, or a copy: the journal as [`crate::journal::verify`] does, every record of an
/// external action, and that everything `checkpoint` vouches for is there. Without keys no signature is checked.
pub fn verify(root: &Path, keys: &[PublicKey], checkpoint: Option<&Checkpoint>) -> AuditReport {
    let mut ledger = Ledger::default();
    let journal = verify_with(root, keys, &mut |_| {}, &mut ledger);
    let mut problem = journal.problem.clone();
    let checkpoint = checkpoint.map(|checkpoint| {
        let cause = check_checkpoint(root, &journal, checkpoint, &ledger.keys);
        let holds = cause.is_none();
        problem = problem.take().or(cause);
        CheckpointReport { head: checkpoint.head, at_ms: checkpoint.at_ms, holds }
    });
    let audit_file = check_audit_file(root, &mut problem);
    AuditReport { checkpoint, audit_file, ..report_of(ledger, journal, problem) }
}

/// As [`verify`], of a journal and snapshots that need not lie in directories, such as an archive's; without the audit file.
pub fn verify_disks(
    directory: &Path,
    journal: &dyn Disk,
    snapshots: Option<&dyn Disk>,
    keys: &[PublicKey],
) -> AuditReport {
    let mut ledger = Ledger::default();
    let report = crate::journal::verify_disks(directory, journal, snapshots, keys, &mut |_| {}, &mut ledger);
    let problem = report.problem.clone();
    report_of(ledger, report, problem)
}

fn report_of(ledger: Ledger, journal: VerifyReport, problem: Option<Problem>) -> AuditReport {
    let Ledger { mut report, open, intents, .. } = ledger;
    report.open = open.len() as u64;
    report.open_ids = open.into_keys().collect();
    report.open_ids.sort();
    report.open_ids.truncate(AUDIT_OPEN_ACTIONS_SHOWN_MAX);
    AuditReport {
        ok: problem.is_none(),
        problem,
        actions: report,
        control_intents_open: intents,
        checkpoint: None,
        audit_file: None,
        journal,
    }
}

/// As [`verify`], beside a daemon that may be writing: what is read of the newest segment while it grows can look damaged. Damage
/// that is found at one place twice is damage.
pub fn verify_beside(root: &Path, keys: &[PublicKey], checkpoint: Option<&Checkpoint>) -> AuditReport {
    read_beside(|| verify(root, keys, checkpoint), |report| report.problem.as_ref())
}

fn check_audit_file(root: &Path, problem: &mut Option<Problem>) -> Option<AuditFileReport> {
    let directory = root.join(Directory::ControlPlaneAuth.name());
    if !directory.is_dir() {
        return None;
    }
    let at = |file: PathBuf, reason: String| Problem {
        file,
        offset: 0,
        seq: None,
        reason,
        next: "treat the audit file as altered; the journal tells which acts it must have".to_string(),
    };
    match control_plane::check(&directory) {
        Err(error) => {
            problem.get_or_insert(at(directory, error.to_string()));
            None
        }
        Ok(report) => {
            if let Some(bad) = &report.problem {
                problem.get_or_insert(at(bad.file.clone(), format!("line {}: {}", bad.line, bad.reason)));
            }
            Some(report)
        }
    }
}

fn check_checkpoint(
    root: &Path,
    journal: &VerifyReport,
    checkpoint: &Checkpoint,
    keys: &[PublicKey],
) -> Option<Problem> {
    let problem = |reason: String| {
        Some(Problem {
            file: journal.directory.clone(),
            offset: 0,
            seq: Some(checkpoint.head),
            reason,
            next: "treat the journal as cut or altered; compare it with an earlier copy".to_string(),
        })
    };
    if !keys.is_empty()
        && let Err(cause) = checkpoint.check(keys)
    {
        return problem(format!("the checkpoint is not to be believed: {cause}"));
    }
    if journal.seq_last < checkpoint.head {
        return problem(format!(
            "the checkpoint vouches for records up to {} and the journal ends at {}",
            checkpoint.head, journal.seq_last
        ));
    }
    let filter = ShowFilter { from: Some(checkpoint.head), to: Some(checkpoint.head), ..ShowFilter::default() };
    let mut chain = None;
    let shown = show(root, &filter, &mut |_, line| {
        chain = chain_of(line);
        ControlFlow::Break(())
    });
    match (shown, chain) {
        (Err(error), _) => problem(error.to_string()),
        (Ok(_), Some(chain)) if chain == checkpoint.chain => None,
        (Ok(_), Some(_)) => problem("the record at the checkpoint has another history than the checkpoint".to_string()),
        (Ok(_), None) => problem("the record that the checkpoint names is not there".to_string()),
    }
}

/// The chain value at the end of a line.
fn chain_of(line: &[u8]) -> Option<Chain> {
    let digits = line.strip_suffix(b"\"}\n")?;
    Chain::parse(digits.get(digits.len().checked_sub(64)?..)?)
}
