//! What the daemon has seen of itself over time: since when something holds, and when a counter last grew.
//! Owns: the memory that a single answer of the status cannot have; it is filled twice a second by the main thread.
//! Never: survives a restart; a condition that outlives one is dated from the start.

use std::sync::{Mutex, PoisonError};

use super::groups::{DeliveryStatus, HooksStatus};
use crate::api::context::Api;
use crate::recent::{Recent, RecentView};

/// Counters whose growth is dated. Their totals are history; that they grow now is news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Deliveries given up, durable.
    DeadLetters,
    /// Hook calls given up, durable.
    HookDeadLetters,
    /// Given up hook calls that could not be kept.
    HookPersistFailures,
    /// Debug artifacts that could not be kept.
    CapturePersistFailures,
    /// Clients of event streams that were cut off.
    StreamsCutOff,
}

const COUNTERS: usize = Counter::StreamsCutOff as usize + 1;

#[derive(Debug, Default)]
struct Grown {
    /// The total when it was last looked at.
    total: Option<u64>,
    recent: Recent,
}

#[derive(Debug, Default)]
struct Inner {
    counters: [Grown; COUNTERS],
    route: Option<(RouteLevel, u64)>,
}

/// How the active route stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteLevel {
    /// It can be used.
    Ok,
    /// It can, and something is wrong with it.
    Warning,
    /// It cannot.
    Error,
    /// There is none.
    None,
}

/// The memory.
#[derive(Debug, Default)]
pub struct Observed {
    inner: Mutex<Inner>,
}

/// One look.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Totals by [`Counter`].
    pub totals: [u64; COUNTERS],
    /// How the active route stands.
    pub route: RouteLevel,
}

impl Observed {
    /// Takes in a look. The first one is where counting begins: durable totals of an earlier life are no growth.
    pub fn note(&self, look: Look, now_ms: u64) {
        let mut inner = self.lock();
        for (grown, total) in inner.counters.iter_mut().zip(look.totals) {
            let before = grown.total.replace(total).unwrap_or(total);
            grown.recent.note(total.saturating_sub(before), now_ms);
        }
        if inner.route.is_none_or(|(level, _)| level != look.route) {
            inner.route = Some((look.route, now_ms));
        }
    }

    /// When a counter has grown since the first look.
    pub fn growth(&self, counter: Counter, now_ms: u64) -> RecentView {
        self.lock().counters[counter as usize].recent.view(now_ms)
    }

    /// How the active route stands and since when, Unix milliseconds; `None` before the first look.
    pub fn route(&self) -> Option<(RouteLevel, u64)> {
        self.lock().route
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at the daemon; to be called twice a second, by the main thread. Does not wait.
pub fn observe(api: &Api) {
    let now_ms = api.clock.now_ms();
    api.facts.observed.note(look(api, &super::delivery(api), &super::hooks(api)), now_ms);
}

fn look(api: &Api, delivery: &DeliveryStatus, hooks: &HooksStatus) -> Look {
    let mut totals = [0; COUNTERS];
    totals[Counter::DeadLetters as usize] = delivery.dead_lettered;
    totals[Counter::HookDeadLetters as usize] = hooks.dead_lettered_count;
    totals[Counter::HookPersistFailures as usize] = hooks.dead_letter_persist_failure_count;
    totals[Counter::CapturePersistFailures as usize] = api.capture.stats().debug_artifact_persist_failures;
    totals[Counter::StreamsCutOff as usize] = api.hub.stats().cut_off;
    Look { totals, route: crate::api::readiness::active_route_level(api) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_before_the_first_look_is_no_growth() {
        let observed = Observed::default();
        let mut look = Look { totals: [0; COUNTERS], route: RouteLevel::Ok };
        look.totals[Counter::DeadLetters as usize] = 40;
        observed.note(look, 1_000);
        assert_eq!(observed.growth(Counter::DeadLetters, 1_000), RecentView::default());
        look.totals[Counter::DeadLetters as usize] = 42;
        observed.note(look, 60_000);
        // Settled ones leave the total, which is no growth either.
        look.totals[Counter::DeadLetters as usize] = 1;
        observed.note(look, 61_000);
        let expected = RecentView { count: 2, last_at_ms: Some(60_000), windows_10m: [2, 0, 0] };
        assert_eq!(observed.growth(Counter::DeadLetters, 62_000), expected);
    }

    #[test]
    fn a_level_is_dated_from_the_look_that_first_saw_it() {
        let observed = Observed::default();
        assert_eq!(observed.route(), None);
        for (route, now_ms, since_ms) in [
            (RouteLevel::Ok, 100, 100),
            (RouteLevel::Ok, 600, 100),
            (RouteLevel::Error, 1_100, 1_100),
            (RouteLevel::Error, 9_000, 1_100),
            (RouteLevel::Warning, 9_500, 9_500),
        ] {
            observed.note(Look { totals: [0; COUNTERS], route }, now_ms);
            assert_eq!(observed.route(), Some((route, since_ms)), "at {now_ms}");
        }
    }
}
