//! What a command ends with: one error type, one exit code each.
//! Owns: the exit-code contract and the text of every message of the command line.
//! May touch: nothing.
//! Never: prints; never carries a secret.

use std::fmt;
use std::path::PathBuf;

/// Exit codes. Scripts rely on them; docs/cli.md is compared with [`Exit::ALL`] by a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Success = 0,
    /// Local validation, a file or a lock, or an HTTP status without a code of its own.
    Failure = 1,
    /// The command line could not be read, or HTTP 400 or 413.
    Usage = 2,
    /// The daemon could not be reached.
    Unreachable = 3,
    /// HTTP 401 or 403.
    Denied = 4,
    /// HTTP 404.
    NotFound = 5,
    /// HTTP 409.
    Conflict = 6,
    /// HTTP 408, 429, 503 or 504, or a deadline of this command.
    Timeout = 7,
    /// The answer was not what this version understands.
    Schema = 8,
    /// The waited-for run ended failed, cancelled or interrupted.
    RunNotCompleted = 9,
}

impl Exit {
    /// Every code with its meaning, in order, for the help.
    pub const ALL: &'static [(Exit, &'static str)] = &[
        (Exit::Success, "success"),
        (Exit::Failure, "local validation, file or lock errors, any other HTTP status; `slo`: something warns"),
        (Exit::Usage, "usage error; HTTP 400, 413; `slo`: something pages"),
        (Exit::Unreachable, "could not connect, or the request could not be sent"),
        (Exit::Denied, "HTTP 401, 403"),
        (Exit::NotFound, "HTTP 404; an offline command did not find the thing"),
        (Exit::Conflict, "HTTP 409"),
        (Exit::Timeout, "HTTP 408, 429, 503, 504; a deadline of the command"),
        (Exit::Schema, "the answer could not be decoded"),
        (Exit::RunNotCompleted, "the waited-for run ended failed, cancelled or interrupted"),
    ];

    /// The code for an HTTP status outside 200 to 299.
    pub fn of_status(status: u16) -> Self {
        match status {
            400 | 413 => Self::Usage,
            401 | 403 => Self::Denied,
            404 => Self::NotFound,
            409 => Self::Conflict,
            408 | 429 | 503 | 504 => Self::Timeout,
            _ => Self::Failure,
        }
    }
}

/// How a request failed without an HTTP answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportFailure {
    /// No connection, or the request could not be sent or its answer not be read.
    Unreachable,
    /// A deadline of this command passed.
    Timeout,
    /// Refused before anything was sent: a bad address, a bad certificate file.
    Configuration,
}

/// Why a command did not succeed.
#[derive(Debug)]
pub enum CliError {
    /// The command line could not be read.
    Usage {
        /// What is wrong with it.
        message: String,
        /// The command whose `--help` explains.
        command: String,
    },
    /// A value is not acceptable.
    Invalid {
        /// The value's name.
        what: String,
        /// Why it is refused.
        cause: String,
        /// What to do.
        next: String,
    },
    /// A file could not be used.
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        cause: String,
        /// What to do.
        next: &'static str,
    },
    /// Another part of the daemon refused; its text names the next step.
    Component {
        /// What was being done.
        doing: String,
        /// The component's message.
        message: String,
    },
    /// No HTTP answer.
    Transport {
        /// The daemon's address.
        base_url: String,
        /// Which kind of failure.
        failure: TransportFailure,
        /// The cause as the network code saw it.
        cause: String,
    },
    /// An HTTP answer outside 200 to 299.
    Http {
        /// Method and path.
        request: String,
        /// Its status.
        status: u16,
        /// The problem's code, when the answer was a problem document.
        code: Option<String>,
        /// The problem's detail, or the beginning of the body.
        detail: String,
        /// For the daemon's log.
        request_id: Option<String>,
    },
    /// A 2xx answer, or an event, that cannot be decoded.
    Schema {
        /// What was being read.
        what: String,
        /// Why it cannot be.
        cause: String,
    },
    /// A thing that an offline command looked for is not there.
    NotFound {
        /// What is missing where.
        what: String,
        /// What to do.
        next: &'static str,
    },
    /// The journal's files are not what they must be.
    Damage {
        /// Which file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: String,
        /// What to do.
        next: String,
    },
    /// The waited-for run is not finished at the deadline.
    WaitTimeout {
        /// The run.
        run_id: String,
        /// Its last seen status.
        status: String,
        /// The deadline that was given.
        timeout_ms: u64,
    },
    /// The waited-for run did not complete.
    RunNotCompleted {
        /// The run.
        run_id: String,
        /// How it ended.
        status: String,
        /// Its error, when it has one.
        error: Option<String>,
    },
    /// A diagnosis found what must be mended; its report was printed.
    Findings {
        /// Which diagnosis.
        what: String,
        /// The codes of all that must be mended.
        codes: Vec<String>,
        /// The first of them in words.
        first: String,
        /// The command or step that helps against the first.
        next: String,
    },
    /// Signals of the operators' table warn.
    SloWarns {
        /// Which rows.
        rows: String,
    },
    /// Signals of the operators' table page.
    SloPages {
        /// Which rows.
        rows: String,
    },
    /// Standard output failed.
    Output {
        /// Why.
        cause: String,
    },
    /// The reader of standard output left: it has all it wanted.
    OutputClosed,
}

impl CliError {
    /// A value that is not acceptable.
    pub fn invalid(what: impl Into<String>, cause: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), cause: cause.into(), next: next.into() }
    }

    /// A refusal by another part of the daemon.
    pub fn component(doing: impl Into<String>, error: impl fmt::Display) -> Self {
        Self::Component { doing: doing.into(), message: error.to_string() }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } => Exit::Usage,
            Self::Invalid { .. }
            | Self::File { .. }
            | Self::Component { .. }
            | Self::Damage { .. }
            | Self::Findings { .. }
            | Self::Output { .. } => Exit::Failure,
            Self::Transport { failure, .. } => match failure {
                TransportFailure::Unreachable => Exit::Unreachable,
                TransportFailure::Timeout => Exit::Timeout,
                TransportFailure::Configuration => Exit::Failure,
            },
            Self::Http { status, .. } => Exit::of_status(*status),
            Self::Schema { .. } => Exit::Schema,
            Self::NotFound { .. } => Exit::NotFound,
            Self::WaitTimeout { .. } => Exit::Timeout,
            Self::RunNotCompleted { .. } => Exit::RunNotCompleted,
            Self::SloWarns { .. } => Exit::Failure,
            Self::SloPages { .. } => Exit::Usage,
            Self::OutputClosed => Exit::Success,
        }
    }

    /// The message without the operator's next step, for failures that this program deals with itself.
    pub fn without_next(&self) -> String {
        let text = self.to_string();
        text.split_once("; next:").map_or(text.as_str(), |(what, _)| what).to_string()
    }

    /// Whether a waiting or streaming command may try again: nobody answered, or the answer says "later".
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport { failure, .. } => *failure != TransportFailure::Configuration,
            Self::Http { status, .. } => matches!(status, 429 | 502 | 503 | 504),
            _ => false,
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage { message, command } => write!(f, "{message}; next: run `{command} --help`"),
            Self::Invalid { what, cause, next } => write!(f, "{what}: {cause}; next: {next}"),
            Self::File { path, cause, next } => write!(f, "{}: {cause}; next: {next}", path.display()),
            Self::Component { doing, message } => write!(f, "{doing}: {message}"),
            Self::Transport { base_url, failure, cause } => {
                let (what, next) = match failure {
                    TransportFailure::Unreachable => {
                        ("cannot reach the daemon", "start it with `kheish-daemon serve`, or check --base-url")
                    }
                    TransportFailure::Timeout => {
                        ("no answer in time from the daemon", "see its log, or try again when it has less to do")
                    }
                    TransportFailure::Configuration => ("cannot talk to the daemon", "correct --base-url or --ca-file"),
                };
                write!(f, "{what} at {base_url}: {cause}")?;
                if cause.contains("next:") { Ok(()) } else { write!(f, "; next: {next}") }
            }
            Self::Http { request, status, code, detail, request_id } => {
                write!(f, "{request}: HTTP {status}")?;
                if let Some(code) = code {
                    write!(f, " {code}")?;
                }
                if !detail.is_empty() {
                    write!(f, ": {detail}")?;
                }
                if let Some(id) = request_id {
                    write!(f, " (request {id})")?;
                }
                // Problem details name their own next step; a bare status does not.
                if detail.contains("next:") { Ok(()) } else { write!(f, "; next: {}", next_for_status(*status)) }
            }
            Self::Schema { what, cause } => {
                write!(
                    f,
                    "cannot read {what}: {cause}; next: use a kheish-daemon of the daemon's version, and check \
                           that --base-url is the daemon itself"
                )
            }
            Self::Damage { file, offset, reason, next } => {
                write!(f, "{} at byte {offset}: {reason}; next: {next}", file.display())
            }
            Self::NotFound { what, next } => write!(f, "{what}; next: {next}"),
            Self::WaitTimeout { run_id, status, timeout_ms } => {
                write!(f, "{run_id} is still {status} after {timeout_ms} ms; next: `kheish-daemon runs wait {run_id}`")
            }
            Self::RunNotCompleted { run_id, status, error } => {
                write!(f, "{run_id} ended {status}")?;
                if let Some(error) = error {
                    write!(f, ": {error}")?;
                }
                write!(f, "; next: `kheish-daemon runs events {run_id}`")
            }
            Self::Findings { what, codes, first, next } => {
                write!(f, "{what} found {} ({}): {first}; next: {next}", count(codes.len()), codes.join(", "))
            }
            Self::SloWarns { rows } => write!(f, "a warning: {rows}; next: see the rows' next commands above"),
            Self::SloPages { rows } => write!(f, "a page: {rows}; next: see the rows' next commands above"),
            Self::Output { cause } => {
                write!(f, "standard output: {cause}; next: make room or redirect the output elsewhere")
            }
            Self::OutputClosed => f.write_str("standard output was closed by its reader"),
        }
    }
}

impl std::error::Error for CliError {}

fn count(errors: usize) -> String {
    if errors == 1 { "1 error".to_string() } else { format!("{errors} errors") }
}

fn next_for_status(status: u16) -> &'static str {
    match status {
        400 | 413 | 422 => "correct the request",
        401 | 403 => "give a token with enough access: --token-file, --token or KHEISH_DAEMON_TOKEN_FILE",
        404 => "check the id, and that --base-url is the daemon",
        409 => "look at the current state, then decide",
        408 | 429 | 503 | 504 => "try again later",
        _ => "see the daemon's log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_http_status_of_the_contract_has_its_exit_code() {
        let table = [
            (400, 2),
            (413, 2),
            (401, 4),
            (403, 4),
            (404, 5),
            (409, 6),
            (408, 7),
            (429, 7),
            (503, 7),
            (504, 7),
            (405, 1),
            (422, 1),
            (500, 1),
            (502, 1),
            (302, 1),
        ];
        for (status, code) in table {
            assert_eq!(Exit::of_status(status) as u8, code, "HTTP {status}");
        }
    }

    #[test]
    fn every_message_names_a_next_step() {
        let http = |detail: &str| CliError::Http {
            request: "GET /v1/status".into(),
            status: 500,
            code: None,
            detail: detail.into(),
            request_id: Some("r1".into()),
        };
        let transport = |failure| CliError::Transport { base_url: "http://a".into(), failure, cause: "refused".into() };
        let errors = [
            CliError::Usage { message: "m".into(), command: "kheish-daemon".into() },
            CliError::invalid("a", "b", "c"),
            CliError::File { path: "p".into(), cause: "c".into(), next: "n" },
            transport(TransportFailure::Unreachable),
            transport(TransportFailure::Timeout),
            transport(TransportFailure::Configuration),
            http(""),
            http("broken; next: mend it"),
            CliError::Schema { what: "w".into(), cause: "c".into() },
            CliError::NotFound { what: "w".into(), next: "n" },
            CliError::Damage { file: "f".into(), offset: 1, reason: "r".into(), next: "n".into() },
            CliError::WaitTimeout { run_id: "run-1".into(), status: "running".into(), timeout_ms: 5 },
            CliError::RunNotCompleted { run_id: "run-1".into(), status: "failed".into(), error: None },
            CliError::Findings { what: "doctor".into(), codes: vec!["c".into()], first: "f".into(), next: "n".into() },
            CliError::SloWarns { rows: "disk".into() },
            CliError::SloPages { rows: "health".into() },
            CliError::Output { cause: "full".into() },
        ];
        for error in errors {
            assert_eq!(error.to_string().matches("next:").count(), 1, "{error}");
        }
    }
}
