//! Terminals: keys as they are typed, the size of the window, and a pair for tests.
//! Owns: what was changed of a terminal, which is put back when its guard is dropped.
//! Never: leaves a terminal changed: also a panic drops the guard.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::check;

/// A terminal that hands over keys at once, shows none of them and raises no signals. Dropped, it is as it was.
pub struct RawMode {
    terminal: OwnedFd,
    before: libc::termios,
}

impl RawMode {
    /// Switches `terminal` over.
    ///
    /// # Errors
    /// It is no terminal, or is gone.
    pub fn enter(terminal: &impl AsFd) -> io::Result<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        // SAFETY: a zeroed termios is valid; it is filled by the call.
        let mut before: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: an open descriptor and a writable struct that outlives the call.
        check(unsafe { libc::tcgetattr(terminal.as_raw_fd(), &mut before) })?;
        let mut raw = before;
        raw.c_lflag &= !(libc::ICANON | libc::ECHO | libc::ISIG | libc::IEXTEN);
        raw.c_iflag &= !(libc::IXON | libc::ICRNL);
        // A read returns what is there.
        raw.c_cc[libc::VMIN] = 0;
        raw.c_cc[libc::VTIME] = 0;
        set(&terminal, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _gone = set(&self.terminal, &self.before);
    }
}

fn set(terminal: &OwnedFd, settings: &libc::termios) -> io::Result<()> {
    // SAFETY: an open descriptor and a readable struct that outlives the call.
    check(unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, settings) }).map(|_| ())
}

/// Columns and rows of a terminal's window.
///
/// # Errors
/// It is no terminal, or is gone.
pub fn size(terminal: &impl AsFd) -> io::Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: an open descriptor and a writable struct that outlives the call.
    check(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &mut size) })?;
    Ok((size.ws_col, size.ws_row))
}

/// Sets them, as a window does that is resized.
///
/// # Errors
/// As [`size`].
pub fn set_size(terminal: &impl AsFd, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: an open descriptor and a readable struct that outlives the call.
    check(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &size) }).map(|_| ())
}

/// Whether a terminal echoes what is typed, as one does that nobody has switched over.
///
/// # Errors
/// As [`size`].
pub fn echoes(terminal: &impl AsFd) -> io::Result<bool> {
    // SAFETY: a zeroed termios is valid; it is filled by the call.
    let mut now: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor and a writable struct that outlives the call.
    check(unsafe { libc::tcgetattr(terminal.as_fd().as_raw_fd(), &mut now) })?;
    Ok(now.c_lflag & libc::ECHO != 0)
}

/// Both ends of a pseudo-terminal: the one that a person sits at, and the one that a program gets.
///
/// # Errors
/// The kernel has none left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    // SAFETY: no pointers.
    let person = check(unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) })?;
    // SAFETY: the descriptor was just opened and is nobody else's.
    let person = unsafe { OwnedFd::from_raw_fd(person) };
    // SAFETY: no pointers.
    check(unsafe { libc::grantpt(person.as_raw_fd()) })?;
    // SAFETY: no pointers.
    check(unsafe { libc::unlockpt(person.as_raw_fd()) })?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: no pointers.
    let program = check(unsafe { libc::ioctl(person.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the descriptor was just opened and is nobody else's.
    Ok((person, unsafe { OwnedFd::from_raw_fd(program) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_put_back_also_after_a_panic_and_tells_its_size() {
        let (_person, program) = pair().expect("a pseudo-terminal");
        assert!(echoes(&program).expect("a terminal"));
        let raw = RawMode::enter(&program).expect("a terminal");
        assert!(!echoes(&program).expect("a terminal"));
        drop(raw);
        assert!(echoes(&program).expect("a terminal"));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _raw = RawMode::enter(&program).expect("a terminal");
            panic!("on purpose");
        }));
        assert!(panicked.is_err() && echoes(&program).expect("a terminal"));
        set_size(&program, 132, 50).expect("a terminal");
        assert_eq!(size(&program).expect("a terminal"), (132, 50));
        let file = std::fs::File::open("/dev/null").expect("a file");
        assert!(RawMode::enter(&file).is_err() && size(&file).is_err());
    }
}
