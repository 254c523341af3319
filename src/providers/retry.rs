//! Whether and when to try again.
//! Owns: the retry policy as a pure function, and the reading of a provider's hints.
//! Never: waits, reads a clock or draws a random number; all three are arguments.

use crate::limits::{
    PROVIDER_ATTEMPTS_MAX, PROVIDER_MALFORMED_ATTEMPTS_MAX, PROVIDER_RETRY_BASE_MS, PROVIDER_RETRY_HINT_MS_MAX,
    PROVIDER_RETRY_MS_MAX,
};

use super::error::{ErrorClass, ProviderError, Retry};

/// The wait before the next attempt in milliseconds, or `None` when the turn has failed for good. `attempt`
/// counts from 1 and is the one that failed with `error`; `random` is any random number and shortens our own
/// back-off by up to a quarter, so that many runs do not come back together.
pub fn retry_delay_ms(attempt: u32, error: &ProviderError, random: u32) -> Option<u64> {
    let attempts_max = match error.class {
        ErrorClass::MalformedStream if !error.is_truncation() => PROVIDER_MALFORMED_ATTEMPTS_MAX,
        _ => PROVIDER_ATTEMPTS_MAX,
    };
    if attempt >= attempts_max {
        return None;
    }
    match error.retry {
        Retry::Never => None,
        Retry::After(ms) => (ms <= PROVIDER_RETRY_HINT_MS_MAX).then_some(ms),
        Retry::Backoff => {
            let doublings = attempt.saturating_sub(1).min(16);
            let ms = (PROVIDER_RETRY_BASE_MS << doublings).min(PROVIDER_RETRY_MS_MAX);
            let jitter = ms / 4 * u64::from(random) / u64::from(u32::MAX);
            Some(ms - jitter)
        }
    }
}

/// Reads `retry-after-ms`, else `retry-after` as seconds or as a date. Zero, negative, past and unreadable
/// values are no hint.
pub(crate) fn hint_ms<'h>(header: &impl Fn(&str) -> Option<&'h str>, now_ms: u64) -> Option<u64> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|value| value.is_finite());
    let ms = match header("retry-after-ms").and_then(number) {
        Some(ms) => ms,
        None => {
            let text = header("retry-after")?;
            match number(text) {
                Some(seconds) => seconds * 1_000.0,
                None => return http_date_ms(text.trim())?.checked_sub(now_ms).filter(|ms| *ms > 0),
            }
        }
    };
    // Saturates: a hint of a thousand years is still a hint, and too long.
    (ms > 0.0).then_some(ms.ceil() as u64)
}

/// Milliseconds of a duration as Google writes it, `12s` or `0.5s`; zero is no hint.
pub(super) fn duration_ms(text: &str) -> Option<u64> {
    let seconds: f64 = text.strip_suffix('s')?.parse().ok()?;
    (seconds > 0.0 && seconds.is_finite()).then_some((seconds * 1_000.0).ceil() as u64)
}

/// Unix milliseconds of `Sun, 06 Nov 1994 08:49:37 GMT`, the only form that servers may send today.
fn http_date_ms(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_once(", ")?.1.split(' ');
    let day: u64 = words.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let month_name = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month_name)? as u64 + 1;
    let year: u64 = words.next()?.parse().ok().filter(|year| (1970..=9999).contains(year))?;
    let mut clock = words.next()?.split(':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let complete = clock.next().is_none() && words.next() == Some("GMT") && words.next().is_none();
    if !complete || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days from the civil date, with the year starting in March so that leap days come last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    const DAYS_TO_1970: u64 = 719_468;
    Some(((days.checked_sub(DAYS_TO_1970)? * 24 + hour) * 60 + minute) * 60_000 + second * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(class: ErrorClass, retry: Retry) -> ProviderError {
        ProviderError::new(class, retry, "code", "message")
    }

    #[test]
    fn back_off_doubles_is_capped_and_ends_after_the_last_attempt() {
        let overload = error(ErrorClass::Overload, Retry::Backoff);
        let delays = |random| (1..=5).map(|attempt| retry_delay_ms(attempt, &overload, random)).collect::<Vec<_>>();
        assert_eq!(delays(0), [Some(500), Some(1_000), Some(2_000), None, None]);
        assert_eq!(delays(u32::MAX), [Some(375), Some(750), Some(1_500), None, None]);
    }

    #[test]
    fn an_unintelligible_answer_is_asked_for_once_more_and_a_broken_off_one_as_often_as_an_overload() {
        let delays = |error: &ProviderError| (1..=4).map(|n| retry_delay_ms(n, error, 0)).collect::<Vec<_>>();
        assert_eq!(delays(&ProviderError::malformed("m")), [Some(500), None, None, None]);
        assert_eq!(delays(&ProviderError::truncated()), [Some(500), Some(1_000), Some(2_000), None]);
    }

    #[test]
    fn a_hint_is_obeyed_up_to_its_cap_and_never_shortened() {
        let delay = |ms| retry_delay_ms(1, &error(ErrorClass::RateLimit, Retry::After(ms)), u32::MAX);
        assert_eq!(delay(1), Some(1));
        assert_eq!(delay(120_000), Some(120_000));
        assert_eq!(delay(120_001), None);
        assert_eq!(retry_delay_ms(1, &error(ErrorClass::Auth, Retry::Never), 0), None);
    }

    #[test]
    fn hints_are_read_in_the_order_and_forms_that_providers_use() {
        let now_ms = 784_111_777_000; // Sun, 06 Nov 1994 08:49:37 GMT
        let hint = |ms: Option<&'static str>, after: Option<&'static str>| {
            hint_ms(&|name: &str| if name == "retry-after-ms" { ms } else { after }, now_ms)
        };
        let cases = [
            (Some("200"), Some("9"), Some(200)),
            (Some("junk"), Some("9"), Some(9_000)),
            (None, Some("0.5"), Some(500)),
            (None, Some(" 2 "), Some(2_000)),
            (None, Some("300"), Some(300_000)),
            (None, Some("Sun, 06 Nov 1994 08:49:40 GMT"), Some(3_000)),
            (None, Some("Tue, 08 Nov 1994 08:49:37 GMT"), Some(172_800_000)),
            (None, Some("Sun, 06 Nov 1994 08:49:37 GMT"), None),
            (None, Some("Sun, 06 Nov 1994 08:49:36 GMT"), None),
            (None, Some("0"), None),
            (None, Some("-3"), None),
            (None, Some("NaN"), None),
            (None, Some("inf"), None),
            (None, Some("soon"), None),
            (None, Some("Sun, 99 Nov 1994 08:49:40 GMT"), None),
            (None, None, None),
        ];
        for (ms, after, expected) in cases {
            assert_eq!(hint(ms, after), expected, "{ms:?} {after:?}");
        }
        assert_eq!(hint(None, Some("1e300")), Some(u64::MAX));
    }

    #[test]
    fn dates_are_right_over_leap_years() {
        assert_eq!(http_date_ms("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(http_date_ms("Tue, 29 Feb 2000 23:59:59 GMT"), Some(951_868_799_000));
        assert_eq!(http_date_ms("Wed, 01 Mar 2000 00:00:00 GMT"), Some(951_868_800_000));
        assert_eq!(http_date_ms("Wed, 25 Nov 2026 12:00:00 GMT"), Some(1_795_608_000_000));
    }
}
