//! The functional core: sessions, runs, per-session queues, idempotency.
//! Owns: the meaning of every record that is not the journal's own, and the state folded from them.
//! May touch: nothing outside this folder but `ids`, `hex` and `limits`.
//! Never: reads a clock, a file, a socket or a random source; starts a thread; blocks.
//!
//! Commands go in ([`Command`]), events come out ([`Event`]), and [`Txn::apply`] is the only code that turns
//! an event into state: live traffic, replay and the simulation share it. A [`Txn`] stages one batch over the
//! committed [`State`]; a batch that could not be written is dropped with its transaction, never undone.

mod command;
mod decide;
mod digest_map;
mod event;
mod run;
mod session;
mod snapshot;
mod state;
mod txn;
mod view;

pub use command::{Command, Decision, IdempotencyKey, Note, NoteKind, Outcome, Refusal};
pub use event::{Body, DecodeError, Event, Failure, Idempotency, ResumeFinding, SubmittedBy};
pub use run::{Run, RunStatus, RunTable};
pub use session::{Session, SessionStatus};
pub use snapshot::{Frozen, RestoreError};
pub use state::{Counts, State};
pub use txn::{Delta, Txn};
pub use view::{Order, RunPage, RunPosition, RunQuery, SessionPage, SessionView};
