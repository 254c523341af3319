//! User questions: answering, declining, withdrawing, and their deadlines.
//! Owns: when an answer is taken.
//! Never: checks that answers fit their questions; the texts are in the journal and the control plane compares them.

use super::command::{Answer, Decision, IdempotencyKey, Refusal, Target};
use super::event::Body;
use super::run::{Run, RunStatus};
use super::step::PendingQuestion;
use super::turn::QuestionResolved;
use super::txn::{Txn, times};
use crate::ids::RunId;

impl Txn<'_> {
    /// The open question with this id.
    fn pending_question(&self, number: u32, run: &Run, run_id: RunId, id: &str) -> Result<PendingQuestion, Refusal> {
        match run.status {
            RunStatus::WaitingForUserQuestion => {}
            RunStatus::Queued => return Err(Refusal::RunStateConflict { run: run_id, status: run.status }),
            status => return Err(Refusal::QuestionStateConflict { run: Some(run_id), status: Some(status) }),
        }
        let question = self.step(number).and_then(|step| step.question.clone()).expect("such runs have a question");
        if question.id != id {
            return Err(Refusal::QuestionMismatch { asked: id.to_string(), pending: question.id });
        }
        if question.expires_at_ms.is_some_and(|at_ms| at_ms <= self.now_ms()) {
            return Err(Refusal::QuestionExpired(question.id));
        }
        Ok(question)
    }

    pub(super) fn resolve_question(
        &mut self,
        target: Target,
        answer: Answer,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Decision, Refusal> {
        if let Some(decision) = self.repeated_answer(idempotency.as_ref())? {
            return Ok(decision);
        }
        let idle = || Refusal::QuestionStateConflict { run: None, status: None };
        let (number, run, run_id) = self.target(target, idle)?;
        let question = self.pending_question(number, &run, run_id, &answer.id)?;
        let Answer { answers, declined, justification, .. } = answer;
        let resolved = QuestionResolved {
            id: question.id,
            call: question.call,
            answers,
            declined,
            justification,
            reason: None,
            idempotency,
        };
        self.emit(run.session, number, Body::QuestionResolved(resolved));
        self.emit(run.session, number, Body::RunContinued(times(&run, None)));
        Ok(Decision::Run { run: run_id, status: RunStatus::Running, changed: true })
    }

    pub(super) fn cancel_question(
        &mut self,
        run_id: RunId,
        id: &str,
        justification: Option<String>,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Decision, Refusal> {
        if let Some(decision) = self.repeated_answer(idempotency.as_ref())? {
            return Ok(decision);
        }
        let (number, run) = self.known_run(run_id)?;
        let question = self.pending_question(number, &run, run_id, id)?;
        self.withdraw(number, &run, question, "cancelled", justification, idempotency);
        Ok(Decision::Run { run: run_id, status: RunStatus::Cancelled, changed: true })
    }

    pub(super) fn expire_question(&mut self, number: u32, run: Run) {
        let question = self.step(number).and_then(|step| step.question.clone());
        if let Some(question) = question.filter(|open| open.expires_at_ms.is_some_and(|at| at <= self.now_ms())) {
            if question.to_parent || question.for_server {
                self.decline_unanswered(number, &run, question);
            } else {
                self.withdraw(number, &run, question, super::approvals::EXPIRED, None, None);
            }
        }
    }

    /// A child that asked its parent, or a call that asked for a server, goes on without an answer.
    fn decline_unanswered(&mut self, number: u32, run: &Run, question: PendingQuestion) {
        let resolved = QuestionResolved {
            id: question.id,
            call: question.call,
            answers: Vec::new(),
            declined: true,
            justification: None,
            reason: Some(super::approvals::EXPIRED.to_string()),
            idempotency: None,
        };
        self.emit(run.session, number, Body::QuestionResolved(resolved));
        self.emit(run.session, number, Body::RunContinued(times(run, None)));
    }

    fn withdraw(
        &mut self,
        number: u32,
        run: &Run,
        question: PendingQuestion,
        reason: &str,
        justification: Option<String>,
        idempotency: Option<IdempotencyKey>,
    ) {
        let resolved = QuestionResolved {
            id: question.id,
            call: question.call,
            answers: Vec::new(),
            declined: true,
            justification,
            reason: Some(reason.to_string()),
            idempotency,
        };
        self.emit(run.session, number, Body::QuestionResolved(resolved));
        let why = format!("question {reason}");
        self.emit(run.session, number, Body::RunCancelled(times(run, Some(why))));
        self.end_agents_of_run(run.session, self.base().run_id(number));
        self.run_ended(run.session);
    }
}
