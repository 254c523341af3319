//! `incident …`: evidence of an incident, collected into a directory and checked later.
//! Owns: the two commands and their reports.
//! May touch: the network, through `net`; the evidence directory; a state root on this host, for reading.
//! Never: ends well while something of the evidence is missing or altered.

use std::fs;
use std::path::{Path as FilePath, PathBuf};

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;
use serde_json::Value;

use super::context::Context;
use super::exit::CliError;
use super::incident_collect::{KEY_ITEM, Request, collect};
use super::journal::read_keys;
use super::json_text::Document;
use super::verbs::Command;
use crate::audit::key::PublicKey;
use crate::incident::directory::{Checked, check};

/// gather the evidence of an incident into a new directory, signed by the daemon
#[derive(FromArgs, ArgsInfo)]
pub struct Collect {
    /// the directory to make; an empty one is taken
    #[argh(option, arg_name = "dir")]
    out: String,
    /// a session to take in full
    #[argh(option, arg_name = "id")]
    session: Vec<String>,
    /// a run to take in full; the newest ones when neither is named
    #[argh(option, arg_name = "id")]
    run: Vec<String>,
    /// the daemon's state root on this host; what the status names when the daemon is on this host
    #[argh(option, arg_name = "dir")]
    state_root: Option<String>,
}

impl Command for Collect {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let client = context.client()?;
        let request = Request {
            out: FilePath::new(&self.out),
            sessions: self.session,
            runs: self.run,
            state_root: self.state_root.map(PathBuf::from),
        };
        let summary = collect(&client, context.env, &request)?;
        context.out.document(&Document::of(&summary))?;
        let Some(first) = summary.missing.first() else { return Ok(()) };
        Err(CliError::Findings {
            what: "incident collect".to_string(),
            codes: summary.missing.iter().map(|missing| missing.name.clone()).collect(),
            first: format!("{} is missing: {}", first.name, first.cause),
            next: "mend the cause and collect again into another directory; keep this one".to_string(),
        })
    }
}

/// check collected evidence: every file, and the daemon's signature under the manifest
#[derive(FromArgs, ArgsInfo)]
pub struct VerifyEvidence {
    /// the directory
    #[argh(positional)]
    dir: String,
    /// PEM file with the daemon's public key, kept elsewhere; the key inside the directory otherwise
    #[argh(option, arg_name = "path")]
    public_key: Option<String>,
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    checked: Checked,
    /// Where the key came from that the signature was checked with.
    public_key: String,
    /// What had not been collected in the first place.
    not_collected: Vec<Value>,
}

impl Command for VerifyEvidence {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let dir = FilePath::new(&self.dir);
        let (keys, public_key) = match &self.public_key {
            Some(path) => (read_keys(FilePath::new(path))?, path.clone()),
            None => {
                (keys_inside(dir), format!("inside the directory ({KEY_ITEM}): keep one elsewhere to tell a forger"))
            }
        };
        let checked = check(dir, &keys).map_err(|cause| {
            CliError::invalid(self.dir.clone(), cause, "name a directory made by `kheish-daemon incident collect`")
        })?;
        let collection = fs::read(dir.join("collection.json")).unwrap_or_default();
        let collection: Value = serde_json::from_slice(&collection).unwrap_or_default();
        let not_collected = collection["missing"].as_array().cloned().unwrap_or_default();
        let report = Report { checked, public_key, not_collected };
        context.out.document(&Document::of(&report))?;
        if report.checked.ok { Ok(()) } else { Err(failure(&report.checked)) }
    }
}

fn failure(checked: &Checked) -> CliError {
    let mut codes = Vec::new();
    let mut first = String::new();
    for (code, names) in [
        ("evidence_altered", &checked.altered),
        ("evidence_missing", &checked.missing),
        ("evidence_extra", &checked.extra),
    ] {
        if let Some(name) = names.first() {
            codes.push(code.to_string());
            if first.is_empty() {
                first = format!("{} files of this kind, such as {name}", names.len());
            }
        }
    }
    if let Some(problem) = &checked.signature_problem {
        codes.push("signature_invalid".to_string());
        if first.is_empty() {
            first.clone_from(problem);
        }
    }
    CliError::Findings {
        what: "incident verify".to_string(),
        codes,
        first,
        next: "take another copy of the evidence; what this one shows cannot be relied on".to_string(),
    }
}

/// The key that the daemon showed when the evidence was collected.
fn keys_inside(dir: &FilePath) -> Vec<PublicKey> {
    let text = fs::read(dir.join(KEY_ITEM)).unwrap_or_default();
    let view: Value = serde_json::from_slice(&text).unwrap_or_default();
    let pem = view["public_key"].as_str().unwrap_or_default();
    PublicKey::parse_pem(pem).unwrap_or_default()
}
