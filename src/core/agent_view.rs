//! Agents as callers see them: figures and pages.
//! Owns: the questions about agents that can be answered from memory.
//! Never: renders a wire type.

use std::sync::Arc;

use super::agent::Mailbox;
use super::session::Session;
use super::state::State;
use super::view::SessionView;
use crate::ids::SessionId;

/// Figures of all agents. Every session has one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AgentCounts {
    /// Agents ever made.
    pub total: u64,
    /// Those that another agent is the parent of.
    pub children: u64,
    /// Of these, those that are not closed.
    pub open_children: u64,
    /// Closed agents.
    pub closed: u64,
    /// Agents without an active run whose last run failed and that are not closed.
    pub failed: u64,
    /// Messages that wait or are under way.
    pub mail_waiting: u64,
    /// Messages that could not be delivered.
    pub mail_dead: u64,
}

impl AgentCounts {
    /// Counts a new or changed session.
    pub(super) fn count_session(&mut self, before: Option<&Session>, after: &Session) {
        let has_failed = |session: &Session| session.last_failed && session.active == 0 && !session.ended;
        let is_child = |session: &Session| session.child.is_some();
        match before {
            None => {
                self.total += 1;
                self.children += u64::from(is_child(after));
            }
            Some(before) => {
                self.closed -= u64::from(before.ended);
                self.failed -= u64::from(has_failed(before));
                self.open_children -= u64::from(is_child(before) && !before.ended);
            }
        }
        self.closed += u64::from(after.ended);
        self.failed += u64::from(has_failed(after));
        self.open_children += u64::from(is_child(after) && !after.ended);
    }

    /// Counts a new or changed mailbox.
    pub(super) fn count_mailbox(&mut self, before: Option<&Arc<Mailbox>>, after: Option<&Arc<Mailbox>>) {
        let of = |mailbox: Option<&Arc<Mailbox>>| {
            mailbox.map_or((0, 0), |mailbox| (mailbox.waiting() as u64, mailbox.dead.len() as u64))
        };
        let ((waiting_before, dead_before), (waiting, dead)) = (of(before), of(after));
        self.mail_waiting = self.mail_waiting - waiting_before + waiting;
        self.mail_dead = self.mail_dead - dead_before + dead;
    }
}

/// One agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentView {
    /// Its session.
    pub view: SessionView,
    /// The parent's session number; 0 is none.
    pub parent: u32,
    /// Its children that are not closed.
    pub open_children: u32,
    /// Messages for it that wait or are under way.
    pub mail_waiting: u32,
    /// Messages for it that could not be delivered.
    pub mail_dead: u32,
}

/// Which agents to list.
#[derive(Debug, Clone, Default)]
pub struct AgentQuery {
    /// Only the agent of this session and those below it.
    pub below: Option<SessionId>,
    /// Behind the agent with this number.
    pub after: u32,
    /// At most this many.
    pub limit: usize,
}

/// One page of agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPage {
    /// In order of creation.
    pub items: Vec<AgentView>,
    /// Agents in all pages.
    pub total: u64,
    /// Whether another page follows.
    pub has_more: bool,
}

impl State {
    /// The agent with this number.
    pub fn agent(&self, number: u32) -> Option<AgentView> {
        let session = self.session(number)?;
        let mailbox = self.mailbox(number);
        let is_open = |child: &&u32| self.session(**child).is_some_and(|child| !child.ended);
        Some(AgentView {
            view: self.session_view(&session.id)?,
            parent: session.child.as_ref().map_or(0, |child| child.parent),
            open_children: self.children_of(number).iter().filter(is_open).count() as u32,
            mail_waiting: mailbox.map_or(0, |mailbox| mailbox.waiting() as u32),
            mail_dead: mailbox.map_or(0, |mailbox| mailbox.dead.len() as u32),
        })
    }

    /// Whether the agent is the other one or stands below it.
    pub fn is_agent_below(&self, number: u32, above: u32) -> bool {
        let mut next = number;
        while next != above {
            match self.session(next).and_then(|session| session.child.as_ref()) {
                Some(child) => next = child.parent,
                None => return false,
            }
        }
        true
    }

    /// One page of agents. An unknown session gives an empty page.
    pub fn agent_page(&self, query: &AgentQuery) -> AgentPage {
        let (numbers, total): (Vec<u32>, u64) = match &query.below {
            None => {
                let last = self.sessions.len() as u32;
                let first = query.after.saturating_add(1);
                let end = last.min(query.after.saturating_add(query.limit as u32 + 1));
                ((first..=end).collect(), u64::from(last))
            }
            Some(id) => {
                let mut all: Vec<u32> = self.session_number(id).into_iter().collect();
                let mut next = 0;
                while let Some(number) = all.get(next).copied() {
                    all.extend(self.children_of(number));
                    next += 1;
                }
                all.sort_unstable();
                let total = all.len() as u64;
                (all.into_iter().filter(|number| *number > query.after).take(query.limit + 1).collect(), total)
            }
        };
        let has_more = numbers.len() > query.limit;
        let items = numbers.into_iter().take(query.limit).filter_map(|number| self.agent(number)).collect();
        AgentPage { items, total, has_more }
    }
}
