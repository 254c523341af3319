//! `doctor routes --canary` and the wire format of every vendor, as the scripted provider speaks it.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use daemon::{Home, Place, Provider};
use serde_json::{Value, json};

const DRIVERS: [(&str, &str); 6] = [
    ("openai", "/v1"),
    ("openai_compatible", "/v1"),
    ("anthropic", ""),
    ("google", "/v1beta"),
    ("openrouter", "/v1"),
    ("xai", "/v1"),
];

#[test]
fn a_canary_passes_on_a_route_of_every_driver_and_changes_nothing() {
    let provider = Provider::start("[default]\ntext = \"KHEISH_ROUTE_CANARY_OK\"\nchunk_chars = 5\n");
    let mut routes = "version = 1\ndefault_route = \"openai\"\n".to_string();
    for (driver, path) in DRIVERS {
        routes.push_str(&format!(
            "[routes.{driver}]\ndriver = \"{driver}\"\ndefault_model = \"m\"\nmodel_support = \"any\"\n\
             base_url = \"http://{}{path}\"\n",
            provider.address
        ));
    }
    let home = Home::with_routes(Place::new("canary"), &routes);
    let daemon = home.start();
    let report = home.cli_json(&daemon, &["doctor", "routes", "--check-auth", "--canary", "--output", "json"]);
    assert_eq!(report["ok"], true, "{report}");
    let canaries = report["canaries"].as_array().expect("a list");
    let mut passed: Vec<&str> =
        canaries.iter().filter(|it| it["status"] == "passed").filter_map(|it| it["route_id"].as_str()).collect();
    passed.sort_unstable();
    assert_eq!(passed, ["anthropic", "google", "openai", "openai_compatible", "openrouter", "xai"], "{report}");
    assert_eq!(provider.requests().len(), DRIVERS.len(), "one small run each");
    for canary in canaries {
        let session = daemon.get(&format!("/v1/sessions/{}", canary["session_id"].as_str().expect("an id"))).json();
        assert_eq!(session["ended"], true, "cleaned up: {session}");
        let run = daemon.run(canary["run_id"].as_str().expect("an id"));
        assert_eq!(run["input_metadata"]["doctor_route_canary"], true, "marked: {run}");
    }
    assert_eq!(daemon.get("/v1/runtime").json()["config"]["revision"], json!(0), "the default route is as it was");
    let none: Value = report["errors"].clone();
    assert_eq!(none, json!([]));
}
