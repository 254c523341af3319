//! Models that repeat a call that cannot work.
//! Owns: counting identical calls that failed one after the other, over all turns of a run.
//! Never: judges calls that differ, or one that has succeeded since.

use std::collections::HashMap;

use serde_json::Value;

use crate::limits::{REPEATED_CALLS_KEPT_MAX, TOOL_REPEATS_FAIL, TOOL_REPEATS_WARN};
use crate::providers::{Message, ToolCall};

/// How often in a row each call has failed.
#[derive(Debug, Default)]
pub(super) struct Guard(HashMap<String, u32>);

/// What is to be done about a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Nothing.
    Fine,
    /// The model is told that it repeats itself.
    Warn(u32),
    /// The run ends.
    Stop(u32),
}

/// Equal for calls that ask for the same: keys in order, no blanks.
fn signature(tool: &str, arguments: &str) -> String {
    let canonical = serde_json::from_str::<Value>(arguments).map(|value| value.to_string());
    format!("{tool} {}", canonical.as_deref().unwrap_or(arguments))
}

impl Guard {
    /// The counts as a conversation has left them.
    pub(super) fn of(messages: &[Message]) -> Self {
        let mut guard = Self::default();
        for pair in messages.windows(2) {
            let [Message::Assistant { tool_calls, .. }, Message::ToolResults { results }] = pair else { continue };
            for (call, result) in tool_calls.iter().zip(results) {
                guard.observe(call, result.is_error);
            }
        }
        guard
    }

    /// Takes the result of a call.
    pub(super) fn observe(&mut self, call: &ToolCall, failed: bool) -> Repeat {
        let signature = signature(&call.name, &call.arguments);
        if !failed {
            self.0.remove(&signature);
            return Repeat::Fine;
        }
        if self.0.len() >= REPEATED_CALLS_KEPT_MAX && !self.0.contains_key(&signature) {
            self.0.clear();
        }
        let count = self.0.entry(signature).or_default();
        *count += 1;
        match *count {
            count if count >= TOOL_REPEATS_FAIL => Repeat::Stop(count),
            count if count >= TOOL_REPEATS_WARN => Repeat::Warn(count),
            _ => Repeat::Fine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(arguments: &str) -> ToolCall {
        ToolCall { call_id: "c".to_string(), name: "bash".to_string(), arguments: arguments.to_string() }
    }

    #[test]
    fn the_same_failing_call_is_warned_of_and_then_stopped_and_a_success_forgives() {
        let mut guard = Guard::default();
        let same = [r#"{"a":1,"b":2}"#, r#"{ "b": 2, "a": 1 }"#];
        let seen: Vec<Repeat> = (0..6).map(|n| guard.observe(&call(same[n % 2]), true)).collect();
        let expected = [Repeat::Fine, Repeat::Fine, Repeat::Warn(3), Repeat::Warn(4), Repeat::Warn(5), Repeat::Stop(6)];
        assert_eq!(seen, expected);
        assert_eq!(guard.observe(&call(same[0]), false), Repeat::Fine);
        assert_eq!(guard.observe(&call(same[0]), true), Repeat::Fine, "counted from 1 again");
        assert_eq!(guard.observe(&call("{}"), true), Repeat::Fine, "another call");
        assert_eq!(guard.observe(&call("no json"), true), Repeat::Fine);
    }

    #[test]
    fn what_it_keeps_is_bounded() {
        let mut guard = Guard::default();
        for n in 0..10 * REPEATED_CALLS_KEPT_MAX {
            guard.observe(&call(&format!("{{\"n\":{n}}}")), true);
        }
        assert!(guard.0.len() <= REPEATED_CALLS_KEPT_MAX);
    }
}
