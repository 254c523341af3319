//! Daemon, sidecar and receiver are killed in random order amid deliveries: nothing is lost, and whoever remembers keys counts
//! each output once. Receiver and sidecar write what they took into files, one line each, before they answer.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
#[path = "support/port.rs"]
mod port;
#[allow(dead_code, reason = "a part of it is used")]
#[path = "support/rng.rs"]
mod rng;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use daemon::{Daemon, Home, Place, Provider, eventually};
use port::Port;
use rng::Rng;
use serde_json::{Value, json};

/// The variable that makes this binary a receiver; its listener is its standard input, which outlives it.
const TAKES_INTO: &str = "KHEISH_TEST_RECEIVER_FILE";
/// Retries within a test's time, and as many as it takes.
const QUICK: [(&str, &str); 5] = [
    ("KHEISH_DELIVERY_INITIAL_RETRY_MS", "20"),
    ("KHEISH_DELIVERY_MAX_RETRY_MS", "200"),
    ("KHEISH_DELIVERY_CIRCUIT_COOLDOWN_MS", "200"),
    ("KHEISH_DELIVERY_CIRCUIT_FAILURE_THRESHOLD", "0"),
    ("KHEISH_DELIVERY_MAX_ATTEMPTS", "1000000"),
];

/// Not a test by itself: the receiver's process.
#[test]
fn receiver_of_the_kills() {
    let Some(file) = std::env::var_os(TAKES_INTO) else { return };
    let listener = TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned().expect("a descriptor"));
    for stream in listener.incoming().map_while(Result::ok) {
        let file = file.clone();
        std::thread::spawn(move || take(stream, Path::new(&file)));
    }
}

fn take(mut stream: TcpStream, file: &Path) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut key, mut length) = (String::new(), 0);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "idempotency-key" => key = value.trim().to_string(),
            "content-length" => length = value.trim().parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let taken = format!("{}\n", json!({"key": key, "body": String::from_utf8(body).ok()?}));
    OpenOptions::new().create(true).append(true).open(file).ok()?.write_all(taken.as_bytes()).ok()?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").ok()
}

struct Receiver(Child);

impl Receiver {
    fn start(file: &Path, listener: &TcpListener) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command.args(["--exact", "receiver_of_the_kills", "--nocapture", "--test-threads", "1"]);
        let listener = OwnedFd::from(listener.try_clone().expect("a descriptor"));
        command.env(TAKES_INTO, file).stdin(Stdio::from(listener));
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a process"))
    }

    fn kill(&mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Kills the sidecar of a daemon, wherever it is; `false` when there is none.
fn kill_sidecar(daemon: &Daemon) -> bool {
    let mut below = vec![daemon.pid()];
    let mut at = 0;
    while at < below.len() {
        let pid = below[at];
        at += 1;
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&words).contains("connector\0webhook") {
            let ended = Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status();
            return ended.is_ok_and(|status| status.success());
        }
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            below.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    false
}

struct World {
    home: Home,
    captured: PathBuf,
    config: Value,
    _place: Place,
}

impl World {
    fn new(provider: &Provider, port: &Port) -> Self {
        let home = Home::with_slot("delivery-kills", Some(provider));
        let place = Place::new("delivery-kills-sidecar");
        let folder = place.join("captured");
        fs::create_dir(&folder).expect("a folder");
        let captured = folder.join("deliveries.jsonl");
        let binary = env!("CARGO_BIN_EXE_kheish-daemon");
        let config = json!({"platform": "webhook", "mode": "child_process", "base_url": format!("http://{}", port.address()),
            "shared_token": {"value": "shared-token-of-a-test"}, "session_policy": {"create_if_missing": true},
            "child_process": {"command": binary, "args": ["connector", "webhook"], "working_dir": folder,
                "working_dir_writable": true, "read_only_paths": [Path::new(binary).parent()],
                "env": {"KHEISH_EXTERNAL_CONNECTOR_DELIVERY_CAPTURE_PATH": captured}}});
        Self { home, captured, config, _place: place }
    }

    fn start(&self) -> Daemon {
        self.home.serve().variables(&QUICK).options(&["--egress-allow-private", "connector"]).start()
    }

    /// A put starts a sidecar at once, however often it was killed.
    fn put(&self, daemon: &Daemon, config: &Value) {
        let path = "/v1/runtime/connectors/external/ops";
        let reply = daemon.client().request("PUT", path, &[], &config.to_string()).expect("the daemon answers");
        assert_eq!(reply.status, 200, "{reply:?}");
    }
}

/// Each line's key with its body; the same key never has two bodies.
fn once(taken: &[Value], key: &str, body: &str) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    for line in taken {
        let (key, body) = (line[key].as_str().expect("a key").to_string(), line[body].to_string());
        let before = seen.entry(key.clone()).or_insert_with(|| body.clone());
        assert_eq!(*before, body, "{key} came with two bodies");
    }
    seen
}

#[test]
fn nothing_is_lost_or_counted_twice_whoever_is_killed() {
    let kills: usize = std::env::var("KHEISH_DELIVERY_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(9);
    let seed = std::env::var("KHEISH_SIM_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7);
    let mut rng = Rng::new(seed);
    let provider = Provider::start("");
    let port = Port::reserve();
    let world = World::new(&provider, &port);
    let file = world.home.join("received.jsonl");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let mut receiver = Receiver::start(&file, &listener);
    let mut daemon = world.start();
    daemon.set_key("sk-route-0000000000000000");
    world.put(&daemon, &world.config);
    (0..8).for_each(|session| daemon.create_session(&format!("s{session}")));
    let mut runs = Vec::new();
    let mut struck = [0; 3];
    for _ in 0..kills {
        for _ in 0..1 + rng.below(3) {
            let targets = json!([{"plugin": "http", "address": format!("http://{address}/hook")},
                {"type": "external", "connector": "ops", "route": "{}"}]);
            let text = format!("output {}", runs.len());
            let body = json!({"content": text, "reply_targets": targets});
            let reply = daemon.post(&format!("/v1/sessions/s{}/runs", rng.below(8)), &body);
            assert_eq!(reply.status, 202, "{reply:?}");
            runs.push((reply.json()["run_id"].as_str().expect("an id").to_string(), text));
        }
        // Somewhere on the way: after none, one or two more of either kind have come.
        let (more, of_sidecar) = (rng.below(3) as usize, rng.chance(2));
        let watched = if of_sidecar { &world.captured } else { &file };
        let owed = runs.len();
        let begun = lines_count(watched).min(owed);
        eventually("deliveries", || (lines_count(watched) >= (begun + more).min(owed)).then_some(()));
        match rng.below(3) {
            0 => {
                daemon.kill();
                daemon = world.start();
                struck[0] += 1;
            }
            1 => {
                struck[1] += usize::from(kill_sidecar(&daemon));
                world.put(&daemon, &json!({}));
            }
            _ => {
                receiver.kill();
                receiver = Receiver::start(&file, &listener);
                struck[2] += 1;
            }
        }
    }
    world.put(&daemon, &json!({}));
    for (run, _) in &runs {
        eventually(&format!("both deliveries of {run}"), || {
            let view = daemon.run(run);
            let done = view["deliveries"].as_array()?.iter().filter(|one| one["status"] == "delivered").count();
            (done == 2).then_some(())
        });
    }
    println!("{} runs, killed: {} daemons, {} sidecars, {} receivers", runs.len(), struck[0], struck[1], struck[2]);
    daemon.stop();
    let (received, captured) = (lines(&file), lines(&world.captured));
    println!("{} requests at the receiver, {} at the sidecar", received.len(), captured.len());
    let by_receiver = once(&received, "key", "body");
    let by_sidecar: BTreeMap<String, String> = once(&captured, "delivery_id", "content");
    let texts: BTreeSet<String> = runs.iter().map(|(_, text)| json!(text).to_string()).collect();
    assert_eq!(by_sidecar.values().cloned().collect::<BTreeSet<_>>(), texts, "each output once");
    assert_eq!((by_receiver.len(), by_sidecar.len()), (runs.len(), runs.len()));
    let content = |body: &String| {
        let body: String = serde_json::from_str(body).expect("a text");
        serde_json::from_str::<Value>(&body).expect("JSON")["content"].to_string()
    };
    assert_eq!(by_receiver.values().map(content).collect::<BTreeSet<_>>(), texts);
    world.home.assert_journal_verifies(&world.home.root());
}

fn lines_count(file: &Path) -> usize {
    fs::read(file).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count()
}
