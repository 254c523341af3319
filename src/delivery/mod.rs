//! Output on its way to reply targets.
//! Owns: the senders, the forms of addresses and envelopes, and what an answer means.
//! May touch: the network through `net`, secrets through the broker, the core and the log.
//! Never: decides what is owed or when it is due (the core does), or sends what could not be recorded.

mod answer;
mod envelope;
mod prepare;
mod room;
mod sender;
mod settings;
mod target;

pub use room::{DeliveryRoom, Parts};
pub use settings::{PolicyError, policy_from_environment};
pub use target::{Address, ConnectorEgress, Connectors, EgressError, ReplyTargetInput, TargetError, Trust};
