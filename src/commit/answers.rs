//! The thread that gives out a large batch's replies while the core is at the next batch.
//! Owns: the replies of the one batch handed to it.
//! May touch: what a reply touches: sockets without blocking, channels of waiting threads.
//! Never: sees a batch before it is durable; makes the core wait: while it is busy the core answers by itself.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::handle::{CommandError, Reply};
use crate::core::{Decision, Refusal};
use crate::worker::idle;

/// A command's reply and what it is to say.
pub(super) struct Answer {
    pub reply: Reply,
    pub outcome: Result<Decision, Refusal>,
}

/// The replies of one committed batch.
pub(super) struct Answers(pub Vec<Answer>);

impl Answers {
    /// Gives them out on the calling thread.
    pub fn give(self) {
        for Answer { reply, outcome } in self.0 {
            reply(outcome.map_err(CommandError::Refused));
        }
    }
}

/// The place for one batch. A lock with a condition and no channel: a channel's receiver spins before it sleeps, on
/// a processor that the core or the reactor could use.
#[derive(Default)]
struct Place {
    slot: Mutex<Slot>,
    changed: Condvar,
}

#[derive(Default)]
struct Slot {
    waiting: Option<Answers>,
    /// The answerer is at the place and takes the next batch at once.
    idle: bool,
    /// No batch will come any more.
    ended: bool,
}

impl Place {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        // A panic under the lock cannot leave half a state: only moves happen there.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The core's end; dropping it ends the answerer.
pub struct AnswerSender(Arc<Place>);

impl AnswerSender {
    /// Hands a batch over, or gives it back if the answerer is busy, gone or not there yet.
    pub(super) fn offer(&self, answers: Answers) -> Result<(), Answers> {
        let mut slot = self.0.lock();
        if !slot.idle {
            return Err(answers);
        }
        slot.idle = false;
        slot.waiting = Some(answers);
        drop(slot);
        self.0.changed.notify_one();
        Ok(())
    }
}

impl Drop for AnswerSender {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_one();
    }
}

/// Gives out batches of replies one after the other.
pub struct Answerer(Arc<Place>);

impl Answerer {
    /// The answerer and the core's end of it.
    pub fn new() -> (Self, AnswerSender) {
        let place = Arc::new(Place::default());
        (Self(place.clone()), AnswerSender(place))
    }

    /// Runs until the core's end is gone and what it left is answered.
    pub fn run(self) {
        let mut slot = self.0.lock();
        loop {
            if let Some(answers) = slot.waiting.take() {
                drop(slot);
                answers.give();
                slot = self.0.lock();
            } else if slot.ended {
                return;
            } else {
                slot.idle = true;
                slot = idle(|| self.0.changed.wait(slot).unwrap_or_else(PoisonError::into_inner));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::{Sender, bounded};

    use super::*;
    use crate::worker::Worker;

    fn batch(replies: usize, told: &Sender<usize>) -> Answers {
        let answer = |number| {
            let told = told.clone();
            let reply: Reply = Box::new(move |_| told.send(number).expect("heard"));
            Answer { reply, outcome: Ok(Decision::Hold { held: true }) }
        };
        Answers((0..replies).map(answer).collect())
    }

    #[test]
    fn a_batch_is_taken_only_by_an_idle_answerer_and_answered_in_order() {
        let (told, heard) = bounded(8);
        let (answerer, sender) = Answerer::new();
        assert!(sender.offer(batch(1, &told)).is_err(), "nobody is there yet");
        let worker = Worker::spawn("answerer", move || answerer.run()).unwrap();
        let mut waiting = batch(3, &told);
        while let Err(returned) = sender.offer(waiting) {
            waiting = returned;
            std::thread::yield_now();
        }
        // The end is noticed after what was handed over.
        drop(sender);
        worker.join().unwrap();
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn a_busy_or_dead_answerer_gives_batches_back() {
        let (told, heard) = bounded(8);
        let (answerer, sender) = Answerer::new();
        let worker = Worker::spawn("answerer", move || answerer.run()).unwrap();
        let (go, wait) = bounded::<()>(0);
        let blocked = || {
            let wait = wait.clone();
            let reply: Reply = Box::new(move |_| wait.recv_timeout(Duration::from_secs(60)).expect("told to go on"));
            Answers(vec![Answer { reply, outcome: Ok(Decision::Hold { held: true }) }])
        };
        let mut waiting = blocked();
        while let Err(returned) = sender.offer(waiting) {
            waiting = returned;
        }
        let returned = sender.offer(batch(2, &told)).expect_err("it is busy");
        returned.give();
        assert_eq!(heard.len(), 2, "the core answers by itself");
        // Its reply fails and ends the thread: nothing is handed to it any more.
        drop(go);
        assert!(worker.join().is_err());
        assert!(sender.offer(batch(1, &told)).is_err());
    }
}
