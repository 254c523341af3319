//! Sessions: create, list, read, interrupt, end.
//! Owns: the routes below `/v1/sessions`, but the submission of runs.
//! Never: reads more of a session's history than a page.

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::call::{Call, Reply};
use super::context::Api;
use super::json;
use super::paging::{Page, PageRequest};
use super::run_events::{RunEventEntry, run_events};
use super::streams;
use crate::core::{Command, Decision, Order, RunQuery, SessionStatus, SessionView as CoreView};
use crate::hex::to_hex;
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::ids::{RunId, SessionId};
use crate::limits::{LIST_ANSWER_BYTES_MAX, REASON_BYTES_MAX, SESSION_EVENT_RUNS_MAX, THREAD_ID_BYTES_MAX};
use crate::redaction;
use crate::sse::{Scope, StreamSpec};

/// A session on the wire.
#[derive(Debug, Serialize)]
pub struct SessionView {
    /// Its id.
    pub session_id: SessionId,
    /// Its root agent.
    pub agent_id: String,
    /// What it is doing.
    pub status: SessionStatus,
    /// When it was created.
    pub created_at_ms: u64,
    /// Time of its newest record.
    pub updated_at_ms: u64,
    /// Whether it accepts no more input.
    pub ended: bool,
    /// The active run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_run_id: Option<RunId>,
    /// Open approvals of the active run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pending_approval_ids: Vec<String>,
    /// The open question of the active run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pending_question_ids: Vec<String>,
    /// Runs behind it.
    pub queued_run_count: u32,
    /// Runs ever accepted.
    pub run_count: u32,
}

impl From<CoreView> for SessionView {
    fn from(view: CoreView) -> Self {
        let session = view.session;
        Self {
            agent_id: format!("agent-{}", session.number),
            session_id: session.id,
            status: view.status,
            created_at_ms: session.created_at_ms,
            updated_at_ms: session.updated_at_ms,
            ended: session.ended,
            active_run_id: view.active,
            pending_approval_ids: view
                .waiting
                .iter()
                .flat_map(|run| &run.step.approvals)
                .map(|a| a.id.clone())
                .collect(),
            pending_question_ids: view
                .waiting
                .iter()
                .flat_map(|run| &run.step.question)
                .map(|q| q.id.clone())
                .collect(),
            queued_run_count: session.queue_runs,
            run_count: session.run_count,
        }
    }
}

/// Body of `POST /v1/sessions`; may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateBody {
    session_id: Option<String>,
    thread_id: Option<String>,
    persona_id: Option<String>,
    capability_scope: Option<serde_json::Value>,
    credential_scope: Option<serde_json::Value>,
}

/// The session, if it exists.
///
/// # Errors
/// 404 `session_not_found`, or the core could not be asked.
pub(super) fn known(api: &Api, id: &SessionId) -> Result<CoreView, Problem> {
    api.core.session(id)?.ok_or_else(|| {
        Problem::new(
            &codes::SESSION_NOT_FOUND,
            format!("unknown session {id}; next: create it with POST /v1/sessions or list them"),
        )
    })
}

/// `POST /v1/sessions`. An existing id is reused.
pub fn create(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: CreateBody = json::parse_or_default(&call.body)?;
    for (field, is_given) in [
        ("persona_id", body.persona_id.is_some()),
        ("capability_scope", body.capability_scope.is_some()),
        ("credential_scope", body.credential_scope.is_some()),
    ] {
        if is_given {
            return Err(Problem::new(
                &codes::UNSUPPORTED_FEATURE,
                format!("{field} is not supported by this daemon version; next: leave it out"),
            ));
        }
    }
    if body.thread_id.as_ref().is_some_and(|id| id.len() > THREAD_ID_BYTES_MAX || id.chars().any(char::is_control)) {
        let detail = format!("thread_id has at most {THREAD_ID_BYTES_MAX} bytes and no control characters");
        return Err(Problem::new(&codes::BAD_REQUEST, detail));
    }
    let id = match body.session_id {
        Some(raw) => {
            SessionId::parse(&raw).map_err(|error| Problem::new(&codes::INVALID_SESSION_ID, error.to_string()))?
        }
        None => generated_id()?,
    };
    api.core.request(Command::CreateSession { id: id.clone(), thread_id: body.thread_id }, Some(call.actor()))?;
    Ok(Response::json(201, &SessionView::from(known(api, &id)?)))
}

/// Twelve bytes that nobody has seen before.
///
/// # Errors
/// The system has none.
pub(super) fn random_bytes() -> Result<[u8; 12], Problem> {
    let mut bytes = [0u8; 12];
    SystemRandom::new().fill(&mut bytes).map_err(|_| {
        Problem::new(&codes::INTERNAL_ERROR, "the system's random source failed; next: check /dev/urandom")
    })?;
    Ok(bytes)
}

fn generated_id() -> Result<SessionId, Problem> {
    let bytes = random_bytes()?;
    Ok(SessionId::parse(&format!("session-{}", to_hex(&bytes))).expect("hex digits make a legal id"))
}

/// `GET /v1/sessions`.
pub fn list(api: &Api, call: &Call) -> Result<Response, Problem> {
    let request = PageRequest::read(&call.query)?;
    let after = match request.after.as_deref() {
        None => 0,
        Some(key) => key.strip_prefix("session:").and_then(|number| number.parse().ok()).ok_or_else(|| {
            Problem::new(&codes::INVALID_CURSOR, "the cursor does not name a session; next: start without a cursor")
        })?,
    };
    let page = api.core.sessions(after, request.limit)?;
    let last_key = page.items.last().map(|view| format!("session:{}", view.session.number));
    let items: Vec<SessionView> = page.items.into_iter().map(SessionView::from).collect();
    let next = last_key.filter(|_| page.has_more);
    Ok(Page { items, total_count: page.total, next, order: "created_at_ms_asc,session_id_asc" }.answer(&request))
}

/// `GET /v1/sessions/{session_id}`.
pub fn get(api: &Api, call: &Call) -> Result<Response, Problem> {
    Ok(Response::json(200, &SessionView::from(known(api, &call.session_id()?)?)))
}

#[derive(Serialize)]
struct SessionEvents {
    session: SessionView,
    daemon_outputs: Vec<Box<serde_json::value::RawValue>>,
    run_events: Vec<RunEventEntry>,
    /// Older runs exist whose events are not listed here.
    truncated: bool,
}

/// `GET /v1/sessions/{session_id}/events`: outputs and run events of the newest runs, oldest first.
pub fn events(api: &Api, call: &Call) -> Result<Response, Problem> {
    let id = call.session_id()?;
    let session = known(api, &id)?;
    let query = RunQuery { session: Some(id), order: Order::Descending, after: None, limit: SESSION_EVENT_RUNS_MAX };
    let page = api.core.runs(query)?;
    let internal = |error: super::run_view::ViewError| Problem::new(&codes::INTERNAL_ERROR, error.to_string());
    let (mut newest_first, mut bytes, mut truncated) = (Vec::new(), 0, page.has_more);
    for position in &page.items {
        let records = api.run_records(position.last_seq)?;
        let outputs = super::run_view::fold(&records).map_err(internal)?.outputs;
        bytes += outputs.iter().map(|output| output.get().len()).sum::<usize>();
        if bytes > LIST_ANSWER_BYTES_MAX && !newest_first.is_empty() {
            truncated = true;
            break;
        }
        newest_first.push((run_events(&records).map_err(internal)?, outputs));
    }
    let (entries, outputs): (Vec<_>, Vec<_>) = newest_first.into_iter().rev().unzip();
    let (mut run_events, daemon_outputs): (Vec<_>, _) = (entries.concat(), outputs.concat());
    run_events.sort_by_key(|entry| entry.timestamp_ms);
    let events = SessionEvents { session: session.into(), daemon_outputs, run_events, truncated };
    Ok(Response::json(200, &events))
}

/// `GET /v1/sessions/{session_id}/stream`.
pub fn stream(api: &Api, call: Call, reply: Reply) {
    streams::open(api, reply, || {
        if let Some(probe) = streams::probe_of(&call)? {
            return Ok(probe);
        }
        let session = known(api, &call.session_id()?)?.session;
        let mut spec = StreamSpec::new(Scope::Session(session.id), call.event_cursor()?);
        spec.last = Some(session.last_seq);
        Ok(spec)
    });
}

#[derive(Serialize)]
struct Interrupted {
    interrupted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_id: Option<RunId>,
    session: SessionView,
}

/// `POST /v1/sessions/{session_id}/interrupt`: stops the active run, if there is one.
pub fn interrupt(api: &Api, call: &Call) -> Result<Response, Problem> {
    let id = call.session_id()?;
    let _: json::NoFields = json::parse_or_default(&call.body)?;
    let decision = api.core.request(Command::InterruptSession { session: id.clone() }, Some(call.actor()))?;
    let Decision::Stopped { run, changed, .. } = decision else {
        return Err(Problem::new(&codes::INTERNAL_ERROR, format!("unexpected decision {decision:?}")));
    };
    let session = SessionView::from(known(api, &id)?);
    Ok(Response::json(200, &Interrupted { interrupted: changed, run_id: run, session }))
}

/// Body of `POST /v1/sessions/{session_id}/end`; may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndBody {
    reason: Option<String>,
}

/// `POST /v1/sessions/{session_id}/end`: interrupts the active run and cancels the queued ones.
pub fn end(api: &Api, call: &Call) -> Result<Response, Problem> {
    let id = call.session_id()?;
    let body: EndBody = json::parse_or_default(&call.body)?;
    api.core.request(Command::EndSession { session: id.clone(), reason: reason(body.reason)? }, Some(call.actor()))?;
    Ok(Response::json(200, &SessionView::from(known(api, &id)?)))
}

/// An operator's reason, bounded.
pub fn reason(raw: Option<String>) -> Result<Option<String>, Problem> {
    let reason = raw.map(|text| text.trim().to_string()).filter(|text| !text.is_empty());
    if reason.as_ref().is_some_and(|text| text.len() > REASON_BYTES_MAX) {
        return Err(Problem::new(&codes::BAD_REQUEST, format!("reason has more than {REASON_BYTES_MAX} bytes")));
    }
    Ok(reason.map(|text| redaction::text(&text)))
}
