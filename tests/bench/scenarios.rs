//! The measurements themselves, one function each, over daemons of their own.
//! Owns: what is set up, what is timed and what is cleaned away.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kheish_daemon::sandbox::{Level, Sandbox, SandboxSettings, ToolWorker};

use crate::daemon::{self, Daemon, Start, TOKEN};
use crate::exchange::Http;
use crate::fanout::{self, FanOut};
use crate::load::{self, Load, Sample};
use crate::process::{self, Process};

/// A folder that is emptied before use and removed after it.
pub struct Folder(PathBuf);

impl Folder {
    /// An empty folder `name` below `base`.
    pub fn new(base: &Path, name: &str) -> io::Result<Self> {
        let path = base.join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("bench: {} stays behind: {error}", self.0.display());
        }
    }
}

fn held(base: &Path, name: &str) -> io::Result<(Folder, Daemon)> {
    let folder = Folder::new(base, name)?;
    let daemon = Daemon::start(&Start { state_root: &folder.path().join("state"), hold: true, provider_url: None })?;
    Ok((folder, daemon))
}

/// Durable accepts: authenticated submissions, each in the journal before its reply, execution held. With the
/// processor time of the daemon in microseconds.
pub fn accepts(base: &Path, load: Load) -> io::Result<(Sample, u64)> {
    let (_folder, daemon) = held(base, "accepts")?;
    daemon.create_sessions()?;
    let before = daemon.process.cpu_us()?;
    let sample = daemon.submit(0, load)?;
    let cpu_us = daemon.process.cpu_us()? - before;
    daemon.process.stop()?;
    Ok((sample, cpu_us))
}

/// Runs that a daemon holds when its status is asked for: the promise is about as many.
pub const STATUS_RUNS: u64 = 100_000;

/// `GET /v1/status` of a daemon with [`STATUS_RUNS`].
pub fn status(base: &Path, load: Load) -> io::Result<Sample> {
    let (_folder, daemon) = held(base, "status")?;
    daemon.create_sessions()?;
    daemon.submit(0, Load::count(64, STATUS_RUNS))?;
    let sample = load::run(daemon.address, load, &mut Http::get("/v1/status", TOKEN))?;
    daemon.process.stop()?;
    Ok(sample)
}

/// Resident memory: idle after start, and after `duration` of submissions by 64 clients.
pub struct Memory {
    /// Resident and anonymous bytes of the idle daemon.
    pub idle: (u64, u64),
    /// Resident and anonymous bytes right after the load.
    pub loaded: (u64, u64),
    /// Runs that the loaded daemon held as queued.
    pub queued_runs: u64,
    /// Size of the binary in bytes.
    pub binary_bytes: u64,
}

/// Measures [`Memory`].
pub fn memory(base: &Path, duration: Duration) -> io::Result<Memory> {
    let (_folder, daemon) = held(base, "memory")?;
    process::pause(Duration::from_secs(1))?;
    let idle = daemon.process.resident_bytes()?;
    daemon.create_sessions()?;
    let sample = daemon.submit(0, Load::time(64, duration))?;
    let loaded = daemon.process.resident_bytes()?;
    daemon.process.stop()?;
    let binary_bytes = fs::metadata(daemon::binary())?.len();
    Ok(Memory { idle, loaded, queued_runs: sample.replies, binary_bytes })
}

/// Events to many streams, over a journal that is long enough to jam a client which replays it unread.
pub fn fan_out(base: &Path, clients: usize, seconds: u64) -> io::Result<FanOut> {
    const PRELOADED_RUNS: u64 = 20_000;
    let (_folder, daemon) = held(base, "fanout")?;
    daemon.create_sessions()?;
    daemon.submit(0, Load::count(64, PRELOADED_RUNS))?;
    let result = fanout::measure(&daemon, clients, seconds * 10, 10, PRELOADED_RUNS)?;
    daemon.process.stop()?;
    Ok(result)
}

/// One row of the start-up table.
pub struct StartUp {
    /// Journal records at least.
    pub records: u64,
    /// Runs among them, all finished, each submitted with an Idempotency-Key.
    pub finished_runs: u64,
    /// Bytes of the journal.
    pub journal_bytes: u64,
    /// From process start to the first 200 of `/readyz`, with the snapshot of the clean stop before.
    pub with_snapshot: Duration,
    /// The same with `snapshots/` removed: the whole journal is replayed.
    pub without_snapshot: Duration,
    /// Resident and anonymous bytes after the start from the snapshot.
    pub resident: (u64, u64),
}

/// Start-up over a journal of about `records` records: half of them accept a run, half finish it.
pub fn start_up(base: &Path, records: u64) -> io::Result<StartUp> {
    let folder = Folder::new(base, "startup")?;
    let state_root = folder.path().join("state");
    let start = Start { state_root: &state_root, hold: true, provider_url: None };
    let runs = records / 2;
    let daemon = Daemon::start(&start)?;
    if runs > 0 {
        daemon.create_sessions()?;
        daemon.submit(0, Load::count(64, runs))?;
        daemon.end_sessions()?;
    }
    daemon.process.stop()?;

    let daemon = Daemon::start(&start)?;
    let with_snapshot = daemon.ready_after;
    process::pause(Duration::from_millis(500))?;
    let resident = daemon.process.resident_bytes()?;
    daemon.process.stop()?;

    fs::remove_dir_all(state_root.join("snapshots"))?;
    let daemon = Daemon::start(&start)?;
    let without_snapshot = daemon.ready_after;
    daemon.process.stop()?;

    let mut journal_bytes = 0;
    for entry in fs::read_dir(state_root.join("journal"))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(".jsonl") {
            journal_bytes += entry.metadata()?.len();
        }
    }
    Ok(StartUp { records, finished_runs: runs, journal_bytes, with_snapshot, without_snapshot, resident })
}

/// Runs executed against the scripted provider, from the first submission to the last completion.
pub struct Executed {
    /// Runs completed.
    pub runs: u64,
    /// Seconds for all of them.
    pub seconds: f64,
}

const SCRIPT: &str = "[default]\ntext = \"Done.\"\n";

/// Measures [`Executed`] for `runs` runs over the sessions.
pub fn executed(base: &Path, runs: u64) -> io::Result<Executed> {
    let folder = Folder::new(base, "executed")?;
    let script = folder.path().join("script.toml");
    fs::write(&script, SCRIPT)?;
    let provider_address = process::free_address()?;
    let mut command = Command::new(daemon::binary());
    command.arg("scripted-provider").arg("--bind").arg(provider_address.to_string()).arg("--script").arg(&script);
    let mut provider = Process::start(&mut command, &folder.path().join("provider.log"))?;
    provider.wait_until(|| process::accepts(provider_address))?;

    let state_root = folder.path().join("state");
    let daemon = Daemon::start(&Start {
        state_root: &state_root,
        hold: false,
        provider_url: Some(format!("http://{provider_address}/v1")),
    })?;
    daemon.create_sessions()?;

    let mut stream = TcpStream::connect(daemon.address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(fanout::stream_request("").as_bytes())?;
    let started = Instant::now();
    let submitter_address = daemon.address;
    let submitter = std::thread::spawn(move || {
        load::run(submitter_address, Load::count(16, runs), &mut Http::submit_run(TOKEN)).map(drop)
    });
    let (mut completed, mut text, mut buffer) = (0, Vec::new(), vec![0u8; 64 * 1024]);
    while completed < runs {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the event stream ended"));
        }
        text.extend_from_slice(&buffer[..count]);
        while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
            let frame = String::from_utf8_lossy(&text[..end]).into_owned();
            if frame.contains("\"status\":\"failed\"") {
                return Err(io::Error::other(frame));
            }
            completed += u64::from(frame.contains("event: run_updated") && frame.contains("\"status\":\"completed\""));
            text.drain(..end + 2);
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    submitter.join().map_err(|_| io::Error::other("the submitting thread panicked"))??;
    daemon.process.stop()?;
    Ok(Executed { runs, seconds })
}

/// A few submissions by one client under strace.
pub struct Strace {
    /// Replies seen.
    pub replies: usize,
    /// Replies that were written after a successful fdatasync which followed the request's arrival.
    pub after_sync: usize,
    /// The calls around the first replies, as strace printed them.
    pub lines: Vec<String>,
}

/// Attaches strace to a held daemon and looks at the order of its system calls.
pub fn strace(base: &Path) -> io::Result<Strace> {
    const SUBMISSIONS: u64 = 20;
    let (folder, daemon) = held(base, "strace")?;
    daemon.create_sessions()?;
    let trace_file = folder.path().join("trace");
    let mut command = Command::new("strace");
    command.args([
        "-f",
        "-tt",
        "-s",
        "48",
        "-e",
        "trace=read,recvfrom,write,writev,pwrite64,sendto,sendmsg,fdatasync,fsync",
    ]);
    command.arg("-o").arg(&trace_file).arg("-p").arg(daemon.process.id().to_string());
    let mut tracer = Process::start(&mut command, &folder.path().join("strace.log"))?;
    let log = folder.path().join("strace.log");
    tracer.wait_until(|| fs::read_to_string(&log).is_ok_and(|text| text.contains("attached")))?;
    daemon.submit(0, Load::count(1, SUBMISSIONS))?;
    tracer.stop()?;

    let trace = fs::read_to_string(&trace_file)?;
    let mut result = Strace { replies: 0, after_sync: 0, lines: Vec::new() };
    let (mut open, mut synced) = (false, false);
    for line in trace.lines() {
        let shown = if line.contains("POST /v1/sessions/") {
            (open, synced) = (true, false);
            true
        } else if line.contains("fdatasync") && line.ends_with("= 0") {
            synced = open;
            open
        } else if line.contains("HTTP/1.1 202") {
            result.replies += 1;
            result.after_sync += usize::from(synced);
            open = false;
            true
        } else {
            open && line.contains("write")
        };
        if shown && result.lines.len() < 16 {
            result.lines.push(line.to_string());
        }
    }
    daemon.process.stop()?;
    Ok(result)
}

/// Starts and ends of tool workers.
pub struct Workers {
    /// What the walls amount to on this machine.
    pub strength: String,
    /// From the start of a worker until it says that its walls stand, half of the samples.
    pub start_p50: Duration,
    /// The same, 99 of 100.
    pub start_p99: Duration,
    /// From the order to end until every process of it is gone, half of the samples.
    pub end_p50: Duration,
    /// A process that does nothing, started and awaited, half of the samples.
    pub plain_p50: Duration,
}

/// Starts and ends `count` tool workers, in turns with a process that does nothing.
pub fn workers(base: &Path, count: usize) -> io::Result<Workers> {
    let folder = Folder::new(base, "workers")?;
    let sandbox = Sandbox::probe(SandboxSettings {
        level: Level::Auto,
        workspace: folder.path(),
        read_only_paths: Vec::new(),
        network: false,
        program: daemon::binary(),
    });
    let spec = sandbox.spec(folder.path()).map_err(io::Error::other)?;
    let (mut starts, mut ends, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        let begun = Instant::now();
        let worker = ToolWorker::start(&spec).map_err(io::Error::other)?;
        starts.push(begun.elapsed());
        let begun = Instant::now();
        worker.kill();
        ends.push(begun.elapsed());
        let begun = Instant::now();
        Command::new("true").status()?;
        plain.push(begun.elapsed());
    }
    let rank = |samples: &mut Vec<Duration>, percent: usize| {
        samples.sort_unstable();
        samples[(samples.len() * percent / 100).min(samples.len() - 1)]
    };
    Ok(Workers {
        strength: format!("{:?}", sandbox.report().strength).to_lowercase(),
        start_p50: rank(&mut starts, 50),
        start_p99: rank(&mut starts, 99),
        end_p50: rank(&mut ends, 50),
        plain_p50: rank(&mut plain, 50),
    })
}
