//! Deliveries of one run, from the run's own records: also those that are too old to be kept in memory.
//! Owns: the fold of `delivery.*` records into rows like the core's.
//! Never: decides anything; what is due is the core's.

use crate::core::{Body, Delivery, DeliveryItem, DeliveryRecord, DeliveryStatus};
use crate::ids::{DeliveryId, RunId, SessionId};
use crate::journal::Record;
use crate::limits::RUN_VIEW_DELIVERIES_MAX;

/// The deliveries of the run whose records these are, oldest first, the newest [`RUN_VIEW_DELIVERIES_MAX`].
pub(super) fn of_records(session: &SessionId, run: RunId, records: &[Record]) -> Vec<DeliveryItem> {
    let mut items: Vec<DeliveryItem> = Vec::new();
    for record in records.iter().filter(|record| record.kind.starts_with("delivery.")) {
        // A record that another build wrote is none that this one can show.
        let Ok(Body::Delivery(told)) = Body::decode(&record.kind, &record.body) else { continue };
        match told {
            DeliveryRecord::Queued(queued) => items.push(DeliveryItem {
                session: session.clone(),
                run,
                run_first: record.run_first,
                replayed_from: queued.replayed_from,
                delivery: Delivery {
                    id: queued.id,
                    session: 0,
                    run: 0,
                    target: queued.target,
                    place: queued.place,
                    status: DeliveryStatus::Pending,
                    attempts: 0,
                    queued_at_ms: record.at_ms,
                    at_ms: 0,
                    output: queued.output,
                    queued: record.seq,
                    last: record.seq,
                    resolved_at_ms: 0,
                    resolved: 0,
                    replayed_from: queued.replayed_from.map_or(0, |id| id.number),
                    replay: 0,
                    key: Box::default(),
                },
            }),
            DeliveryRecord::Retrying(body) => {
                change(&mut items, body.id, |row| {
                    (row.status, row.attempts, row.at_ms) =
                        (DeliveryStatus::Retrying, body.attempts, body.next_attempt_at_ms);
                    row.last = record.seq;
                });
            }
            DeliveryRecord::Delivered(body) => {
                change(&mut items, body.id, |row| {
                    (row.status, row.attempts, row.at_ms) = (DeliveryStatus::Delivered, body.attempts, record.at_ms);
                    row.last = record.seq;
                });
                resolve_sources(&mut items, body.id, record.at_ms);
            }
            DeliveryRecord::Dead(body) => {
                change(&mut items, body.id, |row| {
                    (row.status, row.attempts, row.at_ms) = (DeliveryStatus::DeadLettered, body.attempts, record.at_ms);
                    row.last = record.seq;
                });
            }
            DeliveryRecord::Resolved(body) => {
                change(&mut items, body.id, |row| (row.resolved_at_ms, row.resolved) = (record.at_ms, record.seq));
            }
            DeliveryRecord::Reset(_) | DeliveryRecord::Hold(_) => {}
        }
    }
    let over = items.len().saturating_sub(RUN_VIEW_DELIVERIES_MAX);
    items.drain(..over);
    items
}

fn change(items: &mut [DeliveryItem], id: DeliveryId, change: impl FnOnce(&mut Delivery)) {
    if let Some(item) = items.iter_mut().find(|item| item.delivery.id == id) {
        change(&mut item.delivery);
    }
}

/// What was delivered after all needs nobody's attention.
fn resolve_sources(items: &mut [DeliveryItem], id: DeliveryId, at_ms: u64) {
    let mut next = items.iter().find(|item| item.delivery.id == id).and_then(|item| item.replayed_from);
    while let Some(id) = next {
        let Some(item) = items.iter_mut().find(|item| item.delivery.id == id) else { return };
        if item.delivery.is_unresolved() {
            item.delivery.resolved_at_ms = at_ms;
        }
        next = item.replayed_from;
    }
}
