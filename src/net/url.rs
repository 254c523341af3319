//! Base URLs, whole URLs, and the targets built on them.
//! Owns: what an outbound URL may look like, and where a redirect leads.
//! Never: keeps user names, passwords or fragments, nor queries of a base URL; sends a host on in the spelling that
//! came in.

use std::fmt;
use std::path::{Path, PathBuf};

use ureq::http::Uri;

use crate::limits::URL_BYTES_MAX;

use super::host::Host;

/// Why a base URL was refused. Never repeats the text, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlError {
    /// Empty, or over the length limit.
    Length,
    /// No `http://` or `https://` in front.
    Scheme,
    /// No host.
    Host,
    /// The host is written in a form that others read as another host.
    HostSpelling,
    /// `user:password@` before the host.
    UserInfo,
    /// A `?query`.
    Query,
    /// A `#fragment`.
    Fragment,
    /// Characters that do not belong into a URL, or a bad port.
    Syntax,
    /// `unix:` without an absolute path behind it.
    UnixPath,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => write!(f, "the URL is empty or over {URL_BYTES_MAX} bytes; next: give a base URL"),
            Self::Scheme => f.write_str("the URL does not start with http:// or https://; next: write it in full"),
            Self::Host => f.write_str("the URL has no host; next: write it as https://host[:port][/path]"),
            Self::HostSpelling => f.write_str(
                "the URL's host has more than one meaning; next: write a name in ASCII letters, or an address in its plain \
                 form, e.g. 127.0.0.1 or [::1]",
            ),
            Self::UserInfo => {
                f.write_str("the URL holds a user name or password; next: remove it and use a credential setting")
            }
            Self::Query => f.write_str("the URL has a query; next: remove everything from the question mark on"),
            Self::Fragment => f.write_str("the URL has a fragment; next: remove everything from the # on"),
            Self::Syntax => f.write_str("the URL is malformed; next: write it as https://host[:port][/path]"),
            Self::UnixPath => f.write_str("unix: needs an absolute socket path; next: write unix:/path/to/socket"),
        }
    }
}

impl std::error::Error for UrlError {}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Endpoint {
    /// `http://host:port` or `https://host:port`.
    Tcp { host: Host, port: Option<u16>, https: bool },
    /// A socket file.
    Unix { socket: PathBuf },
}

impl Endpoint {
    /// Reads scheme and authority; what comes behind them is returned.
    fn parse(raw: &str) -> Result<(Self, &str), UrlError> {
        let (scheme, rest) = raw.split_once("://").ok_or(UrlError::Scheme)?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(UrlError::Scheme),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        // A backslash is a slash to some readers: what stands before it would be the host.
        if authority.contains('@') || authority.contains("%40") {
            return Err(UrlError::UserInfo);
        }
        // Behind the bracket of an IPv6 address, or behind the name.
        let port_at = authority.rfind(']').unwrap_or(0);
        let (host, port) = match authority[port_at..].find(':') {
            Some(at) => (&authority[..port_at + at], Some(&authority[port_at + at + 1..])),
            None => (authority, None),
        };
        if host.is_empty() {
            return Err(UrlError::Host);
        }
        let parse_port = |port: &str| {
            let is_plain = port.bytes().all(|byte| byte.is_ascii_digit());
            port.parse::<u16>().ok().filter(|port| is_plain && *port != 0).ok_or(UrlError::Syntax)
        };
        let port = port.map(parse_port).transpose()?;
        let host = Host::parse(host).ok_or(UrlError::HostSpelling)?;
        Ok((Self::Tcp { host, port, https }, rest))
    }

    /// `http://host:port` or `https://host:port`; empty for a unix socket.
    fn origin(&self) -> String {
        match self {
            Self::Tcp { host, port, https } => {
                let scheme = if *https { "https" } else { "http" };
                match port {
                    Some(port) => format!("{scheme}://{host}:{port}"),
                    None => format!("{scheme}://{host}"),
                }
            }
            Self::Unix { .. } => String::new(),
        }
    }
}

/// Where an API lives: scheme, host, port and a path prefix, or a unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    endpoint: Endpoint,
    /// Empty, or starting with `/` and not ending with one.
    path: String,
}

impl BaseUrl {
    /// Reads an absolute `http` or `https` URL with a host and without user info, query or fragment.
    ///
    /// # Errors
    /// The rule that was broken.
    pub fn parse(raw: &str) -> Result<Self, UrlError> {
        if raw.is_empty() || raw.len() > URL_BYTES_MAX {
            return Err(UrlError::Length);
        }
        if raw.contains('#') {
            return Err(UrlError::Fragment);
        }
        let (endpoint, rest) = Endpoint::parse(raw)?;
        if rest.contains('?') {
            return Err(UrlError::Query);
        }
        // Whatever a request line cannot hold.
        let _whole: Uri = raw.parse().map_err(|_| UrlError::Syntax)?;
        Ok(Self { endpoint, path: rest.trim_end_matches('/').to_string() })
    }

    /// Like [`BaseUrl::parse`], and also takes `unix:/path/to/socket` for plain HTTP over that socket.
    ///
    /// # Errors
    /// The rule that was broken.
    pub fn parse_or_unix(raw: &str) -> Result<Self, UrlError> {
        let Some(socket) = raw.strip_prefix("unix:") else { return Self::parse(raw) };
        if raw.len() > URL_BYTES_MAX {
            return Err(UrlError::Length);
        }
        let socket = PathBuf::from(socket);
        if !socket.is_absolute() {
            return Err(UrlError::UnixPath);
        }
        Ok(Self { endpoint: Endpoint::Unix { socket }, path: String::new() })
    }

    /// Whether the bytes travel in TLS.
    pub fn is_https(&self) -> bool {
        matches!(self.endpoint, Endpoint::Tcp { https: true, .. })
    }

    /// Whether the peer is on this host: a loopback address, the name `localhost`, or a unix socket.
    pub fn is_local(&self) -> bool {
        match &self.endpoint {
            Endpoint::Unix { .. } => true,
            Endpoint::Tcp { host, .. } => matches!(host, Host::Address(ip) if ip.is_loopback()) || host.is_localhost(),
        }
    }

    /// The path prefix: empty, or starting with `/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A request's target: `suffix` (a path that starts with `/`, and perhaps a query) behind the prefix.
    pub fn target(&self, suffix: &str) -> Target {
        let mut path_and_query = format!("{}{suffix}", self.path);
        if !path_and_query.starts_with('/') {
            path_and_query.insert(0, '/');
        }
        Target { endpoint: self.endpoint.clone(), path_and_query }
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Tcp { .. } => write!(f, "{}{}", self.endpoint.origin(), self.path),
            Endpoint::Unix { socket } => write!(f, "unix:{}", socket.display()),
        }
    }
}

/// The whole address of one request. Its text forms have no query, which may hold a filter text.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    endpoint: Endpoint,
    path_and_query: String,
}

impl Target {
    /// Reads a whole `http` or `https` URL. A fragment is dropped, since it is never sent.
    ///
    /// # Errors
    /// The rule that was broken.
    pub fn parse(raw: &str) -> Result<Self, UrlError> {
        if raw.is_empty() || raw.len() > URL_BYTES_MAX {
            return Err(UrlError::Length);
        }
        if raw.bytes().any(|byte| byte <= b' ' || byte == b'\\' || byte >= 0x7f) {
            return Err(UrlError::Syntax);
        }
        let (endpoint, rest) = Endpoint::parse(raw)?;
        Self::at(endpoint, rest)
    }

    /// Where a `Location` of this target's answer leads.
    ///
    /// # Errors
    /// The rule that was broken.
    pub fn join(&self, location: &str) -> Result<Self, UrlError> {
        let Endpoint::Tcp { https, .. } = &self.endpoint else { return Err(UrlError::Scheme) };
        let before = location.find(['/', '?', '#']).unwrap_or(location.len());
        if location[..before].contains(':') {
            return Self::parse(location);
        }
        if location.starts_with("//") {
            return Self::parse(&format!("{}:{location}", if *https { "https" } else { "http" }));
        }
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        let rest = match location.chars().next() {
            None | Some('#') => self.path_and_query.clone(),
            Some('?') => format!("{path}{location}"),
            Some('/') => location.to_string(),
            Some(_) => format!("{}/{location}", path.rsplit_once('/').map_or("", |(folder, _)| folder)),
        };
        Self::parse(&format!("{}{rest}", self.endpoint.origin()))
    }

    fn at(endpoint: Endpoint, rest: &str) -> Result<Self, UrlError> {
        let rest = rest.split('#').next().unwrap_or_default();
        let path_and_query = if rest.starts_with('/') { rest.to_string() } else { format!("/{rest}") };
        let target = Self { endpoint, path_and_query };
        // Whatever a request line cannot hold.
        target.uri().parse::<Uri>().map(|_| target).map_err(|_| UrlError::Syntax)
    }

    /// Host and port of a TCP target.
    pub fn host_and_port(&self) -> Option<(&Host, u16)> {
        match &self.endpoint {
            Endpoint::Tcp { host, port, https } => Some((host, port.unwrap_or(if *https { 443 } else { 80 }))),
            Endpoint::Unix { .. } => None,
        }
    }

    /// Whether the bytes travel in TLS.
    pub fn is_https(&self) -> bool {
        matches!(self.endpoint, Endpoint::Tcp { https: true, .. })
    }

    /// The whole URL with its query, for whoever asked for it.
    pub fn whole(&self) -> String {
        self.uri()
    }

    /// What the request line says: the path, and the query if there is one.
    pub fn path_and_query(&self) -> &str {
        &self.path_and_query
    }

    /// The URI as the HTTP client wants it. A unix socket gets a made-up host.
    pub(super) fn uri(&self) -> String {
        match &self.endpoint {
            Endpoint::Tcp { .. } => format!("{}{}", self.endpoint.origin(), self.path_and_query),
            Endpoint::Unix { .. } => format!("http://localhost{}", self.path_and_query),
        }
    }

    /// The socket file, for a unix target.
    pub(super) fn socket(&self) -> Option<&Path> {
        match &self.endpoint {
            Endpoint::Unix { socket } => Some(socket),
            Endpoint::Tcp { .. } => None,
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        match &self.endpoint {
            Endpoint::Tcp { .. } => write!(f, "{}{path}", self.endpoint.origin()),
            Endpoint::Unix { socket } => write!(f, "unix:{}{path}", socket.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_that_could_hide_or_carry_a_secret_is_refused() {
        let cases = [
            ("", UrlError::Length),
            ("api.openai.com/v1", UrlError::Scheme),
            ("ftp://host/", UrlError::Scheme),
            ("file:///etc/passwd", UrlError::Scheme),
            ("https://", UrlError::Host),
            ("https:///v1", UrlError::Host),
            ("https://:443/v1", UrlError::Host),
            ("https://key@host/v1", UrlError::UserInfo),
            ("https://user:key@host/v1", UrlError::UserInfo),
            ("https://host/v1?key=secret", UrlError::Query),
            ("https://host?", UrlError::Query),
            ("https://host/v1#part", UrlError::Fragment),
            ("https://host:http/v1", UrlError::Syntax),
            ("https://host:99999/v1", UrlError::Syntax),
            ("https://host:0/v1", UrlError::Syntax),
            ("https://ho st/v1", UrlError::HostSpelling),
            ("https://0x7f.1/v1", UrlError::HostSpelling),
            ("https://[::1%25lo]/v1", UrlError::HostSpelling),
            ("https://host/a b", UrlError::Syntax),
            ("https://host/\r\nX: y", UrlError::Syntax),
            ("unix:/run/x", UrlError::Scheme),
        ];
        for (raw, expected) in cases {
            assert_eq!(BaseUrl::parse(raw), Err(expected), "{raw:?}");
        }
        assert_eq!(BaseUrl::parse_or_unix("unix:relative"), Err(UrlError::UnixPath));
    }

    #[test]
    fn a_target_is_prefix_and_suffix_and_its_text_has_no_query() {
        let cases = [
            ("https://api.openai.com/v1", "https://api.openai.com/v1/responses"),
            ("HTTPS://api.openai.com/v1/", "https://api.openai.com/v1/responses"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/responses"),
            ("http://[::1]:8080/", "http://[::1]:8080/responses"),
        ];
        for (base, target) in cases {
            let base = BaseUrl::parse(base).expect("legal");
            assert_eq!(base.target("/responses").to_string(), target);
            assert_eq!(base.target("/responses?a=b").to_string(), target);
            assert_eq!(base.target("/responses?a=b").uri(), format!("{target}?a=b"));
        }
        let unix = BaseUrl::parse_or_unix("unix:/run/k.sock").expect("legal");
        assert_eq!(unix.target("/v1/status?x=y").to_string(), "unix:/run/k.sock/v1/status");
        assert_eq!(unix.target("/v1/status").uri(), "http://localhost/v1/status");
    }

    #[test]
    fn only_addresses_of_this_host_are_local() {
        for raw in ["http://127.0.0.1:1", "http://127.8.9.1", "http://[::1]:1/v1", "https://LOCALHOST:1", "unix:/x"] {
            assert!(BaseUrl::parse_or_unix(raw).expect("legal").is_local(), "{raw}");
        }
        for raw in
            ["http://128.0.0.1", "http://localhost.example.com", "http://0.0.0.0", "http://[::]", "http://10.0.0.1"]
        {
            assert!(!BaseUrl::parse(raw).expect("legal").is_local(), "{raw}");
        }
    }

    #[test]
    fn a_redirect_leads_where_browsers_would_go_or_nowhere() {
        let from = Target::parse("https://Example.com:8443/a/b?c=d#e").expect("legal");
        for (location, whole) in [
            ("https://other.example/x?y", "https://other.example/x?y"),
            ("HTTP://other.example", "http://other.example/"),
            ("//other.example/x", "https://other.example/x"),
            ("/x?y#z", "https://example.com:8443/x?y"),
            ("x", "https://example.com:8443/a/x"),
            ("?x", "https://example.com:8443/a/b?x"),
            ("#x", "https://example.com:8443/a/b?c=d"),
            ("", "https://example.com:8443/a/b?c=d"),
        ] {
            assert_eq!(from.join(location).map(|target| target.whole()).as_deref(), Ok(whole), "{location}");
        }
        for (location, error) in [
            ("file:///etc/passwd", UrlError::Scheme),
            ("javascript:alert(1)", UrlError::Scheme),
            ("http:/one-slash", UrlError::Scheme),
            ("unix:/run/x", UrlError::Scheme),
            ("//user@other.example/", UrlError::UserInfo),
            ("//2130706433/", UrlError::HostSpelling),
            ("\\\\other.example/", UrlError::Syntax),
            ("/a b", UrlError::Syntax),
            ("/a\r\nHost: x", UrlError::Syntax),
        ] {
            assert_eq!(from.join(location), Err(error), "{location}");
        }
    }
}
