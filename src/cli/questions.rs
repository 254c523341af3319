//! `questions …`.
//! Owns: finding a question by its id, and the bodies that answer it.
//! Never: checks answers; the daemon does.

use argh::{ArgsInfo, FromArgs};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::approvals::{after_answer, how, items};
use super::client::{Client, decode};
use super::context::Context;
use super::exit::CliError;
use super::input::read_file;
use super::json_file;
use super::json_text::Document;
use super::path::Path;
use super::runs::run_path;
use super::sessions::{paged, show_list};
use super::table::{Column, text, time};
use super::verbs::Command;
use crate::limits::CLI_METADATA_BYTES_MAX;

const COLUMNS: &[Column] = &[
    text("QUESTION", &["/request/id"]),
    text("RUN", &["/run_id"]),
    text("SESSION", &["/session_id"]),
    time("ASKED", &["/request/created_at_ms"]),
    text("FIRST", &["/request/questions/0/question"]),
];

/// list open questions, longest wait first
#[derive(FromArgs, ArgsInfo)]
pub struct List {
    /// only questions of this session
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
        let path = Path::new("/v1/questions").query("session_id", self.session_id.as_deref());
        show_list(context, paged(path, self.page, self.limit, self.cursor.as_deref()), COLUMNS)
    }
}

/// show one open question
#[derive(FromArgs, ArgsInfo)]
pub struct Show {
    /// the question
    #[argh(positional)]
    question_id: String,
}

impl Command for Show {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let found = find(&context.client()?, &self.question_id)?;
        context.out.document(&found.document)
    }
}

/// answer or decline a question
#[derive(FromArgs, ArgsInfo)]
pub struct Answer {
    /// the question
    #[argh(positional)]
    question_id: String,
    /// free text; for a request with one question
    #[argh(positional)]
    text: Option<String>,
    /// JSON list of answers: question_id with selected_option_ids or freeform_answer
    #[argh(option, arg_name = "json")]
    answers_json: Option<String>,
    /// file with that list
    #[argh(option, arg_name = "path")]
    answers_file: Option<String>,
    /// decline to answer
    #[argh(switch)]
    declined: bool,
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

#[derive(Serialize)]
struct Body<'a> {
    resolution: Resolution<'a>,
}

#[derive(Serialize)]
struct Resolution<'a> {
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    answers: Option<Box<RawValue>>,
    declined: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    justification: Option<&'a str>,
}

#[derive(Serialize)]
struct FreeText<'a> {
    question_id: &'a str,
    freeform_answer: &'a str,
}

impl Command for Answer {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let how = how(self.wait, self.poll_interval_ms, self.timeout_ms, self.transient_grace_ms)?;
        let client = context.client()?;
        let found = find(&client, &self.question_id)?;
        let resolution = Resolution {
            request_id: &self.question_id,
            answers: self.answers(&found)?,
            declined: self.declined,
            justification: self.justification.as_deref(),
        };
        let body = Document::of(&Body { resolution });
        let headers: Vec<(&str, &str)> =
            self.idempotency_key.iter().map(|key| ("idempotency-key", key.as_str())).collect();
        let path = run_path(&found.run_id).then("/questions");
        let document = client.post(&path, Some(body.as_str().as_bytes()), &headers)?;
        after_answer(context, &client, &document, how)
    }
}

impl Answer {
    fn answers(&self, found: &Found) -> Result<Option<Box<RawValue>>, CliError> {
        let next = "give exactly one of a text, --answers-json, --answers-file and --declined";
        let given = [self.text.is_some(), self.answers_json.is_some(), self.answers_file.is_some(), self.declined];
        if given.into_iter().filter(|given| *given).count() != 1 {
            return Err(CliError::invalid("the answer", "there is none, or more than one", next));
        }
        if let Some(json) = &self.answers_json {
            return json_file::parse("--answers-json", json).map(Some);
        }
        if let Some(path) = &self.answers_file {
            return json_file::parse(path, &read_file(path, CLI_METADATA_BYTES_MAX)?).map(Some);
        }
        let Some(text) = &self.text else { return Ok(None) };
        let [question_id] = &found.question_ids[..] else {
            let cause = format!("the request has {} questions", found.question_ids.len());
            return Err(CliError::invalid("the text", cause, "use --answers-json"));
        };
        let answers = [FreeText { question_id, freeform_answer: text }];
        Ok(Some(serde_json::value::to_raw_value(&answers).expect("texts serialise")))
    }
}

/// withdraw a question, which cancels its run
#[derive(FromArgs, ArgsInfo)]
pub struct Cancel {
    /// the question
    #[argh(positional)]
    question_id: String,
    /// its run; found from the question otherwise
    #[argh(option, arg_name = "id")]
    run_id: Option<String>,
    /// why, for the record
    #[argh(option, arg_name = "text")]
    justification: Option<String>,
    /// key under which the same request is taken only once; needs --run-id
    #[argh(option, arg_name = "key")]
    idempotency_key: Option<String>,
}

#[derive(Serialize)]
struct CancelBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    justification: Option<&'a str>,
}

impl Command for Cancel {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        if self.idempotency_key.is_some() && self.run_id.is_none() {
            // A withdrawn question is found no more, so the repeated request would not find its run.
            return Err(CliError::invalid("--idempotency-key", "it needs --run-id", "add --run-id"));
        }
        let client = context.client()?;
        let run_id = match self.run_id {
            Some(run_id) => run_id,
            None => find(&client, &self.question_id)?.run_id,
        };
        let body = Document::of(&CancelBody { justification: self.justification.as_deref() });
        let headers: Vec<(&str, &str)> =
            self.idempotency_key.iter().map(|key| ("idempotency-key", key.as_str())).collect();
        let path = run_path(&run_id).then("/questions").segment(&self.question_id).then("/cancel");
        let document = client.post(&path, Some(body.as_str().as_bytes()), &headers)?;
        document.require_object(path.as_str())?;
        context.out.document(&document)
    }
}

/// An open question, as listed.
struct Found {
    document: Document,
    id: String,
    run_id: String,
    question_ids: Vec<String>,
}

#[derive(Deserialize)]
struct Fields {
    run_id: String,
    request: Request,
}

#[derive(Deserialize)]
struct Request {
    id: String,
    questions: Vec<Question>,
}

#[derive(Deserialize)]
struct Question {
    id: String,
}

fn find(client: &Client, id: &str) -> Result<Found, CliError> {
    for raw in items(client, || Path::new("/v1/questions"))? {
        let document = Document::of(&raw);
        let Fields { run_id, request } = decode(&document, "a question")?;
        let question_ids = request.questions.into_iter().map(|question| question.id).collect();
        let found = Found { document, id: request.id, run_id, question_ids };
        if found.id == id {
            return Ok(found);
        }
    }
    Err(CliError::NotFound {
        what: format!("open question {id}"),
        next: "see `kheish-daemon questions list`; a question that was answered is not listed",
    })
}
