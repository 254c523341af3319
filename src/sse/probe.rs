//! Streams that carry nothing but proofs of their own way.
//! Owns: the name of such a stream and the two frames that it carries.
//! May touch: nothing; it turns values into bytes.
//! Never: shows an event; a probe stream needs no session and no run to exist.
//!
//! Whoever looks for a proxy that holds back, rewrites or swallows frames cannot tell it from a daemon where nothing
//! happens. A probe stream takes the same path, headers and writer as any other, answers at once, and again whenever its
//! caller asks.

use std::sync::Arc;

use serde::Serialize;

use super::frame::{event_bytes, json};
use crate::ids::Seq;
use crate::limits::{SSE_PROBE_NONCE_BYTES_MAX, SSE_PROBE_NONCE_BYTES_MIN};

/// The event name of both frames.
pub const PROBE_EVENT: &str = "probe";

/// What a caller calls its own probe stream. Who does not know it cannot ask for a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeNonce(Arc<str>);

impl ProbeNonce {
    /// Letters, digits, `-` and `_`, [`SSE_PROBE_NONCE_BYTES_MIN`] to [`SSE_PROBE_NONCE_BYTES_MAX`] of them.
    pub fn parse(text: &str) -> Option<Self> {
        let has_length = (SSE_PROBE_NONCE_BYTES_MIN..=SSE_PROBE_NONCE_BYTES_MAX).contains(&text.len());
        let is_plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        (has_length && is_plain).then(|| Self(Arc::from(text)))
    }

    /// As given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[derive(Serialize)]
struct ProbeData<'a> {
    r#type: &'static str,
    nonce: &'a str,
    phase: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
}

/// The first frame. Its id is the tail, repeated in the data: who reads another one knows that ids are rewritten on the way.
pub(super) fn encode_opened(nonce: &ProbeNonce, tail: Seq) -> Arc<[u8]> {
    let data =
        ProbeData { r#type: PROBE_EVENT, nonce: nonce.as_str(), phase: "opened", event_id: Some(tail.to_string()) };
    event_bytes(Some(tail), PROBE_EVENT, &json(&data))
}

/// The frame that was asked for. It has no id.
pub(super) fn encode_asked(nonce: &ProbeNonce) -> Arc<[u8]> {
    let data = ProbeData { r#type: PROBE_EVENT, nonce: nonce.as_str(), phase: "asked", event_id: None };
    event_bytes(None, PROBE_EVENT, &json(&data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_long_enough_not_to_be_guessed_and_plain() {
        for good in ["0123456789abcdef", "A-_z456789abcdef", &"f".repeat(64)] {
            assert_eq!(ProbeNonce::parse(good).expect("legal").as_str(), good);
        }
        for bad in ["", "0123456789abcde", &"f".repeat(65), "0123456789abcde\n", "0123456789abcdé"] {
            assert_eq!(ProbeNonce::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_first_frame_repeats_its_id_and_the_other_has_none() {
        let nonce = ProbeNonce::parse("0123456789abcdef").expect("legal");
        assert_eq!(
            std::str::from_utf8(&encode_opened(&nonce, 7_564_890_123_456_790_001)),
            Ok("id: 7564890123456790001\nevent: probe\ndata: {\"type\":\"probe\",\"nonce\":\"0123456789abcdef\",\
                \"phase\":\"opened\",\"event_id\":\"7564890123456790001\"}\n\n")
        );
        assert_eq!(
            std::str::from_utf8(&encode_asked(&nonce)),
            Ok("event: probe\ndata: {\"type\":\"probe\",\"nonce\":\"0123456789abcdef\",\"phase\":\"asked\"}\n\n")
        );
    }
}
