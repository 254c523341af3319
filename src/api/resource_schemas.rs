//! JSON schemas of the resources' wire types, as OpenAPI components.
//! Owns: the text of each component.
//! Never: is consulted when a request is judged; serde's types do that.

use super::agent_schemas::AGENTS;
use super::approval_schemas::APPROVALS;
use super::auth_schemas::AUTH;
use super::backup_routes::BACKUP;
use super::connector_schemas::CONNECTORS;
use super::contract_schemas::CONTRACTS;
use super::delivery_schemas::DELIVERIES;
use super::doctor_schemas::DOCTOR;
use super::hook_schemas::HOOKS;
use super::mcp_schemas::MCP;
use super::runtime_schemas::RUNTIME;
use super::schemas::Component;

/// The components of every resource.
pub static ALL: &[&[Component]] =
    &[RESOURCES, APPROVALS, AGENTS, DELIVERIES, RUNTIME, CONTRACTS, CONNECTORS, AUTH, DOCTOR, HOOKS, MCP, BACKUP];

/// Components of sessions, runs, runtime and secrets.
pub static RESOURCES: &[Component] = &[
    Component {
        name: "Session",
        schema: r#"{
            "type": "object",
            "required": ["session_id", "agent_id", "status", "created_at_ms", "updated_at_ms", "ended",
                "queued_run_count", "run_count"],
            "properties": {
                "session_id": {"type": "string", "minLength": 1, "maxLength": 100},
                "agent_id": {"type": "string"},
                "status": {"enum": ["idle", "running", "waiting_for_approval", "waiting_for_user_input", "failed",
                    "completed"]},
                "created_at_ms": {"type": "integer"},
                "updated_at_ms": {"type": "integer"},
                "ended": {"type": "boolean"},
                "active_run_id": {"type": "string"},
                "pending_approval_ids": {"type": "array", "items": {"type": "string"}},
                "pending_question_ids": {"type": "array", "items": {"type": "string"}},
                "queued_run_count": {"type": "integer"},
                "run_count": {"type": "integer"}
            }
        }"#,
    },
    Component {
        name: "CreateSession",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "session_id": {"type": ["string", "null"], "minLength": 1, "maxLength": 100,
                    "description": "Generated when absent; an existing session is reused"},
                "thread_id": {"type": ["string", "null"], "maxLength": 256},
                "persona_id": {"type": "null", "description": "Not supported yet"},
                "capability_scope": {"type": "null", "description": "Not supported yet"},
                "credential_scope": {"type": "null", "description": "Not supported yet"}
            }
        }"#,
    },
    Component {
        name: "SessionEvents",
        schema: r##"{
            "type": "object",
            "required": ["session", "daemon_outputs", "run_events", "truncated"],
            "properties": {
                "session": {"$ref": "#/components/schemas/Session"},
                "daemon_outputs": {"type": "array", "items": {"type": "object"}},
                "run_events": {"$ref": "#/components/schemas/RunEvents"},
                "truncated": {"type": "boolean", "description": "Older runs exist whose events are not listed"}
            }
        }"##,
    },
    Component {
        name: "Interrupted",
        schema: r##"{
            "type": "object",
            "required": ["interrupted", "session"],
            "properties": {
                "interrupted": {"type": "boolean"},
                "run_id": {"type": "string"},
                "session": {"$ref": "#/components/schemas/Session"}
            }
        }"##,
    },
    Component {
        name: "InputItem",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "required": ["type"],
            "properties": {
                "type": {"enum": ["text", "inline_asset", "asset_reference"]},
                "text": {"type": ["string", "null"], "description": "Of a text"},
                "file_name": {"type": ["string", "null"], "minLength": 1, "maxLength": 256, "description": "Of a file"},
                "media_type": {"type": ["string", "null"],
                    "description": "image/png, image/jpeg, image/gif, image/webp, application/pdf or a type of text; found out when absent"},
                "content_base64": {"type": ["string", "null"]},
                "asset_id": {"type": ["string", "null"], "description": "Of a reference"}
            }
        }"#,
    },
    Component {
        name: "PutAsset",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "required": ["file_name", "content_base64"],
            "properties": {
                "type": {"enum": ["inline_asset"]},
                "file_name": {"type": "string", "minLength": 1, "maxLength": 256},
                "media_type": {"type": ["string", "null"], "description": "Found out from the bytes when absent"},
                "content_base64": {"type": "string"}
            }
        }"#,
    },
    Component {
        name: "Asset",
        schema: r#"{
            "type": "object",
            "required": ["asset_id", "media_type", "sha256", "byte_length"],
            "properties": {
                "asset_id": {"type": "string", "description": "For input items of type asset_reference"},
                "file_name": {"type": "string", "description": "As it was given; not kept"},
                "media_type": {"type": "string"},
                "sha256": {"type": "string"},
                "byte_length": {"type": "integer"}
            }
        }"#,
    },
    Component {
        name: "SubmitInput",
        schema: r##"{
            "type": "object",
            "additionalProperties": false,
            "description": "Absent, null and empty mean the same. A field whose feature is missing is refused when it asks for something.",
            "properties": {
                "content": {"type": ["string", "null"]},
                "input_items": {"type": ["array", "null"], "items": {"$ref": "#/components/schemas/InputItem"},
                    "description": "In order; excludes content and attachments"},
                "provider": {"type": ["string", "null"], "description": "Route id"},
                "generation": {"type": ["object", "null"], "properties": {
                    "model": {"type": ["string", "null"]},
                    "fallback_model": {"type": ["string", "null"], "description": "On the same route, when the first one fails"},
                    "max_output_tokens": {"type": ["integer", "null"], "minimum": 1},
                    "temperature": {"type": ["number", "null"], "minimum": 0, "maximum": 2},
                    "tool_choice": {"type": ["object", "null"], "required": ["type"], "properties": {
                        "type": {"enum": ["auto", "none", "required", "specific"]}, "name": {"type": "string"}}},
                    "allow_parallel_tool_calls": {"type": ["boolean", "null"]},
                    "response_format": {"type": ["object", "null"], "required": ["type"], "properties": {
                        "type": {"enum": ["text", "structured_json"]}, "schema": {"type": "object"},
                        "name": {"type": "string", "minLength": 1, "maxLength": 64},
                        "max_repair_attempts": {"type": "integer", "minimum": 0, "maximum": 5,
                            "description": "How often an answer that does not fit is sent back; 1 when left out"}}},
                    "reasoning": {"type": ["object", "null"], "properties": {
                        "effort": {"enum": ["none", "minimal", "low", "medium", "high", "xhigh", "max", null]},
                        "summary": {"enum": ["auto", "concise", "detailed", "none", null]},
                        "budget_tokens": {"type": ["integer", "null"], "minimum": 1},
                        "interleaved": {"type": ["boolean", "null"]}}}}},
                "source_plugin": {"type": ["string", "null"]},
                "source_kind": {"type": ["string", "null"]},
                "actor_id": {"type": ["string", "null"]},
                "metadata": {},
                "budget": {"type": ["object", "null"], "additionalProperties": false, "properties": {
                    "max_turns": {"type": ["integer", "null"], "minimum": 1, "description": "Answers of the model, up to 500"},
                    "max_duration_ms": {"type": ["integer", "null"], "minimum": 1},
                    "max_total_output_tokens": {"type": ["integer", "null"], "minimum": 1}}},
                "idempotency_key": {"type": ["string", "null"], "minLength": 1, "maxLength": 255},
                "attachments": {"type": ["array", "null"], "items": {"$ref": "#/components/schemas/InputItem"},
                    "description": "Files that come with content"},
                "completion_requirements": {"type": ["array", "null"], "maxItems": 0},
                "binding_keys": {"type": ["array", "null"], "maxItems": 0},
                "reply_targets": {"type": ["array", "null"], "maxItems": 8, "items": {"type": "object"},
                    "description": "Where the output goes; the session's own targets otherwise"},
                "reply_plugin": {"type": ["string", "null"], "description": "With reply_address: one target more"},
                "reply_address": {"type": "null"}
            }
        }"##,
    },
    Component {
        name: "Run",
        schema: r##"{
            "type": "object",
            "required": ["run_id", "session_id", "agent_id", "kind", "status", "submitted_at_ms", "updated_at_ms",
                "request"],
            "properties": {
                "run_id": {"type": "string", "examples": ["run-7"]},
                "session_id": {"type": "string"},
                "agent_id": {"type": "string"},
                "kind": {"type": "string"},
                "status": {"enum": ["queued", "running", "waiting_for_approval", "waiting_for_user_question",
                    "completed", "failed", "interrupted", "cancelled"]},
                "submitted_at_ms": {"type": "integer"},
                "updated_at_ms": {"type": "integer"},
                "started_at_ms": {"type": "integer"},
                "finished_at_ms": {"type": "integer"},
                "queued_position": {"type": "integer", "minimum": 1},
                "request": {"type": "object", "properties": {
                    "source_plugin": {"type": "string"},
                    "source_kind": {"type": "string"},
                    "actor_id": {"type": "string"},
                    "text_preview": {"type": "string"},
                    "provider": {"type": "string", "description": "Route id"},
                    "model": {"type": "string"}}},
                "input_attachments": {"type": "array", "items": {"type": "object",
                    "required": ["file_name", "media_type", "sha256", "bytes"]}},
                "input_metadata": {},
                "pending_approval_ids": {"type": "array", "items": {"type": "string"}},
                "pending_approvals": {"type": "array", "items": {"$ref": "#/components/schemas/Approval"}},
                "pending_question_ids": {"type": "array", "items": {"type": "string"}},
                "pending_questions": {"type": "array", "items": {"$ref": "#/components/schemas/Question"}},
                "outputs": {"type": "array", "items": {"type": "object", "properties": {
                    "content": {"type": "string"}, "source_kind": {"type": "string"}}}},
                "failovers": {"type": "array", "items": {"type": "object", "required": ["from_route", "from_model",
                    "to_route", "to_model", "reason", "message", "at_ms"]}},
                "deliveries": {"type": "array", "items": {"$ref": "#/components/schemas/Delivery"}},
                "error": {"type": "object", "required": ["code", "message"], "properties": {
                    "code": {"type": "string"}, "message": {"type": "string"}}}
            }
        }"##,
    },
    Component {
        name: "RunEvents",
        schema: r#"{
            "type": "array",
            "items": {
                "type": "object",
                "required": ["timestamp_ms", "run_id", "session_id", "agent_id", "event"],
                "properties": {
                    "timestamp_ms": {"type": "integer"},
                    "run_id": {"type": "string"},
                    "session_id": {"type": "string"},
                    "agent_id": {"type": "string"},
                    "event": {"type": "object", "required": ["type"], "properties": {"type": {"enum": ["accepted",
                        "queued", "started", "resumed", "tool_call_started", "tool_call_finished", "waiting_for_agents",
                        "waiting_for_approval",
                        "approval_resolved", "waiting_for_user_question", "user_question_resolved", "continued",
                        "context_compacted", "route_failover", "output_rejected", "output", "completed", "failed", "interrupted",
                        "cancelled"]}}}
                }
            }
        }"#,
    },
    Component {
        name: "ExternalAction",
        schema: r#"{
            "type": "object",
            "description": "A signed record; docs/audit.md says how to check it. Records of old state roots may lack the signature.",
            "properties": {
                "action_id": {"type": "string", "description": "Joins request and response"},
                "chain": {"type": "string", "description": "The run, or daemon"},
                "index": {"type": "integer", "minimum": 1},
                "prev_hash": {"type": "string"},
                "timestamp_ms": {"type": "integer"},
                "session_id": {"type": "string"},
                "agent_id": {"type": "string"},
                "run_id": {"type": "string"},
                "phase": {"enum": ["request", "response"]},
                "kind": {"type": "string", "examples": ["model_provider"]},
                "target": {"type": "string"},
                "tool_call_id": {"type": "string"},
                "lease": {"type": "string"},
                "request_digest": {"type": "string"},
                "response_digest": {"type": "string"},
                "outcome": {"enum": ["succeeded", "failed", "unknown"]},
                "signature_alg": {"const": "ed25519"},
                "key_id": {"type": "string"},
                "record_hash": {"type": "string"},
                "signature": {"type": "string"}
            }
        }"#,
    },
    Component {
        name: "AuditPublicKey",
        schema: r#"{
            "type": "object",
            "required": ["key_id", "public_key", "earlier_public_keys"],
            "properties": {
                "key_id": {"type": "string"},
                "public_key": {"type": "string", "description": "PEM"},
                "earlier_public_keys": {"type": "array", "items": {"type": "string"}}
            }
        }"#,
    },
    Component {
        name: "AuditCheckpoint",
        schema: r#"{
            "type": "object",
            "required": ["type", "version", "head", "chain", "at_ms", "key_id", "signature"],
            "properties": {
                "type": {"const": "kheish-audit-checkpoint"},
                "version": {"const": 1},
                "head": {"type": "integer"},
                "chain": {"type": "string"},
                "at_ms": {"type": "integer"},
                "key_id": {"type": "string"},
                "signature": {"type": "string"}
            }
        }"#,
    },
    Component {
        name: "Reason",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "properties": {"reason": {"type": ["string", "null"], "maxLength": 1024}}
        }"#,
    },
    Component {
        name: "Hold",
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
        name: "Slot",
        schema: r#"{
            "type": "object",
            "description": "Metadata of a secret slot; no part of the value is ever shown.",
            "required": ["slot_id", "provider", "mode", "summary", "updated_at_ms"],
            "properties": {
                "slot_id": {"type": "string"},
                "provider": {"type": "string"},
                "mode": {"type": "string"},
                "summary": {"type": "string"},
                "updated_at_ms": {"type": "integer"},
                "details": {"type": "object", "description": "More of an OAuth account"},
                "version": {"type": "integer", "description": "Version of the secret"},
                "blocked": {"type": "boolean",
                    "description": "True when it was revoked and not set since, else absent"}
            }
        }"#,
    },
    Component {
        name: "SlotRecord",
        schema: r#"{
            "type": "object",
            "required": ["slot_id", "provider", "mode", "state"],
            "properties": {
                "slot_id": {"type": "string", "minLength": 1, "maxLength": 128},
                "provider": {"enum": ["generic", "open_ai", "openai", "anthropic", "google", "open_router",
                    "openrouter", "x_ai", "xai", "mcp_oauth"]},
                "mode": {"enum": ["opaque_secret", "api_key", "oauth_account"]},
                "state": {"type": "object"},
                "updated_at_ms": {"type": "integer", "description": "Ignored; the daemon's clock counts"}
            }
        }"#,
    },
    Component {
        name: "Accepted",
        schema: r#"{
            "type": "object",
            "required": ["accepted"],
            "properties": {"accepted": {"type": "boolean"}}
        }"#,
    },
    Component {
        name: "Task",
        schema: r#"{
            "type": "object",
            "required": ["id", "title", "description", "status", "owner_agent_id", "blocked_by", "blocks",
                "created_at_ms", "updated_at_ms"],
            "properties": {
                "id": {"type": "string", "description": "shell-task-<n> for a background command, task-<n> for a to-do item"},
                "title": {"type": "string"},
                "description": {"type": "string"},
                "status": {"enum": ["pending", "in_progress", "blocked", "completed", "failed", "cancelled"]},
                "owner_agent_id": {"type": "string"},
                "blocked_by": {"type": "array", "items": {"type": "string"}},
                "blocks": {"type": "array", "items": {"type": "string"}},
                "output": {"type": "string"},
                "metadata": {"type": "object", "description": "Of a background command",
                    "required": ["kind", "command", "workdir", "output_file_path", "started_in_background",
                        "recovered_on_boot", "cancelled", "stop_requested", "process_tree_remaining_pids",
                        "output_size_bytes", "output_total_bytes", "output_rotated", "output_rotation_count"],
                    "properties": {
                        "kind": {"const": "background_shell"},
                        "command": {"type": "string", "description": "Its first 2 KiB"},
                        "workdir": {"type": "string"},
                        "output_file_path": {"type": "string", "description": "Below the state root"},
                        "started_in_background": {"type": "boolean"},
                        "tool_call_id": {"type": "string"},
                        "created_by_run_id": {"type": "string"},
                        "pid": {"type": "integer", "description": "While it runs, as its worker numbers it"},
                        "exit_code": {"type": "integer"},
                        "signal": {"type": "integer"},
                        "terminal_reason": {"enum": ["stopped", "daemon_restarted", "daemon_stopped", "worker_died",
                            "memory_exceeded", "could_not_start", "output_capture_failed"]},
                        "detail": {"type": "string"},
                        "recovered_on_boot": {"type": "boolean"},
                        "interactive_prompt_detected": {"type": "boolean",
                            "description": "It has asked something that nobody can answer, and says nothing more"},
                        "cancelled": {"type": "boolean"},
                        "stop_requested": {"type": "boolean"},
                        "stop_requested_at_ms": {"type": "integer"},
                        "stop_reason": {"type": "string"},
                        "process_tree_shutdown_confirmed": {"type": "boolean"},
                        "process_tree_remaining_pids": {"type": "array", "items": {"type": "integer"}},
                        "output_size_bytes": {"type": "integer"},
                        "output_total_bytes": {"type": "integer"},
                        "output_rotated": {"type": "boolean"},
                        "output_rotation_count": {"type": "integer"}
                    }
                },
                "created_at_ms": {"type": "integer"},
                "updated_at_ms": {"type": "integer"}
            }
        }"#,
    },
    Component {
        name: "TaskOutput",
        schema: r##"{
            "type": "object",
            "required": ["retrieval_status", "task", "output_truncated"],
            "properties": {
                "retrieval_status": {"enum": ["success", "not_ready", "timeout"]},
                "task": {"$ref": "#/components/schemas/Task"},
                "output_excerpt": {"type": "string"},
                "output_text": {"type": "string", "description": "With full=true"},
                "output_truncated": {"type": "boolean"}
            }
        }"##,
    },
    Component {
        name: "Status",
        schema: r##"{
            "type": "object",
            "required": ["snapshot_at_ms", "process_id", "status", "ready", "capabilities", "runtime", "control_plane",
                "storage", "provider_readiness", "runs", "sessions", "schedules", "delivery", "agents", "tasks", "hooks",
                "connectors", "mcp", "run_memory", "session_memory", "journal", "events", "threads", "http", "broker",
                "sandbox", "egress", "health"],
            "properties": {
                "snapshot_at_ms": {"type": "integer", "description": "the moment that all ages are told from"},
                "process_id": {"type": "integer"},
                "status": {"enum": ["ready", "draining"]},
                "ready": {"type": "boolean"},
                "capabilities": {"type": "object"},
                "runtime": {"type": "object"},
                "control_plane": {"type": "object"},
                "storage": {"type": "object", "required": ["ok", "probes", "state_root_lock"]},
                "provider_readiness": {"type": "object",
                    "required": ["active_route_ready", "active_route_state", "error_route_count", "routes"],
                    "properties": {"routes_file": {"$ref": "#/components/schemas/RoutesFile"}}},
                "runs": {"type": "object", "required": ["queued", "running", "waiting_for_approval",
                    "waiting_for_user_question"]},
                "sessions": {"type": "object", "required": ["total"]},
                "schedules": {"type": "object", "required": ["supported", "total"]},
                "delivery": {"type": "object", "required": ["supported", "unresolved_dead_lettered"]},
                "agents": {"type": "object", "required": ["supported", "total"]},
                "tasks": {"type": "object", "required": ["live_background_shell_task_count", "total", "pending",
                    "in_progress", "blocked", "completed", "failed", "cancelled"]},
                "hooks": {"type": "object", "required": ["supported", "configured_count", "invalid_count", "held",
                    "diagnostics", "http_targets"]},
                "connectors": {"type": "object", "required": ["supported", "total"]},
                "mcp": {"type": "object", "required": ["supported", "server_count"]},
                "run_memory": {"type": "object", "required": ["supported"]},
                "session_memory": {"type": "object", "required": ["supported"]},
                "journal": {"type": "object"},
                "events": {"type": "object"},
                "threads": {"type": "array", "items": {"type": "object",
                    "required": ["name", "count", "alive", "busy", "queue_depth"]}},
                "broker": {"type": "object"},
                "egress": {"type": "object"},
                "sandbox": {"type": "object", "description": "walls around tools: level asked for, strength, and every feature with its reason"},
                "http": {"type": "object"},
                "health": {"type": "object", "required": ["ok"]}
            }
        }"##,
    },
    Component {
        name: "RoutesFile",
        schema: r#"{
            "type": "object",
            "required": ["path", "sha256", "drift"],
            "properties": {
                "path": {"type": "string"},
                "sha256": {"type": "string", "description": "Of what is loaded"},
                "since_ms": {"type": "integer"},
                "drift": {"type": "object", "required": ["state", "checked_at_ms"], "properties": {
                    "state": {"enum": ["in_sync", "changed", "unreadable"]},
                    "checked_at_ms": {"type": "integer"},
                    "sha256": {"type": "string", "description": "Of the file on disk"},
                    "loads": {"type": "boolean", "description": "Whether a start with the changed file would succeed"},
                    "diagnostics": {"type": "array", "items": {"type": "object"}},
                    "message": {"type": "string"}}}
            }
        }"#,
    },
    Component {
        name: "Runtime",
        schema: r##"{
            "type": "object",
            "required": ["workspace_root", "state_root", "provider", "model", "routes", "permission_mode",
                "permission_rule_count", "debug_level", "debug", "tool_runtime_limits", "config", "held"],
            "properties": {
                "workspace_root": {"type": "string"},
                "state_root": {"type": "string"},
                "route_id": {"type": "string"},
                "provider": {"type": ["string", "null"]},
                "model": {"type": ["string", "null"]},
                "routes": {"type": "array", "items": {"type": "object",
                    "required": ["route_id", "provider", "model", "base_url", "is_default", "auth_kind", "capabilities"]}},
                "routes_file": {"$ref": "#/components/schemas/RoutesFile"},
                "route_diagnostics": {"type": "array", "items": {"type": "object",
                    "required": ["severity", "code", "message"]}},
                "permission_mode": {"$ref": "#/components/schemas/PermissionMode"},
                "permission_rule_count": {"type": "integer"},
                "system_prompt": {"$ref": "#/components/schemas/SystemPrompt"},
                "debug_level": {"enum": ["off", "on", "redacted", "full"]},
                "debug": {"type": "object", "required": ["level"], "properties": {
                    "level": {"enum": ["off", "on", "redacted", "full"]},
                    "since_ms": {"type": "integer"},
                    "until_ms": {"type": "integer"},
                    "ttl_ms": {"type": "integer", "description": "What is left of the window"},
                    "ticket": {"type": "string"}}},
                "debug_capture": {"type": "object"},
                "tool_runtime_limits": {"$ref": "#/components/schemas/ToolLimits"},
                "config": {"type": "object",
                    "required": ["revision", "persisted", "history_len", "history_limit"],
                    "properties": {
                        "revision": {"type": "integer"},
                        "updated_at_ms": {"type": "integer"},
                        "persisted": {"type": "boolean"},
                        "history_len": {"type": "integer"},
                        "history_limit": {"type": "integer"}}},
                "held": {"type": "boolean"}
            }
        }"##,
    },
];
