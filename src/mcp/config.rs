//! Which MCP servers there are and how they are reached.
//! Owns: the checked form of a server's configuration, and the combinations that are refused.
//! May touch: the environment, through the look-up that is handed in.
//! Never: holds a secret but one that the environment gave; repeats a value in an error.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::config_file::{Place, RawServer};
use crate::broker::{ACCOUNT_PREFIX, SlotId};
use crate::limits::{
    MCP_SERVER_NAME_BYTES_MAX, MCP_STARTUP_TIMEOUT_S_DEFAULT, MCP_TIMEOUT_S_MAX, MCP_TOOL_TIMEOUT_S_DEFAULT,
};
use crate::net::Target;
use crate::secret::Secret;

/// Where a server's configuration comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A file: `--mcp-config`, or the one that discovery found.
    File,
    /// The catalog that comes with the daemon.
    Catalog,
}

impl Source {
    /// As the snapshot spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "codex_config",
            Self::Catalog => "built_in_catalog",
        }
    }
}

/// Which revisions of the protocol are spoken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    /// The revisions with a handshake: 2025-11-25 is asked for, and older ones are taken.
    #[default]
    Handshake,
    /// 2026-07-28, which has none, is tried first; a server that does not know it gets a handshake.
    Auto,
    /// 2026-07-28 alone.
    Stateless,
}

/// One server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Names the server everywhere.
    pub name: String,
    /// Where this comes from.
    pub source: Source,
    /// Profiles of the catalog that have it.
    pub profiles: Vec<&'static str>,
    /// Its entry there.
    pub catalog_entry: Option<&'static str>,
    /// Start fails when it cannot be connected.
    pub required: bool,
    /// Time to be connected, milliseconds.
    pub startup_ms: u64,
    /// Time of one call, milliseconds.
    pub tool_ms: u64,
    /// The only tools that are offered, by the server's spelling.
    pub enabled_tools: Option<BTreeSet<String>>,
    /// Tools that are not offered.
    pub disabled_tools: BTreeSet<String>,
    /// People may be asked questions on its behalf.
    pub elicitation: bool,
    /// Revisions.
    pub protocol: Protocol,
    /// How it is reached.
    pub transport: Transport,
}

/// How a server is reached.
#[derive(Debug, Clone)]
pub enum Transport {
    /// A child process.
    Stdio(Stdio),
    /// Over the network.
    Http(Http),
}

/// A child process.
#[derive(Debug, Clone)]
pub struct Stdio {
    /// Program.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its variables, beside a few plain ones.
    pub env: BTreeMap<String, String>,
    /// Variables whose values are secrets.
    pub env_secret_refs: BTreeMap<String, SlotId>,
    /// Directory, relative to the workspace; empty for the workspace itself.
    pub cwd: String,
    /// Places that it can read beside the programs of the system, canonical.
    pub read_only_paths: Vec<PathBuf>,
    /// It can use the host's network.
    pub network: bool,
}

/// A server on the network.
#[derive(Debug, Clone)]
pub struct Http {
    /// Where it is.
    pub url: Target,
    /// The same as it was written: OAuth compares it so.
    pub url_text: String,
    /// Header lines without secrets.
    pub headers: Vec<(String, String)>,
    /// Its credential.
    pub credential: Credential,
    /// It may have a private address.
    pub allow_private: bool,
}

/// What stands in the one header that carries a secret.
#[derive(Debug, Clone)]
pub enum Credential {
    /// Nothing.
    None,
    /// A bearer token from a slot.
    Bearer(SlotId),
    /// The value of a header from a slot.
    Header(String, SlotId),
    /// The access token of an account.
    OAuth {
        /// The account's slot.
        slot: SlotId,
        /// For which resource it must be.
        resource: String,
        /// What it must allow at least.
        scopes: Vec<String>,
    },
    /// From the environment, since start; `None` is a bearer token.
    Environment(Option<String>, Arc<Secret>),
}

impl ServerConfig {
    /// The slots that it names, sorted.
    pub fn slots(&self) -> Vec<&SlotId> {
        let mut slots: Vec<&SlotId> = match &self.transport {
            Transport::Stdio(stdio) => stdio.env_secret_refs.values().collect(),
            Transport::Http(http) => match &http.credential {
                Credential::Bearer(slot) | Credential::Header(_, slot) | Credential::OAuth { slot, .. } => vec![slot],
                Credential::None | Credential::Environment(..) => Vec::new(),
            },
        };
        slots.sort();
        slots.dedup();
        slots
    }

    /// The slot of its account.
    pub(super) fn account(&self) -> Option<&SlotId> {
        match &self.transport {
            Transport::Http(Http { credential: Credential::OAuth { slot, .. }, .. }) => Some(slot),
            _ => None,
        }
    }

    /// What its account must allow at least.
    pub(super) fn account_scopes(&self) -> &[String] {
        match &self.transport {
            Transport::Http(Http { credential: Credential::OAuth { scopes, .. }, .. }) => scopes,
            _ => &[],
        }
    }

    /// The secret that the environment gave it.
    pub(super) fn environment_secret(&self) -> Option<Arc<Secret>> {
        match &self.transport {
            Transport::Http(Http { credential: Credential::Environment(_, secret), .. }) => Some(secret.clone()),
            _ => None,
        }
    }

    /// Whether a credential goes to it.
    pub fn uses_credentials(&self) -> bool {
        !self.slots().is_empty()
            || matches!(&self.transport, Transport::Http(http) if matches!(http.credential, Credential::Environment(..)))
    }

    /// Whether it is connected only when a session or an operator needs it.
    pub fn is_lazy(&self) -> bool {
        matches!(&self.transport, Transport::Http(Http { credential: Credential::OAuth { .. }, .. }))
    }

    /// `stdio` or `streamable_http`.
    pub fn transport_name(&self) -> &'static str {
        match self.transport {
            Transport::Stdio(_) => "stdio",
            Transport::Http(_) => "streamable_http",
        }
    }

    /// Whether the tool that the server calls `name` may be offered.
    pub fn offers(&self, name: &str) -> bool {
        self.enabled_tools.as_ref().is_none_or(|enabled| enabled.contains(name)) && !self.disabled_tools.contains(name)
    }
}

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// Where in it.
    pub place: Option<Place>,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some(Place { line, column }) => write!(f, "{}:{line}:{column}: {}", self.file.display(), self.message),
            None => write!(f, "{}: {}", self.file.display(), self.message),
        }
    }
}

impl std::error::Error for ConfigError {}

/// A fault of one server, with the key whose place it is reported at.
pub(super) struct Fault {
    pub key: &'static str,
    pub message: String,
}

fn fault<T>(key: &'static str, message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { key, message: message.into() })
}

/// Whether `name` can be a server's.
pub(super) fn is_server_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    // Two underscores stand between a server's name and a tool's.
    (1..=MCP_SERVER_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(legal)
        && !name.contains("__")
        && !name.starts_with('_')
        && !name.ends_with('_')
}

/// Keys that belong to one kind of transport only.
const STDIO_KEYS: [&str; 8] =
    ["command", "args", "env", "env_secret_refs", "inherit_env", "cwd", "read_only_paths", "network"];
const HTTP_KEYS: [&str; 9] = [
    "url",
    "headers",
    "http_headers",
    "env_http_headers",
    "http_header_secret_refs",
    "bearer_token_secret_ref",
    "bearer_token_env_var",
    "oauth_slot_ref",
    "allow_private_network",
];

/// Judges what was written of one server. `None` when it is switched off.
pub(super) fn server(
    name: &str,
    raw: &RawServer,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<ServerConfig>, Fault> {
    if !is_server_name(name) {
        return fault(
            "",
            format!(
                "the server's name must have 1 to {MCP_SERVER_NAME_BYTES_MAX} letters, digits, - and single _ inside; next: \
                 rename it"
            ),
        );
    }
    let transport = match (raw.text("command"), raw.text("url")) {
        (Some(_), Some(_)) => return fault("url", "a server has a command or a url, not both; next: remove one"),
        (None, None) => return fault("", "the server has neither a command nor a url; next: give it one"),
        (Some(command), None) => {
            foreign(raw, &HTTP_KEYS, "url")?;
            foreign(raw, &["oauth_resource", "oauth_scopes"], "url")?;
            Transport::Stdio(stdio(command, raw)?)
        }
        (None, Some(url)) => {
            foreign(raw, &STDIO_KEYS, "command")?;
            Transport::Http(http(url, raw, environment)?)
        }
    };
    let seconds = |key: &'static str, default: u64| match raw.number(key) {
        None => Ok(default * 1_000),
        Some(seconds) if (1..=MCP_TIMEOUT_S_MAX).contains(&seconds) => Ok(seconds * 1_000),
        Some(_) => fault(key, format!("`{key}` must be from 1 to {MCP_TIMEOUT_S_MAX} seconds; next: correct it")),
    };
    let protocol = match raw.text("protocol") {
        None | Some("handshake") => Protocol::Handshake,
        Some("auto") => Protocol::Auto,
        Some("2026-07-28") => Protocol::Stateless,
        Some(_) => {
            return fault("protocol", "`protocol` is none of handshake, auto and 2026-07-28; next: use one of them");
        }
    };
    if raw.flag("enabled") == Some(false) {
        return Ok(None);
    }
    Ok(Some(ServerConfig {
        name: name.to_string(),
        source: Source::File,
        profiles: Vec::new(),
        catalog_entry: None,
        required: raw.flag("required").unwrap_or(false),
        startup_ms: seconds("startup_timeout_sec", MCP_STARTUP_TIMEOUT_S_DEFAULT)?,
        tool_ms: seconds("tool_timeout_sec", MCP_TOOL_TIMEOUT_S_DEFAULT)?,
        enabled_tools: raw.list("enabled_tools").map(|names| names.iter().cloned().collect()),
        disabled_tools: raw.list("disabled_tools").unwrap_or_default().iter().cloned().collect(),
        elicitation: raw.flag("elicitation").unwrap_or(true),
        protocol,
        transport,
    }))
}

fn foreign(raw: &RawServer, keys: &[&'static str], with: &str) -> Result<(), Fault> {
    match keys.iter().copied().find(|key| raw.has(key)) {
        Some(key) => fault(key, format!("`{key}` belongs to a server with a {with}; next: remove it")),
        None => Ok(()),
    }
}

fn stdio(command: &str, raw: &RawServer) -> Result<Stdio, Fault> {
    if command.trim().is_empty() || command.contains('\0') {
        return fault("command", "`command` is blank; next: name a program");
    }
    if raw.flag("inherit_env") == Some(true) {
        let message =
            "the daemon's environment is never passed on; next: remove `inherit_env`, and list variables under `env`";
        return fault("inherit_env", message);
    }
    let is_name = |name: &String| {
        !name.is_empty()
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let env = raw.map("env").cloned().unwrap_or_default();
    let env_secret_refs = slots("env_secret_refs", raw)?;
    for (key, names) in [("env", env.keys().collect::<Vec<_>>()), ("env_secret_refs", env_secret_refs.keys().collect())]
    {
        if !names.into_iter().all(is_name) {
            return fault(key, format!("`{key}` has a name that is no variable's; next: use letters, digits and _"));
        }
    }
    if env.keys().any(|name| env_secret_refs.contains_key(name)) {
        return fault("env_secret_refs", "a variable is in `env` and in `env_secret_refs`; next: keep one of them");
    }
    let cwd = raw.text("cwd").unwrap_or_default();
    let is_inside = Path::new(cwd).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !is_inside {
        return fault("cwd", "`cwd` must be a path below the workspace, without ..; next: correct it");
    }
    let mut read_only_paths = Vec::new();
    for path in raw.list("read_only_paths").unwrap_or_default() {
        match Path::new(path).canonicalize() {
            Ok(found) if Path::new(path).is_absolute() => read_only_paths.push(found),
            _ => {
                let message = "`read_only_paths` has a path that is not absolute or not there; next: correct it";
                return fault("read_only_paths", message);
            }
        }
    }
    Ok(Stdio {
        command: command.to_string(),
        args: raw.list("args").unwrap_or_default().to_vec(),
        env,
        env_secret_refs,
        cwd: cwd.to_string(),
        read_only_paths,
        network: raw.flag("network").unwrap_or(false),
    })
}

/// Headers that the transport sets itself.
const OWN_HEADERS: [&str; 14] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "last-event-id",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "te",
    "transfer-encoding",
];

fn http(url_text: &str, raw: &RawServer, environment: &dyn Fn(&str) -> Option<String>) -> Result<Http, Fault> {
    let url = match Target::parse(url_text) {
        Ok(url) if !url_text.contains('#') => url,
        Ok(_) => return fault("url", "`url` has a fragment; next: remove it"),
        Err(error) => return fault("url", format!("`url`: {error}")),
    };
    let header_maps = ["headers", "http_headers", "env_http_headers", "http_header_secret_refs"];
    let mut seen = BTreeSet::new();
    for key in header_maps {
        for name in raw.map(key).into_iter().flat_map(|map| map.keys()) {
            let lower = name.to_ascii_lowercase();
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(legal) {
                return fault(key, format!("`{key}` has a name that is no header's; next: correct it"));
            }
            if OWN_HEADERS.contains(&lower.as_str()) || lower.starts_with("mcp-param-") {
                return fault(key, format!("`{key}` sets a header that the daemon sets itself; next: remove it"));
            }
            if !seen.insert(lower) {
                return fault(key, "two sources set the same header; next: keep one of them");
            }
        }
    }
    let mut headers = Vec::new();
    for key in ["headers", "http_headers"] {
        for (name, value) in raw.map(key).into_iter().flatten() {
            let is_secret =
                ["authorization", "proxy-authorization", "x-api-key"].contains(&name.to_ascii_lowercase().as_str());
            if is_secret {
                let message = "a header that carries a secret stands in the file; next: use `bearer_token_secret_ref` or \
                               `http_header_secret_refs`";
                return fault(key, message);
            }
            if !value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
                return fault(key, format!("`{key}` has a value that no header can hold; next: use plain ASCII"));
            }
            headers.push((name.to_ascii_lowercase(), value.clone()));
        }
    }
    let credential = credential(url_text, raw, environment)?;
    Ok(Http {
        url,
        url_text: url_text.to_string(),
        headers,
        credential,
        allow_private: raw.flag("allow_private_network").unwrap_or(false),
    })
}

fn credential(url: &str, raw: &RawServer, environment: &dyn Fn(&str) -> Option<String>) -> Result<Credential, Fault> {
    let mut found = Vec::new();
    if let Some(slot) = raw.text("bearer_token_secret_ref") {
        found.push(Credential::Bearer(slot_id("bearer_token_secret_ref", slot)?));
    }
    let from_environment = |key: &'static str, name: &str| match environment(name).filter(|value| !value.is_empty()) {
        Some(value) => Ok(Arc::new(Secret::new(value.into_bytes()))),
        None => fault(key, "the variable that it names is not set; next: set it, or use a secret ref"),
    };
    if let Some(name) = raw.text("bearer_token_env_var") {
        found.push(Credential::Environment(None, from_environment("bearer_token_env_var", name)?));
    }
    for (header, slot) in slots("http_header_secret_refs", raw)? {
        found.push(Credential::Header(header.to_ascii_lowercase(), slot));
    }
    for (header, name) in raw.map("env_http_headers").into_iter().flatten() {
        let value = from_environment("env_http_headers", name)?;
        found.push(Credential::Environment(Some(header.to_ascii_lowercase()), value));
    }
    match raw.text("oauth_slot_ref") {
        Some(slot) => {
            let slot = slot_id("oauth_slot_ref", slot)?;
            if !slot.as_str().starts_with(ACCOUNT_PREFIX) {
                let message = format!("the slot of an account must begin with {ACCOUNT_PREFIX}; next: correct it");
                return fault("oauth_slot_ref", message);
            }
            let resource = raw.text("oauth_resource").unwrap_or(url).to_string();
            let scopes = raw.list("oauth_scopes").unwrap_or_default().to_vec();
            found.push(Credential::OAuth { slot, resource, scopes });
        }
        None => {
            if let Some(key) = ["oauth_resource", "oauth_scopes"].into_iter().find(|key| raw.has(key)) {
                return fault(key, format!("`{key}` needs `oauth_slot_ref`; next: name the account's slot"));
            }
        }
    }
    match found.len() {
        0 => Ok(Credential::None),
        1 => Ok(found.remove(0)),
        _ => fault(
            "url",
            "the server has more than one credential; next: keep one of bearer_token_secret_ref, bearer_token_env_var, \
             oauth_slot_ref, one of http_header_secret_refs and one of env_http_headers",
        ),
    }
}

fn slot_id(key: &'static str, text: &str) -> Result<SlotId, Fault> {
    SlotId::parse(text).map_err(|error| Fault { key, message: format!("`{key}`: {error}") })
}

fn slots(key: &'static str, raw: &RawServer) -> Result<BTreeMap<String, SlotId>, Fault> {
    let named = raw.map(key).into_iter().flatten();
    named.map(|(name, slot)| Ok((name.clone(), slot_id(key, slot)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::config_file;

    fn parse(text: &str) -> Result<Vec<ServerConfig>, String> {
        let environment = |name: &str| (name == "SET").then(|| "value-of-the-variable".to_string());
        config_file::parse(Path::new("mcp.toml"), text, &environment).map_err(|error| error.to_string())
    }

    #[test]
    fn a_whole_file_is_read_as_it_says() {
        let servers = parse(
            "[mcp_servers.files]\ncommand = 'python3'\nargs = ['-m', 'files']\nenv = { A = 'b' }\ncwd = 'sub'\n\
             env_secret_refs = { TOKEN = 'mcp.files.TOKEN' }\nstartup_timeout_sec = 3\nenabled_tools = ['read']\n\
             [mcp_servers.off]\nenabled = false\nurl = 'https://a.example/mcp'\n\
             [mcp_servers.web]\nurl = 'https://a.example/mcp'\nbearer_token_secret_ref = 'mcp.custom.web.T'\n\
             headers = { X-Team = 'ops' }\nrequired = true\nprotocol = '2026-07-28'\n\
             [mcp_servers.acme]\nurl = 'https://b.example/mcp'\noauth_slot_ref = 'mcp.oauth.acme'\noauth_scopes = ['read']\n\
             [mcp_servers.env]\nurl = 'https://b.example/mcp'\nbearer_token_env_var = 'SET'\n",
        )
        .unwrap();
        let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
        assert_eq!(names, ["acme", "env", "files", "web"]);
        let [acme, env, files, web] = servers.try_into().unwrap();
        assert!(acme.is_lazy() && env.uses_credentials() && env.slots().is_empty());
        assert_eq!((files.startup_ms, files.tool_ms, files.transport_name()), (3_000, 120_000, "stdio"));
        assert!(files.offers("read") && !files.offers("write"));
        assert_eq!(files.slots().iter().map(|slot| slot.as_str()).collect::<Vec<_>>(), ["mcp.files.TOKEN"]);
        assert_eq!((web.required, web.protocol), (true, Protocol::Stateless));
        let Transport::Http(http) = &web.transport else { panic!("http") };
        assert_eq!(http.headers, [("x-team".to_string(), "ops".to_string())]);
    }

    #[test]
    fn what_cannot_hold_is_refused_with_its_line_and_a_next_step_and_without_its_value() {
        let secret = "value-that-may-be-a-secret";
        let http = "url = 'https://a.example/mcp'\n";
        let stdio = "command = 'c'\n";
        for (lines, line, words) in [
            (format!("{http}comand = '{secret}'"), 3, "did you mean `command`?"),
            (format!("{http}color = '{secret}'"), 3, "unknown key"),
            (format!("{http}command = '{secret}'"), 2, "not both"),
            ("required = true".to_string(), 1, "neither"),
            (format!("{stdio}headers = {{ A = '{secret}' }}"), 3, "belongs to a server with a url"),
            (format!("{http}args = ['{secret}']"), 3, "belongs to a server with a command"),
            (format!("{stdio}inherit_env = true"), 3, "never passed on"),
            (format!("{stdio}cwd = '/{secret}'"), 3, "below the workspace"),
            (format!("{stdio}cwd = 'a/../../{secret}'"), 3, "below the workspace"),
            (format!("{stdio}env = {{ 'A-B' = '{secret}' }}"), 3, "no variable's"),
            (format!("{stdio}env = {{ A = '{secret}' }}\nenv_secret_refs = {{ A = 'x' }}"), 4, "keep one"),
            (format!("{stdio}env_secret_refs = {{ A = '' }}"), 3, "slot id is invalid"),
            (format!("{stdio}read_only_paths = ['{secret}']"), 3, "not absolute"),
            (format!("{http}headers = {{ Authorization = 'Bearer {secret}' }}"), 3, "bearer_token_secret_ref"),
            (format!("{http}headers = {{ Mcp-Session-Id = '{secret}' }}"), 3, "sets itself"),
            (format!("{http}headers = {{ A = 'x' }}\nhttp_headers = {{ a = 'y' }}"), 4, "same header"),
            (
                format!("{http}bearer_token_secret_ref = 'a'\noauth_slot_ref = 'mcp.oauth.a'"),
                2,
                "more than one credential",
            ),
            (format!("{http}oauth_slot_ref = 'a'"), 3, "must begin with mcp.oauth."),
            (format!("{http}oauth_scopes = ['a']"), 3, "needs `oauth_slot_ref`"),
            (format!("{http}bearer_token_env_var = 'UNSET'"), 3, "not set"),
            (format!("{http}tool_timeout_sec = 0"), 3, "from 1 to"),
            (format!("{http}tool_timeout_sec = '{secret}'"), 3, "whole number"),
            (format!("{http}enabled_tools = '{secret}'"), 3, "list of texts"),
            (format!("{http}protocol = '{secret}'"), 3, "none of"),
            (format!("url = 'https://{secret}@a.example/mcp'"), 2, "user name"),
            (format!("url = '{secret}'"), 2, "http://"),
        ] {
            let error = parse(&format!("[mcp_servers.one]\n{lines}\n")).expect_err(&lines);
            assert!(error.starts_with(&format!("mcp.toml:{line}:")), "{error} for {lines}");
            assert!(
                error.contains(words) && error.contains("next:") || words.contains("did you"),
                "{error} for {lines}"
            );
            assert!(error.contains(words), "{error}");
            assert!(!error.contains(secret), "{error}");
        }
        for name in ["a__b", "_a", "a_", "'a b'", "'ä'", &"x".repeat(33)] {
            let error = parse(&format!("[mcp_servers.{name}]\ncommand = 'c'\n")).expect_err(name);
            assert!(error.contains("rename it"), "{error}");
        }
        assert!(parse("[mcp_server.a]\ncommand='c'").unwrap_err().contains("did you mean `mcp_servers`?"));
        assert!(parse("[mcp_servers.a]\ncommand='c").unwrap_err().contains("TOML"));
        assert!(parse("").unwrap().is_empty());
    }
}
