//! Does a JSON value fit a JSON Schema: for answers of models and for input that a session holds to a shape.
//! Owns: the part of JSON Schema that is checked, the narrower part that contracts of sessions may use, and the finding
//! of the JSON in a text.
//! Never: takes a keyword that it does not check for one that is met, where a contract is set; follows a reference out of
//! the schema.

use std::fmt;

use serde_json::{Map, Value};

use crate::limits::{CONTRACT_DEPTH_MAX, CONTRACT_ISSUES_MAX, CONTRACT_MESSAGE_BYTES_MAX, CONTRACT_STEPS_MAX};

/// Why a value does not fit: where, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Place of the first mismatch, as `$.items[2].price`.
    pub path: String,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}

impl std::error::Error for Violation {}

fn violation(path: &str, reason: impl Into<String>) -> Violation {
    Violation { path: shortened(path.to_string()), reason: shortened(reason.into()) }
}

/// Names of properties are whoever's the value is, and as long as they like.
fn shortened(mut text: String) -> String {
    if text.len() > CONTRACT_MESSAGE_BYTES_MAX {
        let end = (0..=CONTRACT_MESSAGE_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The one JSON value in `text`, which may stand in a Markdown code fence, if it fits `schema`. Optional properties that
/// are null are left out of it, unless the schema allows null there.
///
/// # Errors
/// There is no single JSON value, or where it does not fit first.
pub fn accept(schema: &Value, text: &str) -> Result<Value, Violation> {
    let text = unfenced(text.trim());
    let mut value: Value =
        serde_json::from_str(text).map_err(|error| violation("$", format!("this is not one JSON value: {error}")))?;
    fit(schema, &mut value)?;
    Ok(value)
}

/// Checks a value; optional properties that are null are left out of it.
///
/// # Errors
/// Where it does not fit first, or that the check takes too long.
pub fn fit(schema: &Value, value: &mut Value) -> Result<(), Violation> {
    Check { root: schema, steps: 0 }.value(schema, value, "$", 0)
}

/// Minified, keys in order.
pub fn canonical(value: &Value) -> String {
    value.to_string()
}

/// What stands inside of a single code fence around everything, else the text itself.
fn unfenced(text: &str) -> &str {
    let inner = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    let body = inner.and_then(|inner| inner.split_once('\n')).map(|(_language, body)| body.trim());
    body.filter(|body| !body.contains("```")).unwrap_or(text)
}

struct Check<'s> {
    root: &'s Value,
    steps: usize,
}

impl<'s> Check<'s> {
    fn value(&mut self, schema: &'s Value, value: &mut Value, path: &str, depth: usize) -> Result<(), Violation> {
        self.steps += 1;
        if self.steps > CONTRACT_STEPS_MAX || depth > CONTRACT_DEPTH_MAX {
            return Err(violation(path, "the value and its schema are too deep or too many to be checked"));
        }
        let schema = match schema {
            Value::Bool(true) => return Ok(()),
            Value::Bool(false) => return Err(violation(path, "nothing is allowed here")),
            Value::Object(schema) => schema,
            // The vendor takes it or not; there is nothing to hold the value to.
            _ => return Ok(()),
        };
        if let Some(named) = schema.get("$ref").and_then(Value::as_str)
            && let Some(target) = self.resolve(named)
        {
            self.value(target, value, path, depth + 1)?;
        }
        check_type(schema, value, path)?;
        check_choices(schema, value, path)?;
        check_bounds(schema, value, path)?;
        match value {
            Value::Object(object) => self.object(schema, object, path, depth)?,
            Value::Array(items) => self.array(schema, items, path, depth)?,
            _ => {}
        }
        for each in list(schema, "allOf") {
            self.value(each, value, path, depth + 1)?;
        }
        for key in ["anyOf", "oneOf"] {
            let choices = list(schema, key);
            let mut first = None;
            let mut is_met = choices.is_empty();
            for choice in choices {
                let mut tried = value.clone();
                match self.value(choice, &mut tried, path, depth + 1) {
                    Ok(()) => {
                        *value = tried;
                        is_met = true;
                        break;
                    }
                    Err(error) => first = first.or(Some(error)),
                }
            }
            if let (false, Some(first)) = (is_met, first) {
                return Err(violation(path, format!("fits none of the choices, the first of which says {first}")));
            }
        }
        Ok(())
    }

    /// A reference into the schema itself; others are not followed.
    fn resolve(&self, named: &str) -> Option<&'s Value> {
        let pointer = named.strip_prefix('#')?;
        self.root.pointer(pointer)
    }

    fn object(
        &mut self,
        schema: &'s Map<String, Value>,
        object: &mut Map<String, Value>,
        path: &str,
        depth: usize,
    ) -> Result<(), Violation> {
        let properties = schema.get("properties").and_then(Value::as_object);
        let known = |name: &str| properties.and_then(|properties| properties.get(name));
        let required: Vec<&str> = list(schema, "required").iter().filter_map(Value::as_str).collect();
        object.retain(|name, value| {
            let is_absent = value.is_null() && !required.contains(&name.as_str());
            !(is_absent && known(name).is_some_and(|schema| !allows_null(schema)))
        });
        if let Some(missing) = required.iter().find(|name| !object.contains_key(**name)) {
            return Err(violation(&inner(path, missing), "required and not there"));
        }
        for (name, value) in object {
            let place = inner(path, name);
            match (known(name), schema.get("additionalProperties")) {
                (Some(schema), _) => self.value(schema, value, &place, depth + 1)?,
                (None, Some(Value::Bool(false))) => return Err(violation(&place, "not a property of this object")),
                (None, Some(schema)) => self.value(schema, value, &place, depth + 1)?,
                (None, None) => {}
            }
        }
        Ok(())
    }

    fn array(
        &mut self,
        schema: &'s Map<String, Value>,
        items: &mut [Value],
        path: &str,
        depth: usize,
    ) -> Result<(), Violation> {
        let prefix = list(schema, "prefixItems");
        for (place, item) in items.iter_mut().enumerate() {
            if let Some(schema) = prefix.get(place).or(schema.get("items")) {
                self.value(schema, item, &format!("{path}[{place}]"), depth + 1)?;
            }
        }
        Ok(())
    }
}

/// A long name is shown by its beginning: it is copied once for each value below it.
fn inner(path: &str, name: &str) -> String {
    const SHOWN: usize = 64;
    let end = (0..=SHOWN.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    let name = if name.len() > SHOWN { &format!("{}…", &name[..end]) } else { name };
    let is_plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    if is_plain { format!("{path}.{name}") } else { format!("{path}[{}]", Value::from(name)) }
}

fn list<'s>(schema: &'s Map<String, Value>, key: &str) -> &'s [Value] {
    schema.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Whether null itself is a value here, as far as the schema says so at this place.
fn allows_null(schema: &Value) -> bool {
    let Value::Object(schema) = schema else { return true };
    let by_type = match schema.get("type") {
        Some(Value::String(name)) => name == "null",
        Some(Value::Array(names)) => names.contains(&Value::from("null")),
        _ => schema.contains_key("$ref") || !(schema.contains_key("anyOf") || schema.contains_key("oneOf")),
    };
    by_type || ["anyOf", "oneOf"].iter().any(|key| list(schema, key).iter().any(allows_null))
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_integer(value: &Value) -> bool {
    value.as_i64().is_some() || value.as_u64().is_some() || value.as_f64().is_some_and(|it| it.fract() == 0.0)
}

fn check_type(schema: &Map<String, Value>, value: &Value, path: &str) -> Result<(), Violation> {
    let Some(wanted) = schema.get("type") else { return Ok(()) };
    let is = |name: &Value| match name.as_str() {
        Some("integer") => value.is_number() && is_integer(value),
        Some(name) => name == type_of(value),
        None => true,
    };
    let is_met = match wanted {
        Value::Array(names) => names.iter().any(is),
        name => is(name),
    };
    match is_met {
        true => Ok(()),
        false => Err(violation(path, format!("is {}, and {wanted} is asked for", type_of(value)))),
    }
}

fn check_choices(schema: &Map<String, Value>, value: &Value, path: &str) -> Result<(), Violation> {
    let choices = list(schema, "enum");
    if !choices.is_empty() && !choices.iter().any(|choice| is_same(choice, value)) {
        return Err(violation(path, "is none of the values of enum"));
    }
    if schema.get("const").is_some_and(|only| !is_same(only, value)) {
        return Err(violation(path, "is not the value of const"));
    }
    Ok(())
}

/// Equal as JSON Schema has it: 1 and 1.0 are one number.
fn is_same(a: &Value, b: &Value) -> bool {
    a == b || (a.is_number() && b.is_number() && a.as_f64() == b.as_f64())
}

fn check_bounds(schema: &Map<String, Value>, value: &Value, path: &str) -> Result<(), Violation> {
    let count = match value {
        Value::String(text) => Some((text.chars().count(), "minLength", "maxLength", "characters")),
        Value::Array(items) => Some((items.len(), "minItems", "maxItems", "items")),
        Value::Object(object) => Some((object.len(), "minProperties", "maxProperties", "properties")),
        _ => None,
    };
    if let Some((count, least, most, what)) = count {
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
        if bound(least).is_some_and(|least| (count as f64) < least)
            || bound(most).is_some_and(|most| (count as f64) > most)
        {
            return Err(violation(path, format!("has {count} {what}, which is out of bounds")));
        }
    }
    let Some(number) = value.as_f64().filter(|_| value.is_number()) else { return Ok(()) };
    let breaks = |key: &str, is_broken: fn(f64, f64) -> bool| {
        schema.get(key).and_then(Value::as_f64).is_some_and(|bound| is_broken(number, bound))
    };
    if breaks("minimum", |number, bound| number < bound)
        || breaks("maximum", |number, bound| number > bound)
        || breaks("exclusiveMinimum", |number, bound| number <= bound)
        || breaks("exclusiveMaximum", |number, bound| number >= bound)
    {
        return Err(violation(path, "is out of bounds"));
    }
    Ok(())
}

/// What a session's contract may not say, with the place of each issue; none for a schema that can be held to in full.
/// Contracts use a narrow part of JSON Schema: `type`, `properties`, `required`, `additionalProperties: false`, `items`
/// and `description`, and `$schema` and `title` at the root.
pub fn contract_issues(schema: &Value) -> Vec<Violation> {
    let mut issues = Vec::new();
    narrow(schema, "$", 0, &mut issues);
    issues.truncate(CONTRACT_ISSUES_MAX);
    issues
}

fn narrow(schema: &Value, path: &str, depth: usize, issues: &mut Vec<Violation>) {
    const KEYWORDS: [&str; 6] = ["type", "properties", "required", "additionalProperties", "items", "description"];
    if depth > CONTRACT_DEPTH_MAX || issues.len() >= CONTRACT_ISSUES_MAX {
        return issues.push(violation(path, "the schema is too deep"));
    }
    let Value::Object(fields) = schema else {
        return issues.push(violation(path, "a schema is a JSON object"));
    };
    for key in fields.keys() {
        let is_known = KEYWORDS.contains(&key.as_str()) || (depth == 0 && (key == "$schema" || key == "title"));
        if !is_known {
            issues.push(violation(path, format!("keyword {key:?} is not supported in a contract")));
        }
    }
    let kind = fields.get("type").map(|kind| kind.as_str().unwrap_or_default());
    match kind {
        None | Some("string" | "number" | "integer" | "boolean") => {}
        Some("object") => narrow_object(fields, path, depth, issues),
        Some("array") => match fields.get("items") {
            Some(items) => narrow(items, &format!("{path}[]"), depth + 1, issues),
            None => issues.push(violation(path, "an array says what its items are")),
        },
        Some(_) => {
            issues.push(violation(path, "type is one of string, number, integer, boolean, object and array"));
        }
    }
    if kind != Some("object")
        && ["properties", "required", "additionalProperties"].iter().any(|key| fields.contains_key(*key))
    {
        issues.push(violation(path, "properties, required and additionalProperties belong to type object"));
    }
    if kind != Some("array") && fields.contains_key("items") {
        issues.push(violation(path, "items belongs to type array"));
    }
}

fn narrow_object(fields: &Map<String, Value>, path: &str, depth: usize, issues: &mut Vec<Violation>) {
    if fields.get("additionalProperties") != Some(&Value::Bool(false)) {
        issues.push(violation(path, "an object says additionalProperties: false"));
    }
    let empty = Map::new();
    let properties = match fields.get("properties") {
        None => &empty,
        Some(Value::Object(properties)) => properties,
        Some(_) => return issues.push(violation(path, "properties is an object of schemas")),
    };
    for (name, schema) in properties {
        narrow(schema, &inner(path, name), depth + 1, issues);
    }
    match fields.get("required") {
        None => {}
        Some(Value::Array(names)) => {
            for name in names {
                if !name.as_str().is_some_and(|name| properties.contains_key(name)) {
                    issues.push(violation(path, format!("required names {name}, which is no property")));
                }
            }
        }
        Some(_) => issues.push(violation(path, "required is a list of names")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn order() -> Value {
        json!({"type": "object", "additionalProperties": false, "required": ["items"], "properties": {
            "note": {"type": "string"},
            "maybe": {"type": ["string", "null"]},
            "items": {"type": "array", "items": {"type": "object", "additionalProperties": false,
                "required": ["price"], "properties": {"price": {"type": "number"}}}}}})
    }

    fn why(schema: &Value, text: &str) -> String {
        accept(schema, text).expect_err(text).to_string()
    }

    #[test]
    fn the_json_is_found_with_or_without_a_fence_and_made_canonical() {
        let schema = order();
        for text in [
            r#"{"note":"a","items":[{"price":1.5}]}"#,
            "  {\"items\": [ {\"price\": 1.5} ],\n \"note\": \"a\"}\n",
            "```json\n{\"items\":[{\"price\":1.5}],\"note\":\"a\"}\n```",
            "```\n{\"items\":[{\"price\":1.5}],\"note\":\"a\"}```",
            r#"{"note":"a","maybe":null,"items":[{"price":1.5}]}"#,
        ] {
            let value = accept(&schema, text).expect(text);
            let expected = match text.contains("maybe") {
                true => r#"{"items":[{"price":1.5}],"maybe":null,"note":"a"}"#,
                false => r#"{"items":[{"price":1.5}],"note":"a"}"#,
            };
            assert_eq!(canonical(&value), expected);
        }
        let absent = accept(&schema, r#"{"note":null,"items":[]}"#).expect("null is absent");
        assert_eq!(canonical(&absent), r#"{"items":[]}"#);
        for text in
            ["", "here: {\"items\":[]}", "{\"items\":[]} {}", "```json\n{}\n```\n```json\n{}\n```", "{\"items\":["]
        {
            assert!(why(&schema, text).starts_with("$: this is not one JSON value: "), "{text}");
        }
    }

    #[test]
    fn the_first_mismatch_is_named_with_its_place() {
        let schema = order();
        for (text, expected) in [
            (
                r#"{"items":[{"price":1},{"price":2},{"price":"3"}]}"#,
                "$.items[2].price: is string, and \"number\" is asked for",
            ),
            (r#"{}"#, "$.items: required and not there"),
            (r#"{"items":null}"#, "$.items: is null, and \"array\" is asked for"),
            (r#"{"items":[],"a b":1}"#, "$[\"a b\"]: not a property of this object"),
            (r#"[]"#, "$: is array, and \"object\" is asked for"),
        ] {
            assert_eq!(why(&schema, text), expected);
        }
    }

    #[test]
    fn a_message_stays_short_however_long_the_names_are() {
        let text = format!("{{\"{}\":1}}", "é".repeat(100_000));
        let error = accept(&json!({"additionalProperties": false}), &text).expect_err("not a property");
        assert!(error.to_string().len() < 3 * CONTRACT_MESSAGE_BYTES_MAX, "{}", error.to_string().len());
    }

    #[test]
    fn every_keyword_that_is_checked_can_fail() {
        for (schema, fits, breaks) in [
            (json!({"type": "integer"}), "3.0", "3.5"),
            (json!({"type": "integer"}), "18446744073709551615", "true"),
            (json!({"enum": [1, "a"]}), "1.0", "2"),
            (json!({"const": {"a": 1}}), r#"{"a":1}"#, r#"{"a":2}"#),
            (json!({"anyOf": [{"type": "string"}, {"type": "null"}]}), "null", "1"),
            (json!({"oneOf": [{"type": "string"}, {"type": "boolean"}]}), "true", "1"),
            (json!({"allOf": [{"minimum": 1}, {"maximum": 2}]}), "2", "3"),
            (json!({"exclusiveMinimum": 1, "exclusiveMaximum": 3}), "2", "3"),
            (json!({"minLength": 2, "maxLength": 2}), r#""éé""#, r#""é""#),
            (json!({"minItems": 1, "maxItems": 2}), "[1]", "[]"),
            (json!({"maxProperties": 1}), r#"{"a":1}"#, r#"{"a":1,"b":2}"#),
            (json!({"prefixItems": [{"type": "string"}], "items": false}), r#"["a"]"#, r#"["a",1]"#),
            (json!({"additionalProperties": {"type": "number"}}), r#"{"a":1}"#, r#"{"a":"1"}"#),
            (json!({"$defs": {"n": {"type": "number"}}, "items": {"$ref": "#/$defs/n"}}), "[1]", "[null]"),
        ] {
            assert!(accept(&schema, fits).is_ok(), "{schema} takes {fits}: {:?}", accept(&schema, fits));
            assert!(accept(&schema, breaks).is_err(), "{schema} refuses {breaks}");
        }
    }

    #[test]
    fn a_schema_that_turns_in_circles_or_explodes_is_given_up() {
        let circle = json!({"$ref": "#"});
        assert!(why(&circle, "1").contains("too deep"));
        let lists = json!({"$defs": {"l": {"type": "array", "items": {"$ref": "#/$defs/l"}}}, "$ref": "#/$defs/l"});
        assert!(accept(&lists, "[[[]],[]]").is_ok(), "recursion that the value ends is fine");
        let fork = json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]});
        assert!(accept(&fork, "1").is_err());
    }

    #[test]
    fn a_contract_that_cannot_be_held_to_in_full_is_refused_with_every_issue() {
        assert_eq!(
            contract_issues(&json!({"$schema": "x", "title": "t", "type": "object", "additionalProperties": false,
            "properties": {"a": {"type": "array", "items": {"description": "anything"}}}, "required": ["a"]})),
            []
        );
        let bad = json!({"type": "object", "required": ["b"], "properties": {
            "a": {"type": "string", "pattern": "x"}, "c": {"type": "null"}, "d": {"type": "array"}, "e": true,
            "f": {"type": "string", "items": {}}}});
        let issues: Vec<String> = contract_issues(&bad).iter().map(ToString::to_string).collect();
        assert_eq!(
            issues,
            [
                "$: an object says additionalProperties: false",
                "$.a: keyword \"pattern\" is not supported in a contract",
                "$.c: type is one of string, number, integer, boolean, object and array",
                "$.d: an array says what its items are",
                "$.e: a schema is a JSON object",
                "$.f: items belongs to type array",
                "$: required names \"b\", which is no property",
            ]
        );
    }
}
