//! File patterns.
//! Owns: the translation of a glob into a regular expression, which is matched in linear time.
//! Never: matches across a `/` except by `**`.

use regex_lite::{Regex, RegexBuilder};

use super::error::ToolError;
use crate::limits::{TOOL_PATTERN_BYTES_MAX, TOOL_PATTERN_DEPTH_MAX};

/// A compiled glob.
#[derive(Debug)]
pub(super) struct Glob {
    regex: Regex,
    /// The pattern has no `/`: it is compared with the name alone.
    by_name: bool,
}

impl Glob {
    /// Reads a pattern.
    pub(super) fn new(pattern: &str, field: &str) -> Result<Self, ToolError> {
        let wrong = |cause: String| ToolError::Arguments {
            field: field.to_string(),
            cause,
            expected: "a file pattern such as src/**/*.rs".to_string(),
        };
        let trimmed = pattern.strip_prefix("./").unwrap_or(pattern);
        let regex = translate(trimmed).map_err(|cause| wrong(cause.to_string()))?;
        let regex = compile(&regex, false).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { regex, by_name: !trimmed.contains('/') })
    }

    /// Whether the file at `path` (relative to the base of the search) is meant.
    pub(super) fn matches(&self, path: &str) -> bool {
        let compared = if self.by_name { path.rsplit('/').next().unwrap_or(path) } else { path };
        self.regex.is_match(compared)
    }
}

/// Compiles a regular expression within the bounds.
pub(super) fn compile(pattern: &str, ignore_case: bool) -> Result<Regex, regex_lite::Error> {
    RegexBuilder::new(pattern)
        .size_limit(TOOL_PATTERN_BYTES_MAX)
        .nest_limit(TOOL_PATTERN_DEPTH_MAX)
        .case_insensitive(ignore_case)
        .build()
}

fn translate(pattern: &str) -> Result<String, &'static str> {
    let mut regex = String::from("(?s)^(?:");
    let mut chars = pattern.chars().peekable();
    let mut open_braces = 0u32;
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.peek() == Some(&'*') => {
                while chars.next_if_eq(&'*').is_some() {}
                if chars.next_if_eq(&'/').is_some() {
                    regex.push_str("(?:.*/)?");
                } else {
                    regex.push_str(".*");
                }
            }
            '*' => regex.push_str("[^/]*"),
            '?' => regex.push_str("[^/]"),
            '[' => class(&mut chars, &mut regex)?,
            '{' => {
                open_braces += 1;
                regex.push_str("(?:");
            }
            '}' if open_braces > 0 => {
                open_braces -= 1;
                regex.push(')');
            }
            ',' if open_braces > 0 => regex.push('|'),
            '\\' => regex.push_str(&regex_lite::escape(&chars.next().ok_or("it ends in a backslash")?.to_string())),
            other => regex.push_str(&regex_lite::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    if open_braces > 0 {
        return Err("a `{` is not closed");
    }
    regex.push_str(")$");
    Ok(regex)
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, regex: &mut String) -> Result<(), &'static str> {
    regex.push('[');
    if chars.next_if(|c| matches!(c, '!' | '^')).is_some() {
        // A class never stands for the separator.
        regex.push_str("^/");
    }
    let mut first = true;
    loop {
        match chars.next().ok_or("a `[` is not closed")? {
            ']' if !first => break,
            '/' => return Err("a `/` inside `[…]`"),
            '-' => regex.push('-'),
            '\\' => push_literal(regex, chars.next().ok_or("it ends in a backslash")?),
            other => push_literal(regex, other),
        }
        first = false;
    }
    regex.push(']');
    Ok(())
}

fn push_literal(regex: &mut String, c: char) {
    if c.is_ascii_punctuation() {
        regex.push('\\');
    }
    regex.push(c);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_mean_what_shells_mean() {
        type Case = (&'static str, &'static [&'static str], &'static [&'static str]);
        let cases: &[Case] = &[
            ("*.rs", &["a.rs", "src/a.rs", "src/b/.rs"], &["a.rsx", "rs", "a.rs/b"]),
            ("src/*.rs", &["src/a.rs"], &["a.rs", "src/b/a.rs", "xsrc/a.rs"]),
            ("src/**/*.rs", &["src/a.rs", "src/b/a.rs", "src/b/c/a.rs"], &["a.rs", "src.rs", "srcx/a.rs"]),
            ("**/a", &["a", "b/a", "b/c/a"], &["ba", "a/b"]),
            ("src/**", &["src/a", "src/b/c"], &["src", "xsrc/a"]),
            ("?.t[xa]t", &["a.txt", "d/é.tat"], &["ab.txt", "a.tbt", ".txt"]),
            ("[!a-c]", &["d", "x/z", "-"], &["a", "b", "dd"]),
            ("{a,b*}.{c,d}", &["a.c", "bxx.d"], &["c.a", "ab.c", "a.cd"]),
            ("./x", &["x", "y/x"], &[]),
            ("a+b(c).$", &["a+b(c).$"], &["aab(c).$", "a+bc."]),
            ("a\\*", &["a*"], &["ab"]),
            ("[]]", &["]"], &["[", "a"]),
            ("*", &["a\nb"], &[]),
        ];
        for (pattern, yes, no) in cases {
            let glob = Glob::new(pattern, "pattern").unwrap_or_else(|error| panic!("{pattern}: {error}"));
            for path in *yes {
                assert!(glob.matches(path), "{pattern} does not match {path:?}");
            }
            for path in *no {
                assert!(!glob.matches(path), "{pattern} matches {path:?}");
            }
        }
    }

    #[test]
    fn a_malformed_or_enormous_pattern_is_refused_by_its_field() {
        let nested = "{a,".repeat(500) + &"}".repeat(500);
        for pattern in ["[", "[a", "{a", "a\\", "[a/b]", "[z-a]", &nested] {
            match Glob::new(pattern, "glob") {
                Err(ToolError::Arguments { field, .. }) => assert_eq!(field, "glob"),
                other => panic!("{pattern}: {other:?}"),
            }
        }
    }
}
