//! Threads of the scripted provider: one accepts, a fixed number answer.
//! Owns: the listener, the connections in progress, and stopping them.
//! Never: accepts more than its backlog; a connection too many is closed unanswered.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::limits::{
    SCRIPTED_ACCEPT_PAUSE_MS, SCRIPTED_BACKLOG_MAX, SCRIPTED_IDLE_MS, SCRIPTED_WORKERS, SCRIPTED_WRITE_MS,
};
use crate::net::Cancel;
use crate::sys::{Epoll, EventFd, Interest};
use crate::worker::Worker;

use super::ScriptedError;
use super::connection;
use super::requests::{Requests, Seen};
use super::script::{Chosen, Script};

/// What the threads share.
pub(super) struct Shared {
    script: Mutex<Script>,
    requests: Mutex<Requests>,
    /// Connections being answered, for stopping them.
    connections: Mutex<HashMap<u64, Arc<TcpStream>>>,
    waiting: AtomicUsize,
    pub stop: Cancel,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every guarded value is valid between statements, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn choose(&self, input: &str, result: Option<&str>) -> Chosen {
        lock(&self.script).choose(input, result)
    }

    /// Records a request and gives its number.
    pub(super) fn saw(&self, seen: Seen) -> u64 {
        lock(&self.requests).add(seen)
    }

    pub(super) fn requests_json(&self) -> Vec<u8> {
        lock(&self.requests).to_json()
    }

    /// Whether connections wait for a thread.
    pub(super) fn others_wait(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

/// A running scripted provider. Dropping it stops it.
pub struct ScriptedServer {
    local_addr: SocketAddr,
    shared: Arc<Shared>,
    wake: Arc<EventFd>,
    workers: Vec<Worker>,
}

impl ScriptedServer {
    /// Listens on `bind` (port 0 for any) and answers from `script`.
    ///
    /// # Errors
    /// The address is not loopback or not free, or threads are refused.
    pub fn start(bind: SocketAddr, script: Script) -> Result<Self, ScriptedError> {
        if !bind.ip().is_loopback() {
            return Err(ScriptedError::NotLoopback(bind));
        }
        let listener = TcpListener::bind(bind).map_err(|error| ScriptedError::Bind { address: bind, error })?;
        let local_addr = listener.local_addr().map_err(ScriptedError::Start)?;
        let shared = Arc::new(Shared {
            script: Mutex::new(script),
            requests: Mutex::new(Requests::default()),
            connections: Mutex::new(HashMap::new()),
            waiting: AtomicUsize::new(0),
            stop: Cancel::new(),
        });
        let wake = Arc::new(EventFd::new().map_err(ScriptedError::Start)?);
        let mut server = Self { local_addr, shared, wake, workers: Vec::new() };
        server.spawn(listener).map_err(ScriptedError::Start)?;
        Ok(server)
    }

    fn spawn(&mut self, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let epoll = Epoll::new()?;
        let readable = Interest { readable: true, writable: false, edge: false };
        epoll.add(&listener, 0, readable)?;
        epoll.add(&*self.wake, 1, readable)?;
        let (handover, inbox) = bounded(SCRIPTED_BACKLOG_MAX);
        let keys = Arc::new(AtomicU64::new(0));
        for number in 0..SCRIPTED_WORKERS {
            let (shared, inbox, keys) = (self.shared.clone(), inbox.clone(), keys.clone());
            let worker = Worker::spawn(format!("scripted-{number}"), move || answer(&inbox, &shared, &keys))?;
            self.workers.push(worker);
        }
        let (shared, wake) = (self.shared.clone(), self.wake.clone());
        let accept = move || {
            if let Err(error) = accept(&listener, &epoll, &handover, &shared) {
                log::error!("the scripted provider stopped accepting: {error}; next: restart it");
            }
            drop(wake);
        };
        self.workers.push(Worker::spawn("scripted-accept", accept)?);
        Ok(())
    }

    /// The address in use.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The list behind `GET /_scripted/requests`, as JSON.
    pub fn requests_json(&self) -> Vec<u8> {
        self.shared.requests_json()
    }

    /// Ends every connection and waits for the threads.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        self.wake.wake();
        for stream in lock(&self.shared.connections).values() {
            // An error means that the peer has closed it already.
            let _closed_already = stream.shutdown(Shutdown::Both);
        }
        for worker in self.workers.drain(..) {
            if let Err(panic) = worker.join() {
                log::error!("{panic}");
            }
        }
    }
}

fn accept(listener: &TcpListener, epoll: &Epoll, handover: &Sender<TcpStream>, shared: &Shared) -> io::Result<()> {
    let mut ready = Vec::new();
    while !shared.stop.is_cancelled() {
        epoll.wait(&mut ready, -1)?;
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    // Counted before the hand-over, so that a thread that takes it never counts below zero.
                    shared.waiting.fetch_add(1, Ordering::Relaxed);
                    if handover.try_send(stream).is_err() {
                        shared.waiting.fetch_sub(1, Ordering::Relaxed);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {
                }
                Err(error) => {
                    log::warn!("the scripted provider cannot accept: {error}; next: raise the limit of open files");
                    shared.stop.wait(Duration::from_millis(SCRIPTED_ACCEPT_PAUSE_MS));
                    break;
                }
            }
        }
    }
    Ok(())
}

fn answer(inbox: &Receiver<TcpStream>, shared: &Shared, keys: &AtomicU64) {
    for stream in inbox {
        shared.waiting.fetch_sub(1, Ordering::Relaxed);
        if prepare(&stream).is_err() {
            continue;
        }
        let stream = Arc::new(stream);
        let key = keys.fetch_add(1, Ordering::Relaxed);
        lock(&shared.connections).insert(key, stream.clone());
        // Registered first, looked at second: a stop in between shuts the connection down.
        if !shared.stop.is_cancelled() {
            connection::serve(&stream, shared);
        }
        lock(&shared.connections).remove(&key);
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_millis(SCRIPTED_IDLE_MS)))?;
    stream.set_write_timeout(Some(Duration::from_millis(SCRIPTED_WRITE_MS)))
}
