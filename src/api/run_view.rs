//! A run on the wire, folded from its records.
//! Owns: `RunView` and its summary.
//! May touch: the records it is handed.
//! Never: reads the journal, or knows a live queue position; whoever has the core's answer fills that in.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::deliveries::DeliveryView;
use super::waiting::{ApprovalView, QuestionView};
use crate::core::{Body, DecodeError, Failure, RunStatus, WaitsFor};
use crate::engine::{StoredFile, StoredPart};
use crate::ids::{RunId, Seq, SessionId};
use crate::journal::Record;
use crate::limits::{RUN_SUMMARY_TEXT_CHARS_MAX, SSE_ERROR_CUT_BYTES};

/// A run.
#[derive(Debug, Clone, Serialize)]
pub struct RunView {
    /// Its id.
    pub run_id: RunId,
    /// The session it belongs to.
    pub session_id: SessionId,
    /// The session's root agent.
    pub agent_id: String,
    /// What made it: `input`.
    pub kind: String,
    /// Where it is in its life.
    pub status: RunStatus,
    /// When it was accepted, Unix milliseconds.
    pub submitted_at_ms: u64,
    /// Time of its newest record shown here.
    pub updated_at_ms: u64,
    /// When it first became active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at_ms: Option<u64>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at_ms: Option<u64>,
    /// Place in its session's queue, from 1. From records alone it is the place at acceptance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued_position: Option<u32>,
    /// What was asked, in short.
    pub request: RunSummary,
    /// Files of the input, without their bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub input_attachments: Vec<StoredFile>,
    /// The submission's metadata, as it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_metadata: Option<Box<RawValue>>,
    /// Open approvals that it waits for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pending_approval_ids: Vec<String>,
    /// The same with what is asked; left out in event frames.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pending_approvals: Vec<ApprovalView>,
    /// The open question that it waits for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pending_question_ids: Vec<String>,
    /// The same with what is asked; left out in event frames.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pending_questions: Vec<QuestionView>,
    /// What it has put out so far, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Box<RawValue>>,
    /// Moves to another route, oldest first; left out in event frames.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failovers: Vec<FailoverView>,
    /// Outputs on their way to reply targets, oldest first; left out in event frames.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) deliveries: Vec<DeliveryView>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// One move of a run to another route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverView {
    /// Where it failed.
    pub from_route: String,
    /// With which model.
    pub from_model: String,
    /// Where it went on.
    pub to_route: String,
    /// With which model.
    pub to_model: String,
    /// The failure's code, e.g. `provider_overload`.
    pub reason: String,
    /// The failure in words.
    pub message: String,
    /// When, Unix milliseconds.
    #[serde(default)]
    pub at_ms: u64,
}

/// What was asked of a run. Each text has at most [`RUN_SUMMARY_TEXT_CHARS_MAX`] characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunSummary {
    /// Component that submitted it.
    pub source_plugin: String,
    /// Way it came in.
    pub source_kind: String,
    /// Person or system behind it, as the caller named it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor_id: Option<String>,
    /// Beginning of the input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_preview: Option<String>,
    /// Route id pinned at acceptance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Model pinned at acceptance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

impl RunSummary {
    /// The same with `change` applied to the caller's texts.
    pub fn map_texts(self, change: impl Fn(&str) -> String) -> Self {
        Self {
            source_plugin: change(&self.source_plugin),
            source_kind: change(&self.source_kind),
            actor_id: self.actor_id.as_deref().map(&change),
            text_preview: self.text_preview.as_deref().map(&change),
            ..self
        }
    }

    /// The summary of a submission, before its route and model are pinned.
    pub fn new(content: &str, source_plugin: &str, source_kind: &str, actor_id: Option<&str>) -> Self {
        Self {
            source_plugin: short(source_plugin),
            source_kind: short(source_kind),
            actor_id: actor_id.map(short),
            text_preview: Some(short(content)).filter(|text| !text.is_empty()),
            provider: None,
            model: None,
        }
    }
}

/// Why records do not make a run.
#[derive(Debug)]
pub enum ViewError {
    /// The first record is not the run's acceptance.
    NotAccepted {
        /// The first record, if there is one.
        seq: Option<Seq>,
    },
    /// A record of something else is among them.
    Foreign {
        /// The record.
        seq: Seq,
    },
    /// The run's state changed after its end.
    AfterEnd {
        /// The record.
        seq: Seq,
    },
    /// A record cannot be read.
    Body {
        /// The record.
        seq: Seq,
        /// Why.
        cause: DecodeError,
    },
    /// The request or output inside a record cannot be read.
    Content {
        /// The record.
        seq: Seq,
        /// Why.
        cause: serde_json::Error,
    },
}

impl fmt::Display for ViewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAccepted { seq: None } => write!(f, "a run without records cannot be shown")?,
            Self::NotAccepted { seq: Some(seq) } => write!(f, "record {seq} is not the acceptance of a run")?,
            Self::Foreign { seq } => write!(f, "record {seq} does not belong to the run being shown")?,
            Self::AfterEnd { seq } => write!(f, "record {seq} changes a run that had ended")?,
            Self::Body { cause, .. } => return cause.fmt(f),
            Self::Content { seq, cause } => write!(f, "record {seq} has unreadable content: {cause}")?,
        }
        write!(f, "; next: run kheish-daemon journal verify")
    }
}

impl std::error::Error for ViewError {}

/// What a run was accepted with: all that a lean view needs besides the record at hand.
#[derive(Debug, Clone)]
pub struct Origin {
    view: RunView,
}

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    content: String,
    source_plugin: Option<String>,
    source_kind: Option<String>,
    actor_id: Option<String>,
    metadata: Option<Box<RawValue>>,
    #[serde(default)]
    input_parts: Vec<StoredPart>,
}

#[derive(Deserialize)]
struct OutputBody {
    output: Box<RawValue>,
}

impl Origin {
    /// Reads a `run.accepted` record.
    ///
    /// # Errors
    /// It is another record, or its body cannot be read.
    pub fn of(accepted: &Record) -> Result<Self, ViewError> {
        Ok(Self { view: accepted_view(accepted)?.0 })
    }

    /// The session's root agent.
    pub fn agent(&self) -> &str {
        &self.view.agent_id
    }

    /// The run as of `status`, its acceptance or any later record, without metadata and outputs. A long error
    /// message is cut.
    ///
    /// # Errors
    /// `status` belongs to another run or cannot be read.
    pub fn lean(&self, status: &Record) -> Result<RunView, ViewError> {
        let mut view = self.view.clone();
        if status.kind != "run.accepted" {
            apply(&mut view, status)?;
        } else if status.run != Some(view.run_id) {
            return Err(ViewError::Foreign { seq: status.seq });
        }
        if let Some(error) = &mut view.error
            && error.message.len() > SSE_ERROR_CUT_BYTES
        {
            error.message = cut_text(&error.message, SSE_ERROR_CUT_BYTES);
        }
        view.outputs = Vec::new();
        view.failovers = Vec::new();
        view.pending_approvals = Vec::new();
        view.pending_questions = Vec::new();
        Ok(view)
    }
}

/// The run as of its record `status`, without metadata and outputs. See [`Origin`] for many at once.
///
/// # Errors
/// The records do not belong together or cannot be read.
pub fn lean(accepted: &Record, status: &Record) -> Result<RunView, ViewError> {
    Origin::of(accepted)?.lean(status)
}

/// A run from all its records, oldest first. Records of kinds that do not show are stepped over.
///
/// # Errors
/// The records are not those of one run, or one cannot be read.
pub fn fold(records: &[Record]) -> Result<RunView, ViewError> {
    let (accepted, later) = records.split_first().ok_or(ViewError::NotAccepted { seq: None })?;
    let (mut view, metadata) = accepted_view(accepted)?;
    view.input_metadata = metadata;
    for record in later {
        if view.status.is_terminal() && changes_state(&record.kind) {
            return Err(ViewError::AfterEnd { seq: record.seq });
        }
        apply(&mut view, record)?;
    }
    Ok(view)
}

pub(super) fn changes_state(kind: &str) -> bool {
    matches!(
        kind,
        "run.accepted"
            | "run.started"
            | "run.resumed"
            | "run.waiting"
            | "run.continued"
            | "run.completed"
            | "run.failed"
            | "run.interrupted"
            | "run.cancelled"
    )
}

pub(super) fn body_of(record: &Record) -> Result<Body, ViewError> {
    Body::decode(&record.kind, &record.body).map_err(|cause| ViewError::Body { seq: record.seq, cause })
}

pub(super) fn output_of(record: &Record) -> Result<Box<RawValue>, ViewError> {
    let body: OutputBody = content_of(record, record.body.get())?;
    Ok(body.output)
}

pub(super) fn content_of<'a, T: Deserialize<'a>>(record: &Record, json: &'a str) -> Result<T, ViewError> {
    serde_json::from_str(json).map_err(|cause| ViewError::Content { seq: record.seq, cause })
}

/// The lean view of an accepted run, and the submission's metadata.
pub(super) fn accepted_view(record: &Record) -> Result<(RunView, Option<Box<RawValue>>), ViewError> {
    let not_accepted = || ViewError::NotAccepted { seq: Some(record.seq) };
    if record.kind != "run.accepted" {
        return Err(not_accepted());
    }
    let (Some(run_id), Some(session_id)) = (record.run, record.session.clone()) else { return Err(not_accepted()) };
    let Body::RunAccepted(accepted) = body_of(record)? else { return Err(not_accepted()) };
    let request: Request = content_of(record, accepted.request.get())?;
    let mut summary = RunSummary::new(
        &request.content,
        request.source_plugin.as_deref().unwrap_or("daemon"),
        request.source_kind.as_deref().unwrap_or("api"),
        request.actor_id.as_deref(),
    );
    summary.provider = Some(short(&accepted.route)).filter(|text| !text.is_empty());
    summary.model = Some(short(&accepted.model)).filter(|text| !text.is_empty());
    let files = request.input_parts.into_iter().filter_map(|part| match part {
        StoredPart::File(file) => Some(file),
        StoredPart::Text { .. } => None,
    });
    let files = files.collect();
    let view = RunView {
        run_id,
        session_id,
        agent_id: accepted.agent,
        kind: accepted.kind,
        status: RunStatus::Queued,
        submitted_at_ms: record.at_ms,
        updated_at_ms: record.at_ms,
        started_at_ms: None,
        finished_at_ms: None,
        queued_position: (accepted.position != 0).then_some(accepted.position),
        request: summary,
        input_attachments: files,
        input_metadata: None,
        pending_approval_ids: Vec::new(),
        pending_approvals: Vec::new(),
        pending_question_ids: Vec::new(),
        pending_questions: Vec::new(),
        outputs: Vec::new(),
        failovers: Vec::new(),
        deliveries: Vec::new(),
        error: None,
    };
    Ok((view, request.metadata.filter(|metadata| metadata.get() != "null")))
}

impl RunView {
    /// Nothing is open any more.
    fn settle_all(&mut self) {
        self.pending_approval_ids.clear();
        self.pending_approvals.clear();
        self.pending_question_ids.clear();
        self.pending_questions.clear();
    }

    /// A record that leaves the run's state as it is and may change what is open.
    fn follow(&mut self, record: &Record) -> Result<(), ViewError> {
        match record.kind.as_str() {
            "route.failover" => {
                let moved: FailoverView = content_of(record, record.body.get())?;
                self.failovers.push(FailoverView { at_ms: record.at_ms, ..moved });
            }
            "approval.requested" => self.pending_approvals.push(ApprovalView::of(record)?),
            "question.asked" => self.pending_questions.push(QuestionView::of(record)?),
            "approval.resolved" => {
                let Body::ApprovalResolved(resolved) = body_of(record)? else { return Ok(()) };
                self.pending_approvals.retain(|open| open.id != resolved.id);
                self.pending_approval_ids.retain(|open| *open != resolved.id);
            }
            "question.resolved" => {
                self.pending_questions.clear();
                self.pending_question_ids.clear();
            }
            _ => {}
        }
        Ok(())
    }
}

fn apply(view: &mut RunView, record: &Record) -> Result<(), ViewError> {
    if record.run != Some(view.run_id) || record.kind == "run.accepted" {
        return Err(ViewError::Foreign { seq: record.seq });
    }
    view.updated_at_ms = record.at_ms;
    if record.kind == "run.output" {
        view.outputs.push(output_of(record)?);
        return Ok(());
    }
    if !changes_state(&record.kind) {
        return view.follow(record);
    }
    let (status, times, error) = match body_of(record)? {
        Body::RunStarted(times) => {
            let started_at_ms = times.started_at_ms.or(Some(record.at_ms));
            (RunStatus::Running, (times.submitted_at_ms, started_at_ms), None)
        }
        Body::RunResumed(body) => (RunStatus::Running, (body.times.submitted_at_ms, body.times.started_at_ms), None),
        Body::RunContinued(times) => (RunStatus::Running, (times.submitted_at_ms, times.started_at_ms), None),
        Body::RunWaiting(body) => {
            let status = match body.waits_for {
                WaitsFor::Approval => {
                    view.pending_approval_ids = body.request_ids;
                    RunStatus::WaitingForApproval
                }
                WaitsFor::UserQuestion => {
                    view.pending_question_ids = body.request_ids;
                    RunStatus::WaitingForUserQuestion
                }
                // Its children work for it.
                WaitsFor::Agents => RunStatus::Running,
            };
            (status, (body.times.submitted_at_ms, body.times.started_at_ms), None)
        }
        Body::RunCompleted(times) => (RunStatus::Completed, (times.submitted_at_ms, times.started_at_ms), None),
        Body::RunInterrupted(times) => (RunStatus::Interrupted, (times.submitted_at_ms, times.started_at_ms), None),
        Body::RunCancelled(times) => (RunStatus::Cancelled, (times.submitted_at_ms, times.started_at_ms), None),
        Body::RunFailed(body) => {
            (RunStatus::Failed, (body.times.submitted_at_ms, body.times.started_at_ms), Some(body.error))
        }
        _ => unreachable!("changes_state names only the kinds above"),
    };
    if !matches!(status, RunStatus::WaitingForApproval | RunStatus::WaitingForUserQuestion) {
        view.settle_all();
    }
    view.status = status;
    (view.submitted_at_ms, view.started_at_ms) = times;
    view.finished_at_ms = status.is_terminal().then_some(record.at_ms);
    view.queued_position = None;
    view.error = error;
    Ok(())
}

/// The beginning of a text: at most `bytes` of it and a mark.
pub(super) fn cut_text(text: &str, bytes: usize) -> String {
    let end = (0..=bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end])
}

/// The beginning of a text, marked when it was cut.
fn short(text: &str) -> String {
    // So many bytes hold at most so many characters.
    if text.len() <= RUN_SUMMARY_TEXT_CHARS_MAX {
        return text.to_string();
    }
    let mut last = text.char_indices().skip(RUN_SUMMARY_TEXT_CHARS_MAX - 1);
    match (last.next(), last.next()) {
        (Some((cut, _)), Some(_)) => format!("{}…", &text[..cut]),
        _ => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::run_events::run_events;

    fn record(seq: Seq, kind: &str, body: &str) -> Record {
        Record {
            seq,
            at_ms: 1_000 + seq,
            kind: kind.to_string(),
            session: Some(SessionId::parse("s").unwrap()),
            run: Some(RunId { number: 7, epoch: 0 }),
            session_prev: 0,
            run_prev: 0,
            run_first: 0,
            by: None,
            body: RawValue::from_string(body.to_string()).unwrap(),
            batch: None,
        }
    }

    fn accepted(position: u32) -> Record {
        let body = format!(
            r#"{{"agent":"agent-1","kind":"input","position":{position},"route":"main","model":"gpt-5.4","request":{{"content":"hi","source_plugin":"daemon","source_kind":"api","actor_id":"op","metadata":{{"t":1}}}}}}"#
        );
        record(1, "run.accepted", &body)
    }

    fn json(value: &impl Serialize) -> String {
        serde_json::to_string(value).unwrap()
    }

    const HEAD: &str = r#"{"run_id":"run-7","session_id":"s","agent_id":"agent-1","kind":"input""#;
    const REQUEST: &str = r#""request":{"source_plugin":"daemon","source_kind":"api","actor_id":"op","text_preview":"hi","provider":"main","model":"gpt-5.4"}"#;
    const STARTED: &str = r#"{"submitted_at_ms":1001,"started_at_ms":1002}"#;

    #[test]
    fn a_run_is_what_its_records_say() {
        let started = || record(2, "run.started", r#"{"submitted_at_ms":1001}"#);
        let output = || record(4, "run.output", r#"{"output":{"content":"a"}}"#);
        let failed = r#"{"submitted_at_ms":1001,"started_at_ms":1002,"error":{"code":"provider_auth","message":"no"}}"#;
        let resumed = r#"{"submitted_at_ms":1001,"started_at_ms":1002,"found":"model_call_in_flight"}"#;
        let action = || record(3, "external_action.request", r#"{"action":1}"#);
        let table: Vec<(&str, Vec<Record>, &str, &str)> = vec![
            (
                "queued",
                vec![accepted(2)],
                r#""status":"queued","submitted_at_ms":1001,"updated_at_ms":1001,"queued_position":2"#,
                "",
            ),
            (
                "accepted at once",
                vec![accepted(0)],
                r#""status":"queued","submitted_at_ms":1001,"updated_at_ms":1001"#,
                "",
            ),
            (
                "started",
                vec![accepted(2), started()],
                r#""status":"running","submitted_at_ms":1001,"updated_at_ms":1002,"started_at_ms":1002"#,
                "",
            ),
            (
                "completed",
                vec![accepted(0), started(), action(), output(), record(5, "run.completed", STARTED)],
                r#""status":"completed","submitted_at_ms":1001,"updated_at_ms":1005,"started_at_ms":1002,"finished_at_ms":1005"#,
                r#","outputs":[{"content":"a"}]"#,
            ),
            (
                "failed",
                vec![accepted(0), started(), record(5, "run.failed", failed)],
                r#""status":"failed","submitted_at_ms":1001,"updated_at_ms":1005,"started_at_ms":1002,"finished_at_ms":1005"#,
                r#","error":{"code":"provider_auth","message":"no"}"#,
            ),
            (
                "cancelled while queued",
                vec![accepted(1), record(5, "run.cancelled", r#"{"submitted_at_ms":1001,"reason":"x"}"#)],
                r#""status":"cancelled","submitted_at_ms":1001,"updated_at_ms":1005,"finished_at_ms":1005"#,
                "",
            ),
            (
                "interrupted",
                vec![accepted(1), started(), record(5, "run.interrupted", STARTED)],
                r#""status":"interrupted","submitted_at_ms":1001,"updated_at_ms":1005,"started_at_ms":1002,"finished_at_ms":1005"#,
                "",
            ),
            (
                "resumed after a restart",
                vec![accepted(0), started(), output(), record(6, "run.resumed", resumed)],
                r#""status":"running","submitted_at_ms":1001,"updated_at_ms":1006,"started_at_ms":1002"#,
                r#","outputs":[{"content":"a"}]"#,
            ),
        ];
        for (name, records, middle, end) in table {
            let expected = format!(r#"{HEAD},{middle},{REQUEST},"input_metadata":{{"t":1}}{end}}}"#);
            assert_eq!(json(&fold(&records).unwrap()), expected, "{name}");
            let lean_end = if end.contains("error") { end } else { "" };
            let lean_view = lean(&records[0], records.last().unwrap()).unwrap();
            assert_eq!(json(&lean_view), format!("{HEAD},{middle},{REQUEST}{lean_end}}}"), "{name}, lean");
        }
    }

    #[test]
    fn records_that_do_not_make_one_run_are_refused_with_the_position() {
        let foreign = Record { run: Some(RunId { number: 8, epoch: 0 }), ..record(2, "run.started", STARTED) };
        let table = [
            (vec![], "a run without records cannot be shown; next: run kheish-daemon journal verify"),
            (
                vec![record(2, "run.started", STARTED)],
                "record 2 is not the acceptance of a run; next: run kheish-daemon journal verify",
            ),
            (
                vec![accepted(0), foreign],
                "record 2 does not belong to the run being shown; next: run kheish-daemon journal verify",
            ),
            (
                vec![accepted(0), record(2, "run.completed", STARTED), record(3, "run.started", STARTED)],
                "record 3 changes a run that had ended; next: run kheish-daemon journal verify",
            ),
            (
                vec![accepted(0), record(4, "run.output", "{}")],
                "record 4 has unreadable content: missing field `output` at line 1 column 2; \
                 next: run kheish-daemon journal verify",
            ),
        ];
        for (records, expected) in table {
            assert_eq!(fold(&records).unwrap_err().to_string(), expected);
        }
        let damaged = fold(&[accepted(0), record(2, "run.failed", "{}")]).unwrap_err();
        assert!(matches!(damaged, ViewError::Body { seq: 2, .. }), "{damaged}");
    }

    #[test]
    fn an_event_list_has_one_entry_for_each_thing_that_happened() {
        let failed = r#"{"submitted_at_ms":1,"error":{"code":"c","message":"m"}}"#;
        let resumed = r#"{"submitted_at_ms":1,"found":"not_started"}"#;
        let stopped = r#"{"submitted_at_ms":1,"reason":"why"}"#;
        let records = [
            accepted(3),
            record(2, "run.started", STARTED),
            record(3, "message.appended", r#"{"role":"assistant"}"#),
            record(4, "external_action.request", "{}"),
            record(5, "run.resumed", resumed),
            record(6, "run.output", r#"{"output":{"content":"a"}}"#),
            record(7, "run.completed", STARTED),
            record(8, "run.failed", failed),
            record(9, "run.interrupted", STARTED),
            record(10, "run.cancelled", stopped),
        ];
        let entries = run_events(&records).unwrap();
        let expected = [
            (1_001, r#"{"type":"accepted"}"#),
            (1_001, r#"{"type":"queued","position":3}"#),
            (1_002, r#"{"type":"started"}"#),
            (1_005, r#"{"type":"resumed","found":"not_started"}"#),
            (1_006, r#"{"type":"output","output":{"content":"a"}}"#),
            (1_007, r#"{"type":"completed"}"#),
            (1_008, r#"{"type":"failed","error":{"code":"c","message":"m"}}"#),
            (1_009, r#"{"type":"interrupted"}"#),
            (1_010, r#"{"type":"cancelled","reason":"why"}"#),
        ]
        .map(|(at_ms, event)| {
            format!(
                r#"{{"timestamp_ms":{at_ms},"run_id":"run-7","session_id":"s","agent_id":"agent-1","event":{event}}}"#
            )
        });
        assert_eq!(entries.iter().map(json).collect::<Vec<_>>(), expected);
        let started_at_once = run_events(&[accepted(0)]).unwrap();
        assert_eq!(
            started_at_once.iter().map(|entry| json(&entry.event)).collect::<Vec<_>>(),
            [r#"{"type":"accepted"}"#]
        );
    }

    #[test]
    fn a_summary_and_a_lean_error_are_bounded_and_stay_text() {
        let long = "é".repeat(RUN_SUMMARY_TEXT_CHARS_MAX + 1);
        let body = format!(
            r#"{{"agent":"agent-1","kind":"input","position":0,"route":"{long}","model":"m","request":{{"content":"{long}","source_plugin":"{long}"}}}}"#
        );
        let accepted = record(1, "run.accepted", &body);
        let cut = format!("{}…", "é".repeat(RUN_SUMMARY_TEXT_CHARS_MAX - 1));
        let message = "é".repeat(SSE_ERROR_CUT_BYTES);
        let failed =
            format!(r#"{{"submitted_at_ms":1001,"error":{{"code":"provider_bad_answer","message":"{message}"}}}}"#);
        let failed = record(2, "run.failed", &failed);
        let view = lean(&accepted, &failed).unwrap();
        let expected = RunSummary {
            source_plugin: cut.clone(),
            source_kind: "api".to_string(),
            actor_id: None,
            text_preview: Some(cut.clone()),
            provider: Some(cut),
            model: Some("m".to_string()),
        };
        assert_eq!(view.request, expected);
        assert_eq!(view.error.unwrap().message, format!("{}…", "é".repeat(SSE_ERROR_CUT_BYTES / 2)));
        assert_eq!(fold(&[accepted, failed]).unwrap().error.unwrap().message, message, "the view itself is whole");
    }
}
