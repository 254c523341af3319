//! A writer thread: its clients, the shared tail, and the turns of those behind it.
//! Owns: the clients handed to it, their readiness, and its own place in the log.
//! May touch: the log, the renderer, its clients' sockets.
//! Never: blocks on a socket, or serves one client for longer than a slice.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::client::{Client, Place};
use super::frame::{Audience, CREDENTIALS_CHANGED, HEARTBEAT, encode, encode_gap};
use super::probe::{ProbeNonce, encode_asked, encode_opened};
use super::{Arrival, Desk, Inlets, QueuedPreview, Scope, Shared};
use crate::ids::Seq;
use crate::journal::Record;
use crate::limits::{SSE_PREVIEWS_MAX, SSE_PROBES_MAX, SSE_SWEEP_MS_MAX, SSE_SWEEP_MS_MIN, SSE_TAIL_SLICE_BYTES_MAX};
use crate::sys::{Epoll, Interest, Ready};
use crate::worker::idle;

/// Registration of the doorbell; client tokens carry a slot below it.
const BELL: u64 = u64::MAX;

/// A client's place in the table. The generation tells a reused slot from its earlier tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    slot: u32,
    generation: u32,
}

impl Token {
    fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    fn from_u64(raw: u64) -> Self {
        Self { slot: raw as u32, generation: (raw >> 32) as u32 }
    }
}

#[derive(Default)]
struct Slot {
    generation: u32,
    client: Option<Client>,
}

/// State of one writer thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    desk: Arc<Desk>,
    inlets: Inlets,
    epoll: Epoll,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Clients that wait for their turn to be read for, in order.
    behind: VecDeque<Token>,
    at_tail: usize,
    /// Next position the clients at the tail have not been shown.
    tail: Seq,
    previews: VecDeque<QueuedPreview>,
    sweep_at: Instant,
    heartbeat: Arc<[u8]>,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, desk: Arc<Desk>, inlets: Inlets) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(&desk.wake, BELL, Interest { readable: true, writable: false, edge: false })?;
        let tail = shared.log.committed() + 1;
        Ok(Self {
            shared,
            desk,
            inlets,
            epoll,
            slots: Vec::new(),
            free: Vec::new(),
            behind: VecDeque::new(),
            at_tail: 0,
            tail,
            previews: VecDeque::new(),
            sweep_at: Instant::now(),
            heartbeat: Arc::from(HEARTBEAT),
        })
    }

    /// Serves until the hub stops. Dropping the writer closes its clients.
    pub fn run(mut self) {
        let mut ready = Vec::new();
        let mut busy = false;
        while !self.shared.stopping.load(Ordering::SeqCst) {
            let timeout_ms = if busy { 0 } else { self.timeout_ms(Instant::now()) };
            if let Err(error) = idle(|| self.epoll.wait(&mut ready, timeout_ms)) {
                ::log::error!("event streams cannot wait for their sockets: {error}; next: restart the daemon");
                return;
            }
            let now = Instant::now();
            let progress_ms = now.duration_since(self.shared.started).as_millis() as u64;
            self.desk.progress_ms.store(progress_ms, Ordering::Relaxed);
            if ready.iter().any(|event| event.token == BELL) {
                self.desk.answer();
            }
            self.admit_arrivals(now);
            self.show_probes(now);
            self.serve_ready(&ready, now);
            busy = self.advance_tail(now);
            busy |= self.serve_one_behind(now);
            if now >= self.sweep_at {
                self.sweep(now);
            }
        }
    }

    fn timeout_ms(&self, now: Instant) -> i32 {
        let until_sweep = self.sweep_at.saturating_duration_since(now).min(Duration::from_millis(SSE_SWEEP_MS_MAX));
        // Rounded up, so that the wait does not end just before the deadline.
        until_sweep.as_micros().div_ceil(1_000) as i32
    }

    fn admit_arrivals(&mut self, now: Instant) {
        while let Ok(arrival) = self.inlets.arrivals.try_recv() {
            let Arrival { seat, outlet, spec } = *arrival;
            let replays = spec.cursor.is_some();
            let greeting = match &spec.scope {
                Scope::Probe(nonce) => encode_opened(nonce, self.shared.log.committed()),
                _ => Arc::clone(&self.heartbeat),
            };
            let mut client = Client::new(seat, outlet, spec, now + self.shared.credential_check, now);
            if !replays {
                client.push(greeting, now);
            }
            let token = self.seat(client);
            let interest = Interest { readable: false, writable: true, edge: true };
            let client = self.slots[token.slot as usize].client.as_ref().expect("it was just seated");
            let due_at = client.due_at(self.shared.heartbeat, self.shared.stall);
            self.sweep_at = self.sweep_at.min(due_at);
            if let Err(error) = self.epoll.add(&client.fd(), token.to_u64(), interest) {
                ::log::warn!("an event stream was refused by the kernel: {error}; next: check the descriptor limit");
                self.close(token);
                continue;
            }
            self.flush(token, now);
            self.list(token);
        }
    }

    /// Answers on the probe streams that were asked for, wherever they stand: they carry nothing else.
    fn show_probes(&mut self, now: Instant) {
        let asked: Vec<ProbeNonce> = self.inlets.probes.try_iter().take(SSE_PROBES_MAX).collect();
        for nonce in &asked {
            let wanted = Scope::Probe(nonce.clone());
            for slot in 0..self.slots.len() {
                let entry = &mut self.slots[slot];
                let token = Token { slot: slot as u32, generation: entry.generation };
                if let Some(client) = entry.client.as_mut().filter(|client| client.scope == wanted && client.has_room())
                {
                    client.push(encode_asked(nonce), now);
                    self.flush(token, now);
                }
            }
        }
    }

    fn seat(&mut self, client: Client) -> Token {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let entry = &mut self.slots[slot as usize];
        entry.client = Some(client);
        self.desk.clients.fetch_add(1, Ordering::Relaxed);
        Token { slot, generation: entry.generation }
    }

    fn client(&mut self, token: Token) -> Option<&mut Client> {
        let slot = self.slots.get_mut(token.slot as usize)?;
        if slot.generation == token.generation { slot.client.as_mut() } else { None }
    }

    fn close(&mut self, token: Token) {
        let slot = &mut self.slots[token.slot as usize];
        if slot.generation != token.generation {
            return;
        }
        let Some(client) = slot.client.take() else { return };
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(token.slot);
        if client.place == Place::Tail {
            self.at_tail -= 1;
        }
        self.desk.clients.fetch_sub(1, Ordering::Relaxed);
        // Closing the descriptor ends the registration as well, so a failure here loses nothing.
        let _already_gone = self.epoll.remove(&client.fd());
    }

    /// Writes what the kernel takes; closes the client when its connection is gone.
    fn flush(&mut self, token: Token, now: Instant) {
        if self.client(token).is_some_and(|client| client.flush(now).is_err()) {
            self.close(token);
        }
    }

    fn serve_ready(&mut self, ready: &[Ready], now: Instant) {
        for event in ready.iter().filter(|event| event.token != BELL) {
            let token = Token::from_u64(event.token);
            if event.hangup {
                self.close(token);
            } else if event.writable {
                self.flush(token, now);
                self.list(token);
            }
        }
    }

    /// Puts a client that is behind and has room in line.
    fn list(&mut self, token: Token) {
        let Some(client) = self.client(token) else { return };
        if client.place == (Place::Behind { listed: false }) && client.has_room() {
            client.place = Place::Behind { listed: true };
            self.behind.push_back(token);
        }
    }

    /// Shows one slice of new records to the clients at the tail. Tells whether more is waiting.
    fn advance_tail(&mut self, now: Instant) -> bool {
        // Read before the previews are taken: those made before a record was committed are then at hand.
        let committed = self.shared.log.committed();
        let room = SSE_PREVIEWS_MAX - self.previews.len();
        self.previews.extend(self.inlets.previews.try_iter().take(room));
        if self.at_tail == 0 {
            self.previews.clear();
            self.tail = self.tail.max(committed + 1);
            return false;
        }
        if self.tail <= committed {
            match self.shared.log.scan(self.tail, SSE_TAIL_SLICE_BYTES_MAX) {
                Ok(records) if !records.is_empty() => self.show(&records, committed, now),
                Ok(_) => self.lose_tail(committed, "no record where one was committed"),
                Err(error) => self.lose_tail(committed, error),
            }
        }
        self.show_previews(self.tail, now);
        self.tail <= committed
    }

    fn show(&mut self, records: &[Record], committed: Seq, now: Instant) {
        // What the scan saw beyond `committed` waits for the next turn, when its previews are at hand too.
        for record in records.iter().take_while(|record| record.seq <= committed) {
            self.show_previews(record.seq, now);
            self.show_record(record, now);
            self.tail = record.seq + 1;
        }
        self.flush_tail(now);
    }

    fn show_record(&mut self, record: &Record, now: Instant) {
        let mut rendered: Option<Option<(Arc<[u8]>, Audience)>> = None;
        for slot in 0..self.slots.len() {
            let Some(client) = self.slots[slot].client.as_mut() else { continue };
            let is_due = client.place == Place::Tail
                && client.backlog.position() <= record.seq
                && client.scope.concerns(record.session.as_ref(), record.run);
            if !is_due {
                continue;
            }
            let frame = rendered.get_or_insert_with(|| {
                self.shared.render.frame(record).map(|frame| (encode(record.seq, &frame), frame.audience))
            });
            let Some((bytes, audience)) = frame else { return };
            if !client.scope.admits(record.session.as_ref(), record.run, *audience) {
                continue;
            }
            // A failed flush shows up as a hang-up; until then the client is merely full.
            if !client.has_room() && (client.flush(now).is_err() || !client.has_room()) {
                client.backlog.settle(record.seq);
                client.place = Place::Behind { listed: false };
                self.at_tail -= 1;
                continue;
            }
            client.push(Arc::clone(bytes), now);
            self.shared.frames.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Shows the previews that belong before position `next`.
    fn show_previews(&mut self, next: Seq, now: Instant) {
        let mut shown = false;
        while self.previews.front().is_some_and(|preview| preview.after < next) {
            let preview = self.previews.pop_front().expect("its front was just seen");
            for client in self.slots.iter_mut().filter_map(|slot| slot.client.as_mut()) {
                let sees = client.place == Place::Tail
                    && client.has_room()
                    && client.scope.admits(Some(&preview.session), Some(preview.run), Audience::Run);
                if sees {
                    client.push(Arc::clone(&preview.bytes), now);
                    shown = true;
                }
            }
        }
        if shown {
            self.flush_tail(now);
        }
    }

    fn flush_tail(&mut self, now: Instant) {
        for slot in 0..self.slots.len() {
            let entry = &mut self.slots[slot];
            let token = Token { slot: slot as u32, generation: entry.generation };
            let Some(client) = entry.client.as_mut().filter(|client| !client.is_drained()) else { continue };
            if client.flush(now).is_err() {
                self.close(token);
                continue;
            }
            // One that fell behind and was drained meanwhile gets no writable edge.
            self.list(token);
        }
    }

    /// The log could not be read at the tail: its clients are closed, so that they come back with a cursor.
    fn lose_tail(&mut self, committed: Seq, cause: impl std::fmt::Display) {
        ::log::error!("{} event streams were closed: {cause}", self.at_tail);
        self.shared.read_failures.fetch_add(self.at_tail as u64, Ordering::Relaxed);
        for slot in 0..self.slots.len() {
            if self.slots[slot].client.as_ref().is_some_and(|client| client.place == Place::Tail) {
                self.close(Token { slot: slot as u32, generation: self.slots[slot].generation });
            }
        }
        self.tail = committed + 1;
    }

    /// Reads one slice for the client that has waited longest. Tells whether somebody waits.
    fn serve_one_behind(&mut self, now: Instant) -> bool {
        let Some(token) = self.behind.pop_front() else { return false };
        if let Some(client) = self.client(token) {
            client.place = Place::Behind { listed: false };
            self.read_for(token, now);
        }
        !self.behind.is_empty()
    }

    fn read_for(&mut self, token: Token, now: Instant) {
        let shared = Arc::clone(&self.shared);
        let Some(client) = self.client(token) else { return };
        match show_slice(client, &shared, now) {
            Ok(()) => {}
            Err(Ended::Gone) => return self.close(token),
            Err(Ended::Unreadable(error)) => {
                ::log::error!("an event stream was closed: {error}");
                shared.read_failures.fetch_add(1, Ordering::Relaxed);
                return self.close(token);
            }
        }
        let (tail, heartbeat) = (self.tail, Arc::clone(&self.heartbeat));
        let Some(client) = self.client(token) else { return };
        if !client.backlog.has_reached(tail) {
            return self.list(token);
        }
        client.place = Place::Tail;
        if !client.greeted {
            client.push(heartbeat, now);
        }
        self.at_tail += 1;
        self.flush(token, now);
    }

    /// Looks at every client's deadlines.
    fn sweep(&mut self, now: Instant) {
        let (heartbeat, stall) = (self.shared.heartbeat, self.shared.stall);
        let mut next = now + Duration::from_millis(SSE_SWEEP_MS_MAX);
        for slot in 0..self.slots.len() {
            let entry = &mut self.slots[slot];
            let token = Token { slot: slot as u32, generation: entry.generation };
            let Some(client) = entry.client.as_mut() else { continue };
            if client.is_stalled(stall, now) {
                self.shared.cut_off.fetch_add(1, Ordering::Relaxed);
                self.close(token);
                continue;
            }
            if now >= client.review_at {
                client.review_at = now + self.shared.credential_check;
                if !client.is_allowed() {
                    self.shared.revoked.fetch_add(1, Ordering::Relaxed);
                    client.push(Arc::from(CREDENTIALS_CHANGED), now);
                    // The stream ends either way.
                    let _best_effort = client.flush(now);
                    self.close(token);
                    continue;
                }
            }
            if client.wants_heartbeat(heartbeat, now) {
                client.push(Arc::clone(&self.heartbeat), now);
                if client.flush(now).is_err() {
                    self.close(token);
                    continue;
                }
            }
            next = next.min(client.due_at(heartbeat, stall));
        }
        self.sweep_at = next.max(now + Duration::from_millis(SSE_SWEEP_MS_MIN));
    }
}

enum Ended {
    Gone,
    Unreadable(super::LogError),
}

/// Reads one slice of the log for a client that is behind and hands it what fits.
fn show_slice(client: &mut Client, shared: &Shared, now: Instant) -> Result<(), Ended> {
    let slice = client.backlog.step(&*shared.log, &client.scope).map_err(Ended::Unreadable)?;
    if let Some(gap) = &slice.gap {
        client.push(encode_gap(gap, &client.scope), now);
        shared.gaps.fetch_add(1, Ordering::Relaxed);
        shared.frames.fetch_add(1, Ordering::Relaxed);
    }
    let mut next = slice.next;
    for record in &slice.records {
        let Some(frame) = shared.render.frame(record) else { continue };
        if !client.scope.admits(record.session.as_ref(), record.run, frame.audience) {
            continue;
        }
        if !client.has_room() {
            client.flush(now).map_err(|_| Ended::Gone)?;
            if !client.has_room() {
                next = record.seq;
                break;
            }
        }
        client.push(encode(record.seq, &frame), now);
        shared.frames.fetch_add(1, Ordering::Relaxed);
    }
    client.backlog.settle(next);
    client.flush(now).map_err(|_| Ended::Gone)
}
