//! The chunks of a Chat Completions stream, folded into one outcome.
//! Owns: the assembling of calls and reasoning from fragments, and the condition of success: a `finish_reason`.
//! Never: trusts `finish_reason` against the calls that were seen, or an index against a new id.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::limits::PROVIDER_ITEMS_MAX;

use super::error::{self, ErrorClass, ProviderError, Retry, VendorError};
use super::message::{Stop, ToolCall, TurnEvent, TurnOutcome, Usage};
use super::stream::{Collect, OnEvent};
use super::wire::{self, unreadable};

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(default)]
    usage: Option<Value>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    refusal: Option<Cow<'a, str>>,
    /// OpenRouter, vLLM and Ollama.
    #[serde(borrow, default)]
    reasoning: Option<Cow<'a, str>>,
    /// llama.cpp and older vLLM.
    #[serde(borrow, default)]
    reasoning_content: Option<Cow<'a, str>>,
    #[serde(default)]
    reasoning_details: Option<Vec<Map<String, Value>>>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<CallDelta<'a>>>,
}

#[derive(Deserialize)]
struct CallDelta<'a> {
    #[serde(default)]
    index: Option<u64>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    function: Option<FunctionDelta<'a>>,
}

#[derive(Deserialize)]
struct FunctionDelta<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    /// A text of JSON; some servers send the object itself.
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

struct OpenCall {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
}

/// What has come so far.
pub(super) struct ChatCollector {
    seed: String,
    started: bool,
    id: Option<String>,
    text: String,
    refused: bool,
    calls: Vec<OpenCall>,
    /// OpenRouter's reasoning, to be sent back as it came; fragments with one index are one entry.
    reasoning: Vec<Map<String, Value>>,
    finish: Option<String>,
    usage: Option<Usage>,
}

impl ChatCollector {
    /// `seed` makes the ids of calls that came without one.
    pub(super) fn new(seed: &str) -> Self {
        Self {
            seed: seed.to_string(),
            started: false,
            id: None,
            text: String::new(),
            refused: false,
            calls: Vec::new(),
            reasoning: Vec::new(),
            finish: None,
            usage: None,
        }
    }
}

impl Collect for ChatCollector {
    fn frame(&mut self, data: &str, on_event: OnEvent<'_>) -> Result<Option<TurnOutcome>, ProviderError> {
        let data = data.trim();
        if data.is_empty() {
            return Ok(None);
        }
        if data == "[DONE]" {
            return self.finish().map(Some);
        }
        let chunk: Chunk<'_> = serde_json::from_str(data).map_err(|_| unreadable("a chunk"))?;
        if !std::mem::replace(&mut self.started, true) {
            on_event(TurnEvent::Started);
        }
        if let Some(error) = &chunk.error {
            return Err(error::from_stream(&VendorError::from_value(error)));
        }
        if self.id.is_none() {
            self.id = chunk.id.map(Cow::into_owned);
        }
        if let Some(usage) = chunk.usage.as_ref().filter(|usage| usage.is_object()) {
            self.usage = Some(read_usage(usage));
        }
        // One answer was asked for.
        if let Some(choice) = chunk.choices.unwrap_or_default().into_iter().next() {
            self.choice(choice, on_event)?;
        }
        Ok(None)
    }

    fn end(&mut self, _clean: bool) -> Result<TurnOutcome, ProviderError> {
        // The figures are missing at most: what was said was said to be complete.
        self.finish()
    }

    fn is_settled(&self) -> bool {
        self.finish.is_some()
    }
}

impl ChatCollector {
    fn choice(&mut self, choice: Choice<'_>, on_event: OnEvent<'_>) -> Result<(), ProviderError> {
        if let Some(error) = &choice.error {
            return Err(error::from_stream(&VendorError::from_value(error)));
        }
        if let Some(delta) = choice.delta {
            for text in [&delta.reasoning, &delta.reasoning_content].into_iter().flatten() {
                if !text.is_empty() {
                    on_event(TurnEvent::ReasoningDelta(text));
                }
            }
            self.refused |= delta.refusal.as_ref().is_some_and(|text| !text.is_empty());
            for text in [&delta.content, &delta.refusal].into_iter().flatten().filter(|text| !text.is_empty()) {
                self.text.push_str(text);
                on_event(TurnEvent::TextDelta(text));
            }
            for fragment in delta.reasoning_details.unwrap_or_default() {
                merge_reasoning(&mut self.reasoning, fragment);
            }
            for call in delta.tool_calls.unwrap_or_default() {
                self.call(call)?;
            }
            if self.calls.len() > PROVIDER_ITEMS_MAX || self.reasoning.len() > PROVIDER_ITEMS_MAX {
                let error = ProviderError::malformed(format!("the answer has over {PROVIDER_ITEMS_MAX} parts"));
                return Err(ProviderError { retry: Retry::Never, ..error });
            }
        }
        if let Some(reason) = choice.finish_reason.filter(|reason| !reason.is_empty()) {
            self.finish = Some(reason.into_owned());
        }
        Ok(())
    }

    fn call(&mut self, delta: CallDelta<'_>) -> Result<(), ProviderError> {
        let id = delta.id.as_deref().unwrap_or_default();
        let (name, arguments) = match &delta.function {
            Some(function) => (function.name.as_deref().unwrap_or_default(), function.arguments),
            None => ("", None),
        };
        // A fragment continues the call of its index, else the last one; but a new id is a new call whatever the
        // index, and so is another name, or any name without an index.
        let found = match delta.index {
            Some(_) => self.calls.iter().rposition(|call| call.index == delta.index),
            None => self.calls.len().checked_sub(1).filter(|_| name.is_empty()),
        };
        let goes_with = |known: &str, new: &str| new.is_empty() || known.is_empty() || known == new;
        let found = found.filter(|at| goes_with(&self.calls[*at].id, id) && goes_with(&self.calls[*at].name, name));
        let at = found.unwrap_or_else(|| {
            let (id, name, arguments) = (String::new(), String::new(), String::new());
            self.calls.push(OpenCall { index: delta.index, id, name, arguments });
            self.calls.len() - 1
        });
        let call = &mut self.calls[at];
        if call.id.is_empty() {
            call.id.push_str(id);
        }
        // Sent once and whole; a server that repeats it with every fragment means the same.
        if call.name.is_empty() {
            call.name.push_str(name);
        }
        if let Some(raw) = arguments {
            match raw.get().as_bytes().first() {
                Some(b'"') => call.arguments.push_str(&wire::read::<Cow<'_, str>>(raw, "the arguments of a call")?),
                Some(b'{') => call.arguments.push_str(raw.get()),
                _ => {}
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<TurnOutcome, ProviderError> {
        let Some(finish) = self.finish.take() else { return Err(ProviderError::truncated()) };
        match finish.as_str() {
            "content_filter" => {
                let message = "the provider's content filter stopped the answer";
                return Err(ProviderError::new(ErrorClass::ContentFilter, Retry::Never, "content_filter", message));
            }
            "error" => return Err(error::from_stream(&VendorError::default())),
            _ => {}
        }
        let tool_calls = self.tool_calls();
        let stop = match finish.as_str() {
            "length" => Stop::Length,
            _ if !tool_calls.is_empty() => Stop::ToolCalls,
            _ if self.refused => Stop::Refusal,
            _ => Stop::Done,
        };
        let reasoning = std::mem::take(&mut self.reasoning);
        let items = if reasoning.is_empty() { Vec::new() } else { vec![wire::raw(&reasoning)] };
        let (text, usage, response_id) = (std::mem::take(&mut self.text), self.usage, self.id.take());
        Ok(TurnOutcome { text, items, tool_calls, usage, stop, response_id })
    }

    /// The calls, each with an id of its own: history is built from these, so an id that a server left out or gave
    /// twice can be replaced.
    fn tool_calls(&mut self) -> Vec<ToolCall> {
        let mut seen = HashSet::new();
        let seed = &self.seed;
        let call = |(number, call): (usize, OpenCall)| {
            let is_usable = !call.id.is_empty() && seen.insert(call.id.clone());
            let call_id = if is_usable { call.id } else { wire::synthetic_call_id(seed, number) };
            let arguments = if call.arguments.trim().is_empty() { "{}".to_string() } else { call.arguments };
            ToolCall { call_id, name: call.name, arguments }
        };
        std::mem::take(&mut self.calls).into_iter().enumerate().map(call).collect()
    }
}

/// Appends a fragment to the entry with its index and type, text to text; anything else replaces.
fn merge_reasoning(entries: &mut Vec<Map<String, Value>>, fragment: Map<String, Value>) {
    let same = |entry: &&mut Map<String, Value>| {
        entry.get("index") == fragment.get("index") && entry.get("type") == fragment.get("type")
    };
    let Some(entry) = entries.last_mut().filter(same).filter(|entry| entry.contains_key("index")) else {
        return entries.push(fragment);
    };
    for (key, value) in fragment {
        match (key.as_str(), entry.get_mut(&key), &value) {
            ("text" | "summary" | "data", Some(Value::String(text)), Value::String(more)) => text.push_str(more),
            // A later fragment that says nothing about a field takes nothing back.
            (_, Some(known), Value::Null) if !known.is_null() => {}
            _ => {
                entry.insert(key, value);
            }
        }
    }
}

fn read_usage(object: &Value) -> Usage {
    let at = |pointer: &str| object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    Usage {
        input_tokens: at("/prompt_tokens"),
        cached_input_tokens: at("/prompt_tokens_details/cached_tokens"),
        cache_write_tokens: at("/prompt_tokens_details/cache_write_tokens"),
        output_tokens: at("/completion_tokens"),
        reasoning_tokens: at("/completion_tokens_details/reasoning_tokens"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(frames: &[&str], end: Option<bool>) -> Result<Option<TurnOutcome>, ProviderError> {
        let mut collector = ChatCollector::new("5eed");
        for frame in frames {
            if let Some(outcome) = collector.frame(frame, &mut |_| {})? {
                return Ok(Some(outcome));
            }
        }
        end.map(|clean| collector.end(clean)).transpose()
    }

    fn outcome(frames: &[&str]) -> TurnOutcome {
        fold(frames, Some(true)).expect("no error").expect("outcome")
    }

    fn call(call_id: &str, name: &str, arguments: &str) -> ToolCall {
        ToolCall { call_id: call_id.into(), name: name.into(), arguments: arguments.into() }
    }

    const STOP: &str = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;

    #[test]
    fn two_parallel_calls_under_one_index_with_different_ids_stay_two_calls() {
        let turn = outcome(&[
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\""}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"b","function":{"name":"g","arguments":""}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"b","function":{"arguments":"{}"}}]}}]}"#,
            STOP,
        ]);
        assert_eq!(turn.tool_calls, [call("a", "f", "{\"x\":1}"), call("b", "g", "{}")]);
        assert_eq!(turn.stop, Stop::ToolCalls, "the calls decide, not the finish reason");
    }

    #[test]
    fn interleaved_fragments_find_their_call_and_missing_or_doubled_ids_are_replaced() {
        let turn = outcome(&[
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f"}},{"index":1,"id":"a","function":{"name":"g"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"function":{"arguments":"[1"}},{"index":0,"function":{"arguments":"{}"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"function":{"arguments":"]"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"function":{"name":"h","arguments":{"o":1}}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"function":{"name":"h"}}]}}]}"#,
            STOP,
        ]);
        let expected = [
            call("a", "f", "{}"),
            call("call_local_5eed_1", "g", "[1]"),
            call("call_local_5eed_2", "h", "{\"o\":1}"),
            call("call_local_5eed_3", "h", "{}"),
        ];
        assert_eq!(turn.tool_calls, expected);
    }

    #[test]
    fn text_usage_and_id_are_gathered_and_the_end_may_come_in_any_agreed_form() {
        let frames = [
            r#"{"id":"gen-1","choices":[{"delta":{"role":"assistant","content":""}}],"usage":null}"#,
            r#"{"id":"gen-1","choices":[{"delta":{"content":"he"}}]}"#,
            r#"{"id":"gen-1","choices":[{"delta":{"content":"y","refusal":null}}]}"#,
            STOP,
            r#"{"choices":[],"usage":{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens":7,"completion_tokens_details":{"reasoning_tokens":2}}}"#,
            "[DONE]",
        ];
        let turn = outcome(&frames);
        let usage = Usage {
            input_tokens: 9,
            cached_input_tokens: 4,
            output_tokens: 7,
            reasoning_tokens: 2,
            ..Usage::default()
        };
        assert_eq!((turn.text.as_str(), turn.usage, turn.stop), ("hey", Some(usage), Stop::Done));
        assert_eq!(turn.response_id.as_deref(), Some("gen-1"));
        for clean in [true, false] {
            let no_figures = fold(&frames[..4], Some(clean)).expect("no error").expect("outcome");
            assert_eq!((no_figures.text.as_str(), no_figures.usage), ("hey", None));
            for cut in 0..4 {
                assert!(fold(&frames[..cut], Some(clean)).expect_err("cut").is_truncation(), "{cut}");
            }
        }
        assert!(fold(&["[DONE]"], None).expect_err("nothing was said").is_truncation());
    }

    #[test]
    fn reasoning_is_merged_by_index_and_goes_back_as_one_item() {
        let turn = outcome(&[
            r#"{"choices":[{"delta":{"reasoning":"a","reasoning_details":[{"type":"reasoning.text","text":"a","index":0,"format":"x"}]}}]}"#,
            r#"{"choices":[{"delta":{"reasoning_details":[{"type":"reasoning.text","text":"b","index":0,"signature":"c2ln"}]}}]}"#,
            r#"{"choices":[{"delta":{"reasoning_details":[{"type":"reasoning.encrypted","data":"Zm9v","index":1,"id":null}]}}]}"#,
            STOP,
        ]);
        let expected = r#"[{"format":"x","index":0,"signature":"c2ln","text":"ab","type":"reasoning.text"},{"data":"Zm9v","id":null,"index":1,"type":"reasoning.encrypted"}]"#;
        assert_eq!(turn.items.len(), 1);
        assert_eq!(turn.items[0].get(), expected);
    }

    #[test]
    fn failures_and_refusals_have_their_class() {
        let finish = |reason: &str| format!(r#"{{"choices":[{{"delta":{{}},"finish_reason":"{reason}"}}]}}"#);
        let class = |frame: &str| fold(&[frame], Some(true)).expect_err(frame).class;
        assert_eq!(class(&finish("content_filter")), ErrorClass::ContentFilter);
        assert_eq!(class(&finish("error")), ErrorClass::Overload);
        assert_eq!(class(r#"{"error":{"code":429,"message":"slow"},"choices":[]}"#), ErrorClass::RateLimit);
        assert_eq!(class(r#"{"choices":[{"error":{"code":502},"delta":{}}]}"#), ErrorClass::Overload);
        assert_eq!(class("{not json"), ErrorClass::MalformedStream);
        assert_eq!(class(r#"{"choices":[{"delta":{"content":5}}]}"#), ErrorClass::MalformedStream);
        let refused = outcome(&[r#"{"choices":[{"delta":{"refusal":"no"},"finish_reason":"stop"}]}"#]);
        assert_eq!((refused.text.as_str(), refused.stop), ("no", Stop::Refusal));
        assert_eq!(outcome(&[&finish("length")]).stop, Stop::Length);
        assert_eq!(outcome(&[&finish("eos")]).stop, Stop::Done);
    }
}
