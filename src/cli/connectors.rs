//! `connectors …`: where work arrives from outside.
//! Owns: the verbs, and the reading of a configuration before it is sent.
//! Never: prints a secret, or sends one where it could be read on the way.

use argh::{ArgsInfo, FromArgs};
use serde_json::Value;

use super::context::Context;
use super::exit::CliError;
use super::input::read_file;
use super::path::Path;
use super::table::{Column, text};
use super::verbs::Command;
use crate::limits::CONNECTOR_CONFIG_BYTES_MAX;
use crate::secret::Secret;

const PATH: &str = "/v1/runtime/connectors";

const COLUMNS: &[Column] = &[
    text("KIND", &["/kind"]),
    text("NAME", &["/name"]),
    text("SOURCE", &["/source"]),
    text("MODE", &["/mode"]),
    text("PROCESS", &["/process/state"]),
    text("INGRESS", &["/ingress_path"]),
];

/// list the connectors: never their secrets
#[derive(FromArgs, ArgsInfo)]
pub struct List {}

impl Command for List {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let document = context.client()?.get(&Path::new(PATH))?;
        document.require_list(PATH)?;
        context.out.list(&document, COLUMNS)
    }
}

/// show a connector: every field, secrets by reference, its sidecar's process
#[derive(FromArgs, ArgsInfo)]
pub struct Get {
    /// http, slack, telegram or external
    #[argh(positional)]
    kind: String,
    /// its name
    #[argh(positional)]
    name: String,
}

impl Command for Get {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let path = Path::new(PATH).segment(&self.kind).segment(&self.name);
        let document = context.client()?.get(&path)?;
        document.require_object(PATH)?;
        context.out.document(&document)
    }
}

/// delete a connector; its sidecar ends and its leases with it
#[derive(FromArgs, ArgsInfo)]
pub struct Delete {
    /// http, slack, telegram or external
    #[argh(positional)]
    kind: String,
    /// its name
    #[argh(positional)]
    name: String,
}

impl Command for Delete {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let path = Path::new(PATH).segment(&self.kind).segment(&self.name);
        let document = context.client()?.delete(&path)?;
        context.out.document(&document)
    }
}

/// create an http connector or change fields of it; null clears one
#[derive(FromArgs, ArgsInfo)]
pub struct PutHttp {
    /// its name
    #[argh(positional)]
    name: String,
    /// the fields as JSON; a secret in it is visible in process lists, prefer --file
    #[argh(option, arg_name = "json")]
    json: Option<String>,
    /// the fields as a JSON file
    #[argh(option, arg_name = "path")]
    file: Option<String>,
}

impl Command for PutHttp {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        put(context, "http", &self.name, self.json, self.file)
    }
}

/// create a Slack connector or change fields of it; null clears one
#[derive(FromArgs, ArgsInfo)]
pub struct PutSlack {
    /// its name
    #[argh(positional)]
    name: String,
    /// the fields as JSON; a secret in it is visible in process lists, prefer --file
    #[argh(option, arg_name = "json")]
    json: Option<String>,
    /// the fields as a JSON file
    #[argh(option, arg_name = "path")]
    file: Option<String>,
}

impl Command for PutSlack {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        put(context, "slack", &self.name, self.json, self.file)
    }
}

/// create a Telegram connector or change fields of it; null clears one
#[derive(FromArgs, ArgsInfo)]
pub struct PutTelegram {
    /// its name
    #[argh(positional)]
    name: String,
    /// the fields as JSON; a secret in it is visible in process lists, prefer --file
    #[argh(option, arg_name = "json")]
    json: Option<String>,
    /// the fields as a JSON file
    #[argh(option, arg_name = "path")]
    file: Option<String>,
}

impl Command for PutTelegram {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        put(context, "telegram", &self.name, self.json, self.file)
    }
}

/// create an external connector or change fields of it; a sidecar is stopped and started again
#[derive(FromArgs, ArgsInfo)]
pub struct PutExternal {
    /// its name
    #[argh(positional)]
    name: String,
    /// the fields as JSON; a secret in it is visible in process lists, prefer --file
    #[argh(option, arg_name = "json")]
    json: Option<String>,
    /// the fields as a JSON file
    #[argh(option, arg_name = "path")]
    file: Option<String>,
}

impl Command for PutExternal {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        put(context, "external", &self.name, self.json, self.file)
    }
}

fn put(
    context: &mut Context<'_>,
    kind: &str,
    name: &str,
    json: Option<String>,
    file: Option<String>,
) -> Result<(), CliError> {
    let body = match (json, file) {
        (Some(json), None) => json,
        (None, Some(path)) => read_file(&path, CONNECTOR_CONFIG_BYTES_MAX)?,
        (given, _) => {
            let cause = if given.is_none() { "it is missing" } else { "it was given twice" };
            return Err(CliError::invalid("the configuration", cause, "use one of --json and --file"));
        }
    };
    let parsed: Value = serde_json::from_str(&body)
        .map_err(|error| CliError::invalid("the configuration", format!("not JSON: {error}"), "give a JSON object"))?;
    if !parsed.is_object() {
        return Err(CliError::invalid("the configuration", "it is no object", "give a JSON object"));
    }
    let path = Path::new(PATH).segment(kind).segment(name);
    let document = context.client()?.put_secret(&path, &Secret::new(body.into_bytes()))?;
    context.out.document(&document)
}

/// let nothing pass through connectors; sidecars are stopped
#[derive(FromArgs, ArgsInfo)]
pub struct Hold {
    /// words for the record
    #[argh(option, arg_name = "text")]
    reason: Option<String>,
}

impl Command for Hold {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        hold(context, true, self.reason)
    }
}

/// let events pass again and start sidecars, as after a restored state root was checked
#[derive(FromArgs, ArgsInfo)]
pub struct Release {
    /// words for the record
    #[argh(option, arg_name = "text")]
    reason: Option<String>,
}

impl Command for Release {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        hold(context, false, self.reason)
    }
}

fn hold(context: &mut Context<'_>, held: bool, reason: Option<String>) -> Result<(), CliError> {
    let body = serde_json::json!({"held": held, "reason": reason}).to_string();
    let path = Path::new("/v1/runtime/connectors/hold");
    let document = context.client()?.post(&path, Some(body.as_bytes()), &[])?;
    context.out.document(&document)
}
