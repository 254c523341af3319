//! Runs on routes of every driver, through the whole daemon: one scripted server stands for all vendors.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use daemon::{Daemon, Home, Place, Provider, assert_no_panic};
use serde_json::{Value, json};

const DRIVERS: [(&str, &str, &str); 6] = [
    ("openai", "gpt-5.4", "/v1"),
    ("openai_compatible", "qwen3:8b", "/v1"),
    ("anthropic", "claude-opus-4-8", ""),
    ("google", "gemini-3-pro", "/v1beta"),
    ("openrouter", "vendor/model", "/v1"),
    ("xai", "grok-5", "/v1"),
];

const SCRIPT: &str = r#"
[[turn]]
match = "name a town"
text = '{"town":"Größenwahn an der Spree"}'
reasoning = "b3BhcXVl"
chunk_chars = 4

[[turn]]
match = "breaks"
text = "one two three"
chunk_chars = 2

[[turn]]
match = "no key"
error = { status = 401, message = "Incorrect API key provided: sk-secret" }

[[turn]]
match = "is full"
error = { status = 402 }

[[turn]]
match = "stalls"
text = "one two"
chunk_chars = 2
fault = { kind = "hang", after_frames = 4 }
"#;

struct World {
    provider: Provider,
    daemon: Daemon,
    _home: Home,
}

impl World {
    fn start(test: &str) -> Self {
        let once = |(driver, ..): (&str, &str, &str)| {
            format!(
                "[[turn]]\nmatch = \"breaks at {driver};\"\ntimes = 1\ntext = \"one two three\"\nchunk_chars = 2\n\
                 fault = {{ kind = \"disconnect\", after_frames = 6 }}\n"
            )
        };
        let provider = Provider::start(&format!("{}{SCRIPT}", DRIVERS.map(once).concat()));
        let mut routes = "version = 1\ndefault_route = \"openai\"\n".to_string();
        for (driver, model, path) in DRIVERS {
            let address = provider.address;
            routes.push_str(&format!(
                "[routes.{driver}]\ndriver = \"{driver}\"\ndefault_model = \"{model}\"\nmodel_support = \"any\"\n\
                 base_url = \"http://{address}{path}\"\nidle_timeout_ms = 300\n"
            ));
        }
        let home = Home::with_routes(Place::new(test), &routes);
        let daemon = home.start();
        Self { provider, daemon, _home: home }
    }

    fn submit(&self, driver: &str, text: &str, generation: Value) -> String {
        let body = json!({"content": text, "provider": driver, "generation": generation});
        let reply = self.daemon.post(&format!("/v1/sessions/{driver}/runs"), &body);
        assert_eq!(reply.status, 202, "{reply:?}");
        reply.json()["run_id"].as_str().expect("a run id").to_string()
    }

    fn asked(&self, text: &str) -> Vec<Value> {
        let bodies = self.provider.requests().into_iter().map(|(_, body)| body).filter(|body| body.contains(text));
        bodies.map(|body| serde_json::from_str(&body).expect("JSON")).collect()
    }
}

#[test]
fn each_drivers_run_ends_in_the_right_state_for_the_right_reason() {
    let world = World::start("provider-runs");
    let schema = json!({"type": "object", "properties": {"town": {"type": "string"}}});
    let asks = json!({"response_format": {"type": "structured_json", "schema": schema, "name": "town"},
                      "reasoning": {"effort": "low"}, "max_output_tokens": 4000});
    for (driver, ..) in DRIVERS {
        world.daemon.create_session(driver);
        let run = world.submit(driver, "name a town", asks.clone());
        assert_eq!(world.daemon.wait_end(&run), "completed", "{driver}: {}", world.daemon.run(&run));
        let view = world.daemon.run(&run).to_string();
        assert!(view.contains("Größenwahn an der Spree") && !view.contains("b3BhcXVl"), "{driver}: {view}");

        // Its answer, its reasoning included, goes back with the next input of the session.
        let mut stream = world.daemon.stream(&format!("/v1/events/stream?session_id={driver}"));
        let run = world.submit(driver, &format!("breaks at {driver};"), json!({}));
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
        assert_eq!(shown, "one two three", "{driver}: what was shown before the break is not shown again");
        assert_eq!(world.daemon.wait_end(&run), "completed", "{driver}: {}", world.daemon.run(&run));
        let view = world.daemon.run(&run).to_string();
        assert!(view.contains("one two three") && !view.contains("one two threeone"), "{driver}: {view}");
        let bodies = world.asked(&format!("breaks at {driver};"));
        assert_eq!(bodies.len(), 2, "{driver}: broken off once, then well");
        assert_eq!(bodies[0], bodies[1], "{driver}: an attempt repeats the request");
        let body = bodies[0].to_string();
        for part in ["name a town", "Größenwahn an der Spree", "b3BhcXVl"] {
            assert!(body.contains(part), "{driver} lost {part}: {body}");
        }

        for (input, reason) in [("no key", "provider_auth"), ("is full", "provider_quota")] {
            let run = world.submit(driver, input, json!({}));
            assert_eq!(world.daemon.wait_end(&run), "failed", "{driver} {input}");
            let view = world.daemon.run(&run).to_string();
            assert!(view.contains(reason) && !view.contains("sk-secret"), "{driver} {input}: {view}");
        }
    }
    // All at once, for they take their time.
    let stalls = DRIVERS.map(|(driver, ..)| (driver, world.submit(driver, "stalls", json!({}))));
    for (driver, run) in stalls {
        assert_eq!(world.daemon.wait_end(&run), "failed", "{driver}");
        let view = world.daemon.run(&run);
        assert_eq!(view["error"]["code"], "provider_timeout", "{driver}: {view}");
    }
    let with_schema: Vec<Value> = world.asked("name a town");
    let with_schema = with_schema.iter().filter(|body| body.to_string().contains("\"town\"")).count();
    assert_eq!(with_schema, DRIVERS.len(), "the schema reaches every vendor");
    assert_no_panic(&world.daemon.log());
}

#[test]
fn an_answer_in_parts_is_one_answer_and_what_came_goes_back_as_it_is() {
    let parts = "[[turn]]\nmatch = \"in parts\"\ntimes = 2\ntext = \"a part\"\nreasoning = \"c2lnLW9mLWEtcGFydA\"\n\
                 usage = { input_tokens = 9, output_tokens = 5 }\nfault = { kind = \"incomplete\", code = \"pause\" }\n\
                 [[turn]]\nmatch = \"in parts\"\ntimes = 1\ntext = \"the en\"\nfault = { kind = \"disconnect\", after_frames = 5 }\n\
                 [[turn]]\nmatch = \"in parts\"\ntext = \"the end\"\nusage = { input_tokens = 30, output_tokens = 7 }\n\
                 [[turn]]\nmatch = \"for ever\"\ntext = \"more\"\nfault = { kind = \"incomplete\", code = \"pause\" }\n\
                 [default]\ntext = \"later\"\n";
    let provider = Provider::start(parts);
    let routes = format!(
        "version = 1\ndefault_route = \"a\"\n[routes.a]\ndriver = \"anthropic\"\ndefault_model = \"claude-opus-4-8\"\n\
         base_url = \"http://{}\"\nidle_timeout_ms = 20000\n",
        provider.address
    );
    let home = Home::with_routes(Place::new("provider-parts"), &routes);
    let daemon = home.start();
    daemon.create_session("s");
    let mut stream = daemon.stream("/v1/events/stream?session_id=s");
    let run = daemon.submit("s", "in parts");
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
    let whole = "a part\n\na part\n\nthe end";
    assert_eq!(shown, whole);
    let view = daemon.run(&run);
    assert_eq!((&view["status"], &view["outputs"][0]["content"]), (&json!("completed"), &json!(whole)), "{view}");
    let bodies: Vec<Value> =
        provider.requests().iter().map(|(_, body)| serde_json::from_str(body).expect("JSON")).collect();
    let roles = |body: &Value| -> Vec<String> {
        let messages = body["messages"].as_array().expect("messages").iter();
        messages.map(|message| message["role"].as_str().expect("a role").to_string()).collect()
    };
    assert_eq!(bodies.len(), 4, "two pauses, a broken stream, the end");
    assert_eq!(roles(&bodies[0]), ["user"]);
    for (body, parts) in [(&bodies[1], 1), (&bodies[2], 2), (&bodies[3], 2)] {
        assert_eq!(roles(body), ["user", "assistant"]);
        let content = body["messages"][1]["content"].as_array().expect("blocks");
        let kinds: Vec<&str> = content.iter().filter_map(|block| block["type"].as_str()).collect();
        assert_eq!(kinds, ["thinking", "text"].repeat(parts), "{body}");
        assert_eq!(content[0]["signature"], "c2lnLW9mLWEtcGFydA");
    }
    // The next run is told the same answer, whole.
    let later = daemon.submit("s", "and now");
    assert_eq!(daemon.wait_end(&later), "completed");
    let body: Value = serde_json::from_str(&provider.requests().pop().expect("a request").1).expect("JSON");
    assert_eq!(roles(&body), ["user", "assistant", "user"]);
    let records = daemon.get(&format!("/v1/runs/{run}/external-actions")).json().to_string();
    assert_eq!(records.matches("\"request\"").count(), 4, "each request is an action: {records}");
    // A vendor that pauses without an end is given up.
    let endless = daemon.submit("s", "for ever");
    assert_eq!(daemon.wait_end(&endless), "completed");
    assert_eq!(daemon.run(&endless)["outputs"][0]["content"], json!(["more"; 9].join("\n\n")));
    assert_no_panic(&daemon.log());
}

#[test]
fn options_that_make_no_sense_are_refused_and_nothing_is_asked() {
    let world = World::start("provider-options");
    world.daemon.create_session("s");
    for generation in [
        json!({"tool_choice": {"type": "sometimes"}}),
        json!({"tool_choice": {"type": "specific"}}),
        json!({"response_format": {"type": "structured_json", "schema": 5}}),
        json!({"response_format": {"type": "xml"}}),
        json!({"reasoning": {"effort": "much"}}),
        json!({"reasoning": {"budget_tokens": 0}}),
    ] {
        let reply = world.daemon.post("/v1/sessions/s/runs", &json!({"content": "x", "generation": generation}));
        assert!(matches!(reply.status, 400 | 422), "{generation}: {reply:?}");
    }
    assert_eq!(world.provider.requests().len(), 0);
}
