//! One sidecar that runs: its worker process, the socket to it, what it wrote.
//! Owns: starting it, taking in what it says, and how far the stopping of it has come.
//! May touch: child processes of this same binary.
//! Never: waits for it.

use std::io::{self, ErrorKind, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::worker::{Start, WORKER_VERB};
use crate::broker::SlotId;
use crate::limits::{SANDBOX_TOTAL_MEMORY_BYTES_MAX, SIDECAR_OUTPUT_BYTES_KEPT, SIDECAR_SPAWN_MS_MAX};
use crate::sandbox::{SandboxSpec, ended_by_memory, worker_command};
use crate::sys::process::process_descriptor;
use crate::tasks::wire::{self, Ended, Frames, Kind};

/// How far a sidecar has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not yet seen ready.
    Starting,
    /// Seen ready, since then.
    Ready(Instant),
}

/// How far the stopping has come.
#[derive(Debug, Clone, Copy)]
struct Stop {
    since: Instant,
    limit: Duration,
    /// 1: asked politely, 2: the socket is closed, 3: the worker is killed.
    step: u8,
}

/// A sidecar that runs.
pub(super) struct Running {
    pub(super) generation: u64,
    pub(super) revision: u64,
    /// Version of the shared token that it was started with.
    pub(super) token_version: u64,
    /// Slots that it may fetch, in the versions of its lease.
    pub(super) slots: Vec<(SlotId, u64)>,
    pub(super) lease: Option<(String, u64)>,
    pub(super) process: OwnedFd,
    pub(super) channel: UnixStream,
    pub(super) open: bool,
    pub(super) started: Instant,
    pub(super) phase: Phase,
    pub(super) instance_id: Option<String>,
    pub(super) degraded: bool,
    pub(super) detail: Option<String>,
    pub(super) misses: u32,
    pub(super) next_look: Instant,
    pub(super) looking: bool,
    pub(super) pid: Option<u32>,
    pub(super) output: Vec<u8>,
    /// Why it is being stopped, where that is an error.
    pub(super) fault: Option<String>,
    worker: Child,
    frames: Frames,
    end: Option<Ended>,
    refused: Option<String>,
    stop: Option<Stop>,
}

impl Running {
    /// Starts a sidecar in its sandbox.
    pub(super) fn start(spec: &SandboxSpec, start: &Start) -> io::Result<Self> {
        let (mut channel, theirs) = UnixStream::pair()?;
        let mut process = worker_command(spec, WORKER_VERB).map_err(io::Error::other)?;
        process.stdin(OwnedFd::from(theirs));
        let mut worker = process.spawn()?;
        // The command holds its own copy of the other end, which would hide the worker's death.
        drop(process);
        let content = Zeroizing::new(serde_json::to_vec(start)?);
        let ready = channel
            .set_write_timeout(Some(Duration::from_millis(SIDECAR_SPAWN_MS_MAX)))
            .and_then(|()| wire::write(&mut channel, Kind::Start, &content))
            .and_then(|()| channel.set_nonblocking(true))
            .and_then(|()| process_descriptor(worker.id()));
        let process = match ready {
            Ok(process) => process,
            Err(error) => {
                drop(channel);
                // It ends by itself then; this only hastens it.
                drop(worker.kill());
                drop(worker.wait());
                return Err(error);
            }
        };
        let now = Instant::now();
        Ok(Self {
            generation: 0,
            revision: 0,
            token_version: 0,
            slots: Vec::new(),
            lease: None,
            process,
            channel,
            open: true,
            started: now,
            phase: Phase::Starting,
            instance_id: None,
            degraded: false,
            detail: None,
            misses: 0,
            next_look: now,
            looking: false,
            pid: None,
            output: Vec::new(),
            fault: None,
            worker,
            frames: Frames::default(),
            end: None,
            refused: None,
            stop: None,
        })
    }

    /// Takes in what was written; `false` when nothing was there.
    pub(super) fn take_in(&mut self, buffer: &mut [u8]) -> bool {
        match self.frames.read(&mut self.channel, buffer) {
            Ok(true) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Ok(false) | Err(_) => self.open = false,
        }
        loop {
            match self.frames.next() {
                Ok(Some((kind, content))) => self.frame(kind, &content),
                Ok(None) => return self.open,
                Err(error) => {
                    // A worker that is not ours any more: the sidecar may have got hold of it.
                    log::error!("the worker of a sidecar speaks nonsense: {error}; it is ended");
                    drop(self.channel.shutdown(Shutdown::Both));
                    self.open = false;
                    return false;
                }
            }
        }
    }

    fn frame(&mut self, kind: Kind, content: &[u8]) {
        match kind {
            Kind::Output => {
                self.output.extend_from_slice(content);
                let over = self.output.len().saturating_sub(SIDECAR_OUTPUT_BYTES_KEPT);
                self.output.drain(..over);
            }
            Kind::Ended => self.end = serde_json::from_slice(content).ok(),
            Kind::Refused => {
                self.refused = Some(String::from_utf8_lossy(&content[..content.len().min(1_024)]).into_owned());
            }
            Kind::Running => self.pid = std::str::from_utf8(content).ok().and_then(|pid| pid.parse().ok()),
            Kind::Start | Kind::Stop => {}
        }
    }

    /// Whether its end was asked for.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.is_some()
    }

    /// Asks for its end within `limit`; a shorter limit than before holds.
    pub(super) fn ask_to_stop(&mut self, limit: Duration) {
        if let Some(stop) = &mut self.stop {
            stop.limit = stop.limit.min(limit);
            return;
        }
        self.stop = Some(Stop { since: Instant::now(), limit, step: 1 });
        let word = wire::frame(Kind::Stop, limit.as_millis().to_string().as_bytes());
        if self.channel.write_all(&word).is_err() {
            drop(self.channel.shutdown(Shutdown::Both));
        }
    }

    /// Goes further with a stop that has not led to an end in time.
    pub(super) fn insist(&mut self) {
        let Some(stop) = &mut self.stop else { return };
        let limit = stop.limit + Duration::from_millis(SIDECAR_SPAWN_MS_MAX) * u32::from(stop.step - 1);
        if stop.since.elapsed() < limit + Duration::from_millis(500) || stop.step > 2 {
            return;
        }
        stop.step += 1;
        if stop.step == 2 {
            // The outermost process of its sandbox sees that and kills all others.
            drop(self.channel.shutdown(Shutdown::Both));
        } else {
            log::warn!("the worker of a sidecar has not ended in time and is killed");
            drop(self.worker.kill());
        }
    }

    /// Takes the ended worker in; how it ended, where that was not asked for.
    pub(super) fn conclude(&mut self) -> Option<String> {
        let ended = self.worker.wait();
        if let Err(error) = &ended {
            log::error!("the worker of a sidecar cannot be waited for: {error}");
        }
        if let Some(cause) = self.refused.take() {
            return Some(cause);
        }
        if self.stop.is_some() {
            return self.fault.take();
        }
        Some(match &self.end {
            Some(Ended { exit_code: Some(code), .. }) => format!("it ended with exit code {code}"),
            Some(Ended { signal: Some(signal), .. }) => format!("it was ended by signal {signal}"),
            _ if ended.is_ok_and(ended_by_memory) => {
                format!(
                    "its processes held more than {SANDBOX_TOTAL_MEMORY_BYTES_MAX} bytes of memory together and were ended"
                )
            }
            _ => "its worker died".to_string(),
        })
    }
}
