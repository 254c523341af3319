//! Exchanges with authorization servers: a refresh token for an access token.
//! Owns: the form that is sent, the reading of the answer, and the signed records of both.
//! May touch: the network, through `net`; the ledger of external actions.
//! Never: stores a token, retries, sends what could not be recorded, or repeats anything that a server says.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::broker::{ClientAuth, RefreshFailure, RefreshRequest, RefreshedTokens, TokenExchange};
use crate::commit::{ActionLedger, OwnRequest, OwnResponse};
use crate::limits::{NET_CREDENTIAL_BYTES_MAX, OAUTH_ANSWER_BYTES_MAX, OAUTH_EXCHANGE_MS_MAX};
use crate::net::{BaseUrl, Cancel, Method, Net, NetError, Purpose, Request, Target, Timeouts};
use crate::secret::Secret;

/// Everything but the unreserved characters.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Speaks to token endpoints over HTTP.
pub struct HttpExchange {
    net: Net,
    ledger: Arc<dyn ActionLedger>,
}

impl HttpExchange {
    /// With the daemon's outbound client, and where each exchange is recorded.
    pub fn new(net: Net, ledger: Arc<dyn ActionLedger>) -> Self {
        Self { net, ledger }
    }
}

/// A token endpoint's answer; what else it says is skipped.
#[derive(Deserialize)]
struct Answer {
    access_token: Option<String>,
    refresh_token: Option<String>,
    token_type: Option<String>,
    expires_in: Option<u64>,
    scope: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    error: Option<String>,
}

impl TokenExchange for HttpExchange {
    fn refresh(&self, request: &RefreshRequest, cancel: &Cancel) -> Result<RefreshedTokens, RefreshFailure> {
        let target = target(&request.token_endpoint)?;
        // Neither body has a digest: both hold tokens.
        let action = self.ledger.requested(
            None,
            &OwnRequest {
                kind: KIND,
                target: &format!("POST {target}"),
                lease: None,
                request_digest: None,
                detail: json!({"slot": request.slot.as_str(), "grant_type": "refresh_token"}),
            },
        );
        let action = action.map_err(|error| failure("unrecorded", error.to_string(), false))?;
        let (status, result) = match self.exchange(request, &target, cancel) {
            Ok((status, result)) => (Some(status), result),
            Err(failure) => (None, Err(failure)),
        };
        let mut detail = json!({"slot": request.slot.as_str()});
        if let Some(status) = status {
            detail["http_status"] = status.into();
        }
        if let Err(failure) = &result {
            detail["error"] = failure.class.into();
        }
        let outcome = if result.is_ok() { "succeeded" } else { "failed" };
        let response = OwnResponse { action, outcome, response_digest: None, detail };
        if let Err(error) = self.ledger.responded(None, &response) {
            // The tokens are kept: the former refresh token may be worth nothing any more. The next start says that the
            // outcome is unknown.
            log::error!("the end of the exchange for account {} was not recorded: {error}", request.slot);
        }
        result
    }
}

/// What records call these actions.
const KIND: &str = "oauth";

/// The server's status, and what it gave.
type Exchanged = (u16, Result<RefreshedTokens, RefreshFailure>);

impl HttpExchange {
    fn exchange(
        &self,
        request: &RefreshRequest,
        target: &Target,
        cancel: &Cancel,
    ) -> Result<Exchanged, RefreshFailure> {
        let body = form(request);
        let basic = basic(request);
        let mut headers = vec![("content-type", "application/x-www-form-urlencoded"), ("accept", "application/json")];
        headers.extend(basic.as_ref().map(|value| ("authorization", value.as_str())));
        let sent = Request {
            method: Method::Post,
            target,
            purpose: Purpose::OAuth,
            allow_private: false,
            headers: &headers,
            auth: None,
            body: Some(&body),
            timeouts: Timeouts {
                connect_ms: OAUTH_EXCHANGE_MS_MAX,
                first_byte_ms: OAUTH_EXCHANGE_MS_MAX,
                idle_ms: OAUTH_EXCHANGE_MS_MAX,
                total_ms: Some(OAUTH_EXCHANGE_MS_MAX),
            },
            body_bytes_max: OAUTH_ANSWER_BYTES_MAX,
        };
        let mut response = self.net.send(sent, cancel).map_err(|error| unreachable(&error))?;
        let status = response.status;
        let answer = Zeroizing::new(response.body.read_to_end().map_err(|error| unreachable(&error))?);
        let result = match status {
            200..=299 => tokens(&answer),
            _ => Err(refused(status, &answer)),
        };
        Ok((status, result))
    }
}

fn failure(class: &'static str, reason: impl Into<String>, is_final: bool) -> RefreshFailure {
    RefreshFailure { class, reason: reason.into(), is_final }
}

/// A network error names hosts and the operating system's words, never a body.
fn unreachable(error: &NetError) -> RefreshFailure {
    failure("unreachable", error.to_string(), false)
}

fn target(endpoint: &str) -> Result<Target, RefreshFailure> {
    let (base, query) = endpoint.split_at(endpoint.find('?').unwrap_or(endpoint.len()));
    let base = BaseUrl::parse(base).map_err(|error| failure("malformed", error.to_string(), true))?;
    Ok(base.target(query))
}

fn form(request: &RefreshRequest) -> Zeroizing<Vec<u8>> {
    let scopes = request.scopes.join(" ");
    let mut fields: Vec<(&str, &[u8])> = vec![
        ("grant_type", b"refresh_token"),
        ("refresh_token", request.refresh_token.expose()),
        ("resource", request.resource.as_bytes()),
    ];
    if !proves_in_header(request) {
        fields.insert(2, ("client_id", request.client_id.as_bytes()));
        fields.extend(request.client_secret.as_ref().map(|secret| ("client_secret", secret.expose())));
    }
    if !scopes.is_empty() {
        fields.push(("scope", scopes.as_bytes()));
    }
    // The exact bound, so that growing leaves no unwiped copy behind.
    let bytes_max: usize = fields.iter().map(|(name, value)| name.len() + 2 + 3 * value.len()).sum();
    let mut form = Zeroizing::new(Vec::with_capacity(bytes_max));
    for (name, value) in fields {
        if !form.is_empty() {
            form.push(b'&');
        }
        form.extend_from_slice(name.as_bytes());
        form.push(b'=');
        percent_encode(value, ESCAPED).for_each(|part| form.extend_from_slice(part.as_bytes()));
    }
    form
}

/// Id and secret stand in a header line, and nowhere else.
fn proves_in_header(request: &RefreshRequest) -> bool {
    request.client_auth == ClientAuth::ClientSecretBasic && request.client_secret.is_some()
}

/// The header line of a client that proves itself so (RFC 6749, 2.3.1).
fn basic(request: &RefreshRequest) -> Option<Zeroizing<String>> {
    let secret = request.client_secret.as_ref().filter(|_| proves_in_header(request))?;
    Some(basic_line(&request.client_id, secret))
}

/// `Basic` with id and secret, both escaped first.
pub(crate) fn basic_line(id: &str, secret: &Secret) -> Zeroizing<String> {
    // The exact bounds, so that growing leaves no unwiped copy behind.
    let mut pair = Zeroizing::new(Vec::with_capacity(3 * (id.len() + secret.len()) + 1));
    percent_encode(id.as_bytes(), ESCAPED).for_each(|part| pair.extend_from_slice(part.as_bytes()));
    pair.push(b':');
    percent_encode(secret.expose(), ESCAPED).for_each(|part| pair.extend_from_slice(part.as_bytes()));
    let mut line = Zeroizing::new(String::with_capacity(6 + pair.len().div_ceil(3) * 4));
    line.push_str("Basic ");
    STANDARD.encode_string(&*pair, &mut line);
    line
}

fn tokens(answer: &[u8]) -> Result<RefreshedTokens, RefreshFailure> {
    let malformed = |reason: &str| failure("malformed", reason, false);
    // The parser's words may repeat what it met.
    let answer: Answer =
        serde_json::from_slice(answer).map_err(|_| malformed("the answer is not of the expected form"))?;
    let secret = |text: String| Secret::new(text.into_bytes());
    let access_token = answer.access_token.map(secret);
    let refresh_token = answer.refresh_token.filter(|token| !token.is_empty()).map(secret);
    if answer.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(malformed("the token is no bearer token"));
    }
    let Some(access_token) = access_token.filter(|token| token.len() <= NET_CREDENTIAL_BYTES_MAX) else {
        return Err(malformed("the answer holds no access token, or one that fits into no header"));
    };
    let scopes = answer.scope.map(|scope| scope.split_whitespace().map(str::to_string).collect());
    Ok(RefreshedTokens { access_token, refresh_token, expires_in_s: answer.expires_in, scopes })
}

/// The server's code is compared with known ones and never passed on.
fn refused(status: u16, answer: &[u8]) -> RefreshFailure {
    let code = serde_json::from_slice::<Refusal>(answer).ok().and_then(|refusal| refusal.error);
    let known = ["invalid_grant", "invalid_client", "unauthorized_client"];
    match code.as_deref().and_then(|code| known.into_iter().find(|known| *known == code)) {
        Some(known) if status < 500 => failure("rejected", format!("the server answers {known} (HTTP {status})"), true),
        _ if status == 429 || status >= 500 => {
            failure("overloaded", format!("the server answers HTTP {status}"), false)
        }
        _ => failure("rejected", format!("the server answers HTTP {status}"), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::SlotId;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    fn request(client_auth: ClientAuth) -> RefreshRequest {
        RefreshRequest {
            slot: SlotId::parse("mcp.oauth.docs").unwrap(),
            token_endpoint: String::new(),
            client_id: "client 1".to_string(),
            client_secret: Some(secret("s&c=ret")),
            client_auth,
            resource: "https://mcp.example/mcp".to_string(),
            refresh_token: secret("r+efresh/~"),
            scopes: vec!["read".to_string(), "write:all".to_string()],
        }
    }

    #[test]
    fn a_client_that_proves_itself_in_a_header_says_nothing_of_it_in_the_form() {
        let asked = request(ClientAuth::ClientSecretBasic);
        let form = form(&asked);
        let form = std::str::from_utf8(&form).unwrap();
        assert!(!form.contains("client"), "{form}");
        let line = basic(&asked).unwrap();
        assert_eq!(STANDARD.decode(line.strip_prefix("Basic ").unwrap()).unwrap(), b"client%201:s%26c%3Dret");
        assert!(basic(&request(ClientAuth::ClientSecretPost)).is_none());
        // A client without a secret has nothing to put there.
        let bare = RefreshRequest { client_secret: None, ..asked };
        assert!(basic(&bare).is_none());
        assert!(std::str::from_utf8(&super::form(&bare)).unwrap().contains("client_id=client%201"));
    }

    #[test]
    fn the_form_holds_every_field_escaped_and_the_buffer_never_moves() {
        let form = form(&request(ClientAuth::ClientSecretPost));
        let expected = "grant_type=refresh_token&refresh_token=r%2Befresh%2F~&client_id=client%201&\
                        resource=https%3A%2F%2Fmcp.example%2Fmcp&client_secret=s%26c%3Dret&scope=read%20write%3Aall";
        assert_eq!(std::str::from_utf8(&form), Ok(expected));
    }

    #[test]
    fn only_a_bearer_token_is_taken_and_only_known_refusals_are_final() {
        let taken =
            tokens(br#"{"access_token":"a","token_type":"BEARER","expires_in":60,"scope":"x  y","more":[1]}"#).unwrap();
        assert_eq!((taken.access_token.expose(), taken.expires_in_s), (&b"a"[..], Some(60)));
        assert_eq!((taken.refresh_token.is_none(), taken.scopes), (true, Some(vec!["x".to_string(), "y".to_string()])));
        for bad in
            [&b"{}"[..], b"[]", b"canary", br#"{"access_token":1}"#, br#"{"access_token":"a","token_type":"mac"}"#]
        {
            let failure = tokens(bad).unwrap_err();
            assert_eq!(
                (failure.class, failure.is_final, failure.reason.contains("canary")),
                ("malformed", false, false)
            );
        }
        let judged = |status, body: &str| {
            let failure = refused(status, body.as_bytes());
            assert!(!failure.reason.contains("canary"), "{failure:?}");
            (failure.class, failure.is_final)
        };
        assert_eq!(judged(400, r#"{"error":"invalid_grant","error_description":"canary"}"#), ("rejected", true));
        assert_eq!(judged(401, r#"{"error":"invalid_client"}"#), ("rejected", true));
        assert_eq!(judged(400, r#"{"error":"canary"}"#), ("rejected", false));
        assert_eq!(judged(404, "canary"), ("rejected", false));
        assert_eq!(judged(429, r#"{"error":"slow_down"}"#), ("overloaded", false));
        assert_eq!(judged(503, r#"{"error":"invalid_grant"}"#), ("overloaded", false));
    }
}
