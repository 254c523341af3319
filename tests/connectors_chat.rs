//! Slack and Telegram as far as a server in their place can show: what comes in makes runs, what runs say goes back.

#[path = "connectors_support/mod.rs"]
mod connectors_support;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "delivery_support/mod.rs"]
mod delivery_support;
#[path = "support/http.rs"]
mod http;

use connectors_support::{now_s, post, put, sign_slack};
use daemon::{Daemon, Home, Provider, Serve, eventually};
use delivery_support::{Answer, Receiver, Seen};
use serde_json::{Value, json};

const QUICK: [(&str, &str); 3] = [
    ("KHEISH_DELIVERY_INITIAL_RETRY_MS", "20"),
    ("KHEISH_DELIVERY_MAX_RETRY_MS", "40"),
    ("KHEISH_DELIVERY_CIRCUIT_COOLDOWN_MS", "40"),
];
const BOT: &str = "123456:telegram-bot-token-of-a-test";
const OTHER_BOT: &str = "654321:another-telegram-bot-token";
const SLACK_BOT: &str = "xoxb-slack-bot-token-of-a-test";
const SLACK_TEAM_BOT: &str = "xoxb-slack-token-of-team-two";

fn serve(home: &Home) -> Serve<'_> {
    home.serve().variables(&QUICK).options(&["--egress-allow-private", "connector"])
}

fn said(body: &Value) -> Answer {
    Answer::Status(200, "", body.to_string().leak())
}

fn body(seen: &Seen) -> Value {
    serde_json::from_str(&seen.body).expect("JSON")
}

/// The delivery of a run, once it is in this state; from the run's own view.
fn delivery(daemon: &Daemon, run: &str, status: &str) -> Value {
    eventually(&format!("a delivery of {run} {status}"), || {
        let view = daemon.run(run);
        view["deliveries"].as_array()?.iter().find(|delivery| delivery["status"] == status).cloned()
    })
}

#[test]
fn an_answer_goes_back_to_its_slack_thread_with_the_teams_token_and_what_slack_says_decides() {
    let (provider, slack) = (Provider::start(""), Receiver::start());
    let home = Home::with_slot("chat-slack", Some(&provider));
    let daemon = serve(&home).start();
    daemon.set_key("sk-route-0000000000000000");
    let config = json!({"signing_secret": {"value": "s3cr3t-slack"}, "bot_token": {"value": SLACK_BOT},
        "team_bot_tokens": [{"team_id": "T2", "bot_token": {"value": SLACK_TEAM_BOT}}],
        "api_base_url": format!("http://{}/api", slack.address), "session_policy": {"create_if_missing": true}});
    let reply = put(&daemon, "slack", "team", &config);
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(!String::from_utf8_lossy(&reply.body).contains("xoxb-"), "{reply:?}");
    let ok = json!({"ok": true, "channel": "C1", "ts": "9.1"});
    slack.script(
        "/api/chat.postMessage",
        vec![
            said(&json!({"ok": false, "error": "ratelimited"})),
            Answer::Status(502, "", "<html>bad gateway</html>"),
            said(&ok),
            said(&ok),
            said(&json!({"ok": false, "error": "channel_not_found"})),
            said(&json!({"ok": false, "error": "invalid_auth"})),
        ],
    );
    let message = |id: &str, team: &str, text: &str, ts: &str, thread: Option<&str>| {
        let mut event = json!({"type": "message", "channel": "C1", "ts": ts, "user": "U1", "text": text});
        event["thread_ts"] = json!(thread);
        let body = json!({"type": "event_callback", "team_id": team, "event_id": id, "event": event}).to_string();
        let reply = post(&daemon, "/v1/connectors/slack/team", &sign_slack("s3cr3t-slack", now_s(), &body), &body);
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()["run_id"].as_str().expect("a run").to_string()
    };
    // Rate limited, then a gateway's page, then taken: three requests with one message id, so that Slack shows one.
    let first = message("Ev1", "T1", "hello", "1.5", None);
    let done = delivery(&daemon, &first, "delivered");
    assert_eq!((&done["attempts"], &done["plugin"]), (&json!(3), &json!("slack")), "{done}");
    let seen = slack.wait_count("/api/chat.postMessage", 3);
    assert!(seen.iter().all(|one| one.body == seen[0].body && one.key() == seen[0].key()), "{seen:#?}");
    assert_eq!(seen[0].headers["authorization"], format!("Bearer {SLACK_BOT}"));
    let sent = body(&seen[0]);
    assert_eq!((&sent["channel"], &sent["thread_ts"], &sent["text"]), (&json!("C1"), &json!("1.5"), &json!("hello")));
    let id = sent["client_msg_id"].as_str().expect("an id");
    assert_eq!(id.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{id}");
    // Another team has its own token; the thread's root is where the answer goes.
    let second = message("Ev2", "T2", "again", "2.7", Some("2.5"));
    delivery(&daemon, &second, "delivered");
    let seen = slack.wait_count("/api/chat.postMessage", 4);
    assert_eq!(seen[3].headers["authorization"], format!("Bearer {SLACK_TEAM_BOT}"));
    assert_eq!((&body(&seen[3])["thread_ts"], &body(&seen[3])["text"]), (&json!("2.5"), &json!("again")));
    assert_ne!(body(&seen[3])["client_msg_id"], sent["client_msg_id"]);
    // What cannot heal is a dead letter at once, with Slack's word.
    for (event, ts, word) in [("Ev3", "3.5", "channel_not_found"), ("Ev4", "4.5", "invalid_auth")] {
        let run = message(event, "T1", "x", ts, None);
        let dead = delivery(&daemon, &run, "dead_lettered");
        assert_eq!(dead["attempts"], 1, "{dead}");
        assert!(dead["terminal_error"].as_str().is_some_and(|text| text.contains(word)), "{dead}");
    }
    // Without its token nothing is sent, and it is told why; with it the same delivery goes on.
    home.cli_json(&daemon, &["runtime", "auth", "revoke-slot", "connectors.slack.team.bot_token"]);
    let before = slack.at("/api/chat.postMessage").len();
    let held = message("Ev5", "T1", "held", "5.5", None);
    let retrying = delivery(&daemon, &held, "retrying");
    assert_eq!(retrying["last_error"], "failed:credential", "{retrying}");
    assert_eq!(slack.at("/api/chat.postMessage").len(), before);
    slack.script("/api/chat.postMessage", vec![said(&ok)]);
    let args = ["secrets", "set", "connectors.slack.team.bot_token", "--provider", "generic", "--value"];
    home.cli_json(&daemon, &[&args[..], &["xoxb-slack-bot-token-set-anew"]].concat());
    delivery(&daemon, &held, "delivered");
    let last = slack.at("/api/chat.postMessage").pop().expect("a request");
    assert_eq!(last.headers["authorization"], "Bearer xoxb-slack-bot-token-set-anew");
    let log = daemon.stop();
    assert!(!log.contains("xoxb-"), "{log}");
    for record in home.records(&home.root(), &[]) {
        assert!(!record.to_string().contains("xoxb-"), "{record}");
    }
}

fn updates(updates: &[Value]) -> Answer {
    said(&json!({"ok": true, "result": updates}))
}

fn update(id: i64, chat: i64, text: &str) -> Value {
    json!({"update_id": id, "message": {"message_id": id * 10, "chat": {"id": chat}, "from": {"id": 9}, "text": text}})
}

fn path(bot: &str, method: &str) -> String {
    format!("/bot{bot}/{method}")
}

/// The runs of the Telegram connector by their input.
fn inputs(daemon: &Daemon) -> Vec<String> {
    let runs = daemon.all_runs();
    let mut inputs: Vec<String> =
        runs.iter().map(|run| run["request"]["text_preview"].as_str().unwrap_or_default().to_string()).collect();
    inputs.sort();
    inputs
}

#[test]
fn polled_updates_make_their_runs_once_and_are_confirmed_only_when_durable() {
    let (provider, telegram) = (Provider::start(""), Receiver::start());
    let home = Home::with_slot("chat-polling", Some(&provider));
    let daemon = serve(&home).start();
    daemon.set_key("sk-route-0000000000000000");
    telegram.script(
        &path(BOT, "getUpdates"),
        vec![
            // A photo alone, a poll, a chat that is not allowed: left out, and in nobody's way.
            updates(&[
                update(41, 7, "first"),
                json!({"update_id": 42, "poll": {}}),
                update(43, 8, "from elsewhere"),
                json!({"update_id": 44, "message": {"message_id": 1, "chat": {"id": 7}, "photo": []}}),
                update(45, 7, "second"),
            ]),
            // Telegram repeats what it thinks was not confirmed.
            updates(&[update(45, 7, "second"), update(46, 7, "third")]),
            Answer::Stall,
        ],
    );
    telegram.script(&path(BOT, "sendMessage"), vec![said(&json!({"ok": true, "result": {"message_id": 99}}))]);
    let config = json!({"ingress_mode": "polling", "bot_token": {"value": BOT}, "allowed_chat_ids": [7],
        "api_base_url": format!("http://{}", telegram.address), "polling_timeout_seconds": 7,
        "session_policy": {"create_if_missing": true}});
    let reply = put(&daemon, "telegram", "bot", &config);
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.json()["warnings"], json!([]), "it lets nobody in: {reply:?}");
    let asked = telegram.wait_count(&path(BOT, "getUpdates"), 3);
    let offsets: Vec<Value> = asked.iter().map(|seen| body(seen)["offset"].clone()).collect();
    assert_eq!(offsets, [Value::Null, json!(46), json!(47)], "each request confirms what is durable");
    assert_eq!(body(&asked[0])["timeout"], 7);
    assert!(asked.iter().all(|seen| !seen.headers.contains_key("authorization")));
    assert_eq!(inputs(&daemon), ["first", "second", "third"]);
    // The answers go back to where the words came from, one for each.
    let sent = telegram.wait_count(&path(BOT, "sendMessage"), 3);
    let mut told: Vec<(i64, String, i64)> = sent
        .iter()
        .map(|seen| {
            let sent = body(seen);
            let replied = sent["reply_parameters"]["message_id"].as_i64().expect("what it answers");
            (sent["chat_id"].as_i64().expect("a chat"), sent["text"].as_str().expect("a text").to_string(), replied)
        })
        .collect();
    told.sort();
    let expected = [(7, "first", 410), (7, "second", 450), (7, "third", 460)];
    assert_eq!(told, expected.map(|(chat, text, id)| (chat, text.to_string(), id)));
    // The door for webhooks is shut.
    let body_text = update(50, 7, "by the door").to_string();
    let refused = post(&daemon, "/v1/connectors/telegram/bot", &[], &body_text);
    assert_eq!(refused.refusal(), (404, "connector_unknown".to_string()));
    let view = home.cli_json(&daemon, &["connectors", "get", "telegram", "bot"]);
    assert_eq!((&view["poll"]["state"], &view["poll"]["updates"]), (&json!("polling"), &json!(7)), "{view}");

    // A killed daemon asks again from where Telegram stands, and makes nothing twice.
    daemon.kill();
    telegram.script(
        &path(BOT, "getUpdates"),
        vec![updates(&[update(46, 7, "third"), update(47, 7, "fourth")]), Answer::Stall],
    );
    let daemon = serve(&home).start();
    eventually("the fourth run", || (inputs(&daemon).len() == 4).then_some(()));
    assert_eq!(inputs(&daemon), ["first", "fourth", "second", "third"]);
    // A revoked token ends the request that waits at Telegram, and there is no other one.
    telegram.wait("a stalled request", |_, stalled| (stalled > 0).then_some(()));
    home.cli_json(&daemon, &["runtime", "auth", "revoke-slot", "connectors.telegram.bot.bot_token"]);
    let failing = eventually("a poll that fails", || {
        let view = home.cli_json(&daemon, &["connectors", "get", "telegram", "bot"]);
        (view["poll"]["state"] == "failing").then_some(view)
    });
    assert!(failing["poll"]["last_error"].as_str().is_some_and(|text| text.contains("revoked")), "{failing}");
    // Another bot counts its updates anew.
    telegram.script(&path(OTHER_BOT, "getUpdates"), vec![updates(&[update(3, 7, "fifth")]), Answer::Stall]);
    let args = ["secrets", "set", "connectors.telegram.bot.bot_token", "--provider", "generic", "--value", OTHER_BOT];
    home.cli_json(&daemon, &args);
    assert_eq!(put(&daemon, "telegram", "bot", &json!({})).status, 200);
    let asked = telegram.wait_count(&path(OTHER_BOT, "getUpdates"), 2);
    assert_eq!([&body(&asked[0])["offset"], &body(&asked[1])["offset"]], [&Value::Null, &json!(4)]);
    eventually("the fifth run", || inputs(&daemon).contains(&"fifth".to_string()).then_some(()));
    let log = daemon.stop();
    assert!(!log.contains("telegram-bot-token"), "{log}");
    for record in home.records(&home.root(), &[]) {
        assert!(!record.to_string().contains("telegram-bot-token"), "{record}");
    }
}

#[test]
fn a_poll_that_fails_says_why_waits_as_it_is_told_and_takes_nothing_while_connectors_are_held() {
    let telegram = Receiver::start();
    let home = Home::with_slot("chat-polling-fails", None);
    let daemon = serve(&home).start();
    let conflict = json!({"ok": false, "error_code": 409, "description": "Conflict: webhook is active"});
    let limited = json!({"ok": false, "error_code": 429, "parameters": {"retry_after": 1}});
    let status = |status: u16, body: &Value| Answer::Status(status, "", body.to_string().leak());
    telegram.script(
        &path(BOT, "getUpdates"),
        vec![
            status(409, &conflict),
            status(429, &limited),
            Answer::Status(200, "", "no JSON"),
            said(&json!({"ok": true, "result": [{"message": {}}]})),
            updates(&[]),
            Answer::Stall,
        ],
    );
    let config = json!({"ingress_mode": "polling", "bot_token": {"value": BOT},
        "api_base_url": format!("http://{}", telegram.address)});
    home.cli_json(&daemon, &["connectors", "hold"]);
    assert_eq!(put(&daemon, "telegram", "bot", &config).status, 200);
    let poll = || home.cli_json(&daemon, &["connectors", "get", "telegram", "bot"])["poll"].clone();
    assert_eq!(poll()["state"], "waiting", "held");
    assert_eq!(telegram.seen().len(), 0);
    home.cli_json(&daemon, &["connectors", "release"]);
    let failing = eventually("a reason", || Some(poll()).filter(|poll| poll["last_error"].is_string()));
    let error = failing["last_error"].as_str().expect("a text");
    assert!(error.contains("409") && error.contains("delete the bot's webhook"), "{failing}");
    // Each put tries at once; nobody waits here for pauses.
    for requests in 2..=5 {
        telegram.wait_count(&path(BOT, "getUpdates"), requests - 1);
        assert_eq!(put(&daemon, "telegram", "bot", &json!({})).status, 200);
    }
    eventually("it polls again", || (poll()["state"] == "polling").then_some(()));
    assert_eq!(daemon.all_runs().len(), 0);
    daemon.stop();
}
