//! Codes that `doctor --offline` finds.
//! Owns: its part of the table.
//! Never: is read but through [`super::codes`], which holds the parts together.

use super::codes::{Row, row};
use super::finding::Severity::{Error, Info, Warning};

/// The part, by check, in the order of the checks.
pub(super) const CODES: &[Row] = &[
    row(
        "offline_root_unusable",
        "state_root",
        Error,
        "there is no readable state root at the path",
        "check --state-root, and run as the daemon's user",
    ),
    row(
        "offline_lock_held",
        "state_root_lock",
        Info,
        "a daemon uses the state root; its files were read beside it",
        "kheish-daemon doctor asks that daemon",
    ),
    row(
        "offline_lock_missing",
        "state_root_lock",
        Error,
        "the state root has been in use and its lock file is gone: a daemon that still runs would not notice a second one",
        "make sure that no daemon runs on it, then start one, which makes the file again",
    ),
    row(
        "offline_lock_unreadable",
        "state_root_lock",
        Error,
        "the lock file cannot be opened",
        "run as the daemon's user",
    ),
    row(
        "offline_format_unknown",
        "format",
        Error,
        "FORMAT is missing, damaged, or of a newer version",
        "restore the whole root from its backup, or run the newer kheish-daemon",
    ),
    row(
        "offline_mode_open",
        "permissions",
        Error,
        "others may read or write something in the state root",
        "chmod -R go-rwx DIR",
    ),
    row(
        "offline_owner_foreign",
        "permissions",
        Error,
        "something in the state root belongs to another user than the root itself",
        "chown -R USER DIR",
    ),
    row(
        "offline_link",
        "permissions",
        Error,
        "a name in the state root is a link or no plain file",
        "move it away; the daemon makes none",
    ),
    row(
        "offline_journal_damaged",
        "journal",
        Error,
        "a line, the chain, a seal, a signed action or a snapshot does not verify",
        "kheish-daemon audit verify --offline --state-root DIR, then restore from the backup",
    ),
    row(
        "offline_key_missing",
        "audit_key",
        Error,
        "the state root has signed records and no signing key, and none was named",
        "restore audit-signing.key, or name it with KHEISH_EXTERNAL_ACTION_AUDIT_SIGNING_KEY_FILE",
    ),
    row(
        "offline_key_unusable",
        "audit_key",
        Error,
        "the signing key cannot be read, is exposed, or is no key",
        "restore audit-signing.key from the backup; chmod 600",
    ),
    row(
        "offline_key_mismatch",
        "audit_key",
        Error,
        "the signing key is not the one whose public half stands in the state root",
        "restore audit-signing.key and audit-signing.pub.pem of one backup",
    ),
    row(
        "offline_store_unusable",
        "auth_store",
        Error,
        "the auth store cannot be read",
        "restore auth/global-slots.json, or give the master key it was written with",
    ),
    row(
        "offline_store_key_unknown",
        "auth_store",
        Info,
        "no master key was given, so the auth store was not opened",
        "set KHEISH_AUTH_STORE_MASTER_KEY_FILE",
    ),
    row(
        "offline_space_low",
        "space",
        Warning,
        "80 % of the file system are used",
        "free space or enlarge the file system",
    ),
    row(
        "offline_space_exhausted",
        "space",
        Error,
        "less than 8 MiB are left, or hardly any inodes",
        "free space or enlarge the file system",
    ),
    row("offline_space_unknown", "space", Error, "the file system does not tell its space", "check the mount"),
    row(
        "secret_found",
        "secrets",
        Error,
        "a file of the state root holds a stored secret in the clear. A hash-chained record cannot be cleaned, only retired",
        "rotate the secret at its issuer, then kheish-daemon secrets set; keep or retire the file by policy",
    ),
    row(
        "secret_scan_failed",
        "secrets",
        Error,
        "the files could not be searched",
        "set KHEISH_AUTH_STORE_MASTER_KEY_FILE and run as the daemon's user",
    ),
];
