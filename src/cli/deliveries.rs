//! `deliveries …`.
//! Owns: paths, bodies and table columns of deliveries.
//! Never: interprets a delivery.

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;

use super::context::Context;
use super::duration;
use super::exit::CliError;
use super::json_text::Document;
use super::overview::show_object;
use super::path::Path;
use super::sessions::{paged, post_object, show_list};
use super::table::{Column, text, time};
use super::verbs::Command;

const COLUMNS: &[Column] = &[
    text("DELIVERY", &["/delivery_id"]),
    text("STATUS", &["/status"]),
    text("RUN", &["/run_id"]),
    text("TRIES", &["/attempts"]),
    text("TARGET", &["/target"]),
    time("NEXT OR END", &["/next_attempt_at_ms", "/delivered_at_ms", "/dead_lettered_at_ms"]),
    text("WHY", &["/terminal_error", "/last_error"]),
];

fn deliveries() -> Path {
    Path::new("/v1/deliveries")
}

/// list deliveries: waiting ones first, then by the time of their end
#[derive(FromArgs, ArgsInfo)]
pub struct List {
    /// only those of this session
    #[argh(option, arg_name = "session")]
    session_id: Option<String>,
    /// only those of this run
    #[argh(option, arg_name = "run")]
    run_id: Option<String>,
    /// only those to targets of this kind: http, slack, telegram or external
    #[argh(option, arg_name = "plugin")]
    plugin: Option<String>,
    /// only those in this state: pending, retrying, delivered or dead-lettered
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
        let path = deliveries()
            .query("session_id", self.session_id.as_deref())
            .query("run_id", self.run_id.as_deref())
            .query("plugin", self.plugin.as_deref())
            .query("status", status.as_deref());
        show_list(context, paged(path, self.page, self.limit, self.cursor.as_deref()), COLUMNS)
    }
}

/// list deliveries that are no longer tried
#[derive(FromArgs, ArgsInfo)]
pub struct DeadLetter {
    /// only those of this session
    #[argh(option, arg_name = "session")]
    session_id: Option<String>,
    /// only those of this run
    #[argh(option, arg_name = "run")]
    run_id: Option<String>,
    /// only those to targets of this kind
    #[argh(option, arg_name = "plugin")]
    plugin: Option<String>,
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

impl Command for DeadLetter {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let path = deliveries()
            .then("/dead-letter")
            .query("session_id", self.session_id.as_deref())
            .query("run_id", self.run_id.as_deref())
            .query("plugin", self.plugin.as_deref());
        show_list(context, paged(path, self.page, self.limit, self.cursor.as_deref()), COLUMNS)
    }
}

/// show one delivery with its content
#[derive(FromArgs, ArgsInfo)]
pub struct Get {
    /// the delivery
    #[argh(positional)]
    delivery_id: String,
}

impl Command for Get {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_object(context, deliveries().segment(&self.delivery_id))
    }
}

/// send a dead letter again, with its idempotency key
#[derive(FromArgs, ArgsInfo)]
pub struct Replay {
    /// the dead letter
    #[argh(positional)]
    delivery_id: String,
    /// also when it was sent again before, and under a new idempotency key
    #[argh(switch)]
    force: bool,
}

impl Command for Replay {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let path = deliveries().segment(&self.delivery_id).then("/replay");
        post_object(context, &path.query("force", self.force.then_some("true")), None)
    }
}

/// send dead letters again, oldest first
#[derive(FromArgs, ArgsInfo)]
pub struct ReplayBulk {
    /// only those of this session
    #[argh(option, arg_name = "session")]
    session_id: Option<String>,
    /// only those of this run
    #[argh(option, arg_name = "run")]
    run_id: Option<String>,
    /// only those to targets of this kind
    #[argh(option, arg_name = "plugin")]
    plugin: Option<String>,
    /// at most this many, 100 when left out
    #[argh(option, arg_name = "n")]
    limit: Option<u32>,
    /// only tell which
    #[argh(switch)]
    dry_run: bool,
    /// also those that were sent again before, and under new idempotency keys
    #[argh(switch)]
    force: bool,
    /// also those that were dealt with
    #[argh(switch)]
    include_resolved: bool,
}

#[derive(Serialize)]
struct ReplayBulkBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    dry_run: bool,
    force: bool,
    unresolved_only: bool,
}

impl Command for ReplayBulk {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let body = Document::of(&ReplayBulkBody {
            session_id: self.session_id.as_deref(),
            run_id: self.run_id.as_deref(),
            plugin: self.plugin.as_deref(),
            limit: self.limit,
            dry_run: self.dry_run,
            force: self.force,
            unresolved_only: !self.include_resolved,
        });
        post_object(context, &deliveries().then("/replay-bulk"), Some(&body))
    }
}

/// take a dead letter off the list of those to deal with
#[derive(FromArgs, ArgsInfo)]
pub struct Resolve {
    /// the dead letter
    #[argh(positional)]
    delivery_id: String,
    /// why, for the record
    #[argh(option, arg_name = "text")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct ReasonBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl Command for Resolve {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let body = Document::of(&ReasonBody { reason: self.reason.as_deref() });
        post_object(context, &deliveries().segment(&self.delivery_id).then("/resolve"), Some(&body))
    }
}

/// take all dead letters of a certain age off that list, at most 500 at once
#[derive(FromArgs, ArgsInfo)]
pub struct Drop {
    /// those that died longer ago than this, e.g. 30d, 12h or 0s
    #[argh(option, arg_name = "duration")]
    older_than: String,
    /// also deliveries that have waited for longer than that to be sent
    #[argh(switch)]
    include_waiting: bool,
}

#[derive(Serialize)]
struct DropBody {
    older_than_ms: u64,
    include_waiting: bool,
}

impl Command for Drop {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let older_than_ms = duration::milliseconds("--older-than", &self.older_than)?;
        let body = Document::of(&DropBody { older_than_ms, include_waiting: self.include_waiting });
        post_object(context, &deliveries().then("/drop"), Some(&body))
    }
}

/// forget the failures of targets, so that they are tried at once
#[derive(FromArgs, ArgsInfo)]
pub struct ResetBackpressure {
    /// this target, as a delivery shows it
    #[argh(option, arg_name = "target")]
    target: Option<String>,
    /// all targets of this kind
    #[argh(option, arg_name = "plugin")]
    plugin: Option<String>,
    /// only tell which
    #[argh(switch)]
    dry_run: bool,
}

#[derive(Serialize)]
struct ResetBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<&'a str>,
    dry_run: bool,
}

impl Command for ResetBackpressure {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let body = Document::of(&ResetBody {
            target: self.target.as_deref(),
            plugin: self.plugin.as_deref(),
            dry_run: self.dry_run,
        });
        post_object(context, &deliveries().then("/backpressure/reset"), Some(&body))
    }
}

#[derive(Serialize)]
struct HoldBody<'a> {
    held: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// send nothing until released
#[derive(FromArgs, ArgsInfo)]
pub struct Hold {
    /// why, for the record
    #[argh(option, arg_name = "text")]
    reason: Option<String>,
}

impl Command for Hold {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let body = Document::of(&HoldBody { held: true, reason: self.reason.as_deref() });
        post_object(context, &deliveries().then("/hold"), Some(&body))
    }
}

/// send again what is held; a copied or restored state root waits for this
#[derive(FromArgs, ArgsInfo)]
pub struct Release {}

impl Command for Release {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let body = Document::of(&HoldBody { held: false, reason: None });
        post_object(context, &deliveries().then("/hold"), Some(&body))
    }
}
