//! The conversation so far, read back from the journal.
//! Owns: which messages the model sees, the bound on earlier exchanges, and what a restart finds of a turn.
//! Never: keeps a transcript in memory beyond the run in hand.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::input::{Files, StoredPart};
use super::records::{AcceptedBody, CompactedBody, MessageBody, OutputRejected, RouteMoved, body};
use crate::core::{
    AgentsAwaited, ApprovalRequested, ApprovalResolved, QuestionAsked, QuestionResolved, ToolCallFinished,
    ToolCallStarted,
};
use crate::ids::Seq;
use crate::journal::{ReadError, Reader, Record};
use crate::limits::{CONTEXT_BYTES_MAX, CONTEXT_PICTURE_BYTES, CONTEXT_RUNS_MAX, CONTEXT_WALK_RECORDS_MAX};
use crate::providers::{Message, Origin, ToolCall, ToolResult, Usage};

/// What the model is told of a call whose run ended before its result.
const NO_RESULT: &str = r#"{"error":"no result: the run ended before this call was done","code":"no_result"}"#;

/// The messages for a model call, oldest first, and where the run stands.
pub(super) struct Context {
    pub messages: Vec<Message>,
    /// The first record of each message.
    pub starts: Vec<Seq>,
    /// Earlier exchanges were left out because they did not fit.
    pub truncated: bool,
    /// Calls to a provider that this run had requested before.
    pub own_actions: u32,
    /// Answers of a model in this run.
    pub turns: u32,
    /// Tokens of these answers.
    pub output_tokens: u64,
    /// Tokens of the newest answer of this run, and its place in `messages`.
    pub usage: Option<(Usage, usize)>,
    /// Calls of the newest answer that do not all have results.
    pub open: Option<OpenTurn>,
    /// The run's input, word for word.
    pub task: String,
    /// Answers of this run that were sent back because they did not fit their schema.
    pub repairs: u32,
    /// Where the newest failover of this run has led.
    pub moved: Option<RouteMoved>,
}

/// A turn whose calls do not all have results.
pub(super) struct OpenTurn {
    pub calls: Vec<OpenCall>,
}

/// One call of it, as the journal knows it.
pub(super) struct OpenCall {
    pub call: ToolCall,
    /// Its result, if it has one.
    pub result: Option<ToolResult>,
    /// It was started.
    pub started: Option<ToolCallStarted>,
    /// The newest approval asked for it, and the answer.
    pub approval: Option<(ApprovalRequested, Option<ApprovalResolved>)>,
    /// The question that it asks, and the answer.
    pub question: Option<(QuestionAsked, Option<QuestionResolved>)>,
    /// The child agents that it waits for.
    pub awaited: Option<AgentsAwaited>,
}

impl OpenCall {
    /// A call of which nothing is recorded but the message.
    pub(super) fn new(call: ToolCall) -> Self {
        Self { call, result: None, started: None, approval: None, question: None, awaited: None }
    }
}

/// Why a context could not be assembled.
#[derive(Debug)]
pub(super) enum ContextError {
    Read(ReadError),
    Record(String),
}

impl std::fmt::Display for ContextError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Record(cause) => {
                write!(f, "a record of this session cannot be read: {cause}; next: run journal verify")
            }
        }
    }
}

impl From<ReadError> for ContextError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// The parts of a normalised submission that the model is asked with.
#[derive(Deserialize)]
pub(super) struct Submitted {
    pub content: String,
    /// In order, where there is more than text.
    #[serde(default, rename = "input_parts")]
    pub parts: Vec<StoredPart>,
    #[serde(default)]
    pub max_output_tokens: Option<u32>,
    #[serde(default)]
    pub temperature: Option<f64>,
    /// Model of the same route to go on with when the first one fails.
    #[serde(default)]
    pub fallback_model: Option<String>,
    #[serde(default)]
    pub budget: super::budget::Budget,
    #[serde(flatten)]
    pub options: crate::providers::GenerationOptions,
}

impl Submitted {
    pub(super) fn read(request: &RawValue) -> Result<Self, ContextError> {
        serde_json::from_str(request.get()).map_err(|error| ContextError::Record(error.to_string()))
    }
}

/// What was met on the way back and belongs to a message that is still to come.
#[derive(Default)]
struct Pending {
    results: HashMap<String, ToolResult>,
    started: HashMap<String, ToolCallStarted>,
    approvals: HashMap<String, (ApprovalRequested, Option<ApprovalResolved>)>,
    answers: HashMap<String, ApprovalResolved>,
    questions: HashMap<String, (QuestionAsked, Option<QuestionResolved>)>,
    resolutions: HashMap<String, QuestionResolved>,
    awaited: HashMap<String, AgentsAwaited>,
}

impl Pending {
    /// Takes a record of a turn; the newest of a kind counts for each call.
    fn take(&mut self, record: &Record) -> Result<(), ContextError> {
        match record.kind.as_str() {
            "tool_call.finished" => {
                let ToolCallFinished { call, tool, outcome, content, .. } = read(record)?;
                let result = ToolResult { call_id: call.clone(), name: tool, content, is_error: outcome.is_error() };
                self.results.entry(call).or_insert(result);
            }
            "tool_call.started" => {
                let started: ToolCallStarted = read(record)?;
                self.started.entry(started.call.clone()).or_insert(started);
            }
            "approval.requested" => {
                let asked: ApprovalRequested = read(record)?;
                let answer = self.answers.remove(&asked.id);
                self.approvals.entry(asked.call.clone()).or_insert((asked, answer));
            }
            "approval.resolved" => {
                let answer: ApprovalResolved = read(record)?;
                self.answers.insert(answer.id.clone(), answer);
            }
            "question.asked" => {
                let asked: QuestionAsked = read(record)?;
                let answer = self.resolutions.remove(&asked.id);
                self.questions.entry(asked.call.clone()).or_insert((asked, answer));
            }
            "agents.awaited" => {
                let awaited: AgentsAwaited = read(record)?;
                self.awaited.entry(awaited.call.clone()).or_insert(awaited);
            }
            "question.resolved" => {
                let answer: QuestionResolved = read(record)?;
                self.resolutions.insert(answer.id.clone(), answer);
            }
            _ => {}
        }
        Ok(())
    }

    /// The calls of a message with all that is known of them.
    fn calls(&mut self, calls: Vec<ToolCall>) -> Vec<OpenCall> {
        let open = |call: ToolCall| OpenCall {
            result: self.results.remove(&call.call_id),
            started: self.started.remove(&call.call_id),
            approval: self.approvals.remove(&call.call_id),
            question: self.questions.remove(&call.call_id),
            awaited: self.awaited.remove(&call.call_id),
            call,
        };
        let calls = calls.into_iter().map(open).collect();
        // Call ids are unique within a turn only.
        *self = Self::default();
        calls
    }
}

/// Results in the order of the calls; one that is missing says so.
fn results_of(calls: Vec<OpenCall>) -> Message {
    let result = |open: OpenCall| {
        open.result.unwrap_or_else(|| ToolResult {
            call_id: open.call.call_id,
            name: open.call.name,
            content: NO_RESULT.to_string(),
            is_error: true,
        })
    };
    Message::ToolResults { results: calls.into_iter().map(result).collect() }
}

/// Messages being gathered, newest first.
struct Gathered {
    newest_first: Vec<(Message, Seq)>,
    turns: u32,
    output_tokens: u64,
    /// Of the newest own answer, with its place counted from the newest.
    usage: Option<(Usage, usize)>,
    open: Option<OpenTurn>,
}

impl Gathered {
    /// Takes an answer of this run.
    fn own(&mut self, message: MessageBody, seq: Seq, pending: &mut Pending, is_before_summary: bool) {
        let MessageBody { text, items, route, model, usage, tool_calls, .. } = message;
        let calls = pending.calls(tool_calls.clone());
        let is_newest = self.turns == 0;
        self.turns += 1;
        self.output_tokens += usage.map_or(0, |usage| usage.output_tokens);
        if is_newest && calls.iter().any(|call| call.result.is_none()) {
            self.open = Some(OpenTurn { calls });
        } else if !calls.is_empty() {
            self.newest_first.push((results_of(calls), seq));
        }
        // What a provider counted before a summary says nothing of what is shown after it.
        if is_newest && !is_before_summary {
            self.usage = usage.map(|usage| (usage, self.newest_first.len()));
        }
        let origin = Origin { route, model };
        self.newest_first.push((Message::Assistant { text, tool_calls, items, origin }, seq));
    }
}

/// Walks the session's records backwards from `newest`, a record of this run written after it became active.
/// A session runs one run at a time, so all of its earlier exchanges stand before that, one after the other. An
/// earlier run takes part once it was started, whatever its end: what a person said stays said, and so do the turns in
/// which tools ran. Only a completed run has an answer; what else one left behind may be half of an exchange, which
/// providers refuse.
///
/// The walk ends at a summary of everything before. Else the oldest exchanges are left out, each as a whole, where a
/// bound would be passed.
pub(super) fn assemble(
    reader: &Reader,
    files: &Files<'_>,
    accepted: &Record,
    newest: Seq,
) -> Result<Context, ContextError> {
    let own: AcceptedBody = body(accepted).map_err(ContextError::Record)?;
    let submitted = Submitted::read(own.request)?;
    let input = files.own(&submitted)?;
    let task = submitted.content;
    let mut gathered = Gathered { newest_first: Vec::new(), turns: 0, output_tokens: 0, usage: None, open: None };
    let (mut bytes, mut runs, mut walked, mut own_actions) = (0, 0, 0, 0);
    // Of the exchange whose end was met and whose beginning was not.
    let (mut completed, mut answers, mut answer_bytes) = (None, Vec::new(), 0);
    let (mut truncated, mut own_started) = (false, false);
    let mut pending = Pending::default();
    let mut summary: Option<CompactedBody> = None;
    let mut moved: Option<RouteMoved> = None;
    let mut repairs = 0;
    let mut seq = newest;
    while seq != 0 && summary.as_ref().is_none_or(|summary| seq > summary.until || !own_started) {
        let Some(record) = (if walked < CONTEXT_WALK_RECORDS_MAX { kept(reader, seq)? } else { None }) else {
            truncated = true;
            break;
        };
        walked += 1;
        seq = record.session_prev;
        let Some(run) = record.run else { continue };
        let is_summarised = summary.as_ref().is_some_and(|summary| record.seq <= summary.until);
        let is_own = Some(run) == accepted.run;
        match record.kind.as_str() {
            "context.compacted" if summary.is_none() => summary = Some(read(&record)?),
            "run.started" if is_own && is_summarised => break,
            "run.started" if is_own => {
                gathered.newest_first.push((input.clone(), record.seq));
                own_started = true;
            }
            "external_action.request" if is_own => own_actions += 1,
            "output.rejected" if is_own || completed == Some(run) => {
                let rejected: OutputRejected = read(&record)?;
                repairs = repairs.max(if is_own { rejected.attempt } else { 0 });
                let message = (Message::user(rejected.told), record.seq);
                match (is_summarised, is_own) {
                    (true, _) => {}
                    (false, true) => gathered.newest_first.push(message),
                    (false, false) => answers.push(message),
                }
            }
            "route.failover" if is_own && moved.is_none() => moved = Some(read(&record)?),
            "message.appended" if is_own => {
                let message: MessageBody = read(&record)?;
                if is_summarised {
                    gathered.turns += 1;
                    gathered.output_tokens += message.usage.map_or(0, |usage| usage.output_tokens);
                } else {
                    gathered.own(message, record.seq, &mut pending, summary.is_some());
                }
            }
            _ if is_summarised => {}
            "run.completed" => {
                completed = Some(run);
                pending = Pending::default();
            }
            "run.failed" | "run.interrupted" | "run.cancelled" => pending = Pending::default(),
            "message.appended" => {
                let message: MessageBody = read(&record)?;
                let calls = pending.calls(message.tool_calls.clone());
                if completed != Some(run) && calls.is_empty() {
                    continue;
                }
                answer_bytes += record.body.get().len();
                if !calls.is_empty() {
                    let results = results_of(calls);
                    answer_bytes += weight(&results);
                    answers.push((results, record.seq));
                }
                let MessageBody { text, items, route, model, tool_calls, .. } = message;
                let origin = Origin { route, model };
                answers.push((Message::Assistant { text, tool_calls, items, origin }, record.seq));
            }
            "run.started" => {
                let Some(first) = kept(reader, record.run_first)? else {
                    truncated = true;
                    break;
                };
                let accepted: AcceptedBody = body(&first).map_err(ContextError::Record)?;
                let said = Submitted::read(accepted.request)?;
                bytes += said.content.len() + std::mem::take(&mut answer_bytes);
                runs += 1;
                if bytes > CONTEXT_BYTES_MAX || runs > CONTEXT_RUNS_MAX {
                    truncated = true;
                    break;
                }
                gathered.newest_first.append(&mut answers);
                gathered.newest_first.push((files.earlier(&said)?, record.seq));
            }
            _ => pending.take(&record)?,
        }
    }
    if summary.is_some() {
        // The summary ends between two messages, which may be within a run: what was met of it belongs to the context.
        gathered.newest_first.append(&mut answers);
    }
    match summary {
        Some(summary) if own_started => {
            gathered.newest_first.push((Message::user(summary.shown(None)), 0));
        }
        Some(summary) => gathered.newest_first.push((Message::user(summary.shown(Some(&task))), 0)),
        // The walk ended within this run.
        None if !own_started => gathered.newest_first.push((input, 0)),
        None => {}
    }
    gathered.newest_first.reverse();
    let count = gathered.newest_first.len();
    let (messages, starts) = gathered.newest_first.into_iter().unzip();
    Ok(Context {
        messages,
        starts,
        truncated,
        own_actions,
        turns: gathered.turns,
        output_tokens: gathered.output_tokens,
        usage: gathered.usage.map(|(usage, from_newest)| (usage, count - 1 - from_newest)),
        open: gathered.open,
        task,
        repairs,
        moved,
    })
}

fn read<T: for<'a> Deserialize<'a>>(record: &Record) -> Result<T, ContextError> {
    body(record).map_err(ContextError::Record)
}

/// Bytes of text in a message, roughly what it adds to a request.
pub(super) fn weight(message: &Message) -> usize {
    match message {
        Message::User { parts } => parts
            .iter()
            .map(|part| match part {
                crate::providers::InputPart::Text(text) => text.len(),
                crate::providers::InputPart::Image { .. } => CONTEXT_PICTURE_BYTES,
                // A page of a document has some ten times as many bytes as it has of text.
                crate::providers::InputPart::Document { bytes, .. } => CONTEXT_PICTURE_BYTES.max(bytes.len() / 10),
            })
            .sum(),
        Message::Assistant { text, tool_calls, items, .. } => {
            let calls: usize = tool_calls.iter().map(|call| call.name.len() + call.arguments.len()).sum();
            let items: usize = items.iter().map(|item| item.get().len()).sum();
            items.max(text.len() + calls)
        }
        Message::ToolResults { results } => results.iter().map(|result| result.content.len()).sum(),
    }
}

/// The record at `seq`; `None` when its segment was retired: what was in it is beyond retention.
fn kept(reader: &Reader, seq: Seq) -> Result<Option<Record>, ContextError> {
    match reader.read(seq) {
        Ok(record) => Ok(Some(record)),
        Err(ReadError::Retired { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
