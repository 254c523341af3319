//! Processes of tasks that nobody looks after any more.
//! Owns: finding them by the token that they carry in their environment, and ending them.
//! May touch: `/proc`, and only processes that carry the token.
//! Never: signals a process by its number alone: numbers are used again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::worker::TOKEN_VARIABLE;
use crate::limits::{TASK_ENVIRONMENT_BYTES_MAX, TOOL_KILL_MS_MAX, TOOL_KILL_STEP_MS};
use crate::sys;
use crate::sys::process::{SIGKILL, wait_readable};

/// Ends every process that carries one of `tokens`; those that could not be ended, by token.
pub(super) fn end(tokens: &[&str]) -> BTreeMap<String, Vec<u32>> {
    let deadline = Instant::now() + Duration::from_millis(TOOL_KILL_MS_MAX);
    loop {
        let found = strike(tokens);
        if found.is_empty() || Instant::now() >= deadline {
            return found;
        }
        // They are not our children, so there is no event for their end.
        drop(wait_readable(&[], Duration::from_millis(TOOL_KILL_STEP_MS)));
    }
}

/// Kills every process that carries one of `tokens`, once; those that were found, by token.
pub(super) fn strike(tokens: &[&str]) -> BTreeMap<String, Vec<u32>> {
    let found = find(tokens);
    for pid in found.values().flatten() {
        // Gone meanwhile is what is wanted.
        drop(sys::kill(*pid, SIGKILL));
    }
    found
}

/// Living processes that carry one of `tokens`.
fn find(tokens: &[&str]) -> BTreeMap<String, Vec<u32>> {
    let mut found: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    if tokens.is_empty() {
        return found;
    }
    let wanted: BTreeMap<Vec<u8>, &str> =
        tokens.iter().map(|token| (format!("{TOKEN_VARIABLE}={token}").into_bytes(), *token)).collect();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let Some(environment) = environment_of(pid) else { continue };
        if let Some(token) = environment.split(|byte| *byte == 0).find_map(|variable| wanted.get(variable)) {
            found.entry((*token).to_string()).or_default().push(pid);
        }
    }
    found
}

/// What a living process was started with; a zombie has nothing.
fn environment_of(pid: u32) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(format!("/proc/{pid}/environ")).ok()?;
    file.take(TASK_ENVIRONMENT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ended whatever becomes of the test, and without its output: a process that is left would be found by the next run, and
    /// whoever reads the test's output would wait for it.
    struct Sleeper(std::process::Child);

    impl Sleeper {
        fn start(token: &str) -> Self {
            use std::process::{Command, Stdio};
            let mut command = Command::new("sleep");
            command
                .arg("1000")
                .env(TOKEN_VARIABLE, token)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let sleeper = Self(command.spawn().unwrap());
            // `spawn` returns when the descriptors of the old program are closed, which is a little before the kernel has put
            // the new one's environment in place.
            let deadline = Instant::now() + Duration::from_secs(60);
            while environment_of(sleeper.0.id()).is_none_or(|environment| environment.is_empty()) {
                assert!(Instant::now() < deadline, "the program never got its environment");
                drop(wait_readable(&[], Duration::from_millis(TOOL_KILL_STEP_MS)));
            }
            sleeper
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ended_already = self.0.kill();
            let _taken_in = self.0.wait();
        }
    }

    #[test]
    fn only_processes_with_the_token_are_ended() {
        // Another run of this test may be under way on the same machine.
        let token = format!("leftover-{}", std::process::id());
        let (mut ours, mut other) = (Sleeper::start(&token), Sleeper::start(&format!("{token}x")));
        assert_eq!(find(&[&token]), BTreeMap::from([(token.clone(), vec![ours.0.id()])]));
        assert_eq!(end(&[&token, "nobody"]), BTreeMap::new());
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(ours.0.wait().unwrap().signal(), Some(SIGKILL));
        assert_eq!(other.0.try_wait().unwrap(), None, "a process with another token was ended");
    }
}
