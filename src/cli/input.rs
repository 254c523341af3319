//! `sessions input`: submit, and if asked to, watch and wait.
//! Owns: where the text comes from, the submission's body, and the order of submit, show and wait.
//! May touch: the content and metadata files, standard input.
//! Never: submits twice.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use argh::{ArgsInfo, FromArgs};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::client::{Client, Stop, decode};
use super::context::Context;
use super::exit::CliError;
use super::generation::{Flags, Generation};
use super::json_text::Document;
use super::path::Path;
use super::run_view::RunView;
use super::runs::report;
use super::streaming::show_live;
use super::verbs::Command;
use super::wait::{self, Wait, Waited};
use crate::limits::{CLI_LIVE_TAIL_MS_MAX, CLI_METADATA_BYTES_MAX, INPUT_FILE_BYTES_MAX, INPUT_TEXT_BYTES_MAX};
use crate::worker::Worker;

/// submit input to a session as a run
#[derive(FromArgs, ArgsInfo)]
pub struct Input {
    /// the session
    #[argh(positional)]
    session_id: String,
    /// the text; or use --content-file or --stdin
    #[argh(positional)]
    text: Option<String>,
    /// read the text from this file
    #[argh(option, arg_name = "path")]
    content_file: Option<String>,
    /// read the text from standard input
    #[argh(switch)]
    stdin: bool,
    /// picture, PDF or text file that goes with it; may be repeated
    #[argh(option, arg_name = "path")]
    file: Vec<String>,
    /// a file that is kept, by its id as `assets import` tells it; may be repeated
    #[argh(option, arg_name = "id")]
    asset: Vec<String>,
    /// route to run on
    #[argh(option, arg_name = "route")]
    provider: Option<String>,
    /// model, or route/model
    #[argh(option, arg_name = "model")]
    model: Option<String>,
    /// model to go on with when that one fails, on the same route
    #[argh(option, arg_name = "model")]
    fallback_model: Option<String>,
    /// ceiling of the answer in tokens
    #[argh(option, arg_name = "n")]
    max_output_tokens: Option<u32>,
    /// sampling temperature
    #[argh(option, arg_name = "number")]
    temperature: Option<f64>,
    /// thinking: none, minimal, low, medium, high, xhigh or max
    #[argh(option, arg_name = "effort")]
    reasoning_effort: Option<String>,
    /// readable thinking: auto, concise, detailed or none
    #[argh(option, arg_name = "kind")]
    reasoning_summary: Option<String>,
    /// ceiling of thinking tokens, for models that take one
    #[argh(option, arg_name = "n")]
    reasoning_budget_tokens: Option<u32>,
    /// thinking between tool calls, for models that do so only when asked
    #[argh(switch)]
    reasoning_interleaved: bool,
    /// auto, none, required or specific
    #[argh(option, arg_name = "choice")]
    tool_choice: Option<String>,
    /// the tool that must be called first
    #[argh(option, arg_name = "name")]
    tool_name: Option<String>,
    /// one tool call at a time
    #[argh(switch)]
    serial_tools: bool,
    /// text or structured-json
    #[argh(option, arg_name = "format")]
    response_format: Option<String>,
    /// JSON Schema that the answer is to follow
    #[argh(option, arg_name = "json")]
    response_schema_json: Option<String>,
    /// file with a JSON Schema that the answer is to follow
    #[argh(option, arg_name = "path")]
    response_schema_file: Option<String>,
    /// the system that the input comes from
    #[argh(option, arg_name = "name")]
    source_plugin: Option<String>,
    /// the kind of source within that system
    #[argh(option, arg_name = "name")]
    source_kind: Option<String>,
    /// the person or program behind the input
    #[argh(option, arg_name = "id")]
    actor_id: Option<String>,
    /// JSON to keep with the run
    #[argh(option, arg_name = "json")]
    metadata_json: Option<String>,
    /// file with JSON to keep with the run
    #[argh(option, arg_name = "path")]
    metadata_file: Option<String>,
    /// key under which the same submission is accepted only once
    #[argh(option, arg_name = "key")]
    idempotency_key: Option<String>,
    /// wait for the end of the run and show it; exit code 9 unless it completed
    #[argh(switch)]
    wait: bool,
    /// with --wait: show the text as it arrives on standard error
    #[argh(switch)]
    stream: bool,
    /// with --wait: milliseconds between two looks, at least 50
    #[argh(option, arg_name = "ms")]
    poll_interval_ms: u64,
    /// with --wait: give up after this many milliseconds, with exit code 7
    #[argh(option, arg_name = "ms")]
    timeout_ms: Option<u64>,
    /// with --wait: forgive a daemon that does not answer, or answers 429, 502, 503 or 504, for this long
    #[argh(option, arg_name = "ms")]
    transient_grace_ms: u64,
}

#[derive(Serialize)]
struct Body<'a> {
    content: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<Attachment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<Generation<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_plugin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
}

/// A file inside of the submission, or one that is kept.
#[derive(Serialize)]
pub(super) struct Attachment {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    file_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    content_base64: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    asset_id: Option<String>,
}

fn reference(id: &str) -> Attachment {
    let (file_name, content_base64) = (String::new(), String::new());
    Attachment { kind: "asset_reference", file_name, content_base64, asset_id: Some(id.to_string()) }
}

/// Reads a file of at most [`INPUT_FILE_BYTES_MAX`] bytes.
pub(super) fn attachment(path: &str) -> Result<Attachment, CliError> {
    let refuse = |cause: String| CliError::File { path: PathBuf::from(path), cause, next: "name a readable file" };
    let name = std::path::Path::new(path).file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| refuse("it has no name in UTF-8".to_string()))?;
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| refuse(error.to_string()))?;
    file.take(INPUT_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|error| refuse(error.to_string()))?;
    if bytes.len() > INPUT_FILE_BYTES_MAX {
        return Err(refuse(format!("it is over {INPUT_FILE_BYTES_MAX} bytes")));
    }
    let content_base64 = BASE64_STANDARD.encode(&bytes);
    Ok(Attachment { kind: "inline_asset", file_name: name.to_string(), content_base64, asset_id: None })
}

impl Command for Input {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        if (self.timeout_ms.is_some() || self.stream) && !self.wait {
            return Err(CliError::invalid("--timeout-ms and --stream", "they need --wait", "add --wait"));
        }
        let content = self.content(context.stdin)?;
        let metadata = json_document(["--metadata-json", "--metadata-file"], &self.metadata_json, &self.metadata_file)?;
        let schema = json_document(
            ["--response-schema-json", "--response-schema-file"],
            &self.response_schema_json,
            &self.response_schema_file,
        )?;
        let client = context.client()?;
        let (provider, model) = split_route(&client, self.provider.as_deref(), self.model.as_deref())?;
        let body = Document::of(&Body {
            content: &content,
            attachments: {
                let files = self.file.iter().map(|path| attachment(path));
                files.chain(self.asset.iter().map(|id| Ok(reference(id)))).collect::<Result<_, _>>()?
            },
            provider: provider.as_deref(),
            generation: Generation::of(model.as_deref(), &self.flags(schema.as_deref()))?,
            source_plugin: self.source_plugin.as_deref(),
            source_kind: self.source_kind.as_deref(),
            actor_id: self.actor_id.as_deref(),
            metadata: metadata.as_deref(),
        });
        let document = self.submit(&client, &body)?;
        let view: RunView = decode(&document, "the run's view")?;
        if !self.wait {
            return context.out.document(&document);
        }
        let how = Wait {
            poll_interval_ms: self.poll_interval_ms,
            timeout_ms: self.timeout_ms,
            transient_grace_ms: self.transient_grace_ms,
        };
        let waited = if self.stream {
            wait_with_text(&client, &view.run_id, how)
        } else {
            wait::for_run(&client, &view.run_id, how)
        };
        match waited {
            Ok(waited) => report(context, &view.run_id, how, waited),
            Err(error) => {
                // The run exists and goes on; its id must not be lost with the connection.
                context.out.document(&document)?;
                Err(error)
            }
        }
    }
}

impl Input {
    fn content(&self, stdin: &mut dyn Read) -> Result<String, CliError> {
        let next = "give the text as an argument, or use one of --content-file and --stdin";
        let given = [self.text.is_some(), self.content_file.is_some(), self.stdin];
        match given.into_iter().filter(|given| *given).count() {
            0 if !self.file.is_empty() || !self.asset.is_empty() => return Ok(String::new()),
            0 => return Err(CliError::invalid("the text", "there is none", next)),
            1 => {}
            _ => return Err(CliError::invalid("the text", "it was given more than once", next)),
        }
        if let Some(text) = &self.text {
            return Ok(text.clone());
        }
        match &self.content_file {
            Some(path) => read_file(path, INPUT_TEXT_BYTES_MAX),
            None => read_text("standard input", stdin, INPUT_TEXT_BYTES_MAX),
        }
    }

    fn flags<'a>(&'a self, response_schema: Option<&'a RawValue>) -> Flags<'a> {
        Flags {
            fallback_model: self.fallback_model.as_deref(),
            max_output_tokens: self.max_output_tokens,
            temperature: self.temperature,
            reasoning_effort: self.reasoning_effort.as_deref(),
            reasoning_summary: self.reasoning_summary.as_deref(),
            reasoning_budget_tokens: self.reasoning_budget_tokens,
            reasoning_interleaved: self.reasoning_interleaved,
            tool_choice: self.tool_choice.as_deref(),
            tool_name: self.tool_name.as_deref(),
            serial_tools: self.serial_tools,
            response_format: self.response_format.as_deref(),
            response_schema,
        }
    }

    fn submit(&self, client: &Client, body: &Document) -> Result<Document, CliError> {
        let path = Path::new("/v1/sessions").segment(&self.session_id).then("/runs");
        let body = Some(body.as_str().as_bytes());
        let Some(key) = &self.idempotency_key else { return client.post(&path, body, &[]) };
        // The key becomes a header line.
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
            let cause = "it is empty or has bytes that no header may carry";
            return Err(CliError::invalid("--idempotency-key", cause, "use printable ASCII"));
        }
        require_idempotency(client)?;
        client.post(&path, body, &[("idempotency-key", key)])
    }
}

/// A JSON document given as a text or as a file; `flags` are the names of the two.
fn json_document(
    flags: [&'static str; 2],
    text: &Option<String>,
    file: &Option<String>,
) -> Result<Option<Box<RawValue>>, CliError> {
    let (source, text) = match (text, file) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(CliError::invalid(flags.join(" and "), "both were given", "use one, not both"));
        }
        (Some(text), None) => (flags[0], text.clone()),
        (None, Some(path)) => (path.as_str(), read_file(path, CLI_METADATA_BYTES_MAX)?),
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| CliError::invalid(source, format!("not JSON: {error}"), "give one JSON document"))
}

/// Splits `route/model` when the first part is one of the daemon's routes and no other route was named. Models have
/// slashes too, so the daemon is asked.
///
/// # Errors
/// As the client's.
pub fn split_route(
    client: &Client,
    route: Option<&str>,
    model: Option<&str>,
) -> Result<(Option<String>, Option<String>), CliError> {
    #[derive(Deserialize)]
    struct Runtime {
        #[serde(default)]
        routes: Vec<Route>,
    }
    #[derive(Deserialize)]
    struct Route {
        route_id: String,
    }
    let as_given = || (route.map(str::to_string), model.map(str::to_string));
    let Some(model) = model.filter(|model| model.contains('/')) else { return Ok(as_given()) };
    let runtime: Runtime = decode(&client.get(&Path::new("/v1/runtime"))?, "the runtime view")?;
    let split = runtime.routes.iter().filter_map(|route| {
        let rest = model.strip_prefix(&route.route_id)?.strip_prefix('/')?;
        (!rest.is_empty()).then_some((route.route_id.as_str(), rest))
    });
    match split.max_by_key(|(route, _)| route.len()) {
        Some((found, rest)) if route.is_none_or(|route| route == found) => {
            Ok((Some(found.to_string()), Some(rest.to_string())))
        }
        // Another route was named, so the whole text is that route's model.
        _ => Ok(as_given()),
    }
}

/// A daemon that ignored the key would run the same input twice.
fn require_idempotency(client: &Client) -> Result<(), CliError> {
    #[derive(Deserialize)]
    struct Capabilities {
        #[serde(default)]
        session_run_idempotency: bool,
    }
    let capabilities: Capabilities = decode(&client.get(&Path::new("/v1/capabilities"))?, "the capabilities")?;
    if capabilities.session_run_idempotency {
        return Ok(());
    }
    Err(CliError::invalid(
        "--idempotency-key",
        "this daemon does not honour idempotency keys",
        "update the daemon, or submit without the key",
    ))
}

/// Waits by polling, as ever, while a second thread shows the text.
fn wait_with_text(client: &Client, run_id: &str, how: Wait) -> Result<Waited, CliError> {
    let stop = Stop::default();
    let (done, is_done) = crossbeam_channel::bounded::<()>(1);
    let (twin, shown_id, stopper) = (client.twin(), run_id.to_string(), stop.clone());
    let viewer = Worker::spawn("cli-live", move || {
        show_live(&twin, &shown_id, stopper, &mut std::io::stderr());
        drop(done);
    })
    .map_err(|error| CliError::component("cannot start the thread that shows the text", error))?;
    let waited = wait::for_run(client, run_id, how);
    if matches!(waited, Ok(Waited::Ended(..))) {
        // Its last frames are on their way; nothing is ever sent on the channel, it closes.
        let _ = is_done.recv_timeout(Duration::from_millis(CLI_LIVE_TAIL_MS_MAX));
    }
    stop.stop();
    viewer.join().map_err(|panicked| CliError::component("showing the text", panicked))?;
    waited
}

/// Reads a text file of at most `bytes_max` bytes.
///
/// # Errors
/// It cannot be read, is longer, or is not UTF-8.
pub fn read_file(path: &str, bytes_max: usize) -> Result<String, CliError> {
    let refuse = |cause: String| CliError::File { path: PathBuf::from(path), cause, next: "name a readable text file" };
    let mut file = File::open(path).map_err(|error| refuse(error.to_string()))?;
    read_text(path, &mut file, bytes_max)
}

/// Reads UTF-8 text to its end, at most `bytes_max` bytes.
///
/// # Errors
/// It cannot be read, is longer, or is not UTF-8.
pub fn read_text(source: &str, reader: &mut dyn Read, bytes_max: usize) -> Result<String, CliError> {
    let refuse = |cause: String| CliError::invalid(source, cause, "give at most that much UTF-8 text");
    let mut bytes = Vec::new();
    reader.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(|error| refuse(error.to_string()))?;
    if bytes.len() > bytes_max {
        return Err(refuse(format!("more than {bytes_max} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| refuse(format!("not UTF-8 text of at most {bytes_max} bytes")))
}
