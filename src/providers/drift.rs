//! The routes file on disk beside what the daemon loaded of it.
//! Owns: the published verdict whether the two are still the same, and what a restart would make of the file.
//! May touch: the routes file, read-only.
//! Never: loads anything: a running daemon keeps the routes that it was started with.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{SHA256, digest};
use serde::Serialize;
use zeroize::Zeroizing;

use super::routes::{Diagnostic, Routes, Severity};
use crate::hex::to_hex;
use crate::limits::ROUTES_FILE_BYTES_MAX;

/// Digits of a digest that a message shows.
const SHOWN_DIGITS: usize = 16;

/// How the file on disk compares with what is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftState {
    /// The same bytes.
    InSync,
    /// Other bytes.
    Changed,
    /// It cannot be read any more.
    Unreadable,
}

/// The newest comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// The verdict.
    pub state: DriftState,
    /// When the file was looked at, Unix milliseconds.
    pub checked_at_ms: u64,
    /// SHA-256 of the file on disk in hex, where it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Whether the daemon would start with the changed file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loads: Option<bool>,
    /// What is wrong with the changed file, where it would not load.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
    /// For people; none while in sync.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Drift {
    /// As a finding about the routes: `route_file_drift` or `route_file_unreadable`.
    pub fn diagnostic(&self) -> Option<Diagnostic> {
        let code = match self.state {
            DriftState::InSync => return None,
            DriftState::Changed => "route_file_drift",
            DriftState::Unreadable => "route_file_unreadable",
        };
        let message = self.message.clone().unwrap_or_default();
        Some(Diagnostic::new(Severity::Warning, code, None, None, message))
    }
}

/// Compares a routes file with what was loaded of it. Clones share the verdict.
#[derive(Clone)]
pub struct RoutesWatch(Arc<Watched>);

struct Watched {
    routes: Arc<Routes>,
    /// Of `serve --default-route`, which a restart would repeat.
    default_route: Option<String>,
    newest: Mutex<Drift>,
}

impl RoutesWatch {
    /// Looks once, so that the first view has a verdict.
    pub fn begin(routes: Arc<Routes>, default_route: Option<String>, now_ms: u64) -> Self {
        let newest = Drift {
            state: DriftState::InSync,
            checked_at_ms: now_ms,
            sha256: Some(to_hex(&routes.source().sha256)),
            loads: None,
            diagnostics: Vec::new(),
            message: None,
        };
        let watch = Self(Arc::new(Watched { routes, default_route, newest: Mutex::new(newest) }));
        watch.look(now_ms);
        watch
    }

    /// Reads the file and publishes the verdict. May wait for the disk, so it is never called by a request.
    pub fn look(&self, now_ms: u64) {
        let before = self.newest();
        let verdict = self.compare(&before, now_ms);
        if (verdict.state, &verdict.sha256) != (before.state, &before.sha256) {
            match &verdict.message {
                Some(message) => log::warn!("routes file: {message}"),
                None => log::info!("routes file: it is again what was loaded"),
            }
        }
        *self.0.newest.lock().unwrap_or_else(PoisonError::into_inner) = verdict;
    }

    /// The newest verdict. Never waits for a disk.
    pub fn newest(&self) -> Drift {
        self.0.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn compare(&self, before: &Drift, now_ms: u64) -> Drift {
        let source = self.0.routes.source();
        let verdict = |state, sha256, message| Drift {
            state,
            checked_at_ms: now_ms,
            sha256,
            loads: None,
            diagnostics: Vec::new(),
            message,
        };
        let sha256 = match sha256_of(&source.path) {
            Ok(sha256) => sha256,
            Err(error) => {
                let message = format!(
                    "{} cannot be read any more: {error}; the daemon goes on with what it loaded; next: restore the \
                     file before the next start",
                    source.path.display()
                );
                return verdict(DriftState::Unreadable, None, Some(message));
            }
        };
        let digits = to_hex(&sha256);
        if sha256 == source.sha256 {
            return verdict(DriftState::InSync, Some(digits), None);
        }
        if before.state == DriftState::Changed && before.sha256.as_ref() == Some(&digits) {
            return Drift { checked_at_ms: now_ms, ..before.clone() };
        }
        let environment = |name: &str| std::env::var(name).ok();
        let judged = Routes::load(&source.path, self.0.default_route.as_deref(), &environment);
        let diagnostics = judged.err().map(|error| error.diagnostics).unwrap_or_default();
        let loads = diagnostics.is_empty();
        let next = match loads {
            true => "restart the daemon to use it, or put the loaded file back",
            false => "the daemon would not start with it: correct it (kheish-daemon doctor routes --routes-file FILE)",
        };
        let message = format!(
            "{} has changed: {} is loaded, {} is on disk; next: {next}",
            source.path.display(),
            &to_hex(&source.sha256)[..SHOWN_DIGITS],
            &digits[..SHOWN_DIGITS],
        );
        let changed = verdict(DriftState::Changed, Some(digits), Some(message));
        Drift { loads: Some(loads), diagnostics, ..changed }
    }
}

/// Of a file that is too long only the part that is enough to tell it from a loaded one.
fn sha256_of(path: &Path) -> std::io::Result<[u8; 32]> {
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path)?.take(ROUTES_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(digest(&SHA256, &bytes).as_ref().try_into().expect("SHA-256 has 32 bytes"))
}
