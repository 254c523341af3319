//! Engine workers: carry an active run from its input to its end.
//! Owns: the run in hand and the handle that stops it.
//! May touch: core (through its handle), journal (reading), broker (leases), providers, net, the stream hub.
//! Never: holds a secret; keeps anything that the journal does not; holds a thread for a run that waits.

mod agent_tools;
mod agent_wait;
mod budget;
mod call_counts;
mod compaction;
mod context;
mod credential;
mod gates;
mod guard;
mod hand;
mod input;
mod lanes;
mod live_text;
mod passage;
mod pause;
mod permits;
mod programs;
mod question;
mod records;
mod run;
mod settings;
mod step;
mod stops;
mod structured;
mod toolbox;
mod turn;
mod web_fetch;

pub use agent_tools::AgentTools;
pub use budget::Budget;
pub use call_counts::{CallCounts, CallCountsView};
pub(crate) use credential::InUse;
pub use input::{StoredFile, StoredPart};
pub use lanes::{LaneView, Lanes};
pub use permits::{InForce, Settings};
pub use run::{Engine, Tools};
pub use settings::CoreSettings;
pub use stops::Stops;
pub use structured::OUTPUT_CONTRACT_VIOLATED;
pub use toolbox::{Called, Caller, DaemonTool, RoomQuestion, RunWorker, StartWorker, Toolbox, WorkerScope};
pub use web_fetch::WebFetch;
