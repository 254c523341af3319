//! The tool that asks people: from its arguments to a question, and from an answer to a result.
//! Owns: the checks that the schema cannot say, and the result's wording.
//! Never: waits; the run is suspended.

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::toolbox::RoomQuestion;
use crate::core::{CallOutcome, QuestionAsked, QuestionResolved, UserQuestion};
use crate::tools::{ToolDef, ToolOutput};

/// Name of the tool that asks people.
pub(super) const TOOL: &str = "ask_user_question";
/// Name of the tool by which a child agent asks the one that made it.
pub(super) const TO_PARENT: &str = "request_parent_clarification";

/// Whether a call of this tool asks.
pub(super) fn asks(def: &ToolDef) -> bool {
    def.name == TOOL || def.name == TO_PARENT
}

#[derive(Deserialize)]
struct Input {
    questions: Vec<UserQuestion>,
    #[serde(default)]
    expires_after_ms: Option<u64>,
}

/// The question that a call asks.
///
/// # Errors
/// Text for the model.
pub(super) fn asked(
    id: String,
    call: &str,
    def: &ToolDef,
    input: &RawValue,
    now_ms: u64,
) -> Result<QuestionAsked, String> {
    let input: Input =
        serde_json::from_str(input.get()).map_err(|error| format!("arguments: {error}; next: follow the schema"))?;
    let repeated = |ids: Vec<&str>| ids.iter().enumerate().find(|(at, id)| ids[..*at].contains(id)).is_some();
    if repeated(input.questions.iter().map(|question| question.id.as_str()).collect()) {
        return Err("two questions have the same id; next: give each its own".to_string());
    }
    if input.questions.iter().any(|question| repeated(question.options.iter().map(|o| o.id.as_str()).collect())) {
        return Err("two options of a question have the same id; next: give each its own".to_string());
    }
    let expires_at_ms = input.expires_after_ms.map(|after_ms| now_ms.saturating_add(after_ms));
    Ok(QuestionAsked {
        id,
        call: call.to_string(),
        questions: input.questions,
        expires_at_ms,
        to_parent: def.name == TO_PARENT,
        server: None,
    })
}

/// The question that a call under way has people asked on behalf of a server.
pub(super) fn of_server(id: String, call: &str, asks: RoomQuestion, now_ms: u64) -> QuestionAsked {
    QuestionAsked {
        id,
        call: call.to_string(),
        questions: asks.questions,
        expires_at_ms: Some(now_ms.saturating_add(asks.expires_after_ms)),
        to_parent: false,
        server: Some(asks.server),
    }
}

/// What the model is told of an answer.
pub(super) fn told(resolved: &QuestionResolved) -> (CallOutcome, ToolOutput) {
    let content = if resolved.declined {
        json!({"declined": true, "justification": resolved.justification, "reason": resolved.reason})
    } else {
        json!({"answers": resolved.answers, "justification": resolved.justification})
    };
    let output = ToolOutput { content: content.to_string(), is_error: false, truncated: false, overflow: None };
    (CallOutcome::Ok, output)
}
