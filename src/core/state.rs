//! Committed state: the fold of all events.
//! Owns: sessions, runs, idempotency, the hold, and the indexes derived from them.
//! Never: changes except by absorbing the delta of a durable batch.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::COPIED_STATE_ROOT;
use super::action::ActionChain;
use super::agent::Mailbox;
use super::agent_view::AgentCounts;
use super::connectors::Connectors;
use super::delivery::DeliveryCounts;
use super::delivery_table::{Deliveries, DeliveryHold};
use super::digest_map::DigestMap;
use super::event::{Body, Event};
use super::hooks::HookLedger;
use super::lag::{Idlest, Lag, QueuedBehind};
use super::receipts::Receipts;
use super::retention::RetentionHold;
use super::routes_loaded::RoutesInForce;
use super::run::{Run, RunStatus, RunTable};
use super::runtime_config::RuntimeConfig;
use super::session::{Session, SessionStatus};
use super::session_settings::SessionSettings;
use super::step::Step;
use super::task::{Task, TaskCounts, Tasks, Todo, task_number};
use super::turn::WaitsFor;
use super::txn::{Delta, Txn};
use crate::ids::{RunId, SessionId};
use crate::limits::IDLEST_RUNS_SHOWN;
use crate::permissions::Mode;

/// Committed state. Cheap to read, changed only by [`State::absorb`].
#[derive(Debug, Default)]
pub struct State {
    /// Epoch of the next accepted run.
    pub(super) epoch: u32,
    /// First epoch of this state root; its runs carry no epoch in their ids.
    pub(super) home_epoch: u32,
    /// First run number and epoch of each later epoch.
    pub(super) run_epochs: Vec<(u32, u32)>,
    pub(super) session_numbers: HashMap<SessionId, u32>,
    pub(super) sessions: Vec<Session>,
    pub(super) runs: RunTable,
    pub(super) idempotency: DigestMap<[u8; 16], u32>,
    pub(super) held: bool,
    /// Runs up to this number came with a copied state root and wait until it is released; 0 where none does.
    pub(super) brought: u32,
    /// Chains of signed actions: those of active runs by number, the daemon's own under 0.
    pub(super) chains: BTreeMap<u32, ActionChain>,
    /// The turn at hand of active runs that have one.
    pub(super) steps: BTreeMap<u32, Arc<Step>>,
    pub(super) receipts: Receipts,
    pub(super) tasks: Tasks,
    pub(super) deliveries: Deliveries,
    pub(super) runtime: Arc<RuntimeConfig>,
    pub(super) hooks: Arc<HookLedger>,
    /// Runs whose evidence is held, by number.
    pub(super) retention: BTreeMap<u32, RetentionHold>,
    /// The routes file that the daemon was last started with, if it ever was with one.
    pub(super) routes: Option<Arc<RoutesInForce>>,
    pub(super) connectors: Arc<Connectors>,
    /// Sessions by the digest of a binding key.
    pub(super) bindings: BTreeMap<[u8; 16], u32>,
    /// Messages to agents, by session.
    pub(super) mailboxes: BTreeMap<u32, Arc<Mailbox>>,
    derived: Derived,
}

/// Indexes that can be rebuilt from sessions and runs at any time.
#[derive(Debug, Default)]
struct Derived {
    by_status: [u64; 8],
    queued: BTreeSet<u32>,
    active: BTreeSet<u32>,
    active_by_activity: BTreeSet<(u64, u32)>,
    /// Sessions with queued runs and no active one.
    promotable: BTreeSet<u32>,
    /// Active runs that no engine has taken since the restart.
    resumable: BTreeSet<u32>,
    /// Active runs waiting for an engine, in order of becoming active.
    ready: VecDeque<u32>,
    queue_depths: BTreeMap<u32, u32>,
    /// Runs that wait for approvals, with the time of the oldest open one.
    wait_approval: BTreeSet<(u64, u32)>,
    /// Runs that wait for an answer, with the time of the question.
    wait_question: BTreeSet<(u64, u32)>,
    /// Runs with a deadline to watch.
    deadlines: BTreeSet<(u64, u32)>,
    pending_approvals: u64,
    lag: Lag,
    /// Sessions of child agents, closed ones too, by the parent's.
    children: BTreeMap<u32, Vec<u32>>,
    agents: AgentCounts,
}

/// Figures of the whole state, with timestamps rather than ages so that a reader can tell ages later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Runs by status, in the order of [`RunStatus::ALL`].
    pub by_status: [u64; 8],
    /// Runs ever accepted.
    pub runs: u64,
    /// Sessions ever created.
    pub sessions: u64,
    /// The longest queue of a session.
    pub session_queue_runs_max: u32,
    /// Oldest queued run and when it was submitted.
    pub oldest_queued: Option<(RunId, u64)>,
    /// Oldest run that has not ended and when it was submitted.
    pub oldest_non_terminal: Option<(RunId, u64)>,
    /// The run without a record for the longest time, and the time of that record.
    pub oldest_idle: Option<(RunId, u64)>,
    /// Longest-queued run behind an active run of its session.
    pub oldest_queued_behind: Option<QueuedBehind>,
    /// The running run without a record for the longest time, and the time of that record.
    pub oldest_running_idle: Option<(RunId, u64)>,
    /// The runs that have been idle for longest, idlest first.
    pub idlest: Idlest,
    /// Run whose approval has been open for the longest time, and when it was asked for.
    pub oldest_waiting_approval: Option<(RunId, u64)>,
    /// Run whose question has been open for the longest time, and when it was asked.
    pub oldest_waiting_question: Option<(RunId, u64)>,
    /// Open approvals.
    pub pending_approvals: u64,
    /// Open questions.
    pub pending_questions: u64,
    /// Runs waiting for an engine.
    pub ready: u64,
    /// Whether starting of queued runs is suspended.
    pub held: bool,
    /// Whether unfinished runs that came with a copied state root wait for its release.
    pub copy_held: bool,
    /// Figures of tasks.
    pub tasks: TaskCounts,
    /// Figures of agents.
    pub agents: AgentCounts,
    /// Figures of deliveries.
    pub deliveries: DeliveryCounts,
}

impl Counts {
    /// Runs in this status.
    pub fn status(&self, status: RunStatus) -> u64 {
        self.by_status[status as usize]
    }
}

impl State {
    /// Folds one event read back from the journal.
    ///
    /// # Errors
    /// The event contradicts what came before it: the log was not written by this state machine.
    pub fn replay(&mut self, event: &Event) -> Result<(), String> {
        if let Body::JournalOpened { epoch } = event.body {
            self.open_epoch(epoch);
            return Ok(());
        }
        let mut txn = Txn::new(self, event.at_ms, event.seq);
        txn.apply(event)?;
        let delta = txn.into_delta();
        self.absorb(delta);
        Ok(())
    }

    /// Starts an epoch: runs accepted from here on carry it in their ids, unless it is the first one.
    pub fn open_epoch(&mut self, epoch: u32) {
        if self.home_epoch == 0 {
            self.home_epoch = epoch;
        } else if epoch != self.epoch {
            self.run_epochs.push((self.runs.len() + 1, epoch));
            // The original may be at work, and may have sent what waits here: an operator decides.
            if !self.derived.active.is_empty() || !self.derived.queued.is_empty() {
                self.brought = self.runs.len();
                self.derived.promotable.clear();
            }
            let reason = Some(COPIED_STATE_ROOT.to_string());
            self.deliveries.hold.get_or_insert(DeliveryHold { since_ms: 0, reason });
        }
        self.epoch = epoch;
    }

    /// Ends a replay: runs found active wait to be resumed, nothing is ready.
    pub fn finish_replay(&mut self) {
        self.derived.ready.clear();
        self.find_resumable(self.brought);
        self.deliveries.finish_replay();
    }

    /// Active runs above `above` wait to be resumed.
    fn find_resumable(&mut self, above: u32) {
        let active = self.derived.active.range(above.saturating_add(1)..).copied();
        self.derived.resumable = active.filter(|number| self.is_running(*number)).collect();
    }

    /// Lets go of what came with a copied state root: its runs may be resumed and started.
    fn release_brought(&mut self) {
        let brought = std::mem::take(&mut self.brought);
        let active = self.derived.active.range(..=brought).copied();
        let running: Vec<u32> = active.filter(|number| self.is_running(*number)).collect();
        self.derived.resumable.extend(running);
        let waiting = self.sessions.iter().filter(|session| session.active == 0 && session.queue_head != 0);
        self.derived.promotable.extend(waiting.map(|session| session.number));
    }

    /// Running, and not waiting for child agents.
    fn is_running(&self, number: u32) -> bool {
        let awaits_agents = self.step(number).is_some_and(|step| step.agents.is_some());
        !awaits_agents && self.runs.get(number).is_some_and(|run| run.status == RunStatus::Running)
    }

    /// Makes a durable batch the state.
    pub fn absorb(&mut self, delta: Delta) {
        let Delta {
            sessions,
            runs,
            idempotency,
            held,
            ready,
            steps,
            receipts,
            runtime,
            hooks,
            chains,
            retention,
            routes,
            tasks,
            todos,
            bindings,
            connectors,
            mailboxes,
            deliveries,
            released,
        } = delta;
        self.deliveries.absorb(deliveries);
        if let Some(connectors) = connectors {
            self.connectors = connectors;
        }
        self.bindings.extend(bindings);
        for (number, session) in sessions {
            self.put_session(number, session);
        }
        for (number, run) in runs {
            self.put_run(number, run);
        }
        self.idempotency.extend(idempotency);
        if let Some(held) = held {
            self.held = held;
        }
        if let Some(runtime) = runtime {
            self.runtime = runtime;
        }
        if routes.is_some() {
            self.routes = routes;
        }
        if let Some(hooks) = hooks {
            self.hooks = hooks;
        }
        for (number, hold) in retention {
            match hold {
                Some(hold) => drop(self.retention.insert(number, hold)),
                None => drop(self.retention.remove(&number)),
            }
        }
        for (number, chain) in chains {
            match chain {
                Some(chain) => drop(self.chains.insert(number, chain)),
                None => drop(self.chains.remove(&number)),
            }
        }
        for (number, step) in steps {
            self.put_step(number, step);
        }
        for (idempotency, run) in receipts {
            self.receipts.put(idempotency, run);
        }
        for (number, task) in tasks {
            self.tasks.put(number, task);
        }
        for (session, list) in todos {
            self.tasks.put_todos(session, list);
        }
        for (session, mailbox) in mailboxes {
            self.put_mailbox(session, mailbox);
        }
        for number in ready {
            self.derived.resumable.remove(&number);
            // What came with a copy waits, whoever answers its questions.
            if number > self.brought {
                self.derived.ready.push_back(number);
            }
        }
        if released {
            self.release_brought();
        }
    }

    pub(super) fn put_step(&mut self, number: u32, step: Option<Arc<Step>>) {
        let before = match step.clone() {
            Some(step) => self.steps.insert(number, step),
            None => self.steps.remove(&number),
        };
        let derived = &mut self.derived;
        if let Some(before) = before {
            derived.pending_approvals -= before.approvals.len() as u64;
            if let Some(at_ms) = before.deadline_ms() {
                derived.deadlines.remove(&(at_ms, number));
            }
            if let Some(since_ms) = before.waits_since_ms() {
                derived.wait_approval.remove(&(since_ms, number));
                derived.wait_question.remove(&(since_ms, number));
            }
        }
        let Some(step) = step else { return };
        derived.pending_approvals += step.approvals.len() as u64;
        derived.deadlines.extend(step.deadline_ms().map(|at_ms| (at_ms, number)));
        if let (Some(waits_for), Some(since_ms)) = (step.waits_for(), step.waits_since_ms()) {
            match waits_for {
                WaitsFor::Approval => derived.wait_approval.insert((since_ms, number)),
                WaitsFor::UserQuestion => derived.wait_question.insert((since_ms, number)),
                // Nobody is asked.
                WaitsFor::Agents => false,
            };
        }
    }

    /// The turn at hand of an active run, if it has one.
    pub fn step(&self, number: u32) -> Option<&Step> {
        self.steps.get(&number).map(|step| &**step)
    }

    pub(super) fn runs_with_steps(&self) -> impl Iterator<Item = u32> {
        self.steps.keys().copied()
    }

    /// Runs that wait for this, longest first, behind the one with that time and number.
    pub(super) fn waiting_behind(&self, waits_for: WaitsFor, after: Option<(u64, u32)>) -> impl Iterator<Item = u32> {
        let runs = match waits_for {
            WaitsFor::Approval => &self.derived.wait_approval,
            WaitsFor::UserQuestion => &self.derived.wait_question,
            WaitsFor::Agents => return None.into_iter().flatten(),
        };
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        Some(runs.range((from, std::ops::Bound::Unbounded)).map(|(_, number)| *number)).into_iter().flatten()
    }

    /// Whether [`super::Command::Expire`] would do something.
    pub fn wants_expiry(&self, now_ms: u64) -> bool {
        let overdue = self.derived.deadlines.first().is_some_and(|(at_ms, _)| *at_ms <= now_ms);
        overdue || self.runtime.is_due(now_ms) || self.wants_settling()
    }

    /// Whether somebody waits for an approval although nobody is to be asked any more.
    pub(super) fn wants_settling(&self) -> bool {
        self.runtime.settings().permission_mode == Mode::DontAsk && !self.derived.wait_approval.is_empty()
    }

    /// The runtime configuration in force.
    pub fn runtime(&self) -> &Arc<RuntimeConfig> {
        &self.runtime
    }

    /// How far notifications have come, and calls of hooks that came to nothing.
    pub fn hooks(&self) -> &Arc<HookLedger> {
        &self.hooks
    }

    /// Runs whose evidence is held.
    pub fn retention_holds(&self) -> impl Iterator<Item = (RunId, &RetentionHold)> {
        self.retention.iter().map(|(number, hold)| (self.run_id(*number), hold))
    }

    /// The connectors that were configured at runtime.
    pub fn connectors(&self) -> &Arc<Connectors> {
        &self.connectors
    }

    /// Sessions by the digest of a binding key that names them.
    pub fn bindings(&self) -> impl Iterator<Item = ([u8; 16], &SessionId)> {
        let session = |number: &u32| self.session(*number).map(|session| &session.id);
        self.bindings.iter().filter_map(move |(key, number)| Some((*key, session(number)?)))
    }

    /// The run of an idempotency key, with its fingerprint.
    pub fn run_of_key(&self, key: &[u8; 16]) -> Option<(RunId, Run)> {
        let number = *self.idempotency.get(key)?;
        Some((self.run_id(number), *self.runs.get(number)?))
    }

    /// Sessions that have settings of their own.
    pub fn own_settings(&self) -> impl Iterator<Item = (&SessionId, &SessionSettings)> {
        self.sessions.iter().filter_map(|session| Some((&session.id, session.settings.as_deref()?)))
    }

    pub(super) fn due(&self, now_ms: u64, limit: usize) -> Vec<u32> {
        let due = self.derived.deadlines.iter().take_while(|(at_ms, _)| *at_ms <= now_ms);
        due.take(limit).map(|(_, number)| *number).collect()
    }

    pub(super) fn put_session(&mut self, number: u32, session: Session) {
        let index = (number as usize).checked_sub(1).expect("session numbers start at 1");
        let depth_before = self.sessions.get(index).map(|session| session.queue_runs);
        if let Some(depth) = depth_before.filter(|depth| *depth > 0) {
            let sessions = self.derived.queue_depths.get_mut(&depth).expect("each queue's depth is counted");
            *sessions -= 1;
            if *sessions == 0 {
                self.derived.queue_depths.remove(&depth);
            }
        }
        if session.queue_runs > 0 {
            *self.derived.queue_depths.entry(session.queue_runs).or_default() += 1;
        }
        if session.queue_runs > 0 && session.active == 0 && session.queue_head > self.brought {
            self.derived.promotable.insert(number);
        } else {
            self.derived.promotable.remove(&number);
        }
        self.derived.lag.put_session(self.sessions.get(index), &session);
        self.derived.agents.count_session(self.sessions.get(index), &session);
        if depth_before.is_some() {
            self.sessions[index] = session;
        } else {
            if let Some(child) = &session.child {
                self.derived.children.entry(child.parent).or_default().push(number);
            }
            assert_eq!(index, self.sessions.len(), "session numbers have no holes");
            self.session_numbers.insert(session.id.clone(), number);
            self.sessions.push(session);
        }
    }

    pub(super) fn put_mailbox(&mut self, session: u32, mailbox: Option<Arc<Mailbox>>) {
        self.derived.agents.count_mailbox(self.mailboxes.get(&session), mailbox.as_ref());
        match mailbox {
            Some(mailbox) => drop(self.mailboxes.insert(session, mailbox)),
            None => drop(self.mailboxes.remove(&session)),
        }
    }

    /// The messages of a session's agent.
    pub fn mailbox(&self, session: u32) -> Option<&Mailbox> {
        self.mailboxes.get(&session).map(|mailbox| &**mailbox)
    }

    /// Sessions of the child agents of a session's agent, closed ones too, in order of creation.
    pub fn children_of(&self, session: u32) -> &[u32] {
        self.derived.children.get(&session).map_or(&[], Vec::as_slice)
    }

    /// Child agents that are not closed.
    pub(super) fn open_agents(&self) -> u64 {
        self.derived.agents.open_children
    }

    pub(super) fn put_run(&mut self, number: u32, run: Run) {
        if let Some(before) = self.runs.get(number).copied() {
            self.derived.by_status[before.status as usize] -= 1;
            if before.status == RunStatus::Queued {
                self.derived.queued.remove(&number);
            } else if before.status.is_active() {
                self.derived.active.remove(&number);
                self.derived.active_by_activity.remove(&(before.updated_at_ms, number));
            }
        }
        self.derived.lag.put_run(number, self.runs.get(number).copied(), run);
        self.derived.by_status[run.status as usize] += 1;
        if run.status == RunStatus::Queued {
            self.derived.queued.insert(number);
        } else if run.status.is_active() {
            self.derived.active.insert(number);
            self.derived.active_by_activity.insert((run.updated_at_ms, number));
        } else {
            self.derived.resumable.remove(&number);
        }
        self.runs.put(number, run);
    }

    /// The next active run without an engine, if any; it is not offered again.
    pub fn take_ready(&mut self) -> Option<u32> {
        while let Some(number) = self.derived.ready.pop_front() {
            // A run that was stopped while it waited is skipped.
            if self.is_running(number) {
                return Some(number);
            }
        }
        None
    }

    /// Offers an active run again that was taken and is in nobody's hands any more. One that has ended or waits for
    /// people is not.
    pub fn ready_again(&mut self, run: RunId) {
        let number = self.run_number(run).filter(|number| *number > self.brought && self.is_running(*number));
        if let Some(number) = number {
            self.derived.ready.push_back(number);
        }
    }

    /// Whether [`super::Command::Pump`] would do something.
    pub fn wants_pump(&self) -> bool {
        let nothing_waits = self.derived.promotable.is_empty() && self.derived.resumable.is_empty();
        !self.held && !nothing_waits
    }

    pub(super) fn pump_candidates(&self, limit: usize) -> (Vec<u32>, Vec<u32>) {
        let resumable: Vec<u32> = self.derived.resumable.iter().copied().take(limit).collect();
        let promotable = self.derived.promotable.iter().copied().take(limit - resumable.len()).collect();
        (resumable, promotable)
    }

    /// Whether starting of queued runs is suspended.
    pub fn held(&self) -> bool {
        self.held
    }

    /// Whether unfinished runs that came with a copied state root wait for its release.
    pub fn copy_held(&self) -> bool {
        let is_brought = |runs: &BTreeSet<u32>| runs.first().is_some_and(|number| *number <= self.brought);
        is_brought(&self.derived.active) || is_brought(&self.derived.queued)
    }

    /// Runs that wait in any queue.
    pub(super) fn queued_runs(&self) -> u64 {
        self.derived.by_status[RunStatus::Queued as usize]
    }

    /// The number of the session with this id.
    pub fn session_number(&self, id: &SessionId) -> Option<u32> {
        self.session_numbers.get(id).copied()
    }

    /// The session with this number.
    pub fn session(&self, number: u32) -> Option<&Session> {
        self.sessions.get((number as usize).checked_sub(1)?)
    }

    /// All runs.
    pub fn runs(&self) -> &RunTable {
        &self.runs
    }

    /// The number behind a run id, if this state root gave out exactly that id.
    pub fn run_number(&self, id: RunId) -> Option<u32> {
        (id.number <= self.runs.len() && self.run_id(id.number) == id).then_some(id.number)
    }

    /// The id of a run number, accepted or next.
    pub fn run_id(&self, number: u32) -> RunId {
        let later = self.run_epochs.iter().rev().find(|(first, _)| *first <= number);
        RunId { number, epoch: later.map_or(0, |(_, epoch)| *epoch) }
    }

    /// What a session is doing.
    pub fn session_status(&self, session: &Session) -> SessionStatus {
        let active = self.runs.get(session.active).map(|run| run.status);
        match active {
            Some(RunStatus::WaitingForApproval) => SessionStatus::WaitingForApproval,
            Some(RunStatus::WaitingForUserQuestion) => SessionStatus::WaitingForUserInput,
            Some(_) => SessionStatus::Running,
            None if session.ended => SessionStatus::Completed,
            None if session.last_failed => SessionStatus::Failed,
            None => SessionStatus::Idle,
        }
    }

    /// Figures of the whole state.
    pub fn counts(&self) -> Counts {
        let run = |number: u32| self.runs.get(number).expect("indexed runs exist");
        let submitted = |number: &u32| (self.run_id(*number), run(*number).submitted_at_ms);
        let queued = self.derived.queued.first();
        let oldest =
            |waiting: &BTreeSet<(u64, u32)>| waiting.first().map(|(at_ms, number)| (self.run_id(*number), *at_ms));
        let queued_idle = queued.map(|number| (run(*number).updated_at_ms, *number));
        let idle = [queued_idle, self.derived.active_by_activity.first().copied()].into_iter().flatten().min();
        Counts {
            by_status: self.derived.by_status,
            runs: u64::from(self.runs.len()),
            sessions: self.sessions.len() as u64,
            session_queue_runs_max: self.derived.queue_depths.last_key_value().map_or(0, |(depth, _)| *depth),
            oldest_queued: queued.map(submitted),
            oldest_non_terminal: [queued, self.derived.active.first()].into_iter().flatten().min().map(submitted),
            oldest_idle: idle.map(|(at_ms, number)| (self.run_id(number), at_ms)),
            oldest_queued_behind: self.derived.lag.oldest_behind().and_then(|number| self.queued_behind(number)),
            oldest_running_idle: self.derived.lag.idlest_running().map(|(at_ms, number)| (self.run_id(number), at_ms)),
            idlest: self.idlest(),
            oldest_waiting_approval: oldest(&self.derived.wait_approval),
            oldest_waiting_question: oldest(&self.derived.wait_question),
            pending_approvals: self.derived.pending_approvals,
            pending_questions: self.derived.wait_question.len() as u64,
            ready: self.derived.ready.len() as u64,
            held: self.held,
            copy_held: self.copy_held(),
            tasks: self.tasks.counts(),
            agents: self.derived.agents,
            deliveries: self.deliveries.counts(),
        }
    }

    fn queued_behind(&self, number: u32) -> Option<QueuedBehind> {
        let run = self.runs.get(number)?;
        let active = self.session(run.session)?.active;
        Some(QueuedBehind {
            run: self.run_id(number),
            submitted_at_ms: run.submitted_at_ms,
            active: self.run_id(active),
            active_status: self.runs.get(active)?.status,
        })
    }

    fn idlest(&self) -> Idlest {
        let queued = self.derived.queued.iter().take(IDLEST_RUNS_SHOWN);
        let queued = queued.filter_map(|number| Some((self.runs.get(*number)?.updated_at_ms, *number)));
        let active = self.derived.active_by_activity.iter().take(IDLEST_RUNS_SHOWN).copied();
        let mut both = [(0, 0); 2 * IDLEST_RUNS_SHOWN];
        let mut count = 0;
        for (place, run) in both.iter_mut().zip(queued.chain(active)) {
            *place = run;
            count += 1;
        }
        let both = &mut both[..count];
        both.sort_unstable();
        let mut idlest = Idlest::default();
        for (place, (at_ms, number)) in idlest.iter_mut().zip(both) {
            *place = Some((self.run_id(*number), *at_ms));
        }
        idlest
    }

    /// Runs that have not ended by the minute of their last record, oldest first; see [`super::idle_before`].
    pub fn idle_minutes(&self) -> Vec<(u64, u64)> {
        self.derived.lag.idle_minutes()
    }

    /// The epoch that new ids carry; none in the first one.
    pub(super) fn later_epoch(&self) -> Option<u32> {
        (self.epoch != self.home_epoch).then_some(self.epoch)
    }

    /// The tasks of a session that are kept, oldest first; `None` for an unknown session.
    pub fn session_tasks(&self, id: &SessionId) -> Option<Vec<Arc<Task>>> {
        let session = self.session_number(id)?;
        Some(self.tasks.of_session(session).filter(|task| !task.deleted).cloned().collect())
    }

    /// A task of a session, if it is kept.
    pub fn session_task(&self, session: &SessionId, id: &str) -> Option<Arc<Task>> {
        let session = self.session_number(session)?;
        let task = self.tasks.by_number.get(&task_number(id)?)?;
        (task.session == session && task.id == id && !task.deleted).then(|| task.clone())
    }

    /// Background commands that have not ended, with their sessions.
    pub fn live_tasks(&self) -> Vec<(SessionId, Arc<Task>)> {
        let session = |task: &Arc<Task>| self.session(task.session).map(|session| session.id.clone());
        self.tasks.live().filter_map(|task| Some((session(task)?, task.clone()))).collect()
    }

    /// The short list of a session.
    pub fn session_todos(&self, id: &SessionId) -> Option<Vec<Todo>> {
        let list = self.tasks.todos.get(&self.session_number(id)?);
        Some(list.map(|list| list.todos.clone()).unwrap_or_default())
    }
}
