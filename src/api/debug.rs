//! Debug capture over HTTP: what was kept of a run, pruning, retention holds.
//! Owns: their shapes, and what status says of an open debug window.
//! Never: shows an artifact to anybody but an admin.

use serde::{Deserialize, Serialize};

use super::call::Call;
use super::context::Api;
use super::status::{HealthWarning, Severity};
use super::witness::Act;
use crate::core::{Command, DebugLevel, Decision};
use crate::debug_capture::{ArtifactView, Bundle, Standing, StoreError};
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::ids::{RunId, SessionId};
use crate::limits::{DEBUG_FULL_TTL_MS_DEFAULT, DEBUG_PRUNE_BUNDLES_MAX};

fn problem(error: StoreError) -> Problem {
    let code = match &error {
        StoreError::NoRun(_) => &codes::RUN_DEBUG_NOT_FOUND,
        StoreError::NoArtifact(_) => &codes::RUN_DEBUG_ARTIFACT_NOT_FOUND,
        StoreError::Unreadable { .. } => &codes::RUN_DEBUG_ARTIFACT_UNREADABLE,
        StoreError::NoRoom | StoreError::NoRandom | StoreError::Io(_) => &codes::INTERNAL_ERROR,
    };
    Problem::new(code, error.to_string())
}

fn known(api: &Api, run: RunId) -> Result<(), Problem> {
    match api.core.run(run)? {
        Some(_) => Ok(()),
        None => Err(Problem::new(&codes::RUN_NOT_FOUND, format!("unknown run {run}; next: list runs"))),
    }
}

#[derive(Serialize)]
struct RunDebug {
    run_id: RunId,
    /// The highest level among the artifacts.
    level: DebugLevel,
    artifacts: Vec<ArtifactView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retention_hold: Option<HoldView>,
}

#[derive(Serialize)]
struct HoldView {
    run_id: RunId,
    held: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    since_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

fn hold_view(api: &Api, run_id: RunId) -> HoldView {
    match api.core.retention_hold(run_id) {
        Some(hold) => HoldView { run_id, held: true, since_ms: Some(hold.since_ms), reason: hold.reason },
        None => HoldView { run_id, held: false, since_ms: None, reason: None },
    }
}

/// `GET /v1/runs/{run_id}/debug`: what was kept of a run, oldest first.
pub fn list(api: &Api, call: &Call) -> Result<Response, Problem> {
    let run_id = call.run_id()?;
    known(api, run_id)?;
    api.capture.settle();
    let artifacts = api.capture.store().list(run_id).map_err(problem)?;
    let level = artifacts.iter().map(|artifact| artifact.level).max().unwrap_or_default();
    let retention_hold = Some(hold_view(api, run_id)).filter(|hold| hold.held);
    Ok(Response::json(200, &RunDebug { run_id, level, artifacts, retention_hold }))
}

/// `GET /v1/runs/{run_id}/debug/artifacts/{artifact_id}`: the body as text, decrypted and compared with its digest.
pub fn artifact(api: &Api, call: &Call) -> Result<Response, Problem> {
    let run_id = call.run_id()?;
    known(api, run_id)?;
    let body = api.capture.store().read(run_id, &call.param("artifact_id")?).map_err(problem)?;
    Ok(Response::new(200, "text/plain; charset=utf-8", body))
}

/// Body of `POST /v1/runs/prune`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneBody {
    older_than_ms: u64,
    session_id: Option<SessionId>,
    limit: Option<u64>,
    dry_run: Option<bool>,
}

#[derive(Serialize)]
struct Prune {
    dry_run: bool,
    /// Removed, or to be removed.
    pruned: Vec<Bundle>,
    pruned_count: usize,
    pruned_bytes: u64,
    skipped: Vec<Skipped>,
    /// More are old enough than one answer names.
    has_more: bool,
}

#[derive(Serialize)]
struct Skipped {
    run_id: RunId,
    reason: &'static str,
}

/// `POST /v1/runs/prune`: removes debug artifacts of ended runs, oldest first. Runs and their records stay.
pub fn prune(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: PruneBody = call.json()?;
    if body.older_than_ms == 0 || body.limit == Some(0) {
        let detail = "older_than_ms and limit are at least 1; next: correct the request";
        return Err(Problem::new(&codes::RUN_RETENTION_INVALID_REQUEST, detail));
    }
    let dry_run = body.dry_run.unwrap_or(false);
    api.capture.settle();
    if dry_run {
        return select(api, &body).map(|prune| Response::json(200, &prune));
    }
    let target = body.session_id.as_ref().map_or_else(|| "all sessions".to_string(), ToString::to_string);
    let act = Act { verb: "debug.prune", target: &target, containment: false };
    let pruned = api.witnessed(&call.actor(), act, || {
        let mut prune = select(api, &body)?;
        prune.pruned.retain(|bundle| match api.capture.store().remove(bundle.run_id) {
            Ok(()) => true,
            Err(error) => {
                log::warn!("debug artifacts of {} could not be removed: {error}", bundle.run_id);
                prune.skipped.push(Skipped { run_id: bundle.run_id, reason: "error" });
                false
            }
        });
        prune.pruned_count = prune.pruned.len();
        prune.pruned_bytes = prune.pruned.iter().map(|bundle| bundle.bytes).sum();
        Ok(prune)
    })?;
    Ok(Response::json(200, &pruned))
}

/// What a prune with this body is about.
fn select(api: &Api, body: &PruneBody) -> Result<Prune, Problem> {
    let now_ms = api.clock.now_ms();
    let limit = body.limit.map_or(DEBUG_PRUNE_BUNDLES_MAX, |limit| limit as usize).min(DEBUG_PRUNE_BUNDLES_MAX);
    let (mut pruned, mut skipped, mut has_more) = (Vec::new(), Vec::new(), false);
    for bundle in api.capture.store().bundles() {
        if now_ms.saturating_sub(bundle.updated_at_ms) < body.older_than_ms {
            continue;
        }
        if let Some(session) = &body.session_id
            && api.core.run(bundle.run_id)?.is_none_or(|position| position.session != *session)
        {
            continue;
        }
        // What has to stay uses up no place: behind it there may be more that can go.
        if pruned.len() == limit {
            has_more = true;
            break;
        }
        let reason = match api.capture.standing(bundle.run_id) {
            Standing::Ended => {
                pruned.push(bundle);
                continue;
            }
            Standing::Active => "active",
            Standing::Held => "held",
            Standing::Unknown => "unknown",
        };
        if skipped.len() < DEBUG_PRUNE_BUNDLES_MAX {
            skipped.push(Skipped { run_id: bundle.run_id, reason });
        }
    }
    let pruned_bytes = pruned.iter().map(|bundle| bundle.bytes).sum();
    let dry_run = body.dry_run.unwrap_or(false);
    Ok(Prune { dry_run, pruned_count: pruned.len(), pruned_bytes, pruned, skipped, has_more })
}

/// Body of `POST /v1/runs/{run_id}/retention-hold`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldBody {
    held: bool,
    reason: Option<String>,
}

/// `POST /v1/runs/{run_id}/retention-hold`: keeps a run's evidence from being removed, or lets it go.
pub fn retention_hold(api: &Api, call: &Call) -> Result<Response, Problem> {
    let run = call.run_id()?;
    let body: HoldBody = call.json()?;
    let reason = super::sessions::reason(body.reason)?;
    let decision = api.core.request(Command::SetRetentionHold { run, held: body.held, reason }, Some(call.actor()))?;
    match decision {
        Decision::RetentionHold { .. } => Ok(Response::json(200, &hold_view(api, run))),
        other => Err(Problem::new(&codes::INTERNAL_ERROR, format!("unexpected decision {other:?}"))),
    }
}

/// What status says of the debug level.
pub fn warnings(api: &Api, now_ms: u64) -> Vec<HealthWarning> {
    let view = api.core.view();
    let debug = &view.runtime.settings().debug;
    let level = debug.at(now_ms);
    let open_ms = debug.since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms));
    let finding = |severity, code, message: String| {
        let action = "kheish-daemon runtime set-debug-level off";
        vec![HealthWarning::new(severity, code, message, debug.ticket.clone(), action)]
    };
    match (level, &debug.ticket) {
        (DebugLevel::Full, _) if open_ms > DEBUG_FULL_TTL_MS_DEFAULT => {
            finding(Severity::Error, "debug_capture_full", format!("debug level full has been open for {open_ms} ms"))
        }
        (DebugLevel::Full, None) => {
            finding(Severity::Warning, "debug_capture_full", "debug level full is open without a ticket".to_string())
        }
        (DebugLevel::Full, Some(ticket)) => {
            finding(Severity::Info, "debug_capture_full", format!("debug level full is open for {ticket}"))
        }
        (DebugLevel::On | DebugLevel::Redacted, _) => {
            finding(Severity::Info, "debug_capture_on", format!("debug level {} is on", level.as_str()))
        }
        (DebugLevel::Off, _) => Vec::new(),
    }
}
