//! What a request gets.
//! Owns: routing by path, the choice of the turn, and the record of the request.
//! Never: knows how an answer looks in a wire format.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::answer::{Answer, Asked};
use super::connection::{Chunking, Next, Request, respond, send_stream};
use super::format::{Format, Path};
use super::frames;
use super::requests::Seen;
use super::server::Shared;

/// Answers `request` on `stream`.
pub(super) fn answer(stream: &TcpStream, shared: &Shared, request: Request, keep_alive: bool) -> io::Result<Next> {
    let path = request.path.split('?').next().unwrap_or_default();
    let send = |status, body: &Value| respond(stream, status, &[], body.to_string().as_bytes(), keep_alive);
    if (request.method.as_str(), path) == ("GET", "/_scripted/requests") {
        return respond(stream, 200, &[], &shared.requests_json(), keep_alive);
    }
    match Path::of(&request.method, path) {
        Some(Path::Turn(format)) => answer_turn(stream, shared, format, request, keep_alive),
        Some(Path::Count(format)) => send(200, &format.count(request.body.len().div_ceil(4))),
        Some(Path::Models) => {
            let model = model("scripted");
            send(
                200,
                &json!({"object": "list", "data": [model], "models": [{"name": "models/scripted"}],
                              "has_more": false, "first_id": "scripted", "last_id": "scripted"}),
            )
        }
        Some(Path::Model(id)) => send(200, &model(&id)),
        None => {
            let error = json!({"type": "invalid_request_error", "code": "unknown_url", "message": "no such path"});
            send(404, &json!({ "error": error }))
        }
    }
}

/// A model as the vendors describe one, each in its own fields.
fn model(id: &str) -> Value {
    json!({"id": id, "object": "model", "type": "model", "created": 0, "owned_by": "scripted", "display_name": id,
           "created_at": "2026-01-01T00:00:00Z", "name": format!("models/{id}")})
}

fn answer_turn(
    stream: &TcpStream,
    shared: &Shared,
    format: Format,
    request: Request,
    keep_alive: bool,
) -> io::Result<Next> {
    let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
        let error = json!({"error": {"type": "invalid_request_error", "code": "invalid_json", "message": "no JSON"}});
        return respond(stream, 400, &[], error.to_string().as_bytes(), keep_alive);
    };
    let wanted = format.read(request.path.split('?').next().unwrap_or_default(), &body);
    let chosen = shared.choose(&wanted.input, wanted.result.as_deref());
    let body_bytes = request.body.len();
    let number = shared.saw(Seen {
        number: 0,
        method: request.method,
        path: request.path,
        authorization: request.authorization,
        api_key: request.api_key,
        anthropic_version: request.anthropic_version,
        anthropic_beta: request.anthropic_beta,
        organization: request.organization,
        project: request.project,
        user_agent: request.user_agent,
        turn: chosen.number,
        body_bytes,
        body: String::from_utf8(request.body).ok().and_then(|text| RawValue::from_string(text).ok()),
    });
    let turn = chosen.turn;
    if turn.delay_ms > 0 && shared.stop.wait(Duration::from_millis(turn.delay_ms)) {
        return Ok(Next::Close);
    }
    let id = format!("req_scripted_{number}");
    let mut headers = vec![("X-Request-Id", id.clone()), ("Request-Id", id)];
    if let Some(error) = &turn.error {
        headers.extend(error.retry_after.clone().map(|after| ("Retry-After", after)));
        headers.extend(error.retry_after_ms.map(|ms| ("Retry-After-Ms", ms.to_string())));
        headers.extend(error.should_retry.map(|should| ("X-Should-Retry", should.to_string())));
        let body = format.error_body(error).to_string();
        return respond(stream, error.status, &headers, body.as_bytes(), keep_alive);
    }
    let asked = Asked { number, model: &wanted.model, input: &wanted.input, body_bytes };
    if !wanted.stream {
        let whole = format.whole(&Answer::new(&turn, &asked)).to_string();
        return respond(stream, 200, &headers, whole.as_bytes(), keep_alive);
    }
    let chunking = Chunking {
        content_type: turn.content_type.as_deref().unwrap_or("text/event-stream"),
        pause: Duration::from_millis(turn.chunk_delay_ms),
        split_bytes: turn.split_bytes,
    };
    send_stream(stream, shared, &frames::stream(format, &turn, &asked), &chunking, &headers, keep_alive)
}
