//! Bounds of backup and restore.
//! Owns: numbers, each with its reason.
//! Never: reads configuration.

// --- backup and restore ----------------------------------------------------------------------

/// How long a backup may keep the broker and the audit writer from changing their files, in milliseconds. The command opens some
/// twenty files in that time; when it dies, they go on by themselves. Below the wait of whoever asks the broker.
pub const BACKUP_PAUSE_MS_MAX: u64 = 3_000;
/// Wait for the audit writer to have written what it was given, in milliseconds; then the backup is refused.
pub const BACKUP_SETTLE_MS_MAX: u64 = 2_000;
/// Attempts to get a barrier that held until every file was open.
pub const BACKUP_BARRIER_ATTEMPTS: u32 = 3;
/// Files of one archive; a state root or workspace with more is refused.
pub const BACKUP_FILES_MAX: usize = 1_000_000;
/// Bytes of one file in an archive, 8 TiB: with the bound of their number, places in an archive never overflow.
pub const BACKUP_FILE_BYTES_MAX: u64 = 1 << 43;
/// Bytes of `backup.json`; a longer one is refused before it is read.
pub const BACKUP_HEAD_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of a manifest, some three hundred a file; a longer one is refused.
pub const BACKUP_MANIFEST_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Bytes of a file's path in an archive; a longer one is refused.
pub const BACKUP_PATH_BYTES_MAX: usize = 4 * 1024;
/// Bytes of plaintext that are sealed at once: what a reader holds in memory before it knows that they are good.
pub const BACKUP_CHUNK_BYTES: usize = 64 * 1024;
/// Bytes read and written at once.
pub const BACKUP_COPY_BYTES: usize = 256 * 1024;
/// Bytes written before they are synced, so that a backup does not pile up writes in front of the journal's own syncs.
pub const BACKUP_SYNC_BYTES: u64 = 8 * 1024 * 1024;
/// Default of `backup create --rate-mib-s`: fast enough for a gigabyte in half a minute, slow enough that a daemon on the same
/// disk and processors hardly notices.
pub const BACKUP_RATE_MIB_S_DEFAULT: u64 = 32;
/// Directories below each other in a workspace; a deeper tree is refused.
pub const BACKUP_DEPTH_MAX: usize = 64;
/// Problems that a verification lists; it has seen enough then.
pub const BACKUP_PROBLEMS_MAX: usize = 100;
