//! What a command has at hand.
//! Owns: the global options as typed, and the way from them to a client.
//! May touch: the environment, the standard streams.
//! Never: makes a connection for a command that did not ask for one.

use std::io::Read;
use std::path::PathBuf;

use super::argv::Given;
use super::client::Client;
use super::environment::Environment;
use super::exit::CliError;
use super::globals::{self, Shared};
use super::output::Output;
use crate::net::{EgressPolicy, Net, NetConfig};

/// What a command has at hand.
pub struct Context<'a> {
    /// Where it writes.
    pub out: Output<'a>,
    /// The environment.
    pub env: &'a Environment,
    /// Standard input.
    pub stdin: &'a mut dyn Read,
    /// The global options that hold for every command.
    pub shared: Shared,
    /// All global options as typed.
    pub globals: Given,
}

impl Context<'_> {
    /// A client of the daemon that the global options name.
    ///
    /// # Errors
    /// The options contradict each other or are unusable.
    pub fn client(&self) -> Result<Client, CliError> {
        let (base_url, token) = globals::connection(&self.globals, self.env)?;
        Ok(Client::new(self.net()?, base_url, token))
    }

    /// The way to what the user names on the command line.
    ///
    /// # Errors
    /// The CA file is unusable, or threads are refused.
    pub fn net(&self) -> Result<Net, CliError> {
        let ca_file = self.shared.ca_file.as_ref().map(PathBuf::from);
        Net::new(&NetConfig { ca_file, resolver_threads: 1, egress: EgressPolicy::command_line() })
            .map_err(|error| CliError::component("cannot prepare the connection", error))
    }
}
