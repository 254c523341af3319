//! Every bound of the edge and the answer when it is met.

mod edge_support;

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use edge_support::{Client, PATIENCE, Rig, short_deadlines};
use kheish_daemon::http::{Bind, Refused, Response};

#[test]
fn a_full_worker_queue_answers_busy_and_the_connection_goes_on() {
    let rig = Rig::start(|config| {
        config.workers = 1;
        config.caps.worker_queue = 2;
    });
    // The only worker is held inside a handler, which wants to leave one answer too many to this test.
    let mut held = Vec::new();
    for number in 1..=edge_support::LATER_MAX + 1 {
        let mut client = rig.client();
        client.send(b"GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
        rig.wait_stats("the worker took it", |stats| {
            stats.requests_in_flight == number && stats.worker_queue_depth == 0
        });
        held.push(client);
    }
    let mut queued: Vec<_> = (0..2).map(|_| rig.client()).collect();
    for client in &mut queued {
        client.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi");
    }
    rig.wait_stats("two wait", |stats| stats.worker_queue_depth == 2);
    let mut refused = rig.client();
    for _ in 0..2 {
        refused.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi");
        let answer = refused.answer();
        assert_eq!((answer.problem_code().as_str(), answer.closes()), ("server_busy", false));
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    refused.send(b"POST /echo-inline HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(refused.answer().body, b"hi", "what needs no worker is served");
    assert_eq!(rig.edge.stats().refused(Refused::Busy), 2);

    for _ in 0..held.len() {
        rig.next_later().send(Response::text(200, "late"));
    }
    for client in &mut queued {
        assert_eq!(client.answer().body, b"hi");
    }
}

#[test]
fn bodies_beyond_the_common_budget_are_refused_and_the_budget_comes_back() {
    let rig = Rig::start(|config| config.caps.bodies_bytes = 100_000);
    let mut first = rig.client();
    first.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 80000\r\n\r\n");
    first.send(&[b'a'; 79_999]);
    rig.wait_stats("the first body", |stats| stats.bodies_bytes == 79_999);
    let mut second = rig.client();
    second.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 80000\r\n\r\n");
    second.offer(&[b'b'; 80_000]);
    let answer = second.answer();
    assert_eq!((answer.problem_code().as_str(), answer.closes()), ("server_busy", true));
    first.send(b"a");
    assert_eq!(first.answer().body.len(), 80_000);
    rig.wait_stats("nothing held", |stats| stats.bodies_bytes == 0);
    let mut third = rig.client();
    third.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 80000\r\n\r\n");
    third.send(&[b'c'; 80_000]);
    assert_eq!(third.answer().body.len(), 80_000);
}

#[test]
fn a_body_that_was_announced_reserves_nothing() {
    let rig = Rig::start(|config| config.caps.bodies_bytes = 1_000);
    let mut silent: Vec<_> = (0..50).map(|_| rig.client()).collect();
    for client in &mut silent {
        client.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4000000\r\n\r\n");
    }
    rig.wait_stats("all are in", |stats| stats.connections_open == 50);
    rig.assert_worker_serves();
}

#[test]
fn unsent_bytes_beyond_the_common_budget_cut_whoever_exceeds_it() {
    let rig = Rig::start(|config| config.caps.unsent_bytes = 30_000_000);
    let mut first = rig.client();
    first.send(b"GET /big?29000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    rig.wait_stats("the first rest", |stats| stats.unsent_bytes > 20_000_000);
    let mut second = rig.client();
    second.send(b"GET /big?29000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    rig.wait_stats("the cut", |stats| stats.connections_open == 1 && stats.refused(Refused::WriteDeadline) == 1);
    assert_eq!(first.answer().body.len(), 29_000_000, "the first one loses nothing");
}

#[test]
fn idle_connections_are_closed_and_busy_ones_are_not() {
    let rig = Rig::start(|config| config.deadlines = short_deadlines());
    let (mut silent, mut kept, mut busy) = (rig.client(), rig.client(), rig.client());
    kept.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(kept.answer().body, b"hi");
    busy.send(b"GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
    let responder = rig.next_later();
    silent.assert_closed();
    kept.assert_closed();
    // The handler took longer than every deadline: that is its right.
    rig.wait_stats("the busy one alone", |stats| stats.connections_open == 1);
    responder.send(Response::text(200, "late"));
    assert_eq!(busy.answer().body, b"late");
    busy.assert_closed();
    rig.wait_stats("all three idle", |stats| stats.refused(Refused::IdleDeadline) == 3 && stats.connections_open == 0);
}

#[test]
fn a_body_that_stops_is_cut_and_one_that_makes_progress_is_not() {
    let rig = Rig::start(|config| {
        config.deadlines = short_deadlines();
        config.deadlines.body = PATIENCE;
    });
    let mut stopped = rig.client();
    stopped.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 400000\r\n\r\n");
    stopped.send(&[b'x'; 1_000]);
    let mut steady = rig.client();
    steady.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 400000\r\n\r\n");
    let (_never, pace) = crossbeam_channel::bounded::<()>(0);
    for _ in 0..16 {
        steady.send(&[b'y'; 25_000]);
        // A pace, not a wait for anything: 16 pieces take several progress windows.
        let _elapsed = pace.recv_timeout(Duration::from_millis(250));
    }
    assert_eq!(steady.answer().body.len(), 400_000);
    assert_eq!(stopped.answer().problem_code(), "request_timeout");
    stopped.assert_closed();
    assert_eq!(rig.edge.stats().refused(Refused::BodyDeadline), 1);
}

#[test]
fn a_whole_body_has_a_deadline_even_when_it_makes_progress() {
    let rig = Rig::start(|config| {
        config.deadlines = short_deadlines();
        // Nobody is cut for standing still.
        config.deadlines.body = config.deadlines.idle;
        config.deadlines.body_progress = PATIENCE;
    });
    let mut client = rig.client();
    client.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4000000\r\n\r\n");
    let mut writer = client.stream.try_clone().unwrap();
    let (stop, pace) = crossbeam_channel::bounded::<()>(0);
    let sender = std::thread::spawn(move || {
        while pace.recv_timeout(Duration::from_millis(10)).is_err() && writer.write_all(&[b'x'; 8_000]).is_ok() {}
    });
    assert_eq!(client.answer().problem_code(), "request_timeout");
    drop(stop);
    sender.join().unwrap();
}

#[test]
fn a_client_that_goes_on_sending_after_a_closing_answer_is_cut() {
    let rig = Rig::start(|config| config.deadlines.linger = Duration::from_millis(300));
    let mut client = rig.client();
    client.send(b"POST /small HTTP/1.1\r\nHost: h\r\nContent-Length: 9999999999\r\n\r\n");
    assert_eq!(client.answer().problem_code(), "payload_too_large");
    let chunk = [b'x'; 65_536];
    while client.stream.write_all(&chunk).is_ok() {}
    rig.wait_stats("the cut", |stats| stats.connections_open == 0);
    // One that stays silent is cut by time.
    let mut silent = rig.client();
    silent.send(b"GET /close HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(silent.answer().status, 200);
    rig.wait_stats("the silent one's end", |stats| stats.connections_accepted == 2 && stats.connections_open == 0);
}

/// Closing a socket with unread input resets the connection, and the reset may overtake the answer.
#[test]
fn an_early_refusal_reaches_a_client_that_is_still_sending() {
    let rig = Rig::start(|_| {});
    for _ in 0..20 {
        for (path, code) in [("/small", "payload_too_large"), ("/refuse", "missing_token")] {
            let mut client = rig.client();
            client.send(format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 900000\r\n\r\n").as_bytes());
            for _ in 0..9 {
                client.send(&[b'x'; 100_000]);
            }
            assert_eq!(client.answer().problem_code(), code);
            client.assert_closed();
        }
    }
}

/// An address of this host that is not loopback, if it has one. Nothing is sent.
fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

#[test]
fn one_client_address_cannot_take_all_connections() {
    // The counting itself is proven in counters.rs; a host without any network cannot show it on sockets.
    let Some(outer) = outer_address() else { return };
    for trusted in [false, true] {
        let rig = Rig::start(|config| {
            config.bind = Bind::parse("0.0.0.0:0").unwrap();
            config.caps.connections_per_peer = 3;
            config.trusted_proxies = if trusted { vec![outer] } else { Vec::new() };
        });
        let port = rig.address().port();
        let connect = |ip: IpAddr| {
            let stream = TcpStream::connect(SocketAddr::new(ip, port)).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Client::new(stream)
        };
        let ping = |client: &mut Client<TcpStream>| {
            client.send(b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
            client.answer()
        };
        let mut clients: Vec<_> = (0..3).map(|_| connect(outer)).collect();
        for client in &mut clients {
            assert_eq!(ping(client).status, 200);
        }
        let mut local: Vec<_> = (0..5).map(|_| connect("127.0.0.1".parse().unwrap())).collect();
        for client in &mut local {
            assert_eq!(ping(client).status, 200, "loopback clients are not counted");
        }
        let mut fourth = connect(outer);
        if trusted {
            assert_eq!(ping(&mut fourth).status, 200, "a trusted proxy is not counted");
            continue;
        }
        let answer = fourth.answer();
        assert_eq!((answer.problem_code().as_str(), answer.closes()), ("peer_connection_limit", true));
        assert_eq!(rig.edge.stats().refused(Refused::ConnectionsOfPeer), 1);
        drop(clients.pop());
        rig.wait_stats("room", |stats| stats.connections_open == 7);
        assert_eq!(ping(&mut connect(outer)).status, 200, "a place that was left can be taken");
    }
}
