//! What a worker is told on its command line, before it exists.
//! Owns: the form of it. It names places, never secrets: command lines are public.
//! Never: is read by anybody but the worker.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::features::Feature;
use super::{SandboxSpec, Walls};

/// The policy of one worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Policy {
    /// Canonical.
    pub workspace: PathBuf,
    /// What it must turn out to be: device and inode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_identity: Option<(u64, u64)>,
    /// The workspace can only be read.
    pub workspace_read_only: bool,
    /// Further places that can be read and executed from.
    pub read_only_paths: Vec<PathBuf>,
    /// The host's network can be used.
    pub network: bool,
    /// Size of the private temp directory.
    pub scratch_bytes: u64,
    /// Private writable memory of one process.
    pub memory_bytes: u64,
    /// Memory of all processes together.
    pub total_memory_bytes: u64,
    /// Open files of one process.
    pub open_files: u64,
    /// Size of any file written.
    pub file_bytes: u64,
    /// Processes and threads.
    pub processes: u64,
    /// The walls to build: all of these or no worker.
    pub walls: Vec<Feature>,
    /// Build what can be built, report it and end.
    pub probe: bool,
}

impl Policy {
    /// The policy of a spec.
    pub fn of(spec: &SandboxSpec) -> Self {
        let mut walls = match &spec.walls {
            Walls::All => Feature::ALL.to_vec(),
            Walls::Probed(features) => features.clone(),
            Walls::None => Vec::new(),
        };
        if spec.network {
            walls.retain(|wall| *wall != Feature::NetNamespace);
        }
        Self {
            workspace: spec.workspace.clone(),
            workspace_identity: spec.workspace_identity,
            workspace_read_only: spec.workspace_read_only,
            read_only_paths: spec.read_only_paths.clone(),
            network: spec.network,
            scratch_bytes: spec.scratch_bytes,
            memory_bytes: spec.limits.memory_bytes,
            total_memory_bytes: spec.limits.total_memory_bytes,
            open_files: spec.limits.open_files,
            file_bytes: spec.limits.file_bytes,
            processes: spec.limits.processes,
            walls,
            probe: false,
        }
    }

    /// Whether `wall` is to be built.
    pub fn wants(&self, wall: Feature) -> bool {
        self.walls.contains(&wall)
    }
}
