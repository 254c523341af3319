//! The core against an independent, simpler model: random commands in random batches, some of which are
//! dropped as a failed write would drop them. After each batch the two must agree, a fold of the committed
//! events must give the same state, and a snapshot must restore it.

#[path = "support/rng.rs"]
mod rng;

use std::collections::{HashMap, VecDeque};

use kheish_daemon::audit::key::SigningKey;
use kheish_daemon::core::{
    Answer, Body, CallFindings, Command, Counts, Decision, Event, IdempotencyKey, Note, NoteKind, Order, Outcome,
    QuestionAnswer, Refusal, Resolution, RunQuery, RunStatus, State, Target, Txn,
};
use kheish_daemon::ids::{RunId, SessionId};
use rng::{Rng, seeds};
use serde_json::value::RawValue;

/// What the core promises, said again with plain queues.
#[derive(Clone, Default)]
struct Model {
    sessions: Vec<ModelSession>,
    runs: HashMap<RunId, (usize, RunStatus)>,
    keys: HashMap<u8, (RunId, u8)>,
    held: bool,
    /// Open approvals by run, and those that were ever asked for.
    approvals: HashMap<RunId, Vec<String>>,
    questions: HashMap<RunId, String>,
    asked: u64,
    /// Answers by key: whose, and which request.
    answers: HashMap<u8, (RunId, u8)>,
}

#[derive(Clone, Default)]
struct ModelSession {
    active: Option<RunId>,
    queue: VecDeque<RunId>,
    ended: bool,
}

impl Model {
    fn promote(&mut self, session: usize) {
        let of = &mut self.sessions[session];
        if !self.held
            && of.active.is_none()
            && let Some(next) = of.queue.pop_front()
        {
            of.active = Some(next);
            self.runs.insert(next, (session, RunStatus::Running));
        }
    }

    fn end_run(&mut self, run: RunId, status: RunStatus) {
        let (session, _) = self.runs[&run];
        self.runs.insert(run, (session, status));
        self.approvals.remove(&run);
        self.questions.remove(&run);
        let of = &mut self.sessions[session];
        of.queue.retain(|queued| *queued != run);
        if of.active == Some(run) {
            of.active = None;
        }
    }
}

fn session_id(index: usize) -> SessionId {
    SessionId::parse(&format!("s{index}")).expect("legal")
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_string()).expect("JSON")
}

fn key(key: u8, fingerprint: u8) -> IdempotencyKey {
    IdempotencyKey { key: [key + 1; 16], fingerprint: [fingerprint; 16] }
}

fn suspend(rng: &mut Rng, txn: &mut Txn<'_>, model: &mut Model, run: RunId) {
    let asks_question = rng.chance(3);
    let mut notes = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..if asks_question { 1 } else { 1 + rng.below(3) } {
        model.asked += 1;
        let id = format!("ask-{}", model.asked);
        let body = raw(&format!(r#"{{"id":"{id}","call":"call-{id}","tool":"bash","input":{{}}}}"#));
        let kind = if asks_question { NoteKind::QuestionAsked } else { NoteKind::ApprovalRequested };
        notes.push(Note { kind, body });
        ids.push(id);
    }
    let decided = txn.decide(Command::Suspend { run, notes });
    let (session, status) = model.runs[&run];
    if status != RunStatus::Running {
        return assert_eq!(decided, Err(Refusal::RunStateConflict { run, status }));
    }
    let status = if asks_question { RunStatus::WaitingForUserQuestion } else { RunStatus::WaitingForApproval };
    assert_eq!(decided, Ok(Decision::Run { run, status, changed: true }));
    model.runs.insert(run, (session, status));
    if asks_question {
        model.questions.insert(run, ids.remove(0));
    } else {
        model.approvals.insert(run, ids);
    }
}

fn resolve_approvals(rng: &mut Rng, txn: &mut Txn<'_>, model: &mut Model, run: RunId) {
    let (session, status) = model.runs[&run];
    let open = model.approvals.get(&run).cloned().unwrap_or_default();
    let mut ids: Vec<String> = open.iter().filter(|_| rng.chance(2)).cloned().collect();
    let strange = rng.below(8);
    match strange {
        0 => ids.push("approval-of-another-run".to_string()),
        1 if !ids.is_empty() => ids.push(ids[0].clone()),
        _ => {}
    }
    let answer = rng.chance(2).then(|| (rng.below(30) as u8, rng.below(2) as u8));
    let resolution = |id: &String| Resolution {
        id: id.clone(),
        allow: id.len().is_multiple_of(2),
        updated_input: None,
        justification: None,
        reason: None,
    };
    let by_session = model.sessions[session].active == Some(run) && rng.chance(2);
    let decided = txn.decide(Command::ResolveApprovals {
        target: if by_session { Target::Session(session_id(session)) } else { Target::Run(run) },
        resolutions: ids.iter().map(resolution).collect(),
        idempotency: answer.map(|(k, f)| key(k + 100, f)),
    });
    if let Some((k, f)) = answer
        && let Some((earlier, fingerprint)) = model.answers.get(&k).copied()
    {
        let status = model.runs[&earlier].1;
        let expected = if fingerprint == f {
            Ok(Decision::Run { run: earlier, status, changed: false })
        } else {
            Err(Refusal::IdempotencyConflict { run: earlier })
        };
        return assert_eq!(decided, expected);
    }
    let refusal = match status {
        _ if ids.is_empty() => Some(Refusal::ApprovalBatchEmpty),
        RunStatus::Queued => Some(Refusal::RunStateConflict { run, status }),
        RunStatus::WaitingForApproval if strange == 0 => {
            Some(Refusal::ApprovalNotPending("approval-of-another-run".to_string()))
        }
        RunStatus::WaitingForApproval if strange == 1 => Some(Refusal::ApprovalDuplicate(ids[0].clone())),
        RunStatus::WaitingForApproval => None,
        status => Some(Refusal::ApprovalStateConflict { run: Some(run), status: Some(status) }),
    };
    if let Some(refusal) = refusal {
        return assert_eq!(decided, Err(refusal));
    }
    let left: Vec<String> = open.into_iter().filter(|id| !ids.contains(id)).collect();
    let status = if left.is_empty() { RunStatus::Running } else { RunStatus::WaitingForApproval };
    assert_eq!(decided, Ok(Decision::Run { run, status, changed: true }));
    model.runs.insert(run, (session, status));
    model.approvals.remove(&run);
    if !left.is_empty() {
        model.approvals.insert(run, left);
    }
    if let Some((k, f)) = answer {
        model.answers.insert(k, (run, f));
    }
}

fn resolve_question(rng: &mut Rng, txn: &mut Txn<'_>, model: &mut Model, run: RunId) {
    let (session, status) = model.runs[&run];
    let open = model.questions.get(&run).cloned();
    let id = if rng.chance(5) { "another".to_string() } else { open.clone().unwrap_or_else(|| "none".to_string()) };
    let cancels = rng.chance(3);
    let decided = txn.decide(if cancels {
        Command::CancelQuestion { run, id: id.clone(), justification: None, idempotency: None }
    } else {
        Command::ResolveQuestion {
            target: Target::Run(run),
            answer: Box::new(Answer {
                id: id.clone(),
                answers: vec![QuestionAnswer {
                    question_id: "q".to_string(),
                    selected_option_ids: Vec::new(),
                    freeform_answer: Some("yes".to_string()),
                }],
                declined: false,
                justification: None,
            }),
            idempotency: None,
        }
    });
    let refusal = match (status, open) {
        (RunStatus::WaitingForUserQuestion, Some(pending)) => {
            (pending != id).then_some(Refusal::QuestionMismatch { asked: id, pending })
        }
        (RunStatus::Queued, _) => Some(Refusal::RunStateConflict { run, status }),
        _ => Some(Refusal::QuestionStateConflict { run: Some(run), status: Some(status) }),
    };
    if let Some(refusal) = refusal {
        return assert_eq!(decided, Err(refusal));
    }
    let status = if cancels { RunStatus::Cancelled } else { RunStatus::Running };
    assert_eq!(decided, Ok(Decision::Run { run, status, changed: true }));
    if cancels {
        model.end_run(run, RunStatus::Cancelled);
        model.promote(session);
    } else {
        model.questions.remove(&run);
        model.runs.insert(run, (session, RunStatus::Running));
    }
}

/// One random command, decided by both; the answers must agree.
fn step(rng: &mut Rng, txn: &mut Txn<'_>, model: &mut Model) {
    let sessions = model.sessions.len();
    let any_session = (sessions > 0).then(|| rng.below(sessions as u64) as usize);
    let mut known: Vec<RunId> = model.runs.keys().copied().collect();
    known.sort();
    let any_run = (!known.is_empty()).then(|| known[rng.below(known.len() as u64) as usize]);
    match (rng.below(18), any_session, any_run) {
        (12 | 13, _, Some(run)) => suspend(rng, txn, model, run),
        (14 | 15, _, Some(run)) => resolve_approvals(rng, txn, model, run),
        (16, _, Some(run)) => resolve_question(rng, txn, model, run),
        (17, Some(session), _) if rng.chance(4) => {
            let only = rng.chance(2).then_some(session);
            let open: Vec<RunId> = model.approvals.keys().copied().collect();
            let settled: Vec<RunId> =
                open.into_iter().filter(|run| only.is_none_or(|only| model.runs[run].0 == only)).collect();
            let count = settled.iter().map(|run| model.approvals[run].len() as u32).sum();
            let command = Command::DenyPending { session: only.map(session_id), reason: "policy".to_string() };
            assert_eq!(txn.decide(command), Ok(Decision::Settled { count }));
            for run in settled {
                model.approvals.remove(&run);
                model.runs.insert(run, (model.runs[&run].0, RunStatus::Running));
            }
        }
        (0, ..) if sessions < 6 => {
            let created = txn.decide(Command::CreateSession { id: session_id(sessions), thread_id: None });
            assert_eq!(created, Ok(Decision::Session { number: sessions as u32 + 1, created: true }));
            model.sessions.push(ModelSession::default());
        }
        (1..=4, Some(session), _) => {
            // Few keys and few requests, so that repeats and conflicts come often.
            let idempotency = rng.chance(2).then(|| (rng.below(40) as u8, rng.below(2) as u8));
            let decided = txn.decide(Command::SubmitRun {
                session: session_id(session),
                request: raw("{\"content\":\"x\"}"),
                route: "main".to_string(),
                model: "m".to_string(),
                idempotency: idempotency.map(|(k, f)| key(k, f)),
                reply_targets: Vec::new(),
            });
            let of = &model.sessions[session];
            if let Some((k, f)) = idempotency
                && let Some((run, fingerprint)) = model.keys.get(&k).copied()
            {
                if fingerprint == f {
                    let Ok(Decision::Repeated { run: repeated, state, .. }) = decided else { panic!("{decided:?}") };
                    assert_eq!((repeated, state.status), (run, model.runs[&run].1));
                } else {
                    assert_eq!(decided, Err(Refusal::IdempotencyConflict { run }));
                }
            } else if of.ended {
                assert_eq!(decided, Err(Refusal::SessionEnded(session_id(session))));
            } else {
                let starts = !model.held && of.active.is_none() && of.queue.is_empty();
                let expected_position = if starts { 0 } else { of.queue.len() as u32 + 1 };
                let Ok(Decision::Accepted { run, position, .. }) = decided else { panic!("not accepted: {decided:?}") };
                assert_eq!(position, expected_position);
                assert_eq!(run.number as usize, model.runs.len() + 1, "run numbers are used once");
                model.runs.insert(run, (session, RunStatus::Queued));
                model.sessions[session].queue.push_back(run);
                if starts {
                    model.promote(session);
                }
                if let Some((k, f)) = idempotency {
                    model.keys.insert(k, (run, f));
                }
            }
        }
        (5, _, Some(run)) => {
            let decided = txn.decide(Command::CancelRun { run, reason: None });
            let (session, status) = model.runs[&run];
            if status.is_terminal() {
                assert_eq!(decided, Ok(Decision::Run { run, status, changed: false }));
            } else {
                assert_eq!(decided, Ok(Decision::Run { run, status: RunStatus::Cancelled, changed: true }));
                model.end_run(run, RunStatus::Cancelled);
                model.promote(session);
            }
        }
        (6, Some(session), _) if rng.chance(2) => {
            let decided = txn.decide(Command::InterruptSession { session: session_id(session) });
            let active = model.sessions[session].active;
            assert_eq!(decided, Ok(Decision::Stopped { run: active, cancelled: 0, changed: active.is_some() }));
            if let Some(run) = active {
                model.end_run(run, RunStatus::Interrupted);
                model.promote(session);
            }
        }
        (7, Some(session), _) if rng.chance(12) => {
            let decided = txn.decide(Command::EndSession { session: session_id(session), reason: None });
            let of = model.sessions[session].clone();
            let expected = if of.ended {
                Decision::Stopped { run: None, cancelled: 0, changed: false }
            } else {
                Decision::Stopped { run: of.active, cancelled: of.queue.len() as u32, changed: true }
            };
            assert_eq!(decided, Ok(expected));
            model.sessions[session].ended = true;
            for queued in of.queue {
                model.end_run(queued, RunStatus::Cancelled);
            }
            if let Some(run) = of.active.filter(|_| !of.ended) {
                model.end_run(run, RunStatus::Interrupted);
            }
        }
        (8, ..) if rng.chance(3) => {
            let held = rng.chance(3);
            assert_eq!(txn.decide(Command::SetHold { held, reason: None }), Ok(Decision::Hold { held }));
            model.held = held;
        }
        (9..=11, _, Some(run)) => {
            let fails = rng.chance(4);
            let failure = kheish_daemon::core::Failure { code: "c".to_string(), message: "m".to_string() };
            let outcome = if fails { Outcome::Failed(failure) } else { Outcome::Completed };
            let notes = vec![Note { kind: NoteKind::Output, body: raw("{\"output\":{}}") }];
            let decided = txn.decide(Command::Finish { run, notes, outcome });
            let (session, status) = model.runs[&run];
            if status == RunStatus::Running {
                let status = if fails { RunStatus::Failed } else { RunStatus::Completed };
                assert_eq!(decided, Ok(Decision::Run { run, status, changed: true }));
                model.end_run(run, status);
                model.promote(session);
            } else {
                assert_eq!(decided, Err(Refusal::RunStateConflict { run, status }));
            }
        }
        _ => {}
    }
}

fn check_agreement(state: &State, model: &Model) {
    let counts = state.counts();
    for status in RunStatus::ALL {
        let expected = model.runs.values().filter(|(_, of)| *of == status).count() as u64;
        assert_eq!(counts.status(status), expected, "{status:?}");
    }
    assert_eq!(counts.pending_approvals, model.approvals.values().map(|open| open.len() as u64).sum::<u64>());
    assert_eq!(counts.pending_questions, model.questions.len() as u64);
    assert_eq!(counts.oldest_waiting_approval.is_some(), !model.approvals.is_empty());
    assert_eq!(counts.oldest_waiting_question.is_some(), !model.questions.is_empty());
    for (run, (_, status)) in &model.runs {
        let step = state.step(run.number);
        let open: Vec<String> = step.iter().flat_map(|step| &step.approvals).map(|open| open.id.clone()).collect();
        assert_eq!(open, model.approvals.get(run).cloned().unwrap_or_default(), "{run}");
        assert_eq!(*status == RunStatus::WaitingForApproval, !open.is_empty(), "{run} waits for what is open");
        let question = step.and_then(|step| step.question.as_ref()).map(|open| open.id.clone());
        assert_eq!(question.as_ref(), model.questions.get(run), "{run}");
        assert_eq!(*status == RunStatus::WaitingForUserQuestion, question.is_some(), "{run} waits for what is open");
    }
    assert_eq!(counts.session_queue_runs_max as usize, model.sessions.iter().map(|s| s.queue.len()).max().unwrap_or(0));
    let oldest_queued = model.runs.iter().filter(|(_, (_, of))| *of == RunStatus::Queued).map(|(run, _)| *run).min();
    assert_eq!(counts.oldest_queued.map(|(run, _)| run), oldest_queued);
    for (index, of) in model.sessions.iter().enumerate() {
        let view = state.session_view(&session_id(index)).expect("created");
        assert_eq!((view.active, view.session.ended), (of.active, of.ended));
        for (place, run) in of.queue.iter().enumerate() {
            let position = state.run_position(*run).expect("queued");
            assert_eq!(position.queued_position, Some(place as u32 + 1));
        }
        let mut expected: Vec<RunId> =
            model.runs.iter().filter(|(_, (session, _))| *session == index).map(|(run, _)| *run).collect();
        expected.sort();
        for order in [Order::Ascending, Order::Descending] {
            let mut listed = Vec::new();
            let mut after = None;
            loop {
                let query = RunQuery { session: Some(session_id(index)), order, after, limit: 7 };
                let page = state.run_page(&query);
                assert_eq!(page.total as usize, expected.len());
                listed.extend(page.items.iter().map(|item| item.id));
                after = listed.last().copied();
                if !page.has_more {
                    break;
                }
            }
            if order == Order::Descending {
                listed.reverse();
            }
            assert_eq!(listed, expected);
        }
    }
    for (run, (_, status)) in &model.runs {
        assert_eq!(state.run_position(*run).map(|position| position.status), Some(*status));
    }
}

/// A state folded from the events' written form.
fn folded(log: &[Event]) -> State {
    let mut state = State::default();
    state.open_epoch(7);
    for event in log {
        let body = RawValue::from_string(String::from_utf8(event.body.encode()).expect("UTF-8")).expect("JSON");
        let body = Body::decode(event.body.kind(), &body).expect("own kinds");
        state.replay(&Event { body, ..event.clone() }).expect("own events apply");
    }
    state.finish_replay();
    state
}

fn restored(state: &State) -> State {
    let mut copy = State::default();
    for line in state.freeze().into_lines() {
        copy.restore_line(&line).expect("own lines restore");
    }
    copy.finish_replay();
    copy
}

#[test]
fn the_core_agrees_with_a_plain_model_over_batches_replay_and_snapshot() {
    for seed in seeds(60) {
        let mut rng = Rng::new(seed);
        let mut state = State::default();
        state.open_epoch(7);
        let mut model = Model::default();
        let mut log: Vec<Event> = Vec::new();
        let (mut now_ms, mut seq) = (1_000, 1);
        let signer = SigningKey::from_seed(&[7; 32]);
        println!("replay with KHEISH_SIM_SEED={seed}");
        for _ in 0..120 {
            now_ms += rng.below(50);
            let mut ahead = model.clone();
            let mut txn = Txn::new(&state, now_ms, seq).signed_by(&signer);
            for _ in 0..=rng.below(6) {
                step(&mut rng, &mut txn, &mut ahead);
            }
            let (delta, events) = txn.finish();
            if rng.chance(5) {
                // The write failed: nothing of the batch may remain.
                check_agreement(&state, &model);
                continue;
            }
            seq += events.len() as u64;
            log.extend(events);
            state.absorb(delta);
            model = ahead;
            if state.wants_pump() {
                let mut txn = Txn::new(&state, now_ms, seq).signed_by(&signer);
                txn.decide(Command::Pump { limit: 3 }).expect("never refused");
                let (delta, events) = txn.finish();
                seq += events.len() as u64;
                log.extend(events);
                state.absorb(delta);
                let started: Vec<usize> = (0..model.sessions.len())
                    .filter(|index| model.sessions[*index].active.is_none() && !model.sessions[*index].queue.is_empty())
                    .take(3)
                    .collect();
                started.into_iter().for_each(|index| model.promote(index));
            }
            check_agreement(&state, &model);
        }
        assert!(log.iter().map(|event| event.seq).eq(1..seq), "sequence numbers have no hole and no repeat");
        for copy in [folded(&log), restored(&state)] {
            check_agreement(&copy, &model);
            assert_eq!(copy.runs().iter().collect::<Vec<_>>(), state.runs().iter().collect::<Vec<_>>());
            assert_eq!(copy.counts(), Counts { ready: 0, ..state.counts() });
            for (run, _) in state.runs().iter() {
                assert_eq!(copy.step(run), state.step(run), "the turn at hand of run number {run}");
            }
        }
        check_terminal_states(&log);
        check_chains(&log);
    }
}

fn check_terminal_states(log: &[Event]) {
    let mut ended: HashMap<RunId, &'static str> = HashMap::new();
    for event in log {
        let Some(run) = event.run else { continue };
        let kind = event.body.kind();
        if let Some(earlier) = ended.get(&run) {
            panic!("{run} has {kind} after {earlier}");
        }
        if matches!(kind, "run.completed" | "run.failed" | "run.interrupted" | "run.cancelled") {
            ended.insert(run, kind);
        }
    }
}

/// Following `session_prev` and `run_prev` backwards visits exactly the records of that session and run.
fn check_chains(log: &[Event]) {
    let mut last_of_session: HashMap<SessionId, u64> = HashMap::new();
    let mut last_of_run: HashMap<RunId, u64> = HashMap::new();
    let mut first_of_run: HashMap<RunId, u64> = HashMap::new();
    for event in log {
        if let Some(session) = &event.session {
            let before = last_of_session.insert(session.clone(), event.seq).unwrap_or(0);
            assert_eq!(event.session_prev, before, "session chain at {}", event.seq);
        }
        if let Some(run) = event.run {
            let before = last_of_run.insert(run, event.seq).unwrap_or(0);
            assert_eq!(event.run_prev, before, "run chain at {}", event.seq);
            assert_eq!(event.run_first, first_of_run.get(&run).copied().unwrap_or(0));
            first_of_run.entry(run).or_insert(event.seq);
        }
    }
}

#[test]
fn a_restart_resumes_active_runs_once_and_says_what_it_found() {
    let mut state = State::default();
    state.open_epoch(7);
    let session = session_id(0);
    let submit = || Command::SubmitRun {
        session: session.clone(),
        request: raw("{}"),
        route: "main".to_string(),
        model: "m".to_string(),
        idempotency: None,
        reply_targets: Vec::new(),
    };
    let signer = SigningKey::from_seed(&[7; 32]);
    let mut log = Vec::new();
    let mut txn = Txn::new(&state, 10, 1).signed_by(&signer);
    txn.decide(Command::CreateSession { id: session.clone(), thread_id: None }).expect("created");
    txn.decide(submit()).expect("accepted");
    let run = RunId { number: 1, epoch: 0 };
    let draft = raw(r#"{"action":1,"kind":"model_provider","target":"t"}"#);
    let request = Note { kind: NoteKind::ActionRequest, body: draft };
    txn.decide(Command::Record { run, notes: vec![request] }).expect("recorded");
    let (delta, events) = txn.finish();
    state.absorb(delta);
    assert_eq!(state.take_ready(), Some(1));
    log.extend(events);

    let mut state = folded(&log);
    assert_eq!(state.take_ready(), None, "nothing runs before its resumption is durable");
    assert!(state.wants_pump());
    let mut txn = Txn::new(&state, 20, 10).signed_by(&signer);
    txn.decide(Command::Pump { limit: 10 }).expect("never refused");
    let (delta, events) = txn.finish();
    let bodies: Vec<String> = events.iter().map(|e| String::from_utf8(e.body.encode()).expect("UTF-8")).collect();
    let [closing, resumed] = &bodies[..] else { panic!("{bodies:?}") };
    for part in [
        r#"{"action_id":"action-4","chain":"run-1","index":2,"prev_hash":""#,
        r#""phase":"response","kind":"model_provider","target":"t","action":1,"outcome":"unknown","cause":"restart","#,
    ] {
        assert!(closing.contains(part), "the call in flight has an outcome on record: {closing}");
    }
    assert_eq!(
        resumed, r#"{"submitted_at_ms":10,"started_at_ms":10,"found":"model_call_in_flight"}"#,
        "one resumption, with what was found"
    );
    state.absorb(delta);
    assert!(!state.wants_pump());
    assert_eq!((state.take_ready(), state.take_ready()), (Some(1), None));
}

#[test]
fn runs_of_a_restored_copy_never_share_an_id_with_runs_of_the_original() {
    let mut state = State::default();
    state.open_epoch(100);
    assert_eq!(state.run_id(1).to_string(), "run-1");
    state.open_epoch(100);
    assert_eq!(state.run_id(1).to_string(), "run-1", "a restart in place keeps the epoch");
    state.open_epoch(200);
    assert_eq!(state.run_id(1).to_string(), "run-1-200", "a copy's next run carries its epoch");
    assert_eq!(state.run_number(RunId { number: 1, epoch: 0 }), None);
}

fn call_note(kind: NoteKind, call: &str, idempotent: bool) -> Note {
    Note { kind, body: raw(&format!(r#"{{"call":"{call}","tool":"bash","idempotent":{idempotent}}}"#)) }
}

fn with_active_run(state: &mut State) -> RunId {
    let mut txn = Txn::new(state, 10, 1);
    txn.decide(Command::CreateSession { id: session_id(0), thread_id: None }).expect("created");
    txn.decide(Command::SubmitRun {
        session: session_id(0),
        request: raw("{}"),
        route: "main".to_string(),
        model: "m".to_string(),
        idempotency: None,
        reply_targets: Vec::new(),
    })
    .expect("accepted");
    let (delta, _) = txn.finish();
    state.absorb(delta);
    RunId { number: 1, epoch: 0 }
}

#[test]
fn a_call_starts_once_unless_it_is_idempotent_and_no_model_is_asked_while_one_is_open() {
    let mut state = State::default();
    state.open_epoch(7);
    let run = with_active_run(&mut state);
    let signer = SigningKey::from_seed(&[7; 32]);
    let mut txn = Txn::new(&state, 20, 10).signed_by(&signer);
    let mut record = |notes: Vec<Note>| txn.decide(Command::Record { run, notes });
    let conflict = |reason: &str| Err(Refusal::RecordConflict { run, reason: reason.to_string() });
    let request = || Note { kind: NoteKind::ActionRequest, body: raw("{}") };
    let started = |call: &str, idempotent| call_note(NoteKind::ToolCallStarted, call, idempotent);
    let finished = |call: &str| call_note(NoteKind::ToolCallFinished, call, false);
    record(vec![call_note(NoteKind::PermissionDecided, "a", false), started("a", false), started("b", true)])
        .expect("two calls start");
    assert_eq!(record(vec![started("a", false)]), conflict("call a is started twice"));
    record(vec![started("b", true)]).expect("an idempotent call may start again");
    assert_eq!(record(vec![finished("a"), request()]), conflict("a model call is made while call b has no result"));
    record(vec![finished("a"), finished("b")]).expect("the refused batch left nothing");
    assert_eq!(record(vec![finished("a")]), conflict("call a has two results"));
    assert_eq!(record(vec![started("b", true)]), conflict("call b has ended and is started again"));
    record(vec![request()]).expect("all calls have results");
    record(vec![started("a", false)]).expect("the next turn may use an id again");
    let bad = Note { kind: NoteKind::ToolCallStarted, body: raw("{}") };
    assert_eq!(record(vec![bad]), conflict("tool_call.started: missing field `call` at line 1 column 2"));
    assert_eq!(txn.decide(Command::Suspend { run, notes: vec![] }), conflict("a run waits for nothing"));
}

#[test]
fn a_restart_says_which_calls_are_kept_issued_and_unknown() {
    let mut state = State::default();
    state.open_epoch(7);
    let run = with_active_run(&mut state);
    let mut txn = Txn::new(&state, 20, 10);
    let known = |call| call_note(NoteKind::PermissionDecided, call, false);
    let notes = vec![
        known("done"),
        known("hanging"),
        known("waiting"),
        call_note(NoteKind::ToolCallStarted, "done", false),
        call_note(NoteKind::ToolCallFinished, "done", false),
        call_note(NoteKind::ToolCallStarted, "hanging", false),
    ];
    txn.decide(Command::Record { run, notes }).expect("recorded");
    let (delta, _) = txn.finish();
    state.absorb(delta);
    let mut state = restored(&state);
    state.open_epoch(7);
    let mut txn = Txn::new(&state, 30, 20);
    txn.decide(Command::Pump { limit: 1 }).expect("never refused");
    let (_, events) = txn.finish();
    let Body::RunResumed(resumed) = &events[0].body else { panic!("{events:?}") };
    let expected = CallFindings { kept: 1, issued: 1, unknown: vec!["hanging".to_string()] };
    assert_eq!(resumed.findings, Some(expected));
    let body = String::from_utf8(events[0].body.encode()).expect("UTF-8");
    assert!(body.contains(r#""found":"tool_calls_open","findings":{"kept":1,"issued":1,"unknown":["hanging"]}"#));
}

#[test]
fn a_deadline_denies_an_approval_and_cancels_the_run_of_a_question() {
    for (kind, expected) in [
        (NoteKind::ApprovalRequested, vec!["approval.resolved", "run.continued"]),
        (NoteKind::QuestionAsked, vec!["question.resolved", "run.cancelled"]),
    ] {
        let mut state = State::default();
        state.open_epoch(7);
        let run = with_active_run(&mut state);
        let mut txn = Txn::new(&state, 20, 10);
        let body = raw(r#"{"id":"x","call":"c","tool":"bash","input":{},"expires_at_ms":100}"#);
        txn.decide(Command::Suspend { run, notes: vec![Note { kind, body }] }).expect("waits");
        let (delta, _) = txn.finish();
        state.absorb(delta);
        let state = restored(&state);
        assert!(!state.wants_expiry(99) && state.wants_expiry(100), "{kind:?}");
        let mut txn = Txn::new(&state, 100, 20);
        // Too late by the clock, though nothing has settled it yet.
        let late = if kind == NoteKind::QuestionAsked {
            let answer = Command::ResolveQuestion {
                target: Target::Run(run),
                answer: Box::new(Answer {
                    id: "x".to_string(),
                    answers: Vec::new(),
                    declined: true,
                    justification: None,
                }),
                idempotency: None,
            };
            (txn.decide(answer), Refusal::QuestionExpired("x".to_string()))
        } else {
            let allow =
                Resolution { id: "x".to_string(), allow: true, updated_input: None, justification: None, reason: None };
            let target = Target::Run(run);
            let command = Command::ResolveApprovals { target, resolutions: vec![allow], idempotency: None };
            (txn.decide(command), Refusal::ApprovalNotPending("x".to_string()))
        };
        assert_eq!(late.0, Err(late.1));
        txn.decide(Command::Expire { limit: 10 }).expect("never refused");
        let kinds: Vec<&str> = txn.events().iter().map(|event| event.body.kind()).collect();
        assert_eq!(kinds, expected);
        let (delta, events) = txn.finish();
        assert!(String::from_utf8(events[0].body.encode()).expect("UTF-8").contains(r#""reason":"expired""#));
        let mut state = state;
        state.absorb(delta);
        assert!(!state.wants_expiry(u64::MAX), "nothing is left to expire");
    }
}
