//! The journal as streams need it.
//! Owns: the narrow view of the log and its one error.
//! May touch: a journal reader.
//! Never: writes.

use std::fmt;

use crate::ids::Seq;
use crate::journal::{Reader, Record};

/// What streams read. The journal's reader is one; tests bring their own.
pub trait Log: Send + Sync + 'static {
    /// The newest durable record; 0 when there is none. Never falls.
    fn committed(&self) -> Seq;

    /// The oldest retained record. Never falls.
    fn floor(&self) -> Seq;

    /// The record at `seq`.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    fn read(&self, seq: Seq) -> Result<Record, LogError>;

    /// Durable records from `from` on, ascending, about `bytes_max` bytes of them, and at least one if there
    /// is any. Positions without a record are stepped over.
    ///
    /// # Errors
    /// `from` lies before the floor, or a record cannot be read.
    fn scan(&self, from: Seq, bytes_max: usize) -> Result<Vec<Record>, LogError>;
}

/// Why the log could not be read. The streams that needed it are closed, since they cannot go on exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogError {
    cause: String,
}

impl LogError {
    /// An error with this cause.
    pub fn new(cause: impl fmt::Display) -> Self {
        Self { cause: cause.to_string() }
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event stream cannot read the journal: {}; next: run kheish-daemon journal verify", self.cause)
    }
}

impl std::error::Error for LogError {}

impl Log for Reader {
    fn committed(&self) -> Seq {
        Reader::committed(self)
    }

    fn floor(&self) -> Seq {
        Reader::floor(self)
    }

    fn read(&self, seq: Seq) -> Result<Record, LogError> {
        Reader::read(self, seq).map_err(LogError::new)
    }

    fn scan(&self, from: Seq, bytes_max: usize) -> Result<Vec<Record>, LogError> {
        Reader::scan(self, from, bytes_max).map_err(LogError::new)
    }
}
