//! Proofs that a request comes from whoever knows a connector's secret.
//! Owns: the three forms of signature, over the exact bytes, in constant time.
//! Never: reads a body as anything but bytes; tells how far a wrong signature was right.

use ring::hmac::{self, HMAC_SHA256};
use subtle::ConstantTimeEq;

use crate::hex::parse_hex;
use crate::http::Head;
use crate::limits::SLACK_SIGNATURE_AGE_S;
use crate::secret::Secret;

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unproven {
    /// A header is missing, doubled or malformed.
    Missing,
    /// Made with another secret, or for other bytes.
    Wrong,
    /// Too old, or from the future.
    Expired,
}

/// Checks an http connector's signature: `X-Kheish-Signature: v1=<hex>` over
/// `v1:<method>:<path and query as received>:<timestamp>:<body>`.
///
/// # Errors
/// See [`Unproven`].
pub fn verify_http(head: &Head, body: &[u8], secret: &Secret, max_age_s: u64, now_ms: u64) -> Result<(), Unproven> {
    let timestamp = single(head, "x-kheish-timestamp")?;
    let signature = tag(single(head, "x-kheish-signature")?, "v1=")?;
    let begin = format!("v1:{}:{}:{timestamp}:", head.method_name(), head.target);
    verify(secret, begin.as_bytes(), body, &signature)?;
    check_age(timestamp, max_age_s, now_ms)
}

/// Checks Slack's signature: `X-Slack-Signature: v0=<hex>` over `v0:<timestamp>:<body>`.
///
/// # Errors
/// See [`Unproven`].
pub fn verify_slack(head: &Head, body: &[u8], secret: &Secret, now_ms: u64) -> Result<(), Unproven> {
    let timestamp = single(head, "x-slack-request-timestamp")?;
    let signature = tag(single(head, "x-slack-signature")?, "v0=")?;
    verify(secret, format!("v0:{timestamp}:").as_bytes(), body, &signature)?;
    check_age(timestamp, SLACK_SIGNATURE_AGE_S, now_ms)
}

/// Checks `Authorization: Bearer <token>`.
///
/// # Errors
/// See [`Unproven`].
pub fn verify_bearer(head: &Head, token: &Secret) -> Result<(), Unproven> {
    let given = single(head, "authorization")?;
    let (scheme, given) = given.split_once(' ').ok_or(Unproven::Missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Unproven::Missing);
    }
    equal(given.trim().as_bytes(), token)
}

/// Checks a header that carries the token itself.
///
/// # Errors
/// See [`Unproven`].
pub fn verify_header(head: &Head, name: &str, token: &Secret) -> Result<(), Unproven> {
    equal(single(head, name)?.as_bytes(), token)
}

/// The value of `Authorization: Bearer`, unchecked.
pub fn bearer(head: &Head) -> Option<Secret> {
    let (scheme, token) = single(head, "authorization").ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Secret::new(token.trim().as_bytes().to_vec()))
}

/// `sha256=<hex>` or bare hex over a body, as senders of webhooks sign.
///
/// # Errors
/// See [`Unproven`].
pub fn verify_webhook(given: Option<&str>, body: &[u8], secret: &Secret) -> Result<(), Unproven> {
    let given = given.ok_or(Unproven::Missing)?.trim();
    let signature = tag(given, if given.starts_with("sha256=") { "sha256=" } else { "" })?;
    verify(secret, b"", body, &signature)
}

fn equal(given: &[u8], token: &Secret) -> Result<(), Unproven> {
    // Of equal length whatever was given, so that the comparison tells nothing of the token's.
    let key = hmac::Key::new(HMAC_SHA256, b"compare");
    let (given, token) = (hmac::sign(&key, given), hmac::sign(&key, token.expose()));
    if bool::from(given.as_ref().ct_eq(token.as_ref())) { Ok(()) } else { Err(Unproven::Wrong) }
}

fn verify(secret: &Secret, begin: &[u8], body: &[u8], signature: &[u8]) -> Result<(), Unproven> {
    let mut context = hmac::Context::with_key(&hmac::Key::new(HMAC_SHA256, secret.expose()));
    context.update(begin);
    context.update(body);
    if bool::from(context.sign().as_ref().ct_eq(signature)) { Ok(()) } else { Err(Unproven::Wrong) }
}

/// A header that is there exactly once; of two, a proxy and we might each believe another one.
fn single<'h>(head: &'h Head, name: &str) -> Result<&'h str, Unproven> {
    let mut values = head.header_values(name);
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value.trim()),
        _ => Err(Unproven::Missing),
    }
}

/// Thirty-two bytes behind `prefix`, in hex of any case.
fn tag(text: &str, prefix: &str) -> Result<Vec<u8>, Unproven> {
    let digits = text.strip_prefix(prefix).filter(|digits| digits.len() == 64).ok_or(Unproven::Missing)?;
    parse_hex(digits.to_ascii_lowercase().as_bytes()).ok_or(Unproven::Missing)
}

/// After the signature: whoever does not know the secret learns nothing of our clock.
fn check_age(timestamp: &str, max_age_s: u64, now_ms: u64) -> Result<(), Unproven> {
    let is_number = !timestamp.is_empty() && timestamp.bytes().all(|byte| byte.is_ascii_digit());
    let at_s: u64 = timestamp.parse().ok().filter(|_| is_number).ok_or(Unproven::Missing)?;
    if (now_ms / 1_000).abs_diff(at_s) <= max_age_s { Ok(()) } else { Err(Unproven::Expired) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Peer;

    const AT_MS: u64 = 1_710_000_000_000;
    const TARGET: &str = "/v1/connectors/http/orders?source=a%2Fb&attempt=1";
    const BODY: &[u8] = br#"{"content":"hello","idempotency_key":"order-123","metadata":{"k":"v"}}"#;
    const TAG: &str = "f13a4b8c5099a2ffc6b8a913e0998d6765d61a693c27f594ca34ede2e0d4e557";

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    fn http(target: &str, headers: &[(&str, &str)], body: &[u8], now_ms: u64) -> Result<(), Unproven> {
        let head = Head::compose("POST", target, headers, Peer::Unix).expect("a legal head");
        verify_http(&head, body, &secret("hmac-test-secret"), 300, now_ms)
    }

    #[test]
    fn the_published_vectors_of_both_schemes_hold() {
        let signature = format!("v1={TAG}");
        let headers = [("x-kheish-timestamp", "1710000000"), ("x-kheish-signature", signature.as_str())];
        assert_eq!(http(TARGET, &headers, BODY, AT_MS), Ok(()));
        let upper = format!("v1={}", TAG.to_uppercase());
        assert_eq!(http(TARGET, &[headers[0], ("x-kheish-signature", &upper)], BODY, AT_MS), Ok(()));

        let slack = "v0=61a983d240af58518f55f6b1cea4be2f28883181d2fba3a2b194b29c5da1f393";
        let headers = [("x-slack-request-timestamp", "1710000000"), ("x-slack-signature", slack)];
        let head = Head::compose("POST", "/v1/connectors/slack/x", &headers, Peer::Unix).expect("a legal head");
        let body = br#"{"type":"url_verification","challenge":"abc"}"#;
        assert_eq!(verify_slack(&head, body, &secret("s3cr3t-slack"), AT_MS), Ok(()));
        assert_eq!(verify_slack(&head, body, &secret("another-one"), AT_MS), Err(Unproven::Wrong));
        assert_eq!(verify_slack(&head, body, &secret("s3cr3t-slack"), AT_MS + 301_000), Err(Unproven::Expired));
    }

    #[test]
    fn every_byte_of_what_is_signed_counts() {
        let signature = format!("v1={TAG}");
        let headers = [("x-kheish-timestamp", "1710000000"), ("x-kheish-signature", signature.as_str())];
        let decoded = TARGET.replace("%2F", "/");
        for (target, body) in [
            (TARGET, &BODY[..BODY.len() - 1]),
            (TARGET, &[BODY, b" "].concat()[..]),
            (decoded.as_str(), BODY),
            ("/v1/connectors/http/orders", BODY),
        ] {
            assert_eq!(http(target, &headers, body, AT_MS), Err(Unproven::Wrong), "{target}");
        }
        let later = [("x-kheish-timestamp", "1710000001"), headers[1]];
        assert_eq!(http(TARGET, &later, BODY, AT_MS), Err(Unproven::Wrong), "the timestamp is signed");
    }

    #[test]
    fn time_must_agree_in_both_directions() {
        let signature = format!("v1={TAG}");
        let headers = [("x-kheish-timestamp", "1710000000"), ("x-kheish-signature", signature.as_str())];
        for (skew_ms, holds) in [(300_999i64, true), (301_000, false), (-300_000, true), (-300_001, false)] {
            let found = http(TARGET, &headers, BODY, AT_MS.saturating_add_signed(skew_ms));
            assert_eq!(found, if holds { Ok(()) } else { Err(Unproven::Expired) }, "{skew_ms}");
        }
    }

    #[test]
    fn headers_that_are_missing_doubled_or_malformed_prove_nothing() {
        let signature = format!("v1={TAG}");
        let (time, sign) = (("x-kheish-timestamp", "1710000000"), ("x-kheish-signature", signature.as_str()));
        let short = format!("v1={}", &TAG[1..]);
        let other = format!("v2={TAG}");
        for headers in [
            vec![],
            vec![time],
            vec![sign],
            vec![time, time, sign],
            vec![time, sign, sign],
            vec![time, ("x-kheish-signature", TAG)],
            vec![time, ("x-kheish-signature", &short)],
            vec![time, ("x-kheish-signature", &other)],
            vec![time, ("x-kheish-signature", "")],
        ] {
            assert_eq!(http(TARGET, &headers, BODY, AT_MS), Err(Unproven::Missing), "{headers:?}");
        }
        let key = hmac::Key::new(HMAC_SHA256, b"hmac-test-secret");
        for time in ["-1710000000", "1710000000.0", "", "99999999999999999999999"] {
            let mut signed = format!("v1:POST:{TARGET}:{time}:").into_bytes();
            signed.extend_from_slice(BODY);
            let signature = format!("v1={}", crate::hex::to_hex(hmac::sign(&key, &signed).as_ref()));
            let headers = [("x-kheish-timestamp", time), ("x-kheish-signature", signature.as_str())];
            assert_eq!(http(TARGET, &headers, BODY, AT_MS), Err(Unproven::Missing), "{time:?}");
        }
    }

    #[test]
    fn tokens_are_compared_whole() {
        let bearer = |value: &str| {
            let head = Head::compose("POST", "/x", &[("authorization", value)], Peer::Unix).expect("a legal head");
            verify_bearer(&head, &secret("token-0123456789"))
        };
        assert_eq!(bearer("Bearer token-0123456789"), Ok(()));
        assert_eq!(bearer("bearer  token-0123456789 "), Ok(()));
        for value in ["Bearer token-012345678", "Bearer token-01234567890", "Bearer TOKEN-0123456789"] {
            assert_eq!(bearer(value), Err(Unproven::Wrong), "{value}");
        }
        for value in ["token-0123456789", "Basic token-0123456789", ""] {
            assert_eq!(bearer(value), Err(Unproven::Missing), "{value}");
        }
    }
}
