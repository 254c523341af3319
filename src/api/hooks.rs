//! Hooks over HTTP: the settings in force, their replacement, and calls that came to nothing.
//! Owns: the routes below `/v1/runtime/hooks`, and the group of the status.
//! Never: shows a payload; puts hooks in force that cannot be used.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::call::Call;
use super::context::Api;
use super::runtime::change;
use super::status::HooksStatus;
use crate::core::{Command, Decision, HookCommand, HookDeadLetter, RuntimeEdit};
use crate::http::Response;
use crate::http::problem::{Problem, codes};

#[derive(Serialize)]
struct HooksView {
    /// The revision of the runtime configuration.
    revision: u64,
    /// `file`, `daemon` or `none`.
    source: &'static str,
    settings: Value,
}

/// `GET /v1/runtime/hooks`: the document as it was given.
pub fn get(api: &Api, _call: &Call) -> Result<Response, Problem> {
    let runtime = api.core.view().runtime.clone();
    let hooks = runtime.settings().hooks.as_ref();
    let source = hooks.map_or("none", |hooks| if hooks.from_file { "file" } else { "daemon" });
    let settings = hooks.map_or_else(|| json!({"hooks": {}}), |hooks| hooks.document.clone());
    Ok(Response::json(200, &HooksView { revision: runtime.current().revision, source, settings }))
}

/// Body of `POST /v1/runtime/hooks`: the document itself, or with what it is expected to replace.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HooksBody {
    settings: Option<Value>,
    hooks: Option<Value>,
    schema_version: Option<Value>,
    expected_revision: Option<u64>,
    /// Taken from callers that know hooks which can refuse this; here none can.
    #[serde(default, rename = "skip_hooks")]
    _skip_hooks: Option<bool>,
}

/// `POST /v1/runtime/hooks`: replaces all hooks, or nothing where any of them cannot be used.
pub fn set(api: &Api, call: &Call) -> Result<Response, Problem> {
    let HooksBody { settings, hooks, schema_version, expected_revision, _skip_hooks } = call.json()?;
    let invalid = |detail: String| Problem::new(&codes::INVALID_HOOK_SETTINGS, detail);
    let document = match (settings, hooks) {
        (Some(settings), None) if schema_version.is_none() => settings,
        (None, Some(hooks)) => match schema_version {
            Some(version) => json!({"hooks": hooks, "schema_version": version}),
            None => json!({"hooks": hooks}),
        },
        (Some(_), _) => return Err(invalid("settings stands beside hooks; next: give one of them".to_string())),
        (None, None) => return Err(invalid("there are no hooks; next: give {\"hooks\":{…}}".to_string())),
    };
    api.hooks.check(&document).map_err(invalid)?;
    change(api, call, RuntimeEdit::Hooks { document, file_sha256: None }, expected_revision)
}

#[derive(Serialize)]
struct DeadLetters<'a> {
    dead_letters: Vec<&'a HookDeadLetter>,
    /// Failures ever kept.
    dead_lettered_count: u64,
    /// Unsettled ones that are no longer kept.
    dropped_unresolved_count: u64,
}

/// `GET /v1/runtime/hooks/dead-letter`: calls that came to nothing, oldest first.
pub fn dead_letters(api: &Api, _call: &Call) -> Result<Response, Problem> {
    let ledger = api.core.view().hooks.clone();
    let answer = DeadLetters {
        dead_letters: ledger.dead_letters.iter().map(|letter| &**letter).collect(),
        dead_lettered_count: ledger.dead_lettered_count,
        dropped_unresolved_count: ledger.dropped_unresolved_count,
    };
    Ok(Response::json(200, &answer))
}

/// Body of `POST /v1/runtime/hooks/dead-letter/{id}/resolve`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolveBody {
    reason: Option<String>,
}

/// `POST /v1/runtime/hooks/dead-letter/{id}/resolve`: once settled it stays so, with the first reason.
pub fn resolve(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: ResolveBody = call.json_or_default()?;
    let reason = body.reason.unwrap_or_else(|| "operator resolved".to_string());
    let command = HookCommand::Resolve { id: call.param("id")?.into_owned(), reason: crate::redaction::text(&reason) };
    match api.core.request(Command::Hook(command), Some(call.actor()))? {
        Decision::HookDeadLetter { letter, .. } => Ok(Response::json(200, &*letter)),
        other => Err(Problem::new(&codes::INTERNAL_ERROR, format!("unexpected decision {other:?}"))),
    }
}

/// `hooks` of the status.
pub fn figures(api: &Api) -> HooksStatus {
    let figures = api.hooks.figures();
    let (last, unresolved) = (figures.last, figures.last_unresolved);
    HooksStatus {
        supported: true,
        configured_count: figures.configured,
        invalid_count: figures.invalid,
        dead_lettered_count: figures.dead_lettered,
        unresolved_dead_lettered_count: figures.unresolved,
        execution_count: figures.executions,
        failure_count: figures.failures,
        retry_count: figures.retries,
        dead_letter_persist_failure_count: figures.persist_failures,
        last_dead_letter_at_ms: last.as_ref().map(|last| last.0),
        last_dead_letter_hook: last.map(|last| last.1),
        last_unresolved_dead_letter_at_ms: unresolved.as_ref().map(|last| last.0),
        last_unresolved_dead_letter_hook: unresolved.map(|last| last.1),
        dead_letter_store_path: Some("journal".to_string()),
        dead_letter_read_error: None,
        held: figures.held,
        lag_records: figures.lag_records,
        diagnostics: figures.diagnostics,
        http_targets: figures.targets,
    }
}
