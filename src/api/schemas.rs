//! JSON schemas of the wire types, as OpenAPI components.
//! Owns: the text of each component.
//! Never: is consulted when a request is judged; serde's types do that, and tests hold the two together.

/// One entry under `components.schemas`.
#[derive(Debug, Clone, Copy)]
pub struct Component {
    /// Its name, as in `#/components/schemas/<name>`.
    pub name: &'static str,
    /// Its JSON schema (draft 2020-12), as JSON text.
    pub schema: &'static str,
}

/// Components that belong to no resource.
pub static SHARED: &[Component] = &[
    Component {
        name: "Problem",
        schema: r#"{
            "type": "object",
            "description": "An error (RFC 9457). Branch on `code`; `detail` is for people.",
            "required": ["type", "title", "status", "detail", "code", "request_id"],
            "properties": {
                "type": {"type": "string", "description": "urn:kheish:problem: followed by the code"},
                "title": {"type": "string"},
                "status": {"type": "integer", "minimum": 400, "maximum": 599},
                "detail": {"type": "string"},
                "code": {"type": "string", "pattern": "^[a-z0-9_]+$"},
                "domain": {"type": "string"},
                "request_id": {"type": "string", "maxLength": 64}
            }
        }"#,
    },
    Component {
        name: "Pagination",
        schema: r#"{
            "type": "object",
            "required": ["limit", "total_count", "has_more", "order"],
            "properties": {
                "limit": {"type": "integer", "minimum": 1, "maximum": 100},
                "total_count": {"type": "integer", "minimum": 0},
                "has_more": {"type": "boolean"},
                "order": {"type": "string", "examples": ["submitted_at_ms_asc,run_id_asc"]},
                "next_cursor": {"type": "string", "description": "Opaque; present while has_more is true"}
            }
        }"#,
    },
    Component { name: "NoFields", schema: r#"{"type": "object", "additionalProperties": false}"# },
    Component {
        name: "Capabilities",
        schema: r#"{
            "type": "object",
            "description": "A missing field means false or 0.",
            "required": ["control_plane_version", "api_revision"],
            "properties": {
                "control_plane_version": {"type": "string"},
                "api_revision": {"type": "integer"},
                "route_capability_matrix_version": {"type": "integer"}
            },
            "additionalProperties": {"type": "boolean"}
        }"#,
    },
];
