//! Findings and their list.
//! Owns: the wire form of one check, the order of severities, and which of two equal findings stays.
//! Never: drops an error for a milder finding.

use serde::Serialize;

use super::codes;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Will need somebody.
    Warning,
    /// Needs somebody now; the command fails.
    Error,
}

impl Severity {
    /// From the daemon's word; one that is not known is taken for the worst.
    pub fn of(word: &str) -> Self {
        match word {
            "info" => Self::Info,
            "warning" => Self::Warning,
            _ => Self::Error,
        }
    }

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One row of a report: what was looked at, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// What was found, for machines; the same as `name` when all is well.
    pub code: String,
    /// Whether this is no error and no warning.
    pub ok: bool,
    /// How bad it is.
    pub severity: Severity,
    /// For people.
    pub message: String,
    /// The command or step that helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// What it is about: a path, a route, a run, an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub related_id: Option<String>,
}

/// A list of checks in the making.
#[derive(Debug, Default)]
pub struct Findings(Vec<Check>);

impl Findings {
    /// Adds a finding of the table, with the table's next step.
    ///
    /// # Panics
    /// The table has no such code, which is a mistake in this program.
    pub fn add(&mut self, code: &'static str, message: impl Into<String>, related_id: Option<String>) {
        self.add_with(code, message, related_id, None);
    }

    /// As [`Findings::add`], with a next step that fits better than the table's.
    pub fn add_with(
        &mut self,
        code: &'static str,
        message: impl Into<String>,
        related_id: Option<String>,
        action: Option<String>,
    ) {
        let row = codes::find(code).unwrap_or_else(|| panic!("{code} is not in the table of codes"));
        self.push(Check {
            name: row.check.to_string(),
            code: code.to_string(),
            ok: row.severity == Severity::Info,
            severity: row.severity,
            message: message.into(),
            action: Some(action.unwrap_or_else(|| row.next.to_string())),
            related_id,
        });
    }

    /// Adds what the daemon itself reports, under its own code.
    pub fn add_reported(
        &mut self,
        severity: Severity,
        code: &str,
        message: &str,
        related_id: Option<String>,
        action: Option<String>,
    ) {
        let action = action.or_else(|| (severity > Severity::Info).then(|| codes::NEXT_STATUS.to_string()));
        let (name, code) = (code.to_string(), code.to_string());
        let ok = severity == Severity::Info;
        self.push(Check { name, code, ok, severity, message: message.to_string(), action, related_id });
    }

    /// Adds a check that found nothing wrong; left out when the same check has found something.
    pub fn pass(&mut self, name: &'static str, message: impl Into<String>) {
        if self.0.iter().any(|check| check.name == name && !check.ok) {
            return;
        }
        let (name, code) = (name.to_string(), name.to_string());
        let (message, action, related_id) = (message.into(), None, None);
        self.push(Check { name, code, ok: true, severity: Severity::Info, message, action, related_id });
    }

    /// Of two findings with one code about one thing the worse stays, in the first one's place.
    fn push(&mut self, check: Check) {
        let same = |known: &Check| known.code == check.code && known.related_id == check.related_id;
        if let Some(known) = self.0.iter_mut().find(|known| same(known) && known.severity < check.severity) {
            *known = check;
            return;
        }
        // Two different failures of one kind are two findings, even without a subject.
        let says_as_much =
            |known: &Check| same(known) && (known.severity > check.severity || known.message == check.message);
        if !self.0.iter().any(says_as_much) {
            self.0.push(check);
        }
    }

    /// Whether a check of this code is there.
    pub fn has(&self, code: &str) -> bool {
        self.0.iter().any(|check| check.code == code)
    }

    /// The rows and what follows from them.
    pub fn verdict(self) -> Verdict {
        let of =
            |severity| self.0.iter().filter(move |check| check.severity == severity).map(|check| check.message.clone());
        let (warnings, errors): (Vec<String>, Vec<String>) =
            (of(Severity::Warning).collect(), of(Severity::Error).collect());
        Verdict { ok: errors.is_empty(), warnings, errors, checks: self.0 }
    }
}

/// A finished list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// No error among them.
    pub ok: bool,
    /// Every check.
    pub checks: Vec<Check>,
    /// Messages of the warnings.
    pub warnings: Vec<String>,
    /// Messages of the errors.
    pub errors: Vec<String>,
}

impl Verdict {
    /// The errors, as rows.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.severity == Severity::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_never_dropped_for_what_came_before_it() {
        let mut found = Findings::default();
        found.add_reported(Severity::Info, "c", "mild", Some("x".into()), None);
        found.add_reported(Severity::Error, "c", "bad", Some("x".into()), None);
        found.add_reported(Severity::Warning, "c", "less bad", Some("x".into()), None);
        found.add_reported(Severity::Warning, "c", "less bad", Some("y".into()), None);
        found.add_reported(Severity::Error, "d", "bad", None, None);
        found.add_reported(Severity::Error, "d", "also bad", None, None);
        found.add_reported(Severity::Error, "d", "also bad", None, None);
        let verdict = found.verdict();
        assert!(!verdict.ok);
        assert_eq!(verdict.errors, ["bad", "bad", "also bad"]);
        assert_eq!(verdict.warnings, ["less bad"]);
        assert!(verdict.checks.iter().all(|check| check.action.is_some()), "{verdict:?}");
    }

    #[test]
    fn a_check_passes_only_while_it_has_found_nothing() {
        let mut found = Findings::default();
        found.add("readyz_not_ready", "503", None);
        found.pass("readyz", "fine");
        found.pass("storage", "fine");
        let names: Vec<_> = found.verdict().checks.into_iter().map(|check| (check.name, check.ok)).collect();
        assert_eq!(names, [("readyz".to_string(), false), ("storage".to_string(), true)]);
    }

    #[test]
    fn a_severity_that_is_not_known_is_the_worst() {
        assert_eq!(
            ["info", "warning", "error", "page", ""].map(Severity::of),
            [Severity::Info, Severity::Warning, Severity::Error, Severity::Error, Severity::Error]
        );
    }
}
