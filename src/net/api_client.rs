//! The control plane as the command line reaches it.
//! Owns: base URL, bearer token, and the two ways to ask: a whole reply, or a stream of events.
//! Never: retries, or writes anything to the terminal.

use std::fmt;
use std::sync::Arc;

use crate::limits::{CLIENT_CONNECT_MS, CLIENT_FRAME_BYTES_MAX, CLIENT_IDLE_MS, CLIENT_REPLY_BYTES_MAX};
use crate::secret::Secret;

use super::auth::Auth;
use super::cancel::Cancel;
use super::client::{Body, Method, Net, Request, Response, Timeouts};
use super::egress::Purpose;
use super::error::NetError;
use super::sse_reader::{SseError, SseFrame, SseParser};
use super::url::BaseUrl;

/// A client of one daemon.
#[derive(Debug)]
pub struct ApiClient {
    net: Net,
    base: BaseUrl,
    token: Option<Arc<Secret>>,
    timeouts: Timeouts,
    cancel: Cancel,
}

/// A whole reply, of any status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiReply {
    /// The HTTP status.
    pub status: u16,
    /// The `Content-Type` without parameters, in lower case; empty when absent.
    pub content_type: String,
    /// The daemon's request id, for its log.
    pub request_id: Option<String>,
    /// `Retry-After`, as sent.
    pub retry_after: Option<String>,
    /// Header lines in the order received; names in lower case, values as far as they are text.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// What a request for a stream got.
#[derive(Debug)]
pub enum ApiStream {
    /// An event stream.
    Events(Box<Events>),
    /// Something else, usually a problem.
    Reply(ApiReply),
}

/// Why a stream of events ended early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamError {
    /// The connection.
    Net(NetError),
    /// The framing.
    Sse(SseError),
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(error) => error.fmt(f),
            Self::Sse(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StreamError {}

impl ApiClient {
    /// A client of the daemon at `base`, with `token` as its bearer token.
    pub fn new(net: Net, base: BaseUrl, token: Option<Secret>) -> Self {
        let timeouts = Timeouts {
            connect_ms: CLIENT_CONNECT_MS,
            first_byte_ms: CLIENT_IDLE_MS,
            idle_ms: CLIENT_IDLE_MS,
            total_ms: None,
        };
        Self { net, base, token: token.map(Arc::new), timeouts, cancel: Cancel::new() }
    }

    /// Replaces the default limits of time.
    pub fn with_timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// The daemon's address.
    pub fn base(&self) -> &BaseUrl {
        &self.base
    }

    /// The trust roots in use, for `status`.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// A handle that ends this client's requests, present and future.
    pub fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }

    /// Sends one request and reads the whole reply. `path_and_query` starts with `/`; a body is sent as JSON.
    ///
    /// # Errors
    /// There is no reply; a reply of any status is `Ok`.
    pub fn call(
        &self,
        method: Method,
        path_and_query: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<ApiReply, NetError> {
        let mut all = vec![("accept", "application/json")];
        if body.is_some() {
            all.push(("content-type", "application/json"));
        }
        all.extend_from_slice(headers);
        reply(self.send(method, path_and_query, &all, body, CLIENT_REPLY_BYTES_MAX as u64)?)
    }

    /// `GET` with a whole reply.
    ///
    /// # Errors
    /// As [`ApiClient::call`].
    pub fn get(&self, path_and_query: &str) -> Result<ApiReply, NetError> {
        self.call(Method::Get, path_and_query, &[], None)
    }

    /// `POST` of a JSON body, with further header lines such as `Idempotency-Key`.
    ///
    /// # Errors
    /// As [`ApiClient::call`].
    pub fn post(&self, path_and_query: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<ApiReply, NetError> {
        self.call(Method::Post, path_and_query, headers, Some(body))
    }

    /// `PUT` of a JSON body.
    ///
    /// # Errors
    /// As [`ApiClient::call`].
    pub fn put(&self, path_and_query: &str, body: &[u8]) -> Result<ApiReply, NetError> {
        self.call(Method::Put, path_and_query, &[], Some(body))
    }

    /// `DELETE`.
    ///
    /// # Errors
    /// As [`ApiClient::call`].
    pub fn delete(&self, path_and_query: &str) -> Result<ApiReply, NetError> {
        self.call(Method::Delete, path_and_query, &[], None)
    }

    /// Opens an event stream, continuing after `last_event_id` when given.
    ///
    /// # Errors
    /// There is no answer; an answer that is no event stream is [`ApiStream::Reply`].
    pub fn stream(&self, path_and_query: &str, last_event_id: Option<&str>) -> Result<ApiStream, NetError> {
        let mut headers = vec![("accept", "text/event-stream")];
        if let Some(id) = last_event_id {
            headers.push(("last-event-id", id));
        }
        // A stream lives as long as both sides want it to; one frame and one read are bounded.
        let response = self.send(Method::Get, path_and_query, &headers, None, u64::MAX)?;
        if response.status != 200 {
            return Ok(ApiStream::Reply(reply(response)?));
        }
        if content_type(&response) != "text/event-stream" {
            // It may be a stream under another name, whose end never comes.
            return Ok(ApiStream::Reply(head(&response)));
        }
        let parser = SseParser::new(CLIENT_FRAME_BYTES_MAX);
        Ok(ApiStream::Events(Box::new(Events { body: response.body, parser, buffer: vec![0; 16 * 1024] })))
    }

    fn send(
        &self,
        method: Method,
        path_and_query: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
        body_bytes_max: u64,
    ) -> Result<Response, NetError> {
        let target = self.base.target(path_and_query);
        let auth = self.token.clone().map(|token| Auth::bearer_from(move || Ok(Secret::new(token.expose().to_vec()))));
        let timeouts = self.timeouts;
        let purpose = Purpose::CommandLine;
        let request = Request {
            method,
            target: &target,
            purpose,
            allow_private: false,
            headers,
            auth,
            body,
            timeouts,
            body_bytes_max,
        };
        self.net.send(request, &self.cancel)
    }
}

fn content_type(response: &Response) -> String {
    let value = response.header("content-type").unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn head(response: &Response) -> ApiReply {
    let text = |name| response.header(name).map(str::to_string);
    ApiReply {
        status: response.status,
        content_type: content_type(response),
        request_id: text("x-request-id"),
        retry_after: text("retry-after"),
        headers: response.headers().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        body: Vec::new(),
    }
}

fn reply(mut response: Response) -> Result<ApiReply, NetError> {
    let head = head(&response);
    response.body.set_bytes_max(CLIENT_REPLY_BYTES_MAX as u64);
    let body = response.body.read_to_end()?;
    Ok(ApiReply { body, ..head })
}

/// An open event stream.
pub struct Events {
    body: Body,
    parser: SseParser,
    buffer: Vec<u8>,
}

impl Events {
    /// Waits for the next event; `None` when the daemon ended the stream.
    ///
    /// # Errors
    /// The connection broke or fell silent, the request was cancelled, or a frame is malformed.
    pub fn next_frame(&mut self) -> Result<Option<SseFrame>, StreamError> {
        loop {
            if let Some(frame) = self.parser.next_frame().map_err(StreamError::Sse)? {
                return Ok(Some(frame));
            }
            match self.body.read(&mut self.buffer).map_err(StreamError::Net)? {
                0 => return Ok(None),
                count => self.parser.push(&self.buffer[..count]),
            }
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}
