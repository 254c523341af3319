//! Acts that change something outside the journal, with their record before and after.
//! Owns: the order of the two records around an act, and how long an act waits for the first.
//! May touch: the core and the audit file, to record.
//! Never: lets an act begin whose intent is not on disk.

use std::time::Duration;

use super::context::Api;
use crate::actor::Actor;
use crate::audit::control_plane::AuditLine;
use crate::core::{Command, ControlIntent, ControlOutcome, ControlResult, Decision};
use crate::http::problem::{Code, Problem, codes};
use crate::ids::Seq;
use crate::limits::{CONTROL_FILE_WAIT_MS, CONTROL_JOURNAL_WAIT_MS, CONTROL_TARGET_BYTES_MAX};

/// An act as its records name it.
#[derive(Debug, Clone, Copy)]
pub struct Act<'a> {
    /// What is done: `secret.put`, `secret.delete`, `lease.revoke`, …
    pub verb: &'static str,
    /// What to: the slot, lease or subject; shortened to [`CONTROL_TARGET_BYTES_MAX`].
    pub target: &'a str,
    /// Whether it only takes rights away: such an act may use the reserve of a full disk.
    pub containment: bool,
}

/// Where an act's intent stands.
enum Intent {
    /// In the journal, at this position.
    Journal(Seq),
    /// In the audit file alone, since the journal takes nothing at the moment.
    AuditFile,
}

impl Api {
    /// Does `act` with the caller on record: its intent is durable before `change` runs, its result is written after it.
    /// The journal takes both; where it cannot, the audit file does.
    ///
    /// # Errors
    /// That of `change`; or 503 within [`CONTROL_JOURNAL_WAIT_MS`] and [`CONTROL_FILE_WAIT_MS`] when neither takes the
    /// intent, and then nothing was done.
    pub fn witnessed<T>(
        &self,
        by: &Actor,
        act: Act<'_>,
        change: impl FnOnce() -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let intent = self.record_intent(by, act)?;
        let changed = change();
        let (outcome, code) = match &changed {
            Ok(_) => (ControlOutcome::Done, None),
            Err(problem) => (outcome_of(problem.code), Some(problem.code.code.to_string())),
        };
        match intent {
            Intent::AuditFile => {
                self.facts
                    .audit
                    .record(AuditLine { outcome: Some(outcome.as_str().to_string()), ..self.line(by, act) });
            }
            Intent::Journal(intent) => {
                let result = ControlResult { intent, outcome, code };
                let command = Command::ControlResult { result, containment: act.containment };
                if let Err(error) = self.core.request_within(command, Some(by.clone()), JOURNAL_WAIT) {
                    // The act has taken place, or has not; refusing now would say the wrong thing. The intent stands
                    // without a result, which is how an auditor sees it.
                    log::error!("{} {}: its result could not be recorded: {error}", act.verb, act.target);
                }
            }
        }
        changed
    }

    fn record_intent(&self, by: &Actor, act: Act<'_>) -> Result<Intent, Problem> {
        let intent = ControlIntent { act: act.verb.to_string(), target: shortened(act.target) };
        let command = Command::ControlIntent { intent, containment: act.containment };
        let error = match self.core.request_within(command, Some(by.clone()), JOURNAL_WAIT) {
            Ok(Decision::Recorded { last_seq }) => return Ok(Intent::Journal(last_seq)),
            Ok(other) => return Err(Problem::new(&codes::INTERNAL_ERROR, format!("unexpected decision {other:?}"))),
            Err(error) => error,
        };
        let line = AuditLine { outcome: Some("intended".to_string()), ..self.line(by, act) };
        match self.facts.audit.record_durably(line, FILE_WAIT) {
            Ok(()) => {
                log::warn!("{} {}: on record in the audit file alone: {error}", act.verb, act.target);
                Ok(Intent::AuditFile)
            }
            Err(_) => {
                let detail = format!("the act cannot be put on record, so it was not begun: {error}");
                Err(Problem::new(&codes::AUDIT_UNAVAILABLE, detail).header("retry-after", "1"))
            }
        }
    }

    fn line(&self, by: &Actor, act: Act<'_>) -> AuditLine {
        AuditLine {
            act: Some(act.verb.to_string()),
            target: Some(shortened(act.target)),
            ..AuditLine::of_caller(self.clock.now_ms(), by)
        }
    }
}

const JOURNAL_WAIT: Duration = Duration::from_millis(CONTROL_JOURNAL_WAIT_MS);
const FILE_WAIT: Duration = Duration::from_millis(CONTROL_FILE_WAIT_MS);

/// A problem of the store or the broker says that the change was not made, but for an answer that did not come.
fn outcome_of(code: &Code) -> ControlOutcome {
    if code.status >= 500 { ControlOutcome::Unknown } else { ControlOutcome::Refused }
}

fn shortened(text: &str) -> String {
    let end = (0..=text.len().min(CONTROL_TARGET_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or(0)].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_target_is_cut_between_characters() {
        assert_eq!(shortened("openai.prod"), "openai.prod");
        let long = format!("{}ö", "x".repeat(CONTROL_TARGET_BYTES_MAX - 1));
        assert_eq!(shortened(&long), "x".repeat(CONTROL_TARGET_BYTES_MAX - 1));
    }
}
