//! From an event of any connector to its run.
//! Owns: the session of an event, its key and fingerprint, the token that it costs, and the command that makes the run.
//! May touch: the registry; the core, without waiting but where a bucket is empty.
//! Never: looks at an event that was not verified.

use std::sync::Arc;

use ring::digest::{SHA256, digest};
use serde_json::{Map, Value};

use super::context::Api;
use super::reply_targets::require_no_secret;
use super::run_view::RunSummary;
use super::runs::{pin, redacted, store};
use super::submit::{SubmitInput, hash};
use crate::commit::CommandError;
use crate::connectors::config::ReplyHandle;
use crate::connectors::registry::Counters;
use crate::connectors::{Entry, SecretRef};
use crate::core::{
    Command, ConnectorCommand, ConnectorKind, Decision, IdempotencyKey, Ingest, IngestOutcome, Ingested, Refusal,
    RunReplyTarget,
};
use crate::delivery::{ReplyTargetInput, Trust};
use crate::hex::to_hex;
use crate::http::problem::{Code, Problem, codes};
use crate::ids::SessionId;
use crate::limits::{CONNECTOR_BINDING_KEY_BYTES_MAX, CONNECTOR_BINDING_KEYS_MAX, REPLY_TARGETS_MAX};
use crate::secret::Secret;

/// Metadata that only the daemon writes.
pub const RESERVED_METADATA: [&str; 4] =
    ["connector_ingress_key", "http_ingress_key", "http_ingress_key_sha256", "http_ingress_fingerprint"];

/// An event that was verified and read.
pub struct Event {
    /// Its connector.
    pub entry: Arc<Entry>,
    /// What tells it from all others of its connector; none for an http event without a key.
    pub id: Option<String>,
    /// What makes an equal event equal.
    pub content: Value,
    /// The session that it names itself.
    pub named_session: Option<String>,
    /// Keys that may name its session, most specific first.
    pub lookup_keys: Vec<String>,
    /// Keys that name its session from here on.
    pub bind_keys: Vec<String>,
    /// The session that it makes if nothing names one.
    pub natural_session: Option<String>,
    /// Which bucket pays for it.
    pub bucket: String,
    /// Where its run's output goes.
    pub reply_targets: Vec<ReplyHandle>,
    /// Whose word they are.
    pub trust: Trust,
    /// The submission.
    pub input: SubmitInput,
}

/// An event that is ready for the core.
pub struct Prepared {
    entry: Arc<Entry>,
    bucket: Option<String>,
    command: Command,
    /// What a view shows of the submission.
    pub summary: RunSummary,
}

/// Lower-case hex of SHA-256, the first `digits` of it.
pub fn sha256_hex(text: &str, digits: usize) -> String {
    let mut hex = to_hex(digest(&SHA256, text.as_bytes()).as_ref());
    hex.truncate(digits);
    hex
}

/// The connector of a path, if it is there.
///
/// # Errors
/// 404 `connector_unknown`.
pub fn find(api: &Api, kind: ConnectorKind, name: &str) -> Result<Arc<Entry>, Problem> {
    api.connectors.get(kind, name).ok_or_else(|| {
        Problem::new(&codes::CONNECTOR_UNKNOWN, "no connector of this kind has this name; next: check the URL")
    })
}

/// The present secret of a field; `None` where the connector has none.
///
/// # Errors
/// 503 `connector_secret_unavailable`; the caller is not told why.
pub fn secret(
    api: &Api,
    entry: &Entry,
    field: &str,
    source: Option<&SecretRef>,
) -> Result<Option<Arc<Secret>>, Problem> {
    match entry.secret(&api.broker, field, source, api.clock.now_ms()) {
        Ok(found) => Ok(found.map(|found| found.secret)),
        Err(error) => {
            log::warn!("{} connector {}: {field}: {error}", entry.kind, entry.name);
            let detail =
                "a secret of this connector cannot be had; next: see the daemon's log and the connector's view";
            Err(Problem::new(&codes::CONNECTOR_SECRET_UNAVAILABLE, detail).retry_after(5))
        }
    }
}

/// Refuses while nothing passes. After the caller is proven: others learn nothing of it.
///
/// # Errors
/// 503 `connectors_held`.
pub fn check_hold(api: &Api) -> Result<(), Problem> {
    match &api.connectors.table().hold {
        None => Ok(()),
        Some(hold) => {
            let refusal = Refusal::ConnectorsHeld { reason: hold.reason.clone() };
            Err(Problem::new(&codes::CONNECTORS_HELD, refusal.to_string()).retry_after(30))
        }
    }
}

/// A refusal of an event's content.
pub fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(&codes::EVENT_INVALID, detail)
}

/// Metadata of a run: what the event carried, and what tells the run's origin.
pub fn metadata(given: Option<Value>, wrap: &str, more: Vec<(&str, Value)>) -> Option<Value> {
    let mut fields = match given {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(fields)) => fields,
        Some(other) => Map::from_iter([(wrap.to_string(), other)]),
    };
    fields.extend(more.into_iter().map(|(name, value)| (name.to_string(), value)));
    Some(Value::Object(fields))
}

/// The key of an event's receipt: `http:<name>:<first 32 hex digits of the id's digest>`.
pub fn ingress_key(kind: ConnectorKind, name: &str, id: &str) -> String {
    format!("{kind}:{name}:{}", sha256_hex(id, 32))
}

impl Event {
    /// Checks the event, finds its session, takes its token.
    ///
    /// # Errors
    /// The problem that answers it; nothing was recorded.
    pub fn prepare(self, api: &Api) -> Result<Prepared, Problem> {
        let Self {
            entry,
            id,
            content,
            named_session,
            lookup_keys,
            bind_keys,
            natural_session,
            bucket,
            input,
            reply_targets,
            trust,
        } = self;
        let fixed = entry.settings.fixed_session_id().map(str::to_string);
        let reply_targets = targets(api, reply_targets, trust)?;
        let keys = digests(&lookup_keys)?;
        let bind = if fixed.is_some() { Vec::new() } else { digests(&bind_keys)? };
        let text = fixed.or(named_session).or_else(|| api.core.bound_session(&keys).map(|id| id.to_string()));
        let text = text.or(natural_session);
        let text = text.ok_or_else(|| {
            invalid("nothing names the event's session; next: send session_id or binding_keys, or set fixed_session_id")
        })?;
        let session = SessionId::parse(&text).map_err(|error| invalid(error.to_string()))?;
        let own = api.core.session_settings(&session);
        let mut input = input;
        super::assets::resolve(api, &mut input).map_err(as_event)?;
        let submission = input.check(None, own.as_deref()).map_err(as_event)?;
        let (route, model) = pin(api, own.as_deref(), &submission)?;
        let idempotency = id.as_deref().map(|id| IdempotencyKey {
            key: hash("connector", &[&ingress_key(entry.kind, &entry.name, id)]),
            fingerprint: api
                .request_mac
                .fingerprint("event", &[entry.kind.as_str(), &entry.name, &content.to_string()]),
        });
        let create = entry.settings.session_policy().create_if_missing;
        let paid = pay(api, &entry, &bucket, idempotency.as_ref())?;
        // Files stay for good: none is stored for an event that is known, or that finds no session.
        if !submission.files.is_empty() {
            let is_known = match &idempotency {
                Some(key) => api.core.run_of_key(key.key)?.is_some(),
                None => false,
            };
            if !is_known && !create && api.core.session(&session)?.is_none() {
                return Err(session_missing(&session));
            }
            if !is_known {
                store(api, &route, &submission.files)?;
            }
        }
        let (request, mut summary) = redacted(api, submission.request, submission.summary).map_err(as_event)?;
        summary.provider = Some(route.clone());
        summary.model = Some(model.clone());
        let ingest = Ingest { session, create, bind, request, route, model, idempotency, reply_targets };
        let command = Command::Connector(Box::new(ConnectorCommand::Ingest(ingest)));
        Ok(Prepared { entry, bucket: paid.then_some(bucket), command, summary })
    }
}

/// Targets as the core keeps them. Twice the same is one.
fn targets(api: &Api, handles: Vec<ReplyHandle>, trust: Trust) -> Result<Vec<RunReplyTarget>, Problem> {
    let mut targets = Vec::with_capacity(handles.len());
    for handle in handles {
        let target = ReplyTargetInput::raw(handle.plugin, handle.address).check(trust);
        let target = target.map_err(|error| invalid(error.to_string()))?;
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    if targets.len() > REPLY_TARGETS_MAX {
        return Err(invalid(format!("the event has more than {REPLY_TARGETS_MAX} reply targets")));
    }
    require_no_secret(api, &targets).map_err(|problem| invalid(problem.detail))?;
    Ok(targets)
}

fn digests(keys: &[String]) -> Result<Vec<[u8; 16]>, Problem> {
    if keys.len() > CONNECTOR_BINDING_KEYS_MAX {
        return Err(invalid(format!("the event has more than {CONNECTOR_BINDING_KEYS_MAX} binding keys")));
    }
    if keys.iter().any(|key| key.trim().is_empty() || key.len() > CONNECTOR_BINDING_KEY_BYTES_MAX) {
        let detail = format!("a binding key is blank or has more than {CONNECTOR_BINDING_KEY_BYTES_MAX} bytes");
        return Err(invalid(detail));
    }
    Ok(keys.iter().map(|key| hash("binding", &[key])).collect())
}

/// The refusals of a submission, as those of an event.
fn as_event(problem: Problem) -> Problem {
    let is_events = problem.code == &codes::BAD_REQUEST || problem.code == &codes::ASSET_NOT_FOUND;
    if is_events { invalid(problem.detail) } else { problem }
}

/// Takes a token, which an event that is only repeated gets back. Whether it was taken.
fn pay(api: &Api, entry: &Entry, bucket: &str, idempotency: Option<&IdempotencyKey>) -> Result<bool, Problem> {
    let Err(wait_ms) = entry.take_token(bucket, api.clock.now_ms()) else { return Ok(true) };
    // The core is asked only here, where the event would be refused.
    if let Some(key) = idempotency
        && api.core.run_of_key(key.key)?.is_some()
    {
        return Ok(false);
    }
    Counters::count(&entry.counters.rate_limited);
    let code: &'static Code = match entry.kind {
        ConnectorKind::Http => &codes::HTTP_INGRESS_RATE_LIMITED,
        ConnectorKind::External => &codes::EXTERNAL_INGRESS_RATE_LIMITED,
        ConnectorKind::Slack | ConnectorKind::Telegram => &codes::CHAT_INGRESS_RATE_LIMITED,
    };
    let seconds = u32::try_from(wait_ms.div_ceil(1_000).max(1)).unwrap_or(u32::MAX);
    let detail = format!("the connector takes {} events per second", entry.settings.events_per_second());
    Err(Problem::new(code, detail).retry_after(seconds).header("x-kheish-retry-after-ms", wait_ms.to_string()))
}

/// Called with what became of an event, on the core's thread: it must not block.
pub type Done = Box<dyn FnOnce(Result<Ingested, Problem>) + Send>;

impl Prepared {
    /// Hands the event to the core; `done` is called once what became of it is durable.
    pub fn submit(self, api: &Api, done: Done) {
        let Self { entry, bucket, command, .. } = self;
        api.core.submit(
            command,
            None,
            Box::new(move |decided| {
                let outcome = outcome(decided);
                let counter = match &outcome {
                    Ok(Ingested { outcome: IngestOutcome::Accepted { .. }, .. }) => &entry.counters.accepted,
                    Ok(Ingested { outcome: IngestOutcome::Duplicate(_), .. }) => &entry.counters.duplicate,
                    Ok(Ingested { outcome: IngestOutcome::Conflict, .. }) | Err(_) => &entry.counters.rejected,
                };
                Counters::count(counter);
                // Only the honest repetition is free: what is refused again and again costs a token each time.
                let is_repeated = matches!(&outcome, Ok(Ingested { outcome: IngestOutcome::Duplicate(_), .. }));
                if let Some(bucket) = bucket.filter(|_| is_repeated) {
                    entry.give_token_back(&bucket);
                }
                done(outcome);
            }),
        );
    }
}

fn session_missing(id: &SessionId) -> Problem {
    let detail = format!(
        "session {id} does not exist and the connector may not create it; next: create it, or set \
         session_policy.create_if_missing"
    );
    Problem::new(&codes::EVENT_SESSION_MISSING, detail)
}

fn outcome(decided: Result<Decision, CommandError>) -> Result<Ingested, Problem> {
    match decided {
        Ok(Decision::Ingested(ingested)) => Ok(*ingested),
        Ok(other) => Err(Problem::new(&codes::INTERNAL_ERROR, format!("unexpected decision {other:?}"))),
        Err(CommandError::Refused(Refusal::SessionNotFound(id))) => Err(session_missing(&id)),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_natural_ids_are_those_that_were_published() {
        assert_eq!(
            ingress_key(ConnectorKind::Http, "orders", "order-123"),
            "http:orders:3b6a198e6f182f27b91aa5a8b37ab70d"
        );
        assert_eq!(ingress_key(ConnectorKind::External, "x", "evt-1"), "external:x:7b409f932d2c88e97f0c17676c8420d3");
        assert_eq!(sha256_hex("customer:acme", 16), "d1320b76d9c98989");
    }
}
