//! `journal …`: verify and read the log from its files.
//! Owns: which files, which keys and which records.
//! May touch: the journal's directory and public keys, read-only and without the lock.
//! Never: needs a daemon, or stops one.

use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use argh::{ArgsInfo, FromArgs};

use super::context::Context;
use super::exit::CliError;
use super::json_text::{Document, terminal_safe};
use super::verbs::Command;
use crate::audit::key::{PUBLIC_FILE, PublicKey};
use crate::ids::{RunId, SessionId};
use crate::journal::{ShowFilter, show, verify_beside};
use crate::limits::CLI_PUBLIC_KEY_BYTES_MAX;

/// check every line of the journal, the snapshots and the signed seals
#[derive(FromArgs, ArgsInfo)]
pub struct Verify {
    /// the state root, or a copy of one
    #[argh(option, arg_name = "dir")]
    state_root: Option<String>,
    /// read the files; the only way so far, so it may be left out
    #[argh(switch)]
    offline: bool,
    /// PEM file with the public keys of the seals, kept elsewhere; audit-signing.pub.pem of the root otherwise
    #[argh(option, arg_name = "path")]
    public_key: Option<String>,
}

impl Command for Verify {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let root = files(self.state_root, self.offline)?;
        let keys = match self.public_key {
            Some(path) => read_keys(Path::new(&path))?,
            None => keys_beside(context, &root)?,
        };
        let report = verify_beside(&root, &keys);
        context.out.document(&Document::of(&report))?;
        match report.problem {
            None => Ok(()),
            Some(problem) => Err(CliError::Damage {
                file: problem.file,
                offset: problem.offset,
                reason: problem.reason,
                next: problem.next,
            }),
        }
    }
}

/// The keys that the state root itself holds prove that nobody has altered the journal alone.
pub(super) fn keys_beside(context: &mut Context<'_>, root: &Path) -> Result<Vec<PublicKey>, CliError> {
    let path = root.join(PUBLIC_FILE);
    if !path.exists() {
        context
            .out
            .note("Note: no public key is at hand, so the seals' signatures are not checked; next: give --public-key");
        return Ok(Vec::new());
    }
    context.out.note(&format!(
        "Note: the seals are checked with {}, which whoever alters the journal could replace; \
         next: give --public-key with a copy kept elsewhere",
        path.display()
    ));
    read_keys(&path)
}

pub(super) fn read_keys(path: &Path) -> Result<Vec<PublicKey>, CliError> {
    let refuse = |cause: String| CliError::File { path: path.into(), cause, next: "name a PEM file with public keys" };
    let file = File::open(path).map_err(|error| refuse(error.to_string()))?;
    let mut text = String::new();
    let bound = CLI_PUBLIC_KEY_BYTES_MAX as u64 + 1;
    file.take(bound).read_to_string(&mut text).map_err(|error| refuse(error.to_string()))?;
    if text.len() > CLI_PUBLIC_KEY_BYTES_MAX {
        return Err(refuse(format!("larger than {CLI_PUBLIC_KEY_BYTES_MAX} bytes")));
    }
    PublicKey::parse_pem(&text).map_err(|cause| refuse(cause.to_string()))
}

/// print records of the journal, one JSON object a line, exactly as they were written
#[derive(FromArgs, ArgsInfo)]
pub struct Show {
    /// the state root, or a copy of one
    #[argh(option, arg_name = "dir")]
    state_root: Option<String>,
    /// read the files; the only way so far, so it may be left out
    #[argh(switch)]
    offline: bool,
    /// only records of this session
    #[argh(option, arg_name = "id")]
    session_id: Option<String>,
    /// only records of this run
    #[argh(option, arg_name = "id")]
    run_id: Option<String>,
    /// only records of this kind; with a dot at the end, of all kinds that begin so
    #[argh(option, arg_name = "kind")]
    kind: Option<String>,
    /// from this position on
    #[argh(option, arg_name = "seq")]
    from: Option<u64>,
    /// up to and with this position
    #[argh(option, arg_name = "seq")]
    to: Option<u64>,
    /// at most this many
    #[argh(option, arg_name = "n")]
    limit: Option<u64>,
}

impl Command for Show {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let root = files(self.state_root, self.offline)?;
        let invalid = |what, cause: String| CliError::invalid(what, cause, "correct it");
        let filter = ShowFilter {
            session: self
                .session_id
                .as_deref()
                .map(SessionId::parse)
                .transpose()
                .map_err(|e| invalid("--session-id", e.to_string()))?,
            run: match self.run_id.as_deref() {
                None => None,
                Some(raw) => Some(RunId::parse(raw).ok_or_else(|| invalid("--run-id", "not a run id".to_string()))?),
            },
            kind: self.kind,
            from: self.from,
            to: self.to,
            limit: self.limit,
        };
        let is_for_a_person = context.out.stdout_is_terminal;
        let out = &mut context.out;
        let mut outcome = Ok(());
        let shown = show(&root, &filter, &mut |_, line| {
            let line = String::from_utf8_lossy(line.trim_ascii_end());
            outcome = if is_for_a_person { out.line(&terminal_safe(&line)) } else { out.line(&line) };
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .map_err(|error| CliError::component("the journal", error))?;
        outcome?;
        if let Some(why) = shown.unfinished {
            context.out.note(&format!("Note: the journal is being written, or its tail is torn, at {why}"));
        }
        Ok(())
    }
}

/// The directory to read. `--offline` says what happens anyway.
fn files(state_root: Option<String>, _offline: bool) -> Result<PathBuf, CliError> {
    state_root.map(PathBuf::from).ok_or_else(|| {
        CliError::invalid(
            "the journal",
            "it is read from its files, and no state root was given",
            "add --offline --state-root DIR, or set KHEISH_STATE_ROOT",
        )
    })
}
