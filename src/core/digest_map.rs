//! Maps whose keys need no guarded hash: numbers that the core gave out, and digests.
//! Owns: the hash of such keys.
//! Never: hashes what a caller chose freely; names go into std's maps, whose seed nobody knows.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map from the core's own numbers, or from SHA-256 digests.
pub(super) type DigestMap<K, V> = HashMap<K, V, BuildHasherDefault<Fold>>;

/// Folds the key's words with a multiplication: such keys are spread evenly or counted up, and either fills the table.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Fold(u64);

impl Fold {
    fn add(&mut self, word: u64) {
        // An odd constant without a pattern (the golden ratio's fraction), so that no bits of a word are lost.
        self.0 = (self.0.rotate_left(26) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.add(u64::from(value));
    }

    fn write_usize(&mut self, value: usize) {
        self.add(value as u64);
    }

    fn finish(&self) -> u64 {
        // The table takes the low bits for the place: the product keeps counted numbers apart there, and a digest's bits
        // are even already. The tag is taken from the high ones.
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn numbers_and_digests_fill_places_and_tags_evenly() {
        let build = BuildHasherDefault::<Fold>::default();
        let numbers = (1..=65_536u32).map(|number| build.hash_one(number));
        let digests = (1..=65_536u64).map(|number| {
            let mut key = [0; 16];
            let digest = ring::digest::digest(&ring::digest::SHA256, &number.to_be_bytes());
            key.copy_from_slice(&digest.as_ref()[..16]);
            build.hash_one(key)
        });
        for hashes in [numbers.collect::<Vec<_>>(), digests.collect()] {
            let places: HashSet<u64> = hashes.iter().map(|hash| hash & 0xffff).collect();
            // Random hashes would hit 63 % of as many places.
            assert!(places.len() > 40_000, "{} places", places.len());
            let tags: HashSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
            assert_eq!(tags.len(), 128);
        }
    }
}
