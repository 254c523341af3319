//! Secret bytes as a type.
//! Owns: wiping on drop and the absence of every accidental way out.
//! Never: implements Clone, Display or Serialize; `Debug` prints nothing of the value.

use zeroize::Zeroizing;

/// A secret value. It leaves only through [`Secret::expose`], which is easy to grep for.
///
/// The buffer is wiped on drop. Copies made before the value arrived here (a socket buffer, a page of
/// the environment) are outside this type's reach; docs/security.md says which remain.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of `bytes`; they are wiped when the secret is dropped.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The plaintext. Callers: the broker (store), net (one request's bytes) and key loading.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the value has no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}
