//! The threads that run handlers which may block.
//! Owns: the bounded queue between the reactor and them, and the catching of a handler's panic.
//! May touch: the service.
//! Never: ends because of a handler.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::Service;
use super::head::Head;
use super::link::Shared;
use super::request_id;
use super::responder::Responder;
use crate::worker::{Worker, idle, panic_message};

/// One whole request on its way to its handler.
pub(super) struct Job<S: Service> {
    pub admitted: S::Admitted,
    pub head: Head,
    pub body: Vec<u8>,
    pub responder: Responder,
}

/// Starts `count` threads that share a queue of `queue_max` requests. They end when the sender is dropped.
pub(super) fn start<S: Service>(
    service: &Arc<S>,
    shared: &Arc<Shared>,
    count: usize,
    queue_max: usize,
) -> io::Result<(Sender<Job<S>>, Vec<Worker>)> {
    let (sender, inbox) = bounded(queue_max);
    let mut workers = Vec::with_capacity(count);
    for number in 1..=count {
        let (service, shared, inbox) = (service.clone(), shared.clone(), inbox.clone());
        workers.push(Worker::spawn(format!("http-worker-{number}"), move || work(&*service, &shared, &inbox))?);
    }
    Ok((sender, workers))
}

fn work<S: Service>(service: &S, shared: &Shared, inbox: &Receiver<Job<S>>) {
    while let Ok(job) = idle(|| inbox.recv()) {
        shared.counters.queue_depth.fetch_sub(1, Relaxed);
        handle(service, shared, job);
    }
}

/// Runs a handler on the calling thread. If it panics, its responder is dropped and answers 500.
pub(super) fn handle<S: Service>(service: &S, shared: &Shared, job: Job<S>) {
    let _scope = request_id::enter(job.head.request_id);
    let Job { admitted, head, body, responder } = job;
    let outcome = catch_unwind(AssertUnwindSafe(|| service.handle(admitted, head, body, responder)));
    if let Err(payload) = outcome {
        shared.counters.handler_panics.fetch_add(1, Relaxed);
        log::error!("a request handler panicked: {}; next: report this line", panic_message(payload.as_ref()));
    }
}
