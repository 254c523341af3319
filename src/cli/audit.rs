//! `audit …`: the signed trail, checked from its files, and the key that signs it.
//! Owns: which files, which keys and which checkpoint.
//! May touch: the journal and public keys for reading; for the key's own commands the state root under its lock.
//! Never: prints a private key; works on a state root that a daemon uses.

use std::fs::File;
use std::io::Read;
use std::path::{Path as FilePath, PathBuf};

use argh::{ArgsInfo, FromArgs};
use ring::rand::SystemRandom;

use super::context::Context;
use super::exit::CliError;
use super::journal::{keys_beside, read_keys};
use super::json_text::Document;
use super::overview::show_object;
use super::path::Path;
use super::verbs::Command;
use crate::audit::checkpoint::Checkpoint;
use crate::audit::key::{KEY_FILE, PUBLIC_FILE, PublicKey, SigningKey};
use crate::audit::rotate::{relocate, rotate};
use crate::audit::verify::{verify, verify_beside};
use crate::clock::{Clock, SystemClock};
use crate::limits::CLI_CHECKPOINT_BYTES_MAX;
use crate::state_root::StateRoot;

/// check the whole audit trail: lines, chain, seals, signed actions, and a checkpoint kept elsewhere
#[derive(FromArgs, ArgsInfo)]
pub struct Verify {
    /// the state root, or a copy of one
    #[argh(option, arg_name = "dir")]
    state_root: Option<String>,
    /// read the files; the only way so far, so it may be left out
    #[argh(switch)]
    #[allow(dead_code, reason = "says what happens anyway")]
    offline: bool,
    /// PEM file with a public key kept elsewhere, from which later keys are followed; audit-signing.pub.pem otherwise
    #[argh(option, arg_name = "path")]
    public_key: Option<String>,
    /// file with what `audit checkpoint` printed: everything that it vouches for must still be there
    #[argh(option, arg_name = "path")]
    checkpoint: Option<String>,
}

impl Command for Verify {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let root = required(self.state_root)?;
        let keys = match self.public_key {
            Some(path) => read_keys(FilePath::new(&path))?,
            None => keys_beside(context, &root)?,
        };
        let checkpoint = self.checkpoint.map(|path| read_checkpoint(FilePath::new(&path))).transpose()?;
        let report = verify_beside(&root, &keys, checkpoint.as_ref());
        context.out.document(&Document::of(&report))?;
        match report.problem {
            None => Ok(()),
            Some(problem) => Err(CliError::Damage {
                file: problem.file,
                offset: problem.offset,
                reason: match problem.seq {
                    Some(seq) => format!("record {seq}: {}", problem.reason),
                    None => problem.reason,
                },
                next: problem.next,
            }),
        }
    }
}

fn read_checkpoint(path: &FilePath) -> Result<Checkpoint, CliError> {
    let refuse = |cause: String| CliError::File {
        path: path.into(),
        cause,
        next: "name a file with what `kheish-daemon audit checkpoint` printed",
    };
    let file = File::open(path).map_err(|error| refuse(error.to_string()))?;
    let mut text = Vec::new();
    file.take(CLI_CHECKPOINT_BYTES_MAX + 1).read_to_end(&mut text).map_err(|error| refuse(error.to_string()))?;
    if text.len() as u64 > CLI_CHECKPOINT_BYTES_MAX {
        return Err(refuse(format!("larger than {CLI_CHECKPOINT_BYTES_MAX} bytes")));
    }
    Checkpoint::parse(&text).map_err(refuse)
}

/// print a signed head of the journal, to be kept elsewhere
#[derive(FromArgs, ArgsInfo)]
pub struct MakeCheckpoint {
    /// sign the files of --state-root; the daemon must be stopped
    #[argh(switch)]
    offline: bool,
    /// with --offline: the state root
    #[argh(option, arg_name = "dir")]
    state_root: Option<String>,
    /// with --offline: the key, where it does not lie in the state root
    #[argh(option, arg_name = "path")]
    audit_signing_key_file: Option<String>,
}

impl Command for MakeCheckpoint {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        if !self.offline {
            return show_object(context, Path::new("/v1/audit/checkpoint"));
        }
        let root = open_root(self.state_root)?;
        let key_file = self.audit_signing_key_file.map_or_else(|| root.path().join(KEY_FILE), PathBuf::from);
        let key = SigningKey::read(&key_file).map_err(|error| CliError::component("the signing key", error))?;
        let report = verify(root.path(), &[], None);
        if let Some(problem) = report.problem {
            return Err(CliError::Damage {
                file: problem.file,
                offset: problem.offset,
                reason: problem.reason,
                next: problem.next,
            });
        }
        let chain = report.journal.chain.ok_or_else(|| CliError::NotFound {
            what: "the journal has no record".to_string(),
            next: "start the daemon once",
        })?;
        let checkpoint = Checkpoint::sign(report.journal.seq_last, chain, SystemClock.now_ms(), &key);
        context.out.document(&Document::of(&checkpoint))
    }
}

/// print the public key that checks the trail, as PEM; keep a copy elsewhere
#[derive(FromArgs, ArgsInfo)]
pub struct ShowPublicKey {
    /// read the files of --state-root
    #[argh(switch)]
    offline: bool,
    /// with --offline: the state root, or a copy of one
    #[argh(option, arg_name = "dir")]
    state_root: Option<String>,
    /// also print the keys that signed before, behind the present one
    #[argh(switch)]
    all: bool,
}

#[derive(serde::Deserialize)]
struct KeyView {
    public_key: String,
    #[serde(default)]
    earlier_public_keys: Vec<String>,
}

impl Command for ShowPublicKey {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let keys = if self.offline {
            let keys = read_keys(&required(self.state_root)?.join(PUBLIC_FILE))?;
            keys.iter().map(PublicKey::to_pem).collect::<Vec<_>>()
        } else {
            let path = Path::new("/v1/audit/public-key");
            let answer = context.client()?.get(&path)?;
            let schema = |cause: serde_json::Error| CliError::Schema {
                what: path.as_str().to_string(),
                cause: cause.to_string(),
            };
            let view: KeyView = serde_json::from_str(answer.as_str()).map_err(schema)?;
            std::iter::once(view.public_key).chain(view.earlier_public_keys).collect()
        };
        let shown = if self.all { keys.len() } else { 1 };
        context.out.text(&keys[..shown.min(keys.len())].concat())
    }
}

/// replace the signing key: the old one vouches for the new one; the daemon must be stopped
#[derive(FromArgs, ArgsInfo)]
pub struct RotateKey {
    /// the state root
    #[argh(option, arg_name = "dir")]
    state_root: Option<String>,
    /// the key, where it does not lie in the state root
    #[argh(option, arg_name = "path")]
    audit_signing_key_file: Option<String>,
}

impl Command for RotateKey {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let root = open_root(self.state_root)?;
        let key_file = self.audit_signing_key_file.map(PathBuf::from);
        let rotation = rotate(&root, key_file.as_deref(), SystemClock.now_ms(), &SystemRandom::new())
            .map_err(|error| CliError::component("rotate-key", error))?;
        context.out.document(&Document::of(&rotation))
    }
}

/// move the signing key out of the state root, once its copy is verified; the daemon must be stopped
#[derive(FromArgs, ArgsInfo)]
pub struct RelocateKey {
    /// the state root
    #[argh(option, arg_name = "dir")]
    state_root: Option<String>,
    /// the new place, outside of the state root
    #[argh(option, arg_name = "path")]
    to: String,
}

impl Command for RelocateKey {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let root = open_root(self.state_root)?;
        let relocation =
            relocate(&root, FilePath::new(&self.to)).map_err(|error| CliError::component("relocate-key", error))?;
        context.out.document(&Document::of(&relocation))
    }
}

fn required(state_root: Option<String>) -> Result<PathBuf, CliError> {
    state_root.map(PathBuf::from).ok_or_else(|| {
        CliError::invalid(
            "the audit trail",
            "it is read from its files, and no state root was given",
            "add --state-root DIR, or set KHEISH_STATE_ROOT",
        )
    })
}

/// The state root under its lock.
fn open_root(state_root: Option<String>) -> Result<StateRoot, CliError> {
    let path = required(state_root)?;
    StateRoot::open(&path, false).map_err(|error| CliError::component("the state root", error))
}
