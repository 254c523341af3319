//! From journal records to lines of the acts' book.
//! Owns: which records stand for an act, and what a line says of one.
//! Never: decides that an act took place; the journal has.

use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

use super::line::AuditLine;
use crate::actor::Actor;
use crate::core::{Body, Event};
use crate::ids::{RunId, Seq, SessionId};
use crate::journal::Record;

/// Picks the records that stand for an act, and passes over what merely follows from one.
#[derive(Debug, Default)]
pub(super) struct Picker(Mutex<Option<Last>>);

/// The newest record of a caller, and the act that it belongs to.
#[derive(Debug, Clone)]
pub(super) struct Last {
    pub(super) seq: Seq,
    pub(super) request: String,
    pub(super) act: String,
}

/// A record of an act.
struct Act<'a> {
    seq: Seq,
    at_ms: u64,
    kind: &'a str,
    session: Option<&'a SessionId>,
    run: Option<RunId>,
    by: &'a Actor,
}

/// What the records of an act outside the journal say.
#[derive(Deserialize)]
struct Control {
    #[serde(default)]
    act: Option<String>,
    #[serde(default)]
    target: Option<String>,
    #[serde(default)]
    outcome: Option<String>,
}

impl Picker {
    /// One that goes on behind this line.
    pub(super) fn after(last: Option<Last>) -> Self {
        Self(Mutex::new(last))
    }

    /// The line for a record that was just committed, if it stands for an act.
    pub(super) fn of_event(&self, event: &Event) -> Option<AuditLine> {
        let by = event.by.as_ref()?;
        let (seq, at_ms, kind) = (event.seq, event.at_ms, event.body.kind());
        let act = Act { seq, at_ms, kind, session: event.session.as_ref(), run: event.run, by };
        self.line(&act, || match &event.body {
            Body::ControlIntent(_) | Body::ControlResult(_) => serde_json::from_slice(&event.body.encode()).ok(),
            _ => None,
        })
    }

    /// As [`Picker::of_event`], for a record that is read back.
    pub(super) fn of_record(&self, record: &Record) -> Option<AuditLine> {
        let by = record.by.as_ref()?;
        let (seq, at_ms, kind) = (record.seq, record.at_ms, record.kind.as_str());
        let act = Act { seq, at_ms, kind, session: record.session.as_ref(), run: record.run, by };
        self.line(&act, || match kind {
            "control.intent" | "control.result" => serde_json::from_str(record.body.get()).ok(),
            _ => None,
        })
    }

    fn line(&self, act: &Act<'_>, control: impl FnOnce() -> Option<Control>) -> Option<AuditLine> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One command's records stand side by side.
        let before = last.take().filter(|last| last.seq + 1 == act.seq && last.request == act.by.request_id());
        let follows = match &before {
            Some(before) => follows_from(&before.act, act.kind),
            None => false,
        };
        let head = match before {
            Some(before) if follows || is_silent(act.kind) => before.act,
            _ => act.kind.to_string(),
        };
        *last = Some(Last { seq: act.seq, request: act.by.request_id().to_string(), act: head });
        if follows || is_silent(act.kind) {
            return None;
        }
        let control = control().unwrap_or(Control { act: None, target: None, outcome: None });
        Some(AuditLine {
            act: Some(control.act.unwrap_or_else(|| act.kind.to_string())),
            target: control.target,
            outcome: control.outcome,
            session_id: act.session.map(|session| session.as_str().to_string()),
            run_id: act.run.map(|run| run.to_string()),
            journal_seq: Some(act.seq),
            ..AuditLine::of_caller(act.at_ms, act.by)
        })
    }
}

/// The journal names who submitted a run, and a line for each would be most of the book and tell nothing more. An
/// action's outcome is no act of a caller.
fn is_silent(kind: &str) -> bool {
    matches!(kind, "run.accepted" | "run.started" | "run.continued") || kind.starts_with("external_action.")
}

/// Whether a record is what `act` brings about.
fn follows_from(act: &str, kind: &str) -> bool {
    match act {
        "session.ended" => matches!(kind, "run.cancelled" | "run.interrupted"),
        "session.interrupted" => kind == "run.interrupted",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(records: &[(Seq, &str, &str)]) -> Vec<(Seq, String)> {
        let picker = Picker::default();
        let record = |(seq, kind, request): &(Seq, &str, &str)| Record {
            seq: *seq,
            at_ms: 1,
            kind: kind.to_string(),
            session: None,
            run: None,
            session_prev: 0,
            run_prev: 0,
            run_first: 0,
            by: Some(Actor::new(crate::actor::ActorRole::Admin, None, None, request)),
            body: serde_json::value::RawValue::from_string("{\"act\":\"secret.put\"}".to_string()).unwrap(),
            batch: None,
        };
        let lines = records.iter().filter_map(|given| picker.of_record(&record(given)));
        lines.map(|line| (line.journal_seq.unwrap(), line.act.unwrap())).collect()
    }

    #[test]
    fn one_act_has_one_line_and_no_act_hides_behind_another_ones_request_id() {
        let told = lines(&[
            (1, "session.created", "r"),
            (2, "run.accepted", "r"),
            (3, "run.started", "r"),
            (5, "session.ended", "r"),
            (6, "external_action.response", "r"),
            (7, "run.cancelled", "r"),
            (8, "run.interrupted", "r"),
            (9, "external_action.response", "r"),
            (10, "run.cancelled", "other"),
            (11, "run.started", "other"),
            (12, "run.cancelled", "other"),
            (13, "hold.changed", "other"),
            (14, "hold.changed", "other"),
            (15, "control.intent", "other"),
            (20, "session.interrupted", "x"),
            (22, "run.interrupted", "x"),
        ]);
        let expected = [
            (1, "session.created"),
            (5, "session.ended"),
            (10, "run.cancelled"),
            (12, "run.cancelled"),
            (13, "hold.changed"),
            (14, "hold.changed"),
            (15, "secret.put"),
            (20, "session.interrupted"),
            (22, "run.interrupted"),
        ];
        assert_eq!(told, expected.map(|(seq, act)| (seq, act.to_string())));
    }
}
