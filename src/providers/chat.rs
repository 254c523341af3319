//! The Chat Completions request, as OpenRouter, local servers and gateways take it.
//! Owns: the request body.
//! Never: sends anything.

use serde::Serialize;
use serde_json::value::RawValue;

use super::driver::Driver;
use super::error::ProviderError;
use super::message::{Effort, InputPart, Message, ToolCall, ToolChoice, TurnRequest};
use super::routes::Route;
use super::{schema, wire};

#[derive(Serialize)]
struct RequestBody<'a> {
    model: &'a str,
    stream: bool,
    stream_options: StreamOptions,
    messages: Vec<ChatMessage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<Effort>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<ReasoningField>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<Format<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<ChoiceField<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

/// OpenRouter's own form, which also takes a budget.
#[derive(Serialize)]
struct ReasoningField {
    #[serde(skip_serializing_if = "Option::is_none")]
    effort: Option<Effort>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(tag = "type", content = "json_schema", rename_all = "snake_case")]
enum Format<'a> {
    JsonSchema { name: &'a str, schema: &'a RawValue, strict: bool },
}

#[derive(Serialize)]
#[serde(tag = "type", content = "function", rename_all = "snake_case")]
enum Tool<'a> {
    Function { name: &'a str, description: &'a str, parameters: &'a RawValue },
}

#[derive(Serialize)]
#[serde(untagged)]
enum ChoiceField<'a> {
    Word(&'static str),
    Function(CallField<'a, Name<'a>>),
}

#[derive(Serialize)]
struct Name<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct CallField<'a, F> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "type")]
    kind: &'static str,
    function: F,
}

#[derive(Serialize)]
struct CalledFunction<'a> {
    name: &'a str,
    arguments: &'a str,
}

#[derive(Serialize)]
#[serde(tag = "role", rename_all = "snake_case")]
enum ChatMessage<'a> {
    System {
        content: &'a str,
    },
    User {
        content: Content<'a>,
    },
    Assistant {
        content: Option<&'a str>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<CallField<'a, CalledFunction<'a>>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reasoning_details: Option<&'a RawValue>,
    },
    Tool {
        tool_call_id: &'a str,
        content: &'a str,
    },
}

/// Plain text where possible: some local servers know no list of parts.
#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(&'a str),
    Parts(Vec<Part<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: ImageUrl },
    File { file: File<'a> },
}

#[derive(Serialize)]
struct ImageUrl {
    url: String,
}

#[derive(Serialize)]
struct File<'a> {
    filename: &'a str,
    file_data: String,
}

/// The request body.
pub(super) fn body(route: &Route, request: &TurnRequest<'_>) -> Result<Vec<u8>, ProviderError> {
    let (model, options) = (request.model, &request.options);
    let is_openrouter = route.driver == Driver::Openrouter;
    // OpenAI's own models refuse the older name, local servers may not know the newer one.
    let is_openai_itself = route.base_url.to_string().contains("://api.openai.com");
    let mut messages = Vec::with_capacity(request.messages.len() + 1);
    messages
        .extend(request.instructions.filter(|text| !text.is_empty()).map(|content| ChatMessage::System { content }));
    for message in request.messages {
        push_message(&mut messages, message, &route.id, model);
    }
    let tools = request
        .tools
        .iter()
        .map(|tool| {
            let parameters = wire::schema_of(tool)?;
            Ok(Tool::Function { name: &tool.name, description: &tool.description, parameters })
        })
        .collect::<Result<Vec<_>, ProviderError>>()?;
    let has_tools = !tools.is_empty();
    let reasoning = options.reasoning;
    let asks_reasoning = reasoning.effort.is_some() || reasoning.budget_tokens.is_some() || reasoning.summary;
    let body = RequestBody {
        model,
        stream: true,
        stream_options: StreamOptions { include_usage: true },
        messages,
        max_tokens: request.max_output_tokens.filter(|_| !is_openai_itself),
        max_completion_tokens: request.max_output_tokens.filter(|_| is_openai_itself),
        temperature: request.temperature,
        reasoning_effort: reasoning.effort.filter(|_| !is_openrouter),
        reasoning: (is_openrouter && asks_reasoning).then(|| ReasoningField {
            // The two say the same; a budget is the more precise one.
            effort: reasoning.effort.filter(|_| reasoning.budget_tokens.is_none()),
            max_tokens: reasoning.budget_tokens,
            summary: reasoning.summary.then_some("auto"),
        }),
        response_format: options.output_schema.map(|it| {
            let strict = schema::is_openai_strict(it.schema);
            Format::JsonSchema { name: it.name, schema: it.schema, strict }
        }),
        tools,
        tool_choice: match options.tool_choice {
            _ if !has_tools => None,
            ToolChoice::Auto => None,
            ToolChoice::None => Some(ChoiceField::Word("none")),
            ToolChoice::Required => Some(ChoiceField::Word("required")),
            ToolChoice::Tool(name) => {
                Some(ChoiceField::Function(CallField { id: None, kind: "function", function: Name { name } }))
            }
        },
        parallel_tool_calls: options.parallel_tool_calls.filter(|_| has_tools),
    };
    Ok(wire::body(&body))
}

fn push_message<'a>(messages: &mut Vec<ChatMessage<'a>>, message: &'a Message, route: &str, model: &str) {
    match message {
        Message::User { parts } => {
            let content = match &parts[..] {
                [InputPart::Text(text)] => Content::Text(text),
                parts => Content::Parts(parts.iter().map(user_part).collect()),
            };
            messages.push(ChatMessage::User { content });
        }
        Message::Assistant { text, tool_calls, items, origin } => {
            let details = items.first().filter(|_| wire::may_replay(items, origin, route, model));
            messages.push(ChatMessage::Assistant {
                content: (!text.is_empty() || tool_calls.is_empty()).then_some(text),
                tool_calls: tool_calls.iter().map(call_field).collect(),
                reasoning_details: details.map(|details| &**details),
            });
        }
        Message::ToolResults { results } => messages.extend(
            results.iter().map(|result| ChatMessage::Tool { tool_call_id: &result.call_id, content: &result.content }),
        ),
    }
}

/// Servers that put the conversation through a template parse the arguments, and fail on what is no JSON.
fn call_field(call: &ToolCall) -> CallField<'_, CalledFunction<'_>> {
    let is_json = serde_json::from_str::<&RawValue>(&call.arguments).is_ok();
    let arguments = if is_json { call.arguments.as_str() } else { "{}" };
    let function = CalledFunction { name: &call.name, arguments };
    CallField { id: Some(&call.call_id), kind: "function", function }
}

fn user_part(part: &InputPart) -> Part<'_> {
    match part {
        InputPart::Text(text) => Part::Text { text },
        InputPart::Image { media_type, bytes } => {
            Part::ImageUrl { image_url: ImageUrl { url: wire::data_url(media_type, bytes) } }
        }
        InputPart::Document { media_type, name, bytes } => {
            Part::File { file: File { filename: name, file_data: wire::data_url(media_type, bytes) } }
        }
    }
}
