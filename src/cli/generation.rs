//! The generation settings of a submission, from flags to JSON.
//! Owns: which flags belong together.
//! Never: judges a value that the daemon judges.

use serde::Serialize;
use serde_json::value::RawValue;

use super::exit::CliError;

/// The flags as given.
pub(super) struct Flags<'a> {
    pub fallback_model: Option<&'a str>,
    pub max_output_tokens: Option<u32>,
    pub temperature: Option<f64>,
    pub reasoning_effort: Option<&'a str>,
    pub reasoning_summary: Option<&'a str>,
    pub reasoning_budget_tokens: Option<u32>,
    pub reasoning_interleaved: bool,
    pub tool_choice: Option<&'a str>,
    pub tool_name: Option<&'a str>,
    pub serial_tools: bool,
    pub response_format: Option<&'a str>,
    /// `--response-schema-json` or the content of `--response-schema-file`.
    pub response_schema: Option<&'a RawValue>,
}

/// `generation` of a submission.
#[derive(Debug, Serialize)]
pub(super) struct Generation<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback_model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<ToolChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<ResponseFormat<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<Reasoning<'a>>,
}

#[derive(Debug, Serialize)]
struct ToolChoice<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct ResponseFormat<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<&'a RawValue>,
}

#[derive(Debug, Serialize)]
struct Reasoning<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    effort: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    budget_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interleaved: Option<bool>,
}

impl<'a> Generation<'a> {
    /// What the flags ask for; `None` when they ask for nothing.
    ///
    /// # Errors
    /// Flags that do not go together.
    pub(super) fn of(model: Option<&'a str>, flags: &Flags<'a>) -> Result<Option<Self>, CliError> {
        let tool_choice = match (flags.tool_choice, flags.tool_name) {
            (Some("specific"), None) => {
                return Err(CliError::invalid("--tool-choice specific", "no tool is named", "add --tool-name"));
            }
            (Some("specific") | None, Some(name)) => Some(ToolChoice { kind: "specific", name: Some(name) }),
            (Some(_), Some(_)) => {
                let cause = "it goes with --tool-choice specific only";
                return Err(CliError::invalid("--tool-name", cause, "leave out one of the two"));
            }
            (Some(kind), None) => Some(ToolChoice { kind, name: None }),
            (None, None) => None,
        };
        let response_format = match (flags.response_format, flags.response_schema) {
            (Some("text"), None) => Some(ResponseFormat { kind: "text", schema: None }),
            (Some("structured-json") | None, Some(schema)) => {
                Some(ResponseFormat { kind: "structured_json", schema: Some(schema) })
            }
            (None, None) => None,
            (Some("structured-json"), None) => {
                let next = "add --response-schema-file or --response-schema-json";
                return Err(CliError::invalid("--response-format structured-json", "there is no schema", next));
            }
            (Some("text"), Some(_)) => {
                let cause = "text has no schema";
                return Err(CliError::invalid("--response-format text", cause, "leave out one of the two"));
            }
            (Some(_), _) => {
                let cause = "it is neither text nor structured-json";
                return Err(CliError::invalid("--response-format", cause, "give one of the two"));
            }
        };
        let (effort, summary, budget_tokens) =
            (flags.reasoning_effort, flags.reasoning_summary, flags.reasoning_budget_tokens);
        let interleaved = flags.reasoning_interleaved.then_some(true);
        let is_asked = effort.is_some() || summary.is_some() || budget_tokens.is_some() || interleaved.is_some();
        let reasoning = is_asked.then_some(Reasoning { effort, summary, budget_tokens, interleaved });
        let generation = Self {
            model,
            fallback_model: flags.fallback_model,
            max_output_tokens: flags.max_output_tokens,
            temperature: flags.temperature,
            tool_choice,
            allow_parallel_tool_calls: flags.serial_tools.then_some(false),
            response_format,
            reasoning,
        };
        let is_empty = serde_json::to_string(&generation).expect("texts and numbers serialise") == "{}";
        Ok((!is_empty).then_some(generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Flags<'_> = Flags {
        fallback_model: None,
        max_output_tokens: None,
        temperature: None,
        reasoning_effort: None,
        reasoning_summary: None,
        reasoning_budget_tokens: None,
        reasoning_interleaved: false,
        tool_choice: None,
        tool_name: None,
        serial_tools: false,
        response_format: None,
        response_schema: None,
    };

    fn json(flags: &Flags<'_>) -> Option<String> {
        let generation = Generation::of(None, flags).expect("flags that go together");
        generation.map(|generation| serde_json::to_string(&generation).expect("JSON"))
    }

    #[test]
    fn flags_become_the_wire_form_and_none_of_them_becomes_nothing() {
        let schema: &RawValue = serde_json::from_str(r#"{"type": "object"}"#).expect("JSON");
        assert_eq!(json(&NOTHING), None);
        let expected = r#"{"tool_choice":{"type":"specific","name":"grep"},"allow_parallel_tool_calls":false,"response_format":{"type":"structured_json","schema":{"type": "object"}},"reasoning":{"effort":"high","budget_tokens":9,"interleaved":true}}"#;
        let flags = Flags {
            tool_name: Some("grep"),
            serial_tools: true,
            response_schema: Some(schema),
            reasoning_effort: Some("high"),
            reasoning_budget_tokens: Some(9),
            reasoning_interleaved: true,
            ..NOTHING
        };
        assert_eq!(json(&flags).as_deref(), Some(expected));
        let none = json(&Flags { tool_choice: Some("none"), response_format: Some("text"), ..NOTHING });
        assert_eq!(none.as_deref(), Some(r#"{"tool_choice":{"type":"none"},"response_format":{"type":"text"}}"#));
    }

    #[test]
    fn flags_that_do_not_go_together_are_refused() {
        let schema: &RawValue = serde_json::from_str("{}").expect("JSON");
        for flags in [
            Flags { tool_choice: Some("specific"), ..NOTHING },
            Flags { tool_choice: Some("auto"), tool_name: Some("x"), ..NOTHING },
            Flags { response_format: Some("structured-json"), ..NOTHING },
            Flags { response_format: Some("text"), response_schema: Some(schema), ..NOTHING },
            Flags { response_format: Some("xml"), ..NOTHING },
        ] {
            assert!(Generation::of(None, &flags).is_err());
        }
    }
}
