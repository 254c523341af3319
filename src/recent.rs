//! Counting what happens now and then, with the minutes in which it happened.
//! Owns: a total, the time of the last one, and counts by minute for the longest window of an alarm.
//! Never: reads a clock; grows.

use serde::Serialize;

use crate::limits::RECENT_MINUTES_KEPT;

const MINUTE_MS: u64 = 60_000;

/// Occurrences of one thing since start.
#[derive(Debug, Clone, Default)]
pub struct Recent {
    total: u64,
    last_at_ms: u64,
    /// The minute and the count in it, at `minute % RECENT_MINUTES_KEPT`.
    minutes: Box<[(u64, u64)]>,
}

/// As status shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RecentView {
    /// Since start.
    pub count: u64,
    /// The last one, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_at_ms: Option<u64>,
    /// In the last ten minutes, in the ten before, and in the ten before those.
    pub windows_10m: [u64; 3],
}

impl Recent {
    /// Counts `count` occurrences at `now_ms`.
    pub fn note(&mut self, count: u64, now_ms: u64) {
        if count == 0 {
            return;
        }
        if self.minutes.is_empty() {
            self.minutes = vec![(0, 0); RECENT_MINUTES_KEPT as usize].into();
        }
        self.total += count;
        self.last_at_ms = now_ms;
        let minute = now_ms / MINUTE_MS;
        let place = &mut self.minutes[(minute % RECENT_MINUTES_KEPT) as usize];
        if place.0 != minute {
            *place = (minute, 0);
        }
        place.1 += count;
    }

    /// What there is to tell at `now_ms`. Windows go by whole minutes: one is up to a minute longer than ten.
    pub fn view(&self, now_ms: u64) -> RecentView {
        let now = now_ms / MINUTE_MS;
        let mut windows_10m = [0; 3];
        for (minute, count) in &self.minutes {
            // What lies ahead was counted before the clock was set back; it belongs to no window.
            if let Some(window) = now.checked_sub(*minute).and_then(|age| windows_10m.get_mut((age / 10) as usize)) {
                *window += count;
            }
        }
        RecentView { count: self.total, last_at_ms: (self.total > 0).then_some(self.last_at_ms), windows_10m }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_slide_and_forget_what_is_too_old() {
        let mut recent = Recent::default();
        let start_ms = 29_000_000 * MINUTE_MS;
        assert_eq!(recent.view(start_ms), RecentView::default());
        recent.note(2, start_ms);
        recent.note(0, start_ms + 1);
        recent.note(1, start_ms + 5 * MINUTE_MS);
        let at = |minutes: u64| recent.view(start_ms + minutes * MINUTE_MS);
        assert_eq!(at(5), RecentView { count: 3, last_at_ms: Some(start_ms + 5 * MINUTE_MS), windows_10m: [3, 0, 0] });
        assert_eq!(at(9).windows_10m, [3, 0, 0]);
        assert_eq!(at(10).windows_10m, [1, 2, 0]);
        assert_eq!(at(24).windows_10m, [0, 1, 2]);
        assert_eq!(at(36).windows_10m, [0, 0, 0]);
    }

    #[test]
    fn a_minute_that_comes_round_again_begins_at_zero() {
        let mut recent = Recent::default();
        recent.note(7, 0);
        recent.note(1, RECENT_MINUTES_KEPT * MINUTE_MS);
        assert_eq!(recent.view(RECENT_MINUTES_KEPT * MINUTE_MS).windows_10m, [1, 0, 0]);
    }

    #[test]
    fn a_clock_set_back_invents_nothing() {
        let mut recent = Recent::default();
        recent.note(1, 100 * MINUTE_MS);
        assert_eq!(recent.view(50 * MINUTE_MS).windows_10m, [0, 0, 0]);
        recent.note(1, 50 * MINUTE_MS);
        assert_eq!(recent.view(50 * MINUTE_MS).windows_10m, [1, 0, 0]);
    }
}
