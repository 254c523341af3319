//! `runs debug`, `runs debug-artifact`, `runs prune`, `runs retention-hold`.
//! Owns: paths and bodies of debug capture.
//! Never: interprets an artifact.

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;

use super::context::Context;
use super::duration::milliseconds;
use super::exit::CliError;
use super::json_text::{Document, terminal_safe};
use super::overview::show_object;
use super::path::Path;
use super::sessions::post_object;
use super::verbs::Command;

fn run(id: &str) -> Path {
    Path::new("/v1/runs").segment(id)
}

/// show what debug capture kept of a run
#[derive(FromArgs, ArgsInfo)]
pub struct Debug {
    /// the run
    #[argh(positional)]
    run_id: String,
}

impl Command for Debug {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_object(context, run(&self.run_id).then("/debug"))
    }
}

/// print the body of one debug artifact as it is
#[derive(FromArgs, ArgsInfo)]
pub struct DebugArtifact {
    /// the run
    #[argh(positional)]
    run_id: String,
    /// the artifact, as `runs debug` lists it
    #[argh(positional)]
    artifact_id: String,
}

impl Command for DebugArtifact {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let path = run(&self.run_id).then("/debug/artifacts").segment(&self.artifact_id);
        let body = context.client()?.get_bytes(&path)?;
        let text = String::from_utf8_lossy(&body);
        // A terminal must not be steered by what a model or a tool wrote; a file gets the bytes.
        if context.out.stdout_is_terminal { context.out.text(&terminal_safe(&text)) } else { context.out.text(&text) }
    }
}

/// remove debug artifacts of ended runs; runs and their records stay
#[derive(FromArgs, ArgsInfo)]
pub struct Prune {
    /// only of runs whose newest artifact is at least this old, in milliseconds
    #[argh(option, arg_name = "ms")]
    older_than_ms: Option<u64>,
    /// the same as a duration, such as 7d
    #[argh(option, arg_name = "time")]
    older_than: Option<String>,
    /// only of runs of this session
    #[argh(option, arg_name = "id")]
    session_id: Option<String>,
    /// at most this many runs
    #[argh(option, arg_name = "n")]
    limit: Option<u64>,
    /// remove nothing, show what would be removed
    #[argh(switch)]
    dry_run: bool,
}

#[derive(Serialize)]
struct PruneBody<'a> {
    older_than_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    dry_run: bool,
}

/// The age of what is to be removed, given in one of two ways.
pub(super) fn age_ms(milliseconds_given: Option<u64>, duration: Option<&str>) -> Result<u64, CliError> {
    match (milliseconds_given, duration) {
        (Some(ms), None) => Ok(ms),
        (None, Some(text)) => milliseconds("--older-than", text),
        (given, _) => {
            let cause = if given.is_some() { "it was given twice" } else { "there is none" };
            Err(CliError::invalid("the age", cause, "use one of --older-than-ms and --older-than"))
        }
    }
}

impl Command for Prune {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let older_than_ms = age_ms(self.older_than_ms, self.older_than.as_deref())?;
        let body = PruneBody {
            older_than_ms,
            session_id: self.session_id.as_deref(),
            limit: self.limit,
            dry_run: self.dry_run,
        };
        post_object(context, &Path::new("/v1/runs/prune"), Some(&Document::of(&body)))
    }
}

/// keep a run's evidence from being removed
#[derive(FromArgs, ArgsInfo)]
pub struct RetentionHold {
    /// the run
    #[argh(positional)]
    run_id: String,
    /// let it be removed again
    #[argh(switch)]
    release: bool,
    /// why, for the record
    #[argh(option, arg_name = "text")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct HoldBody<'a> {
    held: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl Command for RetentionHold {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let body = Document::of(&HoldBody { held: !self.release, reason: self.reason.as_deref() });
        post_object(context, &run(&self.run_id).then("/retention-hold"), Some(&body))
    }
}
