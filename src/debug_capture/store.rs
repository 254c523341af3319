//! Artifacts on disk: one directory a run, one file an artifact.
//! Owns: names, modes, bounds of a run and of the whole, removal.
//! May touch: the debug directory of the state root.
//! Never: follows a name that a caller chose; ids are checked before they become paths.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Kind;
use super::artifact::{self, ArtifactView, Content};
use super::config::{CaptureConfig, CaptureLimits};
use super::key::CaptureKey;
use super::shape::Shaped;
use crate::core::DebugLevel;
use crate::ids::RunId;
use crate::limits::{DEBUG_ARTIFACT_FILE_BYTES_MAX, DEBUG_FREE_BYTES_MIN, DEBUG_HEADER_BYTES_MAX};

/// Why artifacts cannot be read or written.
#[derive(Debug)]
pub enum StoreError {
    /// The run has none.
    NoRun(RunId),
    /// The run has no such artifact.
    NoArtifact(String),
    /// The artifact cannot be shown.
    Unreadable {
        /// Which.
        artifact_id: String,
        /// Why.
        cause: String,
    },
    /// The disk has too little room for evidence.
    NoRoom,
    /// The system gave no random bytes.
    NoRandom,
    /// The system refused.
    Io(io::Error),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRun(run) => {
                write!(f, "{run} has no debug capture; next: capture was off, or the artifacts have been removed")
            }
            Self::NoArtifact(id) => write!(f, "the run has no artifact {id:?}; next: list them"),
            Self::Unreadable { artifact_id, cause } => {
                write!(f, "artifact {artifact_id} cannot be shown: {cause}; next: check the capture key and the disk")
            }
            Self::NoRoom => write!(
                f,
                "less than {DEBUG_FREE_BYTES_MIN} bytes are free, so nothing is captured; next: free space or prune"
            ),
            Self::NoRandom => f.write_str("the system gave no random bytes; next: check that getrandom(2) works"),
            Self::Io(error) => write!(f, "the debug directory: {error}; next: check the state root and its disk"),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// All artifacts of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bundle {
    /// The run.
    pub run_id: RunId,
    /// How many.
    pub artifact_count: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Time of the newest, Unix milliseconds.
    pub updated_at_ms: u64,
}

/// What a removal did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// What was removed.
    pub bundles: Vec<Bundle>,
    /// Bytes of it.
    pub bytes: u64,
}

/// The artifacts on disk.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    limits: CaptureLimits,
    key: Option<CaptureKey>,
}

/// One file of a run's directory.
struct Entry {
    name: String,
    bytes: u64,
    changed_ms: u64,
}

impl Store {
    /// The store below `root`, which exists. Removes what a crash left half written.
    pub fn open(root: PathBuf, config: CaptureConfig) -> Self {
        let store = Self { root, limits: config.limits, key: config.key };
        for directory in store.directories() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with('.') {
                    // It stays for the next start if it cannot be removed; nobody reads it.
                    drop(fs::remove_file(entry.path()));
                }
            }
        }
        store
    }

    /// Bounds.
    pub fn limits(&self) -> &CaptureLimits {
        &self.limits
    }

    /// What encrypts bodies, if anything does.
    pub fn key(&self) -> Option<&CaptureKey> {
        self.key.as_ref()
    }

    fn directory(&self, run: RunId) -> PathBuf {
        self.root.join(run.to_string())
    }

    fn directories(&self) -> impl Iterator<Item = PathBuf> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| run_of(path).is_some())
    }

    fn entries(directory: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            // It may have been removed since.
            let Ok(metadata) = entry.metadata() else { continue };
            let changed = metadata.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            entries.push(Entry { name, bytes: metadata.len(), changed_ms: changed.as_millis() as u64 });
        }
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    /// Writes one artifact and removes the oldest ones of its run that pass a bound. Returns its bytes.
    ///
    /// # Errors
    /// The disk has no room, or the system refuses.
    pub(super) fn put(
        &self,
        run: RunId,
        kind: Kind,
        level: DebugLevel,
        at_ms: u64,
        shaped: Shaped,
    ) -> Result<u64, StoreError> {
        if fs2::available_space(&self.root)? < DEBUG_FREE_BYTES_MIN {
            return Err(StoreError::NoRoom);
        }
        let directory = self.directory(run);
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        let entries = Self::entries(&directory)?;
        let last = entries.last().and_then(|entry| entry.name.split('-').next()?.parse::<u64>().ok());
        let artifact_id = format!("{:05}-{}", last.map_or(1, |last| last + 1), kind.as_str());
        let content = Content {
            run_id: run.to_string(),
            artifact_id: artifact_id.clone(),
            content_kind: kind.as_str(),
            format: shaped.format,
            level,
            at_ms,
            body: shaped.body,
            original_bytes: shaped.original_bytes,
        };
        let file = artifact::encode(content, self.key.as_ref()).ok_or(StoreError::NoRandom)?;
        let (temporary, target) = (directory.join(format!(".{artifact_id}")), directory.join(&artifact_id));
        let written = (|| {
            let mut handle = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            handle.write_all(&file)?;
            fs::rename(&temporary, &target)
        })();
        if let Err(error) = written {
            drop(fs::remove_file(&temporary));
            return Err(error.into());
        }
        self.trim(&directory, entries, file.len() as u64);
        Ok(file.len() as u64)
    }

    /// `older` are the files before the newest, which has `newest_bytes` and always stays.
    fn trim(&self, directory: &Path, older: Vec<Entry>, newest_bytes: u64) {
        let mut bytes = older.iter().map(|entry| entry.bytes).sum::<u64>() + newest_bytes;
        let mut count = older.len() as u64 + 1;
        for entry in older {
            if bytes <= self.limits.run_bytes_max && count <= self.limits.run_artifacts_max {
                return;
            }
            if fs::remove_file(directory.join(&entry.name)).is_ok() {
                bytes -= entry.bytes;
                count -= 1;
            }
        }
    }

    /// The artifacts of a run, oldest first.
    ///
    /// # Errors
    /// It has none, or the system refuses.
    pub fn list(&self, run: RunId) -> Result<Vec<ArtifactView>, StoreError> {
        let directory = self.directory(run);
        let entries = match Self::entries(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::NoRun(run)),
            entries => entries?,
        };
        let mut views = Vec::new();
        for entry in entries {
            let mut beginning = Vec::new();
            // One that was removed meanwhile is not listed, nor is one that is no artifact.
            let Ok(file) = File::open(directory.join(&entry.name)) else { continue };
            file.take(DEBUG_HEADER_BYTES_MAX as u64).read_to_end(&mut beginning)?;
            if let Some((header, _)) =
                artifact::header(&beginning).filter(|(header, _)| header.artifact_id == entry.name)
            {
                views.push(artifact::view(header, entry.bytes));
            }
        }
        if views.is_empty() { Err(StoreError::NoRun(run)) } else { Ok(views) }
    }

    /// The body of one artifact.
    ///
    /// # Errors
    /// There is none, or it cannot be shown.
    pub fn read(&self, run: RunId, artifact_id: &str) -> Result<Vec<u8>, StoreError> {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        let missing = || StoreError::NoArtifact(artifact_id.chars().take(80).collect());
        if artifact_id.is_empty() || artifact_id.len() > 64 || !artifact_id.bytes().all(legal) {
            return Err(missing());
        }
        let mut file = Vec::new();
        match File::open(self.directory(run).join(artifact_id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
            handle => handle?.take(DEBUG_ARTIFACT_FILE_BYTES_MAX).read_to_end(&mut file)?,
        };
        artifact::body(file, self.key.as_ref())
            .map_err(|cause| StoreError::Unreadable { artifact_id: artifact_id.to_string(), cause })
    }

    /// All runs that have artifacts, the one with the oldest first.
    pub fn bundles(&self) -> Vec<Bundle> {
        let bundle = |path: PathBuf| {
            let run_id = run_of(&path)?;
            let entries = Self::entries(&path).ok()?;
            Some(Bundle {
                run_id,
                artifact_count: entries.len() as u64,
                bytes: entries.iter().map(|entry| entry.bytes).sum(),
                updated_at_ms: entries.iter().map(|entry| entry.changed_ms).max().unwrap_or(0),
            })
        };
        let mut bundles: Vec<Bundle> = self.directories().filter_map(bundle).collect();
        bundles.sort_by_key(|bundle| (bundle.updated_at_ms, bundle.run_id.number));
        bundles
    }

    /// Removes all artifacts of a run.
    ///
    /// # Errors
    /// The system refuses.
    pub fn remove(&self, run: RunId) -> Result<(), StoreError> {
        match fs::remove_dir_all(self.directory(run)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => Ok(removed?),
        }
    }
}

fn run_of(path: &Path) -> Option<RunId> {
    RunId::parse(path.file_name()?.to_str()?)
}
