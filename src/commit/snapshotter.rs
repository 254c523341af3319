//! The thread that writes snapshots while the core moves on.
//! Owns: nothing durable; it is handed a frozen state and a place to write it.
//! Never: makes the core wait; a failed snapshot costs start-up time, not data.

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::core::Frozen;
use crate::journal::{Head, SnapshotWriter};
use crate::worker::idle;

/// One snapshot to write.
pub struct SnapshotJob {
    /// Where the journal stood.
    pub head: Head,
    /// The state there.
    pub frozen: Frozen,
    /// The journal's segment table at that point, and where snapshots go.
    pub writer: SnapshotWriter,
    /// When it was taken, Unix milliseconds.
    pub at_ms: u64,
}

/// Writes snapshots one after the other.
pub struct Snapshotter {
    inbox: Receiver<SnapshotJob>,
}

impl Snapshotter {
    /// The writer and its inbox, which holds one job and the last one of a life.
    pub fn new() -> (Self, Sender<SnapshotJob>) {
        let (sender, inbox) = bounded(2);
        (Self { inbox }, sender)
    }

    /// Runs until every sender is gone.
    pub fn run(self) {
        while let Ok(job) = idle(|| self.inbox.recv()) {
            write(job);
        }
    }

    /// Writes what waits, without waiting for more: for a caller that has no thread to spare.
    pub fn write_pending(&self) {
        self.inbox.try_iter().for_each(write);
    }
}

fn write(job: SnapshotJob) {
    let SnapshotJob { head, frozen, writer, at_ms } = job;
    match writer.write(&head, at_ms, &mut frozen.into_lines()) {
        Ok(()) => log::info!("snapshot written at seq {}", head.seq),
        Err(error) => log::error!("snapshot at seq {} failed: {error}; the next start replays more", head.seq),
    }
}
