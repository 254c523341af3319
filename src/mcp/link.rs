//! One connection to a server, over whichever transport.
//! Owns: what both transports have in common: what is asked, and how it can fail.
//! Never: knows what a method means.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use serde_json::value::RawValue;

use super::asking::UnderWay;
use super::credential::InUse;
use super::error::McpError;
use super::http::HttpLink;
use super::message::RpcError;
use super::stdio::StdioLink;
use crate::net::Cancel;

/// One request that is about to be sent.
pub(super) struct Exchange<'a> {
    /// Its id.
    pub id: u64,
    /// Its method.
    pub method: &'a str,
    /// The whole message.
    pub bytes: &'a [u8],
    /// Further header lines, of requests that have no handshake behind them.
    pub headers: &'a [(String, String)],
    /// When it is given up.
    pub until: Instant,
    /// The time that it had, milliseconds.
    pub limit_ms: u64,
    /// Ends it early.
    pub cancel: &'a Cancel,
    /// Its credential.
    pub credential: Option<&'a InUse>,
    /// The thread that reads the connection asks: nobody else will read meanwhile.
    pub is_owner: bool,
    /// The call that people may be asked for.
    pub asker: Option<&'a Arc<UnderWay>>,
}

impl Exchange<'_> {
    /// What is left of the time.
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// As [`Exchange::left`], in milliseconds and above 0.
    pub fn left_ms(&self) -> u64 {
        u64::try_from(self.left().as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

/// The result, or the server's error; or why there is neither.
pub(super) type Outcome = Result<Result<Box<RawValue>, RpcError>, McpError>;

/// What the server wants of us by itself. Called on the thread that reads.
pub(super) trait Receiver: Send + Sync {
    /// A request, and the call during which it came where that is known; the answer goes back at once, or, for `None`, when
    /// people have given one.
    fn request(&self, asked: &Asked<'_>, asker: Option<&Arc<UnderWay>>) -> Option<Given>;
    /// A notification.
    fn notified(&self, method: &str, params: &Value);
}

/// A request of the server.
pub(super) struct Asked<'a> {
    /// Its id, which goes back as it came.
    pub id: &'a RawValue,
    /// Its method.
    pub method: &'a str,
    /// Its parameters.
    pub params: &'a Value,
}

/// What is answered: a result, or a code with a text.
pub(super) type Given = Result<Value, (i64, String)>;

/// A connection.
pub(super) enum Link {
    /// To a child process.
    Stdio(StdioLink),
    /// Over HTTP.
    Http(HttpLink),
}

impl Link {
    /// The next id of ours.
    pub fn next_id(&self) -> u64 {
        match self {
            Self::Stdio(link) => link.next_id(),
            Self::Http(link) => link.next_id(),
        }
    }

    /// Sends a request and waits for its answer.
    pub fn exchange(&self, exchange: &Exchange<'_>) -> Outcome {
        match self {
            Self::Stdio(link) => link.exchange(exchange),
            Self::Http(link) => link.exchange(exchange),
        }
    }

    /// Sends what wants no answer.
    pub fn notify(
        &self,
        bytes: &[u8],
        credential: Option<&InUse>,
        limit: Duration,
        cancel: &Cancel,
    ) -> Result<(), McpError> {
        match self {
            Self::Stdio(link) => link.write(bytes),
            Self::Http(link) => link.notify(bytes, credential, limit, cancel),
        }
    }
}
