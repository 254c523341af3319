//! The command line as a process, and a daemon that answers what a test says.
//! Owns: the fixture of tests/cli_*.rs.
//! Never: waits for a time; a process that hangs is a test that hangs.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tiny_http::{Header, Request, Response, Server};

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// The one document on standard output.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Everything that was printed.
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// The command line with an empty environment but for `env`.
pub fn kheish_with(env: &[(&str, &str)], stdin: &[u8], args: &[&str]) -> Outcome {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kheish-daemon"))
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut input = child.stdin.take().expect("piped");
    // A command that refuses early does not read its input.
    let _ = input.write_all(stdin);
    drop(input);
    let output = child.wait_with_output().expect("the binary ends");
    Outcome {
        code: output.status.code().expect("an exit code, not a signal"),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// The command line with an empty environment.
pub fn kheish(args: &[&str]) -> Outcome {
    kheish_with(&[], b"", args)
}

/// A request as the fake daemon saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Method, blank, path and query.
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// What the fake daemon answers.
pub enum Reply {
    /// A status and a body; `application/problem+json` from 400 on.
    Json(u16, String),
    /// A status and a body that is no JSON.
    Text(u16, &'static str),
    /// An event stream that ends properly after these bytes.
    Stream(String),
    /// Nothing, for as long as the test lasts.
    Silence,
}

/// A 200 with a document.
pub fn ok(value: serde_json::Value) -> Reply {
    Reply::Json(200, value.to_string())
}

/// A problem document.
pub fn problem(status: u16, code: &str, detail: &str) -> Reply {
    let body = serde_json::json!({"type": format!("urn:kheish:problem:{code}"), "title": "T", "status": status,
                                  "detail": detail, "code": code});
    Reply::Json(status, body.to_string())
}

type Handler = Box<dyn FnMut(&Seen) -> Reply + Send>;

/// A daemon that answers what a test says, one request at a time.
pub struct FakeDaemon {
    server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl FakeDaemon {
    pub fn start(handler: impl FnMut(&Seen) -> Reply + Send + 'static) -> Self {
        let server = Arc::new(Server::http("127.0.0.1:0").expect("a free port"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (served, log) = (Arc::clone(&server), Arc::clone(&seen));
        let mut handler: Handler = Box::new(handler);
        let thread = std::thread::spawn(move || {
            let mut unanswered = Vec::new();
            for request in served.incoming_requests() {
                answer(request, &mut handler, &log, &mut unanswered);
            }
        });
        Self { server, thread: Some(thread), seen }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.server.server_addr())
    }

    /// The command line against this daemon.
    pub fn kheish(&self, args: &[&str]) -> Outcome {
        kheish_with(&[("KHEISH_DAEMON_URL", &self.url())], b"", args)
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no test panicked with the lock").clone()
    }

    /// The request lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        self.server.unblock();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut request: Request, handler: &mut Handler, log: &Mutex<Vec<Seen>>, unanswered: &mut Vec<Request>) {
    let mut body = String::new();
    request.as_reader().read_to_string(&mut body).expect("a UTF-8 body");
    let headers = request.headers().iter();
    let seen = Seen {
        line: format!("{} {}", request.method(), request.url()),
        headers: headers.map(|h| (h.field.to_string().to_ascii_lowercase(), h.value.to_string())).collect(),
        body,
    };
    log.lock().expect("no test panicked with the lock").push(seen.clone());
    // A client that has left is the client's affair.
    let _ = match handler(&seen) {
        Reply::Json(status, body) => {
            let kind = if status >= 400 { "application/problem+json" } else { "application/json" };
            let header = Header::from_bytes("Content-Type", kind).expect("a header");
            request.respond(Response::from_string(body).with_status_code(status).with_header(header))
        }
        Reply::Text(status, body) => request.respond(Response::from_string(body).with_status_code(status)),
        Reply::Stream(frames) => stream(request, &frames),
        Reply::Silence => {
            unanswered.push(request);
            Ok(())
        }
    };
}

fn stream(request: Request, frames: &str) -> std::io::Result<()> {
    let mut writer = request.into_writer();
    writer.write_all(&stream_bytes(frames, true))?;
    writer.flush()
}

/// A whole answer with an event stream; without its end it breaks off within an announced chunk.
pub fn stream_bytes(frames: &str, has_end: bool) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = if frames.is_empty() { String::new() } else { format!("{:x}\r\n{frames}\r\n", frames.len()) };
    let end = if has_end { "0\r\n\r\n" } else { "ffff\r\ncut" };
    format!("{head}{chunk}{end}").into_bytes()
}

/// A daemon that answers each connection with the next of these byte strings and closes it, and requests for
/// the run's view with a running run. It gives the heads that it saw.
pub fn raw_daemon(mut answers: Vec<Vec<u8>>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    answers.reverse();
    let thread = std::thread::spawn(move || {
        let mut heads = Vec::new();
        while let Some(answer) = answers.last() {
            let (mut socket, _) = listener.accept().expect("a client");
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).expect("a head") == 1 {
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).expect("ASCII").to_ascii_lowercase();
            if head.starts_with("get /v1/runs/run-1 ") {
                let body = run("running").to_string();
                let length = body.len();
                write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").expect("it reads");
            } else {
                // A client that has what it wants may leave before the end.
                let _ = socket.write_all(answer);
                answers.pop();
                heads.push(head);
            }
        }
        heads
    });
    (url, thread)
}

/// One frame of an event stream.
pub fn frame(id: Option<u64>, event: &str, data: &serde_json::Value) -> String {
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    format!("{id}event: {event}\ndata: {data}\n\n")
}

/// A run's view.
pub fn run(status: &str) -> serde_json::Value {
    serde_json::json!({"run_id": "run-1", "session_id": "s", "status": status})
}

/// A `run_updated` frame.
pub fn run_updated(id: u64, status: &str) -> String {
    frame(Some(id), "run_updated", &serde_json::json!({"type": "run_updated", "run": run(status)}))
}

static NEXT_DIRECTORY: AtomicU32 = AtomicU32::new(0);

/// A directory of this test, removed with it.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        let number = NEXT_DIRECTORY.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kheish-cli-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("a fresh directory");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path inside, as text.
    pub fn join(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").to_string()
    }

    /// Writes a file inside and gives its path.
    pub fn file(&self, name: &str, content: &str) -> String {
        std::fs::write(self.0.join(name), content).expect("written");
        self.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
