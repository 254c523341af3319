//! `POST /v1/backup/barrier` and its end: the daemon's part of a backup that a command makes from the files.
//! Owns: their shapes.
//! Never: takes or returns a path; hands out content of a file.

use std::os::unix::fs::MetadataExt;

use serde::Serialize;

use super::call::Call;
use super::context::Api;
use crate::backup::barrier::BarrierError;
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::journal::Cut;
use crate::limits::BACKUP_PAUSE_MS_MAX;

#[derive(Serialize)]
struct BarrierView {
    barrier_id: String,
    /// The daemon goes on by itself after this time.
    pause_ms: u64,
    daemon_version: &'static str,
    state_root: RootView,
    /// How far the journal's files reach at its seal.
    cut: Cut,
    audit_key_id: String,
}

/// By which a command tells that the files it reads are this daemon's.
#[derive(Serialize)]
struct RootView {
    device: u64,
    inode: u64,
}

#[derive(Serialize)]
struct ClosedView {
    /// Nothing was changed while the barrier stood.
    stood: bool,
}

/// `POST /v1/backup/barrier`.
pub fn open(api: &Api, call: &Call) -> Result<Response, Problem> {
    call.no_fields()?;
    let root = std::fs::metadata(&api.config.state_root).map_err(|error| {
        let detail = format!("the state root cannot be looked at: {error}; next: check that it is still there");
        Problem::new(&codes::BACKUP_BARRIER_FAILED, detail)
    })?;
    let opened = api.barrier.open()?;
    let view = BarrierView {
        barrier_id: opened.id,
        pause_ms: BACKUP_PAUSE_MS_MAX,
        daemon_version: env!("CARGO_PKG_VERSION"),
        state_root: RootView { device: root.dev(), inode: root.ino() },
        cut: opened.cut,
        audit_key_id: api.signer.key_id(),
    };
    Ok(Response::json(200, &view))
}

/// `POST /v1/backup/barrier/{barrier_id}/close`.
pub fn close(api: &Api, call: &Call) -> Result<Response, Problem> {
    call.no_fields()?;
    let id = call.param("barrier_id")?;
    match api.barrier.close(&id) {
        Some(stood) => Ok(Response::json(200, &ClosedView { stood })),
        None => {
            let detail = "no such barrier is open, as after a restart of the daemon; next: begin the backup again";
            Err(Problem::new(&codes::BACKUP_BARRIER_UNKNOWN, detail))
        }
    }
}

impl From<BarrierError> for Problem {
    fn from(error: BarrierError) -> Self {
        match error {
            BarrierError::InProgress => Self::new(&codes::BACKUP_IN_PROGRESS, error.to_string()),
            BarrierError::Core(error) => error.into(),
            BarrierError::Audit | BarrierError::Broker(_) | BarrierError::NoRandom => {
                Self::new(&codes::BACKUP_BARRIER_FAILED, error.to_string()).header("retry-after", "1")
            }
        }
    }
}
