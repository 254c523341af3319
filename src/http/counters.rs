//! What the edge counts, and the budgets that several connections share.
//! Owns: the figures behind `Edge::stats`, the connection permits, the byte budgets.
//! May touch: memory only.
//! Never: decides what to answer; callers do.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::socket::Peer;

/// Why the edge refused a connection or a request, or cut a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Refused {
    /// The connection cap.
    Connections,
    /// The connection cap of one client address.
    ConnectionsOfPeer,
    /// A pause of accepting: no descriptors or buffers left.
    Descriptors,
    /// A head or chunked body against the rules (400, 417, 501, 505).
    Malformed,
    /// A head or target over its limit (414, 431).
    HeadTooLarge,
    /// A body over its limit (413).
    BodyTooLarge,
    /// Full worker queue or too many body bytes held (503).
    Busy,
    /// A head that did not arrive in time (408).
    HeadDeadline,
    /// A body that did not arrive in time (408).
    BodyDeadline,
    /// A kept connection without a request for too long.
    IdleDeadline,
    /// A client that does not take its response.
    WriteDeadline,
}

impl Refused {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::Connections,
        Self::ConnectionsOfPeer,
        Self::Descriptors,
        Self::Malformed,
        Self::HeadTooLarge,
        Self::BodyTooLarge,
        Self::Busy,
        Self::HeadDeadline,
        Self::BodyDeadline,
        Self::IdleDeadline,
        Self::WriteDeadline,
    ];

    /// The reason of a refusal with this status.
    pub(super) fn of_status(status: u16) -> Self {
        match status {
            413 => Self::BodyTooLarge,
            414 | 431 => Self::HeadTooLarge,
            503 => Self::Busy,
            _ => Self::Malformed,
        }
    }

    /// The reason's name in status views and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsOfPeer => "connections_of_peer",
            Self::Descriptors => "descriptors",
            Self::Malformed => "malformed",
            Self::HeadTooLarge => "head_too_large",
            Self::BodyTooLarge => "body_too_large",
            Self::Busy => "busy",
            Self::HeadDeadline => "head_deadline",
            Self::BodyDeadline => "body_deadline",
            Self::IdleDeadline => "idle_deadline",
            Self::WriteDeadline => "write_deadline",
        }
    }
}

/// A moment's figures of the edge. Counts are since its start.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct EdgeStats {
    /// Open connections, upgraded ones included.
    pub connections_open: usize,
    /// Connections that became event streams and are still open.
    pub connections_upgraded: usize,
    /// Connections accepted.
    pub connections_accepted: u64,
    /// Requests handed to the service (refused ones are not).
    pub requests: u64,
    /// Requests handed to the service and not answered yet.
    pub requests_in_flight: usize,
    /// Requests waiting for a worker.
    pub worker_queue_depth: usize,
    /// Bodies held, in bytes, from their first byte until the answer.
    pub bodies_bytes: usize,
    /// Response bytes that clients have not taken yet.
    pub unsent_bytes: usize,
    /// Panics of the service, each answered with 500.
    pub handler_panics: u64,
    /// Panics of the edge's own code, each of which cost one connection.
    pub edge_panics: u64,
    /// Milliseconds since the reactor last went round its loop; a healthy one stays below a second.
    pub reactor_progress_age_ms: u64,
    /// Whether the reactor's thread is alive.
    pub reactor_alive: bool,
    /// What was refused or cut, by reason.
    #[serde(serialize_with = "by_name")]
    pub refused: Vec<(&'static str, u64)>,
}

/// As an object, which is what readers of a status look names up in.
fn by_name<S: serde::Serializer>(pairs: &[(&'static str, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, count)| (name, count)))
}

impl EdgeStats {
    /// How often `reason` occurred.
    pub fn refused(&self, reason: Refused) -> u64 {
        self.refused.iter().find(|(name, _)| *name == reason.name()).map_or(0, |(_, count)| *count)
    }
}

/// The figures, written by any thread. All are statistics: no decision needs their order.
#[derive(Debug)]
pub(super) struct Counters {
    started: Instant,
    progress_ms: AtomicU64,
    pub accepted: AtomicU64,
    pub requests: AtomicU64,
    pub in_flight: AtomicUsize,
    pub queue_depth: AtomicUsize,
    pub upgraded: AtomicUsize,
    pub handler_panics: AtomicU64,
    pub edge_panics: AtomicU64,
    refused: [AtomicU64; Refused::ALL.len()],
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            progress_ms: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            queue_depth: AtomicUsize::new(0),
            upgraded: AtomicUsize::new(0),
            handler_panics: AtomicU64::new(0),
            edge_panics: AtomicU64::new(0),
            refused: [const { AtomicU64::new(0) }; Refused::ALL.len()],
        }
    }

    pub(super) fn refuse(&self, reason: Refused) {
        self.refused[reason as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn progress(&self, now: Instant) {
        self.progress_ms.store(now.duration_since(self.started).as_millis() as u64, Relaxed);
    }

    pub(super) fn stats(&self, permits: &Permits, bodies: &Budget, unsent: &Budget) -> EdgeStats {
        let age_ms = (self.started.elapsed().as_millis() as u64).saturating_sub(self.progress_ms.load(Relaxed));
        EdgeStats {
            connections_open: permits.open.load(Relaxed),
            connections_upgraded: self.upgraded.load(Relaxed),
            connections_accepted: self.accepted.load(Relaxed),
            requests: self.requests.load(Relaxed),
            requests_in_flight: self.in_flight.load(Relaxed),
            worker_queue_depth: self.queue_depth.load(Relaxed),
            bodies_bytes: bodies.used.load(Relaxed),
            unsent_bytes: unsent.used.load(Relaxed),
            handler_panics: self.handler_panics.load(Relaxed),
            edge_panics: self.edge_panics.load(Relaxed),
            reactor_progress_age_ms: age_ms,
            reactor_alive: true,
            refused: Refused::ALL.iter().map(|r| (r.name(), self.refused[*r as usize].load(Relaxed))).collect(),
        }
    }
}

/// Bytes that all connections may hold together.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicUsize,
    bytes_max: usize,
}

impl Budget {
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), bytes_max })
    }

    pub(super) fn reserve(self: &Arc<Self>) -> Reservation {
        Reservation { budget: self.clone(), bytes: 0 }
    }
}

/// A part of a [`Budget`], given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Reservation {
    /// Takes `bytes` more; false, and nothing taken, if the budget has no room for them.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        if self.budget.used.fetch_add(bytes, Relaxed) + bytes > self.budget.bytes_max {
            self.budget.used.fetch_sub(bytes, Relaxed);
            return false;
        }
        self.bytes += bytes;
        true
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Relaxed);
    }
}

/// The connection caps.
#[derive(Debug)]
pub(super) struct Permits {
    open: AtomicUsize,
    // Touched once per connection at its start and end, never per request.
    of_peer: Mutex<HashMap<IpAddr, usize>>,
    connections_max: usize,
    per_peer_max: usize,
    trusted_proxies: Vec<IpAddr>,
}

impl Permits {
    pub(super) fn new(connections_max: usize, per_peer_max: usize, trusted_proxies: Vec<IpAddr>) -> Arc<Self> {
        let (open, of_peer) = (AtomicUsize::new(0), Mutex::default());
        Arc::new(Self { open, of_peer, connections_max, per_peer_max, trusted_proxies })
    }

    /// A permit for a new connection of `peer`, or which cap is reached.
    pub(super) fn admit(self: &Arc<Self>, peer: &Peer) -> Result<Permit, Refused> {
        if self.open.fetch_add(1, Relaxed) >= self.connections_max {
            self.open.fetch_sub(1, Relaxed);
            return Err(Refused::Connections);
        }
        let counted = peer.counted_as(&self.trusted_proxies);
        if let Some(ip) = counted {
            let mut of_peer = self.of_peer.lock().unwrap_or_else(PoisonError::into_inner);
            let count = of_peer.entry(ip).or_insert(0);
            if *count >= self.per_peer_max {
                self.open.fetch_sub(1, Relaxed);
                return Err(Refused::ConnectionsOfPeer);
            }
            *count += 1;
        }
        Ok(Permit { permits: self.clone(), counted })
    }
}

/// The right to be open of one connection, given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    permits: Arc<Permits>,
    counted: Option<IpAddr>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.permits.open.fetch_sub(1, Relaxed);
        let Some(ip) = self.counted else { return };
        let mut of_peer = self.permits.of_peer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = of_peer.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                of_peer.remove(&ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_count_open_connections_and_forget_closed_ones() {
        let permits = Permits::new(4, 2, Vec::new());
        let peer = Peer::Tcp("192.0.2.1:1".parse().unwrap());
        let other = Peer::Tcp("192.0.2.2:1".parse().unwrap());
        let first = permits.admit(&peer).unwrap();
        let _second = permits.admit(&peer).unwrap();
        assert_eq!(permits.admit(&peer).unwrap_err(), Refused::ConnectionsOfPeer);
        let _third = permits.admit(&other).unwrap();
        let _fourth = permits.admit(&Peer::Unix).unwrap();
        assert_eq!(permits.admit(&Peer::Unix).unwrap_err(), Refused::Connections);
        drop(first);
        drop(permits.admit(&peer).unwrap());
        drop((_second, _third, _fourth));
        assert_eq!((permits.open.load(Relaxed), permits.of_peer.lock().unwrap().len()), (0, 0));
    }

    #[test]
    fn a_budget_is_never_exceeded_and_given_back() {
        let budget = Budget::new(10);
        let (mut a, mut b) = (budget.reserve(), budget.reserve());
        assert!(a.grow(6) && !b.grow(5) && b.grow(4) && !a.grow(1));
        drop(a);
        assert!(b.grow(6));
        drop(b);
        assert_eq!(budget.used.load(Relaxed), 0);
    }

    #[test]
    fn every_reason_has_its_own_counter() {
        let (counters, permits, budget) = (Counters::new(), Permits::new(1, 1, Vec::new()), Budget::new(0));
        for reason in Refused::ALL {
            counters.refuse(reason);
        }
        let stats = counters.stats(&permits, &budget, &budget);
        assert!(Refused::ALL.iter().all(|reason| stats.refused(*reason) == 1), "{stats:?}");
    }
}
