//! Responses and their bytes on the wire.
//! Owns: the response head (status line, length, date, request id, connection) and its sanitising.
//! May touch: nothing but memory.
//! Never: writes to a socket.

use std::borrow::Cow;

use serde::Serialize;

use super::date;
use super::request_id::RequestId;

/// An answer as a handler builds it. Length, date, request id and connection headers are the edge's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// HTTP status, 200 to 599.
    pub status: u16,
    /// Content type; empty for an answer without a body.
    pub content_type: Cow<'static, str>,
    /// Further headers; names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The body. Not sent for HEAD, 204 and 304.
    pub body: Vec<u8>,
    /// Close the connection after this answer.
    pub close: bool,
    /// The body is a problem document that still lacks its request id.
    needs_request_id: bool,
}

impl Response {
    /// An answer of any kind.
    pub fn new(status: u16, content_type: impl Into<Cow<'static, str>>, body: Vec<u8>) -> Self {
        let content_type = content_type.into();
        Self { status, content_type, headers: Vec::new(), body, close: false, needs_request_id: false }
    }

    /// `value` as JSON. A value that cannot be serialised (a map with keys that are no strings) becomes 500.
    pub fn json<T: Serialize + ?Sized>(status: u16, value: &T) -> Self {
        // Room for an ordinary answer, so that it is not moved as it grows.
        let mut body = Vec::with_capacity(JSON_BYTES_ORDINARY);
        match serde_json::to_writer(&mut body, value) {
            Ok(()) => Self::new(status, "application/json", body),
            Err(error) => {
                let detail = format!("the answer cannot be written as JSON: {error}");
                super::problem::Problem::new(&super::codes::INTERNAL_ERROR, detail).into()
            }
        }
    }

    /// Plain text.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", text.into().into_bytes())
    }

    /// An answer without a body, as 204.
    pub fn empty(status: u16) -> Self {
        Self::new(status, "", Vec::new())
    }

    /// Adds a header; `name` in lower case. Control characters in `value` are sent as blanks.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds several headers.
    #[must_use]
    pub fn with_headers(mut self, headers: Vec<(&'static str, String)>) -> Self {
        if self.headers.is_empty() {
            self.headers = headers;
        } else {
            self.headers.extend(headers);
        }
        self
    }

    /// Closes the connection after this answer.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// A problem document. With `needs_request_id` the id is appended when the answer is sent.
    pub(super) fn problem_document(status: u16, body: Vec<u8>, needs_request_id: bool) -> Self {
        Self { needs_request_id, ..Self::new(status, super::problem::CONTENT_TYPE, body) }
    }

    /// Completes a problem document with the id of the request it answers.
    pub(super) fn fill_request_id(&mut self, id: &RequestId) {
        if self.needs_request_id && self.body.last() == Some(&b'}') {
            self.body.pop();
            self.body.extend_from_slice(b",\"request_id\":\"");
            self.body.extend_from_slice(id.as_str().as_bytes());
            self.body.extend_from_slice(b"\"}");
        }
        self.needs_request_id = false;
    }

    /// Whether this status never has a body.
    fn is_bodiless(&self) -> bool {
        matches!(self.status, 204 | 304)
    }

    /// Appends the response head for a body of `framing`, up to and including the empty line.
    pub(super) fn write_head(&self, target: &mut Vec<u8>, framing: Framing, id: &RequestId, close: bool) {
        target.extend_from_slice(b"HTTP/1.1 ");
        target.extend_from_slice(decimal(u64::from(self.status), &mut [0; 20]));
        target.push(b' ');
        target.extend_from_slice(reason(self.status).as_bytes());
        if !self.content_type.is_empty() {
            line(target, "content-type", &self.content_type);
        }
        if framing == Framing::Length && !self.is_bodiless() {
            target.extend_from_slice(b"\r\ncontent-length: ");
            target.extend_from_slice(decimal(self.body.len() as u64, &mut [0; 20]));
        }
        target.extend_from_slice(b"\r\ndate: ");
        target.extend_from_slice(&date::now());
        target.extend_from_slice(b"\r\nx-request-id: ");
        target.extend_from_slice(id.as_str().as_bytes());
        for (name, value) in &self.headers {
            line(target, name, value);
        }
        if close {
            target.extend_from_slice(b"\r\nconnection: close");
        }
        target.extend_from_slice(b"\r\n\r\n");
    }

    /// The bytes that follow the head: none for HEAD, 204 and 304.
    pub(super) fn take_body(&mut self, head_only: bool) -> Vec<u8> {
        if head_only || self.is_bodiless() { Vec::new() } else { std::mem::take(&mut self.body) }
    }
}

/// Most answers are shorter.
const JSON_BYTES_ORDINARY: usize = 768;

/// How the client learns where the body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// By `Content-Length`.
    Length,
    /// By the end of the connection.
    Close,
}

fn line(target: &mut Vec<u8>, name: &str, value: &str) {
    target.extend_from_slice(b"\r\n");
    target.extend_from_slice(name.as_bytes());
    target.extend_from_slice(b": ");
    // A line break in a value would let whoever chose it write headers and bodies of his own.
    target.extend(value.bytes().map(|b| if b.is_ascii_control() { b' ' } else { b }));
}

fn decimal(mut value: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return &digits[start..];
        }
    }
}

/// The reason phrase of a status.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        412 => "Precondition Failed",
        413 => "Payload Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Entity",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head_of(response: &Response, framing: Framing, close: bool) -> String {
        let mut bytes = Vec::new();
        response.write_head(&mut bytes, framing, &RequestId::parse("id-1").unwrap(), close);
        let text = String::from_utf8(bytes).unwrap();
        let date_at = text.find("\r\ndate: ").unwrap() + 8;
        text.replace(&text[date_at..date_at + date::DATE_BYTES], "D")
    }

    #[test]
    fn a_head_says_length_date_request_id_and_connection() {
        let response = Response::json(202, &[1, 2]).with_header("x-a", "b");
        assert_eq!(
            head_of(&response, Framing::Length, true),
            "HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: 5\r\ndate: D\r\n\
             x-request-id: id-1\r\nx-a: b\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(
            head_of(&Response::empty(204), Framing::Length, false),
            "HTTP/1.1 204 No Content\r\ndate: D\r\nx-request-id: id-1\r\n\r\n"
        );
        assert_eq!(
            head_of(&Response::new(200, "text/event-stream", Vec::new()), Framing::Close, true),
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ndate: D\r\nx-request-id: id-1\r\n\
             connection: close\r\n\r\n"
        );
    }

    #[test]
    fn a_header_value_cannot_break_out_of_its_line() {
        let response = Response::empty(204).with_header("x-a", "1\r\nset-cookie: x\0");
        assert!(head_of(&response, Framing::Length, false).contains("\r\nx-a: 1  set-cookie: x \r\n"));
    }

    #[test]
    fn the_body_is_left_out_where_the_status_or_method_has_none() {
        for (mut response, head_only, expected) in [
            (Response::text(200, "ok"), false, "ok"),
            (Response::text(200, "ok"), true, ""),
            (Response::text(204, "ok"), false, ""),
            (Response::text(304, "ok"), false, ""),
        ] {
            assert_eq!(response.take_body(head_only), expected.as_bytes());
        }
    }

    #[test]
    fn decimals_are_written_in_full() {
        for value in [0, 7, 10, 65_535, u64::MAX] {
            assert_eq!(decimal(value, &mut [0; 20]), value.to_string().as_bytes());
        }
    }
}
