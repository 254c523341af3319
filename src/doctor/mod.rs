//! What is wrong with a daemon: from evidence to findings, each with the command that helps.
//! Owns: the table of codes, and the judgement of everything that `doctor` saw.
//! May touch: nothing; evidence comes in, a list of findings goes out. Only `offline` reads a state root.
//! Never: lets missing evidence pass for good news, drops a finding, or repeats a secret.

pub mod codes;
mod codes_offline;
mod codes_routes;
pub mod cors;
pub mod finding;
pub mod offline;
pub mod readiness;
pub mod routes;
pub mod status;
pub mod streams;

pub use finding::{Check, Findings, Severity, Verdict};
