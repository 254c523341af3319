//! What this kernel offers, probed once at start, and the specs that follow from it.
//! Owns: the report that status shows.
//! May touch: one child process, at start.
//! Never: probes in the daemon's own process: a wall that was built cannot be taken down.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::features::{Feature, FeatureReport, Strength, strength};
use super::tool_worker::ToolWorker;
use super::{Level, SandboxError, SandboxSpec, Walls};
use crate::config::Config;
use crate::sys::files;

/// The sandbox as status shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SandboxReport {
    /// What `--sandbox` asks for.
    pub level: Level,
    /// What the walls amount to.
    pub strength: Strength,
    /// Tools can run under that level.
    pub usable: bool,
    /// Time that the probing worker took to stand, microseconds.
    pub probe_us: u64,
    /// Every wall, and what became of it.
    pub features: Vec<FeatureReport>,
}

/// The sandbox of this daemon. Clones share one report.
#[derive(Debug, Clone)]
pub struct Sandbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    report: SandboxReport,
    program: PathBuf,
    read_only_paths: Vec<PathBuf>,
    network: bool,
}

/// What the operator asks for.
#[derive(Debug)]
pub struct SandboxSettings<'a> {
    /// `--sandbox`.
    pub level: Level,
    /// The workspace root, to try the walls on.
    pub workspace: &'a Path,
    /// `--sandbox-read-only-path`, canonical.
    pub read_only_paths: Vec<PathBuf>,
    /// `--sandbox-network`.
    pub network: bool,
    /// The binary to start workers from.
    pub program: PathBuf,
}

impl SandboxSettings<'_> {
    /// The binary of this process, even if its file was replaced meanwhile.
    pub fn this_program() -> PathBuf {
        PathBuf::from("/proc/self/exe")
    }
}

impl Sandbox {
    /// The sandbox of a daemon that starts with `config`; the log says what was found.
    pub fn start(config: &Config) -> Self {
        let sandbox = Self::probe(SandboxSettings {
            level: config.sandbox,
            workspace: &config.workspace_root,
            read_only_paths: config.sandbox_read_only_paths.clone(),
            network: config.sandbox_network,
            program: SandboxSettings::this_program(),
        });
        sandbox.log();
        sandbox
    }

    /// Has a worker of `program` try every wall on `workspace` and end. Tools may be unusable afterwards; the daemon is
    /// not.
    pub fn probe(settings: SandboxSettings<'_>) -> Self {
        let SandboxSettings { level, workspace, read_only_paths, network, program } = settings;
        let started = Instant::now();
        let walls = if level == Level::Off { Walls::None } else { Walls::All };
        let spec = SandboxSpec {
            read_only_paths: read_only_paths.clone(),
            program: program.clone(),
            // One that cannot be resolved shows in the report as a root that cannot be built.
            ..SandboxSpec::new(workspace.canonicalize().unwrap_or_else(|_| workspace.to_path_buf()), walls)
        };
        let features = match level {
            Level::Off => all_missing("--sandbox off"),
            _ => ToolWorker::probe(&spec).unwrap_or_else(|error| all_missing(&error.to_string())),
        };
        let probe_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let strength = strength(&features);
        let usable = match level {
            Level::Off => true,
            Level::Auto => strength != Strength::None,
            Level::Required => strength == Strength::Full,
        };
        let report = SandboxReport { level, strength, usable, probe_us, features };
        Self(Arc::new(Shared { report, program, read_only_paths, network }))
    }

    /// Says in the log what was found.
    fn log(&self) {
        let report = &self.0.report;
        let level = report.level.name();
        match report.strength {
            _ if report.level == Level::Off => {
                log::warn!("--sandbox off: tools run with all rights of the daemon's user, without any wall");
            }
            _ if !report.usable => {
                log::error!("tools are refused: --sandbox {level} cannot be had: {}", report.missing())
            }
            Strength::Full => log::info!("sandbox: every wall stands (--sandbox {level})"),
            _ => log::warn!("sandbox: reduced; missing: {}", report.missing()),
        }
        if self.0.network {
            log::warn!("--sandbox-network: commands of tools use the host's network, loopback included");
        }
    }

    /// What was found.
    pub fn report(&self) -> &SandboxReport {
        &self.0.report
    }

    /// A spec for `workspace` with every wall that stands here: writable, default limits, the network only as the
    /// operator granted it.
    ///
    /// # Errors
    /// The kernel offers less than the level asks for; or the workspace cannot be resolved.
    pub fn spec(&self, workspace: &Path) -> Result<SandboxSpec, SandboxError> {
        let report = &self.0.report;
        if !report.usable {
            return Err(SandboxError::Unavailable { level: report.level, missing: report.missing() });
        }
        let workspace = std::fs::canonicalize(workspace)
            .map_err(|error| SandboxError::Refused { cause: format!("workspace {}: {error}", workspace.display()) })?;
        let active = report.features.iter().filter(|feature| feature.active).map(|feature| feature.name);
        let walls = if report.level == Level::Off { Walls::None } else { Walls::Probed(active.collect()) };
        Ok(SandboxSpec {
            network: self.0.network,
            read_only_paths: self.0.read_only_paths.clone(),
            program: self.0.program.clone(),
            ..SandboxSpec::new(workspace, walls)
        })
    }
}

impl Sandbox {
    /// The same for a directory below `workspace`, given as a relative path. Whoever works in the whole may move things
    /// about meanwhile: the worker starts on the very directory that was found here, or not at all.
    ///
    /// # Errors
    /// As [`Sandbox::spec`]; or there is no such directory beneath the workspace.
    pub fn spec_below(&self, workspace: &Path, directory: &str) -> Result<SandboxSpec, SandboxError> {
        let spec = self.spec(workspace)?;
        if directory.is_empty() {
            return Ok(spec);
        }
        let refused = |cause: String| SandboxError::Refused {
            cause: format!("workspace {directory:?} below {}: {cause}", workspace.display()),
        };
        let found = File::open(&spec.workspace)
            .and_then(|root| files::open_beneath(&root, Path::new(directory), files::Open::Directory))
            .and_then(|directory| directory.metadata())
            .map_err(|error| refused(error.to_string()))?;
        let path = std::fs::canonicalize(spec.workspace.join(directory)).map_err(|error| refused(error.to_string()))?;
        if !path.starts_with(&spec.workspace) {
            return Err(refused("it leads out".to_string()));
        }
        let workspace_identity = Some((found.dev(), found.ino()));
        Ok(SandboxSpec { workspace: path, workspace_identity, ..spec })
    }
}

impl SandboxReport {
    /// The missing walls with their reasons, as one text; empty when there are none.
    pub fn missing(&self) -> String {
        let missing = self.features.iter().filter(|feature| !feature.active);
        let texts: Vec<String> =
            missing.map(|feature| format!("{} ({})", name(feature.name), feature.reason)).collect();
        texts.join(", ")
    }
}

fn name(feature: Feature) -> String {
    match serde_json::to_value(feature) {
        Ok(serde_json::Value::String(name)) => name,
        _ => format!("{feature:?}"),
    }
}

fn all_missing(reason: &str) -> Vec<FeatureReport> {
    let missing = |name: &Feature| FeatureReport { name: *name, active: false, reason: reason.to_string() };
    Feature::ALL.iter().map(missing).collect()
}
