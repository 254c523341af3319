//! File tools that are asked for what lies outside the workspace. They hold without any wall as well: this is the
//! resolution of paths beneath the root, and the walls stand behind it.

use std::fs;
use std::os::unix::fs::symlink;

use kheish_daemon::sandbox::Walls;
use serde_json::{Value, json};

use crate::stage::Stage;

/// Runs the refused call once behind all walls and once behind none.
fn refused(test: &'static str, prepare: impl Fn(&Stage), call: impl Fn(&Stage) -> (&'static str, Value)) {
    for change in [|_: &mut _| {}, |spec: &mut kheish_daemon::sandbox::SandboxSpec| spec.walls = Walls::None] {
        let Some(mut stage) = Stage::with(test, &[], change) else { return };
        prepare(&stage);
        let (tool, input) = call(&stage);
        stage.refused_tool(tool, &input);
        stage.assert_state_untouched();
    }
}

fn link_to_state(stage: &Stage) {
    symlink(stage.state(), stage.workspace().join("link")).expect("a link");
}

fn link_to_secret(stage: &Stage) {
    symlink(stage.state().join("secret"), stage.workspace().join("secret-link")).expect("a link");
}

fn nothing(_: &Stage) {}

#[test]
fn reading_by_an_absolute_path_is_refused() {
    refused("reading_by_an_absolute_path_is_refused", nothing, |stage| {
        ("read_file", json!({"path": stage.state().join("secret")}))
    });
}

#[test]
fn reading_by_dots_is_refused() {
    refused("reading_by_dots_is_refused", nothing, |_| ("read_file", json!({"path": "../state/secret"})));
    refused("reading_by_dots_is_refused", nothing, |_| ("read_file", json!({"path": "a/b/../../../state/secret"})));
}

#[test]
fn reading_through_a_link_is_refused() {
    refused("reading_through_a_link_is_refused", link_to_secret, |_| ("read_file", json!({"path": "secret-link"})));
    refused("reading_through_a_link_is_refused", link_to_state, |_| ("read_file", json!({"path": "link/secret"})));
}

#[test]
fn reading_processes_and_devices_is_refused() {
    for path in ["/proc/self/environ", "/proc/self/root/etc/shadow", "/etc/shadow", "/dev/zero", "/etc/passwd"] {
        refused("reading_processes_and_devices_is_refused", nothing, |_| ("read_file", json!({ "path": path })));
    }
}

#[test]
fn writing_outside_is_refused() {
    refused("writing_outside_is_refused", nothing, |_| ("write_file", json!({"path": "../state/new", "content": "x"})));
    refused("writing_outside_is_refused", link_to_state, |_| {
        ("write_file", json!({"path": "link/new", "content": "x"}))
    });
    refused("writing_outside_is_refused", nothing, |stage| {
        ("write_file", json!({"path": stage.state().join("new"), "content": "x"}))
    });
}

#[test]
fn writing_over_a_link_does_not_reach_its_target() {
    let test = "writing_over_a_link_does_not_reach_its_target";
    let Some(mut stage) = Stage::new(test, &[]) else { return };
    link_to_secret(&stage);
    // Refused or replaced: either way the file behind the link stays.
    let _either = stage.call("write_file", &json!({"path": "secret-link", "content": "x"})).expect("an answer");
    stage.assert_state_untouched();
}

#[test]
fn editing_outside_is_refused() {
    let edit = |path: &str| json!({"path": path, "old_text": "canary", "new_text": "x"});
    refused("editing_outside_is_refused", nothing, |_| ("edit_file", edit("../state/secret")));
    refused("editing_outside_is_refused", link_to_state, |_| ("edit_file", edit("link/secret")));
}

#[test]
fn patching_outside_is_refused_as_a_whole() {
    let test = "patching_outside_is_refused_as_a_whole";
    let prepare = |stage: &Stage| fs::write(stage.workspace().join("mine"), "canary").expect("a scratch file");
    refused(test, prepare, |_| {
        let hunk = |path: &str| json!({"path": path, "old_text": "canary", "new_text": "x"});
        ("apply_patch", json!({"hunks": [hunk("mine"), hunk("../state/secret")]}))
    });
}

#[test]
fn listing_outside_is_refused() {
    for base in ["..", "../state", "/", "/etc"] {
        refused("listing_outside_is_refused", nothing, |_| ("list_files", json!({ "base": base })));
    }
    refused("listing_outside_is_refused", link_to_state, |_| ("list_files", json!({"base": "link"})));
}

#[test]
fn searching_outside_is_refused() {
    refused("searching_outside_is_refused", nothing, |_| {
        ("grep_search", json!({"pattern": "canary", "base": "../state"}))
    });
    refused("searching_outside_is_refused", link_to_state, |_| {
        ("grep_search", json!({"pattern": "canary", "base": "link"}))
    });
    refused("searching_outside_is_refused", nothing, |_| ("glob_search", json!({"pattern": "*", "base": "../state"})));
}

#[test]
fn searches_do_not_follow_links_out() {
    let Some(mut stage) = Stage::new("searches_do_not_follow_links_out", &[]) else { return };
    link_to_state(&stage);
    link_to_secret(&stage);
    for (tool, input) in [
        ("grep_search", json!({"pattern": "canary"})),
        ("glob_search", json!({"pattern": "**/secret"})),
        ("glob_search", json!({"pattern": "../state/*"})),
    ] {
        let (content, _) = stage.call(tool, &input).expect("an answer");
        let found = content["matches"].as_array().or(content["paths"].as_array()).map_or(0, Vec::len);
        assert_eq!(found, 0, "{tool}: {content}");
    }
}

#[test]
fn a_working_directory_outside_is_refused() {
    for workdir in ["..", "../state", "/", "/etc", "/proc/self/root"] {
        refused("a_working_directory_outside_is_refused", nothing, |_| {
            ("bash", json!({"command": "pwd", "workdir": workdir}))
        });
    }
    refused("a_working_directory_outside_is_refused", link_to_state, |_| {
        ("bash", json!({"command": "cat secret", "workdir": "link"}))
    });
}
