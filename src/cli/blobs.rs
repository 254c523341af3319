//! `runs blobs`, `runs blob`.
//! Owns: their paths, and following the pages of one blob.
//! Never: interprets a result.

use argh::{ArgsInfo, FromArgs};
use serde::Deserialize;

use super::client::decode;
use super::context::Context;
use super::exit::CliError;
use super::json_text::terminal_safe;
use super::path::Path;
use super::sessions::show_list;
use super::table::{Column, text};
use super::verbs::Command;

const COLUMNS: &[Column] =
    &[text("CALL", &["/call"]), text("TOOL", &["/tool"]), text("BYTES", &["/bytes"]), text("SHA256", &["/sha256"])];

fn blobs(run: &str) -> Path {
    Path::new("/v1/runs").segment(run).then("/blobs")
}

/// list the results of a run's tools that are kept whole because the model was shown only a part
#[derive(FromArgs, ArgsInfo)]
pub struct Blobs {
    /// the run
    #[argh(positional)]
    run_id: String,
}

impl Command for Blobs {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_list(context, blobs(&self.run_id), COLUMNS)
    }
}

/// print one of them as it is
#[derive(FromArgs, ArgsInfo)]
pub struct Blob {
    /// the run
    #[argh(positional)]
    run_id: String,
    /// its digest, as `runs blobs` lists it
    #[argh(positional)]
    sha256: String,
}

#[derive(Deserialize)]
struct Page {
    content: String,
    next_offset: Option<u64>,
}

impl Command for Blob {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let client = context.client()?;
        let mut next = Some(0);
        while let Some(offset) = next {
            let path = blobs(&self.run_id).segment(&self.sha256).query("offset", Some(&offset.to_string()));
            let page: Page = decode(&client.get(&path)?, path.as_str())?;
            // A terminal must not be steered by what a tool wrote; a file gets the text.
            if context.out.stdout_is_terminal {
                context.out.text(&terminal_safe(&page.content))?;
            } else {
                context.out.text(&page.content)?;
            }
            next = page.next_offset.filter(|next| *next > offset);
        }
        Ok(())
    }
}
