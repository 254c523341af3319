//! What slot records promise: both spellings in, one out, a strict shape, and no echo of what was refused.

mod state_root_scratch;

use kheish_daemon::broker::{Provider, SlotError, SlotId, SlotRecord};
use kheish_daemon::secret::Secret;
use serde_json::{Value, json};

const CANARY: &str = "canary-\u{e4}\"\\\n-end";
const KEY_CANARY: &str = "canary-sk-123";

fn parse(value: &Value) -> Result<SlotRecord, SlotError> {
    SlotRecord::from_json(value.to_string().as_bytes(), 42)
}

fn openai() -> Value {
    json!({"slot_id": "openai.prod", "provider": "open_ai", "mode": "api_key", "updated_at_ms": 7,
           "state": {"kind": "api_key", "api_key": KEY_CANARY, "organization": "org-1", "project": null}})
}

fn generic() -> Value {
    json!({"slot_id": "sidecars.webhook.routes", "provider": "generic", "mode": "opaque_secret",
           "state": {"value": CANARY}})
}

#[test]
fn a_record_comes_back_as_it_went_in_but_for_the_time_which_is_stamped_here() {
    let mut expected = openai();
    expected["updated_at_ms"] = json!(42);
    let record = parse(&openai()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(record.to_json().expose()).unwrap(), expected);

    let mut expected = generic();
    expected["updated_at_ms"] = json!(42);
    let record = parse(&generic()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(record.to_json().expose()).unwrap(), expected);

    let minimal = json!({"slot_id": "a", "provider": "anthropic", "mode": "api_key", "state": {"api_key": KEY_CANARY}});
    let expected = json!({"slot_id": "a", "provider": "anthropic", "mode": "api_key", "updated_at_ms": 42,
                          "state": {"kind": "api_key", "api_key": KEY_CANARY}});
    let record = parse(&minimal).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(record.to_json().expose()).unwrap(), expected);
}

#[test]
fn both_spellings_of_a_provider_are_read_and_one_is_written() {
    for provider in Provider::ALL {
        for spelling in [provider.as_json(), provider.as_name()] {
            assert_eq!(Provider::parse(spelling), Ok(provider));
        }
        assert_eq!(serde_json::to_value(provider).unwrap(), json!(provider.as_json()));
    }
    let mut slot = openai();
    slot["provider"] = json!("openai");
    assert_eq!(serde_json::to_value(parse(&slot).unwrap().status()).unwrap()["provider"], json!("open_ai"));
}

#[test]
fn the_masked_view_has_exactly_these_fields() {
    let expected = json!({"slot_id": "openai.prod", "provider": "open_ai", "mode": "api_key",
                          "summary": "api_key", "updated_at_ms": 42});
    assert_eq!(serde_json::to_value(parse(&openai()).unwrap().status()).unwrap(), expected);
    let expected = json!({"slot_id": "sidecars.webhook.routes", "provider": "generic", "mode": "opaque_secret",
                          "summary": "opaque_secret", "updated_at_ms": 42});
    assert_eq!(serde_json::to_value(parse(&generic()).unwrap().status()).unwrap(), expected);
}

/// Each case changes one thing of a good record; nothing of the record may come back in the refusal.
#[test]
fn a_record_that_breaks_a_rule_is_refused_without_an_echo() {
    let cases: Vec<(&str, Value, &str, Value)> = vec![
        ("no id", openai(), "/slot_id", json!("")),
        ("path as id", openai(), "/slot_id", json!("../canary")),
        ("id of another type", openai(), "/slot_id", json!({"canary": "canary"})),
        ("unknown provider", openai(), "/provider", json!("canary")),
        ("mode of another provider", openai(), "/mode", json!("opaque_secret")),
        ("unknown mode", openai(), "/mode", json!("canary")),
        ("reserved id", openai(), "/slot_id", json!("mcp.linear.LINEAR_API_KEY")),
        ("reserved id", openai(), "/slot_id", json!("connectors.http.inbox.bearer_token")),
        ("unknown kind", openai(), "/state/kind", json!("canary")),
        ("key of another type", openai(), "/state/api_key", json!(["canary"])),
        ("null key", openai(), "/state/api_key", json!(null)),
        ("short key", openai(), "/state/api_key", json!("canary1")),
        ("blank in key", openai(), "/state/api_key", json!("canary canary")),
        ("line break in key", openai(), "/state/api_key", json!("canary-canary\r\nx: y")),
        ("key not ASCII", openai(), "/state/api_key", json!("canary-\u{e4}\u{e4}")),
        ("long key", openai(), "/state/api_key", json!("canary".repeat(1_000))),
        ("line break in organization", openai(), "/state/organization", json!("canary\n")),
        ("long project", openai(), "/state/project", json!("canary".repeat(100))),
        ("state of another type", openai(), "/state", json!("canary-canary")),
        ("organization of a stranger", openai(), "/provider", json!("anthropic")),
        ("blank value", generic(), "/state/value", json!("              ")),
        ("long value", generic(), "/state/value", json!("canary__".repeat(8_193))),
        ("key as value", generic(), "/state", json!({"api_key": "canary-canary"})),
        ("unknown state field", generic(), "/state", json!({"value": "canary-canary", "canary": "canary-canary"})),
        ("kind of an opaque secret", generic(), "/state", json!({"value": "canary-canary", "kind": "api_key"})),
    ];
    for (name, mut slot, pointer, value) in cases {
        *slot.pointer_mut(pointer).unwrap() = value;
        let refused = parse(&slot).map(|_| "accepted").unwrap_err();
        assert!(!format!("{refused} {refused:?}").contains("canary"), "{name}: {refused:?}");
        assert!(refused.to_string().contains("; next: "), "{name}: {refused}");
    }
    let mut unknown = openai();
    unknown["canary"] = json!("canary");
    let texts = [unknown.to_string(), "canary".to_string(), "\"canary\"".to_string(), openai().to_string() + "canary"];
    for text in texts.iter().map(String::as_bytes).chain([&b"\xff\xfe canary"[..], b""]) {
        let refused = SlotRecord::from_json(text, 42).map(|_| "accepted").unwrap_err();
        assert!(matches!(refused, SlotError::Malformed { .. }), "{refused:?}");
        assert!(!format!("{refused} {refused:?}").contains("canary"), "{refused:?}");
    }
}

#[test]
fn ids_are_safe_in_paths_lines_and_route_files() {
    for raw in ["openai.prod", "a", "9", "connectors.http.in-box.bearer_token", "user@host:1", &"x".repeat(128)] {
        assert_eq!(SlotId::parse(raw).unwrap().as_str(), raw);
    }
    let long = "x".repeat(129);
    for raw in ["", ".", "..", "a..b", ".a", "-a", "a/b", "a b", "a\n", "a\0", "\u{e4}", "a%2fb", "a?b", &long] {
        assert_eq!(SlotId::parse(raw), Err(SlotError::Id), "{raw:?}");
    }
}

#[test]
fn bytes_that_are_not_text_are_refused_before_they_reach_a_store() {
    for provider in [Provider::Generic, Provider::XAi] {
        let secret = Secret::new(vec![0xff; 20]);
        let id = SlotId::parse("a").unwrap();
        assert!(matches!(SlotRecord::new(id, provider, secret, None, None, 7), Err(SlotError::Field { .. })));
    }
}

#[test]
fn debug_shows_no_secret() {
    let shown = format!("{:?} {:?}", parse(&openai()).unwrap(), parse(&generic()).unwrap());
    assert!(!shown.contains("canary"), "{shown}");
}
