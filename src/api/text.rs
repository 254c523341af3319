//! Caller-chosen text made fit for logs and error details.
//! Owns: shortening and escaping.
//! Never: passes a control character on.

use std::fmt::Write;

use crate::limits::PROBLEM_QUOTE_BYTES_MAX;

/// `raw` in double quotes, escaped as in Rust source, at most about [`PROBLEM_QUOTE_BYTES_MAX`] bytes.
pub fn quote(raw: &str) -> String {
    format!("\"{}\"", plain(raw, PROBLEM_QUOTE_BYTES_MAX))
}

/// `raw` with control characters and quotes escaped, ending in `…` once `bytes_max` is reached.
pub fn plain(raw: &str, bytes_max: usize) -> String {
    // Nearly every text is like this; it costs one look and one copy.
    let harmless = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\'' | b'\\');
    if raw.len() <= bytes_max && raw.bytes().all(harmless) {
        return raw.to_string();
    }
    let mut out = String::with_capacity(raw.len().min(bytes_max) + 4);
    for character in raw.chars() {
        if out.len() >= bytes_max {
            out.push('…');
            break;
        }
        write!(out, "{}", character.escape_debug()).expect("writing to a string does not fail");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_cut_at_a_character() {
        assert_eq!(quote("a\"b\n\u{0}é"), "\"a\\\"b\\n\\0é\"");
        assert_eq!(plain("ééé", 3), "éé…");
        assert_eq!(
            (plain("", 3), plain("a b", 3), plain("a bc", 3)),
            (String::new(), "a b".to_string(), "a b…".to_string())
        );
        assert!(quote(&"x".repeat(1_000_000)).len() < PROBLEM_QUOTE_BYTES_MAX + 10);
    }
}
