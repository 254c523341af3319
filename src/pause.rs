//! Making a thread stand still between two pieces of its work, for a moment and never longer.
//! Owns: the two ends of a pause.
//! Never: lets a pause outlive its limit, whoever has died.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::worker::idle;

/// The end of whoever asked: while it lives, and the limit has not passed, the thread stands still.
#[derive(Debug)]
pub struct Pause(Sender<()>);

/// The thread's end.
#[derive(Debug)]
pub struct Standstill {
    over: Receiver<()>,
    limit: Duration,
}

/// A pause of at most `limit`, counted from when the thread stands still.
pub fn pause(limit: Duration) -> (Pause, Standstill) {
    let (sender, over) = bounded(1);
    (Pause(sender), Standstill { over, limit })
}

impl Standstill {
    /// Stands still until the pause ends, its other end is gone, or its limit has passed.
    pub fn wait(self) {
        // However it ends, the thread goes on; `self` is gone before it does, which tells the other end of a lapse.
        let _ended_or_lapsed = idle(|| self.over.recv_timeout(self.limit));
    }
}

impl Pause {
    /// Ends the pause; whether the thread stood still until now.
    pub fn end(self) -> bool {
        self.0.try_send(()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Worker;

    #[test]
    fn a_pause_that_is_ended_in_time_held_and_one_that_lapsed_says_so() {
        let (pause, standstill) = super::pause(Duration::from_secs(60));
        let worker = Worker::spawn("paused", move || standstill.wait()).unwrap();
        assert!(pause.end());
        worker.join().unwrap();

        let (pause, standstill) = super::pause(Duration::ZERO);
        Worker::spawn("paused", move || standstill.wait()).unwrap().join().unwrap();
        assert!(!pause.end(), "the thread went on by itself");
    }

    #[test]
    fn a_pause_whose_owner_is_gone_is_over() {
        let (pause, standstill) = super::pause(Duration::from_secs(3_600));
        let worker = Worker::spawn("paused", move || standstill.wait()).unwrap();
        drop(pause);
        worker.join().unwrap();
    }
}
