//! Routes that take only so many requests at once: who is on them, and who is next.
//! Owns: the places of each limited route and the line before it, first come, first served.
//! May touch: the core, to have a run handed out again whose turn has come.
//! Never: holds an engine. A run that waits is in nobody's hands; it is handed out again when it has a place.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use serde::Serialize;

use super::call_counts::CallCounts;
use crate::commit::CoreHandle;
use crate::ids::RunId;
use crate::providers::Routes;

/// The lanes of all routes that have a limit. Cheap to clone.
#[derive(Clone, Default)]
pub struct Lanes(Arc<Shared>);

#[derive(Default)]
struct Shared {
    lanes: Mutex<BTreeMap<String, Lane>>,
    core: OnceLock<CoreHandle>,
    /// Without limited routes nothing is ever looked up.
    is_empty: bool,
    calls: CallCounts,
}

/// A route's places. The line is as long as there are active runs at most, since a run stands in it once.
#[derive(Default)]
struct Lane {
    limit: usize,
    /// Runs with a place: their request is under way, or they were called and are about to make it.
    holders: BTreeSet<RunId>,
    waiting: VecDeque<(RunId, Instant)>,
}

/// A lane as status shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LaneView {
    /// Requests at once, at most.
    pub max_concurrency: usize,
    /// Model calls under way.
    pub in_flight: usize,
    /// Runs that wait for a place.
    pub waiting: usize,
    /// How long the first of them has waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_wait_ms: Option<u64>,
}

impl Lane {
    /// Whether the run has a place, as from now if one is free and nobody was there before.
    fn enter(&mut self, run: RunId) -> bool {
        let is_free = self.waiting.is_empty() && self.holders.len() < self.limit;
        if is_free {
            self.holders.insert(run);
        }
        is_free || self.holders.contains(&run)
    }

    /// Gives free places to those who wait; their runs.
    fn call_next(&mut self) -> Vec<RunId> {
        let mut called = Vec::new();
        while self.holders.len() < self.limit
            && let Some((run, _)) = self.waiting.pop_front()
        {
            self.holders.insert(run);
            called.push(run);
        }
        called
    }
}

impl Lanes {
    /// Lanes for the routes that have a limit.
    pub fn new(routes: Option<&Routes>) -> Self {
        let limited = routes.into_iter().flat_map(Routes::iter).filter_map(|route| {
            let lane = Lane { limit: route.max_concurrency?, ..Lane::default() };
            Some((route.id.clone(), lane))
        });
        let lanes: BTreeMap<String, Lane> = limited.collect();
        Self(Arc::new(Shared { is_empty: lanes.is_empty(), lanes: Mutex::new(lanes), ..Shared::default() }))
    }

    /// How the calls on all of them went.
    pub fn calls(&self) -> &CallCounts {
        &self.0.calls
    }

    /// Names the core that hands out runs whose turn has come. Once, before any run is carried.
    pub fn attach(&self, core: CoreHandle) {
        self.0.core.get_or_init(|| core);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Lane>> {
        self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place on the route if one is free and nobody waits, or if the run has one already.
    pub(super) fn enter(&self, route: &str, run: RunId) -> bool {
        self.0.is_empty || self.lock().get_mut(route).is_none_or(|lane| lane.enter(run))
    }

    /// As [`Lanes::enter`]; otherwise the run stands in line from now on and is handed out again by the core, perhaps
    /// before this returns.
    pub(super) fn enter_or_wait(&self, route: &str, run: RunId) -> bool {
        let mut lanes = self.lock();
        let Some(lane) = lanes.get_mut(route) else { return true };
        let has_place = lane.enter(run);
        if !has_place && lane.waiting.iter().all(|(other, _)| *other != run) {
            lane.waiting.push_back((run, Instant::now()));
        }
        has_place
    }

    /// The run makes no request now: it gives up its place, or leaves the line.
    pub fn leave(&self, run: RunId) {
        if self.0.is_empty {
            return;
        }
        let mut called = Vec::new();
        for lane in self.lock().values_mut() {
            let had_place = lane.holders.remove(&run);
            lane.waiting.retain(|(other, _)| *other != run);
            if had_place {
                called.append(&mut lane.call_next());
            }
        }
        if let Some(core) = self.0.core.get() {
            called.into_iter().for_each(|run| core.hand_again(run));
        }
    }

    /// The lane of a route, if it has a limit.
    pub fn view(&self, route: &str) -> Option<LaneView> {
        let lanes = self.lock();
        let lane = lanes.get(route)?;
        Some(LaneView {
            max_concurrency: lane.limit,
            in_flight: lane.holders.len(),
            waiting: lane.waiting.len(),
            oldest_wait_ms: lane.waiting.front().map(|(_, since)| since.elapsed().as_millis() as u64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(number: u32) -> RunId {
        RunId { number, epoch: 0 }
    }

    fn lanes(limit: usize) -> Lanes {
        let lane = Lane { limit, ..Lane::default() };
        let lanes = Mutex::new(BTreeMap::from([("main".to_string(), lane)]));
        Lanes(Arc::new(Shared { lanes, ..Shared::default() }))
    }

    fn figures(lanes: &Lanes) -> (usize, usize) {
        let view = lanes.view("main").unwrap();
        (view.in_flight, view.waiting)
    }

    #[test]
    fn places_go_to_those_who_came_first_and_nobody_overtakes() {
        let lanes = lanes(2);
        assert!([1, 2].into_iter().all(|number| lanes.enter("main", run(number))));
        assert!(!lanes.enter("main", run(3)), "not queued yet");
        assert!(![3, 4, 5, 3].into_iter().any(|number| lanes.enter_or_wait("main", run(number))));
        assert_eq!(figures(&lanes), (2, 3), "once in line, however often it asks");
        lanes.leave(run(1));
        assert_eq!(figures(&lanes), (2, 2), "the place is passed on at once");
        assert!(!lanes.enter("main", run(1)), "whoever was there is behind those who wait");
        assert!(lanes.enter("main", run(3)) && !lanes.enter("main", run(4)));
        // One that is stopped while it waits, and one that is stopped when it was called but not yet back.
        lanes.leave(run(4));
        lanes.leave(run(3));
        assert!(lanes.enter("main", run(5)), "the place of a stopped run is not lost");
        lanes.leave(run(2));
        lanes.leave(run(5));
        assert_eq!(figures(&lanes), (0, 0));
        assert!(lanes.enter("other", run(9)) && lanes.view("other").is_none(), "no limit, no lane");
        assert!(Lanes::new(None).enter("main", run(9)));
    }
}
