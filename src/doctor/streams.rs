//! Whether event streams get through as the daemon writes them.
//! Owns: the difference between a stream that is held back, one that is rewritten and one on which nothing happens.
//! Never: guesses from silence: a probe stream always answers, so silence is a fault of the way.

use serde::Serialize;

use super::finding::Findings;
use crate::limits::{DOCTOR_FRAME_MS, DOCTOR_FRAME_SLOW_MS, DOCTOR_PROBE_MS};

/// The paths of the three streams; a probe stream needs no such session and run to exist.
pub const PATHS: [&str; 3] = ["/v1/events/stream", "/v1/sessions/doctor-probe/stream", "/v1/runs/run-1/stream"];

/// A frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its id line.
    pub id: Option<String>,
    /// Its name.
    pub event: Option<String>,
    /// Its data.
    pub data: String,
    /// From what caused it to its arrival.
    pub delay_ms: u64,
}

/// What became of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// No connection.
    Unreachable {
        /// Why.
        cause: String,
    },
    /// A connection, and no response head in time.
    NoHead,
    /// Another status.
    Refused {
        /// Which.
        status: u16,
        /// The problem's code, or the beginning of the body.
        detail: String,
    },
    /// 200, and no event stream.
    NotAStream {
        /// Its type.
        content_type: String,
    },
    /// An event stream.
    Opened {
        /// The first frame, if one came.
        first: Option<Seen>,
        /// The frame that was asked for, if it came.
        asked: Option<Seen>,
        /// Why the asking failed, if it did.
        ask_failed: Option<String>,
        /// How the stream broke or ended before both were there.
        broken: Option<String>,
    },
}

/// One stream and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// Its path.
    pub path: &'static str,
    /// The name of the probe stream.
    pub nonce: String,
    /// What happened.
    pub outcome: Outcome,
}

/// What a report tells of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamView {
    path: &'static str,
    ok: bool,
    /// From the request to the first frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_frame_ms: Option<u64>,
    /// From the asking for a frame to its arrival.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe_delay_ms: Option<u64>,
}

/// Judges all streams.
pub fn judge(streams: &[Watched], readyz_ok: bool, found: &mut Findings) -> Vec<StreamView> {
    let views: Vec<StreamView> = streams.iter().map(|stream| judge_one(stream, readyz_ok, found)).collect();
    if streams.is_empty() {
        found.add("evidence_missing", "no event stream was probed", Some("events_sse".to_string()));
    }
    let slowest = views.iter().filter_map(|view| view.probe_delay_ms).max().unwrap_or(0);
    found.pass(
        "events_sse",
        format!("{} streams come through unchanged, probe frames within {slowest} ms", views.len()),
    );
    views
}

fn judge_one(stream: &Watched, readyz_ok: bool, found: &mut Findings) -> StreamView {
    let path = stream.path;
    let mut view = StreamView { path, ok: false, first_frame_ms: None, probe_delay_ms: None };
    let mut add = |code, message: String| found.add(code, format!("{path}: {message}"), Some(path.to_string()));
    match &stream.outcome {
        Outcome::Unreachable { cause } => add("events_sse_unreachable", cause.clone()),
        Outcome::NoHead if readyz_ok => {
            let message = format!(
                "no response head within {DOCTOR_PROBE_MS} ms, while /readyz answers: the whole answer is held back"
            );
            add("events_sse_buffered", message);
        }
        Outcome::NoHead => add("events_sse_unreachable", format!("no response head within {DOCTOR_PROBE_MS} ms")),
        Outcome::Refused { status, detail } => add("events_sse_refused", format!("HTTP {status} {detail}")),
        Outcome::NotAStream { content_type } => {
            add("events_sse_not_a_stream", format!("the answer is of type {content_type:?}"));
        }
        Outcome::Opened { first, asked, ask_failed, broken } => {
            view.first_frame_ms = first.as_ref().map(|seen| seen.delay_ms);
            view.probe_delay_ms = asked.as_ref().map(|seen| seen.delay_ms);
            let altered = [
                first.as_ref().and_then(|seen| altered_first(seen, &stream.nonce)),
                asked.as_ref().and_then(|seen| altered_asked(seen, &stream.nonce)),
            ];
            let altered: Vec<String> = altered.into_iter().flatten().collect();
            for message in &altered {
                add("events_sse_rewritten", message.clone());
            }
            match (first, asked) {
                _ if !altered.is_empty() => {}
                (None, _) | (Some(_), None) if broken.is_some() => {
                    add("events_sse_malformed", broken.clone().unwrap_or_default());
                }
                (None, _) => {
                    let message = format!(
                        "the head came, and within {DOCTOR_FRAME_MS} ms nothing of the frame that follows it at once"
                    );
                    add("events_sse_buffered", message);
                }
                (Some(_), None) => match ask_failed {
                    Some(cause) => {
                        add("events_sse_unreachable", format!("a probe frame could not be asked for: {cause}"))
                    }
                    None => {
                        let message = format!(
                            "the first frame came, and within {DOCTOR_FRAME_MS} ms not the one that was asked for"
                        );
                        add("events_sse_buffered", message);
                    }
                },
                (Some(first), Some(asked)) => {
                    view.ok = true;
                    let slowest = first.delay_ms.max(asked.delay_ms);
                    if slowest > DOCTOR_FRAME_SLOW_MS {
                        add("events_sse_slow", format!("a frame needed {slowest} ms"));
                    }
                }
            }
        }
    }
    view
}

fn data_of(seen: &Seen) -> Option<serde_json::Value> {
    serde_json::from_str(&seen.data).ok()
}

fn is_probe(seen: &Seen, nonce: &str, phase: &str) -> bool {
    seen.event.as_deref() == Some("probe")
        && data_of(seen).is_some_and(|data| data["type"] == "probe" && data["nonce"] == nonce && data["phase"] == phase)
}

fn altered_first(seen: &Seen, nonce: &str) -> Option<String> {
    if !is_probe(seen, nonce, "opened") {
        return Some(format!(
            "the first frame is a {:?} and not the probe frame of this stream: query, name or data were changed",
            seen.event.as_deref().unwrap_or("message")
        ));
    }
    let data = data_of(seen)?;
    let wanted = data["event_id"].as_str().unwrap_or_default();
    match seen.id.as_deref() {
        Some(id) if id == wanted => None,
        Some(id) => Some(format!("the first frame has id {id}, and the daemon gave it {wanted}")),
        None => Some(format!("the first frame has no id, and the daemon gave it {wanted}")),
    }
}

fn altered_asked(seen: &Seen, nonce: &str) -> Option<String> {
    if !is_probe(seen, nonce, "asked") {
        return Some("the frame that was asked for came with another name or other data".to_string());
    }
    seen.id.as_deref().filter(|id| !id.is_empty()).map(|id| format!("a frame without an id came with id {id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "0123456789abcdef";

    fn first(id: Option<&str>, delay_ms: u64) -> Seen {
        let data = format!(r#"{{"type":"probe","nonce":"{NONCE}","phase":"opened","event_id":"77"}}"#);
        Seen { id: id.map(str::to_string), event: Some("probe".into()), data, delay_ms }
    }

    fn asked(delay_ms: u64) -> Seen {
        let data = format!(r#"{{"type":"probe","nonce":"{NONCE}","phase":"asked"}}"#);
        Seen { id: None, event: Some("probe".into()), data, delay_ms }
    }

    fn opened(first: Option<Seen>, asked: Option<Seen>) -> Outcome {
        Outcome::Opened { first, asked, ask_failed: None, broken: None }
    }

    fn check(outcome: Outcome, readyz_ok: bool) -> Vec<String> {
        let mut found = Findings::default();
        let watched = Watched { path: PATHS[0], nonce: NONCE.into(), outcome };
        judge(&[watched], readyz_ok, &mut found);
        found.verdict().checks.into_iter().map(|check| check.code).collect()
    }

    #[test]
    fn held_back_rewritten_and_quiet_are_told_apart() {
        let good = || first(Some("77"), 3);
        let table: Vec<(Outcome, &str)> = vec![
            (opened(Some(good()), Some(asked(4))), "events_sse"),
            (opened(Some(good()), Some(asked(2_500))), "events_sse_slow"),
            (opened(Some(good()), None), "events_sse_buffered"),
            (opened(None, None), "events_sse_buffered"),
            (Outcome::NoHead, "events_sse_buffered"),
            (opened(Some(first(Some("78"), 3)), Some(asked(4))), "events_sse_rewritten"),
            (opened(Some(first(None, 3)), Some(asked(4))), "events_sse_rewritten"),
            (opened(Some(good()), Some(Seen { id: Some("5".into()), ..asked(4) })), "events_sse_rewritten"),
            (opened(Some(good()), Some(Seen { event: None, ..asked(4) })), "events_sse_rewritten"),
            (opened(Some(Seen { event: Some("heartbeat".into()), ..good() }), None), "events_sse_rewritten"),
            (opened(Some(Seen { data: "{}".into(), ..good() }), None), "events_sse_rewritten"),
            (
                Outcome::Opened { first: None, asked: None, ask_failed: None, broken: Some("ended".into()) },
                "events_sse_malformed",
            ),
            (
                Outcome::Opened { first: Some(good()), asked: None, ask_failed: Some("503".into()), broken: None },
                "events_sse_unreachable",
            ),
            (Outcome::Refused { status: 404, detail: String::new() }, "events_sse_refused"),
            (Outcome::NotAStream { content_type: "text/html".into() }, "events_sse_not_a_stream"),
            (Outcome::Unreachable { cause: "refused".into() }, "events_sse_unreachable"),
        ];
        for (outcome, code) in table {
            assert_eq!(check(outcome.clone(), true), [code], "{outcome:?}");
        }
        assert_eq!(check(Outcome::NoHead, false), ["events_sse_unreachable"], "nothing answers at all");
    }

    #[test]
    fn a_report_without_a_probed_stream_fails() {
        let mut found = Findings::default();
        judge(&[], true, &mut found);
        assert!(!found.verdict().ok);
    }
}
