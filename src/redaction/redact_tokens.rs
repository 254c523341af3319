//! Texts that an operator wants masked although no slot holds them.
//! Owns: `KHEISH_DEBUG_REDACT_TOKENS` and `KHEISH_DEBUG_REDACT_TOKENS_FILE`, and what may stand there.
//! May touch: that file, once, at start.
//! Never: shows one of the texts; leaves one out silently.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::credential;
use crate::limits::{REDACT_FILE_BYTES_MAX, REDACT_TOKEN_BYTES_MAX, REDACT_TOKENS_MAX, SECRET_BYTES_MIN};
use crate::secret::Secret;

/// Commas or lines separate the texts.
pub const VARIABLE: &str = "KHEISH_DEBUG_REDACT_TOKENS";
/// Names a file of the same form. Both may be set.
pub const FILE_VARIABLE: &str = "KHEISH_DEBUG_REDACT_TOKENS_FILE";

/// Texts that cannot be masked: the daemon does not start, since what it writes would hold them.
#[derive(Debug)]
pub enum RedactTokensError {
    /// The file cannot be read.
    File {
        /// Which.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// A text is too short or too long.
    Length {
        /// Where it stands.
        place: &'static str,
        /// Which one, from 1.
        number: usize,
    },
    /// There are too many.
    Count,
    /// The variable is no UTF-8.
    NotText {
        /// Which.
        place: &'static str,
    },
}

impl fmt::Display for RedactTokensError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, error } => write!(
                f,
                "cannot read {}, which {FILE_VARIABLE} names: {error}; next: make it a file of at most \
                 {REDACT_FILE_BYTES_MAX} bytes of UTF-8 that the daemon's user can read, or unset the variable",
                path.display()
            ),
            Self::Length { place, number } => write!(
                f,
                "text {number} of {place} has not {SECRET_BYTES_MIN} to {REDACT_TOKEN_BYTES_MAX} bytes and would not be \
                 masked; next: remove it, or give a longer part of what is secret"
            ),
            Self::Count => write!(
                f,
                "{VARIABLE} and its file name more than {REDACT_TOKENS_MAX} texts; next: name fewer, or store them as \
                 slots with secrets set"
            ),
            Self::NotText { place } => write!(f, "{place} is not UTF-8; next: correct or unset it"),
        }
    }
}

impl std::error::Error for RedactTokensError {}

/// The texts that the environment names.
///
/// # Errors
/// One of them would not be masked; see [`RedactTokensError`].
pub fn from_environment() -> Result<Vec<Arc<Secret>>, RedactTokensError> {
    from_variables(|name| std::env::var_os(name))
}

/// As [`from_environment`], with the variables given.
///
/// # Errors
/// As there.
pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Vec<Arc<Secret>>, RedactTokensError> {
    let get = |name: &str| variable(name).filter(|value| !value.is_empty());
    let mut tokens = Vec::new();
    if let Some(text) = get(VARIABLE) {
        let text = Zeroizing::new(text.into_string().map_err(|_| RedactTokensError::NotText { place: VARIABLE })?);
        read(&text, VARIABLE, &mut tokens)?;
    }
    if let Some(text) = get(FILE_VARIABLE) {
        let path = credential::file(&text).map_err(|error| RedactTokensError::File {
            path: PathBuf::from(&text),
            error: io::Error::other(error.to_string()),
        })?;
        let text = file(&path).map_err(|error| RedactTokensError::File { path, error })?;
        read(&text, FILE_VARIABLE, &mut tokens)?;
    }
    Ok(tokens)
}

fn file(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    File::open(path)?.take(REDACT_FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    match text.len() as u64 > REDACT_FILE_BYTES_MAX {
        true => Err(io::Error::other("it is too long")),
        false => Ok(text),
    }
}

fn read(text: &str, place: &'static str, tokens: &mut Vec<Arc<Secret>>) -> Result<(), RedactTokensError> {
    let given = text.split([',', '\n']).map(str::trim).filter(|token| !token.is_empty());
    for (index, token) in given.enumerate() {
        if !(SECRET_BYTES_MIN..=REDACT_TOKEN_BYTES_MAX).contains(&token.len()) {
            return Err(RedactTokensError::Length { place, number: index + 1 });
        }
        if tokens.len() == REDACT_TOKENS_MAX {
            return Err(RedactTokensError::Count);
        }
        tokens.push(Arc::new(Secret::new(token.as_bytes().to_vec())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::TempDir;

    fn texts(variables: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let get =
            |name: &str| variables.iter().find(|(named, _)| *named == name).map(|(_, value)| OsString::from(value));
        let tokens = from_variables(get).map_err(|error| error.to_string())?;
        Ok(tokens.iter().map(|token| String::from_utf8_lossy(token.expose()).into_owned()).collect())
    }

    #[test]
    fn texts_come_from_both_places_and_one_that_would_not_be_masked_refuses_the_start_without_being_shown() {
        let dir = TempDir::new("redact");
        let path = dir.path().join("tokens");
        std::fs::write(&path, "three-333333\n\n  four-4444444  \r\n").unwrap();
        let shown = path.display().to_string();
        assert_eq!(texts(&[]), Ok(vec![]));
        assert_eq!(texts(&[(VARIABLE, ""), (FILE_VARIABLE, "")]), Ok(vec![]));
        assert_eq!(
            texts(&[(VARIABLE, "one-11111111, two-22222222,\n"), (FILE_VARIABLE, &shown)]),
            Ok(["one-11111111", "two-22222222", "three-333333", "four-4444444"].map(str::to_string).to_vec())
        );
        let long = "x".repeat(REDACT_TOKEN_BYTES_MAX + 1);
        for short in ["one-11111111,canary", &format!("one-11111111\n{long}")] {
            let error = texts(&[(VARIABLE, short)]).unwrap_err();
            assert!(error.starts_with("text 2 of KHEISH_DEBUG_REDACT_TOKENS has not 8 to 4096 bytes"), "{error}");
            assert!(!error.contains("canary") && !error.contains("xxxx"), "{error}");
        }
        let many = vec!["0123456789"; REDACT_TOKENS_MAX + 1].join(",");
        assert!(texts(&[(VARIABLE, &many)]).unwrap_err().contains("more than 4096 texts"));
        let missing = dir.path().join("missing").display().to_string();
        assert!(texts(&[(FILE_VARIABLE, &missing)]).unwrap_err().contains("missing, which KHEISH_DEBUG"));
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(texts(&[(FILE_VARIABLE, &shown)]).is_err(), "no UTF-8");
    }
}
