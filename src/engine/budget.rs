//! What one run may use: answers, tokens, time.
//! Owns: the budget of a submission, its ceilings, and the codes of a run that has used it up.
//! Never: reads a clock; times are handed in.

use serde::{Deserialize, Serialize};

use crate::core::Failure;
use crate::limits::RUN_TURNS_MAX;

/// A run's budget. What is absent is not limited, but for the turns, which end at [`RUN_TURNS_MAX`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Answers of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_turns: Option<u32>,
    /// Milliseconds since the run became active, waiting included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration_ms: Option<u64>,
    /// Output tokens of all answers together, as the provider counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_total_output_tokens: Option<u64>,
}

/// What a run has used.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used {
    pub turns: u32,
    pub output_tokens: u64,
    pub duration_ms: u64,
}

impl Budget {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Milliseconds that are left.
    pub(super) fn remaining_ms(&self, used_ms: u64) -> Option<u64> {
        self.max_duration_ms.map(|max| max.saturating_sub(used_ms))
    }

    /// Why no further answer may be asked for, if so.
    pub(super) fn exceeded(&self, used: Used) -> Option<Failure> {
        let turns = self.max_turns.unwrap_or(RUN_TURNS_MAX).min(RUN_TURNS_MAX);
        let (code, message) = if used.turns >= turns {
            ("run_turns_exceeded", format!("the model was asked {turns} times, which is the run's limit"))
        } else if self.max_total_output_tokens.is_some_and(|max| used.output_tokens >= max) {
            ("run_tokens_exceeded", format!("{} output tokens were used, which is the run's limit", used.output_tokens))
        } else if self.max_duration_ms.is_some_and(|max| used.duration_ms >= max) {
            ("run_time_exceeded", format!("{} ms have passed, which is the run's limit", used.duration_ms))
        } else {
            return None;
        };
        let message = format!("{message}; next: submit what is left as another run, or with a larger budget");
        Some(Failure { code: code.to_string(), message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_met_exactly_and_named() {
        let budget = Budget { max_turns: Some(3), max_duration_ms: Some(1_000), max_total_output_tokens: Some(50) };
        let code = |turns, output_tokens, duration_ms| {
            budget.exceeded(Used { turns, output_tokens, duration_ms }).map(|failure| failure.code)
        };
        assert_eq!(code(2, 49, 999), None);
        assert_eq!(code(3, 0, 0).as_deref(), Some("run_turns_exceeded"));
        assert_eq!(code(0, 50, 0).as_deref(), Some("run_tokens_exceeded"));
        assert_eq!(code(0, 0, 1_000).as_deref(), Some("run_time_exceeded"));
        let generous = Budget { max_turns: Some(u32::MAX), ..Budget::default() };
        let used = |turns| Used { turns, ..Used::default() };
        assert_eq!(generous.exceeded(used(RUN_TURNS_MAX)).map(|f| f.code).as_deref(), Some("run_turns_exceeded"));
        assert_eq!(Budget::default().exceeded(used(RUN_TURNS_MAX - 1)), None);
    }
}
