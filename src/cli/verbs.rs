//! The verb table: it drives dispatch, help, suggestions and the check of docs/cli.md.
//! Owns: names, aliases and groups of the commands.
//! May touch: the verb structs of this room.
//! Never: holds behaviour.

use argh::{ArgsInfo, CommandInfoWithArgs, FromArgs};

use super::context::Context;
use super::exit::CliError;
use super::{
    accounts, agents, approvals, assets, audit, backup, blobs, completions, connector, connectors, contracts, debug,
    deliveries, doctor, doctor_routes, events, hooks, incident, input, journal, man, mcp, mcp_oauth, overview,
    permissions, questions, runs, runtime, runtime_auth, runtime_config, scripted, secrets, serve, session_settings,
    sessions, slo, tasks, top, version,
};

/// A command: its options as a struct that `argh` fills, and what it does.
pub trait Command: FromArgs + ArgsInfo {
    /// Runs it.
    ///
    /// # Errors
    /// Whatever the command cannot do; the error carries the exit code.
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError>;
}

/// Parses the words after the verb and runs the command.
pub type Run = fn(&Verb, &[&str], &mut Context<'_>) -> Result<(), CliError>;

/// One row of the table.
pub struct Verb {
    /// Groups and name, separated by blanks, or only a name.
    pub path: &'static str,
    /// Other words for the name.
    pub aliases: &'static [&'static str],
    /// Options, arguments and description.
    pub info: fn() -> CommandInfoWithArgs,
    /// What it does.
    pub run: Run,
    /// Parses the words after the verb and does nothing.
    pub check: fn(&Verb, &[&str]) -> Result<(), CliError>,
}

impl std::fmt::Debug for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Verb").field(&self.path).finish()
    }
}

impl Verb {
    /// The group, when it has one, and the name.
    pub fn split(&self) -> (Option<&'static str>, &'static str) {
        split(self.path)
    }
}

/// The groups before the last word of a path, when there are any, and that word.
pub fn split(path: &'static str) -> (Option<&'static str>, &'static str) {
    match path.rsplit_once(' ') {
        Some((group, name)) => (Some(group), name),
        None => (None, path),
    }
}

const fn verb<C: Command>(path: &'static str, aliases: &'static [&'static str]) -> Verb {
    Verb { path, aliases, info: C::get_args_info, run: run::<C>, check: check::<C> }
}

fn run<C: Command>(verb: &Verb, words: &[&str], context: &mut Context<'_>) -> Result<(), CliError> {
    super::parse_words::<C>(verb.path, words)?.run(context)
}

fn check<C: Command>(verb: &Verb, words: &[&str]) -> Result<(), CliError> {
    super::parse_words::<C>(verb.path, words).map(drop)
}

/// Groups of verbs with their summaries, in the order of the help.
pub const GROUPS: &[(&str, &str)] = &[
    ("sessions", "create sessions, submit input, follow them"),
    ("runs", "list, follow, wait for and cancel runs"),
    ("assets", "files that are kept for inputs to come"),
    ("tasks", "background commands and to-do items of sessions"),
    ("agents", "agents of sessions, and the child agents below them"),
    ("mailboxes", "messages to agents"),
    ("approvals", "allow or refuse tool calls that wait for a person"),
    ("questions", "answer or decline what a model asks people"),
    ("deliveries", "outputs on their way to reply targets, and dead letters"),
    ("events", "the daemon's event stream"),
    ("doctor", "parts of the diagnosis on their own"),
    ("runtime", "the daemon's configuration in force"),
    ("runtime auth", "leases of credentials, who holds them, and taking them away"),
    ("runtime auth accounts", "OAuth accounts of MCP servers"),
    ("mcp", "MCP servers: outside tools for runs"),
    ("mcp tools", "tools of MCP servers"),
    ("mcp catalog", "servers that the daemon knows without a configuration"),
    ("mcp profiles", "selections from the catalog"),
    ("mcp auth", "secrets of the catalog's entries"),
    ("mcp oauth", "accounts at MCP servers: log in, look, refresh, log out"),
    ("runtime permissions", "rules, and what would be decided about a call"),
    ("runtime tool-limits", "bounds of tools"),
    ("runtime hooks", "what is called when something happens, and calls that came to nothing"),
    ("connectors", "where work arrives from outside, and the sidecars behind some of it"),
    ("connector", "sidecars in this binary, which the daemon starts"),
    ("secrets", "the encrypted auth store"),
    ("incident", "evidence of an incident: collect it, check it later"),
    ("backup", "copy a state root while its daemon runs, check the copy, restore it"),
    ("audit", "the signed trail: verify it, keep a checkpoint, change the key"),
    ("journal", "verify and read the journal offline"),
];

/// Every command, in the order of the help.
pub const VERBS: &[Verb] = &[
    verb::<serve::Serve>("serve", &["start"]),
    verb::<overview::Status>("status", &[]),
    verb::<slo::Slo>("slo", &[]),
    verb::<top::Top>("top", &[]),
    verb::<overview::Capabilities>("capabilities", &[]),
    verb::<doctor::Doctor>("doctor", &[]),
    verb::<doctor_routes::DoctorRoutes>("doctor routes", &[]),
    verb::<scripted::ScriptedProvider>("scripted-provider", &[]),
    verb::<sessions::Create>("sessions create", &["open"]),
    verb::<sessions::List>("sessions list", &[]),
    verb::<sessions::Get>("sessions get", &["show"]),
    verb::<input::Input>("sessions input", &["send"]),
    verb::<sessions::Events>("sessions events", &[]),
    verb::<sessions::Stream>("sessions stream", &[]),
    verb::<sessions::Interrupt>("sessions interrupt", &[]),
    verb::<sessions::End>("sessions end", &[]),
    verb::<approvals::Approve>("sessions approve", &[]),
    verb::<approvals::Refuse>("sessions deny", &[]),
    verb::<session_settings::Settings>("sessions settings", &[]),
    verb::<session_settings::SetPermissionMode>("sessions set-permission-mode", &[]),
    verb::<session_settings::SetPermissionRules>("sessions set-permission-rules", &[]),
    verb::<session_settings::SetRoute>("sessions set-route", &[]),
    verb::<contracts::SetInput>("sessions set-input-contract", &[]),
    verb::<contracts::SetOutput>("sessions set-output-contract", &[]),
    verb::<session_settings::PermissionAudits>("sessions permission-audits", &[]),
    verb::<runs::List>("runs list", &[]),
    verb::<runs::Get>("runs get", &["show"]),
    verb::<runs::Events>("runs events", &[]),
    verb::<runs::Stream>("runs stream", &[]),
    verb::<runs::WaitFor>("runs wait", &[]),
    verb::<runs::Cancel>("runs cancel", &[]),
    verb::<runs::ExternalActions>("runs external-actions", &[]),
    verb::<blobs::Blobs>("runs blobs", &[]),
    verb::<blobs::Blob>("runs blob", &[]),
    verb::<blobs::PruneResults>("runs prune-results", &[]),
    verb::<debug::Debug>("runs debug", &[]),
    verb::<debug::DebugArtifact>("runs debug-artifact", &[]),
    verb::<debug::Prune>("runs prune", &[]),
    verb::<debug::RetentionHold>("runs retention-hold", &[]),
    verb::<assets::Import>("assets import", &[]),
    verb::<assets::Get>("assets get", &["show"]),
    verb::<tasks::List>("tasks list", &[]),
    verb::<tasks::Get>("tasks get", &["show"]),
    verb::<tasks::Output>("tasks output", &[]),
    verb::<tasks::Stop>("tasks stop", &[]),
    verb::<agents::List>("agents list", &[]),
    verb::<agents::Get>("agents get", &["show"]),
    verb::<agents::SpawnSidechain>("agents spawn-sidechain", &["spawn"]),
    verb::<agents::Mailbox>("agents mailbox", &[]),
    verb::<agents::Ack>("agents ack", &[]),
    verb::<agents::Post>("mailboxes post", &[]),
    verb::<approvals::List>("approvals list", &[]),
    verb::<approvals::Show>("approvals show", &["get"]),
    verb::<approvals::Allow>("approvals allow", &["approve"]),
    verb::<approvals::Deny>("approvals deny", &[]),
    verb::<approvals::AllowAll>("approvals allow-all", &["approve-all"]),
    verb::<approvals::DenyAll>("approvals deny-all", &[]),
    verb::<questions::List>("questions list", &[]),
    verb::<questions::Show>("questions show", &["get"]),
    verb::<questions::Answer>("questions answer", &[]),
    verb::<questions::Cancel>("questions cancel", &[]),
    verb::<deliveries::List>("deliveries list", &[]),
    verb::<deliveries::Get>("deliveries get", &["show"]),
    verb::<deliveries::DeadLetter>("deliveries dead-letter", &[]),
    verb::<deliveries::Replay>("deliveries replay", &["retry"]),
    verb::<deliveries::ReplayBulk>("deliveries replay-bulk", &[]),
    verb::<deliveries::Resolve>("deliveries resolve", &[]),
    verb::<deliveries::Drop>("deliveries drop", &[]),
    verb::<deliveries::ResetBackpressure>("deliveries reset-backpressure", &[]),
    verb::<deliveries::Hold>("deliveries hold", &[]),
    verb::<deliveries::Release>("deliveries release", &[]),
    verb::<events::Stream>("events stream", &[]),
    verb::<runtime::Get>("runtime get", &["show"]),
    verb::<runtime_config::SetPermissionMode>("runtime set-permission-mode", &[]),
    verb::<runtime_config::SetModel>("runtime set-model", &[]),
    verb::<runtime_config::SetDebugLevel>("runtime set-debug-level", &[]),
    verb::<runtime_config::SetPrompt>("runtime set-prompt", &["set-system-prompt"]),
    verb::<runtime_config::Revisions>("runtime revisions", &["history"]),
    verb::<runtime_config::Rollback>("runtime rollback", &[]),
    verb::<runtime_config::GetToolLimits>("runtime tool-limits get", &["show"]),
    verb::<runtime_config::SetToolLimits>("runtime tool-limits set", &[]),
    verb::<hooks::Get>("runtime hooks get", &["show"]),
    verb::<hooks::Set>("runtime hooks set", &[]),
    verb::<hooks::DeadLetters>("runtime hooks dead-letter", &["dead-letters"]),
    verb::<hooks::Resolve>("runtime hooks resolve-dead-letter", &[]),
    verb::<permissions::Check>("runtime permissions check", &[]),
    verb::<permissions::Matrix>("runtime permissions matrix", &[]),
    verb::<permissions::Rules>("runtime permissions rules", &[]),
    verb::<permissions::SetRules>("runtime permissions set-rules", &[]),
    verb::<permissions::AddRule>("runtime permissions add-rule", &[]),
    verb::<permissions::RemoveRule>("runtime permissions remove-rule", &[]),
    verb::<runtime::Hold>("runtime hold", &[]),
    verb::<runtime::Release>("runtime release", &[]),
    verb::<runtime_auth::ShowSubject>("runtime auth subject", &[]),
    verb::<runtime_auth::Subjects>("runtime auth subjects", &[]),
    verb::<runtime_auth::ShowLease>("runtime auth lease", &[]),
    verb::<runtime_auth::Leases>("runtime auth leases", &[]),
    verb::<runtime_auth::RevokeLease>("runtime auth revoke-lease", &[]),
    verb::<runtime_auth::RevokeSubject>("runtime auth revoke-subject", &[]),
    verb::<runtime_auth::ReinstateSubject>("runtime auth reinstate-subject", &[]),
    verb::<runtime_auth::RevokeSlot>("runtime auth revoke-slot", &[]),
    verb::<accounts::List>("runtime auth accounts list", &[]),
    verb::<accounts::Get>("runtime auth accounts get", &["show"]),
    verb::<accounts::Refresh>("runtime auth accounts refresh", &[]),
    verb::<accounts::Revoke>("runtime auth accounts revoke", &["delete"]),
    verb::<connectors::List>("connectors list", &[]),
    verb::<connectors::Get>("connectors get", &["show"]),
    verb::<connectors::PutHttp>("connectors put-http", &[]),
    verb::<connectors::PutSlack>("connectors put-slack", &[]),
    verb::<connectors::PutTelegram>("connectors put-telegram", &[]),
    verb::<connectors::PutExternal>("connectors put-external", &[]),
    verb::<connectors::Delete>("connectors delete", &[]),
    verb::<connectors::Hold>("connectors hold", &[]),
    verb::<connectors::Release>("connectors release", &[]),
    verb::<connector::Webhook>("connector webhook", &[]),
    verb::<mcp::List>("mcp list", &[]),
    verb::<mcp::Get>("mcp get", &["show"]),
    verb::<mcp::Enable>("mcp enable", &[]),
    verb::<mcp::Disable>("mcp disable", &[]),
    verb::<mcp::Reconnect>("mcp reconnect", &[]),
    verb::<mcp::Remove>("mcp remove", &[]),
    verb::<mcp::Tools>("mcp tools list", &[]),
    verb::<mcp::Call>("mcp tools call", &[]),
    verb::<mcp::CatalogList>("mcp catalog list", &[]),
    verb::<mcp::CatalogGet>("mcp catalog get", &["show"]),
    verb::<mcp::ProfilesList>("mcp profiles list", &[]),
    verb::<mcp::ProfilesGet>("mcp profiles get", &["show"]),
    verb::<mcp::AuthSlots>("mcp auth slots", &[]),
    verb::<mcp::AuthSet>("mcp auth set", &[]),
    verb::<mcp_oauth::Login>("mcp oauth login", &[]),
    verb::<mcp_oauth::Show>("mcp oauth status", &[]),
    verb::<mcp_oauth::Refresh>("mcp oauth refresh", &[]),
    verb::<mcp_oauth::Logout>("mcp oauth logout", &[]),
    verb::<secrets::Generate>("secrets generate", &[]),
    verb::<secrets::Set>("secrets set", &[]),
    verb::<secrets::Get>("secrets get", &["show"]),
    verb::<secrets::List>("secrets list", &[]),
    verb::<secrets::Delete>("secrets delete", &[]),
    verb::<secrets::Import>("secrets import", &[]),
    verb::<secrets::Rekey>("secrets rekey", &[]),
    verb::<incident::Collect>("incident collect", &[]),
    verb::<incident::VerifyEvidence>("incident verify", &[]),
    verb::<backup::Create>("backup create", &[]),
    verb::<backup::VerifyBackup>("backup verify", &[]),
    verb::<backup::RestoreBackup>("backup restore", &[]),
    verb::<audit::Verify>("audit verify", &[]),
    verb::<audit::MakeCheckpoint>("audit checkpoint", &[]),
    verb::<audit::ShowPublicKey>("audit public-key", &[]),
    verb::<audit::RotateKey>("audit rotate-key", &[]),
    verb::<audit::RelocateKey>("audit relocate-key", &[]),
    verb::<journal::Verify>("journal verify", &[]),
    verb::<journal::Show>("journal show", &[]),
    verb::<version::Version>("version", &[]),
    verb::<completions::Completions>("completions", &[]),
    verb::<man::Man>("man", &[]),
];

/// The row with this path.
pub fn find(path: &str) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| verb.path == path)
}
