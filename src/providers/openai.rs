//! The OpenAI Responses driver: one attempt of one turn.
//! Owns: the request body and the way from the HTTP answer to an outcome.
//! May touch: the network through `net`.
//! Never: retries, or takes a stream without its terminal event for an answer.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use ring::digest::{self, SHA256};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::clock::Clock;
use crate::limits::{
    PROVIDER_ERROR_BODY_BYTES_MAX, PROVIDER_FRAME_BYTES_MAX, PROVIDER_REQUEST_BYTES_MAX, PROVIDER_STREAM_BYTES_MAX,
};
use crate::net::{Auth, Cancel, Method, Net, NetError, Request, Response, SseParser};

use super::error::{self, ErrorClass, ProviderError, Retry, VendorError};
use super::message::{InputPart, Message, TurnEvent, TurnOutcome, TurnRequest};
use super::openai_stream::Collector;
use super::routes::Route;

/// What one attempt needs from its surroundings.
pub struct Attempt<'a> {
    /// The outbound client.
    pub net: &'a Net,
    /// The host's clock, for dates in retry hints.
    pub clock: &'a dyn Clock,
    /// Ends the attempt from another thread.
    pub cancel: &'a Cancel,
    /// The route's credential; `None` only for routes without one.
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
    body: Vec<u8>,
    body_sha256: [u8; 32],
}

#[derive(Serialize)]
struct RequestBody<'a> {
    model: &'a str,
    stream: bool,
    store: bool,
    include: [&'static str; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    input: Vec<InputItem<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
}

#[derive(Serialize)]
struct Tool<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    description: &'a str,
    parameters: &'a RawValue,
    strict: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum InputItem<'a> {
    Message { role: &'static str, content: Vec<Part<'a>> },
    AsReceived(&'a RawValue),
    Call(CallItem<'a>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum CallItem<'a> {
    FunctionCall { call_id: &'a str, name: &'a str, arguments: &'a str },
    FunctionCallOutput { call_id: &'a str, output: &'a str },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part<'a> {
    InputText { text: &'a str },
    InputImage { image_url: String },
    InputFile { filename: &'a str, file_data: String },
    OutputText { text: &'a str, annotations: [(); 0] },
}

impl<'r> PreparedTurn<'r> {
    /// Builds the request body. Assistant messages of this route and model are replayed as received; others
    /// as plain text, since reasoning data is worthless to another model and private to its vendor.
    ///
    /// # Errors
    /// The conversation is over the size limit of one request.
    pub fn new(route: &'r Route, request: &TurnRequest<'_>) -> Result<Self, ProviderError> {
        let mut input = Vec::with_capacity(request.messages.len());
        for message in request.messages {
            match message {
                Message::User { parts } => {
                    input.push(InputItem::Message { role: "user", content: parts.iter().map(user_part).collect() });
                }
                Message::Assistant { items, origin, .. }
                    if !items.is_empty() && origin.route == route.id && origin.model == request.model =>
                {
                    input.extend(items.iter().map(|item| InputItem::AsReceived(item)));
                }
                Message::Assistant { text, tool_calls, .. } => {
                    if !text.is_empty() || tool_calls.is_empty() {
                        let content = vec![Part::OutputText { text, annotations: [] }];
                        input.push(InputItem::Message { role: "assistant", content });
                    }
                    input.extend(tool_calls.iter().map(|call| {
                        let (call_id, name, arguments) = (&*call.call_id, &*call.name, &*call.arguments);
                        InputItem::Call(CallItem::FunctionCall { call_id, name, arguments })
                    }));
                }
                Message::ToolResults { results } => input.extend(results.iter().map(|result| {
                    let (call_id, output) = (&*result.call_id, &*result.content);
                    InputItem::Call(CallItem::FunctionCallOutput { call_id, output })
                })),
            }
        }
        let mut tools = Vec::with_capacity(request.tools.len());
        for tool in request.tools {
            let parameters: &RawValue = serde_json::from_str(&tool.input_schema).map_err(|error| {
                let message = format!("the input schema of tool {} is no JSON: {error}", tool.name);
                ProviderError::new(ErrorClass::InvalidRequest, Retry::Never, "tool_schema_invalid", message)
            })?;
            let (name, description) = (&*tool.name, &*tool.description);
            tools.push(Tool { kind: "function", name, description, parameters, strict: false });
        }
        let body = RequestBody {
            model: request.model,
            stream: true,
            store: false,
            include: ["reasoning.encrypted_content"],
            instructions: request.instructions.filter(|text| !text.is_empty()),
            max_output_tokens: request.max_output_tokens,
            temperature: request.temperature,
            input,
            tools,
        };
        let body = serde_json::to_vec(&body).expect("text and raw JSON always serialise");
        if body.len() > PROVIDER_REQUEST_BYTES_MAX {
            let message = format!("the conversation is over {PROVIDER_REQUEST_BYTES_MAX} bytes");
            return Err(ProviderError::new(ErrorClass::ContextTooLong, Retry::Never, "request_too_large", message));
        }
        let body_sha256 = sha256(digest::digest(&SHA256, &body));
        Ok(Self { route, body, body_sha256 })
    }

    /// The body, exactly as it will be sent.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// SHA-256 of [`PreparedTurn::body`].
    pub fn body_sha256(&self) -> [u8; 32] {
        self.body_sha256
    }

    /// Sends the request and reads the stream to its terminal event. Everything given to `on_event` is a
    /// preview and void when the result is an error.
    pub fn run(&self, attempt: Attempt<'_>, on_event: &mut dyn FnMut(TurnEvent<'_>)) -> Turn {
        let mut exchange = Exchange::default();
        let clock = attempt.clock;
        let result = self.send(attempt).and_then(|response| {
            exchange.http_status = Some(response.status);
            let mut tap = Tap { digest: digest::Context::new(&SHA256), bytes: 0 };
            let result = read_answer(response, clock, &mut tap, on_event);
            exchange.response_bytes = tap.bytes;
            exchange.response_sha256 = Some(sha256(tap.digest.finish()));
            result
        });
        Turn { result, exchange }
    }

    fn send(&self, attempt: Attempt<'_>) -> Result<Response, ProviderError> {
        let mut headers = vec![("content-type", "application/json"), ("accept", "text/event-stream")];
        let optional = [("openai-organization", &self.route.organization), ("openai-project", &self.route.project)];
        for (name, value) in optional {
            if let Some(value) = value {
                headers.push((name, value.as_str()));
            }
        }
        let request = Request {
            method: Method::Post,
            target: self.route.target(),
            headers: &headers,
            auth: attempt.auth,
            body: Some(&self.body),
            timeouts: self.route.timeouts,
            body_bytes_max: PROVIDER_STREAM_BYTES_MAX,
        };
        Ok(attempt.net.send(request, attempt.cancel)?)
    }
}

fn user_part(part: &InputPart) -> Part<'_> {
    let data_url =
        |media_type: &str, bytes: &[u8]| format!("data:{media_type};base64,{}", BASE64_STANDARD.encode(bytes));
    match part {
        InputPart::Text(text) => Part::InputText { text },
        InputPart::Image { media_type, bytes } => Part::InputImage { image_url: data_url(media_type, bytes) },
        InputPart::Document { media_type, name, bytes } => {
            Part::InputFile { filename: name, file_data: data_url(media_type, bytes) }
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

fn read_answer(
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
    let is_stream = content_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream");
    if !is_stream {
        let body = response.body.read_prefix(PROVIDER_ERROR_BODY_BYTES_MAX)?;
        tap.saw(&body);
        // Some gateways report failures with status 200.
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        return Err(match value.get("error") {
            Some(object) if object.is_object() => error::from_stream(&VendorError::from_object(object)),
            _ => ProviderError {
                http_status: Some(200),
                ..ProviderError::malformed("the provider's answer is not an event stream")
            },
        });
    }
    read_stream(&mut response, tap, on_event).map_err(|error| ProviderError { http_status: Some(200), ..error })
}

fn read_stream(
    response: &mut Response,
    tap: &mut Tap,
    on_event: &mut dyn FnMut(TurnEvent<'_>),
) -> Result<TurnOutcome, ProviderError> {
    let mut parser = SseParser::new(PROVIDER_FRAME_BYTES_MAX);
    let mut collector = Collector::default();
    let mut buffer = vec![0u8; 16 * 1024];
    loop {
        let count = match response.body.read(&mut buffer) {
            Ok(0) | Err(NetError::Io { .. }) => return Err(ProviderError::truncated()),
            Ok(count) => count,
            Err(error) => return Err(error.into()),
        };
        tap.saw(&buffer[..count]);
        parser.push(&buffer[..count]);
        while let Some(frame) = parser.next_frame().map_err(|error| ProviderError::malformed(error.to_string()))? {
            if let Some(outcome) = collector.frame(&frame.data, on_event)? {
                return Ok(outcome);
            }
        }
    }
}
