//! Errors as `application/problem+json` documents.
//! Owns: the shape of an error body and the mapping from a code to a status and a title.
//! May touch: the table in `codes.rs`, the current request id.
//! Never: carries a secret; the detail is written for the caller.

use std::fmt;

use serde::Serialize;

pub use super::codes::{self, Code};
use super::request_id::{self, RequestId};
use super::response::Response;

/// Content type of every error answer.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// One error answer: a code of the table and what is particular to this occurrence.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The row of the table.
    pub code: &'static Code,
    /// Text for people about this occurrence.
    pub detail: String,
    /// Extra response headers; names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// Id of the request that failed. Filled in when the answer is sent if it is still unknown.
    pub request_id: Option<RequestId>,
}

impl Problem {
    /// A problem of the request that the calling thread is working on, if any.
    pub fn new(code: &'static Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), headers: Vec::new(), request_id: request_id::current() }
    }

    /// Adds a response header; `name` in lower case. Control characters in `value` are sent as blanks.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Tells the caller to come back after `seconds`.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        self.header("retry-after", seconds.to_string())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}; next: {}", self.code.status, self.code.code, self.detail, self.code.next)
    }
}

impl std::error::Error for Problem {}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'static str>,
    // Last, so that `Response` can append it when the id is known only at sending.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

impl From<Problem> for Response {
    fn from(problem: Problem) -> Self {
        let code = problem.code;
        let document = Document {
            kind: format!("urn:kheish:problem:{}", code.code),
            title: title(code.status),
            status: code.status,
            detail: &problem.detail,
            code: code.code,
            domain: code.domain,
            request_id: problem.request_id.as_ref().map(RequestId::as_str),
        };
        let body = serde_json::to_vec(&document).expect("strings and a number serialise");
        let needs_request_id = problem.request_id.is_none();
        Response::problem_document(code.status, body, needs_request_id).with_headers(problem.headers)
    }
}

/// The published titles; other statuses share one, as clients of the reference system expect.
fn title(status: u16) -> &'static str {
    match status {
        400 | 401 | 403 | 404 | 405 | 409 | 413 | 421 | 422 | 429 | 500 | 503 => super::response::reason(status),
        _ => "Daemon Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_document_has_the_published_fields_in_order() {
        let problem = Problem::new(&codes::RUN_NOT_FOUND, "unknown run run-77");
        let response = Response::from(problem);
        assert_eq!(
            String::from_utf8(response.body).unwrap(),
            "{\"type\":\"urn:kheish:problem:run_not_found\",\"title\":\"Not Found\",\"status\":404,\
             \"detail\":\"unknown run run-77\",\"code\":\"run_not_found\",\"domain\":\"runs\"}"
        );
        let generic = Problem::new(&codes::HEAD_TOO_LARGE, "x").retry_after(3);
        assert_eq!(generic.headers, vec![("retry-after", "3".to_string())]);
        let body = String::from_utf8(Response::from(generic).body).unwrap();
        assert!(body.contains("\"title\":\"Daemon Error\",\"status\":431"), "{body}");
    }

    #[test]
    fn a_problem_made_inside_a_request_names_its_id() {
        let id = RequestId::parse("abc-1").unwrap();
        let body = {
            let _scope = request_id::enter(id);
            Response::from(Problem::new(&codes::BAD_REQUEST, "x")).body
        };
        assert!(String::from_utf8(body).unwrap().ends_with(",\"code\":\"bad_request\",\"request_id\":\"abc-1\"}"));
        assert_eq!(request_id::current(), None);
    }
}
