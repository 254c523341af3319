//! From the document to hooks that can be called.
//! Owns: the document's form, every rule about a definition, and what an unusable one still means.
//! Never: takes an unusable definition for an absent one: a guard that cannot be called blocks.

use std::collections::BTreeMap;
use std::fmt;

use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::Value;

use super::event::HookEvent;
use crate::broker::SlotId;
use crate::hex::to_hex;
use crate::limits::{
    HOOK_COMMAND_BYTES_MAX, HOOK_MATCHER_BYTES_MAX, HOOK_NAME_BYTES_MAX, HOOK_RETRIES_MAX, HOOK_TIMEOUT_MS_DEFAULT,
    HOOK_TIMEOUT_MS_MAX, HOOK_URL_BYTES_MAX, HOOKS_DOCUMENT_BYTES_MAX, HOOKS_MAX,
};
use crate::net::Target;
use crate::permissions::glob_matches;

/// A hook that can be called.
#[derive(Debug)]
pub struct Hook {
    /// Unique in the document.
    pub name: String,
    /// What it is called for.
    pub event: HookEvent,
    /// What its subject must look like; `None` is everything.
    pub matcher: Option<String>,
    /// Whether somebody waits for its answer.
    pub blocking: bool,
    /// Whether a call that comes to nothing blocks.
    pub closed: bool,
    /// Further attempts.
    pub max_retries: u32,
    /// Time of a call with all its attempts.
    pub timeout_ms: u64,
    /// How it is called.
    pub executor: Executor,
    /// SHA-256 of its definition, hex.
    pub digest: String,
}

/// How a hook is called.
#[derive(Debug)]
pub enum Executor {
    /// A command in the sandbox.
    Command {
        /// What the shell is given.
        command: String,
        /// The shell, an absolute path; `None` is the best that there is.
        shell: Option<String>,
    },
    /// A request.
    Http {
        /// Where to.
        target: Box<Target>,
        /// The credential.
        auth: Option<HookAuth>,
        /// The slot with the key of the signature.
        signature: Option<SlotId>,
    },
}

impl Executor {
    /// The word of `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Command { .. } => "command",
            Self::Http { .. } => "http",
        }
    }
}

/// The credential of an HTTP hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookAuth {
    /// The slot.
    pub slot: SlotId,
    /// Where it goes.
    pub scheme: AuthScheme,
}

/// Where a credential goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthScheme {
    /// `Authorization: Bearer …`.
    #[default]
    Bearer,
    /// `X-Api-Key: …`.
    XApiKey,
}

impl Hook {
    /// Whether it is called for this subject.
    pub fn matches(&self, subject: &str) -> bool {
        self.matcher.as_deref().is_none_or(|glob| glob_matches(glob, subject))
    }

    /// The slots it names.
    pub fn slots(&self) -> impl Iterator<Item = &SlotId> {
        let (auth, signature) = match &self.executor {
            Executor::Command { .. } => (None, None),
            Executor::Http { auth, signature, .. } => (auth.as_ref().map(|auth| &auth.slot), signature.as_ref()),
        };
        auth.into_iter().chain(signature)
    }
}

/// A definition that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The event's name as written.
    pub event: String,
    /// The name as written, or its place.
    pub name: String,
    /// As written, where it can be read.
    pub matcher: Option<String>,
    /// Whether it blocks what it should have decided: it waits for nobody only if it says so legibly.
    pub blocks: bool,
    /// What is wrong.
    pub problem: Problem,
}

impl Broken {
    /// Whether it would have been called for this.
    pub fn concerns(&self, event: HookEvent, subject: &str) -> bool {
        let matches = self.matcher.as_deref().is_none_or(|glob| glob_matches(glob, subject));
        self.event == event.as_str() && matches
    }
}

/// What is wrong with a definition or the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Stable word.
    pub code: &'static str,
    /// For people, with a next step.
    pub text: String,
}

impl Problem {
    fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a definition needs of the host that the daemon runs on.
pub trait Host {
    /// Whether a request may go to a target, by its host alone; nothing is looked up.
    ///
    /// # Errors
    /// Why not, and what to do.
    fn reach(&self, target: &Target) -> Result<(), String>;

    /// Whether there is a shell at this path.
    ///
    /// # Errors
    /// Why not, and what to do.
    fn shell(&self, path: &str) -> Result<(), String>;
}

/// All hooks of a document.
#[derive(Debug, Clone, Default)]
pub struct Definitions {
    /// Usable ones, in the order of the document within each event.
    pub hooks: Vec<std::sync::Arc<Hook>>,
    /// Unusable ones.
    pub broken: Vec<Broken>,
    /// Why nothing of the document can be read.
    pub unreadable: Option<Problem>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDocument {
    #[serde(default)]
    schema_version: Option<u32>,
    hooks: BTreeMap<String, Vec<Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHook {
    name: String,
    matcher: Option<String>,
    blocking: Option<bool>,
    failure_policy: Option<RawPolicy>,
    executor: RawExecutor,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    mode: Option<Mode>,
    max_retries: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Open,
    Closed,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExecutor {
    r#type: String,
    command: Option<String>,
    shell: Option<String>,
    url: Option<String>,
    auth: Option<RawAuth>,
    signature: Option<RawSignature>,
    timeout_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAuth {
    secret_ref: String,
    #[serde(default)]
    scheme: AuthScheme,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSignature {
    secret_ref: String,
}

impl Definitions {
    /// Reads a document.
    pub fn read(document: &Value, host: &dyn Host) -> Self {
        let unreadable = |problem| Self { unreadable: Some(problem), ..Self::default() };
        if document.to_string().len() > HOOKS_DOCUMENT_BYTES_MAX {
            let text = format!("the document has more than {HOOKS_DOCUMENT_BYTES_MAX} bytes; next: shorten it");
            return unreadable(Problem::new("document_too_large", text));
        }
        let raw = match RawDocument::deserialize(document) {
            Ok(raw) => raw,
            Err(error) => {
                let text = format!("the document is not of the form {{\"hooks\":{{…}}}}: {error}; next: correct it");
                return unreadable(Problem::new("document_malformed", text));
            }
        };
        if let Some(version) = raw.schema_version.filter(|version| *version != 1) {
            let text = format!("schema_version {version} is not 1; next: use the form that this build documents");
            return unreadable(Problem::new("schema_version", text));
        }
        let mut all = Self::default();
        for (event, definitions) in &raw.hooks {
            for (place, definition) in definitions.iter().enumerate() {
                match all.one(event, definition, host) {
                    Ok(hook) => all.hooks.push(hook.into()),
                    Err(problem) => all.broken.push(broken(event, place, definition, problem)),
                }
            }
        }
        all
    }

    /// What keeps the document from being taken; every problem, one a line.
    pub fn problems(&self) -> Option<String> {
        let named = |broken: &Broken| format!("{} {}: {}", broken.event, broken.name, broken.problem);
        let all: Vec<String> =
            self.unreadable.iter().map(ToString::to_string).chain(self.broken.iter().map(named)).collect();
        (!all.is_empty()).then(|| all.join("\n"))
    }

    fn one(&self, event: &str, definition: &Value, host: &dyn Host) -> Result<Hook, Problem> {
        let event = HookEvent::parse(event).ok_or_else(|| {
            let known: Vec<&str> = HookEvent::all().map(HookEvent::as_str).collect();
            Problem::new(
                "event_unknown",
                format!("there is no such event, so it would never be called; next: use one of {}", known.join(", ")),
            )
        })?;
        let raw = RawHook::deserialize(definition)
            .map_err(|error| Problem::new("definition_malformed", format!("{error}; next: correct the definition")))?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=HOOK_NAME_BYTES_MAX).contains(&raw.name.len()) || !raw.name.bytes().all(is_name) {
            let text = format!("a name has 1 to {HOOK_NAME_BYTES_MAX} of A-Z a-z 0-9 . _ -; next: choose another one");
            return Err(Problem::new("name_malformed", text));
        }
        if self.hooks.iter().any(|hook| hook.name == raw.name) {
            return Err(Problem::new("name_taken", "another hook has this name; next: choose another one"));
        }
        if self.hooks.len() >= HOOKS_MAX {
            return Err(Problem::new("too_many", format!("there are more than {HOOKS_MAX} hooks; next: remove some")));
        }
        if raw.matcher.as_ref().is_some_and(|matcher| matcher.len() > HOOK_MATCHER_BYTES_MAX) {
            let text = format!("the matcher has more than {HOOK_MATCHER_BYTES_MAX} bytes; next: shorten it");
            return Err(Problem::new("matcher_too_long", text));
        }
        let blocking = raw.blocking.unwrap_or(event.is_gate());
        if blocking && !event.is_gate() {
            let text = format!("nothing waits for {}; next: leave blocking out, or use another event", event.as_str());
            return Err(Problem::new("event_not_blocking", text));
        }
        let (mode, retries) = raw.failure_policy.map_or((None, None), |policy| (policy.mode, policy.max_retries));
        let closed = mode.map_or(blocking, |mode| mode == Mode::Closed);
        if closed && !blocking {
            let text = "nobody waits for it, so its failure cannot block; next: use mode open, or blocking true";
            return Err(Problem::new("mode_without_blocking", text));
        }
        let max_retries = retries.unwrap_or(0);
        if max_retries > HOOK_RETRIES_MAX {
            let text = format!("max_retries is more than {HOOK_RETRIES_MAX}; next: lower it");
            return Err(Problem::new("retries", text));
        }
        let timeout_ms = raw.executor.timeout_ms.unwrap_or(HOOK_TIMEOUT_MS_DEFAULT);
        if !(1..=HOOK_TIMEOUT_MS_MAX).contains(&timeout_ms) {
            let text = format!("timeout_ms is not between 1 and {HOOK_TIMEOUT_MS_MAX}; next: correct it");
            return Err(Problem::new("timeout", text));
        }
        Ok(Hook {
            name: raw.name,
            event,
            matcher: raw.matcher.filter(|matcher| !matcher.is_empty()),
            blocking,
            closed,
            max_retries,
            timeout_ms,
            executor: executor(raw.executor, host)?,
            digest: to_hex(digest(&SHA256, definition.to_string().as_bytes()).as_ref()),
        })
    }
}

fn executor(raw: RawExecutor, host: &dyn Host) -> Result<Executor, Problem> {
    let RawExecutor { r#type, command, shell, url, auth, signature, timeout_ms: _ } = raw;
    let foreign = |field: &str| {
        let text = format!("{field} does not belong to an executor of type {}; next: remove it", r#type);
        Err(Problem::new("executor_field", text))
    };
    match r#type.as_str() {
        "command" => {
            for (field, given) in [("url", url.is_some()), ("auth", auth.is_some()), ("signature", signature.is_some())]
            {
                if given {
                    return foreign(field);
                }
            }
            let command = command.filter(|command| !command.trim().is_empty());
            let command =
                command.ok_or_else(|| Problem::new("command_missing", "there is no command; next: give one"))?;
            if command.len() > HOOK_COMMAND_BYTES_MAX || command.contains('\0') {
                let text =
                    format!("the command has more than {HOOK_COMMAND_BYTES_MAX} bytes or a NUL; next: use a script");
                return Err(Problem::new("command_too_long", text));
            }
            if let Some(shell) = &shell {
                let is_path = shell.starts_with('/') && shell.bytes().all(|byte| byte.is_ascii_graphic());
                if !is_path || shell.len() > HOOK_URL_BYTES_MAX {
                    return Err(Problem::new("shell_malformed", "the shell is no absolute path; next: correct it"));
                }
                host.shell(shell).map_err(|cause| Problem::new("shell_unusable", cause))?;
            }
            Ok(Executor::Command { command, shell })
        }
        "http" => {
            for (field, given) in [("command", command.is_some()), ("shell", shell.is_some())] {
                if given {
                    return foreign(field);
                }
            }
            let url = url.ok_or_else(|| Problem::new("url_missing", "there is no url; next: give one"))?;
            if url.len() > HOOK_URL_BYTES_MAX {
                let text = format!("the url has more than {HOOK_URL_BYTES_MAX} bytes; next: shorten it");
                return Err(Problem::new("url_too_long", text));
            }
            let target = Target::parse(&url).map_err(|error| Problem::new("url_malformed", error.to_string()))?;
            host.reach(&target).map_err(|cause| Problem::new("url_refused", cause))?;
            let auth =
                auth.map(|auth| Ok(HookAuth { slot: slot(&auth.secret_ref)?, scheme: auth.scheme })).transpose()?;
            let signature = signature.map(|signature| slot(&signature.secret_ref)).transpose()?;
            Ok(Executor::Http { target: Box::new(target), auth, signature })
        }
        other => {
            let text = format!("there is no executor of type {other:?}; next: use command or http");
            Err(Problem::new("executor_unknown", text))
        }
    }
}

fn slot(raw: &str) -> Result<SlotId, Problem> {
    SlotId::parse(raw).map_err(|error| Problem::new("secret_ref_malformed", error.to_string()))
}

/// What can still be read of an unusable definition.
fn broken(event: &str, place: usize, definition: &Value, problem: Problem) -> Broken {
    let text = |name: &str| definition.get(name).and_then(Value::as_str).map(str::to_string);
    let is_gate = HookEvent::parse(event).is_some_and(HookEvent::is_gate);
    let is_notice = definition.get("blocking") == Some(&Value::Bool(false));
    let is_open = definition.pointer("/failure_policy/mode").and_then(Value::as_str) == Some("open");
    // A matcher that cannot be read matches everything.
    let matcher = text("matcher").filter(|matcher| !matcher.is_empty() && matcher.len() <= HOOK_MATCHER_BYTES_MAX);
    Broken {
        event: event.to_string(),
        name: text("name").unwrap_or_else(|| format!("#{}", place + 1)),
        matcher,
        blocks: is_gate && !is_notice && !is_open,
        problem,
    }
}

#[cfg(test)]
mod tests;
