//! The route table as an OpenAPI 3.1 document.
//! Owns: which parameters, bodies and problems each kind of route has.
//! Never: describes a route that the table does not hold.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::api::builtin::API_REVISION;
use crate::api::query::{QueryKind, QueryParam};
use crate::api::route::{Access, Route, Schema, Success};
use crate::api::schemas::{Component, SHARED};
use crate::http::Method;
use crate::http::problem::{Code, codes};
use crate::limits::{IDEMPOTENCY_KEY_BYTES_MAX, PAGE_CURSOR_BYTES_MAX, PAGE_ITEMS_MAX, SESSION_ID_BYTES_MAX};

/// The document for `routes`, whose bodies and answers are described by [`SHARED`] and `components`.
///
/// # Panics
/// A component is no JSON, is named twice, or is missing.
pub fn document<A>(routes: &[Route<A>], components: &[&[Component]]) -> Vec<u8> {
    let mut paths: BTreeMap<&str, Vec<&Route<A>>> = BTreeMap::new();
    for route in routes {
        paths.entry(route.path).or_default().push(route);
    }
    let mut out = Vec::new();
    // Written piece by piece: as one tree of values the document takes twenty times its own size.
    out.push(b'{');
    for (name, value) in head() {
        member(&mut out, name, &value);
    }
    open(&mut out, "paths");
    for (path, routes) in paths {
        let operations = routes.iter().map(|route| (route.method.as_str().to_ascii_lowercase(), operation(route)));
        member(&mut out, path, &Value::Object(operations.collect()));
    }
    close(&mut out);
    open(&mut out, "components");
    member(&mut out, "securitySchemes", &security_schemes());
    open(&mut out, "schemas");
    let mut names = BTreeSet::new();
    for component in SHARED.iter().chain(components.iter().copied().flatten()) {
        assert!(names.insert(component.name), "the component {} is there twice", component.name);
        let schema = serde_json::from_str(component.schema);
        let schema: Value =
            schema.unwrap_or_else(|error| panic!("the component {} is no JSON: {error}", component.name));
        member(&mut out, component.name, &schema);
    }
    (0..3).for_each(|_| close(&mut out));
    // The last one leaves the comma that a next member would need.
    out.pop();
    out
}

fn head() -> [(&'static str, Value); 3] {
    let info = json!({
        "title": "kheish-daemon control plane",
        "version": env!("CARGO_PKG_VERSION"),
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        "description": "Unknown query parameters and body fields are refused. Times are Unix milliseconds. \
            Event ids are decimal strings. Every answer carries x-request-id. GET routes serve HEAD too.",
    });
    [("openapi", json!("3.1.0")), ("info", info), ("x-api-revision", json!(API_REVISION))]
}

fn security_schemes() -> Value {
    json!({
        "bearerAuth": {
            "type": "http",
            "scheme": "bearer",
            "description": "The admin token satisfies every route; the read-only token those whose x-access is \
                read_only.",
        },
        "connectorBearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "The token of the path's connector. Connectors of kind http may need x-kheish-timestamp and \
                x-kheish-signature, Slack x-slack-request-timestamp and x-slack-signature, Telegram \
                x-telegram-bot-api-secret-token instead.",
        },
    })
}

fn member(out: &mut Vec<u8>, name: &str, value: &Value) {
    serde_json::to_writer(&mut *out, name).expect("a name serialises");
    out.push(b':');
    serde_json::to_writer(&mut *out, value).expect("a JSON value serialises");
    out.push(b',');
}

fn open(out: &mut Vec<u8>, name: &str) {
    serde_json::to_writer(&mut *out, name).expect("a name serialises");
    out.extend_from_slice(b":{");
}

/// Ends an object whose last member left a comma, and leaves one itself.
fn close(out: &mut Vec<u8>) {
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.extend_from_slice(b"},");
}

/// The codes that `route` can answer with, in the order of the table.
pub fn problems_of<A>(route: &Route<A>) -> Vec<&'static Code> {
    let mut wanted: Vec<&'static Code> = vec![&codes::METHOD_NOT_ALLOWED, &codes::BAD_REQUEST, &codes::INTERNAL_ERROR];
    wanted.extend([&codes::MALFORMED_REQUEST, &codes::SERVER_BUSY, &codes::PAYLOAD_TOO_LARGE]);
    if route.access == Access::Connector {
        wanted.extend([&codes::CONNECTOR_UNKNOWN, &codes::CONNECTORS_HELD, &codes::CONNECTOR_SECRET_UNAVAILABLE]);
        wanted.extend([&codes::CORE_BUSY, &codes::CORE_UNAVAILABLE, &codes::JOURNAL_POISONED, &codes::STORAGE_FULL]);
    }
    if !matches!(route.access, Access::Public | Access::Connector) {
        wanted.extend([&codes::MISSING_TOKEN, &codes::MALFORMED_TOKEN, &codes::INVALID_TOKEN, &codes::RATE_LIMITED]);
        wanted.extend([
            &codes::ORIGIN_NOT_ALLOWED,
            &codes::MISDIRECTED_REQUEST,
            &codes::CORE_BUSY,
            &codes::CORE_UNAVAILABLE,
        ]);
    }
    if route.is_mutation() {
        wanted.extend([&codes::JOURNAL_POISONED, &codes::STORAGE_FULL]);
    }
    if route.access == Access::Admin {
        wanted.push(&codes::INSUFFICIENT_ACCESS);
    }
    if route.request.is_some() {
        wanted.extend([&codes::UNSUPPORTED_MEDIA_TYPE, &codes::UNPROCESSABLE_BODY, &codes::REQUEST_TIMEOUT]);
    }
    if route.path_params().any(|name| name == "session_id") {
        wanted.push(&codes::INVALID_SESSION_ID);
    }
    if route.success == Success::Events {
        wanted.extend([&codes::INVALID_EVENT_CURSOR, &codes::STREAM_LIMIT, &codes::DAEMON_DRAINING]);
    }
    wanted.extend(route.query.iter().map(|param| param.kind.code()));
    wanted.extend(route.problems);
    codes::ALL.iter().copied().filter(|code| wanted.contains(code)).collect()
}

fn operation<A>(route: &Route<A>) -> Value {
    let mut operation = json!({
        "operationId": operation_id(route.method, route.path),
        "summary": route.summary,
        "tags": [tag(route.path)],
        "x-access": route.access.as_str(),
        "security": match route.access {
            Access::Public => json!([]),
            Access::Connector => json!([{"connectorBearer": []}]),
            Access::ReadOnly | Access::Admin => json!([{"bearerAuth": []}]),
        },
        "parameters": parameters(route),
        "responses": responses(route),
    });
    if let Some(request) = route.request {
        operation["requestBody"] = json!({
            "required": !request.optional,
            "content": {"application/json": {"schema": reference(request.schema)}},
            "x-body-bytes-max": route.body_bytes_max,
        });
    }
    operation
}

/// `GET /v1/runs/{run_id}/events` is `get_runs_run_id_events`.
fn operation_id(method: Method, path: &str) -> String {
    let words = path
        .split(['/', '-', '.'])
        .map(|word| word.trim_matches(['{', '}']))
        .filter(|word| !word.is_empty() && *word != "v1");
    std::iter::once(method.as_str().to_ascii_lowercase())
        .chain(words.map(ToString::to_string))
        .collect::<Vec<_>>()
        .join("_")
}

fn tag(path: &str) -> &str {
    let mut segments = path.split('/').skip(1);
    match segments.next() {
        Some("v1") => segments.next().unwrap_or("daemon"),
        _ => "probes",
    }
}

fn parameters<A>(route: &Route<A>) -> Vec<Value> {
    let in_path = route.path_params().map(|name| {
        let schema = match name {
            "session_id" => json!({"type": "string", "minLength": 1, "maxLength": SESSION_ID_BYTES_MAX}),
            "run_id" => json!({"type": "string", "pattern": RUN_ID_PATTERN}),
            _ => json!({"type": "string", "minLength": 1}),
        };
        json!({"name": name, "in": "path", "required": true, "schema": schema})
    });
    let in_query = route.query.iter().map(|param| {
        let schema = query_schema(param);
        json!({"name": param.name, "in": "query", "required": false, "description": param.summary, "schema": schema})
    });
    let mut parameters: Vec<Value> = in_path.chain(in_query).collect();
    if route.problems.contains(&&codes::IDEMPOTENCY_CONFLICT) {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "The same key with the same request gives the same result once.",
            "schema": {"type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_BYTES_MAX},
        }));
    }
    if route.success == Success::Events {
        parameters.push(json!({
            "name": "Last-Event-ID", "in": "header", "required": false,
            "description": "The last event seen; the larger of it and `cursor` holds.",
            "schema": {"type": "string", "pattern": "^[0-9]*$"},
        }));
    }
    parameters
}

const RUN_ID_PATTERN: &str = "^run-[1-9][0-9]*(-[1-9][0-9]*)?$";

fn query_schema(param: &QueryParam) -> Value {
    match param.kind {
        QueryKind::Text(bytes_max) => json!({"type": "string", "minLength": 1, "maxLength": bytes_max}),
        QueryKind::Unsigned => json!({"type": "integer", "minimum": 0}),
        QueryKind::Flag => json!({"type": "boolean", "default": false}),
        QueryKind::OneOf(words) => json!({"type": "string", "enum": words}),
        QueryKind::Session => json!({"type": "string", "minLength": 1, "maxLength": SESSION_ID_BYTES_MAX}),
        QueryKind::Run => json!({"type": "string", "pattern": RUN_ID_PATTERN}),
        QueryKind::Limit => json!({"type": "integer", "minimum": 1, "x-page-items-max": PAGE_ITEMS_MAX}),
        QueryKind::Order => json!({"type": "string", "enum": ["asc", "desc"], "default": "asc"}),
        QueryKind::PageCursor => json!({"type": "string", "maxLength": PAGE_CURSOR_BYTES_MAX}),
        QueryKind::EventCursor => json!({"type": "string", "pattern": "^[0-9]*$"}),
    }
}

fn responses<A>(route: &Route<A>) -> Value {
    let request_id = json!({"x-request-id": {"schema": {"type": "string"}}});
    let (status, content) = match route.success {
        Success::Json { status, schema } => (status, json!({"application/json": {"schema": answer(schema)}})),
        Success::Text => (200, json!({"text/plain": {"schema": {"type": "string"}}})),
        Success::OpenApi => (200, json!({"application/json": {"schema": {"type": "object"}}})),
        Success::Events => (200, json!({"text/event-stream": {"schema": {"type": "string"}}})),
    };
    let mut responses = json!({
        status.to_string(): {"description": "Done.", "headers": request_id, "content": content},
    });
    for code in problems_of(route) {
        let entry = &mut responses[code.status.to_string()];
        if entry.is_null() {
            *entry = json!({
                "description": "",
                "headers": request_id,
                "content": {"application/problem+json": {"schema": reference("Problem")}},
                "x-codes": [],
            });
        }
        let listed = entry["x-codes"].as_array_mut().expect("the entry was made above");
        listed.push(json!(code.code));
        let description = match entry["description"].as_str() {
            None | Some("") => format!("{}: {}", code.code, code.meaning),
            Some(earlier) => format!("{earlier} {}: {}", code.code, code.meaning),
        };
        entry["description"] = json!(description);
    }
    responses
}

fn answer(schema: Schema) -> Value {
    match schema {
        Schema::Ref(name) => reference(name),
        Schema::List(name) => {
            let items = json!({"type": "array", "items": reference(name)});
            json!({"oneOf": [items, {
                "type": "object",
                "required": ["items", "pagination"],
                "properties": {"items": items, "pagination": reference("Pagination")},
            }]})
        }
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}
