//! A scripted server, a route of any driver to it, and turns carried to their end as an engine would.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use kheish_daemon::clock::SystemClock;
use kheish_daemon::net::{Auth, Cancel, Net, NetConfig};
use kheish_daemon::providers::{
    Attempt, Driver, Message, ProviderError, Route, Routes, TurnEvent, TurnOptions, TurnOutcome, TurnRequest,
    retry_delay_ms, run_turn,
};
use kheish_daemon::scripted::{Script, ScriptedServer};
use kheish_daemon::secret::Secret;
use serde_json::Value;

/// Only a hang takes as long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A model name of the driver's own family.
pub fn model_of(driver: Driver) -> &'static str {
    match driver {
        Driver::Openai => "gpt-5.4",
        Driver::OpenaiCompatible => "qwen3:8b",
        Driver::Anthropic => "claude-opus-4-8",
        Driver::Google => "gemini-3-pro",
        Driver::Openrouter => "vendor/model",
        Driver::Xai => "grok-5",
    }
}

pub fn server(script: &str) -> ScriptedServer {
    let script = Script::parse(script, Path::new("test.toml")).unwrap_or_else(|error| panic!("{error}"));
    ScriptedServer::start("127.0.0.1:0".parse().expect("address"), script).expect("server")
}

/// Resolves one route through a file, as the daemon does.
pub fn route(driver: Driver, base_url: &str, more: &str) -> Arc<Route> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::SeqCst);
    let path: PathBuf = std::env::temp_dir().join(format!("kheish-drivers-{}-{number}.toml", std::process::id()));
    let (name, model) = (driver.as_str(), model_of(driver));
    let text = format!(
        "[routes.main]\ndriver = \"{name}\"\ndefault_model = \"{model}\"\nmodel_support = \"any\"\n\
         base_url = \"{base_url}\"\n{more}"
    );
    std::fs::write(&path, text).expect("scratch file");
    let routes = Routes::load(&path, None, &|_| None).unwrap_or_else(|error| panic!("{error}"));
    std::fs::remove_file(&path).expect("scratch file is ours");
    routes.default_route().clone()
}

pub fn scripted_route(driver: Driver, server: &ScriptedServer, more: &str) -> Arc<Route> {
    let version = match driver {
        Driver::Anthropic => "",
        Driver::Google => "/v1beta",
        _ => "/v1",
    };
    route(driver, &format!("http://{}{version}", server.local_addr()), more)
}

/// One client for all tests: it reads the host's CA bundle when it is made.
pub fn net() -> Net {
    static NET: LazyLock<Net> = LazyLock::new(|| {
        Net::new(&NetConfig { ca_file: None, resolver_threads: 1, ..NetConfig::default() }).expect("client")
    });
    NET.clone()
}

pub fn asks<'a>(route: &'a Route, messages: &'a [Message]) -> TurnRequest<'a> {
    TurnRequest {
        model: &route.default_model,
        instructions: Some("Be brief."),
        messages,
        tools: &[],
        max_output_tokens: None,
        temperature: None,
        options: TurnOptions::default(),
    }
}

/// One attempt. What was shown is returned beside the result.
pub fn attempt(
    route: &Route,
    request: &TurnRequest<'_>,
    cancel: &Cancel,
) -> (Result<TurnOutcome, ProviderError>, String) {
    let mut shown = String::new();
    let auth = Some(Auth::bearer(Secret::new(b"sk-test".to_vec())));
    let attempt = Attempt { net: &net(), clock: &SystemClock, cancel, auth };
    let turn = run_turn(route, request, attempt, &mut |event| {
        if let TurnEvent::TextDelta(delta) = event {
            shown.push_str(delta);
        }
    });
    (turn.result, shown)
}

/// Attempts until the policy ends them, without its waits. Gives the last result with what its attempt showed, and
/// the number of attempts.
pub fn until_settled(route: &Route, request: &TurnRequest<'_>) -> (Result<TurnOutcome, ProviderError>, String, u32) {
    for number in 1.. {
        let (result, shown) = attempt(route, request, &Cancel::new());
        match &result {
            Err(error) if retry_delay_ms(number, error, 0).is_some() => {}
            _ => return (result, shown, number),
        }
    }
    unreachable!("the policy ends every series")
}

/// What the server was asked.
pub fn requests(server: &ScriptedServer) -> Vec<Value> {
    let list: Value = serde_json::from_slice(&server.requests_json()).expect("JSON");
    list["requests"].as_array().expect("list").clone()
}

/// The one request that the server has seen last.
pub fn last_request(server: &ScriptedServer) -> Value {
    requests(server).pop().expect("a request")
}

/// The bytes of the streamed answer that the driver of `route` would read: asked for by hand, without HTTP around.
pub fn stream_bytes(route: &Route, server: &ScriptedServer, input: &str) -> Vec<u8> {
    use std::io::{Read, Write};
    let messages = [Message::user(input)];
    let request = asks(route, &messages);
    let prepared = kheish_daemon::providers::PreparedTurn::new(route, &request).expect("fits");
    let target = prepared.target().to_string();
    let path = target.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..])).expect("a path");
    let mut stream = std::net::TcpStream::connect(server.local_addr()).expect("connected");
    write!(stream, "POST {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", prepared.body().len())
        .expect("written");
    stream.write_all(prepared.body()).expect("written");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("read");
    let head_end = answer.windows(4).position(|it| it == b"\r\n\r\n").expect("head") + 4;
    without_chunks(&answer[head_end..])
}

fn without_chunks(mut body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let line_end = body.windows(2).position(|it| it == b"\r\n").expect("a chunk's size");
        let size = std::str::from_utf8(&body[..line_end]).expect("ASCII");
        let size = usize::from_str_radix(size, 16).expect("hex");
        if size == 0 {
            return bytes;
        }
        let start = line_end + 2;
        bytes.extend_from_slice(&body[start..start + size]);
        body = &body[start + size + 2..];
    }
}

/// Reads `bytes` as the answer of `driver`'s vendor, cut into pieces of `piece` bytes, then the end of the body.
pub fn read_stream(
    driver: Driver,
    bytes: &[u8],
    piece: usize,
    clean: bool,
) -> Result<(TurnOutcome, String), ProviderError> {
    let mut reader = kheish_daemon::providers::StreamReader::new(driver, "5eed");
    let mut shown = String::new();
    let mut on_event = |event: TurnEvent<'_>| {
        if let TurnEvent::TextDelta(delta) = event {
            shown.push_str(delta);
        }
    };
    for piece in bytes.chunks(piece) {
        if let Some(outcome) = reader.push(piece, &mut on_event)? {
            return Ok((outcome, shown));
        }
    }
    let outcome = reader.end(clean)?;
    Ok((outcome, shown))
}
