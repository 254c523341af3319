//! One client: its socket, its bounded buffer, its deadlines.
//! Owns: what waits for the client and when it was last served.
//! May touch: its own socket, without blocking.
//! Never: decides what the client is shown.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backlog::Backlog;
use super::frame::Scope;
use super::{Outlet, Seat, Sink, StillAllowed, StreamSpec};
use crate::limits::{SSE_CLIENT_BUFFER_BYTES_MAX, SSE_WRITE_FRAMES_MAX};

/// Whether a client is served from the shared tail or from its own place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Gets each frame as it is made.
    Tail,
    /// Is read for; the flag says whether it waits for its turn (else for room in its buffer).
    Behind {
        /// It is on the writer's list.
        listed: bool,
    },
}

/// One open stream.
pub(super) struct Client {
    sink: Box<dyn Sink>,
    pub scope: Scope,
    pub backlog: Backlog,
    pub place: Place,
    /// Something was shown, so silence is from now on broken by heartbeats. Until then a replay owes the
    /// first frame.
    pub greeted: bool,
    queue: VecDeque<Arc<[u8]>>,
    /// Bytes of the queue's first entry that the kernel has.
    sent_of_first: usize,
    queued_bytes: usize,
    /// When the kernel last took something, or the queue stopped being empty.
    progress_at: Instant,
    /// When something was last queued.
    spoke_at: Instant,
    pub review_at: Instant,
    still_allowed: Option<StillAllowed>,
    /// Given back when the client is dropped.
    _seat: Seat,
}

impl Client {
    pub fn new(seat: Seat, outlet: Outlet, spec: StreamSpec, review_at: Instant, now: Instant) -> Self {
        let mut client = Self {
            sink: outlet.sink,
            backlog: Backlog::new(spec.cursor, spec.last, seat.as_of),
            scope: spec.scope,
            place: Place::Behind { listed: false },
            greeted: false,
            queue: VecDeque::new(),
            sent_of_first: 0,
            queued_bytes: 0,
            progress_at: now,
            spoke_at: now,
            review_at,
            still_allowed: spec.still_allowed,
            _seat: seat,
        };
        client.queue(Arc::from(outlet.pending), now);
        client
    }

    pub fn fd(&self) -> RawFd {
        self.sink.fd()
    }

    /// Whether another frame may be queued.
    pub fn has_room(&self) -> bool {
        self.queued_bytes < SSE_CLIENT_BUFFER_BYTES_MAX
    }

    pub fn is_drained(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn is_allowed(&self) -> bool {
        self.still_allowed.as_ref().is_none_or(|still_allowed| still_allowed())
    }

    /// Queues a frame.
    pub fn push(&mut self, frame: Arc<[u8]>, now: Instant) {
        self.greeted = true;
        self.queue(frame, now);
    }

    fn queue(&mut self, bytes: Arc<[u8]>, now: Instant) {
        if bytes.is_empty() {
            return;
        }
        if self.queue.is_empty() {
            self.progress_at = now;
        }
        self.spoke_at = now;
        self.queued_bytes += bytes.len();
        self.queue.push_back(bytes);
    }

    /// Hands the kernel what it takes. Returns when nothing is left or the kernel is full; in the second case
    /// a writable edge follows.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn flush(&mut self, now: Instant) -> io::Result<()> {
        while !self.queue.is_empty() {
            let taken = {
                let mut slices = [IoSlice::new(&[]); SSE_WRITE_FRAMES_MAX];
                let mut count = 0;
                for (slice, bytes) in slices.iter_mut().zip(&self.queue) {
                    let skip = if count == 0 { self.sent_of_first } else { 0 };
                    *slice = IoSlice::new(&bytes[skip..]);
                    count += 1;
                }
                match self.sink.write_vectored(&slices[..count]) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(taken) => taken,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                }
            };
            self.progress_at = now;
            self.forget(taken);
        }
        // An idle client holds no buffer.
        self.queue = VecDeque::new();
        Ok(())
    }

    fn forget(&mut self, taken: usize) {
        self.queued_bytes -= taken;
        let mut left = self.sent_of_first + taken;
        while let Some(first) = self.queue.front() {
            if left < first.len() {
                break;
            }
            left -= first.len();
            self.queue.pop_front();
        }
        self.sent_of_first = left;
    }

    /// Whether bytes have waited for longer than `stall` without the client taking any.
    pub fn is_stalled(&self, stall: Duration, now: Instant) -> bool {
        !self.is_drained() && now >= self.progress_at + stall
    }

    /// Whether it is time to break the silence.
    pub fn wants_heartbeat(&self, heartbeat: Duration, now: Instant) -> bool {
        self.is_drained() && self.greeted && now >= self.spoke_at + heartbeat
    }

    /// When one of the answers above can next change by time alone.
    pub fn due_at(&self, heartbeat: Duration, stall: Duration) -> Instant {
        let due = if self.is_drained() { self.spoke_at + heartbeat } else { self.progress_at + stall };
        due.min(self.review_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::{Scope, Shares};
    use std::sync::Mutex;

    /// Takes at most so many bytes a call, and blocks after every other call.
    struct Dribble {
        bytes_per_call: usize,
        taken: Arc<Mutex<(Vec<u8>, usize)>>,
    }

    impl Sink for Dribble {
        fn fd(&self) -> RawFd {
            -1
        }

        fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let mut state = self.taken.lock().unwrap();
            state.1 += 1;
            if state.1.is_multiple_of(2) {
                return Err(ErrorKind::WouldBlock.into());
            }
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let count = all.len().min(self.bytes_per_call);
            state.0.extend_from_slice(&all[..count]);
            Ok(count)
        }
    }

    fn client(sink: impl Sink) -> Client {
        let now = Instant::now();
        let spec = StreamSpec::new(Scope::Global { session: None, run: None }, None);
        let outlet = Outlet { sink: Box::new(sink), pending: b"head ".to_vec() };
        Client::new(Seat::new(&Arc::new(Shares::new(1)), 0).expect("one seat is free"), outlet, spec, now, now)
    }

    #[test]
    fn partial_writes_neither_lose_nor_repeat_a_byte() {
        for bytes_per_call in 1..40 {
            let taken = Arc::new(Mutex::new((Vec::new(), 0)));
            let mut client = client(Dribble { bytes_per_call, taken: Arc::clone(&taken) });
            let mut expected = b"head ".to_vec();
            let now = Instant::now();
            for round in 0..30 {
                let frame = vec![b'a' + (round % 26) as u8; round % 7 + 1];
                expected.extend_from_slice(&frame);
                client.push(Arc::from(frame), now);
                client.flush(now).unwrap();
            }
            while !client.is_drained() {
                client.flush(now).unwrap();
            }
            assert_eq!(taken.lock().unwrap().0, expected, "{bytes_per_call} bytes a call");
            assert_eq!(client.queued_bytes, 0);
        }
    }

    #[test]
    fn a_client_is_stalled_only_while_bytes_wait_and_none_is_taken() {
        struct Full;
        impl Sink for Full {
            fn fd(&self) -> RawFd {
                -1
            }
            fn write_vectored(&self, _slices: &[IoSlice<'_>]) -> io::Result<usize> {
                Err(ErrorKind::WouldBlock.into())
            }
        }
        let (stall, heartbeat) = (Duration::from_secs(30), Duration::from_secs(10));
        let mut client = client(Full);
        let start = client.progress_at;
        client.push(Arc::from(&b"frame"[..]), start + Duration::from_secs(20));
        client.flush(start + Duration::from_secs(29)).unwrap();
        assert!(!client.is_stalled(stall, start + Duration::from_secs(29)));
        assert!(client.is_stalled(stall, start + Duration::from_secs(30)));
        assert!(!client.wants_heartbeat(heartbeat, start + Duration::from_secs(30)), "bytes wait already");
    }
}
