//! Accounts at MCP servers, from the login in a browser to a client that the authorization server has forgotten. Resource and
//! authorization server are one socket and a function; the browser is two requests.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
#[path = "mcp_support/web.rs"]
mod web;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};

use daemon::{Daemon, Home, eventually};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use web::{Asked, Reply, empty, plain, serve};

/// The fields of a form or a query.
type Fields = BTreeMap<String, String>;

fn fields(text: &str) -> Fields {
    let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_string(), decoded(value)))
        .collect()
}

/// What the authorization server knows and has seen.
#[derive(Default)]
struct Server {
    /// The resource has no metadata of its own, as in the oldest revision with accounts.
    is_old: bool,
    /// Members that its metadata has beside the usual ones.
    metadata: Value,
    /// What a registration is answered beside the id.
    registered: Value,
    clients: u32,
    /// Clients that it has forgotten.
    forgotten: Vec<String>,
    codes: BTreeMap<String, Fields>,
    /// Access tokens with their scopes.
    tokens: BTreeMap<String, String>,
    refresh_tokens: BTreeMap<String, String>,
    issued: Vec<String>,
    registrations: Vec<Value>,
    authorizations: Vec<Fields>,
    /// Forms of the token endpoint, with the header line of the client.
    exchanges: Vec<(Fields, Option<String>)>,
}

type Shared = Arc<Mutex<Server>>;

fn lock(server: &Shared) -> MutexGuard<'_, Server> {
    server.lock().unwrap()
}

/// The resource that the metadata names: with a slash at its end, which must not get lost.
fn resource(asked: &Asked) -> String {
    format!("{}/", origin(asked))
}

fn origin(asked: &Asked) -> String {
    format!("http://{}", asked.header("host").expect("a host"))
}

fn challenged(server: &Shared, asked: &Asked, status: u16, more: &str) -> Reply {
    if lock(server).is_old {
        return (status, vec![("www-authenticate", format!("Bearer realm=\"old\"{more}"))], String::new());
    }
    let value =
        format!("Bearer resource_metadata=\"{}/.well-known/oauth-protected-resource/mcp\"{more}", origin(asked));
    (status, vec![("www-authenticate", value)], String::new())
}

fn answer(server: &Shared, asked: &Asked) -> Reply {
    let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
    let origin = origin(asked);
    match path {
        "/mcp" => mcp(server, asked),
        "/.well-known/oauth-protected-resource/mcp" => plain(
            json!({"resource": resource(asked), "authorization_servers": [origin], "scopes_supported": ["decoy"]})
                .to_string(),
        ),
        "/.well-known/oauth-authorization-server" => {
            let mut metadata = json!({"issuer": origin, "authorization_endpoint": format!("{origin}/authorize"),
                "token_endpoint": format!("{origin}/token"), "registration_endpoint": format!("{origin}/register"),
                "response_types_supported": ["code"], "code_challenge_methods_supported": ["S256"]});
            metadata.as_object_mut().unwrap().extend(lock(server).metadata.as_object().cloned().unwrap_or_default());
            plain(metadata.to_string())
        }
        "/register" => {
            let mut server = lock(server);
            server.registrations.push(asked.message.clone());
            server.clients += 1;
            let mut reply = json!({"client_id": format!("client-{}", server.clients)});
            reply.as_object_mut().unwrap().extend(server.registered.as_object().cloned().unwrap_or_default());
            (201, vec![("content-type", "application/json".to_string())], reply.to_string())
        }
        "/authorize" => {
            let mut server = lock(server);
            let asked = fields(query);
            let code = format!("code-{}", server.authorizations.len());
            let location = format!("{}?code={code}&state={}", asked["redirect_uri"], asked["state"]);
            server.authorizations.push(asked.clone());
            server.codes.insert(code, asked);
            (302, vec![("location", location)], String::new())
        }
        "/token" => token(&mut lock(server), asked),
        _ => empty(404),
    }
}

fn token(server: &mut Server, asked: &Asked) -> Reply {
    let form = fields(&asked.body);
    server.exchanges.push((form.clone(), asked.header("authorization").map(str::to_string)));
    let refused = |error: &str| (400, Vec::new(), json!({"error": error}).to_string());
    let client = form.get("client_id").cloned().unwrap_or_default();
    if server.forgotten.contains(&client) {
        return refused("invalid_client");
    }
    let scope = match form["grant_type"].as_str() {
        "authorization_code" => server.codes.remove(&form["code"]).and_then(|asked| asked.get("scope").cloned()),
        _ => server.refresh_tokens.remove(&form["refresh_token"]),
    };
    let Some(scope) = scope else { return refused("invalid_grant") };
    let number = server.issued.len();
    let (access, refresh) = (format!("access-token-canary-{number}"), format!("refresh-token-canary-{number}"));
    server.tokens.insert(access.clone(), scope.clone());
    server.refresh_tokens.insert(refresh.clone(), scope.clone());
    server.issued.extend([access.clone(), refresh.clone()]);
    plain(json!({"access_token": access, "refresh_token": refresh, "token_type": "Bearer", "scope": scope}).to_string())
}

fn mcp(server: &Shared, asked: &Asked) -> Reply {
    let bearer = asked.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let scopes = bearer.and_then(|token| lock(server).tokens.get(token).cloned());
    match (asked.method(), scopes) {
        // It greets everybody, and asks for a credential later.
        ("initialize", _) => {
            plain(asked.result(json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
            "serverInfo": {"name": "notes", "version": "1"}})))
        }
        ("GET" | "DELETE", _) => empty(405),
        ("notifications/initialized", _) => empty(202),
        (_, None) => challenged(server, asked, 401, ", scope=\"read\""),
        ("tools/list", Some(_)) => {
            let tool = |name| json!({"name": name, "inputSchema": {"type": "object"}});
            plain(asked.result(json!({"tools": [tool("read"), tool("write"), tool("never")]})))
        }
        (_, Some(scopes)) => {
            let tool = asked.message["params"]["name"].as_str().unwrap_or_default();
            let wanted = if tool == "never" { "read" } else { tool };
            let has = |wanted: &str| scopes.split(' ').any(|scope| scope == wanted);
            match tool != "never" && has(wanted) {
                true => plain(asked.result(json!({"content": [{"type": "text", "text": "well"}]}))),
                false => challenged(server, asked, 403, &format!(", error=\"insufficient_scope\", scope=\"{wanted}\"")),
            }
        }
    }
}

struct World {
    server: Shared,
    url: String,
    home: Home,
    daemon: Daemon,
}

/// A daemon with the server `notes`; `metadata` and `registered` are what the authorization server says beside the usual.
fn world(name: &str, metadata: Value, registered: Value) -> World {
    let server: Shared = Arc::new(Mutex::new(Server { metadata, registered, ..Server::default() }));
    let state = server.clone();
    let url = serve(move |asked| answer(&state, asked));
    let home = Home::with_slot(name, None);
    let file = home.join("mcp.toml");
    let config = format!("[mcp_servers.notes]\nurl = '{url}'\noauth_slot_ref = 'mcp.oauth.notes'\n");
    std::fs::write(&file, config).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let daemon = home.serve().options(&["--mcp-config", file.to_str().unwrap()]).start();
    World { server, url, home, daemon }
}

/// One GET; its head.
fn get(url: &str) -> String {
    let rest = url.strip_prefix("http://").expect("http");
    let (host, path) = rest.split_once('/').expect("a path");
    let mut stream = TcpStream::connect(host).expect("it listens");
    write!(stream, "GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

impl World {
    /// Logs in; exit code and standard error.
    fn login(&self, more: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kheish-daemon"));
        command.env_clear().arg("--base-url").arg(self.daemon.base_url());
        command.arg("--token-file").arg(self.home.token_file());
        command.args(["mcp", "oauth", "login", "notes", "--url", &self.url, "--no-open", "--allow-http-for-loopback"]);
        let piped = command.args(more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("it runs");
        let mut errors = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut said = String::new();
        errors.read_line(&mut said).expect("text");
        if let Some(opened) = said.find('{').and_then(|at| serde_json::from_str::<Value>(&said[at..]).ok()) {
            let head = get(opened["authorization_url"].as_str().expect("an address"));
            let line = head.lines().find(|line| line.to_lowercase().starts_with("location:")).expect("a redirect");
            get(line["location:".len()..].trim());
        }
        errors.read_to_string(&mut said).expect("text");
        (child.wait().expect("a child").code(), said)
    }

    fn call(&self, tool: &str) -> http::Reply {
        self.daemon.post("/v1/mcp/servers/notes/tools/call", &json!({"tool": tool, "arguments": {}}))
    }

    fn view(&self) -> Value {
        self.daemon.get("/v1/mcp/servers/notes").json()
    }

    /// Ends the daemon: no token may stand in its log or anywhere below its state root.
    fn end(self) {
        let issued = lock(&self.server).issued.clone();
        assert!(!issued.is_empty());
        let log = self.daemon.stop();
        assert!(!log.contains("-token-canary-"), "{log}");
        let mut places = vec![self.home.root()];
        while let Some(place) = places.pop() {
            for entry in std::fs::read_dir(&place).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    places.push(entry.path());
                } else if entry.file_type().unwrap().is_file() {
                    let bytes = std::fs::read(entry.path()).unwrap();
                    assert!(!String::from_utf8_lossy(&bytes).contains("-token-canary-"), "{:?}", entry.path());
                }
            }
        }
    }
}

#[test]
fn a_registered_client_proves_itself_as_it_was_told_and_the_resource_stays_byte_for_byte() {
    let metadata = json!({"token_endpoint_auth_methods_supported": ["client_secret_basic"]});
    let registered =
        json!({"client_secret": "client secret/+canary", "token_endpoint_auth_method": "client_secret_basic"});
    let world = world("mcp_oauth_basic", metadata, registered);
    let (code, said) = world.login(&[]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(world.call("read").status, 200);
    let (code, _, said) = world.home.cli(&world.daemon, &["mcp", "oauth", "refresh", "notes"]);
    assert_eq!(code, 0, "{said}");
    {
        let server = lock(&world.server);
        assert_eq!(server.registrations[0]["token_endpoint_auth_method"], "client_secret_basic");
        let wanted = format!("{}/", world.url.strip_suffix("/mcp").unwrap());
        assert_eq!(server.authorizations[0]["resource"], wanted);
        assert_eq!(server.authorizations[0]["scope"], "read", "what the challenge asks for, not what there is");
        assert_eq!(server.exchanges.len(), 2);
        for (form, line) in &server.exchanges {
            assert_eq!(form["resource"], wanted);
            // `client-1` and the secret, percent-encoded first.
            assert_eq!(line.as_deref(), Some("Basic Y2xpZW50LTE6Y2xpZW50JTIwc2VjcmV0JTJGJTJCY2FuYXJ5"));
            assert!(!form.contains_key("client_id") && !form.contains_key("client_secret"), "{form:?}");
        }
        assert_eq!(server.exchanges[1].0["grant_type"], "refresh_token");
    }
    world.end();
}

#[test]
fn a_call_that_needs_more_says_which_login_and_that_login_asks_for_all_of_it() {
    let world = world("mcp_oauth_step_up", Value::Null, Value::Null);
    assert_eq!(world.login(&[]).0, Some(0));
    assert_eq!(world.call("read").status, 200);
    let refused = world.call("write");
    let detail = refused.json()["detail"].as_str().unwrap().to_string();
    assert!(
        refused.status == 409 && detail.contains("read write") && detail.contains("mcp oauth login notes"),
        "{detail}"
    );
    assert_eq!(world.view()["wanted_scopes"], json!(["read", "write"]));
    assert_eq!(world.login(&[]).0, Some(0));
    assert_eq!(lock(&world.server).authorizations[1]["scope"], "read write");
    eventually("the new account is used", || (world.call("write").status == 200).then_some(()));
    eventually("nothing is wanted any more", || world.view()["wanted_scopes"].is_null().then_some(()));
    // One that refuses whatever the account has is not logged in for again and again.
    let refused = world.call("never").json()["detail"].as_str().unwrap().to_string();
    assert!(refused.contains("refuses all the same") && !refused.contains("mcp oauth login"), "{refused}");
    assert_eq!(world.view()["wanted_scopes"], Value::Null);
    world.end();
}

#[test]
fn the_address_of_a_document_is_the_client_where_it_is_read_and_only_there() {
    let document = "https://client.example/kheish.json";
    let world = world("mcp_oauth_document", json!({"client_id_metadata_document_supported": true}), Value::Null);
    let (code, said) = world.login(&["--client-metadata-url", "https://client.example"]);
    assert!(code == Some(1) && said.contains("no https address with a path"), "{said}");
    assert_eq!(world.login(&["--client-metadata-url", document]).0, Some(0));
    lock(&world.server).metadata = Value::Null;
    assert_eq!(world.login(&["--client-metadata-url", document]).0, Some(0));
    {
        let server = lock(&world.server);
        let ids: Vec<&String> = server.authorizations.iter().map(|asked| &asked["client_id"]).collect();
        assert_eq!(ids, [document, "client-1"]);
        assert_eq!(server.registrations.len(), 1);
        assert!(server.exchanges.iter().all(|(form, line)| line.is_none() && !form.contains_key("client_secret")));
    }
    world.end();
}

#[test]
fn a_client_that_was_forgotten_is_registered_anew_by_the_next_login() {
    let world = world("mcp_oauth_forgotten", Value::Null, Value::Null);
    assert_eq!(world.login(&[]).0, Some(0));
    lock(&world.server).forgotten.push("client-1".to_string());
    let (code, _, said) = world.home.cli(&world.daemon, &["mcp", "oauth", "refresh", "notes"]);
    assert!(code != 0 && said.contains("invalid_client") && said.contains("log in again"), "{said}");
    assert_eq!(world.login(&[]).0, Some(0));
    assert_eq!(lock(&world.server).authorizations[1]["client_id"], "client-2");
    let (code, _, said) = world.home.cli(&world.daemon, &["mcp", "oauth", "refresh", "notes"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(world.call("read").status, 200);
    world.end();
}

#[test]
fn a_token_that_the_server_does_not_take_any_more_is_exchanged_once_and_the_call_goes_on() {
    let world = world("mcp_oauth_401", Value::Null, Value::Null);
    assert_eq!(world.login(&[]).0, Some(0));
    assert_eq!(world.call("read").status, 200);
    // It ends before its time, of which nothing was said.
    lock(&world.server).tokens.clear();
    let reply = world.call("read");
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(lock(&world.server).exchanges.len(), 2);
    // Where there is no other one, that is said at once.
    {
        let mut server = lock(&world.server);
        server.tokens.clear();
        server.refresh_tokens.clear();
    }
    let refused = world.call("read").json()["detail"].as_str().unwrap().to_string();
    assert!(refused.contains("wants another credential"), "{refused}");
    world.end();
}

#[test]
fn a_server_without_metadata_of_its_own_is_its_own_authorization_server_and_cannot_be_anybody_elses() {
    let world = world("mcp_oauth_old", json!({"issuer": "https://accounts.example"}), Value::Null);
    lock(&world.server).is_old = true;
    let (code, said) = world.login(&[]);
    assert!(code == Some(1) && said.contains("names another issuer"), "{said}");
    assert!(lock(&world.server).authorizations.is_empty());
    lock(&world.server).metadata = Value::Null;
    assert_eq!(world.login(&[]).0, Some(0));
    assert_eq!(world.call("read").status, 200);
    world.end();
}
