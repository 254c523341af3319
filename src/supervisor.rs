//! What the service manager hands in, and what it is told. docs/operators/systemd.md.
//! Owns: the variables of the protocol (LISTEN_*, NOTIFY_SOCKET, WATCHDOG_*), which are read once and then removed.
//! May touch: the socket that the service manager listens on for notices.
//! Never: needs a service manager; without one nothing is handed in and nothing is told.

mod activation;
mod notify;
mod watchdog;

use std::ffi::OsString;

pub use activation::{ActivationError, Inherited};
pub use notify::Notifier;
pub use watchdog::{Progress, Watchdog};

use crate::sys::inherit;

/// Every variable of the protocol. A program that we start must not take them for its own.
const VARIABLES: &[&str] =
    &["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// What this process was started with.
#[derive(Debug)]
pub struct Supervisor {
    /// The listener that was passed, if one was.
    pub inherited: Option<Inherited>,
    /// Where notices go.
    pub notifier: Notifier,
    /// When a sign of life is due.
    pub watchdog: Watchdog,
}

impl Supervisor {
    /// Takes over what this process was started with and removes the variables. To be called once, before another thread
    /// exists.
    ///
    /// # Errors
    /// Sockets were passed that the daemon cannot listen on.
    pub fn of_process() -> Result<Self, ActivationError> {
        let taken: Vec<(&str, OsString)> =
            VARIABLES.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))).collect();
        inherit::forget_variables(VARIABLES);
        let variable = |name: &str| taken.iter().find(|(taken, _)| *taken == name).map(|(_, value)| value.as_os_str());
        Ok(Self {
            inherited: activation::take(&variable, std::process::id())?,
            notifier: Notifier::of(variable("NOTIFY_SOCKET")),
            watchdog: Watchdog::of(&variable, std::process::id()),
        })
    }
}
