//! JSON schemas of MCP servers, as OpenAPI components.
//! Owns: the text of each component.
//! Never: is consulted when a request is judged; serde's types do that.

use super::schemas::Component;

/// Components of MCP servers.
pub static MCP: &[Component] = &[
    Component {
        name: "McpServer",
        schema: r#"{
            "type": "object",
            "required": ["server", "source", "profiles", "transport", "address", "enabled", "required", "uses_credentials",
                "credential_secret_refs", "connected", "tools", "connect_count"],
            "properties": {
                "server": {"type": "string"},
                "source": {"enum": ["codex_config", "built_in_catalog"], "description": "A file, or the catalog that comes with the daemon"},
                "profiles": {"type": "array", "items": {"type": "string"}},
                "catalog_entry_id": {"type": "string"},
                "transport": {"enum": ["stdio", "streamable_http"]},
                "address": {"type": "string", "description": "The program, or the URL without its query"},
                "enabled": {"type": "boolean"},
                "required": {"type": "boolean"},
                "uses_credentials": {"type": "boolean"},
                "credential_secret_refs": {"type": "array", "items": {"type": "string"}},
                "connected": {"type": "boolean", "description": "As it was seen last"},
                "tools": {"type": "array", "items": {"type": "string"}},
                "error": {"type": "string"},
                "error_code": {"type": "string"},
                "instructions": {"type": "string", "description": "The server's own text, cut and not to be trusted"},
                "wanted_scopes": {"type": "array", "items": {"type": "string"}, "description": "What the next login asks for, since a call was refused"},
                "protocol_version": {"type": "string"},
                "server_info": {"type": "object", "properties": {"name": {"type": "string"}, "version": {"type": "string"}}},
                "connected_at_ms": {"type": "integer"},
                "connect_count": {"type": "integer"},
                "left_out": {"type": "array", "items": {"type": "string"}, "description": "Tools that are not offered, and why"}
            }
        }"#,
    },
    Component {
        name: "McpTool",
        schema: r#"{
            "type": "object",
            "required": ["server", "tool", "name", "description", "input_schema", "digest"],
            "properties": {
                "server": {"type": "string"},
                "tool": {"type": "string", "description": "As the server spells it"},
                "name": {"type": "string", "description": "As models call it and rules name it"},
                "title": {"type": "string"},
                "description": {"type": "string"},
                "input_schema": {"type": "object"},
                "annotations": {"type": "object", "description": "Claims of the server; no ground for any decision"},
                "digest": {"type": "string", "description": "Changes when anything of the tool does"}
            }
        }"#,
    },
    Component {
        name: "McpCall",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "required": ["tool"],
            "properties": {
                "tool": {"type": "string"},
                "arguments": {"type": ["object", "null"]},
                "timeout_ms": {"type": ["integer", "null"], "minimum": 0, "description": "At most 25000"}
            }
        }"#,
    },
    Component {
        name: "McpCallResult",
        schema: r#"{
            "type": "object",
            "required": ["server", "tool", "is_error", "truncated", "result"],
            "properties": {
                "server": {"type": "string"},
                "tool": {"type": "string"},
                "is_error": {"type": "boolean"},
                "truncated": {"type": "boolean"},
                "result": {"type": "object", "description": "As a model would be given it"}
            }
        }"#,
    },
    Component {
        name: "McpRemoved",
        schema: r#"{
            "type": "object",
            "required": ["server", "removed"],
            "properties": {"server": {"type": "string"}, "removed": {"type": "boolean"}}
        }"#,
    },
];
