//! Ingress of external connectors, and the credentials of their sidecars.
//! Owns: the protocol of events, single and in batches; docs/operators/connectors.md describes it.
//! May touch: what `connector_events` does; the broker, for one credential.
//! Never: answers a malformed event with more than its rejection, or shows a credential without a live lease.

use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::connector_events::{
    Event, Prepared, RESERVED_METADATA, check_hold, find, ingress_key, invalid, metadata, secret, sha256_hex,
};
use super::connector_http::{self, unproven};
use super::context::Api;
use super::json;
use super::submit::SubmitInput;
use crate::broker::BrokerError;
use crate::connectors::config::{ExternalConfig, ReplyHandle};
use crate::connectors::registry::Counters;
use crate::connectors::signature::{bearer, verify_bearer};
use crate::connectors::{Entry, Settings};
use crate::core::{ConnectorKind, IngestOutcome, Ingested};
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::limits::{
    CONNECTOR_ATTACHMENTS_MAX, CONNECTOR_BATCH_EVENTS_MAX, CONNECTOR_CONTENT_BYTES_MAX, CONNECTOR_INPUT_ITEMS_MAX,
    CONNECTOR_PATH_SEGMENTS_MAX,
};

/// One event. Unknown members are ignored; null is as good as absent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fields {
    instance_id: Option<String>,
    event_id: Option<String>,
    fingerprint: Option<String>,
    occurred_at_ms: Option<u64>,
    actor_id: Option<String>,
    source_kind: Option<String>,
    intent: Option<String>,
    relation: Option<Relation>,
    thread: Option<Thread>,
    routing_key: Option<String>,
    content: Option<String>,
    input_items: Option<Vec<Value>>,
    attachments: Option<Vec<Value>>,
    reply_route: Option<String>,
    metadata: Option<Value>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Relation {
    kind: String,
    target_event_id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Thread {
    path: Vec<String>,
}

/// What became of one event.
#[derive(Debug, Clone, Default, Serialize)]
struct Outcome {
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

#[derive(Serialize)]
struct Outcomes<'a> {
    results: &'a [Outcome],
}

/// The connector of the path, once its caller is proven.
fn proven(api: &Api, call: &Call) -> Result<Arc<Entry>, Problem> {
    let entry = find(api, ConnectorKind::External, &call.param("name")?)?;
    let Settings::External(config) = &entry.settings else { unreachable!("found by kind") };
    if let Some(token) = secret(api, &entry, "shared_token", config.shared_token.as_ref())? {
        verify_bearer(&call.head, &token).map_err(|what| unproven(&entry, what, true))?;
    }
    check_hold(api)?;
    Ok(entry)
}

/// `POST /v1/connectors/external/{name}/events`.
pub fn event(api: &Api, call: Call, reply: Reply) {
    let read = proven(api, &call).and_then(|entry| {
        let value: Value = json::parse(&call.body).map_err(|problem| invalid(problem.detail))?;
        Ok((entry, value))
    });
    let (entry, value) = match read {
        Ok(read) => read,
        Err(problem) => return reply.refuse(problem),
    };
    let version = value.get("protocol_version").cloned();
    let id = value["event_id"].as_str().map(str::to_string);
    match prepare(api, &entry, value, version.as_ref()) {
        Err(problem) if is_rejection(&problem) => {
            Counters::count(&entry.counters.rejected);
            reply.refused_with(problem.code, Response::json(200, &rejected(id, &problem)));
        }
        Err(problem) => reply.refuse(problem),
        Ok(prepared) => prepared.submit(
            api,
            Box::new(move |outcome| match outcome {
                Ok(ingested) => {
                    let is_conflict = ingested.outcome == IngestOutcome::Conflict;
                    let response = Response::json(200, &ingested_outcome(id, &ingested));
                    match is_conflict {
                        true => reply.refused_with(&codes::EVENT_CONFLICT, response),
                        false => reply.send(response),
                    }
                }
                Err(problem) => reply.refuse(problem),
            }),
        ),
    }
}

/// Results of a batch as they come in, and the reply that the last one sends.
struct Gathering {
    results: Vec<Option<Outcome>>,
    reply: Option<Reply>,
}

impl Gathering {
    fn put(shared: &Mutex<Self>, index: usize, outcome: Outcome) {
        let mut gathering = shared.lock().unwrap_or_else(PoisonError::into_inner);
        gathering.results[index] = Some(outcome);
        if gathering.results.iter().any(Option::is_none) {
            return;
        }
        let results: Vec<Outcome> = gathering.results.drain(..).flatten().collect();
        if let Some(reply) = gathering.reply.take() {
            let response = Response::json(200, &Outcomes { results: &results });
            match results.iter().any(|result| result.status == "rejected") {
                true => reply.refused_with(&codes::EVENT_INVALID, response),
                false => reply.send(response),
            }
        }
    }
}

/// `POST /v1/connectors/external/{name}/events/batch`: each event for itself, in order.
pub fn batch(api: &Api, call: Call, reply: Reply) {
    let read = proven(api, &call).and_then(|entry| {
        let mut value: Value = json::parse(&call.body).map_err(|problem| invalid(problem.detail))?;
        let Some(Value::Array(events)) = value.get_mut("events").map(Value::take) else {
            return Err(invalid("a batch is an object with the array events"));
        };
        if events.len() > CONNECTOR_BATCH_EVENTS_MAX {
            return Err(invalid(format!("a batch has at most {CONNECTOR_BATCH_EVENTS_MAX} events")));
        }
        Ok((entry, value.get("protocol_version").cloned(), events))
    });
    let (entry, version, events) = match read {
        Ok(read) => read,
        Err(problem) => return reply.refuse(problem),
    };
    if events.is_empty() {
        return reply.send(Response::json(200, &Outcomes { results: &[] }));
    }
    let results = vec![None; events.len()];
    let shared = Arc::new(Mutex::new(Gathering { results, reply: Some(reply) }));
    for (index, value) in events.into_iter().enumerate() {
        let id = value["event_id"].as_str().map(str::to_string);
        match prepare(api, &entry, value, version.as_ref()) {
            Err(problem) => {
                if is_rejection(&problem) {
                    Counters::count(&entry.counters.rejected);
                }
                Gathering::put(&shared, index, failed(id, &problem));
            }
            Ok(prepared) => {
                let shared = shared.clone();
                prepared.submit(
                    api,
                    Box::new(move |outcome| {
                        let outcome = match outcome {
                            Ok(ingested) => ingested_outcome(id, &ingested),
                            Err(problem) => failed(id, &problem),
                        };
                        Gathering::put(&shared, index, outcome);
                    }),
                );
            }
        }
    }
}

fn ingested_outcome(event_id: Option<String>, ingested: &Ingested) -> Outcome {
    let (status, reason) = match &ingested.outcome {
        IngestOutcome::Accepted { .. } => ("accepted", None),
        IngestOutcome::Duplicate(_) => ("duplicate", None),
        IngestOutcome::Conflict => {
            ("rejected", Some("an earlier event had this event_id and other content".to_string()))
        }
    };
    let (session_id, run_id) = (Some(ingested.session.to_string()), Some(ingested.run.to_string()));
    Outcome { event_id, status, session_id, run_id, reason, retry_after_ms: None }
}

/// Whether an event is refused for what it says: that is told with status 200, so that a sidecar does not try again.
fn is_rejection(problem: &Problem) -> bool {
    [&codes::EVENT_INVALID, &codes::UNSUPPORTED_FEATURE, &codes::PAYLOAD_TOO_LARGE]
        .iter()
        .any(|code| std::ptr::eq(*code, problem.code))
}

fn rejected(event_id: Option<String>, problem: &Problem) -> Outcome {
    let reason = match std::ptr::eq(problem.code, &codes::EVENT_INVALID) {
        true => problem.detail.clone(),
        false => format!("{}: {}", problem.code.code, problem.detail),
    };
    Outcome { event_id, status: "rejected", reason: Some(reason), ..Outcome::default() }
}

/// A failed event of a batch.
fn failed(event_id: Option<String>, problem: &Problem) -> Outcome {
    if is_rejection(problem) {
        return rejected(event_id, problem);
    }
    if problem.code.status == 429 {
        let wait = problem.headers.iter().find(|(name, _)| *name == "x-kheish-retry-after-ms");
        let retry_after_ms = wait.and_then(|(_, ms)| ms.parse().ok());
        let reason = Some(problem.detail.clone());
        return Outcome { event_id, status: "rate_limited", reason, retry_after_ms, ..Outcome::default() };
    }
    let reason = Some(format!("{}: {}", problem.code.code, problem.detail));
    Outcome { event_id, status: "error", reason, ..Outcome::default() }
}

fn prepare(api: &Api, entry: &Arc<Entry>, value: Value, version: Option<&Value>) -> Result<Prepared, Problem> {
    let version = match version {
        None | Some(Value::Null) => 2,
        Some(version) => match version.as_u64() {
            Some(version @ 1..=2) => version,
            // Sidecars look for exactly these words and go on with another version.
            _ => return Err(invalid(format!("unsupported protocol_version {version}; 1 and 2 are known"))),
        },
    };
    let Settings::External(config) = &entry.settings else { unreachable!("found by kind") };
    let running = entry.settings.child().and_then(|_| api.sidecars.status(&entry.name)).and_then(|s| s.instance_id);
    build(entry, config, value, version, running.as_deref())?.prepare(api)
}

fn named(field: &str, text: Option<String>) -> Result<Option<String>, Problem> {
    match text {
        Some(text) if text.trim().is_empty() => Err(invalid(format!("{field} is blank"))),
        text => Ok(text),
    }
}

fn build(
    entry: &Arc<Entry>,
    config: &ExternalConfig,
    mut value: Value,
    version: u64,
    running: Option<&str>,
) -> Result<Event, Problem> {
    if !value.is_object() {
        return Err(invalid("an event is an object"));
    }
    let fields: Fields = serde_json::from_value(value.clone())
        .map_err(|_| invalid("a field of the event has another type than its name says"))?;
    let instance = named("instance_id", fields.instance_id)?.ok_or_else(|| invalid("there is no instance_id"))?;
    let event_id = named("event_id", fields.event_id)?.ok_or_else(|| invalid("there is no event_id"))?;
    if running.is_some_and(|running| running != instance) {
        return Err(invalid("instance_id is not that of the running sidecar"));
    }
    let intent = named("intent", fields.intent)?;
    let routing_key = named("routing_key", fields.routing_key)?;
    if let Some(relation) = &fields.relation
        && (relation.kind.trim().is_empty() || relation.target_event_id.trim().is_empty())
    {
        return Err(invalid("a part of relation is blank"));
    }
    let content = fields.content.unwrap_or_default();
    if content.len() > CONNECTOR_CONTENT_BYTES_MAX {
        return Err(invalid(format!("content has more than {CONNECTOR_CONTENT_BYTES_MAX} bytes")));
    }
    let items = fields.input_items.unwrap_or_default();
    let attachments = fields.attachments.unwrap_or_default();
    if items.len() > CONNECTOR_INPUT_ITEMS_MAX || attachments.len() > CONNECTOR_ATTACHMENTS_MAX {
        let detail = format!(
            "an event has at most {CONNECTOR_INPUT_ITEMS_MAX} input_items and {CONNECTOR_ATTACHMENTS_MAX} attachments"
        );
        return Err(invalid(detail));
    }
    // Four digits of base64 are three bytes.
    let is_large = |item: &Value| {
        item["content_base64"].as_str().is_some_and(|text| text.len() / 4 * 3 > CONNECTOR_CONTENT_BYTES_MAX + 3)
    };
    if attachments.iter().chain(&items).any(is_large) {
        return Err(invalid(format!("a file has more than {CONNECTOR_CONTENT_BYTES_MAX} bytes")));
    }
    let has_items = !items.is_empty();
    let (inputs, files) = (connector_http::items(items)?, connector_http::items(attachments)?);
    let path = fields.thread.unwrap_or_default().path;
    if path.len() > CONNECTOR_PATH_SEGMENTS_MAX || path.iter().any(|segment| segment.trim().is_empty()) {
        let detail = format!("thread.path has more than {CONNECTOR_PATH_SEGMENTS_MAX} segments, or a blank one");
        return Err(invalid(detail));
    }
    if let Some(Value::Object(given)) = &fields.metadata
        && let Some(name) = RESERVED_METADATA.iter().find(|name| given.contains_key(**name))
    {
        return Err(invalid(format!("metadata.{name} is written by the daemon only")));
    }
    let (natural, mut lookup) = names(entry, config, &path, routing_key.as_deref());
    let mut bind: Vec<String> = lookup.first().cloned().into_iter().collect();
    bind.extend(config.additional_binding_keys.iter().cloned());
    lookup.extend(config.additional_binding_keys.iter().cloned());
    let mut reply_targets = Vec::new();
    if let Some(route) = fields.reply_route.filter(|route| !route.trim().is_empty() && config.include_self_output) {
        let address = json!({"connector": entry.name, "route": route}).to_string();
        reply_targets.push(ReplyHandle { plugin: "external".to_string(), address });
    }
    reply_targets.extend(config.additional_reply_targets.iter().cloned());
    let object = value.as_object_mut().expect("looked at above");
    // A sidecar that was started anew sends an event again under its new name and perhaps in another version.
    object.remove("instance_id");
    object.remove("protocol_version");
    let mut more = vec![
        ("external_instance_id", json!(instance)),
        ("external_event_id", json!(event_id)),
        ("connector_ingress_key", json!(ingress_key(entry.kind, &entry.name, event_id.trim()))),
        ("external_event_key_sha256", json!(sha256_hex(event_id.trim(), 64))),
        ("external_event_fingerprint", json!(sha256_hex(&value.to_string(), 64))),
        ("external_protocol_version", json!(version)),
    ];
    more.extend(fields.occurred_at_ms.map(|at_ms| ("occurred_at_ms", json!(at_ms))));
    more.extend(intent.map(|intent| ("external_intent", json!(intent))));
    more.extend(routing_key.map(|key| ("external_routing_key", json!(key))));
    more.extend(fields.relation.map(|relation| ("external_relation", json!(relation))));
    more.extend(fields.fingerprint.map(|fingerprint| ("external_fingerprint", json!(fingerprint))));
    let input = SubmitInput {
        content: Some(content).filter(|content| !content.is_empty() || !has_items),
        input_items: Some(inputs),
        attachments: Some(files),
        source_plugin: Some("external".to_string()),
        source_kind: Some(fields.source_kind.unwrap_or_else(|| config.platform.clone())),
        actor_id: Some(fields.actor_id.unwrap_or_else(|| "external-user".to_string())),
        metadata: metadata(fields.metadata, "source_metadata", more),
        ..SubmitInput::default()
    };
    Ok(Event {
        entry: entry.clone(),
        id: Some(event_id.trim().to_string()),
        content: value,
        named_session: None,
        lookup_keys: lookup,
        bind_keys: bind,
        natural_session: natural,
        bucket: String::new(),
        reply_targets,
        input,
    })
}

/// The session that an event makes, and the keys that may name another one, most specific first.
fn names(
    entry: &Entry,
    config: &ExternalConfig,
    path: &[String],
    routing_key: Option<&str>,
) -> (Option<String>, Vec<String>) {
    let (name, platform) = (&entry.name, &config.platform);
    let short = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let natural = |names: Value| format!("external:{name}:{}", sha256_hex(&names.to_string(), 16));
    if !path.is_empty() {
        let mut key = format!("external:{name}:{}", short(platform));
        let mut keys = Vec::new();
        for segment in path {
            key = format!("{key}:{}", short(segment));
            keys.push(key.clone());
        }
        keys.reverse();
        return (Some(natural(json!([platform, path]))), keys);
    }
    match routing_key {
        Some(route) => {
            let key = format!("external:{name}:{}:route:{}", short(platform), short(route));
            (Some(natural(json!(["routing_key", platform, route]))), vec![key])
        }
        None => (None, Vec::new()),
    }
}

#[derive(Serialize)]
struct Credential<'a> {
    value: &'a str,
    lease_id: &'a str,
    grant_id: &'a str,
    expires_at_ms: u64,
}

/// `GET /v1/connectors/external/{name}/credentials/{env_key}`: for the process that holds the lease's token.
pub fn credential(api: &Api, call: Call, reply: Reply) {
    match fetch(api, &call) {
        Ok(response) => reply.send(response),
        Err(problem) => reply.refuse(problem),
    }
}

fn fetch(api: &Api, call: &Call) -> Result<Response, Problem> {
    let entry = find(api, ConnectorKind::External, &call.param("name")?)?;
    let key = call.param("env_key")?;
    let unknown = || Problem::new(&codes::CREDENTIAL_UNKNOWN, "the connector has no credential of this name");
    let refused = || {
        Counters::count(&entry.counters.unauthorized);
        Problem::new(&codes::CREDENTIAL_REFUSED, "the token stands for no live lease of this credential")
    };
    let token = bearer(&call.head).ok_or_else(refused)?;
    let (_, child) = entry.settings.child().ok_or_else(unknown)?;
    let slot = child.credential_slots.get(key.as_ref()).ok_or_else(unknown)?;
    // A key that leads to another slot now is not what the lease was for.
    let is_leased = |fetched: &crate::broker::Fetched| {
        let lease = api.broker.lease_status(&fetched.lease_id, api.clock.now_ms());
        matches!(lease, Ok(Some(status)) if status.lease.slots.iter().any(|leased| leased.slot_id == *slot))
    };
    match api.broker.fetch(token, &entry.name, &key, api.clock.now_ms()) {
        Ok(fetched) if is_leased(&fetched) => {
            let value = std::str::from_utf8(fetched.value.expose())
                .map_err(|_| Problem::new(&codes::INTERNAL_ERROR, "the slot does not hold text"))?;
            Ok(Response::json(
                200,
                &Credential {
                    value,
                    lease_id: &fetched.lease_id,
                    grant_id: &fetched.grant_id,
                    expires_at_ms: fetched.expires_at_ms,
                },
            )
            .with_header("cache-control", "no-store"))
        }
        Ok(_) => Err(refused()),
        Err(BrokerError::LeaseUnknown { .. } | BrokerError::LeaseRevoked { .. } | BrokerError::LeaseExpired { .. }) => {
            Err(refused())
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::connector_events::sha256_hex;

    #[test]
    fn natural_sessions_and_keys_are_those_that_were_published() {
        assert_eq!(sha256_hex(&json!(["webhook", ["build", "d-1"]]).to_string(), 16), "b88cf9359a6d3142");
        assert_eq!(sha256_hex(&json!(["routing_key", "email", "mailbox:ops"]).to_string(), 16), "8fafaffb87a673a1");
        let words: Vec<String> = ["webhook", "build", "d-1"].iter().map(|text| URL_SAFE_NO_PAD.encode(text)).collect();
        assert_eq!(words, ["d2ViaG9vaw", "YnVpbGQ", "ZC0x"]);
    }
}
