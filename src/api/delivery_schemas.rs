//! JSON schemas of deliveries, as OpenAPI components.
//! Owns: the text of each component.
//! Never: is consulted when a request is judged; serde's types do that.

use super::schemas::Component;

/// Components of deliveries.
pub static DELIVERIES: &[Component] = &[
    Component {
        name: "Delivery",
        schema: r#"{
            "type": "object",
            "required": ["delivery_id", "status", "session_id", "run_id", "plugin", "target", "attempts", "queued_at_ms",
                "content_size_bytes", "parts_count", "artifacts_count"],
            "properties": {
                "delivery_id": {"type": "string"},
                "status": {"enum": ["pending", "retrying", "delivered", "dead_lettered"]},
                "session_id": {"type": "string"},
                "run_id": {"type": "string"},
                "plugin": {"enum": ["http", "slack", "telegram", "external"]},
                "target": {"type": "string", "description": "Plugin and hash of the address, which is never shown"},
                "attempts": {"type": "integer"},
                "queued_at_ms": {"type": "integer"},
                "next_attempt_at_ms": {"type": "integer"},
                "delivered_at_ms": {"type": "integer"},
                "dead_lettered_at_ms": {"type": "integer"},
                "dead_letter_resolved_at_ms": {"type": "integer"},
                "dead_letter_resolution_reason": {"type": "string"},
                "last_error": {"type": "string", "description": "Class of the last failure"},
                "terminal_error": {"type": "string", "description": "Why no further attempt is made"},
                "http_status": {"type": "integer", "description": "Of the last failed attempt"},
                "replayed_from_delivery_id": {"type": "string"},
                "content": {"type": "string", "description": "Only of one delivery"},
                "content_size_bytes": {"type": "integer"},
                "parts_count": {"type": "integer"},
                "artifacts_count": {"type": "integer"}
            }
        }"#,
    },
    Component {
        name: "DeliveryHold",
        schema: r#"{
            "type": "object",
            "required": ["held"],
            "properties": {
                "held": {"type": "boolean"},
                "since_ms": {"type": "integer"},
                "reason": {"type": "string"}
            }
        }"#,
    },
    Component {
        name: "DeliveryReplay",
        schema: r##"{
            "type": "object",
            "required": ["replayed_from_delivery_id", "delivery"],
            "properties": {
                "replayed_from_delivery_id": {"type": "string"},
                "delivery": {"$ref": "#/components/schemas/Delivery"}
            }
        }"##,
    },
    Component {
        name: "DeliveryReplayBulk",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "session_id": {"type": ["string", "null"]},
                "run_id": {"type": ["string", "null"]},
                "plugin": {"enum": ["http", "slack", "telegram", "external", null]},
                "limit": {"type": ["integer", "null"], "description": "1 to 500; 100 when left out"},
                "dry_run": {"type": "boolean"},
                "force": {"type": "boolean"},
                "unresolved_only": {"type": ["boolean", "null"], "description": "true when left out"}
            }
        }"#,
    },
    Component {
        name: "DeliveryReplayedBulk",
        schema: r##"{
            "type": "object",
            "required": ["dry_run", "force", "unresolved_only", "limit", "matched", "selected", "replayed",
                "existing_replays", "truncated", "items"],
            "properties": {
                "dry_run": {"type": "boolean"},
                "force": {"type": "boolean"},
                "unresolved_only": {"type": "boolean"},
                "limit": {"type": "integer"},
                "matched": {"type": "integer"},
                "selected": {"type": "integer"},
                "replayed": {"type": "integer"},
                "existing_replays": {"type": "integer"},
                "truncated": {"type": "boolean"},
                "items": {"type": "array", "items": {"type": "object",
                    "required": ["replayed_from_delivery_id", "source", "action"],
                    "properties": {
                        "replayed_from_delivery_id": {"type": "string"},
                        "source": {"$ref": "#/components/schemas/Delivery"},
                        "replay": {"$ref": "#/components/schemas/Delivery"},
                        "action": {"enum": ["would_replay", "replayed", "existing_replay"]}}}}
            }
        }"##,
    },
    Component {
        name: "DeliveryDrop",
        schema: r#"{
            "type": "object",
            "required": ["older_than_ms"],
            "additionalProperties": false,
            "properties": {
                "older_than_ms": {"type": "integer", "minimum": 0},
                "include_waiting": {"type": "boolean", "description": "Also deliveries that still wait to be sent"}
            }
        }"#,
    },
    Component {
        name: "DeliveryDropped",
        schema: r#"{
            "type": "object",
            "required": ["dropped", "truncated"],
            "properties": {
                "dropped": {"type": "integer"},
                "truncated": {"type": "boolean", "description": "There may be more; ask again"}
            }
        }"#,
    },
    Component {
        name: "DeliveryBackpressureReset",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "target": {"type": ["string", "null"]},
                "plugin": {"enum": ["http", "slack", "telegram", "external", null]},
                "dry_run": {"type": "boolean"}
            }
        }"#,
    },
    Component {
        name: "DeliveryBackpressure",
        schema: r#"{
            "type": "object",
            "required": ["dry_run", "matched", "removed", "targets"],
            "properties": {
                "dry_run": {"type": "boolean"},
                "target": {"type": "string"},
                "plugin": {"type": "string"},
                "matched": {"type": "integer"},
                "removed": {"type": "integer"},
                "targets": {"type": "array", "items": {"type": "string"}}
            }
        }"#,
    },
    Component {
        name: "SessionReplyTargets",
        schema: r#"{
            "type": "object",
            "required": ["reply_targets"],
            "additionalProperties": false,
            "properties": {
                "reply_targets": {"type": "array", "maxItems": 8, "items": {"type": "object"}}
            }
        }"#,
    },
    Component {
        name: "SessionReplyTargetsView",
        schema: r#"{
            "type": "object",
            "required": ["session_id", "targets"],
            "properties": {
                "session_id": {"type": "string"},
                "targets": {"type": "array", "items": {"type": "string"}}
            }
        }"#,
    },
];
