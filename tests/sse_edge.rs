//! Event streams through the real HTTP edge: the response head, the connection's end, and the drain.

mod sse_support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use kheish_daemon::http::{Admission, Bind, Edge, EdgeConfig, Head, Lane, Responder, Response, Service};
use kheish_daemon::sse::{Hub, RESPONSE_HEADERS, StreamSpec};
use sse_support::{HEARTBEAT, MemoryLog, PATIENCE, calm, everything, start};

struct Streams {
    hub: Hub,
}

impl Service for Streams {
    type Admitted = ();

    fn admit(&self, _head: &Head) -> Admission<()> {
        Admission::Accept { admitted: (), body_bytes_max: 0, lane: Lane::Inline }
    }

    fn handle(&self, (): (), head: Head, _body: Vec<u8>, responder: Responder) {
        let (content_type, others) = RESPONSE_HEADERS.split_first().expect("there are headers");
        let headers = others.iter().map(|(name, value)| (*name, value.to_string())).collect();
        let response = Response::new(200, content_type.1, Vec::new()).with_headers(headers);
        let seat = self.hub.try_reserve().expect("there is room");
        if let Some(upgraded) = responder.upgrade(response) {
            let cursor = head.header("last-event-id").map(|id| id.parse().expect("a cursor"));
            self.hub.accept(seat, upgraded, StreamSpec::new(everything(), cursor));
        }
    }
}

fn connect(edge: &Edge, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(edge.local_addr().tcp().expect("a TCP edge")).expect("the edge listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a read deadline");
    stream.write_all(request.as_bytes()).expect("the edge reads");
    stream
}

/// Everything up to and including `end`.
fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with(end) {
        assert_eq!(stream.read(&mut byte).expect("more comes"), 1, "the stream ended after {text}");
        text.push(char::from(byte[0]));
    }
    text
}

#[test]
fn a_stream_through_the_edge_has_its_head_its_frames_and_an_end() {
    let log = MemoryLog::new();
    let hub = start(&log, &calm());
    let bind = Bind::parse("127.0.0.1:0").expect("an address");
    let edge = Edge::start(EdgeConfig::new(bind), Arc::new(Streams { hub: hub.clone() })).expect("the edge starts");

    let mut live = connect(&edge, "GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    let head = read_until(&mut live, "\r\n\r\n");
    let mut lines = head.split("\r\n");
    assert_eq!(lines.next(), Some("HTTP/1.1 200 OK"));
    let lines: Vec<String> = lines.map(str::to_ascii_lowercase).collect();
    for (name, value) in RESPONSE_HEADERS.iter().chain(&[("connection", "close")]) {
        assert!(lines.contains(&format!("{name}: {value}")), "{name} is missing in {head}");
    }
    for absent in ["content-length:", "transfer-encoding:"] {
        assert!(!lines.iter().any(|line| line.starts_with(absent)), "{absent} in {head}");
    }
    assert_eq!(read_until(&mut live, "\n\n"), HEARTBEAT);
    log.hold(true);
    hub.committed();
    let frame = log.expected(&everything(), 0).remove(0);
    assert_eq!(read_until(&mut live, "\n\n"), frame);

    // A second one replays, leaves, and gives its place back to the edge and to the hub.
    let mut replayed = connect(&edge, "GET / HTTP/1.1\r\nhost: x\r\nlast-event-id: 0\r\n\r\n");
    read_until(&mut replayed, "\r\n\r\n");
    assert_eq!(read_until(&mut replayed, "\n\n"), frame);
    assert_eq!(hub.stats().streams, 2);
    drop(replayed);
    let mut third = connect(&edge, "HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let mut answer = String::new();
    third.read_to_string(&mut answer).expect("an answer and an end");
    assert!(answer.ends_with("\r\n\r\n"), "a HEAD gets the head alone: {answer}");

    // The drain leaves streams to the hub; its stop ends them.
    hub.stop().expect("no writer panicked");
    let mut rest = Vec::new();
    live.read_to_end(&mut rest).expect("a clean end");
    assert_eq!(rest, b"");
    assert_eq!(hub.stats().streams, 0);
    assert!(edge.drain(PATIENCE));
    assert_eq!(edge.stats().connections_upgraded, 0);
    edge.stop().expect("no thread panicked");
}
