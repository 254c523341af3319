//! The transcript and the outcome of a turn, independent of any vendor.
//! Owns: the types that the engine and the drivers share.
//! Never: knows a wire format; what a vendor wants back unchanged travels as raw JSON.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Where an assistant message came from. Raw items go back only to the same route and model: reasoning data
/// means nothing elsewhere, and must not reach another vendor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Route id.
    pub route: String,
    /// Model name.
    pub model: String,
}

/// One part of what a user said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputPart {
    /// Plain text.
    Text(String),
    /// A picture.
    Image {
        /// For example `image/png`.
        media_type: String,
        /// The file's bytes.
        bytes: Arc<[u8]>,
    },
    /// A document, for example a PDF.
    Document {
        /// For example `application/pdf`.
        media_type: String,
        /// File name shown to the model.
        name: String,
        /// The file's bytes.
        bytes: Arc<[u8]>,
    },
}

/// One message of a conversation, oldest first.
#[derive(Debug, Clone)]
pub enum Message {
    /// What the user said; at least one part.
    User {
        /// In order.
        parts: Vec<InputPart>,
    },
    /// What a model answered.
    Assistant {
        /// Plain text of the answer.
        text: String,
        /// Tools it asked for, in order; each has its result in the [`Message::ToolResults`] that follows.
        tool_calls: Vec<ToolCall>,
        /// The vendor's output items as received, in order; may be empty.
        items: Vec<Box<RawValue>>,
        /// Who answered.
        origin: Origin,
    },
    /// What the tools of the assistant message before gave, in the order of its calls.
    ToolResults {
        /// One for each call.
        results: Vec<ToolResult>,
    },
}

impl Message {
    /// What a user said, as plain text.
    pub fn user(text: impl Into<String>) -> Self {
        Self::User { parts: vec![InputPart::Text(text.into())] }
    }
}

/// What one tool call gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolResult {
    /// Id of the call, as the vendor gave it.
    pub call_id: String,
    /// Tool name.
    pub name: String,
    /// Text for the model.
    pub content: String,
    /// The call failed, was denied or was interrupted; the content says so.
    pub is_error: bool,
}

/// A tool that the model is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolSpec {
    /// Name: letters, digits, `_` and `-`, at most 64 bytes, as all vendors take it.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// JSON Schema of its arguments: one JSON object.
    pub input_schema: Cow<'static, str>,
}

/// What is asked of the model.
#[derive(Debug, Clone, Copy)]
pub struct TurnRequest<'a> {
    /// Model name as the vendor knows it.
    pub model: &'a str,
    /// System prompt.
    pub instructions: Option<&'a str>,
    /// The conversation so far; the last one is usually the user's.
    pub messages: &'a [Message],
    /// Tools offered; none is an empty slice.
    pub tools: &'a [ToolSpec],
    /// Ceiling of the answer's tokens, reasoning included.
    pub max_output_tokens: Option<u32>,
    /// Sampling temperature. Left out where the model would refuse it.
    pub temperature: Option<f64>,
    /// Everything else that can be asked for.
    pub options: TurnOptions<'a>,
}

/// What can be asked for beside the conversation; the default asks for nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct TurnOptions<'a> {
    /// Whether tools may, must or must not be called.
    pub tool_choice: ToolChoice<'a>,
    /// Several calls in one answer: allowed, forbidden, or as the vendor has it. Google cannot forbid them.
    pub parallel_tool_calls: Option<bool>,
    /// The answer is to be JSON of this shape.
    pub output_schema: Option<OutputSchema<'a>>,
    /// How much the model is to think.
    pub reasoning: Reasoning,
}

/// Whether tools may, must or must not be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ToolChoice<'a> {
    /// The model decides.
    #[default]
    Auto,
    /// No tool.
    None,
    /// At least one.
    Required,
    /// This one.
    Tool(&'a str),
}

/// A JSON Schema for the answer.
#[derive(Debug, Clone, Copy)]
pub struct OutputSchema<'a> {
    /// Letters, digits, `_` and `-`, at most 64 bytes.
    pub name: &'a str,
    /// One JSON object.
    pub schema: &'a RawValue,
}

/// How much the model is to think; each driver translates it into what the model accepts, or leaves it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reasoning {
    /// The effort; `None` is the model's own default.
    pub effort: Option<Effort>,
    /// Ask for readable reasoning where the vendor offers a summary.
    pub summary: bool,
    /// Ceiling of thinking tokens, for models that take one.
    pub budget_tokens: Option<u32>,
    /// Think between the calls of one turn too, at models that do so only when asked.
    pub interleaved: bool,
}

/// Thinking effort, in the vendors' common words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    /// No thinking.
    None,
    /// As little as possible.
    Minimal,
    /// Little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
    /// Very much.
    Xhigh,
    /// As much as the model can.
    Max,
}

impl Effort {
    /// All of them, least first.
    pub const ALL: [Self; 7] = [Self::None, Self::Minimal, Self::Low, Self::Medium, Self::High, Self::Xhigh, Self::Max];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Xhigh => "xhigh",
            Self::Max => "max",
        }
    }
}

/// A sign of life of a turn. All of it is a preview until the turn has succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnEvent<'a> {
    /// The model has begun to answer.
    Started,
    /// More text of the answer.
    TextDelta(&'a str),
    /// More of what the model thinks, where it tells; never part of the answer.
    ReasoningDelta(&'a str),
}

/// Tokens of one turn, as the vendor counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// All input, the cached part included.
    pub input_tokens: u64,
    /// Input read from the vendor's cache.
    pub cached_input_tokens: u64,
    /// Input written to the vendor's cache, where it is counted apart.
    #[serde(default)]
    pub cache_write_tokens: u64,
    /// All output, reasoning included.
    pub output_tokens: u64,
    /// Output that was reasoning.
    pub reasoning_tokens: u64,
}

/// Why the model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It was done.
    Done,
    /// It wants tools to be run.
    ToolCalls,
    /// It met a limit of length; the text is cut.
    Length,
    /// It wants to go on in another request, which is to end with this answer's items.
    Pause,
    /// It declined; the text says so.
    Refusal,
}

/// A tool call of the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The vendor's id, to be repeated with the result.
    pub call_id: String,
    /// Tool name.
    pub name: String,
    /// Arguments as the model wrote them: JSON by agreement, not by guarantee.
    pub arguments: String,
}

/// A complete answer.
#[derive(Debug, Clone)]
pub struct TurnOutcome {
    /// Plain text of the answer.
    pub text: String,
    /// The vendor's output items as received, each on one line, to be replayed in the next turn.
    pub items: Vec<Box<RawValue>>,
    /// Tools to run, in order.
    pub tool_calls: Vec<ToolCall>,
    /// Tokens, when the vendor told.
    pub usage: Option<Usage>,
    /// Why it stopped.
    pub stop: Stop,
    /// The vendor's id of the answer.
    pub response_id: Option<String>,
}
