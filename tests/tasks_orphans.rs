//! Nothing of a background command outlives its task or its daemon, whatever it does to hide: sessions of its own, double
//! forks, ignored signals, a cleared environment, held pipes, swarms. A cycle is one task that was started and ended.
//! `KHEISH_ORPHAN_CYCLES` says how many (`make batteries` takes 500). Ten end at once: by stops, or by SIGKILL of the daemon,
//! in turn.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use std::time::{Duration, Instant};

use daemon::{Daemon, Home, Provider, eventually};
use kheish_daemon::limits::TASK_KILL_PROOF_MS;
use serde_json::{Value, json};

const CYCLES_DEFAULT: usize = 40;
const CYCLES_FULL: usize = 500;
/// How many kinds there are.
const KINDS: usize = 10;
const IGNORE: &str = "trap '' TERM HUP INT QUIT USR1 USR2;";

/// A name for processes that no other run of these tests uses.
fn mark(name: &str) -> String {
    format!("kheish_mark_{name}_{}", std::process::id())
}

/// Ways to hide, all processes named `mark`. Each keeps its shell alive, but for the last two.
fn kinds(mark: &str) -> [String; KINDS] {
    let sleep = format!("exec -a {mark} sleep 1000");
    [
        sleep.clone(),
        format!("{IGNORE} {sleep}"),
        format!("setsid bash -c '{IGNORE} {sleep}' & wait"),
        format!("(setsid setsid bash -c '({sleep}) & exit 0' &); {sleep}"),
        format!("{IGNORE} for n in 1 2 3 4 5 6 7 8; do (setsid bash -c '{sleep}' &); done; {sleep}"),
        format!("env -i setsid bash -c '{IGNORE} {sleep}' & exec env -i bash -c '{sleep}'"),
        format!("(while :; do bash -c 'exec -a {mark} sleep 0.05'; done) & {sleep}"),
        format!("nohup setsid bash -c '{IGNORE} {sleep}' >/dev/null 2>&1 </dev/null & disown -a; {sleep}"),
        format!("(setsid bash -c '{IGNORE} {sleep}' &) ; echo the shell ends and the pipe is held"),
        format!("for n in 1 2 3; do bash -c '{sleep}' & done; exit 3"),
    ]
}

/// A provider whose model starts one command of each kind, all in one turn.
fn provider(mark: &str) -> Provider {
    let text = |text: &str| serde_json::to_string(text).expect("a text is a TOML string as well");
    let call = |command: &String| {
        let arguments = json!({"command": command, "run_in_background": true}).to_string();
        format!("{{ name = \"bash\", arguments = {} }}", text(&arguments))
    };
    let calls: Vec<String> = kinds(mark).iter().map(call).collect();
    Provider::start(&format!(
        "[[turn]]\nmatch = \"all\"\nmatch_result = \"task_id\"\ntext = \"started\"\n\
         [[turn]]\nmatch = \"all\"\ntool_calls = [{}]\n",
        calls.join(", ")
    ))
}

/// A daemon that starts commands unasked, with all walls or with none: then there is no pid namespace to help.
/// Dumpable, so that its descriptors can be counted by a user other than root.
fn start(home: &Home, sandbox: &str) -> Daemon {
    let daemon = home.serve().options(&["--sandbox", sandbox, "--dumpable"]).start();
    let reply = daemon.post("/v1/runtime/permission-mode", &json!({"mode": "bypassPermissions"}));
    assert_eq!(reply.status, 200, "{reply:?}");
    daemon
}

/// Has the model start one command of each kind in a new session; the ids of the tasks.
fn begin(daemon: &Daemon, session: &str) -> Vec<String> {
    daemon.create_session(session);
    let run = daemon.submit(session, "all");
    assert_eq!(daemon.wait_end(&run), "completed", "{}", daemon.run(&run));
    let tasks = daemon.get(&format!("/v1/sessions/{session}/tasks")).json();
    let ids: Vec<String> =
        tasks.as_array().expect("a list").iter().map(|task| task["id"].as_str().expect("an id").to_string()).collect();
    assert_eq!(ids.len(), KINDS, "{tasks}");
    ids
}

fn survivors(mark: &str) -> Vec<(u32, String)> {
    let pids = std::fs::read_dir("/proc").expect("proc");
    let pids = pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        // The hostile shells carry the mark in their text too; this test and its provider do not run them.
        (line.contains(mark) && !line.contains("run_in_background")).then_some((pid, line))
    })
    .collect()
}

/// Children of the daemon that have ended and were not taken in, and its open descriptors.
fn zombies_and_descriptors(daemon: &Daemon) -> (usize, usize) {
    let parent = daemon.pid().to_string();
    let is_zombie = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace()).into_iter().flatten();
        fields.next() == Some("Z") && fields.next() == Some(&parent)
    };
    let entries =
        std::fs::read_dir("/proc").expect("proc").filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let zombies = entries.filter(|pid| is_zombie(pid)).count();
    (zombies, std::fs::read_dir(format!("/proc/{parent}/fd")).expect("the daemon runs").count())
}

fn nobody_left(mark: &str, what: &str) {
    let since = Instant::now();
    eventually(what, || survivors(mark).is_empty().then_some(()));
    assert!(since.elapsed() < 5 * Duration::from_millis(TASK_KILL_PROOF_MS), "{what}: {:?}", since.elapsed());
}

/// Stops every task and waits for its recorded end.
fn stop_all(daemon: &Daemon, session: &str, tasks: &[String]) {
    for task in tasks {
        let reply = daemon.post(&format!("/v1/sessions/{session}/tasks/{task}/stop"), &Value::Null);
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    for task in tasks {
        let target = format!("/v1/sessions/{session}/tasks/{task}/output?wait=true&timeout_ms=60000");
        let seen = daemon.get(&target).json();
        assert_eq!(seen["retrieval_status"], "success", "{seen}");
        let metadata = &seen["task"]["metadata"];
        assert_eq!(metadata["process_tree_shutdown_confirmed"], true, "{seen}");
        assert_eq!(metadata["process_tree_remaining_pids"], json!([]), "{seen}");
    }
}

#[test]
fn no_process_outlives_its_task_or_its_daemon() {
    let in_full = std::env::var_os("KHEISH_BATTERIES").map_or(CYCLES_DEFAULT, |_| CYCLES_FULL);
    let asked = std::env::var("KHEISH_ORPHAN_CYCLES").ok().and_then(|text| text.parse().ok());
    let cycles = asked.unwrap_or(in_full);
    let mark = &mark("orphan");
    let provider = provider(mark);
    let home = Home::new("orphans", Some(&provider));
    let mut daemon = start(&home, "auto");
    let mut done = 0;
    let mut round = 0usize;
    let mut flat = None;
    while done < cycles {
        let session = format!("s-{round}");
        let tasks = begin(&daemon, &session);
        // The first round warms up; after it nothing may be added.
        if round.is_multiple_of(2) {
            stop_all(&daemon, &session, &tasks);
            assert_eq!(survivors(mark), [], "round {round}: an end was recorded before it was true");
            // A child that has just ended is a zombie for the moment until it is taken in.
            let found = eventually("no zombies, and idle connections are gone", || {
                let found = zombies_and_descriptors(&daemon);
                (found.0 == 0 && flat.is_none_or(|flat| found <= flat)).then_some(found)
            });
            flat.get_or_insert((0, found.1 + 2));
        } else {
            daemon.kill();
            nobody_left(mark, &format!("round {round}: nobody left after SIGKILL"));
            daemon = start(&home, ["off", "auto"][round / 2 % 2]);
            let live = || daemon.get("/v1/status").json()["tasks"]["live_background_shell_task_count"].clone();
            eventually("all of them are settled", || (live() == 0).then_some(()));
            flat = None;
        }
        done += tasks.len();
        round += 1;
    }
    daemon.stop();
    assert_eq!(survivors(mark), []);
}

/// The worker of a task is what watches over it. Whoever kills that one has not won: in a pid namespace everything dies
/// with it, and elsewhere the daemon looks for what carries the task's token.
#[test]
fn a_task_whose_worker_is_killed_ends_as_failed_and_leaves_nothing() {
    let mark = &mark("widow");
    let provider = provider(mark);
    for sandbox in ["auto", "off"] {
        let home = Home::new("orphans_worker", Some(&provider));
        let daemon = home.serve().options(&["--sandbox", sandbox, "--dumpable"]).start();
        daemon.post("/v1/runtime/permission-mode", &json!({"mode": "bypassPermissions"}));
        let tasks = begin(&daemon, "s");
        let workers = || {
            kheish_daemon::tools::process::descendants(daemon.pid()).into_iter().filter(|pid| {
                std::fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| String::from_utf8_lossy(&line).contains("__task-worker"))
            })
        };
        let killed: Vec<u32> = workers().collect();
        assert!(!killed.is_empty());
        for pid in killed {
            // Some end together.
            drop(kheish_daemon::sys::kill(pid, 9));
        }
        for task in &tasks {
            let target = format!("/v1/sessions/s/tasks/{task}/output?wait=true&timeout_ms=60000");
            assert_eq!(daemon.get(&target).json()["retrieval_status"], "success");
        }
        daemon.stop();
        if sandbox == "auto" {
            nobody_left(mark, "nobody left after the workers were killed");
        } else {
            // Without a pid namespace, what has cleared its environment cannot be told from a stranger's process.
            eventually("only those without an environment are left", || {
                let with_environment = |pid: &u32| {
                    std::fs::read(format!("/proc/{pid}/environ"))
                        .is_ok_and(|bytes| bytes.windows(17).any(|window| window == b"KHEISH_SHELL_TASK"))
                };
                survivors(mark).iter().all(|(pid, _)| !with_environment(pid)).then_some(())
            });
            for (pid, _) in survivors(mark) {
                drop(kheish_daemon::sys::kill(pid, 9));
            }
        }
    }
}
