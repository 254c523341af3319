//! What each command sends, and that answers are printed as they came.

mod cli_support;

use cli_support::{FakeDaemon, Reply, Scratch, kheish_with, ok, run};

/// Runs one command and compares the one request that it made.
fn check(args: &[&str], line: &str, body: &str) {
    let is_list = args.contains(&"list") || args.starts_with(&["runs", "events"]);
    let answer = if is_list { "[]".to_string() } else { run("queued").to_string() };
    let daemon = FakeDaemon::start(move |_| Reply::Json(200, answer.clone()));
    let outcome = daemon.kheish(args);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{args:?}");
    let seen = daemon.seen();
    let requests: Vec<(&str, &str)> = seen.iter().map(|seen| (seen.line.as_str(), seen.body.as_str())).collect();
    assert_eq!(requests, [(line, body)], "{args:?}");
    assert_eq!(seen[0].header("authorization"), None);
}

#[test]
fn each_command_makes_its_request() {
    check(&["status"], "GET /v1/status", "");
    check(&["capabilities"], "GET /v1/capabilities", "");
    check(&["sessions", "create"], "POST /v1/sessions", "{}");
    check(
        &["sessions", "open", "ops:1", "--thread-id", "t"],
        "POST /v1/sessions",
        r#"{"session_id":"ops:1","thread_id":"t"}"#,
    );
    check(&["sessions", "list"], "GET /v1/sessions", "");
    check(&["sessions", "list", "--page", "--limit=5"], "GET /v1/sessions?page=true&limit=5", "");
    check(&["sessions", "get", "slack:T1/x y"], "GET /v1/sessions/slack%3AT1%2Fx%20y", "");
    check(&["sessions", "events", "s"], "GET /v1/sessions/s/events", "");
    check(&["sessions", "interrupt", "s"], "POST /v1/sessions/s/interrupt", "");
    check(
        &["sessions", "end", "s", "--reason", "done \"now\""],
        "POST /v1/sessions/s/end",
        r#"{"reason":"done \"now\""}"#,
    );
    check(&["runs", "list"], "GET /v1/runs", "");
    check(
        &["runs", "list", "--session-id", "a&b", "--cursor", "Yw=="],
        "GET /v1/runs?session_id=a%26b&page=true&cursor=Yw%3D%3D",
        "",
    );
    check(&["runs", "get", "help"], "GET /v1/runs/help", "");
    check(&["runs", "get", "-1"], "GET /v1/runs/-1", "");
    check(&["runs", "get", ".."], "GET /v1/runs/%2E%2E", "");
    check(&["runs", "events", "run-1"], "GET /v1/runs/run-1/events", "");
    check(&["runs", "cancel", "run-1"], "POST /v1/runs/run-1/cancel", "");
    check(&["runtime", "get"], "GET /v1/runtime", "");
    check(&["runtime", "hold", "--reason", "restore"], "POST /v1/runtime/hold", r#"{"held":true,"reason":"restore"}"#);
    check(&["runtime", "release"], "POST /v1/runtime/hold", r#"{"held":false}"#);
    check(&["secrets", "list"], "GET /v1/runtime/secrets", "");
    check(&["secrets", "get", "mcp/a?b"], "GET /v1/runtime/secrets/mcp%2Fa%3Fb", "");
    check(&["secrets", "delete", "a"], "DELETE /v1/runtime/secrets/a", "");
}

#[test]
fn a_submission_carries_what_was_given_and_nothing_else() {
    let submit = "POST /v1/sessions/s/runs";
    check(&["sessions", "input", "s", "hello\n\"x\""], submit, r#"{"content":"hello\n\"x\""}"#);
    check(&["sessions", "send", "s", "--", "-v"], submit, r#"{"content":"-v"}"#);
    check(
        &[
            "sessions",
            "input",
            "s",
            "t",
            "--provider",
            "main",
            "--model",
            "m",
            "--max-output-tokens",
            "9",
            "--temperature=0.5",
            "--source-plugin",
            "p",
            "--source-kind",
            "k",
            "--actor-id",
            "a",
            "--metadata-json",
            "{\"z\": 1.0, \"a\": 2}",
        ],
        submit,
        r#"{"content":"t","provider":"main","generation":{"model":"m","max_output_tokens":9,"temperature":0.5},"source_plugin":"p","source_kind":"k","actor_id":"a","metadata":{"z": 1.0, "a": 2}}"#,
    );
    let scratch = Scratch::new();
    let (text, metadata) = (scratch.file("text", "from a file\n"), scratch.file("metadata", "[1]\n"));
    check(
        &["sessions", "input", "s", "--content-file", &text, "--metadata-file", &metadata],
        submit,
        r#"{"content":"from a file\n","metadata":[1]}"#,
    );
}

#[test]
fn text_from_standard_input_is_submitted_as_it_is() {
    let daemon = FakeDaemon::start(|_| ok(run("queued")));
    let url = daemon.url();
    let outcome =
        kheish_with(&[], " zeile\u{e9}\r\n".as_bytes(), &["sessions", "input", "s", "--stdin", "--base-url", &url]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(daemon.seen()[0].body, r#"{"content":" zeileé\r\n"}"#);
}

#[test]
fn the_token_of_the_nearest_level_is_sent_as_bearer() {
    let daemon = FakeDaemon::start(|_| ok(serde_json::json!({})));
    let scratch = Scratch::new();
    let file = scratch.file("token", "from-file\n");
    let url = daemon.url();
    let in_env = [("KHEISH_DAEMON_URL", url.as_str()), ("KHEISH_DAEMON_TOKEN", "from-env")];
    kheish_with(&in_env, b"", &["status"]);
    kheish_with(&in_env, b"", &["status", "--token-file", &file]);
    kheish_with(&in_env, b"", &["--token=from-flag", "status"]);
    let sent: Vec<Option<String>> =
        daemon.seen().iter().map(|seen| seen.header("authorization").map(str::to_string)).collect();
    assert_eq!(sent, ["Bearer from-env", "Bearer from-file", "Bearer from-flag"].map(|value| Some(value.to_string())));
}

#[test]
fn an_idempotency_key_is_sent_only_to_a_daemon_that_honours_it() {
    for honours in [true, false] {
        let daemon = FakeDaemon::start(move |seen| match seen.line.as_str() {
            "GET /v1/capabilities" => ok(serde_json::json!({"session_run_idempotency": honours})),
            _ => ok(run("queued")),
        });
        let outcome = daemon.kheish(&["sessions", "input", "s", "t", "--idempotency-key", "key 1"]);
        let seen = daemon.seen();
        let keys: Vec<Option<&str>> = seen.iter().map(|seen| seen.header("idempotency-key")).collect();
        if honours {
            assert_eq!((outcome.code, keys), (0, vec![None, Some("key 1")]));
        } else {
            assert_eq!((outcome.code, keys), (1, vec![None]), "{outcome:?}");
        }
    }
}

#[test]
fn a_model_is_split_only_at_a_route_of_the_daemon() {
    let cases: [(&[&str], &str); 5] = [
        (&["--model", "main/gpt"], r#"{"content":"t","provider":"main","generation":{"model":"gpt"}}"#),
        (&["--model", "main/eu/gpt"], r#"{"content":"t","provider":"main/eu","generation":{"model":"gpt"}}"#),
        (&["--model", "vendor/gpt"], r#"{"content":"t","generation":{"model":"vendor/gpt"}}"#),
        (
            &["--model", "main/gpt", "--provider", "other"],
            r#"{"content":"t","provider":"other","generation":{"model":"main/gpt"}}"#,
        ),
        (&["--model", "main/"], r#"{"content":"t","generation":{"model":"main/"}}"#),
    ];
    for (options, body) in cases {
        let daemon = FakeDaemon::start(|seen| match seen.line.as_str() {
            "GET /v1/runtime" => ok(serde_json::json!({"routes": [{"route_id": "main"}, {"route_id": "main/eu"}]})),
            _ => ok(run("queued")),
        });
        let args: Vec<&str> = ["sessions", "input", "s", "t"].iter().chain(options).copied().collect();
        assert_eq!(daemon.kheish(&args).code, 0);
        assert_eq!(daemon.seen().last().map(|seen| seen.body.as_str()), Some(body), "{options:?}");
    }
}

#[test]
fn answers_keep_their_key_order_and_their_numbers() {
    let answer = "{\"z\":18446744073709551616,\n\"a\":{\"b\":[],\"c\":[1.50]}}";
    let daemon = FakeDaemon::start(move |_| Reply::Json(200, answer.to_string()));
    let compact = daemon.kheish(&["status", "--output", "json"]);
    assert_eq!(compact.stdout, "{\"z\":18446744073709551616,\"a\":{\"b\":[],\"c\":[1.50]}}\n");
    let pretty = daemon.kheish(&["status"]);
    let expected =
        "{\n  \"z\": 18446744073709551616,\n  \"a\": {\n    \"b\": [],\n    \"c\": [\n      1.50\n    ]\n  }\n}\n";
    assert_eq!(pretty.stdout, expected);
}
