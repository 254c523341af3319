//! Acts on record, with the real binary: every change names its caller, acts outside the journal are on record before they
//! begin, and when no record can be made they are refused at once.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
#[path = "support/strace.rs"]
mod strace;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use daemon::{Daemon, Home, Provider, eventually};
use http::Reply;
use kheish_daemon::audit::control_plane::check;
use serde_json::{Value, json};
use strace::Fault;

/// A caller must hear a refusal within two seconds.
const REFUSAL_MAX: Duration = Duration::from_secs(2);

fn directory(home: &Home) -> PathBuf {
    home.root().join("control-plane-auth")
}

/// Acts in the audit file: act, request, and journal record.
fn acts(home: &Home) -> Vec<(String, String, Option<u64>)> {
    let text = fs::read_to_string(directory(home).join("audit.jsonl")).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line"));
    lines
        .filter(|line| line["event"] == "admin_action")
        .map(|line| {
            let text = |name: &str| line[name].as_str().map(str::to_string);
            let what = text("act").unwrap_or_else(|| format!("{} {}", line["method"], line["path"]).replace('"', ""));
            (what, text("request_id").expect("a request"), line["journal_seq"].as_u64())
        })
        .collect()
}

fn post_as(daemon: &Daemon, request: &str, target: &str, body: &Value) -> Reply {
    let reply = daemon.client().request("POST", target, &[("x-request-id", request)], &body.to_string());
    reply.expect("an answer")
}

fn delete(daemon: &Daemon, request: &str, target: &str) -> Reply {
    daemon.client().request("DELETE", target, &[("x-request-id", request)], "").expect("an answer")
}

#[test]
fn every_act_has_one_line_that_names_its_caller_and_is_made_again_from_the_journal() {
    let provider = Provider::start("[[turn]]\nmatch = \"hang\"\nfault = { kind = \"hang\" }\n");
    let home = Home::new("acts", Some(&provider));
    let daemon = home.start();
    assert_eq!(post_as(&daemon, "r-create", "/v1/sessions", &json!({"session_id": "ops"})).status, 201);
    let run = daemon.submit("ops", "hang here");
    daemon.submit("ops", "behind");
    provider.wait_asked("hang", 1);
    assert_eq!(post_as(&daemon, "r-cancel", &format!("/v1/runs/{run}/cancel"), &json!({})).status, 200);
    assert_eq!(post_as(&daemon, "r-hold", "/v1/runtime/hold", &json!({"held": true})).status, 200);
    assert_eq!(post_as(&daemon, "r-hold-again", "/v1/runtime/hold", &json!({"held": true})).status, 200);
    assert_eq!(delete(&daemon, "r-delete", "/v1/runtime/secrets/nobody").status, 404);
    assert_eq!(post_as(&daemon, "r-end", "/v1/sessions/ops/end", &json!({})).status, 200);
    daemon.stop();
    let told = acts(&home);
    let mut named: Vec<(&str, &str)> = told.iter().map(|(act, request, _)| (act.as_str(), request.as_str())).collect();
    named.sort_unstable();
    let mut expected = vec![
        ("session.created", "r-create"),
        ("run.cancelled", "r-cancel"),
        ("hold.changed", "r-hold"),
        // Nothing changed, so there is no record; that it was asked for is told all the same.
        ("POST /v1/runtime/hold", "r-hold-again"),
        ("secret.delete", "r-delete"),
        ("control.result", "r-delete"),
        ("DELETE /v1/runtime/secrets/nobody", "r-delete"),
        ("session.ended", "r-end"),
    ];
    expected.sort_unstable();
    assert_eq!(named, expected);
    let records = home.records(&home.root(), &["--kind", "control."]);
    let by = &records[0]["by"];
    assert_eq!((&by["role"], &by["request_id"]), (&json!("admin"), &json!("r-delete")), "{by}");
    assert!(by["token"].as_str().is_some_and(|token| token.len() == 8) && by["peer"].is_string(), "{by}");
    assert_eq!(records[1]["body"]["outcome"], "refused");
    assert_eq!(records[1]["body"]["intent"], records[0]["seq"]);

    // The file is gone with everything in it: what the journal knows comes back, and nothing twice.
    let derived: Vec<_> = told.into_iter().filter(|(.., seq)| seq.is_some()).collect();
    fs::remove_file(directory(&home).join("audit.jsonl")).expect("removed");
    for _ in 0..2 {
        let daemon = home.start();
        let again =
            eventually("the lines are made again", || Some(acts(&home)).filter(|again| again.len() >= derived.len()));
        assert_eq!(again, derived);
        daemon.stop();
    }
    let report = check(&directory(&home)).expect("readable");
    assert_eq!(report.problem, None);
}

fn tail_segment(root: &Path) -> PathBuf {
    let names = fs::read_dir(root.join("journal")).expect("a folder").map(|entry| entry.expect("an entry").path());
    names.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).max().expect("a segment")
}

#[test]
fn an_act_that_no_log_takes_is_refused_within_two_seconds_and_works_again_without_a_restart() {
    if !strace::is_usable("an_act_that_no_log_takes_is_refused_within_two_seconds_and_works_again_without_a_restart") {
        return;
    }
    let home = Home::new("acts-refused", None);
    home.start().stop();
    // The journal's disk is full for the core, for ever; the rest of the disk is not.
    let fault =
        Fault { calls: "pwrite64", errno: "ENOSPC", when: "1+".to_string(), paths: vec![tail_segment(&home.root())] };
    let daemon = home.serve().under(&fault.wrapper(&home.join("strace.txt"))).start();
    let target = "/v1/runtime/secrets/nobody";
    assert_eq!(delete(&daemon, "r-file", target).status, 404, "the audit file takes what the journal does not");
    let told = acts(&home);
    assert!(
        told.iter().any(|(act, request, seq)| act == "secret.delete" && request == "r-file" && seq.is_none()),
        "{told:?}"
    );

    let audit = directory(&home).join("audit.jsonl");
    let aside = home.join("aside.jsonl");
    fs::rename(&audit, &aside).expect("moved");
    assert!(Command::new("mkfifo").arg(&audit).status().expect("mkfifo").success());
    for n in 0..3 {
        let began = Instant::now();
        let reply = delete(&daemon, &format!("r-none-{n}"), target);
        assert_eq!((reply.status, reply.refusal().1.as_str()), (503, "audit_unavailable"));
        assert!(began.elapsed() < 5 * REFUSAL_MAX, "{:?}", began.elapsed());
    }
    assert_eq!(daemon.get("/v1/status").status, 200, "reads go on");
    fs::remove_file(&audit).expect("removed");
    fs::rename(&aside, &audit).expect("moved back");
    eventually("the file takes lines again", || (delete(&daemon, "r-again", target).status == 404).then_some(()));
    daemon.stop_on_a_faulty_disk();
    let report = check(&directory(&home)).expect("readable");
    assert_eq!(report.problem, None);
}

#[test]
fn a_token_exchange_is_a_signed_record_before_its_bytes_leave_and_another_one_after() {
    let server = tiny_http::Server::http("127.0.0.1:0").expect("a listener");
    let address = server.server_addr().to_ip().expect("an address");
    let home = Home::with_slot("acts-oauth", None);
    let daemon = home.start();
    let account = json!({"slot_id": "mcp.oauth.docs", "server_name": "docs", "resource": "https://mcp.example/mcp",
        "issuer": "https://issuer.example", "authorization_endpoint": "https://issuer.example/a",
        "token_endpoint": format!("http://{address}/token?audience=canary"), "client_id": "client",
        "access_token": "access-token-0", "refresh_token": "refresh-token-0", "expires_at_ms": 1, "scopes": ["read"]});
    assert_eq!(daemon.post("/v1/runtime/auth/accounts/mcp-oauth", &account).status, 200);
    let answers = [(200, json!({"access_token": "access-token-1", "expires_in": 3600})), (503, json!({}))];
    let root = home.root();
    let serving = std::thread::spawn(move || {
        for (status, answer) in answers {
            let request = server.recv().expect("a request");
            let journal = fs::read_to_string(tail_segment(&root)).expect("a segment");
            let requested = journal.matches("\"external_action.request\"").count();
            let answered = journal.matches("\"external_action.response\"").count();
            assert_eq!(requested, answered + 1, "on disk before the bytes left:\n{journal}");
            let answer = tiny_http::Response::from_string(answer.to_string()).with_status_code(status);
            request.respond(answer).expect("the daemon listens");
        }
    });
    let refresh = "/v1/runtime/auth/accounts/mcp.oauth.docs/refresh";
    assert_eq!(daemon.post(refresh, &Value::Null).status, 200);
    // The pause after a refresh keeps the second one away; setting the account anew ends it.
    assert_eq!(daemon.post("/v1/runtime/auth/accounts/mcp-oauth", &account).status, 200);
    assert_eq!(daemon.post(refresh, &Value::Null).status, 503);
    serving.join().expect("no panic");
    daemon.stop();
    let records = home.records(&home.root(), &["--kind", "external_action."]);
    let told: Vec<Value> = records
        .iter()
        .map(|record| {
            let mut body = record["body"].clone();
            let fields = body.as_object_mut().expect("an object");
            for name in ["timestamp_ms", "action_id", "prev_hash", "record_hash", "signature", "key_id", "action"] {
                fields.remove(name);
            }
            body
        })
        .collect();
    let target = format!("POST http://{address}/token");
    let request = |index: u32| {
        json!({"chain": "daemon", "index": index, "phase": "request", "kind": "oauth", "target": target,
               "slot": "mcp.oauth.docs", "grant_type": "refresh_token", "signature_alg": "ed25519"})
    };
    let response = |index: u32, outcome: &str, status: u16| {
        json!({"chain": "daemon", "index": index, "phase": "response", "kind": "oauth", "target": target,
               "outcome": outcome, "slot": "mcp.oauth.docs", "http_status": status, "signature_alg": "ed25519"})
    };
    let mut failed = response(4, "failed", 503);
    failed["error"] = json!("overloaded");
    assert_eq!(told, [request(1), response(2, "succeeded", 200), request(3), failed]);
    assert_eq!(records[0]["body"]["action_id"], records[1]["body"]["action_id"], "one id joins both");
    let (code, report) =
        home.command(&["audit", "verify", "--offline", "--state-root", home.root().to_str().expect("a path")]);
    assert_eq!(code, 0, "{report}");
}
