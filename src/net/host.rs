//! The host of an outbound URL, read so that nobody can read it otherwise.
//! Owns: which spellings of a host are taken.
//! Never: looks a name up; repairs a spelling that resolvers, browsers and we could understand differently.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::limits::HOST_NAME_BYTES_MAX;

/// A host in its one spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name in lower case, without the dot at its end.
    Name(String),
    /// An address that was written as one.
    Address(IpAddr),
}

impl Host {
    /// Reads a host as it stands in a URL, IPv6 addresses in brackets. Refused is whatever has a second meaning
    /// somewhere: addresses in other than their plain decimal form, zones, escapes, letters outside ASCII.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
            return Some(Self::Address(IpAddr::V6(address)));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(legal);
        if name.len() > HOST_NAME_BYTES_MAX || !name.split('.').all(is_label) {
            return None;
        }
        if !ends_in_a_number(name) {
            return Some(Self::Name(name.to_ascii_lowercase()));
        }
        // "127.0.0.1." is an address to some resolvers and a name to others.
        let address: Ipv4Addr = text.parse().ok()?;
        Some(Self::Address(IpAddr::V4(address)))
    }

    /// Whether it names this host by definition (RFC 6761): such a name is never looked up.
    pub fn is_localhost(&self) -> bool {
        matches!(self, Self::Name(name) if name == "localhost" || name.ends_with(".localhost"))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// What resolvers read as an address in one of its old forms: decimal, octal or hexadecimal, with one to four parts.
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    last.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_spelling_and_every_other_one_is_refused() {
        let taken = [
            ("API.Example.com", "api.example.com"),
            ("api.example.com.", "api.example.com"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("build_host-7", "build_host-7"),
            ("3scale.example", "3scale.example"),
            ("127.0.0.1.example", "127.0.0.1.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[0:0:0::0001]", "[::1]"),
            ("[::ffff:127.0.0.1]", "[::ffff:127.0.0.1]"),
        ];
        for (text, spelling) in taken {
            assert_eq!(Host::parse(text).map(|host| host.to_string()).as_deref(), Some(spelling), "{text}");
        }
        for text in [
            "",
            ".",
            "a..b",
            ".a",
            "a b",
            "a\tb",
            "a%2eb",
            "a@b",
            "a\\b",
            "a/b",
            "a:b",
            "bücher.example",
            "ⓛocalhost",
            "127。0。0。1",
            "2130706433",
            "0x7f000001",
            "0X7F.1",
            "017700000001",
            "0177.0.0.1",
            "127.1",
            "127.0.1",
            "127.0.0.01",
            "127.0.0.1.",
            "127.0.0.0x1",
            "1.2.3.4.5",
            "256.0.0.1",
            "[::1",
            "::1",
            "[::1%lo]",
            "[::1%25lo]",
            "[127.0.0.1]",
            "[v1.x]",
            "[]",
            &"a".repeat(64),
            &"abc.".repeat(64),
        ] {
            assert_eq!(Host::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn localhost_and_names_below_it_are_this_host() {
        for (text, local) in [
            ("localhost", true),
            ("LOCALHOST.", true),
            ("a.b.localhost", true),
            ("localhost.example", false),
            ("notlocalhost", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(Host::parse(text).expect(text).is_localhost(), local, "{text}");
        }
    }
}
