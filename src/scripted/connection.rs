//! One connection of the scripted provider: requests in, scripted answers out.
//! Owns: request framing (Content-Length only), routing by path, and the pauses and faults of an answer.
//! Never: waits longer than its limits, or outlives the stop of the server.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use serde_json::value::RawValue;

use crate::limits::{PROVIDER_REQUEST_BYTES_MAX, SCRIPTED_HEAD_BYTES_MAX, SCRIPTED_HEADERS_MAX};

use super::frames::{self, Asked, End, Stream};
use super::requests::{Authorization, Seen};
use super::script::HttpError;
use super::server::Shared;

/// A request as far as it matters here.
struct Request {
    method: String,
    path: String,
    authorization: Option<Authorization>,
    organization: Option<String>,
    project: Option<String>,
    user_agent: Option<String>,
    keep_alive: bool,
    body: Vec<u8>,
}

/// Why a request cannot be read; the status says it all.
enum Unreadable {
    /// The peer closed, fell silent, or the connection broke.
    Gone,
    /// It is answered with this status and reason.
    Refused(u16, &'static str),
}

/// Whether the connection can carry another request.
#[derive(PartialEq, Eq)]
enum Next {
    Keep,
    Close,
}

/// Serves `stream` until either side closes it.
pub(super) fn serve(stream: &TcpStream, shared: &Shared) {
    let mut buffer = Vec::new();
    loop {
        let request = match read_request(stream, &mut buffer) {
            Ok(request) => request,
            Err(Unreadable::Gone) => return,
            Err(Unreadable::Refused(status, reason)) => {
                let error = json!({"error": {"type": "invalid_request_error", "code": null, "message": reason}});
                // The peer may be gone already; either way the connection ends here.
                let _peer_may_be_gone = respond(stream, status, &[], &error.to_string().into_bytes(), false);
                return;
            }
        };
        // A kept connection holds a thread; when others wait for one it is closed instead.
        let keep_alive = request.keep_alive && !shared.others_wait() && !shared.stop.is_cancelled();
        match answer(stream, shared, request, keep_alive) {
            Ok(Next::Keep) if keep_alive => {}
            _ => return,
        }
    }
}

fn read_more(mut stream: &TcpStream, buffer: &mut Vec<u8>) -> Result<(), Unreadable> {
    let mut chunk = [0u8; 16 * 1024];
    match stream.read(&mut chunk) {
        Ok(0) | Err(_) => Err(Unreadable::Gone),
        Ok(count) => {
            buffer.extend_from_slice(&chunk[..count]);
            Ok(())
        }
    }
}

fn read_request(stream: &TcpStream, buffer: &mut Vec<u8>) -> Result<Request, Unreadable> {
    let (mut request, head_bytes, body_bytes, wants_continue) = loop {
        if let Some(parsed) = parse_head(buffer)? {
            break parsed;
        }
        if buffer.len() > SCRIPTED_HEAD_BYTES_MAX {
            return Err(Unreadable::Refused(431, "the request head is too long"));
        }
        read_more(stream, buffer)?;
    };
    if body_bytes > PROVIDER_REQUEST_BYTES_MAX {
        return Err(Unreadable::Refused(413, "the request body is too long"));
    }
    if wants_continue && buffer.len() < head_bytes + body_bytes {
        (&*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n").map_err(|_| Unreadable::Gone)?;
    }
    while buffer.len() < head_bytes + body_bytes {
        read_more(stream, buffer)?;
    }
    request.body = buffer[head_bytes..head_bytes + body_bytes].to_vec();
    buffer.drain(..head_bytes + body_bytes);
    Ok(request)
}

/// The head, its length, the body's length, and whether the client waits for `100 Continue`.
fn parse_head(buffer: &[u8]) -> Result<Option<(Request, usize, usize, bool)>, Unreadable> {
    let mut headers = [httparse::EMPTY_HEADER; SCRIPTED_HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let head_bytes = match head.parse(buffer) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Unreadable::Refused(400, "the request head is malformed")),
    };
    let find = |name: &str| {
        let header = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()
    };
    if find("transfer-encoding").is_some() {
        return Err(Unreadable::Refused(411, "send the body with a Content-Length"));
    }
    let body_bytes = match find("content-length").map(str::parse::<usize>) {
        None => 0,
        Some(Ok(bytes)) => bytes,
        Some(Err(_)) => return Err(Unreadable::Refused(400, "Content-Length is no number")),
    };
    let text = |name| find(name).map(str::to_string);
    let request = Request {
        method: head.method.unwrap_or_default().to_string(),
        path: head.path.unwrap_or_default().to_string(),
        authorization: find("authorization").map(Authorization::of),
        organization: text("openai-organization"),
        project: text("openai-project"),
        user_agent: text("user-agent"),
        keep_alive: head.version == Some(1) && find("connection").is_none_or(|it| !it.eq_ignore_ascii_case("close")),
        body: Vec::new(),
    };
    let wants_continue = find("expect").is_some_and(|it| it.eq_ignore_ascii_case("100-continue"));
    Ok(Some((request, head_bytes, body_bytes, wants_continue)))
}

fn answer(stream: &TcpStream, shared: &Shared, request: Request, keep_alive: bool) -> io::Result<Next> {
    let path = request.path.split('?').next().unwrap_or_default();
    match (request.method.as_str(), path) {
        ("GET", "/_scripted/requests") => respond(stream, 200, &[], &shared.requests_json(), keep_alive),
        ("GET", path) if path.ends_with("/models") => {
            let models = json!({"object": "list", "data": [{"id": "scripted", "object": "model"}]});
            respond(stream, 200, &[], models.to_string().as_bytes(), keep_alive)
        }
        ("POST", path) if path.ends_with("/responses") => answer_turn(stream, shared, request, keep_alive),
        _ => {
            let error =
                json!({"error": {"type": "invalid_request_error", "code": "unknown_url", "message": "no such path"}});
            respond(stream, 404, &[], error.to_string().as_bytes(), keep_alive)
        }
    }
}

#[derive(Deserialize, Default)]
struct Wanted {
    #[serde(default)]
    model: String,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    input: Value,
}

fn answer_turn(stream: &TcpStream, shared: &Shared, request: Request, keep_alive: bool) -> io::Result<Next> {
    let Ok(wanted) = serde_json::from_slice::<Wanted>(&request.body) else {
        let error = json!({"error": {"type": "invalid_request_error", "code": "invalid_json", "message": "no JSON"}});
        return respond(stream, 400, &[], error.to_string().as_bytes(), keep_alive);
    };
    let input = last_user_input(&wanted.input);
    let chosen = shared.choose(&input);
    let body_bytes = request.body.len();
    let number = shared.saw(Seen {
        number: 0,
        method: request.method,
        path: request.path,
        authorization: request.authorization,
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
    if let Some(error) = &turn.error {
        return respond_error(stream, error, number, keep_alive);
    }
    let asked = Asked { number, model: &wanted.model, input: &input, body_bytes };
    if !wanted.stream {
        return respond(
            stream,
            200,
            &[("X-Request-Id", request_id(number))],
            &frames::whole(&turn, &asked),
            keep_alive,
        );
    }
    let pause = Duration::from_millis(turn.chunk_delay_ms);
    send_stream(stream, shared, &frames::stream(&turn, &asked), pause, number, keep_alive)
}

/// Text of the last item with role `user`.
fn last_user_input(input: &Value) -> String {
    if let Some(text) = input.as_str() {
        return text.to_string();
    }
    let items = input.as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(item) = items.iter().rev().find(|item| item["role"] == "user") else { return String::new() };
    match &item["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    }
}

fn request_id(number: u64) -> String {
    format!("req_scripted_{number}")
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        411 => "Length Required",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Scripted",
    }
}

fn head(
    status: u16,
    content_type: &str,
    headers: &[(&str, String)],
    length: Option<usize>,
    keep_alive: bool,
) -> String {
    let mut head = format!("HTTP/1.1 {status} {}\r\nContent-Type: {content_type}\r\n", reason(status));
    match length {
        Some(bytes) => head.push_str(&format!("Content-Length: {bytes}\r\n")),
        None => head.push_str("Transfer-Encoding: chunked\r\nCache-Control: no-store\r\n"),
    }
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    head.push_str(if keep_alive { "\r\n" } else { "Connection: close\r\n\r\n" });
    head
}

fn respond(
    mut stream: &TcpStream,
    status: u16,
    headers: &[(&str, String)],
    body: &[u8],
    keep_alive: bool,
) -> io::Result<Next> {
    let mut bytes = head(status, "application/json", headers, Some(body.len()), keep_alive).into_bytes();
    bytes.extend_from_slice(body);
    stream.write_all(&bytes)?;
    Ok(Next::Keep)
}

fn respond_error(stream: &TcpStream, error: &HttpError, number: u64, keep_alive: bool) -> io::Result<Next> {
    let mut headers = vec![("X-Request-Id", request_id(number))];
    if let Some(after) = &error.retry_after {
        headers.push(("Retry-After", after.clone()));
    }
    if let Some(ms) = error.retry_after_ms {
        headers.push(("Retry-After-Ms", ms.to_string()));
    }
    let message = error.message.as_deref().unwrap_or("scripted error");
    let body = json!({"error": {"message": message, "type": error.kind, "param": error.param, "code": error.code}});
    respond(stream, error.status, &headers, body.to_string().as_bytes(), keep_alive)
}

/// Sends the frames as HTTP chunks. Frames without a pause between them share one chunk and one write.
fn send_stream(
    mut stream: &TcpStream,
    shared: &Shared,
    answer: &Stream,
    pause: Duration,
    number: u64,
    keep_alive: bool,
) -> io::Result<Next> {
    let headers = [("X-Request-Id", request_id(number))];
    let keep_alive = keep_alive && answer.end == End::Clean;
    let mut pending = head(200, "text/event-stream", &headers, None, keep_alive).into_bytes();
    let mut chunk: Vec<u8> = Vec::new();
    let close_chunk = |pending: &mut Vec<u8>, chunk: &mut Vec<u8>| {
        if !chunk.is_empty() {
            pending.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            pending.append(chunk);
            pending.extend_from_slice(b"\r\n");
        }
    };
    for frame in &answer.frames {
        if frame.delayed && !pause.is_zero() {
            close_chunk(&mut pending, &mut chunk);
            stream.write_all(&pending)?;
            pending.clear();
            if shared.stop.wait(pause) {
                return Ok(Next::Close);
            }
        }
        chunk.extend_from_slice(&frame.bytes);
    }
    close_chunk(&mut pending, &mut chunk);
    if answer.end == End::Clean {
        pending.extend_from_slice(b"0\r\n\r\n");
    }
    stream.write_all(&pending)?;
    match answer.end {
        End::Clean => Ok(Next::Keep),
        End::Disconnect => Ok(Next::Close),
        End::Hang => {
            wait_for_close(stream)?;
            Ok(Next::Close)
        }
    }
}

/// Blocks until the peer closes or the server stops; what the peer sends meanwhile is ignored.
fn wait_for_close(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(None)?;
    let mut ignored = [0u8; 1024];
    while stream.read(&mut ignored)? > 0 {}
    Ok(())
}
