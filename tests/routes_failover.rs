//! Routes that fail and routes that are full, through the whole daemon: where a run goes on, and who waits for whom.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use daemon::{Daemon, Home, Place, Provider, eventually};
use serde_json::{Value, json};

fn route(id: &str, driver: &str, provider: &Provider, more: &str) -> String {
    let address = provider.address;
    format!(
        "[routes.{id}]\ndriver = \"{driver}\"\ndefault_model = \"model-of-{id}\"\nmodel_support = \"any\"\n\
         base_url = \"http://{address}/v1\"\n{more}\n"
    )
}

fn home(test: &str, routes: &[String]) -> Home {
    Home::with_routes(Place::new(test), &format!("version = 1\ndefault_route = \"main\"\n{}", routes.concat()))
}

fn submit(daemon: &Daemon, session: &str, text: &str, route: &str) -> String {
    daemon.create_session(session);
    let reply = daemon.post(&format!("/v1/sessions/{session}/runs"), &json!({"content": text, "provider": route}));
    assert_eq!(reply.status, 202, "{reply:?}");
    reply.json()["run_id"].as_str().expect("an id").to_string()
}

fn output(run: &Value) -> &str {
    run["outputs"][0]["content"].as_str().unwrap_or_default()
}

/// The moves of a run: from, to, why.
fn moves(run: &Value) -> Vec<[&str; 3]> {
    let moves = run["failovers"].as_array().map(Vec::as_slice).unwrap_or_default();
    moves.iter().map(|it| ["from_route", "to_route", "reason"].map(|key| it[key].as_str().expect("a text"))).collect()
}

#[test]
fn a_run_whose_route_fails_goes_on_with_the_next_one_and_stays_there() {
    let first = Provider::start(
        "[[turn]]\nmatch = \"is broke\"\nerror = { status = 402 }\n\
         [[turn]]\nmatch = \"wait long\"\nerror = { status = 429, retry_after = \"300\" }\n\
         [[turn]]\nmatch = \"no key\"\nerror = { status = 401 }\n\
         [[turn]]\nmatch = \"filtered\"\nfault = { kind = \"incomplete\", code = \"content_filter\" }\n",
    );
    let second = Provider::start(
        "[[turn]]\nmatch = \"wait long\"\nerror = { status = 529, should_retry = false }\n\
         [[turn]]\nmatch = \"is broke\"\nmatch_result = \"unknown\"\ntext = \"done at the second\"\n\
         [[turn]]\nmatch = \"is broke\"\ntool_calls = [{ name = \"no_such_tool\", arguments = \"{}\" }]\n",
    );
    let third = Provider::start("[[turn]]\nmatch = \"wait long\"\ntext = \"done at the third\"\n");
    let home = home(
        "failover",
        &[
            route("main", "openai", &first, "failover = \"second\""),
            route("second", "anthropic", &second, "failover = \"third\""),
            route("third", "openai_compatible", &third, ""),
        ],
    );
    let daemon = home.start();

    // A call of a tool and its result are told to the second route, which is asked for the rest of the run.
    let run = submit(&daemon, "a", "the first is broke", "main");
    assert_eq!(daemon.wait_end(&run), "completed");
    let view = daemon.run(&run);
    assert_eq!((output(&view), moves(&view)), ("done at the second", vec![["main", "second", "provider_quota"]]));
    assert_eq!(view["request"]["provider"], "main", "what was pinned stays on record");
    assert_eq!(view["failovers"][0]["to_model"], "model-of-second");
    assert_eq!((first.requests().len(), second.requests().len()), (1, 2));
    let events = daemon.events_of(&run);
    assert_eq!(events.iter().filter(|event| *event == "route_failover").count(), 1, "{events:?}");

    // Over two routes. A hint that is too long to wait for, and an error that is not to be tried again.
    let run = submit(&daemon, "b", "wait long", "main");
    assert_eq!(daemon.wait_end(&run), "completed");
    let view = daemon.run(&run);
    let expected = vec![["main", "second", "provider_rate_limit"], ["second", "third", "provider_overload"]];
    assert_eq!((output(&view), moves(&view)), ("done at the third", expected));

    // The next run begins where it was sent to.
    let before = first.requests().len();
    let run = submit(&daemon, "b", "the first is broke", "main");
    daemon.wait_end(&run);
    assert_eq!(first.requests().len(), before + 1);

    // What is for people, and a route at the end of the chain, fails the run.
    let second_before = second.requests().len();
    for (text, route, code) in [("no key", "main", "provider_auth"), ("filtered", "main", "provider_content_filter")] {
        let run = submit(&daemon, "c", text, route);
        assert_eq!(daemon.wait_end(&run), "failed", "{text}");
        let view = daemon.run(&run);
        assert_eq!((&view["error"]["code"], moves(&view)), (&json!(code), vec![]), "{text}");
    }
    assert_eq!(second.requests().len(), second_before);
    daemon.stop();
    home.assert_journal_verifies(&home.root());
}

#[test]
fn text_that_a_failing_route_has_shown_is_taken_back_before_the_next_one_speaks() {
    let first = Provider::start(
        "[[turn]]\nmatch = \"speak\"\ntext = \"one two three four\"\nchunk_chars = 4\n\
         fault = { kind = \"disconnect\", after_frames = 6 }\n",
    );
    let second = Provider::start("[[turn]]\nmatch = \"speak\"\ntext = \"alpha beta\"\nchunk_chars = 3\n");
    let home = home(
        "failover-previews",
        &[route("main", "openai", &first, "failover = \"second\""), route("second", "google", &second, "")],
    );
    let daemon = home.start();
    daemon.create_session("s");
    let mut stream = daemon.stream("/v1/events/stream?session_id=s");
    let run = submit(&daemon, "s", "speak", "main");
    let (mut shown, mut text) = (String::new(), None);
    stream.until("the end of the run", |frame| {
        let event = frame.json();
        match frame.event.as_str() {
            "preview" if event["withdrawn"] == true => shown.clear(),
            "preview" => shown.push_str(event["text"].as_str().expect("a text")),
            "output" => text = event["output"]["content"].as_str().map(str::to_string),
            _ => {}
        }
        frame.run_status().is_some_and(|(_, status)| http::is_terminal(&status))
    });
    assert_eq!((shown.as_str(), text.as_deref()), ("alpha beta", Some("alpha beta")));
    assert_eq!(moves(&daemon.run(&run)), [["main", "second", "provider_malformed_stream"]]);
    assert_eq!((first.requests().len(), second.requests().len()), (4, 1), "the route's own attempts come first");
}

#[test]
fn a_restart_goes_on_where_the_failover_had_led() {
    let first = Provider::start("[[turn]]\nmatch = \"go\"\nerror = { status = 402 }\n");
    let second = Provider::start(
        "[[turn]]\nmatch = \"go\"\ntimes = 1\ntext = \"x\"\nfault = { kind = \"hang\", after_frames = 1 }\n\
         [[turn]]\nmatch = \"go\"\ntext = \"after the restart\"\n",
    );
    let home = home(
        "failover-restart",
        &[route("main", "openai", &first, "failover = \"second\""), route("second", "xai", &second, "")],
    );
    let daemon = home.start();
    let run = submit(&daemon, "s", "go", "main");
    second.wait_asked("go", 1);
    daemon.kill();
    let daemon = home.start();
    assert_eq!(daemon.wait_end(&run), "completed");
    let view = daemon.run(&run);
    assert_eq!((output(&view), moves(&view)), ("after the restart", vec![["main", "second", "provider_quota"]]));
    assert_eq!(first.requests().len(), 1, "the first route is not asked again");
}

fn concurrency(daemon: &Daemon, route: &str) -> Value {
    let status = daemon.get("/v1/status").json();
    let routes = status["provider_readiness"]["routes"].as_array().expect("a list").clone();
    routes.into_iter().find(|it| it["route_id"] == route).expect("the route")["concurrency"].clone()
}

fn until(daemon: &Daemon, in_flight: u64, waiting: u64) {
    eventually(&format!("{in_flight} in flight, {waiting} waiting"), || {
        let now = concurrency(daemon, "main");
        (now["in_flight"] == in_flight && now["waiting"] == waiting).then_some(())
    });
}

#[test]
fn a_full_route_is_entered_in_order_holds_no_engine_and_waiting_can_be_stopped() {
    // More runs than there are engines.
    const WAITING: usize = 20;
    let provider = Provider::start("[[turn]]\nmatch = \"hold\"\ntext = \"x\"\nfault = { kind = \"hang\" }\n");
    let home = home(
        "lanes",
        &[route("main", "openai", &provider, "max_concurrency = 1"), route("free", "openai_compatible", &provider, "")],
    );
    let daemon = home.start();
    let hold = submit(&daemon, "hold", "hold", "main");
    until(&daemon, 1, 0);
    let mut waiting = Vec::new();
    for number in 1..=WAITING {
        let run = submit(&daemon, &format!("w{number}"), &format!("number {number};"), "main");
        until(&daemon, 1, number as u64);
        waiting.push(run);
    }
    assert_eq!(concurrency(&daemon, "main")["max_concurrency"], 1);
    assert!(concurrency(&daemon, "main")["oldest_wait_ms"].is_u64());
    assert_eq!(concurrency(&daemon, "free"), Value::Null);
    assert_eq!(provider.requests().len(), 1);

    // Twenty runs wait and sixteen engines are free.
    let other = submit(&daemon, "other", "quick", "free");
    assert_eq!(daemon.wait_end(&other), "completed");

    // One that waits is stopped at once; then the one that holds the place.
    let stopped = waiting.remove(2);
    assert_eq!(daemon.post(&format!("/v1/runs/{stopped}/cancel"), &json!({})).status, 200);
    assert_eq!(daemon.wait_end(&stopped), "cancelled");
    until(&daemon, 1, WAITING as u64 - 1);
    assert_eq!(daemon.post(&format!("/v1/runs/{hold}/cancel"), &json!({})).status, 200);
    for run in &waiting {
        assert_eq!(daemon.wait_end(run), "completed");
    }
    until(&daemon, 0, 0);
    let asked: Vec<String> =
        provider.requests().into_iter().map(|(_, body)| body).filter(|body| body.contains("number ")).collect();
    let order = (1..=WAITING).filter(|number| *number != 3);
    assert_eq!(asked.len(), WAITING - 1);
    for (body, number) in asked.iter().zip(order) {
        assert!(body.contains(&format!("number {number};")), "{number} is next, not {body}");
    }
    // Runs that wait survive a restart.
    let hold = submit(&daemon, "hold", "hold", "main");
    until(&daemon, 1, 0);
    let late = submit(&daemon, "late", "number 99;", "main");
    until(&daemon, 1, 1);
    daemon.kill();
    let daemon = home.start();
    assert_eq!(daemon.post(&format!("/v1/runs/{hold}/cancel"), &json!({})).status, 200);
    assert_eq!(daemon.wait_end(&late), "completed");
}

#[test]
fn a_failover_to_a_full_route_takes_back_what_was_shown_and_stands_in_line() {
    let first = Provider::start(
        "[[turn]]\nmatch = \"speak\"\ntext = \"one two three\"\nchunk_chars = 4\n\
         fault = { kind = \"error_event\", code = \"insufficient_quota\", after_frames = 5 }\n",
    );
    let second = Provider::start(
        "[[turn]]\nmatch = \"hold\"\ntext = \"x\"\nfault = { kind = \"hang\" }\n[default]\ntext = \"one by one\"\n",
    );
    let home = home(
        "failover-full",
        &[
            route("main", "openai", &first, "failover = \"second\""),
            route("second", "openai_compatible", &second, "max_concurrency = 1"),
        ],
    );
    let daemon = home.start();
    let hold = submit(&daemon, "hold", "hold", "second");
    eventually("the place is taken", || (concurrency(&daemon, "second")["in_flight"] == 1).then_some(()));
    daemon.create_session("s");
    let mut stream = daemon.stream("/v1/events/stream?session_id=s");
    let run = submit(&daemon, "s", "speak", "main");
    let mut shown = String::new();
    let mut take = |frame: &http::Frame| match frame.event.as_str() {
        "preview" if frame.json()["withdrawn"] == true => {
            shown.clear();
            true
        }
        "preview" => {
            shown.push_str(frame.json()["text"].as_str().expect("a text"));
            false
        }
        _ => false,
    };
    stream.until("what was shown is taken back", &mut take);
    eventually("it stands in line", || (concurrency(&daemon, "second")["waiting"] == 1).then_some(()));
    assert_eq!(daemon.status_of(&run), "running");
    assert_eq!(daemon.post(&format!("/v1/runs/{hold}/cancel"), &json!({})).status, 200);
    stream.until("the end of the run", |frame| {
        take(frame);
        frame.run_status().is_some_and(|(_, status)| http::is_terminal(&status))
    });
    assert_eq!((shown.as_str(), output(&daemon.run(&run))), ("one by one", "one by one"));
    assert_eq!(moves(&daemon.run(&run)), [["main", "second", "provider_quota"]]);
}

#[test]
fn the_submissions_other_model_comes_before_the_routes_failover() {
    let first = Provider::start(
        "[[turn]]\nmatch = \"down\"\nerror = { status = 402 }\n[[turn]]\nmatch = \"half\"\ntimes = 1\nerror = { status = 402 }\n[default]\ntext = \"other model\"\n",
    );
    let second = Provider::start("[default]\ntext = \"other route\"\n");
    let home = home(
        "failover-model",
        &[
            route("main", "openai", &first, "failover = \"second\"\nmax_concurrency = 1"),
            route("second", "anthropic", &second, ""),
        ],
    );
    let daemon = home.start();
    daemon.create_session("s");
    let run = |text: &str| {
        let view = home.cli_json(&daemon, &["sessions", "input", "s", text, "--fallback-model", "small", "--wait"]);
        let models = |key: &str| -> Vec<String> {
            let moves = view["failovers"].as_array().expect("moves").iter();
            moves
                .map(|it| {
                    format!(
                        "{}/{}",
                        it[format!("{key}_route")].as_str().unwrap(),
                        it[format!("{key}_model")].as_str().unwrap()
                    )
                })
                .collect()
        };
        (output(&view).to_string(), models("from"), models("to"))
    };
    let texts = |list: &[&str]| list.iter().map(|text| text.to_string()).collect::<Vec<_>>();
    assert_eq!(run("half"), ("other model".to_string(), texts(&["main/model-of-main"]), texts(&["main/small"])));
    let expected = (
        "other route".to_string(),
        texts(&["main/model-of-main", "main/small"]),
        texts(&["main/small", "second/model-of-second"]),
    );
    assert_eq!(run("down"), expected);
    let asked: Vec<Value> = first
        .requests()
        .iter()
        .map(|(_, body)| serde_json::from_str::<Value>(body).expect("JSON")["model"].clone())
        .collect();
    assert_eq!(asked, ["model-of-main", "small", "model-of-main", "small"]);
    assert_eq!(concurrency(&daemon, "main")["in_flight"], 0);
}

#[test]
fn a_credential_that_is_taken_away_is_not_got_around_by_a_failover() {
    let first = Provider::start("[default]\ntext = \"x\"\nfault = { kind = \"hang\" }\n");
    let second = Provider::start("[default]\ntext = \"other route\"\n");
    let home = Home::with_slot("failover-revoked", Some(&first));
    let slot = format!("failover = \"second\"\nauth_ref = \"{}\"", daemon::SLOT);
    let routes = [route("main", "openai", &first, &slot), route("second", "anthropic", &second, "")].concat();
    std::fs::write(home.join("routes.toml"), format!("default_route = \"main\"\n{routes}")).expect("written");
    let daemon = home.start();
    daemon.set_key("sk-of-a-test-0123456789");
    let run = submit(&daemon, "s", "hello", "main");
    first.wait_asked("hello", 1);
    home.cli_json(&daemon, &["runtime", "auth", "revoke-slot", daemon::SLOT]);
    assert_eq!(daemon.wait_end(&run), "failed");
    let view = daemon.run(&run);
    assert_eq!((&view["error"]["code"], moves(&view)), (&json!("provider_auth"), vec![]), "{view}");
    assert_eq!(second.requests().len(), 0);
}
