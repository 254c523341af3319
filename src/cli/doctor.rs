//! `doctor`: what is wrong with a daemon, and the command that helps.
//! Owns: the report and its exit code.
//! May touch: the network, through `net`.
//! Never: changes anything; ends well while an error was found or evidence is missing.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;
use serde_json::Value;

use super::client::Client;
use super::context::Context;
use super::doctor_probe::{Seeing, look};
use super::exit::CliError;
use super::json_text::{Document, terminal_safe};
use super::output::Output;
use super::verbs::Command;
use crate::broker::master_key::{self, MasterKey};
use crate::doctor::finding::{Check, Findings, Severity, Verdict};
use crate::doctor::offline::{Seen, Subject, examine};
use crate::doctor::status::count;
use crate::doctor::streams::StreamView;
use crate::doctor::{cors, readiness, status, streams};

/// find out what is wrong: readiness, status, storage, lock, tokens, routes, event streams, CORS
#[derive(FromArgs, ArgsInfo)]
pub struct Doctor {
    /// also check what a page of this origin gets: loopback must be granted exactly, any other nothing
    #[argh(option, arg_name = "origin")]
    cors_origin: Option<String>,
    /// examine the files of --state-root instead of asking a daemon
    #[argh(switch)]
    offline: bool,
    /// with --offline: the state root, or a copy of one
    #[argh(option, arg_name = "dir")]
    state_root: Option<String>,
    /// with --offline: search every file for the secrets of the auth store; needs the master key
    #[argh(switch)]
    scan_secrets: bool,
    /// with --offline: the signing key, where it does not lie in the state root
    #[argh(option, arg_name = "path")]
    audit_signing_key_file: Option<String>,
}

#[derive(Serialize)]
struct Report {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_approvals: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_questions: Option<u64>,
    readyz_reachable: bool,
    events_stream_reachable: bool,
    event_streams: Vec<StreamView>,
    checks: Vec<Check>,
    warnings: Vec<String>,
    errors: Vec<String>,
}

impl Command for Doctor {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        if self.offline {
            return self.examine(context);
        }
        if self.scan_secrets {
            return Err(CliError::invalid("--scan-secrets", "it reads files", "add --offline --state-root DIR"));
        }
        if let Some(fault) = self.cors_origin.as_deref().and_then(cors::origin_fault) {
            let next = "give scheme and host as a browser does, such as https://kheish.example.com";
            return Err(CliError::invalid("--cors-origin", fault, next));
        }
        let (report, verdict, failure) = ask(&context.client()?, self.cors_origin.as_deref())?;
        print(&mut context.out, &report, &verdict.checks)?;
        match failure {
            // What kept the status away decides the exit code: a refused token is not a broken daemon.
            Some(error) => Err(error),
            None => finish("doctor", &verdict),
        }
    }
}

#[derive(Serialize)]
struct OfflineReport {
    ok: bool,
    offline: bool,
    state_root: String,
    #[serde(flatten)]
    seen: Seen,
    checks: Vec<Check>,
    warnings: Vec<String>,
    errors: Vec<String>,
}

impl Doctor {
    fn examine(self, context: &mut Context<'_>) -> Result<(), CliError> {
        if self.cors_origin.is_some() {
            return Err(CliError::invalid("--cors-origin", "it asks a daemon", "leave --offline out"));
        }
        let root = self.state_root.map(PathBuf::from).ok_or_else(|| {
            let next = "add --state-root DIR, or set KHEISH_STATE_ROOT";
            CliError::invalid("--offline", "no state root was given", next)
        })?;
        let key_file = self.audit_signing_key_file.map(PathBuf::from);
        let (value, file) = (master_key::KEY_VARIABLE, master_key::KEY_FILE_VARIABLE);
        let master_key = MasterKey::from_sources(context.env.os(value), context.env.os(file))
            .map_err(|error| CliError::component("the master key", error))?;
        let mut found = Findings::default();
        let subject = Subject { root: &root, key_file: key_file.as_deref(), master_key, scan: self.scan_secrets };
        let seen = examine(subject, &mut found);
        let mut verdict = found.verdict();
        for check in &mut verdict.checks {
            check.action = check.action.take().map(|action| action.replace("DIR", &root.display().to_string()));
        }
        let report = OfflineReport {
            ok: verdict.ok,
            offline: true,
            state_root: root.display().to_string(),
            seen,
            checks: verdict.checks.clone(),
            warnings: verdict.warnings.clone(),
            errors: verdict.errors.clone(),
        };
        print(&mut context.out, &Document::of(&report), &verdict.checks)?;
        finish("doctor --offline", &verdict)
    }
}

/// The whole diagnosis of a daemon: the report, its verdict, and why there is no status, if there is none.
///
/// # Errors
/// This host gives no thread or no random bytes; what the daemon does not give is a finding.
pub fn ask(client: &Client, cors_origin: Option<&str>) -> Result<(Document, Verdict, Option<CliError>), CliError> {
    let (report, verdict, failure) = judge(look(client, cors_origin)?);
    Ok((Document::of(&report), verdict, failure))
}

fn judge(seeing: Seeing) -> (Report, Verdict, Option<CliError>) {
    let mut found = Findings::default();
    let (document, failure) = match seeing.status {
        Ok(document) => (Some(document), None),
        Err(error) => {
            found.add("daemon_status_unavailable", error.without_next(), None);
            (None, Some(error))
        }
    };
    let readyz_ok = readiness::judge(&seeing.readyz, &seeing.healthz, &mut found);
    let event_streams = streams::judge(&seeing.streams, readyz_ok, &mut found);
    if let Some(document) = &document {
        status::judge(document, &mut found);
    }
    cors::judge(&seeing.preflights, seeing.status_answer.as_ref(), &mut found);
    let events_stream_reachable = !found.has("events_sse_unreachable") && !found.has("events_sse_refused");
    let verdict = found.verdict();
    let number = |pointer: &str| document.as_ref().and_then(|document| count(document, pointer));
    let report = Report {
        ok: verdict.ok,
        status_error: failure.as_ref().map(CliError::without_next),
        session_count: number("/sessions/total"),
        pending_approvals: number("/runs/pending_approval_count"),
        pending_questions: number("/runs/pending_question_count"),
        readyz_reachable: readyz_ok,
        events_stream_reachable,
        event_streams,
        checks: verdict.checks.clone(),
        warnings: verdict.warnings.clone(),
        errors: verdict.errors.clone(),
        status: document.map(without_bodies_of_hooks),
    };
    (report, verdict, failure)
}

/// A report is passed on; what hooks run and whom they call is not part of it.
fn without_bodies_of_hooks(mut status: Value) -> Value {
    if let Some(hooks) = status.pointer_mut("/runtime/hooks") {
        *hooks = Value::String("<redacted>".to_string());
    }
    status
}

/// Prints a report: its rows when a person reads, else the document.
///
/// # Errors
/// Standard output failed.
pub fn print(out: &mut Output<'_>, document: &Document, checks: &[Check]) -> Result<(), CliError> {
    if !out.is_for_a_person() {
        return out.document(document);
    }
    let mut text = String::new();
    for check in checks {
        let word = match (check.ok, check.severity) {
            (true, _) => "ok",
            (false, severity) => severity.as_str(),
        };
        let subject = check.related_id.as_ref().map(|id| format!(" [{id}]")).unwrap_or_default();
        text.push_str(&format!("{word:<8} {:<32} {}{subject}\n", check.code, check.message));
        if let Some(action) = check.action.as_ref().filter(|_| check.severity > Severity::Info) {
            text.push_str(&format!("{:<8} next: {action}\n", ""));
        }
    }
    text.lines().try_for_each(|line| out.line(&terminal_safe(line)))
}

/// Turns errors into the exit code, after the report.
///
/// # Errors
/// There is one.
pub fn finish(what: &str, verdict: &Verdict) -> Result<(), CliError> {
    let Some(first) = verdict.failures().next() else { return Ok(()) };
    let mut codes: Vec<String> = verdict.failures().map(|check| check.code.clone()).collect();
    codes.dedup();
    Err(CliError::Findings {
        what: what.to_string(),
        codes,
        first: first.message.clone(),
        next: first.action.clone().unwrap_or_default(),
    })
}
