//! The OpenAI Responses request, as OpenAI and xAI take it.
//! Owns: the request body.
//! Never: sends anything.

use serde::Serialize;
use serde_json::value::RawValue;

use super::driver::{Driver, is_openai_o_series};
use super::error::ProviderError;
use super::message::{Effort, InputPart, Message, ToolChoice, TurnRequest};
use super::routes::Route;
use super::{schema, wire};

#[derive(Serialize)]
struct RequestBody<'a> {
    model: &'a str,
    stream: bool,
    store: bool,
    include: [&'static str; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<ReasoningField>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<TextField<'a>>,
    input: Vec<InputItem<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<ChoiceField<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
}

#[derive(Serialize)]
struct ReasoningField {
    #[serde(skip_serializing_if = "Option::is_none")]
    effort: Option<Effort>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<&'static str>,
}

#[derive(Serialize)]
struct TextField<'a> {
    format: Format<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Format<'a> {
    JsonSchema { name: &'a str, schema: &'a RawValue, strict: bool },
}

#[derive(Serialize)]
struct Tool<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    description: &'a str,
    parameters: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ChoiceField<'a> {
    Word(&'static str),
    Function {
        #[serde(rename = "type")]
        kind: &'static str,
        name: &'a str,
    },
}

#[derive(Serialize)]
#[serde(untagged)]
enum InputItem<'a> {
    Message { role: &'static str, content: Vec<Part<'a>> },
    AsReceived(&'a RawValue),
    Call(CallItem<'a>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum CallItem<'a> {
    FunctionCall { call_id: &'a str, name: &'a str, arguments: &'a str },
    FunctionCallOutput { call_id: &'a str, output: &'a str },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part<'a> {
    InputText { text: &'a str },
    InputImage { image_url: String, detail: &'static str },
    InputFile { filename: &'a str, file_data: String },
    OutputText { text: &'a str, annotations: [(); 0] },
}

/// The request body. Nothing is stored at the vendor: the whole conversation is sent, reasoning as received.
pub(super) fn body(route: &Route, request: &TurnRequest<'_>) -> Result<Vec<u8>, ProviderError> {
    let is_xai = route.driver == Driver::Xai;
    let (model, options) = (request.model, &request.options);
    let instructions = request.instructions.filter(|text| !text.is_empty());
    let mut input = Vec::with_capacity(request.messages.len() + 1);
    if let (true, Some(text)) = (is_xai, instructions) {
        input.push(InputItem::Message { role: "system", content: vec![Part::InputText { text }] });
    }
    for message in request.messages {
        push_message(&mut input, message, &route.id, model);
    }
    let mut tools = Vec::with_capacity(request.tools.len());
    for tool in request.tools {
        let parameters = wire::schema_of(tool)?;
        let strict = (!is_xai).then(|| schema::is_openai_strict(parameters));
        tools.push(Tool { kind: "function", name: &tool.name, description: &tool.description, parameters, strict });
    }
    let has_tools = !tools.is_empty();
    let thinks = thinks(route.driver, model);
    let reasoning = match (options.reasoning.effort, options.reasoning.summary) {
        (None, false) => None,
        _ if thinks == Some(false) => None,
        (effort, summary) => Some(ReasoningField { effort, summary: summary.then_some("auto") }),
    };
    let body = RequestBody {
        model,
        stream: true,
        store: false,
        include: ["reasoning.encrypted_content"],
        instructions: instructions.filter(|_| !is_xai),
        max_output_tokens: request.max_output_tokens,
        temperature: request
            .temperature
            .filter(|_| is_xai || thinks != Some(true) || may_set_temperature(model, options.reasoning.effort)),
        reasoning,
        text: options.output_schema.map(|it| {
            let strict = schema::is_openai_strict(it.schema);
            TextField { format: Format::JsonSchema { name: it.name, schema: it.schema, strict } }
        }),
        input,
        tools,
        tool_choice: match options.tool_choice {
            _ if !has_tools => None,
            ToolChoice::Auto => None,
            ToolChoice::None => Some(ChoiceField::Word("none")),
            ToolChoice::Required => Some(ChoiceField::Word("required")),
            ToolChoice::Tool(name) => Some(ChoiceField::Function { kind: "function", name }),
        },
        parallel_tool_calls: options.parallel_tool_calls.filter(|_| has_tools),
    };
    Ok(wire::body(&body))
}

fn push_message<'a>(input: &mut Vec<InputItem<'a>>, message: &'a Message, route: &str, model: &str) {
    match message {
        Message::User { parts } => {
            input.push(InputItem::Message { role: "user", content: parts.iter().map(user_part).collect() });
        }
        Message::Assistant { items, origin, .. } if wire::may_replay(items, origin, route, model) => {
            input.extend(items.iter().map(|item| InputItem::AsReceived(item)));
        }
        Message::Assistant { text, tool_calls, .. } => {
            if !text.is_empty() || tool_calls.is_empty() {
                let content = vec![Part::OutputText { text, annotations: [] }];
                input.push(InputItem::Message { role: "assistant", content });
            }
            input.extend(tool_calls.iter().map(|call| {
                let (call_id, name, arguments) = (&*call.call_id, &*call.name, &*call.arguments);
                InputItem::Call(CallItem::FunctionCall { call_id, name, arguments })
            }));
        }
        Message::ToolResults { results } => input.extend(results.iter().map(|result| {
            let (call_id, output) = (&*result.call_id, &*result.content);
            InputItem::Call(CallItem::FunctionCallOutput { call_id, output })
        })),
    }
}

fn user_part(part: &InputPart) -> Part<'_> {
    match part {
        InputPart::Text(text) => Part::InputText { text },
        InputPart::Image { media_type, bytes } => {
            Part::InputImage { image_url: wire::data_url(media_type, bytes), detail: "auto" }
        }
        InputPart::Document { media_type, name, bytes } => {
            Part::InputFile { filename: name, file_data: wire::data_url(media_type, bytes) }
        }
    }
}

/// Whether the model reasons, as far as its name tells; `None` for the names of gateways and local servers, which
/// get what was asked for.
fn thinks(driver: Driver, model: &str) -> Option<bool> {
    if driver == Driver::Xai {
        // The others refuse the field, and reason or not as they are made.
        return Some(model.starts_with("grok-3-mini"));
    }
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| model.starts_with(prefix));
    if starts(&["gpt-3", "gpt-4", "chatgpt-", "ft:gpt-3", "ft:gpt-4"]) || model.contains("-chat") {
        Some(false)
    } else if starts(&["gpt-", "codex-", "computer-use-", "ft:gpt-"]) || is_openai_o_series(model) {
        Some(true)
    } else {
        None
    }
}

/// A reasoning model samples as it likes, unless it was told not to reason and can be.
fn may_set_temperature(model: &str, effort: Option<Effort>) -> bool {
    effort == Some(Effort::None) && !model.starts_with("gpt-6.2")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_name_tells_whether_it_reasons_and_takes_a_temperature() {
        let known = ["gpt-4.1", "gpt-5.4", "o4-mini", "gpt-5-chat-latest", "ft:gpt-4o:x", "my-model"];
        let expected = [Some(false), Some(true), Some(true), Some(false), Some(false), None];
        assert_eq!(known.map(|model| thinks(Driver::Openai, model)), expected);
        assert_eq!(["grok-4", "grok-3-mini"].map(|model| thinks(Driver::Xai, model)), [Some(false), Some(true)]);
        assert!(
            may_set_temperature("gpt-6", Some(Effort::None)) && !may_set_temperature("gpt-6.2", Some(Effort::None))
        );
        assert!(!may_set_temperature("gpt-6", Some(Effort::Low)) && !may_set_temperature("gpt-6", None));
    }
}
