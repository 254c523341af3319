//! What holds for every row of a route table, checked against a running daemon or an in-process front.
//! Owns: a minimal HTTP client, and one check for each promise that all routes share.
//! Never: follows a redirect, retries, or knows what a route does.
#![allow(dead_code)] // Each test binary uses its part.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use kheish_daemon::api::front::Front;
use kheish_daemon::api::openapi::problems_of;
use kheish_daemon::api::query::QueryKind;
use kheish_daemon::api::route::{Access, Route};
use kheish_daemon::http::problem::codes;
use kheish_daemon::http::{Admission, Code, Head, Method, Peer, Response, Service};
use kheish_daemon::limits::{BODY_BYTES_MAX, JSON_DEPTH_MAX};
use serde_json::Value;

/// How long a test waits for bytes that must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// One answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_string()
    }
}

/// A connection that is kept.
pub struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the daemon accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("nodelay can be set");
        Self { stream, unread: Vec::new() }
    }

    /// Sends bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) {
        // The daemon may have answered and closed before everything is sent.
        drop(self.stream.write_all(bytes));
    }

    /// Reads one answer with a Content-Length; `head_only` for answers to HEAD.
    pub fn read(&mut self, head_only: bool) -> Answer {
        let head_end = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more(), "the connection ended in a head: {:?}", String::from_utf8_lossy(&self.unread));
        };
        let head: Vec<u8> = self.unread.drain(..head_end).collect();
        let head = String::from_utf8(head).expect("a head is text");
        let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(':').expect("a header line has a colon"))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_string()))
            .collect();
        let length =
            headers.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, value)| value.parse().unwrap());
        let length: usize = if head_only { 0 } else { length };
        while self.unread.len() < length {
            assert!(self.more(), "the connection ended in a body: {headers:?}");
        }
        let body = self.unread.drain(..length).collect();
        Answer { status: status.expect("a status line"), headers, body }
    }

    /// Reads until `wanted` has come; used on streams.
    pub fn read_until(&mut self, wanted: &[u8]) -> String {
        while find(&self.unread, wanted).is_none() {
            assert!(self.more(), "the stream ended before {:?}", String::from_utf8_lossy(wanted));
        }
        let end = find(&self.unread, wanted).expect("found above") + wanted.len();
        String::from_utf8(self.unread.drain(..end).collect()).expect("text")
    }

    fn more(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        let count = self.stream.read(&mut buffer).unwrap_or_else(|error| panic!("no answer in time: {error}"));
        self.unread.extend_from_slice(&buffer[..count]);
        count > 0
    }

    /// One request and its answer.
    pub fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Answer {
        let mut head = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n");
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").expect("memory");
        }
        if let Some(body) = body {
            write!(head, "content-length: {}\r\n", body.len()).expect("memory");
        }
        let mut bytes = format!("{head}\r\n").into_bytes();
        bytes.extend_from_slice(body.unwrap_or_default());
        self.write(&bytes);
        self.read(method == "HEAD")
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// One request on a connection of its own.
pub fn call(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Answer {
    Client::connect(address).request(method, target, headers, body)
}

/// Who asks, and about what.
pub struct Target<'a> {
    /// Where the daemon listens.
    pub address: SocketAddr,
    /// A token of the admin role.
    pub admin: &'a str,
    /// A token of the read-only role.
    pub read_only: &'a str,
}

/// Checks an error answer: its form, and that `route` documents its code.
fn assert_documented<A>(route: &Route<A>, what: &str, answer: &Answer, wanted: &[&'static Code]) {
    let what = format!("{} {}: {what}", route.method, route.path);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}: {answer:?}");
    let problem = answer.json();
    let code = problem["code"].as_str().unwrap_or_else(|| panic!("{what}: {problem}"));
    let row = codes::ALL.iter().find(|row| row.code == code).unwrap_or_else(|| panic!("{what}: {code} is in no table"));
    assert!(wanted.iter().any(|row| row.code == code), "{what}: got {} {problem}", answer.status);
    assert_eq!((answer.status, problem["status"].as_u64()), (row.status, Some(u64::from(row.status))), "{what}");
    assert_eq!(problem["type"], format!("urn:kheish:problem:{code}"), "{what}");
    assert_eq!(problem["domain"].as_str(), row.domain, "{what}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 5), "{what}: {problem}");
    assert_eq!(problem["request_id"].as_str(), answer.header("x-request-id"), "{what}");
    assert!(problems_of(route).iter().any(|row| row.code == code), "{what}: {code} is not documented for the route");
}

/// `route`'s path with its variable segments filled in.
fn fill<A>(route: &Route<A>, value: impl Fn(&str) -> String) -> String {
    route.path_params().fold(route.path.to_string(), |path, name| path.replace(&format!("{{{name}}}"), &value(name)))
}

fn unknown_id(name: &str) -> String {
    if name == "run_id" { "run-4294967295".to_string() } else { format!("no-such-{}", name.replace('_', "-")) }
}

/// A legal value for a parameter of this kind.
fn good_value(kind: QueryKind) -> String {
    match kind {
        QueryKind::Text(_) => "x".to_string(),
        QueryKind::Unsigned | QueryKind::Limit | QueryKind::EventCursor => "7".to_string(),
        QueryKind::Flag => "true".to_string(),
        QueryKind::OneOf(words) => words[0].to_string(),
        QueryKind::Session => "demo".to_string(),
        QueryKind::Run => "run-1".to_string(),
        QueryKind::Order => "asc".to_string(),
        QueryKind::PageCursor => kheish_daemon::api::paging::encode_cursor("00000000000000000001:run-1"),
    }
}

/// A wrong value for a parameter of this kind.
fn bad_value(kind: QueryKind) -> String {
    match kind {
        QueryKind::Text(bytes_max) => "x".repeat(bytes_max + 1),
        QueryKind::Session => "a%2Fb".to_string(),
        QueryKind::Limit => "0".to_string(),
        _ => "%21".to_string(),
    }
}

/// For every route, over HTTP: what must be refused is refused with a documented code, before and instead of
/// any effect. `state` is compared around each call.
pub fn check_over_http<A>(routes: &[Route<A>], target: &Target<'_>, state: &mut dyn FnMut() -> String) {
    let bearer = format!("Bearer {}", target.admin);
    let admin = [("authorization", bearer.as_str())];
    let json = [admin[0], ("content-type", "application/json")];
    let before = state();
    for route in routes {
        let path = fill(route, unknown_id);
        let method = route.method.as_str();
        let mut check =
            |what: &str, headers: &[(&str, &str)], target_path: &str, body: Option<&[u8]>, wanted: &[&'static Code]| {
                let answer = call(target.address, method, target_path, headers, body);
                // Whoever is not known to a connector is refused before anything else of the request is looked at.
                let unknown = (route.access == Access::Connector).then_some(&codes::CONNECTOR_UNKNOWN);
                let wanted: Vec<&'static Code> = wanted.iter().copied().chain(unknown).collect();
                assert_documented(route, what, &answer, &wanted);
                assert_eq!(state(), before, "{method} {}: {what} changed something", route.path);
            };
        if !matches!(route.access, Access::Public | Access::Connector) {
            check("no token", &[], &path, None, &[&codes::MISSING_TOKEN, &codes::RATE_LIMITED]);
            check(
                "no token, with a body",
                &json[1..],
                &path,
                Some(b"{"),
                &[&codes::MISSING_TOKEN, &codes::RATE_LIMITED],
            );
            let wrong = [("authorization", "Bearer no-such-token-0123456789"), json[1]];
            check("wrong token", &wrong, &path, Some(b"{}"), &[&codes::INVALID_TOKEN, &codes::RATE_LIMITED]);
            let basic = [("authorization", "Basic eDp5"), json[1]];
            check("no bearer token", &basic, &path, Some(b"{}"), &[&codes::MALFORMED_TOKEN, &codes::RATE_LIMITED]);
        }
        let read_only = format!("Bearer {}", target.read_only);
        let read_only = [("authorization", read_only.as_str()), json[1]];
        if route.access == Access::Admin {
            let refused = [&codes::INSUFFICIENT_ACCESS, &codes::RATE_LIMITED];
            check("read-only token", &read_only, &path, Some(b"{}"), &refused);
        }
        let answer = call(target.address, "PATCH", &path, &admin, None);
        assert_documented(route, "wrong method", &answer, &[&codes::METHOD_NOT_ALLOWED]);
        assert!(answer.header("allow").is_some_and(|allow| allow.contains(method)), "{path}: {answer:?}");
        check("unknown parameter", &admin, &format!("{path}?no_such_parameter=1"), None, &[&codes::BAD_REQUEST]);
        for param in route.query {
            let (name, good, bad) = (param.name, good_value(param.kind), bad_value(param.kind));
            check("bad value", &admin, &format!("{path}?{name}={bad}"), None, &[param.kind.code()]);
            check("twice", &admin, &format!("{path}?{name}={good}&{name}={good}"), None, &[&codes::BAD_REQUEST]);
        }
        let over = format!("{}", route.body_bytes_max + 1);
        let over = [json[0], json[1], ("content-length", over.as_str())];
        check("over-long body, announced and not sent", &over, &path, None, &[&codes::PAYLOAD_TOO_LARGE]);
        if let Some(request) = route.request {
            // A route with a reader of its own (secrets are not parsed into a tree) has a code of its own.
            let own = || route.problems.iter().copied().filter(|code| matches!(code.status, 400 | 422));
            let bad: Vec<&'static Code> = own().chain([&codes::BAD_REQUEST]).collect();
            let shape: Vec<&'static Code> = own().chain([&codes::UNPROCESSABLE_BODY]).collect();
            check("no content type", &admin, &path, Some(b"{}"), &[&codes::UNSUPPORTED_MEDIA_TYPE]);
            let form = [admin[0], ("content-type", "application/x-www-form-urlencoded")];
            check("wrong content type", &form, &path, Some(b"{}"), &[&codes::UNSUPPORTED_MEDIA_TYPE]);
            check("cut off", &json, &path, Some(b"{"), &bad);
            check("no JSON", &json, &path, Some(b"hello"), &bad);
            check("not UTF-8", &json, &path, Some(b"{\"a\":\"\xff\"}"), &bad);
            check("two documents", &json, &path, Some(b"{}{}"), &bad);
            let deep = format!("{{\"a\":{}{}}}", "[".repeat(JSON_DEPTH_MAX), "]".repeat(JSON_DEPTH_MAX));
            check("too deep", &json, &path, Some(deep.as_bytes()), &bad);
            for wrong in ["[]", "\"x\"", "7", "null", "true"] {
                check("no object", &json, &path, Some(wrong.as_bytes()), &shape);
            }
            check("unknown field", &json, &path, Some(b"{\"__no_such_field__\":\"x\"}"), &shape);
            check("repeated member", &json, &path, Some(b"{\"a\":1,\"a\":1}"), &shape);
            if !request.optional {
                check("no body", &json, &path, None, &bad);
                check("empty body", &json, &path, Some(b""), &bad);
            }
        }
        let ids = [&codes::MALFORMED_REQUEST, &codes::BAD_REQUEST, &codes::INVALID_SESSION_ID, &codes::RUN_NOT_FOUND];
        let own: Vec<&'static Code> = ids.into_iter().chain(route.problems.iter().copied()).collect();
        let has = |wanted: &[&str]| route.path_params().any(|name| wanted.contains(&name));
        let long = "x".repeat(300);
        let wrong_ids: &[&str] = match (has(&["session_id", "run_id"]), route.path_params().next()) {
            (true, _) => &["%ff", "%zz", "..", "a%2Fb", "%00", &long],
            (false, Some(_)) => &["%ff", "%zz"],
            (false, None) => &[],
        };
        for wrong in wrong_ids {
            check("bad id", &json, &fill(route, |_| wrong.to_string()), None, &own);
        }
    }
}

/// For every route, without a socket: the gate itself, with each caller at an address of its own, so that the
/// failure limiter stays out of it.
pub fn check_admission<A: Send + Sync>(front: &Front<A>, routes: &[Route<A>], admin: &str, read_only: &str) {
    let mut callers = 0u32;
    let mut admit = |method: &str, path: &str, authorization: Option<&str>| {
        callers += 1;
        let peer = Peer::Tcp(SocketAddr::from(((0x0a00_0000 + callers).to_be_bytes(), 7)));
        let headers: Vec<(&str, &str)> = authorization.map(|value| ("authorization", value)).into_iter().collect();
        let head = Head::compose(method, path, &headers, peer).expect("a legal head");
        match front.admit(&head) {
            Admission::Accept { body_bytes_max, .. } => Ok(body_bytes_max),
            Admission::Refuse(response) => Err(response),
        }
    };
    let code = |response: &Response| -> String {
        serde_json::from_slice::<Value>(&response.body).expect("a problem")["code"]
            .as_str()
            .expect("a code")
            .to_string()
    };
    let header = |response: &Response, name: &str| {
        response.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    };
    let (admin, reader) = (format!("Bearer {admin}"), format!("Bearer {read_only}"));
    for route in routes {
        let (method, path) = (route.method.as_str(), fill(route, unknown_id));
        let what = format!("{method} {}", route.path);
        let accepted = admit(method, &path, Some(&admin)).expect(&what);
        assert_eq!(accepted, route.body_bytes_max, "{what}");
        assert!(route.body_bytes_max <= BODY_BYTES_MAX, "{what}");
        if matches!(route.access, Access::Public | Access::Connector) {
            assert!(admit(method, &path, None).is_ok(), "{what}: public");
            assert!(admit(method, &path, Some("nonsense")).is_ok(), "{what}: public");
        } else {
            for (authorization, expected) in [
                (None, "missing_token"),
                (Some("Bearer wrong-token"), "invalid_token"),
                (Some("Basic YTpi"), "malformed_token"),
                (Some("Bearer "), "malformed_token"),
            ] {
                let refused = admit(method, &path, authorization).expect_err(&what);
                assert_eq!((refused.status, code(&refused).as_str()), (401, expected), "{what}");
                let challenge = header(&refused, "www-authenticate");
                assert_eq!(challenge.as_deref(), Some("Bearer realm=\"kheish-daemon\""), "{what}");
            }
            let read = admit(method, &path, Some(&reader));
            match route.access {
                Access::Admin => {
                    let refused = read.expect_err(&what);
                    assert_eq!((refused.status, code(&refused).as_str()), (403, "insufficient_access"), "{what}");
                }
                Access::ReadOnly | Access::Public | Access::Connector => assert!(read.is_ok(), "{what}: read-only"),
            }
        }
        let served = |other: &str| {
            routes.iter().any(|row| {
                row.path == route.path && (row.method.as_str() == other || (other, row.method) == ("HEAD", Method::Get))
            })
        };
        for other in
            ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "BREW"].into_iter().filter(|other| !served(other))
        {
            let refused = admit(other, &path, Some(&admin)).expect_err(&what);
            assert_eq!((refused.status, code(&refused).as_str()), (405, "method_not_allowed"), "{what}: {other}");
            let allow = header(&refused, "allow").expect("an Allow header");
            assert!(allow.split(", ").any(|name| name == method), "{what}: Allow is {allow}");
            assert!(allow.split(", ").all(served), "{what}: Allow is {allow}");
            if !matches!(route.access, Access::Public | Access::Connector) {
                assert_eq!(admit(other, &path, None).expect_err(&what).status, 401, "{what}: {other} without a token");
                assert_eq!(
                    admit(other, &path, Some(&reader)).expect_err(&what).status,
                    403,
                    "{what}: {other} read-only"
                );
            }
        }
        for bent in [
            format!("{path}/"),
            format!("/{path}"),
            format!("{path}/no/such/child/of/any/route"),
            path.replacen('/', "/%2e/", 1),
        ] {
            let refused = admit(method, &bent, Some(&admin)).expect_err(&bent);
            assert_eq!((refused.status, code(&refused).as_str()), (404, "route_not_found"), "{bent}");
            assert_eq!(admit(method, &bent, Some(&reader)).expect_err(&bent).status, 403, "{bent}");
            assert_eq!(admit(method, &bent, None).expect_err(&bent).status, 401, "{bent}");
        }
    }
}

/// The document names exactly the table's routes, with their access, bodies, parameters and problem statuses,
/// and every reference in it resolves.
pub fn check_openapi<A>(routes: &[Route<A>], document: &Value) {
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["x-api-revision"].is_u64());
    let mut listed = 0;
    for item in document["paths"].as_object().expect("paths").values() {
        listed += item.as_object().expect("a path item").len();
    }
    assert_eq!(listed, routes.len(), "the document and the table have different routes");
    let mut operation_ids = std::collections::HashSet::new();
    for route in routes {
        let what = format!("{} {}", route.method, route.path);
        let operation = &document["paths"][route.path][route.method.as_str().to_ascii_lowercase()];
        assert_eq!(operation["x-access"], route.access.as_str(), "{what}");
        assert_eq!(operation["summary"], route.summary, "{what}");
        assert!(route.summary.ends_with('.') && route.summary.len() > 4, "{what}: the summary is no sentence");
        assert!(
            operation_ids.insert(operation["operationId"].as_str().expect("an id").to_string()),
            "{what}: operationId"
        );
        let names: Vec<&str> = operation["parameters"]
            .as_array()
            .expect("parameters")
            .iter()
            .filter(|parameter| parameter["in"] != "header")
            .map(|parameter| parameter["name"].as_str().expect("a name"))
            .collect();
        let expected: Vec<&str> = route.path_params().chain(route.query.iter().map(|param| param.name)).collect();
        assert_eq!(names, expected, "{what}");
        assert_eq!(operation["requestBody"].is_object(), route.request.is_some(), "{what}");
        for code in problems_of(route) {
            let codes = operation["responses"][code.status.to_string()]["x-codes"].as_array().expect(&what);
            assert!(codes.iter().any(|listed| listed == code.code), "{what}: {}", code.code);
        }
    }
    check_references(document, document);
}

fn check_references(document: &Value, at: &Value) {
    match at {
        Value::Object(members) => {
            if let Some(reference) = members.get("$ref") {
                let pointer = reference.as_str().expect("a reference is text").trim_start_matches('#');
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            members.values().for_each(|member| check_references(document, member));
        }
        Value::Array(items) => items.iter().for_each(|item| check_references(document, item)),
        _ => {}
    }
}

/// The table of routes as docs/http-api.md must show it.
pub fn route_table<A>(routes: &[Route<A>]) -> String {
    let mut table = String::from("| method | path | access | what it does |\n|---|---|---|---|\n");
    for route in routes {
        let access = route.access.as_str().replace('_', "-");
        writeln!(table, "| {} | `{}` | {access} | {} |", route.method, route.path, route.summary).expect("memory");
    }
    table
}

/// The table of problem codes as docs/problem-codes.md must show it.
pub fn problem_table() -> String {
    let mut table = String::from("| code | status | domain | what happened | what to do |\n|---|---|---|---|---|\n");
    for row in codes::ALL {
        let domain = row.domain.unwrap_or("–");
        writeln!(table, "| `{}` | {} | {domain} | {} | {} |", row.code, row.status, row.meaning, row.next)
            .expect("memory");
    }
    table
}
