//! Replay: from a client's cursor to the tail, in bounded slices.
//! Owns: what a cursor means, when a gap must be told, and the order in which records are read for one client.
//! May touch: the log it is handed.
//! Never: renders, writes to a socket, or holds records beyond one slice.

use std::collections::VecDeque;

use super::Log;
use super::frame::{Gap, GapReason, Scope};
use super::log::LogError;
use crate::ids::Seq;
use crate::journal::Record;
use crate::limits::{SSE_CHAIN_RECORDS_MAX, SSE_SLICE_BYTES_MAX, SSE_SLICE_READS_MAX};

/// What a client has still to be shown from the log.
#[derive(Debug)]
pub(super) struct Backlog {
    stage: Stage,
    /// Next position to look at; everything before it was shown or is out of scope.
    position: Seq,
    /// Positions in scope, ascending, found along the chain and not shown yet.
    known: VecDeque<Seq>,
    /// Whether `known` is everything in scope from `position` up to `as_of`.
    is_complete: bool,
    /// The scope's newest record at `as_of`, when the caller knows it.
    last: Option<Seq>,
    as_of: Seq,
}

#[derive(Debug)]
enum Stage {
    /// The cursor has not been judged yet.
    Locate { cursor: Seq },
    /// Following the chain backwards; `at` is read next.
    Walk { at: Seq, cursor: Seq, gap: Option<Gap> },
    /// Reading forwards.
    Read,
}

/// One bounded step of a replay.
#[derive(Debug)]
pub(super) struct Slice {
    /// To be told before the records.
    pub gap: Option<Gap>,
    /// Ascending; only records that concern the scope.
    pub records: Vec<Record>,
    /// Where to settle when all records were shown.
    pub next: Seq,
}

impl Backlog {
    /// A stream that was opened when `as_of` was the tail. `last` is the scope's newest record at or before
    /// `as_of` (0: none), when the caller knows it.
    pub fn new(cursor: Option<Seq>, last: Option<Seq>, as_of: Seq) -> Self {
        let (stage, position) = match cursor {
            Some(cursor) => (Stage::Locate { cursor }, 0),
            None => (Stage::Read, as_of + 1),
        };
        Self { stage, position, known: VecDeque::new(), is_complete: false, last, as_of }
    }

    /// Whether nothing before `tail` is left to show.
    pub fn has_reached(&self, tail: Seq) -> bool {
        matches!(self.stage, Stage::Read) && self.known.is_empty() && self.position >= tail
    }

    /// Next position to look at.
    pub fn position(&self) -> Seq {
        self.position
    }

    /// Everything before `next` was shown or is out of scope.
    pub fn settle(&mut self, next: Seq) {
        self.position = self.position.max(next);
        while self.known.front().is_some_and(|known| *known < self.position) {
            self.known.pop_front();
        }
        if self.is_complete && self.known.is_empty() {
            self.is_complete = false;
            self.position = self.position.max(self.as_of + 1);
        }
    }

    /// Reads a little further. The caller shows the slice and settles, at its end or at the first record that
    /// it could not show.
    ///
    /// # Errors
    /// The log could not be read; the stream cannot go on exactly.
    pub fn step(&mut self, log: &dyn Log, scope: &Scope) -> Result<Slice, LogError> {
        match self.stage {
            Stage::Locate { cursor } => self.locate(cursor, log, scope),
            Stage::Walk { at, cursor, gap } => self.walk(at, cursor, gap, log, scope),
            Stage::Read => self.read(log, scope),
        }
    }

    fn only(&self, gap: Option<Gap>) -> Slice {
        Slice { gap, records: Vec::new(), next: self.position }
    }

    fn locate(&mut self, cursor: Seq, log: &dyn Log, scope: &Scope) -> Result<Slice, LogError> {
        let (position, gap) = judge(cursor, log)?;
        self.position = position;
        let is_scoped = scope.session().is_some() || scope.run().is_some();
        if let Some(last) = self.last.filter(|_| is_scoped && position <= self.as_of) {
            self.stage = Stage::Walk { at: last, cursor, gap };
            return Ok(self.only(None));
        }
        self.stage = Stage::Read;
        Ok(self.only(gap))
    }

    fn walk(
        &mut self,
        mut at: Seq,
        cursor: Seq,
        gap: Option<Gap>,
        log: &dyn Log,
        scope: &Scope,
    ) -> Result<Slice, LogError> {
        let floor = log.floor();
        for _ in 0..SSE_SLICE_READS_MAX {
            if at < self.position.max(floor) {
                self.stage = Stage::Read;
                self.is_complete = true;
                self.settle(floor);
                // The chain tells exactly whether anything in scope was lost between the cursor and the floor.
                let told = gap.filter(|gap| gap.reason != GapReason::ReplayWindow);
                let lost = cursor != 0 && at > cursor;
                return Ok(self.only(told.or_else(|| lost.then(|| retired(cursor, floor)))));
            }
            if self.known.len() == SSE_CHAIN_RECORDS_MAX {
                self.stage = Stage::Read;
                return Ok(self.only(gap));
            }
            let record = log.read(at)?;
            if !scope.concerns(record.session.as_ref(), record.run) {
                return Err(LogError::new(format!("record {at} is not part of the chain that led to it")));
            }
            let previous = if scope.run().is_some() { record.run_prev } else { record.session_prev };
            if previous >= at {
                return Err(LogError::new(format!("record {at} names {previous} as the one before it")));
            }
            self.known.push_front(at);
            at = previous;
        }
        self.stage = Stage::Walk { at, cursor, gap };
        Ok(self.only(None))
    }

    fn read(&mut self, log: &dyn Log, scope: &Scope) -> Result<Slice, LogError> {
        let gap = self.step_over_retired(log);
        if self.known.front().is_some_and(|next| self.is_complete || self.position == *next) {
            return self.read_known(gap, log);
        }
        if self.position > log.committed() {
            return Ok(self.only(gap));
        }
        let mut records = log.scan(self.position, SSE_SLICE_BYTES_MAX)?;
        let Some(newest) = records.last().map(|record| record.seq) else {
            return Err(LogError::new(format!("no record at or behind {}, though one was committed", self.position)));
        };
        let next = self.known.front().map_or(newest + 1, |known| (newest + 1).min(*known));
        records.retain(|record| record.seq < next && scope.concerns(record.session.as_ref(), record.run));
        Ok(Slice { gap, records, next })
    }

    /// Reads the next positions of the chain. From the first one on they are everything in scope up to `as_of`.
    fn read_known(&mut self, gap: Option<Gap>, log: &dyn Log) -> Result<Slice, LogError> {
        self.is_complete = true;
        let mut slice = self.only(gap);
        let mut bytes = 0;
        for known in self.known.iter().take(SSE_SLICE_READS_MAX) {
            let record = log.read(*known)?;
            bytes += record.body.get().len();
            slice.next = known + 1;
            slice.records.push(record);
            if bytes >= SSE_SLICE_BYTES_MAX {
                break;
            }
        }
        Ok(slice)
    }

    /// Retention may overtake a slow replay.
    fn step_over_retired(&mut self, log: &dyn Log) -> Option<Gap> {
        let floor = log.floor();
        let next = match self.known.front() {
            Some(known) if self.is_complete => *known,
            _ => self.position,
        };
        if next >= floor {
            return None;
        }
        self.settle(floor);
        Some(retired(next - 1, floor))
    }
}

/// Where a stream with this cursor begins, and what it must be told first. docs/events.md has the table.
fn judge(cursor: Seq, log: &dyn Log) -> Result<(Seq, Option<Gap>), LogError> {
    let (floor, committed) = (log.floor(), log.committed());
    if cursor == 0 {
        return Ok((floor, None));
    }
    if cursor > committed {
        let reason =
            if epoch_of(cursor) == epoch_of(committed) { GapReason::CursorAhead } else { GapReason::RestartEpoch };
        return Ok((committed + 1, Some(Gap { reason, skipped: 1, resume_after: committed })));
    }
    if cursor == committed {
        return Ok((cursor + 1, None));
    }
    if cursor + 1 < floor {
        return Ok((floor, Some(retired(cursor, floor))));
    }
    let next = log.scan(cursor.max(floor), 1)?.first().map_or(cursor + 1, |record| record.seq);
    // The position right before a record is one too: a gap frame may have handed it out.
    if next == cursor || next == cursor + 1 {
        return Ok((cursor + 1, None));
    }
    Ok((next, Some(Gap { reason: GapReason::RestartEpoch, skipped: 1, resume_after: next - 1 })))
}

fn epoch_of(seq: Seq) -> Seq {
    seq >> 32
}

/// The gap between `cursor` and the oldest retained record. Positions of different epochs have no distance;
/// what is counted then is the part in the floor's own epoch.
fn retired(cursor: Seq, floor: Seq) -> Gap {
    let last_lost = floor - 1;
    let lost = if epoch_of(cursor) == epoch_of(floor) { last_lost - cursor } else { last_lost & 0xffff_ffff };
    Gap { reason: GapReason::ReplayWindow, skipped: lost.max(1), resume_after: last_lost }
}
