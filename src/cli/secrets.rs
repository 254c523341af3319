//! `secrets …`: the auth store, through the daemon or, with it stopped, directly.
//! Owns: which of the two ways is taken; there is no silent change from one to the other.
//! May touch: with --offline, the auth store under the state root's lock.
//! Never: prints a value; sends one where it could be read on the way.

use std::path::{Path as FilePath, PathBuf};

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;

use super::context::Context;
use super::exit::{CliError, TransportFailure};
use super::json_text::Document;
use super::path::Path;
use super::secret_value::{Sources, read_records};
use super::table::{Column, text, time};
use super::verbs::Command;
use crate::broker::master_key::{self, MasterKey};
use crate::broker::{Provider, SlotId, SlotRecord, Store, rekey};
use crate::clock::{Clock, SystemClock};
use crate::state_root::StateRoot;

const COLUMNS: &[Column] = &[
    text("SLOT", &["/slot_id"]),
    text("PROVIDER", &["/provider"]),
    text("MODE", &["/mode"]),
    text("SUMMARY", &["/summary"]),
    time("UPDATED", &["/updated_at_ms"]),
];

/// print a new master key for the auth store, on a line of its own
#[derive(FromArgs, ArgsInfo)]
pub struct Generate {}

impl Command for Generate {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let key = master_key::generate().map_err(|error| CliError::component("generate", error))?;
        context.out.line(&key)
    }
}

/// create or overwrite a secret; overwriting revokes every lease of the old value
#[derive(FromArgs, ArgsInfo)]
pub struct Set {
    /// name of the slot, as routes refer to it
    #[argh(positional)]
    slot_id: String,
    /// generic, openai, anthropic, google, openrouter or xai
    #[argh(option, arg_name = "name")]
    provider: String,
    /// the value; visible in process lists, prefer one of the others
    #[argh(option, arg_name = "value")]
    value: Option<String>,
    /// read the value from this environment variable
    #[argh(option, arg_name = "name")]
    from_env: Option<String>,
    /// read the value from this file, less one line end
    #[argh(option, arg_name = "path")]
    from_file: Option<String>,
    /// read the value from standard input, less one line end
    #[argh(switch)]
    stdin: bool,
    /// organization header (openai only)
    #[argh(option, arg_name = "id")]
    organization: Option<String>,
    /// project header (openai only)
    #[argh(option, arg_name = "id")]
    project: Option<String>,
    /// write the store of --state-root directly; the daemon must be stopped
    #[argh(switch)]
    offline: bool,
    /// with --offline: the state root
    #[argh(option, arg_name = "dir")]
    state_root: Option<String>,
}

impl Set {
    /// A generic secret from one of the sources that keep it out of process lists.
    pub fn generic(
        slot: &str,
        from_env: Option<String>,
        from_file: Option<String>,
        stdin: bool,
        offline: bool,
        state_root: Option<String>,
    ) -> Self {
        Self {
            slot_id: slot.to_string(),
            provider: "generic".to_string(),
            value: None,
            from_env,
            from_file,
            stdin,
            organization: None,
            project: None,
            offline,
            state_root,
        }
    }
}

impl Command for Set {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        if self.value.is_some() {
            context.out.note(
                "Warning: --value is visible in process lists and shell histories; \
                 next: use --stdin, --from-file or --from-env",
            );
        }
        let (id, provider) = (slot(&self.slot_id)?, Provider::parse(&self.provider).map_err(refused("--provider"))?);
        let sources =
            Sources { value: self.value, from_env: self.from_env, from_file: self.from_file, stdin: self.stdin };
        let secret = sources.read(context.env, context.stdin)?;
        let record = SlotRecord::new(id, provider, secret, self.organization, self.project, SystemClock.now_ms())
            .map_err(refused("the secret"))?;
        let document = if self.offline {
            let mut store = open_store(context, self.state_root.as_deref(), true)?;
            Document::of(&store.put(record).map_err(refused("the auth store"))?)
        } else {
            context.client()?.post_secret(&Path::new("/v1/runtime/secrets"), &record.to_json()).map_err(with_advice)?
        };
        context.out.document(&document)
    }
}

/// show what is known of a secret: never its value
#[derive(FromArgs, ArgsInfo)]
pub struct Get {
    /// name of the slot
    #[argh(positional)]
    slot_id: String,
    /// read the store of --state-root directly; the daemon must be stopped
    #[argh(switch)]
    offline: bool,
    /// with --offline: the state root
    #[argh(option, arg_name = "dir")]
    state_root: Option<String>,
}

impl Command for Get {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let document = if self.offline {
            let id = slot(&self.slot_id)?;
            let store = open_store(context, self.state_root.as_deref(), false)?;
            let status = store.get(&id).ok_or_else(|| CliError::NotFound {
                what: format!("the auth store has no slot {:?}", id.as_str()),
                next: "see `kheish-daemon secrets list --offline`",
            })?;
            Document::of(&status)
        } else {
            let path = Path::new("/v1/runtime/secrets").segment(&self.slot_id);
            context.client()?.get(&path).map_err(with_advice)?
        };
        document.require_object("/v1/runtime/secrets")?;
        context.out.document(&document)
    }
}

/// list the secrets: never their values
#[derive(FromArgs, ArgsInfo)]
pub struct List {
    /// read the store of --state-root directly; the daemon must be stopped
    #[argh(switch)]
    offline: bool,
    /// with --offline: the state root
    #[argh(option, arg_name = "dir")]
    state_root: Option<String>,
}

impl Command for List {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let document = if self.offline {
            Document::of(&open_store(context, self.state_root.as_deref(), false)?.list())
        } else {
            context.client()?.get(&Path::new("/v1/runtime/secrets")).map_err(with_advice)?
        };
        document.require_list("/v1/runtime/secrets")?;
        context.out.list(&document, COLUMNS)
    }
}

/// delete a secret; its leases end at once
#[derive(FromArgs, ArgsInfo)]
pub struct Delete {
    /// name of the slot
    #[argh(positional)]
    slot_id: String,
    /// write the store of --state-root directly; the daemon must be stopped
    #[argh(switch)]
    offline: bool,
    /// with --offline: the state root
    #[argh(option, arg_name = "dir")]
    state_root: Option<String>,
}

#[derive(Serialize)]
struct Accepted {
    accepted: bool,
}

impl Command for Delete {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let document = if self.offline {
            let id = slot(&self.slot_id)?;
            let mut store = open_store(context, self.state_root.as_deref(), false)?;
            Document::of(&Accepted { accepted: store.delete(&id).map_err(refused("the auth store"))? })
        } else {
            let path = Path::new("/v1/runtime/secrets").segment(&self.slot_id);
            context.client()?.delete(&path).map_err(with_advice)?
        };
        context.out.document(&document)
    }
}

/// create or overwrite many secrets with one change, or none of them
#[derive(FromArgs, ArgsInfo)]
pub struct Import {
    /// read the records, a JSON object with slots, from this file
    #[argh(option, arg_name = "path")]
    from_file: Option<String>,
    /// read the records from standard input
    #[argh(switch)]
    stdin: bool,
    /// write the store of --state-root directly; the daemon must be stopped
    #[argh(switch)]
    offline: bool,
    /// with --offline: the state root
    #[argh(option, arg_name = "dir")]
    state_root: Option<String>,
}

impl Command for Import {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let text = read_records(self.from_file.as_deref(), self.stdin, context.stdin)?;
        // Judged here first, so that nothing malformed leaves the host.
        let records = SlotRecord::list_from_json(text.expose(), SystemClock.now_ms()).map_err(refused("the import"))?;
        let document = if self.offline {
            let mut store = open_store(context, self.state_root.as_deref(), true)?;
            Document::of(&store.put_all(records).map_err(refused("the auth store"))?)
        } else {
            context.client()?.post_secret(&Path::new("/v1/runtime/secret-imports"), &text).map_err(with_advice)?
        };
        document.require_list("/v1/runtime/secret-imports")?;
        context.out.list(&document, COLUMNS)
    }
}

/// encrypt the auth store under another master key; the daemon must be stopped
#[derive(FromArgs, ArgsInfo)]
pub struct Rekey {
    /// the state root
    #[argh(option, arg_name = "dir")]
    state_root: Option<String>,
    /// file with the new key, as `secrets generate` prints it; the present key comes from the environment
    #[argh(option, arg_name = "path")]
    new_key_file: String,
    /// a backup whose store is checked to have the same slots and to be readable with the present key: a copy of the state
    /// root or of the store's file, or a tar archive of either
    #[argh(option, arg_name = "path")]
    backup: Option<String>,
    /// go on without a backup
    #[argh(switch)]
    without_backup: bool,
}

impl Command for Rekey {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let backup = match (&self.backup, self.without_backup) {
            (Some(path), false) => Some(FilePath::new(path)),
            (None, true) => None,
            _ => {
                let cause = "it is not said which backup there is";
                let next = "name it with --backup PATH, or take the risk with --without-backup";
                return Err(CliError::invalid("secrets rekey", cause, next));
            }
        };
        let (path, old) = offline_root(context, self.state_root.as_deref())?;
        let old = old.ok_or_else(|| {
            let next = "set KHEISH_AUTH_STORE_MASTER_KEY_FILE to the key that the store is encrypted with";
            CliError::invalid("the master key", "none is given", next)
        })?;
        let new = MasterKey::from_file(FilePath::new(&self.new_key_file)).map_err(refused("--new-key-file"))?;
        let root = StateRoot::open(&path, false).map_err(refused("the state root"))?;
        let done = rekey(&root, &old, &new, backup).map_err(refused("the auth store"))?;
        let note = if done.rekeyed { "was encrypted anew" } else { "had been encrypted under the new key before" };
        context.out.note(&format!(
            "The auth store {note}: it is readable with the new key alone. Next: start the daemon with it. Keep the old \
             key for as long as you keep backups from before."
        ));
        context.out.document(&Document::of(&done))
    }
}

fn slot(raw: &str) -> Result<SlotId, CliError> {
    SlotId::parse(raw).map_err(refused("the slot"))
}

fn refused<E: std::fmt::Display>(doing: &'static str) -> impl FnOnce(E) -> CliError {
    move |error| CliError::component(doing, error)
}

/// Opens the store under the state root's lock, which the store keeps as long as it lives.
fn open_store(context: &Context<'_>, state_root: Option<&str>, create: bool) -> Result<OfflineStore, CliError> {
    let (path, key) = offline_root(context, state_root)?;
    let root = StateRoot::open(&path, create).map_err(refused("the state root"))?;
    let store = Store::open(&root, key).map_err(refused("the auth store"))?;
    Ok(OfflineStore { store, _lock: root })
}

/// The state root that is named, and the master key of the environment.
fn offline_root(context: &Context<'_>, state_root: Option<&str>) -> Result<(PathBuf, Option<MasterKey>), CliError> {
    let path = state_root.ok_or_else(|| {
        CliError::invalid("--offline", "no state root was given", "add --state-root DIR, or set KHEISH_STATE_ROOT")
    })?;
    let key = MasterKey::from_sources(
        context.env.os(master_key::KEY_VARIABLE),
        context.env.os(master_key::KEY_FILE_VARIABLE),
    )
    .map_err(refused("the master key"))?;
    Ok((PathBuf::from(path), key))
}

struct OfflineStore {
    store: Store,
    _lock: StateRoot,
}

impl std::ops::Deref for OfflineStore {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl std::ops::DerefMut for OfflineStore {
    fn deref_mut(&mut self) -> &mut Store {
        &mut self.store
    }
}

/// There is a second way to the store; it is named, never taken silently.
fn with_advice(error: CliError) -> CliError {
    match error {
        CliError::Transport { base_url, failure: failure @ TransportFailure::Unreachable, cause } => {
            let cause = format!("{cause}; next: start it, or stop it for good and use --offline with --state-root");
            CliError::Transport { base_url, failure, cause }
        }
        other => other,
    }
}
