//! A run in hand and what may be done to its records.
//! Owns: waiting out a full disk or mailbox, and the end of the run.
//! Never: decides what is recorded.

use std::time::Duration;

use super::run::Engine;
use super::stops::InHand;
use super::turn::Left;
use crate::broker::SubjectId;
use crate::commit::{CommandError, Job};
use crate::core::{Command, Decision, Failure, Note, NoteKind, Outcome};
use crate::debug_capture::Kind;
use crate::ids::Seq;
use crate::limits::{ENGINE_RETRY_MS, RUN_ERROR_BYTES_MAX};

/// A run in the hands of an engine.
#[derive(Clone, Copy)]
pub(super) struct Hand<'a> {
    pub engine: &'a Engine,
    pub job: &'a Job,
    pub in_hand: &'a InHand,
}

impl Hand<'_> {
    /// Waits before a next try; whoever stops the run or the daemon meanwhile ends the wait.
    pub(super) fn pause(&self, delay_ms: u64) -> Result<(), Left> {
        if self.in_hand.cancel.wait(Duration::from_millis(delay_ms)) { Err(Left::LetGo) } else { Ok(()) }
    }

    fn until_taken(&self, command: &Command) -> Result<Decision, Left> {
        loop {
            match self.engine.tools.core.execute(command.clone()) {
                Ok(decision) => return Ok(decision),
                Err(CommandError::StorageFull { .. } | CommandError::WriteFailed { .. } | CommandError::Busy) => {
                    self.pause(ENGINE_RETRY_MS)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What the core says to a question. A core that is busy or held up by its disk is asked again, for as long as the run
    /// is not stopped: letting it go would strand it until the next start.
    pub(super) fn ask<T>(&self, question: impl Fn() -> Result<T, CommandError>) -> Result<T, Left> {
        loop {
            match question() {
                Ok(answer) => return Ok(answer),
                Err(CommandError::Busy | CommandError::NoAnswer { .. }) => self.pause(ENGINE_RETRY_MS)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Makes notes durable; the last one's position.
    pub(super) fn record(&self, notes: Vec<Note>) -> Result<Seq, Left> {
        match self.until_taken(&Command::Record { run: self.job.id, notes })? {
            Decision::Recorded { last_seq } => Ok(last_seq),
            other => unreachable!("a record is answered by its position, not by {other:?}"),
        }
    }

    /// Makes notes durable and lets the run wait for what they ask.
    pub(super) fn suspend(&self, notes: Vec<Note>) -> Result<(), Left> {
        self.until_taken(&Command::Suspend { run: self.job.id, notes }).map(|_| ())
    }

    /// The agents and sessions above a child: a revocation of any of them reaches what it uses.
    pub(super) fn those_above(&self) -> Result<Vec<SubjectId>, Left> {
        self.ask(|| {
            let session = self.job.session.clone();
            self.engine.tools.core.read(move |state| {
                let mut above = Vec::new();
                let mut next = state.session_number(&session).and_then(|number| state.session(number));
                while let Some(child) = next.and_then(|session| session.child.as_ref()) {
                    above.push(SubjectId::agent(format!("agent-{}", child.parent)));
                    above.push(SubjectId::session(&child.link.session));
                    next = state.session(child.parent);
                }
                above
            })
        })
    }

    /// Keeps a piece of an exchange for debugging, as far as the level in force says.
    pub(super) fn capture(&self, kind: Kind, bytes: impl FnOnce() -> Vec<u8>) {
        if let Some(capture) = &self.engine.tools.capture {
            capture.capture(self.job.id, kind, bytes);
        }
    }

    /// Redacted and bounded.
    pub(super) fn presentable(&self, failure: Failure) -> Failure {
        let mut message = self.engine.tools.broker.redact(&failure.message);
        if message.len() > RUN_ERROR_BYTES_MAX {
            let end = (0..=RUN_ERROR_BYTES_MAX).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
            message.truncate(end);
        }
        Failure { message, ..failure }
    }

    /// Ends the run with a failure.
    pub(super) fn fail(&self, failure: Failure, notes: Vec<Note>) {
        let failure = self.presentable(failure);
        log::warn!("{} failed: {}: {}", self.job.id, failure.code, failure.message);
        self.finish(notes, Outcome::Failed(failure));
    }

    /// Ends the run. An answer that no batch can hold is replaced by a failure that says so; that it came stays recorded.
    /// A full disk is waited out, since the answer in hand was paid for; whoever stops the run
    /// or the daemon meanwhile ends the wait.
    pub(super) fn finish(&self, notes: Vec<Note>, outcome: Outcome) {
        loop {
            let finish = Command::Finish { run: self.job.id, notes: notes.clone(), outcome: outcome.clone() };
            match self.engine.tools.core.execute(finish) {
                Err(CommandError::StorageFull { .. } | CommandError::WriteFailed { .. } | CommandError::Busy) => {
                    if self.in_hand.cancel.wait(Duration::from_millis(ENGINE_RETRY_MS)) {
                        return;
                    }
                }
                Err(CommandError::TooLarge { reason }) => {
                    let failure = Failure { code: "record_too_large".to_string(), message: reason };
                    let mut notes = notes;
                    notes.retain(|note| note.kind == NoteKind::ActionResponse);
                    return self.finish(notes, Outcome::Failed(failure));
                }
                Ok(_) | Err(_) => return,
            }
        }
    }
}
