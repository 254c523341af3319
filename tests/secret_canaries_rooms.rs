//! Secrets of every room at once: approvals, questions, background commands, debug capture at full, deliveries, connectors with a
//! sidecar, MCP servers, a panic of nobody, evidence and a backup. Then everything that was written, sent, logged, shown or started is searched
//! for them in every encoding. What is given a plaintext by design is named here: the receivers of credentials, and the
//! environment of a process that is started with its own.

#[path = "connectors_support/mod.rs"]
mod connectors_support;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "delivery_support/mod.rs"]
mod delivery_support;
#[path = "support/http.rs"]
mod http;
#[path = "mcp_support/mod.rs"]
mod mcp_support;
#[path = "support/needles.rs"]
mod needles;
#[path = "support/port.rs"]
mod port;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use connectors_support::{hmac_hex, now_s, post, put, sign_http};
use daemon::{Daemon, Home, MASTER_KEY, Place, Provider, TOKEN, eventually};
use delivery_support::{Answer, Receiver};
use http::Client;
use mcp_support::{BearerServer, SCRIPT, SECRET as MCP_BEARER};
use needles::{Needles, assert_processes_are_clean};
use port::Port;
use serde_json::{Value, json};

const ROUTE_KEY: &str = "route-canary-q7Zr2LxW9vBn4KtY";
const MCP_ENV: &str = "mcp-env-canary-h3Jd8MsP1cFg6RuA";
const SHARED: &str = "shared-canary-7YhN2bGt5VfR4EdC";
const WEBHOOK: &str = "webhook-canary-9xSw1ZaQ8UjM3kIo";
const INBOX: &str = "inbox-canary-6LpP5TgB7nHy2MjU";
const DELIVERY_BEARER: &str = "delivery-bearer-canary-3WsX6eDc9RfV";
const DELIVERY_HMAC: &str = "delivery-hmac-canary-1QaZ2wSx3EdC";
const SLACK_BOT: &str = "slack-canary-4RfV5tGb6YhN7uJm";
const TELEGRAM_BOT: &str = "123456:telegram-canary-8Ik9OlP0qWe";

const PLANTED: [(&str, &str); 12] = [
    ("route key", ROUTE_KEY),
    ("MCP variable", MCP_ENV),
    ("MCP bearer", MCP_BEARER),
    ("shared token", SHARED),
    ("webhook secret", WEBHOOK),
    ("inbox secret", INBOX),
    ("delivery bearer", DELIVERY_BEARER),
    ("delivery hmac", DELIVERY_HMAC),
    ("slack bot", SLACK_BOT),
    ("telegram bot", TELEGRAM_BOT),
    ("admin token", TOKEN),
    ("master key", MASTER_KEY),
];

/// All that a careless person, tool or peer could repeat, in the spellings in which it comes.
fn babble() -> String {
    let said = |secret: &str| {
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        let percent: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
        format!("{secret} {} {hex} {percent}", STANDARD.encode(secret))
    };
    // Nobody but the operator and the daemon's own files have these two.
    let told = PLANTED.iter().filter(|(name, _)| !["admin token", "master key"].contains(name));
    told.map(|(_, secret)| said(secret)).collect::<Vec<_>>().join(" ")
}

fn script() -> String {
    let quoted = |text: &str| serde_json::to_string(text).expect("a text is a TOML string as well");
    let mut script = String::new();
    let mut turn = |input: &str, call: Option<(&str, Value)>, text: &str| {
        if let Some((name, arguments)) = call {
            script.push_str(&format!(
                "[[turn]]\nmatch = \"{input}\"\ntimes = 1\ntext = {}\ntool_calls = [{{ name = \"{name}\", arguments = {} }}]\n",
                quoted(text),
                quoted(&arguments.to_string())
            ));
        }
        script.push_str(&format!("[[turn]]\nmatch = \"{input}\"\nchunk_chars = 7\ntext = {}\n", quoted(text)));
    };
    let babble = babble();
    let command = format!("echo '{babble}'; cat leak.txt; env; cat /proc/self/environ");
    turn("be allowed", Some(("bash", json!({"command": command}))), &babble);
    let question = json!({"questions": [{"id": "q", "question": format!("Is it {}?", &babble[..900])}]});
    turn("ask me", Some(("ask_user_question", question)), &babble);
    let background = json!({"command": format!("{command}; touch begun; sleep 1000"), "run_in_background": true});
    turn("stay behind", Some(("bash", background)), &babble);
    turn("use the child", Some(("mcp__local__env", json!({"why": babble}))), &babble);
    turn("use the web", Some(("mcp__web__hello", json!({"why": babble}))), &babble);
    turn("deliver", None, &babble);
    script
}

struct World {
    home: Home,
    workspace: Place,
    _web: BearerServer,
    receiver: Receiver,
    port: Port,
    place: Place,
}

impl World {
    fn new(provider: &Provider) -> Self {
        let home = Home::with_slot("canaries-rooms", Some(provider));
        let (workspace, place) = (Place::new("canaries-rooms-workspace"), Place::new("canaries-rooms-sidecar"));
        let (web, receiver) = (BearerServer::start(), Receiver::start());
        let program = workspace.join("server.sh");
        fs::write(&program, SCRIPT).expect("a script");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a script");
        let file = home.join("mcp.toml");
        let config = format!(
            "[mcp_servers.local]\ncommand = 'bash'\nargs = ['server.sh', 'canary_mark']\nenv_secret_refs = {{ CANARY = 'mcp.local.CANARY' }}\n\
             [mcp_servers.web]\nurl = '{}'\nbearer_token_secret_ref = 'mcp.custom.web.TOKEN'\n",
            web.url()
        );
        fs::write(&file, config).expect("a configuration");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a configuration");
        Self { home, workspace, _web: web, receiver, port: Port::reserve(), place }
    }

    fn start(&self) -> Daemon {
        let mcp = self.home.join("mcp.toml");
        let quick = [("KHEISH_DELIVERY_INITIAL_RETRY_MS", "20"), ("KHEISH_DELIVERY_MAX_RETRY_MS", "40")];
        let options = ["--mcp-config", mcp.to_str().expect("a path"), "--egress-allow-private", "connector"];
        self.home.serve().workspace(&self.workspace.join("")).variables(&quick).options(&options).start()
    }

    fn plant(&self, daemon: &Daemon) {
        daemon.set_key(ROUTE_KEY);
        let routes = json!({"demo": {"secret": WEBHOOK, "allowed_events": ["push"]}}).to_string();
        for (slot, value) in [
            ("mcp.local.CANARY", MCP_ENV),
            ("mcp.custom.web.TOKEN", MCP_BEARER),
            ("sidecars.shared", SHARED),
            ("sidecars.routes", &routes),
            ("sidecars.routes.alone", WEBHOOK),
            ("deliveries.bearer", DELIVERY_BEARER),
            ("deliveries.hmac", DELIVERY_HMAC),
        ] {
            let record =
                json!({"slot_id": slot, "provider": "generic", "mode": "opaque_secret", "state": {"value": value}});
            assert_eq!(daemon.post("/v1/runtime/secrets", &record).status, 200, "{slot}");
        }
        let base = format!("http://{}", self.receiver.address);
        let folder = self.place.join("captured");
        fs::create_dir(&folder).expect("a folder");
        let binary = env!("CARGO_BIN_EXE_kheish-daemon");
        let child = json!({"command": binary, "args": ["connector", "webhook"],
            "credential_slots": {"WEBHOOK_ROUTES_JSON": "sidecars.routes"}, "working_dir": folder,
            "working_dir_writable": true, "read_only_paths": [std::path::Path::new(binary).parent()],
            "env": {"KHEISH_EXTERNAL_CONNECTOR_DELIVERY_CAPTURE_PATH": folder.join("deliveries.jsonl")}});
        let policy = json!({"create_if_missing": true});
        for (kind, name, config) in [
            (
                "external",
                "ops",
                json!({"platform": "webhook", "mode": "child_process", "base_url": format!("http://{}", self.port.address()),
                    "shared_token": {"secret_ref": "sidecars.shared"}, "session_policy": policy, "child_process": child}),
            ),
            (
                "http",
                "inbox",
                json!({"hmac_secret": {"value": INBOX}, "require_hmac_signature": true, "session_policy": policy}),
            ),
            (
                "slack",
                "team",
                json!({"bot_token": {"value": SLACK_BOT}, "allow_unauthenticated_ingress": true,
                    "api_base_url": format!("{base}/api")}),
            ),
            (
                "telegram",
                "bot",
                json!({"ingress_mode": "polling", "bot_token": {"value": TELEGRAM_BOT}, "api_base_url": base}),
            ),
        ] {
            let reply = put(daemon, kind, name, &config);
            assert_eq!(reply.status, 200, "{reply:?}");
            Needles::new(&PLANTED).assert_absent(&format!("PUT {kind}"), &reply.body);
        }
    }
}

fn wait_status(daemon: &Daemon, run: &str, status: &str) {
    eventually(status, || (daemon.status_of(run) == status).then_some(()));
}

#[test]
fn no_planted_secret_leaves_the_rooms_that_hold_it() {
    let needles = Needles::new(&PLANTED);
    let provider = Provider::start(&script());
    let world = World::new(&provider);
    let (home, receiver) = (&world.home, &world.receiver);
    // Of the admin token the daemon has a digest and no text to look for; the master key is nowhere but in its file.
    let of_store = PLANTED.iter().filter(|(name, _)| !["admin token", "master key"].contains(name));
    let leak: String = of_store.map(|(name, secret)| format!("{name}={secret}\n")).collect();
    fs::write(world.workspace.join("leak.txt"), leak).expect("a file");
    // Peers that are sent a credential say it back in their errors.
    let echo = |secret: &str| Answer::Status(500, "", format!("{{\"error\":\"bad {secret}\"}}").leak());
    let taken = Answer::Status(200, "", r#"{"ok":true}"#);
    let http_path = "/hook?canary=none";
    receiver.script(http_path, vec![echo(DELIVERY_BEARER), taken.clone()]);
    receiver.script("/api/chat.postMessage", vec![echo(SLACK_BOT), taken.clone()]);
    receiver.script(&format!("/bot{TELEGRAM_BOT}/sendMessage"), vec![echo(TELEGRAM_BOT), taken.clone()]);
    let failing = json!({"ok": false, "error_code": 401, "description": format!("no bot {TELEGRAM_BOT}")}).to_string();
    receiver.script(&format!("/bot{TELEGRAM_BOT}/getUpdates"), vec![Answer::Status(401, "", failing.leak())]);
    let daemon = world.start();
    world.plant(&daemon);
    let mut shown: Vec<(String, String)> = Vec::new();
    let mut stream = daemon.stream("/v1/events/stream?cursor=0");
    home.cli_json(
        &daemon,
        &["runtime", "set-debug-level", "full", "--ttl", "10m", "--ticket", &format!("INC {ROUTE_KEY}")],
    );
    for server in ["local", "web"] {
        eventually(&format!("{server} is connected"), || {
            (daemon.get(&format!("/v1/mcp/servers/{server}")).json()["connected"] == true).then_some(())
        });
    }
    eventually("the sidecar", || {
        let view = daemon.get("/v1/runtime/connectors/external/ops").json();
        (view["process"]["state"] == "ready").then_some(())
    });
    daemon.create_session("s");

    // An approval and a question, whose texts hold secrets, seen by people while they are open.
    let allowed = daemon.submit("s", "be allowed");
    wait_status(&daemon, &allowed, "waiting_for_approval");
    let id = daemon.run(&allowed)["pending_approval_ids"][0].as_str().expect("an id").to_string();
    for args in [vec!["approvals", "list"], vec!["approvals", "show", &id], vec!["runs", "get", &allowed]] {
        let (_, stdout, stderr) = home.cli(&daemon, &args);
        shown.push((format!("{args:?} while it waits"), stdout + &stderr));
    }
    let updated = json!({"resolutions": [{"request_id": id, "behavior": "allow",
        "updated_input": {"command": format!("echo {ROUTE_KEY}")}}]});
    let refused = daemon.post(&format!("/v1/runs/{allowed}/approvals"), &updated);
    assert_eq!(refused.refusal(), (400, "bad_request".to_string()));
    shown.push(("an approval".to_string(), String::from_utf8_lossy(&refused.body).into_owned()));
    let justified = format!("because {ROUTE_KEY}");
    home.cli_json(&daemon, &["approvals", "allow", &id, "--justification", &justified]);
    assert_eq!(daemon.wait_end(&allowed), "completed", "{}", daemon.run(&allowed));
    let asked = daemon.submit("s", "ask me");
    wait_status(&daemon, &asked, "waiting_for_user_question");
    let (_, stdout, stderr) = home.cli(&daemon, &["questions", "list", "--session-id", "s"]);
    let id =
        serde_json::from_str::<Value>(&stdout).expect("JSON")[0]["request"]["id"].as_str().expect("an id").to_string();
    shown.push(("questions list".to_string(), stdout + &stderr));
    home.cli_json(&daemon, &["questions", "answer", &id, &format!("it is {MCP_ENV}")]);
    assert_eq!(daemon.wait_end(&asked), "completed");

    // Tools of all kinds: in the foreground, behind the run, of a child with a secret of its own, over HTTP with another.
    assert_eq!(daemon.post("/v1/runtime/permission-mode", &json!({"mode": "bypassPermissions"})).status, 200);
    for input in ["stay behind", "use the child", "use the web"] {
        let run = daemon.submit("s", input);
        assert_eq!(daemon.wait_end(&run), "completed", "{input}: {}", daemon.run(&run));
    }
    eventually("a command in the background", || world.workspace.join("begun").exists().then_some(()));
    let seen = daemon.get("/v1/mcp/servers/local").json();
    assert_eq!(seen["uses_credentials"], json!(true));
    let direct = daemon.post("/v1/mcp/servers/local/tools/call", &json!({"tool": "env", "arguments": {}}));
    shown.push(("a direct call of an MCP tool".to_string(), String::from_utf8_lossy(&direct.body).into_owned()));

    // Deliveries with credentials to receivers that repeat them.
    let base = format!("http://{}", receiver.address);
    let targets = json!([
        {"type": "http", "url": format!("{base}{http_path}"), "allow_private_network": true,
         "bearer_secret_ref": "deliveries.bearer", "hmac_secret_ref": "deliveries.hmac"},
        {"type": "slack", "connector": "team", "channel_id": "C1"},
        {"type": "telegram", "connector": "bot", "chat_id": 7},
        {"type": "external", "connector": "ops", "route": "{}"}]);
    let reply = daemon.post("/v1/sessions/s/runs", &json!({"content": "deliver", "reply_targets": targets}));
    assert_eq!(reply.status, 202, "{reply:?}");
    let run = reply.json()["run_id"].as_str().expect("a run").to_string();
    eventually("all deliveries", || {
        let view = daemon.run(&run);
        let all = view["deliveries"].as_array()?;
        (all.len() == 4 && all.iter().all(|one| one["status"] == "delivered")).then_some(())
    });
    let sent = receiver.at(http_path);
    assert_eq!(sent[0].headers["authorization"], format!("Bearer {DELIVERY_BEARER}"), "it is really sent");

    // Events, well and badly signed.
    let event =
        json!({"content": format!("from outside {INBOX} {ROUTE_KEY}"), "idempotency_key": "e1", "session_id": "s"})
            .to_string();
    let target = "/v1/connectors/http/inbox";
    assert_eq!(post(&daemon, target, &sign_http(INBOX, "POST", target, now_s(), &event), &event).status, 200);
    assert_eq!(
        post(&daemon, target, &sign_http("another-secret", "POST", target, now_s(), &event), &event).status,
        401
    );
    let mut webhook = Client::connect(world.port.address(), "").expect("the sidecar accepts");
    let tag = format!("sha256={}", hmac_hex(WEBHOOK, &[b"{\"ref\":\"main\"}"]));
    let headers = [("x-hub-signature-256", tag.as_str()), ("x-github-event", "push"), ("x-github-delivery", "d-1")];
    let reply = webhook.request("POST", "/webhooks/demo", &headers, "{\"ref\":\"main\"}").expect("an answer");
    assert_eq!(reply.status, 200, "{reply:?}");
    shown.push(("the sidecar's answer".to_string(), String::from_utf8_lossy(&reply.body).into_owned()));
    eventually("the end of all runs", || {
        let runs = daemon.all_runs();
        runs.iter().all(|run| run["status"] == "completed").then_some(())
    });

    // Words of operators, wherever they can say some.
    let said = format!("because {ROUTE_KEY} and {MCP_ENV}");
    for (path, body, status) in [
        ("/v1/runtime/system-prompt", json!({"settings": {"append_prompt": said}}), 200),
        ("/v1/runtime/connectors/hold", json!({"held": true, "reason": said}), 200),
        ("/v1/runtime/connectors/hold", json!({"held": false, "reason": said}), 200),
        ("/v1/deliveries/hold", json!({"held": true, "reason": said}), 200),
        ("/v1/deliveries/hold", json!({"held": false, "reason": said}), 200),
        ("/v1/runtime/auth/subjects/session%3Aunknown/revoke", json!({"reason": said}), 200),
        ("/v1/runtime/auth/subjects/session%3Aunknown/reinstate", json!({"reason": said}), 200),
        ("/v1/runtime/auth/slots/deliveries.hmac/revoke", json!({"reason": said}), 200),
        (&format!("/v1/runs/{run}/retention-hold"), json!({"held": true, "reason": said}), 200),
    ] {
        let reply = daemon.post(path, &body);
        assert_eq!(reply.status, status, "{path}: {reply:?}");
        shown.push((format!("POST {path}"), String::from_utf8_lossy(&reply.body).into_owned()));
    }
    let rules = json!({"scope": "user", "rules": [{"scope": "user", "tool_name_pattern": "bash", "reason": said, "behavior": "allow"}]});
    let reply = daemon.client().request("PUT", "/v1/runtime/permissions/rules", &[], &rules.to_string());
    let reply = reply.expect("an answer");
    assert_eq!(reply.refusal(), (400, "runtime_validation_failed".to_string()), "{reply:?}");
    shown.push(("a rule".to_string(), String::from_utf8_lossy(&reply.body).into_owned()));

    // Everything that runs now: what a process is started with is its own, and nothing else.
    let knows = |words: &str, name: &str| match name {
        "MCP variable" => words.contains("canary_mark"),
        "shared token" => words.contains("connector webhook"),
        _ => false,
    };
    let processes = assert_processes_are_clean(daemon.pid(), &PLANTED, knows);
    assert!(processes >= 6, "the daemon, a sidecar, an MCP server and a command with their workers: {processes}");

    // Everything that can be looked at.
    for path in [
        "/v1/status",
        "/v1/runtime",
        "/v1/runs",
        "/v1/sessions/s/events",
        "/v1/sessions/s/tasks",
        "/v1/runtime/secrets",
        "/v1/runtime/auth/leases?all=true",
        "/v1/runtime/auth/subjects",
        "/v1/runtime/connectors",
        "/v1/mcp/servers",
        "/v1/deliveries",
        "/v1/metrics",
    ] {
        shown.push((format!("GET {path}"), String::from_utf8_lossy(&daemon.get(path).body).into_owned()));
    }
    let mut artifacts = 0;
    for run in daemon.all_runs() {
        let id = run["run_id"].as_str().expect("an id");
        for part in ["", "/events", "/external-actions", "/debug", "/blobs"] {
            let path = format!("/v1/runs/{id}{part}");
            shown.push((format!("GET {path}"), String::from_utf8_lossy(&daemon.get(&path).body).into_owned()));
        }
        let debug = daemon.get(&format!("/v1/runs/{id}/debug")).json();
        for artifact in debug["artifacts"].as_array().into_iter().flatten() {
            let artifact = artifact["artifact_id"].as_str().expect("an id");
            let (code, stdout, stderr) = home.cli(&daemon, &["runs", "debug-artifact", id, artifact]);
            assert_eq!(code, 0, "{stderr}");
            artifacts += 1;
            shown.push((format!("debug-artifact {id} {artifact}"), stdout + &stderr));
        }
    }
    assert!(artifacts >= 10, "full keeps what was said: {artifacts}");
    for task in daemon.get("/v1/sessions/s/tasks").json().as_array().expect("a list") {
        let id = task["id"].as_str().expect("an id");
        let (_, stdout, stderr) = home.cli(&daemon, &["tasks", "output", "s", id]);
        shown.push((format!("tasks output {id}"), stdout + &stderr));
    }
    for args in [
        vec!["status"],
        vec!["runs", "list"],
        vec!["secrets", "list"],
        vec!["connectors", "list"],
        vec!["mcp", "list"],
        vec!["deliveries", "list"],
        vec!["runtime", "auth", "leases", "--all"],
        vec!["connectors", "put-http", "inbox", "--json", "{\"hmac_secret\":\"inbox-canary-6LpP5TgB7nHy2MjU\"}"],
    ] {
        let (_, stdout, stderr) = home.cli(&daemon, &args);
        shown.push((args.iter().take(2).copied().collect::<Vec<_>>().join(" "), stdout + &stderr));
    }
    let mut frames = String::new();
    let last = daemon.submit("s", "deliver");
    stream.until("the last run", |frame| {
        frames.push_str(&format!("{frame:?}\n"));
        frame.run_status().is_some_and(|(id, status)| id == last && status == "completed")
    });
    shown.push(("the event stream".to_string(), frames));

    // Evidence, and a backup by tar of the running and of the stopped root.
    let evidence = home.join("evidence");
    let (_, stdout, stderr) = home.cli(
        &daemon,
        &["incident", "collect", "--out", evidence.to_str().expect("a path"), "--session", "s", "--run", &allowed],
    );
    shown.push(("incident collect".to_string(), stdout + &stderr));
    assert!(needles.assert_absent_below(&evidence) >= 5, "evidence was collected");
    shown.push(("the log".to_string(), daemon.stop()));
    let archive = home.join("backup.tar");
    let packed = Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(home.root()).arg(".").status();
    assert!(packed.expect("tar").success());
    needles.assert_absent("the backup", &fs::read(&archive).expect("an archive"));
    let root = home.root().display().to_string();
    for args in [
        vec!["journal", "show", "--offline", "--state-root", &root],
        vec!["doctor", "--offline", "--state-root", &root],
    ] {
        shown.push((format!("{args:?}"), home.command(&args).1));
    }
    for (place, text) in &shown {
        needles.assert_absent(place, text.as_bytes());
    }
    let files = needles.assert_absent_below(&home.root());
    assert!(files >= 20, "{files} files were searched");
    // The scenarios did what they should: tools read the secrets, peers repeated them, and the mark stands in their place.
    let journal = &shown[shown.len() - 2].1;
    for trace in ["delivery bearer=<redacted>", "bad <redacted>", "CANARY=<redacted>", "Is it <redacted>"] {
        assert!(journal.contains(trace), "no {trace:?} in the journal");
    }
}
