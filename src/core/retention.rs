//! Retention holds: runs whose evidence nobody and nothing removes.
//! Owns: the holds, their records and their bound.
//! Never: removes anything; whoever removes evidence asks here first.

use serde::{Deserialize, Serialize};

use super::command::{Decision, Refusal};
use super::event::Body;
use super::txn::Txn;
use crate::ids::RunId;
use crate::limits::RETENTION_HOLDS_MAX;

/// A hold on one run's evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionHold {
    /// Since when, Unix milliseconds.
    pub since_ms: u64,
    /// Operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Body of `retention.changed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionChanged {
    /// The run. The record is none of the run's own, since those end with it.
    pub run_id: String,
    /// Whether its evidence is held from here on.
    pub held: bool,
    /// Operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Txn<'_> {
    pub(super) fn set_retention_hold(
        &mut self,
        run: RunId,
        held: bool,
        reason: Option<String>,
    ) -> Result<Decision, Refusal> {
        let number = self.run_number(run).ok_or(Refusal::RunNotFound(run))?;
        let before = self.retention_hold(number);
        if before.is_some() == held {
            return Ok(Decision::RetentionHold { held, changed: false });
        }
        if held && self.retention_hold_count() >= RETENTION_HOLDS_MAX {
            return Err(Refusal::RetentionHoldLimit);
        }
        self.emit_global(None, Body::RetentionChanged(RetentionChanged { run_id: run.to_string(), held, reason }));
        Ok(Decision::RetentionHold { held, changed: true })
    }

    pub(super) fn apply_retention_changed(&mut self, changed: &RetentionChanged, at_ms: u64) -> Result<(), String> {
        let run = RunId::parse(&changed.run_id).and_then(|run| self.run_number(run));
        let number = run.ok_or_else(|| format!("a retention hold names unknown run {:?}", changed.run_id))?;
        let hold = changed.held.then(|| RetentionHold { since_ms: at_ms, reason: changed.reason.clone() });
        self.stage_retention_hold(number, hold);
        Ok(())
    }
}
