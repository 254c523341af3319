//! The steps of a connection: read, understand, admit, receive, hand out, send the rest, close.
//! Owns: the order of these steps and what each failure is answered with.
//! May touch: the service, the sockets (without blocking), the worker queue.
//! Never: waits. What cannot go on returns to the reactor.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crossbeam_channel::{Sender, TrySendError};

use super::body::Decoder;
use super::codes::{self, Code};
use super::conn::{Connection, Flushing, Phase, Receiving};
use super::counters::{Refused, Reservation};
use super::head::{self, BodyFraming, Head, Method, Refusal};
use super::link::{Outgoing, Shared};
use super::problem::Problem;
use super::request_id::{self, RequestId};
use super::responder::{Responder, render};
use super::response::Response;
use super::socket::Peer;
use super::workers::{self, Job};
use super::{Admission, Deadlines, EdgeRefusal, Lane, Service};
use crate::limits::{
    HTTP_BODY_PROGRESS_BYTES_MIN, HTTP_BODY_READ_BYTES, HTTP_INLINE_BODY_BYTES_MAX, HTTP_LINGER_BYTES_MAX,
    HTTP_READ_BYTES, HTTP_READS_PER_TURN_MAX, HTTP_REQUESTS_PER_TURN_MAX, HTTP_WRITE_PROGRESS_BYTES_MIN,
};
use crate::sys::Interest;
use crate::worker::panic_message;

/// Reported once per change: a request costs no epoll_ctl, and unread bytes no busy loop.
pub(super) const READING: Interest = Interest { readable: true, writable: false, edge: true };
const READING_AND_WRITING: Interest = Interest { readable: true, writable: true, edge: true };

/// What the reactor does with a connection after its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Wait for its socket, its answer or its deadline.
    Wait,
    /// Come back after the others had their turn.
    Again,
    /// Drop it.
    Close,
}

enum Input {
    Bytes(usize),
    Nothing,
    End,
}

/// The means by which connections are moved on. Lives on the reactor thread.
pub(super) struct Exchange<S: Service> {
    service: Arc<S>,
    shared: Arc<Shared>,
    jobs: Sender<Job<S>>,
    pub(super) deadlines: Deadlines,
    /// The reactor's idea of the present, taken once per round.
    pub now: Instant,
    scratch: Box<[u8]>,
    spare: Vec<u8>,
}

impl<S: Service> Exchange<S> {
    pub(super) fn new(service: Arc<S>, shared: Arc<Shared>, jobs: Sender<Job<S>>, deadlines: Deadlines) -> Self {
        let scratch = vec![0; HTTP_BODY_READ_BYTES].into_boxed_slice();
        Self { service, shared, jobs, deadlines, now: Instant::now(), scratch, spare: Vec::new() }
    }

    /// Moves a connection on as far as it goes now.
    pub(super) fn drive(&mut self, connection: &mut Connection<S::Admitted>) -> Turn {
        let turn = self.steps(connection);
        connection.return_memory(&mut self.spare);
        turn
    }

    fn steps(&mut self, connection: &mut Connection<S::Admitted>) -> Turn {
        let (mut reads, mut requests) = (0, 0);
        loop {
            if reads > HTTP_READS_PER_TURN_MAX || requests >= HTTP_REQUESTS_PER_TURN_MAX {
                return Turn::Again;
            }
            match connection.phase {
                Phase::Idle | Phase::Head => match self.next_head(connection) {
                    Ok(Some(head)) => {
                        requests += 1;
                        self.begin(connection, head);
                    }
                    Ok(None) => {
                        let started = !matches!(connection.waiting(), b"" | b"\r\n");
                        if started && matches!(connection.phase, Phase::Idle) {
                            connection.phase = Phase::Head;
                            connection.deadline = Some(self.now + self.deadlines.head);
                        }
                        reads += 1;
                        match self.read(connection, HTTP_READ_BYTES) {
                            Input::Bytes(count) => connection.append(&self.scratch[..count], &mut self.spare),
                            Input::Nothing => return Turn::Wait,
                            Input::End => return Turn::Close,
                        }
                    }
                    Err(refusal) => self.refuse(connection, &refusal),
                },
                Phase::Body(_) => {
                    reads += 1;
                    if !self.receive(connection) {
                        return Turn::Wait;
                    }
                }
                Phase::InFlight => {
                    if !connection.has_input() || !connection.link.claim() {
                        return Turn::Wait;
                    }
                    self.rest(connection);
                }
                Phase::Flushing(_) => {
                    reads += 1;
                    if !self.flush(connection) {
                        return Turn::Wait;
                    }
                }
                Phase::Lingering { bytes_left } => {
                    reads += 1;
                    match self.read(connection, HTTP_BODY_READ_BYTES) {
                        Input::Bytes(count) if count < bytes_left => {
                            connection.phase = Phase::Lingering { bytes_left: bytes_left - count };
                        }
                        Input::Nothing => return Turn::Wait,
                        Input::Bytes(_) | Input::End => return Turn::Close,
                    }
                }
                Phase::Closed => return Turn::Close,
            }
        }
    }

    /// The deadline has passed.
    pub(super) fn expire(&mut self, connection: &mut Connection<S::Admitted>) -> Turn {
        let counters = &self.shared.counters;
        match &mut connection.phase {
            // Answered on another thread, which tells the reactor nothing: idle from now on.
            Phase::InFlight => {
                if connection.link.claim() {
                    self.rest(connection);
                    return self.drive(connection);
                }
                Turn::Wait
            }
            Phase::Idle => {
                counters.refuse(Refused::IdleDeadline);
                Turn::Close
            }
            Phase::Head => {
                counters.refuse(Refused::HeadDeadline);
                let id = self.shared.request_ids.next();
                self.time_out(connection, "the request head did not arrive in time", id)
            }
            Phase::Body(receiving) => {
                let grown = receiving.body.len() - receiving.window_bytes;
                if grown >= HTTP_BODY_PROGRESS_BYTES_MIN && self.now < receiving.ends_by {
                    receiving.window_bytes = receiving.body.len();
                    let window = self.now + self.deadlines.body_progress;
                    connection.deadline = Some(window.min(receiving.ends_by));
                    return Turn::Wait;
                }
                counters.refuse(Refused::BodyDeadline);
                let Phase::Body(receiving) = std::mem::replace(&mut connection.phase, Phase::Closed) else {
                    return Turn::Close;
                };
                let detail = "the request body did not arrive in time";
                self.refuse_head(connection, &codes::REQUEST_TIMEOUT, detail, &receiving.head);
                self.drive(connection)
            }
            Phase::Flushing(flushing) => {
                let taken = flushing.window_remaining - flushing.outgoing.remaining();
                if taken < HTTP_WRITE_PROGRESS_BYTES_MIN {
                    counters.refuse(Refused::WriteDeadline);
                    return Turn::Close;
                }
                flushing.window_remaining = flushing.outgoing.remaining();
                connection.deadline = Some(self.now + self.deadlines.write_progress);
                Turn::Wait
            }
            Phase::Lingering { .. } | Phase::Closed => Turn::Close,
        }
    }

    fn time_out(&mut self, connection: &mut Connection<S::Admitted>, detail: &'static str, id: RequestId) -> Turn {
        self.refuse_as(connection, &codes::REQUEST_TIMEOUT, detail, id, None);
        self.drive(connection)
    }

    /// During a drain: whether the connection has nothing left to do.
    pub(super) fn is_spent(&mut self, connection: &mut Connection<S::Admitted>) -> bool {
        if matches!(connection.phase, Phase::InFlight) && connection.link.claim() {
            self.rest(connection);
        }
        matches!(connection.phase, Phase::Idle) && connection.waiting().is_empty() && !connection.fresh
    }

    /// The reactor was given the rest of an answer.
    pub(super) fn take_over(&mut self, connection: &mut Connection<S::Admitted>, rest: Outgoing, close: bool) {
        connection.link.take_back();
        self.send(connection, rest, close);
    }

    fn rest(&mut self, connection: &mut Connection<S::Admitted>) {
        connection.phase = Phase::Idle;
        connection.deadline = Some(self.now + self.deadlines.idle);
    }

    fn read(&mut self, connection: &mut Connection<S::Admitted>, bytes_max: usize) -> Input {
        if !connection.readable {
            return Input::Nothing;
        }
        loop {
            match (&connection.link.socket).read(&mut self.scratch[..bytes_max]) {
                Ok(0) => return Input::End,
                Ok(count) => {
                    // A short read has emptied the socket: the next byte makes a new edge (epoll(7)).
                    connection.readable = count == bytes_max || connection.hangup;
                    return Input::Bytes(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    connection.readable = false;
                    return Input::Nothing;
                }
                Err(_) => return Input::End,
            }
        }
    }

    fn next_head(&self, connection: &mut Connection<S::Admitted>) -> Result<Option<Head>, Refusal> {
        if connection.waiting().is_empty() {
            return Ok(None);
        }
        let mut scanner = std::mem::take(&mut connection.scanner);
        let Some(range) = scanner.scan(connection.waiting())? else {
            connection.scanner = scanner;
            return Ok(None);
        };
        let end = range.end;
        let head = head::parse(&connection.waiting()[range], connection.peer, || self.shared.request_ids.next())?;
        connection.consume(end);
        Ok(Some(head))
    }

    /// A head is complete: asks the service, then answers, hands out, or begins to receive the body.
    fn begin(&mut self, connection: &mut Connection<S::Admitted>, head: Head) {
        connection.fresh = false;
        let _scope = request_id::enter(head.request_id);
        let admission = catch_unwind(AssertUnwindSafe(|| self.service.admit(&head)));
        match admission {
            Ok(Admission::Accept { admitted, body_bytes_max, lane }) => {
                self.accept(connection, head, admitted, body_bytes_max, lane);
            }
            Ok(Admission::Refuse(response)) => {
                // The body of a refused request is not wanted. If it is here already it is skipped and the
                // connection goes on; otherwise the connection ends, so that nothing of it is ever read as
                // a request.
                let skipped = Self::skip_body(connection, &head);
                let close = !head.keep_alive || !skipped || response.close;
                self.reply(connection, response, &head.request_id, head.method == Method::Head, close);
            }
            Err(payload) => {
                self.shared.counters.handler_panics.fetch_add(1, Relaxed);
                let message = panic_message(payload.as_ref());
                log::error!("the admission of a request panicked: {message}; next: report this line");
                let detail = "the request could not be judged";
                self.refuse_head(connection, &codes::INTERNAL_ERROR, detail, &head);
            }
        }
    }

    fn skip_body(connection: &mut Connection<S::Admitted>, head: &Head) -> bool {
        match head.framing {
            BodyFraming::None | BodyFraming::Length(0) => true,
            BodyFraming::Length(length) if length <= connection.waiting().len() as u64 => {
                connection.consume(length as usize);
                true
            }
            BodyFraming::Length(_) | BodyFraming::Chunked => false,
        }
    }

    fn accept(
        &mut self,
        connection: &mut Connection<S::Admitted>,
        head: Head,
        admitted: S::Admitted,
        bytes_max: usize,
        lane: Lane,
    ) {
        if !head.has_body() {
            return self.dispatch(connection, Whole { admitted, head, body: Vec::new(), lane, reservation: None });
        }
        if head.content_length.is_some_and(|length| length > bytes_max as u64) {
            let detail = "the body is larger than this route accepts";
            return self.refuse_head(connection, &codes::PAYLOAD_TOO_LARGE, detail, &head);
        }
        if head.expects_continue && connection.waiting().is_empty() {
            // The socket is empty unless the client left earlier answers unread; such a client is cut.
            const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
            if !matches!((&connection.link.socket).write(CONTINUE), Ok(count) if count == CONTINUE.len()) {
                connection.phase = Phase::Closed;
                return;
            }
        }
        let ends_by = self.now + self.deadlines.body;
        connection.deadline = Some(ends_by.min(self.now + self.deadlines.body_progress));
        connection.phase = Phase::Body(Box::new(Receiving {
            admitted,
            lane,
            bytes_max,
            decoder: Decoder::new(head.framing),
            body: Vec::with_capacity(
                head.content_length.map_or(0, |length| length.min(HTTP_READ_BYTES as u64) as usize),
            ),
            reservation: self.shared.bodies.reserve(),
            ends_by,
            window_bytes: 0,
            head,
        }));
    }

    /// Takes body bytes, first those that came with the head. False if there are none now.
    fn receive(&mut self, connection: &mut Connection<S::Admitted>) -> bool {
        let Phase::Body(mut receiving) = std::mem::replace(&mut connection.phase, Phase::Closed) else {
            return true;
        };
        let before = receiving.body.len();
        let fed = if connection.waiting().is_empty() {
            // Of a body of known length nothing beyond its end is read: what follows stays in the kernel.
            let wanted = receiving.decoder.remaining().map_or(HTTP_READ_BYTES as u64, |left| left.max(1));
            let bytes_max = wanted.min(HTTP_BODY_READ_BYTES as u64) as usize;
            match self.read(connection, bytes_max) {
                Input::Bytes(count) => {
                    let input = &self.scratch[..count];
                    let fed = receiving.decoder.feed(input, &mut receiving.body, receiving.bytes_max);
                    if let Ok(fed) = &fed
                        && fed.consumed < count
                    {
                        connection.append(&input[fed.consumed..], &mut self.spare);
                    }
                    fed
                }
                Input::Nothing => {
                    connection.phase = Phase::Body(receiving);
                    return false;
                }
                // The client gave up in the middle of its body: nothing is executed.
                Input::End => return true,
            }
        } else {
            let fed = receiving.decoder.feed(connection.waiting(), &mut receiving.body, receiving.bytes_max);
            if let Ok(fed) = &fed {
                connection.consume(fed.consumed);
            }
            fed
        };
        match fed {
            Err(refusal) => {
                self.refuse_head(connection, refusal.code, refusal.detail, &receiving.head);
            }
            Ok(_) if !receiving.reservation.grow(receiving.body.len() - before) => {
                let detail = "the request bodies held at this moment have no room for another";
                self.refuse_head(connection, &codes::SERVER_BUSY, detail, &receiving.head);
            }
            Ok(fed) if fed.done => {
                let Receiving { admitted, head, lane, body, reservation, .. } = *receiving;
                self.dispatch(connection, Whole { admitted, head, body, lane, reservation: Some(reservation) });
            }
            Ok(_) => connection.phase = Phase::Body(receiving),
        }
        true
    }

    /// Hands a whole request to its handler: here, or on a worker.
    fn dispatch(&mut self, connection: &mut Connection<S::Admitted>, whole: Whole<S::Admitted>) {
        let Whole { admitted, head, body, lane, reservation } = whole;
        connection.link.lend();
        connection.phase = Phase::InFlight;
        connection.deadline = None;
        let (link, head_only, close) = (connection.link.clone(), head.method == Method::Head, !head.keep_alive);
        let responder = Responder::new(link, head.request_id, head_only, close, reservation);
        let job = Job { admitted, head, body, responder };
        let is_short = job.body.len() <= HTTP_INLINE_BODY_BYTES_MAX;
        let is_inline = is_short
            && match lane {
                Lane::Inline => true,
                Lane::InlineWithout(text) => !std::str::from_utf8(&job.body).is_ok_and(|body| body.contains(text)),
                Lane::Worker => false,
            };
        if is_inline {
            return workers::handle(&*self.service, &self.shared, job);
        }
        self.shared.counters.queue_depth.fetch_add(1, Relaxed);
        if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) = self.jobs.try_send(job) {
            self.shared.counters.queue_depth.fetch_sub(1, Relaxed);
            self.shared.counters.refuse(Refused::Busy);
            let mut problem = Problem::new(&codes::SERVER_BUSY, "all workers are busy and their queue is full");
            problem.request_id = Some(job.head.request_id);
            self.tell(&job.head.peer, &codes::SERVER_BUSY, job.head.request_id, Some(&job.head));
            job.responder.send(problem.retry_after(BUSY_RETRY_SECONDS).into());
        }
    }

    fn refuse(&mut self, connection: &mut Connection<S::Admitted>, refusal: &Refusal) {
        let id = refusal.request_id.unwrap_or_else(|| self.shared.request_ids.next());
        self.refuse_as(connection, refusal.code, refusal.detail, id, None);
    }

    fn refuse_head(
        &mut self,
        connection: &mut Connection<S::Admitted>,
        code: &'static Code,
        detail: &'static str,
        head: &Head,
    ) {
        self.refuse_as(connection, code, detail, head.request_id, Some(head));
    }

    fn tell(&self, peer: &Peer, code: &'static Code, request_id: RequestId, head: Option<&Head>) {
        self.service.refused(&EdgeRefusal { peer: *peer, request_id, code, head });
    }

    /// Answers with a problem of the edge itself and closes: what follows on this connection has no
    /// agreed beginning.
    fn refuse_as(
        &mut self,
        connection: &mut Connection<S::Admitted>,
        code: &'static Code,
        detail: &'static str,
        id: RequestId,
        head: Option<&Head>,
    ) {
        self.tell(&connection.peer, code, id, head);
        let mut problem = Problem::new(code, detail);
        problem.request_id = Some(id);
        match code.status {
            // Counted where they are noticed.
            408 | 500 => {}
            503 => {
                problem = problem.retry_after(BUSY_RETRY_SECONDS);
                self.shared.counters.refuse(Refused::Busy);
            }
            status => self.shared.counters.refuse(Refused::of_status(status)),
        }
        self.reply(connection, problem.into(), &id, false, true);
    }

    /// Answers from the reactor itself.
    fn reply(
        &mut self,
        connection: &mut Connection<S::Admitted>,
        mut response: Response,
        id: &RequestId,
        head_only: bool,
        close: bool,
    ) {
        let close = close || self.shared.is_draining();
        let outgoing = render(&mut response, id, head_only, close);
        self.send(connection, outgoing, close);
    }

    fn send(&mut self, connection: &mut Connection<S::Admitted>, outgoing: Outgoing, close: bool) {
        let mut reservation = self.shared.unsent.reserve();
        if !reservation.grow(outgoing.remaining()) {
            self.shared.counters.refuse(Refused::WriteDeadline);
            connection.phase = Phase::Closed;
            return;
        }
        let window_remaining = outgoing.remaining();
        connection.deadline = Some(self.now + self.deadlines.write_progress);
        connection.phase = Phase::Flushing(Flushing { outgoing, close, window_remaining, _reservation: reservation });
        self.flush(connection);
    }

    /// Offers the rest of an answer to the socket. False if the client must take some first.
    fn flush(&mut self, connection: &mut Connection<S::Admitted>) -> bool {
        let Phase::Flushing(flushing) = &mut connection.phase else {
            return true;
        };
        let before = flushing.outgoing.remaining();
        match flushing.outgoing.push(&connection.link.socket) {
            Ok(true) => {
                let close = flushing.close;
                self.watch_writable(connection, false);
                if close {
                    self.linger(connection)
                } else {
                    self.rest(connection)
                }
                true
            }
            // Something was taken: the socket may take more.
            Ok(false) if flushing.outgoing.remaining() < before => true,
            Ok(false) => {
                self.watch_writable(connection, true);
                matches!(connection.phase, Phase::Closed)
            }
            Err(_) => {
                connection.phase = Phase::Closed;
                true
            }
        }
    }

    fn watch_writable(&self, connection: &mut Connection<S::Admitted>, watch: bool) {
        if connection.watches_writable == watch {
            return;
        }
        connection.watches_writable = watch;
        let interest = if watch { READING_AND_WRITING } else { READING };
        if self.shared.epoll.modify(&connection.link.socket, connection.link.token, interest).is_err() {
            // Without reports the connection could only wait for its deadline.
            connection.phase = Phase::Closed;
        }
    }

    fn linger(&mut self, connection: &mut Connection<S::Admitted>) {
        connection.consume(connection.waiting().len());
        connection.deadline = Some(self.now + self.deadlines.linger);
        connection.phase = match connection.link.socket.shutdown(Shutdown::Write) {
            Ok(()) => Phase::Lingering { bytes_left: HTTP_LINGER_BYTES_MAX },
            Err(_) => Phase::Closed,
        };
    }
}

/// A request that has arrived completely.
struct Whole<A> {
    admitted: A,
    head: Head,
    body: Vec<u8>,
    lane: Lane,
    reservation: Option<Reservation>,
}

/// A full queue empties within a second or is stuck for longer than a number here could say.
const BUSY_RETRY_SECONDS: u32 = 1;
