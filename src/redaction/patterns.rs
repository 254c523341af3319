//! The shapes of keys and tokens.
//! Owns: which texts count as one whatever the broker knows.
//! Never: looks anything up.

use super::MARK;
use crate::limits::{REDACTION_KEY_BYTES_MIN, REDACTION_OPEN_BYTES_MAX};

/// How vendors' keys begin.
const PREFIXES: [&str; 12] =
    ["sk-", "ghp_", "gho_", "ghs_", "github_pat_", "glpat-", "xoxb-", "xoxp-", "xoxa-", "AKIA", "AIza", "xai-"];
const PEM_BEGIN: &str = "-----BEGIN ";
/// The shortest beginning of a key that is taken for one.
const PEM_MATERIAL_BYTES_MIN: usize = 4;
const PEM_KEY: &str = "PRIVATE KEY-----";
const PEM_END: &str = "-----END ";
const BEARER: &str = "bearer ";

/// Names whose value is masked in a log line; a name counts when it is one of these or ends in `_` and one.
const SECRET_NAMES: [&str; 12] = [
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "api_key",
    "apikey",
    "api-key",
    "private_key",
    "authorization",
    "credential",
    "master_key",
];

/// `text` with every vendor key, bearer token, JSON web token and private-key block masked. Nothing else is changed, so it
/// is fit for a model's words and for JSON.
pub fn mask_keys(text: &str) -> String {
    mask(text, &key_spans(text))
}

/// As [`mask_keys`], and the values of everything with a secret's name too: for a log line, where a word too many costs
/// little.
pub fn mask_line(text: &str) -> String {
    let mut spans = key_spans(text);
    spans.extend(named_spans(text));
    spans.sort_unstable();
    mask(text, &spans)
}

/// How many bytes of a text that goes on no continuation can make a part of a key.
pub fn settled(text: &str) -> usize {
    let bytes = text.as_bytes();
    let run = bytes.iter().rposition(|byte| is_delimiter(*byte)).map_or(0, |at| at + 1);
    let mut settled = text.len();
    if may_become_key(&text[run..]) {
        settled = run;
    }
    // The word before may announce that a token follows.
    let word = text[..run].trim_end();
    if run > 0 && word.len() + 1 == run && ends_with_ignoring_case(word, "bearer") {
        settled = settled.min(word.len() - "bearer".len());
    } else if "bearer".starts_with(&text[run..].to_ascii_lowercase()) && run < text.len() {
        settled = settled.min(run);
    }
    if let Some(begin) = text.rfind(PEM_BEGIN)
        && pem_end(&text[begin..]).is_none()
        && text.len() - begin < REDACTION_OPEN_BYTES_MAX
    {
        settled = settled.min(begin);
    }
    // A run without end is a key of nobody.
    if text.len() - settled > REDACTION_OPEN_BYTES_MAX { text.len() } else { settled }
}

fn may_become_key(run: &str) -> bool {
    !run.is_empty()
        && (PREFIXES.iter().chain(&["eyJ", PEM_BEGIN]).any(|prefix| run.starts_with(prefix) || prefix.starts_with(run)))
}

/// One pass that looks further only where a shape may begin: this runs over everything that callers and models say.
fn key_spans(text: &str) -> Vec<(usize, usize)> {
    let mut spans = Vec::new();
    let mut has_pem = false;
    let bytes = text.as_bytes();
    for (start, pair) in bytes.windows(2).enumerate() {
        let rest = &bytes[start..];
        // The second byte decides: of the first ones ordinary words are full.
        match pair {
            b"ey" if rest.starts_with(b"eyJ") => spans.extend(web_token(text, start)),
            b"be" | b"BE" | b"Be" | b"bE" => spans.extend(bearer_token(text, start)),
            b"--" => has_pem |= rest.starts_with(PEM_BEGIN.as_bytes()),
            b"sk" | b"gh" | b"gi" | b"gl" | b"xo" | b"xa" | b"AK" | b"AI" => spans.extend(vendor_key(text, start)),
            _ => {}
        }
    }
    if has_pem {
        spans.extend(pem_spans(text));
        spans.sort_unstable();
    }
    spans
}

/// The vendor's key at `start`, if one of the prefixes stands there as the beginning of a word.
fn vendor_key(text: &str, start: usize) -> Option<(usize, usize)> {
    let rest = &text.as_bytes()[start..];
    if !PREFIXES.iter().any(|prefix| rest.starts_with(prefix.as_bytes())) || !begins_word(text, start) {
        return None;
    }
    let end = run_end(text, start);
    (end - start >= REDACTION_KEY_BYTES_MIN).then_some((start, end))
}

/// The JSON web token at `start`, where `eyJ` stands.
fn web_token(text: &str, start: usize) -> Option<(usize, usize)> {
    let token = text[start..run_end(text, start)].trim_end_matches('.');
    let parts: Vec<&str> = token.split('.').collect();
    let is_token = parts.len() == 3 && parts.iter().all(|part| part.len() >= 8 && part.bytes().all(is_base64url));
    (begins_word(text, start) && is_token).then_some((start, start + token.len()))
}

/// The value behind the word `bearer` at `start`.
fn bearer_token(text: &str, start: usize) -> Option<(usize, usize)> {
    if !begins_with_ignoring_case(&text.as_bytes()[start..], BEARER) {
        return None;
    }
    let value = start + BEARER.len();
    let end = run_end(text, value);
    (end - value >= REDACTION_KEY_BYTES_MIN).then_some((value, end))
}

/// Where the block that `block` begins with ends.
fn pem_end(block: &str) -> Option<usize> {
    let end = block.find(PEM_END)? + PEM_END.len();
    Some(end + block[end..].find("-----")? + 5)
}

fn pem_spans(text: &str) -> Vec<(usize, usize)> {
    let mut spans = Vec::new();
    for start in occurrences(text, PEM_BEGIN) {
        let label = &text[start + PEM_BEGIN.len()..];
        let Some(at) = label.find("-----").filter(|at| *at < 64) else { continue };
        if !label[..at + 5].ends_with(PEM_KEY) {
            continue;
        }
        let rest = &text[start..];
        match pem_end(rest) {
            Some(end) => spans.push((start, start + end)),
            // Without an end all that follows belongs to it, up to the end of the JSON string that it may stand in. The bare
            // words, as in a search for keys, are no key.
            None if holds_material(&label[at + 5..]) => {
                let end = rest.find('"').map_or(text.len(), |quote| start + rest[..quote].trim_end_matches('\\').len());
                spans.push((start, end));
            }
            None => {}
        }
    }
    spans
}

/// Whether key material follows a header on the next line, or on the same one as much as no word has.
fn holds_material(behind: &str) -> bool {
    let (mut body, mut is_next_line) = (behind, false);
    while let Some((blank, rest)) =
        ["\\r", "\\n", "\r", "\n", " ", "\t"].iter().find_map(|blank| Some((blank, body.strip_prefix(blank)?)))
    {
        is_next_line |= blank.ends_with(['n', '\n']);
        body = rest;
    }
    let is_material = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-');
    let least = if is_next_line { PEM_MATERIAL_BYTES_MIN } else { REDACTION_KEY_BYTES_MIN };
    body.bytes().take_while(is_material).count() >= least
}

/// Values behind `name=`, `name: `, `"name":"` and the like.
fn named_spans(text: &str) -> Vec<(usize, usize)> {
    let mut spans = Vec::new();
    for (start, byte) in text.bytes().enumerate() {
        if matches!(byte | 0x20, b't' | b's' | b'p' | b'a' | b'c' | b'm') {
            let names = SECRET_NAMES.iter().filter(|name| begins_with_ignoring_case(&text.as_bytes()[start..], name));
            spans.extend(names.filter_map(|name| named_value(text, start, start + name.len())));
        }
    }
    spans
}

/// The value of the name that stands from `start` to `end`.
fn named_value(text: &str, start: usize, end: usize) -> Option<(usize, usize)> {
    let is_name = start == 0 || !text.as_bytes()[start - 1].is_ascii_alphanumeric();
    let rest = text[end..].trim_start_matches(['"', '\'', '\\']);
    let after = rest.trim_start_matches(' ');
    let value = after.strip_prefix(['=', ':']).filter(|_| is_name)?;
    let value = value.trim_start_matches([' ', '"', '\'', '\\']);
    let begin = text.len() - value.len();
    let stop = run_end(text, begin);
    let is_value =
        stop > begin && !text[begin..].starts_with(MARK) && !ends_with_ignoring_case(&text[begin..stop], "bearer");
    is_value.then_some((begin, stop))
}

fn begins_with_ignoring_case(bytes: &[u8], word: &str) -> bool {
    bytes.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word.as_bytes()))
}

fn occurrences<'a>(text: &'a str, what: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(what).map(|(at, _)| at)
}

fn begins_word(text: &str, at: usize) -> bool {
    text[..at].chars().next_back().is_none_or(|before| !before.is_alphanumeric() && before != '-' && before != '_')
}

/// Where the run of characters that a key can have ends.
fn run_end(text: &str, start: usize) -> usize {
    text.as_bytes()[start..].iter().position(|byte| is_delimiter(*byte)).map_or(text.len(), |length| start + length)
}

fn is_delimiter(byte: u8) -> bool {
    byte.is_ascii_whitespace()
        || byte.is_ascii_control()
        || byte >= 0x80
        || matches!(
            byte,
            b'"' | b'\'' | b'`' | b',' | b';' | b'(' | b')' | b'[' | b']' | b'{' | b'}' | b'<' | b'>' | b'\\' | b'&'
        )
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

fn ends_with_ignoring_case(text: &str, end: &str) -> bool {
    text.len() >= end.len() && text.as_bytes()[text.len() - end.len()..].eq_ignore_ascii_case(end.as_bytes())
}

/// `spans` are sorted by their beginning and may overlap.
fn mask(text: &str, spans: &[(usize, usize)]) -> String {
    if spans.is_empty() {
        return text.to_string();
    }
    let mut masked = String::with_capacity(text.len());
    let mut done = 0;
    for &(start, end) in spans {
        if start >= done {
            masked.push_str(&text[done..start]);
            masked.push_str(MARK);
        }
        done = done.max(end);
    }
    masked.push_str(&text[done..]);
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 9] = [
        "sk-proj-abcdefghijklmnop1234",
        "sk-ant-api03-abcdefghijklmnop",
        "ghp_abcdefghijklmnopqrstuvwxyz012345",
        "github_pat_11ABCDEFG0abcdefghijkl",
        "xoxb-123456789012-abcdefghijkl",
        "AKIAIOSFODNN7EXAMPLE",
        "AIzaSyA-1234567890abcdefghijklmnop",
        "xai-abcdefghijklmnopqrstuvwx",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",
    ];

    #[test]
    fn every_vendors_key_is_masked_wherever_it_stands_and_nothing_beside_it() {
        for key in KEYS {
            for (before, after) in
                [("", ""), ("key ", " end"), ("{\"k\":\"", "\"}"), ("(", ")"), ("a=", "&b=1"), ("\u{20ac}", "\u{20ac}")]
            {
                assert_eq!(mask_keys(&format!("{before}{key}{after}")), format!("{before}{MARK}{after}"), "{key}");
            }
        }
        assert_eq!(mask_keys("Authorization: Bearer abcdefghijklmnopqrstuvwx"), "Authorization: Bearer <redacted>");
        let pem = "-----BEGIN RSA PRIVATE KEY-----\\nMIIB\n-----END RSA PRIVATE KEY-----";
        assert_eq!(mask_keys(&format!("a {pem} b")), "a <redacted> b");
        assert_eq!(mask_keys("x -----BEGIN PRIVATE KEY-----\nMIIB and no end"), "x <redacted>");
        // Encrypted ones have headers of their own.
        let encrypted = "x -----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIB";
        assert_eq!(mask_keys(encrypted), "x <redacted>");
        // The words alone are no key, and a key never ends the JSON that it stands in.
        for words in [
            r#"{"command":"grep -rl -- '-----BEGIN RSA PRIVATE KEY-----' ."}"#,
            "the file begins with `-----BEGIN RSA PRIVATE KEY-----`",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
        ] {
            assert_eq!(mask_keys(words), words);
        }
        let cut = r#"{"a":"-----BEGIN PRIVATE KEY-----\nMIIBVgIBADANBg\"","b":1}"#;
        assert_eq!(mask_keys(cut), r#"{"a":"<redacted>\"","b":1}"#);
    }

    #[test]
    fn words_that_only_look_a_little_like_a_key_stay() {
        for text in [
            "risk-free",
            "sk-learn",
            "task-abcdefghijklmnopqrstuvwxyz",
            "AKIA",
            "eyJ",
            "eyJhbGci.short.x",
            "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
            "bearer of good news",
            "password is a word",
            "a token of thanks",
            "",
        ] {
            assert_eq!(mask_keys(text), text);
        }
        for text in ["the token was loaded from /run/x, fingerprint 2d711642", "token 2d711642", "secret slots: 3"] {
            assert!(mask_line(text).contains("2d711642") || mask_line(text).contains("slots"), "{text}");
        }
    }

    #[test]
    fn a_log_line_loses_the_values_of_secret_names() {
        for (line, masked) in [
            ("api_key=hunter2 next", "api_key=<redacted> next"),
            ("{\"password\": \"hunter2\", \"n\": 1}", "{\"password\": \"<redacted>\", \"n\": 1}"),
            ("client_secret: hunter2", "client_secret: <redacted>"),
            ("GET /x?access_token=hunter2&y=1", "GET /x?access_token=<redacted>&y=1"),
        ] {
            assert_eq!(mask_line(line), masked);
        }
    }

    #[test]
    fn a_key_that_arrives_in_pieces_is_never_shown_in_part() {
        for key in KEYS.into_iter().chain(["-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----"]) {
            let whole = format!("before {key} after");
            for size in 1..9 {
                let (mut held, mut shown) = (String::new(), String::new());
                for piece in whole.as_bytes().chunks(size) {
                    held.push_str(std::str::from_utf8(piece).unwrap());
                    let settled = settled(&held);
                    shown.push_str(&mask_keys(&held[..settled]));
                    held.drain(..settled);
                }
                shown.push_str(&mask_keys(&held));
                assert_eq!(shown, format!("before {MARK} after"), "{key} in pieces of {size}");
            }
        }
    }

    /// The shapes, each searched by itself, as a check of the single pass.
    fn shape_by_shape(text: &str) -> Vec<(usize, usize)> {
        let mut spans = Vec::new();
        for prefix in PREFIXES {
            spans.extend(occurrences(text, prefix).filter_map(|start| {
                let end = run_end(text, start);
                (begins_word(text, start) && end - start >= REDACTION_KEY_BYTES_MIN).then_some((start, end))
            }));
        }
        spans.extend(occurrences(text, "eyJ").filter_map(|start| web_token(text, start)));
        let lower = text.to_ascii_lowercase();
        spans.extend(occurrences(&lower, BEARER).filter_map(|start| bearer_token(text, start)));
        spans.extend(pem_spans(text));
        spans.sort_unstable();
        spans
    }

    #[test]
    fn one_pass_finds_what_a_search_for_each_shape_finds() {
        let pieces = [
            " ",
            "\"",
            "a",
            "-",
            "_",
            "\u{20ac}",
            "s",
            "sk",
            "sk-",
            "Bearer ",
            "BEARER ",
            "bear",
            "eyJ",
            "e",
            "AKIA",
            "A",
            "gh",
            "ghp_",
            "xox",
            "xoxb-",
            "abcdefghijklmnopqrst",
            "0123456789.0123456789.0123456789",
            "-----BEGIN ",
            "-----BEGIN RSA PRIVATE KEY-----",
            "-----END RSA PRIVATE KEY-----",
            "\\",
        ];
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut found = 0;
        for round in 0..20_000 {
            let mut text = String::new();
            for _ in 0..round % 12 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                text.push_str(pieces[(random % pieces.len() as u64) as usize]);
            }
            let spans = key_spans(&text);
            assert_eq!(spans, shape_by_shape(&text), "{text:?}");
            found += spans.len();
        }
        assert!(found > 1_000, "only {found} keys were made");
    }
}
