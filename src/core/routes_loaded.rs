//! Which routes file the daemon runs with.
//! Owns: the body of `routes.loaded` and the rule that only a change is recorded.
//! Never: reads the file, nor holds anything of it but its digest and the ids of its routes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::command::Decision;
use super::event::Body;
use super::txn::Txn;

/// Body of `routes.loaded`: written at a start whose routes file, default route or routes differ from those of the start
/// before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutesLoaded {
    /// Path as given to `--routes-file`; absent when the daemon was started without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// SHA-256 of the file's bytes in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The route of runs that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_route: Option<String>,
    /// Ids of all routes, in order.
    #[serde(default)]
    pub routes: Vec<String>,
}

/// What is loaded, and since which record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutesInForce {
    /// Since when, Unix milliseconds.
    pub since_ms: u64,
    /// What.
    #[serde(flatten)]
    pub loaded: RoutesLoaded,
}

impl Txn<'_> {
    pub(super) fn note_routes(&mut self, loaded: RoutesLoaded) -> Decision {
        let since_ms = match self.routes_in_force() {
            None if loaded.path.is_none() => None,
            Some(before) if before.loaded == loaded => Some(before.since_ms),
            _ => {
                self.emit_global(None, Body::RoutesLoaded(loaded));
                return Decision::RoutesNoted { changed: true, since_ms: Some(self.now_ms()) };
            }
        };
        Decision::RoutesNoted { changed: false, since_ms }
    }

    pub(super) fn apply_routes_loaded(&mut self, loaded: &RoutesLoaded, at_ms: u64) {
        self.stage_routes(Arc::new(RoutesInForce { since_ms: at_ms, loaded: loaded.clone() }));
    }
}

#[cfg(test)]
mod tests {
    use super::super::command::Command;
    use super::super::state::State;
    use super::*;

    fn loaded(path: Option<&str>, digest: &str) -> RoutesLoaded {
        RoutesLoaded {
            path: path.map(str::to_string),
            sha256: path.map(|_| digest.to_string()),
            default_route: path.map(|_| "main".to_string()),
            routes: path.iter().map(|_| "main".to_string()).collect(),
        }
    }

    /// Whether it was recorded, and since when it is in force.
    fn start(state: &mut State, now_ms: u64, loaded: RoutesLoaded) -> (bool, Option<u64>) {
        let mut txn = Txn::new(state, now_ms, now_ms);
        let decided = txn.decide(Command::NoteRoutes(loaded)).expect("never refused");
        let (delta, events) = txn.finish();
        state.absorb(delta);
        match decided {
            Decision::RoutesNoted { changed, since_ms } => {
                assert_eq!(events.len(), usize::from(changed));
                (changed, since_ms)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_another_file_is_recorded_also_across_a_snapshot() {
        let mut state = State::default();
        assert_eq!(start(&mut state, 1, loaded(None, "")), (false, None), "never with one");
        assert_eq!(start(&mut state, 2, loaded(Some("/r"), "a")), (true, Some(2)));
        assert_eq!(start(&mut state, 3, loaded(Some("/r"), "a")), (false, Some(2)));
        let mut restored = State::default();
        for line in state.freeze().into_lines() {
            restored.restore_line(&line).expect("our own snapshot");
        }
        assert_eq!(start(&mut restored, 4, loaded(Some("/r"), "a")), (false, Some(2)));
        assert_eq!(start(&mut restored, 5, loaded(Some("/r"), "b")), (true, Some(5)), "other bytes");
        assert_eq!(start(&mut restored, 6, loaded(Some("/s"), "b")), (true, Some(6)), "another path");
        assert_eq!(start(&mut restored, 7, loaded(None, "")), (true, Some(7)), "none any more");
        assert_eq!(start(&mut restored, 8, loaded(None, "")), (false, Some(7)));
    }
}
