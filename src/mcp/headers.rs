//! Header lines in which the revision without a handshake repeats parts of a request.
//! Owns: the spelling of their values, and which of a tool's arguments go into which line.
//! Never: sends a value that could end a header line.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// A value as a header can hold it.
pub(super) fn value(text: &str) -> String {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
        && text.trim() == text
        && !(text.starts_with("=?base64?") && text.ends_with("?="));
    if is_plain { text.to_string() } else { format!("=?base64?{}?=", STANDARD.encode(text)) }
}

/// The places of a tool's arguments that are repeated, with the names of their lines. `None` for a schema that breaks the
/// rules: such a tool is not offered.
pub(super) fn of_schema(schema: &Value) -> Option<Vec<(Vec<String>, String)>> {
    let mut found = Vec::new();
    collect(schema, &mut Vec::new(), true, &mut found)?;
    let mut names: Vec<String> = found.iter().map(|(_, name): &(_, String)| name.to_ascii_lowercase()).collect();
    names.sort();
    names.dedup();
    (names.len() == found.len()).then_some(found)
}

fn collect(
    schema: &Value,
    path: &mut Vec<String>,
    reachable: bool,
    found: &mut Vec<(Vec<String>, String)>,
) -> Option<()> {
    let Value::Object(members) = schema else {
        if let Value::Array(items) = schema {
            for item in items {
                collect(item, path, false, found)?;
            }
        }
        return Some(());
    };
    if let Some(header) = members.get("x-mcp-header") {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&byte);
        let header = header.as_str().filter(|name| !name.is_empty() && name.bytes().all(legal))?;
        let is_plain = matches!(members.get("type").and_then(Value::as_str), Some("string" | "integer" | "boolean"));
        if !reachable || path.is_empty() || !is_plain {
            return None;
        }
        found.push((path.clone(), header.to_string()));
    }
    for (key, member) in members {
        if key == "properties" {
            let Value::Object(properties) = member else { continue };
            for (name, property) in properties {
                path.push(name.clone());
                collect(property, path, reachable, found)?;
                path.pop();
            }
        } else if member.is_object() || member.is_array() {
            // An example or a default may hold the word without meaning it.
            if !matches!(key.as_str(), "default" | "enum" | "const" | "examples") {
                collect(member, path, false, found)?;
            }
        }
    }
    Some(())
}

/// The lines for one call's arguments.
pub(super) fn of_arguments(places: &[(Vec<String>, String)], arguments: &Value) -> Vec<(String, String)> {
    let line = |(path, name): &(Vec<String>, String)| {
        let found = path.iter().try_fold(arguments, |value, key| value.get(key))?;
        let text = match found {
            Value::String(text) => text.clone(),
            Value::Bool(flag) => flag.to_string(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        Some((format!("mcp-param-{}", name.to_ascii_lowercase()), value(&text)))
    };
    places.iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_that_no_header_can_hold_are_wrapped() {
        for (text, expected) in [
            ("plain text", "plain text"),
            ("", ""),
            (" edge", "=?base64?IGVkZ2U=?="),
            ("line\r\nend", "=?base64?bGluZQ0KZW5k?="),
            ("ä", "=?base64?w6Q=?="),
            ("=?base64?eA==?=", "=?base64?PT9iYXNlNjQ/ZUE9PT89?="),
        ] {
            assert_eq!(value(text), expected);
        }
    }

    #[test]
    fn marked_arguments_are_found_and_a_schema_that_breaks_the_rules_is_no_schema() {
        let of = |schema: Value| of_schema(&schema);
        let marked = json!({"type": "string", "x-mcp-header": "Region"});
        let good =
            json!({"properties": {"a": {"properties": {"r": marked}}, "n": {"type": "integer", "x-mcp-header": "N"}}});
        let places = of(good).unwrap();
        let lines = of_arguments(&places, &json!({"a": {"r": "eu"}, "n": 7}));
        assert_eq!(lines, [("mcp-param-region".into(), "eu".into()), ("mcp-param-n".into(), "7".into())]);
        assert!(of_arguments(&places, &json!({"n": null})).is_empty());
        let refused = [
            json!({"properties": {"a": {"type": "number", "x-mcp-header": "A"}}}),
            json!({"properties": {"a": {"type": "object", "x-mcp-header": "A"}}}),
            json!({"properties": {"a": {"type": "string", "x-mcp-header": ""}}}),
            json!({"properties": {"a": {"type": "string", "x-mcp-header": "a b"}}}),
            json!({"properties": {"a": {"type": "string", "x-mcp-header": 7}}}),
            json!({"properties": {"a": marked, "b": {"type": "string", "x-mcp-header": "REGION"}}}),
            json!({"properties": {"a": {"type": "array", "items": marked}}}),
            json!({"oneOf": [{"properties": {"a": marked}}]}),
            json!({"$defs": {"a": marked}}),
        ];
        for schema in refused {
            assert_eq!(of(schema.clone()), None, "{schema}");
        }
        assert_eq!(of(json!({"properties": {"a": {"default": {"x-mcp-header": 1}}}})), Some(Vec::new()));
    }
}
