//! Engine workers: carry an active run from its input to its end.
//! Owns: the run in hand and the handle that stops it.
//! May touch: core (through its handle), journal (reading), broker (leases), providers, net, the stream hub.
//! Never: holds a secret; keeps anything that the journal does not; holds a thread for a run that waits.

mod credential;
mod records;
mod stops;
mod transcript;
mod turn;

pub use stops::Stops;
pub use turn::{Engine, Tools};
