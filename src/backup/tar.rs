//! The archive's container: plain ustar, which every tar reads, in the one spelling that is written here.
//! Owns: the bytes before and behind a path's content.
//! Never: parses: a reader computes the same bytes from the manifest and compares, so that nothing can be hidden in a header.

use super::manifest::{Entry, Kind};

/// Everything is a multiple of this.
pub(super) const BLOCK: u64 = 512;
/// Two blocks of NUL bytes end an archive.
pub(super) const END: [u8; 2 * BLOCK as usize] = [0; 2 * BLOCK as usize];
/// What the size field of a header can tell.
const SIZE_FIELD_LARGEST: u64 = 0o77_777_777_777;
const NAME_FIELD_BYTES: usize = 100;

/// The header blocks of an entry, with an extended header where a name or size needs one.
pub(super) fn header(entry: &Entry, at_ms: u64) -> Vec<u8> {
    let path = if entry.kind == Kind::Directory { format!("{}/", entry.path) } else { entry.path.clone() };
    let target = entry.target.as_deref().unwrap_or_default();
    let mut extended = Vec::new();
    if path.len() > NAME_FIELD_BYTES || !path.is_ascii() {
        extended.extend(record("path", &path));
    }
    if target.len() > NAME_FIELD_BYTES || !target.is_ascii() {
        extended.extend(record("linkpath", target));
    }
    if entry.bytes > SIZE_FIELD_LARGEST {
        extended.extend(record("size", &entry.bytes.to_string()));
    }
    let mut blocks = Vec::new();
    if !extended.is_empty() {
        let size = extended.len() as u64;
        blocks.extend(block("kheish-extended-header", 0o600, size, at_ms, b'x', ""));
        blocks.extend_from_slice(&extended);
        blocks.resize(blocks.len() + padding(size), 0);
    }
    let kind = match entry.kind {
        Kind::File => b'0',
        Kind::Directory => b'5',
        Kind::Link => b'2',
    };
    blocks.extend(block(&path, entry.mode, entry.bytes.min(SIZE_FIELD_LARGEST), at_ms, kind, target));
    blocks
}

/// NUL bytes behind a content of `bytes` bytes.
pub(super) fn padding(bytes: u64) -> usize {
    ((BLOCK - bytes % BLOCK) % BLOCK) as usize
}

/// A record of an extended header: its own length, the key and the value.
fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length.to_string().len() + rest.len() != length {
        length = length.to_string().len() + rest.len();
    }
    format!("{length}{rest}").into_bytes()
}

fn block(name: &str, mode: u32, size: u64, at_ms: u64, kind: u8, target: &str) -> [u8; BLOCK as usize] {
    let mut block = [0; BLOCK as usize];
    let mut put = |at: usize, length: usize, bytes: &[u8]| {
        let length = bytes.len().min(length);
        block[at..at + length].copy_from_slice(&bytes[..length]);
    };
    put(0, NAME_FIELD_BYTES, name.as_bytes());
    put(100, 8, format!("{mode:07o}\0").as_bytes());
    put(108, 8, b"0000000\0");
    put(116, 8, b"0000000\0");
    put(124, 12, format!("{size:011o}\0").as_bytes());
    put(136, 12, format!("{:011o}\0", at_ms / 1_000).as_bytes());
    put(148, 8, b"        ");
    put(156, 1, &[kind]);
    put(157, NAME_FIELD_BYTES, target.as_bytes());
    put(257, 8, b"ustar\x0000");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;
    use crate::state_root::scratch::Scratch;

    #[test]
    fn the_hosts_tar_unpacks_what_is_written() {
        if Command::new("tar").arg("--version").output().is_err() {
            return;
        }
        let scratch = Scratch::new("backup-tar");
        let long = format!("d/{}", "n".repeat(180));
        let entry = |path: &str, kind, bytes: u64, target: Option<&str>| Entry {
            path: path.into(),
            kind,
            bytes,
            mode: 0o600 | if kind == Kind::Directory { 0o700 } else { 0 },
            sha256: None,
            target: target.map(str::to_string),
        };
        let entries = [
            (entry("d", Kind::Directory, 0, None), Vec::new()),
            (entry("d/a", Kind::File, 3, None), b"abc".to_vec()),
            (entry(&long, Kind::File, 512, None), vec![7; 512]),
            (entry("d/\u{e9}", Kind::File, 0, None), Vec::new()),
            (entry("d/l", Kind::Link, 0, Some("a")), Vec::new()),
        ];
        let mut archive = Vec::new();
        for (entry, content) in &entries {
            archive.extend(header(entry, 1_764_057_600_000));
            archive.extend_from_slice(content);
            archive.resize(archive.len() + padding(entry.bytes), 0);
        }
        archive.extend_from_slice(&END);
        let path = scratch.path().join("a.tar");
        fs::write(&path, archive).unwrap();
        let done = Command::new("tar").arg("-C").arg(scratch.path()).arg("-xf").arg(&path).output().unwrap();
        assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
        for (entry, content) in entries.iter().filter(|(entry, _)| entry.kind == Kind::File) {
            assert_eq!(&fs::read(scratch.path().join(&entry.path)).unwrap(), content, "{}", entry.path);
        }
        assert_eq!(fs::read_link(scratch.path().join("d/l")).unwrap().to_str(), Some("a"));
    }
}
