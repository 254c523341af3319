//! A run as the core keeps it: fixed size, whatever its input and output weigh.
//! Owns: the run's states, their legal transitions, and the table of all runs.
//! Never: holds text; inputs and outputs stay in the journal and are found by `first_seq` and `last_seq`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::Seq;

/// Where a run is in its life. The wire names are the snake-case forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum RunStatus {
    /// Accepted, behind other runs of its session or held.
    Queued,
    /// The session's active run.
    Running,
    /// Suspended until an operator allows or denies a tool call.
    WaitingForApproval,
    /// Suspended until a person answers.
    WaitingForUserQuestion,
    /// Ended with a result.
    Completed,
    /// Ended with an error.
    Failed,
    /// Ended by a broader stop: the session was interrupted or ended.
    Interrupted,
    /// Ended by a deliberate stop of this run.
    Cancelled,
}

impl RunStatus {
    /// Every status, in wire order.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Running,
        Self::WaitingForApproval,
        Self::WaitingForUserQuestion,
        Self::Completed,
        Self::Failed,
        Self::Interrupted,
        Self::Cancelled,
    ];

    /// The name on the wire and in the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::WaitingForApproval => "waiting_for_approval",
            Self::WaitingForUserQuestion => "waiting_for_user_question",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing can follow.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Interrupted | Self::Cancelled)
    }

    /// Whether the run holds its session's one active place.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Running | Self::WaitingForApproval | Self::WaitingForUserQuestion)
    }

    /// The one table of legal moves. Staying is not a move.
    pub fn may_become(self, next: Self) -> bool {
        use RunStatus::{
            Cancelled, Completed, Failed, Interrupted, Queued, Running, WaitingForApproval, WaitingForUserQuestion,
        };
        match self {
            Queued => matches!(next, Running | Failed | Cancelled),
            Running => matches!(
                next,
                WaitingForApproval | WaitingForUserQuestion | Completed | Failed | Interrupted | Cancelled
            ),
            WaitingForApproval => matches!(next, Running | Failed | Interrupted | Cancelled),
            WaitingForUserQuestion => matches!(next, Running | Completed | Failed | Interrupted | Cancelled),
            Completed | Failed | Interrupted | Cancelled => false,
        }
    }
}

/// One run: 96 bytes. A finished run costs this, plus its idempotency entry, for as long as it is retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Number of the owning session.
    pub session: u32,
    /// Current state.
    pub status: RunStatus,
    /// A model call was requested and no outcome is recorded.
    pub action_in_flight: bool,
    /// Neighbours in the session's queue; 0 is none.
    pub queue_prev: u32,
    /// See `queue_prev`.
    pub queue_next: u32,
    /// Runs accepted before and after this one in the same session; 0 is none.
    pub session_prev: u32,
    /// See `session_prev`.
    pub session_next: u32,
    /// When the run was accepted, Unix milliseconds.
    pub submitted_at_ms: u64,
    /// When the run first became active; 0 if it never did.
    pub started_at_ms: u64,
    /// Time of the run's last record.
    pub updated_at_ms: u64,
    /// The `run.accepted` record.
    pub first_seq: Seq,
    /// The run's last record.
    pub last_seq: Seq,
    /// Hash of session id and idempotency key; all zero when none was given.
    pub key: [u8; 16],
    /// Hash of the request that came with the key.
    pub fingerprint: [u8; 16],
}

const CHUNK_RUNS: usize = 4_096;

/// All runs by number, from 1. Chunks are shared with a snapshot being written and copied only when a run in
/// them changes meanwhile, so freezing a million runs costs a few hundred reference counts.
#[derive(Debug, Clone, Default)]
pub struct RunTable {
    chunks: Vec<Arc<Vec<Run>>>,
}

impl RunTable {
    /// Number of runs ever accepted (and the highest run number).
    pub fn len(&self) -> u32 {
        match self.chunks.split_last() {
            None => 0,
            Some((last, full)) => (full.len() * CHUNK_RUNS + last.len()) as u32,
        }
    }

    /// Whether no run was accepted yet.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The run with this number.
    pub fn get(&self, number: u32) -> Option<&Run> {
        let index = number.checked_sub(1)? as usize;
        self.chunks.get(index / CHUNK_RUNS)?.get(index % CHUNK_RUNS)
    }

    /// Replaces an existing run, or adds the next one.
    ///
    /// # Panics
    /// `number` is neither known nor the next one: the caller broke the numbering.
    pub fn put(&mut self, number: u32, run: Run) {
        let index = (number as usize).checked_sub(1).expect("run numbers start at 1");
        let length = self.len() as usize;
        assert!(index <= length, "run {number} leaves a hole behind {length}");
        if index == length && length.is_multiple_of(CHUNK_RUNS) {
            self.chunks.push(Arc::new(Vec::with_capacity(CHUNK_RUNS)));
        }
        let chunk = Arc::make_mut(&mut self.chunks[index / CHUNK_RUNS]);
        match chunk.get_mut(index % CHUNK_RUNS) {
            Some(slot) => *slot = run,
            None => {
                // A chunk copied on write has no spare room; growing it once to full size keeps a finished
                // run at its own size instead of doubling.
                chunk.reserve_exact(CHUNK_RUNS - chunk.len());
                chunk.push(run);
            }
        }
    }

    /// Runs with their numbers, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u32, &Run)> {
        self.chunks.iter().enumerate().flat_map(|(chunk_index, chunk)| {
            chunk.iter().enumerate().map(move |(index, run)| ((chunk_index * CHUNK_RUNS + index + 1) as u32, run))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_run_never_moves_and_a_queued_one_never_waits() {
        for from in RunStatus::ALL {
            for to in RunStatus::ALL {
                if from.is_terminal() || from == to {
                    assert!(!from.may_become(to), "{from:?} -> {to:?}");
                }
            }
        }
        assert!(!RunStatus::Queued.may_become(RunStatus::WaitingForApproval));
        assert!(!RunStatus::Queued.may_become(RunStatus::Interrupted));
        assert!(!RunStatus::WaitingForApproval.may_become(RunStatus::Completed));
    }

    #[test]
    fn a_finished_run_stays_within_its_memory_budget() {
        // 200 bytes a run are promised with its idempotency entry: 21 bytes in a table that is at worst
        // half full right after it grew.
        let idempotency_entry_bytes = 2 * (16 + 4 + 1);
        assert!(std::mem::size_of::<Run>() + idempotency_entry_bytes <= 200);
    }

    #[test]
    fn a_frozen_table_does_not_see_later_changes() {
        let run = Run {
            session: 1,
            status: RunStatus::Queued,
            action_in_flight: false,
            queue_prev: 0,
            queue_next: 0,
            session_prev: 0,
            session_next: 0,
            submitted_at_ms: 1,
            started_at_ms: 0,
            updated_at_ms: 1,
            first_seq: 1,
            last_seq: 1,
            key: [0; 16],
            fingerprint: [0; 16],
        };
        let mut table = RunTable::default();
        for number in 1..=(CHUNK_RUNS as u32 + 2) {
            table.put(number, run);
        }
        let frozen = table.clone();
        table.put(1, Run { status: RunStatus::Cancelled, ..run });
        table.put(CHUNK_RUNS as u32 + 3, run);
        assert_eq!(frozen.get(1).map(|run| run.status), Some(RunStatus::Queued));
        assert_eq!((frozen.len(), table.len()), (CHUNK_RUNS as u32 + 2, CHUNK_RUNS as u32 + 3));
        assert_eq!(table.iter().map(|(number, _)| number).next_back(), Some(CHUNK_RUNS as u32 + 3));
    }
}
