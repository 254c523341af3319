//! The file tools on hostile trees: what they give, what they refuse, and that they always answer.

#[path = "support/scratch.rs"]
mod scratch;
#[path = "support/skip.rs"]
mod skip;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use kheish_daemon::hex::to_hex;
use kheish_daemon::limits::{TOOL_OUTPUT_BYTES_MAX, TOOL_READ_TEXT_BYTES_MAX};
use kheish_daemon::tools::{self, Control, ToolOutput, Workspace};
use scratch::Scratch;
use serde_json::{Value, json};

fn call(workspace: &Workspace, tool: &str, input: &Value) -> ToolOutput {
    let def = tools::find(tool).expect("a tool of the table");
    let input = tools::arguments(&input.to_string()).expect("an object");
    let output = tools::run(def, &input, workspace, &Control::new(20_000));
    assert!(output.content.len() <= TOOL_OUTPUT_BYTES_MAX, "{} bytes", output.content.len());
    output
}

fn ok(workspace: &Workspace, tool: &str, input: &Value) -> Value {
    let output = call(workspace, tool, input);
    assert!(!output.is_error, "{tool} {input}: {}", output.content);
    serde_json::from_str(&output.content).expect("JSON")
}

/// The code of an error; its text must name a next step.
fn refused(workspace: &Workspace, tool: &str, input: &Value) -> String {
    let output = call(workspace, tool, input);
    assert!(output.is_error, "{tool} {input} was not refused: {}", output.content);
    let content: Value = serde_json::from_str(&output.content).expect("JSON");
    assert!(content["error"].as_str().expect("a text").contains("; next: "), "{content}");
    content["code"].as_str().expect("a code").to_string()
}

fn sha256(bytes: &[u8]) -> String {
    to_hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

/// Every test runs with openat2 and, as on an old kernel, without.
fn workspaces(root: &Path) -> [Workspace; 2] {
    [Workspace::open(root).expect("a directory"), Workspace::open_stepwise(root).expect("a directory")]
}

#[test]
fn no_path_leads_out_of_the_workspace() {
    let scratch = Scratch::new("tools_out");
    let root = scratch.path().join("root");
    fs::create_dir_all(root.join("inner")).unwrap();
    fs::write(scratch.path().join("secret"), "outside").unwrap();
    fs::write(root.join("inner/file"), "inside").unwrap();
    symlink("../secret", root.join("up")).unwrap();
    symlink(scratch.path().join("secret"), root.join("absolute")).unwrap();
    symlink("..", root.join("parent")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    symlink("../../secret", root.join("inner/deep")).unwrap();
    let outside = scratch.path().join("secret").to_string_lossy().into_owned();
    for workspace in workspaces(&root) {
        for path in [
            "../secret",
            "inner/../../secret",
            "./../secret",
            "..",
            outside.as_str(),
            "/etc/passwd",
            "up",
            "absolute",
            "parent/secret",
            "inner/deep",
            "magic/etc/passwd",
            "loop",
            "/proc/self/root/etc/passwd",
            "a\u{0}b",
        ] {
            let code = refused(&workspace, "read_file", &json!({"path": path}));
            assert_eq!(code, "path_refused", "{path}");
            for (tool, input) in [
                ("write_file", json!({"path": path, "content": "x"})),
                ("edit_file", json!({"path": path, "old_text": "outside", "new_text": "x"})),
                ("apply_patch", json!({"hunks": [{"path": path, "old_text": "outside", "new_text": "x"}]})),
            ] {
                let code = refused(&workspace, tool, &input);
                assert!(code == "path_refused" || code == "not_a_file", "{tool} {path}: {code}");
            }
            for tool in ["list_files", "glob_search", "grep_search"] {
                let pattern = (tool != "list_files").then_some("s");
                let mut input = json!({"base": path});
                if let Some(pattern) = pattern {
                    input["pattern"] = pattern.into();
                }
                let code = refused(&workspace, tool, &input);
                assert!(["path_refused", "not_a_directory"].contains(&code.as_str()), "{tool} {path}: {code}");
            }
        }
        // The same file by its absolute name is inside.
        let absolute = root.join("inner/../inner/./file").to_string_lossy().into_owned();
        assert_eq!(ok(&workspace, "read_file", &json!({"path": absolute}))["content"], "inside");
    }
    assert_eq!(fs::read_to_string(scratch.path().join("secret")).unwrap(), "outside");
    assert_eq!(fs::read_to_string(root.join("inner/file")).unwrap(), "inside");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 2);
}

#[test]
fn a_link_that_is_swapped_in_while_tools_write_never_lets_a_byte_out() {
    let scratch = Scratch::new("tools_race");
    let root = scratch.path().join("root");
    let outside = scratch.path().join("outside");
    fs::create_dir_all(root.join("dir")).unwrap();
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("file"), "outside").unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let swapper = {
        let (root, outside, stop) = (root.clone(), outside.clone(), stop.clone());
        std::thread::spawn(move || {
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                drop(fs::rename(root.join("dir"), root.join("hidden")));
                drop(symlink(&outside, root.join("dir")));
                drop(fs::remove_file(root.join("dir")));
                drop(fs::rename(root.join("hidden"), root.join("dir")));
            }
        })
    };
    for workspace in workspaces(&root) {
        for n in 0..300 {
            let path = "dir/file";
            call(&workspace, "write_file", &json!({"path": path, "content": format!("inside {n}")}));
            call(&workspace, "edit_file", &json!({"path": path, "old_text": "outside", "new_text": "broken"}));
            let read = call(&workspace, "read_file", &json!({"path": path}));
            assert!(!read.content.contains("outside"), "{}", read.content);
            let found = call(&workspace, "grep_search", &json!({"pattern": "outside"}));
            assert!(!found.content.contains("\"line\""), "{}", found.content);
        }
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    swapper.join().unwrap();
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "outside");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn nothing_but_regular_files_is_opened_and_a_fifo_never_blocks() {
    let scratch = Scratch::new("tools_special");
    let root = scratch.path();
    let status = std::process::Command::new("mkfifo").arg(root.join("fifo")).status().expect("mkfifo");
    assert!(status.success());
    let _socket = std::os::unix::net::UnixDatagram::bind(root.join("socket")).unwrap();
    symlink("fifo", root.join("to_fifo")).unwrap();
    fs::create_dir(root.join("directory")).unwrap();
    fs::write(root.join("plain"), "needle\n").unwrap();
    for workspace in workspaces(root) {
        for path in ["fifo", "directory", "."] {
            for (tool, input) in [
                ("read_file", json!({"path": path})),
                ("write_file", json!({"path": path, "content": "x"})),
                ("edit_file", json!({"path": path, "old_text": "a", "new_text": "x"})),
            ] {
                let code = refused(&workspace, tool, &input);
                assert!(["not_a_file", "path_refused"].contains(&code.as_str()), "{tool} {path}: {code}");
            }
        }
        let code = refused(&workspace, "read_file", &json!({"path": "to_fifo"}));
        assert!(["not_a_file", "path_refused"].contains(&code.as_str()), "{code}");
        refused(&workspace, "read_file", &json!({"path": "socket"}));
        let found = ok(&workspace, "grep_search", &json!({"pattern": "needle"}));
        assert_eq!(found["matches"], json!([{"path": "plain", "line": 1, "text": "needle"}]));
        let listed = ok(&workspace, "list_files", &json!({}));
        assert_eq!(listed["paths"], json!(["directory/", "fifo", "plain", "socket", "to_fifo"]));
    }
}

#[test]
fn a_range_behind_the_first_128_kib_is_reached_and_the_digest_is_that_of_the_whole_file() {
    let scratch = Scratch::new("tools_ranges");
    let text: String = (1..=60_000).map(|n| format!("line {n}\n")).collect();
    assert!(text.len() > 4 * TOOL_READ_TEXT_BYTES_MAX);
    fs::write(scratch.path().join("big"), &text).unwrap();
    let digest = sha256(text.as_bytes());
    for workspace in workspaces(scratch.path()) {
        let read = ok(&workspace, "read_file", &json!({"path": "big", "start_line": 59_999, "line_count": 2}));
        let expected = json!({
            "path": "big", "start_line": 59_999, "line_count": 2, "content": "line 59999\nline 60000\n",
            "bytes_read": 22, "sha256": digest, "encoding": "utf-8", "binary": false, "truncated": false,
            "file_bytes": text.len(), "total_lines": 60_000,
        });
        assert_eq!(read, expected);
        // Going on where the last answer was cut gives the whole file, each line once.
        let (mut whole, mut next) = (String::new(), 1);
        loop {
            let read = ok(&workspace, "read_file", &json!({"path": "big", "start_line": next}));
            whole.push_str(read["content"].as_str().unwrap());
            assert_eq!(read["sha256"], digest.as_str());
            match read["next_start_line"].as_u64() {
                Some(line) => next = line,
                None => break,
            }
        }
        assert!(whole == text, "the ranges do not add up");
        let beyond = ok(&workspace, "read_file", &json!({"path": "big", "start_line": 70_000}));
        assert_eq!((&beyond["content"], &beyond["truncated"]), (&json!(""), &json!(false)));
    }
}

#[test]
fn a_line_longer_than_an_answer_is_read_on_by_bytes() {
    let scratch = Scratch::new("tools_long_line");
    let text = "é\"".repeat(200_000);
    fs::write(scratch.path().join("long"), &text).unwrap();
    let workspace = Workspace::open(scratch.path()).unwrap();
    let mut read = ok(&workspace, "read_file", &json!({"path": "long"}));
    let mut whole = String::new();
    loop {
        whole.push_str(read["content"].as_str().unwrap());
        let Some(next) = read["next_start_byte"].as_u64() else { break };
        assert_eq!(read["truncated"], true);
        read = ok(&workspace, "read_file", &json!({"path": "long", "start_byte": next}));
    }
    assert!(whole == text, "{} of {} bytes", whole.len(), text.len());
}

#[test]
fn binary_files_and_invalid_utf_8_are_told_and_never_edited() {
    let scratch = Scratch::new("tools_binary");
    fs::write(scratch.path().join("binary"), b"a\0b\xff").unwrap();
    fs::write(scratch.path().join("latin"), b"caf\xe9 needle\n").unwrap();
    let workspace = Workspace::open(scratch.path()).unwrap();
    let read = ok(&workspace, "read_file", &json!({"path": "binary"}));
    assert_eq!((&read["binary"], &read["encoding"], &read["content"]), (&json!(true), &json!("binary"), &json!("")));
    let read = ok(&workspace, "read_file", &json!({"path": "binary", "include_base64": true}));
    assert_eq!(read["content_base64"], "YQBi/w==");
    let read = ok(&workspace, "read_file", &json!({"path": "latin"}));
    assert_eq!((&read["encoding"], &read["content"]), (&json!("utf-8-lossy"), &json!("caf\u{fffd} needle\n")));
    for path in ["binary", "latin"] {
        let input = json!({"path": path, "old_text": "a", "new_text": "x"});
        assert_eq!(refused(&workspace, "edit_file", &input), "binary_file");
    }
    let found = ok(&workspace, "grep_search", &json!({"pattern": "needle"}));
    assert_eq!(found["matches"], json!([{"path": "latin", "line": 1, "text": "caf\u{fffd} needle"}]));
    assert_eq!(found["notes"], json!(["1 binary files were left out"]));
    assert_eq!(fs::read(scratch.path().join("latin")).unwrap(), b"caf\xe9 needle\n");
}

#[test]
fn an_edit_replaces_exactly_what_was_meant() {
    let scratch = Scratch::new("tools_edit");
    let file = scratch.path().join("f");
    fs::write(&file, "one\ntwo\none\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o750)).unwrap();
    let workspace = Workspace::open(scratch.path()).unwrap();
    let edit = |old: &str, new: &str, more: Value| {
        let mut input = json!({"path": "f", "old_text": old, "new_text": new});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input
    };
    assert_eq!(refused(&workspace, "edit_file", &edit("three", "x", json!({}))), "no_match");
    assert_eq!(refused(&workspace, "edit_file", &edit("one", "x", json!({}))), "ambiguous_match");
    let output = call(&workspace, "edit_file", &edit("one", "x", json!({})));
    assert!(output.content.contains("occurs 2 times (lines 1, 3)"), "{}", output.content);
    assert_eq!(refused(&workspace, "edit_file", &edit("", "x", json!({}))), "invalid_arguments");
    assert_eq!(refused(&workspace, "edit_file", &edit("one", "one", json!({}))), "invalid_arguments");
    let stale = json!({"expected_sha256": sha256(b"other")});
    assert_eq!(refused(&workspace, "edit_file", &edit("two", "x", stale)), "file_changed");
    assert_eq!(fs::read_to_string(&file).unwrap(), "one\ntwo\none\n", "a refused edit changed the file");

    let fresh = json!({"expected_sha256": sha256(b"one\ntwo\none\n")});
    let done = ok(&workspace, "edit_file", &edit("two\n", "", fresh));
    assert_eq!(done, json!({"path": "f", "replacements": 1, "sha256": sha256(b"one\none\n")}));
    let done = ok(&workspace, "edit_file", &edit("one", "oneone", json!({"replace_all": true})));
    assert_eq!(done["replacements"], 2);
    assert_eq!(fs::read_to_string(&file).unwrap(), "oneone\noneone\n");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o750, "the mode was lost");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1, "a staged file stayed");
}

#[test]
fn a_write_creates_replaces_and_keeps_to_its_precondition() {
    let scratch = Scratch::new("tools_write");
    for (n, workspace) in workspaces(scratch.path()).into_iter().enumerate() {
        let path = format!("a{n}/b/c.txt");
        let none = json!({"path": path, "content": "x", "expected_sha256": sha256(b"x")});
        assert_eq!(refused(&workspace, "write_file", &none), "not_found");
        let done = ok(&workspace, "write_file", &json!({"path": path, "content": "x", "expected_sha256": ""}));
        assert_eq!(done, json!({"path": path, "bytes_written": 1, "sha256": sha256(b"x"), "created": true}));
        let again = json!({"path": path, "content": "y", "expected_sha256": ""});
        assert_eq!(refused(&workspace, "write_file", &again), "file_changed");
        let done = ok(&workspace, "write_file", &json!({"path": path, "content_base64": "AP8="}));
        assert_eq!((&done["created"], &done["bytes_written"]), (&json!(false), &json!(2)));
        assert_eq!(fs::read(scratch.path().join(&path)).unwrap(), b"\0\xff");
        for input in [
            json!({"path": path}),
            json!({"path": path, "content": "x", "content_base64": "eA=="}),
            json!({"path": path, "content_base64": "not base64"}),
        ] {
            assert_eq!(refused(&workspace, "write_file", &input), "invalid_arguments");
        }
        assert_eq!(
            refused(&workspace, "write_file", &json!({"path": format!("{path}/d"), "content": ""})),
            "not_a_directory"
        );
        let long = format!("{}/x", "n".repeat(300));
        assert_eq!(refused(&workspace, "write_file", &json!({"path": long, "content": ""})), "name_too_long");
    }
}

#[test]
fn the_mark_of_a_hidden_secret_is_never_written() {
    let scratch = Scratch::new("tools_mark");
    fs::write(scratch.path().join("env"), "KEY=sk-real\n").unwrap();
    let workspace = Workspace::open(scratch.path()).unwrap();
    for (tool, input) in [
        ("write_file", json!({"path": "env", "content": "KEY=<redacted>\n"})),
        ("write_file", json!({"path": "env", "content_base64": "S0VZPTxyZWRhY3RlZD4K"})),
        ("edit_file", json!({"path": "env", "old_text": "KEY=", "new_text": "A=1\nKEY=<redacted>"})),
        ("apply_patch", json!({"hunks": [{"path": "env", "old_text": "KEY=", "new_text": "<redacted>"}]})),
    ] {
        assert_eq!(refused(&workspace, tool, &input), "invalid_arguments", "{tool}");
    }
    let input = json!({"path": "env", "old_text": "KEY=<redacted>", "new_text": "x"});
    assert_eq!(refused(&workspace, "edit_file", &input), "no_match");
    assert_eq!(fs::read_to_string(scratch.path().join("env")).unwrap(), "KEY=sk-real\n");
}

#[test]
fn a_patch_is_applied_as_a_whole_or_not_at_all() {
    let scratch = Scratch::new("tools_patch");
    let reset = || {
        fs::write(scratch.path().join("a"), "1 2 3\n").unwrap();
        fs::write(scratch.path().join("b"), "x x\n").unwrap();
    };
    let workspace = Workspace::open(scratch.path()).unwrap();
    let hunk = |path: &str, old: &str, new: &str| json!({"path": path, "old_text": old, "new_text": new});
    reset();
    let all = json!({"path": "b", "old_text": "x", "new_text": "y", "replace_all": true});
    // The second hunk of `a` needs the first one's result; `./a` is the same file.
    let hunks = [hunk("a", "1", "one"), all, hunk("./a", "one 2", "done")];
    let done = ok(&workspace, "apply_patch", &json!({"hunks": hunks}));
    let expected = json!({"file_count": 2, "changed_files": [
        {"path": "a", "hunks": 2, "replacements": 2, "bytes_written": 7, "sha256": sha256(b"done 3\n")},
        {"path": "b", "hunks": 1, "replacements": 2, "bytes_written": 4, "sha256": sha256(b"y y\n")},
    ]});
    assert_eq!(done, expected);
    let guarded = |digest: &str| {
        let mut guarded = hunk("a", "1", "one");
        guarded["expected_sha256"] = digest.into();
        guarded
    };
    for (hunks, code) in [
        (vec![hunk("a", "1", "one"), hunk("b", "x", "y")], "ambiguous_match"),
        (vec![hunk("a", "1", "one"), hunk("a", "1", "two")], "no_match"),
        (vec![hunk("a", "1", "one"), hunk("c", "1", "two")], "not_found"),
        (vec![hunk("a", "1", "one"), hunk("../b", "x", "y")], "path_refused"),
        (vec![hunk("b", "x x", "y"), guarded(&sha256(b"other"))], "file_changed"),
        (vec![], "invalid_arguments"),
    ] {
        reset();
        assert_eq!(refused(&workspace, "apply_patch", &json!({"hunks": hunks})), code, "{hunks:?}");
        assert_eq!(fs::read_to_string(scratch.path().join("a")).unwrap(), "1 2 3\n", "{hunks:?}");
        assert_eq!(fs::read_to_string(scratch.path().join("b")).unwrap(), "x x\n", "{hunks:?}");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 2, "a staged file stayed");
    }
}

/// A file that carries the immutable flag can be staged beside and not replaced: the failure that a patch cannot foresee.
#[test]
fn a_patch_that_fails_in_its_last_rename_puts_the_first_file_back() {
    let scratch = Scratch::new("tools_immutable");
    fs::write(scratch.path().join("a"), "old").unwrap();
    fs::write(scratch.path().join("b"), "old").unwrap();
    let chattr = |flag: &str| {
        let run = std::process::Command::new("chattr").arg(flag).arg(scratch.path().join("b")).output();
        run.is_ok_and(|output| output.status.success())
    };
    if !chattr("+i") {
        return skip::skip("a_patch_that_fails_in_its_last_rename", "needs root and a file system with chattr +i");
    }
    let workspace = Workspace::open(scratch.path()).unwrap();
    let hunks: Vec<Value> =
        ["a", "b"].iter().map(|path| json!({"path": path, "old_text": "old", "new_text": "new"})).collect();
    let code = refused(&workspace, "apply_patch", &json!({"hunks": hunks}));
    assert!(chattr("-i"));
    assert_eq!(code, "unreadable");
    assert_eq!(fs::read_to_string(scratch.path().join("a")).unwrap(), "old");
    assert_eq!(fs::read_to_string(scratch.path().join("b")).unwrap(), "old");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 2, "a staged file stayed");
}

#[test]
fn two_writers_of_one_file_never_lose_an_edit() {
    let scratch = Scratch::new("tools_writers");
    fs::write(scratch.path().join("log"), "top\n").unwrap();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let root = scratch.path().to_path_buf();
            std::thread::spawn(move || {
                let workspace = Workspace::open(&root).unwrap();
                for n in 0..25 {
                    let input = json!({"path": "log", "old_text": "top\n", "new_text": format!("top\n{writer}.{n}\n")});
                    ok(&workspace, "edit_file", &input);
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let text = fs::read_to_string(scratch.path().join("log")).unwrap();
    assert_eq!(text.lines().count(), 101, "an edit was lost");
}

#[test]
fn lists_are_sorted_bounded_and_say_what_is_missing() {
    let scratch = Scratch::new("tools_lists");
    let root = scratch.path();
    for directory in ["src/deep/er", ".git/objects", "empty"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for file in ["b.rs", "a.rs", "src/lib.rs", "src/deep/x.rs", "src/deep/er/y.txt", ".git/objects/ab.rs", "-n.rs"] {
        fs::write(root.join(file), "needle: here\n").unwrap();
    }
    symlink("src", root.join("link")).unwrap();
    for workspace in workspaces(root) {
        let listed = ok(&workspace, "list_files", &json!({}));
        let all = json!([
            "-n.rs",
            ".git/",
            "a.rs",
            "b.rs",
            "empty/",
            "link",
            "src/deep/er/y.txt",
            "src/deep/x.rs",
            "src/lib.rs"
        ]);
        assert_eq!(listed, json!({"base": "", "paths": all, "truncated": false}));
        let listed = ok(&workspace, "list_files", &json!({"depth": 1, "base": "./src/"}));
        assert_eq!(listed["paths"], json!(["src/deep/", "src/lib.rs"]));
        let listed = ok(&workspace, "list_files", &json!({"limit": 2}));
        assert_eq!((&listed["paths"], &listed["truncated"]), (&json!(["-n.rs", ".git/"]), &json!(true)));
        let found = ok(&workspace, "glob_search", &json!({"pattern": "*.rs"}));
        assert_eq!(found["paths"], json!(["-n.rs", "a.rs", "b.rs", "src/deep/x.rs", "src/lib.rs"]));
        let found = ok(&workspace, "glob_search", &json!({"pattern": "deep/**", "base": "src"}));
        assert_eq!(found["paths"], json!(["src/deep/er/y.txt", "src/deep/x.rs"]));
        // Version control can be searched when it is named.
        let found = ok(&workspace, "grep_search", &json!({"pattern": "needle", "base": ".git"}));
        assert_eq!(found["matches"], json!([{"path": ".git/objects/ab.rs", "line": 1, "text": "needle: here"}]));
        let found = ok(&workspace, "grep_search", &json!({"pattern": "-n", "base": "-n.rs"}));
        assert_eq!(found["matches"], json!([]), "a pattern that looks like an option is a pattern");
        let found =
            ok(&workspace, "grep_search", &json!({"pattern": "NEEDLE.*h", "ignore_case": true, "glob": "*.txt"}));
        assert_eq!(found["matches"], json!([{"path": "src/deep/er/y.txt", "line": 1, "text": "needle: here"}]));
        let found = ok(&workspace, "grep_search", &json!({"pattern": "e{2}d", "limit": 1}));
        assert_eq!((found["matches"].as_array().unwrap().len(), &found["truncated"]), (1, &json!(true)));
    }
}

#[test]
fn patterns_that_blow_up_and_lines_without_end_are_answered() {
    let scratch = Scratch::new("tools_patterns");
    fs::write(scratch.path().join("aaaa"), format!("{}b\n", "a".repeat(100_000))).unwrap();
    let workspace = Workspace::open(scratch.path()).unwrap();
    for pattern in ["(a+)+$", "(a|a)*c", "(a|aa)+$", "(.*a){20}", "a{0,200}a{0,200}c"] {
        let found = ok(&workspace, "grep_search", &json!({"pattern": pattern}));
        assert!(found["matches"].as_array().unwrap().len() <= 1, "{found}");
    }
    let nested = "(".repeat(500) + &")".repeat(500);
    for pattern in ["(", "a{99999999}", "((a{1000}){1000}){1000}", "(?=a)", "\\1", &nested] {
        assert_eq!(refused(&workspace, "grep_search", &json!({"pattern": pattern})), "invalid_arguments", "{pattern}");
    }
    let output = call(&workspace, "grep_search", &json!({"pattern": "a"}));
    let found: Value = serde_json::from_str(&output.content).unwrap();
    assert!(found["matches"][0]["text"].as_str().unwrap().len() < 600, "a whole long line was shown");
    assert_eq!(found["notes"], json!(["1 very long lines were compared only in their beginning"]));
}

#[test]
fn a_search_whose_time_is_up_gives_what_it_has_and_says_so() {
    let scratch = Scratch::new("tools_time");
    // Sparse and large: reading all of it takes longer than the call has.
    let line = "x".repeat(1_000) + "\n";
    fs::write(scratch.path().join("a"), "needle\n").unwrap();
    fs::write(scratch.path().join("b"), line.repeat(60_000)).unwrap();
    let workspace = Workspace::open(scratch.path()).unwrap();
    let def = tools::find("grep_search").unwrap();
    let input = tools::arguments(&json!({"pattern": "need(le|er)|(x*)*y"}).to_string()).unwrap();
    let output = tools::run(def, &input, &workspace, &Control::new(1));
    let found: Value = serde_json::from_str(&output.content).unwrap();
    assert_eq!(found["matches"], json!([{"path": "a", "line": 1, "text": "needle"}]), "{found}");
    assert!(output.truncated && found["truncated"] == true, "{found}");
}

#[test]
fn file_names_that_are_no_utf_8_and_trees_deeper_than_the_bound_are_survived() {
    let scratch = Scratch::new("tools_names");
    let name = std::ffi::OsString::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"caf\xe9.txt"));
    fs::write(scratch.path().join(name), "needle").unwrap();
    let deep = (0..80).fold(scratch.path().to_path_buf(), |path, _| path.join("d"));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), "needle").unwrap();
    let workspace = Workspace::open(scratch.path()).unwrap();
    let found = ok(&workspace, "grep_search", &json!({"pattern": "needle"}));
    assert_eq!(found["matches"], json!([{"path": "caf\u{fffd}.txt", "line": 1, "text": "needle"}]));
    assert_eq!(found["truncated"], true);
    assert_eq!(found["notes"], json!(["directories deeper than 64 levels were not entered"]));
}

#[test]
fn malformed_arguments_name_the_field_and_what_is_expected() {
    let scratch = Scratch::new("tools_arguments");
    let workspace = Workspace::open(scratch.path()).unwrap();
    let text = |tool: &str, input: Value| {
        let output = call(&workspace, tool, &input);
        assert!(output.is_error);
        serde_json::from_str::<Value>(&output.content).unwrap()["error"].as_str().unwrap().to_string()
    };
    for (tool, input, expected) in [
        ("read_file", json!({}), "argument path: it is missing; next: send a text of 1 to 4096 bytes"),
        ("read_file", json!({"path": 7}), "argument path: found a number; next: send a text of 1 to 4096 bytes"),
        (
            "read_file",
            json!({"path": "a", "start_line": "1"}),
            "argument start_line: found a text; next: send an integer from 1 on",
        ),
        (
            "read_file",
            json!({"path": "a", "start_line": 0}),
            "argument start_line: found 0; next: send an integer from 1 on",
        ),
        (
            "read_file",
            json!({"path": "a", "start_line": 1.5}),
            "argument start_line: found a number; next: send an integer from 1 on",
        ),
        (
            "read_file",
            json!({"path": "a", "offset": 1}),
            "argument offset: no such field; next: send only byte_count, include_base64, line_count, path, start_byte, start_line",
        ),
        (
            "apply_patch",
            json!({"hunks": [{"path": "a", "old_text": "x", "new_text": "y"}, {"path": "a", "new_text": "y"}]}),
            "argument hunks[1].old_text: it is missing; next: send a text of 1 to 4194304 bytes",
        ),
        ("apply_patch", json!({"hunks": {}}), "argument hunks: found an object; next: send a list from 1 to 256"),
        (
            "bash",
            json!({"command": "a\u{0}b"}),
            "argument command: it has a NUL character; next: send a text without it",
        ),
    ] {
        assert_eq!(text(tool, input), expected);
    }
    for (raw, cause) in
        [("{", "not JSON"), ("[]", "a list and no object"), ("{\"a\":1}x", "not JSON"), ("nul", "not JSON")]
    {
        let error = tools::arguments(raw).expect_err(raw);
        assert!(error.to_string().contains(cause), "{error}");
        assert_eq!(error.code(), "invalid_arguments");
    }
    assert_eq!(tools::arguments("  ").expect("nothing is an empty object").get(), "{}");
}

#[test]
fn what_ignore_files_name_is_left_out_said_so_and_shown_on_request() {
    let scratch = Scratch::new("tools_ignore");
    let root = scratch.path().to_path_buf();
    for (path, text) in [
        (".gitignore", "target/\n*.log\n"),
        ("a.rs", "needle"),
        ("b.log", "needle"),
        ("target/deep/c.rs", "needle"),
        ("sub/.gitignore", "!kept.log\nd.rs\n"),
        ("sub/d.rs", "needle"),
        ("sub/kept.log", "needle"),
        // No pattern at all, and far too much of it: bounded, and it hides nothing.
        ("odd/.gitignore", &format!("[\n\\\n{}\n", "x".repeat(1_000_000))),
        ("odd/e.rs", "needle"),
    ] {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), text).unwrap();
    }
    fs::write(root.join("odd").join("f.rs"), b"needle\xff").unwrap();
    for workspace in workspaces(&root) {
        let found = |tool: &str, input: Value| -> (Vec<String>, bool) {
            let result = ok(&workspace, tool, &input);
            let items = result["paths"].as_array().or(result["matches"].as_array()).unwrap();
            let path = |item: &Value| item.as_str().or(item["path"].as_str()).unwrap().to_string();
            let says = result["notes"].to_string().contains("ignore files");
            (items.iter().map(path).collect(), says)
        };
        let seen = ["a.rs", "odd/e.rs", "odd/f.rs", "sub/kept.log"].map(String::from).to_vec();
        assert_eq!(found("grep_search", json!({"pattern": "needle"})), (seen, true));
        let rust = ["a.rs", "odd/e.rs", "odd/f.rs"].map(String::from).to_vec();
        assert_eq!(found("glob_search", json!({"pattern": "*.rs"})), (rust, true));
        let (all, says) = found("grep_search", json!({"pattern": "needle", "include_ignored": true}));
        assert_eq!((all.len(), says), (7, false));
        // What is named is shown.
        let named = ["target/deep/c.rs"].map(String::from).to_vec();
        assert_eq!(found("list_files", json!({"base": "target"})), (named, false));
    }
}
