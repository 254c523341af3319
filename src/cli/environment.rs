//! The process environment as a value.
//! Owns: reading it once, and refusing what is not UTF-8.
//! May touch: the environment of this process, in [`Environment::of_process`] only.
//! Never: prints a value.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::exit::CliError;

/// Environment variables, captured at start so that tests bring their own.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// The variables of this process. Names that are not UTF-8 cannot be ours and are left out.
    pub fn of_process() -> Self {
        Self(std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect())
    }

    /// Made-up variables.
    #[cfg(test)]
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(name, value)| ((*name).to_string(), OsString::from(value))).collect())
    }

    /// The value of `name`, an empty one included.
    ///
    /// # Errors
    /// The value is not UTF-8.
    pub fn get(&self, name: &str) -> Result<Option<&str>, CliError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => match value.to_str() {
                Some(text) => Ok(Some(text)),
                None => Err(CliError::invalid(name, "the value is not UTF-8", "correct the environment variable")),
            },
        }
    }

    /// The value of `name` as it is, for readers that take other bytes than UTF-8.
    pub fn os(&self, name: &str) -> Option<OsString> {
        self.0.get(name).cloned()
    }
}
