//! A differential run: the same mutated streams to nginx and to the edge. The edge must never find more
//! requests in a stream than nginx does, which is what request smuggling needs. Finding fewer is strictness.
//! Without nginx on the host there is nothing to compare with and the test says SKIPPED.

mod edge_support;

#[path = "support/port.rs"]
mod port;
#[path = "support/skip.rs"]
mod skip;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use edge_support::{PATIENCE, Random, Rig};
use port::Port;

struct Nginx {
    child: Child,
    directory: PathBuf,
    address: SocketAddr,
    _port: Port,
}

impl Nginx {
    fn start() -> Option<Self> {
        Command::new("nginx").arg("-v").stderr(Stdio::null()).status().ok()?;
        let directory = std::env::temp_dir().join(format!("edge-nginx-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let port = Port::reserve();
        let address = port.address();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path t;"));
        let configuration = format!(
            "daemon off; master_process off; pid pid; error_log stderr crit; events {{}}\n\
             http {{ access_log off; {} keepalive_requests 1000;\n\
             server {{ listen {address}; location / {{ return 200 ok; }} }} }}\n",
            temporary.concat()
        );
        std::fs::write(directory.join("nginx.conf"), configuration).unwrap();
        let child = Command::new("nginx")
            .args(["-e", "stderr", "-c", "nginx.conf", "-p"])
            .arg(&directory)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut nginx = Self { child, directory, address, _port: port };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(nginx.child.try_wait().unwrap().is_none() && Instant::now() < deadline, "nginx did not start");
            std::thread::yield_now();
        }
        Some(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

fn pick<'a>(random: &mut Random, of: &[&'a str]) -> &'a str {
    of[random.below(of.len())]
}

fn stream(random: &mut Random) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..=random.below(3) {
        let line = pick(random, &["GET /", "POST /a?b", "PUT /%20", "DELETE /v1/runs"]);
        stream.extend_from_slice(format!("{line} HTTP/1.1\r\nHost: h:1\r\n").as_bytes());
        let framing = ["Content-Length: 3", "Content-Length: +3", "Content-Length: 3, 3", "Content-Length: 00"];
        let coding = ["Transfer-Encoding: chunked", "Transfer-Encoding: identity", "Host: h", "X:\t y \t"];
        if random.below(12) == 0 {
            let all = [framing, coding].concat();
            stream.extend_from_slice(format!("{}\r\n", pick(random, &all)).as_bytes());
        }
        let body: Vec<u8> = (0..random.below(40)).map(|_| b"a\r\n0G"[random.below(5)]).collect();
        match random.below(3) {
            0 => stream.extend_from_slice(b"\r\n"),
            1 => {
                stream.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
                stream.extend_from_slice(&body);
            }
            _ => {
                stream.extend_from_slice(b"transfer-encoding: Chunked\r\n\r\n");
                for chunk in body.chunks(1 + random.below(20)) {
                    let extension = pick(random, &["", "", ";", ";a=b"]);
                    stream.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
                    stream.extend_from_slice(chunk);
                    stream.extend_from_slice(b"\r\n");
                }
                stream.extend_from_slice(
                    pick(random, &["0\r\n\r\n", "000\r\nT: v\r\n\r\n", "0;x\r\nt:\r\n\r\n"]).as_bytes(),
                );
            }
        }
    }
    for _ in 0..random.below(3) {
        let at = random.below(stream.len());
        let byte = b"\r\n\t :;,\0\x01\x7f\x80\xff+-0159afgAZ/%?\""[random.below(27)];
        match random.below(5) {
            0 => stream[at] = byte,
            1 => stream.insert(at, byte),
            2 => drop(stream.remove(at)),
            3 => stream.truncate(at.max(1)),
            _ => {
                let piece = stream[at..(at + 1 + random.below(20)).min(stream.len())].to_vec();
                drop(stream.splice(at..at, piece));
            }
        }
    }
    stream
}

/// How many requests of the stream were served. nginx answers some garbage as HTTP/0.9, without a head: that
/// ends the count.
fn served(address: SocketAddr, stream: &[u8]) -> usize {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    let _server_may_have_closed = connection.write_all(stream);
    let _server_may_have_closed = connection.shutdown(Shutdown::Write);
    let mut received = Vec::new();
    let _reset_is_an_end_too = connection.read_to_end(&mut received);
    let (mut rest, mut count) = (String::from_utf8_lossy(&received).into_owned(), 0);
    while let Some((head, behind)) = rest.split_once("\r\n\r\n") {
        let Some(status) = head.strip_prefix("HTTP/1.1 ").and_then(|line| line.get(..3)) else { break };
        count += usize::from(status < "400");
        let length = head.split("\r\n").find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().unwrap())
        });
        rest = behind.get(length.unwrap_or(0)..).unwrap_or_default().to_string();
    }
    count
}

#[test]
fn the_edge_never_finds_more_requests_in_a_stream_than_nginx() {
    let Some(nginx) = Nginx::start() else {
        return skip::skip("edge_nginx", "nginx is not installed");
    };
    let rig = Rig::start(|_| {});
    let (mut alike, mut stricter) = (0, 0);
    let seeds = std::env::var("KHEISH_FUZZ_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(500);
    for seed in 0..seeds {
        let stream = stream(&mut Random::new(seed));
        rig.probe.seen.lock().unwrap().clear();
        let edge = served(rig.address(), &stream);
        // nginx knows methods of letters only; the edge leaves 405 for the others to its service.
        let plain = |line: &String| line.split(' ').next().unwrap().bytes().all(|b| b.is_ascii_uppercase());
        if !rig.seen().iter().all(plain) {
            continue;
        }
        let other = served(nginx.address, &stream);
        let text = String::from_utf8_lossy(&stream);
        assert!(edge <= other, "seed {seed}: the edge served {edge}, nginx {other}: {text:?}");
        alike += usize::from(edge == other);
        stricter += usize::from(edge < other);
    }
    assert!(alike > seeds as usize / 2 && stricter > 0, "{alike} alike, {stricter} stricter: the mutations miss");
}
