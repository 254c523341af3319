//! MCP servers through the real daemon: a child process and an HTTP server with a bearer secret, used by runs and by
//! operators, taken away and given back. The child is a shell script that speaks the protocol's lines.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
mod mcp_support;

use daemon::{Daemon, Home, Place, eventually};
use mcp_support::{BearerServer, SCRIPT, SECRET, call, connected, processes_with, provider, serve_with, server};
use serde_json::{Value, json};

fn serve(home: &Home, workspace: &Place, config: &str) -> Daemon {
    serve_with(home, workspace, SCRIPT, config)
}

fn delete(daemon: &Daemon, target: &str) -> http::Reply {
    daemon.client().request("DELETE", target, &[], "").expect("an answer")
}

/// Answers within the time of a tool but on order: that time is far beyond what a busy machine takes.
const STDIO: &str = "[mcp_servers.local]\ncommand = 'bash'\nargs = ['server.sh', 'kheish_mcp_mark']\ntool_timeout_sec = 120\n\
                     env = { PLAIN = 'plain-value' }\n";

#[test]
fn a_model_uses_a_tool_of_a_child_process_and_every_request_is_signed() {
    let provider = provider(&[("add them", "mcp__local__add", json!({"a": 2, "b": null}))]);
    let home = Home::new("mcp_stdio", Some(&provider));
    let workspace = Place::new("mcp_stdio_workspace");
    let daemon = serve(&home, &workspace, STDIO);
    let seen = connected(&daemon, "local");
    assert_eq!(seen["tools"], json!(["add", "die", "env", "flood", "hang", "long", "quiet.tool"]));
    assert_eq!(seen["protocol_version"], "2025-06-18");
    daemon.create_session("s");
    let run = daemon.submit("s", "add them");
    assert_eq!(daemon.wait_end(&run), "completed", "{}", daemon.run(&run));
    let asked = provider.requests();
    let second = asked.last().expect("two requests").1.to_string();
    assert!(second.contains("sum of 2") && second.contains("hostile"), "{second}");
    assert!(asked[0].1.contains("mcp__local__quiet_tool"), "a dot is no letter of a provider's");
    // The permission, the start and the signed pair are on record, in this order.
    daemon.stop();
    let root = home.root();
    home.assert_journal_verifies(&root);
    let records = home.records(&root, &[]);
    let bodies = |kind: &str| -> Vec<Value> {
        let of_kind = records.iter().filter(|record| record["kind"] == kind);
        of_kind.map(|record| record["body"].clone()).filter(|body| body["kind"] == "mcp").collect()
    };
    let targets: Vec<Value> = bodies("external_action.request").iter().map(|body| body["target"].clone()).collect();
    let pages = json!("mcp:tool_list:local");
    assert_eq!(targets[..3], [json!("mcp:initialize:local"), pages.clone(), pages]);
    assert_eq!(targets[3..], [json!("mcp:tool_call:local:add")]);
    let outcomes = bodies("external_action.response");
    assert_eq!(outcomes.len(), 4);
    assert!(outcomes.iter().all(|body| body["outcome"] == "succeeded" && body["signature"].is_string()));
    assert_eq!(outcomes[3]["run_id"], "run-1");
    assert_eq!(home.command(&["audit", "verify", "--state-root", root.to_str().unwrap()]).0, 0);
}

#[test]
fn a_server_that_hangs_dies_or_floods_costs_one_error_and_comes_back() {
    let home = Home::new("mcp_hostile", None);
    let workspace = Place::new("mcp_hostile_workspace");
    let other = "[mcp_servers.other]\ncommand = 'bash'\nargs = ['server.sh', 'other']\ntool_timeout_sec = 120\n\
                 [mcp_servers.hasty]\ncommand = 'bash'\nargs = ['server.sh', 'hasty']\ntool_timeout_sec = 3\n";
    let daemon = serve(&home, &workspace, &format!("{STDIO}{other}"));
    for name in ["local", "other", "hasty"] {
        connected(&daemon, name);
    }
    let code = |reply: http::Reply| (reply.status, reply.json()["detail"].as_str().unwrap_or_default().to_string());
    let (status, detail) = code(call(&daemon, "hasty", "hang", json!({})));
    assert!(status == 502 && detail.contains("no answer to tools/call within"), "{detail}");
    // It lives on.
    eventually("an answer", || (call(&daemon, "hasty", "add", json!({"a": 1})).status == 200).then_some(()));
    assert_eq!(server(&daemon, "hasty")["connect_count"], 1);
    for (tool, words) in [("die", "exited with code 7"), ("flood", "over the limit"), ("long", "over the limit")] {
        let before = connected(&daemon, "local")["connect_count"].as_u64().expect("a figure");
        let (status, detail) = code(call(&daemon, "local", tool, json!({})));
        assert!(status == 502 && (detail.contains(words) || detail.contains("more messages")), "{tool}: {detail}");
        // Others do not notice.
        assert_eq!(call(&daemon, "other", "add", json!({"a": 1})).status, 200);
        eventually("it comes back", || {
            let seen = server(&daemon, "local");
            (seen["connected"] == true && seen["connect_count"].as_u64() > Some(before)).then_some(())
        });
        assert_eq!(call(&daemon, "local", "add", json!({"a": 1})).status, 200, "{tool}");
    }
    assert_eq!(server(&daemon, "other")["connect_count"], 1);
    daemon.stop();
}

#[test]
fn a_child_sees_only_its_own_variables_and_nothing_of_it_outlives_a_killed_daemon() {
    let home = Home::new("mcp_child", None);
    let workspace = Place::new("mcp_child_workspace");
    let mark = format!("kheish_mcp_killed_{}", std::process::id());
    let daemon = serve(&home, &workspace, &STDIO.replace("kheish_mcp_mark", &mark));
    connected(&daemon, "local");
    let shown = call(&daemon, "local", "env", json!({})).json().to_string();
    assert!(shown.contains("PLAIN=plain-value"), "{shown}");
    assert!(!shown.contains("KHEISH") && !shown.contains("CARGO"), "{shown}");
    assert!(!processes_with(&mark).is_empty());
    daemon.kill();
    eventually("nothing is left of it", || processes_with(&mark).is_empty().then_some(()));
}

#[test]
fn a_bearer_secret_is_rotated_and_revoked_under_a_running_server_and_an_operator_decides() {
    let web = BearerServer::start();
    let home = Home::with_slot("mcp_bearer", None);
    let workspace = Place::new("mcp_bearer_workspace");
    let config =
        format!("{STDIO}[mcp_servers.web]\nurl = '{}'\nbearer_token_secret_ref = 'mcp.custom.web.TOKEN'\n", web.url());
    let daemon = serve(&home, &workspace, &config);
    connected(&daemon, "local");
    let set = |value: &str| {
        let state = json!({"slot_id": "mcp.custom.web.TOKEN", "provider": "generic", "mode": "opaque_secret", "state": {"value": value}});
        daemon.post("/v1/runtime/secrets", &state)
    };
    let reply = set(SECRET);
    assert_eq!(reply.status, 200, "{reply:?}");
    let seen = connected(&daemon, "web");
    assert_eq!(
        (&seen["uses_credentials"], &seen["credential_secret_refs"]),
        (&json!(true), &json!(["mcp.custom.web.TOKEN"]))
    );
    assert_eq!(call(&daemon, "web", "hello", json!({})).status, 200);
    // The slot is needed.
    let refused = delete(&daemon, "/v1/runtime/secrets/mcp.custom.web.TOKEN");
    assert_eq!(refused.status, 409);
    assert!(refused.json().to_string().contains("still referenced by one or more MCP servers"), "{refused:?}");
    // Rotated on both sides, without a restart.
    let next = "next-bearer-secret-0123456789";
    web.accept(next);
    assert_eq!(set(next).status, 200);
    eventually("the new secret is used", || (call(&daemon, "web", "hello", json!({})).status == 200).then_some(()));
    // Revoked: this one is down, the other is not.
    let revoked = daemon.post("/v1/runtime/auth/slots/mcp.custom.web.TOKEN/revoke", &json!({"reason": "leak"}));
    assert_eq!(revoked.status, 200, "{revoked:?}");
    eventually("the server is down", || (server(&daemon, "web")["connected"] == false).then_some(()));
    assert_eq!(call(&daemon, "web", "hello", json!({})).refusal(), (409, "mcp_not_connected".to_string()));
    assert_eq!(call(&daemon, "local", "add", json!({"a": 1})).status, 200);
    // Switched off and removed, also for the next start.
    assert_eq!(daemon.post("/v1/mcp/servers/local/disable", &json!({})).status, 200);
    assert_eq!(call(&daemon, "local", "add", json!({})).refusal(), (409, "mcp_server_disabled".to_string()));
    assert_eq!(delete(&daemon, "/v1/mcp/servers/web").status, 200);
    assert_eq!(delete(&daemon, "/v1/runtime/secrets/mcp.custom.web.TOKEN").status, 200);
    daemon.stop();
    let daemon = serve(&home, &workspace, &config);
    assert_eq!(server(&daemon, "local")["enabled"], false);
    assert_eq!(daemon.get("/v1/mcp/servers/web").refusal(), (404, "mcp_server_not_found".to_string()));
    assert_eq!(daemon.post("/v1/mcp/servers/local/enable", &json!({})).status, 200);
    connected(&daemon, "local");
    let log = daemon.stop();
    assert!(!log.contains(SECRET) && !log.contains(next));
    assert!(web.all_authorised(), "a request came without the secret");
}
