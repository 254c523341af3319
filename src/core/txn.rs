//! One batch being decided: events so far and what they changed, over the committed state.
//! Owns: staging, and `apply`, the only way from an event to state.
//! Never: touches the committed state; dropping a transaction undoes it completely.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::action::{ActionChain, Signer, is_model_call};
use super::agent::Mailbox;
use super::command::NoteKind;
use super::connectors::Connectors;
use super::delivery::RunReplyTarget;
use super::delivery_table::DeliveryDelta;
use super::digest_map::DigestMap;
use super::event::{Body, Event, Idempotency, RunAccepted, RunTimes, SessionCreated};
use super::hooks::HookLedger;
use super::retention::RetentionHold;
use super::routes_loaded::RoutesInForce;
use super::run::{Run, RunStatus};
use super::runtime_config::RuntimeConfig;
use super::session::Session;
use super::state::State;
use super::step::{Mark, Step};
use super::task::{Task, TodoList};
use super::turn::WaitsFor;
use crate::actor::Actor;
use crate::ids::{RunId, Seq, SessionId};

/// What a batch changes. Opaque outside the core: made by a [`Txn`], taken by [`State::absorb`].
///
/// Sessions and runs are kept in order of first change, which for new ones is the order of their numbers, as
/// [`State::absorb`] needs it.
#[derive(Debug, Default)]
pub struct Delta {
    pub(super) sessions: Vec<(u32, Session)>,
    pub(super) runs: Vec<(u32, Run)>,
    pub(super) idempotency: DigestMap<[u8; 16], u32>,
    pub(super) held: Option<bool>,
    /// What came with a copied state root is let go.
    pub(super) released: bool,
    pub(super) ready: Vec<u32>,
    /// Chains of signed actions by run number, the daemon's under 0; none for a run that has ended.
    pub(super) chains: HashMap<u32, Option<ActionChain>>,
    /// The turn at hand of runs; none for one that has ended.
    pub(super) steps: HashMap<u32, Option<Arc<Step>>>,
    pub(super) receipts: Vec<(Idempotency, u32)>,
    /// New and changed tasks by number.
    pub(super) tasks: BTreeMap<u32, Arc<Task>>,
    /// Short lists by session.
    pub(super) todos: BTreeMap<u32, Arc<TodoList>>,
    pub(super) runtime: Option<Arc<RuntimeConfig>>,
    pub(super) hooks: Option<Arc<HookLedger>>,
    pub(super) retention: HashMap<u32, Option<RetentionHold>>,
    pub(super) routes: Option<Arc<RoutesInForce>>,
    pub(super) connectors: Option<Arc<Connectors>>,
    /// Sessions by the digest of a binding key.
    pub(super) bindings: BTreeMap<[u8; 16], u32>,
    /// Mailboxes by session; none for one that is empty.
    pub(super) mailboxes: HashMap<u32, Option<Arc<Mailbox>>>,
    pub(super) deliveries: DeliveryDelta,
}

/// A batch in the making.
pub struct Txn<'s> {
    base: &'s State,
    delta: Delta,
    session_slots: DigestMap<u32, usize>,
    run_slots: DigestMap<u32, usize>,
    new_sessions: HashMap<SessionId, u32>,
    next_run: u32,
    queued_change: i64,
    events: Vec<Event>,
    now_ms: u64,
    next_seq: Seq,
    by: Option<Actor>,
    signer: Option<&'s dyn Signer>,
}

impl<'s> Txn<'s> {
    /// A batch whose events get `now_ms` and the sequence numbers from `next_seq` on.
    pub fn new(base: &'s State, now_ms: u64, next_seq: Seq) -> Self {
        Self {
            base,
            delta: Delta::default(),
            session_slots: DigestMap::default(),
            run_slots: DigestMap::default(),
            new_sessions: HashMap::new(),
            next_run: base.runs.len() + 1,
            queued_change: 0,
            events: Vec::new(),
            now_ms,
            next_seq,
            by: None,
            signer: None,
        }
    }

    /// Who signs the records of external actions. Without one, deciding such a record panics: it must never be
    /// unsigned.
    pub fn signed_by(mut self, signer: &'s dyn Signer) -> Self {
        self.signer = Some(signer);
        self
    }

    /// The events decided so far.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Names the caller whose commands are decided from here on; their records carry it.
    pub(super) fn set_caller(&mut self, by: Option<Actor>) {
        self.by = by;
    }

    /// Ends the batch.
    pub fn finish(self) -> (Delta, Vec<Event>) {
        (self.delta, self.events)
    }

    pub(super) fn into_delta(self) -> Delta {
        self.delta
    }

    pub(super) fn base(&self) -> &State {
        self.base
    }

    pub(super) fn held(&self) -> bool {
        self.delta.held.unwrap_or(self.base.held)
    }

    /// Runs up to this number came with a copied state root and wait; 0 where none does.
    pub(super) fn brought(&self) -> u32 {
        if self.delta.released { 0 } else { self.base.brought }
    }

    pub(super) fn hooks(&self) -> Arc<HookLedger> {
        self.delta.hooks.clone().unwrap_or_else(|| self.base.hooks.clone())
    }

    pub(super) fn stage_hooks(&mut self, hooks: Arc<HookLedger>) {
        self.delta.hooks = Some(hooks);
    }

    pub(super) fn retention_hold(&self, number: u32) -> Option<&RetentionHold> {
        match self.delta.retention.get(&number) {
            Some(staged) => staged.as_ref(),
            None => self.base.retention.get(&number),
        }
    }

    /// An upper bound: one that was released in this batch is counted still.
    pub(super) fn retention_hold_count(&self) -> usize {
        self.base.retention.len() + self.delta.retention.len()
    }

    pub(super) fn stage_retention_hold(&mut self, number: u32, hold: Option<RetentionHold>) {
        self.delta.retention.insert(number, hold);
    }

    pub(super) fn routes_in_force(&self) -> Option<&RoutesInForce> {
        self.delta.routes.as_deref().or(self.base.routes.as_deref())
    }

    pub(super) fn stage_routes(&mut self, routes: Arc<RoutesInForce>) {
        self.delta.routes = Some(routes);
    }

    pub(super) fn runtime(&self) -> Arc<RuntimeConfig> {
        self.delta.runtime.as_ref().unwrap_or(&self.base.runtime).clone()
    }

    pub(super) fn connectors(&self) -> Arc<Connectors> {
        self.delta.connectors.as_ref().unwrap_or(&self.base.connectors).clone()
    }

    pub(super) fn stage_connectors(&mut self, connectors: Arc<Connectors>) {
        self.delta.connectors = Some(connectors);
    }

    pub(super) fn bound(&self, key: &[u8; 16]) -> Option<u32> {
        self.delta.bindings.get(key).or_else(|| self.base.bindings.get(key)).copied()
    }

    /// An upper bound: a key that is bound anew is counted twice.
    pub(super) fn binding_count(&self) -> usize {
        self.base.bindings.len() + self.delta.bindings.len()
    }

    pub(super) fn stage_binding(&mut self, key: [u8; 16], session: u32) {
        self.delta.bindings.insert(key, session);
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    pub(super) fn last_seq(&self) -> Seq {
        self.next_seq - 1
    }

    pub(super) fn session_count(&self) -> usize {
        self.base.sessions.len() + self.new_sessions.len()
    }

    /// Sessions that this batch creates, by number.
    pub(super) fn new_session_numbers(&self) -> impl Iterator<Item = u32> + use<'_> {
        (self.base.sessions.len() as u32 + 1)..=(self.session_count() as u32)
    }

    pub(super) fn mailbox(&self, session: u32) -> Option<&Mailbox> {
        match self.delta.mailboxes.get(&session) {
            Some(staged) => staged.as_deref(),
            None => self.base.mailbox(session),
        }
    }

    pub(super) fn stage_mailbox(&mut self, session: u32, mailbox: Option<Arc<Mailbox>>) {
        self.delta.mailboxes.insert(session, mailbox);
    }

    pub(super) fn queued_runs(&self) -> u64 {
        self.base.queued_runs().saturating_add_signed(self.queued_change)
    }

    pub(super) fn next_run(&self) -> u32 {
        self.next_run
    }

    pub(super) fn session_number(&self, id: &SessionId) -> Option<u32> {
        self.base.session_number(id).or_else(|| self.new_sessions.get(id).copied())
    }

    pub(super) fn session(&self, number: u32) -> Option<&Session> {
        match self.session_slots.get(&number) {
            Some(slot) => Some(&self.delta.sessions[*slot].1),
            None => self.base.session(number),
        }
    }

    pub(super) fn run(&self, number: u32) -> Option<&Run> {
        match self.run_slots.get(&number) {
            Some(slot) => Some(&self.delta.runs[*slot].1),
            None => self.base.runs.get(number),
        }
    }

    pub(super) fn run_number(&self, id: RunId) -> Option<u32> {
        (id.number < self.next_run && self.base.run_id(id.number) == id).then_some(id.number)
    }

    pub(super) fn repeated(&self, key: &[u8; 16]) -> Option<u32> {
        self.base.idempotency.get(key).or_else(|| self.delta.idempotency.get(key)).copied()
    }

    pub(super) fn next_seq(&self) -> Seq {
        self.next_seq
    }

    pub(super) fn signer(&self) -> &'s dyn Signer {
        self.signer.expect("whoever decides actions has named a signer")
    }

    /// The chain of a run's actions, the daemon's under 0.
    pub(super) fn chain(&self, number: u32) -> Option<&ActionChain> {
        match self.delta.chains.get(&number) {
            Some(chain) => chain.as_ref(),
            None => self.base.chains.get(&number),
        }
    }

    pub(super) fn put_chain(&mut self, number: u32, chain: Option<ActionChain>) {
        self.delta.chains.insert(number, chain);
    }

    /// The turn at hand of an active run.
    pub(super) fn step(&self, number: u32) -> Option<&Step> {
        match self.delta.steps.get(&number) {
            Some(step) => step.as_deref(),
            None => self.base.step(number),
        }
    }

    /// Runs that have a turn at hand, in order.
    pub(super) fn runs_with_steps(&self) -> BTreeSet<u32> {
        let staged = self.delta.steps.iter().filter(|(_, step)| step.is_some()).map(|(number, _)| *number);
        let committed = self.base.runs_with_steps().filter(|number| !self.delta.steps.contains_key(number));
        staged.chain(committed).collect()
    }

    /// Fingerprint and run of an earlier answer with this key.
    pub(super) fn receipt(&self, key: &[u8; 16]) -> Option<([u8; 16], u32)> {
        let staged = self.delta.receipts.iter().rev().find(|(idempotency, _)| idempotency.key == *key);
        staged.map(|(idempotency, run)| (idempotency.fingerprint, *run)).or_else(|| self.base.receipts.get(key))
    }

    pub(super) fn staged_tasks(&self) -> &BTreeMap<u32, Arc<Task>> {
        &self.delta.tasks
    }

    pub(super) fn stage_task(&mut self, task: Task) {
        self.delta.tasks.insert(task.number, Arc::new(task));
    }

    pub(super) fn stage_todos(&mut self, session: u32, list: TodoList) {
        self.delta.todos.insert(session, Arc::new(list));
    }

    pub(super) fn delivery_delta(&self) -> &DeliveryDelta {
        &self.delta.deliveries
    }

    pub(super) fn delivery_delta_mut(&mut self) -> &mut DeliveryDelta {
        &mut self.delta.deliveries
    }

    /// Names the key that signs, where there is one.
    pub(super) fn signer_id(&self) -> String {
        self.signer.map(|signer| signer.key_id()).unwrap_or_default()
    }

    /// The newest output of a run among this batch's records.
    pub(super) fn newest_output(&self, number: u32) -> Option<Seq> {
        let id = self.base.run_id(number);
        let is_output = |event: &&Event| matches!(event.body, Body::RunNote(NoteKind::Output, _));
        self.events.iter().rev().filter(|event| event.run == Some(id)).find(is_output).map(|event| event.seq)
    }

    fn change_step(&mut self, number: u32, change: impl FnOnce(&mut Step)) {
        let mut step = self.step(number).cloned().unwrap_or_default();
        change(&mut step);
        self.delta.steps.insert(number, (!step.is_empty()).then(|| Arc::new(step)));
    }

    pub(super) fn session_mut(&mut self, number: u32) -> Result<&mut Session, String> {
        let slot = match self.session_slots.get(&number) {
            Some(slot) => *slot,
            None => {
                let session = self.base.session(number).ok_or_else(|| format!("unknown session number {number}"))?;
                self.delta.sessions.push((number, session.clone()));
                let slot = self.delta.sessions.len() - 1;
                self.session_slots.insert(number, slot);
                slot
            }
        };
        Ok(&mut self.delta.sessions[slot].1)
    }

    fn run_mut(&mut self, number: u32) -> Result<&mut Run, String> {
        let slot = match self.run_slots.get(&number) {
            Some(slot) => *slot,
            None => {
                let run = self.base.runs.get(number).ok_or_else(|| format!("unknown run number {number}"))?;
                self.delta.runs.push((number, *run));
                let slot = self.delta.runs.len() - 1;
                self.run_slots.insert(number, slot);
                slot
            }
        };
        Ok(&mut self.delta.runs[slot].1)
    }

    /// Decides that something happened to a session, and to one of its runs unless `run` is 0. Records of actions are
    /// signed here, and what ends or resumes a run first says of its open actions that their outcome is not known.
    pub(super) fn emit(&mut self, session: u32, run: u32, body: Body) {
        match body {
            Body::RunNote(kind, draft) if kind.is_action() => self.emit_action(run, session, run, kind, &draft),
            body => {
                if let Some(cause) = body.leaves_actions_open() {
                    self.close_actions(run, cause);
                }
                self.emit_unsigned(session, run, body);
            }
        }
    }

    /// As [`Txn::emit`], with the body as it is.
    pub(super) fn emit_unsigned(&mut self, session: u32, run: u32, body: Body) {
        let of_session = self.session(session).expect("decided for a known session");
        let (session_id, session_prev) = (of_session.id.clone(), of_session.last_seq);
        let of_run = self.run(run).copied();
        self.record(Event {
            seq: self.next_seq,
            at_ms: self.now_ms,
            session: Some(session_id),
            run: (run != 0).then(|| self.base.run_id(run)),
            session_prev,
            run_prev: of_run.map_or(0, |run| run.last_seq),
            run_first: of_run.map_or(0, |run| run.first_seq),
            by: self.by.clone(),
            body,
        });
    }

    /// Decides that a run was accepted.
    pub(super) fn emit_new_run(&mut self, session: u32, run: RunId, body: Body) {
        let of_session = self.session(session).expect("decided for a known session");
        let (session_id, session_prev) = (of_session.id.clone(), of_session.last_seq);
        self.record(Event {
            seq: self.next_seq,
            at_ms: self.now_ms,
            session: Some(session_id),
            run: Some(run),
            session_prev,
            run_prev: 0,
            run_first: 0,
            by: self.by.clone(),
            body,
        });
    }

    /// Decides that something happened outside any known session: a new one, or the whole daemon.
    pub(super) fn emit_global(&mut self, session: Option<SessionId>, body: Body) {
        let (seq, at_ms, by) = (self.next_seq, self.now_ms, self.by.clone());
        self.record(Event { seq, at_ms, session, run: None, session_prev: 0, run_prev: 0, run_first: 0, by, body });
    }

    fn record(&mut self, event: Event) {
        self.apply(&event).expect("a decision only emits events that apply");
        self.next_seq += 1;
        self.events.push(event);
    }

    /// Turns one event into state.
    ///
    /// # Errors
    /// The event contradicts the state before it, which a log written by this state machine never does.
    pub fn apply(&mut self, event: &Event) -> Result<(), String> {
        match &event.body {
            Body::JournalOpened { .. } | Body::JournalOther => return Ok(()),
            // They tell an auditor what happened elsewhere; no state here depends on them.
            Body::ControlIntent(_) | Body::ControlResult(_) => return Ok(()),
            Body::HoldChanged(change) => {
                self.delta.held = Some(change.held);
                self.delta.released |= !change.held;
                return Ok(());
            }
            Body::RetentionChanged(changed) => return self.apply_retention_changed(changed, event.at_ms),
            Body::RoutesLoaded(loaded) => {
                self.apply_routes_loaded(loaded, event.at_ms);
                return Ok(());
            }
            Body::RuntimeChanged(changed) => {
                let before = self.runtime();
                let after = before.after(changed, event.at_ms)?;
                if before.settings().hooks != after.settings().hooks {
                    self.hooks_changed(event.seq, before.settings().hooks.is_none());
                }
                self.delta.runtime = Some(Arc::new(after));
                return Ok(());
            }
            Body::Hook(record) => {
                self.apply_hook(event.seq, event.at_ms, record);
                return Ok(());
            }
            Body::Connector(record) if event.session.is_none() => return self.apply_connector(event.at_ms, record),
            Body::Delivery(record) if event.session.is_none() => return self.apply_delivery_global(event, record),
            Body::SessionCreated(created) => return self.apply_session_created(event, created),
            Body::RunNote(kind, body) if kind.is_action() => {
                self.apply_action(event, *kind, body)?;
                if event.run.is_none() {
                    return Ok(());
                }
            }
            _ => {}
        }
        let id = event.session.as_ref().ok_or("a session or run record names no session")?;
        let session = self.session_number(id).ok_or_else(|| format!("record of unknown session {id}"))?;
        match &event.body {
            Body::SessionInterrupted => {}
            Body::Task(record) => self.apply_task(event, session, record)?,
            Body::Connector(record) => self.apply_session_bound(session, record)?,
            Body::Mail(record) => self.apply_mail(event, session, record)?,
            Body::SessionEnded(_) => {
                self.session_mut(session)?.ended = true;
                self.apply_mailbox_closed(session);
            }
            Body::SessionUpdated(change) => self.apply_session_updated(session, change)?,
            Body::RunAccepted(accepted) => self.apply_run_accepted(event, session, accepted)?,
            body => {
                let id = event.run.ok_or("a run record names no run")?;
                let run = self.run_number(id).ok_or_else(|| format!("record of unknown run {id}"))?;
                match body {
                    Body::Delivery(record) => {
                        self.apply_delivery(event, session, run, record)?;
                        // It joins the run's records; the run itself has ended.
                        self.run_mut(run)?.last_seq = event.seq;
                    }
                    body => self.apply_to_run(event, session, run, body)?,
                }
            }
        }
        let session = self.session_mut(session)?;
        session.last_seq = event.seq;
        session.updated_at_ms = event.at_ms;
        Ok(())
    }

    fn apply_session_created(&mut self, event: &Event, created: &SessionCreated) -> Result<(), String> {
        let id = event.session.clone().ok_or("session.created names no session")?;
        if self.session_number(&id).is_some() {
            return Err(format!("session {id} is created twice"));
        }
        let number = self.session_count() as u32 + 1;
        if created.agent != agent_id(number) {
            return Err(format!("session {id} has number {number} but agent {}", created.agent));
        }
        let child = created.parent.as_ref().map(|link| self.apply_child(link, number)).transpose()?;
        let session = Session {
            id: id.clone(),
            number,
            created_at_ms: event.at_ms,
            updated_at_ms: event.at_ms,
            first_seq: event.seq,
            last_seq: event.seq,
            ended: false,
            active: 0,
            queue_head: 0,
            queue_tail: 0,
            queue_runs: 0,
            run_count: 0,
            first_run: 0,
            last_run: 0,
            last_failed: false,
            settings: None,
            child,
        };
        self.session_slots.insert(number, self.delta.sessions.len());
        self.delta.sessions.push((number, session));
        self.new_sessions.insert(id, number);
        Ok(())
    }

    fn apply_run_accepted(&mut self, event: &Event, session: u32, accepted: &RunAccepted) -> Result<(), String> {
        let number = self.next_run;
        if event.run != Some(self.base.run_id(number)) {
            return Err(format!("run.accepted names {:?} where run number {number} is next", event.run));
        }
        let none = [0; 16];
        let of_session = self.session_mut(session)?;
        let (tail, last_run) = (of_session.queue_tail, of_session.last_run);
        of_session.queue_tail = number;
        of_session.last_run = number;
        of_session.queue_runs += 1;
        of_session.run_count += 1;
        if tail == 0 {
            of_session.queue_head = number;
        }
        if last_run == 0 {
            of_session.first_run = number;
        }
        if tail != 0 {
            self.run_mut(tail)?.queue_next = number;
        }
        if last_run != 0 {
            self.run_mut(last_run)?.session_next = number;
        }
        let run = Run {
            session,
            status: RunStatus::Queued,
            action_in_flight: false,
            queue_prev: tail,
            queue_next: 0,
            session_prev: last_run,
            session_next: 0,
            submitted_at_ms: event.at_ms,
            started_at_ms: 0,
            updated_at_ms: event.at_ms,
            first_seq: event.seq,
            last_seq: event.seq,
            key: accepted.idempotency.map_or(none, |idempotency| idempotency.key),
            fingerprint: accepted.idempotency.map_or(none, |idempotency| idempotency.fingerprint),
        };
        if run.key != none {
            self.delta.idempotency.insert(run.key, number);
        }
        if !accepted.reply_targets.is_empty() {
            let targets = accepted.reply_targets.iter().map(RunReplyTarget::key).collect();
            self.apply_route(number, Some(targets));
        }
        self.run_slots.insert(number, self.delta.runs.len());
        self.delta.runs.push((number, run));
        self.next_run += 1;
        self.queued_change += 1;
        self.apply_mail_taken(event, session, number, accepted);
        Ok(())
    }

    fn apply_to_run(&mut self, event: &Event, session: u32, number: u32, body: &Body) -> Result<(), String> {
        // A run that waits for child agents is running all the while.
        let awaits_agents = self.step(number).is_some_and(|step| step.waits_for() == Some(WaitsFor::Agents));
        let next = match body {
            Body::RunContinued(_) if awaits_agents => None,
            Body::RunStarted(_) | Body::RunContinued(_) => Some(RunStatus::Running),
            Body::RunWaiting(waiting) => match waiting.waits_for {
                WaitsFor::Approval => Some(RunStatus::WaitingForApproval),
                WaitsFor::UserQuestion => Some(RunStatus::WaitingForUserQuestion),
                WaitsFor::Agents => None,
            },
            Body::RunCompleted(_) => Some(RunStatus::Completed),
            Body::RunFailed(_) => Some(RunStatus::Failed),
            Body::RunInterrupted(_) => Some(RunStatus::Interrupted),
            Body::RunCancelled(_) => Some(RunStatus::Cancelled),
            _ => None,
        };
        let before = *self.run(number).ok_or_else(|| format!("unknown run number {number}"))?;
        if before.session != session {
            return Err(format!("{} belongs to another session", self.base.run_id(number)));
        }
        match next {
            Some(next) => self.move_run(event, number, before, next)?,
            // What a run owes after its end, a delivery, is an action of it still.
            None if before.status.is_terminal() && !matches!(body, Body::RunNote(kind, _) if kind.is_action()) => {
                return Err(format!("{} has ended and is recorded again", self.base.run_id(number)));
            }
            None => {}
        }
        self.apply_to_step(event, number, body)?;
        let run = self.run_mut(number)?;
        match body {
            Body::RunNote(NoteKind::ActionRequest, body) if is_model_call(body) => {
                run.action_in_flight = run.status.is_active();
            }
            // While a model is asked, the run does nothing else.
            Body::RunNote(NoteKind::ActionResponse, _) | Body::RunResumed(_) => run.action_in_flight = false,
            _ => {}
        }
        run.last_seq = event.seq;
        run.updated_at_ms = event.at_ms;
        if matches!(body, Body::RunStarted(_) | Body::RunResumed(_) | Body::RunContinued(_)) {
            self.delta.ready.push(number);
        }
        Ok(())
    }

    fn apply_to_step(&mut self, event: &Event, number: u32, body: &Body) -> Result<(), String> {
        match body {
            Body::RunNote(kind, note) => match Mark::read(*kind, note, event.seq, event.at_ms)? {
                Mark::None => {}
                Mark::NextTurn if self.step(number).is_none() => {}
                mark => self.change_step(number, |step| step.fold(mark)),
            },
            Body::ApprovalResolved(resolved) => {
                self.change_step(number, |step| step.approvals.retain(|approval| approval.id != resolved.id));
                self.delta.receipts.extend(resolved.idempotency.map(|idempotency| (idempotency, number)));
            }
            Body::QuestionResolved(resolved) => {
                self.change_step(number, |step| step.question = None);
                self.delta.receipts.extend(resolved.idempotency.map(|idempotency| (idempotency, number)));
            }
            Body::RunContinued(_) if self.step(number).is_some_and(|step| step.agents.is_some()) => {
                self.change_step(number, |step| step.agents = None);
            }
            Body::RunCompleted(_) | Body::RunFailed(_) | Body::RunInterrupted(_) | Body::RunCancelled(_)
                if self.step(number).is_some() =>
            {
                self.delta.steps.insert(number, None);
            }
            _ => {}
        }
        Ok(())
    }

    fn move_run(&mut self, event: &Event, number: u32, before: Run, next: RunStatus) -> Result<(), String> {
        if !before.status.may_become(next) {
            let id = self.base.run_id(number);
            return Err(format!("{id} is {} and cannot become {}", before.status.as_str(), next.as_str()));
        }
        if before.status == RunStatus::Queued {
            self.leave_queue(number, before)?;
        }
        let session = self.session_mut(before.session)?;
        if next == RunStatus::Running && before.status == RunStatus::Queued {
            if session.active != 0 {
                return Err(format!("run number {number} starts while {} is active", session.active));
            }
            session.active = number;
        } else if next.is_terminal() {
            if session.active == number {
                session.active = 0;
            }
            session.last_failed = next == RunStatus::Failed;
        }
        let run = self.run_mut(number)?;
        run.status = next;
        if next == RunStatus::Running && run.started_at_ms == 0 {
            run.started_at_ms = event.at_ms;
        }
        if next.is_terminal() {
            run.action_in_flight = false;
            self.delta.chains.insert(number, None);
            self.apply_mail_run_ended(before.session, number, next);
            self.apply_route(number, None);
        }
        Ok(())
    }

    fn leave_queue(&mut self, number: u32, run: Run) -> Result<(), String> {
        if run.queue_prev != 0 {
            self.run_mut(run.queue_prev)?.queue_next = run.queue_next;
        }
        if run.queue_next != 0 {
            self.run_mut(run.queue_next)?.queue_prev = run.queue_prev;
        }
        let session = self.session_mut(run.session)?;
        if session.queue_head == number {
            session.queue_head = run.queue_next;
        }
        if session.queue_tail == number {
            session.queue_tail = run.queue_prev;
        }
        session.queue_runs -= 1;
        let left = self.run_mut(number)?;
        left.queue_prev = 0;
        left.queue_next = 0;
        self.queued_change -= 1;
        Ok(())
    }
}

/// The id of a session's root agent.
pub(super) fn agent_id(session_number: u32) -> String {
    format!("agent-{session_number}")
}

/// The times that every state record of a run repeats.
pub(super) fn times(run: &Run, reason: Option<String>) -> RunTimes {
    RunTimes {
        submitted_at_ms: run.submitted_at_ms,
        started_at_ms: (run.started_at_ms != 0).then_some(run.started_at_ms),
        reason,
    }
}
