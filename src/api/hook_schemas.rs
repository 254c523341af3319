//! JSON schemas of hooks, as OpenAPI components.
//! Owns: the text of each component.
//! Never: is consulted when a request is judged; serde's types do that.

use super::schemas::Component;

/// Components of hooks.
pub static HOOKS: &[Component] = &[
    Component {
        name: "HookDocument",
        schema: r#"{
            "type": "object",
            "required": ["hooks"],
            "properties": {
                "schema_version": {"const": 1},
                "hooks": {"type": "object", "description": "Definitions by event",
                    "additionalProperties": {"type": "array", "items": {
                        "type": "object",
                        "required": ["name", "executor"],
                        "properties": {
                            "name": {"type": "string"},
                            "matcher": {"type": "string", "description": "Glob over the event's subject; absent is everything"},
                            "blocking": {"type": "boolean", "description": "Whether what happens waits for the answer"},
                            "failure_policy": {"type": "object", "properties": {
                                "mode": {"enum": ["open", "closed"]},
                                "max_retries": {"type": "integer", "minimum": 0, "maximum": 3}}},
                            "executor": {"type": "object", "required": ["type"], "properties": {
                                "type": {"enum": ["command", "http"]},
                                "command": {"type": "string"},
                                "shell": {"type": "string"},
                                "url": {"type": "string"},
                                "auth": {"type": "object", "required": ["secret_ref"], "properties": {
                                    "secret_ref": {"type": "string"}, "scheme": {"enum": ["bearer", "x_api_key"]}}},
                                "signature": {"type": "object", "required": ["secret_ref"], "properties": {
                                    "secret_ref": {"type": "string"}}},
                                "timeout_ms": {"type": "integer", "minimum": 1, "maximum": 30000}}}
                        }
                    }}}
            }
        }"#,
    },
    Component {
        name: "HookSettings",
        schema: r##"{
            "type": "object",
            "required": ["revision", "source", "settings"],
            "properties": {
                "revision": {"type": "integer"},
                "source": {"enum": ["file", "daemon", "none"]},
                "settings": {"$ref": "#/components/schemas/HookDocument"}
            }
        }"##,
    },
    Component {
        name: "SetHooks",
        schema: r##"{
            "type": "object",
            "description": "The document itself, or as settings",
            "properties": {
                "settings": {"$ref": "#/components/schemas/HookDocument"},
                "hooks": {"type": "object"},
                "schema_version": {"const": 1},
                "expected_revision": {"type": "integer"},
                "skip_hooks": {"type": "boolean", "description": "Without effect: no hook can refuse this"}
            },
            "additionalProperties": false
        }"##,
    },
    Component {
        name: "HookDeadLetter",
        schema: r#"{
            "type": "object",
            "required": ["id", "at_ms", "hook_name", "event", "target", "attempt_count", "failure_mode", "blocking",
                "contract_version", "invocation_key", "invocation_digest", "definition_digest", "class", "error"],
            "properties": {
                "id": {"type": "string"},
                "at_ms": {"type": "integer"},
                "hook_name": {"type": "string"},
                "event": {"type": "string"},
                "subject": {"type": "string"},
                "session_id": {"type": "string"},
                "run_id": {"type": "string"},
                "target": {"type": "string"},
                "attempt_count": {"type": "integer"},
                "failure_mode": {"enum": ["open", "closed"]},
                "blocking": {"type": "boolean"},
                "contract_version": {"type": "integer"},
                "invocation_key": {"type": "string"},
                "invocation_digest": {"type": "string"},
                "definition_digest": {"type": "string"},
                "class": {"type": "string"},
                "error": {"type": "string"},
                "resolved_at_ms": {"type": "integer"},
                "resolution_reason": {"type": "string"}
            }
        }"#,
    },
    Component {
        name: "HookDeadLetters",
        schema: r##"{
            "type": "object",
            "required": ["dead_letters", "dead_lettered_count", "dropped_unresolved_count"],
            "properties": {
                "dead_letters": {"type": "array", "items": {"$ref": "#/components/schemas/HookDeadLetter"}},
                "dead_lettered_count": {"type": "integer"},
                "dropped_unresolved_count": {"type": "integer"}
            }
        }"##,
    },
];
