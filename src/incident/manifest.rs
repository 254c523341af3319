//! The manifest: one line a file, as `sha256sum -c` reads it.
//! Owns: its form, and which paths may stand in it.
//! Never: follows a path out of the directory.

use ring::digest::{SHA256, digest};

use crate::hex::{parse_hex, to_hex};

/// The manifest's name.
pub const MANIFEST_FILE: &str = "MANIFEST.sha256";
/// The name of the daemon's signature under it.
pub const SIGNATURE_FILE: &str = "MANIFEST.signature.json";

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// Path below the directory, with `/`.
    pub path: String,
    /// SHA-256 in hex.
    pub sha256: String,
}

/// Why a manifest is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub cause: &'static str,
}

/// The text of a manifest, sorted by path.
pub fn render(mut lines: Vec<Line>) -> String {
    lines.sort();
    lines.iter().map(|line| format!("{}  {}\n", line.sha256, line.path)).collect()
}

/// Reads one back.
///
/// # Errors
/// The first line that is not of the form, leads out of the directory, or names a file twice.
pub fn parse(text: &str) -> Result<Vec<Line>, Malformed> {
    let mut lines: Vec<Line> = Vec::new();
    for (at, row) in text.lines().enumerate() {
        let fail = |cause| Malformed { line: at + 1, cause };
        let (sha256, path) = row.split_once("  ").ok_or_else(|| fail("it is not a digest, two blanks and a path"))?;
        if sha256.len() != 64 || parse_hex(sha256.as_bytes()).is_none() {
            return Err(fail("its digest is not 64 hex digits in lower case"));
        }
        if !is_inside(path) {
            return Err(fail("its path leads out of the directory"));
        }
        if lines.last().is_some_and(|last| last.path.as_str() >= path) {
            return Err(fail("its path is there twice or out of order"));
        }
        lines.push(Line { path: path.to_string(), sha256: sha256.to_string() });
    }
    Ok(lines)
}

/// Whether a path stays below the directory, whatever lies there.
pub fn is_inside(path: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part != "." && part != "..";
    !path.is_empty() && path.split('/').all(part) && !path.contains(['\0', '\n', '\r', '\\'])
}

/// SHA-256 of bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The same in hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    to_hex(&sha256(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(path: &str, sha256: &str) -> Line {
        Line { path: path.into(), sha256: sha256.into() }
    }

    #[test]
    fn a_manifest_is_read_back_as_it_was_made() {
        let (one, two) = ("1".repeat(64), "a".repeat(64));
        let lines = vec![line("runs/run-1/run.json", &two), line("a b.json", &one)];
        let text = render(lines);
        assert_eq!(text, format!("{one}  a b.json\n{two}  runs/run-1/run.json\n"));
        assert_eq!(parse(&text), Ok(vec![line("a b.json", &one), line("runs/run-1/run.json", &two)]));
        assert_eq!(parse(""), Ok(vec![]));
    }

    #[test]
    fn no_line_leads_out_of_the_directory_or_hides_another() {
        let good = "0".repeat(64);
        for (text, at) in [
            (format!("{good}  ../x\n"), 1),
            (format!("{good}  /etc/passwd\n"), 1),
            (format!("{good}  a/../../x\n"), 1),
            (format!("{good}  a//b\n"), 1),
            (format!("{good}  \n"), 1),
            (format!("{good} a\n"), 1),
            (format!("{}  a\n", "0".repeat(63)), 1),
            (format!("{}  a\n", "G".repeat(64)), 1),
            (format!("{good}  a\n{good}  a\n"), 2),
            (format!("{good}  b\n{good}  a\n"), 2),
            ("\n".to_string(), 1),
        ] {
            assert_eq!(parse(&text).map_err(|fault| fault.line), Err(at), "{text:?}");
        }
    }
}
