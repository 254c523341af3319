//! The load generator: one thread, one epoll, one request in flight per connection.
//! Owns: connections, timing and the latency histogram. Every system under measure is driven by this code.
//! Never: parses more of a reply than its length and whether it is a success.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use kheish_daemon::sys::{Epoll, Interest};

use crate::histogram::Histogram;

/// One system's protocol: what to send next and where a reply ends.
pub trait Exchange {
    /// Appends the next request of `connection` to `out`.
    fn request(&mut self, connection: usize, out: &mut Vec<u8>);
    /// The length of the reply at the start of `bytes`, or `None` while it is incomplete.
    ///
    /// # Errors
    /// The reply is a refusal or not understood; the text says which.
    fn reply(&mut self, bytes: &[u8]) -> Result<Option<usize>, String>;
}

/// How hard and how long.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Connections, each with one request in flight.
    pub clients: usize,
    /// Unmeasured time before the measured one.
    pub warm_up: Duration,
    /// Measured time.
    pub duration: Duration,
    /// Stop after this many requests even if time is left.
    pub requests_max: u64,
}

impl Load {
    /// Sends exactly `requests` requests, however long it takes.
    pub fn count(clients: usize, requests: u64) -> Self {
        Self { clients, warm_up: Duration::ZERO, duration: Duration::from_secs(3_600), requests_max: requests }
    }

    /// Measures for `duration` after a warm-up of a tenth of it.
    pub fn time(clients: usize, duration: Duration) -> Self {
        Self { clients, warm_up: duration / 10, duration, requests_max: u64::MAX }
    }
}

/// What one load measured.
pub struct Sample {
    /// Replies within the measured time.
    pub replies: u64,
    /// All replies, the warm-up's too.
    pub replies_with_warm_up: u64,
    /// The measured time in seconds.
    pub seconds: f64,
    /// From request written to reply read.
    pub latency: Histogram,
}

impl Sample {
    /// Replies per second.
    pub fn rate(&self) -> f64 {
        self.replies as f64 / self.seconds
    }
}

struct Connection {
    socket: TcpStream,
    sent_at: Instant,
    in_flight: bool,
    partial: Vec<u8>,
}

/// No reply at all for this long means that the system under measure is stuck.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// Drives `exchange` against `address` and measures.
///
/// # Errors
/// A connection failed, a reply was a refusal, or nothing was answered for 20 s.
pub fn run(address: SocketAddr, load: Load, exchange: &mut impl Exchange) -> io::Result<Sample> {
    let epoll = Epoll::new()?;
    let started = Instant::now();
    let mut connections = Vec::with_capacity(load.clients);
    for index in 0..load.clients {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        epoll.add(&socket, index as u64, Interest { readable: true, writable: false, edge: true })?;
        connections.push(Connection { socket, sent_at: started, in_flight: false, partial: Vec::new() });
    }

    let started = Instant::now();
    let measure_from = started + load.warm_up;
    let measure_until = measure_from + load.duration;
    let mut out = Vec::with_capacity(4_096);
    let mut sent = 0u64;
    for (index, connection) in connections.iter_mut().enumerate() {
        if sent < load.requests_max {
            send(connection, index, exchange, &mut out)?;
            sent += 1;
        }
    }

    let mut sample = Sample { replies: 0, replies_with_warm_up: 0, seconds: 0.0, latency: Histogram::new() };
    let (mut ready, mut buffer) = (Vec::new(), vec![0u8; 64 * 1024]);
    let mut last_reply = started;
    let mut outstanding = sent;
    while outstanding > 0 {
        epoll.wait(&mut ready, 100)?;
        let mut now = Instant::now();
        if now.duration_since(last_reply) > SILENCE_MAX {
            return Err(io::Error::new(ErrorKind::TimedOut, format!("{outstanding} requests unanswered for 20 s")));
        }
        for event in &ready {
            let index = event.token as usize;
            let connection = &mut connections[index];
            if !read_reply(connection, &mut buffer, exchange)? {
                continue;
            }
            now = Instant::now();
            last_reply = now;
            outstanding -= 1;
            sample.replies_with_warm_up += 1;
            if now >= measure_from && now < measure_until {
                sample.replies += 1;
                sample.latency.add(now.duration_since(connection.sent_at).as_nanos() as u64);
            }
            if now < measure_until && sent < load.requests_max {
                send(connection, index, exchange, &mut out)?;
                sent += 1;
                outstanding += 1;
            }
        }
    }
    let measured_until = if load.requests_max == u64::MAX { measure_until } else { last_reply };
    sample.seconds = measured_until.duration_since(measure_from).as_secs_f64();
    Ok(sample)
}

fn send(connection: &mut Connection, index: usize, exchange: &mut impl Exchange, out: &mut Vec<u8>) -> io::Result<()> {
    out.clear();
    exchange.request(index, out);
    connection.sent_at = Instant::now();
    // A request is far smaller than an empty send buffer, so a partial write means a broken connection.
    match connection.socket.write(out)? {
        written if written == out.len() => {
            connection.in_flight = true;
            Ok(())
        }
        written => Err(io::Error::new(ErrorKind::WriteZero, format!("{written} of {} bytes written", out.len()))),
    }
}

/// Reads what there is; true when the awaited reply is complete.
fn read_reply(connection: &mut Connection, buffer: &mut [u8], exchange: &mut impl Exchange) -> io::Result<bool> {
    let invalid = |text: String| io::Error::new(ErrorKind::InvalidData, text);
    loop {
        let count = match connection.socket.read(buffer) {
            Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the peer closed a connection in use")),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        let (reply, available) = if connection.partial.is_empty() {
            (exchange.reply(&buffer[..count]).map_err(invalid)?, count)
        } else {
            connection.partial.extend_from_slice(&buffer[..count]);
            (exchange.reply(&connection.partial).map_err(invalid)?, connection.partial.len())
        };
        match reply {
            Some(length) if length == available && connection.in_flight => {
                connection.partial.clear();
                connection.in_flight = false;
                return Ok(true);
            }
            Some(length) => return Err(invalid(format!("{} bytes beyond the one reply", available - length))),
            None if connection.partial.is_empty() => connection.partial.extend_from_slice(&buffer[..count]),
            None => {}
        }
        // A short read has emptied the socket; the next bytes raise a new edge.
        if count < buffer.len() {
            return Ok(false);
        }
    }
}
