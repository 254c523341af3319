//! What a call gives back.
//! Owns: the result type and the cutting of texts to the bounds, always with a mark that says so.
//! Never: passes on more than [`TOOL_OUTPUT_BYTES_MAX`] bytes for the model.

use serde::{Deserialize, Serialize};

use super::error::ToolError;
use crate::limits::TOOL_OUTPUT_BYTES_MAX;

/// The result of one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolOutput {
    /// JSON object for the model, at most [`TOOL_OUTPUT_BYTES_MAX`] bytes.
    pub content: String,
    /// The call failed; the content says why.
    pub is_error: bool,
    /// Something was cut; the content says what.
    pub truncated: bool,
    /// What was cut, with what was kept, for a blob: UTF-8 text, at most
    /// [`crate::limits::TOOL_OVERFLOW_BYTES_MAX`] bytes.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "as_text")]
    pub overflow: Option<Vec<u8>>,
}

#[derive(Serialize)]
struct ErrorContent<'a> {
    error: &'a str,
    code: &'a str,
}

impl ToolOutput {
    /// A result made of `content`, one JSON object.
    pub fn ok(content: &impl Serialize, truncated: bool) -> Self {
        let content = serde_json::to_string(content).expect("results have string keys and no failing serialisers");
        if content.len() > TOOL_OUTPUT_BYTES_MAX {
            return Self::error(&ToolError::Refused {
                code: "output_too_large",
                cause: format!("the result has {} bytes, at most {TOOL_OUTPUT_BYTES_MAX} are passed on", content.len()),
                next: "ask for less at once".to_string(),
            });
        }
        Self { content, is_error: false, truncated, overflow: None }
    }

    /// A failed call.
    pub fn error(error: &ToolError) -> Self {
        let text = error.to_string();
        let content = serde_json::to_string(&ErrorContent { error: &text, code: error.code() })
            .expect("two texts always serialise");
        Self { content, is_error: true, truncated: false, overflow: None }
    }
}

/// Bytes of `text` inside a JSON string.
pub(super) fn escaped_bytes(text: &str) -> usize {
    text.chars().map(escaped_char_bytes).sum()
}

fn escaped_char_bytes(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        other => other.len_utf8(),
    }
}

/// The longest beginning of `text` that takes at most `bytes_max` bytes inside a JSON string.
pub(crate) fn cut_escaped(text: &str, bytes_max: usize) -> &str {
    let mut bytes = 0;
    for (at, c) in text.char_indices() {
        bytes += escaped_char_bytes(c);
        if bytes > bytes_max {
            return &text[..at];
        }
    }
    text
}

/// The longest beginning of `text` that has at most `bytes_max` bytes.
pub(crate) fn cut_bytes(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The longest end of `text` that takes at most `bytes_max` bytes inside a JSON string.
pub(super) fn cut_escaped_tail(text: &str, bytes_max: usize) -> &str {
    let mut bytes = 0;
    for (at, c) in text.char_indices().rev() {
        bytes += escaped_char_bytes(c);
        if bytes > bytes_max {
            return &text[at + c.len_utf8()..];
        }
    }
    text
}

impl From<ToolError> for ToolOutput {
    fn from(error: ToolError) -> Self {
        Self::error(&error)
    }
}

/// Text as a JSON string, not as a list of numbers.
mod as_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        bytes.as_deref().map(String::from_utf8_lossy).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map(String::into_bytes))
    }
}
