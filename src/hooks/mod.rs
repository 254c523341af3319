//! Hooks: what operators have called when something happens, and what it may hold up.
//! Owns: the definitions in force, ready for use, and the way of every event to them.
//! May touch: core (records, settings), journal (reading), broker (leases), net, the sandbox.
//! Never: lets a hook widen what happens: it can deny, ask and change what is held to the rules again. Takes a guard that
//! cannot be called for an absent one.

mod call;
mod command;
mod definition;
mod event;
mod file;
mod gate;
mod http;
mod invocation;
mod look;
mod notify;
mod outcome;
mod told;
mod view;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

pub use definition::{AuthScheme, Broken, Definitions, Executor, Hook, HookAuth, Host, Problem};
pub use event::HookEvent;
pub use file::{HooksFile, HooksFileError};
pub use gate::{Blocked, Place, Ruled};
pub use invocation::{CONTRACT_VERSION, Invocation};
pub use notify::{Bell, bell};
pub use view::{HookDiagnostic, HookTarget, HooksFigures, redacted};

use crate::broker::{BrokerHandle, SecretReference};
use crate::clock::Clock;
use crate::commit::CoreHandle;
use crate::core::{HooksSetting, RuntimeConfig};
use crate::journal::Reader;
use crate::net::{Destination, Net, NetError, Purpose, Target};
use crate::sandbox::Sandbox;

/// What the room is made of.
pub struct Parts {
    /// Durable state.
    pub core: CoreHandle,
    /// The log.
    pub reader: Reader,
    /// The way out.
    pub net: Net,
    /// Leases, signatures and redaction.
    pub broker: BrokerHandle,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Where commands run.
    pub sandbox: Sandbox,
    /// The workspace root.
    pub workspace: PathBuf,
    /// The file of `--hooks-config`, as it was taken at start.
    pub file: Option<HooksFile>,
}

/// Definitions of one setting.
struct Compiled {
    /// The runtime configuration that they were last found to be of.
    seen: Arc<RuntimeConfig>,
    setting: Option<HooksSetting>,
    definitions: Definitions,
}

struct Inner {
    around: call::Around,
    reader: Reader,
    file: Option<HooksFile>,
    compiled: Mutex<Option<Arc<Compiled>>>,
    look: look::Look,
    ending: notify::Ending,
}

/// The room. Cheap to clone.
#[derive(Clone)]
pub struct Hooks(Arc<Inner>);

impl Hooks {
    /// The room; nothing is called yet but by its gates.
    pub fn new(parts: Parts) -> Self {
        let (reader, file) = (parts.reader.clone(), parts.file.clone());
        let around = call::Around::new(parts);
        Self(Arc::new(Inner {
            around,
            reader,
            file,
            compiled: Mutex::new(None),
            look: look::Look::default(),
            ending: notify::Ending::default(),
        }))
    }

    /// The hooks in force, ready for use. Made anew only when the setting is another one.
    fn compiled(&self) -> Arc<Compiled> {
        let seen = self.0.around.core.view().runtime.clone();
        let mut compiled = lock(&self.0.compiled);
        if let Some(known) = compiled.as_ref().filter(|known| Arc::ptr_eq(&known.seen, &seen)) {
            return known.clone();
        }
        let setting = seen.settings().hooks.clone();
        if compiled.as_ref().is_none_or(|known| known.setting != setting) {
            let definitions = match &setting {
                Some(setting) => Definitions::read(&setting.document, self),
                None => Definitions::default(),
            };
            for problem in definitions.problems().iter().flat_map(|problems| problems.lines()) {
                log::error!("hooks: {problem}");
            }
            self.0.look.wake();
            let made = Arc::new(Compiled { seen, setting, definitions });
            *compiled = Some(made.clone());
            return made;
        }
        // Another setting was changed.
        let known = compiled.take().expect("just looked at");
        let definitions = known.definitions.clone();
        let made = Arc::new(Compiled { seen, setting, definitions });
        *compiled = Some(made.clone());
        made
    }

    /// Checks a document as it would be put in force.
    ///
    /// # Errors
    /// Every problem, one a line.
    pub fn check(&self, document: &Value) -> Result<(), String> {
        Definitions::read(document, self).problems().map_or(Ok(()), Err)
    }

    /// The slots that hooks name.
    pub fn references(&self) -> Vec<SecretReference> {
        let compiled = self.compiled();
        let of = |hook: &Arc<Hook>| -> Vec<SecretReference> {
            hook.slots().map(|slot| SecretReference::new(slot.as_str(), format!("hook {}", hook.name))).collect()
        };
        compiled.definitions.hooks.iter().flat_map(of).collect()
    }
}

impl Host for Hooks {
    fn reach(&self, target: &Target) -> Result<(), String> {
        reach(&self.0.around.net, target)
    }

    fn shell(&self, path: &str) -> Result<(), String> {
        shell(Path::new(path))
    }
}

/// The same judgement before there is a room: at start, of the file.
pub struct AtStart<'a>(pub &'a Net);

impl Host for AtStart<'_> {
    fn reach(&self, target: &Target) -> Result<(), String> {
        reach(self.0, target)
    }

    fn shell(&self, path: &str) -> Result<(), String> {
        shell(Path::new(path))
    }
}

fn destination(target: &Target) -> Option<Destination> {
    let (host, port) = target.host_and_port()?;
    Some(Destination { purpose: Purpose::Hook, host: host.clone(), port, allow_private: false })
}

/// The guard's first look, without a count: nothing is about to be sent.
fn reach(net: &Net, target: &Target) -> Result<(), String> {
    let Some(destination) = destination(target) else {
        return Err("it is no address of a network; next: use an http or https URL".to_string());
    };
    net.egress().check_host(&destination).map_err(|refusal| {
        let host = destination.host.to_string();
        NetError::EgressRefused { purpose: Purpose::Hook, host, refusal }.to_string()
    })
}

fn shell(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(path)
        .map_err(|error| format!("the shell {} cannot be used: {error}; next: correct the path", path.display()))?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return Err(format!("the shell {} is no program; next: correct the path", path.display()));
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every value is whole after each statement, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
