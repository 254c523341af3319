//! The configuration file as written: TOML with positions, nothing judged but shape.
//! Owns: the list of keys, their types, and where in the file each value stands.
//! Never: repeats a value or an unknown key in a message; either may be a misplaced secret.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::config::{self, ConfigError, Fault, ServerConfig};
use crate::limits::{MCP_CONFIG_BYTES_MAX, MCP_CONFIG_ENTRIES_MAX, MCP_CONFIG_TEXT_BYTES_MAX, MCP_SERVERS_MAX};
use crate::providers::nearest;

/// Line and column, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Flag,
    Number,
    List,
    Map,
}

const KEYS: [(&str, Kind); 28] = [
    ("enabled", Kind::Flag),
    ("required", Kind::Flag),
    ("startup_timeout_sec", Kind::Number),
    ("tool_timeout_sec", Kind::Number),
    ("enabled_tools", Kind::List),
    ("disabled_tools", Kind::List),
    ("elicitation", Kind::Flag),
    ("protocol", Kind::Text),
    ("command", Kind::Text),
    ("args", Kind::List),
    ("env", Kind::Map),
    ("env_secret_refs", Kind::Map),
    ("inherit_env", Kind::Flag),
    ("cwd", Kind::Text),
    ("read_only_paths", Kind::List),
    ("network", Kind::Flag),
    ("url", Kind::Text),
    ("headers", Kind::Map),
    ("http_headers", Kind::Map),
    ("env_http_headers", Kind::Map),
    ("http_header_secret_refs", Kind::Map),
    ("bearer_token_secret_ref", Kind::Text),
    ("bearer_token_env_var", Kind::Text),
    ("oauth_slot_ref", Kind::Text),
    ("oauth_resource", Kind::Text),
    ("oauth_scopes", Kind::List),
    ("allow_private_network", Kind::Flag),
    ("description", Kind::Text),
];

#[derive(Debug)]
enum Value {
    Text(String),
    Flag(bool),
    Number(u64),
    List(Vec<String>),
    Map(BTreeMap<String, String>),
}

/// One server as written.
#[derive(Debug, Default)]
pub(super) struct RawServer {
    values: BTreeMap<&'static str, (Value, Place)>,
}

impl RawServer {
    pub(super) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.values.get(key) {
            Some((Value::Text(text), _)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        match self.values.get(key) {
            Some((Value::Flag(flag), _)) => Some(*flag),
            _ => None,
        }
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        match self.values.get(key) {
            Some((Value::Number(number), _)) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn list(&self, key: &str) -> Option<&[String]> {
        match self.values.get(key) {
            Some((Value::List(list), _)) => Some(list),
            _ => None,
        }
    }

    pub(super) fn map(&self, key: &str) -> Option<&BTreeMap<String, String>> {
        match self.values.get(key) {
            Some((Value::Map(map), _)) => Some(map),
            _ => None,
        }
    }
}

/// Reads and judges the file at `path`. Servers that are switched off are left out; the rest is sorted by name.
///
/// # Errors
/// The first fault, with its place.
pub fn load(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Vec<ServerConfig>, ConfigError> {
    let error = |message: String| ConfigError { file: path.to_path_buf(), place: None, message };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MCP_CONFIG_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|cause| error(format!("cannot be read: {cause}; next: check --mcp-config")))?;
    if text.len() as u64 > MCP_CONFIG_BYTES_MAX {
        return Err(error(format!("has over {MCP_CONFIG_BYTES_MAX} bytes; next: check --mcp-config")));
    }
    parse(path, &text, environment)
}

/// The servers of another program's file, as far as they can be used; nothing when there is none.
pub fn discover(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Vec<ServerConfig> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MCP_CONFIG_BYTES_MAX).read_to_string(&mut text));
    let Ok(table) = read.map_err(drop).and_then(|_| DeTable::parse(&text).map_err(drop)) else {
        log::info!("no MCP servers were discovered");
        return Vec::new();
    };
    let mut servers = Vec::new();
    for (key, value) in table.get_ref() {
        let DeValue::Table(named) = value.get_ref() else { continue };
        for (name, value) in named.iter().filter(|_| key.get_ref() == "mcp_servers").take(MCP_SERVERS_MAX) {
            let DeValue::Table(fields) = value.get_ref() else { continue };
            let judged = read_server(&text, fields)
                .map_err(|(_, message)| message)
                .and_then(|raw| config::server(name.get_ref(), &raw, environment).map_err(|fault| fault.message));
            match judged {
                Ok(server) => servers.extend(server),
                Err(message) => log::warn!("a discovered MCP server is passed over: {message}"),
            }
        }
    }
    log::info!("{} MCP servers were discovered in another program's file", servers.len());
    servers
}

/// See [`load`].
pub(super) fn parse(
    path: &Path,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<ServerConfig>, ConfigError> {
    let refuse = |span: Range<usize>, message: String| ConfigError {
        file: path.to_path_buf(),
        place: Some(place(text, span)),
        message,
    };
    let table = DeTable::parse(text).map_err(|error| {
        let message = "this is not valid TOML; next: check quotes, brackets and doubled keys on this line";
        refuse(error.span().unwrap_or(0..0), message.to_string())
    })?;
    let mut servers = Vec::new();
    for (key, value) in table.get_ref() {
        if key.get_ref() != "mcp_servers" {
            return Err(refuse(key.span(), unknown(key.get_ref(), ["mcp_servers"].into_iter())));
        }
        let DeValue::Table(named) = value.get_ref() else {
            let message = "`mcp_servers` must be a table of tables; next: write [mcp_servers.<name>] headings";
            return Err(refuse(key.span(), message.to_string()));
        };
        for (name, value) in named {
            let DeValue::Table(fields) = value.get_ref() else {
                let message = "a server must be a table; next: write it under a [mcp_servers.<name>] heading";
                return Err(refuse(name.span(), message.to_string()));
            };
            if servers.len() == MCP_SERVERS_MAX {
                return Err(refuse(name.span(), format!("over {MCP_SERVERS_MAX} servers; next: remove some")));
            }
            let raw = read_server(text, fields).map_err(|(span, message)| refuse(span, message))?;
            let judged = config::server(name.get_ref(), &raw, environment).map_err(|Fault { key, message }| {
                let at = raw.values.get(key).map_or_else(|| place(text, name.span()), |(_, place)| *place);
                ConfigError { file: path.to_path_buf(), place: Some(at), message }
            })?;
            servers.extend(judged);
        }
    }
    servers.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(servers)
}

fn read_server(text: &str, fields: &DeTable<'_>) -> Result<RawServer, (Range<usize>, String)> {
    let mut raw = RawServer::default();
    for (key, value) in fields {
        let Some((name, kind)) = KEYS.iter().find(|(name, _)| *name == key.get_ref()) else {
            return Err((key.span(), unknown(key.get_ref(), KEYS.iter().map(|(name, _)| *name))));
        };
        let read = read_value(*kind, value.get_ref()).map_err(|wanted| {
            (key.span(), format!("`{name}` has the wrong type or is too long; next: give it {wanted}"))
        })?;
        raw.values.insert(name, (read, place(text, key.span())));
    }
    Ok(raw)
}

fn unknown<'k>(key: &str, known: impl Iterator<Item = &'k str>) -> String {
    match nearest(key, known) {
        Some(name) => format!("unknown key; next: did you mean `{name}`?"),
        None => "unknown key; next: remove it, docs/operators/mcp.md lists the keys".to_string(),
    }
}

fn read_value(kind: Kind, value: &DeValue<'_>) -> Result<Value, &'static str> {
    let text = |value: &DeValue<'_>| match value {
        DeValue::String(text) if text.len() <= MCP_CONFIG_TEXT_BYTES_MAX && !text.contains('\0') => {
            Some(text.to_string())
        }
        _ => None,
    };
    match (kind, value) {
        (Kind::Text, value) => text(value).map(Value::Text).ok_or("a text in quotes"),
        (Kind::Flag, DeValue::Boolean(flag)) => Ok(Value::Flag(*flag)),
        (Kind::Flag, _) => Err("true or false"),
        (Kind::Number, DeValue::Integer(number)) => u64::from_str_radix(number.as_str(), number.radix())
            .map(Value::Number)
            .map_err(|_| "a whole number that is not negative"),
        (Kind::Number, _) => Err("a whole number without quotes"),
        (Kind::List, DeValue::Array(items)) if items.len() <= MCP_CONFIG_ENTRIES_MAX => {
            let texts: Option<Vec<String>> = items.iter().map(|item| text(item.get_ref())).collect();
            texts.map(Value::List).ok_or("a list of texts")
        }
        (Kind::List, _) => Err("a list of texts"),
        (Kind::Map, DeValue::Table(entries)) if entries.len() <= MCP_CONFIG_ENTRIES_MAX => {
            let entry = |(name, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
                let name: &std::borrow::Cow<'_, str> = name.get_ref();
                Some((name.to_string(), text(value.get_ref())?))
            };
            let read: Option<BTreeMap<String, String>> = entries.iter().map(entry).collect();
            read.map(Value::Map).ok_or("a table of texts")
        }
        (Kind::Map, _) => Err("a table of texts"),
    }
}

fn place(text: &str, span: Range<usize>) -> Place {
    let mut start = span.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let before = &text[..start];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    Place { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}
