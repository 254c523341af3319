//! Subjects, leases and revocations over HTTP.
//! Owns: the routes `subjects`, `leases` and `slots` below `/v1/runtime/auth`.
//! May touch: the broker; the core, to learn whether it knows a subject.
//! Never: lets a hindered journal stand in the way of a revocation; the broker's own log records who ordered it.

use serde::Deserialize;

use super::call::Call;
use super::context::Api;
use super::witness::Act;
use crate::broker::{BrokerError, LeaseFilter, Revocation, SlotId, SubjectId};
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::ids::SessionId;
use crate::redaction;

/// Body of a revocation.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    #[serde(default)]
    dry_run: Option<bool>,
    #[serde(default)]
    reason: Option<String>,
}

/// Body of a slot's revocation.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SlotOrder {
    #[serde(default)]
    dry_run: Option<bool>,
    #[serde(default)]
    keep_current: Option<bool>,
    #[serde(default)]
    reason: Option<String>,
}

/// Body of a reinstatement, and of a lease's revocation.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    #[serde(default)]
    reason: Option<String>,
}

fn subject_id(call: &Call) -> Result<SubjectId, Problem> {
    parse_subject(&call.param("subject_id")?)
}

fn parse_subject(raw: &str) -> Result<SubjectId, Problem> {
    SubjectId::parse(raw).map_err(|error| Problem::new(&codes::AUTH_SUBJECT_INVALID, error.to_string()))
}

/// Whether others than the broker know the subject. A core that does not answer knows nobody.
fn is_known(api: &Api, subject: &SubjectId) -> bool {
    let name = subject.name();
    match subject.kind() {
        "session" => SessionId::parse(name).is_ok_and(|id| matches!(api.core.session(&id), Ok(Some(_)))),
        "agent" => {
            let number = name.strip_prefix("agent-").and_then(|number| number.parse::<u64>().ok());
            number.is_some_and(|number| (1..=api.core.view().counts.sessions).contains(&number))
        }
        "route" => api.routes.iter().flat_map(|routes| routes.iter()).any(|route| route.id == name),
        "daemon" => true,
        _ => false,
    }
}

fn subject_not_found(subject: &SubjectId) -> Problem {
    Problem::new(&codes::AUTH_SUBJECT_NOT_FOUND, format!("nobody has seen subject {subject}"))
}

/// A revocation, witnessed by the journal where that can be; the broker's log names the caller in any case.
fn contained<T>(
    api: &Api,
    call: &Call,
    verb: &'static str,
    target: &str,
    change: impl FnOnce() -> Result<T, BrokerError>,
) -> Result<T, Problem> {
    let mut change = Some(change);
    let mut run = || change.take().map(|change| change().map_err(Problem::from));
    let act = Act { verb, target, containment: true };
    let witnessed = api.witnessed(&call.actor(), act, || {
        run().unwrap_or_else(|| Err(Problem::new(&codes::INTERNAL_ERROR, "the act was begun twice")))
    });
    match witnessed {
        // Not begun: nothing but the journal's record stood in the way.
        Err(problem) if problem.code == &codes::AUDIT_UNAVAILABLE => match run() {
            Some(changed) => {
                log::warn!("{verb} {target} goes on without the journal: {}", problem.detail);
                changed
            }
            None => Err(problem),
        },
        other => other,
    }
}

/// Words for the record, without what they should not hold.
fn masked(reason: Option<String>) -> Option<String> {
    reason.map(|text| redaction::text(&text))
}

/// `GET /v1/runtime/auth/subjects`.
pub fn subjects(api: &Api, _call: &Call) -> Result<Response, Problem> {
    Ok(Response::json(200, &api.broker.subjects(api.clock.now_ms())?))
}

/// `GET /v1/runtime/auth/subjects/{subject_id}`.
pub fn subject(api: &Api, call: &Call) -> Result<Response, Problem> {
    let subject = subject_id(call)?;
    let status = api.broker.subject(&subject, is_known(api, &subject), api.clock.now_ms())?;
    Ok(Response::json(200, &status.ok_or_else(|| subject_not_found(&subject))?))
}

/// `POST /v1/runtime/auth/subjects/{subject_id}/revoke`.
pub fn revoke_subject(api: &Api, call: &Call) -> Result<Response, Problem> {
    let subject = subject_id(call)?;
    let order: Order = call.json_or_default()?;
    let how = Revocation {
        dry_run: order.dry_run.unwrap_or_default(),
        known: is_known(api, &subject),
        reason: masked(order.reason),
        by: Some(call.actor()),
        ..Revocation::default()
    };
    let now_ms = api.clock.now_ms();
    let answer = match how.dry_run {
        true => api.broker.revoke_subject(&subject, how, now_ms)?,
        false => {
            let answer = contained(api, call, "subject.revoke", subject.as_str(), || {
                api.broker.revoke_subject(&subject, how, now_ms)
            });
            api.credentials_changed();
            answer?
        }
    };
    Ok(Response::json(200, &answer))
}

/// `POST /v1/runtime/auth/subjects/{subject_id}/reinstate`.
pub fn reinstate_subject(api: &Api, call: &Call) -> Result<Response, Problem> {
    let subject = subject_id(call)?;
    let words: Words = call.json_or_default()?;
    let how = Revocation {
        known: is_known(api, &subject),
        reason: masked(words.reason),
        by: Some(call.actor()),
        ..Revocation::default()
    };
    let act = Act { verb: "subject.reinstate", target: subject.as_str(), containment: false };
    let status = api.witnessed(&call.actor(), act, || {
        let status = api.broker.reinstate_subject(&subject, how, api.clock.now_ms())?;
        status.ok_or_else(|| subject_not_found(&subject))
    })?;
    api.credentials_changed();
    Ok(Response::json(200, &status))
}

/// `GET /v1/runtime/auth/leases`.
pub fn leases(api: &Api, call: &Call) -> Result<Response, Problem> {
    let filter = LeaseFilter {
        subject: call.query.text("subject_id").map(parse_subject).transpose()?,
        slot: call.query.text("slot_id").map(SlotId::parse).transpose()?,
        include_ended: call.query.text("all") == Some("true"),
    };
    Ok(Response::json(200, &api.broker.leases(filter, api.clock.now_ms())?))
}

/// `GET /v1/runtime/auth/leases/{lease_id}`.
pub fn lease(api: &Api, call: &Call) -> Result<Response, Problem> {
    let id = call.param("lease_id")?;
    let status = api.broker.lease_status(&id, api.clock.now_ms())?;
    Ok(Response::json(200, &status.ok_or_else(|| BrokerError::LeaseUnknown { id: shown(&id) })?))
}

/// `POST /v1/runtime/auth/leases/{lease_id}/revoke`.
pub fn revoke_lease(api: &Api, call: &Call) -> Result<Response, Problem> {
    let id = call.param("lease_id")?;
    let words: Words = call.json_or_default()?;
    let now_ms = api.clock.now_ms();
    if api.broker.lease_status(&id, now_ms)?.is_none() {
        return Err(BrokerError::LeaseUnknown { id: shown(&id) }.into());
    }
    let how = Revocation { reason: masked(words.reason), by: Some(call.actor()), ..Revocation::default() };
    let status = contained(api, call, "lease.revoke", &id, || api.broker.revoke_lease(&id, how, now_ms));
    // Also when it was not recorded: it is in force.
    api.sidecars.lease_revoked(&id);
    let status = status?;
    Ok(Response::json(200, &status))
}

/// `POST /v1/runtime/auth/slots/{secret_ref}/revoke`.
pub fn revoke_slot(api: &Api, call: &Call) -> Result<Response, Problem> {
    let slot = SlotId::parse(&call.param("secret_ref")?)?;
    let order: SlotOrder = call.json_or_default()?;
    let how = Revocation {
        dry_run: order.dry_run.unwrap_or_default(),
        keep_current: order.keep_current.unwrap_or_default(),
        reason: masked(order.reason),
        by: Some(call.actor()),
        ..Revocation::default()
    };
    let now_ms = api.clock.now_ms();
    let answer = match how.dry_run {
        true => api.broker.revoke_slot(&slot, how, now_ms)?,
        false => {
            let answer =
                contained(api, call, "slot.revoke", slot.as_str(), || api.broker.revoke_slot(&slot, how, now_ms));
            api.sidecars.slot_revoked(&slot);
            api.polls.interrupt();
            answer?
        }
    };
    Ok(Response::json(200, &answer))
}

/// A foreign text in a message: what an id may hold, and no more than one may have.
fn shown(id: &str) -> String {
    super::text::quote(id)
}
