//! The JSON forms of slot records, secrets included.
//! Owns: the one place where a secret becomes JSON text, and the one where JSON text becomes a secret.
//! May touch: nothing outside its arguments.
//! Never: is used for what is shown; that is `SlotStatus`.

use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::account::{ClientAuth, McpAccount};
use super::slot::{Material, Mode, Provider, SlotError, SlotId, SlotRecord};
use crate::secret::Secret;

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

/// The fields of all kinds of records; which of them belong together is judged later.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StateIn {
    kind: Option<String>,
    value: Option<SecretIn>,
    api_key: Option<SecretIn>,
    organization: Option<String>,
    project: Option<String>,
    server_name: Option<String>,
    resource: Option<String>,
    issuer: Option<String>,
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    client_id: Option<String>,
    client_secret: Option<SecretIn>,
    token_endpoint_auth_method: Option<ClientAuth>,
    access_token: Option<SecretIn>,
    refresh_token: Option<SecretIn>,
    expires_at_ms: Option<u64>,
    scopes: Option<Vec<String>>,
    last_refresh_at_ms: Option<u64>,
    last_refresh_outcome: Option<String>,
}

fn refuse<T>(field: &'static str, rule: &'static str) -> Result<T, SlotError> {
    Err(SlotError::Field { field, rule })
}

const FOREIGN: &str = "does not fit the provider";

impl RecordIn {
    /// Applies the rules; `now_ms` replaces the time that was read.
    pub(super) fn check(self, now_ms: Option<u64>) -> Result<SlotRecord, SlotError> {
        let id = SlotId::parse(&self.slot_id)?;
        let provider = Provider::parse(&self.provider)?;
        if self.mode != provider.mode() {
            return refuse("mode", FOREIGN);
        }
        let updated_at_ms = now_ms.unwrap_or(self.updated_at_ms);
        match provider {
            Provider::McpOauth => SlotRecord::account(id, self.state.into_account()?, updated_at_ms),
            _ => self.state.into_text_record(id, provider, updated_at_ms),
        }
    }
}

impl StateIn {
    fn require_kind(&self, kind: Option<&str>) -> Result<(), SlotError> {
        match &self.kind {
            Some(given) if Some(given.as_str()) != kind => refuse("state.kind", "does not fit the provider and mode"),
            _ => Ok(()),
        }
    }

    /// The first field that belongs to an account.
    fn account_field(&self) -> Option<&'static str> {
        [
            ("state.server_name", self.server_name.is_some()),
            ("state.resource", self.resource.is_some()),
            ("state.issuer", self.issuer.is_some()),
            ("state.authorization_endpoint", self.authorization_endpoint.is_some()),
            ("state.token_endpoint", self.token_endpoint.is_some()),
            ("state.client_id", self.client_id.is_some()),
            ("state.client_secret", self.client_secret.is_some()),
            ("state.token_endpoint_auth_method", self.token_endpoint_auth_method.is_some()),
            ("state.access_token", self.access_token.is_some()),
            ("state.refresh_token", self.refresh_token.is_some()),
            ("state.expires_at_ms", self.expires_at_ms.is_some()),
            ("state.scopes", self.scopes.is_some()),
            ("state.last_refresh_at_ms", self.last_refresh_at_ms.is_some()),
            ("state.last_refresh_outcome", self.last_refresh_outcome.is_some()),
        ]
        .into_iter()
        .find_map(|(field, is_given)| is_given.then_some(field))
    }

    fn into_text_record(self, id: SlotId, provider: Provider, updated_at_ms: u64) -> Result<SlotRecord, SlotError> {
        if let Some(field) = self.account_field() {
            return refuse(field, FOREIGN);
        }
        let is_generic = provider == Provider::Generic;
        self.require_kind((!is_generic).then_some("api_key"))?;
        let (secret, field, other, other_field) = match is_generic {
            true => (self.value, "state.value", self.api_key, "state.api_key"),
            false => (self.api_key, "state.api_key", self.value, "state.value"),
        };
        if other.is_some() {
            return refuse(other_field, FOREIGN);
        }
        let Some(secret) = secret else { return refuse(field, "is missing") };
        SlotRecord::new(id, provider, secret.0, self.organization, self.project, updated_at_ms)
    }

    fn into_account(self) -> Result<McpAccount, SlotError> {
        self.require_kind(Some(ACCOUNT_KIND))?;
        for (field, is_given) in [
            ("state.value", self.value.is_some()),
            ("state.api_key", self.api_key.is_some()),
            ("state.organization", self.organization.is_some()),
            ("state.project", self.project.is_some()),
        ] {
            if is_given {
                return refuse(field, FOREIGN);
            }
        }
        let text = |field, text: Option<String>| text.ok_or(SlotError::Field { field, rule: "is missing" });
        Ok(McpAccount {
            server_name: text("state.server_name", self.server_name)?,
            resource: text("state.resource", self.resource)?,
            issuer: text("state.issuer", self.issuer)?,
            authorization_endpoint: text("state.authorization_endpoint", self.authorization_endpoint)?,
            token_endpoint: text("state.token_endpoint", self.token_endpoint)?,
            client_id: text("state.client_id", self.client_id)?,
            client_secret: self.client_secret.map(|secret| secret.0),
            client_auth: self.token_endpoint_auth_method.unwrap_or_default(),
            access_token: match self.access_token {
                Some(token) => token.0,
                None => return refuse("state.access_token", "is missing"),
            },
            refresh_token: self.refresh_token.map(|secret| secret.0),
            expires_at_ms: self.expires_at_ms,
            scopes: self.scopes.unwrap_or_default(),
            last_refresh_at_ms: self.last_refresh_at_ms,
            last_refresh_outcome: self.last_refresh_outcome,
        })
    }
}

const ACCOUNT_KIND: &str = "mcp_o_auth_account";

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
#[serde(untagged)]
enum StateOut<'a> {
    Opaque { value: SecretOut<'a> },
    Key { kind: &'static str, api_key: SecretOut<'a> },
    OpenAiKey { kind: &'static str, api_key: SecretOut<'a>, organization: Option<&'a str>, project: Option<&'a str> },
    Account(Box<AccountOut<'a>>),
}

#[derive(Serialize)]
struct AccountOut<'a> {
    kind: &'static str,
    server_name: &'a str,
    resource: &'a str,
    issuer: &'a str,
    authorization_endpoint: &'a str,
    token_endpoint: &'a str,
    client_id: &'a str,
    client_secret: Option<SecretOut<'a>>,
    /// Left out where it is the one that was meant before it was written.
    #[serde(skip_serializing_if = "is_default")]
    token_endpoint_auth_method: ClientAuth,
    access_token: SecretOut<'a>,
    refresh_token: Option<SecretOut<'a>>,
    expires_at_ms: Option<u64>,
    scopes: &'a [String],
    last_refresh_at_ms: Option<u64>,
    last_refresh_outcome: Option<&'a str>,
}

impl SlotRecord {
    /// The borrowed form that serde writes.
    pub(super) fn wire(&self) -> RecordOut<'_> {
        let (kind, organization, project) = ("api_key", self.organization(), self.project());
        let state = match self.material() {
            Material::Account(account) => StateOut::Account(Box::new(account_out(account))),
            Material::Text { secret, .. } => match self.provider() {
                Provider::Generic => StateOut::Opaque { value: SecretOut(secret) },
                Provider::OpenAi => StateOut::OpenAiKey { kind, api_key: SecretOut(secret), organization, project },
                _ => StateOut::Key { kind, api_key: SecretOut(secret) },
            },
        };
        RecordOut {
            slot_id: self.id(),
            provider: self.provider(),
            mode: self.provider().mode(),
            state,
            updated_at_ms: self.updated_at_ms(),
        }
    }
}

fn is_default(method: &ClientAuth) -> bool {
    *method == ClientAuth::default()
}

fn account_out(account: &McpAccount) -> AccountOut<'_> {
    AccountOut {
        kind: ACCOUNT_KIND,
        server_name: &account.server_name,
        resource: &account.resource,
        issuer: &account.issuer,
        authorization_endpoint: &account.authorization_endpoint,
        token_endpoint: &account.token_endpoint,
        client_id: &account.client_id,
        client_secret: account.client_secret.as_ref().map(SecretOut),
        token_endpoint_auth_method: account.client_auth,
        access_token: SecretOut(&account.access_token),
        refresh_token: account.refresh_token.as_ref().map(SecretOut),
        expires_at_ms: account.expires_at_ms,
        scopes: &account.scopes,
        last_refresh_at_ms: account.last_refresh_at_ms,
        last_refresh_outcome: account.last_refresh_outcome.as_deref(),
    }
}

/// The one place where a secret becomes JSON text.
struct SecretOut<'a>(&'a Secret);

impl Serialize for SecretOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(self.0.expose()).expect("every slot's secret is UTF-8"))
    }
}

/// The one place where JSON text becomes a secret.
pub(super) struct SecretIn(pub(super) Secret);

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
