//! The right, and the duty, to answer one request.
//! Owns: one connection while its request is in flight.
//! May touch: the connection's socket, to write once without blocking.
//! Never: blocks, answers twice, or leaves a request without an answer.

use std::fmt;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::codes;
use super::counters::Reservation;
use super::link::{Link, Message, Outgoing};
use super::problem::Problem;
use super::request_id::RequestId;
use super::response::{Framing, Response};
use super::socket::Socket;

/// Answers one request, once, from any thread. Dropped without an answer (a panic, a forgotten path, a
/// thread that ended), it answers 500 `internal_error` and closes the connection.
pub struct Responder(Option<Pending>);

struct Pending {
    link: Arc<Link>,
    request_id: RequestId,
    head_only: bool,
    close: bool,
    // Holds the body's share of the budget until the answer, since handlers keep the body that long.
    body: Option<Reservation>,
}

impl Responder {
    /// Takes over the connection, which the reactor has lent.
    pub(super) fn new(
        link: Arc<Link>,
        request_id: RequestId,
        head_only: bool,
        close: bool,
        body: Option<Reservation>,
    ) -> Self {
        link.shared.counters.requests.fetch_add(1, Relaxed);
        link.shared.counters.in_flight.fetch_add(1, Relaxed);
        Self(Some(Pending { link, request_id, head_only, close, body }))
    }

    /// The request's id.
    pub fn request_id(&self) -> RequestId {
        self.0.as_ref().expect("a responder is consumed by its answer").request_id
    }

    /// Sends the answer: one non-blocking send(2) on the calling thread; what the socket does not take is
    /// left to the reactor. A client that has gone is no error here, since what was done is done.
    pub fn send(mut self, response: Response) {
        if let Some(pending) = self.0.take() {
            pending.answer(response);
        }
    }

    /// Takes the connection out of the reactor for a stream of unknown length. `head` becomes the response
    /// head, without a length and with `Connection: close`; it is in [`Upgraded::pending`], unsent.
    ///
    /// None for a HEAD request, which is answered with the head alone, and during a drain, when the answer
    /// is 503 `daemon_draining`.
    pub fn upgrade(mut self, head: Response) -> Option<Upgraded> {
        let pending = self.0.take()?;
        if pending.head_only {
            pending.answer(head);
            return None;
        }
        if pending.link.shared.is_draining() {
            let detail = "the daemon is shutting down and opens no stream";
            pending.answer(Problem::new(&codes::DAEMON_DRAINING, detail).into());
            return None;
        }
        let mut bytes = Vec::with_capacity(RESPONSE_HEAD_BYTES);
        head.write_head(&mut bytes, Framing::Close, &pending.request_id, true);
        let link = pending.link;
        let shared = link.shared.clone();
        // The reactor's registration must be gone before the new owner's begins to matter; if it cannot be
        // removed, the reactor ignores its reports, which come once per change.
        let _ignored_reports = shared.epoll.remove(&link.socket);
        shared.counters.in_flight.fetch_sub(1, Relaxed);
        shared.counters.upgraded.fetch_add(1, Relaxed);
        shared.mailbox.post(Message::Upgraded(link.token));
        Some(Upgraded { socket: link.socket.clone(), pending: bytes, request_id: pending.request_id, link })
    }
}

impl Pending {
    fn answer(self, mut response: Response) {
        let Self { link, request_id, head_only, close, body } = self;
        drop(body);
        let close = close || response.close || link.shared.is_draining();
        let outgoing = render(&mut response, &request_id, head_only, close);
        link.shared.counters.in_flight.fetch_sub(1, Relaxed);
        link.answer(outgoing, close);
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(pending) = self.0.take() {
            let mut problem = Problem::new(&codes::INTERNAL_ERROR, "the request was dropped without an answer");
            // The thread that drops it may be working on another request.
            problem.request_id = Some(pending.request_id);
            pending.answer(Response::from(problem).closing());
        }
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Responder({:?})", self.0.as_ref().map(|pending| pending.request_id))
    }
}

/// Room for an ordinary response head, so that rendering allocates once.
const RESPONSE_HEAD_BYTES: usize = 512;

/// The bytes of an answer.
pub(super) fn render(response: &mut Response, id: &RequestId, head_only: bool, close: bool) -> Outgoing {
    response.fill_request_id(id);
    let mut head = Vec::with_capacity(RESPONSE_HEAD_BYTES + response.body.len().min(4_096));
    response.write_head(&mut head, Framing::Length, id, close);
    Outgoing::new(head, response.take_body(head_only))
}

/// A connection that left the reactor. It counts against the connection caps until it is dropped.
pub struct Upgraded {
    /// The stream: non-blocking, registered nowhere.
    pub socket: Socket,
    /// The response head, to be written first.
    pub pending: Vec<u8>,
    /// Id of the request that opened it.
    pub request_id: RequestId,
    link: Arc<Link>,
}

impl Drop for Upgraded {
    fn drop(&mut self) {
        // The reactor may hold the descriptor for another moment; the client must not.
        let _gone_already = self.socket.shutdown(Shutdown::Both);
        self.link.shared.counters.upgraded.fetch_sub(1, Relaxed);
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded")
            .field("fd", &self.socket.as_raw_fd())
            .field("pending_bytes", &self.pending.len())
            .field("request_id", &self.request_id)
            .finish()
    }
}
