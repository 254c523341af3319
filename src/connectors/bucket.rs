//! Token buckets of ingress.
//! Owns: the arithmetic; time is handed in.
//! Never: waits.

use std::collections::BTreeMap;

use crate::limits::CONNECTOR_BUCKETS_MAX;

/// A bucket that holds as many tokens as it gains in a second; it begins full.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    /// Tokens a second, and so thousandths of a token a millisecond.
    rate: u64,
    thousandths: u64,
    at_ms: u64,
}

impl Bucket {
    /// A full one.
    pub fn new(rate: u32, now_ms: u64) -> Self {
        let rate = u64::from(rate.max(1));
        Self { rate, thousandths: rate * 1_000, at_ms: now_ms }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// There is none; milliseconds until there is, at least 1.
    pub fn take(&mut self, now_ms: u64) -> Result<(), u64> {
        // A clock that was set back gives nothing and takes nothing.
        let passed_ms = now_ms.saturating_sub(self.at_ms);
        self.at_ms = now_ms;
        self.thousandths = self.thousandths.saturating_add(passed_ms.saturating_mul(self.rate)).min(self.rate * 1_000);
        if self.thousandths >= 1_000 {
            self.thousandths -= 1_000;
            return Ok(());
        }
        Err((1_000 - self.thousandths).div_ceil(self.rate).max(1))
    }

    /// Gives a token back that was taken for nothing.
    pub fn give_back(&mut self) {
        self.thousandths = (self.thousandths + 1_000).min(self.rate * 1_000);
    }
}

/// The buckets of one connector, by what it counts separately.
#[derive(Debug)]
pub struct Buckets {
    rate: u32,
    by_key: BTreeMap<String, Bucket>,
}

impl Buckets {
    /// None yet.
    pub fn new(rate: u32) -> Self {
        Self { rate, by_key: BTreeMap::new() }
    }

    /// Takes a token of `key`.
    ///
    /// # Errors
    /// As [`Bucket::take`].
    pub fn take(&mut self, key: &str, now_ms: u64) -> Result<(), u64> {
        if !self.by_key.contains_key(key) {
            if self.by_key.len() >= CONNECTOR_BUCKETS_MAX
                && let Some(idle) =
                    self.by_key.iter().min_by_key(|(_, bucket)| bucket.at_ms).map(|(key, _)| key.clone())
            {
                self.by_key.remove(&idle);
            }
            self.by_key.insert(key.to_string(), Bucket::new(self.rate, now_ms));
        }
        self.by_key.get_mut(key).expect("put there just now").take(now_ms)
    }

    /// Gives a token of `key` back.
    pub fn give_back(&mut self, key: &str) {
        if let Some(bucket) = self.by_key.get_mut(key) {
            bucket.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_one_second_and_tells_when_to_come_back() {
        let mut bucket = Bucket::new(2, 1_000);
        assert_eq!((bucket.take(1_000), bucket.take(1_000), bucket.take(1_000)), (Ok(()), Ok(()), Err(500)));
        assert_eq!(bucket.take(1_499), Err(1));
        assert_eq!(bucket.take(1_500), Ok(()));
        assert_eq!(bucket.take(400), Err(500), "a clock that was set back gives nothing");
        bucket.give_back();
        assert_eq!(bucket.take(400), Ok(()));
        assert_eq!((bucket.take(60_000), bucket.take(60_000), bucket.take(60_000)), (Ok(()), Ok(()), Err(500)));
    }

    #[test]
    fn one_key_does_not_use_up_the_tokens_of_another_and_keys_are_bounded() {
        let mut buckets = Buckets::new(1);
        assert_eq!(buckets.take("a", 0), Ok(()));
        assert!(buckets.take("a", 0).is_err());
        for number in 0..2 * CONNECTOR_BUCKETS_MAX {
            assert_eq!(buckets.take(&number.to_string(), 1), Ok(()));
        }
        assert!(buckets.by_key.len() <= CONNECTOR_BUCKETS_MAX);
    }
}
