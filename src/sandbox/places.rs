//! Which places of the host may not lie together.
//! Owns: the refusal of a state root, a secret or a routes file that a tool could reach through its workspace.
//! May touch: the names of files, to resolve them.
//! Never: opens one.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use crate::broker::master_key::KEY_FILE_VARIABLE;
use crate::config::{Config, RawServe};
use crate::credential;

/// Two places that may not lie together.
#[derive(Debug)]
pub enum PlacesError {
    /// A place that tools can reach holds one that they must not reach.
    Reachable {
        /// What tools can reach, as its option.
        reachable: &'static str,
        /// Where that is.
        reachable_path: PathBuf,
        /// What they must not, as its option or variable.
        kept: &'static str,
        /// Where that is.
        kept_path: PathBuf,
    },
    /// The workspace lies inside the state root.
    Inside {
        /// The workspace root.
        workspace: PathBuf,
        /// The state root.
        state_root: PathBuf,
    },
    /// A path cannot be resolved.
    Unresolved {
        /// Its option.
        option: &'static str,
        /// The path.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
}

impl fmt::Display for PlacesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reachable { reachable, reachable_path, kept, kept_path } => write!(
                f,
                "{kept} {} lies inside {reachable} {}, where every tool can reach it; next: move one of the two",
                kept_path.display(),
                reachable_path.display()
            ),
            Self::Inside { workspace, state_root } => write!(
                f,
                "--workspace-root {} lies inside --state-root {}; next: name a workspace root elsewhere",
                workspace.display(),
                state_root.display()
            ),
            Self::Unresolved { option, path, cause } => {
                write!(f, "{option} {} cannot be resolved: {cause}; next: correct the path", path.display())
            }
        }
    }
}

impl std::error::Error for PlacesError {}

/// What tools can reach, and what they must not.
#[derive(Debug)]
pub struct Places<'a> {
    /// The workspace root.
    pub workspace: &'a Path,
    /// Further places that tools can read.
    pub read_only: &'a [PathBuf],
    /// The state root.
    pub state_root: &'a Path,
    /// Files with secrets or with what the daemon trusts, each with its option.
    pub kept: Vec<(&'static str, PathBuf)>,
}

/// [`check`] of what a daemon is about to start with.
///
/// # Errors
/// Names the two.
pub fn check_start(raw: &RawServe, config: &Config) -> Result<(), PlacesError> {
    check(&Places {
        workspace: &config.workspace_root,
        read_only: &config.sandbox_read_only_paths,
        state_root: &config.state_root,
        kept: kept_files(raw, config),
    })
}

/// Files with secrets or with what the daemon trusts, each with its option or variable.
pub fn kept_files(raw: &RawServe, config: &Config) -> Vec<(&'static str, PathBuf)> {
    let mut kept = Vec::new();
    let mut keep = |option, path: Option<PathBuf>| kept.extend(path.map(|path| (option, path)));
    keep("--routes-file", config.routes_file.clone());
    keep("--mcp-config", config.mcp_config.clone());
    keep("--hooks-config", config.hooks_config.clone());
    keep("--connectors-config", config.connectors_config.clone());
    keep("--http-admin-token-file", raw.http_admin_token_file.as_ref().map(PathBuf::from));
    keep("--http-readonly-token-file", raw.http_readonly_token_file.as_ref().map(PathBuf::from));
    keep("--audit-signing-key-file", config.audit_signing_key_file.clone());
    // A credential that was not handed over has no place; its reader says so.
    let master_key = std::env::var_os(KEY_FILE_VARIABLE).and_then(|text| credential::file(&text).ok());
    keep(KEY_FILE_VARIABLE, master_key);
    let credentials = std::env::var_os(credential::DIRECTORY_VARIABLE).filter(|directory| !directory.is_empty());
    keep(credential::DIRECTORY_VARIABLE, credentials.map(PathBuf::from));
    kept
}

/// Refuses places that lie together, whatever links lead to them. What does not exist yet counts as well.
///
/// # Errors
/// Names the two.
pub fn check(places: &Places<'_>) -> Result<(), PlacesError> {
    let resolve = |option: &'static str, path: &Path| {
        resolved(path).map_err(|cause| PlacesError::Unresolved { option, path: path.to_path_buf(), cause })
    };
    let workspace = resolve("--workspace-root", places.workspace)?;
    let state_root = resolve("--state-root", places.state_root)?;
    if workspace != state_root && workspace.starts_with(&state_root) {
        return Err(PlacesError::Inside { workspace, state_root });
    }
    let mut reachable = vec![("--workspace-root", workspace)];
    for path in places.read_only {
        reachable.push(("--sandbox-read-only-path", resolve("--sandbox-read-only-path", path)?));
    }
    let mut kept = vec![("--state-root", state_root)];
    for (option, path) in &places.kept {
        kept.push((option, resolve(option, path)?));
    }
    for (reachable, reachable_path) in &reachable {
        for (kept, kept_path) in &kept {
            // A read-only path inside the state root would show a part of it.
            let shows_part = *kept == "--state-root" && reachable_path.starts_with(kept_path);
            if kept_path.starts_with(reachable_path) || shows_part {
                return Err(PlacesError::Reachable {
                    reachable,
                    reachable_path: reachable_path.clone(),
                    kept,
                    kept_path: kept_path.clone(),
                });
            }
        }
    }
    Ok(())
}

/// The canonical path; of what does not exist yet, that of its nearest parent with the rest behind it.
pub(crate) fn resolved(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let mut rest = Vec::new();
    let mut existing = absolute.as_path();
    loop {
        match existing.canonicalize() {
            Ok(found) => return Ok(rest.iter().rev().fold(found, |path, name| path.join(name))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // `..` behind something that does not exist has no meaning yet.
                let (Some(parent), Some(name)) = (existing.parent(), existing.file_name()) else { return Err(error) };
                rest.push(name.to_os_string());
                existing = parent;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> PathBuf {
        let place = std::env::temp_dir().join(format!("kheish-places-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&place).expect("a scratch folder");
        place
    }

    fn outcome(workspace: &Path, state_root: &Path, kept: &[PathBuf]) -> Option<String> {
        let kept = kept.iter().map(|path| ("--http-admin-token-file", path.clone())).collect();
        let places = Places { workspace, read_only: &[], state_root, kept };
        check(&places).err().map(|error| error.to_string())
    }

    #[test]
    fn neither_root_may_hold_the_other_whether_they_exist_or_not() {
        let base = place("roots");
        let (one, two) = (base.join("one"), base.join("two"));
        assert_eq!(outcome(&one, &two, &[]), None);
        for (workspace, state) in [(&base, &one), (&one, &one.join("deep/er")), (&one, &one)] {
            let refused = outcome(workspace, state, &[]).expect("refused");
            assert!(refused.starts_with("--state-root ") && refused.contains("; next: "), "{refused}");
        }
        let refused = outcome(&one.join("work"), &one, &[]).expect("refused");
        assert!(refused.starts_with("--workspace-root "), "{refused}");
        // A common beginning of the names is no common place.
        assert_eq!(outcome(&base.join("state-work"), &base.join("state"), &[]), None);
        std::fs::remove_dir_all(base).expect("a scratch folder of ours");
    }

    #[test]
    fn links_and_dots_hide_nothing() {
        let base = place("links");
        std::fs::create_dir_all(base.join("work")).expect("a folder");
        std::os::unix::fs::symlink(base.join("work"), base.join("link")).expect("a link");
        assert!(outcome(&base.join("work"), &base.join("link/state"), &[]).is_some());
        assert!(outcome(&base.join("link"), &base.join("work/../work/state"), &[]).is_some());
        std::fs::remove_dir_all(base).expect("a scratch folder of ours");
    }

    #[test]
    fn secrets_may_not_lie_in_the_workspace() {
        let base = place("secrets");
        let (work, state) = (base.join("work"), base.join("state"));
        assert_eq!(outcome(&work, &state, &[base.join("token")]), None);
        let refused = outcome(&work, &state, &[work.join("token")]).expect("refused");
        assert!(refused.starts_with("--http-admin-token-file "), "{refused}");
        std::fs::remove_dir_all(base).expect("a scratch folder of ours");
    }

    #[test]
    fn a_read_only_path_shows_no_part_of_the_state_root() {
        let base = place("shown");
        let (work, state) = (base.join("work"), base.join("state"));
        for shown in [base.clone(), state.clone(), state.join("auth")] {
            let read_only = [shown];
            let places = Places { workspace: &work, read_only: &read_only, state_root: &state, kept: Vec::new() };
            assert!(check(&places).is_err(), "{read_only:?}");
        }
        std::fs::remove_dir_all(base).expect("a scratch folder of ours");
    }
}
