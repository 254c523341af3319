//! The one way to start a thread.
//! Owns: naming, joining, telling a clean stop from a panic, and the roll of threads that status reads.
//! Never: detaches a thread.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

/// A named thread that is joined by its owner.
pub struct Worker {
    name: String,
    handle: JoinHandle<()>,
    /// Keeps the thread on the roll after its end, until its owner lets go of it.
    _vital: Arc<Vital>,
}

/// Signs of life of one thread. All are statistics: no decision needs their order.
#[derive(Debug)]
struct Vital {
    name: String,
    ended: AtomicBool,
    /// When it last took up work or finished it, in milliseconds of [`elapsed_ms`].
    progress_ms: AtomicU64,
    /// When it took up the work at hand, plus one; 0 while it waits for some.
    busy_ms: AtomicU64,
}

/// What one thread was last seen doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadSeen {
    /// Its name.
    pub name: String,
    /// Whether it has not ended.
    pub alive: bool,
    /// Milliseconds since it last took up work or finished it.
    pub progress_age_ms: u64,
    /// Milliseconds for which it has been at its present work; `None` while it waits for some.
    pub busy_ms: Option<u64>,
}

/// Every thread that has not been joined, of the whole process.
static ROLL: Mutex<Vec<Weak<Vital>>> = Mutex::new(Vec::new());

thread_local! {
    static OWN: RefCell<Option<Arc<Vital>>> = const { RefCell::new(None) };
}

fn elapsed_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

impl Vital {
    fn enroll(name: &str) -> Arc<Self> {
        let now_ms = elapsed_ms();
        let vital = Arc::new(Self {
            name: name.to_string(),
            ended: AtomicBool::new(false),
            progress_ms: AtomicU64::new(now_ms),
            busy_ms: AtomicU64::new(0),
        });
        let mut roll = ROLL.lock().unwrap_or_else(PoisonError::into_inner);
        roll.retain(|other| other.strong_count() > 0);
        roll.push(Arc::downgrade(&vital));
        vital
    }

    fn note(&self, busy: bool) {
        let now_ms = elapsed_ms();
        self.progress_ms.store(now_ms, Relaxed);
        self.busy_ms.store(if busy { now_ms + 1 } else { 0 }, Relaxed);
    }

    fn seen(&self) -> ThreadSeen {
        let now_ms = elapsed_ms();
        let busy_ms = self.busy_ms.load(Relaxed).checked_sub(1);
        ThreadSeen {
            name: self.name.clone(),
            alive: !self.ended.load(Relaxed),
            progress_age_ms: now_ms.saturating_sub(self.progress_ms.load(Relaxed)),
            busy_ms: busy_ms.map(|since_ms| now_ms.saturating_sub(since_ms)),
        }
    }
}

/// Marks its thread as ended, also when it panics.
struct EndMark(Arc<Vital>);

impl Drop for EndMark {
    fn drop(&mut self) {
        self.0.ended.store(true, Relaxed);
    }
}

/// Waits for work as `wait` does; the thread counts as idle meanwhile, and as busy from then on.
pub fn idle<T>(wait: impl FnOnce() -> T) -> T {
    let note = |busy| {
        OWN.with_borrow(|own| {
            if let Some(vital) = own {
                vital.note(busy);
            }
        });
    };
    note(false);
    let work = wait();
    note(true);
    work
}

/// A sign of life of a thread that waits in several places and is never at one thing for long.
pub fn beat() {
    OWN.with_borrow(|own| {
        if let Some(vital) = own {
            vital.note(false);
        }
    });
}

/// Puts a thread on the roll that was not started here, such as the first one, for as long as it lives.
pub fn enroll(name: &str) {
    let vital = Vital::enroll(name);
    OWN.set(Some(vital));
}

/// Every thread that has not been joined, in order of their start.
pub fn roll() -> Vec<ThreadSeen> {
    let roll = ROLL.lock().unwrap_or_else(PoisonError::into_inner);
    roll.iter().filter_map(Weak::upgrade).map(|vital| vital.seen()).collect()
}

/// A worker's thread ended by panicking.
#[derive(Debug)]
pub struct WorkerPanicked {
    /// The thread's name.
    pub name: String,
    /// The panic message, when it was text.
    pub message: String,
}

impl std::fmt::Display for WorkerPanicked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "thread {} panicked: {}; next: report this with the log line above it", self.name, self.message)
    }
}

impl Worker {
    /// Starts a thread named `name` (at most 15 bytes are visible in /proc).
    ///
    /// # Errors
    /// The operating system refused the thread.
    pub fn spawn(name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        let name = name.into();
        let vital = Vital::enroll(&name);
        let mark = EndMark(vital.clone());
        let handle = Builder::new().name(name.clone()).spawn(move || {
            OWN.set(Some(mark.0.clone()));
            let _ended = mark;
            body();
        })?;
        Ok(Self { name, handle, _vital: vital })
    }

    /// The thread's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the thread has ended, cleanly or not.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// Waits for the thread.
    ///
    /// # Errors
    /// The thread panicked; the message is carried along.
    pub fn join(self) -> Result<(), WorkerPanicked> {
        let name = self.name;
        self.handle.join().map_err(|payload| WorkerPanicked { name, message: panic_message(payload.as_ref()) })
    }
}

/// Does `work` for each of `items`, at most `most` at a time, each on a thread of its own that has ended on return. Results
/// stand in the order of the items. A thread that cannot be had is done without; one that panics takes the caller along.
pub fn side_by_side<T: Send, R: Send>(name: &str, items: Vec<T>, most: usize, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let (count, items) = (items.len(), Mutex::new(items.into_iter().enumerate()));
    let results: Mutex<Vec<Option<R>>> = Mutex::new((0..count).map(|_| None).collect());
    let take_up = || {
        loop {
            let next = items.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((place, item)) = next else { return };
            let result = work(item);
            results.lock().unwrap_or_else(PoisonError::into_inner)[place] = Some(result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..most.min(count) {
            // The caller does what is left.
            drop(Builder::new().name(name.to_string()).spawn_scoped(scope, take_up));
        }
        take_up();
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.into_iter().map(|result| result.expect("every item was taken up")).collect()
}

/// The text of a panic payload, or a placeholder when it was not text.
pub fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_string())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a text payload".to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::bounded;

    use super::*;

    fn seen(name: &str) -> Option<ThreadSeen> {
        roll().into_iter().find(|thread| thread.name == name)
    }

    #[test]
    fn side_by_side_at_most_so_many_work_at_once_and_results_keep_their_order() {
        let (at_once, most_seen) = (std::sync::atomic::AtomicUsize::new(0), std::sync::atomic::AtomicUsize::new(0));
        // Three at a time can only be passed by threads that meet each other.
        let meeting = std::sync::Barrier::new(3);
        let results = side_by_side("side-test", (0..12).collect(), 3, |item: u32| {
            let now = at_once.fetch_add(1, Relaxed) + 1;
            most_seen.fetch_max(now, Relaxed);
            meeting.wait();
            at_once.fetch_sub(1, Relaxed);
            item * 2
        });
        assert_eq!(results, (0..12).map(|item| item * 2).collect::<Vec<_>>());
        assert!(most_seen.load(Relaxed) <= 3);
        assert_eq!(side_by_side("side-test", Vec::<u32>::new(), 3, |item| item), Vec::<u32>::new());
        assert_eq!(side_by_side("side-test", vec![1], 0, |item| item), [1]);
    }

    #[test]
    fn the_roll_tells_waiting_working_and_dead_threads_apart() {
        let (work, inbox) = bounded::<()>(0);
        let (begun, begin) = bounded::<()>(0);
        let worker = Worker::spawn("roll-test", move || {
            while let Ok(()) = idle(|| inbox.recv()) {
                begun.send(()).expect("heard");
                begun.send(()).expect("heard");
            }
            panic!("on purpose");
        })
        .expect("a thread");
        let patience = Duration::from_secs(60);
        work.send_timeout((), patience).expect("taken");
        begin.recv_timeout(patience).expect("at work");
        assert!(seen("roll-test").expect("on the roll").busy_ms.is_some());
        begin.recv_timeout(patience).expect("done");
        drop(work);
        let started = Instant::now();
        while !worker.is_finished() {
            assert!(started.elapsed() < patience);
            std::thread::yield_now();
        }
        assert!(!seen("roll-test").expect("until it is joined").alive);
        assert!(worker.join().is_err());
        assert_eq!(seen("roll-test"), None);
    }
}
