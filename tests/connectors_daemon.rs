//! Connectors through the real daemon: what an event must prove, what it becomes, and that nothing else passes.

#[path = "connectors_support/mod.rs"]
mod connectors_support;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use std::fs;

use connectors_support::{hold, now_s, post, sign_http, sign_slack, start, unauthenticated};
use daemon::{Home, Provider};
use serde_json::{Value, json};

const KEY: &str = "hmac-test-secret";

fn put(daemon: &daemon::Daemon, kind: &str, name: &str, body: &Value) -> http::Reply {
    connectors_support::put(daemon, kind, name, body)
}

fn runs(daemon: &daemon::Daemon) -> usize {
    daemon.get("/v1/runs").json().as_array().expect("a list").len()
}

#[test]
fn a_signed_event_makes_one_run_however_often_it_comes_and_survives_a_restart() {
    let provider = Provider::start("");
    let (home, daemon) = start("connector-http", Some(&provider));
    let config = json!({"hmac_secret": {"value": KEY}, "require_hmac_signature": true,
        "session_policy": {"create_if_missing": true}});
    let shown = put(&daemon, "http", "orders", &config);
    assert_eq!(shown.status, 200, "{shown:?}");
    assert_eq!(shown.json()["hmac_secret"]["secret_ref"], "connectors.http.orders.hmac_secret");
    let body =
        json!({"content": "hello", "binding_keys": ["customer:acme"], "idempotency_key": "order-123"}).to_string();
    let send = |daemon: &daemon::Daemon, body: &str, target: &str| {
        post(daemon, target, &sign_http(KEY, "POST", target, now_s(), body), body)
    };
    let target = "/v1/connectors/http/orders?source=a%2Fb&attempt=1";
    let first = send(&daemon, &body, target);
    assert_eq!(first.status, 200, "{first:?}");
    let view = first.json();
    assert_eq!(view["session_id"], "http:orders:d1320b76d9c98989");
    assert_eq!(
        (&view["request"]["source_plugin"], &view["request"]["source_kind"]),
        (&json!("http"), &json!("orders")),
        "{view}"
    );
    let run = view["run_id"].as_str().expect("a run").to_string();
    assert_eq!(daemon.wait_end(&run), "completed");
    let again = send(&daemon, &body, target).json();
    assert_eq!(again["run_id"], json!(run));
    daemon.kill();
    let daemon = home.start();
    assert_eq!(send(&daemon, &body, target).json()["run_id"], json!(run), "known after a kill");
    let other = json!({"content": "other", "idempotency_key": "order-123", "binding_keys": ["x"]}).to_string();
    assert_eq!(send(&daemon, &other, target).refusal(), (409, "event_conflict".to_string()));
    assert_eq!(runs(&daemon), 1);
    let metadata = daemon.run(&run)["input_metadata"]["connector_ingress_key"].clone();
    assert_eq!(metadata, "http:orders:3b6a198e6f182f27b91aa5a8b37ab70d");
    let log = daemon.log();
    assert!(!log.contains(KEY));
    let root = home.root();
    daemon.stop();
    for file in fs::read_dir(root.join("journal")).expect("segments") {
        let text = fs::read(file.expect("a file").path()).expect("readable");
        let is_there = text.windows(KEY.len()).any(|window| window == KEY.as_bytes());
        assert!(!is_there, "the secret is in the journal");
    }
}

#[test]
fn what_proves_nothing_makes_no_run_and_is_one_audit_line_at_most() {
    let (home, daemon) = start("connector-refused", None);
    let config = json!({"hmac_secret": {"value": KEY}, "require_hmac_signature": true, "fixed_session_id": "s",
        "bearer_token": {"value": "bearer-of-a-test"}});
    assert_eq!(put(&daemon, "http", "in", &config).status, 200);
    let target = "/v1/connectors/http/in";
    let body = json!({"content": "x", "idempotency_key": "k"}).to_string();
    let bearer = ("authorization".to_string(), "Bearer bearer-of-a-test".to_string());
    let signed = |at: u64, body: &str| {
        let mut headers = sign_http(KEY, "POST", target, at, body);
        headers.push(bearer.clone());
        headers
    };
    let good = signed(now_s(), &body);
    let without = |name: &str| good.iter().filter(|(known, _)| known != name).cloned().collect::<Vec<_>>();
    let json_type = ("content-type".to_string(), "text/plain".to_string());
    type Case<'a> = (&'a str, Vec<(String, String)>, String, u16, &'a str);
    let cases: Vec<Case<'_>> = vec![
        ("/v1/connectors/http/nobody", good.clone(), body.clone(), 404, "connector_unknown"),
        (target, without("authorization"), body.clone(), 401, "unauthorized"),
        (target, without("x-kheish-signature"), body.clone(), 401, "signature_missing"),
        (target, without("x-kheish-timestamp"), body.clone(), 401, "signature_missing"),
        (target, [good.clone(), vec![good[0].clone()]].concat(), body.clone(), 401, "signature_missing"),
        (target, good.clone(), format!("{body} "), 401, "signature_invalid"),
        ("/v1/connectors/http/in?x=1", good.clone(), body.clone(), 401, "signature_invalid"),
        (target, signed(now_s() - 301, &body), body.clone(), 401, "signature_expired"),
        (target, signed(now_s() + 330, &body), body.clone(), 401, "signature_expired"),
        (target, [vec![json_type], good.clone()].concat(), body.clone(), 415, "unsupported_media_type"),
        (target, signed(now_s(), "{"), "{".to_string(), 400, "event_invalid"),
        (target, signed(now_s(), "[]"), "[]".to_string(), 400, "event_invalid"),
        (target, signed(now_s(), r#"{"content":"x"}"#), r#"{"content":"x"}"#.to_string(), 400, "event_invalid"),
    ];
    let count = cases.len();
    for (target, headers, body, status, code) in cases {
        let reply = post(&daemon, target, &headers, &body);
        assert_eq!(reply.refusal(), (status, code.to_string()), "{target} {headers:?} {body}");
    }
    for extra in [
        json!({"unknown": 1}),
        json!({"metadata": {"connector_ingress_key": "x"}}),
        json!({"reply_targets": []}),
        json!({"idempotency_key": " "}),
        json!({"binding_keys": [" "]}),
        json!({"content": null}),
    ] {
        let mut event = json!({"content": "x", "idempotency_key": "k"});
        event.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let body = event.to_string();
        let reply = post(&daemon, target, &signed(now_s(), &body), &body);
        assert_eq!(reply.refusal(), (400, "event_invalid".to_string()), "{body}");
    }
    let body = json!({"content": "x", "idempotency_key": "k", "attachments": [{"id": "a"}]}).to_string();
    let reply = post(&daemon, target, &signed(now_s(), &body), &body);
    assert_eq!(reply.refusal(), (400, "unsupported_feature".to_string()));
    // The session does not exist, and the connector may not create it.
    let body = json!({"content": "x", "idempotency_key": "k"}).to_string();
    let reply = post(&daemon, target, &signed(now_s(), &body), &body);
    assert_eq!(reply.refusal(), (409, "event_session_missing".to_string()));
    let large = "x".repeat(2 * 1024 * 1024 + 1);
    let reply = post(&daemon, target, &good, &large);
    assert_eq!(reply.status, 413);
    assert_eq!(runs(&daemon), 0);
    let root = home.root();
    daemon.stop();
    let audit = fs::read_to_string(root.join("control-plane-auth/audit.jsonl")).expect("the audit file");
    let refused = audit.lines().filter(|line| line.contains("\"connector_refused\"")).count();
    assert_eq!(refused, count + 8, "one line for each, and none for what the listener refused by itself:\n{audit}");
    assert!(!audit.contains(KEY) && !audit.contains("bearer-of-a-test"));
}

#[test]
fn a_flood_of_refusals_is_bounded_in_the_audit_file() {
    let (home, daemon) = start("connector-flood", None);
    assert_eq!(put(&daemon, "http", "in", &json!({"bearer_token": {"value": "bearer-of-a-test"}})).status, 200);
    let mut client = unauthenticated(&daemon);
    for _ in 0..200 {
        let reply = client.request("POST", "/v1/connectors/http/in", &[], "{}").expect("the daemon answers");
        assert_eq!(reply.refusal(), (401, "unauthorized".to_string()));
    }
    let root = home.root();
    daemon.stop();
    let audit = fs::read_to_string(root.join("control-plane-auth/audit.jsonl")).expect("the audit file");
    let of = |name: &str| audit.lines().filter(|line| line.contains(name)).count();
    assert_eq!((of("\"connector_refused\""), of("\"connector_rate_limited\"")), (60, 1), "{audit}");
}

#[test]
fn the_bucket_refuses_new_events_and_never_a_repeated_one() {
    let (_home, daemon) = start("connector-bucket", None);
    hold(&daemon);
    daemon.create_session("s");
    let config = json!({"bearer_token": {"value": "bearer-of-a-test"}, "fixed_session_id": "s",
        "ingress_events_per_second": 1});
    assert_eq!(put(&daemon, "http", "in", &config).status, 200);
    let headers = vec![("authorization".to_string(), "Bearer bearer-of-a-test".to_string())];
    let send = |key: &str| {
        let body = json!({"content": "x", "idempotency_key": key}).to_string();
        post(&daemon, "/v1/connectors/http/in", &headers, &body)
    };
    assert_eq!(send("first").status, 200);
    let limited = (0..50).map(|number| send(&number.to_string())).find(|reply| reply.status != 200).expect("a limit");
    assert_eq!(limited.refusal(), (429, "http_ingress_rate_limited".to_string()));
    let wait = limited.headers.iter().find(|(name, _)| name == "retry-after").expect("a time to wait");
    assert_eq!(wait.1, "1");
    assert_eq!(send("first").status, 200, "a repeated event costs nothing");
}

#[test]
fn configuration_is_merged_cleared_checked_and_read_only_where_it_is_of_the_file() {
    let place = daemon::Place::new("connector-file");
    let file = place.file(
        "connectors.toml",
        "[[http_connectors]]\nname = \"filed\"\nbearer_token = \"inline-bearer-of-a-test\"\n\
         fixed_session_id = \"s\"\n",
    );
    let home = Home::with_slot("connector-config", None);
    let file = file.display().to_string();
    let daemon = home.serve().options(&["--connectors-config", &file]).start();
    daemon.set_key("sk-secret-one-0123456789");
    let filed = home.cli_json(&daemon, &["connectors", "get", "http", "filed"]);
    assert_eq!((&filed["source"], &filed["bearer_token"]["source"]), (&json!("file"), &json!("inline")));
    let refused = put(&daemon, "http", "filed", &json!({"actor_id": "x"}));
    assert_eq!(refused.refusal(), (409, "connector_file_backed".to_string()));
    let put_cli = |json: &str| home.cli(&daemon, &["connectors", "put-http", "in", "--json", json]);
    let (code, shown, _) =
        put_cli(r#"{"bearer_token":{"value":"bearer-of-a-test"},"actor_id":"a","fixed_session_id":"s"}"#);
    let first: Value = serde_json::from_str(&shown).expect("a view");
    assert_eq!((code, &first["actor_id"], &first["revision"]), (0, &json!("a"), &json!(1)));
    let (_, shown, _) = put_cli(r#"{"actor_id":null,"ingress_events_per_second":5,"expected_revision":1}"#);
    let second: Value = serde_json::from_str(&shown).expect("a view");
    assert_eq!(second.get("actor_id"), None);
    assert_eq!(
        (&second["fixed_session_id"], &second["ingress_events_per_second"], &second["revision"]),
        (&json!("s"), &json!(5), &json!(2))
    );
    let stale = put(&daemon, "http", "in", &json!({"expected_revision": 1}));
    assert_eq!(stale.refusal(), (409, "connector_revision_conflict".to_string()));
    for (kind, name, body, expected) in [
        ("http", "a:b", json!({}), (400, "connector_invalid")),
        ("http", "metrics", json!({}), (400, "connector_invalid")),
        ("smtp", "x", json!({}), (400, "connector_invalid")),
        ("http", "x", json!({}), (400, "connector_invalid")),
        ("http", "x", json!({"bearer_token": "plain-text-secret"}), (400, "connector_invalid")),
        ("http", "x", json!({"bearer_token": {"secret_ref": "no.such"}}), (404, "secret_not_found")),
        ("http", "x", json!({"bearer_token": {"env": "NO_SUCH_VARIABLE"}}), (400, "connector_invalid")),
        ("http", "x", json!({"bearer_token": {"env": "A", "value": "12345678"}}), (400, "connector_invalid")),
        ("http", "x", json!({"bearer_token": {"value": "12345678"}, "nonsense": 1}), (400, "connector_invalid")),
        (
            "http",
            "x",
            json!({"allow_unauthenticated_ingress": true, "actor_id": "bearer-of-a-test"}),
            (400, "connector_invalid"),
        ),
    ] {
        let reply = put(&daemon, kind, name, &body);
        assert_eq!(reply.refusal(), (expected.0, expected.1.to_string()), "{kind} {name} {body}");
    }
    let (code, _, _) = home.cli(&daemon, &["secrets", "delete", "connectors.http.in.bearer_token"]);
    assert_ne!(code, 0, "a slot that is referred to stays");
    let listed = home.cli_json(&daemon, &["connectors", "list"]);
    let names: Vec<&Value> = listed.as_array().expect("a list").iter().map(|view| &view["name"]).collect();
    assert_eq!(names, [&json!("filed"), &json!("in")]);
    assert_eq!(home.cli_json(&daemon, &["connectors", "delete", "http", "in"]), json!({"accepted": true}));
    assert_eq!(daemon.get("/v1/runtime/connectors/http/in").refusal(), (404, "connector_not_found".to_string()));
    let (code, _, _) = home.cli(&daemon, &["secrets", "get", "connectors.http.in.bearer_token"]);
    assert_ne!(code, 0, "its own slot went with it");
    // The file's own secret lets its senders in.
    daemon.create_session("s");
    hold(&daemon);
    let headers = vec![("authorization".to_string(), "Bearer inline-bearer-of-a-test".to_string())];
    let body = json!({"content": "x", "idempotency_key": "k"}).to_string();
    assert_eq!(post(&daemon, "/v1/connectors/http/filed", &headers, &body).status, 200);
    daemon.stop();
}

#[test]
fn external_events_are_accepted_once_rejected_with_a_reason_and_answered_in_order() {
    let (_home, daemon) = start("connector-external", None);
    hold(&daemon);
    let config = json!({"platform": "webhook", "base_url": "https://bridge.example",
        "shared_token": {"value": "shared-token-of-a-test"}, "session_policy": {"create_if_missing": true}});
    assert_eq!(put(&daemon, "external", "ops", &config).status, 200);
    let token = vec![("authorization".to_string(), "Bearer shared-token-of-a-test".to_string())];
    let event = |id: &str, change: Value| {
        let mut event = json!({"instance_id": "i-1", "event_id": id, "content": "hello", "intent": null,
            "thread": {"path": ["build", "d-1"]}, "routing_key": null, "relation": null, "reply_route": "{}"});
        event.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        event
    };
    let send = |event: Value| post(&daemon, "/v1/connectors/external/ops/events", &token, &event.to_string());
    let first = send(event("evt-1", json!({"protocol_version": 2})));
    assert_eq!((first.status, &first.json()["status"]), (200, &json!("accepted")), "{first:?}");
    assert_eq!(first.json()["session_id"], "external:ops:b88cf9359a6d3142");
    // A sidecar that was started anew sends it again.
    let again = send(event("evt-1", json!({"instance_id": "i-2"}))).json();
    assert_eq!((&again["status"], &again["run_id"]), (&json!("duplicate"), &first.json()["run_id"]));
    let other = send(event("evt-1", json!({"content": "other"}))).json();
    assert_eq!((&other["status"], &other["run_id"]), (&json!("rejected"), &first.json()["run_id"]));
    for (change, part) in [
        (json!({"event_id": " "}), "event_id"),
        (json!({"event_id": null}), "event_id"),
        (json!({"instance_id": ""}), "instance_id"),
        (json!({"intent": " "}), "intent"),
        (json!({"routing_key": ""}), "routing_key"),
        (json!({"relation": {"kind": "reply", "target_event_id": ""}}), "relation"),
        (json!({"content": "x".repeat(1024 * 1024 + 1)}), "content"),
        (json!({"content": ""}), "no input"),
        (json!({"thread": {"path": []}}), "session"),
        (json!({"thread": "x"}), "type"),
        (json!({"attachments": [{"kind": "inline"}]}), "unsupported_feature"),
        (json!({"protocol_version": 3}), "unsupported protocol_version"),
    ] {
        let reply = send(event("evt-2", change.clone()));
        let (status, reason) = (reply.json()["status"].clone(), reply.json()["reason"].to_string());
        assert_eq!((reply.status, status), (200, json!("rejected")), "{change}");
        assert!(reason.contains(part), "{part}: {reason}");
    }
    let wrong = vec![("authorization".to_string(), "Bearer shared-token-of-a-tesT".to_string())];
    for path in ["events", "events/batch"] {
        let reply = post(&daemon, &format!("/v1/connectors/external/ops/{path}"), &wrong, "{}");
        assert_eq!(reply.refusal(), (401, "unauthorized".to_string()), "{path}");
    }
    let batch = |events: Vec<Value>| {
        let body = json!({"protocol_version": 2, "events": events}).to_string();
        post(&daemon, "/v1/connectors/external/ops/events/batch", &token, &body)
    };
    assert_eq!(batch(vec![]).json(), json!({"results": []}));
    let results = batch(vec![
        event("evt-1", json!({})),
        event("evt-3", json!({"thread": {"path": ["build", "d-2"]}})),
        json!(7),
        event("evt-3", json!({"thread": {"path": ["build", "d-2"]}})),
    ])
    .json();
    let of = |index: usize, name: &str| results["results"][index][name].clone();
    let statuses: Vec<Value> = (0..4).map(|index| of(index, "status")).collect();
    assert_eq!(statuses, [json!("duplicate"), json!("accepted"), json!("rejected"), json!("duplicate")]);
    assert_ne!(of(1, "session_id"), of(0, "session_id"), "two deliveries of one route are two sessions");
    assert_eq!(of(3, "run_id"), of(1, "run_id"));
    let too_many = batch((0..65).map(|number| event(&format!("e-{number}"), json!({}))).collect());
    assert_eq!(too_many.refusal(), (400, "event_invalid".to_string()));
    assert_eq!(runs(&daemon), 2);
    // A revoked connector lets nobody in, at once.
    let revoked = daemon.post("/v1/runtime/auth/subjects/connector:ops/revoke", &json!({}));
    assert_eq!(revoked.status, 200, "{revoked:?}");
    let reply = send(event("evt-9", json!({})));
    assert_eq!(reply.refusal(), (503, "connector_secret_unavailable".to_string()));
    daemon.stop();
}

#[test]
fn a_rotated_shared_token_is_in_force_at_once_and_the_old_one_is_dead() {
    let (home, daemon) = start("connector-rotate", None);
    hold(&daemon);
    daemon.create_session("s");
    let set = |value: &str| {
        let args = ["secrets", "set", "sidecars.shared", "--provider", "generic", "--value", value];
        home.cli_json(&daemon, &args)
    };
    set("token-number-one");
    let config = json!({"platform": "x", "base_url": "https://bridge.example", "fixed_session_id": "s",
        "shared_token": {"secret_ref": "sidecars.shared"}});
    assert_eq!(put(&daemon, "external", "ops", &config).status, 200);
    let send = |token: &str, id: &str| {
        let headers = vec![("authorization".to_string(), format!("Bearer {token}"))];
        let body = json!({"instance_id": "i", "event_id": id, "content": "x"}).to_string();
        post(&daemon, "/v1/connectors/external/ops/events", &headers, &body).status
    };
    assert_eq!((send("token-number-one", "1"), send("token-number-two", "2")), (200, 401));
    set("token-number-two");
    assert_eq!((send("token-number-one", "3"), send("token-number-two", "4")), (401, 200));
    home.cli_json(&daemon, &["runtime", "auth", "revoke-slot", "sidecars.shared"]);
    assert_eq!((send("token-number-one", "5"), send("token-number-two", "6")), (503, 503));
    let view = home.cli_json(&daemon, &["connectors", "get", "external", "ops"]);
    assert_eq!(view["unusable_secrets"], json!(["shared_token"]));
    set("token-number-three");
    assert_eq!((send("token-number-two", "7"), send("token-number-three", "8")), (401, 200));
    daemon.stop();
}

#[test]
fn slack_and_telegram_are_proven_filtered_and_answered_as_they_expect() {
    let (_home, daemon) = start("connector-chat", None);
    hold(&daemon);
    let policy = json!({"create_if_missing": true});
    let config =
        json!({"signing_secret": {"value": "s3cr3t-slack"}, "allowed_team_ids": ["T1"], "session_policy": policy});
    assert_eq!(put(&daemon, "slack", "team", &config).status, 200);
    let slack = |body: &Value| {
        let body = body.to_string();
        post(&daemon, "/v1/connectors/slack/team", &sign_slack("s3cr3t-slack", now_s(), &body), &body)
    };
    let challenge = json!({"type": "url_verification", "challenge": "abc"});
    assert_eq!(slack(&challenge).json(), json!({"challenge": "abc"}));
    let text = challenge.to_string();
    let wrong = post(&daemon, "/v1/connectors/slack/team", &sign_slack("other-secret", now_s(), &text), &text);
    assert_eq!(wrong.refusal(), (401, "signature_invalid".to_string()));
    let old = post(&daemon, "/v1/connectors/slack/team", &sign_slack("s3cr3t-slack", now_s() - 400, &text), &text);
    assert_eq!(old.refusal(), (401, "signature_expired".to_string()));
    let message = |id: &str, change: Value| {
        let mut event = json!({"type": "message", "channel": "C1", "ts": "1.5", "user": "U1", "text": "hello"});
        event.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!({"type": "event_callback", "team_id": "T1", "event_id": id, "event": event})
    };
    let first = slack(&message("Ev1", json!({}))).json();
    assert!(first["session_id"].as_str().expect("a session").starts_with("slack:team:"), "{first}");
    assert_eq!(slack(&message("Ev1", json!({}))).json()["run_id"], first["run_id"]);
    let answered = slack(&message("Ev2", json!({"ts": "1.6", "thread_ts": "1.5"}))).json();
    assert_eq!(answered["session_id"], first["session_id"], "an answer in the thread is of its session");
    assert_eq!(slack(&message("Ev1", json!({"text": "other"}))).refusal(), (409, "event_conflict".to_string()));
    let mut foreign = message("Ev3", json!({}));
    foreign["team_id"] = json!("T2");
    assert_eq!(slack(&foreign).refusal(), (403, "event_source_refused".to_string()));
    let mut hidden = message("Ev3", json!({}));
    hidden["authorizations"] = json!([{"team_id": "T1"}, {"team_id": "T2"}]);
    assert_eq!(slack(&hidden).refusal(), (403, "event_source_refused".to_string()));
    for (change, reason) in [
        (json!({"bot_id": "B1"}), "unsupported_message_subtype"),
        (json!({"subtype": "channel_join"}), "unsupported_message_subtype"),
        (json!({"type": "reaction_added"}), "unsupported_event"),
        (json!({"text": "", "files": [{"id": "F"}]}), "attachments_unsupported"),
    ] {
        assert_eq!(slack(&message("Ev4", change)).json(), json!({"ignored": true, "reason": reason}));
    }
    assert_eq!(slack(&message("Ev5", json!({"channel": null}))).refusal(), (400, "event_invalid".to_string()));

    let config =
        json!({"secret_token": {"value": "telegram-secret"}, "allowed_chat_ids": [7], "session_policy": policy});
    assert_eq!(put(&daemon, "telegram", "bot", &config).status, 200);
    let telegram = |token: &str, body: &Value| {
        let headers = vec![("x-telegram-bot-api-secret-token".to_string(), token.to_string())];
        post(&daemon, "/v1/connectors/telegram/bot", &headers, &body.to_string())
    };
    let update = |id: u64, chat: i64, text: &str| json!({"update_id": id, "message": {"message_id": 3, "chat": {"id": chat}, "from": {"id": 9}, "text": text}});
    assert_eq!(telegram("wrong", &update(1, 7, "x")).refusal(), (401, "unauthorized".to_string()));
    let first = telegram("telegram-secret", &update(1, 7, "x")).json();
    assert_eq!(telegram("telegram-secret", &update(1, 7, "x")).json()["run_id"], first["run_id"]);
    assert_eq!(telegram("telegram-secret", &update(1, 7, "y")).refusal(), (409, "event_conflict".to_string()));
    assert_eq!(telegram("telegram-secret", &update(2, 8, "x")).refusal(), (403, "event_source_refused".to_string()));
    let other = telegram("telegram-secret", &json!({"update_id": 3, "poll": {}}));
    assert_eq!(other.json(), json!({"ok": true, "skipped": "unsupported_update"}));
    assert_eq!(telegram("telegram-secret", &json!({"message": {}})).refusal(), (400, "event_invalid".to_string()));
    assert_eq!(runs(&daemon), 3);
    daemon.stop();
}

#[test]
fn a_copied_root_lets_nothing_pass_until_it_is_released() {
    let (home, daemon) = start("connector-copy", None);
    hold(&daemon);
    daemon.create_session("s");
    let config = json!({"bearer_token": {"value": "bearer-of-a-test"}, "fixed_session_id": "s"});
    assert_eq!(put(&daemon, "http", "in", &config).status, 200);
    daemon.stop();
    let copy = home.join("copy");
    let copied = std::process::Command::new("cp").args(["-a"]).arg(home.root()).arg(&copy).status().expect("cp");
    assert!(copied.success());
    let daemon = home.serve().root(&copy).start();
    let headers = vec![("authorization".to_string(), "Bearer bearer-of-a-test".to_string())];
    let body = json!({"content": "x", "idempotency_key": "k"}).to_string();
    let send = |headers: &[(String, String)]| post(&daemon, "/v1/connectors/http/in", headers, &body);
    assert_eq!(send(&[]).refusal(), (401, "unauthorized".to_string()), "who is not proven learns nothing of it");
    assert_eq!(send(&headers).refusal(), (503, "connectors_held".to_string()));
    assert_eq!(runs(&daemon), 0);
    home.cli_json(&daemon, &["connectors", "release"]);
    assert_eq!(send(&headers).status, 200);
    daemon.stop();
}
