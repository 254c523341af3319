//! Strict reading of JSON request bodies.
//! Owns: the refusals that every route shares: not JSON, too deep, repeated members, unknown fields, wrong types.
//! May touch: the bytes of one body.
//! Never: repeats a value of the body in an error; names of members and positions are all that leaves.

mod shape;
mod tree;

use serde::de::DeserializeOwned;

use crate::http::problem::{Problem, codes};

/// The one content type of request bodies.
pub const CONTENT_TYPE: &str = "application/json";

/// Reads `body` as one JSON document of type `T`.
///
/// `T` should carry `#[serde(deny_unknown_fields)]`; objects are never read from arrays, and a member that is
/// given twice is refused at any depth, also where `T` would not look.
///
/// # Errors
/// 400 `bad_request` with line and column when the body is empty, not JSON, too deep or too large in values;
/// 422 `unprocessable_body` with a JSON pointer when it is JSON of another shape.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Problem::new(&codes::BAD_REQUEST, "the body is empty; this route reads a JSON document"));
    }
    let root = tree::read(body).map_err(|defect| {
        let code = if defect.is_shape() { &codes::UNPROCESSABLE_BODY } else { &codes::BAD_REQUEST };
        Problem::new(code, defect.to_string())
    })?;
    shape::read(root).map_err(|error| Problem::new(&codes::UNPROCESSABLE_BODY, error.to_string()))
}

/// Like [`parse`], for routes whose body may be left out: an empty body is `T::default()`.
///
/// # Errors
/// As [`parse`], except for the empty body.
pub fn parse_or_default<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Problem> {
    if body.iter().all(u8::is_ascii_whitespace) { Ok(T::default()) } else { parse(body) }
}

/// The body of a route that takes no fields: nothing at all, or `{}`.
#[derive(Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoFields {}

/// Checks the content type of a body that is there.
///
/// # Errors
/// 415 `unsupported_media_type` unless it is `application/json`, with or without `charset=utf-8`.
pub fn check_content_type(content_type: Option<&str>) -> Result<(), Problem> {
    let Some(raw) = content_type else {
        return Err(Problem::new(&codes::UNSUPPORTED_MEDIA_TYPE, "the body has no Content-Type"));
    };
    let (essence, parameter) = match raw.split_once(';') {
        Some((essence, parameter)) => (essence, Some(parameter.trim())),
        None => (raw, None),
    };
    let utf8 = |text: &str| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
        name.trim().eq_ignore_ascii_case("charset") && value.eq_ignore_ascii_case("utf-8")
    };
    if essence.trim().eq_ignore_ascii_case(CONTENT_TYPE) && parameter.is_none_or(|text| text.is_empty() || utf8(text)) {
        return Ok(());
    }
    Err(Problem::new(
        &codes::UNSUPPORTED_MEDIA_TYPE,
        "the body's Content-Type is neither application/json nor application/json; charset=utf-8",
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::ids::SessionId;
    use crate::limits::{JSON_DEPTH_MAX, JSON_VALUES_MAX};

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Plain,
        Sized(u8),
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Part {
        #[serde(default)]
        text: String,
        #[serde(default)]
        weight: Option<f64>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        name: String,
        #[serde(default)]
        count: Option<u64>,
        #[serde(default)]
        parts: Vec<Part>,
        #[serde(default)]
        session_id: Option<SessionId>,
        #[serde(default)]
        kind: Option<Kind>,
        #[serde(default)]
        labels: BTreeMap<String, serde_json::Value>,
    }

    fn refused(body: &str) -> (u16, String) {
        let problem = parse::<Body>(body.as_bytes()).expect_err(body);
        (problem.code.status, problem.detail)
    }

    #[test]
    fn a_well_formed_body_is_read_whole() {
        let body = r#" {"name":"a\u00e9","count":3,"parts":[{"text":"x","weight":1.5},{"weight":null}],
            "session_id":"demo","kind":{"sized":7},"labels":{"a":[1,-2,{"b":null}],"c":true}} "#;
        let read: Body = parse(body.as_bytes()).unwrap();
        assert_eq!(
            read,
            Body {
                name: "aé".to_string(),
                count: Some(3),
                parts: vec![
                    Part { text: "x".to_string(), weight: Some(1.5) },
                    Part { text: String::new(), weight: None }
                ],
                session_id: Some(SessionId::parse("demo").unwrap()),
                kind: Some(Kind::Sized(7)),
                labels: serde_json::from_str(r#"{"a":[1,-2,{"b":null}],"c":true}"#).unwrap(),
            }
        );
        assert_eq!(parse::<Body>(br#"{"name":"x","kind":"plain"}"#).unwrap().kind, Some(Kind::Plain));
    }

    #[test]
    fn every_wrong_shape_is_named_by_its_place_and_never_by_its_value() {
        let cases = [
            (r#"{"name":7}"#, 422, "at /name: expected a string, found a number"),
            (r#"{"name":"x","count":"hunter2"}"#, 422, "at /count: expected u64, found a string"),
            (r#"{"name":"x","count":-1}"#, 422, "at /count: the value is not u64"),
            (r#"{"name":"x","parts":[{},{"text":[]}]}"#, 422, "at /parts/1/text: expected a string, found an array"),
            (r#"{"name":"x","parts":{}}"#, 422, "at /parts: expected a sequence, found an object"),
            (r#"{"name":"x","parts":[["a",1]]}"#, 422, "at /parts/0: expected an object, found an array"),
            (
                r#"{"name":"x","secret":"hunter2"}"#,
                422,
                "at /: unknown field \"secret\", expected one of name, count, parts, session_id, kind, labels",
            ),
            (r#"{"count":1}"#, 422, "at /: the field \"name\" is missing"),
            (r#"{"name":"x","kind":"hunter2"}"#, 422, "at /kind: expected one of plain, sized"),
            (r#"{"name":"x","kind":{"sized":"hunter2"}}"#, 422, "at /kind/sized: expected u8, found a string"),
            (
                r#"{"name":"x","kind":{}}"#,
                422,
                "at /kind: expected an object with one member, found another number of them",
            ),
            (
                r#"{"name":"x","session_id":"a/b"}"#,
                422,
                "at /session_id: invalid session id: control characters, '/' and '\\' are not allowed; next: replace them",
            ),
            (r#"["x"]"#, 422, "at /: expected an object, found an array"),
            (r#""hunter2""#, 422, "at /: expected an object, found a string"),
            (
                r#"{"name":"hunter2","name":"x"}"#,
                422,
                "the member \"name\" appears twice in one object, the second time at line 1 column 24",
            ),
            (
                r#"{"name":"x","labels":{"a":{"k":1,"k":2}}}"#,
                422,
                "the member \"k\" appears twice in one object, the second time at line 1 column 36",
            ),
            ("", 400, "the body is empty; this route reads a JSON document"),
            (" \n", 400, "the body is empty; this route reads a JSON document"),
            ("{", 400, "the JSON document ends too early, at line 1 column 1"),
            (r#"{"name":"hunter2"#, 400, "the JSON document ends too early, at line 1 column 16"),
            ("{\"name\":\"x\",\n\"count\":hunter2}", 400, "not valid JSON at line 2 column 9"),
            (r#"{"name":"x"} x"#, 400, "not valid JSON at line 1 column 14"),
            (r#"{"name":"x"}{}"#, 400, "not valid JSON at line 1 column 13"),
            (r#"{"name":"\ud800"}"#, 400, "not valid JSON at line 1 column 16"),
            (r#"{"name":"x","count":1e999}"#, 400, "not valid JSON at line 1 column 25"),
            ("\u{feff}{}", 400, "not valid JSON at line 1 column 1"),
        ];
        for (body, status, detail) in cases {
            let (got_status, got_detail) = refused(body);
            assert_eq!((got_status, got_detail.as_str()), (status, detail), "{body}");
            assert!(!got_detail.contains("hunter2"));
        }
        let invalid_utf8 = parse::<Body>(b"{\"name\":\"\xff\"}").unwrap_err();
        assert_eq!(
            (invalid_utf8.code.status, invalid_utf8.detail.as_str()),
            (400, "the body is not UTF-8, from byte 9 on")
        );
    }

    #[test]
    fn depth_and_number_of_values_are_bounded() {
        let nested = |depth: usize| {
            format!("{{\"name\":\"x\",\"labels\":{{\"a\":{}1{}}}}}", "[".repeat(depth), "]".repeat(depth))
        };
        assert!(parse::<Body>(nested(JSON_DEPTH_MAX - 2).as_bytes()).is_ok());
        let (status, detail) = refused(&nested(JSON_DEPTH_MAX - 1));
        assert_eq!(status, 400);
        assert!(detail.starts_with("nested deeper than 64 levels at line 1"), "{detail}");
        assert_eq!(refused(&"[".repeat(1_000_000)).0, 400);

        let wide = format!("{{\"name\":\"x\",\"labels\":{{\"a\":[{}0]}}}}", "0,".repeat(JSON_VALUES_MAX));
        let (status, detail) = refused(&wide);
        assert_eq!(status, 400);
        assert!(detail.starts_with("more than 262144 values at line 1"), "{detail}");
    }

    #[test]
    fn an_object_of_many_members_is_checked_for_repeats_without_quadratic_cost() {
        let mut members: Vec<String> = (0..50_000).map(|n| format!("\"k{n}\":{n}")).collect();
        let body = format!("{{{}}}", members.join(","));
        assert_eq!(parse::<BTreeMap<String, u64>>(body.as_bytes()).unwrap().len(), 50_000);
        members.push("\"k777\":1".to_string());
        let problem = parse::<BTreeMap<String, u64>>(format!("{{{}}}", members.join(",")).as_bytes()).unwrap_err();
        assert!(problem.detail.starts_with("the member \"k777\" appears twice"), "{}", problem.detail);
    }

    #[test]
    fn caller_chosen_names_are_quoted_short_and_without_control_characters() {
        let (_, detail) = refused(&format!("{{\"name\":\"x\",\"{}\\n\":1}}", "k".repeat(10_000)));
        assert!(detail.len() < 500 && detail.contains("kkk…\""), "{detail}");
        let (_, detail) = refused(r#"{"name":"x","a\nb\u001b":1}"#);
        assert!(detail.starts_with("at /: unknown field \"a\\nb\\u{1b}\""), "{detail}");
    }

    #[test]
    fn a_body_may_be_left_out_only_where_the_route_says_so() {
        assert_eq!(parse_or_default::<NoFields>(b"").unwrap(), NoFields {});
        assert_eq!(parse_or_default::<NoFields>(b" {} ").unwrap(), NoFields {});
        assert_eq!(parse_or_default::<NoFields>(b"{\"a\":1}").unwrap_err().code.code, "unprocessable_body");
        assert_eq!(parse_or_default::<NoFields>(b"null").unwrap_err().code.code, "unprocessable_body");
    }

    #[test]
    fn only_json_in_utf_8_is_a_known_content_type() {
        for good in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
            "application/json;",
        ] {
            assert!(check_content_type(Some(good)).is_ok(), "{good}");
        }
        let bad = [
            "",
            "text/plain",
            "application/jsonp",
            "application/x-www-form-urlencoded",
            "application/json; charset=latin1",
            "application/json; version=2",
            "application/json, text/plain",
            "application/problem+json",
        ];
        for bad in bad.map(Some).into_iter().chain([None]) {
            assert_eq!(check_content_type(bad).unwrap_err().code.code, "unsupported_media_type", "{bad:?}");
        }
    }

    #[test]
    fn arbitrary_bytes_are_answered_and_never_panic() {
        let seed_body =
            br#"{"name":"x","count":3,"parts":[{"text":"x","weight":1.5}],"labels":{"a":[1,-2,{"b":null}]}}"#;
        for seed in 1..=20_000u64 {
            let mut random = crate::api::testing::Random::new(seed);
            let mut body = seed_body.to_vec();
            for _ in 0..=random.below(4) {
                let at = random.below(body.len());
                match random.below(3) {
                    0 => body[at] = random.next() as u8,
                    1 => drop(body.remove(at)),
                    _ => body.insert(at, b"{}[]\",:\\x0e-"[random.below(12)]),
                }
            }
            if let Err(problem) = parse::<Body>(&body) {
                assert!([400, 422].contains(&problem.code.status), "seed {seed}");
                assert!(problem.detail.len() < 700 && !problem.detail.contains(char::is_control), "seed {seed}");
            } else {
                assert!(
                    serde_json::from_slice::<serde_json::Value>(&body).is_ok(),
                    "seed {seed} accepted what is not JSON"
                );
            }
        }
    }
}
