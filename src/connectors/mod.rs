//! Connectors: where work arrives from outside, and the sidecar processes behind some of them.
//! Owns: their configuration rules, the table of those in force, signatures, rates, and the supervision of sidecars.
//! May touch: the file of `--connectors-config`, once; secrets by leases of the broker; child processes of this same binary.
//! Never: keeps a secret longer than the table that it belongs to, or lets a byte be read as an event before it was verified.

pub mod bucket;
pub mod check;
pub mod config;
pub mod egress;
pub mod file;
pub mod registry;
pub mod secrets;
pub mod sidecar;
pub mod signature;
pub mod view;
pub mod webhook;

pub use config::{SecretRef, Settings};
pub use egress::TELEGRAM_API;
pub use registry::{Entry, Registry, Source, environment_secrets};
pub use secrets::{from_environment, variable};
pub use sidecar::Sidecars;
