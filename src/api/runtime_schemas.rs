//! JSON schemas of the runtime configuration, of permissions and of sessions' own settings, as OpenAPI components.
//! Owns: the text of each component.
//! Never: is consulted when a request is judged; serde's types do that.

use super::schemas::Component;

/// Components of runtime, permissions and session settings.
pub static RUNTIME: &[Component] = &[
    Component {
        name: "SetPermissionMode",
        schema: r##"{
            "type": "object",
            "additionalProperties": false,
            "required": ["mode"],
            "properties": {
                "mode": {"$ref": "#/components/schemas/PermissionMode"},
                "expected_revision": {"type": ["integer", "null"], "minimum": 0}
            }
        }"##,
    },
    Component {
        name: "PermissionMode",
        schema: r#"{
            "description": "The command line's spellings (accept-edits, dont-ask, …) are read too.",
            "enum": ["default", "acceptEdits", "bypassPermissions", "plan", "dontAsk"]
        }"#,
    },
    Component {
        name: "SetModel",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "description": "provider and route_id are two names of one field; what is left out goes back to the routes file.",
            "properties": {
                "provider": {"type": ["string", "null"], "description": "Route id"},
                "route_id": {"type": ["string", "null"]},
                "model": {"type": ["string", "null"]},
                "expected_revision": {"type": ["integer", "null"], "minimum": 0}
            }
        }"#,
    },
    Component {
        name: "SetDebugLevel",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "required": ["level"],
            "properties": {
                "level": {"enum": ["off", "on", "redacted", "full"]},
                "ttl_ms": {"type": ["integer", "null"], "minimum": 1, "maximum": 86400000,
                    "description": "Falls back to off after this time; full without it after 30 minutes"},
                "ticket": {"type": ["string", "null"], "minLength": 1, "maxLength": 128},
                "expected_revision": {"type": ["integer", "null"], "minimum": 0}
            }
        }"#,
    },
    Component {
        name: "SetSystemPrompt",
        schema: r##"{
            "type": "object",
            "additionalProperties": false,
            "required": ["settings"],
            "properties": {
                "settings": {"$ref": "#/components/schemas/SystemPrompt"},
                "expected_revision": {"type": ["integer", "null"], "minimum": 0}
            }
        }"##,
    },
    Component {
        name: "SystemPrompt",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "override_prompt": {"type": ["string", "null"], "minLength": 1, "maxLength": 65536},
                "custom_prompt": {"type": ["string", "null"], "minLength": 1, "maxLength": 65536},
                "append_prompt": {"type": ["string", "null"], "minLength": 1, "maxLength": 65536},
                "language": {"type": ["string", "null"], "minLength": 1, "maxLength": 256},
                "output_style": {"type": ["string", "null"], "minLength": 1, "maxLength": 256}
            }
        }"#,
    },
    Component {
        name: "SetToolLimits",
        schema: r##"{
            "type": "object",
            "additionalProperties": false,
            "required": ["limits"],
            "properties": {
                "limits": {"$ref": "#/components/schemas/ToolLimits"},
                "expected_revision": {"type": ["integer", "null"], "minimum": 0}
            }
        }"##,
    },
    Component {
        name: "ToolLimits",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "max_input_bytes": {"type": "integer", "minimum": 1, "maximum": 268435456},
                "max_output_bytes": {"type": "integer", "minimum": 1, "maximum": 268435456},
                "max_result_envelope_bytes": {"type": "integer", "minimum": 1, "maximum": 268435456},
                "max_timeout_ms": {"type": "integer", "minimum": 1, "maximum": 86400000},
                "max_parallel_tools": {"type": "integer", "minimum": 1, "maximum": 64},
                "max_calls_per_turn": {"type": "integer", "minimum": 1, "maximum": 4096},
                "max_cumulative_output_bytes": {"type": "integer", "minimum": 1, "maximum": 268435456},
                "max_cumulative_result_envelope_bytes": {"type": "integer", "minimum": 1, "maximum": 268435456},
                "max_sandbox": {"enum": ["read_only", "workspace_write", "network_enabled"]}
            }
        }"#,
    },
    Component {
        name: "Rollback",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "target_revision": {"type": ["integer", "null"], "minimum": 0,
                    "description": "The one before the one in force when left out"},
                "expected_revision": {"type": ["integer", "null"], "minimum": 0}
            }
        }"#,
    },
    Component {
        name: "RuntimeChanged",
        schema: r##"{
            "description": "The settings in force after the change.",
            "allOf": [{"$ref": "#/components/schemas/Runtime"}],
            "type": "object",
            "required": ["changed", "settled_approval_count"],
            "properties": {
                "changed": {"type": "boolean", "description": "Whether this request made a revision"},
                "settled_approval_count": {"type": "integer",
                    "description": "Approvals that waited and were denied at once; more follow while any wait"}
            }
        }"##,
    },
    Component {
        name: "RuntimeRevisions",
        schema: r#"{
            "type": "object",
            "required": ["revisions"],
            "properties": {
                "revisions": {"type": "array", "items": {"type": "object",
                    "required": ["revision", "updated_at_ms", "source", "setting", "permission_mode"],
                    "properties": {
                        "revision": {"type": "integer"},
                        "updated_at_ms": {"type": "integer"},
                        "source": {"enum": ["default", "runtime_api", "expiry"]},
                        "setting": {"type": "string"},
                        "rollback_of_revision": {"type": "integer"},
                        "permission_mode": {"type": "string"}}}}
            }
        }"#,
    },
    Component {
        name: "PermissionRule",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "required": ["scope", "tool_name_pattern", "behavior"],
            "properties": {
                "scope": {"enum": ["user", "project", "session"]},
                "tool_name_pattern": {"type": "string", "maxLength": 256,
                    "description": "A name, *, or the beginning of names with one trailing *"},
                "argument": {"description": "Exactly one of its members",
                    "type": ["object", "null"], "minProperties": 1, "maxProperties": 1, "properties": {
                    "command_prefix": {"type": "string", "examples": ["git status"]},
                    "path": {"type": "string", "examples": ["src/**", "**/.env"]},
                    "host": {"type": "string", "examples": ["docs.example.com", "*.example.com"]}}},
                "behavior": {"enum": ["allow", "ask", "deny"]},
                "reason": {"type": ["string", "null"], "maxLength": 512}
            }
        }"#,
    },
    Component {
        name: "PermissionRules",
        schema: r##"{
            "type": "object",
            "required": ["revision", "rules"],
            "properties": {
                "revision": {"type": "integer"},
                "rules": {"type": "array", "items": {"$ref": "#/components/schemas/PermissionRule"}}
            }
        }"##,
    },
    Component {
        name: "SetPermissionRules",
        schema: r##"{
            "type": "object",
            "additionalProperties": false,
            "required": ["rules"],
            "properties": {
                "scope": {"enum": ["user", "project", null], "description": "Replace only rules of this scope"},
                "rules": {"type": "array", "maxItems": 256, "items": {"$ref": "#/components/schemas/PermissionRule"}},
                "expected_revision": {"type": ["integer", "null"], "minimum": 0}
            }
        }"##,
    },
    Component {
        name: "PermissionCheck",
        schema: r##"{
            "type": "object",
            "additionalProperties": false,
            "required": ["tool_name"],
            "properties": {
                "tool_name": {"type": "string", "minLength": 1, "maxLength": 256},
                "tool_call_id": {"type": ["string", "null"], "minLength": 1, "maxLength": 256},
                "session_id": {"type": ["string", "null"]},
                "mode_override": {"anyOf": [{"$ref": "#/components/schemas/PermissionMode"}, {"type": "null"}]},
                "input": {"description": "The arguments; {} when left out"}
            }
        }"##,
    },
    Component {
        name: "PermissionDecision",
        schema: r##"{
            "type": "object",
            "required": ["tool_call_id", "tool_name", "effective_mode", "decision", "base_decision", "mode_applied",
                "approval_required", "hooks_evaluated", "hook_policy", "scope", "audit_preview"],
            "properties": {
                "tool_call_id": {"type": "string"},
                "tool_name": {"type": "string"},
                "effective_mode": {"$ref": "#/components/schemas/PermissionMode"},
                "decision": {"enum": ["allow", "ask", "deny"]},
                "base_decision": {"enum": ["allow", "ask", "deny"]},
                "mode_applied": {"type": "boolean"},
                "mode_effect": {"type": "string"},
                "approval_required": {"type": "boolean"},
                "hooks_evaluated": {"const": false},
                "hook_policy": {"const": "not_executed_in_dry_run"},
                "scope": {"enum": ["user", "project", "session"]},
                "reason": {"type": "string"},
                "matched_rule": {"$ref": "#/components/schemas/PermissionRule"},
                "matched_rule_origin": {"enum": ["static", "hook_update"]},
                "audit_preview": {"type": "object", "description": "What the record of a real call would say"}
            }
        }"##,
    },
    Component {
        name: "PermissionMatrixRequest",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "properties": {"session_id": {"type": ["string", "null"]}}
        }"#,
    },
    Component {
        name: "PermissionMatrix",
        schema: r##"{
            "type": "object",
            "required": ["effective_mode", "modes", "tools"],
            "properties": {
                "effective_mode": {"$ref": "#/components/schemas/PermissionMode"},
                "modes": {"type": "array", "items": {"$ref": "#/components/schemas/PermissionMode"}},
                "tools": {"type": "array", "items": {"type": "object",
                    "required": ["tool_name", "base_decision", "decisions"],
                    "properties": {
                        "tool_name": {"type": "string"},
                        "base_decision": {"enum": ["allow", "ask", "deny"]},
                        "decisions": {"type": "array", "items": {"type": "object",
                            "required": ["mode", "decision"],
                            "properties": {"mode": {"type": "string"}, "decision": {"type": "string"},
                                "mode_effect": {"type": "string"}}}}}}}
            }
        }"##,
    },
    Component {
        name: "PermissionAudits",
        schema: r#"{
            "type": "object",
            "required": ["items", "pagination"],
            "properties": {
                "items": {"type": "array", "items": {"type": "object",
                    "required": ["event_id", "timestamp_ms"],
                    "properties": {
                        "event_id": {"type": "string"},
                        "timestamp_ms": {"type": "integer"},
                        "run_id": {"type": "string"},
                        "tool": {"type": "string"},
                        "call": {"type": "string"},
                        "decision": {"enum": ["allow", "ask", "deny"]}}}},
                "pagination": {"type": "object",
                    "required": ["limit", "has_more", "order"],
                    "properties": {
                        "limit": {"type": "integer"},
                        "has_more": {"type": "boolean",
                            "description": "Older records have not been looked at; they need not hold a decision"},
                        "order": {"const": "event_id_desc"},
                        "next_cursor": {"type": "string"}}}
            }
        }"#,
    },
    Component {
        name: "SessionSettings",
        schema: r##"{
            "type": "object",
            "required": ["session_id", "permission_mode", "effective_permission_mode", "contained", "permission_rules",
                "route_policy"],
            "properties": {
                "session_id": {"type": "string"},
                "permission_mode": {"anyOf": [{"$ref": "#/components/schemas/PermissionMode"}, {"type": "null"}]},
                "effective_permission_mode": {"$ref": "#/components/schemas/PermissionMode"},
                "contained": {"type": "boolean", "description": "The whole daemon is in dontAsk"},
                "permission_rules": {"type": "array", "items": {"$ref": "#/components/schemas/PermissionRule"}},
                "route_policy": {"type": ["object", "null"], "properties": {
                    "provider": {"type": "string", "description": "Route id"},
                    "generation": {"type": "object", "properties": {"model": {"type": "string"}}}}},
                "input_contract": {"type": ["object", "null"]},
                "output_contract": {"type": ["object", "null"]},
                "settled_approval_count": {"type": "integer"}
            }
        }"##,
    },
    Component {
        name: "SetSessionPermissionMode",
        schema: r##"{
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "mode": {"anyOf": [{"$ref": "#/components/schemas/PermissionMode"}, {"type": "null"}]}
            }
        }"##,
    },
    Component {
        name: "SetSessionPermissionRules",
        schema: r##"{
            "type": "object",
            "additionalProperties": false,
            "required": ["rules"],
            "properties": {
                "rules": {"type": "array", "maxItems": 64, "items": {"$ref": "#/components/schemas/PermissionRule"}}
            }
        }"##,
    },
    Component {
        name: "RunDebug",
        schema: r##"{
            "type": "object",
            "required": ["run_id", "level", "artifacts"],
            "properties": {
                "run_id": {"type": "string"},
                "level": {"enum": ["off", "on", "redacted", "full"], "description": "Highest among the artifacts"},
                "artifacts": {"type": "array", "items": {"type": "object",
                    "required": ["artifact_id", "content_kind", "format", "level", "updated_at_ms", "bytes",
                        "plaintext_bytes", "sha256", "truncated", "encrypted"],
                    "properties": {
                        "artifact_id": {"type": "string"},
                        "content_kind": {"enum": ["provider_request", "provider_response", "tool_request",
                            "tool_response"]},
                        "format": {"enum": ["json", "text"]},
                        "level": {"enum": ["on", "redacted", "full"]},
                        "updated_at_ms": {"type": "integer"},
                        "bytes": {"type": "integer"},
                        "plaintext_bytes": {"type": "integer"},
                        "sha256": {"type": "string"},
                        "truncated": {"type": "boolean"},
                        "original_bytes": {"type": "integer"},
                        "encrypted": {"type": "boolean"},
                        "encryption_key_id": {"type": "string"}}}},
                "retention_hold": {"$ref": "#/components/schemas/RetentionHold"}
            }
        }"##,
    },
    Component {
        name: "PruneRuns",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "required": ["older_than_ms"],
            "properties": {
                "older_than_ms": {"type": "integer", "minimum": 1, "description": "Age of the newest artifact"},
                "session_id": {"type": ["string", "null"]},
                "limit": {"type": ["integer", "null"], "minimum": 1},
                "dry_run": {"type": ["boolean", "null"]}
            }
        }"#,
    },
    Component {
        name: "PrunedRuns",
        schema: r#"{
            "type": "object",
            "required": ["dry_run", "pruned", "pruned_count", "pruned_bytes", "skipped", "has_more"],
            "properties": {
                "dry_run": {"type": "boolean"},
                "pruned": {"type": "array", "items": {"type": "object",
                    "required": ["run_id", "artifact_count", "bytes", "updated_at_ms"],
                    "properties": {"run_id": {"type": "string"}, "artifact_count": {"type": "integer"},
                        "bytes": {"type": "integer"}, "updated_at_ms": {"type": "integer"}}}},
                "pruned_count": {"type": "integer"},
                "pruned_bytes": {"type": "integer"},
                "skipped": {"type": "array", "items": {"type": "object", "required": ["run_id", "reason"],
                    "properties": {"run_id": {"type": "string"},
                        "reason": {"enum": ["active", "held", "unknown", "error"]}}}},
                "has_more": {"type": "boolean"}
            }
        }"#,
    },
    Component {
        name: "SetRetentionHold",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "required": ["held"],
            "properties": {
                "held": {"type": "boolean"},
                "reason": {"type": ["string", "null"], "maxLength": 1024}
            }
        }"#,
    },
    Component {
        name: "RetentionHold",
        schema: r#"{
            "type": "object",
            "required": ["run_id", "held"],
            "properties": {
                "run_id": {"type": "string"},
                "held": {"type": "boolean"},
                "since_ms": {"type": "integer"},
                "reason": {"type": "string"}
            }
        }"#,
    },
    Component {
        name: "SetRoutePolicy",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "required": ["route_policy"],
            "properties": {
                "route_policy": {"type": "object", "additionalProperties": false, "properties": {
                    "provider": {"type": ["string", "null"], "description": "Route id"},
                    "route_id": {"type": ["string", "null"], "description": "Another name of provider"},
                    "generation": {"type": ["object", "null"], "additionalProperties": false,
                        "properties": {"model": {"type": ["string", "null"]}}}}}
            }
        }"#,
    },
];
