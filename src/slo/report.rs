//! All rows against the samples of one daemon.
//! Owns: the report and its order: the table's.
//! Never: drops a row.

use serde::Serialize;

use super::evidence::{Missing, Profile, Sample};
use super::judge::{Case, Level};
use super::table::ROWS;
use super::thresholds::Thresholds;

/// The verdict on one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReportRow {
    /// The row's name.
    pub id: &'static str,
    /// As the operators' table calls it.
    pub signal: &'static str,
    /// How it stands.
    pub level: Level,
    /// Whether the daemon did not tell what the row is judged by; such a row pages.
    pub evidence_missing: bool,
    /// What was found.
    pub detail: String,
    /// Where it is read.
    pub path: &'static str,
    /// What warns.
    pub warning: &'static str,
    /// What pages.
    pub page: &'static str,
    /// The part of the daemon or its surroundings that it points at.
    pub component: &'static str,
    /// What to run next.
    pub next: &'static str,
}

/// The verdict on a daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// No row warns or pages.
    pub ok: bool,
    /// The worst row's level.
    pub level: Level,
    /// Which thresholds of dead letters held.
    pub profile: Profile,
    /// How many samples were taken.
    pub sample_count: usize,
    /// In the order of the table.
    pub rows: Vec<ReportRow>,
}

/// Judges every row.
///
/// # Panics
/// There is no sample.
pub fn evaluate(samples: &[Sample], thresholds: &Thresholds, profile: Profile) -> Report {
    let case = Case { samples, thresholds, profile };
    let rows: Vec<ReportRow> = ROWS
        .iter()
        .map(|row| {
            let (level, detail, evidence_missing) = match (row.judge)(&case) {
                Ok(verdict) => (verdict.level, verdict.detail, false),
                Err(Missing(cause)) => (Level::Page, cause, true),
            };
            ReportRow {
                id: row.id,
                signal: row.signal,
                level,
                evidence_missing,
                detail,
                path: row.path,
                warning: row.warning,
                page: row.page,
                component: row.component,
                next: row.next,
            }
        })
        .collect();
    let level = rows.iter().map(|row| row.level).max().unwrap_or(Level::Page);
    Report { ok: level == Level::Ok, level, profile, sample_count: samples.len(), rows }
}

/// Whether a row that looks at consecutive samples cannot be judged by these: the last one is bad, and it is alone.
pub fn needs_another_sample(samples: &[Sample], thresholds: &Thresholds) -> bool {
    let wanted = thresholds.get("readiness", "page_samples").max(thresholds.get("health", "page_samples"));
    let bad = |sample: &Sample| {
        let ready = matches!(sample.readyz, Ok(200..=299));
        !ready || sample.truth("/health/ok") != Ok(true)
    };
    samples.last().is_none_or(&bad) && (samples.len() as u64) < wanted
}
