//! Committed state as callers see it: positions, pages, session figures.
//! Owns: the questions that can be answered from memory.
//! Never: renders a wire type; texts are read from the journal by whoever holds a position.

use std::collections::HashMap;
use std::sync::Arc;

use super::run::RunStatus;
use super::session::{Session, SessionStatus};
use super::state::State;
use super::step::Step;
use super::turn::WaitsFor;
use crate::ids::{RunId, Seq, SessionId};

/// Where a run stands, and where its records are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPosition {
    /// The run.
    pub id: RunId,
    /// Its session.
    pub session: SessionId,
    /// Its state.
    pub status: RunStatus,
    /// When it was accepted.
    pub submitted_at_ms: u64,
    /// When it first became active; 0 if it never did.
    pub started_at_ms: u64,
    /// Its `run.accepted` record.
    pub first_seq: Seq,
    /// Its last record.
    pub last_seq: Seq,
    /// The session's record before `first_seq` is found from that record; this is its newest.
    pub session_last_seq: Seq,
    /// Place in the queue, from 1.
    pub queued_position: Option<u32>,
}

/// A session's figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// The session's record in the state.
    pub session: Session,
    /// What it is doing.
    pub status: SessionStatus,
    /// The active run.
    pub active: Option<RunId>,
    /// What the active run waits for.
    pub waiting: Option<WaitingRun>,
}

/// A run that waits, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingRun {
    /// The run.
    pub position: RunPosition,
    /// Number of its session.
    pub session_number: u32,
    /// Since when its oldest open item has waited.
    pub since_ms: u64,
    /// What is open.
    pub step: Arc<Step>,
}

/// One page of waiting runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingPage {
    /// The runs, longest wait first.
    pub items: Vec<WaitingRun>,
    /// Open items in all pages.
    pub total: u64,
    /// Whether another page follows.
    pub has_more: bool,
}

/// Direction of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    Ascending,
    /// Newest first.
    Descending,
}

/// Which runs to list.
#[derive(Debug, Clone)]
pub struct RunQuery {
    /// Only those of this session.
    pub session: Option<SessionId>,
    /// Direction.
    pub order: Order,
    /// Begin behind this run.
    pub after: Option<RunId>,
    /// At most this many.
    pub limit: usize,
}

/// One page of runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPage {
    /// The runs.
    pub items: Vec<RunPosition>,
    /// Runs in all pages.
    pub total: u64,
    /// Whether another page follows.
    pub has_more: bool,
}

/// One page of sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPage {
    /// The sessions, in order of creation.
    pub items: Vec<SessionView>,
    /// Sessions in all pages.
    pub total: u64,
    /// Whether another page follows.
    pub has_more: bool,
}

impl State {
    /// A session's figures.
    pub fn session_view(&self, id: &SessionId) -> Option<SessionView> {
        self.session_number(id).and_then(|number| self.session(number)).map(|session| self.view_of(session))
    }

    fn view_of(&self, session: &Session) -> SessionView {
        SessionView {
            session: session.clone(),
            status: self.session_status(session),
            active: (session.active != 0).then(|| self.run_id(session.active)),
            waiting: self.waiting_run(session.active),
        }
    }

    /// Sessions in order of creation, behind the one numbered `after` (0: from the start).
    pub fn session_page(&self, after: u32, limit: usize) -> SessionPage {
        let rest = self.sessions.get(after as usize..).unwrap_or_default();
        SessionPage {
            items: rest.iter().take(limit).map(|session| self.view_of(session)).collect(),
            total: self.sessions.len() as u64,
            has_more: rest.len() > limit,
        }
    }

    /// Where a run stands.
    pub fn run_position(&self, id: RunId) -> Option<RunPosition> {
        self.run_number(id).map(|number| self.position_of(number))
    }

    /// Where the run with this number stands.
    ///
    /// # Panics
    /// There is no such run.
    pub fn position_of(&self, number: u32) -> RunPosition {
        self.position(number, |number| self.place_in_queue(number))
    }

    fn position(&self, number: u32, place_in_queue: impl FnOnce(u32) -> u32) -> RunPosition {
        let run = self.runs.get(number).expect("asked for a known run");
        let session = self.session(run.session).expect("runs belong to known sessions");
        RunPosition {
            id: self.run_id(number),
            session: session.id.clone(),
            status: run.status,
            submitted_at_ms: run.submitted_at_ms,
            started_at_ms: run.started_at_ms,
            first_seq: run.first_seq,
            last_seq: run.last_seq,
            session_last_seq: session.last_seq,
            queued_position: (run.status == RunStatus::Queued).then(|| place_in_queue(number)),
        }
    }

    /// Counted rather than stored, so that leaving a queue does not rewrite everybody behind; a queue's
    /// bound bounds the walk.
    fn place_in_queue(&self, number: u32) -> u32 {
        let mut place = 1;
        let mut run = self.runs.get(number).expect("queued runs exist");
        while run.queue_prev != 0 {
            place += 1;
            run = self.runs.get(run.queue_prev).expect("queue neighbours exist");
        }
        place
    }

    /// As `place_in_queue`, walking each queue once for a whole page: of one session, a list meets neighbours in the
    /// queue one after the other. `places` holds the last one met of each session.
    fn listed_place(&self, number: u32, places: &mut HashMap<u32, (u32, u32)>) -> u32 {
        let run = self.runs.get(number).expect("listed runs exist");
        let place = match places.get(&run.session) {
            Some((last, place)) if run.queue_prev == *last => place + 1,
            Some((last, place)) if run.queue_next == *last => place - 1,
            _ => self.place_in_queue(number),
        };
        places.insert(run.session, (number, place));
        place
    }

    /// The run with what it waits for; `None` when it waits for nothing.
    pub fn waiting_run(&self, number: u32) -> Option<WaitingRun> {
        let step = self.steps.get(&number)?;
        let since_ms = step.waits_since_ms()?;
        let position = self.position_of(number);
        let session_number = self.runs.get(number)?.session;
        Some(WaitingRun { position, session_number, since_ms, step: step.clone() })
    }

    /// Runs that wait for this, of one session or of all, behind the run with that time and number.
    pub fn waiting_page(
        &self,
        waits_for: WaitsFor,
        session: Option<&SessionId>,
        after: Option<(u64, u32)>,
        limit: usize,
    ) -> WaitingPage {
        let open = |step: &Step| match waits_for {
            WaitsFor::Approval => step.approvals.len() as u64,
            WaitsFor::UserQuestion => u64::from(step.question.is_some()),
            WaitsFor::Agents => 0,
        };
        let mut items: Vec<WaitingRun>;
        let total;
        match session {
            Some(id) => {
                let active = self.session_number(id).and_then(|number| self.session(number)).map(|s| s.active);
                let run = active.and_then(|number| self.waiting_run(number));
                let run = run.filter(|run| run.step.waits_for() == Some(waits_for));
                total = run.iter().map(|run| open(&run.step)).sum();
                items = run
                    .filter(|run| after.is_none_or(|at| (run.since_ms, run.position.id.number) > at))
                    .into_iter()
                    .collect();
            }
            None => {
                total = match waits_for {
                    WaitsFor::Approval => self.counts().pending_approvals,
                    WaitsFor::UserQuestion => self.counts().pending_questions,
                    WaitsFor::Agents => 0,
                };
                let behind = self.waiting_behind(waits_for, after);
                items = behind.take(limit + 1).filter_map(|number| self.waiting_run(number)).collect();
            }
        }
        let has_more = items.len() > limit;
        items.truncate(limit);
        WaitingPage { items, total, has_more }
    }

    /// One page of runs. An unknown session or `after` gives an empty page.
    pub fn run_page(&self, query: &RunQuery) -> RunPage {
        let session = match &query.session {
            None => None,
            Some(id) => match self.session_view(id) {
                Some(view) => Some(view.session),
                None => return RunPage { items: Vec::new(), total: 0, has_more: false },
            },
        };
        let after = match query.after.map(|id| self.run_number(id)) {
            None => None,
            Some(Some(number)) => Some(number),
            Some(None) => return RunPage { items: Vec::new(), total: 0, has_more: false },
        };
        let mut next = match (&session, after, query.order) {
            (Some(session), None, Order::Ascending) => session.first_run,
            (Some(session), None, Order::Descending) => session.last_run,
            (None, None, Order::Ascending) => u32::from(!self.runs.is_empty()),
            (None, None, Order::Descending) => self.runs.len(),
            (scope, Some(number), order) => self.following(number, scope.is_some(), order),
        };
        let mut items = Vec::new();
        let mut places = HashMap::new();
        while next != 0 && items.len() < query.limit {
            items.push(self.position(next, |number| self.listed_place(number, &mut places)));
            next = self.following(next, session.is_some(), query.order);
        }
        let total = session.map_or(u64::from(self.runs.len()), |session| u64::from(session.run_count));
        RunPage { items, total, has_more: next != 0 }
    }

    fn following(&self, number: u32, within_session: bool, order: Order) -> u32 {
        let run = self.runs.get(number).expect("listed runs exist");
        match (within_session, order) {
            (true, Order::Ascending) => run.session_next,
            (true, Order::Descending) => run.session_prev,
            (false, Order::Ascending) if number < self.runs.len() => number + 1,
            (false, Order::Ascending) => 0,
            (false, Order::Descending) => number - 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Command, Decision, Txn};

    fn decide(state: &mut State, command: Command) -> Decision {
        let mut txn = Txn::new(state, 1, 1);
        let decision = txn.decide(command).expect("legal");
        let (delta, _) = txn.finish();
        state.absorb(delta);
        decision
    }

    #[test]
    fn a_list_tells_the_same_places_in_the_queue_as_each_run_by_itself() {
        let mut state = State::default();
        let sessions = ["a", "b", "c"].map(|id| SessionId::parse(id).expect("legal"));
        for id in sessions.clone() {
            decide(&mut state, Command::CreateSession { id, thread_id: None });
        }
        let mut runs = Vec::new();
        for n in 0..30 {
            let command = Command::SubmitRun {
                session: sessions[n * n % 3].clone(),
                request: serde_json::value::RawValue::from_string("{}".to_string()).expect("JSON"),
                route: "main".to_string(),
                model: "m".to_string(),
                idempotency: None,
                reply_targets: Vec::new(),
            };
            match decide(&mut state, command) {
                Decision::Accepted { run, .. } => runs.push(run),
                other => panic!("{other:?}"),
            }
        }
        for run in [runs[4], runs[9], runs[17]] {
            decide(&mut state, Command::CancelRun { run, reason: None });
        }
        let alone: Vec<RunPosition> = runs.iter().map(|run| state.run_position(*run).expect("accepted")).collect();
        assert!(alone.iter().filter(|position| position.queued_position.is_some()).count() > 20);
        for session in [None, Some(sessions[0].clone()), Some(sessions[1].clone())] {
            let in_scope = |position: &&RunPosition| session.as_ref().is_none_or(|id| *id == position.session);
            let mut expected: Vec<RunPosition> = alone.iter().filter(in_scope).cloned().collect();
            for order in [Order::Ascending, Order::Descending] {
                let page = state.run_page(&RunQuery { session: session.clone(), order, after: None, limit: 100 });
                assert_eq!(page.items, expected);
                expected.reverse();
            }
        }
    }
}
