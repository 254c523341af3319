//! Request paths.
//! Owns: percent-encoding of every segment and query value.
//! Never: accepts a segment that a server could read as "this" or "the parent".

use std::fmt::Write;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but the unreserved characters of RFC 3986.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A path under construction.
#[derive(Debug, Clone)]
pub struct Path(String);

impl Path {
    /// Starts with text of ours, such as `/v1/runs`.
    pub fn new(base: &'static str) -> Self {
        Self(base.to_string())
    }

    /// Adds one segment with somebody else's text.
    pub fn segment(mut self, text: &str) -> Self {
        self.0.push('/');
        // A segment of dots only is an instruction, encoded or not; with its dots escaped it is at least
        // not resolved on the way, and the daemon answers 404.
        if !text.is_empty() && text.bytes().all(|b| b == b'.') {
            self.0.push_str(&"%2E".repeat(text.len()));
        } else {
            let _ = write!(self.0, "{}", utf8_percent_encode(text, ESCAPED));
        }
        self
    }

    /// Adds text of ours, such as `/events`.
    pub fn then(mut self, rest: &'static str) -> Self {
        self.0.push_str(rest);
        self
    }

    /// Adds a query parameter when there is a value.
    pub fn query(mut self, name: &'static str, value: Option<&str>) -> Self {
        if let Some(value) = value {
            let separator = if self.0.contains('?') { '&' } else { '?' };
            let _ = write!(self.0, "{separator}{name}={}", utf8_percent_encode(value, ESCAPED));
        }
        self
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_can_leave_its_segment_or_its_parameter() {
        let table = [
            ("run-1", "run-1"),
            ("slack:T1:C2", "slack%3AT1%3AC2"),
            ("a/b?c#d e%2F", "a%2Fb%3Fc%23d%20e%252F"),
            ("été", "%C3%A9t%C3%A9"),
            ("..", "%2E%2E"),
            ("", ""),
        ];
        for (text, encoded) in table {
            let path = Path::new("/v1/sessions").segment(text).then("/events").query("q", Some(text)).query("r", None);
            assert_eq!(
                path.as_str(),
                format!("/v1/sessions/{encoded}/events?q={}", if text == ".." { ".." } else { encoded })
            );
        }
    }
}
