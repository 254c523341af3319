//! What can go wrong on the way out.
//! Owns: the typed error of every outbound request and its wording.
//! Never: carries a header value, a body or a query string.

use std::fmt;

use ureq::Timeout;

use super::egress::{Purpose, Refusal};

/// The part of a request that ran out of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Looking up the host name.
    Resolve,
    /// TCP connect and TLS handshake.
    Connect,
    /// Sending the request.
    Send,
    /// Waiting for the whole response head.
    FirstByte,
    /// Waiting for the next bytes of the response body.
    Idle,
    /// The whole request, from look-up to the last byte.
    Total,
}

impl Phase {
    /// The phase as a word of an error text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "looking up the name",
            Self::Connect => "connecting",
            Self::Send => "sending the request",
            Self::FirstByte => "waiting for the response head",
            Self::Idle => "waiting for more of the response",
            Self::Total => "completing the whole request",
        }
    }

    /// The routes-file key that sets this phase's limit.
    fn setting(self) -> &'static str {
        match self {
            Self::Resolve | Self::Connect => "connect_timeout_ms",
            Self::FirstByte => "first_byte_timeout_ms",
            Self::Send | Self::Idle => "idle_timeout_ms",
            Self::Total => "total_timeout_ms",
        }
    }
}

/// Why an outbound request has no usable answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetError {
    /// The egress guard: nothing was connected, and for most reasons nothing looked up.
    EgressRefused {
        /// What the request was for.
        purpose: Purpose,
        /// The host, in its one spelling.
        host: String,
        /// Why.
        refusal: Refusal,
    },
    /// The host name has no address.
    Resolve {
        /// Host as written in the URL.
        host: String,
        /// What the system's resolver said.
        reason: String,
    },
    /// Every resolver thread hangs and the queue is full.
    ResolverBusy {
        /// Host as written in the URL.
        host: String,
    },
    /// No TCP or unix-socket connection.
    Connect {
        /// URL without query.
        target: String,
        /// What the operating system said.
        reason: String,
    },
    /// The peer could not be authenticated, or its TLS is broken.
    Tls {
        /// URL without query.
        target: String,
        /// The verifier's finding.
        reason: String,
    },
    /// A limit of time was met.
    Timeout {
        /// URL without query.
        target: String,
        /// What was being waited for.
        phase: Phase,
        /// The limit.
        limit_ms: u64,
    },
    /// The response head is longer than allowed.
    HeadTooLarge {
        /// URL without query.
        target: String,
        /// The limit.
        limit_bytes: u64,
    },
    /// The response body is longer than allowed.
    BodyTooLarge {
        /// URL without query.
        target: String,
        /// The limit.
        limit_bytes: u64,
    },
    /// The caller cancelled, or the daemon stops.
    Cancelled,
    /// The credential was not released; nothing was sent.
    CredentialRefused {
        /// The releasing side's reason, free of secrets.
        reason: String,
    },
    /// The peer does not speak HTTP as it should.
    Protocol {
        /// URL without query.
        target: String,
        /// The rule that was broken.
        reason: String,
    },
    /// The connection broke.
    Io {
        /// URL without query.
        target: String,
        /// What the operating system said.
        reason: String,
    },
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EgressRefused { purpose, host, refusal } => {
                write!(f, "egress refused: {purpose} may not reach {host}: {}", refusal.explain(*purpose))
            }
            Self::Resolve { host, reason } => {
                write!(f, "cannot look up {host}: {reason}; next: check the name and the host's DNS settings")
            }
            Self::ResolverBusy { host } => write!(
                f,
                "cannot look up {host}: all resolver threads are waiting for hanging look-ups; \
                 next: check that the host's DNS server answers"
            ),
            Self::Connect { target, reason } => {
                write!(
                    f,
                    "cannot connect to {target}: {reason}; next: check that it runs and that no firewall is between"
                )
            }
            Self::Tls { target, reason } => write!(
                f,
                "TLS with {target} failed: {reason}; next: if it uses a private CA, name that CA's file with --ca-file"
            ),
            Self::Timeout { target, phase, limit_ms } => write!(
                f,
                "{target} timed out after {limit_ms} ms while {}; next: check the peer, or raise the limit \
                 ({} of a route)",
                phase.as_str(),
                phase.setting()
            ),
            Self::HeadTooLarge { target, limit_bytes } => write!(
                f,
                "{target} sent a response head over {limit_bytes} bytes; next: check that the URL names an API server"
            ),
            Self::BodyTooLarge { target, limit_bytes } => {
                write!(f, "{target} sent a body over {limit_bytes} bytes; next: ask for less, or check the URL")
            }
            Self::Cancelled => f.write_str("the request was cancelled; next: none needed"),
            Self::CredentialRefused { reason } => {
                write!(f, "no request was sent, the credential was refused: {reason}")
            }
            Self::Protocol { target, reason } => {
                write!(
                    f,
                    "{target} broke the HTTP protocol: {reason}; next: check that the URL names an HTTP/1.1 server"
                )
            }
            Self::Io { target, reason } => {
                write!(f, "the connection to {target} broke: {reason}; next: try again, then check the peer's log")
            }
        }
    }
}

impl std::error::Error for NetError {}

/// What is needed to name a failure: where it was going and which limits applied.
pub(super) struct Context {
    pub target: String,
    pub connect_ms: u64,
    pub first_byte_ms: u64,
    pub idle_ms: u64,
    pub total_ms: Option<u64>,
}

impl Context {
    /// Turns the HTTP client's error into ours. Texts that may repeat what a peer sent are dropped.
    pub(super) fn name(&self, error: ureq::Error) -> NetError {
        let target = self.target.clone();
        match error {
            ureq::Error::Other(inner) => match inner.downcast::<NetError>() {
                Ok(named) => *named,
                Err(_) => NetError::Protocol { target, reason: "unexpected failure of the HTTP client".to_string() },
            },
            ureq::Error::Timeout(timeout) => {
                let (phase, limit_ms) = match timeout {
                    Timeout::Resolve => (Phase::Resolve, self.connect_ms),
                    Timeout::Connect => (Phase::Connect, self.connect_ms),
                    Timeout::SendRequest | Timeout::SendBody | Timeout::PerWrite => (Phase::Send, self.idle_ms),
                    Timeout::RecvResponse => (Phase::FirstByte, self.first_byte_ms),
                    Timeout::PerRead => (Phase::Idle, self.idle_ms),
                    _ => (Phase::Total, self.total_ms.unwrap_or(0)),
                };
                NetError::Timeout { target, phase, limit_ms }
            }
            ureq::Error::LargeResponseHeader(_, limit) => NetError::HeadTooLarge { target, limit_bytes: limit as u64 },
            ureq::Error::Tls(reason) => NetError::Tls { target, reason: reason.to_string() },
            ureq::Error::Rustls(error) => NetError::Tls { target, reason: error.to_string() },
            ureq::Error::Pem(_) => NetError::Tls { target, reason: "unreadable certificate".to_string() },
            ureq::Error::TlsRequired => NetError::Tls { target, reason: "no TLS on an https URL".to_string() },
            ureq::Error::Io(error) => self.name_io(&error),
            ureq::Error::Protocol(error) => NetError::Protocol { target, reason: protocol_reason(&error) },
            ureq::Error::HostNotFound => NetError::Connect { target, reason: "the host has no address".to_string() },
            ureq::Error::ConnectionFailed => NetError::Connect { target, reason: "no connection".to_string() },
            _ => NetError::Protocol { target, reason: "the request or its answer is not valid HTTP".to_string() },
        }
    }

    fn name_io(&self, error: &std::io::Error) -> NetError {
        let target = self.target.clone();
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                NetError::Io { target, reason: "closed by the peer before the answer was complete".to_string() }
            }
            // The TLS layer reports a bad record or a bad certificate as invalid data.
            std::io::ErrorKind::InvalidData => NetError::Tls { target, reason: error.to_string() },
            _ => NetError::Io { target, reason: error.to_string() },
        }
    }
}

/// The fault without what follows its first colon, which may repeat bytes that the peer sent.
fn protocol_reason(error: &impl fmt::Display) -> String {
    let text = error.to_string();
    text.split(':').next().unwrap_or_default().to_string()
}
