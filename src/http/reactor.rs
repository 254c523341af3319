//! The reactor thread.
//! Owns: the listening socket, every connection that is not upgraded, their deadlines.
//! May touch: the epoll instance, the mailbox.
//! Never: blocks elsewhere than in its one wait, and never ends because of one connection.

use std::io;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::Service;
use super::bind::Listener;
use super::codes;
use super::conn::{Connection, Phase};
use super::counters::Refused;
use super::exchange::{Exchange, READING, Turn};
use super::link::{Link, Message, Shared};
use super::problem::Problem;
use super::responder::render;
use super::response::Response;
use super::socket::{Peer, Socket};
use crate::limits::{HTTP_ACCEPT_PAUSE_MS, HTTP_ACCEPTS_PER_TURN_MAX};
use crate::sys::{Interest, Ready};
use crate::worker::{idle, panic_message};

const LISTENER: u64 = u64::MAX;
const MAILBOX: u64 = u64::MAX - 1;
const LEVEL: Interest = Interest { readable: true, writable: false, edge: false };

/// A place for a connection. The generation makes tokens of earlier tenants invalid.
struct Slot<A> {
    generation: u32,
    connection: Option<Box<Connection<A>>>,
}

pub(super) struct Reactor<S: Service> {
    exchange: Exchange<S>,
    shared: Arc<Shared>,
    listener: Option<Listener>,
    /// Accepting is paused until then.
    resume_at: Option<Instant>,
    slots: Vec<Slot<S::Admitted>>,
    free: Vec<u32>,
    again: Vec<u64>,
    sweep_every: Duration,
    next_sweep: Instant,
    first_head: Duration,
    stopping: bool,
}

impl<S: Service> Reactor<S> {
    /// Registers the listener and the mailbox.
    pub(super) fn new(
        exchange: Exchange<S>,
        shared: Arc<Shared>,
        listener: Listener,
        sweep_every: Duration,
        first_head: Duration,
    ) -> io::Result<Self> {
        shared.epoll.add(&listener, LISTENER, LEVEL)?;
        shared.epoll.add(&shared.mailbox.wake, MAILBOX, LEVEL)?;
        Ok(Self {
            exchange,
            shared,
            listener: Some(listener),
            resume_at: None,
            slots: Vec::new(),
            free: Vec::new(),
            again: Vec::new(),
            sweep_every,
            next_sweep: Instant::now() + sweep_every,
            first_head,
            stopping: false,
        })
    }

    pub(super) fn run(mut self) {
        let (mut ready, mut messages) = (Vec::new(), Vec::new());
        while !self.stopping {
            let may_sleep = self.shared.mailbox.may_sleep() && self.again.is_empty();
            let timeout =
                if may_sleep { self.next_sweep.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
            // Rounded up: waking a moment early would make a busy round.
            let timeout_ms = timeout.as_micros().div_ceil(1_000) as i32;
            if let Err(error) = idle(|| self.shared.epoll.wait(&mut ready, timeout_ms)) {
                // Only a programming error makes the wait fail; the process must not go on deaf.
                panic!("epoll_wait failed: {error}");
            }
            self.shared.mailbox.awake();
            self.exchange.now = Instant::now();
            self.shared.counters.progress(self.exchange.now);
            for report in &ready {
                self.report(report);
            }
            self.shared.mailbox.take(&mut messages);
            for message in messages.drain(..) {
                self.receive(message);
            }
            for token in std::mem::take(&mut self.again) {
                self.step(token, |exchange, connection| exchange.drive(connection));
            }
            if self.exchange.now >= self.next_sweep {
                self.sweep();
            }
            if self.listener.is_none() && self.free.len() == self.slots.len() {
                self.shared.set_drained();
            }
        }
    }

    fn report(&mut self, report: &Ready) {
        match report.token {
            LISTENER => self.accept(),
            MAILBOX => self.shared.mailbox.wake.drain(),
            token => {
                let (readable, hangup) = (report.readable || report.hangup, report.hangup);
                self.step(token, |exchange, connection| {
                    connection.readable |= readable;
                    connection.hangup |= hangup;
                    exchange.drive(connection)
                });
            }
        }
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Ready(token) => self.step(token, |exchange, connection| exchange.drive(connection)),
            Message::Rest { token, rest, close } => self.step(token, |exchange, connection| {
                exchange.take_over(connection, rest, close);
                exchange.drive(connection)
            }),
            Message::Broken(token) | Message::Upgraded(token) => self.step(token, |_, _| Turn::Close),
            Message::Drain => self.drain(),
            Message::Stop => self.stopping = true,
        }
    }

    /// Lets one connection move on. A panic of the edge's own code costs this connection only.
    fn step(&mut self, token: u64, action: impl FnOnce(&mut Exchange<S>, &mut Connection<S::Admitted>) -> Turn) {
        let (index, generation) = (token as u32 as usize, (token >> 32) as u32);
        let Some(slot) = self.slots.get_mut(index).filter(|slot| slot.generation == generation) else {
            return;
        };
        let Some(mut connection) = slot.connection.take() else {
            return;
        };
        let draining = self.shared.is_draining();
        let exchange = &mut self.exchange;
        let outcome = catch_unwind(AssertUnwindSafe(|| match action(exchange, &mut connection) {
            Turn::Wait if draining && exchange.is_spent(&mut connection) => Turn::Close,
            turn => turn,
        }));
        let turn = outcome.unwrap_or_else(|payload| {
            self.shared.counters.edge_panics.fetch_add(1, Relaxed);
            let message = panic_message(payload.as_ref());
            log::error!("the http edge panicked on a connection and dropped it: {message}; next: report this line");
            Turn::Close
        });
        match turn {
            Turn::Close => {
                slot.generation = slot.generation.wrapping_add(1);
                self.free.push(index as u32);
                // Dropping the last clone of the socket closes it, which also ends its registration.
                drop(connection);
            }
            Turn::Wait => slot.connection = Some(connection),
            Turn::Again => {
                slot.connection = Some(connection);
                self.again.push(token);
            }
        }
    }

    fn accept(&mut self) {
        for _ in 0..HTTP_ACCEPTS_PER_TURN_MAX {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok(Some((socket, peer))) => self.welcome(socket, peer),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Concerns one connection that is no more: accept(2) reports its pending network error.
                Err(error) if is_of_one_connection(error.kind()) => {}
                // No descriptors or no buffers: clients wait in the kernel's queue until some return.
                Err(error) => return self.pause_accepting(&error),
            }
        }
    }

    fn pause_accepting(&mut self, error: &io::Error) {
        self.shared.counters.refuse(Refused::Descriptors);
        if self.resume_at.is_none() {
            log::warn!("accepting connections pauses: {error}; next: raise the open files limit (LimitNOFILE)");
        }
        let Some(listener) = &self.listener else { return };
        // A listener that stays registered keeps reporting; then the pause is a slower loop, no failure.
        let _reports_go_on = self.shared.epoll.remove(listener);
        self.resume_at = Some(self.exchange.now + Duration::from_millis(HTTP_ACCEPT_PAUSE_MS));
        self.next_sweep = self.next_sweep.min(self.exchange.now + Duration::from_millis(HTTP_ACCEPT_PAUSE_MS));
    }

    fn resume_accepting(&mut self) {
        if self.resume_at.is_none_or(|resume_at| self.exchange.now < resume_at) {
            return;
        }
        let Some(listener) = &self.listener else { return };
        match self.shared.epoll.add(listener, LISTENER, LEVEL) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => self.pause_accepting(&error),
            _ => {
                self.resume_at = None;
                self.accept();
            }
        }
    }

    fn welcome(&mut self, socket: Socket, peer: Peer) {
        let permit = match self.shared.permits.admit(&peer) {
            Ok(permit) => permit,
            Err(reason) => return self.turn_away(&socket, reason),
        };
        self.shared.counters.accepted.fetch_add(1, Relaxed);
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(Slot { generation: 0, connection: None });
                (self.slots.len() - 1) as u32
            }
        };
        let slot = &mut self.slots[index as usize];
        let token = u64::from(slot.generation) << 32 | u64::from(index);
        let link = Link::new(socket, token, self.shared.clone(), permit);
        if self.shared.epoll.add(&link.socket, token, READING).is_err() {
            self.free.push(index);
            return;
        }
        slot.connection = Some(Box::new(Connection::new(link, peer, self.exchange.now + self.first_head)));
    }

    /// Tells a client that there is no room. One attempt: a client that does not read it finds a closed
    /// connection.
    fn turn_away(&self, mut socket: &Socket, reason: Refused) {
        self.shared.counters.refuse(reason);
        let problem = match reason {
            Refused::ConnectionsOfPeer => {
                Problem::new(&codes::PEER_CONNECTION_LIMIT, "this client address holds as many connections as it may")
            }
            _ => Problem::new(&codes::CONNECTION_LIMIT, "the listener holds as many connections as it may"),
        };
        let mut response = Response::from(problem.retry_after(1));
        let mut outgoing = render(&mut response, &self.shared.request_ids.next(), false, true);
        if outgoing.push(socket).is_ok() {
            let _gone_already = socket.shutdown(Shutdown::Write);
            // What has arrived is taken out, or closing would reset the connection before the answer is read.
            let _nothing_there = socket.read(&mut [0; 4_096]);
            let _nothing_to_flush = socket.flush();
        }
    }

    /// Looks at every deadline. A few thousand comparisons a few times a second cost less than keeping a
    /// timer per request in order.
    fn sweep(&mut self) {
        self.next_sweep = self.exchange.now + self.sweep_every;
        self.resume_accepting();
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            let Some(connection) = &slot.connection else { continue };
            let expired = match connection.phase {
                Phase::InFlight => !connection.link.is_lent(),
                _ => connection.deadline.is_some_and(|deadline| deadline <= self.exchange.now),
            };
            if expired {
                let token = u64::from(slot.generation) << 32 | index as u64;
                self.step(token, |exchange, connection| exchange.expire(connection));
            }
        }
    }

    /// Stops accepting and looks at every connection once: what has arrived is served, what is idle closed, what has never
    /// asked for anything given a moment.
    /// Connections in flight come back by themselves, since every answer closes from now on.
    fn drain(&mut self) {
        // Clients that are connected already and have sent their request are served too; where the queue outlives us, by
        // who comes after us.
        if !self.listener.as_ref().is_some_and(Listener::is_kept_by_others) {
            self.accept();
        }
        if let Some(listener) = self.listener.take() {
            let _closing_ends_it_too = self.shared.epoll.remove(&listener);
        }
        self.shared.begin_draining();
        let fresh_until = self.exchange.now + self.exchange.deadlines.drain_fresh;
        self.next_sweep = self.next_sweep.min(fresh_until);
        for index in 0..self.slots.len() {
            let token = u64::from(self.slots[index].generation) << 32 | index as u64;
            self.step(token, |exchange, connection| {
                connection.readable = true;
                if connection.fresh {
                    connection.deadline = connection.deadline.map(|deadline| deadline.min(fresh_until));
                }
                exchange.drive(connection)
            });
        }
    }
}

fn is_of_one_connection(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
        PermissionDenied,
    };
    matches!(
        kind,
        ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | PermissionDenied
    )
}
