//! Looking for stored secrets where none may be: in the files of a state root.
//! Owns: which files are looked at, and what is told of a find.
//! May touch: the files of a state root, for reading.
//! Never: tells which secret was found, or a byte of it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::redact::Redactor;
use super::store::{FILE_NAME, Store};
use crate::limits::{SCAN_CHUNK_BYTES, SCAN_FINDINGS_MAX};
use crate::state_root::LOST_AND_FOUND;

/// Where a secret stands in the clear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// Offset of the piece of the file that holds it; the secret begins at or behind it.
    pub offset: u64,
}

/// What a scan saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ScanReport {
    /// Files looked through.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// At most [`SCAN_FINDINGS_MAX`].
    pub findings: Vec<Finding>,
}

/// Looks through every file below `root` for the secrets of `store`, raw and in the encodings in which they turn up. The
/// encrypted store itself is left out. A record of a hash chain that holds one cannot be cleaned, only retired: rotate the
/// secret.
///
/// # Errors
/// A directory or file cannot be read.
pub fn scan(root: &Path, store: &Store) -> io::Result<ScanReport> {
    let redactor = Redactor::new(store.secrets());
    let mut report = ScanReport::default();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        let listed = match fs::read_dir(&directory) {
            // A daemon may be at work; what it took away holds nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound && directory != root => continue,
            other => other?,
        };
        let mut entries = listed.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let kind = entry.file_type()?;
            if kind.is_dir() {
                if directory != root || entry.file_name() != LOST_AND_FOUND {
                    directories.push(entry.path());
                }
            } else if kind.is_file() && entry.file_name() != FILE_NAME {
                match scan_file(&entry.path(), &redactor, &mut report) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    other => other?,
                }
            }
        }
    }
    Ok(report)
}

fn scan_file(path: &Path, redactor: &Redactor, report: &mut ScanReport) -> io::Result<()> {
    let mut file = File::open(path)?;
    report.files += 1;
    let overlap = redactor.longest() * 6;
    let (mut window, mut offset) = (Vec::new(), 0u64);
    loop {
        let before = window.len();
        (&mut file).take(SCAN_CHUNK_BYTES as u64).read_to_end(&mut window)?;
        let read = window.len() - before;
        report.bytes += read as u64;
        if redactor.contains(&String::from_utf8_lossy(&window)) {
            report.findings.push(Finding { file: path.to_path_buf(), offset });
            return Ok(());
        }
        if read == 0 || report.findings.len() >= SCAN_FINDINGS_MAX {
            return Ok(());
        }
        // A secret may stand across two pieces, in its longest spelling.
        let keep = window.len().min(overlap);
        offset += (window.len() - keep) as u64;
        window.drain(..window.len() - keep);
    }
}
