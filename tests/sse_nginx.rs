//! The three event streams through a real nginx with the repository's own configuration, on a host whose nginx compresses
//! everything: they come at once and as they are, go on behind a cursor, and outlast a proxy's patience while nothing happens.
//! Says SKIPPED where nginx is not installed.
//! Owns: the nginx process. Never: needs TLS; `scripts/e2e/browser_origin_smoke.sh` has that side.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
#[path = "support/port.rs"]
mod port;
#[path = "support/skip.rs"]
mod skip;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use daemon::{Home, Place, Provider, TOKEN, eventually};
use http::PATIENCE;
use port::Port;

/// How long nginx waits for a byte in the test of idleness: longer than the daemon's pause between two heartbeats, and much
/// shorter than that idleness. The configuration itself has an hour for ten minutes of it.
const READ_TIMEOUT: &str = "15s";
/// Heartbeats of an idle stream: more of them than nginx would wait for one byte.
const HEARTBEATS: usize = 2;
/// What many hosts have for everything that they serve.
const COMPRESSING: &str = "gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any; proxy_buffering on;";

struct Nginx {
    child: Child,
    port: Port,
    _place: Place,
}

impl Nginx {
    /// The repository's configuration in front of `daemon`, without TLS and with another patience.
    fn start(daemon: SocketAddr, read_timeout: &str) -> Self {
        let (place, port) = (Place::new("sse-nginx"), Port::reserve());
        let kept = include_str!("../deploy/reverse-proxy/nginx-kheish.conf")
            .lines()
            .filter(|line| !line.trim_start().starts_with("ssl_"))
            .collect::<Vec<_>>()
            .join("\n");
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path t;"));
        let mut text = kept;
        for (from, to) in [
            ("127.0.0.1:4000", daemon.to_string()),
            ("listen 8443 ssl http2;", format!("listen {};", port.address())),
            ("proxy_read_timeout 1h;", format!("proxy_read_timeout {read_timeout};")),
            ("http {", format!("http {{ access_log off; {COMPRESSING} {}", temporary.concat())),
        ] {
            assert_eq!(text.matches(from).count(), 1, "{from} is not once in the configuration");
            text = text.replace(from, &to);
        }
        let head = "daemon off; master_process off; pid pid; error_log stderr crit;";
        place.file("nginx.conf", &format!("{head}\n{text}\n"));
        let child = Command::new("nginx")
            .args(["-e", "stderr", "-c", "nginx.conf", "-p"])
            .arg(place.join(""))
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx");
        let mut nginx = Self { child, port, _place: place };
        eventually("nginx", || {
            assert!(nginx.child.try_wait().expect("a child").is_none(), "nginx did not start");
            TcpStream::connect(nginx.port.address()).ok()
        });
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// An event stream as a browser asks for it, taken out of its chunks.
struct Stream {
    reader: BufReader<TcpStream>,
    text: String,
}

impl Stream {
    fn open(nginx: &Nginx, target: &str, more: &str) -> Self {
        let mut stream = TcpStream::connect(nginx.port.address()).expect("nginx accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: kheish.example.com\r\nAuthorization: Bearer {TOKEN}\r\n\
             Accept: text/event-stream\r\nAccept-Encoding: gzip, br\r\n{more}\r\n"
        );
        stream.write_all(head.as_bytes()).expect("nginx reads");
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(reader.read_line(&mut head).expect("a head"), 0, "{target}: {head}");
        }
        let lines = head.to_ascii_lowercase();
        assert!(lines.starts_with("http/1.1 200"), "{target}: {head}");
        assert!(lines.contains("content-type: text/event-stream"), "{target}: {head}");
        assert!(
            lines.contains("transfer-encoding: chunked") && !lines.contains("content-encoding"),
            "{target}: {head}"
        );
        Self { reader, text: String::new() }
    }

    /// The next frame: its id and its event.
    fn frame(&mut self) -> (Option<u64>, String) {
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).map(str::to_string);
                let id = field("id: ").map(|id| id.parse().expect("a number"));
                let found = (id, field("event: ").unwrap_or_default());
                self.text = rest.to_string();
                return found;
            }
            let mut size = String::new();
            self.reader.read_line(&mut size).expect("a chunk");
            let size = usize::from_str_radix(size.trim(), 16).unwrap_or_else(|_| panic!("no chunk: {size:?}"));
            assert_ne!(size, 0, "the stream ended");
            let mut chunk = vec![0; size + 2];
            self.reader.read_exact(&mut chunk).expect("a whole chunk");
            self.text += std::str::from_utf8(&chunk[..size]).expect("frames are text");
        }
    }

    /// The next frame that is no heartbeat.
    fn event(&mut self) -> (u64, String) {
        loop {
            if let (Some(id), event) = self.frame() {
                return (id, event);
            }
        }
    }
}

fn is_installed(test: &str) -> bool {
    let found = Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_ok();
    if !found {
        skip::skip(test, "nginx is not installed");
    }
    found
}

fn targets(run: &str) -> [String; 3] {
    ["/v1/events/stream".to_string(), "/v1/sessions/s/stream".to_string(), format!("/v1/runs/{run}/stream")]
}

#[test]
fn each_stream_comes_at_once_uncompressed_and_goes_on_behind_its_cursor() {
    if !is_installed("each_stream_comes_at_once_uncompressed_and_goes_on_behind_its_cursor") {
        return;
    }
    let provider = Provider::start("[[turn]]\nmatch = \"hang\"\nfault = { kind = \"hang\" }\n");
    let home = Home::new("sse-nginx", Some(&provider));
    let daemon = home.start();
    let nginx = Nginx::start(daemon.address, "1h");
    daemon.create_session("s");
    let run = daemon.submit("s", "hang");
    provider.wait_asked("hang", 1);
    for target in targets(&run) {
        // A replay from the beginning; what nginx held back would not be there yet, since nothing more comes.
        let mut whole = Stream::open(&nginx, &format!("{target}?cursor=0"), "");
        let (first, _) = whole.event();
        let (second, _) = whole.event();
        assert!(second > first, "{target}: {second} after {first}");
        // Where a client was cut off it goes on: nothing is repeated, nothing is left out.
        let mut behind = Stream::open(&nginx, &target, &format!("Last-Event-ID: {first}\r\n"));
        assert_eq!(behind.event().0, second, "{target}");
    }
    let mut live: Vec<Stream> = targets(&run).iter().map(|target| Stream::open(&nginx, target, "")).collect();
    // The first frame of one that is up to date says so; it comes at once as well.
    for stream in &mut live {
        assert_eq!(stream.frame(), (None, "heartbeat".to_string()));
    }
    let reply = daemon.post(&format!("/v1/runs/{run}/cancel"), &serde_json::json!({}));
    assert_eq!(reply.status, 200, "{reply:?}");
    let ids: Vec<u64> = live.iter_mut().map(|stream| stream.event().0).collect();
    assert!(ids.iter().all(|id| *id > 0), "{ids:?}");
    daemon.stop();
}

#[test]
fn an_idle_stream_outlasts_the_patience_of_its_proxy() {
    if !is_installed("an_idle_stream_outlasts_the_patience_of_its_proxy") {
        return;
    }
    let home = Home::new("sse-nginx-idle", None);
    let daemon = home.serve().options(&["--hold"]).start();
    let nginx = Nginx::start(daemon.address, READ_TIMEOUT);
    daemon.create_session("s");
    let run = daemon.submit("s", "held");
    let mut streams: Vec<Stream> = targets(&run).iter().map(|target| Stream::open(&nginx, target, "")).collect();
    for stream in &mut streams {
        // The first one is the greeting.
        for number in 0..=HEARTBEATS {
            assert_eq!(stream.frame(), (None, "heartbeat".to_string()), "heartbeat {number}");
        }
    }
    let reply = daemon.post(&format!("/v1/runs/{run}/cancel"), &serde_json::json!({}));
    assert_eq!(reply.status, 200, "{reply:?}");
    for stream in &mut streams {
        stream.event();
    }
    daemon.stop();
}
