//! A session as the core keeps it.
//! Owns: the session's counters and the ends of its queue.
//! Never: holds messages; the transcript stays in the journal.

use serde::{Deserialize, Serialize};

use super::agent::ChildOf;
use super::session_settings::SessionSettings;
use crate::ids::{Seq, SessionId};

/// A session. Its runs form a doubly linked queue through [`super::Run`], so accepting, promoting and
/// cancelling touch two entries however long the queue is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Caller-chosen or generated id.
    pub id: SessionId,
    /// Counts from 1 in order of creation; also the number of its root agent.
    pub number: u32,
    /// When it was created, Unix milliseconds.
    pub created_at_ms: u64,
    /// Time of its last record.
    pub updated_at_ms: u64,
    /// The `session.created` record.
    pub first_seq: Seq,
    /// Its last record, of its runs too.
    pub last_seq: Seq,
    /// No further input is accepted.
    pub ended: bool,
    /// Number of the active run; 0 is none.
    pub active: u32,
    /// First queued run; 0 is none.
    pub queue_head: u32,
    /// Last queued run; 0 is none.
    pub queue_tail: u32,
    /// Queued runs.
    pub queue_runs: u32,
    /// Runs ever accepted.
    pub run_count: u32,
    /// Its first run; 0 is none.
    pub first_run: u32,
    /// Its newest run; 0 is none.
    pub last_run: u32,
    /// The last run that ended did so in failure.
    pub last_failed: bool,
    /// What it has of its own; absent for most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Box<SessionSettings>>,
    /// Its place below the session whose agent made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<Box<ChildOf>>,
}

/// What a session is doing, on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionStatus {
    /// No active run.
    Idle,
    /// A run is active.
    Running,
    /// The active run waits for an approval.
    WaitingForApproval,
    /// The active run waits for an answer.
    WaitingForUserInput,
    /// The last run failed and none is active.
    Failed,
    /// The session was ended.
    Completed,
}
