//! Reading what providers send: framing alone, each parser with its JSON, and the way of a first delta to a client.
//! Owns: the synthetic streams and a provider that says when it wrote a delta.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use kheish_daemon::net::SseParser;
use kheish_daemon::providers::{Driver, StreamReader};
use serde_json::json;

use crate::daemon::{self, Daemon, Start, TOKEN};
use crate::histogram::Histogram;
use crate::scenarios::Folder;

/// Bytes of one measured stream: below what one answer may have.
const STREAM_BYTES: usize = 48 * 1024 * 1024;
/// As much as one read of a connection gives.
const READ_BYTES: usize = 16 * 1024;

/// MB (10^6 bytes) per second.
pub struct Parsing {
    /// Framing with frames as vendors send them, of about 250 bytes.
    pub framing: f64,
    /// Framing with larger frames, of about 4 KiB.
    pub framing_large: f64,
    /// Framing and JSON, by driver.
    pub decoding: Vec<(&'static str, f64)>,
}

/// A stream of text deltas without an end.
fn stream_of(driver: Driver, text: &str) -> Vec<u8> {
    let frame = match driver {
        Driver::Openai | Driver::Xai => format!(
            "event: response.output_text.delta\ndata: {}\n\n",
            json!({"type": "response.output_text.delta", "sequence_number": 17, "item_id": "msg_0123456789abcdef",
                   "output_index": 0, "content_index": 0, "delta": text, "logprobs": []})
        ),
        Driver::OpenaiCompatible | Driver::Openrouter => format!(
            "data: {}\n\n",
            json!({"id": "chatcmpl-0123456789", "object": "chat.completion.chunk", "created": 1, "model": "m",
                   "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}], "usage": null})
        ),
        Driver::Anthropic => format!(
            "event: content_block_delta\ndata: {}\n\n",
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})
        ),
        Driver::Google => format!(
            "data: {}\n\n",
            json!({"candidates": [{"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}],
                   "modelVersion": "m", "responseId": "r"})
        ),
    };
    let mut bytes = Vec::with_capacity(STREAM_BYTES);
    if driver == Driver::Anthropic {
        let start = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}});
        bytes.extend_from_slice(format!("event: content_block_start\ndata: {start}\n\n").as_bytes());
    }
    while bytes.len() + frame.len() <= STREAM_BYTES {
        bytes.extend_from_slice(frame.as_bytes());
    }
    bytes
}

fn rate(bytes: usize, started: Instant) -> f64 {
    bytes as f64 / 1e6 / started.elapsed().as_secs_f64()
}

fn frame_all(bytes: &[u8]) -> f64 {
    let mut parser = SseParser::new(8 * 1024 * 1024);
    let (started, mut frames) = (Instant::now(), 0u64);
    for piece in bytes.chunks(READ_BYTES) {
        parser.push(piece);
        while parser.next_frame().expect("our own stream").is_some() {
            frames += 1;
        }
    }
    let rate = rate(bytes.len(), started);
    assert!(frames > 0, "nothing was framed");
    rate
}

/// Measures once.
pub fn parsing() -> Parsing {
    let text = "four or five words here";
    let decode = |driver: Driver| {
        let bytes = stream_of(driver, text);
        let mut reader = StreamReader::new(driver, "bench");
        let (started, mut shown) = (Instant::now(), 0usize);
        for piece in bytes.chunks(READ_BYTES) {
            let ended = reader.push(piece, &mut |event| {
                if let kheish_daemon::providers::TurnEvent::TextDelta(delta) = event {
                    shown += delta.len();
                }
            });
            assert!(ended.expect("our own stream").is_none(), "the stream has no end");
        }
        let rate = rate(bytes.len(), started);
        assert!(shown > 0, "nothing was shown");
        (driver.as_str(), rate)
    };
    Parsing {
        framing: frame_all(&stream_of(Driver::Openai, text)),
        framing_large: frame_all(&stream_of(Driver::Openai, &"x".repeat(4_000))),
        decoding: [Driver::Openai, Driver::Openrouter, Driver::Anthropic, Driver::Google].map(decode).to_vec(),
    }
}

/// Answers `runs` requests, each with one delta whose time of writing is told, and a proper end.
fn provide(listener: &TcpListener, runs: usize, wrote: &Sender<Instant>) -> io::Result<()> {
    for _ in 0..runs {
        let (mut socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        let (mut request, mut buffer) = (Vec::new(), [0u8; 16 * 1024]);
        loop {
            let count = socket.read(&mut buffer)?;
            request.extend_from_slice(&buffer[..count]);
            if count == 0 || request_is_whole(&request) {
                break;
            }
        }
        let created = json!({"type": "response.created", "response": {"id": "r", "status": "in_progress"}});
        write!(
            socket,
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: {created}\n\n"
        )?;
        let delta = json!({"type": "response.output_text.delta", "output_index": 0, "delta": "first-delta "});
        let frame = format!("data: {delta}\n\n");
        // Told before it is written: what follows includes the provider's own write.
        wrote.send(Instant::now()).map_err(|_| io::Error::other("nobody measures"))?;
        socket.write_all(frame.as_bytes())?;
        let item = json!({"type": "message", "content": [{"type": "output_text", "text": "first-delta "}]});
        let done = json!({"type": "response.output_item.done", "output_index": 0, "item": item});
        let completed = json!({"type": "response.completed", "response": {"id": "r", "output": []}});
        write!(socket, "data: {done}\n\ndata: {completed}\n\n")?;
    }
    Ok(())
}

pub fn request_is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    length.is_some_and(|length| body.len() >= length)
}

/// From the provider's write of a run's first delta to its receipt by a client of the session's stream.
pub fn first_delta(base: &Path, runs: usize) -> io::Result<Histogram> {
    let folder = Folder::new(base, "first-delta")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let provider_url = Some(format!("http://{}/v1", listener.local_addr()?));
    let (wrote, written) = channel();
    let provider = std::thread::spawn(move || provide(&listener, runs, &wrote));
    let state_root = folder.path().join("state");
    let daemon = Daemon::start(&Start { state_root: &state_root, hold: false, provider_url })?;
    daemon::request(daemon.address, "POST", "/v1/sessions", r#"{"session_id":"delta"}"#)?;
    let mut stream = TcpStream::connect(daemon.address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(
        stream,
        "GET /v1/sessions/delta/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    )?;
    let mut histogram = Histogram::new();
    let (mut seen, mut buffer) = (Vec::new(), vec![0u8; 64 * 1024]);
    for _ in 0..runs {
        daemon::request(daemon.address, "POST", "/v1/sessions/delta/runs", r#"{"content":"x"}"#)?;
        wait_for(&mut stream, &mut seen, &mut buffer, "event: preview")?;
        let received = Instant::now();
        let sent = written.recv_timeout(Duration::from_secs(30)).map_err(io::Error::other)?;
        histogram.add(received.duration_since(sent).as_nanos() as u64);
        wait_for(&mut stream, &mut seen, &mut buffer, "\"status\":\"completed\"")?;
    }
    provider.join().map_err(|_| io::Error::other("the provider panicked"))??;
    Ok(histogram)
}

/// Reads until `needle` has come, and drops everything up to it.
fn wait_for(stream: &mut TcpStream, seen: &mut Vec<u8>, buffer: &mut [u8], needle: &str) -> io::Result<()> {
    loop {
        if let Some(at) = seen.windows(needle.len()).position(|it| it == needle.as_bytes()) {
            seen.drain(..at + needle.len());
            return Ok(());
        }
        match stream.read(buffer)? {
            0 => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the event stream ended")),
            count => seen.extend_from_slice(&buffer[..count]),
        }
    }
}
