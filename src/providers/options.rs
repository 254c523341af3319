//! The options of a turn as a caller submits them and the journal keeps them.
//! Owns: their JSON form, its rules, and the view of it that a request takes.
//! Never: knows what a vendor makes of them.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::message::{Effort, OutputSchema, Reasoning, ToolChoice, TurnOptions};
use crate::limits::{OUTPUT_REPAIRS_DEFAULT, OUTPUT_REPAIRS_MAX, OUTPUT_SCHEMA_BYTES_MAX, PROVIDER_NAME_BYTES_MAX};

/// What a submission asks of the model beside its text. The default asks for nothing and is `{}`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct GenerationOptions {
    /// Whether tools may, must or must not be called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoiceOption>,
    /// Several calls in one answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_parallel_tool_calls: Option<bool>,
    /// Text, or JSON of a schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_format: Option<ResponseFormat>,
    /// How much the model is to think.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<ReasoningOption>,
}

/// `{"type":"auto|none|required"}` or `{"type":"specific","name":"…"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ToolChoiceOption {
    /// The model decides.
    Auto,
    /// No tool.
    None,
    /// At least one, in the run's first answer.
    Required,
    /// This one, in the run's first answer.
    Specific {
        /// The tool.
        name: String,
    },
}

/// `{"type":"text"}` or `{"type":"structured_json","schema":{…},"name":"…"}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ResponseFormat {
    /// Plain text.
    Text,
    /// JSON of this shape.
    StructuredJson {
        /// JSON Schema, an object.
        schema: Value,
        /// A name for it, shown to the model.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// How often an answer that does not fit is sent back, up to [`OUTPUT_REPAIRS_MAX`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_repair_attempts: Option<u32>,
    },
}

/// The shape that an answer is held to.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// JSON Schema.
    pub schema: &'a Value,
    /// How often an answer that does not fit is sent back.
    pub max_repair_attempts: u32,
}

/// Which request of a run it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its first: a call that is demanded is demanded here.
    First,
    /// Any later one.
    Later,
    /// The model is to answer again in the right shape, without tools.
    Repair,
}

/// How much the model is to think.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReasoningOption {
    /// The effort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<Effort>,
    /// Readable reasoning: anything but `none` asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// Ceiling of thinking tokens, for models that take one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_tokens: Option<u32>,
    /// Thinking between tool calls too, where it has to be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interleaved: Option<bool>,
}

/// Whether readable reasoning is asked for; the vendor decides how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Summary {
    /// As the vendor has it.
    Auto,
    /// Short.
    Concise,
    /// Long.
    Detailed,
    /// None.
    None,
}

/// The schema of [`GenerationOptions`] in the form that a request borrows.
#[derive(Debug, Default)]
pub struct PreparedSchema(Option<(String, Box<RawValue>)>);

/// Name of a schema for which the caller gave none.
const SCHEMA_NAME: &str = "response";

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= PROVIDER_NAME_BYTES_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

impl GenerationOptions {
    /// Checks what serde cannot.
    ///
    /// # Errors
    /// The rule that was broken, naming its field.
    pub fn check(&self) -> Result<(), String> {
        let name_rule =
            |field: &str| format!("{field} has 1 to {PROVIDER_NAME_BYTES_MAX} letters, digits, `_` and `-`");
        match &self.tool_choice {
            Some(ToolChoiceOption::Specific { name }) if !is_name(name) => {
                return Err(name_rule("generation.tool_choice.name"));
            }
            _ => {}
        }
        if let Some(ResponseFormat::StructuredJson { schema, name, max_repair_attempts }) = &self.response_format {
            if !schema.is_object() {
                return Err("generation.response_format.schema is a JSON object".to_string());
            }
            if schema.to_string().len() > OUTPUT_SCHEMA_BYTES_MAX {
                return Err(format!("generation.response_format.schema has at most {OUTPUT_SCHEMA_BYTES_MAX} bytes"));
            }
            if name.as_ref().is_some_and(|name| !is_name(name)) {
                return Err(name_rule("generation.response_format.name"));
            }
            if max_repair_attempts.is_some_and(|attempts| attempts > OUTPUT_REPAIRS_MAX) {
                return Err(format!("generation.response_format.max_repair_attempts is above {OUTPUT_REPAIRS_MAX}"));
            }
        }
        if self.reasoning.as_ref().is_some_and(|reasoning| reasoning.budget_tokens == Some(0)) {
            return Err("generation.reasoning.budget_tokens is 0; next: ask for the effort none".to_string());
        }
        Ok(())
    }

    /// The schema, to be kept beside the request that borrows it.
    pub fn prepared_schema(&self) -> PreparedSchema {
        PreparedSchema(match &self.response_format {
            Some(ResponseFormat::StructuredJson { schema, name, .. }) => {
                let name = name.clone().unwrap_or_else(|| SCHEMA_NAME.to_string());
                let raw = serde_json::value::to_raw_value(schema).expect("a JSON value serialises");
                Some((name, raw))
            }
            Some(ResponseFormat::Text) | None => None,
        })
    }

    /// The shape that the run's answer is held to, if it is to any.
    pub fn expected(&self) -> Option<Expected<'_>> {
        match &self.response_format {
            Some(ResponseFormat::StructuredJson { schema, max_repair_attempts, .. }) => Some(Expected {
                schema,
                max_repair_attempts: max_repair_attempts.unwrap_or(OUTPUT_REPAIRS_DEFAULT).min(OUTPUT_REPAIRS_MAX),
            }),
            Some(ResponseFormat::Text) | None => None,
        }
    }

    /// The options of one request. A call that is demanded is demanded in the run's first one only, since a model that
    /// must call a tool in every answer never ends.
    pub fn turn_options<'a>(&'a self, schema: &'a PreparedSchema, stage: Stage) -> TurnOptions<'a> {
        let reasoning = self.reasoning.clone().unwrap_or_default();
        TurnOptions {
            tool_choice: match &self.tool_choice {
                _ if stage == Stage::Repair => ToolChoice::None,
                Some(ToolChoiceOption::None) => ToolChoice::None,
                Some(ToolChoiceOption::Required) if stage == Stage::First => ToolChoice::Required,
                Some(ToolChoiceOption::Specific { name }) if stage == Stage::First => ToolChoice::Tool(name),
                _ => ToolChoice::Auto,
            },
            parallel_tool_calls: if stage == Stage::Repair { Some(false) } else { self.allow_parallel_tool_calls },
            output_schema: schema.0.as_ref().map(|(name, schema)| OutputSchema { name, schema }),
            reasoning: Reasoning {
                effort: reasoning.effort,
                summary: reasoning.summary.is_some_and(|summary| summary != Summary::None),
                budget_tokens: reasoning.budget_tokens,
                interleaved: reasoning.interleaved == Some(true),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<GenerationOptions, String> {
        let options: GenerationOptions = serde_json::from_str(text).map_err(|error| error.to_string())?;
        options.check().map(|()| options)
    }

    #[test]
    fn every_form_is_read_and_written_back_the_same() {
        for text in [
            "{}",
            r#"{"tool_choice":{"type":"none"},"allow_parallel_tool_calls":false}"#,
            r#"{"tool_choice":{"type":"specific","name":"read_file"}}"#,
            r#"{"response_format":{"type":"text"}}"#,
            r#"{"response_format":{"type":"structured_json","schema":{"type":"object"},"name":"reply"}}"#,
            r#"{"reasoning":{"effort":"xhigh","summary":"auto","budget_tokens":2048}}"#,
            r#"{"reasoning":{"budget_tokens":2048,"interleaved":true}}"#,
        ] {
            assert_eq!(serde_json::to_string(&parse(text).expect(text)).expect("JSON"), text);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            r#"{"tool_choice":{"type":"maybe"}}"#,
            r#"{"tool_choice":{"type":"specific"}}"#,
            r#"{"tool_choice":{"type":"specific","name":"a b"}}"#,
            r#"{"response_format":{"type":"structured_json"}}"#,
            r#"{"response_format":{"type":"structured_json","schema":true}}"#,
            r#"{"response_format":{"type":"structured_json","schema":{},"strict":true}}"#,
            r#"{"response_format":{"type":"structured_json","schema":{},"name":""}}"#,
            r#"{"reasoning":{"effort":"a lot"}}"#,
            r#"{"reasoning":{"interleaved":"often"}}"#,
            r#"{"reasoning":{"budget_tokens":0}}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        let long = "x".repeat(OUTPUT_SCHEMA_BYTES_MAX);
        let text = format!(r#"{{"response_format":{{"type":"structured_json","schema":{{"title":"{long}"}}}}}}"#);
        assert!(parse(&text).is_err());
    }

    #[test]
    fn a_demanded_call_is_demanded_once() {
        let options = parse(r#"{"tool_choice":{"type":"required"},"reasoning":{"summary":"none"}}"#).expect("valid");
        let schema = options.prepared_schema();
        assert_eq!(options.turn_options(&schema, Stage::First).tool_choice, ToolChoice::Required);
        let later = options.turn_options(&schema, Stage::Later);
        assert_eq!((later.tool_choice, later.reasoning), (ToolChoice::Auto, Reasoning::default()));
        let options = parse(r#"{"response_format":{"type":"structured_json","schema":{"a":1}}}"#).expect("valid");
        let schema = options.prepared_schema();
        let output = options.turn_options(&schema, Stage::Later).output_schema.expect("a schema");
        assert_eq!((output.name, output.schema.get()), ("response", "{\"a\":1}"));
    }
}
