//! Approvals: list them, give and refuse them.
//! Owns: the routes that end in `/approvals` and `/approval-runs`.
//! Never: decides which approvals are open; the core does, in the batch that records the answer.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::call::Call;
use super::context::Api;
use super::json;
use super::paging::{Page, PageRequest};
use super::request_mac::RequestMac;
use super::runs;
use super::sessions::{SessionView, known};
use super::submit::{hash, idempotency_key};
use super::waiting::ApprovalView;
use crate::commit::WaitingQuery;
use crate::core::{Command, IdempotencyKey, Resolution, Target, WaitingRun, WaitsFor};
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::ids::{RunId, SessionId};
use crate::limits::{APPROVAL_BATCH_MAX, REASON_BYTES_MAX};
use crate::redaction;

/// Body of the routes that resolve approvals.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolveBody {
    idempotency_key: Option<String>,
    resolutions: Vec<ResolutionBody>,
}

/// One answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolutionBody {
    request_id: String,
    behavior: BehaviorBody,
    updated_input: Option<serde_json::Map<String, serde_json::Value>>,
    justification: Option<String>,
    reason: Option<String>,
}

/// `allow` or `deny`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BehaviorBody {
    /// The call may run.
    Allow,
    /// It may not.
    Deny,
}

/// An open approval in a list.
#[derive(Debug, Serialize)]
struct PendingApproval {
    session_id: SessionId,
    agent_id: String,
    run_id: RunId,
    #[serde(flatten)]
    approval: ApprovalView,
}

/// Words of an operator, bounded; blank is absent.
pub(super) fn words(field: &str, text: Option<String>) -> Result<Option<String>, Problem> {
    let text = text.map(|text| text.trim().to_string()).filter(|text| !text.is_empty());
    if text.as_ref().is_some_and(|text| text.len() > REASON_BYTES_MAX) {
        return Err(Problem::new(&codes::BAD_REQUEST, format!("{field} has more than {REASON_BYTES_MAX} bytes")));
    }
    Ok(text.map(|text| redaction::text(&text)))
}

/// Hashes that make a repeated answer find the first one: the key within what it is for, and what was said.
pub(super) fn answer_hashes(mac: &RequestMac, purpose: &str, target: &Target, key: &str, said: &str) -> IdempotencyKey {
    let target = match target {
        Target::Run(run) => format!("run {run}"),
        Target::Session(session) => format!("session {session}"),
    };
    IdempotencyKey { key: hash(purpose, &[&target, key]), fingerprint: mac.fingerprint("answer", &[said]) }
}

/// Cursor key of a waiting run: since when, and its number.
pub(super) fn waiting_key(run: &WaitingRun) -> String {
    format!("{}:{}", run.since_ms, run.position.id.number)
}

/// Reads [`waiting_key`] back.
pub(super) fn parse_waiting_key(key: &str) -> Result<(u64, u32), Problem> {
    let parts = key.split_once(':').and_then(|(since, number)| Some((since.parse().ok()?, number.parse().ok()?)));
    parts.ok_or_else(|| {
        Problem::new(&codes::INVALID_CURSOR, "the cursor names no waiting run; next: start without a cursor")
    })
}

/// One page of runs that wait, as the query asks.
pub(super) fn page_of(
    api: &Api,
    request: &PageRequest,
    waits_for: WaitsFor,
    session: Option<SessionId>,
) -> Result<(Vec<WaitingRun>, u64, Option<String>), Problem> {
    let after = request.after.as_deref().map(parse_waiting_key).transpose()?;
    let page = api.core.waiting(WaitingQuery { waits_for, session, after, limit: request.limit })?;
    let next = page.items.last().map(waiting_key).filter(|_| page.has_more);
    Ok((page.items, page.total, next))
}

fn listed(api: &Api, call: &Call, session: Option<SessionId>) -> Result<Response, Problem> {
    let request = PageRequest::read(&call.query)?;
    let (runs, total_count, next) = page_of(api, &request, WaitsFor::Approval, session)?;
    let mut items = Vec::new();
    for run in runs {
        for open in &run.step.approvals {
            let record = api.reader.read(open.seq)?;
            let approval =
                ApprovalView::of(&record).map_err(|error| Problem::new(&codes::INTERNAL_ERROR, error.to_string()))?;
            items.push(PendingApproval {
                session_id: run.position.session.clone(),
                agent_id: format!("agent-{}", run.session_number),
                run_id: run.position.id,
                approval,
            });
        }
    }
    Ok(Page { items, total_count, next, order: "waiting_since_ms_asc,run_id_asc" }.answer(&request))
}

/// `GET /v1/approvals`: a page counts runs; all open approvals of a run are on one page.
pub fn list(api: &Api, call: &Call) -> Result<Response, Problem> {
    listed(api, call, call.query.session("session_id"))
}

/// `GET /v1/sessions/{session_id}/approvals`.
pub fn list_of_session(api: &Api, call: &Call) -> Result<Response, Problem> {
    let session = call.session_id()?;
    known(api, &session)?;
    listed(api, call, Some(session))
}

fn resolve(api: &Api, call: &Call, target: Target) -> Result<RunId, Problem> {
    let body: ResolveBody = json::parse(&call.body)?;
    if body.resolutions.len() > APPROVAL_BATCH_MAX {
        let detail = format!("{} resolutions are more than {APPROVAL_BATCH_MAX}", body.resolutions.len());
        return Err(Problem::new(&codes::BAD_REQUEST, detail));
    }
    let key = idempotency_key(call.idempotency_key()?, body.idempotency_key.as_deref())?;
    let mut resolutions = Vec::with_capacity(body.resolutions.len());
    for resolution in body.resolutions {
        let allow = resolution.behavior == BehaviorBody::Allow;
        if !allow && resolution.updated_input.is_some() {
            let detail = "updated_input was given with a denial; next: leave it out, or allow the call";
            return Err(Problem::new(&codes::BAD_REQUEST, detail));
        }
        let updated_input = resolution.updated_input.map(|input| serde_json::Value::from(input).to_string());
        if updated_input.as_ref().is_some_and(|text| redaction::text(text) != *text) {
            // With a mask in it the call would be another one than the person meant.
            let detail = "updated_input holds a secret in plain text, which would be kept; next: leave it out";
            return Err(Problem::new(&codes::BAD_REQUEST, detail));
        }
        let updated_input = updated_input.map(|text| RawValue::from_string(text).expect("a serialised value is JSON"));
        resolutions.push(Resolution {
            id: resolution.request_id,
            allow,
            updated_input,
            justification: words("justification", resolution.justification)?,
            reason: words("reason", resolution.reason)?,
        });
    }
    let idempotency =
        key.map(|key| answer_hashes(&api.request_mac, "approvals", &target, &key, &format!("{resolutions:?}")));
    let command = Command::ResolveApprovals { target, resolutions, idempotency };
    decided_run(api.core.request(command, Some(call.actor()))?)
}

/// The run that an answer was for.
pub(super) fn decided_run(decision: crate::core::Decision) -> Result<RunId, Problem> {
    match decision {
        crate::core::Decision::Run { run, .. } => Ok(run),
        other => Err(Problem::new(&codes::INTERNAL_ERROR, format!("unexpected decision {other:?}"))),
    }
}

/// `POST /v1/runs/{run_id}/approvals`: answers 202 once the answers are durable.
pub fn resolve_of_run(api: &Api, call: &Call) -> Result<Response, Problem> {
    let run = resolve(api, call, Target::Run(call.run_id()?))?;
    Ok(Response::json(202, &runs::shown(api, run)?))
}

/// `POST /v1/sessions/{session_id}/approval-runs`: the same for the session's active run.
pub fn resolve_run_of_session(api: &Api, call: &Call) -> Result<Response, Problem> {
    let run = resolve(api, call, Target::Session(call.session_id()?))?;
    Ok(Response::json(202, &runs::shown(api, run)?))
}

/// `POST /v1/sessions/{session_id}/approvals`: the same, answered with the session.
pub fn resolve_of_session(api: &Api, call: &Call) -> Result<Response, Problem> {
    let session = call.session_id()?;
    resolve(api, call, Target::Session(session.clone()))?;
    Ok(Response::json(200, &SessionView::from(known(api, &session)?)))
}
