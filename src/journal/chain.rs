//! Chain values: what links each journal line to all lines before it.
//! Owns: their computation and their text form.
//! Never: reads or writes a file.

use std::fmt;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hex;
pub use crate::hex::{parse_hex, to_hex};

/// SHA-256 over the previous chain value and a line's bytes up to its own chain member.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chain(pub [u8; 32]);

impl Chain {
    /// The value before a journal's very first line.
    pub const START: Self = Self([0; 32]);

    /// The value of the line that follows and whose covered bytes are `covered`.
    pub fn next(self, covered: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&self.0);
        context.update(covered);
        let mut value = [0; 32];
        value.copy_from_slice(context.finish().as_ref());
        Self(value)
    }

    /// 64 lower-case hex digits.
    pub fn hex(self) -> [u8; 64] {
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&hex::digits(byte));
        }
        text
    }

    /// Reads 64 lower-case hex digits; anything else is no chain value.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let bytes = parse_hex(text)?;
        Some(Self(bytes.try_into().ok()?))
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self::START
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.hex()).expect("hex digits are ASCII"))
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Chain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Chain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(text.as_bytes()).ok_or_else(|| serde::de::Error::custom("not a chain value"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_value_is_plain_sha256_so_that_any_tool_can_recompute_it() {
        // printf '%064d' 0 | xxd -r -p; printf abc; both piped through sha256sum.
        let expected = "365aa7d8f7f9402c4b9434502b4cc89ddb09fe50d7cd95b493b834c62d5a5370";
        assert_eq!(Chain::START.next(b"abc").to_string(), expected);
        assert_eq!(Chain::parse(expected.as_bytes()), Some(Chain::START.next(b"abc")));
    }

    #[test]
    fn a_chain_value_has_one_spelling() {
        let good = "ab".repeat(32);
        assert!(Chain::parse(good.as_bytes()).is_some());
        for bad in ["AB".repeat(32), "ab".repeat(31), "ab".repeat(33), "zz".repeat(32), format!("{}a", "ab".repeat(31))]
        {
            assert_eq!(Chain::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
