//! `runtime auth accounts …`.
//! Owns: paths and table columns of OAuth accounts.
//! Never: interprets the views.

use argh::{ArgsInfo, FromArgs};

use super::context::Context;
use super::exit::CliError;
use super::overview::show_object;
use super::path::Path;
use super::sessions::{post_object, show_list};
use super::table::{Column, text, time};
use super::verbs::Command;

const COLUMNS: &[Column] = &[
    text("SLOT", &["/slot_id"]),
    text("SERVER", &["/details/server_name"]),
    time("EXPIRES", &["/details/expires_at_ms"]),
    time("REFRESHED", &["/details/last_refresh_at_ms"]),
    text("OUTCOME", &["/details/last_refresh_outcome"]),
    text("BLOCKED", &["/blocked"]),
];

fn accounts() -> Path {
    Path::new("/v1/runtime/auth/accounts")
}

/// list OAuth accounts: never their tokens
#[derive(FromArgs, ArgsInfo)]
pub struct List {}

impl Command for List {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_list(context, accounts(), COLUMNS)
    }
}

/// show an OAuth account: never its tokens
#[derive(FromArgs, ArgsInfo)]
pub struct Get {
    /// name of its slot
    #[argh(positional)]
    slot_id: String,
}

impl Command for Get {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_object(context, accounts().segment(&self.slot_id))
    }
}

/// refresh an account's token now
#[derive(FromArgs, ArgsInfo)]
pub struct Refresh {
    /// name of its slot
    #[argh(positional)]
    slot_id: String,
}

impl Command for Refresh {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        post_object(context, &accounts().segment(&self.slot_id).then("/refresh"), None)
    }
}

/// delete an account here; its authorization server is not told
#[derive(FromArgs, ArgsInfo)]
pub struct Revoke {
    /// name of its slot
    #[argh(positional)]
    slot_id: String,
}

impl Command for Revoke {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        post_object(context, &accounts().segment(&self.slot_id).then("/revoke"), None)
    }
}
