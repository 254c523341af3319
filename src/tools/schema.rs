//! Checking arguments against a tool's schema.
//! Owns: the part of JSON Schema that the tools use, and messages that name the field and what is expected.
//! Never: changes the arguments; a text in place of a number stays a mistake.

use serde_json::Value;
use serde_json::value::RawValue;

use super::error::ToolError;
use crate::limits::TOOL_INPUT_BYTES_MAX;

/// See [`super::arguments`].
pub(super) fn arguments(text: &str) -> Result<Box<RawValue>, ToolError> {
    let wrong = |cause: String| ToolError::Arguments {
        field: String::new(),
        cause,
        expected: "one JSON object with the fields of the tool's schema".to_string(),
    };
    if text.len() > TOOL_INPUT_BYTES_MAX {
        return Err(wrong(format!("{} bytes, at most {TOOL_INPUT_BYTES_MAX}", text.len())));
    }
    let text = if text.trim().is_empty() { "{}" } else { text.trim() };
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(_)) => {}
        Ok(other) => return Err(wrong(format!("{} and no object", kind(&other)))),
        Err(error) => return Err(wrong(format!("not JSON ({error})"))),
    }
    RawValue::from_string(text.to_string()).map_err(|error| wrong(format!("not JSON ({error})")))
}

/// The value of a top-level field.
pub(super) fn field(input: &RawValue, name: &str) -> Option<Value> {
    match serde_json::from_str::<Value>(input.get()) {
        Ok(Value::Object(mut fields)) => fields.remove(name),
        _ => None,
    }
}

/// See [`super::check`].
pub(super) fn check(schema: &str, input: &RawValue) -> Result<(), ToolError> {
    let schema: Value = serde_json::from_str(schema).expect("the table's schemas are JSON; a test reads them all");
    let input: Value = serde_json::from_str(input.get()).map_err(|error| ToolError::Arguments {
        field: String::new(),
        cause: format!("not JSON ({error})"),
        expected: "one JSON object".to_string(),
    })?;
    check_value(&schema, &input, &mut String::new())
}

fn check_value(schema: &Value, value: &Value, path: &mut String) -> Result<(), ToolError> {
    let wanted = schema["type"].as_str().unwrap_or_default();
    let fits = match wanted {
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    };
    if !fits {
        return Err(wrong(path, format!("found {}", kind(value)), schema));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        return Err(wrong(path, "found another value".to_string(), schema));
    }
    match value {
        Value::String(text) => check_length(schema, ["minLength", "maxLength"], text.len(), "bytes", path),
        Value::Number(number) => {
            let number = number.as_i64().map_or_else(|| number.as_u64().map_or(0, i128::from), i128::from);
            let beyond = |key: &str| schema[key].as_i64().map(i128::from);
            let outside = beyond("minimum").is_some_and(|low| number < low)
                || beyond("maximum").is_some_and(|high| number > high);
            if outside { Err(wrong(path, format!("found {number}"), schema)) } else { Ok(()) }
        }
        Value::Array(items) => {
            check_length(schema, ["minItems", "maxItems"], items.len(), "items", path)?;
            for (index, item) in items.iter().enumerate() {
                within(path, &format!("[{index}]"), |path| check_value(&schema["items"], item, path))?;
            }
            Ok(())
        }
        Value::Object(fields) => check_fields(schema, fields, path),
        Value::Null | Value::Bool(_) => Ok(()),
    }
}

fn check_fields(schema: &Value, fields: &serde_json::Map<String, Value>, path: &mut String) -> Result<(), ToolError> {
    let Some(properties) = schema["properties"].as_object() else { return Ok(()) };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            return within(path, &segment(path, name), |path| {
                Err(wrong(path, "it is missing".to_string(), &properties[name]))
            });
        }
    }
    for (name, value) in fields {
        let Some(property) = properties.get(name) else {
            let known: Vec<&str> = properties.keys().map(String::as_str).collect();
            let short: String = name.chars().take(40).collect();
            return Err(ToolError::Arguments {
                field: format!("{path}{}", segment(path, &short)),
                cause: "no such field".to_string(),
                expected: format!("only {}", known.join(", ")),
            });
        };
        within(path, &segment(path, name), |path| check_value(property, value, path))?;
    }
    Ok(())
}

fn segment(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!(".{name}") }
}

fn within<T>(path: &mut String, segment: &str, body: impl FnOnce(&mut String) -> T) -> T {
    let length = path.len();
    path.push_str(segment);
    let result = body(path);
    path.truncate(length);
    result
}

fn check_length(
    schema: &Value,
    [low, high]: [&str; 2],
    length: usize,
    unit: &str,
    path: &str,
) -> Result<(), ToolError> {
    let length = length as u64;
    let outside =
        schema[low].as_u64().is_some_and(|low| length < low) || schema[high].as_u64().is_some_and(|high| length > high);
    if outside { Err(wrong(path, format!("found {length} {unit}"), schema)) } else { Ok(()) }
}

fn wrong(path: &str, cause: String, schema: &Value) -> ToolError {
    ToolError::Arguments { field: path.to_string(), cause, expected: expected(schema) }
}

/// What a schema asks for, in words.
fn expected(schema: &Value) -> String {
    let bounds = |low: &str, high: &str| match (schema[low].as_i64(), schema[high].as_i64()) {
        (Some(low), Some(high)) => format!(" from {low} to {high}"),
        (Some(low), None) => format!(" from {low} on"),
        (None, Some(high)) => format!(" up to {high}"),
        (None, None) => String::new(),
    };
    if let Some(allowed) = schema["enum"].as_array() {
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        return format!("one of {}", allowed.join(", "));
    }
    match schema["type"].as_str().unwrap_or_default() {
        "string" => match (schema["minLength"].as_u64(), schema["maxLength"].as_u64()) {
            (Some(low), Some(high)) => format!("a text of {low} to {high} bytes"),
            (None, Some(high)) => format!("a text of at most {high} bytes"),
            _ => "a text".to_string(),
        },
        "integer" => format!("an integer{}", bounds("minimum", "maximum")),
        "boolean" => "true or false".to_string(),
        "array" => format!("a list{}", bounds("minItems", "maxItems")),
        _ => "an object".to_string(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
