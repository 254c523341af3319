//! The delivery room: its threads, and their end.
//! Owns: the senders.
//! May touch: threads through `worker`.
//! Never: keeps state; what is owed and due is the core's.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use super::sender::Sender;
use super::target::Connectors;
use crate::broker::BrokerHandle;
use crate::clock::Clock;
use crate::commit::CoreHandle;
use crate::core::DeliveryPolicy;
use crate::journal::Reader;
use crate::limits::{DELIVERY_DRAIN_MS, DELIVERY_SENDERS};
use crate::net::{Cancel, Net};
use crate::worker::Worker;

/// What senders work with.
pub struct Parts {
    /// What is owed and due.
    pub core: CoreHandle,
    /// Addresses and contents.
    pub reader: Reader,
    /// The way out.
    pub net: Net,
    /// Secrets of HTTP targets.
    pub broker: BrokerHandle,
    /// Who knows the connectors.
    pub connectors: Arc<dyn Connectors>,
    /// How retries are spaced.
    pub policy: DeliveryPolicy,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
}

/// [`Parts`], shared.
pub(super) type Surroundings = Arc<Parts>;

/// The senders at work.
pub struct DeliveryRoom {
    senders: Vec<Worker>,
    stopping: Cancel,
    cut: Cancel,
    /// Disconnects with the last sender.
    ended: Receiver<Infallible>,
}

impl DeliveryRoom {
    /// Starts [`DELIVERY_SENDERS`] senders.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub fn start(parts: Parts) -> io::Result<Self> {
        let around: Surroundings = Arc::new(parts);
        let (stopping, cut) = (Cancel::new(), Cancel::new());
        let (alive, ended) = bounded::<Infallible>(0);
        let start = |number: usize| {
            let sender = Sender::new(around.clone(), stopping.clone(), cut.child());
            let alive = alive.clone();
            Worker::spawn(format!("delivery-{number}"), move || {
                sender.run();
                drop(alive);
            })
        };
        let senders = (1..=DELIVERY_SENDERS).map(start).collect::<io::Result<_>>()?;
        Ok(Self { senders, stopping, cut, ended })
    }

    /// The senders, for whoever watches threads.
    pub fn workers(&self) -> &[Worker] {
        &self.senders
    }

    /// Takes no further delivery, waits for those in flight for at most [`DELIVERY_DRAIN_MS`], cuts off the rest, and
    /// ends the senders. What was cut off is sent again after the next start, with the same key and body.
    ///
    /// # Errors
    /// The names of the senders that panicked.
    pub fn stop(self) -> Result<(), String> {
        self.stopping.cancel();
        // Nothing is ever sent: it disconnects, or time is up.
        let _ended_or_timed_out = self.ended.recv_timeout(Duration::from_millis(DELIVERY_DRAIN_MS));
        self.cut.cancel();
        let panics = self.senders.into_iter().filter_map(|sender| sender.join().err());
        let panics: Vec<String> = panics.map(|panicked| panicked.to_string()).collect();
        if panics.is_empty() { Ok(()) } else { Err(panics.join("; ")) }
    }
}
