//! How often something may happen within a second.
//! Owns: the count.
//! Never: waits.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A bound for each second.
pub(super) struct Rate {
    most: u32,
    /// Since when is counted, and the count.
    window: Mutex<Option<(Instant, u32)>>,
}

impl Rate {
    /// At most `most` a second.
    pub fn new(most: u32) -> Self {
        Self { most, window: Mutex::new(None) }
    }

    /// Whether one more may happen now.
    pub fn admit(&self) -> bool {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, count) = match *window {
            Some((began, count)) if now.duration_since(began) < Duration::from_secs(1) => (began, count + 1),
            _ => (now, 1),
        };
        *window = Some((began, count));
        count <= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_than_the_bound_is_refused_until_the_second_is_over() {
        let (rate, now) = (Rate::new(2), Instant::now());
        assert_eq!([(); 3].map(|()| rate.admit_at(now)), [true, true, false]);
        assert!(!rate.admit_at(now + Duration::from_millis(999)));
        assert!(rate.admit_at(now + Duration::from_secs(1)));
    }
}
