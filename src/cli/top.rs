//! `top`: the daemon's figures live, for a person at a terminal.
//! Owns: the keys, the screen's begin and end, and the pace.
//! May touch: the terminal, through `sys`; the network.
//! Never: leaves the terminal changed, however it ends; runs where nobody looks.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use argh::{ArgsInfo, FromArgs};
use serde_json::Value;

use super::client::Client;
use super::context::Context;
use super::duration::milliseconds;
use super::exit::CliError;
use super::output::output_error;
use super::path::Path;
use super::top_view;
use super::verbs::Command;
use crate::limits::{CLI_TOP_INTERVAL_MS, CLI_TOP_INTERVAL_MS_MIN, CLI_TOP_REQUEST_MS};
use crate::sys::StopSignals;
use crate::sys::process::{read, wait_readable};
use crate::sys::terminal::{RawMode, size};

/// show runs, queues, threads, deliveries and health live; q or Ctrl-C quits
#[derive(FromArgs, ArgsInfo)]
pub struct Top {
    /// pause between two looks, such as 2s
    #[argh(option, arg_name = "duration")]
    interval: Option<String>,
}

/// Switch to the terminal's other screen and hide the cursor; and back.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
const LEAVE: &str = "\u{1b}[0m\u{1b}[?25h\u{1b}[?1049l";
/// Ctrl-C, as a terminal without signals hands it over.
const CTRL_C: u8 = 3;

/// The other screen. Dropped, the first one is back.
struct Screen<'a> {
    out: &'a mut dyn Write,
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _gone = self.out.write_all(LEAVE.as_bytes()).and_then(|()| self.out.flush());
    }
}

impl Command for Top {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let keyboard = std::io::stdin();
        if !context.out.stdout_is_terminal || !keyboard.is_terminal() {
            let next = "run it at a terminal; `kheish-daemon slo` and `kheish-daemon status` are for scripts";
            return Err(CliError::invalid("top", "there is no terminal to draw on", next));
        }
        let interval_ms = self.interval.as_deref().map(|text| milliseconds("--interval", text)).transpose()?;
        let interval = Duration::from_millis(interval_ms.unwrap_or(CLI_TOP_INTERVAL_MS).max(CLI_TOP_INTERVAL_MS_MIN));
        let client = context.client()?;
        let terminal =
            |error: std::io::Error| CliError::component("the terminal", format!("{error}; next: use another one"));
        let signals = StopSignals::install().map_err(terminal)?;
        let _raw = RawMode::enter(&keyboard).map_err(terminal)?;
        let screen = Screen { out: context.out.stdout };
        screen.out.write_all(ENTER.as_bytes()).map_err(output_error)?;
        watch(&client, &keyboard, &signals, interval, screen.out)
    }
}

/// Looks and draws until somebody quits.
fn watch(
    client: &Client,
    keyboard: &impl AsFd,
    signals: &StopSignals,
    interval: Duration,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let mut seen: Result<Value, String> = Err("looking".to_string());
    let mut drawn_size = (0, 0);
    let mut next_look = Instant::now();
    loop {
        if Instant::now() >= next_look {
            seen = look(client)?;
            next_look = Instant::now() + interval;
            drawn_size = (0, 0);
        }
        // A terminal that does not know its size is taken for an ordinary one.
        let now = size(keyboard).ok().filter(|(columns, rows)| *columns > 0 && *rows > 0).unwrap_or((80, 24));
        if now != drawn_size {
            let frame = top_view::frame(&client.base_url(), &seen, now.0.into(), now.1.into());
            out.write_all(frame.as_bytes()).and_then(|()| out.flush()).map_err(output_error)?;
            drawn_size = now;
        }
        // Short enough to notice a resized window.
        let wait =
            next_look.saturating_duration_since(Instant::now()).min(Duration::from_millis(CLI_TOP_INTERVAL_MS_MIN));
        let ready = wait_readable(&[Some(keyboard.as_fd())], wait).map_err(output_error)?;
        if ready[0] {
            let mut keys = [0; 64];
            let count = read(keyboard, &mut keys).map_err(output_error)?;
            // Readable and empty: the other end has gone.
            if count == 0 || keys[..count].iter().any(|key| matches!(*key, b'q' | b'Q' | CTRL_C)) {
                return Ok(());
            }
        }
        if signals.wait(0) > 0 {
            return Ok(());
        }
    }
}

/// The status, or why there is none, to be shown in its place.
///
/// # Errors
/// This side is at fault, and looking again would not help.
fn look(client: &Client) -> Result<Result<Value, String>, CliError> {
    match client.get_within(&Path::new("/v1/status"), CLI_TOP_REQUEST_MS) {
        Ok(document) => Ok(serde_json::from_str(document.as_str()).map_err(|error| error.to_string())),
        Err(error @ CliError::Http { status: 401 | 403, .. }) => Err(error),
        Err(error) => Ok(Err(error.without_next())),
    }
}
