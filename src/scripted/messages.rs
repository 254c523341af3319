//! The Anthropic Messages wire format from the server's side.
//! Owns: the events of one answer in order, and the same answer as one JSON object.
//! Never: sends anything.

use serde_json::{Value, json};

use super::answer::{Answer, Stop};
use super::format::{last_text_of, text_of};
use super::frames::Events;

/// Text of the last user turn that has one, and of the tool results in the last turn.
pub(super) fn last_said(body: &Value) -> (String, Option<String>) {
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let users = messages.iter().rev().filter(|message| message["role"] == "user");
    let input = users.filter_map(|message| last_text_of(&message["content"])).next().unwrap_or_default();
    let last = messages.last().and_then(|message| message["content"].as_array()).map(Vec::as_slice);
    let results = last.unwrap_or_default().iter().filter(|block| block["type"] == "tool_result");
    let results: Vec<String> = results.filter_map(|block| text_of(&block["content"])).collect();
    (input, (!results.is_empty()).then(|| results.join("\n")))
}

fn stop_reason(answer: &Answer<'_>) -> &'static str {
    match answer.stop {
        Stop::Length => "max_tokens",
        Stop::Pause => "pause_turn",
        Stop::Filter => "refusal",
        Stop::Done if answer.refusal.is_some() => "refusal",
        Stop::Done if answer.calls.is_empty() => "end_turn",
        Stop::Done => "tool_use",
    }
}

/// Whole blocks, each with what its start leaves empty and the deltas that fill it.
fn blocks(answer: &Answer<'_>) -> Vec<(Value, Value, Vec<Value>)> {
    let mut blocks = Vec::new();
    if answer.thinking.is_some() || answer.reasoning.is_some() {
        let (thinking, signature) = (answer.thinking.unwrap_or_default(), answer.reasoning.unwrap_or("c2lnbmVk"));
        let mut deltas = Vec::new();
        if !thinking.is_empty() {
            deltas.push(json!({"type": "thinking_delta", "thinking": thinking}));
        }
        deltas.push(json!({"type": "signature_delta", "signature": signature}));
        blocks.push((
            json!({"type": "thinking", "thinking": thinking, "signature": signature}),
            json!({"type": "thinking", "thinking": "", "signature": ""}),
            deltas,
        ));
    }
    // A filter of the vendor's leaves no text.
    let text = if answer.stop == Stop::Filter { "" } else { answer.refusal.unwrap_or(answer.text) };
    if !text.is_empty() {
        let deltas = answer.pieces(text).into_iter().map(|piece| json!({"type": "text_delta", "text": piece}));
        blocks.push((json!({"type": "text", "text": text}), json!({"type": "text", "text": ""}), deltas.collect()));
    }
    for call in &answer.calls {
        let input: Value = serde_json::from_str(call.arguments).unwrap_or_else(|_| json!({}));
        let half = (0..=call.arguments.len() / 2).rev().find(|at| call.arguments.is_char_boundary(*at)).unwrap_or(0);
        let (first, second) = call.arguments.split_at(half);
        let delta = |piece: &str| json!({"type": "input_json_delta", "partial_json": piece});
        blocks.push((
            json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input}),
            json!({"type": "tool_use", "id": call.id, "name": call.name, "input": {}}),
            vec![delta(""), delta(first), delta(second)],
        ));
    }
    blocks
}

/// The vendor counts cached input apart.
fn usage(answer: &Answer<'_>) -> Value {
    let Some(it) = answer.figures else { return json!({"input_tokens": 0, "output_tokens": 0}) };
    json!({
        "input_tokens": it.input.saturating_sub(it.cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": it.cached,
        "output_tokens": it.output,
        "output_tokens_details": {"thinking_tokens": it.reasoning},
    })
}

fn message(answer: &Answer<'_>, content: Vec<Value>, stop_reason: Option<&str>, usage: Value) -> Value {
    json!({
        "id": answer.id("msg"),
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": null,
        "usage": usage,
    })
}

/// The events of `answer`.
pub(super) fn events(answer: &Answer<'_>, events: &mut Events) {
    let mut add = |kind: &str, delayed: bool, mut data: Value| {
        data["type"] = json!(kind);
        events.named(kind, delayed, &data);
    };
    let mut figures = usage(answer);
    let mut at_start = figures.clone();
    at_start["output_tokens"] = json!(1);
    at_start.as_object_mut().expect("usage is an object").remove("output_tokens_details");
    if let Some(fields) = figures.as_object_mut() {
        // The end does not repeat what the start has told.
        fields.retain(|name, _| name.starts_with("output"));
    }
    if answer.figures.is_none() {
        at_start = json!({"input_tokens": 0, "output_tokens": 0});
    }
    add("message_start", false, json!({"message": message(answer, vec![], None, at_start)}));
    add("ping", false, json!({}));
    for (index, (_, start, deltas)) in blocks(answer).into_iter().enumerate() {
        let is_text = start["type"] == "text";
        add("content_block_start", false, json!({"index": index, "content_block": start}));
        for (number, delta) in deltas.into_iter().enumerate() {
            add("content_block_delta", is_text && number > 0, json!({"index": index, "delta": delta}));
        }
        add("content_block_stop", false, json!({ "index": index }));
    }
    let reason = stop_reason(answer);
    let details = (reason == "refusal").then(|| json!({"type": "refusal", "category": null, "explanation": null}));
    let delta = json!({"stop_reason": reason, "stop_sequence": null, "stop_details": details});
    let end = [("message_delta", json!({"delta": delta, "usage": figures})), ("message_stop", json!({}))];
    events.terminal();
    for (kind, mut data) in end {
        data["type"] = json!(kind);
        events.named(kind, false, &data);
    }
}

/// The answer as one JSON object.
pub(super) fn whole(answer: &Answer<'_>) -> Value {
    let content = blocks(answer).into_iter().map(|(whole, ..)| whole).collect();
    message(answer, content, Some(stop_reason(answer)), usage(answer))
}
