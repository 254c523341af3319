//! Deliveries through the real daemon: outputs reach their targets once, in order, whatever receivers do.

#[path = "support/daemon.rs"]
mod daemon;
mod delivery_support;
#[path = "support/http.rs"]
mod http;

use daemon::{Daemon, Home, Provider, Serve, eventually};
use delivery_support::{Answer, Receiver};
use kheish_daemon::limits::{DELIVERY_SENDERS, DELIVERY_SENDERS_UNPROVEN_MAX};
use serde_json::{Value, json};

/// Retries within a test's time; loopback is in reach.
const QUICK: [(&str, &str); 3] = [
    ("KHEISH_DELIVERY_INITIAL_RETRY_MS", "20"),
    ("KHEISH_DELIVERY_MAX_RETRY_MS", "40"),
    ("KHEISH_DELIVERY_CIRCUIT_COOLDOWN_MS", "40"),
];

fn provider() -> Provider {
    // It says what it was told.
    Provider::start("")
}

fn serve(home: &Home) -> Serve<'_> {
    home.serve().variables(&QUICK).options(&["--egress-allow-private", "connector"])
}

fn target(receiver: &Receiver, path: &str) -> Value {
    json!({"plugin": "http", "address": format!("http://{}{path}", receiver.address)})
}

fn submit(daemon: &Daemon, session: &str, targets: &[Value]) -> String {
    let body = json!({"content": "go", "reply_targets": targets});
    let reply = daemon.post(&format!("/v1/sessions/{session}/runs"), &body);
    assert_eq!(reply.status, 202, "{reply:?}");
    reply.json()["run_id"].as_str().expect("an id").to_string()
}

fn deliveries(daemon: &Daemon, query: &str) -> Vec<Value> {
    let reply = daemon.get(&format!("/v1/deliveries?{query}"));
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json().as_array().expect("a list").clone()
}

/// Waits until the only delivery of a run is in this state.
fn settled(daemon: &Daemon, run: &str, status: &str) -> Value {
    eventually(&format!("{run} {status}"), || {
        deliveries(daemon, &format!("run_id={run}&status={status}")).first().cloned()
    })
}

#[test]
fn an_output_reaches_its_target_with_key_and_body_and_a_run_without_one_reaches_nobody() {
    let (provider, receiver) = (provider(), Receiver::start());
    let home = Home::new("delivery_plain", Some(&provider));
    let daemon = serve(&home).start();
    daemon.create_session("s");
    let quiet = daemon.submit("s", "nobody is told");
    assert_eq!(daemon.wait_end(&quiet), "completed");
    let run = submit(&daemon, "s", &[target(&receiver, "/hook")]);
    let delivery = settled(&daemon, &run, "delivered");
    let seen = receiver.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    let body: Value = serde_json::from_str(&seen[0].body).expect("JSON");
    assert_eq!(
        body,
        json!({
            "session_id": "s", "thread_id": null, "content": "go",
            "parts": [{"type": "text", "text": "go"}], "resolved_parts": [{"type": "text", "text": "go"}],
            "artifacts": [], "artifact_attachments": [],
            "metadata": {"run_id": run, "delivery_id": "delivery-1"},
        })
    );
    assert!(seen[0].key().starts_with("kheish:delivery-1:"), "{:?}", seen[0]);
    assert_eq!(delivery["delivery_id"], "delivery-1");
    assert_eq!(delivery["attempts"], 1);
    assert!(!delivery.to_string().contains(&receiver.address.to_string()), "no address is shown: {delivery}");
    assert_eq!(deliveries(&daemon, &format!("run_id={quiet}")), Vec::<Value>::new());
    assert_eq!(home.cli_json(&daemon, &["deliveries", "list", "--run-id", &run])[0]["delivery_id"], "delivery-1");
    assert_eq!(home.cli_json(&daemon, &["deliveries", "get", "delivery-1"])["content"], "go");
    daemon.stop();
    let kinds: Vec<String> = home
        .records(&home.root(), &[])
        .iter()
        .filter_map(|record| record["kind"].as_str().map(str::to_string))
        .collect();
    let place =
        |kind: &str| kinds.iter().rposition(|known| known == kind).unwrap_or_else(|| panic!("{kind}: {kinds:?}"));
    assert_eq!(place("delivery.queued"), place("run.completed") + 1, "one batch: {kinds:?}");
    let (queued, delivered) = (place("delivery.queued"), place("delivery.delivered"));
    assert_eq!(
        kinds[queued..=delivered].to_vec(),
        ["delivery.queued", "external_action.request", "external_action.response", "delivery.delivered"]
    );
    home.assert_journal_verifies(&home.root());
}

#[test]
fn what_a_receiver_does_decides_and_every_repeat_has_the_same_key_and_body() {
    let (provider, receiver) = (provider(), Receiver::start());
    let home = Home::new("delivery_answers", Some(&provider));
    let daemon = serve(&home).start();
    let ok = Answer::Status(200, "", "{}");
    let later = Answer::Raw(
        b"HTTP/1.1 429 X\r\nRetry-After: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n".to_vec(),
    );
    let cases: Vec<(&str, Vec<Answer>, &str, u64)> = vec![
        ("/reset", vec![Answer::Reset, Answer::Reset, ok.clone()], "delivered", 3),
        ("/500", vec![Answer::Status(500, "", "no"), ok.clone()], "delivered", 2),
        ("/503", vec![Answer::Status(503, "Retry-After: 1\r\n", ""), ok.clone()], "delivered", 2),
        ("/date", vec![later, ok.clone()], "delivered", 2),
        ("/408", vec![Answer::Status(408, "", ""), ok.clone()], "delivered", 2),
        ("/junk", vec![Answer::Raw(b"SSH-2.0-x\r\n".to_vec()), ok.clone()], "delivered", 2),
        ("/slow", vec![Answer::SlowBody], "delivered", 1),
        ("/huge", vec![Answer::HugeBody], "delivered", 1),
        ("/400", vec![Answer::Status(400, "", "no such room")], "dead_lettered", 1),
        ("/410", vec![Answer::Status(410, "", "gone")], "dead_lettered", 1),
        ("/301", vec![Answer::Status(301, "Location: http://127.0.0.1:1/\r\n", "")], "dead_lettered", 1),
        ("/never", vec![Answer::Status(500, "", "no")], "dead_lettered", 8),
    ];
    let mut runs = Vec::new();
    for (path, answers, ..) in &cases {
        receiver.script(path, answers.clone());
        daemon.create_session(&path[1..]);
        runs.push(submit(&daemon, &path[1..], &[target(&receiver, path)]));
    }
    for ((path, _, status, attempts), run) in cases.iter().zip(&runs) {
        let delivery = settled(&daemon, run, status);
        assert_eq!(delivery["attempts"], *attempts, "{path}: {delivery}");
        let seen = receiver.at(path);
        assert_eq!(seen.len() as u64, *attempts, "{path}");
        for (attempt, repeat) in seen.iter().enumerate() {
            assert_eq!((repeat.key(), &repeat.body), (seen[0].key(), &seen[0].body), "{path}");
            assert_eq!(repeat.headers["x-kheish-delivery-attempt"], (attempt + 1).to_string(), "{path}");
        }
    }
    let gone = settled(&daemon, &runs[8], "dead_lettered");
    assert_eq!((&gone["last_error"], &gone["http_status"]), (&json!("failed:terminal"), &json!(400)));
    assert_eq!(gone["terminal_error"], "the receiver answered 400: no such room");
    daemon.stop();
    home.assert_journal_verifies(&home.root());
}

#[test]
fn a_target_gets_its_deliveries_one_at_a_time_and_in_order() {
    let (provider, receiver) = (provider(), Receiver::start());
    let home = Home::new("delivery_order", Some(&provider));
    let daemon = serve(&home).start();
    receiver.script("/a", vec![Answer::Status(500, "", ""), Answer::Status(200, "", "")]);
    daemon.create_session("s");
    let runs: Vec<String> = (0..8).map(|_| submit(&daemon, "s", &[target(&receiver, "/a")])).collect();
    settled(&daemon, &runs[7], "delivered");
    let order: Vec<String> = receiver
        .at("/a")
        .iter()
        .map(|seen| serde_json::from_str::<Value>(&seen.body).expect("JSON")["metadata"]["run_id"].to_string())
        .collect();
    let mut expected: Vec<String> = runs.iter().map(|run| format!("{run:?}")).collect();
    // The first one is refused once; nobody passes it.
    expected.insert(0, expected[0].clone());
    assert_eq!(order, expected);
    daemon.stop();
}

#[test]
fn dead_targets_hold_at_most_their_share_of_the_senders_and_a_proven_one_never_waits_for_them() {
    let (provider, receiver) = (provider(), Receiver::start());
    let home = Home::new("delivery_share", Some(&provider));
    let daemon = serve(&home).start();
    daemon.create_session("healthy");
    let first = submit(&daemon, "healthy", &[target(&receiver, "/healthy")]);
    settled(&daemon, &first, "delivered");
    // More than there are senders. All of them begin at once, so that none is given up before the others were looked at.
    home.cli(&daemon, &["runtime", "hold"]);
    let dead = DELIVERY_SENDERS + 4;
    for number in 0..dead {
        let path = format!("/dead/{number}");
        receiver.script(&path, vec![Answer::Stall]);
        let session = format!("dead-{number}");
        daemon.create_session(&session);
        submit(&daemon, &session, &[target(&receiver, &path)]);
    }
    home.cli(&daemon, &["runtime", "release"]);
    receiver.wait("the dead targets' share", |_, stalled| (stalled == DELIVERY_SENDERS_UNPROVEN_MAX).then_some(()));
    let healthy: Vec<String> = (0..8).map(|_| submit(&daemon, "healthy", &[target(&receiver, "/healthy")])).collect();
    for run in &healthy {
        settled(&daemon, run, "delivered");
    }
    // All the while the dead ones had what they may have and no sender more.
    receiver.wait("the share still", |_, stalled| (stalled == DELIVERY_SENDERS_UNPROVEN_MAX).then_some(()));
    assert_eq!(
        receiver.seen().iter().filter(|seen| seen.path.starts_with("/dead")).count(),
        DELIVERY_SENDERS_UNPROVEN_MAX
    );
    receiver.open();
    eventually("all delivered", || (deliveries(&daemon, "status=delivered").len() == dead + 9).then_some(()));
    daemon.stop();
}

#[test]
fn dead_letters_are_counted_replayed_resolved_and_dropped() {
    let (provider, receiver) = (provider(), Receiver::start());
    let home = Home::new("delivery_ledger", Some(&provider));
    let daemon = serve(&home).start();
    daemon.create_session("s");
    let gone = Answer::Status(410, "", "gone");
    receiver.script("/x", vec![gone.clone()]);
    let runs: Vec<String> = (0..3).map(|_| submit(&daemon, "s", &[target(&receiver, "/x")])).collect();
    runs.iter().for_each(|run| drop(settled(&daemon, run, "dead_lettered")));
    let unresolved = |daemon: &Daemon| daemon.get("/v1/status").json()["delivery"]["unresolved_dead_lettered"].clone();
    assert_eq!(unresolved(&daemon), 3);
    let dry = home.cli_json(&daemon, &["deliveries", "replay-bulk", "--dry-run"]);
    assert_eq!((&dry["matched"], &dry["replayed"]), (&json!(3), &json!(0)), "{dry}");
    receiver.open();
    let replayed = home.cli_json(&daemon, &["deliveries", "replay", "delivery-1"]);
    assert_eq!(replayed["delivery"]["delivery_id"], "delivery-4");
    eventually("the replay", || (deliveries(&daemon, "status=delivered").len() == 1).then_some(()));
    let seen = receiver.at("/x");
    assert_eq!((seen[3].key(), &seen[3].body), (seen[0].key(), &seen[0].body), "a replay is the same delivery again");
    let source = home.cli_json(&daemon, &["deliveries", "get", "delivery-1"]);
    assert_eq!(source["dead_letter_resolution_reason"], "delivered by a replay");
    let again = home.cli_json(&daemon, &["deliveries", "replay", "delivery-1"]);
    assert_eq!(again["delivery"]["delivery_id"], "delivery-4", "an existing replay is returned");
    let forced = home.cli_json(&daemon, &["deliveries", "replay", "delivery-1", "--force"]);
    assert_eq!(forced["delivery"]["delivery_id"], "delivery-5");
    let seen = receiver.wait_count("/x", 5);
    assert_ne!(seen[4].key(), seen[0].key(), "forced: really again");
    eventually("its record", || (deliveries(&daemon, "status=delivered").len() == 2).then_some(()));
    for reason in ["known", "another"] {
        let resolved = home.cli_json(&daemon, &["deliveries", "resolve", "delivery-2", "--reason", reason]);
        assert_eq!(resolved["dead_letter_resolution_reason"], "known", "the first reason stays");
    }
    let dropped = home.cli_json(&daemon, &["deliveries", "drop", "--older-than", "0s"]);
    assert_eq!(dropped, json!({"dropped": 1, "truncated": false}));
    assert_eq!(unresolved(&daemon), 0);
    let (code, _, error) = home.cli(&daemon, &["deliveries", "reset-backpressure"]);
    assert!(code != 0 && error.contains("delivery_backpressure_selector_required"), "{error}");
    let (code, _, error) = home.cli(&daemon, &["deliveries", "get", "delivery-99"]);
    assert!(code != 0 && error.contains("delivery_not_found"), "{error}");
    let figures = |daemon: &Daemon| {
        let all = deliveries(daemon, "");
        all.iter().map(|item| (item["delivery_id"].clone(), item["status"].clone())).collect::<Vec<_>>()
    };
    let before = figures(&daemon);
    daemon.stop();
    let daemon = serve(&home).start();
    assert_eq!(figures(&daemon), before, "a restart tells the same");
    daemon.stop();
}

#[test]
fn deliveries_of_a_run_are_told_from_its_records_like_those_in_memory() {
    let (provider, receiver) = (provider(), Receiver::start());
    let home = Home::new("delivery_history", Some(&provider));
    let daemon = serve(&home).start();
    daemon.create_session("s");
    let gone = Answer::Status(410, "", "gone");
    for path in ["/replayed", "/resolved", "/dead"] {
        receiver.script(path, vec![gone.clone(), Answer::Status(200, "", "")]);
    }
    receiver.script("/waits", vec![Answer::Status(503, "Retry-After: 3600\r\n", "")]);
    let targets: Vec<Value> =
        ["/taken", "/replayed", "/resolved", "/dead", "/waits"].map(|path| target(&receiver, path)).into();
    let run = submit(&daemon, "s", &targets);
    let count = |status: &str| deliveries(&daemon, &format!("run_id={run}&status={status}")).len();
    eventually("their first ends", || {
        (count("delivered") == 1 && count("dead_lettered") == 3 && count("retrying") == 1).then_some(())
    });
    // Its id is its place among the run's targets.
    home.cli_json(&daemon, &["deliveries", "replay", "delivery-2"]);
    home.cli_json(&daemon, &["deliveries", "resolve", "delivery-3", "--reason", "known"]);
    eventually("the replay", || (count("delivered") == 2).then_some(()));
    let other = submit(&daemon, "s", &[target(&receiver, "/other")]);
    settled(&daemon, &other, "delivered");
    let of_memory: Vec<Value> =
        deliveries(&daemon, "").into_iter().filter(|delivery| delivery["run_id"] == json!(run)).collect();
    assert_eq!(of_memory.len(), 6);
    assert_eq!(deliveries(&daemon, &format!("run_id={run}")), of_memory, "the same, in the same order");
    for status in ["pending", "retrying", "delivered", "dead_lettered"] {
        let expected: Vec<Value> = of_memory.iter().filter(|one| one["status"] == status).cloned().collect();
        assert_eq!(deliveries(&daemon, &format!("run_id={run}&status={status}")), expected, "{status}");
    }
    let paged = daemon.get(&format!("/v1/deliveries?run_id={run}&page=true&limit=4")).json();
    assert_eq!(paged["pagination"]["total_count"], json!(6), "{paged}");
    let next = paged["pagination"]["next_cursor"].as_str().expect("more");
    let rest = daemon.get(&format!("/v1/deliveries?run_id={run}&page=true&limit=4&cursor={next}")).json();
    let both = [&paged["items"], &rest["items"]].map(|page| page.as_array().expect("a page").clone()).concat();
    assert_eq!(both, of_memory);
    let mut of_run: Vec<Value> = daemon.run(&run)["deliveries"].as_array().expect("a list").clone();
    let by_id = |delivery: &Value| delivery["delivery_id"].as_str().expect("an id").to_string();
    let mut sorted = of_memory.clone();
    sorted.sort_by_key(by_id);
    of_run.sort_by_key(by_id);
    assert_eq!(of_run, sorted, "the run's view has them too");
    assert_eq!(daemon.get("/v1/deliveries?run_id=run-99").json(), json!([]));
    daemon.stop();
}

#[test]
fn a_revoked_secret_ends_the_request_that_carries_it_and_the_delivery_goes_on_with_the_next_one() {
    let (provider, receiver) = (provider(), Receiver::start());
    let home = Home::with_slot("delivery_revoked", Some(&provider));
    let daemon = serve(&home).start();
    daemon.set_key("sk-route-0000000000000000");
    let set = |value: &str| {
        let args = ["secrets", "set", "deliveries.token", "--provider", "generic", "--value", value];
        home.cli_json(&daemon, &args)
    };
    set("token-0123456789abcdef-one");
    daemon.create_session("s");
    receiver.script("/x", vec![Answer::Stall, Answer::Status(200, "", "")]);
    let target = json!({"type": "http", "url": format!("http://{}/x", receiver.address), "allow_private_network": true,
        "bearer_secret_ref": "deliveries.token"});
    let run = submit(&daemon, "s", &[target]);
    receiver.wait("a stalled request", |_, stalled| (stalled > 0).then_some(()));
    home.cli_json(&daemon, &["runtime", "auth", "revoke-slot", "deliveries.token"]);
    // Nobody opens the receiver: only the revocation can have ended the request.
    let waiting = settled(&daemon, &run, "retrying");
    assert_eq!(waiting["last_error"], "failed:credential", "{waiting}");
    assert_eq!(receiver.at("/x").len(), 1);
    set("token-0123456789abcdef-two");
    settled(&daemon, &run, "delivered");
    let seen = receiver.at("/x");
    assert_eq!(seen[1].headers["authorization"], "Bearer token-0123456789abcdef-two");
    assert_eq!((seen[0].key(), &seen[0].body), (seen[1].key(), &seen[1].body));
    daemon.stop();
}

#[test]
fn a_killed_daemon_loses_no_delivery_and_repeats_the_same_bytes() {
    let (provider, receiver) = (provider(), Receiver::start());
    let home = Home::new("delivery_kill", Some(&provider));
    let rounds: usize = std::env::var("KHEISH_DELIVERY_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let mut runs: Vec<(String, String)> = Vec::new();
    for round in 0..rounds {
        let daemon = serve(&home).start();
        for number in 0..4 {
            let path = format!("/{round}/{number}");
            // Taken, refused once, cut off, or held until the daemon is gone.
            receiver.script(
                &path,
                vec![
                    [Answer::Status(200, "", ""), Answer::Status(500, "", ""), Answer::Reset, Answer::Stall][number]
                        .clone(),
                    Answer::Status(200, "", ""),
                ],
            );
            let session = format!("s-{round}-{number}");
            daemon.create_session(&session);
            runs.push((submit(&daemon, &session, &[target(&receiver, &path)]), path));
        }
        // Somewhere between the requests' records and those of their outcomes.
        receiver.wait_count(&format!("/{round}/{}", round % 4), 1);
        daemon.kill();
    }
    receiver.open();
    let daemon = serve(&home).start();
    for (run, path) in &runs {
        let delivery = eventually(&format!("{run} delivered"), || {
            deliveries(&daemon, &format!("run_id={run}")).into_iter().find(|delivery| delivery["status"] == "delivered")
        });
        let seen = receiver.at(path);
        assert!(!seen.is_empty(), "{delivery}");
        for repeat in &seen {
            assert_eq!((repeat.key(), &repeat.body), (seen[0].key(), &seen[0].body), "{path}");
        }
        let one = deliveries(&daemon, &format!("run_id={run}"));
        assert_eq!(one.len(), 1, "each run owes one: {one:?}");
    }
    let keys: std::collections::HashSet<String> = receiver.seen().iter().map(|seen| seen.key().to_string()).collect();
    assert_eq!(keys.len(), runs.len(), "no key stands for two outputs");
    daemon.stop();
    home.assert_journal_verifies(&home.root());
}

#[test]
fn a_copied_root_sends_nothing_until_it_is_released() {
    let (provider, receiver) = (provider(), Receiver::start());
    let home = Home::new("delivery_copy", Some(&provider));
    receiver.script("/x", vec![Answer::Stall]);
    let daemon = serve(&home).start();
    daemon.create_session("s");
    let run = submit(&daemon, "s", &[target(&receiver, "/x")]);
    receiver.wait_count("/x", 1);
    daemon.kill();
    let copy = home.join("copy");
    let copied = std::process::Command::new("cp").arg("-a").arg(home.root()).arg(&copy).status().expect("cp runs");
    assert!(copied.success());
    let daemon = serve(&home).root(&copy).start();
    let hold = daemon.get("/v1/deliveries/hold").json();
    assert_eq!(hold, json!({"held": true, "reason": "copied_state_root"}));
    let warned = daemon.get("/v1/status").json();
    assert_eq!((&warned["delivery"]["held"], &warned["delivery"]["pending"]), (&json!(true), &json!(1)), "{warned}");
    let codes: Vec<&Value> =
        warned["health"]["warnings"].as_array().expect("a list").iter().map(|warning| &warning["code"]).collect();
    assert!(codes.contains(&&json!("deliveries_held")), "{codes:?}");
    let later = submit(&daemon, "s", &[target(&receiver, "/x")]);
    assert_eq!(daemon.wait_end(&later), "completed");
    let waiting = deliveries(&daemon, "status=pending");
    assert_eq!(waiting.len(), 2, "{waiting:?}");
    let id = waiting[1]["delivery_id"].as_str().expect("an id").to_string();
    assert!(id.starts_with("delivery-2-"), "ids of the copy say so: {id}");
    assert_eq!(receiver.seen().len(), 1, "the original's");
    receiver.open();
    home.cli_json(&daemon, &["deliveries", "release"]);
    settled(&daemon, &run, "delivered");
    settled(&daemon, &later, "delivered");
    let seen = receiver.at("/x");
    assert_eq!((seen[1].key(), &seen[1].body), (seen[0].key(), &seen[0].body), "as the original sent it");
    assert_ne!(seen[2].key(), seen[0].key());
    daemon.stop();
}

#[test]
fn a_stop_waits_for_what_is_in_flight_and_cuts_off_what_takes_too_long() {
    let (provider, receiver) = (provider(), Receiver::start());
    let home = Home::new("delivery_stop", Some(&provider));
    receiver.script("/x", vec![Answer::Stall]);
    let daemon = serve(&home).start();
    daemon.create_session("s");
    let run = submit(&daemon, "s", &[target(&receiver, "/x")]);
    receiver.wait_count("/x", 1);
    // Nobody opens: the drain ends by itself.
    daemon.stop();
    receiver.open();
    let daemon = serve(&home).start();
    let delivery = settled(&daemon, &run, "delivered");
    assert_eq!(delivery["attempts"], 1, "what was cut off counts for nothing");
    let seen = receiver.at("/x");
    assert_eq!((seen[0].key(), &seen[0].body), (seen[1].key(), &seen[1].body));
    daemon.stop();
}

#[test]
fn secrets_of_targets_sign_and_prove_and_are_shown_nowhere() {
    let (provider, receiver) = (provider(), Receiver::start());
    let home = Home::with_slot("delivery_secret", Some(&provider));
    let daemon = serve(&home).start();
    daemon.set_key("sk-route-0000000000000000");
    for (slot, value) in [("deliveries.token", "token-0123456789abcdef"), ("deliveries.hmac", "hmac-0123456789abcdef")]
    {
        let (code, _, error) = home.cli(&daemon, &["secrets", "set", slot, "--provider", "generic", "--value", value]);
        assert_eq!(code, 0, "{error}");
    }
    daemon.create_session("s");
    let url = format!("http://{}/x?a=b", receiver.address);
    let target = json!({"type": "http", "url": url, "allow_private_network": true, "headers": {"X-Room": "ops"},
        "bearer_secret_ref": "deliveries.token", "hmac_secret_ref": "deliveries.hmac"});
    let run = submit(&daemon, "s", &[target]);
    settled(&daemon, &run, "delivered");
    let seen = &receiver.seen()[0];
    assert_eq!(seen.headers["authorization"], "Bearer token-0123456789abcdef");
    assert_eq!(seen.headers["x-room"], "ops");
    let signed = format!("v1:POST:/x?a=b:{}:{}", seen.headers["x-kheish-timestamp"], seen.body);
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"hmac-0123456789abcdef");
    let tag: String = ring::hmac::sign(&key, signed.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(seen.headers["x-kheish-signature"], format!("v1={tag}"));
    let refused = json!({"content": "go", "reply_targets": [
        {"plugin": "http", "address": format!("{url}&t=token-0123456789abcdef")}]});
    let reply = daemon.post("/v1/sessions/s/runs", &refused);
    assert_eq!(reply.refusal(), (400, "invalid_reply_target".to_string()));
    daemon.stop();
    for record in home.records(&home.root(), &[]) {
        assert!(!record.to_string().contains("0123456789abcdef"), "{record}");
    }
}

#[test]
fn connectors_are_a_way_out_with_their_own_credentials_and_places() {
    let (provider, receiver) = (provider(), Receiver::start());
    let home = Home::with_slot("delivery_connectors", Some(&provider));
    let daemon = serve(&home).start();
    daemon.set_key("sk-route-0000000000000000");
    let base = format!("http://{}", receiver.address);
    let put = |kind: &str, name: &str, config: Value| {
        home.cli_json(&daemon, &["connectors", kind, name, "--json", &config.to_string()]);
    };
    put(
        "put-external",
        "ops",
        json!({"platform": "webhook", "mode": "remote_http", "base_url": base, "allow_private_network": true,
            "shared_token": {"value": "shared-0123456789abcdef"}}),
    );
    put(
        "put-telegram",
        "chat",
        json!({"ingress_mode": "webhook", "bot_token": {"value": "123456:telegram-0123456789"}, "api_base_url": base,
            "allow_unauthenticated_ingress": true, "allowed_chat_ids": [7]}),
    );
    let taken = r#"{"status":"committed"}"#;
    let denied = Answer::Status(401, "", r#"{"error":"unauthorized"}"#);
    receiver.script("/deliver", vec![denied, Answer::Status(200, "", taken)]);
    receiver.script("/bot123456:telegram-0123456789/sendMessage", vec![Answer::Status(200, "", r#"{"ok":true}"#)]);
    let mut runs = Vec::new();
    for (session, target) in [
        ("a", json!({"type": "external", "connector": "ops", "route": "{}"})),
        ("b", json!({"type": "telegram", "connector": "chat", "chat_id": 7})),
        ("c", json!({"type": "telegram", "connector": "chat", "chat_id": 8})),
        ("d", json!({"type": "slack", "connector": "none", "channel_id": "C1"})),
    ] {
        daemon.create_session(session);
        runs.push(submit(&daemon, session, &[target]));
    }
    settled(&daemon, &runs[0], "delivered");
    settled(&daemon, &runs[1], "delivered");
    let foreign = settled(&daemon, &runs[2], "dead_lettered");
    assert!(foreign["terminal_error"].to_string().contains("allowed_chat_ids"), "{foreign}");
    let unknown = settled(&daemon, &runs[3], "dead_lettered");
    assert!(unknown["terminal_error"].to_string().contains("no slack connector"), "{unknown}");
    let seen = receiver.at("/deliver");
    assert_eq!(seen.len(), 2, "a sidecar that knows another token is asked again");
    assert_eq!(seen[1].headers["authorization"], "Bearer shared-0123456789abcdef");
    let body: Value = serde_json::from_str(&seen[1].body).expect("JSON");
    assert_eq!(
        (&body["protocol_version"], &body["reply_route"], &body["content"]),
        (&json!(1), &json!("{}"), &json!("go"))
    );
    let message = receiver.wait_count("/bot123456:telegram-0123456789/sendMessage", 1);
    assert_eq!(message[0].body, r#"{"chat_id":7,"text":"go"}"#);
    assert!(!message[0].headers.contains_key("authorization"));
    daemon.stop();
    for record in home.records(&home.root(), &[]) {
        assert!(!record.to_string().contains("0123456789"), "{record}");
    }
}
