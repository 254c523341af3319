//! Approvals: waiting for them, giving and refusing them, and their deadlines.
//! Owns: the rules of a batch of answers, and what settles approvals without a person.
//! Never: judges whether a call may run; it records who said what.

use super::command::{Decision, IdempotencyKey, Note, Refusal, Resolution, Target};
use super::event::Body;
use super::run::{Run, RunStatus};
use super::runtime_decide::DONT_ASK;
use super::step::PendingApproval;
use super::turn::{ApprovalResolved, Ruling, RunWaiting, WaitsFor};
use super::txn::{Txn, times};
use crate::ids::RunId;
use crate::permissions::Mode;

/// Reason of an approval that nobody resolved before its deadline.
pub const EXPIRED: &str = "expired";

impl Txn<'_> {
    /// The run that a command means; `Err` is the refusal for a session without an active one.
    pub(super) fn target(&self, target: Target, idle: fn() -> Refusal) -> Result<(u32, Run, RunId), Refusal> {
        match target {
            Target::Run(id) => {
                let (number, run) = self.known_run(id)?;
                Ok((number, run, id))
            }
            Target::Session(id) => {
                let session = self.session_number(&id).ok_or(Refusal::SessionNotFound(id))?;
                let number = self.session(session).expect("numbered sessions exist").active;
                let run = *self.run(number).ok_or_else(idle)?;
                Ok((number, run, self.base().run_id(number)))
            }
        }
    }

    /// The run of an earlier answer with this key; `None` when the key is new.
    pub(super) fn repeated_answer(&self, key: Option<&IdempotencyKey>) -> Result<Option<Decision>, Refusal> {
        let Some(key) = key else { return Ok(None) };
        let Some((fingerprint, number)) = self.receipt(&key.key) else { return Ok(None) };
        let run = self.base().run_id(number);
        if fingerprint != key.fingerprint {
            return Err(Refusal::IdempotencyConflict { run });
        }
        let status = self.run(number).expect("receipts name known runs").status;
        Ok(Some(Decision::Run { run, status, changed: false }))
    }

    pub(super) fn suspend(&mut self, id: RunId, notes: Vec<Note>) -> Result<Decision, Refusal> {
        let (number, run) = self.active_run(id)?;
        let step = self.admit_notes(id, number, &notes)?;
        let Some(waits_for) = step.waits_for() else {
            return Err(Refusal::RecordConflict { run: id, reason: "a run waits for nothing".to_string() });
        };
        self.emit_notes(run.session, number, notes);
        let request_ids = match &step.question {
            Some(question) => vec![question.id.clone()],
            None if waits_for == WaitsFor::Agents => Vec::new(),
            None => step.approvals.iter().map(|approval| approval.id.clone()).collect(),
        };
        let waiting = RunWaiting { times: times(&run, None), waits_for, request_ids };
        self.emit(run.session, number, Body::RunWaiting(waiting));
        // The mode may have changed since the call was judged.
        if self.refuses_asks(run.session) {
            self.deny_pending(number, DONT_ASK, |_| true);
        }
        match waits_for {
            // They may rest by now.
            WaitsFor::Agents => self.continue_if_agents_rest(number),
            // A child that asks its parent.
            WaitsFor::UserQuestion => self.wake_parent(run.session),
            WaitsFor::Approval => {}
        }
        let status = self.run(number).expect("active runs exist").status;
        Ok(Decision::Run { run: id, status, changed: true })
    }

    pub(super) fn resolve_approvals(
        &mut self,
        target: Target,
        resolutions: Vec<Resolution>,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Decision, Refusal> {
        if let Some(decision) = self.repeated_answer(idempotency.as_ref())? {
            return Ok(decision);
        }
        if resolutions.is_empty() {
            return Err(Refusal::ApprovalBatchEmpty);
        }
        let idle = || Refusal::ApprovalStateConflict { run: None, status: None };
        let (number, run, id) = self.target(target, idle)?;
        match run.status {
            RunStatus::WaitingForApproval => {}
            RunStatus::Queued => return Err(Refusal::RunStateConflict { run: id, status: run.status }),
            status => return Err(Refusal::ApprovalStateConflict { run: Some(id), status: Some(status) }),
        }
        let pending = self.step(number).map(|step| step.approvals.clone()).unwrap_or_default();
        let mut calls = Vec::with_capacity(resolutions.len());
        for (place, resolution) in resolutions.iter().enumerate() {
            if resolutions[..place].iter().any(|earlier| earlier.id == resolution.id) {
                return Err(Refusal::ApprovalDuplicate(resolution.id.clone()));
            }
            let open = pending.iter().find(|approval| approval.id == resolution.id);
            let Some(open) = open.filter(|open| open.expires_at_ms.is_none_or(|at_ms| at_ms > self.now_ms())) else {
                return Err(Refusal::ApprovalNotPending(resolution.id.clone()));
            };
            calls.push(open.call.clone());
        }
        // The receipt is written once, with the first of the batch.
        let mut idempotency = idempotency;
        for (resolution, call) in resolutions.into_iter().zip(calls) {
            let Resolution { id, allow, updated_input, justification, reason } = resolution;
            let behavior = if allow { Ruling::Allow } else { Ruling::Deny };
            let idempotency = idempotency.take();
            let resolved = ApprovalResolved { id, call, behavior, updated_input, justification, reason, idempotency };
            self.emit(run.session, number, Body::ApprovalResolved(resolved));
        }
        self.continue_if_settled(number);
        let status = self.run(number).expect("known above").status;
        Ok(Decision::Run { run: id, status, changed: true })
    }

    /// Lets a run go on that waits for nothing any more.
    fn continue_if_settled(&mut self, number: u32) {
        let run = *self.run(number).expect("settled runs exist");
        if run.status == RunStatus::WaitingForApproval && self.step(number).is_none_or(|step| step.approvals.is_empty())
        {
            self.emit(run.session, number, Body::RunContinued(times(&run, None)));
        }
    }

    fn deny_pending(&mut self, number: u32, reason: &str, settle: impl Fn(&PendingApproval) -> bool) -> u32 {
        let run = *self.run(number).expect("waiting runs exist");
        let pending = self.step(number).map(|step| step.approvals.clone()).unwrap_or_default();
        let mut settled = 0;
        for approval in pending.into_iter().filter(settle) {
            let resolved = ApprovalResolved {
                id: approval.id,
                call: approval.call,
                behavior: Ruling::Deny,
                updated_input: None,
                justification: None,
                reason: Some(reason.to_string()),
                idempotency: None,
            };
            self.emit(run.session, number, Body::ApprovalResolved(resolved));
            settled += 1;
        }
        if settled > 0 {
            self.continue_if_settled(number);
        }
        settled
    }

    /// Settles every pending approval as denied, of one session (by number) or of all, and lets their runs go on: no
    /// call is left hanging when nobody is to be asked any more. Stops after `runs_max` runs; while the whole daemon is
    /// in `dontAsk`, expiry settles the rest. Returns how many approvals it settled.
    pub(super) fn settle_pending_as_denied(&mut self, session: Option<u32>, reason: &str, runs_max: usize) -> u32 {
        let (mut settled, mut runs) = (0, 0);
        for number in self.runs_with_steps() {
            if runs == runs_max {
                break;
            }
            let Some(run) = self.run(number).filter(|run| run.status == RunStatus::WaitingForApproval) else {
                continue;
            };
            if session.is_none_or(|session| session == run.session) {
                settled += self.deny_pending(number, reason, |_| true);
                runs += 1;
            }
        }
        settled
    }

    pub(super) fn expire(&mut self, limit: usize) -> Decision {
        self.expire_runtime();
        if self.base().wants_settling() && self.runtime().settings().permission_mode == Mode::DontAsk {
            self.settle_pending_as_denied(None, DONT_ASK, limit);
        }
        let due = self.base().due(self.now_ms(), limit);
        let count = due.len();
        for number in due {
            // A command earlier in this batch may have settled it.
            let Some(run) = self.run(number).copied() else { continue };
            let now_ms = self.now_ms();
            match run.status {
                RunStatus::WaitingForApproval => {
                    let is_due = |approval: &PendingApproval| approval.expires_at_ms.is_some_and(|at| at <= now_ms);
                    self.deny_pending(number, EXPIRED, is_due);
                }
                RunStatus::WaitingForUserQuestion => self.expire_question(number, run),
                RunStatus::Running => self.continue_if_agents_rest(number),
                _ => {}
            }
        }
        Decision::Pumped { count }
    }
}
