//! The scripted provider: a loopback HTTP server that answers as the vendors' model APIs would, from a script.
//! Owns: its listener, its threads, its script and the list of requests that it has received.
//! May touch: one loopback socket and the script file.
//! Never: listens beyond this host, since it asks for no credential; shows an authorization value except as SHA-256.

mod answer;
mod chat;
mod connection;
mod format;
mod frames;
mod gemini;
mod messages;
mod requests;
mod responses;
mod script;
mod server;
mod turns;

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;

pub use script::{Script, ScriptError};
pub use server::ScriptedServer;

/// Why the scripted provider does not run.
#[derive(Debug)]
pub enum ScriptedError {
    /// The script.
    Script(ScriptError),
    /// The address is not a loopback one.
    NotLoopback(SocketAddr),
    /// The address cannot be listened on.
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        error: io::Error,
    },
    /// Threads or descriptors are refused.
    Start(io::Error),
    /// The ready line cannot be written.
    Ready(io::Error),
}

impl fmt::Display for ScriptedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Script(error) => error.fmt(f),
            Self::NotLoopback(address) => write!(
                f,
                "the scripted provider asks for no credential and listens on loopback only, not on {address}; \
                 next: bind to 127.0.0.1 or [::1]"
            ),
            Self::Bind { address, error } => {
                write!(f, "cannot listen on {address}: {error}; next: choose another port, or 0 for any")
            }
            Self::Start(error) => {
                write!(f, "cannot start the scripted provider: {error}; next: raise the limits of processes and files")
            }
            Self::Ready(error) => write!(f, "cannot write the ready line: {error}; next: check standard output"),
        }
    }
}

impl std::error::Error for ScriptedError {}

/// Loads the script, serves until `wait_for_stop` returns, and ends every connection. When the listener is
/// ready, one JSON line with the bound address goes to `ready`.
///
/// # Errors
/// See [`ScriptedError`]; nothing is listening any more.
pub fn run(
    bind: SocketAddr,
    script: &Path,
    ready: &mut dyn Write,
    wait_for_stop: impl FnOnce(),
) -> Result<(), ScriptedError> {
    let script = Script::load(script).map_err(ScriptedError::Script)?;
    let server = ScriptedServer::start(bind, script)?;
    let address = server.local_addr();
    let line = serde_json::json!({
        "event": "scripted_provider.ready",
        "address": address.to_string(),
        "base_url": format!("http://{address}/v1"),
    });
    writeln!(ready, "{line}").and_then(|()| ready.flush()).map_err(ScriptedError::Ready)?;
    wait_for_stop();
    server.stop();
    Ok(())
}
