//! `doctor routes` against the real daemon: canaries on every wire format, stale references, drift, credentials.
//! Owns: code, exit status and advice of each finding about routes that can be brought about.
//! Never: calls anything but the scripted provider.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use std::fs;

use daemon::{Daemon, Home, Place, Provider};
use serde_json::{Value, json};

const DRIVERS: [(&str, &str, &str); 6] = [
    ("openai", "gpt-5.4", "/v1"),
    ("openai_compatible", "qwen3:8b", "/v1"),
    ("anthropic", "claude-opus-4-8", ""),
    ("google", "gemini-3-pro", "/v1beta"),
    ("openrouter", "vendor/model", "/v1"),
    ("xai", "grok-5", "/v1"),
];

const OBEDIENT: &str =
    "[[turn]]\nmatch = \"KHEISH_ROUTE_CANARY_OK\"\ntext = \" KHEISH_ROUTE_CANARY_OK\\n\"\nchunk_chars = 3\n";

fn routes_of(provider: &Provider, names: &[&str]) -> String {
    let mut text = format!("version = 1\ndefault_route = \"{}\"\n", names[0]);
    for name in names {
        let (driver, model, path) = DRIVERS.into_iter().find(|(driver, ..)| driver == name).expect("a driver");
        let address = provider.address;
        text.push_str(&format!(
            "[routes.{name}]\ndriver = \"{driver}\"\ndefault_model = \"{model}\"\nmodel_support = \"any\"\n\
             base_url = \"http://{address}{path}\"\n"
        ));
    }
    text
}

fn home(test: &str, provider: &Provider, names: &[&str]) -> Home {
    Home::with_routes(Place::new(test), &routes_of(provider, names))
}

/// Exit code, report, last line of standard error.
fn doctor_routes(home: &Home, daemon: &Daemon, args: &[&str]) -> (i32, Value, String) {
    let (code, stdout, stderr) = home.cli(daemon, &[&["--output", "json", "doctor", "routes"], args].concat());
    let report = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
    (code, report, stderr.lines().last().unwrap_or_default().to_string())
}

fn codes(report: &Value) -> Vec<&str> {
    report["diagnostics"].as_array().expect("a list").iter().map(|one| one["code"].as_str().expect("a code")).collect()
}

fn canaries(report: &Value) -> Vec<(&str, &str)> {
    let canaries = report["canaries"].as_array().expect("canaries").iter();
    canaries
        .map(|one| (one["route_id"].as_str().expect("a route"), one["status"].as_str().expect("a status")))
        .collect()
}

fn session_of(daemon: &Daemon, canary: &Value) -> Value {
    let reply = daemon.get(&format!("/v1/sessions/{}", canary["session_id"].as_str().expect("a session")));
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

#[test]
fn a_canary_passes_on_each_wire_format_and_leaves_an_ended_session() {
    let provider = Provider::start(OBEDIENT);
    let names = DRIVERS.map(|(driver, ..)| driver);
    let home = home("canary-all", &provider, &names);
    let daemon = home.start();
    let (code, report, line) = doctor_routes(&home, &daemon, &["--canary"]);
    assert_eq!((code, line.as_str()), (0, ""), "{report}");
    let mut expected = names.map(|name| (name, "passed")).to_vec();
    expected.sort_unstable();
    assert_eq!(canaries(&report), expected);
    assert_eq!(report["diagnostics"], json!([]));
    for canary in report["canaries"].as_array().expect("canaries") {
        let session = session_of(&daemon, canary);
        assert_eq!((&session["ended"], &session["run_count"]), (&json!(true), &json!(1)), "{session}");
        let run = daemon.run(canary["run_id"].as_str().expect("a run"));
        assert_eq!(run["status"], "completed");
        let request = &run["request"];
        assert_eq!((&request["source_plugin"], &request["source_kind"]), (&json!("doctor"), &json!("route_canary")));
        assert_eq!(run["input_metadata"], json!({"doctor_route_canary": true, "route_id": canary["route_id"]}));
        assert_eq!(request["provider"], canary["route_id"]);
    }
    // Only the route that was asked for, once more: no name is used twice.
    let (code, report, _) =
        doctor_routes(&home, &daemon, &["--route", "google", "--canary", "--canary-timeout-ms", "30000"]);
    assert_eq!((code, canaries(&report)), (0, vec![("google", "passed")]), "{report}");
    daemon.stop();
}

#[test]
fn a_canary_that_fails_says_why_and_cleans_up_all_the_same() {
    let script = "[default]\ntext = \"Of course: KHEISH_ROUTE_CANARY_OK, and good luck\"\n";
    let chatty = Provider::start(script);
    let denied = Provider::start("[default]\nerror = { status = 401, message = \"Incorrect API key provided\" }\n");
    let silent = Provider::start("[default]\ntext = \"x\"\nfault = { kind = \"hang\" }\n");
    let mut routes = routes_of(&chatty, &["openai"])
        .replace("routes.openai", "routes.chatty")
        .replace("\"openai\"\n[", "\"chatty\"\n[");
    for (name, provider) in [("denied", &denied), ("silent", &silent)] {
        routes.push_str(&format!(
            "[routes.{name}]\ndriver = \"openai\"\ndefault_model = \"gpt-5.4\"\nmodel_support = \"any\"\n\
             base_url = \"http://{}/v1\"\n",
            provider.address
        ));
    }
    let home = Home::with_routes(Place::new("canary-fails"), &routes);
    let daemon = home.start();
    let (code, report, line) = doctor_routes(&home, &daemon, &["--canary", "--canary-timeout-ms", "1500"]);
    assert_eq!(code, 1, "{report}");
    assert_eq!(canaries(&report), [("chatty", "failed"), ("denied", "failed"), ("silent", "timeout")]);
    assert_eq!(codes(&report), ["route_canary_failed", "route_canary_failed", "route_canary_timeout"]);
    let messages = report["errors"].to_string();
    assert!(messages.contains("good luck") && messages.contains("was cancelled"), "{messages}");
    assert!(
        line.contains("route_canary_failed, route_canary_timeout")
            && line.contains("next: kheish-daemon runs events run-"),
        "{line}"
    );
    for canary in report["canaries"].as_array().expect("canaries") {
        assert_eq!(session_of(&daemon, canary)["ended"], true, "{canary}");
        let status = daemon.wait_end(canary["run_id"].as_str().expect("a run"));
        assert!(["completed", "failed", "cancelled"].contains(&status.as_str()), "{status}");
    }
    // Nothing to run on: no canary, and no good news either.
    let (code, report, line) = doctor_routes(&home, &daemon, &["--route", "nobody", "--canary"]);
    assert_eq!((code, codes(&report)), (1, vec!["route_not_found"]), "{report}");
    assert!(line.contains("doctor routes, which lists them"), "{line}");
    daemon.stop();
}

#[test]
fn what_names_a_route_that_is_gone_is_found_with_the_command_that_mends_it() {
    let provider = Provider::start(OBEDIENT);
    let home = home("stale", &provider, &["openai", "xai"]);
    let daemon = home.serve().options(&["--hold"]).start();
    for session in ["kept", "stale", "ended"] {
        daemon.create_session(session);
    }
    let submit = |session: &str, route: &str| {
        let body = json!({"content": "hello", "provider": route});
        let reply = daemon.post(&format!("/v1/sessions/{session}/runs"), &body);
        assert_eq!(reply.status, 202, "{reply:?}");
        reply.json()["run_id"].as_str().expect("a run").to_string()
    };
    let (_kept, stale, cancelled) = (submit("kept", "openai"), submit("stale", "xai"), submit("stale", "xai"));
    let cancel = |run: &str| assert_eq!(daemon.post(&format!("/v1/runs/{run}/cancel"), &Value::Null).status, 200);
    cancel(&cancelled);
    for session in ["stale", "ended"] {
        home.cli_json(&daemon, &["sessions", "set-route", session, "--route", "xai"]);
    }
    assert_eq!(daemon.post("/v1/sessions/ended/end", &Value::Null).status, 200);
    home.cli_json(&daemon, &["runtime", "set-model", "grok-5", "--route", "xai"]);
    let (code, report, _) = doctor_routes(&home, &daemon, &["--check-references"]);
    assert_eq!((code, &report["diagnostics"], &report["reference_checked"]), (0, &json!([]), &json!(true)), "{report}");
    daemon.stop();

    fs::write(home.join("routes.toml"), routes_of(&provider, &["openai"])).expect("our own file");
    let daemon = home.serve().options(&["--hold"]).start();
    let (code, report, line) = doctor_routes(&home, &daemon, &["--check-references"]);
    assert_eq!(code, 1, "{report}");
    let found: Vec<(&str, &str)> = report["diagnostics"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| (one["code"].as_str().expect("a code"), one["action"].as_str().expect("an action")))
        .collect();
    let run_action = format!("kheish-daemon runs cancel {stale}, or put route xai back");
    assert_eq!(
        found,
        [
            ("stale_runtime_route", "kheish-daemon runtime set-model --reset"),
            ("stale_session_route_policy", "kheish-daemon sessions set-route stale --clear"),
            ("stale_run_route", run_action.as_str()),
        ],
        "an ended session and a cancelled run name nothing any more"
    );
    assert!(line.contains("runtime set-model --reset"), "{line}");
    // The advice works.
    home.cli_json(&daemon, &["runtime", "set-model", "--reset"]);
    home.cli_json(&daemon, &["sessions", "set-route", "stale", "--clear"]);
    home.cli_json(&daemon, &["runs", "cancel", &stale]);
    let (code, report, _) = doctor_routes(&home, &daemon, &["--check-references"]);
    assert_eq!((code, &report["diagnostics"]), (0, &json!([])), "{report}");
    daemon.stop();
}

#[test]
fn a_file_is_checked_as_serve_would_and_compared_with_what_is_loaded() {
    let provider = Provider::start(OBEDIENT);
    let home = home("drift", &provider, &["openai", "xai"]);
    let daemon = home.start();
    let loaded = home.join("routes.toml");
    let with_file = |path: &std::path::Path, args: &[&str]| {
        doctor_routes(&home, &daemon, &[&["--routes-file", path.to_str().expect("UTF-8")], args].concat())
    };
    let (code, report, _) = with_file(&loaded, &[]);
    assert_eq!((code, codes(&report), &report["source"]), (0, vec![], &json!("file")), "{report}");
    let (code, report, _) = with_file(&loaded, &["--check-auth", "--default-route", "xai"]);
    assert_eq!((code, codes(&report)), (0, vec!["auth_check_uses_running_daemon"]), "{report}");
    assert_eq!(report["default_route"], "xai");

    let other = home.join("other.toml");
    fs::write(&other, format!("{}# one more line\n", routes_of(&provider, &["openai", "xai"]))).expect("a file");
    let (code, report, _) = with_file(&other, &[]);
    assert_eq!((code, codes(&report)), (0, vec!["route_file_drift"]), "{report}");
    let digest = |path: &std::path::Path| {
        kheish_daemon::incident::manifest::sha256_hex(&fs::read(path).expect("a file"))[..16].to_string()
    };
    let message = report["warnings"][0].as_str().expect("a message");
    assert!(message.contains(&digest(&other)) && message.contains(&digest(&loaded)), "{message}");

    fs::write(&other, "version = 1\n[routes.a]\ndriver = \"openai\"\ndefault_modle = \"x\"\n").expect("a file");
    let (code, report, _) = with_file(&other, &[]);
    assert_eq!(code, 1);
    assert_eq!(codes(&report)[0], "route_file_invalid", "{report}");
    assert!(report["errors"].to_string().contains("line 4"), "{report}");
    let (code, report, line) = with_file(&home.join("nowhere.toml"), &[]);
    assert_eq!((code, codes(&report)[0]), (1, "route_file_read_failed"), "{report}");
    assert!(line.contains("check the path"), "{line}");
    for (option, expected) in [
        ("--check-references", "route_reference_check_requires_runtime"),
        ("--canary", "route_canary_requires_runtime"),
    ] {
        let (code, report, _) = with_file(&loaded, &[option]);
        assert_eq!((code, codes(&report)), (1, vec![expected]), "{report}");
    }
    let (code, stdout, stderr) = home.cli(&daemon, &["doctor", "routes", "--default-route", "xai"]);
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    daemon.stop();

    // Without a daemon the file alone is judged, and the report says what it could not compare.
    let path = loaded.to_str().expect("UTF-8");
    let (code, text) = home.command(&["--base-url", "http://127.0.0.1:9", "doctor", "routes", "--routes-file", path]);
    assert!(code == 0 && text.contains("route_file_drift_unchecked"), "{code}: {text}");
    let (code, text) =
        home.command(&["--base-url", "http://127.0.0.1:9", "doctor", "routes", "--routes-file", path, "--check-auth"]);
    assert!(code == 3 && text.contains("auth_check_failed"), "{code}: {text}");
}

#[test]
fn each_fault_of_a_slot_has_its_code_and_the_command_that_sets_it() {
    let provider = Provider::start(OBEDIENT);
    let home = Home::with_slot("slots", Some(&provider));
    let daemon = home.start();
    let set = |record: Value| {
        let reply = daemon.post("/v1/runtime/secrets", &record);
        assert_eq!(reply.status, 200, "{reply:?}");
    };
    let check = |expected: &str| {
        let (code, report, line) = doctor_routes(&home, &daemon, &["--check-auth"]);
        assert_eq!(code, 1, "{report}");
        assert!(codes(&report).contains(&expected), "{expected}: {report}");
        assert!(line.contains("kheish-daemon secrets set openai.prod --provider openai"), "{line}");
    };
    check("auth_ref_missing");
    set(
        json!({"slot_id": "openai.prod", "provider": "anthropic", "mode": "api_key", "state": {"api_key": "sk-ant-0123456789"}}),
    );
    check("auth_ref_provider_mismatch");
    daemon.set_key("sk-slots-0123456789");
    let (code, report, _) = doctor_routes(&home, &daemon, &["--check-auth"]);
    assert_eq!((code, &report["diagnostics"], &report["auth_checked"]), (0, &json!([]), &json!(true)), "{report}");
    assert!(!report.to_string().contains("sk-slots"), "{report}");
    // Leased once and revoked, the same key is not given out again, which a canary would meet as well.
    let (code, report, _) = doctor_routes(&home, &daemon, &["--canary"]);
    assert_eq!((code, canaries(&report)), (0, vec![("main", "passed")]), "{report}");
    assert_eq!(daemon.post("/v1/runtime/auth/slots/openai.prod/revoke", &Value::Null).status, 200);
    check("auth_ref_revoked");
    let (code, report, _) = doctor_routes(&home, &daemon, &["--canary"]);
    assert_eq!((code, canaries(&report)), (1, vec![("main", "failed")]), "{report}");
    assert!(report["canaries"][0].get("run_id").is_none(), "the run was refused: {report}");
    daemon.set_key("sk-slots-abcdefghij");
    let (code, report, _) = doctor_routes(&home, &daemon, &["--check-auth", "--canary"]);
    assert_eq!((code, canaries(&report)), (0, vec![("main", "passed")]), "{report}");
    daemon.stop();
}
