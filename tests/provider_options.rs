//! What a submission asks of a model, from the command line to the vendor's request: route and model, sampling, reasoning,
//! tools, length.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use daemon::{Daemon, Home, Place, Provider};
use serde_json::{Value, json};

/// Driver, model, path of the base URL.
const ROUTES: [(&str, &str, &str); 7] = [
    ("openai", "gpt-4.1", "/v1"),
    ("openai_compatible", "qwen3:8b", "/v1"),
    ("anthropic", "claude-opus-4-8", ""),
    ("google", "gemini-3-pro", "/v1beta"),
    ("openrouter", "vendor/model", "/v1"),
    ("xai", "grok-3-mini", "/v1"),
    // A second one of a driver, with its own model.
    ("openai", "gpt-5.4", "/v1"),
];

fn world(test: &str, provider: &Provider) -> Home {
    let mut routes = "version = 1\ndefault_route = \"r0\"\n".to_string();
    for (number, (driver, model, path)) in ROUTES.into_iter().enumerate() {
        routes.push_str(&format!(
            "[routes.r{number}]\ndriver = \"{driver}\"\ndefault_model = \"{model}\"\nmodel_support = \"any\"\n\
             base_url = \"http://{}{path}\"\n",
            provider.address
        ));
    }
    Home::with_routes(Place::new(test), &routes)
}

fn last(provider: &Provider) -> Value {
    serde_json::from_str(&provider.requests().pop().expect("a request").1).expect("JSON")
}

/// Submits by the command line and gives the body that the vendor got.
fn said(home: &Home, daemon: &Daemon, provider: &Provider, options: &[&str]) -> Value {
    let words = [&["sessions", "input", "s", "hello", "--wait", "--poll-interval-ms", "50"], options].concat();
    let view = home.cli_json(daemon, &words);
    assert_eq!(view["status"], "completed", "{view}");
    last(provider)
}

#[test]
fn each_option_of_the_command_line_reaches_each_vendor_in_its_form() {
    let provider = Provider::start("[default]\ntext = \"hi\"\n");
    let home = world("options-cli", &provider);
    let daemon = home.start();
    daemon.create_session("s");
    let options = ["--temperature", "0.5", "--max-output-tokens", "9000", "--tool-choice", "none"];
    let thinks = ["--reasoning-effort", "high", "--max-output-tokens", "9000", "--serial-tools"];
    // Where each vendor's request holds: the length, the temperature, the choice of no tool.
    let plain: [(&str, [(&str, Value); 3]); 6] = [
        ("r0", [("/max_output_tokens", json!(9000)), ("/temperature", json!(0.5)), ("/tool_choice", json!("none"))]),
        ("r1", [("/max_tokens", json!(9000)), ("/temperature", json!(0.5)), ("/tool_choice", json!("none"))]),
        // The current version of this API has no sampling.
        ("r2", [("/max_tokens", json!(9000)), ("/temperature", Value::Null), ("/tool_choice/type", json!("none"))]),
        (
            "r3",
            [
                ("/generationConfig/maxOutputTokens", json!(9000)),
                ("/generationConfig/temperature", json!(0.5)),
                ("/toolConfig/functionCallingConfig/mode", json!("NONE")),
            ],
        ),
        ("r4", [("/max_tokens", json!(9000)), ("/temperature", json!(0.5)), ("/tool_choice", json!("none"))]),
        ("r5", [("/max_output_tokens", json!(9000)), ("/temperature", json!(0.5)), ("/tool_choice", json!("none"))]),
    ];
    for (route, fields) in plain {
        let body = said(&home, &daemon, &provider, &[&["--provider", route][..], &options].concat());
        for (pointer, expected) in fields {
            assert_eq!(body.pointer(pointer).unwrap_or(&Value::Null), &expected, "{route} {pointer}: {body}");
        }
    }
    let thinking: [(&str, &[(&str, Value)]); 6] = [
        ("r6", &[("/reasoning/effort", json!("high")), ("/parallel_tool_calls", json!(false))]),
        ("r1", &[("/reasoning_effort", json!("high")), ("/parallel_tool_calls", json!(false))]),
        ("r2", &[("/output_config/effort", json!("high")), ("/tool_choice/disable_parallel_tool_use", json!(true))]),
        ("r3", &[("/generationConfig/thinkingConfig/thinkingLevel", json!("HIGH"))]),
        ("r4", &[("/reasoning/effort", json!("high")), ("/parallel_tool_calls", json!(false))]),
        ("r5", &[("/reasoning/effort", json!("high"))]),
    ];
    for (route, fields) in thinking {
        let body = said(&home, &daemon, &provider, &[&["--provider", route][..], &thinks].concat());
        for (pointer, expected) in fields {
            assert_eq!(body.pointer(pointer).unwrap_or(&Value::Null), expected, "{route} {pointer}: {body}");
        }
    }
    // A tool that must be called, for the first answer.
    let body = said(&home, &daemon, &provider, &["--provider", "r0", "--tool-name", "read_file"]);
    assert_eq!(body["tool_choice"], json!({"type": "function", "name": "read_file"}));
}

#[test]
fn route_and_model_are_those_of_the_strongest_level_that_says_something() {
    let provider = Provider::start("[default]\ntext = \"hi\"\n");
    let home = world("options-levels", &provider);
    let daemon = home.start();
    daemon.create_session("s");
    let model = |options: &[&str]| said(&home, &daemon, &provider, options)["model"].clone();
    assert_eq!(model(&[]), "gpt-4.1", "the file");
    home.cli_json(&daemon, &["runtime", "set-model", "r6/gpt-5.4-mini"]);
    let status = daemon.get("/v1/status").json();
    let active: Vec<&Value> = status["provider_readiness"]["routes"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|route| route["active"] == true)
        .map(|route| &route["route_id"])
        .collect();
    assert_eq!(active, ["r6"], "readiness shows the operator's choice as active");
    assert_eq!(model(&[]), "gpt-5.4-mini", "the operator");
    home.cli_json(&daemon, &["sessions", "set-route", "s", "--model", "r1/other:8b"]);
    assert_eq!(model(&[]), "other:8b", "the session");
    assert_eq!(model(&["--model", "third:8b"]), "third:8b", "the submission's model, on the session's route");
    assert_eq!(model(&["--model", "r4/vendor/other"]), "vendor/other", "the submission, with slashes in the model");
    assert_eq!(model(&["--provider", "r4"]), "vendor/model", "a route without a model has its own");
    home.cli_json(&daemon, &["sessions", "set-route", "s", "--clear"]);
    assert_eq!(model(&[]), "gpt-5.4-mini");
    let unknown = home.cli(&daemon, &["sessions", "input", "s", "hello", "--provider", "nowhere"]);
    assert_eq!(unknown.0, 2, "{unknown:?}");
}
