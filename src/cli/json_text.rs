//! JSON as text: one line or indented, with the daemon's own key order and numbers.
//! Owns: the two layouts.
//! Never: parses into values, which would reorder keys and round large numbers; lets a control character
//! through to a terminal.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::exit::CliError;

/// A JSON document exactly as it was received, known to be well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document(String);

impl Document {
    /// Checks the bytes.
    ///
    /// # Errors
    /// They are not one JSON document in UTF-8; the text says where.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, String> {
        let text = String::from_utf8(bytes).map_err(|error| error.to_string())?;
        serde_json::from_str::<IgnoredAny>(&text).map_err(|error| error.to_string())?;
        Ok(Self(text))
    }

    /// A value of ours.
    ///
    /// # Panics
    /// The type cannot be JSON, which is a mistake in this program.
    pub fn of<T: serde::Serialize>(value: &T) -> Self {
        Self(serde_json::to_string(value).expect("our own documents are plain structs and maps"))
    }

    /// Checks that the document is an object, which every single view is.
    ///
    /// # Errors
    /// A schema error about the answer of `path`.
    pub fn require_object(&self, path: &str) -> Result<(), CliError> {
        if self.0.trim_start().starts_with('{') { Ok(()) } else { Err(wrong_shape(path, "an object")) }
    }

    /// Checks that the document is a plain list or a page of one.
    ///
    /// # Errors
    /// A schema error about the answer of `path`.
    pub fn require_list(&self, path: &str) -> Result<(), CliError> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(rename = "items")]
            _items: Vec<IgnoredAny>,
        }
        let is_page = || serde_json::from_str::<Page>(&self.0).is_ok();
        if self.0.trim_start().starts_with('[') || is_page() { Ok(()) } else { Err(wrong_shape(path, "a list")) }
    }

    /// The text as received.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// On one line.
    pub fn compact(&self) -> String {
        layout(&self.0, None)
    }

    /// Indented by two blanks.
    pub fn pretty(&self) -> String {
        layout(&self.0, Some(2))
    }
}

fn wrong_shape(path: &str, expected: &str) -> CliError {
    let path = path.split('?').next().unwrap_or_default();
    CliError::Schema { what: format!("the answer of {path}"), cause: format!("it is not {expected}") }
}

/// Rewrites the blanks of well-formed JSON and escapes what could act on a terminal.
fn layout(text: &str, indent: Option<usize>) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    let mut depth = 0usize;
    let mut in_string = false;
    let mut escaped = false;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        if in_string {
            push_in_string(&mut out, c);
            in_string = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            continue;
        }
        match c {
            ' ' | '\n' | '\r' | '\t' => {}
            '{' | '[' => {
                out.push(c);
                while characters.peek().is_some_and(|next| matches!(next, ' ' | '\n' | '\r' | '\t')) {
                    characters.next();
                }
                if let Some(close @ ('}' | ']')) = characters.peek().copied() {
                    out.push(close);
                    characters.next();
                } else {
                    depth += 1;
                    line_break(&mut out, indent, depth);
                }
            }
            '}' | ']' => {
                depth -= 1;
                line_break(&mut out, indent, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line_break(&mut out, indent, depth);
            }
            ':' => out.push_str(if indent.is_some() { ": " } else { ":" }),
            '"' => {
                in_string = true;
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    out
}

fn line_break(out: &mut String, indent: Option<usize>, depth: usize) {
    if let Some(indent) = indent {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', indent * depth));
    }
}

/// DEL and the C1 controls are legal inside a JSON string but steer terminals.
fn push_in_string(out: &mut String, c: char) {
    if c.is_control() {
        out.push_str(&format!("\\u{:04x}", u32::from(c)));
    } else {
        out.push(c);
    }
}

/// Text for a terminal: control characters other than line feed and tab are shown, not obeyed.
pub fn terminal_safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => out.push(c),
            // Bidirectional overrides can make text read as something else than it is.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.extend(c.escape_unicode()),
            _ if c.is_control() => out.extend(c.escape_default()),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        Document::parse(text.as_bytes().to_vec()).expect("well-formed")
    }

    #[test]
    fn layouts_agree_with_the_reference_serialiser() {
        for text in [
            "{}",
            "[]",
            " [ ] ",
            "{ \"a\" : { } , \"b\" : [ 1 , [ 2 ] , { \"c\" : null } ] }",
            "\"x\"",
            "-1.5e3",
            "true",
            r#"{"a":"q\"uote\\","b":"br{ace}s, [and] colons: inside","c":["\n"]}"#,
            "[[[]]]",
            "[{}]",
        ] {
            let value: serde_json::Value = serde_json::from_str(text).expect("well-formed");
            let compact = if text == "-1.5e3" { text.to_string() } else { value.to_string() };
            assert_eq!(document(text).compact(), compact);
            if text != "-1.5e3" {
                assert_eq!(document(text).pretty(), serde_json::to_string_pretty(&value).expect("a value"));
            }
        }
    }

    #[test]
    fn key_order_and_large_numbers_survive() {
        let text = r#"{"z":18446744073709551616,"a":0.10,"m":1E400}"#;
        assert_eq!(document(text).compact(), text);
    }

    #[test]
    fn control_characters_never_reach_the_terminal_raw() {
        assert_eq!(document("[\"a\u{7f}b\u{9b}31mc\"]").compact(), r#"["a\u007fb\u009b31mc"]"#);
        assert_eq!(terminal_safe("a\u{1b}[2Jb\r\u{9b}c\td\n\u{202e}e"), "a\\u{1b}[2Jb\\r\\u{9b}c\td\n\\u{202e}e");
    }

    #[test]
    fn what_is_no_single_document_is_refused() {
        for text in ["", "{", "{} {}", "<html>", "{\"a\":\"\u{1}\"}"] {
            assert!(Document::parse(text.as_bytes().to_vec()).is_err(), "{text:?}");
        }
        assert!(Document::parse(vec![b'"', 0xff, b'"']).is_err());
    }
}
