//! What can go wrong between this daemon and a server.
//! Owns: the typed error, its stable codes and its wording.
//! Never: passes on a text of a server without a bound, or one that names a secret: what leaves is redacted by whoever
//! shows it.

use std::fmt;

/// Why a request to a server has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant's line says what its fields hold")]
pub enum McpError {
    /// No server has this name.
    UnknownServer { server: String },
    /// The server has no such tool, or it is not offered.
    UnknownTool { server: String, tool: String },
    /// The agent that asks is confined to a part of the workspace, and the server is not.
    NotGranted { server: String },
    /// An operator has switched the server off, or removed it.
    SwitchedOff { server: String },
    /// The server is not connected, and why.
    NotConnected { server: String, cause: String },
    /// No answer in time; whatever the server did until then is done.
    TimedOut { server: String, method: String, limit_ms: u64 },
    /// The caller cancelled.
    Cancelled { server: String },
    /// The connection ended before the answer.
    Ended { server: String, cause: String },
    /// The server answered with an error.
    Refused { server: String, code: i64, message: String, data: Option<String> },
    /// The server's answer makes no sense.
    Malformed { server: String, cause: String },
    /// The server wants a credential, or another one.
    AuthRequired { server: String, cause: String },
    /// The account lacks scopes; those that it had and was to have, with those that the server asks for.
    ScopeRequired { server: String, scopes: Vec<String> },
    /// The broker gave no credential.
    Credential { server: String, cause: String },
    /// Too many calls of this server are under way.
    Busy { server: String },
    /// What is to be sent is too long.
    TooLarge { server: String, bytes: usize },
    /// It could not be recorded, so it was not sent, or its outcome cannot be used.
    NotRecorded { server: String, cause: String },
    /// The daemon's own doing is at fault: no process, no descriptor.
    Start { server: String, cause: String },
}

impl McpError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownServer { .. } => "mcp_server_unknown",
            Self::UnknownTool { .. } => "mcp_tool_unknown",
            Self::NotGranted { .. } => "mcp_not_granted",
            Self::SwitchedOff { .. } => "mcp_server_disabled",
            Self::NotConnected { .. } => "mcp_not_connected",
            Self::TimedOut { .. } => "mcp_timed_out",
            Self::Cancelled { .. } => "mcp_cancelled",
            Self::Ended { .. } => "mcp_connection_ended",
            Self::Refused { .. } => "mcp_server_error",
            Self::Malformed { .. } => "mcp_malformed_answer",
            Self::AuthRequired { .. } => "mcp_auth_required",
            Self::ScopeRequired { .. } => "mcp_scope_required",
            Self::Credential { .. } => "mcp_credential_refused",
            Self::Busy { .. } => "mcp_busy",
            Self::TooLarge { .. } => "mcp_input_too_large",
            Self::NotRecorded { .. } => "mcp_not_recorded",
            Self::Start { .. } => "mcp_start_failed",
        }
    }
}

impl fmt::Display for McpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownServer { server } => {
                write!(f, "there is no MCP server {server}; next: see kheish-daemon mcp list")
            }
            Self::UnknownTool { server, tool } => {
                write!(f, "MCP server {server} offers no tool {tool}; next: see kheish-daemon mcp tools list {server}")
            }
            Self::NotGranted { server } => write!(
                f,
                "MCP server {server} reaches the whole workspace, and this agent was given a part of it, or to read only; next: go on \
                 without it"
            ),
            Self::SwitchedOff { server } => {
                write!(f, "MCP server {server} is switched off; next: kheish-daemon mcp enable {server}")
            }
            Self::NotConnected { server, cause } => {
                write!(f, "MCP server {server} is not connected: {cause}; next: see kheish-daemon mcp get {server}")
            }
            Self::TimedOut { server, method, limit_ms } => write!(
                f,
                "MCP server {server}: no answer to {method} within {limit_ms} ms; what it did until then is done; next: look at \
                 the state before a repetition, or raise tool_timeout_sec"
            ),
            Self::Cancelled { server } => write!(f, "MCP server {server}: cancelled; next: start again if wanted"),
            Self::Ended { server, cause } => write!(
                f,
                "MCP server {server}: the connection ended before the answer ({cause}); what it did until then is done; next: \
                 look at the state before a repetition"
            ),
            Self::Refused { server, code, message, .. } => {
                write!(f, "MCP server {server} answered with error {code}: {message}; next: change the request")
            }
            Self::Malformed { server, cause } => {
                write!(
                    f,
                    "MCP server {server}: its answer makes no sense: {cause}; next: report this to its maintainers"
                )
            }
            Self::AuthRequired { server, cause } => write!(
                f,
                "MCP server {server} wants another credential: {cause}; next: set its secret, or kheish-daemon mcp oauth login \
                 {server}"
            ),
            Self::ScopeRequired { server, scopes } => write!(
                f,
                "MCP server {server} wants more than its account allows: {}; next: kheish-daemon mcp oauth login {server} with \
                 its --url, which asks for these scopes",
                scopes.join(" ")
            ),
            Self::Credential { server, cause } => write!(f, "MCP server {server} has no credential to use ({cause})"),
            Self::Busy { server } => {
                write!(f, "MCP server {server} has too many calls under way; next: try again in a moment")
            }
            Self::TooLarge { server, bytes } => {
                write!(f, "MCP server {server}: a request of {bytes} bytes is not sent; next: pass less at once")
            }
            Self::NotRecorded { server, cause } => write!(
                f,
                "MCP server {server}: nothing was sent or kept, since it could not be recorded: {cause}; next: see \
                 kheish-daemon status"
            ),
            Self::Start { server, cause } => {
                write!(f, "MCP server {server} cannot be started: {cause}; next: check its command and the sandbox")
            }
        }
    }
}

impl std::error::Error for McpError {}
