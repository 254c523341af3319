//! `GET /metrics`: the figures of the status as Prometheus reads them.
//! Owns: the text format, and reading each series from the status document.
//! Never: makes a series from what callers or models name: their number is fixed by the table, whatever the load.

use std::fmt::Write;

use serde_json::Value;

use super::call::Call;
use super::context::Api;
use crate::http::problem::{Problem, codes};
use crate::http::{Refused, Response};

mod figures;
mod process;
mod table;

pub use table::METRICS;

/// What Prometheus makes of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, but for a restart.
    Counter,
    /// It goes both ways.
    Gauge,
}

/// Where a figure stands in the status document. What is absent there is zero: no such run, no such room.
#[derive(Debug, Clone, Copy)]
pub enum Read {
    /// A number, times a factor that makes it a base unit.
    At(&'static str, f64),
    /// 1 for true.
    Truth(&'static str),
    /// 1 where the text is this one.
    Is(&'static str, &'static str),
    /// A sum, a count, or several fields together.
    Made(fn(&Value) -> f64),
}

/// One series of a metric with a fixed set.
#[derive(Debug, Clone, Copy)]
pub struct Series {
    /// Its label's value; empty where the metric has no label.
    pub label: &'static str,
    /// Its figure.
    pub read: Read,
}

/// Where the series of a metric come from.
#[derive(Debug, Clone, Copy)]
pub enum Source {
    /// The table.
    Fixed(&'static [Series]),
    /// One for each kind of thread, with this field, which is in thousandths of the unit where the factor says so.
    Threads(&'static str, f64),
    /// One for each reason for which the edge refuses, read below this pointer.
    Refusals(&'static str),
    /// The process, as the kernel sees it.
    Process(fn(&process::Figures) -> f64),
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// What it is.
    pub help: &'static str,
    /// Name of its label; empty for none.
    pub label: &'static str,
    /// Its series.
    pub source: Source,
}

impl Metric {
    /// Names of the labels that its series have.
    pub fn label_names(&self) -> impl Iterator<Item = &'static str> {
        Some(self.label).filter(|label| !label.is_empty()).into_iter()
    }
}

/// `GET /metrics`.
pub fn get(api: &Api, _call: &Call) -> Result<Response, Problem> {
    let status = serde_json::to_value(super::status::status(api))
        .map_err(|error| Problem::new(&codes::INTERNAL_ERROR, format!("the status cannot be read: {error}")))?;
    let text = render(&status, &process::Figures::read());
    Ok(Response::new(200, "text/plain; version=0.0.4; charset=utf-8", text.into_bytes()))
}

/// The whole text.
fn render(status: &Value, process: &process::Figures) -> String {
    let mut text = String::with_capacity(32 * 1024);
    for metric in METRICS {
        let Metric { name, kind, help, label, source } = metric;
        let kind = if *kind == Kind::Counter { "counter" } else { "gauge" };
        let _infallible = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        let mut line = |value: &str, figure: f64| {
            let _infallible = if label.is_empty() {
                writeln!(text, "{name} {figure}")
            } else {
                writeln!(text, "{name}{{{label}=\"{value}\"}} {figure}")
            };
        };
        match source {
            Source::Fixed(series) => series.iter().for_each(|series| line(series.label, series.read.figure(status))),
            Source::Threads(field, factor) => {
                for thread in status["threads"].as_array().into_iter().flatten() {
                    let figure = thread[*field].as_f64().unwrap_or(0.0) * factor;
                    line(thread["name"].as_str().unwrap_or_default(), figure);
                }
            }
            Source::Refusals(pointer) => {
                // From the code's list, not the document's: it is the same before the listener runs.
                for reason in Refused::ALL {
                    let count = status.pointer(pointer).and_then(|counts| counts[reason.name()].as_f64());
                    line(reason.name(), count.unwrap_or(0.0));
                }
            }
            Source::Process(read) => line("", read(process)),
        }
    }
    text
}

impl Read {
    fn figure(self, status: &Value) -> f64 {
        match self {
            Self::At(pointer, factor) => status.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0) * factor,
            Self::Truth(pointer) => f64::from(status.pointer(pointer) == Some(&Value::Bool(true))),
            Self::Is(pointer, text) => f64::from(status.pointer(pointer).and_then(Value::as_str) == Some(text)),
            Self::Made(make) => make(status),
        }
    }
}

/// The table of docs/operators/slo.md.
pub fn metrics_table() -> String {
    let mut text = String::from("| series | type | label | meaning |\n|---|---|---|---|\n");
    for Metric { name, kind, help, label, .. } in METRICS {
        let kind = if *kind == Kind::Counter { "counter" } else { "gauge" };
        let label = if label.is_empty() { "–".to_string() } else { format!("`{label}`") };
        let _infallible = writeln!(text, "| `{name}` | {kind} | {label} | {help} |");
    }
    text
}

#[cfg(test)]
mod tests;
