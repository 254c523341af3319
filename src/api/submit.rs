//! A submission: from the request body to what the journal keeps.
//! Owns: `SubmitInput` (the wire type), its checks, its normal form and its idempotency hashes.
//! Never: drops a field that it does not act on; a feature that is not there is refused by name.

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

pub(super) use super::input_parts::InputItem;
use super::input_parts::{gather, with_text};
use super::reply_targets;
use super::request_mac::RequestMac;
use super::run_view::RunSummary;
use crate::contract;
use crate::core::{IdempotencyKey, RunReplyTarget, SessionSettings};
use crate::delivery::ReplyTargetInput;
use crate::engine::{Budget, StoredPart};
use crate::http::problem::{Problem, codes};
use crate::ids::SessionId;
use crate::limits::{IDEMPOTENCY_KEY_BYTES_MAX, LABEL_BYTES_MAX};
use crate::providers::{GenerationOptions, ReasoningOption, ResponseFormat, ToolChoiceOption};

/// Body of `POST /v1/sessions/{session_id}/runs`. Absent, null and empty mean the same.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmitInput {
    /// Route id; the default route otherwise.
    pub provider: Option<String>,
    /// Model and sampling.
    pub generation: Option<Generation>,
    /// The input as text; excludes `input_items`.
    pub content: Option<String>,
    /// The input as items, in order: texts, files and references to files that are kept.
    pub input_items: Option<Vec<InputItem>>,
    /// Files that come with `content`.
    pub attachments: Option<Vec<InputItem>>,
    /// Who sends it, for views: `daemon` if nobody says.
    pub source_plugin: Option<String>,
    /// See `source_plugin`; `api` if nobody says.
    pub source_kind: Option<String>,
    /// The person or system behind it.
    pub actor_id: Option<String>,
    /// Kept with the run, shown as `input_metadata`.
    pub metadata: Option<serde_json::Value>,
    /// Not in this version.
    pub completion_requirements: Option<Vec<serde_json::Value>>,
    /// Not in this version.
    pub binding_keys: Option<Vec<String>>,
    /// Where the output goes; the session's own targets otherwise.
    pub reply_targets: Option<Vec<ReplyTargetInput>>,
    /// With `reply_address`: one target more.
    pub reply_plugin: Option<String>,
    /// See `reply_plugin`.
    pub reply_address: Option<String>,
    /// What the run may use.
    pub budget: Option<Budget>,
    /// Same as the header `Idempotency-Key`.
    pub idempotency_key: Option<String>,
}

/// Generation settings.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// The route's default model otherwise.
    pub model: Option<String>,
    /// Ceiling of the answer, reasoning included.
    pub max_output_tokens: Option<u32>,
    /// Sampling temperature, where the model has one.
    pub temperature: Option<f64>,
    /// The model that the run goes on with, on the same route, when the first one fails.
    pub fallback_model: Option<String>,
    /// Whether tools may, must or must not be called.
    pub tool_choice: Option<ToolChoiceOption>,
    /// Several calls in one answer; without effect where there are no tools.
    pub allow_parallel_tool_calls: Option<bool>,
    /// Text, or JSON of a schema.
    pub response_format: Option<ResponseFormat>,
    /// How much the model is to think.
    pub reasoning: Option<ReasoningOption>,
}

/// What the journal keeps of a submission, and what the fingerprint is taken over.
#[derive(Debug, Serialize)]
struct Normalised {
    content: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    input_parts: Vec<StoredPart>,
    source_plugin: String,
    source_kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback_model: Option<String>,
    #[serde(skip_serializing_if = "Budget::is_empty")]
    budget: Budget,
    #[serde(flatten)]
    options: GenerationOptions,
}

/// A submission that passed every check.
#[derive(Debug)]
pub struct Submission {
    /// Route asked for.
    pub provider: Option<String>,
    /// Model asked for.
    pub model: Option<String>,
    /// Model to go on with when that one fails.
    pub fallback_model: Option<String>,
    /// The normal form.
    pub request: Box<RawValue>,
    /// Bytes of the files among its parts, to be stored before it is.
    pub files: Vec<Vec<u8>>,
    /// What makes two submissions the same one: the normal form without what the session adds to it.
    pub identity: Box<RawValue>,
    /// The key, if one was given.
    pub idempotency_key: Option<String>,
    /// Where the output goes.
    pub reply_targets: Vec<RunReplyTarget>,
    /// What views show of it, without route and model.
    pub summary: RunSummary,
}

fn unsupported(field: &str) -> Problem {
    Problem::new(
        &codes::UNSUPPORTED_FEATURE,
        format!("{field} is not supported by this daemon version; next: leave it out"),
    )
}

fn given<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

/// A short text of the caller; blank means absent.
fn label(field: &str, value: Option<String>) -> Result<Option<String>, Problem> {
    let value = value.map(|text| text.trim().to_string()).filter(|text| !text.is_empty());
    if value.as_ref().is_some_and(|text| text.len() > LABEL_BYTES_MAX || text.chars().any(char::is_control)) {
        return Err(bad(&format!("{field} has at most {LABEL_BYTES_MAX} bytes and no control characters")));
    }
    Ok(value)
}

impl SubmitInput {
    /// Checks the submission. `key_header` is the value of `Idempotency-Key`; `own` is what the session has of its own.
    ///
    /// # Errors
    /// The problem that answers the request.
    pub fn check(self, key_header: Option<&str>, own: Option<&SessionSettings>) -> Result<Submission, Problem> {
        let generation = self.generation.unwrap_or_default();
        for (field, is_given) in [
            ("completion_requirements", given(&self.completion_requirements)),
            ("binding_keys", given(&self.binding_keys)),
        ] {
            if is_given {
                return Err(unsupported(field));
            }
        }
        let mut targets = self.reply_targets.unwrap_or_default();
        match (self.reply_plugin, self.reply_address) {
            (Some(plugin), Some(address)) => targets.push(ReplyTargetInput::raw(plugin, address)),
            (None, None) => {}
            _ => return Err(bad("reply_plugin and reply_address belong together; next: send both or none")),
        }
        let reply_targets = reply_targets::check(targets)?;
        let options = GenerationOptions {
            tool_choice: generation.tool_choice,
            allow_parallel_tool_calls: generation.allow_parallel_tool_calls,
            response_format: generation.response_format,
            reasoning: generation.reasoning,
        };
        options.check().map_err(|rule| bad(&rule))?;
        if let Some(temperature) = generation.temperature
            && !(0.0..=2.0).contains(&temperature)
        {
            return Err(bad("generation.temperature is not between 0 and 2"));
        }
        if generation.max_output_tokens == Some(0) {
            return Err(bad("generation.max_output_tokens is 0"));
        }
        let budget = self.budget.unwrap_or_default();
        if [budget.max_turns.map(u64::from), budget.max_duration_ms, budget.max_total_output_tokens].contains(&Some(0))
        {
            return Err(bad("a limit of budget is 0; next: leave it out or give it a value"));
        }
        let output_contract = own.and_then(|own| own.output_contract.as_ref());
        if output_contract.is_some() && options.expected().is_some() {
            let detail = "the session has an output contract; next: leave generation.response_format out, or clear the \
                          contract";
            return Err(bad(detail));
        }
        let mut gathered =
            gather(self.content, self.attachments.unwrap_or_default(), self.input_items.unwrap_or_default())?;
        if let Some(contract) = own.and_then(|own| own.input_contract.as_ref()) {
            let value = contract::accept(&contract.schema, &gathered.content).map_err(|violation| {
                Problem::new(&codes::INPUT_CONTRACT_VIOLATED, format!("the input does not fit: {violation}"))
            })?;
            with_text(&mut gathered, contract::canonical(&value));
        }
        let (provider, model) = (label("provider", self.provider)?, label("generation.model", generation.model)?);
        let mut normalised = Normalised {
            content: gathered.content,
            input_parts: gathered.parts,
            source_plugin: label("source_plugin", self.source_plugin)?.unwrap_or_else(|| "daemon".to_string()),
            source_kind: label("source_kind", self.source_kind)?.unwrap_or_else(|| "api".to_string()),
            actor_id: label("actor_id", self.actor_id)?,
            metadata: self.metadata.filter(|metadata| !metadata.is_null()),
            max_output_tokens: generation.max_output_tokens,
            temperature: generation.temperature,
            fallback_model: label("generation.fallback_model", generation.fallback_model)?,
            budget,
            options,
        };
        let summary = RunSummary::new(
            &normalised.content,
            &normalised.source_plugin,
            &normalised.source_kind,
            normalised.actor_id.as_deref(),
        );
        let identity = to_raw_value(&normalised).expect("strings, numbers and JSON values serialise");
        let request = match output_contract {
            None => identity.clone(),
            Some(contract) => {
                normalised.options.response_format = Some(ResponseFormat::StructuredJson {
                    schema: contract.schema.clone(),
                    name: None,
                    max_repair_attempts: Some(contract.max_repair_attempts),
                });
                to_raw_value(&normalised).expect("as above")
            }
        };
        Ok(Submission {
            summary,
            reply_targets,
            provider,
            model,
            fallback_model: normalised.fallback_model,
            request,
            files: gathered.files,
            identity,
            idempotency_key: idempotency_key(key_header, self.idempotency_key.as_deref())?,
        })
    }
}

fn bad(detail: &str) -> Problem {
    Problem::new(&codes::BAD_REQUEST, detail)
}

pub(super) fn idempotency_key(header: Option<&str>, field: Option<&str>) -> Result<Option<String>, Problem> {
    let refuse = |detail: String| Err(Problem::new(&codes::INVALID_IDEMPOTENCY_KEY, detail));
    let (header, field) = (header.map(str::trim), field.map(str::trim));
    if header.is_some() && field.is_some() && header != field {
        return refuse("the Idempotency-Key header and the idempotency_key field differ".to_string());
    }
    let Some(key) = header.or(field) else { return Ok(None) };
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX || key.chars().any(char::is_control) {
        return refuse(format!(
            "an idempotency key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes without control characters"
        ));
    }
    Ok(Some(key.to_string()))
}

/// What makes a repeated submission return the first one's run: the key within its session, and the request with the
/// route and model that were asked for (not those in force, which may change between), as it came, before redaction.
pub fn idempotency_hashes(mac: &RequestMac, session: &SessionId, key: &str, submission: &Submission) -> IdempotencyKey {
    let provider = submission.provider.as_deref().unwrap_or_default();
    let model = submission.model.as_deref().unwrap_or_default();
    // One that names none has the fingerprint that it had before there were any.
    let targets = serde_json::to_string(&submission.reply_targets).expect("targets are strings");
    let mut parts = vec![provider, model, submission.identity.get()];
    parts.extend((!submission.reply_targets.is_empty()).then_some(targets.as_str()));
    IdempotencyKey { key: hash("key", &[session.as_str(), key]), fingerprint: mac.fingerprint("request", &parts) }
}

/// First 128 bits of SHA-256 over length-prefixed parts, so that no two lists of parts look alike.
pub(super) fn hash(purpose: &str, parts: &[&str]) -> [u8; 16] {
    let mut context = Context::new(&SHA256);
    for part in std::iter::once(&purpose).chain(parts) {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    let mut truncated = [0; 16];
    truncated.copy_from_slice(&context.finish().as_ref()[..16]);
    truncated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str) -> Result<Submission, Problem> {
        let input: SubmitInput = serde_json::from_str(body).expect("well-formed");
        input.check(None, None)
    }

    #[test]
    fn a_feature_that_is_not_there_is_refused_by_name_and_never_dropped() {
        for (body, field) in [
            (r#"{"content":"x","binding_keys":["k"]}"#, "binding_keys"),
            (r#"{"input_items":[{"type":"board_reference"}]}"#, "an input item other than text"),
            (
                r#"{"content":"x","attachments":[{"type":"board_reference","asset_id":"a"}]}"#,
                "an input item other than text",
            ),
        ] {
            let problem = check(body).expect_err(field);
            assert_eq!(problem.code.code, "unsupported_feature");
            assert!(problem.detail.starts_with(field), "{}", problem.detail);
        }
        let nothing_asked = r#"{"content":"x","attachments":[],"reply_targets":[],"generation":{"tool_choice":null}}"#;
        assert!(check(nothing_asked).is_ok(), "empty lists and nulls ask for nothing");
    }

    #[test]
    fn an_input_without_text_makes_no_run() {
        for body in ["{}", r#"{"content":"  \n"}"#, r#"{"input_items":[]}"#, r#"{"input_items":[{"type":"text"}]}"#] {
            assert_eq!(check(body).expect_err(body).code.code, "bad_request");
        }
    }

    #[test]
    fn equal_requests_have_equal_fingerprints_whatever_their_spelling() {
        let session = SessionId::parse("s").expect("legal");
        let mac = RequestMac::new(b"a key of a test");
        let hashes = |body: &str| idempotency_hashes(&mac, &session, "k", &check(body).expect("legal"));
        let plain = hashes(r#"{"content":"x"}"#);
        assert_eq!(plain, hashes(r#"{ "source_kind": null, "content": "x", "attachments": [] }"#));
        assert_eq!(plain, hashes(r#"{"input_items":[{"type":"text","text":"x"}]}"#));
        for other in [
            r#"{"content":"y"}"#,
            r#"{"content":"x","provider":"main"}"#,
            r#"{"content":"x","generation":{"model":"m"}}"#,
            r#"{"content":"x","metadata":{"a":1}}"#,
            r#"{"content":"x","reply_targets":[{"plugin":"http","address":"https://a.example/"}]}"#,
        ] {
            assert_ne!(plain.fingerprint, hashes(other).fingerprint, "{other}");
        }
        let elsewhere = SessionId::parse("t").expect("legal");
        let submission = check(r#"{"content":"x"}"#).expect("legal");
        assert_ne!(plain.key, idempotency_hashes(&mac, &elsewhere, "k", &submission).key, "keys are per session");
    }

    #[test]
    fn a_key_in_header_and_body_must_agree() {
        let key = |header: Option<&str>, field: Option<&str>| idempotency_key(header, field).map_err(|p| p.code.code);
        assert_eq!(key(Some(" a "), Some("a")), Ok(Some("a".to_string())));
        assert_eq!(key(None, None), Ok(None));
        for (header, field) in [(Some("a"), Some("b")), (Some(""), None), (None, Some("  ")), (None, Some("a\nb"))] {
            assert_eq!(key(header, field), Err("invalid_idempotency_key"));
        }
    }
}
