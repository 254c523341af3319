//! A streamed answer as frames, and everything that can be wrong with one.
//! Owns: SSE framing in every legal form, and the script's faults.
//! Never: sends anything, or knows what a frame means.

use serde_json::Value;

use super::answer::{Answer, Asked};
use super::format::Format;
use super::script::{FaultKind, LineEnd, Turn};

/// One event before it is framed.
#[derive(Debug)]
pub(super) struct Event {
    /// The `event:` line, where the vendor writes one.
    pub name: Option<String>,
    pub data: String,
    /// Whether the script's chunk delay comes before it.
    pub delayed: bool,
}

/// Events in order; those from `terminal_at` on end the answer.
#[derive(Debug, Default)]
pub(super) struct Events {
    pub list: Vec<Event>,
    pub terminal_at: usize,
}

impl Events {
    /// Adds an event that is named like the vendor's `type`.
    pub(super) fn named(&mut self, name: &str, delayed: bool, data: &Value) {
        self.list.push(Event { name: Some(name.to_string()), data: data.to_string(), delayed });
    }

    /// Adds an event without a name.
    pub(super) fn plain(&mut self, delayed: bool, data: &Value) {
        self.list.push(Event { name: None, data: data.to_string(), delayed });
    }

    /// What follows ends the answer.
    pub(super) fn terminal(&mut self) {
        self.terminal_at = self.list.len();
    }
}

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
    /// The connection is reset within a chunk that was announced longer.
    Reset,
    /// Nothing more comes.
    Hang,
}

/// A whole streamed answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stream {
    pub frames: Vec<Frame>,
    pub end: End,
}

/// The streamed answer of `turn`, faults included.
pub(super) fn stream(format: Format, turn: &Turn, asked: &Asked<'_>) -> Stream {
    let answer = Answer::new(turn, asked);
    let mut events = Events::default();
    if turn.padding_bytes > 0 {
        events.list.extend(format.unknown_event(&"x".repeat(turn.padding_bytes)));
    }
    format.events(&answer, &mut events);
    let mut end = End::Clean;
    let mut raw_tail: Option<Vec<u8>> = None;
    if let Some(fault) = &turn.fault {
        let keep = fault.after_frames.unwrap_or(events.terminal_at);
        if fault.kind != FaultKind::Incomplete {
            events.list.truncate(keep);
        }
        match fault.kind {
            FaultKind::Disconnect => end = End::Disconnect,
            FaultKind::Reset => end = End::Reset,
            FaultKind::Hang => end = End::Hang,
            FaultKind::Truncate | FaultKind::Incomplete => {}
            FaultKind::Malformed => raw_tail = Some(b"data: {\"type\": not json\n\n".to_vec()),
            FaultKind::NotUtf8 => raw_tail = Some(b"data: {\"text\":\"\xff\xfe\"}\n\n".to_vec()),
            FaultKind::Failed => format.failure(&answer, fault.code.as_deref(), &mut events),
            FaultKind::ErrorEvent => {
                raw_tail = format.error_event(&answer, fault.code.as_deref(), &mut events);
            }
        }
    }
    if turn.unknown_events {
        let all = std::mem::take(&mut events.list);
        for event in all {
            events.list.extend(format.unknown_event("news"));
            events.list.push(event);
        }
    }
    let mut frames: Vec<Frame> = events.list.iter().map(|event| frame(event, turn)).collect();
    frames.extend(raw_tail.map(|bytes| Frame { bytes, delayed: false }));
    if let Some(bytes) = turn.fault.as_ref().and_then(|fault| fault.after_bytes) {
        cut(&mut frames, bytes);
    }
    Stream { frames, end }
}

fn frame(event: &Event, turn: &Turn) -> Frame {
    let line_end = match turn.line_end {
        LineEnd::Lf => "\n",
        LineEnd::Crlf => "\r\n",
        LineEnd::Cr => "\r",
    };
    let mut text = String::new();
    if turn.comments {
        text.push_str(&format!(": keep-alive{line_end}{line_end}"));
    }
    if let Some(name) = &event.name {
        text.push_str(&format!("event: {name}{line_end}"));
    }
    text.push_str(&format!("data: {}{line_end}{line_end}", event.data));
    Frame { bytes: text.into_bytes(), delayed: event.delayed }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_after_n_bytes_is_exactly_the_first_n_bytes() {
        let turn = Turn { text: Some("some text".to_string()), ..Turn::default() };
        let asked = Asked { number: 1, model: "m", input: "in", body_bytes: 8 };
        for format in Format::ALL {
            let whole: Vec<u8> =
                stream(format, &turn, &asked).frames.into_iter().flat_map(|frame| frame.bytes).collect();
            for bytes in 0..whole.len() {
                let mut frames = stream(format, &turn, &asked).frames;
                cut(&mut frames, bytes);
                let kept: Vec<u8> = frames.into_iter().flat_map(|frame| frame.bytes).collect();
                assert_eq!(kept, whole[..bytes]);
            }
        }
    }
}
