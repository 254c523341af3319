//! The abuse list: what broke tiny_http 0.12 (docs/dependencies.md), row by row, with the answer that the
//! edge gives instead. Rows 3 and 4 (descriptors and threads run out) are in edge_descriptors.rs.

mod edge_support;

use std::io::{Read, Write};
use std::time::Duration;

use edge_support::{Rig, short_deadlines};
use kheish_daemon::http::{Refused, Response};

#[test]
fn row_1_a_huge_content_length_is_refused_unread_and_nothing_is_allocated() {
    let rig = Rig::start(|_| {});
    for length in ["1000000000000", "100000000000000000", "18446744073709551615"] {
        for path in ["/echo", "/refuse"] {
            let mut client = rig.client();
            client.send(format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n").as_bytes());
            let answer = client.answer();
            let expected = if path == "/echo" { "payload_too_large" } else { "missing_token" };
            assert_eq!((answer.problem_code().as_str(), answer.closes()), (expected, true), "{length}");
            client.assert_closed();
        }
    }
    let mut client = rig.client();
    client.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551616\r\n\r\n");
    assert_eq!(client.answer().problem_code(), "ambiguous_framing");
    assert_eq!(rig.edge.stats().refused(Refused::BodyTooLarge), 3);
    rig.assert_worker_serves();
}

#[test]
fn row_2_every_connection_of_a_burst_is_served_while_the_others_stay_open() {
    kheish_daemon::sys::raise_open_files_limit().unwrap();
    let rig = Rig::start(|_| {});
    let mut clients: Vec<_> = (0..2_000).map(|_| rig.client()).collect();
    for client in &mut clients {
        client.send(b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.answer().body, b"pong");
    }
    for client in clients.iter_mut().rev() {
        client.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(client.answer().body, b"hi");
    }
    assert_eq!(rig.edge.stats().connections_open, 2_000);
}

#[test]
fn row_5_a_listener_without_clients_for_longer_than_every_deadline_still_accepts() {
    let rig = Rig::start(|config| config.deadlines = short_deadlines());
    // One idle connection that is cut marks that the deadlines have passed.
    rig.client().assert_closed();
    rig.wait_stats("the idle cut", |stats| stats.refused(Refused::IdleDeadline) == 1);
    rig.assert_serves();
}

#[test]
fn row_6_a_dribbled_head_or_body_is_cut_at_its_deadline() {
    let rig = Rig::start(|config| config.deadlines = short_deadlines());
    let head = b"GET /ping HTTP/1.1\r\nHost: h\r\nX-Filler: ".as_slice();
    let body = b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n".as_slice();
    for (beginning, reason) in [(head, Refused::HeadDeadline), (body, Refused::BodyDeadline)] {
        let mut client = rig.client();
        client.send(beginning);
        let mut dribble = client.stream.try_clone().unwrap();
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        let dribbler = std::thread::spawn(move || {
            // One byte every 20 ms: far below every deadline between two bytes, far too slow in sum.
            while stopped.recv_timeout(Duration::from_millis(20)).is_err() {
                if dribble.write_all(b"x").is_err() {
                    break;
                }
            }
        });
        let answer = client.answer();
        assert_eq!((answer.problem_code().as_str(), answer.closes()), ("request_timeout", true));
        client.assert_closed();
        drop(stop);
        dribbler.join().unwrap();
        assert_eq!(rig.edge.stats().refused(reason), 1);
    }
    assert_eq!(rig.seen(), Vec::<String>::new());
}

#[test]
fn row_7_clients_that_dribble_a_refused_body_hold_no_worker() {
    let rig = Rig::start(|_| {});
    let mut clients: Vec<_> = (0..8).map(|_| rig.client()).collect();
    for client in &mut clients {
        client.send(b"POST /small HTTP/1.1\r\nHost: h\r\nContent-Length: 10000000\r\n\r\n");
        assert_eq!(client.answer().problem_code(), "payload_too_large");
        client.offer(b"x");
    }
    for _ in 0..3 {
        rig.assert_serves();
        rig.assert_worker_serves();
    }
    for client in &mut clients {
        client.offer(b"x");
        client.assert_closed();
    }
    rig.wait_stats("all closed", |stats| stats.connections_open == 0);
}

#[test]
fn row_8_requests_behind_a_stream_are_dropped_with_it_and_block_nobody() {
    let rig = Rig::start(|config| config.workers = 1);
    let mut client = rig.client();
    let mut bytes = b"GET /upgrade HTTP/1.1\r\nHost: h\r\n\r\n".to_vec();
    for _ in 0..8 {
        bytes.extend_from_slice(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi");
    }
    client.send(&bytes);
    let upgraded = rig.next_upgrade();
    rig.assert_serves();
    rig.assert_worker_serves();
    assert_eq!(rig.seen().len(), 3, "the stream and the two probes, nothing behind the stream");
    drop(upgraded);
}

#[test]
fn row_9_a_client_that_pipelines_and_never_reads_is_held_back_and_cut() {
    let rig = Rig::start(|config| config.deadlines.write_progress = Duration::from_millis(300));
    let mut client = rig.client();
    let requests = b"GET /big?1000 HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1_000);
    let mut sent = 0;
    // 29 MB at most; the server stops reading long before, and cuts the connection in the end.
    while sent < 29_000_000 {
        match client.stream.write(&requests) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    assert!(sent < 29_000_000, "the server read everything");
    let stats = rig.wait_stats("the cut", |stats| stats.refused(Refused::WriteDeadline) == 1);
    assert!(stats.unsent_bytes < 100_000, "one answer at a time is held: {stats:?}");
    rig.wait_stats("its end", |stats| stats.connections_open == 0 && stats.unsent_bytes == 0);
    rig.assert_serves();
}

#[test]
fn row_9_pipelined_megabytes_of_a_reading_client_are_all_answered_in_order() {
    let rig = Rig::start(|_| {});
    let mut client = rig.client();
    let mut writer = client.stream.try_clone().unwrap();
    const REQUESTS: usize = 30_000;
    let sender = std::thread::spawn(move || {
        for number in 0..REQUESTS {
            let id = format!("GET /ping HTTP/1.1\r\nHost: h\r\nX-Request-Id: {number}\r\n\r\n");
            writer.write_all(id.as_bytes()).unwrap();
        }
    });
    for number in 0..REQUESTS {
        assert_eq!(client.answer().header("x-request-id"), Some(number.to_string().as_str()));
    }
    sender.join().unwrap();
}

#[test]
fn row_10_heads_have_a_size_and_a_line_limit() {
    let rig = Rig::start(|_| {});
    let filler = vec![b'a'; 200_000];
    let many_lines = "X: y\r\n".repeat(100);
    for (beginning, filler, code) in [
        ("GET /ping HTTP/1.1\r\nHost: h\r\nX-Long: ", filler.as_slice(), "head_too_large"),
        ("GET /ping HTTP/1.1\r\nHost: h\r\n", format!("{many_lines}\r\n").as_bytes(), "head_too_large"),
        ("GET /", filler.as_slice(), "target_too_long"),
        ("GET /ping HTTP/1.1\r\nHost: h\r\n", "X-Y: z\r\n".repeat(10_000).as_bytes(), "head_too_large"),
    ] {
        let mut client = rig.client();
        client.send(beginning.as_bytes());
        client.offer(filler);
        let answer = client.answer();
        assert_eq!((answer.problem_code().as_str(), answer.closes()), (code, true));
        client.assert_closed();
    }
    assert_eq!(rig.edge.stats().refused(Refused::HeadTooLarge), 4);
}

/// The request behind an ambiguous one. It must never be executed.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

fn assert_refused(rig: &Rig, request: &[u8], code: &str) {
    let text = String::from_utf8_lossy(request);
    let mut client = rig.client();
    client.send(request);
    client.offer(SMUGGLED.as_bytes());
    let answers = client.answers_until_close();
    let codes: Vec<_> = answers.iter().map(|answer| answer.problem_code()).collect();
    assert_eq!(codes, [code], "{text:?}");
    assert!(answers[0].closes(), "{text:?}");
    assert_eq!(rig.seen(), Vec::<String>::new(), "{text:?} was executed");
}

#[test]
fn row_11_a_content_length_with_two_readings_is_refused() {
    let rig = Rig::start(|_| {});
    for lines in [
        "Content-Length: abc",
        "Content-Length: -1",
        "Content-Length: +5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 5;a",
        "Content-Length: 5.0",
        "Content-Length:",
        "Content-Length: 31, 31",
        "Content-Length: 31,31",
        "Content-Length: 31\r\nContent-Length: 31",
        "Content-Length: 31\r\nContent-Length: 0",
        "content-length: 0\r\nCONTENT-LENGTH: 31",
        "Content-Length: \u{661}",
        "Content-Length: 99999999999999999999",
        "Content-Length:\t31",
        "Content-Length: 31\t ",
    ] {
        let request = format!("POST /echo HTTP/1.1\r\nHost: h\r\n{lines}\r\n\r\n{SMUGGLED}");
        assert_refused(&rig, request.as_bytes(), "ambiguous_framing");
    }
}

#[test]
fn row_12_a_transfer_encoding_with_two_readings_is_refused() {
    let rig = Rig::start(|_| {});
    for (lines, code) in [
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", "ambiguous_framing"),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", "ambiguous_framing"),
        ("Content-Length: 0\r\nTransfer-Encoding: identity", "ambiguous_framing"),
        ("Transfer-Encoding: xchunked", "transfer_encoding_unsupported"),
        ("Transfer-Encoding: identity", "transfer_encoding_unsupported"),
        ("Transfer-Encoding: gzip, chunked", "transfer_encoding_unsupported"),
        ("Transfer-Encoding: chunked, chunked", "transfer_encoding_unsupported"),
        ("Transfer-Encoding: chunked, identity", "transfer_encoding_unsupported"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "transfer_encoding_unsupported"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "transfer_encoding_unsupported"),
        ("Transfer-Encoding: chunked;q=1", "transfer_encoding_unsupported"),
        ("Transfer-Encoding: \"chunked\"", "transfer_encoding_unsupported"),
        ("Transfer-Encoding:", "transfer_encoding_unsupported"),
        ("Transfer-Encoding: chunked\u{a0}", "transfer_encoding_unsupported"),
        ("Transfer-Encoding: \x0bchunked", "malformed_request"),
        ("Transfer-Encoding:\tchunked", "ambiguous_framing"),
        ("Transfer-Encoding: chunked \t", "ambiguous_framing"),
        ("Transfer-Encoding:\t", "ambiguous_framing"),
        ("Transfer-Encoding : chunked", "malformed_request"),
        ("Transfer-Encoding\t: chunked", "malformed_request"),
        ("X: y\r\n Transfer-Encoding: chunked", "malformed_request"),
    ] {
        let request = format!("POST /echo HTTP/1.1\r\nHost: h\r\n{lines}\r\n\r\n0\r\n\r\n");
        assert_refused(&rig, request.as_bytes(), code);
    }
    assert_refused(
        &rig,
        b"POST /echo HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "ambiguous_framing",
    );
}

#[test]
fn row_12_the_trailer_of_a_chunked_body_is_not_a_request() {
    let rig = Rig::start(|_| {});
    let mut client = rig.client();
    client.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-T: v\r\n\r\n");
    client.send(b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((client.answer().body, client.answer().body), (b"a".to_vec(), b"pong".to_vec()));
    assert_eq!(rig.seen(), ["POST /echo a", "GET /ping "]);
}

#[test]
fn row_13_a_chunked_body_that_nobody_wants_is_never_read_as_a_request() {
    let rig = Rig::start(|_| {});
    for path in ["/refuse", "/small"] {
        let mut client = rig.client();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes());
        client.offer(format!("22\r\n{SMUGGLED}\r\n0\r\n\r\n{SMUGGLED}").as_bytes());
        let answers = client.answers_until_close();
        assert_eq!(answers.iter().map(|answer| answer.closes()).collect::<Vec<_>>(), [true]);
    }
    assert_eq!(rig.seen(), Vec::<String>::new());
}

#[test]
fn row_14_characters_and_lines_that_do_not_belong_in_a_head_are_refused() {
    let rig = Rig::start(|_| {});
    let cases: &[(&[u8], &str)] = &[
        (b"GET /ping HTTP/1.1\r\nHost: h\r\nX: a\nb\r\n\r\n", "malformed_request"),
        (b"GET /ping HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", "malformed_request"),
        (b"GET /ping HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n", "malformed_request"),
        (b"GET /ping HTTP/1.1\r\nHost: h\r\nX: a\x01b\r\n\r\n", "malformed_request"),
        (b"GET /ping HTTP/1.1\r\nHost: h\r\nX: a\x7fb\r\n\r\n", "malformed_request"),
        (b"GET /ping HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", "malformed_request"),
        (b"GET /ping HTTP/1.1\r\nHost: h\r\nX: a\r\n\tb\r\n\r\n", "malformed_request"),
        (b"GET /ping HTTP/1.1\r\n Host: h\r\n\r\n", "malformed_request"),
        (b"GET /ping HTTP/1.1\r\nHost: h\r\nX a\r\n\r\n", "malformed_request"),
        (b"GET /ping HTTP/1.1\r\nHost: h\r\n: a\r\n\r\n", "malformed_request"),
        (b"GET /ping HTTP/1.1\r\nHost: h\r\nX(): a\r\n\r\n", "malformed_request"),
        (b"GET /ping HTTP/1.1\r\n\r\n", "malformed_request"),
        (b"GET /ping HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", "ambiguous_framing"),
        (b"GET /ping HTTP/1.1\r\nHost: a, b\r\n\r\n", "malformed_request"),
        (b"GET /ping HTTP/1.1\r\nHost: a b\r\n\r\n", "malformed_request"),
        (b"GET /ping HTTP/1.1\r\nHost: a@b\r\n\r\n", "malformed_request"),
        (b"GET /ping HTTP/1.1\r\nHost: a/b\r\n\r\n", "malformed_request"),
        (b"G\x01T /ping HTTP/1.1\r\nHost: h\r\n\r\n", "malformed_request"),
        (b"G(T /ping HTTP/1.1\r\nHost: h\r\n\r\n", "malformed_request"),
        (b"GET  /ping HTTP/1.1\r\nHost: h\r\n\r\n", "malformed_request"),
        (b"GET /ping  HTTP/1.1\r\nHost: h\r\n\r\n", "malformed_request"),
        (b" GET /ping HTTP/1.1\r\nHost: h\r\n\r\n", "malformed_request"),
        (b"GET\t/ping HTTP/1.1\r\nHost: h\r\n\r\n", "malformed_request"),
        (b"GET /pi\x00ng HTTP/1.1\r\nHost: h\r\n\r\n", "malformed_request"),
        (b"GET /ping HTTP/1.1 \r\nHost: h\r\n\r\n", "malformed_request"),
        (b"GET /ping\r\nHost: h\r\n\r\n", "malformed_request"),
        (b"GET /ping http/1.1\r\nHost: h\r\n\r\n", "malformed_request"),
        (b"GET /ping HTTP/1.10\r\nHost: h\r\n\r\n", "malformed_request"),
        (b"GET /ping HTTP/1.2\r\nHost: h\r\n\r\n", "version_unsupported"),
        (b"GET /ping HTTP/0.9\r\nHost: h\r\n\r\n", "version_unsupported"),
        (b"GET ping HTTP/1.1\r\nHost: h\r\n\r\n", "malformed_request"),
        (b"GET /ping#x HTTP/1.1\r\nHost: h\r\n\r\n", "malformed_request"),
        (b"GET http://evil/ping HTTP/1.1\r\nHost: h\r\n\r\n", "ambiguous_framing"),
        (b"CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n", "method_unsupported"),
    ];
    for (request, code) in cases {
        assert_refused(&rig, request, code);
    }
}

#[test]
fn row_15_foreign_protocols_and_line_ends_are_answered_and_closed() {
    let rig = Rig::start(|_| {});
    assert_refused(&rig, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "version_unsupported");
    assert_refused(&rig, b"GET /ping HTTP/1.1\nHost: h\n\n", "malformed_request");
    assert_refused(&rig, b"\nGET /ping HTTP/1.1\r\nHost: h\r\n\r\n", "malformed_request");
    assert_refused(&rig, b"GET /ping HTTP/1.1\r\nHost: h\r\nX: \xff\r\n\r\n", "malformed_request");
    assert_refused(&rig, b"GET /ping HTTP/1.1\r\nHost: h\r\n\xe9: x\r\n\r\n", "malformed_request");
    // Answered at the first byte that no head contains, long before a head could be complete.
    for beginning in [b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".as_slice(), b"GET /ping\n", b"\0"] {
        let mut client = rig.client();
        client.send(beginning);
        assert_eq!(client.answer().problem_code(), "malformed_request", "{beginning:?}");
        client.assert_closed();
    }
}

#[test]
fn row_16_large_answers_on_a_kept_connection_do_not_wait_for_acknowledgements() {
    let rig = Rig::start(|_| {});
    let mut client = rig.client();
    for _ in 0..50 {
        client.send(b"GET /big?20000 HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(client.answer().body.len(), 20_000);
    }
    // Time is not asserted; the option that decides it is.
    client.send(b"GET /upgrade HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(rig.next_upgrade().socket.sends_at_once().unwrap());
}

#[test]
fn rows_17_and_18_a_stream_is_delivered_byte_by_byte_and_its_writer_never_blocks() {
    let rig = Rig::start(|_| {});
    let mut client = rig.client();
    client.send(b"GET /upgrade HTTP/1.1\r\nHost: h\r\n\r\n");
    let upgraded = rig.next_upgrade();
    (&upgraded.socket).write_all(b"data: 1\n\n").unwrap();
    let mut event = [0; 9];
    client.stream.read_exact(&mut event).unwrap();
    assert_eq!(&event, b"data: 1\n\n");
    // The client stops reading: the writer is told so instead of being held.
    let blocked = loop {
        if let Err(error) = (&upgraded.socket).write(&[b'x'; 65_536]) {
            break error;
        }
    };
    assert_eq!(blocked.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn row_19_an_answer_that_is_never_read_holds_no_worker_and_is_cut() {
    let rig = Rig::start(|config| {
        config.workers = 1;
        config.deadlines.write_progress = Duration::from_millis(300);
    });
    let mut client = rig.client();
    client.send(b"GET /big?50000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    rig.wait_stats("the unsent rest", |stats| stats.unsent_bytes > 0);
    rig.assert_worker_serves();
    rig.wait_stats("the cut", |stats| stats.refused(Refused::WriteDeadline) == 1 && stats.unsent_bytes == 0);
    rig.wait_stats("its end", |stats| stats.connections_open == 0);
}

#[test]
fn row_19_a_large_answer_reaches_a_slow_reader_completely() {
    let rig = Rig::start(|_| {});
    let mut client = rig.client();
    client.send(b"GET /big?50000000 HTTP/1.1\r\nHost: h\r\n\r\nGET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
    rig.wait_stats("the unsent rest", |stats| stats.unsent_bytes > 0);
    let answer = client.answer();
    assert!(answer.body.len() == 50_000_000 && answer.body.iter().all(|b| *b == b'x'));
    assert_eq!(client.answer().body, b"pong");
    assert_eq!(rig.edge.stats().unsent_bytes, 0);
}

#[test]
fn row_20_a_panic_costs_its_request_and_nothing_else() {
    let rig = Rig::start(|config| config.workers = 2);
    for round in 0..5 {
        for path in ["/panic", "/panic-inline", "/panic-admit", "/forget"] {
            let mut client = rig.client();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\nX-Request-Id: p{round}\r\n\r\n").as_bytes());
            client.offer(SMUGGLED.as_bytes());
            let answer = client.answer();
            assert_eq!((answer.problem_code().as_str(), answer.closes()), ("internal_error", true), "{path}");
            assert_eq!(answer.header("x-request-id"), Some(format!("p{round}").as_str()));
            client.assert_closed();
        }
    }
    let mut client = rig.client();
    client.send(b"GET /panic-late HTTP/1.1\r\nHost: h\r\n\r\nGET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((client.answer().body, client.answer().body), (b"answered".to_vec(), b"pong".to_vec()));
    // A panic is counted a moment after its answer has left.
    let stats = rig.wait_stats("the last panic", |stats| stats.handler_panics == 16 && stats.requests_in_flight == 0);
    assert_eq!((stats.edge_panics, stats.reactor_alive), (0, true));
    assert!(!rig.seen().iter().any(|line| line.contains("smuggled")));
    rig.assert_worker_serves();
    drop(client);
    rig.edge.stop().expect("no thread has died");
}

#[test]
fn row_21_a_drain_finishes_what_is_in_flight_and_closes_the_rest() {
    let rig = Rig::start(|_| {});
    let (mut idle, mut partial, mut busy) = (rig.client(), rig.client(), rig.client());
    idle.send(b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(!idle.answer().closes());
    partial.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab");
    busy.send(b"GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
    let responder = rig.next_later();
    rig.wait_stats("the partial body", |stats| stats.bodies_bytes == 2);
    let address = rig.address();

    std::thread::scope(|scope| {
        let drain = scope.spawn(|| rig.edge.drain(edge_support::PATIENCE));
        idle.assert_closed();
        let patient_until = std::time::Instant::now() + edge_support::PATIENCE;
        while std::net::TcpStream::connect(address).is_ok() {
            assert!(std::time::Instant::now() < patient_until, "the listener is still open");
            std::thread::yield_now();
        }
        assert!(!drain.is_finished(), "two requests are unfinished");
        partial.send(b"cd");
        let answer = partial.answer();
        assert_eq!((answer.body.as_slice(), answer.closes()), (b"abcd".as_slice(), true));
        partial.assert_closed();
        responder.send(Response::text(200, "done"));
        let answer = busy.answer();
        assert_eq!((answer.body.as_slice(), answer.closes()), (b"done".as_slice(), true));
        busy.assert_closed();
        drop((idle, partial, busy));
        assert!(drain.join().unwrap(), "nothing is left");
    });
    assert_eq!(rig.edge.stats().connections_open, 0);
    rig.edge.stop().expect("no thread has died");
}

#[test]
fn row_21_a_client_that_connected_before_a_drain_may_still_ask() {
    let rig = Rig::start(|config| config.deadlines.drain_fresh = edge_support::PATIENCE);
    let (mut asks, mut done) = (rig.client(), rig.client());
    done.send(b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(done.answer().body, b"pong");
    rig.wait_stats("both accepted", |stats| stats.connections_open == 2);
    assert!(!rig.edge.drain(Duration::ZERO), "one has not asked yet");
    done.assert_closed();
    asks.send(b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
    let answer = asks.answer();
    assert_eq!((answer.body.as_slice(), answer.closes()), (b"pong".as_slice(), true));
    drop((asks, done));
    assert!(rig.edge.drain(edge_support::PATIENCE), "nothing is left");
}

#[test]
fn row_21_a_client_that_never_asks_holds_up_a_drain_for_a_moment_only() {
    let rig = Rig::start(|config| config.deadlines.drain_fresh = Duration::from_millis(20));
    let mut silent = rig.client();
    rig.wait_stats("accepted", |stats| stats.connections_open == 1);
    assert!(rig.edge.drain(edge_support::PATIENCE), "it was not let go");
    silent.assert_closed();
}

#[test]
fn row_21_requests_that_had_arrived_before_a_drain_are_served() {
    let rig = Rig::start(|_| {});
    let mut accepted = rig.client();
    accepted.send(b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(accepted.answer().body, b"pong");
    // The last one holds the reactor inside a handler, so that what is sent now stays unread in the kernel.
    let begin = |_| {
        let mut client = rig.client();
        client.send(b"GET /later-inline HTTP/1.1\r\nHost: h\r\n\r\n");
        client
    };
    let held: Vec<_> = (0..edge_support::LATER_MAX + 1).map(begin).collect();
    rig.wait_stats("the reactor is held", |stats| stats.requests_in_flight == held.len());
    accepted.send(b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut connecting = rig.client();
    connecting.send(b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(!rig.edge.drain(Duration::ZERO), "the drain has begun and cannot have ended");
    for _ in 0..held.len() {
        rig.next_later().send(Response::text(200, "late"));
    }
    for client in [&mut accepted, &mut connecting] {
        let answer = client.answer();
        assert_eq!((answer.body.as_slice(), answer.closes()), (b"pong".as_slice(), true));
        client.assert_closed();
    }
    drop((accepted, connecting, held));
    assert!(rig.edge.drain(edge_support::PATIENCE), "nothing is left");
}

#[test]
fn row_21_a_drain_gives_up_at_its_limit_and_late_answers_harm_nobody() {
    let rig = Rig::start(|_| {});
    let mut busy = rig.client();
    busy.send(b"GET /later HTTP/1.1\r\nHost: h\r\n\r\nGET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
    let responder = rig.next_later();
    assert!(!rig.edge.drain(Duration::from_millis(50)), "a request is unfinished");
    rig.edge.stop().expect("no thread has died");
    responder.send(Response::text(200, "late"));
    assert_eq!(busy.answer().body, b"late");
    busy.assert_closed();
}
