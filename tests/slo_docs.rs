//! The operators' page and the alert rules tell the tables in the code as they are.
//! With `KHEISH_TIDY_WRITE=1` the tables and the rules are written instead of compared.

#[path = "support/skip.rs"]
mod skip;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kheish_daemon::api::metrics;
use kheish_daemon::api::status::health_codes::{HEALTH_CODES, health_table};
use kheish_daemon::slo::{ROWS, alert_rules, alert_table, slo_table};

const NEXT: &str = "next: KHEISH_TIDY_WRITE=1 cargo test --test slo_docs";
const RULES: &str = "deploy/prometheus/kheish-alerts.yml";
const RULES_TESTED: &str = "tests/data/prometheus/alerts.test.yml";
const PAGE: &str = "docs/operators/slo.md";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn check(name: &str, wanted: &str) {
    let found = fs::read_to_string(path(name)).unwrap_or_default();
    if found != wanted && std::env::var_os("KHEISH_TIDY_WRITE").is_some() {
        return fs::write(path(name), wanted).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    for (number, (found, wanted)) in found.lines().zip(wanted.lines()).enumerate() {
        assert_eq!(found, wanted, "{name}, line {}; {NEXT}", number + 1);
    }
    assert_eq!(found.len(), wanted.len(), "{name}; {NEXT}");
}

fn with_table(text: &str, name: &str, table: &str) -> String {
    let (before, rest) = text.split_once(&format!("<!-- table: {name} -->\n")).expect("the table's begin");
    let (_, after) = rest.split_once("<!-- end of table -->").expect("the table's end");
    format!("{before}<!-- table: {name} -->\n{table}<!-- end of table -->{after}")
}

#[test]
fn the_operators_page_has_the_tables_of_the_code() {
    let mut text = fs::read_to_string(path(PAGE)).expect("the page");
    for (name, table) in [
        ("slo", slo_table()),
        ("health", health_table()),
        ("alerts", alert_table()),
        ("metrics", metrics::metrics_table()),
    ] {
        text = with_table(&text, name, &table);
    }
    check(PAGE, &text);
}

#[test]
fn the_alert_rules_are_those_of_the_table() {
    check(RULES, &alert_rules());
}

#[test]
fn every_alert_asks_for_series_that_are_served_with_labels_that_they_have() {
    let name = regex_lite::Regex::new(r"(kheish_[a-z_]+)(?:\{([^}]*)\})?").expect("a pattern");
    let label = regex_lite::Regex::new("([a-z_]+)(?:=|!=|=~|!~)\"").expect("a pattern");
    let mut asked = BTreeSet::new();
    for alert in ROWS.iter().flat_map(|row| row.alerts) {
        for found in name.captures_iter(alert.expr) {
            let metric = metrics::METRICS.iter().find(|metric| metric.name == &found[1]);
            let metric = metric.unwrap_or_else(|| panic!("nobody serves {}: {}", &found[1], alert.expr));
            for used in label.captures_iter(found.get(2).map_or("", |labels| labels.as_str())) {
                // Given by whoever scrapes.
                let known = metric.label_names().any(|name| name == &used[1]) || &used[1] == "profile";
                assert!(known, "{} has no label {}", metric.name, &used[1]);
            }
            asked.insert(metric.name);
        }
    }
    assert!(asked.len() >= ROWS.len(), "{asked:?}");
}

/// Runs promtool where it is installed.
fn promtool(test: &str, args: &[&str]) {
    let Ok(output) = Command::new("promtool").args(args).current_dir(path(".")).output() else {
        return skip::skip(test, "promtool is not installed");
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn promtool_accepts_the_rules() {
    promtool("promtool_accepts_the_rules", &["check", "rules", RULES]);
}

#[test]
fn each_alert_fires_above_its_threshold_and_not_at_it() {
    promtool("each_alert_fires_above_its_threshold_and_not_at_it", &["test", "rules", RULES_TESTED]);
}

/// Judged from the figures of its group, in `src/api/status/tests.rs`.
const ROOM: &str = "its group is filled by the resource that owns it";

/// Codes that no test has produced in a running daemon yet, each with what stands in the way.
const NOT_PRODUCED: &[(&str, &str)] = &[
    ("component_failed", "a thread must die"),
    ("pending_approval_lag", "needs four hours; produced on a clock that is moved in `src/api/status/tests.rs`"),
    ("pending_question_lag", "needs four hours; produced on a clock that is moved in `src/api/status/tests.rs`"),
    ("journal_write_failed", "the disk must refuse one write; tests of faults see its refusal at the caller"),
    ("storage_write_probe_timeout", "a disk must hang for 45 seconds"),
    ("broker_log_poisoned", "a sync of the broker's log must fail; tests of the broker see it"),
    ("control_plane_audit_failing", "the disk must fail under the audit file"),
    ("route_diagnostics_error", "a routes file with an error ends the start"),
    ("sandbox_unavailable", "needs a kernel without the walls that are asked for"),
    ("event_streams_cut_off", "a client must take nothing for as long as streams may stall"),
    ("quarantined_task_processes", "a process must survive SIGKILL"),
    ("live_background_shell_tasks", "short-lived; its count is tested"),
    ("blocked_tasks", "set by models"),
    ("agent_supervisor_audit_sink_errors", ROOM),
    ("schedule_retry_backoff", ROOM),
    ("scheduler_lag", ROOM),
    ("delivery_status_unavailable", ROOM),
    ("delivery_target_circuit_open", ROOM),
    ("delivery_worker_not_running", ROOM),
    ("delivery_worker_stale", ROOM),
    ("hook_dead_letter_persist_failures", "the disk must be full at the moment in which a guard fails"),
    (
        "hook_dead_letter_store_unreadable",
        "they are records of the journal, and a journal that cannot be read ends the start",
    ),
    ("mcp_servers_unreachable", ROOM),
];

fn texts(directory: &Path, found: &mut String) {
    for entry in fs::read_dir(directory).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            texts(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("slo_docs.rs") {
            found.push_str(&fs::read_to_string(&path).expect("a source"));
        }
    }
}

#[test]
fn every_health_code_is_produced_by_a_test_or_is_said_not_to_be() {
    let mut tests = String::new();
    texts(&path("tests"), &mut tests);
    let missing: Vec<&str> = HEALTH_CODES
        .iter()
        .map(|row| row.code)
        .filter(|code| {
            let produced = [format!("{code}\""), format!("{code}\\\"")].iter().any(|quoted| tests.contains(quoted));
            produced == NOT_PRODUCED.iter().any(|(excused, _)| excused == code)
        })
        .collect();
    assert_eq!(missing, Vec::<&str>::new(), "produce them, or say why not; those that are produced need no excuse");
}
