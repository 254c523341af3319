//! One log line for each request.
//! Owns: the thread that writes them, so that a blocked log never holds a request or the core.
//! May touch: the log facade.
//! Never: shows a query string, a body or a token.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};
use log::Level;

use crate::api::auth::Fingerprint;
use crate::http::{Method, Peer, RequestId, request_id};
use crate::limits::{ACCESS_LOG_QUEUE_MAX, AUDIT_STOP_WAIT_MS};
use crate::worker::{Worker, idle};

/// The log target of access lines; a filter may name it.
pub const TARGET: &str = "kheish_daemon::access";

/// What a line says.
#[derive(Debug, Clone)]
pub struct AccessLine {
    /// Method; none where the edge refused before it knew.
    pub method: Option<Method>,
    /// Path, escaped and shortened; `-` where the edge refused before it knew.
    pub path: String,
    /// Status of the answer.
    pub status: u16,
    /// Bytes of its body; 0 for a stream.
    pub body_bytes: usize,
    /// The caller's role, if it was let in.
    pub role: Option<&'static str>,
    /// The caller's token.
    pub fingerprint: Option<Fingerprint>,
    /// The TCP peer, or `unix`.
    pub peer: Peer,
    /// The request.
    pub request_id: RequestId,
    /// From the end of the head to the answer.
    pub duration_us: u64,
    /// A probe: logged at debug level, since monitors ask every second.
    pub probe: bool,
}

impl std::fmt::Display for AccessLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let method = self.method.map_or("-", Method::as_str);
        write!(
            f,
            "{method} {} {} {} B in {} us from {}",
            self.path, self.status, self.body_bytes, self.duration_us, self.peer
        )?;
        self.role.map_or(Ok(()), |role| write!(f, " as {role}"))?;
        self.fingerprint.map_or(Ok(()), |fingerprint| write!(f, " token {fingerprint}"))
    }
}

enum Message {
    Line(Box<AccessLine>),
    Stop,
}

/// The handle; clones share one thread.
#[derive(Clone)]
pub struct AccessLog {
    inner: Arc<Inner>,
}

struct Inner {
    lines: Sender<Message>,
    dropped: AtomicU64,
    /// The thread, and a channel that is disconnected when it has ended.
    running: Mutex<Option<(Worker, Receiver<()>)>>,
}

impl AccessLog {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system refused it.
    pub fn start() -> io::Result<Self> {
        let (lines, inbox) = bounded(ACCESS_LOG_QUEUE_MAX);
        let (alive, ended) = bounded::<()>(1);
        let worker = Worker::spawn("access-log", move || {
            let _alive = alive;
            write_lines(&inbox);
        })?;
        let running = Mutex::new(Some((worker, ended)));
        Ok(Self { inner: Arc::new(Inner { lines, dropped: AtomicU64::new(0), running }) })
    }

    /// Hands a line to the thread, if anybody wants it. Never blocks: when the queue is full the line is lost
    /// and counted.
    pub fn record(&self, line: impl FnOnce() -> AccessLine) {
        // Probes ask for more; whether debug is on is looked at when the line exists.
        if !log::log_enabled!(target: TARGET, Level::Info) {
            return;
        }
        let line = line();
        let wanted = log::log_enabled!(target: TARGET, level(&line));
        if wanted && self.inner.lines.try_send(Message::Line(Box::new(line))).is_err() {
            self.inner.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Lines lost because the log was too slow.
    pub fn dropped_count(&self) -> u64 {
        self.inner.dropped.load(Relaxed)
    }

    /// Writes what waits and ends the thread. Whether it ended in time.
    pub fn stop(&self) -> bool {
        let running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((worker, ended)) = running else { return true };
        let patience = Duration::from_millis(AUDIT_STOP_WAIT_MS);
        let told = self.inner.lines.send_timeout(Message::Stop, patience);
        let stuck = matches!(told, Err(SendTimeoutError::Timeout(_)))
            || matches!(ended.recv_timeout(patience), Err(RecvTimeoutError::Timeout));
        !stuck && worker.join().is_ok()
    }
}

fn level(line: &AccessLine) -> Level {
    if line.probe { Level::Debug } else { Level::Info }
}

fn write_lines(inbox: &Receiver<Message>) {
    while let Ok(message) = idle(|| inbox.recv()) {
        let Message::Line(line) = message else { break };
        // The logger puts the current request's id on the line.
        let _scope = request_id::enter(line.request_id);
        log::log!(target: TARGET, level(&line), "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_request_its_caller_and_its_answer() {
        let line = AccessLine {
            method: Some(Method::Post),
            path: "/v1/runs/run-1/cancel".to_string(),
            status: 200,
            body_bytes: 17,
            role: Some("admin"),
            fingerprint: Some(crate::api::auth::TokenDigest::of_presented("x").fingerprint()),
            peer: Peer::Tcp("127.0.0.1:9".parse().unwrap()),
            request_id: RequestId::parse("r-1").unwrap(),
            duration_us: 812,
            probe: false,
        };
        assert_eq!(
            line.to_string(),
            "POST /v1/runs/run-1/cancel 200 17 B in 812 us from 127.0.0.1:9 as admin token 2d711642"
        );
        let anonymous = AccessLine { role: None, fingerprint: None, peer: Peer::Unix, ..line };
        assert_eq!(anonymous.to_string(), "POST /v1/runs/run-1/cancel 200 17 B in 812 us from unix");
    }

    #[test]
    fn the_thread_ends_when_told() {
        let log = AccessLog::start().unwrap();
        assert!(log.stop());
        assert!(log.stop(), "stopping twice is harmless");
        assert_eq!(log.dropped_count(), 0);
    }
}
