//! Frames: what a client reads, as bytes.
//! Owns: the wire form of every frame, scopes, and who may see which frame.
//! May touch: nothing; it turns values into bytes.
//! Never: reads the journal or writes to a socket.

use std::sync::Arc;

use serde::Serialize;

use super::probe::ProbeNonce;
use crate::ids::{RunId, Seq, SessionId};
use crate::journal::Record;

/// A journal record as one event, before it has its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Event name, repeated as `type` in the data.
    pub event: &'static str,
    /// One JSON object.
    pub data: Vec<u8>,
    /// Which streams carry it. The ids compared are those of the record.
    pub audience: Audience,
}

/// Which streams carry an event, besides the unfiltered global one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Streams of its run and of its session.
    Run,
    /// Streams of its session.
    Session,
    /// None.
    Global,
}

/// Turns journal records into events. The answer depends on the log alone, so that a replayed frame equals
/// the live one byte for byte.
pub trait Render: Send + Sync + 'static {
    /// The record's event, or `None` when it has no wire form.
    fn frame(&self, record: &Record) -> Option<Frame>;
}

/// What a stream is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// `/v1/events/stream`: everything, or what satisfies both filters.
    Global {
        /// Only events of this session.
        session: Option<SessionId>,
        /// Only events of this run.
        run: Option<RunId>,
    },
    /// `/v1/sessions/{id}/stream`.
    Session(SessionId),
    /// `/v1/runs/{id}/stream`.
    Run(RunId),
    /// Any of the three paths, asked only how frames get through; it carries no event.
    Probe(ProbeNonce),
}

impl Scope {
    /// The one session, if the scope names one.
    pub fn session(&self) -> Option<&SessionId> {
        match self {
            Self::Global { session, .. } => session.as_ref(),
            Self::Session(session) => Some(session),
            Self::Run(_) | Self::Probe(_) => None,
        }
    }

    /// The one run, if the scope names one.
    pub fn run(&self) -> Option<RunId> {
        match self {
            Self::Global { run, .. } => *run,
            Self::Session(_) | Self::Probe(_) => None,
            Self::Run(run) => Some(*run),
        }
    }

    /// Whether a record or preview with these ids can be in scope.
    pub fn concerns(&self, session: Option<&SessionId>, run: Option<RunId>) -> bool {
        !matches!(self, Self::Probe(_))
            && self.run().is_none_or(|wanted| run == Some(wanted))
            && self.session().is_none_or(|wanted| session == Some(wanted))
    }

    /// Whether this stream carries an event with these ids and this audience.
    pub fn admits(&self, session: Option<&SessionId>, run: Option<RunId>, audience: Audience) -> bool {
        let filtered_for_run = self.run().is_some();
        let filtered = filtered_for_run || self.session().is_some();
        let may_see = match audience {
            Audience::Run => true,
            Audience::Session => !filtered_for_run,
            Audience::Global => !filtered,
        };
        may_see && self.concerns(session, run)
    }

    /// The name used in `stream_gap`: what the loss is about.
    pub fn name(&self) -> &'static str {
        match (self.run(), self.session()) {
            (Some(_), _) => "run",
            (None, Some(_)) => "session",
            (None, None) => "global",
        }
    }
}

/// Why a stream cannot continue exactly where its cursor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// Records behind the cursor are no longer retained.
    ReplayWindow,
    /// The cursor belongs to an epoch that this journal does not know, or lies behind what this journal holds
    /// of its epoch: it was given out by the original of a copied or restored state root.
    RestartEpoch,
    /// The cursor is ahead of everything written in the current epoch: the journal was set back.
    CursorAhead,
}

impl GapReason {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::ReplayWindow, Self::RestartEpoch, Self::CursorAhead];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReplayWindow => "replay_window",
            Self::RestartEpoch => "restart_epoch",
            Self::CursorAhead => "cursor_ahead",
        }
    }
}

/// A `stream_gap` to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// Records lost at least; 1 where nothing better is known. Not every record has a frame, so this is
    /// always an estimate.
    pub skipped: u64,
    /// The stream goes on with the first event behind this position.
    pub resume_after: Seq,
}

/// A piece of a model's answer as it arrives. It is shown to who is watching and never replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// The session.
    pub session: SessionId,
    /// The run.
    pub run: RunId,
    /// The new text.
    pub text: String,
}

/// The heartbeat frame. It has no id, so it does not move a client's cursor.
pub const HEARTBEAT: &[u8] = b"event: heartbeat\ndata: {\"type\":\"heartbeat\"}\n\n";

/// The last frame of a stream whose credentials no longer hold.
pub const CREDENTIALS_CHANGED: &[u8] =
    b"event: stream_closed\ndata: {\"type\":\"stream_closed\",\"reason\":\"credentials_changed\"}\n\n";

/// `frame` with `id` as bytes.
pub fn encode(id: Seq, frame: &Frame) -> Arc<[u8]> {
    event_bytes(Some(id), frame.event, &frame.data)
}

/// A `stream_gap` frame. Its id is `resume_after_id`, so a client that reconnects goes on from there.
pub fn encode_gap(gap: &Gap, scope: &Scope) -> Arc<[u8]> {
    #[derive(Serialize)]
    struct StreamGap {
        r#type: &'static str,
        reason: &'static str,
        scope: &'static str,
        skipped: u64,
        skipped_is_estimate: bool,
        resume_after_id: String,
    }
    let data = StreamGap {
        r#type: "stream_gap",
        reason: gap.reason.as_str(),
        scope: scope.name(),
        skipped: gap.skipped,
        skipped_is_estimate: true,
        resume_after_id: gap.resume_after.to_string(),
    };
    event_bytes(Some(gap.resume_after), "stream_gap", &json(&data))
}

#[derive(Serialize)]
struct PreviewData<'a> {
    r#type: &'static str,
    session_id: &'a SessionId,
    run_id: RunId,
    text: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    withdrawn: bool,
}

/// A `preview` frame, without an id.
pub fn encode_preview(preview: &Preview) -> Arc<[u8]> {
    let (session_id, run_id, text) = (&preview.session, preview.run, preview.text.as_str());
    let data = PreviewData { r#type: "preview", session_id, run_id, text, withdrawn: false };
    event_bytes(None, "preview", &json(&data))
}

/// A `preview` frame that takes back those of the run since its last output.
pub fn encode_withdrawal(session: &SessionId, run: RunId) -> Arc<[u8]> {
    let data = PreviewData { r#type: "preview", session_id: session, run_id: run, text: "", withdrawn: true };
    event_bytes(None, "preview", &json(&data))
}

/// `value` as compact JSON.
pub fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("frame data has string keys and no failing serialisers")
}

pub(super) fn event_bytes(id: Option<Seq>, event: &str, data: &[u8]) -> Arc<[u8]> {
    let mut bytes = Vec::with_capacity(data.len() + event.len() + 48);
    if let Some(id) = id {
        bytes.extend_from_slice(b"id: ");
        bytes.extend_from_slice(id.to_string().as_bytes());
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(b"event: ");
    bytes.extend_from_slice(event.as_bytes());
    bytes.extend_from_slice(b"\ndata: ");
    // Inside JSON text a line break can only be a blank between tokens; a bare one would end the data line.
    bytes.extend(data.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
    bytes.extend_from_slice(b"\n\n");
    Arc::from(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_frame_is_an_id_a_name_and_one_data_line() {
        let frame =
            Frame { event: "output", data: b"{\"type\":\"output\",\n\r\"a\":1}".to_vec(), audience: Audience::Run };
        assert_eq!(
            text(&encode(7_564_890_123_456_790_001, &frame)),
            "id: 7564890123456790001\nevent: output\ndata: {\"type\":\"output\",  \"a\":1}\n\n"
        );
    }

    #[test]
    fn a_gap_is_a_resumable_position_as_a_decimal_string() {
        let gap = Gap { reason: GapReason::ReplayWindow, skipped: 4, resume_after: 40 };
        assert_eq!(
            text(&encode_gap(&gap, &Scope::Run(RunId { number: 1, epoch: 0 }))),
            "id: 40\nevent: stream_gap\ndata: {\"type\":\"stream_gap\",\"reason\":\"replay_window\",\"scope\":\"run\",\
             \"skipped\":4,\"skipped_is_estimate\":true,\"resume_after_id\":\"40\"}\n\n"
        );
    }

    #[test]
    fn a_preview_has_no_id_and_stays_on_one_line() {
        let session = SessionId::parse("s").unwrap();
        let preview = Preview { session, run: RunId { number: 2, epoch: 0 }, text: "a\nb".to_string() };
        assert_eq!(
            text(&encode_preview(&preview)),
            "event: preview\ndata: {\"type\":\"preview\",\"session_id\":\"s\",\"run_id\":\"run-2\",\"text\":\"a\\nb\"}\n\n"
        );
        assert_eq!(
            text(&encode_withdrawal(&preview.session, preview.run)),
            "event: preview\ndata: {\"type\":\"preview\",\"session_id\":\"s\",\"run_id\":\"run-2\",\"text\":\"\",\"withdrawn\":true}\n\n"
        );
    }

    #[test]
    fn a_stream_carries_what_its_scope_and_the_audience_allow() {
        let (a, b) = (SessionId::parse("a").unwrap(), SessionId::parse("b").unwrap());
        let (one, two) = (RunId { number: 1, epoch: 0 }, RunId { number: 2, epoch: 0 });
        let everything = Scope::Global { session: None, run: None };
        let both = Scope::Global { session: Some(a.clone()), run: Some(one) };
        // Columns: the event's session, run and audience; then who carries it.
        let rows = [
            (Some(&a), Some(one), Audience::Run, [true, true, true, true]),
            (Some(&a), Some(two), Audience::Run, [true, false, true, false]),
            (Some(&b), Some(one), Audience::Run, [true, false, false, true]),
            (Some(&a), Some(one), Audience::Session, [true, false, true, false]),
            (Some(&a), None, Audience::Session, [true, false, true, false]),
            (None, None, Audience::Global, [true, false, false, false]),
            (Some(&a), Some(one), Audience::Global, [true, false, false, false]),
        ];
        for (session, run, audience, expected) in rows {
            let carried = [&everything, &both, &Scope::Session(a.clone()), &Scope::Run(one)]
                .map(|scope| scope.admits(session, run, audience));
            assert_eq!(carried, expected, "{session:?} {run:?} {audience:?}");
        }
    }
}
