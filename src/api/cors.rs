//! Which browser pages may call the control plane, and under which host name.
//! Owns: the origin policy, the preflight answer, and the guard against DNS rebinding.
//! May touch: request headers.
//! Never: reflects an origin that the policy does not name; allows credentials.

use std::fmt;

use crate::http::Response;
use crate::limits::ORIGINS_CONFIGURED_MAX;

/// Methods a page may use.
const ALLOW_METHODS: &str = "GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS";
/// Request headers a page may set.
const ALLOW_HEADERS: &str = "authorization,content-type,idempotency-key,last-event-id,x-request-id,\
    x-kheish-daemon-token,x-kheish-daemon-url";
/// Response headers a page may read.
const EXPOSE_HEADERS: &str = "retry-after,x-request-id,x-total-count";
/// How long a browser may keep a preflight answer, in seconds.
const MAX_AGE_S: &str = "600";
const VARY: &str = "origin,access-control-request-method,access-control-request-headers";

/// Which origins are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CorsPolicy {
    /// Any http or https page of a loopback host.
    #[default]
    Loopback,
    /// These origins, byte for byte.
    Exact(Vec<String>),
}

/// What the policy says of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginVerdict {
    /// No page is behind the request.
    Absent,
    /// The page may call; its origin is echoed.
    Allowed(String),
    /// The page may not call.
    Rejected,
}

impl CorsPolicy {
    /// The policy for the values of `--http-cors-allow-origin`; each may hold several, separated by commas.
    ///
    /// # Errors
    /// An entry is empty, a wildcard, not loopback, or there are too many.
    pub fn from_flags(raw: &[String]) -> Result<Self, CorsConfigError> {
        let mut origins: Vec<String> = Vec::new();
        for entry in raw.iter().flat_map(|value| value.split(',')).map(str::trim) {
            if !is_loopback_origin(entry) {
                return Err(CorsConfigError::NotLoopback { entry: crate::api::text::quote(entry) });
            }
            if !origins.iter().any(|known| known == entry) {
                origins.push(entry.to_string());
            }
        }
        match origins.len() {
            0 => Ok(Self::Loopback),
            1..=ORIGINS_CONFIGURED_MAX => Ok(Self::Exact(origins)),
            _ => Err(CorsConfigError::TooMany),
        }
    }

    /// Judges the Origin headers of a request; more than one is no browser's work.
    pub fn judge<'a>(&self, mut origins: impl Iterator<Item = &'a str>) -> OriginVerdict {
        let Some(origin) = origins.next() else { return OriginVerdict::Absent };
        let allowed = origins.next().is_none()
            && match self {
                Self::Loopback => is_loopback_origin(origin),
                Self::Exact(list) => list.iter().any(|entry| entry == origin),
            };
        if allowed { OriginVerdict::Allowed(origin.to_string()) } else { OriginVerdict::Rejected }
    }

    /// `loopback` or `exact`, for `/v1/status`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Exact(_) => "exact",
        }
    }

    /// Origins of the exact list; 0 for the loopback policy.
    pub fn origin_count(&self) -> usize {
        match self {
            Self::Loopback => 0,
            Self::Exact(list) => list.len(),
        }
    }
}

/// Adds the headers that let a page of `origin` read `response`.
pub fn allow(response: Response, origin: &str) -> Response {
    response
        .with_header("access-control-allow-origin", origin)
        .with_header("access-control-allow-methods", ALLOW_METHODS)
        .with_header("access-control-allow-headers", ALLOW_HEADERS)
        .with_header("access-control-expose-headers", EXPOSE_HEADERS)
        .with_header("access-control-max-age", MAX_AGE_S)
        .with_header("vary", VARY)
}

/// Whether `origin` is that of a page served by this host: `http(s)://localhost`, `127.0.0.1` or `[::1]`,
/// with or without a port, and nothing else.
fn is_loopback_origin(origin: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let scheme_known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    scheme_known && split_authority(authority).is_some_and(is_published_loopback_name)
}

fn is_published_loopback_name(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host == "127.0.0.1" || host == "[::1]"
}

/// The host of `host` or `host:port`; `None` when the port is not 1 to 65535.
fn split_authority(authority: &str) -> Option<&str> {
    let (host, port) = match authority.rsplit_once(':') {
        // The last colon of a bare IPv6 literal belongs to the host.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let legal = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    port.is_none_or(legal).then_some(host)
}

/// Host names under which an unauthenticated listener answers. A page of a foreign name that resolves to
/// this host (DNS rebinding) is same-origin for its browser, so no Origin header gives it away; its Host does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostPolicy {
    allowed: Vec<String>,
}

impl HostPolicy {
    /// The policy for the values of `--http-allowed-host`, beside the loopback names.
    ///
    /// # Errors
    /// Too many entries, or one that is no host name.
    pub fn from_flags(raw: &[String]) -> Result<Self, CorsConfigError> {
        let mut allowed = Vec::new();
        for entry in raw.iter().flat_map(|value| value.split(',')).map(str::trim) {
            let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b':' | b'[' | b']');
            if entry.is_empty() || !entry.bytes().all(legal) {
                return Err(CorsConfigError::NotAHost { entry: crate::api::text::quote(entry) });
            }
            allowed.push(entry.to_ascii_lowercase());
        }
        if allowed.len() > ORIGINS_CONFIGURED_MAX { Err(CorsConfigError::TooMany) } else { Ok(Self { allowed }) }
    }

    /// Whether a request with this Host header is meant for this host. HTTP/1.0 without one is no browser.
    pub fn accepts(&self, host: Option<&str>) -> bool {
        let Some(raw) = host else { return true };
        let Some(name) = split_authority(raw) else { return false };
        let literal = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        name.eq_ignore_ascii_case("localhost")
            || literal.is_ok_and(|ip| ip.to_canonical().is_loopback())
            || self.allowed.iter().any(|entry| entry.eq_ignore_ascii_case(name))
    }
}

/// Why the daemon does not start with these origin or host flags.
#[derive(Debug, PartialEq, Eq)]
pub enum CorsConfigError {
    /// An origin is not an http(s) loopback origin.
    NotLoopback {
        /// The entry, quoted.
        entry: String,
    },
    /// A host entry is not a host name.
    NotAHost {
        /// The entry, quoted.
        entry: String,
    },
    /// Over [`ORIGINS_CONFIGURED_MAX`] entries.
    TooMany,
}

impl fmt::Display for CorsConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLoopback { entry } => write!(
                f,
                "--http-cors-allow-origin: {entry} is not a loopback origin like http://localhost:5173; \
                 next: serve the page from the daemon's own origin through the proxy, or name a loopback origin"
            ),
            Self::NotAHost { entry } => {
                write!(f, "--http-allowed-host: {entry} is no host name; next: give a name without scheme and port")
            }
            Self::TooMany => {
                write!(f, "more than {ORIGINS_CONFIGURED_MAX} origins or hosts are given; next: name fewer")
            }
        }
    }
}

impl std::error::Error for CorsConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(values: &[&str]) -> Vec<String> {
        values.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_plain_loopback_origins_pass_the_default_policy() {
        let good = [
            "http://localhost",
            "https://localhost:5173",
            "HTTP://LOCALHOST:1",
            "http://127.0.0.1",
            "http://127.0.0.1:65535",
            "https://[::1]",
            "http://[::1]:8080",
        ];
        for origin in good {
            let verdict = CorsPolicy::Loopback.judge([origin].into_iter());
            assert_eq!(verdict, OriginVerdict::Allowed(origin.to_string()), "{origin}");
        }
        let bad = [
            "",
            "null",
            "*",
            "localhost",
            "http://",
            "https://kheish.example.com",
            "http://127.0.0.2",
            "http://[localhost]",
            "http://localhost:",
            "http://localhost:0",
            "http://localhost:65536",
            "http://localhost:+80",
            "http://localhost:80:80",
            "http://localhost/",
            "http://localhost?x",
            "http://localhost#x",
            "http://u@localhost",
            "http://u:p@127.0.0.1",
            "ftp://localhost",
            "file://localhost",
            "http://localhost.evil.com",
            "http://evil.com#localhost",
            "http://::1",
            "http://[::1",
            "http://[::1]x",
            "http://[::1]:",
            "http://0.0.0.0",
            "http://127.1",
            " http://localhost",
            "http://localhost http://localhost",
            "http:////localhost",
            "http://localhost\u{130}",
        ];
        for origin in bad {
            assert_eq!(CorsPolicy::Loopback.judge([origin].into_iter()), OriginVerdict::Rejected, "{origin:?}");
        }
        assert_eq!(CorsPolicy::Loopback.judge(std::iter::empty()), OriginVerdict::Absent);
        let twice = ["http://localhost", "http://localhost"];
        assert_eq!(CorsPolicy::Loopback.judge(twice.into_iter()), OriginVerdict::Rejected);
    }

    #[test]
    fn an_exact_list_matches_byte_for_byte() {
        let policy =
            CorsPolicy::from_flags(&flags(&["http://localhost:5173, http://127.0.0.1:9", "http://localhost:5173"]))
                .unwrap();
        assert_eq!((policy.name(), policy.origin_count()), ("exact", 2));
        assert!(matches!(policy.judge(["http://localhost:5173"].into_iter()), OriginVerdict::Allowed(_)));
        for origin in ["http://localhost", "http://LOCALHOST:5173", "http://localhost:5174", "https://localhost:5173"] {
            assert_eq!(policy.judge([origin].into_iter()), OriginVerdict::Rejected, "{origin}");
        }
        assert_eq!(CorsPolicy::from_flags(&[]).unwrap(), CorsPolicy::Loopback);
        for entry in ["", " ", "*", "https://kheish.example.com", "http://localhost,", "http://localhost/path", "null"]
        {
            let error = CorsPolicy::from_flags(&flags(&[entry])).expect_err(entry);
            assert!(error.to_string().contains("; next: "), "{error}");
        }
        let many: Vec<String> = (1..=65).map(|port| format!("http://localhost:{port}")).collect();
        assert_eq!(CorsPolicy::from_flags(&many), Err(CorsConfigError::TooMany));
    }

    #[test]
    fn an_allowed_page_gets_its_headers_and_never_credentials() {
        let headers = allow(Response::empty(204), "http://localhost:5173").headers;
        assert_eq!(headers[0], ("access-control-allow-origin", "http://localhost:5173".to_string()));
        for needed in ["authorization", "content-type", "idempotency-key", "last-event-id"] {
            assert!(headers[2].1.split(',').any(|name| name == needed), "{needed}");
        }
        assert!(headers.iter().all(|(name, _)| *name != "access-control-allow-credentials"));
        assert_eq!(headers.last(), Some(&("vary", VARY.to_string())));
    }

    #[test]
    fn a_rebound_host_name_is_told_from_this_host() {
        let policy = HostPolicy::from_flags(&flags(&["box.lan,[fd00::1]"])).unwrap();
        for host in [
            "localhost",
            "LocalHost:4000",
            "127.0.0.1:4000",
            "127.8.8.8",
            "[::1]",
            "[::1]:4000",
            "box.lan",
            "BOX.lan:80",
            "[fd00::1]:1",
        ] {
            assert!(policy.accepts(Some(host)), "{host}");
        }
        assert!(policy.accepts(None));
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "box.lan.evil",
            "10.0.0.1",
            "localhost:0",
            "localhost:x",
            "[fd00::2]",
        ] {
            assert!(!policy.accepts(Some(host)), "{host}");
        }
        for entry in ["", "http://box", "a b", "*"] {
            assert!(HostPolicy::from_flags(&flags(&[entry])).is_err(), "{entry}");
        }
    }
}
