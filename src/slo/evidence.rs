//! What a row is judged by: answers of the daemon, and looking things up in them.
//! Owns: samples, and the rule that what is not there is not fine.
//! Never: replaces missing evidence by a default.

use serde_json::Value;

/// Which thresholds of dead letters hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Dead letters that grow are worth a look.
    Staging,
    /// A dead letter is a message that somebody is missing.
    Production,
}

impl Profile {
    /// Reads its name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "staging" => Some(Self::Staging),
            "production" => Some(Self::Production),
            _ => None,
        }
    }
}

/// What one look at the daemon found.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When it was taken, milliseconds of the clock of whoever looked.
    pub at_ms: u64,
    /// Status of `GET /readyz`, or why there was none.
    pub readyz: Result<u16, String>,
    /// `GET /v1/status`, or why there was none.
    pub status: Result<Value, String>,
}

/// What a sample does not tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing(pub String);

impl Sample {
    /// The value at a JSON pointer of the status.
    ///
    /// # Errors
    /// The status has no such value, or there is no status.
    pub fn at(&self, pointer: &str) -> Result<&Value, Missing> {
        let status = self.status.as_ref().map_err(|cause| Missing(format!("no status: {cause}")))?;
        let found = status.pointer(pointer).filter(|value| !value.is_null());
        found.ok_or_else(|| Missing(format!("the status has no {}", dotted(pointer))))
    }

    /// As [`Sample::at`], for a number.
    pub fn number(&self, pointer: &str) -> Result<u64, Missing> {
        let value = self.at(pointer)?;
        value.as_u64().ok_or_else(|| Missing(format!("{} is no count: {value}", dotted(pointer))))
    }

    /// As [`Sample::at`], for a truth.
    pub fn truth(&self, pointer: &str) -> Result<bool, Missing> {
        let value = self.at(pointer)?;
        value.as_bool().ok_or_else(|| Missing(format!("{} is neither true nor false: {value}", dotted(pointer))))
    }

    /// As [`Sample::at`], for text.
    pub fn text(&self, pointer: &str) -> Result<&str, Missing> {
        let value = self.at(pointer)?;
        value.as_str().ok_or_else(|| Missing(format!("{} is no text: {value}", dotted(pointer))))
    }

    /// As [`Sample::at`], for a list.
    pub fn list(&self, pointer: &str) -> Result<&Vec<Value>, Missing> {
        let value = self.at(pointer)?;
        value.as_array().ok_or_else(|| Missing(format!("{} is no list: {value}", dotted(pointer))))
    }

    /// A number that is only there when there is something to tell, such as an age. That it is absent is an answer
    /// where `count` is zero, and missing evidence where it is not.
    pub fn age(&self, pointer: &str, count: &str) -> Result<Option<u64>, Missing> {
        match self.number(count)? {
            0 => Ok(None),
            _ => self.number(pointer).map(Some),
        }
    }
}

fn dotted(pointer: &str) -> String {
    pointer.replace('/', ".")
}
