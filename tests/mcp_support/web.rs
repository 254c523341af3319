//! A server over HTTP for tests: a socket and a function from a request to a reply.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use serde_json::{Value, json};

/// One request as the server reads it.
pub struct Asked {
    pub verb: String,
    /// As it was asked for, with its query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    /// The body, where it is JSON.
    pub message: Value,
    /// The body.
    pub body: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn method(&self) -> &str {
        self.message["method"].as_str().unwrap_or(&self.verb)
    }

    pub fn result(&self, result: Value) -> String {
        json!({"jsonrpc": "2.0", "id": self.message["id"], "result": result}).to_string()
    }
}

/// What the server answers: status, header lines, body.
pub type Reply = (u16, Vec<(&'static str, String)>, String);

pub fn plain(body: String) -> Reply {
    (200, vec![("content-type", "application/json; charset=utf-8".to_string())], body)
}

pub fn events(body: String) -> Reply {
    (200, vec![("content-type", "text/event-stream".to_string())], body)
}

pub fn empty(status: u16) -> Reply {
    (status, Vec::new(), String::new())
}

/// Answers every connection with one reply and closes it.
pub fn serve(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/mcp", listener.local_addr().expect("an address"));
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || drop(one(stream, &*answer)));
        }
    });
    url
}

fn one(mut stream: TcpStream, answer: &dyn Fn(&Asked) -> Reply) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_string);
    let (verb, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_string()));
    }
    let mut asked = Asked { verb, target, headers, message: Value::Null, body: String::new() };
    let length = asked.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    asked.message = serde_json::from_slice(&body).unwrap_or_default();
    asked.body = String::from_utf8_lossy(&body).into_owned();
    let (status, headers, body) = answer(&asked);
    let mut head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes())
}
