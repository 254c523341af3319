//! Trees that nobody would make on purpose: places that may not be read, files larger than the memory, names and lines without end.
//! Each is answered within the time of the call and in the bounds of an answer.

#[path = "support/scratch.rs"]
mod scratch;
#[path = "support/skip.rs"]
mod skip;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kheish_daemon::limits::TOOL_OUTPUT_BYTES_MAX;
use kheish_daemon::sys;
use kheish_daemon::tools::{self, Control, ToolOutput, Workspace};
use scratch::Scratch;
use serde_json::{Value, json};

fn call(root: &Path, tool: &str, input: &Value, limit_ms: u64) -> (Value, ToolOutput) {
    let workspace = Workspace::open(root).expect("a directory");
    let def = tools::find(tool).expect("a tool of the table");
    let input = tools::arguments(&input.to_string()).expect("an object");
    let output = tools::run(def, &input, &workspace, &Control::new(limit_ms));
    assert!(output.content.len() <= TOOL_OUTPUT_BYTES_MAX, "{} bytes", output.content.len());
    (serde_json::from_str(&output.content).expect("JSON"), output)
}

#[test]
fn what_may_not_be_read_is_counted_and_the_rest_is_found() {
    let test = "what_may_not_be_read_is_counted_and_the_rest_is_found";
    if sys::effective_user_id() == 0 {
        skip::skip(test, "root reads everything");
        return;
    }
    let scratch = Scratch::new("hostile_unreadable");
    let root = scratch.path();
    for directory in ["open", "shut", "names_only"] {
        fs::create_dir(root.join(directory)).expect("a scratch folder");
        fs::write(root.join(directory).join("file.txt"), "needle\n").expect("a scratch file");
    }
    fs::write(root.join("secret.txt"), "needle\n").expect("a scratch file");
    let mode =
        |path: &str, mode: u32| fs::set_permissions(root.join(path), Permissions::from_mode(mode)).expect("ours");
    mode("secret.txt", 0);
    mode("shut", 0);
    mode("names_only", 0o600);

    let (found, _) = call(root, "grep_search", &json!({"pattern": "needle"}), 20_000);
    assert_eq!(found["matches"], json!([{"path": "open/file.txt", "line": 1, "text": "needle"}]), "{found}");
    let notes = found["notes"].to_string();
    assert!(notes.contains("could not be read"), "{notes}");
    let (found, _) = call(root, "glob_search", &json!({"pattern": "*.txt"}), 20_000);
    assert!(found["paths"].to_string().contains("open/file.txt"), "{found}");
    assert!(found["notes"].to_string().contains("directories could not be read"), "{found}");
    let (found, _) = call(root, "list_files", &json!({}), 20_000);
    assert!(found["paths"].to_string().contains("secret.txt"), "a name may be known: {found}");
    for (tool, input) in [
        ("read_file", json!({"path": "secret.txt"})),
        ("read_file", json!({"path": "shut/file.txt"})),
        ("edit_file", json!({"path": "secret.txt", "old_text": "needle", "new_text": "x"})),
        ("list_files", json!({"base": "shut"})),
        ("bash", json!({"command": "true", "workdir": "shut"})),
    ] {
        let (content, output) = call(root, tool, &input, 20_000);
        assert!(output.is_error, "{tool} {input}: {content}");
        let error = content["error"].as_str().expect("a text");
        assert!(error.contains("; next: "), "{tool} {input}: {error}");
    }
    // What was made unreadable is removed with the scratch folder.
    mode("shut", 0o700);
    mode("names_only", 0o700);
}

#[test]
fn a_file_larger_than_the_memory_is_answered_in_bounds() {
    let scratch = Scratch::new("hostile_huge");
    let root = scratch.path();
    fs::write(root.join("huge"), "first line\nsecond line\n").expect("a scratch file");
    // Without a byte on the disk.
    let huge = File::options().write(true).open(root.join("huge")).expect("a scratch file");
    huge.set_len(64 << 30).expect("a sparse file");
    fs::write(root.join("small"), "first line\n").expect("a scratch file");

    // Its zeros make it binary; the end of it is not looked for.
    let (read, output) = call(root, "read_file", &json!({"path": "huge", "start_byte": 0, "byte_count": 16}), 2_000);
    assert!(output.is_error || read["file_bytes"] == 64u64 << 30, "{read}");
    let (found, _) = call(root, "grep_search", &json!({"pattern": "first"}), 2_000);
    assert!(found["matches"].to_string().contains("small") || found["truncated"] == true, "{found}");
    for (tool, input) in [
        ("edit_file", json!({"path": "huge", "old_text": "first", "new_text": "x"})),
        ("write_file", json!({"path": "huge", "content": "x", "expected_sha256": "0".repeat(64)})),
    ] {
        let (content, output) = call(root, tool, &input, 2_000);
        assert!(
            output.is_error && content["error"].as_str().expect("a text").contains("; next: "),
            "{tool}: {content}"
        );
    }
    assert_eq!(fs::metadata(root.join("huge")).expect("it is there").len(), 64 << 30, "nothing was changed");
}

/// A directory of very many names, and a name of very many directories.
#[test]
fn very_many_names_are_cut_and_said_so() {
    let scratch = Scratch::new("hostile_many");
    let root = scratch.path();
    let long = "n".repeat(200);
    for number in 0..3_000 {
        File::create(root.join(format!("{long}{number:05}"))).expect("a scratch file");
    }
    for (tool, input) in [("list_files", json!({})), ("glob_search", json!({"pattern": "*"}))] {
        let (found, output) = call(root, tool, &input, 20_000);
        assert_eq!(found["paths"].as_array().map(Vec::len), Some(200), "{tool}");
        assert!(found["truncated"] == true && output.truncated, "{tool}: {}", found["notes"]);
    }
    let (content, output) = call(root, "read_file", &json!({"path": "x/".repeat(5_000)}), 20_000);
    assert!(output.is_error && content["code"] == "invalid_arguments", "{content}");
}
