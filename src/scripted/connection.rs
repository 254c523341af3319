//! One connection of the scripted provider: requests in, scripted answers out.
//! Owns: request framing (Content-Length only), and the chunks, pauses and ends of an answer.
//! Never: waits longer than its limits, or outlives the stop of the server.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::limits::{PROVIDER_REQUEST_BYTES_MAX, SCRIPTED_HEAD_BYTES_MAX, SCRIPTED_HEADERS_MAX};

use super::frames::{End, Stream};
use super::requests::{ApiKey, Authorization};
use super::server::Shared;
use super::turns;
use crate::sys;

/// A request as far as it matters here.
pub(super) struct Request {
    pub method: String,
    pub path: String,
    pub authorization: Option<Authorization>,
    pub api_key: Option<ApiKey>,
    pub anthropic_version: Option<String>,
    pub anthropic_beta: Option<String>,
    pub organization: Option<String>,
    pub project: Option<String>,
    pub user_agent: Option<String>,
    keep_alive: bool,
    pub body: Vec<u8>,
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
pub(super) enum Next {
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
        match turns::answer(stream, shared, request, keep_alive) {
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
        api_key: ["x-api-key", "x-goog-api-key"]
            .into_iter()
            .find_map(|name| find(name).map(|value| ApiKey::of(name, value))),
        anthropic_version: text("anthropic-version"),
        anthropic_beta: text("anthropic-beta"),
        organization: text("openai-organization"),
        project: text("openai-project"),
        user_agent: text("user-agent"),
        keep_alive: head.version == Some(1) && find("connection").is_none_or(|it| !it.eq_ignore_ascii_case("close")),
        body: Vec::new(),
    };
    let wants_continue = find("expect").is_some_and(|it| it.eq_ignore_ascii_case("100-continue"));
    Ok(Some((request, head_bytes, body_bytes, wants_continue)))
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

pub(super) fn respond(
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

/// How a stream is cut into HTTP chunks.
pub(super) struct Chunking<'a> {
    pub content_type: &'a str,
    /// Pause before each delayed frame.
    pub pause: Duration,
    /// Bytes of one chunk and one write; frames without a pause between them share both when `None`.
    pub split_bytes: Option<usize>,
}

fn push_chunk(pending: &mut Vec<u8>, bytes: &[u8]) {
    if !bytes.is_empty() {
        pending.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
        pending.extend_from_slice(bytes);
        pending.extend_from_slice(b"\r\n");
    }
}

/// Sends the frames as HTTP chunks.
pub(super) fn send_stream(
    mut stream: &TcpStream,
    shared: &Shared,
    answer: &Stream,
    chunking: &Chunking<'_>,
    headers: &[(&str, String)],
    keep_alive: bool,
) -> io::Result<Next> {
    let keep_alive = keep_alive && answer.end == End::Clean;
    let mut pending = head(200, chunking.content_type, headers, None, keep_alive).into_bytes();
    let mut chunk: Vec<u8> = Vec::new();
    let mut flush = |pending: &mut Vec<u8>, chunk: &mut Vec<u8>| -> io::Result<()> {
        match chunking.split_bytes {
            None => push_chunk(pending, chunk),
            Some(bytes) => {
                for piece in chunk.chunks(bytes) {
                    push_chunk(pending, piece);
                    stream.write_all(pending)?;
                    pending.clear();
                }
            }
        }
        chunk.clear();
        stream.write_all(pending)?;
        pending.clear();
        Ok(())
    };
    for frame in &answer.frames {
        if frame.delayed && !chunking.pause.is_zero() {
            flush(&mut pending, &mut chunk)?;
            if shared.stop.wait(chunking.pause) {
                return Ok(Next::Close);
            }
        }
        chunk.extend_from_slice(&frame.bytes);
    }
    if answer.end == End::Reset {
        // Announced longer than it is: the peer waits for the rest and is told that the connection broke.
        flush(&mut pending, &mut chunk)?;
        stream.write_all(b"ffff\r\ndata: {\"cut")?;
        sys::reset_on_close(stream)?;
        return Ok(Next::Close);
    }
    if answer.end == End::Clean && chunking.split_bytes.is_none() {
        push_chunk(&mut pending, &chunk);
        pending.extend_from_slice(b"0\r\n\r\n");
        stream.write_all(&pending)?;
        return Ok(Next::Keep);
    }
    flush(&mut pending, &mut chunk)?;
    match answer.end {
        End::Clean => stream.write_all(b"0\r\n\r\n").map(|()| Next::Keep),
        End::Disconnect | End::Reset => Ok(Next::Close),
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
