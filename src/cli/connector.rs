//! `connector webhook`: a sidecar of an external connector, in this binary.
//! Owns: the name of the adapter, and the wait for a signal.
//! May touch: the signal flags of this process.
//! Never: knows an adapter's form; `connectors::webhook` does.

use std::collections::BTreeMap;

use argh::{ArgsInfo, FromArgs};

use super::context::Context;
use super::exit::CliError;
use super::verbs::Command;
use crate::connectors::webhook;
use crate::logging;
use crate::sys::StopSignals;

/// serve webhooks as the sidecar of an external connector; the daemon starts it with its environment set
#[derive(FromArgs, ArgsInfo)]
pub struct Webhook {}

impl Command for Webhook {
    fn run(self, _context: &mut Context<'_>) -> Result<(), CliError> {
        logging::init(logging::Format::Auto, log::LevelFilter::Info)
            .map_err(|error| CliError::component("logging", error))?;
        let signals = StopSignals::install().map_err(|error| CliError::component("signals", error))?;
        let environment: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let wait_for_stop = || {
            while signals.wait(-1) == 0 {}
        };
        webhook::run(&environment, wait_for_stop).map_err(|error| CliError::component("connector webhook", error))
    }
}
