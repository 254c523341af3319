//! Decisions: from a command to events, or to a refusal that changed nothing.
//! Owns: every rule about what is allowed.
//! Never: emits before all of a command's checks have passed.

use super::command::{Command, Decision, Note, NoteKind, Outcome, Refusal};
use super::event::{Body, HoldChanged, Reason, ResumeFinding, RunAccepted, RunFailed, RunResumed, SessionCreated};
use super::run::{Run, RunStatus};
use super::step::{Mark, Step};
use super::txn::{Txn, agent_id, times};
use crate::actor::Actor;
use crate::ids::{RunId, SessionId};
use crate::limits::{QUEUED_RUNS_MAX, SESSION_QUEUE_RUNS_MAX, SESSIONS_MAX};

impl Txn<'_> {
    /// As [`Txn::decide`], on behalf of an API caller, whom all records of the decision name.
    ///
    /// # Errors
    /// The refusal; nothing was emitted.
    pub fn decide_for(&mut self, by: Option<Actor>, command: Command) -> Result<Decision, Refusal> {
        self.set_caller(by);
        let decided = self.decide(command);
        self.set_caller(None);
        decided
    }

    /// Decides one command on top of everything decided in this batch so far.
    ///
    /// # Errors
    /// The refusal; nothing was emitted.
    pub fn decide(&mut self, command: Command) -> Result<Decision, Refusal> {
        match command {
            Command::CreateSession { id, thread_id } => self.create_session(id, thread_id),
            Command::SubmitRun { session, request, route, model, idempotency, reply_targets } => {
                let accepted = RunAccepted {
                    agent: String::new(),
                    kind: "input".to_string(),
                    position: 0,
                    route,
                    model,
                    idempotency,
                    mail: Vec::new(),
                    reply_targets,
                    request,
                };
                self.submit_run(session, accepted)
            }
            Command::CancelRun { run, reason } => self.cancel_run(run, reason),
            Command::InterruptSession { session } => self.interrupt_session(&session),
            Command::EndSession { session, reason } => self.end_session(&session, reason),
            Command::SetHold { held, reason } => Ok(self.set_hold(held, reason)),
            Command::ChangeRuntime { edit, expected_revision } => self.change_runtime(edit, expected_revision),
            Command::SetRetentionHold { run, held, reason } => self.set_retention_hold(run, held, reason),
            Command::NoteRoutes(loaded) => Ok(self.note_routes(loaded)),
            Command::UpdateSession { session, change } => self.update_session(&session, change),
            Command::SettleActions => {
                self.close_actions(0, "restart");
                Ok(Decision::Recorded { last_seq: self.last_seq() })
            }
            Command::RecordAction { run, note } => self.record_action(run, note),
            Command::ControlIntent { intent, .. } => {
                self.emit_global(None, Body::ControlIntent(intent));
                Ok(Decision::Recorded { last_seq: self.last_seq() })
            }
            Command::ControlResult { result, .. } => {
                self.emit_global(None, Body::ControlResult(result));
                Ok(Decision::Recorded { last_seq: self.last_seq() })
            }
            Command::Record { run: id, notes } => {
                let (number, run) = self.active_run(id)?;
                self.admit_notes(id, number, &notes)?;
                self.emit_notes(run.session, number, notes);
                Ok(Decision::Recorded { last_seq: self.last_seq() })
            }
            Command::Suspend { run, notes } => self.suspend(run, notes),
            Command::ResolveApprovals { target, resolutions, idempotency } => {
                self.resolve_approvals(target, resolutions, idempotency)
            }
            Command::ResolveQuestion { target, answer, idempotency } => {
                self.resolve_question(target, *answer, idempotency)
            }
            Command::CancelQuestion { run, id, justification, idempotency } => {
                self.cancel_question(run, &id, justification, idempotency)
            }
            Command::DenyPending { session, reason } => {
                let session = session.map(|id| self.known_session(&id)).transpose()?;
                Ok(Decision::Settled { count: self.settle_pending_as_denied(session, &reason, usize::MAX) })
            }
            Command::Expire { limit } => Ok(self.expire(limit)),
            Command::Hook(command) => self.decide_hook(command),
            Command::Task(command) => self.decide_task(*command),
            Command::Connector(command) => self.decide_connector(*command),
            Command::Agent(command) => self.decide_agent(command),
            Command::Delivery(command) => self.decide_delivery(*command),
            Command::Finish { run, notes, outcome } => self.finish_run(run, notes, outcome),
            Command::Pump { limit } => Ok(self.pump(limit)),
        }
    }

    fn create_session(&mut self, id: SessionId, thread_id: Option<String>) -> Result<Decision, Refusal> {
        if let Some(number) = self.session_number(&id) {
            return Ok(Decision::Session { number, created: false });
        }
        if self.session_count() >= SESSIONS_MAX {
            return Err(Refusal::SessionLimit);
        }
        let number = self.session_count() as u32 + 1;
        self.emit_global(
            Some(id),
            Body::SessionCreated(SessionCreated { agent: agent_id(number), thread_id, parent: None }),
        );
        Ok(Decision::Session { number, created: true })
    }

    /// `accepted` lacks agent and position, which are decided here.
    pub(super) fn submit_run(&mut self, session_id: SessionId, mut accepted: RunAccepted) -> Result<Decision, Refusal> {
        let Some(session_number) = self.session_number(&session_id) else {
            return Err(Refusal::SessionNotFound(session_id));
        };
        if let Some(key) = &accepted.idempotency
            && let Some(number) = self.repeated(&key.key)
        {
            let run = self.base().run_id(number);
            let state = *self.run(number).expect("keys name known runs");
            if state.fingerprint != key.fingerprint {
                return Err(Refusal::IdempotencyConflict { run });
            }
            return Ok(Decision::Repeated { run, session_number, state });
        }
        let session = self.session(session_number).expect("numbered sessions exist");
        if session.ended {
            return Err(Refusal::SessionEnded(session_id));
        }
        if session.queue_runs >= self.queue_runs_max(session_number, SESSION_QUEUE_RUNS_MAX) {
            return Err(Refusal::SessionQueueFull(session_id));
        }
        if self.queued_runs() >= QUEUED_RUNS_MAX || self.next_run() == u32::MAX {
            return Err(Refusal::RunQueueFull);
        }
        if accepted.reply_targets.is_empty()
            && let Some(settings) = &session.settings
        {
            accepted.reply_targets.clone_from(&settings.reply_targets);
        }
        self.admit_targets(&accepted.reply_targets)?;
        let starts = !self.held() && session.active == 0 && session.queue_runs == 0;
        let position = if starts { 0 } else { session.queue_runs + 1 };
        let number = self.next_run();
        let run = self.base().run_id(number);
        accepted.agent = agent_id(session_number);
        accepted.position = position;
        self.emit_new_run(session_number, run, Body::RunAccepted(accepted));
        if starts {
            self.start(session_number, number);
        }
        Ok(Decision::Accepted { run, session_number, position, submitted_at_ms: self.now_ms() })
    }

    fn start(&mut self, session: u32, number: u32) {
        let run = *self.run(number).expect("queued runs exist");
        self.emit(session, number, Body::RunStarted(times(&run, None)));
    }

    /// Starts the next queued run of a session that has become free.
    pub(super) fn promote(&mut self, session_number: u32) {
        let session = self.session(session_number).expect("numbered sessions exist");
        if !self.held() && session.active == 0 && session.queue_head > self.brought() {
            let head = session.queue_head;
            self.start(session_number, head);
        }
    }

    pub(super) fn known_run(&self, id: RunId) -> Result<(u32, Run), Refusal> {
        let number = self.run_number(id).ok_or(Refusal::RunNotFound(id))?;
        Ok((number, *self.run(number).expect("numbered runs exist")))
    }

    pub(super) fn active_run(&self, id: RunId) -> Result<(u32, Run), Refusal> {
        let (number, run) = self.known_run(id)?;
        if run.status == RunStatus::Running {
            Ok((number, run))
        } else {
            Err(Refusal::RunStateConflict { run: id, status: run.status })
        }
    }

    /// Checks that the notes follow from what is recorded; the run's turn as they would leave it.
    pub(super) fn admit_notes(&self, id: RunId, number: u32, notes: &[Note]) -> Result<Step, Refusal> {
        let mut step = self.step(number).cloned().unwrap_or_default();
        for note in notes {
            let mark = Mark::read(note.kind, &note.body, 0, self.now_ms());
            let mark = mark.and_then(|mark| step.admits(&mark).map(|()| mark));
            step.fold(mark.map_err(|reason| Refusal::RecordConflict { run: id, reason })?);
        }
        Ok(step)
    }

    pub(super) fn emit_notes(&mut self, session: u32, number: u32, notes: Vec<Note>) {
        for note in notes {
            self.emit(session, number, Body::RunNote(note.kind, note.body));
        }
    }

    fn record_action(&mut self, run: Option<RunId>, note: Note) -> Result<Decision, Refusal> {
        let number = match run {
            Some(run) => self.known_run(run)?.0,
            None => 0,
        };
        let session = self.run(number).map_or(0, |run| run.session);
        self.emit_action(0, session, number, note.kind, &note.body);
        Ok(Decision::Recorded { last_seq: self.last_seq() })
    }

    fn cancel_run(&mut self, id: RunId, reason: Option<String>) -> Result<Decision, Refusal> {
        let (number, run) = self.known_run(id)?;
        if run.status.is_terminal() {
            return Ok(Decision::Run { run: id, status: run.status, changed: false });
        }
        self.emit(run.session, number, Body::RunCancelled(times(&run, reason)));
        self.end_agents_of_run(run.session, id);
        self.run_ended(run.session);
        Ok(Decision::Run { run: id, status: RunStatus::Cancelled, changed: true })
    }

    fn known_session(&self, id: &SessionId) -> Result<u32, Refusal> {
        self.session_number(id).ok_or_else(|| Refusal::SessionNotFound(id.clone()))
    }

    fn interrupt_session(&mut self, id: &SessionId) -> Result<Decision, Refusal> {
        let session = self.known_session(id)?;
        let before = self.events().len();
        let run = self.interrupt(session);
        Ok(Decision::Stopped { run, cancelled: 0, changed: self.events().len() > before })
    }

    /// Stops the active run of a session and what the agents below it do.
    pub(super) fn interrupt(&mut self, session: u32) -> Option<RunId> {
        let active = self.session(session).expect("numbered sessions exist").active;
        let id = (active != 0).then(|| self.base().run_id(active));
        if let Some(id) = id {
            let run = *self.run(active).expect("active runs exist");
            self.emit(session, 0, Body::SessionInterrupted);
            self.emit(session, active, Body::RunInterrupted(times(&run, Some("session interrupted".to_string()))));
            self.end_agents_of_run(session, id);
        }
        self.interrupt_agents_of(session);
        if id.is_some() {
            self.run_ended(session);
        }
        id
    }

    fn end_session(&mut self, id: &SessionId, reason: Option<String>) -> Result<Decision, Refusal> {
        let session = self.known_session(id)?;
        if self.session(session).expect("numbered sessions exist").ended {
            return Ok(Decision::Stopped { run: None, cancelled: 0, changed: false });
        }
        let (run, cancelled) = self.end(session, reason, "session ended");
        Ok(Decision::Stopped { run, cancelled, changed: true })
    }

    /// Ends an open session with its tasks, its runs and the agents below it: the run that was active, and how many were
    /// cancelled in the queue.
    pub(super) fn end(&mut self, session_number: u32, reason: Option<String>, why: &str) -> (Option<RunId>, u32) {
        let session = self.session(session_number).expect("numbered sessions exist").clone();
        self.stop_tasks_of(session_number, why);
        self.emit(session_number, 0, Body::SessionEnded(Reason { reason }));
        self.end_agents_of(session_number);
        let why = || Some(why.to_string());
        let mut next = session.queue_head;
        let mut cancelled = 0;
        while next != 0 {
            let run = *self.run(next).expect("queued runs exist");
            self.emit(session_number, next, Body::RunCancelled(times(&run, why())));
            cancelled += 1;
            next = run.queue_next;
        }
        if let Some(run) = self.run(session.active).copied() {
            self.emit(session_number, session.active, Body::RunInterrupted(times(&run, why())));
        }
        // Its parent may wait for it.
        self.wake_parent(session_number);
        ((session.active != 0).then(|| self.base().run_id(session.active)), cancelled)
    }

    fn set_hold(&mut self, held: bool, reason: Option<String>) -> Decision {
        let lets_go = !held && self.brought() != 0 && self.base().copy_held();
        if held != self.held() || lets_go {
            self.emit_global(None, Body::HoldChanged(HoldChanged { held, reason: reason.clone() }));
        }
        if !held {
            self.release_deliveries_of_start(reason.as_ref());
            self.release_connectors_of_start(reason);
        }
        Decision::Hold { held }
    }

    fn finish_run(&mut self, id: RunId, notes: Vec<Note>, outcome: Outcome) -> Result<Decision, Refusal> {
        let (number, run) = self.active_run(id)?;
        self.admit_notes(id, number, &notes)?;
        let output_of = notes.iter().rposition(|note| note.kind == NoteKind::Output);
        self.emit_notes(run.session, number, notes);
        let output = output_of.and_then(|_| self.newest_output(number));
        let owed = self.route_of(number).filter(|_| matches!(outcome, Outcome::Completed));
        let times = times(&run, None);
        let (status, body) = match outcome {
            Outcome::Completed => (RunStatus::Completed, Body::RunCompleted(times)),
            Outcome::Failed(error) => (RunStatus::Failed, Body::RunFailed(RunFailed { times, error })),
        };
        self.emit(run.session, number, body);
        if let (Some(targets), Some(output)) = (owed, output) {
            self.owe_deliveries(run.session, number, &targets, output);
        }
        if status == RunStatus::Failed {
            self.end_agents_of_run(run.session, id);
        }
        self.run_ended(run.session);
        Ok(Decision::Run { run: id, status, changed: true })
    }

    fn pump(&mut self, limit: usize) -> Decision {
        if self.held() {
            return Decision::Pumped { count: 0 };
        }
        let (resumable, promotable) = self.base().pump_candidates(limit);
        let count = resumable.len() + promotable.len();
        for number in resumable {
            // A command earlier in this batch may have stopped it.
            let Some(run) = self.run(number).copied().filter(|run| run.status == RunStatus::Running) else { continue };
            let findings = self.step(number).and_then(Step::findings);
            let found = if run.action_in_flight {
                ResumeFinding::ModelCallInFlight
            } else if findings.as_ref().is_some_and(|found| found.issued > 0 || !found.unknown.is_empty()) {
                ResumeFinding::ToolCallsOpen
            } else {
                ResumeFinding::NotStarted
            };
            let resumed = RunResumed { times: times(&run, None), found, findings };
            self.emit(run.session, number, Body::RunResumed(resumed));
        }
        for session in promotable {
            self.promote(session);
        }
        Decision::Pumped { count }
    }
}
