//! From a server's URL to its authorization server (RFC 9728, RFC 8414).
//! Owns: which documents are asked for, in which order, and which of their claims are refused.
//! May touch: the network, through `net`.
//! Never: uses an endpoint of a document that names another issuer, or one that is neither https nor on this host.

use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::limits::{MCP_DISCOVERY_BYTES_MAX, MCP_DISCOVERY_MS_MAX};
use crate::net::{BaseUrl, Cancel, Method, Net, NetError, Purpose, Request, Response, Target, Timeouts};

/// Why there is no login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginError {
    /// What is wrong, and what to do. No text of a server, and no token.
    pub message: String,
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for LoginError {}

pub(super) fn refuse<T>(message: impl Into<String>) -> Result<T, LoginError> {
    Err(LoginError { message: message.into() })
}

impl From<NetError> for LoginError {
    fn from(error: NetError) -> Self {
        Self { message: error.to_string() }
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Discovered {
    /// The resource, byte for byte as its metadata has it.
    pub resource: String,
    /// The authorization server.
    pub issuer: String,
    /// Where people agree.
    pub authorization_endpoint: String,
    /// Where codes and refresh tokens are exchanged.
    pub token_endpoint: String,
    /// Where clients register themselves.
    pub registration_endpoint: Option<String>,
    /// Scopes that the server asks for, or has; `None` when it names none.
    pub scopes: Option<Vec<String>>,
    /// Ways in which a client proves itself.
    pub auth_methods: Option<Vec<String>>,
    /// The callback must name the issuer.
    pub names_issuer: bool,
    /// A client's id can be the address of a document about it.
    pub reads_client_documents: bool,
    /// Refresh tokens are asked for by a scope.
    pub has_offline_access: bool,
}

#[derive(Deserialize)]
struct Protected {
    resource: String,
    #[serde(default)]
    authorization_servers: Vec<String>,
    #[serde(default)]
    scopes_supported: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    #[serde(default)]
    registration_endpoint: Option<String>,
    #[serde(default)]
    code_challenge_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    scopes_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
    #[serde(default)]
    client_id_metadata_document_supported: bool,
}

/// The way to servers.
pub struct Discovery<'n> {
    /// The outbound client.
    pub net: &'n Net,
    /// On whose behalf.
    pub purpose: Purpose,
    /// http is taken for a server on this host.
    pub allow_http_for_loopback: bool,
    /// Ends it.
    pub cancel: &'n Cancel,
}

/// What a challenge says; its parameters stand in any order, quoted or not.
pub(super) fn challenge_parameter(challenge: &str, name: &str) -> Option<String> {
    let mut rest = challenge.split_once(' ').map_or("", |(_, rest)| rest);
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_start_matches([',', ' ']).trim();
        let (value, tail) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if key.eq_ignore_ascii_case(name) {
            return Some(value.trim().to_string());
        }
        rest = tail;
    }
    None
}

const GREETING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"kheish-mcp-client","version":"1"}}}"#;
const TOOLS: &str = r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#;
const TOOLS_STATELESS: &str = r#"{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"kheish-mcp-client","version":"1"}}}}"#;

impl Discovery<'_> {
    pub(super) fn timeouts() -> Timeouts {
        let ms = MCP_DISCOVERY_MS_MAX;
        Timeouts { connect_ms: ms, first_byte_ms: ms, idle_ms: ms, total_ms: Some(ms) }
    }

    /// Refuses a URL that is neither https nor, where that is allowed, http to this host.
    pub(super) fn target(&self, what: &str, url: &str) -> Result<Target, LoginError> {
        let bare = url.split(['?', '#']).next().unwrap_or_default();
        let base = BaseUrl::parse(bare).map_err(|error| LoginError { message: format!("{what}: {error}") })?;
        let is_taken = base.is_https() || (base.is_local() && self.allow_http_for_loopback);
        if !is_taken {
            return refuse(format!(
                "{what} is not https; next: use an https server, or --allow-http-for-loopback for one on this host"
            ));
        }
        Target::parse(url).map_err(|error| LoginError { message: format!("{what}: {error}") })
    }

    pub(super) fn send(
        &self,
        method: Method,
        target: &Target,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Response, LoginError> {
        let request = Request {
            method,
            target,
            purpose: self.purpose,
            allow_private: false,
            headers,
            auth: None,
            body,
            timeouts: Self::timeouts(),
            body_bytes_max: MCP_DISCOVERY_BYTES_MAX,
        };
        Ok(self.net.send(request, self.cancel)?)
    }

    /// A metadata document; `None` when there is none at this place.
    fn document<T: DeserializeOwned>(&self, url: &str) -> Result<Option<T>, LoginError> {
        let target = self.target("a metadata document", url)?;
        let headers = [("accept", "application/json"), ("mcp-protocol-version", "2025-11-25")];
        let mut response = self.send(Method::Get, &target, &headers, None)?;
        match response.status {
            200 => {
                let bytes = response.body.read_to_end()?;
                let read = serde_json::from_slice(&bytes);
                read.map(Some).or_else(|_| refuse(format!("{target}: the metadata has another form")))
            }
            429 | 500.. => refuse(format!("{target}: HTTP {}; next: try again later", response.status)),
            _ => Ok(None),
        }
    }

    /// Finds the authorization server of the MCP server at `url`.
    ///
    /// # Errors
    /// There is none, or one that must not be used.
    pub fn discover(&self, url: &str) -> Result<Discovered, LoginError> {
        let target = self.target("the server's url", url)?;
        let challenge = self.challenge(&target)?.unwrap_or_default();
        let asked = challenge_parameter(&challenge, "scope")
            .map(|scopes| scopes.split_whitespace().map(str::to_string).collect::<Vec<_>>());
        let (origin, path) = origin_and_path(url);
        let mut places = match challenge_parameter(&challenge, "resource_metadata") {
            Some(place) => vec![place],
            None => vec![format!("{origin}/.well-known/oauth-protected-resource{}", path.trim_end_matches('/'))],
        };
        if places[0].starts_with(&origin) && challenge_parameter(&challenge, "resource_metadata").is_none() {
            places.push(format!("{origin}/.well-known/oauth-protected-resource"));
            places.dedup();
        }
        let mut protected = None;
        for place in places {
            protected = self.document::<Protected>(&place)?;
            if protected.is_some() {
                break;
            }
        }
        match protected {
            Some(protected) => self.of_resource(url, protected, asked),
            None => {
                // The revision of 2025-03-26: the server's own origin is the authorization server.
                let metadata =
                    self.document::<Metadata>(&format!("{origin}/.well-known/oauth-authorization-server"))?;
                let speaks_for =
                    |metadata: &Metadata| metadata.issuer.strip_suffix('/').unwrap_or(&metadata.issuer) == origin;
                if metadata.as_ref().is_some_and(|metadata| !speaks_for(metadata)) {
                    return refuse("the server's authorization metadata names another issuer; next: ask its operators");
                }
                let metadata = metadata.unwrap_or_else(|| Metadata {
                    issuer: origin.clone(),
                    authorization_endpoint: format!("{origin}/authorize"),
                    token_endpoint: format!("{origin}/token"),
                    registration_endpoint: Some(format!("{origin}/register")),
                    code_challenge_methods_supported: None,
                    token_endpoint_auth_methods_supported: None,
                    scopes_supported: None,
                    authorization_response_iss_parameter_supported: false,
                    client_id_metadata_document_supported: false,
                });
                let resource = url.split('#').next().unwrap_or_default().to_string();
                self.checked(resource, metadata, asked)
            }
        }
    }

    /// What the server answers to somebody without a credential: at once, or, where it greets everybody, when its tools are
    /// asked for.
    fn challenge(&self, target: &Target) -> Result<Option<String>, LoginError> {
        let plain = [("accept", "application/json, text/event-stream"), ("content-type", "application/json")];
        let said = |response: &Response| response.header("www-authenticate").map(str::to_string);
        let greeting = self.send(Method::Post, target, &plain, Some(GREETING.as_bytes()))?;
        if greeting.status == 401 || said(&greeting).is_some() {
            return Ok(said(&greeting));
        }
        let mut headers = plain.to_vec();
        let session = greeting.header("mcp-session-id").map(str::to_string);
        let asked = if (200..300).contains(&greeting.status) {
            headers.push(("mcp-protocol-version", "2025-11-25"));
            headers.extend(session.as_deref().map(|session| ("mcp-session-id", session)));
            TOOLS
        } else {
            // It knows no greeting, as the revision without one.
            headers.extend([("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/list")]);
            TOOLS_STATELESS
        };
        let listed = self.send(Method::Post, target, &headers, Some(asked.as_bytes()))?;
        let challenge = said(&listed);
        if session.is_some() {
            // That it does not hear of the end of the session changes nothing.
            let _not_heard = self.send(Method::Delete, target, &headers, None);
        }
        Ok(challenge)
    }

    fn of_resource(
        &self,
        url: &str,
        protected: Protected,
        asked: Option<Vec<String>>,
    ) -> Result<Discovered, LoginError> {
        if !covers(&protected.resource, url) {
            return refuse(
                "the server's metadata is about another resource; next: check the url, and ask the server's operators",
            );
        }
        let Some(issuer) = protected.authorization_servers.first() else {
            return refuse("the server's metadata names no authorization server; next: ask its operators");
        };
        self.target("the authorization server", issuer)?;
        let (origin, path) = origin_and_path(issuer);
        let path = path.trim_end_matches('/');
        let places = if path.is_empty() {
            vec![
                format!("{origin}/.well-known/oauth-authorization-server"),
                format!("{origin}/.well-known/openid-configuration"),
            ]
        } else {
            vec![
                format!("{origin}/.well-known/oauth-authorization-server{path}"),
                format!("{origin}/.well-known/openid-configuration{path}"),
                format!("{origin}{path}/.well-known/openid-configuration"),
            ]
        };
        for place in places {
            if let Some(metadata) = self.document::<Metadata>(&place)? {
                if metadata.issuer != *issuer {
                    return refuse("the authorization server's metadata names another issuer; next: ask its operators");
                }
                return self.checked(protected.resource, metadata, asked.or(protected.scopes_supported));
            }
        }
        refuse("the authorization server has no metadata; next: ask its operators")
    }

    fn checked(
        &self,
        resource: String,
        metadata: Metadata,
        scopes: Option<Vec<String>>,
    ) -> Result<Discovered, LoginError> {
        if metadata.code_challenge_methods_supported.is_some_and(|methods| !methods.iter().any(|m| m == "S256")) {
            return refuse("the authorization server does not take S256 challenges; next: ask its operators");
        }
        self.target("the authorization endpoint", &metadata.authorization_endpoint)?;
        self.target("the token endpoint", &metadata.token_endpoint)?;
        if let Some(endpoint) = &metadata.registration_endpoint {
            self.target("the registration endpoint", endpoint)?;
        }
        let has = |name: &str| metadata.scopes_supported.iter().flatten().any(|scope| scope == name);
        Ok(Discovered {
            has_offline_access: has("offline_access"),
            resource,
            issuer: metadata.issuer,
            authorization_endpoint: metadata.authorization_endpoint,
            token_endpoint: metadata.token_endpoint,
            registration_endpoint: metadata.registration_endpoint,
            scopes,
            auth_methods: metadata.token_endpoint_auth_methods_supported,
            names_issuer: metadata.authorization_response_iss_parameter_supported,
            reads_client_documents: metadata.client_id_metadata_document_supported,
        })
    }
}

/// Scheme, host and port; and the path, without query and fragment.
fn origin_and_path(url: &str) -> (String, String) {
    let bare = url.split(['?', '#']).next().unwrap_or_default();
    let start = bare.find("://").map_or(0, |at| at + 3);
    let end = bare[start..].find('/').map_or(bare.len(), |at| start + at);
    (bare[..end].to_string(), bare[end..].to_string())
}

/// Whether metadata about `resource` speaks of `url`: same origin, and a path that the url's begins with.
pub(super) fn covers(resource: &str, url: &str) -> bool {
    let (origin, path) = origin_and_path(url);
    let (resource_origin, resource_path) = origin_and_path(resource);
    let path: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let prefix: Vec<&str> = resource_path.split('/').filter(|part| !part.is_empty()).collect();
    origin.eq_ignore_ascii_case(&resource_origin) && path.starts_with(&prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_read_in_any_order_quoted_or_not() {
        let challenge = r#"Bearer error="invalid_token", resource_metadata="https://a/x?y=1,2", scope=read"#;
        assert_eq!(challenge_parameter(challenge, "resource_metadata").as_deref(), Some("https://a/x?y=1,2"));
        assert_eq!(challenge_parameter(challenge, "scope").as_deref(), Some("read"));
        assert_eq!(challenge_parameter(challenge, "error").as_deref(), Some("invalid_token"));
        assert_eq!(challenge_parameter(challenge, "realm"), None);
        assert_eq!(challenge_parameter("Bearer", "scope"), None);
        assert_eq!(challenge_parameter(r#"Bearer scope="a"#, "scope"), None);
    }

    #[test]
    fn metadata_speaks_of_its_own_origin_and_of_what_lies_below_its_path() {
        for (resource, url, expected) in [
            ("https://a.example", "https://a.example/mcp", true),
            ("https://a.example/", "https://a.example/mcp", true),
            ("https://a.example/mcp", "https://a.example/mcp/", true),
            ("https://a.example/mc", "https://a.example/mcp", false),
            ("https://a.example/mcp/x", "https://a.example/mcp", false),
            ("https://b.example/mcp", "https://a.example/mcp", false),
            ("http://a.example/mcp", "https://a.example/mcp", false),
            ("https://a.example:444/mcp", "https://a.example/mcp", false),
        ] {
            assert_eq!(covers(resource, url), expected, "{resource} {url}");
        }
    }
}
