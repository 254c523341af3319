//! Log lines on standard error.
//! Owns: the two line formats, the time stamp, and which modules may speak how loudly.
//! May touch: standard error; the calling thread's request id.
//! Never: shows a secret, in a panic's message neither; lets a message add a line or a terminal command of its own.

use std::fmt;
use std::io::{IsTerminal, Write};

use log::LevelFilter;
use serde::Serialize;

use crate::clock::{Clock, SystemClock};
use crate::http::request_id;
use crate::redaction;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Pretty when standard error is a terminal, else JSON.
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Why logging was not set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoggingError {
    /// The format is none of the known ones.
    UnknownFormat,
    /// The level is none of the known ones.
    UnknownLevel,
    /// A logger is in place already.
    AlreadySet,
}

impl fmt::Display for LoggingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownFormat => "unknown log format; next: use --log-format auto, pretty or json",
            Self::UnknownLevel => "unknown log level; next: use --log-level error, warn, info, debug or trace",
            Self::AlreadySet => "logging is set up already; next: report this as a defect",
        })
    }
}

impl std::error::Error for LoggingError {}

impl Format {
    /// Reads `auto`, `pretty` or `json`.
    ///
    /// # Errors
    /// [`LoggingError::UnknownFormat`].
    pub fn parse(raw: &str) -> Result<Self, LoggingError> {
        match raw {
            "auto" => Ok(Self::Auto),
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err(LoggingError::UnknownFormat),
        }
    }
}

/// Reads `error`, `warn`, `info`, `debug` or `trace`.
///
/// # Errors
/// [`LoggingError::UnknownLevel`].
pub fn parse_level(raw: &str) -> Result<LevelFilter, LoggingError> {
    match raw {
        "error" => Ok(LevelFilter::Error),
        "warn" => Ok(LevelFilter::Warn),
        "info" => Ok(LevelFilter::Info),
        "debug" => Ok(LevelFilter::Debug),
        "trace" => Ok(LevelFilter::Trace),
        _ => Err(LoggingError::UnknownLevel),
    }
}

/// Modules that print what passes through them, request heads included, when they may.
const QUIET_MODULES: [&str; 3] = ["ureq", "ureq_proto", "rustls"];

/// Sends log lines of `level` and above to standard error from now on.
///
/// # Errors
/// [`LoggingError::AlreadySet`].
pub fn init(format: Format, level: LevelFilter) -> Result<(), LoggingError> {
    let is_json = match format {
        Format::Json => true,
        Format::Pretty => false,
        Format::Auto => !std::io::stderr().is_terminal(),
    };
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level).target(env_logger::Target::Stderr);
    for module in QUIET_MODULES {
        builder.filter_module(module, level.min(LevelFilter::Warn));
    }
    builder.format(move |out, record| {
        let request_id = request_id::current();
        let line = Line {
            ts: rfc3339_milliseconds(SystemClock.now_ms()),
            level: level_name(record.level()),
            target: record.target(),
            message: one_line(&redaction::log_line(&record.args().to_string())),
            request_id: request_id.as_ref().map(|id| id.as_str()),
        };
        writeln!(out, "{}", if is_json { line.json() } else { line.pretty() })
    });
    builder.try_init().map_err(|_| LoggingError::AlreadySet)?;
    // The default hook prints the message as it is.
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let backtrace = std::backtrace::Backtrace::capture();
        log::error!("thread {} {panic}; {backtrace}", thread.name().unwrap_or("without a name"));
    }));
    Ok(())
}

#[derive(Serialize)]
struct Line<'a> {
    ts: String,
    level: &'static str,
    target: &'a str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

impl Line<'_> {
    fn json(&self) -> String {
        serde_json::to_string(self).expect("a line is made of strings")
    }

    fn pretty(&self) -> String {
        let target = self.target.strip_prefix("kheish_daemon::").unwrap_or(self.target);
        let request = self.request_id.map_or_else(String::new, |id| format!(" request_id={id}"));
        format!("{} {:5} {target}: {}{request}", self.ts, self.level.to_ascii_uppercase(), self.message)
    }
}

fn level_name(level: log::Level) -> &'static str {
    match level {
        log::Level::Error => "error",
        log::Level::Warn => "warn",
        log::Level::Info => "info",
        log::Level::Debug => "debug",
        log::Level::Trace => "trace",
    }
}

/// A message may quote what a client sent: its control characters are shown, not obeyed.
fn one_line(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for c in message.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// `unix_ms` as UTC in RFC 3339 with milliseconds, for example `2026-11-25T08:13:00.042Z`.
pub fn rfc3339_milliseconds(unix_ms: u64) -> String {
    let seconds = rfc3339_seconds(unix_ms);
    format!("{}.{:03}Z", seconds.trim_end_matches('Z'), unix_ms % 1_000)
}

/// `unix_ms` as UTC in RFC 3339, cut to the second, for example `2026-11-25T08:13:00Z`.
pub fn rfc3339_seconds(unix_ms: u64) -> String {
    let unix_seconds = unix_ms / 1_000;
    let (year, month, day) = civil_from_days(unix_seconds / 86_400);
    let in_day = unix_seconds % 86_400;
    let (hour, minute, second) = (in_day / 3_600, in_day / 60 % 60, in_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of the given number of days after 1970-01-01 in the Gregorian calendar. Years begin
/// in March here, so that the leap day is the last one.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01
    let era = days / 146_097; // 400 years
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_have_their_known_dates() {
        let table = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            (1_764_058_380_042, "2025-11-25T08:13:00.042Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ];
        for (unix_ms, expected) in table {
            assert_eq!(rfc3339_milliseconds(unix_ms), expected);
            assert_eq!(rfc3339_seconds(unix_ms), format!("{}Z", &expected[..19]));
        }
        assert!(rfc3339_milliseconds(u64::MAX).ends_with('Z'));
    }

    #[test]
    fn every_day_of_eight_centuries_follows_the_one_before() {
        let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let length = |year, month| match month {
            2 => 28 + u64::from(is_leap(year)),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..292_194 {
            assert_eq!(civil_from_days(days), (year, month, day));
            day += 1;
            if day > length(year, month) {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    #[test]
    fn a_message_stays_on_its_line_and_cannot_steer_a_terminal() {
        let line = Line {
            ts: "T".to_string(),
            level: "warn",
            target: "kheish_daemon::http::edge",
            message: one_line("a\nERROR b\u{1b}[2J\u{9b}\u{7f}\"é"),
            request_id: Some("r-1"),
        };
        assert_eq!(line.pretty(), "T WARN  http::edge: a\\nERROR b\\u{1b}[2J\\u{9b}\\u{7f}\"é request_id=r-1");
        assert_eq!(
            line.json(),
            r#"{"ts":"T","level":"warn","target":"kheish_daemon::http::edge","message":"a\\nERROR b\\u{1b}[2J\\u{9b}\\u{7f}\"é","request_id":"r-1"}"#
        );
    }

    #[test]
    fn only_the_documented_words_are_formats_and_levels() {
        for word in ["auto", "pretty", "json"] {
            assert!(Format::parse(word).is_ok(), "{word}");
        }
        for word in ["error", "warn", "info", "debug", "trace"] {
            assert_eq!(parse_level(word).map(|level| level.to_string().to_lowercase()), Ok(word.to_string()));
        }
        assert_eq!(Format::parse("JSON"), Err(LoggingError::UnknownFormat));
        assert_eq!(parse_level("off"), Err(LoggingError::UnknownLevel));
    }
}
