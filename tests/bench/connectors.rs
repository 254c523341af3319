//! Signed events in, outputs out: how many webhooks a second are taken durably, and what dead targets cost a healthy one.
//! Owns: the signing sender and the receivers.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ring::hmac;
use serde_json::{Value, json};

use crate::daemon::{self, Daemon, Start};
use crate::exchange::{SESSIONS, TEXT_BYTES, http_reply_length};
use crate::histogram::Histogram;
use crate::load::{self, Exchange, Load, Sample};
use crate::process::{self, Process};
use crate::scenarios::Folder;

const SECRET: &str = "bench-hmac-secret-0123456789";
const TARGET: &str = "/v1/connectors/http/bench";

/// Events of an http connector, each signed on its own and with its own key.
struct SignedEvents {
    key: hmac::Key,
    text: String,
    next: u64,
}

impl Exchange for SignedEvents {
    fn request(&mut self, _connection: usize, out: &mut Vec<u8>) {
        let number = self.next;
        self.next += 1;
        let session = format!("bench-{:012}", number % SESSIONS);
        let body = json!({"content": self.text, "idempotency_key": format!("event-{number}"), "session_id": session});
        let body = body.to_string();
        let at_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let tag = hmac::sign(&self.key, format!("v1:POST:{TARGET}:{at_s}:{body}").as_bytes());
        let tag: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        out.extend_from_slice(
            format!(
                "POST {TARGET} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
                 X-Kheish-Timestamp: {at_s}\r\nX-Kheish-Signature: v1={tag}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .as_bytes(),
        );
    }

    fn reply(&mut self, bytes: &[u8]) -> Result<Option<usize>, String> {
        let Some(length) = http_reply_length(bytes)? else { return Ok(None) };
        match &bytes[9..12] {
            b"200" => Ok(Some(length)),
            _ => Err(format!("refused: {}", String::from_utf8_lossy(&bytes[..length.min(2_000)]))),
        }
    }
}

/// Signed events, each durable as a run before its answer; execution is held.
pub fn events(base: &Path, load: Load) -> io::Result<(Sample, u64)> {
    let folder = Folder::new(base, "events")?;
    let start = Start { state_root: &folder.path().join("state"), hold: true, provider_url: None };
    let daemon = Daemon::start(&start)?;
    daemon.create_sessions()?;
    let config =
        json!({"hmac_secret": {"value": SECRET}, "require_hmac_signature": true, "ingress_events_per_second": 100_000});
    let put = daemon::request(daemon.address, "PUT", "/v1/runtime/connectors/http/bench", &config.to_string())?;
    if !put.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(put));
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let text = "All work and no play makes a durable day. ".repeat(TEXT_BYTES / 42 + 1);
    let mut exchange = SignedEvents { key, text: text[..TEXT_BYTES].to_string(), next: 0 };
    let before = daemon.process.cpu_us()?;
    let sample = load::run(daemon.address, load, &mut exchange)?;
    let cpu_us = daemon.process.cpu_us()? - before;
    daemon.process.stop()?;
    Ok((sample, cpu_us))
}

/// From the end of a run to the arrival of its output at a healthy target.
pub struct DeadTargets {
    /// Without any other target.
    pub alone: Histogram,
    /// Beside the dead ones, each of which has failed before.
    pub beside: Histogram,
    /// How many of them refuse connections.
    pub refusing: usize,
    /// How many of them take a connection and never answer.
    pub silent: usize,
}

/// Takes what comes, and says when.
fn receive(listener: TcpListener) -> Receiver<(Instant, String)> {
    let (came, arrivals) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let came = came.clone();
            std::thread::spawn(move || take(stream, &came));
        }
    });
    arrivals
}

fn take(mut stream: TcpStream, came: &std::sync::mpsc::Sender<(Instant, String)>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut length, mut line) = (0, String::new());
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            if line.trim().is_empty() { break } else { continue }
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let at = Instant::now();
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").ok()?;
    let body: Value = serde_json::from_slice(&body).ok()?;
    came.send((at, body["metadata"]["run_id"].as_str()?.to_string())).ok()
}

fn submit(address: SocketAddr, session: usize, targets: &[String]) -> io::Result<String> {
    let targets: Vec<Value> = targets.iter().map(|url| json!({"plugin": "http", "address": url})).collect();
    let body = json!({"content": "x", "reply_targets": targets}).to_string();
    let reply = daemon::request(address, "POST", &format!("/v1/sessions/bench-{session:012}/runs"), &body)?;
    let answer: Value = serde_json::from_str(reply.split("\r\n\r\n").nth(1).unwrap_or_default()).unwrap_or_default();
    answer["run_id"].as_str().map(str::to_string).ok_or_else(|| io::Error::other(reply))
}

fn delivery_status(address: SocketAddr) -> io::Result<Value> {
    let reply = daemon::request(address, "GET", "/v1/status", "")?;
    let status: Value = serde_json::from_str(reply.split("\r\n\r\n").nth(1).unwrap_or_default()).unwrap_or_default();
    Ok(status["delivery"].clone())
}

/// `runs` outputs one after the other, each from its submission to its arrival.
fn measure(daemon: &Daemon, url: &str, arrivals: &Receiver<(Instant, String)>, runs: usize) -> io::Result<Histogram> {
    let mut histogram = Histogram::new();
    for number in 0..runs {
        let begun = Instant::now();
        let run = submit(daemon.address, number % SESSIONS as usize, &[url.to_string()])?;
        loop {
            let (at, of) = arrivals.recv_timeout(Duration::from_secs(60)).map_err(io::Error::other)?;
            if of == run {
                histogram.add(at.duration_since(begun).as_nanos() as u64);
                break;
            }
        }
    }
    Ok(histogram)
}

/// Outputs to a healthy target, alone and beside `dead` targets that have failed before, a few of which never answer.
pub fn dead_targets(base: &Path, dead: usize, runs: usize) -> io::Result<DeadTargets> {
    const SILENT: usize = 16;
    let folder = Folder::new(base, "dead-targets")?;
    let script = folder.path().join("script.toml");
    fs::write(&script, "[default]\ntext = \"Done.\"\n")?;
    let provider_address = process::free_address()?;
    let mut command = Command::new(daemon::binary());
    command.arg("scripted-provider").arg("--bind").arg(provider_address.to_string()).arg("--script").arg(&script);
    let mut provider = Process::start(&mut command, &folder.path().join("provider.log"))?;
    provider.wait_until(|| process::accepts(provider_address))?;
    let state_root = folder.path().join("state");
    let provider_url = Some(format!("http://{provider_address}/v1"));
    let start = Start { state_root: &state_root, hold: false, provider_url };
    let daemon = Daemon::start_with(&start, |command| {
        command.args(["--egress-allow-private", "connector"]);
        command.env("KHEISH_DELIVERY_MAX_ATTEMPTS", "1000000");
    })?;
    daemon.create_sessions()?;
    let healthy = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/healthy", healthy.local_addr()?);
    let arrivals = receive(healthy);
    measure(&daemon, &url, &arrivals, 20)?;
    let alone = measure(&daemon, &url, &arrivals, runs)?;
    // Accepts in its backlog and never answers.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let refusing = process::free_address()?;
    for number in 0..dead {
        let at = if number < SILENT { silent.local_addr()? } else { refusing };
        submit(daemon.address, number % SESSIONS as usize, &[format!("http://{at}/{number}")])?;
    }
    let until = Instant::now() + Duration::from_secs(600);
    while delivery_status(daemon.address)?["retrying"].as_u64().unwrap_or(0) < dead as u64 {
        if Instant::now() > until {
            return Err(io::Error::other("the dead targets were not all tried within 10 minutes"));
        }
        process::pause(Duration::from_millis(200))?;
    }
    let beside = measure(&daemon, &url, &arrivals, runs)?;
    daemon.process.stop()?;
    Ok(DeadTargets { alone, beside, refusing: dead.saturating_sub(SILENT), silent: SILENT.min(dead) })
}
