//! Rows 3 and 4 of the abuse list: descriptors and threads run out. Each test runs in a child process of its
//! own, started with a low limit by `sh`, since limits are per process.

mod edge_support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use edge_support::{Client, PATIENCE, Rig};

const ROLE: &str = "EDGE_DESCRIPTORS_SERVER";

/// Not a test of its own: the server of the others. Prints its address, serves until its stdin ends, then
/// prints its figures.
#[test]
fn served_by_a_child_process() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let rig = Rig::start(|_| {});
    println!("\naddress {}", rig.address());
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line).unwrap() > 0 {
        let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
        let stats = rig.edge.stats();
        println!(
            "figures {threads} {} {}",
            stats.connections_open,
            stats.refused(kheish_daemon::http::Refused::Descriptors)
        );
        line.clear();
    }
}

struct Server {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    address: SocketAddr,
}

impl Server {
    fn start(limit: &str) -> Self {
        let this_binary = std::env::current_exe().unwrap();
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("{limit} && exec \"$0\" served_by_a_child_process --exact --nocapture"))
            .arg(this_binary)
            .env(ROLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let address = Self::line(&mut output, "address ").parse().unwrap();
        Self { child, output, address }
    }

    fn line(output: &mut impl BufRead, prefix: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "the server process died");
            if let Some(rest) = line.trim_end().strip_prefix(prefix) {
                return rest.to_string();
            }
        }
    }

    /// Threads, open connections, pauses of accepting.
    fn figures(&mut self) -> [u64; 3] {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        let line = Self::line(&mut self.output, "figures ");
        let figures: Vec<u64> = line.split(' ').map(|figure| figure.parse().unwrap()).collect();
        figures.try_into().unwrap()
    }

    fn client(&self) -> Client<TcpStream> {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client::new(stream)
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success(), "{rest}");
    }
}

fn ping(client: &mut Client<TcpStream>) {
    client.send(b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.answer().body, b"pong");
}

#[test]
fn row_3_a_listener_without_descriptors_pauses_and_goes_on_when_some_return() {
    let mut server = Server::start("ulimit -n 64");
    let mut clients: Vec<_> = (0..120).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send(b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    // The first ones are served, and go on being served while nobody else can be let in.
    assert_eq!(clients[0].answer().body, b"pong");
    while server.figures()[2] < 3 {}
    let [_, open, _] = server.figures();
    assert!((30..64).contains(&open), "{open} connections under a limit of 64 descriptors");
    ping(&mut clients[0]);

    // Those who wait are let in as the others leave: nobody is lost.
    let mut served = 1;
    clients.remove(0);
    for mut client in clients {
        assert_eq!(client.answer().body, b"pong");
        served += 1;
    }
    assert_eq!(served, 120);
    ping(&mut server.client());
    server.end();
}

#[test]
fn row_4_connections_start_no_threads() {
    let mut server = Server::start("ulimit -v 4000000");
    let [before, ..] = server.figures();
    let mut clients: Vec<_> = (0..101).map(|_| server.client()).collect();
    for client in &mut clients {
        ping(client);
    }
    assert_eq!(server.figures()[..2], [before, 101]);
    drop(clients);
    server.end();
}
