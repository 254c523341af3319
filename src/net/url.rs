//! Base URLs and the targets built on them.
//! Owns: what an outbound URL may look like.
//! Never: keeps user names, passwords, queries or fragments of a base URL.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ureq::http::Uri;

use crate::limits::URL_BYTES_MAX;

/// Why a base URL was refused. Never repeats the text, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlError {
    /// Empty, or over the length limit.
    Length,
    /// No `http://` or `https://` in front.
    Scheme,
    /// No host.
    Host,
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
    /// `http://host:port` or `https://host:port`, as written.
    Tcp { origin: String, host: String, https: bool },
    /// A socket file.
    Unix { socket: PathBuf },
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
        let (scheme, rest) = raw.split_once("://").ok_or(UrlError::Scheme)?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(UrlError::Scheme),
        };
        if rest.split(['/', '?']).next().is_some_and(|authority| authority.contains('@')) {
            return Err(UrlError::UserInfo);
        }
        if rest.is_empty() || rest.starts_with(['/', ':', '?']) {
            return Err(UrlError::Host);
        }
        let uri: Uri = raw.parse().map_err(|_| UrlError::Syntax)?;
        if uri.query().is_some() {
            return Err(UrlError::Query);
        }
        let authority = uri.authority().ok_or(UrlError::Host)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_string();
        // A port that is no number parses as part of the authority and is seen only here.
        let port_text = authority.as_str().rsplit_once(']').map_or(authority.as_str(), |(_, rest)| rest);
        if port_text.contains(':') && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(UrlError::Syntax);
        }
        let origin = format!("{}://{authority}", if https { "https" } else { "http" });
        let path = uri.path().trim_end_matches('/').to_string();
        Ok(Self { endpoint: Endpoint::Tcp { origin, host, https }, path })
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
            Endpoint::Tcp { host, .. } => {
                host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
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
            Endpoint::Tcp { origin, .. } => write!(f, "{origin}{}", self.path),
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
    /// The URI as the HTTP client wants it. A unix socket gets a made-up host.
    pub(super) fn uri(&self) -> String {
        match &self.endpoint {
            Endpoint::Tcp { origin, .. } => format!("{origin}{}", self.path_and_query),
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
            Endpoint::Tcp { origin, .. } => write!(f, "{origin}{path}"),
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
            ("https://ho st/v1", UrlError::Syntax),
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
}
