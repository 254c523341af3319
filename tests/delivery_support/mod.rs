//! A receiver of deliveries that answers by order, and remembers everything that it was sent.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Seen {
    pub fn key(&self) -> &str {
        &self.headers["idempotency-key"]
    }
}

/// What to do with a request.
#[derive(Clone)]
pub enum Answer {
    /// These bytes, then close.
    Raw(Vec<u8>),
    /// A status with header lines and a body.
    Status(u16, &'static str, &'static str),
    /// Nothing until the receiver is opened or the peer goes away.
    Stall,
    /// Close without a word.
    Reset,
    /// The head, then a byte now and then until the peer goes away.
    SlowBody,
    /// The head and an endless body.
    HugeBody,
}

#[derive(Default)]
struct Book {
    seen: Vec<Seen>,
    script: BTreeMap<String, Vec<Answer>>,
    /// Requests that are being stalled.
    stalled: usize,
    opened: bool,
    closed: bool,
}

/// The receiver. A path answers by its script, the last entry again and again; one without a script takes everything.
pub struct Receiver {
    pub address: SocketAddr,
    book: Arc<(Mutex<Book>, Condvar)>,
    acceptor: Option<JoinHandle<()>>,
}

impl Receiver {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let book: Arc<(Mutex<Book>, Condvar)> = Arc::default();
        let shared = book.clone();
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.0.lock().expect("no panic").closed {
                    return;
                }
                let shared = shared.clone();
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { address, book, acceptor: Some(acceptor) }
    }

    pub fn script(&self, path: &str, answers: Vec<Answer>) {
        self.book.0.lock().expect("no panic").script.insert(path.to_string(), answers);
    }

    /// Lets stalled requests and all later ones be taken.
    pub fn open(&self) {
        let mut book = self.book.0.lock().expect("no panic");
        book.opened = true;
        self.book.1.notify_all();
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.book.0.lock().expect("no panic").seen.clone()
    }

    pub fn at(&self, path: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.path == path).collect()
    }

    pub fn wait<T>(&self, what: &str, look: impl Fn(&[Seen], usize) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        let mut book = self.book.0.lock().expect("no panic");
        loop {
            if let Some(found) = look(&book.seen, book.stalled) {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what}: not within {PATIENCE:?}: {:#?}", book.seen);
            book = self.book.1.wait_timeout(book, left).expect("no panic").0;
        }
    }

    pub fn wait_count(&self, path: &str, count: usize) -> Vec<Seen> {
        self.wait(&format!("{count} requests at {path}"), |seen, _| {
            let here: Vec<Seen> = seen.iter().filter(|seen| seen.path == path).cloned().collect();
            (here.len() >= count).then_some(here)
        })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Ok(mut book) = self.book.0.lock() {
            (book.closed, book.opened) = (true, true);
            self.book.1.notify_all();
        }
        let _wakes_the_acceptor = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ended = acceptor.join();
        }
    }
}

fn read(stream: &TcpStream) -> Option<Seen> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_string();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_string());
    }
    let length = headers.get("content-length")?.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Seen { path, headers, body: String::from_utf8(body).ok()? })
}

fn serve(mut stream: TcpStream, shared: &(Mutex<Book>, Condvar)) {
    let Some(seen) = read(&stream) else { return };
    let answer = {
        let mut book = shared.0.lock().expect("no panic");
        let opened = book.opened;
        let answers = book.script.get_mut(&seen.path);
        let answer = match answers {
            _ if opened => Answer::Status(200, "", "{}"),
            Some(answers) if answers.len() > 1 => answers.remove(0),
            Some(answers) => answers[0].clone(),
            None => Answer::Status(200, "", "{}"),
        };
        book.seen.push(seen);
        book.stalled += usize::from(matches!(answer, Answer::Stall));
        shared.1.notify_all();
        answer
    };
    let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    // A peer that hangs up is what some answers are for.
    let _hung_up = match answer {
        Answer::Raw(bytes) => stream.write_all(&bytes),
        Answer::Status(status, headers, body) => {
            let length = body.len();
            stream
                .write_all(format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\n\r\n{body}").as_bytes())
        }
        Answer::Reset => Ok(()),
        Answer::Stall => {
            let mut book = shared.0.lock().expect("no panic");
            while !book.opened {
                book = shared.1.wait(book).expect("no panic");
            }
            book.stalled -= 1;
            drop(book);
            stream.write_all(ok)
        }
        Answer::SlowBody => {
            let head = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
            let mut book = shared.0.lock().expect("no panic");
            while head.is_ok() && !book.closed && stream.write_all(b" ").is_ok() {
                book = shared.1.wait_timeout(book, Duration::from_millis(100)).expect("no panic").0;
            }
            Ok(())
        }
        Answer::HugeBody => {
            let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n");
            while sent.is_ok() {
                sent = stream.write_all(&[b'x'; 64 * 1024]);
            }
            Ok(())
        }
    };
}
