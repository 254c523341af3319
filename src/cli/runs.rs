//! `runs …`.
//! Owns: paths and table columns of runs; what a finished wait prints.
//! Never: interprets more of a view than its status.

use argh::{ArgsInfo, FromArgs};

use super::context::Context;
use super::exit::CliError;
use super::overview::show_object;
use super::path::Path;
use super::sessions::{paged, post_object, show_list};
use super::streaming::StreamRequest;
use super::table::{Column, text, time};
use super::verbs::Command;
use super::wait::{self, Wait, Waited};

const COLUMNS: &[Column] = &[
    text("RUN", &["/run_id"]),
    text("SESSION", &["/session_id"]),
    text("STATUS", &["/status"]),
    time("SUBMITTED", &["/submitted_at_ms"]),
    time("FINISHED", &["/finished_at_ms"]),
    text("MODEL", &["/request/model", "/model"]),
    text("INPUT", &["/request/text_preview"]),
];

/// A run's path.
pub fn run_path(id: &str) -> Path {
    Path::new("/v1/runs").segment(id)
}

/// list runs, one page at a time
#[derive(FromArgs, ArgsInfo)]
pub struct List {
    /// only runs of this session
    #[argh(option, arg_name = "id")]
    session_id: Option<String>,
    /// answer with a page and its cursor instead of a plain list
    #[argh(switch)]
    page: bool,
    /// at most this many
    #[argh(option, arg_name = "n")]
    limit: Option<u32>,
    /// continue behind this cursor
    #[argh(option, arg_name = "cursor")]
    cursor: Option<String>,
}

impl Command for List {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let path = Path::new("/v1/runs").query("session_id", self.session_id.as_deref());
        show_list(context, paged(path, self.page, self.limit, self.cursor.as_deref()), COLUMNS)
    }
}

/// show one run
#[derive(FromArgs, ArgsInfo)]
pub struct Get {
    /// the run
    #[argh(positional)]
    run_id: String,
}

impl Command for Get {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_object(context, run_path(&self.run_id))
    }
}

/// show a run's recorded events
#[derive(FromArgs, ArgsInfo)]
pub struct Events {
    /// the run
    #[argh(positional)]
    run_id: String,
}

const EVENT_COLUMNS: &[Column] = &[
    time("AT", &["/timestamp_ms"]),
    text("EVENT", &["/event/type"]),
    text("DETAIL", &["/event/error", "/event/output/content"]),
];

impl Command for Events {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_list(context, run_path(&self.run_id).then("/events"), EVENT_COLUMNS)
    }
}

/// follow a run to its end: JSON lines, or the text as it arrives when a terminal is watching
#[derive(FromArgs, ArgsInfo)]
pub struct Stream {
    /// the run
    #[argh(positional)]
    run_id: String,
    /// begin behind this event; 0 begins with the oldest
    #[argh(option, arg_name = "event-id")]
    cursor: Option<u64>,
    /// end when the stream ends instead of opening it again
    #[argh(switch)]
    no_reconnect: bool,
    /// go on after the end of the run
    #[argh(switch)]
    follow: bool,
}

impl Command for Stream {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        StreamRequest {
            path: run_path(&self.run_id).then("/stream"),
            cursor: self.cursor,
            reconnect: !self.no_reconnect,
            may_be_text: true,
            until_end_of: (!self.follow).then_some(self.run_id),
        }
        .run(context)
    }
}

/// wait for the end of a run and show it; exit code 9 unless it completed
#[derive(FromArgs, ArgsInfo)]
pub struct WaitFor {
    /// the run
    #[argh(positional)]
    run_id: String,
    /// milliseconds between two looks, at least 50
    #[argh(option, arg_name = "ms")]
    poll_interval_ms: u64,
    /// give up after this many milliseconds, with exit code 7; waits without end otherwise
    #[argh(option, arg_name = "ms")]
    timeout_ms: Option<u64>,
    /// forgive a daemon that does not answer, or answers 429, 502, 503 or 504, for this many milliseconds
    #[argh(option, arg_name = "ms")]
    transient_grace_ms: u64,
}

impl Command for WaitFor {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let client = context.client()?;
        let how = Wait {
            poll_interval_ms: self.poll_interval_ms,
            timeout_ms: self.timeout_ms,
            transient_grace_ms: self.transient_grace_ms,
        };
        let waited = wait::for_run(&client, &self.run_id, how)?;
        report(context, &self.run_id, how, waited)
    }
}

/// Prints the view that the waiting ended with; an error unless the run completed.
///
/// # Errors
/// The run did not complete, or the deadline came first.
pub fn report(context: &mut Context<'_>, run_id: &str, how: Wait, waited: Waited) -> Result<(), CliError> {
    match waited {
        Waited::Ended(document, view) => {
            context.out.document(&document)?;
            view.require_completed()
        }
        Waited::TimedOut(last) => {
            let mut status = "of unknown status".to_string();
            if let Some((document, view)) = last {
                context.out.document(&document)?;
                status = view.status;
            }
            let timeout_ms = how.timeout_ms.unwrap_or_default();
            Err(CliError::WaitTimeout { run_id: run_id.to_string(), status, timeout_ms })
        }
    }
}

/// stop one run, queued or active; an ended run is shown as it is
#[derive(FromArgs, ArgsInfo)]
pub struct Cancel {
    /// the run
    #[argh(positional)]
    run_id: String,
}

impl Command for Cancel {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        post_object(context, &run_path(&self.run_id).then("/cancel"), None)
    }
}

/// show the signed records of a run's external actions: every model call and what came of it
#[derive(FromArgs, ArgsInfo)]
pub struct ExternalActions {
    /// the run
    #[argh(positional)]
    run_id: String,
    /// answer with a page and its cursor instead of a plain list
    #[argh(switch)]
    page: bool,
    /// at most this many
    #[argh(option, arg_name = "n")]
    limit: Option<u32>,
    /// continue behind this cursor
    #[argh(option, arg_name = "cursor")]
    cursor: Option<String>,
}

const ACTION_COLUMNS: &[Column] = &[
    time("AT", &["/timestamp_ms"]),
    text("ACTION", &["/action_id"]),
    text("PHASE", &["/phase"]),
    text("KIND", &["/kind"]),
    text("TARGET", &["/target"]),
    text("OUTCOME", &["/outcome"]),
];

impl Command for ExternalActions {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let path = run_path(&self.run_id).then("/external-actions");
        show_list(context, paged(path, self.page, self.limit, self.cursor.as_deref()), ACTION_COLUMNS)
    }
}
