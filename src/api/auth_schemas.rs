//! JSON schemas of subjects, leases, revocations and accounts, as OpenAPI components.
//! Owns: the text of each component.
//! Never: is consulted when a request is judged; serde's types do that.

use super::schemas::Component;

/// Components of the credential broker.
pub static AUTH: &[Component] = &[
    Component {
        name: "WrittenSlot",
        schema: r##"{
            "allOf": [{"$ref": "#/components/schemas/Slot"}],
            "type": "object",
            "required": ["version", "revoked_leases"],
            "properties": {
                "version": {"type": "integer", "description": "Version of the secret, above every earlier one"},
                "revoked_leases": {"type": "integer", "minimum": 0,
                    "description": "Leases of the former secret that ended with this"}
            }
        }"##,
    },
    Component {
        name: "SlotImport",
        schema: r##"{
            "type": "object",
            "additionalProperties": false,
            "required": ["slots"],
            "properties": {
                "slots": {"type": "array", "minItems": 1, "maxItems": 1024,
                    "items": {"$ref": "#/components/schemas/SlotRecord"}}
            }
        }"##,
    },
    Component {
        name: "AccountImport",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "required": ["slot_id", "server_name", "resource", "issuer", "authorization_endpoint", "token_endpoint",
                "client_id", "access_token"],
            "properties": {
                "slot_id": {"type": "string", "pattern": "^mcp\\.oauth\\."},
                "server_name": {"type": "string"},
                "resource": {"type": "string", "description": "https, or http to a loopback address, as all URLs here"},
                "issuer": {"type": "string"},
                "authorization_endpoint": {"type": "string"},
                "token_endpoint": {"type": "string"},
                "client_id": {"type": "string"},
                "client_secret": {"type": ["string", "null"]},
                "token_endpoint_auth_method": {"enum": ["client_secret_post", "client_secret_basic", "none", null]},
                "access_token": {"type": "string"},
                "refresh_token": {"type": ["string", "null"]},
                "expires_at_ms": {"type": ["integer", "null"]},
                "scopes": {"type": "array", "maxItems": 64, "items": {"type": "string"}}
            }
        }"#,
    },
    Component {
        name: "AuthSubject",
        schema: r#"{
            "type": "object",
            "required": ["subject_id", "kind", "current_epoch", "revoked", "known"],
            "properties": {
                "subject_id": {"type": "string", "examples": ["session:s1", "agent:agent-1", "connector:ops-webhook"]},
                "kind": {"enum": ["session", "agent", "connector", "mcp", "route", "daemon"]},
                "current_epoch": {"type": "integer", "description": "How often the subject was revoked"},
                "revoked": {"type": "boolean"},
                "known": {"type": "boolean", "description": "Whether anything was ever seen of it"},
                "revoked_at_ms": {"type": "integer"},
                "reason": {"type": "string"},
                "active_route_lease_ids": {"type": "array", "items": {"type": "string"},
                    "description": "Leases of it and of those that act for it; absent when there are none"},
                "active_connector_lease_ids": {"type": "array", "items": {"type": "string"}},
                "active_mcp_lease_ids": {"type": "array", "items": {"type": "string"}},
                "active_hook_lease_ids": {"type": "array", "items": {"type": "string"}}
            }
        }"#,
    },
    Component {
        name: "SubjectRevocation",
        schema: r##"{
            "allOf": [{"$ref": "#/components/schemas/AuthSubject"}],
            "type": "object",
            "required": ["revoked_leases", "revoked_lease_ids", "affected_subjects"],
            "properties": {
                "revoked_leases": {"type": "integer", "minimum": 0},
                "revoked_lease_ids": {"type": "array", "items": {"type": "string"}},
                "affected_subjects": {"type": "array", "items": {"type": "string"}},
                "dry_run": {"type": "boolean", "description": "True when nothing was changed, else absent"}
            }
        }"##,
    },
    Component {
        name: "SlotRevocation",
        schema: r#"{
            "type": "object",
            "required": ["slot_id", "revoked_leases", "current_version", "blocked", "detail"],
            "properties": {
                "slot_id": {"type": "string"},
                "revoked_leases": {"type": "integer", "minimum": 0},
                "current_version": {"type": "integer"},
                "blocked": {"type": "boolean",
                    "description": "Whether the secret that the slot holds gets no lease until the slot is set again"},
                "detail": {"type": "string"},
                "dry_run": {"type": "boolean"}
            }
        }"#,
    },
    Component {
        name: "AuthLease",
        schema: r#"{
            "type": "object",
            "required": ["lease", "revoked", "active"],
            "properties": {
                "lease": {"type": "object",
                    "required": ["id", "grant_id", "subject_id", "subject_epoch", "audience", "slots", "issued_at_ms",
                        "expires_at_ms"],
                    "properties": {
                        "id": {"type": "string"},
                        "grant_id": {"type": "string"},
                        "subject_id": {"type": "string"},
                        "acts_for": {"type": "array", "items": {"type": "string"}},
                        "subject_epoch": {"type": "integer"},
                        "audience": {"type": "object", "required": ["type"],
                            "properties": {"type": {"enum": ["route", "connector", "mcp_server"]}}},
                        "slots": {"type": "array", "items": {"type": "object"}},
                        "issued_at_ms": {"type": "integer"},
                        "expires_at_ms": {"type": "integer"}}},
                "revoked": {"type": "boolean"},
                "active": {"type": "boolean"},
                "ended_at_ms": {"type": "integer"},
                "end_reason": {"enum": ["released", "expired", "restart", "lease_revoked", "subject_revoked",
                    "slot_revoked", "slot_overwritten", "slot_deleted"]}
            }
        }"#,
    },
    Component {
        name: "RevokeSubject",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "dry_run": {"type": ["boolean", "null"], "description": "Only tell what would fall"},
                "reason": {"type": ["string", "null"], "description": "Kept with the record, 1024 bytes at most"}
            }
        }"#,
    },
    Component {
        name: "RevokeSlot",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "dry_run": {"type": ["boolean", "null"], "description": "Only tell what would fall"},
                "keep_current": {"type": ["boolean", "null"],
                    "description": "Leave the present secret usable even if it has been leased already"},
                "reason": {"type": ["string", "null"], "description": "Kept with the record, 1024 bytes at most"}
            }
        }"#,
    },
];
