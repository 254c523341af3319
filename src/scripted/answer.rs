//! What is answered, before it takes a vendor's shape.
//! Owns: the parts of an answer, their ids and their token counts.
//! Never: knows a wire format.

use super::script::{FaultKind, Turn};

/// What is asked for, as far as the answer depends on it.
pub(super) struct Asked<'a> {
    /// Number of the request; part of every id.
    pub number: u64,
    pub model: &'a str,
    /// Last user input.
    pub input: &'a str,
    pub body_bytes: usize,
}

/// A call with its id.
pub(super) struct Call<'a> {
    pub id: String,
    pub name: &'a str,
    pub arguments: &'a str,
}

/// Why the answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    Done,
    Length,
    Filter,
    /// The vendor wants to be asked to go on; where a format has no such word it is cut by length.
    Pause,
}

/// Token counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    pub input: u64,
    pub cached: u64,
    pub output: u64,
    pub reasoning: u64,
}

/// One answer.
pub(super) struct Answer<'a> {
    pub number: u64,
    pub model: &'a str,
    pub text: &'a str,
    /// Words of a refusal, in place of the text.
    pub refusal: Option<&'a str>,
    /// Readable reasoning.
    pub thinking: Option<&'a str>,
    /// Opaque reasoning data, to be sent back.
    pub reasoning: Option<&'a str>,
    pub calls: Vec<Call<'a>>,
    /// `None` when the script says that none are told.
    pub figures: Option<Figures>,
    pub stop: Stop,
    chunk_chars: Option<usize>,
}

impl<'a> Answer<'a> {
    pub(super) fn new(turn: &'a Turn, asked: &Asked<'a>) -> Self {
        let text = match (&turn.text, &turn.refusal) {
            (_, Some(_)) => "",
            (Some(text), None) => text,
            (None, None) if turn.tool_calls.is_empty() => asked.input,
            (None, None) => "",
        };
        let id = |index: usize| format!("call_scripted_{}_{index}", asked.number);
        let call = |(index, call): (usize, &'a super::script::ToolCall)| Call {
            id: call.call_id.clone().unwrap_or_else(|| id(index)),
            name: &call.name,
            arguments: &call.arguments,
        };
        // Four bytes a token is the usual rule of thumb.
        let figures = match turn.usage {
            Some(it) => Figures {
                input: it.input_tokens,
                cached: it.cached_input_tokens,
                output: it.output_tokens,
                reasoning: it.reasoning_tokens,
            },
            None => Figures {
                input: asked.body_bytes.div_ceil(4) as u64,
                cached: 0,
                output: text.len().div_ceil(4) as u64,
                reasoning: 0,
            },
        };
        let stop = match &turn.fault {
            Some(fault) if fault.kind == FaultKind::Incomplete => match fault.code.as_deref() {
                Some("content_filter") => Stop::Filter,
                Some("pause") => Stop::Pause,
                _ => Stop::Length,
            },
            _ => Stop::Done,
        };
        Self {
            number: asked.number,
            model: asked.model,
            text,
            refusal: turn.refusal.as_deref(),
            thinking: turn.thinking.as_deref(),
            reasoning: turn.reasoning.as_deref(),
            calls: turn.tool_calls.iter().enumerate().map(call).collect(),
            figures: (!turn.no_usage).then_some(figures),
            stop,
            chunk_chars: turn.chunk_chars,
        }
    }

    /// An id that starts with `prefix`.
    pub(super) fn id(&self, prefix: &str) -> String {
        format!("{prefix}_scripted_{}", self.number)
    }

    /// `text` in the pieces that the script asks for.
    pub(super) fn pieces<'t>(&self, text: &'t str) -> Vec<&'t str> {
        chunks(text, self.chunk_chars)
    }
}

/// Cuts `text` into pieces of `chars` characters, never inside one; all at once without `chars`.
fn chunks(text: &str, chars: Option<usize>) -> Vec<&str> {
    let Some(chars) = chars else { return vec![text] };
    let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).step_by(chars).collect();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().zip(ends).map(|(start, end)| &text[*start..end]).collect()
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
}
