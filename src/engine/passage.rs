//! Which route a run's model calls go through: a place on it, and the way to another one when it fails.
//! Owns: the rules of failover, and giving up the engine where a route has no place free.
//! Never: moves a run silently: a failover is durable before the other route is asked.

use super::live_text::LiveText;
use super::records::{RouteMoved, note};
use super::run::Carried;
use super::turn::Left;
use crate::core::{Failure, Note, NoteKind};
use crate::providers::{ProviderError, Route};

impl<'r> Carried<'r> {
    /// Takes a place on the route. Where none is free the run stands in line, in nobody's hands, and goes on from the
    /// journal when it is called; `notes` are written before.
    pub(super) fn take_place(&mut self, notes: &mut Vec<Note>, live: &LiveText) -> Result<(), Left> {
        let (hand, route) = (self.hand, &self.route.id);
        let lanes = &hand.engine.tools.lanes;
        if lanes.enter(route, hand.job.id) {
            return Ok(());
        }
        if !notes.is_empty() {
            hand.record(std::mem::take(notes))?;
        }
        if !live.is_empty() {
            // What was shown by the route before is not what the next engine knows of.
            hand.engine.tools.hub.withdraw_previews(&hand.job.session, hand.job.id);
        }
        if lanes.enter_or_wait(route, hand.job.id) {
            return Ok(());
        }
        // Stopped before it stood in line: nobody else takes it out again.
        if hand.in_hand.cancel.is_cancelled() {
            lanes.leave(hand.job.id);
            return Err(Left::LetGo);
        }
        Err(Left::InLine)
    }

    /// No request of the run is under way.
    pub(super) fn give_up_place(&self) {
        self.hand.engine.tools.lanes.leave(self.hand.job.id);
    }

    /// The route and model that may do what these could not: the submission's other model first, then the route's failover.
    /// A failed call has run no tool and shown no text for good: tools run
    /// after an answer is complete, and previews are taken back when another answer says something else.
    pub(super) fn failover(&self, error: &ProviderError) -> Option<(&'r Route, String)> {
        if !error.class.may_fail_over() {
            return None;
        }
        let other = self.submitted.fallback_model.as_ref().filter(|other| **other != self.model);
        if let Some(model) = other.filter(|_| self.context.moved.is_none()) {
            return Some((self.route, model.clone()));
        }
        let engine = self.hand.engine;
        let named = self.route.failover.as_ref()?;
        // What an agent was not granted no failure grants it.
        let is_granted = self.scope.grants_route(named);
        let next = engine.tools.routes.as_ref()?.get(named).filter(|_| is_granted)?;
        Some((next, next.default_model.clone()))
    }

    /// Goes on with another route, for the rest of the run; the note that makes it durable.
    pub(super) fn move_to(&mut self, (next, model): (&'r Route, String), error: &ProviderError) -> Note {
        if next.id != self.route.id {
            self.give_up_place();
        }
        let failure = Failure { code: error.class.code().to_string(), message: error.to_string() };
        let Failure { code, message } = self.hand.presentable(failure);
        let moved = RouteMoved {
            from_route: self.route.id.clone(),
            from_model: self.model.to_string(),
            to_route: next.id.clone(),
            to_model: model.clone(),
            reason: code,
            message,
        };
        log::warn!(
            "{}: {} on route {} failed ({}), going on with {} on {}",
            self.hand.job.id,
            moved.from_model,
            moved.from_route,
            moved.reason,
            moved.to_model,
            moved.to_route
        );
        self.route = next;
        self.model = model;
        let note = note(NoteKind::RouteFailover, &moved);
        self.context.moved = Some(moved);
        note
    }
}
