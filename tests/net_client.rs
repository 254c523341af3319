//! The outbound client against servers that misbehave: limits, cancellation, redirects, proxies, credentials.

mod net_raw_server;
#[path = "support/port.rs"]
mod port;

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::bounded;
use kheish_daemon::net::{
    ApiClient, ApiStream, Auth, BaseUrl, Cancel, CredentialRefused, Method, Net, NetConfig, NetError, Phase, Purpose,
    Request, Response, SseFrame, Target, Timeouts,
};
use kheish_daemon::secret::Secret;
use net_raw_server::{RawServer, read_request, wait_for_close};
use port::Port;

/// Five times the longest limit in use here; only a hang takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

const RELAXED: Timeouts =
    Timeouts { connect_ms: 10_000, first_byte_ms: 10_000, idle_ms: 10_000, total_ms: Some(12_000) };

fn net() -> Net {
    Net::new(&NetConfig { ca_file: None, resolver_threads: 1, ..NetConfig::default() }).expect("client")
}

fn target(url: &str) -> Target {
    BaseUrl::parse(url).expect("URL").target("/x?key=hidden-query")
}

fn get(target: &Target, timeouts: Timeouts) -> Request<'_> {
    Request {
        method: Method::Get,
        target,
        purpose: Purpose::Provider,
        allow_private: false,
        headers: &[],
        auth: None,
        body: None,
        timeouts,
        body_bytes_max: 1_000,
    }
}

fn fetch(url: &str, timeouts: Timeouts) -> Result<(u16, Vec<u8>), NetError> {
    let target = target(url);
    let mut response = net().send(get(&target, timeouts), &Cancel::new())?;
    Ok((response.status, response.body.read_to_end()?))
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_redirect_is_an_answer_and_is_never_followed() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = elsewhere.local_addr().expect("bound");
    for status in [301, 302, 303, 307, 308] {
        let response =
            format!("HTTP/1.1 {status} Moved\r\nLocation: http://{address}/\r\nContent-Length: 5\r\n\r\nmoved");
        let server = RawServer::answering(response);
        assert_eq!(fetch(&server.url(), RELAXED), Ok((status, b"moved".to_vec())));
    }
    elsewhere.set_nonblocking(true).expect("socket option");
    assert_eq!(elsewhere.accept().map(drop).map_err(|error| error.kind()), Err(std::io::ErrorKind::WouldBlock));
}

#[test]
fn statuses_of_every_class_are_answers_with_their_bodies() {
    for status in [200, 404, 429, 500, 503] {
        let server = RawServer::answering(format!("HTTP/1.1 {status} X\r\nContent-Length: 4\r\n\r\nbody"));
        assert_eq!(fetch(&server.url(), RELAXED), Ok((status, b"body".to_vec())));
    }
}

#[test]
fn a_body_is_accepted_up_to_its_limit_and_refused_one_byte_later() {
    let server = RawServer::answering(ok(&"x".repeat(1_000)));
    assert_eq!(fetch(&server.url(), RELAXED).map(|(_, body)| body.len()), Ok(1_000));
    let chunked =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1_001));
    for response in [ok(&"x".repeat(1_001)), chunked, format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1_001))] {
        let server = RawServer::answering(response);
        let target = format!("{}/x", server.url());
        assert_eq!(fetch(&server.url(), RELAXED), Err(NetError::BodyTooLarge { target, limit_bytes: 1_000 }));
    }
}

#[test]
fn an_endless_response_head_is_refused() {
    let server = RawServer::answering(format!("HTTP/1.1 200 OK\r\nX-Long: {}\r\n\r\n", "x".repeat(1_000_000)));
    let outcome = fetch(&server.url(), RELAXED);
    assert!(matches!(outcome, Err(NetError::HeadTooLarge { limit_bytes: 32_768, .. })), "{outcome:?}");
}

#[test]
fn an_answer_that_is_cut_off_or_malformed_is_an_error() {
    let io = |reason: &str| (true, reason.to_string());
    let protocol = |reason: &str| (false, reason.to_string());
    let closed = "closed by the peer before the answer was complete";
    let cases = [
        ("", io(closed)),
        ("HTTP/1.1 200", io(closed)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", io(closed)),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n", io(closed)),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            protocol("chunk length cannot be read as a number"),
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            protocol("conflicting content-length headers"),
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n", protocol("content-length header not a number")),
        ("SSH-2.0-OpenSSH_9.2\r\n", protocol("http parse fail")),
    ];
    for (response, (is_io, reason)) in cases {
        let server = RawServer::answering(response);
        let target = format!("{}/x", server.url());
        let expected = if is_io { NetError::Io { target, reason } } else { NetError::Protocol { target, reason } };
        assert_eq!(fetch(&server.url(), RELAXED), Err(expected), "{response:?}");
    }
}

#[test]
fn each_limit_of_time_ends_its_own_phase() {
    // Never answers.
    let silent = RawServer::start(|mut stream| wait_for_close(&mut stream));
    let limits = Timeouts { first_byte_ms: 50, ..RELAXED };
    let timeout = |server: &RawServer, phase, limit_ms| {
        Err(NetError::Timeout { target: format!("{}/x", server.url()), phase, limit_ms })
    };
    assert_eq!(fetch(&silent.url(), limits), timeout(&silent, Phase::FirstByte, 50));

    // Answers and falls silent in mid-body.
    let stalling = RawServer::start(|mut stream| {
        read_request(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").expect("written");
        wait_for_close(&mut stream);
    });
    let limits = Timeouts { idle_ms: 50, ..RELAXED };
    assert_eq!(fetch(&stalling.url(), limits), timeout(&stalling, Phase::Idle, 50));

    // Sends a byte often enough to never be silent, and never ends.
    let (gone, watch) = bounded::<()>(16);
    let dribbling = RawServer::start(move |mut stream| {
        read_request(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n").expect("written");
        while stream.write_all(b"x").is_ok() {
            assert!(watch.recv_timeout(Duration::from_millis(20)).is_err());
        }
    });
    let limits = Timeouts { idle_ms: 10_000, total_ms: Some(300), ..RELAXED };
    assert_eq!(fetch(&dribbling.url(), limits), timeout(&dribbling, Phase::Total, 300));
    drop(gone);
}

#[test]
fn the_limit_of_silence_does_not_cut_the_wait_for_the_head() {
    // A model that thinks before it answers: the head comes later than the limit of silence allows later on.
    let (never, later) = bounded::<()>(16);
    let server = RawServer::start(move |mut stream| {
        read_request(&mut stream);
        assert!(later.recv_timeout(Duration::from_millis(100)).is_err());
        stream.write_all(ok("late").as_bytes()).expect("written");
    });
    assert_eq!(fetch(&server.url(), Timeouts { idle_ms: 10, ..RELAXED }), Ok((200, b"late".to_vec())));
    drop(never);
}

#[test]
fn a_cancelled_request_ends_at_once_wherever_it_waits_and_never_looks_complete() {
    let heads: [&[u8]; 4] = [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        // Ends when the connection does: here a shutdown by us looks like a proper end.
        b"HTTP/1.1 200 OK\r\n\r\nhalf",
    ];
    for head in heads {
        let (waiting, reached) = bounded(16);
        let server = RawServer::start({
            let waiting = waiting.clone();
            move |mut stream| {
                read_request(&mut stream);
                stream.write_all(head).expect("written");
                if head.is_empty() {
                    waiting.send(()).expect("test listens");
                }
                wait_for_close(&mut stream);
            }
        });
        let cancel = Cancel::new();
        let (done, outcome) = bounded(16);
        let client = std::thread::spawn({
            let (cancel, url) = (cancel.clone(), server.url());
            move || {
                let target = target(&url);
                let read = |mut response: Response| {
                    let mut begun = Vec::new();
                    while begun.len() < 4 {
                        let mut buffer = [0u8; 4];
                        let count = response.body.read(&mut buffer)?;
                        begun.extend_from_slice(&buffer[..count]);
                    }
                    waiting.send(()).expect("test listens");
                    response.body.read_to_end()
                };
                let limits = Timeouts { connect_ms: 600_000, first_byte_ms: 600_000, idle_ms: 600_000, total_ms: None };
                done.send(net().send(get(&target, limits), &cancel).and_then(read)).expect("test listens");
            }
        });
        reached.recv_timeout(PATIENCE).expect("the client waits");
        cancel.cancel();
        assert_eq!(outcome.recv_timeout(PATIENCE).expect("ended"), Err(NetError::Cancelled), "{head:?}");
        client.join().expect("client");
        assert!(cancel.wait(Duration::ZERO), "a cancelled handle stays cancelled");
        let target = target(&server.url());
        let again = net().send(get(&target, RELAXED), &cancel).map(drop);
        assert_eq!((again, server.connections()), (Err(NetError::Cancelled), 1), "nothing is sent any more");
    }
}

#[test]
fn a_port_without_a_server_and_a_name_without_an_address_are_told_apart() {
    let port = Port::reserve();
    let outcome = fetch(&format!("http://{}", port.address()), RELAXED);
    assert!(matches!(&outcome, Err(NetError::Connect { reason, .. }) if reason.contains("refused")), "{outcome:?}");
    // Without any name server the look-up may also run into its limit.
    let outcome = fetch("http://does-not-exist.invalid", Timeouts { connect_ms: 1_000, ..RELAXED });
    let named = matches!(&outcome, Err(NetError::Resolve { host, .. }) if host == "does-not-exist.invalid");
    let late = matches!(&outcome, Err(NetError::Timeout { phase: Phase::Resolve, .. }));
    assert!(named || late, "{outcome:?}");
}

#[test]
fn the_name_localhost_is_looked_up_and_reached() {
    let server = RawServer::answering(ok("hello"));
    let url = format!("http://localhost:{}", server.addr.port());
    assert_eq!(fetch(&url, RELAXED), Ok((200, b"hello".to_vec())));
}

/// Runs in a child process, see below.
#[test]
#[ignore = "started by proxies_of_the_environment_are_ignored with a prepared environment"]
fn child_fetches_the_url_of_its_environment() {
    let url = std::env::var("KHEISH_TEST_URL").expect("set by the parent");
    assert_eq!(fetch(&url, RELAXED), Ok((200, b"direct".to_vec())));
}

#[test]
fn proxies_of_the_environment_are_ignored() {
    let proxy = RawServer::answering(ok("through the proxy"));
    let server = RawServer::answering(ok("direct"));
    let mut child = Command::new(std::env::current_exe().expect("test binary"));
    child.args(["--exact", "child_fetches_the_url_of_its_environment", "--ignored"]);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        child.env(name, proxy.url());
    }
    child.env_remove("NO_PROXY").env_remove("no_proxy").env("KHEISH_TEST_URL", server.url());
    let output = child.output().expect("child runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!((proxy.connections(), server.connections()), (0, 1));
}

fn bearer(text: &str) -> Auth {
    Auth::bearer(Secret::new(text.as_bytes().to_vec()))
}

#[test]
fn the_credential_arrives_whole_with_body_and_headers_around_it() {
    for secret in ["k", "sk-short", &"long".repeat(4_096)] {
        let (seen, request) = bounded(16);
        let server = RawServer::start(move |mut stream| {
            seen.send(read_request(&mut stream)).expect("test listens");
            stream.write_all(ok("").as_bytes()).expect("written");
        });
        let target = target(&server.url());
        let mut request_out = get(&target, RELAXED);
        let body = "b".repeat(200_000);
        request_out.method = Method::Post;
        request_out.headers = &[("x-before", "1"), ("content-type", "text/plain")];
        request_out.auth = Some(bearer(secret));
        request_out.body = Some(body.as_bytes());
        assert_eq!(net().send(request_out, &Cancel::new()).expect("answer").status, 200);
        let request = String::from_utf8(request.recv_timeout(PATIENCE).expect("request")).expect("text");
        let (head, sent_body) = request.split_once("\r\n\r\n").expect("head");
        assert_eq!(sent_body, body);
        let lines: Vec<&str> = head.split("\r\n").collect();
        assert_eq!(lines[0], "POST /x?key=hidden-query HTTP/1.1");
        let authorization = format!("authorization: Bearer {secret}");
        assert_eq!(lines.iter().filter(|line| line.starts_with("authorization")).collect::<Vec<_>>(), [&authorization]);
        for line in ["x-before: 1", "content-type: text/plain", "content-length: 200000"] {
            assert!(lines.contains(&line), "{line} is missing in {head}");
        }
    }
}

#[test]
fn a_refused_credential_means_that_not_one_byte_is_sent() {
    let (seen, requests) = bounded(16);
    let server = RawServer::start(move |mut stream| seen.send(read_request(&mut stream)).expect("test listens"));
    let target = target(&server.url());
    let refusals = [
        Auth::bearer_from(|| Err(CredentialRefused { reason: "lease revoked; next: grant it again".to_string() })),
        bearer(""),
        bearer("has blank"),
        bearer("ends\n"),
        bearer("é"),
        bearer(&"x".repeat(16 * 1024 + 1)),
    ];
    for (number, auth) in refusals.into_iter().enumerate() {
        let outcome = net().send(Request { auth: Some(auth), ..get(&target, RELAXED) }, &Cancel::new());
        let error = outcome.map(drop).expect_err("refused");
        assert!(matches!(error, NetError::CredentialRefused { .. }), "{number}: {error:?}");
        assert!(error.to_string().contains("; next: "), "{error}");
        assert_eq!(requests.recv_timeout(PATIENCE).expect("connection"), b"", "refusal {number}");
    }
}

#[test]
fn the_credential_is_asked_for_once_and_only_when_the_connection_stands() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = |asked: &Arc<AtomicUsize>| {
        let asked = asked.clone();
        Auth::bearer_from(move || {
            asked.fetch_add(1, Ordering::SeqCst);
            Ok(Secret::new(b"counted-secret".to_vec()))
        })
    };
    let port = Port::reserve();
    let nobody = target(&format!("http://{}", port.address()));
    let outcome = net().send(Request { auth: Some(counting(&asked)), ..get(&nobody, RELAXED) }, &Cancel::new());
    assert!(matches!(outcome, Err(NetError::Connect { .. })), "{outcome:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    let server = RawServer::answering(ok(""));
    let somebody = target(&server.url());
    net().send(Request { auth: Some(counting(&asked)), ..get(&somebody, RELAXED) }, &Cancel::new()).expect("answer");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// Keeps every log record of this process, at the finest level.
struct Recorder(Mutex<String>);

static RECORDER: Recorder = Recorder(Mutex::new(String::new()));

impl log::Log for Recorder {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let mut text = self.0.lock().expect("recorder");
        text.push_str(&record.args().to_string());
        text.push('\n');
    }

    fn flush(&self) {}
}

/// Whether four consecutive bytes of `secret` stand in `text`, in any of the forms in which the HTTP client
/// dumps bytes (plain text, or rows of sixteen).
fn leaks(text: &str, secret: &str) -> bool {
    (0..secret.len() - 4).any(|start| text.contains(&secret[start..start + 4]))
}

#[test]
fn the_credential_is_in_no_log_line_and_no_error_even_when_everything_is_traced() {
    log::set_logger(&RECORDER).expect("the only logger");
    log::set_max_level(log::LevelFilter::Trace);
    // No digits of a hexadecimal dump, and no four letters that occur in header names.
    let secret = "QZXWVKQJZXQWVKZJQXWZ";
    let mut shown = String::new();
    let responses =
        [ok("fine"), "HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n".to_string(), String::new(), "junk\r\n".to_string()];
    for response in responses {
        let server = RawServer::answering(response);
        let target = target(&server.url());
        let auth = bearer(secret);
        shown.push_str(&format!("{auth:?}"));
        let request = Request { auth: Some(auth), ..get(&target, Timeouts { first_byte_ms: 2_000, ..RELAXED }) };
        shown.push_str(&format!("{request:?}"));
        match net().send(request, &Cancel::new()) {
            Ok(response) => shown.push_str(&format!("{response:?}")),
            Err(error) => shown.push_str(&format!("{error} {error:?}")),
        }
    }
    let log = RECORDER.0.lock().expect("recorder").clone();
    assert!(!leaks(&shown, secret), "{shown}");
    assert!(!leaks(&log, secret), "the credential is in the log");
    assert!(!shown.contains("hidden-query"), "{shown}");
    // The recorder sees what it should: as an ordinary header the same text is found.
    let server = RawServer::answering(ok("fine"));
    let target = target(&server.url());
    let request = Request { headers: &[("x-control", secret)], ..get(&target, RELAXED) };
    net().send(request, &Cancel::new()).expect("answer");
    assert!(leaks(&RECORDER.0.lock().expect("recorder"), secret), "the control was not traced");
    log::set_max_level(log::LevelFilter::Off);
}

#[test]
fn the_command_lines_client_speaks_over_a_unix_socket_and_over_tcp() {
    let directory = std::env::temp_dir().join(format!("kheish-net-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("scratch directory");
    let socket = directory.join("api.sock");
    let listener = UnixListener::bind(&socket).expect("socket");
    let answers = [
        "HTTP/1.1 409 Conflict\r\nContent-Type: application/problem+json; charset=utf-8\r\nX-Request-Id: req-1\r\n\
         Retry-After: 3\r\nContent-Length: 2\r\n\r\n{}"
            .to_string(),
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nid: 7\nevent: run\ndata: {}\n\n: beat\n\ndata: 2\n\n"
            .to_string(),
        "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\nnone".to_string(),
    ];
    let server = std::thread::spawn(move || {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("accepted");
            requests.push(String::from_utf8(read_request(&mut stream)).expect("text"));
            stream.write_all(answer.as_bytes()).expect("written");
        }
        requests
    });
    let base = BaseUrl::parse_or_unix(&format!("unix:{}", socket.display())).expect("URL");
    let client = ApiClient::new(net(), base, Some(Secret::new(b"cli-token".to_vec())));
    let reply = client.post("/v1/sessions", &[("idempotency-key", "k")], b"{\"a\":1}").expect("reply");
    assert_eq!((reply.status, reply.content_type.as_str()), (409, "application/problem+json"));
    assert_eq!((reply.request_id.as_deref(), reply.retry_after.as_deref()), (Some("req-1"), Some("3")));
    let ApiStream::Events(mut events) = client.stream("/v1/events/stream", Some("6")).expect("stream") else {
        panic!("no event stream");
    };
    let frame = |event: Option<&str>, id: Option<&str>, data: &str| SseFrame {
        event: event.map(str::to_string),
        id: id.map(str::to_string),
        data: data.to_string(),
    };
    assert_eq!(events.next_frame(), Ok(Some(frame(Some("run"), Some("7"), "{}"))));
    assert_eq!(events.next_frame(), Ok(Some(frame(None, None, "2"))));
    assert_eq!(events.next_frame(), Ok(None));
    match client.stream("/v1/nothing", None).expect("answer") {
        ApiStream::Reply(reply) => assert_eq!((reply.status, reply.body), (404, b"none".to_vec())),
        ApiStream::Events(_) => panic!("an error body was taken for a stream"),
    }
    let requests = server.join().expect("server");
    assert!(requests[0].starts_with("POST /v1/sessions HTTP/1.1\r\n") && requests[0].ends_with("\r\n\r\n{\"a\":1}"));
    assert!(requests[0].contains("\r\nauthorization: Bearer cli-token\r\n"), "{}", requests[0]);
    assert!(requests[1].contains("\r\nlast-event-id: 6\r\n"), "{}", requests[1]);
    std::fs::remove_dir_all(&directory).expect("scratch directory is ours");
}
