//! The core thread's loop.
//! Owns: gathering, deciding, committing and releasing a batch.
//! Never: shows a reply, a read or an effect of a batch before its sync returned.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};

use super::answers::{Answer, AnswerSender, Answers};
use super::handle::{Asked, CommandError, CoreHandle, Job, Message, Never, Query};
use super::published::{CoreView, Published};
use super::snapshotter::SnapshotJob;
use crate::actor::Actor;
use crate::clock::Clock;
use crate::core::{
    Body, Command, ConnectorCommand, ConnectorRecord, Decision, DeliveryCommand, DeliveryJob, Delta, Event, State,
    Target, TaskCommand, TaskRecord, Txn,
};
use crate::ids::{RunId, SessionId};
use crate::journal::{Cut, Draft, Journal, JournalError};
use crate::limits::{
    CORE_ANSWERS_INLINE_MAX, CORE_BATCH_BYTES_MAX, CORE_BATCH_COMMANDS_MAX, CORE_EXPIRE_RUNS_MAX, CORE_PUMP_RUNS_MAX,
    CORE_TICK_MS, RUNTIME_SETTINGS_BYTES_MAX,
};
use crate::worker::idle;

/// Told of a session and of its task that shall end.
pub type StopTask = dyn Fn(&SessionId, &str) + Send;

/// What the core tells others after a commit. None of these may block.
pub struct Effects {
    /// Records were committed.
    pub committed: Box<dyn Fn() + Send>,
    /// An active run was stopped by somebody else than its engine.
    pub stopped: Box<dyn Fn(RunId) + Send>,
    /// A background command shall end.
    pub stop_task: Box<StopTask>,
    /// A record was committed on behalf of an API caller.
    pub acted: Box<dyn Fn(&Event) + Send>,
}

/// What the loop is made of.
pub struct Parts {
    /// State as restored.
    pub state: State,
    /// The open journal.
    pub journal: Journal,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Who is told.
    pub effects: Effects,
    /// Where the replies of large batches are handed to; without it the core gives out all of them.
    pub answers: Option<AnswerSender>,
    /// Where snapshots are handed to.
    pub snapshots: Sender<SnapshotJob>,
    /// Records after which a snapshot is due.
    pub snapshot_interval_records: u64,
    /// Records replayed at start, which count as already due.
    pub records_since_snapshot: u64,
}

/// The core thread's state.
pub struct CommitLoop {
    parts: Parts,
    inbox: Receiver<Message>,
    /// Tells those who wait for an answer that none will come.
    _alive: Sender<Never>,
    published: Arc<Published>,
    view: CoreView,
    /// Engines that wait for work, each at most once, so at most as many as there are engine workers.
    idle_engines: VecDeque<Sender<Job>>,
    /// Senders that wait for a delivery, each at most once.
    idle_senders: VecDeque<Sender<DeliveryJob>>,
    /// A command too large for the batch that it arrived with; it begins the next one.
    carried: Option<Box<Asked>>,
    /// Who waits for a cut of the journal.
    cuts: Vec<Sender<Result<Cut, CommandError>>>,
    /// When the disk last refused.
    refused_at_ms: u64,
    records_since_snapshot: u64,
    idle_counted_at_ms: u64,
    stopping: bool,
}

impl CommitLoop {
    /// The loop and the handle to reach it.
    pub fn new(parts: Parts) -> (Self, CoreHandle) {
        let published = Arc::new(Published::default());
        let (handle, inbox, alive) = CoreHandle::new(published.clone());
        let records_since_snapshot = parts.records_since_snapshot;
        let mut this = Self {
            parts,
            inbox,
            _alive: alive,
            published,
            view: CoreView::default(),
            idle_engines: VecDeque::new(),
            idle_senders: VecDeque::new(),
            carried: None,
            cuts: Vec::new(),
            refused_at_ms: 0,
            records_since_snapshot,
            idle_counted_at_ms: 0,
            stopping: false,
        };
        for (run, hold) in this.parts.state.retention_holds() {
            this.published.publish_hold(run, Some(hold.clone()));
        }
        for (session, settings) in this.parts.state.own_settings() {
            this.published.publish_settings(session, Some(settings));
        }
        this.published.publish_connectors(this.parts.state.connectors().clone());
        this.published.publish_bindings(this.parts.state.bindings().map(|(key, id)| (key, id.clone())));
        this.publish();
        (this, handle)
    }

    /// Runs until told to stop; then seals the journal and leaves a snapshot, so that the next start reads
    /// little.
    ///
    /// # Errors
    /// The journal could not be closed; what was acknowledged is on disk all the same.
    pub fn run(mut self) -> Result<(), JournalError> {
        let mut commands = Vec::new();
        let mut queries = Vec::new();
        while !self.stopping {
            self.pass(&mut commands, &mut queries);
        }
        // Dropping the waiting engines' channels tells them to end.
        self.idle_engines.clear();
        self.idle_senders.clear();
        let Self { parts, inbox, .. } = self;
        let closed = close(parts);
        for message in inbox.try_iter() {
            if let Message::Decide(asked) = message {
                (asked.reply)(Err(CommandError::Stopping));
            }
        }
        closed
    }

    /// One batch and what belongs to it. The lists are empty before and after.
    pub(super) fn pass(&mut self, commands: &mut Vec<Asked>, queries: &mut Vec<Query>) {
        self.gather(commands, queries);
        self.commit(commands.drain(..));
        for query in queries.drain(..) {
            self.answer(query);
        }
        self.cut();
        self.hand_out_runs();
        self.hand_out_deliveries();
        self.maintain();
    }

    /// Gives everybody who asked one cut, which has all that was acknowledged before it was asked for.
    fn cut(&mut self) {
        if self.cuts.is_empty() {
            return;
        }
        let cut = self.parts.journal.cut(self.parts.clock.now_ms()).map_err(CommandError::from);
        if let Err(error) = &cut {
            log::error!("the journal could not be sealed for a backup: {error}");
            self.note_refusal(error);
        } else {
            // The seal is a record that streams and status tell of.
            self.publish();
            (self.parts.effects.committed)();
        }
        for reply in self.cuts.drain(..) {
            // A caller that gave up needs no answer.
            drop(reply.try_send(cut.clone()));
        }
    }

    /// Waits for the first message and takes what else is there, within the batch's bounds.
    fn gather(&mut self, commands: &mut Vec<Asked>, queries: &mut Vec<Query>) {
        self.published.end_batch();
        let mut next = self.first_message();
        self.published.begin_batch();
        let mut bytes = 0;
        while let Some(message) = next.take() {
            match message {
                Message::Decide(asked) => {
                    let weight = weight(&asked.command);
                    // A command that alone breaks the journal's bound must not take others with it.
                    if !commands.is_empty() && bytes + weight > CORE_BATCH_BYTES_MAX {
                        self.carried = Some(asked);
                        return;
                    }
                    bytes += weight;
                    commands.push(*asked);
                }
                Message::Ask(query) => queries.push(*query),
                Message::TakeRun(engine) => self.idle_engines.push_back(engine),
                Message::Wake => {}
                Message::TakeDelivery(sender) => self.idle_senders.push_back(sender),
                Message::PutBackDelivery(number) => self.parts.state.put_back_delivery(number),
                Message::Cut(reply) => self.cuts.push(reply),
                Message::Stop => self.stopping = true,
            }
            let full = commands.len() + queries.len() >= CORE_BATCH_COMMANDS_MAX || bytes >= CORE_BATCH_BYTES_MAX;
            if !full && !self.stopping {
                next = self.inbox.try_recv().ok();
            }
        }
    }

    /// What to begin a batch with; `None` when a tick has passed without a message.
    fn first_message(&mut self) -> Option<Message> {
        if let Some(asked) = self.carried.take() {
            return Some(Message::Decide(asked));
        }
        let refusing = self.view.poisoned.is_some() || self.view.refusing.is_some();
        let wait_ms = if self.parts.state.wants_pump() && !refusing { 0 } else { self.wait_for_delivery_ms() };
        match idle(|| self.inbox.recv_timeout(Duration::from_millis(wait_ms))) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.stopping = true;
                None
            }
        }
    }

    fn commit(&mut self, commands: impl Iterator<Item = Asked>) {
        if let Some(error) = poisoned(&self.parts.journal) {
            return commands.for_each(|asked| (asked.reply)(Err(error.clone())));
        }
        let now_ms = self.parts.clock.now_ms();
        let mut txn = self.begin();
        // Commands that may be served from the reserve, once more, by their place in the batch.
        let mut containment = Vec::new();
        let mut answers = Vec::with_capacity(commands.size_hint().0);
        for Asked { command, by, reply } in commands {
            if command.is_containment() {
                containment.push((answers.len(), command.clone(), by.clone()));
            }
            answers.push(Answer { reply, outcome: txn.decide_for(by, command) });
        }
        let answers = Answers(answers);
        if self.parts.state.wants_pump() {
            let pumped = txn.decide(Command::Pump { limit: CORE_PUMP_RUNS_MAX });
            debug_assert!(pumped.is_ok(), "a pump is never refused");
        }
        if self.parts.state.wants_expiry(now_ms) {
            let expired = txn.decide(Command::Expire { limit: CORE_EXPIRE_RUNS_MAX });
            debug_assert!(expired.is_ok(), "an expiry is never refused");
        }
        let (delta, events) = txn.finish();
        if events.is_empty() {
            return self.release(answers);
        }
        match self.write(delta, &events, Journal::append) {
            Ok(()) => {
                self.view.refusing = None;
                self.publish();
                self.tell_acts(&events);
                self.release(answers);
                self.announce(&events);
            }
            Err(error) => self.refuse(answers, containment, error),
        }
    }

    fn begin(&self) -> Txn<'_> {
        Txn::new(&self.parts.state, self.parts.clock.now_ms(), self.parts.journal.next_seq())
            .signed_by(self.parts.journal.signer())
    }

    /// Makes a batch durable and then the state.
    fn write(
        &mut self,
        delta: Delta,
        events: &[Event],
        append: fn(&mut Journal, &[Draft]) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let drafts: Vec<Draft> = events.iter().map(draft).collect();
        let began = Instant::now();
        append(&mut self.parts.journal, &drafts)?;
        self.parts.state.absorb(delta);
        self.publish_settings(events);
        self.count(events.len() as u64, began);
        Ok(())
    }

    /// Makes changed settings of sessions readable, before anybody is told of the change.
    fn publish_settings(&self, events: &[Event]) {
        for event in events {
            if let Body::RetentionChanged(changed) = &event.body
                && let Some(run) = RunId::parse(&changed.run_id)
            {
                let hold = self.parts.state.retention_holds().find(|(held, _)| *held == run);
                self.published.publish_hold(run, hold.map(|(_, hold)| hold.clone()));
            }
        }
        for event in events {
            match (&event.body, &event.session) {
                (Body::Connector(ConnectorRecord::SessionBound(bound)), Some(session)) => {
                    self.published.publish_bindings(bound.keys.iter().map(|key| (key.0, session.clone())));
                }
                (Body::Connector(_), _) => self.published.publish_connectors(self.parts.state.connectors().clone()),
                _ => {}
            }
        }
        for event in events.iter().filter(|event| matches!(event.body, Body::SessionUpdated(_))) {
            let session = event.session.as_ref().expect("session.updated names its session");
            let state = &self.parts.state;
            let number = state.session_number(session).expect("updated sessions exist");
            let settings = state.session(number).and_then(|session| session.settings.as_deref());
            self.published.publish_settings(session, settings);
        }
    }

    fn count(&mut self, records: u64, began: Instant) {
        self.view.batches += 1;
        self.view.records += records;
        self.view.last_commit_us = began.elapsed().as_micros() as u64;
        self.view.slowest_commit_us = self.view.slowest_commit_us.max(self.view.last_commit_us);
        self.records_since_snapshot += records;
    }

    /// Answers a batch that was not written. On a full disk its containment commands are served from the reserve, each
    /// by itself, so that a large one does not take the room of the others.
    fn refuse(&mut self, answers: Answers, containment: Vec<(usize, Command, Option<Actor>)>, error: JournalError) {
        let error = CommandError::from(error);
        log::error!("a batch of {} commands was refused: {error}", answers.0.len());
        self.note_refusal(&error);
        let mut containment = containment.into_iter().peekable();
        for (place, Answer { reply, .. }) in answers.0.into_iter().enumerate() {
            let again = containment.next_if(|(of, ..)| *of == place);
            reply(match (&error, again) {
                (CommandError::StorageFull { .. }, Some((_, command, by))) => self.contain(command, by),
                _ => Err(error.clone()),
            });
        }
    }

    fn note_refusal(&mut self, error: &CommandError) {
        if matches!(error, CommandError::StorageFull { .. } | CommandError::WriteFailed { .. }) {
            self.view.refusing = Some(error.clone());
            self.refused_at_ms = self.parts.clock.now_ms();
        }
        self.publish();
    }

    fn contain(&mut self, command: Command, by: Option<Actor>) -> Result<Decision, CommandError> {
        let mut txn = self.begin();
        let decision = txn.decide_for(by, command)?;
        let (delta, events) = txn.finish();
        if !events.is_empty() {
            let written = self.write(delta, &events, Journal::append_from_reserve);
            // Also a failure: it may have poisoned the journal, which everybody must see from now on.
            self.publish();
            written?;
            self.tell_acts(&events);
            self.announce(&events);
        }
        Ok(decision)
    }

    /// Lets the replies of a durable batch go: a large batch's on the answerer, so that the next batch is decided and
    /// synced meanwhile, if it has time; all others here, which saves waking it.
    fn release(&self, mut answers: Answers) {
        if let Some(answerer) = self.parts.answers.as_ref().filter(|_| answers.0.len() > CORE_ANSWERS_INLINE_MAX) {
            match answerer.offer(answers) {
                Ok(()) => return,
                Err(returned) => answers = returned,
            }
        }
        answers.give();
    }

    /// Before the callers are answered: whoever records that a request was answered knows then what it committed.
    fn tell_acts(&self, events: &[Event]) {
        events.iter().filter(|event| event.by.is_some()).for_each(|event| (self.parts.effects.acted)(event));
    }

    /// Tells the others of a committed batch.
    fn announce(&self, events: &[Event]) {
        (self.parts.effects.committed)();
        for event in events {
            if let (Body::RunCancelled(_) | Body::RunInterrupted(_), Some(run)) = (&event.body, event.run) {
                (self.parts.effects.stopped)(run);
            }
            if let (Body::Task(TaskRecord::StopRequested(stop)), Some(session)) = (&event.body, &event.session) {
                (self.parts.effects.stop_task)(session, &stop.id);
            }
        }
    }

    fn publish(&mut self) {
        self.view.counts = self.parts.state.counts();
        self.view.runtime = self.parts.state.runtime().clone();
        let (now_ms, journal) = (self.parts.clock.now_ms(), &self.parts.journal);
        // Either way: a clock that was set back must not end this.
        if now_ms.abs_diff(self.idle_counted_at_ms) >= CORE_TICK_MS {
            self.view.idle_minutes = self.parts.state.idle_minutes().into();
            self.idle_counted_at_ms = now_ms;
        }
        (self.view.sealed, self.view.unsealed_records) = (journal.sealed(), journal.unsealed_records());
        self.view.reserve_is_intact = journal.reserve_is_intact();
        let head = journal.head();
        self.view.hooks = self.parts.state.hooks().clone();
        (self.view.committed, self.view.chain) = (head.seq, head.chain);
        self.view.poisoned = poisoned(&self.parts.journal).map(|error| error.to_string());
        self.view.last_progress_ms = now_ms;
        self.published.publish(self.view.clone());
    }

    fn answer(&self, query: Query) {
        let state = &self.parts.state;
        // A caller that gave up needs no answer.
        match query {
            Query::Session(id, reply) => drop(reply.try_send(state.session_view(&id))),
            Query::Sessions { after, limit, reply } => drop(reply.try_send(state.session_page(after, limit))),
            Query::Run(id, reply) => drop(reply.try_send(state.run_position(id))),
            Query::Tasks(id, reply) => drop(reply.try_send(state.session_tasks(&id))),
            Query::Task(session, id, reply) => drop(reply.try_send(state.session_task(&session, &id))),
            Query::Todos(id, reply) => drop(reply.try_send(state.session_todos(&id))),
            Query::RunOfKey(key, reply) => drop(reply.try_send(state.run_of_key(&key))),
            Query::Read(look) => look(state),
            Query::Runs(query, reply) => drop(reply.try_send(state.run_page(&query))),
            Query::Delivery(id, reply) => drop(reply.try_send(state.delivery(id))),
            Query::Deliveries(query, reply) => drop(reply.try_send(state.delivery_page(&query))),
            Query::DeliveryHold(reply) => drop(reply.try_send(state.delivery_hold().cloned())),
            Query::Waiting(query, reply) => {
                let page = state.waiting_page(query.waits_for, query.session.as_ref(), query.after, query.limit);
                drop(reply.try_send(page));
            }
            Query::WaitingRun(target, reply) => {
                let number = match &target {
                    Target::Run(id) => state.run_number(*id),
                    Target::Session(id) => {
                        state.session_number(id).and_then(|number| state.session(number)).map(|session| session.active)
                    }
                };
                drop(reply.try_send(number.and_then(|number| state.waiting_run(number))));
            }
        }
    }

    fn hand_out_runs(&mut self) {
        for run in self.published.take_again() {
            self.parts.state.ready_again(run);
        }
        while !self.idle_engines.is_empty() {
            let Some(number) = self.parts.state.take_ready() else { return };
            let engine = self.idle_engines.pop_front().expect("checked above");
            // An engine gone while it waited leaves the run active; the next start resumes it.
            drop(engine.try_send(self.parts.state.position_of(number)));
        }
    }

    /// Until the next delivery is due that somebody waits for, a tick at most.
    fn wait_for_delivery_ms(&self) -> u64 {
        let due_ms = self.parts.state.next_delivery_ms().filter(|_| !self.idle_senders.is_empty() && self.may_send());
        due_ms.map_or(CORE_TICK_MS, |at_ms| at_ms.saturating_sub(self.parts.clock.now_ms()).min(CORE_TICK_MS))
    }

    /// Nothing is begun that could not be recorded.
    fn may_send(&self) -> bool {
        self.view.poisoned.is_none() && self.view.refusing.is_none()
    }

    fn hand_out_deliveries(&mut self) {
        if self.stopping || !self.may_send() {
            return;
        }
        let now_ms = self.parts.clock.now_ms();
        while !self.idle_senders.is_empty() {
            let Some(job) = self.parts.state.take_delivery(now_ms) else { return };
            let sender = self.idle_senders.pop_front().expect("checked above");
            let number = job.delivery.id.number;
            if sender.try_send(job).is_err() {
                self.parts.state.put_back_delivery(number);
            }
        }
    }

    fn maintain(&mut self) {
        let now_ms = self.parts.clock.now_ms();
        // The difference either way: a clock that was set back must not end this.
        let has_passed = |since_ms: u64| now_ms.abs_diff(since_ms) >= CORE_TICK_MS;
        let refused = self.view.refusing.is_some();
        if self.view.poisoned.is_none() && (!refused || has_passed(self.refused_at_ms)) {
            match self.parts.journal.maintain(now_ms) {
                Ok(_) if refused => {
                    self.view.refusing = None;
                    self.publish();
                }
                Ok(_) => {}
                Err(error) => {
                    log::error!("the journal's upkeep failed: {error}");
                    self.note_refusal(&error.into());
                }
            }
        }
        if has_passed(self.view.last_progress_ms) {
            self.publish();
        }
        if self.records_since_snapshot >= self.parts.snapshot_interval_records {
            self.offer_snapshot(now_ms);
        }
    }

    fn offer_snapshot(&mut self, now_ms: u64) {
        // The writer is still at the one before; freezing would be wasted. The second place in the channel is
        // for the last snapshot, so that the core does not wait for the writer even then.
        if !self.parts.snapshots.is_empty() {
            return;
        }
        let job = SnapshotJob {
            head: self.parts.journal.head(),
            frozen: self.parts.state.freeze(),
            writer: self.parts.journal.snapshot_writer(),
            at_ms: now_ms,
        };
        match self.parts.snapshots.try_send(job) {
            Ok(()) => self.records_since_snapshot = 0,
            Err(TrySendError::Full(_)) => {}
            Err(TrySendError::Disconnected(_)) => log::error!("the snapshot writer has ended; start-up will be slower"),
        }
    }
}

/// Seals the journal and leaves a snapshot.
fn close(parts: Parts) -> Result<(), JournalError> {
    if parts.journal.poisoned().is_some() {
        return Ok(());
    }
    let at_ms = parts.clock.now_ms();
    let (frozen, writer) = (parts.state.freeze(), parts.journal.snapshot_writer());
    let head = parts.journal.close(at_ms)?;
    if parts.snapshots.try_send(SnapshotJob { head, frozen, writer, at_ms }).is_err() {
        log::error!("the snapshot writer has ended; the next start replays the journal");
    }
    Ok(())
}

/// Room for the records that drop one delivery.
const DELIVERY_RECORD_BYTES: usize = 1024;

/// What everybody hears once a sync has failed.
fn poisoned(journal: &Journal) -> Option<CommandError> {
    journal.poisoned().map(|reason| JournalError::Poisoned { reason: reason.to_string() }.into())
}

fn draft(event: &Event) -> Draft {
    Draft {
        seq: event.seq,
        at_ms: event.at_ms,
        kind: event.body.kind(),
        session: event.session.clone(),
        run: event.run,
        session_prev: event.session_prev,
        run_prev: event.run_prev,
        run_first: event.run_first,
        by: event.by.clone(),
        body: event.body.encode(),
    }
}

/// Bytes that a command brings into a batch, roughly.
fn weight(command: &Command) -> usize {
    match command {
        Command::SubmitRun { request, reply_targets, .. } => {
            request.get().len() + reply_targets.iter().map(|target| target.address.len()).sum::<usize>()
        }
        Command::Delivery(command) => match &**command {
            DeliveryCommand::Begin { note, .. } | DeliveryCommand::Settle { note, .. } => note.body.get().len(),
            DeliveryCommand::Drop { limit, .. } => limit * DELIVERY_RECORD_BYTES,
            _ => 0,
        },
        Command::RecordAction { note, .. } => note.body.get().len(),
        Command::Record { notes, .. } | Command::Finish { notes, .. } | Command::Suspend { notes, .. } => {
            notes.iter().map(|note| note.body.get().len()).sum()
        }
        Command::ResolveApprovals { resolutions, .. } => {
            resolutions.iter().filter_map(|said| said.updated_input.as_ref()).map(|input| input.get().len()).sum()
        }
        Command::Task(command) => match &**command {
            TaskCommand::Start(_, started) => started.command.len(),
            _ => 0,
        },
        Command::Connector(command) => match &**command {
            ConnectorCommand::Ingest(ingest) => ingest.request.get().len(),
            ConnectorCommand::Put { config, .. } => config.get().len(),
            _ => 0,
        },
        // Ending a session writes a record for each queued run.
        Command::EndSession { .. } => CORE_BATCH_BYTES_MAX / 2,
        // Prompts and rules, or the settlement of waiting approvals.
        Command::ChangeRuntime { .. } => RUNTIME_SETTINGS_BYTES_MAX,
        _ => 0,
    }
}
