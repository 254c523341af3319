//! Connectors in the core: revisions, events that come twice, binding keys, the hold; the same after a replay and from a
//! snapshot.

use kheish_daemon::core::{
    Body, Command, ConnectorCommand, ConnectorKind, Decision, Event, IdempotencyKey, Ingest, IngestOutcome, Refusal,
    ReplyPlugin, RunReplyTarget, State, Txn,
};
use kheish_daemon::ids::{RunId, SessionId};
use kheish_daemon::limits::{DELIVERIES_OPEN_MAX, REPLY_TARGETS_MAX};
use serde_json::value::RawValue;

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_string()).expect("JSON")
}

fn session(id: &str) -> SessionId {
    SessionId::parse(id).expect("legal")
}

/// A state with its log.
struct Core {
    state: State,
    log: Vec<Event>,
}

/// Connectors, why they are held, bindings, and the revision.
type Shown = (Vec<(String, u64, String)>, Option<String>, Vec<([u8; 16], String)>, u64);

impl Core {
    fn new() -> Self {
        let mut state = State::default();
        state.open_epoch(7);
        Self { state, log: Vec::new() }
    }

    /// One command as a batch of its own; `kept` is whether the write succeeds.
    fn decide_and(&mut self, command: ConnectorCommand, kept: bool) -> Result<Decision, Refusal> {
        let mut txn = Txn::new(&self.state, 10, self.log.len() as u64 + 1);
        let decided = txn.decide(Command::Connector(Box::new(command)));
        let (delta, events) = txn.finish();
        assert!(decided.is_ok() || events.is_empty(), "a refused command leaves nothing behind");
        if kept {
            self.state.absorb(delta);
            self.log.extend(events);
        }
        decided
    }

    fn decide(&mut self, command: ConnectorCommand) -> Result<Decision, Refusal> {
        self.decide_and(command, true)
    }

    fn put(&mut self, name: &str, expected: Option<u64>) -> Result<Decision, Refusal> {
        let (kind, config) = (ConnectorKind::Http, raw(r#"{"actor_id":"a"}"#));
        self.decide(ConnectorCommand::Put { kind, name: name.to_string(), config, expected_revision: expected })
    }

    /// What can be told of the state: connectors with their revisions, the hold, bindings, runs.
    fn shown(state: &State) -> Shown {
        let connectors = state.connectors();
        let all = connectors.iter().map(|known| (known.name.clone(), known.revision, known.config.to_string()));
        let hold = connectors.hold.as_ref().map(|hold| hold.reason.clone().unwrap_or_default());
        let bindings = state.bindings().map(|(key, id)| (key, id.to_string()));
        (all.collect(), hold, bindings.collect(), state.counts().runs)
    }

    /// A replay of the log and a snapshot must give the same.
    fn assert_same_when_read_back(&self) {
        let mut folded = State::default();
        folded.open_epoch(7);
        for event in &self.log {
            let body = raw(&String::from_utf8(event.body.encode()).expect("UTF-8"));
            let body = Body::decode(event.body.kind(), &body).expect("own kinds");
            folded.replay(&Event { body, ..event.clone() }).expect("own events apply");
        }
        let mut restored = State::default();
        for line in self.state.freeze().into_lines() {
            restored.restore_line(&line).expect("own lines restore");
        }
        assert_eq!(Self::shown(&folded), Self::shown(&self.state));
        assert_eq!(Self::shown(&restored), Self::shown(&self.state));
        assert_eq!(restored.connectors().revision, self.state.connectors().revision);
    }
}

fn event(id: &str, create: bool, key: u8, fingerprint: u8, bind: &[u8]) -> ConnectorCommand {
    ConnectorCommand::Ingest(Ingest {
        session: session(id),
        create,
        bind: bind.iter().map(|byte| [*byte; 16]).collect(),
        request: raw(r#"{"content":"x"}"#),
        route: "main".to_string(),
        model: "m".to_string(),
        idempotency: Some(IdempotencyKey { key: [key; 16], fingerprint: [fingerprint; 16] }),
        reply_targets: Vec::new(),
    })
}

fn outcome(decided: Result<Decision, Refusal>) -> (String, String, &'static str) {
    match decided {
        Ok(Decision::Ingested(ingested)) => {
            let outcome = match ingested.outcome {
                IngestOutcome::Accepted { .. } => "accepted",
                IngestOutcome::Duplicate(_) => "duplicate",
                IngestOutcome::Conflict => "conflict",
            };
            (ingested.run.to_string(), ingested.session.to_string(), outcome)
        }
        other => panic!("{other:?}"),
    }
}

fn told(run: u32, session: &str, outcome: &'static str) -> (String, String, &'static str) {
    (RunId { number: run, epoch: 0 }.to_string(), session.to_string(), outcome)
}

#[test]
fn revisions_never_repeat_and_a_stale_one_changes_nothing() {
    let mut core = Core::new();
    assert_eq!(core.put("a", Some(0)), Ok(Decision::Connectors { revision: 1 }));
    assert_eq!(core.put("a", Some(0)), Err(Refusal::ConnectorRevisionConflict { expected: 0, current: 1 }));
    assert_eq!(core.put("b", None), Ok(Decision::Connectors { revision: 2 }));
    assert_eq!(core.put("a", Some(1)), Ok(Decision::Connectors { revision: 3 }));
    let delete = |name: &str| ConnectorCommand::Delete { kind: ConnectorKind::Http, name: name.to_string() };
    assert_eq!(core.decide(delete("a")), Ok(Decision::Connectors { revision: 4 }));
    let missing = Refusal::ConnectorNotFound { kind: ConnectorKind::Http, name: "a".to_string() };
    assert_eq!(core.decide(delete("a")), Err(missing));
    assert_eq!(
        core.put("a", None),
        Ok(Decision::Connectors { revision: 5 }),
        "its old revisions are never given again"
    );
    core.assert_same_when_read_back();
}

#[test]
fn an_event_makes_one_run_and_its_key_holds_across_sessions() {
    let mut core = Core::new();
    assert_eq!(core.decide(event("s", false, 1, 1, &[])), Err(Refusal::SessionNotFound(session("s"))));
    assert_eq!(outcome(core.decide_and(event("s", true, 1, 1, &[9]), false)), told(1, "s", "accepted"));
    assert_eq!(Core::shown(&core.state).3, 0, "a batch that was not written left nothing");
    assert_eq!(outcome(core.decide(event("s", true, 1, 1, &[9]))), told(1, "s", "accepted"));
    assert_eq!(outcome(core.decide(event("s", true, 1, 1, &[9]))), told(1, "s", "duplicate"));
    assert_eq!(outcome(core.decide(event("t", true, 1, 1, &[9]))), told(1, "s", "duplicate"), "wherever it leads now");
    assert_eq!(outcome(core.decide(event("t", true, 1, 2, &[9]))), told(1, "s", "conflict"));
    assert_eq!(core.state.session_number(&session("t")), None, "neither of them made a session");
    // A key that names a session goes on naming it.
    assert_eq!(outcome(core.decide(event("t", true, 2, 1, &[9, 8]))), told(2, "t", "accepted"));
    let bindings = Core::shown(&core.state).2;
    assert_eq!(bindings, [([8; 16], "t".to_string()), ([9; 16], "s".to_string())]);
    core.assert_same_when_read_back();
}

#[test]
fn nothing_passes_while_connectors_are_held_but_what_came_before_is_known() {
    let mut core = Core::new();
    assert_eq!(outcome(core.decide(event("s", true, 1, 1, &[]))), told(1, "s", "accepted"));
    let hold = |held, reason: Option<&str>| ConnectorCommand::Hold { held, reason: reason.map(str::to_string) };
    core.decide(hold(true, Some("restored"))).expect("held");
    let events = core.log.len();
    core.decide(hold(true, Some("again"))).expect("held already");
    assert_eq!(core.log.len(), events, "holding twice is one record");
    let refused = Refusal::ConnectorsHeld { reason: Some("restored".to_string()) };
    assert_eq!(core.decide(event("s", true, 2, 1, &[])), Err(refused));
    assert_eq!(outcome(core.decide(event("s", true, 1, 1, &[]))), told(1, "s", "duplicate"));
    core.assert_same_when_read_back();
    core.decide(hold(false, None)).expect("released");
    assert_eq!(outcome(core.decide(event("s", true, 2, 1, &[]))), told(2, "s", "accepted"));
    core.assert_same_when_read_back();
}

/// A session was made first and the run refused afterwards, so that each repetition left another empty session.
#[test]
fn an_event_that_owes_one_delivery_too_many_leaves_no_session_behind() {
    let mut core = Core::new();
    let target = |place: usize| RunReplyTarget {
        plugin: ReplyPlugin::Http,
        address: format!(r#"{{"url":"https://a.example/{place}"}}"#),
    };
    let all: Vec<RunReplyTarget> = (0..REPLY_TARGETS_MAX).map(target).collect();
    let owing = |id: &str, key: u16, reply_targets: &[RunReplyTarget]| {
        let ConnectorCommand::Ingest(ingest) = event(id, true, 0, 0, &[]) else { unreachable!("made above") };
        let mut whole = [0; 16];
        whole[..2].copy_from_slice(&key.to_be_bytes());
        let idempotency = Some(IdempotencyKey { key: whole, fingerprint: [1; 16] });
        ConnectorCommand::Ingest(Ingest { idempotency, reply_targets: reply_targets.to_vec(), ..ingest })
    };
    // Sixty events a session, which its queue can hold.
    let events = DELIVERIES_OPEN_MAX / REPLY_TARGETS_MAX;
    for number in 0..events {
        core.decide(owing(&format!("s{}", number / 60), number as u16, &all)).expect("there is room");
    }
    let sessions = core.state.counts().sessions;
    let refused = core.decide(owing("new", u16::MAX, &all));
    assert!(matches!(refused, Err(Refusal::DeliveryLimit { .. })), "{refused:?}");
    assert_eq!(core.state.counts().sessions, sessions);
    core.decide(owing("new", u16::MAX, &[])).expect("what owes nothing is taken");
}
