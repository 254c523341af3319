//! Calling a hook by a command.
//! Owns: the judgement of how the command ended.
//! May touch: one worker process of the sandbox, started for this call and ended with it.
//! Never: runs a command outside the sandbox, or with more in its environment than a tool's.

use std::time::Instant;

use serde_json::value::to_raw_value;

use super::call::{Answered, Around, Failed};
use super::outcome::Answer;
use crate::net::Cancel;
use crate::sandbox::{ToolWorker, WorkerError};
use crate::tools::{HOOK, HookCall, HookEnded};

/// Runs `command` with the invocation on its standard input until it ends or `deadline` comes.
pub(super) fn call(
    around: &Around,
    (shell, command): (Option<&str>, &str),
    invocation: &[u8],
    deadline: Instant,
    cancel: &Cancel,
) -> Answered {
    let failed = |class, text: String, retryable| Answered::failed(Failed::new(class, text, retryable));
    let input = String::from_utf8_lossy(invocation);
    let input = match to_raw_value(&HookCall { command, shell, input: &input }) {
        Ok(input) => input,
        Err(error) => return failed("not_started", error.to_string(), false),
    };
    if cancel.is_cancelled() {
        return Answered::failed(Failed::cancelled());
    }
    let worker = around.sandbox.spec(&around.workspace).and_then(|spec| ToolWorker::start(&spec));
    let mut worker = match worker {
        Ok(worker) => worker,
        Err(error) => return failed("sandbox_unavailable", error.to_string(), false),
    };
    let left_ms = u64::try_from(deadline.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(u64::MAX);
    if left_ms == 0 {
        return Answered::failed(Failed::timed_out());
    }
    match worker.call(HOOK, &input, left_ms, cancel) {
        Ok(output) => match serde_json::from_str::<HookEnded>(&output.content) {
            Ok(ended) => judge(ended, output.overflow.unwrap_or_default()),
            Err(_) => {
                failed("not_started", "the command could not be started; next: check its shell".to_string(), true)
            }
        },
        Err(WorkerError::TimedOut { .. }) => Answered::failed(Failed::timed_out()),
        Err(WorkerError::Cancelled) => Answered::failed(Failed::cancelled()),
        Err(error) => failed("worker_died", error.to_string(), true),
    }
}

fn judge(ended: HookEnded, printed: Vec<u8>) -> Answered {
    let refuse = |class, text: String, retryable| Answered::failed(Failed::new(class, text, retryable));
    match ended.exit_code {
        _ if ended.too_large => refuse("answer_too_large", "it printed too much".to_string(), false),
        _ if ended.timed_out => Answered::failed(Failed::timed_out()),
        Some(0) => Answered { result: Answered::read(&printed), http_status: None, body: Some(printed) },
        Some(2) if printed.trim_ascii().is_empty() => {
            let words = ended.stderr.trim();
            let reason = if words.is_empty() { "the hook said no" } else { words };
            Answered { result: Ok(Answer::blocked(reason)), http_status: None, body: Some(Vec::new()) }
        }
        Some(code) => refuse("exit_status", format!("it ended with status {code}"), true),
        None => match ended.signal {
            Some(signal) => refuse("signal", format!("signal {signal} ended it"), true),
            None => refuse("signal", "it did not end by itself".to_string(), true),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(exit_code: Option<i32>, stderr: &str) -> HookEnded {
        HookEnded { exit_code, signal: None, timed_out: false, too_large: false, stderr: stderr.to_string() }
    }

    #[test]
    fn the_status_decides_what_the_output_means() {
        let shown = |ended: HookEnded, printed: &str| match judge(ended, printed.as_bytes().to_vec()).result {
            Ok(answer) => (answer.block, answer.reason.unwrap_or_default(), true),
            Err(failed) => (true, failed.class.to_string(), failed.retryable),
        };
        let text = |word: &str| word.to_string();
        assert_eq!(shown(ended(Some(0), "words"), ""), (false, String::new(), true));
        assert_eq!(shown(ended(Some(0), ""), "{\"decision\":\"block\"}"), (true, String::new(), true));
        assert_eq!(shown(ended(Some(0), ""), "yes"), (true, text("answer_malformed"), false));
        assert_eq!(shown(ended(Some(2), "not today\n"), " \n"), (true, text("not today"), true));
        assert_eq!(shown(ended(Some(2), ""), ""), (true, text("the hook said no"), true));
        assert_eq!(shown(ended(Some(2), "not today"), "x"), (true, text("exit_status"), true));
        assert_eq!(shown(ended(Some(1), ""), "{}"), (true, text("exit_status"), true));
        assert_eq!(shown(HookEnded { signal: Some(9), ..ended(None, "") }, "{}"), (true, text("signal"), true));
        assert_eq!(shown(HookEnded { timed_out: true, ..ended(None, "") }, "{}"), (true, text("timeout"), true));
        // Whatever it says: an answer that was not taken in whole is none.
        let flooded = HookEnded { too_large: true, ..ended(Some(0), "") };
        assert_eq!(shown(flooded, "{}"), (true, text("answer_too_large"), false));
    }
}
