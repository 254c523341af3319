//! Fan-out: one event to a thousand open streams, with one client that never reads.
//! Owns: the stream clients (one thread, one epoll) and the delay from submission to receipt.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use kheish_daemon::sys::{Epoll, Interest};

use crate::daemon::{Daemon, TOKEN};
use crate::exchange::Http;
use crate::histogram::Histogram;
use crate::load::Exchange;

/// What the fan-out measured.
pub struct FanOut {
    /// Streams that read.
    pub clients: usize,
    /// Events sent.
    pub events: u64,
    /// Frames that arrived at reading clients.
    pub received: u64,
    /// From the submission being written (before its commit) to the frame being read: an upper bound of the
    /// delay from commit to receipt.
    pub since_submission: Histogram,
    /// From the reply to the submission (after its commit) to the frame being read; frames that arrived before
    /// the reply was read count as 0.
    pub since_reply: Histogram,
    /// Resident memory that the streams added to the daemon, per stream.
    pub resident_bytes_per_client: u64,
    /// Threads before and after the streams were opened.
    pub thread_counts: (usize, usize),
    /// What became of the client that never reads, as far as a client can see.
    pub stuck_client: &'static str,
}

struct Client {
    socket: TcpStream,
    text: Vec<u8>,
    last_run: u64,
}

struct Receipts {
    sent_at: BTreeMap<u64, Instant>,
    received_at: Vec<(u64, Instant)>,
}

/// Token of the submitting connection; the streams' tokens are their indices.
const SUBMITTER: u64 = u64::MAX;

/// Opens `clients` streams and one that never reads, then submits `events` runs at `per_second`.
///
/// # Errors
/// A stream was refused or closed, or a frame did not arrive within 10 s of the last submission.
pub fn measure(
    daemon: &Daemon,
    clients: usize,
    events: u64,
    per_second: u64,
    first_request: u64,
) -> io::Result<FanOut> {
    let (resident_before, _) = daemon.process.resident_bytes()?;
    let threads_before = daemon.process.thread_count()?;

    // Asked to replay everything and never read: its socket is full at once and stays so.
    let mut stuck = TcpStream::connect(daemon.address)?;
    stuck.write_all(stream_request(&format!("?cursor={}", daemon.first_seq()?)).as_bytes())?;

    let epoll = Epoll::new()?;
    let mut streams = Vec::with_capacity(clients);
    for index in 0..clients {
        streams.push(open_stream(daemon.address, &epoll, index as u64)?);
    }
    let (resident_after, _) = daemon.process.resident_bytes()?;
    let threads_after = daemon.process.thread_count()?;

    let mut submitter = TcpStream::connect(daemon.address)?;
    submitter.set_nodelay(true)?;
    submitter.set_nonblocking(true)?;
    epoll.add(&submitter, SUBMITTER, Interest { readable: true, writable: false, edge: true })?;

    let mut exchange = Http::submit_run(TOKEN).starting_at(first_request);
    let mut replied_at: BTreeMap<u64, Instant> = BTreeMap::new();
    let mut receipts = Receipts { sent_at: BTreeMap::new(), received_at: Vec::new() };
    let interval = Duration::from_micros(1_000_000 / per_second);
    let mut next_at = Instant::now() + interval;
    let (mut sent, mut pending, mut reply) = (0u64, None, Vec::new());
    let (mut ready, mut buffer, mut out) = (Vec::new(), vec![0u8; 64 * 1024], Vec::new());
    let expected = events * clients as u64;
    let mut last_progress = Instant::now();
    while (receipts.received_at.len() as u64) < expected || pending.is_some() {
        if sent < events && pending.is_none() && Instant::now() >= next_at {
            out.clear();
            exchange.request(0, &mut out);
            pending = Some(Instant::now());
            submitter.write_all(&out)?;
            sent += 1;
            next_at += interval;
            last_progress = Instant::now();
        }
        if last_progress.elapsed() > Duration::from_secs(10) {
            let missing = expected - receipts.received_at.len() as u64;
            return Err(io::Error::new(ErrorKind::TimedOut, format!("{missing} of {expected} frames did not arrive")));
        }
        let wait =
            if sent < events { next_at.saturating_duration_since(Instant::now()).as_millis().min(100) } else { 100 };
        epoll.wait(&mut ready, wait as i32)?;
        for event in &ready {
            if event.token == SUBMITTER {
                read_available(&mut submitter, &mut buffer, &mut reply)?;
                if let Some(length) =
                    exchange.reply(&reply).map_err(|text| io::Error::new(ErrorKind::InvalidData, text))?
                {
                    let now = Instant::now();
                    let text = String::from_utf8_lossy(&reply[..length]).into_owned();
                    let run = run_number(&text).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, text.clone()))?;
                    if let Some(at) = pending.take() {
                        receipts.sent_at.insert(run, at);
                    }
                    replied_at.insert(run, now);
                    reply.clear();
                }
            } else {
                let client = &mut streams[event.token as usize];
                read_available(&mut client.socket, &mut buffer, &mut client.text)?;
                receipts.take_frames(client, Instant::now());
            }
        }
        if !ready.is_empty() {
            last_progress = Instant::now();
        }
    }

    let (mut since_submission, mut since_reply) = (Histogram::new(), Histogram::new());
    let mut received = 0;
    for (run, at) in &receipts.received_at {
        if let (Some(sent_at), Some(reply_at)) = (receipts.sent_at.get(run), replied_at.get(run)) {
            since_submission.add(at.duration_since(*sent_at).as_nanos() as u64);
            since_reply.add(at.saturating_duration_since(*reply_at).as_nanos() as u64);
            received += 1;
        }
    }
    Ok(FanOut {
        clients,
        events,
        received,
        since_submission,
        since_reply,
        resident_bytes_per_client: resident_after.saturating_sub(resident_before) / (clients as u64 + 1),
        thread_counts: (threads_before, threads_after),
        stuck_client: stuck_client_state(&mut stuck),
    })
}

impl Receipts {
    /// Takes the whole frames out of the client's text and notes each run that it had not seen yet.
    fn take_frames(&mut self, client: &mut Client, now: Instant) {
        while let Some(end) = client.text.windows(2).position(|pair| pair == b"\n\n") {
            let frame = String::from_utf8_lossy(&client.text[..end]).into_owned();
            client.text.drain(..end + 2);
            // Heartbeats and gaps carry no id.
            if !frame.lines().any(|line| line.starts_with("id:")) {
                continue;
            }
            if let Some(run) = run_number(&frame).filter(|run| *run > client.last_run) {
                client.last_run = run;
                self.received_at.push((run, now));
            }
        }
    }
}

/// The number of the first `run-N` in `text`.
pub fn run_number(text: &str) -> Option<u64> {
    let rest = &text[text.find("\"run-")? + 5..];
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// The request head of a stream of everything.
pub fn stream_request(query: &str) -> String {
    format!(
        "GET /v1/events/stream{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n\
         Accept: text/event-stream\r\n\r\n"
    )
}

/// Opens a stream, waits for its head and first frame, and hands the socket to `epoll`.
fn open_stream(address: SocketAddr, epoll: &Epoll, token: u64) -> io::Result<Client> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.write_all(stream_request("").as_bytes())?;
    let (mut text, mut buffer) = (Vec::new(), [0u8; 4_096]);
    while !String::from_utf8_lossy(&text).contains("heartbeat") {
        match socket.read(&mut buffer)? {
            0 => {
                let text = String::from_utf8_lossy(&text).into_owned();
                return Err(io::Error::new(ErrorKind::UnexpectedEof, format!("stream refused: {text}")));
            }
            count => text.extend_from_slice(&buffer[..count]),
        }
    }
    if !text.starts_with(b"HTTP/1.1 200") {
        return Err(io::Error::new(ErrorKind::InvalidData, String::from_utf8_lossy(&text).into_owned()));
    }
    socket.set_nonblocking(true)?;
    epoll.add(&socket, token, Interest { readable: true, writable: false, edge: true })?;
    Ok(Client { socket, text: Vec::new(), last_run: 0 })
}

fn read_available(socket: &mut TcpStream, buffer: &mut [u8], text: &mut Vec<u8>) -> io::Result<()> {
    loop {
        match socket.read(buffer) {
            Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the daemon closed a stream that was read")),
            Ok(count) => text.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn stuck_client_state(stuck: &mut TcpStream) -> &'static str {
    // Reading would un-stick it; whether the daemon closed it shows in what a write gets.
    match stuck.write(b"\r\n").and_then(|_| stuck.write(b"\r\n")) {
        Ok(_) => "still waiting (its stall deadline is longer than this measurement)",
        Err(_) => "cut off",
    }
}
