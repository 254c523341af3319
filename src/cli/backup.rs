//! `backup …`: a consistent copy of a state root, its verification, and its restore.
//! Owns: the three commands, and the way from a running daemon's barrier to the copy.
//! May touch: the network, through `net`, to open and close the barrier; a state root and a workspace for reading; the backup.
//! Never: takes a backup of another daemon's files; checks a backup less because it is to be restored.

use std::path::{Path as FilePath, PathBuf};

use argh::{ArgsInfo, FromArgs};
use serde::Deserialize;

use super::client::{Client, decode};
use super::context::Context;
use super::exit::CliError;
use super::incident_collect::local_root;
use super::journal::read_keys;
use super::json_text::Document;
use super::path::Path;
use super::verbs::Command;
use crate::backup::{self, BackupError, BackupKey, Checks, Gate, OfflineGate, Pass, Report, Request, Target};
use crate::broker::master_key::{KEY_FILE_VARIABLE, KEY_VARIABLE, MasterKey};
use crate::clock::{Clock, SystemClock};
use crate::journal::Cut;
use crate::limits::BACKUP_RATE_MIB_S_DEFAULT;

const MIB: u64 = 1024 * 1024;

/// copy the state root of a running daemon, or of a stopped one, into a new directory
#[derive(FromArgs, ArgsInfo)]
pub struct Create {
    /// the directory to make; an empty one is taken
    #[argh(option, arg_name = "dir")]
    out: String,
    /// the state root; what the status names when the daemon is on this host
    #[argh(option, arg_name = "dir")]
    state_root: Option<String>,
    /// the workspace, to be archived beside it with a checksum of every file
    #[argh(option, arg_name = "dir")]
    workspace: Option<String>,
    /// encrypt with this key: a file of 32 random bytes, or with what `secrets generate` prints
    #[argh(option, arg_name = "path")]
    encrypt_key_file: Option<String>,
    /// copy at most this many MiB in a second; 0: as fast as it goes (32)
    #[argh(option, arg_name = "n")]
    rate_mib_s: Option<u64>,
    /// the daemon is stopped: take the lock of --state-root instead of asking it
    #[argh(switch)]
    offline: bool,
}

impl Command for Create {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let key = read_key(self.encrypt_key_file.as_deref())?;
        let bytes_per_s = self.rate_mib_s.unwrap_or(BACKUP_RATE_MIB_S_DEFAULT).saturating_mul(MIB);
        let given = self.state_root.map(PathBuf::from);
        let client = if self.offline { None } else { Some(context.client()?) };
        let state_root = match (given, &client) {
            (Some(root), _) => root,
            (None, None) => return Err(needs_root("no state root was given")),
            (None, Some(client)) => root_of(client)?,
        };
        let request = Request {
            out: FilePath::new(&self.out),
            state_root: &state_root,
            workspace: self.workspace.as_deref().map(FilePath::new),
            key,
            bytes_per_s,
            now_ms: SystemClock.now_ms(),
        };
        let summary = match client {
            None => {
                let mut gate = OfflineGate::new(&state_root).map_err(|error| failed("backup create", error))?;
                backup::create(&request, &mut gate).map_err(|error| failed("backup create", error))?
            }
            Some(client) => {
                let mut gate = LiveGate { client, root: &state_root, id: None, failure: None };
                let made = backup::create(&request, &mut gate);
                made.map_err(|error| gate.failure.take().unwrap_or_else(|| failed("backup create", error)))?
            }
        };
        for note in summary.missing.iter().chain(&summary.left_out) {
            context.out.note(&format!("Note: {} is not in the backup: {}", note.name, note.cause));
        }
        context.out.document(&Document::of(&summary))
    }
}

/// The state root of a daemon on this host, as it tells itself.
fn root_of(client: &Client) -> Result<PathBuf, CliError> {
    let status = client.get(&Path::new("/v1/status"))?;
    let status: serde_json::Value = decode(&status, "the status")?;
    local_root(client, Some(&status)).ok_or_else(|| needs_root("the daemon's state root is not found on this host"))
}

fn needs_root(cause: &str) -> CliError {
    CliError::invalid("backup create", cause, "add --state-root DIR, on the daemon's host and as the daemon's user")
}

/// A running daemon, asked for its barrier.
struct LiveGate<'a> {
    client: Client,
    root: &'a FilePath,
    id: Option<String>,
    /// The client's own error, which has an exit code of its own.
    failure: Option<CliError>,
}

#[derive(Deserialize)]
struct BarrierView {
    barrier_id: String,
    state_root: RootView,
    cut: Cut,
    audit_key_id: String,
}

#[derive(Deserialize)]
struct RootView {
    device: u64,
    inode: u64,
}

#[derive(Deserialize)]
struct ClosedView {
    stood: bool,
}

impl LiveGate<'_> {
    fn fail(&mut self, error: CliError) -> BackupError {
        let cause = error.to_string();
        self.failure = Some(error);
        BackupError::Gate { cause }
    }

    fn ask<T: serde::de::DeserializeOwned>(&mut self, path: &Path) -> Result<T, BackupError> {
        let answer = self.client.post(path, None, &[]).and_then(|document| decode(&document, path.as_str()));
        answer.map_err(|error| self.fail(error))
    }

    /// The files that are read must be those of the daemon that stands still.
    fn is_its_root(&self, told: &RootView) -> bool {
        use std::os::unix::fs::MetadataExt;
        let found = std::fs::metadata(self.root);
        found.is_ok_and(|found| (found.dev(), found.ino()) == (told.device, told.inode))
    }
}

impl Gate for LiveGate<'_> {
    fn open(&mut self) -> Result<Pass, BackupError> {
        let view: BarrierView = self.ask(&Path::new("/v1/backup/barrier"))?;
        self.id = Some(view.barrier_id);
        if !self.is_its_root(&view.state_root) || !view.cut.is_consistent() {
            // Nobody is to wait for the limit; what it answers changes nothing.
            let _refused_anyway = self.close();
            let cause = "the daemon uses another state root".to_string();
            return Err(BackupError::OtherJournal { path: self.root.to_path_buf(), cause });
        }
        Ok(Pass { cut: view.cut, key_id: Some(view.audit_key_id), live: true })
    }

    fn close(&mut self) -> Result<bool, BackupError> {
        let Some(id) = self.id.take() else { return Ok(false) };
        let path = Path::new("/v1/backup/barrier").segment(&id).then("/close");
        self.ask::<ClosedView>(&path).map(|closed| closed.stood)
    }
}

/// check a backup without a daemon: every file, the journal inside it, its seals and signed actions
#[derive(FromArgs, ArgsInfo)]
pub struct VerifyBackup {
    /// the backup's directory
    #[argh(positional)]
    dir: String,
    /// the key that it was encrypted with
    #[argh(option, arg_name = "path")]
    decrypt_key_file: Option<String>,
    /// the `sha256` that `backup create` printed, kept elsewhere
    #[argh(option, arg_name = "hex")]
    sha256: Option<String>,
    /// PEM file with a public key kept elsewhere; the one in the backup otherwise
    #[argh(option, arg_name = "path")]
    public_key: Option<String>,
    /// also see whether the master key of the environment opens the auth store
    #[argh(switch)]
    check_master_key: bool,
}

impl Command for VerifyBackup {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let key = read_key(self.decrypt_key_file.as_deref())?;
        let checks = Checks {
            sha256: self.sha256,
            keys: self.public_key.map(|path| read_keys(FilePath::new(&path))).transpose()?,
            master_key: if self.check_master_key { Some(master_key(context)?) } else { None },
        };
        let (_, report) =
            backup::verify(FilePath::new(&self.dir), key, checks).map_err(|error| failed("backup verify", error))?;
        context.out.document(&Document::of(&report))?;
        if report.ok { Ok(()) } else { Err(findings("backup verify", &report)) }
    }
}

/// check a backup and restore it into a new directory; nothing is written unless it is good
#[derive(FromArgs, ArgsInfo)]
pub struct RestoreBackup {
    /// the backup's directory
    #[argh(option, arg_name = "dir")]
    from: String,
    /// the new state root; it does not exist yet, or is empty
    #[argh(option, arg_name = "dir")]
    state_root: String,
    /// also restore the workspace, into this new directory
    #[argh(option, arg_name = "dir")]
    workspace_root: Option<String>,
    /// the key that it was encrypted with
    #[argh(option, arg_name = "path")]
    decrypt_key_file: Option<String>,
    /// the `sha256` that `backup create` printed, kept elsewhere
    #[argh(option, arg_name = "hex")]
    sha256: Option<String>,
    /// PEM file with a public key kept elsewhere; the one in the backup otherwise
    #[argh(option, arg_name = "path")]
    public_key: Option<String>,
    /// restore although the master key of the auth store is not at hand
    #[argh(switch)]
    skip_master_key_check: bool,
}

impl Command for RestoreBackup {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let key = read_key(self.decrypt_key_file.as_deref())?;
        let checks = Checks {
            sha256: self.sha256,
            keys: self.public_key.map(|path| read_keys(FilePath::new(&path))).transpose()?,
            master_key: if self.skip_master_key_check { None } else { Some(master_key(context)?) },
        };
        let target = Target {
            state_root: FilePath::new(&self.state_root),
            workspace: self.workspace_root.as_deref().map(FilePath::new),
        };
        let restored = backup::restore(FilePath::new(&self.from), &target, key, checks)
            .map_err(|error| failed("backup restore", error))?;
        for note in &restored.backup.missing {
            context.out.note(&format!("Note: {} was not in the backup: {}", note.name, note.cause));
        }
        context.out.document(&Document::of(&restored))
    }
}

fn read_key(path: Option<&str>) -> Result<Option<BackupKey>, CliError> {
    path.map(|path| BackupKey::from_file(FilePath::new(path)))
        .transpose()
        .map_err(|error| failed("the key file", error))
}

fn master_key(context: &Context<'_>) -> Result<Option<MasterKey>, CliError> {
    let (value, file) = (context.env.os(KEY_VARIABLE), context.env.os(KEY_FILE_VARIABLE));
    MasterKey::from_sources(value, file).map_err(|error| CliError::component("the master key", error))
}

fn failed(what: &str, error: BackupError) -> CliError {
    match &error {
        BackupError::Damaged { problems, .. } => {
            let first = error.to_string();
            let (first, next) = first.rsplit_once("; next: ").unwrap_or((first.as_str(), "take another backup"));
            let codes = problems.iter().map(|problem| problem.code.to_string()).collect();
            CliError::Findings {
                what: what.to_string(),
                codes: distinct(codes),
                first: first.into(),
                next: next.into(),
            }
        }
        _ => CliError::component(format!("{what} ({})", error.code()), error),
    }
}

fn findings(what: &str, report: &Report) -> CliError {
    let codes = report.problems.iter().map(|problem| problem.code.to_string()).collect();
    CliError::Findings {
        what: what.to_string(),
        codes: distinct(codes),
        first: report.problems.first().map(ToString::to_string).unwrap_or_default(),
        next: "take another backup, or another copy of this one".to_string(),
    }
}

fn distinct(mut codes: Vec<String>) -> Vec<String> {
    codes.sort();
    codes.dedup();
    codes
}
