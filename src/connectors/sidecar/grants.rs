//! What a sidecar's sandbox shows it.
//! Owns: the way from a configuration to a spec: the directories of its own files and no more.
//! May touch: the names of files, to resolve them.
//! Never: shows the state root, or a file that holds a token or a key of the daemon.

use std::path::{Path, PathBuf};

use crate::connectors::config::ChildProcess;
use crate::sandbox::{Sandbox, SandboxSpec};

/// A place that every sandbox shows, for a sidecar that has no files of its own.
const NOTHING_OF_ITS_OWN: &str = "/usr/bin";

/// What sidecars are started with.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The walls.
    pub sandbox: Sandbox,
    /// The daemon's working directory; relative words of a command are relative to it.
    pub directory: PathBuf,
    /// Places that no sidecar may reach: the state root, files with tokens and keys.
    pub kept: Vec<PathBuf>,
}

/// The sandbox of a sidecar, and the directory that it runs in.
///
/// # Errors
/// A place does not exist or may not be shown, or the kernel offers less than `--sandbox` asks for.
pub(super) fn spec(surroundings: &Surroundings, child: &ChildProcess) -> Result<(SandboxSpec, PathBuf), String> {
    let canonical = |path: &Path| {
        path.canonicalize().map_err(|error| format!("{}: {error}; next: correct the path", path.display()))
    };
    let mut places: Vec<PathBuf> = Vec::new();
    let directory = match &child.working_dir {
        Some(directory) => {
            let directory = canonical(Path::new(directory))?;
            places.push(directory.clone());
            directory
        }
        None => {
            let words = std::iter::once(&child.command).chain(&child.args);
            places.extend(words.filter_map(|word| home_of(&surroundings.directory, word)));
            surroundings.directory.clone()
        }
    };
    for path in &child.read_only_paths {
        places.push(canonical(Path::new(path))?);
    }
    places.dedup();
    for place in &places {
        for kept in &surroundings.kept {
            let kept = kept.canonicalize().unwrap_or_else(|_| kept.clone());
            if kept.starts_with(place) || place.starts_with(&kept) {
                return Err(format!(
                    "{} would be shown to the sidecar with {}; next: put the sidecar's files elsewhere, or name them with \
                     child_process.working_dir",
                    kept.display(),
                    place.display()
                ));
            }
        }
    }
    let mut places = places.into_iter();
    let workspace = places.next().unwrap_or_else(|| PathBuf::from(NOTHING_OF_ITS_OWN));
    let granted = surroundings.sandbox.spec(&workspace).map_err(|error| error.to_string())?;
    let has_walls = !matches!(granted.walls, crate::sandbox::Walls::None);
    let mut read_only_paths = granted.read_only_paths.clone();
    read_only_paths.extend(places);
    let spec = SandboxSpec {
        workspace_read_only: has_walls && !child.working_dir_writable,
        read_only_paths,
        // It serves and calls on this host's network; that is what it is for.
        network: true,
        ..granted
    };
    Ok((spec, directory))
}

/// The directory of the file that a word names, if it names one.
fn home_of(directory: &Path, word: &str) -> Option<PathBuf> {
    let path = Path::new(word);
    // A bare word is found in PATH, or is no file.
    if !word.contains('/') {
        return None;
    }
    let file = directory.join(path).canonicalize().ok().filter(|file| file.is_file())?;
    file.parent().map(Path::to_path_buf)
}
