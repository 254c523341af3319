//! Waiting for runs: the last view on standard output, the run's end as exit code.

mod cli_support;

use cli_support::{FakeDaemon, Reply, frame, ok, problem, run, run_updated};

/// A daemon whose run takes these statuses, one a poll, and keeps the last.
fn daemon_with(statuses: &'static [&'static str]) -> FakeDaemon {
    let mut polls = 0;
    FakeDaemon::start(move |seen| match seen.line.as_str() {
        "GET /v1/runs/run-1" => {
            polls += 1;
            ok(run(statuses[(polls - 1).min(statuses.len() - 1)]))
        }
        "POST /v1/sessions/s/runs" => Reply::Json(202, run("queued").to_string()),
        _ => problem(404, "route_not_found", "not in this test"),
    })
}

const FAST: [&str; 2] = ["--poll-interval-ms", "50"];

#[test]
fn only_a_completed_run_is_a_success() {
    for (end, code) in [("completed", 0), ("failed", 9), ("cancelled", 9), ("interrupted", 9)] {
        let statuses: &'static [&'static str] = match end {
            "completed" => &["queued", "running", "waiting_for_approval", "completed"],
            "failed" => &["queued", "running", "failed"],
            "cancelled" => &["queued", "cancelled"],
            _ => &["interrupted"],
        };
        let wait = daemon_with(statuses).kheish(&["runs", "wait", "run-1", FAST[0], FAST[1]]);
        let input = daemon_with(statuses).kheish(&["sessions", "input", "s", "t", "--wait", FAST[0], FAST[1]]);
        for outcome in [wait, input] {
            assert_eq!((outcome.code, outcome.json()), (code, run(end)), "{outcome:?}");
            let message = if code == 0 {
                String::new()
            } else {
                format!("Error: run-1 ended {end}; next: `kheish-daemon runs events run-1`\n")
            };
            assert_eq!(outcome.stderr, message);
        }
    }
}

#[test]
fn the_deadline_leaves_the_last_view_and_7() {
    let outcome =
        daemon_with(&["running"]).kheish(&["runs", "wait", "run-1", "--timeout-ms", "1000", FAST[0], FAST[1]]);
    assert_eq!((outcome.code, outcome.json()), (7, run("running")), "{outcome:?}");
    assert!(outcome.stderr.contains("run-1 is still running after 1000 ms; next: `kheish-daemon runs wait run-1`"));
}

#[test]
fn a_daemon_that_accepts_and_never_answers_cannot_outlast_the_deadline() {
    let daemon = FakeDaemon::start(|_| Reply::Silence);
    let outcome = daemon.kheish(&["runs", "wait", "run-1", "--timeout-ms", "200"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (7, ""), "{outcome:?}");
}

#[test]
fn a_restarting_daemon_is_forgiven_for_the_grace_only() {
    let mut polls = 0;
    let daemon = FakeDaemon::start(move |_| {
        polls += 1;
        if polls < 4 { problem(503, "daemon_draining", "restarting") } else { ok(run("completed")) }
    });
    assert_eq!(daemon.kheish(&["runs", "wait", "run-1", FAST[0], FAST[1]]).code, 0);
    let daemon = FakeDaemon::start(|_| problem(503, "daemon_draining", "restarting"));
    let outcome = daemon.kheish(&["runs", "wait", "run-1", "--transient-grace-ms", "0"]);
    assert_eq!((outcome.code, daemon.lines().len()), (7, 1), "{outcome:?}");
}

#[test]
fn a_refusal_ends_the_wait_at_once() {
    let daemon = FakeDaemon::start(|_| problem(404, "run_not_found", "unknown run run-1"));
    let outcome = daemon.kheish(&["runs", "wait", "run-1"]);
    assert_eq!((outcome.code, daemon.lines().len()), (5, 1), "{outcome:?}");
}

#[test]
fn a_submitted_run_is_named_even_when_waiting_for_it_fails() {
    let daemon = FakeDaemon::start(|seen| match seen.line.as_str() {
        "POST /v1/sessions/s/runs" => Reply::Json(202, run("queued").to_string()),
        _ => problem(403, "insufficient_access", "no"),
    });
    let outcome = daemon.kheish(&["sessions", "input", "s", "t", "--wait"]);
    assert_eq!((outcome.code, outcome.json()), (4, run("queued")), "{outcome:?}");
}

#[test]
fn without_wait_the_accepted_run_is_printed_and_nothing_is_polled() {
    let daemon = daemon_with(&["running"]);
    let outcome = daemon.kheish(&["sessions", "input", "s", "t"]);
    assert_eq!((outcome.code, outcome.json()), (0, run("queued")));
    assert_eq!(daemon.lines(), ["POST /v1/sessions/s/runs"]);
}

#[test]
fn live_text_goes_to_standard_error_and_the_view_to_standard_output() {
    let preview = |text: &str| {
        frame(
            None,
            "preview",
            &serde_json::json!({"type": "preview", "session_id": "s", "run_id": "run-1", "text": text}),
        )
    };
    let output = serde_json::json!({"type": "output", "output": {"run_id": "run-1", "content": "Hello wörld"}});
    let frames = [
        run_updated(1, "running"),
        preview("Hello "),
        preview("wörld"),
        frame(Some(2), "output", &output),
        run_updated(3, "completed"),
    ]
    .concat();
    let mut is_shown = false;
    let daemon = FakeDaemon::start(move |seen| match seen.line.as_str() {
        "POST /v1/sessions/s/runs" => Reply::Json(202, run("queued").to_string()),
        "GET /v1/runs/run-1/stream?cursor=0" => {
            is_shown = true;
            Reply::Stream(frames.clone())
        }
        // The run ends only when its text has been asked for, so that the test does not race.
        "GET /v1/runs/run-1" => ok(run(if is_shown { "completed" } else { "running" })),
        _ => problem(404, "route_not_found", "not in this test"),
    });
    let outcome = daemon.kheish(&["sessions", "input", "s", "t", "--wait", "--stream", FAST[0], FAST[1]]);
    assert_eq!((outcome.code, outcome.json()), (0, run("completed")), "{outcome:?}");
    assert_eq!(outcome.stderr, "Hello wörld\n");
}

#[test]
fn a_stream_that_cannot_be_had_does_not_disturb_the_wait() {
    let outcome = daemon_with(&["running", "completed"])
        .kheish(&["sessions", "input", "s", "t", "--wait", "--stream", FAST[0], FAST[1]]);
    assert_eq!((outcome.code, outcome.json(), outcome.stderr.as_str()), (0, run("completed"), ""));
}
