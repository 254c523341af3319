//! Tokens as digests.
//! Owns: the syntax of a token, its SHA-256 and the constant-time comparison.
//! Never: keeps a token; the digest is all that stays.

use std::fmt;

use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

use crate::hex::to_hex;
use crate::limits::TOKEN_BYTES_MAX;

/// SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// Of a token as a caller presents it.
    pub fn of_presented(token: &str) -> Self {
        Self::of(token.as_bytes())
    }

    /// Of a token as an operator configures it: blanks at the ends are dropped.
    ///
    /// # Errors
    /// The token could never be presented in a header, or is empty.
    pub fn of_configured(raw: &[u8]) -> Result<Self, TokenDefect> {
        let token = raw.trim_ascii();
        if token.is_empty() {
            return Err(TokenDefect::Empty);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenDefect::TooLong);
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(TokenDefect::NotPresentable);
        }
        Ok(Self::of(token))
    }

    fn of(token: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, token).as_ref());
        Self(bytes)
    }

    /// Compares without telling by its duration where the two differ.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// What logs and audit lines show of a token.
    pub fn fingerprint(&self) -> Fingerprint {
        let [a, b, c, d, ..] = self.0;
        Fingerprint([a, b, c, d])
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenDigest({}..)", self.fingerprint())
    }
}

/// The first 32 bits of a token's SHA-256: enough to tell tokens apart, too little to confirm a guess.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 4]);

impl Fingerprint {
    /// The four bytes.
    pub fn bytes(self) -> [u8; 4] {
        self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Why a configured token cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenDefect {
    /// Nothing but blanks.
    Empty,
    /// Over [`TOKEN_BYTES_MAX`].
    TooLong,
    /// Blanks, control characters or non-ASCII inside: no header could carry it unchanged.
    NotPresentable,
}

impl fmt::Display for TokenDefect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("is empty"),
            Self::TooLong => write!(f, "is longer than {TOKEN_BYTES_MAX} bytes"),
            Self::NotPresentable => f.write_str("holds blanks, control characters or non-ASCII bytes"),
        }
    }
}
