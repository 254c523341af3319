//! Worker processes of the real binary: calls, deadlines, cancellation, death.

use std::path::PathBuf;

use kheish_daemon::net::Cancel;
use kheish_daemon::sandbox::{Level, SandboxSpec, ToolWorker};
use serde_json::value::RawValue;

fn spec() -> SandboxSpec {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_kheish-daemon"));
    SandboxSpec { program, ..SandboxSpec::new(PathBuf::from(env!("CARGO_TARGET_TMPDIR")), Level::Off) }
}

#[test]
fn a_call_is_answered() {
    let mut worker = ToolWorker::start(&spec()).expect("a worker");
    let input = RawValue::from_string(r#"{"a": 1}"#.to_string()).expect("JSON");
    let output = worker.call("echo", &input, 5_000, &Cancel::new()).expect("an answer");
    assert_eq!(output.content, r#"{"input":{"a":1},"tool":"echo"}"#);
    worker.kill();
}
