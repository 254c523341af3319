//! From authentication flags to what holds.
//! Owns: the auth-mode table and every start-up refusal that needs no file.
//! May touch: flag values and the bind address.
//! Never: reads a file or the environment.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::digest::{TokenDefect, TokenDigest};
use super::file::TokenFileError;
use crate::limits::TOKEN_BYTES_ADVISED_MIN;
use crate::secret::Secret;

/// `--http-auth-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuthMode {
    /// Bearer when an admin token is given; off only on loopback without any token.
    #[default]
    Auto,
    /// Bearer, always.
    Bearer,
    /// Off; loopback only.
    None,
}

impl AuthMode {
    /// Reads the flag's value.
    pub fn parse(raw: &str) -> Option<Self> {
        match raw {
            "auto" => Some(Self::Auto),
            "bearer" => Some(Self::Bearer),
            "none" => Some(Self::None),
            _ => None,
        }
    }
}

/// What a token lets its holder do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads of the read-only class.
    ReadOnly,
    /// Everything.
    Admin,
}

impl Role {
    /// The name in logs, audit lines and views.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read_only",
            Self::Admin => "admin",
        }
    }

    pub(super) fn inline_flag(self) -> &'static str {
        match self {
            Self::ReadOnly => "--http-readonly-token",
            Self::Admin => "--http-admin-token",
        }
    }

    pub(super) fn file_flag(self) -> &'static str {
        match self {
            Self::ReadOnly => "--http-readonly-token-file",
            Self::Admin => "--http-admin-token-file",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who can reach the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindScope {
    /// A loopback address: this host's users.
    Loopback,
    /// `0.0.0.0` or `[::]`: every interface.
    Unspecified,
    /// Another address.
    Routable,
    /// A Unix socket: whom the file system lets connect.
    UnixSocket,
}

impl BindScope {
    /// Classifies a TCP address; `::ffff:127.0.0.1` is loopback too.
    pub fn of(address: &SocketAddr) -> Self {
        let ip = address.ip().to_canonical();
        match (ip.is_loopback(), ip.is_unspecified()) {
            (true, _) => Self::Loopback,
            (_, true) => Self::Unspecified,
            _ => Self::Routable,
        }
    }

    /// Whether only this host can connect.
    pub fn is_local(self) -> bool {
        matches!(self, Self::Loopback | Self::UnixSocket)
    }
}

/// The flags as given.
#[derive(Debug, Default)]
pub struct RawAuth {
    /// `--http-auth-mode`.
    pub mode: AuthMode,
    /// `--http-admin-token`.
    pub admin_token: Option<Secret>,
    /// `--http-admin-token-file`.
    pub admin_token_file: Option<PathBuf>,
    /// `--http-readonly-token`.
    pub read_only_token: Option<Secret>,
    /// `--http-readonly-token-file`.
    pub read_only_token_file: Option<PathBuf>,
}

/// Where one role's token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// A flag or the environment; fixed until restart.
    Inline(TokenDigest),
    /// A file, followed when it changes.
    File(PathBuf),
}

/// What holds.
#[derive(Debug, PartialEq, Eq)]
pub enum AuthConfig {
    /// Every caller is admin.
    Off {
        /// Tokens were given and are not used.
        tokens_ignored: bool,
    },
    /// Callers prove their role by a bearer token.
    Bearer {
        /// The admin token's source.
        admin: TokenSource,
        /// The read-only token's source.
        read_only: Option<TokenSource>,
        /// Roles whose inline token is short enough to be guessed.
        short_tokens: Vec<Role>,
    },
}

impl AuthConfig {
    /// Judges the flags for a listener bound to `bind`.
    ///
    /// # Errors
    /// Every combination that would leave the daemon open or undefined; see [`AuthConfigError`].
    pub fn resolve(raw: RawAuth, bind: BindScope) -> Result<Self, AuthConfigError> {
        let any_token = raw.admin_token.is_some()
            || raw.admin_token_file.is_some()
            || raw.read_only_token.is_some()
            || raw.read_only_token_file.is_some();
        if raw.mode == AuthMode::None {
            return match bind.is_local() {
                true => Ok(Self::Off { tokens_ignored: any_token }),
                false => Err(AuthConfigError::OffBeyondLoopback),
            };
        }
        let mut short_tokens = Vec::new();
        let admin = source(Role::Admin, raw.admin_token, raw.admin_token_file, &mut short_tokens)?;
        let read_only = source(Role::ReadOnly, raw.read_only_token, raw.read_only_token_file, &mut short_tokens)?;
        let Some(admin) = admin else {
            return match (read_only, raw.mode, bind.is_local()) {
                (Some(_), ..) => Err(AuthConfigError::ReadOnlyWithoutAdmin),
                (None, AuthMode::Bearer, _) => Err(AuthConfigError::AdminTokenMissing),
                (None, _, false) => Err(AuthConfigError::OpenBeyondLoopback),
                (None, _, true) => Ok(Self::Off { tokens_ignored: false }),
            };
        };
        match (&admin, &read_only) {
            (TokenSource::Inline(a), Some(TokenSource::Inline(b))) if a.matches(b) => Err(AuthConfigError::EqualTokens),
            (TokenSource::File(a), Some(TokenSource::File(b))) if a == b => {
                Err(AuthConfigError::SameTokenFile { path: a.clone() })
            }
            _ => Ok(Self::Bearer { admin, read_only, short_tokens }),
        }
    }
}

fn source(
    role: Role,
    inline: Option<Secret>,
    file: Option<PathBuf>,
    short_tokens: &mut Vec<Role>,
) -> Result<Option<TokenSource>, AuthConfigError> {
    match (inline, file) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(AuthConfigError::TwoSources { role }),
        (None, Some(path)) if path == Path::new("") => Err(AuthConfigError::EmptyTokenFilePath { role }),
        (None, Some(path)) => Ok(Some(TokenSource::File(path))),
        (Some(token), None) => {
            let digest = TokenDigest::of_configured(token.expose())
                .map_err(|defect| AuthConfigError::BadInlineToken { role, defect })?;
            if token.expose().trim_ascii().len() < TOKEN_BYTES_ADVISED_MIN {
                short_tokens.push(role);
            }
            Ok(Some(TokenSource::Inline(digest)))
        }
    }
}

/// Why the daemon does not start with these authentication flags.
#[derive(Debug)]
pub enum AuthConfigError {
    /// `--http-auth-mode none` on an address that others can reach.
    OffBeyondLoopback,
    /// No token at all on an address that others can reach.
    OpenBeyondLoopback,
    /// Bearer mode without an admin token.
    AdminTokenMissing,
    /// Only a read-only token was given.
    ReadOnlyWithoutAdmin,
    /// One role has both an inline token and a file.
    TwoSources {
        /// The role.
        role: Role,
    },
    /// A token-file flag names no path.
    EmptyTokenFilePath {
        /// The role.
        role: Role,
    },
    /// An inline token cannot be used.
    BadInlineToken {
        /// The role.
        role: Role,
        /// What is wrong with it.
        defect: TokenDefect,
    },
    /// Both roles have the same token.
    EqualTokens,
    /// Both roles read the same file.
    SameTokenFile {
        /// The file.
        path: PathBuf,
    },
    /// A token file cannot be used.
    TokenFile {
        /// The role.
        role: Role,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: TokenFileError,
    },
}

impl fmt::Display for AuthConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OffBeyondLoopback => f.write_str(
                "--http-auth-mode none would leave the control plane open to the network; \
                 next: bind a loopback address, or give --http-admin-token-file",
            ),
            Self::OpenBeyondLoopback => f.write_str(
                "no admin token is given and the bind address is not loopback; \
                 next: give --http-admin-token-file, or bind a loopback address",
            ),
            Self::AdminTokenMissing => {
                f.write_str("--http-auth-mode bearer needs an admin token; next: give --http-admin-token-file")
            }
            Self::ReadOnlyWithoutAdmin => {
                f.write_str("a read-only token is given without an admin token; next: give --http-admin-token-file too")
            }
            Self::TwoSources { role } => write!(
                f,
                "{} and {} are both given; next: keep one of them (their environment variables count too)",
                role.inline_flag(),
                role.file_flag()
            ),
            Self::EmptyTokenFilePath { role } => {
                write!(f, "{} names no file; next: give its path or leave the flag out", role.file_flag())
            }
            Self::BadInlineToken { role, defect } => {
                write!(f, "the token of {} {defect}; next: choose another token", role.inline_flag())
            }
            Self::EqualTokens => f.write_str(
                "the admin and the read-only token are equal; next: give the read-only role a token of its own",
            ),
            Self::SameTokenFile { path } => {
                write!(f, "{} is given for both roles; next: give the read-only role a file of its own", path.display())
            }
            Self::TokenFile { role, path, error } => {
                write!(f, "cannot use the {role} token file {}: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for AuthConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    const ADMIN: &str = "admin-token-of-good-length";
    const READ: &str = "read-only-token-of-good-length";

    fn raw(mode: AuthMode, admin: Option<&str>, read_only: Option<&str>) -> RawAuth {
        let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
        let file = |text: Option<&str>| text.and_then(|text| text.strip_prefix('@')).map(PathBuf::from);
        let inline = |text: Option<&str>| text.filter(|text| !text.starts_with('@')).map(secret);
        RawAuth {
            mode,
            admin_token: inline(admin),
            admin_token_file: file(admin),
            read_only_token: inline(read_only),
            read_only_token_file: file(read_only),
        }
    }

    #[test]
    fn the_auth_mode_table_holds() {
        use AuthMode::{Auto, Bearer, None as Off};
        use BindScope::{Loopback, Routable, UnixSocket, Unspecified};
        let (admin, read) = (Some(ADMIN), Some(READ));
        let cases = [
            (Off, None, None, Loopback, "off"),
            (Off, admin, read, Loopback, "off, tokens ignored"),
            (Off, None, Some("@/r"), UnixSocket, "off, tokens ignored"),
            (Off, None, None, Routable, "OffBeyondLoopback"),
            (Off, admin, None, Unspecified, "OffBeyondLoopback"),
            (Bearer, None, None, Loopback, "AdminTokenMissing"),
            (Bearer, None, None, Routable, "AdminTokenMissing"),
            (Bearer, None, read, Loopback, "ReadOnlyWithoutAdmin"),
            (Bearer, admin, None, Loopback, "bearer"),
            (Bearer, admin, read, Routable, "bearer"),
            (Bearer, Some("@/a"), Some("@/r"), Unspecified, "bearer"),
            (Auto, admin, None, Loopback, "bearer"),
            (Auto, Some("@/a"), None, Routable, "bearer"),
            (Auto, admin, read, UnixSocket, "bearer"),
            (Auto, None, read, Loopback, "ReadOnlyWithoutAdmin"),
            (Auto, None, Some("@/r"), Routable, "ReadOnlyWithoutAdmin"),
            (Auto, None, None, Loopback, "off"),
            (Auto, None, None, UnixSocket, "off"),
            (Auto, None, None, Routable, "OpenBeyondLoopback"),
            (Auto, None, None, Unspecified, "OpenBeyondLoopback"),
            (Auto, admin, admin, Loopback, "EqualTokens"),
            (Bearer, Some("  admin-token-of-good-length\n"), admin, Loopback, "EqualTokens"),
            (Auto, Some("@/a"), Some("@/a"), Loopback, "SameTokenFile"),
            (Auto, Some(""), None, Loopback, "BadInlineToken"),
            (Auto, Some(" \n"), None, Loopback, "BadInlineToken"),
            (Auto, admin, Some(""), Loopback, "BadInlineToken"),
            (Bearer, Some("two words"), None, Loopback, "BadInlineToken"),
            (Bearer, Some("t\u{e9}token"), None, Loopback, "BadInlineToken"),
            (Bearer, Some("@"), None, Loopback, "EmptyTokenFilePath"),
        ];
        for (mode, admin, read_only, bind, expected) in cases {
            let got = match AuthConfig::resolve(raw(mode, admin, read_only), bind) {
                Ok(AuthConfig::Off { tokens_ignored: false }) => "off".to_string(),
                Ok(AuthConfig::Off { tokens_ignored: true }) => "off, tokens ignored".to_string(),
                Ok(AuthConfig::Bearer { .. }) => "bearer".to_string(),
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains("; next: ") && !text.contains(ADMIN) && !text.contains(READ), "{text}");
                    let debug = format!("{error:?}");
                    assert!(!debug.contains(ADMIN), "{debug}");
                    debug.split([' ', '{']).next().unwrap().to_string()
                }
            };
            assert_eq!(got, expected, "{mode:?} {admin:?} {read_only:?} {bind:?}");
        }
    }

    #[test]
    fn a_role_has_one_source() {
        for role in [Role::Admin, Role::ReadOnly] {
            let mut both = raw(AuthMode::Auto, Some(ADMIN), Some(READ));
            match role {
                Role::Admin => both.admin_token_file = Some(PathBuf::from("/a")),
                Role::ReadOnly => both.read_only_token_file = Some(PathBuf::from("/r")),
            }
            let error = AuthConfig::resolve(both, BindScope::Loopback).unwrap_err();
            assert!(matches!(error, AuthConfigError::TwoSources { role: named } if named == role), "{error:?}");
        }
    }

    #[test]
    fn a_token_that_can_be_guessed_is_named() {
        let config = AuthConfig::resolve(raw(AuthMode::Auto, Some("short"), Some(READ)), BindScope::Loopback).unwrap();
        let AuthConfig::Bearer { short_tokens, .. } = config else { panic!("auth is on") };
        assert_eq!(short_tokens, vec![Role::Admin]);
    }

    #[test]
    fn bind_addresses_are_classified_by_who_can_reach_them() {
        let cases = [
            ("127.0.0.1:4000", BindScope::Loopback),
            ("127.9.9.9:1", BindScope::Loopback),
            ("[::1]:4000", BindScope::Loopback),
            ("[::ffff:127.0.0.1]:4000", BindScope::Loopback),
            ("0.0.0.0:4000", BindScope::Unspecified),
            ("[::]:4000", BindScope::Unspecified),
            ("[::ffff:0.0.0.0]:4000", BindScope::Unspecified),
            ("10.0.0.1:4000", BindScope::Routable),
            ("[fe80::1]:4000", BindScope::Routable),
        ];
        for (address, scope) in cases {
            assert_eq!(BindScope::of(&address.parse().unwrap()), scope, "{address}");
        }
    }
}
