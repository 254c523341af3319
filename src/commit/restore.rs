//! Folding the journal at start.
//! Owns: the bridge from journal records to core events.
//! Never: repairs; a record that does not fit ends the start.

use crate::core::{Body, Event, State};
use crate::journal::{RecordRef, Restore};

/// State under reconstruction.
#[derive(Default)]
pub struct Restored {
    /// The fold so far.
    pub state: State,
    /// Records folded since the snapshot, if there was one.
    pub records: u64,
}

impl Restore for Restored {
    fn reset(&mut self) {
        *self = Self::default();
    }

    fn snapshot_line(&mut self, line: &[u8]) -> Result<(), String> {
        self.state.restore_line(line).map_err(|error| error.to_string())
    }

    fn record(&mut self, record: &RecordRef<'_>) -> Result<(), String> {
        let event = Event {
            seq: record.seq,
            at_ms: record.at_ms,
            session: record.session.clone(),
            run: record.run,
            session_prev: record.session_prev,
            run_prev: record.run_prev,
            run_first: record.run_first,
            by: record.by.clone(),
            body: Body::decode(record.kind, record.body).map_err(|error| error.to_string())?,
        };
        self.records += 1;
        self.state.replay(&event)
    }
}
