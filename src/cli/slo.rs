//! `slo`: the operators' table of signals against one daemon.
//! Owns: taking the samples, and how the report reads.
//! May touch: the network, the file of thresholds.
//! Never: judges; `slo` does. Never passes over what it could not find out.

use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

use argh::{ArgsInfo, FromArgs};
use serde_json::Value;

use super::client::{Client, Stop};
use super::context::Context;
use super::duration::milliseconds;
use super::exit::{CliError, TransportFailure};
use super::json_text::{Document, terminal_safe};
use super::path::Path;
use super::verbs::Command;
use crate::limits::{CLI_SLO_INTERVAL_MS, CLI_SLO_SAMPLES_MAX, CLI_THRESHOLDS_BYTES_MAX};
use crate::slo::{Level, Profile, Report, Sample, Thresholds, evaluate, needs_another_sample};

/// judge the operators' table of signals; exits with 0 (ok), 1 (something warns) or 2 (something pages)
#[derive(FromArgs, ArgsInfo)]
pub struct Slo {
    /// staging or production: whether a dead letter pages
    #[argh(option, arg_name = "name")]
    profile: Option<String>,
    /// TOML file with other thresholds
    #[argh(option, arg_name = "path")]
    thresholds: Option<String>,
    /// take this many samples; otherwise one, and more only while the last one was bad
    #[argh(option, arg_name = "n")]
    samples: Option<u64>,
    /// pause between two samples, such as 10s
    #[argh(option, arg_name = "duration")]
    interval: Option<String>,
}

impl Command for Slo {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let profile = self.profile.as_deref().unwrap_or("production");
        let profile = Profile::parse(profile)
            .ok_or_else(|| CliError::invalid("--profile", "it is no profile", "use staging or production"))?;
        let thresholds = self.thresholds.as_deref().map(read_thresholds).transpose()?.unwrap_or_default();
        let interval_ms = self.interval.as_deref().map(|text| milliseconds("--interval", text)).transpose()?;
        let interval = Duration::from_millis(interval_ms.unwrap_or(CLI_SLO_INTERVAL_MS));
        let wanted = self.samples.unwrap_or(1);
        if !(1..=CLI_SLO_SAMPLES_MAX).contains(&wanted) {
            let cause = format!("it is no number from 1 to {CLI_SLO_SAMPLES_MAX}");
            return Err(CliError::invalid("--samples", cause, "correct it"));
        }
        let client = context.client()?;
        let (mut samples, begun, pause) = (Vec::new(), Instant::now(), Stop::default());
        while (samples.len() as u64) < wanted || needs_another_sample(&samples, &thresholds) {
            if !samples.is_empty() {
                pause.wait(interval);
            }
            samples.push(sample(&client, begun)?);
        }
        let report = evaluate(&samples, &thresholds, profile);
        if context.out.is_for_a_person() {
            context.out.text(&table(&report))?;
        } else {
            context.out.document(&Document::of(&report))?;
        }
        let named = |level: Level| {
            let rows = report.rows.iter().filter(|row| row.level == level);
            rows.map(|row| row.id).collect::<Vec<_>>().join(", ")
        };
        match report.level {
            Level::Ok => Ok(()),
            Level::Warning => Err(CliError::SloWarns { rows: named(Level::Warning) }),
            Level::Page => Err(CliError::SloPages { rows: named(Level::Page) }),
        }
    }
}

fn read_thresholds(path: &str) -> Result<Thresholds, CliError> {
    let refuse = |cause: String| CliError::File { path: path.into(), cause, next: "check the path" };
    let file = File::open(path).map_err(|error| refuse(error.to_string()))?;
    let mut text = String::new();
    let bound = CLI_THRESHOLDS_BYTES_MAX as u64 + 1;
    file.take(bound).read_to_string(&mut text).map_err(|error| refuse(error.to_string()))?;
    if text.len() > CLI_THRESHOLDS_BYTES_MAX {
        return Err(refuse(format!("larger than {CLI_THRESHOLDS_BYTES_MAX} bytes")));
    }
    Thresholds::parse(&text).map_err(|error| CliError::component(path, error))
}

/// One look at the daemon.
///
/// # Errors
/// This side is at fault: the token is refused, or the connection cannot be prepared. That the daemon does not answer is
/// no error here but what a sample tells.
fn sample(client: &Client, begun: Instant) -> Result<Sample, CliError> {
    let at_ms = begun.elapsed().as_millis() as u64;
    let readyz = match client.get_bytes(&Path::new("/readyz")) {
        Ok(_) => Ok(200),
        Err(CliError::Http { status, .. }) => Ok(status),
        Err(error) => Err(evidence(error)?),
    };
    let status = match client.get(&Path::new("/v1/status")) {
        Ok(document) => serde_json::from_str::<Value>(document.as_str()).map_err(|error| error.to_string()),
        Err(error) => Err(evidence(error)?),
    };
    Ok(Sample { at_ms, readyz, status })
}

/// What a failed request tells about the daemon.
fn evidence(error: CliError) -> Result<String, CliError> {
    match error {
        CliError::Transport { failure: TransportFailure::Configuration, .. } => Err(error),
        CliError::Http { status: 401 | 403, .. } => Err(error),
        CliError::Transport { .. } | CliError::Http { .. } | CliError::Schema { .. } => Ok(error.without_next()),
        other => Err(other),
    }
}

/// The report for people: every row, and below it what to do about those that are not ok.
fn table(report: &Report) -> String {
    let width = report.rows.iter().map(|row| row.signal.len()).max().unwrap_or(0);
    let mut text = String::new();
    for row in &report.rows {
        let level = row.level.as_str();
        text.push_str(&format!("{level:7}  {:width$}  {}\n", row.signal, terminal_safe(&row.detail)));
        if row.level != Level::Ok {
            text.push_str(&format!("{:7}  {:width$}  points at: {}\n", "", "", row.component));
            text.push_str(&format!("{:7}  {:width$}  next: {}\n", "", "", row.next));
        }
    }
    text
}
