//! Exit codes, and what stands on which stream when a command fails.

mod cli_support;
#[path = "support/port.rs"]
mod port;

use std::io::Read;
use std::process::{Command, Stdio};

use cli_support::{FakeDaemon, Outcome, Reply, Scratch, kheish, kheish_with, ok, problem};
use port::Port;

fn check(outcome: &Outcome, code: i32, message: &str) {
    assert_eq!(outcome.code, code, "{outcome:?}");
    assert_eq!(outcome.stdout, "", "a failed command prints no document");
    assert!(outcome.stderr.starts_with("Error: ") && outcome.stderr.contains(message), "{outcome:?}");
    assert!(outcome.stderr.contains("next:"), "{outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
}

#[test]
fn every_http_status_ends_with_its_code_and_the_problem_is_told() {
    for (status, code) in [
        (400, 2),
        (413, 2),
        (401, 4),
        (403, 4),
        (404, 5),
        (409, 6),
        (408, 7),
        (429, 7),
        (503, 7),
        (504, 7),
        (405, 1),
        (422, 1),
        (500, 1),
        (502, 1),
    ] {
        let daemon = FakeDaemon::start(move |_| problem(status, "some_code", "what happened"));
        let message = format!("GET /v1/status: HTTP {status} some_code: what happened");
        check(&daemon.kheish(&["status"]), code, &message);
    }
}

#[test]
fn a_foreign_error_page_is_quoted_without_its_control_characters() {
    let daemon = FakeDaemon::start(|_| Reply::Text(502, "<html>\u{1b}[2Jbad gateway"));
    check(&daemon.kheish(&["status"]), 1, "HTTP 502: <html>\\u{1b}[2Jbad gateway");
}

#[test]
fn an_unreachable_daemon_is_3_for_every_group() {
    let port = Port::reserve();
    let url = format!("http://{}", port.address());
    let commands: [&[&str]; 9] = [
        &["status"],
        &["runs", "list"],
        &["sessions", "create"],
        &["sessions", "input", "s", "text"],
        &["events", "stream"],
        &["runs", "stream", "run-1"],
        &["secrets", "list"],
        &["secrets", "set", "a", "--provider", "generic", "--stdin"],
        &["runs", "wait", "run-1", "--transient-grace-ms", "0"],
    ];
    for command in commands {
        let outcome = kheish_with(&[("KHEISH_DAEMON_URL", &url)], b"long-enough", command);
        check(&outcome, 3, &format!("cannot reach the daemon at {url}: Connection refused"));
    }
}

#[test]
fn an_answer_that_is_not_understood_is_8() {
    for (reply, why) in [("<html>", "expected value"), ("[]", "not an object"), ("{} {}", "trailing characters")] {
        let daemon = FakeDaemon::start(move |_| Reply::Text(200, reply));
        check(&daemon.kheish(&["status"]), 8, why);
    }
    let daemon = FakeDaemon::start(|_| ok(serde_json::json!({"not": "a list"})));
    check(&daemon.kheish(&["runs", "list"]), 8, "not a list");
    check(&daemon.kheish(&["runs", "wait", "run-1"]), 8, "missing field");
    check(&daemon.kheish(&["runs", "stream", "run-1"]), 8, "expected an event stream");
}

#[test]
fn what_is_wrong_on_this_side_is_1_and_nothing_is_sent() {
    let daemon = FakeDaemon::start(|_| ok(serde_json::json!({})));
    let scratch = Scratch::new();
    let (blank, gone) = (scratch.file("blank", " \n"), scratch.join("gone"));
    let binary = scratch.join("binary");
    std::fs::write(&binary, b"\xff\xfe").expect("written");
    let commands: [(&[&str], &str); 14] = [
        (&["status", "--token-file", &gone], "No such file"),
        (&["status", "--token-file", &blank], "the token is empty"),
        (&["status", "--token", "a", "--token-file", &blank], "use one, not both"),
        (&["status", "--base-url", "ftp://a"], "--base-url"),
        (&["status", "--ca-file", &gone], "cannot read CA file"),
        (&["sessions", "input", "s"], "there is none"),
        (&["sessions", "input", "s", "text", "--stdin"], "more than once"),
        (&["sessions", "input", "s", "--content-file", &gone], "No such file"),
        (&["sessions", "input", "s", "--content-file", &binary], "not UTF-8"),
        (&["sessions", "input", "s", "text", "--metadata-json", "{"], "--metadata-json: not JSON"),
        (&["sessions", "input", "s", "text", "--timeout-ms", "5"], "they need --wait"),
        (&["sessions", "input", "s", "text", "--idempotency-key", "a\nb"], "--idempotency-key"),
        (&["journal", "verify"], "add --offline --state-root DIR"),
        (&["secrets", "list", "--offline"], "add --state-root DIR"),
    ];
    for (command, message) in commands {
        check(&daemon.kheish(command), 1, message);
    }
    assert_eq!(daemon.lines(), Vec::<String>::new());
}

#[test]
fn a_misread_command_line_is_2() {
    check(&kheish(&["statsu"]), 2, "did you mean `status`?");
    check(&kheish(&["runs", "list", "--limit", "many"]), 2, "--limit");
    check(&kheish(&["status", "--output", "yaml"]), 2, "expected pretty or json");
    check(&kheish(&["secrets", "set", "a", "--stdin"]), 2, "--provider");
}

#[test]
fn help_and_version_are_0_on_standard_output() {
    for command in [&["--help"][..], &["sessions", "-h"], &["sessions", "input", "--help"], &["help", "runs", "wait"]] {
        let outcome = kheish(command);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
        assert!(
            outcome.stdout.contains("Usage: kheish-daemon") && outcome.stdout.contains("--base-url"),
            "{outcome:?}"
        );
    }
    let version = format!("kheish-daemon {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(kheish(&["-V"]), Outcome { code: 0, stdout: version, stderr: String::new() });
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let many: Vec<serde_json::Value> = (0..20_000).map(|n| serde_json::json!({"run_id": format!("run-{n}")})).collect();
    let daemon = FakeDaemon::start(move |_| ok(serde_json::Value::from(many.clone())));
    let mut child = Command::new(env!("CARGO_BIN_EXE_kheish-daemon"))
        .args(["runs", "list", "--base-url", &daemon.url()])
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut [0u8; 10]).expect("it prints");
    drop(stdout);
    let output = child.wait_with_output().expect("the binary ends");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}
