//! An evidence directory: written once, checked as often as wanted.
//! Owns: its modes, its manifest, and the comparison of files with it.
//! May touch: the one directory.
//! Never: writes into a directory that holds something already, or over a file.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::inventory::hash_file;
use super::manifest::{Line, MANIFEST_FILE, SIGNATURE_FILE, is_inside, parse, render, sha256, sha256_hex};
use crate::audit::incident::IncidentSignature;
use crate::audit::key::PublicKey;
use crate::limits::INCIDENT_MANIFEST_BYTES_MAX;

/// A directory under construction.
pub struct Evidence {
    path: PathBuf,
    lines: Vec<Line>,
    bytes: u64,
}

impl Evidence {
    /// Makes the directory, 0700; an empty one is taken.
    ///
    /// # Errors
    /// It holds something, or cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        if fs::read_dir(path)?.next().is_some() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is not empty"));
        }
        // One that was there may be open to others.
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
        Ok(Self { path: path.to_path_buf(), lines: Vec::new(), bytes: 0 })
    }

    /// Writes a file of the evidence, 0600.
    ///
    /// # Errors
    /// The name leads out of the directory, is taken, or the disk refuses.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.write_plain(name, bytes)?;
        self.lines.push(Line { path: name.to_string(), sha256: sha256_hex(bytes) });
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn write_plain(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if !is_inside(name) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name leads out of the directory"));
        }
        let path = self.path.join(name);
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// Files and bytes written so far.
    pub fn figures(&self) -> (usize, u64) {
        (self.lines.len(), self.bytes)
    }

    /// Writes the manifest over everything written so far and returns its digest.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn seal(&mut self) -> io::Result<[u8; 32]> {
        let text = render(std::mem::take(&mut self.lines));
        self.write_plain(MANIFEST_FILE, text.as_bytes())?;
        Ok(sha256(text.as_bytes()))
    }

    /// Writes the signature beside the manifest.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn sign(&self, signature: &IncidentSignature) -> io::Result<()> {
        let mut text = serde_json::to_vec(signature).map_err(io::Error::other)?;
        text.push(b'\n');
        self.write_plain(SIGNATURE_FILE, &text)
    }
}

/// What a check of a directory found.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Nothing is wrong.
    pub ok: bool,
    /// Files of the manifest.
    pub file_count: usize,
    /// SHA-256 of the manifest in hex.
    pub manifest_sha256: String,
    /// Files of the manifest that are not there or cannot be read.
    pub missing: Vec<String>,
    /// Files whose bytes are not those of the manifest.
    pub altered: Vec<String>,
    /// Names that the manifest does not know.
    pub extra: Vec<String>,
    /// Which key signed, when the signature holds.
    pub signed_by: Option<String>,
    /// Why the signature does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature_problem: Option<String>,
}

/// Compares a directory with its manifest, and the manifest with the signature of one of `keys`.
///
/// # Errors
/// There is no readable manifest; the text says why.
pub fn check(path: &Path, keys: &[PublicKey]) -> Result<Checked, String> {
    let text = read_bounded(&path.join(MANIFEST_FILE)).map_err(|error| format!("{MANIFEST_FILE}: {error}"))?;
    let lines = std::str::from_utf8(&text).map_err(|_| format!("{MANIFEST_FILE} is not UTF-8"))?;
    let lines = parse(lines).map_err(|fault| format!("{MANIFEST_FILE} line {}: {}", fault.line, fault.cause))?;
    let digest = sha256(&text);
    let mut checked = Checked { file_count: lines.len(), manifest_sha256: sha256_hex(&text), ..Checked::default() };
    for line in &lines {
        let file = path.join(&line.path);
        // A link could lead anywhere, and what it leads to is not evidence.
        let is_plain = fs::symlink_metadata(&file).is_ok_and(|metadata| metadata.is_file());
        match is_plain.then(|| hash_file(&file)) {
            Some(Ok(found)) if found == line.sha256 => {}
            Some(Ok(_)) => checked.altered.push(line.path.clone()),
            Some(Err(_)) | None => checked.missing.push(line.path.clone()),
        }
    }
    let known: BTreeSet<&str> = lines.iter().map(|line| line.path.as_str()).collect();
    let names = names_below(path).map_err(|error| error.to_string())?;
    checked.extra = names
        .into_iter()
        .filter(|name| !known.contains(name.as_str()) && name != MANIFEST_FILE && name != SIGNATURE_FILE)
        .collect();
    match signature(path, &digest, keys) {
        Ok(key_id) => checked.signed_by = Some(key_id),
        Err(cause) => checked.signature_problem = Some(cause),
    }
    checked.ok = checked.missing.is_empty()
        && checked.altered.is_empty()
        && checked.extra.is_empty()
        && checked.signed_by.is_some();
    Ok(checked)
}

fn signature(path: &Path, digest: &[u8; 32], keys: &[PublicKey]) -> Result<String, String> {
    let text = read_bounded(&path.join(SIGNATURE_FILE)).map_err(|error| format!("{SIGNATURE_FILE}: {error}"))?;
    let signature: IncidentSignature =
        serde_json::from_slice(&text).map_err(|error| format!("{SIGNATURE_FILE}: {error}"))?;
    signature.check(digest, keys)?;
    Ok(signature.key_id)
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(INCIDENT_MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > INCIDENT_MANIFEST_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large"));
    }
    Ok(bytes)
}

/// Everything below a directory that is no directory itself.
fn names_below(root: &Path) -> io::Result<Vec<String>> {
    let (mut names, mut directories) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else {
                let path = entry.path();
                let relative = path.strip_prefix(root).unwrap_or(&path);
                names.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    names.sort();
    Ok(names)
}
