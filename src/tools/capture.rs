//! Output of a command, bounded: its beginning and its end.
//! Owns: what is kept of a stream and the note where something is missing.
//! Never: grows with the output; loses count of it.

use std::collections::VecDeque;

use super::output::{cut_escaped, cut_escaped_tail};

/// The beginning and the end of a stream of any length.
#[derive(Debug)]
pub(super) struct Capture {
    head: Vec<u8>,
    head_bytes_max: usize,
    tail: VecDeque<u8>,
    tail_bytes_max: usize,
    total: u64,
}

impl Capture {
    /// Keeps up to `head_bytes_max` bytes from the beginning and `tail_bytes_max` from the end.
    pub(super) fn new(head_bytes_max: usize, tail_bytes_max: usize) -> Self {
        Self { head: Vec::new(), head_bytes_max, tail: VecDeque::new(), tail_bytes_max, total: 0 }
    }

    /// Takes in what came next.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let room = self.head_bytes_max - self.head.len();
        let (head, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(head);
        let rest = &rest[rest.len().saturating_sub(self.tail_bytes_max)..];
        let overfull = (self.tail.len() + rest.len()).saturating_sub(self.tail_bytes_max);
        self.tail.drain(..overfull);
        self.tail.extend(rest);
    }

    /// Bytes that came.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// What came last, at most `bytes_max` bytes of it.
    pub(super) fn end(&self, bytes_max: usize) -> Vec<u8> {
        let mut end: Vec<u8> = self.tail.iter().rev().take(bytes_max).copied().collect();
        if self.total == (self.head.len() + self.tail.len()) as u64 {
            end.extend(self.head.iter().rev().take(bytes_max - end.len()));
        }
        end.reverse();
        end
    }

    /// Everything that was kept, as text, with a note where something is missing.
    pub(super) fn kept(&self) -> String {
        let kept = self.head.len() + self.tail.len();
        let mut text = String::from_utf8_lossy(&self.head).into_owned();
        if self.total > kept as u64 {
            text.push_str(&note(self.total - kept as u64));
        }
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        if self.total > kept as u64 {
            text.push_str(&String::from_utf8_lossy(&tail));
        } else if !tail.is_empty() {
            // Nothing is missing: a character may stand across the two parts.
            let whole = [self.head.as_slice(), tail.as_slice()].concat();
            return String::from_utf8_lossy(&whole).into_owned();
        }
        text
    }

    /// The text for the model, at most `escaped_bytes_max` bytes inside JSON, and whether something is missing in it.
    pub(super) fn shown(&self, escaped_bytes_max: usize) -> (String, bool) {
        let kept = self.kept();
        let missing = self.total > (self.head.len() + self.tail.len()) as u64;
        if super::output::escaped_bytes(&kept) <= escaped_bytes_max {
            return (kept, missing);
        }
        let half = escaped_bytes_max.saturating_sub(64) / 2;
        let (head, tail) = (cut_escaped(&kept, half), cut_escaped_tail(&kept, half));
        let shown = (head.len() + tail.len()) as u64;
        (format!("{head}{}{tail}", note(self.total.saturating_sub(shown))), true)
    }
}

fn note(bytes: u64) -> String {
    format!("\n[… {bytes} bytes left out …]\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_stream_is_kept_whole_however_it_arrives() {
        let text = "é".repeat(40);
        for step in 1..7 {
            let mut capture = Capture::new(31, 64);
            text.as_bytes().chunks(step).for_each(|chunk| capture.push(chunk));
            assert_eq!(capture.shown(10_000), (text.clone(), false), "step {step}");
            assert_eq!(capture.total(), 80);
            assert_eq!(capture.end(60), text.as_bytes()[20..]);
            assert_eq!(capture.end(1_000), text.as_bytes());
        }
    }

    #[test]
    fn a_long_stream_keeps_its_two_ends_and_says_how_much_is_missing() {
        for step in [1, 7, 1_000, 100_000] {
            let stream: Vec<u8> = (0..100_000).map(|n| b'a' + (n / 1_000 % 26) as u8).collect();
            let mut capture = Capture::new(1_000, 500);
            stream.chunks(step).for_each(|chunk| capture.push(chunk));
            let expected = format!("{}\n[… 98500 bytes left out …]\n{}", "a".repeat(1_000), "v".repeat(500));
            assert_eq!(capture.kept(), expected, "step {step}");
            assert_eq!(capture.end(10), [b'v'; 10]);
            assert_eq!(capture.end(10_000), [b'v'; 500]);
            let (shown, missing) = capture.shown(264);
            assert_eq!(shown, format!("{}\n[… 99800 bytes left out …]\n{}", "a".repeat(100), "v".repeat(100)));
            assert!(missing);
        }
    }

    #[test]
    fn bytes_that_are_no_text_stay_within_the_bound() {
        let mut capture = Capture::new(50_000, 50_000);
        capture.push(&[0; 100_000]);
        let (shown, missing) = capture.shown(6_000);
        let escaped = serde_json::to_string(&shown).unwrap().len();
        assert!(missing && escaped < 6_100, "{escaped}");
    }
}
