//! Slot records: what a credential is, and what may be shown of it.
//! Owns: the JSON forms of a record (with the secret) and of its masked view (without).
//! May touch: nothing outside its arguments.
//! Never: shows any part of a secret, its length included; repeats input in an error text.

use std::fmt;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{API_KEY_BYTES_MAX, SECRET_BYTES_MAX, SECRET_BYTES_MIN, SLOT_ID_BYTES_MAX, SLOT_LABEL_BYTES_MAX};
use crate::secret::Secret;

/// Why a slot record, or a part of it, was refused. Never holds what was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant's line says what its fields hold")]
pub enum SlotError {
    /// The text is not JSON, or not of a record's shape, at `line` and `column`.
    Malformed { line: usize, column: usize },
    /// The slot id breaks the grammar.
    Id,
    /// No provider has that name.
    UnknownProvider,
    /// The id's prefix is kept for generic slots.
    ReservedPrefix { prefix: &'static str },
    /// A field is missing, or does not belong to this provider and mode.
    Field { field: &'static str, rule: &'static str },
}

impl fmt::Display for SlotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { line, column } => write!(
                f,
                "slot record is malformed at line {line}, column {column}; next: send an object with slot_id, \
                 provider, mode and state, and no other field"
            ),
            Self::Id => write!(
                f,
                "slot id is invalid; next: use 1 to {SLOT_ID_BYTES_MAX} of the characters a-z A-Z 0-9 . _ - : @, \
                 beginning with a letter or digit and without '..'"
            ),
            Self::UnknownProvider => write!(
                f,
                "slot provider is unknown; next: use one of generic, openai, anthropic, google, openrouter, xai"
            ),
            Self::ReservedPrefix { prefix } => write!(
                f,
                "slot ids beginning with {prefix:?} are kept for generic slots; next: use provider generic, \
                 or another id"
            ),
            Self::Field { field, rule } => write!(f, "slot field {field} {rule}; next: correct it"),
        }
    }
}

impl std::error::Error for SlotError {}

/// A slot's id, also called its `auth_ref` or `secret_ref`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct SlotId(String);

impl SlotId {
    /// Accepts 1 to [`SLOT_ID_BYTES_MAX`] of `a-z A-Z 0-9 . _ - : @`, beginning with a letter or digit and
    /// without `..`, so that an id is safe in a path, a log line and a route file.
    ///
    /// # Errors
    /// [`SlotError::Id`].
    pub fn parse(raw: &str) -> Result<Self, SlotError> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:@".contains(&byte);
        let is_id = raw.len() <= SLOT_ID_BYTES_MAX
            && raw.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
            && raw.bytes().all(is_allowed)
            && !raw.contains("..");
        if is_id { Ok(Self(raw.to_string())) } else { Err(SlotError::Id) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SlotId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&raw).map_err(D::Error::custom)
    }
}

/// Whose credential a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provider {
    /// Nobody's in particular: an opaque text for a connector, an MCP server or a sidecar.
    Generic,
    /// OpenAI, or a server that speaks its wire format.
    OpenAi,
    /// Anthropic.
    Anthropic,
    /// Google.
    Google,
    /// OpenRouter.
    OpenRouter,
    /// xAI.
    XAi,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Generic, Self::OpenAi, Self::Anthropic, Self::Google, Self::OpenRouter, Self::XAi];

    /// The spelling of JSON records: `open_ai`.
    pub fn as_json(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::OpenAi => "open_ai",
            Self::Anthropic => "anthropic",
            Self::Google => "google",
            Self::OpenRouter => "open_router",
            Self::XAi => "x_ai",
        }
    }

    /// The spelling of the command line, route files and prose: `openai`.
    pub fn as_name(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Google => "google",
            Self::OpenRouter => "openrouter",
            Self::XAi => "xai",
        }
    }

    /// Reads either spelling.
    ///
    /// # Errors
    /// [`SlotError::UnknownProvider`].
    pub fn parse(raw: &str) -> Result<Self, SlotError> {
        let is_named = |provider: &Self| raw == provider.as_json() || raw == provider.as_name();
        Self::ALL.into_iter().find(is_named).ok_or(SlotError::UnknownProvider)
    }

    fn mode(self) -> Mode {
        match self {
            Self::Generic => Mode::OpaqueSecret,
            _ => Mode::ApiKey,
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_name())
    }
}

impl Serialize for Provider {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_json())
    }
}

impl<'de> Deserialize<'de> for Provider {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&raw).map_err(D::Error::custom)
    }
}

/// How a slot's credential is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A text that only its user understands.
    OpaqueSecret,
    /// A key that goes into a request header.
    ApiKey,
}

/// One credential with its secret. Every value of this type obeys the rules of its provider.
#[derive(Debug)]
pub struct SlotRecord {
    id: SlotId,
    provider: Provider,
    secret: Secret,
    organization: Option<String>,
    project: Option<String>,
    updated_at_ms: u64,
}

impl SlotRecord {
    /// A record from its parts. `organization` and `project` belong to OpenAI alone; blank ones count as
    /// absent.
    ///
    /// # Errors
    /// The part that breaks a rule.
    pub fn new(
        id: SlotId,
        provider: Provider,
        secret: Secret,
        organization: Option<String>,
        project: Option<String>,
        updated_at_ms: u64,
    ) -> Result<Self, SlotError> {
        check_prefix(&id, provider)?;
        match provider {
            Provider::Generic => check_opaque(&secret)?,
            _ => check_api_key(&secret)?,
        }
        let organization = check_label("state.organization", organization, provider)?;
        let project = check_label("state.project", project, provider)?;
        Ok(Self { id, provider, secret, organization, project, updated_at_ms })
    }

    /// Reads the JSON form (the body of `POST /v1/runtime/secrets`). The time is stamped here, whatever the
    /// sender put into `updated_at_ms`.
    ///
    /// # Errors
    /// The text is malformed or breaks a rule; the error repeats nothing of it.
    pub fn from_json(text: &[u8], now_ms: u64) -> Result<Self, SlotError> {
        let wire: RecordIn = serde_json::from_slice(text)
            .map_err(|error| SlotError::Malformed { line: error.line(), column: error.column() })?;
        wire.check(Some(now_ms))
    }

    /// The JSON form, secret included.
    pub fn to_json(&self) -> Secret {
        // Counted first, so that the buffer never moves and leaves no copy behind.
        let mut text = Vec::with_capacity(json_length(&self.wire()));
        serde_json::to_writer(&mut text, &self.wire()).expect("a record's fields are strings and numbers");
        Secret::new(text)
    }

    /// What may be shown.
    pub fn status(&self) -> SlotStatus {
        let mode = self.provider.mode();
        let summary = match mode {
            Mode::OpaqueSecret => "opaque_secret",
            Mode::ApiKey => "api_key",
        };
        SlotStatus {
            slot_id: self.id.clone(),
            provider: self.provider,
            mode,
            summary: summary.to_string(),
            updated_at_ms: self.updated_at_ms,
        }
    }

    /// The slot's id.
    pub fn id(&self) -> &SlotId {
        &self.id
    }

    /// Whose credential it is.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }

    pub(super) fn into_secret(self) -> Secret {
        self.secret
    }

    pub(super) fn organization(&self) -> Option<&str> {
        self.organization.as_deref()
    }

    pub(super) fn project(&self) -> Option<&str> {
        self.project.as_deref()
    }

    /// The borrowed form that serde writes.
    pub(super) fn wire(&self) -> RecordOut<'_> {
        let is_generic = self.provider == Provider::Generic;
        let is_openai = self.provider == Provider::OpenAi;
        RecordOut {
            slot_id: &self.id,
            provider: self.provider,
            mode: self.provider.mode(),
            state: StateOut {
                kind: (!is_generic).then_some("api_key"),
                value: is_generic.then_some(SecretOut(&self.secret)),
                api_key: (!is_generic).then_some(SecretOut(&self.secret)),
                organization: is_openai.then_some(self.organization.as_deref()),
                project: is_openai.then_some(self.project.as_deref()),
            },
            updated_at_ms: self.updated_at_ms,
        }
    }
}

/// What may be shown of a slot: metadata, no part of the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// The slot's id.
    pub slot_id: SlotId,
    /// Whose credential it is.
    pub provider: Provider,
    /// How it is used.
    pub mode: Mode,
    /// The kind of credential, in a word.
    pub summary: String,
    /// When it was last written.
    pub updated_at_ms: u64,
}

fn check_prefix(id: &SlotId, provider: Provider) -> Result<(), SlotError> {
    match ["connectors.", "mcp."].into_iter().find(|prefix| id.as_str().starts_with(prefix)) {
        Some(prefix) if provider != Provider::Generic => Err(SlotError::ReservedPrefix { prefix }),
        _ => Ok(()),
    }
}

fn check_opaque(secret: &Secret) -> Result<(), SlotError> {
    let refuse = |rule| Err(SlotError::Field { field: "state.value", rule });
    let Ok(text) = std::str::from_utf8(secret.expose()) else {
        return refuse("must be UTF-8 text");
    };
    if text.trim().len() < SECRET_BYTES_MIN {
        return refuse("must have at least 8 bytes besides blanks");
    }
    if text.len() > SECRET_BYTES_MAX {
        return refuse("must have at most 65536 bytes");
    }
    Ok(())
}

fn check_api_key(secret: &Secret) -> Result<(), SlotError> {
    let refuse = |rule| Err(SlotError::Field { field: "state.api_key", rule });
    // It goes into a header line, where a blank or a line break would change the request.
    if !secret.expose().iter().all(u8::is_ascii_graphic) {
        return refuse("must be visible ASCII without blanks");
    }
    if secret.len() < SECRET_BYTES_MIN {
        return refuse("must have at least 8 bytes");
    }
    if secret.len() > API_KEY_BYTES_MAX {
        return refuse("must have at most 4096 bytes");
    }
    Ok(())
}

const _: () = assert!(SECRET_BYTES_MIN == 8 && SECRET_BYTES_MAX == 65_536 && API_KEY_BYTES_MAX == 4_096);

fn check_label(field: &'static str, label: Option<String>, provider: Provider) -> Result<Option<String>, SlotError> {
    let refuse = |rule| Err(SlotError::Field { field, rule });
    match label.filter(|label| !label.trim().is_empty()) {
        None => Ok(None),
        Some(_) if provider != Provider::OpenAi => refuse("belongs to provider openai alone"),
        Some(label) if label.len() > SLOT_LABEL_BYTES_MAX => refuse("is too long"),
        Some(label) if !label.bytes().all(|byte| byte.is_ascii_graphic()) => {
            refuse("must be visible ASCII without blanks")
        }
        Some(label) => Ok(Some(label)),
    }
}

/// A record as it is read: shape only; [`RecordIn::check`] judges.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordIn {
    slot_id: String,
    provider: String,
    mode: Mode,
    state: StateIn,
    #[serde(default)]
    updated_at_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StateIn {
    kind: Option<String>,
    value: Option<SecretIn>,
    api_key: Option<SecretIn>,
    organization: Option<String>,
    project: Option<String>,
}

impl RecordIn {
    /// Applies the rules; `now_ms` replaces the time that was read.
    pub(super) fn check(self, now_ms: Option<u64>) -> Result<SlotRecord, SlotError> {
        let id = SlotId::parse(&self.slot_id)?;
        let provider = Provider::parse(&self.provider)?;
        let state = self.state;
        if self.mode != provider.mode() {
            return Err(SlotError::Field { field: "mode", rule: "does not fit the provider" });
        }
        let (secret, field, other, other_field, kind) = match provider {
            Provider::Generic => (state.value, "state.value", state.api_key, "state.api_key", None),
            _ => (state.api_key, "state.api_key", state.value, "state.value", Some("api_key")),
        };
        if other.is_some() {
            return Err(SlotError::Field { field: other_field, rule: "does not fit the provider" });
        }
        if state.kind.is_some() && state.kind.as_deref() != kind {
            return Err(SlotError::Field { field: "state.kind", rule: "does not fit the provider and mode" });
        }
        let secret = secret.ok_or(SlotError::Field { field, rule: "is missing" })?.0;
        let updated_at_ms = now_ms.unwrap_or(self.updated_at_ms);
        SlotRecord::new(id, provider, secret, state.organization, state.project, updated_at_ms)
    }
}

/// A record as it is written.
#[derive(Serialize)]
pub(super) struct RecordOut<'a> {
    slot_id: &'a SlotId,
    provider: Provider,
    mode: Mode,
    state: StateOut<'a>,
    updated_at_ms: u64,
}

#[derive(Serialize)]
struct StateOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<SecretOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<SecretOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<Option<&'a str>>,
}

/// The one place where a secret becomes JSON text.
struct SecretOut<'a>(&'a Secret);

impl Serialize for SecretOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(self.0.expose()).expect("every slot's secret is UTF-8"))
    }
}

/// The one place where JSON text becomes a secret.
struct SecretIn(Secret);

impl<'de> Deserialize<'de> for SecretIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = SecretIn;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<SecretIn, E> {
                Ok(SecretIn(Secret::new(text.as_bytes().to_vec())))
            }
            fn visit_string<E: serde::de::Error>(self, text: String) -> Result<SecretIn, E> {
                Ok(SecretIn(Secret::new(text.into_bytes())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// The exact length of `value` as compact JSON.
pub(super) fn json_length(value: &impl Serialize) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).expect("counting cannot fail");
    count.0
}

/// A copy that wipes itself like the original.
pub(super) fn duplicate(secret: &Secret) -> Secret {
    Secret::new(secret.expose().to_vec())
}
