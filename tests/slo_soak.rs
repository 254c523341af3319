//! No false alarm: a healthy idle daemon and a healthy busy one, looked at every second for a minute, or for as many seconds as
//! `KHEISH_SOAK_S` says (`make soak`: ten minutes).
//! Owns: both daemons. Never: looks at the disk rows of a host whose disk is full by itself.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use std::time::{Duration, Instant};

use daemon::{Daemon, Home, Provider, pause};
use kheish_daemon::slo::{Level, Profile, Sample, Thresholds, evaluate};
use serde_json::Value;

const SECONDS: u64 = 60;
/// Samples that are judged together.
const KEPT: usize = 60;

/// The daemon answers, asks for approvals, fails, and calls tools.
const WORK: &str = r#"
[[turn]]
match = "break"
error = { status = 400, code = "bad" }

[[turn]]
match = "ask"
match_result = "permission_denied"
text = "Then not."

[[turn]]
match = "ask"
tool_calls = [{ name = "bash", arguments = '{"command":"git push"}' }]

[[turn]]
match = "work"
text = "done"
"#;

fn look(daemon: &Daemon, begun: Instant) -> Sample {
    let status: Value = daemon.get("/v1/status").json();
    Sample { at_ms: begun.elapsed().as_millis() as u64, readyz: Ok(daemon.get("/readyz").status), status: Ok(status) }
}

/// Rows that are not ok, and findings above info.
fn alarms(samples: &[Sample]) -> Vec<String> {
    let status = samples.last().and_then(|sample| sample.status.as_ref().ok()).expect("a status");
    let full_host = status["storage"]["probes"][0]["space"]["used_percent"].as_u64() > Some(80);
    let report = evaluate(samples, &Thresholds::default(), Profile::Production);
    let rows = report.rows.iter().filter(|row| row.level != Level::Ok);
    let rows = rows.filter(|row| !(full_host && ["storage", "disk"].contains(&row.id)));
    // Nor is a disk that others keep busy.
    let rows = rows.filter(|row| !(row.id == "storage" && row.detail.contains("write_probe_slow")));
    let mut found: Vec<String> = rows.map(|row| format!("{}: {}", row.id, row.detail)).collect();
    let warnings = status["health"]["warnings"].as_array().into_iter().flatten();
    found.extend(warnings.filter(|warning| warning["severity"] != "info").map(Value::to_string));
    found
}

#[test]
fn a_healthy_daemon_raises_no_alarm_idle_or_busy() {
    let seconds = std::env::var("KHEISH_SOAK_S").map_or(SECONDS, |text| text.parse().expect("a number of seconds"));
    let provider = Provider::start(WORK);
    let (quiet, loaded) = (Home::new("soak-idle", Some(&provider)), Home::new("soak-busy", Some(&provider)));
    let (idle, busy) = (quiet.start(), loaded.start());
    for session in 0..8 {
        busy.create_session(&format!("s{session}"));
    }
    let mut streams: Vec<_> = (0..4).map(|_| busy.stream("/v1/events/stream")).collect();
    let begun = Instant::now();
    let mut samples: [Vec<Sample>; 2] = [Vec::new(), Vec::new()];
    let (mut runs, mut looks) = (0u64, 0u64);
    // A busy machine takes longer for as much: what is promised is silence, not speed.
    let is_enough = |looks: u64, runs: u64| looks > seconds / 2 && runs > 8 * seconds;
    while begun.elapsed() < Duration::from_secs(seconds) || !is_enough(looks, runs) {
        assert!(begun.elapsed() < 10 * Duration::from_secs(seconds), "{looks} looks, {runs} runs");
        for session in 0..8 {
            // What fails and what waits for a person is part of a healthy day.
            let text = match (runs % 50, session) {
                (7, _) => "break",
                (9, 3) => "ask",
                _ => "work",
            };
            busy.submit(&format!("s{session}"), text);
            runs += 1;
        }
        for stream in &mut streams {
            stream.next().expect("a frame");
        }
        if begun.elapsed().as_secs() >= looks {
            looks += 1;
            for (daemon, samples) in [&idle, &busy].into_iter().zip(&mut samples) {
                samples.push(look(daemon, begun));
                if samples.len() > KEPT {
                    samples.remove(0);
                }
                assert_eq!(alarms(samples), Vec::<String>::new(), "after {looks} looks and {runs} runs");
            }
        }
        pause(Duration::from_millis(20));
    }
    println!("{looks} looks at each daemon, {runs} runs submitted");
    drop(streams);
    idle.stop();
    busy.stop();
}
