//! Secrets through the command line: both ways, and never in anything that is printed.

mod cli_support;

use cli_support::{FakeDaemon, Outcome, Reply, Scratch, kheish, kheish_with, problem};
use kheish_daemon::state_root::StateRoot;

const VALUE: &str = "sk-5ecret-value-0123456789";

fn status(slot: &str) -> String {
    format!(r#"{{"slot_id":"{slot}","provider":"open_ai","mode":"api_key","summary":"api_key","updated_at_ms":1}}"#)
}

fn assert_quiet(outcome: &Outcome) {
    assert!(!outcome.all().contains("5ecret"), "{outcome:?}");
}

#[test]
fn a_generated_key_is_one_bare_line_that_opens_a_store() {
    let (first, second) = (kheish(&["secrets", "generate"]), kheish(&["secrets", "generate", "--output", "json"]));
    for outcome in [&first, &second] {
        assert_eq!((outcome.code, outcome.stdout.len(), outcome.stderr.as_str()), (0, 45, ""), "{outcome:?}");
    }
    assert_ne!(first.stdout, second.stdout);
}

#[test]
fn the_record_is_sent_to_the_daemon_and_its_value_is_printed_nowhere() {
    let scratch = Scratch::new();
    let file = scratch.file("value", &format!("{VALUE}\r\n"));
    let sources: [&[&str]; 4] = [&["--stdin"], &["--from-file", &file], &["--from-env", "SOURCE"], &["--value", VALUE]];
    for source in sources {
        let daemon = FakeDaemon::start(|_| Reply::Json(200, status("openai.prod")));
        let url = daemon.url();
        let mut args = vec!["secrets", "set", "openai.prod", "--provider", "openai", "--organization", "org-1"];
        args.extend(source);
        let stdin = format!("{VALUE}\n");
        let outcome = kheish_with(&[("KHEISH_DAEMON_URL", &url), ("SOURCE", VALUE)], stdin.as_bytes(), &args);
        assert_eq!((outcome.code, outcome.json()["slot_id"].as_str()), (0, Some("openai.prod")), "{outcome:?}");
        assert_quiet(&outcome);
        let is_warned = outcome.stderr.contains("Warning: --value is visible in process lists");
        assert_eq!(is_warned, source[0] == "--value", "{outcome:?}");
        let seen = daemon.seen();
        assert_eq!(daemon.lines(), ["POST /v1/runtime/secrets"]);
        let mut body: serde_json::Value = serde_json::from_str(&seen[0].body).expect("a record");
        assert!(body["updated_at_ms"].take().as_u64().is_some_and(|at_ms| at_ms > 0));
        let state = serde_json::json!({"kind": "api_key", "api_key": VALUE, "organization": "org-1", "project": null});
        let record = serde_json::json!({"slot_id": "openai.prod", "provider": "open_ai", "mode": "api_key",
                                        "state": state, "updated_at_ms": null});
        assert_eq!(body, record);
    }
}

#[test]
fn no_failure_repeats_the_value() {
    let echo =
        FakeDaemon::start(|_| Reply::Text(502, "gateway: cannot forward {\"api_key\":\"sk-5ecret-value-0123456789\"}"));
    let refusing = FakeDaemon::start(|_| problem(409, "conflict", "no"));
    let set = ["secrets", "set", "a.b", "--provider", "generic", "--value", VALUE];
    let with = |more: &[&'static str]| [&set[..], more].concat();
    let (blank, two) = (with(&["--stdin"]), with(&["--from-file", "/nonexistent"]));
    let outcomes = [
        (echo.kheish(&set), 1),
        (refusing.kheish(&set), 6),
        (kheish(&with(&["--base-url", "http://127.0.0.1:1"])), 3),
        (kheish(&with(&["--base-url", "http://192.0.2.1:4000"])), 1),
        (kheish(&with(&["--offline"])), 1),
        (kheish(&with(&["--provider", "openai"])), 2),
        (kheish(&with(&["extra"])), 2),
        (kheish(&["secrets", "set", "a", "--provider", "nobody", "--value", VALUE]), 1),
        (kheish(&["secrets", "set", "mcp.x", "--provider", "openai", "--value", VALUE]), 1),
        (kheish(&["secrets", "set", "a", "--provider", "openai", "--vlaue", VALUE]), 2),
        (kheish(&blank), 1),
        (kheish(&two), 1),
    ];
    for (outcome, code) in outcomes {
        assert_eq!(outcome.code, code, "{outcome:?}");
        assert_quiet(&outcome);
    }
}

#[test]
fn a_secret_is_not_sent_to_another_host_in_the_clear() {
    let set = ["secrets", "set", "a", "--provider", "generic", "--stdin", "--base-url", "http://192.0.2.1:4000"];
    let outcome = kheish_with(&[], VALUE.as_bytes(), &set);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""), "{outcome:?}");
    assert!(outcome.stderr.contains("would travel to another host unencrypted"), "{outcome:?}");
}

/// The command line on a state root, without a daemon.
struct Offline {
    root: String,
    key: String,
    _scratch: Scratch,
}

impl Offline {
    fn new() -> Self {
        let scratch = Scratch::new();
        let key = kheish(&["secrets", "generate"]).stdout.trim().to_string();
        Self { root: scratch.join("root"), key, _scratch: scratch }
    }

    fn kheish(&self, args: &[&str]) -> Outcome {
        let env = [("KHEISH_AUTH_STORE_MASTER_KEY", self.key.as_str()), ("KHEISH_STATE_ROOT", self.root.as_str())];
        let mut all = vec!["secrets"];
        all.extend(args);
        all.extend(["--offline", "--output", "json"]);
        let outcome = kheish_with(&env, VALUE.as_bytes(), &all);
        assert_quiet(&outcome);
        outcome
    }

    fn set(&self, slot: &str) -> Outcome {
        self.kheish(&["set", slot, "--provider", "openai", "--stdin"])
    }
}

#[test]
fn a_store_can_be_filled_read_and_emptied_without_a_daemon() {
    let offline = Offline::new();
    let set = offline.set("openai.prod");
    assert_eq!((set.code, set.json()["summary"].as_str(), set.stderr.as_str()), (0, Some("api_key"), ""), "{set:?}");
    let get = offline.kheish(&["get", "openai.prod"]);
    assert_eq!((get.code, &get.stdout), (0, &set.stdout));
    let list = offline.kheish(&["list"]);
    assert_eq!((list.code, list.json()), (0, serde_json::json!([set.json()])));
    assert_eq!(offline.kheish(&["delete", "openai.prod"]).stdout, "{\"accepted\":true}\n");
    assert_eq!(offline.kheish(&["delete", "openai.prod"]).stdout, "{\"accepted\":false}\n");
    assert_eq!(offline.kheish(&["get", "openai.prod"]).code, 5, "as online");
    assert_eq!(offline.kheish(&["list"]).stdout, "[]\n");
}

#[test]
fn a_store_of_another_key_stays_closed() {
    let mut offline = Offline::new();
    assert_eq!(offline.set("a.b").code, 0);
    offline.key = kheish(&["secrets", "generate"]).stdout.trim().to_string();
    for outcome in [offline.kheish(&["list"]), offline.set("a.b")] {
        assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""), "{outcome:?}");
        assert!(outcome.stderr.contains("next:"), "{outcome:?}");
    }
}

#[test]
fn a_state_root_in_use_is_neither_read_nor_written() {
    let offline = Offline::new();
    assert_eq!(offline.set("a.b").code, 0);
    let held = StateRoot::open(offline.root.as_ref(), false).expect("free");
    for outcome in [offline.kheish(&["list"]), offline.set("c.d"), offline.kheish(&["delete", "a.b"])] {
        assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""), "{outcome:?}");
        assert!(outcome.stderr.contains(&std::process::id().to_string()), "it names the holder: {outcome:?}");
    }
    drop(held);
    assert_eq!(offline.kheish(&["list"]).json().as_array().map(Vec::len), Some(1));
}

#[test]
fn reading_a_root_that_is_not_there_makes_none() {
    let offline = Offline::new();
    for args in [&["list"][..], &["get", "a"], &["delete", "a"]] {
        assert_eq!(offline.kheish(args).code, 1);
    }
    assert!(!std::path::Path::new(&offline.root).exists());
}
