//! MCP over HTTP, its less plain sides: event streams that break off and are taken up again, a server's own requests and
//! notifications, sessions that expire, redirects, and the revision without a handshake. The server is a socket and a function.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
#[path = "mcp_support/web.rs"]
mod web;

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use daemon::{Daemon, Home, eventually};
use serde_json::{Value, json};
use web::{Asked, Reply, empty, events, plain, serve};

fn start(home: &Home, url: &str, more: &str) -> Daemon {
    let file = home.join("mcp.toml");
    std::fs::write(&file, format!("[mcp_servers.web]\nurl = '{url}'\ntool_timeout_sec = 20\n{more}")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    home.serve().options(&["--mcp-config", file.to_str().unwrap()]).start()
}

fn server(daemon: &Daemon) -> Value {
    daemon.get("/v1/mcp/servers/web").json()
}

fn connected(daemon: &Daemon) -> Value {
    eventually("the server is connected", || Some(server(daemon)).filter(|seen| seen["connected"] == true))
}

fn call(daemon: &Daemon, tool: &str, arguments: Value) -> http::Reply {
    daemon.post("/v1/mcp/servers/web/tools/call", &json!({"tool": tool, "arguments": arguments}))
}

fn initialized(asked: &Asked, version: &str) -> Reply {
    let result = json!({"protocolVersion": version, "capabilities": {"tools": {"listChanged": true}},
        "serverInfo": {"name": "web", "version": ""}});
    plain(asked.result(result))
}

fn tools(names: &[&str]) -> Value {
    let tool = |name: &&str| json!({"name": name, "inputSchema": {"type": "object"}});
    json!({"tools": names.iter().map(tool).collect::<Vec<_>>()})
}

#[test]
fn a_stream_that_breaks_off_is_taken_up_again_and_the_servers_own_request_is_answered_meanwhile() {
    let seen = Arc::new(Mutex::new(Vec::<(String, Value, Option<String>)>::new()));
    let (log, open) = (seen.clone(), Arc::new(Mutex::new(Value::Null)));
    let url = serve(move |asked| {
        let last = asked.header("last-event-id").map(str::to_string);
        log.lock().unwrap().push((asked.method().to_string(), asked.message.clone(), last.clone()));
        match (asked.method(), last) {
            ("initialize", _) => initialized(asked, "2025-11-25"),
            ("tools/list", _) => plain(asked.result(tools(&["slow", "silent"]))),
            ("tools/call", _) if asked.message["params"]["name"] == "silent" => events(": nothing\n\n".to_string()),
            ("tools/call", _) => {
                *open.lock().unwrap() = asked.message["id"].clone();
                let own = json!({"jsonrpc": "2.0", "id": 0, "method": "roots/list"});
                events(format!("id: 7\nretry: 50\ndata:\n\nevent: message\ndata: {own}\n\n"))
            }
            ("GET", Some(_)) => {
                let answer = json!({"jsonrpc": "2.0", "id": *open.lock().unwrap(),
                    "result": {"content": [{"type": "text", "text": "at last"}]}});
                events(format!("id: 8\ndata: {answer}\n\n"))
            }
            ("GET", None) => empty(405),
            _ => empty(202),
        }
    });
    let home = Home::new("mcp_http_stream", None);
    let daemon = start(&home, &url, "");
    assert_eq!(connected(&daemon)["protocol_version"], "2025-11-25");
    let reply = call(&daemon, "slow", json!({}));
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.json()["result"]["content"][0]["text"], "at last");
    let refused = call(&daemon, "silent", json!({}));
    assert!(refused.json()["detail"].as_str().unwrap().contains("ended before the answer"), "{refused:?}");
    let seen = seen.lock().unwrap();
    assert_eq!(
        seen.iter().filter(|(_, _, last)| last.as_deref() == Some("7")).count(),
        1,
        "taken up once, where it broke off"
    );
    let answered = seen.iter().find(|(_, message, _)| message["result"]["roots"].is_array()).expect("an answer");
    assert_eq!(answered.1["id"], 0);
    assert!(answered.1["result"]["roots"][0]["uri"].as_str().unwrap().starts_with("file:///"));
    let calls = seen.iter().filter(|(method, ..)| method == "tools/call").count();
    assert_eq!(calls, 2, "no request is sent twice");
    daemon.stop();
}

#[test]
fn an_expired_session_costs_one_error_and_a_changed_list_is_taken_over() {
    let session = Arc::new(AtomicU32::new(0));
    let (current, listed) = (session.clone(), Arc::new(AtomicU32::new(0)));
    let url = serve(move |asked| {
        let own = format!("session-{}", current.load(Ordering::SeqCst));
        if asked.method() == "initialize" {
            assert_eq!(asked.header("mcp-session-id"), None);
            let id = format!("session-{}", current.fetch_add(1, Ordering::SeqCst) + 1);
            let (status, mut headers, body) = initialized(asked, "2025-06-18");
            headers.push(("Mcp-Session-Id", id));
            return (status, headers, body);
        }
        if asked.header("mcp-session-id") != Some(own.as_str())
            || asked.header("mcp-protocol-version") != Some("2025-06-18")
        {
            return empty(404);
        }
        match asked.method() {
            "tools/list" if listed.fetch_add(1, Ordering::SeqCst) == 0 => plain(asked.result(tools(&["one"]))),
            "tools/list" => plain(asked.result(tools(&["one", "two"]))),
            "GET" => {
                let note = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
                events(format!("retry: 20000\ndata: {note}\n\n"))
            }
            "tools/call" => plain(asked.result(json!({"content": []}))),
            _ => empty(202),
        }
    });
    let home = Home::new("mcp_http_session", None);
    let daemon = start(&home, &url, "");
    eventually("the changed list is there", || (server(&daemon)["tools"] == json!(["one", "two"])).then_some(()));
    assert_eq!(call(&daemon, "two", json!({})).status, 200);
    session.fetch_add(1, Ordering::SeqCst);
    let refused = call(&daemon, "two", json!({}));
    assert!(refused.status == 502 && refused.json()["detail"].as_str().unwrap().contains("session"), "{refused:?}");
    eventually("it is connected anew", || (server(&daemon)["connect_count"] == 2).then_some(()));
    eventually("calls go on", || (call(&daemon, "one", json!({})).status == 200).then_some(()));
    daemon.stop();
}

#[test]
fn a_server_without_handshake_gets_its_envelope_in_every_request_and_may_ask_first() {
    let seen = Arc::new(Mutex::new(Vec::<Value>::new()));
    let log = seen.clone();
    let url = serve(move |asked| {
        let envelope = &asked.message["params"]["_meta"];
        let version = "2026-07-28";
        let is_whole = asked.header("mcp-protocol-version") == Some(version)
            && envelope["io.modelcontextprotocol/protocolVersion"] == version
            && envelope["io.modelcontextprotocol/clientCapabilities"].is_object()
            && asked.header("mcp-method") == Some(asked.method());
        if !is_whole || asked.verb != "POST" {
            return empty(400);
        }
        log.lock().unwrap().push(asked.message.clone());
        let schema = json!({"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}});
        let bad = json!({"type": "object", "properties": {"r": {"type": "number", "x-mcp-header": "R"}}});
        plain(asked.result(match asked.method() {
            "server/discover" => json!({"supportedVersions": [version], "capabilities": {"tools": {}}, "ttlMs": 1}),
            "tools/list" => {
                json!({"tools": [{"name": "go", "inputSchema": schema}, {"name": "bad", "inputSchema": bad}]})
            }
            _ if asked.message["params"]["inputResponses"].is_null() => {
                assert_eq!((asked.header("mcp-name"), asked.header("mcp-param-region")), (Some("go"), Some("eu")));
                json!({"resultType": "input_required", "requestState": "opaque",
                    "inputRequests": {"where": {"method": "roots/list"}}})
            }
            _ => json!({"resultType": "complete", "content": [{"type": "text", "text": "done"}]}),
        }))
    });
    let home = Home::new("mcp_http_stateless", None);
    let daemon = start(&home, &url, "protocol = '2026-07-28'\n");
    let shown = connected(&daemon);
    assert_eq!((&shown["protocol_version"], &shown["tools"]), (&json!("2026-07-28"), &json!(["go"])));
    let reply = call(&daemon, "go", json!({"region": "eu"}));
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.json()["result"]["content"][0]["text"], "done");
    let seen = seen.lock().unwrap();
    let calls: Vec<&Value> = seen.iter().filter(|message| message["method"] == "tools/call").collect();
    assert_eq!(calls.len(), 2);
    assert_ne!(calls[0]["id"], calls[1]["id"]);
    assert_eq!(calls[1]["params"]["requestState"], "opaque");
    assert!(calls[1]["params"]["inputResponses"]["where"]["roots"].is_array());
    daemon.stop();
}

#[test]
fn a_redirect_to_another_origin_and_an_answer_to_another_request_are_refused() {
    let url = serve(|asked| match asked.method() {
        "initialize" => initialized(asked, "2025-06-18"),
        "tools/list" => plain(asked.result(tools(&["away", "other", "taken", "torn"]))),
        "tools/call" => match asked.message["params"]["name"].as_str().unwrap() {
            "away" => (307, vec![("location", "http://127.0.0.2:9/mcp".to_string())], String::new()),
            "other" => plain(json!({"jsonrpc": "2.0", "id": 999_999, "result": {}}).to_string()),
            "taken" => empty(202),
            _ => plain("{\"jsonrpc\":\"2.0\",".to_string()),
        },
        "GET" => empty(405),
        _ => empty(202),
    });
    let home = Home::new("mcp_http_refused", None);
    let daemon = start(&home, &url, "");
    connected(&daemon);
    for (tool, words) in
        [("away", "another origin"), ("other", "another request"), ("taken", "gives no answer"), ("torn", "no JSON")]
    {
        let reply = call(&daemon, tool, json!({}));
        let detail = reply.json()["detail"].as_str().unwrap_or_default().to_string();
        assert!(reply.status == 502 && detail.contains(words), "{tool}: {detail}");
    }
    assert_eq!(server(&daemon)["connect_count"], 1);
    daemon.stop();
}
