//! The two ends of a stream for tests: a log in memory, and a client on a socket pair.
#![allow(dead_code)] // each test file uses its part

use std::collections::BTreeMap;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kheish_daemon::api::events::Events;
use kheish_daemon::ids::{RunId, Seq, SessionId};
use kheish_daemon::journal::Record;
use kheish_daemon::sse::{Config, Hub, Log, LogError, Outlet, Render, Scope, Sink, StreamSpec, encode};

/// What a stream may take for anything before a test calls it silent: far beyond any scheduling delay.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A small generator: one seed, one sequence.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % bound
    }
}

/// A log in memory with epochs, a floor and links, as the journal keeps them.
#[derive(Default)]
pub struct MemoryLog {
    state: Mutex<State>,
    /// Single records read.
    pub reads: AtomicU64,
    /// Records returned by scans.
    pub scanned: AtomicU64,
}

#[derive(Default)]
struct State {
    records: BTreeMap<Seq, Record>,
    next: Seq,
    floor: Seq,
    last_of_session: BTreeMap<String, Seq>,
    runs: BTreeMap<RunId, (Seq, Seq)>,
    broken: bool,
}

pub fn session(name: &str) -> SessionId {
    SessionId::parse(name).expect("a legal id")
}

pub fn run(number: u32) -> RunId {
    RunId { number, epoch: 0 }
}

impl MemoryLog {
    /// A log whose first record gets position 1.
    pub fn new() -> Arc<Self> {
        let log = Self::default();
        log.state.lock().unwrap().next = 1;
        log.state.lock().unwrap().floor = 1;
        Arc::new(log)
    }

    /// Begins an epoch: the next record gets position `epoch << 32 | 1`.
    pub fn begin_epoch(&self, epoch: u64) {
        let mut state = self.state.lock().unwrap();
        state.next = epoch << 32 | 1;
        if state.records.is_empty() {
            state.floor = state.next;
        }
    }

    /// Retires everything before `floor`.
    pub fn retire_before(&self, floor: Seq) {
        let mut state = self.state.lock().unwrap();
        state.records = state.records.split_off(&floor);
        state.floor = *state.records.keys().next().expect("retention keeps the newest segment");
    }

    /// Makes every later read fail.
    pub fn break_down(&self) {
        self.state.lock().unwrap().broken = true;
    }

    /// Appends one record and returns its position.
    pub fn append(&self, kind: &str, session: Option<&SessionId>, run: Option<RunId>, body: &str) -> Seq {
        let mut state = self.state.lock().unwrap();
        let seq = state.next;
        let (mut session_prev, mut run_prev, mut run_first) = (0, 0, 0);
        if let Some(session) = session {
            session_prev = state.last_of_session.insert(session.to_string(), seq).unwrap_or(0);
        }
        if let Some(run) = run {
            let known = state.runs.insert(run, (seq, seq));
            if let Some((first, last)) = known {
                (run_first, run_prev) = (first, last);
                state.runs.insert(run, (first, seq));
            }
        }
        let record = Record {
            seq,
            at_ms: 1_000_000 + (seq & 0xffff_ffff),
            kind: kind.to_string(),
            session: session.cloned(),
            run,
            session_prev,
            run_prev,
            run_first,
            by: None,
            body: serde_json::value::RawValue::from_string(body.to_string()).expect("a JSON body"),
            batch: None,
        };
        state.records.insert(seq, record);
        state.next += 1;
        seq
    }

    pub fn accept_run(&self, session: &SessionId, run: RunId) -> Seq {
        let body =
            r#"{"agent":"agent-1","kind":"input","position":0,"route":"main","model":"m","request":{"content":"hi"}}"#;
        self.append("run.accepted", Some(session), Some(run), body)
    }

    pub fn output(&self, session: &SessionId, run: RunId, content: &str) -> Seq {
        let body = format!(r#"{{"output":{{"session_id":"{session}","run_id":"{run}","content":"{content}"}}}}"#);
        self.append("run.output", Some(session), Some(run), &body)
    }

    /// A record that only the unfiltered stream shows.
    pub fn hold(&self, held: bool) -> Seq {
        self.append("hold.changed", None, None, &format!(r#"{{"held":{held}}}"#))
    }

    /// A record that no stream shows.
    pub fn seal(&self) -> Seq {
        self.append("journal.seal", None, None, "{}")
    }

    /// Newest record of the scope, as the core knows it.
    pub fn last_of(&self, scope: &Scope) -> Option<Seq> {
        let state = self.state.lock().unwrap();
        match (scope.run(), scope.session()) {
            (Some(run), _) => Some(state.runs.get(&run).map_or(0, |(_, last)| *last)),
            (None, Some(session)) => Some(state.last_of_session.get(session.as_str()).copied().unwrap_or(0)),
            (None, None) => None,
        }
    }

    pub fn records(&self) -> Vec<Record> {
        self.state.lock().unwrap().records.values().cloned().collect()
    }

    /// The frames that a stream must show of everything behind `cursor`.
    pub fn expected(self: &Arc<Self>, scope: &Scope, cursor: Seq) -> Vec<String> {
        let events = Events::new(Arc::clone(self) as Arc<dyn Log>);
        let behind: Vec<Record> = {
            let state = self.state.lock().unwrap();
            state.records.range(cursor + 1..).map(|(_, record)| record.clone()).collect()
        };
        behind
            .iter()
            .filter_map(|record| {
                let frame = events.frame(record)?;
                let shown = scope.admits(record.session.as_ref(), record.run, frame.audience);
                shown.then(|| String::from_utf8(encode(record.seq, &frame).to_vec()).expect("frames are text"))
            })
            .collect()
    }
}

impl Log for MemoryLog {
    fn committed(&self) -> Seq {
        self.state.lock().unwrap().records.keys().next_back().copied().unwrap_or(0)
    }

    fn floor(&self) -> Seq {
        self.state.lock().unwrap().floor
    }

    fn read(&self, seq: Seq) -> Result<Record, LogError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let state = self.state.lock().unwrap();
        if state.broken {
            return Err(LogError::new("broken on order"));
        }
        state.records.get(&seq).cloned().ok_or_else(|| LogError::new(format!("no record {seq}")))
    }

    fn scan(&self, from: Seq, bytes_max: usize) -> Result<Vec<Record>, LogError> {
        let state = self.state.lock().unwrap();
        if state.broken {
            return Err(LogError::new("broken on order"));
        }
        if from < state.floor {
            return Err(LogError::new(format!("{from} is no longer retained")));
        }
        let mut bytes = 0;
        let mut found = Vec::new();
        for record in state.records.range(from..).map(|(_, record)| record) {
            found.push(record.clone());
            // About what the envelope of a line takes.
            bytes += record.body.get().len() + 200;
            if bytes >= bytes_max {
                break;
            }
        }
        self.scanned.fetch_add(found.len() as u64, Ordering::Relaxed);
        Ok(found)
    }
}

/// The hub's end of a socket pair. Tells `closed` when the hub lets go of it.
pub struct Wire {
    stream: UnixStream,
    closed: Option<crossbeam_channel::Sender<()>>,
}

impl Sink for Wire {
    fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.stream).write_vectored(slices)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(closed) = &self.closed {
            let _nobody_waits = closed.try_send(());
        }
    }
}

/// A client: reads frames, blocking with [`PATIENCE`].
pub struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
}

/// What came next.
#[derive(Debug, PartialEq, Eq, Clone)]
pub enum Next {
    Frame(String),
    End,
}

impl Client {
    /// The next frame as text, without heartbeats when `skip_heartbeats`.
    pub fn next(&mut self) -> Next {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let frame: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Next::Frame(String::from_utf8(frame).expect("frames are text"));
            }
            if self.read_some() == 0 {
                return Next::End;
            }
        }
    }

    pub fn frame(&mut self) -> String {
        match self.next() {
            Next::Frame(frame) => frame,
            Next::End => panic!("the stream ended"),
        }
    }

    /// The next frame that is not a heartbeat.
    pub fn event(&mut self) -> String {
        loop {
            let frame = self.frame();
            if frame != HEARTBEAT {
                return frame;
            }
        }
    }

    pub fn events(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.event()).collect()
    }

    /// Takes bytes off the socket into the buffer; 0 is the end of the stream.
    pub fn read_some(&mut self) -> usize {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(count) => {
                self.buffer.extend_from_slice(&bytes[..count]);
                count
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("nothing came for {PATIENCE:?}: {error}"),
        }
    }
}

pub const HEARTBEAT: &str = "event: heartbeat\ndata: {\"type\":\"heartbeat\"}\n\n";

/// The id of a frame.
pub fn id_of(frame: &str) -> Option<Seq> {
    frame.strip_prefix("id: ")?.split('\n').next()?.parse().ok()
}

pub fn everything() -> Scope {
    Scope::Global { session: None, run: None }
}

/// Heartbeats never disturb and nobody is cut off.
pub fn calm() -> Config {
    Config { heartbeat_ms: 3_600_000, stall_ms: 3_600_000, ..Config::default() }
}

pub fn start(log: &Arc<MemoryLog>, config: &Config) -> Hub {
    let events = Events::new(Arc::clone(log) as Arc<dyn Log>);
    Hub::start(Arc::clone(log) as Arc<dyn Log>, Arc::new(events), config).expect("the hub starts")
}

/// Opens a stream with the newest record of its scope, as the control plane does.
pub fn open(hub: &Hub, log: &MemoryLog, scope: Scope, cursor: Option<Seq>) -> Client {
    let seat = hub.try_reserve().expect("there is room for another stream");
    let last = log.last_of(&scope);
    let (client, outlet) = pair(None);
    hub.accept(seat, outlet, StreamSpec { last, ..StreamSpec::new(scope, cursor) });
    client
}

/// Opens a stream whose closing by the hub is reported.
pub fn open_watched(hub: &Hub, spec: StreamSpec) -> (Client, crossbeam_channel::Receiver<()>) {
    let (closed, is_closed) = crossbeam_channel::bounded(1);
    let (client, outlet) = pair(Some(closed));
    hub.accept(hub.try_reserve().expect("there is room for another stream"), outlet, spec);
    (client, is_closed)
}

pub fn pair(closed: Option<crossbeam_channel::Sender<()>>) -> (Client, Outlet) {
    let (here, there) = UnixStream::pair().expect("a socket pair");
    there.set_nonblocking(true).expect("non-blocking");
    here.set_read_timeout(Some(PATIENCE)).expect("a read deadline");
    let outlet = Outlet { sink: Box::new(Wire { stream: there, closed }), pending: Vec::new() };
    (Client { stream: here, buffer: Vec::new() }, outlet)
}
