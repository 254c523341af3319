//! The framing over real sockets: how a stream is cut into packets never changes what is answered, and
//! no bytes, however strange, harm the server.

mod edge_support;

use std::io::Write;

use edge_support::{Answer, Rig};
use kheish_daemon::http::Refused;

/// Four requests in a row with all kinds of bodies, then one that is refused.
const STREAM: &[u8] = b"GET /ping HTTP/1.1\r\nHost: h\r\nX-Request-Id: 1\r\n\r\n\
    POST /echo HTTP/1.1\r\nHost: h\r\nX-Request-Id: 2\r\nContent-Length: 9\r\n\r\nGET / \r\n\r\
    \r\nPOST /echo-inline HTTP/1.1\r\nHost: h\r\nX-Request-Id: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
    4;x=y\r\nab\r\n\r\n3\r\ncde\r\n0\r\nT: v\r\n\r\n\
    POST /refuse HTTP/1.1\r\nHost: h\r\nX-Request-Id: 4\r\nContent-Length: 0\r\n\r\n\
    GET /ping HTTP/1.1\r\nHost: h\r\nX-Request-Id: 5\r\nHost: h\r\n\r\n";

fn without_date(answers: Vec<Answer>) -> Vec<(String, Vec<u8>)> {
    let head = |answer: &Answer| {
        answer.head.split("\r\n").filter(|line| !line.starts_with("date: ")).collect::<Vec<_>>().join("\n")
    };
    answers.into_iter().map(|answer| (head(&answer), answer.body)).collect()
}

#[test]
fn a_stream_cut_at_any_byte_gets_the_same_answers() {
    let rig = Rig::start(|_| {});
    let read = |cut: usize| {
        let mut client = rig.client();
        client.send(&STREAM[..cut]);
        if cut > 0 && cut < STREAM.len() {
            // The server has taken the first part once it has answered another client that came after it.
            rig.assert_serves();
        }
        client.offer(&STREAM[cut..]);
        without_date(client.answers_until_close())
    };
    let whole = read(STREAM.len());
    let statuses: Vec<_> = whole.iter().map(|(head, _)| head[9..12].to_string()).collect();
    assert_eq!(statuses, ["200", "200", "200", "401", "400"]);
    assert_eq!((whole[1].1.as_slice(), whole[2].1.as_slice()), (b"GET / \r\n\r".as_slice(), b"ab\r\ncde".as_slice()));
    for cut in 1..STREAM.len() {
        assert_eq!(read(cut), whole, "cut at {cut}");
    }
}

#[test]
fn a_stream_that_arrives_byte_by_byte_gets_the_same_answers() {
    let rig = Rig::start(|_| {});
    let mut client = rig.client();
    for byte in STREAM {
        client.offer(std::slice::from_ref(byte));
    }
    let answers = client.answers_until_close();
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200, 200, 401, 400]);
}

#[test]
fn a_truncated_request_is_never_executed() {
    let rig = Rig::start(|_| {});
    for request in [
        "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhell",
        "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r",
        "GET /ping HTTP/1.1\r\nHost: h\r\n\r",
    ] {
        let mut client = rig.client();
        client.send(request.as_bytes());
        client.finish_sending();
        client.assert_closed();
    }
    assert_eq!(rig.seen(), Vec::<String>::new());
}

#[test]
fn bodies_up_to_the_limit_are_taken_and_larger_ones_refused() {
    let rig = Rig::start(|_| {});
    let exact = vec![b'b'; edge_support::ECHO_BYTES_MAX];
    let mut client = rig.client();
    client.send(format!("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", exact.len()).as_bytes());
    client.send(&exact);
    assert!(client.answer().body == exact);
    client.send(b"POST /echo-inline HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in exact.chunks(100_000) {
        client.send(format!("{:x}\r\n", piece.len()).as_bytes());
        client.send(piece);
        client.send(b"\r\n");
    }
    client.send(b"0\r\n\r\n");
    assert!(client.answer().body == exact);

    client.send(
        b"POST /small HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n123456\r\n5\r\n78901\r\n0\r\n\r\n",
    );
    let answer = client.answer();
    assert_eq!((answer.problem_code().as_str(), answer.closes()), ("payload_too_large", true));
    client.assert_closed();
    rig.wait_stats("no bytes held", |stats| stats.bodies_bytes == 0 && stats.requests_in_flight == 0);
    assert_eq!(rig.edge.stats().refused(Refused::BodyTooLarge), 1);
}

#[test]
fn random_bytes_over_real_sockets_leave_the_server_unharmed() {
    let rig = Rig::start(|_| {});
    for seed in 0..300 {
        let mut random = edge_support::Random::new(seed);
        let mut bytes = STREAM.to_vec();
        for _ in 0..random.below(6) {
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => bytes[at] = random.next() as u8,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, b"\r\n\0 :;0"[random.below(7)]),
            }
        }
        let mut client = rig.client();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(1 + random.below(rest.len()));
            if client.stream.write_all(piece).is_err() {
                break;
            }
            rest = later;
        }
        let _server_may_have_closed = client.stream.shutdown(std::net::Shutdown::Write);
        // Every answer is complete and well-formed, or the client's parser fails here.
        for answer in client.answers_until_close() {
            assert!(answer.status < 506, "seed {seed}: {answer:?}");
        }
    }
    let stats = rig.wait_stats("the end of all", |stats| stats.connections_open == 0);
    assert_eq!((stats.edge_panics, stats.handler_panics, stats.requests_in_flight, stats.bodies_bytes), (0, 0, 0, 0));
    rig.assert_worker_serves();
}
