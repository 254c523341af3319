//! JSON schemas of approvals and questions, as OpenAPI components.
//! Owns: the text of each component.
//! Never: is consulted when a request is judged; serde's types do that.

use super::schemas::Component;

/// Components of approvals and questions.
pub static APPROVALS: &[Component] = &[
    Component {
        name: "Approval",
        schema: r#"{
            "type": "object",
            "required": ["id", "tool_call_id", "tool_name", "input", "scope", "digest", "requested_at_ms"],
            "properties": {
                "id": {"type": "string", "examples": ["approval-bash-7-1a2b3c4d"]},
                "tool_call_id": {"type": "string"},
                "tool_name": {"type": "string"},
                "input": {"type": "object"},
                "scope": {"type": "string"},
                "reason": {"type": "string"},
                "digest": {"type": "string", "description": "What the answer is bound to"},
                "requested_at_ms": {"type": "integer"},
                "expires_at_ms": {"type": "integer"}
            }
        }"#,
    },
    Component {
        name: "PendingApproval",
        schema: r##"{
            "allOf": [{"$ref": "#/components/schemas/Approval"}, {
                "type": "object",
                "required": ["session_id", "agent_id", "run_id"],
                "properties": {
                    "session_id": {"type": "string"},
                    "agent_id": {"type": "string"},
                    "run_id": {"type": "string"}
                }
            }]
        }"##,
    },
    Component {
        name: "ResolveApprovals",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "required": ["resolutions"],
            "properties": {
                "idempotency_key": {"type": ["string", "null"], "minLength": 1, "maxLength": 255},
                "resolutions": {"type": "array", "minItems": 1, "maxItems": 1024, "items": {
                    "type": "object",
                    "additionalProperties": false,
                    "required": ["request_id", "behavior"],
                    "properties": {
                        "request_id": {"type": "string"},
                        "behavior": {"enum": ["allow", "deny"]},
                        "updated_input": {"type": ["object", "null"],
                            "description": "Replaces the call's arguments; held to the tool's schema and the rules"},
                        "justification": {"type": ["string", "null"], "maxLength": 1024},
                        "reason": {"type": ["string", "null"], "maxLength": 1024}
                    }
                }}
            }
        }"#,
    },
    Component {
        name: "Question",
        schema: r#"{
            "type": "object",
            "required": ["id", "tool_call_id", "questions", "created_at_ms"],
            "properties": {
                "id": {"type": "string"},
                "tool_call_id": {"type": "string"},
                "questions": {"type": "array", "items": {
                    "type": "object",
                    "required": ["id", "question"],
                    "properties": {
                        "id": {"type": "string"},
                        "header": {"type": "string"},
                        "question": {"type": "string"},
                        "options": {"type": "array", "items": {"type": "object", "required": ["id", "label"],
                            "properties": {"id": {"type": "string"}, "label": {"type": "string"},
                                "description": {"type": "string"}, "preview": {"type": "string"}}}},
                        "multi_select": {"type": "boolean"},
                        "form": {"type": "object", "description": "What the answer to a field of a server's form has to be",
                            "properties": {"required": {"type": "boolean"}, "schema": {"type": "object"}}}
                    }
                }},
                "created_at_ms": {"type": "integer"},
                "expires_at_ms": {"type": "integer"},
                "to_parent": {"type": "boolean"},
                "server": {"type": "string", "description": "The MCP server on whose behalf a call asks"}
            }
        }"#,
    },
    Component {
        name: "PendingQuestion",
        schema: r##"{
            "type": "object",
            "required": ["session_id", "agent_id", "run_id", "run_kind", "requester_agent_id",
                "requester_session_id", "requester_run_id", "requester_tool_call_id", "request"],
            "properties": {
                "session_id": {"type": "string"},
                "agent_id": {"type": "string"},
                "run_id": {"type": "string"},
                "run_kind": {"type": "string"},
                "requester_agent_id": {"type": "string"},
                "requester_session_id": {"type": "string"},
                "requester_run_id": {"type": "string"},
                "requester_tool_call_id": {"type": "string"},
                "request": {"$ref": "#/components/schemas/Question"}
            }
        }"##,
    },
    Component {
        name: "ResolveQuestion",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "required": ["resolution"],
            "properties": {
                "idempotency_key": {"type": ["string", "null"], "minLength": 1, "maxLength": 255},
                "resolution": {
                    "type": "object",
                    "additionalProperties": false,
                    "required": ["request_id"],
                    "properties": {
                        "request_id": {"type": "string"},
                        "answers": {"type": "array", "items": {
                            "type": "object",
                            "additionalProperties": false,
                            "required": ["question_id"],
                            "properties": {
                                "question_id": {"type": "string"},
                                "selected_option_ids": {"type": "array", "items": {"type": "string"}},
                                "freeform_answer": {"type": ["string", "null"]}
                            }
                        }},
                        "declined": {"type": "boolean"},
                        "justification": {"type": ["string", "null"], "maxLength": 1024}
                    }
                }
            }
        }"#,
    },
    Component {
        name: "CancelQuestion",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "idempotency_key": {"type": ["string", "null"], "minLength": 1, "maxLength": 255},
                "justification": {"type": ["string", "null"], "maxLength": 1024}
            }
        }"#,
    },
];
