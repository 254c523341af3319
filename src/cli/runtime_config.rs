//! `runtime set-…`, `runtime revisions`, `runtime rollback`, `runtime tool-limits …`.
//! Owns: paths and bodies of changes of the runtime configuration.
//! Never: decides whether a setting can hold.

use argh::{ArgsInfo, FromArgs};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::client::decode;
use super::context::Context;
use super::duration::milliseconds;
use super::exit::CliError;
use super::input::{read_file, read_text, split_route};
use super::json_file;
use super::json_text::Document;
use super::overview::show_object;
use super::path::Path;
use super::sessions::post_object;
use super::verbs::Command;
use crate::limits::SYSTEM_PROMPT_BYTES_MAX;
use crate::permissions::Mode;

/// A permission mode in either spelling, as the interface spells it.
///
/// # Errors
/// There is no such mode.
pub fn mode(text: &str) -> Result<&'static str, CliError> {
    Mode::parse(text).map(Mode::as_str).map_err(|_| {
        CliError::invalid(
            "the permission mode",
            "there is no such mode",
            "use default, accept-edits, bypass-permissions, plan or dont-ask",
        )
    })
}

/// set the permission mode; dont-ask also settles waiting approvals as denied
#[derive(FromArgs, ArgsInfo)]
pub struct SetPermissionMode {
    /// default, accept-edits, bypass-permissions, plan or dont-ask
    #[argh(positional)]
    mode: String,
    /// refuse when another revision is in force
    #[argh(option, arg_name = "n")]
    expected_revision: Option<u64>,
}

#[derive(Serialize)]
struct ModeBody {
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_revision: Option<u64>,
}

impl Command for SetPermissionMode {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let body = ModeBody { mode: mode(&self.mode)?, expected_revision: self.expected_revision };
        post_object(context, &Path::new("/v1/runtime/permission-mode"), Some(&Document::of(&body)))
    }
}

/// set route and model of runs that name none; queued and active runs keep theirs
#[derive(FromArgs, ArgsInfo)]
pub struct SetModel {
    /// model, or route/model
    #[argh(positional)]
    model: Option<String>,
    /// route
    #[argh(option, arg_name = "route")]
    route: Option<String>,
    /// give the choice of both back to the routes file
    #[argh(switch)]
    reset: bool,
    /// refuse when another revision is in force
    #[argh(option, arg_name = "n")]
    expected_revision: Option<u64>,
}

#[derive(Serialize)]
struct ModelBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_revision: Option<u64>,
}

impl Command for SetModel {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let named = self.model.is_some() || self.route.is_some();
        if named == self.reset {
            let cause = if named { "--reset was given with it" } else { "there is none" };
            return Err(CliError::invalid("the model", cause, "give a model, --route, or --reset alone"));
        }
        let (provider, model) = split_route(&context.client()?, self.route.as_deref(), self.model.as_deref())?;
        let body = ModelBody {
            provider: provider.as_deref(),
            model: model.as_deref(),
            expected_revision: self.expected_revision,
        };
        post_object(context, &Path::new("/v1/runtime/model"), Some(&Document::of(&body)))
    }
}

/// set how much of the exchanges with providers and tools is kept for debugging
#[derive(FromArgs, ArgsInfo)]
pub struct SetDebugLevel {
    /// off, on, redacted or full
    #[argh(positional)]
    level: String,
    /// fall back to off after this time, such as 30m; full does so after 30m by itself
    #[argh(option, arg_name = "time")]
    ttl: Option<String>,
    /// the ticket that asks for it
    #[argh(option, arg_name = "ref")]
    ticket: Option<String>,
    /// refuse when another revision is in force
    #[argh(option, arg_name = "n")]
    expected_revision: Option<u64>,
}

#[derive(Serialize)]
struct DebugLevelBody<'a> {
    level: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_revision: Option<u64>,
}

impl Command for SetDebugLevel {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let ttl_ms = self.ttl.as_deref().map(|text| milliseconds("--ttl", text)).transpose()?;
        let body = DebugLevelBody {
            level: &self.level,
            ttl_ms,
            ticket: self.ticket.as_deref(),
            expected_revision: self.expected_revision,
        };
        post_object(context, &Path::new("/v1/runtime/debug-level"), Some(&Document::of(&body)))
    }
}

/// change one part of the system prompt; the other parts stay
#[derive(FromArgs, ArgsInfo)]
pub struct SetPrompt {
    /// the text; or use --file or --stdin; with neither, the part is removed
    #[argh(positional)]
    text: Option<String>,
    /// which part: custom (instead of the daemon's own), append, override (instead of everything), language, style, or
    /// default to remove all parts
    #[argh(option, arg_name = "part", default = "\"custom\".to_string()")]
    mode: String,
    /// read the text from this file
    #[argh(option, arg_name = "path")]
    file: Option<String>,
    /// read the text from standard input
    #[argh(switch)]
    stdin: bool,
    /// refuse when another revision is in force; otherwise the one that is read first
    #[argh(option, arg_name = "n")]
    expected_revision: Option<u64>,
}

/// What of the runtime view a change of the prompt begins with.
#[derive(Deserialize)]
struct RuntimeView {
    #[serde(default)]
    system_prompt: Prompt,
    config: ConfigView,
}

#[derive(Deserialize)]
struct ConfigView {
    revision: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct Prompt {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    override_prompt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    custom_prompt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    append_prompt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    language: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output_style: Option<String>,
}

#[derive(Serialize)]
struct PromptBody {
    settings: Prompt,
    expected_revision: u64,
}

impl SetPrompt {
    fn text(&self, context: &mut Context<'_>) -> Result<Option<String>, CliError> {
        match (&self.text, &self.file, self.stdin) {
            (text, None, false) => Ok(text.clone()),
            (None, Some(path), false) => read_file(path, SYSTEM_PROMPT_BYTES_MAX).map(Some),
            (None, None, true) => read_text("standard input", context.stdin, SYSTEM_PROMPT_BYTES_MAX).map(Some),
            _ => {
                Err(CliError::invalid("the text", "it was given more than once", "use one of TEXT, --file and --stdin"))
            }
        }
    }
}

impl Command for SetPrompt {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let text = self.text(context)?.filter(|text| !text.is_empty());
        let before: RuntimeView = decode(&context.client()?.get(&Path::new("/v1/runtime"))?, "the runtime view")?;
        let mut settings = before.system_prompt;
        let part = match self.mode.as_str() {
            "custom" => &mut settings.custom_prompt,
            "append" => &mut settings.append_prompt,
            "override" => &mut settings.override_prompt,
            "language" => &mut settings.language,
            "style" => &mut settings.output_style,
            "default" if text.is_none() => {
                settings = Prompt::default();
                &mut settings.custom_prompt
            }
            _ => {
                let next = "use custom, append, override, language or style; default takes no text";
                return Err(CliError::invalid("--mode", "there is no such part", next));
            }
        };
        *part = text;
        let expected_revision = self.expected_revision.unwrap_or(before.config.revision);
        let body = Document::of(&PromptBody { settings, expected_revision });
        post_object(context, &Path::new("/v1/runtime/system-prompt"), Some(&body))
    }
}

/// show the revisions of the configuration, newest first
#[derive(FromArgs, ArgsInfo)]
pub struct Revisions {}

impl Command for Revisions {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_object(context, Path::new("/v1/runtime/revisions"))
    }
}

/// bring back the settings of an earlier revision, but for the debug level
#[derive(FromArgs, ArgsInfo)]
pub struct Rollback {
    /// the revision; the one before the one in force when left out
    #[argh(option, arg_name = "n")]
    target_revision: Option<u64>,
    /// refuse when another revision is in force
    #[argh(option, arg_name = "n")]
    expected_revision: Option<u64>,
}

#[derive(Serialize)]
struct RollbackBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    target_revision: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_revision: Option<u64>,
}

impl Command for Rollback {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let Self { target_revision, expected_revision } = self;
        let body = Document::of(&RollbackBody { target_revision, expected_revision });
        post_object(context, &Path::new("/v1/runtime/rollback"), Some(&body))
    }
}

/// show the tool limits
#[derive(FromArgs, ArgsInfo)]
pub struct GetToolLimits {}

impl Command for GetToolLimits {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_object(context, Path::new("/v1/runtime/tool-limits"))
    }
}

/// replace the tool limits as a whole; what the document leaves out has its default
#[derive(FromArgs, ArgsInfo)]
pub struct SetToolLimits {
    /// read the limits from this JSON file
    #[argh(option, arg_name = "path")]
    file: Option<String>,
    /// read the limits from standard input
    #[argh(switch)]
    stdin: bool,
    /// go back to the defaults
    #[argh(switch)]
    reset: bool,
    /// refuse when another revision is in force
    #[argh(option, arg_name = "n")]
    expected_revision: Option<u64>,
}

#[derive(Serialize)]
struct ToolLimitsBody {
    limits: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_revision: Option<u64>,
}

impl Command for SetToolLimits {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let limits = match (self.reset, self.file.is_some() || self.stdin) {
            (true, false) => json_file::parse("--reset", "{}")?,
            (true, true) => {
                return Err(CliError::invalid(
                    "--reset",
                    "it stands with a document",
                    "use one of --reset, --file, --stdin",
                ));
            }
            (false, _) => json_file::read(self.file.as_deref(), self.stdin, context.stdin)?,
        };
        let body = Document::of(&ToolLimitsBody { limits, expected_revision: self.expected_revision });
        post_object(context, &Path::new("/v1/runtime/tool-limits"), Some(&body))
    }
}
