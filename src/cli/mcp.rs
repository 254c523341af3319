//! `mcp …`: servers and their tools, the catalog that comes with the daemon, and the secrets of its entries.
//! Owns: paths, bodies and table columns.
//! Never: interprets the views; asks the daemon for what the binary itself knows.

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;
use serde_json::value::RawValue;

use super::context::Context;
use super::exit::CliError;
use super::json_file;
use super::json_text::Document;
use super::overview::show_object;
use super::path::Path;
use super::sessions::{post_object, show_list};
use super::table::{Column, text};
use super::verbs::Command;
use crate::mcp::catalog;

const SERVERS: &[Column] = &[
    text("SERVER", &["/server"]),
    text("TRANSPORT", &["/transport"]),
    text("ADDRESS", &["/address"]),
    text("ENABLED", &["/enabled"]),
    text("CONNECTED", &["/connected"]),
    text("ERROR", &["/error"]),
];

const TOOLS: &[Column] = &[text("TOOL", &["/tool"]), text("NAME", &["/name"]), text("TITLE", &["/title"])];

const ENTRIES: &[Column] = &[
    text("ENTRY", &["/id"]),
    text("SERVER", &["/server"]),
    text("STATUS", &["/status"]),
    text("RISK", &["/risk"]),
    text("AUTH", &["/auth"]),
];

fn servers() -> Path {
    Path::new("/v1/mcp/servers")
}

/// list MCP servers, as they were seen last
#[derive(FromArgs, ArgsInfo)]
pub struct List {}

impl Command for List {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_list(context, servers(), SERVERS)
    }
}

/// show an MCP server
#[derive(FromArgs, ArgsInfo)]
pub struct Get {
    /// its name
    #[argh(positional)]
    server: String,
}

impl Command for Get {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_object(context, servers().segment(&self.server))
    }
}

/// list the tools of an MCP server that models are offered
#[derive(FromArgs, ArgsInfo)]
pub struct Tools {
    /// the server
    #[argh(positional)]
    server: String,
}

impl Command for Tools {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_list(context, servers().segment(&self.server).then("/tools"), TOOLS)
    }
}

/// call a tool of an MCP server; signed and recorded like every external action
#[derive(FromArgs, ArgsInfo)]
pub struct Call {
    /// the server
    #[argh(positional)]
    server: String,
    /// the tool, as the server or as models spell it
    #[argh(positional)]
    tool: String,
    /// its arguments: one JSON object
    #[argh(option, arg_name = "json")]
    arguments: Option<String>,
    /// file with the arguments
    #[argh(option, arg_name = "path")]
    arguments_file: Option<String>,
    /// give up after this time, 25000 at most
    #[argh(option, arg_name = "ms")]
    timeout_ms: Option<u64>,
}

#[derive(Serialize)]
struct CallBody<'a> {
    tool: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
}

impl Command for Call {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let arguments = match (&self.arguments, &self.arguments_file) {
            (Some(_), Some(_)) => {
                return Err(CliError::invalid("the arguments", "they are given twice", "use one of the two options"));
            }
            (Some(text), None) => Some(json_file::parse("--arguments", text)?),
            (None, Some(path)) => Some(json_file::read(Some(path), false, context.stdin)?),
            (None, None) => None,
        };
        let body = Document::of(&CallBody { tool: &self.tool, arguments, timeout_ms: self.timeout_ms });
        post_object(context, &servers().segment(&self.server).then("/tools/call"), Some(&body))
    }
}

/// use an MCP server again
#[derive(FromArgs, ArgsInfo)]
pub struct Enable {
    /// the server
    #[argh(positional)]
    server: String,
}

impl Command for Enable {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        post_object(context, &servers().segment(&self.server).then("/enable"), None)
    }
}

/// switch an MCP server off, now and after a restart
#[derive(FromArgs, ArgsInfo)]
pub struct Disable {
    /// the server
    #[argh(positional)]
    server: String,
}

impl Command for Disable {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        post_object(context, &servers().segment(&self.server).then("/disable"), None)
    }
}

/// end an MCP server's connection and make another
#[derive(FromArgs, ArgsInfo)]
pub struct Reconnect {
    /// the server
    #[argh(positional)]
    server: String,
}

impl Command for Reconnect {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        post_object(context, &servers().segment(&self.server).then("/reconnect"), None)
    }
}

/// remove an MCP server, also for later starts with the same configuration
#[derive(FromArgs, ArgsInfo)]
pub struct Remove {
    /// the server
    #[argh(positional)]
    server: String,
}

impl Command for Remove {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let path = servers().segment(&self.server);
        let document = context.client()?.delete(&path)?;
        document.require_object(path.as_str())?;
        context.out.document(&document)
    }
}

/// list the servers that the daemon knows without a configuration; needs no daemon
#[derive(FromArgs, ArgsInfo)]
pub struct CatalogList {
    /// only those of this profile
    #[argh(option, arg_name = "name")]
    profile: Option<String>,
    /// only those that can be used
    #[argh(switch)]
    supported_only: bool,
}

impl Command for CatalogList {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let profile = self.profile.as_ref().map(|name| known_profile(name)).transpose()?;
        let entries: Vec<_> = catalog::ENTRIES
            .iter()
            .filter(|entry| profile.is_none_or(|profile| entry.profiles.contains(&profile)))
            .filter(|entry| !self.supported_only || entry.status == "supported")
            .collect();
        context.out.list(&Document::of(&entries), ENTRIES)
    }
}

/// show an entry of the catalog; needs no daemon
#[derive(FromArgs, ArgsInfo)]
pub struct CatalogGet {
    /// the entry
    #[argh(positional)]
    id: String,
}

impl Command for CatalogGet {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        context.out.document(&Document::of(entry(&self.id)?))
    }
}

#[derive(Serialize)]
struct Profile {
    profile: &'static str,
    supported: bool,
    entries: Vec<&'static str>,
}

impl Profile {
    fn of(profile: &'static str) -> Self {
        let has = |entry: &&catalog::Entry| entry.profiles.contains(&profile);
        Self {
            profile,
            supported: catalog::ENTRIES.iter().filter(has).any(|entry| entry.status == "supported"),
            entries: catalog::ENTRIES.iter().filter(has).map(|entry| entry.id).collect(),
        }
    }
}

/// list the profiles of the catalog; needs no daemon
#[derive(FromArgs, ArgsInfo)]
pub struct ProfilesList {}

impl Command for ProfilesList {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let profiles: Vec<Profile> = catalog::PROFILES.into_iter().map(Profile::of).collect();
        context
            .out
            .list(&Document::of(&profiles), &[text("PROFILE", &["/profile"]), text("SUPPORTED", &["/supported"])])
    }
}

/// show a profile of the catalog with its entries; needs no daemon
#[derive(FromArgs, ArgsInfo)]
pub struct ProfilesGet {
    /// the profile
    #[argh(positional)]
    profile: String,
}

impl Command for ProfilesGet {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        context.out.document(&Document::of(&Profile::of(known_profile(&self.profile)?)))
    }
}

fn known_profile(name: &str) -> Result<&'static str, CliError> {
    let lower = name.to_ascii_lowercase();
    catalog::PROFILES.into_iter().find(|profile| *profile == lower).ok_or_else(|| {
        CliError::invalid(
            format!("profile {name}"),
            "there is none of this name",
            "see kheish-daemon mcp profiles list",
        )
    })
}

fn entry(id: &str) -> Result<&'static catalog::Entry, CliError> {
    catalog::find(id).ok_or_else(|| {
        CliError::invalid(format!("entry {id}"), "there is none of this name", "see kheish-daemon mcp catalog list")
    })
}

#[derive(Serialize)]
struct Slots<'a> {
    id: &'a str,
    credential_secret_refs: &'a [&'a str],
}

/// show the slots in which an entry of the catalog looks for its secret; needs no daemon
#[derive(FromArgs, ArgsInfo)]
pub struct AuthSlots {
    /// the entry
    #[argh(positional)]
    id: String,
}

impl Command for AuthSlots {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let entry = entry(&self.id)?;
        let slots = Slots { id: entry.id, credential_secret_refs: entry.credential_secret_refs };
        context.out.document(&Document::of(&slots))
    }
}

/// store the secret of an entry of the catalog in its slot
#[derive(FromArgs, ArgsInfo)]
pub struct AuthSet {
    /// the entry
    #[argh(positional)]
    id: String,
    /// read the value from this environment variable
    #[argh(option, arg_name = "name")]
    from_env: Option<String>,
    /// read the value from this file, less one line end
    #[argh(option, arg_name = "path")]
    from_file: Option<String>,
    /// read the value from standard input, less one line end
    #[argh(switch)]
    stdin: bool,
    /// write the store of --state-root directly; the daemon must be stopped
    #[argh(switch)]
    offline: bool,
    /// with --offline: the state root
    #[argh(option, arg_name = "dir")]
    state_root: Option<String>,
}

impl Command for AuthSet {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let entry = entry(&self.id)?;
        let Some(slot) = entry.credential_secret_refs.first() else {
            return Err(CliError::invalid(format!("entry {}", entry.id), "it needs no secret", "use it as it is"));
        };
        super::secrets::Set::generic(slot, self.from_env, self.from_file, self.stdin, self.offline, self.state_root)
            .run(context)
    }
}
