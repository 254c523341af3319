//! The verdict of each row.
//! Owns: one function a row, from samples to a level and the words for it.
//! Never: is lenient: what a sample does not tell calls somebody.

use super::evidence::{Missing, Profile, Sample};
use super::thresholds::Thresholds;

/// How a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Somebody looks at it today.
    Warning,
    /// Somebody is called.
    Page,
}

impl Level {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Page => "page",
        }
    }
}

/// A level and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How the row stands.
    pub level: Level,
    /// What was found.
    pub detail: String,
}

/// What a row is judged by.
pub struct Case<'a> {
    /// Oldest first, at least one.
    pub samples: &'a [Sample],
    /// The numbers in force.
    pub thresholds: &'a Thresholds,
    /// Staging or production.
    pub profile: Profile,
}

/// The signature of a row's function.
pub type Judge = fn(&Case<'_>) -> Result<Verdict, Missing>;

fn ok(detail: impl Into<String>) -> Verdict {
    Verdict { level: Level::Ok, detail: detail.into() }
}

fn at(level: Level, detail: impl Into<String>) -> Verdict {
    Verdict { level, detail: detail.into() }
}

impl Case<'_> {
    fn last(&self) -> &Sample {
        self.samples.last().expect("there is at least one sample")
    }

    fn graded(&self, row: &'static str, age_ms: u64, what: &str) -> Verdict {
        let level = if age_ms > self.thresholds.get(row, "page_ms") {
            Level::Page
        } else if age_ms > self.thresholds.get(row, "warning_ms") {
            Level::Warning
        } else {
            Level::Ok
        };
        at(level, format!("{what} {}", duration(age_ms)))
    }

    /// Whether the last `count` samples, at most `within_ms` apart, are all bad; `bad` tells why one is.
    fn consecutive(&self, count: u64, within_ms: u64, bad: impl Fn(&Sample) -> Option<String>) -> Verdict {
        let Some(why) = bad(self.last()) else {
            // One that was bad before and is good again is over.
            return match self.samples.iter().rev().find_map(&bad) {
                Some(why) => at(Level::Warning, format!("{why}, and good again in the last sample")),
                None => ok(format!("good in {}", samples(self.samples.len()))),
            };
        };
        let run = self.samples.iter().rev().take_while(|sample| bad(sample).is_some());
        let newest_ms = self.last().at_ms;
        let run = run.take_while(|sample| newest_ms.saturating_sub(sample.at_ms) <= within_ms).count() as u64;
        at(
            if run >= count { Level::Page } else { Level::Warning },
            format!("{why}, in {} in a row", samples(run as usize)),
        )
    }
}

/// A number of samples as people read it.
fn samples(count: usize) -> String {
    if count == 1 { "1 sample".to_string() } else { format!("{count} samples") }
}

/// Milliseconds as people read them.
fn duration(ms: u64) -> String {
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, _) => format!("{minutes} min {seconds} s"),
        _ => format!("{hours} h {minutes} min"),
    }
}

pub(super) fn readiness(case: &Case<'_>) -> Result<Verdict, Missing> {
    let (count, within_ms) =
        (case.thresholds.get("readiness", "page_samples"), case.thresholds.get("readiness", "page_within_ms"));
    Ok(case.consecutive(count, within_ms, |sample| match &sample.readyz {
        Ok(200..=299) => None,
        Ok(status) => Some(format!("/readyz answered {status}")),
        Err(cause) => Some(format!("/readyz did not answer: {cause}")),
    }))
}

pub(super) fn health(case: &Case<'_>) -> Result<Verdict, Missing> {
    case.last().truth("/health/ok")?;
    let count = case.thresholds.get("health", "page_samples");
    let bad = |sample: &Sample| match (sample.truth("/health/ok"), findings(sample)) {
        (Ok(true), _) => None,
        // In staging dead letters are their own row's affair alone: they warn, and page when they go on growing.
        (Ok(false), codes) if case.profile == Profile::Staging && codes == "delivery_dead_letters" => None,
        (Ok(false), codes) => Some(format!("unhealthy: {codes}")),
        (Err(Missing(cause)), _) => Some(cause),
    };
    Ok(case.consecutive(count, u64::MAX, bad))
}

/// Codes of what makes a sample unhealthy.
fn findings(sample: &Sample) -> String {
    let warnings = sample.list("/health/warnings").map(Vec::as_slice).unwrap_or_default();
    let serious = warnings.iter().filter(|warning| warning["severity"] != "info");
    let codes: Vec<&str> = serious.filter_map(|warning| warning["code"].as_str()).collect();
    if codes.is_empty() { "no finding says why".to_string() } else { codes.join(", ") }
}

pub(super) fn storage(case: &Case<'_>) -> Result<Verdict, Missing> {
    let sample = case.last();
    let probes = sample.list("/storage/probes")?;
    let told = |state: &str| {
        let probes = probes.iter().filter(|probe| probe["state"] == state);
        let told = probes.map(|probe| {
            format!("{}: {}", probe["path"].as_str().unwrap_or("?"), probe["code"].as_str().unwrap_or("?"))
        });
        told.collect::<Vec<_>>().join(", ")
    };
    if !sample.truth("/storage/ok")? {
        let told = told("error");
        return Ok(at(Level::Page, if told.is_empty() { "storage is not ok".to_string() } else { told }));
    }
    if probes.is_empty() {
        return Err(Missing("the status has no storage probes".to_string()));
    }
    if let Some(probe) = probes.iter().find(|probe| !matches!(probe["state"].as_str(), Some("ok" | "warning"))) {
        return Err(Missing(format!("a storage probe has no state that is known: {}", probe["state"])));
    }
    let warned = told("warning");
    Ok(if warned.is_empty() { ok("every probe is ok") } else { at(Level::Warning, warned) })
}

pub(super) fn provider_readiness(case: &Case<'_>) -> Result<Verdict, Missing> {
    let sample = case.last();
    let ready = sample.truth("/provider_readiness/active_route_ready")?;
    let state = sample.text("/provider_readiness/active_route_state")?;
    let since_ms = sample.number("/provider_readiness/active_route_state_since_ms")?;
    let age_ms = sample.number("/snapshot_at_ms")?.saturating_sub(since_ms);
    let after = |key| age_ms >= case.thresholds.get("provider_readiness", key);
    let told = format!("the default route is in state {state} since {}", duration(age_ms));
    Ok(match state {
        "ok" if ready => ok("the default route is ready"),
        "ok" => return Err(Missing("the default route is in state ok and not ready".to_string())),
        "warning" if after("warning_after_ms") => at(Level::Warning, told),
        "error" | "none" if after("page_after_ms") => at(Level::Page, told),
        "warning" | "error" | "none" => ok(told),
        other => return Err(Missing(format!("the default route's state {other:?} is not known"))),
    })
}

pub(super) fn queue_lag(case: &Case<'_>) -> Result<Verdict, Missing> {
    let sample = case.last();
    if sample.truth("/runs/held")? || sample.truth("/runs/copy_held")? {
        return Ok(ok("execution is held"));
    }
    let queued = sample.number("/runs/queued")?;
    if queued == 0 {
        return Ok(ok("nothing is queued"));
    }
    // Absent where no queued run waits for an active one: then an engine is about to take it.
    match sample.number("/runs/oldest_queued_behind_active_age_ms") {
        Ok(age_ms) => {
            let (run, active) = (
                sample.text("/runs/oldest_queued_behind_active_run_id")?,
                sample.text("/runs/oldest_queued_behind_run_id")?,
            );
            let status = sample.text("/runs/oldest_queued_behind_run_status")?;
            Ok(case.graded("queue_lag", age_ms, &format!("{run} has been queued behind {active} ({status}) for")))
        }
        Err(_) => {
            let age_ms = sample.number("/runs/oldest_queued_run_age_ms")?;
            Ok(case.graded("queue_lag", age_ms, "a run that waits for no other has been queued for"))
        }
    }
}

pub(super) fn stale_runs(case: &Case<'_>) -> Result<Verdict, Missing> {
    let sample = case.last();
    if sample.truth("/runs/copy_held")? {
        return Ok(ok("the runs of a copied state root are held"));
    }
    match sample.age("/runs/oldest_running_run_idle_ms", "/runs/running")? {
        None => Ok(ok("no run is running")),
        Some(idle_ms) => {
            let run = sample.text("/runs/oldest_idle_running_run_id")?;
            Ok(case.graded("stale_runs", idle_ms, &format!("{run} has had no event for")))
        }
    }
}

pub(super) fn pending(case: &Case<'_>) -> Result<Verdict, Missing> {
    let sample = case.last();
    let mut worst = ok("nobody is waited for");
    for (count, age, run, what) in [
        (
            "/runs/waiting_for_approval",
            "/runs/oldest_waiting_for_approval_age_ms",
            "/runs/oldest_waiting_for_approval_run_id",
            "an approval",
        ),
        (
            "/runs/waiting_for_user_question",
            "/runs/oldest_waiting_for_user_question_age_ms",
            "/runs/oldest_waiting_for_user_question_run_id",
            "an answer",
        ),
    ] {
        if let Some(age_ms) = sample.age(age, count)? {
            let run = sample.text(run)?;
            let verdict = case.graded("pending", age_ms, &format!("{run} has waited for {what} for"));
            if worst.level < verdict.level || worst.level == Level::Ok {
                worst = verdict;
            }
        }
    }
    Ok(worst)
}

pub(super) fn dead_letters(case: &Case<'_>) -> Result<Verdict, Missing> {
    let sample = case.last();
    let unresolved = sample.number("/delivery/unresolved_dead_lettered")?;
    let windows = windows(sample, "/delivery/dead_letter_growth/windows_10m")?;
    let growing = windows.iter().filter(|count| **count > 0).count() as u64;
    let told = format!("{unresolved} unresolved; new in the last 10, 20 and 30 minutes: {windows:?}");
    let page_items = case.thresholds.get("dead_letters", "page_items");
    let repeated = growing >= case.thresholds.get("dead_letters", "page_growth_windows");
    let level = match case.profile {
        Profile::Production if unresolved >= page_items => Level::Page,
        _ if repeated => Level::Page,
        _ if growing > 0 => Level::Warning,
        _ => Level::Ok,
    };
    Ok(at(level, told))
}

fn windows(sample: &Sample, pointer: &str) -> Result<[u64; 3], Missing> {
    let list = sample.list(pointer)?;
    let numbers: Option<Vec<u64>> = list.iter().map(serde_json::Value::as_u64).collect();
    numbers
        .and_then(|numbers| numbers.try_into().ok())
        .ok_or_else(|| Missing(format!("{} are not three counts", pointer.replace('/', "."))))
}

pub(super) fn rate_limits(case: &Case<'_>) -> Result<Verdict, Missing> {
    let sample = case.last();
    let repeats = case.thresholds.get("rate_limits", "repeats");
    let mut worst = ok("no flood in the last ten minutes");
    for code in ["auth_rate_limited", "cors_origin_rate_limited"] {
        let windows = windows(sample, &format!("/control_plane/rate_limits/{code}/windows_10m"))?;
        let level = if windows.iter().all(|count| *count >= repeats) {
            Level::Page
        } else if windows[0] >= repeats {
            Level::Warning
        } else {
            Level::Ok
        };
        if level > worst.level {
            worst = at(level, format!("{code} in the last 10, 20 and 30 minutes: {windows:?}"));
        }
    }
    Ok(worst)
}

pub(super) fn debug_capture(case: &Case<'_>) -> Result<Verdict, Missing> {
    let sample = case.last();
    let level = sample.text("/runtime/debug_level")?;
    if level != "full" {
        return Ok(ok(format!("debug level is {level}")));
    }
    let since_ms = sample.number("/runtime/debug/since_ms")?;
    let age_ms = sample.number("/snapshot_at_ms")?.saturating_sub(since_ms);
    // A window has an end and names what it is for.
    let ticket = sample.text("/runtime/debug/ticket").ok();
    let has_end = sample.number("/runtime/debug/until_ms").is_ok();
    let told = format!("debug level is full since {}, for {}", duration(age_ms), ticket.unwrap_or("no ticket"));
    let level = if age_ms > case.thresholds.get("debug_capture", "page_ms") {
        Level::Page
    } else if ticket.is_none() || !has_end {
        Level::Warning
    } else {
        Level::Ok
    };
    Ok(at(level, told))
}

pub(super) fn disk(case: &Case<'_>) -> Result<Verdict, Missing> {
    let sample = case.last();
    let probes = sample.list("/storage/probes")?;
    let place = probes.iter().position(|probe| probe["name"] == "state_root");
    let place = place.ok_or_else(|| Missing("the status has no probe of the state root".to_string()))?;
    let used = sample.number(&format!("/storage/probes/{place}/space/used_percent"))?;
    // Some file systems make inodes as they need them, and tell of none.
    let inodes = sample.number(&format!("/storage/probes/{place}/space/inodes_used_percent")).unwrap_or(0);
    let over = |key| case.thresholds.get("disk", key);
    let level = if used > over("page_percent") || inodes >= over("page_inode_percent") {
        Level::Page
    } else if used > over("warning_percent") {
        Level::Warning
    } else {
        Level::Ok
    };
    Ok(at(level, format!("{used} % of the space and {inodes} % of the inodes are used")))
}
