//! Runtime configuration in the core: revisions, conflicts, rollback, windows, containment, replay and snapshots.
//! Owns: the checks of what `Txn` and `State` promise of it. Never: looks at HTTP.

use kheish_daemon::core::{
    Body, ChangeSource, Command, DebugLevel, Decision, Event, Note, NoteKind, Refusal, RoutePolicy, RunStatus,
    RuntimeConfig, RuntimeEdit, RuntimeInvalid, SessionChange, State, SystemPrompt, ToolLimits, Txn,
};
use kheish_daemon::ids::{RunId, SessionId};
use kheish_daemon::permissions::{Behavior, Mode, Rule, RuleScope};
use serde_json::value::RawValue;

#[path = "support/rng.rs"]
mod rng;

use rng::Rng;

/// A state with a clock and the log that made it.
#[derive(Default)]
struct World {
    state: State,
    now_ms: u64,
    seq: u64,
    log: Vec<Event>,
}

impl World {
    fn new() -> Self {
        Self { now_ms: 1_000, seq: 1, ..Self::default() }
    }

    fn decide(&mut self, command: Command) -> Result<Decision, Refusal> {
        let mut txn = Txn::new(&self.state, self.now_ms, self.seq);
        let decision = txn.decide(command);
        let (delta, events) = txn.finish();
        assert!(decision.is_ok() || events.is_empty(), "a refusal leaves nothing behind");
        self.seq += events.len() as u64;
        self.state.absorb(delta);
        // What is written is what is read back.
        self.log.extend(events.into_iter().map(|event| {
            let body = RawValue::from_string(String::from_utf8(event.body.encode()).expect("UTF-8"));
            let body = Body::decode(event.body.kind(), &body.expect("JSON")).expect("our own record");
            Event { body, ..event }
        }));
        decision
    }

    fn edit(&mut self, edit: RuntimeEdit) -> Result<Decision, Refusal> {
        self.decide(Command::ChangeRuntime { edit, expected_revision: None })
    }

    fn config(&self) -> RuntimeConfig {
        RuntimeConfig::clone(self.state.runtime())
    }

    fn mode(&mut self, mode: Mode) {
        self.edit(RuntimeEdit::PermissionMode(mode)).expect("legal");
    }

    fn debug(&mut self, level: DebugLevel, ttl_ms: Option<u64>) -> Result<Decision, Refusal> {
        self.edit(RuntimeEdit::DebugLevel { level, ttl_ms, ticket: Some("OPS-7".to_string()) })
    }

    /// The same state, once by replay and once by a snapshot.
    fn twins(&self) -> [State; 2] {
        let mut replayed = State::default();
        for event in &self.log {
            replayed.replay(event).expect("our own log");
        }
        let mut restored = State::default();
        for line in self.state.freeze().into_lines() {
            restored.restore_line(&line).expect("our own snapshot");
        }
        [replayed, restored]
    }

    fn assert_twins_agree(&self) {
        for twin in self.twins() {
            let of = |state: &State| {
                let config = state.runtime();
                let history: Vec<_> = config.history().iter().map(|revision| (**revision).clone()).collect();
                (config.current().clone(), history, config.policy().revision())
            };
            assert_eq!(of(&twin), of(&self.state));
            let own = |state: &State| {
                state.own_settings().map(|(id, settings)| (id.clone(), settings.clone())).collect::<Vec<_>>()
            };
            assert_eq!(own(&twin), own(&self.state));
        }
    }
}

fn session(id: &str) -> SessionId {
    SessionId::parse(id).expect("legal")
}

fn rule(scope: RuleScope, pattern: &str, behavior: Behavior) -> Rule {
    Rule { scope, tool_name_pattern: pattern.to_string(), argument: None, behavior, reason: None }
}

#[test]
fn a_change_is_one_more_revision_and_no_change_is_none() {
    let mut world = World::new();
    assert_eq!(world.config().current().revision, 0);
    let set = |world: &mut World, mode| world.edit(RuntimeEdit::PermissionMode(mode)).expect("legal");
    assert_eq!(set(&mut world, Mode::DontAsk), Decision::Runtime { revision: 1, changed: true, settled: 0 });
    assert_eq!(set(&mut world, Mode::DontAsk), Decision::Runtime { revision: 1, changed: false, settled: 0 });
    assert_eq!(set(&mut world, Mode::Default), Decision::Runtime { revision: 2, changed: true, settled: 0 });
    let kept: Vec<u64> = world.config().history().iter().map(|revision| revision.revision).collect();
    assert_eq!(kept, [0, 1]);
    assert_eq!(world.config().revision(1).expect("kept").settings.permission_mode, Mode::DontAsk);
    world.assert_twins_agree();
}

#[test]
fn an_outdated_expectation_is_refused_and_changes_nothing() {
    let mut world = World::new();
    world.mode(Mode::Plan);
    for (edit, expected) in [
        (RuntimeEdit::PermissionMode(Mode::BypassPermissions), 0),
        (RuntimeEdit::PermissionMode(Mode::Plan), 2),
        (RuntimeEdit::Rollback { target_revision: None }, 7),
        (RuntimeEdit::DebugLevel { level: DebugLevel::Full, ttl_ms: None, ticket: None }, 0),
    ] {
        let decided = world.decide(Command::ChangeRuntime { edit, expected_revision: Some(expected) });
        assert_eq!(decided, Err(Refusal::RuntimeRevisionConflict { expected, current: 1 }));
    }
    let edit = RuntimeEdit::PermissionMode(Mode::Default);
    assert!(world.decide(Command::ChangeRuntime { edit, expected_revision: Some(1) }).is_ok());
}

#[test]
fn a_rollback_brings_settings_back_but_never_raises_the_debug_level() {
    let mut world = World::new();
    assert_eq!(
        world.edit(RuntimeEdit::Rollback { target_revision: None }),
        Err(Refusal::RuntimeRevisionNotFound(None)),
        "nothing is before the beginning"
    );
    world.edit(RuntimeEdit::Model { route_id: Some("a".to_string()), model: Some("m".to_string()) }).expect("legal");
    world.debug(DebugLevel::Full, Some(5_000)).expect("legal");
    world.mode(Mode::DontAsk);
    world.edit(RuntimeEdit::DebugLevel { level: DebugLevel::Off, ttl_ms: None, ticket: None }).expect("legal");
    // Revision 2 had the level full.
    world.edit(RuntimeEdit::Rollback { target_revision: Some(2) }).expect("kept");
    let config = world.config();
    assert_eq!((config.current().revision, config.current().rollback_of_revision), (5, Some(2)));
    assert_eq!(config.settings().permission_mode, Mode::Default);
    assert_eq!(config.settings().model.as_deref(), Some("m"));
    assert_eq!(config.settings().debug.level, DebugLevel::Off);
    // Without a target it is the one before.
    world.edit(RuntimeEdit::Rollback { target_revision: None }).expect("kept");
    assert_eq!(world.config().settings().permission_mode, Mode::DontAsk);
    assert_eq!(
        world.edit(RuntimeEdit::Rollback { target_revision: Some(99) }),
        Err(Refusal::RuntimeRevisionNotFound(Some(99)))
    );
    world.assert_twins_agree();
}

#[test]
fn the_history_is_bounded_and_forgets_the_oldest() {
    let mut world = World::new();
    for n in 0..200u64 {
        world.mode(if n % 2 == 0 { Mode::Plan } else { Mode::Default });
    }
    let config = world.config();
    assert_eq!(config.history().len(), 64);
    assert_eq!(config.history()[0].revision, 136);
    assert_eq!(
        world.edit(RuntimeEdit::Rollback { target_revision: Some(135) }),
        Err(Refusal::RuntimeRevisionNotFound(Some(135)))
    );
    assert!(world.edit(RuntimeEdit::Rollback { target_revision: Some(136) }).is_ok());
    world.assert_twins_agree();
}

#[test]
fn a_debug_window_ends_by_itself_and_stays_ended() {
    let mut world = World::new();
    world.debug(DebugLevel::Redacted, None).expect("legal");
    assert_eq!(world.config().settings().debug.until_ms, None);
    assert!(!world.state.wants_expiry(u64::MAX), "only full has a window of its own");
    world.debug(DebugLevel::Full, None).expect("legal");
    assert_eq!(world.config().settings().debug.until_ms, Some(1_000 + 30 * 60 * 1_000));
    world.debug(DebugLevel::Full, Some(60_000)).expect("legal");
    let debug = world.config().settings().debug.clone();
    assert_eq!((debug.since_ms, debug.until_ms, debug.ticket.as_deref()), (Some(1_000), Some(61_000), Some("OPS-7")));
    // What holds is told by the clock, not by the record of the end.
    assert_eq!((debug.at(60_999), debug.at(61_000)), (DebugLevel::Full, DebugLevel::Off));
    assert!(!world.state.wants_expiry(60_999) && world.state.wants_expiry(61_000));
    world.now_ms = 70_000;
    world.decide(Command::Expire { limit: 10 }).expect("never refused");
    let config = world.config();
    assert_eq!((config.current().revision, config.current().source), (4, ChangeSource::Expiry));
    assert_eq!(config.settings().debug.level, DebugLevel::Off);
    assert!(!world.state.wants_expiry(u64::MAX));
    world.decide(Command::Expire { limit: 10 }).expect("never refused");
    assert_eq!(world.config().current().revision, 4, "once");
    world.assert_twins_agree();
    for (level, ttl_ms) in [
        (DebugLevel::Off, Some(1)),
        (DebugLevel::Full, Some(0)),
        (DebugLevel::On, Some(24 * 60 * 60 * 1_000 + 1)),
        (DebugLevel::Full, Some(u64::MAX)),
    ] {
        assert_eq!(world.debug(level, ttl_ms), Err(Refusal::RuntimeInvalid(RuntimeInvalid::DebugWindow)), "{level:?}");
    }
}

#[test]
fn settings_that_cannot_hold_are_refused_with_their_field() {
    let mut world = World::new();
    let limits = ToolLimits { max_parallel_tools: 0, ..ToolLimits::default() };
    let refused = world.edit(RuntimeEdit::ToolLimits(limits)).expect_err("zero").to_string();
    assert!(refused.contains("max_parallel_tools") && refused.contains("next: "), "{refused}");
    let limits = ToolLimits { max_output_bytes: u64::MAX, ..ToolLimits::default() };
    assert!(world.edit(RuntimeEdit::ToolLimits(limits)).is_err());
    for prompt in [
        SystemPrompt { custom_prompt: Some(String::new()), ..SystemPrompt::default() },
        SystemPrompt { append_prompt: Some("x".repeat(65_537)), ..SystemPrompt::default() },
        SystemPrompt { language: Some("a\nb".to_string()), ..SystemPrompt::default() },
        SystemPrompt { override_prompt: Some("a\u{1b}b".to_string()), ..SystemPrompt::default() },
    ] {
        assert!(world.edit(RuntimeEdit::SystemPrompt(prompt)).is_err());
    }
    let put = |scope, rules| RuntimeEdit::PermissionRules { scope, rules };
    use RuleScope::{Project, Session, User};
    for rules in [
        put(None, vec![rule(Session, "bash", Behavior::Deny)]),
        put(Some(User), vec![rule(Project, "bash", Behavior::Deny)]),
        put(None, vec![rule(User, "a*b", Behavior::Deny)]),
        put(None, vec![rule(User, "bash", Behavior::Deny), rule(User, "bash", Behavior::Allow)]),
        put(None, (0..257).map(|n| rule(User, &format!("t{n}"), Behavior::Deny)).collect()),
    ] {
        assert!(matches!(world.edit(rules), Err(Refusal::RuntimeInvalid(RuntimeInvalid::Rules(_)))));
    }
    let long = |n: usize| Rule { reason: Some("\"".repeat(512)), ..rule(User, &format!("t{n}"), Behavior::Deny) };
    let prompt = "\"".repeat(65_536);
    world
        .edit(RuntimeEdit::SystemPrompt(SystemPrompt {
            custom_prompt: Some(prompt.clone()),
            append_prompt: Some(prompt),
            ..SystemPrompt::default()
        }))
        .expect("262 KiB as JSON");
    let many = put(None, (0..256).map(long).collect());
    assert_eq!(world.edit(many), Err(Refusal::RuntimeInvalid(RuntimeInvalid::Size)));
    assert_eq!(world.config().current().revision, 1);
}

#[test]
fn rules_of_one_scope_are_replaced_without_touching_the_other() {
    let mut world = World::new();
    use RuleScope::{Project, User};
    let (one, two) = (rule(User, "bash", Behavior::Deny), rule(Project, "mcp__*", Behavior::Allow));
    let put = |world: &mut World, scope, rules| {
        world.edit(RuntimeEdit::PermissionRules { scope, rules }).expect("legal");
    };
    put(&mut world, None, vec![one.clone(), two.clone()]);
    put(&mut world, Some(User), vec![]);
    assert_eq!(world.config().settings().permission_rules, std::slice::from_ref(&two));
    put(&mut world, Some(User), vec![one.clone()]);
    assert_eq!(world.config().settings().permission_rules, [two, one]);
    world.assert_twins_agree();
}

#[test]
fn a_sessions_own_settings_are_kept_and_taken_back() {
    let mut world = World::new();
    let id = session("ops");
    world.decide(Command::CreateSession { id: id.clone(), thread_id: None }).expect("legal");
    let update = |world: &mut World, change| world.decide(Command::UpdateSession { session: session("ops"), change });
    let changed = |changed| Ok(Decision::SessionUpdated { changed, settled: 0 });
    assert_eq!(update(&mut world, SessionChange::PermissionMode(Some(Mode::Plan))), changed(true));
    assert_eq!(update(&mut world, SessionChange::PermissionMode(Some(Mode::Plan))), changed(false));
    let own = vec![rule(RuleScope::Session, "bash", Behavior::Deny)];
    assert_eq!(update(&mut world, SessionChange::PermissionRules(own.clone())), changed(true));
    let policy = RoutePolicy { route_id: Some("a".to_string()), model: None };
    assert_eq!(update(&mut world, SessionChange::RoutePolicy(Some(policy.clone()))), changed(true));
    world.assert_twins_agree();
    let settings = world.state.own_settings().next().map(|(_, settings)| settings.clone()).expect("some");
    assert_eq!(
        (settings.permission_mode, settings.permission_rules, settings.route_policy),
        (Some(Mode::Plan), own, Some(policy))
    );
    let foreign = vec![rule(RuleScope::User, "bash", Behavior::Allow)];
    assert!(
        update(&mut world, SessionChange::PermissionRules(foreign)).is_err(),
        "a session cannot write for the user"
    );
    let empty = RoutePolicy { route_id: Some(String::new()), model: None };
    assert!(update(&mut world, SessionChange::RoutePolicy(Some(empty))).is_err());
    for change in [
        SessionChange::PermissionMode(None),
        SessionChange::PermissionRules(Vec::new()),
        SessionChange::RoutePolicy(None),
    ] {
        assert_eq!(update(&mut world, change), changed(true));
    }
    assert_eq!(world.state.own_settings().count(), 0, "nothing of its own is nothing kept");
    world.assert_twins_agree();
    let unknown = Command::UpdateSession { session: session("x"), change: SessionChange::PermissionMode(None) };
    assert_eq!(world.decide(unknown), Err(Refusal::SessionNotFound(session("x"))));
}

#[test]
fn only_what_takes_away_is_containment() {
    let edit = |edit| Command::ChangeRuntime { edit, expected_revision: None }.is_containment();
    let debug = |level| RuntimeEdit::DebugLevel { level, ttl_ms: None, ticket: None };
    assert!(edit(RuntimeEdit::PermissionMode(Mode::DontAsk)) && edit(debug(DebugLevel::Off)));
    assert!(
        !edit(RuntimeEdit::PermissionMode(Mode::Default))
            && !edit(RuntimeEdit::PermissionMode(Mode::BypassPermissions))
    );
    assert!(!edit(debug(DebugLevel::On)) && !edit(RuntimeEdit::Rollback { target_revision: None }));
    let own = |mode| {
        Command::UpdateSession { session: session("a"), change: SessionChange::PermissionMode(mode) }.is_containment()
    };
    assert!(own(Some(Mode::DontAsk)) && !own(Some(Mode::Default)) && !own(None));
}

#[test]
fn a_prompt_is_rendered_as_its_parts_say() {
    let prompt = |text: &str| serde_json::from_str::<SystemPrompt>(text).expect("a prompt");
    assert_eq!(prompt("{}").render(None), None);
    assert_eq!(prompt("{}").render(Some("own")).as_deref(), Some("own"));
    assert_eq!(prompt(r#"{"custom_prompt":"c","append_prompt":"a"}"#).render(Some("own")).as_deref(), Some("c\n\na"));
    assert_eq!(
        prompt(r#"{"language":"de","output_style":"terse","append_prompt":"a"}"#).render(Some("own")).as_deref(),
        Some("own\n\nAnswer in this language: de.\n\nAnswer in this style: terse.\n\na")
    );
    let all = r#"{"override_prompt":"o","custom_prompt":"c","append_prompt":"a","language":"de"}"#;
    assert_eq!(prompt(all).render(Some("own")).as_deref(), Some("o"));
}

impl World {
    /// A session with a run that waits for an approval.
    fn waiting(&mut self, name: &str) -> RunId {
        self.decide(Command::CreateSession { id: session(name), thread_id: None }).expect("legal");
        let run = self.running(name);
        assert_eq!(self.suspend(run), RunStatus::WaitingForApproval);
        run
    }

    fn running(&mut self, name: &str) -> RunId {
        let submit = Command::SubmitRun {
            session: session(name),
            request: raw("{}"),
            route: "main".to_string(),
            model: "m".to_string(),
            idempotency: None,
            reply_targets: Vec::new(),
        };
        match self.decide(submit) {
            Ok(Decision::Accepted { run, .. }) => run,
            other => panic!("{other:?}"),
        }
    }

    /// What an engine does whose verdict was an ask; what became of the run.
    fn suspend(&mut self, run: RunId) -> RunStatus {
        let asked = format!(r#"{{"id":"approval-{run}","call":"c","tool":"bash","input":{{}}}}"#);
        let notes = vec![Note { kind: NoteKind::ApprovalRequested, body: raw(&asked) }];
        match self.decide(Command::Suspend { run, notes }) {
            Ok(Decision::Run { status, .. }) => status,
            other => panic!("{other:?}"),
        }
    }

    fn status(&self, run: RunId) -> RunStatus {
        self.state.run_position(run).expect("accepted").status
    }

    /// Reasons of the approvals that were resolved.
    fn reasons(&self) -> Vec<String> {
        let reason = |event: &Event| match &event.body {
            Body::ApprovalResolved(resolved) => resolved.reason.clone(),
            _ => None,
        };
        self.log.iter().filter_map(reason).collect()
    }
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_string()).expect("JSON")
}

#[test]
fn a_call_that_was_judged_before_the_mode_changed_does_not_wait_after_it() {
    let mut world = World::new();
    for name in ["global", "own", "loose", "planning"] {
        world.decide(Command::CreateSession { id: session(name), thread_id: None }).expect("legal");
    }
    let own = |world: &mut World, name: &str, mode| {
        let change = SessionChange::PermissionMode(Some(mode));
        world.decide(Command::UpdateSession { session: session(name), change }).expect("legal");
    };
    let run = world.running("own");
    own(&mut world, "own", Mode::DontAsk);
    assert_eq!(world.suspend(run), RunStatus::Running, "denied in the same batch");
    let runs = ["global", "loose", "planning"].map(|name| world.running(name));
    own(&mut world, "loose", Mode::BypassPermissions);
    own(&mut world, "planning", Mode::Plan);
    world.mode(Mode::DontAsk);
    for run in runs {
        assert_eq!(world.suspend(run), RunStatus::Running);
    }
    assert_eq!(world.reasons(), ["permission_mode_dont_ask"; 4]);
    world.mode(Mode::Default);
    let run = world.waiting("later");
    assert_eq!(world.status(run), RunStatus::WaitingForApproval);
    world.assert_twins_agree();
}

#[test]
fn however_many_wait_containment_is_one_small_batch_and_the_rest_follows() {
    let mut world = World::new();
    let runs: Vec<RunId> = (0..600).map(|number| world.waiting(&format!("s{number}"))).collect();
    let Ok(Decision::Runtime { changed: true, settled: 256, .. }) =
        world.edit(RuntimeEdit::PermissionMode(Mode::DontAsk))
    else {
        panic!("256 at once")
    };
    for left in [344, 88, 0] {
        let waiting = runs.iter().filter(|run| world.status(**run) == RunStatus::WaitingForApproval).count();
        assert_eq!(waiting, left);
        assert_eq!(world.state.wants_expiry(world.now_ms), left > 0, "nobody has to ask for the rest");
        world.decide(Command::Expire { limit: 256 }).expect("never refused");
    }
    assert_eq!(world.reasons().len(), 600);
    // Where the mode is taken back before, what still waits goes on waiting.
    let mut world = World::new();
    let runs: Vec<RunId> = (0..300).map(|number| world.waiting(&format!("s{number}"))).collect();
    world.mode(Mode::DontAsk);
    world.mode(Mode::Default);
    assert!(!world.state.wants_expiry(world.now_ms));
    assert_eq!(runs.iter().filter(|run| world.status(**run) == RunStatus::WaitingForApproval).count(), 44);
    world.assert_twins_agree();
}

#[test]
fn evidence_is_held_and_let_go_and_only_of_runs_that_exist() {
    let mut world = World::new();
    let run = world.waiting("ops");
    let hold = |world: &mut World, run, held| {
        world.decide(Command::SetRetentionHold { run, held, reason: Some("case 12".to_string()) })
    };
    assert_eq!(hold(&mut world, run, true), Ok(Decision::RetentionHold { held: true, changed: true }));
    assert_eq!(hold(&mut world, run, true), Ok(Decision::RetentionHold { held: true, changed: false }));
    world.decide(Command::CancelRun { run, reason: None }).expect("legal");
    let held = |state: &State| -> Vec<(RunId, Option<String>)> {
        state.retention_holds().map(|(run, hold)| (run, hold.reason.clone())).collect()
    };
    let expected = [(run, Some("case 12".to_string()))];
    assert_eq!(held(&world.state), expected, "also when the run has ended");
    for twin in world.twins() {
        assert_eq!(held(&twin), expected);
    }
    assert_eq!(hold(&mut world, run, false), Ok(Decision::RetentionHold { held: false, changed: true }));
    for twin in world.twins() {
        assert_eq!(held(&twin), []);
    }
    let unknown = RunId { number: 99, epoch: 0 };
    assert_eq!(hold(&mut world, unknown, true), Err(Refusal::RunNotFound(unknown)));
}

#[test]
fn random_changes_fold_to_the_same_state_by_every_way() {
    for seed in rng::seeds(200) {
        let mut rng = Rng::new(seed);
        let mut world = World::new();
        for id in ["a", "b"] {
            world.decide(Command::CreateSession { id: session(id), thread_id: None }).expect("legal");
        }
        for _ in 0..rng.below(60) {
            world.now_ms += rng.below(100_000);
            let mode = Mode::ALL[rng.below(5) as usize];
            let level =
                [DebugLevel::Off, DebugLevel::On, DebugLevel::Redacted, DebugLevel::Full][rng.below(4) as usize];
            let id = session(["a", "b", "none"][rng.below(3) as usize]);
            let command = match rng.below(9) {
                0 | 1 => Command::ChangeRuntime { edit: RuntimeEdit::PermissionMode(mode), expected_revision: None },
                2 => Command::ChangeRuntime {
                    edit: RuntimeEdit::DebugLevel {
                        level,
                        ttl_ms: rng.chance(2).then(|| rng.below(200_000)),
                        ticket: None,
                    },
                    expected_revision: rng.chance(4).then(|| rng.below(30)),
                },
                3 => Command::ChangeRuntime {
                    edit: RuntimeEdit::Rollback { target_revision: rng.chance(2).then(|| rng.below(40)) },
                    expected_revision: None,
                },
                4 => Command::ChangeRuntime {
                    edit: RuntimeEdit::PermissionRules {
                        scope: None,
                        rules: vec![rule(RuleScope::User, "bash", Behavior::Deny); rng.below(3) as usize],
                    },
                    expected_revision: None,
                },
                5 => Command::Expire { limit: 10 },
                6 | 7 => Command::UpdateSession {
                    session: id,
                    change: SessionChange::PermissionMode(rng.chance(2).then_some(mode)),
                },
                _ => Command::UpdateSession {
                    session: id,
                    change: SessionChange::RoutePolicy(
                        rng.chance(2).then(|| RoutePolicy { route_id: Some("r".to_string()), model: None }),
                    ),
                },
            };
            drop(world.decide(command));
        }
        world.assert_twins_agree();
    }
}
