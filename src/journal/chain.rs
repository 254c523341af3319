//! Chain values: what links each journal line to all lines before it.
//! Owns: their computation and their text form.
//! Never: reads or writes a file.

use std::fmt;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const HEX: &[u8; 16] = b"0123456789abcdef";

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
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
        }
        text
    }

    /// Reads 64 lower-case hex digits; anything else is no chain value.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let bytes = parse_hex(text)?;
        Some(Self(bytes.try_into().ok()?))
    }
}

/// Lower-case hex of any bytes.
pub fn to_hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| HEX[usize::from(nibble)] as char;
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Reads lower-case hex.
pub fn parse_hex(text: &[u8]) -> Option<Vec<u8>> {
    fn nibble(digit: u8) -> Option<u8> {
        match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        }
    }
    if text.len() % 2 != 0 {
        return None;
    }
    text.chunks_exact(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect()
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
