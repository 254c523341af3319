//! Host names to addresses, with a deadline.
//! Owns: a fixed pool of threads around the system's resolver, and the count of look-ups that outlived their caller.
//! May touch: the system's resolver configuration, through getaddrinfo.
//! Never: starts a thread per look-up, or waits for a look-up that hangs.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, never, select};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::limits::{NET_ADDRESSES_MAX, NET_RESOLVER_QUEUE_MAX, NET_RESOLVER_STOP_MS};
use crate::worker::{Worker, idle};

use super::cancel::Cancel;
use super::egress::{Destination, EgressPolicy, Refusal};
use super::error::NetError;
use super::host::Host;

/// What asks the operating system for the addresses of a name, with the port to put beside them.
pub type LookUp = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Figures of the resolver threads, for the status view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResolverStats {
    /// Threads, fixed at start.
    pub threads: usize,
    /// Look-ups waiting for a thread.
    pub queued: usize,
    /// Threads whose look-up has outlived its caller; with all of them overdue no name can be looked up.
    pub overdue: usize,
    /// Look-ups that ended at their deadline, since start.
    pub timeouts: u64,
}

// States of one look-up. Either side moves it on once; who comes second sees what the first has done.
const WAITING: u8 = 0;
const RUNNING: u8 = 1;
const ABANDONED: u8 = 2;
const DONE: u8 = 3;

struct Job {
    host: String,
    port: u16,
    state: Arc<AtomicU8>,
    reply: Sender<io::Result<Vec<SocketAddr>>>,
}

#[derive(Default)]
struct Counters {
    overdue: AtomicI64,
    timeouts: AtomicU64,
}

/// The pool. Dropping it stops the threads that are idle.
pub(super) struct ResolverPool {
    jobs: Option<Sender<Job>>,
    counters: Arc<Counters>,
    workers: Vec<Worker>,
    /// Disconnects when the last thread has ended.
    ended: Receiver<()>,
}

/// A look-up without an answer.
#[derive(Debug)]
pub(super) enum Failure {
    Busy,
    TimedOut,
    Cancelled,
    Io(io::Error),
}

impl ResolverPool {
    pub(super) fn start(threads: usize, look_up: Arc<LookUp>) -> io::Result<Self> {
        let (jobs, inbox) = bounded::<Job>(NET_RESOLVER_QUEUE_MAX);
        let (alive, ended) = bounded::<()>(0);
        let counters = Arc::new(Counters::default());
        let mut workers = Vec::with_capacity(threads);
        for number in 0..threads {
            let (inbox, look_up, counters, alive) = (inbox.clone(), look_up.clone(), counters.clone(), alive.clone());
            workers.push(Worker::spawn(format!("net-resolver-{number}"), move || {
                run(&inbox, &*look_up, &counters);
                drop(alive);
            })?);
        }
        Ok(Self { jobs: Some(jobs), counters, workers, ended })
    }

    pub(super) fn stats(&self) -> ResolverStats {
        ResolverStats {
            threads: self.workers.len(),
            queued: self.jobs.as_ref().map_or(0, Sender::len),
            // Both sides of a finishing look-up may count in either order; below zero means "none".
            overdue: self.counters.overdue.load(Ordering::SeqCst).max(0) as usize,
            timeouts: self.counters.timeouts.load(Ordering::SeqCst),
        }
    }

    /// Addresses of the name `host`, at least one.
    pub(super) fn resolve(
        &self,
        host: &str,
        port: u16,
        limit: Option<Duration>,
        cancel: &Cancel,
    ) -> Result<Vec<SocketAddr>, Failure> {
        let (reply, answer) = bounded(1);
        let state = Arc::new(AtomicU8::new(WAITING));
        let job = Job { host: host.to_string(), port, state: state.clone(), reply };
        let jobs = self.jobs.as_ref().ok_or(Failure::Cancelled)?;
        match jobs.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(Failure::Busy),
            Err(TrySendError::Disconnected(_)) => return Err(Failure::Cancelled),
        }
        let deadline = match limit {
            Some(limit) => crossbeam_channel::at(Instant::now() + limit),
            None => never(),
        };
        let failure = select! {
            recv(answer) -> addresses => {
                return match addresses {
                    Ok(Ok(addresses)) if addresses.is_empty() => {
                        Err(Failure::Io(io::Error::other("the name has no address")))
                    }
                    Ok(Ok(addresses)) => Ok(addresses),
                    Ok(Err(error)) => Err(Failure::Io(error)),
                    Err(_) => Err(Failure::Io(io::Error::other("the look-up was dropped"))),
                };
            }
            recv(cancel.woken()) -> _ => Failure::Cancelled,
            recv(deadline) -> _ => Failure::TimedOut,
        };
        if matches!(failure, Failure::TimedOut) {
            self.counters.timeouts.fetch_add(1, Ordering::SeqCst);
        }
        if state.swap(ABANDONED, Ordering::SeqCst) == RUNNING {
            self.counters.overdue.fetch_add(1, Ordering::SeqCst);
        }
        Err(failure)
    }
}

fn run(inbox: &Receiver<Job>, look_up: &LookUp, counters: &Counters) {
    while let Ok(job) = idle(|| inbox.recv()) {
        if job.state.compare_exchange(WAITING, RUNNING, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            continue;
        }
        let answer = look_up(&job.host, job.port);
        if job.state.swap(DONE, Ordering::SeqCst) == ABANDONED {
            counters.overdue.fetch_sub(1, Ordering::SeqCst);
        }
        // A caller that gave up has dropped the receiver: nobody needs the answer.
        let _caller_may_be_gone = job.reply.send(answer);
    }
}

impl Drop for ResolverPool {
    fn drop(&mut self) {
        self.jobs = None;
        let _ended_or_timed_out = self.ended.recv_timeout(Duration::from_millis(NET_RESOLVER_STOP_MS));
        for worker in self.workers.drain(..).filter(Worker::is_finished) {
            if let Err(panic) = worker.join() {
                log::error!("{panic}");
            }
        }
        // A thread inside a hanging look-up holds no state and cannot be interrupted; it ends with the process.
    }
}

/// The system's resolver.
pub(super) fn system_look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.take(NET_ADDRESSES_MAX).collect())
}

/// Host and guard of one call: nothing is looked up or dialled that has not passed it.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    pub policy: EgressPolicy,
    pub destination: Destination,
}

impl Guard {
    /// The first look: at the host, before its name is looked up.
    pub(super) fn check_host(&self) -> Result<(), NetError> {
        self.policy.check_host(&self.destination).map_err(|refusal| self.refused(refusal))
    }

    /// The second look: at every address, before any of them is dialled.
    pub(super) fn check_addresses(&self, addresses: &[SocketAddr]) -> Result<(), NetError> {
        let checked =
            addresses.iter().try_for_each(|address| self.policy.check_address(&self.destination, address.ip()));
        checked.map_err(|refusal| self.refused(refusal))
    }

    fn refused(&self, refusal: Refusal) -> NetError {
        let Destination { purpose, host, .. } = &self.destination;
        NetError::EgressRefused { purpose: *purpose, host: host.to_string(), refusal }
    }
}

/// The pool as the HTTP client sees it, for one call.
pub(super) struct CallResolver {
    pub pool: Arc<ResolverPool>,
    pub cancel: Cancel,
    /// `None` for a unix socket, which has no name to look up.
    pub guard: Option<Arc<Guard>>,
}

impl fmt::Debug for CallResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallResolver")
    }
}

/// Addresses of a host that the guard has let pass.
pub(super) fn addresses_of(
    pool: &ResolverPool,
    destination: &Destination,
    limit: Option<Duration>,
    cancel: &Cancel,
) -> Result<Vec<SocketAddr>, Failure> {
    let Destination { host, port, .. } = destination;
    match host {
        Host::Address(address) => Ok(vec![SocketAddr::new(*address, *port)]),
        local if local.is_localhost() => {
            Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, *port)), SocketAddr::from((Ipv6Addr::LOCALHOST, *port))])
        }
        Host::Name(name) => pool.resolve(name, *port, limit, cancel),
    }
}

/// Names a failed look-up of `host`; the time limit is the caller's to tell.
pub(super) fn named(failure: Failure, host: &Host) -> Option<NetError> {
    let host = host.to_string();
    match failure {
        Failure::Busy => Some(NetError::ResolverBusy { host }),
        Failure::Cancelled => Some(NetError::Cancelled),
        Failure::Io(error) => Some(NetError::Resolve { host, reason: error.to_string() }),
        Failure::TimedOut => None,
    }
}

impl CallResolver {
    /// Addresses of the one host that the guard has seen; what the URI says does not count.
    fn addresses(&self, guard: &Guard, timeout: NextTimeout) -> Result<Vec<SocketAddr>, ureq::Error> {
        let other = |error: NetError| ureq::Error::Other(Box::new(error));
        guard.check_host().map_err(other)?;
        let limit = (!timeout.after.is_not_happening()).then(|| *timeout.after);
        let found = addresses_of(&self.pool, &guard.destination, limit, &self.cancel);
        found.map_err(|failure| match named(failure, &guard.destination.host) {
            Some(error) => other(error),
            None => ureq::Error::Timeout(timeout.reason),
        })
    }
}

impl Resolver for CallResolver {
    fn resolve(&self, _: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut result = self.empty();
        let Some(guard) = &self.guard else {
            result.push(SocketAddr::from((Ipv4Addr::LOCALHOST, 80)));
            return Ok(result);
        };
        let addresses = self.addresses(guard, timeout)?;
        // All of them, also those that would be left out below.
        guard.check_addresses(&addresses).map_err(|error| ureq::Error::Other(Box::new(error)))?;
        addresses.into_iter().take(NET_ADDRESSES_MAX).for_each(|address| result.push(address));
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A pool whose look-ups announce themselves and then wait to be let go.
    fn hanging_pool(threads: usize) -> (ResolverPool, Receiver<()>, Sender<()>) {
        let (started, starts) = bounded(1_000);
        let (gate, opened) = bounded::<()>(0);
        let look_up = move |_: &str, port: u16| {
            started.send(()).expect("test listens");
            // Ends by disconnection when the test opens the gate.
            assert!(opened.recv().is_err());
            Ok(vec![SocketAddr::from(([192, 0, 2, 1], port))])
        };
        (ResolverPool::start(threads, Arc::new(look_up)).expect("threads"), starts, gate)
    }

    /// A resolver for `url` whose names are never looked up.
    fn deaf(url: &str, policy: EgressPolicy) -> CallResolver {
        let look_up = |name: &str, _: u16| -> io::Result<Vec<SocketAddr>> { panic!("asked for {name}") };
        let target = crate::net::Target::parse(url).expect(url);
        let (host, port) = target.host_and_port().expect("TCP");
        let destination =
            Destination { purpose: crate::net::Purpose::Provider, host: host.clone(), port, allow_private: false };
        CallResolver {
            pool: Arc::new(ResolverPool::start(1, Arc::new(look_up)).expect("threads")),
            cancel: Cancel::new(),
            guard: Some(Arc::new(Guard { policy, destination })),
        }
    }

    fn resolved(resolver: &CallResolver) -> Result<Vec<SocketAddr>, String> {
        let timeout = NextTimeout {
            after: ureq::unversioned::transport::time::Duration::NotHappening,
            reason: ureq::Timeout::Resolve,
            per_read: None,
            per_write: None,
        };
        let uri = Uri::from_static("http://what.the.uri.says.does.not.count:1/");
        resolver
            .resolve(&uri, &Config::default(), timeout)
            .map(|found| found.to_vec())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_and_localhost_and_refused_names_are_never_looked_up() {
        let open = EgressPolicy::default();
        let addresses = |texts: &[&str]| Ok(texts.iter().map(|text| text.parse().expect("address")).collect());
        assert_eq!(resolved(&deaf("https://[2001:4860::1]/", open.clone())), addresses(&["[2001:4860::1]:443"]));
        assert_eq!(resolved(&deaf("http://10.0.0.7:81/", open.clone())), addresses(&["10.0.0.7:81"]));
        let local = resolved(&deaf("http://a.localhost.:7/", open));
        assert_eq!(local, addresses(&["127.0.0.1:7", "[::1]:7"]));
        let cut_off = EgressPolicy::new(&[], &[], true).expect("settings");
        let error = resolved(&deaf("http://leak.example/", cut_off)).expect_err("refused");
        assert!(error.contains("leak.example") && error.contains("air-gapped"), "{error}");
    }

    #[test]
    fn hanging_look_ups_end_at_their_deadline_and_never_use_more_than_the_fixed_threads() {
        let (pool, starts, gate) = hanging_pool(2);
        let none = Duration::ZERO;
        for _ in 0..2 {
            // The deadline has passed at once, but the look-up must have begun to count as overdue.
            std::thread::scope(|scope| {
                let cancel = Cancel::new();
                let caller = scope.spawn({
                    let (pool, cancel) = (&pool, cancel.clone());
                    move || pool.resolve("slow.invalid", 1, Some(LONG), &cancel)
                });
                starts.recv_timeout(LONG).expect("look-up began");
                cancel.cancel();
                assert!(matches!(caller.join().expect("caller"), Err(Failure::Cancelled)));
            });
        }
        assert_eq!(pool.stats(), ResolverStats { threads: 2, queued: 0, overdue: 2, timeouts: 0 });
        for _ in 0..NET_RESOLVER_QUEUE_MAX {
            let outcome = pool.resolve("slow.invalid", 1, Some(none), &Cancel::new());
            assert!(matches!(outcome, Err(Failure::TimedOut)), "{outcome:?}");
        }
        assert!(matches!(pool.resolve("slow.invalid", 1, Some(none), &Cancel::new()), Err(Failure::Busy)));
        let full = ResolverStats {
            threads: 2,
            queued: NET_RESOLVER_QUEUE_MAX,
            overdue: 2,
            timeouts: NET_RESOLVER_QUEUE_MAX as u64,
        };
        assert_eq!(pool.stats(), full);

        // Once the look-ups return, the abandoned ones in the queue are skipped and the pool serves again.
        drop(gate);
        let mut answer = pool.resolve("slow.invalid", 1, Some(LONG), &Cancel::new());
        while matches!(answer, Err(Failure::Busy)) {
            std::thread::yield_now();
            answer = pool.resolve("slow.invalid", 1, Some(LONG), &Cancel::new());
        }
        assert_eq!(answer.expect("served"), [SocketAddr::from(([192, 0, 2, 1], 1))]);
        assert_eq!(starts.try_iter().count(), 1, "abandoned look-ups were run");
        while pool.stats().overdue != 0 {
            std::thread::yield_now();
        }
    }
}
