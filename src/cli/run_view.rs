//! A run's view, as far as the command line reads it.
//! Owns: which statuses are final.
//! Never: is printed; the daemon's own document is.

use serde::Deserialize;
use serde_json::Value;

use super::exit::CliError;

/// The fields that decide.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RunView {
    /// The run.
    pub run_id: String,
    /// Its status.
    pub status: String,
    #[serde(default)]
    error: Option<Value>,
    #[serde(default)]
    outputs: Vec<OutputView>,
}

/// One output of a run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct OutputView {
    /// The run it belongs to.
    #[serde(default)]
    pub run_id: String,
    /// Its text.
    #[serde(default)]
    pub content: String,
}

impl RunView {
    /// Whether the run has ended.
    pub fn is_final(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "failed" | "interrupted" | "cancelled")
    }

    /// Whether the run waits for an approval or an answer.
    pub fn waits_for_people(&self) -> bool {
        self.status.starts_with("waiting_for_")
    }

    /// The run's texts, in order.
    pub fn outputs(&self) -> &[OutputView] {
        &self.outputs
    }

    /// The error as one line, when there is one.
    pub fn error_text(&self) -> Option<String> {
        match self.error.as_ref()? {
            Value::String(text) => Some(text.clone()),
            Value::Object(error) => {
                let field = |name: &str| error.get(name).and_then(Value::as_str);
                match (field("code"), field("message")) {
                    (Some(code), Some(message)) => Some(format!("{code}: {message}")),
                    (Some(text), None) | (None, Some(text)) => Some(text.to_string()),
                    (None, None) => Some(Value::Object(error.clone()).to_string()),
                }
            }
            Value::Null => None,
            other => Some(other.to_string()),
        }
    }

    /// An error unless the run completed.
    ///
    /// # Errors
    /// [`CliError::RunNotCompleted`].
    pub fn require_completed(&self) -> Result<(), CliError> {
        if self.status == "completed" {
            return Ok(());
        }
        Err(CliError::RunNotCompleted {
            run_id: self.run_id.clone(),
            status: self.status.clone(),
            error: self.error_text(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_completed_run_is_a_success() {
        let table = [
            (r#"{"run_id":"run-1","status":"completed"}"#, true, None),
            (
                r#"{"run_id":"run-1","status":"failed","error":{"code":"provider_auth","message":"401"}}"#,
                true,
                Some("run-1 ended failed: provider_auth: 401; next: `kheish-daemon runs events run-1`"),
            ),
            (
                r#"{"run_id":"run-1","status":"cancelled","error":null}"#,
                true,
                Some("run-1 ended cancelled; next: `kheish-daemon runs events run-1`"),
            ),
            (
                r#"{"run_id":"run-1","status":"waiting_for_approval","error":"x"}"#,
                false,
                Some("run-1 ended waiting_for_approval: x; next: `kheish-daemon runs events run-1`"),
            ),
        ];
        for (json, is_final, error) in table {
            let view: RunView = serde_json::from_str(json).expect("a view");
            assert_eq!(view.is_final(), is_final, "{json}");
            assert_eq!(view.require_completed().err().map(|error| error.to_string()).as_deref(), error);
        }
    }
}
