//! JSON Schemas in the dialects that vendors take.
//! Owns: which schema OpenAI can enforce, and the rewriting of one for Anthropic and Google.
//! Never: changes what a schema demands without saying so in its description; a keyword that a vendor does not
//! know is moved there.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::wire;

/// Keywords that OpenAI enforces; a schema with any other is sent as a hint.
const OPENAI: [&str; 22] = [
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "enum",
    "const",
    "anyOf",
    "$defs",
    "definitions",
    "$ref",
    "title",
    "description",
    "format",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minItems",
    "maxItems",
];

const ANTHROPIC: [&str; 12] = [
    "type",
    "properties",
    "required",
    "items",
    "enum",
    "const",
    "anyOf",
    "allOf",
    "$defs",
    "$ref",
    "title",
    "description",
];

const ANTHROPIC_FORMATS: [&str; 10] =
    ["date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"];

const GOOGLE: [&str; 20] = [
    "$id",
    "$defs",
    "$ref",
    "$anchor",
    "type",
    "format",
    "title",
    "description",
    "enum",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "minimum",
    "maximum",
    "anyOf",
    "properties",
    "additionalProperties",
    "required",
    "propertyOrdering",
];

/// Keywords that only inform and are dropped without a word.
const SILENT: [&str; 5] = ["$schema", "$id", "$comment", "default", "examples"];

/// Whether OpenAI can enforce the schema as it is: a closed object with every property required, all the way down.
pub(super) fn is_openai_strict(schema: &RawValue) -> bool {
    match serde_json::from_str::<Value>(schema.get()) {
        Ok(Value::Object(root)) => root.get("type") == Some(&json!("object")) && is_strict_object(&root),
        _ => false,
    }
}

fn is_strict_object(schema: &Map<String, Value>) -> bool {
    let known = schema.keys().all(|key| OPENAI.contains(&key.as_str()));
    let lone_reference = !schema.contains_key("$ref") || schema.len() == 1;
    let is_object = schema.get("type").is_some_and(|it| match it {
        Value::String(name) => name == "object",
        Value::Array(names) => names.contains(&json!("object")),
        _ => false,
    });
    let is_closed = !is_object || {
        let properties = schema.get("properties").and_then(Value::as_object);
        let required = schema.get("required").and_then(Value::as_array);
        let all_required = match (properties, required) {
            (Some(properties), Some(required)) => properties.keys().all(|name| required.contains(&json!(name))),
            (Some(properties), None) => properties.is_empty(),
            (None, _) => false,
        };
        schema.get("additionalProperties") == Some(&Value::Bool(false)) && all_required
    };
    known && lone_reference && is_closed && inner(schema).all(|it| it.as_object().is_some_and(is_strict_object))
}

/// The schemas directly inside of `schema`.
fn inner(schema: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let maps = ["properties", "$defs", "definitions"].into_iter().filter_map(|key| schema.get(key)?.as_object());
    let lists = ["anyOf"].into_iter().filter_map(|key| schema.get(key)?.as_array());
    maps.flat_map(Map::values).chain(lists.flatten()).chain(schema.get("items"))
}

/// The schema as Anthropic enforces it: objects closed, few keywords, the others told in the description.
pub(super) fn for_anthropic(schema: &RawValue) -> Box<RawValue> {
    rewrite(schema, &|schema| {
        if schema.get("type") == Some(&json!("object")) || schema.contains_key("properties") {
            schema.insert("additionalProperties".to_string(), Value::Bool(false));
        }
        rename(schema, "oneOf", "anyOf");
        keep(schema, |key, value| match key {
            "format" => value.as_str().is_some_and(|it| ANTHROPIC_FORMATS.contains(&it)),
            "minItems" => value.as_u64().is_some_and(|it| it <= 1),
            "additionalProperties" => *value == Value::Bool(false),
            key => ANTHROPIC.contains(&key),
        });
    })
}

/// The schema with the keywords that Google knows, the others told in the description.
pub(super) fn for_google(schema: &RawValue) -> Box<RawValue> {
    rewrite(schema, &|schema| {
        rename(schema, "oneOf", "anyOf");
        if let (Some(value), false) = (schema.get("const").cloned(), schema.contains_key("enum")) {
            schema.insert("enum".to_string(), json!([value]));
            schema.remove("const");
        }
        keep(schema, |key, _| GOOGLE.contains(&key));
    })
}

fn rename(schema: &mut Map<String, Value>, from: &str, to: &str) {
    if !schema.contains_key(to)
        && let Some(value) = schema.remove(from)
    {
        schema.insert(to.to_string(), value);
    }
}

/// Moves what `is_kept` refuses into the description.
fn keep(schema: &mut Map<String, Value>, is_kept: impl Fn(&str, &Value) -> bool) {
    let (kept, moved): (Map<_, _>, Map<_, _>) =
        std::mem::take(schema).into_iter().partition(|(key, value)| is_kept(key, value));
    *schema = kept;
    let told = moved.into_iter().filter(|(key, _)| !SILENT.contains(&key.as_str()));
    let told: Vec<String> = told.map(|(key, value)| format!("{key}: {value}")).collect();
    if told.is_empty() {
        return;
    }
    let told = format!("({})", told.join(", "));
    let text = match schema.get("description").and_then(Value::as_str) {
        Some(description) => format!("{description} {told}"),
        None => told,
    };
    schema.insert("description".to_string(), Value::String(text));
}

/// Applies `change` to every schema inside, innermost first. What is no JSON object stays as it is.
fn rewrite(schema: &RawValue, change: &dyn Fn(&mut Map<String, Value>)) -> Box<RawValue> {
    match serde_json::from_str::<Value>(schema.get()) {
        Ok(mut value) if value.is_object() => {
            rewrite_value(&mut value, change);
            wire::raw(&value)
        }
        _ => schema.to_owned(),
    }
}

fn rewrite_value(value: &mut Value, change: &dyn Fn(&mut Map<String, Value>)) {
    // `true` and `false` are schemas as well and have nothing inside.
    let Value::Object(schema) = value else { return };
    for (key, value) in schema.iter_mut() {
        match (key.as_str(), value) {
            ("properties" | "$defs" | "definitions" | "patternProperties", Value::Object(map)) => {
                map.values_mut().for_each(|it| rewrite_value(it, change));
            }
            ("anyOf" | "oneOf" | "allOf" | "prefixItems", Value::Array(list)) => {
                list.iter_mut().for_each(|it| rewrite_value(it, change));
            }
            ("items" | "additionalProperties", value @ Value::Object(_)) => rewrite_value(value, change),
            _ => {}
        }
    }
    change(schema);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(value: &Value) -> Box<RawValue> {
        wire::raw(value)
    }

    fn value(raw: &RawValue) -> Value {
        serde_json::from_str(raw.get()).expect("JSON")
    }

    #[test]
    fn only_closed_objects_with_all_properties_required_are_enforced_by_openai() {
        let closed = |more: Value| {
            let mut schema = json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"],
                                    "additionalProperties": false});
            schema.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
            is_openai_strict(&raw(&schema))
        };
        assert!(closed(json!({})));
        assert!(closed(json!({"properties": {"a": {"type": ["string", "null"]}}})));
        assert!(closed(json!({"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"type": "string"}}})));
        for broken in [
            json!({"additionalProperties": true}),
            json!({"required": []}),
            json!({"oneOf": []}),
            json!({"properties": {"a": {"type": "object"}}}),
            json!({"properties": {"a": {"type": "array", "items": {"type": "object", "properties": {}}}}}),
            json!({"properties": {"a": {"$ref": "#/$defs/x", "description": "d"}}}),
            json!({"properties": {"a": true}}),
            json!({"$defs": {"x": {"type": "object"}}}),
        ] {
            assert!(!closed(broken.clone()), "{broken}");
        }
        for broken in [json!({"type": "string"}), json!([]), json!({})] {
            assert!(!is_openai_strict(&raw(&broken)), "{broken}");
        }
    }

    #[test]
    fn anthropic_gets_closed_objects_and_reads_the_rest_in_the_description() {
        let schema = json!({"$schema": "x", "type": "object", "properties": {
            "n": {"type": "integer", "minimum": 1, "description": "a number"},
            "s": {"type": "string", "format": "email"},
            "t": {"type": "string", "format": "regex"},
            "l": {"type": "array", "minItems": 2, "items": {"oneOf": [{"type": "object"}]}}}});
        let expected = json!({"type": "object", "additionalProperties": false, "properties": {
            "n": {"type": "integer", "description": "a number (minimum: 1)"},
            "s": {"type": "string", "format": "email"},
            "t": {"type": "string", "description": "(format: \"regex\")"},
            "l": {"type": "array", "description": "(minItems: 2)",
                  "items": {"anyOf": [{"type": "object", "additionalProperties": false}]}}}});
        assert_eq!(value(&for_anthropic(&raw(&schema))), expected);
    }

    #[test]
    fn google_gets_the_keywords_it_knows() {
        let schema = json!({"type": "object", "additionalProperties": {"type": "string", "pattern": "a"},
                            "properties": {"c": {"const": 5}, "u": {"oneOf": [{"type": "null"}]}}});
        let expected = json!({"type": "object",
                              "additionalProperties": {"type": "string", "description": "(pattern: \"a\")"},
                              "properties": {"c": {"enum": [5]}, "u": {"anyOf": [{"type": "null"}]}}});
        assert_eq!(value(&for_google(&raw(&schema))), expected);
        assert_eq!(for_google(&raw(&json!(true))).get(), "true");
    }
}
