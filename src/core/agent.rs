//! Agents: who made whom, and what they tell each other.
//! Owns: a child's link to its parent, mailboxes, and the records `mailbox.*`.
//! Never: starts a run; that is decided beside it.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::agent_scope::AgentScope;
use super::event::{Event, Idempotency, RunAccepted};
use super::run::RunStatus;
use super::txn::Txn;
use crate::ids::{RunId, Seq, SessionId};
use crate::limits::MAILBOX_DEAD_MAX;

/// What becomes of a child agent whose work is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retention {
    /// It stays open for further input and messages.
    #[default]
    Retain,
    /// Its session ends with its last run.
    CloseOnSettle,
}

impl Retention {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retain => "retain",
            Self::CloseOnSettle => "close_on_settle",
        }
    }
}

/// Who made an agent. Part of `session.created`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentLink {
    /// The parent's session.
    pub session: SessionId,
    /// The run that asked for it; without one an operator did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The tool call that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// A word for people and for the parent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What becomes of it.
    #[serde(default)]
    pub retention: Retention,
    /// What it may use.
    #[serde(default)]
    pub scope: AgentScope,
    /// Hashes that make a repeated request return this agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<Idempotency>,
}

/// A session's place below another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildOf {
    /// Number of the parent's session.
    pub parent: u32,
    /// Number of the session at the top.
    pub root: u32,
    /// Levels below it, from 1.
    pub depth: u32,
    /// All that was said of it.
    #[serde(flatten)]
    pub link: AgentLink,
}

/// Body of `mailbox.posted`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mail {
    /// Unique in its mailbox while it waits.
    pub id: String,
    /// `agent-<n>`, or who else sends it.
    pub from: String,
    /// A few words.
    pub subject: String,
    /// What is said.
    pub payload: Value,
    /// When it is not worth delivering any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    /// Route of the run that takes it.
    pub route: String,
    /// Model of that run.
    pub model: String,
}

/// A message with its history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The message.
    pub mail: Mail,
    /// When it was posted, Unix milliseconds.
    pub at_ms: u64,
    /// Its `mailbox.posted` record.
    pub seq: Seq,
    /// Runs that were to take it.
    #[serde(default)]
    pub attempts: u32,
    /// Why it was not delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The messages of one agent that somebody still has to deal with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Mailbox {
    /// Oldest first.
    pub pending: Vec<Held>,
    /// Number of the run that takes those under way; 0 is none.
    pub run: u32,
    /// Under way.
    pub delivering: Vec<Held>,
    /// Not delivered, oldest first.
    pub dead: VecDeque<Held>,
}

impl Mailbox {
    /// Messages that wait or are under way.
    pub fn waiting(&self) -> usize {
        self.pending.len() + self.delivering.len()
    }

    /// How many of these still count at `now_ms`, and their bytes, roughly: what has expired leaves with the next record.
    pub(super) fn load(&self, now_ms: u64) -> (usize, usize) {
        let counted = self.pending.iter().filter(|held| !held.is_expired(now_ms)).chain(&self.delivering);
        counted.fold((0, 0), |(count, bytes), held| (count + 1, bytes + held.mail.payload.to_string().len()))
    }

    fn bury(&mut self, held: Held, error: &str) {
        self.dead.push_back(Held { error: Some(error.to_string()), ..held });
        while self.dead.len() > MAILBOX_DEAD_MAX {
            self.dead.pop_front();
        }
    }

    fn bury_pending(&mut self, error: &str, is_meant: impl Fn(&Held) -> bool) {
        let (gone, kept) = std::mem::take(&mut self.pending).into_iter().partition(is_meant);
        self.pending = kept;
        let gone: Vec<Held> = gone;
        gone.into_iter().for_each(|held| self.bury(held, error));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting() == 0 && self.dead.is_empty()
    }

    /// The message with this id, wherever it is.
    pub fn find(&self, id: &str) -> Option<&Held> {
        self.pending.iter().chain(&self.delivering).chain(&self.dead).find(|held| held.mail.id == id)
    }
}

impl Held {
    pub(super) fn is_expired(&self, now_ms: u64) -> bool {
        self.mail.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms)
    }
}

/// Body of `mailbox.acknowledged`: somebody took the message by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailAcknowledged {
    /// The message.
    pub id: String,
}

/// What happened to a mailbox. The records stand in the recipient's session.
#[derive(Debug, Clone, PartialEq)]
pub enum MailRecord {
    /// A message came.
    Posted(Mail),
    /// One was taken out by hand.
    Acknowledged(MailAcknowledged),
}

impl MailRecord {
    /// The record kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Posted(_) => "mailbox.posted",
            Self::Acknowledged(_) => "mailbox.acknowledged",
        }
    }

    /// The body as JSON.
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Posted(body) => serde_json::to_vec(body),
            Self::Acknowledged(body) => serde_json::to_vec(body),
        }
        .expect("bodies have string keys and no failing serialisers")
    }

    /// Reads a record back; `None` when the kind is no mailbox's.
    pub(super) fn decode(kind: &str, body: &RawValue) -> Option<Result<Self, serde_json::Error>> {
        Some(match kind {
            "mailbox.posted" => serde_json::from_str(body.get()).map(Self::Posted),
            "mailbox.acknowledged" => serde_json::from_str(body.get()).map(Self::Acknowledged),
            _ => return None,
        })
    }
}

impl Txn<'_> {
    fn change_mailbox(&mut self, session: u32, change: impl FnOnce(&mut Mailbox)) {
        let mut mailbox = self.mailbox(session).cloned().unwrap_or_default();
        change(&mut mailbox);
        self.stage_mailbox(session, (!mailbox.is_empty()).then(|| Arc::new(mailbox)));
    }

    pub(super) fn apply_mail(&mut self, event: &Event, session: u32, record: &MailRecord) -> Result<(), String> {
        match record {
            MailRecord::Posted(mail) => {
                if self.mailbox(session).is_some_and(|mailbox| mailbox.find(&mail.id).is_some()) {
                    return Err(format!("message {} is posted twice", mail.id));
                }
                let held = Held { mail: mail.clone(), at_ms: event.at_ms, seq: event.seq, attempts: 0, error: None };
                self.change_mailbox(session, |mailbox| {
                    mailbox.bury_pending("expired", |held| held.is_expired(event.at_ms));
                    mailbox.pending.push(held);
                });
            }
            MailRecord::Acknowledged(taken) => self.change_mailbox(session, |mailbox| {
                mailbox.pending.retain(|held| held.mail.id != taken.id);
                mailbox.dead.retain(|held| held.mail.id != taken.id);
            }),
        }
        Ok(())
    }

    /// A run that takes messages was accepted: they are under way, and what has expired meanwhile is not.
    pub(super) fn apply_mail_taken(&mut self, event: &Event, session: u32, run: u32, accepted: &RunAccepted) {
        if accepted.mail.is_empty() {
            return;
        }
        self.change_mailbox(session, |mailbox| {
            let is_taken = |held: &Held| accepted.mail.contains(&held.mail.id);
            let (taken, left) = std::mem::take(&mut mailbox.pending).into_iter().partition(is_taken);
            mailbox.pending = left;
            mailbox.delivering = taken;
            mailbox.delivering.iter_mut().for_each(|held| held.attempts += 1);
            mailbox.run = run;
            mailbox.bury_pending("expired", |held| held.is_expired(event.at_ms));
        });
    }

    /// A run has ended: what it took is delivered, or it is not.
    pub(super) fn apply_mail_run_ended(&mut self, session: u32, run: u32, status: RunStatus) {
        if self.mailbox(session).is_none_or(|mailbox| mailbox.run != run) {
            return;
        }
        self.change_mailbox(session, |mailbox| {
            mailbox.run = 0;
            for held in std::mem::take(&mut mailbox.delivering) {
                if status != RunStatus::Completed {
                    mailbox.bury(held, &format!("the run that took it is {}", status.as_str()));
                }
            }
        });
    }

    /// Nobody reads a closed agent's messages.
    pub(super) fn apply_mailbox_closed(&mut self, session: u32) {
        if self.mailbox(session).is_some() {
            self.change_mailbox(session, |mailbox| mailbox.bury_pending("recipient_closed", |_| true));
        }
    }
}
