//! `status` and `capabilities`.
//! Owns: nothing but the two paths.
//! Never: interprets the views.

use argh::{ArgsInfo, FromArgs};

use super::context::Context;
use super::exit::CliError;
use super::path::Path;
use super::verbs::Command;

/// show health, storage, readiness, runs and events of the daemon
#[derive(FromArgs, ArgsInfo)]
pub struct Status {}

impl Command for Status {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_object(context, Path::new("/v1/status"))
    }
}

/// show what the daemon's interface offers
#[derive(FromArgs, ArgsInfo)]
pub struct Capabilities {}

impl Command for Capabilities {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_object(context, Path::new("/v1/capabilities"))
    }
}

/// Fetches one object and prints it.
///
/// # Errors
/// As the client's; an answer that is no object is a schema error.
pub fn show_object(context: &mut Context<'_>, path: Path) -> Result<(), CliError> {
    let document = context.client()?.get(&path)?;
    document.require_object(path.as_str())?;
    context.out.document(&document)
}
