//! Notices to the service manager: datagrams of `NAME=value` lines.
//! Owns: the address in NOTIFY_SOCKET and the socket they are sent from.
//! May touch: that one address.
//! Never: waits, and never fails the daemon: a notice that cannot be sent is logged once.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::limits::NOTICE_STATUS_BYTES_MAX;

/// The way to the service manager, if there is one.
#[derive(Debug)]
pub struct Notifier {
    target: Option<(UnixDatagram, SocketAddr)>,
    has_failed: AtomicBool,
}

impl Notifier {
    /// Sends to the address of NOTIFY_SOCKET: an absolute path, or `@name` for a name without a file. Another form is
    /// logged and nothing is sent.
    pub(super) fn of(address: Option<&OsStr>) -> Self {
        let target = address.and_then(|address| match open(address) {
            Ok(target) => Some(target),
            Err(error) => {
                log::warn!(
                    "NOTIFY_SOCKET {}: {error}; the service manager is told nothing; next: use a service manager \
                     that speaks over unix sockets",
                    address.display()
                );
                None
            }
        });
        Self { target, has_failed: AtomicBool::new(false) }
    }

    /// Whether anybody listens for notices.
    pub fn is_heard(&self) -> bool {
        self.target.is_some()
    }

    /// Sends one notice of several lines.
    pub fn send(&self, lines: &str) {
        let Some((socket, address)) = &self.target else { return };
        if let Err(error) = socket.send_to_addr(lines.as_bytes(), address)
            && !self.has_failed.swap(true, Relaxed)
        {
            log::warn!(
                "the service manager could not be told {:?}: {error}; next: check that it runs; further failures are \
                 not logged",
                lines.lines().next().unwrap_or_default()
            );
        }
    }

    /// The daemon does what it is for from now on.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\n{}", status_line(status)));
    }

    /// One line for people.
    pub fn status(&self, status: &str) {
        self.send(&status_line(status));
    }

    /// The daemon ends within `budget_ms`, during which the watchdog is not fed: so long neither it nor the service
    /// manager's stop time ends us.
    pub fn stopping(&self, budget_ms: u64, watched: bool) {
        let budget_us = budget_ms.saturating_mul(1_000);
        let watchdog = if watched { format!("WATCHDOG_USEC={budget_us}\nWATCHDOG=1\n") } else { String::new() };
        self.send(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={budget_us}\n{watchdog}{}", status_line("stopping")));
    }
}

/// `STATUS=` of the first line of a text, cut at a bound.
fn status_line(status: &str) -> String {
    let line = status.lines().next().unwrap_or_default();
    let end = line.floor_char_boundary(NOTICE_STATUS_BYTES_MAX);
    format!("STATUS={}", &line[..end])
}

fn open(address: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] if !name.is_empty() => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => return Err(io::Error::other("neither an absolute path nor @name")),
    };
    let socket = UnixDatagram::unbound()?;
    // A service manager that does not read must not hold up the thread that watches the others.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_root::scratch::Scratch;

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 4096];
        let count = socket.recv(&mut bytes).expect("a notice");
        String::from_utf8(bytes[..count].to_vec()).expect("text")
    }

    #[test]
    fn notices_reach_a_path_and_an_abstract_name() {
        let scratch = Scratch::new("notify");
        let path = scratch.path().join("n");
        let named = format!("kheish-notify-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&named).expect("a name");
        let at_name = UnixDatagram::bind_addr(&abstract_address).expect("bound");
        let at_path = UnixDatagram::bind(&path).expect("bound");
        for (address, socket) in [(path.clone().into_os_string(), &at_path), (format!("@{named}").into(), &at_name)] {
            let notifier = Notifier::of(Some(&address));
            assert!(notifier.is_heard());
            notifier.ready("listening\non two lines");
            assert_eq!(heard(socket), "READY=1\nSTATUS=listening");
            notifier.stopping(20_000, true);
            let expected =
                "STOPPING=1\nEXTEND_TIMEOUT_USEC=20000000\nWATCHDOG_USEC=20000000\nWATCHDOG=1\nSTATUS=stopping";
            assert_eq!(heard(socket), expected);
            notifier.stopping(1, false);
            assert_eq!(heard(socket), "STOPPING=1\nEXTEND_TIMEOUT_USEC=1000\nSTATUS=stopping");
        }
    }

    #[test]
    fn an_address_that_cannot_be_used_stops_nothing() {
        for address in ["", "@", "relative", "vsock:2:1", "/nowhere/socket"] {
            Notifier::of(Some(OsStr::new(address))).ready("ready");
        }
        assert!(!Notifier::of(None).is_heard());
    }

    #[test]
    fn a_manager_that_does_not_read_does_not_hold_us_up() {
        let scratch = Scratch::new("notify-full");
        let path = scratch.path().join("n");
        let _deaf = UnixDatagram::bind(&path).expect("bound");
        let notifier = Notifier::of(Some(path.as_os_str()));
        // Far more than the kernel queues: the test ends, or it hangs.
        for _ in 0..10_000 {
            notifier.send("WATCHDOG=1");
        }
        assert!(notifier.has_failed.load(Relaxed));
    }

    #[test]
    fn a_long_status_is_cut_between_characters() {
        let long = "\u{e9}".repeat(NOTICE_STATUS_BYTES_MAX);
        let line = status_line(&long);
        assert!(line.len() <= "STATUS=".len() + NOTICE_STATUS_BYTES_MAX && line.ends_with('\u{e9}'));
    }
}
