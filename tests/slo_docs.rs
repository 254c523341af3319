//! The operators' page and the alert rules tell the tables in the code as they are.
//! With `KHEISH_TIDY_WRITE=1` the tables and the rules are written instead of compared.

#[path = "support/skip.rs"]
mod skip;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kheish_daemon::api::metrics;
use kheish_daemon::api::status::health_codes::health_table;
use kheish_daemon::slo::{ROWS, alert_rules, alert_table, slo_table};

const NEXT: &str = "next: KHEISH_TIDY_WRITE=1 cargo test --test slo_docs";
const RULES: &str = "deploy/prometheus/kheish-alerts.yml";
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

#[test]
fn promtool_accepts_the_rules() {
    let checked = Command::new("promtool").arg("check").arg("rules").arg(path(RULES)).output();
    let Ok(output) = checked else { return skip::skip("promtool_accepts_the_rules", "promtool is not installed") };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
