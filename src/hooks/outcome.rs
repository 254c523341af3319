//! What a hook answers.
//! Owns: the form of an answer, and what of it this daemon follows.
//! Never: guesses. An answer that cannot be read is a failure of the hook, not an agreement.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::invocation::CONTRACT_VERSION;
use crate::limits::{HOOK_CONTEXTS_MAX, HOOK_REASON_BYTES_MAX};

/// What a hook wants done, as far as this daemon does it.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Whether what happens is to be stopped here.
    pub block: bool,
    /// Whether the run is to go on at all.
    pub stop_run: bool,
    /// Why, in the hook's words.
    pub reason: Option<String>,
    /// Whether a person is to be asked first.
    pub ask: bool,
    /// Arguments that replace the model's.
    pub updated_input: Option<Box<RawValue>>,
    /// What the model is shown instead of a result.
    pub updated_output: Option<String>,
    /// What the model is told besides.
    pub contexts: Vec<String>,
    /// Members that say something and are not followed.
    pub ignored: Vec<String>,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    contract_version: Option<u32>,
    #[serde(default)]
    continue_execution: Option<bool>,
    #[serde(default)]
    stop_reason: Option<String>,
    #[serde(default)]
    decision: Option<Decision>,
    #[serde(default)]
    permission: Option<Permission>,
    #[serde(default)]
    updated_input: Option<Box<RawValue>>,
    #[serde(default)]
    updated_output: Option<Value>,
    #[serde(default)]
    additional_contexts: Vec<String>,
    #[serde(flatten)]
    rest: std::collections::BTreeMap<String, Value>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Decision {
    Approve,
    Block,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Permission {
    Allow,
    Deny,
    Ask,
}

impl Answer {
    /// An answer that blocks.
    pub fn blocked(reason: impl Into<String>) -> Self {
        Self { block: true, reason: Some(cut(reason.into())), ..Self::default() }
    }

    /// Reads what a hook printed or sent. Nothing at all is agreement; so is an empty object.
    ///
    /// # Errors
    /// It is no answer; the text says why and repeats nothing of it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::default());
        }
        let text = object_in(text)?;
        // The parser's words may repeat what it met.
        let place = |error: serde_json::Error| format!("the answer cannot be read at column {}", error.column());
        let raw: Raw = match serde_json::from_str(text) {
            Ok(raw) => raw,
            Err(error) => return Err(place(error)),
        };
        if raw.contract_version.is_some_and(|version| version > CONTRACT_VERSION) {
            return Err(format!("the answer is of a later contract than {CONTRACT_VERSION}"));
        }
        let says = |value: &Value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Array(items) => !items.is_empty(),
            Value::Object(members) => !members.is_empty(),
            _ => true,
        };
        let mut ignored: Vec<String> =
            raw.rest.iter().filter(|(_, value)| says(value)).map(|(name, _)| name.chars().take(64).collect()).collect();
        ignored.truncate(16);
        let stop_run = raw.continue_execution == Some(false);
        let refuses = raw.permission == Some(Permission::Deny);
        let told = raw.additional_contexts.into_iter().filter(|text| !text.trim().is_empty());
        if raw.permission == Some(Permission::Allow) {
            ignored.push("permission".to_string());
        }
        Ok(Self {
            block: stop_run || refuses || raw.decision == Some(Decision::Block),
            stop_run,
            ask: raw.permission == Some(Permission::Ask),
            reason: raw.stop_reason.filter(|reason| !reason.trim().is_empty()).map(cut),
            updated_input: raw.updated_input.filter(|input| input.get() != "null"),
            updated_output: raw.updated_output.filter(|output| !output.is_null()).map(|output| match output {
                Value::String(text) => text,
                other => other.to_string(),
            }),
            contexts: told.take(HOOK_CONTEXTS_MAX).map(cut).collect(),
            ignored,
        })
    }
}

fn cut(mut text: String) -> String {
    if text.len() > HOOK_REASON_BYTES_MAX {
        let end = (0..=HOOK_REASON_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// The one object of a text: the whole, a fenced block, or what begins a line among other lines. Of two nobody knows which is
/// meant.
fn object_in(text: &str) -> Result<&str, &'static str> {
    let is_begin = |at: usize| at == 0 || text.as_bytes()[at - 1] == b'\n';
    let begin = text.match_indices('{').map(|(at, _)| at).find(|at| is_begin(*at));
    let begin = begin.ok_or("the answer holds no JSON object")?;
    let (mut depth, mut in_string, mut escaped) = (0_u32, false, false);
    for (at, byte) in text.bytes().enumerate().skip(begin) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' if !in_string => depth += 1,
            b'}' if !in_string => {
                depth -= 1;
                if depth == 0 {
                    let another = text[at + 1..].match_indices('{').any(|(next, _)| is_begin(at + 1 + next));
                    return if another { Err("the answer holds two JSON objects") } else { Ok(&text[begin..=at]) };
                }
            }
            _ => {}
        }
    }
    Err("the answer holds no whole JSON object")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_whatever_widens_or_is_not_known_is_named_and_not_followed() {
        let shown = |text: &str| {
            let answer = Answer::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            (answer.block, answer.stop_run, answer.reason, answer.ignored.join(","))
        };
        let plain = (false, false, None, String::new());
        for text in ["", "  \n", "{}", r#"{"decision":"approve"}"#, r#"{"contract_version":1,"retry":false}"#] {
            assert_eq!(shown(text), plain, "{text}");
        }
        let no = |why: &str| Some(why.to_string());
        assert_eq!(shown(r#"{"decision":"block","stop_reason":"no"}"#), (true, false, no("no"), String::new()));
        assert_eq!(shown(r#"{"permission":"deny"}"#), (true, false, None, String::new()));
        assert_eq!(shown(r#"{"permission":"ask"}"#), plain);
        assert!(Answer::parse(r#"{"permission":"ask"}"#).unwrap().ask);
        assert_eq!(shown(r#"{"permission":"allow"}"#), (false, false, None, "permission".to_string()));
        assert_eq!(shown(r#"{"continue_execution":false}"#), (true, true, None, String::new()));
        assert_eq!(
            shown(r#"{"initial_user_message":"x","watch_paths":[],"updated_permissions":[{}]}"#),
            (false, false, None, "initial_user_message,updated_permissions".to_string())
        );
        let told = Answer::parse(r#"{"additional_contexts":["x"," "],"updated_output":{"a":1}}"#).unwrap();
        assert_eq!((told.contexts, told.updated_output.as_deref()), (vec!["x".to_string()], Some("{\"a\":1}")));
        let fenced =
            "thinking…\n```json\n{\"decision\": \"block\", \"stop_reason\": \"a } in \\\" words\"}\n```\nbye {";
        assert_eq!(shown(fenced), (true, false, no("a } in \" words"), String::new()));
        let answer = Answer::parse(r#"{"updated_input":{"command":"ls"}}"#).unwrap();
        assert_eq!(answer.updated_input.unwrap().get(), r#"{"command":"ls"}"#);
        assert!(Answer::parse(r#"{"updated_input":null}"#).unwrap().updated_input.is_none());
        let long = format!(r#"{{"decision":"block","stop_reason":"{}"}}"#, "ä".repeat(HOOK_REASON_BYTES_MAX));
        assert_eq!(shown(&long).2.unwrap().len(), HOOK_REASON_BYTES_MAX);
    }

    #[test]
    fn what_is_no_answer_is_no_agreement_and_is_not_repeated() {
        for text in [
            "canary",
            "[\"canary\"]",
            "error at canary: unexpected {}",
            "{\"decision\":\"approve\"}\n{\"decision\":\"block\",\"stop_reason\":\"canary\"}",
            "{\"canary\"",
            r#"{"decision":"canary"}"#,
            r#"{"permission":"canary"}"#,
            r#"{"continue_execution":"canary"}"#,
            r#"{"contract_version":2}"#,
            r#"{"decision":"block","decision":"approve"}"#,
        ] {
            let error = Answer::parse(text).unwrap_err();
            assert!(!error.contains("canary"), "{text}: {error}");
        }
    }
}
