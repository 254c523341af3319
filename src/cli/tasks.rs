//! `tasks …`.
//! Owns: paths and table columns of tasks.
//! Never: interprets a task.

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;

use super::context::Context;
use super::exit::CliError;
use super::json_text::Document;
use super::overview::show_object;
use super::path::Path;
use super::sessions::{paged, post_object, show_list};
use super::table::{Column, text, time};
use super::verbs::Command;
use crate::limits::{CLI_WAIT_MARGIN_MS, TASK_WAIT_MS_DEFAULT};

const COLUMNS: &[Column] = &[
    text("TASK", &["/id"]),
    text("STATUS", &["/status"]),
    text("EXIT", &["/metadata/exit_code"]),
    time("CREATED", &["/created_at_ms"]),
    time("UPDATED", &["/updated_at_ms"]),
    text("WHAT", &["/title"]),
];

fn tasks(session: &str) -> Path {
    Path::new("/v1/sessions").segment(session).then("/tasks")
}

fn task(session: &str, task: &str) -> Path {
    tasks(session).segment(task)
}

/// list a session's tasks: background commands and to-do items
#[derive(FromArgs, ArgsInfo)]
pub struct List {
    /// the session
    #[argh(positional)]
    session_id: String,
    /// only tasks in this state: pending, in-progress, blocked, completed, failed or cancelled
    #[argh(option, arg_name = "status")]
    status: Option<String>,
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
        let status = self.status.map(|status| status.replace('-', "_"));
        let path = tasks(&self.session_id).query("status", status.as_deref());
        show_list(context, paged(path, self.page, self.limit, self.cursor.as_deref()), COLUMNS)
    }
}

/// show one task
#[derive(FromArgs, ArgsInfo)]
pub struct Get {
    /// the session
    #[argh(positional)]
    session_id: String,
    /// the task
    #[argh(positional)]
    task_id: String,
}

impl Command for Get {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_object(context, task(&self.session_id, &self.task_id))
    }
}

/// show the output of a background command, its newest part unless all is asked for
#[derive(FromArgs, ArgsInfo)]
pub struct Output {
    /// the session
    #[argh(positional)]
    session_id: String,
    /// the task
    #[argh(positional)]
    task_id: String,
    /// answer once the command has ended
    #[argh(switch)]
    wait: bool,
    /// longest wait in milliseconds, 30000 when left out
    #[argh(option, arg_name = "ms")]
    timeout_ms: Option<u64>,
    /// bytes from the end of the output, 8192 when left out
    #[argh(option, arg_name = "n")]
    tail_bytes: Option<u64>,
    /// the whole output file
    #[argh(switch)]
    full: bool,
}

impl Command for Output {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let path = task(&self.session_id, &self.task_id)
            .then("/output")
            .query("wait", self.wait.then_some("true"))
            .query("timeout_ms", number(self.timeout_ms).as_deref())
            .query("tail_bytes", number(self.tail_bytes).as_deref())
            .query("full", self.full.then_some("true"));
        // The daemon waits; the client must not give up first.
        let wait_ms = if self.wait { self.timeout_ms.unwrap_or(TASK_WAIT_MS_DEFAULT) } else { 0 };
        let document = context.client()?.get_slowly(&path, wait_ms.saturating_add(CLI_WAIT_MARGIN_MS))?;
        document.require_object(path.as_str())?;
        context.out.document(&document)
    }
}

/// end a background command with everything that it started; one that has ended is shown as it is
#[derive(FromArgs, ArgsInfo)]
pub struct Stop {
    /// the session
    #[argh(positional)]
    session_id: String,
    /// the task
    #[argh(positional)]
    task_id: String,
    /// why, for the record
    #[argh(option, arg_name = "text")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct StopBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl Command for Stop {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let body = Document::of(&StopBody { reason: self.reason.as_deref() });
        post_object(context, &task(&self.session_id, &self.task_id).then("/stop"), Some(&body))
    }
}
