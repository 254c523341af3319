//! Bounds of the egress guard and of fetching pages.
//! Owns: numbers, each with its reason.
//! Never: reads configuration.

use super::TOOL_OUTPUT_BYTES_MAX;

// --- egress ----------------------------------------------------------------------------------

/// Bytes of a host name, as in RFC 1035; a URL with a longer one is refused.
pub const HOST_NAME_BYTES_MAX: usize = 253;
/// Entries of `--egress-allow`; a longer list is refused at start. Each request walks the list once.
pub const EGRESS_ALLOW_MAX: usize = 256;
/// Bytes of a page that are kept; the rest is not read and the result says `truncated`.
pub const WEB_BODY_BYTES_MAX: usize = 128 * 1024;
/// Bytes of a page inside a JSON string; a page of many quotes or control characters is cut earlier.
pub const WEB_BODY_ESCAPED_BYTES_MAX: usize = 192 * 1024;
/// Redirects of one fetch; the next one ends it with an error.
pub const WEB_REDIRECTS_MAX: u32 = 5;
/// Header lines of a page that a model is shown; the rest is left out.
pub const WEB_HEADERS_MAX: usize = 32;
/// Bytes of one header value; a longer one is cut.
pub const WEB_HEADER_VALUE_BYTES_MAX: usize = 4 * 1024;
/// Bytes of all header lines that a model is shown; lines beyond are left out.
pub const WEB_HEADERS_BYTES_MAX: usize = 16 * 1024;
/// Name look-up, and connect with TLS, of one fetch; each. The tool's own limit holds for everything together.
pub const WEB_CONNECT_MS: u64 = 5_000;
const _: () = assert!(
    WEB_BODY_ESCAPED_BYTES_MAX + 2 * WEB_HEADERS_BYTES_MAX + 16 * 1024 < TOOL_OUTPUT_BYTES_MAX,
    "a page fits in a result"
);
