//! A tool as a call finds it: of the table, or one that a room of the daemon offers at the moment.
//! Owns: the form of tools whose names and schemas are not known when the program is built.
//! Never: holds code; a room of the engine's toolbox runs it.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::{Behavior, Class, Place, ToolDef, ToolError};
use crate::providers::ToolSpec;

/// A tool that is not in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomTool {
    /// Name as the model calls it: letters, digits, `_` and `-`, at most 64 bytes, never one of the table.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// JSON Schema of its arguments: an object.
    pub input_schema: String,
    /// Longest time of a call in milliseconds.
    pub timeout_ms: u64,
    /// Servers that a call may reach, by its argument `server`; all of them without it. Rules about a server hold for it too.
    pub servers: Vec<String>,
    /// A call may have people asked while it is under way.
    pub may_ask: bool,
    /// Changes whenever anything changes that a person saw who allowed a call of it.
    pub digest: String,
}

/// A tool.
#[derive(Debug, Clone)]
pub enum Tool {
    /// Of the table.
    Listed(&'static ToolDef<'static>),
    /// Of a room.
    Room(Arc<RoomTool>),
}

impl Tool {
    /// The tool as a row. One of a room reaches the network, is asked about unless a rule speaks of it, and is run by
    /// nobody a second time: what its owner says of it is no ground for anything else.
    pub fn def(&self) -> ToolDef<'_> {
        match self {
            Self::Listed(def) => **def,
            Self::Room(tool) => ToolDef {
                name: &tool.name,
                description: &tool.description,
                input_schema: &tool.input_schema,
                place: Place::Daemon,
                class: Class::Network,
                timeout_ms: tool.timeout_ms,
                idempotent: false,
                parallel: false,
                plan_safe: false,
                default_rule: Behavior::Ask,
            },
        }
    }

    /// Name as the model calls it.
    pub fn name(&self) -> &str {
        match self {
            Self::Listed(def) => def.name,
            Self::Room(tool) => &tool.name,
        }
    }

    /// Names under which rules and scopes may speak of a call as well: those of the servers that it reaches.
    pub fn also_known_as(&self, input: &RawValue) -> Vec<String> {
        let Self::Room(tool) = self else { return Vec::new() };
        let alias = |server: &String| format!("mcp__{server}__{}", tool.name);
        match super::schema::field(input, "server") {
            _ if tool.servers.is_empty() => Vec::new(),
            Some(serde_json::Value::String(server)) => vec![alias(&server)],
            _ => tool.servers.iter().map(alias).collect(),
        }
    }

    /// Whether a call may have people asked while it is under way: nothing else is started beside it.
    pub fn may_ask(&self) -> bool {
        matches!(self, Self::Room(tool) if tool.may_ask)
    }

    /// What an answer to an approval is bound to: another description or schema is another tool.
    pub fn identity(&self) -> String {
        match self {
            Self::Listed(def) => def.name.to_string(),
            Self::Room(tool) => format!("{} {}", tool.name, tool.digest),
        }
    }

    /// Checks arguments before anybody is asked. Those of a room's tool are checked by whoever runs it.
    ///
    /// # Errors
    /// Names the field and what is expected of it.
    pub fn check(&self, input: &RawValue) -> Result<(), ToolError> {
        match self {
            Self::Listed(def) => super::check(def, input),
            Self::Room(_) => Ok(()),
        }
    }

    /// What a provider is told of it.
    pub fn spec(&self) -> ToolSpec {
        match self {
            Self::Listed(def) => ToolSpec {
                name: def.name.to_string(),
                description: def.description.to_string(),
                input_schema: def.input_schema.into(),
            },
            Self::Room(tool) => ToolSpec {
                name: tool.name.clone(),
                description: tool.description.clone(),
                input_schema: tool.input_schema.clone().into(),
            },
        }
    }
}
