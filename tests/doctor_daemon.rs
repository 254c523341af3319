//! `doctor` against the real daemon: no alarm while it is well, and each fault that makes it fail produced for real.
//! Owns: code, exit status and advice of every fail-closed condition that a daemon or a proxy can be brought into.
//! Never: takes a stub for the daemon; a proxy only spoils what goes through it.

#[path = "support/daemon.rs"]
mod daemon;
mod doctor_support;
#[path = "support/http.rs"]
mod http;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fmt, fs};

use daemon::{Daemon, Home, Provider, TOKEN, eventually};
use doctor_support::{Fault, Proxy};
use http::{Client, EventStream};
use kheish_daemon::doctor::{Findings, status};
use serde_json::{Value, json};

/// How a diagnosis ended.
struct Outcome {
    code: i32,
    report: Value,
    stderr: String,
}

impl fmt::Debug for Outcome {
    /// What was found; the whole status would bury it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows =
            self.report["checks"].as_array().or(self.report["diagnostics"].as_array()).cloned().unwrap_or_default();
        let unwell: Vec<&Value> = rows.iter().filter(|row| row["ok"] != true).collect();
        write!(f, "exit {}, {unwell:?}, {}", self.code, self.stderr)
    }
}

impl Outcome {
    /// Codes of what is not in order, without the use of this machine's disk.
    fn found(&self) -> Vec<String> {
        let checks = self.report["checks"].as_array().unwrap_or_else(|| panic!("no report: {self:?}"));
        let unwell = checks.iter().filter(|check| check["ok"] != true && !is_space(check));
        let mut codes: Vec<String> = unwell.map(|check| check["code"].as_str().expect("a code").to_string()).collect();
        codes.dedup();
        codes
    }

    /// Fails unless these codes were found, in this order, with exit status 1, and the last line names the first of them with its
    /// next step.
    fn assert_found(&self, expected: &[&str], advice: &str) {
        assert_eq!(self.found(), expected, "{self:?}");
        assert_eq!(self.code, 1, "{self:?}");
        assert_eq!(self.report["ok"], false, "{self:?}");
        let line = self.stderr.lines().last().unwrap_or_default();
        assert!(line.starts_with("Error: doctor found ") && line.contains(expected[0]), "{line}");
        assert!(line.contains("; next: ") && line.contains(advice), "{line}\n does not say {advice:?}");
        for check in self.report["checks"].as_array().expect("checks").iter().filter(|check| check["ok"] != true) {
            assert!(check["action"].as_str().is_some_and(|action| !action.is_empty()), "{check}");
        }
    }

    fn assert_well(&self) {
        assert_eq!((self.code, self.found()), (0, vec![]), "{self:?}");
        assert_eq!(self.report["ok"], true, "{self:?}");
        assert_eq!(self.stderr, "", "{self:?}");
        assert_eq!(self.report["errors"], json!([]));
    }
}

fn is_space(check: &Value) -> bool {
    let message = check["message"].as_str().unwrap_or_default();
    check["code"] == "storage_probe_warning" && (message.contains("(space_") || message.contains("slow"))
}

fn command(url: &str, token_file: &Path, args: &[&str]) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kheish-daemon"));
    command.env_clear().args(["--base-url", url, "--output", "json", "--token-file"]).arg(token_file).args(args);
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    Outcome {
        code: output.status.code().expect("an exit code"),
        report: serde_json::from_slice(&output.stdout).unwrap_or_default(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn doctor(home: &Home, daemon: &Daemon, args: &[&str]) -> Outcome {
    command(&daemon.base_url(), home.token_file(), &[&["doctor"], args].concat())
}

fn through(home: &Home, daemon: &Daemon, fault: Fault, args: &[&str]) -> Outcome {
    let proxy = Proxy::start(daemon.address, fault);
    command(&proxy.url(), home.token_file(), &[&["doctor"], args].concat())
}

/// How long the daemon is watched; `make soak` asks for more.
fn soak() -> Duration {
    let seconds = std::env::var("KHEISH_DOCTOR_SOAK_S").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    Duration::from_secs(seconds)
}

#[test]
fn a_healthy_daemon_gives_no_alarm_idle_or_busy() {
    let provider =
        Provider::start("[default]\ntext = \"some words for the stream\"\nchunk_chars = 2\nchunk_delay_ms = 5\n");
    let home = Home::new("doctor-well", Some(&provider));
    let daemon = home.start();
    let idle_until = Instant::now() + soak();
    loop {
        doctor(&home, &daemon, &[]).assert_well();
        if Instant::now() > idle_until {
            break;
        }
    }
    for session in 0..8 {
        daemon.create_session(&format!("busy-{session}"));
    }
    let streams: Vec<EventStream> = (0..4).map(|_| daemon.stream("/v1/events/stream?cursor=0")).collect();
    let busy_until = Instant::now() + soak();
    let mut runs = Vec::new();
    loop {
        runs.extend((0..16).map(|number| daemon.submit(&format!("busy-{}", number % 8), "go on")));
        doctor(&home, &daemon, &["--cors-origin", "http://localhost:5173"]).assert_well();
        if Instant::now() > busy_until {
            break;
        }
    }
    drop(streams);
    for run in &runs {
        assert_eq!(daemon.wait_end(run), "completed");
    }
    doctor(&home, &daemon, &[]).assert_well();
    daemon.stop();
}

/// The command lines of the production runbooks, as they stand there but for the binary's path, the address, the token's path
/// and the routes file's.
#[test]
fn the_runbooks_lines_pass_on_a_healthy_daemon() {
    let home = Home::with_slot("doctor-runbook", None);
    let daemon = home.start();
    daemon.set_key("sk-doctor-runbook-0123456789");
    let script = include_str!("data/runbooks/doctor.sh");
    let blocks: Vec<String> = script
        .split("\n\n")
        .map(|block| block.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n"))
        .collect();
    assert_eq!(blocks.len(), script.matches("./target/debug/kheish-daemon").count(), "a command a block");
    for block in blocks {
        let mut text = block.replace("./target/debug/kheish-daemon", env!("CARGO_BIN_EXE_kheish-daemon"));
        for address in [
            "--base-url https://kheish.example.com",
            "--base-url http://127.0.0.1:4010",
            "--base-url http://127.0.0.1:4000",
        ] {
            text = text.replace(address, &format!("--base-url {}", daemon.base_url()));
        }
        text = text.replace("/run/secrets/kheish-admin-token", &home.token_file().display().to_string());
        text = text.replace("/etc/kheish/routes.toml", &home.join("routes.toml").display().to_string());
        let output = Command::new("sh").args(["-c", &text]).env_clear().stdin(Stdio::null()).output().expect("a shell");
        assert!(output.status.success(), "{block}: {output:?}");
        let report: Value = serde_json::from_slice(&output.stdout).expect("one document");
        assert_eq!((&report["ok"], &report["errors"]), (&json!(true), &json!([])), "{block}");
        if report["source"] == "runtime" {
            assert_eq!(report["diagnostics"], json!([]), "{block}");
        }
    }
    daemon.stop();
}

#[test]
fn a_proxy_that_passes_everything_is_no_fault() {
    let home = Home::new("doctor-proxy", None);
    let daemon = home.start();
    let outcome = through(&home, &daemon, Fault::None, &["--cors-origin", "http://127.0.0.1:8080"]);
    outcome.assert_well();
    let streams = outcome.report["event_streams"].as_array().expect("streams");
    let paths: Vec<&str> = streams.iter().map(|stream| stream["path"].as_str().expect("a path")).collect();
    assert_eq!(paths, ["/v1/events/stream", "/v1/sessions/doctor-probe/stream", "/v1/runs/run-1/stream"]);
    assert!(streams.iter().all(|stream| stream["probe_delay_ms"].is_u64()), "{outcome:?}");
    daemon.stop();
}

#[test]
fn what_a_proxy_spoils_is_named_with_its_code_and_advice() {
    let home = Home::new("doctor-spoilt", None);
    let daemon = home.start();
    let buffering = "turn response buffering off";
    let unchanged = "unchanged";
    let cases: Vec<(Fault, &[&str], &[&str], &str)> = vec![
        (Fault::Answer("/readyz", 503), &[], &["readyz_not_ready"], "let the proxy pass /readyz"),
        (Fault::Answer("/readyz", 302), &[], &["readyz_not_ready"], "/readyz"),
        (Fault::Answer("/healthz", 404), &[], &["healthz_failed"], "/healthz"),
        (Fault::Buffer("/v1/"), &[], &["events_sse_buffered"], buffering),
        (Fault::Buffer("/v1/runs/"), &[], &["events_sse_buffered"], buffering),
        (Fault::Buffer("/v1/sessions/"), &[], &["events_sse_buffered"], buffering),
        (Fault::HoldBack("/v1/events/"), &[], &["events_sse_buffered"], buffering),
        (Fault::Rewrite("id: ", "id: 9"), &[], &["events_sse_rewritten"], unchanged),
        (Fault::Rewrite("id: ", "x: "), &[], &["events_sse_rewritten"], unchanged),
        (
            Fault::Rewrite("event: probe\ndata: {\"type\":\"probe\",", "data: {\"type\":\"probe\","),
            &[],
            &["events_sse_rewritten"],
            unchanged,
        ),
        (Fault::Rewrite("asked", "asked2"), &[], &["events_sse_rewritten"], unchanged),
        (Fault::DropQuery("/v1/events/stream"), &[], &["events_sse_rewritten"], unchanged),
        (Fault::Cut, &[], &["events_sse_malformed"], "rewriting off"),
        (Fault::ContentType("text/html"), &[], &["events_sse_not_a_stream"], unchanged),
        (Fault::Answer("/v1/runs/", 404), &[], &["events_sse_refused"], "events stream"),
        (Fault::Answer("/v1/events/probe", 404), &[], &["events_sse_unreachable"], "passes the stream's path"),
        (
            Fault::Header("OPTIONS", "access-control-allow-origin: *"),
            &[],
            &["cors_origin_granted"],
            "remove every Access-Control header",
        ),
        (
            Fault::Header("OPTIONS", "access-control-allow-credentials: true"),
            &["--cors-origin", "http://localhost:5173"],
            &["cors_origin_granted", "cors_credentials_granted"],
            "remove every Access-Control header",
        ),
        (
            Fault::Header("OPTIONS", "access-control-allow-origin: https://kheish.example.com"),
            &["--cors-origin", "https://kheish.example.com"],
            &["cors_origin_granted"],
            "remove every Access-Control header",
        ),
        (
            Fault::Header("GET", "access-control-allow-origin: *"),
            &[],
            &["cors_header_added"],
            "the daemon adds its own",
        ),
    ];
    // Side by side: what a buffer holds back is waited for.
    std::thread::scope(|scope| {
        for (fault, args, expected, advice) in cases {
            let (home, daemon) = (&home, &daemon);
            scope.spawn(move || through(home, daemon, fault, args).assert_found(expected, advice));
        }
    });
    daemon.stop();
}

#[test]
fn a_loopback_page_that_is_not_on_the_exact_list_is_named() {
    let home = Home::new("doctor-cors", None);
    let daemon = home.serve().options(&["--http-cors-allow-origin", "http://localhost:3000"]).start();
    doctor(&home, &daemon, &["--cors-origin", "http://localhost:3000"]).assert_well();
    let other = doctor(&home, &daemon, &["--cors-origin", "http://localhost:5173"]);
    other.assert_found(&["cors_preflight_refused"], "--http-cors-allow-origin");
    for bad in ["kheish.example.com", "https://kheish.example.com/", "*", "null"] {
        let outcome = doctor(&home, &daemon, &["--cors-origin", bad]);
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.stderr.starts_with("Error: --cors-origin: "), "{outcome:?}");
    }
    daemon.stop();
}

#[test]
fn a_lock_that_was_removed_or_replaced_is_lost() {
    let home = Home::new("doctor-lock", None);
    let daemon = home.start();
    let lock = home.root().join("daemon.lock");
    fs::remove_file(&lock).expect("the daemon's own file");
    let lost = eventually("a lost lock", || {
        let outcome = doctor(&home, &daemon, &[]);
        outcome.found().contains(&"state_root_lock_lost".to_string()).then_some(outcome)
    });
    lost.assert_found(&["state_root_lock_lost"], "make sure that no other one uses the state root");
    assert_eq!(lost.report.pointer("/status/storage/ok"), Some(&json!(false)));
    daemon.stop();
}

#[test]
fn equal_tokens_and_a_token_file_that_is_gone_are_named() {
    let home = Home::new("doctor-tokens", None);
    let second = home.join("readonly.token");
    let write = |text: &str| {
        let next = home.join("readonly.token.next");
        fs::write(&next, text).expect("a file of the test");
        fs::set_permissions(&next, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its mode");
        fs::rename(&next, &second).expect("an atomic change");
    };
    write("read-only-token-of-a-test-0123456789");
    let daemon = home.serve().options(&["--http-readonly-token-file", second.to_str().expect("UTF-8")]).start();
    doctor(&home, &daemon, &[]).assert_well();
    // A read-only token is enough to ask.
    command(&daemon.base_url(), &second, &["doctor"]).assert_well();
    write(TOKEN);
    let equal = eventually("equal tokens", || {
        let outcome = doctor(&home, &daemon, &[]);
        (outcome.code != 0).then_some(outcome)
    });
    assert!(equal.found().contains(&"control_plane_duplicate_token".to_string()), "{equal:?}");
    assert_eq!(equal.code, 1);
    assert!(
        equal.stderr.contains("control_plane_duplicate_token") && equal.stderr.contains("mv FILE.next FILE"),
        "{equal:?}"
    );
    fs::remove_file(&second).expect("a file of the test");
    let gone = eventually("a token file that is gone", || {
        let outcome = doctor(&home, &daemon, &[]);
        let found = outcome.found();
        (found.contains(&"control_plane_token_unusable".to_string())
            && !found.contains(&"control_plane_duplicate_token".to_string()))
        .then_some(outcome)
    });
    assert_eq!(gone.code, 1, "{gone:?}");
    let file = second.to_str().expect("UTF-8");
    let named = gone.report["checks"].as_array().expect("checks").iter().any(|check| check["related_id"] == file);
    assert!(named, "{gone:?}");
    daemon.stop();
}

#[test]
fn a_root_that_cannot_be_written_is_named() {
    let home = Home::new("doctor-storage", None);
    let workspace = home.join("workspace");
    fs::create_dir_all(&workspace).expect("a directory of the test");
    let daemon = home.serve().workspace(&workspace).start();
    fs::rename(&workspace, home.join("elsewhere")).expect("a directory of the test");
    let lost = eventually("a failed probe", || {
        let outcome = doctor(&home, &daemon, &[]);
        (outcome.code != 0).then_some(outcome)
    });
    assert_eq!(lost.code, 1);
    assert!(lost.found().contains(&"storage_probe_failed".to_string()), "{lost:?}");
    assert!(lost.stderr.contains("storage_probe_failed") && lost.stderr.contains("; next: "), "{lost:?}");
    daemon.stop();
}

#[test]
fn a_route_without_its_key_is_named_with_the_command_that_sets_it() {
    let home = Home::with_slot("doctor-key", None);
    let daemon = home.start();
    let advice = "kheish-daemon secrets set openai.prod --provider openai";
    let missing = doctor(&home, &daemon, &[]);
    let expected = ["provider_route_not_ready", "provider_active_route_not_ready", "provider_readiness_error"];
    missing.assert_found(&expected, advice);
    let routes = command(&daemon.base_url(), home.token_file(), &["doctor", "routes", "--check-auth"]);
    assert_eq!(routes.code, 1, "{routes:?}");
    assert!(
        routes.stderr.contains("auth_ref_missing") || routes.stderr.contains("provider_route_not_ready"),
        "{routes:?}"
    );
    assert!(routes.stderr.contains(advice), "{routes:?}");
    daemon.set_key("sk-doctor-key-0123456789");
    doctor(&home, &daemon, &[]).assert_well();
    // Revoked without ever being leased is still usable; leased and revoked is not.
    let revoked = daemon.post("/v1/runtime/auth/slots/openai.prod/revoke", &Value::Null);
    assert_eq!(revoked.status, 200, "{revoked:?}");
    daemon.stop();
}

#[test]
fn what_keeps_the_status_away_decides_the_exit_code_and_the_rest_is_reported() {
    let home = Home::new("doctor-denied", None);
    let daemon = home.start();
    let wrong = home.join("wrong.token");
    fs::write(&wrong, "a-token-that-nobody-knows-0123456789").expect("a file of the test");
    let denied = command(&daemon.base_url(), &wrong, &["doctor"]);
    assert_eq!(denied.code, 4, "{denied:?}");
    assert_eq!(denied.found()[0], "daemon_status_unavailable", "{denied:?}");
    assert!(denied.report["status_error"].as_str().is_some_and(|text| text.contains("401")), "{denied:?}");
    assert_eq!(denied.report["readyz_reachable"], true, "{denied:?}");
    let nowhere = command("http://127.0.0.1:9", home.token_file(), &["doctor"]);
    assert_eq!(nowhere.code, 3, "{nowhere:?}");
    let expected = [
        "daemon_status_unavailable",
        "readyz_unreachable",
        "healthz_failed",
        "events_sse_unreachable",
        "cors_no_answer",
    ];
    assert_eq!(nowhere.found(), expected, "{nowhere:?}");
    let page = through(&home, &daemon, Fault::Answer("/v1/status", 200), &[]);
    assert_eq!(page.code, 8, "{page:?}");
    let busy = through(&home, &daemon, Fault::Answer("/v1/status", 503), &[]);
    assert_eq!(busy.code, 7, "{busy:?}");
    daemon.stop();
}

/// Every path of a document.
fn walk(value: &Value, path: String, paths: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                walk(member, format!("{path}/{}", name.replace('~', "~0").replace('/', "~1")), paths);
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                walk(item, format!("{path}/{at}"), paths);
            }
        }
        _ => {}
    }
    paths.push(path);
}

/// Whatever a check needs and does not find is an error, never good news.
#[test]
fn a_field_that_is_missing_fails_closed() {
    let home = Home::new("doctor-evidence", None);
    let daemon = home.start();
    let whole = daemon.get("/v1/status").json();
    let judge = |document: &Value| {
        let mut found = Findings::default();
        status::judge(document, &mut found);
        found.verdict()
    };
    assert!(judge(&whole).ok, "{:?}", judge(&whole));
    for path in [
        "/ready",
        "/control_plane",
        "/control_plane/auth_enabled",
        "/control_plane/externally_exposed_without_auth",
        "/control_plane/auth_duplicate_token",
        "/control_plane/auth_token_file_error_count",
        "/storage",
        "/storage/ok",
        "/storage/probes",
        "/storage/state_root_lock",
        "/storage/state_root_lock/held",
        "/provider_readiness",
        "/provider_readiness/routes",
        "/provider_readiness/active_route_ready",
        "/provider_readiness/error_route_count",
        "/runtime",
        "/runtime/route_diagnostics",
        "/runtime/route_id",
        "/runtime/debug_level",
        "/runs",
        "/runs/pending_approval_count",
        "/sessions/total",
        "/events",
        "/events/tail_event_id_cursor",
        "/events/writers",
        "/journal",
        "/journal/poisoned",
        "/health",
        "/health/ok",
    ] {
        let (parent, name) = path.rsplit_once('/').expect("a path");
        let remove = |spoil: &dyn Fn(&mut Value)| {
            let mut document = whole.clone();
            let parent = document.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent} in the status"));
            spoil(parent);
            judge(&document)
        };
        let gone = remove(&|parent| drop(parent.as_object_mut().expect("an object").remove(name)));
        assert!(!gone.ok, "without {path}");
        let mistyped = remove(&|parent| parent[name] = json!({"no": "such type"}));
        assert!(!mistyped.ok, "{path} of another type");
    }
    for (path, value, code) in [
        ("/ready", json!(false), "daemon_not_ready"),
        ("/control_plane/externally_exposed_without_auth", json!(true), "control_plane_exposed"),
        ("/storage/probes", json!([]), "storage_probe_missing"),
        ("/storage/ok", json!(false), "storage_not_ok"),
        ("/storage/state_root_lock/held", json!(false), "state_root_lock_lost"),
        ("/provider_readiness/active_route_ready", json!(false), "provider_active_route_not_ready"),
        ("/provider_readiness/error_route_count", json!(1), "provider_route_not_ready"),
        ("/provider_readiness/routes/0/state", json!("odd"), "provider_route_not_ready"),
        ("/events/writers/0/alive", json!(false), "events_writer_dead"),
        ("/journal/poisoned", json!(true), "journal_poisoned"),
        ("/health/ok", json!(false), "evidence_missing"),
        (
            "/runtime/route_diagnostics",
            json!([{"severity": "error", "code": "c", "message": "m"}]),
            "route_diagnostic_error",
        ),
        (
            "/health/warnings",
            json!([{"severity": "error", "code": "storage_full", "message": "m", "action": "a"}]),
            "storage_full",
        ),
    ] {
        let mut document = whole.clone();
        match document.pointer_mut(path) {
            Some(place) => *place = value.clone(),
            None => document["health"]["warnings"] = value.clone(),
        }
        let verdict = judge(&document);
        let codes: Vec<&str> = verdict.failures().map(|check| check.code.as_str()).collect();
        assert!(codes.contains(&code), "{path} = {value}: {codes:?}");
    }
    // Whatever stands anywhere, the judgement comes to its end.
    let mut paths = Vec::new();
    walk(&whole, String::new(), &mut paths);
    assert!(paths.len() > 200, "{}", paths.len());
    for path in &paths {
        for odd in [Value::Null, json!(-1), json!("\u{1b}[2J"), json!([[]]), json!({"": {}}), json!(true)] {
            let mut document = whole.clone();
            *document.pointer_mut(path).expect("it was there") = odd;
            let _came_to_its_end = judge(&document);
        }
    }
    let mut hooked = whole.clone();
    hooked["hooks"] = json!({
        "supported": true,
        "configured_count": 4,
        "diagnostics": [{"severity": "error", "hook": "tool:check", "message": "no URL"}],
        "http_targets": [
            {"hook": "run:notify", "host": "a.example", "state": "error", "message": "leads to 10.0.0.1"},
            {"hook": "run:other", "host": "b.example", "state": "warning", "message": "no such name"},
            {"hook": "run:good", "host": "c.example", "state": "ok"}
        ]
    });
    let verdict = judge(&hooked);
    let codes: Vec<&str> = verdict
        .checks
        .iter()
        .filter(|check| check.name.starts_with("hooks"))
        .map(|check| check.code.as_str())
        .collect();
    assert_eq!(codes, ["hook_invalid", "hook_target_private", "hook_target_unresolved"]);
    for (group, ok) in [
        (json!({"supported": false, "configured_count": 0}), true),
        (json!({"supported": true, "configured_count": 0}), true),
        (json!({"supported": true, "configured_count": 1, "diagnostics": [], "http_targets": []}), true),
        (json!({"supported": true, "configured_count": 1}), false),
        (json!({"supported": true, "configured_count": 1, "diagnostics": []}), false),
        (json!({"supported": true}), false),
        (json!("none"), false),
    ] {
        hooked["hooks"] = group.clone();
        assert_eq!(judge(&hooked).ok, ok, "{group}");
    }
    daemon.stop();
}

#[test]
fn a_probe_stream_shows_its_own_frames_and_nothing_else() {
    let provider = Provider::start("[default]\ntext = \"a secret of the session\"\n");
    let home = Home::new("doctor-probe", Some(&provider));
    let daemon = home.start();
    let (mine, other) = ("mine-0123456789abcdef", "other-0123456789abcdef");
    let mut streams: Vec<EventStream> = [
        format!("/v1/events/stream?probe={mine}"),
        format!("/v1/sessions/nobody/stream?probe={mine}"),
        format!("/v1/runs/run-99/stream?probe={mine}&cursor=0"),
        format!("/v1/events/stream?probe={other}"),
    ]
    .iter()
    .map(|target| daemon.stream(target))
    .collect();
    for stream in &mut streams {
        let first = stream.next().expect("a frame at once");
        assert_eq!(first.event, "probe");
        assert_eq!(first.json()["event_id"], first.id.expect("the tail as an id").to_string());
    }
    daemon.create_session("talking");
    let run = daemon.submit("talking", "hello");
    assert_eq!(daemon.wait_end(&run), "completed");
    let ask = |nonce: &str| daemon.get(&format!("/v1/events/probe?nonce={nonce}"));
    assert_eq!(ask(mine).status, 200);
    for stream in &mut streams[..3] {
        let frame = stream.next().expect("the frame that was asked for");
        let data = json!({"type": "probe", "nonce": mine, "phase": "asked"});
        assert_eq!((frame.id, frame.event.as_str(), frame.json()), (None, "probe", data));
    }
    assert_eq!(ask(other).status, 200);
    assert_eq!(streams[3].next().expect("its own frame").json()["nonce"], other);
    for bad in ["short", "", "with%20blank-0123456789", &"x".repeat(65)] {
        assert_eq!(ask(bad).status, 400, "{bad:?}");
        assert_eq!(daemon.get(&format!("/v1/events/stream?probe={bad}")).status, 400, "{bad:?}");
    }
    let mut nobody = Client::connect(daemon.address, "no-token-of-this-daemon-0123456789").expect("it accepts");
    let refused = nobody.request("GET", &format!("/v1/events/probe?nonce={mine}"), &[], "").expect("an answer");
    assert_eq!(refused.status, 401);
    // Nobody listens: the answer is the same, so it does not tell which names are in use.
    assert_eq!(ask("nobody-listens-to-this").status, 200);
    daemon.stop();
}
