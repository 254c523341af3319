//! Signs of life for the service manager's watchdog.
//! Owns: when one is due, and what must move for it to be given.
//! Never: gives one because the main thread alone is well.

use std::ffi::OsStr;
use std::time::Duration;

use crate::limits::{WATCH_INTERVAL_MS, WATCHDOG_INTERVAL_MS_MIN, WATCHDOG_STALL_MS};
use crate::worker::ThreadSeen;

/// Threads that must move: the core, which writes the journal, and the listener's.
const VITAL: &[&str] = &["core", "http-reactor"];

/// What WATCHDOG_USEC asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watchdog {
    interval: Option<Duration>,
}

/// What the daemon has seen of its parts.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The journal takes no more records until a restart; why.
    pub journal_poisoned: Option<String>,
    /// Age of the core's present pass (batch, sync, replies), in milliseconds.
    pub batch_age_ms: Option<u64>,
    /// Every thread.
    pub threads: Vec<ThreadSeen>,
}

impl Watchdog {
    /// The watchdog of the process `pid`; none when the variables are missing, unreadable or for another process.
    pub(super) fn of<'v>(variable: &impl Fn(&str) -> Option<&'v OsStr>, pid: u32) -> Self {
        let number = |name: &str| variable(name).map(|value| value.to_str().and_then(|text| text.parse::<u64>().ok()));
        let is_ours = number("WATCHDOG_PID").is_none_or(|watched| watched == Some(u64::from(pid)));
        let microseconds = number("WATCHDOG_USEC").flatten().filter(|microseconds| is_ours && *microseconds > 0);
        Self { interval: microseconds.map(Duration::from_micros) }
    }

    /// Whether signs of life are wanted.
    pub fn is_wanted(&self) -> bool {
        self.interval.is_some()
    }

    /// Milliseconds for which a part may be at one thing: [`WATCHDOG_STALL_MS`], or a third of an interval that is shorter.
    pub fn stall_ms(&self) -> u64 {
        self.interval.map_or(WATCHDOG_STALL_MS, |interval| WATCHDOG_STALL_MS.min(interval.as_millis() as u64 / 3))
    }

    /// Milliseconds between two looks at the threads: as usual, or three in an interval that is shorter.
    pub fn look_every_ms(&self) -> i32 {
        let third = self.interval.map_or(u64::MAX, |interval| interval.as_millis() as u64 / 3);
        i32::try_from(third.max(WATCHDOG_INTERVAL_MS_MIN)).unwrap_or(i32::MAX).min(WATCH_INTERVAL_MS)
    }
}

impl Progress {
    /// What has been at one thing for longer than `stall_ms`, or moves no more; `None` when everything moves.
    pub fn stalled(&self, stall_ms: u64) -> Option<String> {
        if let Some(reason) = &self.journal_poisoned {
            return Some(format!("journal poisoned: {reason}"));
        }
        if self.batch_age_ms.is_some_and(|age_ms| age_ms > stall_ms) {
            return Some(format!("a batch of the journal has been under way for more than {stall_ms} ms"));
        }
        for name in VITAL {
            let Some(thread) = self.threads.iter().find(|thread| thread.name == *name) else {
                return Some(format!("thread {name} is gone"));
            };
            if !thread.alive {
                return Some(format!("thread {name} has ended"));
            }
            if thread.busy_ms.is_some_and(|busy_ms| busy_ms > stall_ms) {
                return Some(format!("thread {name} has been at one thing for more than {stall_ms} ms"));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watchdog(variables: &[(&str, &str)]) -> Watchdog {
        let variable =
            |name: &str| variables.iter().find(|(named, _)| *named == name).map(|(_, value)| OsStr::new(*value));
        Watchdog::of(&variable, 7)
    }

    fn thread(name: &str, alive: bool, busy_ms: Option<u64>) -> ThreadSeen {
        ThreadSeen { name: name.to_string(), alive, progress_age_ms: 1 << 40, busy_ms }
    }

    fn well() -> Progress {
        let threads = vec![thread("core", true, None), thread("http-reactor", true, Some(3)), thread("x", false, None)];
        Progress { journal_poisoned: None, batch_age_ms: Some(WATCHDOG_STALL_MS), threads }
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        let usec = ("WATCHDOG_USEC", "30000000");
        assert!(watchdog(&[usec]).is_wanted() && watchdog(&[usec, ("WATCHDOG_PID", "7")]).is_wanted());
        for variables in [&[][..], &[usec, ("WATCHDOG_PID", "8")], &[usec, ("WATCHDOG_PID", "")]] {
            assert!(!watchdog(variables).is_wanted(), "{variables:?}");
        }
        for usec in ["0", "", "x", "-1"] {
            assert!(!watchdog(&[("WATCHDOG_USEC", usec)]).is_wanted(), "{usec:?}");
        }
    }

    #[test]
    fn a_short_interval_is_looked_at_more_often() {
        for (usec, expected) in
            [("30000000", WATCH_INTERVAL_MS), ("900000", 300), ("1", 10), ("18446744073709551615", WATCH_INTERVAL_MS)]
        {
            let watchdog = watchdog(&[("WATCHDOG_USEC", usec)]);
            assert_eq!(watchdog.look_every_ms(), expected, "{usec}");
            assert!(watchdog.stall_ms() <= WATCHDOG_STALL_MS, "{usec}");
        }
        assert_eq!(watchdog(&[]).look_every_ms(), WATCH_INTERVAL_MS);
    }

    #[test]
    fn journal_core_and_listener_must_all_move_and_waiting_for_work_is_moving() {
        assert_eq!(well().stalled(WATCHDOG_STALL_MS), None);
        let stalled = |change: fn(&mut Progress)| {
            let mut progress = well();
            change(&mut progress);
            progress.stalled(WATCHDOG_STALL_MS)
        };
        let cases: [fn(&mut Progress); 7] = [
            |progress| progress.journal_poisoned = Some("EIO".to_string()),
            |progress| progress.batch_age_ms = Some(WATCHDOG_STALL_MS + 1),
            |progress| progress.threads[0].alive = false,
            |progress| progress.threads[1].alive = false,
            |progress| progress.threads[0].busy_ms = Some(WATCHDOG_STALL_MS + 1),
            |progress| progress.threads[1].busy_ms = Some(WATCHDOG_STALL_MS + 1),
            |progress| drop(progress.threads.remove(1)),
        ];
        for (index, case) in cases.into_iter().enumerate() {
            assert!(stalled(case).is_some(), "case {index}");
        }
    }
}
