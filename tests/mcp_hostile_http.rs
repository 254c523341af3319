//! Servers over HTTP that lie about lengths, forget their sessions, ask instead of answering and repeat secrets: each costs the call at
//! hand one error at most, nobody hurries for them, and no other server notices. They are sockets with a function each.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
mod mcp_support;
#[path = "mcp_support/web.rs"]
mod web;

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use daemon::{Daemon, Home, eventually};
use mcp_support::{call, connected, provider, server};
use serde_json::json;
use web::{Asked, Reply, empty, events, plain, serve};

fn detail(reply: &http::Reply) -> String {
    reply.json()["detail"].as_str().unwrap_or_default().to_string()
}

fn text(reply: &http::Reply) -> String {
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["result"]["content"][0]["text"].as_str().unwrap_or_default().to_string()
}

fn start(home: &Home, config: &str) -> Daemon {
    let file = home.join("mcp.toml");
    std::fs::write(&file, config).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    home.serve().options(&["--mcp-config", file.to_str().unwrap()]).start()
}

fn good(asked: &Asked, tools: &[&str]) -> Option<Reply> {
    let tool = |name: &&str| json!({"name": name, "inputSchema": {"type": "object"}});
    match asked.method() {
        "initialize" => {
            Some(plain(asked.result(json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
            "serverInfo": {"name": "web", "version": "1"}}))))
        }
        "tools/list" => Some(plain(asked.result(json!({"tools": tools.iter().map(tool).collect::<Vec<_>>()})))),
        "GET" | "DELETE" => Some(empty(405)),
        "tools/call" => None,
        _ => Some(empty(202)),
    }
}

#[test]
fn a_server_that_lies_about_lengths_and_forms_costs_one_error_each() {
    const TOOLS: [&str; 9] = ["fine", "short", "long", "chunks", "deep", "huge", "event", "text", "heads"];
    let url = serve(|asked| {
        good(asked, &TOOLS).unwrap_or_else(|| {
            let body = asked.result(json!({"content": [{"type": "text", "text": "well"}]}));
            let json = ("content-type", "application/json".to_string());
            match asked.message["params"]["name"].as_str().unwrap_or_default() {
                "short" => (200, vec![json, ("content-length", "100000".to_string())], body),
                "long" => (200, vec![json, ("content-length", "7".to_string())], body),
                "chunks" => (200, vec![json, ("transfer-encoding", "chunked".to_string())], format!("zz\r\n{body}")),
                "deep" => (200, vec![json], format!("{}{}", "[".repeat(200_000), "]".repeat(200_000))),
                "huge" => (200, vec![json], format!("{{\"x\":\"{}\"}}", "x".repeat(9 * 1024 * 1024))),
                "event" => events(format!("data: {}\n\n", "x".repeat(9 * 1024 * 1024))),
                "text" => (200, vec![("content-type", "text/html".to_string())], body),
                "heads" => (200, (0..5_000).map(|_| ("x-more", "y".repeat(64))).collect(), body),
                _ => plain(body),
            }
        })
    });
    let other = serve(|asked| {
        good(asked, &["fine"])
            .unwrap_or_else(|| plain(asked.result(json!({"content": [{"type": "text", "text": "well"}]}))))
    });
    let home = Home::new("mcp_lies", None);
    let config =
        format!("[mcp_servers.web]\nurl = '{url}'\ntool_timeout_sec = 60\n[mcp_servers.other]\nurl = '{other}'\n");
    let daemon = start(&home, &config);
    connected(&daemon, "web");
    connected(&daemon, "other");
    for tool in TOOLS {
        let reply = call(&daemon, "web", tool, json!({}));
        match tool {
            "fine" => assert_eq!(text(&reply), "well"),
            _ => assert!(reply.status == 502 && !detail(&reply).is_empty(), "{tool}: {reply:?}"),
        }
        assert_eq!(text(&call(&daemon, "other", "fine", json!({}))), "well", "{tool}");
    }
    // None of that is a reason to connect anew.
    assert_eq!(text(&call(&daemon, "web", "fine", json!({}))), "well");
    assert_eq!(
        (&server(&daemon, "web")["connect_count"], &server(&daemon, "other")["connect_count"]),
        (&json!(1), &json!(1))
    );
    daemon.stop();
}

#[test]
fn a_server_that_cannot_be_connected_is_tried_less_and_less_often_and_comes_back() {
    let (tries, works) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (seen, well) = (tries.clone(), works.clone());
    let url = serve(move |asked| {
        seen.fetch_add(u32::from(asked.method() == "initialize"), Ordering::SeqCst);
        match well.load(Ordering::SeqCst) {
            0 => (200, vec![("content-type", "application/json".to_string())], "{".to_string()),
            _ => good(asked, &["fine"]).unwrap_or_else(|| plain(asked.result(json!({"content": []})))),
        }
    });
    let home = Home::new("mcp_backoff", None);
    let daemon = start(&home, &format!("[mcp_servers.web]\nurl = '{url}'\n"));
    let log = Mutex::new(Vec::new());
    eventually("it was tried three times", || {
        log.lock().unwrap().push(server(&daemon, "web"));
        (tries.load(Ordering::SeqCst) >= 3).then_some(())
    });
    let shown = log.into_inner().unwrap();
    assert!(shown.iter().all(|seen| seen["connected"] == false));
    assert_eq!(shown.last().unwrap()["error_code"], "mcp_malformed_answer");
    works.store(1, Ordering::SeqCst);
    connected(&daemon, "web");
    assert_eq!(call(&daemon, "web", "fine", json!({})).status, 200);
    daemon.stop();
}

/// With a session id, and its own answer to a GET.
fn with_session(asked: &Asked, get: Reply) -> Reply {
    match asked.method() {
        "GET" => get,
        _ => {
            let (status, mut headers, body) = good(asked, &["fine"])
                .unwrap_or_else(|| plain(asked.result(json!({"content": [{"type": "text", "text": "well"}]}))));
            headers.push(("mcp-session-id", "session-1".to_string()));
            (status, headers, body)
        }
    }
}

#[test]
fn a_server_that_knows_no_get_is_connected_once_and_one_that_ends_its_stream_is_not_listened_to_without_pause() {
    let (greeted, gets) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (count, times) = (greeted.clone(), gets.clone());
    let web = serve(move |asked| {
        count.fetch_add(u32::from(asked.method() == "initialize"), Ordering::SeqCst);
        with_session(asked, empty(404))
    });
    let other = serve(move |asked| {
        if asked.method() == "GET" {
            times.lock().unwrap().push(Instant::now());
        }
        with_session(asked, events("retry: 0\n\n".to_string()))
    });
    let home = Home::new("mcp_get", None);
    let daemon = start(&home, &format!("[mcp_servers.web]\nurl = '{web}'\n[mcp_servers.other]\nurl = '{other}'\n"));
    connected(&daemon, "web");
    connected(&daemon, "other");
    eventually("the other one was listened to three times", || (gets.lock().unwrap().len() >= 3).then_some(()));
    for pair in gets.lock().unwrap().windows(2) {
        assert!(pair[1] - pair[0] >= Duration::from_millis(900), "{:?}", pair[1] - pair[0]);
    }
    assert_eq!(text(&call(&daemon, "web", "fine", json!({}))), "well");
    assert_eq!((greeted.load(Ordering::SeqCst), &server(&daemon, "web")["connect_count"]), (1, &json!(1)));
    daemon.stop();
}

#[test]
fn a_server_that_asks_instead_of_answering_holds_nobody_beyond_the_time_of_the_call() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let closed = gate.clone();
    let url = serve(move |asked| {
        if asked.message["result"].is_object() {
            // Our answer to its question is not read to its end.
            let mut open = closed.0.lock().unwrap();
            while !*open {
                open = closed.1.wait(open).unwrap();
            }
        }
        good(asked, &["asks"]).unwrap_or_else(|| {
            let pings: String = (0..200)
                .map(|id| format!("data: {}\n\n", json!({"jsonrpc": "2.0", "id": id, "method": "ping"})))
                .collect();
            events(pings)
        })
    });
    let home = Home::new("mcp_asks_instead", None);
    let daemon = start(&home, &format!("[mcp_servers.web]\nurl = '{url}'\ntool_timeout_sec = 1\n"));
    connected(&daemon, "web");
    let refused = detail(&call(&daemon, "web", "asks", json!({})));
    assert!(refused.contains("no answer to tools/call within"), "{refused}");
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    daemon.stop();
}

#[test]
fn a_secret_that_a_server_repeats_is_shown_to_nobody() {
    const SECRET: &str = "repeated-canary-0123456789";
    let refuses = Arc::new(AtomicBool::new(false));
    let flag = refuses.clone();
    let url = serve(move |asked| {
        let said = asked.header("authorization").unwrap_or_default().to_string();
        match asked.method() {
            "initialize" if flag.load(Ordering::SeqCst) => {
                let error = json!({"jsonrpc": "2.0", "id": asked.message["id"], "error": {"code": -1, "message": format!("bad key {said}")}});
                (400, vec![("content-type", "application/json".to_string())], error.to_string())
            }
            "initialize" => plain(asked.result(json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                "serverInfo": {"name": said, "version": said}, "instructions": said}))),
            "tools/list" => plain(asked.result(json!({"tools": [{"name": "t", "title": said,
                // In two pieces where it is cut.
                "description": format!("{}{said}", "x".repeat(2_040 - "Bearer ".len())),
                "inputSchema": {"type": "object", "properties": {"a": {"type": "string", "description": said}}}}]}))),
            "tools/call" => plain(asked.result(json!({"content": [{"type": "text",
                "text": format!("{}{said}", "x".repeat(32_760 - "Bearer ".len()))}]}))),
            "GET" => empty(405),
            _ => empty(202),
        }
    });
    let home = Home::with_slot("mcp_repeats", None);
    let daemon =
        start(&home, &format!("[mcp_servers.web]\nurl = '{url}'\nbearer_token_secret_ref = 'mcp.custom.web.T'\n"));
    let state = json!({"slot_id": "mcp.custom.web.T", "provider": "generic", "mode": "opaque_secret", "state": {"value": SECRET}});
    assert_eq!(daemon.post("/v1/runtime/secrets", &state).status, 200);
    connected(&daemon, "web");
    let views = |daemon: &Daemon| {
        let places =
            ["/v1/mcp/servers", "/v1/mcp/servers/web", "/v1/mcp/servers/web/tools", "/v1/runtime", "/v1/status"];
        places.map(|place| daemon.get(place).json().to_string()).concat()
    };
    // Not even its beginning.
    let is_clean = |shown: &str| assert!(!shown.contains("repeated"), "{shown}");
    is_clean(&views(&daemon));
    is_clean(&call(&daemon, "web", "t", json!({})).json().to_string());
    refuses.store(true, Ordering::SeqCst);
    let reply = daemon.post("/v1/mcp/servers/web/reconnect", &json!({}));
    is_clean(&reply.json().to_string());
    assert!(server(&daemon, "web")["error"].as_str().expect("an error").contains("bad key"));
    is_clean(&views(&daemon));
    is_clean(&daemon.stop());
}

#[test]
fn a_rule_about_a_server_holds_for_its_resources_and_prompts_as_well() {
    let provider = provider(&[
        ("read it", "read_mcp_resource", json!({"server": "web", "uri": "x://one"})),
        ("list all", "list_mcp_resources", json!({})),
        ("the other", "read_mcp_resource", json!({"server": "other", "uri": "x://one"})),
    ]);
    let asked_for = Arc::new(AtomicU32::new(0));
    let count = asked_for.clone();
    let answer = move |asked: &Asked| match asked.method() {
        "initialize" => plain(asked.result(json!({"protocolVersion": "2025-06-18", "capabilities": {"resources": {}},
            "serverInfo": {"name": "r", "version": "1"}}))),
        "resources/read" => plain(asked.result(json!({"contents": [{"uri": "x://one", "text": "what it holds"}]}))),
        "resources/list" => plain(asked.result(json!({"resources": []}))),
        "GET" => empty(405),
        _ => empty(202),
    };
    let url = serve(move |asked| {
        count.fetch_add(u32::from(asked.method().starts_with("resources/")), Ordering::SeqCst);
        answer(asked)
    });
    let other = serve(move |asked| match asked.method() {
        "initialize" => plain(asked.result(json!({"protocolVersion": "2025-06-18", "capabilities": {"resources": {}},
            "serverInfo": {"name": "r", "version": "1"}}))),
        "resources/read" => plain(asked.result(json!({"contents": [{"uri": "x://one", "text": "what it holds"}]}))),
        "GET" => empty(405),
        _ => empty(202),
    });
    let home = Home::new("mcp_rules", Some(&provider));
    let daemon = start(&home, &format!("[mcp_servers.web]\nurl = '{url}'\n[mcp_servers.other]\nurl = '{other}'\n"));
    connected(&daemon, "web");
    connected(&daemon, "other");
    let reply = daemon.post("/v1/runtime/permission-mode", &json!({"mode": "bypassPermissions"}));
    assert_eq!(reply.status, 200, "{reply:?}");
    home.cli_json(&daemon, &["--output", "json", "runtime", "permissions", "add-rule", "deny", "mcp__web__*"]);
    daemon.create_session("s");
    let told = |words: &str| {
        let run = daemon.submit("s", words);
        assert_eq!(daemon.wait_end(&run), "completed", "{}", daemon.run(&run));
        provider.requests().last().expect("a request").1.clone()
    };
    assert!(told("read it").contains("permission_denied"));
    assert!(told("list all").contains("permission_denied"));
    assert!(told("the other").contains("what it holds"));
    assert_eq!(asked_for.load(Ordering::SeqCst), 0);
    daemon.stop();
}
