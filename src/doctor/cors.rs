//! Whether browser pages get exactly what they may get.
//! Owns: the preflight contract, and what counts as granting.
//! Never: takes a missing answer for a refusal.

use super::finding::Findings;
use super::readiness::Answer;

/// An origin that nobody has: `.invalid` names no host. The daemon and everything in front of it must refuse it.
pub const FOREIGN_ORIGIN: &str = "https://doctor-probe.kheish.invalid";

/// One preflight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preflight {
    /// The page's origin.
    pub origin: String,
    /// What came back.
    pub answer: Answer,
}

/// Judges the preflights, and an answer to a request that had no origin.
pub fn judge(preflights: &[Preflight], without_origin: Option<&Answer>, found: &mut Findings) {
    if let Some(header) = without_origin.and_then(|answer| granting(answer).next()) {
        let message = format!("an answer to a request without an origin carries {header}");
        found.add("cors_header_added", message, None);
    }
    for preflight in preflights {
        let origin = &preflight.origin;
        let related = || Some(origin.clone());
        match &preflight.answer {
            Answer::None { cause } => found.add("cors_no_answer", format!("preflight of {origin}: {cause}"), related()),
            answer if is_loopback(origin) => judge_granted(origin, answer, found),
            Answer::Reply { status, .. } => match granting(&preflight.answer).next() {
                Some(header) => {
                    let message = format!("preflight of {origin}: HTTP {status} with {header}");
                    found.add("cors_origin_granted", message, related());
                }
                // Only who answers for the control plane can refuse for it.
                None if *status >= 500 => {
                    found.add("cors_no_answer", format!("preflight of {origin}: HTTP {status}"), related());
                }
                None => {}
            },
        }
    }
    let asked: Vec<&str> = preflights.iter().map(|preflight| preflight.origin.as_str()).collect();
    found.pass("control_plane_cors", format!("asked for {}: as it must be", asked.join(" and ")));
}

/// The contract for a loopback origin: granted, to it alone, with what the control plane needs, and without credentials.
fn judge_granted(origin: &str, answer: &Answer, found: &mut Findings) {
    let Answer::Reply { status, .. } = answer else { return };
    let one = |name: &'static str| -> Vec<String> { answer.header_values(name).map(str::to_string).collect() };
    let lists = |name: &'static str, wanted: &[&str]| {
        let listed: Vec<String> =
            one(name).iter().flat_map(|value| value.split(',')).map(|item| item.trim().to_ascii_lowercase()).collect();
        wanted.iter().all(|wanted| listed.iter().any(|item| item == wanted))
    };
    let mut missing = Vec::new();
    if !(200..300).contains(status) {
        missing.push(format!("HTTP {status}"));
    }
    let granted = one("access-control-allow-origin");
    if granted != [origin] {
        missing.push(format!("access-control-allow-origin is {granted:?}"));
    }
    if !lists("access-control-allow-methods", &["get", "post"]) {
        missing.push("access-control-allow-methods lacks GET or POST".to_string());
    }
    if !lists("access-control-allow-headers", &["authorization", "content-type"]) {
        missing.push("access-control-allow-headers lacks authorization or content-type".to_string());
    }
    if !missing.is_empty() {
        let message = format!("preflight of {origin}: {}", missing.join("; "));
        found.add("cors_preflight_refused", message, Some(origin.to_string()));
    }
    if one("access-control-allow-credentials").iter().any(|value| value.trim().eq_ignore_ascii_case("true")) {
        let message = format!("preflight of {origin}: access-control-allow-credentials is true");
        found.add("cors_credentials_granted", message, Some(origin.to_string()));
    }
}

/// Header lines that grant something to a page.
fn granting(answer: &Answer) -> impl Iterator<Item = String> + '_ {
    let headers = match answer {
        Answer::Reply { headers, .. } => headers.as_slice(),
        Answer::None { .. } => &[],
    };
    let grants = |name: &str| name.starts_with("access-control-allow-") || name == "access-control-expose-headers";
    headers.iter().filter(move |(name, _)| grants(name)).map(|(name, value)| format!("{name}: {value}"))
}

/// Whether `origin` is a page of this host: exactly what the daemon may grant.
pub fn is_loopback(origin: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') && port.parse::<u16>().is_ok_and(|port| port > 0) => host,
        _ => authority,
    };
    matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https")
        && matches!(host.to_ascii_lowercase().as_str(), "localhost" | "127.0.0.1" | "[::1]")
}

/// Why `--cors-origin` names no origin, if so.
pub fn origin_fault(origin: &str) -> Option<&'static str> {
    let Some((scheme, authority)) = origin.split_once("://") else { return Some("it has no scheme") };
    if !matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https") {
        return Some("its scheme is not http or https");
    }
    let is_plain = authority.bytes().all(|b| b.is_ascii_graphic() && !b"/?#@\\,*\"'".contains(&b));
    (authority.is_empty() || !is_plain).then_some("it is not scheme://host or scheme://host:port")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: &str = "http://localhost:5173";

    fn reply(status: u16, headers: &[(&str, &str)]) -> Answer {
        let headers = headers.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect();
        Answer::Reply { status, headers, detail: String::new() }
    }

    fn check(origin: &str, answer: Answer) -> Vec<String> {
        let mut found = Findings::default();
        judge(&[Preflight { origin: origin.into(), answer }], None, &mut found);
        found.verdict().checks.into_iter().map(|check| check.code).collect()
    }

    fn granted<'a>(origin: &'a str, methods: &'a str, headers: &'a str) -> Vec<(&'a str, &'a str)> {
        vec![
            ("access-control-allow-origin", origin),
            ("access-control-allow-methods", methods),
            ("access-control-allow-headers", headers),
        ]
    }

    #[test]
    fn a_loopback_origin_must_be_granted_exactly() {
        let (methods, headers) = ("GET,HEAD,POST", "Content-Type, authorization,x");
        assert_eq!(check(LOCAL, reply(204, &granted(LOCAL, methods, headers))), ["control_plane_cors"]);
        let bad = [
            reply(403, &granted(LOCAL, methods, headers)),
            reply(204, &granted("*", methods, headers)),
            reply(204, &granted("http://localhost", methods, headers)),
            reply(204, &granted(LOCAL, "GET", headers)),
            reply(204, &granted(LOCAL, methods, "authorization")),
            reply(204, &[granted(LOCAL, methods, headers), granted("*", methods, headers)].concat()),
            reply(204, &[]),
            reply(403, &[]),
        ];
        for answer in bad {
            assert_eq!(check(LOCAL, answer.clone()), ["cors_preflight_refused"], "{answer:?}");
        }
        let mut with_credentials = granted(LOCAL, methods, headers);
        with_credentials.push(("access-control-allow-credentials", "true"));
        assert_eq!(check(LOCAL, reply(204, &with_credentials)), ["cors_credentials_granted"]);
    }

    #[test]
    fn any_other_origin_must_get_nothing() {
        let origin = "https://kheish.example.com";
        for status in [204, 200, 403, 404, 429] {
            assert_eq!(check(origin, reply(status, &[("content-type", "x")])), ["control_plane_cors"], "{status}");
        }
        for name in ["access-control-allow-origin", "access-control-allow-methods", "access-control-allow-credentials"]
        {
            for (status, value) in [(204, "*"), (403, origin), (200, "null"), (502, origin)] {
                assert_eq!(check(origin, reply(status, &[(name, value)])), ["cors_origin_granted"], "{status} {name}");
            }
        }
        assert_eq!(check(origin, reply(502, &[])), ["cors_no_answer"]);
        assert_eq!(check(origin, Answer::None { cause: "timeout".into() }), ["cors_no_answer"]);
        assert_eq!(check(LOCAL, Answer::None { cause: "timeout".into() }), ["cors_no_answer"]);
    }

    #[test]
    fn a_header_that_nobody_asked_for_is_seen() {
        let mut found = Findings::default();
        judge(&[], Some(&reply(200, &[("access-control-allow-origin", "*")])), &mut found);
        assert!(found.has("cors_header_added"));
    }

    #[test]
    fn loopback_is_what_the_daemon_grants_and_no_more() {
        for origin in
            ["http://localhost", "https://LOCALHOST:1", "http://127.0.0.1:5173", "http://[::1]:8080", "http://[::1]"]
        {
            assert!(is_loopback(origin), "{origin}");
            assert_eq!(origin_fault(origin), None, "{origin}");
        }
        for origin in
            ["http://localhost.example.com", "http://127.0.0.2", "ftp://localhost", "localhost", "http://localhost:0"]
        {
            assert!(!is_loopback(origin), "{origin}");
        }
        for origin in
            ["", "*", "null", "http://", "http://a/", "http://a b", "http://u@a", "https://*.example.com", "file://x"]
        {
            assert!(origin_fault(origin).is_some(), "{origin}");
        }
    }
}
