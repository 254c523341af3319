//! Background commands through the real daemon: started by a model, watched and stopped over the API and the command line.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use std::time::{Duration, Instant};

use daemon::{Daemon, Home, Provider, eventually};
use kheish_daemon::limits::{TASK_KILL_PROOF_MS, TASK_OUTPUT_BYTES_MAX};
use serde_json::{Value, json};

/// A provider whose model starts the command of the name that it is given, in the background.
fn provider(commands: &[(&str, &str)]) -> Provider {
    let mut script = String::new();
    for (name, command) in commands {
        let arguments = json!({"command": command, "run_in_background": true}).to_string();
        let text = |text: &str| serde_json::to_string(text).expect("a text is a TOML string as well");
        script += &format!(
            "[[turn]]\nmatch = {name}\nmatch_result = \"task_id\"\ntext = \"started\"\n\
             [[turn]]\nmatch = {name}\ntool_calls = [{{ name = \"bash\", arguments = {arguments} }}]\n",
            name = text(name),
            arguments = text(&arguments),
        );
    }
    Provider::start(&script)
}

fn start(home: &Home) -> Daemon {
    let daemon = home.start();
    let reply = daemon.post("/v1/runtime/permission-mode", &json!({"mode": "bypassPermissions"}));
    assert_eq!(reply.status, 200, "{reply:?}");
    daemon
}

/// Has the model start the command; the task's id.
fn begin(daemon: &Daemon, session: &str, name: &str) -> String {
    let before = tasks(daemon, session).len();
    let run = daemon.submit(session, name);
    assert_eq!(daemon.wait_end(&run), "completed", "{}", daemon.run(&run));
    let tasks = tasks(daemon, session);
    assert_eq!(tasks.len(), before + 1, "{tasks:?}");
    tasks.last().expect("just counted")["id"].as_str().expect("an id").to_string()
}

fn tasks(daemon: &Daemon, session: &str) -> Vec<Value> {
    let reply = daemon.get(&format!("/v1/sessions/{session}/tasks"));
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json().as_array().expect("a list").clone()
}

fn output(daemon: &Daemon, session: &str, task: &str, query: &str) -> Value {
    let reply = daemon.get(&format!("/v1/sessions/{session}/tasks/{task}/output?{query}"));
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

/// A name for processes that no other run of these tests uses.
fn mark(name: &str) -> String {
    format!("kheish_mark_{name}_{}", std::process::id())
}

fn processes_with(mark: &str) -> Vec<u32> {
    let pids =
        std::fs::read_dir("/proc").expect("proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(mark))
    })
    .collect()
}

#[test]
fn a_command_in_the_background_is_listed_waited_for_and_its_end_survives_a_restart() {
    let provider = provider(&[("good", "echo one; echo two >&2; exit 0"), ("bad", "echo three; exit 7")]);
    let home = Home::new("tasks_plain", Some(&provider));
    let daemon = start(&home);
    daemon.create_session("s");
    let good = begin(&daemon, "s", "good");
    let bad = begin(&daemon, "s", "bad");
    assert_eq!((good.as_str(), bad.as_str()), ("shell-task-1", "shell-task-2"));
    let seen = output(&daemon, "s", &good, "wait=true&timeout_ms=60000");
    assert_eq!((&seen["retrieval_status"], &seen["output_excerpt"]), (&json!("success"), &json!("one\ntwo\n")));
    let task = &seen["task"];
    assert_eq!((&task["status"], &task["metadata"]["exit_code"]), (&json!("completed"), &json!(0)));
    assert_eq!(task["metadata"]["process_tree_shutdown_confirmed"], true);
    assert_eq!(task["metadata"]["created_by_run_id"], "run-1");
    let seen = output(&daemon, "s", &bad, "wait=true&timeout_ms=60000&tail_bytes=4");
    assert_eq!((&seen["output_excerpt"], &seen["output_truncated"]), (&json!("ree\n"), &json!(true)));
    assert_eq!((&seen["task"]["status"], &seen["task"]["metadata"]["exit_code"]), (&json!("failed"), &json!(7)));
    let status = daemon.get("/v1/status").json()["tasks"].clone();
    let expected = json!({
        "live_background_shell_task_count": 0, "total": 2, "pending": 0, "in_progress": 0, "blocked": 0,
        "completed": 1, "failed": 1, "cancelled": 0, "unreadable_session_count": 0, "unindexed_session_count": 0,
    });
    assert_eq!(status, expected);
    let findings = daemon.get("/v1/status").json()["health"]["warnings"].to_string();
    assert!(findings.contains("\"failed_tasks\""), "{findings}");
    let before = tasks(&daemon, "s");
    daemon.stop();
    let daemon = home.start();
    assert_eq!(tasks(&daemon, "s"), before);
    assert_eq!(daemon.get("/v1/status").json()["tasks"], expected);
    assert_eq!(output(&daemon, "s", &good, "full=true")["output_text"], "one\ntwo\n");
    let filtered = daemon.get("/v1/sessions/s/tasks?status=failed&page=true").json();
    assert_eq!((&filtered["items"][0]["id"], &filtered["pagination"]["total_count"]), (&json!(bad), &json!(1)));
    daemon.stop();
}

#[test]
fn a_stop_ends_the_whole_tree_however_it_hides() {
    let mark = mark("stop");
    let command = format!(
        "trap '' TERM; echo begun; setsid bash -c 'trap \"\" TERM; exec -a {mark} sleep 1000' & \
         (setsid setsid bash -c 'exec -a {mark} sleep 1000' &) ; exec -a {mark} sleep 1000"
    );
    let provider = provider(&[("hide", command.as_str())]);
    let home = Home::new("tasks_stop", Some(&provider));
    let daemon = start(&home);
    daemon.create_session("s");
    daemon.create_session("other");
    let task = begin(&daemon, "s", "hide");
    eventually("three processes", || (processes_with(&mark).len() == 3).then_some(()));
    let reply = daemon.post(&format!("/v1/sessions/other/tasks/{task}/stop"), &Value::Null);
    assert_eq!(reply.refusal(), (404, "task_not_found".to_string()), "another session stopped it");
    let reply = daemon.post(&format!("/v1/sessions/s/tasks/{task}/stop"), &json!({"reason": "enough"}));
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.json()["metadata"]["stop_requested"], true);
    let seen = output(&daemon, "s", &task, "wait=true&timeout_ms=60000");
    let metadata = &seen["task"]["metadata"];
    assert_eq!((&seen["task"]["status"], &metadata["terminal_reason"]), (&json!("cancelled"), &json!("stopped")));
    assert_eq!((&metadata["stop_reason"], &metadata["process_tree_remaining_pids"]), (&json!("enough"), &json!([])));
    assert_eq!(processes_with(&mark), Vec::<u32>::new(), "the end was recorded before it was true");
    let again = daemon.post(&format!("/v1/sessions/s/tasks/{task}/stop"), &Value::Null);
    assert_eq!((again.status, &again.json()["status"]), (200, &json!("cancelled")));
    daemon.stop();
}

#[test]
fn the_end_of_a_session_and_of_the_daemon_are_ends_of_their_commands() {
    let mark = mark("end");
    let command = format!("exec -a {mark} sleep 1000");
    let provider = provider(&[("long", command.as_str())]);
    let home = Home::new("tasks_end", Some(&provider));
    let daemon = start(&home);
    daemon.create_session("ends");
    daemon.create_session("stays");
    let ended = begin(&daemon, "ends", "long");
    let stopped = begin(&daemon, "stays", "long");
    eventually("two processes", || (processes_with(&mark).len() == 2).then_some(()));
    assert_eq!(daemon.post("/v1/sessions/ends/end", &Value::Null).status, 200);
    let seen = output(&daemon, "ends", &ended, "wait=true&timeout_ms=60000");
    assert_eq!(seen["task"]["status"], "cancelled");
    assert_eq!(seen["task"]["metadata"]["stop_reason"], "session ended");
    daemon.stop();
    assert_eq!(processes_with(&mark), Vec::<u32>::new());
    let daemon = home.start();
    let task = daemon.get(&format!("/v1/sessions/stays/tasks/{stopped}")).json();
    assert_eq!((&task["status"], &task["metadata"]["terminal_reason"]), (&json!("failed"), &json!("daemon_stopped")));
    daemon.stop();
}

#[test]
fn a_killed_daemon_leaves_no_process_and_the_next_one_says_what_became_of_its_commands() {
    let mark = mark("killed");
    let command = format!(
        "trap '' TERM HUP INT; (setsid setsid bash -c 'exec -a {mark} sleep 1000' &); exec -a {mark} sleep 1000"
    );
    let provider = provider(&[("long", command.as_str())]);
    let home = Home::new("tasks_killed", Some(&provider));
    let daemon = start(&home);
    daemon.create_session("s");
    let task = begin(&daemon, "s", "long");
    eventually("two processes", || (processes_with(&mark).len() == 2).then_some(()));
    let killed = Instant::now();
    daemon.kill();
    eventually("nobody left", || processes_with(&mark).is_empty().then_some(()));
    assert!(killed.elapsed() < 5 * Duration::from_millis(TASK_KILL_PROOF_MS), "{:?}", killed.elapsed());
    let daemon = home.start();
    let seen = eventually("the task's end", || {
        let task = daemon.get(&format!("/v1/sessions/s/tasks/{task}")).json();
        (task["status"] != "in_progress").then_some(task)
    });
    let metadata = &seen["metadata"];
    assert_eq!((&seen["status"], &metadata["terminal_reason"]), (&json!("failed"), &json!("daemon_restarted")));
    assert_eq!((&metadata["recovered_on_boot"], &metadata["exit_code"]), (&json!(true), &Value::Null));
    daemon.stop();
}

#[test]
fn a_flood_of_output_is_kept_in_bounds_and_counted() {
    let lines = 400_000u64;
    let command = format!("seq -f '%063.0f' 1 {lines}");
    let provider = provider(&[("flood", command.as_str())]);
    let home = Home::new("tasks_flood", Some(&provider));
    let daemon = start(&home);
    daemon.create_session("s");
    let task = begin(&daemon, "s", "flood");
    let seen = output(&daemon, "s", &task, "wait=true&timeout_ms=60000&tail_bytes=64");
    assert_eq!(seen["output_excerpt"], format!("{lines:063}\n"));
    let metadata = &seen["task"]["metadata"];
    assert_eq!((&metadata["output_total_bytes"], &metadata["output_rotated"]), (&json!(lines * 64), &json!(true)));
    assert!(metadata["output_size_bytes"].as_u64().unwrap() <= TASK_OUTPUT_BYTES_MAX);
    assert_eq!((&seen["output_truncated"], &seen["task"]["status"]), (&json!(true), &json!("completed")));
    daemon.stop();
}

#[test]
fn a_wait_that_is_too_short_is_answered_and_holds_no_worker() {
    let provider = provider(&[("long", "sleep 1000")]);
    let home = Home::new("tasks_wait", Some(&provider));
    let daemon = start(&home);
    daemon.create_session("s");
    let task = begin(&daemon, "s", "long");
    let target = format!("/v1/sessions/s/tasks/{task}/output");
    // More waiting requests than there are worker threads, and the daemon still answers.
    let waiting: Vec<_> = (0..12)
        .map(|_| {
            let (target, mut client) = (format!("{target}?wait=true&timeout_ms=60000"), daemon.client());
            std::thread::spawn(move || client.request("GET", &target, &[], ""))
        })
        .collect();
    let seen = output(&daemon, "s", &task, "wait=true&timeout_ms=50");
    assert_eq!((&seen["retrieval_status"], &seen["task"]["status"]), (&json!("timeout"), &json!("in_progress")));
    assert_eq!(output(&daemon, "s", &task, "")["retrieval_status"], "not_ready");
    for query in ["timeout_ms=0", "timeout_ms=600001", "tail_bytes=0", "tail_bytes=999999999", "full=true&tail_bytes=1"]
    {
        assert_eq!(daemon.get(&format!("{target}?{query}")).refusal(), (400, "bad_request".to_string()), "{query}");
    }
    assert_eq!(daemon.post(&format!("/v1/sessions/s/tasks/{task}/stop"), &Value::Null).status, 200);
    for waiting in waiting {
        let reply = waiting.join().unwrap().unwrap().json();
        assert_eq!((&reply["retrieval_status"], &reply["task"]["status"]), (&json!("success"), &json!("cancelled")));
    }
    daemon.stop();
}

#[test]
fn the_command_line_lists_shows_waits_and_stops() {
    let provider = provider(&[("quick", "echo hello"), ("long", "sleep 1000")]);
    let home = Home::new("tasks_cli", Some(&provider));
    let daemon = start(&home);
    daemon.create_session("s");
    let (quick, long) = (begin(&daemon, "s", "quick"), begin(&daemon, "s", "long"));
    let url = format!("http://{}", daemon.address);
    let run = |words: &[&str]| {
        let mut all = words.to_vec();
        all.extend(["--base-url", &url, "--token", daemon::TOKEN, "--output", "json"]);
        let (code, text) = home.command(&all);
        (code, serde_json::from_str::<Value>(&text).unwrap_or(Value::String(text)))
    };
    let (code, seen) = run(&["tasks", "output", "s", &quick, "--wait", "--timeout-ms", "60000", "--tail-bytes", "3"]);
    assert_eq!((code, &seen["output_excerpt"]), (0, &json!("lo\n")), "{seen}");
    let (code, seen) = run(&["tasks", "list", "s", "--status", "in-progress"]);
    assert_eq!((code, &seen[0]["id"], seen.as_array().map(Vec::len)), (0, &json!(long), Some(1)), "{seen}");
    let (code, seen) = run(&["tasks", "stop", "s", &long, "--reason", "done"]);
    assert_eq!((code, &seen["metadata"]["stop_reason"]), (0, &json!("done")), "{seen}");
    let (code, seen) = run(&["tasks", "output", "s", &long, "--wait"]);
    assert_eq!((code, &seen["task"]["status"]), (0, &json!("cancelled")), "{seen}");
    assert_eq!(run(&["tasks", "get", "s", "shell-task-99"]).0, 5);
    daemon.stop();
}

#[test]
fn the_stream_of_a_session_tells_of_its_tasks_without_their_token() {
    let provider = provider(&[("quick", "exit 3")]);
    let home = Home::new("tasks_stream", Some(&provider));
    let daemon = start(&home);
    daemon.create_session("s");
    let task = begin(&daemon, "s", "quick");
    output(&daemon, "s", &task, "wait=true&timeout_ms=60000");
    let mut stream = daemon.stream("/v1/sessions/s/stream?cursor=0");
    let mut next = |what: &str| stream.until(what, |frame| frame.event == "task_updated").json();
    let (started, finished) = (next("its start"), next("its end"));
    let change = |id: &str, value: &Value| (value["task"]["id"] == id, value["task"]["change"].clone());
    assert_eq!(change(&task, &started), (true, json!("started")));
    assert_eq!(change(&task, &finished), (true, json!("finished")));
    assert_eq!((&finished["task"]["status"], &finished["task"]["exit_code"]), (&json!("failed"), &json!(3)));
    let records = {
        daemon.stop();
        home.records(&home.root(), &["--kind", "task.started"])
    };
    let token = records[0]["body"]["token"].as_str().expect("the record has it").to_string();
    assert!(token.len() == 32 && !started.to_string().contains(&token), "{started}");
}

#[test]
fn to_do_items_are_written_by_the_model_kept_over_a_kill_and_end_once() {
    let call = |name: &str, arguments: Value| {
        let arguments = serde_json::to_string(&arguments.to_string()).expect("a text");
        format!("tool_calls = [{{ name = \"{name}\", arguments = {arguments} }}]")
    };
    let steps = [
        ("one", call("task_create", json!({"title": "first", "description": "d"}))),
        ("two", call("task_create", json!({"title": "second", "status": "blocked", "blocked_by": ["task-1"]}))),
        ("three", call("task_update", json!({"task_id": "task-1", "status": "completed", "output": "found it"}))),
        ("four", call("todo_write", json!({"todos": [{"id": "a", "content": "look", "completed": false}]}))),
        ("five", call("task_list", json!({}))),
        ("six", call("task_update", json!({"task_id": "task-1", "status": "pending"}))),
        ("seven", call("task_create", json!({"title": 7}))),
        ("eight", call("task_get", json!({"task_id": "task-99"}))),
    ];
    let mut script = String::new();
    for (word, call) in &steps {
        // Results of these tools are objects, errors too.
        script += &format!("[[turn]]\nmatch = \"do {word}\"\nmatch_result = \"{{\"\ntext = \"done\"\n");
        script += &format!("[[turn]]\nmatch = \"do {word}\"\n{call}\n");
    }
    let provider = Provider::start(&script);
    let home = Home::new("tasks_items", Some(&provider));
    let daemon = start(&home);
    daemon.create_session("s");
    for (word, _) in &steps {
        let run = daemon.submit("s", &format!("do {word}"));
        assert_eq!(daemon.wait_end(&run), "completed", "{}", daemon.run(&run));
    }
    let before = tasks(&daemon, "s");
    let short: Vec<Value> =
        before.iter().map(|task| json!([task["id"], task["status"], task["blocks"], task["output"]])).collect();
    let expected = [json!(["task-1", "completed", ["task-2"], "found it"]), json!(["task-2", "blocked", [], null])];
    assert_eq!(short, expected);
    let reply = daemon.post("/v1/sessions/s/tasks/task-2/stop", &Value::Null);
    assert_eq!(reply.refusal(), (409, "task_state_conflict".to_string()));
    assert_eq!(daemon.get("/v1/sessions/s/tasks/task-2/output").refusal(), (409, "task_state_conflict".to_string()));
    daemon.kill();
    let daemon = home.start();
    assert_eq!(tasks(&daemon, "s"), before);
    daemon.stop();
    let results = home.records(&home.root(), &["--kind", "tool_call.finished"]);
    let seen: Vec<(String, String)> = results
        .iter()
        .map(|record| {
            let text = |name: &str| record["body"][name].as_str().expect("a text").to_string();
            (text("outcome"), text("content"))
        })
        .collect();
    let outcomes: Vec<&str> = seen.iter().map(|(outcome, _)| outcome.as_str()).collect();
    assert_eq!(outcomes, ["ok", "ok", "ok", "ok", "ok", "error", "error", "error"]);
    assert!(seen[4].1.contains(r#""todos":[{"id":"a","content":"look","completed":false}]"#), "{}", seen[4].1);
    assert!(seen[5].1.contains("it has ended and stays as it is"), "{}", seen[5].1);
    assert!(seen[6].1.contains("argument title: found a number"), "{}", seen[6].1);
    assert!(seen[7].1.contains("task_not_found"), "{}", seen[7].1);
}

/// Seen: `tasks get` told of 0 bytes while the output of the running command could be read, since the figures follow the
/// file a moment later and were looked at before it. Now they are looked at after it, and the file counts.
#[test]
fn the_figures_of_a_running_command_are_never_behind_what_can_be_read() {
    let provider = provider(&[("chatty", "while true; do printf x; done")]);
    let home = Home::new("tasks_figures", Some(&provider));
    let daemon = start(&home);
    daemon.create_session("s");
    let task = begin(&daemon, "s", "chatty");
    for _ in 0..50 {
        let seen = output(&daemon, "s", &task, "tail_bytes=262144");
        let shown = seen["output_excerpt"].as_str().map_or(0, str::len) as u64;
        let told = seen["task"]["metadata"]["output_size_bytes"].as_u64().expect("a figure");
        assert!(told >= shown, "{told} bytes are told of, {shown} are shown");
        let again = daemon.get(&format!("/v1/sessions/s/tasks/{task}")).json();
        assert!(again["metadata"]["output_size_bytes"].as_u64() >= Some(shown), "{again}");
        assert!(again["metadata"]["output_total_bytes"].as_u64() >= Some(shown), "{again}");
    }
    let reply = daemon.post(&format!("/v1/sessions/s/tasks/{task}/stop"), &Value::Null);
    assert_eq!(reply.status, 200, "{reply:?}");
    daemon.stop();
}

#[test]
fn a_command_that_asks_and_says_nothing_more_is_shown_as_such() {
    let command = "printf 'Are you sure you want to delete it all? '; sleep 600; echo x";
    let provider = provider(&[("asks", command), ("works", "echo compiling; sleep 600")]);
    let home = Home::new("tasks_asks", Some(&provider));
    let daemon = start(&home);
    daemon.create_session("s");
    let asks = begin(&daemon, "s", "asks");
    let works = begin(&daemon, "s", "works");
    let detected = |task: &str| {
        let found = tasks(&daemon, "s").into_iter().find(|found| found["id"] == task).expect("listed");
        found["metadata"]["interactive_prompt_detected"].as_bool().expect("a verdict")
    };
    eventually("the question to be seen", || detected(&asks).then_some(()));
    assert!(!detected(&works));
    let seen = output(&daemon, "s", &asks, "tail_bytes=100");
    assert_eq!(seen["output_excerpt"], "Are you sure you want to delete it all? ");
    for task in [&asks, &works] {
        assert_eq!(daemon.post(&format!("/v1/sessions/s/tasks/{task}/stop"), &json!({})).status, 200);
    }
    eventually("its end", || (tasks(&daemon, "s")[0]["status"] == "cancelled").then_some(()));
    assert!(!detected(&asks), "what has ended asks nothing");
    daemon.stop();
}
