//! Whole results of tools, where a model was shown only a part.
//! Owns: the routes below `/v1/runs/{run_id}/blobs`.
//! May touch: blobs, for reading.
//! Never: gives out a blob that the run's own records do not name.

use serde::Serialize;

use super::call::Call;
use super::context::Api;
use super::query::{QueryKind, QueryParam};
use crate::blobs::BlobError;
use crate::core::{BlobRef, ToolCallFinished};
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::limits::{BLOB_PAGE_BYTES_DEFAULT, BLOB_PAGE_BYTES_MAX};

/// Where to begin.
pub const OFFSET: QueryParam = QueryParam {
    name: "offset",
    kind: QueryKind::Unsigned,
    summary: "First byte, from 0; `next_offset` of the answer before.",
};
/// How much to show.
pub const BYTES: QueryParam = QueryParam {
    name: "bytes",
    kind: QueryKind::Unsigned,
    summary: "Bytes at most; 262144 when left out, at most 1048576.",
};

#[derive(Debug, Serialize)]
struct BlobBody {
    call: String,
    tool: String,
    sha256: String,
    bytes: u64,
    /// It has not been removed by `runs prune-results`.
    kept: bool,
}

#[derive(Debug, Serialize)]
struct BlobPage<'a> {
    sha256: &'a str,
    bytes: u64,
    offset: u64,
    content: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_offset: Option<u64>,
}

/// The blobs that the run's results name, in order.
fn named(api: &Api, call: &Call) -> Result<Vec<BlobBody>, Problem> {
    let id = call.run_id()?;
    let position = api
        .core
        .run(id)?
        .ok_or_else(|| Problem::new(&codes::RUN_NOT_FOUND, format!("unknown run {id}; next: list runs")))?;
    let mut all = Vec::new();
    for record in api.run_records(position.last_seq)?.iter().filter(|record| record.kind == "tool_call.finished") {
        let finished: ToolCallFinished = serde_json::from_str(record.body.get())
            .map_err(|error| Problem::new(&codes::INTERNAL_ERROR, format!("record {}: {error}", record.seq)))?;
        if let Some(BlobRef { sha256, bytes }) = finished.blob {
            let kept = api.blobs.has(&sha256);
            all.push(BlobBody { call: finished.call, tool: finished.tool, sha256, bytes, kept });
        }
    }
    Ok(all)
}

fn not_found() -> Problem {
    Problem::new(&codes::BLOB_NOT_FOUND, "no result of this run is kept under this digest; next: list the run's blobs")
}

/// `GET /v1/runs/{run_id}/blobs`.
pub fn list(api: &Api, call: &Call) -> Result<Response, Problem> {
    Ok(Response::json(200, &named(api, call)?))
}

/// `GET /v1/runs/{run_id}/blobs/{blob_id}`.
pub fn get(api: &Api, call: &Call) -> Result<Response, Problem> {
    let wanted = call.param("blob_id")?;
    let known = named(api, call)?.into_iter().find(|blob| blob.sha256 == *wanted).ok_or_else(not_found)?;
    let bytes = api.blobs.get(&known.sha256).map_err(|error| match error {
        BlobError::Unknown { .. } => not_found(),
        error => {
            log::error!("a blob cannot be read: {error}");
            Problem::new(&codes::BLOB_UNREADABLE, error.to_string())
        }
    })?;
    let text = String::from_utf8_lossy(&bytes);
    let most = call.query.unsigned(BYTES.name).unwrap_or(BLOB_PAGE_BYTES_DEFAULT);
    let offset = call.query.unsigned(OFFSET.name).unwrap_or(0);
    if !(1..=BLOB_PAGE_BYTES_MAX).contains(&most) || offset > text.len() as u64 {
        let detail = format!(
            "bytes is 1 to {BLOB_PAGE_BYTES_MAX}, offset at most {}; next: begin at 0, or at `next_offset`",
            text.len()
        );
        return Err(Problem::new(&codes::BAD_REQUEST, detail));
    }
    // Both ends at a character, so that the pages together are the text; a page is never empty before the end.
    let start = (0..=offset as usize).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let limit = text.len().min(start + (most as usize).max(4));
    let end = (start..=limit).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(limit);
    let page = BlobPage {
        sha256: &known.sha256,
        bytes: text.len() as u64,
        offset: start as u64,
        content: &text[start..end],
        next_offset: (end < text.len()).then_some(end as u64),
    };
    Ok(Response::json(200, &page))
}
