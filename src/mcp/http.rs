//! A server over streamable HTTP.
//! Owns: one POST a message, the reading of its answer as JSON or as an event stream, the stream of the server's own
//! messages, the session id.
//! May touch: the network, through `net`.
//! Never: follows a redirect away from the server's origin, sends a request a second time, takes another request's answer
//! for this one's.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::asking::UnderWay;
use super::config::Http;
use super::credential::{self, InUse};
use super::discovery::challenge_parameter;
use super::error::McpError;
use super::link::{Asked, Exchange, Outcome, Receiver};
use super::message::{self, Incoming, RpcError};
use super::rate::Rate;
use crate::limits::{
    ACCOUNT_SCOPES_MAX, MCP_CALLS_MAX, MCP_CONNECT_MS, MCP_ERROR_BODY_BYTES_MAX, MCP_LEASE_MS, MCP_MESSAGE_BYTES_MAX,
    MCP_MESSAGES_MAX, MCP_REDIRECTS_MAX, MCP_REQUESTS_MAX, MCP_RESUMES_MAX, MCP_RETRY_MS_DEFAULT, MCP_RETRY_MS_MAX,
    MCP_SCOPE_BYTES_MAX, MCP_SESSION_ID_BYTES_MAX, MCP_STREAM_BYTES_MAX, MCP_WRITE_MS_MAX,
};
use crate::net::{Body, Cancel, Method, Net, NetError, Purpose, Request, Response, SseParser, Target, Timeouts};

/// What is agreed with the server.
#[derive(Default)]
struct Agreed {
    session: Option<String>,
    version: Option<String>,
    /// The server does not know the session any more.
    is_expired: bool,
    /// A request of the session was answered before.
    has_worked: bool,
}

/// A connection over HTTP: what later requests have to say of the first one.
pub(super) struct HttpLink {
    server: String,
    http: Http,
    net: Net,
    agreed: Mutex<Agreed>,
    next_id: AtomicU64,
    calls: AtomicUsize,
    receiver: Arc<dyn Receiver>,
    requests: Rate,
}

/// How the stream of the server's own messages ended.
pub(super) enum Listened {
    /// The server has none.
    NotOffered,
    /// It ended; it can be opened again after this time, in milliseconds.
    Ended(u64),
    /// It could not be opened.
    Failed(McpError),
}

/// What a stream was read to.
enum Read {
    /// The answer.
    Answer(Result<Box<RawValue>, RpcError>),
    /// Its end came first.
    End,
}

impl HttpLink {
    pub fn new(server: &str, http: &Http, net: Net, receiver: Arc<dyn Receiver>) -> Self {
        Self {
            server: server.to_string(),
            http: http.clone(),
            net,
            agreed: Mutex::default(),
            next_id: AtomicU64::new(1),
            calls: AtomicUsize::new(0),
            receiver,
            requests: Rate::new(MCP_REQUESTS_MAX),
        }
    }

    fn agreed(&self) -> MutexGuard<'_, Agreed> {
        // Every statement leaves it complete, so a panic elsewhere has not spoilt it.
        self.agreed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// The revision that later requests name.
    pub fn set_version(&self, version: &str) {
        self.agreed().version = Some(version.to_string());
    }

    /// Whether the server has given the session an id.
    pub fn has_session(&self) -> bool {
        self.agreed().session.is_some()
    }

    /// Whether the server does not know the session any more.
    pub fn is_expired(&self) -> bool {
        self.agreed().is_expired
    }

    fn malformed(&self, cause: impl Into<String>) -> McpError {
        McpError::Malformed { server: self.server.clone(), cause: cause.into() }
    }

    fn failed(&self, error: NetError) -> McpError {
        let server = self.server.clone();
        match error {
            NetError::Cancelled => McpError::Cancelled { server },
            NetError::CredentialRefused { reason } => McpError::Credential { server, cause: reason },
            NetError::BodyTooLarge { limit_bytes, .. } => self.malformed(format!("it has over {limit_bytes} bytes")),
            error => McpError::Ended { server, cause: error.to_string() },
        }
    }

    fn timeouts(left_ms: u64) -> Timeouts {
        Timeouts {
            connect_ms: MCP_CONNECT_MS.min(left_ms),
            first_byte_ms: left_ms,
            idle_ms: left_ms,
            total_ms: Some(left_ms),
        }
    }

    /// One HTTP request, with redirects within the origin followed.
    fn send(
        &self,
        method: Method,
        body: Option<&[u8]>,
        extra: &[(&str, &str)],
        credential: Option<&InUse>,
        left_ms: u64,
        cancel: &Cancel,
    ) -> Result<Response, McpError> {
        let (session, version) = {
            let agreed = self.agreed();
            (agreed.session.clone(), agreed.version.clone())
        };
        let mut headers: Vec<(&str, &str)> = self.http.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        headers.extend(session.as_deref().map(|session| ("mcp-session-id", session)));
        if !extra.iter().any(|(name, _)| *name == "mcp-protocol-version") {
            headers.extend(version.as_deref().map(|version| ("mcp-protocol-version", version)));
        }
        headers.extend_from_slice(extra);
        let mut target = self.http.url.clone();
        for _ in 0..=MCP_REDIRECTS_MAX {
            let request = Request {
                method,
                target: &target,
                purpose: Purpose::Mcp,
                allow_private: self.http.allow_private,
                headers: &headers,
                auth: credential::auth(&self.http, credential),
                body,
                timeouts: Self::timeouts(left_ms),
                body_bytes_max: MCP_STREAM_BYTES_MAX,
            };
            let response = self.net.send(request, cancel).map_err(|error| self.failed(error))?;
            let follows =
                matches!(response.status, 307 | 308) || (method == Method::Get && matches!(response.status, 301..=303));
            if !follows {
                return Ok(response);
            }
            let next = response.header("location").and_then(|location| target.join(location).ok());
            target = next
                .filter(|next| is_same_origin(next, &self.http.url))
                .ok_or_else(|| self.malformed("it redirects to another origin, where the credential must not go"))?;
        }
        Err(self.malformed("it redirects in a circle"))
    }

    pub fn exchange(&self, exchange: &Exchange<'_>) -> Outcome {
        let busy = self.calls.fetch_add(1, Ordering::SeqCst) >= MCP_CALLS_MAX;
        let outcome = if busy {
            Err(McpError::Busy { server: self.server.clone() })
        } else {
            self.post(exchange).map_err(|error| match error {
                McpError::Ended { .. } if exchange.left().is_zero() => McpError::TimedOut {
                    server: self.server.clone(),
                    method: exchange.method.to_string(),
                    limit_ms: exchange.limit_ms,
                },
                error => error,
            })
        };
        self.calls.fetch_sub(1, Ordering::SeqCst);
        if matches!(outcome, Err(McpError::TimedOut { .. } | McpError::Cancelled { .. })) {
            self.give_up(exchange);
        }
        outcome
    }

    /// Tells the server that nobody waits any more; where a closed connection is no such word.
    fn give_up(&self, exchange: &Exchange<'_>) {
        if exchange.method == "initialize" || !exchange.headers.is_empty() || self.agreed().version.is_none() {
            return;
        }
        let params = serde_json::json!({"requestId": exchange.id, "reason": "the caller gave up"});
        let bytes = message::notification("notifications/cancelled", &params);
        let limit = Duration::from_millis(MCP_WRITE_MS_MAX);
        // That it does not hear of it changes nothing.
        let _not_heard = self.notify(&bytes, exchange.credential, limit, &Cancel::new());
    }

    fn post(&self, exchange: &Exchange<'_>) -> Outcome {
        let mut extra: Vec<(&str, &str)> = vec![("accept", "application/json, text/event-stream")];
        extra.extend(exchange.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let response = self.send(
            Method::Post,
            Some(exchange.bytes),
            &extra,
            exchange.credential,
            exchange.left_ms(),
            exchange.cancel,
        )?;
        match response.status {
            200..=299 => {}
            _ => return self.refused(response),
        }
        if exchange.method == "initialize" {
            let id = response.header("mcp-session-id").map(str::to_string);
            let is_id = |id: &String| {
                (1..=MCP_SESSION_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
            };
            if id.as_ref().is_some_and(|id| !is_id(id)) {
                return Err(self.malformed("its session id is no session id"));
            }
            self.agreed().session = id;
        }
        let outcome = match media_type(&response) {
            "application/json" => self.whole(response, exchange.id),
            "text/event-stream" => self.stream(response.body, exchange),
            _ if matches!(response.status, 202 | 204) => Err(self.malformed("it took the request and gives no answer")),
            _ => Err(self.malformed("it is neither JSON nor an event stream")),
        };
        if outcome.is_ok() {
            self.agreed().has_worked = true;
        }
        outcome
    }

    fn whole(&self, mut response: Response, id: u64) -> Outcome {
        response.body.set_bytes_max(MCP_MESSAGE_BYTES_MAX as u64);
        let bytes = response.body.read_to_end().map_err(|error| self.failed(error))?;
        match message::read(&bytes) {
            Ok(Incoming::Answer { id: answered, outcome })
                if answered == Some(id) || (answered.is_none() && outcome.is_err()) =>
            {
                Ok(outcome)
            }
            Ok(_) => Err(self.malformed("it answers another request")),
            Err(cause) => Err(self.malformed(cause.0)),
        }
    }

    /// An answer that is no success.
    fn refused(&self, mut response: Response) -> Outcome {
        let status = response.status;
        let challenge = response.header("www-authenticate").unwrap_or_default().to_string();
        let body = response.body.read_prefix(MCP_ERROR_BODY_BYTES_MAX).map_err(|error| self.failed(error))?;
        let auth = |cause: String| Err(McpError::AuthRequired { server: self.server.clone(), cause });
        match (status, challenge_error(&challenge)) {
            (401, Some(code)) => return auth(format!("HTTP 401, {code}")),
            (401, None) => return auth("HTTP 401".to_string()),
            (403, Some("insufficient_scope")) => {
                let scopes = challenge_scopes(&challenge);
                return match scopes.is_empty() {
                    true => auth("HTTP 403, insufficient_scope".to_string()),
                    false => Err(McpError::ScopeRequired { server: self.server.clone(), scopes }),
                };
            }
            _ => {}
        }
        let is_expired = {
            let mut agreed = self.agreed();
            let is_expired = agreed.session.is_some() && (status == 404 || (status == 400 && agreed.has_worked));
            agreed.is_expired |= is_expired;
            is_expired
        };
        let said = match message::read(&body) {
            Ok(Incoming::Answer { outcome: Err(error), .. }) => Some(error),
            _ => None,
        };
        match said {
            _ if is_expired => Err(McpError::Ended {
                server: self.server.clone(),
                cause: format!("HTTP {status}: it does not know the session any more and is connected anew"),
            }),
            Some(error) => Ok(Err(error)),
            None => Err(self.malformed(format!("HTTP {status}"))),
        }
    }

    /// Reads an event stream to the answer, taking it up again where it ends before.
    fn stream(&self, body: Body, exchange: &Exchange<'_>) -> Outcome {
        let mut parser = SseParser::new(MCP_MESSAGE_BYTES_MAX);
        let mut body = body;
        let mut resumes = 0;
        let mut seen = 0;
        loop {
            match self.read(&mut body, &mut parser, exchange, &mut seen) {
                Ok(Read::Answer(answer)) => return Ok(answer),
                Ok(Read::End) => {}
                // A broken connection is taken up like one that ended; all else is final.
                Err(McpError::Ended { .. }) if !exchange.left().is_zero() => {}
                Err(error) => return Err(error),
            }
            let Some(last_id) = parser.last_id().map(str::to_string) else {
                let cause = "its stream ended before the answer".to_string();
                return Err(McpError::Ended { server: self.server.clone(), cause });
            };
            resumes += 1;
            if resumes > MCP_RESUMES_MAX {
                let cause = "its stream ended before the answer too often".to_string();
                return Err(McpError::Ended { server: self.server.clone(), cause });
            }
            let retry = Duration::from_millis(parser.retry_ms().unwrap_or(MCP_RETRY_MS_DEFAULT).min(MCP_RETRY_MS_MAX));
            if exchange.cancel.wait(retry.min(exchange.left())) {
                return Err(McpError::Cancelled { server: self.server.clone() });
            }
            let extra = [("accept", "text/event-stream"), ("last-event-id", last_id.as_str())];
            let left_ms = exchange.left_ms();
            let response = self.send(Method::Get, None, &extra, exchange.credential, left_ms, exchange.cancel)?;
            if response.status != 200 || media_type(&response) != "text/event-stream" {
                let cause = format!("its stream cannot be taken up again: HTTP {}", response.status);
                return Err(McpError::Ended { server: self.server.clone(), cause });
            }
            body = response.body;
        }
    }

    /// Reads events to the answer of a request, or to the end.
    fn read(
        &self,
        body: &mut Body,
        parser: &mut SseParser,
        exchange: &Exchange<'_>,
        seen: &mut u32,
    ) -> Result<Read, McpError> {
        let (credential, cancel) = (exchange.credential, exchange.cancel);
        let mut buffer = vec![0; 16 * 1024];
        loop {
            while let Some(frame) = parser.next_frame().map_err(|error| self.malformed(error.to_string()))? {
                *seen += 1;
                if *seen > MCP_MESSAGES_MAX {
                    return Err(self.malformed("it sends more messages than are taken"));
                }
                if frame.data.is_empty() || frame.event.as_deref().is_some_and(|event| event != "message") {
                    continue;
                }
                match message::read(frame.data.as_bytes()) {
                    Ok(Incoming::Answer { id: answered, outcome }) => {
                        if answered == Some(exchange.id) || (answered.is_none() && outcome.is_err()) {
                            return Ok(Read::Answer(outcome));
                        }
                        log::debug!("MCP server {}: an answer to another request is passed over", self.server);
                    }
                    Ok(Incoming::Request { id, method, params }) => {
                        let asked = Asked { id: &id, method: &method, params: &params };
                        self.answer(&asked, exchange.asker, credential, exchange.left(), cancel)?;
                    }
                    Ok(Incoming::Notification { method, params }) => self.receiver.notified(&method, &params),
                    Err(cause) => log::debug!("MCP server {}: an event is no message: {}", self.server, cause.0),
                }
            }
            match body.read(&mut buffer).map_err(|error| self.failed(error))? {
                0 => return Ok(Read::End),
                count => parser.push(&buffer[..count]),
            }
        }
    }

    /// Answers a request of the server, unless people have to be asked first.
    fn answer(
        &self,
        asked: &Asked<'_>,
        asker: Option<&Arc<UnderWay>>,
        credential: Option<&InUse>,
        left: Duration,
        cancel: &Cancel,
    ) -> Result<(), McpError> {
        if !self.requests.admit() {
            return Err(self.malformed("it sends more requests than are answered"));
        }
        if left.is_zero() {
            return Err(McpError::Ended {
                server: self.server.clone(),
                cause: "it asks instead of answering".to_string(),
            });
        }
        if let Some(given) = self.receiver.request(asked, asker) {
            let bytes = message::answer(asked.id, &given);
            // The server waits for it or does not; our own request goes on.
            let limit = left.min(Duration::from_millis(MCP_CONNECT_MS));
            let _not_heard = self.notify(&bytes, credential, limit, cancel);
        }
        Ok(())
    }

    /// Sends what wants no answer.
    pub fn notify(
        &self,
        bytes: &[u8],
        credential: Option<&InUse>,
        limit: Duration,
        cancel: &Cancel,
    ) -> Result<(), McpError> {
        let left_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1);
        let extra = [("accept", "application/json, text/event-stream")];
        let response = self.send(Method::Post, Some(bytes), &extra, credential, left_ms, cancel)?;
        match response.status {
            200..=299 => Ok(()),
            _ => self.refused(response).and_then(|_| Err(self.malformed("it refuses a notification"))),
        }
    }

    /// Reads the stream of the server's own messages until it ends. `between` is called after every event with what came of
    /// it; the stream is left when it says so.
    pub fn listen(&self, credential: Option<&InUse>, cancel: &Cancel, between: &mut dyn FnMut() -> bool) -> Listened {
        let extra = [("accept", "text/event-stream")];
        // No longer than the lease behind it lives.
        let response = match self.send(Method::Get, None, &extra, credential, MCP_LEASE_MS, cancel) {
            Ok(response) => response,
            Err(error) => return Listened::Failed(error),
        };
        match response.status {
            200 if media_type(&response) == "text/event-stream" => {}
            401 | 403 => {
                return match self.refused(response) {
                    Err(error @ McpError::AuthRequired { .. }) => Listened::Failed(error),
                    _ => Listened::NotOffered,
                };
            }
            // Many a server knows no GET at all and has its own word for that. A session that is over is told by the next
            // request.
            _ => return Listened::NotOffered,
        }
        let mut parser = SseParser::new(MCP_MESSAGE_BYTES_MAX);
        let mut body = response.body;
        let (mut seen, mut window) = (0, Instant::now());
        loop {
            if window.elapsed() >= Duration::from_secs(1) {
                (seen, window) = (0, Instant::now());
            }
            match self.read_once(&mut body, &mut parser, credential, cancel, &mut seen) {
                Ok(true) => {}
                Ok(false) | Err(McpError::Ended { .. }) => break,
                Err(error) => return Listened::Failed(error),
            }
            if !between() {
                break;
            }
        }
        // However soon the server would have us back.
        Listened::Ended(parser.retry_ms().unwrap_or_default().clamp(MCP_RETRY_MS_DEFAULT, MCP_RETRY_MS_MAX))
    }

    /// One piece of a stream without an answer; false at its end.
    fn read_once(
        &self,
        body: &mut Body,
        parser: &mut SseParser,
        credential: Option<&InUse>,
        cancel: &Cancel,
        seen: &mut u32,
    ) -> Result<bool, McpError> {
        let mut buffer = vec![0; 16 * 1024];
        let count = body.read(&mut buffer).map_err(|error| self.failed(error))?;
        if count == 0 {
            return Ok(false);
        }
        parser.push(&buffer[..count]);
        while let Some(frame) = parser.next_frame().map_err(|error| self.malformed(error.to_string()))? {
            *seen += 1;
            if *seen > MCP_MESSAGES_MAX {
                return Err(self.malformed("it sends more messages than are taken"));
            }
            if frame.event.as_deref().is_some_and(|event| event != "message") {
                continue;
            }
            match message::read(frame.data.as_bytes()) {
                Ok(Incoming::Request { id, method, params }) => {
                    let asked = Asked { id: &id, method: &method, params: &params };
                    self.answer(&asked, None, credential, Duration::MAX, cancel)?;
                }
                Ok(Incoming::Notification { method, params }) => self.receiver.notified(&method, &params),
                Ok(Incoming::Answer { .. }) | Err(_) => {}
            }
        }
        Ok(true)
    }

    /// Tells the server that the session is over, where it has one. That it does not hear of it changes nothing.
    pub fn close(&self, credential: Option<&InUse>) {
        if self.has_session() && !self.is_expired() {
            let _not_heard = self.send(Method::Delete, None, &[], credential, MCP_WRITE_MS_MAX, &Cancel::new());
        }
    }
}

fn is_same_origin(one: &Target, other: &Target) -> bool {
    one.host_and_port() == other.host_and_port() && one.is_https() == other.is_https()
}

/// The media type without its parameters.
fn media_type(response: &Response) -> &str {
    let value = response.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default().trim();
    ["application/json", "text/event-stream"].into_iter().find(|known| known.eq_ignore_ascii_case(value)).unwrap_or("")
}

/// The error code of a challenge, if it is one of those known: nothing else of it is shown.
fn challenge_error(challenge: &str) -> Option<&'static str> {
    let value = challenge_parameter(challenge, "error")?;
    ["invalid_token", "insufficient_scope", "invalid_request"].into_iter().find(|known| *known == value)
}

/// The scopes that a challenge asks for, as far as they are scopes and can be shown.
fn challenge_scopes(challenge: &str) -> Vec<String> {
    let is_scope = |scope: &&str| {
        scope.len() <= MCP_SCOPE_BYTES_MAX
            && scope.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:/+*@".contains(&byte))
    };
    let named = challenge_parameter(challenge, "scope").unwrap_or_default();
    named
        .split(' ')
        .filter(|scope| !scope.is_empty())
        .filter(is_scope)
        .take(ACCOUNT_SCOPES_MAX)
        .map(str::to_string)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_gives_a_known_code_and_scopes_that_can_be_shown() {
        let challenge =
            r#"Bearer scope="read mcp:write $(id) a;b  x", error="insufficient_scope", error_description="x""#;
        assert_eq!(challenge_error(challenge), Some("insufficient_scope"));
        assert_eq!(challenge_scopes(challenge), ["read", "mcp:write", "x"]);
        assert_eq!(challenge_error(r#"Bearer error="<script>""#), None);
        assert!(challenge_scopes("Bearer").is_empty());
        let many = (0..1_000).map(|n| format!("s{n}")).collect::<Vec<_>>().join(" ");
        assert_eq!(challenge_scopes(&format!("Bearer scope=\"{many}\"")).len(), ACCOUNT_SCOPES_MAX);
    }
}
