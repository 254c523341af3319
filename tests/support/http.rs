//! A minimal HTTP client on plain sockets: kept connections, and event streams.
//! Owns: nothing but its sockets.
//! Never: retries, follows or hides anything; a daemon that dies in the middle is an `Err`, which tests count on.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a test waits for bytes that must come. Only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {}", self.status, self.headers, String::from_utf8_lossy(&self.body))
    }
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// Status and problem code, to be compared as one.
    pub fn refusal(&self) -> (u16, String) {
        (self.status, self.json()["code"].as_str().unwrap_or_default().to_string())
    }
}

/// A kept connection.
pub struct Client {
    stream: TcpStream,
    token: &'static str,
    unread: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr, token: &'static str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, token, unread: Vec::new() })
    }

    /// One request and its answer.
    ///
    /// # Errors
    /// The daemon went away before the whole answer had come; whether it acted is not known then.
    pub fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> io::Result<Reply> {
        self.send(method, target, headers, body)?;
        self.read()
    }

    fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> io::Result<()> {
        let mut text = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n");
        // Without a token nothing is proven.
        if !self.token.is_empty() {
            write!(text, "authorization: Bearer {}\r\n", self.token).expect("memory");
        }
        for (name, value) in headers {
            write!(text, "{name}: {value}\r\n").expect("memory");
        }
        if !body.is_empty() {
            write!(text, "content-type: application/json\r\ncontent-length: {}\r\n", body.len()).expect("memory");
        }
        self.stream.write_all(format!("{text}\r\n{body}").as_bytes())
    }

    fn read(&mut self) -> io::Result<Reply> {
        let (status, headers) = self.head()?;
        let length = headers
            .iter()
            .find(|(name, _)| name == "content-length")
            .map_or(0, |(_, value)| value.parse::<usize>().unwrap_or_else(|_| panic!("content-length {value:?}")));
        while self.unread.len() < length {
            self.more()?;
        }
        Ok(Reply { status, headers, body: self.unread.drain(..length).collect() })
    }

    fn head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let end = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                break at + 4;
            }
            self.more()?;
        };
        let head = String::from_utf8(self.unread.drain(..end).collect()).expect("a head is text");
        let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status line");
        let headers = lines
            .map(|line| line.split_once(':').expect("a header line has a colon"))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_string()))
            .collect();
        Ok((status, headers))
    }

    fn more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        let count = self.stream.read(&mut buffer)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.unread.extend_from_slice(&buffer[..count]);
        Ok(())
    }
}

/// One event as it came over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub id: Option<u64>,
    pub event: String,
    pub data: String,
}

impl Frame {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// Run id and status, where the frame shows a run.
    pub fn run_status(&self) -> Option<(String, String)> {
        if self.event != "run_updated" {
            return None;
        }
        let run = &self.json()["run"];
        Some((run["run_id"].as_str()?.to_string(), run["status"].as_str()?.to_string()))
    }
}

/// Whether a run that shows this status has come to its end.
pub fn is_terminal(status: &str) -> bool {
    ["completed", "failed", "interrupted", "cancelled"].contains(&status)
}

/// An open event stream.
pub struct EventStream(Client);

impl EventStream {
    /// `target` with its query, for example `/v1/events/stream?cursor=0`.
    pub fn open(address: SocketAddr, token: &'static str, target: &str) -> io::Result<Self> {
        let mut client = Client::connect(address, token)?;
        client.send("GET", target, &[], "")?;
        let (status, headers) = client.head()?;
        assert_eq!(status, 200, "{target}: {headers:?}");
        Ok(Self(client))
    }

    /// The next frame.
    ///
    /// # Errors
    /// The daemon went away; half a frame is thrown away, as a client must.
    pub fn next(&mut self) -> io::Result<Frame> {
        let end = loop {
            if let Some(at) = find(&self.0.unread, b"\n\n") {
                break at + 2;
            }
            self.0.more()?;
        };
        let text = String::from_utf8(self.0.unread.drain(..end).collect()).expect("a frame is text");
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Ok(Frame {
            id: field("id").map(|id| id.parse().unwrap_or_else(|_| panic!("id {id:?}"))),
            event: field("event").unwrap_or_default().to_string(),
            data: field("data").unwrap_or_default().to_string(),
        })
    }

    /// The first frame that `wanted` takes; those before it are passed over.
    pub fn until(&mut self, what: &str, mut wanted: impl FnMut(&Frame) -> bool) -> Frame {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let frame = self.next().unwrap_or_else(|error| panic!("{what} never came: {error}"));
            if wanted(&frame) {
                return frame;
            }
            // Heartbeats keep coming even if nothing else does.
            assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
