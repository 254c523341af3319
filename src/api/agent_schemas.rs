//! JSON schemas of agents and mailboxes, as OpenAPI components.
//! Owns: the text of each component.
//! Never: is consulted when a request is judged; serde's types do that.

use super::schemas::Component;

/// Components of agents and mailboxes.
pub static AGENTS: &[Component] = &[
    Component {
        name: "Agent",
        schema: r#"{
            "type": "object",
            "required": ["agent_id", "session_id", "status", "closed", "depth", "retention", "scope", "spawned_at_ms",
                "updated_at_ms", "queued_run_count", "run_count", "open_child_count", "mailbox_message_count",
                "dead_letter_count", "pending_approval_count", "pending_question_count"],
            "properties": {
                "agent_id": {"type": "string", "examples": ["agent-3"]},
                "session_id": {"type": "string"},
                "status": {"enum": ["idle", "running", "waiting_for_approval", "waiting_for_user_input", "failed",
                    "completed"]},
                "closed": {"type": "boolean", "description": "Its session has ended"},
                "parent": {"type": "object", "required": ["agent_id", "session_id"], "properties": {
                    "agent_id": {"type": "string"}, "session_id": {"type": "string"}}},
                "depth": {"type": "integer", "description": "Levels below the session at the top; 0 there"},
                "name": {"type": "string"},
                "retention": {"enum": ["retain", "close_on_settle"]},
                "scope": {"type": "object", "description": "What it may use; an empty part is no limit", "properties": {
                    "tools": {"type": "array", "items": {"type": "object"}},
                    "routes": {"type": "array", "items": {"type": "string"}},
                    "workspace": {"type": "string"},
                    "read_only": {"type": "boolean"}}},
                "spawned_at_ms": {"type": "integer"},
                "updated_at_ms": {"type": "integer"},
                "spawned_by_run_id": {"type": "string"},
                "active_run_id": {"type": "string"},
                "queued_run_count": {"type": "integer"},
                "run_count": {"type": "integer"},
                "open_child_count": {"type": "integer"},
                "mailbox_message_count": {"type": "integer"},
                "dead_letter_count": {"type": "integer"},
                "pending_approval_count": {"type": "integer"},
                "pending_question_count": {"type": "integer"}
            }
        }"#,
    },
    Component {
        name: "SpawnAgent",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "session_id": {"type": ["string", "null"]},
                "thread_id": {"type": ["string", "null"], "maxLength": 256},
                "nickname": {"type": ["string", "null"], "maxLength": 64},
                "permission_mode": {"type": ["string", "null"], "description": "At most as wide as the parent's"},
                "retention": {"enum": ["retain", "close_on_settle", null]},
                "spawn_request_id": {"type": ["string", "null"], "description": "Same as the header Idempotency-Key"},
                "route_policy": {"type": ["object", "null"], "properties": {
                    "provider": {"type": ["string", "null"]}, "generation": {"type": ["object", "null"]}}},
                "tool_surface": {"type": ["object", "null"], "additionalProperties": false, "properties": {
                    "allow": {"type": "array", "maxItems": 64, "items": {"type": "string", "maxLength": 128}},
                    "block": {"type": "array", "maxItems": 64, "items": {"type": "string", "maxLength": 128}}}},
                "credential_scope": {"type": ["object", "null"], "additionalProperties": false, "properties": {
                    "route_allow": {"type": "array", "maxItems": 16, "items": {"type": "string"}}}},
                "workspace": {"type": ["string", "null"], "maxLength": 1024,
                    "description": "Directory below the parent's"},
                "read_only": {"type": ["boolean", "null"]},
                "subtask": {"type": ["object", "null"], "additionalProperties": false, "properties": {
                    "name": {"type": ["string", "null"]}, "description": {"type": ["string", "null"]},
                    "content": {"type": ["string", "null"]}, "input_items": {"type": ["array", "null"]}}},
                "capability_scope": {"description": "Not in this version"},
                "fork_context": {"description": "Not in this version"}
            }
        }"#,
    },
    Component {
        name: "SpawnedAgent",
        schema: r##"{
            "type": "object",
            "required": ["agent_id", "session_id", "launch_run_id", "created", "agent"],
            "properties": {
                "agent_id": {"type": "string"},
                "session_id": {"type": "string"},
                "launch_run_id": {"type": ["string", "null"]},
                "created": {"type": "boolean", "description": "False for a repeated request"},
                "agent": {"$ref": "#/components/schemas/Agent"}
            }
        }"##,
    },
    Component {
        name: "SpawnExplanation",
        schema: r#"{
            "type": "object",
            "required": ["allowed"],
            "properties": {
                "allowed": {"type": "boolean"},
                "exists": {"type": "boolean", "description": "The request was made before"},
                "session_id": {"type": "string"},
                "code": {"type": "string"},
                "reason": {"type": "string"}
            }
        }"#,
    },
    Component {
        name: "MailboxMessage",
        schema: r#"{
            "type": "object",
            "required": ["schema_version", "id", "state", "created_at_ms", "delivery_attempts", "from", "to", "subject",
                "payload"],
            "properties": {
                "schema_version": {"type": "integer"},
                "id": {"type": "string"},
                "state": {"enum": ["pending", "delivering", "dead_letter"]},
                "created_at_ms": {"type": "integer"},
                "expires_at_ms": {"type": "integer"},
                "delivery_attempts": {"type": "integer"},
                "last_error": {"type": "string"},
                "from": {"type": "string"},
                "to": {"type": "string"},
                "subject": {"type": "string"},
                "payload": {}
            }
        }"#,
    },
    Component {
        name: "ResultBlob",
        schema: r#"{
            "type": "object",
            "required": ["call", "tool", "sha256", "bytes", "kept"],
            "properties": {
                "call": {"type": "string"},
                "tool": {"type": "string"},
                "sha256": {"type": "string"},
                "bytes": {"type": "integer"},
                "kept": {"type": "boolean", "description": "It was not removed by prune-results"}
            }
        }"#,
    },
    Component {
        name: "PruneResults",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "required": ["older_than_ms"],
            "properties": {
                "older_than_ms": {"type": "integer", "minimum": 3600000, "description": "Since the end of the runs"},
                "dry_run": {"type": ["boolean", "null"]}
            }
        }"#,
    },
    Component {
        name: "PrunedResults",
        schema: r#"{
            "type": "object",
            "required": ["dry_run", "pruned_count", "pruned_bytes", "named_count", "total_count", "total_bytes",
                "has_more"],
            "properties": {
                "dry_run": {"type": "boolean"},
                "pruned_count": {"type": "integer", "description": "Removed, or to be removed"},
                "pruned_bytes": {"type": "integer"},
                "named_count": {"type": "integer", "description": "Old enough, and named by a run that is kept"},
                "total_count": {"type": "integer", "description": "What was there before"},
                "total_bytes": {"type": "integer"},
                "has_more": {"type": "boolean", "description": "Ask again for the rest"}
            }
        }"#,
    },
    Component {
        name: "ResultBlobPage",
        schema: r#"{
            "type": "object",
            "required": ["sha256", "bytes", "offset", "content"],
            "properties": {
                "sha256": {"type": "string"},
                "bytes": {"type": "integer", "description": "Of the whole"},
                "offset": {"type": "integer"},
                "content": {"type": "string"},
                "next_offset": {"type": "integer", "description": "Where the next page begins; absent at the end"}
            }
        }"#,
    },
    Component {
        name: "PostMailbox",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "required": ["to", "payload"],
            "properties": {
                "id": {"type": ["string", "null"], "maxLength": 256, "description": "A repeated message is posted once"},
                "to": {"type": "string", "examples": ["agent-3"]},
                "from": {"type": ["string", "null"], "maxLength": 256},
                "subject": {"type": ["string", "null"], "maxLength": 256},
                "payload": {"description": "Any JSON of at most 64 KiB"},
                "expires_at_ms": {"type": ["integer", "null"]}
            }
        }"#,
    },
    Component {
        name: "PostedMailbox",
        schema: r#"{
            "type": "object",
            "required": ["id", "to", "session_id", "created"],
            "properties": {
                "id": {"type": "string"},
                "to": {"type": "string"},
                "session_id": {"type": "string"},
                "created": {"type": "boolean"}
            }
        }"#,
    },
];
