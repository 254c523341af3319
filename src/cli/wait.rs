//! Waiting for a run to end.
//! Owns: the poll loop, its deadline, and how long a silent daemon is forgiven.
//! May touch: the clock and the client it is handed.
//! Never: judges how the run ended.

use std::time::{Duration, Instant};

use super::client::{Client, Stop, decode};
use super::exit::CliError;
use super::json_text::Document;
use super::path::Path;
use super::run_view::RunView;
use crate::limits::{CLI_POLL_INTERVAL_MS_MIN, CLI_REQUEST_TIMEOUT_MS};

/// How to wait, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Wait {
    /// Between two polls.
    pub poll_interval_ms: u64,
    /// In total; `None` waits as long as it takes.
    pub timeout_ms: Option<u64>,
    /// From the first of several failed polls in a row to giving up.
    pub transient_grace_ms: u64,
}

/// How the waiting ended.
#[derive(Debug, PartialEq)]
pub enum Waited {
    /// The run has ended.
    Ended(Document, RunView),
    /// The deadline came first; what was last seen of the run.
    TimedOut(Option<(Document, RunView)>),
}

/// Time, as the poll loop needs it.
trait Time {
    /// Milliseconds since the loop began.
    fn elapsed_ms(&self) -> u64;
    /// Lets time pass.
    fn pause(&self, ms: u64);
}

struct RealTime(Instant);

impl Time for RealTime {
    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn pause(&self, ms: u64) {
        Stop::default().wait(Duration::from_millis(ms));
    }
}

/// Polls the run until it has ended or the deadline has come.
///
/// # Errors
/// The daemon refused, or could not be reached for longer than the grace.
pub fn for_run(client: &Client, run_id: &str, wait: Wait) -> Result<Waited, CliError> {
    until(client, run_id, wait, RunView::is_final)
}

/// Polls the run until it has ended, waits for people again, or the deadline has come.
///
/// # Errors
/// As [`for_run`].
pub fn for_answer(client: &Client, run_id: &str, wait: Wait) -> Result<Waited, CliError> {
    until(client, run_id, wait, |view| view.is_final() || view.waits_for_people())
}

fn until(client: &Client, run_id: &str, wait: Wait, is_done: fn(&RunView) -> bool) -> Result<Waited, CliError> {
    let path = Path::new("/v1/runs").segment(run_id);
    poll(wait, &RealTime(Instant::now()), is_done, &mut |limit_ms| {
        let document = client.get_within(&path, limit_ms)?;
        let view = decode(&document, "the run's view")?;
        Ok((document, view))
    })
}

fn poll(
    wait: Wait,
    time: &dyn Time,
    is_done: fn(&RunView) -> bool,
    ask: &mut dyn FnMut(u64) -> Result<(Document, RunView), CliError>,
) -> Result<Waited, CliError> {
    let interval_ms = wait.poll_interval_ms.max(CLI_POLL_INTERVAL_MS_MIN);
    let remaining_ms = |elapsed_ms| wait.timeout_ms.map_or(u64::MAX, |total| total.saturating_sub(elapsed_ms));
    let mut last = None;
    let mut failing_since_ms = None;
    loop {
        let limit_ms = remaining_ms(time.elapsed_ms()).clamp(1, CLI_REQUEST_TIMEOUT_MS);
        match ask(limit_ms) {
            Ok((document, view)) if is_done(&view) => return Ok(Waited::Ended(document, view)),
            Ok(seen) => {
                last = Some(seen);
                failing_since_ms = None;
            }
            Err(error) if error.is_transient() => {
                let now_ms = time.elapsed_ms();
                let since_ms = *failing_since_ms.get_or_insert(now_ms);
                let out_of_time = remaining_ms(now_ms) == 0;
                if !out_of_time && now_ms - since_ms >= wait.transient_grace_ms {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
        let remaining = remaining_ms(time.elapsed_ms());
        if remaining == 0 {
            return Ok(Waited::TimedOut(last));
        }
        time.pause(interval_ms.min(remaining));
        if remaining_ms(time.elapsed_ms()) == 0 {
            return Ok(Waited::TimedOut(last));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::cli::exit::TransportFailure;

    #[derive(Default)]
    struct FakeTime(Cell<u64>);

    impl Time for FakeTime {
        fn elapsed_ms(&self) -> u64 {
            self.0.get()
        }

        fn pause(&self, ms: u64) {
            self.0.set(self.0.get() + ms);
        }
    }

    const RUNNING: Result<&str, u16> = Ok("running");

    /// Polls answers in turn, the last one for ever; gives the end, the time and the number of polls.
    fn check(wait: Wait, answers: &[Result<&str, u16>], expected: (&str, u64, usize)) {
        let time = FakeTime::default();
        let asked = Cell::new(0);
        let waited = poll(wait, &time, RunView::is_final, &mut |_| {
            let answer = answers[asked.get().min(answers.len() - 1)];
            asked.set(asked.get() + 1);
            let status = answer.map_err(|status| match status {
                0 => CliError::Transport {
                    base_url: String::new(),
                    failure: TransportFailure::Unreachable,
                    cause: String::new(),
                },
                status => CliError::Http {
                    request: String::new(),
                    status,
                    code: None,
                    detail: String::new(),
                    request_id: None,
                },
            })?;
            let document = Document::of(&serde_json::json!({"run_id": "run-1", "status": status}));
            let view = decode(&document, "view").expect("a view");
            Ok((document, view))
        });
        let end = match waited {
            Ok(Waited::Ended(_, view)) => view.status,
            Ok(Waited::TimedOut(last)) => format!("timeout {}", last.map_or("unseen".into(), |(_, view)| view.status)),
            Err(error) => format!("error {}", error.exit() as u8),
        };
        assert_eq!((end.as_str(), time.0.get(), asked.get()), expected);
    }

    fn wait(poll_interval_ms: u64, timeout_ms: Option<u64>) -> Wait {
        Wait { poll_interval_ms, timeout_ms, transient_grace_ms: 1_000 }
    }

    #[test]
    fn waiting_ends_with_the_run_whatever_its_end() {
        for end in ["completed", "failed", "cancelled", "interrupted"] {
            check(wait(100, None), &[RUNNING, Ok("queued"), Ok("waiting_for_approval"), Ok(end)], (end, 300, 4));
        }
    }

    #[test]
    fn the_deadline_is_exact_and_the_interval_has_a_floor() {
        check(wait(100, Some(250)), &[RUNNING], ("timeout running", 250, 3));
        check(wait(0, Some(120)), &[RUNNING], ("timeout running", 120, 3));
        check(wait(100, Some(0)), &[RUNNING], ("timeout running", 0, 1));
        check(wait(100, Some(0)), &[Ok("completed")], ("completed", 0, 1));
        check(wait(100, Some(250)), &[Err(0)], ("timeout unseen", 250, 3));
    }

    #[test]
    fn a_silent_daemon_is_forgiven_for_the_grace_and_one_answer_renews_it() {
        check(wait(400, None), &[Err(0)], ("error 3", 1_200, 4));
        check(wait(400, None), &[Err(0), Err(503), RUNNING, Err(0), Err(0), Ok("completed")], ("completed", 2_000, 6));
        check(wait(400, None), &[Err(503)], ("error 7", 1_200, 4));
        check(wait(400, None), &[RUNNING, Err(404)], ("error 5", 400, 2));
        check(wait(400, None), &[Err(401)], ("error 4", 0, 1));
    }
}
