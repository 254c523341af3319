//! Secrets in all their spellings, and the search for them: in bytes, below a folder, in the command line and environment of
//! processes. Owns: the list of encodings. Never: prints a secret's surroundings without saying where.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// A secret in all its spellings: raw, JSON-escaped, hexadecimal, base64 at every alignment, percent-encoded.
pub struct Needles(Vec<(String, Vec<u8>)>);

impl Needles {
    /// Of these, by name.
    pub fn new(planted: &[(&str, &str)]) -> Self {
        let mut all = Vec::new();
        for (name, secret) in planted {
            let mut add = |encoding: &str, bytes: Vec<u8>| all.push((format!("{name} ({encoding})"), bytes));
            let bytes = secret.as_bytes();
            add("raw", bytes.to_vec());
            add("JSON", serde_json::to_string(secret).unwrap().trim_matches('"').as_bytes().to_vec());
            add("hex", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes());
            add("HEX", bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>().into_bytes());
            for shift in 0..3 {
                for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                    let padded = [&vec![0; shift][..], bytes].concat();
                    let text = engine.encode(&padded);
                    let (first, end) = ((8 * shift).div_ceil(6), 8 * padded.len() / 6);
                    add("base64", text.as_bytes()[first..end].to_vec());
                }
            }
            let escape = |byte: &u8, is_plain: bool| match is_plain {
                true => char::from(*byte).to_string(),
                false => format!("%{byte:02X}"),
            };
            add(
                "URL",
                bytes.iter().map(|byte| escape(byte, byte.is_ascii_alphanumeric())).collect::<String>().into_bytes(),
            );
            let unreserved = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
            add("URL", bytes.iter().map(|byte| escape(byte, unreserved(byte))).collect::<String>().into_bytes());
        }
        Self(all)
    }

    /// None of them stands there.
    pub fn assert_absent(&self, place: &str, haystack: &[u8]) {
        // Few places begin like any of them.
        let pair = |bytes: &[u8]| usize::from(bytes[0]) << 8 | usize::from(bytes[1]);
        let mut begins = vec![false; 1 << 16];
        self.0.iter().for_each(|(_, needle)| begins[pair(needle)] = true);
        let places: Vec<usize> =
            (1..haystack.len()).map(|at| at - 1).filter(|at| begins[pair(&haystack[*at..])]).collect();
        for (name, needle) in &self.0 {
            let found = places.iter().copied().find(|at| haystack[*at..].starts_with(needle));
            assert!(found.is_none(), "{place} holds the {name} at byte {found:?}: {}", around(haystack, found));
        }
    }

    /// None of them stands in a file below `folder`; how many there are.
    pub fn assert_absent_below(&self, folder: &Path) -> usize {
        let mut files = 0;
        for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files += self.assert_absent_below(&path);
            } else if path.is_file() {
                let bytes = fs::read(&path).unwrap();
                // The rest of a segment is empty.
                let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                self.assert_absent(&path.display().to_string(), &bytes[..end]);
                files += 1;
            }
        }
        files
    }
}

fn around(haystack: &[u8], found: Option<usize>) -> String {
    let at = found.unwrap_or(0);
    let part = &haystack[at.saturating_sub(120)..(at + 60).min(haystack.len())];
    String::from_utf8_lossy(part).into_owned()
}

/// Command line and environment of a process and of everything below it; how many there are. `knows` tells which process is
/// given what by design, by its command line.
pub fn assert_processes_are_clean(root: u32, planted: &[(&str, &str)], knows: impl Fn(&str, &str) -> bool) -> usize {
    let mut below = vec![root];
    let mut at = 0;
    while at < below.len() {
        let pid = below[at];
        at += 1;
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            below.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        Needles::new(planted).assert_absent(&format!("/proc/{pid}/cmdline"), &words);
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        let others: Vec<_> = planted.iter().copied().filter(|(name, _)| !knows(&words, name)).collect();
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        Needles::new(&others).assert_absent(&format!("/proc/{pid}/environ of {words}"), &environment);
    }
    below.len()
}
