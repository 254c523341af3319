//! What of an answer a model is shown.
//! Owns: which content types are text, the decoding, and the cutting of bodies and header lines.
//! Never: shows a cookie.

use serde::Serialize;

use super::FetchError;
use crate::limits::{WEB_BODY_ESCAPED_BYTES_MAX, WEB_HEADER_VALUE_BYTES_MAX, WEB_HEADERS_BYTES_MAX, WEB_HEADERS_MAX};
use crate::net::{Response, Target};
use crate::tools::{cut_bytes, cut_escaped};

/// A page, or where it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Page {
    /// As asked for, in its one spelling.
    pub url: String,
    /// Where the body came from.
    pub final_url: String,
    /// Redirects that were followed.
    pub redirects: u32,
    /// The HTTP status; 0 where a redirect was not followed.
    pub status: u16,
    /// Header lines, names in lower case; cookies are left out.
    pub headers: Vec<(String, String)>,
    /// The text.
    pub body: String,
    /// Bytes of the body that were read.
    pub bytes_read: u64,
    /// Something of the body is missing.
    pub truncated: bool,
    /// A redirect that was not followed, because it needs a decision of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect_to: Option<String>,
}

impl Page {
    pub(super) fn new(
        first: &Target,
        last: &Target,
        redirects: u32,
        response: &Response,
        bytes: &[u8],
        is_cut: bool,
    ) -> Self {
        let text = decoded(response, bytes);
        let body = cut_escaped(&text, WEB_BODY_ESCAPED_BYTES_MAX).to_string();
        Self {
            url: first.whole(),
            final_url: last.whole(),
            redirects,
            status: response.status,
            headers: headers(response),
            truncated: is_cut || body.len() < text.len(),
            body,
            bytes_read: bytes.len() as u64,
            redirect_to: None,
        }
    }

    /// A redirect that is left to the model: it can ask for that page by itself.
    pub(super) fn elsewhere(first: &Target, redirects: u32, redirect_to: String) -> Self {
        Self {
            url: first.whole(),
            final_url: first.whole(),
            redirects,
            status: 0,
            headers: Vec::new(),
            body: String::new(),
            bytes_read: 0,
            truncated: false,
            redirect_to: Some(redirect_to),
        }
    }
}

/// Media type and parameters, in lower case.
fn content_type(response: &Response) -> String {
    response.header("content-type").unwrap_or_default().trim().to_ascii_lowercase()
}

/// Refuses what is no text. An answer that says nothing about its type is taken for text.
pub(super) fn check_type(response: &Response) -> Result<(), FetchError> {
    let found = |text: &str| FetchError::NotText { found: cut_bytes(text, 128).to_string() };
    let whole = content_type(response);
    let media = whole.split(';').next().unwrap_or_default().trim();
    let subtype = media.strip_prefix("application/").unwrap_or_default();
    let is_text = media.is_empty()
        || media.starts_with("text/")
        || media.ends_with("+json")
        || media.ends_with("+xml")
        || matches!(subtype, "json" | "xml" | "javascript" | "yaml" | "toml" | "x-ndjson");
    if !is_text {
        return Err(found(media));
    }
    // It was asked for as it is.
    match response.header("content-encoding").map(str::trim) {
        None | Some("" | "identity") => Ok(()),
        Some(encoding) => Err(found(&format!("{encoding} data"))),
    }
}

fn decoded(response: &Response, bytes: &[u8]) -> String {
    let whole = content_type(response);
    let charset = whole.split(';').find_map(|part| part.trim().strip_prefix("charset=")).unwrap_or_default();
    match charset.trim_matches('"') {
        "iso-8859-1" | "latin1" | "windows-1252" => bytes.iter().map(|byte| char::from(*byte)).collect(),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn headers(response: &Response) -> Vec<(String, String)> {
    let mut room = WEB_HEADERS_BYTES_MAX;
    let shown = response.headers().filter(|(name, _)| !matches!(*name, "set-cookie" | "set-cookie2"));
    let cut =
        |(name, value): (&str, &str)| (name.to_string(), cut_bytes(value, WEB_HEADER_VALUE_BYTES_MAX).to_string());
    let fits = |(name, value): &(String, String)| {
        let bytes = name.len() + value.len();
        room = room.saturating_sub(bytes);
        room > 0
    };
    shown.map(cut).take(WEB_HEADERS_MAX).take_while(fits).collect()
}
