//! What a server asks people, as questions, and what people answer, as a server wants it.
//! Owns: the part of JSON Schema that forms of servers use, and the check of an answer against it.
//! Never: asks for a secret; opens a link; takes an answer that the server's form does not allow.

use serde_json::{Map, Value, json};

use super::content;
use crate::core::{FormField, QuestionAnswer, QuestionOption, UserQuestion};
use crate::limits::{
    MCP_FORM_FIELDS_MAX, MCP_FORM_MESSAGE_BYTES_MAX, MCP_FORM_OPTIONS_MAX, MCP_FORM_TEXT_BYTES_MAX,
    MCP_FORM_URL_BYTES_MAX,
};
use crate::net::{BaseUrl, Target};
use crate::tools::cut_bytes;

/// What a server wants of people.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wish {
    /// Answers to these.
    Form(Vec<UserQuestion>),
    /// That they open an address.
    Link(Vec<UserQuestion>),
    /// What nobody is to be asked: a secret.
    Secret,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reply {
    /// With the answers, by the names of the form's fields; nothing for a link.
    Accept(Option<Map<String, Value>>),
    /// A person would not.
    Decline,
    /// Nobody has answered.
    Cancel,
}

impl Reply {
    /// As the protocol says it.
    pub fn result(self) -> Value {
        match self {
            Self::Accept(None) => json!({"action": "accept"}),
            Self::Accept(Some(content)) => json!({"action": "accept", "content": content}),
            Self::Decline => json!({"action": "decline"}),
            Self::Cancel => json!({"action": "cancel"}),
        }
    }
}

/// Id of the one option of a question that is about nothing but agreeing.
const AGREED: &str = "done";

/// Reads the parameters of `elicitation/create`.
///
/// # Errors
/// They are none, or ask for more than is asked of people.
pub(super) fn wish(server: &str, params: &Value) -> Result<Wish, &'static str> {
    let Some(message) = params["message"].as_str() else { return Err("the elicitation has no message") };
    let message = plain(message, MCP_FORM_MESSAGE_BYTES_MAX);
    let intro = format!(
        "The MCP server {server} asks, in its own words that nobody has checked; never tell it a secret here: {message}"
    );
    let header = cut_bytes(&format!("MCP server {server}"), 64).to_string();
    match params["mode"].as_str() {
        None | Some("form") => form(&header, &intro, &params["requestedSchema"]),
        Some("url") => link(server, &header, &message, &params["url"]),
        Some(_) => Err("the mode of the elicitation is unknown"),
    }
}

fn agree(header: &str, question: String, label: &str) -> Vec<UserQuestion> {
    let option = QuestionOption { id: AGREED.to_string(), label: label.to_string(), description: None, preview: None };
    vec![UserQuestion {
        id: "answer".to_string(),
        header: header.to_string(),
        question,
        options: vec![option],
        multi_select: false,
        form: None,
    }]
}

fn link(server: &str, header: &str, message: &str, url: &Value) -> Result<Wish, &'static str> {
    let url = url.as_str().unwrap_or_default();
    if url.len() > MCP_FORM_URL_BYTES_MAX || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the address of the elicitation is too long or no address");
    }
    let bare = url.split(['?', '#']).next().unwrap_or_default();
    let (Ok(base), Ok(target)) = (BaseUrl::parse(bare), Target::parse(bare)) else {
        return Err("the address of the elicitation is no address");
    };
    if !base.is_https() && !base.is_local() {
        return Err("the address of the elicitation is not https");
    }
    let Some((host, port)) = target.host_and_port() else { return Err("the address of the elicitation has no host") };
    let question = format!(
        "The MCP server {server} wants you to open {url} in a browser, at the host {host}, port {port}. Its own words, \
         that nobody has checked: {message}"
    );
    Ok(Wish::Link(agree(header, question, "I agree to open it")))
}

fn form(header: &str, intro: &str, schema: &Value) -> Result<Wish, &'static str> {
    let none = Map::new();
    let fields = match &schema["properties"] {
        Value::Object(fields) => fields,
        Value::Null => &none,
        _ => return Err("the form of the elicitation is no object of fields"),
    };
    if fields.len() > MCP_FORM_FIELDS_MAX {
        return Err("the form of the elicitation has too many fields");
    }
    if fields.is_empty() {
        return Ok(Wish::Form(agree(header, intro.to_string(), "Yes")));
    }
    let required = |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|n| n == name));
    let mut questions = Vec::new();
    for (name, field) in fields {
        if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
            return Err("a field of the elicitation has no usable name");
        }
        if is_secret(name, field) {
            return Ok(Wish::Secret);
        }
        let asked = plain(field["title"].as_str().unwrap_or(name), MCP_FORM_TEXT_BYTES_MAX);
        let more = field["description"].as_str().map(|text| format!(": {}", plain(text, MCP_FORM_TEXT_BYTES_MAX)));
        let lead = if questions.is_empty() { format!("{intro} — ") } else { String::new() };
        let kept = kept(field)?;
        questions.push(UserQuestion {
            id: name.clone(),
            header: header.to_string(),
            question: format!("{lead}{asked}{}", more.unwrap_or_default()),
            options: options(&kept)?,
            multi_select: kept["type"] == "array",
            form: Some(FormField { required: required(name), schema: kept }),
        });
    }
    Ok(Wish::Form(questions))
}

/// Words by which a field asks for what belongs into no form.
const SECRETS: [&str; 12] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "api_key",
    "apikey",
    "api key",
    "private_key",
    "private key",
    "access_token",
    "access token",
    "credential",
];

fn is_secret(name: &str, field: &Value) -> bool {
    let asks = |text: &str| {
        let text = text.to_lowercase();
        SECRETS.iter().any(|word| text.contains(word))
    };
    asks(name) || field["title"].as_str().is_some_and(asks) || field["format"] == "password"
}

/// A text of a server as it can be shown: bounded, on one line, nothing that steers a terminal.
fn plain(text: &str, most: usize) -> String {
    content::shown(text, most).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The members of a field's schema that an answer is checked by.
fn kept(field: &Value) -> Result<Value, &'static str> {
    const KEPT: [&str; 14] = [
        "type",
        "format",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "minItems",
        "maxItems",
        "enum",
        "oneOf",
        "enumNames",
        "items",
        "default",
        "pattern",
    ];
    if !matches!(field["type"].as_str(), Some("string" | "integer" | "number" | "boolean" | "array")) {
        return Err("a field of the elicitation is of a type that forms do not have");
    }
    let kept: Map<String, Value> =
        KEPT.iter().filter_map(|key| Some(((*key).to_string(), field.get(*key)?.clone()))).collect();
    let kept = Value::Object(kept);
    if kept.to_string().len() > MCP_FORM_OPTIONS_MAX * MCP_FORM_TEXT_BYTES_MAX {
        return Err("a field of the elicitation is too long");
    }
    Ok(kept)
}

/// What can be chosen: value and, where the server gives one, its title.
fn choices(schema: &Value) -> Vec<(&str, &str)> {
    let list = if schema["type"] == "array" { &schema["items"] } else { schema };
    let titled = list["oneOf"].as_array().or_else(|| list["anyOf"].as_array());
    if let Some(titled) = titled {
        let pair = |entry| Some((entry_text(entry, "const")?, entry_text(entry, "title")));
        return titled.iter().filter_map(pair).map(|(value, title)| (value, title.unwrap_or(value))).collect();
    }
    let names = schema["enumNames"].as_array();
    let title = |at: usize| names.and_then(|names| names.get(at)?.as_str());
    let values = list["enum"].as_array().into_iter().flatten();
    values.enumerate().filter_map(|(at, value)| Some((value.as_str()?, title(at).unwrap_or(value.as_str()?)))).collect()
}

fn entry_text<'a>(entry: &'a Value, key: &str) -> Option<&'a str> {
    entry[key].as_str()
}

fn options(schema: &Value) -> Result<Vec<QuestionOption>, &'static str> {
    let option = |id: &str, label: &str| QuestionOption {
        id: id.to_string(),
        label: plain(label, MCP_FORM_TEXT_BYTES_MAX),
        description: None,
        preview: None,
    };
    if schema["type"] == "boolean" {
        return Ok(vec![option("true", "Yes"), option("false", "No")]);
    }
    let choices = choices(schema);
    if schema["type"] == "array" && choices.is_empty() {
        return Err("a field of the elicitation is a list without choices");
    }
    if choices.len() > MCP_FORM_OPTIONS_MAX
        || choices.iter().any(|(value, _)| value.is_empty() || value.len() > MCP_FORM_TEXT_BYTES_MAX)
    {
        return Err("a field of the elicitation has too many or too long choices");
    }
    Ok(choices.into_iter().map(|(value, title)| option(value, title)).collect())
}

/// What a server is told for a question of its form; nothing where a field may stay empty.
///
/// # Errors
/// The answer is not what the form allows, or one that it demands is missing. The text says which, and never repeats the
/// answer.
pub fn value(question: &UserQuestion, answer: Option<&QuestionAnswer>) -> Result<Option<Value>, String> {
    let Some(FormField { schema, required }) = &question.form else { return Ok(None) };
    let Some(answer) = answer else {
        return match schema.get("default").filter(|default| fits(schema, default).is_ok()) {
            Some(default) => Ok(Some(default.clone())),
            None if *required => Err("an answer is demanded".to_string()),
            None => Ok(None),
        };
    };
    let text = answer.freeform_answer.as_deref().map(str::trim);
    let chosen: Vec<&str> = answer.selected_option_ids.iter().map(String::as_str).chain(text).collect();
    let value = match schema["type"].as_str().unwrap_or_default() {
        "boolean" => match chosen[..] {
            ["true"] => Value::Bool(true),
            ["false"] => Value::Bool(false),
            _ => return Err("true or false is wanted".to_string()),
        },
        "array" => Value::Array(chosen.into_iter().map(Value::from).collect()),
        "integer" | "number" => match chosen[..] {
            [text] => serde_json::from_str::<serde_json::Number>(text).map(Value::Number).unwrap_or(Value::Null),
            _ => Value::Null,
        },
        // Blanks at the ends may be meant where there is nothing to choose.
        _ if question.options.is_empty() => answer.freeform_answer.clone().map_or(Value::Null, Value::String),
        _ => match chosen[..] {
            [text] => Value::from(text),
            _ => Value::Null,
        },
    };
    fits(schema, &value).map(|()| Some(value))
}

/// Whether a value is what a field's schema allows.
fn fits(schema: &Value, value: &Value) -> Result<(), String> {
    let within = |size: f64, low: &str, high: &str, what: &str| {
        let beyond =
            schema[low].as_f64().is_some_and(|low| size < low) || schema[high].as_f64().is_some_and(|high| size > high);
        let bounds = || format!("{what} must be {} to {}", shown(&schema[low]), shown(&schema[high]));
        if beyond { Err(bounds()) } else { Ok(()) }
    };
    match (schema["type"].as_str().unwrap_or_default(), value) {
        ("boolean", Value::Bool(_)) => Ok(()),
        ("integer", Value::Number(number)) if number.as_f64().is_some_and(|number| number.fract() != 0.0) => {
            Err("a whole number is wanted".to_string())
        }
        ("integer" | "number", Value::Number(number)) => {
            within(number.as_f64().unwrap_or(f64::NAN), "minimum", "maximum", "the number")
        }
        ("string", Value::String(text)) => {
            let choices = choices(schema);
            if !choices.is_empty() && choices.iter().all(|(value, _)| value != text) {
                return Err("one of the choices is wanted".to_string());
            }
            within(text.chars().count() as f64, "minLength", "maxLength", "the number of characters")?;
            match schema["format"].as_str() {
                Some("email") if !is_email(text) => Err("an e-mail address is wanted".to_string()),
                Some("uri") if !is_uri(text) => Err("an address such as https://… is wanted".to_string()),
                Some("date") if !is_date(text) => Err("a date such as 2026-01-31 is wanted".to_string()),
                Some("date-time") if !is_date_time(text) => {
                    Err("a time such as 2026-01-31T12:00:00Z is wanted".to_string())
                }
                _ => Ok(()),
            }
        }
        ("array", Value::Array(items)) => {
            let choices = choices(schema);
            let known = |item: &Value| choices.iter().any(|(value, _)| item == *value);
            if !items.iter().all(known) {
                return Err("only the choices are wanted".to_string());
            }
            within(items.len() as f64, "minItems", "maxItems", "the number of choices")
        }
        ("integer", _) => Err("a whole number is wanted".to_string()),
        ("number", _) => Err("a number is wanted".to_string()),
        _ => Err("another kind of answer is wanted".to_string()),
    }
}

fn shown(bound: &Value) -> String {
    if bound.is_null() { "any".to_string() } else { bound.to_string() }
}

fn is_email(text: &str) -> bool {
    let whole = !text.chars().any(|c| c.is_whitespace() || c.is_control());
    whole
        && text.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty() && !host.contains('@'))
}

fn is_uri(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let whole = !text.chars().any(|c| c.is_whitespace() || c.is_control());
    whole
        && text.split_once(':').is_some_and(|(scheme, rest)| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(legal) && !rest.is_empty()
        })
}

/// Digits of fixed width, between `low` and `high`.
fn number(text: Option<&str>, width: usize, low: u32, high: u32) -> bool {
    text.filter(|text| text.len() == width && text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .is_some_and(|number: u32| (low..=high).contains(&number))
}

fn is_date(text: &str) -> bool {
    let mut parts = text.split('-');
    number(parts.next(), 4, 0, 9999)
        && number(parts.next(), 2, 1, 12)
        && number(parts.next(), 2, 1, 31)
        && parts.next().is_none()
}

fn is_date_time(text: &str) -> bool {
    let Some((date, time)) = text.split_once(['T', 't']) else { return false };
    let at = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let (clock, zone) = time.split_at(at);
    let (whole, fraction) = clock.split_once('.').map_or((clock, None), |(whole, fraction)| (whole, Some(fraction)));
    let mut parts = whole.split(':');
    let clock = number(parts.next(), 2, 0, 23)
        && number(parts.next(), 2, 0, 59)
        && number(parts.next(), 2, 0, 60)
        && parts.next().is_none()
        && fraction.is_none_or(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
    let zone = matches!(zone, "Z" | "z")
        || zone
            .get(1..)
            .and_then(|zone| zone.split_once(':'))
            .is_some_and(|(hours, minutes)| number(Some(hours), 2, 0, 23) && number(Some(minutes), 2, 0, 59));
    is_date(date) && clock && zone
}

/// What a server is told of a person's answers to its form.
///
/// # Errors
/// An answer is not what the form allows; the control plane has looked before, so this is no person's mistake.
pub(super) fn content(questions: &[UserQuestion], answers: &[QuestionAnswer]) -> Result<Map<String, Value>, String> {
    let mut content = Map::new();
    for question in questions {
        let answer = answers.iter().find(|answer| answer.question_id == question.id);
        if let Some(value) = value(question, answer)? {
            content.insert(question.id.clone(), value);
        }
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(schema: Value, required: bool) -> UserQuestion {
        let names: Vec<Value> = if required { vec!["f".into()] } else { Vec::new() };
        let params = json!({"message": "m", "requestedSchema": {"type": "object", "properties": {"f": schema}, "required": names}});
        match wish("s", &params).unwrap() {
            Wish::Form(mut questions) => questions.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn text(answer: &str) -> QuestionAnswer {
        QuestionAnswer {
            question_id: "f".to_string(),
            selected_option_ids: Vec::new(),
            freeform_answer: Some(answer.to_string()),
        }
    }

    fn chosen(ids: &[&str]) -> QuestionAnswer {
        let selected_option_ids = ids.iter().map(ToString::to_string).collect();
        QuestionAnswer { question_id: "f".to_string(), selected_option_ids, freeform_answer: None }
    }

    #[test]
    fn an_answer_is_taken_as_the_form_wants_it_or_not_at_all() {
        let titled = json!({"type": "string", "oneOf": [{"const": "a", "title": "A"}, {"const": "b", "title": "B"}]});
        let many = json!({"type": "array", "minItems": 1, "maxItems": 2, "items": {"enum": ["x", "y", "z"]}});
        for (schema, answer, expected) in [
            (json!({"type": "string"}), text(" as it is "), Some(json!(" as it is "))),
            (json!({"type": "string", "minLength": 3}), text("äö"), None),
            (json!({"type": "string", "maxLength": 2}), text("äö"), Some(json!("äö"))),
            (json!({"type": "string", "format": "email"}), text("a@b.example"), Some(json!("a@b.example"))),
            (json!({"type": "string", "format": "email"}), text("a b@c"), None),
            (
                json!({"type": "string", "format": "uri"}),
                text("https://a.example/x"),
                Some(json!("https://a.example/x")),
            ),
            (json!({"type": "string", "format": "uri"}), text("a.example"), None),
            (json!({"type": "string", "format": "date"}), text("2026-02-28"), Some(json!("2026-02-28"))),
            (json!({"type": "string", "format": "date"}), text("2026-13-01"), None),
            (
                json!({"type": "string", "format": "date-time"}),
                text("2026-02-28T10:00:00.5+02:00"),
                Some(json!("2026-02-28T10:00:00.5+02:00")),
            ),
            (json!({"type": "string", "format": "date-time"}), text("2026-02-28 10:00"), None),
            (json!({"type": "integer", "minimum": 1, "maximum": 9}), text(" 7 "), Some(json!(7))),
            (json!({"type": "integer"}), text("7.5"), None),
            (json!({"type": "integer", "maximum": 9}), text("10"), None),
            (json!({"type": "number"}), text("-7.5e1"), Some(json!(-75.0))),
            (json!({"type": "number"}), text("NaN"), None),
            (json!({"type": "number"}), text("[7]"), None),
            (json!({"type": "boolean"}), chosen(&["false"]), Some(json!(false))),
            (json!({"type": "boolean"}), text("true"), Some(json!(true))),
            (json!({"type": "boolean"}), text("yes"), None),
            (titled.clone(), chosen(&["b"]), Some(json!("b"))),
            (titled.clone(), text("a"), Some(json!("a"))),
            (titled, text("B"), None),
            (many.clone(), chosen(&["x", "z"]), Some(json!(["x", "z"]))),
            (many.clone(), chosen(&["x", "y", "z"]), None),
            (many, text("w"), None),
        ] {
            let found = value(&question(schema.clone(), true), Some(&answer));
            match expected {
                Some(expected) => assert_eq!(found, Ok(Some(expected)), "{schema} {answer:?}"),
                None => {
                    let error = found.expect_err(&format!("{schema} {answer:?}"));
                    let said = answer.freeform_answer.unwrap_or_default();
                    assert!(said.len() < 4 || !error.contains(&said), "{error}");
                }
            }
        }
    }

    #[test]
    fn what_is_left_out_is_filled_from_the_form_or_stays_away_and_what_is_demanded_does_not() {
        let default = |schema: Value, required| value(&question(schema, required), None);
        assert_eq!(default(json!({"type": "integer", "default": 3}), true), Ok(Some(json!(3))));
        assert_eq!(
            default(json!({"type": "array", "items": {"enum": ["x"]}, "default": ["x"]}), false),
            Ok(Some(json!(["x"])))
        );
        // A default that the form itself does not allow is none.
        assert_eq!(default(json!({"type": "integer", "default": "3"}), false), Ok(None));
        assert!(default(json!({"type": "integer", "default": "3"}), true).is_err());
        assert_eq!(default(json!({"type": "string"}), false), Ok(None));
    }

    #[test]
    fn a_form_becomes_questions_and_one_that_cannot_or_must_not_be_asked_does_not() {
        let form = |schema: Value| wish("s", &json!({"message": "Wh\u{1b}[0mat?", "requestedSchema": schema}));
        let Ok(Wish::Form(questions)) = form(json!({"properties": {"a": {"type": "boolean", "description": "more"},
            "b": {"type": "string", "enum": ["x"], "enumNames": ["X!"]}}}))
        else {
            panic!("a form")
        };
        assert!(questions[0].question.ends_with("Wh [0mat? — a: more"), "{:?}", questions[0].question);
        assert!(questions[0].question.contains("never tell it a secret"));
        assert_eq!((questions[1].question.as_str(), questions[1].options[0].label.as_str()), ("b", "X!"));
        assert!(
            matches!(form(json!({"properties": {}})), Ok(Wish::Form(questions)) if questions[0].options[0].id == AGREED)
        );
        for secret in ["password", "API_KEY", "my_secret_code"] {
            assert_eq!(form(json!({"properties": {secret: {"type": "string"}}})), Ok(Wish::Secret), "{secret}");
        }
        let fields: Map<String, Value> =
            (0..=MCP_FORM_FIELDS_MAX).map(|n| (format!("f{n}"), json!({"type": "string"}))).collect();
        let choices: Vec<String> = (0..=MCP_FORM_OPTIONS_MAX).map(|n| n.to_string()).collect();
        for bad in [
            json!({"properties": fields}),
            json!({"properties": []}),
            json!({"properties": {"a": {"type": "object"}}}),
            json!({"properties": {"a": {}}}),
            json!({"properties": {"": {"type": "string"}}}),
            json!({"properties": {"a": {"type": "array", "items": {"type": "string"}}}}),
            json!({"properties": {"a": {"type": "string", "enum": choices}}}),
        ] {
            assert!(form(bad.clone()).is_err(), "{bad}");
        }
        assert!(wish("s", &json!({"requestedSchema": {}})).is_err());
        assert!(wish("s", &json!({"message": "m", "mode": "voice"})).is_err());
    }

    #[test]
    fn a_link_is_shown_whole_with_its_host_and_only_one_that_is_safe_to_show() {
        let link = |url: &str| wish("s", &json!({"mode": "url", "message": "m", "elicitationId": "e", "url": url}));
        let Ok(Wish::Link(questions)) = link("https://pay.example:444/x?y=1#z") else { panic!("a link") };
        assert!(
            questions[0]
                .question
                .contains("open https://pay.example:444/x?y=1#z in a browser, at the host pay.example, port 444")
        );
        assert!(matches!(link("http://127.0.0.1:9/x"), Ok(Wish::Link(_))));
        for bad in [
            "",
            "http://a.example/",
            "https://user@a.example/",
            "javascript:alert(1)",
            "file:///etc/passwd",
            "https://a.example/\u{202e}x",
        ] {
            assert!(link(bad).is_err(), "{bad}");
        }
        assert!(link(&format!("https://a.example/{}", "x".repeat(MCP_FORM_URL_BYTES_MAX))).is_err());
    }
}
