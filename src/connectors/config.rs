//! Configurations of the four kinds, as they are stored: secrets are references.
//! Owns: every field with its default; docs/operators/connectors.md lists them.
//! Never: judges a value beyond its type; `check` does.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::broker::SlotId;
use crate::core::ConnectorKind;
use crate::limits::{
    CONNECTOR_EVENTS_PER_S_DEFAULT, CONNECTOR_EXTERNAL_EVENTS_PER_S_DEFAULT, CONNECTOR_SIGNATURE_AGE_S_DEFAULT,
};

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretRef {
    /// A generic slot of the auth store.
    SecretRef(SlotId),
    /// A variable of the daemon's environment.
    Env(String),
    /// The file of `--connectors-config` itself; the value is kept beside the configuration.
    Inline(bool),
}

impl SecretRef {
    /// As views name it.
    pub fn source(&self) -> &'static str {
        match self {
            Self::SecretRef(_) => "secret_ref",
            Self::Env(_) => "env",
            Self::Inline(_) => "inline",
        }
    }
}

/// Where a run's output may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplyHandle {
    /// `http`, `slack`, `telegram` or `external`.
    pub plugin: String,
    /// What the plugin reads.
    pub address: String,
}

/// What the session of an event may be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionPolicy {
    /// Create it if it does not exist; refused with 409 otherwise.
    pub create_if_missing: bool,
    /// A persona; this version has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persona_id: Option<String>,
    /// Only an empty one in this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability_scope: Option<Map<String, Value>>,
    /// Only an empty one in this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_scope: Option<Map<String, Value>>,
}

/// An http connector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "docs/operators/connectors.md lists every field")]
pub struct HttpConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer_token: Option<SecretRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hmac_secret: Option<SecretRef>,
    pub allow_unauthenticated_ingress: bool,
    pub require_hmac_signature: bool,
    pub signature_max_age_secs: u64,
    pub require_idempotency_key: bool,
    pub ingress_events_per_second: u32,
    pub allow_payload_reply_targets: bool,
    pub default_reply_targets: Vec<ReplyHandle>,
    pub default_binding_keys: Vec<String>,
    pub session_policy: SessionPolicy,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            fixed_session_id: None,
            actor_id: None,
            bearer_token: None,
            hmac_secret: None,
            allow_unauthenticated_ingress: false,
            require_hmac_signature: false,
            signature_max_age_secs: CONNECTOR_SIGNATURE_AGE_S_DEFAULT,
            require_idempotency_key: true,
            ingress_events_per_second: CONNECTOR_EVENTS_PER_S_DEFAULT,
            allow_payload_reply_targets: false,
            default_reply_targets: Vec::new(),
            default_binding_keys: Vec::new(),
            session_policy: SessionPolicy::default(),
        }
    }
}

/// The bot token of one Slack team.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeamBotToken {
    /// The team.
    pub team_id: String,
    /// Its token.
    pub bot_token: SecretRef,
}

/// A Slack connector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "docs/operators/connectors.md lists every field")]
pub struct SlackConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bot_token: Option<SecretRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_secret: Option<SecretRef>,
    pub allow_unauthenticated_ingress: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_base_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_session_id: Option<String>,
    pub include_self_output: bool,
    pub additional_reply_targets: Vec<ReplyHandle>,
    pub additional_binding_keys: Vec<String>,
    pub session_policy: SessionPolicy,
    pub ingress_events_per_second: u32,
    pub allowed_api_app_ids: Vec<String>,
    pub allowed_enterprise_ids: Vec<String>,
    pub allowed_team_ids: Vec<String>,
    pub allowed_channel_ids: Vec<String>,
    pub allowed_file_hosts: Vec<String>,
    pub team_bot_tokens: Vec<TeamBotToken>,
}

impl Default for SlackConfig {
    fn default() -> Self {
        Self {
            bot_token: None,
            signing_secret: None,
            allow_unauthenticated_ingress: false,
            api_base_url: None,
            fixed_session_id: None,
            include_self_output: true,
            additional_reply_targets: Vec::new(),
            additional_binding_keys: Vec::new(),
            session_policy: SessionPolicy::default(),
            ingress_events_per_second: CONNECTOR_EVENTS_PER_S_DEFAULT,
            allowed_api_app_ids: Vec::new(),
            allowed_enterprise_ids: Vec::new(),
            allowed_team_ids: Vec::new(),
            allowed_channel_ids: Vec::new(),
            allowed_file_hosts: Vec::new(),
            team_bot_tokens: Vec::new(),
        }
    }
}

/// How a Telegram connector gets its updates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IngressMode {
    /// Telegram calls.
    #[default]
    Webhook,
    /// The daemon asks.
    Polling,
}

/// A Telegram connector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "docs/operators/connectors.md lists every field")]
pub struct TelegramConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bot_token: Option<SecretRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_token: Option<SecretRef>,
    pub allow_unauthenticated_ingress: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_base_url: Option<String>,
    pub ingress_mode: IngressMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub polling_timeout_seconds: Option<u64>,
    pub ingress_events_per_second: u32,
    pub allowed_chat_ids: Vec<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_session_id: Option<String>,
    pub include_self_output: bool,
    pub additional_reply_targets: Vec<ReplyHandle>,
    pub additional_binding_keys: Vec<String>,
    pub session_policy: SessionPolicy,
}

impl Default for TelegramConfig {
    fn default() -> Self {
        Self {
            bot_token: None,
            secret_token: None,
            allow_unauthenticated_ingress: false,
            api_base_url: None,
            ingress_mode: IngressMode::default(),
            polling_timeout_seconds: None,
            ingress_events_per_second: CONNECTOR_EXTERNAL_EVENTS_PER_S_DEFAULT,
            allowed_chat_ids: Vec::new(),
            fixed_session_id: None,
            include_self_output: true,
            additional_reply_targets: Vec::new(),
            additional_binding_keys: Vec::new(),
            session_policy: SessionPolicy::default(),
        }
    }
}

/// Where an external connector's sidecar runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExternalMode {
    /// Elsewhere.
    #[default]
    RemoteHttp,
    /// As a process of the daemon.
    ChildProcess,
}

/// The process of a sidecar.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChildProcess {
    /// A program, by path or to be found in `PATH`.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Further environment; no secrets, it is kept in the journal.
    pub env: BTreeMap<String, String>,
    /// Slots that it may fetch, by the name under which it asks.
    pub credential_slots: BTreeMap<String, SlotId>,
    /// Its working directory, which it can read; the daemon's own otherwise, of which it can read the directories of the
    /// files that `command` and `args` name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Further directories that it can read and execute from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub read_only_paths: Vec<String>,
    /// It can write in `working_dir`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub working_dir_writable: bool,
}

/// An external connector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "docs/operators/connectors.md lists every field")]
pub struct ExternalConfig {
    pub platform: String,
    pub mode: ExternalMode,
    pub base_url: String,
    pub allow_private_network: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_token: Option<SecretRef>,
    pub allow_unauthenticated_ingress: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_session_id: Option<String>,
    pub include_self_output: bool,
    pub additional_reply_targets: Vec<ReplyHandle>,
    pub additional_binding_keys: Vec<String>,
    pub session_policy: SessionPolicy,
    pub ingress_events_per_second: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub child_process: Option<ChildProcess>,
}

impl Default for ExternalConfig {
    fn default() -> Self {
        Self {
            platform: String::new(),
            mode: ExternalMode::default(),
            base_url: String::new(),
            allow_private_network: false,
            shared_token: None,
            allow_unauthenticated_ingress: false,
            fixed_session_id: None,
            include_self_output: true,
            additional_reply_targets: Vec::new(),
            additional_binding_keys: Vec::new(),
            session_policy: SessionPolicy::default(),
            ingress_events_per_second: CONNECTOR_EXTERNAL_EVENTS_PER_S_DEFAULT,
            child_process: None,
        }
    }
}

/// A configuration of any kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Settings {
    /// Of kind http.
    Http(Box<HttpConfig>),
    /// Of kind slack.
    Slack(Box<SlackConfig>),
    /// Of kind telegram.
    Telegram(Box<TelegramConfig>),
    /// Of kind external.
    External(Box<ExternalConfig>),
}

impl Settings {
    /// Reads what was stored or merged.
    ///
    /// # Errors
    /// A field is unknown, or has another type than its name says. The text names no value.
    pub fn read(kind: ConnectorKind, value: Value) -> Result<Self, String> {
        fn typed<T: serde::de::DeserializeOwned>(value: Value) -> Result<Box<T>, String> {
            // serde quotes the offending value of a wrong type; the path and the rule are enough.
            serde_json::from_value(value).map(Box::new).map_err(|error| without_values(&error.to_string()))
        }
        Ok(match kind {
            ConnectorKind::Http => Self::Http(typed(value)?),
            ConnectorKind::Slack => Self::Slack(typed(value)?),
            ConnectorKind::Telegram => Self::Telegram(typed(value)?),
            ConnectorKind::External => Self::External(typed(value)?),
        })
    }

    /// As JSON, whole.
    pub fn to_value(&self) -> Value {
        let written = match self {
            Self::Http(config) => serde_json::to_value(config),
            Self::Slack(config) => serde_json::to_value(config),
            Self::Telegram(config) => serde_json::to_value(config),
            Self::External(config) => serde_json::to_value(config),
        };
        written.expect("configurations have string keys")
    }

    /// Secrets by the name of their field; those of teams as `team_bot_tokens.<team>`.
    pub fn secrets(&self) -> Vec<(String, &SecretRef)> {
        fn push<'a>(found: &mut Vec<(String, &'a SecretRef)>, name: &str, secret: &'a Option<SecretRef>) {
            found.extend(secret.as_ref().map(|secret| (name.to_string(), secret)));
        }
        let mut found = Vec::new();
        match self {
            Self::Http(config) => {
                push(&mut found, "bearer_token", &config.bearer_token);
                push(&mut found, "hmac_secret", &config.hmac_secret);
            }
            Self::Slack(config) => {
                push(&mut found, "bot_token", &config.bot_token);
                push(&mut found, "signing_secret", &config.signing_secret);
                let team = |team: &'_ TeamBotToken| format!("team_bot_tokens.{}", team.team_id);
                found.extend(config.team_bot_tokens.iter().map(|token| (team(token), &token.bot_token)));
            }
            Self::Telegram(config) => {
                push(&mut found, "bot_token", &config.bot_token);
                push(&mut found, "secret_token", &config.secret_token);
            }
            Self::External(config) => push(&mut found, "shared_token", &config.shared_token),
        }
        found
    }

    /// Every slot that it names, with the field that does.
    pub fn slots(&self) -> Vec<(String, SlotId)> {
        let mut slots: Vec<(String, SlotId)> = self
            .secrets()
            .into_iter()
            .filter_map(|(field, secret)| match secret {
                SecretRef::SecretRef(slot) => Some((field, slot.clone())),
                _ => None,
            })
            .collect();
        if let Self::External(config) = self
            && let Some(child) = &config.child_process
        {
            let of_child = child.credential_slots.iter();
            slots.extend(of_child.map(|(key, slot)| (format!("child_process.credential_slots.{key}"), slot.clone())));
        }
        slots
    }

    /// What the sessions of its events may be.
    pub fn session_policy(&self) -> &SessionPolicy {
        match self {
            Self::Http(config) => &config.session_policy,
            Self::Slack(config) => &config.session_policy,
            Self::Telegram(config) => &config.session_policy,
            Self::External(config) => &config.session_policy,
        }
    }

    /// The one session of all its events, if it has one.
    pub fn fixed_session_id(&self) -> Option<&str> {
        match self {
            Self::Http(config) => config.fixed_session_id.as_deref(),
            Self::Slack(config) => config.fixed_session_id.as_deref(),
            Self::Telegram(config) => config.fixed_session_id.as_deref(),
            Self::External(config) => config.fixed_session_id.as_deref(),
        }
    }

    /// Reply targets of every event.
    pub fn reply_targets(&self) -> &[ReplyHandle] {
        match self {
            Self::Http(config) => &config.default_reply_targets,
            Self::Slack(config) => &config.additional_reply_targets,
            Self::Telegram(config) => &config.additional_reply_targets,
            Self::External(config) => &config.additional_reply_targets,
        }
    }

    /// Events per second.
    pub fn events_per_second(&self) -> u32 {
        match self {
            Self::Http(config) => config.ingress_events_per_second,
            Self::Slack(config) => config.ingress_events_per_second,
            Self::Telegram(config) => config.ingress_events_per_second,
            Self::External(config) => config.ingress_events_per_second,
        }
    }

    /// Anybody may send events.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Http(config) => {
                config.bearer_token.is_none() && !(config.hmac_secret.is_some() && config.require_hmac_signature)
            }
            Self::Slack(config) => config.signing_secret.is_none(),
            Self::Telegram(config) => config.secret_token.is_none() && config.ingress_mode == IngressMode::Webhook,
            Self::External(config) => config.shared_token.is_none(),
        }
    }

    /// The process of its sidecar, if it has one.
    pub fn child(&self) -> Option<(&ExternalConfig, &ChildProcess)> {
        match self {
            Self::External(config) if config.mode == ExternalMode::ChildProcess => {
                config.child_process.as_ref().map(|child| (&**config, child))
            }
            _ => None,
        }
    }
}

/// Names of the secret fields of a kind.
pub fn secret_fields(kind: ConnectorKind) -> &'static [&'static str] {
    match kind {
        ConnectorKind::Http => &["bearer_token", "hmac_secret"],
        ConnectorKind::Slack => &["bot_token", "signing_secret"],
        ConnectorKind::Telegram => &["bot_token", "secret_token"],
        ConnectorKind::External => &["shared_token"],
    }
}

/// Merges a change into a configuration: a field that is given replaces the old one whole, null clears it.
pub fn merge(base: Value, patch: Map<String, Value>) -> Value {
    let mut merged = match base {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    for (field, value) in patch {
        match value {
            Value::Null => drop(merged.remove(&field)),
            value => drop(merged.insert(field, value)),
        }
    }
    Value::Object(merged)
}

/// serde quotes a value as `string "…"` or `integer `…``; what is quoted may be a misplaced secret.
fn without_values(text: &str) -> String {
    if let Some((_, expected)) =
        text.split_once("unknown variant ").and_then(|(_, rest)| rest.split_once(", expected "))
    {
        return format!("a word is not one of the field's: expected {expected}");
    }
    let Some(rest) = text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: ")) else {
        return text.to_string();
    };
    match rest.rsplit_once(", expected ") {
        Some((_, expected)) => format!("a value has another type than its field: expected {expected}"),
        None => "a value has another type than its field".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_keeps_what_it_does_not_name_and_null_clears() {
        let base = json!({"actor_id": "a", "fixed_session_id": "s", "ingress_events_per_second": 5});
        let Value::Object(patch) = json!({"actor_id": null, "ingress_events_per_second": 7}) else { unreachable!() };
        assert_eq!(merge(base, patch), json!({"fixed_session_id": "s", "ingress_events_per_second": 7}));
    }

    #[test]
    fn a_configuration_comes_back_as_it_was_written() {
        let value = json!({"platform": "webhook", "mode": "child_process", "base_url": "http://127.0.0.1:1",
            "shared_token": {"secret_ref": "a.b"}, "child_process": {"command": "x", "credential_slots": {"K": "c.d"}}});
        let settings = Settings::read(ConnectorKind::External, value).expect("legal");
        assert_eq!(Settings::read(ConnectorKind::External, settings.to_value()), Ok(settings.clone()));
        let slots: Vec<String> = settings.slots().into_iter().map(|(field, slot)| format!("{field}={slot}")).collect();
        assert_eq!(slots, ["shared_token=a.b", "child_process.credential_slots.K=c.d"]);
    }

    #[test]
    fn a_refused_value_is_not_repeated() {
        for value in [
            json!({"shared_token": "hunter2-hunter2"}),
            json!({"ingress_events_per_second": "hunter2-hunter2"}),
            json!({"mode": "hunter2-hunter2"}),
        ] {
            let error = Settings::read(ConnectorKind::External, value.clone()).expect_err("another type");
            assert!(!error.contains("hunter2"), "{value}: {error}");
        }
    }
}
