//! A proxy between the command line and a real daemon that spoils exactly one thing.
//! Owns: its listener, its threads and the fault; everything else goes through byte for byte.
//! Never: keeps a connection: each request is one, so that no fault reaches the next one.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What is spoilt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Requests whose target begins so get this status and an HTML page.
    Answer(&'static str, u16),
    /// Bodies of event streams on targets that begin so are kept until there are 64 KiB of them.
    Buffer(&'static str),
    /// The whole answer of such a target is kept, head included.
    HoldBack(&'static str),
    /// This piece of an event stream is replaced.
    Rewrite(&'static str, &'static str),
    /// The query of a target that begins so is dropped.
    DropQuery(&'static str),
    /// Answers of this method get one more header line.
    Header(&'static str, &'static str),
    /// The content type of event streams is replaced.
    ContentType(&'static str),
    /// Event streams are cut after their head.
    Cut,
}

pub struct Proxy {
    pub address: SocketAddr,
    stopping: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens in front of `daemon`.
    pub fn start(daemon: SocketAddr, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (stopping, open) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stop, sockets) = (Arc::clone(&stopping), Arc::clone(&open));
        let thread = std::thread::spawn(move || {
            let mut served = Vec::new();
            for client in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(upstream) = TcpStream::connect(daemon) else { continue };
                for socket in [&client, &upstream] {
                    sockets.lock().expect("no panic").push(socket.try_clone().expect("a descriptor"));
                }
                let fault = fault.clone();
                served.push(std::thread::spawn(move || {
                    // Whoever leaves early is not the proxy's affair.
                    let _left = serve(&client, &upstream, &fault);
                    let _closed = (client.shutdown(Shutdown::Both), upstream.shutdown(Shutdown::Both));
                }));
            }
            served.into_iter().for_each(|thread| thread.join().expect("a connection"));
        });
        Self { address, stopping, open, thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _wakes_the_listener = TcpStream::connect(self.address);
        for socket in self.open.lock().expect("no panic").iter() {
            let _gone_already = socket.shutdown(Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

fn read_head(stream: &mut &TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8(bytes).map_err(io::Error::other)?, rest));
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn with_line(head: &str, line: &str) -> String {
    format!("{}\r\n{line}\r\n\r\n", head.trim_end())
}

fn serve(client: &TcpStream, upstream: &TcpStream, fault: &Fault) -> io::Result<()> {
    let (mut client, mut upstream) = (client, upstream);
    let (mut head, mut body) = read_head(&mut client)?;
    let mut words = head.split(' ');
    let method = words.next().unwrap_or_default().to_string();
    let target = words.next().unwrap_or_default().to_string();
    let length: usize = header(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    while body.len() < length {
        let mut buffer = [0; 4096];
        match client.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => body.extend_from_slice(&buffer[..count]),
        }
    }
    match fault {
        Fault::Answer(prefix, status) if target.starts_with(prefix) => {
            let page = "<html>spoilt</html>";
            return write!(
                client,
                "HTTP/1.1 {status} Spoilt\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{page}",
                page.len()
            );
        }
        Fault::DropQuery(prefix) if target.starts_with(prefix) => {
            head = head.replacen(&target, target.split('?').next().unwrap_or_default(), 1);
        }
        _ => {}
    }
    let lines: Vec<&str> = head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:")).collect();
    upstream.write_all(with_line(&lines.join("\r\n"), "connection: close").as_bytes())?;
    upstream.write_all(&body)?;
    let (mut answer, rest) = read_head(&mut upstream)?;
    let is_stream = header(&answer, "content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
    match fault {
        Fault::Header(wanted, line) if *wanted == method => answer = with_line(&answer, line),
        Fault::ContentType(kind) if is_stream => answer = answer.replace("text/event-stream", kind),
        _ => {}
    }
    let keeps = |prefix: &str| is_stream && target.starts_with(prefix);
    if matches!(fault, Fault::HoldBack(prefix) if keeps(prefix)) {
        let mut kept = [answer.into_bytes(), rest].concat();
        upstream.read_to_end(&mut kept)?;
        return client.write_all(&kept);
    }
    client.write_all(answer.as_bytes())?;
    if is_stream && *fault == Fault::Cut {
        return Ok(());
    }
    let (mut kept, mut waiting) = (Vec::new(), rest);
    loop {
        match fault {
            Fault::Buffer(prefix) if keeps(prefix) => {
                kept.append(&mut waiting);
                if kept.len() >= 64 * 1024 {
                    client.write_all(&kept)?;
                    kept.clear();
                }
            }
            Fault::Rewrite(from, to) if is_stream => {
                let text = String::from_utf8_lossy(&waiting).replace(from, to);
                client.write_all(text.as_bytes())?;
            }
            _ => client.write_all(&waiting)?,
        }
        waiting.clear();
        let mut buffer = [0; 16 * 1024];
        match upstream.read(&mut buffer)? {
            0 => return client.write_all(&kept),
            count => waiting.extend_from_slice(&buffer[..count]),
        }
    }
}
