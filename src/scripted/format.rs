//! The wire formats spoken, told apart by path.
//! Owns: which path is which format, what of a request matters, and the shape of errors in each.
//! Never: chooses an answer.

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::answer::Answer;
use super::frames::{Event, Events};
use super::script::HttpError;
use super::{chat, gemini, messages, responses};

/// A wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// OpenAI Responses.
    Responses,
    /// Chat Completions.
    Chat,
    /// Anthropic Messages.
    Messages,
    /// Google generateContent.
    Gemini,
}

/// What a request asks for.
pub(super) struct Wanted {
    pub model: String,
    pub stream: bool,
    /// Text of the last thing that a user said.
    pub input: String,
    /// Text of the tool results, when they are the last thing that was said.
    pub result: Option<String>,
}

/// What a path stands for.
pub(super) enum Path {
    /// A turn.
    Turn(Format),
    /// The counting of tokens.
    Count(Format),
    /// The list of models.
    Models,
    /// One model.
    Model(String),
}

impl Path {
    /// Reads the path of a request, without its query.
    pub(super) fn of(method: &str, path: &str) -> Option<Self> {
        match method {
            "POST" if path.ends_with("/responses") => Some(Self::Turn(Format::Responses)),
            "POST" if path.ends_with("/chat/completions") => Some(Self::Turn(Format::Chat)),
            "POST" if path.ends_with("/messages") => Some(Self::Turn(Format::Messages)),
            "POST" if path.ends_with(":streamGenerateContent") || path.ends_with(":generateContent") => {
                Some(Self::Turn(Format::Gemini))
            }
            "POST" if path.ends_with("/messages/count_tokens") => Some(Self::Count(Format::Messages)),
            "POST" if path.ends_with("/responses/input_tokens") => Some(Self::Count(Format::Responses)),
            "POST" if path.ends_with(":countTokens") => Some(Self::Count(Format::Gemini)),
            "GET" if path.ends_with("/models") => Some(Self::Models),
            "GET" => {
                let (_, model) = path.rsplit_once("/models/")?;
                Some(Self::Model(percent_decode_str(model).decode_utf8_lossy().into_owned()))
            }
            _ => None,
        }
    }
}

/// The texts of a list of parts, or the text itself.
pub(super) fn text_of(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
            (!texts.is_empty()).then(|| texts.join("\n"))
        }
        _ => None,
    }
}

/// The last text of a list of parts, or the text itself: where a client joins neighbours of one role, the last part is
/// what was said last.
pub(super) fn last_text_of(content: &Value) -> Option<String> {
    match content {
        Value::Array(parts) => parts.iter().rev().find_map(|part| part["text"].as_str()).map(str::to_string),
        content => text_of(content),
    }
}

impl Format {
    #[cfg(test)]
    pub(super) const ALL: [Self; 4] = [Self::Responses, Self::Chat, Self::Messages, Self::Gemini];

    /// Reads a request's body; `path` names model and streaming where the format puts them there.
    pub(super) fn read(self, path: &str, body: &Value) -> Wanted {
        let (input, result) = match self {
            Self::Responses => responses::last_said(body),
            Self::Chat => chat::last_said(body),
            Self::Messages => messages::last_said(body),
            Self::Gemini => gemini::last_said(body),
        };
        if self == Self::Gemini {
            let name = path.rsplit_once("/models/").map_or("", |(_, name)| name);
            let model = name.rsplit_once(':').map_or(name, |(model, _)| model);
            let model = percent_decode_str(model).decode_utf8_lossy().into_owned();
            return Wanted { model, stream: name.ends_with(":streamGenerateContent"), input, result };
        }
        let model = body["model"].as_str().unwrap_or_default().to_string();
        Wanted { model, stream: body["stream"] == true, input, result }
    }

    /// The events of `answer`.
    pub(super) fn events(self, answer: &Answer<'_>, events: &mut Events) {
        match self {
            Self::Responses => responses::events(answer, events),
            Self::Chat => chat::events(answer, events),
            Self::Messages => messages::events(answer, events),
            Self::Gemini => gemini::events(answer, events),
        }
    }

    /// The answer as one JSON object, for requests that do not stream.
    pub(super) fn whole(self, answer: &Answer<'_>) -> Value {
        match self {
            Self::Responses => responses::whole(answer),
            Self::Chat => chat::whole(answer),
            Self::Messages => messages::whole(answer),
            Self::Gemini => gemini::whole(answer),
        }
    }

    /// The answer to a request for a count.
    pub(super) fn count(self, tokens: usize) -> Value {
        match self {
            Self::Gemini => json!({ "totalTokens": tokens }),
            Self::Responses => json!({"object": "response.input_tokens", "input_tokens": tokens}),
            Self::Messages | Self::Chat => json!({ "input_tokens": tokens }),
        }
    }

    /// An event that no client knows, with `padding` in it.
    pub(super) fn unknown_event(self, padding: &str) -> Option<Event> {
        let (name, data) = match self {
            Self::Responses | Self::Messages => {
                let name = "scripted.unknown";
                (Some(name.to_string()), json!({"type": name, "padding": padding}))
            }
            Self::Chat => (
                None,
                json!({"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "scripted",
                              "choices": [], "padding": padding}),
            ),
            Self::Gemini => (None, json!({ "padding": padding })),
        };
        Some(Event { name, data: data.to_string(), delayed: false })
    }

    /// Ends the answer as a failed one.
    pub(super) fn failure(self, answer: &Answer<'_>, code: Option<&str>, events: &mut Events) {
        match self {
            Self::Responses => responses::failure(answer, code.unwrap_or("server_error"), events),
            _ => {
                let error = self.stream_error(code);
                match self {
                    Self::Messages => events.named("error", false, &error),
                    _ => events.plain(false, &error),
                }
            }
        }
    }

    /// Ends the answer with an error beside the stream of events: an `error` event, or for Google, which has none,
    /// plain JSON without `data:`.
    pub(super) fn error_event(self, answer: &Answer<'_>, code: Option<&str>, events: &mut Events) -> Option<Vec<u8>> {
        match self {
            Self::Responses => responses::error_event(code.unwrap_or("server_error"), events),
            Self::Chat | Self::Messages => self.failure(answer, code, events),
            Self::Gemini => {
                let error = self.stream_error(code);
                let text = serde_json::to_string_pretty(&error).expect("texts and numbers always serialise");
                return Some(text.into_bytes());
            }
        }
        None
    }

    fn stream_error(self, code: Option<&str>) -> Value {
        let message = "scripted failure";
        match self {
            Self::Messages => {
                json!({"type": "error", "error": {"type": code.unwrap_or("api_error"), "message": message}})
            }
            Self::Gemini => {
                let status = code.unwrap_or("INTERNAL").to_ascii_uppercase();
                json!({"error": {"code": 500, "message": message, "status": status}})
            }
            Self::Responses | Self::Chat => {
                json!({"error": {"code": code.unwrap_or("server_error"), "message": message}})
            }
        }
    }

    /// The body of an HTTP error.
    pub(super) fn error_body(self, error: &HttpError) -> Value {
        let message = error.message.as_deref().unwrap_or("scripted error");
        match self {
            Self::Responses | Self::Chat => json!({"error": {
                "message": message, "type": error.kind, "param": error.param, "code": error.code}}),
            Self::Messages => {
                let kind = error.kind.as_deref().unwrap_or(match error.status {
                    401 => "authentication_error",
                    402 => "billing_error",
                    403 => "permission_error",
                    404 => "not_found_error",
                    429 => "rate_limit_error",
                    504 => "timeout_error",
                    529 => "overloaded_error",
                    500.. => "api_error",
                    _ => "invalid_request_error",
                });
                let details = error.code.as_ref().map(|code| json!({ "error_code": code }));
                json!({"type": "error", "error": {"type": kind, "message": message, "details": details}})
            }
            Self::Gemini => {
                let status = error.kind.as_deref().unwrap_or(match error.status {
                    401 => "UNAUTHENTICATED",
                    403 => "PERMISSION_DENIED",
                    404 => "NOT_FOUND",
                    429 => "RESOURCE_EXHAUSTED",
                    408 => "CANCELLED",
                    300..500 => "INVALID_ARGUMENT",
                    503 => "UNAVAILABLE",
                    504 => "DEADLINE_EXCEEDED",
                    _ => "INTERNAL",
                });
                let reason = error.code.as_ref().map(|code| {
                    json!({
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": code.to_ascii_uppercase()})
                });
                let delay = error.retry_delay.as_ref().map(|delay| {
                    json!({
                    "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
                });
                let details: Vec<Value> = reason.into_iter().chain(delay).collect();
                json!({"error": {"code": error.status, "message": message, "status": status, "details": details}})
            }
        }
    }
}
