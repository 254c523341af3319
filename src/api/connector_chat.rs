//! Ingress of Slack and Telegram connectors.
//! Owns: which of their events make a run, and what is said to the others.
//! May touch: what `connector_events` does.
//! Never: reads a body before its sender is proven.

use std::sync::Arc;

use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::connector_events::{Event, check_hold, find, ingress_key, invalid, metadata, secret, sha256_hex};
use super::connector_http::unproven;
use super::context::Api;
use super::json;
use super::runs::{fresh_view, repeated_view};
use super::submit::SubmitInput;
use crate::connectors::config::{IngressMode, ReplyHandle, SlackConfig, TelegramConfig};
use crate::connectors::signature::{verify_header, verify_slack};
use crate::connectors::{Entry, Settings};
use crate::core::{ConnectorKind, IngestOutcome, Ingested};
use crate::delivery::Trust;
use crate::http::Response;
use crate::http::problem::{Problem, codes};

/// What an event comes to.
pub(super) enum Read {
    /// A run.
    Run(Box<Event>),
    /// No run; this is the answer.
    Answer(Value),
}

/// `POST /v1/connectors/slack/{name}`.
pub fn slack(api: &Api, call: Call, reply: Reply) {
    let read = read_slack(api, &call);
    finish(api, read, reply);
}

/// `POST /v1/connectors/telegram/{name}`.
pub fn telegram(api: &Api, call: Call, reply: Reply) {
    let read = read_telegram(api, &call);
    finish(api, read, reply);
}

fn finish(api: &Api, read: Result<Read, Problem>, reply: Reply) {
    let prepared = match read {
        Err(problem) => return reply.refuse(problem),
        Ok(Read::Answer(answer)) => return reply.send(Response::json(200, &answer)),
        Ok(Read::Run(event)) => event.prepare(api),
    };
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
                    format!("this event id made {run} with another payload"),
                )),
            },
            Err(problem) => reply.refuse(problem),
        }),
    );
}

fn read_slack(api: &Api, call: &Call) -> Result<Read, Problem> {
    let entry = find(api, ConnectorKind::Slack, &call.param("name")?)?;
    let Settings::Slack(config) = &entry.settings else { unreachable!("found by kind") };
    if let Some(key) = secret(api, &entry, "signing_secret", config.signing_secret.as_ref())? {
        verify_slack(&call.head, &call.body, &key, api.clock.now_ms()).map_err(|what| unproven(&entry, what, false))?;
    }
    let body: Value = json::parse(&call.body).map_err(|problem| invalid(problem.detail))?;
    let kind = body["type"].as_str().ok_or_else(|| invalid("the event has no type"))?;
    if kind == "url_verification" {
        let challenge = body["challenge"].as_str().ok_or_else(|| invalid("url_verification has no challenge"))?;
        return Ok(Read::Answer(json!({"challenge": challenge})));
    }
    check_hold(api)?;
    if kind == "app_rate_limited" {
        let limited = body.get("minute_rate_limited").cloned().unwrap_or_default();
        return Ok(Read::Answer(json!({"ignored": true, "type": "app_rate_limited", "minute_rate_limited": limited})));
    }
    let is_callback = kind == "event_callback";
    check_slack_source(config, &body)?;
    slack_event(&entry, config, body, is_callback)
}

fn text(value: &Value) -> Option<&str> {
    value.as_str().map(str::trim).filter(|text| !text.is_empty())
}

/// Every place that an event names must be allowed, where a list says which are.
fn check_slack_source(config: &SlackConfig, body: &Value) -> Result<(), Problem> {
    let event = &body["event"];
    let none = Vec::new();
    let authorizations = body["authorizations"].as_array().unwrap_or(&none);
    let of_all = |name: &'static str| {
        std::iter::once(&body[name]).chain(authorizations.iter().map(move |given| &given[name])).filter_map(text)
    };
    let channel = text(&event["channel"]).or(text(&event["channel"]["id"])).or(text(&event["item"]["channel"]));
    let lists: [(&str, &[String], Vec<&str>); 4] = [
        ("api_app_id", &config.allowed_api_app_ids, text(&body["api_app_id"]).into_iter().collect()),
        ("enterprise_id", &config.allowed_enterprise_ids, of_all("enterprise_id").collect()),
        ("team_id", &config.allowed_team_ids, of_all("team_id").collect()),
        ("channel", &config.allowed_channel_ids, channel.into_iter().collect()),
    ];
    for (field, allowed, given) in lists {
        let is_allowed = |given: &&str| allowed.iter().any(|known| known == given);
        if !allowed.is_empty() && (given.is_empty() || !given.iter().all(is_allowed)) {
            let detail = format!("the event's {field} is not on the connector's list");
            return Err(Problem::new(&codes::EVENT_SOURCE_REFUSED, detail));
        }
    }
    Ok(())
}

fn slack_event(entry: &Arc<Entry>, config: &SlackConfig, body: Value, is_callback: bool) -> Result<Read, Problem> {
    let ignored = |reason: &str| Ok(Read::Answer(json!({"ignored": true, "reason": reason})));
    if !is_callback {
        return ignored("unsupported_envelope");
    }
    let event = &body["event"];
    if event["type"] != "message" {
        return ignored("unsupported_event");
    }
    let subtype = text(&event["subtype"]);
    if subtype.is_some_and(|subtype| subtype != "file_share") || event.get("bot_id").is_some_and(|id| !id.is_null()) {
        return ignored("unsupported_message_subtype");
    }
    let channel = text(&event["channel"]).ok_or_else(|| invalid("the message has no channel"))?.to_string();
    let ts = text(&event["ts"]).ok_or_else(|| invalid("the message has no ts"))?.to_string();
    let files = event["files"].as_array().map_or(0, Vec::len);
    let content = event["text"].as_str().unwrap_or_default().to_string();
    if content.trim().is_empty() {
        return ignored(if files > 0 { "attachments_unsupported" } else { "empty_message" });
    }
    let root = text(&event["thread_ts"]).unwrap_or(&ts).to_string();
    let enterprise = text(&body["enterprise_id"]).unwrap_or_default().to_string();
    let team = text(&body["team_id"]).or(text(&event["team"])).unwrap_or_default().to_string();
    let message = format!("{channel}:{ts}");
    let id = format!("{enterprise}:{team}:{}", text(&body["event_id"]).unwrap_or(&message));
    let place = json!([enterprise, team, channel, root]).to_string();
    let key = format!("slack:{}:{}", entry.name, sha256_hex(&place, 32));
    let mut bind = vec![key];
    bind.extend(config.additional_binding_keys.iter().cloned());
    let mut reply_targets = Vec::new();
    if config.include_self_output {
        let mut address = json!({"connector": entry.name, "channel_id": channel, "thread_ts": root});
        for (name, value) in [("enterprise_id", &enterprise), ("team_id", &team)] {
            if !value.is_empty() {
                address[name] = json!(value);
            }
        }
        reply_targets.push(ReplyHandle { plugin: "slack".to_string(), address: address.to_string() });
    }
    reply_targets.extend(config.additional_reply_targets.iter().cloned());
    let mut more = vec![
        ("connector_ingress_key", json!(ingress_key(entry.kind, &entry.name, &id))),
        ("slack_team_id", json!(team)),
        ("slack_channel_id", json!(channel)),
        ("slack_ts", json!(ts)),
    ];
    if files > 0 {
        more.push(("slack_files_left_out", json!(files)));
    }
    let input = SubmitInput {
        content: Some(content),
        source_plugin: Some("slack".to_string()),
        source_kind: Some(entry.name.clone()),
        actor_id: Some(text(&event["user"]).unwrap_or("slack-user").to_string()),
        metadata: metadata(None, "payload", more),
        ..SubmitInput::default()
    };
    Ok(Read::Run(Box::new(Event {
        entry: entry.clone(),
        id: Some(id),
        content: event.clone(),
        named_session: None,
        lookup_keys: bind.clone(),
        bind_keys: bind,
        natural_session: Some(format!("slack:{}:{}", entry.name, sha256_hex(&place, 16))),
        bucket: format!("{team}:{channel}"),
        reply_targets,
        trust: Trust::Operator,
        input,
    })))
}

fn read_telegram(api: &Api, call: &Call) -> Result<Read, Problem> {
    let entry = find(api, ConnectorKind::Telegram, &call.param("name")?)?;
    let Settings::Telegram(config) = &entry.settings else { unreachable!("found by kind") };
    if config.ingress_mode == IngressMode::Polling {
        let detail = "this connector asks for its updates itself; next: set ingress_mode to webhook";
        return Err(Problem::new(&codes::CONNECTOR_UNKNOWN, detail));
    }
    if let Some(token) = secret(api, &entry, "secret_token", config.secret_token.as_ref())? {
        verify_header(&call.head, "x-telegram-bot-api-secret-token", &token)
            .map_err(|what| unproven(&entry, what, true))?;
    }
    check_hold(api)?;
    let update: Value = json::parse(&call.body).map_err(|problem| invalid(problem.detail))?;
    telegram_event(&entry, config, update)
}

pub(super) fn telegram_event(entry: &Arc<Entry>, config: &TelegramConfig, update: Value) -> Result<Read, Problem> {
    let skipped = |reason: &str| Ok(Read::Answer(json!({"ok": true, "skipped": reason})));
    let id = update["update_id"].as_i64().ok_or_else(|| invalid("the update has no update_id"))?.to_string();
    let kinds = ["message", "edited_message", "callback_query"];
    let Some(kind) = kinds.into_iter().find(|kind| update[kind].is_object()) else {
        return skipped("unsupported_update");
    };
    let (message, content, from) = match kind {
        "callback_query" => {
            let query = &update[kind];
            (&query["message"], query["data"].as_str(), &query["from"])
        }
        _ => {
            let message = &update[kind];
            (message, message["text"].as_str().or(message["caption"].as_str()), &message["from"])
        }
    };
    let chat = message["chat"]["id"].as_i64().ok_or_else(|| invalid("the update names no chat"))?;
    if !config.allowed_chat_ids.is_empty() && !config.allowed_chat_ids.contains(&chat) {
        return Err(Problem::new(&codes::EVENT_SOURCE_REFUSED, "the chat is not on the connector's list"));
    }
    let content = content.unwrap_or_default().to_string();
    if content.trim().is_empty() {
        return skipped("attachments_unsupported");
    }
    let topic = message["message_thread_id"].as_i64();
    let place = json!([chat, topic]).to_string();
    let mut bind = vec![format!("telegram:{}:{}", entry.name, sha256_hex(&place, 32))];
    bind.extend(config.additional_binding_keys.iter().cloned());
    let mut reply_targets = Vec::new();
    if config.include_self_output {
        let mut address = json!({"connector": entry.name, "chat_id": chat});
        if let Some(topic) = topic {
            address["message_thread_id"] = json!(topic);
        }
        if let Some(number) = message["message_id"].as_i64() {
            address["reply_to_message_id"] = json!(number);
        }
        reply_targets.push(ReplyHandle { plugin: "telegram".to_string(), address: address.to_string() });
    }
    reply_targets.extend(config.additional_reply_targets.iter().cloned());
    let more = vec![
        ("connector_ingress_key", json!(ingress_key(entry.kind, &entry.name, &id))),
        ("telegram_chat_id", json!(chat)),
        ("telegram_update_kind", json!(kind)),
    ];
    let input = SubmitInput {
        content: Some(content),
        source_plugin: Some("telegram".to_string()),
        source_kind: Some(entry.name.clone()),
        actor_id: Some(from["id"].as_i64().map_or("telegram-user".to_string(), |id| format!("telegram:{id}"))),
        metadata: metadata(None, "payload", more),
        ..SubmitInput::default()
    };
    Ok(Read::Run(Box::new(Event {
        entry: entry.clone(),
        id: Some(id),
        natural_session: Some(format!("telegram:{}:{}", entry.name, sha256_hex(&place, 16))),
        content: update,
        named_session: None,
        lookup_keys: bind.clone(),
        bind_keys: bind,
        bucket: String::new(),
        reply_targets,
        trust: Trust::Operator,
        input,
    })))
}
