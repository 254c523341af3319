//! Prometheus' alert rules from the operators' table.
//! Owns: the text of deploy/prometheus/kheish-alerts.yml.
//! Never: has a condition of its own.

use super::table::ROWS;

/// Name of an alert: the row's, its severity, and a number where a row has several of one kind.
fn name(id: &str, severity: &str, number: usize) -> String {
    let camel: String = id.split('_').map(capital).collect();
    let more = if number == 0 { String::new() } else { (number + 1).to_string() };
    format!("Kheish{camel}{}{more}", capital(severity))
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The whole file.
pub fn alert_rules() -> String {
    let mut text = String::from(
        "# Alerts for the rows of docs/operators/slo.md, from the table in src/slo/table.rs; a test compares them.\n\
         # They expect a scrape interval of at most 30 s, the job name kheish-daemon, and the label profile=\"staging\" on\n\
         # targets where a dead letter is no page.\n\
         groups:\n  - name: kheish-daemon\n    rules:\n",
    );
    for row in ROWS {
        for (at, alert) in row.alerts.iter().enumerate() {
            let number = row.alerts[..at].iter().filter(|other| other.severity == alert.severity).count();
            let when = if alert.severity == "page" { row.page } else { row.warning };
            text.push_str(&format!("      - alert: {}\n", name(row.id, alert.severity, number)));
            text.push_str(&format!("        expr: {}\n", quoted(alert.expr)));
            if !alert.hold.is_empty() {
                text.push_str(&format!("        for: {}\n", alert.hold));
            }
            text.push_str(&format!(
                "        labels:\n          severity: {}\n          row: {}\n",
                alert.severity, row.id
            ));
            text.push_str("        annotations:\n");
            text.push_str(&format!("          summary: {}\n", quoted(&format!("{}: {when}", row.signal))));
            text.push_str(&format!("          component: {}\n", quoted(row.component)));
            text.push_str(&format!("          next: {}\n", quoted(row.next)));
        }
    }
    text
}

/// Names of all alerts with their rows, for the documentation.
pub fn alert_table() -> String {
    let mut text = String::from("| alert | row | condition | for |\n|---|---|---|---|\n");
    for row in ROWS {
        for (at, alert) in row.alerts.iter().enumerate() {
            let number = row.alerts[..at].iter().filter(|other| other.severity == alert.severity).count();
            let hold = if alert.hold.is_empty() { "–" } else { alert.hold };
            let expr = alert.expr.replace('|', "\\|");
            text.push_str(&format!(
                "| `{}` | `{}` | `{expr}` | {hold} |\n",
                name(row.id, alert.severity, number),
                row.id
            ));
        }
    }
    text
}
