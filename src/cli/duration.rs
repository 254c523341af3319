//! Durations as people type them.
//! Owns: `90s`, `30m`, `2h`, `1d`, `500ms`.
//! Never: guesses a unit.

use super::exit::CliError;

const UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Milliseconds of a duration.
///
/// # Errors
/// It has no unit, no number, or is too large.
pub fn milliseconds(option: &str, text: &str) -> Result<u64, CliError> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = UNITS.iter().find(|(unit, _)| *unit == &text[end..]);
    let number = text[..end].parse::<u64>().ok();
    number.zip(unit).and_then(|(number, (_, factor))| number.checked_mul(*factor)).ok_or_else(|| {
        CliError::invalid(option, "it is no duration", "write a number and one of ms, s, m, h, d, such as 30m")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_with_a_unit() {
        for (text, expected) in
            [("30m", 1_800_000), ("0ms", 0), ("90s", 90_000), ("24h", 86_400_000), ("1d", 86_400_000)]
        {
            assert_eq!(milliseconds("--ttl", text).ok(), Some(expected), "{text}");
        }
        for text in
            ["", "30", "m", "1.5h", "-1s", "1 m", "1M", "30mm", "99999999999999999999s", "18446744073709551615d"]
        {
            assert!(milliseconds("--ttl", text).is_err(), "{text}");
        }
    }
}
