//! The numbers of the table, as they are and as an operator has changed them.
//! Owns: reading them from a TOML file.
//! Never: accepts a name that means nothing: a threshold with a slip in its name would silently not hold.

use std::collections::BTreeMap;
use std::fmt;

use super::table::ROWS;

/// A number of a row that an operator may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param {
    /// Its name in the file.
    pub key: &'static str,
    /// What holds when the file is silent.
    pub default: u64,
    /// What it is.
    pub what: &'static str,
}

/// The numbers in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Thresholds {
    changed: BTreeMap<(&'static str, &'static str), u64>,
}

/// Why a file with thresholds was refused.
#[derive(Debug, PartialEq, Eq)]
pub enum ThresholdError {
    /// It is not TOML, or not tables of numbers.
    Malformed {
        /// The parser's words.
        cause: String,
    },
    /// No row has that name.
    UnknownRow {
        /// What was written.
        row: String,
    },
    /// The row has no such number.
    UnknownKey {
        /// The row.
        row: &'static str,
        /// What was written.
        key: String,
    },
    /// The page threshold would be met before the warning.
    Disordered {
        /// The row.
        row: &'static str,
    },
}

impl fmt::Display for ThresholdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { cause } => {
                write!(f, "the thresholds cannot be read: {cause}; next: write one table a row, with whole numbers")
            }
            Self::UnknownRow { row } => {
                let known: Vec<&str> = ROWS.iter().map(|row| row.id).collect();
                write!(f, "no row is called {row:?}; next: use one of {}", known.join(", "))
            }
            Self::UnknownKey { row, key } => {
                let known: Vec<&str> = keys(row).collect();
                let known = if known.is_empty() { "none".to_string() } else { known.join(", ") };
                write!(f, "row {row} has no number {key:?}; next: it has {known}")
            }
            Self::Disordered { row } => {
                write!(f, "row {row} would page before it warns; next: make the page threshold the larger one")
            }
        }
    }
}

impl std::error::Error for ThresholdError {}

fn keys(row: &str) -> impl Iterator<Item = &'static str> {
    let row = ROWS.iter().find(|candidate| candidate.id == row);
    row.into_iter().flat_map(|row| row.params.iter().map(|param| param.key))
}

impl Thresholds {
    /// Reads `[row]` tables with `key = number`.
    ///
    /// # Errors
    /// See [`ThresholdError`]; nothing of the file holds then.
    pub fn parse(text: &str) -> Result<Self, ThresholdError> {
        let malformed = |cause: toml::de::Error| ThresholdError::Malformed { cause: cause.message().to_string() };
        let tables: BTreeMap<String, BTreeMap<String, u64>> = toml::from_str(text).map_err(malformed)?;
        let mut changed = BTreeMap::new();
        for (name, numbers) in tables {
            let Some(row) = ROWS.iter().find(|row| row.id == name) else {
                return Err(ThresholdError::UnknownRow { row: name });
            };
            for (key, number) in numbers {
                let Some(param) = row.params.iter().find(|param| param.key == key) else {
                    return Err(ThresholdError::UnknownKey { row: row.id, key });
                };
                changed.insert((row.id, param.key), number);
            }
        }
        let thresholds = Self { changed };
        for row in ROWS {
            for (warning, page) in [("warning_ms", "page_ms"), ("warning_percent", "page_percent")] {
                let both = keys(row.id).any(|key| key == warning) && keys(row.id).any(|key| key == page);
                if both && thresholds.get(row.id, warning) > thresholds.get(row.id, page) {
                    return Err(ThresholdError::Disordered { row: row.id });
                }
            }
        }
        Ok(thresholds)
    }

    /// A number of a row.
    ///
    /// # Panics
    /// The row has no such number, which a test rules out.
    pub fn get(&self, row: &'static str, key: &'static str) -> u64 {
        let default = || {
            let row = ROWS.iter().find(|candidate| candidate.id == row).expect("asked for a row of the table");
            row.params.iter().find(|param| param.key == key).expect("asked for a number of the row").default
        };
        self.changed.get(&(row, key)).copied().unwrap_or_else(default)
    }
}
