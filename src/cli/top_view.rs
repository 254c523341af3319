//! What `top` draws: one screen from one status document.
//! Owns: the layout, and cutting it to the window.
//! Never: writes what could steer the terminal; only bold and reverse are used, no colours.

use serde_json::Value;

use super::json_text::terminal_safe;
use crate::slo::{Level, Profile, Sample, Thresholds, evaluate};

const HOME: &str = "\u{1b}[H";
const CLEAR_LINE: &str = "\u{1b}[K";
const CLEAR_REST: &str = "\u{1b}[J";
const BOLD: &str = "\u{1b}[1m";
const REVERSE: &str = "\u{1b}[7m";
const PLAIN: &str = "\u{1b}[0m";

/// One line and how it is shown.
struct Line {
    style: &'static str,
    text: String,
}

fn plain(text: impl Into<String>) -> Line {
    Line { style: "", text: text.into() }
}

fn bold(text: impl Into<String>) -> Line {
    Line { style: BOLD, text: text.into() }
}

fn alarming(text: impl Into<String>) -> Line {
    Line { style: REVERSE, text: text.into() }
}

/// What is written to the terminal for one picture.
pub fn frame(base_url: &str, seen: &Result<Value, String>, columns: usize, rows: usize) -> String {
    let mut lines = match seen {
        Ok(status) => of_status(base_url, status),
        Err(cause) => vec![bold(format!("kheish-daemon  {base_url}")), plain(""), alarming(cause.clone())],
    };
    let room = rows.saturating_sub(1);
    let hidden = lines.len().saturating_sub(room);
    lines.truncate(room);
    let footer =
        if hidden > 0 { format!("q quits; {hidden} lines are below the window") } else { "q quits".to_string() };
    let mut text = String::from(HOME);
    for Line { style, text: line } in lines {
        let line: String = terminal_safe(&line).replace(['\n', '\t'], " ").chars().take(columns).collect();
        text.push_str(&format!("{style}{line}{PLAIN}{CLEAR_LINE}\r\n"));
    }
    let footer: String = footer.chars().take(columns).collect();
    text.push_str(&format!("{footer}{CLEAR_REST}"));
    text
}

fn of_status(base_url: &str, status: &Value) -> Vec<Line> {
    let count = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let text = |pointer: &str| status.pointer(pointer).and_then(Value::as_str).unwrap_or("-").to_string();
    let age = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64).map_or("-".to_string(), duration);
    let up_ms = count("/snapshot_at_ms").saturating_sub(count("/started_at_ms"));
    let (version, state) = (text("/version"), text("/status"));
    let mut lines = vec![bold(format!("kheish-daemon {version}  {base_url}  up {}  {state}", duration(up_ms)))];
    lines.push(plain(""));

    lines.push(bold("RUNS"));
    let held = if status.pointer("/runs/held") == Some(&Value::Bool(true)) { "  HELD" } else { "" };
    lines.push(plain(format!(
        "queued {}  running {}  in hand {}  ready {}{held}",
        count("/runs/queued"),
        count("/runs/running"),
        count("/runs/in_hand"),
        count("/runs/ready"),
    )));
    lines.push(plain(format!(
        "completed {}  failed {}  cancelled {}  interrupted {}  sessions {}",
        count("/runs/completed"),
        count("/runs/failed"),
        count("/runs/cancelled"),
        count("/runs/interrupted"),
        count("/sessions/total"),
    )));
    for (what, age_of, run) in [
        ("oldest queued", "/runs/oldest_queued_run_age_ms", "/runs/oldest_queued_run_id"),
        ("idlest running", "/runs/oldest_running_run_idle_ms", "/runs/oldest_idle_running_run_id"),
    ] {
        lines.push(plain(format!("{what:17} {:>10}  {}", age(age_of), text(run))));
    }
    lines.push(plain(""));

    lines.push(bold("WAITING FOR PEOPLE"));
    for (what, waiting, age_of, run) in [
        (
            "approvals",
            "/runs/pending_approval_count",
            "/runs/oldest_waiting_for_approval_age_ms",
            "/runs/oldest_waiting_for_approval_run_id",
        ),
        (
            "questions",
            "/runs/pending_question_count",
            "/runs/oldest_waiting_for_user_question_age_ms",
            "/runs/oldest_waiting_for_user_question_run_id",
        ),
    ] {
        lines.push(plain(format!("{what:12} {:>4} {:>10}  {}", count(waiting), age(age_of), text(run))));
    }
    lines.push(plain(""));

    lines.push(bold("DELIVERY, STREAMS, JOURNAL"));
    lines.push(plain(format!(
        "deliveries: pending {}  retrying {}  delivered {}  dead letters {}",
        count("/delivery/pending"),
        count("/delivery/retrying"),
        count("/delivery/delivered"),
        count("/delivery/unresolved_dead_lettered"),
    )));
    lines.push(plain(format!(
        "streams {}  connections {}  requests in flight {}  last sync {} us  slowest {} us  disk {} %",
        count("/events/streams"),
        count("/http/connections_open"),
        count("/http/requests_in_flight"),
        count("/journal/last_commit_us"),
        count("/journal/slowest_commit_us"),
        count("/storage/probes/0/space/used_percent"),
    )));
    lines.push(plain(""));

    lines.extend(signals(status));
    lines.extend(health(status));
    lines.extend(threads(status));
    lines
}

/// Rows of the operators' table that one look can judge and that are not ok.
fn signals(status: &Value) -> Vec<Line> {
    let ready = status.pointer("/ready") == Some(&Value::Bool(true));
    let sample = Sample { at_ms: 0, readyz: Ok(if ready { 200 } else { 503 }), status: Ok(status.clone()) };
    let report = evaluate(&[sample], &Thresholds::default(), Profile::Production);
    let mut lines = vec![bold("SIGNALS")];
    for row in report.rows.iter().filter(|row| row.level != Level::Ok) {
        lines.push(alarming(format!("{:8} {}: {}", row.level.as_str(), row.signal, row.detail)));
        lines.push(plain(format!("         next: {}", row.next)));
    }
    if lines.len() == 1 {
        lines.push(plain("every row is ok"));
    }
    lines.push(plain(""));
    lines
}

fn health(status: &Value) -> Vec<Line> {
    let ok = status.pointer("/health/ok") == Some(&Value::Bool(true));
    let mut lines = vec![if ok { bold("HEALTH ok") } else { alarming("HEALTH not ok") }];
    let warnings = status.pointer("/health/warnings").and_then(Value::as_array);
    for warning in warnings.into_iter().flatten() {
        let text = |name: &str| warning[name].as_str().unwrap_or("-");
        let line = format!("{:8} {}: {}", text("severity"), text("code"), text("message"));
        lines.push(if text("severity") == "info" { plain(line) } else { alarming(line) });
    }
    lines.push(plain(""));
    lines
}

fn threads(status: &Value) -> Vec<Line> {
    let mut lines =
        vec![bold(format!("{:14} {:>7} {:>5} {:>6} {:>10}", "THREADS", "alive", "busy", "queue", "at it for"))];
    for thread in status["threads"].as_array().into_iter().flatten() {
        let count = |name: &str| thread[name].as_u64().unwrap_or(0);
        let alive = format!("{}/{}", count("alive"), count("count"));
        let busy_for = thread["longest_busy_ms"].as_u64().map_or("-".to_string(), duration);
        let name = thread["name"].as_str().unwrap_or("-");
        let line = format!("{name:14} {alive:>7} {:>5} {:>6} {busy_for:>10}", count("busy"), count("queue_depth"));
        lines.push(if count("alive") < count("count") { alarming(line) } else { plain(line) });
    }
    lines
}

fn duration(ms: u64) -> String {
    let (days, hours, minutes, seconds) = (ms / 86_400_000, ms / 3_600_000 % 24, ms / 60_000 % 60, ms / 1_000 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{seconds:02}s"),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What a terminal would show: rows of text without what steers it.
    fn shown(frame: &str) -> Vec<String> {
        let steering = regex_lite::Regex::new("\u{1b}\\[[0-9?]*[a-zA-Z]").expect("a pattern");
        frame.split("\r\n").map(|line| steering.replace_all(line, "").into_owned()).collect()
    }

    fn status() -> Value {
        json!({"version": "0.1.0", "status": "ready", "ready": true, "snapshot_at_ms": 90_061_000u64, "started_at_ms": 0,
               "runs": {"queued": 2, "held": true, "oldest_queued_run_age_ms": 61_000, "oldest_queued_run_id": "run-7"},
               "health": {"ok": false, "warnings": [
                   {"severity": "error", "code": "storage_full", "message": "no\u{1b}[2Jroom\r\nleft"}]},
               "threads": [{"name": "engine", "count": 16, "alive": 15, "busy": 3, "queue_depth": 1}]})
    }

    #[test]
    fn a_picture_fits_its_window_whatever_its_size() {
        for (columns, rows) in [(80, 24), (20, 5), (1, 1), (200, 100), (0, 0)] {
            let lines = shown(&frame("http://127.0.0.1:4000", &Ok(status()), columns, rows));
            assert!(lines.len() <= rows.max(1), "{columns}x{rows}: {} lines", lines.len());
            assert!(lines.iter().all(|line| line.chars().count() <= columns), "{columns}x{rows}: {lines:?}");
        }
    }

    #[test]
    fn what_the_daemon_says_cannot_steer_the_terminal() {
        let frame = frame("http://a", &Ok(status()), 200, 100);
        assert!(!frame.contains("\u{1b}[2J"), "{frame}");
        let lines = shown(&frame);
        let finding = lines.iter().find(|line| line.contains("storage_full: ")).expect("the finding");
        assert!(finding.contains("room") && finding.contains("left"), "{finding}");
        let lines = shown(&super::frame("http://a", &Err("down\u{1b}[2J".to_string()), 80, 24));
        assert!(lines[2].starts_with("down"), "{lines:?}");
    }

    #[test]
    fn figures_ages_and_alarms_are_on_the_screen() {
        let lines = shown(&frame("http://a", &Ok(status()), 200, 100));
        for expected in ["up 1d01h  ready", "queued 2  running 0", "HELD", "1m01s  run-7", "HEALTH not ok", "15/16"] {
            assert!(lines.iter().any(|line| line.contains(expected)), "{expected} is not in {lines:#?}");
        }
    }
}
