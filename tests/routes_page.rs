//! docs/operators/routes.md as a new user follows it: each vendor's file and commands as they stand on the page, against the
//! scripted provider in the vendor's place.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use std::fs;
use std::process::Command;

use daemon::{Daemon, Home, Provider};
use serde_json::{Value, json};

const PAGE: &str = include_str!("../docs/operators/routes.md");
/// A heading of the page, and where the scripted provider speaks that vendor's format.
const VENDORS: [(&str, &str); 6] = [
    ("### OpenAI\n", "/v1"),
    ("### Anthropic\n", ""),
    ("### Google\n", "/v1beta"),
    ("### xAI\n", "/v1"),
    ("### OpenRouter\n", "/v1"),
    ("### A local server: llama.cpp, vLLM, Ollama\n", "/v1"),
];

fn block<'a>(section: &'a str, kind: &str) -> &'a str {
    let begin =
        section.find(&format!("```{kind}\n")).unwrap_or_else(|| panic!("no {kind} in {section}")) + kind.len() + 4;
    let rest = &section[begin..];
    &rest[..rest.find("```").expect("an end")]
}

/// The commands of step 4 of the page, and what stands beside them on the canary.
fn steps() -> Vec<String> {
    let section = PAGE.split("4. See that the route is ready").nth(1).expect("step 4");
    let lines = block(section, "sh").lines().map(str::trim).filter(|line| !line.is_empty());
    let steps: Vec<String> = lines.map(str::to_string).collect();
    assert!(section.contains("`doctor routes --canary`"));
    assert_eq!(steps.len(), 3, "{steps:?}");
    steps.into_iter().chain(["kheish-daemon doctor routes --canary".to_string()]).collect()
}

/// Runs a line of the page; the binary's path, the key's file and the daemon's address are the test's.
fn follow(home: &Home, daemon: &Daemon, line: &str) -> Value {
    let text = line
        .replacen("kheish-daemon ", &format!("{} --output json ", env!("CARGO_BIN_EXE_kheish-daemon")), 1)
        .replace("key.txt", &home.join("key.txt").display().to_string());
    let output = Command::new("sh")
        .args(["-c", &text])
        .env_clear()
        .env("KHEISH_DAEMON_TOKEN_FILE", home.token_file())
        .env("KHEISH_DAEMON_URL", daemon.base_url())
        .output()
        .expect("a shell");
    assert!(output.status.success(), "{line}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{line}: {error}: {output:?}"))
}

#[test]
fn the_page_connects_every_vendor_and_the_canary_passes() {
    let provider = Provider::start(
        "[[turn]]\nmatch = \"KHEISH_ROUTE_CANARY\"\ntext = \"KHEISH_ROUTE_CANARY_OK\"\n[default]\ntext = \"Hello.\"\n",
    );
    for (heading, path) in VENDORS {
        let section = PAGE.split(heading).nth(1).unwrap_or_else(|| panic!("{heading:?} is not on the page"));
        let section = section.split("\n### ").next().expect("a part");
        let base = format!("base_url = \"http://{}{path}\"\n", provider.address);
        let file = block(section, "toml");
        // Only the vendor is another one.
        let file = match file.lines().find(|line| line.starts_with("base_url")) {
            Some(own) => file.replace(&format!("{own}\n"), &base),
            None => format!("{file}{base}"),
        };
        let name = heading.trim_start_matches("### ").split([' ', ':', '\n']).next().expect("a word").to_lowercase();
        let home = Home::with_slot(&format!("routes-page-{name}"), None);
        fs::write(home.join("routes.toml"), &file).expect("a routes file");
        fs::write(home.join("key.txt"), "sk-key-of-a-new-user-0123456789\n").expect("a key");
        let daemon = home.start();
        if file.contains("auth_ref") {
            let set =
                section.lines().find(|line| line.starts_with("kheish-daemon secrets set")).expect("the key's command");
            let answer = follow(&home, &daemon, set);
            assert!(!answer.to_string().contains("sk-key-of"), "{answer}");
        }
        let answers: Vec<Value> = steps().iter().map(|line| follow(&home, &daemon, line)).collect();
        assert_eq!(answers[0]["ok"], json!(true), "{heading}{}", answers[0]);
        let run = &answers[2];
        assert_eq!((&run["status"], &run["outputs"][0]["content"]), (&json!("completed"), &json!("Hello.")), "{run}");
        let canaries = answers[3]["canaries"].as_array().expect("a list");
        assert_eq!(canaries.len(), 1, "{}", answers[3]);
        assert_eq!(canaries[0]["status"], "passed", "{heading}{}", answers[3]);
        daemon.stop();
    }
}
