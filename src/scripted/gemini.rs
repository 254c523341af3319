//! The Google generateContent wire format from the server's side.
//! Owns: the chunks of one answer in order, and the same answer as one JSON object.
//! Never: sends anything.

use serde_json::{Value, json};

use super::answer::{Answer, Stop};
use super::format::last_text_of;
use super::frames::Events;

/// Text of the last user content that has one, and of the function responses in the last content.
pub(super) fn last_said(body: &Value) -> (String, Option<String>) {
    let contents = body["contents"].as_array().map(Vec::as_slice).unwrap_or_default();
    let users = contents.iter().rev().filter(|content| content["role"] != "model");
    let input = users.filter_map(|content| last_text_of(&content["parts"])).next().unwrap_or_default();
    let last = contents.last().and_then(|content| content["parts"].as_array()).map(Vec::as_slice);
    let responses = last.unwrap_or_default().iter().filter_map(|part| part.get("functionResponse"));
    let responses: Vec<String> = responses.map(|it| it["response"].to_string()).collect();
    (input, (!responses.is_empty()).then(|| responses.join("\n")))
}

fn finish_reason(answer: &Answer<'_>) -> &'static str {
    match answer.stop {
        Stop::Done if answer.refusal.is_some() => "SAFETY",
        Stop::Done => "STOP",
        Stop::Length | Stop::Pause => "MAX_TOKENS",
        Stop::Filter => "SAFETY",
    }
}

fn call_part(index: usize, call: &super::answer::Call<'_>, signature: Option<&str>) -> Value {
    let args: Value = serde_json::from_str(call.arguments).unwrap_or_else(|_| json!({}));
    let mut part = json!({"functionCall": {"name": call.name, "args": args}});
    // Made-up ids are left out: the vendor does not always send one either.
    if !call.id.starts_with("call_scripted_") {
        part["functionCall"]["id"] = json!(call.id);
    }
    if let (0, Some(signature)) = (index, signature) {
        part["thoughtSignature"] = json!(signature);
    }
    part
}

/// The parts with whether the script's delay comes before each.
fn parts(answer: &Answer<'_>) -> Vec<(Value, bool)> {
    let mut parts = Vec::new();
    if let Some(thinking) = answer.thinking {
        parts.push((json!({"text": thinking, "thought": true}), false));
    }
    if !answer.text.is_empty() {
        let pieces = answer.pieces(answer.text).into_iter().enumerate();
        parts.extend(pieces.map(|(number, piece)| (json!({ "text": piece }), number > 0)));
    }
    let calls = answer.calls.iter().enumerate();
    parts.extend(calls.map(|(index, call)| (call_part(index, call, answer.reasoning), false)));
    if let (Some(signature), true) = (answer.reasoning, answer.calls.is_empty()) {
        parts.push((json!({"text": "", "thoughtSignature": signature}), false));
    }
    parts
}

/// The vendor counts thoughts apart from the answer.
fn usage(answer: &Answer<'_>) -> Option<Value> {
    answer.figures.map(|it| {
        json!({
            "promptTokenCount": it.input,
            "cachedContentTokenCount": it.cached,
            "candidatesTokenCount": it.output.saturating_sub(it.reasoning),
            "thoughtsTokenCount": it.reasoning,
            "totalTokenCount": it.input.saturating_add(it.output),
        })
    })
}

fn chunk(answer: &Answer<'_>, parts: Vec<Value>, finish: Option<&str>) -> Value {
    let mut chunk = json!({
        "candidates": [{"index": 0, "content": {"role": "model", "parts": parts}}],
        "modelVersion": answer.model,
        "responseId": answer.id("resp"),
    });
    if let Some(finish) = finish {
        chunk["candidates"][0]["finishReason"] = json!(finish);
        if let Some(usage) = usage(answer) {
            chunk["usageMetadata"] = usage;
        }
    }
    chunk
}

/// The chunks of `answer`.
pub(super) fn events(answer: &Answer<'_>, events: &mut Events) {
    if answer.refusal.is_some() && answer.text.is_empty() {
        events.terminal();
        return events.plain(false, &blocked(answer));
    }
    for (part, delayed) in parts(answer) {
        events.plain(delayed, &chunk(answer, vec![part], None));
    }
    events.terminal();
    events.plain(false, &chunk(answer, vec![], Some(finish_reason(answer))));
}

/// A refused prompt has no candidate.
fn blocked(answer: &Answer<'_>) -> Value {
    json!({"promptFeedback": {"blockReason": "SAFETY"}, "modelVersion": answer.model, "responseId": answer.id("resp")})
}

/// The answer as one JSON object.
pub(super) fn whole(answer: &Answer<'_>) -> Value {
    if answer.refusal.is_some() && answer.text.is_empty() {
        return blocked(answer);
    }
    let parts = parts(answer).into_iter().map(|(part, _)| part).collect();
    chunk(answer, parts, Some(finish_reason(answer)))
}
