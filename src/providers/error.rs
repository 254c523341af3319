//! What can go wrong in a turn, as one set of classes for all vendors.
//! Owns: the mapping from HTTP status, vendor code and network failure to class and retry advice.
//! Never: keeps a vendor's free text, which may repeat a key or a prompt; only short names of types, codes and
//! parameters pass.

use std::fmt;

use serde_json::Value;

use crate::limits::PROVIDER_ERROR_TOKEN_BYTES_MAX;
use crate::net::NetError;

use super::retry;

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The credential is missing, wrong, revoked or not allowed.
    Auth,
    /// The account's money or allowance is used up.
    Quota,
    /// Too many requests for now.
    RateLimit,
    /// The provider is overloaded or broken for now.
    Overload,
    /// The conversation does not fit the model's context.
    ContextTooLong,
    /// The request is not acceptable as it is.
    InvalidRequest,
    /// The provider's content policy stopped the answer.
    ContentFilter,
    /// No connection, or a broken one.
    Network,
    /// A limit of time was met.
    Timeout,
    /// The answer is incomplete or not understood.
    MalformedStream,
    /// The run was cancelled or the daemon stops.
    Cancelled,
}

impl ErrorClass {
    /// The stable code of a failed run.
    pub fn code(self) -> &'static str {
        match self {
            Self::Auth => "provider_auth",
            Self::Quota => "provider_quota",
            Self::RateLimit => "provider_rate_limit",
            Self::Overload => "provider_overload",
            Self::ContextTooLong => "provider_context_too_long",
            Self::InvalidRequest => "provider_invalid_request",
            Self::ContentFilter => "provider_content_filter",
            Self::Network => "provider_network",
            Self::Timeout => "provider_timeout",
            Self::MalformedStream => "provider_malformed_stream",
            Self::Cancelled => "provider_cancelled",
        }
    }

    /// Whether another route may do better. A credential that was refused or taken away, a request that no provider would
    /// take and an answer that a policy stopped are for people, not for another provider.
    pub fn may_fail_over(self) -> bool {
        match self {
            Self::Quota | Self::RateLimit | Self::Overload | Self::Network | Self::Timeout | Self::MalformedStream => {
                true
            }
            Self::Auth | Self::ContextTooLong | Self::InvalidRequest | Self::ContentFilter | Self::Cancelled => false,
        }
    }

    fn next(self) -> &'static str {
        match self {
            Self::Auth => "check the route's credential and its permission for this model",
            Self::Quota => "check the provider account's balance and spending limits",
            Self::RateLimit => "wait, or ask the provider for a higher limit",
            Self::Overload => "try again later, and check the provider's status page",
            Self::ContextTooLong => "start a new session, or choose a model with a larger context",
            Self::InvalidRequest => "check the route's base_url and model",
            Self::ContentFilter => "change the input",
            Self::Network => "check the route's base_url and the network",
            Self::Timeout => "check the provider, or raise the route's timeouts",
            Self::MalformedStream => "check that base_url names a server of the route's driver",
            Self::Cancelled => "none needed",
        }
    }
}

/// Whether another attempt can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It cannot.
    Never,
    /// After our own back-off.
    Backoff,
    /// After this many milliseconds: the provider said so.
    After(u64),
}

/// A failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderError {
    /// What kind of failure it was.
    pub class: ErrorClass,
    /// Whether another attempt can help.
    pub retry: Retry,
    /// The HTTP status, when there was an answer.
    pub http_status: Option<u16>,
    /// The provider's own code, or ours; lower-case words joined by underscores.
    pub code: Option<String>,
    /// What happened, in our words.
    pub message: String,
}

impl ProviderError {
    /// An error in our own words. `message` must not hold text of the provider.
    pub(super) fn new(class: ErrorClass, retry: Retry, code: &str, message: impl Into<String>) -> Self {
        Self { class, retry, http_status: None, code: Some(code.to_string()), message: message.into() }
    }

    /// A stream that ended before its terminal event.
    pub(super) fn truncated() -> Self {
        let message = "the stream ended before the answer was complete";
        Self::new(ErrorClass::MalformedStream, Retry::Backoff, TRUNCATED, message)
    }

    /// Whether the stream merely broke off, as opposed to being unintelligible.
    pub fn is_truncation(&self) -> bool {
        self.code.as_deref() == Some(TRUNCATED)
    }

    /// An answer that is no stream of the expected kind.
    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::MalformedStream, Retry::Backoff, "stream_malformed", message)
    }
}

const TRUNCATED: &str = "stream_truncated";

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(status) = self.http_status {
            write!(f, " (HTTP {status})")?;
        }
        if let Some(code) = &self.code {
            write!(f, " [{code}]")?;
        }
        // A network error brings its own, more precise next step.
        if !self.message.contains("; next: ") {
            write!(f, "; next: {}", self.class.next())?;
        }
        Ok(())
    }
}

impl std::error::Error for ProviderError {}

impl From<NetError> for ProviderError {
    fn from(error: NetError) -> Self {
        use ErrorClass::{Auth, Cancelled, MalformedStream, Network, Timeout};
        let (class, retry, code) = match &error {
            // The operator's own setting; asking again changes nothing.
            NetError::EgressRefused { .. } => (Network, Retry::Never, "egress_refused"),
            NetError::Resolve { .. } => (Network, Retry::Backoff, "resolve_failed"),
            NetError::ResolverBusy { .. } => (Network, Retry::Backoff, "resolver_busy"),
            NetError::Connect { .. } => (Network, Retry::Backoff, "connect_failed"),
            // A certificate does not become right by asking again.
            NetError::Tls { .. } => (Network, Retry::Never, "tls_failed"),
            NetError::Timeout { .. } => (Timeout, Retry::Backoff, "timed_out"),
            NetError::HeadTooLarge { .. } => (MalformedStream, Retry::Never, "head_too_large"),
            NetError::BodyTooLarge { .. } => (MalformedStream, Retry::Never, "stream_too_large"),
            NetError::Cancelled => (Cancelled, Retry::Never, "cancelled"),
            NetError::CredentialRefused { .. } => (Auth, Retry::Never, "credential_refused"),
            NetError::Protocol { .. } => (MalformedStream, Retry::Backoff, "http_malformed"),
            NetError::Io { .. } => (Network, Retry::Backoff, "connection_broken"),
        };
        Self::new(class, retry, code, error.to_string())
    }
}

/// The parts of a vendor's error object that may be shown or decide something.
#[derive(Debug, Default)]
pub(super) struct VendorError {
    pub code: Option<String>,
    pub kind: Option<String>,
    pub param: Option<String>,
    /// OpenRouter's `metadata.error_type`, Google's `ErrorInfo.reason`.
    pub reason: Option<String>,
    /// An HTTP status within the object: OpenRouter, Google, llama.cpp.
    pub status: Option<u16>,
    /// Google's `RetryInfo`, in milliseconds.
    pub retry_ms: Option<u64>,
    /// Whether the free text speaks of the context length; local servers have no code for it.
    pub mentions_context: bool,
}

/// What vendors say about a conversation that is too long, in lower case.
const CONTEXT_PHRASES: [&str; 7] = [
    "context length",
    "context window",
    "context size",
    "context limit",
    "prompt is too long",
    "maximum prompt length",
    "input token count",
];

impl VendorError {
    /// Reads an error object of any vendor; a text stands for its message.
    pub(super) fn from_value(value: &Value) -> Self {
        if let Value::String(message) = value {
            return Self { mentions_context: mentions_context(message), ..Self::default() };
        }
        let token = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).and_then(safe_token);
        let details = value.get("details").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let detail = |key: &str| details.iter().find_map(|detail| detail.get(key).and_then(Value::as_str));
        // A day's allowance does not come back within any wait of ours.
        let is_daily = details.iter().any(|detail| {
            let violations = detail.get("violations").and_then(Value::as_array);
            violations
                .into_iter()
                .flatten()
                .any(|it| it.get("quotaId").and_then(Value::as_str).is_some_and(|id| id.contains("PerDay")))
        });
        let reason = token("/metadata/error_type").or_else(|| detail("reason").and_then(safe_token));
        let message = value.get("message").and_then(Value::as_str).unwrap_or_default();
        Self {
            code: token("/details/error_code").or_else(|| token("/code")),
            kind: token("/type").or_else(|| token("/status")),
            param: token("/param"),
            reason: if is_daily { Some(DAILY_QUOTA.to_string()) } else { reason },
            status: value.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok()),
            retry_ms: detail("retryDelay").and_then(retry::duration_ms),
            mentions_context: mentions_context(message),
        }
    }

    /// Reads an error body: `{"error":{…}}`, a list of such, or the object itself.
    pub(super) fn from_body(body: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        let value = value.as_array().and_then(|list| list.first()).unwrap_or(&value);
        Self::from_value(value.get("error").filter(|inner| inner.is_object() || inner.is_string()).unwrap_or(value))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        [&self.code, &self.reason, &self.kind].into_iter().flatten().map(String::as_str)
    }

    /// Class by the vendor's names alone, where they are decisive whatever the status.
    fn class(&self) -> Option<ErrorClass> {
        const QUOTA: [&str; 13] = [
            "insufficient_quota",
            "billing_error",
            "credit_balance_exhausted",
            "project_spend_limit_exceeded",
            "organization_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
            "billing_hard_limit_reached",
            "enforced_spend_limit_reached",
            "contract_spend_limit_reached",
            "linked_organization_billing_unavailable",
            "linked_organization_spend_limit_reached",
            "payment_required",
            DAILY_QUOTA,
        ];
        const RATE: [&str; 5] =
            ["rate_limit_exceeded", "slow_down", "rate_limit_error", "ramp_limit_exceeded", "resource_exhausted"];
        const OVERLOAD: [&str; 14] = [
            "server_error",
            "server_is_overloaded",
            "overloaded_error",
            "api_error",
            "timeout_error",
            "vector_store_timeout",
            "compaction_unavailable",
            "provider_overloaded",
            "provider_unavailable",
            "server",
            "timeout",
            "unavailable",
            "internal",
            "deadline_exceeded",
        ];
        const CONTEXT: [&str; 4] =
            ["context_length_exceeded", "context_window_exceeded", "exceed_context_size_error", "token_limit_exceeded"];
        const FILTER: [&str; 5] =
            ["content_filter", "content_policy_violation", "bio_policy", "misalignment_policy_violation", "refusal"];
        const AUTH: [&str; 7] = [
            "invalid_api_key",
            "api_key_invalid",
            "authentication_error",
            "authentication",
            "unauthenticated",
            "permission_error",
            "permission_denied",
        ];
        let table = [
            (ErrorClass::Quota, &QUOTA[..]),
            (ErrorClass::ContextTooLong, &CONTEXT[..]),
            (ErrorClass::ContentFilter, &FILTER[..]),
            (ErrorClass::Auth, &AUTH[..]),
            (ErrorClass::RateLimit, &RATE[..]),
            (ErrorClass::Overload, &OVERLOAD[..]),
        ];
        let is_named = |names: &[&str]| self.names().any(|name| names.contains(&name));
        table.iter().find(|(_, names)| is_named(names)).map(|(class, _)| *class)
    }

    fn name(&self) -> Option<String> {
        self.names().next().map(str::to_string)
    }

    fn describe(&self, what: &str) -> String {
        match &self.param {
            Some(param) => format!("{what} because of parameter {param}"),
            None => what.to_string(),
        }
    }
}

/// Our name for Google's quota of a day.
const DAILY_QUOTA: &str = "daily_quota";

fn mentions_context(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    CONTEXT_PHRASES.iter().any(|phrase| message.contains(phrase))
}

/// Lets through what looks like a name (`rate_limit_exceeded`, `input[0].text`) and nothing that could be a key:
/// lower case only, few digits, no dashes. Google's names are words in capitals, and become lower case.
fn safe_token(raw: &str) -> Option<String> {
    let is_words = raw.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    let is_name = raw.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.[]".contains(&b))
        && raw.bytes().filter(u8::is_ascii_digit).count() <= 6;
    let fits = !raw.is_empty() && raw.len() <= PROVIDER_ERROR_TOKEN_BYTES_MAX;
    (fits && (is_name || is_words)).then(|| raw.to_ascii_lowercase())
}

fn default_retry(class: ErrorClass) -> Retry {
    match class {
        ErrorClass::RateLimit
        | ErrorClass::Overload
        | ErrorClass::Network
        | ErrorClass::Timeout
        | ErrorClass::MalformedStream => Retry::Backoff,
        ErrorClass::Auth
        | ErrorClass::Quota
        | ErrorClass::ContextTooLong
        | ErrorClass::InvalidRequest
        | ErrorClass::ContentFilter
        | ErrorClass::Cancelled => Retry::Never,
    }
}

/// Names an answer whose status is not 200. `header` looks up a response header.
pub(super) fn from_http<'h>(
    status: u16,
    header: impl Fn(&str) -> Option<&'h str>,
    body: &[u8],
    now_ms: u64,
) -> ProviderError {
    let vendor = VendorError::from_body(body);
    if (300..=399).contains(&status) {
        let message = "the provider answered with a redirect, which is not followed";
        let error = ProviderError::new(ErrorClass::InvalidRequest, Retry::Never, "redirect_refused", message);
        return ProviderError { http_status: Some(status), ..error };
    }
    let by_status = match class_of_status(status) {
        Some(ErrorClass::InvalidRequest) if vendor.mentions_context => ErrorClass::ContextTooLong,
        Some(class) => class,
        None => ErrorClass::MalformedStream,
    };
    // A proxy's 401 or 429 with an unrelated code stays what its status says, except where money or context
    // decides; otherwise the vendor's own code is more precise than the status.
    let class = match (by_status, vendor.class()) {
        (_, Some(class @ (ErrorClass::Quota | ErrorClass::ContextTooLong | ErrorClass::ContentFilter))) => class,
        (ErrorClass::InvalidRequest, Some(class)) => class,
        (class, _) => class,
    };
    let retry = match (header("x-should-retry"), default_retry(class)) {
        (Some("false"), _) => Retry::Never,
        (Some("true"), Retry::Never) | (_, Retry::Backoff) => {
            retry::hint_ms(&header, now_ms).or(vendor.retry_ms).map_or(Retry::Backoff, Retry::After)
        }
        (_, retry) => retry,
    };
    let message = vendor.describe("the provider refused the request");
    ProviderError { class, retry, http_status: Some(status), code: vendor.name(), message }
}

fn class_of_status(status: u16) -> Option<ErrorClass> {
    match status {
        401 | 403 => Some(ErrorClass::Auth),
        402 => Some(ErrorClass::Quota),
        429 => Some(ErrorClass::RateLimit),
        408 | 409 | 500..=599 => Some(ErrorClass::Overload),
        400..=499 => Some(ErrorClass::InvalidRequest),
        _ => None,
    }
}

/// Names an error object that came inside a stream.
pub(super) fn from_stream(vendor: &VendorError) -> ProviderError {
    let class = match vendor.class().or(vendor.status.and_then(class_of_status)) {
        Some(ErrorClass::InvalidRequest) | None if vendor.mentions_context => ErrorClass::ContextTooLong,
        Some(class) => class,
        // An error without a name is the server's own; with one it is about our request.
        None if vendor.name().is_none() => ErrorClass::Overload,
        None => ErrorClass::InvalidRequest,
    };
    let retry = match default_retry(class) {
        Retry::Backoff => vendor.retry_ms.map_or(Retry::Backoff, Retry::After),
        retry => retry,
    };
    let message = vendor.describe("the provider failed while answering");
    ProviderError { class, retry, http_status: Some(200), code: vendor.name(), message }
}

/// The failure that a server reported as plain JSON where an event was due, if the text is one.
pub(super) fn from_stray_text(text: &[u8]) -> Option<ProviderError> {
    let value = serde_json::Deserializer::from_slice(text).into_iter::<Value>().next()?.ok()?;
    let value = value.as_array().and_then(|list| list.first()).unwrap_or(&value);
    let error = value.get("error").filter(|error| error.is_object() || error.is_string())?;
    Some(from_stream(&VendorError::from_value(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(status: u16, headers: &[(&str, &'static str)], body: &str) -> ProviderError {
        let find = |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        from_http(status, find, body.as_bytes(), 0)
    }

    #[test]
    fn every_status_and_code_has_its_class_and_retry_advice() {
        use ErrorClass::*;
        let code = |code: &str| format!(r#"{{"error":{{"code":"{code}","message":"m"}}}}"#);
        let kind = |kind: &str| format!(r#"{{"error":{{"type":"{kind}","code":null}}}}"#);
        let message = |text: &str| serde_json::json!({"error": {"message": text}}).to_string();
        let detail =
            |code: &str| format!(r#"{{"type":"error","error":{{"type":"x","details":{{"error_code":"{code}"}}}}}}"#);
        let google = |status: &str, detail: &str| {
            format!(r#"{{"error":{{"code":429,"message":"m","status":"{status}","details":[{{}},{detail}]}}}}"#)
        };
        let openrouter =
            |kind: &str| format!(r#"{{"error":{{"code":403,"message":"m","metadata":{{"error_type":"{kind}"}}}}}}"#);
        let cases = [
            (401, code("invalid_api_key"), Auth, Retry::Never),
            (403, String::new(), Auth, Retry::Never),
            (402, "{}".to_string(), Quota, Retry::Never),
            (429, kind("insufficient_quota"), Quota, Retry::Never),
            (429, code("credit_balance_exhausted"), Quota, Retry::Never),
            (429, code("rate_limit_exceeded"), RateLimit, Retry::Backoff),
            (429, "not json".to_string(), RateLimit, Retry::Backoff),
            (400, code("context_length_exceeded"), ContextTooLong, Retry::Never),
            (400, r#"{"error":{"message":"maximum context length is 8"}}"#.to_string(), ContextTooLong, Retry::Never),
            (400, code("content_filter"), ContentFilter, Retry::Never),
            (400, code("unknown_parameter"), InvalidRequest, Retry::Never),
            (404, code("model_not_found"), InvalidRequest, Retry::Never),
            (413, "<html>".to_string(), InvalidRequest, Retry::Never),
            (307, String::new(), InvalidRequest, Retry::Never),
            (408, String::new(), Overload, Retry::Backoff),
            (409, String::new(), Overload, Retry::Backoff),
            (500, code("server_error"), Overload, Retry::Backoff),
            (503, code("server_is_overloaded"), Overload, Retry::Backoff),
            (529, String::new(), Overload, Retry::Backoff),
            (204, String::new(), MalformedStream, Retry::Backoff),
            (429, detail("enforced_spend_limit_reached"), Quota, Retry::Never),
            (429, detail("ramp_limit_exceeded"), RateLimit, Retry::Backoff),
            (529, detail("compaction_unavailable"), Overload, Retry::Backoff),
            (402, detail("linked_organization_spend_limit_reached"), Quota, Retry::Never),
            (400, message("prompt is too long: 9 tokens > 8 maximum"), ContextTooLong, Retry::Never),
            (
                400,
                message("input length and `max_tokens` exceed context limit: 9 + 8 > 9"),
                ContextTooLong,
                Retry::Never,
            ),
            (400, message("The input token count (9) exceeds the maximum"), ContextTooLong, Retry::Never),
            (400, google("INVALID_ARGUMENT", r#"{"reason":"API_KEY_INVALID"}"#), Auth, Retry::Never),
            (400, google("INVALID_ARGUMENT", "{}"), InvalidRequest, Retry::Never),
            (400, google("FAILED_PRECONDITION", "{}"), InvalidRequest, Retry::Never),
            (429, google("RESOURCE_EXHAUSTED", r#"{"retryDelay":"12s"}"#), RateLimit, Retry::After(12_000)),
            (429, google("RESOURCE_EXHAUSTED", r#"{"retryDelay":"0.25s"}"#), RateLimit, Retry::After(250)),
            (
                429,
                google("RESOURCE_EXHAUSTED", r#"{"violations":[{"quotaId":"RequestsPerDay"}]}"#),
                Quota,
                Retry::Never,
            ),
            (503, google("UNAVAILABLE", "{}"), Overload, Retry::Backoff),
            (403, openrouter("content_policy_violation"), ContentFilter, Retry::Never),
            (400, openrouter("context_length_exceeded"), ContextTooLong, Retry::Never),
            (502, openrouter("provider_unavailable"), Overload, Retry::Backoff),
            (524, openrouter("timeout"), Overload, Retry::Backoff),
            (400, kind("exceed_context_size_error"), ContextTooLong, Retry::Never),
            (400, r#"{"error":"the context window is full"}"#.to_string(), ContextTooLong, Retry::Never),
            (429, format!("[{}]", google("RESOURCE_EXHAUSTED", "{}")), RateLimit, Retry::Backoff),
        ];
        for (status, body, class, retry) in cases {
            let error = http(status, &[], &body);
            assert_eq!((error.class, error.retry), (class, retry), "{status} {body}");
            assert!(error.to_string().contains("; next: "), "{error}");
        }
    }

    #[test]
    fn the_provider_decides_about_retries_where_it_says_so() {
        assert_eq!(http(429, &[("retry-after", "7")], "").retry, Retry::After(7_000));
        assert_eq!(http(503, &[("retry-after-ms", "250"), ("retry-after", "7")], "").retry, Retry::After(250));
        assert_eq!(http(429, &[("retry-after", "7"), ("x-should-retry", "false")], "").retry, Retry::Never);
        assert_eq!(http(400, &[("x-should-retry", "true")], "").retry, Retry::Backoff);
        assert_eq!(http(400, &[("retry-after", "7")], "").retry, Retry::Never);
    }

    #[test]
    fn a_failure_in_plain_text_is_recognised_and_other_text_is_not() {
        let class = |text: &str| from_stray_text(text.as_bytes()).map(|error| error.class);
        let google = "{\n \"error\": {\n  \"code\": 503, \"status\": \"UNAVAILABLE\"}\n}\n\n";
        assert_eq!(class(google), Some(ErrorClass::Overload));
        assert_eq!(class(&format!("[{google}\n")), None);
        assert_eq!(class(&format!("[{google}]")), Some(ErrorClass::Overload));
        assert_eq!(class(r#"{"error":{"code":429}}{"more":1}"#), Some(ErrorClass::RateLimit));
        assert_eq!(class(r#"{"error":"busy"}"#), Some(ErrorClass::Overload));
        for text in ["", "{", "{}", "[]", "data", r#"{"error":null}"#, r#"{"error":5}"#] {
            assert_eq!(class(text), None, "{text}");
        }
    }

    #[test]
    fn nothing_that_could_be_a_key_or_a_prompt_comes_out_of_a_vendors_error() {
        for secret in ["sk-proj-AbCd1234", "SGVsbG8", "4f5a6b7c8d9e0f1a", "two words", &"x".repeat(65), "a\nb"] {
            let object = serde_json::json!({"code": secret, "type": secret, "param": secret, "message": secret});
            let body = serde_json::json!({ "error": object }).to_string();
            for error in [http(400, &[], &body), from_stream(&VendorError::from_value(&object))] {
                let shown = format!("{error} {error:?}");
                assert!(!shown.contains(secret), "{shown}");
            }
        }
        let body = r#"{"error":{"code":"unknown_parameter","param":"input[0].content[1].text","message":"sk-1"}}"#;
        let expected = "the provider refused the request because of parameter input[0].content[1].text (HTTP 400) \
                        [unknown_parameter]; next: check the route's base_url and model";
        assert_eq!(http(400, &[], body).to_string(), expected);
    }
}
