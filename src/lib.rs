//! kheish-daemon: owns AI-agent execution. docs/architecture.md has the map; start there.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod clock;
pub mod core;
pub mod ids;
pub mod limits;
pub mod secret;
pub mod sys;
pub mod worker;
