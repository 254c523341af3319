//! The thread that writes artifacts and removes old ones.
//! Owns: the order of both.
//! Never: writes at a higher level than the one in force when it writes; removes what belongs to an active or held run.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::sync::atomic::Ordering;

use super::shape::shape;
use super::store::Bundle;
use super::{Job, Shared, Standing};
use crate::core::DebugLevel;
use crate::worker::idle;

pub(super) fn run(shared: &Shared, inbox: &Receiver<Job>) {
    let interval = Duration::from_millis(shared.store.limits().gc_interval_ms);
    let mut looked = None::<Instant>;
    // What all together may grow by between two looks.
    let written_max = shared.store.limits().store_bytes_max / 8;
    let mut written = 0;
    loop {
        if written > written_max || looked.is_none_or(|looked| looked.elapsed() >= interval) {
            collect(shared);
            looked = Some(Instant::now());
            written = 0;
        }
        let wait = looked.map_or(interval, |looked| interval.saturating_sub(looked.elapsed()));
        match idle(|| inbox.recv_timeout(wait)) {
            Ok(Job::Write { run, kind, level, at_ms, bytes }) => {
                shared.counters.waiting_bytes.fetch_sub(bytes.len(), Ordering::AcqRel);
                let level = level.min((shared.surroundings.level)());
                if level == DebugLevel::Off {
                    continue;
                }
                let bytes_max = shared.store.limits().artifact_bytes_max;
                let shaped = shape(level, &bytes, bytes_max, &*shared.surroundings.redact);
                match shared.store.put(run, kind, level, at_ms, shaped) {
                    Ok(bytes) => {
                        written += bytes;
                        shared.counters.written.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => {
                        shared.counters.failed.fetch_add(1, Ordering::Relaxed);
                        log::warn!("a debug artifact of {run} was not kept: {error}");
                    }
                }
            }
            // Whoever waited may have given up.
            Ok(Job::Settle(done)) => drop(done.try_send(())),
            Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Removes what is too old, and the oldest when all together is too much.
fn collect(shared: &Shared) {
    let (limits, now_ms) = (shared.store.limits(), shared.surroundings.clock.now_ms());
    let mut bundles = shared.store.bundles();
    let mut bytes: u64 = bundles.iter().map(|bundle| bundle.bytes).sum();
    bundles.retain(|bundle| {
        let age_ms = now_ms.saturating_sub(bundle.updated_at_ms);
        let is_old = limits.ttl_ms > 0 && age_ms >= limits.ttl_ms;
        let is_too_much = bytes > limits.store_bytes_max;
        if (is_old || is_too_much) && remove(shared, bundle) {
            bytes -= bundle.bytes;
            return false;
        }
        true
    });
}

fn remove(shared: &Shared, bundle: &Bundle) -> bool {
    if (shared.surroundings.standing)(bundle.run_id) != Standing::Ended {
        return false;
    }
    match shared.store.remove(bundle.run_id) {
        Ok(()) => {
            let Bundle { run_id, artifact_count, bytes, .. } = bundle;
            log::info!("removed {artifact_count} debug artifacts of {run_id} ({bytes} bytes)");
            true
        }
        Err(error) => {
            log::warn!("debug artifacts of {} could not be removed: {error}", bundle.run_id);
            false
        }
    }
}
