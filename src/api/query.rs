//! Strict reading of query strings.
//! Owns: which parameters a route takes, their syntax, and the refusal of every other one.
//! May touch: one raw query string.
//! Never: repeats a value in an error.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::api::paging;
use crate::api::text::quote;
use crate::http::problem::{Code, Problem, codes};
use crate::ids::{RunId, Seq, SessionId};

/// One parameter of a route: the router checks it, the OpenAPI document lists it.
#[derive(Debug, Clone, Copy)]
pub struct QueryParam {
    /// Its name; exact, case-sensitive.
    pub name: &'static str,
    /// What its value may be.
    pub kind: QueryKind,
    /// One sentence for the OpenAPI document.
    pub summary: &'static str,
}

/// The syntax of a parameter's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryKind {
    /// Text of 1 to this many bytes.
    Text(usize),
    /// A decimal number.
    Unsigned,
    /// `true` or `false`.
    Flag,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A legal session id.
    Session,
    /// A legal run id.
    Run,
    /// Items of a page: a decimal number of at least 1.
    Limit,
    /// `asc` or `desc`.
    Order,
    /// The opaque cursor of a list.
    PageCursor,
    /// A journal sequence number; blank means none.
    EventCursor,
}

impl QueryKind {
    /// The problem code for a value that breaks the syntax.
    pub fn code(&self) -> &'static Code {
        match self {
            Self::Limit => &codes::INVALID_LIMIT,
            Self::Order => &codes::INVALID_ORDER,
            Self::PageCursor => &codes::INVALID_CURSOR,
            Self::EventCursor => &codes::INVALID_EVENT_CURSOR,
            Self::Text(_) | Self::Unsigned | Self::Flag | Self::OneOf(_) | Self::Session | Self::Run => {
                &codes::BAD_REQUEST
            }
        }
    }

    fn expected(&self) -> String {
        match self {
            Self::Text(bytes_max) => format!("1 to {bytes_max} bytes of text"),
            Self::Unsigned => "a decimal number".to_string(),
            Self::Flag => "true or false".to_string(),
            Self::OneOf(words) => format!("one of {}", words.join(", ")),
            Self::Session => "a session id".to_string(),
            Self::Run => "a run id".to_string(),
            Self::Limit => "a decimal number of at least 1".to_string(),
            Self::Order => "asc or desc".to_string(),
            Self::PageCursor => "a cursor that this list issued".to_string(),
            Self::EventCursor => "a decimal event id".to_string(),
        }
    }

    fn accepts(&self, value: &str) -> bool {
        match self {
            Self::Text(bytes_max) => !value.is_empty() && value.len() <= *bytes_max,
            Self::Unsigned => decimal(value).is_some(),
            Self::Flag => matches!(value, "true" | "false"),
            Self::OneOf(words) => words.contains(&value),
            Self::Session => SessionId::parse(value).is_ok(),
            Self::Run => RunId::parse(value).is_some(),
            Self::Limit => decimal(value).is_some_and(|limit| limit > 0),
            Self::Order => matches!(value, "asc" | "desc"),
            Self::PageCursor => paging::decode_cursor(value).is_some(),
            Self::EventCursor => event_cursor(value).is_some(),
        }
    }
}

/// Digits only, at most `u64::MAX`.
fn decimal(raw: &str) -> Option<u64> {
    raw.bytes().all(|b| b.is_ascii_digit()).then(|| raw.parse().ok()).flatten()
}

/// `Some(None)` for a blank, `None` for anything that is no decimal number.
pub(super) fn event_cursor(raw: &str) -> Option<Option<Seq>> {
    match raw.trim() {
        "" => Some(None),
        digits => decimal(digits).map(Some),
    }
}

/// The parameters of one request, checked against the route's list.
#[derive(Debug, Default)]
pub struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Reads `raw` (what follows `?`), where only `allowed` may appear, each at most once.
    /// `+` is a blank, as in HTML forms.
    ///
    /// # Errors
    /// The code of the parameter's kind; 400 `bad_request` for unknown, repeated or undecodable ones.
    pub fn read(raw: Option<&str>, allowed: &'static [QueryParam]) -> Result<Self, Problem> {
        let mut read = Vec::new();
        for pair in raw.filter(|raw| !raw.is_empty()).into_iter().flat_map(|raw| raw.split('&')) {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| refuse("a query parameter is not of the form name=value".to_string()))?;
            let name = decode(name).ok_or_else(|| refuse("a query parameter's name is not UTF-8".to_string()))?;
            let Some(param) = allowed.iter().find(|param| param.name == name) else {
                return Err(refuse(unknown(&name, allowed)));
            };
            if read.iter().any(|(known, _)| *known == param.name) {
                return Err(refuse(format!("the query parameter {} is given twice", param.name)));
            }
            let value = decode(value).filter(|value| !value.contains(char::is_control) && param.kind.accepts(value));
            let Some(value) = value else {
                let detail = format!("the query parameter {} must be {}", param.name, param.kind.expected());
                return Err(Problem::new(param.kind.code(), detail));
            };
            read.push((param.name, value.into_owned()));
        }
        Ok(Self(read))
    }

    /// The value of `name`, if the caller gave it.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// A [`QueryKind::Unsigned`] or [`QueryKind::Limit`] parameter.
    pub fn unsigned(&self, name: &str) -> Option<u64> {
        self.text(name).and_then(decimal)
    }

    /// A [`QueryKind::Flag`] parameter; absent is `false`.
    pub fn flag(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    /// A [`QueryKind::Session`] parameter.
    pub fn session(&self, name: &str) -> Option<SessionId> {
        self.text(name).and_then(|raw| SessionId::parse(raw).ok())
    }

    /// A [`QueryKind::Run`] parameter.
    pub fn run(&self, name: &str) -> Option<RunId> {
        self.text(name).and_then(RunId::parse)
    }
}

fn refuse(detail: String) -> Problem {
    Problem::new(&codes::BAD_REQUEST, detail)
}

fn unknown(name: &str, allowed: &[QueryParam]) -> String {
    let names: Vec<&str> = allowed.iter().map(|param| param.name).collect();
    match names.as_slice() {
        [] => format!("unknown query parameter {}; this route takes none", quote(name)),
        names => format!("unknown query parameter {}; this route takes {}", quote(name), names.join(", ")),
    }
}

/// Decodes `%XX` and `+`; `None` for a broken escape or bytes that are not UTF-8.
fn decode(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.contains(['%', '+']) {
        return Some(Cow::Borrowed(raw));
    }
    decode_escapes(&raw.replace('+', " ")).map(|text| Cow::Owned(text.into_owned()))
}

/// Decodes `%XX` only, as in paths; `None` for a broken escape or bytes that are not UTF-8.
pub(super) fn decode_escapes(raw: &str) -> Option<Cow<'_, str>> {
    let bytes = raw.as_bytes();
    let whole = |at: usize| bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    let broken = bytes.iter().enumerate().any(|(at, byte)| *byte == b'%' && !whole(at));
    if broken { None } else { percent_decode_str(raw).decode_utf8().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMS: &[QueryParam] = &[
        QueryParam { name: "limit", kind: QueryKind::Limit, summary: "" },
        QueryParam { name: "page", kind: QueryKind::Flag, summary: "" },
        QueryParam { name: "order", kind: QueryKind::Order, summary: "" },
        QueryParam { name: "cursor", kind: QueryKind::PageCursor, summary: "" },
        QueryParam { name: "from", kind: QueryKind::EventCursor, summary: "" },
        QueryParam { name: "session_id", kind: QueryKind::Session, summary: "" },
        QueryParam { name: "run_id", kind: QueryKind::Run, summary: "" },
        QueryParam { name: "status", kind: QueryKind::OneOf(&["queued", "running"]), summary: "" },
        QueryParam { name: "wait_ms", kind: QueryKind::Unsigned, summary: "" },
        QueryParam { name: "q", kind: QueryKind::Text(5), summary: "" },
    ];

    #[test]
    fn legal_parameters_are_read_and_decoded() {
        let raw =
            "limit=7&page=true&order=desc&session_id=slack%3AT1%2b&run_id=run-9&status=queued&q=a+%C3%A9&wait_ms=0";
        let query = Query::read(Some(raw), PARAMS).unwrap();
        assert_eq!(query.unsigned("limit"), Some(7));
        assert_eq!(query.unsigned("wait_ms"), Some(0));
        assert!(query.flag("page"));
        assert_eq!(query.text("order"), Some("desc"));
        assert_eq!(query.session("session_id").unwrap().as_str(), "slack:T1+");
        assert_eq!(query.run("run_id"), RunId::parse("run-9"));
        assert_eq!((query.text("status"), query.text("q")), (Some("queued"), Some("a é")));
        assert_eq!((query.text("cursor"), query.unsigned("cursor"), query.flag("nothing")), (None, None, false));
        for empty in [None, Some("")] {
            assert!(Query::read(empty, PARAMS).unwrap().0.is_empty());
        }
    }

    #[test]
    fn every_other_query_is_refused_without_repeating_its_value() {
        let cases = [
            ("limit=0", "invalid_limit", "the query parameter limit must be a decimal number of at least 1"),
            ("limit=+7", "invalid_limit", "the query parameter limit must be a decimal number of at least 1"),
            (
                "limit=99999999999999999999",
                "invalid_limit",
                "the query parameter limit must be a decimal number of at least 1",
            ),
            ("limit=", "invalid_limit", "the query parameter limit must be a decimal number of at least 1"),
            ("limit=1&limit=2", "bad_request", "the query parameter limit is given twice"),
            ("limit=1&%6cimit=2", "bad_request", "the query parameter limit is given twice"),
            ("page=1", "bad_request", "the query parameter page must be true or false"),
            ("page", "bad_request", "a query parameter is not of the form name=value"),
            ("page=true&", "bad_request", "a query parameter is not of the form name=value"),
            ("&page=true", "bad_request", "a query parameter is not of the form name=value"),
            ("order=up", "invalid_order", "the query parameter order must be asc or desc"),
            ("cursor=!", "invalid_cursor", "the query parameter cursor must be a cursor that this list issued"),
            ("from=-1", "invalid_event_cursor", "the query parameter from must be a decimal event id"),
            ("session_id=..", "bad_request", "the query parameter session_id must be a session id"),
            ("run_id=7", "bad_request", "the query parameter run_id must be a run id"),
            ("status=gone", "bad_request", "the query parameter status must be one of queued, running"),
            ("q=123456", "bad_request", "the query parameter q must be 1 to 5 bytes of text"),
            ("q=", "bad_request", "the query parameter q must be 1 to 5 bytes of text"),
            ("q=%zz", "bad_request", "the query parameter q must be 1 to 5 bytes of text"),
            ("q=%f", "bad_request", "the query parameter q must be 1 to 5 bytes of text"),
            ("q=%ff", "bad_request", "the query parameter q must be 1 to 5 bytes of text"),
            ("q=%00", "bad_request", "the query parameter q must be 1 to 5 bytes of text"),
            ("%ff=1", "bad_request", "a query parameter's name is not UTF-8"),
            (
                "Limit=1",
                "bad_request",
                "unknown query parameter \"Limit\"; this route takes limit, page, order, cursor, from, session_id, run_id, status, wait_ms, q",
            ),
            (
                "=1",
                "bad_request",
                "unknown query parameter \"\"; this route takes limit, page, order, cursor, from, session_id, run_id, status, wait_ms, q",
            ),
        ];
        for (raw, code, detail) in cases {
            let problem = Query::read(Some(raw), PARAMS).expect_err(raw);
            assert_eq!((problem.code.code, problem.detail.as_str()), (code, detail), "{raw}");
            assert_eq!(problem.code.status, 400);
        }
        let problem = Query::read(Some("a%0Ab=1"), &[]).unwrap_err();
        assert_eq!(problem.detail, "unknown query parameter \"a\\nb\"; this route takes none");
    }

    #[test]
    fn a_blank_event_cursor_is_none() {
        for (raw, cursor) in [("", Some(None)), ("  ", Some(None)), (" 7 ", Some(Some(7))), ("0", Some(Some(0)))] {
            assert_eq!(event_cursor(raw), cursor, "{raw:?}");
        }
        for raw in ["x", "+1", "-1", "1.0", "18446744073709551616", "0x7"] {
            assert_eq!(event_cursor(raw), None, "{raw:?}");
        }
    }

    #[test]
    fn arbitrary_queries_are_answered_and_never_panic() {
        let alphabet = b"limtpageorduscn=&%+ 0123456789abcdefEF-_~\x7f\xc3\xa9?#/";
        for seed in 1..=20_000u64 {
            let mut random = crate::api::testing::Random::new(seed);
            let bytes: Vec<u8> = (0..random.below(60)).map(|_| alphabet[random.below(alphabet.len())]).collect();
            let raw = String::from_utf8_lossy(&bytes).into_owned();
            match Query::read(Some(&raw), PARAMS) {
                Ok(query) => {
                    for (name, value) in &query.0 {
                        let param = PARAMS.iter().find(|param| param.name == *name).unwrap();
                        assert!(param.kind.accepts(value), "seed {seed}: {name}");
                    }
                }
                Err(problem) => {
                    assert_eq!(problem.code.status, 400, "seed {seed}");
                    assert!(!problem.detail.contains(char::is_control), "seed {seed}: {:?}", problem.detail);
                }
            }
        }
    }
}
