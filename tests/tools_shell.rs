//! `bash`: what it shows, and that nothing of a command stays when it is over.

#[path = "support/scratch.rs"]
mod scratch;

use std::path::Path;
use std::time::{Duration, Instant};

use kheish_daemon::limits::{TOOL_OUTPUT_BYTES_MAX, TOOL_OVERFLOW_BYTES_MAX};
use kheish_daemon::tools::{self, Control, ToolOutput, Workspace};
use scratch::Scratch;
use serde_json::{Value, json};

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

fn bash(root: &Path, input: Value) -> (Value, ToolOutput) {
    let workspace = Workspace::open(root).expect("a directory");
    let def = tools::find("bash").expect("a tool of the table");
    let input = tools::arguments(&input.to_string()).expect("an object");
    let output = tools::run(def, &input, &workspace, &Control::new(60_000));
    assert!(output.content.len() <= TOOL_OUTPUT_BYTES_MAX);
    (serde_json::from_str(&output.content).expect("JSON"), output)
}

/// A name for processes that no other run of these tests uses.
fn mark(name: &str) -> String {
    format!("kheish_mark_{name}_{}", std::process::id())
}

/// Waits until no process but ours has `mark` in its command line.
fn gone(mark: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !processes_with(mark).is_empty() {
        assert!(Instant::now() < deadline, "still there: {:?}", processes_with(mark));
        std::thread::yield_now();
    }
}

fn processes_with(mark: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    std::fs::read_dir("/proc")
        .expect("proc")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()) && *pid != own)
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(mark))
        })
        .collect()
}

#[test]
fn a_command_gives_its_output_code_and_directory() {
    let scratch = Scratch::new("shell_plain");
    std::fs::create_dir(scratch.path().join("sub dir")).unwrap();
    let (content, output) = bash(
        scratch.path(),
        json!({"command": "pwd; cat; echo é; printf 'bad \\xff' >&2; exit 3", "workdir": "sub dir"}),
    );
    let duration_ms = content["duration_ms"].clone();
    let stdout = format!("{}\né\n", scratch.path().canonicalize().unwrap().join("sub dir").display());
    let expected = json!({
        "command": "pwd; cat; echo é; printf 'bad \\xff' >&2; exit 3", "workdir": "sub dir", "exit_code": 3,
        "success": false, "timed_out": false, "stdout": stdout, "stderr": "bad \u{fffd}",
        "stdout_bytes": stdout.len(), "stderr_bytes": 5, "stdout_truncated": false, "stderr_truncated": false,
        "duration_ms": duration_ms,
    });
    assert_eq!(content, expected);
    assert!(!output.is_error && !output.truncated && output.overflow.is_none());
    let (content, _) = bash(scratch.path(), json!({"command": "kill -9 $$"}));
    assert_eq!(
        (&content["exit_code"], &content["signal"], &content["success"]),
        (&json!(null), &json!(9), &json!(false))
    );
    let (content, output) = bash(scratch.path(), json!({"command": "true", "workdir": "../"}));
    assert_eq!((output.is_error, &content["code"]), (true, &json!("path_refused")));
}

#[test]
fn a_command_sees_no_variable_and_no_descriptor_of_ours() {
    let scratch = Scratch::new("shell_env");
    let _open = std::fs::File::open(scratch.path()).unwrap();
    let (content, _) = bash(scratch.path(), json!({"command": "env | cut -d= -f1 | sort; ls /proc/$$/fd; true"}));
    let seen: Vec<&str> = content["stdout"].as_str().unwrap().lines().collect();
    let expected = ["HOME", "LANG", "PATH", "PWD", "SHELL", "SHLVL", "TERM", "TMPDIR", "_", "0", "1", "2"];
    assert_eq!(seen, expected);
    let (content, _) = bash(
        scratch.path(),
        json!({"command": "(: </dev/tty) 2>/dev/null && echo terminal; ps -o sid= $$ | grep -qw $$ && echo own"}),
    );
    assert_eq!(content["stdout"], "own\n");
}

#[test]
fn endless_output_costs_bounded_memory_and_keeps_both_ends() {
    let scratch = Scratch::new("shell_output");
    let command = "echo first; head -c 30000000 /dev/zero | tr '\\0' x; echo; echo last; echo problem >&2";
    let (content, output) = bash(scratch.path(), json!({"command": command}));
    assert_eq!((&content["exit_code"], &content["stdout_bytes"]), (&json!(0), &json!(30_000_012)));
    assert_eq!((&content["stdout_truncated"], &content["stderr_truncated"]), (&json!(true), &json!(false)));
    let stdout = content["stdout"].as_str().unwrap();
    assert!(stdout.starts_with("first\nxxx") && stdout.ends_with("x\nlast\n"), "{}", &stdout[..20]);
    let left_out: u64 = stdout.split("[… ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert_eq!(left_out + stdout.bytes().filter(|b| *b == b'x').count() as u64 + 12, 30_000_012);
    let overflow = String::from_utf8(output.overflow.expect("a blob")).unwrap();
    assert!(output.truncated && overflow.len() <= TOOL_OVERFLOW_BYTES_MAX && overflow.len() > 400_000);
    assert!(overflow.ends_with("last\n\n[standard error]\nproblem\n"));
    // Bytes that take six each in JSON still fit.
    let (content, _) =
        bash(scratch.path(), json!({"command": "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2"}));
    assert_eq!((&content["stdout_bytes"], &content["stderr_truncated"]), (&json!(1_000_000), &json!(true)));
}

#[test]
fn a_command_that_takes_too_long_is_ended_with_what_it_said_so_far() {
    let scratch = Scratch::new("shell_time");
    let mark = mark("slow");
    let command = format!("trap '' TERM INT; echo begun; exec -a {mark} sleep 1000");
    // On a busy machine the shell may not have come to its first word when the shortest of these times is over.
    let said = [300, 3_000, 30_000].into_iter().find(|timeout_ms| {
        let (content, output) = bash(scratch.path(), json!({"command": command, "timeout_ms": timeout_ms}));
        assert_eq!((&content["timed_out"], &content["exit_code"]), (&json!(true), &json!(null)));
        let error = format!("the command was ended after {timeout_ms} ms; next: ");
        assert!(output.is_error && content["error"].as_str().unwrap().starts_with(&error), "{content}");
        gone(&mark);
        content["stdout"] == "begun\n"
    });
    assert!(said.is_some(), "what it had said is lost");
}

#[test]
fn what_a_finished_command_left_in_its_group_is_ended_and_does_not_delay_the_answer() {
    let scratch = Scratch::new("shell_left");
    let mark = mark("left");
    let begun = Instant::now();
    let (content, _) = bash(
        scratch.path(),
        json!({"command": format!("for n in 1 2 3; do bash -c 'trap \"\" TERM; exec -a {mark} sleep 1000' & done; echo done")}),
    );
    assert_eq!((&content["exit_code"], &content["stdout"]), (&json!(0), &json!("done\n")));
    gone(&mark);
    // Five times the grace, the wait for killed processes and the drain.
    assert!(begun.elapsed() < Duration::from_millis(5 * (500 + 2_000 + 200)));
}

#[test]
fn the_time_of_a_call_is_the_asked_one_within_the_table_and_background_calls_are_the_daemons() {
    let def = tools::find("bash").unwrap();
    let of = |input: Value| {
        let input = tools::arguments(&input.to_string()).unwrap();
        (tools::timeout_ms(def, &input), tools::place(def, &input))
    };
    assert_eq!(of(json!({"command": "x"})), (20_000, tools::Place::Worker));
    assert_eq!(of(json!({"command": "x", "timeout_ms": 500_000})), (180_000, tools::Place::Worker));
    assert_eq!(of(json!({"command": "x", "timeout_ms": 500, "run_in_background": false})), (500, tools::Place::Worker));
    assert_eq!(of(json!({"command": "x", "run_in_background": true})), (20_000, tools::Place::Daemon));
}

/// Nobody sits at a terminal: whoever reads from one hears so at once, and goes on or fails by itself.
#[test]
fn what_reads_from_a_terminal_is_answered_at_once() {
    let scratch = Scratch::new("shell_terminal");
    let (content, _) = bash(
        scratch.path(),
        json!({"command": "read -r -p 'Continue? [y/N] ' a; echo \"read $?\"; cat; echo \"cat $?\"; \
               (exec 3</dev/tty) 2>/dev/null; echo \"tty $?\"; test -t 0 -o -t 1 -o -t 2; echo \"terminal $?\""}),
    );
    assert_eq!(content["stdout"], "read 1\ncat 0\ntty 1\nterminal 1\n", "{content}");
    assert_eq!((&content["timed_out"], &content["success"]), (&json!(false), &json!(true)));
}

/// It would have held its run for two minutes and told the model nothing but that its time was up.
#[test]
fn a_command_that_asks_and_waits_is_ended_early_with_its_question() {
    let scratch = Scratch::new("shell_asks");
    let command = "mkfifo answer; printf 'ready\nOverwrite existing file? [y/N] ' >&2; read -r a < answer; echo never";
    let (content, output) = bash(scratch.path(), json!({"command": command, "timeout_ms": 120_000}));
    assert!(output.is_error, "{content}");
    assert_eq!(content["waits_for_answer"], "Overwrite existing file? [y/N]");
    let error = content["error"].as_str().expect("a reason");
    assert!(
        error.contains("Overwrite existing file?") && error.contains("next: give the answer with the command"),
        "{error}"
    );
    assert_eq!((&content["timed_out"], &content["exit_code"]), (&json!(false), &json!(null)));
    assert!(content["duration_ms"].as_u64().expect("a time") < 120_000, "{content}");
}

/// One that asks again at each end of its input is never silent.
#[test]
fn a_command_that_asks_for_ever_is_told_apart_from_a_slow_one() {
    let scratch = Scratch::new("shell_loop");
    let asks = "while :; do printf 'Proceed (yes/no)? '; read -r a; done";
    let (content, output) = bash(scratch.path(), json!({"command": asks, "timeout_ms": 500}));
    assert!(output.is_error && content["timed_out"] == true, "{content}");
    assert!(content["waits_for_answer"].as_str().expect("a question").ends_with("Proceed (yes/no)?"), "{content}");
    let (content, _) = bash(scratch.path(), json!({"command": "echo working; sleep 60", "timeout_ms": 300}));
    assert_eq!((&content["timed_out"], content.get("waits_for_answer")), (&json!(true), None));
    assert!(content["error"].as_str().expect("a reason").contains("run_in_background"), "{content}");
}
