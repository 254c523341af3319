//! `scripted-provider`: a model provider that follows a script.
//! Owns: the option names, and the wait for a signal.
//! May touch: the signal flags of this process.
//! Never: knows the script's form; `scripted` does.

use std::net::SocketAddr;
use std::path::Path;

use argh::{ArgsInfo, FromArgs};

use super::context::Context;
use super::exit::CliError;
use super::verbs::Command;
use crate::logging;
use crate::sys::StopSignals;

/// serve the OpenAI wire format from a script, for demos, tests and air-gapped acceptance
#[derive(FromArgs, ArgsInfo)]
pub struct ScriptedProvider {
    /// loopback address to listen on; port 0 chooses one, the first line printed says which
    #[argh(option, arg_name = "ip:port")]
    bind: SocketAddr,
    /// TOML file with the script
    #[argh(option, arg_name = "path")]
    script: String,
}

impl Command for ScriptedProvider {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        logging::init(logging::Format::Auto, log::LevelFilter::Info)
            .map_err(|error| CliError::component("logging", error))?;
        let signals = StopSignals::install().map_err(|error| CliError::component("signals", error))?;
        let wait_for_stop = || {
            while signals.wait(-1) == 0 {}
        };
        crate::scripted::run(self.bind, Path::new(&self.script), context.out.stdout, wait_for_stop)
            .map_err(|error| CliError::component("scripted-provider", error))
    }
}
