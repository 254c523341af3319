//! Background checks of the storage: write probes, free space, re-hashing of the journal's older segments; drift of the routes
//! file.
//! Owns: the published storage view, and the pace of all these.
//! May touch: probe files in the state root and the workspace root; the journal and the routes file, reading.
//! Never: runs inside a request. A probe that hangs hangs this thread alone, and its age shows.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use serde::Serialize;

use crate::api::status::{HealthWarning, Severity};
use crate::clock::Clock;
use crate::ids::Seq;
use crate::journal::Reader;
use crate::limits::{
    INODES_USED_ERROR_PERCENT, PROBE_INTERVAL_MS, PROBE_STALE_MS, ROUTES_WATCH_INTERVAL_MS, SPACE_USED_ERROR_PERCENT,
    SPACE_USED_WARNING_PERCENT,
};
use crate::providers::RoutesWatch;
use crate::state_root::probe::{Probe, ProbeState, probe, sweep};
use crate::state_root::{LockStatus, LockWatch};
use crate::sys::{FileSystemFigures, file_system_figures};
use crate::worker::idle;

/// `storage` of the status.
#[derive(Debug, Clone, Serialize)]
pub struct StorageView {
    checked_at_ms: u64,
    ok: bool,
    write_error_count: usize,
    probes: Vec<RootProbe>,
    state_root_lock: LockStatus,
    scrub: ScrubView,
    /// Age of the probes was beyond the bound when the view was read.
    stale: bool,
}

#[derive(Debug, Clone, Serialize)]
struct RootProbe {
    name: &'static str,
    path: String,
    #[serde(flatten)]
    probe: Probe,
    #[serde(skip_serializing_if = "Option::is_none")]
    space: Option<Space>,
}

/// Space of a file system as a status shows it.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Space {
    /// Size in bytes.
    pub total_bytes: u64,
    /// Bytes an unprivileged writer may still use.
    pub available_bytes: u64,
    /// As df(1) tells it.
    pub used_percent: u64,
    /// None where the file system has no fixed number of inodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inodes_used_percent: Option<u64>,
}

#[derive(Debug, Clone, Default, Serialize)]
struct ScrubView {
    /// Segments re-hashed since start.
    segment_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<String>,
}

impl From<FileSystemFigures> for Space {
    fn from(figures: FileSystemFigures) -> Self {
        // As df(1) tells it: of what an unprivileged writer can have, rounded up.
        let used_percent = |used: u64, available: u64| {
            let all = used + available;
            (all != 0).then(|| (used * 100).div_ceil(all))
        };
        Self {
            total_bytes: figures.total_bytes,
            available_bytes: figures.available_bytes,
            used_percent: used_percent(figures.used_bytes, figures.available_bytes).unwrap_or(0),
            inodes_used_percent: used_percent(figures.used_inodes, figures.available_inodes),
        }
    }
}

impl StorageView {
    /// What of it is worth a health warning. A slow probe or a filling disk shows in the probes and does not
    /// make the daemon unhealthy; losing writes or data does.
    pub fn warnings(&self) -> Vec<HealthWarning> {
        let mut found = Vec::new();
        for root in self.probes.iter().filter(|root| !root.probe.writable) {
            found.push(HealthWarning::new(
                Severity::Error,
                "storage_write_probe_failed",
                root.probe.message.clone(),
                Some(root.path.clone()),
                root.probe.action.unwrap_or("check the disk"),
            ));
        }
        if self.stale {
            let message = format!("the write probes have not returned for {PROBE_STALE_MS} ms");
            found.push(HealthWarning::of(Severity::Error, "storage_write_probe_timeout", message, None));
        }
        if !self.state_root_lock.held {
            let path = self.state_root_lock.path.clone();
            let message = format!("{path} is not the file that this daemon has locked");
            found.push(HealthWarning::of(Severity::Error, "state_root_lock_lost", message, Some(path)));
        }
        if let Some(damage) = &self.scrub.damage {
            found.push(HealthWarning::of(Severity::Error, "journal_damaged", damage.clone(), None));
        }
        found
    }
}

/// The published view. Cheap to clone.
#[derive(Clone)]
pub struct Upkeep {
    view: Arc<Mutex<StorageView>>,
    clock: Arc<dyn Clock>,
}

/// What is watched.
pub struct Roots {
    /// The state root's probe directory.
    pub state_probe: PathBuf,
    /// The state root.
    pub state_root: PathBuf,
    /// The workspace root.
    pub workspace_root: PathBuf,
}

/// The thread's part.
pub struct UpkeepLoop {
    upkeep: Upkeep,
    roots: Roots,
    reader: Reader,
    lock: LockWatch,
    scrub: ScrubView,
    scrubbed: Seq,
    routes: Option<RoutesWatch>,
}

impl Upkeep {
    /// Probes once, so that the first status has a verdict, and returns the view and the loop that keeps it.
    pub fn begin(roots: Roots, lock: LockWatch, reader: Reader, clock: Arc<dyn Clock>) -> (Self, UpkeepLoop) {
        for directory in [&roots.state_probe, &roots.workspace_root] {
            if let Err(error) = sweep(directory) {
                log::warn!("old write probes in {} stay: {error}", directory.display());
            }
        }
        let scrub = ScrubView::default();
        let view = look(&roots, &lock, &scrub, clock.now_ms());
        let upkeep = Self { view: Arc::new(Mutex::new(view)), clock };
        let looped = UpkeepLoop { upkeep: upkeep.clone(), roots, reader, lock, scrub, scrubbed: 0, routes: None };
        (upkeep, looped)
    }

    /// The newest view, with whether the journal's reserve for a full disk is there. Never waits for a probe.
    pub fn storage(&self, reserve_is_intact: bool) -> StorageView {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let age_ms = self.clock.now_ms().abs_diff(view.checked_at_ms);
        if age_ms > PROBE_STALE_MS {
            view.stale = true;
            view.ok = false;
        }
        let root = view.probes.iter_mut().find(|root| root.name == STATE_ROOT && root.probe.state == ProbeState::Ok);
        if let Some(root) = root.filter(|_| !reserve_is_intact) {
            root.probe.state = ProbeState::Warning;
            root.probe.code = "reserve_missing";
            root.probe.message = "there is no room for the reserve that serves cancelling on a full disk".to_string();
            root.probe.action = Some("free space under the state root");
        }
        view
    }
}

impl UpkeepLoop {
    /// Also compares the routes file with what was loaded of it.
    pub fn with_routes(self, routes: Option<RoutesWatch>) -> Self {
        Self { routes, ..self }
    }

    /// Runs until `stop` is disconnected.
    pub fn run(mut self, stop: Receiver<()>) {
        let interval = Duration::from_millis(ROUTES_WATCH_INTERVAL_MS);
        let mut waited_ms = 0;
        while let Err(RecvTimeoutError::Timeout) = idle(|| stop.recv_timeout(interval)) {
            if let Some(routes) = &self.routes {
                routes.look(self.upkeep.clock.now_ms());
            }
            waited_ms += ROUTES_WATCH_INTERVAL_MS;
            if waited_ms < PROBE_INTERVAL_MS {
                continue;
            }
            waited_ms = 0;
            self.scrub_next_segment();
            let view = look(&self.roots, &self.lock, &self.scrub, self.upkeep.clock.now_ms());
            *self.upkeep.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
        }
    }

    /// One full segment a step, round and round; the one being written is read back at the next start anyway.
    fn scrub_next_segment(&mut self) {
        let segments = self.reader.segments();
        let Some((_, full)) = segments.split_last() else { return };
        let Some(next) = full.iter().find(|segment| segment.first > self.scrubbed).or(full.first()) else { return };
        self.scrubbed = next.first;
        match self.reader.rehash(next.first) {
            Ok(()) => self.scrub.segment_count += 1,
            Err(error) => {
                log::error!("the journal is damaged: {error}");
                self.scrub.damage = Some(error.to_string());
            }
        }
    }
}

/// The name of the state root's probe.
const STATE_ROOT: &str = "state_root";

fn look(roots: &Roots, lock: &LockWatch, scrub: &ScrubView, now_ms: u64) -> StorageView {
    let lock = lock.look();
    let probes = vec![
        probe_root(STATE_ROOT, &roots.state_probe, &roots.state_root, now_ms),
        probe_root("workspace_root", &roots.workspace_root, &roots.workspace_root, now_ms),
    ];
    let errors = probes.iter().filter(|root| !root.probe.writable).count();
    StorageView {
        checked_at_ms: now_ms,
        ok: errors == 0 && scrub.damage.is_none() && lock.held,
        write_error_count: errors,
        probes,
        state_root_lock: lock,
        scrub: scrub.clone(),
        stale: false,
    }
}

fn probe_root(name: &'static str, directory: &Path, shown: &Path, now_ms: u64) -> RootProbe {
    let mut probe = probe(directory, now_ms);
    let space = file_system_figures(shown).ok().map(Space::from);
    if let Some(space) = space.filter(|_| probe.state == ProbeState::Ok) {
        let inodes = space.inodes_used_percent.unwrap_or(0);
        let code = if inodes >= INODES_USED_ERROR_PERCENT {
            Some("inodes_low")
        } else if space.used_percent > SPACE_USED_ERROR_PERCENT {
            Some("space_nearly_full")
        } else {
            (space.used_percent > SPACE_USED_WARNING_PERCENT).then_some("space_low")
        };
        if let Some(code) = code {
            probe.state = ProbeState::Warning;
            probe.code = code;
            probe.message = format!("{} is {} % full ({inodes} % of inodes)", shown.display(), space.used_percent);
            probe.action = Some("free space or enlarge the file system");
        }
    }
    RootProbe { name, path: shown.display().to_string(), probe, space }
}
