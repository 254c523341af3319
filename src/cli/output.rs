//! Standard output and standard error.
//! Owns: one document and a line feed per answer, tables on a terminal, messages apart from documents.
//! May touch: the two streams it was given.
//! Never: mixes a message into standard output; panics when the reader leaves.

use std::io::{ErrorKind, Write};

use super::exit::CliError;
use super::globals::OutputMode;
use super::json_text::{Document, terminal_safe};
use super::table::{self, Column};

/// Where a command writes.
pub struct Output<'a> {
    /// Documents.
    pub stdout: &'a mut dyn Write,
    /// Messages.
    pub stderr: &'a mut dyn Write,
    /// A person reads the documents.
    pub stdout_is_terminal: bool,
    /// The chosen layout.
    pub mode: OutputMode,
}

impl Output<'_> {
    /// Prints one document.
    ///
    /// # Errors
    /// Standard output failed or its reader left.
    pub fn document(&mut self, document: &Document) -> Result<(), CliError> {
        match self.mode {
            OutputMode::Json => self.line(&document.compact()),
            OutputMode::Pretty => self.line(&document.pretty()),
        }
    }

    /// Prints a list: a table when a person reads it, else the document.
    ///
    /// # Errors
    /// Standard output failed or its reader left.
    pub fn list(&mut self, document: &Document, columns: &[Column]) -> Result<(), CliError> {
        if self.is_for_a_person()
            && let Some(text) = table::render(document, columns)
        {
            return self.text(&text);
        }
        self.document(document)
    }

    /// Whether text may take the place of JSON.
    pub fn is_for_a_person(&self) -> bool {
        self.stdout_is_terminal && self.mode == OutputMode::Pretty
    }

    /// Prints a line and sends it on its way.
    ///
    /// # Errors
    /// Standard output failed or its reader left.
    pub fn line(&mut self, line: &str) -> Result<(), CliError> {
        self.text(line)?;
        self.text("\n")
    }

    /// Prints text as it is.
    ///
    /// # Errors
    /// Standard output failed or its reader left.
    pub fn text(&mut self, text: &str) -> Result<(), CliError> {
        self.stdout.write_all(text.as_bytes()).and_then(|()| self.stdout.flush()).map_err(output_error)
    }

    /// Tells the operator something beside the result.
    pub fn note(&mut self, message: &str) {
        message_line(self.stderr, message);
    }
}

/// Writes a message on one stream. A standard error that cannot be written has no one left to tell.
pub fn message_line(stderr: &mut dyn Write, message: &str) {
    let _ = writeln!(stderr, "{}", terminal_safe(message));
}

/// Names a failure of standard output.
pub fn output_error(error: std::io::Error) -> CliError {
    match error.kind() {
        ErrorKind::BrokenPipe => CliError::OutputClosed,
        _ => CliError::Output { cause: error.to_string() },
    }
}
