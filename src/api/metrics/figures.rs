//! Figures of the metrics that stand in no single place of the status document.
//! Owns: their arithmetic.
//! Never: asks anything but the document.

use serde_json::Value;

fn findings(status: &Value, severity: &str) -> f64 {
    let warnings = status.pointer("/health/warnings").and_then(Value::as_array);
    warnings.into_iter().flatten().filter(|warning| warning["severity"] == severity).count() as f64
}

/// Findings that are information.
pub fn info_findings(status: &Value) -> f64 {
    findings(status, "info")
}

/// Findings that warn.
pub fn warning_findings(status: &Value) -> f64 {
    findings(status, "warning")
}

/// Findings that are errors.
pub fn error_findings(status: &Value) -> f64 {
    findings(status, "error")
}

/// Storage probes that are not ok.
pub fn probes_not_ok(status: &Value) -> f64 {
    let probes = status.pointer("/storage/probes").and_then(Value::as_array);
    probes.into_iter().flatten().filter(|probe| probe["state"] != "ok").count() as f64
}

fn is_full(status: &Value) -> bool {
    status.pointer("/runtime/debug_level").is_some_and(|level| level == "full")
}

/// 1 while debug capture is full and no ticket was named.
pub fn full_without_ticket(status: &Value) -> f64 {
    let has = |name: &str| status.pointer(name).is_some_and(|value| !value.is_null());
    let in_a_window = has("/runtime/debug/ticket") && has("/runtime/debug/until_ms");
    f64::from(is_full(status) && !in_a_window)
}

/// Seconds since debug capture is full; 0 while it is not.
pub fn full_seconds(status: &Value) -> f64 {
    let at = |pointer: &str| status.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0);
    let since_ms = at("/runtime/debug/since_ms");
    if is_full(status) && since_ms > 0.0 { (at("/snapshot_at_ms") - since_ms).max(0.0) * 0.001 } else { 0.0 }
}

/// Threads that have ended.
pub fn dead_threads(status: &Value) -> f64 {
    let threads = status["threads"].as_array().into_iter().flatten();
    let count = |thread: &Value, name: &str| thread[name].as_f64().unwrap_or(0.0);
    threads.map(|thread| count(thread, "count") - count(thread, "alive")).sum()
}
