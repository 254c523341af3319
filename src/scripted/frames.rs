//! The Responses wire format from the server's side.
//! Owns: the events of one answer in order, and the same answer as one JSON object.
//! Never: sends anything.

use serde::Serialize;
use serde_json::{Value, json};

use super::script::{Fault, FaultKind, Turn};

/// One SSE frame, and whether the script's chunk delay comes before it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub bytes: Vec<u8>,
    pub delayed: bool,
}

/// How the body ends after the last frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Properly.
    Clean,
    /// The connection is closed in mid-body.
    Disconnect,
    /// Nothing more comes.
    Hang,
}

/// A whole streamed answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stream {
    pub frames: Vec<Frame>,
    pub end: End,
}

/// What is asked for, as far as the answer depends on it.
pub(super) struct Asked<'a> {
    /// Number of the request; part of every id.
    pub number: u64,
    pub model: &'a str,
    /// Last user input.
    pub input: &'a str,
    pub body_bytes: usize,
}

/// Frames with their running numbers.
#[derive(Default)]
struct Writer {
    frames: Vec<Frame>,
}

#[derive(Serialize)]
struct Numbered<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    sequence_number: usize,
    #[serde(flatten)]
    fields: Value,
}

impl Writer {
    fn event(&mut self, kind: &str, delayed: bool, fields: Value) {
        let data = Numbered { kind, sequence_number: self.frames.len(), fields };
        let data = serde_json::to_string(&data).expect("texts and numbers always serialise");
        self.frames.push(Frame { bytes: format!("event: {kind}\ndata: {data}\n\n").into_bytes(), delayed });
    }
}

struct Answer<'a> {
    asked: &'a Asked<'a>,
    turn: &'a Turn,
    text: &'a str,
}

impl Answer<'_> {
    fn response(&self, status: &str, output: Vec<Value>, extra: Value) -> Value {
        let mut response = json!({
            "id": format!("resp_scripted_{}", self.asked.number),
            "object": "response",
            "model": self.asked.model,
            "status": status,
            "output": output,
        });
        if let (Some(fields), Value::Object(extra)) = (response.as_object_mut(), extra) {
            fields.extend(extra);
        }
        response
    }

    /// The output items: reasoning, message, tool calls, as far as there are any.
    fn items(&self) -> Vec<Value> {
        let number = self.asked.number;
        let mut items = Vec::new();
        if let Some(reasoning) = &self.turn.reasoning {
            let id = format!("rs_scripted_{number}");
            items.push(json!({"type": "reasoning", "id": id, "summary": [], "encrypted_content": reasoning}));
        }
        if !self.text.is_empty() {
            items.push(json!({
                "type": "message",
                "id": format!("msg_scripted_{number}"),
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": self.text, "annotations": []}],
            }));
        }
        for (index, call) in self.turn.tool_calls.iter().enumerate() {
            let call_id = call.call_id.clone().unwrap_or_else(|| format!("call_scripted_{number}_{index}"));
            items.push(json!({
                "type": "function_call",
                "id": format!("fc_scripted_{number}_{index}"),
                "call_id": call_id,
                "name": call.name,
                "arguments": call.arguments,
                "status": "completed",
            }));
        }
        items
    }

    fn usage(&self) -> Value {
        // Four bytes a token is the usual rule of thumb.
        let (input, cached, output, reasoning) = match self.turn.usage {
            Some(it) => (it.input_tokens, it.cached_input_tokens, it.output_tokens, it.reasoning_tokens),
            None => (self.asked.body_bytes.div_ceil(4) as u64, 0, self.text.len().div_ceil(4) as u64, 0),
        };
        json!({
            "input_tokens": input,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": reasoning},
            "total_tokens": input + output,
        })
    }

    fn item_events(&self, writer: &mut Writer, index: usize, item: &Value) {
        let item_id = &item["id"];
        let mut added = item.clone();
        added["status"] = json!("in_progress");
        match item["type"].as_str() {
            Some("message") => {
                added["content"] = json!([]);
                writer.event("response.output_item.added", false, json!({"output_index": index, "item": added}));
                let at = json!({"item_id": item_id, "output_index": index, "content_index": 0});
                let with = |key: &str, value: Value| {
                    let mut fields = at.clone();
                    fields[key] = value;
                    fields
                };
                let part = json!({"type": "output_text", "text": "", "annotations": []});
                writer.event("response.content_part.added", false, with("part", part));
                for (number, delta) in chunks(self.text, self.turn.chunk_chars).into_iter().enumerate() {
                    writer.event("response.output_text.delta", number > 0, with("delta", json!(delta)));
                }
                writer.event("response.output_text.done", false, with("text", json!(self.text)));
                writer.event("response.content_part.done", false, with("part", item["content"][0].clone()));
            }
            Some("function_call") => {
                added["arguments"] = json!("");
                writer.event("response.output_item.added", false, json!({"output_index": index, "item": added}));
                let arguments = &item["arguments"];
                let at = |key: &str| json!({"item_id": item_id, "output_index": index, key: arguments});
                writer.event("response.function_call_arguments.delta", false, at("delta"));
                writer.event("response.function_call_arguments.done", false, at("arguments"));
            }
            _ => writer.event("response.output_item.added", false, json!({"output_index": index, "item": added})),
        }
        writer.event("response.output_item.done", false, json!({"output_index": index, "item": item}));
    }
}

/// Cuts `text` into pieces of `chars` characters, never inside one; all at once without `chars`.
fn chunks(text: &str, chars: Option<usize>) -> Vec<&str> {
    let Some(chars) = chars else { return vec![text] };
    let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).step_by(chars).collect();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().zip(ends).map(|(start, end)| &text[*start..end]).collect()
}

/// The text of the answer: as scripted, or the input when the turn has neither text nor tool calls.
fn text_of<'a>(turn: &'a Turn, input: &'a str) -> &'a str {
    match &turn.text {
        Some(text) => text,
        None if turn.tool_calls.is_empty() => input,
        None => "",
    }
}

/// The streamed answer of `turn`, faults included.
pub(super) fn stream(turn: &Turn, asked: &Asked<'_>) -> Stream {
    let answer = Answer { asked, turn, text: text_of(turn, asked.input) };
    let mut writer = Writer::default();
    for kind in ["response.created", "response.in_progress"] {
        writer.event(kind, false, json!({"response": answer.response("in_progress", vec![], json!({}))}));
    }
    let items = answer.items();
    for (index, item) in items.iter().enumerate() {
        answer.item_events(&mut writer, index, item);
    }
    match &turn.fault {
        None => {
            let response = answer.response("completed", items, json!({"usage": answer.usage()}));
            writer.event("response.completed", false, json!({"response": response}));
            Stream { frames: writer.frames, end: End::Clean }
        }
        Some(fault) => fail(fault, &answer, writer),
    }
}

fn fail(fault: &Fault, answer: &Answer<'_>, mut writer: Writer) -> Stream {
    let total = writer.frames.len();
    let keep = fault.after_frames.unwrap_or(total);
    writer.frames.truncate(keep);
    let code = |default: &str| fault.code.clone().unwrap_or_else(|| default.to_string());
    let end = match fault.kind {
        FaultKind::Disconnect => {
            if let Some(bytes) = fault.after_bytes {
                cut(&mut writer.frames, bytes);
            }
            End::Disconnect
        }
        FaultKind::Truncate => End::Clean,
        FaultKind::Hang => End::Hang,
        FaultKind::Malformed => {
            writer.frames.push(Frame { bytes: b"data: {\"type\": not json\n\n".to_vec(), delayed: false });
            End::Clean
        }
        FaultKind::Failed => {
            let error = json!({"code": code("server_error"), "message": "scripted failure"});
            let response = answer.response("failed", vec![], json!({ "error": error }));
            writer.event("response.failed", false, json!({"response": response}));
            End::Clean
        }
        FaultKind::ErrorEvent => {
            let fields = json!({"code": code("server_error"), "message": "scripted failure", "param": null});
            writer.event("error", false, fields);
            End::Clean
        }
        FaultKind::Incomplete => {
            let details = json!({"reason": code("max_output_tokens")});
            let extra = json!({"incomplete_details": details, "usage": answer.usage()});
            let response = answer.response("incomplete", answer.items(), extra);
            writer.event("response.incomplete", false, json!({"response": response}));
            End::Clean
        }
    };
    Stream { frames: writer.frames, end }
}

/// Keeps the first `bytes` bytes of all frames together.
fn cut(frames: &mut Vec<Frame>, mut bytes: usize) {
    let mut kept = 0;
    for frame in frames.iter_mut() {
        if bytes == 0 {
            break;
        }
        frame.bytes.truncate(bytes);
        bytes -= frame.bytes.len();
        kept += 1;
    }
    frames.truncate(kept);
}

/// The answer as one JSON object, for requests that do not stream.
pub(super) fn whole(turn: &Turn, asked: &Asked<'_>) -> Vec<u8> {
    let answer = Answer { asked, turn, text: text_of(turn, asked.input) };
    let response = answer.response("completed", answer.items(), json!({"usage": answer.usage()}));
    serde_json::to_vec(&response).expect("texts and numbers always serialise")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_never_cut_a_character_and_lose_nothing() {
        let text = "aé\u{1f600}b";
        for chars in 1..6 {
            assert_eq!(chunks(text, Some(chars)).concat(), text, "{chars}");
        }
        assert_eq!(chunks(text, Some(3)), ["aé\u{1f600}", "b"]);
        assert_eq!(chunks("", Some(3)), Vec::<&str>::new());
    }

    #[test]
    fn every_cut_after_n_bytes_is_exactly_the_first_n_bytes() {
        let turn = Turn { text: Some("some text".to_string()), ..Turn::default() };
        let asked = Asked { number: 1, model: "m", input: "in", body_bytes: 8 };
        let whole: Vec<u8> = stream(&turn, &asked).frames.into_iter().flat_map(|frame| frame.bytes).collect();
        for bytes in 0..whole.len() {
            let mut frames = stream(&turn, &asked).frames;
            cut(&mut frames, bytes);
            let kept: Vec<u8> = frames.into_iter().flat_map(|frame| frame.bytes).collect();
            assert_eq!(kept, whole[..bytes]);
        }
    }
}
