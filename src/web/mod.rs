//! Pages of the web, as a model asks for them.
//! Owns: the rules of a fetch: redirects by hand, few of them, and text of bounded length only.
//! May touch: the network through `net`, whose guard sees every hop.
//! Never: sends a credential or a cookie, or a request of which the caller was not told before.

mod page;

use std::fmt;
use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};

use crate::hex::to_hex;
use crate::limits::{URL_BYTES_MAX, WEB_BODY_BYTES_MAX, WEB_CONNECT_MS, WEB_REDIRECTS_MAX};
use crate::net::{Cancel, Method, Net, NetError, Purpose, Request, Response, Target, Timeouts, UrlError};

pub use page::Page;

/// Why there is no page. The text is for the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchError {
    /// The address, or that of a redirect.
    Url {
        /// Whether it came from the server.
        by_redirect: bool,
        /// The rule that was broken.
        cause: UrlError,
    },
    /// The request failed or was refused.
    Net(NetError),
    /// More redirects than are followed.
    Redirects {
        /// Where the next one would have led, without query.
        next: String,
    },
    /// What came is no text.
    NotText {
        /// The content type or encoding, cut.
        found: String,
    },
    /// The time is up.
    TimedOut {
        /// The limit.
        limit_ms: u64,
    },
    /// Whoever was told refused; nothing was sent.
    Refused(String),
}

impl FetchError {
    /// Stable word for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Url { by_redirect: false, .. } => "invalid_url",
            Self::Url { by_redirect: true, .. } => "invalid_redirect",
            Self::Net(NetError::EgressRefused { .. }) => "egress_refused",
            Self::Net(NetError::Timeout { .. }) | Self::TimedOut { .. } => "timed_out",
            Self::Net(NetError::Cancelled) => "cancelled",
            Self::Net(NetError::Resolve { .. } | NetError::ResolverBusy { .. }) => "resolve_failed",
            Self::Net(NetError::Tls { .. }) => "tls_failed",
            Self::Net(NetError::Connect { .. }) => "connect_failed",
            Self::Net(_) => "fetch_failed",
            Self::Redirects { .. } => "too_many_redirects",
            Self::NotText { .. } => "not_text",
            Self::Refused(_) => "not_recorded",
        }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { by_redirect: false, cause } => cause.fmt(f),
            Self::Url { by_redirect: true, cause } => {
                write!(f, "the page redirects to a URL that is not taken: {cause}")
            }
            // Its advice is about settings of providers.
            Self::Net(NetError::Timeout { target, limit_ms, .. }) => {
                write!(f, "{target} did not answer within {limit_ms} ms; next: try again later, or use another page")
            }
            Self::Net(error) => error.fmt(f),
            Self::Redirects { next } => write!(
                f,
                "the page redirects more than {WEB_REDIRECTS_MAX} times; next: fetch {next} if that is what you want"
            ),
            Self::NotText { found } => {
                write!(f, "the page is no text but {found}; next: look for a text version of it")
            }
            Self::TimedOut { limit_ms } => {
                write!(f, "the page did not come within {limit_ms} ms; next: try again later, or use another page")
            }
            Self::Refused(cause) => f.write_str(cause),
        }
    }
}

impl std::error::Error for FetchError {}

/// What is known of one hop when it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The HTTP status, when there was an answer.
    pub status: Option<u16>,
    /// Bytes of the body that were read.
    pub bytes: u64,
    /// SHA-256 of these, hex, when there was an answer.
    pub sha256: Option<String>,
    /// The code of the failure.
    pub error: Option<&'static str>,
}

/// Who is told of each hop.
pub trait Witness {
    /// A request is about to leave. `Ok(false)` has a redirect shown instead of followed; the first request is always
    /// made.
    ///
    /// # Errors
    /// It must not leave; the text says why.
    fn before(&mut self, target: &Target, is_redirect: bool) -> Result<bool, String>;

    /// A request that was told of is over.
    fn after(&mut self, hop: Hop);
}

/// Fetches `url` with `GET` within `limit_ms`, or until cancelled.
///
/// # Errors
/// There is no page, or it is none that a model can read.
pub fn fetch(
    net: &Net,
    url: &str,
    limit_ms: u64,
    cancel: &Cancel,
    witness: &mut dyn Witness,
) -> Result<Page, FetchError> {
    let url_error = |by_redirect| move |cause| FetchError::Url { by_redirect, cause };
    let first = Target::parse(url).map_err(url_error(false))?;
    let deadline = Instant::now() + Duration::from_millis(limit_ms);
    let mut target = first.clone();
    let mut redirects = 0;
    loop {
        look(net, &target)?;
        let follows = witness.before(&target, redirects > 0).map_err(FetchError::Refused)?;
        if !follows {
            let left_alone = target.whole();
            return Ok(Page::elsewhere(&first, redirects - 1, left_alone));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        if left_ms == 0 {
            witness.after(Hop { status: None, bytes: 0, sha256: None, error: Some("timed_out") });
            return Err(FetchError::TimedOut { limit_ms });
        }
        let outcome = hop(net, &target, left_ms, cancel);
        let (response, bytes, whole) = match outcome {
            Ok(taken) => taken,
            Err((status, error)) => {
                witness.after(Hop { status, bytes: 0, sha256: None, error: Some(error.code()) });
                return Err(error);
            }
        };
        let sha256 = to_hex(digest(&SHA256, &bytes).as_ref());
        let status = Some(response.status);
        witness.after(Hop { status, bytes: bytes.len() as u64, sha256: Some(sha256), error: None });
        match location(&response) {
            Some(location) => {
                let next = target.join(location).map_err(url_error(true))?;
                if redirects == WEB_REDIRECTS_MAX {
                    return Err(FetchError::Redirects { next: next.to_string() });
                }
                redirects += 1;
                target = next;
            }
            None => return Ok(Page::new(&first, &target, redirects, &response, &bytes, !whole)),
        }
    }
}

/// Refuses what the guard refuses anyway, before it is told to anybody as an action.
fn look(net: &Net, target: &Target) -> Result<(), FetchError> {
    net.check_host(Purpose::Web, target).map_err(FetchError::Net)
}

type Failed = (Option<u16>, FetchError);

/// One request and what is wanted of its answer; whether that is the whole body.
fn hop(net: &Net, target: &Target, left_ms: u64, cancel: &Cancel) -> Result<(Response, Vec<u8>, bool), Failed> {
    let request = Request {
        method: Method::Get,
        target,
        purpose: Purpose::Web,
        allow_private: false,
        headers: &[
            ("accept", "text/html, application/xhtml+xml, text/plain, application/json, */*;q=0.1"),
            ("accept-encoding", "identity"),
        ],
        auth: None,
        body: None,
        timeouts: Timeouts {
            connect_ms: WEB_CONNECT_MS.min(left_ms),
            first_byte_ms: left_ms,
            idle_ms: left_ms,
            total_ms: Some(left_ms),
        },
        body_bytes_max: u64::MAX,
    };
    let mut response = net.send(request, cancel).map_err(|error| (None, FetchError::Net(error)))?;
    let status = response.status;
    if location(&response).is_some() {
        // Nobody is shown the body of a redirect.
        return Ok((response, Vec::new(), true));
    }
    page::check_type(&response).map_err(|error| (Some(status), error))?;
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    while bytes.len() <= WEB_BODY_BYTES_MAX {
        match response.body.read(&mut buffer) {
            Ok(0) => return Ok((response, bytes, true)),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) => return Err((Some(status), FetchError::Net(error))),
        }
    }
    bytes.truncate(WEB_BODY_BYTES_MAX);
    Ok((response, bytes, false))
}

/// Where the answer leads, if it is a redirect with a usable header.
fn location(response: &Response) -> Option<&str> {
    let is_redirect = matches!(response.status, 301 | 302 | 303 | 307 | 308);
    response.header("location").filter(|location| is_redirect && location.len() <= URL_BYTES_MAX)
}
