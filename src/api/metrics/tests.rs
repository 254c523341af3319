//! The answer's form and its fixed size.
//! Owns: a document with every list grown, as a busy daemon's would be.
//! Never: needs a daemon.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::limits::METRICS_SERIES_MAX;

fn status(threads: usize) -> Value {
    let thread = |number: usize| {
        json!({"name": format!("kind{number}"), "count": 2, "alive": 1, "busy": 1, "queue_depth": 9,
               "last_progress_ms": 1_500, "longest_busy_ms": 250})
    };
    json!({
        "snapshot_at_ms": 10_000, "ready": true, "started_at_ms": 5_000,
        "health": {"ok": false, "warnings": [{"severity": "info"}, {"severity": "error"}, {"severity": "info"}]},
        "storage": {"ok": true, "probes": [{"state": "warning", "latency_ms": 7, "space": {"used_percent": 81}},
                                           {"state": "ok"}]},
        "runs": {"queued": 5, "oldest_queued_run_age_ms": 1_500},
        "runtime": {"debug_level": "full", "debug": {"since_ms": 4_000, "ticket": "OPS-1"}},
        "threads": (0..threads).map(thread).collect::<Vec<_>>(),
        "http": {"refused": {"busy": 3, "malformed": 4}},
    })
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with('#')).collect()
}

#[test]
fn figures_are_in_base_units_and_absent_ones_are_zero() {
    let process = process::Figures { cpu_seconds: 1.5, ..process::Figures::default() };
    let text = render(&status(1), &process);
    for line in [
        "kheish_ready 1",
        "kheish_health_ok 0",
        "kheish_health_findings{severity=\"info\"} 2",
        "kheish_health_findings{severity=\"warning\"} 0",
        "kheish_storage_probe_warnings 1",
        "kheish_storage_probe_latency_seconds{root=\"state_root\"} 0.007",
        "kheish_state_root_used_ratio 0.81",
        "kheish_runs{status=\"queued\"} 5",
        "kheish_runs_oldest_queued_age_seconds{scope=\"any\"} 1.5",
        "kheish_runs_oldest_queued_age_seconds{scope=\"behind_active\"} 0",
        "kheish_debug_full_without_ticket 1",
        "kheish_debug_full_seconds 6",
        "kheish_threads{thread=\"kind0\"} 1",
        "kheish_threads_dead 1",
        "kheish_thread_longest_busy_seconds{thread=\"kind0\"} 0.25",
        "kheish_http_refused_total{reason=\"malformed\"} 4",
        "process_cpu_seconds_total 1.5",
    ] {
        assert!(lines(&text).contains(&line), "{line} is not in\n{text}");
    }
}

#[test]
fn names_follow_the_rules_and_every_metric_is_described_once() {
    let mut seen = BTreeSet::new();
    for metric in METRICS {
        let name = metric.name;
        assert!(seen.insert(name), "{name} twice");
        assert!(name.starts_with("kheish_") || name.starts_with("process_"), "{name}");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
        for unit in ["ms", "us", "percent", "kb", "minutes"] {
            assert!(name.split('_').all(|word| word != unit), "{name} is in no base unit");
        }
        assert!(metric.help.ends_with('.') && !metric.help.contains(['\n', '\\']), "{name}");
        let bare = matches!(metric.source, Source::Fixed([one]) if one.label.is_empty());
        let bare = bare || matches!(metric.source, Source::Process(_));
        assert_eq!(metric.label.is_empty(), bare, "{name}");
    }
}

#[test]
fn every_figure_stands_in_the_schema_of_a_status() {
    // The groups that the pointers begin with; the fields are checked against a real daemon's answer.
    let groups =
        crate::api::resource_schemas::RESOURCES.iter().find(|schema| schema.name == "Status").expect("a schema");
    for metric in METRICS {
        let Source::Fixed(series) = metric.source else { continue };
        for Series { read, .. } in series {
            let (Read::At(pointer, _) | Read::Truth(pointer) | Read::Is(pointer, _)) = read else { continue };
            let group = pointer.split('/').nth(1).expect("a group");
            assert!(groups.schema.contains(&format!("\"{group}\"")) || group == "started_at_ms", "{pointer}");
        }
    }
}

#[test]
fn the_number_of_series_does_not_depend_on_what_happens() {
    let process = process::Figures::default();
    let idle = lines(&render(&status(20), &process)).len();
    let mut busy = status(20);
    let warning = json!({"severity": "error", "code": "x"});
    busy["health"]["warnings"] = Value::Array(vec![warning; 5_000]);
    busy["storage"]["probes"] = json!(vec![json!({"state": "error"}); 500]);
    assert_eq!(lines(&render(&busy, &process)).len(), idle);
    assert!(idle < METRICS_SERIES_MAX, "{idle}");
}
