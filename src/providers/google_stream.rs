//! The chunks of a Google `streamGenerateContent` answer, folded into one outcome.
//! Owns: which parts are text, thought or call, and the condition of success: a finish reason and a clean end.
//! Never: touches a part that carries a signature; only plain neighbours are joined.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::limits::PROVIDER_ITEMS_MAX;

use super::error::{self, ErrorClass, ProviderError, Retry, VendorError};
use super::message::{Stop, ToolCall, TurnEvent, TurnOutcome, Usage};
use super::stream::{Collect, OnEvent};
use super::wire::{self, on_one_line, read, unreadable};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chunk<'a> {
    #[serde(borrow, default)]
    candidates: Option<Vec<Candidate<'a>>>,
    #[serde(default)]
    prompt_feedback: Option<Value>,
    #[serde(default)]
    usage_metadata: Option<Value>,
    #[serde(borrow, default)]
    response_id: Option<Cow<'a, str>>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate<'a> {
    #[serde(borrow, default)]
    content: Option<Content<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, default)]
    parts: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct FunctionCall<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    args: Option<&'a RawValue>,
}

/// Plain text or thought of which more may come.
struct Joined {
    is_thought: bool,
    text: String,
}

/// What has come so far.
pub(super) struct GoogleCollector {
    seed: String,
    started: bool,
    id: Option<String>,
    text: String,
    items: Vec<Box<RawValue>>,
    joined: Option<Joined>,
    calls: Vec<ToolCall>,
    finish: Option<String>,
    usage: Option<Usage>,
}

impl GoogleCollector {
    /// `seed` makes the ids of calls that came without one.
    pub(super) fn new(seed: &str) -> Self {
        Self {
            seed: seed.to_string(),
            started: false,
            id: None,
            text: String::new(),
            items: Vec::new(),
            joined: None,
            calls: Vec::new(),
            finish: None,
            usage: None,
        }
    }
}

impl Collect for GoogleCollector {
    fn frame(&mut self, data: &str, on_event: OnEvent<'_>) -> Result<Option<TurnOutcome>, ProviderError> {
        if data.trim().is_empty() || data.trim() == "[DONE]" {
            return Ok(None);
        }
        let chunk: Chunk<'_> = serde_json::from_str(data).map_err(|_| unreadable("a chunk"))?;
        if !std::mem::replace(&mut self.started, true) {
            on_event(TurnEvent::Started);
        }
        if let Some(error) = &chunk.error {
            return Err(error::from_stream(&VendorError::from_value(error)));
        }
        if self.id.is_none() {
            self.id = chunk.response_id.map(Cow::into_owned);
        }
        if let Some(usage) = chunk.usage_metadata.as_ref().filter(|usage| usage.is_object()) {
            self.usage = Some(read_usage(usage));
        }
        if let Some(reason) = chunk.prompt_feedback.as_ref().and_then(|it| it.get("blockReason")) {
            let reason = reason.as_str().and_then(filter_code).unwrap_or("prompt_blocked");
            let message = "the provider's content filter refused the conversation";
            return Err(ProviderError::new(ErrorClass::ContentFilter, Retry::Never, reason, message));
        }
        // One answer was asked for.
        if let Some(candidate) = chunk.candidates.unwrap_or_default().into_iter().next() {
            for raw in candidate.content.and_then(|content| content.parts).unwrap_or_default() {
                self.part(raw, on_event)?;
            }
            if let Some(reason) = candidate.finish_reason.filter(|reason| !reason.is_empty()) {
                self.finish = Some(reason.into_owned());
            }
        }
        Ok(None)
    }

    fn end(&mut self, clean: bool) -> Result<TurnOutcome, ProviderError> {
        let Some(finish) = self.finish.take().filter(|_| clean) else { return Err(ProviderError::truncated()) };
        self.close_joined();
        let stop = match finish.as_str() {
            "STOP" if self.calls.is_empty() => Stop::Done,
            "STOP" => Stop::ToolCalls,
            // The rest would come for a continuation token, which this daemon does not ask for.
            "MAX_TOKENS" | "CONTINUATION" => Stop::Length,
            reason => return Err(failure(reason)),
        };
        let (text, items) = (std::mem::take(&mut self.text), std::mem::take(&mut self.items));
        let tool_calls = std::mem::take(&mut self.calls);
        Ok(TurnOutcome { text, items, tool_calls, usage: self.usage, stop, response_id: self.id.take() })
    }
}

impl GoogleCollector {
    fn part(&mut self, raw: &RawValue, on_event: OnEvent<'_>) -> Result<(), ProviderError> {
        let fields: BTreeMap<Cow<'_, str>, &RawValue> = read(raw, "a part")?;
        let is_thought = fields.get("thought").is_some_and(|thought| thought.get() == "true");
        let is_plain = fields.keys().all(|key| matches!(&**key, "text" | "thought"));
        if let Some(text) = fields.get("text") {
            let text: Cow<'_, str> = read(text, "a text")?;
            let text = &*text;
            let event = if is_thought { TurnEvent::ReasoningDelta(text) } else { TurnEvent::TextDelta(text) };
            if !is_thought {
                self.text.push_str(text);
            }
            if !text.is_empty() {
                on_event(event);
            }
            if is_plain {
                match &mut self.joined {
                    Some(joined) if joined.is_thought == is_thought => joined.text.push_str(text),
                    _ => {
                        self.close_joined();
                        self.joined = Some(Joined { is_thought, text: text.to_string() });
                    }
                }
                return Ok(());
            }
        }
        if let Some(raw) = fields.get("functionCall").or_else(|| fields.get("function_call")) {
            let call: FunctionCall<'_> = read(raw, "a function call")?;
            let name = call.name.as_deref().unwrap_or_default().to_string();
            let call_id = match call.id.as_deref().filter(|id| !id.is_empty()) {
                Some(id) => id.to_string(),
                None => wire::synthetic_call_id(&self.seed, self.calls.len()),
            };
            let arguments = call.args.map_or("{}", |args| args.get()).to_string();
            self.calls.push(ToolCall { call_id, name, arguments });
        }
        self.close_joined();
        self.items.push(on_one_line(raw));
        if self.items.len() > PROVIDER_ITEMS_MAX {
            let error = ProviderError::malformed(format!("the answer has over {PROVIDER_ITEMS_MAX} parts"));
            return Err(ProviderError { retry: Retry::Never, ..error });
        }
        Ok(())
    }

    fn close_joined(&mut self) {
        let Some(joined) = self.joined.take().filter(|joined| !joined.text.is_empty()) else { return };
        let text = &joined.text;
        let part = if joined.is_thought {
            serde_json::json!({"text": text, "thought": true})
        } else {
            serde_json::json!({ "text": text })
        };
        self.items.push(wire::raw(&part));
    }
}

/// The filter that a reason names, as a code.
fn filter_code(reason: &str) -> Option<&'static str> {
    const FILTERS: [(&str, &str); 15] = [
        ("SAFETY", "safety"),
        ("RECITATION", "recitation"),
        ("BLOCKLIST", "blocklist"),
        ("PROHIBITED_CONTENT", "prohibited_content"),
        ("SPII", "spii"),
        ("LANGUAGE", "language"),
        ("ESCALATION", "escalation"),
        ("MODEL_ARMOR", "model_armor"),
        ("JAILBREAK", "jailbreak"),
        ("IMAGE_SAFETY", "image_safety"),
        ("IMAGE_PROHIBITED_CONTENT", "image_prohibited_content"),
        ("IMAGE_RECITATION", "image_recitation"),
        ("IMAGE_OTHER", "image_other"),
        ("NO_IMAGE", "no_image"),
        ("OTHER", "blocked_other"),
    ];
    FILTERS.iter().find(|(name, _)| *name == reason).map(|(_, code)| *code)
}

/// A finish reason that is no answer.
fn failure(reason: &str) -> ProviderError {
    let of = |class, retry, code: &str, message: &str| ProviderError::new(class, retry, code, message);
    match reason {
        "MALFORMED_FUNCTION_CALL" | "MALFORMED_RESPONSE" | "OTHER" => {
            ProviderError::malformed("the model's answer went wrong at the provider")
        }
        "UNEXPECTED_TOOL_CALL" | "MISSING_THOUGHT_SIGNATURE" => of(
            ErrorClass::InvalidRequest,
            Retry::Never,
            if reason == "UNEXPECTED_TOOL_CALL" { "unexpected_tool_call" } else { "missing_thought_signature" },
            "the provider could not continue this conversation; next: start a new session, or use another model",
        ),
        "TOO_MANY_TOOL_CALLS" => of(
            ErrorClass::InvalidRequest,
            Retry::Never,
            "too_many_tool_calls",
            "the provider stopped a loop of tool calls; next: ask for less at once",
        ),
        "PUP_LIMITED_DISABLED" => {
            of(ErrorClass::Auth, Retry::Never, "account_limited", "the provider has limited or disabled the account")
        }
        reason => match filter_code(reason) {
            Some(code) => {
                let message = "the provider's content filter stopped the answer";
                of(ErrorClass::ContentFilter, Retry::Never, code, message)
            }
            None => ProviderError::malformed("the stream ended for a reason that is not known"),
        },
    }
}

/// The prompt includes what came from the cache; the candidates exclude the thoughts.
fn read_usage(object: &Value) -> Usage {
    let at = |name: &str| object.get(name).and_then(Value::as_u64).unwrap_or(0);
    let reasoning_tokens = at("thoughtsTokenCount");
    Usage {
        input_tokens: at("promptTokenCount").saturating_add(at("toolUsePromptTokenCount")),
        cached_input_tokens: at("cachedContentTokenCount"),
        cache_write_tokens: 0,
        output_tokens: at("candidatesTokenCount").saturating_add(reasoning_tokens),
        reasoning_tokens,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(frames: &[&str], clean: bool) -> Result<(TurnOutcome, String), ProviderError> {
        let mut collector = GoogleCollector::new("5eed");
        let mut text = String::new();
        for frame in frames {
            let ended = collector.frame(frame, &mut |event| {
                if let TurnEvent::TextDelta(delta) = event {
                    text.push_str(delta);
                }
            })?;
            assert!(ended.is_none(), "only the end of the body ends the answer");
        }
        collector.end(clean).map(|outcome| (outcome, text))
    }

    fn parts(parts: &str, more: &str) -> String {
        format!(r#"{{"candidates":[{{"content":{{"role":"model","parts":[{parts}]}}{more}}}]}}"#)
    }

    const STOP: &str = r#","finishReason":"STOP""#;

    #[test]
    fn signatures_stay_on_their_part_byte_for_byte_and_only_plain_neighbours_are_joined() {
        let frames = [
            parts(r#"{"text":"hm","thought":true}"#, ""),
            parts(r#"{"text":" so","thought":true}"#, ""),
            parts(r#"{"text":"a"}"#, ""),
            parts(r#"{"text":"b"}"#, ""),
            parts(r#"{"text":"c","thoughtSignature":"AQID-_=="}"#, ""),
            parts(
                r#"{"functionCall":{"name":"f","args":{"x":1.50}},"thoughtSignature":"+/8="},{"functionCall":{"id":"fc1","name":"g"}}"#,
                "",
            ),
            parts(r#"{"text":"","thoughtSignature":"c2ln"}"#, STOP),
        ];
        let frames: Vec<&str> = frames.iter().map(String::as_str).collect();
        let (turn, text) = fold(&frames, true).expect("answer");
        let items: Vec<&str> = turn.items.iter().map(|item| item.get()).collect();
        let expected = [
            r#"{"text":"hm so","thought":true}"#,
            r#"{"text":"ab"}"#,
            r#"{"text":"c","thoughtSignature":"AQID-_=="}"#,
            r#"{"functionCall":{"name":"f","args":{"x":1.50}},"thoughtSignature":"+/8="}"#,
            r#"{"functionCall":{"id":"fc1","name":"g"}}"#,
            r#"{"text":"","thoughtSignature":"c2ln"}"#,
        ];
        assert_eq!(items, expected);
        assert_eq!((turn.text.as_str(), text.as_str(), turn.stop), ("abc", "abc", Stop::ToolCalls));
        let calls: Vec<_> = turn.tool_calls.iter().map(|it| (&*it.call_id, &*it.name, &*it.arguments)).collect();
        assert_eq!(calls, [("call_local_5eed_0", "f", "{\"x\":1.50}"), ("fc1", "g", "{}")]);
    }

    #[test]
    fn an_answer_needs_a_finish_reason_and_a_clean_end() {
        let (text, done) = (parts(r#"{"text":"a"}"#, ""), parts("", STOP));
        for (frames, clean) in [(&[&*text][..], true), (&[], true), (&[&*text, &*done], false)] {
            assert!(fold(frames, clean).expect_err("cut").is_truncation());
        }
        let usage = r#"{"responseId":"r1","usageMetadata":{"promptTokenCount":9,"cachedContentTokenCount":4,"candidatesTokenCount":5,"thoughtsTokenCount":2,"toolUsePromptTokenCount":1}}"#;
        let (turn, _) = fold(&[&text, &done, usage], true).expect("answer");
        let usage = Usage {
            input_tokens: 10,
            cached_input_tokens: 4,
            cache_write_tokens: 0,
            output_tokens: 7,
            reasoning_tokens: 2,
        };
        assert_eq!((turn.usage, turn.stop, turn.response_id.as_deref()), (Some(usage), Stop::Done, Some("r1")));
    }

    #[test]
    fn finish_reasons_and_errors_have_their_class() {
        use ErrorClass::*;
        let finish = |reason: &str| fold(&[&parts("", &format!(r#","finishReason":"{reason}""#))], true);
        for (reason, class, retry) in [
            ("SAFETY", ContentFilter, Retry::Never),
            ("RECITATION", ContentFilter, Retry::Never),
            ("IMAGE_SAFETY", ContentFilter, Retry::Never),
            ("MALFORMED_FUNCTION_CALL", MalformedStream, Retry::Backoff),
            ("OTHER", MalformedStream, Retry::Backoff),
            ("MISSING_THOUGHT_SIGNATURE", InvalidRequest, Retry::Never),
            ("TOO_MANY_TOOL_CALLS", InvalidRequest, Retry::Never),
            ("PUP_LIMITED_DISABLED", Auth, Retry::Never),
            ("SOMETHING_NEW", MalformedStream, Retry::Backoff),
        ] {
            let error = finish(reason).expect_err(reason);
            assert_eq!((error.class, error.retry), (class, retry), "{reason}");
        }
        assert_eq!(finish("MAX_TOKENS").expect("answer").0.stop, Stop::Length);
        let class = |frame: &str| fold(&[frame], true).expect_err(frame).class;
        assert_eq!(class(r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#), ContentFilter);
        assert_eq!(class(r#"{"promptFeedback":{"blockReason":"NEW_ONE"}}"#), ContentFilter);
        assert_eq!(class(r#"{"error":{"code":503,"status":"UNAVAILABLE"}}"#), Overload);
        assert_eq!(class(r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}"#), RateLimit);
        assert_eq!(class("nope"), MalformedStream);
        assert_eq!(class(r#"{"candidates":[{"content":{"parts":[5]}}]}"#), MalformedStream);
    }
}
