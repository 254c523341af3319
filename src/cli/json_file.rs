//! A JSON document from a file, standard input or the command line.
//! Owns: exactly one source, its bound, and the check that it is JSON.
//! May touch: the named file, standard input.
//! Never: interprets the document.

use std::io::Read;

use serde_json::value::RawValue;

use super::exit::CliError;
use super::input::{read_file, read_text};
use crate::limits::RUNTIME_SETTINGS_BYTES_MAX;

/// Reads the document.
///
/// # Errors
/// Not exactly one source, an unreadable one, or no JSON.
pub fn read(file: Option<&str>, from_stdin: bool, stdin: &mut dyn Read) -> Result<Box<RawValue>, CliError> {
    let (source, text) = match (file, from_stdin) {
        (Some(path), false) => (path, read_file(path, RUNTIME_SETTINGS_BYTES_MAX)?),
        (None, true) => ("standard input", read_text("standard input", stdin, RUNTIME_SETTINGS_BYTES_MAX)?),
        (given, _) => {
            let cause = if given.is_none() { "there is none" } else { "it was given more than once" };
            return Err(CliError::invalid("the document", cause, "use one of --file and --stdin"));
        }
    };
    parse(source, &text)
}

/// Checks that a text is JSON.
///
/// # Errors
/// It is not.
pub fn parse(source: &str, text: &str) -> Result<Box<RawValue>, CliError> {
    serde_json::from_str(text)
        .map_err(|error| CliError::invalid(source, format!("not JSON: {error}"), "give one JSON document"))
}
