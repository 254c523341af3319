//! Counting failures of each peer address.
//! Owns: the sliding window, its bounded memory, and when a flood is announced.
//! Never: sees a request that was let in; a valid token cannot be throttled by somebody else's failures.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

use crate::limits::{
    AUDIT_REFUSALS_PER_WINDOW_MAX, AUTH_FAILURE_PEERS_MAX, AUTH_FAILURE_WINDOW_MS, AUTH_FAILURES_PER_WINDOW_MAX,
};

/// What a failure counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PeerKey {
    /// An IPv4 address, or the /64 network of an IPv6 one: one host usually owns all of it.
    Network(IpAddr),
    /// Everybody behind the Unix socket.
    UnixSocket,
}

impl PeerKey {
    /// The key of an address.
    pub fn of(ip: IpAddr) -> Self {
        Self::Network(match ip.to_canonical() {
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
            v4 => v4,
        })
    }
}

/// What becomes of one failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Below the limit: answer and audit it as what it is.
    Counted,
    /// Over the limit: 429 with this many seconds to wait, at least 1.
    Limited {
        /// Until the next failure would be below the limit again.
        retry_after_s: u32,
        /// First of this peer's window: the flood gets its one audit line.
        announce: bool,
    },
}

struct Bucket {
    /// Times of the latest failures, oldest first, at most [`AUTH_FAILURES_PER_WINDOW_MAX`].
    failures_ms: VecDeque<u64>,
    announced_ms: Option<u64>,
    /// Position in the order of use.
    tick: u64,
}

/// Failures of all peers.
#[derive(Default)]
pub struct Limiter {
    buckets: HashMap<PeerKey, Bucket>,
    by_use: BTreeMap<u64, PeerKey>,
    next_tick: u64,
}

impl Limiter {
    /// Records a failure of `peer` at `now_ms`. Failures over the limit count too, so that a flood that goes
    /// on stays limited.
    pub fn record(&mut self, peer: PeerKey, now_ms: u64) -> Verdict {
        let bucket = self.touch(peer);
        let is_old = |at_ms: u64| now_ms.saturating_sub(at_ms) >= AUTH_FAILURE_WINDOW_MS;
        // A clock that was set back must not lock a peer out until it has caught up.
        while bucket.failures_ms.front().is_some_and(|at_ms| is_old(*at_ms) || *at_ms > now_ms) {
            bucket.failures_ms.pop_front();
        }
        let limited = bucket.failures_ms.len() >= AUTH_FAILURES_PER_WINDOW_MAX;
        if limited {
            bucket.failures_ms.pop_front();
        }
        bucket.failures_ms.push_back(now_ms);
        if !limited {
            return Verdict::Counted;
        }
        let announce = bucket.announced_ms.is_none_or(|at_ms| is_old(at_ms) || at_ms > now_ms);
        if announce {
            bucket.announced_ms = Some(now_ms);
        }
        let oldest_ms = *bucket.failures_ms.front().expect("one was pushed above");
        let wait_ms = AUTH_FAILURE_WINDOW_MS.saturating_sub(now_ms.saturating_sub(oldest_ms));
        Verdict::Limited { retry_after_s: wait_ms.div_ceil(1_000).max(1) as u32, announce }
    }

    /// Peers remembered.
    pub fn peer_count(&self) -> usize {
        self.buckets.len()
    }

    /// The peer's bucket, now the most recently used; the least recently used one makes room for a new one.
    fn touch(&mut self, peer: PeerKey) -> &mut Bucket {
        let tick = self.next_tick;
        self.next_tick += 1;
        if let Some(known) = self.buckets.get(&peer) {
            self.by_use.remove(&known.tick);
        } else if self.buckets.len() >= AUTH_FAILURE_PEERS_MAX
            && let Some((_, idle)) = self.by_use.pop_first()
        {
            self.buckets.remove(&idle);
        }
        self.by_use.insert(tick, peer);
        let bucket = self.buckets.entry(peer).or_insert_with(|| Bucket {
            failures_ms: VecDeque::new(),
            announced_ms: None,
            tick,
        });
        bucket.tick = tick;
        bucket
    }
}

/// How many refusal lines the audit file takes in a window, over all peers.
#[derive(Default)]
pub struct LineBudget {
    window_start_ms: u64,
    taken: u64,
    suppressed: u64,
}

/// What becomes of one refusal line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineVerdict {
    /// Write it; before it, say that `suppressed` lines of the window before were left out, if any were.
    Write {
        /// Lines left out since the last one that said so.
        suppressed: u64,
    },
    /// Leave it out; it is counted.
    Suppress,
}

impl LineBudget {
    /// Asks for one line at `now_ms`.
    pub fn take(&mut self, now_ms: u64) -> LineVerdict {
        // Also when the clock was set back: the window starts anew.
        if now_ms.wrapping_sub(self.window_start_ms) >= AUTH_FAILURE_WINDOW_MS {
            self.window_start_ms = now_ms;
            self.taken = 0;
        }
        if self.taken >= AUDIT_REFUSALS_PER_WINDOW_MAX {
            self.suppressed += 1;
            return LineVerdict::Suppress;
        }
        self.taken += 1;
        LineVerdict::Write { suppressed: std::mem::take(&mut self.suppressed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerKey = PeerKey::UnixSocket;
    const LIMIT: usize = AUTH_FAILURES_PER_WINDOW_MAX;

    #[test]
    fn the_limit_is_per_sliding_window_and_says_how_long_to_wait() {
        let mut limiter = Limiter::default();
        for n in 0..LIMIT as u64 {
            assert_eq!(limiter.record(PEER, 1_000 + n * 100), Verdict::Counted, "failure {n}");
        }
        // 60 failures at 1.0 s to 6.9 s. The next one drops the first of them from memory.
        assert_eq!(limiter.record(PEER, 7_000), Verdict::Limited { retry_after_s: 55, announce: true });
        assert_eq!(limiter.record(PEER, 7_000), Verdict::Limited { retry_after_s: 55, announce: false });
        // The window has slid past the failures of the first burst.
        assert_eq!(limiter.record(PEER, 70_000), Verdict::Counted);
    }

    #[test]
    fn a_flood_that_goes_on_stays_limited_and_is_announced_once_a_window() {
        let mut limiter = Limiter::default();
        let mut announced = Vec::new();
        for n in 0..3_000u64 {
            match limiter.record(PEER, n * 100) {
                Verdict::Counted => assert!(n < LIMIT as u64, "failure {n} was let through"),
                Verdict::Limited { retry_after_s, announce } => {
                    assert!((1..=60).contains(&retry_after_s), "failure {n}");
                    if announce {
                        announced.push(n * 100);
                    }
                }
            }
        }
        assert_eq!(announced, vec![6_000, 66_000, 126_000, 186_000, 246_000]);
    }

    #[test]
    fn an_independent_count_agrees_on_random_times() {
        for seed in 1..=200u64 {
            let mut random = crate::api::testing::Random::new(seed);
            let mut limiter = Limiter::default();
            let (mut all, mut now_ms) = (Vec::new(), 1_000_000u64);
            for _ in 0..400 {
                now_ms += random.next() % 3_000;
                let recent = all.iter().filter(|at_ms| now_ms - **at_ms < AUTH_FAILURE_WINDOW_MS).count();
                let limited = matches!(limiter.record(PEER, now_ms), Verdict::Limited { .. });
                assert_eq!(limited, recent >= LIMIT, "seed {seed} at {now_ms}");
                all.push(now_ms);
            }
        }
    }

    #[test]
    fn peers_do_not_touch_each_other_and_memory_is_bounded() {
        let mut limiter = Limiter::default();
        let key = |n: u32| PeerKey::of(IpAddr::V4(n.into()));
        for _ in 0..=LIMIT {
            limiter.record(key(1), 1_000);
        }
        assert_eq!(limiter.record(key(2), 1_000), Verdict::Counted);
        for n in 10..10 + 2 * AUTH_FAILURE_PEERS_MAX as u32 {
            limiter.record(key(n), 1_000);
            if n % 1_000 == 0 {
                assert!(
                    matches!(limiter.record(key(1), 1_000), Verdict::Limited { .. }),
                    "a busy peer is not forgotten"
                );
            }
        }
        assert_eq!(limiter.peer_count(), AUTH_FAILURE_PEERS_MAX);
        assert_eq!(limiter.by_use.len(), AUTH_FAILURE_PEERS_MAX);
        assert_eq!(limiter.record(key(2), 1_000), Verdict::Counted, "the idle peer was forgotten");
    }

    #[test]
    fn a_clock_set_back_locks_nobody_out() {
        let mut limiter = Limiter::default();
        for _ in 0..=LIMIT {
            limiter.record(PEER, 9_000_000);
        }
        assert_eq!(limiter.record(PEER, 5_000), Verdict::Counted);
    }

    #[test]
    fn one_ipv6_network_is_one_peer() {
        let key = |raw: &str| PeerKey::of(raw.parse().unwrap());
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
        assert_ne!(key("10.0.0.1"), key("10.0.0.2"));
    }

    #[test]
    fn refusal_lines_are_bounded_over_all_peers_and_the_rest_is_counted() {
        let mut budget = LineBudget::default();
        let start = 1_760_000_000_000;
        for _ in 0..AUDIT_REFUSALS_PER_WINDOW_MAX {
            assert_eq!(budget.take(start), LineVerdict::Write { suppressed: 0 });
        }
        for _ in 0..500 {
            assert_eq!(budget.take(start + 59_999), LineVerdict::Suppress);
        }
        assert_eq!(budget.take(start + 60_000), LineVerdict::Write { suppressed: 500 });
        assert_eq!(budget.take(start + 60_000), LineVerdict::Write { suppressed: 0 });
    }
}
