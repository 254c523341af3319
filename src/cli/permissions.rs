//! `runtime permissions …`.
//! Owns: paths and bodies of rules and dry runs.
//! Never: decides anything about a call.

use argh::{ArgsInfo, FromArgs};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::client::decode;
use super::context::Context;
use super::exit::CliError;
use super::json_file;
use super::json_text::Document;
use super::overview::show_object;
use super::path::Path;
use super::runtime_config::mode;
use super::sessions::post_object;
use super::verbs::Command;

/// show what would be decided about a call; nothing is run, asked or recorded
#[derive(FromArgs, ArgsInfo)]
pub struct Check {
    /// the tool; or use --tool
    #[argh(positional)]
    tool_name: Option<String>,
    /// the tool
    #[argh(option, arg_name = "name")]
    tool: Option<String>,
    /// its arguments
    #[argh(option, arg_name = "json")]
    input_json: Option<String>,
    /// as in this session
    #[argh(option, arg_name = "id")]
    session_id: Option<String>,
    /// id of the call in the answer
    #[argh(option, arg_name = "id")]
    tool_call_id: Option<String>,
    /// as in this permission mode
    #[argh(option, arg_name = "mode")]
    mode: Option<String>,
}

#[derive(Serialize)]
struct CheckBody<'a> {
    tool_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode_override: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Box<RawValue>>,
}

impl Command for Check {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let tool_name = match (&self.tool_name, &self.tool) {
            (Some(name), None) | (None, Some(name)) => name,
            (given, _) => {
                let cause = if given.is_some() { "it was given twice" } else { "there is none" };
                return Err(CliError::invalid("the tool", cause, "name it once"));
            }
        };
        let input = self.input_json.as_deref().map(|text| json_file::parse("--input-json", text)).transpose()?;
        let body = CheckBody {
            tool_name,
            tool_call_id: self.tool_call_id.as_deref(),
            session_id: self.session_id.as_deref(),
            mode_override: self.mode.as_deref().map(mode).transpose()?,
            input,
        };
        post_object(context, &Path::new("/v1/runtime/permissions/check"), Some(&Document::of(&body)))
    }
}

/// show every tool in every permission mode
#[derive(FromArgs, ArgsInfo)]
pub struct Matrix {
    /// as in this session
    #[argh(option, arg_name = "id")]
    session_id: Option<String>,
}

#[derive(Serialize)]
struct MatrixBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
}

impl Command for Matrix {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let body = Document::of(&MatrixBody { session_id: self.session_id.as_deref() });
        post_object(context, &Path::new("/v1/runtime/permissions/matrix"), Some(&body))
    }
}

const RULES: &str = "/v1/runtime/permissions/rules";

/// show the rules of the scopes user and project
#[derive(FromArgs, ArgsInfo)]
pub struct Rules {}

impl Command for Rules {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_object(context, Path::new(RULES))
    }
}

/// replace the rules, all or those of one scope, by a JSON list
#[derive(FromArgs, ArgsInfo)]
pub struct SetRules {
    /// read the rules from this file
    #[argh(option, arg_name = "path")]
    file: Option<String>,
    /// read the rules from standard input
    #[argh(switch)]
    stdin: bool,
    /// replace only rules of this scope: user or project
    #[argh(option, arg_name = "scope")]
    scope: Option<String>,
    /// refuse when another revision is in force
    #[argh(option, arg_name = "n")]
    expected_revision: Option<u64>,
}

#[derive(Serialize)]
struct RulesBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    rules: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_revision: Option<u64>,
}

impl Command for SetRules {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let rules = json_file::read(self.file.as_deref(), self.stdin, context.stdin)?;
        let body = RulesBody { scope: self.scope.as_deref(), rules, expected_revision: self.expected_revision };
        put_rules(context, &body)
    }
}

fn put_rules(context: &mut Context<'_>, body: &RulesBody<'_>) -> Result<(), CliError> {
    let path = Path::new(RULES);
    let document = context.client()?.put(&path, Document::of(body).as_str().as_bytes())?;
    document.require_object(path.as_str())?;
    context.out.document(&document)
}

/// The rules in force, each as it came.
#[derive(Deserialize)]
struct RulesView {
    revision: u64,
    rules: Vec<Box<RawValue>>,
}

/// What makes a rule another one.
#[derive(Deserialize, PartialEq)]
struct Target {
    scope: String,
    tool_name_pattern: String,
    #[serde(default)]
    argument: Option<serde_json::Value>,
}

#[derive(Serialize)]
struct NewRule<'a> {
    scope: &'a str,
    tool_name_pattern: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    argument: Option<serde_json::Value>,
    behavior: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

fn argument(
    command_prefix: Option<&str>,
    path: Option<&str>,
    host: Option<&str>,
) -> Result<Option<serde_json::Value>, CliError> {
    match (command_prefix, path, host) {
        (None, None, None) => Ok(None),
        (Some(text), None, None) => Ok(Some(serde_json::json!({ "command_prefix": text }))),
        (None, Some(text), None) => Ok(Some(serde_json::json!({ "path": text }))),
        (None, None, Some(text)) => Ok(Some(serde_json::json!({ "host": text }))),
        _ => {
            let what = "--command-prefix, --path and --host";
            Err(CliError::invalid(what, "more than one was given", "make one rule of each"))
        }
    }
}

/// Replaces the rule of this target by `rule`, or removes it. The revision that was read is sent along, so that
/// nobody's change in between is lost.
fn change_rule(context: &mut Context<'_>, target: &Target, rule: Option<&NewRule<'_>>) -> Result<(), CliError> {
    let schema =
        |error: serde_json::Error| CliError::Schema { what: "a permission rule".to_string(), cause: error.to_string() };
    let before: RulesView = decode(&context.client()?.get(&Path::new(RULES))?, "the permission rules")?;
    let mut rules = Vec::new();
    let mut found = false;
    for known in before.rules {
        let is_it = serde_json::from_str::<Target>(known.get()).map_err(schema)? == *target;
        found |= is_it;
        if !is_it {
            rules.push(known);
        }
    }
    match rule {
        Some(rule) => rules.push(serde_json::value::to_raw_value(rule).map_err(schema)?),
        None if !found => {
            let next = "see them with `runtime permissions rules`";
            return Err(CliError::NotFound { what: "a rule with this scope and target".to_string(), next });
        }
        None => {}
    }
    let rules = serde_json::value::to_raw_value(&rules).map_err(schema)?;
    put_rules(context, &RulesBody { scope: None, rules, expected_revision: Some(before.revision) })
}

/// add a rule, or replace the one with the same scope and target
#[derive(FromArgs, ArgsInfo)]
pub struct AddRule {
    /// allow, ask or deny
    #[argh(positional)]
    behavior: String,
    /// tool, *, or the beginning of names with one trailing *
    #[argh(positional)]
    tool_name_pattern: String,
    /// user or project
    #[argh(option, arg_name = "scope", default = "\"user\".to_string()")]
    scope: String,
    /// only commands that begin with these words
    #[argh(option, arg_name = "words")]
    command_prefix: Option<String>,
    /// only paths like this, such as src/**
    #[argh(option, arg_name = "pattern")]
    path: Option<String>,
    /// only URLs with this host, or *.host
    #[argh(option, arg_name = "host")]
    host: Option<String>,
    /// why, for people
    #[argh(option, arg_name = "text")]
    reason: Option<String>,
}

impl Command for AddRule {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let argument = argument(self.command_prefix.as_deref(), self.path.as_deref(), self.host.as_deref())?;
        let target = Target {
            scope: self.scope.clone(),
            tool_name_pattern: self.tool_name_pattern.clone(),
            argument: argument.clone(),
        };
        let rule = NewRule {
            scope: &self.scope,
            tool_name_pattern: &self.tool_name_pattern,
            argument,
            behavior: &self.behavior,
            reason: self.reason.as_deref(),
        };
        change_rule(context, &target, Some(&rule))
    }
}

/// remove the rule with this scope and target
#[derive(FromArgs, ArgsInfo)]
pub struct RemoveRule {
    /// its tool pattern
    #[argh(positional)]
    tool_name_pattern: String,
    /// its scope: user or project
    #[argh(option, arg_name = "scope", default = "\"user\".to_string()")]
    scope: String,
    /// its words of a command
    #[argh(option, arg_name = "words")]
    command_prefix: Option<String>,
    /// its path pattern
    #[argh(option, arg_name = "pattern")]
    path: Option<String>,
    /// its host
    #[argh(option, arg_name = "host")]
    host: Option<String>,
}

impl Command for RemoveRule {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let argument = argument(self.command_prefix.as_deref(), self.path.as_deref(), self.host.as_deref())?;
        let target = Target { scope: self.scope, tool_name_pattern: self.tool_name_pattern, argument };
        change_rule(context, &target, None)
    }
}
