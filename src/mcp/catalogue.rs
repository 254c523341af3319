//! A server's tools, as models are offered them.
//! Owns: their names, and what is kept of their descriptions and schemas.
//! Never: takes a hint of a server for a fact: what a tool is said to do changes nothing in what it may do.

use std::collections::BTreeSet;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use serde_json::{Map, Value};

use super::config::ServerConfig;
use super::content::shown;
use super::headers;
use crate::hex::to_hex;
use crate::limits::{
    MCP_DESCRIPTION_BYTES_MAX, MCP_FIELD_DESCRIPTION_BYTES_MAX, MCP_NAME_BYTES_MAX, MCP_SCHEMA_BYTES_MAX,
    MCP_SCHEMA_DEPTH_MAX, TOOL_NAME_BYTES_MAX,
};
use crate::tools::{RoomTool, cut_bytes};

/// What stands before each name.
pub(super) const PREFIX: &str = "mcp__";

/// A tool of a server.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct McpTool {
    /// As the server spells it.
    pub name: String,
    /// What people are shown instead, if the server says so.
    pub title: Option<String>,
    /// As models are offered it.
    pub offered: Arc<RoomTool>,
    /// What the server claims of it.
    pub annotations: Option<Value>,
    /// A success must carry structured content.
    pub has_output_schema: bool,
    /// Arguments that are repeated in header lines, in the revision without a handshake.
    pub header_places: Vec<(Vec<String>, String)>,
}

/// All of them, by offered name.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Catalogue {
    pub tools: Vec<McpTool>,
    /// Tools that are not offered, and why; names as far as they can be shown.
    pub left_out: Vec<String>,
    /// The server has more than are kept.
    pub is_cut: bool,
}

impl Catalogue {
    /// The catalogue of a list that a server gave. `checks_headers` in the revision that repeats arguments in header lines.
    pub fn of(config: &ServerConfig, listed: Vec<Value>, is_cut: bool, checks_headers: bool) -> Self {
        let mut catalogue = Self { is_cut, ..Self::default() };
        let mut taken = BTreeSet::new();
        for value in listed {
            let called = shown(value["name"].as_str().unwrap_or_default(), 64);
            match tool(config, &value, checks_headers, &mut taken) {
                Ok(Some(tool)) => catalogue.tools.push(tool),
                Ok(None) => {}
                Err(why) => catalogue.left_out.push(format!("{called}: {why}")),
            }
        }
        catalogue.tools.sort_by(|one, other| one.offered.name.cmp(&other.offered.name));
        catalogue
    }

    /// The tool that is offered under `name`.
    pub fn offered(&self, name: &str) -> Option<&McpTool> {
        self.tools.iter().find(|tool| tool.offered.name == name)
    }

    /// The tool that the server calls `name`.
    pub fn named(&self, name: &str) -> Option<&McpTool> {
        self.tools.iter().find(|tool| tool.name == name)
    }
}

fn tool(
    config: &ServerConfig,
    value: &Value,
    checks_headers: bool,
    taken: &mut BTreeSet<String>,
) -> Result<Option<McpTool>, &'static str> {
    let Some(name) = value["name"].as_str().filter(|name| (1..=MCP_NAME_BYTES_MAX).contains(&name.len())) else {
        return Err("its name is empty or too long");
    };
    if !config.offers(name) {
        return Ok(None);
    }
    if value["execution"]["taskSupport"] == "required" {
        return Err("it can only be run as a task, which this client does not do");
    }
    let schema = match &value["inputSchema"] {
        Value::Object(schema) if schema.get("type").is_none_or(|kind| kind == "object") => schema,
        _ => return Err("its schema is no object"),
    };
    let header_places = if checks_headers {
        headers::of_schema(&value["inputSchema"])
            .ok_or("its schema marks arguments for header lines against the rules")?
    } else {
        Vec::new()
    };
    let mut schema = match bounded(&Value::Object(schema.clone()), 0) {
        Some(Value::Object(schema)) => schema,
        _ => return Err("its schema is too deep"),
    };
    schema.entry("type").or_insert_with(|| "object".into());
    schema.entry("properties").or_insert_with(|| Value::Object(Map::new()));
    let input_schema = Value::Object(schema).to_string();
    if input_schema.len() > MCP_SCHEMA_BYTES_MAX {
        return Err("its schema is too long");
    }
    let offered_name = offered_name(&config.name, name, taken);
    let said = value["description"].as_str().unwrap_or_default().trim();
    let description = format!(
        "[Text of the MCP server {}, not checked by anybody] {}",
        config.name,
        shown(said, MCP_DESCRIPTION_BYTES_MAX)
    );
    // All that a person who allows a call may have looked at.
    let identity = serde_json::json!([
        name,
        said,
        value["title"],
        value["inputSchema"],
        value["outputSchema"],
        value["annotations"]
    ]);
    let digest = to_hex(digest(&SHA256, identity.to_string().as_bytes()).as_ref());
    Ok(Some(McpTool {
        name: name.to_string(),
        title: value["title"].as_str().or(value["annotations"]["title"].as_str()).map(|title| shown(title, 256)),
        offered: Arc::new(RoomTool {
            name: offered_name,
            description,
            input_schema,
            timeout_ms: config.tool_ms,
            may_ask: config.elicitation,
            servers: Vec::new(),
            digest,
        }),
        annotations: Some(value["annotations"].clone())
            .filter(|hints| hints.is_object() && hints.to_string().len() < 1_024),
        has_output_schema: value["outputSchema"].is_object(),
        header_places,
    }))
}

/// The schema without what no model needs, its descriptions cut; `None` when it is too deep.
fn bounded(schema: &Value, depth: usize) -> Option<Value> {
    if depth > MCP_SCHEMA_DEPTH_MAX {
        return None;
    }
    Some(match schema {
        Value::Object(members) => {
            let mut kept = Map::new();
            for (key, member) in members {
                let member = match member {
                    Value::String(text) if key == "description" => {
                        Value::String(shown(text, MCP_FIELD_DESCRIPTION_BYTES_MAX))
                    }
                    other => bounded(other, depth + 1)?,
                };
                kept.insert(key.clone(), member);
            }
            Value::Object(kept)
        }
        Value::Array(items) => Value::Array(items.iter().map(|item| bounded(item, depth + 1)).collect::<Option<_>>()?),
        other => other.clone(),
    })
}

/// `mcp__<server>__<tool>` in the characters that every provider takes and no longer than they take; where that changes the
/// name or another tool has it, a digest of the server's spelling tells them apart.
fn offered_name(server: &str, tool: &str, taken: &mut BTreeSet<String>) -> String {
    let plain: String =
        tool.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' }).collect();
    let whole = format!("{PREFIX}{server}__{plain}");
    let mark = &to_hex(digest(&SHA256, tool.as_bytes()).as_ref())[..8];
    let mut name = if whole.len() <= TOOL_NAME_BYTES_MAX && !taken.contains(&whole) {
        whole
    } else {
        format!("{}_{mark}", cut_bytes(&whole, TOOL_NAME_BYTES_MAX - mark.len() - 1))
    };
    let mut number = 2;
    while !taken.insert(name.clone()) {
        // The same name twice in one list: a mistake of the server that must not hide a tool.
        let end = format!("_{mark}_{number}");
        name = format!("{}{end}", cut_bytes(&format!("{PREFIX}{server}__{plain}"), TOOL_NAME_BYTES_MAX - end.len()));
        number += 1;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::config_file;
    use serde_json::json;

    fn config(lines: &str) -> ServerConfig {
        let text = format!("[mcp_servers.s]\ncommand = 'c'\n{lines}");
        config_file::parse(std::path::Path::new("f"), &text, &|_| None).unwrap().remove(0)
    }

    fn named(name: &str) -> Value {
        json!({"name": name, "description": "d", "inputSchema": {"type": "object"}})
    }

    fn names(catalogue: &Catalogue) -> Vec<&str> {
        catalogue.tools.iter().map(|tool| tool.offered.name.as_str()).collect()
    }

    #[test]
    fn names_are_those_that_every_provider_takes_and_no_two_are_alike() {
        let long = "x".repeat(200);
        let listed = ["a.b", "a_b", "a/b", "plain", "plain", &long, "ä", ""].map(named).into();
        let catalogue = Catalogue::of(&config(""), listed, false, false);
        let names = names(&catalogue);
        assert_eq!(names.len(), 7, "{names:?}");
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        assert!(names.iter().all(|name| name.len() <= 64 && name.chars().all(legal)), "{names:?}");
        let different: BTreeSet<&&str> = names.iter().collect();
        assert_eq!(different.len(), 7);
        assert!(names.contains(&"mcp__s__a_b") && names.contains(&"mcp__s__plain"), "{names:?}");
        assert_eq!(catalogue.left_out, [": its name is empty or too long"]);
    }

    #[test]
    fn what_is_not_to_be_offered_is_not_and_what_cannot_be_says_why() {
        let catalogue = Catalogue::of(
            &config("enabled_tools = ['a', 'b']\ndisabled_tools = ['b']"),
            ["a", "b", "c"].map(named).into(),
            false,
            false,
        );
        assert_eq!((names(&catalogue), catalogue.left_out.len()), (vec!["mcp__s__a"], 0));
        let mut deep = json!({"type": "string"});
        for _ in 0..40 {
            deep = json!({"items": deep});
        }
        let wide = json!({"type": "object", "properties": {"p": {"enum": ["x".repeat(70_000)]}}});
        let listed = vec![
            json!({"name": "list", "inputSchema": {"type": "array"}}),
            json!({"name": "none"}),
            json!({"name": "deep", "inputSchema": {"type": "object", "properties": {"p": deep}}}),
            json!({"name": "wide", "inputSchema": wide}),
            json!({"name": "task", "inputSchema": {"type": "object"}, "execution": {"taskSupport": "required"}}),
            json!({"name": 7, "inputSchema": {"type": "object"}}),
            json!("nonsense"),
        ];
        let catalogue = Catalogue::of(&config(""), listed, true, false);
        assert!(catalogue.tools.is_empty() && catalogue.is_cut);
        assert_eq!(catalogue.left_out.len(), 7, "{:?}", catalogue.left_out);
    }

    #[test]
    fn a_schema_stays_as_it_is_but_for_long_descriptions_and_any_change_is_another_tool() {
        let schema = json!({"$schema": "x", "type": "object", "properties": {"a": {"$ref": "#/$defs/A", "description": "y".repeat(5_000)}},
            "$defs": {"A": {"anyOf": [{"type": "string"}, {"const": null}]}}, "additionalProperties": true});
        let listed = |description: &str, schema: &Value| {
            let value = json!({"name": "t", "description": description, "inputSchema": schema});
            Catalogue::of(&config(""), vec![value], false, false).tools.remove(0).offered
        };
        let tool = listed("d", &schema);
        let mut expected = schema.clone();
        expected["properties"]["a"]["description"] = "y".repeat(1_024).into();
        assert_eq!(serde_json::from_str::<Value>(&tool.input_schema).unwrap(), expected);
        assert_eq!(tool.digest, listed("d", &schema).digest);
        assert_ne!(tool.digest, listed("e", &schema).digest);
        let mut other = schema;
        // Behind what is kept of it.
        other["properties"]["a"]["description"] = format!("{}z", "y".repeat(5_000)).into();
        assert_ne!(tool.digest, listed("d", &other).digest);
    }
}
