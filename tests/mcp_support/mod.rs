//! Servers for tests: a shell script on standard input and output, and one over HTTP that wants a bearer token.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::daemon::{Daemon, Home, Place, Provider, eventually};
use crate::http::Reply;

/// What the HTTP server accepts at first.
pub const SECRET: &str = "first-bearer-secret-0123456789";

/// Speaks 2025-06-18. Its tools are named after what they do.
pub const SCRIPT: &str = r#"#!/bin/bash
say() { printf '%s\n' "$1"; }
tool() { printf '{"name":"%s","description":"d","inputSchema":{"type":"object"}}' "$1"; }
result() { say "{\"jsonrpc\":\"2.0\",\"id\":$1,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"$2\"}]}}"; }
echo "not a message"
echo "warning: a banner" >&2
while IFS= read -r line; do
  id=${line#*\"id\":}; id=${id%%[,\}]*}
  case $line in
  *'"method":"initialize"'*)
    say "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{\"tools\":{\"listChanged\":true}},\"serverInfo\":{\"name\":\"script\",\"version\":\"1\"}}}"
    say '{"jsonrpc":"2.0","id":0,"method":"roots/list"}' ;;
  *'"method":"tools/list"'*)
    if [[ $line == *cursor* ]]; then
      say "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"tools\":[$(tool env),$(tool quiet.tool),$(tool long)]}}"
    else
      say "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"tools\":[$(tool add),$(tool hang),$(tool die),$(tool flood)],\"nextCursor\":\"2\"}}"
    fi ;;
  *'"method":"tools/call"'*'"name":"add"'*)
    [[ $line == *null* ]] && exit 9
    n=${line#*\"a\":}; n=${n%%[,\}]*}
    say '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"x","progress":1}}'
    result "$id" "sum of $n" ;;
  *'"name":"env"'*) result "$id" "$(env | tr '\n' ' ')" ;;
  *'"name":"hang"'*) ;;
  *'"name":"die"'*) exit 7 ;;
  *'"name":"flood"'*) yes '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}' ;;
  *'"name":"long"'*) head -c 9000000 /dev/zero | tr '\0' 'x'; sleep 1000 ;;
  *'"method":"ping"'*) say "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{}}" ;;
  esac
done
"#;

/// Processes whose command line holds `mark`.
pub fn processes_with(mark: &str) -> Vec<u32> {
    let pids =
        std::fs::read_dir("/proc").expect("proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(mark))
    })
    .collect()
}

#[derive(Default)]
struct Seen {
    accepted: Vec<String>,
    refused: u32,
    unauthorised: u32,
    requests: Vec<(String, Option<Value>)>,
}

/// Answers with plain JSON, and offers no stream.
pub struct BearerServer {
    server: Arc<tiny_http::Server>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

impl BearerServer {
    pub fn start() -> Self {
        let server = Arc::new(tiny_http::Server::http("127.0.0.1:0").expect("a port"));
        let seen = Arc::new(Mutex::new(Seen { accepted: vec![SECRET.to_string()], ..Seen::default() }));
        let (listening, state) = (server.clone(), seen.clone());
        let thread = std::thread::spawn(move || {
            while let Ok(request) = listening.recv() {
                answer(request, &state);
            }
        });
        Self { server, seen, thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.server.server_addr().to_ip().expect("an address"))
    }

    /// Takes only `secret` from here on.
    pub fn accept(&self, secret: &str) {
        self.seen.lock().unwrap().accepted = vec![secret.to_string()];
    }

    /// Whether every request had some bearer token.
    pub fn all_authorised(&self) -> bool {
        self.seen.lock().unwrap().unauthorised == 0
    }

    /// Methods in order.
    pub fn methods(&self) -> Vec<String> {
        self.seen.lock().unwrap().requests.iter().map(|(method, _)| method.clone()).collect()
    }
}

impl Drop for BearerServer {
    fn drop(&mut self) {
        self.server.unblock();
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn answer(mut request: tiny_http::Request, state: &Mutex<Seen>) {
    let bearer = request.headers().iter().find(|header| header.field.equiv("authorization"));
    let bearer = bearer.and_then(|header| header.value.as_str().strip_prefix("Bearer ").map(str::to_string));
    let mut body = String::new();
    request.as_reader().read_to_string(&mut body).expect("a body");
    let message: Option<Value> = serde_json::from_str(&body).ok();
    let verb = request.method().to_string();
    let method = message.as_ref().and_then(|message| message["method"].as_str()).unwrap_or(&verb).to_string();
    let known = {
        let mut seen = state.lock().unwrap();
        let known = bearer.as_ref().is_some_and(|bearer| seen.accepted.contains(bearer));
        seen.unauthorised += u32::from(bearer.is_none());
        seen.refused += u32::from(!known);
        seen.requests.push((method.clone(), message.clone()));
        known
    };
    let header = |text: &str| text.parse::<tiny_http::Header>().expect("a header");
    let empty = |status: u16| tiny_http::Response::empty(status);
    let done = match (known, verb.as_str(), message) {
        (false, ..) => {
            request.respond(empty(401).with_header(header("WWW-Authenticate: Bearer error=\"invalid_token\"")))
        }
        (true, "POST", Some(message)) if message["id"].is_u64() => {
            let result = match method.as_str() {
                "initialize" => json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                    "serverInfo": {"name": "web", "version": "1"}}),
                "tools/list" => json!({"tools": [{"name": "hello", "inputSchema": {"type": "object"}}]}),
                _ => json!({"content": [{"type": "text", "text": "hello"}]}),
            };
            let reply = json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string();
            request
                .respond(tiny_http::Response::from_string(reply).with_header(header("Content-Type: application/json")))
        }
        (true, "POST", _) => request.respond(empty(202)),
        (true, ..) => request.respond(empty(405)),
    };
    drop(done);
}

/// A provider whose model calls `tool` with `arguments` when it is told `name`.
pub fn provider(calls: &[(&str, &str, Value)]) -> Provider {
    let mut script = String::new();
    let text = |text: &str| serde_json::to_string(text).expect("a text is a TOML string as well");
    for (name, tool, arguments) in calls {
        script += &format!(
            "[[turn]]\nmatch = {name}\nmatch_result = \"{result}\"\ntext = \"done\"\n\
             [[turn]]\nmatch = {name}\ntool_calls = [{{ name = {tool}, arguments = {arguments} }}]\n",
            name = text(name),
            result = ":",
            tool = text(tool),
            arguments = text(&arguments.to_string()),
        );
    }
    Provider::start(&script)
}

/// A daemon whose servers are those of `config`; the script lies in its workspace, and nobody is asked about calls.
pub fn serve_with(home: &Home, workspace: &Place, script: &str, config: &str) -> Daemon {
    let place = workspace.join("server.sh");
    std::fs::write(&place, script).expect("a script");
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755)).expect("a script");
    let file = home.join("mcp.toml");
    std::fs::write(&file, config).expect("a configuration");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("a configuration");
    let options = ["--mcp-config", file.to_str().expect("a path")];
    let daemon = home.serve().workspace(&workspace.join("")).options(&options).start();
    let reply = daemon.post("/v1/runtime/permission-mode", &json!({"mode": "bypassPermissions"}));
    assert_eq!(reply.status, 200, "{reply:?}");
    daemon
}

pub fn server(daemon: &Daemon, name: &str) -> Value {
    let reply = daemon.get(&format!("/v1/mcp/servers/{name}"));
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

pub fn connected(daemon: &Daemon, name: &str) -> Value {
    eventually(&format!("{name} is connected"), || {
        let seen = server(daemon, name);
        (seen["connected"] == true).then_some(seen)
    })
}

pub fn call(daemon: &Daemon, server: &str, tool: &str, arguments: Value) -> Reply {
    daemon.post(&format!("/v1/mcp/servers/{server}/tools/call"), &json!({"tool": tool, "arguments": arguments}))
}
