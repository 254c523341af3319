//! SIGKILL at every journal boundary of a run with six tool calls, against a counter of side effects: no call runs twice,
//! no run is lost, and what is not known is said.
//!
//! The daemon is killed as soon as the journal holds so many records of the run. A small size by default; all boundaries
//! with KHEISH_BATTERIES=1.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use daemon::{Home, Provider};
use serde_json::{Value, json};

const STEPS: usize = 6;
/// Only a hang takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

fn script() -> String {
    let turn = |step: usize| {
        format!(
            "[[turn]]\ntool_calls = [{{ name = \"bash\", call_id = \"c{step}\", \
             arguments = '{{\"command\":\"echo {step} >> count.txt\"}}' }}]\n"
        )
    };
    (0..STEPS).map(turn).collect::<String>() + "[default]\ntext = \"all done\"\n"
}

/// How often a text stands in the journal's files as they are now, whole or not.
fn seen(root: &Path, text: &str) -> usize {
    let Ok(folder) = std::fs::read_dir(root.join("journal")) else { return 0 };
    let texts = folder.filter_map(|entry| std::fs::read(entry.ok()?.path()).ok());
    texts.map(|bytes| String::from_utf8_lossy(&bytes).matches(text).count()).sum()
}

/// Kills at the boundary; tells whether the run had ended by then.
fn cut_at(boundary: usize) -> bool {
    let provider = Provider::start(&script());
    let home = Home::new("boundary", Some(&provider));
    let daemon = home.start();
    daemon.create_session("s");
    assert_eq!(daemon.post("/v1/sessions/s/permission-mode", &json!({"mode": "bypassPermissions"})).status, 200);
    let run = daemon.submit("s", "count");
    let (of_run, end) = (format!("\"run\":\"{run}\""), "\"kind\":\"run.completed\"");
    // Without a pause between two looks: a boundary lasts for as long as a tool or an answer takes.
    let deadline = Instant::now() + PATIENCE;
    while seen(&home.root(), &of_run) < boundary && seen(&home.root(), end) == 0 {
        assert!(Instant::now() < deadline, "boundary {boundary}: not within {PATIENCE:?}");
    }
    daemon.kill();
    let had_ended = seen(&home.root(), end) > 0;

    let daemon = home.start();
    assert_eq!(daemon.wait_end(&run), "completed", "boundary {boundary}");
    daemon.stop();
    home.assert_journal_verifies(&home.root());

    let count = std::fs::read_to_string(home.join("workspace").join("count.txt")).unwrap_or_default();
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for line in count.lines() {
        *counts.entry(format!("c{line}")).or_default() += 1;
    }
    let records = home.records(&home.root(), &["--run-id", &run]);
    let of = |kind: &str| -> Vec<&Value> { records.iter().filter(|record| record["kind"] == kind).collect() };
    let text = |value: &Value| value.as_str().expect("a text").to_string();
    let mut started: BTreeMap<String, u32> = BTreeMap::new();
    for record in of("tool_call.started") {
        *started.entry(text(&record["body"]["call"])).or_default() += 1;
    }
    let mut finished: BTreeMap<String, String> = BTreeMap::new();
    for record in of("tool_call.finished") {
        let before = finished.insert(text(&record["body"]["call"]), text(&record["body"]["outcome"]));
        assert_eq!(before, None, "boundary {boundary}: two results");
    }
    for (call, times) in &counts {
        assert_eq!(*times, 1, "boundary {boundary}: {call} ran {times} times");
        assert!(started.contains_key(call), "boundary {boundary}: {call} ran and was not recorded before");
    }
    for (call, times) in &started {
        assert_eq!(*times, 1, "boundary {boundary}: {call} was started {times} times");
        match finished.get(call).map(String::as_str) {
            Some("ok") => assert_eq!(counts.get(call), Some(&1), "boundary {boundary}: {call}"),
            Some("interrupted") => {}
            other => panic!("boundary {boundary}: {call} is {other:?}"),
        }
    }
    had_ended
}

#[test]
fn a_kill_at_any_boundary_repeats_no_tool_and_loses_no_run() {
    let all = std::env::var_os("KHEISH_BATTERIES").is_some();
    // Of a run of 50 records; early, middle and late ones, on either side of a group of tools.
    let few = [1, 3, 5, 8, 9, 11, 16, 19, 24, 33, 40, 46];
    let boundaries: Vec<usize> = if all { (1..=60).collect() } else { few.to_vec() };
    let mut cut = 0;
    for boundary in boundaries {
        if !cut_at(boundary) {
            cut += 1;
        }
    }
    assert!(cut >= 5, "only {cut} runs were cut in the middle");
}
