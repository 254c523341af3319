//! Finding the auth store in a backup: what `backup create` made, a copied state root, a copied store file, or a tar archive of
//! either.
//! Owns: where it is looked for, and the reading of tar headers.
//! May touch: the backup, reading.
//! Never: unpacks, follows a link inside an archive, or takes the live store for its own backup.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::backup::STATE_ARCHIVE;
use crate::broker::FILE_NAME;
use crate::limits::{AUTH_STORE_FILE_BYTES_MAX, REKEY_BACKUP_BYTES_MAX};

/// Why a backup does not count.
#[derive(Debug)]
#[allow(missing_docs, reason = "each variant's line says what its fields hold")]
pub enum BackupError {
    /// It cannot be read.
    Io { path: PathBuf, source: io::Error },
    /// No auth store is in it.
    NoStore { path: PathBuf },
    /// It is compressed.
    Compressed { path: PathBuf },
    /// It is the live store itself.
    Live { path: PathBuf },
    /// Its store cannot be read with the old key.
    Unreadable { path: PathBuf },
    /// Its store lacks a slot, or has another secret in it.
    Stale { path: PathBuf, slot: String },
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, source } => {
                write!(f, "cannot read backup {}: {source}; next: check the path and its owner", path.display())
            }
            Self::NoStore { path } => write!(
                f,
                "backup {} holds no auth/{FILE_NAME}; next: name what `kheish-daemon backup create` made without a key, a \
                 copy of the state root, of that file, or a tar archive of either",
                path.display()
            ),
            Self::Compressed { path } => {
                write!(f, "backup {} is compressed; next: unpack it and name the folder", path.display())
            }
            Self::Live { path } => {
                write!(f, "{} is the store itself and no backup; next: name a copy of it", path.display())
            }
            Self::Unreadable { path } => write!(
                f,
                "the auth store in backup {} cannot be read with the old key; next: name a backup of this state root",
                path.display()
            ),
            Self::Stale { path, slot } => write!(
                f,
                "backup {} is older than the store: slot {slot} is missing or was another secret; next: make a new backup",
                path.display()
            ),
        }
    }
}

impl std::error::Error for BackupError {}

const BLOCK: usize = 512;

/// The store's bytes, and where they were found.
pub(super) fn store_in(given: &Path, is_live: &dyn Fn(&Path) -> bool) -> Result<(Vec<u8>, String), BackupError> {
    let io = |source| BackupError::Io { path: given.to_path_buf(), source };
    let metadata = fs::metadata(given).map_err(io)?;
    if metadata.is_dir() {
        let candidates = [given.join("auth").join(FILE_NAME), given.join(FILE_NAME)];
        let found = candidates.into_iter().find(|path| path.is_file());
        // What `backup create` made, unless it is encrypted.
        let state = given.join(STATE_ARCHIVE);
        return match found {
            Some(path) => file(&path, is_live),
            None if state.is_file() => archive(&state),
            None => Err(BackupError::NoStore { path: given.to_path_buf() }),
        };
    }
    if !metadata.is_file() || metadata.len() > REKEY_BACKUP_BYTES_MAX {
        return Err(BackupError::NoStore { path: given.to_path_buf() });
    }
    let mut start = [0u8; 4];
    let read = File::open(given).and_then(|mut file| file.read(&mut start)).map_err(io)?;
    match &start[..read] {
        [0x1f, 0x8b, ..] | [b'B', b'Z', b'h', ..] | [0xfd, b'7', b'z', b'X'] | [0x28, 0xb5, 0x2f, 0xfd] => {
            Err(BackupError::Compressed { path: given.to_path_buf() })
        }
        [b'{', ..] => file(given, is_live),
        _ => archive(given),
    }
}

fn file(path: &Path, is_live: &dyn Fn(&Path) -> bool) -> Result<(Vec<u8>, String), BackupError> {
    if is_live(path) {
        return Err(BackupError::Live { path: path.to_path_buf() });
    }
    let io = |source| BackupError::Io { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io)?;
    file.take(AUTH_STORE_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    Ok((bytes, path.display().to_string()))
}

fn archive(path: &Path) -> Result<(Vec<u8>, String), BackupError> {
    let io = |source| BackupError::Io { path: path.to_path_buf(), source };
    let none = || BackupError::NoStore { path: path.to_path_buf() };
    let mut file = File::open(path).map_err(io)?;
    let mut header = [0u8; BLOCK];
    loop {
        match file.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(none()),
            other => other.map_err(io)?,
        }
        if header.iter().all(|byte| *byte == 0) {
            return Err(none());
        }
        let Some(member) = Member::read(&header) else { return Err(none()) };
        let padded = member.bytes.next_multiple_of(BLOCK as u64);
        if member.is_store && member.bytes <= AUTH_STORE_FILE_BYTES_MAX as u64 {
            let mut bytes = vec![0; member.bytes as usize];
            file.read_exact(&mut bytes).map_err(io)?;
            return Ok((bytes, format!("{}: {}", path.display(), member.name)));
        }
        let skip = i64::try_from(padded).map_err(|_| none())?;
        file.seek(SeekFrom::Current(skip)).map_err(io)?;
    }
}

struct Member {
    name: String,
    bytes: u64,
    is_store: bool,
}

impl Member {
    /// `None` for what is no header.
    fn read(header: &[u8; BLOCK]) -> Option<Self> {
        let text = |range: std::ops::Range<usize>| {
            let field = &header[range];
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            String::from_utf8_lossy(&field[..end]).into_owned()
        };
        let octal = |range| u64::from_str_radix(text(range).trim(), 8).ok();
        let sum: u64 = header
            .iter()
            .enumerate()
            .map(|(at, byte)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte }))
            .sum();
        if octal(148..156)? != sum {
            return None;
        }
        let prefix = if &header[257..262] == b"ustar" { text(345..500) } else { String::new() };
        let name = if prefix.is_empty() { text(0..100) } else { format!("{prefix}/{}", text(0..100)) };
        let is_plain = matches!(header[156], 0 | b'0');
        let is_store = is_plain && (name == FILE_NAME || name.ends_with(&format!("auth/{FILE_NAME}")));
        Some(Self { bytes: octal(124..136)?, name, is_store })
    }
}
