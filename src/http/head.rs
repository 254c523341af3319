//! Request heads: from bytes to a `Head` that has exactly one reading.
//! Owns: the end of a head, its limits, and every framing rule (docs/http-edge.md lists them).
//! May touch: httparse, for tokens only; each rule that decides about a body is written here.
//! Never: guesses. What can be read in two ways is refused and the connection is closed.

use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::codes::{self, Code};
use super::request_id::RequestId;
use super::socket::Peer;
use crate::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEADER_LINES_MAX, HTTP_METHOD_BYTES_MAX, HTTP_TARGET_BYTES_MAX};

const _: () = assert!(HTTP_HEAD_BYTES_MAX <= u16::MAX as usize, "header positions are kept in 16 bits");

/// A request method. Unknown ones reach the service, which answers 405; CONNECT never does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    /// Any other; [`Head::method_name`] has its text.
    Other,
}

impl Method {
    /// Methods are case-sensitive: `get` is [`Method::Other`].
    pub fn parse(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            _ => Self::Other,
        }
    }

    /// The method's name; `OTHER` for [`Method::Other`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Other => "OTHER",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How the request's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyFraming {
    None,
    Length(u64),
    Chunked,
}

/// Why a request is refused by the edge itself. The connection is closed after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Row of the problem table.
    pub code: &'static Code,
    /// The rule that was broken.
    pub detail: &'static str,
    /// The caller's request id, where the head could be read that far.
    pub request_id: Option<RequestId>,
}

impl Refusal {
    pub(super) const fn new(code: &'static Code, detail: &'static str) -> Self {
        Self { code, detail, request_id: None }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}; next: {}", self.code.status, self.code.code, self.detail, self.code.next)
    }
}

impl std::error::Error for Refusal {}

const fn malformed(detail: &'static str) -> Refusal {
    Refusal::new(&codes::MALFORMED_REQUEST, detail)
}

const fn ambiguous(detail: &'static str) -> Refusal {
    Refusal::new(&codes::AMBIGUOUS_FRAMING, detail)
}

/// Position of one header line's name and value in the head's text.
#[derive(Debug, Clone, Copy)]
struct Line {
    name: (u16, u16),
    value: (u16, u16),
}

/// A request head that passed every framing rule. `Debug` shows no header values: they hold tokens.
pub struct Head {
    /// The method.
    pub method: Method,
    /// Path and query as received, not decoded; `*` for `OPTIONS *`.
    pub target: String,
    /// Path as received, not decoded; begins with `/` unless it is `*`.
    pub path: String,
    /// What follows the first `?`, not decoded.
    pub query: Option<String>,
    /// The caller's id or a generated one.
    pub request_id: RequestId,
    /// Who sent it.
    pub peer: Peer,
    /// The announced body length; none without a body and for chunked bodies.
    pub content_length: Option<u64>,
    text: Box<str>,
    lines: Box<[Line]>,
    method_bytes: u16,
    pub(super) framing: BodyFraming,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
}

impl Head {
    /// A head as the edge would build it from these parts, for callers without a socket (tests). A `Host`
    /// is added if `headers` has none.
    ///
    /// # Errors
    /// The same refusals as over a socket.
    pub fn compose(method: &str, target: &str, headers: &[(&str, &str)], peer: Peer) -> Result<Self, Refusal> {
        let mut text = format!("{method} {target} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            text.push_str("host: localhost\r\n");
        }
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let range = Scanner::default().scan(text.as_bytes())?.ok_or(malformed("the head has no end"))?;
        parse(&text.as_bytes()[range], peer, || RequestId::parse("composed").expect("a legal id"))
    }

    /// The first value of a header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.header_lines().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All values of a header, in order.
    pub fn header_values<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.header_lines().filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All header lines, names as received.
    pub fn header_lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines.iter().map(|line| (self.slice(line.name), self.slice(line.value)))
    }

    /// The method's name as received.
    pub fn method_name(&self) -> &str {
        &self.text[..usize::from(self.method_bytes)]
    }

    fn slice(&self, (start, end): (u16, u16)) -> &str {
        &self.text[usize::from(start)..usize::from(end)]
    }

    /// Whether a body follows.
    pub fn has_body(&self) -> bool {
        !matches!(self.framing, BodyFraming::None | BodyFraming::Length(0))
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("request_id", &self.request_id)
            .field("peer", &self.peer)
            .field("framing", &self.framing)
            .finish_non_exhaustive()
    }
}

/// Finds the end of a head in bytes that arrive piece by piece, and refuses at the first byte that no
/// legal head contains, so that a client of another protocol gets its answer at once.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    scanned: usize,
    line_start: usize,
}

impl Scanner {
    /// Looks at `bytes`, which begin with what earlier calls have seen. Returns the head's range, the
    /// empty line included, or None while it is incomplete. One empty line before the head is skipped,
    /// since old clients send one after a body.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Result<Option<Range<usize>>, Refusal> {
        let start = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
        let window = &bytes[..bytes.len().min(start + HTTP_HEAD_BYTES_MAX)];
        self.line_start = self.line_start.max(start);
        let first = self.scanned.max(start);
        let mut previous = if first > start { bytes[first - 1] } else { 0 };
        for (index, &byte) in window.iter().enumerate().skip(first) {
            match byte {
                b'\n' if previous != b'\r' => return Err(malformed("a line ends in a bare line feed")),
                b'\n' if self.line_start + 1 == index => {
                    if self.line_start == start {
                        return Err(malformed("the request line is empty"));
                    }
                    return Ok(Some(start..index + 1));
                }
                b'\n' => self.line_start = index + 1,
                _ if previous == b'\r' => return Err(malformed("a carriage return without a line feed")),
                b'\r' => {}
                b' ' | b'\t' if self.line_start == index && index > start => {
                    return Err(malformed("a header line is folded"));
                }
                b'\t' => {}
                _ if byte < 0x20 || byte == 0x7f => return Err(malformed("a control character in the head")),
                _ => {}
            }
            previous = byte;
        }
        self.scanned = window.len();
        if window.len() == start + HTTP_HEAD_BYTES_MAX {
            return Err(if self.line_start == start {
                Refusal::new(&codes::TARGET_TOO_LONG, "the request line has no end within the head limit")
            } else {
                Refusal::new(&codes::HEAD_TOO_LARGE, "the head has no end within 16 KiB")
            });
        }
        Ok(None)
    }
}

/// What the header lines say about connection, body and identity.
#[derive(Default)]
struct Facts<'a> {
    host: Option<&'a str>,
    hosts: usize,
    content_length: Option<&'a str>,
    content_lengths: usize,
    transfer_encoding: Option<&'a str>,
    transfer_encodings: usize,
    expect: Option<&'a str>,
    expects: usize,
    request_id: Option<RequestId>,
    request_ids: usize,
    close: bool,
    has_tab: bool,
}

impl<'a> Facts<'a> {
    fn note(&mut self, name: &str, value: &'a str, has_tab_around: bool) {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        // nginx takes the tab for a part of the value, others for a blank: two readings of one length.
        self.has_tab |= has_tab_around && (is("host") || is("content-length") || is("transfer-encoding"));
        match name.len() {
            4 if is("host") => (self.host, self.hosts) = (Some(value), self.hosts + 1),
            6 if is("expect") => (self.expect, self.expects) = (Some(value), self.expects + 1),
            10 if is("connection") => {
                self.close |= value.split(',').any(|token| token.trim().eq_ignore_ascii_case("close"));
            }
            12 if is("x-request-id") => {
                (self.request_id, self.request_ids) = (RequestId::parse(value), self.request_ids + 1);
            }
            14 if is("content-length") => {
                (self.content_length, self.content_lengths) = (Some(value), self.content_lengths + 1);
            }
            17 if is("transfer-encoding") => {
                (self.transfer_encoding, self.transfer_encodings) = (Some(value), self.transfer_encodings + 1);
            }
            _ => {}
        }
    }

    fn framing(&self, is_http_10: bool) -> Result<BodyFraming, Refusal> {
        if self.transfer_encodings > 0 && self.content_lengths > 0 {
            return Err(ambiguous("both Transfer-Encoding and Content-Length"));
        }
        if let Some(coding) = self.transfer_encoding {
            if is_http_10 {
                return Err(ambiguous("Transfer-Encoding in an HTTP/1.0 request"));
            }
            if self.transfer_encodings > 1 || !coding.eq_ignore_ascii_case("chunked") {
                return Err(Refusal::new(
                    &codes::TRANSFER_ENCODING_UNSUPPORTED,
                    "the Transfer-Encoding is not exactly `chunked`",
                ));
            }
            return Ok(BodyFraming::Chunked);
        }
        let Some(length) = self.content_length else {
            return Ok(BodyFraming::None);
        };
        if self.content_lengths > 1 {
            return Err(ambiguous("more than one Content-Length"));
        }
        // `u64::from_str` takes a leading plus sign, which proxies read differently.
        if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
            return Err(ambiguous("the Content-Length is not a plain decimal number"));
        }
        match length.parse() {
            Ok(length) => Ok(BodyFraming::Length(length)),
            Err(_) => Err(ambiguous("the Content-Length does not fit 64 bits")),
        }
    }
}

/// Reads one complete head. `next_id` is called only if the caller brought no id of his own.
pub(super) fn parse(bytes: &[u8], peer: Peer, next_id: impl FnOnce() -> RequestId) -> Result<Head, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|_| malformed("the head is not UTF-8"))?;
    let mut storage = [const { MaybeUninit::uninit() }; HTTP_HEADER_LINES_MAX];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut storage) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(malformed("the head does not end where its empty line is")),
        Err(error) => return Err(token_refusal(error, text)),
    }
    let (Some(method_name), Some(raw_target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(malformed("the request line is incomplete"));
    };

    let base = bytes.as_ptr() as usize;
    let position = |part: &[u8]| {
        let start = (part.as_ptr() as usize).wrapping_sub(base);
        let end = start.checked_add(part.len()).filter(|end| *end <= bytes.len());
        end.map(|end| (start as u16, end as u16)).ok_or(malformed("a header line lies outside of the head"))
    };
    let mut facts = Facts::default();
    let mut lines = Vec::with_capacity(request.headers.len());
    for header in request.headers.iter() {
        let line = Line { name: position(header.name.as_bytes())?, value: position(header.value)? };
        let (start, end) = (usize::from(line.value.0), usize::from(line.value.1));
        let before = &bytes[usize::from(line.name.1)..start];
        let after = bytes[end..].iter().take_while(|b| **b != b'\r');
        facts.note(header.name, &text[start..end], before.iter().chain(after).any(|b| *b == b'\t'));
        lines.push(line);
    }
    let caller_id = facts.request_id.filter(|_| facts.request_ids == 1);
    let judged = judge(method_name, raw_target, minor == 0, &facts);
    let (target, framing) = judged.map_err(|refusal| Refusal { request_id: caller_id, ..refusal })?;

    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path.to_string(), Some(query.to_string())),
        None => (target.to_string(), None),
    };
    Ok(Head {
        method: Method::parse(method_name),
        path,
        query,
        request_id: caller_id.unwrap_or_else(next_id),
        peer,
        content_length: if let BodyFraming::Length(length) = framing { Some(length) } else { None },
        method_bytes: method_name.len() as u16,
        framing,
        keep_alive: minor == 1 && !facts.close,
        // RFC 9110 10.1.1: an HTTP/1.0 client cannot be waiting for an interim answer.
        expects_continue: facts.expects > 0 && minor == 1,
        target: target.to_string(),
        lines: lines.into_boxed_slice(),
        text: text.into(),
    })
}

/// The rules on a head as a whole; returns the target in origin form and the body's framing.
fn judge<'a>(
    method: &str,
    raw_target: &'a str,
    is_http_10: bool,
    facts: &Facts<'_>,
) -> Result<(&'a str, BodyFraming), Refusal> {
    if method == "CONNECT" || method.len() > HTTP_METHOD_BYTES_MAX {
        return Err(Refusal::new(&codes::METHOD_UNSUPPORTED, "CONNECT and over-long methods are not served"));
    }
    match facts.hosts {
        0 if is_http_10 => {}
        0 => return Err(malformed("no Host header")),
        1 => {}
        _ => return Err(ambiguous("more than one Host header")),
    }
    if facts.host.is_some_and(|host| !is_authority(host)) {
        return Err(malformed("the Host header is not a host with an optional port"));
    }
    if facts.has_tab {
        return Err(ambiguous("a tab around the value of Host, Content-Length or Transfer-Encoding"));
    }
    let framing = facts.framing(is_http_10)?;
    if facts.expects > 1 || facts.expect.is_some_and(|value| !value.eq_ignore_ascii_case("100-continue")) {
        return Err(Refusal::new(&codes::EXPECTATION_FAILED, "the only expectation known is 100-continue"));
    }
    Ok((origin_form(method, raw_target, facts.host)?, framing))
}

fn origin_form<'a>(method: &str, target: &'a str, host: Option<&str>) -> Result<&'a str, Refusal> {
    if target.len() > HTTP_TARGET_BYTES_MAX {
        return Err(Refusal::new(&codes::TARGET_TOO_LONG, "the request target has more than 8 KiB"));
    }
    if !target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(malformed("the request target has a character that must be percent-encoded"));
    }
    let mut escapes = target.split('%').skip(1).map(str::as_bytes);
    if !escapes.all(|after| matches!(after, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())) {
        return Err(malformed("the request target has a percent sign without two hexadecimal digits"));
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok(target);
    }
    // RFC 9112 3.2.2: the absolute form must be understood. It is, as long as both of its hosts agree.
    let rest = ["http://", "https://"].iter().find_map(|scheme| {
        let (head, rest) = target.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    let Some(rest) = rest else {
        return Err(malformed("the request target is neither a path nor an http URL"));
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() || !is_authority(authority) {
        return Err(malformed("the request target has no legal host"));
    }
    if host.is_some_and(|host| !host.eq_ignore_ascii_case(authority)) {
        return Err(ambiguous("the request target and the Host header name different hosts"));
    }
    match path.as_bytes().first() {
        Some(b'/') => Ok(path),
        None => Ok("/"),
        Some(_) => Err(malformed("the request target has a query but no path")),
    }
}

/// Host with optional port, or nothing. User information, lists and blanks are not part of it.
fn is_authority(text: &str) -> bool {
    !text.starts_with(':')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'%' | b':' | b'[' | b']'))
}

fn token_refusal(error: httparse::Error, text: &str) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::new(&codes::HEAD_TOO_LARGE, "more than 64 header lines"),
        httparse::Error::Version => {
            let line = text.split("\r\n").next().unwrap_or_default();
            let parts: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            match parts[..] {
                [_, _, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]]
                    if major.is_ascii_digit() && minor.is_ascii_digit() =>
                {
                    Refusal::new(&codes::VERSION_UNSUPPORTED, "the version is neither HTTP/1.1 nor HTTP/1.0")
                }
                _ => malformed("the request line is not a method, a target and a version"),
            }
        }
        httparse::Error::HeaderName => malformed("a header name has a character that is not allowed"),
        httparse::Error::HeaderValue => malformed("a header value has a character that is not allowed"),
        httparse::Error::NewLine | httparse::Error::Status => malformed("a line end is missing"),
        httparse::Error::Token => malformed("the request line has a character that is not allowed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Head, Refusal> {
        let range = Scanner::default().scan(text.as_bytes())?.ok_or(malformed("incomplete"))?;
        parse(&text.as_bytes()[range], Peer::Unix, || RequestId::parse("generated").unwrap())
    }

    fn status(text: &str) -> u16 {
        match read(text) {
            Ok(_) => 200,
            Err(refusal) => refusal.code.status,
        }
    }

    #[test]
    fn a_head_is_read_as_sent() {
        let head = read("POST /a%20b?x=1?y HTTP/1.1\r\nHost: h:1\r\nX-A:  v w \t\r\nx-a:\r\nContent-Length: 5\r\n\r\n")
            .unwrap();
        assert_eq!((head.method, head.method_name(), head.target.as_str()), (Method::Post, "POST", "/a%20b?x=1?y"));
        assert_eq!((head.path.as_str(), head.query.as_deref()), ("/a%20b", Some("x=1?y")));
        assert_eq!(head.header_values("X-a").collect::<Vec<_>>(), ["v w", ""]);
        assert_eq!((head.header("host"), head.header("absent")), (Some("h:1"), None));
        assert_eq!((head.content_length, head.framing, head.keep_alive), (Some(5), BodyFraming::Length(5), true));
        assert_eq!(head.request_id.as_str(), "generated");
    }

    #[test]
    fn debug_output_has_no_header_values() {
        let head = read("GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer hush\r\n\r\n").unwrap();
        assert!(!format!("{head:?}").contains("hush"));
    }

    #[test]
    fn every_target_form_has_one_decided_reading() {
        for (line, host, expected) in [
            ("GET /x?y", "h", Ok("/x?y")),
            ("OPTIONS *", "h", Ok("*")),
            ("GET *", "h", Err(400)),
            ("GET http://h/x?y", "h", Ok("/x?y")),
            ("GET HTTPS://H:8", "h:8", Ok("/")),
            ("GET http://other/", "h", Err(400)),
            ("GET http://u@h/", "h", Err(400)),
            ("GET http:///", "", Err(400)),
            ("GET http://h?x", "h", Err(400)),
            ("GET ftp://h/", "h", Err(400)),
            ("GET x", "h", Err(400)),
            ("GET /x#y", "h", Err(400)),
            ("GET /%2", "h", Err(400)),
            ("GET /%g0", "h", Err(400)),
            ("GET /%2e%2E?%", "h", Err(400)),
            ("GET /%2e%2E", "h", Ok("/%2e%2E")),
            ("GET /", ":80", Err(400)),
            ("GET /\u{e9}", "h", Err(400)),
            ("CONNECT h:80", "h:80", Err(501)),
        ] {
            let got = read(&format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            let got = got.map(|head| head.target).map_err(|refusal| refusal.code.status);
            assert_eq!(got.as_deref().map_err(|status| *status), expected, "{line}");
        }
    }

    #[test]
    fn a_callers_request_id_is_kept_even_when_the_request_is_refused() {
        let refusal = read("GET / HTTP/1.1\r\nX-Request-Id: mine\r\n\r\n").unwrap_err();
        assert_eq!(refusal.request_id, RequestId::parse("mine"));
        let twice = read("GET / HTTP/1.1\r\nHost: h\r\nX-Request-Id: a\r\nX-Request-Id: b\r\n\r\n").unwrap();
        assert_eq!(twice.request_id.as_str(), "generated");
    }

    #[test]
    fn limits_are_met_exactly() {
        let with_head_of = |bytes: usize| {
            let frame = "GET / HTTP/1.1\r\nHost: h\r\nx: \r\n\r\n".len();
            format!("GET / HTTP/1.1\r\nHost: h\r\nx: {}\r\n\r\n", "a".repeat(bytes - frame))
        };
        assert_eq!(status(&with_head_of(HTTP_HEAD_BYTES_MAX)), 200);
        assert_eq!(status(&with_head_of(HTTP_HEAD_BYTES_MAX + 1)), 431);
        let with_lines = |lines: usize| format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "x: y\r\n".repeat(lines - 1));
        assert_eq!(status(&with_lines(HTTP_HEADER_LINES_MAX)), 200);
        assert_eq!(status(&with_lines(HTTP_HEADER_LINES_MAX + 1)), 431);
        let with_target = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(bytes - 1));
        assert_eq!(status(&with_target(HTTP_TARGET_BYTES_MAX)), 200);
        assert_eq!(status(&with_target(HTTP_TARGET_BYTES_MAX + 1)), 414);
        assert_eq!(status(&with_target(HTTP_HEAD_BYTES_MAX + 1)), 414);
        let with_method = |bytes: usize| format!("{} / HTTP/1.1\r\nHost: h\r\n\r\n", "M".repeat(bytes));
        assert_eq!(status(&with_method(HTTP_METHOD_BYTES_MAX)), 200);
        assert_eq!(status(&with_method(HTTP_METHOD_BYTES_MAX + 1)), 501);
    }

    #[test]
    fn an_empty_line_before_the_head_is_skipped_once() {
        assert_eq!(status("\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"), 200);
        assert_eq!(status("\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"), 400);
        assert_eq!(status("\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"), 400);
    }
}
