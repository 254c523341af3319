//! The Anthropic Messages request.
//! Owns: the request body, and the one place where thinking, effort and sampling are shaped for the model.
//! Never: sends anything.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::anthropic_models::{ModelFacts, facts};
use super::driver::{ANTHROPIC_VERSION, ANTHROPIC_VERSION_OLD};
use super::error::{ErrorClass, ProviderError, Retry};
use super::message::{Effort, InputPart, Message, Reasoning, ToolChoice, TurnRequest};
use super::routes::Route;
use super::{schema, wire};
use crate::limits::{ANTHROPIC_OUTPUT_TOKENS_DEFAULT, ANTHROPIC_THINKING_TOKENS_MIN};

#[derive(Serialize)]
struct RequestBody<'a> {
    model: &'a str,
    max_tokens: u32,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<&'a str>,
    messages: Vec<Turn<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<ChoiceField<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<Thinking>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<OutputConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    /// Caches the prefix that the next call repeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum CacheControl {
    Ephemeral,
}

#[derive(Serialize)]
struct Turn<'a> {
    role: &'static str,
    content: Vec<Block<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Block<'a> {
    AsReceived(&'a RawValue),
    Built(BuiltBlock<'a>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum BuiltBlock<'a> {
    Text {
        text: &'a str,
    },
    Image {
        source: Source<'a>,
    },
    Document {
        source: Source<'a>,
        title: &'a str,
    },
    ToolUse {
        id: &'a str,
        name: &'a str,
        input: Cow<'a, RawValue>,
    },
    ToolResult {
        tool_use_id: &'a str,
        content: &'a str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
    },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Source<'a> {
    Base64 { media_type: &'a str, data: String },
    Text { media_type: &'static str, data: Cow<'a, str> },
}

#[derive(Serialize)]
struct Tool<'a> {
    name: &'a str,
    description: &'a str,
    input_schema: &'a RawValue,
}

#[derive(Serialize)]
struct ChoiceField<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disable_parallel_tool_use: Option<bool>,
}

#[derive(Debug, Serialize, PartialEq, Eq)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Thinking {
    Adaptive {
        #[serde(skip_serializing_if = "Option::is_none")]
        display: Option<&'static str>,
    },
    Enabled {
        budget_tokens: u32,
    },
    Disabled,
}

#[derive(Serialize)]
struct OutputConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    effort: Option<Effort>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Format>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Format {
    JsonSchema { schema: Box<RawValue> },
}

/// The request body.
pub(super) fn body(route: &Route, request: &TurnRequest<'_>) -> Result<Vec<u8>, ProviderError> {
    let (model, options) = (request.model, &request.options);
    let version = route.anthropic_version.as_deref().unwrap_or(ANTHROPIC_VERSION);
    let is_current = version != ANTHROPIC_VERSION_OLD;
    let facts = facts(model);
    let ceiling = facts.output_tokens_max;
    let max_tokens = request.max_output_tokens.unwrap_or(ANTHROPIC_OUTPUT_TOKENS_DEFAULT).min(ceiling);
    let tools = request
        .tools
        .iter()
        .map(|tool| {
            let input_schema = wire::schema_of(tool)?;
            Ok(Tool { name: &tool.name, description: &tool.description, input_schema })
        })
        .collect::<Result<Vec<_>, ProviderError>>()?;
    let is_forced = !tools.is_empty() && matches!(options.tool_choice, ToolChoice::Required | ToolChoice::Tool(_));
    let (thinking, effort) = shape_thinking(&facts, options.reasoning, max_tokens, is_forced)?;
    let may_sample =
        !is_current && facts.samples && !matches!(thinking, Some(Thinking::Adaptive { .. } | Thinking::Enabled { .. }));
    let format = options.output_schema.map(|it| Format::JsonSchema { schema: schema::for_anthropic(it.schema) });
    if format.is_some() && !facts.structured {
        let message = "this model cannot be held to a JSON schema; next: ask for JSON in the prompt, or choose a newer \
                       model";
        return Err(ProviderError::new(ErrorClass::InvalidRequest, Retry::Never, "output_schema_unsupported", message));
    }
    let body = RequestBody {
        model,
        max_tokens,
        stream: true,
        system: request.instructions.filter(|text| !text.trim().is_empty()),
        messages: turns(request.messages, &route.id, model),
        tool_choice: tool_choice(options.tool_choice, options.parallel_tool_calls).filter(|_| !tools.is_empty()),
        tools,
        thinking,
        output_config: (effort.is_some() || format.is_some()).then_some(OutputConfig { effort, format }),
        // The vendor's scale ends at 1.
        temperature: request.temperature.filter(|_| may_sample).map(|it| it.min(1.0)),
        cache_control: is_current.then_some(CacheControl::Ephemeral),
    };
    Ok(wire::body(&body))
}

/// What thinking between the calls of a turn is asked for by, at models that think within a budget; newer ones do so by themselves.
const INTERLEAVED_BETA: &str = "interleaved-thinking-2025-05-14";

/// The `anthropic-beta` header: what the route says, and what the request needs.
pub(super) fn beta(route: &Route, request: &TurnRequest<'_>) -> Option<String> {
    let own = route.anthropic_beta.clone();
    let (asked, facts) = (request.options.reasoning, facts(request.model));
    let has_tools = !request.tools.is_empty();
    let is_forced = has_tools && matches!(request.options.tool_choice, ToolChoice::Required | ToolChoice::Tool(_));
    let thinking = shape_thinking(&facts, asked, facts.output_tokens_max, is_forced);
    let is_needed = asked.interleaved && has_tools && matches!(thinking, Ok((Some(Thinking::Enabled { .. }), _)));
    match own {
        Some(own) if !is_needed || own.split(',').any(|beta| beta.trim() == INTERLEAVED_BETA) => Some(own),
        Some(own) => Some(format!("{own},{INTERLEAVED_BETA}")),
        None => is_needed.then(|| INTERLEAVED_BETA.to_string()),
    }
}

fn tool_choice<'a>(choice: ToolChoice<'a>, parallel: Option<bool>) -> Option<ChoiceField<'a>> {
    let disable_parallel_tool_use = (parallel == Some(false)).then_some(true);
    let (kind, name) = match choice {
        ToolChoice::Auto if disable_parallel_tool_use.is_none() => return None,
        ToolChoice::Auto => ("auto", None),
        ToolChoice::None => return Some(ChoiceField { kind: "none", name: None, disable_parallel_tool_use: None }),
        ToolChoice::Required => ("any", None),
        ToolChoice::Tool(name) => ("tool", Some(name)),
    };
    Some(ChoiceField { kind, name, disable_parallel_tool_use })
}

/// What was asked for, in the form that the model takes: `thinking` and `output_config.effort`.
fn shape_thinking(
    facts: &ModelFacts,
    asked: Reasoning,
    max_tokens: u32,
    is_forced: bool,
) -> Result<(Option<Thinking>, Option<Effort>), ProviderError> {
    let can_think = facts.adaptive || facts.budget;
    let wants = asked.effort.is_some_and(|effort| effort != Effort::None) || asked.budget_tokens.is_some();
    if is_forced && can_think {
        // Thinking and a forced call exclude each other, also where the model thinks without being asked.
        if wants {
            let message = "a forced tool call excludes thinking; next: leave out one of the two";
            return Err(ProviderError::new(
                ErrorClass::InvalidRequest,
                Retry::Never,
                "thinking_with_forced_tool",
                message,
            ));
        }
        return Ok((Some(Thinking::Disabled), None));
    }
    let off = asked.effort == Some(Effort::None) && can_think;
    if off || !wants {
        return Ok((off.then_some(Thinking::Disabled), None));
    }
    let display = asked.summary.then_some("summarized");
    // `minimal` is another vendor's word.
    let effort = asked.effort.zip(facts.effort_max).map(|(effort, most)| effort.clamp(Effort::Low, most));
    let budget = asked.budget_tokens.unwrap_or(match asked.effort {
        None | Some(Effort::None | Effort::Minimal) => ANTHROPIC_THINKING_TOKENS_MIN,
        Some(Effort::Low) => 4_096,
        Some(Effort::Medium) => 8_192,
        Some(Effort::High) => 16_384,
        Some(Effort::Xhigh | Effort::Max) => 32_000,
    });
    let thinking = if facts.budget && (asked.budget_tokens.is_some() || !facts.adaptive) {
        // The answer needs room behind the thinking; where there is none the model answers without.
        let most = max_tokens.saturating_sub(1).min(max_tokens / 4 * 3);
        (most >= ANTHROPIC_THINKING_TOKENS_MIN)
            .then(|| Thinking::Enabled { budget_tokens: budget.clamp(ANTHROPIC_THINKING_TOKENS_MIN, most) })
    } else if facts.adaptive {
        Some(Thinking::Adaptive { display })
    } else {
        None
    };
    Ok((thinking, effort))
}

/// The conversation with neighbours of one role as one turn, results of tools first in theirs. Blank texts are
/// left out, since the vendor refuses them.
fn turns<'a>(messages: &'a [Message], route: &str, model: &str) -> Vec<Turn<'a>> {
    let mut turns: Vec<Turn<'a>> = Vec::with_capacity(messages.len());
    for message in messages {
        let (role, blocks) = match message {
            Message::User { parts } => ("user", parts.iter().filter_map(user_block).map(Block::Built).collect()),
            Message::Assistant { items, origin, .. } if wire::may_replay(items, origin, route, model) => {
                ("assistant", items.iter().map(|item| Block::AsReceived(item)).collect())
            }
            Message::Assistant { text, tool_calls, .. } => {
                let text = (!text.trim().is_empty()).then_some(BuiltBlock::Text { text });
                let calls = tool_calls.iter().map(|call| BuiltBlock::ToolUse {
                    id: &call.call_id,
                    name: &call.name,
                    input: wire::object_or_empty(&call.arguments),
                });
                ("assistant", text.into_iter().chain(calls).map(Block::Built).collect::<Vec<_>>())
            }
            Message::ToolResults { results } => {
                let results = results.iter().map(|result| BuiltBlock::ToolResult {
                    tool_use_id: &result.call_id,
                    content: &result.content,
                    is_error: result.is_error,
                });
                ("user", results.map(Block::Built).collect())
            }
        };
        match turns.last_mut() {
            _ if blocks.is_empty() => {}
            Some(last) if last.role == role => last.content.extend(blocks),
            _ => turns.push(Turn { role, content: blocks }),
        }
    }
    turns
}

fn user_block(part: &InputPart) -> Option<BuiltBlock<'_>> {
    let base64 = |media_type, bytes: &[u8]| Source::Base64 { media_type, data: wire::base64(bytes) };
    match part {
        InputPart::Text(text) => (!text.trim().is_empty()).then_some(BuiltBlock::Text { text }),
        InputPart::Image { media_type, bytes } => Some(BuiltBlock::Image { source: base64(media_type, bytes) }),
        InputPart::Document { media_type, name, bytes } => {
            let source = match std::str::from_utf8(bytes) {
                Ok(text) if media_type.starts_with("text/") => {
                    Source::Text { media_type: "text/plain", data: Cow::Borrowed(text) }
                }
                _ => base64(media_type, bytes),
            };
            Some(BuiltBlock::Document { source, title: name })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shaped(model: &str, effort: Option<Effort>, budget_tokens: Option<u32>) -> (Option<Thinking>, Option<Effort>) {
        let asked = Reasoning { effort, summary: false, budget_tokens, interleaved: false };
        shape_thinking(&facts(model), asked, 32_000, false).expect("not forced")
    }

    #[test]
    fn thinking_takes_the_form_that_each_generation_accepts() {
        let adaptive = Some(Thinking::Adaptive { display: None });
        let enabled = |budget_tokens| Some(Thinking::Enabled { budget_tokens });
        let high = Some(Effort::High);
        assert_eq!(shaped("claude-opus-4-8", high, None), (adaptive, high));
        let adaptive = Some(Thinking::Adaptive { display: None });
        assert_eq!(shaped("claude-opus-4-8", None, Some(5_000)), (adaptive, None));
        assert_eq!(shaped("claude-sonnet-4-6", None, Some(5_000)), (enabled(5_000), None));
        assert_eq!(shaped("claude-opus-4-5", Some(Effort::Max), None), (enabled(24_000), high));
        assert_eq!(shaped("claude-sonnet-4-5", Some(Effort::Minimal), None), (enabled(1_024), None));
        assert_eq!(shaped("claude-3-5-haiku-20241022", high, None), (None, None));
        assert_eq!(shaped("claude-opus-4-8", Some(Effort::None), None), (Some(Thinking::Disabled), None));
        assert_eq!(shaped("claude-3-opus-20240229", Some(Effort::None), None), (None, None));
        for model in ["claude-opus-4-8", "claude-sonnet-4-5", "claude-3-opus-20240229"] {
            assert_eq!(shaped(model, None, None), (None, None), "{model}");
        }
        let no_room = Reasoning { effort: high, ..Reasoning::default() };
        assert_eq!(shape_thinking(&facts("claude-sonnet-4-5"), no_room, 1_000, false).expect("fits"), (None, None));
    }

    #[test]
    fn a_forced_call_switches_thinking_off_or_is_refused_here() {
        let forced = |model: &str, effort| {
            let asked = Reasoning { effort, ..Reasoning::default() };
            shape_thinking(&facts(model), asked, 32_000, true).map_err(|error| error.code.expect("code"))
        };
        assert_eq!(forced("claude-opus-4-8", None), Ok((Some(Thinking::Disabled), None)));
        assert_eq!(forced("claude-opus-4-8", Some(Effort::Low)), Err("thinking_with_forced_tool".to_string()));
        assert_eq!(forced("claude-3-opus-20240229", None), Ok((None, None)));
    }
}
