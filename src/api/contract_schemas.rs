//! JSON schemas of sessions' contracts, as OpenAPI components.
//! Owns: the text of each component.
//! Never: is consulted when a request is judged; serde's types do that.

use super::schemas::Component;

/// Components of contracts.
pub static CONTRACTS: &[Component] = &[
    Component {
        name: "InputContract",
        schema: r#"{
            "type": "object",
            "required": ["session_id", "input_contract"],
            "properties": {
                "session_id": {"type": "string"},
                "input_contract": {"type": ["object", "null"], "properties": {"schema": {"type": "object"}}}
            }
        }"#,
    },
    Component {
        name: "SetInputContract",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "required": ["input_contract"],
            "properties": {
                "input_contract": {"type": "object", "additionalProperties": false, "required": ["schema"],
                    "properties": {"schema": {"type": "object"}}}
            }
        }"#,
    },
    Component {
        name: "OutputContract",
        schema: r#"{
            "type": "object",
            "required": ["session_id", "output_contract"],
            "properties": {
                "session_id": {"type": "string"},
                "output_contract": {"type": ["object", "null"], "properties": {
                    "schema": {"type": "object"}, "max_repair_attempts": {"type": "integer"}}}
            }
        }"#,
    },
    Component {
        name: "SetOutputContract",
        schema: r#"{
            "type": "object",
            "additionalProperties": false,
            "required": ["output_contract"],
            "properties": {
                "output_contract": {"type": "object", "additionalProperties": false, "required": ["schema"],
                    "properties": {
                        "schema": {"type": "object"},
                        "max_repair_attempts": {"type": ["integer", "null"], "minimum": 0, "maximum": 5,
                            "description": "How often an answer that does not fit is sent back; 3 when left out"}}}
            }
        }"#,
    },
];
