//! Worker processes of the real binary: calls, deadlines, cancellation, death.

use std::path::PathBuf;

use kheish_daemon::net::Cancel;
use kheish_daemon::sandbox::{SandboxSpec, ToolWorker, Walls};
use serde_json::value::RawValue;

fn spec() -> SandboxSpec {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_kheish-daemon"));
    SandboxSpec { program, ..SandboxSpec::new(PathBuf::from(env!("CARGO_TARGET_TMPDIR")), Walls::All) }
}

#[test]
fn a_call_is_answered() {
    let mut worker = ToolWorker::start(&spec()).expect("a worker");
    let input = RawValue::from_string(r#"{"a": 1}"#.to_string()).expect("JSON");
    let output = worker.call("echo", &input, 5_000, &Cancel::new()).expect("an answer");
    assert_eq!(output.content, r#"{"input":{"a":1},"tool":"echo"}"#);
    if let Ok(command) = std::env::var("X") {
        let input = RawValue::from_string(serde_json::json!({"command":command}).to_string()).expect("JSON");
        let output = worker.call("bash", &input, 5_000, &Cancel::new()).expect("an answer");
        let v: serde_json::Value = serde_json::from_str(&output.content).unwrap();
        println!("{}\n{}\n{}", v["exit_code"], v["stdout"].as_str().unwrap_or(""), v["stderr"].as_str().unwrap_or(""));
    }
    worker.kill();
}

#[test]
fn timing() {
    let mut worst = Vec::new();
    for _ in 0..20 {
        let t = std::time::Instant::now();
        let worker = ToolWorker::start(&spec()).expect("a worker");
        let a = t.elapsed();
        let t = std::time::Instant::now();
        worker.kill();
        worst.push((a.as_micros(), t.elapsed().as_micros()));
    }
    println!("{worst:?}");
}
