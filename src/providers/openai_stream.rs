//! The events of an OpenAI Responses stream, folded into one outcome.
//! Owns: which event means what, and the condition of success: `response.completed` or `response.incomplete`.
//! Never: fails on an event, item or part of an unknown kind; these are ignored, items kept for replay.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::limits::PROVIDER_ITEMS_MAX;

use super::error::{self, ErrorClass, ProviderError, Retry, VendorError};
use super::message::{Stop, ToolCall, TurnEvent, TurnOutcome, Usage};
use super::stream::{Collect, OnEvent};
use super::wire::{on_one_line, read, unreadable};

/// An event with its parts unread, so that an unknown event cannot fail on a part of an unexpected type.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    item: Option<&'a RawValue>,
    #[serde(borrow, default)]
    output_index: Option<&'a RawValue>,
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ResponseObject<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    output: Option<Vec<&'a RawValue>>,
    #[serde(default)]
    usage: Option<Value>,
    #[serde(default)]
    incomplete_details: Option<Value>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    call_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    arguments: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct ContentPart<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    refusal: Option<Cow<'a, str>>,
}

/// What has come so far.
#[derive(Default)]
pub(super) struct ResponsesCollector {
    started: bool,
    /// Finished items by output index; indexes may have gaps.
    items: BTreeMap<u64, Box<RawValue>>,
    /// The text as previewed, for servers that send no items.
    preview: String,
    /// Output index of the last text delta.
    preview_index: Option<u64>,
}

/// Between two messages of one answer.
const MESSAGE_SEPARATOR: &str = "\n\n";

impl Collect for ResponsesCollector {
    fn frame(&mut self, data: &str, on_event: OnEvent<'_>) -> Result<Option<TurnOutcome>, ProviderError> {
        if data.trim().is_empty() {
            return Ok(None);
        }
        if data.trim() == "[DONE]" {
            return Err(ProviderError::truncated());
        }
        let event: Event<'_> = serde_json::from_str(data).map_err(|_| unreadable("an event"))?;
        let kind = event.kind.and_then(|kind| serde_json::from_str::<Cow<'_, str>>(kind.get()).ok());
        if !std::mem::replace(&mut self.started, true) {
            on_event(TurnEvent::Started);
        }
        match kind.as_deref() {
            Some("response.output_text.delta" | "response.refusal.delta") => self.text_delta(&event, on_event)?,
            Some("response.reasoning_summary_text.delta" | "response.reasoning_text.delta") => {
                if let Some(delta) = event.delta.and_then(|raw| serde_json::from_str::<Cow<'_, str>>(raw.get()).ok()) {
                    on_event(TurnEvent::ReasoningDelta(&delta));
                }
            }
            Some("response.output_item.done") => self.item_done(&event)?,
            Some("response.completed") => return self.finish(&event, Stop::Done).map(Some),
            Some("response.incomplete") => return self.finish_incomplete(&event).map(Some),
            Some("response.failed") => return Err(failed(&event)),
            Some("error") => return Err(stream_error(&event, data)),
            None if event.error.is_some() => return Err(stream_error(&event, data)),
            _ => {}
        }
        Ok(None)
    }
}

impl ResponsesCollector {
    fn text_delta(&mut self, event: &Event<'_>, on_event: OnEvent<'_>) -> Result<(), ProviderError> {
        let delta: Cow<'_, str> = read(event.delta.ok_or_else(|| unreadable("a text delta"))?, "a text delta")?;
        let index = event.output_index.and_then(|raw| serde_json::from_str(raw.get()).ok());
        if self.preview_index.is_some() && self.preview_index != index {
            self.preview.push_str(MESSAGE_SEPARATOR);
            on_event(TurnEvent::TextDelta(MESSAGE_SEPARATOR));
        }
        self.preview_index = index;
        if !delta.is_empty() {
            self.preview.push_str(&delta);
            on_event(TurnEvent::TextDelta(&delta));
        }
        Ok(())
    }

    fn item_done(&mut self, event: &Event<'_>) -> Result<(), ProviderError> {
        let item = event.item.ok_or_else(|| unreadable("an output item"))?;
        let next = self.items.last_key_value().map_or(0, |(last, _)| last.saturating_add(1));
        let index = event.output_index.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or(next);
        self.items.insert(index, on_one_line(item));
        if self.items.len() > PROVIDER_ITEMS_MAX {
            return Err(ProviderError {
                retry: Retry::Never,
                ..ProviderError::malformed(format!("the answer has over {PROVIDER_ITEMS_MAX} output items"))
            });
        }
        Ok(())
    }

    fn finish_incomplete(&mut self, event: &Event<'_>) -> Result<TurnOutcome, ProviderError> {
        let response: ResponseObject<'_> = terminal_response(event)?;
        let reason = response.incomplete_details.as_ref().and_then(|it| it.get("reason")).and_then(Value::as_str);
        if reason == Some("content_filter") {
            let message = "the provider's content filter stopped the answer";
            return Err(ProviderError::new(ErrorClass::ContentFilter, Retry::Never, "content_filter", message));
        }
        self.finish(event, Stop::Length)
    }

    fn finish(&mut self, event: &Event<'_>, stop: Stop) -> Result<TurnOutcome, ProviderError> {
        let response = terminal_response(event)?;
        let mut items: Vec<_> = std::mem::take(&mut self.items).into_values().collect();
        if items.is_empty() {
            items = response.output.unwrap_or_default().into_iter().map(on_one_line).collect();
            items.truncate(PROVIDER_ITEMS_MAX);
        }
        let mut texts: Vec<String> = Vec::new();
        let mut tool_calls = Vec::new();
        let mut refused = false;
        for raw in &items {
            let item: Item<'_> = read(raw, "an output item")?;
            match item.kind.as_deref() {
                Some("message") => texts.push(message_text(&item, &mut refused)?),
                Some("function_call") => tool_calls.push(tool_call(item)?),
                _ => {}
            }
        }
        texts.retain(|text| !text.is_empty());
        let text = if items.is_empty() { std::mem::take(&mut self.preview) } else { texts.join(MESSAGE_SEPARATOR) };
        let stop = match stop {
            Stop::Done if !tool_calls.is_empty() => Stop::ToolCalls,
            Stop::Done if refused => Stop::Refusal,
            stop => stop,
        };
        let usage = response.usage.as_ref().filter(|usage| usage.is_object()).map(usage);
        Ok(TurnOutcome { text, items, tool_calls, usage, stop, response_id: response.id.map(Cow::into_owned) })
    }
}

fn terminal_response<'a>(event: &Event<'a>) -> Result<ResponseObject<'a>, ProviderError> {
    read(event.response.ok_or_else(|| unreadable("a final event"))?, "a final event")
}

fn message_text(item: &Item<'_>, refused: &mut bool) -> Result<String, ProviderError> {
    let Some(content) = item.content else { return Ok(String::new()) };
    let parts: Vec<ContentPart<'_>> = read(content, "a message")?;
    let mut text = String::new();
    for part in parts {
        match part.kind.as_deref() {
            Some("output_text") => text.push_str(&part.text.unwrap_or_default()),
            Some("refusal") => {
                *refused = true;
                text.push_str(&part.refusal.unwrap_or_default());
            }
            _ => {}
        }
    }
    Ok(text)
}

fn tool_call(item: Item<'_>) -> Result<ToolCall, ProviderError> {
    let (Some(call_id), Some(name)) = (item.call_id, item.name) else {
        return Err(unreadable("a tool call"));
    };
    let arguments = item.arguments.unwrap_or_default().into_owned();
    Ok(ToolCall { call_id: call_id.into_owned(), name: name.into_owned(), arguments })
}

fn usage(object: &Value) -> Usage {
    let at = |pointer: &str| object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    Usage {
        input_tokens: at("/input_tokens"),
        cached_input_tokens: at("/input_tokens_details/cached_tokens"),
        cache_write_tokens: at("/input_tokens_details/cache_write_tokens"),
        output_tokens: at("/output_tokens"),
        reasoning_tokens: at("/output_tokens_details/reasoning_tokens"),
    }
}

fn failed(event: &Event<'_>) -> ProviderError {
    match terminal_response(event) {
        Ok(response) => error::from_stream(&VendorError::from_value(&response.error.unwrap_or_default())),
        Err(error) => error,
    }
}

/// Reads an `error` event, whose fields are at the top level or nested under `error`.
fn stream_error(event: &Event<'_>, data: &str) -> ProviderError {
    let nested: Option<Value> = event.error.and_then(|raw| serde_json::from_str(raw.get()).ok());
    match nested.filter(Value::is_object) {
        Some(object) => error::from_stream(&VendorError::from_value(&object)),
        None => {
            let mut flat: Value = serde_json::from_str(data).unwrap_or_default();
            // Here `type` is the event's, not the error's.
            if let Some(fields) = flat.as_object_mut() {
                fields.remove("type");
            }
            error::from_stream(&VendorError::from_value(&flat))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(frames: &[&str]) -> Result<Option<(TurnOutcome, String)>, ProviderError> {
        let mut collector = ResponsesCollector::default();
        let mut preview = String::new();
        for frame in frames {
            let outcome = collector.frame(frame, &mut |event| {
                if let TurnEvent::TextDelta(delta) = event {
                    preview.push_str(delta);
                }
            })?;
            if let Some(outcome) = outcome {
                return Ok(Some((outcome, preview)));
            }
        }
        Ok(None)
    }

    fn outcome(frames: &[&str]) -> TurnOutcome {
        fold(frames).expect("no error").expect("terminal event").0
    }

    const DONE: &str = r#"{"type":"response.completed","response":{"id":"resp_1","output":[]}}"#;

    #[test]
    fn the_finished_item_wins_over_deltas_and_over_the_item_when_it_was_added() {
        let turn = outcome(&[
            r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"reasoning","encrypted_content":"part"}}"#,
            r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"reasoning","encrypted_content":"whole"}}"#,
            r#"{"type":"response.function_call_arguments.delta","output_index":2,"delta":"{\"a\""}"#,
            r#"{"type":"response.output_item.done","output_index":2,"item":{"type":"function_call","call_id":"c","name":"add","arguments":"{\"a\":1}"}}"#,
            DONE,
        ]);
        let items: Vec<_> = turn.items.iter().map(|item| item.get()).collect();
        let expected = [
            r#"{"type":"reasoning","encrypted_content":"whole"}"#,
            r#"{"type":"function_call","call_id":"c","name":"add","arguments":"{\"a\":1}"}"#,
        ];
        assert_eq!(items, expected);
        let call = ToolCall { call_id: "c".into(), name: "add".into(), arguments: r#"{"a":1}"#.into() };
        assert_eq!((turn.tool_calls, turn.stop), (vec![call], Stop::ToolCalls));
        assert_eq!(turn.response_id.as_deref(), Some("resp_1"));
    }

    #[test]
    fn the_preview_reads_like_the_final_text_also_with_two_messages() {
        let (turn, preview) = fold(&[
            r#"{"type":"response.output_text.delta","output_index":0,"delta":"on"}"#,
            r#"{"type":"response.output_text.delta","output_index":0,"delta":"e"}"#,
            r#"{"type":"response.output_text.delta","output_index":1,"delta":"two"}"#,
            r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"message","phase":"commentary","content":[{"type":"output_text","text":"one"}]}}"#,
            r#"{"type":"response.output_item.done","output_index":1,"item":{"type":"message","content":[{"type":"output_text","text":"tw"},{"type":"new"},{"type":"output_text","text":"o"}]}}"#,
            DONE,
        ])
        .expect("no error")
        .expect("terminal event");
        assert_eq!((turn.text.as_str(), preview.as_str()), ("one\n\ntwo", "one\n\ntwo"));
        assert!(turn.items[0].get().contains(r#""phase":"commentary""#));
    }

    #[test]
    fn unknown_events_items_and_parts_are_no_failure() {
        let turn = outcome(&[
            r#"{"type":"keepalive"}"#,
            r#"{"type":"response.shiny.new","delta":{"x":[1]},"output_index":"three","item":7}"#,
            r#"{"sequence_number":4}"#,
            r#"{"type":42}"#,
            "",
            r#"{"type":"response.output_item.done","output_index":5,"item":{"type":"program","fingerprint":"f"}}"#,
            r#"{"type":"response.completed","response":{"output":null,"usage":null}}"#,
        ]);
        assert_eq!((turn.text.as_str(), turn.stop, turn.usage), ("", Stop::Done, None));
        assert_eq!(turn.items[0].get(), r#"{"type":"program","fingerprint":"f"}"#);
    }

    #[test]
    fn a_server_without_item_events_still_gives_its_text() {
        let in_output = outcome(&[
            r#"{"type":"response.completed","response":{"output":[{"type":"message","content":[{"type":"output_text","text":"hi"}]}]}}"#,
        ]);
        assert_eq!((in_output.text.as_str(), in_output.items.len()), ("hi", 1));
        let only_deltas = outcome(&[r#"{"type":"response.output_text.delta","delta":"hi"}"#, DONE]);
        assert_eq!((only_deltas.text.as_str(), only_deltas.items.len()), ("hi", 0));
    }

    #[test]
    fn items_come_out_on_one_line_and_otherwise_untouched() {
        let turn = outcome(&[
            "{\"type\":\"response.output_item.done\",\n\"item\":{\"type\":\"x\",\r\n \"n\": 1.50,\n\"s\":\"a\\nb\u{2028}\"}}",
            DONE,
        ]);
        assert_eq!(turn.items[0].get(), "{\"type\":\"x\",   \"n\": 1.50, \"s\":\"a\\nb\u{2028}\"}");
    }

    #[test]
    fn usage_refusal_and_length_are_told_apart() {
        let turn = outcome(&[
            r#"{"type":"response.output_item.done","item":{"type":"message","content":[{"type":"refusal","refusal":"no"}]}}"#,
            r#"{"type":"response.completed","response":{"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4,"cache_write_tokens":3},"output_tokens":7,"output_tokens_details":{"reasoning_tokens":2}}}}"#,
        ]);
        let usage = Usage {
            input_tokens: 9,
            cached_input_tokens: 4,
            cache_write_tokens: 3,
            output_tokens: 7,
            reasoning_tokens: 2,
        };
        assert_eq!((turn.text.as_str(), turn.stop, turn.usage), ("no", Stop::Refusal, Some(usage)));
        let cut = outcome(&[
            r#"{"type":"response.incomplete","response":{"incomplete_details":{"reason":"max_output_tokens"}}}"#,
        ]);
        assert_eq!(cut.stop, Stop::Length);
    }

    #[test]
    fn failures_inside_the_stream_have_the_class_of_their_code() {
        let cases = [
            (r#"{"type":"response.failed","response":{"error":{"code":"server_error"}}}"#, ErrorClass::Overload),
            (
                r#"{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded"}}}"#,
                ErrorClass::RateLimit,
            ),
            (
                r#"{"type":"response.failed","response":{"error":{"code":"invalid_prompt"}}}"#,
                ErrorClass::InvalidRequest,
            ),
            (r#"{"type":"response.failed","response":{"error":{"code":"bio_policy"}}}"#, ErrorClass::ContentFilter),
            (r#"{"type":"response.failed","response":{}}"#, ErrorClass::Overload),
            (r#"{"type":"response.failed"}"#, ErrorClass::MalformedStream),
            (r#"{"type":"error","code":"context_length_exceeded","param":"input"}"#, ErrorClass::ContextTooLong),
            (r#"{"type":"error","error":{"type":"insufficient_quota"}}"#, ErrorClass::Quota),
            (r#"{"error":{"code":"invalid_api_key"}}"#, ErrorClass::Auth),
            (
                r#"{"type":"response.incomplete","response":{"incomplete_details":{"reason":"content_filter"}}}"#,
                ErrorClass::ContentFilter,
            ),
            ("{not json", ErrorClass::MalformedStream),
            (r#"{"type":"response.output_text.delta","delta":5}"#, ErrorClass::MalformedStream),
            (r#"{"type":"response.completed"}"#, ErrorClass::MalformedStream),
            ("[DONE]", ErrorClass::MalformedStream),
        ];
        for (frame, class) in cases {
            assert_eq!(fold(&[frame]).expect_err(frame).class, class, "{frame}");
        }
    }
}
