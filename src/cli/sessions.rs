//! `sessions …`, but for `sessions input`.
//! Owns: paths, bodies and table columns of sessions.
//! Never: interprets the views.

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;

use super::context::Context;
use super::exit::CliError;
use super::json_text::Document;
use super::overview::show_object;
use super::path::Path;
use super::streaming::StreamRequest;
use super::table::{Column, text, time};
use super::verbs::Command;

const COLUMNS: &[Column] = &[
    text("SESSION", &["/session_id"]),
    text("STATUS", &["/snapshot/status", "/status"]),
    text("AGENT", &["/agent_id"]),
    text("THREAD", &["/thread_id", "/snapshot/thread_id"]),
    time("CREATED", &["/created_at_ms", "/snapshot/created_at_ms"]),
];

fn session(id: &str) -> Path {
    Path::new("/v1/sessions").segment(id)
}

/// create a session, or return the one with this id
#[derive(FromArgs, ArgsInfo)]
pub struct Create {
    /// id of the session; the daemon chooses one otherwise
    #[argh(positional)]
    session_id: Option<String>,
    /// thread id at the provider
    #[argh(option, arg_name = "id")]
    thread_id: Option<String>,
}

#[derive(Serialize)]
struct CreateBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_id: Option<&'a str>,
}

impl Command for Create {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let body = CreateBody { session_id: self.session_id.as_deref(), thread_id: self.thread_id.as_deref() };
        post_object(context, &Path::new("/v1/sessions"), Some(&Document::of(&body)))
    }
}

/// list sessions, one page at a time
#[derive(FromArgs, ArgsInfo)]
pub struct List {
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
        let path = paged(Path::new("/v1/sessions"), self.page, self.limit, self.cursor.as_deref());
        show_list(context, path, COLUMNS)
    }
}

/// show one session
#[derive(FromArgs, ArgsInfo)]
pub struct Get {
    /// the session
    #[argh(positional)]
    session_id: String,
}

impl Command for Get {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_object(context, session(&self.session_id))
    }
}

/// show a session's recorded events and outputs
#[derive(FromArgs, ArgsInfo)]
pub struct Events {
    /// the session
    #[argh(positional)]
    session_id: String,
}

impl Command for Events {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_object(context, session(&self.session_id).then("/events"))
    }
}

/// follow a session: JSON lines, or the text as it arrives when a terminal is watching
#[derive(FromArgs, ArgsInfo)]
pub struct Stream {
    /// the session
    #[argh(positional)]
    session_id: String,
    /// begin behind this event; 0 begins with the oldest
    #[argh(option, arg_name = "event-id")]
    cursor: Option<u64>,
    /// end when the stream ends instead of opening it again
    #[argh(switch)]
    no_reconnect: bool,
}

impl Command for Stream {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        StreamRequest {
            path: session(&self.session_id).then("/stream"),
            cursor: self.cursor,
            reconnect: !self.no_reconnect,
            may_be_text: true,
            until_end_of: None,
        }
        .run(context)
    }
}

/// stop the active run of a session; queued runs go on
#[derive(FromArgs, ArgsInfo)]
pub struct Interrupt {
    /// the session
    #[argh(positional)]
    session_id: String,
}

impl Command for Interrupt {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        post_object(context, &session(&self.session_id).then("/interrupt"), None)
    }
}

/// end a session: no further input, active and queued runs are stopped
#[derive(FromArgs, ArgsInfo)]
pub struct End {
    /// the session
    #[argh(positional)]
    session_id: String,
    /// why, for the record
    #[argh(option, arg_name = "text")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct EndBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl Command for End {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let body = Document::of(&EndBody { reason: self.reason.as_deref() });
        post_object(context, &session(&self.session_id).then("/end"), Some(&body))
    }
}

/// A list's path with its paging parameters.
pub fn paged(path: Path, page: bool, limit: Option<u32>, cursor: Option<&str>) -> Path {
    let limit = limit.map(|limit| limit.to_string());
    path.query("page", (page || cursor.is_some()).then_some("true"))
        .query("limit", limit.as_deref())
        .query("cursor", cursor)
}

/// Fetches a list or a page and prints it.
///
/// # Errors
/// As the client's; an answer that is neither is a schema error.
pub fn show_list(context: &mut Context<'_>, path: Path, columns: &[Column]) -> Result<(), CliError> {
    let document = context.client()?.get(&path)?;
    document.require_list(path.as_str())?;
    context.out.list(&document, columns)
}

/// Posts and prints the object that comes back.
///
/// # Errors
/// As the client's; an answer that is no object is a schema error.
pub fn post_object(context: &mut Context<'_>, path: &Path, body: Option<&Document>) -> Result<(), CliError> {
    let body = body.map(|body| body.as_str().as_bytes());
    let document = context.client()?.post(path, body, &[])?;
    document.require_object(path.as_str())?;
    context.out.document(&document)
}
