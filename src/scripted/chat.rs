//! The Chat Completions wire format from the server's side.
//! Owns: the chunks of one answer in order, and the same answer as one JSON object.
//! Never: sends anything.

use serde_json::{Value, json};

use super::answer::{Answer, Stop};
use super::format::text_of;
use super::frames::{Event, Events};

/// Text of the last message with role `user`, and of the tool messages behind it.
pub(super) fn last_said(body: &Value) -> (String, Option<String>) {
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let user = messages.iter().rev().find(|message| message["role"] == "user");
    let results = messages.iter().rev().take_while(|message| message["role"] == "tool");
    let mut results: Vec<String> = results.filter_map(|message| text_of(&message["content"])).collect();
    results.reverse();
    let result = (!results.is_empty()).then(|| results.join("\n"));
    (user.and_then(|message| text_of(&message["content"])).unwrap_or_default(), result)
}

fn chunk(answer: &Answer<'_>, delta: &Value, finish: Option<&str>) -> Value {
    json!({
        "id": answer.id("chatcmpl"),
        "object": "chat.completion.chunk",
        "created": 0,
        "model": answer.model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": null}],
        "usage": null,
    })
}

fn reasoning_details(answer: &Answer<'_>) -> Option<Value> {
    answer.reasoning.map(|data| {
        json!([{"type": "reasoning.encrypted", "data": data, "id": answer.id("rs"), "index": 0,
                "format": "openai-responses-v1"}])
    })
}

fn finish_reason(answer: &Answer<'_>) -> &'static str {
    match answer.stop {
        Stop::Length | Stop::Pause => "length",
        Stop::Filter => "content_filter",
        Stop::Done if answer.calls.is_empty() => "stop",
        Stop::Done => "tool_calls",
    }
}

fn usage(answer: &Answer<'_>) -> Option<Value> {
    answer.figures.map(|it| {
        json!({
            "prompt_tokens": it.input,
            "completion_tokens": it.output,
            "total_tokens": it.input.saturating_add(it.output),
            "prompt_tokens_details": {"cached_tokens": it.cached},
            "completion_tokens_details": {"reasoning_tokens": it.reasoning},
        })
    })
}

/// The chunks of `answer`.
pub(super) fn events(answer: &Answer<'_>, events: &mut Events) {
    events.plain(false, &chunk(answer, &json!({"role": "assistant", "content": ""}), None));
    if let Some(thinking) = answer.thinking {
        events.plain(false, &chunk(answer, &json!({ "reasoning_content": thinking }), None));
    }
    if let Some(details) = reasoning_details(answer) {
        events.plain(false, &chunk(answer, &json!({ "reasoning_details": details }), None));
    }
    let (key, text) = answer.refusal.map_or(("content", answer.text), |refusal| ("refusal", refusal));
    if !text.is_empty() {
        for (number, piece) in answer.pieces(text).into_iter().enumerate() {
            events.plain(number > 0, &chunk(answer, &json!({ key: piece }), None));
        }
    }
    for (index, call) in answer.calls.iter().enumerate() {
        let open = json!({"index": index, "id": call.id, "type": "function",
                          "function": {"name": call.name, "arguments": ""}});
        events.plain(false, &chunk(answer, &json!({ "tool_calls": [open] }), None));
        let half = (0..=call.arguments.len() / 2).rev().find(|at| call.arguments.is_char_boundary(*at)).unwrap_or(0);
        let (first, second) = call.arguments.split_at(half);
        for piece in [first, second] {
            let more = json!({"index": index, "function": {"arguments": piece}});
            events.plain(false, &chunk(answer, &json!({ "tool_calls": [more] }), None));
        }
    }
    events.terminal();
    events.plain(false, &chunk(answer, &json!({}), Some(finish_reason(answer))));
    if let Some(usage) = usage(answer) {
        let mut last = chunk(answer, &json!({}), None);
        last["choices"] = json!([]);
        last["usage"] = usage;
        events.plain(false, &last);
    }
    events.list.push(Event { name: None, data: "[DONE]".to_string(), delayed: false });
}

/// The answer as one JSON object.
pub(super) fn whole(answer: &Answer<'_>) -> Value {
    let calls: Vec<Value> = answer
        .calls
        .iter()
        .map(|call| {
            json!({"id": call.id, "type": "function",
                   "function": {"name": call.name, "arguments": call.arguments}})
        })
        .collect();
    let content = (!answer.text.is_empty()).then_some(answer.text);
    let mut message = json!({"role": "assistant", "content": content, "refusal": answer.refusal});
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    if let Some(details) = reasoning_details(answer) {
        message["reasoning_details"] = details;
    }
    json!({
        "id": answer.id("chatcmpl"),
        "object": "chat.completion",
        "created": 0,
        "model": answer.model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason(answer), "logprobs": null}],
        "usage": usage(answer),
    })
}
