//! What a session has of its own: `sessions settings`, `sessions set-…`, `sessions permission-audits`.
//! Owns: paths and bodies.
//! Never: interprets the views.

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;
use serde_json::value::RawValue;

use super::context::Context;
use super::exit::CliError;
use super::input::split_route;
use super::json_file;
use super::json_text::Document;
use super::overview::show_object;
use super::path::Path;
use super::runtime_config::mode;
use super::sessions::post_object;
use super::verbs::Command;

fn session(id: &str) -> Path {
    Path::new("/v1/sessions").segment(id)
}

/// show what a session has of its own: permission mode, permission rules, route policy, contracts
#[derive(FromArgs, ArgsInfo)]
pub struct Settings {
    /// the session
    #[argh(positional)]
    session_id: String,
}

impl Command for Settings {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_object(context, session(&self.session_id).then("/settings"))
    }
}

/// give a session a permission mode of its own
#[derive(FromArgs, ArgsInfo)]
pub struct SetPermissionMode {
    /// the session
    #[argh(positional)]
    session_id: String,
    /// default, accept-edits, bypass-permissions, plan or dont-ask; inherit for the daemon's
    #[argh(positional)]
    mode: String,
}

#[derive(Serialize)]
struct ModeBody {
    mode: Option<&'static str>,
}

impl Command for SetPermissionMode {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let mode = if self.mode == "inherit" { None } else { Some(mode(&self.mode)?) };
        let body = Document::of(&ModeBody { mode });
        post_object(context, &session(&self.session_id).then("/permission-mode"), Some(&body))
    }
}

/// replace a session's own permission rules by a JSON list
#[derive(FromArgs, ArgsInfo)]
pub struct SetPermissionRules {
    /// the session
    #[argh(positional)]
    session_id: String,
    /// read the rules from this file
    #[argh(option, arg_name = "path")]
    file: Option<String>,
    /// read the rules from standard input
    #[argh(switch)]
    stdin: bool,
}

#[derive(Serialize)]
struct RulesBody {
    rules: Box<RawValue>,
}

impl Command for SetPermissionRules {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let rules = json_file::read(self.file.as_deref(), self.stdin, context.stdin)?;
        let path = session(&self.session_id).then("/permission-rules");
        let document = context.client()?.put(&path, Document::of(&RulesBody { rules }).as_str().as_bytes())?;
        document.require_object(path.as_str())?;
        context.out.document(&document)
    }
}

/// set route and model of a session's runs that name none
#[derive(FromArgs, ArgsInfo)]
pub struct SetRoute {
    /// the session
    #[argh(positional)]
    session_id: String,
    /// route
    #[argh(option, arg_name = "route")]
    route: Option<String>,
    /// model, or route/model
    #[argh(option, arg_name = "model")]
    model: Option<String>,
    /// give the choice of both back to the daemon
    #[argh(switch)]
    clear: bool,
}

#[derive(Serialize)]
struct RouteBody<'a> {
    route_policy: RoutePolicy<'a>,
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

impl Command for SetRoute {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let path = session(&self.session_id).then("/route-policy");
        let named = self.route.is_some() || self.model.is_some();
        if named == self.clear {
            let cause = if named { "--clear was given with it" } else { "there is none" };
            return Err(CliError::invalid("the route", cause, "give --route, --model, or --clear alone"));
        }
        if self.clear {
            let document = context.client()?.delete(&path)?;
            document.require_object(path.as_str())?;
            return context.out.document(&document);
        }
        let (provider, model) = split_route(&context.client()?, self.route.as_deref(), self.model.as_deref())?;
        let generation = model.as_deref().map(|model| Generation { model });
        let body = RouteBody { route_policy: RoutePolicy { provider: provider.as_deref(), generation } };
        post_object(context, &path, Some(&Document::of(&body)))
    }
}

/// show the recorded permission decisions of a session, newest first
#[derive(FromArgs, ArgsInfo)]
pub struct PermissionAudits {
    /// the session
    #[argh(positional)]
    session_id: String,
    /// at most this many
    #[argh(option, arg_name = "n")]
    limit: Option<u32>,
    /// continue behind this cursor
    #[argh(option, arg_name = "cursor")]
    cursor: Option<String>,
}

impl Command for PermissionAudits {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let limit = self.limit.map(|limit| limit.to_string());
        let path = session(&self.session_id)
            .then("/permission-audits")
            .query("limit", limit.as_deref())
            .query("cursor", self.cursor.as_deref());
        show_object(context, path)
    }
}
