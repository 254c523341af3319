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

impl From<SlotError> for Problem {
    fn from(error: SlotError) -> Self {
        Self::new(&codes::SECRET_INVALID, error.to_string())
    }
}

impl From<BrokerError> for Problem {
    fn from(error: BrokerError) -> Self {
        let code = match &error {
            BrokerError::SlotMissing { .. } => &codes::SECRET_NOT_FOUND,
            BrokerError::SlotReferenced { .. }
            | BrokerError::ProviderMismatch { .. }
            | BrokerError::SlotRevoked { .. }
            | BrokerError::SubjectRevoked { .. }
            | BrokerError::LeaseExpired { .. }
            | BrokerError::LeaseRevoked { .. } => &codes::SECRET_CONFLICT,
            BrokerError::NotAnAccount { .. } => &codes::AUTH_ACCOUNT_INVALID,
            BrokerError::RefreshFailed { .. } => &codes::AUTH_ACCOUNT_REFRESH_FAILED,
            BrokerError::LeaseUnknown { .. } => &codes::AUTH_LEASE_NOT_FOUND,
            BrokerError::NotRecorded { .. } => &codes::AUTH_REVOCATION_NOT_RECORDED,
            BrokerError::SubjectsFull => &codes::AUTH_SUBJECTS_FULL,
            BrokerError::Busy
            | BrokerError::Gone
            | BrokerError::NoAnswer
            | BrokerError::LeasesFull
            | BrokerError::Log(_)
            | BrokerError::Store(_) => &codes::AUTH_STORE_UNAVAILABLE,
            BrokerError::LeaseText => &codes::INTERNAL_ERROR,
        };
        Self::new(code, error.to_string())
    }
}

fn slot_id(call: &Call) -> Result<SlotId, Problem> {
    Ok(SlotId::parse(&call.param("secret_ref")?)?)
}

/// `GET /v1/runtime/secrets`.
pub fn list(api: &Api, _call: &Call) -> Result<Response, Problem> {
    Ok(Response::json(200, &api.broker.slot_states()?))
}

/// `GET /v1/runtime/secrets/{secret_ref}`.
pub fn get(api: &Api, call: &Call) -> Result<Response, Problem> {
    let slot = slot_id(call)?;
    match api.broker.slot_state(&slot)? {
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
        api.credentials_changed();
        Ok(Response::json(200, &status))
    })();
    reply.send_result(stored);
}

/// `POST /v1/runtime/secrets/import`: many slots with one change of the store, or none.
pub fn import(api: &Api, mut call: Call, reply: Reply) {
    let body = Zeroizing::new(std::mem::take(&mut call.body));
    let stored = (|| {
        let records = SlotRecord::list_from_json(&body, api.clock.now_ms())?;
        let names: Vec<&str> = records.iter().map(|record| record.id().as_str()).collect();
        let names = names.join(" ");
        let act = Act { verb: "secret.import", target: &names, containment: false };
        let written = api.witnessed(&call.actor(), act, || Ok(api.broker.put_all(records)?))?;
        api.credentials_changed();
        Ok(Response::json(200, &written))
    })();
    reply.send_result(stored);
}

/// The answer to what has nothing to show.
#[derive(Serialize)]
pub(super) struct Accepted {
    pub(super) accepted: bool,
}

/// `DELETE /v1/runtime/secrets/{secret_ref}`: refused while something names the slot.
pub fn delete(api: &Api, call: &Call) -> Result<Response, Problem> {
    let slot = slot_id(call)?;
    let _: json::NoFields = json::parse_or_default(&call.body)?;
    delete_slot(api, call, &slot, false)?;
    Ok(Response::json(200, &Accepted { accepted: true }))
}

/// Deletes a slot that nothing names; a logout takes it from MCP servers, which go down.
pub(super) fn delete_slot(api: &Api, call: &Call, slot: &SlotId, is_logout: bool) -> Result<(), Problem> {
    let act = Act { verb: "secret.delete", target: slot.as_str(), containment: true };
    api.witnessed(&call.actor(), act, || {
        Ok(if is_logout { api.broker.log_out(slot)? } else { api.broker.delete(slot)? })
    })?;
    Ok(())
}
