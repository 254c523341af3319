//! A seeded generator for tests: SplitMix64 (Steele, Lea, Flood 2014). Owns: one number. Never: used outside tests.

/// Deterministic pseudo-random numbers.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True once in `one_in` times.
    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

/// The seeds of a run: `KHEISH_SIM_SEED` alone when it is set, else `0..default_count`
/// (`KHEISH_SIM_SEEDS` overrides the count).
pub fn seeds(default_count: u64) -> Vec<u64> {
    if let Ok(seed) = std::env::var("KHEISH_SIM_SEED") {
        return vec![seed.parse().expect("KHEISH_SIM_SEED is a number")];
    }
    let count = std::env::var("KHEISH_SIM_SEEDS").map_or(default_count, |count| count.parse().expect("a number"));
    (0..count).collect()
}
