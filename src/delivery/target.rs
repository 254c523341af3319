//! Reply targets: from what a caller writes to what the core keeps, and back to a place.
//! Owns: the forms of addresses and their checks, and how the connectors are asked.
//! Never: lets whoever is not trusted name a secret or open a private network.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::broker::SlotId;
use crate::core::{ReplyPlugin, RunReplyTarget};
use crate::limits::{LABEL_BYTES_MAX, REPLY_ADDRESS_BYTES_MAX, REPLY_HEADER_VALUE_BYTES_MAX, REPLY_HEADERS_MAX};
use crate::net::Target;
use crate::secret::Secret;

/// Slots that a target may name begin with this: any other could be sent to any address.
const SLOT_PREFIX: &str = "deliveries.";

/// Header lines that belong to the daemon.
const FORBIDDEN_HEADERS: [&str; 18] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "idempotency-key",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "x-api-key",
];

/// Why a reply target was refused. Never repeats an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetError {
    reason: String,
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the reply target cannot be used: {}", self.reason)
    }
}

impl std::error::Error for TargetError {}

fn refuse<T>(reason: impl Into<String>) -> Result<T, TargetError> {
    Err(TargetError { reason: reason.into() })
}

/// Whose word a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// An operator's, with the control plane's token or in a file.
    Operator,
    /// Something that came in through a connector: it names no secret and opens no private network.
    Payload,
}

/// An HTTP address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpAddress {
    /// Where to.
    pub url: String,
    /// Further header lines.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Opens private networks and this host for this target.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_private_network: bool,
    /// A slot `deliveries.…` whose secret is sent as a bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_secret_ref: Option<String>,
    /// A slot `deliveries.…` whose secret signs requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hmac_secret_ref: Option<String>,
}

/// A route of an external connector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalAddress {
    /// The connector.
    pub connector: String,
    /// The sidecar's own words.
    pub route: String,
}

/// A place in Slack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlackAddress {
    /// The connector.
    pub connector: String,
    /// Kept for the connector's checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enterprise_id: Option<String>,
    /// The workspace, for connectors of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team_id: Option<String>,
    /// The channel.
    pub channel_id: String,
    /// The thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread_ts: Option<String>,
}

/// A Telegram chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelegramAddress {
    /// The connector.
    pub connector: String,
    /// The chat.
    pub chat_id: i64,
    /// Its topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_thread_id: Option<i64>,
    /// The message that is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to_message_id: Option<i64>,
}

/// An address, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// See [`HttpAddress`].
    Http(HttpAddress),
    /// See [`ExternalAddress`].
    External(ExternalAddress),
    /// See [`SlackAddress`].
    Slack(SlackAddress),
    /// See [`TelegramAddress`].
    Telegram(TelegramAddress),
}

impl Address {
    /// Reads and checks a target's address.
    ///
    /// # Errors
    /// The rule that was broken.
    pub fn read(target: &RunReplyTarget) -> Result<Self, TargetError> {
        let text = target.address.trim();
        if text.is_empty() || text.len() > REPLY_ADDRESS_BYTES_MAX {
            return refuse(format!("its address has 1 to {REPLY_ADDRESS_BYTES_MAX} bytes; next: shorten it"));
        }
        fn json<'de, T: Deserialize<'de>>(text: &'de str, form: &str) -> Result<T, TargetError> {
            // The parser's words may repeat a value, so only the place is told.
            serde_json::from_str(text).or_else(|error| {
                refuse(format!("its address is not {form} (column {}); next: write it so", error.column()))
            })
        }
        let address = match target.plugin {
            ReplyPlugin::Http if !text.starts_with('{') => Self::Http(HttpAddress {
                url: text.to_string(),
                headers: BTreeMap::new(),
                allow_private_network: false,
                bearer_secret_ref: None,
                hmac_secret_ref: None,
            }),
            ReplyPlugin::Http => Self::Http(json(text, "a URL or {\"url\", \"headers\"?, …}")?),
            ReplyPlugin::External => Self::External(json(text, "{\"connector\", \"route\"}")?),
            ReplyPlugin::Slack => Self::Slack(json(text, "{\"connector\", \"channel_id\", …}")?),
            ReplyPlugin::Telegram => Self::Telegram(json(text, "{\"connector\", \"chat_id\", …}")?),
        };
        address.check()?;
        Ok(address)
    }

    /// The connector that it goes through.
    pub fn connector(&self) -> Option<&str> {
        match self {
            Self::Http(_) => None,
            Self::External(address) => Some(&address.connector),
            Self::Slack(address) => Some(&address.connector),
            Self::Telegram(address) => Some(&address.connector),
        }
    }

    fn check(&self) -> Result<(), TargetError> {
        if let Some(name) = self.connector()
            && (name.is_empty() || name.len() > LABEL_BYTES_MAX || name.contains(char::is_control))
        {
            return refuse("its connector has no usable name; next: name a connector");
        }
        let Self::Http(http) = self else { return Ok(()) };
        if let Err(error) = Target::parse(&http.url) {
            return refuse(error.to_string());
        }
        if http.headers.len() > REPLY_HEADERS_MAX {
            return refuse(format!("it has more than {REPLY_HEADERS_MAX} header lines; next: leave some out"));
        }
        for (name, value) in &http.headers {
            let lower = name.to_ascii_lowercase();
            let is_token = !name.is_empty()
                && name.len() <= LABEL_BYTES_MAX
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            let is_ours = FORBIDDEN_HEADERS.contains(&lower.as_str())
                || lower.starts_with("x-forwarded-")
                || lower.starts_with("x-kheish-")
                || lower.starts_with("proxy-");
            let is_text = value.len() <= REPLY_HEADER_VALUE_BYTES_MAX
                && value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
            if !is_token || is_ours || !is_text {
                return refuse(format!(
                    "its header {:?} cannot be set; next: leave it out",
                    name.escape_debug().to_string()
                ));
            }
        }
        for slot in [&http.bearer_secret_ref, &http.hmac_secret_ref].into_iter().flatten() {
            if SlotId::parse(slot).is_err() || !slot.starts_with(SLOT_PREFIX) {
                return refuse(format!(
                    "a secret of a target is in a slot that begins with {SLOT_PREFIX}; next: use such a slot"
                ));
            }
        }
        if http.bearer_secret_ref.is_some()
            && !http.allow_private_network
            && Target::parse(&http.url).is_ok_and(|target| !target.is_https())
        {
            return refuse("a bearer token does not travel over plain http; next: use https, or hmac_secret_ref");
        }
        Ok(())
    }
}

/// A reply target as callers write it.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum ReplyTargetInput {
    /// With a `type`.
    Typed(TypedTarget),
    /// `{"plugin", "address"}`.
    Raw(RawTarget),
}

/// See [`ReplyTargetInput::Raw`].
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawTarget {
    plugin: String,
    address: String,
}

impl fmt::Debug for RawTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawTarget({} ..)", self.plugin.escape_debug())
    }
}

/// See [`ReplyTargetInput::Typed`].
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the variants are the forms of addresses")]
pub enum TypedTarget {
    Raw(RawTarget),
    Http(HttpAddress),
    External(ExternalAddress),
    Slack(SlackAddress),
    Telegram(TelegramAddress),
}

impl ReplyTargetInput {
    /// `{"plugin", "address"}`.
    pub fn raw(plugin: String, address: String) -> Self {
        Self::Raw(RawTarget { plugin, address })
    }

    /// What the core keeps of it.
    ///
    /// # Errors
    /// The rule that was broken.
    pub fn check(self, trust: Trust) -> Result<RunReplyTarget, TargetError> {
        let json = |plugin, address: String| RunReplyTarget { plugin, address };
        let target = match self {
            Self::Raw(raw) | Self::Typed(TypedTarget::Raw(raw)) => match ReplyPlugin::parse(raw.plugin.trim()) {
                Some(plugin) => RunReplyTarget { plugin, address: raw.address.trim().to_string() },
                None => return refuse("its plugin is unknown; next: use http, slack, telegram or external"),
            },
            Self::Typed(TypedTarget::Http(address)) => json(ReplyPlugin::Http, text(&address)),
            Self::Typed(TypedTarget::External(address)) => json(ReplyPlugin::External, text(&address)),
            Self::Typed(TypedTarget::Slack(address)) => json(ReplyPlugin::Slack, text(&address)),
            Self::Typed(TypedTarget::Telegram(address)) => json(ReplyPlugin::Telegram, text(&address)),
        };
        Self::admit(&target, trust)?;
        Ok(target)
    }

    /// As [`ReplyTargetInput::check`], of a target that has its form already.
    ///
    /// # Errors
    /// The rule that was broken.
    pub fn admit(target: &RunReplyTarget, trust: Trust) -> Result<(), TargetError> {
        let address = Address::read(target)?;
        if let (Address::Http(http), Trust::Payload) = (&address, trust)
            && (http.allow_private_network || http.bearer_secret_ref.is_some() || http.hmac_secret_ref.is_some())
        {
            return refuse("a payload names no secret and opens no private network; next: leave that to the operator");
        }
        Ok(())
    }
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings, numbers and maps of strings serialise")
}

/// How a connector is reached now.
#[derive(Clone)]
pub struct ConnectorEgress {
    /// `base_url` of an external connector; the API's base URL of the others.
    pub base_url: String,
    /// The connector's own setting.
    pub allow_private: bool,
    /// Shared token or bot token; `None` where it has none.
    pub secret: Option<Arc<Secret>>,
}

/// Why a connector cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EgressError {
    /// There is none of that name and kind, or it may not be used for this place: trying again does not help.
    Refused(String),
    /// Not now.
    NotNow(String),
}

/// Who knows the connectors.
pub trait Connectors: Send + Sync {
    /// How the connector behind `address` is reached.
    ///
    /// # Errors
    /// See [`EgressError`].
    fn egress(&self, address: &Address) -> Result<ConnectorEgress, EgressError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, trust: Trust) -> Result<RunReplyTarget, String> {
        let input: ReplyTargetInput = serde_json::from_str(json).map_err(|error| error.to_string())?;
        input.check(trust).map_err(|error| error.to_string())
    }

    #[test]
    fn a_payload_cannot_name_a_secret_or_open_a_private_network() {
        for address in [
            r#"{"type":"http","url":"https://a.example/","allow_private_network":true}"#,
            r#"{"type":"http","url":"https://a.example/","bearer_secret_ref":"deliveries.a"}"#,
            r#"{"plugin":"http","address":"{\"url\":\"https://a.example/\",\"hmac_secret_ref\":\"deliveries.a\"}"}"#,
        ] {
            assert!(check(address, Trust::Operator).is_ok(), "{address}");
            assert!(check(address, Trust::Payload).is_err(), "{address}");
        }
        assert!(check(r#"{"plugin":"http","address":"https://a.example/x"}"#, Trust::Payload).is_ok());
    }

    #[test]
    fn nobody_can_send_the_secret_of_another_room_or_set_the_daemons_headers() {
        for address in [
            r#"{"type":"http","url":"https://a.example/","bearer_secret_ref":"openai.prod"}"#,
            r#"{"type":"http","url":"https://a.example/","hmac_secret_ref":"sidecars.webhook"}"#,
            r#"{"type":"http","url":"http://a.example/","bearer_secret_ref":"deliveries.a"}"#,
            r#"{"type":"http","url":"https://a.example/","headers":{"Idempotency-Key":"x"}}"#,
            r#"{"type":"http","url":"https://a.example/","headers":{"X-Forwarded-For":"x"}}"#,
            r#"{"type":"http","url":"https://a.example/","headers":{"X-Kheish-Signature":"x"}}"#,
            r#"{"type":"http","url":"https://a.example/","headers":{"a":"x\r\nb: c"}}"#,
            r#"{"type":"http","url":"https://user:pw@a.example/"}"#,
            r#"{"type":"http","url":"ftp://a.example/"}"#,
            r#"{"type":"http","url":"https://a.example/","unknown":1}"#,
            r#"{"type":"external","connector":"","route":"r"}"#,
            r#"{"plugin":"smtp","address":"x"}"#,
            r#"{"plugin":"external","address":"not json"}"#,
            r#"{"plugin":"http","address":""}"#,
        ] {
            assert!(check(address, Trust::Operator).is_err(), "{address}");
        }
    }

    #[test]
    fn an_error_repeats_no_part_of_an_address() {
        for address in [
            r#"{"plugin":"http","address":"https://user:hunter2@a.example/"}"#,
            r#"{"plugin":"http","address":"{\"url\":\"x\",\"hunter2\":1}"}"#,
            r#"{"plugin":"external","address":"{\"connector\":\"hunter2\",\"route\":2}"}"#,
        ] {
            let error = check(address, Trust::Operator).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
