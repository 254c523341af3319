//! Following an event stream over lost connections.
//! Owns: the cursor, the back-off and its bound.
//! May touch: the client.
//! Never: delivers an event twice, or skips one that has an id.

use std::time::Duration;

use super::client::{Client, Stop};
use super::exit::CliError;
use super::frame::Frame;
use super::path::Path;
use crate::limits::{CLI_RECONNECT_ATTEMPTS_MAX, CLI_RECONNECT_BACKOFF_MS_MAX, CLI_RECONNECT_BACKOFF_MS_MIN};

/// What to follow.
pub struct Follow<'a> {
    /// The daemon.
    pub client: &'a Client,
    /// The stream, without a cursor.
    pub path: Path,
    /// Begin behind this event.
    pub cursor: Option<u64>,
    /// Open the stream again when it ends.
    pub reconnect: bool,
    /// Ends the following from another thread.
    pub stop: Stop,
}

/// What happens on a stream.
pub enum Happening {
    /// It was opened, for the first time or again; from here on nothing is missed.
    Opened,
    /// An event.
    Frame(Frame),
    /// It ended or broke and will be opened again; the text says where.
    Interrupted(String),
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Yes.
    Continue,
    /// No.
    Stop,
}

/// Follows until `sink` says stop, the stream ends for good, or nobody answers any more.
///
/// # Errors
/// The first connection failed, the reconnections are used up, or `sink` failed.
pub fn follow(follow: &Follow<'_>, sink: &mut dyn FnMut(Happening) -> Result<Flow, CliError>) -> Result<(), CliError> {
    let mut last_id = None;
    let mut failed_in_row = 0;
    let mut was_open = false;
    loop {
        let first_cursor = follow.cursor.filter(|_| last_id.is_none()).map(|cursor| cursor.to_string());
        let path = follow.path.clone().query("cursor", first_cursor.as_deref());
        let end = match follow.client.stream(&path, last_id, &follow.stop) {
            Ok(mut events) => {
                was_open = true;
                if sink(Happening::Opened)? == Flow::Stop {
                    return Ok(());
                }
                loop {
                    match events.next() {
                        Ok(Some(frame)) => {
                            failed_in_row = 0;
                            last_id = frame.id.or(last_id);
                            if sink(Happening::Frame(frame))? == Flow::Stop {
                                return Ok(());
                            }
                        }
                        Ok(None) => break None,
                        Err(error) => break Some(error),
                    }
                }
            }
            Err(error) => Some(error),
        };
        if follow.stop.is_stopped() {
            return Ok(());
        }
        let may_retry = was_open && follow.reconnect && end.as_ref().is_none_or(CliError::is_transient);
        failed_in_row += 1;
        if !may_retry || failed_in_row > CLI_RECONNECT_ATTEMPTS_MAX {
            return end.map_or_else(|| if follow.reconnect { Err(given_up(follow)) } else { Ok(()) }, Err);
        }
        let reason = end.map_or_else(|| "the daemon ended the stream".to_string(), |error| error.without_next());
        let place = last_id.map_or_else(String::new, |id| format!(" after event {id}"));
        if sink(Happening::Interrupted(format!("{reason}; reconnecting{place}")))? == Flow::Stop {
            return Ok(());
        }
        if follow.stop.wait(backoff(failed_in_row)) {
            return Ok(());
        }
    }
}

fn given_up(follow: &Follow<'_>) -> CliError {
    CliError::Transport {
        base_url: follow.client.base_url(),
        failure: super::exit::TransportFailure::Unreachable,
        cause: format!("the stream ended {CLI_RECONNECT_ATTEMPTS_MAX} times in a row without an event"),
    }
}

/// The pause before the `attempt`th reconnection in a row, counted from 1.
fn backoff(attempt: u32) -> Duration {
    let doubled = CLI_RECONNECT_BACKOFF_MS_MIN.saturating_mul(1 << (attempt - 1).min(16));
    Duration::from_millis(doubled.min(CLI_RECONNECT_BACKOFF_MS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_its_bound() {
        let pauses: Vec<u128> = (1..=CLI_RECONNECT_ATTEMPTS_MAX).map(|attempt| backoff(attempt).as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1_000, 2_000, 4_000, 8_000, 8_000, 8_000]);
        assert_eq!(backoff(u32::MAX), backoff(CLI_RECONNECT_ATTEMPTS_MAX));
    }
}
