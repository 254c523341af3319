//! Worker processes of the real binary: calls, deadlines, cancellation, death, and what is left afterwards.

#[path = "support/scratch.rs"]
mod scratch;
#[path = "support/skip.rs"]
mod skip;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kheish_daemon::limits::{SANDBOX_CALL_BYTES_MAX, SANDBOX_END_MS};
use kheish_daemon::net::Cancel;
use kheish_daemon::sandbox::{
    Feature, Level, Sandbox, SandboxError, SandboxSettings, SandboxSpec, Strength, ToolWorker, Walls, WorkerError,
};
use scratch::Scratch;
use serde_json::value::RawValue;
use serde_json::{Value, json};

const PATIENCE_MS: u64 = 30_000;

fn settings(level: Level, workspace: &Path) -> SandboxSettings<'_> {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_kheish-daemon"));
    SandboxSettings { level, workspace, read_only_paths: Vec::new(), network: false, program }
}

fn workspace(name: &str) -> (Scratch, PathBuf) {
    let scratch = Scratch::new(name);
    let workspace = scratch.path().join("workspace");
    std::fs::create_dir(&workspace).expect("a scratch folder");
    (scratch, workspace)
}

fn spec(workspace: &Path) -> SandboxSpec {
    Sandbox::probe(settings(Level::Auto, workspace)).spec(workspace).expect("a usable sandbox")
}

fn input(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).expect("JSON")
}

fn bash(worker: &mut ToolWorker, command: &str) -> Result<Value, WorkerError> {
    let output = worker.call("bash", &input(&json!({"command": command})), PATIENCE_MS, &Cancel::new())?;
    Ok(serde_json::from_str(&output.content).expect("tools answer in JSON"))
}

/// Processes of this machine with `mark` on their command line.
fn marked(mark: &str) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").expect("a /proc").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has_mark = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(mark) && *pid != std::process::id()
    };
    pids.filter(has_mark).collect()
}

fn wait_until(what: &str, limit_ms: u64, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_millis(limit_ms);
    while !look() {
        assert!(Instant::now() < deadline, "{what}: not within {limit_ms} ms");
        crossbeam_channel::after(Duration::from_millis(5)).recv().expect("a timer fires");
    }
}

#[test]
fn calls_are_answered_one_after_the_other() {
    let (_scratch, workspace) = workspace("worker-calls");
    let mut worker = ToolWorker::start(&spec(&workspace)).expect("a worker");
    for round in 0..3 {
        let write = input(&json!({"path": "note.txt", "content": format!("round {round}")}));
        let written = worker.call("write_file", &write, PATIENCE_MS, &Cancel::new()).expect("an answer");
        assert!(!written.is_error, "{written:?}");
        let read = bash(&mut worker, "cat note.txt").expect("an answer");
        assert_eq!(read["stdout"], format!("round {round}"), "{read}");
    }
    assert_eq!(std::fs::read_to_string(workspace.join("note.txt")).expect("written outside"), "round 2");
    worker.kill();
}

#[test]
fn what_is_no_tool_of_a_worker_is_an_error_that_the_model_sees() {
    let (_scratch, workspace) = workspace("worker-unknown");
    let mut worker = ToolWorker::start(&spec(&workspace)).expect("a worker");
    for (tool, arguments) in [("no_such_tool", json!({})), ("bash", json!({"comand": 1})), ("read_file", json!([]))] {
        let output = worker.call(tool, &input(&arguments), PATIENCE_MS, &Cancel::new()).expect("an answer");
        assert!(output.is_error && output.content.contains("\"code\""), "{tool}: {output:?}");
    }
    worker.kill();
}

#[test]
fn a_call_that_is_too_large_is_refused_and_the_worker_lives_on() {
    let (_scratch, workspace) = workspace("worker-large");
    let mut worker = ToolWorker::start(&spec(&workspace)).expect("a worker");
    let large = input(&json!({"path": "a", "content": "x".repeat(SANDBOX_CALL_BYTES_MAX)}));
    let error = worker.call("write_file", &large, PATIENCE_MS, &Cancel::new()).expect_err("too large");
    assert!(matches!(error, WorkerError::TooLarge { bytes } if bytes > SANDBOX_CALL_BYTES_MAX), "{error}");
    assert_eq!(bash(&mut worker, "echo alive").expect("an answer")["stdout"], "alive\n");
}

/// The tool's own limit comes first and keeps what was printed; a worker that does not even answer is ended.
#[test]
fn a_worker_that_does_not_answer_is_ended_at_the_deadline_with_all_its_processes() {
    let (_scratch, workspace) = workspace("worker-deadline");
    let mark = format!("86{:05}", std::process::id());
    let mut worker = ToolWorker::start(&spec(&workspace)).expect("a worker");
    let stop_it = format!("sleep {mark} & kill -STOP $PPID; sleep {mark}");
    let call = input(&json!({"command": stop_it}));
    let error = worker.call("bash", &call, 300, &Cancel::new());
    // Where the command cannot reach the worker (Landlock 6), the worker answers by itself.
    match error {
        Ok(output) => assert!(output.is_error || output.content.contains("timed_out\":true"), "{output:?}"),
        Err(error) => {
            assert!(matches!(error, WorkerError::TimedOut { deadline_ms: 300 }), "{error}");
            assert!(matches!(bash(&mut worker, "true"), Err(WorkerError::Died { .. })));
        }
    }
    drop(worker);
    assert_eq!(marked(&mark), Vec::<u32>::new());
}

#[test]
fn a_cancelled_call_ends_the_worker_and_everything_that_it_started() {
    let (_scratch, workspace) = workspace("worker-cancel");
    let mark = format!("87{:05}", std::process::id());
    let spec = spec(&workspace);
    let cancel = Cancel::new();
    let (begun, has_begun) = (workspace.join("begun"), workspace.join("begun"));
    let canceller = cancel.clone();
    let watcher = std::thread::spawn(move || {
        wait_until("the command to begin", PATIENCE_MS, || begun.exists());
        canceller.cancel();
    });
    let command = format!("setsid sh -c 'trap \"\" TERM HUP; sleep {mark}' & touch begun; sleep {mark}");
    let mut worker = ToolWorker::start(&spec).expect("a worker");
    let error = worker.call("bash", &input(&json!({"command": command})), PATIENCE_MS, &cancel).expect_err("cancelled");
    assert!(matches!(error, WorkerError::Cancelled), "{error}");
    watcher.join().expect("the watcher saw it begin");
    assert!(has_begun.exists());
    assert_eq!(marked(&mark), Vec::<u32>::new(), "the end of a call is the proof that all of it is gone");
    // A handle that was cancelled before the call starts nothing.
    let mut next = ToolWorker::start(&spec).expect("a worker");
    let error =
        next.call("bash", &input(&json!({"command": "touch never"})), PATIENCE_MS, &cancel).expect_err("refused");
    assert!(matches!(error, WorkerError::Cancelled), "{error}");
    drop(next);
    assert!(!workspace.join("never").exists());
}

#[test]
fn a_worker_that_was_killed_during_a_call_is_reported_long_before_the_deadline() {
    let (_scratch, workspace) = workspace("worker-killed");
    let mut worker = ToolWorker::start(&spec(&workspace)).expect("a worker");
    let (process_id, begun) = (worker.process_id(), workspace.join("begun"));
    let killer = std::thread::spawn(move || {
        wait_until("the command to begin", PATIENCE_MS, || begun.exists());
        kheish_daemon::sys::kill(process_id, 9).expect("a child of ours");
    });
    // A command without an end: only the death of the worker can end the call before its deadline.
    let deadline_ms = 10 * PATIENCE_MS;
    let error = worker
        .call("bash", &input(&json!({"command": "touch begun; sleep 86400"})), deadline_ms, &Cancel::new())
        .expect_err("it was killed");
    assert!(matches!(error, WorkerError::Died { .. }), "{error}");
    killer.join().expect("the killer saw it begin");
    assert!(matches!(bash(&mut worker, "true"), Err(WorkerError::Died { .. })), "a dead worker stays dead");
}

/// No pid namespace: the outermost process is the parent of all orphans and ends them one by one.
#[test]
fn without_a_pid_namespace_nothing_is_left_either() {
    let (_scratch, workspace) = workspace("worker-subreaper");
    let mark = format!("88{:05}", std::process::id());
    let mut worker = ToolWorker::start(&SandboxSpec { walls: Walls::None, ..spec(&workspace) }).expect("a worker");
    let command = format!(
        "for i in 1 2 3; do setsid sh -c '(trap \"\" TERM HUP INT; sleep {mark}; sleep {mark}) & exit' & done; \
         (setsid setsid sleep {mark} &) & touch begun; sleep {mark}"
    );
    let cancel = Cancel::new();
    let canceller = cancel.clone();
    let begun = workspace.join("begun");
    let watcher = std::thread::spawn(move || {
        wait_until("the command to begin", PATIENCE_MS, || begun.exists());
        canceller.cancel();
    });
    let error = worker.call("bash", &input(&json!({"command": command})), PATIENCE_MS, &cancel).expect_err("cancelled");
    watcher.join().expect("the watcher saw it begin");
    assert!(matches!(error, WorkerError::Cancelled), "{error}");
    assert_eq!(marked(&mark), Vec::<u32>::new());
}

/// SIGKILL of the daemon: the test is its own daemon in a second process.
#[test]
fn nothing_survives_a_daemon_that_was_killed() {
    for walls in ["all", "none"] {
        let (_scratch, workspace) = workspace(&format!("worker-orphan-{walls}"));
        let mark = format!("89{:05}", std::process::id());
        let mut daemon = std::process::Command::new(std::env::current_exe().expect("this binary"))
            .args(["--ignored", "--exact", "plays_a_daemon_with_a_busy_worker", "--nocapture"])
            .env("KHEISH_PLAY_WORKSPACE", &workspace)
            .env("KHEISH_PLAY_WALLS", walls)
            .env("KHEISH_PLAY_MARK", &mark)
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("this binary starts");
        wait_until("the command to begin", PATIENCE_MS, || workspace.join("begun").exists());
        assert_ne!(marked(&mark), Vec::<u32>::new(), "the mark is not found at all");
        daemon.kill().expect("a child of ours");
        daemon.wait().expect("a child of ours");
        wait_until("the end of all processes", 5 * SANDBOX_END_MS, || marked(&mark).is_empty());
    }
}

#[test]
#[ignore = "the other process of nothing_survives_a_daemon_that_was_killed"]
fn plays_a_daemon_with_a_busy_worker() {
    let Some(workspace) = std::env::var_os("KHEISH_PLAY_WORKSPACE").map(PathBuf::from) else { return };
    let mark = std::env::var("KHEISH_PLAY_MARK").expect("set with the workspace");
    let mut spec = spec(&workspace);
    if std::env::var("KHEISH_PLAY_WALLS").as_deref() == Ok("none") {
        spec.walls = Walls::None;
    }
    let mut worker = ToolWorker::start(&spec).expect("a worker");
    let command = format!("setsid sh -c 'trap \"\" TERM HUP; sleep {mark}' & touch begun; sleep {mark}");
    let answer = bash(&mut worker, &command);
    panic!("it should have been killed meanwhile: {answer:?}");
}

#[test]
fn a_command_that_ends_leaves_nothing_for_the_next_one() {
    let (_scratch, workspace) = workspace("worker-leftover");
    let offer = Sandbox::probe(settings(Level::Auto, &workspace));
    if !offer.report().features.iter().any(|feature| feature.name == Feature::PidNamespace && feature.active) {
        skip::skip("a_command_that_ends_leaves_nothing_for_the_next_one", "no pid namespace here");
        return;
    }
    let mark = format!("85{:05}", std::process::id());
    let mut worker = ToolWorker::start(&spec(&workspace)).expect("a worker");
    let left = format!("(setsid setsid sleep {mark} >/dev/null 2>&1 &) ; echo done");
    assert_eq!(bash(&mut worker, &left).expect("an answer")["stdout"], "done\n");
    assert_eq!(marked(&mark), Vec::<u32>::new());
    assert_eq!(bash(&mut worker, "echo next").expect("an answer")["stdout"], "next\n");
}

#[test]
fn required_refuses_where_one_wall_is_missing_and_auto_says_so() {
    let (_scratch, workspace) = workspace("worker-required");
    // A program that cannot be started offers nothing: that is what a kernel without any wall looks like.
    for level in [Level::Required, Level::Auto] {
        let broken = SandboxSettings { program: PathBuf::from("/bin/false"), ..settings(level, &workspace) };
        let sandbox = Sandbox::probe(broken);
        assert_eq!((sandbox.report().usable, sandbox.report().strength), (false, Strength::None));
        let error = sandbox.spec(&workspace).expect_err("nothing to run tools in");
        assert!(matches!(error, SandboxError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("; next: "), "{error}");
    }
    let offer = Sandbox::probe(settings(Level::Required, &workspace));
    let is_full = offer.report().strength == Strength::Full;
    assert_eq!((offer.report().usable, offer.spec(&workspace).is_ok()), (is_full, is_full));
}

/// A worker that is promised a wall builds it or refuses; it does not go on with less.
#[test]
fn a_wall_that_cannot_be_built_is_a_refusal() {
    let (_scratch, workspace) = workspace("worker-refusal");
    let mut spec = spec(&workspace);
    // Landlock's rules come after the rights to mount are gone: without no_new_privs the kernel refuses them.
    spec.walls = Walls::Probed(vec![Feature::CapabilitiesDropped, Feature::Landlock, Feature::Seccomp]);
    if kheish_daemon::sys::effective_user_id() == 0 {
        spec.walls = Walls::Probed(vec![Feature::CapabilitiesDropped, Feature::Seccomp]);
    }
    let error = ToolWorker::start(&spec).expect_err("refused");
    assert!(matches!(&error, SandboxError::Refused { cause } if cause.contains("wall ")), "{error}");
}

#[test]
fn what_the_walls_cannot_express_is_refused_before_anything_starts() {
    let (_scratch, workspace) = workspace("worker-express");
    let good = spec(&workspace);
    type Change = dyn Fn(&mut SandboxSpec);
    let change = |change: &Change| {
        let mut spec = good.clone();
        change(&mut spec);
        ToolWorker::start(&spec).map(drop)
    };
    let cases: [(&str, &Change); 7] = [
        ("read-only without walls", &|spec| (spec.walls, spec.workspace_read_only) = (Walls::None, true)),
        ("no network without filter", &|spec| spec.walls = Walls::Probed(vec![Feature::PrivateRoot])),
        ("relative", &|spec| spec.workspace = PathBuf::from("relative")),
        ("dots", &|spec| spec.workspace = spec.workspace.join("../workspace")),
        ("everything", &|spec| spec.workspace = PathBuf::from("/")),
        ("a part of the system", &|spec| spec.workspace = PathBuf::from("/proc/self")),
        ("the host's temp directory", &|spec| spec.workspace = PathBuf::from("/tmp")),
    ];
    for (name, case) in cases {
        let error = change(case).expect_err(name);
        assert!(matches!(error, SandboxError::Unexpressible { .. }), "{name}: {error}");
    }
    assert!(change(&|_| {}).is_ok());
}
