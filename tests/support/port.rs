//! A port for a server that a test's child process binds. Owns: nothing. Never: one that the system hands out by itself, which
//! another test's socket could have by the time it is bound.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the usual range of ports that the system chooses from.
const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port of this host's that nobody listens at.
pub fn free_port() -> u16 {
    // Test binaries that run at the same time begin far from each other.
    let begin = std::process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let number = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + number % COUNT).expect("a port");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free")
}
