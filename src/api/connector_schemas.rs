//! JSON schemas of connectors and of what they let in, as OpenAPI components.
//! Owns: the text of each component.
//! Never: is consulted when a request is judged; serde's types do that.

use super::schemas::Component;

/// Components of connectors.
pub static CONNECTORS: &[Component] = &[
    Component {
        name: "Connectors",
        schema: r##"{"type": "array", "items": {"$ref": "#/components/schemas/Connector"}}"##,
    },
    Component {
        name: "Connector",
        schema: r##"{
            "type": "object",
            "description": "Every field of the configuration; secrets as ConnectorSecret, the environment of a sidecar by names.",
            "required": ["kind", "name", "source", "ingress_path", "warnings"],
            "properties": {
                "kind": {"enum": ["http", "slack", "telegram", "external"]},
                "name": {"type": "string"},
                "source": {"enum": ["file", "daemon"]},
                "revision": {"type": "integer", "description": "Absent for a connector of the file"},
                "updated_at_ms": {"type": "integer"},
                "ingress_path": {"type": "string"},
                "warnings": {"type": "array", "items": {"enum": ["unauthenticated_ingress", "new_conversations_are_refused"]}},
                "revoked": {"type": "boolean"},
                "unusable_secrets": {"type": "array", "items": {"type": "string"},
                    "description": "Fields whose slot is missing or revoked"},
                "process": {"$ref": "#/components/schemas/ConnectorProcess"}
            }
        }"##,
    },
    Component {
        name: "ConnectorProcess",
        schema: r#"{
            "type": "object",
            "required": ["state", "generation", "restarts"],
            "properties": {
                "state": {"enum": ["waiting", "starting", "ready", "degraded", "stopping", "held"]},
                "detail": {"type": "string", "description": "What the sidecar says of its health"},
                "generation": {"type": "integer"},
                "pid": {"type": "integer", "description": "As the sandbox numbers it"},
                "instance_id": {"type": "string"},
                "lease_id": {"type": "string"},
                "restarts": {"type": "integer"},
                "failed_starts": {"type": "integer", "description": "Since the last start that lasted"},
                "next_start_in_ms": {"type": "integer"},
                "last_error": {"type": "string"},
                "credentials_stale": {"type": "boolean",
                    "description": "A slot was set or revoked since the sidecar fetched it"},
                "output": {"type": "string", "description": "The end of what the sidecar has written, redacted"}
            }
        }"#,
    },
    Component {
        name: "PutConnector",
        schema: r#"{
            "type": "object",
            "description": "Fields of the kind, see docs/operators/connectors.md; secrets as {secret_ref}, {env} or {value}.",
            "properties": {"expected_revision": {"type": ["integer", "null"], "minimum": 0}}
        }"#,
    },
    Component {
        name: "HttpEvent",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "session_id": {"type": ["string", "null"]},
                "binding_keys": {"type": ["array", "null"], "items": {"type": "string"}},
                "actor_id": {"type": ["string", "null"]},
                "content": {"type": ["string", "null"]},
                "input_items": {"type": ["array", "null"], "items": {"type": "object"}},
                "attachments": {"type": ["array", "null"], "maxItems": 0},
                "metadata": {},
                "reply_targets": {"type": ["array", "null"], "items": {"type": "object"}},
                "reply_plugin": {"type": ["string", "null"]},
                "reply_address": {"type": ["string", "null"]},
                "idempotency_key": {"type": ["string", "null"]}
            }
        }"#,
    },
    Component {
        name: "ExternalEvent",
        schema: r#"{
            "type": "object",
            "description": "Unknown members are ignored; null is as good as absent.",
            "required": ["instance_id", "event_id"],
            "properties": {
                "protocol_version": {"enum": [1, 2]},
                "instance_id": {"type": "string"},
                "event_id": {"type": "string"},
                "thread": {"type": ["object", "null"]},
                "routing_key": {"type": ["string", "null"]},
                "content": {"type": ["string", "null"]},
                "reply_route": {"type": ["string", "null"]}
            }
        }"#,
    },
    Component {
        name: "ExternalBatch",
        schema: r##"{
            "type": "object",
            "required": ["events"],
            "properties": {
                "protocol_version": {"enum": [1, 2]},
                "events": {"type": "array", "maxItems": 64, "items": {"$ref": "#/components/schemas/ExternalEvent"}}
            }
        }"##,
    },
    Component {
        name: "ExternalResult",
        schema: r#"{
            "type": "object",
            "required": ["status"],
            "properties": {
                "event_id": {"type": "string"},
                "status": {"enum": ["accepted", "duplicate", "rejected", "rate_limited", "error"]},
                "session_id": {"type": "string"},
                "run_id": {"type": "string"},
                "reason": {"type": "string"},
                "retry_after_ms": {"type": "integer"}
            }
        }"#,
    },
    Component {
        name: "ExternalResults",
        schema: r##"{
            "type": "object",
            "required": ["results"],
            "properties": {"results": {"type": "array", "items": {"$ref": "#/components/schemas/ExternalResult"}}}
        }"##,
    },
    Component { name: "ChatEvent", schema: r#"{"type": "object", "description": "As the platform sends it."}"# },
    Component {
        name: "ChatAnswer",
        schema: r#"{"type": "object", "description": "The run, or why the event made none."}"#,
    },
    Component {
        name: "SidecarCredential",
        schema: r#"{
            "type": "object",
            "required": ["value", "lease_id", "grant_id", "expires_at_ms"],
            "properties": {
                "value": {"type": "string"},
                "lease_id": {"type": "string"},
                "grant_id": {"type": "string"},
                "expires_at_ms": {"type": "integer"}
            }
        }"#,
    },
];
