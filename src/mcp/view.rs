//! What the control plane shows of servers.
//! Owns: the shapes of the snapshot, of a server and of its tools.
//! Never: shows a value of a variable or a header, or the query of a URL.

use serde::Serialize;
use serde_json::Value;

use super::config::{ServerConfig, Transport};
use super::server::{Known, Server, Switch};

/// All servers, as `GET /v1/runtime` shows them. What was seen last, not a look at the servers.
#[derive(Debug, Serialize)]
pub struct Snapshot {
    /// The file of `--mcp-config`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_path: Option<String>,
    /// Profiles of the catalog in use.
    pub selected_profiles: Vec<String>,
    /// Names of all tools that models are offered, sorted.
    pub tool_names: Vec<String>,
    /// The servers, sorted by name; removed ones are left out.
    pub servers: Vec<ServerView>,
}

/// One server.
#[derive(Debug, Serialize)]
pub struct ServerView {
    /// Its name.
    pub server: String,
    /// `codex_config` or `built_in_catalog`.
    pub source: &'static str,
    /// Profiles that have it.
    pub profiles: Vec<&'static str>,
    /// Its entry in the catalog.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalog_entry_id: Option<&'static str>,
    /// `stdio` or `streamable_http`.
    pub transport: &'static str,
    /// The program, or the URL without its query.
    pub address: String,
    /// False when an operator has switched it off.
    pub enabled: bool,
    /// Start fails without it.
    pub required: bool,
    /// A credential goes to it.
    pub uses_credentials: bool,
    /// Slots that it names, sorted.
    pub credential_secret_refs: Vec<String>,
    /// It is connected.
    pub connected: bool,
    /// Names of its tools, as the server spells them.
    pub tools: Vec<String>,
    /// Why it is not connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The stable code of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<&'static str>,
    /// What the server tells models, cut and not to be trusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// Scopes that its account would have to allow, since a call was refused for lack of some: what the next login asks for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wanted_scopes: Vec<String>,
    /// The agreed revision of the protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol_version: Option<String>,
    /// Name and version that the server claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_info: Option<ServerInfo>,
    /// Since when, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected_at_ms: Option<u64>,
    /// Connections so far.
    pub connect_count: u64,
    /// Tools that are not offered, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// What a server claims to be.
#[derive(Debug, Serialize)]
pub struct ServerInfo {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
}

/// One tool.
#[derive(Debug, Serialize)]
pub struct ToolView {
    /// The server.
    pub server: String,
    /// As the server spells it.
    pub tool: String,
    /// As models call it.
    pub name: String,
    /// For people, if the server says one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// For models.
    pub description: String,
    /// JSON Schema of its arguments.
    pub input_schema: Value,
    /// What the server claims of it; no ground for any decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Value>,
    /// Changes when anything of the tool does.
    pub digest: String,
}

/// Figures of all servers, for the status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Whether there is any.
    pub configured_count: usize,
    /// Those that are connected.
    pub connected_count: usize,
    /// Those that an operator has switched off.
    pub disabled_count: usize,
    /// Those that should be connected and are not.
    pub failed_count: usize,
    /// Tools that models are offered.
    pub tool_count: usize,
}

/// Of a server whose account is used only when a session needs it.
const LAZY: &str = "oauth_requires_scoped_runtime_initialization";

impl ServerView {
    pub(super) fn of(server: &Server) -> Self {
        let config = &server.config;
        let Known {
            switch,
            connection,
            catalogue,
            hello,
            error,
            attempts,
            connects,
            connected_at_ms,
            wanted_scopes,
            ..
        } = server.known();
        let is_waiting = connection.is_none() && config.is_lazy() && attempts == 0 && switch == Switch::On;
        let hello = hello.filter(|_| connection.is_some());
        let shown = connection.is_some();
        Self {
            server: config.name.clone(),
            source: config.source.as_str(),
            profiles: config.profiles.clone(),
            catalog_entry_id: config.catalog_entry,
            transport: config.transport_name(),
            address: address(config),
            enabled: switch == Switch::On,
            required: config.required,
            uses_credentials: config.uses_credentials(),
            credential_secret_refs: config.slots().iter().map(ToString::to_string).collect(),
            connected: shown,
            tools: if shown { catalogue.tools.iter().map(|tool| tool.name.clone()).collect() } else { Vec::new() },
            error: match &error {
                _ if shown => None,
                _ if is_waiting => Some(LAZY.to_string()),
                Some(error) => Some(error.to_string()),
                None => None,
            },
            error_code: error.as_ref().filter(|_| !shown).map(super::McpError::code),
            instructions: hello.as_ref().and_then(|hello| hello.instructions.clone()),
            wanted_scopes,
            protocol_version: hello.as_ref().map(|hello| hello.version.clone()),
            server_info: hello.map(|hello| ServerInfo { name: hello.server_name, version: hello.server_version }),
            connected_at_ms,
            connect_count: connects,
            left_out: if shown { catalogue.left_out.clone() } else { Vec::new() },
        }
    }
}

fn address(config: &ServerConfig) -> String {
    match &config.transport {
        Transport::Stdio(stdio) => stdio.command.clone(),
        Transport::Http(http) => http.url.to_string(),
    }
}

/// The tools of a server, as they were listed last.
pub(super) fn tools(server: &Server) -> Vec<ToolView> {
    let known = server.known();
    let view = |tool: &super::catalogue::McpTool| ToolView {
        server: server.config.name.clone(),
        tool: tool.name.clone(),
        name: tool.offered.name.clone(),
        title: tool.title.clone(),
        description: tool.offered.description.clone(),
        input_schema: serde_json::from_str(&tool.offered.input_schema).unwrap_or_default(),
        annotations: tool.annotations.clone(),
        digest: tool.offered.digest.clone(),
    };
    match known.connection {
        Some(connection) => connection.catalogue.tools.iter().map(view).collect(),
        None => Vec::new(),
    }
}
