//! The one listener of the command line: a browser comes back to it with the outcome of a login.
//! Owns: a socket on 127.0.0.1, and the reading of one request at a time.
//! May touch: that socket.
//! Never: listens on another address, answers another host's name, or reads a head without a bound in size and time.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::limits::{MCP_CALLBACK_HEAD_BYTES_MAX, MCP_CALLBACK_HEAD_MS_MAX};
use crate::sys::process::wait_readable;

/// Where the browser is sent.
const PATH: &str = "/callback";

/// Why no browser came.
#[derive(Debug)]
pub enum CallbackError {
    /// The operating system.
    Io(io::Error),
    /// Nobody came in time.
    TimedOut,
}

impl fmt::Display for CallbackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the callback listener: {error}; next: try another --callback-port"),
            Self::TimedOut => f.write_str("nobody finished the login in the browser in time; next: log in again"),
        }
    }
}

impl std::error::Error for CallbackError {}

/// The listener.
#[derive(Debug)]
pub struct Callback {
    listener: TcpListener,
    port: u16,
}

impl Callback {
    /// Listens on 127.0.0.1; port 0 is any free one.
    ///
    /// # Errors
    /// The port is taken.
    pub fn bind(port: u16) -> Result<Self, CallbackError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(CallbackError::Io)?;
        let port = listener.local_addr().map_err(CallbackError::Io)?.port();
        Ok(Self { listener, port })
    }

    /// The URL that the browser is to come back to.
    pub fn redirect_uri(&self) -> String {
        format!("http://127.0.0.1:{}{PATH}", self.port)
    }

    /// Waits for the browser's request and gives `judge` its query; the browser is shown the page that comes back. Whoever
    /// asks for another path or host is told so and not counted.
    ///
    /// # Errors
    /// Nobody came until `until`.
    pub fn wait<T>(&self, until: Instant, judge: impl FnOnce(&str) -> (T, &'static str)) -> Result<T, CallbackError> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(CallbackError::TimedOut);
            }
            let ready = wait_readable(&[Some(self.listener.as_fd())], left).map_err(CallbackError::Io)?;
            if !ready[0] {
                continue;
            }
            let Ok((mut stream, _)) = self.listener.accept() else { continue };
            // A browser that goes away while it is answered has lost nothing.
            match self.query(&mut stream) {
                Some(query) => {
                    let (judged, page) = judge(&query);
                    let _gone = answer(&mut stream, "200 OK", page);
                    return Ok(judged);
                }
                None => drop(answer(&mut stream, "404 Not Found", "nothing is here")),
            }
        }
    }

    /// The query of a request for the callback; `None` for any other.
    fn query(&self, stream: &mut TcpStream) -> Option<String> {
        let until = Instant::now() + Duration::from_millis(MCP_CALLBACK_HEAD_MS_MAX);
        let (mut head, mut buffer) = (Vec::new(), [0; 1024]);
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || head.len() > MCP_CALLBACK_HEAD_BYTES_MAX {
                return None;
            }
            stream.set_read_timeout(Some(left)).ok()?;
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return None,
                Ok(count) => head.extend_from_slice(&buffer[..count]),
            }
        }
        let text = std::str::from_utf8(&head).ok()?;
        let mut lines = text.split("\r\n");
        let target = lines.next()?.strip_prefix("GET ")?.split(' ').next()?;
        let host = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("host").then(|| value.trim().to_string())
        })?;
        let own = [format!("127.0.0.1:{}", self.port), format!("localhost:{}", self.port)];
        if !own.contains(&host) {
            return None;
        }
        let query = target.strip_prefix(PATH)?;
        if query.is_empty() { Some(String::new()) } else { query.strip_prefix('?').map(str::to_string) }
    }
}

fn answer(stream: &mut TcpStream, status: &str, page: &str) -> io::Result<()> {
    stream.set_write_timeout(Some(Duration::from_millis(MCP_CALLBACK_HEAD_MS_MAX)))?;
    let body = format!("<!doctype html><title>kheish-daemon</title><p>{page}</p>\n");
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
         referrer-policy: no-referrer\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}
