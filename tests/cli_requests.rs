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
    check(&["runtime", "revisions"], "GET /v1/runtime/revisions", "");
    check(&["runtime", "rollback"], "POST /v1/runtime/rollback", "{}");
    check(
        &["runtime", "rollback", "--target-revision", "3", "--expected-revision=9"],
        "POST /v1/runtime/rollback",
        r#"{"target_revision":3,"expected_revision":9}"#,
    );
    for (typed, sent) in [
        ("dont-ask", "dontAsk"),
        ("dontAsk", "dontAsk"),
        ("accept-edits", "acceptEdits"),
        ("bypass-permissions", "bypassPermissions"),
        ("plan", "plan"),
    ] {
        check(
            &["runtime", "set-permission-mode", typed],
            "POST /v1/runtime/permission-mode",
            &format!(r#"{{"mode":"{sent}"}}"#),
        );
    }
    let debug_level = "POST /v1/runtime/debug-level";
    check(&["runtime", "set-debug-level", "off"], debug_level, r#"{"level":"off"}"#);
    check(
        &["runtime", "set-debug-level", "full", "--ttl", "30m", "--ticket", "OPS-7", "--expected-revision", "2"],
        debug_level,
        r#"{"level":"full","ttl_ms":1800000,"ticket":"OPS-7","expected_revision":2}"#,
    );
    check(&["runtime", "set-model", "gpt-x"], "POST /v1/runtime/model", r#"{"model":"gpt-x"}"#);
    check(&["runtime", "set-model", "--reset"], "POST /v1/runtime/model", "{}");
    check(
        &["runtime", "set-model", "--route", "main", "gpt-x"],
        "POST /v1/runtime/model",
        r#"{"provider":"main","model":"gpt-x"}"#,
    );
    check(&["runtime", "tool-limits", "get"], "GET /v1/runtime/tool-limits", "");
    check(&["runtime", "tool-limits", "set", "--reset"], "POST /v1/runtime/tool-limits", r#"{"limits":{}}"#);
    let permission_check = "POST /v1/runtime/permissions/check";
    check(&["runtime", "permissions", "check", "bash"], permission_check, r#"{"tool_name":"bash"}"#);
    check(
        &["runtime", "permissions", "check", "--tool", "bash", "--mode", "dont-ask", "--session-id", "s"],
        permission_check,
        r#"{"tool_name":"bash","session_id":"s","mode_override":"dontAsk"}"#,
    );
    check(
        &["runtime", "permissions", "check", "bash", "--input-json", r#"{"command": "ls"}"#],
        permission_check,
        r#"{"tool_name":"bash","input":{"command": "ls"}}"#,
    );
    check(&["runtime", "permissions", "matrix"], "POST /v1/runtime/permissions/matrix", "{}");
    check(&["runtime", "permissions", "rules"], "GET /v1/runtime/permissions/rules", "");
    check(&["sessions", "settings", "s"], "GET /v1/sessions/s/settings", "");
    let session_mode = "POST /v1/sessions/s/permission-mode";
    check(&["sessions", "set-permission-mode", "s", "plan"], session_mode, r#"{"mode":"plan"}"#);
    check(&["sessions", "set-permission-mode", "s", "inherit"], session_mode, r#"{"mode":null}"#);
    check(&["sessions", "set-route", "s", "--clear"], "DELETE /v1/sessions/s/route-policy", "");
    check(
        &["sessions", "set-route", "s", "--route", "main", "--model", "m"],
        "POST /v1/sessions/s/route-policy",
        r#"{"route_policy":{"provider":"main","generation":{"model":"m"}}}"#,
    );
    check(&["sessions", "permission-audits", "s", "--limit", "5"], "GET /v1/sessions/s/permission-audits?limit=5", "");
    check(&["secrets", "list"], "GET /v1/runtime/secrets", "");
    check(&["secrets", "get", "mcp/a?b"], "GET /v1/runtime/secrets/mcp%2Fa%3Fb", "");
    check(&["secrets", "delete", "a"], "DELETE /v1/runtime/secrets/a", "");
}

#[test]
fn documents_come_from_a_file_or_standard_input_and_from_one_of_them() {
    let scratch = Scratch::new();
    let rules = scratch.file("rules", r#"[{"scope":"user","tool_name_pattern":"bash","behavior":"deny"}]"#);
    let put = "PUT /v1/runtime/permissions/rules";
    let body = r#"{"rules":[{"scope":"user","tool_name_pattern":"bash","behavior":"deny"}]}"#;
    check(&["runtime", "permissions", "set-rules", "--file", &rules], put, body);
    check(&["sessions", "set-permission-rules", "s", "--file", &rules], "PUT /v1/sessions/s/permission-rules", body);
    let limits = scratch.file("limits", r#"{"max_parallel_tools": 2}"#);
    check(
        &["runtime", "tool-limits", "set", "--file", &limits, "--expected-revision", "4"],
        "POST /v1/runtime/tool-limits",
        r#"{"limits":{"max_parallel_tools": 2},"expected_revision":4}"#,
    );
    let daemon = FakeDaemon::start(|_| ok(serde_json::json!({})));
    for args in [
        &["runtime", "permissions", "set-rules"][..],
        &["runtime", "permissions", "set-rules", "--file", &rules, "--stdin"],
        &["runtime", "tool-limits", "set", "--reset", "--file", &limits],
        &["runtime", "permissions", "check"],
        &["runtime", "permissions", "check", "bash", "--tool", "bash"],
        &["runtime", "permissions", "check", "bash", "--input-json", "{"],
        &["runtime", "set-permission-mode", "never"],
        &["runtime", "set-debug-level", "full", "--ttl", "30"],
        &["runtime", "set-model"],
        &["runtime", "set-model", "m", "--reset"],
        &["sessions", "set-route", "s"],
    ] {
        let outcome = daemon.kheish(args);
        assert_eq!(outcome.code, 1, "{args:?}: {outcome:?}");
        assert!(outcome.stderr.contains("next: "), "{args:?}: {outcome:?}");
    }
    assert!(daemon.seen().is_empty(), "nothing was asked of the daemon");
}

/// The requests of one command against a daemon with these answers to reads.
fn requests(args: &[&str], read: serde_json::Value) -> Vec<(String, String)> {
    let daemon =
        FakeDaemon::start(
            move |seen| {
                if seen.line.starts_with("GET") { ok(read.clone()) } else { ok(serde_json::json!({})) }
            },
        );
    let outcome = daemon.kheish(args);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{args:?}");
    daemon.seen().into_iter().map(|seen| (seen.line, seen.body)).collect()
}

#[test]
fn a_change_of_a_part_sends_the_rest_as_it_was_and_the_revision_that_was_read() {
    let runtime = serde_json::json!({"system_prompt": {"append_prompt": "a", "language": "de"},
        "config": {"revision": 7, "persisted": true}});
    let line = |line: &str, body: &str| (line.to_string(), body.to_string());
    let set = "POST /v1/runtime/system-prompt";
    for (args, body) in [
        (
            &["runtime", "set-prompt", "c"][..],
            r#"{"settings":{"custom_prompt":"c","append_prompt":"a","language":"de"},"expected_revision":7}"#,
        ),
        (
            &["runtime", "set-system-prompt", "--mode", "append"],
            r#"{"settings":{"language":"de"},"expected_revision":7}"#,
        ),
        (
            &["runtime", "set-prompt", "--mode", "default", "--expected-revision", "3"],
            r#"{"settings":{},"expected_revision":3}"#,
        ),
    ] {
        assert_eq!(requests(args, runtime.clone()), [line("GET /v1/runtime", ""), line(set, body)], "{args:?}");
    }
    let rules = serde_json::json!({"revision": 4, "rules": [
        {"scope": "user", "tool_name_pattern": "bash", "behavior": "ask"},
        {"scope": "user", "tool_name_pattern": "bash", "argument": {"command_prefix": "git"}, "behavior": "allow"}]});
    let (path, put) = ("GET /v1/runtime/permissions/rules", "PUT /v1/runtime/permissions/rules");
    let first = r#"{"behavior":"ask","scope":"user","tool_name_pattern":"bash"}"#;
    let second =
        r#"{"argument":{"command_prefix":"git"},"behavior":"allow","scope":"user","tool_name_pattern":"bash"}"#;
    let third = r#"{"scope":"user","tool_name_pattern":"bash","argument":{"command_prefix":"rm"},"behavior":"deny","reason":"no"}"#;
    let add = ["runtime", "permissions", "add-rule", "deny", "bash", "--command-prefix", "rm", "--reason", "no"];
    assert_eq!(
        requests(&add, rules.clone()),
        [line(path, ""), line(put, &format!(r#"{{"rules":[{first},{second},{third}],"expected_revision":4}}"#))]
    );
    let remove = ["runtime", "permissions", "remove-rule", "bash", "--command-prefix", "git"];
    assert_eq!(
        requests(&remove, rules),
        [line(path, ""), line(put, &format!(r#"{{"rules":[{first}],"expected_revision":4}}"#))]
    );
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
