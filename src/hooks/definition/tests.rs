//! Definitions against every rule.
//! Owns: what is refused and by which word, and what an unusable guard still blocks.
//! Never: reaches a network.

use serde_json::json;

use super::*;

/// What is refused of a host.
#[derive(Default)]
struct Fake(Option<&'static str>);

impl Host for Fake {
    fn reach(&self, target: &Target) -> Result<(), String> {
        self.0.map_or(Ok(()), |cause| Err(format!("{target} {cause}")))
    }

    fn shell(&self, path: &str) -> Result<(), String> {
        if path == "/bin/none" { Err("it is not there; next: install it".to_string()) } else { Ok(()) }
    }
}

fn read(document: &Value) -> Definitions {
    Definitions::read(document, &Fake::default())
}

fn command(name: &str) -> Value {
    json!({"name": name, "executor": {"type": "command", "command": "true"}})
}

#[test]
fn a_definition_that_says_little_waits_and_fails_closed_where_something_can_wait() {
    let document = json!({"schema_version": 1, "hooks": {
        "pre_tool_use": [{"name": "guard", "matcher": "bash*",
            "failure_policy": {"mode": "closed", "max_retries": 1},
            "executor": {"type": "command", "command": "/opt/guard.sh", "shell": "/bin/sh", "timeout_ms": 2000}}],
        "stop": [command("last"), {"name": "told", "blocking": false, "executor": {"type": "http",
            "url": "https://hooks.example/x?y=1", "auth": {"secret_ref": "hooks.token", "scheme": "x_api_key"},
            "signature": {"secret_ref": "hooks.key"}}}],
        "session_end": [command("end")],
    }});
    let found = read(&document);
    assert_eq!((found.problems(), found.broken.len()), (None, 0));
    let shown: Vec<_> = found
        .hooks
        .iter()
        .map(|h| (h.event.as_str(), h.name.as_str(), h.blocking, h.closed, h.max_retries, h.timeout_ms))
        .collect();
    assert_eq!(
        shown,
        [
            ("pre_tool_use", "guard", true, true, 1, 2_000),
            ("session_end", "end", false, false, 0, 5_000),
            ("stop", "last", true, true, 0, 5_000),
            ("stop", "told", false, false, 0, 5_000),
        ]
    );
    assert!(found.hooks[0].matches("bash") && found.hooks[0].matches("bash_x") && !found.hooks[0].matches("Bash"));
    let slots: Vec<&str> = found.hooks[3].slots().map(SlotId::as_str).collect();
    assert_eq!(slots, ["hooks.token", "hooks.key"]);
    let Executor::Http { target, auth, .. } = &found.hooks[3].executor else { panic!("{:?}", found.hooks[3]) };
    assert_eq!((target.path_and_query(), auth.as_ref().unwrap().scheme), ("/x?y=1", AuthScheme::XApiKey));
}

#[test]
fn each_rule_has_its_word_and_a_next_step() {
    let http = |fields: Value| {
        let mut executor = json!({"type": "http", "url": "https://hooks.example/"});
        executor.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({"name": "h", "executor": executor})
    };
    let with = |field: &str, value: Value| {
        let mut definition = command("c");
        definition[field] = value;
        definition
    };
    let long = "x".repeat(HOOK_COMMAND_BYTES_MAX + 1);
    for (event, definition, code) in [
        ("worktree_create", command("c"), "event_unknown"),
        ("pre_tool_use", json!("text"), "definition_malformed"),
        ("pre_tool_use", json!({"name": "c"}), "definition_malformed"),
        ("pre_tool_use", with("when", json!("always")), "definition_malformed"),
        ("pre_tool_use", with("failure_policy", json!({"mode": "perhaps"})), "definition_malformed"),
        ("pre_tool_use", with("name", json!("")), "name_malformed"),
        ("pre_tool_use", with("name", json!("a:b")), "name_malformed"),
        ("pre_tool_use", with("matcher", json!("*".repeat(257))), "matcher_too_long"),
        ("session_end", with("blocking", json!(true)), "event_not_blocking"),
        ("session_end", with("failure_policy", json!({"mode": "closed"})), "mode_without_blocking"),
        ("pre_tool_use", with("failure_policy", json!({"max_retries": 4})), "retries"),
        ("pre_tool_use", json!({"name": "c", "executor": {"type": "prompt", "command": "x"}}), "executor_unknown"),
        ("pre_tool_use", json!({"name": "c", "executor": {"type": "command"}}), "command_missing"),
        ("pre_tool_use", json!({"name": "c", "executor": {"type": "command", "command": " "}}), "command_missing"),
        ("pre_tool_use", json!({"name": "c", "executor": {"type": "command", "command": long}}), "command_too_long"),
        (
            "pre_tool_use",
            json!({"name": "c", "executor": {"type": "command", "command": "x", "shell": "sh"}}),
            "shell_malformed",
        ),
        (
            "pre_tool_use",
            json!({"name": "c", "executor": {"type": "command", "command": "x", "shell": "/bin/none"}}),
            "shell_unusable",
        ),
        (
            "pre_tool_use",
            json!({"name": "c", "executor": {"type": "command", "command": "x", "url": "https://x.example"}}),
            "executor_field",
        ),
        ("pre_tool_use", http(json!({"command": "x"})), "executor_field"),
        ("pre_tool_use", http(json!({"timeout_ms": 0})), "timeout"),
        ("pre_tool_use", http(json!({"timeout_ms": 30_001})), "timeout"),
        ("pre_tool_use", http(json!({"url": "ftp://hooks.example/"})), "url_malformed"),
        ("pre_tool_use", http(json!({"url": "https://user:pass@hooks.example/"})), "url_malformed"),
        ("pre_tool_use", http(json!({"url": format!("https://x.example/{}", "y".repeat(2_048))})), "url_too_long"),
        ("pre_tool_use", http(json!({"auth": {"secret_ref": "a b"}})), "secret_ref_malformed"),
        ("pre_tool_use", http(json!({"signature": {"secret_ref": ""}})), "secret_ref_malformed"),
        ("pre_tool_use", http(json!({"auth": {"value": "inline"}})), "definition_malformed"),
    ] {
        let found = read(&json!({"hooks": {event: [definition]}}));
        let codes: Vec<&str> = found.broken.iter().map(|broken| broken.problem.code).collect();
        assert_eq!(codes, [code], "{definition}");
        assert!(found.problems().unwrap().contains("next: "), "{:?}", found.problems());
        assert!(found.hooks.is_empty());
    }
    let twice = read(&json!({"hooks": {"pre_tool_use": [command("a")], "stop": [command("a")]}}));
    assert_eq!((twice.hooks.len(), twice.broken[0].problem.code), (1, "name_taken"));
    let many: Vec<Value> = (0..=HOOKS_MAX).map(|n| command(&format!("h{n}"))).collect();
    let many = read(&json!({"hooks": {"stop": many}}));
    assert_eq!((many.hooks.len(), many.broken[0].problem.code), (HOOKS_MAX, "too_many"));
    let document = json!({"hooks": {"stop": [http(json!({}))]}});
    let refused = Definitions::read(&document, &Fake(Some("is refused; next: x")));
    assert_eq!(refused.broken[0].problem.code, "url_refused");
}

#[test]
fn an_unusable_guard_blocks_what_it_should_have_decided_unless_it_legibly_waits_for_nobody() {
    let guard = |fields: Value| {
        let mut definition = json!({"name": "g", "executor": {"type": "http", "url": "nonsense"}});
        definition.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        read(&json!({"hooks": {"pre_tool_use": [definition]}})).broken.remove(0)
    };
    for (fields, blocks) in [
        (json!({}), true),
        (json!({"failure_policy": {"mode": "closed"}}), true),
        (json!({"failure_policy": {"mode": "opne"}}), true),
        (json!({"blocking": "no"}), true),
        (json!({"failure_policy": {"mode": "open"}}), false),
        (json!({"blocking": false}), false),
    ] {
        assert_eq!(guard(fields.clone()).blocks, blocks, "{fields}");
    }
    let narrow = guard(json!({"matcher": "write*"}));
    assert!(narrow.concerns(HookEvent::PreToolUse, "write_file"));
    assert!(!narrow.concerns(HookEvent::PreToolUse, "bash") && !narrow.concerns(HookEvent::Stop, "write_file"));
    let illegible = guard(json!({"matcher": ["write*"]}));
    assert!(illegible.concerns(HookEvent::PreToolUse, "bash"), "a matcher that cannot be read matches everything");
}

#[test]
fn a_document_that_cannot_be_read_is_no_empty_document() {
    for document in [
        json!([]),
        json!({}),
        json!({"hooks": []}),
        json!({"hooks": {"stop": {}}}),
        json!({"hooks": {}, "extra": 1}),
        json!({"hooks": {}, "schema_version": 2}),
        json!({"hooks": {"stop": [{"name": "x".repeat(HOOKS_DOCUMENT_BYTES_MAX)}]}}),
    ] {
        let found = read(&document);
        let shown: String = document.to_string().chars().take(40).collect();
        assert!(found.unreadable.is_some() && found.problems().is_some(), "{shown}");
    }
    let empty = read(&json!({"hooks": {}}));
    assert!(empty.unreadable.is_none() && empty.problems().is_none() && empty.hooks.is_empty());
}

/// Every document that differs from `value` by one member that is gone or is something else.
fn spoilt(value: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    let others = [json!(null), json!(true), json!(7), json!(""), json!("canary"), json!([]), json!({})];
    let whole = |change: &dyn Fn(&mut Value)| {
        let mut changed = value.clone();
        if let Some(place) = changed.pointer_mut(path) {
            change(place);
        }
        changed
    };
    let Some(here) = value.pointer(path) else { return };
    if !path.is_empty() {
        found.extend(others.iter().map(|other| (path.to_string(), whole(&|place| *place = other.clone()))));
    }
    match here {
        Value::Object(members) => {
            for name in members.keys() {
                let without = whole(&|place| drop(place.as_object_mut().unwrap().remove(name)));
                found.push((format!("{path}/-{name}"), without));
                spoilt(value, &format!("{path}/{name}"), found);
            }
            let more = whole(&|place| drop(place.as_object_mut().unwrap().insert("more".to_string(), json!(1))));
            found.push((format!("{path}/+more"), more));
        }
        Value::Array(items) => (0..items.len()).for_each(|n| spoilt(value, &format!("{path}/{n}"), found)),
        _ => {}
    }
}

#[test]
fn no_single_mistake_turns_a_guard_into_nothing() {
    let guard = json!({"schema_version": 1, "hooks": {"pre_tool_use": [{"name": "guard", "matcher": "bash",
        "blocking": true, "failure_policy": {"mode": "closed", "max_retries": 1}, "executor": {"type": "http",
        "url": "https://hooks.example/", "auth": {"secret_ref": "a.b", "scheme": "bearer"},
        "signature": {"secret_ref": "a.c"}, "timeout_ms": 900}}]}});
    let mut all = Vec::new();
    spoilt(&guard, "", &mut all);
    assert!(all.len() > 100, "{}", all.len());
    let mut harmless = Vec::new();
    for (place, document) in all {
        let found = read(&document);
        let guards = |subject: &str| {
            let waits = |hook: &Hook| hook.event == HookEvent::PreToolUse && hook.blocking && hook.matches(subject);
            let broken = |broken: &Broken| broken.blocks && broken.concerns(HookEvent::PreToolUse, subject);
            found.hooks.iter().any(|hook| waits(hook)) || found.broken.iter().any(broken) || found.unreadable.is_some()
        };
        if !guards("bash") {
            harmless.push(place);
        }
    }
    // What legibly says that there is no guard for this, and nothing else: no definition, another matcher, an empty list.
    harmless.sort_unstable();
    harmless.dedup();
    assert_eq!(harmless, ["/hooks", "/hooks/-pre_tool_use", "/hooks/pre_tool_use", "/hooks/pre_tool_use/0/matcher"]);
}
