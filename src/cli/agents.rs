//! `agents …` and `mailboxes …`.
//! Owns: paths, bodies and table columns of agents and their mailboxes.
//! Never: interprets an agent.

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;
use serde_json::Value;

use super::context::Context;
use super::exit::CliError;
use super::input::split_route;
use super::json_text::Document;
use super::overview::show_object;
use super::path::Path;
use super::runtime_config::mode;
use super::sessions::{paged, post_object, show_list};
use super::table::{Column, text, time};
use super::verbs::Command;

const COLUMNS: &[Column] = &[
    text("AGENT", &["/agent_id"]),
    text("PARENT", &["/parent/agent_id"]),
    text("STATUS", &["/status"]),
    text("CLOSED", &["/closed"]),
    text("NAME", &["/name"]),
    text("MAIL", &["/mailbox_message_count"]),
    time("UPDATED", &["/updated_at_ms"]),
    text("SESSION", &["/session_id"]),
];
const MAIL_COLUMNS: &[Column] = &[
    text("MESSAGE", &["/id"]),
    text("STATE", &["/state"]),
    text("FROM", &["/from"]),
    time("CREATED", &["/created_at_ms"]),
    text("SUBJECT", &["/subject"]),
    text("ERROR", &["/last_error"]),
];

fn agent(id: &str) -> Path {
    Path::new("/v1/agents").segment(id)
}

/// list agents: those of all sessions, or of one session and below
#[derive(FromArgs, ArgsInfo)]
pub struct List {
    /// only the agent of this session and those below it
    #[argh(option, arg_name = "session")]
    session_id: Option<String>,
    /// answer with a page and its cursor instead of a plain list
    #[argh(switch)]
    page: bool,
    /// at most this many
    #[argh(option, arg_name = "n")]
    limit: Option<u32>,
    /// continue behind this cursor
    #[argh(option, arg_name = "cursor")]
    cursor: Option<String>,
}

impl Command for List {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let path = Path::new("/v1/agents").query("session_id", self.session_id.as_deref());
        show_list(context, paged(path, self.page, self.limit, self.cursor.as_deref()), COLUMNS)
    }
}

/// show one agent
#[derive(FromArgs, ArgsInfo)]
pub struct Get {
    /// the agent
    #[argh(positional)]
    agent_id: String,
}

impl Command for Get {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_object(context, agent(&self.agent_id))
    }
}

/// make a child agent with a task of its own; it may use at most what its parent may
#[derive(FromArgs, ArgsInfo)]
pub struct SpawnSidechain {
    /// the parent
    #[argh(positional)]
    agent_id: String,
    /// what it is to do; without it, it waits for input
    #[argh(positional)]
    content: Option<String>,
    /// a word for lists
    #[argh(option, arg_name = "name")]
    nickname: Option<String>,
    /// id of its session; one is made otherwise
    #[argh(option, arg_name = "session")]
    session_id: Option<String>,
    /// only this tool of the parent's, a name may end in *; may be repeated
    #[argh(option, arg_name = "tool")]
    allow_tool: Vec<String>,
    /// not this tool of the parent's; may be repeated
    #[argh(option, arg_name = "tool")]
    block_tool: Vec<String>,
    /// only this route for its runs; may be repeated
    #[argh(option, arg_name = "route")]
    allow_route: Vec<String>,
    /// permission mode, at most as wide as the parent's
    #[argh(option, arg_name = "mode")]
    permission_mode: Option<String>,
    /// directory below the parent's, which is all that it sees
    #[argh(option, arg_name = "dir")]
    workspace: Option<String>,
    /// it cannot change files
    #[argh(switch)]
    read_only: bool,
    /// close it when its work is done
    #[argh(switch)]
    close_on_settle: bool,
    /// route of its first run
    #[argh(option, arg_name = "route")]
    provider: Option<String>,
    /// model of its first run, or route/model
    #[argh(option, arg_name = "model")]
    model: Option<String>,
    /// a repeated request with the same id makes it once
    #[argh(option, arg_name = "id")]
    spawn_request_id: Option<String>,
    /// only tell whether it could be made
    #[argh(switch)]
    explain: bool,
}

#[derive(Serialize)]
struct SpawnBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    nickname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    tool_surface: ToolSurface<'a>,
    credential_scope: CredentialScope<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    permission_mode: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace: Option<&'a str>,
    read_only: bool,
    retention: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    route_policy: Option<RoutePolicy<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spawn_request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subtask: Option<Subtask<'a>>,
}

#[derive(Serialize)]
struct ToolSurface<'a> {
    allow: &'a [String],
    block: &'a [String],
}

#[derive(Serialize)]
struct CredentialScope<'a> {
    route_allow: &'a [String],
}

#[derive(Serialize)]
struct RoutePolicy<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<Generation<'a>>,
}

#[derive(Serialize)]
struct Generation<'a> {
    model: &'a str,
}

#[derive(Serialize)]
struct Subtask<'a> {
    content: &'a str,
}

impl Command for SpawnSidechain {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let permission_mode = self.permission_mode.as_deref().map(mode).transpose()?;
        let (provider, model) = split_route(&context.client()?, self.provider.as_deref(), self.model.as_deref())?;
        let route_policy = (provider.is_some() || model.is_some()).then(|| RoutePolicy {
            provider: provider.as_deref(),
            generation: model.as_deref().map(|model| Generation { model }),
        });
        let body = Document::of(&SpawnBody {
            nickname: self.nickname.as_deref(),
            session_id: self.session_id.as_deref(),
            tool_surface: ToolSurface { allow: &self.allow_tool, block: &self.block_tool },
            credential_scope: CredentialScope { route_allow: &self.allow_route },
            permission_mode,
            workspace: self.workspace.as_deref(),
            read_only: self.read_only,
            retention: if self.close_on_settle { "close_on_settle" } else { "retain" },
            route_policy,
            spawn_request_id: self.spawn_request_id.as_deref(),
            subtask: self.content.as_deref().map(|content| Subtask { content }),
        });
        let path = agent(&self.agent_id).then(if self.explain { "/sidechains/explain" } else { "/sidechains" });
        post_object(context, &path, Some(&body))
    }
}

/// list the messages that wait for an agent or are under way
#[derive(FromArgs, ArgsInfo)]
pub struct Mailbox {
    /// the agent
    #[argh(positional)]
    agent_id: String,
    /// those that could not be delivered instead
    #[argh(switch)]
    dead_letter: bool,
}

impl Command for Mailbox {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let path = agent(&self.agent_id).then(if self.dead_letter { "/mailbox/dead-letter" } else { "/mailbox" });
        show_list(context, path, MAIL_COLUMNS)
    }
}

/// take a message out of a mailbox by hand
#[derive(FromArgs, ArgsInfo)]
pub struct Ack {
    /// the agent
    #[argh(positional)]
    agent_id: String,
    /// the message
    #[argh(positional)]
    message_id: String,
}

impl Command for Ack {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let path = agent(&self.agent_id).then("/mailbox").segment(&self.message_id).then("/ack");
        post_object(context, &path, None)
    }
}

/// put a message into an agent's mailbox; a run takes it when the agent is free
#[derive(FromArgs, ArgsInfo)]
pub struct Post {
    /// the agent
    #[argh(positional)]
    agent_id: String,
    /// what it is told: text, or JSON with --json
    #[argh(positional)]
    payload: String,
    /// the payload is JSON
    #[argh(switch)]
    json: bool,
    /// a few words
    #[argh(option, arg_name = "text")]
    subject: Option<String>,
    /// who sends it; operator when left out
    #[argh(option, arg_name = "name")]
    from: Option<String>,
    /// a repeated message with the same id is posted once
    #[argh(option, arg_name = "id")]
    id: Option<String>,
}

#[derive(Serialize)]
struct PostBody<'a> {
    to: &'a str,
    payload: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

impl Command for Post {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let payload = match self.json {
            false => Value::String(self.payload),
            true => serde_json::from_str(&self.payload)
                .map_err(|_| CliError::invalid("the payload", "it is no JSON", "leave --json out for text"))?,
        };
        let body = Document::of(&PostBody {
            to: &self.agent_id,
            payload,
            subject: self.subject.as_deref(),
            from: self.from.as_deref(),
            id: self.id.as_deref(),
        });
        post_object(context, &Path::new("/v1/mailboxes"), Some(&body))
    }
}
