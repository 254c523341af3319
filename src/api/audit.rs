//! The audit trail over HTTP: a run's signed actions, the public key, a signed head.
//! Owns: the routes below `/v1/audit` and `/v1/runs/{run_id}/external-actions`.
//! Never: spells a signed record anew; its bytes go out as they were written.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::call::Call;
use super::context::Api;
use super::paging::{Page, PageRequest, foreign_cursor};
use crate::audit::checkpoint::Checkpoint;
use crate::audit::incident::{IncidentSignature, parse_digest};
use crate::audit::key::{PUBLIC_FILE, PublicKey};
use crate::core::NoteKind;
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::ids::Seq;
use crate::limits::ACTIONS_WALK_RECORDS_MAX;

/// `GET /v1/runs/{run_id}/external-actions`: the signed records of a run's external actions, oldest first, each with
/// exactly the bytes that were signed.
pub fn run_actions(api: &Api, call: &Call) -> Result<Response, Problem> {
    let id = call.run_id()?;
    let request = PageRequest::read(&call.query)?;
    let after: Seq = match request.after.as_deref() {
        None => 0,
        Some(key) => key.parse().map_err(|_| foreign_cursor())?,
    };
    let position = api
        .core
        .run(id)?
        .ok_or_else(|| Problem::new(&codes::RUN_NOT_FOUND, format!("unknown run {id}; next: list runs")))?;
    let mut records: Vec<(Seq, Box<RawValue>)> = Vec::new();
    let (mut seq, mut walked) = (position.last_seq, 0);
    while seq != 0 && walked < ACTIONS_WALK_RECORDS_MAX {
        let record = api.reader.read(seq)?;
        if NoteKind::parse(&record.kind).is_some_and(NoteKind::is_action) {
            records.push((seq, record.body));
        }
        (seq, walked) = (record.run_prev, walked + 1);
    }
    records.reverse();
    let total_count = records.len() as u64;
    let first = records.partition_point(|(seq, _)| *seq <= after);
    let mut items = records.split_off(first);
    let has_more = items.len() > request.limit;
    items.truncate(request.limit);
    let next = items.last().filter(|_| has_more).map(|(seq, _)| seq.to_string());
    let items: Vec<Box<RawValue>> = items.into_iter().map(|(_, body)| body).collect();
    Ok(Page { items, total_count, next, order: "seq_asc" }.answer(&request))
}

#[derive(Serialize)]
struct KeyView {
    key_id: String,
    public_key: String,
    earlier_public_keys: Vec<String>,
}

/// `GET /v1/audit/public-key`: what checks the trail, as PEM.
pub fn public_key(api: &Api, _call: &Call) -> Result<Response, Problem> {
    let present = api.signer.public();
    let kept = std::fs::read_to_string(api.config.state_root.join(PUBLIC_FILE)).unwrap_or_default();
    let earlier = PublicKey::parse_pem(&kept).unwrap_or_default();
    Ok(Response::json(
        200,
        &KeyView {
            key_id: present.key_id(),
            public_key: present.to_pem(),
            earlier_public_keys: earlier.iter().filter(|key| *key != present).map(PublicKey::to_pem).collect(),
        },
    ))
}

/// `GET /v1/audit/checkpoint`: a signed head, to be kept elsewhere.
pub fn checkpoint(api: &Api, _call: &Call) -> Result<Response, Problem> {
    let view = api.core.view();
    Ok(Response::json(200, &Checkpoint::sign(view.committed, view.chain, api.clock.now_ms(), &api.signer)))
}

/// Body of `POST /v1/audit/incident-signature`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IncidentDigest {
    manifest_sha256: String,
}

/// `POST /v1/audit/incident-signature`: signs a digest under the incidents' label, and nothing else.
pub fn sign_incident(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: IncidentDigest = call.json()?;
    let digest = parse_digest(&body.manifest_sha256).ok_or_else(|| {
        let detail = "manifest_sha256 is not 64 hex digits in lower case; next: send the SHA-256 of the manifest";
        Problem::new(&codes::BAD_REQUEST, detail)
    })?;
    Ok(Response::json(200, &IncidentSignature::sign(&digest, &api.signer)))
}
