//! The real binary under test: a daemon and a scripted provider as processes, with everything they need.
//! Owns: their folders, tokens and processes; all of it is gone with the guards, however a test ends.
//! Never: waits for a time. It waits for a log line, a frame, an answer or the end of a process, with a deadline that
//! only a failing test meets.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kheish_daemon::sys;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::http::{Client, EventStream, PATIENCE, Reply, is_terminal};

/// Admin token of every daemon here; it protects nothing.
pub const TOKEN: &str = "admin-token-of-a-test-0123456789abcdef";

const BINARY: &str = env!("CARGO_BIN_EXE_kheish-daemon");

/// The unused rest of a segment is read at each start, which takes a debug build seconds where it is 64 MiB.
const SEGMENT_BYTES: u64 = 1024 * 1024;

/// Between two looks at something that sends no event.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// What happens within a deadline, or the test fails with `what`.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        pause(LOOK_INTERVAL);
    }
}

/// Lets the processes run for `duration`.
pub fn pause(duration: Duration) {
    crossbeam_channel::after(duration).recv().expect("a timer fires");
}

/// A folder that is removed with its guard.
pub struct Place(PathBuf);

impl Place {
    pub fn new(test: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{test}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).expect("a scratch folder");
        Self(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file that nobody else may read and returns its path.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.join(name);
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        io::Write::write_all(&mut file.expect("a scratch file"), text.as_bytes()).expect("a scratch file");
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed is below the build's own folder and hurts nobody.
        let _left_behind = fs::remove_dir_all(&self.0);
    }
}

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

/// What a process has printed so far.
#[derive(Default)]
struct Log {
    lines: Mutex<Lines>,
    grown: Condvar,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        // A test that failed while it looked has not harmed the lines.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first thing that `look` finds in a line; `None` when the process ended without it.
    fn wait<T>(&self, what: &str, look: impl Fn(&str) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        let (mut seen, mut log) = (0, self.lock());
        loop {
            while seen < log.lines.len() {
                if let Some(found) = look(&log.lines[seen]) {
                    return Some(found);
                }
                seen += 1;
            }
            if log.ended {
                return None;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what}: not within {PATIENCE:?}:\n{}", log.lines.join("\n"));
            log = self.grown.wait_timeout(log, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A child process whose output is read all the time. It is killed and reaped with its guard.
struct Process {
    child: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    fn start(mut command: Command) -> Self {
        let (output, writer) = io::pipe().expect("a pipe");
        command.stdin(Stdio::null()).stdout(writer.try_clone().expect("a descriptor")).stderr(writer);
        let child = command.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
        // Its copy of the pipe would keep the log from ever ending.
        drop(command);
        let log = Arc::new(Log::default());
        let sink = log.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                sink.lock().lines.push(line);
                sink.grown.notify_all();
            }
            sink.lock().ended = true;
            sink.grown.notify_all();
        });
        Self { child, log, reader: Some(reader) }
    }

    /// Waits for the end of the process.
    fn ended(&mut self) -> ExitStatus {
        assert_eq!(self.log.wait("the end of a process", |_| None::<()>), None);
        self.child.wait().expect("a child of ours")
    }

    fn kill(&mut self) -> ExitStatus {
        // It may have ended by itself; its status tells.
        let _ended_already = self.child.kill();
        self.ended()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ended = reader.join();
        }
        if std::thread::panicking() {
            let log = self.log.lock();
            let tail = log.lines.len().saturating_sub(40);
            eprintln!("the last lines of process {}:\n{}", self.child.id(), log.lines[tail..].join("\n"));
        }
    }
}

/// A scripted provider.
pub struct Provider {
    pub address: SocketAddr,
    base_url: String,
    _process: Process,
    _place: Place,
}

/// What the provider tells of its requests; the bodies stay text, for there may be megabytes of them.
#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    requests: Vec<Seen<'a>>,
}

#[derive(Deserialize)]
struct Seen<'a> {
    number: u64,
    #[serde(borrow)]
    body: &'a RawValue,
}

impl Provider {
    /// Starts one that answers by `script`; see docs/scripted-provider.md.
    pub fn start(script: &str) -> Self {
        let place = Place::new("provider");
        let mut command = Command::new(BINARY);
        command.env_clear().args(["scripted-provider", "--bind", "127.0.0.1:0", "--script"]);
        command.arg(place.file("script.toml", &format!("version = 1\n{script}")));
        let process = Process::start(command);
        let ready = process.log.wait("the provider", |line| serde_json::from_str::<Value>(line).ok());
        let ready = ready.unwrap_or_else(|| panic!("no provider: {:?}", process.log.lock().lines));
        let text = |name: &str| ready[name].as_str().unwrap_or_else(|| panic!("{ready}")).to_string();
        let address = text("address").parse().expect("an address");
        Self { address, base_url: text("base_url"), _process: process, _place: place }
    }

    /// All requests since start, oldest first: number and body. Bodies beyond the newest 1,000 are gone.
    pub fn requests(&self) -> Vec<(u64, String)> {
        let mut client = Client::connect(self.address, TOKEN).expect("the provider accepts");
        let reply = client.request("GET", "/_scripted/requests", &[], "").expect("the provider answers");
        let asked: Asked<'_> = serde_json::from_slice(&reply.body).expect("the list of requests");
        asked.requests.iter().map(|seen| (seen.number, seen.body.get().to_string())).collect()
    }

    /// Waits until `count` requests have come whose body holds `text`.
    pub fn wait_asked(&self, text: &str, count: usize) {
        eventually(&format!("request {count} with {text:?}"), || {
            let asked = self.requests().iter().filter(|(_, body)| body.contains(text)).count();
            (asked >= count).then_some(())
        });
    }
}

/// The files that a test's daemons share.
pub struct Home {
    place: Place,
    token_file: PathBuf,
    routes_file: PathBuf,
    /// With which the auth store is encrypted, where a test keeps secrets.
    master_key_file: Option<PathBuf>,
}

/// The slot of the route of [`Home::with_slot`].
pub const SLOT: &str = "openai.prod";
/// The master key of [`Home::with_slot`].
pub const MASTER_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlBQkNERUY=";

impl Home {
    /// `provider` may be missing where no run is executed.
    pub fn new(test: &str, provider: Option<&Provider>) -> Self {
        let place = Place::new(test);
        // Port 9 is the discard service, which nobody runs.
        let base_url = provider.map_or("http://127.0.0.1:9/v1", |provider| &provider.base_url);
        let routes = format!(
            "version = 1\n[routes.main]\ndriver = \"openai\"\nbase_url = \"{base_url}\"\n\
             default_model = \"scripted\"\nmodel_support = \"any\"\n"
        );
        Self::with_routes(place, &routes)
    }

    /// Daemons with this routes file.
    pub fn with_routes(place: Place, routes: &str) -> Self {
        let token_file = place.file("admin.token", TOKEN);
        let routes_file = place.file("routes.toml", routes);
        Self { place, token_file, routes_file, master_key_file: None }
    }

    /// As [`Home::new`], with a route whose credential comes from [`SLOT`], which is empty.
    pub fn with_slot(test: &str, provider: Option<&Provider>) -> Self {
        let mut home = Self::new(test, provider);
        let routes = fs::read_to_string(&home.routes_file).expect("our own routes");
        home.place.file("routes.toml", &format!("{routes}auth_ref = \"{SLOT}\"\n"));
        home.master_key_file = Some(home.place.file("master.key", MASTER_KEY));
        home
    }

    /// The admin token's file.
    pub fn token_file(&self) -> &Path {
        &self.token_file
    }

    /// The master key's file.
    pub fn master_key_file(&self) -> &Path {
        self.master_key_file.as_deref().expect("a home with a slot")
    }

    /// A command of the binary against `daemon`; exit code, standard output and standard error.
    pub fn cli(&self, daemon: &Daemon, args: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(BINARY);
        command.env_clear().arg("--base-url").arg(daemon.base_url()).arg("--token-file").arg(&self.token_file);
        let output = command.args(args).stdin(Stdio::null()).output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().expect("an exit code"), text(&output.stdout), text(&output.stderr))
    }

    /// The document that a successful command prints.
    pub fn cli_json(&self, daemon: &Daemon, args: &[&str]) -> Value {
        let (code, stdout, stderr) = self.cli(daemon, args);
        assert_eq!(code, 0, "{args:?}: {stdout}{stderr}");
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {stdout}"))
    }

    /// The state root of daemons that name no other one.
    pub fn root(&self) -> PathBuf {
        self.place.join("state")
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// A daemon on [`Home::root`], ready for work.
    pub fn start(&self) -> Daemon {
        self.serve().start()
    }

    /// A daemon to be described further.
    pub fn serve(&self) -> Serve<'_> {
        Serve {
            home: self,
            root: self.root(),
            workspace: self.join("workspace"),
            has_token: true,
            segment_bytes: SEGMENT_BYTES,
            options: Vec::new(),
            variables: Vec::new(),
            wrapper: Vec::new(),
        }
    }

    /// Another command of the binary; exit code and everything it printed.
    pub fn command(&self, args: &[&str]) -> (i32, String) {
        let output = Command::new(BINARY).env_clear().args(args).stdin(Stdio::null()).output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().expect("an exit code"), text(&output.stdout) + &text(&output.stderr))
    }

    /// The records of the journal in `root` that pass `filter` (options of `journal show`), read from its files.
    pub fn records(&self, root: &Path, filter: &[&str]) -> Vec<Value> {
        let root = root.to_str().expect("a UTF-8 path");
        let (code, lines) = self.command(&[&["journal", "show", "--offline", "--state-root", root], filter].concat());
        assert_eq!(code, 0, "{lines}");
        lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    /// Fails unless every line, snapshot and seal under `root` is good.
    pub fn assert_journal_verifies(&self, root: &Path) {
        let root = root.to_str().expect("a UTF-8 path");
        let (code, report) = self.command(&["journal", "verify", "--offline", "--state-root", root]);
        assert_eq!(code, 0, "{report}");
    }
}

/// How a daemon is to be started.
pub struct Serve<'h> {
    home: &'h Home,
    root: PathBuf,
    workspace: PathBuf,
    has_token: bool,
    segment_bytes: u64,
    options: Vec<String>,
    variables: Vec<(String, String)>,
    wrapper: Vec<String>,
}

impl Serve<'_> {
    pub fn root(mut self, root: &Path) -> Self {
        self.root = root.to_path_buf();
        self
    }

    pub fn workspace(mut self, workspace: &Path) -> Self {
        self.workspace = workspace.to_path_buf();
        self
    }

    /// Nobody is asked for a token.
    pub fn without_token(mut self) -> Self {
        self.has_token = false;
        self
    }

    /// Small segments are sealed and rotated within one test.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// More options of `serve`.
    pub fn options(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(ToString::to_string));
        self
    }

    /// More variables of its environment.
    pub fn variables(mut self, variables: &[(&str, &str)]) -> Self {
        self.variables.extend(variables.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        self
    }

    /// A program that runs the daemon in its own place (it must `exec`), with its options.
    pub fn under(mut self, wrapper: &[String]) -> Self {
        self.wrapper = wrapper.to_vec();
        self
    }

    fn command(&self) -> Command {
        let mut words = self.wrapper.iter().map(String::as_str).chain([BINARY]);
        let mut command = Command::new(words.next().expect("the binary at least"));
        command.args(words).args(["serve", "--bind", "127.0.0.1:0", "--log-format", "json", "--log-level", "info"]);
        command.arg("--state-root").arg(&self.root).arg("--workspace-root").arg(&self.workspace);
        command.arg("--routes-file").arg(&self.home.routes_file);
        command.arg("--segment-bytes").arg(self.segment_bytes.to_string());
        if self.has_token {
            command.arg("--http-admin-token-file").arg(&self.home.token_file);
        }
        command.args(&self.options);
        if !self.wrapper.is_empty() {
            // A tracer without rights could not read the paths of its calls.
            command.arg("--dumpable");
        }
        command.env_clear().env("RUST_BACKTRACE", "1").envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.envs(self.home.master_key_file.as_ref().map(|path| ("KHEISH_AUTH_STORE_MASTER_KEY_FILE", path)));
        command
    }

    /// Starts it without waiting for anything.
    pub fn spawn(&self) -> Starting {
        Starting(Process::start(self.command()))
    }

    /// Starts it and waits until it accepts work.
    pub fn start(&self) -> Daemon {
        let daemon = self.spawn().listening().unwrap_or_else(|(status, log)| panic!("no start ({status}):\n{log}"));
        assert_eq!(daemon.get("/readyz").status, 200, "it listens before it is ready");
        daemon
    }

    /// Starts it where it must refuse; its exit code and log.
    pub fn refused(&self) -> (Option<i32>, String) {
        match self.spawn().listening() {
            Ok(daemon) => panic!("it started at {}", daemon.address),
            Err((status, log)) => (status.code(), log),
        }
    }
}

/// A daemon whose start has begun.
pub struct Starting(Process);

impl Starting {
    /// Waits until it listens.
    ///
    /// # Errors
    /// It ended instead: how, and what it said.
    pub fn listening(mut self) -> Result<Daemon, (ExitStatus, String)> {
        let address = self.0.log.wait("a listening daemon", |line| {
            let line = serde_json::from_str::<Value>(line).ok()?;
            line["message"].as_str()?.strip_prefix("listening on ")?.parse().ok()
        });
        match address {
            Some(address) => Ok(Daemon { process: self.0, address }),
            None => {
                let status = self.0.ended();
                let log = self.0.log.lock().lines.join("\n");
                Err((status, log))
            }
        }
    }

    /// SIGKILL, wherever its start has come to.
    pub fn kill(mut self) {
        self.0.kill();
        assert_no_panic(&self.0.log.lock().lines.join("\n"));
    }
}

/// A panic is a defect even where the daemon survives it.
pub fn assert_no_panic(log: &str) {
    assert!(!log.contains("panicked at"), "{log}");
}

/// A daemon that listens.
pub struct Daemon {
    process: Process,
    pub address: SocketAddr,
}

impl Daemon {
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Where its API is.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stores an OpenAI key in [`SLOT`]; the answer.
    pub fn set_key(&self, key: &str) -> Value {
        let record = json!({"slot_id": SLOT, "provider": "openai", "mode": "api_key", "state": {"api_key": key}});
        let reply = self.post("/v1/runtime/secrets", &record);
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.process.log.lock().lines.join("\n")
    }

    /// A connection of its own, to be kept.
    pub fn client(&self) -> Client {
        Client::connect(self.address, TOKEN).expect("the daemon accepts")
    }

    pub fn stream(&self, target: &str) -> EventStream {
        EventStream::open(self.address, TOKEN, target).expect("the daemon accepts")
    }

    pub fn get(&self, target: &str) -> Reply {
        self.client().request("GET", target, &[], "").expect("an answer")
    }

    pub fn post(&self, target: &str, body: &Value) -> Reply {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.client().request("POST", target, &[], &body).expect("an answer")
    }

    pub fn create_session(&self, session: &str) {
        let reply = self.post("/v1/sessions", &json!({"session_id": session}));
        assert_eq!(reply.status, 201, "{reply:?}");
    }

    pub fn try_submit(&self, session: &str, text: &str) -> Reply {
        self.post(&format!("/v1/sessions/{session}/runs"), &json!({"content": text}))
    }

    /// A run that must be accepted; its id.
    pub fn submit(&self, session: &str, text: &str) -> String {
        let reply = self.try_submit(session, text);
        assert_eq!(reply.status, 202, "{reply:?}");
        reply.json()["run_id"].as_str().expect("a run id").to_string()
    }

    pub fn run(&self, run: &str) -> Value {
        let reply = self.get(&format!("/v1/runs/{run}"));
        assert_eq!(reply.status, 200, "{run}: {reply:?}");
        reply.json()
    }

    pub fn status_of(&self, run: &str) -> String {
        self.run(run)["status"].as_str().expect("a status").to_string()
    }

    /// Waits for the run's end on its own stream; the status it ended with.
    pub fn wait_end(&self, run: &str) -> String {
        let mut stream = self.stream(&format!("/v1/runs/{run}/stream?cursor=0"));
        let mut ended = String::new();
        stream.until("the end of a run", |frame| {
            ended = frame.run_status().map(|(_, status)| status).unwrap_or_default();
            is_terminal(&ended)
        });
        ended
    }

    /// Types of the run's events, oldest first; a `resumed` carries what the restart found.
    pub fn events_of(&self, run: &str) -> Vec<String> {
        let reply = self.get(&format!("/v1/runs/{run}/events"));
        assert_eq!(reply.status, 200, "{reply:?}");
        let document = reply.json();
        let entries = document.as_array().unwrap_or_else(|| panic!("{document}"));
        let text = |value: &Value| value.as_str().map(str::to_string);
        let name = |event: &Value| match text(&event["found"]) {
            Some(found) => format!("resumed: {found}"),
            None => text(&event["type"]).expect("a type"),
        };
        entries.iter().map(|entry| name(&entry["event"])).collect()
    }

    /// Every run there is, oldest first, through all pages.
    pub fn all_runs(&self) -> Vec<Value> {
        let (mut runs, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/v1/runs?page=true&limit=100&order=asc{cursor}")).json();
            runs.extend(page["items"].as_array().unwrap_or_else(|| panic!("{page}")).iter().cloned());
            match page["pagination"]["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return runs,
            }
        }
    }

    /// SIGKILL, while others are still talking to it.
    pub fn strike(&self) {
        sys::kill(self.pid(), 9).expect("a child of ours");
    }

    /// SIGSTOP, and a wait until none of its threads runs: nothing is written any more.
    pub fn freeze(&self) {
        sys::kill(self.pid(), 19).expect("a child of ours");
        let tasks = format!("/proc/{}/task", self.pid());
        let is_stopped = |task: &fs::DirEntry| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
        };
        eventually("a stopped daemon", || {
            fs::read_dir(&tasks).expect("its threads").flatten().all(|task| is_stopped(&task)).then_some(())
        });
    }

    /// It goes on after [`Daemon::freeze`].
    pub fn thaw(&self) {
        sys::kill(self.pid(), 18).expect("a child of ours");
    }

    /// SIGKILL, and the end of the process.
    pub fn kill(mut self) {
        assert_eq!(self.process.kill().signal(), Some(9), "it ended before it was killed:\n{}", self.log());
        assert_no_panic(&self.log());
    }

    /// SIGTERM, the end of the process, and its log. It must end cleanly.
    pub fn stop(self) -> String {
        let (code, log) = self.terminate();
        assert_eq!(code, Some(0), "{log}");
        log
    }

    /// As [`Daemon::stop`], on a disk that may refuse the journal's last write: then it must say so by its exit code.
    pub fn stop_on_a_faulty_disk(self) {
        let (code, log) = self.terminate();
        let unclosed = log.contains("the journal could not be closed");
        assert_eq!(code, Some(i32::from(unclosed)), "{log}");
    }

    fn terminate(mut self) -> (Option<i32>, String) {
        sys::kill(self.pid(), sys::SIGTERM).expect("a child of ours");
        let status = self.process.ended();
        let log = self.log();
        assert_no_panic(&log);
        (status.code(), log)
    }
}
