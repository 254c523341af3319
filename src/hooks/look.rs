//! What changes without anybody telling: the addresses behind hooks' names, and the hooks file.
//! Owns: the newest answer about each.
//! May touch: the system's resolver through `net`, the hooks file.
//! Never: calls a hook, or holds a request up.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select};

use super::definition::{Executor, Hook};
use super::file::{HooksFile, HooksFileError};
use super::view::HookTarget;
use super::{Hooks, destination, lock};
use crate::limits::{HOOK_LOOK_MS, HOOK_RESOLVE_MS_MAX};
use crate::net::{Destination, NetError, Purpose};
use crate::worker::idle;

/// What was last found.
#[derive(Default)]
struct Board {
    /// By the digest of the definition.
    targets: BTreeMap<String, HookTarget>,
    /// The file, if it is another one than at start.
    file: Option<Result<String, HooksFileError>>,
}

/// The thread's board and bell.
pub(super) struct Look {
    board: Mutex<Board>,
    wake: Sender<()>,
    woken: Receiver<()>,
}

impl Default for Look {
    fn default() -> Self {
        let (wake, woken) = bounded(1);
        Self { board: Mutex::default(), wake, woken }
    }
}

impl Look {
    /// Has everything looked at now.
    pub fn wake(&self) {
        let _woken_before = self.wake.try_send(());
    }

    /// The newest answer about a hook's host.
    pub fn target(&self, digest: &str) -> Option<HookTarget> {
        lock(&self.board).targets.get(digest).cloned()
    }

    /// SHA-256 of the file as it is now, or why it cannot be used; `None` while it is as it was at start.
    pub fn file(&self) -> Option<Result<String, HooksFileError>> {
        lock(&self.board).file.clone()
    }
}

impl Hooks {
    /// The thread `hook-look`.
    pub(super) fn look_after(&self) {
        let look = &self.0.look;
        while !self.stopping().is_cancelled() {
            self.look();
            idle(|| {
                select! {
                    recv(look.woken) -> _ => {}
                    recv(self.stopping().woken()) -> _ => {}
                    default(Duration::from_millis(HOOK_LOOK_MS)) => {}
                }
            });
        }
    }

    fn look(&self) {
        if let Some(file) = &self.0.file {
            let now = HooksFile::load(&file.path, self).map(|now| now.sha256);
            lock(&self.0.look.board).file = Some(now).filter(|now| now.as_ref().ok() != Some(&file.sha256));
        }
        let compiled = self.compiled();
        let mut targets = BTreeMap::new();
        for hook in &compiled.definitions.hooks {
            let Executor::Http { target, .. } = &hook.executor else { continue };
            if let Some(destination) = destination(target) {
                targets.insert(hook.digest.clone(), self.examine(hook, &destination));
            }
        }
        lock(&self.0.look.board).targets = targets;
    }

    fn examine(&self, hook: &Hook, destination: &Destination) -> HookTarget {
        let host = destination.host.to_string();
        let (state, message, action) =
            match self.0.around.net.examine(destination, HOOK_RESOLVE_MS_MAX, self.stopping()) {
                Ok(examined) => match examined.refusal {
                    None => ("ok", String::new(), None),
                    Some(refusal) => {
                        let error = NetError::EgressRefused { purpose: Purpose::Hook, host: host.clone(), refusal };
                        let action = "correct the name's DNS record or the hook's URL";
                        ("error", error.to_string(), Some(action.to_string()))
                    }
                },
                Err(error) => {
                    ("warning", error.to_string(), Some("check the resolver of the daemon's host".to_string()))
                }
            };
        HookTarget { hook: hook.label(), host, state, message, action, checked_at_ms: Some(self.now_ms()) }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.0.around.clock.now_ms()
    }
}
