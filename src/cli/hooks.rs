//! `runtime hooks …`.
//! Owns: paths and bodies of hooks.
//! Never: decides whether a definition can be used.

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;
use serde_json::value::RawValue;

use super::context::Context;
use super::exit::CliError;
use super::json_file;
use super::json_text::Document;
use super::overview::show_object;
use super::path::Path;
use super::sessions::post_object;
use super::verbs::Command;

/// show the hooks in force, as they were given
#[derive(FromArgs, ArgsInfo)]
pub struct Get {}

impl Command for Get {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_object(context, Path::new("/v1/runtime/hooks"))
    }
}

/// replace all hooks; nothing is changed where any of them cannot be used
#[derive(FromArgs, ArgsInfo)]
pub struct Set {
    /// read the hooks from this JSON file
    #[argh(option, arg_name = "path")]
    file: Option<String>,
    /// read the hooks from standard input
    #[argh(switch)]
    stdin: bool,
    /// refuse when another revision is in force
    #[argh(option, arg_name = "n")]
    expected_revision: Option<u64>,
}

#[derive(Serialize)]
struct SetBody {
    settings: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_revision: Option<u64>,
}

impl Command for Set {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let settings = json_file::read(self.file.as_deref(), self.stdin, context.stdin)?;
        let body = Document::of(&SetBody { settings, expected_revision: self.expected_revision });
        post_object(context, &Path::new("/v1/runtime/hooks"), Some(&body))
    }
}

/// show calls of hooks that came to nothing, oldest first
#[derive(FromArgs, ArgsInfo)]
pub struct DeadLetters {}

impl Command for DeadLetters {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_object(context, Path::new("/v1/runtime/hooks/dead-letter"))
    }
}

/// take a failed call of a hook off the list of those to deal with
#[derive(FromArgs, ArgsInfo)]
pub struct Resolve {
    /// the dead letter, hook-dlq-<n>
    #[argh(positional)]
    id: String,
    /// why, for the record
    #[argh(option, arg_name = "text")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct ResolveBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl Command for Resolve {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let path = Path::new("/v1/runtime/hooks/dead-letter").segment(&self.id).then("/resolve");
        let body = Document::of(&ResolveBody { reason: self.reason.as_deref() });
        post_object(context, &path, Some(&body))
    }
}
