//! `assets`: files that are kept for inputs to come.
//! Owns: their paths.
//! Never: judges a file; the daemon does.

use argh::{ArgsInfo, FromArgs};

use super::context::Context;
use super::exit::CliError;
use super::input::attachment;
use super::json_text::Document;
use super::path::Path;
use super::verbs::Command;

/// keep a picture, a PDF or a text for inputs to come; its id goes with `sessions input --asset`
#[derive(FromArgs, ArgsInfo)]
pub struct Import {
    /// the file
    #[argh(positional)]
    path: String,
}

impl Command for Import {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let body = Document::of(&attachment(&self.path)?);
        let answer = context.client()?.post(&Path::new("/v1/assets"), Some(body.as_str().as_bytes()), &[])?;
        context.out.document(&answer)
    }
}

/// show what is kept under an id
#[derive(FromArgs, ArgsInfo)]
pub struct Get {
    /// the asset's id, or its digest
    #[argh(positional)]
    asset_id: String,
}

impl Command for Get {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let answer = context.client()?.get(&Path::new("/v1/assets").segment(&self.asset_id))?;
        context.out.document(&answer)
    }
}
