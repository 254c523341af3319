//! JSON schemas of probe frames, route references and signed evidence, as OpenAPI components.
//! Owns: the text of each component.
//! Never: is consulted when a request is judged; serde's types do that.

use super::schemas::Component;

/// Components of the diagnosis routes.
pub static DOCTOR: &[Component] = &[
    Component {
        name: "ProbeSent",
        schema: r#"{
            "type": "object",
            "required": ["nonce", "sent_at_ms"],
            "properties": {
                "nonce": {"type": "string", "minLength": 16, "maxLength": 64},
                "sent_at_ms": {"type": "integer", "description": "When it was handed to the streams' writers"}
            }
        }"#,
    },
    Component {
        name: "RouteReferences",
        schema: r#"{
            "type": "object",
            "required": ["session_policy_count", "run_count", "stale_count", "truncated", "stale"],
            "properties": {
                "session_policy_count": {"type": "integer", "minimum": 0},
                "run_count": {"type": "integer", "minimum": 0, "description": "Unfinished runs that were looked at"},
                "stale_count": {"type": "integer", "minimum": 0},
                "truncated": {"type": "boolean"},
                "stale": {
                    "type": "array",
                    "maxItems": 1000,
                    "items": {
                        "type": "object",
                        "required": ["kind", "id", "route_id"],
                        "properties": {
                            "kind": {"enum": ["run", "session", "runtime"]},
                            "id": {"type": "string"},
                            "session_id": {"type": "string"},
                            "status": {"type": "string"},
                            "route_id": {"type": "string"}
                        }
                    }
                }
            }
        }"#,
    },
    Component {
        name: "IncidentDigest",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "required": ["manifest_sha256"],
            "properties": {
                "manifest_sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"}
            }
        }"#,
    },
    Component {
        name: "IncidentSignature",
        schema: r#"{
            "type": "object",
            "required": ["type", "version", "manifest_sha256", "key_id", "signature"],
            "properties": {
                "type": {"const": "kheish-incident-signature"},
                "version": {"const": 1},
                "manifest_sha256": {"type": "string"},
                "key_id": {"type": "string"},
                "signature": {"type": "string",
                    "description": "Ed25519 over the text kheish-incident-manifest-v1, a line feed, and the 32 bytes"}
            }
        }"#,
    },
];
