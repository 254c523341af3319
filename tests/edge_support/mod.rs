//! What the edge's tests share: a small service, a client that writes raw bytes, and short deadlines.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use kheish_daemon::http::{
    Admission, Bind, Deadlines, Edge, EdgeConfig, EdgeStats, Head, Lane, Method, Problem, Responder, Response, Service,
    Upgraded, codes, request_id,
};

/// Longest wait for anything that must happen. Only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Answers of `/later` that may wait for the test; a handler that wants to leave one more is held.
pub const LATER_MAX: usize = 32;

/// Longest body of `/echo`.
pub const ECHO_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A service whose paths are the situations that tests need.
pub struct Probe {
    /// Every request that reached a handler, as `METHOD target body`.
    pub seen: Mutex<Vec<String>>,
    later: Sender<Responder>,
    upgrades: Sender<Upgraded>,
}

/// What a handler is told by its admission: the path it was admitted for.
pub struct Admitted(String);

impl Service for Probe {
    type Admitted = Admitted;

    fn admit(&self, head: &Head) -> Admission<Admitted> {
        assert_eq!(request_id::current(), Some(head.request_id), "the thread knows its request");
        let (body_bytes_max, lane) = match head.path.as_str() {
            "/refuse" => {
                let problem = Problem::new(&codes::MISSING_TOKEN, "no token").header("www-authenticate", "Bearer");
                return Admission::Refuse(problem.into());
            }
            "/panic-admit" => panic!("admission panics on order"),
            "/small" => (10, Lane::Worker),
            "/echo" | "/block" | "/panic" | "/big" | "/later" => (ECHO_BYTES_MAX, Lane::Worker),
            _ => (ECHO_BYTES_MAX, Lane::Inline),
        };
        Admission::Accept { admitted: Admitted(head.path.clone()), body_bytes_max, lane }
    }

    fn handle(&self, Admitted(path): Admitted, head: Head, body: Vec<u8>, responder: Responder) {
        assert_eq!(request_id::current(), Some(head.request_id), "the thread knows its request");
        let line = format!("{} {} {}", head.method_name(), head.target, String::from_utf8_lossy(&body));
        self.seen.lock().unwrap().push(line);
        match path.as_str() {
            "/panic" | "/panic-inline" => panic!("handler panics on order"),
            "/panic-late" => {
                responder.send(Response::text(200, "answered"));
                panic!("handler panics after its answer, on order");
            }
            "/forget" => drop(responder),
            "/later" | "/later-inline" => self.later.send(responder).unwrap(),
            "/close" => responder.send(Response::text(200, "bye").closing()),
            "/echo" | "/echo-inline" => {
                responder.send(Response::new(200, "application/octet-stream", body));
            }
            "/big" => {
                let bytes = head.query.as_deref().unwrap_or("0").parse().unwrap();
                responder.send(Response::new(200, "application/octet-stream", vec![b'x'; bytes]));
            }
            "/upgrade" => {
                if let Some(upgraded) = responder.upgrade(Response::new(200, "text/event-stream", Vec::new())) {
                    self.upgrades.send(upgraded).unwrap();
                }
            }
            _ if head.method == Method::Options => responder.send(Response::empty(204)),
            _ => responder.send(Response::text(200, "pong")),
        }
    }
}

/// A running edge with its probe.
pub struct Rig {
    pub edge: Edge,
    pub probe: Arc<Probe>,
    /// Responders of `/later`, to be answered by the test.
    pub later: Receiver<Responder>,
    /// Connections of `/upgrade`.
    pub upgrades: Receiver<Upgraded>,
}

impl Rig {
    pub fn start(adjust: impl FnOnce(&mut EdgeConfig)) -> Self {
        let mut config = EdgeConfig::new(Bind::parse("127.0.0.1:0").unwrap());
        adjust(&mut config);
        let ((later, later_out), (upgrades, upgrades_out)) = (bounded(LATER_MAX), bounded(4));
        let probe = Arc::new(Probe { seen: Mutex::default(), later, upgrades });
        let edge = Edge::start(config, probe.clone()).unwrap();
        Self { edge, probe, later: later_out, upgrades: upgrades_out }
    }

    pub fn address(&self) -> SocketAddr {
        self.edge.local_addr().tcp().expect("the rig listens on TCP")
    }

    /// The next responder that `/later` leaves to the test.
    pub fn next_later(&self) -> Responder {
        self.later.recv_timeout(PATIENCE).expect("the handler was never reached")
    }

    /// The next connection that `/upgrade` leaves to the test.
    pub fn next_upgrade(&self) -> Upgraded {
        self.upgrades.recv_timeout(PATIENCE).expect("the handler was never reached")
    }

    pub fn client(&self) -> Client<TcpStream> {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, received: Vec::new() }
    }

    /// One request on a connection of its own is answered: the listener and the reactor live.
    pub fn assert_serves(&self) {
        let mut client = self.client();
        client.send(b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(client.answer().status, 200);
    }

    /// A worker is free.
    pub fn assert_worker_serves(&self) {
        let mut client = self.client();
        client.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(client.answer().body, b"hi");
    }

    pub fn seen(&self) -> Vec<String> {
        self.probe.seen.lock().unwrap().clone()
    }

    /// Waits until the figures satisfy `holds`.
    pub fn wait_stats(&self, what: &str, holds: impl Fn(&EdgeStats) -> bool) -> EdgeStats {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stats = self.edge.stats();
            if holds(&stats) {
                return stats;
            }
            assert!(Instant::now() < deadline, "{what} never came: {stats:?}");
            std::thread::yield_now();
        }
    }
}

/// Deadlines that a test can wait for; each is met as an event, not timed. A test that must do something within one needs
/// a machine that does not hold it up for longer.
pub fn short_deadlines() -> Deadlines {
    let short = Duration::from_millis(1_500);
    Deadlines {
        head: short,
        body: short * 4,
        body_progress: short,
        idle: short,
        write_progress: short,
        linger: short,
        drain_fresh: short,
    }
}

/// One response as it came over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.split("\r\n").skip(1);
        lines.find_map(|line| line.split_once(": ").filter(|(found, _)| *found == name).map(|(_, value)| value))
    }

    /// The problem document, checked against its head.
    pub fn problem_code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let document: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(document["status"], self.status, "{document}");
        assert_eq!(document["request_id"].as_str(), self.header("x-request-id"), "{document}");
        document["code"].as_str().unwrap().to_string()
    }

    pub fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

/// A client that sends exactly the bytes it is told.
pub struct Client<S> {
    pub stream: S,
    received: Vec<u8>,
}

impl<S: Read + Write> Client<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, received: Vec::new() }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends as much as the server takes; it may close in the middle.
    pub fn offer(&mut self, bytes: &[u8]) {
        let _server_may_have_closed = self.stream.write_all(bytes);
    }

    fn fill(&mut self) -> bool {
        let mut piece = [0; 65_536];
        match self.stream.read(&mut piece) {
            Ok(0) => false,
            Ok(count) => {
                self.received.extend_from_slice(&piece[..count]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing came: {error}; received {:?}", String::from_utf8_lossy(&self.received)),
        }
    }

    /// The next response to a request that was not HEAD.
    pub fn answer(&mut self) -> Answer {
        self.next_answer(false).expect("the server closed instead of answering")
    }

    /// The next response to a HEAD request.
    pub fn head_answer(&mut self) -> Answer {
        self.next_answer(true).expect("the server closed instead of answering")
    }

    /// The next response, or None at the end of the connection.
    pub fn next_answer(&mut self, head_only: bool) -> Option<Answer> {
        let head_end = loop {
            if let Some(end) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if !self.fill() {
                assert!(self.received.is_empty(), "cut: {:?}", String::from_utf8_lossy(&self.received));
                return None;
            }
        };
        let head = String::from_utf8(self.received[..head_end].to_vec()).unwrap();
        self.received.drain(..head_end + 4);
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        let length = if head_only { 0 } else { answer.header("content-length").map_or(0, |n| n.parse().unwrap()) };
        while self.received.len() < length {
            assert!(self.fill(), "the body was cut at {} of {length}", self.received.len());
        }
        answer.body = self.received.drain(..length).collect();
        Some(answer)
    }

    /// All responses until the server closes.
    pub fn answers_until_close(&mut self) -> Vec<Answer> {
        std::iter::from_fn(|| self.next_answer(false)).collect()
    }

    /// Waits for the server to close; nothing more may come.
    pub fn assert_closed(&mut self) {
        while self.fill() {}
        assert_eq!(String::from_utf8_lossy(&self.received), "", "bytes after the last answer");
    }
}

impl Client<TcpStream> {
    pub fn finish_sending(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}

/// xorshift64*: a failing case is replayed with its seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}
