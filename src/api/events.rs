//! The one table: record kind → wire event or none, and who may see it.
//! Owns: the mapping and the data of every event that stands for a record.
//! May touch: the log, to find what a run was accepted with.
//! Never: looks at live state; a frame made twice from the same log is the same frame.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::delivery_events::delivery_updated;
use super::run_view::{Origin, cut_text};
use crate::core::{Body, RunStatus, SessionStatus, TaskRecord, TaskStatus, WaitsFor};
use crate::ids::{RunId, Seq, SessionId};
use crate::journal::Record;
use crate::limits::{
    SESSION_AGENT_STEPS_MAX, SSE_FRAME_DATA_BYTES_MAX, SSE_ORIGINS_CACHED_MAX, SSE_OUTPUT_CUT_BYTES,
    TASK_COMMAND_SHOWN_BYTES_MAX,
};
use crate::sse::{Audience, Frame, Log, Render, json};

/// The wire form of a record kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// The run as of this record.
    RunUpdated,
    /// The output inside the record.
    Output,
    /// Something happened inside the run's turn.
    Trace,
    /// The session is in this state now.
    SessionStateChanged(SessionStatus),
    /// Something happened to a task of the session.
    TaskUpdated,
    /// Something happened to a delivery of the run.
    DeliveryUpdated,
    /// The session's active run was stopped.
    Interrupted,
    /// A runtime setting changed.
    RuntimeUpdated,
    /// No event.
    Hidden,
}

impl Wire {
    /// Name of the event.
    pub fn event(self) -> Option<&'static str> {
        match self {
            Self::RunUpdated => Some("run_updated"),
            Self::Output => Some("output"),
            Self::Trace => Some("trace"),
            Self::SessionStateChanged(_) => Some("session_state_changed"),
            Self::TaskUpdated => Some("task_updated"),
            Self::DeliveryUpdated => Some("delivery_updated"),
            Self::Interrupted => Some("interrupted"),
            Self::RuntimeUpdated => Some("runtime_updated"),
            Self::Hidden => None,
        }
    }

    /// Which streams carry it.
    pub fn audience(self) -> Option<Audience> {
        match self {
            Self::RunUpdated | Self::Output | Self::Trace | Self::DeliveryUpdated => Some(Audience::Run),
            Self::SessionStateChanged(_) | Self::Interrupted | Self::TaskUpdated => Some(Audience::Session),
            Self::RuntimeUpdated => Some(Audience::Global),
            Self::Hidden => None,
        }
    }
}

/// Every record kind. A kind that is not here has no event. docs/events.md repeats it.
pub const TABLE: &[(&str, Wire)] = &[
    ("session.created", Wire::SessionStateChanged(SessionStatus::Idle)),
    ("session.interrupted", Wire::Interrupted),
    ("session.ended", Wire::SessionStateChanged(SessionStatus::Completed)),
    ("run.accepted", Wire::RunUpdated),
    ("run.started", Wire::RunUpdated),
    ("run.resumed", Wire::RunUpdated),
    ("run.waiting", Wire::RunUpdated),
    ("run.continued", Wire::RunUpdated),
    ("run.output", Wire::Output),
    ("run.completed", Wire::RunUpdated),
    ("run.failed", Wire::RunUpdated),
    ("run.interrupted", Wire::RunUpdated),
    ("run.cancelled", Wire::RunUpdated),
    ("message.appended", Wire::Hidden),
    ("permission.decided", Wire::Hidden),
    ("tool_call.started", Wire::Trace),
    ("tool_call.finished", Wire::Trace),
    ("approval.requested", Wire::Trace),
    ("approval.resolved", Wire::Trace),
    ("question.asked", Wire::Trace),
    ("question.resolved", Wire::Trace),
    ("agents.awaited", Wire::Hidden),
    ("context.compacted", Wire::Trace),
    ("route.failover", Wire::Trace),
    ("output.rejected", Wire::Trace),
    ("external_action.request", Wire::Hidden),
    ("external_action.response", Wire::Hidden),
    ("task.started", Wire::TaskUpdated),
    ("task.stop_requested", Wire::TaskUpdated),
    ("task.finished", Wire::TaskUpdated),
    ("task.created", Wire::TaskUpdated),
    ("task.updated", Wire::TaskUpdated),
    ("todos.written", Wire::Hidden),
    ("mailbox.posted", Wire::Hidden),
    ("mailbox.acknowledged", Wire::Hidden),
    ("delivery.queued", Wire::DeliveryUpdated),
    ("delivery.retrying", Wire::DeliveryUpdated),
    ("delivery.delivered", Wire::DeliveryUpdated),
    ("delivery.dead_lettered", Wire::DeliveryUpdated),
    ("delivery.resolved", Wire::DeliveryUpdated),
    ("delivery.targets_reset", Wire::Hidden),
    ("delivery.hold_changed", Wire::Hidden),
    ("hold.changed", Wire::RuntimeUpdated),
    ("runtime.changed", Wire::RuntimeUpdated),
    ("session.updated", Wire::Hidden),
    ("connector.put", Wire::Hidden),
    ("connector.deleted", Wire::Hidden),
    ("connectors.hold_changed", Wire::Hidden),
    ("session.bound", Wire::Hidden),
    ("retention.changed", Wire::Hidden),
    ("routes.loaded", Wire::RuntimeUpdated),
    ("hook.begun", Wire::Hidden),
    ("hook.notified", Wire::Hidden),
    ("hook.advanced", Wire::Hidden),
    ("hook.dead_lettered", Wire::Hidden),
    ("hook.dead_letter_resolved", Wire::Hidden),
    ("control.intent", Wire::Hidden),
    ("control.result", Wire::Hidden),
    ("journal.opened", Wire::Hidden),
    ("journal.seal", Wire::Hidden),
    ("journal.recovered", Wire::Hidden),
    ("journal.key_rotated", Wire::Hidden),
];

/// The wire form of a record kind.
pub fn wire(kind: &str) -> Wire {
    TABLE.iter().find(|(row, _)| *row == kind).map_or(Wire::Hidden, |(_, wire)| *wire)
}

/// Makes frames from records.
pub struct Events {
    log: Arc<dyn Log>,
    /// Least recently used first.
    origins: Mutex<Vec<(Seq, Arc<Origin>)>>,
}

#[derive(Serialize)]
struct RunUpdated<R> {
    r#type: &'static str,
    run: R,
}

/// What a status record shows by itself, when the run's acceptance cannot be read any more.
#[derive(Serialize)]
struct BareRun<'a> {
    run_id: Option<RunId>,
    session_id: Option<&'a SessionId>,
    status: RunStatus,
    updated_at_ms: u64,
}

#[derive(Serialize)]
struct Output<O> {
    r#type: &'static str,
    output: O,
}

#[derive(Deserialize)]
struct OutputBody<'a> {
    #[serde(borrow)]
    output: &'a RawValue,
}

#[derive(Deserialize)]
struct OutputFields {
    #[serde(default)]
    plugin: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    content: String,
    #[serde(default)]
    source_kind: String,
}

/// An output too large for a frame.
#[derive(Serialize)]
struct CutOutput<'a> {
    session_id: Option<&'a SessionId>,
    run_id: Option<RunId>,
    plugin: &'a str,
    address: &'a str,
    content: String,
    source_kind: &'a str,
    truncated: bool,
    content_bytes: usize,
}

#[derive(Serialize)]
struct TraceEvent<'a> {
    r#type: &'static str,
    trace: Trace<'a>,
}

#[derive(Serialize)]
struct Trace<'a> {
    kind: &'a str,
    session_id: Option<&'a SessionId>,
    run_id: Option<RunId>,
    timestamp_ms: u64,
    /// The record's body; left out when a frame would be too long.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a RawValue>,
    body_bytes: usize,
}

#[derive(Serialize)]
struct SessionStateChanged<'a> {
    r#type: &'static str,
    session_id: &'a SessionId,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<String>,
    status: SessionStatus,
    pending_approvals: u32,
    pending_questions: u32,
}

#[derive(Serialize)]
struct Interrupted<'a> {
    r#type: &'static str,
    session_id: &'a SessionId,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<String>,
}

#[derive(Serialize)]
struct RuntimeUpdated<'a> {
    r#type: &'static str,
    runtime: Runtime<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Runtime<'a> {
    Hold {
        hold: &'a RawValue,
    },
    /// The daemon was started with another routes file.
    Routes {
        routes_file: &'a RawValue,
    },
    /// The rest of the settings is in `GET /v1/runtime`.
    Changed {
        config: RuntimeConfig,
    },
}

/// What `runtime.changed` shows of itself: texts and rules may be large.
#[derive(Serialize, Deserialize)]
struct RuntimeConfig {
    revision: u64,
    source: String,
    setting: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<serde_json::Value>,
}

impl<'a> Runtime<'a> {
    fn of(record: &'a Record) -> Self {
        let changed = |()| serde_json::from_str::<RuntimeConfig>(record.body.get()).ok();
        match (record.kind == "runtime.changed").then_some(()).and_then(changed) {
            Some(mut config) => {
                if !["permission_mode", "model", "debug_level", "tool_limits"].contains(&config.setting.as_str()) {
                    config.value = None;
                }
                Self::Changed { config }
            }
            None if record.kind == "routes.loaded" => Self::Routes { routes_file: &record.body },
            None => Self::Hold { hold: &record.body },
        }
    }
}

impl Events {
    /// Frames of this log's records.
    pub fn new(log: Arc<dyn Log>) -> Self {
        Self { log, origins: Mutex::new(Vec::new()) }
    }

    fn run_updated(&self, record: &Record) -> Vec<u8> {
        let r#type = "run_updated";
        let view = self.origin(record).and_then(|origin| match origin.lean(record) {
            Ok(view) => Some(view),
            Err(error) => {
                ::log::error!("a run is shown without details: {error}");
                None
            }
        });
        match view {
            Some(run) => json(&RunUpdated { r#type, run }),
            None => json(&RunUpdated { r#type, run: bare_run(record) }),
        }
    }

    /// What the record's run was accepted with.
    fn origin(&self, record: &Record) -> Option<Arc<Origin>> {
        let first = if record.run_first == 0 { record.seq } else { record.run_first };
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = origins.iter().rposition(|(seq, _)| *seq == first) {
            let used = origins.remove(place);
            let origin = Arc::clone(&used.1);
            origins.push(used);
            return Some(origin);
        }
        drop(origins);
        let origin = if first == record.seq { Origin::of(record) } else { self.read_origin(first)? };
        let origin = match origin {
            Ok(origin) => Arc::new(origin),
            Err(error) => {
                ::log::error!("a run is shown without details: {error}");
                return None;
            }
        };
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        if origins.len() >= SSE_ORIGINS_CACHED_MAX {
            origins.remove(0);
        }
        origins.push((first, Arc::clone(&origin)));
        Some(origin)
    }

    fn read_origin(&self, first: Seq) -> Option<Result<Origin, super::run_view::ViewError>> {
        match self.log.read(first) {
            Ok(accepted) => Some(Origin::of(&accepted)),
            Err(error) => {
                // A run may outlive the retention of its acceptance; anything else is for the log.
                if first >= self.log.floor() {
                    ::log::error!("a run is shown without details: {error}");
                }
                None
            }
        }
    }

    /// The agent of a session event: named by the newest record before it that knows.
    fn agent(&self, record: &Record) -> Option<String> {
        let mut record = record.clone();
        for _ in 0..SESSION_AGENT_STEPS_MAX {
            if record.kind == "session.created" {
                return match Body::decode(&record.kind, &record.body) {
                    Ok(Body::SessionCreated(created)) => Some(created.agent),
                    _ => None,
                };
            }
            if record.run.is_some() {
                return self.origin(&record).map(|origin| origin.agent().to_string());
            }
            record = self.log.read(record.session_prev).ok()?;
        }
        None
    }

    fn session_state_changed(&self, record: &Record, status: SessionStatus) -> Option<Vec<u8>> {
        Some(json(&SessionStateChanged {
            r#type: "session_state_changed",
            session_id: record.session.as_ref()?,
            agent_id: self.agent(record),
            status,
            pending_approvals: 0,
            pending_questions: 0,
        }))
    }

    fn interrupted(&self, record: &Record) -> Option<Vec<u8>> {
        let session_id = record.session.as_ref()?;
        Some(json(&Interrupted { r#type: "interrupted", session_id, agent_id: self.agent(record) }))
    }
}

impl Render for Events {
    fn frame(&self, record: &Record) -> Option<Frame> {
        let wire = wire(&record.kind);
        let data = match wire {
            Wire::RunUpdated => self.run_updated(record),
            Wire::Output => match output(record) {
                Ok(data) => data,
                Err(error) => {
                    ::log::error!(
                        "output {} is not shown: {error}; next: run kheish-daemon journal verify",
                        record.seq
                    );
                    return None;
                }
            },
            Wire::Trace => trace(record),
            Wire::SessionStateChanged(status) => self.session_state_changed(record, status)?,
            Wire::TaskUpdated => task_updated(record)?,
            Wire::DeliveryUpdated => delivery_updated(record)?,
            Wire::Interrupted => self.interrupted(record)?,
            Wire::RuntimeUpdated => json(&RuntimeUpdated { r#type: "runtime_updated", runtime: Runtime::of(record) }),
            Wire::Hidden => return None,
        };
        Some(Frame { event: wire.event()?, data, audience: wire.audience()? })
    }
}

/// A record of a turn as it was written, unless it is long: then it is to be read where the run is.
fn trace(record: &Record) -> Vec<u8> {
    let trace = Trace {
        kind: &record.kind,
        session_id: record.session.as_ref(),
        run_id: record.run,
        timestamp_ms: record.at_ms,
        body: Some(&*record.body).filter(|body| body.get().len() <= SSE_OUTPUT_CUT_BYTES),
        body_bytes: record.body.get().len(),
    };
    json(&TraceEvent { r#type: "trace", trace })
}

/// What one record tells of a task. Never its token.
#[derive(Serialize)]
struct TaskUpdated<'a> {
    r#type: &'static str,
    session_id: &'a SessionId,
    task: TaskChange,
}

#[derive(Serialize, Default)]
struct TaskChange {
    id: String,
    change: &'static str,
    timestamp_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<TaskStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    terminal_reason: Option<String>,
}

fn task_updated(record: &Record) -> Option<Vec<u8>> {
    let Ok(Body::Task(body)) = Body::decode(&record.kind, &record.body) else { return None };
    let mut task = TaskChange { timestamp_ms: record.at_ms, ..TaskChange::default() };
    match body {
        TaskRecord::Started(body) => {
            (task.change, task.id, task.status) = ("started", body.id, Some(TaskStatus::InProgress));
            task.title = Some(cut_text(&body.command, TASK_COMMAND_SHOWN_BYTES_MAX));
        }
        TaskRecord::StopRequested(body) => (task.change, task.id) = ("stop_requested", body.id),
        TaskRecord::Finished(body) => {
            (task.change, task.id, task.status) = ("finished", body.id, Some(body.end.status));
            (task.exit_code, task.terminal_reason) = (body.end.exit_code, body.end.terminal_reason);
        }
        TaskRecord::Created(body) => {
            (task.change, task.id) = ("created", body.id);
            (task.status, task.title) = (Some(body.status), Some(body.title));
        }
        TaskRecord::Updated(body) => {
            (task.change, task.id) = (if body.deleted { "deleted" } else { "updated" }, body.id);
            (task.status, task.title) = (body.status, body.title);
        }
        TaskRecord::Todos(_) => return None,
    }
    Some(json(&TaskUpdated { r#type: "task_updated", session_id: record.session.as_ref()?, task }))
}

fn bare_run(record: &Record) -> BareRun<'_> {
    let status = match record.kind.as_str() {
        "run.started" | "run.resumed" | "run.continued" => RunStatus::Running,
        "run.waiting" => match Body::decode(&record.kind, &record.body) {
            Ok(Body::RunWaiting(waiting)) if waiting.waits_for == WaitsFor::UserQuestion => {
                RunStatus::WaitingForUserQuestion
            }
            _ => RunStatus::WaitingForApproval,
        },
        "run.completed" => RunStatus::Completed,
        "run.failed" => RunStatus::Failed,
        "run.interrupted" => RunStatus::Interrupted,
        "run.cancelled" => RunStatus::Cancelled,
        _ => RunStatus::Queued,
    };
    BareRun { run_id: record.run, session_id: record.session.as_ref(), status, updated_at_ms: record.at_ms }
}

/// The output as it was recorded, or its beginning when clients would refuse the frame.
fn output(record: &Record) -> Result<Vec<u8>, serde_json::Error> {
    let r#type = "output";
    let body: OutputBody<'_> = serde_json::from_str(record.body.get())?;
    if body.output.get().len() < SSE_FRAME_DATA_BYTES_MAX - r#"{"type":"output","output":}"#.len() {
        return Ok(json(&Output { r#type, output: body.output }));
    }
    let fields: OutputFields = serde_json::from_str(body.output.get())?;
    let output = CutOutput {
        session_id: record.session.as_ref(),
        run_id: record.run,
        plugin: &fields.plugin,
        address: &fields.address,
        content: cut_text(&fields.content, SSE_OUTPUT_CUT_BYTES),
        source_kind: &fields.source_kind,
        truncated: true,
        content_bytes: fields.content.len(),
    };
    Ok(json(&Output { r#type, output }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::LogError;

    struct Records(Vec<Record>);

    impl Log for Records {
        fn committed(&self) -> Seq {
            self.0.last().map_or(0, |record| record.seq)
        }
        fn floor(&self) -> Seq {
            self.0.first().map_or(0, |record| record.seq)
        }
        fn read(&self, seq: Seq) -> Result<Record, LogError> {
            self.0.iter().find(|record| record.seq == seq).cloned().ok_or_else(|| LogError::new("no such record"))
        }
        fn scan(&self, from: Seq, _bytes_max: usize) -> Result<Vec<Record>, LogError> {
            Ok(self.0.iter().filter(|record| record.seq >= from).cloned().collect())
        }
    }

    fn record(seq: Seq, kind: &str, run: Option<u32>, links: (Seq, Seq), body: &str) -> Record {
        Record {
            seq,
            at_ms: 1_000 + seq,
            kind: kind.to_string(),
            session: (kind != "hold.changed").then(|| SessionId::parse("s").unwrap()),
            run: run.map(|number| RunId { number, epoch: 0 }),
            session_prev: links.0,
            run_prev: 0,
            run_first: links.1,
            by: None,
            body: RawValue::from_string(body.to_string()).unwrap(),
            batch: None,
        }
    }

    fn sample() -> Vec<Record> {
        let accepted =
            r#"{"agent":"agent-1","kind":"input","position":0,"route":"main","model":"m","request":{"content":"hi"}}"#;
        let times = r#"{"submitted_at_ms":1002,"started_at_ms":1003}"#;
        let output = r#"{"output":{"session_id":"s","run_id":"run-1","content":"a"}}"#;
        vec![
            record(1, "session.created", None, (0, 0), r#"{"agent":"agent-1"}"#),
            record(2, "run.accepted", Some(1), (1, 0), accepted),
            record(3, "run.started", Some(1), (2, 2), times),
            record(4, "run.output", Some(1), (3, 2), output),
            record(5, "external_action.request", Some(1), (4, 2), "{}"),
            record(6, "run.interrupted", Some(1), (5, 2), times),
            record(7, "session.interrupted", None, (6, 0), "{}"),
            record(8, "session.ended", None, (7, 0), "{}"),
            record(9, "hold.changed", None, (0, 0), r#"{"held":true}"#),
            record(10, "future.kind", None, (8, 0), "{}"),
        ]
    }

    fn shown(events: &Events, record: &Record) -> Option<(&'static str, Audience, String)> {
        let frame = events.frame(record)?;
        Some((frame.event, frame.audience, String::from_utf8(frame.data).unwrap()))
    }

    #[test]
    fn each_record_becomes_its_one_event() {
        let records = sample();
        let events = Events::new(Arc::new(Records(records.clone())));
        let run = |status: &str, more: &str| {
            format!(
                r#"{{"type":"run_updated","run":{{"run_id":"run-1","session_id":"s","agent_id":"agent-1","kind":"input","status":"{status}","submitted_at_ms":1002,{more},"request":{{"source_plugin":"daemon","source_kind":"api","text_preview":"hi","provider":"main","model":"m"}}}}}}"#
            )
        };
        let state = |status: &str| {
            format!(
                r#"{{"type":"session_state_changed","session_id":"s","agent_id":"agent-1","status":"{status}","pending_approvals":0,"pending_questions":0}}"#
            )
        };
        let expected = [
            Some(("session_state_changed", Audience::Session, state("idle"))),
            Some(("run_updated", Audience::Run, run("queued", r#""updated_at_ms":1002"#))),
            Some(("run_updated", Audience::Run, run("running", r#""updated_at_ms":1003,"started_at_ms":1003"#))),
            Some((
                "output",
                Audience::Run,
                r#"{"type":"output","output":{"session_id":"s","run_id":"run-1","content":"a"}}"#.to_string(),
            )),
            None,
            Some((
                "run_updated",
                Audience::Run,
                run("interrupted", r#""updated_at_ms":1006,"started_at_ms":1003,"finished_at_ms":1006"#),
            )),
            Some((
                "interrupted",
                Audience::Session,
                r#"{"type":"interrupted","session_id":"s","agent_id":"agent-1"}"#.to_string(),
            )),
            Some(("session_state_changed", Audience::Session, state("completed"))),
            Some((
                "runtime_updated",
                Audience::Global,
                r#"{"type":"runtime_updated","runtime":{"hold":{"held":true}}}"#.to_string(),
            )),
            None,
        ];
        let made: Vec<_> = records.iter().map(|record| shown(&events, record)).collect();
        assert_eq!(made, expected);
        let again: Vec<_> = records.iter().map(|record| shown(&events, record)).collect();
        assert_eq!(again, expected, "a frame made twice is the same frame");
    }

    #[test]
    fn a_run_whose_acceptance_is_no_longer_retained_is_shown_without_details() {
        let records = sample().split_off(2);
        let events = Events::new(Arc::new(Records(records.clone())));
        let expected = r#"{"type":"run_updated","run":{"run_id":"run-1","session_id":"s","status":"running","updated_at_ms":1003}}"#;
        assert_eq!(shown(&events, &records[0]), Some(("run_updated", Audience::Run, expected.to_string())));
    }

    #[test]
    fn an_output_beyond_the_frame_limit_is_cut_and_says_so() {
        let content = "é".repeat(SSE_FRAME_DATA_BYTES_MAX);
        let body = format!(
            r#"{{"output":{{"plugin":"daemon","address":"","content":"{content}","source_kind":"assistant_text"}}}}"#
        );
        let record = record(4, "run.output", Some(1), (3, 2), &body);
        let events = Events::new(Arc::new(Records(vec![record.clone()])));
        let cut = "é".repeat(SSE_OUTPUT_CUT_BYTES / 2);
        let expected = format!(
            r#"{{"type":"output","output":{{"session_id":"s","run_id":"run-1","plugin":"daemon","address":"","content":"{cut}…","source_kind":"assistant_text","truncated":true,"content_bytes":{}}}}}"#,
            content.len()
        );
        assert_eq!(shown(&events, &record), Some(("output", Audience::Run, expected)));
    }

    #[test]
    fn the_cache_of_acceptances_stays_within_its_bound_and_keeps_what_is_used() {
        let accepted = sample().remove(1);
        let count = SSE_ORIGINS_CACHED_MAX as u64 + 10;
        let accepted: Vec<Record> = (1..=count).map(|seq| Record { seq, ..accepted.clone() }).collect();
        let events = Events::new(Arc::new(Records(accepted.clone())));
        for record in &accepted {
            events.frame(record);
            events.frame(&accepted[0]);
        }
        let cached: Vec<Seq> = events.origins.lock().unwrap().iter().map(|(seq, _)| *seq).collect();
        assert_eq!(cached.len(), SSE_ORIGINS_CACHED_MAX);
        assert_eq!(cached.last(), Some(&1));
    }
}
