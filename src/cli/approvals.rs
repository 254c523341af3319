//! `approvals …`, and `sessions approve|deny`.
//! Owns: finding an approval by its id, and the bodies that answer it.
//! Never: interprets a call's arguments; it shows them.

use argh::{ArgsInfo, FromArgs};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::client::{Client, decode};
use super::context::Context;
use super::exit::CliError;
use super::json_file;
use super::json_text::Document;
use super::path::Path;
use super::run_view::RunView;
use super::runs::run_path;
use super::sessions::{paged, show_list};
use super::table::{Column, text, time};
use super::verbs::Command;
use super::wait::{self, Wait, Waited};
use crate::limits::CLI_LIST_PAGES_MAX;

const COLUMNS: &[Column] = &[
    text("APPROVAL", &["/id"]),
    text("RUN", &["/run_id"]),
    text("SESSION", &["/session_id"]),
    text("TOOL", &["/tool_name"]),
    time("ASKED", &["/requested_at_ms"]),
    text("INPUT", &["/input"]),
];

/// list open approvals, longest wait first
#[derive(FromArgs, ArgsInfo)]
pub struct List {
    /// only approvals of this session
    #[argh(option, arg_name = "id")]
    session_id: Option<String>,
    /// answer with a page and its cursor instead of a plain list
    #[argh(switch)]
    page: bool,
    /// at most so many runs
    #[argh(option, arg_name = "n")]
    limit: Option<u32>,
    /// continue behind this cursor
    #[argh(option, arg_name = "cursor")]
    cursor: Option<String>,
}

impl Command for List {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let path = Path::new("/v1/approvals").query("session_id", self.session_id.as_deref());
        show_list(context, paged(path, self.page, self.limit, self.cursor.as_deref()), COLUMNS)
    }
}

/// show one open approval
#[derive(FromArgs, ArgsInfo)]
pub struct Show {
    /// the approval
    #[argh(positional)]
    approval_id: String,
}

impl Command for Show {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let found = find(&context.client()?, &self.approval_id)?;
        context.out.document(&found.document)
    }
}

/// allow one tool call
#[derive(FromArgs, ArgsInfo)]
pub struct Allow {
    /// the approval
    #[argh(positional)]
    approval_id: String,
    /// JSON object of arguments that replace the model's
    #[argh(option, arg_name = "json")]
    updated_input_json: Option<String>,
    /// why, for the record and for the model
    #[argh(option, arg_name = "text")]
    justification: Option<String>,
    /// key under which the same answer is taken only once
    #[argh(option, arg_name = "key")]
    idempotency_key: Option<String>,
    /// wait until the run has ended or waits again, and show it
    #[argh(switch)]
    wait: bool,
    /// with --wait: milliseconds between two looks, at least 50
    #[argh(option, arg_name = "ms")]
    poll_interval_ms: u64,
    /// with --wait: give up after this many milliseconds, with exit code 7
    #[argh(option, arg_name = "ms")]
    timeout_ms: Option<u64>,
    /// with --wait: forgive a daemon that does not answer, or answers 429, 502, 503 or 504, for this long
    #[argh(option, arg_name = "ms")]
    transient_grace_ms: u64,
}

impl Command for Allow {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let updated_input = self.updated_input_json.as_deref();
        let updated_input = updated_input.map(|text| json_file::parse("--updated-input-json", text)).transpose()?;
        let found = find(&context.client()?, &self.approval_id)?;
        let said = Said { behavior: "allow", updated_input, justification: self.justification };
        let how = how(self.wait, self.poll_interval_ms, self.timeout_ms, self.transient_grace_ms)?;
        resolve(context, &[found], &said, self.idempotency_key.as_deref(), how)
    }
}

/// refuse one tool call; the model is told and the run goes on
#[derive(FromArgs, ArgsInfo)]
pub struct Deny {
    /// the approval
    #[argh(positional)]
    approval_id: String,
    /// why, for the record and for the model
    #[argh(option, arg_name = "text")]
    justification: Option<String>,
    /// key under which the same answer is taken only once
    #[argh(option, arg_name = "key")]
    idempotency_key: Option<String>,
    /// wait until the run has ended or waits again, and show it
    #[argh(switch)]
    wait: bool,
    /// with --wait: milliseconds between two looks, at least 50
    #[argh(option, arg_name = "ms")]
    poll_interval_ms: u64,
    /// with --wait: give up after this many milliseconds, with exit code 7
    #[argh(option, arg_name = "ms")]
    timeout_ms: Option<u64>,
    /// with --wait: forgive a daemon that does not answer, or answers 429, 502, 503 or 504, for this long
    #[argh(option, arg_name = "ms")]
    transient_grace_ms: u64,
}

impl Command for Deny {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let found = find(&context.client()?, &self.approval_id)?;
        let said = Said { behavior: "deny", updated_input: None, justification: self.justification };
        let how = how(self.wait, self.poll_interval_ms, self.timeout_ms, self.transient_grace_ms)?;
        resolve(context, &[found], &said, self.idempotency_key.as_deref(), how)
    }
}

macro_rules! all_of_them {
    ($name:ident, $behavior:literal, $summary:literal) => {
        #[doc = $summary]
        #[derive(FromArgs, ArgsInfo)]
        pub struct $name {
            /// only approvals of this session
            #[argh(option, arg_name = "id")]
            session_id: Option<String>,
            /// only approvals of this run
            #[argh(option, arg_name = "id")]
            run_id: Option<String>,
            /// why, for the record and for the model
            #[argh(option, arg_name = "text")]
            justification: Option<String>,
            /// wait until each run has ended or waits again, and show it
            #[argh(switch)]
            wait: bool,
            /// with --wait: milliseconds between two looks, at least 50
            #[argh(option, arg_name = "ms")]
            poll_interval_ms: u64,
            /// with --wait: give up after this many milliseconds, with exit code 7
            #[argh(option, arg_name = "ms")]
            timeout_ms: Option<u64>,
            /// with --wait: forgive a daemon that does not answer, or answers 429, 502, 503 or 504, for this long
            #[argh(option, arg_name = "ms")]
            transient_grace_ms: u64,
        }

        impl Command for $name {
            fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
                let said = Said { behavior: $behavior, updated_input: None, justification: self.justification };
                let how = how(self.wait, self.poll_interval_ms, self.timeout_ms, self.transient_grace_ms)?;
                let mut open = all(&context.client()?, self.session_id.as_deref())?;
                open.retain(|one| self.run_id.as_ref().is_none_or(|run| *run == one.run_id));
                if open.is_empty() {
                    return Err(CliError::invalid(
                        "approvals",
                        "none is pending",
                        "see `kheish-daemon approvals list`",
                    ));
                }
                resolve(context, &open, &said, None, how)
            }
        }
    };
}

all_of_them!(AllowAll, "allow", "allow all open tool calls, one batch for each run");
all_of_them!(DenyAll, "deny", "refuse all open tool calls, one batch for each run");

macro_rules! of_session {
    ($name:ident, $behavior:literal, $summary:literal) => {
        #[doc = $summary]
        #[derive(FromArgs, ArgsInfo)]
        pub struct $name {
            /// the session
            #[argh(positional)]
            session_id: String,
            /// only this approval
            #[argh(positional)]
            approval_id: Option<String>,
            /// why, for the record and for the model
            #[argh(option, arg_name = "text")]
            justification: Option<String>,
            /// key under which the same answer is taken only once
            #[argh(option, arg_name = "key")]
            idempotency_key: Option<String>,
            /// wait until the run has ended or waits again, and show it
            #[argh(switch)]
            wait: bool,
            /// with --wait: milliseconds between two looks, at least 50
            #[argh(option, arg_name = "ms")]
            poll_interval_ms: u64,
            /// with --wait: give up after this many milliseconds, with exit code 7
            #[argh(option, arg_name = "ms")]
            timeout_ms: Option<u64>,
            /// with --wait: forgive a daemon that does not answer, or answers 429, 502, 503 or 504, for this long
            #[argh(option, arg_name = "ms")]
            transient_grace_ms: u64,
        }

        impl Command for $name {
            fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
                let said = Said { behavior: $behavior, updated_input: None, justification: self.justification };
                let how = how(self.wait, self.poll_interval_ms, self.timeout_ms, self.transient_grace_ms)?;
                let mut open = all(&context.client()?, Some(&self.session_id))?;
                open.retain(|one| self.approval_id.as_ref().is_none_or(|id| *id == one.id));
                if open.is_empty() {
                    return Err(CliError::NotFound {
                        what: format!("an open approval of session {}", self.session_id),
                        next: "see `kheish-daemon approvals list`",
                    });
                }
                resolve(context, &open, &said, self.idempotency_key.as_deref(), how)
            }
        }
    };
}

of_session!(Approve, "allow", "allow the open tool calls of a session's active run");
of_session!(Refuse, "deny", "refuse the open tool calls of a session's active run");

/// An open approval, as listed.
struct Found {
    document: Document,
    id: String,
    run_id: String,
}

#[derive(Deserialize)]
struct Fields {
    id: String,
    run_id: String,
}

#[derive(Deserialize)]
struct Listed {
    items: Vec<Box<RawValue>>,
    pagination: Pagination,
}

#[derive(Deserialize)]
struct Pagination {
    #[serde(default)]
    next_cursor: Option<String>,
}

/// Every item of a list, page by page.
pub(super) fn items(client: &Client, path: impl Fn() -> Path) -> Result<Vec<Box<RawValue>>, CliError> {
    let (mut all, mut cursor) = (Vec::new(), None::<String>);
    for _ in 0..CLI_LIST_PAGES_MAX {
        let path = paged(path(), true, Some(100), cursor.as_deref());
        let page: Listed = decode(&client.get(&path)?, "a page")?;
        all.extend(page.items);
        cursor = page.pagination.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    Ok(all)
}

fn all(client: &Client, session: Option<&str>) -> Result<Vec<Found>, CliError> {
    let listed = items(client, || Path::new("/v1/approvals").query("session_id", session))?;
    let found = |raw: Box<RawValue>| {
        let document = Document::of(&raw);
        let Fields { id, run_id } = decode(&document, "an approval")?;
        Ok(Found { document, id, run_id })
    };
    listed.into_iter().map(found).collect()
}

fn find(client: &Client, id: &str) -> Result<Found, CliError> {
    all(client, None)?.into_iter().find(|found| found.id == id).ok_or_else(|| CliError::NotFound {
        what: format!("open approval {id}"),
        next: "see `kheish-daemon approvals list`; an approval that was resolved is not listed",
    })
}

struct Said {
    behavior: &'static str,
    updated_input: Option<Box<RawValue>>,
    justification: Option<String>,
}

#[derive(Serialize)]
struct Body<'a> {
    resolutions: Vec<Resolution<'a>>,
}

#[derive(Serialize)]
struct Resolution<'a> {
    request_id: &'a str,
    behavior: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_input: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    justification: Option<&'a str>,
}

/// How to wait, if at all.
pub(super) fn how(
    wait: bool,
    poll_interval_ms: u64,
    timeout_ms: Option<u64>,
    transient_grace_ms: u64,
) -> Result<Option<Wait>, CliError> {
    if timeout_ms.is_some() && !wait {
        return Err(CliError::invalid("--timeout-ms", "it needs --wait", "add --wait"));
    }
    Ok(wait.then_some(Wait { poll_interval_ms, timeout_ms, transient_grace_ms }))
}

/// Answers approvals, one batch for each run, and shows the runs.
fn resolve(
    context: &mut Context<'_>,
    open: &[Found],
    said: &Said,
    key: Option<&str>,
    how: Option<Wait>,
) -> Result<(), CliError> {
    let client = context.client()?;
    let mut runs: Vec<&str> = open.iter().map(|found| found.run_id.as_str()).collect();
    runs.dedup();
    // All are answered before any is waited for, whatever becomes of one of them: a denial of all has to reach all.
    let (mut answered, mut failed) = (Vec::with_capacity(runs.len()), None);
    for run in runs {
        let of_run = open.iter().filter(|found| found.run_id == run);
        let resolutions = of_run
            .map(|found| Resolution {
                request_id: &found.id,
                behavior: said.behavior,
                updated_input: said.updated_input.as_deref(),
                justification: said.justification.as_deref(),
            })
            .collect();
        let body = Document::of(&Body { resolutions });
        let headers: Vec<(&str, &str)> = key.iter().map(|key| ("idempotency-key", *key)).collect();
        let path = run_path(run).then("/approvals");
        match client.post(&path, Some(body.as_str().as_bytes()), &headers) {
            Ok(document) => answered.push(document),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    for document in &answered {
        if let Err(error) = after_answer(context, &client, document, how) {
            failed = failed.or(Some(error));
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Shows the run behind an answer: as it is, or once it has ended or waits again.
pub(super) fn after_answer(
    context: &mut Context<'_>,
    client: &Client,
    document: &Document,
    how: Option<Wait>,
) -> Result<(), CliError> {
    let view: RunView = decode(document, "the run's view")?;
    let Some(how) = how else { return context.out.document(document) };
    match wait::for_answer(client, &view.run_id, how)? {
        Waited::Ended(document, view) if !view.is_final() => context.out.document(&document),
        waited => super::runs::report(context, &view.run_id, how, waited),
    }
}
