//! Background checks of the storage: write probes, free space, re-hashing of the journal's older segments.
//! Owns: the published storage view.
//! May touch: probe files in the state root and the workspace root; the journal, reading.
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
    INODES_USED_ERROR_PERCENT, PROBE_INTERVAL_MS, PROBE_STALE_MS, SPACE_USED_ERROR_PERCENT, SPACE_USED_WARNING_PERCENT,
};
use crate::state_root::LockStatus;
use crate::state_root::probe::{Probe, ProbeState, probe, sweep};
use crate::sys::{FileSystemFigures, file_system_figures};

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

#[derive(Debug, Clone, Copy, Serialize)]
struct Space {
    total_bytes: u64,
    available_bytes: u64,
    used_percent: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    inodes_used_percent: Option<u64>,
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
        let used = |total: u64, available: u64| (total != 0).then(|| (total - available.min(total)) * 100 / total);
        Self {
            total_bytes: figures.total_bytes,
            available_bytes: figures.available_bytes,
            used_percent: used(figures.total_bytes, figures.available_bytes).unwrap_or(0),
            inodes_used_percent: used(figures.total_inodes, figures.available_inodes),
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
            found.push(HealthWarning::new(
                Severity::Error,
                "storage_write_probe_timeout",
                format!("the write probes have not returned for {PROBE_STALE_MS} ms"),
                None,
                "check for a hanging disk or network file system",
            ));
        }
        if let Some(damage) = &self.scrub.damage {
            found.push(HealthWarning::new(
                Severity::Error,
                "journal_damaged",
                damage.clone(),
                None,
                "run kheish-daemon journal verify --offline on a copy and restore from a backup",
            ));
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
    lock: LockStatus,
    scrub: ScrubView,
    scrubbed: Seq,
}

impl Upkeep {
    /// Probes once, so that the first status has a verdict, and returns the view and the loop that keeps it.
    pub fn begin(roots: Roots, lock: LockStatus, reader: Reader, clock: Arc<dyn Clock>) -> (Self, UpkeepLoop) {
        for directory in [&roots.state_probe, &roots.workspace_root] {
            if let Err(error) = sweep(directory) {
                log::warn!("old write probes in {} stay: {error}", directory.display());
            }
        }
        let scrub = ScrubView::default();
        let view = look(&roots, &lock, &scrub, clock.now_ms());
        let upkeep = Self { view: Arc::new(Mutex::new(view)), clock };
        let looped = UpkeepLoop { upkeep: upkeep.clone(), roots, reader, lock, scrub, scrubbed: 0 };
        (upkeep, looped)
    }

    /// The newest view. Never waits for a probe.
    pub fn storage(&self) -> StorageView {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let age_ms = self.clock.now_ms().saturating_sub(view.checked_at_ms);
        if age_ms > PROBE_STALE_MS {
            view.stale = true;
            view.ok = false;
        }
        view
    }
}

impl UpkeepLoop {
    /// Runs until `stop` is disconnected.
    pub fn run(mut self, stop: Receiver<()>) {
        let interval = Duration::from_millis(PROBE_INTERVAL_MS);
        while let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(interval) {
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

fn look(roots: &Roots, lock: &LockStatus, scrub: &ScrubView, now_ms: u64) -> StorageView {
    let lock = lock.look();
    let probes = vec![
        probe_root("state_root", &roots.state_probe, &roots.state_root, now_ms),
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
        if space.used_percent >= SPACE_USED_WARNING_PERCENT || inodes >= INODES_USED_ERROR_PERCENT {
            let full = space.used_percent >= SPACE_USED_ERROR_PERCENT;
            probe.state = ProbeState::Warning;
            probe.code = if full { "space_nearly_full" } else { "space_low" };
            probe.message = format!("{} is {} % full ({inodes} % of inodes)", shown.display(), space.used_percent);
            probe.action = Some("free space or enlarge the file system");
        }
    }
    RootProbe { name, path: shown.display().to_string(), probe, space }
}
