//! Socket activation: a listener that outlives the daemon.
//! Owns: which passed descriptors are meant for this process, and the refusal of what cannot be listened on.
//! May touch: the passed descriptors.
//! Never: guesses; of two sockets none is taken.

use std::ffi::OsStr;
use std::fmt;
use std::net::TcpListener;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::http::Bind;
use crate::limits::PASSED_DESCRIPTORS_MAX;
use crate::sys::inherit::{self, ListenerKind};

/// A listening socket that the service manager made and keeps: connections wait in its queue while the daemon restarts.
#[derive(Debug)]
pub struct Inherited {
    /// The socket.
    pub listener: OwnedFd,
    /// Where it listens.
    pub bind: Bind,
}

/// Why what was passed cannot be listened on.
#[derive(Debug, PartialEq, Eq)]
pub enum ActivationError {
    /// LISTEN_FDS is no number within bounds.
    Count {
        /// What it is.
        found: String,
    },
    /// More than one socket.
    Several {
        /// Their names, in order.
        names: Vec<String>,
    },
    /// It is no listening stream socket.
    NotAListener {
        /// Its name.
        name: String,
    },
    /// A unix socket without a path: no file mode says who may connect.
    NoPath {
        /// Its name.
        name: String,
    },
}

impl fmt::Display for ActivationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count { found } => write!(
                f,
                "LISTEN_FDS is {found:?}, not a number from 1 to {PASSED_DESCRIPTORS_MAX}; next: start the daemon \
                 through its socket unit, or without LISTEN_FDS"
            ),
            Self::Several { names } => write!(
                f,
                "{} sockets were passed ({}) and the daemon listens on one; next: keep one ListenStream= in the \
                 socket unit",
                names.len(),
                names.join(", ")
            ),
            Self::NotAListener { name } => write!(
                f,
                "the passed descriptor {name} is no listening stream socket; next: use ListenStream= and Accept=no in \
                 the socket unit"
            ),
            Self::NoPath { name } => write!(
                f,
                "the passed socket {name} is a unix socket without a path, which everybody on this host could \
                 connect to; next: give ListenStream= an absolute path"
            ),
        }
    }
}

impl std::error::Error for ActivationError {}

/// The one socket that was passed to the process `pid`; `None` when the variables are for nobody or for another process.
pub(super) fn take<'v>(
    variable: &impl Fn(&str) -> Option<&'v OsStr>,
    pid: u32,
) -> Result<Option<Inherited>, ActivationError> {
    // A parent that forgot to remove its variables must not make us take over its descriptors.
    if variable("LISTEN_PID").and_then(OsStr::to_str).and_then(|text| text.parse().ok()) != Some(pid) {
        return Ok(None);
    }
    let Some(count) = variable("LISTEN_FDS") else { return Ok(None) };
    let parsed = count.to_str().and_then(|text| text.parse::<usize>().ok());
    let count = parsed
        .filter(|count| (1..=PASSED_DESCRIPTORS_MAX).contains(count))
        .ok_or_else(|| ActivationError::Count { found: count.to_string_lossy().into_owned() })?;
    let names = variable("LISTEN_FDNAMES").map(OsStr::to_string_lossy).unwrap_or_default();
    let mut given = names.split(':').filter(|name| !name.is_empty());
    let names: Vec<String> =
        (0..count).map(|index| given.next().map_or_else(|| format!("number {index}"), str::to_string)).collect();
    let mut taken: Vec<_> =
        (0..count).map(|index| inherit::take_descriptor(inherit::FIRST_PASSED + index as RawFd)).collect();
    let (Some(taken), true) = (taken.pop(), taken.is_empty()) else { return Err(ActivationError::Several { names }) };
    let name = names.into_iter().next().unwrap_or_default();
    let listener = taken.map_err(|_| ActivationError::NotAListener { name: name.clone() })?;
    let bind = address(&listener, name)?;
    log::info!("the service manager passed the listener {bind}; --bind is not used");
    Ok(Some(Inherited { listener, bind }))
}

fn address(listener: &OwnedFd, name: String) -> Result<Bind, ActivationError> {
    let refused = |_| ActivationError::NotAListener { name: name.clone() };
    match inherit::listener_kind(listener) {
        Some(ListenerKind::Tcp) => {
            let listener = TcpListener::from(listener.try_clone().map_err(refused)?);
            listener.local_addr().map(Bind::Tcp).map_err(refused)
        }
        Some(ListenerKind::Unix) => {
            let listener = UnixListener::from(listener.try_clone().map_err(refused)?);
            let address = listener.local_addr().map_err(refused)?;
            let path = address.as_pathname().filter(|path| path.is_absolute()).map(Path::to_path_buf);
            path.map(Bind::Unix).ok_or(ActivationError::NoPath { name })
        }
        None => Err(ActivationError::NotAListener { name }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(variables: &[(&str, &str)]) -> Result<bool, ActivationError> {
        let variable =
            |name: &str| variables.iter().find(|(named, _)| *named == name).map(|(_, value)| OsStr::new(*value));
        take(&variable, 7).map(|taken| taken.is_some())
    }

    #[test]
    fn descriptors_of_another_process_are_left_alone() {
        assert_eq!(taken(&[]), Ok(false));
        assert_eq!(taken(&[("LISTEN_FDS", "1")]), Ok(false));
        for pid in ["8", "", "x", "-7", "07x"] {
            assert_eq!(taken(&[("LISTEN_PID", pid), ("LISTEN_FDS", "1")]), Ok(false), "{pid:?}");
        }
        assert_eq!(taken(&[("LISTEN_PID", "7")]), Ok(false));
    }

    #[test]
    fn a_count_that_is_none_is_refused() {
        for count in ["0", "-1", "x", "", "65", "99999999999999999999"] {
            let refused = taken(&[("LISTEN_PID", "7"), ("LISTEN_FDS", count)]);
            assert_eq!(refused, Err(ActivationError::Count { found: count.to_string() }), "{count:?}");
        }
    }

    #[test]
    fn every_refusal_names_a_next_step() {
        let name = || "web".to_string();
        for error in [
            ActivationError::Count { found: name() },
            ActivationError::Several { names: vec![name(), name()] },
            ActivationError::NotAListener { name: name() },
            ActivationError::NoPath { name: name() },
        ] {
            assert!(error.to_string().contains("; next: "), "{error}");
        }
    }
}
