//! Following event streams: exact over lost connections, and open to events of later versions.

mod cli_support;

use cli_support::{FakeDaemon, Outcome, Reply, frame, kheish, ok, problem, raw_daemon, run, run_updated, stream_bytes};

const HEARTBEAT: &str = "event: heartbeat\ndata: {\"type\":\"heartbeat\"}\n\n";

fn note(id: u64) -> String {
    frame(Some(id), "note", &serde_json::json!({"n": id}))
}

/// A daemon that serves these connections in turn; the run is over when the last one has been asked for.
fn daemon_with(mut connections: Vec<Reply>) -> FakeDaemon {
    connections.reverse();
    FakeDaemon::start(move |seen| {
        if seen.line == "GET /v1/runs/run-1" {
            return ok(run("running"));
        }
        connections.pop().unwrap_or_else(|| problem(404, "run_not_found", "the test is over"))
    })
}

fn ids(outcome: &Outcome) -> Vec<String> {
    let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("one document a line");
    outcome.stdout.lines().map(parse).filter_map(|line| line["id"].as_str().map(str::to_string)).collect()
}

/// The cursors that the stream was asked with: query and header.
fn cursors(daemon: &FakeDaemon) -> Vec<(String, Option<String>)> {
    let streams = daemon.seen().into_iter().filter(|seen| seen.line.contains("/stream"));
    streams.map(|seen| (seen.line.clone(), seen.header("last-event-id").map(str::to_string))).collect()
}

#[test]
fn a_stream_goes_on_after_the_last_event_that_arrived() {
    let until_closed = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let problem = "{\"code\":\"daemon_draining\",\"detail\":\"restarting\"}";
    let (url, daemon) = raw_daemon(vec![
        // It ends properly.
        stream_bytes(&[HEARTBEAT.to_string(), note(7), note(9)].concat(), true),
        // It breaks in the middle of a frame, and of a chunk.
        stream_bytes(&format!("{}id: 12\nevent: note\ndata: {{\"never", note(11)), false),
        // The same without chunks, where the end of the connection is the only mark.
        format!("{until_closed}{}id: 13\nevent: note\ndata: {{}}\n", note(12)).into_bytes(),
        // Nothing at all, and a daemon that is not yet back.
        Vec::new(),
        format!("HTTP/1.1 503 Unavailable\r\nContent-Length: {}\r\n\r\n{problem}", problem.len()).into_bytes(),
        stream_bytes(&[note(13), HEARTBEAT.to_string(), run_updated(14, "completed"), note(15)].concat(), true),
    ]);
    let outcome = kheish(&["runs", "stream", "run-1", "--cursor", "5", "--base-url", &url]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(ids(&outcome), ["7", "9", "11", "12", "13", "14"], "in order, once each, to the end of the run");
    let heads = daemon.join().expect("the daemon's thread");
    let first_lines: Vec<&str> = heads.iter().filter_map(|head| head.lines().next()).collect();
    let (first, later) = ("get /v1/runs/run-1/stream?cursor=5 http/1.1", "get /v1/runs/run-1/stream http/1.1");
    assert_eq!(first_lines, [first, later, later, later, later, later]);
    let cursor = |head: &String| head.lines().find_map(|line| line.strip_prefix("last-event-id: ").map(str::to_string));
    let cursors: Vec<Option<String>> = heads.iter().map(cursor).collect();
    assert_eq!(cursors, [None, Some("9"), Some("11"), Some("12"), Some("12"), Some("12")].map(|c| c.map(String::from)));
    assert_eq!(outcome.stderr.matches("reconnecting after event").count(), 5, "{outcome:?}");
}

#[test]
fn frames_of_any_name_are_passed_on_as_they_are() {
    let frames = [
        frame(Some(1), "a_later_invention", &serde_json::json!({"x": [1, 2]})),
        frame(None, "preview", &serde_json::json!({"text": "é\u{1b}"})),
        "data: bare\n\n".to_string(),
        ": comment\n\n".to_string(),
        run_updated(2, "failed"),
    ]
    .concat();
    let outcome = daemon_with(vec![Reply::Stream(frames)]).kheish(&["runs", "stream", "run-1", "--cursor=0"]);
    let updated = r#"{"id":"2","event":"run_updated","data":{"run":{"run_id":"run-1","session_id":"s","status":"failed"},"type":"run_updated"}}"#;
    let expected = [
        r#"{"id":"1","event":"a_later_invention","data":{"x":[1,2]}}"#,
        r#"{"event":"preview","data":{"text":"é\u001b"}}"#,
        r#"{"event":"message","data":"bare"}"#,
        updated,
    ];
    assert_eq!(outcome.stdout, expected.map(|line| format!("{line}\n")).concat());
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
}

#[test]
fn a_run_that_had_ended_before_the_stream_was_open_does_not_hang_it() {
    let daemon = FakeDaemon::start(|seen| match seen.line.as_str() {
        "GET /v1/runs/run-1" => ok(run("completed")),
        _ => Reply::Stream([note(3), HEARTBEAT.to_string(), note(4)].concat()),
    });
    let outcome = daemon.kheish(&["runs", "stream", "run-1", "--cursor", "2"]);
    assert_eq!((outcome.code, ids(&outcome)), (0, vec!["3".to_string()]), "{outcome:?}");
}

#[test]
fn without_reconnection_the_stream_ends_where_the_daemon_ends_it() {
    let daemon = daemon_with(vec![Reply::Stream(note(1)), Reply::Stream(note(2))]);
    let outcome = daemon.kheish(&["events", "stream", "--no-reconnect", "--session-id", "a b", "--run-id", "run-1"]);
    assert_eq!((outcome.code, ids(&outcome), outcome.stderr.as_str()), (0, vec!["1".to_string()], ""));
    assert_eq!(cursors(&daemon), [("GET /v1/events/stream?session_id=a%20b&run_id=run-1".to_string(), None)]);
}

#[test]
fn a_refusal_ends_the_stream_at_the_first_and_at_a_later_connection() {
    let missing = daemon_with(vec![]).kheish(&["sessions", "stream", "s"]);
    assert_eq!((missing.code, missing.stdout.as_str()), (5, ""), "{missing:?}");
    let later = daemon_with(vec![Reply::Stream(note(1)), problem(401, "invalid_token", "rotated")]);
    let outcome = later.kheish(&["sessions", "stream", "s"]);
    assert_eq!((outcome.code, ids(&outcome)), (4, vec!["1".to_string()]), "{outcome:?}");
    let first = daemon_with(vec![problem(503, "daemon_draining", "not yet")]);
    assert_eq!((first.kheish(&["events", "stream"]).code, first.lines().len()), (7, 1), "the first one is not retried");
}

#[test]
fn a_stream_that_could_not_be_resumed_is_an_error() {
    let bad = Reply::Stream("id: not-a-number\ndata: {}\n\n".to_string());
    let outcome = daemon_with(vec![bad]).kheish(&["events", "stream"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (8, ""), "{outcome:?}");
}
