//! The daemon as the commands see it: documents in, documents out, one error type.
//! Owns: what a status means, the problem document, the deadline of each request.
//! May touch: the network, through `net`.
//! Never: retries a request; sends a secret where it could be read on the way.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::exit::{CliError, TransportFailure};
use super::frame::Frame;
use super::json_text::Document;
use super::path::Path;
use crate::limits::{CLI_ERROR_QUOTE_CHARS_MAX, CLI_REQUEST_TIMEOUT_MS, CLI_STREAM_SILENCE_MS_MAX, CLIENT_CONNECT_MS};
use crate::net::{ApiClient, ApiReply, ApiStream, BaseUrl, Cancel, Method, Net, NetError, StreamError, Timeouts};
use crate::secret::Secret;

/// A client of one daemon.
pub struct Client {
    net: Net,
    base: BaseUrl,
    token: Option<Secret>,
}

/// A problem document, as far as it matters here.
#[derive(Deserialize)]
struct Problem {
    code: String,
    #[serde(default)]
    detail: String,
    request_id: Option<String>,
}

impl Client {
    /// A client of the daemon at `base`.
    pub fn new(net: Net, base: BaseUrl, token: Option<Secret>) -> Self {
        Self { net, base, token }
    }

    /// A second client of the same daemon, for another thread.
    pub fn twin(&self) -> Self {
        Self { net: self.net.clone(), base: self.base.clone(), token: self.token.as_ref().map(copy_of) }
    }

    /// A client of the same daemon that shows no token, as a browser's preflight does not.
    pub fn anonymous(&self) -> Self {
        Self { net: self.net.clone(), base: self.base.clone(), token: None }
    }

    /// Whether a secret may be sent there: over TLS, or without leaving this host.
    pub fn is_confidential(&self) -> bool {
        self.base.is_https() || self.base.is_local()
    }

    /// Whether the daemon is on this host.
    pub fn is_local(&self) -> bool {
        self.base.is_local()
    }

    /// The daemon's address.
    pub fn base_url(&self) -> String {
        self.base.to_string()
    }

    /// `GET`.
    ///
    /// # Errors
    /// No answer, a status outside 200 to 299, or an answer that is no JSON.
    pub fn get(&self, path: &Path) -> Result<Document, CliError> {
        self.call(Method::Get, path, &[], None, CLI_REQUEST_TIMEOUT_MS)
    }

    /// `GET` with less time than usual, for commands that have a deadline of their own.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn get_within(&self, path: &Path, limit_ms: u64) -> Result<Document, CliError> {
        self.call(Method::Get, path, &[], None, limit_ms.clamp(1, CLI_REQUEST_TIMEOUT_MS))
    }

    /// `GET` of something that the daemon itself waits for.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn get_slowly(&self, path: &Path, limit_ms: u64) -> Result<Document, CliError> {
        self.call(Method::Get, path, &[], None, limit_ms.max(CLI_REQUEST_TIMEOUT_MS))
    }

    /// `POST`, with an optional JSON body and further header lines.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post(&self, path: &Path, body: Option<&[u8]>, headers: &[(&str, &str)]) -> Result<Document, CliError> {
        self.call(Method::Post, path, headers, body, CLI_REQUEST_TIMEOUT_MS)
    }

    /// `POST` of a body with a secret in it.
    ///
    /// # Errors
    /// As [`Client::get`]; and the daemon is on another host and the way there is not encrypted.
    pub fn post_secret(&self, path: &Path, body: &Secret) -> Result<Document, CliError> {
        if !self.is_confidential() {
            return Err(CliError::invalid(
                format!("--base-url {}", self.base),
                "a secret would travel to another host unencrypted",
                "use an https:// address, or run the command with --offline on the daemon's host",
            ));
        }
        self.post(path, Some(body.expose()), &[]).map_err(|error| match error {
            // Somebody on the way may have answered with what was sent to it.
            CliError::Http { request, status, code: None, request_id, .. } => {
                CliError::Http { request, status, code: None, detail: String::new(), request_id }
            }
            other => other,
        })
    }

    /// `PUT` of a body that may hold a secret.
    ///
    /// # Errors
    /// As [`Client::post_secret`].
    pub fn put_secret(&self, path: &Path, body: &Secret) -> Result<Document, CliError> {
        if !self.is_confidential() {
            return Err(CliError::invalid(
                format!("--base-url {}", self.base),
                "a secret could travel to another host unencrypted",
                "use an https:// address",
            ));
        }
        self.put(path, body.expose())
    }

    /// `PUT`, with a JSON body.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn put(&self, path: &Path, body: &[u8]) -> Result<Document, CliError> {
        self.call(Method::Put, path, &[], Some(body), CLI_REQUEST_TIMEOUT_MS)
    }

    /// `DELETE`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn delete(&self, path: &Path) -> Result<Document, CliError> {
        self.call(Method::Delete, path, &[], None, CLI_REQUEST_TIMEOUT_MS)
    }

    /// `GET` of an answer that is no JSON.
    ///
    /// # Errors
    /// As [`Client::get`], but for the last.
    pub fn get_bytes(&self, path: &Path) -> Result<Vec<u8>, CliError> {
        self.call_bytes(Method::Get, path, &[], None, CLI_REQUEST_TIMEOUT_MS).map(|(_, body)| body)
    }

    fn call(
        &self,
        method: Method,
        path: &Path,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
        total_ms: u64,
    ) -> Result<Document, CliError> {
        let (request, body) = self.call_bytes(method, path, headers, body, total_ms)?;
        Document::parse(body).map_err(|cause| CliError::Schema { what: format!("the answer to {request}"), cause })
    }

    /// The request's name, and the body of its answer.
    fn call_bytes(
        &self,
        method: Method,
        path: &Path,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
        total_ms: u64,
    ) -> Result<(String, Vec<u8>), CliError> {
        let verb = match method {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
        };
        let request = format!("{verb} {}", without_query(path));
        // A body of length 0 and not none at all, for which the HTTP client would announce chunks.
        let body = body.or((method == Method::Post).then_some(b"".as_slice()));
        let timeouts = Timeouts {
            connect_ms: CLIENT_CONNECT_MS.min(total_ms),
            first_byte_ms: total_ms,
            idle_ms: total_ms,
            total_ms: Some(total_ms),
        };
        let reply = self.api(timeouts).call(method, path.as_str(), headers, body).map_err(|error| self.name(error))?;
        if !(200..=299).contains(&reply.status) {
            return Err(refusal(request, reply));
        }
        Ok((request, reply.body))
    }

    /// Opens an event stream after the event `after`, if any. `stop` ends it, also while it is being opened.
    ///
    /// # Errors
    /// As [`Client::get`]; an answer that is no event stream is a schema error.
    pub fn stream(&self, path: &Path, after: Option<u64>, stop: &Stop) -> Result<EventSource, CliError> {
        let timeouts = Timeouts {
            connect_ms: CLIENT_CONNECT_MS,
            first_byte_ms: CLI_REQUEST_TIMEOUT_MS,
            idle_ms: CLI_STREAM_SILENCE_MS_MAX,
            total_ms: None,
        };
        let api = self.api(timeouts);
        stop.governs(api.cancel());
        let after = after.map(|id| id.to_string());
        match api.stream(path.as_str(), after.as_deref()).map_err(|error| self.name(error))? {
            stream @ ApiStream::Events(_) => Ok(EventSource { stream, base_url: self.base.to_string() }),
            ApiStream::Reply(reply) => {
                let request = format!("GET {}", without_query(path));
                if (200..=299).contains(&reply.status) {
                    let cause = format!("expected an event stream, found {:?}", reply.content_type);
                    return Err(CliError::Schema { what: format!("the answer to {request}"), cause });
                }
                Err(refusal(request, reply))
            }
        }
    }

    /// The plain client below this one, for requests whose failures are findings.
    pub fn api(&self, timeouts: Timeouts) -> ApiClient {
        let token = self.token.as_ref().map(copy_of);
        ApiClient::new(self.net.clone(), self.base.clone(), token).with_timeouts(timeouts)
    }

    /// What a failure of the network means for the command.
    pub fn name(&self, error: NetError) -> CliError {
        transport(&self.base.to_string(), error)
    }
}

fn copy_of(secret: &Secret) -> Secret {
    Secret::new(secret.expose().to_vec())
}

/// An open event stream.
pub struct EventSource {
    stream: ApiStream,
    base_url: String,
}

impl EventSource {
    /// Waits for the next event; `None` when the daemon ended the stream.
    ///
    /// # Errors
    /// The connection broke or fell silent, or a frame is malformed.
    pub fn next(&mut self) -> Result<Option<Frame>, CliError> {
        let ApiStream::Events(events) = &mut self.stream else { return Ok(None) };
        let frame = events.next_frame().map_err(|error| match error {
            StreamError::Net(error) => transport(&self.base_url, error),
            StreamError::Sse(error) => {
                CliError::Schema { what: "the event stream".to_string(), cause: without_next(&error.to_string()) }
            }
        })?;
        frame.map(Frame::of).transpose()
    }
}

/// Ends a stream, or the pause before its next attempt, from another thread.
#[derive(Clone, Default)]
pub struct Stop {
    pause: Cancel,
    current: Arc<Mutex<Option<Cancel>>>,
}

impl Stop {
    /// Ends whatever is under way, for good.
    pub fn stop(&self) {
        self.pause.cancel();
        if let Some(request) = self.current().take() {
            request.cancel();
        }
    }

    /// Whether [`Stop::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.pause.is_cancelled()
    }

    /// Waits; true when stopped meanwhile.
    pub fn wait(&self, duration: Duration) -> bool {
        self.pause.wait(duration)
    }

    fn governs(&self, request: Cancel) {
        *self.current() = Some(request.clone());
        // Stopped between two attempts: the request that was just registered must not begin.
        if self.is_stopped() {
            request.cancel();
        }
    }

    fn current(&self) -> MutexGuard<'_, Option<Cancel>> {
        // A handle is complete at every moment, so a panic elsewhere cannot have spoilt it.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads what a document must hold.
///
/// # Errors
/// It does not; `what` names the document.
pub fn decode<T: DeserializeOwned>(document: &Document, what: &str) -> Result<T, CliError> {
    serde_json::from_str(document.as_str())
        .map_err(|error| CliError::Schema { what: what.to_string(), cause: error.to_string() })
}

/// A list of strings in a query does not belong into a message.
fn without_query(path: &Path) -> &str {
    path.as_str().split('?').next().unwrap_or_default()
}

/// The advice of `net` is written for routes; ours knows the command line.
fn without_next(text: &str) -> String {
    text.split("; next:").next().unwrap_or_default().to_string()
}

fn transport(base_url: &str, error: NetError) -> CliError {
    let (failure, cause) = match &error {
        NetError::Timeout { phase, limit_ms, .. } => {
            (TransportFailure::Timeout, format!("{limit_ms} ms passed while {}", phase.as_str()))
        }
        NetError::Connect { reason, .. } | NetError::Io { reason, .. } => {
            (TransportFailure::Unreachable, reason.clone())
        }
        NetError::CredentialRefused { .. } => (TransportFailure::Configuration, error.to_string()),
        NetError::HeadTooLarge { .. } | NetError::BodyTooLarge { .. } | NetError::Protocol { .. } => {
            let cause = without_next(&error.to_string());
            return CliError::Schema { what: format!("the answer of {base_url}"), cause };
        }
        // What to do about a certificate or a name is said there.
        _ => (TransportFailure::Unreachable, error.to_string()),
    };
    CliError::Transport { base_url: base_url.to_string(), failure, cause }
}

/// What an answer outside 200 to 299 means for the command.
pub fn refusal(request: String, reply: ApiReply) -> CliError {
    let (status, request_id) = (reply.status, reply.request_id);
    match serde_json::from_slice::<Problem>(&reply.body) {
        Ok(problem) => CliError::Http {
            request,
            status,
            code: Some(problem.code),
            detail: problem.detail,
            request_id: problem.request_id.or(request_id),
        },
        Err(_) => {
            let body = String::from_utf8_lossy(&reply.body);
            let detail = body.trim().chars().take(CLI_ERROR_QUOTE_CHARS_MAX).collect();
            CliError::Http { request, status, code: None, detail, request_id }
        }
    }
}
