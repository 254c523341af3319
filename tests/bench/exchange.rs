//! The protocols that the load generator speaks: HTTP/1.1 to the daemon, RESP to Redis.
//! Owns: request templates, in which only digits are changed per request, and reply lengths.

use crate::load::Exchange;

/// Sessions over which submissions are spread, so that no session's queue is met.
pub const SESSIONS: u64 = 1_000;
/// Bytes of the text in each submission; the journal's record is larger.
pub const TEXT_BYTES: usize = 320;
/// Digits of every number in a template.
const DIGITS: usize = 12;

/// A request in which some fixed-width numbers change.
struct Template {
    bytes: Vec<u8>,
    holes: Vec<(usize, Hole)>,
}

#[derive(Clone, Copy)]
enum Hole {
    Session,
    Request,
}

impl Template {
    /// `{session}` and `{request}` become numbers of 12 digits.
    fn new(head: &str, body: &str) -> Self {
        let number = "0".repeat(DIGITS);
        let length = body.replace("{session}", &number).replace("{request}", &number).len();
        let text = format!("{head}Content-Length: {length}\r\n\r\n{body}");
        let mut template = Self { bytes: Vec::new(), holes: Vec::new() };
        let mut rest = text.as_str();
        loop {
            let next = [("{session}", Hole::Session), ("{request}", Hole::Request)]
                .into_iter()
                .filter_map(|(mark, hole)| rest.find(mark).map(|at| (at, mark, hole)))
                .min_by_key(|(at, ..)| *at);
            let Some((at, mark, hole)) = next else { break };
            template.bytes.extend_from_slice(&rest.as_bytes()[..at]);
            template.holes.push((template.bytes.len(), hole));
            template.bytes.extend_from_slice(number.as_bytes());
            rest = &rest[at + mark.len()..];
        }
        template.bytes.extend_from_slice(rest.as_bytes());
        template
    }

    fn fill(&self, session: u64, request: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        for (at, hole) in &self.holes {
            let mut number = match hole {
                Hole::Session => session,
                Hole::Request => request,
            };
            for digit in out[start + at..start + at + DIGITS].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        }
    }
}

/// HTTP requests to the daemon, each answered with the one expected status.
pub struct Http {
    template: Template,
    status: &'static [u8; 3],
    next: u64,
}

impl Http {
    /// `POST /v1/sessions` for the sessions 0, 1, 2, …
    pub fn create_session(token: &str) -> Self {
        Self::post("/v1/sessions", token, "", r#"{"session_id":"bench-{request}"}"#, b"201")
    }

    /// The submission of an input, each with its own Idempotency-Key, to the sessions in turn.
    pub fn submit_run(token: &str) -> Self {
        let text = "All work and no play makes a durable day. ".repeat(TEXT_BYTES / 42 + 1);
        let body = format!(r#"{{"content":"{{request}} {}"}}"#, &text[..TEXT_BYTES]);
        let key = "Idempotency-Key: bench-{request}\r\n";
        Self::post("/v1/sessions/bench-{session}/runs", token, key, &body, b"202")
    }

    /// `POST /v1/sessions/{id}/end` for the sessions 0, 1, 2, …
    pub fn end_session(token: &str) -> Self {
        Self::post("/v1/sessions/bench-{request}/end", token, "", "{}", b"200")
    }

    /// `GET path`.
    pub fn get(path: &str, token: &str) -> Self {
        let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n");
        let mut template = Template::new(&head, "");
        template.bytes = format!("{head}\r\n").into_bytes();
        Self { template, status: b"200", next: 0 }
    }

    fn post(path: &str, token: &str, more: &str, body: &str, status: &'static [u8; 3]) -> Self {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\n{more}"
        );
        Self { template: Template::new(&head, body), status, next: 0 }
    }

    /// Starts numbering at `next`, so that a second load sends new requests.
    pub fn starting_at(mut self, next: u64) -> Self {
        self.next = next;
        self
    }
}

impl Exchange for Http {
    fn request(&mut self, _connection: usize, out: &mut Vec<u8>) {
        self.template.fill(self.next % SESSIONS, self.next, out);
        self.next += 1;
    }

    fn reply(&mut self, bytes: &[u8]) -> Result<Option<usize>, String> {
        let Some(length) = http_reply_length(bytes)? else { return Ok(None) };
        if &bytes[9..12] != self.status {
            return Err(format!("refused: {}", String::from_utf8_lossy(&bytes[..length.min(2_000)])));
        }
        Ok(Some(length))
    }
}

/// The length of the HTTP/1.1 reply at the start of `bytes`, or `None` while it is incomplete.
///
/// # Errors
/// No reply with a Content-Length stands there.
pub fn http_reply_length(bytes: &[u8]) -> Result<Option<usize>, String> {
    let mut at = 0;
    let mut body_length = None;
    while let Some(line_length) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        let line = &bytes[at..at + line_length];
        at += line_length + 1;
        if line == b"\r" {
            let body_length: usize = body_length.ok_or("a reply without Content-Length")?;
            return Ok((bytes.len() >= at + body_length).then_some(at + body_length));
        }
        const NAME: &[u8] = b"content-length:";
        if line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME) {
            let text = std::str::from_utf8(&line[NAME.len()..]).map_err(|error| error.to_string())?;
            body_length = Some(text.trim().parse().map_err(|_| format!("Content-Length {text}"))?);
        }
    }
    if at == 0 && bytes.len() > 64 * 1024 { Err("no HTTP reply".to_string()) } else { Ok(None) }
}

/// `SET key value` to Redis, the value as large as our text. A new key each time, since each submission to the
/// daemon is a new record too; or one key a connection, which costs Redis less.
pub struct RedisSet {
    value: Vec<u8>,
    new_keys: bool,
    next: u64,
}

impl RedisSet {
    /// The exchange; `new_keys` as above.
    pub fn new(new_keys: bool) -> Self {
        Self { value: vec![b'x'; TEXT_BYTES], new_keys, next: 0 }
    }
}

impl Exchange for RedisSet {
    fn request(&mut self, connection: usize, out: &mut Vec<u8>) {
        self.next += 1;
        let number = if self.new_keys { self.next } else { connection as u64 };
        let key = format!("bench:{number:012}");
        out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n");
        out.extend_from_slice(format!("${}\r\n{key}\r\n${}\r\n", key.len(), self.value.len()).as_bytes());
        out.extend_from_slice(&self.value);
        out.extend_from_slice(b"\r\n");
    }

    fn reply(&mut self, bytes: &[u8]) -> Result<Option<usize>, String> {
        match bytes {
            b"+OK\r\n" => Ok(Some(5)),
            _ if b"+OK\r\n".starts_with(bytes) => Ok(None),
            _ => Err(format!("redis: {}", String::from_utf8_lossy(bytes))),
        }
    }
}
