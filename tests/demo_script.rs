//! `make demo` on the binary of this build: it must work on a machine that has nothing but Rust, so it runs with every
//! test, as whoever runs them.

use std::path::Path;
use std::process::Command;

const PROVEN: &[&str] = &[
    "  - the stored credential is nowhere in the state root in plain text",
    "  - run-1 was accepted, executed against the model over HTTP and streamed as it was written",
    "  - the daemon was killed with SIGKILL while run-2 was running",
    "  - after the restart run-2 went on by itself and completed; the client that had waited for it got the answer",
    "  - run-1 is still there, byte for byte as before",
    "  - submitting run-2's input again under the same Idempotency-Key gave run-2, not a new run",
    "  - a tool call waited for a person, was allowed from another terminal, and only then wrote its file",
    "  - a background command was listed, read and stopped; the daemon says that its process tree is gone",
    "  - the daemon was killed while a tool ran: the model was told that the outcome is unknown, and nothing ran twice",
    "  - asked to stop, the daemon ended cleanly",
    "  - the whole journal verifies offline: chain, seals and signatures",
    "  - in a copy with one altered word, verification finds the damage",
];

#[test]
fn the_demo_runs_to_its_end_and_proves_each_line() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/demo.sh");
    let output = Command::new(script)
        .env("KHEISH_DEMO_BINARY", env!("CARGO_BIN_EXE_kheish-daemon"))
        .output()
        .expect("bash is there");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{:?}\n{stdout}\n{stderr}", output.status);
    let (_, proven) = stdout.split_once("What was just proven\n").expect("the demo ends with what it proved");
    assert_eq!(proven.lines().collect::<Vec<_>>(), PROVEN, "{stdout}");
}
