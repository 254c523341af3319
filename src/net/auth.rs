//! The credential of one request.
//! Owns: the moment at which plaintext is asked for, checked and put on the wire.
//! May touch: the write buffer of a connection whose peer is already authenticated.
//! Never: hands the plaintext to the HTTP client's header map, which it prints when tracing; a stand-in of
//! random digits travels there and is replaced in the write buffer, which is wiped after the write.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use ring::rand::SecureRandom;

use crate::hex::to_hex;
use crate::limits::NET_CREDENTIAL_BYTES_MAX;
use crate::secret::Secret;

use super::error::NetError;

/// Why a credential was not released. The text is shown to operators: no secret, and a next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialRefused {
    /// For example `lease revoked; next: …`.
    pub reason: String,
}

impl fmt::Display for CredentialRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for CredentialRefused {}

/// In a mutex because the HTTP client wants its transports to be `Sync`; nobody ever locks it.
type Release = Mutex<Box<dyn FnOnce() -> Result<Secret, CredentialRefused> + Send>>;

/// A header that carries a credential, which is released only when the connection stands: `Authorization: Bearer …`
/// unless [`Auth::in_header`] says otherwise.
pub struct Auth {
    release: Release,
    /// The header that holds the credential alone; `None` is the bearer form.
    header: Option<&'static str>,
    /// Stands in the target's path where the credential goes; then no header holds it.
    path_marker: Option<&'static str>,
    /// Header lines that belong to the credential and are no secret.
    labels: Vec<(&'static str, String)>,
}

impl Auth {
    /// `release` is called once, after the peer is connected and its certificate verified, just before the
    /// request head is written. When it refuses, nothing of the request is sent.
    pub fn bearer_from(release: impl FnOnce() -> Result<Secret, CredentialRefused> + Send + 'static) -> Self {
        Self { release: Mutex::new(Box::new(release)), header: None, path_marker: None, labels: Vec::new() }
    }

    /// The same credential, alone in the header `name` (lower case) and not as a bearer token.
    pub fn in_header(self, name: &'static str) -> Self {
        Self { header: Some(name), ..self }
    }

    /// The same credential, in the path of the request in place of `marker`, and in no header: for APIs that want it so.
    pub fn in_path(self, marker: &'static str) -> Self {
        Self { path_marker: Some(marker), ..self }
    }

    /// Header lines (lower-case names) that go along with the credential, such as the organization that it belongs to.
    pub fn with_labels(self, labels: Vec<(&'static str, String)>) -> Self {
        Self { labels, ..self }
    }

    /// See [`Auth::with_labels`].
    pub fn labels(&self) -> &[(&'static str, String)] {
        &self.labels
    }

    /// A credential already at hand.
    pub fn bearer(secret: Secret) -> Self {
        Self::bearer_from(move || Ok(secret))
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Auth({} ..)", self.header.unwrap_or("Bearer"))
    }
}

/// Random digits in a stand-in; too many to meet by accident in a URL or another header.
const STAND_IN_RANDOM_BYTES: usize = 24;

/// An [`Auth`] on its way, with the text that stands for the credential until it is written.
pub(super) struct Pending {
    stand_in: String,
    release: Release,
    header: Option<&'static str>,
    path_marker: Option<&'static str>,
}

impl Pending {
    pub(super) fn new(auth: Auth) -> Result<Self, NetError> {
        let mut random = [0u8; STAND_IN_RANDOM_BYTES];
        ring::rand::SystemRandom::new().fill(&mut random).map_err(|_| NetError::CredentialRefused {
            reason: "the system's random source failed; next: check /dev/urandom".to_string(),
        })?;
        let stand_in = to_hex(&random);
        Ok(Self { stand_in, release: auth.release, header: auth.header, path_marker: auth.path_marker })
    }

    /// Name and value of the header that is handed to the HTTP client; none for a credential of the path.
    pub(super) fn header(&self) -> Option<(&'static str, String)> {
        match (self.path_marker, self.header) {
            (Some(_), _) => None,
            (None, Some(name)) => Some((name, self.stand_in.clone())),
            (None, None) => Some(("authorization", format!("Bearer {}", self.stand_in))),
        }
    }

    /// `uri` as it is handed to the HTTP client.
    pub(super) fn in_uri(&self, uri: String) -> String {
        self.path_marker.map_or(uri.clone(), |marker| uri.replacen(marker, &self.stand_in, 1))
    }

    /// Position of the stand-in in the bytes about to be written.
    pub(super) fn find(&self, output: &[u8]) -> Option<usize> {
        let needle = self.stand_in.as_bytes();
        output.windows(needle.len()).position(|window| window == needle)
    }

    /// Length of the stand-in in bytes.
    pub(super) fn stand_in_len(&self) -> usize {
        self.stand_in.len()
    }

    /// Asks for the plaintext and checks that it can be sent in a header.
    pub(super) fn release(self) -> Result<Secret, NetError> {
        let release = self.release.into_inner().unwrap_or_else(PoisonError::into_inner);
        let secret = release().map_err(|refused| NetError::CredentialRefused { reason: refused.reason })?;
        let refuse = |reason: &str| Err(NetError::CredentialRefused { reason: reason.to_string() });
        if secret.is_empty() {
            return refuse("it is empty; next: set the secret again");
        }
        if secret.len() > NET_CREDENTIAL_BYTES_MAX {
            return refuse("it is too long for a request header; next: check that the right value was stored");
        }
        if !secret.expose().iter().all(u8::is_ascii_graphic) {
            return refuse("it holds blanks, line ends or non-ASCII bytes; next: store it again without them");
        }
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b":_-.~".contains(byte);
        if self.path_marker.is_some() && !secret.expose().iter().all(is_plain) {
            return refuse("it cannot stand in a path; next: check that the right value was stored");
        }
        Ok(secret)
    }
}
