//! Removing secrets from texts.
//! Owns: copies of the secrets to look for, in the encodings in which they turn up.
//! May touch: the text it is given.
//! Never: tells which secret was found, or where a text that it could not check came from.

use std::collections::VecDeque;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use super::wire::duplicate;
use crate::limits::{REDACTION_RETIRED_MAX, SECRET_BYTES_MIN};
use crate::redaction::MARK as REDACTED;
use crate::secret::Secret;

/// Secrets that were overwritten or deleted. They stay worth hiding: answers to requests that used them may
/// still arrive, and a vendor may still honour them.
#[derive(Debug, Default)]
pub(super) struct Retired(VecDeque<Secret>);

impl Retired {
    /// Keeps `secret`; the oldest of more than [`REDACTION_RETIRED_MAX`] is forgotten.
    pub(super) fn push(&mut self, secret: Secret) {
        if self.0.len() == REDACTION_RETIRED_MAX {
            self.0.pop_front();
        }
        self.0.push_back(secret);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Secret> {
        self.0.iter()
    }
}

/// Finds secrets raw, hexadecimal, base64 (both alphabets, also inside a longer base64 text), percent-encoded
/// and JSON-escaped. Immutable: a change of the secrets makes a new one.
#[derive(Debug, Default)]
pub(super) struct Redactor {
    /// Sorted by their bytes, without duplicates; each has at least [`SECRET_BYTES_MIN`] bytes.
    patterns: Vec<Secret>,
    /// Bytes of the longest pattern.
    longest: usize,
    heads: Heads,
}

/// Which two bytes patterns begin with, a bit for each pair: almost every position of a text is passed over by one look.
#[derive(Debug, Default)]
struct Heads(Vec<u64>);

impl Heads {
    fn new(patterns: &[Secret]) -> Self {
        if patterns.is_empty() {
            return Self::default();
        }
        let mut bits = vec![0; (1 << 16) / 64];
        for pattern in patterns {
            let pair = pair(pattern.expose());
            bits[pair / 64] |= 1 << (pair % 64);
        }
        Self(bits)
    }

    /// Whether a pattern may begin where `rest`, of at least two bytes, begins.
    fn may_begin(&self, rest: &[u8]) -> bool {
        let pair = pair(rest);
        self.0.get(pair / 64).is_some_and(|bits| bits >> (pair % 64) & 1 == 1)
    }
}

fn pair(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 8 | usize::from(bytes[1])
}

impl Redactor {
    pub(super) fn new<'a>(secrets: impl Iterator<Item = &'a Secret>) -> Self {
        let mut patterns: Vec<Secret> =
            secrets.flat_map(spellings).filter(|pattern| pattern.len() >= SECRET_BYTES_MIN).collect();
        patterns.sort_by(|one, other| one.expose().cmp(other.expose()));
        patterns.dedup_by(|one, other| one.expose() == other.expose());
        let longest = patterns.iter().map(Secret::len).max().unwrap_or(0);
        let heads = Heads::new(&patterns);
        Self { patterns, longest, heads }
    }

    /// Whether a secret stands in `text`.
    pub(super) fn contains(&self, text: &str) -> bool {
        !self.found(text).is_empty()
    }

    /// Bytes of the longest spelling of a secret.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// `text` with [`REDACTED`] in place of every secret.
    pub(super) fn redact(&self, text: &str) -> String {
        let found = self.found(text);
        if found.is_empty() { text.to_string() } else { replace_spans(text.as_bytes(), &found) }
    }

    /// How many bytes of `text` no continuation can make a part of a secret. The rest may be shown only together with
    /// what follows it.
    pub(super) fn settled(&self, text: &str) -> usize {
        if self.patterns.is_empty() {
            return text.len();
        }
        let bytes = text.as_bytes();
        let decodable = unfinished_escape(bytes);
        let mut settled = decodable.min(self.open_at(bytes));
        for decoded in [percent_decoded(&bytes[..decodable]), json_unescaped(&bytes[..decodable])] {
            settled = settled.min(decoded.positions[self.open_at(&decoded.bytes)]);
        }
        // Nor may a secret be cut in two because another one may begin inside it.
        for (start, end) in self.found(text).into_iter().rev() {
            if start < settled && settled < end {
                settled = start;
            }
        }
        (0..=settled).rev().find(|position| text.is_char_boundary(*position)).unwrap_or(0)
    }

    /// Where secrets stand in `text`, in order; they may overlap.
    fn found(&self, text: &str) -> Vec<(usize, usize)> {
        if self.patterns.is_empty() {
            return Vec::new();
        }
        let mut found = self.spans(text.as_bytes(), |position| position);
        if text.contains('%') {
            self.add_decoded(&percent_decoded(text.as_bytes()), &mut found);
        }
        if text.contains('\\') {
            self.add_decoded(&json_unescaped(text.as_bytes()), &mut found);
        }
        found.sort_unstable();
        found
    }

    fn add_decoded(&self, decoded: &Decoded, found: &mut Vec<(usize, usize)>) {
        found.extend(self.spans(&decoded.bytes, |position| decoded.positions[position]));
    }

    /// The first position from which `bytes` is the beginning of a pattern that goes on; their length when there is
    /// none.
    fn open_at(&self, bytes: &[u8]) -> usize {
        let first = (bytes.len() + 1).saturating_sub(self.longest);
        let is_open = |rest: &[u8]| {
            let from = self.patterns.partition_point(|pattern| pattern.expose() <= rest);
            self.patterns.get(from).is_some_and(|pattern| pattern.expose().starts_with(rest))
        };
        (first..bytes.len()).find(|position| is_open(&bytes[*position..])).unwrap_or(bytes.len())
    }

    /// Where patterns occur in `bytes`; `place` maps a position there to one in the original text.
    fn spans(&self, bytes: &[u8], place: impl Fn(usize) -> usize) -> Vec<(usize, usize)> {
        let mut spans = Vec::new();
        let mut position = 0;
        while position + SECRET_BYTES_MIN <= bytes.len() {
            let rest = &bytes[position..];
            if self.heads.may_begin(rest)
                && let Some(length) = self.longest_at(rest)
            {
                spans.push((place(position), place(position + length)));
            }
            // By one byte even after a find: secrets may overlap.
            position += 1;
        }
        spans
    }

    /// The length of the longest pattern that `rest` begins with.
    fn longest_at(&self, rest: &[u8]) -> Option<usize> {
        let head = &rest[..SECRET_BYTES_MIN];
        let first = self.patterns.partition_point(|pattern| &pattern.expose()[..SECRET_BYTES_MIN] < head);
        self.patterns[first..]
            .iter()
            .map(Secret::expose)
            .take_while(|pattern| &pattern[..SECRET_BYTES_MIN] == head)
            .filter(|pattern| rest.starts_with(pattern))
            .map(<[u8]>::len)
            .max()
    }
}

/// The byte sequences that give `secret` away.
fn spellings(secret: &Secret) -> Vec<Secret> {
    let mut all = vec![duplicate(secret), hex(secret, false), hex(secret, true)];
    for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        all.push(Secret::new(engine.encode(secret.expose()).into_bytes()));
        all.extend((0..3).map(|shift| base64_inside(secret, shift, &engine)));
    }
    all
}

fn hex(secret: &Secret, upper: bool) -> Secret {
    let mut text = String::with_capacity(2 * secret.len());
    for byte in secret.expose() {
        let written = if upper { write!(text, "{byte:02X}") } else { write!(text, "{byte:02x}") };
        written.expect("writing to a String cannot fail");
    }
    Secret::new(text.into_bytes())
}

/// The base64 characters that `secret` alone decides when it follows `shift` bytes (modulo 3) of other text,
/// such as the user name of basic authentication.
fn base64_inside(secret: &Secret, shift: usize, engine: &impl Engine) -> Secret {
    let mut padded = Zeroizing::new(Vec::with_capacity(shift + secret.len()));
    padded.resize(shift, 0);
    padded.extend_from_slice(secret.expose());
    let text = Zeroizing::new(engine.encode(&*padded));
    let (first, end) = ((8 * shift).div_ceil(6), 8 * padded.len() / 6);
    Secret::new(text.as_bytes()[first..end].to_vec())
}

/// A text with an encoding undone, and where each byte (and the end) stood in the original.
struct Decoded {
    bytes: Zeroizing<Vec<u8>>,
    positions: Vec<usize>,
}

/// What an encoded unit stands for.
enum Unit {
    Byte(u8),
    Char(char),
}

/// Undoes one encoding; `unit` reads an encoded unit and its length from the rest of the text.
fn decode(text: &[u8], unit: impl Fn(&[u8]) -> Option<(Unit, usize)>) -> Decoded {
    let mut decoded = Decoded {
        bytes: Zeroizing::new(Vec::with_capacity(text.len())),
        positions: Vec::with_capacity(text.len() + 1),
    };
    let mut position = 0;
    while position < text.len() {
        let before = decoded.bytes.len();
        let (value, length) = unit(&text[position..]).unwrap_or((Unit::Byte(text[position]), 1));
        match value {
            Unit::Byte(byte) => decoded.bytes.push(byte),
            Unit::Char(value) => decoded.bytes.extend_from_slice(value.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        decoded.positions.resize(decoded.positions.len() + decoded.bytes.len() - before, position);
        position += length;
    }
    decoded.positions.push(text.len());
    decoded
}

fn percent_decoded(text: &[u8]) -> Decoded {
    decode(text, |rest| match rest {
        [b'%', high, low, ..] => {
            let value = hex_digit(*high)? * 16 + hex_digit(*low)?;
            Some((Unit::Byte(value as u8), 3))
        }
        _ => None,
    })
}

fn json_unescaped(text: &[u8]) -> Decoded {
    decode(text, |rest| {
        let [b'\\', kind, tail @ ..] = rest else { return None };
        let plain = match kind {
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'"' | b'\\' | b'/' | b'\'' => char::from(*kind),
            b'u' => return unicode_escape(tail),
            _ => return None,
        };
        Some((Unit::Char(plain), 2))
    })
}

/// `XXXX` or, for a surrogate pair, `XXXX\uXXXX` after the first `\u`.
fn unicode_escape(tail: &[u8]) -> Option<(Unit, usize)> {
    let first = four_digits(tail)?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(first).map(|value| (Unit::Char(value), 6));
    }
    let [b'\\', b'u', second @ ..] = &tail[4..] else { return None };
    let second = four_digits(second).filter(|second| (0xdc00..0xe000).contains(second))?;
    char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)).map(|value| (Unit::Char(value), 12))
}

fn four_digits(text: &[u8]) -> Option<u32> {
    text.get(..4)?.iter().try_fold(0, |value, digit| Some(value * 16 + hex_digit(*digit)?))
}

/// Where an escape begins that the next bytes may complete; the length of the text when there is none.
fn unfinished_escape(text: &[u8]) -> usize {
    let is_unfinished = |escape: &[u8]| match escape {
        [b'%'] | [b'\\'] => true,
        [b'%', digit] => hex_digit(*digit).is_some(),
        [b'\\', b'u', tail @ ..] if tail.len() < 4 => tail.iter().all(|digit| hex_digit(*digit).is_some()),
        // The first half of a surrogate pair.
        [b'\\', b'u', tail @ ..] if tail.len() < 10 => {
            four_digits(tail).is_some_and(|first| (0xd800..0xdc00).contains(&first))
                && b"\\u".starts_with(&tail[4..tail.len().min(6)])
        }
        _ => false,
    };
    let first = text.len().saturating_sub(11);
    (first..text.len()).find(|position| is_unfinished(&text[*position..])).unwrap_or(text.len())
}

fn hex_digit(digit: u8) -> Option<u32> {
    char::from(digit).to_digit(16)
}

/// `spans` are sorted by their beginning and may overlap.
fn replace_spans(text: &[u8], spans: &[(usize, usize)]) -> String {
    let mut redacted = Vec::with_capacity(text.len());
    let mut done = 0;
    for &(start, end) in spans {
        if start >= done {
            redacted.extend_from_slice(&text[done..start]);
            redacted.extend_from_slice(REDACTED.as_bytes());
        }
        done = done.max(end);
    }
    redacted.extend_from_slice(&text[done..]);
    String::from_utf8_lossy(&redacted).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(secrets: &[&str]) -> Redactor {
        let secrets: Vec<_> = secrets.iter().map(|secret| Secret::new(secret.as_bytes().to_vec())).collect();
        Redactor::new(secrets.iter())
    }

    #[test]
    fn a_secret_is_found_in_every_spelling_in_which_it_turns_up() {
        let secret = "pa\"ss/w\u{f6}rd?~\n>>end";
        let redactor = redactor(&[secret, "sk-other-secret"]);
        let percent_all: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let percent_some: String = secret
            .bytes()
            .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).into() } else { format!("%{byte:02x}") })
            .collect();
        let json = serde_json::to_string(secret).unwrap();
        let json_ascii = json.replace('\u{f6}', "\\u00F6");
        for spelling in [
            secret.to_string(),
            percent_all,
            percent_some,
            json.trim_matches('"').to_string(),
            json_ascii.trim_matches('"').to_string(),
            secret.bytes().map(|byte| format!("{byte:02x}")).collect(),
            secret.bytes().map(|byte| format!("{byte:02X}")).collect(),
            STANDARD_NO_PAD.encode(secret),
            URL_SAFE_NO_PAD.encode(secret),
        ] {
            let text = format!("before \u{20ac} {spelling} after {spelling}");
            assert_eq!(redactor.redact(&text), "before \u{20ac} <redacted> after <redacted>", "{spelling}");
        }
    }

    #[test]
    fn a_secret_is_found_inside_a_longer_base64_text_at_every_alignment() {
        let secret = "sk-secret-?>~-key";
        let redactor = redactor(&[secret]);
        for user in ["", "u", "us", "use", "user"] {
            for after in ["", "x", "xy", "xyz"] {
                for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                    let encoded = engine.encode(format!("{user}{secret}{after}"));
                    let redacted = redactor.redact(&format!("Basic {encoded}"));
                    // What is left beside the mark are characters that the neighbours decide as well.
                    let left = redacted.replace(REDACTED, "").len() - "Basic ".len();
                    assert!(redacted.contains(REDACTED), "{user}:{after}: {redacted}");
                    let allowed = engine.encode(user).len() + engine.encode(after).len() + 2;
                    assert!(left <= allowed, "{user}:{after}: {redacted}");
                }
            }
        }
    }

    #[test]
    fn overlapping_and_nested_secrets_are_hidden_whole() {
        let redactor = redactor(&["abcdefghij", "abcdefghijklmnop", "ijklmnopqrst", "efghijkl"]);
        assert_eq!(redactor.redact("(abcdefghijklmnopqrst)"), "(<redacted>)");
        assert_eq!(redactor.redact("abcdefghij,abcdefghij"), "<redacted>,<redacted>");
        assert_eq!(redactor.redact("efghijklefghijkl"), "<redacted><redacted>");
    }

    #[test]
    fn a_text_without_a_secret_is_returned_as_it_was() {
        let redactor = redactor(&["sk-secret-key"]);
        for text in ["", "short", "100 % of \\ is fine %zz %4", "sk-secret-ke", "\\ud83d\\u0041", "\\u12", "k\u{f6}ln"]
        {
            assert_eq!(redactor.redact(text), text);
        }
        assert_eq!(Redactor::default().redact("anything at all"), "anything at all");
    }

    /// What a reader sees of a text that arrives in pieces.
    fn in_pieces(redactor: &Redactor, pieces: &[&str]) -> Vec<String> {
        let (mut shown, mut held) = (Vec::new(), String::new());
        for piece in pieces {
            held.push_str(piece);
            let settled = redactor.settled(&held);
            shown.push(redactor.redact(&held[..settled]));
            held.drain(..settled);
        }
        shown.push(redactor.redact(&held));
        shown
    }

    #[test]
    fn a_secret_that_arrives_in_pieces_is_hidden_however_it_is_cut() {
        let secret = "sk-s\u{f6}cret-\"key\"";
        let redactor = redactor(&[secret, "cret-other-secret"]);
        let percent: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let json = serde_json::to_string(&format!("{secret}\u{1f600}")).unwrap();
        let json_ascii = json.replace('\u{f6}', "\\u00F6");
        for spelling in [secret, &percent, json.trim_matches('"'), json_ascii.trim_matches('"')] {
            let text = format!("before {spelling} after");
            let whole = redactor.redact(&text);
            assert!(whole.starts_with("before <redacted>"), "{whole}");
            let characters: Vec<String> = text.chars().map(String::from).collect();
            let characters: Vec<&str> = characters.iter().map(String::as_str).collect();
            assert_eq!(in_pieces(&redactor, &characters).concat(), whole);
            for (at, _) in text.char_indices() {
                assert_eq!(in_pieces(&redactor, &[&text[..at], &text[at..]]).concat(), whole, "cut at {at}");
            }
        }
    }

    #[test]
    fn a_whole_secret_is_not_cut_where_another_one_may_begin_inside_it() {
        let redactor = redactor(&["abcdefghij", "ghijklmnopq"]);
        assert_eq!(in_pieces(&redactor, &["(abcdefghij", "x"]), ["(", "<redacted>x", ""]);
        assert_eq!(in_pieces(&redactor, &["(abcdefghij", "klmnopq)"]), ["(", "<redacted>)", ""]);
    }

    #[test]
    fn a_text_without_the_beginning_of_a_secret_is_not_held_back() {
        let redactor = redactor(&["sk-secret-key"]);
        assert_eq!(in_pieces(&redactor, &["Hello ", "ask me", " s", "o"]), ["Hello ", "ask me", " ", "so", ""]);
        assert_eq!(in_pieces(&Redactor::default(), &["100 %", "\\", "s"]), ["100 %", "\\", "s", ""]);
    }

    #[test]
    fn the_oldest_of_too_many_retired_secrets_is_forgotten() {
        let mut retired = Retired::default();
        for number in 0..=REDACTION_RETIRED_MAX {
            retired.push(Secret::new(format!("secret-number-{number}").into_bytes()));
        }
        let redactor = Redactor::new(retired.iter());
        assert_eq!(retired.iter().count(), REDACTION_RETIRED_MAX);
        assert_eq!(redactor.redact("secret-number-0 "), "secret-number-0 ");
        assert_eq!(redactor.redact("secret-number-256"), REDACTED);
    }

    #[test]
    fn no_debug_text_shows_a_pattern() {
        let mut retired = Retired::default();
        retired.push(Secret::new(b"canary-canary".to_vec()));
        let redactor = redactor(&["canary-canary"]);
        assert!(!format!("{retired:?} {redactor:?}").contains("canary"));
    }
}
