//! The Responses wire format from the server's side.
//! Owns: the events of one answer in order, and the same answer as one JSON object.
//! Never: sends anything.

use serde_json::{Value, json};

use super::answer::{Answer, Stop};
use super::format::text_of;
use super::frames::Events;

/// Text of the last item with role `user`, and of the tool outputs behind it.
pub(super) fn last_said(body: &Value) -> (String, Option<String>) {
    let input = &body["input"];
    if let Some(text) = input.as_str() {
        return (text.to_string(), None);
    }
    let items = input.as_array().map(Vec::as_slice).unwrap_or_default();
    let user = items.iter().rev().find(|item| item["role"] == "user");
    let outputs = items.iter().rev().take_while(|item| item["type"] == "function_call_output");
    let mut outputs: Vec<String> = outputs.filter_map(|item| text_of(&item["output"])).collect();
    outputs.reverse();
    let result = (!outputs.is_empty()).then(|| outputs.join("\n"));
    (user.and_then(|item| text_of(&item["content"])).unwrap_or_default(), result)
}

fn add(events: &mut Events, kind: &str, delayed: bool, fields: Value) {
    let mut data = json!({"type": kind, "sequence_number": events.list.len()});
    merge(&mut data, fields);
    events.named(kind, delayed, &data);
}

fn merge(into: &mut Value, more: Value) {
    if let (Some(fields), Value::Object(more)) = (into.as_object_mut(), more) {
        fields.extend(more);
    }
}

fn response(answer: &Answer<'_>, status: &str, output: Vec<Value>, extra: Value) -> Value {
    let mut response = json!({
        "id": answer.id("resp"),
        "object": "response",
        "created_at": 0,
        "model": answer.model,
        "status": status,
        "output": output,
        "parallel_tool_calls": true,
        "tool_choice": "auto",
        "tools": [],
    });
    merge(&mut response, extra);
    response
}

/// The output items: reasoning, message, tool calls, as far as there are any.
fn items(answer: &Answer<'_>) -> Vec<Value> {
    let number = answer.number;
    let mut items = Vec::new();
    if answer.reasoning.is_some() || answer.thinking.is_some() {
        let summary: Vec<Value> =
            answer.thinking.iter().map(|text| json!({"type": "summary_text", "text": text})).collect();
        items.push(json!({"type": "reasoning", "id": format!("rs_scripted_{number}"), "summary": summary,
                          "encrypted_content": answer.reasoning}));
    }
    let content = match answer.refusal {
        Some(refusal) => Some(json!({"type": "refusal", "refusal": refusal})),
        None if answer.text.is_empty() => None,
        None => Some(json!({"type": "output_text", "text": answer.text, "annotations": []})),
    };
    items.extend(content.map(|part| {
        json!({
            "type": "message",
            "id": format!("msg_scripted_{number}"),
            "role": "assistant",
            "status": "completed",
            "content": [part],
        })
    }));
    items.extend(answer.calls.iter().enumerate().map(|(index, call)| {
        json!({
            "type": "function_call",
            "id": format!("fc_scripted_{number}_{index}"),
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
            "status": "completed",
        })
    }));
    items
}

fn usage(answer: &Answer<'_>) -> Value {
    match answer.figures {
        Some(it) => json!({
            "input_tokens": it.input,
            "input_tokens_details": {"cached_tokens": it.cached, "cache_write_tokens": 0},
            "output_tokens": it.output,
            "output_tokens_details": {"reasoning_tokens": it.reasoning},
            "total_tokens": it.input.saturating_add(it.output),
        }),
        None => Value::Null,
    }
}

fn item_events(answer: &Answer<'_>, events: &mut Events, index: usize, item: &Value) {
    let item_id = &item["id"];
    let mut added = item.clone();
    added["status"] = json!("in_progress");
    match item["type"].as_str() {
        Some("message") => {
            added["content"] = json!([]);
            add(events, "response.output_item.added", false, json!({"output_index": index, "item": added}));
            let at = json!({"item_id": item_id, "output_index": index, "content_index": 0});
            let with = |key: &str, value: Value| {
                let mut fields = at.clone();
                fields[key] = value;
                if key == "delta" || key == "text" {
                    fields["logprobs"] = json!([]);
                }
                fields
            };
            let (kind, key, text) = match answer.refusal {
                Some(refusal) => ("refusal", "refusal", refusal),
                None => ("output_text", "text", answer.text),
            };
            let mut part = item["content"][0].clone();
            part[key] = json!("");
            add(events, "response.content_part.added", false, with("part", part));
            for (number, delta) in answer.pieces(text).into_iter().enumerate() {
                add(events, &format!("response.{kind}.delta"), number > 0, with("delta", json!(delta)));
            }
            add(events, &format!("response.{kind}.done"), false, with(key, json!(text)));
            add(events, "response.content_part.done", false, with("part", item["content"][0].clone()));
        }
        Some("function_call") => {
            added["arguments"] = json!("");
            add(events, "response.output_item.added", false, json!({"output_index": index, "item": added}));
            let arguments = &item["arguments"];
            let at = |key: &str| json!({"item_id": item_id, "output_index": index, key: arguments});
            add(events, "response.function_call_arguments.delta", false, at("delta"));
            let mut done = at("arguments");
            done["name"] = item["name"].clone();
            add(events, "response.function_call_arguments.done", false, done);
        }
        _ => {
            added["summary"] = json!([]);
            // The vendor may send a part of it first; only the finished item counts.
            added["encrypted_content"] = json!("cGFydA==");
            add(events, "response.output_item.added", false, json!({"output_index": index, "item": added}));
            if let Some(thinking) = answer.thinking {
                let at = json!({"item_id": item_id, "output_index": index, "summary_index": 0, "delta": thinking});
                add(events, "response.reasoning_summary_text.delta", false, at);
            }
        }
    }
    add(events, "response.output_item.done", false, json!({"output_index": index, "item": item}));
}

/// The events of `answer`.
pub(super) fn events(answer: &Answer<'_>, events: &mut Events) {
    for kind in ["response.created", "response.in_progress"] {
        add(events, kind, false, json!({"response": response(answer, "in_progress", vec![], json!({}))}));
    }
    let items = items(answer);
    for (index, item) in items.iter().enumerate() {
        item_events(answer, events, index, item);
    }
    events.terminal();
    let (kind, response) = finished(answer, items);
    add(events, kind, false, json!({ "response": response }));
}

fn finished(answer: &Answer<'_>, items: Vec<Value>) -> (&'static str, Value) {
    let reason = match answer.stop {
        Stop::Done => {
            return ("response.completed", response(answer, "completed", items, json!({"usage": usage(answer)})));
        }
        Stop::Length | Stop::Pause => "max_output_tokens",
        Stop::Filter => "content_filter",
    };
    let extra = json!({"incomplete_details": {"reason": reason}, "usage": usage(answer)});
    ("response.incomplete", response(answer, "incomplete", items, extra))
}

/// The answer as one JSON object.
pub(super) fn whole(answer: &Answer<'_>) -> Value {
    finished(answer, items(answer)).1
}

/// Ends with `response.failed`.
pub(super) fn failure(answer: &Answer<'_>, code: &str, events: &mut Events) {
    let error = json!({"code": code, "message": "scripted failure"});
    let response = response(answer, "failed", vec![], json!({ "error": error }));
    add(events, "response.failed", false, json!({ "response": response }));
}

/// Ends with an `error` event.
pub(super) fn error_event(code: &str, events: &mut Events) {
    add(events, "error", false, json!({"code": code, "message": "scripted failure", "param": null}));
}
