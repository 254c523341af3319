//! The egress guard against everything that leads to an address that a model, a hook or a server has no business with:
//! spellings, names, answers that change, redirects. A listener on all addresses of this host sees whether anything got
//! through; an error alone proves nothing.

mod net_raw_server;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kheish_daemon::net::{
    AddressClass, Cancel, Destination, EgressPolicy, Examined, Host, Method, Net, NetConfig, NetError, Purpose,
    Refusal, Request, Target, Timeouts,
};
use kheish_daemon::web::{self, FetchError, Hop, Page, Witness};
use net_raw_server::{RawServer, read_request};

const LIMIT_MS: u64 = 30_000;

/// Sees every connection that reaches this host on its port, by whatever address.
struct Watch {
    listeners: Vec<TcpListener>,
    port: u16,
}

impl Watch {
    fn new() -> Self {
        // One listener for both families where the kernel gives IPv6 sockets IPv4 too, else one for IPv4.
        let listener = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0")).expect("a port");
        listener.set_nonblocking(true).expect("socket option");
        let port = listener.local_addr().expect("bound").port();
        Self { listeners: vec![listener], port }
    }

    /// Connections since the last look.
    fn seen(&self) -> usize {
        let accepted = |listener: &TcpListener| std::iter::from_fn(|| listener.accept().ok()).count();
        self.listeners.iter().map(accepted).sum()
    }
}

type Answers = dyn Fn(&str) -> Vec<IpAddr> + Send + Sync;

/// A client whose names are looked up by `answers`.
fn net(policy: EgressPolicy, answers: impl Fn(&str) -> Vec<IpAddr> + Send + Sync + 'static) -> Net {
    let answers: Box<Answers> = Box::new(answers);
    let look_up = move |name: &str, port: u16| -> io::Result<Vec<SocketAddr>> {
        Ok(answers(name).into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    };
    let config = NetConfig { resolver_threads: 1, egress: policy, ..NetConfig::default() };
    Net::with_look_up(&config, Arc::new(look_up)).expect("client")
}

fn deaf(policy: EgressPolicy) -> Net {
    net(policy, |name| panic!("{name} was looked up"))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text}"))
}

fn policy(allow: &[&str], private: &[&str], air_gapped: bool) -> EgressPolicy {
    let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    EgressPolicy::new(&texts(allow), &texts(private), air_gapped).expect("settings")
}

fn timeouts() -> Timeouts {
    Timeouts { connect_ms: LIMIT_MS, first_byte_ms: LIMIT_MS, idle_ms: LIMIT_MS, total_ms: Some(LIMIT_MS) }
}

fn send(net: &Net, purpose: Purpose, allow_private: bool, url: &str) -> Result<u16, NetError> {
    let target = Target::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
    let request = Request {
        method: Method::Get,
        target: &target,
        purpose,
        allow_private,
        headers: &[],
        auth: None,
        body: None,
        timeouts: timeouts(),
        body_bytes_max: 1_000,
    };
    net.send(request, &Cancel::new()).map(|response| response.status)
}

/// Counts what it is told of and lets everything pass.
#[derive(Default)]
struct Told {
    before: Vec<String>,
    after: Vec<Hop>,
}

impl Witness for Told {
    fn before(&mut self, target: &Target, _: bool) -> Result<bool, String> {
        self.before.push(target.to_string());
        Ok(true)
    }

    fn after(&mut self, hop: Hop) {
        self.after.push(hop);
    }
}

fn fetch(net: &Net, url: &str) -> (Result<Page, FetchError>, Told) {
    let mut told = Told::default();
    let outcome = web::fetch(net, url, LIMIT_MS, &Cancel::new(), &mut told);
    (outcome, told)
}

/// Spellings of places that a model must not reach; `{p}` is the port of the watch. Names are answered as said beside
/// them.
const FORBIDDEN: &[(&str, Option<&str>)] = &[
    // Loopback as itself.
    ("http://127.0.0.1:{p}/", None),
    ("http://127.0.0.2:{p}/", None),
    ("http://127.255.255.254:{p}/", None),
    ("HTTP://127.0.0.1:{p}/", None),
    ("http://127.0.0.1:{p}#fragment", None),
    ("http://127.0.0.1:{p}?query", None),
    ("http://localhost:{p}/", None),
    ("http://LOCALHOST:{p}/", None),
    ("http://localhost.:{p}/", None),
    ("http://a.localhost:{p}/", None),
    ("http://a.b.LocalHost.:{p}/", None),
    ("http://[::1]:{p}/", None),
    ("http://[0:0:0:0:0:0:0:1]:{p}/", None),
    ("http://[0000:0000:0000:0000:0000:0000:0000:0001]:{p}/", None),
    // The old forms of IPv4 addresses.
    ("http://2130706433:{p}/", None),
    ("http://0x7f000001:{p}/", None),
    ("http://0X7F000001:{p}/", None),
    ("http://017700000001:{p}/", None),
    ("http://127.1:{p}/", None),
    ("http://127.0.1:{p}/", None),
    ("http://0x7f.0.0.1:{p}/", None),
    ("http://0177.0.0.1:{p}/", None),
    ("http://0177.0.0.01:{p}/", None),
    ("http://127.0.0.01:{p}/", None),
    ("http://127.0.0.0x1:{p}/", None),
    ("http://127.0.1.0x0:{p}/", None),
    ("http://127.0.0.1.:{p}/", None),
    ("http://0:{p}/", None),
    ("http://00000000000:{p}/", None),
    ("http://4294967296:{p}/", None),
    ("http://127.0.0.257:{p}/", None),
    // No particular address, which is this host to the kernel.
    ("http://0.0.0.0:{p}/", None),
    ("http://0.1.2.3:{p}/", None),
    ("http://[::]:{p}/", None),
    ("http://[::0.0.0.0]:{p}/", None),
    // IPv4 inside IPv6.
    ("http://[::ffff:127.0.0.1]:{p}/", None),
    ("http://[::ffff:7f00:1]:{p}/", None),
    ("http://[0:0:0:0:0:ffff:7f00:0001]:{p}/", None),
    ("http://[::127.0.0.1]:{p}/", None),
    ("http://[::ffff:0:127.0.0.1]:{p}/", None),
    ("http://[64:ff9b::127.0.0.1]:{p}/", None),
    ("http://[64:ff9b::7f00:1]:{p}/", None),
    ("http://[64:ff9b:1::127.0.0.1]:{p}/", None),
    ("http://[2002:7f00:1::]:{p}/", None),
    ("http://[2001:0:1:2:3:4:80ff:fffe]:{p}/", None),
    ("http://[::ffff:169.254.169.254]:{p}/", None),
    // Zones, and what else is put into brackets.
    ("http://[::1%lo]:{p}/", None),
    ("http://[::1%25lo]:{p}/", None),
    ("http://[fe80::1%25eth0]:{p}/", None),
    ("http://[127.0.0.1]:{p}/", None),
    ("http://[v1.127.0.0.1]:{p}/", None),
    ("http://[::1:{p}/", None),
    // User names in front.
    ("http://example.com@127.0.0.1:{p}/", None),
    ("http://example.com:80@127.0.0.1:{p}/", None),
    ("http://example.com%40127.0.0.1:{p}/", None),
    ("http://127.0.0.1:{p}@example.com/", None),
    ("http://@127.0.0.1:{p}/", None),
    // Escapes, other letters, and what parsers disagree about.
    ("http://127%2e0%2e0%2e1:{p}/", None),
    ("http://%31%32%37.0.0.1:{p}/", None),
    ("http://loc%61lhost:{p}/", None),
    ("http://127。0。0。1:{p}/", None),
    ("http://①②⑦.⓪.⓪.①:{p}/", None),
    ("http://ⓛocalhost:{p}/", None),
    ("http://localhoſt:{p}/", None),
    ("http://127.0.0.1:{p}\\@example.com/", None),
    ("http://example.com\\@127.0.0.1:{p}/", None),
    ("http:\\\\127.0.0.1:{p}\\", None),
    ("http://127.0.0.1\t:{p}/", None),
    (" http://127.0.0.1:{p}/", None),
    ("http://127.0.0.1:{p}/\r\nHost: example.com", None),
    ("http:///127.0.0.1:{p}/", None),
    ("http:127.0.0.1:{p}/", None),
    ("//127.0.0.1:{p}/", None),
    ("127.0.0.1:{p}", None),
    ("http://127.0.0.1:{p}:80/", None),
    ("http://127.0.0.1:+{p}/", None),
    // Other schemes.
    ("file:///etc/passwd", None),
    ("ftp://127.0.0.1:{p}/", None),
    ("gopher://127.0.0.1:{p}/_x", None),
    ("unix:/run/x.sock", None),
    ("data:text/plain,x", None),
    // Inner networks and the rest of the table.
    ("http://10.0.0.1:{p}/", None),
    ("http://172.16.0.1:{p}/", None),
    ("http://192.168.0.1:{p}/", None),
    ("http://100.64.0.1:{p}/", None),
    ("http://169.254.1.1:{p}/", None),
    ("http://169.254.169.254/latest/meta-data/", None),
    ("http://169.254.170.2/v2/credentials", None),
    ("http://[fd00:ec2::254]/latest/meta-data/", None),
    ("http://100.100.100.200/latest/meta-data/", None),
    ("http://168.63.129.16/", None),
    ("http://192.0.0.192/latest/", None),
    ("http://192.0.0.1/", None),
    ("http://198.18.0.1/", None),
    ("http://192.0.2.1/", None),
    ("http://198.51.100.1/", None),
    ("http://203.0.113.1/", None),
    ("http://192.88.99.1/", None),
    ("http://224.0.0.1/", None),
    ("http://240.0.0.1/", None),
    ("http://255.255.255.255/", None),
    ("http://[fc00::1]/", None),
    ("http://[fe80::1]/", None),
    ("http://[fec0::1]/", None),
    ("http://[ff02::1]/", None),
    ("http://[2001:db8::1]/", None),
    ("http://[3fff::1]/", None),
    ("http://[100::1]/", None),
    // Names that lead there, alone or beside a good address.
    ("http://one.example:{p}/", Some("127.0.0.1")),
    ("http://one.example.:{p}/", Some("127.0.0.1")),
    ("http://127.0.0.1.nip.example:{p}/", Some("127.0.0.1")),
    ("http://xn--localhost-.example:{p}/", Some("127.0.0.1")),
    ("http://mapped.example:{p}/", Some("::ffff:127.0.0.1")),
    ("http://zero.example:{p}/", Some("0.0.0.0")),
    ("http://six.example:{p}/", Some("::1")),
    ("http://metadata.example/", Some("169.254.169.254")),
    ("http://inner.example:{p}/", Some("10.0.0.1")),
    ("http://mixed.example:{p}/", Some("8.8.8.8 127.0.0.1")),
    ("http://last-of-many.example:{p}/", Some("8.8.8.8 1.1.1.1 9.9.9.9 2001:4860::1 8.8.4.4 ::1")),
];

#[test]
fn no_spelling_of_a_forbidden_place_gets_a_connection() {
    assert!(FORBIDDEN.len() >= 100, "{}", FORBIDDEN.len());
    let watch = Watch::new();
    // The watch sees what the guard does not stop: the same client without a guard gets through.
    let unguarded = deaf(EgressPolicy::command_line());
    for host in ["127.0.0.1", "127.0.0.2", "0.0.0.0"] {
        let url = format!("http://{host}:{}/", watch.port);
        let target = Target::parse(&url).expect("legal");
        let short = Timeouts { first_byte_ms: 1, ..timeouts() };
        let request = Request {
            method: Method::Get,
            target: &target,
            purpose: Purpose::CommandLine,
            allow_private: false,
            headers: &[],
            auth: None,
            body: None,
            timeouts: short,
            body_bytes_max: 1_000,
        };
        let _no_answer = unguarded.send(request, &Cancel::new());
        assert_eq!(watch.seen(), 1, "{host}: the watch is blind");
    }
    for (spelling, answers) in FORBIDDEN {
        let url = spelling.replace("{p}", &watch.port.to_string());
        let guarded = match *answers {
            None => deaf(EgressPolicy::default()),
            Some(answers) => net(EgressPolicy::default(), move |_| answers.split(' ').map(ip).collect()),
        };
        let (outcome, told) = fetch(&guarded, &url);
        let error = outcome.err().unwrap_or_else(|| panic!("{url} was fetched"));
        assert!(matches!(error.code(), "egress_refused" | "invalid_url"), "{url}: {} {error}", error.code());
        assert!(error.to_string().contains("; next: "), "{url}: {error}");
        assert_eq!(watch.seen(), 0, "{url}");
        // Only names get as far as being recorded, since their addresses are known no earlier.
        assert_eq!((told.before.len(), told.after.len()), (usize::from(answers.is_some()), told.before.len()), "{url}");
        // An inner address is nobody's business.
        if answers.is_some() {
            assert!(!error.to_string().contains("127.0.0.1;"), "{error}");
        }
        // The same through the client itself, for every purpose that reaches only the Internet.
        let Ok(target) = Target::parse(&url) else { continue };
        for purpose in [Purpose::Web, Purpose::Hook, Purpose::Connector] {
            let refused = send(&guarded, purpose, false, &target.whole());
            assert!(matches!(refused, Err(NetError::EgressRefused { .. })), "{purpose} {url}: {refused:?}");
            assert_eq!(watch.seen(), 0, "{purpose} {url}");
        }
    }
}

/// A server that answers each path with what `answer` says.
fn site(answer: impl Fn(&str) -> String + Send + 'static) -> RawServer {
    RawServer::start(move |mut stream| {
        let request = String::from_utf8_lossy(&read_request(&mut stream)).into_owned();
        let path = request.split(' ').nth(1).unwrap_or_default().to_string();
        let _client_may_be_gone = stream.write_all(answer(&path).as_bytes());
    })
}

fn page(kind: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn to(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
}

/// A client that may fetch from `site`, and from the names `*.example`.
fn reader(site: &RawServer, answers: impl Fn(&str) -> Vec<IpAddr> + Send + Sync + 'static) -> Net {
    net(policy(&[&site.addr.to_string(), "*.example"], &["web"], false), answers)
}

#[test]
fn every_hop_of_a_redirect_is_judged_like_the_first() {
    let watch = Watch::new();
    let port = watch.port;
    let names = |name: &str| vec![ip(if name == "rebound.example" { "127.0.0.1" } else { "169.254.169.254" })];
    for location in [
        format!("http://127.0.0.1:{port}/"),
        format!("//127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://0.0.0.0:{port}/"),
        format!("http://rebound.example:{port}/"),
        "http://metadata.example/".to_string(),
        "http://169.254.169.254/latest/meta-data/".to_string(),
        format!("http://user@127.0.0.1:{port}/"),
        "file:///etc/passwd".to_string(),
        "gopher://127.0.0.1:1/".to_string(),
        "unix:/run/docker.sock".to_string(),
    ] {
        // Once at the start of a chain, once at its end.
        for hops in [0, 4] {
            let wanted = location.clone();
            let site = site(move |path| match path.trim_start_matches('/').parse::<usize>() {
                Ok(left) if left > 0 => to(&format!("/{}", left - 1)),
                _ => to(&wanted),
            });
            let (outcome, told) = fetch(&reader(&site, names), &format!("{}/{hops}", site.url()));
            let error = outcome.err().unwrap_or_else(|| panic!("{location} was followed"));
            assert!(matches!(error.code(), "egress_refused" | "invalid_redirect"), "{location}: {error}");
            assert_eq!((watch.seen(), site.connections()), (0, hops + 1), "{location}");
            assert_eq!(told.before.len(), told.after.len(), "{location}");
        }
    }
}

#[test]
fn five_redirects_are_followed_and_a_sixth_is_not() {
    let chain = |length: usize| {
        let site = site(move |path| match path.trim_start_matches('/').parse::<usize>() {
            Ok(0) => page("text/plain", "arrived"),
            Ok(left) => to(&format!("/{}", left - 1)),
            Err(_) => to("/"),
        });
        let (outcome, told) = fetch(&reader(&site, |_| Vec::new()), &format!("{}/{length}", site.url()));
        (outcome, told.before.len(), site.connections())
    };
    let (outcome, told, connections) = chain(5);
    let arrived = outcome.expect("five");
    assert_eq!((arrived.redirects, arrived.body.as_str(), told, connections), (5, "arrived", 6, 6));
    let (outcome, told, connections) = chain(6);
    assert_eq!((outcome.expect_err("six").code(), told, connections), ("too_many_redirects", 6, 6));
    let site = site(|_| to("/again"));
    let (outcome, _) = fetch(&reader(&site, |_| Vec::new()), &site.url());
    assert_eq!((outcome.expect_err("a circle").code(), site.connections()), ("too_many_redirects", 6));
}

#[test]
fn a_name_is_looked_up_once_a_request_and_the_connection_goes_to_that_answer() {
    let (here, elsewhere) = (site(|_| page("text/plain", "here")), TcpListener::bind("127.0.0.2:0").expect("loopback"));
    let port = here.addr.port();
    // A second listener on the same port of the other address sees what a second look-up would lead to.
    let other = TcpListener::bind(("127.0.0.2", port)).unwrap_or(elsewhere);
    other.set_nonblocking(true).expect("socket option");
    let asked = Arc::new(AtomicUsize::new(0));
    let script = Mutex::new(VecDeque::from(["127.0.0.1", "127.0.0.2", "127.0.0.2"]));
    let counter = asked.clone();
    let net = net(EgressPolicy::default(), move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        vec![ip(script.lock().expect("unpoisoned").pop_front().expect("an answer"))]
    });
    let url = format!("http://rebound.example:{port}/");
    assert_eq!(send(&net, Purpose::Hook, true, &url), Ok(200));
    assert_eq!((asked.load(Ordering::SeqCst), here.connections()), (1, 1));
    assert_eq!(other.accept().map(drop).map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
}

#[test]
fn an_answer_that_changes_to_a_forbidden_address_is_refused_when_it_does() {
    let watch = Watch::new();
    let site = site(|_| page("text/plain", "here"));
    let port = site.addr.port();
    for later in ["169.254.169.254", "0.0.0.0", "::ffff:0.0.0.0", "224.0.0.1", "::"] {
        let script = Mutex::new(VecDeque::from(["127.0.0.1", later]));
        let net = net(EgressPolicy::default(), move |_| {
            vec![ip(script.lock().expect("unpoisoned").pop_front().expect("an answer"))]
        });
        let before = site.connections();
        let url = format!("http://rebound.example:{port}/");
        assert_eq!(send(&net, Purpose::Provider, false, &url), Ok(200), "{later}");
        // No connection of the first request is used for the second.
        let second = send(&net, Purpose::Provider, false, &url);
        assert!(matches!(second, Err(NetError::EgressRefused { .. })), "{later}: {second:?}");
        assert_eq!((site.connections() - before, watch.seen()), (1, 0), "{later}");
        assert_eq!(net.egress_refused_count(), 1);
    }
}

#[test]
fn a_redirect_by_a_name_that_changes_between_hops_is_refused() {
    let watch = Watch::new();
    let port = watch.port;
    let own = Arc::new(Mutex::new(String::new()));
    let next = own.clone();
    let site = site(move |_| to(&next.lock().expect("unpoisoned")));
    *own.lock().expect("unpoisoned") = format!("http://rebound.example:{port}/");
    let (outcome, told) = fetch(&reader(&site, |_| vec![ip("127.0.0.1")]), &site.url());
    assert_eq!(outcome.expect_err("refused").code(), "egress_refused");
    assert_eq!((told.before.len(), told.after[1].error, watch.seen()), (2, Some("egress_refused"), 0));
}

#[test]
fn an_air_gapped_client_looks_up_no_name_and_reaches_this_host_alone() {
    let server = site(|_| page("text/plain", "here"));
    let net = deaf(policy(&[], &[], true));
    for purpose in Purpose::ALL {
        for url in ["http://leak.example/", "https://8.8.8.8/", "http://10.0.0.1/", "https://[2001:4860::1]/"] {
            let host = Target::parse(url).expect("legal").host_and_port().map(|(host, _)| host.to_string());
            let refusal = NetError::EgressRefused { purpose, host: host.expect("TCP"), refusal: Refusal::AirGapped };
            // Private addresses are refused as such where the purpose never reaches them.
            match send(&net, purpose, false, url) {
                Err(NetError::EgressRefused { refusal: Refusal::Address(AddressClass::Private), .. }) => {}
                outcome => assert_eq!(outcome, Err(refusal), "{purpose} {url}"),
            }
        }
    }
    let local = format!("http://localhost:{}/", server.addr.port());
    assert_eq!(send(&net, Purpose::Provider, false, &local), Ok(200));
    assert_eq!(send(&net, Purpose::Mcp, false, &server.url()), Ok(200));
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_page_is_text_of_bounded_length_without_cookies() {
    let fetched = |answer: String| {
        let site = site(move |_| answer.clone());
        fetch(&reader(&site, |_| Vec::new()), &format!("{}/x?y=z#part", site.url())).0
    };
    for kind in [
        "text/html",
        "TEXT/Plain; charset=utf-8",
        "application/json",
        "application/ld+json",
        "application/xhtml+xml",
        "application/rss+xml",
        "application/problem+json",
        "application/xml",
        "image/svg+xml",
    ] {
        assert_eq!(fetched(page(kind, "text")).map(|page| page.body), Ok("text".to_string()), "{kind}");
    }
    let silent = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntext".to_string();
    assert_eq!(fetched(silent).map(|page| page.body), Ok("text".to_string()));
    for kind in ["image/png", "application/octet-stream", "application/pdf", "video/mp4", "jsonapplication", "text"] {
        assert_eq!(fetched(page(kind, "data")).expect_err(kind).code(), "not_text", "{kind}");
    }
    let zipped = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nxx";
    assert_eq!(fetched(zipped.to_string()).expect_err("zipped").code(), "not_text");

    // Declared, chunked or until the end of the connection: cut and flagged, never refused.
    let long = "x".repeat(128 * 1024 + 1);
    let chunked =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
    for answer in [page("text/plain", &long), chunked, format!("HTTP/1.1 200 OK\r\n\r\n{long}")] {
        let page = fetched(answer).expect("cut");
        assert_eq!((page.body.len(), page.bytes_read, page.truncated), (128 * 1024, 128 * 1024, true));
    }
    let page_of = |length: usize| fetched(page("text/plain", &"x".repeat(length))).expect("a page");
    let whole = page_of(128 * 1024);
    assert_eq!((whole.body.len(), whole.truncated), (128 * 1024, false));
    // Control characters take six bytes each in JSON.
    let escaped = fetched(page("text/plain", &"\u{1}".repeat(100_000))).expect("cut");
    assert_eq!((escaped.body.len(), escaped.bytes_read, escaped.truncated), (32 * 1024, 100_000, true));

    let head = format!(
        "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=ISO-8859-1\r\nX-Long: {}\r\n\
         Set-Cookie: session=secret\r\nX-Other: y\r\n",
        "v".repeat(5_000)
    );
    let site = RawServer::start(move |mut stream| {
        read_request(&mut stream);
        stream.write_all(format!("{head}content-length: 3\r\n\r\n").as_bytes()).expect("written");
        stream.write_all(b"b\xfcr").expect("written");
    });
    let (outcome, told) = fetch(&reader(&site, |_| Vec::new()), &format!("{}/x?y=z#part", site.url()));
    let header = |name: &str, value: &str| (name.to_string(), value.to_string());
    let expected = Page {
        url: format!("{}/x?y=z", site.url()),
        final_url: format!("{}/x?y=z", site.url()),
        redirects: 0,
        status: 404,
        headers: vec![
            header("content-type", "text/plain; charset=ISO-8859-1"),
            header("x-long", &"v".repeat(4 * 1024)),
            header("x-other", "y"),
            header("content-length", "3"),
        ],
        body: "bür".to_string(),
        bytes_read: 3,
        truncated: false,
        redirect_to: None,
    };
    assert_eq!(outcome, Ok(expected));
    // What is recorded has no query.
    assert_eq!(told.before, [format!("{}/x", site.url())]);
    assert_eq!((told.after[0].status, told.after[0].bytes, told.after[0].error), (Some(404), 3, None));
}

#[test]
fn a_fetch_ends_at_its_limit_however_slowly_a_server_trickles() {
    let site = RawServer::start(|mut stream| {
        read_request(&mut stream);
        let _client_may_be_gone = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n");
        // Each wait for bytes that never come paces the trickle; the client's end of the connection ends it.
        stream.set_read_timeout(Some(Duration::from_millis(5))).expect("socket option");
        while stream.write_all(b"x").is_ok() && !stream.read(&mut [0; 1]).is_ok_and(|count| count == 0) {}
    });
    let mut told = Told::default();
    let net = reader(&site, |_| Vec::new());
    let error = web::fetch(&net, &site.url(), 200, &Cancel::new(), &mut told).expect_err("endless");
    assert_eq!((error.code(), told.after.len()), ("timed_out", 1));
    assert_eq!(told.after[0].error, Some("timed_out"));
}

#[test]
fn what_cannot_be_recorded_is_not_sent() {
    struct Deny;
    impl Witness for Deny {
        fn before(&mut self, _: &Target, _: bool) -> Result<bool, String> {
            Err("no room for the record".to_string())
        }

        fn after(&mut self, hop: Hop) {
            panic!("nothing was sent: {hop:?}");
        }
    }
    let site = site(|_| page("text/plain", "here"));
    let outcome = web::fetch(&reader(&site, |_| Vec::new()), &site.url(), LIMIT_MS, &Cancel::new(), &mut Deny);
    assert_eq!(outcome, Err(FetchError::Refused("no room for the record".to_string())));
    assert_eq!(site.connections(), 0);
}

#[test]
fn a_host_is_examined_without_a_connection() {
    let watch = Watch::new();
    let net = net(EgressPolicy::default(), |name| match name {
        "good.example" => vec![ip("8.8.8.8"), ip("2001:4860::1")],
        "bad.example" => vec![ip("8.8.8.8"), ip("10.0.0.1")],
        _ => Vec::new(),
    });
    let examine = |host: &str| {
        let destination = Destination {
            purpose: Purpose::Hook,
            host: Host::parse(host).expect(host),
            port: watch.port,
            allow_private: false,
        };
        net.examine(&destination, LIMIT_MS, &Cancel::new())
    };
    let found = |list: &[(&str, AddressClass)]| list.iter().map(|(text, class)| (ip(text), *class)).collect();
    let good = [("8.8.8.8", AddressClass::Public), ("2001:4860::1", AddressClass::Public)];
    assert_eq!(examine("good.example"), Ok(Examined { addresses: found(&good), refusal: None }));
    let bad = [("8.8.8.8", AddressClass::Public), ("10.0.0.1", AddressClass::Private)];
    let refusal = Some(Refusal::Address(AddressClass::Private));
    assert_eq!(examine("bad.example"), Ok(Examined { addresses: found(&bad), refusal }));
    let literal = [("127.0.0.1", AddressClass::Loopback)];
    let refusal = Some(Refusal::Address(AddressClass::Loopback));
    assert_eq!(examine("127.0.0.1"), Ok(Examined { addresses: found(&literal), refusal }));
    assert_eq!(examine("localhost"), Ok(Examined { addresses: Vec::new(), refusal }));
    assert!(matches!(examine("nowhere.example"), Err(NetError::Resolve { .. })));
    assert_eq!(watch.seen(), 0);
}

#[test]
fn a_proxy_of_the_environment_is_not_asked() {
    let proxy = Watch::new();
    let site = site(|_| page("text/plain", "here"));
    let url = format!("http://127.0.0.1:{}", proxy.port);
    // A process of its own: the environment of this one belongs to all its tests.
    if std::env::var_os("HTTP_PROXY").is_none() {
        let program = std::env::current_exe().expect("this test");
        let output = std::process::Command::new(program)
            .args(["--exact", "a_proxy_of_the_environment_is_not_asked"])
            .envs(["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"].map(|name| (name, &url)))
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(proxy.seen(), 0);
        return;
    }
    let (outcome, _) = fetch(&reader(&site, |_| Vec::new()), &site.url());
    assert_eq!((outcome.map(|page| page.body), site.connections()), (Ok("here".to_string()), 1));
}
