//! All deliveries that are kept, and which one comes next.
//! Owns: the order of deliveries to one target, the share of senders that unproven targets get, what is forgotten.
//! Never: forgets a delivery that is owed or a dead letter that nobody has dealt with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::delivery::{Delivery, DeliveryCounts, DeliveryStatus, ReplyPlugin, TargetKey, TargetPressure};
use crate::ids::Seq;
use crate::limits::{DELIVERIES_KEPT_MAX, DELIVERY_SENDERS_UNPROVEN_MAX, DELIVERY_TARGETS_KEPT_MAX};

/// What is known of a target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TargetState {
    #[serde(flatten)]
    pub(super) pressure: TargetPressure,
    /// It has taken a delivery before.
    #[serde(default)]
    pub(super) proven: bool,
    #[serde(default)]
    pub(super) last_attempt_at_ms: u64,
    /// The newest record about it.
    #[serde(default)]
    pub(super) touched: Seq,
}

impl TargetState {
    /// Whether its last attempt did what it should.
    fn is_proven(&self) -> bool {
        self.proven && self.pressure.consecutive_failures == 0
    }
}

/// Why nothing is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryHold {
    /// Since when, Unix milliseconds; 0 where the start of a copied state root did it.
    pub since_ms: u64,
    /// Operator's words, or `copied_state_root`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a batch changes of deliveries.
#[derive(Debug, Default)]
pub(super) struct DeliveryDelta {
    pub(super) rows: BTreeMap<u32, Delivery>,
    pub(super) targets: BTreeMap<TargetKey, TargetState>,
    /// Targets of runs under way; none for one that has ended.
    pub(super) routes: BTreeMap<u32, Option<Arc<[TargetKey]>>>,
    /// Targets in `routes`, an upper bound.
    pub(super) routed: usize,
    pub(super) hold: Option<Option<DeliveryHold>>,
}

/// All deliveries that are kept.
#[derive(Debug, Clone, Default)]
pub(super) struct Deliveries {
    pub(super) created: u32,
    pub(super) delivered: u64,
    pub(super) dead: u64,
    pub(super) hold: Option<DeliveryHold>,
    /// Whether connectors are held: what goes through one waits without counting attempts.
    connectors_held: bool,
    pub(super) rows: BTreeMap<u32, Delivery>,
    pub(super) targets: BTreeMap<TargetKey, TargetState>,
    pub(super) routes: BTreeMap<u32, Arc<[TargetKey]>>,
    /// Targets in `routes`.
    routed: u64,
    by_status: [u64; 4],
    /// Waiting deliveries by target, oldest first.
    queues: BTreeMap<TargetKey, BTreeSet<u32>>,
    unresolved: BTreeSet<u32>,
    /// What may be forgotten, by the record that finished it.
    finished: BTreeSet<(Seq, u32)>,
    /// Targets without a queue, by their newest record.
    idle: BTreeSet<(Seq, TargetKey)>,
    by_time: BTreeSet<(u64, u32)>,
    of_run: BTreeSet<(u32, u32)>,
    /// Heads of queues whose target has nothing in flight, by due time: proven targets, and the others.
    due: [BTreeSet<(u64, u32, TargetKey)>; 2],
    /// Where a target stands in `due`.
    due_at: BTreeMap<TargetKey, (usize, u64, u32)>,
    /// Targets with a queue that failed at last.
    failing: BTreeSet<TargetKey>,
    open_circuits: BTreeSet<TargetKey>,
    /// What senders have in hand: the delivery, and whether its target counts as proven.
    in_flight: BTreeMap<TargetKey, (u32, bool)>,
    unproven_in_flight: usize,
}

impl Deliveries {
    pub(super) fn absorb(&mut self, delta: DeliveryDelta) {
        let DeliveryDelta { rows, targets, routes, routed: _, hold } = delta;
        if let Some(hold) = hold {
            self.hold = hold;
        }
        for (run, targets) in routes {
            self.put_route(run, targets);
        }
        let mut touched: BTreeSet<TargetKey> = targets.keys().copied().collect();
        for (key, state) in targets {
            if let Some(before) = self.targets.insert(key, state) {
                self.idle.remove(&(before.touched, key));
            }
        }
        for (number, row) in rows {
            touched.insert(row.target);
            self.put(number, row);
        }
        for key in touched {
            self.refresh(key);
        }
        self.forget();
    }

    pub(super) fn put_route(&mut self, run: u32, targets: Option<Arc<[TargetKey]>>) {
        let before = match targets {
            Some(targets) => {
                self.routed += targets.len() as u64;
                self.routes.insert(run, targets)
            }
            None => self.routes.remove(&run),
        };
        self.routed -= before.map_or(0, |targets| targets.len() as u64);
    }

    fn put(&mut self, number: u32, row: Delivery) {
        let before = self.rows.get(&number).map(|row| row.status);
        let became = |status| row.status == status && before != Some(status);
        self.delivered += u64::from(became(DeliveryStatus::Delivered));
        self.dead += u64::from(became(DeliveryStatus::DeadLettered));
        self.created = self.created.max(number);
        self.keep(number, row);
    }

    /// A delivery of a snapshot, whose figures are those of the snapshot's head.
    pub(super) fn keep(&mut self, number: u32, row: Delivery) {
        if let Some(before) = self.rows.remove(&number) {
            self.unindex(number, &before);
        }
        self.by_status[row.status as usize] += 1;
        self.by_time.insert((row.at_ms, number));
        self.of_run.insert((row.run, number));
        if row.status.is_open() {
            self.queues.entry(row.target).or_default().insert(number);
        } else if row.is_unresolved() {
            self.unresolved.insert(number);
        } else {
            self.finished.insert((row.last.max(row.resolved), number));
        }
        self.rows.insert(number, row);
    }

    fn unindex(&mut self, number: u32, row: &Delivery) {
        self.by_status[row.status as usize] -= 1;
        self.by_time.remove(&(row.at_ms, number));
        self.of_run.remove(&(row.run, number));
        self.unresolved.remove(&number);
        self.finished.remove(&(row.last.max(row.resolved), number));
        if let Some(queue) = self.queues.get_mut(&row.target) {
            queue.remove(&number);
            if queue.is_empty() {
                self.queues.remove(&row.target);
            }
        }
        // Whatever changes a delivery in hand ends the attempt.
        if self.in_flight.get(&row.target).is_some_and(|(held, _)| *held == number) {
            self.land(row.target);
        }
    }

    fn land(&mut self, key: TargetKey) {
        if let Some((_, proven)) = self.in_flight.remove(&key) {
            self.unproven_in_flight -= usize::from(!proven);
        }
    }

    /// Brings the indexes of a target up to date.
    pub(super) fn refresh(&mut self, key: TargetKey) {
        if let Some((class, at_ms, number)) = self.due_at.remove(&key) {
            self.due[class].remove(&(at_ms, number, key));
        }
        self.failing.remove(&key);
        self.open_circuits.remove(&key);
        let state = self.targets.get(&key).copied().unwrap_or_default();
        self.idle.remove(&(state.touched, key));
        if state.pressure.circuit_opened_at_ms != 0 {
            self.open_circuits.insert(key);
        }
        let Some(head) = self.queues.get(&key).and_then(|queue| queue.first()).copied() else {
            if self.targets.contains_key(&key) {
                self.idle.insert((state.touched, key));
            }
            return;
        };
        if state.pressure.consecutive_failures > 0 {
            self.failing.insert(key);
        }
        let waits_for_connectors = self.connectors_held && key.plugin != ReplyPlugin::Http;
        if !self.in_flight.contains_key(&key) && !waits_for_connectors {
            let (class, at_ms) = (usize::from(!state.is_proven()), state.pressure.blocked_until_ms);
            self.due[class].insert((at_ms, head, key));
            self.due_at.insert(key, (class, at_ms, head));
        }
    }

    fn forget(&mut self) {
        while self.finished.len() > DELIVERIES_KEPT_MAX
            && let Some((_, number)) = self.finished.first().copied()
            && let Some(row) = self.rows.remove(&number)
        {
            self.unindex(number, &row);
        }
        while self.idle.len() > DELIVERY_TARGETS_KEPT_MAX
            && let Some((_, key)) = self.idle.pop_first()
        {
            self.targets.remove(&key);
            self.open_circuits.remove(&key);
        }
    }

    /// The next delivery that may be sent now; it is in flight from here on. A target has one in flight, in order.
    /// Proven targets come first, and the others never hold more than their share of the senders.
    pub(super) fn take(&mut self, now_ms: u64) -> Option<u32> {
        if self.hold.is_some() {
            return None;
        }
        let due = |class: usize| self.due[class].first().copied().filter(|(at_ms, ..)| *at_ms <= now_ms);
        let has_share = self.unproven_in_flight < DELIVERY_SENDERS_UNPROVEN_MAX;
        let next = due(0).map(|next| (next, true)).or_else(|| has_share.then(|| due(1)).flatten().map(|n| (n, false)));
        let ((_, number, key), proven) = next?;
        self.in_flight.insert(key, (number, proven));
        self.unproven_in_flight += usize::from(!proven);
        self.refresh(key);
        Some(number)
    }

    /// Gives a delivery in hand back, to be taken again.
    pub(super) fn put_back(&mut self, number: u32) {
        let Some(key) = self.rows.get(&number).map(|row| row.target) else { return };
        if self.in_flight.get(&key).is_some_and(|(held, _)| *held == number) {
            self.land(key);
            self.refresh(key);
        }
    }

    pub(super) fn is_in_flight(&self, number: u32) -> bool {
        let target = self.rows.get(&number).map(|row| row.target);
        target.and_then(|key| self.in_flight.get(&key)).is_some_and(|(held, _)| *held == number)
    }

    /// When [`Deliveries::take`] has something, if nothing else changes.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        if self.hold.is_some() {
            return None;
        }
        let has_share = self.unproven_in_flight < DELIVERY_SENDERS_UNPROVEN_MAX;
        let first = |class: usize| self.due[class].first().map(|(at_ms, ..)| *at_ms);
        let other = if has_share { first(1) } else { None };
        [first(0), other].into_iter().flatten().min()
    }

    /// Deliveries that are owed or that somebody has to deal with.
    pub(super) fn open_count(&self) -> usize {
        let waiting =
            self.by_status[DeliveryStatus::Pending as usize] + self.by_status[DeliveryStatus::Retrying as usize];
        (waiting + self.routed) as usize + self.unresolved.len()
    }

    /// Numbers in order of time, then number, behind `after`.
    pub(super) fn in_order(&self, after: Option<(u64, u32)>) -> impl Iterator<Item = &Delivery> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.by_time.range((from, std::ops::Bound::Unbounded)).filter_map(|(_, number)| self.rows.get(number))
    }

    /// Those of a run, oldest first.
    pub(super) fn of_run(&self, run: u32) -> impl Iterator<Item = &Delivery> {
        self.of_run.range((run, 0)..=(run, u32::MAX)).filter_map(|(_, number)| self.rows.get(number))
    }

    /// Dead letters that nobody has dealt with, oldest number first.
    pub(super) fn unresolved(&self) -> impl Iterator<Item = &Delivery> {
        self.unresolved.iter().filter_map(|number| self.rows.get(number))
    }

    /// Waiting deliveries, by target.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Delivery> {
        self.queues.values().flatten().filter_map(|number| self.rows.get(number))
    }

    pub(super) fn counts(&self) -> DeliveryCounts {
        DeliveryCounts {
            pending: self.by_status[DeliveryStatus::Pending as usize],
            retrying: self.by_status[DeliveryStatus::Retrying as usize],
            delivered: self.delivered,
            dead_lettered: self.dead,
            unresolved: self.unresolved.len() as u64,
            owed: self.routed,
            targets: self.queues.len() as u64,
            failing_targets: self.failing.len() as u64,
            open_circuits: self.open_circuits.len() as u64,
            in_flight: self.in_flight.len() as u64,
            in_flight_unproven: self.unproven_in_flight as u64,
            next_due_ms: self.next_due_ms(),
            held: self.hold.is_some(),
        }
    }

    /// Connectors are held, or no longer.
    pub(super) fn set_connectors_held(&mut self, held: bool) {
        if self.connectors_held != held {
            self.connectors_held = held;
            let keys: Vec<TargetKey> = self.queues.keys().copied().collect();
            keys.into_iter().for_each(|key| self.refresh(key));
        }
    }

    /// After a restart nothing is in hand.
    pub(super) fn finish_replay(&mut self, connectors_held: bool) {
        self.connectors_held = connectors_held;
        self.in_flight.clear();
        self.unproven_in_flight = 0;
        let keys: BTreeSet<TargetKey> = self.queues.keys().chain(self.targets.keys()).copied().collect();
        keys.into_iter().for_each(|key| self.refresh(key));
    }
}
