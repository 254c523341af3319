//! Retention of what lies beside the journal: whole results of tools and files of inputs.
//! Owns: which of them no kept run names.
//! May touch: the journal, for reading; blobs.
//! Never: removes what a run names that has not ended, that ended too lately, or whose evidence is held.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::call::Call;
use super::context::Api;
use super::witness::Act;
use crate::blobs::{BlobError, Blobs, Kept};
use crate::commit::CoreHandle;
use crate::core::{Run, RunStatus};
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::ids::Seq;
use crate::journal::Reader;
use crate::limits::{BLOB_PRUNE_AGE_MS_MIN, BLOB_PRUNE_MAX, BLOB_PRUNE_SCAN_BYTES};

/// Body of `POST /v1/runs/prune-results`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PruneBody {
    older_than_ms: u64,
    dry_run: Option<bool>,
}

#[derive(Debug, Serialize)]
struct Pruned {
    dry_run: bool,
    /// Removed, or to be removed.
    pruned_count: usize,
    pruned_bytes: u64,
    /// Old enough, and named by a run that is kept.
    named_count: usize,
    /// What was there before.
    total_count: usize,
    total_bytes: u64,
    /// More could be removed than one request does.
    has_more: bool,
}

fn unreadable(error: BlobError) -> Problem {
    log::error!("kept results cannot be looked at: {error}");
    Problem::new(&codes::BLOB_UNREADABLE, error.to_string())
}

/// `POST /v1/runs/prune-results`.
pub fn prune(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: PruneBody = call.json()?;
    if body.older_than_ms < BLOB_PRUNE_AGE_MS_MIN {
        let detail = format!("older_than_ms is at least {BLOB_PRUNE_AGE_MS_MIN}; next: correct the request");
        return Err(Problem::new(&codes::RUN_RETENTION_INVALID_REQUEST, detail));
    }
    let cutoff_ms = api.clock.now_ms().saturating_sub(body.older_than_ms);
    let select = || select(&api.core, &api.reader, &api.blobs, cutoff_ms);
    if body.dry_run.unwrap_or(false) {
        return select().map(|selected| Response::json(200, &selected.told(true)));
    }
    // It makes room, so it must work where there is none.
    let act = Act { verb: "results.prune", target: "all runs", containment: true };
    let pruned = api.witnessed(&call.actor(), act, || {
        let mut selected = select()?;
        let before_ms = selected.before_ms;
        let mut failure = None;
        selected.unnamed.retain(|kept| match api.blobs.retire(&kept.sha256, before_ms) {
            Ok(gone) => gone,
            Err(error) => {
                failure = Some(error);
                false
            }
        });
        match failure {
            Some(error) if selected.unnamed.is_empty() => Err(unreadable(error)),
            Some(error) => {
                log::warn!("some kept results could not be removed: {error}");
                Ok(selected.told(false))
            }
            None => Ok(selected.told(false)),
        }
    })?;
    Ok(Response::json(200, &pruned))
}

/// What is to be removed.
#[derive(Debug)]
pub struct Selected {
    /// Stored before [`Selected::before_ms`] and named by no kept run; oldest first.
    pub unnamed: Vec<Kept>,
    /// What was stored later may be about to be named, Unix milliseconds.
    pub before_ms: u64,
    /// Stored before that and named by a kept run.
    pub named_count: usize,
    total_count: usize,
    total_bytes: u64,
    has_more: bool,
}

impl Selected {
    fn told(&self, dry_run: bool) -> Pruned {
        Pruned {
            dry_run,
            pruned_count: self.unnamed.len(),
            pruned_bytes: self.unnamed.iter().map(|kept| kept.bytes).sum(),
            named_count: self.named_count,
            total_count: self.total_count,
            total_bytes: self.total_bytes,
            has_more: self.has_more,
        }
    }
}

/// What no run names that has not ended before `cutoff_ms` or whose evidence is held. Removes nothing.
///
/// # Errors
/// The journal or the directory cannot be read; without knowing all names nothing may be removed.
pub fn select(core: &CoreHandle, reader: &Reader, blobs: &Blobs, cutoff_ms: u64) -> Result<Selected, Problem> {
    // The table is shared, not copied; the core does not wait while it is gone through.
    let (runs, held) = core.read(|state| {
        let held: HashSet<u32> = state.retention_holds().map(|(run, _)| run.number).collect();
        (state.runs().clone(), held)
    })?;
    let is_kept =
        |number: u32, run: &Run| !run.status.is_terminal() || run.updated_at_ms > cutoff_ms || held.contains(&number);
    let (mut kept_runs, mut first, mut before_ms) = (HashSet::new(), Seq::MAX, cutoff_ms);
    for number in 1..=runs.len() {
        let Some(run) = runs.get(number) else { continue };
        if is_kept(number, run) {
            kept_runs.insert(number);
            first = first.min(run.first_seq);
        }
        if run.status == RunStatus::Running {
            // An engine may have stored something that no record names yet. It did so after the run had begun.
            before_ms = before_ms.min(run.submitted_at_ms);
        }
    }
    let all = blobs.list().map_err(unreadable)?;
    let (total_count, total_bytes) = (all.len(), all.iter().map(|kept| kept.bytes).sum());
    let mut old: HashMap<String, Kept> =
        all.into_iter().filter(|kept| kept.stored_at_ms < before_ms).map(|kept| (kept.sha256.clone(), kept)).collect();
    let old_count = old.len();
    take_out_named(reader, first, &kept_runs, &mut old)?;
    let named_count = old_count - old.len();
    let mut unnamed: Vec<Kept> = old.into_values().collect();
    unnamed.sort_by(|one, other| (one.stored_at_ms, &one.sha256).cmp(&(other.stored_at_ms, &other.sha256)));
    let has_more = unnamed.len() > BLOB_PRUNE_MAX;
    unnamed.truncate(BLOB_PRUNE_MAX);
    Ok(Selected { unnamed, before_ms, named_count, total_count, total_bytes, has_more })
}

/// Takes out of `old` whatever a record of a kept run mentions, from `first` on. Any mention counts, whatever the record's kind.
fn take_out_named(
    reader: &Reader,
    first: Seq,
    kept_runs: &HashSet<u32>,
    old: &mut HashMap<String, Kept>,
) -> Result<(), Problem> {
    let mut next = first.max(reader.floor());
    while !old.is_empty() && next <= reader.committed() {
        let records = reader.scan(next, BLOB_PRUNE_SCAN_BYTES)?;
        let Some(last) = records.last() else { break };
        next = last.seq + 1;
        for record in records.iter().filter(|record| record.run.is_some_and(|run| kept_runs.contains(&run.number))) {
            for digest in digests(record.body.get()) {
                old.remove(digest);
            }
        }
    }
    Ok(())
}

/// Everything in a text that could be a digest: runs of exactly 64 hex digits.
fn digests(text: &str) -> impl Iterator<Item = &str> {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    text.split(move |c: char| !is_hex(c)).filter(|part| part.len() == 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mention_of_a_digest_is_found_and_nothing_else() {
        let (one, other) = ("a".repeat(64), "0123456789abcdef".repeat(4));
        let long = "b".repeat(65);
        let text = format!(r#"{{"sha256":"{one}","x":["{long}","{other}"],"in":"text {one}, and so on"}}"#);
        assert_eq!(digests(&text).collect::<Vec<_>>(), [one.as_str(), &other, &one]);
    }
}
