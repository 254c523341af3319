//! Ingress of http connectors.
//! Owns: the order of the checks of one event, and its payload.
//! May touch: what `connector_events` does.
//! Never: reads a body before its sender is proven.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::connector_events::{
    Event, RESERVED_METADATA, check_hold, find, ingress_key, invalid, metadata, secret, sha256_hex,
};
use super::context::Api;
use super::input_parts::InputItem;
use super::json;
use super::runs::{fresh_view, repeated_view};
use super::submit::SubmitInput;
use crate::connectors::config::{HttpConfig, ReplyHandle};
use crate::connectors::registry::Counters;
use crate::connectors::signature::{Unproven, verify_bearer, verify_http};
use crate::connectors::{Entry, Settings};
use crate::core::{ConnectorKind, IngestOutcome, Ingested};
use crate::delivery::Trust;
use crate::http::Response;
use crate::http::problem::{Problem, codes};

/// One event.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Payload {
    session_id: Option<String>,
    binding_keys: Option<Vec<String>>,
    actor_id: Option<String>,
    content: Option<String>,
    input_items: Option<Vec<Value>>,
    attachments: Option<Vec<Value>>,
    metadata: Option<Value>,
    reply_targets: Option<Vec<ReplyHandle>>,
    reply_plugin: Option<String>,
    reply_address: Option<String>,
    idempotency_key: Option<String>,
}

/// Whose proof failed, as a problem. The texts say nothing that helps to guess.
pub fn unproven(entry: &Entry, what: Unproven, is_token: bool) -> Problem {
    Counters::count(&entry.counters.unauthorized);
    match what {
        _ if is_token => {
            let detail = "the connector's token is missing or wrong";
            Problem::new(&codes::CONNECTOR_UNAUTHORIZED, detail)
                .header("www-authenticate", "Bearer realm=\"connector\"")
        }
        Unproven::Missing => Problem::new(
            &codes::SIGNATURE_MISSING,
            "a header of the signature is missing, given twice or malformed; next: send timestamp and signature once each",
        ),
        Unproven::Wrong => {
            Problem::new(&codes::SIGNATURE_INVALID, "the signature does not fit the request as it arrived")
        }
        Unproven::Expired => Problem::new(&codes::SIGNATURE_EXPIRED, "the signature's timestamp is too far from now"),
    }
}

/// `POST /v1/connectors/http/{name}`: answers 200 once the run is durable.
pub fn ingress(api: &Api, call: Call, reply: Reply) {
    let prepared = read(api, &call).and_then(|event| event.prepare(api));
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(problem) => return reply.refuse(problem),
    };
    let summary = prepared.summary.clone();
    prepared.submit(
        api,
        Box::new(move |outcome| match outcome {
            Ok(Ingested { run, session, session_number, outcome }) => match outcome {
                IngestOutcome::Accepted { position, submitted_at_ms } => {
                    let view = fresh_view(run, session, session_number, position, submitted_at_ms, summary);
                    reply.send(Response::json(200, &view));
                }
                IngestOutcome::Duplicate(state) => {
                    reply.send(Response::json(200, &repeated_view(run, session, session_number, &state, summary)));
                }
                IngestOutcome::Conflict => reply.refuse(Problem::new(
                    &codes::EVENT_CONFLICT,
                    format!("this key made {run} with another payload; next: use a new key for a new event"),
                )),
            },
            Err(problem) => reply.refuse(problem),
        }),
    );
}

fn read(api: &Api, call: &Call) -> Result<Event, Problem> {
    let entry = find(api, ConnectorKind::Http, &call.param("name")?)?;
    let Settings::Http(config) = &entry.settings else { unreachable!("found by kind") };
    prove(api, &entry, config, call)?;
    check_hold(api)?;
    let is_open = entry.settings.is_open();
    let content: Value = json::parse(&call.body).map_err(|problem| invalid(problem.detail))?;
    let payload: Payload = json::parse(&call.body).map_err(|problem| invalid(problem.detail))?;
    event(&entry, config, payload, content, is_open)
}

fn prove(api: &Api, entry: &Entry, config: &HttpConfig, call: &Call) -> Result<(), Problem> {
    if let Some(token) = secret(api, entry, "bearer_token", config.bearer_token.as_ref())? {
        verify_bearer(&call.head, &token).map_err(|what| unproven(entry, what, true))?;
    }
    if config.require_hmac_signature
        && let Some(key) = secret(api, entry, "hmac_secret", config.hmac_secret.as_ref())?
    {
        let now_ms = api.clock.now_ms();
        verify_http(&call.head, &call.body, &key, config.signature_max_age_secs, now_ms)
            .map_err(|what| unproven(entry, what, false))?;
    }
    Ok(())
}

fn event(
    entry: &Arc<Entry>,
    config: &HttpConfig,
    payload: Payload,
    content: Value,
    is_open: bool,
) -> Result<Event, Problem> {
    let items = payload.input_items.unwrap_or_default();
    let attachments = payload.attachments.unwrap_or_default();
    let given_keys = payload.binding_keys.unwrap_or_default();
    let only_text = items.iter().all(|item| item["type"] == "text");
    if is_open && (payload.session_id.is_some() || !given_keys.is_empty() || !attachments.is_empty() || !only_text) {
        return Err(invalid("an unauthenticated connector takes no session_id, binding_keys, attachments or assets"));
    }
    let overrides =
        payload.reply_targets.is_some() || payload.reply_plugin.is_some() || payload.reply_address.is_some();
    if overrides && (is_open || !config.allow_payload_reply_targets) {
        return Err(invalid("the connector takes no reply target of an event; next: set allow_payload_reply_targets"));
    }
    if let Some(Value::Object(fields)) = &payload.metadata
        && let Some(name) = RESERVED_METADATA.iter().find(|name| fields.contains_key(**name))
    {
        return Err(invalid(format!("metadata.{name} is written by the daemon only")));
    }
    let key = payload.idempotency_key.map(|key| key.trim().to_string()).filter(|key| !key.is_empty());
    if key.is_none() && config.require_idempotency_key {
        return Err(invalid("there is no idempotency_key; next: send one for each event"));
    }
    let mut keys = if given_keys.is_empty() { config.default_binding_keys.clone() } else { given_keys };
    keys.sort_unstable();
    keys.dedup();
    let natural = keys.first().map(|key| format!("http:{}:{}", entry.name, sha256_hex(key, 16)));
    let mut reply_targets = payload.reply_targets.unwrap_or_default();
    match (payload.reply_plugin, payload.reply_address) {
        (None, None) => {}
        (Some(plugin), Some(address)) => reply_targets.insert(0, ReplyHandle { plugin, address }),
        _ => return Err(invalid("reply_plugin and reply_address belong together")),
    }
    let trust = if reply_targets.is_empty() { Trust::Operator } else { Trust::Payload };
    if reply_targets.is_empty() {
        reply_targets = config.default_reply_targets.clone();
    }
    let more = match &key {
        Some(key) => vec![("connector_ingress_key", json!(ingress_key(entry.kind, &entry.name, key)))],
        None => Vec::new(),
    };
    let input = SubmitInput {
        content: payload.content,
        input_items: Some(self::items(items)?),
        attachments: Some(self::items(attachments)?),
        source_plugin: Some("http".to_string()),
        source_kind: Some(entry.name.clone()),
        actor_id: payload.actor_id.or(config.actor_id.clone()).or(Some("http-webhook".to_string())),
        metadata: metadata(payload.metadata, "payload", more),
        ..SubmitInput::default()
    };
    Ok(Event {
        entry: entry.clone(),
        id: key,
        content,
        named_session: payload.session_id,
        lookup_keys: keys.clone(),
        bind_keys: keys,
        natural_session: natural,
        bucket: String::new(),
        reply_targets,
        trust,
        input,
    })
}

/// Items and attachments as a submission reads them; kinds that this version does not have are refused by name.
pub fn items(given: Vec<Value>) -> Result<Vec<InputItem>, Problem> {
    let item = |item: Value| match item["type"].as_str() {
        Some("text" | "inline_asset" | "asset_reference") => {
            serde_json::from_value(item).map_err(|_| invalid("an item has a field that its type does not have"))
        }
        _ => Err(Problem::new(
            &codes::UNSUPPORTED_FEATURE,
            "an item other than text, inline_asset and asset_reference is not supported by this daemon version; next: leave it out",
        )),
    };
    given.into_iter().map(item).collect()
}
