//! `doctor routes`: the routes of a daemon or of a file, and whether they work.
//! Owns: which checks are made and in which order.
//! May touch: the network, through `net`; a routes file.
//! Never: calls a provider itself; a canary is a run of the daemon.

use std::path::Path as FilePath;

use argh::{ArgsInfo, FromArgs};
use serde_json::Value;

use super::client::Client;
use super::context::Context;
use super::doctor_canary::{self, value_of};
use super::doctor_probe;
use super::environment::Environment;
use super::exit::CliError;
use super::json_text::{Document, terminal_safe};
use super::path::Path;
use super::verbs::Command;
use crate::clock::{Clock, SystemClock};
use crate::doctor::finding::Severity;
use crate::doctor::routes::{Diagnostic, Report};
use crate::hex::to_hex;
use crate::limits::CANARY_TIMEOUT_MS;
use crate::providers::Routes;

/// check the model routes: inventory, credentials, references, and real runs on them
#[derive(FromArgs, ArgsInfo)]
pub struct DoctorRoutes {
    /// only this route
    #[argh(option, arg_name = "route")]
    route: Option<String>,
    /// check this file instead of what the daemon has loaded, and compare the two
    #[argh(option, arg_name = "path")]
    routes_file: Option<String>,
    /// with --routes-file: the default route to check it with
    #[argh(option, arg_name = "route")]
    default_route: Option<String>,
    /// compare with the daemon's auth store: slot present, right vendor, not revoked, not expired; no provider is called
    #[argh(switch)]
    check_auth: bool,
    /// look for unfinished runs, sessions and settings that name routes which do not exist
    #[argh(switch)]
    check_references: bool,
    /// make one real run on each route, in a session of its own that is ended afterwards
    #[argh(switch)]
    canary: bool,
    /// with --canary: time for one route; 90000 otherwise
    #[argh(option, arg_name = "ms")]
    canary_timeout_ms: Option<u64>,
}

impl Command for DoctorRoutes {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        if self.default_route.is_some() && self.routes_file.is_none() {
            let next = "add --routes-file, or change the daemon's with `kheish-daemon runtime set-model`";
            return Err(CliError::invalid("--default-route", "it goes with --routes-file only", next));
        }
        let (report, failure) = self.examine(&context.client()?, context.env)?;
        print(context, &report)?;
        match (failure, report.ok) {
            // What kept the evidence away decides the exit code.
            (Some(error), _) => Err(error),
            (None, true) => Ok(()),
            (None, false) => Err(findings(&report)),
        }
    }
}

impl DoctorRoutes {
    /// What `--check-auth` or `--check-references` alone asks for.
    pub fn only(check_auth: bool, check_references: bool) -> Self {
        Self {
            route: None,
            routes_file: None,
            default_route: None,
            check_auth,
            check_references,
            canary: false,
            canary_timeout_ms: None,
        }
    }

    /// The report, and what kept evidence away.
    ///
    /// # Errors
    /// There is no inventory: the daemon's status could not be had.
    pub fn examine(&self, client: &Client, env: &Environment) -> Result<(Report, Option<CliError>), CliError> {
        let mut failure = None;
        let mut report = match &self.routes_file {
            Some(path) => self.of_file(FilePath::new(path), client, env),
            None => Self::of_daemon(client)?,
        };
        if let Some(route) = &self.route {
            report.keep_only(route);
        }
        if self.check_auth {
            self.auth(client, &mut report, &mut failure);
        }
        if self.check_references {
            self.references(client, &mut report, &mut failure);
        }
        if self.canary {
            self.canaries(client, &mut report);
        }
        report.finish();
        Ok((report, failure))
    }

    fn of_daemon(client: &Client) -> Result<Report, CliError> {
        let status = doctor_probe::status(client).0?;
        let mut report = Report::of_status(&status);
        report.check_readiness(&status);
        Ok(report)
    }

    fn of_file(&self, path: &FilePath, client: &Client, env: &Environment) -> Report {
        let read =
            Routes::load(path, self.default_route.as_deref(), &|name| env.get(name).ok().flatten().map(str::to_string));
        let mut report = Report::of_file(read.as_ref());
        let Ok(routes) = read else { return report };
        match doctor_probe::status(client).0 {
            Ok(status) => {
                let text = |pointer: &str| status.pointer(pointer).and_then(Value::as_str);
                let loaded = text("/runtime/routes_file/path").zip(text("/runtime/routes_file/sha256"));
                report.compare(&to_hex(&routes.source().sha256), loaded);
            }
            // Everything that needs a daemon fails by itself, so this alone is no failure.
            Err(error) => report.add("route_file_drift_unchecked", None, error.without_next()),
        }
        report
    }

    fn auth(&self, client: &Client, report: &mut Report, failure: &mut Option<CliError>) {
        let slots = client.get(&Path::new("/v1/runtime/secrets")).and_then(|document| {
            document.require_list("/v1/runtime/secrets")?;
            value_of(&document, "the list of slots")
        });
        match slots {
            Ok(slots) => {
                if self.routes_file.is_some() {
                    let message = "the slots are those of the running daemon";
                    report.add("auth_check_uses_running_daemon", None, message);
                }
                report.check_auth(slots.as_array().map(Vec::as_slice).unwrap_or_default(), SystemClock.now_ms());
            }
            Err(error) => {
                report.add("auth_check_failed", None, error.without_next());
                failure.get_or_insert(error);
            }
        }
    }

    fn references(&self, client: &Client, report: &mut Report, failure: &mut Option<CliError>) {
        if self.routes_file.is_some() {
            let message = "--check-references looks at a running daemon, and --routes-file at a file";
            return report.add("route_reference_check_requires_runtime", None, message);
        }
        let path = Path::new("/v1/runtime/route-references");
        match client.get(&path).and_then(|document| value_of(&document, "the route references")) {
            Ok(references) => report.check_references(&references),
            Err(error) => {
                report.add("route_reference_check_failed", None, error.without_next());
                failure.get_or_insert(error);
            }
        }
    }

    fn canaries(&self, client: &Client, report: &mut Report) {
        if self.routes_file.is_some() {
            let message = "--canary makes runs on a daemon, and --routes-file checks a file";
            return report.add("route_canary_requires_runtime", None, message);
        }
        let timeout_ms = self.canary_timeout_ms.unwrap_or(CANARY_TIMEOUT_MS).max(1);
        // One after the other: a shared rate limit would fail several at once.
        for route in report.routes.clone() {
            let (canary, open) = doctor_canary::run(client, &route, timeout_ms);
            let session = canary.session_id.clone();
            report.add_canary(canary);
            if let Some(error) = open {
                let message = format!("session {session} is still open: {}", error.without_next());
                let next = format!("kheish-daemon sessions end {session}");
                report.add_with("route_canary_not_cleaned_up", Some(&route.route_id), message, Some(next));
            }
        }
    }
}

fn print(context: &mut Context<'_>, report: &Report) -> Result<(), CliError> {
    if !context.out.is_for_a_person() {
        return context.out.document(&Document::of(report));
    }
    let mut text = String::new();
    for route in &report.routes {
        let auth = route.auth_ref.as_deref().unwrap_or(route.auth_kind);
        text.push_str(&format!("route    {:<20} {:<18} {:<24} {auth}\n", route.route_id, route.provider, route.model));
    }
    for canary in &report.canaries {
        text.push_str(&format!(
            "canary   {:<20} {:<18} {} ms: {}\n",
            canary.route_id, canary.status, canary.duration_ms, canary.message
        ));
    }
    for one in &report.diagnostics {
        text.push_str(&format!("{:<8} {:<32} {}\n", one.severity.as_str(), one.code, one.message));
        if let Some(action) = one.action.as_ref().filter(|_| one.severity > Severity::Info) {
            text.push_str(&format!("{:<8} next: {action}\n", ""));
        }
    }
    text.push_str(&format!("{}; {}\n", if report.ok { "ok" } else { "not ok" }, report.note));
    text.lines().try_for_each(|line| context.out.line(&terminal_safe(line)))
}

fn findings(report: &Report) -> CliError {
    let errors: Vec<&Diagnostic> = report.diagnostics.iter().filter(|one| one.severity == Severity::Error).collect();
    let mut codes: Vec<String> = errors.iter().map(|one| one.code.clone()).collect();
    codes.dedup();
    let first = errors.first();
    CliError::Findings {
        what: "doctor routes".to_string(),
        codes,
        first: first.map(|one| without_next(&one.message)).unwrap_or_default(),
        next: first.and_then(|one| one.action.clone()).unwrap_or_default(),
    }
}

fn without_next(message: &str) -> String {
    message.split("; next: ").next().unwrap_or_default().to_string()
}
