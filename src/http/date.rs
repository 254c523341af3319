//! The `Date` header.
//! Owns: the rendering of a Unix second as RFC 9110's IMF-fixdate, and one rendered second per thread.
//! May touch: the system clock.
//! Never: orders or times anything; it is information for caches and people.

use std::cell::Cell;

use crate::clock::{Clock, SystemClock};

/// `Sun, 06 Nov 1994 08:49:37 GMT` has this many bytes, every date does.
pub const DATE_BYTES: usize = 29;

thread_local! {
    static RENDERED: Cell<(u64, [u8; DATE_BYTES])> = const { Cell::new((u64::MAX, [0; DATE_BYTES])) };
}

/// The current second, rendered at most once a second on each thread.
pub fn now() -> [u8; DATE_BYTES] {
    let second = SystemClock.now_ms() / 1_000;
    // A thread that is being torn down renders without remembering.
    RENDERED
        .try_with(|cell| {
            let (rendered_second, text) = cell.get();
            if rendered_second == second {
                return text;
            }
            let text = render(second);
            cell.set((second, text));
            text
        })
        .unwrap_or_else(|_| render(second))
}

fn render(second: u64) -> [u8; DATE_BYTES] {
    const WEEKDAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
    const MONTHS: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    // The header has room for four digits of a year; a clock beyond them is shown as the last second.
    const LAST_SECOND: u64 = 253_402_300_799;
    let second = second.min(LAST_SECOND);
    let days = second / 86_400;
    let (year, month, day) = civil_from_days(days);
    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    text[..3].copy_from_slice(WEEKDAYS[(days % 7) as usize]);
    two_digits(&mut text[5..7], day);
    text[8..11].copy_from_slice(MONTHS[month as usize - 1]);
    two_digits(&mut text[12..14], year / 100);
    two_digits(&mut text[14..16], year % 100);
    two_digits(&mut text[17..19], second / 3_600 % 24);
    two_digits(&mut text[20..22], second / 60 % 60);
    two_digits(&mut text[23..25], second % 60);
    text
}

fn two_digits(target: &mut [u8], value: u64) {
    target[0] = b'0' + (value / 10 % 10) as u8;
    target[1] = b'0' + (value % 10) as u8;
}

/// Year, month (1 to 12) and day (1 to 31) of a day counted from 1970-01-01. Counts in 400-year eras that
/// begin on 1 March, so that the leap day is the last of its year.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_seconds_are_rendered_as_the_standard_says() {
        for (second, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(std::str::from_utf8(&render(second)).unwrap(), expected);
        }
    }
}
