//! How model calls went since start: figures for status, no decision needs them.
//! Owns: the counters.
//! Never: names a route in a counter of its own: their number would depend on the configuration.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

/// The counters.
#[derive(Debug, Default)]
pub struct CallCounts {
    answered: AtomicU64,
    failed: AtomicU64,
    micros: AtomicU64,
    last_failure: Mutex<Option<(&'static str, u64)>>,
}

/// As status shows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CallCountsView {
    /// Requests that a model answered.
    pub answered_count: u64,
    /// Requests that failed, repeated ones included.
    pub failed_count: u64,
    /// Time that all of them took, in milliseconds.
    pub duration_ms: u64,
    /// Class of the last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure_code: Option<&'static str>,
    /// When it was, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure_at_ms: Option<u64>,
}

impl CallCounts {
    /// A request has ended after `took`; `failure` is its class.
    pub fn note(&self, took: Duration, failure: Option<&'static str>, now_ms: u64) {
        self.micros.fetch_add(took.as_micros() as u64, Relaxed);
        match failure {
            None => {
                self.answered.fetch_add(1, Relaxed);
            }
            Some(code) => {
                self.failed.fetch_add(1, Relaxed);
                *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some((code, now_ms));
            }
        }
    }

    /// The figures now.
    pub fn view(&self) -> CallCountsView {
        let last = *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner);
        CallCountsView {
            answered_count: self.answered.load(Relaxed),
            failed_count: self.failed.load(Relaxed),
            duration_ms: self.micros.load(Relaxed) / 1_000,
            last_failure_code: last.map(|(code, _)| code),
            last_failure_at_ms: last.map(|(_, at_ms)| at_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_failures_are_counted_and_the_last_failure_is_dated() {
        let counts = CallCounts::default();
        counts.note(Duration::from_micros(1_500), None, 10);
        counts.note(Duration::from_micros(700), Some("rate_limited"), 20);
        counts.note(Duration::from_micros(800), None, 30);
        let expected = CallCountsView {
            answered_count: 2,
            failed_count: 1,
            duration_ms: 3,
            last_failure_code: Some("rate_limited"),
            last_failure_at_ms: Some(20),
        };
        assert_eq!(counts.view(), expected);
    }
}
