//! Deliveries: list, read, resend, resolve, drop, hold, and what holds targets back.
//! Owns: their wire types.
//! May touch: the core and the log.
//! Never: shows an address or a key; a target is shown by its hash.

use serde::{Deserialize, Serialize};

use super::call::Call;
use super::context::Api;
use super::delivery_history::of_records;
use super::paging::{Page, PageRequest, foreign_cursor, split_time_key, time_key};
use super::query::{Query, QueryKind, QueryParam};
use super::sessions;
use crate::core::{
    Body, Command, Decision, DeliveryCommand, DeliveryFilter, DeliveryItem, DeliveryPage, DeliveryQuery,
    DeliveryRecord, DeliveryStatus, ReplyPlugin, TargetKey,
};
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::ids::{DeliveryId, RunId, Seq, SessionId};
use crate::limits::{DELIVERY_BULK_DEFAULT, DELIVERY_BULK_MAX, DELIVERY_REASON_CHARS_MAX, LIST_ANSWER_BYTES_MAX};

/// Only deliveries to targets of this kind.
pub const PLUGIN: QueryParam = QueryParam {
    name: "plugin",
    kind: QueryKind::OneOf(&["http", "slack", "telegram", "external"]),
    summary: "Only deliveries to targets of this kind.",
};
/// Only deliveries in this state.
pub const STATUS: QueryParam = QueryParam {
    name: "status",
    kind: QueryKind::OneOf(&["pending", "retrying", "delivered", "dead_lettered"]),
    summary: "Only deliveries in this state.",
};
/// Again although it was sent again before.
pub const FORCE: QueryParam = QueryParam {
    name: "force",
    kind: QueryKind::Flag,
    summary: "true: send it although it was sent again before, under a new idempotency key.",
};

/// What a delivery looks like.
#[derive(Debug, Clone, Serialize)]
pub(super) struct DeliveryView {
    delivery_id: DeliveryId,
    status: DeliveryStatus,
    session_id: SessionId,
    run_id: RunId,
    plugin: ReplyPlugin,
    target: TargetKey,
    attempts: u32,
    queued_at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_lettered_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter_resolved_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter_resolution_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    terminal_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed_from_delivery_id: Option<DeliveryId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    content_size_bytes: usize,
    parts_count: usize,
    artifacts_count: usize,
}

#[derive(Deserialize)]
struct OutputRecord {
    output: Output,
}

#[derive(Default, Deserialize)]
struct Output {
    #[serde(default)]
    content: String,
    #[serde(default)]
    parts: Vec<serde::de::IgnoredAny>,
    #[serde(default)]
    artifacts: Vec<serde::de::IgnoredAny>,
}

fn record_of(api: &Api, seq: Seq) -> Result<Option<DeliveryRecord>, Problem> {
    if seq == 0 {
        return Ok(None);
    }
    let record = api.reader.read(seq)?;
    Ok(match Body::decode(&record.kind, &record.body) {
        Ok(Body::Delivery(record)) => Some(record),
        _ => None,
    })
}

pub(super) fn view(api: &Api, item: DeliveryItem, with_content: bool) -> Result<DeliveryView, Problem> {
    let row = item.delivery;
    let output = api.reader.read(row.output)?;
    let output =
        serde_json::from_str::<OutputRecord>(output.body.get()).map_or_else(|_| Output::default(), |r| r.output);
    let (error, is_final) = match record_of(api, row.last)? {
        Some(DeliveryRecord::Retrying(body)) => (Some(body.error), false),
        Some(DeliveryRecord::Dead(body)) => (Some(body.error), true),
        _ => (None, false),
    };
    let resolution = match record_of(api, row.resolved)? {
        Some(DeliveryRecord::Resolved(body)) => Some(body.reason),
        _ if row.resolved_at_ms != 0 => Some("delivered by a replay".to_string()),
        _ => None,
    };
    let at = |status| (row.status == status && row.at_ms != 0).then_some(row.at_ms);
    let terminal = error.as_ref().filter(|_| is_final);
    Ok(DeliveryView {
        delivery_id: row.id,
        status: row.status,
        session_id: item.session,
        run_id: item.run,
        plugin: row.target.plugin,
        target: row.target,
        attempts: row.attempts,
        queued_at_ms: row.queued_at_ms,
        next_attempt_at_ms: at(DeliveryStatus::Retrying),
        delivered_at_ms: at(DeliveryStatus::Delivered),
        dead_lettered_at_ms: at(DeliveryStatus::DeadLettered),
        dead_letter_resolved_at_ms: (row.resolved_at_ms != 0).then_some(row.resolved_at_ms),
        dead_letter_resolution_reason: resolution,
        terminal_error: terminal.map(|error| error.detail.clone().unwrap_or_else(|| error.class.clone())),
        http_status: error.as_ref().and_then(|error| error.http_status),
        last_error: error.map(|error| error.class),
        replayed_from_delivery_id: item.replayed_from,
        content_size_bytes: output.content.len(),
        parts_count: output.parts.len(),
        artifacts_count: output.artifacts.len(),
        content: with_content.then_some(output.content),
    })
}

fn filter(query: &Query) -> DeliveryFilter {
    let status = query.text(STATUS.name);
    DeliveryFilter {
        session: query.session("session_id"),
        run: query.run("run_id"),
        plugin: query.text(PLUGIN.name).and_then(ReplyPlugin::parse),
        status: status.and_then(|text| DeliveryStatus::ALL.into_iter().find(|status| status.as_str() == text)),
    }
}

/// `GET /v1/deliveries`.
pub fn list(api: &Api, call: &Call) -> Result<Response, Problem> {
    page(api, call, filter(&call.query))
}

/// `GET /v1/deliveries/dead-letter`.
pub fn dead_letters(api: &Api, call: &Call) -> Result<Response, Problem> {
    page(api, call, DeliveryFilter { status: Some(DeliveryStatus::DeadLettered), ..filter(&call.query) })
}

fn page(api: &Api, call: &Call, filter: DeliveryFilter) -> Result<Response, Problem> {
    let request = PageRequest::read(&call.query)?;
    let after = match request.after.as_deref() {
        None => None,
        Some(key) => {
            let (at_ms, id) = split_time_key(key)?;
            Some((at_ms, DeliveryId::parse(id).ok_or_else(foreign_cursor)?.number))
        }
    };
    let found = match filter.run {
        Some(run) => of_run(api, run, &filter, after, request.limit)?,
        None => api.core.deliveries(DeliveryQuery {
            filter,
            unresolved_only: false,
            without_replay: false,
            after,
            limit: request.limit,
        })?,
    };
    let (mut items, mut has_more, mut last) = (Vec::new(), found.has_more, None);
    for item in found.items {
        if items.len() * DELIVERY_VIEW_BYTES > LIST_ANSWER_BYTES_MAX {
            has_more = true;
            break;
        }
        last = Some(time_key(item.delivery.at_ms, &item.delivery.id));
        items.push(view(api, item, false)?);
    }
    let order = "delivery_time_asc,delivery_id_asc";
    Ok(Page { items, total_count: found.total, next: last.filter(|_| has_more), order }.answer(&request))
}

/// A page of one run's deliveries, however old they are.
fn of_run(
    api: &Api,
    run: RunId,
    filter: &DeliveryFilter,
    after: Option<(u64, u32)>,
    limit: usize,
) -> Result<DeliveryPage, Problem> {
    let Some(position) = api.core.run(run)? else { return Ok(DeliveryPage::default()) };
    let mut all = of_records(&position.session, run, &api.run_records(position.last_seq)?);
    all.retain(|item| {
        filter.session.as_ref().is_none_or(|session| *session == item.session)
            && filter.plugin.is_none_or(|plugin| plugin == item.delivery.target.plugin)
            && filter.status.is_none_or(|status| status == item.delivery.status)
    });
    let key = |item: &DeliveryItem| (item.delivery.at_ms, item.delivery.id.number);
    all.sort_by_key(key);
    let total = all.len() as u64;
    let mut behind = all.into_iter().filter(|item| after.is_none_or(|after| key(item) > after));
    let items = behind.by_ref().take(limit).collect();
    Ok(DeliveryPage { items, total, has_more: behind.next().is_some() })
}

/// A view's bytes, roughly, with the longest texts.
const DELIVERY_VIEW_BYTES: usize = 2 * 1024;

fn delivery_id(call: &Call) -> Result<DeliveryId, Problem> {
    let raw = call.param("delivery_id")?;
    DeliveryId::parse(&raw).ok_or_else(|| not_found(&raw))
}

fn not_found(id: &str) -> Problem {
    let id: String = id.chars().take(64).collect();
    Problem::new(
        &codes::DELIVERY_NOT_FOUND,
        format!("no delivery {id:?} is kept; next: list deliveries, those of an old run with --run-id"),
    )
}

fn found(api: &Api, id: DeliveryId) -> Result<DeliveryItem, Problem> {
    api.core.delivery(id)?.ok_or_else(|| not_found(&id.to_string()))
}

/// `GET /v1/deliveries/{delivery_id}`.
pub fn get(api: &Api, call: &Call) -> Result<Response, Problem> {
    let item = found(api, delivery_id(call)?)?;
    Ok(Response::json(200, &view(api, item, true)?))
}

fn decide(api: &Api, call: &Call, command: DeliveryCommand) -> Result<Decision, Problem> {
    Ok(api.core.request(Command::Delivery(Box::new(command)), Some(call.actor()))?)
}

fn unexpected(decision: &Decision) -> Problem {
    Problem::new(&codes::INTERNAL_ERROR, format!("unexpected decision {decision:?}"))
}

#[derive(Serialize)]
struct Replayed {
    replayed_from_delivery_id: DeliveryId,
    delivery: DeliveryView,
}

/// `POST /v1/deliveries/{delivery_id}/replay`.
pub fn replay(api: &Api, call: &Call) -> Result<Response, Problem> {
    call.no_fields()?;
    let (id, force) = (delivery_id(call)?, call.query.flag(FORCE.name));
    match decide(api, call, DeliveryCommand::Replay { id, force })? {
        Decision::Delivery(again, _) => {
            let delivery = view(api, found(api, again.id)?, false)?;
            Ok(Response::json(200, &Replayed { replayed_from_delivery_id: id, delivery }))
        }
        other => Err(unexpected(&other)),
    }
}

/// Body of `POST /v1/deliveries/{delivery_id}/resolve`; may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolveBody {
    reason: Option<String>,
}

/// `POST /v1/deliveries/{delivery_id}/resolve`: the first reason stays.
pub fn resolve(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: ResolveBody = call.json_or_default()?;
    let reason = sessions::reason(body.reason)?.unwrap_or_else(|| "operator resolved".to_string());
    let reason = api.broker.redact(&reason).chars().take(DELIVERY_REASON_CHARS_MAX).collect();
    let id = delivery_id(call)?;
    decide(api, call, DeliveryCommand::Resolve { id, reason })?;
    Ok(Response::json(200, &view(api, found(api, id)?, false)?))
}

/// Body of `POST /v1/deliveries/replay-bulk`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplayBulkBody {
    session_id: Option<String>,
    run_id: Option<String>,
    plugin: Option<String>,
    limit: Option<usize>,
    dry_run: bool,
    force: bool,
    unresolved_only: Option<bool>,
}

#[derive(Serialize)]
struct ReplayedBulk {
    dry_run: bool,
    force: bool,
    unresolved_only: bool,
    limit: usize,
    matched: u64,
    selected: usize,
    replayed: usize,
    existing_replays: usize,
    truncated: bool,
    items: Vec<ReplayedItem>,
}

#[derive(Serialize)]
struct ReplayedItem {
    replayed_from_delivery_id: DeliveryId,
    source: DeliveryView,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay: Option<DeliveryView>,
    action: &'static str,
}

fn plugin(raw: Option<&str>) -> Result<Option<ReplyPlugin>, Problem> {
    let unknown =
        || Problem::new(&codes::BAD_REQUEST, "plugin is unknown; next: use http, slack, telegram or external");
    raw.map(|text| ReplyPlugin::parse(text).ok_or_else(unknown)).transpose()
}

/// `POST /v1/deliveries/replay-bulk`.
pub fn replay_bulk(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: ReplayBulkBody = call.json_or_default()?;
    let bad = |what: &str| Problem::new(&codes::BAD_REQUEST, format!("{what}; next: correct it"));
    let session =
        body.session_id.as_deref().map(SessionId::parse).transpose().map_err(|error| bad(&error.to_string()))?;
    let run = match body.run_id.as_deref() {
        None => None,
        Some(raw) => Some(RunId::parse(raw).ok_or_else(|| bad("run_id is no run id"))?),
    };
    let filter = DeliveryFilter {
        session,
        run,
        plugin: plugin(body.plugin.as_deref())?,
        status: Some(DeliveryStatus::DeadLettered),
    };
    let unresolved_only = body.unresolved_only.unwrap_or(true);
    let limit = body.limit.unwrap_or(DELIVERY_BULK_DEFAULT).clamp(1, DELIVERY_BULK_MAX);
    let ask = |without_replay| {
        let filter = filter.clone();
        api.core.deliveries(DeliveryQuery { filter, unresolved_only, without_replay, after: None, limit })
    };
    let found_page = ask(false)?;
    // Those that are under way again already must not use up the limit of those that are not.
    let mut items = if body.force { Vec::new() } else { ask(true)?.items };
    let is_new = |item: &DeliveryItem| items.iter().all(|other| other.delivery.id != item.delivery.id);
    let others: Vec<_> = found_page.items.into_iter().filter(is_new).collect();
    items.extend(others);
    items.truncate(limit);
    let selected = items.len();
    let mut done = ReplayedBulk {
        dry_run: body.dry_run,
        force: body.force,
        unresolved_only,
        limit,
        matched: found_page.total,
        selected,
        replayed: 0,
        existing_replays: 0,
        truncated: found_page.has_more,
        items: Vec::with_capacity(selected),
    };
    for item in items {
        let id = item.delivery.id;
        let (action, replay) = if body.dry_run {
            ("would_replay", None)
        } else {
            match decide(api, call, DeliveryCommand::Replay { id, force: body.force }) {
                Ok(Decision::Delivery(again, true)) => ("existing_replay", Some(again.id)),
                Ok(Decision::Delivery(again, false)) => ("replayed", Some(again.id)),
                Ok(other) => return Err(unexpected(&other)),
                // What was sent again is told of; the caller comes back for the rest.
                Err(_) if !done.items.is_empty() => {
                    done.truncated = true;
                    break;
                }
                Err(problem) => return Err(problem),
            }
        };
        done.replayed += usize::from(action == "replayed");
        done.existing_replays += usize::from(action == "existing_replay");
        let replay = replay.map(|id| found(api, id).and_then(|item| view(api, item, false))).transpose()?;
        let source = view(api, item, false)?;
        done.items.push(ReplayedItem { replayed_from_delivery_id: id, source, replay, action });
    }
    Ok(Response::json(200, &done))
}

/// Body of `POST /v1/deliveries/drop`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropBody {
    older_than_ms: u64,
    #[serde(default)]
    include_waiting: bool,
}

#[derive(Serialize)]
struct Dropped {
    dropped: u32,
    truncated: bool,
}

/// `POST /v1/deliveries/drop`: dead letters of a certain age need nobody's attention any more.
pub fn drop_old(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: DropBody = call.json()?;
    let before_ms = api.clock.now_ms().saturating_sub(body.older_than_ms);
    let command = DeliveryCommand::Drop { before_ms, limit: DELIVERY_BULK_MAX, waiting: body.include_waiting };
    match decide(api, call, command)? {
        Decision::Settled { count } => {
            let truncated = count as usize >= DELIVERY_BULK_MAX;
            Ok(Response::json(200, &Dropped { dropped: count, truncated }))
        }
        other => Err(unexpected(&other)),
    }
}

/// Body of `POST /v1/deliveries/backpressure/reset`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResetBody {
    target: Option<String>,
    plugin: Option<String>,
    dry_run: bool,
}

#[derive(Serialize)]
struct ResetView {
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<TargetKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<ReplyPlugin>,
    matched: usize,
    removed: usize,
    targets: Vec<TargetKey>,
}

/// `POST /v1/deliveries/backpressure/reset`: targets that failed are tried at once.
pub fn reset_backpressure(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: ResetBody = call.json_or_default()?;
    let target = match body.target.as_deref() {
        None => None,
        Some(raw) => Some(TargetKey::parse(raw).ok_or_else(|| {
            Problem::new(&codes::BAD_REQUEST, "target is no target; next: copy it from a delivery's view")
        })?),
    };
    let plugin = plugin(body.plugin.as_deref())?;
    if target.is_none() && plugin.is_none() {
        let detail = "name a target or a plugin; next: see the target of a delivery's view";
        return Err(Problem::new(&codes::DELIVERY_BACKPRESSURE_SELECTOR_REQUIRED, detail));
    }
    let command = DeliveryCommand::ResetTargets { target, plugin, dry_run: body.dry_run };
    match decide(api, call, command)? {
        Decision::TargetsReset(targets) => {
            let (matched, removed) = (targets.len(), if body.dry_run { 0 } else { targets.len() });
            Ok(Response::json(200, &ResetView { dry_run: body.dry_run, target, plugin, matched, removed, targets }))
        }
        other => Err(unexpected(&other)),
    }
}

/// Body of `POST /v1/deliveries/hold`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldBody {
    held: bool,
    reason: Option<String>,
}

#[derive(Serialize)]
struct HoldView {
    held: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    since_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// `POST /v1/deliveries/hold`: nothing is sent while held.
pub fn hold(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: HoldBody = call.json()?;
    let reason = sessions::reason(body.reason)?;
    decide(api, call, DeliveryCommand::SetHold { held: body.held, reason })?;
    hold_view(api)
}

/// `GET /v1/deliveries/hold`.
pub fn get_hold(api: &Api, _: &Call) -> Result<Response, Problem> {
    hold_view(api)
}

fn hold_view(api: &Api) -> Result<Response, Problem> {
    let hold = api.core.delivery_hold()?;
    let view = HoldView {
        held: hold.is_some(),
        since_ms: hold.as_ref().map(|hold| hold.since_ms).filter(|since_ms| *since_ms != 0),
        reason: hold.and_then(|hold| hold.reason),
    };
    Ok(Response::json(200, &view))
}
