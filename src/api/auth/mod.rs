//! Who is calling: bearer tokens of two roles, followed as their files change.
//! Owns: the effective tokens, their generations, and the verdict on an Authorization header.
//! May touch: the configured token files (metadata at most every TOKEN_FILE_CHECK_MS and before every refusal, content
//! when that changed).
//! Never: keeps or logs a token; lets one role in on the other's failure.

mod config;
mod digest;
mod file;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use serde::Serialize;

pub use config::{AuthConfig, AuthConfigError, AuthMode, BindScope, RawAuth, Role, TokenSource};
pub use digest::{Fingerprint, TokenDefect, TokenDigest};
pub use file::TokenFileError;

use crate::clock::Clock;
use crate::limits::{TOKEN_BYTES_ADVISED_MIN, TOKEN_BYTES_MAX, TOKEN_FILE_CHECK_MS};
use file::Reading;

/// A caller that was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// What it may do.
    pub role: Role,
    /// Which token it showed; `None` while authentication is off.
    pub fingerprint: Option<Fingerprint>,
    /// Generation of that role's token at the time; see [`Auth::is_current`].
    pub generation: u64,
}

/// Why a caller was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// No Authorization header.
    Missing,
    /// Not of the form `Bearer <token>`.
    Malformed,
    /// No effective token is this one.
    Invalid {
        /// Of the token that was shown: after a rotation it tells which client still has the old one.
        fingerprint: Fingerprint,
    },
}

/// The gate of the control plane. One instance, shared by reference.
pub struct Auth {
    tokens: Option<RwLock<Tokens>>,
    notices: Vec<String>,
    clock: Arc<dyn Clock>,
    look: Look,
}

/// When the token files were last looked at. Two `stat` calls for each request are a twentieth of what accepting a run
/// costs, so requests that follow each other closely share one look.
struct Look {
    opened: Instant,
    every: Duration,
    /// Nanoseconds after `opened` until which no other look is due.
    next_ns: AtomicU64,
}

impl Look {
    fn new(every_ms: u64) -> Self {
        Self { opened: Instant::now(), every: Duration::from_millis(every_ms), next_ns: AtomicU64::new(0) }
    }

    /// Whether a look is due; whoever is told so takes it.
    fn is_due(&self) -> bool {
        let now = self.opened.elapsed();
        if (now.as_nanos() as u64) < self.next_ns.load(Ordering::Relaxed) {
            return false;
        }
        self.next_ns.store((now + self.every).as_nanos() as u64, Ordering::Relaxed);
        true
    }
}

impl Auth {
    /// Opens the gate that `config` describes, reading its token files for the first time.
    ///
    /// # Errors
    /// A token file is unreadable, empty, exposed to others, or holds the other role's token.
    pub fn open(config: AuthConfig, clock: Arc<dyn Clock>) -> Result<Self, AuthConfigError> {
        let mut notices = Vec::new();
        let (admin, read_only, short_tokens) = match config {
            AuthConfig::Off { tokens_ignored } => {
                notices.push("control-plane authentication is off: every local user and program is admin".to_string());
                if tokens_ignored {
                    notices.push("--http-auth-mode none: the configured tokens are not used".to_string());
                }
                return Ok(Self { tokens: None, notices, clock, look: Look::new(TOKEN_FILE_CHECK_MS) });
            }
            AuthConfig::Bearer { admin, read_only, short_tokens } => (admin, read_only, short_tokens),
        };
        let now_ms = clock.now_ms();
        let admin = Slot::open(Role::Admin, admin, now_ms)?;
        let read_only = read_only.map(|source| Slot::open(Role::ReadOnly, source, now_ms)).transpose()?;
        let short =
            short_tokens.into_iter().chain(admin.short_token()).chain(read_only.as_ref().and_then(Slot::short_token));
        notices.extend(short.map(|role| {
            format!(
                "the {role} token has fewer than {TOKEN_BYTES_ADVISED_MIN} bytes and can be guessed; next: rotate it"
            )
        }));
        let mut tokens = Tokens { admin, read_only, effective: [None, None], generations: [0, 0], dropped: None };
        tokens.settle([true, true]);
        if tokens.dropped.is_some() {
            return Err(AuthConfigError::EqualTokens);
        }
        Ok(Self { tokens: Some(RwLock::new(tokens)), notices, clock, look: Look::new(TOKEN_FILE_CHECK_MS) })
    }

    /// What an operator should read at start: one line each, for the log.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Whether callers must show a token.
    pub fn is_on(&self) -> bool {
        self.tokens.is_some()
    }

    /// Judges the value of a request's Authorization header against the tokens as they are now.
    ///
    /// # Errors
    /// The header is missing, malformed, or shows no effective token.
    pub fn authenticate(&self, authorization: Option<&str>) -> Result<Caller, Rejection> {
        let Some(tokens) = self.recent() else {
            return Ok(Caller { role: Role::Admin, fingerprint: None, generation: 0 });
        };
        let shown = TokenDigest::of_presented(bearer_token(authorization.ok_or(Rejection::Missing)?)?);
        if let Some(caller) = tokens.caller(&shown) {
            return Ok(caller);
        }
        drop(tokens);
        // It may be newer than the last look: nobody is refused on old knowledge.
        let now = self.fresh().and_then(|tokens| tokens.caller(&shown));
        now.ok_or_else(|| Rejection::Invalid { fingerprint: shown.fingerprint() })
    }

    /// Counts up whenever the effective token of `role` is replaced, lost or found again. 0 while off.
    pub fn generation(&self, role: Role) -> u64 {
        self.recent().map_or(0, |tokens| tokens.generations[role as usize])
    }

    /// Whether the token that let `caller` in still does; a long answer (a stream) ends when it does not.
    pub fn is_current(&self, caller: &Caller) -> bool {
        self.generation(caller.role) == caller.generation
    }

    /// The posture for `/v1/status`.
    pub fn view(&self) -> AuthView {
        let Some(tokens) = self.fresh() else { return AuthView::default() };
        let files: Vec<TokenFileView> =
            [Some(&tokens.admin), tokens.read_only.as_ref()].into_iter().flatten().filter_map(Slot::view).collect();
        AuthView {
            auth_enabled: true,
            read_only_token_enabled: tokens.read_only.is_some(),
            auth_effective_admin_token_available: tokens.effective[Role::Admin as usize].is_some(),
            auth_effective_read_only_token_available: tokens.effective[Role::ReadOnly as usize].is_some(),
            auth_token_file_count: files.len(),
            auth_token_file_error_count: files.iter().filter(|file| !file.token_loaded).count(),
            auth_duplicate_token: tokens.dropped.is_some(),
            auth_token_files: files,
        }
    }

    /// The tokens as the files said at most TOKEN_FILE_CHECK_MS ago; `None` while authentication is off.
    fn recent(&self) -> Option<RwLockReadGuard<'_, Tokens>> {
        if self.look.is_due() {
            return self.fresh();
        }
        // See `fresh` for why a poisoned lock is no obstacle.
        Some(self.tokens.as_ref()?.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The tokens as the files say now; `None` while authentication is off.
    fn fresh(&self) -> Option<RwLockReadGuard<'_, Tokens>> {
        let lock = self.tokens.as_ref()?;
        // A panic under the lock cannot leave half a state: readings are replaced whole.
        let tokens = lock.read().unwrap_or_else(PoisonError::into_inner);
        if !tokens.is_stale() {
            return Some(tokens);
        }
        drop(tokens);
        lock.write().unwrap_or_else(PoisonError::into_inner).reload(self.clock.now_ms());
        Some(lock.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The token of `Bearer <token>`; the scheme in any case, blanks around the token dropped.
fn bearer_token(authorization: &str) -> Result<&str, Rejection> {
    let (scheme, token) = authorization.trim().split_once(' ').ok_or(Rejection::Malformed)?;
    let token = token.trim();
    let malformed = !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.len() > TOKEN_BYTES_MAX;
    if malformed { Err(Rejection::Malformed) } else { Ok(token) }
}

/// Effective tokens and generations are indexed by `Role as usize`.
struct Tokens {
    admin: Slot,
    read_only: Option<Slot>,
    effective: [Option<TokenDigest>; 2],
    generations: [u64; 2],
    /// While both roles hold one token: which of them were written last and are not effective.
    dropped: Option<[bool; 2]>,
}

impl Tokens {
    /// Whose token this is. Both are compared whichever matches: the time taken tells nothing about the role.
    fn caller(&self, shown: &TokenDigest) -> Option<Caller> {
        let [read_only, admin] = self.effective.map(|token| token.is_some_and(|token| token.matches(shown)));
        let role = match (admin, read_only) {
            (true, _) => Role::Admin,
            (false, true) => Role::ReadOnly,
            (false, false) => return None,
        };
        Some(Caller { role, fingerprint: Some(shown.fingerprint()), generation: self.generations[role as usize] })
    }

    fn is_stale(&self) -> bool {
        self.admin.is_stale() || self.read_only.as_ref().is_some_and(Slot::is_stale)
    }

    fn reload(&mut self, now_ms: u64) {
        let before = self.loaded();
        self.admin.reload(now_ms);
        if let Some(read_only) = &mut self.read_only {
            read_only.reload(now_ms);
        }
        let after = self.loaded();
        self.settle([before[0] != after[0], before[1] != after[1]]);
    }

    fn loaded(&self) -> [Option<TokenDigest>; 2] {
        [self.read_only.as_ref().and_then(Slot::token), self.admin.token()]
    }

    /// Derives the effective tokens. A token that was written to be equal to the other role's is not effective, since
    /// nobody could tell which role was meant; the other one stays what it was.
    fn settle(&mut self, changed: [bool; 2]) {
        let [read_only, admin] = self.loaded();
        let equal = admin.zip(read_only).is_some_and(|(admin, read_only)| admin.matches(&read_only));
        let known = self.dropped.filter(|_| changed == [false, false]);
        self.dropped = equal.then(|| known.unwrap_or(changed));
        if let Some(dropped) = self.dropped.filter(|_| known.is_none()) {
            let lost = match dropped {
                [true, false] => "the read-only token is refused, the admin token stays",
                [false, true] => "the admin token is refused, the read-only token stays",
                _ => "both are refused",
            };
            log::error!("the admin and the read-only token are equal: {lost}; next: write different tokens");
        }
        let dropped = self.dropped.unwrap_or_default();
        for (index, token) in [read_only, admin].into_iter().enumerate() {
            let token = token.filter(|_| !dropped[index]);
            if self.effective[index] != token {
                self.effective[index] = token;
                self.generations[index] += 1;
            }
        }
    }
}

/// One role's token and where it comes from.
enum Slot {
    Inline(TokenDigest),
    File { role: Role, path: Box<Path>, reading: Reading },
}

impl Slot {
    fn open(role: Role, source: TokenSource, now_ms: u64) -> Result<Self, AuthConfigError> {
        let path = match source {
            TokenSource::Inline(digest) => return Ok(Self::Inline(digest)),
            TokenSource::File(path) => path,
        };
        let reading = Reading::of(&path, now_ms);
        match reading.exposed.clone().or_else(|| reading.token.clone().err()) {
            Some(error) => Err(AuthConfigError::TokenFile { role, path, error }),
            None => Ok(Self::File { role, path: path.into(), reading }),
        }
    }

    fn token(&self) -> Option<TokenDigest> {
        match self {
            Self::Inline(digest) => Some(*digest),
            Self::File { reading, .. } => reading.token.as_ref().ok().copied(),
        }
    }

    fn short_token(&self) -> Option<Role> {
        match self {
            Self::File { role, reading, .. } if reading.token_bytes < TOKEN_BYTES_ADVISED_MIN => Some(*role),
            _ => None,
        }
    }

    fn is_stale(&self) -> bool {
        match self {
            Self::Inline(_) => false,
            Self::File { path, reading, .. } => reading.is_stale(path),
        }
    }

    fn reload(&mut self, now_ms: u64) {
        let Self::File { role, path, reading } = self else { return };
        if !reading.is_stale(path) {
            return;
        }
        let new = Reading::of(path, now_ms);
        let shown = path.display();
        match (&reading.token, &new.token) {
            (Ok(old), Ok(new)) if old == new => {}
            (_, Ok(token)) => {
                log::info!("the {role} token was loaded from {shown}, fingerprint {}", token.fingerprint())
            }
            (Err(old), Err(new)) if old == new => {}
            (_, Err(error)) => log::error!("the {role} token is lost, its holders get 401: {shown}: {error}"),
        }
        if let (Some(exposed), true) = (&new.exposed, new.exposed != reading.exposed) {
            log::warn!("the {role} token file {shown}: {exposed}");
        }
        *reading = new;
    }

    fn view(&self) -> Option<TokenFileView> {
        let Self::File { role, path, reading } = self else { return None };
        Some(TokenFileView {
            role: role.as_str(),
            path: path.display().to_string(),
            readable: !matches!(reading.token, Err(TokenFileError::Unreadable(_) | TokenFileError::NotAFile)),
            token_loaded: reading.token.is_ok(),
            error: reading.token.as_ref().err().or(reading.exposed.as_ref()).map(ToString::to_string),
        })
    }
}

/// The authentication part of `control_plane` in `/v1/status`.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuthView {
    /// Callers must show a token.
    pub auth_enabled: bool,
    /// A read-only token is configured.
    pub read_only_token_enabled: bool,
    /// The admin token is loaded and not equal to the other.
    pub auth_effective_admin_token_available: bool,
    /// The read-only token is loaded and not equal to the other.
    pub auth_effective_read_only_token_available: bool,
    /// Roles whose token comes from a file.
    pub auth_token_file_count: usize,
    /// Those of them without a loaded token.
    pub auth_token_file_error_count: usize,
    /// Both tokens are equal, so the one that was written last is refused.
    pub auth_duplicate_token: bool,
    /// One entry for each token file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub auth_token_files: Vec<TokenFileView>,
}

impl AuthView {
    /// Path of the first token file of `role` (of any, when empty) that holds no usable token.
    pub fn first_bad_file(&self, role: &str) -> Option<String> {
        let mut files = self.auth_token_files.iter().filter(|file| role.is_empty() || file.role == role);
        files.find(|file| !file.token_loaded).map(|file| file.path.clone())
    }
}

/// One token file as `/v1/status` shows it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct TokenFileView {
    /// `admin` or `read_only`.
    pub role: &'static str,
    /// Its path.
    pub path: String,
    /// Its bytes could be read.
    pub readable: bool,
    /// It holds a usable token.
    pub token_loaded: bool,
    /// What is wrong with it, loaded or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[cfg(test)]
mod tests;
