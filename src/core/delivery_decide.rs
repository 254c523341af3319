//! Decisions about deliveries, and the fold of their records.
//! Owns: when a delivery is owed, how retries are spaced, what may be sent again.
//! Never: settles an attempt that nobody has in hand.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::action::record_hash;
use super::command::{Decision, Refusal};
use super::delivery::{
    AttemptOutcome, Delivery, DeliveryCommand, DeliveryDead, DeliveryDelivered, DeliveryError, DeliveryHoldChanged,
    DeliveryPolicy, DeliveryQueued, DeliveryRecord, DeliveryResolved, DeliveryRetrying, DeliveryStatus, RunReplyTarget,
    TargetKey, TargetPressure, TargetsReset,
};
use super::delivery_table::{DeliveryHold, TargetState};
use super::event::{Body, Event};
use super::is_hold_of_start;
use super::txn::Txn;
use crate::ids::{DeliveryId, Seq};
use crate::limits::{DELIVERIES_OPEN_MAX, DELIVERY_DOUBLINGS_MAX, DELIVERY_JITTER_PART, REPLY_TARGETS_MAX};

impl DeliveryPolicy {
    /// The wait after attempt number `attempts` of a delivery failed, in milliseconds. Up to one part in
    /// [`DELIVERY_JITTER_PART`] is added, the same for the same delivery and attempt.
    pub fn wait_ms(&self, number: u32, attempts: u32, retry_after_ms: Option<u64>) -> u64 {
        let doubled = self.initial_retry_ms.saturating_mul(1 << attempts.saturating_sub(1).min(DELIVERY_DOUBLINGS_MAX));
        let doubled = doubled.min(self.max_retry_ms.max(self.initial_retry_ms));
        let hash = record_hash(format!("{number}:{attempts}").as_bytes());
        let random = u64::from_str_radix(&hash[..8], 16).unwrap_or(0);
        let jitter = random % (doubled / DELIVERY_JITTER_PART + 1);
        (doubled + jitter).max(retry_after_ms.unwrap_or(0).min(self.max_retry_after_ms))
    }
}

impl Txn<'_> {
    pub(super) fn decide_delivery(&mut self, command: DeliveryCommand) -> Result<Decision, Refusal> {
        match command {
            DeliveryCommand::Begin { number, note } => {
                let row = self.in_hand(number)?;
                if self.delivery_hold().is_some() {
                    return Err(Refusal::DeliveryStateConflict { id: row.id, reason: "deliveries are held" });
                }
                self.emit_action(0, row.session, row.run, note.kind, &note.body);
                Ok(Decision::Recorded { last_seq: self.last_seq() })
            }
            DeliveryCommand::Settle { number, note, outcome, policy } => {
                let row = self.in_hand(number)?;
                self.emit_action(0, row.session, row.run, note.kind, &note.body);
                self.settle(row, outcome, &policy);
                Ok(Decision::Recorded { last_seq: self.last_seq() })
            }
            DeliveryCommand::Replay { id, force } => self.replay_delivery(id, force),
            DeliveryCommand::Resolve { id, reason } => {
                let row = self.known_delivery(id)?;
                if row.status != DeliveryStatus::DeadLettered {
                    return Err(Refusal::DeliveryStateConflict { id, reason: "it is no dead letter" });
                }
                if row.resolved_at_ms == 0 {
                    self.emit_resolved(&row, reason, false);
                }
                Ok(Decision::Delivery(Box::new(self.known_delivery(id)?), false))
            }
            DeliveryCommand::Drop { before_ms, limit, waiting } => Ok(self.drop_old(before_ms, limit, waiting)),
            DeliveryCommand::ResetTargets { target, plugin, dry_run } => {
                let matches = |key: &TargetKey, state: &TargetState| {
                    state.pressure != TargetPressure::default()
                        && target.is_none_or(|target| target == *key)
                        && plugin.is_none_or(|plugin| plugin == key.plugin)
                };
                let staged = &self.delivery_delta().targets;
                let known = self.base().deliveries.targets.iter().filter(|(key, _)| !staged.contains_key(key));
                let targets: BTreeSet<TargetKey> =
                    known.chain(staged).filter(|(key, state)| matches(key, state)).map(|(key, _)| *key).collect();
                let targets: Vec<TargetKey> = targets.into_iter().collect();
                if !targets.is_empty() && !dry_run {
                    let reset = TargetsReset { targets: targets.clone() };
                    self.emit_global(None, Body::Delivery(DeliveryRecord::Reset(reset)));
                }
                Ok(Decision::TargetsReset(targets))
            }
            DeliveryCommand::SetHold { held, reason } => {
                if held != self.delivery_hold().is_some() {
                    let changed = DeliveryHoldChanged { held, reason };
                    self.emit_global(None, Body::Delivery(DeliveryRecord::Hold(changed)));
                }
                Ok(Decision::Hold { held })
            }
        }
    }

    /// Refuses reply targets that could not be served.
    pub(super) fn admit_targets(&self, targets: &[RunReplyTarget]) -> Result<(), Refusal> {
        if targets.is_empty() {
            return Ok(());
        }
        let open = self.base().deliveries.open_count() + self.delivery_delta().routed;
        if targets.len() > REPLY_TARGETS_MAX || open + targets.len() > DELIVERIES_OPEN_MAX {
            return Err(Refusal::DeliveryLimit { open });
        }
        Ok(())
    }

    /// Queues what a run owes to its targets: in the batch that ends it, behind its end.
    pub(super) fn owe_deliveries(&mut self, session: u32, run: u32, targets: &[TargetKey], output: Seq) {
        for (place, target) in targets.iter().enumerate() {
            let id = self.next_delivery_id();
            let accepted = self.run(run).expect("ended runs exist");
            let root = self.signer_id();
            let of_run = format!("{root}:{}:{}:{}", accepted.first_seq, accepted.submitted_at_ms, id.number);
            let key = idempotency_key(id, &of_run);
            let (target, place) = (*target, place as u16);
            self.emit_delivery(
                session,
                run,
                DeliveryRecord::Queued(DeliveryQueued { id, key, target, place, output, replayed_from: None }),
            );
        }
    }

    fn emit_delivery(&mut self, session: u32, run: u32, record: DeliveryRecord) {
        self.emit_unsigned(session, run, Body::Delivery(record));
    }

    fn settle(&mut self, row: Delivery, outcome: AttemptOutcome, policy: &DeliveryPolicy) {
        let (id, target, attempts) = (row.id, row.target, row.attempts + 1);
        let mut pressure = self.target_state(target).pressure;
        let now_ms = self.now_ms();
        let record = match outcome {
            // The claim is given back with the reply.
            AttemptOutcome::CutOff => return,
            AttemptOutcome::Delivered { http_status } => {
                pressure = TargetPressure::default();
                if policy.target_min_interval_ms > 0 {
                    pressure.blocked_until_ms = now_ms + policy.target_min_interval_ms;
                }
                DeliveryRecord::Delivered(DeliveryDelivered { id, target, attempts, http_status, pressure })
            }
            AttemptOutcome::Dead(error) => {
                DeliveryRecord::Dead(DeliveryDead { id, target, attempts, error, exhausted: false, pressure })
            }
            AttemptOutcome::Retry { error, retry_after_ms } => {
                let wait_ms = policy.wait_ms(id.number, attempts, retry_after_ms);
                pressure.consecutive_failures += 1;
                pressure.blocked_until_ms = pressure.blocked_until_ms.max(now_ms.saturating_add(wait_ms));
                let threshold = policy.circuit_failure_threshold;
                if threshold != 0 && pressure.consecutive_failures >= threshold {
                    if pressure.circuit_opened_at_ms == 0 {
                        pressure.circuit_opened_at_ms = now_ms;
                    }
                    let cooled_ms = now_ms.saturating_add(policy.circuit_cooldown_ms);
                    pressure.blocked_until_ms = pressure.blocked_until_ms.max(cooled_ms);
                }
                let next_attempt_at_ms = pressure.blocked_until_ms;
                if attempts >= policy.max_attempts {
                    DeliveryRecord::Dead(DeliveryDead { id, target, attempts, error, exhausted: true, pressure })
                } else {
                    let retrying = DeliveryRetrying { id, target, attempts, error, next_attempt_at_ms, pressure };
                    DeliveryRecord::Retrying(retrying)
                }
            }
        };
        self.emit_delivery(row.session, row.run, record);
    }

    fn replay_delivery(&mut self, id: DeliveryId, force: bool) -> Result<Decision, Refusal> {
        let row = self.known_delivery(id)?;
        if row.status != DeliveryStatus::DeadLettered {
            return Err(Refusal::DeliveryStateConflict { id, reason: "it is no dead letter" });
        }
        if !force && let Some(again) = self.delivery(row.replay) {
            return Ok(Decision::Delivery(Box::new(again), true));
        }
        if row.key.is_empty() && !force {
            return Err(Refusal::DeliveryStateConflict { id, reason: "it was sent again by an older version" });
        }
        let open = self.base().deliveries.open_count() + self.delivery_delta().rows.len();
        if open >= DELIVERIES_OPEN_MAX {
            return Err(Refusal::DeliveryLimit { open });
        }
        let again = self.next_delivery_id();
        let key = if force { idempotency_key(again, &row.key) } else { row.key.to_string() };
        let (target, place, output) = (row.target, row.place, row.output);
        let queued = DeliveryQueued { id: again, key, target, place, output, replayed_from: Some(id) };
        self.emit_delivery(row.session, row.run, DeliveryRecord::Queued(queued));
        Ok(Decision::Delivery(Box::new(self.known_delivery(again)?), false))
    }

    fn drop_old(&mut self, before_ms: u64, limit: usize, waiting: bool) -> Decision {
        let base = self.base();
        let dead = base.deliveries.unresolved().filter(|row| row.at_ms < before_ms);
        let open = base.deliveries.waiting().filter(|row| waiting && row.queued_at_ms < before_ms);
        let open = open.filter(|row| !base.deliveries.is_in_flight(row.id.number));
        let ids: Vec<DeliveryId> = dead.chain(open).take(limit).map(|row| row.id).collect();
        let mut count = 0;
        for id in ids {
            // Another command of the batch may have been there before.
            let Ok(mut row) = self.known_delivery(id) else { continue };
            if row.status.is_open() {
                let pressure = self.target_state(row.target).pressure;
                let error = DeliveryError { class: "dropped".to_string(), detail: None, http_status: None };
                let (target, attempts) = (row.target, row.attempts);
                let dead = DeliveryDead { id, target, attempts, error, exhausted: false, pressure };
                self.emit_delivery(row.session, row.run, DeliveryRecord::Dead(dead));
                row = self.known_delivery(id).expect("just recorded");
            }
            if row.is_unresolved() {
                self.emit_resolved(&row, "dropped".to_string(), true);
                count += 1;
            }
        }
        Decision::Settled { count }
    }

    fn emit_resolved(&mut self, row: &Delivery, reason: String, dropped: bool) {
        let resolved = DeliveryResolved { id: row.id, reason, dropped };
        self.emit_delivery(row.session, row.run, DeliveryRecord::Resolved(resolved));
    }

    /// A delivery that a sender has in hand.
    fn in_hand(&self, number: u32) -> Result<Delivery, Refusal> {
        let row = self.delivery(number).ok_or(Refusal::DeliveryNotFound(format!("delivery-{number}")))?;
        let is_staged = self.delivery_delta().rows.contains_key(&number);
        if is_staged || !row.status.is_open() || !self.base().deliveries.is_in_flight(number) {
            return Err(Refusal::DeliveryStateConflict { id: row.id, reason: "no sender has it in hand" });
        }
        Ok(row)
    }

    fn known_delivery(&self, id: DeliveryId) -> Result<Delivery, Refusal> {
        let found = self.delivery(id.number).filter(|row| row.id == id);
        found.ok_or_else(|| Refusal::DeliveryNotFound(id.to_string()))
    }

    fn delivery(&self, number: u32) -> Option<Delivery> {
        self.delivery_delta().rows.get(&number).or_else(|| self.base().deliveries.rows.get(&number)).cloned()
    }

    fn target_state(&self, key: TargetKey) -> TargetState {
        let staged = self.delivery_delta().targets.get(&key);
        staged.or_else(|| self.base().deliveries.targets.get(&key)).copied().unwrap_or_default()
    }

    /// Ends a hold that the start of the daemon began, not an operator's own.
    pub(super) fn release_deliveries_of_start(&mut self, reason: Option<&String>) {
        let is_of_start = |hold: &DeliveryHold| hold.reason.as_deref().is_some_and(is_hold_of_start);
        if self.delivery_hold().is_some_and(is_of_start) {
            let changed = DeliveryHoldChanged { held: false, reason: reason.cloned() };
            self.emit_global(None, Body::Delivery(DeliveryRecord::Hold(changed)));
        }
    }

    fn delivery_hold(&self) -> Option<&DeliveryHold> {
        match &self.delivery_delta().hold {
            Some(staged) => staged.as_ref(),
            None => self.base().deliveries.hold.as_ref(),
        }
    }

    fn deliveries_created(&self) -> u32 {
        let staged = self.delivery_delta().rows.keys().next_back().copied().unwrap_or(0);
        staged.max(self.base().deliveries.created)
    }

    fn next_delivery_id(&self) -> DeliveryId {
        DeliveryId { number: self.deliveries_created() + 1, epoch: self.base().later_epoch().unwrap_or(0) }
    }

    /// Targets of a run under way.
    pub(super) fn route_of(&self, run: u32) -> Option<Arc<[TargetKey]>> {
        match self.delivery_delta().routes.get(&run) {
            Some(staged) => staged.clone(),
            None => self.base().deliveries.routes.get(&run).cloned(),
        }
    }

    /// Folds a run's acceptance or end.
    pub(super) fn apply_route(&mut self, run: u32, targets: Option<Arc<[TargetKey]>>) {
        if targets.is_none() && self.route_of(run).is_none() {
            return;
        }
        let delta = self.delivery_delta_mut();
        delta.routed += targets.as_ref().map_or(0, |targets| targets.len());
        delta.routes.insert(run, targets);
    }

    /// Folds a record about the whole daemon.
    pub(super) fn apply_delivery_global(&mut self, event: &Event, record: &DeliveryRecord) -> Result<(), String> {
        match record {
            DeliveryRecord::Reset(reset) => {
                for key in &reset.targets {
                    let state = TargetState { pressure: TargetPressure::default(), ..self.target_state(*key) };
                    self.delivery_delta_mut().targets.insert(*key, state);
                }
            }
            DeliveryRecord::Hold(changed) => {
                let hold = DeliveryHold { since_ms: event.at_ms, reason: changed.reason.clone() };
                self.delivery_delta_mut().hold = Some(changed.held.then_some(hold));
            }
            _ => return Err(format!("{} names no session", record.kind())),
        }
        Ok(())
    }

    /// Folds a record about one delivery.
    pub(super) fn apply_delivery(
        &mut self,
        event: &Event,
        session: u32,
        run: u32,
        record: &DeliveryRecord,
    ) -> Result<(), String> {
        let unknown = |id: DeliveryId| format!("{} of unknown {id}", record.kind());
        let row_of = |this: &Self, id| this.known_delivery(id).map_err(|_| unknown(id));
        let mut row = match record {
            DeliveryRecord::Queued(queued) => {
                if queued.id.number != self.deliveries_created() + 1 {
                    return Err(format!("{} is queued out of order", queued.id));
                }
                return self.apply_queued(event, session, run, queued);
            }
            DeliveryRecord::Retrying(body) => row_of(self, body.id)?,
            DeliveryRecord::Delivered(body) => row_of(self, body.id)?,
            DeliveryRecord::Dead(body) => row_of(self, body.id)?,
            DeliveryRecord::Resolved(body) => row_of(self, body.id)?,
            DeliveryRecord::Reset(_) | DeliveryRecord::Hold(_) => return self.apply_delivery_global(event, record),
        };
        let is_resolution = matches!(record, DeliveryRecord::Resolved(_));
        if is_resolution == row.status.is_open() || row.session != session {
            return Err(format!("{} of {}, which is {}", record.kind(), row.id, row.status.as_str()));
        }
        match record {
            DeliveryRecord::Retrying(body) => {
                row.status = DeliveryStatus::Retrying;
                (row.attempts, row.at_ms) = (body.attempts, body.next_attempt_at_ms);
                self.touch(event, row.target, body.pressure, None);
            }
            DeliveryRecord::Delivered(body) => {
                row.status = DeliveryStatus::Delivered;
                (row.attempts, row.at_ms) = (body.attempts, event.at_ms);
                row.key = Box::default();
                self.touch(event, row.target, body.pressure, Some(true));
                self.resolve_sources(event, row.replayed_from);
            }
            DeliveryRecord::Dead(body) => {
                row.status = DeliveryStatus::DeadLettered;
                (row.attempts, row.at_ms) = (body.attempts, event.at_ms);
                self.touch(event, row.target, body.pressure, None);
            }
            DeliveryRecord::Resolved(_) => (row.resolved_at_ms, row.resolved) = (event.at_ms, event.seq),
            _ => {}
        }
        if !is_resolution {
            row.last = event.seq;
        }
        self.delivery_delta_mut().rows.insert(row.id.number, row);
        Ok(())
    }

    fn apply_queued(&mut self, event: &Event, session: u32, run: u32, queued: &DeliveryQueued) -> Result<(), String> {
        let number = queued.id.number;
        let replayed_from = queued.replayed_from.map_or(0, |id| id.number);
        // A source that is no longer kept has nothing to remember.
        if let Some(mut source) = self.delivery(replayed_from) {
            source.replay = number;
            self.delivery_delta_mut().rows.insert(replayed_from, source);
        }
        let row = Delivery {
            id: queued.id,
            session,
            run,
            target: queued.target,
            place: queued.place,
            status: DeliveryStatus::Pending,
            attempts: 0,
            queued_at_ms: event.at_ms,
            at_ms: 0,
            output: queued.output,
            queued: event.seq,
            last: event.seq,
            resolved_at_ms: 0,
            resolved: 0,
            replayed_from,
            replay: 0,
            key: queued.key.clone().into_boxed_str(),
        };
        self.delivery_delta_mut().rows.insert(number, row);
        Ok(())
    }

    fn touch(&mut self, event: &Event, key: TargetKey, pressure: TargetPressure, proven: Option<bool>) {
        let before = self.target_state(key);
        let proven = proven.unwrap_or(before.proven);
        let state = TargetState { pressure, proven, last_attempt_at_ms: event.at_ms, touched: event.seq };
        self.delivery_delta_mut().targets.insert(key, state);
    }

    /// What was delivered after all needs nobody's attention.
    fn resolve_sources(&mut self, event: &Event, mut number: u32) {
        while let Some(mut source) = self.delivery(number) {
            number = source.replayed_from;
            if source.is_unresolved() {
                source.resolved_at_ms = event.at_ms;
                let place = source.id.number;
                self.delivery_delta_mut().rows.insert(place, source);
            }
        }
    }
}

/// `kheish:<delivery id>:<8 hex>`. The last part differs between state roots, so that two daemons that write to one
/// receiver never use one key for two things.
fn idempotency_key(id: DeliveryId, of: &str) -> String {
    format!("kheish:{id}:{}", &record_hash(format!("{of}:{id}").as_bytes())[..8])
}
