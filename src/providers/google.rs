//! The Google `generateContent` request.
//! Owns: the request body.
//! Never: sends anything, or decodes a thought signature: it goes back as the text that came.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::error::ProviderError;
use super::message::{Effort, InputPart, Message, Reasoning, ToolChoice, ToolResult, TurnRequest};
use super::routes::Route;
use super::{schema, wire};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<Instruction<'a>>,
    contents: Vec<Content<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tools<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_config: Option<ToolConfig<'a>>,
    generation_config: GenerationConfig,
}

#[derive(Serialize)]
struct Instruction<'a> {
    parts: [Part<'a>; 1],
}

#[derive(Serialize)]
struct Content<'a> {
    role: &'static str,
    parts: Vec<Part<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Part<'a> {
    AsReceived(&'a RawValue),
    Built(BuiltPart<'a>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum BuiltPart<'a> {
    Text(&'a str),
    InlineData(InlineData<'a>),
    FunctionCall(FunctionCall<'a>),
    FunctionResponse(FunctionResponse<'a>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InlineData<'a> {
    mime_type: &'a str,
    data: String,
}

#[derive(Serialize)]
struct FunctionCall<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    name: &'a str,
    args: Cow<'a, RawValue>,
}

#[derive(Serialize)]
struct FunctionResponse<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    name: &'a str,
    response: Response<'a>,
}

/// The vendor wants an object, and gives meaning to two keys.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Response<'a> {
    Output(&'a str),
    Error(&'a str),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tools<'a> {
    function_declarations: Vec<Declaration<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Declaration<'a> {
    name: &'a str,
    description: &'a str,
    parameters_json_schema: Box<RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToolConfig<'a> {
    function_calling_config: CallingConfig<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CallingConfig<'a> {
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_function_names: Option<[&'a str; 1]>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GenerationConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_mime_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_json_schema: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_config: Option<ThinkingConfig>,
}

/// A level or a budget, never both: the vendor refuses that.
#[derive(Debug, Serialize, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
struct ThinkingConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    include_thoughts: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_level: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_budget: Option<u32>,
}

/// The request body. The model stands in the URL.
pub(super) fn body(route: &Route, request: &TurnRequest<'_>) -> Result<Vec<u8>, ProviderError> {
    let options = &request.options;
    let declarations = request
        .tools
        .iter()
        .map(|tool| {
            let parameters_json_schema = schema::for_google(wire::schema_of(tool)?);
            Ok(Declaration { name: &tool.name, description: &tool.description, parameters_json_schema })
        })
        .collect::<Result<Vec<_>, ProviderError>>()?;
    let calling = |mode, name| {
        let allowed_function_names = name;
        Some(ToolConfig { function_calling_config: CallingConfig { mode, allowed_function_names } })
    };
    let has_tools = !declarations.is_empty();
    let body = RequestBody {
        system_instruction: request
            .instructions
            .filter(|text| !text.is_empty())
            .map(|text| Instruction { parts: [Part::Built(BuiltPart::Text(text))] }),
        contents: contents(request.messages, &route.id, request.model),
        tools: if has_tools { vec![Tools { function_declarations: declarations }] } else { Vec::new() },
        tool_config: match options.tool_choice {
            _ if !has_tools => None,
            ToolChoice::Auto => None,
            ToolChoice::None => calling("NONE", None),
            ToolChoice::Required => calling("ANY", None),
            ToolChoice::Tool(name) => calling("ANY", Some([name])),
        },
        generation_config: GenerationConfig {
            temperature: request.temperature,
            max_output_tokens: request.max_output_tokens,
            response_mime_type: options.output_schema.map(|_| "application/json"),
            response_json_schema: options.output_schema.map(|it| schema::for_google(it.schema)),
            thinking_config: thinking_config(request.model, options.reasoning),
        },
    };
    Ok(wire::body(&body))
}

/// The conversation with neighbours of one role as one content.
fn contents<'a>(messages: &'a [Message], route: &str, model: &str) -> Vec<Content<'a>> {
    let mut contents: Vec<Content<'a>> = Vec::with_capacity(messages.len());
    for message in messages {
        let (role, parts) = match message {
            Message::User { parts } => ("user", parts.iter().map(user_part).map(Part::Built).collect::<Vec<_>>()),
            Message::Assistant { items, origin, .. } if wire::may_replay(items, origin, route, model) => {
                ("model", items.iter().map(|item| Part::AsReceived(item)).collect())
            }
            Message::Assistant { text, tool_calls, .. } => {
                let text = (!text.is_empty()).then_some(BuiltPart::Text(text));
                let calls = tool_calls.iter().map(|call| {
                    let args = wire::object_or_empty(&call.arguments);
                    BuiltPart::FunctionCall(FunctionCall {
                        id: wire::vendor_call_id(&call.call_id),
                        name: &call.name,
                        args,
                    })
                });
                ("model", text.into_iter().chain(calls).map(Part::Built).collect())
            }
            Message::ToolResults { results } => ("user", results.iter().map(response_part).map(Part::Built).collect()),
        };
        match contents.last_mut() {
            _ if parts.is_empty() => {}
            Some(last) if last.role == role => last.parts.extend(parts),
            _ => contents.push(Content { role, parts }),
        }
    }
    contents
}

fn user_part(part: &InputPart) -> BuiltPart<'_> {
    match part {
        InputPart::Text(text) => BuiltPart::Text(text),
        InputPart::Image { media_type, bytes } | InputPart::Document { media_type, bytes, .. } => {
            BuiltPart::InlineData(InlineData { mime_type: media_type, data: wire::base64(bytes) })
        }
    }
}

fn response_part(result: &ToolResult) -> BuiltPart<'_> {
    let response = if result.is_error { Response::Error(&result.content) } else { Response::Output(&result.content) };
    let id = wire::vendor_call_id(&result.call_id);
    BuiltPart::FunctionResponse(FunctionResponse { id, name: &result.name, response })
}

/// How a model is told how much to think.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Control {
    /// It does not think, and refuses the setting.
    None,
    /// By tokens: the 2.5 family. The least is 0 where thinking can be switched off.
    Budget { least: u32, most: u32 },
    /// By level: 3 and later.
    Level,
}

fn control(model: &str) -> Control {
    let name = model.strip_prefix("models/").unwrap_or(model);
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    if starts(&["gemini-1", "gemini-2.0", "gemma-", "gemini-2.5-flash-image"]) {
        Control::None
    } else if starts(&["gemini-2.5-pro"]) {
        Control::Budget { least: 128, most: 32_768 }
    } else if starts(&["gemini-2.5"]) {
        Control::Budget { least: 0, most: 24_576 }
    } else {
        Control::Level
    }
}

fn thinking_config(model: &str, asked: Reasoning) -> Option<ThinkingConfig> {
    if asked == Reasoning::default() {
        return None;
    }
    let include_thoughts = asked.summary.then_some(true);
    let config = match control(model) {
        Control::None => return None,
        Control::Budget { least, most } => {
            let by_effort = asked.effort.map(|effort| match effort {
                Effort::None => 0,
                Effort::Minimal => 512,
                Effort::Low => 2_048,
                Effort::Medium => 8_192,
                Effort::High => 16_384,
                Effort::Xhigh | Effort::Max => most,
            });
            let thinking_budget = asked.budget_tokens.or(by_effort).map(|budget| budget.clamp(least, most));
            ThinkingConfig { include_thoughts, thinking_budget, ..ThinkingConfig::default() }
        }
        Control::Level => {
            let thinking_level = asked.effort.map(|effort| match effort {
                Effort::None | Effort::Minimal => "MINIMAL",
                Effort::Low => "LOW",
                Effort::Medium => "MEDIUM",
                Effort::High | Effort::Xhigh | Effort::Max => "HIGH",
            });
            ThinkingConfig { include_thoughts, thinking_level, ..ThinkingConfig::default() }
        }
    };
    (config != ThinkingConfig::default()).then_some(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinking_is_told_by_level_by_budget_or_not_at_all_and_never_twice() {
        let config = |model: &str, effort, budget_tokens, summary| {
            let asked = Reasoning { effort, summary, budget_tokens, interleaved: false };
            thinking_config(model, asked).map(|config| serde_json::to_string(&config).expect("JSON"))
        };
        let high = Some(Effort::High);
        let cases = [
            ("gemini-3-pro", high, None, false, Some(r#"{"thinkingLevel":"HIGH"}"#)),
            ("gemini-3-pro", high, Some(9), true, Some(r#"{"includeThoughts":true,"thinkingLevel":"HIGH"}"#)),
            ("gemini-3-pro", None, Some(9), false, None),
            ("gemini-2.5-pro", Some(Effort::None), None, false, Some(r#"{"thinkingBudget":128}"#)),
            ("gemini-2.5-flash", Some(Effort::None), None, false, Some(r#"{"thinkingBudget":0}"#)),
            ("gemini-2.5-flash", high, Some(99_999), false, Some(r#"{"thinkingBudget":24576}"#)),
            ("gemini-2.5-flash", None, None, true, Some(r#"{"includeThoughts":true}"#)),
            ("models/gemini-2.0-flash", high, None, true, None),
            ("gemini-3-pro", None, None, false, None),
        ];
        for (model, effort, budget, summary, expected) in cases {
            assert_eq!(config(model, effort, budget, summary).as_deref(), expected, "{model} {effort:?} {budget:?}");
        }
    }
}
