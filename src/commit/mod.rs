//! The core thread: decides commands in batches and makes each batch durable before anybody hears of it.
//! Owns: the committed state, the journal's writing end, and the order of the two.
//! May touch: core, journal, the clock handed to it, and the effects handed to it.
//! Never: waits on another thread; replies and effects go to places that cannot block.

mod actions;
mod answers;
mod batch;
mod handle;
mod published;
mod restore;
mod snapshotter;
mod start_hold;

pub use actions::{ActionLedger, OwnRequest, OwnResponse};
pub use answers::{AnswerSender, Answerer};
pub use batch::{CommitLoop, Effects, Parts};
pub use handle::{CommandError, CoreHandle, Job, Reply, WaitingQuery};
pub use published::{CoreView, Published};
pub use restore::Restored;
pub use snapshotter::{SnapshotJob, Snapshotter};
pub use start_hold::StartHold;

#[cfg(test)]
mod tests;
