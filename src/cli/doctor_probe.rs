//! What `doctor` asks a daemon, and what came back.
//! Owns: the requests, their deadlines, and the threads that wait for them side by side.
//! May touch: the network, through `net`.
//! Never: judges an answer; a failed request is evidence too.

use std::time::Instant;

use crossbeam_channel::{Receiver, bounded};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::Value;

use super::client::{Client, refusal};
use super::exit::CliError;
use crate::doctor::cors::{FOREIGN_ORIGIN, Preflight};
use crate::doctor::readiness::Answer;
use crate::doctor::streams::{Outcome, PATHS, Seen, Watched};
use crate::hex::to_hex;
use crate::limits::{
    CLI_ERROR_QUOTE_CHARS_MAX, CLI_REQUEST_TIMEOUT_MS, CLIENT_CONNECT_MS, DOCTOR_FRAME_MS, DOCTOR_PROBE_MS,
};
use crate::net::{ApiReply, ApiStream, Events, Method, NetError, Phase, StreamError, Timeouts};
use crate::worker::Worker;

/// Everything that was seen of a daemon.
pub struct Seeing {
    /// The status document.
    pub status: Result<Value, CliError>,
    /// The answer it came in, for its headers.
    pub status_answer: Option<Answer>,
    /// `/readyz`.
    pub readyz: Answer,
    /// `/healthz`.
    pub healthz: Answer,
    /// One for each kind of event stream.
    pub streams: Vec<Watched>,
    /// A foreign origin, and the one that was asked about.
    pub preflights: Vec<Preflight>,
}

const PROBE: Timeouts = Timeouts {
    connect_ms: DOCTOR_PROBE_MS,
    first_byte_ms: DOCTOR_PROBE_MS,
    idle_ms: DOCTOR_PROBE_MS,
    total_ms: Some(2 * DOCTOR_PROBE_MS),
};

/// The head, the first frame and the one that was asked for may each take their time.
const STREAM: Timeouts = Timeouts {
    connect_ms: DOCTOR_PROBE_MS,
    first_byte_ms: DOCTOR_PROBE_MS,
    idle_ms: DOCTOR_FRAME_MS,
    total_ms: Some(2 * DOCTOR_PROBE_MS + 3 * DOCTOR_FRAME_MS),
};

/// Asks everything, side by side.
///
/// # Errors
/// This host gives no thread or no random bytes.
pub fn look(client: &Client, cors_origin: Option<&str>) -> Result<Seeing, CliError> {
    let mut waiting = Vec::new();
    for path in PATHS {
        let (twin, nonce) = (client.twin(), nonce()?);
        waiting.push(side_by_side("cli-doctor-sse", move || watch(&twin, path, nonce))?);
    }
    let twin = client.anonymous();
    let origins: Vec<String> = [FOREIGN_ORIGIN].into_iter().chain(cors_origin).map(str::to_string).collect();
    let preflights = side_by_side("cli-doctor-cors", move || {
        origins.into_iter().map(|origin| preflight(&twin, origin)).collect::<Vec<_>>()
    })?;
    let twin = client.twin();
    let probes = side_by_side("cli-doctor-ready", move || ["/readyz", "/healthz"].map(|path| ask(&twin, path)))?;
    let (status, status_answer) = status(client);
    let [readyz, healthz] = probes.wait("the probes")?;
    Ok(Seeing {
        status,
        status_answer,
        readyz,
        healthz,
        streams: waiting.into_iter().map(|one| one.wait("a stream")).collect::<Result<_, _>>()?,
        preflights: preflights.wait("the preflights")?,
    })
}

/// The status document and the answer it came in.
pub fn status(client: &Client) -> (Result<Value, CliError>, Option<Answer>) {
    let timeouts = Timeouts {
        connect_ms: CLIENT_CONNECT_MS,
        first_byte_ms: CLI_REQUEST_TIMEOUT_MS,
        idle_ms: CLI_REQUEST_TIMEOUT_MS,
        total_ms: Some(CLI_REQUEST_TIMEOUT_MS),
    };
    let reply = match client.api(timeouts).get("/v1/status") {
        Ok(reply) => reply,
        Err(error) => return (Err(client.name(error)), None),
    };
    let answer = answer_of(&reply);
    if reply.status != 200 {
        return (Err(refusal("GET /v1/status".to_string(), reply)), Some(answer));
    }
    let document = serde_json::from_slice::<Value>(&reply.body);
    let document = document
        .map_err(|error| error.to_string())
        .and_then(|document| if document.is_object() { Ok(document) } else { Err("it is no object".to_string()) });
    let schema = |cause| CliError::Schema { what: "the answer to GET /v1/status".to_string(), cause };
    (document.map_err(schema), Some(answer))
}

fn nonce() -> Result<String, CliError> {
    let mut bytes = [0; 16];
    let random = SystemRandom::new().fill(&mut bytes);
    random.map_err(|_| CliError::invalid("the host", "it gives no random bytes", "check /dev/urandom"))?;
    Ok(to_hex(&bytes))
}

/// Work on a thread of its own.
struct Waiting<T> {
    worker: Worker,
    answer: Receiver<T>,
}

fn side_by_side<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Waiting<T>, CliError> {
    let (sender, answer) = bounded(1);
    let worker = Worker::spawn(name, move || {
        // The waiting end lives until it has joined this thread.
        let _received = sender.send(work());
    });
    let worker =
        worker.map_err(|error| CliError::invalid("a thread", error.to_string(), "raise the limit (ulimit -u)"))?;
    Ok(Waiting { worker, answer })
}

impl<T> Waiting<T> {
    /// Every request inside has a deadline, so this ends.
    fn wait(self, what: &str) -> Result<T, CliError> {
        let answer = self.answer.recv();
        self.worker.join().map_err(|error| CliError::component(what, error))?;
        answer.map_err(|_| CliError::invalid(what, "its thread ended without an answer", "try again and report it"))
    }
}

fn ask(client: &Client, path: &str) -> Answer {
    answer(client, client.api(PROBE).get(path))
}

fn preflight(client: &Client, origin: String) -> Preflight {
    let headers = [
        ("origin", origin.as_str()),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    let reply = client.api(PROBE).call(Method::Options, "/v1/status", &headers, None);
    let answer = answer(client, reply);
    Preflight { origin, answer }
}

fn answer(client: &Client, reply: Result<ApiReply, NetError>) -> Answer {
    match reply {
        Ok(reply) => answer_of(&reply),
        Err(error) => Answer::None { cause: client.name(error).without_next() },
    }
}

fn answer_of(reply: &ApiReply) -> Answer {
    Answer::Reply { status: reply.status, headers: reply.headers.clone(), detail: detail(reply) }
}

/// What an answer says of itself: the code of a problem, else the beginning of the body.
fn detail(reply: &ApiReply) -> String {
    let problem = serde_json::from_slice::<Value>(&reply.body).ok();
    let field = |name: &str| problem.as_ref().and_then(|problem| problem[name].as_str()).map(str::to_string);
    match (field("code"), field("detail")) {
        (Some(code), Some(detail)) => format!("{code}: {detail}"),
        (Some(code), None) => code,
        _ => String::from_utf8_lossy(&reply.body).trim().chars().take(CLI_ERROR_QUOTE_CHARS_MAX).collect(),
    }
}

/// Opens a probe stream, reads its first frame, asks for one, reads that.
fn watch(client: &Client, path: &'static str, nonce: String) -> Watched {
    let started = Instant::now();
    let outcome = match client.api(STREAM).stream(&format!("{path}?probe={nonce}"), None) {
        Err(NetError::Timeout { phase: Phase::FirstByte, .. }) => Outcome::NoHead,
        Err(error) => Outcome::Unreachable { cause: client.name(error).without_next() },
        Ok(ApiStream::Reply(reply)) if reply.status == 200 => Outcome::NotAStream { content_type: reply.content_type },
        Ok(ApiStream::Reply(reply)) => Outcome::Refused { status: reply.status, detail: detail(&reply) },
        Ok(ApiStream::Events(events)) => read(client, *events, &nonce, started),
    };
    Watched { path, nonce, outcome }
}

fn read(client: &Client, mut events: Events, nonce: &str, started: Instant) -> Outcome {
    let (first, broken) = next_frame(client, &mut events, started);
    if first.is_none() {
        return Outcome::Opened { first, asked: None, ask_failed: None, broken };
    }
    let asked_at = Instant::now();
    let ask_failed = match client.api(PROBE).get(&format!("/v1/events/probe?nonce={nonce}")) {
        Ok(reply) if reply.status == 200 => None,
        Ok(reply) => Some(format!("HTTP {} {}", reply.status, detail(&reply))),
        Err(error) => Some(client.name(error).without_next()),
    };
    if ask_failed.is_some() {
        return Outcome::Opened { first, asked: None, ask_failed, broken: None };
    }
    loop {
        let (seen, broken) = next_frame(client, &mut events, asked_at);
        // A heartbeat may come between the two.
        if seen.as_ref().is_some_and(|seen| seen.event.as_deref() == Some("heartbeat")) {
            continue;
        }
        return Outcome::Opened { first, asked: seen, ask_failed: None, broken };
    }
}

/// The next frame, or how the stream ended; neither when nothing came in time.
fn next_frame(client: &Client, events: &mut Events, since: Instant) -> (Option<Seen>, Option<String>) {
    match events.next_frame() {
        Ok(Some(frame)) => {
            let delay_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            (Some(Seen { id: frame.id, event: frame.event, data: frame.data, delay_ms }), None)
        }
        Ok(None) => (None, Some("the stream ended before its frames had come".to_string())),
        Err(StreamError::Net(NetError::Timeout { .. })) => (None, None),
        Err(StreamError::Net(error)) => (None, Some(client.name(error).without_next())),
        Err(StreamError::Sse(error)) => {
            let text = error.to_string();
            (None, Some(text.split("; next:").next().unwrap_or_default().to_string()))
        }
    }
}
