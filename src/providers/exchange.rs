//! One attempt of one turn: the request, its sending, and the reading of the answer.
//! Owns: what is the same for every driver on the way out and back.
//! May touch: the network through `net`.
//! Never: retries, or takes a stream without its end for an answer.

use ring::digest::{self, SHA256};

use crate::clock::Clock;
use crate::hex::to_hex;
use crate::limits::{
    PROVIDER_ERROR_BODY_BYTES_MAX, PROVIDER_REQUEST_BYTES_MAX, PROVIDER_SETTLED_IDLE_MS, PROVIDER_STREAM_BYTES_MAX,
};
use crate::net::{Auth, Cancel, Method, Net, NetError, Phase, Purpose, Request, Response, Target};

use super::driver::{ANTHROPIC_VERSION, CredentialHeader, Driver};
use super::error::{self, ErrorClass, ProviderError, Retry};
use super::message::{InputPart, Message, TurnEvent, TurnOutcome, TurnRequest};
use super::routes::Route;
use super::stream::StreamReader;
use super::{anthropic, chat, google, openai};

/// What one attempt needs from its surroundings.
pub struct Attempt<'a> {
    /// The outbound client.
    pub net: &'a Net,
    /// The host's clock, for dates in retry hints.
    pub clock: &'a dyn Clock,
    /// Ends the attempt from another thread.
    pub cancel: &'a Cancel,
    /// The route's credential; `None` only for routes without one. The driver chooses its header.
    pub auth: Option<Auth>,
}

/// What was exchanged with the provider, for the audit record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exchange {
    /// The HTTP status, when a response head came.
    pub http_status: Option<u16>,
    /// Bytes of the response body that were read.
    pub response_bytes: u64,
    /// SHA-256 of these bytes, when a response head came.
    pub response_sha256: Option<[u8; 32]>,
}

/// The end of one attempt.
#[derive(Debug)]
pub struct Turn {
    /// The answer, or why there is none.
    pub result: Result<TurnOutcome, ProviderError>,
    /// What went over the wire.
    pub exchange: Exchange,
}

/// A request ready to be sent, as often as needed. Its digest can be recorded before anything leaves.
#[derive(Debug)]
pub struct PreparedTurn<'r> {
    route: &'r Route,
    target: Target,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    body_sha256: [u8; 32],
}

impl<'r> PreparedTurn<'r> {
    /// Builds the request of the route's driver. Assistant messages of this route and model are replayed as
    /// received; others as text, calls and results, since reasoning data is worthless to another model and private
    /// to its vendor.
    ///
    /// # Errors
    /// The conversation is over the size limit of one request, a tool's schema is no JSON, the route cannot take
    /// pictures or documents, or the options contradict what the model can do.
    pub fn new(route: &'r Route, request: &TurnRequest<'_>) -> Result<Self, ProviderError> {
        check_input(route, request)?;
        let mut headers = vec![("content-type", "application/json".to_string())];
        let body = match route.driver {
            Driver::Openai | Driver::Xai => openai::body(route, request)?,
            Driver::OpenaiCompatible | Driver::Openrouter => chat::body(route, request)?,
            Driver::Anthropic => anthropic::body(route, request)?,
            Driver::Google => google::body(route, request)?,
        };
        // The value that every vendor takes for a stream, and what their gateways look for.
        headers.push(("accept", "text/event-stream".to_string()));
        let mut add = |name, value: Option<&str>| headers.extend(value.map(|value| (name, value.to_string())));
        add("openai-organization", route.organization.as_deref());
        add("openai-project", route.project.as_deref());
        if route.driver == Driver::Anthropic {
            add("anthropic-version", Some(route.anthropic_version.as_deref().unwrap_or(ANTHROPIC_VERSION)));
            add("anthropic-beta", anthropic::beta(route, request).as_deref());
        }
        if route.driver == Driver::Openrouter {
            add("x-openrouter-title", Some("kheish-daemon"));
        }
        if body.len() > PROVIDER_REQUEST_BYTES_MAX {
            let message = format!("the conversation is over {PROVIDER_REQUEST_BYTES_MAX} bytes");
            return Err(ProviderError::new(ErrorClass::ContextTooLong, Retry::Never, "request_too_large", message));
        }
        let target = route.driver.target(&route.base_url, request.model);
        let body_sha256 = sha256(digest::digest(&SHA256, &body));
        Ok(Self { route, target, headers, body, body_sha256 })
    }

    /// The body, exactly as it will be sent.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// SHA-256 of [`PreparedTurn::body`].
    pub fn body_sha256(&self) -> [u8; 32] {
        self.body_sha256
    }

    /// Where it will be sent.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Sends the request and reads the stream to its end. Everything given to `on_event` is a preview and void
    /// when the result is an error.
    pub fn run(&self, attempt: Attempt<'_>, on_event: &mut dyn FnMut(TurnEvent<'_>)) -> Turn {
        let mut exchange = Exchange::default();
        let clock = attempt.clock;
        let result = self.send(attempt).and_then(|response| {
            exchange.http_status = Some(response.status);
            let mut tap = Tap { digest: digest::Context::new(&SHA256), bytes: 0 };
            let result = self.read_answer(response, clock, &mut tap, on_event);
            exchange.response_bytes = tap.bytes;
            exchange.response_sha256 = Some(sha256(tap.digest.finish()));
            result
        });
        Turn { result, exchange }
    }

    fn send(&self, attempt: Attempt<'_>) -> Result<Response, ProviderError> {
        // What belongs to the credential wins over what the route says.
        let labels = attempt.auth.as_ref().map(|auth| auth.labels().to_vec()).unwrap_or_default();
        let own = self.headers.iter().filter(|(name, _)| labels.iter().all(|(label, _)| label != name));
        let headers: Vec<(&str, &str)> = own.chain(&labels).map(|(name, value)| (*name, value.as_str())).collect();
        let version = self.route.anthropic_version.as_deref().unwrap_or(ANTHROPIC_VERSION);
        let auth = attempt.auth.map(|auth| match self.route.driver.credential_header(version) {
            CredentialHeader::Bearer => auth,
            CredentialHeader::Named(name) => auth.in_header(name),
        });
        let request = Request {
            method: Method::Post,
            target: &self.target,
            purpose: Purpose::Provider,
            allow_private: false,
            headers: &headers,
            auth,
            body: Some(&self.body),
            timeouts: self.route.timeouts,
            body_bytes_max: PROVIDER_STREAM_BYTES_MAX,
        };
        match &self.route.trust {
            Some(trust) => Ok(attempt.net.trusting(trust).send(request, attempt.cancel)?),
            None => Ok(attempt.net.send(request, attempt.cancel)?),
        }
    }

    fn read_answer(
        &self,
        mut response: Response,
        clock: &dyn Clock,
        tap: &mut Tap,
        on_event: &mut dyn FnMut(TurnEvent<'_>),
    ) -> Result<TurnOutcome, ProviderError> {
        if response.status != 200 {
            let body = response.body.read_prefix(PROVIDER_ERROR_BODY_BYTES_MAX)?;
            tap.saw(&body);
            return Err(error::from_http(response.status, |name| response.header(name), &body, clock.now_ms()));
        }
        let content_type = response.header("content-type").unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        let outcome = if media_type.eq_ignore_ascii_case("text/event-stream") {
            self.read_stream(&mut response, tap, on_event)
        } else {
            let body = response.body.read_prefix(PROVIDER_ERROR_BODY_BYTES_MAX)?;
            tap.saw(&body);
            // Some gateways report failures with status 200.
            Err(error::from_stray_text(&body)
                .unwrap_or_else(|| ProviderError::malformed("the provider's answer is not an event stream")))
        };
        outcome.map_err(|error| ProviderError { http_status: Some(200), ..error })
    }

    fn read_stream(
        &self,
        response: &mut Response,
        tap: &mut Tap,
        on_event: &mut dyn FnMut(TurnEvent<'_>),
    ) -> Result<TurnOutcome, ProviderError> {
        let seed = to_hex(&self.body_sha256[..4]);
        let mut reader = StreamReader::new(self.route.driver, &seed);
        let mut buffer = vec![0u8; 16 * 1024];
        let mut was_settled = false;
        loop {
            let count = match response.body.read(&mut buffer) {
                Ok(0) => return reader.end(true),
                Err(NetError::Io { .. }) => return reader.end(false),
                // The answer is there; only figures that were promised have not come.
                Err(NetError::Timeout { phase: Phase::Idle, .. }) if reader.is_settled() => return reader.end(true),
                Ok(count) => count,
                Err(error) => return Err(error.into()),
            };
            tap.saw(&buffer[..count]);
            if let Some(outcome) = reader.push(&buffer[..count], on_event)? {
                return Ok(outcome);
            }
            if reader.is_settled() && !std::mem::replace(&mut was_settled, true) {
                response.body.set_idle_ms(self.route.timeouts.idle_ms.min(PROVIDER_SETTLED_IDLE_MS));
            }
        }
    }
}

/// Prepares and runs one attempt.
pub fn run_turn(
    route: &Route,
    request: &TurnRequest<'_>,
    attempt: Attempt<'_>,
    on_event: &mut dyn FnMut(TurnEvent<'_>),
) -> Turn {
    match PreparedTurn::new(route, request) {
        Ok(prepared) => prepared.run(attempt, on_event),
        Err(error) => Turn { result: Err(error), exchange: Exchange::default() },
    }
}

/// Pictures and documents go only where the route takes them.
fn check_input(route: &Route, request: &TurnRequest<'_>) -> Result<(), ProviderError> {
    let is_plain = |message: &Message| match message {
        Message::User { parts } => parts.iter().all(|part| matches!(part, InputPart::Text(_))),
        Message::Assistant { .. } | Message::ToolResults { .. } => true,
    };
    if route.capabilities.multimodal_input || request.messages.iter().all(is_plain) {
        return Ok(());
    }
    let message = "the conversation holds pictures or documents and the route takes none; next: choose another route, \
                   or set its multimodal_input to true where the model can";
    Err(ProviderError::new(ErrorClass::InvalidRequest, Retry::Never, "input_not_supported", message))
}

fn sha256(digest: digest::Digest) -> [u8; 32] {
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Counts and hashes what was read.
struct Tap {
    digest: digest::Context,
    bytes: u64,
}

impl Tap {
    fn saw(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}
