//! OAuth accounts of MCP servers: the tokens, and where to get the next ones.
//! Owns: the rules of an account's fields, and what a refresh changes in it.
//! May touch: nothing outside its arguments.
//! Never: shows a token; contacts anybody.

use serde::{Deserialize, Serialize};

use super::slot::{SlotError, SlotId};
use super::wire::{SecretIn, duplicate};
use crate::limits::{ACCOUNT_SCOPES_MAX, ACCOUNT_TEXT_BYTES_MAX, API_KEY_BYTES_MAX, SECRET_BYTES_MIN};
use crate::net::BaseUrl;
use crate::secret::Secret;

/// Where slots of accounts live.
pub const ACCOUNT_PREFIX: &str = "mcp.oauth.";

/// How a client proves itself at a token endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// Its id in the form, and its secret where it has one.
    #[default]
    ClientSecretPost,
    /// Id and secret in a header line.
    ClientSecretBasic,
    /// Its id in the form; it has no secret.
    None,
}

/// The account of one user at the authorization server of one MCP server.
#[derive(Debug)]
pub struct McpAccount {
    /// The MCP server's name in its configuration.
    pub server_name: String,
    /// What the tokens are for.
    pub resource: String,
    /// Who issues them.
    pub issuer: String,
    /// Where the user agreed.
    pub authorization_endpoint: String,
    /// Where tokens are exchanged.
    pub token_endpoint: String,
    /// Whom the server knows us as.
    pub client_id: String,
    /// The client's own secret, where it has one.
    pub client_secret: Option<Secret>,
    /// How it proves itself at the token endpoint.
    pub client_auth: ClientAuth,
    /// The present access token.
    pub access_token: Secret,
    /// What the next one is got with.
    pub refresh_token: Option<Secret>,
    /// When the access token ends, if the server said so; Unix milliseconds.
    pub expires_at_ms: Option<u64>,
    /// What the tokens allow.
    pub scopes: Vec<String>,
    /// When a refresh was last tried.
    pub last_refresh_at_ms: Option<u64>,
    /// `success`, or the class of the failure.
    pub last_refresh_outcome: Option<String>,
}

/// What may be shown of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountDetails {
    /// See [`McpAccount`], as for the other fields.
    pub server_name: String,
    /// The resource.
    pub resource: String,
    /// The issuer.
    pub issuer: String,
    /// The authorization endpoint.
    pub authorization_endpoint: String,
    /// The token endpoint.
    pub token_endpoint: String,
    /// The client id.
    pub client_id: String,
    /// The end of the access token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    /// The scopes.
    pub scopes: Vec<String>,
    /// The last refresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_refresh_at_ms: Option<u64>,
    /// Its outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_refresh_outcome: Option<String>,
}

/// The body of an account's import.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccountIn {
    pub(super) slot_id: String,
    server_name: String,
    resource: String,
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    client_id: String,
    client_secret: Option<SecretIn>,
    #[serde(default)]
    token_endpoint_auth_method: Option<ClientAuth>,
    access_token: SecretIn,
    refresh_token: Option<SecretIn>,
    expires_at_ms: Option<u64>,
    #[serde(default)]
    scopes: Vec<String>,
}

impl AccountIn {
    pub(super) fn into_account(self) -> McpAccount {
        McpAccount {
            server_name: self.server_name,
            resource: self.resource,
            issuer: self.issuer,
            authorization_endpoint: self.authorization_endpoint,
            token_endpoint: self.token_endpoint,
            client_id: self.client_id,
            client_secret: self.client_secret.map(|secret| secret.0),
            client_auth: self.token_endpoint_auth_method.unwrap_or_default(),
            access_token: self.access_token.0,
            refresh_token: self.refresh_token.map(|secret| secret.0),
            expires_at_ms: self.expires_at_ms,
            scopes: self.scopes,
            last_refresh_at_ms: None,
            last_refresh_outcome: None,
        }
    }
}

impl McpAccount {
    /// The account with blank optional parts dropped. Its URLs stay byte for byte: an authorization server compares them so.
    ///
    /// # Errors
    /// The part that breaks a rule.
    pub(super) fn checked(mut self, id: &SlotId) -> Result<Self, SlotError> {
        if !id.as_str().starts_with(ACCOUNT_PREFIX) {
            return refuse("slot_id", "of an MCP account must begin with mcp.oauth.");
        }
        for (field, text) in [("state.server_name", &self.server_name), ("state.client_id", &self.client_id)] {
            check_text(field, text)?;
        }
        for (field, url) in [
            ("state.resource", &self.resource),
            ("state.issuer", &self.issuer),
            ("state.authorization_endpoint", &self.authorization_endpoint),
            ("state.token_endpoint", &self.token_endpoint),
        ] {
            check_url(field, url)?;
        }
        self.client_secret = self.client_secret.filter(|secret| !secret.expose().trim_ascii().is_empty());
        self.refresh_token = self.refresh_token.filter(|secret| !secret.expose().trim_ascii().is_empty());
        check_token("state.access_token", &self.access_token)?;
        self.refresh_token.as_ref().map_or(Ok(()), |token| check_token("state.refresh_token", token))?;
        self.client_secret.as_ref().map_or(Ok(()), check_client_secret)?;
        if self.scopes.len() > ACCOUNT_SCOPES_MAX {
            return refuse("state.scopes", "are too many");
        }
        self.scopes.iter().try_for_each(|scope| check_text("state.scopes", scope))?;
        Ok(self)
    }

    pub(super) fn secrets(&self) -> impl Iterator<Item = &Secret> {
        [Some(&self.access_token), self.refresh_token.as_ref(), self.client_secret.as_ref()].into_iter().flatten()
    }

    pub(super) fn into_secrets(self) -> Vec<Secret> {
        [Some(self.access_token), self.refresh_token, self.client_secret].into_iter().flatten().collect()
    }

    pub(super) fn details(&self) -> AccountDetails {
        AccountDetails {
            server_name: self.server_name.clone(),
            resource: self.resource.clone(),
            issuer: self.issuer.clone(),
            authorization_endpoint: self.authorization_endpoint.clone(),
            token_endpoint: self.token_endpoint.clone(),
            client_id: self.client_id.clone(),
            expires_at_ms: self.expires_at_ms,
            scopes: self.scopes.clone(),
            last_refresh_at_ms: self.last_refresh_at_ms,
            last_refresh_outcome: self.last_refresh_outcome.clone(),
        }
    }

    /// A copy with its own buffers, to be changed and stored.
    pub(super) fn duplicate(&self) -> Self {
        Self {
            server_name: self.server_name.clone(),
            resource: self.resource.clone(),
            issuer: self.issuer.clone(),
            authorization_endpoint: self.authorization_endpoint.clone(),
            token_endpoint: self.token_endpoint.clone(),
            client_id: self.client_id.clone(),
            client_secret: self.client_secret.as_ref().map(duplicate),
            client_auth: self.client_auth,
            access_token: duplicate(&self.access_token),
            refresh_token: self.refresh_token.as_ref().map(duplicate),
            expires_at_ms: self.expires_at_ms,
            scopes: self.scopes.clone(),
            last_refresh_at_ms: self.last_refresh_at_ms,
            last_refresh_outcome: self.last_refresh_outcome.clone(),
        }
    }
}

fn refuse<T>(field: &'static str, rule: &'static str) -> Result<T, SlotError> {
    Err(SlotError::Field { field, rule })
}

fn check_text(field: &'static str, text: &str) -> Result<(), SlotError> {
    if text.trim().is_empty() {
        return refuse(field, "is blank");
    }
    if text.len() > ACCOUNT_TEXT_BYTES_MAX {
        return refuse(field, "is too long");
    }
    if text.chars().any(char::is_control) { refuse(field, "holds control characters") } else { Ok(()) }
}

/// https, or http to this host; no user, no fragment, no query that looks like a secret.
fn check_url(field: &'static str, url: &str) -> Result<(), SlotError> {
    check_text(field, url)?;
    let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    if url.contains('#') {
        return refuse(field, "has a fragment");
    }
    let Ok(parsed) = BaseUrl::parse(base) else {
        return refuse(field, "must be an absolute https URL without user and fragment");
    };
    if !parsed.is_https() && !parsed.is_local() {
        return refuse(field, "must be https, or http to a loopback address");
    }
    let is_secret_key = |pair: &str| {
        let key = pair.split('=').next().unwrap_or_default().to_ascii_lowercase();
        ["token", "secret", "password", "passwd", "api_key", "apikey", "key", "code", "sig", "signature"]
            .iter()
            .any(|word| key == *word || key.ends_with(&format!("_{word}")))
    };
    match query {
        Some(query) if query.split('&').any(is_secret_key) => refuse(field, "has a query that looks like a secret"),
        _ => Ok(()),
    }
}

/// As a token, and with blanks inside: it is escaped wherever it goes (RFC 6749, appendix A.2).
fn check_client_secret(secret: &Secret) -> Result<(), SlotError> {
    let field = "state.client_secret";
    match secret.expose().iter().find(|byte| !byte.is_ascii_graphic() && **byte != b' ') {
        Some(_) => refuse(field, "must be visible ASCII"),
        None if secret.len() < SECRET_BYTES_MIN => refuse(field, "must have at least 8 bytes"),
        None if secret.len() > API_KEY_BYTES_MAX => refuse(field, "must have at most 4096 bytes"),
        None => Ok(()),
    }
}

pub(super) fn check_token(field: &'static str, token: &Secret) -> Result<(), SlotError> {
    // Tokens go into header lines and forms.
    if !token.expose().iter().all(u8::is_ascii_graphic) {
        return refuse(field, "must be visible ASCII without blanks");
    }
    if token.len() < SECRET_BYTES_MIN {
        return refuse(field, "must have at least 8 bytes");
    }
    if token.len() > API_KEY_BYTES_MAX { refuse(field, "must have at most 4096 bytes") } else { Ok(()) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    pub(in crate::broker) fn account() -> McpAccount {
        McpAccount {
            server_name: "docs".to_string(),
            resource: "https://mcp.example.com/mcp".to_string(),
            issuer: "https://issuer.example.com".to_string(),
            authorization_endpoint: "https://issuer.example.com/authorize".to_string(),
            token_endpoint: "https://issuer.example.com/token".to_string(),
            client_id: "client-1".to_string(),
            client_secret: None,
            client_auth: ClientAuth::default(),
            access_token: secret("access-token-1"),
            refresh_token: Some(secret("refresh-token-1")),
            expires_at_ms: Some(1_000_000),
            scopes: vec!["read".to_string()],
            last_refresh_at_ms: None,
            last_refresh_outcome: None,
        }
    }

    fn id() -> SlotId {
        SlotId::parse("mcp.oauth.docs").unwrap()
    }

    #[test]
    fn only_safe_urls_are_accepted() {
        for url in
            ["https://a.example/mcp", "http://127.0.0.1:1/x", "http://localhost/x", "http://[::1]/x", "https://a/?x=1"]
        {
            assert!(McpAccount { token_endpoint: url.to_string(), ..account() }.checked(&id()).is_ok(), "{url}");
        }
        for url in [
            "",
            "  ",
            "a.example/mcp",
            "ftp://a.example",
            "http://a.example/token",
            "http://127.0.0.1.example/",
            "https://user@a.example/",
            "https://user:pass@a.example/",
            "https://a.example/#x",
            "https://a.example/?access_token=x",
            "https://a.example/?a=1&API_KEY=x",
            "https://a.example/\n",
        ] {
            assert!(McpAccount { token_endpoint: url.to_string(), ..account() }.checked(&id()).is_err(), "{url:?}");
        }
    }

    #[test]
    fn blank_optional_secrets_count_as_absent_and_urls_stay_byte_for_byte() {
        let account = McpAccount {
            client_secret: Some(secret("  ")),
            refresh_token: Some(secret("")),
            resource: "https://mcp.example.com/mcp//".to_string(),
            issuer: "https://issuer.example.com/".to_string(),
            ..account()
        };
        let account = account.checked(&id()).unwrap();
        assert!(account.client_secret.is_none() && account.refresh_token.is_none());
        assert_eq!(
            (account.resource.as_str(), account.issuer.as_str()),
            ("https://mcp.example.com/mcp//", "https://issuer.example.com/")
        );
        assert!(account.checked(&SlotId::parse("mcp.docs").unwrap()).is_err());
    }
}
