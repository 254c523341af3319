//! Checking the audit file's chains.
//! Owns: what makes a line follow the one before it in its book.
//! May touch: the files of the directory, for reading.
//! Never: changes a file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::book::{Book, Placed};
use super::file::files_in_order;
use crate::core::record_hash;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AuditFileReport {
    /// Lines of refusals.
    pub refusals: u64,
    /// Lines of acts.
    pub acts: u64,
    /// Refusals that were lost, as gaps in the numbers tell.
    pub refusals_lost: u64,
    /// Lines of versions that did not chain them.
    pub unchained: u64,
    /// The first line that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<BadLine>,
}

/// A line that does not follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadLine {
    /// The file.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: u64,
    /// What is wrong.
    pub reason: String,
}

/// Checks the files below `dir`. What was removed at the beginning of a book or cut off at its end cannot be seen here:
/// acts are derived from the journal, which tells.
///
/// # Errors
/// A file cannot be read.
pub fn check(dir: &Path) -> io::Result<AuditFileReport> {
    let mut report = AuditFileReport::default();
    let mut last: [Option<(u64, String)>; 2] = [None, None];
    for path in files_in_order(dir)? {
        let text = fs::read(&path)?;
        // A full file that a crash left half taken apart: what its book's file has already is passed over.
        let is_half_moved = path.extension().is_some_and(|end| end == "rotating");
        // What follows the last line feed was not written completely; the next start cuts it.
        let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for (index, line) in text[..end].split_inclusive(|byte| *byte == b'\n').enumerate() {
            let placed = Placed::read(line);
            let seen =
                |placed: &Placed| last[placed.book() as usize].as_ref().is_some_and(|(seq, _)| placed.seq <= *seq);
            if is_half_moved && placed.as_ref().is_some_and(seen) {
                continue;
            }
            if let Err(reason) = check_line(&mut report, &mut last, &line[..line.len() - 1]) {
                report.problem = Some(BadLine { file: path, line: index as u64 + 1, reason });
                return Ok(report);
            }
        }
    }
    Ok(report)
}

fn check_line(report: &mut AuditFileReport, last: &mut [Option<(u64, String)>; 2], line: &[u8]) -> Result<(), String> {
    let placed = Placed::read(line).ok_or("the line is not as documented")?;
    let book = placed.book();
    let count = match book {
        Book::Refusals => &mut report.refusals,
        Book::Acts => &mut report.acts,
    };
    *count += 1;
    if placed.chain.is_empty() {
        return match &last[book as usize] {
            None => {
                report.unchained += 1;
                Ok(())
            }
            Some(_) => Err("the line is not chained and others before it are".to_string()),
        };
    }
    let covered = line.len().checked_sub(",\"chain\":\"\"}".len() + 64).ok_or("the line is cut short")?;
    if record_hash(&line[..covered]) != placed.chain {
        return Err("the line's chain value is not that of its bytes".to_string());
    }
    if let Some((seq, chain)) = &last[book as usize] {
        if placed.prev != *chain {
            return Err(format!("line {} of {} does not follow line {seq}", placed.seq, book.as_str()));
        }
        match placed.seq.checked_sub(seq + 1) {
            Some(0) => {}
            Some(lost) if book == Book::Refusals => report.refusals_lost += lost,
            _ => return Err(format!("line {} of {} stands behind line {seq}", placed.seq, book.as_str())),
        }
    }
    last[book as usize] = Some((placed.seq, placed.chain));
    Ok(())
}
