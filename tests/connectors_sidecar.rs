//! Sidecars through the real daemon: rotation as the runbook has it, restarts, and that nothing outlives the daemon.

#[path = "connectors_support/mod.rs"]
mod connectors_support;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
#[path = "support/port.rs"]
mod port;
#[path = "support/skip.rs"]
mod skip;

use std::net::TcpStream;
use std::process::Command;

use connectors_support::{hmac_hex, hold, put, start};
use daemon::{Daemon, Home, Provider, eventually};
use http::Client;
use port::Port;
use serde_json::{Value, json};
use skip::skip;

const SHARED: &str = "shared-token-of-a-test";

/// Which program the sidecar is.
#[derive(Clone, Copy, PartialEq)]
enum Adapter {
    Python,
    Native,
}

impl Adapter {
    /// Both, as far as this host has them.
    fn all(test: &str) -> Vec<Self> {
        let python = Command::new("/usr/bin/python3").arg("--version").output();
        if !python.is_ok_and(|output| output.status.success()) {
            skip(test, "there is no /usr/bin/python3, so only the native adapter is tried");
            return vec![Self::Native];
        }
        vec![Self::Python, Self::Native]
    }

    fn command(self) -> Value {
        match self {
            Self::Python => json!({"command": "python3", "args": ["connectors/python/run_connector.py", "webhook"]}),
            Self::Native => json!({"command": env!("CARGO_BIN_EXE_kheish-daemon"), "args": ["connector", "webhook"]}),
        }
    }
}

fn set(home: &Home, daemon: &Daemon, slot: &str, value: &str) {
    home.cli_json(daemon, &["secrets", "set", slot, "--provider", "generic", "--value", value]);
}

fn routes(secret: &str) -> String {
    json!({"demo": {"secret": secret, "allowed_events": ["push"]}}).to_string()
}

fn config(adapter: Adapter, port: &Port) -> Value {
    let mut child = adapter.command();
    child["credential_slots"] = json!({"WEBHOOK_ROUTES_JSON": "sidecars.webhook.routes"});
    json!({"platform": "webhook", "mode": "child_process", "base_url": format!("http://{}", port.address()),
        "shared_token": {"secret_ref": "sidecars.webhook.shared"}, "session_policy": {"create_if_missing": true},
        "child_process": child})
}

fn process(daemon: &Daemon) -> Value {
    daemon.get("/v1/runtime/connectors/external/ops-webhook").json()["process"].clone()
}

/// Waits for a ready sidecar of another generation than `before`.
fn ready(daemon: &Daemon, before: u64) -> Value {
    eventually("a ready sidecar", || {
        let process = process(daemon);
        let is_new = process["generation"].as_u64().is_some_and(|generation| generation > before);
        (is_new && process["state"] == "ready").then_some(process)
    })
}

fn leases(daemon: &Daemon) -> Vec<String> {
    let subject = daemon.get("/v1/runtime/auth/subjects/connector:ops-webhook").json();
    serde_json::from_value(subject["active_connector_lease_ids"].clone()).unwrap_or_default()
}

/// Status and body of a signed webhook.
fn webhook(port: &Port, secret: &str, event: &str, delivery: &str, body: &str) -> (u16, Value) {
    let mut client = Client::connect(port.address(), "").expect("the sidecar accepts");
    let tag = format!("sha256={}", hmac_hex(secret, &[body.as_bytes()]));
    let headers = [("x-hub-signature-256", tag.as_str()), ("x-github-event", event), ("x-github-delivery", delivery)];
    let reply = client.request("POST", "/webhooks/demo", &headers, body).expect("the sidecar answers");
    (reply.status, reply.json())
}

fn prepare(test: &str, adapter: Adapter, port: &Port) -> (Home, Daemon) {
    let (home, daemon) = start(test, None);
    hold(&daemon);
    set(&home, &daemon, "sidecars.webhook.shared", SHARED);
    set(&home, &daemon, "sidecars.webhook.routes", &routes("whsec-number-one"));
    let reply = put(&daemon, "external", "ops-webhook", &config(adapter, port));
    assert_eq!(reply.status, 200, "{reply:?}");
    (home, daemon)
}

fn runs(daemon: &Daemon) -> usize {
    daemon.get("/v1/runs").json().as_array().expect("a list").len()
}

fn is_free(port: &Port) -> bool {
    TcpStream::connect(port.address()).is_err()
}

#[test]
fn a_rotated_credential_reaches_the_sidecar_with_a_new_lease_and_the_old_secret_is_dead() {
    for adapter in Adapter::all("a_rotated_credential") {
        let port = &Port::reserve();
        let (home, daemon) = prepare("sidecar-rotate", adapter, port);
        let first = ready(&daemon, 0);
        let old = leases(&daemon);
        assert_eq!(old, [first["lease_id"].as_str().expect("a lease").to_string()]);
        assert_eq!(webhook(port, "whsec-number-one", "other", "d-0", "{}"), (200, json!({"status": "ignored"})));
        assert_eq!(
            webhook(port, "whsec-number-two", "other", "d-0", "{}"),
            (401, json!({"error": "invalid signature"}))
        );

        set(&home, &daemon, "sidecars.webhook.routes", &routes("whsec-number-two"));
        let lease = home.cli_json(&daemon, &["runtime", "auth", "lease", &old[0]]);
        assert_eq!((&lease["revoked"], &lease["active"]), (&json!(true), &json!(false)));
        assert_eq!(lease["lease"].get("token_digest"), None);
        // The process keeps what it has read until it is replaced, and its view says so.
        eventually("stale credentials", || (process(&daemon)["credentials_stale"] == true).then_some(()));
        assert_eq!(put(&daemon, "external", "ops-webhook", &json!({})).status, 200);
        let second = ready(&daemon, first["generation"].as_u64().expect("a number"));
        assert_ne!(second["instance_id"], first["instance_id"]);
        let new = leases(&daemon);
        assert!(new.len() == 1 && new != old, "{new:?} {old:?}");
        assert_eq!(webhook(port, "whsec-number-one", "push", "d-1", "{}").0, 401);
        assert_eq!(webhook(port, "whsec-number-two", "other", "d-1", "{}"), (200, json!({"status": "ignored"})));
        assert_eq!(runs(&daemon), 0, "neither made a run");
        let (status, answer) = webhook(port, "whsec-number-two", "push", "d-2", r#"{"ref":"main"}"#);
        assert_eq!((status, &answer["status"]), (200, &json!("accepted")), "{answer}");
        let again = webhook(port, "whsec-number-two", "push", "d-2", r#"{"ref":"main"}"#);
        assert_eq!((again.0, runs(&daemon)), (200, 1), "a webhook that is sent again makes no second run");

        let revoked = home.cli_json(&daemon, &["runtime", "auth", "revoke-slot", "sidecars.webhook.routes"]);
        assert_eq!(revoked["revoked_leases"], json!(1));
        let lease = home.cli_json(&daemon, &["runtime", "auth", "lease", &new[0]]);
        assert_eq!((&lease["revoked"], &lease["active"]), (&json!(true), &json!(false)));
        eventually("the end of the sidecar that held it", || is_free(port).then_some(()));
        home.cli_json(&daemon, &["connectors", "delete", "external", "ops-webhook"]);
        eventually("a free port", || is_free(port).then_some(()));
        assert_eq!(leases(&daemon), Vec::<String>::new());
        for slot in ["sidecars.webhook.routes", "sidecars.webhook.shared"] {
            home.cli_json(&daemon, &["secrets", "delete", slot]);
        }
        let log = daemon.stop();
        assert!(!log.contains("whsec-number") && !log.contains(SHARED), "{log}");
    }
}

#[test]
fn a_revoked_slot_ends_the_sidecar_that_has_read_it_and_blocks_the_next_one_until_it_is_set() {
    let port = &Port::reserve();
    let (home, daemon) = prepare("sidecar-revoke", Adapter::Native, port);
    let number = |process: &Value| process["generation"].as_u64().expect("a number");
    let first = ready(&daemon, 0);
    // Leaked, with nothing to go on with: the process ends, and no other one is started.
    home.cli_json(&daemon, &["runtime", "auth", "revoke-slot", "sidecars.webhook.routes", "--dry-run"]);
    assert_eq!(process(&daemon)["state"], "ready", "a dry run ends nothing");
    home.cli_json(&daemon, &["runtime", "auth", "revoke-slot", "sidecars.webhook.routes"]);
    let blocked = eventually("a blocked connector", || {
        let process = process(&daemon);
        (process["state"] == "blocked" && is_free(port)).then_some(process)
    });
    assert_eq!(number(&blocked), number(&first));
    assert!(blocked["last_error"].as_str().is_some_and(|text| text.contains("secrets set sidecars.webhook.routes")));
    assert_eq!(leases(&daemon), Vec::<String>::new());
    // A put does not get around it.
    assert_eq!(put(&daemon, "external", "ops-webhook", &json!({})).status, 200);
    assert_eq!(process(&daemon)["state"], "blocked");
    set(&home, &daemon, "sidecars.webhook.routes", &routes("whsec-number-two"));
    let second = ready(&daemon, number(&first));
    assert_eq!(number(&second), number(&first) + 1, "nothing was tried in between");
    assert_eq!(webhook(port, "whsec-number-two", "other", "d-1", "{}").0, 200);

    // The other order: set, then revoke. The process that holds the former secret is replaced.
    set(&home, &daemon, "sidecars.webhook.routes", &routes("whsec-number-three"));
    eventually("stale credentials", || (process(&daemon)["credentials_stale"] == true).then_some(()));
    let revoked = home.cli_json(&daemon, &["runtime", "auth", "revoke-slot", "sidecars.webhook.routes"]);
    assert_eq!(revoked["blocked"], json!(false));
    let third = ready(&daemon, number(&second));
    assert_eq!(webhook(port, "whsec-number-two", "other", "d-2", "{}").0, 401);
    assert_eq!(webhook(port, "whsec-number-three", "other", "d-2", "{}").0, 200);
    // The present secret stays, and whoever holds it.
    let args = ["runtime", "auth", "revoke-slot", "sidecars.webhook.routes", "--keep-current"];
    home.cli_json(&daemon, &args);
    // A lease that is revoked by its id is replaced with its process.
    let lease = third["lease_id"].as_str().expect("a lease").to_string();
    assert_eq!(leases(&daemon), std::slice::from_ref(&lease));
    home.cli_json(&daemon, &["runtime", "auth", "revoke-lease", &lease]);
    let fourth = ready(&daemon, number(&third));
    assert_eq!(number(&fourth), number(&third) + 1);
    assert_ne!(leases(&daemon), [lease]);

    // The shared token is a credential that the process holds as well.
    home.cli_json(&daemon, &["runtime", "auth", "revoke-slot", "sidecars.webhook.shared"]);
    eventually("the end", || (process(&daemon)["state"] == "blocked" && is_free(port)).then_some(()));
    set(&home, &daemon, "sidecars.webhook.shared", "another-shared-token-of-a-test");
    ready(&daemon, number(&fourth));
    daemon.stop();
}

/// The commands of the runbook, as written but for the binary's path, the ports, the token's path and the lease.
#[test]
fn the_runbooks_rotation_of_a_connector_runs_as_written() {
    if !Adapter::all("the_runbooks_rotation").contains(&Adapter::Python) {
        return;
    }
    let port = &Port::reserve();
    let (home, daemon) = start("sidecar-runbook", None);
    set(&home, &daemon, "sidecars.webhook.shared", SHARED);
    let script = include_str!("data/runbooks/connectors.sh");
    let mut lease = String::new();
    let mut answers = Vec::new();
    for block in script.split("\n\n") {
        let lines: Vec<&str> = block.lines().filter(|line| !line.starts_with('#')).collect();
        let text = lines
            .join("\n")
            .replace("./target/debug/kheish-daemon", env!("CARGO_BIN_EXE_kheish-daemon"))
            .replace("http://127.0.0.1:4000", &daemon.base_url())
            .replace("/run/secrets/kheish-admin-token", &home.token_file().display().to_string())
            .replace("<port>", &port.number().to_string())
            .replace("<lease_id>", &lease);
        if text.contains("runtime auth subject") {
            ready(&daemon, 0);
        }
        let mut shell = Command::new("sh");
        shell.args(["-c", &text]).env_clear().env("WEBHOOK_ROUTES_JSON", routes("whsec-number-one"));
        let output = shell.output().expect("a shell");
        assert!(output.status.success(), "{text}: {output:?}");
        let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        if let Some(id) = answer["active_connector_lease_ids"][0].as_str() {
            lease = id.to_string();
        }
        answers.push(answer);
    }
    assert_eq!(answers.len(), 5);
    assert_eq!(answers[1]["warnings"], json!(["new_conversations_are_refused"]));
    assert_eq!(answers[2]["active_connector_lease_ids"], json!([lease]));
    assert_eq!((&answers[3]["active"], &answers[3]["revoked"]), (&json!(true), &json!(false)));
    assert_eq!(answers[4]["revoked_leases"], json!(1));
    daemon.stop();
    assert!(is_free(port));
}

#[test]
fn what_a_webhook_made_is_delivered_back_through_its_sidecar() {
    let provider = Provider::start("");
    for adapter in Adapter::all("what_a_webhook_made_is_delivered") {
        let port = &Port::reserve();
        let (home, daemon) = start("sidecar-deliver", Some(&provider));
        set(&home, &daemon, "sidecars.webhook.shared", SHARED);
        set(&home, &daemon, "sidecars.webhook.routes", &routes("whsec-number-one"));
        let place = daemon::Place::new("sidecar-capture");
        let folder = place.join("captured");
        std::fs::create_dir(&folder).expect("a folder");
        let mut config = config(adapter, port);
        let child = &mut config["child_process"];
        let script = std::env::current_dir().expect("a directory").join("connectors/python/run_connector.py");
        if adapter == Adapter::Python {
            child["args"] = json!([script, "webhook"]);
        }
        child["working_dir"] = json!(folder);
        child["working_dir_writable"] = json!(true);
        let programs = [script.parent(), std::path::Path::new(env!("CARGO_BIN_EXE_kheish-daemon")).parent()];
        child["read_only_paths"] = json!(programs);
        child["env"] = json!({"KHEISH_EXTERNAL_CONNECTOR_DELIVERY_CAPTURE_PATH": folder.join("deliveries.jsonl")});
        let reply = put(&daemon, "external", "ops-webhook", &config);
        assert_eq!(reply.status, 200, "{reply:?}");
        ready(&daemon, 0);
        assert_eq!(webhook(port, "whsec-number-one", "push", "d-1", r#"{"ref":"main"}"#).0, 200);
        let run = daemon.get("/v1/runs").json()[0]["run_id"].as_str().expect("a run").to_string();
        assert_eq!(daemon.wait_end(&run), "completed");
        let delivered = eventually("the delivery", || {
            let list = home.cli_json(&daemon, &["deliveries", "list", "--run-id", &run]);
            (list[0]["status"] == "delivered").then(|| list[0].clone())
        });
        assert_eq!((&delivered["plugin"], &delivered["attempts"]), (&json!("external"), &json!(1)), "{delivered}");
        let captured = std::fs::read_to_string(folder.join("deliveries.jsonl")).expect("captured");
        let captured: Value = serde_json::from_str(captured.trim()).expect("one delivery");
        assert_eq!(captured["reply_route"], json!("{}"), "{captured}");
        // Without a turn that matches, the scripted model says what it was told.
        assert!(captured["content"].as_str().is_some_and(|text| text.contains("main")), "{captured}");
        home.cli_json(&daemon, &["connectors", "delete", "external", "ops-webhook"]);
        daemon.stop();
    }
}

#[test]
fn a_sidecar_that_dies_is_started_again_and_one_that_cannot_start_says_why() {
    let port = &Port::reserve();
    let (_home, daemon) = prepare("sidecar-dies", Adapter::Native, port);
    let first = ready(&daemon, 0);
    let mut broken = config(Adapter::Native, port);
    broken["child_process"]["args"] = json!(["connector", "nonsense"]);
    assert_eq!(put(&daemon, "external", "ops-webhook", &broken).status, 200);
    let process = eventually("a reason", || {
        let process = process(&daemon);
        process["last_error"].is_string().then_some(process)
    });
    assert!(process["last_error"].as_str().is_some_and(|text| text.contains("exit code")), "{process}");
    eventually("a warning", || {
        let status = daemon.get("/v1/status").json();
        let warnings = status["health"]["warnings"].as_array().cloned().unwrap_or_default();
        warnings.iter().any(|warning| warning["code"] == "connector_process_crash_looping").then_some(())
    });
    assert!(self::process(&daemon)["restarts"].as_u64().is_some_and(|restarts| restarts >= 3));
    assert!(leases(&daemon).len() <= 1);
    // A corrected configuration does not wait for the pause to pass.
    assert_eq!(put(&daemon, "external", "ops-webhook", &config(Adapter::Native, port)).status, 200);
    ready(&daemon, first["generation"].as_u64().expect("a number"));
    daemon.stop();
    assert!(is_free(port));
}

#[test]
fn nothing_of_a_sidecar_outlives_a_killed_daemon_and_the_next_one_starts_it_again() {
    for adapter in Adapter::all("nothing_of_a_sidecar_outlives") {
        let port = &Port::reserve();
        let (home, daemon) = prepare("sidecar-kill", adapter, port);
        ready(&daemon, 0);
        daemon.kill();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(25);
        eventually("the end of the sidecar", || is_free(port).then_some(()));
        assert!(std::time::Instant::now() < deadline, "it outlived the daemon by more than five times the limit");
        let daemon = home.start();
        ready(&daemon, 0);
        assert_eq!(webhook(port, "whsec-number-one", "other", "d", "{}").0, 200);
        daemon.stop();
        assert!(is_free(port), "a daemon that stops takes its sidecars along");
    }
}

#[test]
fn a_sidecar_holds_its_own_credentials_only_and_sees_nothing_of_the_daemon() {
    let port = &Port::reserve();
    let (home, daemon) = start("sidecar-walls", None);
    set(&home, &daemon, "sidecars.webhook.shared", SHARED);
    // It writes its environment and what it can see of the state root, and ends.
    let root = home.root();
    let script = format!("env; ls {} ; cat {}; echo ended", root.display(), home.token_file().display());
    let config = json!({"platform": "x", "mode": "child_process", "base_url": format!("http://{}", port.address()),
        "shared_token": {"secret_ref": "sidecars.webhook.shared"},
        "child_process": {"command": "/bin/sh", "args": ["-c", script], "env": {"PLAIN": "value"}}});
    assert_eq!(put(&daemon, "external", "ops-webhook", &config).status, 200);
    let error = eventually("its end", || {
        let process = process(&daemon);
        process["last_error"].as_str().filter(|text| text.contains("ended")).map(str::to_string)
    });
    assert!(error.contains("it wrote last: ended"), "{error}");
    let (_, shown, _) = home.cli(&daemon, &["connectors", "get", "external", "ops-webhook"]);
    assert!(!shown.contains(SHARED) && !shown.contains(daemon::TOKEN), "{shown}");
    assert!(!shown.contains("global-slots") && !shown.contains("KHEISH_AUTH_STORE_MASTER_KEY"), "{shown}");
    // A place that would show the state root is refused.
    let config = json!({"child_process": {"command": "true", "working_dir": root.parent().expect("a parent")}});
    assert_eq!(put(&daemon, "external", "ops-webhook", &config).status, 200);
    eventually("the refusal", || {
        let error = process(&daemon)["last_error"].to_string();
        error.contains("would be shown to the sidecar").then_some(())
    });
    daemon.stop();
}

#[test]
fn a_credential_is_given_to_the_holder_of_the_live_token_and_to_nobody_else() {
    let port = &Port::reserve();
    let (home, daemon) = start("sidecar-credential", None);
    set(&home, &daemon, "sidecars.webhook.shared", SHARED);
    set(&home, &daemon, "sidecars.webhook.routes", &routes("whsec-number-one"));
    assert_eq!(put(&daemon, "external", "ops-webhook", &config(Adapter::Native, port)).status, 200);
    ready(&daemon, 0);
    let ask = |name: &str, key: &str, token: &str| {
        let bearer = format!("Bearer {token}");
        let target = format!("/v1/connectors/external/{name}/credentials/{key}");
        let headers = [("authorization", bearer.as_str())];
        connectors_support::unauthenticated(&daemon).request("GET", &target, &headers, "").expect("an answer").refusal()
    };
    let refused = (401, "credential_refused".to_string());
    assert_eq!(ask("ops-webhook", "WEBHOOK_ROUTES_JSON", "guess"), refused);
    assert_eq!(ask("ops-webhook", "WEBHOOK_ROUTES_JSON", SHARED), refused, "the shared token is no lease");
    assert_eq!(ask("ops-webhook", "WEBHOOK_ROUTES_JSON", daemon::TOKEN), refused, "nor is the admin's");
    assert_eq!(ask("ops-webhook", "OTHER", "guess"), (404, "credential_unknown".to_string()));
    assert_eq!(ask("nobody", "OTHER", "guess"), (404, "connector_unknown".to_string()));
    daemon.stop();
}
