//! What the status tells of waiting runs, on a clock that the test moves.
//! Owns: a core without a disk, in which every kind of waiting is reached by the commands that reach it in the daemon.
//! Never: sleeps.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::groups::{AgentsStatus, DeliveryStatus, HooksStatus, SchedulesStatus};
use super::health::{self, HealthWarning, Severity};
use super::health_codes::{HEALTH_CODES, find};
use super::runs::{RunThresholds, Runs, runs};
use crate::commit::CoreView;
use crate::core::{Command, Decision, Failure, Note, NoteKind, Outcome, State, Txn};
use crate::ids::{RunId, SessionId};
use crate::limits::{QUEUED_RUN_LAG_WARNING_MS, STALE_RUN_WARNING_MS};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const START_MS: u64 = 1_764_057_600_000;

/// A core on a clock that is moved by hand.
struct World {
    state: State,
    now_ms: u64,
    next_seq: u64,
}

impl World {
    fn new() -> Self {
        let mut state = State::default();
        state.open_epoch(1);
        Self { state, now_ms: START_MS, next_seq: 1 }
    }

    fn decide(&mut self, command: Command) -> Decision {
        let mut txn = Txn::new(&self.state, self.now_ms, self.next_seq);
        let decision = txn.decide(command).expect("legal");
        txn.decide(Command::Pump { limit: 100 }).expect("a pump is never refused");
        let (delta, events) = txn.finish();
        self.next_seq += events.len() as u64;
        self.state.absorb(delta);
        decision
    }

    fn submit(&mut self, session: &str) -> RunId {
        let session = SessionId::parse(session).expect("legal");
        if self.state.session_number(&session).is_none() {
            self.decide(Command::CreateSession { id: session.clone(), thread_id: None });
        }
        let request = raw(&json!({}));
        let (route, model) = ("main".to_string(), "m".to_string());
        match self.decide(Command::SubmitRun {
            session,
            request,
            route,
            model,
            idempotency: None,
            reply_targets: Vec::new(),
        }) {
            Decision::Accepted { run, .. } => run,
            other => panic!("{other:?}"),
        }
    }

    /// A run that waits for a person.
    fn ask(&mut self, run: RunId, kind: NoteKind) {
        let decided = Note { kind: NoteKind::PermissionDecided, body: raw(&json!({"call": "c1"})) };
        let asked = Note { kind, body: raw(&json!({"id": format!("ask-{run}"), "call": "c1", "tool": "t"})) };
        self.decide(Command::Suspend { run, notes: vec![decided, asked] });
    }

    fn finish(&mut self, run: RunId, outcome: Outcome) {
        self.decide(Command::Finish { run, notes: Vec::new(), outcome });
    }

    fn note(&mut self, run: RunId) {
        let note = Note { kind: NoteKind::Output, body: raw(&json!({"text": "x"})) };
        self.decide(Command::Record { run, notes: vec![note] });
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
    }

    fn runs(&self) -> Runs {
        let idle_minutes = self.state.idle_minutes().into();
        let view = CoreView { counts: self.state.counts(), idle_minutes, ..CoreView::default() };
        let thresholds = RunThresholds { queued_lag_ms: QUEUED_RUN_LAG_WARNING_MS, stale_ms: STALE_RUN_WARNING_MS };
        runs(&view, thresholds, 0, self.now_ms)
    }

    fn json(&self) -> Value {
        serde_json::to_value(self.runs()).expect("JSON")
    }

    /// Codes and severities of what is found about runs, with the run that each names.
    fn findings(&self) -> Vec<(Severity, &'static str, Option<String>)> {
        health::runs(&self.runs()).into_iter().map(|(severity, code, _, run)| (severity, code, run)).collect()
    }
}

fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).expect("JSON")
}

fn failure() -> Outcome {
    Outcome::Failed(Failure { code: "provider_error".to_string(), message: "m".to_string() })
}

/// What a test expects of `runs`: all zeros and no ages but what it names.
fn expected(fields: &Value) -> Value {
    let mut all = json!({
        "total": 0, "queued": 0, "running": 0, "waiting_for_approval": 0, "waiting_for_user_question": 0,
        "completed": 0, "failed": 0, "interrupted": 0, "cancelled": 0, "in_hand": 0, "ready": 0,
        "pending_approval_count": 0, "pending_question_count": 0, "pending_wait_threshold_ms": 14_400_000,
        "held": false, "copy_held": false, "max_session_queue_depth": 0, "queued_run_lag_threshold_ms": 1_800_000,
        "stale_non_terminal_run_threshold_ms": 1_800_000, "stale_non_terminal_run_count": 0,
    });
    for (name, value) in fields.as_object().expect("fields") {
        all[name] = value.clone();
    }
    all
}

#[test]
fn a_daemon_without_runs_tells_no_ages() {
    assert_eq!(World::new().json(), expected(&json!({})));
}

#[test]
fn every_age_of_a_mixed_state_is_exact() {
    let mut world = World::new();
    let done = world.submit("idle");
    world.finish(done, Outcome::Completed);
    let failed = world.submit("idle");
    world.finish(failed, failure());
    world.pass(1_000);
    let approval = world.submit("approval");
    world.pass(2_000);
    let question = world.submit("question");
    world.pass(3_000);
    let running = world.submit("busy");
    world.pass(4_000);
    let queued = world.submit("busy");
    world.pass(5_000);
    world.submit("busy");
    world.pass(6_000);
    world.ask(approval, NoteKind::ApprovalRequested);
    world.pass(7_000);
    world.ask(question, NoteKind::QuestionAsked);
    world.pass(8_000);
    world.note(running);
    world.pass(9_000);
    let mixed = json!({
        "total": 7, "queued": 2, "running": 1, "waiting_for_approval": 1, "waiting_for_user_question": 1,
        "completed": 1, "failed": 1, "pending_approval_count": 1, "pending_question_count": 1,
        "max_session_queue_depth": 2,
        // The engine was never asked for work, so those that were started wait for one.
        "ready": world.state.counts().ready,
        "oldest_waiting_for_approval_run_id": approval, "oldest_waiting_for_approval_age_ms": 24_000,
        "oldest_waiting_for_user_question_run_id": question, "oldest_waiting_for_user_question_age_ms": 17_000,
        "oldest_queued_run_id": queued, "oldest_queued_run_age_ms": 35_000,
        "oldest_queued_behind_active_run_id": queued, "oldest_queued_behind_active_age_ms": 35_000,
        "oldest_queued_behind_run_id": running, "oldest_queued_behind_run_status": "running",
        "oldest_non_terminal_run_id": approval, "oldest_non_terminal_run_age_ms": 44_000,
        "oldest_idle_non_terminal_run_id": queued, "oldest_non_terminal_run_idle_ms": 35_000,
        "oldest_idle_running_run_id": running, "oldest_running_run_idle_ms": 9_000,
    });
    assert_eq!(world.json(), expected(&mixed));
    assert_eq!(world.findings(), [(Severity::Info, "failed_runs", None)], "a run that failed is history");
}

#[test]
fn ages_survive_a_replay() {
    let mut world = World::new();
    let mut replayed = State::default();
    replayed.open_epoch(1);
    let mut apply = |world: &mut World, command: Command| {
        let mut txn = Txn::new(&world.state, world.now_ms, world.next_seq);
        txn.decide(command).expect("legal");
        txn.decide(Command::Pump { limit: 100 }).expect("a pump is never refused");
        let (delta, events) = txn.finish();
        world.next_seq += events.len() as u64;
        world.state.absorb(delta);
        events.iter().for_each(|event| replayed.replay(event).expect("what was written"));
    };
    let session = SessionId::parse("s").expect("legal");
    apply(&mut world, Command::CreateSession { id: session.clone(), thread_id: None });
    for _ in 0..3 {
        world.pass(10_000);
        let (route, model) = ("main".to_string(), "m".to_string());
        let request = raw(&json!({}));
        let session = session.clone();
        apply(
            &mut world,
            Command::SubmitRun { session, request, route, model, idempotency: None, reply_targets: Vec::new() },
        );
    }
    let (live, mut again) = (world.state.counts(), replayed.counts());
    again.ready = live.ready;
    assert_eq!(again, live);
    assert_eq!(replayed.idle_minutes(), world.state.idle_minutes());
}

#[test]
fn lag_is_listed_from_its_threshold_and_unhealthy_from_the_page_threshold_on() {
    let mut world = World::new();
    let first = world.submit("s");
    let queued = world.submit("s");
    let lag = |severity, run: RunId| (severity, "queued_run_lag", Some(run.to_string()));
    let stale = |severity, run: RunId| (severity, "stale_non_terminal_runs", Some(run.to_string()));
    world.pass(30 * MINUTE_MS);
    assert_eq!(world.findings(), []);
    world.pass(1);
    assert_eq!(world.findings(), [lag(Severity::Info, queued), stale(Severity::Info, first)]);
    // Its own event ends the silence of the active run, not the lag of what waits behind it.
    world.pass(HOUR_MS);
    world.note(first);
    assert_eq!(world.findings(), [lag(Severity::Info, queued), stale(Severity::Info, queued)]);
    world.pass(30 * MINUTE_MS);
    assert_eq!(world.findings()[0], lag(Severity::Warning, queued));
    world.pass(6 * HOUR_MS);
    assert_eq!(world.findings(), [lag(Severity::Warning, queued), stale(Severity::Warning, first)]);
    world.finish(first, Outcome::Completed);
    // What was queued runs now, and began to do so just now.
    assert_eq!(world.findings(), []);
}

#[test]
fn a_run_that_waits_for_a_person_is_neither_silent_nor_late_before_its_own_thresholds() {
    for (kind, code) in
        [(NoteKind::ApprovalRequested, "pending_approval_lag"), (NoteKind::QuestionAsked, "pending_question_lag")]
    {
        let mut world = World::new();
        let run = world.submit("s");
        world.ask(run, kind);
        let pending = |severity| (severity, code, Some(run.to_string()));
        let stale = (Severity::Info, "stale_non_terminal_runs", Some(run.to_string()));
        world.pass(4 * HOUR_MS);
        assert_eq!(world.findings(), std::slice::from_ref(&stale));
        world.pass(1);
        assert_eq!(world.findings(), [stale.clone(), pending(Severity::Info)]);
        world.pass(20 * HOUR_MS);
        assert_eq!(world.findings(), [stale, pending(Severity::Warning)]);
        let (target, reason) = (run, None);
        world.decide(Command::CancelRun { run: target, reason });
        assert_eq!(world.findings(), []);
    }
}

#[test]
fn a_held_daemon_lists_no_lag() {
    let mut world = World::new();
    world.decide(Command::SetHold { held: true, reason: None });
    world.submit("s");
    world.pass(50 * HOUR_MS);
    assert_eq!(world.findings(), [(Severity::Info, "execution_held", None)]);
}

#[test]
fn what_a_copied_root_brought_is_information_however_old_it_is_and_new_lag_counts_once_it_is_released() {
    let mut world = World::new();
    world.submit("s");
    world.submit("s");
    let asks = world.submit("t");
    world.ask(asks, NoteKind::ApprovalRequested);
    world.pass(50 * HOUR_MS);
    let severe =
        |world: &World| world.findings().into_iter().filter(|(severity, ..)| *severity != Severity::Info).count();
    assert_eq!(severe(&world), 3, "{:?}", world.findings());
    world.state.open_epoch(2);
    world.state.finish_replay();
    let held = (Severity::Info, "copied_runs_held", None);
    assert_eq!(world.findings(), [(Severity::Info, "pending_approval_lag", Some(asks.to_string())), held]);
    world.decide(Command::SetHold { held: false, reason: None });
    assert!(world.findings().iter().all(|(_, code, _)| *code != "copied_runs_held"));
    assert!(severe(&world) > 0, "{:?}", world.findings());
}

#[test]
fn stale_runs_are_named_idlest_first_and_counted() {
    let mut world = World::new();
    let mut ids = Vec::new();
    for number in 0..8 {
        ids.push(world.submit(&format!("s{number}")));
        world.pass(2 * MINUTE_MS);
    }
    world.note(ids[0]);
    world.pass(STALE_RUN_WARNING_MS);
    let runs = world.json();
    assert_eq!(runs["stale_non_terminal_run_ids"], json!(ids[1..6]));
    assert_eq!(runs["stale_non_terminal_run_count"], 7);
    assert_eq!(runs["oldest_non_terminal_run_idle_ms"], STALE_RUN_WARNING_MS + 14 * MINUTE_MS);
}

#[test]
fn groups_are_judged_by_their_figures_and_zeros_find_nothing() {
    let mut found = Vec::new();
    health::agents(&AgentsStatus::default(), &mut found);
    health::schedules(&SchedulesStatus::default(), &mut found);
    health::delivery(&DeliveryStatus::default(), &mut found);
    health::hooks(&HooksStatus::default(), 0, &mut found);
    assert_eq!(found, []);

    let text = |text: &str| Some(text.to_string());
    health::agents(
        &AgentsStatus {
            failed: 1,
            audit_sink_error_count: 2,
            last_audit_sink_error: text("full"),
            ..Default::default()
        },
        &mut found,
    );
    health::schedules(
        &SchedulesStatus {
            backoff_count: 1,
            oldest_due_schedule_lag_ms: Some(120_001),
            oldest_due_schedule_id: text("daily"),
            ..Default::default()
        },
        &mut found,
    );
    let due = DeliveryStatus { supported: true, pending: 1, ..Default::default() };
    let trouble = DeliveryStatus {
        unresolved_dead_lettered: 1,
        status_error: text("unreadable"),
        blocked_target_count: 1,
        open_circuit_target_count: 1,
        worker_heartbeat_at_ms: Some(1),
        worker_lag_ms: Some(120_001),
        ..due.clone()
    };
    health::delivery(&due, &mut found);
    health::delivery(&trouble, &mut found);
    let hooks = HooksStatus {
        unresolved_dead_lettered_count: 1,
        last_unresolved_dead_letter_hook: text("notify"),
        dead_letter_persist_failure_count: 1,
        dead_letter_read_error: text("denied"),
        dead_letter_store_path: text("/store"),
        ..Default::default()
    };
    health::hooks(&hooks, 0, &mut found);
    health::hooks(&hooks, 1, &mut found);
    let seen: Vec<(Severity, &str, Option<&str>)> =
        found.iter().map(|(severity, code, _, related)| (*severity, *code, related.as_deref())).collect();
    use Severity::{Error, Info, Warning};
    let expected = [
        (Info, "failed_agents", None),
        (Warning, "agent_supervisor_audit_sink_errors", Some("full")),
        (Info, "schedule_retry_backoff", None),
        (Warning, "scheduler_lag", Some("daily")),
        (Error, "delivery_worker_not_running", None),
        (Warning, "delivery_dead_letters", None),
        (Error, "delivery_status_unavailable", None),
        (Info, "delivery_targets_blocked", None),
        (Warning, "delivery_target_circuit_open", None),
        (Warning, "delivery_worker_stale", None),
        (Warning, "hook_dead_letters", Some("notify")),
        (Info, "hook_dead_letter_persist_failures", None),
        (Warning, "hook_dead_letter_store_unreadable", Some("/store")),
        (Warning, "hook_dead_letters", Some("notify")),
        (Warning, "hook_dead_letter_persist_failures", None),
        (Warning, "hook_dead_letter_store_unreadable", Some("/store")),
    ];
    assert_eq!(seen, expected);
}

/// Every source file but the table itself.
fn sources(directory: &std::path::Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !path.ends_with("status/health_codes.rs")
            && !path.ends_with("status/tests.rs")
        {
            let text = std::fs::read_to_string(&path).expect("a source");
            // Routes files and reports of the command line have severities of their own.
            found.extend(Some(text).filter(|text| text.contains("HealthWarning")));
        }
    }
}

#[test]
fn what_the_code_raises_and_what_the_table_lists_are_the_same() {
    let mut texts = Vec::new();
    sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut texts);
    let raised = regex_lite::Regex::new(r#"Severity::(Info|Warning|Error),\s*"([a-z_]+)""#).expect("a pattern");
    // One severity for all that follows: lag, whose severity rises with its age.
    let computed = regex_lite::Regex::new(r#"severity(?:\([^"]*\))?, "([a-z_]+)""#).expect("a pattern");
    let mut seen = std::collections::BTreeSet::new();
    for text in &texts {
        for capture in raised.captures_iter(text) {
            let severity = match &capture[1] {
                "Info" => Severity::Info,
                "Warning" => Severity::Warning,
                _ => Severity::Error,
            };
            let row = find(&capture[2]).unwrap_or_else(|| panic!("{} is in no row", &capture[2]));
            assert!(row.severities.contains(&severity), "{} is not raised as {severity:?}", row.code);
            seen.insert((row.code, severity.as_str()));
        }
        for row in computed.captures_iter(text).filter_map(|capture| find(&capture[1])) {
            seen.extend(row.severities.iter().map(|severity| (row.code, severity.as_str())));
        }
    }
    // Raised under the code of the problem that makes `/readyz` fail.
    for code in ["daemon_draining", "journal_poisoned", "component_failed"] {
        seen.insert((code, "error"));
    }
    for row in HEALTH_CODES {
        for severity in row.severities {
            assert!(seen.contains(&(row.code, severity.as_str())), "nothing raises {} as {severity:?}", row.code);
        }
    }
}

#[test]
fn a_finding_takes_its_action_from_the_table() {
    let finding = HealthWarning::of(Severity::Info, "execution_held", "m".to_string(), None);
    let expected = json!({"severity": "info", "code": "execution_held", "message": "m",
                          "action": "`kheish-daemon runtime release`"});
    assert_eq!(serde_json::to_value(finding).expect("JSON"), expected);
}
