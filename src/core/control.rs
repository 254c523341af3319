//! Acts that change something outside the journal: what was meant before, and what came of it after.
//! Owns: the bodies of `control.intent` and `control.result`.
//! Never: holds a secret or a request's body; an act is named by its verb and its target.

use serde::{Deserialize, Serialize};

use crate::ids::Seq;

/// Body of `control.intent`: durable before the act begins. Without a `control.result` that names it, whether the act
/// took place is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlIntent {
    /// What is about to be done, as `secret.put`.
    pub act: String,
    /// What to: a slot, a lease, a subject.
    pub target: String,
}

/// Body of `control.result`: written after the act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlResult {
    /// Position of the `control.intent`.
    pub intent: Seq,
    /// What became of it.
    pub outcome: ControlOutcome,
    /// Stable code of the refusal or failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// What became of an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlOutcome {
    /// It took place.
    Done,
    /// It was refused or failed, and nothing changed.
    Refused,
    /// It may have taken place: nobody answered in time.
    Unknown,
}

impl ControlOutcome {
    /// The name in records and audit lines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}
