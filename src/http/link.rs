//! What a connection shares between the reactor and whoever answers its request.
//! Owns: the hand-over protocol of a connection, and the reactor's mailbox.
//! May touch: the connection's socket, to write; the reactor's eventfd.
//! Never: blocks. Both locks here guard a few moves of memory.
//!
//! The protocol. At any instant one side owns a connection: the reactor, or the one `Responder` of its
//! request in flight. `state` says which, with two bits:
//!
//! - `IN_FLIGHT`: a `Responder` owns it. Set by the reactor before the request is handed out. While it is
//!   set the reactor neither reads, writes nor closes.
//! - `ATTENTION`: the reactor has work for the connection that it may not do yet: buffered bytes, unread
//!   bytes in the kernel, a drain.
//!
//! The reactor asks for the connection with `claim`: it sets `ATTENTION` and looks at the old value. Was
//! `IN_FLIGHT` clear, the connection is the reactor's now; was it set, the owner will see `ATTENTION`. The
//! owner gives the connection back with `release`: it clears `IN_FLIGHT` and looks at the old value. Was
//! `ATTENTION` set, it posts `Ready`; otherwise nothing is left to do and nobody is woken: the next edge
//! of the socket finds the connection free. Both are single read-modify-writes of one word, so one of them
//! comes second and sees the other: work is never forgotten, and an ordinary answer costs one send(2).
//!
//! An owner that cannot finish alone (bytes left over, connection to be closed) leaves `IN_FLIGHT` set and
//! posts what is left; the connection is the reactor's from the moment it takes that message.

use std::io::{self, IoSlice, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::counters::{Budget, Counters, Permit, Permits};
use super::request_id::Generator;
use super::socket::Socket;
use crate::limits::HTTP_COPIED_BODY_BYTES_MAX;
use crate::sys::{Epoll, EventFd};

const IN_FLIGHT: u8 = 1;
const ATTENTION: u8 = 2;

/// What every part of the edge may reach.
#[derive(Debug)]
pub(super) struct Shared {
    pub epoll: Epoll,
    pub mailbox: Mailbox,
    pub counters: Counters,
    pub permits: Arc<Permits>,
    pub bodies: Arc<Budget>,
    pub unsent: Arc<Budget>,
    pub request_ids: Generator,
    draining: AtomicBool,
    drained: (Mutex<bool>, Condvar),
}

impl Shared {
    pub(super) fn new(
        permits: Arc<Permits>,
        bodies: Arc<Budget>,
        unsent: Arc<Budget>,
        request_ids: Generator,
    ) -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new()?,
            mailbox: Mailbox::new()?,
            counters: Counters::new(),
            permits,
            bodies,
            unsent,
            request_ids,
            draining: AtomicBool::new(false),
            drained: (Mutex::new(false), Condvar::new()),
        })
    }

    /// From now on every answer closes its connection.
    pub(super) fn begin_draining(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Called by the reactor once it accepts no more and no connection is left.
    pub(super) fn set_drained(&self) {
        *self.drained.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.drained.1.notify_all();
    }

    /// Waits for [`Shared::set_drained`] for at most `limit`; whether it came.
    pub(super) fn wait_drained(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut drained = self.drained.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*drained {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            drained = self.drained.1.wait_timeout(drained, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// What other threads tell the reactor. Tokens of connections that are gone are ignored.
#[derive(Debug)]
pub(super) enum Message {
    /// The request was answered and the connection has work waiting.
    Ready(u64),
    /// The answer's rest is the reactor's to send; `close` afterwards.
    Rest { token: u64, rest: Outgoing, close: bool },
    /// The connection failed while its answer was written.
    Broken(u64),
    /// The connection belongs to somebody else now.
    Upgraded(u64),
    /// Stop accepting, finish what is in flight, close what is idle.
    Drain,
    /// End the thread.
    Stop,
}

/// The reactor's mailbox. Bounded by construction: a connection has one request in flight, which posts at
/// most one message, so there are no more than connections plus posting threads.
#[derive(Debug)]
pub(super) struct Mailbox {
    messages: Mutex<Vec<Message>>,
    /// The reactor is about to wait or waiting; who takes this flag must wake it.
    sleeping: AtomicBool,
    pub wake: EventFd,
}

impl Mailbox {
    fn new() -> io::Result<Self> {
        Ok(Self { messages: Mutex::default(), sleeping: AtomicBool::new(false), wake: EventFd::new()? })
    }

    /// Leaves a message. Only the first one after the reactor went to sleep costs a system call.
    pub(super) fn post(&self, message: Message) {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        if self.sleeping.swap(false, Ordering::SeqCst) {
            self.wake.wake();
        }
    }

    /// The reactor announces that it will wait. False if it must not, since messages are there.
    ///
    /// A sender pushes before it looks at `sleeping`, the reactor sets `sleeping` before it looks at the
    /// messages: whichever comes second sees the other.
    pub(super) fn may_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        if self.messages.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return true;
        }
        self.awake();
        false
    }

    /// The reactor is awake: nobody needs to wake it until it announces the next wait.
    pub(super) fn awake(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }

    /// Moves all messages into `target`, which must be empty.
    pub(super) fn take(&self, target: &mut Vec<Message>) {
        std::mem::swap(target, &mut self.messages.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The shared half of one connection.
#[derive(Debug)]
pub(super) struct Link {
    // First, so that it is given back before the client sees its connection end.
    _permit: Permit,
    pub socket: Socket,
    pub token: u64,
    pub shared: Arc<Shared>,
    state: AtomicU8,
}

impl Link {
    pub(super) fn new(socket: Socket, token: u64, shared: Arc<Shared>, permit: Permit) -> Arc<Self> {
        Arc::new(Self { _permit: permit, socket, token, shared, state: AtomicU8::new(0) })
    }

    /// Reactor: hands the connection to a `Responder`.
    pub(super) fn lend(&self) {
        self.state.store(IN_FLIGHT, Ordering::Release);
    }

    /// Reactor: asks for the connection. True if it is the reactor's; otherwise its owner will post.
    pub(super) fn claim(&self) -> bool {
        if self.state.fetch_or(ATTENTION, Ordering::AcqRel) & IN_FLIGHT != 0 {
            return false;
        }
        self.take_back();
        true
    }

    /// Reactor: whether the connection is lent, without asking for it.
    pub(super) fn is_lent(&self) -> bool {
        self.state.load(Ordering::Acquire) & IN_FLIGHT != 0
    }

    /// Reactor: owns the connection again, after a message that said so.
    pub(super) fn take_back(&self) {
        self.state.store(0, Ordering::Release);
    }

    /// Owner: gives the connection back, idle.
    fn release(&self) {
        if self.state.fetch_and(!IN_FLIGHT, Ordering::AcqRel) & ATTENTION != 0 {
            self.shared.mailbox.post(Message::Ready(self.token));
        }
    }

    /// Owner: sends an answer with one system call and gives the connection back. By value: once the
    /// reactor is told, it alone decides when the connection and its permit end.
    pub(super) fn answer(self: Arc<Self>, mut outgoing: Outgoing, close: bool) {
        let message = match outgoing.push(&self.socket) {
            Ok(true) if !close => return self.release(),
            Ok(_) => Message::Rest { token: self.token, rest: outgoing, close },
            Err(_) => Message::Broken(self.token),
        };
        let shared = self.shared.clone();
        drop(self);
        shared.mailbox.post(message);
    }
}

/// Bytes on their way to a client: a head and, if it was too large to be copied behind it, a body.
#[derive(Debug)]
pub(super) struct Outgoing {
    head: Vec<u8>,
    body: Vec<u8>,
    sent: usize,
}

impl Outgoing {
    pub(super) fn new(mut head: Vec<u8>, mut body: Vec<u8>) -> Self {
        if body.len() <= HTTP_COPIED_BODY_BYTES_MAX {
            head.append(&mut body);
        }
        Self { head, body, sent: 0 }
    }

    /// Bytes not sent yet.
    pub(super) fn remaining(&self) -> usize {
        self.head.len() + self.body.len() - self.sent
    }

    /// Offers the rest to the socket once. True if nothing remains.
    pub(super) fn push(&mut self, mut socket: &Socket) -> io::Result<bool> {
        while self.remaining() > 0 {
            let written = if self.body.is_empty() {
                socket.write(&self.head[self.sent..])
            } else if self.sent >= self.head.len() {
                socket.write(&self.body[self.sent - self.head.len()..])
            } else {
                socket.write_vectored(&[IoSlice::new(&self.head[self.sent..]), IoSlice::new(&self.body)])
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.sent += count;
                    return Ok(self.remaining() == 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
