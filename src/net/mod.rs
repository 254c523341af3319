//! The one way out: every outbound connection of the daemon and of the command line starts here.
//! Owns: the egress guard, trust roots, name look-ups, timeouts, size limits, cancellation, and the bytes of one request's credential.
//! May touch: the network and the CA files.
//! Never: follows a redirect, asks the environment for a proxy, keeps a connection for a second request, or
//! lets a credential into an error, a log line or a header value that another crate could print.

mod api_client;
mod auth;
mod cancel;
mod client;
mod connector;
mod egress;
mod error;
mod examine;
mod host;
mod ranges;
mod resolver;
mod roots;
mod sse_reader;
mod url;

pub use api_client::{ApiClient, ApiReply, ApiStream, Events, StreamError};
pub use auth::{Auth, CredentialRefused};
pub use cancel::Cancel;
pub use client::{Body, Method, Net, NetConfig, NetConfigError, Request, Response, Timeouts, Trust};
pub use egress::{Destination, EgressPolicy, EgressSettingError, EgressView, Purpose, Refusal};
pub use error::{NetError, Phase};
pub use examine::Examined;
pub use host::Host;
pub use ranges::{AddressClass, Reach, classify};
pub use resolver::{LookUp, ResolverStats};
pub use roots::{Roots, RootsError};
pub use sse_reader::{SseError, SseFrame, SseParser};
pub use url::{BaseUrl, Target, UrlError};
