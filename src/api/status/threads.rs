//! `threads` of the status: every thread of the daemon by kind, with its queue and its last progress.
//! Owns: the table of kinds, which is docs/architecture.md's, and where each one's queue is counted.
//! Never: waits for a thread.

use serde::Serialize;

use crate::api::context::Api;
use crate::commit::CoreView;
use crate::worker::{self, ThreadSeen};

/// All threads of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ThreadsView {
    /// The kind's name, without the number of each thread.
    pub name: String,
    /// Threads that were started and not joined.
    pub count: u64,
    /// Those that have not ended.
    pub alive: u64,
    /// Those at work now.
    pub busy: u64,
    /// What waits for them; 0 for a kind without a queue.
    pub queue_depth: u64,
    /// When one of them last took up work or finished it, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_progress_ms: Option<u64>,
    /// For how long the longest present piece of work has taken, in milliseconds; absent while all wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longest_busy_ms: Option<u64>,
}

/// The kinds that every daemon has, in the order of docs/architecture.md. Others that run are listed behind them.
pub const KINDS: &[&str] = &[
    "main",
    "http-reactor",
    "http-worker",
    "core",
    "answerer",
    "sse-writer",
    "engine",
    "delivery",
    "broker",
    "oauth",
    "snapshot",
    "upkeep",
    "debug-capture",
    "audit",
    "access-log",
    "task-reaper",
    "connectors",
    "connector-look",
    "hooks",
    "hook-look",
    "net-resolver",
];

/// The kind of a thread's name: the name without its number.
fn kind_of(name: &str) -> &str {
    match name.rsplit_once('-') {
        Some((kind, number)) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => kind,
        _ => name,
    }
}

/// The group, as of now.
pub fn threads(api: &Api, view: &CoreView, now_ms: u64) -> Vec<ThreadsView> {
    let roll = worker::roll();
    let queue = |kind: &str| match kind {
        "http-worker" => api.facts.edge.get().map_or(0, |edge| edge.stats().worker_queue_depth as u64),
        "core" => api.core.queue_depth() as u64,
        "engine" => view.counts.ready,
        "broker" => api.broker.stats().mailbox_depth as u64,
        "audit" => api.facts.audit.stats().queue_depth,
        "debug-capture" => api.capture.queue_depth() as u64,
        "net-resolver" => api.facts.net.resolver_stats().queued as u64,
        "task-reaper" => api.tasks.queue_depth() as u64,
        _ => 0,
    };
    let mut kinds = KINDS.to_vec();
    for kind in roll.iter().map(|thread| kind_of(&thread.name)) {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds.into_iter().map(|kind| of_kind(kind, &roll, queue(kind), now_ms)).collect()
}

fn of_kind(name: &str, roll: &[ThreadSeen], queue_depth: u64, now_ms: u64) -> ThreadsView {
    let of_kind: Vec<&ThreadSeen> = roll.iter().filter(|thread| kind_of(&thread.name) == name).collect();
    let age_ms = of_kind.iter().map(|thread| thread.progress_age_ms).min();
    ThreadsView {
        name: name.to_string(),
        count: of_kind.len() as u64,
        alive: of_kind.iter().filter(|thread| thread.alive).count() as u64,
        busy: of_kind.iter().filter(|thread| thread.alive && thread.busy_ms.is_some()).count() as u64,
        queue_depth,
        last_progress_ms: age_ms.map(|age_ms| now_ms.saturating_sub(age_ms)),
        longest_busy_ms: of_kind.iter().filter(|thread| thread.alive).filter_map(|thread| thread.busy_ms).max(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_summed_by_kind() {
        let seen = |name: &str, alive, progress_age_ms, busy_ms| ThreadSeen {
            name: name.to_string(),
            alive,
            progress_age_ms,
            busy_ms,
        };
        let roll = [
            seen("engine-1", true, 50, Some(50)),
            seen("engine-16", true, 10, None),
            seen("engine-2", false, 900, Some(900)),
            seen("engine-x", true, 1, None),
            seen("engine", true, 2_000, None),
        ];
        let expected = ThreadsView {
            name: "engine".to_string(),
            count: 4,
            alive: 3,
            busy: 1,
            queue_depth: 7,
            last_progress_ms: Some(990),
            longest_busy_ms: Some(50),
        };
        assert_eq!(of_kind("engine", &roll, 7, 1_000), expected);
        assert_eq!(of_kind("core", &roll, 0, 1_000).count, 0);
    }
}
