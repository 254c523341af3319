//! Status, signals and metrics of the real binary: the complete shape, no false alarm on a healthy daemon, and
//! conditions that are produced for real.
//! Owns: those scenarios. Never: changes a clock; ages are compared in `src/api/status/tests.rs`.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
#[path = "support/skip.rs"]
mod skip;

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use daemon::{Daemon, Home, Provider};
use serde_json::Value;

const ANSWERS: &str = r#"
[[turn]]
match = "hello"
text = "hello"
"#;

const READ_ONLY: &str = "read-only-token-of-a-test-0123456789";

/// Writes a file that nobody else may read.
fn private(path: &Path, text: &str) {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("written");
}

fn status(daemon: &Daemon) -> Value {
    daemon.get("/v1/status").json()
}

/// Every field of the reference that is always there, as a pointer.
const FIELDS: &str = "
/snapshot_at_ms /process_id /status /ready /capabilities/api_revision /runtime/debug_level /runtime/routes
/control_plane/base_url /control_plane/bind_addr /control_plane/bind_is_loopback /control_plane/bind_is_unspecified
/control_plane/auth_enabled /control_plane/read_only_token_enabled /control_plane/auth_effective_admin_token_available
/control_plane/auth_effective_read_only_token_available /control_plane/auth_token_file_count
/control_plane/auth_token_file_error_count /control_plane/auth_duplicate_token /control_plane/cors_policy
/control_plane/cors_allowed_origin_count /control_plane/externally_exposed_without_auth
/control_plane/rate_limits/auth_rate_limited/count /control_plane/rate_limits/cors_origin_rate_limited/count
/storage/checked_at_ms /storage/ok /storage/write_error_count /storage/probes/0/name /storage/probes/0/path
/storage/probes/0/state /storage/probes/0/writable /storage/probes/0/latency_ms /storage/probes/0/code
/storage/probes/0/message /storage/probes/0/space/used_percent /storage/probes/1/state
/storage/state_root_lock/path /storage/state_root_lock/held /storage/state_root_lock/mechanism
/provider_readiness/route_count /provider_readiness/ready_route_count /provider_readiness/warning_route_count
/provider_readiness/error_route_count /provider_readiness/active_route_ready /provider_readiness/active_route_state
/provider_readiness/active_route_state_since_ms /provider_readiness/routes/0/route_id
/provider_readiness/routes/0/provider /provider_readiness/routes/0/model /provider_readiness/routes/0/active
/provider_readiness/routes/0/state /provider_readiness/routes/0/code /provider_readiness/routes/0/message
/runs/total /runs/queued /runs/running /runs/waiting_for_approval /runs/waiting_for_user_question /runs/completed
/runs/failed /runs/interrupted /runs/cancelled /runs/pending_approval_count /runs/pending_question_count
/runs/max_session_queue_depth /runs/queued_run_lag_threshold_ms /runs/stale_non_terminal_run_threshold_ms
/runs/stale_non_terminal_run_count /sessions/total
/schedules/dispatch_worker_enabled /schedules/total /schedules/active /schedules/paused /schedules/completed
/schedules/canceled /schedules/due_count /schedules/backoff_count /schedules/in_flight_count
/schedules/queued_fire_count
/delivery/pending /delivery/retrying /delivery/delivered /delivery/dead_lettered /delivery/unresolved_dead_lettered
/delivery/ready /delivery/dispatchable /delivery/target_count /delivery/blocked_target_count
/delivery/throttled_target_count /delivery/open_circuit_target_count /delivery/status_error_count
/delivery/dead_letter_growth/windows_10m
/agents/total /agents/live_runtime_count /agents/sidechain_count /agents/closed_count
/agents/terminal_snapshot_count /agents/mailbox_message_count /agents/idle /agents/running
/agents/waiting_for_approval /agents/waiting_for_user_input /agents/failed /agents/completed
/agents/audit_sink_error_count
/tasks/live_background_shell_task_count /tasks/total /tasks/pending /tasks/in_progress /tasks/blocked
/tasks/completed /tasks/failed /tasks/cancelled /tasks/unreadable_session_count /tasks/unindexed_session_count
/hooks/configured_count /hooks/dead_lettered_count /hooks/unresolved_dead_lettered_count /hooks/execution_count
/hooks/failure_count /hooks/retry_count /hooks/dead_letter_persist_failure_count
/events/history_capacity /events/retained_event_count /events/subscriber_count /events/next_event_id
/events/scope_eviction_floor_id /events/replay_buffer_utilization_percent /events/evicted_event_count
/events/replay_gap_count /events/stream_lagged_event_count /events/evicted_session_scope_count
/events/evicted_run_scope_count /run_memory/supported /session_memory/supported
/connectors/total /mcp/server_count /journal/committed_seq /journal/committed_chain /journal/reserve_is_intact
/health/generated_at_ms /health/snapshot_duration_ms /health/ok /health/route_error_count
/health/route_warning_count
";

#[test]
fn every_group_and_field_of_the_reference_is_there() {
    let provider = Provider::start(ANSWERS);
    let home = Home::new("slo-shape", Some(&provider));
    let daemon = home.start();
    let status = status(&daemon);
    let missing: Vec<&str> =
        FIELDS.split_whitespace().filter(|field| status.pointer(field).is_none_or(Value::is_null)).collect();
    assert_eq!(missing, Vec::<&str>::new(), "{status:#}");
    for group in ["schedules", "delivery", "agents", "hooks", "connectors", "mcp"] {
        assert!(status[group]["supported"].is_boolean(), "{group}");
    }
    daemon.stop();
}

#[test]
fn every_thread_of_the_architecture_is_there_and_alive() {
    let home = Home::new("slo-threads", None);
    let daemon = home.start();
    // Those that call the daemon back begin once it listens.
    let status = daemon::eventually("every thread to have begun", || {
        let status = status(&daemon);
        let begun = |thread: &Value| thread["count"].as_u64() > Some(0);
        status["threads"].as_array().is_some_and(|threads| threads.iter().all(begun)).then_some(status)
    });
    let threads = status["threads"].as_array().expect("threads");
    let seen: BTreeSet<&str> = threads.iter().filter_map(|thread| thread["name"].as_str()).collect();
    let page = include_str!("../docs/architecture.md");
    let table = page.split("## Threads").nth(1).expect("the chapter").split("\n## ").next().expect("its text");
    let listed = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    // MCP has threads once a server is configured (`mcp_daemon` has some), and calls that wait together while they do.
    let lasting = |name: &&str| !name.starts_with("mcp") && *name != "call";
    for name in listed.map(|name| name.strip_suffix("-n").unwrap_or(name)).filter(lasting) {
        assert!(seen.contains(name), "{name} is not among {seen:?}");
    }
    for thread in threads {
        assert_eq!(thread["count"], thread["alive"], "{thread}");
        assert!(thread["count"].as_u64() > Some(0), "{thread}");
        assert!(thread["last_progress_ms"].as_u64() > Some(0), "{thread}");
    }
    daemon.stop();
}

/// Runs `slo`; exit code, report, message. The rows of a disk that is full or slow by itself are taken as ok: that is this
/// host's affair, and the daemon is right to tell of it.
fn slo(home: &Home, daemon: &Daemon, args: &[&str]) -> (i32, Value, String) {
    let (code, stdout, stderr) = home.cli(daemon, &[&["--output", "json", "slo"], args].concat());
    let mut report = serde_json::from_str(&stdout).unwrap_or(Value::Null);
    if report.is_null() {
        return (code, report, stderr);
    }
    let mut is_changed = false;
    let rows = report["rows"].as_array_mut().expect("rows");
    for row in rows.iter_mut().filter(|row| ["storage", "disk"].contains(&row["id"].as_str().expect("an id"))) {
        let detail = row["detail"].as_str().unwrap_or_default();
        if ["space_", "% of the space", "inodes_low", "write_probe_slow"].iter().any(|words| detail.contains(words)) {
            row["level"] = "ok".into();
            is_changed = true;
        }
    }
    if !is_changed {
        return (code, report, stderr);
    }
    let worst = rows.iter().map(|row| match row["level"].as_str() {
        Some("ok") => 0,
        Some("warning") => 1,
        _ => 2,
    });
    let worst = worst.max().expect("rows");
    (worst, report, stderr)
}

fn level(report: &Value, id: &str) -> String {
    let rows = report["rows"].as_array().unwrap_or_else(|| panic!("{report}"));
    let row = rows.iter().find(|row| row["id"] == id).unwrap_or_else(|| panic!("no row {id}"));
    row["level"].as_str().expect("a level").to_string()
}

fn codes(daemon: &Daemon) -> Vec<String> {
    let status = status(daemon);
    let warnings = status["health"]["warnings"].as_array().cloned().unwrap_or_default();
    let text = |warning: &Value, name: &str| warning[name].as_str().expect("text").to_string();
    let mut found: Vec<String> =
        warnings.iter().map(|warning| format!("{}:{}", text(warning, "severity"), text(warning, "code"))).collect();
    found.sort();
    found.dedup();
    found
}

/// What depends on this host and on the test's own way of running a daemon.
fn posture(code: &str) -> bool {
    ["info:sandbox_reduced", "info:sandbox_off", "info:signing_key_in_state_root"].contains(&code)
}

fn raised(daemon: &Daemon) -> Vec<String> {
    codes(daemon).into_iter().filter(|code| !posture(code)).collect()
}

#[test]
fn slo_exits_by_the_worst_row_and_names_the_next_command() {
    let provider = Provider::start(ANSWERS);
    let home = Home::with_slot("slo-exits", Some(&provider));
    let daemon = home.start();
    let (code, report, message) = slo(&home, &daemon, &[]);
    // The route's slot is empty, which makes the daemon unhealthy at once and the route late only after five minutes.
    assert_eq!((code, level(&report, "health"), level(&report, "provider_readiness")), (2, "page".into(), "ok".into()));
    assert_eq!(report["sample_count"], 2, "a bad sample asks for another one");
    // A disk that is full by itself stands behind it.
    assert!(message.contains("a page: health") && message.contains("; next:"), "{message}");
    let thresholds = home.join("thresholds.toml");
    std::fs::write(&thresholds, "[provider_readiness]\npage_after_ms = 0\n[health]\npage_samples = 3\n")
        .expect("written");
    let thresholds = thresholds.display().to_string();
    let (code, report, _) = slo(&home, &daemon, &["--thresholds", &thresholds, "--interval", "10ms"]);
    assert_eq!(
        (code, level(&report, "provider_readiness"), level(&report, "health")),
        (2, "page".into(), "page".into())
    );
    assert_eq!(report["sample_count"], 3);
    let row = report["rows"].as_array().expect("rows").iter().find(|row| row["id"] == "provider_readiness");
    assert_eq!(row.expect("the row")["next"], "kheish-daemon doctor routes --check-auth");
    daemon.set_key("sk-test-0123456789abcdef");
    let (code, report, message) = slo(&home, &daemon, &["--thresholds", &thresholds]);
    assert_eq!(code, 0, "{report:#} {message}");
    let low = "[disk]\nwarning_percent = 0\npage_percent = 100\npage_inode_percent = 101\n";
    std::fs::write(home.join("thresholds.toml"), low).expect("written");
    let (code, stdout, message) = home.cli(&daemon, &["--output", "json", "slo", "--thresholds", &thresholds]);
    assert_eq!((code, level(&serde_json::from_str(&stdout).expect("JSON"), "disk")), (1, "warning".into()));
    assert!(message.contains("a warning: ") && message.contains("disk"), "{message}");
    std::fs::write(home.join("thresholds.toml"), "[dsk]\nwarning_percent = 0\n").expect("written");
    let (code, _, message) = slo(&home, &daemon, &["--thresholds", &thresholds]);
    assert_eq!(code, 1);
    assert!(message.contains("no row is called \"dsk\""), "{message}");
    daemon.stop();
}

#[test]
fn a_routes_file_that_has_changed_warns_of_the_default_route() {
    let home = Home::new("slo-drift", None);
    let daemon = home.start();
    let thresholds = home.join("thresholds.toml");
    std::fs::write(&thresholds, "[provider_readiness]\nwarning_after_ms = 0\n").expect("written");
    let args = ["--thresholds", &thresholds.display().to_string()];
    let (code, report, _) = slo(&home, &daemon, &args);
    assert_eq!((code, level(&report, "provider_readiness")), (0, "ok".into()));
    let routes = std::fs::read_to_string(home.join("routes.toml")).expect("our own routes");
    private(&home.join("routes.toml"), &format!("{routes}\n# edited\n"));
    daemon::eventually("drift is seen", || {
        (status(&daemon)["provider_readiness"]["active_route_state"] == "warning").then_some(())
    });
    let (code, report, _) = slo(&home, &daemon, &args);
    assert_eq!(
        (code, level(&report, "provider_readiness"), level(&report, "health")),
        (1, "warning".into(), "ok".into())
    );
    private(&home.join("routes.toml"), &routes);
    daemon::eventually("no drift", || {
        (status(&daemon)["provider_readiness"]["active_route_state"] == "ok").then_some(())
    });
    daemon.stop();
}

#[test]
fn a_daemon_that_does_not_answer_pages_in_every_row_and_a_wrong_token_is_told_apart() {
    let home = Home::new("slo-unreachable", None);
    let daemon = home.start();
    let url = daemon.base_url();
    let wrong = ["--base-url", &url, "--token", "a-token-of-somebody-else-0123456789", "slo"];
    let (code, text) = home.command(&wrong);
    assert_eq!(code, 4, "{text}");
    let (code, report, _) = {
        daemon.strike();
        slo(&home, &daemon, &["--interval", "10ms"])
    };
    assert_eq!((code, &report["level"]), (2, &Value::from("page")));
    for row in report["rows"].as_array().expect("rows") {
        assert_eq!(row["level"], "page", "{row}");
        assert!(row["evidence_missing"] == true || row["id"] == "readiness", "{row}");
    }
    daemon.kill();
}

#[test]
fn health_tells_what_is_the_case_now_and_forgets_what_is_over() {
    let provider = Provider::start("[[turn]]\nmatch = \"break\"\nerror = { status = 400, code = \"bad\" }\n");
    let home = Home::new("slo-health", Some(&provider));
    let read_only = home.join("read-only.token");
    private(&read_only, READ_ONLY);
    let daemon = home.serve().options(&["--http-readonly-token-file", &read_only.display().to_string()]).start();
    assert_eq!(raised(&daemon), Vec::<String>::new());

    daemon.create_session("s");
    let run = daemon.submit("s", "break");
    assert_eq!(daemon.wait_end(&run), "failed");
    assert_eq!(raised(&daemon), ["info:failed_agents", "info:failed_runs"]);
    assert_eq!(status(&daemon)["health"]["ok"], true, "history is no page");
    let calls = status(&daemon)["provider_readiness"]["calls"].clone();
    assert_eq!((&calls["answered_count"], &calls["failed_count"]), (&0.into(), &1.into()), "{calls}");
    assert!(calls["last_failure_code"].is_string() && calls["last_failure_at_ms"].is_u64(), "{calls}");

    let (code, ..) = home.cli(&daemon, &["runtime", "hold"]);
    assert_eq!(
        (code, raised(&daemon)),
        (0, vec!["info:execution_held".to_string(), "info:failed_agents".into(), "info:failed_runs".into()])
    );
    home.cli(&daemon, &["runtime", "release"]);

    std::fs::remove_file(&read_only).expect("removed");
    let code = "warning:control_plane_auth_token_file_unavailable".to_string();
    daemon::eventually("a token file that is gone", || raised(&daemon).contains(&code).then_some(()));
    let found = status(&daemon);
    let warnings = found["health"]["warnings"].as_array().expect("warnings");
    let warning = warnings.iter().find(|warning| warning["severity"] == "warning").expect("the finding");
    assert_eq!(warning["related_id"], read_only.display().to_string());
    assert_eq!(found["health"]["ok"], false);

    private(&read_only, daemon::TOKEN);
    daemon::eventually("equal tokens", || {
        raised(&daemon).contains(&"error:control_plane_auth_duplicate_token".to_string()).then_some(())
    });
    private(&read_only, READ_ONLY);
    daemon::eventually("two tokens again", || {
        (raised(&daemon) == ["info:failed_agents", "info:failed_runs"]).then_some(())
    });
    daemon.stop();
}

#[test]
fn a_lost_lock_and_a_workspace_that_is_gone_are_found_by_the_next_probe() {
    let home = Home::new("slo-storage", None);
    let daemon = home.start();
    assert_eq!(status(&daemon)["storage"]["state_root_lock"]["held"], true);
    std::fs::remove_dir_all(home.join("workspace")).expect("an empty folder");
    std::fs::rename(home.root().join("daemon.lock"), home.root().join("moved")).expect("moved");
    let both = ["error:state_root_lock_lost", "error:storage_write_probe_failed"];
    daemon::eventually("the next probe", || {
        let found = raised(&daemon);
        both.iter().all(|code| found.contains(&(*code).to_string())).then_some(())
    });
    let found = status(&daemon);
    assert_eq!((&found["storage"]["ok"], &found["storage"]["state_root_lock"]["held"]), (&false.into(), &false.into()));
    let (code, report, _) = slo(&home, &daemon, &["--interval", "10ms"]);
    assert_eq!((code, level(&report, "storage")), (2, "page".into()));
    std::fs::rename(home.root().join("moved"), home.root().join("daemon.lock")).expect("moved");
    daemon.kill();
}

#[test]
fn floods_are_counted_in_the_status_by_the_code_of_their_audit_line() {
    let home = Home::new("slo-floods", None);
    let daemon = home.start();
    let limits = |daemon: &Daemon| status(daemon)["control_plane"]["rate_limits"].clone();
    assert_eq!(limits(&daemon)["auth_rate_limited"], serde_json::json!({"count": 0, "windows_10m": [0, 0, 0]}));
    let mut wrong = http::Client::connect(daemon.address, "wrong-token-of-a-test-0123456789").expect("connected");
    for _ in 0..70 {
        wrong.request("GET", "/v1/status", &[], "").expect("an answer");
        wrong.request("GET", "/v1/status", &[("origin", "https://evil.example")], "").expect("an answer");
    }
    let found = limits(&daemon);
    for code in ["auth_rate_limited", "cors_origin_rate_limited"] {
        assert_eq!(
            (&found[code]["count"], &found[code]["windows_10m"]),
            (&1.into(), &serde_json::json!([1, 0, 0])),
            "{code}"
        );
        assert!(found[code]["last_at_ms"].as_u64() > Some(0), "{code}");
    }
    let (code, report, _) = slo(&home, &daemon, &[]);
    assert_eq!((code, level(&report, "rate_limits")), (0, "ok".into()), "one is no repeat");
    daemon.stop();
}

#[test]
fn metrics_need_a_token_keep_their_number_under_load_and_cover_what_the_status_tells() {
    let provider = Provider::start(ANSWERS);
    let home = Home::new("slo-metrics", Some(&provider));
    let read_only = home.join("read-only.token");
    private(&read_only, READ_ONLY);
    let daemon = home.serve().options(&["--http-readonly-token-file", &read_only.display().to_string()]).start();
    let series = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.rsplit_once(' ').expect("a figure").0.to_string()).collect()
    };
    let ask = |token: &'static str| {
        let mut client = http::Client::connect(daemon.address, token).expect("connected");
        client.request("GET", "/metrics", &[], "").expect("an answer")
    };
    assert_eq!(ask("wrong-token-of-a-test-0123456789").status, 401);
    let idle = ask(READ_ONLY);
    assert_eq!(idle.status, 200);
    let before = series(&String::from_utf8(idle.body).expect("text"));
    for session in 0..20 {
        daemon.create_session(&format!("s{session}"));
        for _ in 0..5 {
            daemon.submit(&format!("s{session}"), "hello");
        }
    }
    let last = daemon.submit("s19", "hello");
    assert_eq!(daemon.wait_end(&last), "completed");
    let _streams: Vec<_> = (0..10).map(|_| daemon.stream("/v1/events/stream")).collect();
    let after = String::from_utf8(daemon.get("/metrics").body).expect("text");
    assert_eq!(series(&after), before);
    lint(&after);
    assert!(before.len() < kheish_daemon::limits::METRICS_SERIES_MAX, "{}", before.len());
    println!("{} series", before.len());
    let status = status(&daemon);
    let figure = |name: &str| -> f64 {
        let line = after.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
    };
    assert_eq!(figure("kheish_runs_accepted_total"), 101.0);
    assert_eq!(figure("kheish_sessions"), 20.0);
    assert!(figure("kheish_provider_calls_total{outcome=\"answered\"}") >= 6.0);
    assert_eq!(figure("kheish_provider_calls_total{outcome=\"failed\"}"), 0.0);
    assert!(figure("kheish_http_requests_total") >= 121.0);
    assert!(figure("process_open_fds") > 10.0 && figure("process_resident_memory_bytes") > 1e6);
    assert_eq!(figure("kheish_threads{thread=\"engine\"}"), 16.0);
    assert_eq!(figure("kheish_health_ok"), f64::from(status["health"]["ok"] == true));
    // A pointer with a slip would be zero for ever.
    let known = |pointer: &str| {
        let (parent, _) = pointer.rsplit_once('/').expect("a pointer");
        parent.is_empty() || status.pointer(parent).is_some() || parent == "/journal/sealed_head"
    };
    for metric in kheish_daemon::api::metrics::METRICS {
        let kheish_daemon::api::metrics::Source::Fixed(series) = metric.source else { continue };
        for one in series {
            use kheish_daemon::api::metrics::Read;
            if let Read::At(pointer, _) | Read::Truth(pointer) | Read::Is(pointer, _) = one.read {
                let there = status.pointer(pointer).is_some() || ABSENT_WHILE_QUIET.contains(&pointer);
                assert!(there && known(pointer), "{}: {pointer}", metric.name);
            }
        }
    }
    daemon.stop();
}

/// Prometheus' own check of names and types, where it is installed.
fn lint(text: &str) {
    let child =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else { return skip::skip("promtool check metrics", "promtool is not installed") };
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("a child of ours");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Fields that are only there when there is something to tell.
const ABSENT_WHILE_QUIET: &[&str] = &[
    "/storage/probes/0/space/inodes_used_percent",
    "/runs/oldest_queued_run_age_ms",
    "/runs/oldest_queued_behind_active_age_ms",
    "/runs/oldest_non_terminal_run_idle_ms",
    "/runs/oldest_running_run_idle_ms",
    "/runs/oldest_waiting_for_approval_age_ms",
    "/runs/oldest_waiting_for_user_question_age_ms",
    "/delivery/worker_lag_ms",
    "/provider_readiness/calls/last_failure_at_ms",
    "/schedules/oldest_due_schedule_lag_ms",
    "/journal/sealed_head/sealed_at_ms",
    "/journal/batch_age_ms",
];
