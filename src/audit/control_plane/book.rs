//! The two books of the audit file: refusals, and acts of callers that were let in.
//! Owns: which event belongs to which book, and where a book stands.
//! Never: touches a file.

use serde::Deserialize;

use super::line::AuditEvent;

/// A book. Lines of both stand in one file until it is rotated; each has its own numbers and its own chain, so that a
/// flood in one takes nothing from the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Book {
    /// Callers that were not let in.
    Refusals,
    /// What callers did that were let in.
    Acts,
}

impl Book {
    pub(super) const ALL: [Self; 2] = [Self::Refusals, Self::Acts];

    /// The name in lines and in the names of rotated files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refusals => "refusals",
            Self::Acts => "acts",
        }
    }

    pub(super) fn of(event: AuditEvent) -> Self {
        match event {
            AuditEvent::AdminAction | AuditEvent::ActsComplete => Self::Acts,
            _ => Self::Refusals,
        }
    }
}

/// Where a book stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    /// Number of the next line.
    pub(super) next_seq: u64,
    /// Chain value of the last line.
    pub(super) chain: String,
}

impl Default for Position {
    fn default() -> Self {
        Self { next_seq: 1, chain: "0".repeat(64) }
    }
}

/// The members of a line that tell its place.
#[derive(Debug, Deserialize)]
pub(super) struct Placed {
    pub(super) seq: u64,
    #[serde(default)]
    book: String,
    #[serde(default)]
    event: String,
    #[serde(default)]
    pub(super) journal_seq: Option<u64>,
    #[serde(default)]
    pub(super) request_id: Option<String>,
    #[serde(default)]
    pub(super) act: Option<String>,
    #[serde(default)]
    pub(super) prev: String,
    #[serde(default)]
    pub(super) chain: String,
}

impl Placed {
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// Lines of the first versions name no book.
    pub(super) fn book(&self) -> Book {
        match (self.book.as_str(), self.event.as_str()) {
            ("acts", _) | ("", "admin_action") => Book::Acts,
            _ => Book::Refusals,
        }
    }

    pub(super) fn position(self) -> Position {
        let chain = if self.chain.is_empty() { Position::default().chain } else { self.chain };
        Position { next_seq: self.seq + 1, chain }
    }
}
