//! The API front over the real edge, with a route table made for the purpose.

mod api_check;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api_check::{Answer, Client, Target, call};
use crossbeam_channel::{Receiver, Sender, bounded};
use kheish_daemon::api::access_log::AccessLog;
use kheish_daemon::api::auth::{Auth, AuthConfig, TokenSource};
use kheish_daemon::api::builtin::{self, Builtin};
use kheish_daemon::api::call::{Call, Reply};
use kheish_daemon::api::cors::{CorsPolicy, HostPolicy};
use kheish_daemon::api::front::{Front, FrontParts};
use kheish_daemon::api::openapi;
use kheish_daemon::api::paging::{CURSOR, LIMIT, ORDER, PAGE, Page, PageRequest};
use kheish_daemon::api::query::{QueryKind, QueryParam};
use kheish_daemon::api::route::{Access, Handler, Request, Route, Schema, Success, Witness};
use kheish_daemon::api::schemas::Component;
use kheish_daemon::audit::control_plane::{AuditLimits, ControlPlaneAudit};
use kheish_daemon::clock::SystemClock;
use kheish_daemon::http::problem::{Problem, codes};
use kheish_daemon::http::{Bind, Edge, EdgeConfig, Lane, Method, Response, request_id};
use kheish_daemon::sse::StillAllowed;
use kheish_daemon::worker::Worker;
use serde::Deserialize;
use serde_json::Value;

const ADMIN: &str = "admin-token-0001-xyz";
const READER: &str = "reader-token-0001-xyz";

/// What the table's handlers work on.
#[derive(Default)]
struct Fake {
    unready: AtomicBool,
    changes: AtomicU64,
    workers: Mutex<Vec<Worker>>,
    stream: Mutex<Option<StillAllowed>>,
}

impl Builtin for Fake {
    fn readiness(&self) -> Result<(), Problem> {
        match self.unready.load(Ordering::SeqCst) {
            false => Ok(()),
            true => Err(Problem::new(&codes::DAEMON_DRAINING, "the daemon is shutting down").retry_after(5)),
        }
    }

    fn openapi(&self) -> Vec<u8> {
        openapi::document(ROUTES, &[COMPONENTS])
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Thing {
    name: String,
}

static COMPONENTS: &[Component] = &[Component { name: "Thing", schema: r#"{"type": "object"}"# }];

const THING: Success = Success::Json { status: 200, schema: Schema::Ref("Thing") };

const fn read(path: &'static str, success: Success, handler: Handler<Fake>) -> Route<Fake> {
    Route {
        method: Method::Get,
        path,
        access: Access::ReadOnly,
        body_bytes_max: 0,
        witness: Witness::AuditFile,
        lane: Lane::Inline,
        summary: "A made-up read for this test.",
        query: &[],
        request: None,
        success,
        problems: &[],
        handler,
    }
}

const fn write(path: &'static str, optional: bool, handler: Handler<Fake>) -> Route<Fake> {
    Route {
        method: Method::Post,
        access: Access::Admin,
        body_bytes_max: 1_000,
        witness: Witness::AuditFile,
        lane: Lane::Worker,
        summary: "A made-up write for this test.",
        request: Some(Request { schema: "Thing", optional }),
        ..read(path, THING, handler)
    }
}

static ROUTES: &[Route<Fake>] = &[
    builtin::healthz(),
    builtin::readyz(),
    builtin::capabilities(),
    builtin::openapi(),
    Route {
        query: &[
            PAGE,
            LIMIT,
            CURSOR,
            ORDER,
            QueryParam { name: "session_id", kind: QueryKind::Session, summary: "Only of this session." },
            QueryParam { name: "run_id", kind: QueryKind::Run, summary: "Only of this run." },
            QueryParam { name: "state", kind: QueryKind::OneOf(&["new", "old"]), summary: "Only in this state." },
            QueryParam { name: "wait_ms", kind: QueryKind::Unsigned, summary: "How long to wait." },
            QueryParam { name: "q", kind: QueryKind::Text(5), summary: "Words to look for." },
        ],
        ..read("/v1/things", Success::Json { status: 200, schema: Schema::List("Thing") }, Handler::Plain(list))
    },
    write("/v1/things", false, Handler::Plain(create)),
    read("/v1/things/{thing_id}", THING, Handler::Plain(|_, call| Ok(Response::text(200, call.param("thing_id")?)))),
    Route {
        method: Method::Delete,
        access: Access::Admin,
        ..read(
            "/v1/things/{thing_id}",
            THING,
            Handler::Plain(|fake, call| {
                call.param("thing_id")?;
                Ok(Response::json(200, &fake.changes.fetch_add(1, Ordering::SeqCst)))
            }),
        )
    },
    Route {
        problems: &[&codes::SESSION_NOT_FOUND, &codes::IDEMPOTENCY_CONFLICT, &codes::INVALID_IDEMPOTENCY_KEY],
        ..write("/v1/sessions/{session_id}/runs", false, Handler::Deferred(submit))
    },
    Route { problems: &[&codes::RUN_NOT_FOUND], ..write("/v1/runs/{run_id}/cancel", true, Handler::Plain(cancel)) },
    Route {
        query: &[QueryParam { name: "cursor", kind: QueryKind::EventCursor, summary: "The last event seen." }],
        ..read("/v1/stream", Success::Events, Handler::Deferred(stream))
    },
    write(
        "/v1/panic",
        true,
        Handler::Deferred(|_, call, _reply| {
            // The path reaches a panic only past the body's checks, as everywhere.
            call.no_fields().map_or_else(|problem| _reply.send(problem), |()| panic!("a handler's bug"))
        }),
    ),
    write(
        "/v1/forget",
        true,
        Handler::Deferred(|_, call, reply| match call.no_fields() {
            Ok(()) => drop(reply),
            Err(problem) => reply.send(problem),
        }),
    ),
];

fn list(_: &Fake, call: &Call) -> Result<Response, Problem> {
    let request = PageRequest::read(&call.query)?;
    Ok(Page { items: vec!["a", "b"], total_count: 3, next: Some("b".to_string()), order: "id_asc" }.answer(&request))
}

fn create(fake: &Fake, call: &Call) -> Result<Response, Problem> {
    let thing: Thing = call.json()?;
    fake.changes.fetch_add(1, Ordering::SeqCst);
    Ok(Response::json(200, &thing.name))
}

fn cancel(fake: &Fake, call: &Call) -> Result<Response, Problem> {
    let run = call.run_id()?;
    call.no_fields()?;
    fake.changes.fetch_add(1, Ordering::SeqCst);
    Ok(Response::json(200, &run))
}

/// Answers from another thread, as the core does.
fn submit(fake: &Fake, call: Call, reply: Reply) {
    let parsed = call.session_id().and_then(|session| Ok((session, call.json::<Thing>()?)));
    let changes = fake.changes.load(Ordering::SeqCst);
    let worker = Worker::spawn("late", move || {
        reply.send_result(parsed.map(|(session, thing)| {
            Response::json(202, &(session, thing.name, changes, call.idempotency_key().expect("a legal key")))
        }));
    });
    fake.workers.lock().unwrap().push(worker.expect("a thread"));
}

fn stream(fake: &Fake, call: Call, reply: Reply) {
    let cursor = match call.event_cursor() {
        Ok(cursor) => cursor,
        Err(problem) => return reply.send(problem),
    };
    *fake.stream.lock().unwrap() = reply.still_allowed();
    if let Some(upgraded) = reply.open_stream() {
        let mut bytes = upgraded.pending.clone();
        bytes.extend_from_slice(format!("data: {cursor:?}\n\n").as_bytes());
        (&upgraded.socket).write_all(&bytes).expect("the client reads");
    }
}

/// Writes as the rotation runbook does.
fn rotate(path: &Path, content: &str) {
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh).unwrap();
    file.write_all(content.as_bytes()).unwrap();
    fs::rename(&fresh, path).unwrap();
}

struct Daemon {
    dir: PathBuf,
    address: SocketAddr,
    fake: Arc<Fake>,
    front: Arc<Front<Fake>>,
    audit: ControlPlaneAudit,
    edge: Option<Edge>,
}

impl Daemon {
    fn start() -> Self {
        Self::start_with(true, CorsPolicy::Loopback)
    }

    fn start_with(auth_on: bool, cors: CorsPolicy) -> Self {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("kheish-api-front-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        rotate(&dir.join("admin"), ADMIN);
        rotate(&dir.join("reader"), READER);
        let config = match auth_on {
            false => AuthConfig::Off { tokens_ignored: false },
            true => AuthConfig::Bearer {
                admin: TokenSource::File(dir.join("admin")),
                read_only: Some(TokenSource::File(dir.join("reader"))),
                short_tokens: Vec::new(),
            },
        };
        let audit = ControlPlaneAudit::start(&dir.join("control-plane-auth"), AuditLimits::default(), None).unwrap();
        let fake = Arc::new(Fake::default());
        let front = Arc::new(Front::new(FrontParts {
            routes: ROUTES,
            context: Arc::clone(&fake),
            auth: Arc::new(Auth::open(config, Arc::new(SystemClock)).unwrap()),
            cors,
            hosts: HostPolicy::default(),
            audit: audit.clone(),
            access_log: AccessLog::start().unwrap(),
            clock: Arc::new(SystemClock),
        }));
        let edge = Edge::start(EdgeConfig::new(Bind::Tcp("127.0.0.1:0".parse().unwrap())), Arc::clone(&front)).unwrap();
        let address = edge.local_addr().tcp().unwrap();
        Self { dir, address, fake, front, audit, edge: Some(edge) }
    }

    fn target(&self) -> Target<'_> {
        Target { address: self.address, admin: ADMIN, read_only: READER }
    }

    fn call(&self, method: &str, path: &str, token: Option<&str>, body: Option<&str>) -> Answer {
        let bearer = format!("Bearer {}", token.unwrap_or_default());
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(token.map(|_| ("authorization", bearer.as_str())));
        call(self.address, method, path, &headers, body.map(str::as_bytes))
    }

    /// The audit file's lines, once everything is written.
    fn audit_lines(mut self) -> Vec<Value> {
        self.edge.take().unwrap().stop().unwrap();
        self.audit.stop().unwrap();
        let text = fs::read_to_string(self.dir.join("control-plane-auth/audit.jsonl")).unwrap();
        for secret in [ADMIN, READER, "wrong-token", "hush"] {
            assert!(!text.contains(secret), "the audit file holds {secret}");
        }
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.edge.take());
        drop(self.audit.stop());
        for worker in self.fake.workers.lock().unwrap().drain(..) {
            drop(worker.join());
        }
        // A leftover in the temporary directory harms nobody.
        drop(fs::remove_dir_all(&self.dir));
    }
}

#[test]
fn every_route_refuses_what_it_must_and_changes_nothing_by_it() {
    let daemon = Daemon::start();
    let changes = Arc::clone(&daemon.fake);
    api_check::check_over_http(ROUTES, &daemon.target(), &mut || changes.changes.load(Ordering::SeqCst).to_string());
}

#[test]
fn every_route_admits_the_right_callers_only() {
    let daemon = Daemon::start();
    api_check::check_admission(&daemon.front, ROUTES, ADMIN, READER);
}

#[test]
fn the_openapi_document_is_the_route_table() {
    let daemon = Daemon::start();
    let answer = daemon.call("GET", "/v1/openapi.json", Some(READER), None);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    api_check::check_openapi(ROUTES, &answer.json());
}

#[test]
fn probes_answer_everybody_and_say_whether_the_daemon_is_ready() {
    let daemon = Daemon::start();
    for (path, text) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let answer = call(daemon.address, "GET", path, &[("origin", "https://evil.example"), ("host", "x")][..1], None);
        assert_eq!((answer.status, answer.body.as_slice()), (200, text.as_bytes()), "{path}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.header("access-control-allow-origin"), None);
        let head = daemon.call("HEAD", path, None, None);
        assert_eq!(
            (head.status, head.body.len(), head.header("content-length")),
            (200, 0, Some(&*text.len().to_string()))
        );
        let options = call(daemon.address, "OPTIONS", path, &[("origin", "http://localhost")], None);
        assert_eq!((options.status, options.header("allow")), (405, Some("GET, HEAD")));
    }
    daemon.fake.unready.store(true, Ordering::SeqCst);
    let answer = daemon.call("GET", "/readyz", None, None);
    assert_eq!(
        (answer.status, answer.code().as_str(), answer.header("retry-after")),
        (503, "daemon_draining", Some("5"))
    );
    assert_eq!(answer.json()["domain"], "readiness");
    assert_eq!(daemon.call("GET", "/healthz", None, None).status, 200);
    assert!(daemon.audit_lines().is_empty(), "probes are not audited");
}

#[test]
fn a_good_call_reaches_its_handler_with_everything_read() {
    let daemon = Daemon::start();
    let headers = [
        ("authorization", "Bearer admin-token-0001-xyz"),
        ("content-type", "application/json"),
        ("idempotency-key", " k-1 "),
        ("x-request-id", "mine-7"),
    ];
    let answer = call(daemon.address, "POST", "/v1/sessions/slack%3Aa/runs", &headers, Some(b"{\"name\":\"n\"}"));
    assert_eq!((answer.status, answer.json()), (202, serde_json::json!(["slack:a", "n", 0, "k-1"])));
    assert_eq!(answer.header("x-request-id"), Some("mine-7"));
    let page = daemon.call("GET", "/v1/things?page=true&limit=2", Some(READER), None);
    assert_eq!(
        page.json(),
        serde_json::json!({"items": ["a", "b"], "pagination": {"limit": 2, "total_count": 3, "has_more": true, "order": "id_asc", "next_cursor": "Yg"}})
    );
    let bare = daemon.call("GET", "/v1/things", Some(READER), None);
    assert_eq!((bare.json(), bare.header("x-total-count")), (serde_json::json!(["a", "b"]), Some("3")));
    assert_eq!(daemon.call("POST", "/v1/runs/run-7/cancel", Some(ADMIN), None).json(), "run-7");
    assert_eq!(daemon.call("POST", "/v1/runs/run-7/cancel", Some(ADMIN), Some("{}")).json(), "run-7");
    assert_eq!(daemon.call("GET", "/v1/things/a%2Fb", Some(READER), None).body, b"a/b");
    let capabilities = daemon.call("GET", "/v1/capabilities", Some(READER), None).json();
    assert_eq!((&capabilities["openapi"], &capabilities["approvals"]), (&Value::Bool(true), &Value::Bool(true)));
}

/// The answer once there is one: a look at the token files holds for TOKEN_FILE_CHECK_MS, and a second is promised. As for
/// every promised deadline, a machine that is held up gets five times as much.
fn soon<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        if let Some(answer) = look() {
            return answer;
        }
        assert!(Instant::now() < end, "a token that was replaced is accepted for more than a second");
        std::thread::yield_now();
    }
}

#[test]
fn a_rotated_token_is_refused_within_the_second_on_an_open_connection_and_the_new_one_holds_at_once() {
    let daemon = Daemon::start();
    let mut client = Client::connect(daemon.address);
    let mut status = |token: &str| {
        client.request("GET", "/v1/things", &[("authorization", &format!("Bearer {token}"))], None).status
    };
    let mut old = ADMIN.to_string();
    for round in 0..100 {
        assert_eq!(status(&old), 200, "round {round}");
        let new = format!("admin-token-{round:04}-xyz");
        rotate(&daemon.dir.join("admin"), &new);
        // 60 failures are let through as what they are; more would be limited, which is tested elsewhere.
        let refused = soon(|| Some(status(&old)).filter(|status| *status != 200));
        assert!(refused == 401 || (refused == 429 && round >= 60), "round {round}: {refused}");
        assert_eq!(status(&new), 200, "round {round}");
        assert_eq!(status(READER), 200, "round {round}");
        old = new;
    }
}

#[test]
fn a_reader_file_with_the_admin_token_costs_the_reader_its_role_and_nobody_else() {
    let daemon = Daemon::start();
    rotate(&daemon.dir.join("reader"), ADMIN);
    assert_eq!(daemon.call("GET", "/v1/things", Some(READER), None).code(), "invalid_token");
    assert_eq!(daemon.call("GET", "/v1/things", Some(ADMIN), None).status, 200);
    rotate(&daemon.dir.join("reader"), READER);
    assert_eq!(daemon.call("GET", "/v1/things", Some(READER), None).status, 200);
}

#[test]
fn failures_are_limited_by_peer_and_a_valid_token_never_is() {
    let daemon = Daemon::start();
    let mut limited = 0;
    for n in 0..100 {
        let answer = daemon.call("GET", "/v1/things?token=hush", (n % 2 == 0).then_some("wrong-token"), None);
        match answer.status {
            401 if n < 60 => assert!(answer.header("www-authenticate").is_some()),
            429 if n >= 60 => {
                limited += 1;
                let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
                assert!((1..=60).contains(&wait) && answer.code() == "rate_limited", "{answer:?}");
            }
            status => panic!("failure {n} was answered {status}"),
        }
        assert_eq!(daemon.call("GET", "/v1/things", Some(READER), None).status, 200, "after failure {n}");
    }
    assert_eq!(limited, 40);
    assert_eq!(daemon.front.limited_peer_count(), 1);
    let lines = daemon.audit_lines();
    let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, [vec!["auth_failure"; 60], vec!["auth_rate_limited"]].concat());
    assert!(lines.iter().all(|line| line["code"] == line["event"] && line["path"] == "/v1/things"));
    assert_eq!((&lines[0]["reason"], &lines[1]["reason"]), (&"invalid_token".into(), &"missing_token".into()));
    assert_eq!(lines[0]["required_access"], "read_only");
    assert_eq!(lines[0]["token_fingerprint"].as_str().unwrap().len(), 8);
    assert!(lines[0]["remote_addr"].as_str().unwrap().starts_with("127.0.0.1:"));
}

#[test]
fn every_admin_mutation_leaves_one_line_with_its_outcome() {
    let daemon = Daemon::start();
    let cases = [
        ("POST", "/v1/things?secret=hush", Some("{\"name\":\"hush\"}"), 400),
        ("POST", "/v1/things", Some("{\"name\":\"hush\"}"), 200),
        ("POST", "/v1/things", Some("{\"hush\":1}"), 422),
        ("DELETE", "/v1/things/x", None, 200),
        ("POST", "/v1/sessions/demo/runs", Some("{\"name\":\"x\"}"), 202),
        ("POST", "/v1/forget", None, 500),
        ("POST", "/v1/panic", None, 500),
        ("GET", "/v1/things", None, 200),
        ("PUT", "/v1/things", None, 405),
    ];
    let mut expected = Vec::new();
    for (method, path, body, status) in cases {
        let answer = daemon.call(method, path, Some(ADMIN), body);
        assert_eq!(answer.status, status, "{method} {path}");
        if method != "GET" && status != 405 {
            let path = path.split('?').next().unwrap();
            expected.push((
                method.to_string(),
                path.to_string(),
                status,
                answer.header("x-request-id").unwrap().to_string(),
            ));
        }
    }
    let lines = daemon.audit_lines();
    let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_string();
    let got: Vec<_> = lines
        .iter()
        .map(|line| {
            (
                text(line, "method"),
                text(line, "path"),
                line["status"].as_u64().unwrap() as u16,
                text(line, "request_id"),
            )
        })
        .collect();
    assert_eq!(got, expected);
    for line in &lines {
        assert_eq!((text(line, "event").as_str(), text(line, "role").as_str()), ("admin_action", "admin"));
        assert_eq!(line["token_fingerprint"], lines[0]["token_fingerprint"]);
    }
}

#[test]
fn browser_pages_get_exactly_what_the_policy_allows() {
    let daemon = Daemon::start();
    let page = "http://localhost:5173";
    let preflight = [
        ("origin", page),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    for path in ["/v1/things", "/v1/no-such-route", "/elsewhere"] {
        let answer = call(daemon.address, "OPTIONS", path, &preflight, None);
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(page));
        assert_eq!(answer.header("access-control-allow-methods"), Some("GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS"));
        assert_eq!(answer.header("access-control-max-age"), Some("600"));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        let bare = call(daemon.address, "OPTIONS", path, &[], None);
        assert_eq!((bare.status, bare.header("access-control-allow-origin")), (204, None), "{path}");
        for method in ["OPTIONS", "GET", "POST"] {
            let refused = call(daemon.address, method, path, &[("origin", "https://kheish.example.com")], None);
            assert_eq!((refused.status, refused.code().as_str()), (403, "origin_not_allowed"), "{method} {path}");
            assert!(refused.headers.iter().all(|(name, _)| !name.starts_with("access-control")), "{refused:?}");
        }
    }
    // Every answer to an allowed page is readable for it, whichever layer gave it.
    let bearer = ("authorization", "Bearer admin-token-0001-xyz");
    let json = ("content-type", "application/json");
    for (method, path, headers, status) in [
        ("GET", "/v1/things", vec![bearer], 200),
        ("GET", "/v1/things", vec![], 401),
        ("GET", "/v1/things?x=1", vec![bearer], 400),
        ("GET", "/v1/nothing", vec![bearer], 404),
        ("PUT", "/v1/things", vec![bearer], 405),
        ("POST", "/v1/things", vec![bearer, json], 400),
        ("POST", "/v1/forget", vec![bearer], 500),
        ("POST", "/v1/panic", vec![bearer], 500),
    ] {
        let headers: Vec<_> = headers.into_iter().chain([("origin", page)]).collect();
        let answer = call(daemon.address, method, path, &headers, None);
        assert_eq!(
            (answer.status, answer.header("access-control-allow-origin")),
            (status, Some(page)),
            "{method} {path}"
        );
        assert_eq!(answer.headers.iter().filter(|(name, _)| name == "vary").count(), 1);
    }
    let lines = daemon.audit_lines();
    let rejected: Vec<&Value> = lines.iter().filter(|line| line["event"] == "cors_origin_rejected").collect();
    assert_eq!(rejected.len(), 9);
    assert_eq!(rejected[0]["origin"], "https://kheish.example.com");
    assert_eq!(rejected[0]["reason"], "origin_not_allowed");
}

#[test]
fn a_flood_of_foreign_pages_is_announced_once_and_stays_forbidden() {
    let daemon = Daemon::start_with(true, CorsPolicy::from_flags(&["http://localhost:5173".to_string()]).unwrap());
    for _ in 0..90 {
        let answer = call(daemon.address, "GET", "/v1/things", &[("origin", "http://localhost:5174")], None);
        assert_eq!((answer.status, answer.code().as_str()), (403, "origin_not_allowed"));
    }
    let answer = call(daemon.address, "GET", "/v1/things", &[("origin", "http://localhost:5173")], None);
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (401, "missing_token"),
        "the page is not limited by the other's"
    );
    let events: Vec<String> =
        daemon.audit_lines().iter().map(|line| line["event"].as_str().unwrap().to_string()).collect();
    assert_eq!(events, [vec!["cors_origin_rejected"; 60], vec!["cors_origin_rate_limited", "auth_failure"]].concat());
}

#[test]
fn without_authentication_only_loopback_names_are_served() {
    let daemon = Daemon::start_with(false, CorsPolicy::Loopback);
    assert_eq!(daemon.call("POST", "/v1/things", None, Some("{\"name\":\"x\"}")).status, 200);
    let mut client = Client::connect(daemon.address);
    for (host, status) in
        [("localhost:4000", 200), ("127.0.0.1", 200), ("evil.example", 421), ("localhost.evil.example:80", 421)]
    {
        client.write(format!("GET /v1/things HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes());
        assert_eq!(client.read(false).status, status, "{host}");
    }
    let lines = daemon.audit_lines();
    let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["admin_action", "host_rejected", "host_rejected"]);
    assert_eq!((&lines[0]["role"], &lines[0]["token_fingerprint"]), (&"admin".into(), &Value::Null));
}

#[test]
fn a_stream_opens_with_its_headers_and_learns_when_its_token_is_gone() {
    let daemon = Daemon::start();
    let bearer = ("authorization", "Bearer reader-token-0001-xyz");
    let mut client = Client::connect(daemon.address);
    client.write(b"GET /v1/stream?cursor=3 HTTP/1.1\r\nhost: localhost\r\nlast-event-id: 9\r\norigin: http://localhost:1\r\nauthorization: Bearer reader-token-0001-xyz\r\n\r\n");
    let text = client.read_until(b"data: Some(9)\n\n");
    for wanted in [
        "HTTP/1.1 200 OK\r\n",
        "content-type: text/event-stream\r\n",
        "cache-control: no-cache, no-transform\r\n",
        "x-accel-buffering: no\r\n",
        "access-control-allow-origin: http://localhost:1\r\n",
    ] {
        assert!(text.contains(wanted), "{text}");
    }
    let still_allowed = daemon.fake.stream.lock().unwrap().take().unwrap();
    assert!(still_allowed());
    rotate(&daemon.dir.join("admin"), "another-admin-token");
    assert!(still_allowed(), "the other role's rotation is none of its business");
    rotate(&daemon.dir.join("reader"), "another-reader-token");
    soon(|| (!still_allowed()).then_some(()));
    rotate(&daemon.dir.join("reader"), READER);
    assert!(!still_allowed(), "a stream does not come back to life");

    let head = call(daemon.address, "HEAD", "/v1/stream", &[bearer], None);
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    let invalid = call(daemon.address, "GET", "/v1/stream", &[bearer, ("last-event-id", "x")], None);
    assert_eq!((invalid.status, invalid.code().as_str()), (400, "invalid_event_cursor"));
}

#[test]
fn two_authorization_headers_are_refused() {
    let daemon = Daemon::start();
    let good = ("authorization", "Bearer admin-token-0001-xyz");
    let answer = call(daemon.address, "GET", "/v1/things", &[good, good], None);
    assert_eq!((answer.status, answer.code().as_str()), (401, "malformed_token"));
}

#[test]
fn a_refused_caller_is_answered_before_its_body_is_sent() {
    let daemon = Daemon::start();
    for (headers, status) in [
        ("", 401),
        ("authorization: Bearer reader-token-0001-xyz\r\n", 403),
        ("authorization: Bearer admin-token-0001-xyz\r\ncontent-type: text/plain\r\n", 415),
    ] {
        let mut client = Client::connect(daemon.address);
        // The body never comes; 100 would be the answer of a server that wants it.
        let framing = "content-length: 900\r\nexpect: 100-continue\r\n\r\n";
        client.write(format!("POST /v1/things HTTP/1.1\r\nhost: x\r\n{headers}{framing}").as_bytes());
        assert_eq!(client.read(false).status, status);
    }
}

#[test]
fn every_request_is_logged_once_with_its_id_and_without_its_secrets() {
    let lines = captured_log();
    let daemon = Daemon::start();
    let secret = ("x-request-id", "logged-request-1");
    let cases = [
        ("GET", "/v1/things?q=hush", vec![("authorization", "Bearer admin-token-0001-xyz")], 200),
        ("GET", "/v1/things", vec![("authorization", "Bearer wrong-token")], 401),
        ("GET", "/v1/a'b%0a", vec![("authorization", "Bearer admin-token-0001-xyz")], 404),
        ("POST", "/v1/forget", vec![("authorization", "Bearer admin-token-0001-xyz")], 500),
    ];
    for (method, path, headers, status) in &cases {
        let headers: Vec<_> = headers.iter().copied().chain([secret]).collect();
        assert_eq!(call(daemon.address, method, path, &headers, None).status, *status);
    }
    let mine: Vec<String> = (0..cases.len())
        .map(|_| {
            loop {
                let (id, line) = lines.recv_timeout(Duration::from_secs(60)).expect("a line for each request");
                if id == secret.1 {
                    break line;
                }
            }
        })
        .collect();
    for (line, start) in
        mine.iter().zip(["GET /v1/things 200 ", "GET /v1/things 401 ", "GET /v1/a\\'b%0a 404 ", "POST /v1/forget 500 "])
    {
        assert!(line.starts_with(start) && line.contains(" from 127.0.0.1:"), "{line}");
        for hidden in ["hush", "token-0001", "wrong-token", "?"] {
            assert!(!line.contains(hidden), "{line}");
        }
    }
    assert!(mine[0].contains(" as admin token ") && !mine[1].contains(" as "), "{mine:?}");

    // What the edge refuses by itself has its line too.
    let mut client = Client::connect(daemon.address);
    client.write(b"GET /v1/things HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n");
    let answer = client.read(false);
    assert_eq!(answer.status, 400);
    let wanted = answer.header("x-request-id").expect("an id").to_string();
    let line = loop {
        let (id, line) = lines.recv_timeout(Duration::from_secs(60)).expect("a line");
        if id == wanted {
            break line;
        }
    };
    assert!(line.starts_with("- - 400 0 B in 0 us from 127.0.0.1:"), "{line}");
}

/// Access lines of all tests of this process, each with the request that the logger saw.
fn captured_log() -> Receiver<(String, String)> {
    struct Capture(Sender<(String, String)>);
    impl log::Log for Capture {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.target() == kheish_daemon::api::access_log::TARGET && metadata.level() <= log::Level::Info
        }

        fn log(&self, record: &log::Record<'_>) {
            if self.enabled(record.metadata()) {
                let id = request_id::current().map(|id| id.to_string()).unwrap_or_default();
                // Only one test reads; the others' lines may overflow when it has finished.
                drop(self.0.try_send((id, record.args().to_string())));
            }
        }

        fn flush(&self) {}
    }
    let (sender, lines) = bounded(100_000);
    log::set_boxed_logger(Box::new(Capture(sender))).expect("only one test sets the logger");
    log::set_max_level(log::LevelFilter::Info);
    lines
}
