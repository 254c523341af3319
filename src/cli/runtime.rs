//! `runtime …`.
//! Owns: paths and bodies of the runtime.
//! Never: interprets the views.

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;

use super::context::Context;
use super::exit::CliError;
use super::json_text::Document;
use super::overview::show_object;
use super::path::Path;
use super::sessions::post_object;
use super::verbs::Command;

/// show the configuration in force
#[derive(FromArgs, ArgsInfo)]
pub struct Get {}

impl Command for Get {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_object(context, Path::new("/v1/runtime"))
    }
}

/// accept runs but start none, as after a restore, until they are released
#[derive(FromArgs, ArgsInfo)]
pub struct Hold {
    /// why, for the record
    #[argh(option, arg_name = "text")]
    reason: Option<String>,
}

/// start held runs again
#[derive(FromArgs, ArgsInfo)]
pub struct Release {
    /// why, for the record
    #[argh(option, arg_name = "text")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct HoldBody<'a> {
    held: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

fn set_hold(context: &mut Context<'_>, held: bool, reason: Option<&str>) -> Result<(), CliError> {
    let body = Document::of(&HoldBody { held, reason });
    post_object(context, &Path::new("/v1/runtime/hold"), Some(&body))
}

impl Command for Hold {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        set_hold(context, true, self.reason.as_deref())
    }
}

impl Command for Release {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        set_hold(context, false, self.reason.as_deref())
    }
}
