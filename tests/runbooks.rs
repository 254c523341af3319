//! The runbooks' commands for key rotation and incident response, as written but for the binary's path, the address, the
//! token's path and the ids. Owns: the rule that each of them is run here or named as pending, and never both.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use std::collections::BTreeSet;
use std::process::Command;

use daemon::{Daemon, Home, Provider, SLOT, eventually};
use serde_json::{Value, json};

const CREDENTIALS: &str = include_str!("data/runbooks/credentials.sh");
const INCIDENT: &str = include_str!("data/runbooks/incident.sh");
/// What `make smokes` runs: the command, where it stands, and the words of it there.
const SMOKES: [(&str, &str, &str); 2] = [
    (
        "deliveries list --run-id <run_id>",
        include_str!("../scripts/e2e/lib/runbook_live.py"),
        "\"deliveries\", \"list\", \"--run-id\", run",
    ),
    ("bash scripts/e2e/run_mcp_local_true_binary.sh", include_str!("../Makefile"), "run_mcp_local_true_binary;"),
];
/// Scripts that the tests of their rooms run.
const OTHERS: [&str; 2] = [include_str!("data/runbooks/connectors.sh"), include_str!("data/runbooks/doctor.sh")];

/// The commands of a script, each with its lines as they are.
fn commands(script: &str) -> Vec<String> {
    let blocks = script.split("\n\n").map(|block| {
        let lines: Vec<&str> = block.lines().filter(|line| !line.starts_with('#')).collect();
        lines.join("\n")
    });
    let commands: Vec<String> = blocks.filter(|block| !block.trim().is_empty()).collect();
    assert_eq!(commands.len(), script.matches("./target/debug/kheish-daemon").count(), "a command a block");
    commands
}

/// A command without the options before its verb, on one line.
fn name(command: &str) -> String {
    command.lines().skip(2).map(|line| line.trim().trim_end_matches(" \\")).collect::<Vec<_>>().join(" ")
}

/// Lines of a list without its comments.
fn listed(text: &'static str) -> BTreeSet<&'static str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// Runs a script's commands against `daemon`; what each answered.
fn run(home: &Home, daemon: &Daemon, script: &str, ids: &[(&str, &str)]) -> Vec<(String, Value)> {
    let answer = |command: String| {
        let mut text = command
            .replace("./target/debug/kheish-daemon", env!("CARGO_BIN_EXE_kheish-daemon"))
            .replace("http://127.0.0.1:4000", &daemon.base_url())
            .replace("/run/secrets/kheish-admin-token", &home.token_file().display().to_string());
        for (placeholder, id) in ids {
            text = text.replace(placeholder, id);
        }
        let output = Command::new("sh")
            .args(["-c", &text])
            .env_clear()
            .env("OPENAI_API_KEY", "sk-secret-two-0123456789")
            .env("WEBHOOK_ROUTES_JSON", "{\"demo\":{\"secret\":\"whsec-0123456789\"}}")
            .output()
            .expect("a shell");
        assert!(output.status.success(), "{command}: {output:?}");
        let all = [&output.stdout[..], &output.stderr].concat();
        let shown = String::from_utf8_lossy(&all);
        assert!(!shown.contains("sk-secret") && !shown.contains("whsec"), "{command}: {shown}");
        let answer = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{command}: {error}"));
        (name(&command), answer)
    };
    commands(script).into_iter().map(answer).collect()
}

fn answer(answers: &[(String, Value)], name: &str, number: usize) -> Value {
    let mut found = answers.iter().filter(|(command, _)| command.starts_with(name));
    found.nth(number).unwrap_or_else(|| panic!("{name}: {answers:?}")).1.clone()
}

#[test]
fn every_command_of_the_runbooks_is_run_here_or_named_as_pending_and_never_both() {
    let all = listed(include_str!("data/runbooks/commands.txt"));
    let run: BTreeSet<String> =
        [CREDENTIALS, INCIDENT].iter().flat_map(|script| commands(script)).map(|c| name(&c)).collect();
    let others: Vec<String> = OTHERS.iter().flat_map(|script| commands(script)).map(|c| name(&c)).collect();
    let pending = listed(include_str!("data/runbooks/pending.txt"));
    let pending: BTreeSet<&str> = pending
        .iter()
        .map(|line| {
            let (command, test) = line.split_once(" | ").unwrap_or_else(|| panic!("{line:?} names no test"));
            assert!(test.starts_with("scripts/e2e/") || test.starts_with("tests/"), "{line:?}");
            command
        })
        .collect();
    for (command, source, words) in SMOKES {
        assert!(all.contains(&command) && source.contains(words), "{command:?} is not run by its smoke");
    }
    for command in &all {
        let by_smoke = SMOKES.iter().any(|(known, ..)| known == command);
        let is_run = by_smoke || run.contains(*command) || others.iter().any(|other| other.starts_with(*command));
        let places = (is_run, pending.contains(command));
        assert!(places.0 != places.1, "{command:?} is run and pending, or neither: {places:?}");
    }
    assert!(run.iter().all(|command| all.contains(command.as_str())), "a script runs what no runbook says");
    assert!(pending.iter().all(|command| all.contains(command)), "something is pending that no runbook says");
}

#[test]
fn the_credential_commands_run_as_written_and_answer_in_the_published_shapes() {
    let provider = Provider::start("");
    let home = Home::with_slot("runbook-credentials", Some(&provider));
    let daemon = home.start();
    daemon.set_key("sk-secret-one-0123456789");
    daemon.create_session("s");
    let first = daemon.submit("s", "hello");
    assert_eq!(daemon.wait_end(&first), "completed");
    let leases = daemon.get("/v1/runtime/auth/leases?all=true").json();
    let lease = leases[0]["lease"]["id"].as_str().expect("a lease");
    let answers = run(&home, &daemon, CREDENTIALS, &[("<lease_id>", lease)]);
    let answer = |name: &str| answer(&answers, name, 0);
    assert_eq!(answer("status")["provider_readiness"]["active_route_ready"], json!(true));
    let rotated = answer("runtime auth revoke-slot openai.prod");
    assert_eq!(
        (&rotated["slot_id"], &rotated["revoked_leases"], &rotated["blocked"]),
        (&json!(SLOT), &json!(0), &json!(false))
    );
    let lease = answer("runtime auth lease");
    assert_eq!((&lease["active"], lease["lease"].get("token_digest")), (&json!(false), None));
    assert_eq!(answer("runtime auth revoke-slot sidecars")["slot_id"], json!("sidecars.webhook.routes"));
    assert_eq!(answer("runtime set-permission-mode")["permission_mode"], json!("dontAsk"));
    assert_eq!(answer("runtime set-debug-level")["debug_level"], json!("off"));
    let subject = answer("runtime auth revoke-subject");
    assert_eq!((&subject["revoked"], &subject["known"]), (&json!(true), &json!(false)));
    daemon.stop();
}

#[test]
fn the_incident_commands_run_as_written_while_a_run_hangs_and_a_command_goes_on_in_the_background() {
    let background = json!({"command": "sleep 1000", "run_in_background": true}).to_string();
    let provider = Provider::start(&format!(
        "[[turn]]\nmatch = \"begin\"\nmatch_result = \"task_id\"\ntext = \"started\"\n\
         [[turn]]\nmatch = \"begin\"\ntool_calls = [{{ name = \"bash\", arguments = {} }}]\n\
         [[turn]]\nmatch = \"hang\"\nfault = {{ kind = \"hang\" }}\n",
        Value::from(background)
    ));
    let home = Home::new("runbook-incident", Some(&provider));
    let daemon = home.start();
    assert_eq!(daemon.post("/v1/runtime/permission-mode", &json!({"mode": "bypassPermissions"})).status, 200);
    daemon.create_session("s");
    let begun = daemon.submit("s", "begin");
    assert_eq!(daemon.wait_end(&begun), "completed", "{}", daemon.run(&begun));
    let tasks = daemon.get("/v1/sessions/s/tasks").json();
    let task = tasks[0]["id"].as_str().unwrap_or_else(|| panic!("{tasks}")).to_string();
    let hanging = daemon.submit("s", "hang");
    provider.wait_asked("hang", 1);
    let ids = [("<run_id>", hanging.as_str()), ("<session_id>", "s"), ("<task_id>", task.as_str())];
    let answers = run(&home, &daemon, INCIDENT, &ids);
    let answer = |name: &str| answer(&answers, name, 0);
    assert_eq!(answer("runs get")["status"], json!("running"));
    assert_eq!(answer("tasks list")[0]["id"], json!(task));
    let actions = answer("runs external-actions");
    assert_eq!((&actions[0]["phase"], &actions[0]["kind"]), (&json!("request"), &json!("model_provider")), "{actions}");
    let events = answer("sessions events").to_string();
    assert!(events.contains(&begun) && events.contains(&hanging), "{events}");
    assert_eq!(daemon.status_of(&hanging), "interrupted");
    eventually("the task's end", || {
        (daemon.get(&format!("/v1/sessions/s/tasks/{task}")).json()["status"] == "cancelled").then_some(())
    });
    daemon.stop();
}
