//! What a medium keeps of writes and directory operations that were not synced.
//! Owns: the model of loss and tearing, and the seeded generator that decides.
//! Never: knows a path, a handle or a fault.

use std::collections::BTreeMap;

use crate::journal::disk::Identity;

const SECTOR: u64 = 512;

#[derive(Clone)]
pub(super) struct Directory {
    pub identity: Identity,
    pub seen: BTreeMap<String, u64>,
    pub durable: BTreeMap<String, u64>,
    pub unsynced: Vec<DirectoryOp>,
}

#[derive(Clone)]
pub(super) enum DirectoryOp {
    Link { name: String, file: u64 },
    Unlink { name: String, file: u64 },
    Rename { from: String, to: String, file: u64 },
}

impl DirectoryOp {
    pub fn file(&self) -> u64 {
        match self {
            Self::Link { file, .. } | Self::Unlink { file, .. } | Self::Rename { file, .. } => *file,
        }
    }
}

#[derive(Clone, Default)]
pub(super) struct FileState {
    pub seen: Vec<u8>,
    pub durable: Vec<u8>,
    pub unsynced: Vec<FileOp>,
}

#[derive(Clone)]
pub(super) enum FileOp {
    Write { offset: u64, bytes: Vec<u8> },
    Grow { bytes: u64 },
    Cut { bytes: u64 },
}

pub(super) fn apply(bytes: &mut Vec<u8>, op: &FileOp) {
    match op {
        FileOp::Write { offset, bytes: written } => {
            let (start, end) = (*offset as usize, *offset as usize + written.len());
            pad(bytes, end);
            bytes[start..end].copy_from_slice(written);
        }
        FileOp::Grow { bytes: length } => pad(bytes, *length as usize),
        FileOp::Cut { bytes: length } => bytes.truncate(*length as usize),
    }
}

/// Grows with NUL bytes; many times faster than `Vec::resize` in unoptimised tests.
pub(super) fn pad(bytes: &mut Vec<u8>, length: usize) {
    bytes.extend_from_slice(&vec![0; length.saturating_sub(bytes.len())]);
}

pub(super) fn persist_some(durable: &mut Vec<u8>, unsynced: &[FileOp], random: &mut Random) {
    for op in unsynced {
        match op {
            FileOp::Write { offset, bytes } => {
                // All, none and a mixture are each likely enough to be met often.
                let style = random.below(4);
                let (mut at, end) = (*offset, offset + bytes.len() as u64);
                while at < end {
                    let sector_end = ((at / SECTOR + 1) * SECTOR).min(end);
                    let keep = style == 0 || (style != 1 && random.below(2) == 0);
                    if keep {
                        let part = bytes[(at - offset) as usize..(sector_end - offset) as usize].to_vec();
                        apply(durable, &FileOp::Write { offset: at, bytes: part });
                    }
                    at = sector_end;
                }
            }
            size_change if random.below(2) == 0 => apply(durable, size_change),
            _ => {}
        }
    }
}

pub(super) fn apply_entry(entries: &mut BTreeMap<String, u64>, op: &DirectoryOp) {
    match op {
        DirectoryOp::Link { name, file } => drop(entries.insert(name.clone(), *file)),
        DirectoryOp::Unlink { name, file } => {
            if entries.get(name) == Some(file) {
                entries.remove(name);
            }
        }
        DirectoryOp::Rename { from, to, file } => {
            if entries.get(from) == Some(file) {
                entries.remove(from);
            }
            entries.insert(to.clone(), *file);
        }
    }
}

pub(super) fn persist_some_entries(durable: &mut BTreeMap<String, u64>, unsynced: &[DirectoryOp], random: &mut Random) {
    let prefix = (random.below(2) == 0).then(|| random.below(unsynced.len() as u64 + 1) as usize);
    for (index, op) in unsynced.iter().enumerate() {
        let keep = prefix.map_or_else(|| random.below(2) == 0, |length| index < length);
        if keep {
            apply_entry(durable, op);
        }
    }
}

/// A small generator (splitmix64): the same seed gives the same disk on every machine.
#[derive(Debug, Clone, Copy)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.draw() % bound }
    }
}
