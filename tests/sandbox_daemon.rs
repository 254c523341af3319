//! The real daemon and its sandbox: what start refuses, what status tells, and what its own memory shows.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
#[path = "support/skip.rs"]
mod skip;

use std::path::Path;

use daemon::Home;
use kheish_daemon::sys;

#[test]
fn status_names_every_wall_with_its_reason() {
    let home = Home::new("sandbox-status", None);
    let daemon = home.start();
    let sandbox = &daemon.get("/v1/status").json()["sandbox"];
    assert_eq!(sandbox["level"], "auto", "{sandbox}");
    let features = sandbox["features"].as_array().expect("a list");
    let names: Vec<&str> = features.iter().map(|feature| feature["name"].as_str().expect("a name")).collect();
    assert_eq!(
        names,
        [
            "user_namespace",
            "pid_namespace",
            "memory_limit",
            "ipc_namespace",
            "net_namespace",
            "host_name_namespace",
            "process_limit",
            "private_root",
            "private_proc",
            "capabilities_dropped",
            "no_new_privileges",
            "landlock",
            "landlock_scope",
            "seccomp"
        ]
    );
    for feature in features {
        let told = feature["active"] == true || !feature["reason"].as_str().expect("a reason").is_empty();
        assert!(told, "a wall is missing and nobody says why: {feature}");
    }
    if sandbox["strength"] == "full" {
        assert!(daemon.log().contains("sandbox: every wall stands"), "{}", daemon.log());
    } else {
        assert!(daemon.log().contains("missing: "), "{}", daemon.log());
    }
}

#[test]
fn the_sandbox_switched_off_is_loud() {
    let home = Home::new("sandbox-off", None);
    let daemon = home.serve().options(&["--sandbox", "off"]).start();
    let status = daemon.get("/v1/status").json();
    assert_eq!((&status["sandbox"]["level"], &status["sandbox"]["strength"]), (&"off".into(), &"none".into()));
    let warnings = status["health"]["warnings"].to_string();
    assert!(warnings.contains("\"sandbox_off\""), "{warnings}");
    assert!(daemon.log().contains("--sandbox off: tools run with all rights"), "{}", daemon.log());
}

#[test]
fn a_start_is_refused_while_a_secret_lies_where_tools_reach_it() {
    let home = Home::new("sandbox-places", None);
    let text = |path: &Path| path.to_str().expect("UTF-8").to_string();
    let (workspace, state) = (home.join("workspace"), home.root());
    let everything = state.parent().expect("a parent").to_path_buf();
    let option = |name: &str, value: &Path| [name.to_string(), text(value)];
    let key = option("--audit-signing-key-file", &workspace.join("key"));
    let all = option("--sandbox-read-only-path", &everything);
    for (serve, named) in [
        (home.serve().root(&workspace.join("state")), "--state-root"),
        (home.serve().workspace(&state.join("workspace")), "--workspace-root"),
        (home.serve().workspace(&everything), "--state-root"),
        (home.serve().options(&[&key[0], &key[1]]), "--audit-signing-key-file"),
        (home.serve().options(&[&all[0], &all[1]]), "--state-root"),
    ] {
        let (code, log) = serve.refused();
        assert!(code != Some(0) && log.contains("places: ") && log.contains(named), "{named} {code:?}: {log}");
    }
    assert!(!home.join("workspace/state").exists(), "a refused start makes no state root");
}

#[test]
fn the_network_is_not_granted_to_commands_while_nobody_asks_for_a_token() {
    let home = Home::new("sandbox-network", None);
    let (code, log) = home.serve().options(&["--sandbox-network"]).without_token().refused();
    assert_ne!(code, Some(0));
    assert!(log.contains("--sandbox-network: commands would reach the control plane"), "{log}");
    let daemon = home.serve().options(&["--sandbox-network"]).start();
    assert!(daemon.log().contains("commands of tools use the host's network"), "{}", daemon.log());
}

/// The kernel gives the files under /proc of a process that shuts its memory off to root.
#[test]
fn another_process_of_the_user_reads_neither_environment_nor_memory_unless_dumpable() {
    if sys::effective_user_id() == 0 {
        skip::skip("another_process_of_the_user_reads_neither_environment_nor_memory", "root reads everything");
        return;
    }
    let home = Home::new("sandbox-dumpable", None);
    let readable = |pid: u32| {
        let file = |name: &str| std::fs::File::open(format!("/proc/{pid}/{name}")).is_ok();
        (file("environ"), file("mem"), file("maps"))
    };
    let shut = home.start();
    assert_eq!(readable(shut.pid()), (false, false, false));
    drop(shut);
    let open = home.serve().options(&["--dumpable"]).start();
    assert_eq!(readable(open.pid()), (true, true, true), "--dumpable has no effect");
}
