//! Slot records: what a credential is, and what may be shown of it.
//! Owns: the rules of ids, providers and secrets, and the masked view of a record.
//! May touch: nothing outside its arguments.
//! Never: shows any part of a secret, its length included; repeats input in an error text.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::account::{AccountDetails, AccountIn, McpAccount};
use super::wire::{RecordIn, json_length};
use crate::limits::{
    API_KEY_BYTES_MAX, SECRET_BYTES_MAX, SECRET_BYTES_MIN, SECRETS_IMPORT_MAX, SLOT_ID_BYTES_MAX, SLOT_LABEL_BYTES_MAX,
};
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
    /// One record of many, counted from 1.
    InList { number: usize, error: Box<SlotError> },
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
                "slot provider is unknown; next: use one of generic, openai, anthropic, google, openrouter, xai; accounts \
                 of MCP servers are mcp_oauth"
            ),
            Self::ReservedPrefix { prefix } => write!(
                f,
                "slot ids beginning with {prefix:?} are kept for generic slots; next: use provider generic, \
                 or another id"
            ),
            Self::Field { field, rule } => write!(f, "slot field {field} {rule}; next: correct it"),
            Self::InList { number, error } => {
                write!(f, "record {number} of the import, which was refused whole: {error}")
            }
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
    /// The authorization server of an MCP server: the slot holds an account.
    McpOauth,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Generic, Self::OpenAi, Self::Anthropic, Self::Google, Self::OpenRouter, Self::XAi, Self::McpOauth];

    /// The spelling of JSON records: `open_ai`.
    pub fn as_json(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::OpenAi => "open_ai",
            Self::Anthropic => "anthropic",
            Self::Google => "google",
            Self::OpenRouter => "open_router",
            Self::XAi => "x_ai",
            Self::McpOauth => "mcp_oauth",
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
            Self::McpOauth => "mcp_oauth",
        }
    }

    /// Reads either spelling.
    ///
    /// # Errors
    /// [`SlotError::UnknownProvider`].
    pub fn parse(raw: &str) -> Result<Self, SlotError> {
        let raw = if raw == "mcp_o_auth" { "mcp_oauth" } else { raw };
        let is_named = |provider: &Self| raw == provider.as_json() || raw == provider.as_name();
        Self::ALL.into_iter().find(is_named).ok_or(SlotError::UnknownProvider)
    }

    /// How its credentials are used.
    pub fn mode(self) -> Mode {
        match self {
            Self::Generic => Mode::OpaqueSecret,
            Self::McpOauth => Mode::OauthAccount,
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
    /// Tokens that are refreshed.
    #[serde(alias = "o_auth_account")]
    OauthAccount,
}

/// What a slot holds.
#[derive(Debug)]
pub(super) enum Material {
    /// A key or an opaque text.
    Text { secret: Secret, organization: Option<String>, project: Option<String> },
    /// An account.
    Account(Box<McpAccount>),
}

/// One credential with its secret. Every value of this type obeys the rules of its provider.
#[derive(Debug)]
pub struct SlotRecord {
    id: SlotId,
    provider: Provider,
    material: Material,
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
            Provider::McpOauth => {
                return Err(SlotError::Field {
                    field: "provider",
                    rule: "mcp_oauth holds an account, which comes from a login or an import",
                });
            }
            _ => check_api_key(&secret)?,
        }
        let organization = check_label("state.organization", organization, provider)?;
        let project = check_label("state.project", project, provider)?;
        Ok(Self { id, provider, material: Material::Text { secret, organization, project }, updated_at_ms })
    }

    /// The record of an MCP server's account; its slot lives below `mcp.oauth.`.
    ///
    /// # Errors
    /// The part that breaks a rule.
    pub fn account(id: SlotId, account: McpAccount, updated_at_ms: u64) -> Result<Self, SlotError> {
        let material = Material::Account(Box::new(account.checked(&id)?));
        Ok(Self { id, provider: Provider::McpOauth, material, updated_at_ms })
    }

    /// Reads the body of `POST /v1/runtime/auth/accounts/mcp-oauth`: the account's fields beside its slot id.
    ///
    /// # Errors
    /// As [`SlotRecord::from_json`].
    pub fn account_from_json(text: &[u8], now_ms: u64) -> Result<Self, SlotError> {
        let wire: AccountIn = serde_json::from_slice(text)
            .map_err(|error| SlotError::Malformed { line: error.line(), column: error.column() })?;
        let id = SlotId::parse(&wire.slot_id)?;
        Self::account(id, wire.into_account(), now_ms)
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

    /// Reads many records, `{"slots":[…]}`: all of them or none.
    ///
    /// # Errors
    /// The text is malformed, or a record breaks a rule; `slot` counts from 1. The error repeats nothing of it.
    pub fn list_from_json(text: &[u8], now_ms: u64) -> Result<Vec<Self>, SlotError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct ListIn {
            slots: Vec<RecordIn>,
        }
        let list: ListIn = serde_json::from_slice(text)
            .map_err(|error| SlotError::Malformed { line: error.line(), column: error.column() })?;
        if list.slots.is_empty() || list.slots.len() > SECRETS_IMPORT_MAX {
            return Err(SlotError::Field { field: "slots", rule: "has none, or more than a store can hold" });
        }
        let mut records: Vec<Self> = Vec::with_capacity(list.slots.len());
        for (index, slot) in list.slots.into_iter().enumerate() {
            let in_list = |error| SlotError::InList { number: index + 1, error: Box::new(error) };
            let record = slot.check(Some(now_ms)).map_err(in_list)?;
            if records.iter().any(|other| other.id == record.id) {
                return Err(in_list(SlotError::Field { field: "slot_id", rule: "is there twice" }));
            }
            records.push(record);
        }
        Ok(records)
    }

    /// What may be shown.
    pub fn status(&self) -> SlotStatus {
        let (summary, details) = match &self.material {
            Material::Account(account) => {
                (format!("mcp_oauth_account:{}", account.server_name), Some(account.details()))
            }
            Material::Text { .. } if self.provider == Provider::Generic => ("opaque_secret".to_string(), None),
            Material::Text { .. } => ("api_key".to_string(), None),
        };
        SlotStatus {
            slot_id: self.id.clone(),
            provider: self.provider,
            mode: self.provider.mode(),
            summary,
            updated_at_ms: self.updated_at_ms,
            details,
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

    /// When it was written.
    pub fn updated_at_ms(&self) -> u64 {
        self.updated_at_ms
    }

    pub(super) fn material(&self) -> &Material {
        &self.material
    }

    pub(super) fn secrets(&self) -> Box<dyn Iterator<Item = &Secret> + '_> {
        match &self.material {
            Material::Text { secret, .. } => Box::new(std::iter::once(secret)),
            Material::Account(account) => Box::new(account.secrets()),
        }
    }

    pub(super) fn into_secrets(self) -> Vec<Secret> {
        match self.material {
            Material::Text { secret, .. } => vec![secret],
            Material::Account(account) => account.into_secrets(),
        }
    }

    /// The secret that goes into a request: the key, the text, or the access token.
    pub(super) fn usable(&self) -> &Secret {
        match &self.material {
            Material::Text { secret, .. } => secret,
            Material::Account(account) => &account.access_token,
        }
    }

    pub(super) fn organization(&self) -> Option<&str> {
        match &self.material {
            Material::Text { organization, .. } => organization.as_deref(),
            Material::Account(_) => None,
        }
    }

    pub(super) fn project(&self) -> Option<&str> {
        match &self.material {
            Material::Text { project, .. } => project.as_deref(),
            Material::Account(_) => None,
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
    /// More of an account; absent for keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<AccountDetails>,
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
