//! Latencies in buckets of about 1.6 %, so that millions of them cost no memory and no time to add.

/// Counts of durations by logarithmic bucket.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

/// Bits kept below the leading one.
const MANTISSA_BITS: u32 = 6;

impl Histogram {
    /// An empty histogram.
    pub fn new() -> Self {
        Self { counts: vec![0; (64 << MANTISSA_BITS) as usize], total: 0 }
    }

    /// Adds one duration.
    pub fn add(&mut self, nanoseconds: u64) {
        self.counts[bucket(nanoseconds)] += 1;
        self.total += 1;
    }

    /// How many were added.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The duration in microseconds below which `share` (0 to 1) of all lie; 0 when empty.
    pub fn quantile_us(&self, share: f64) -> f64 {
        let rank = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= rank {
                return upper_edge(index) as f64 / 1_000.0;
            }
        }
        0.0
    }
}

fn bucket(nanoseconds: u64) -> usize {
    let value = nanoseconds.max(1 << MANTISSA_BITS);
    let exponent = value.ilog2();
    let mantissa = (value >> (exponent - MANTISSA_BITS)) & ((1 << MANTISSA_BITS) - 1);
    ((u64::from(exponent) << MANTISSA_BITS) | mantissa) as usize
}

fn upper_edge(index: usize) -> u64 {
    let exponent = (index >> MANTISSA_BITS) as u32;
    let mantissa = index as u64 & ((1 << MANTISSA_BITS) - 1);
    ((1 << MANTISSA_BITS) + mantissa + 1) << (exponent - MANTISSA_BITS)
}
