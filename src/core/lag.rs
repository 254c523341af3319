//! How long runs have waited: indexes beside those of the state, for status and its alarms.
//! Owns: the heads of queues behind an active run, running runs by their last record, and the idle times of all
//! that have not ended, by the minute.
//! Never: is written anywhere; it is rebuilt from sessions and runs.

use std::collections::{BTreeMap, BTreeSet};

use super::run::{Run, RunStatus};
use super::session::Session;
use crate::ids::RunId;
use crate::limits::{IDLE_MINUTES_KEPT_MAX, IDLEST_RUNS_SHOWN};

const MINUTE_MS: u64 = 60_000;

/// A queued run and what keeps it waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuedBehind {
    /// The queued run.
    pub run: RunId,
    /// When it was submitted.
    pub submitted_at_ms: u64,
    /// The active run of its session.
    pub active: RunId,
    /// What that one is doing.
    pub active_status: RunStatus,
}

/// The idlest runs that have not ended, with the times of their last records.
pub type Idlest = [Option<(RunId, u64)>; IDLEST_RUNS_SHOWN];

/// The indexes.
#[derive(Debug, Default)]
pub(super) struct Lag {
    /// First queued runs of sessions that have an active one. Numbers ascend with the time of submission.
    behind: BTreeSet<u32>,
    /// Running runs by the time of their last record.
    running: BTreeSet<(u64, u32)>,
    /// Runs that have not ended by the minute of their last record.
    minutes: BTreeMap<u64, u32>,
}

fn head_behind_active(session: &Session) -> Option<u32> {
    (session.active != 0 && session.queue_head != 0).then_some(session.queue_head)
}

impl Lag {
    pub(super) fn put_session(&mut self, before: Option<&Session>, after: &Session) {
        if let Some(head) = before.and_then(head_behind_active) {
            self.behind.remove(&head);
        }
        self.behind.extend(head_behind_active(after));
    }

    pub(super) fn put_run(&mut self, number: u32, before: Option<Run>, after: Run) {
        if let Some(before) = before.filter(|run| !run.status.is_terminal()) {
            self.running.remove(&(before.updated_at_ms, number));
            let minute = before.updated_at_ms / MINUTE_MS;
            let count = self.minutes.get_mut(&minute).expect("each open run is counted in its minute");
            *count -= 1;
            if *count == 0 {
                self.minutes.remove(&minute);
            }
        }
        if after.status.is_terminal() {
            return;
        }
        *self.minutes.entry(after.updated_at_ms / MINUTE_MS).or_default() += 1;
        if after.status == RunStatus::Running {
            self.running.insert((after.updated_at_ms, number));
        }
    }

    /// The longest-queued run behind an active one.
    pub(super) fn oldest_behind(&self) -> Option<u32> {
        self.behind.first().copied()
    }

    /// The running run without a record for the longest time, and the time of that record.
    pub(super) fn idlest_running(&self) -> Option<(u64, u32)> {
        self.running.first().copied()
    }

    /// Runs that have not ended by the minute of their last record, oldest first. Beyond
    /// [`IDLE_MINUTES_KEPT_MAX`] minutes the oldest are counted as one.
    pub(super) fn idle_minutes(&self) -> Vec<(u64, u64)> {
        let surplus = self.minutes.len().saturating_sub(IDLE_MINUTES_KEPT_MAX);
        let mut minutes = self.minutes.iter().map(|(minute, count)| (*minute, u64::from(*count)));
        let oldest = minutes.by_ref().take(surplus).reduce(|sum, (minute, count)| (minute, sum.1 + count));
        oldest.into_iter().chain(minutes).collect()
    }
}

/// How many of the runs in `minutes` have had no record since `before_ms`, to the minute: a run counts once its whole
/// minute has passed.
pub fn idle_before(minutes: &[(u64, u64)], before_ms: u64) -> u64 {
    let before = before_ms / MINUTE_MS;
    minutes.iter().take_while(|(minute, _)| *minute < before).map(|(_, count)| count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_runs_are_counted_by_whole_minutes() {
        let minutes = [(10, 2), (11, 1), (20, 5)];
        for (before_ms, expected) in [
            (0, 0),
            (10 * MINUTE_MS, 0),
            (11 * MINUTE_MS, 2),
            (12 * MINUTE_MS - 1, 2),
            (12 * MINUTE_MS, 3),
            (u64::MAX, 8),
        ] {
            assert_eq!(idle_before(&minutes, before_ms), expected, "{before_ms}");
        }
    }

    #[test]
    fn very_many_minutes_are_counted_whole() {
        let mut lag = Lag::default();
        let total = IDLE_MINUTES_KEPT_MAX as u64 + 500;
        lag.minutes = (0..total).map(|minute| (minute, 3)).collect();
        let minutes = lag.idle_minutes();
        assert!(minutes.len() <= IDLE_MINUTES_KEPT_MAX + 1);
        assert_eq!(idle_before(&minutes, u64::MAX), total * 3);
        assert_eq!(minutes.last(), Some(&(total - 1, 3)));
    }
}
