//! The rules of connectors' configurations.
//! Owns: every rule with its text.
//! May touch: nothing outside its arguments; that a slot exists is the caller's business.
//! Never: repeats a value that could be a secret.

use std::fmt;

use super::config::{
    ChildProcess, ExternalConfig, ExternalMode, IngressMode, ReplyHandle, SecretRef, Settings, TelegramConfig,
};
use crate::delivery::{ReplyTargetInput, Trust};
use crate::ids::SessionId;
use crate::limits::{
    CONNECTOR_BINDING_KEY_BYTES_MAX, CONNECTOR_EVENTS_PER_S_MAX, CONNECTOR_LIST_MAX, CONNECTOR_NAME_BYTES_MAX,
    CONNECTOR_SIGNATURE_AGE_S_MAX, CONNECTOR_TEXT_BYTES_MAX, LEASE_ENV_KEY_BYTES_MAX, LEASE_SLOTS_MAX,
    SIDECAR_WORDS_MAX, TELEGRAM_POLL_TIMEOUT_S_MAX,
};
use crate::net::{BaseUrl, Host, Reach, classify};

/// A configuration breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The field, as a path.
    pub field: String,
    /// The rule.
    pub cause: String,
    /// What to do.
    pub next: String,
}

impl ConfigError {
    /// An error of a field.
    pub fn new(field: impl Into<String>, cause: impl Into<String>, next: impl Into<String>) -> Self {
        Self { field: field.into(), cause: cause.into(), next: next.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; next: {}", self.field, self.cause, self.next)
    }
}

impl std::error::Error for ConfigError {}

type Checked = Result<(), ConfigError>;

/// Variables that the daemon sets in a sidecar's environment.
pub const RESERVED_VARIABLES: [&str; 6] = [
    "KHEISH_EXTERNAL_CONNECTOR_NAME",
    "KHEISH_EXTERNAL_CONNECTOR_BASE_URL",
    "KHEISH_EXTERNAL_CONNECTOR_DAEMON_BASE_URL",
    "KHEISH_EXTERNAL_CONNECTOR_SHARED_TOKEN",
    "KHEISH_EXTERNAL_CONNECTOR_CREDENTIAL_TOKEN",
    "KHEISH_EXTERNAL_CONNECTOR_CREDENTIAL_KEYS_JSON",
];

/// Checks a name: 1 to [`CONNECTOR_NAME_BYTES_MAX`] of `A-Z a-z 0-9 . _ -`, but not `metrics`, `.` or `..`.
///
/// # Errors
/// See [`ConfigError`].
pub fn name(name: &str) -> Checked {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let is_reserved = ["metrics", ".", ".."].contains(&name);
    if is_plain && !is_reserved && (1..=CONNECTOR_NAME_BYTES_MAX).contains(&name.len()) {
        return Ok(());
    }
    Err(ConfigError::new(
        "name",
        format!(
            "a name has 1 to {CONNECTOR_NAME_BYTES_MAX} of the characters A-Z a-z 0-9 . _ - and is not \"metrics\""
        ),
        "choose another name",
    ))
}

/// Checks a whole configuration.
///
/// # Errors
/// The first rule that it breaks.
pub fn settings(settings: &Settings) -> Checked {
    rate(settings.events_per_second())?;
    policy(settings)?;
    if let Some(id) = settings.fixed_session_id() {
        SessionId::parse(id).map_err(|error| ConfigError::new("fixed_session_id", error.to_string(), "correct it"))?;
    }
    for (field, secret) in settings.secrets() {
        if matches!(secret, SecretRef::Env(name) if name.trim().is_empty()) {
            return Err(ConfigError::new(field, "env names no variable", "name one, or use secret_ref"));
        }
    }
    match settings {
        Settings::Http(config) => {
            targets("default_reply_targets", &config.default_reply_targets)?;
            keys("default_binding_keys", &config.default_binding_keys)?;
            if !(1..=CONNECTOR_SIGNATURE_AGE_S_MAX).contains(&config.signature_max_age_secs) {
                let cause = format!("it is not from 1 to {CONNECTOR_SIGNATURE_AGE_S_MAX}");
                return Err(ConfigError::new("signature_max_age_secs", cause, "correct it"));
            }
            if config.require_hmac_signature && config.hmac_secret.is_none() {
                return Err(ConfigError::new("require_hmac_signature", "there is no hmac_secret", "set hmac_secret"));
            }
            if config.require_hmac_signature && !config.require_idempotency_key {
                let cause = "a signature is no protection from replays without keys";
                return Err(ConfigError::new("require_idempotency_key", cause, "leave it true"));
            }
            if config.hmac_secret.is_some() && !config.require_hmac_signature {
                let cause = "the secret would not be used: require_hmac_signature is false";
                return Err(ConfigError::new(
                    "hmac_secret",
                    cause,
                    "set require_hmac_signature, or leave the secret out",
                ));
            }
            open(settings, config.allow_unauthenticated_ingress, "bearer_token or a required hmac_secret")
        }
        Settings::Slack(config) => {
            targets("additional_reply_targets", &config.additional_reply_targets)?;
            keys("additional_binding_keys", &config.additional_binding_keys)?;
            for (field, list) in [
                ("allowed_api_app_ids", &config.allowed_api_app_ids),
                ("allowed_enterprise_ids", &config.allowed_enterprise_ids),
                ("allowed_team_ids", &config.allowed_team_ids),
                ("allowed_channel_ids", &config.allowed_channel_ids),
                ("allowed_file_hosts", &config.allowed_file_hosts),
            ] {
                words(field, list, CONNECTOR_LIST_MAX)?;
            }
            if config.team_bot_tokens.len() > CONNECTOR_LIST_MAX {
                return Err(too_many("team_bot_tokens", CONNECTOR_LIST_MAX));
            }
            api_base("api_base_url", config.api_base_url.as_deref())?;
            open(settings, config.allow_unauthenticated_ingress, "signing_secret")
        }
        Settings::Telegram(config) => {
            targets("additional_reply_targets", &config.additional_reply_targets)?;
            keys("additional_binding_keys", &config.additional_binding_keys)?;
            api_base("api_base_url", config.api_base_url.as_deref())?;
            polling(config)?;
            if config.allowed_chat_ids.len() > CONNECTOR_LIST_MAX {
                return Err(too_many("allowed_chat_ids", CONNECTOR_LIST_MAX));
            }
            let is_open = config.ingress_mode == IngressMode::Webhook && config.secret_token.is_none();
            if is_open && !config.allow_unauthenticated_ingress {
                return open(settings, false, "secret_token");
            }
            Ok(())
        }
        Settings::External(config) => {
            targets("additional_reply_targets", &config.additional_reply_targets)?;
            keys("additional_binding_keys", &config.additional_binding_keys)?;
            external(config)?;
            open(settings, config.allow_unauthenticated_ingress, "shared_token")
        }
    }
}

fn open(settings: &Settings, allowed: bool, secret: &str) -> Checked {
    if !settings.is_open() || allowed {
        return Ok(());
    }
    Err(ConfigError::new(
        "allow_unauthenticated_ingress",
        format!("anybody could send events: there is no {secret}"),
        "set the secret, or allow it knowingly",
    ))
}

fn polling(config: &TelegramConfig) -> Checked {
    if config.ingress_mode == IngressMode::Polling && config.bot_token.is_none() {
        let cause = "polling asks Telegram as the bot";
        return Err(ConfigError::new("bot_token", cause, "give the bot's token, or use webhook"));
    }
    let is_in_range = |seconds: &u64| (1..=TELEGRAM_POLL_TIMEOUT_S_MAX).contains(seconds);
    if config.polling_timeout_seconds.as_ref().is_some_and(|seconds| !is_in_range(seconds)) {
        let cause = format!("it is not from 1 to {TELEGRAM_POLL_TIMEOUT_S_MAX}");
        return Err(ConfigError::new("polling_timeout_seconds", cause, "correct it, or leave it out"));
    }
    Ok(())
}

fn rate(rate: u32) -> Checked {
    if (1..=CONNECTOR_EVENTS_PER_S_MAX).contains(&rate) {
        return Ok(());
    }
    let cause = format!("it is not from 1 to {CONNECTOR_EVENTS_PER_S_MAX}");
    Err(ConfigError::new("ingress_events_per_second", cause, "correct it"))
}

fn policy(settings: &Settings) -> Checked {
    let policy = settings.session_policy();
    if policy.persona_id.is_some() {
        let cause = "no persona has this id: this version has none";
        return Err(ConfigError::new("session_policy.persona_id", cause, "leave it out"));
    }
    for (field, scope) in
        [("capability_scope", &policy.capability_scope), ("credential_scope", &policy.credential_scope)]
    {
        if scope.as_ref().is_some_and(|scope| !scope.is_empty()) {
            let cause = "scopes are not in this version, and ignoring one would give more than it says";
            let next = "leave it out, and narrow the session with permission rules";
            return Err(ConfigError::new(format!("session_policy.{field}"), cause, next));
        }
    }
    Ok(())
}

fn too_many(field: &str, most: usize) -> ConfigError {
    ConfigError::new(field, format!("it has more than {most} entries"), "shorten the list")
}

fn words(field: &str, list: &[String], most: usize) -> Checked {
    if list.len() > most {
        return Err(too_many(field, most));
    }
    list.iter().try_for_each(|word| text(field, word))
}

fn text(field: &str, text: &str) -> Checked {
    let is_text = !text.trim().is_empty() && text.len() <= CONNECTOR_TEXT_BYTES_MAX && !text.contains('\0');
    if is_text {
        return Ok(());
    }
    let cause = format!("a text is empty, or has more than {CONNECTOR_TEXT_BYTES_MAX} bytes or a NUL");
    Err(ConfigError::new(field, cause, "correct it"))
}

fn keys(field: &str, keys: &[String]) -> Checked {
    words(field, keys, CONNECTOR_LIST_MAX)?;
    if keys.iter().any(|key| key.len() > CONNECTOR_BINDING_KEY_BYTES_MAX) {
        let cause = format!("a key has more than {CONNECTOR_BINDING_KEY_BYTES_MAX} bytes");
        return Err(ConfigError::new(field, cause, "shorten it"));
    }
    Ok(())
}

fn targets(field: &str, targets: &[ReplyHandle]) -> Checked {
    if targets.len() > CONNECTOR_LIST_MAX {
        return Err(too_many(field, CONNECTOR_LIST_MAX));
    }
    for target in targets {
        if !["http", "slack", "telegram", "external"].contains(&target.plugin.as_str()) {
            let next = "use http, slack, telegram or external";
            return Err(ConfigError::new(format!("{field}.plugin"), "no plugin has this name", next));
        }
        let checked = ReplyTargetInput::raw(target.plugin.clone(), target.address.clone()).check(Trust::Operator);
        checked.map_err(|error| {
            let text = error.to_string();
            let (cause, next) = text.split_once("; next: ").unwrap_or((&text, "correct it"));
            ConfigError::new(format!("{field}.address"), cause, next)
        })?;
    }
    Ok(())
}

fn base(field: &str, raw: &str) -> Result<BaseUrl, ConfigError> {
    BaseUrl::parse(raw).map_err(|error| {
        let text = error.to_string();
        let (cause, next) = text.split_once("; next: ").unwrap_or((&text, "correct it"));
        ConfigError::new(field, cause, next)
    })
}

fn api_base(field: &str, raw: Option<&str>) -> Checked {
    raw.map_or(Ok(()), |raw| base(field, raw).map(drop))
}

fn external(config: &ExternalConfig) -> Checked {
    let platform = config.platform.trim();
    if platform.is_empty() || platform != config.platform || platform.len() > 64 || platform.contains(char::is_control)
    {
        let cause = "it has 1 to 64 bytes without blanks at its ends";
        return Err(ConfigError::new("platform", cause, "name the platform, e.g. webhook"));
    }
    let url = base("base_url", &config.base_url)?;
    let target = url.target("");
    let Some((host, _)) = target.host_and_port() else {
        return Err(ConfigError::new("base_url", "it has no host", "write http://host:port"));
    };
    match config.mode {
        ExternalMode::ChildProcess => {
            let Some(child) = &config.child_process else {
                let next = "say what to start with child_process.command";
                return Err(ConfigError::new("child_process", "mode child_process needs it", next));
            };
            let is_loopback = match host {
                Host::Address(address) => address.is_loopback(),
                Host::Name(_) => host.is_localhost(),
            };
            if !is_loopback || url.is_https() || !url.path().is_empty() {
                let cause = "a sidecar listens on this host without TLS and without a path";
                return Err(ConfigError::new("base_url", cause, "write http://127.0.0.1:<port>"));
            }
            child_process(child)
        }
        ExternalMode::RemoteHttp => {
            if config.child_process.is_some() {
                let cause = "mode remote_http has no process";
                return Err(ConfigError::new("child_process", cause, "leave it out, or use mode child_process"));
            }
            let is_private = match host {
                Host::Address(address) => classify(*address).reach() != Reach::Internet,
                Host::Name(_) => host.is_localhost(),
            };
            if is_private && !config.allow_private_network {
                let cause = "it is an address of this host or of a private network";
                return Err(ConfigError::new("base_url", cause, "set allow_private_network, or use a public address"));
            }
            Ok(())
        }
    }
}

fn child_process(child: &ChildProcess) -> Checked {
    let of = |field: &str| format!("child_process.{field}");
    text(&of("command"), &child.command)?;
    if child.args.len() > SIDECAR_WORDS_MAX {
        return Err(too_many(&of("args"), SIDECAR_WORDS_MAX));
    }
    if child.args.iter().any(|word| word.len() > CONNECTOR_TEXT_BYTES_MAX || word.contains('\0')) {
        let cause = format!("an argument has more than {CONNECTOR_TEXT_BYTES_MAX} bytes or a NUL");
        return Err(ConfigError::new(of("args"), cause, "shorten it"));
    }
    if child.env.len() > SIDECAR_WORDS_MAX {
        return Err(too_many(&of("env"), SIDECAR_WORDS_MAX));
    }
    if child.credential_slots.len() > LEASE_SLOTS_MAX {
        return Err(too_many(&of("credential_slots"), LEASE_SLOTS_MAX));
    }
    for (field, name) in child
        .env
        .keys()
        .map(|name| ("env", name))
        .chain(child.credential_slots.keys().map(|name| ("credential_slots", name)))
    {
        let is_variable = (1..=LEASE_ENV_KEY_BYTES_MAX).contains(&name.len())
            && !name.as_bytes()[0].is_ascii_digit()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_variable || RESERVED_VARIABLES.contains(&name.as_str()) {
            let cause = "a name is no variable, or one that the daemon sets";
            return Err(ConfigError::new(of(field), cause, "use letters, digits and underscores, and another name"));
        }
    }
    if child.env.values().any(|value| value.len() > CONNECTOR_TEXT_BYTES_MAX || value.contains('\0')) {
        let cause = format!("a value has more than {CONNECTOR_TEXT_BYTES_MAX} bytes or a NUL");
        return Err(ConfigError::new(of("env"), cause, "shorten it"));
    }
    if let Some(name) = child.env.keys().find(|name| child.credential_slots.contains_key(*name)) {
        let cause = format!("{name} is in credential_slots as well");
        return Err(ConfigError::new(of("env"), cause, "leave one of the two out"));
    }
    for (field, path) in child
        .working_dir
        .iter()
        .map(|path| ("working_dir", path))
        .chain(child.read_only_paths.iter().map(|path| ("read_only_paths", path)))
    {
        text(&of(field), path)?;
        if !path.starts_with('/') {
            return Err(ConfigError::new(of(field), "it is no absolute path", "write it from the root on"));
        }
    }
    if child.read_only_paths.len() > SIDECAR_WORDS_MAX {
        return Err(too_many(&of("read_only_paths"), SIDECAR_WORDS_MAX));
    }
    if child.working_dir_writable && child.working_dir.is_none() {
        let next = "name the directory with working_dir";
        return Err(ConfigError::new(of("working_dir_writable"), "there is no working_dir", next));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::core::ConnectorKind;

    fn field(kind: ConnectorKind, value: Value) -> Option<String> {
        let read = Settings::read(kind, value.clone()).unwrap_or_else(|error| panic!("{value}: {error}"));
        settings(&read).err().map(|error| error.field)
    }

    #[test]
    fn names_are_safe_in_urls_and_keys() {
        for good in ["ops-webhook", "a", "A.b_c-9", &"x".repeat(64)] {
            assert_eq!(name(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "metrics", "a:b", "a/b", "a b", "é", &"x".repeat(65)] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_rule_of_http_connectors_names_its_field() {
        let token = json!({"secret_ref": "a.b"});
        let cases = [
            (json!({}), Some("allow_unauthenticated_ingress")),
            (json!({"allow_unauthenticated_ingress": true}), None),
            (json!({"bearer_token": token}), None),
            (json!({"hmac_secret": token, "require_hmac_signature": true}), None),
            (json!({"bearer_token": token, "hmac_secret": token}), Some("hmac_secret")),
            (json!({"bearer_token": token, "require_hmac_signature": true}), Some("require_hmac_signature")),
            (
                json!({"hmac_secret": token, "require_hmac_signature": true, "require_idempotency_key": false}),
                Some("require_idempotency_key"),
            ),
            (json!({"bearer_token": token, "signature_max_age_secs": 0}), Some("signature_max_age_secs")),
            (json!({"bearer_token": token, "signature_max_age_secs": 3601}), Some("signature_max_age_secs")),
            (json!({"bearer_token": token, "ingress_events_per_second": 0}), Some("ingress_events_per_second")),
            (json!({"bearer_token": token, "fixed_session_id": "a/b"}), Some("fixed_session_id")),
            (json!({"bearer_token": token, "session_policy": {"persona_id": "p"}}), Some("session_policy.persona_id")),
            (json!({"bearer_token": token, "session_policy": {"capability_scope": {}}}), None),
            (
                json!({"bearer_token": token, "session_policy": {"credential_scope": {"route_allow": ["x"]}}}),
                Some("session_policy.credential_scope"),
            ),
            (
                json!({"bearer_token": token, "default_reply_targets": [{"plugin": "smtp", "address": "x"}]}),
                Some("default_reply_targets.plugin"),
            ),
        ];
        for (value, expected) in cases {
            assert_eq!(field(ConnectorKind::Http, value.clone()).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn each_rule_of_external_connectors_names_its_field() {
        let with = |change: Value| {
            let mut value = json!({"platform": "webhook", "mode": "child_process", "base_url": "http://127.0.0.1:9",
                "shared_token": {"secret_ref": "a.b"}, "child_process": {"command": "x"}});
            let Value::Object(change) = change else { unreachable!() };
            value = super::super::config::merge(value, change);
            field(ConnectorKind::External, value)
        };
        let cases = [
            (json!({}), None),
            (json!({"base_url": "http://localhost:9/"}), None),
            (json!({"base_url": "http://[::1]:9"}), None),
            (json!({"base_url": "http://10.0.0.1:9"}), Some("base_url")),
            (json!({"base_url": "https://127.0.0.1:9"}), Some("base_url")),
            (json!({"base_url": "http://127.0.0.1:9/path"}), Some("base_url")),
            (json!({"base_url": "http://u:p@127.0.0.1:9"}), Some("base_url")),
            (json!({"platform": " "}), Some("platform")),
            (json!({"shared_token": null}), Some("allow_unauthenticated_ingress")),
            (json!({"child_process": null}), Some("child_process")),
            (json!({"mode": "remote_http"}), Some("child_process")),
            (json!({"mode": "remote_http", "child_process": null}), Some("base_url")),
            (
                json!({"mode": "remote_http", "child_process": null, "base_url": "http://metadata.localhost"}),
                Some("base_url"),
            ),
            (json!({"mode": "remote_http", "child_process": null, "allow_private_network": true}), None),
            (json!({"mode": "remote_http", "child_process": null, "base_url": "https://bridge.example"}), None),
            (json!({"child_process": {"command": " "}}), Some("child_process.command")),
            (
                json!({"child_process": {"command": "x", "env": {"KHEISH_EXTERNAL_CONNECTOR_NAME": "y"}}}),
                Some("child_process.env"),
            ),
            (
                json!({"child_process": {"command": "x", "credential_slots": {"9A": "s.s"}}}),
                Some("child_process.credential_slots"),
            ),
            (
                json!({"child_process": {"command": "x", "env": {"A": "1"}, "credential_slots": {"A": "s.s"}}}),
                Some("child_process.env"),
            ),
            (json!({"child_process": {"command": "x", "working_dir": "here"}}), Some("child_process.working_dir")),
            (
                json!({"child_process": {"command": "x", "working_dir_writable": true}}),
                Some("child_process.working_dir_writable"),
            ),
        ];
        for (change, expected) in cases {
            assert_eq!(with(change.clone()).as_deref(), expected, "{change}");
        }
    }

    #[test]
    fn chat_connectors_need_their_secret_or_a_word() {
        let secret = json!({"secret_ref": "a.b"});
        for (kind, name) in [(ConnectorKind::Slack, "signing_secret"), (ConnectorKind::Telegram, "secret_token")] {
            assert_eq!(field(kind, json!({})).as_deref(), Some("allow_unauthenticated_ingress"));
            assert_eq!(field(kind, json!({name: secret})), None);
            assert_eq!(field(kind, json!({"allow_unauthenticated_ingress": true})), None);
        }
        let polling = |change: Value| {
            let polling =
                super::super::config::merge(json!({"ingress_mode": "polling"}), change.as_object().unwrap().clone());
            field(ConnectorKind::Telegram, polling)
        };
        assert_eq!(polling(json!({"secret_token": secret})).as_deref(), Some("bot_token"));
        assert_eq!(polling(json!({"bot_token": secret})), None, "nobody can send it anything");
        for seconds in [0, 51] {
            let change = json!({"bot_token": secret, "polling_timeout_seconds": seconds});
            assert_eq!(polling(change).as_deref(), Some("polling_timeout_seconds"));
        }
    }
}
