//! One connection as the reactor sees it.
//! Owns: the phase it is in, the bytes that wait to be understood, its deadline.
//! May touch: memory only.
//! Never: does I/O; `exchange.rs` moves it on.

use std::sync::Arc;
use std::time::Instant;

use super::Lane;
use super::body::Decoder;
use super::counters::Reservation;
use super::head::{Head, Scanner};
use super::link::{Link, Outgoing};
use super::socket::Peer;

/// What a connection is doing. Only in `InFlight` does it belong to somebody else.
pub(super) enum Phase<A> {
    /// Between requests, nothing received.
    Idle,
    /// Part of a head received.
    Head,
    /// A body on its way.
    Body(Box<Receiving<A>>),
    /// The request is being answered, or was: `link.is_lent()` tells.
    InFlight,
    /// The rest of an answer on its way.
    Flushing(Flushing),
    /// Answered for the last time; what still arrives is discarded.
    Lingering { bytes_left: usize },
    /// To be dropped.
    Closed,
}

/// A request whose body is being received.
pub(super) struct Receiving<A> {
    pub admitted: A,
    pub head: Head,
    pub lane: Lane,
    pub bytes_max: usize,
    pub decoder: Decoder,
    pub body: Vec<u8>,
    pub reservation: Reservation,
    pub ends_by: Instant,
    /// Length of `body` when the current progress window began.
    pub window_bytes: usize,
}

/// An answer that its client has not taken completely.
pub(super) struct Flushing {
    pub outgoing: Outgoing,
    pub close: bool,
    /// Bytes that remained when the current progress window began.
    pub window_remaining: usize,
    pub _reservation: Reservation,
}

/// The reactor's half of a connection.
pub(super) struct Connection<A> {
    pub link: Arc<Link>,
    pub peer: Peer,
    pub phase: Phase<A>,
    pub scanner: Scanner,
    /// Received and not understood yet: part of a head, or pipelined requests.
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are done with.
    start: usize,
    /// The kernel may hold more bytes. Registration is edge-triggered: this remembers the edge.
    pub readable: bool,
    /// The peer has closed its side: reading goes on to the end, a short read proves nothing.
    pub hangup: bool,
    /// Writability is being reported too.
    pub watches_writable: bool,
    pub deadline: Option<Instant>,
    /// No request has come yet. Its client was let in and told nothing, so a drain gives it a moment.
    pub fresh: bool,
}

impl<A> Connection<A> {
    pub(super) fn new(link: Arc<Link>, peer: Peer, deadline: Instant) -> Self {
        Self {
            link,
            peer,
            phase: Phase::Idle,
            scanner: Scanner::default(),
            buffer: Vec::new(),
            start: 0,
            readable: false,
            hangup: false,
            watches_writable: false,
            deadline: Some(deadline),
            fresh: true,
        }
    }

    /// The bytes that wait.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Whether there is or may be something to understand.
    pub(super) fn has_input(&self) -> bool {
        self.readable || !self.waiting().is_empty()
    }

    /// `count` of the waiting bytes are done with.
    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
    }

    /// Appends received bytes. An empty buffer takes the memory of `spare`, so that requests which arrive
    /// whole, nearly all of them, allocate none.
    pub(super) fn append(&mut self, bytes: &[u8], spare: &mut Vec<u8>) {
        if self.buffer.capacity() == 0 {
            self.buffer = std::mem::take(spare);
        }
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Gives the memory of an empty buffer back: a connection that waits holds none.
    pub(super) fn return_memory(&mut self, spare: &mut Vec<u8>) {
        if self.waiting().is_empty() && self.buffer.capacity() > 0 {
            self.start = 0;
            let mut buffer = std::mem::take(&mut self.buffer);
            if spare.capacity() == 0 {
                buffer.clear();
                *spare = buffer;
            }
        }
    }
}
