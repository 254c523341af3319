//! Answers and input that are held to a JSON Schema, through the whole daemon.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

#[allow(dead_code, reason = "a part of it is used")]
#[path = "support/rng.rs"]
mod rng;

use daemon::{Daemon, Home, Place, Provider};
use kheish_daemon::contract::{accept, canonical, contract_issues};
use rng::Rng;
use serde_json::{Value, json};

const DRIVERS: [(&str, &str); 6] = [
    ("openai", "/v1"),
    ("openai_compatible", "/v1"),
    ("anthropic", ""),
    ("google", "/v1beta"),
    ("openrouter", "/v1"),
    ("xai", "/v1"),
];

fn schema() -> Value {
    json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false})
}

fn structured(repairs: Option<u32>) -> Value {
    let mut format = json!({"type": "structured_json", "schema": schema()});
    if let Some(repairs) = repairs {
        format["max_repair_attempts"] = json!(repairs);
    }
    json!({ "response_format": format })
}

fn submit(daemon: &Daemon, session: &str, body: Value) -> String {
    daemon.create_session(session);
    let reply = daemon.post(&format!("/v1/sessions/{session}/runs"), &body);
    assert_eq!(reply.status, 202, "{reply:?}");
    reply.json()["run_id"].as_str().expect("an id").to_string()
}

fn asked(provider: &Provider, text: &str) -> Vec<Value> {
    let bodies = provider.requests().into_iter().map(|(_, body)| body).filter(|body| body.contains(text));
    bodies.map(|body| serde_json::from_str(&body).expect("JSON")).collect()
}

/// Every driver is first given an answer that does not fit, then one in a code fence.
#[test]
fn an_answer_that_does_not_fit_is_sent_back_and_the_right_one_comes_out_as_json() {
    let provider = Provider::start(
        "[[turn]]\nmatch = \"does not fit the required format: $.n: is string\"\n\
         text = \"```json\\n{ \\\"n\\\": 7 }\\n```\"\nchunk_chars = 3\n\
         [[turn]]\nmatch = \"a number\"\ntext = '{\"n\":\"seven\"}'\nchunk_chars = 4\n",
    );
    let mut routes = "version = 1\ndefault_route = \"openai\"\n".to_string();
    for (driver, path) in DRIVERS {
        let address = provider.address;
        routes.push_str(&format!(
            "[routes.{driver}]\ndriver = \"{driver}\"\ndefault_model = \"claude-opus-4-8\"\nmodel_support = \"any\"\n\
             base_url = \"http://{address}{path}\"\n"
        ));
    }
    let home = Home::with_routes(Place::new("contracts-drivers"), &routes);
    let daemon = home.start();
    for (driver, _) in DRIVERS {
        daemon.create_session(driver);
        let mut stream = daemon.stream(&format!("/v1/events/stream?session_id={driver}"));
        let body = json!({"content": format!("a number for {driver};"), "provider": driver,
            "generation": structured(None), "budget": {"max_turns": 1}});
        let run = submit(&daemon, driver, body);
        let mut shown = String::new();
        stream.until("the end of the run", |frame| {
            let event = frame.json();
            match frame.event.as_str() {
                "preview" if event["withdrawn"] == true => shown.clear(),
                "preview" => shown.push_str(event["text"].as_str().expect("a text")),
                _ => {}
            }
            frame.run_status().is_some_and(|(_, status)| http::is_terminal(&status))
        });
        let view = daemon.run(&run);
        assert_eq!(view["status"], "completed", "{driver}: a repair is no turn of the budget: {view}");
        let output = &view["outputs"][0];
        assert_eq!((&output["content"], &output["structured_output"]), (&json!("{\"n\":7}"), &json!({"n": 7})));
        assert_eq!(
            (&output["output_kind"], view["outputs"].as_array().map(Vec::len)),
            (&json!("structured_output"), Some(1))
        );
        assert_eq!(shown, "```json\n{ \"n\": 7 }\n```", "{driver}: the rejected answer was taken back");
        let events = daemon.events_of(&run);
        assert_eq!(events.iter().filter(|event| *event == "output_rejected").count(), 1, "{events:?}");
    }
    // The second request holds the first answer, what is wrong with it, and no way to call a tool.
    let second = asked(&provider, "does not fit").into_iter().find(|body| body["input"].is_array()).expect("openai's");
    assert_eq!(second["tool_choice"], "none");
    assert!(second.to_string().contains("seven"), "{second}");
}

#[test]
fn a_run_without_a_fitting_answer_fails_with_what_is_wrong() {
    let provider = Provider::start(
        "[[turn]]\nmatch = \"refuse\"\nrefusal = \"I will not.\"\n\
         [[turn]]\nmatch = \"long\"\ntext = '{\"n\":'\nfault = { kind = \"incomplete\" }\n\
         [default]\ntext = 'seven, I think'\n",
    );
    let home = Home::new("contracts-failed", Some(&provider));
    let daemon = home.start();
    for (text, repairs, asks, words) in [
        ("never fits", None, 2, "after 1 repairs: $: this is not one JSON value"),
        ("never fits, three times", Some(3), 4, "after 3 repairs"),
        ("not again", Some(0), 1, "after 0 repairs"),
        ("refuse", None, 1, "the model declined"),
        ("long", None, 1, "was cut by a limit of length"),
    ] {
        let before = provider.requests().len();
        let run = submit(&daemon, "s", json!({"content": text, "generation": structured(repairs)}));
        assert_eq!(daemon.wait_end(&run), "failed", "{text}");
        let view = daemon.run(&run);
        assert_eq!(view["error"]["code"], "output_contract_violated", "{view}");
        assert!(view["error"]["message"].as_str().expect("a text").contains(words), "{view}");
        assert_eq!((view.get("outputs"), provider.requests().len() - before), (None, asks), "{text}");
    }
    let refused = json!({"content": "x", "generation": structured(Some(6))});
    assert_eq!(daemon.post("/v1/sessions/s/runs", &refused).refusal(), (400, "bad_request".to_string()));
    daemon.stop();
    home.assert_journal_verifies(&home.root());
}

#[test]
fn a_restart_in_the_middle_of_a_repair_goes_on_with_it() {
    let provider = Provider::start(
        "[[turn]]\nmatch = \"does not fit\"\ntimes = 1\ntext = \"x\"\nfault = { kind = \"hang\" }\n\
         [[turn]]\nmatch = \"does not fit\"\ntext = '{\"n\":1}'\n\
         [[turn]]\nmatch = \"what was it\"\ntext = \"one\"\n\
         [default]\ntext = \"one\"\n",
    );
    let home = Home::new("contracts-restart", Some(&provider));
    let daemon = home.start();
    let run = submit(&daemon, "s", json!({"content": "a number", "generation": structured(None)}));
    provider.wait_asked("does not fit", 1);
    daemon.kill();
    let daemon = home.start();
    assert_eq!(daemon.wait_end(&run), "completed");
    assert_eq!(daemon.run(&run)["outputs"][0]["content"], "{\"n\":1}");
    assert_eq!(provider.requests().len(), 3, "the first answer is not asked for again");
    let repeated = asked(&provider, "does not fit").pop().expect("asked");
    assert_eq!(repeated["tool_choice"], "none", "the restart knows that it is a repair");
    // The next run is told the whole of it.
    let run = submit(&daemon, "s", json!({"content": "what was it?"}));
    assert_eq!(daemon.wait_end(&run), "completed");
    let told = asked(&provider, "what was it").pop().expect("asked");
    let said: Vec<String> = told["input"].as_array().expect("a list").iter().map(ToString::to_string).collect();
    let place =
        |text: &str| said.iter().position(|item| item.contains(text)).unwrap_or_else(|| panic!("{text}: {said:?}"));
    assert!(place("a number") < place("does not fit") && place("does not fit") < place("{\\\"n\\\":1}"), "{said:?}");
}

#[test]
fn a_session_holds_input_and_answers_to_its_contracts_and_refuses_what_it_cannot_hold() {
    let provider =
        Provider::start("[[turn]]\nmatch = \"does not fit\"\ntext = '{\"n\":2}'\n[default]\ntext = '{\"n\": null}'\n");
    let home = Home::new("contracts-session", Some(&provider));
    let daemon = home.start();
    daemon.create_session("s");
    let file = home.join("schema.json");
    std::fs::write(&file, schema().to_string()).expect("written");
    let file = file.to_str().expect("UTF-8");
    let set = home.cli_json(&daemon, &["sessions", "set-output-contract", "s", "--file", file]);
    assert_eq!(set["output_contract"], json!({"schema": schema(), "max_repair_attempts": 3}));
    let body = json!({"input_contract": {"schema": {"type": "object", "properties": {"ask": {"type": "string"},
        "note": {"type": "string"}}, "required": ["ask"], "additionalProperties": false}}});
    assert_eq!(daemon.post("/v1/sessions/s/input-contract", &body).status, 200);

    let submit =
        |text: &str, key: &str| daemon.post("/v1/sessions/s/runs", &json!({"content": text, "idempotency_key": key}));
    for (text, place) in
        [("hello", "$: this is not one JSON value"), ("{\"ask\":1}", "$.ask: is number"), ("{}", "$.ask: required")]
    {
        let reply = submit(text, "k0");
        assert_eq!(reply.refusal(), (400, "input_contract_violated".to_string()));
        assert!(reply.json()["detail"].as_str().expect("a detail").contains(place), "{reply:?}");
    }
    let own = json!({"content": "{\"ask\":\"x\"}", "generation": structured(None)});
    assert_eq!(daemon.post("/v1/sessions/s/runs", &own).refusal(), (400, "bad_request".to_string()));
    assert!(provider.requests().is_empty(), "nothing was accepted");

    // What the model is given is canonical, and so is what comes out.
    let text = "```json\n{\"note\": null,  \"ask\": \"two\"}\n```";
    let run = submit(text, "k1").json()["run_id"].as_str().expect("an id").to_string();
    assert_eq!(daemon.wait_end(&run), "completed");
    assert_eq!(daemon.run(&run)["outputs"][0]["content"], "{\"n\":2}");
    assert_eq!(provider.requests().len(), 2);
    assert!(provider.requests()[0].1.contains(r#"{\"ask\":\"two\"}"#), "{:?}", provider.requests()[0]);

    // The same submission is the same one whatever the output contract is by now.
    home.cli_json(&daemon, &["sessions", "set-output-contract", "s", "--file", file, "--max-repair-attempts", "0"]);
    assert_eq!(submit("{\"ask\": \"two\"}", "k1").json()["run_id"], json!(run));
    let strict = submit("{\"ask\":\"three\"}", "k2").json()["run_id"].as_str().expect("an id").to_string();
    assert_eq!(daemon.wait_end(&strict), "failed");

    // Contracts survive a restart and can be taken away.
    daemon.kill();
    let daemon = home.start();
    assert_eq!(daemon.get("/v1/sessions/s/output-contract").json()["output_contract"]["max_repair_attempts"], 0);
    assert_eq!(
        daemon.get("/v1/sessions/s/input-contract").json()["input_contract"]["schema"]["required"],
        json!(["ask"])
    );
    home.cli_json(&daemon, &["sessions", "set-output-contract", "s", "--clear"]);
    home.cli_json(&daemon, &["sessions", "set-input-contract", "s", "--clear"]);
    let settings = home.cli_json(&daemon, &["sessions", "settings", "s"]);
    assert_eq!((&settings["input_contract"], &settings["output_contract"]), (&Value::Null, &Value::Null));
    let free = daemon.submit("s", "hello");
    assert_eq!(daemon.wait_end(&free), "completed");

    let bad = json!({"output_contract": {"schema": {"type": "object", "properties": {"a": {"pattern": "x"}}}}});
    let reply = daemon.post("/v1/sessions/s/output-contract", &bad);
    assert_eq!(reply.refusal(), (400, "output_contract_schema_unsupported".to_string()));
    let detail = reply.json()["detail"].as_str().expect("a detail").to_string();
    assert!(
        detail.contains("$: an object says additionalProperties: false") && detail.contains("$.a: keyword \"pattern\""),
        "{detail}"
    );
    assert_eq!(daemon.get("/v1/sessions/nobody/input-contract").refusal(), (404, "session_not_found".to_string()));
}

fn any_value(rng: &mut Rng, depth: u64) -> Value {
    match rng.below(if depth == 0 { 6 } else { 8 }) {
        0 => Value::Null,
        1 => json!(rng.chance(2)),
        2 => json!(rng.below(4)),
        3 => json!(rng.below(9) as f64 / 4.0),
        4 => json!(u64::MAX - rng.below(2)),
        5 => json!(["a", "b", "é", ""][rng.below(4) as usize]),
        6 => (0..rng.below(4)).map(|_| any_value(rng, depth - 1)).collect(),
        _ => (0..rng.below(4))
            .map(|_| (["a", "b", "c"][rng.below(3) as usize].to_string(), any_value(rng, depth - 1)))
            .collect(),
    }
}

fn any_schema(rng: &mut Rng, depth: u64) -> Value {
    let mut schema = serde_json::Map::new();
    for _ in 0..rng.below(4) {
        let inner = |rng: &mut Rng| if depth == 0 { json!({}) } else { any_schema(rng, depth - 1) };
        let (key, value) = match rng.below(12) {
            0 | 1 => ("type", json!(["object", "array", "string", "integer", "number", "null"][rng.below(6) as usize])),
            2 => ("type", json!(["object", "null"])),
            3 => ("properties", json!({"a": inner(rng), "b": inner(rng)})),
            4 => ("required", json!(["a"])),
            5 => ("additionalProperties", if rng.chance(2) { json!(false) } else { inner(rng) }),
            6 => ("items", inner(rng)),
            7 => ("anyOf", json!([inner(rng), inner(rng)])),
            8 => ("enum", json!([any_value(rng, 1), 1])),
            9 => ("$ref", json!(["#", "#/properties/a", "#/nowhere", "elsewhere"][rng.below(4) as usize])),
            10 => (["minimum", "maxLength", "minItems"][rng.below(3) as usize], json!(rng.below(3))),
            // A keyword with a value that makes no sense.
            _ => (["type", "properties", "items", "required", "enum"][rng.below(5) as usize], any_value(rng, 1)),
        };
        schema.insert(key.to_string(), value);
    }
    Value::Object(schema)
}

/// Schemas and values at random: no panic, and what is accepted is accepted again, unchanged.
#[test]
fn what_was_accepted_is_accepted_again_whatever_the_schema_says() {
    let (mut accepted, mut sound) = (0, 0);
    for seed in 0..30_000 {
        let mut rng = Rng::new(seed);
        let (schema, value) = (any_schema(&mut rng, 3), any_value(&mut rng, 3));
        sound += u64::from(contract_issues(&schema).is_empty());
        let Ok(found) = accept(&schema, &value.to_string()) else { continue };
        accepted += 1;
        let again = accept(&schema, &canonical(&found))
            .unwrap_or_else(|error| panic!("seed {seed}: {schema} {value}: {error}"));
        assert_eq!(canonical(&again), canonical(&found), "seed {seed}: {schema} {value}");
    }
    assert!(accepted > 1_000 && sound > 1_000, "{accepted} accepted, {sound} without an issue");
}
