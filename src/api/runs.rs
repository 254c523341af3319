//! Runs: submit, list, read, cancel.
//! Owns: the routes below `/v1/runs` and the submission of a run.
//! Never: waits for a run.

use std::io::ErrorKind;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::call::{Call, Reply};
use super::context::Api;
use super::delivery_history::of_records;
use super::paging::{Order, Page, PageRequest};
use super::reply_targets::require_no_secret;
use super::route_choice::{Level, choose};
use super::run_events::run_events;
use super::run_view::{RunSummary, RunView, fold};
use super::streams;
use super::submit::{Submission, SubmitInput, idempotency_hashes};
use super::{assets, deliveries, json};
use crate::actor::Actor;
use crate::blobs::BlobError;
use crate::commit::CommandError;
use crate::core::{Command, Decision, Order as CoreOrder, RunPosition, RunQuery, RunStatus, SessionSettings};
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::ids::{RunId, SessionId};
use crate::limits::LIST_ANSWER_BYTES_MAX;
use crate::sse::{Scope, StreamSpec};

/// `POST /v1/sessions/{session_id}/runs`: answers 202 once the run is durable.
pub fn submit(api: &Api, call: Call, reply: Reply) {
    match prepare(api, &call) {
        Err(problem) => reply.send(problem),
        Ok(prepared) => send_to_core(api, prepared, reply),
    }
}

struct Prepared {
    session: SessionId,
    command: Command,
    by: Actor,
    summary: RunSummary,
}

fn prepare(api: &Api, call: &Call) -> Result<Prepared, Problem> {
    let session = call.session_id()?;
    let mut input: SubmitInput = json::parse(&call.body)?;
    assets::resolve(api, &mut input)?;
    let own = api.core.session_settings(&session);
    let submission = input.check(call.idempotency_key()?, own.as_deref())?;
    let (route, model) = pin(api, own.as_deref(), &submission)?;
    let key = submission.idempotency_key.as_deref();
    let idempotency = key.map(|key| idempotency_hashes(&api.request_mac, &session, key, &submission));
    let Submission { request, summary, files, reply_targets, .. } = submission;
    require_no_secret(api, &reply_targets)?;
    store(api, &route, &files)?;
    let (request, mut summary) = redacted(api, request, summary)?;
    summary.provider = Some(route.clone());
    summary.model = Some(model.clone());
    let command = Command::SubmitRun { session: session.clone(), request, route, model, idempotency, reply_targets };
    Ok(Prepared { session, command, by: call.actor(), summary })
}

/// The files of a submission are durable before the record that names them. Not on the reactor: see the route's lane.
pub(super) fn store(api: &Api, route: &str, files: &[Vec<u8>]) -> Result<(), Problem> {
    let takes_files = |route: &crate::providers::Route| route.capabilities.multimodal_input;
    if !files.is_empty() && !api.routes.as_ref().and_then(|routes| routes.get(route)).is_some_and(|it| takes_files(it))
    {
        let detail = format!("route {route} takes no pictures and documents; next: choose another route");
        return Err(Problem::new(&codes::INPUT_NOT_SUPPORTED, detail));
    }
    files.iter().try_for_each(|bytes| keep(api, bytes))
}

/// Keeps a file among the blobs, durable.
pub(super) fn keep(api: &Api, bytes: &[u8]) -> Result<(), Problem> {
    let kept = api.blobs.put(bytes).map_err(|error| match &error {
        BlobError::Io { cause, .. } if cause.kind() == ErrorKind::StorageFull => {
            Problem::new(&codes::STORAGE_FULL, error.to_string())
        }
        _ => Problem::new(&codes::INTERNAL_ERROR, error.to_string()),
    });
    kept.map(drop)
}

/// A secret that somebody types must not reach the journal, nor a model by way of it: memory, disk and what the model is
/// told agree.
pub(super) fn redacted(
    api: &Api,
    request: Box<RawValue>,
    summary: RunSummary,
) -> Result<(Box<RawValue>, RunSummary), Problem> {
    let text = api.broker.redact(request.get());
    if text == request.get() {
        return Ok((request, summary));
    }
    let request = RawValue::from_string(text).map_err(|_| {
        Problem::new(&codes::BAD_REQUEST, "the submission holds a secret in a place where it cannot be left out")
    })?;
    Ok((request, summary.map_texts(|text| api.broker.redact(text))))
}

/// Route and model in force: what the caller asks for, else the session's own, else the operator's, else the routes
/// file's. A model holds only for the route that it was chosen with.
pub(super) fn pin(
    api: &Api,
    own: Option<&SessionSettings>,
    submission: &Submission,
) -> Result<(String, String), Problem> {
    let routes = api.routes.as_ref().ok_or_else(|| {
        Problem::new(&codes::ROUTE_NOT_READY, "no routes file was given; next: restart with --routes-file")
    })?;
    let view = api.core.view();
    let (operator, own) = (view.runtime.settings(), own.and_then(|own| own.route_policy.as_ref()));
    let chosen = choose(&[
        Level { route: submission.provider.as_deref(), model: submission.model.as_deref() },
        Level { route: own.and_then(|own| own.route_id.as_deref()), model: own.and_then(|own| own.model.as_deref()) },
        Level { route: operator.route_id.as_deref(), model: operator.model.as_deref() },
    ]);
    let route = match chosen.route {
        None => routes.default_route(),
        Some(id) => routes.get(id).ok_or_else(|| {
            Problem::new(
                &codes::ROUTE_UNKNOWN,
                format!("route {id:?} is not in the routes file; next: see GET /v1/runtime"),
            )
        })?,
    };
    let model: &str = chosen.model.unwrap_or(&route.default_model);
    let mut models = std::iter::once(model).chain(submission.fallback_model.as_deref());
    if let Some(model) = models.find(|model| !route.accepts_model(model)) {
        let detail =
            format!("route {} does not accept model {model:?}; next: set model_support in the routes file", route.id);
        return Err(Problem::new(&codes::ROUTE_NOT_READY, detail));
    }
    super::readiness::require_ready(api, route)?;
    Ok((route.id.clone(), model.to_string()))
}

fn send_to_core(api: &Api, prepared: Prepared, reply: Reply) {
    let Prepared { session, command, by, summary } = prepared;
    api.core.submit(command, Some(by), Box::new(move |decided| answer(decided, session, summary, reply)));
}

fn answer(decided: Result<Decision, CommandError>, session: SessionId, summary: RunSummary, reply: Reply) {
    match decided {
        Ok(Decision::Accepted { run, session_number, position, submitted_at_ms }) => {
            let view = fresh_view(run, session, session_number, position, submitted_at_ms, summary);
            reply.send(Response::json(202, &view));
        }
        Ok(Decision::Repeated { run, session_number, state }) => {
            reply.send(Response::json(202, &repeated_view(run, session, session_number, &state, summary)));
        }
        Ok(other) => {
            reply.send(Problem::new(&codes::INTERNAL_ERROR, format!("unexpected decision {other:?}")));
        }
        Err(error) => reply.send(Problem::from(error)),
    }
}

/// A run right after its acceptance, with its place in the queue; 0 when it started.
pub(super) fn fresh_view(
    run: RunId,
    session: SessionId,
    session_number: u32,
    position: u32,
    submitted_at_ms: u64,
    summary: RunSummary,
) -> RunView {
    let status = if position == 0 { RunStatus::Running } else { RunStatus::Queued };
    let mut view = accepted_view(run, session, session_number, status, submitted_at_ms, summary);
    view.started_at_ms = (position == 0).then_some(submitted_at_ms);
    view.queued_position = (position != 0).then_some(position);
    view
}

/// The run of an earlier, equal submission. Equal fingerprints mean an equal request, but the route and model in force may
/// have changed since, and the run's own are in the log, which this thread must not read.
pub(super) fn repeated_view(
    run: RunId,
    session: SessionId,
    session_number: u32,
    state: &crate::core::Run,
    summary: RunSummary,
) -> RunView {
    let summary = RunSummary { provider: None, model: None, ..summary };
    let mut view = accepted_view(run, session, session_number, state.status, state.submitted_at_ms, summary);
    view.updated_at_ms = state.updated_at_ms;
    view.started_at_ms = (state.started_at_ms != 0).then_some(state.started_at_ms);
    view.finished_at_ms = state.status.is_terminal().then_some(state.updated_at_ms);
    view
}

/// A run right after its acceptance. Outputs and an error, which a repeated submission may already have, are
/// shown by `GET /v1/runs/{run_id}`.
fn accepted_view(
    run_id: RunId,
    session_id: SessionId,
    session_number: u32,
    status: RunStatus,
    submitted_at_ms: u64,
    request: RunSummary,
) -> RunView {
    RunView {
        run_id,
        session_id,
        agent_id: format!("agent-{session_number}"),
        kind: "input".to_string(),
        status,
        submitted_at_ms,
        updated_at_ms: submitted_at_ms,
        started_at_ms: None,
        finished_at_ms: None,
        queued_position: None,
        request,
        input_attachments: Vec::new(),
        input_metadata: None,
        pending_approval_ids: Vec::new(),
        pending_approvals: Vec::new(),
        pending_question_ids: Vec::new(),
        pending_questions: Vec::new(),
        outputs: Vec::new(),
        failovers: Vec::new(),
        deliveries: Vec::new(),
        error: None,
    }
}

/// The view of a run that is known to exist.
pub fn view_of(api: &Api, position: &RunPosition) -> Result<RunView, Problem> {
    let records = api.run_records(position.last_seq)?;
    let mut view = fold(&records).map_err(|error| Problem::new(&codes::INTERNAL_ERROR, error.to_string()))?;
    view.queued_position = position.queued_position;
    let deliveries = of_records(&view.session_id, view.run_id, &records);
    view.deliveries =
        deliveries.into_iter().map(|item| deliveries::view(api, item, false)).collect::<Result<_, Problem>>()?;
    Ok(view)
}

fn position(api: &Api, id: RunId) -> Result<RunPosition, Problem> {
    api.core.run(id)?.ok_or_else(|| not_found(id))
}

/// The run as it stands now.
///
/// # Errors
/// 404 `run_not_found`, or its records cannot be read.
pub(super) fn shown(api: &Api, id: RunId) -> Result<RunView, Problem> {
    view_of(api, &position(api, id)?)
}

fn not_found(id: RunId) -> Problem {
    Problem::new(&codes::RUN_NOT_FOUND, format!("unknown run {id}; next: list runs"))
}

/// `GET /v1/runs/{run_id}`.
pub fn get(api: &Api, call: &Call) -> Result<Response, Problem> {
    let position = position(api, call.run_id()?)?;
    Ok(Response::json(200, &view_of(api, &position)?))
}

/// `GET /v1/runs/{run_id}/events`.
pub fn events(api: &Api, call: &Call) -> Result<Response, Problem> {
    let position = position(api, call.run_id()?)?;
    let records = api.run_records(position.last_seq)?;
    let entries = run_events(&records).map_err(|error| Problem::new(&codes::INTERNAL_ERROR, error.to_string()))?;
    Ok(Response::json(200, &entries))
}

/// `GET /v1/runs/{run_id}/stream`.
pub fn stream(api: &Api, call: Call, reply: Reply) {
    streams::open(api, reply, || {
        if let Some(probe) = streams::probe_of(&call)? {
            return Ok(probe);
        }
        let position = position(api, call.run_id()?)?;
        let mut spec = StreamSpec::new(Scope::Run(position.id), call.event_cursor()?);
        spec.last = Some(position.last_seq);
        Ok(spec)
    });
}

/// `GET /v1/runs`. Without a page, `limit` keeps the newest runs and shows them oldest first. An answer that would pass
/// [`LIST_ANSWER_BYTES_MAX`] has fewer runs.
pub fn list(api: &Api, call: &Call) -> Result<Response, Problem> {
    let request = PageRequest::read(&call.query)?;
    let after = match request.after.as_deref() {
        None => None,
        Some(key) => Some(run_of_sort_key(key)?),
    };
    let newest_first = !request.envelope || request.order == Order::Descending;
    let query = RunQuery {
        session: call.query.session("session_id"),
        order: if newest_first { CoreOrder::Descending } else { CoreOrder::Ascending },
        after,
        limit: request.limit,
    };
    let page = api.core.runs(query)?;
    let (mut items, mut bytes, mut has_more, mut last_key) = (Vec::new(), 0, page.has_more, None);
    for position in &page.items {
        let view = view_of(api, position)?;
        bytes += open_ended_bytes(&view);
        if bytes > LIST_ANSWER_BYTES_MAX && !items.is_empty() {
            has_more = true;
            break;
        }
        items.push(view);
        last_key = Some(sort_key(position));
    }
    if !request.envelope {
        items.reverse();
    }
    let order = match request.order {
        Order::Ascending => "submitted_at_ms_asc,run_id_asc",
        Order::Descending => "submitted_at_ms_desc,run_id_desc",
    };
    Ok(Page { items, total_count: page.total, next: last_key.filter(|_| has_more), order }.answer(&request))
}

/// Bytes of those parts of a view that are as long as their author likes.
fn open_ended_bytes(view: &RunView) -> usize {
    view.outputs.iter().chain(&view.input_metadata).map(|part| part.get().len()).sum()
}

/// Zero-padded, so that keys sort as text; the run id alone finds the place again.
fn sort_key(position: &RunPosition) -> String {
    format!("{:020}:{}", position.submitted_at_ms, position.id)
}

fn run_of_sort_key(key: &str) -> Result<RunId, Problem> {
    key.split_once(':').and_then(|(_, id)| RunId::parse(id)).ok_or_else(|| {
        Problem::new(&codes::INVALID_CURSOR, "the cursor does not name a run; next: start again without a cursor")
    })
}

/// Body of `POST /v1/runs/{run_id}/cancel`; may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelBody {
    reason: Option<String>,
}

/// `POST /v1/runs/{run_id}/cancel`. A run that has ended is shown as it is.
pub fn cancel(api: &Api, call: &Call) -> Result<Response, Problem> {
    let run = call.run_id()?;
    let body: CancelBody = json::parse_or_default(&call.body)?;
    api.core.request(Command::CancelRun { run, reason: super::sessions::reason(body.reason)? }, Some(call.actor()))?;
    Ok(Response::json(200, &view_of(api, &position(api, run)?)?))
}

/// Body of `POST /v1/runtime/hold`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldBody {
    held: bool,
    reason: Option<String>,
}

impl HoldBody {
    /// What is asked for, with the reason bounded.
    ///
    /// # Errors
    /// The reason is too long.
    pub(super) fn into_parts(self) -> Result<(bool, Option<String>), Problem> {
        Ok((self.held, super::sessions::reason(self.reason)?))
    }
}

#[derive(Serialize)]
struct HoldView {
    held: bool,
}

/// `POST /v1/runtime/hold`: queued runs stay queued while held.
pub fn hold(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: HoldBody = json::parse(&call.body)?;
    api.core.request(
        Command::SetHold { held: body.held, reason: super::sessions::reason(body.reason)? },
        Some(call.actor()),
    )?;
    Ok(Response::json(200, &HoldView { held: body.held }))
}
