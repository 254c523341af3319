//! What a well-behaved client sees: keep-alive, order, HEAD, ids, interim answers, deferred answers, streams.

mod edge_support;

use std::io::Write;

use edge_support::{Client, Rig};
use kheish_daemon::http::{Refused, Response};

#[test]
fn requests_on_a_kept_connection_are_answered_one_after_the_other() {
    let rig = Rig::start(|_| {});
    let mut client = rig.client();
    for _ in 0..3 {
        client.send(b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
        let answer = client.answer();
        assert_eq!((answer.status, answer.body.as_slice(), answer.closes()), (200, b"pong".as_slice(), false));
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        assert!(answer.header("date").unwrap().ends_with(" GMT"));
        client.send(
            b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
        );
        assert_eq!(client.answer().body, b"abc");
    }
    assert_eq!(rig.edge.stats().connections_accepted, 1);
}

#[test]
fn a_client_or_a_handler_can_end_the_connection() {
    let rig = Rig::start(|_| {});
    for (request, closes) in [
        ("GET /ping HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", true),
        ("GET /ping HTTP/1.1\r\nHost: h\r\nConnection: x, CLOSE\r\n\r\n", true),
        ("GET /close HTTP/1.1\r\nHost: h\r\n\r\n", true),
        ("GET /ping HTTP/1.0\r\n\r\n", true),
        ("GET /ping HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true),
        ("GET /ping HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\n\r\n", false),
    ] {
        let mut client = rig.client();
        client.send(request.as_bytes());
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (200, closes), "{request}");
        if closes {
            client.assert_closed();
        }
    }
    rig.wait_stats("the end of all", |stats| stats.connections_open == 0);
}

#[test]
fn a_client_that_closes_its_writing_side_still_gets_its_answer() {
    let rig = Rig::start(|_| {});
    let mut client = rig.client();
    client.send(b"GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
    client.finish_sending();
    rig.next_later().send(Response::text(200, "late"));
    assert_eq!(client.answer().body, b"late");
    client.assert_closed();
}

#[test]
fn pipelined_requests_are_answered_in_order_even_when_the_first_is_slow() {
    let rig = Rig::start(|_| {});
    let mut client = rig.client();
    client.send(b"GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
    for number in 0..100 {
        let length = number.to_string().len();
        let path = if number % 2 == 0 { "/echo" } else { "/echo-inline" };
        let request = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{number}");
        client.send(request.as_bytes());
    }
    let slow = rig.next_later();
    assert_eq!(rig.seen(), ["GET /later "], "nothing behind the first request was started");
    slow.send(Response::text(200, "first"));
    assert_eq!(client.answer().body, b"first");
    for number in 0..100 {
        assert_eq!(client.answer().body, number.to_string().as_bytes());
    }
}

#[test]
fn answers_may_come_from_another_thread_much_later() {
    let rig = Rig::start(|_| {});
    let mut clients: Vec<_> = (0..20).map(|_| rig.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let path = if number % 2 == 0 { "/later" } else { "/later-inline" };
        client.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\nX-Request-Id: r{number}\r\n\r\n").as_bytes());
    }
    let mut waiting: Vec<_> = (0..20).map(|_| rig.next_later()).collect();
    assert_eq!(rig.edge.stats().requests_in_flight, 20);
    // The other end of the queue first: order between connections is the answerer's.
    waiting.reverse();
    let answerer = std::thread::spawn(move || {
        for responder in waiting {
            let text = responder.request_id().to_string();
            responder.send(Response::text(200, text));
        }
    });
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(String::from_utf8(client.answer().body).unwrap(), format!("r{number}"));
        client.send(b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(client.answer().body, b"pong");
    }
    answerer.join().unwrap();
    assert_eq!(rig.edge.stats().requests_in_flight, 0);
}

#[test]
fn head_gets_the_headers_of_get_without_a_body() {
    let rig = Rig::start(|_| {});
    let mut client = rig.client();
    for path in ["/ping", "/big?200000"] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\nX-Request-Id: same\r\n\r\n").as_bytes());
        let get = client.answer();
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: h\r\nX-Request-Id: same\r\n\r\n").as_bytes());
        let head = client.head_answer();
        let without_date = |head: &str| -> Vec<String> {
            head.split("\r\n").filter(|line| !line.starts_with("date: ")).map(str::to_string).collect()
        };
        assert_eq!(without_date(&head.head), without_date(&get.head));
    }
    client.send(b"HEAD /upgrade HTTP/1.1\r\nHost: h\r\n\r\nGET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.head_answer().header("content-type"), Some("text/event-stream"));
    assert_eq!(client.answer().body, b"pong", "the connection goes on after the head of a stream");
}

#[test]
fn options_and_unknown_methods_reach_the_service() {
    let rig = Rig::start(|_| {});
    let mut client = rig.client();
    client.send(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\nBREW /pot HTTP/1.1\r\nHost: h\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("content-length")), (204, None));
    assert_eq!(client.answer().status, 200);
    assert_eq!(rig.seen(), ["OPTIONS * ", "BREW /pot "]);
}

#[test]
fn every_answer_names_its_request() {
    let rig = Rig::start(|_| {});
    let mut client = rig.client();
    for given in ["abc", "A.b_c-9", &"x".repeat(64)] {
        client.send(format!("GET /ping HTTP/1.1\r\nHost: h\r\nX-Request-Id: {given}\r\n\r\n").as_bytes());
        assert_eq!(client.answer().header("x-request-id"), Some(given));
    }
    let mut generated = std::collections::HashSet::new();
    for refused in ["", "a b", "a/b", &"x".repeat(65)] {
        client.send(format!("GET /refuse HTTP/1.1\r\nHost: h\r\nX-Request-Id: {refused}\r\n\r\n").as_bytes());
        let answer = client.answer();
        assert_eq!(answer.problem_code(), "missing_token");
        assert!(generated.insert(answer.header("x-request-id").unwrap().to_string()), "an id repeats");
    }
    client.send(b"GET /ping HTTP/1.1\r\nX-Request-Id: mine\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.problem_code().as_str(), answer.header("x-request-id")), ("malformed_request", Some("mine")));
}

#[test]
fn a_body_is_asked_for_only_after_admission() {
    let rig = Rig::start(|_| {});
    let mut client = rig.client();
    client.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n");
    let interim = client.answer();
    assert_eq!((interim.status, interim.head.as_str()), (100, "HTTP/1.1 100 Continue"));
    client.send(b"hello");
    assert_eq!(client.answer().body, b"hello");
    client.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.answer().status, 200, "no body, nothing to ask for");
    client.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi");
    let mut answer = client.answer();
    if answer.status == 100 {
        // Allowed, though the body was on its way already.
        answer = client.answer();
    }
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"hi".as_slice()));

    for (path, status) in [("/refuse", 401), ("/small", 413)] {
        let mut client = rig.client();
        client.send(
            format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 50\r\nExpect: 100-continue\r\n\r\n").as_bytes(),
        );
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (status, true), "the final answer comes at once");
        client.assert_closed();
    }
    let mut client = rig.client();
    client.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: tea\r\n\r\n");
    assert_eq!(client.answer().problem_code(), "expectation_failed");
    client.assert_closed();
}

#[test]
fn a_refused_request_keeps_the_connection_only_if_its_body_is_known_to_be_over() {
    let rig = Rig::start(|_| {});
    let mut client = rig.client();
    client.send(
        b"POST /refuse HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nGET GET /ping HTTP/1.1\r\nHost: h\r\n\r\n",
    );
    assert_eq!((client.answer().status, client.answer().body), (401, b"pong".to_vec()));
    client
        .send(b"POST /refuse HTTP/1.1\r\nHost: h\r\nContent-Length: 400\r\n\r\nGET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (401, true));
    client.assert_closed();
    assert_eq!(rig.seen(), ["GET /ping "]);
}

#[test]
fn an_upgrade_hands_the_socket_over_and_still_counts_as_a_connection() {
    let rig = Rig::start(|config| config.caps.connections = 2);
    let mut client = rig.client();
    client.send(b"GET /upgrade HTTP/1.1\r\nHost: h\r\nX-Request-Id: s1\r\n\r\n");
    let mut upgraded = rig.next_upgrade();
    assert_eq!(upgraded.request_id.as_str(), "s1");
    assert!(upgraded.socket.sends_at_once().unwrap(), "events must not wait for Nagle");
    let pending = std::mem::take(&mut upgraded.pending);
    (&upgraded.socket).write_all(&pending).unwrap();
    (&upgraded.socket).write_all(b"data: 1\n\n").unwrap();
    let head = client.answer();
    assert_eq!((head.status, head.closes(), head.header("content-length")), (200, true, None));
    assert_eq!(head.header("x-request-id"), Some("s1"));

    let stats = rig.edge.stats();
    assert_eq!((stats.connections_open, stats.connections_upgraded, stats.requests_in_flight), (1, 1, 0));
    let mut second = rig.client();
    second.send(b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(second.answer().status, 200);
    let mut third = rig.client();
    assert_eq!(third.answer().problem_code(), "connection_limit");
    assert_eq!(rig.edge.stats().refused(Refused::Connections), 1);

    drop(upgraded);
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut client.stream, &mut rest).unwrap();
    rig.wait_stats("room for another", |stats| stats.connections_open == 1 && stats.connections_upgraded == 0);
    rig.assert_serves();
}

#[test]
fn a_unix_socket_serves_and_is_private_and_stale_files_are_replaced() {
    use kheish_daemon::http::{Bind, BindError, Edge, EdgeConfig, EdgeError};
    use std::os::unix::fs::PermissionsExt;
    let directory = std::env::temp_dir().join(format!("edge-unix-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("k.sock");
    let bind = || Bind::Unix(path.clone());

    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "std leaves the file: this is the stale socket of a killed process");
    let rig = Rig::start(|config| config.bind = bind());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(rig.edge.local_addr().to_string(), format!("unix:{}", path.display()));
    let mut client = Client::new(std::os::unix::net::UnixStream::connect(&path).unwrap());
    client.stream.set_read_timeout(Some(edge_support::PATIENCE)).unwrap();
    client.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(client.answer().body, b"hi");

    let second = Edge::start(EdgeConfig::new(bind()), rig.probe.clone());
    assert!(matches!(second, Err(EdgeError::Bind(BindError::InUse(_)))), "somebody listens there");
    client.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nho");
    assert_eq!(client.answer().body, b"ho", "the refused start harmed nobody");

    rig.edge.stop().unwrap();
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "nothing is left behind");
    std::fs::write(&path, "a file").unwrap();
    let third = Edge::start(EdgeConfig::new(bind()), rig.probe.clone());
    assert!(matches!(third, Err(EdgeError::Bind(BindError::NotASocket(_)))));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a file");
    std::fs::remove_dir_all(&directory).unwrap();
}

/// The hand-over between the reactor and answering threads has one dangerous moment: bytes that arrive while
/// an answer is being sent. A lost wake-up would leave a connection unanswered for ever.
#[test]
fn no_request_is_forgotten_when_answers_and_arrivals_race() {
    let rig = Rig::start(|_| {});
    const CLIENTS: u64 = 12;
    const REQUESTS: usize = 1_500;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let later = rig.later.clone();
            scope.spawn(move || {
                for responder in later.iter() {
                    let id = responder.request_id().to_string();
                    let stop = id.starts_with("stop");
                    responder.send(Response::text(200, id));
                    if stop {
                        return;
                    }
                }
            });
        }
        let clients: Vec<_> = (0..CLIENTS)
            .map(|seed| {
                let rig = &rig;
                scope.spawn(move || {
                    let mut random = edge_support::Random::new(seed);
                    let mut client = rig.client();
                    let (mut sent, mut answered) = (0, 0);
                    while answered < REQUESTS {
                        // Up to five requests ahead, sometimes torn in two.
                        if sent < REQUESTS && sent - answered < 5 && random.below(3) > 0 {
                            let path = ["/ping", "/later", "/later-inline", "/echo", "/echo-inline"][random.below(5)];
                            let body = "b".repeat(random.below(300));
                            let request = format!(
                                "POST {path} HTTP/1.1\r\nHost: h\r\nX-Request-Id: {sent}\r\nContent-Length: {}\r\n\r\n{body}",
                                body.len()
                            );
                            let (first, second) = request.split_at(random.below(request.len()));
                            client.send(first.as_bytes());
                            client.send(second.as_bytes());
                            sent += 1;
                        } else if sent > answered {
                            let answer = client.answer();
                            let id = answered.to_string();
                            assert_eq!(answer.header("x-request-id"), Some(id.as_str()), "seed {seed}");
                            answered += 1;
                        }
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        for number in 0..3 {
            let mut client = rig.client();
            client.send(format!("GET /later HTTP/1.1\r\nHost: h\r\nX-Request-Id: stop-{number}\r\n\r\n").as_bytes());
            assert_eq!(client.answer().status, 200);
        }
    });
    let stats = rig.edge.stats();
    assert_eq!((stats.requests, stats.requests_in_flight), (CLIENTS * REQUESTS as u64 + 3, 0));
}
