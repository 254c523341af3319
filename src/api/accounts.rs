//! OAuth accounts over HTTP: metadata out, tokens in.
//! Owns: the routes below `/v1/runtime/auth/accounts`.
//! Never: returns a token; the body that carries one is wiped after it was read.

use zeroize::Zeroizing;

use super::call::{Call, Reply};
use super::context::Api;
use super::secrets::{self, Accepted};
use super::witness::Act;
use crate::broker::{BrokerError, Mode, SlotId, SlotRecord, SlotState};
use crate::http::Response;
use crate::http::problem::Problem;

fn account(api: &Api, call: &Call) -> Result<SlotState, Problem> {
    let slot = SlotId::parse(&call.param("secret_ref")?)?;
    match api.broker.slot_state(&slot)? {
        None => Err(BrokerError::SlotMissing { slot }.into()),
        Some(state) if state.status.mode != Mode::OauthAccount => Err(BrokerError::NotAnAccount { slot }.into()),
        Some(state) => Ok(state),
    }
}

/// `GET /v1/runtime/auth/accounts`.
pub fn list(api: &Api, _call: &Call) -> Result<Response, Problem> {
    let mut states = api.broker.slot_states()?;
    states.retain(|state| state.status.mode == Mode::OauthAccount);
    Ok(Response::json(200, &states))
}

/// `GET /v1/runtime/auth/accounts/{secret_ref}`.
pub fn get(api: &Api, call: &Call) -> Result<Response, Problem> {
    Ok(Response::json(200, &account(api, call)?))
}

/// `POST /v1/runtime/auth/accounts/{secret_ref}/refresh`.
pub fn refresh(api: &Api, call: &Call) -> Result<Response, Problem> {
    call.no_fields()?;
    let slot = account(api, call)?.status.slot_id;
    let act = Act { verb: "account.refresh", target: slot.as_str(), containment: false };
    let status = api.witnessed(&call.actor(), act, || Ok(api.broker.refresh_account(&slot)?))?;
    Ok(Response::json(200, &status))
}

/// `POST /v1/runtime/auth/accounts/{secret_ref}/revoke`: the account is deleted here, whoever names it; the authorization
/// server is not told. A server that uses it goes down.
pub fn revoke(api: &Api, call: &Call) -> Result<Response, Problem> {
    call.no_fields()?;
    let slot = account(api, call)?.status.slot_id;
    secrets::delete_slot(api, call, &slot, true)?;
    Ok(Response::json(200, &Accepted { accepted: true }))
}

/// `DELETE /v1/runtime/auth/accounts/{secret_ref}`: the same, refused while a server names the account.
pub fn delete(api: &Api, call: &Call) -> Result<Response, Problem> {
    call.no_fields()?;
    let slot = account(api, call)?.status.slot_id;
    secrets::delete_slot(api, call, &slot, false)?;
    Ok(Response::json(200, &Accepted { accepted: true }))
}

/// `POST /v1/runtime/auth/accounts` and `POST /v1/runtime/auth/accounts/mcp-oauth`: what a login brought.
pub fn import(api: &Api, mut call: Call, reply: Reply) {
    let body = Zeroizing::new(std::mem::take(&mut call.body));
    let stored = (|| {
        let record = SlotRecord::account_from_json(&body, api.clock.now_ms())?;
        let slot = record.id().clone();
        let act = Act { verb: "account.put", target: slot.as_str(), containment: false };
        let written = api.witnessed(&call.actor(), act, || Ok(api.broker.put(record)?))?;
        Ok(Response::json(200, &written))
    })();
    reply.send_result(stored);
}
