//! Secret slots over HTTP: metadata out, values in.
//! Owns: the routes below `/v1/runtime/secrets`.
//! Never: returns a value; the body that carries one is wiped after it was read.

use serde::Serialize;
use zeroize::Zeroizing;

use super::call::{Call, Reply};
use super::context::Api;
use super::json;
use super::witness::Act;
use crate::broker::{BrokerError, SlotError, SlotId, SlotRecord};
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::providers::RouteCredential;

impl From<SlotError> for Problem {
    fn from(error: SlotError) -> Self {
        Self::new(&codes::SECRET_INVALID, error.to_string())
    }
}

impl From<BrokerError> for Problem {
    fn from(error: BrokerError) -> Self {
        let code = match &error {
            BrokerError::SlotMissing { .. } => &codes::SECRET_NOT_FOUND,
            BrokerError::SlotReferenced { .. } | BrokerError::ProviderMismatch { .. } => &codes::SECRET_CONFLICT,
            BrokerError::Busy
            | BrokerError::Gone
            | BrokerError::NoAnswer
            | BrokerError::LeasesFull
            | BrokerError::Store(_) => &codes::AUTH_STORE_UNAVAILABLE,
            BrokerError::LeaseText
            | BrokerError::LeaseUnknown { .. }
            | BrokerError::LeaseExpired { .. }
            | BrokerError::LeaseRevoked { .. } => &codes::INTERNAL_ERROR,
        };
        Self::new(code, error.to_string())
    }
}

fn slot_id(call: &Call) -> Result<SlotId, Problem> {
    Ok(SlotId::parse(&call.param("secret_ref")?)?)
}

/// `GET /v1/runtime/secrets`.
pub fn list(api: &Api, _call: &Call) -> Result<Response, Problem> {
    Ok(Response::json(200, &api.broker.slots()?))
}

/// `GET /v1/runtime/secrets/{secret_ref}`.
pub fn get(api: &Api, call: &Call) -> Result<Response, Problem> {
    let slot = slot_id(call)?;
    match api.broker.slot(&slot)? {
        Some(status) => Ok(Response::json(200, &status)),
        None => Err(BrokerError::SlotMissing { slot }.into()),
    }
}

/// `POST /v1/runtime/secrets`: creates or overwrites a slot.
pub fn put(api: &Api, mut call: Call, reply: Reply) {
    let body = Zeroizing::new(std::mem::take(&mut call.body));
    let stored = (|| {
        let record = SlotRecord::from_json(&body, api.clock.now_ms())?;
        let slot = record.status().slot_id;
        let act = Act { verb: "secret.put", target: slot.as_str(), containment: false };
        let status = api.witnessed(&call.actor(), act, || Ok(api.broker.put(record)?))?;
        Ok(Response::json(200, &status))
    })();
    reply.send_result(stored);
}

#[derive(Serialize)]
struct Accepted {
    accepted: bool,
}

/// `DELETE /v1/runtime/secrets/{secret_ref}`: refused while a route names the slot.
pub fn delete(api: &Api, call: &Call) -> Result<Response, Problem> {
    let slot = slot_id(call)?;
    let _: json::NoFields = json::parse_or_default(&call.body)?;
    let referenced: Vec<String> = api
        .routes
        .iter()
        .flat_map(|routes| routes.iter())
        .filter(|route| matches!(&route.credential, RouteCredential::AuthRef(named) if named == slot.as_str()))
        .map(|route| format!("route {}", route.id))
        .collect();
    let act = Act { verb: "secret.delete", target: slot.as_str(), containment: true };
    api.witnessed(&call.actor(), act, || Ok(api.broker.delete(&slot, &referenced)?))?;
    Ok(Response::json(200, &Accepted { accepted: true }))
}
