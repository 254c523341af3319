//! Host names: what a URL names, and the patterns they are compared with.
//! Owns: the strict reading of a URL's host.
//! Never: resolves a name; what an address may be is the egress guard's business.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::limits::PERMISSION_PATTERN_BYTES_MAX;

/// The lower-case host of an http or https URL; `None` for anything that two readers could understand differently:
/// user names, backslashes, blanks, escapes, non-ASCII letters, unusual spellings of addresses.
pub(super) fn host_of(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    // A backslash is a slash to some readers, a blank or a control character ends the URL for others.
    if url.bytes().any(|byte| byte <= b' ' || byte == b'\\' || byte >= 0x7f) || authority.contains(['@', '%']) {
        return None;
    }
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, after) = rest.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        return has_port_only(after).then(|| format!("[{address}]"));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    if port.is_some_and(|port| !port.bytes().all(|digit| digit.is_ascii_digit())) {
        return None;
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    is_host(&host).then_some(host)
}

fn has_port_only(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.bytes().all(|digit| digit.is_ascii_digit()))
}

fn is_host(host: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    let is_name = !host.is_empty()
        && host.len() <= 253
        && host.split('.').all(|label| !label.is_empty() && label.len() <= 63 && label.bytes().all(legal));
    let last = host.rsplit('.').next().unwrap_or_default();
    // What ends in a number is an address to every resolver; only its plain spelling is read by all alike.
    let is_number = last.starts_with(|first: char| first.is_ascii_digit());
    is_name && (!is_number || host.parse::<Ipv4Addr>().is_ok())
}

/// A host, or with a leading `*.` every host below one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostPattern {
    below: bool,
    host: String,
}

impl HostPattern {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (below, host) = match text.strip_prefix("*.") {
            Some(host) => (true, host),
            None => (false, text),
        };
        let is_v6 = |host: &str| {
            let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            inner.and_then(|inner| inner.parse::<Ipv6Addr>().ok()).is_some_and(|address| format!("[{address}]") == host)
        };
        let legal = text.len() <= PERMISSION_PATTERN_BYTES_MAX && (is_host(host) || !below && is_v6(host));
        legal.then(|| Self { below, host: host.to_string() })
    }

    pub(super) fn matches(&self, host: &str) -> bool {
        if self.below { is_below(host, &self.host) } else { host == self.host }
    }

    /// Whether every host that `other` matches is matched by `self`.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (self.below, other.below) {
            (false, _) => self == other,
            (true, false) => self.matches(&other.host),
            (true, true) => self.host == other.host || is_below(&other.host, &self.host),
        }
    }
}

fn is_below(host: &str, apex: &str) -> bool {
    host.strip_suffix(apex).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_that_every_reader_understands_alike_have_a_host() {
        let cases: &[(&str, Option<&str>)] = &[
            ("https://docs.example.com/a?b#c", Some("docs.example.com")),
            ("HTTP://Docs.Example.COM.:443", Some("docs.example.com")),
            ("http://127.0.0.1:80/", Some("127.0.0.1")),
            ("http://[::1]:8080/x", Some("[::1]")),
            ("http://[0:0::1]/", Some("[::1]")),
            ("https://user@docs.example.com/", None),
            ("https://good.com\\@evil.com/", None),
            ("https://good.com%2f@evil.com/", None),
            ("https://good.com\t.evil.com/", None),
            ("https://göod.com/", None),
            ("http://2130706433/", None),
            ("http://0x7f.1/", None),
            ("http://127.1/", None),
            ("http://0177.0.0.1/", None),
            ("http://[::1/", None),
            ("http://[::1]x/", None),
            ("http://a:b/", None),
            ("http:///x", None),
            ("http://a..b/", None),
            ("http://.a/", None),
            ("ftp://docs.example.com/", None),
            ("docs.example.com", None),
            ("", None),
        ];
        for (url, host) in cases {
            assert_eq!(host_of(url).as_deref(), *host, "{url:?}");
        }
    }

    #[test]
    fn a_star_matches_hosts_below_and_not_the_host_itself() {
        let below = HostPattern::parse("*.example.com").expect("legal");
        for (host, matches) in [
            ("a.example.com", true),
            ("a.b.example.com", true),
            ("example.com", false),
            ("badexample.com", false),
            (".example.com", false),
            ("example.com.evil.org", false),
        ] {
            assert_eq!(below.matches(host), matches, "{host}");
        }
        for illegal in ["", "*", "*.", "*.*.com", "a*.com", "EXAMPLE.com", "a/b", "*.[::1]", "[::01]", "a.com."] {
            assert_eq!(HostPattern::parse(illegal), None, "{illegal:?}");
        }
    }
}
