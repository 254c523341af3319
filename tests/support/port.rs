//! Ports for programs that must be told one before they listen, and for the certainty that nobody listens.
//! Owns: each port that it gave, for as long as its guard lives, against every other test on this machine.
//! Never: gives a port that the kernel may hand to a connection or to somebody else who asks for any port: such a port is
//! free when it is looked at and taken a moment later, and a connection to it can even meet itself.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below it, services of the host are likely.
const PORT_MIN: u16 = 10_240;
/// Where the kernel's own choice begins, unless this host says otherwise.
const EPHEMERAL_MIN_DEFAULT: u16 = 32_768;

/// A port of loopback that nobody else uses, and nobody listens on until its owner has a program do so.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// An abstract socket named after the port: one process at a time has it, and the kernel takes it back at its end.
    _claim: UnixListener,
}

impl Port {
    pub fn reserve() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let first = range.split_whitespace().next().and_then(|first| first.parse().ok());
        let end = first.filter(|first| *first > PORT_MIN).unwrap_or(EPHEMERAL_MIN_DEFAULT);
        let count = end - PORT_MIN;
        // Processes begin at different places, so that they seldom meet.
        let begin = (std::process::id().wrapping_mul(97) % u32::from(count)) as u16;
        for _ in 0..count {
            let step = NEXT.fetch_add(1, Ordering::Relaxed) % count;
            let number = PORT_MIN + ((u32::from(begin) + u32::from(step)) % u32::from(count)) as u16;
            let name = UnixAddress::from_abstract_name(format!("kheish-test-port-{number}")).expect("a short name");
            let Ok(claim) = UnixListener::bind_addr(&name) else { continue };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Self { number, _claim: claim };
            }
        }
        panic!("every port between {PORT_MIN} and {end} is taken");
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}
