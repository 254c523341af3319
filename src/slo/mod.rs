//! The operators' table of signals: what is normal, what warns, what calls somebody.
//! Owns: the rows, their thresholds, and the verdict on samples of one daemon.
//! Never: contacts anybody, or knows the daemon's own types; a sample is what its interface answered.
//!
//! `kheish-daemon slo`, docs/operators/slo.md and deploy/prometheus/kheish-alerts.yml come from [`ROWS`]; tests compare
//! the two files with it.

mod alerts;
mod evidence;
mod judge;
mod report;
mod table;
mod thresholds;

#[cfg(test)]
mod tests;

pub use alerts::{alert_rules, alert_table};
pub use evidence::{Profile, Sample};
pub use judge::{Level, Verdict};
pub use report::{Report, ReportRow, evaluate, needs_another_sample};
pub use table::{ROWS, Row, slo_table};
pub use thresholds::{ThresholdError, Thresholds};
