//! `runs blobs`, `runs blob`, `runs prune-results`.
//! Owns: their paths, and following the pages of one blob.
//! Never: interprets a result.

use argh::{ArgsInfo, FromArgs};
use serde::{Deserialize, Serialize};

use super::client::decode;
use super::context::Context;
use super::debug::age_ms;
use super::exit::CliError;
use super::json_text::{Document, terminal_safe};
use super::path::Path;
use super::sessions::{post_object, show_list};
use super::table::{Column, text};
use super::verbs::Command;

const COLUMNS: &[Column] = &[
    text("CALL", &["/call"]),
    text("TOOL", &["/tool"]),
    text("BYTES", &["/bytes"]),
    text("KEPT", &["/kept"]),
    text("SHA256", &["/sha256"]),
];

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

/// remove whole results and input files that only runs name which ended long ago; the runs and their records stay
#[derive(FromArgs, ArgsInfo)]
pub struct PruneResults {
    /// age in milliseconds, at least an hour
    #[argh(option, arg_name = "ms")]
    older_than_ms: Option<u64>,
    /// the same as a duration, such as 30d
    #[argh(option, arg_name = "time")]
    older_than: Option<String>,
    /// remove nothing, show what would be removed
    #[argh(switch)]
    dry_run: bool,
}

#[derive(Serialize)]
struct PruneBody {
    older_than_ms: u64,
    dry_run: bool,
}

impl Command for PruneResults {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let older_than_ms = age_ms(self.older_than_ms, self.older_than.as_deref())?;
        let body = PruneBody { older_than_ms, dry_run: self.dry_run };
        post_object(context, &Path::new("/v1/runs/prune-results"), Some(&Document::of(&body)))
    }
}
