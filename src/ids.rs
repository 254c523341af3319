//! Identifiers as types that cannot be wrong.
//! Owns: the syntax of session, run and agent ids and of event cursors.
//! Never: looks anything up.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::SESSION_ID_BYTES_MAX;

/// Position of a record in the journal; also the SSE event id. Unique over restarts, copies and
/// restores: an epoch of a state root starts at `epoch << 32` (docs/journal-format.md).
pub type Seq = u64;

/// Why an identifier was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidId {
    what: &'static str,
    reason: String,
}

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid {}: {}", self.what, self.reason)
    }
}

impl std::error::Error for InvalidId {}

/// A session's id, chosen by the caller or generated. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// Accepts 1 to [`SESSION_ID_BYTES_MAX`] bytes without control characters, `/`, `\` or blanks at the
    /// ends, and refuses `.` and `..`.
    ///
    /// # Errors
    /// The reason names the rule that was broken.
    pub fn parse(raw: &str) -> Result<Self, InvalidId> {
        let refuse = |reason: String| Err(InvalidId { what: "session id", reason });
        if raw.is_empty() || raw == "." || raw == ".." {
            return refuse(format!("{raw:?} is reserved; next: choose another id"));
        }
        if raw.len() > SESSION_ID_BYTES_MAX {
            return refuse(format!("{} bytes, at most {SESSION_ID_BYTES_MAX}; next: shorten it", raw.len()));
        }
        if raw.trim() != raw {
            return refuse("blanks at the ends; next: trim it".to_string());
        }
        if raw.chars().any(|c| c.is_control() || c == '/' || c == '\\') {
            return refuse("control characters, '/' and '\\' are not allowed; next: replace them".to_string());
        }
        Ok(Self(Arc::from(raw)))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A run's id: `run-<number>`, or `run-<number>-<epoch>` for runs accepted by a copied or restored state
/// root, so that original and copy never name two runs alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId {
    /// Counts from 1 within a state root and never repeats.
    pub number: u32,
    /// Zero in a state root's first epoch, else the epoch (Unix seconds) in which the run was accepted.
    pub epoch: u32,
}

impl RunId {
    /// Reads the text form back; anything else is no run id.
    pub fn parse(raw: &str) -> Option<Self> {
        let rest = raw.strip_prefix("run-")?;
        let (number, epoch) = match rest.split_once('-') {
            Some((number, epoch)) => (number, parse_decimal(epoch).filter(|epoch| *epoch != 0)?),
            None => (rest, 0),
        };
        Some(Self { number: parse_decimal(number).filter(|number| *number != 0)?, epoch })
    }
}

/// A delivery's id: `delivery-<number>`, or `delivery-<number>-<epoch>` for those that a copied or restored state root
/// made, as with [`RunId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId {
    /// Counts from 1 within a state root and never repeats.
    pub number: u32,
    /// Zero in a state root's first epoch.
    pub epoch: u32,
}

impl DeliveryId {
    /// Reads the text form back; anything else is no delivery id.
    pub fn parse(raw: &str) -> Option<Self> {
        let RunId { number, epoch } = RunId::parse(&format!("run-{}", raw.strip_prefix("delivery-")?))?;
        Some(Self { number, epoch })
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.epoch {
            0 => write!(f, "delivery-{}", self.number),
            epoch => write!(f, "delivery-{}-{epoch}", self.number),
        }
    }
}

/// Canonical decimal only: `+5`, `007` and an empty text are not numbers here, so an id has one spelling.
fn parse_decimal(raw: &str) -> Option<u32> {
    let canonical = raw.bytes().all(|b| b.is_ascii_digit()) && (raw == "0" || !raw.starts_with('0'));
    if canonical { raw.parse().ok() } else { None }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.epoch {
            0 => write!(f, "run-{}", self.number),
            epoch => write!(f, "run-{}-{epoch}", self.number),
        }
    }
}

macro_rules! text_serde {
    ($type:ty, $parse:expr) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let raw = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                $parse(&raw)
            }
        }
    };
}
text_serde!(SessionId, |raw: &str| SessionId::parse(raw).map_err(serde::de::Error::custom));
text_serde!(DeliveryId, |raw: &str| {
    DeliveryId::parse(raw).ok_or_else(|| serde::de::Error::custom("not a delivery id"))
});
text_serde!(RunId, |raw: &str| RunId::parse(raw).ok_or_else(|| serde::de::Error::custom("not a run id")));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_is_refused_when_it_could_be_a_path_or_break_a_line() {
        for raw in ["", ".", "..", "a/b", "a\\b", "a\nb", " a", "a ", "\u{7f}", &"x".repeat(101)] {
            assert!(SessionId::parse(raw).is_err(), "{raw:?} was accepted");
        }
        for raw in ["a", "slack:T1:C2", "été", "...", &"x".repeat(100)] {
            assert_eq!(SessionId::parse(raw).expect("legal id").as_str(), raw);
        }
    }

    #[test]
    fn a_run_id_has_exactly_one_spelling() {
        for raw in ["run-1", "run-4294967295", "run-7-1764057600"] {
            assert_eq!(RunId::parse(raw).expect("legal id").to_string(), raw);
        }
        for raw in
            ["run-", "run-0", "run-01", "run-+1", "run-1-0", "run-1-", "run-1-2-3", "Run-1", "run-4294967296", "1"]
        {
            assert_eq!(RunId::parse(raw), None, "{raw:?} was accepted");
        }
    }
}
