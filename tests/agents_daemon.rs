//! Child agents with the real daemon: over API and command line, in the sandbox, across SIGKILL.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use daemon::{Daemon, Home, Provider, eventually};
use serde_json::{Value, json};

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is a TOML string as well")
}

/// A turn that calls a tool.
fn calls(input: &str, tool: &str, arguments: &Value) -> String {
    let arguments = quoted(&arguments.to_string());
    format!("[[turn]]\nmatch = {}\ntool_calls = [{{ name = \"{tool}\", arguments = {arguments} }}]\n", quoted(input))
}

/// A turn that says something once a tool has answered.
fn says(input: &str, result: &str, text: &str) -> String {
    format!("[[turn]]\nmatch = {}\nmatch_result = {}\ntext = {}\n", quoted(input), quoted(result), quoted(text))
}

fn bypass(daemon: &Daemon) {
    let reply = daemon.post("/v1/runtime/permission-mode", &json!({"mode": "bypassPermissions"}));
    assert_eq!(reply.status, 200, "{reply:?}");
}

fn spawn(daemon: &Daemon, body: &Value) -> Value {
    let reply = daemon.post("/v1/agents/agent-1/sidechains", body);
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

#[test]
fn an_operator_makes_lists_messages_and_ends_children_over_api_and_command_line() {
    let provider = Provider::start(&(says("unused", "unused", "x") + "[default]\ntext = \"answered\"\n"));
    let home = Home::new("agents_cli", Some(&provider));
    let daemon = home.start();
    daemon.create_session("s");
    let made = home.cli_json(
        &daemon,
        &["agents", "spawn-sidechain", "agent-1", "do it", "--nickname", "helper", "--spawn-request-id", "k1"],
    );
    assert_eq!((&made["agent_id"], &made["created"]), (&json!("agent-2"), &json!(true)), "{made}");
    let again = home.cli_json(
        &daemon,
        &["agents", "spawn-sidechain", "agent-1", "do it", "--nickname", "helper", "--spawn-request-id", "k1"],
    );
    assert_eq!((&again["agent_id"], &again["created"]), (&json!("agent-2"), &json!(false)), "{again}");
    let (code, _, _) =
        home.cli(&daemon, &["agents", "spawn-sidechain", "agent-1", "other", "--spawn-request-id", "k1"]);
    assert_ne!(code, 0, "the same id with another request");
    let run = made["launch_run_id"].as_str().expect("a run");
    assert_eq!(daemon.wait_end(run), "completed");
    let child = made["session_id"].as_str().expect("a session");
    let listed = home.cli_json(&daemon, &["agents", "list", "--session-id", "s"]);
    let shown: Vec<_> =
        listed.as_array().expect("a list").iter().map(|agent| (&agent["agent_id"], &agent["depth"])).collect();
    assert_eq!(shown, [(&json!("agent-1"), &json!(0)), (&json!("agent-2"), &json!(1))]);

    let posted = home.cli_json(&daemon, &["mailboxes", "post", "agent-2", "the build is green", "--id", "m1"]);
    assert_eq!((&posted["id"], &posted["created"]), (&json!("m1"), &json!(true)));
    eventually("the delivery run's end", || {
        let runs = daemon.get(&format!("/v1/runs?session_id={child}")).json();
        let delivery = runs.as_array()?.iter().find(|run| run["kind"] == "mailbox_delivery")?.clone();
        (delivery["status"] == "completed").then_some(())
    });
    assert_eq!(home.cli_json(&daemon, &["agents", "mailbox", "agent-2"]), json!([]));
    let asked = provider.requests().pop().expect("asked").1;
    assert!(asked.contains("the build is green"), "{asked}");

    let status = daemon.get("/v1/status").json()["agents"].clone();
    let figures = ["total", "sidechain_count", "open_sidechain_count", "closed_count", "idle", "running", "failed"];
    assert_eq!(figures.map(|name| status[name].as_u64()), [2, 1, 1, 0, 2, 0, 0].map(Some), "{status}");
    let refusals = [
        (json!({"permission_mode": "bypassPermissions"}), "agent_scope_refused"),
        (json!({"workspace": "../up"}), "agent_scope_refused"),
        (json!({"session_id": "s"}), "session_exists"),
    ];
    for (body, code) in refusals {
        let explained = daemon.post("/v1/agents/agent-1/sidechains/explain", &body).json();
        assert_eq!((&explained["allowed"], &explained["code"]), (&json!(false), &json!(code)), "{explained}");
        assert_eq!(daemon.post("/v1/agents/agent-1/sidechains", &body).refusal().1, code);
    }
    assert_eq!(daemon.get("/v1/agents/agent-99").refusal(), (404, "agent_not_found".to_string()));
    assert_eq!(daemon.post("/v1/sessions/s/end", &Value::Null).status, 200);
    let closed = home.cli_json(&daemon, &["agents", "get", "agent-2"]);
    assert_eq!((&closed["closed"], &closed["status"]), (&json!(true), &json!("completed")));
    assert_eq!(daemon.post("/v1/agents/agent-1/sidechains", &json!({})).refusal(), (409, "agent_closed".to_string()));
    daemon.stop();
    // All of it is in the journal.
    let daemon = home.start();
    assert_eq!(home.cli_json(&daemon, &["agents", "get", "agent-2"]), closed);
    daemon.stop();
    home.assert_journal_verifies(&home.root());
}

#[test]
fn a_child_sees_its_part_of_the_workspace_only_and_cannot_write_what_it_may_only_read() {
    let look = "ls -A . .. ; cat ../secret.txt; cat inside.txt; echo spoilt > inside.txt; echo status $?";
    let script = calls("look around", "bash", &json!({"command": look}));
    let provider = Provider::start(&(says("look around", "status", "looked") + &script));
    let home = Home::new("agents_workspace", Some(&provider));
    let workspace = home.join("ground");
    std::fs::create_dir_all(workspace.join("part")).expect("a directory");
    std::fs::write(workspace.join("secret.txt"), "outside-4711").expect("a file");
    std::fs::write(workspace.join("part/inside.txt"), "inside-0815").expect("a file");
    std::os::unix::fs::symlink("/etc", workspace.join("away")).expect("a link");
    let daemon = home.serve().workspace(&workspace).start();
    bypass(&daemon);
    daemon.create_session("s");
    let sandbox = daemon.get("/v1/status").json()["sandbox"].clone();
    let has_root = sandbox["features"]
        .as_array()
        .expect("features")
        .iter()
        .any(|f| f["name"] == "private_root" && f["active"] == true);
    let made = spawn(&daemon, &json!({"workspace": "part", "read_only": true, "subtask": {"content": "look around"}}));
    let run = made["launch_run_id"].as_str().expect("a run").to_string();
    assert_eq!(daemon.wait_end(&run), "completed", "{}", daemon.run(&run));
    let finished = home.records(&home.root(), &["--run-id", &run, "--kind", "tool_call.finished"]);
    let content = finished[0]["body"]["content"].as_str().expect("content").to_string();
    if has_root {
        assert!(content.contains("inside-0815"), "{content}");
        assert!(!content.contains("outside-4711"), "{content}");
        assert!(content.contains("status 1"), "{content}");
    } else {
        assert!(content.contains("sandbox_policy_unexpressible"), "{content}");
    }
    assert_eq!(std::fs::read_to_string(workspace.join("part/inside.txt")).expect("a file"), "inside-0815");
    // A link is no way out either.
    let made = spawn(&daemon, &json!({"workspace": "away", "subtask": {"content": "look around"}}));
    let run = made["launch_run_id"].as_str().expect("a run").to_string();
    daemon.wait_end(&run);
    let finished = home.records(&home.root(), &["--run-id", &run, "--kind", "tool_call.finished"]);
    assert_eq!(finished[0]["body"]["outcome"], "error", "{finished:?}");
    daemon.stop();
}

#[test]
fn the_operators_limit_of_the_sandbox_refuses_tools_that_reach_further() {
    let script = calls("write", "bash", &json!({"command": "echo x > made.txt"}));
    let provider = Provider::start(&(says("write", "sandbox_limit", "refused") + &script));
    let home = Home::new("agents_limit", Some(&provider));
    let daemon = home.start();
    bypass(&daemon);
    daemon.create_session("s");
    let limits = daemon.get("/v1/runtime/tool-limits").json();
    let mut limits = limits["limits"].clone();
    limits["max_sandbox"] = json!("read_only");
    assert_eq!(daemon.post("/v1/runtime/tool-limits", &json!({"limits": limits})).status, 200);
    let run = daemon.submit("s", "write");
    assert_eq!(daemon.wait_end(&run), "completed", "{}", daemon.run(&run));
    assert_eq!(daemon.run(&run)["outputs"][0]["content"], "refused");
    daemon.stop();
}

#[test]
fn a_parent_and_its_child_go_on_after_sigkill() {
    let script = says("parent task", "\"agents\"", "heard it")
        + &format!(
            "[[turn]]\nmatch = \"parent task\"\nmatch_result = \"agent_id\"\n\
             tool_calls = [{{ name = \"wait_agent\", arguments = {} }}]\n",
            quoted(&json!({"agent_ids": ["agent-2"]}).to_string())
        )
        + &calls("parent task", "spawn_agent", &json!({"task": "child work"}))
        + &says("child work", "slept", "child done")
        + &says("child work", "UNKNOWN", "child done")
        + &calls("child work", "bash", &json!({"command": "sleep 1000; echo slept", "timeout_ms": 180_000}));
    let provider = Provider::start(&script);
    let home = Home::new("agents_kill", Some(&provider));
    let daemon = home.start();
    bypass(&daemon);
    daemon.create_session("s");
    let run = daemon.submit("s", "parent task");
    eventually("a child at work", || {
        let agent = daemon.get("/v1/agents/agent-2");
        let child = (agent.status == 200).then(|| agent.json()["active_run_id"].as_str().map(str::to_string))??;
        daemon.events_of(&child).iter().any(|event| event == "tool_call_started").then_some(())
    });
    eventually("the parent's wait", || {
        daemon.events_of(&run).iter().any(|event| event == "waiting_for_agents").then_some(())
    });
    assert_eq!(daemon.status_of(&run), "running");
    daemon.kill();
    let daemon = home.start();
    assert_eq!(daemon.wait_end(&run), "completed", "{}", daemon.run(&run));
    assert_eq!(daemon.run(&run)["outputs"][0]["content"], "heard it");
    let child = daemon.get("/v1/agents/agent-2").json();
    assert_eq!((&child["run_count"], &child["closed"]), (&json!(1), &json!(true)));
    daemon.stop();
    home.assert_journal_verifies(&home.root());
}

#[test]
fn the_whole_of_a_long_result_is_read_in_pages_and_only_through_the_run_that_has_it() {
    let command = "for i in $(seq 1 12000); do echo \"line $i ä\"; done";
    let script = calls("long", "bash", &json!({"command": command})) + &says("other", "unused", "x");
    let provider = Provider::start(&(says("long", "line", "done") + &script + "[default]\ntext = \"nothing\"\n"));
    let home = Home::new("agents_blobs", Some(&provider));
    let daemon = home.start();
    bypass(&daemon);
    daemon.create_session("s");
    let run = daemon.submit("s", "long");
    assert_eq!(daemon.wait_end(&run), "completed", "{}", daemon.run(&run));
    let other = daemon.submit("s", "another run");
    daemon.wait_end(&other);
    let listed = home.cli_json(&daemon, &["runs", "blobs", &run]);
    let digest = listed[0]["sha256"].as_str().expect("a digest").to_string();
    assert_eq!((&listed[0]["tool"], listed.as_array().map(Vec::len)), (&json!("bash"), Some(1)));
    let mut whole = String::new();
    let mut offset = Some(0);
    while let Some(at) = offset {
        let page = daemon.get(&format!("/v1/runs/{run}/blobs/{digest}?offset={at}&bytes=777")).json();
        let content = page["content"].as_str().expect("text");
        assert!(content.len() <= 777 && !content.is_empty(), "{page}");
        whole += content;
        offset = page["next_offset"].as_u64();
    }
    assert_eq!(whole.len() as u64, listed[0]["bytes"].as_u64().expect("a size"));
    assert!(whole.contains("line 1 ä") && whole.contains("line 12000 ä"));
    let (code, printed, _) = home.cli(&daemon, &["runs", "blob", &run, &digest]);
    assert_eq!((code, printed.trim_end()), (0, whole.trim_end()));
    let refused = |path: &str| daemon.get(path).refusal();
    let not_found = (404, "blob_not_found".to_string());
    assert_eq!(refused(&format!("/v1/runs/{other}/blobs/{digest}")), not_found, "another run's");
    assert_eq!(refused(&format!("/v1/runs/{run}/blobs/{}", "0".repeat(64))), not_found);
    assert_eq!(refused(&format!("/v1/runs/{run}/blobs/..%2f..%2fFORMAT")), not_found);
    assert_eq!(refused(&format!("/v1/runs/{run}/blobs/{digest}?offset=99999999")).1, "bad_request");

    // Both are old, one has a name in a run that has just ended; the other was left by a crash.
    let blob = |name: &str| home.root().join("blobs").join(name);
    let orphan = "f".repeat(64);
    std::fs::write(blob(&orphan), "left by a crash").expect("our own folder");
    let hours_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3 * 60 * 60);
    for name in [&orphan, &digest] {
        std::fs::File::open(blob(name)).and_then(|file| file.set_modified(hours_ago)).expect("our own file");
    }
    let prune =
        |more: &[&str]| home.cli_json(&daemon, &[&["runs", "prune-results", "--older-than", "2h"], more].concat());
    let whole_bytes = listed[0]["bytes"].as_u64().expect("a size");
    let expected = |dry_run: bool| {
        json!({"dry_run": dry_run, "pruned_count": 1, "pruned_bytes": 15, "named_count": 1, "total_count": 2,
            "total_bytes": whole_bytes + 15, "has_more": false})
    };
    assert_eq!(prune(&["--dry-run"]), expected(true));
    assert!(blob(&orphan).exists(), "a dry run removes nothing");
    assert_eq!(prune(&[]), expected(false));
    assert!(!blob(&orphan).exists() && blob(&digest).exists());
    assert_eq!(home.cli_json(&daemon, &["runs", "blobs", &run])[0]["kept"], true);
    let young = daemon.post("/v1/runs/prune-results", &json!({"older_than_ms": 60_000}));
    assert_eq!(young.refusal(), (400, "run_retention_invalid_request".to_string()));
    daemon.stop();
    let acts = home.records(&home.root(), &["--kind", "control.intent"]);
    assert!(acts.iter().any(|record| record["body"]["act"] == "results.prune"), "{acts:?}");
}
