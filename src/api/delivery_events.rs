//! `delivery_updated`: the event that stands for a record of a delivery.
//! Owns: its data.
//! Never: shows an address or an idempotency key.

use serde::Serialize;

use crate::core::{Body, DeliveryError, DeliveryRecord, DeliveryStatus, TargetKey};
use crate::ids::{DeliveryId, RunId, SessionId};
use crate::journal::Record;
use crate::sse::json;

#[derive(Serialize)]
struct DeliveryUpdated<'a> {
    r#type: &'static str,
    session_id: Option<&'a SessionId>,
    run_id: Option<RunId>,
    delivery: Change,
}

/// What the record tells; the rest is in `GET /v1/deliveries/{delivery_id}`.
#[derive(Serialize)]
struct Change {
    delivery_id: DeliveryId,
    change: &'static str,
    timestamp_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<DeliveryStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<TargetKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<DeliveryError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed_from_delivery_id: Option<DeliveryId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The data of the frame; `None` for a record that is not about one delivery.
pub(super) fn delivery_updated(record: &Record) -> Option<Vec<u8>> {
    let Ok(Body::Delivery(body)) = Body::decode(&record.kind, &record.body) else { return None };
    let new = |delivery_id, change, status, target| Change {
        delivery_id,
        change,
        timestamp_ms: record.at_ms,
        status,
        target,
        attempts: None,
        next_attempt_at_ms: None,
        error: None,
        replayed_from_delivery_id: None,
        reason: None,
    };
    let delivery = match body {
        DeliveryRecord::Queued(body) => Change {
            replayed_from_delivery_id: body.replayed_from,
            ..new(body.id, "queued", Some(DeliveryStatus::Pending), Some(body.target))
        },
        DeliveryRecord::Retrying(body) => Change {
            attempts: Some(body.attempts),
            next_attempt_at_ms: Some(body.next_attempt_at_ms),
            error: Some(body.error),
            ..new(body.id, "retrying", Some(DeliveryStatus::Retrying), Some(body.target))
        },
        DeliveryRecord::Delivered(body) => Change {
            attempts: Some(body.attempts),
            ..new(body.id, "delivered", Some(DeliveryStatus::Delivered), Some(body.target))
        },
        DeliveryRecord::Dead(body) => Change {
            attempts: Some(body.attempts),
            error: Some(body.error),
            ..new(body.id, "dead_lettered", Some(DeliveryStatus::DeadLettered), Some(body.target))
        },
        DeliveryRecord::Resolved(body) => {
            Change { reason: Some(body.reason), ..new(body.id, "resolved", Some(DeliveryStatus::DeadLettered), None) }
        }
        DeliveryRecord::Reset(_) | DeliveryRecord::Hold(_) => return None,
    };
    let (session_id, run_id) = (record.session.as_ref(), record.run);
    Some(json(&DeliveryUpdated { r#type: "delivery_updated", session_id, run_id, delivery }))
}
