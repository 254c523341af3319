//! Credentials that the service manager hands over as files: `credential:NAME` wherever a file with a secret is named.
//! Owns: the spelling, the way from a name to a path, and who else may read such a file.
//! May touch: the variable CREDENTIALS_DIRECTORY.
//! Never: opens a file; its reader does, with the checks that hold for any other file.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::limits::CREDENTIAL_NAME_BYTES_MAX;

/// Where the service manager puts them.
pub const DIRECTORY_VARIABLE: &str = "CREDENTIALS_DIRECTORY";
/// What stands before a name. A file that is really called so is named as `./credential:…`.
pub const PREFIX: &str = "credential:";

/// Why a name leads to no file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialError {
    /// No credentials were handed over.
    NoDirectory {
        /// The credential's name.
        name: String,
    },
    /// The name could lead elsewhere.
    Name {
        /// As it was written.
        name: String,
    },
}

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDirectory { name } => write!(
                f,
                "{PREFIX}{name}: the service manager handed over no credentials ({DIRECTORY_VARIABLE} is not an absolute \
                 path); next: add LoadCredential={name}:PATH to the unit, or name the file by its path"
            ),
            Self::Name { name } => write!(
                f,
                "{PREFIX}{name}: the name of a credential has letters, digits, dots, hyphens and underscores, at most \
                 {CREDENTIAL_NAME_BYTES_MAX}; next: correct it"
            ),
        }
    }
}

impl std::error::Error for CredentialError {}

/// The file that `text` names: itself, or the credential behind `credential:`.
///
/// # Errors
/// It is a credential, and none of that name can be there.
pub fn file(text: &OsStr) -> Result<PathBuf, CredentialError> {
    file_in(text, std::env::var_os(DIRECTORY_VARIABLE))
}

/// As [`file`], with the variable given.
///
/// # Errors
/// As there.
pub fn file_in(text: &OsStr, directory: Option<OsString>) -> Result<PathBuf, CredentialError> {
    let Some(name) = text.as_bytes().strip_prefix(PREFIX.as_bytes()) else { return Ok(PathBuf::from(text)) };
    let shown = || String::from_utf8_lossy(name).into_owned();
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    let is_name = (1..=CREDENTIAL_NAME_BYTES_MAX).contains(&name.len()) && name.iter().all(is_plain);
    if !is_name || name == b"." || name == b".." {
        return Err(CredentialError::Name { name: shown() });
    }
    let directory = directory.map(PathBuf::from).filter(|directory| directory.is_absolute());
    let directory = directory.ok_or_else(|| CredentialError::NoDirectory { name: shown() })?;
    Ok(directory.join(Path::new(OsStr::from_bytes(name))))
}

/// Whether a file's mode lets somebody in besides its owner and `user`, who runs this process. systemd hands a credential to
/// a service as a root:root file whose access list names the service's user; its mask shows as 0440 and lets in nobody but
/// root.
pub fn lets_others_in(metadata: &Metadata, user: u32) -> bool {
    let is_credential = user != 0 && metadata.uid() == 0 && metadata.gid() == 0;
    let allowed = if is_credential { 0o740 } else { 0o700 };
    metadata.mode() & 0o777 & !allowed != 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::state_root::scratch::Scratch;

    fn found(text: &str, directory: Option<&str>) -> Result<PathBuf, CredentialError> {
        file_in(OsStr::new(text), directory.map(OsString::from))
    }

    #[test]
    fn a_name_leads_into_the_directory_and_nowhere_else() {
        let directory = Some("/run/credentials/kheish-daemon.service");
        assert_eq!(
            found("credential:admin-token", directory),
            Ok("/run/credentials/kheish-daemon.service/admin-token".into())
        );
        for path in ["/etc/token", "token", "./credential:x", "Credential:x", ""] {
            assert_eq!(found(path, directory), Ok(path.into()), "{path:?}");
        }
        let long = format!("credential:{}", "x".repeat(CREDENTIAL_NAME_BYTES_MAX + 1));
        for text in [
            "credential:",
            "credential:.",
            "credential:..",
            "credential:../x",
            "credential:a/b",
            "credential:a b",
            &long,
        ] {
            assert!(matches!(found(text, directory), Err(CredentialError::Name { .. })), "{text}");
        }
    }

    #[test]
    fn without_a_service_manager_a_credential_is_refused_with_a_next_step() {
        for directory in [None, Some(""), Some("relative")] {
            let error = found("credential:admin-token", directory).expect_err("nothing was handed over").to_string();
            assert!(error.starts_with("credential:admin-token: ") && error.contains("; next: "), "{error}");
        }
    }

    #[test]
    fn the_root_owned_file_of_a_service_manager_lets_in_its_service_only() {
        let scratch = Scratch::new("credential");
        let path = scratch.path().join("key");
        std::fs::write(&path, "x").expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o440)).expect("ours");
        let metadata = std::fs::metadata(&path).expect("a file");
        if metadata.uid() == 0 && metadata.gid() == 0 {
            assert!(!lets_others_in(&metadata, 990));
        }
        assert!(lets_others_in(&metadata, metadata.uid()));
    }
}
