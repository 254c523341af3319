//! Connectors as the API shows them.
//! Owns: the shape: every field, secrets as `{"configured", "source", …}`, the environment of a sidecar by names only.
//! Never: shows a secret, or the value of a variable.

use serde_json::{Map, Value, json};

use super::config::{SecretRef, TeamBotToken, secret_fields};
use super::registry::{Entry, Source};
use crate::limits::CONNECTOR_LIST_MAX;

/// The view of one connector. `child` is what is known of its sidecar's process.
pub fn view(entry: &Entry, child: Option<Value>) -> Value {
    let Value::Object(config) = entry.settings.to_value() else { unreachable!("configurations are objects") };
    let mut view = Map::new();
    view.insert("kind".into(), json!(entry.kind));
    view.insert("name".into(), json!(entry.name));
    view.insert("source".into(), json!(entry.source));
    if entry.source == Source::Daemon {
        view.insert("revision".into(), json!(entry.revision));
    }
    view.insert("updated_at_ms".into(), json!(entry.updated_at_ms));
    for (field, value) in config {
        let shown = match field.as_str() {
            "child_process" => child_process(value),
            "team_bot_tokens" => teams(&value),
            name if secret_fields(entry.kind).contains(&name) => continue,
            _ => value,
        };
        view.insert(field, shown);
    }
    for field in secret_fields(entry.kind) {
        let secret = entry.settings.secrets().into_iter().find(|(name, _)| name == field).map(|(_, secret)| secret);
        view.insert((*field).to_string(), secret_view(secret));
    }
    view.insert("ingress_path".into(), json!(ingress_path(entry)));
    view.insert("warnings".into(), json!(warnings(entry)));
    if let Some(child) = child {
        view.insert("process".into(), child);
    }
    Value::Object(view)
}

fn secret_view(secret: Option<&SecretRef>) -> Value {
    match secret {
        None => json!({"configured": false}),
        Some(SecretRef::SecretRef(slot)) => json!({"configured": true, "source": "secret_ref", "secret_ref": slot}),
        Some(SecretRef::Env(name)) => json!({"configured": true, "source": "env", "env": name}),
        Some(SecretRef::Inline(_)) => json!({"configured": true, "source": "inline"}),
    }
}

fn teams(value: &Value) -> Value {
    let teams: Vec<TeamBotToken> = serde_json::from_value(value.clone()).unwrap_or_default();
    let shown = teams.iter().take(CONNECTOR_LIST_MAX);
    let shown = shown.map(|team| json!({"team_id": team.team_id, "bot_token": secret_view(Some(&team.bot_token))}));
    Value::Array(shown.collect())
}

fn child_process(value: Value) -> Value {
    let Value::Object(mut child) = value else { return Value::Null };
    let names = |value: Option<Value>| match value {
        Some(Value::Object(map)) => map.into_iter().map(|(name, _)| Value::String(name)).collect(),
        _ => Vec::new(),
    };
    let env = names(child.remove("env"));
    let slots = child.get("credential_slots").cloned();
    child.insert("env_keys".into(), Value::Array(env));
    child.insert("credential_env_keys".into(), Value::Array(names(slots)));
    Value::Object(child)
}

/// Where events are sent to.
fn ingress_path(entry: &Entry) -> String {
    let (kind, name) = (entry.kind, &entry.name);
    match kind {
        crate::core::ConnectorKind::External => format!("/v1/connectors/external/{name}/events"),
        _ => format!("/v1/connectors/{kind}/{name}"),
    }
}

/// What an operator should know of a configuration that holds all the same.
pub fn warnings(entry: &Entry) -> Vec<&'static str> {
    let settings = &entry.settings;
    let mut found = Vec::new();
    if settings.is_open() {
        found.push("unauthenticated_ingress");
    }
    if settings.fixed_session_id().is_none() && !settings.session_policy().create_if_missing {
        found.push("new_conversations_are_refused");
    }
    found
}
