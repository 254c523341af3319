//! The shipped units: how much they leave open, and that what they allow is what the daemon needs.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
#[path = "support/strace.rs"]
mod strace;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use daemon::{Home, Place, Provider};
use serde_json::json;
use strace::skip::skip;

/// Exposure as systemd-analyze rates it, in tenths: Landlock and the filter serve the sandbox.
const EXPOSURE_PLAIN_TENTHS: u32 = 15;
/// With the drop-in that allows the sandbox's namespaces.
const EXPOSURE_NAMESPACES_TENTHS: u32 = 22;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(shipped(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// systemd-analyze with these words; `None`, and a line that says so, where it is missing.
fn analyze(test: &str, words: &[&str]) -> Option<Output> {
    match Command::new("systemd-analyze").args(words).env("SYSTEMD_PAGER", "").env("LC_ALL", "C.UTF-8").output() {
        Ok(output) => Some(output),
        Err(error) => {
            skip(test, &format!("systemd-analyze: {error}"));
            None
        }
    }
}

/// The unit in a folder of its own, with or without its drop-in.
fn unit(test: &str, with_namespaces: bool) -> Place {
    let place = Place::new(test);
    fs::copy(shipped("kheish-daemon.service"), place.join("kheish-daemon.service")).expect("a copy");
    if with_namespaces {
        let folder = place.join("kheish-daemon.service.d");
        fs::create_dir(&folder).expect("a folder");
        let drop_in = "kheish-daemon.service.d/namespaces.conf";
        fs::copy(shipped(drop_in), place.join(drop_in)).expect("a copy");
    }
    place
}

/// The points that are open, by name, and the rating in tenths.
fn rated(test: &str, place: &Place) -> Option<(Vec<String>, u32)> {
    let path = place.join("kheish-daemon.service").display().to_string();
    let output = analyze(test, &["security", "--offline=yes", "--no-pager", &path])?;
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let rating = report.lines().find(|line| line.contains("Overall exposure level")).and_then(|line| {
        let number = line.split(": ").nth(1)?.split(' ').next()?;
        number.replace('.', "").parse().ok()
    });
    let Some(rating) = rating else {
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        // Older ones cannot rate a file that is not loaded.
        assert!(told.contains("offline"), "no rating: {report}{told}");
        skip(test, &told);
        return None;
    };
    let open = report.lines().filter_map(|line| line.strip_prefix('\u{2717}')?.split_whitespace().next());
    Some((open.map(str::to_string).collect(), rating))
}

#[test]
fn the_unit_leaves_no_more_open_than_it_promises_and_says_why_for_each_point() {
    let test = "the_unit_leaves_no_more_open_than_it_promises_and_says_why_for_each_point";
    let service = text("kheish-daemon.service");
    let both = format!("{service}{}", text("kheish-daemon.service.d/namespaces.conf"));
    for (with_namespaces, allowed, explained) in
        [(false, EXPOSURE_PLAIN_TENTHS, &service), (true, EXPOSURE_NAMESPACES_TENTHS, &both)]
    {
        let Some((open, rating)) = rated(test, &unit("deploy_exposure", with_namespaces)) else { return };
        assert!(!open.is_empty(), "the report marks nothing as open: the test does not read it");
        assert!(rating <= allowed, "rated {rating}, at most {allowed}: {open:?}");
        let reasons: Vec<&str> = explained.lines().filter(|line| line.starts_with("# OPEN: ")).collect();
        for point in open {
            // `SystemCallFilter=~@mount` is explained as @mount, `RestrictNamespaces=~user` as its whole setting.
            let (setting, value) = point.split_once('=').unwrap_or((&point, ""));
            let value = value.trim_start_matches('~');
            let name = match setting {
                "SystemCallFilter" => value,
                "RestrictAddressFamilies" if value.contains("INET") => "AF_INET",
                "RestrictAddressFamilies" => value,
                _ => setting,
            };
            let is_explained = reasons.iter().any(|reason| reason.contains(name));
            assert!(is_explained, "{point} is open and no line `# OPEN: …` says why");
        }
    }
}

#[test]
fn systemd_knows_every_line_of_the_units() {
    let test = "systemd_knows_every_line_of_the_units";
    let place = unit("deploy_verify", true);
    fs::copy(shipped("kheish-daemon.socket"), place.join("kheish-daemon.socket")).expect("a copy");
    // The binary is looked for where the unit says, and the manual by man: neither is installed here.
    let service =
        text("kheish-daemon.service").replace("/usr/local/bin/kheish-daemon", env!("CARGO_BIN_EXE_kheish-daemon"));
    for (name, text) in [("kheish-daemon.service", service), ("kheish-daemon.socket", text("kheish-daemon.socket"))] {
        let text: Vec<&str> = text.lines().filter(|line| !line.starts_with("Documentation=")).collect();
        fs::write(place.join(name), text.join("\n")).expect("a copy");
    }
    for name in ["kheish-daemon.service", "kheish-daemon.socket"] {
        let path = place.join(name).display().to_string();
        let Some(output) = analyze(test, &["verify", "--man=no", &path]) else { return };
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let ours: Vec<&str> = told.lines().filter(|line| line.contains("kheish-daemon")).collect();
        assert!(ours.is_empty(), "{name}: {ours:?}");
    }
}

/// `Key=value` pairs of a unit, continued lines joined.
fn settings(text: &str) -> Vec<(String, String)> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().filter(|line| !line.starts_with(['#', '[']) && line.contains('='));
    let pair = |line: &str| {
        let (key, value) = line.split_once('=').expect("filtered");
        (key.trim().to_string(), value.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    lines.map(pair).collect()
}

#[test]
fn the_unit_uses_what_the_daemon_speaks_and_its_command_line_is_one_that_the_parser_takes() {
    let settings = settings(&text("kheish-daemon.service"));
    let has = |key: &str, value: &str| settings.iter().any(|(k, v)| k == key && v == value);
    for (key, value) in [
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("KillMode", "mixed"),
        ("OOMPolicy", "continue"),
        ("User", "kheish"),
        ("CapabilityBoundingSet", ""),
    ] {
        assert!(has(key, value), "{key}={value}");
    }
    assert!(settings.iter().any(|(key, _)| key == "WatchdogSec"));
    let loaded: Vec<&str> = settings
        .iter()
        .filter(|(key, _)| key == "LoadCredential")
        .filter_map(|(_, value)| Some(value.split_once(':')?.0))
        .collect();
    let (_, command) = settings.iter().find(|(key, _)| key == "ExecStart").expect("ExecStart=");
    let named = settings.iter().map(|(_, value)| value).flat_map(|value| value.split(['=', ' ']));
    for credential in named.filter_map(|word| word.strip_prefix("credential:")) {
        assert!(loaded.contains(&credential), "credential:{credential} is not loaded");
    }
    let words = command.split(' ').skip(1);
    let parsed =
        Command::new(env!("CARGO_BIN_EXE_kheish-daemon")).env_clear().arg("__check-command").args(words).output();
    assert!(parsed.as_ref().is_ok_and(|output| output.status.success()), "{command}: {parsed:?}");
    // No secret stands in a unit, which everybody on the host may read.
    for secret in ["TOKEN=", "MASTER_KEY=", "--http-admin-token ", "SIGNING_KEY="] {
        assert!(!command.contains(secret) && !settings.iter().any(|(_, value)| value.contains(secret)), "{secret}");
    }
}

/// The calls that a unit's filter lets through, as systemd resolves its sets.
fn allowed_calls(test: &str, drop_in: bool) -> Option<BTreeSet<String>> {
    let mut lines: Vec<String> = Vec::new();
    let mut take = |name: &str| {
        let found = settings(&text(name)).into_iter().filter(|(key, _)| key == "SystemCallFilter");
        lines.extend(found.map(|(_, value)| value));
    };
    take("kheish-daemon.service");
    if drop_in {
        take("kheish-daemon.service.d/namespaces.conf");
    }
    let output = analyze(test, &["syscall-filter"])?;
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut calls = BTreeSet::new();
    for line in lines {
        let (removes, names) = match line.strip_prefix('~') {
            Some(names) => (true, names.to_string()),
            None => (false, line),
        };
        for name in names.split(' ') {
            for call in resolved(&listing, name) {
                if removes {
                    calls.remove(&call)
                } else {
                    calls.insert(call)
                };
            }
        }
    }
    Some(calls)
}

/// A call, or the calls of a set in the listing of `systemd-analyze syscall-filter`.
fn resolved(listing: &str, name: &str) -> Vec<String> {
    if !name.starts_with('@') {
        return vec![name.to_string()];
    }
    let body = listing.lines().skip_while(|line| line.trim_end() != name).skip(1);
    let entries = body.take_while(|line| line.starts_with(' ')).map(str::trim).filter(|line| !line.starts_with('#'));
    let entries: Vec<&str> = entries.collect();
    assert!(!entries.is_empty(), "systemd knows no set {name}");
    entries.into_iter().flat_map(|entry| resolved(listing, entry)).collect()
}

/// A daemon, its workers and a command run under strace; every call that it made is looked up in the units' filters.
#[test]
fn the_filters_let_through_what_the_daemon_and_its_workers_call() {
    let test = "the_filters_let_through_what_the_daemon_and_its_workers_call";
    if !strace::is_usable(test) {
        return;
    }
    let Some(with_namespaces) = allowed_calls(test, true) else { return };
    let plain = allowed_calls(test, false).expect("asked a moment ago");
    let arguments = json!({"command": "echo one > a; ls -l; cat a; rm a; echo the-end"}).to_string();
    let quoted = serde_json::to_string(&arguments).expect("a text is a TOML string as well");
    let provider = Provider::start(&format!(
        "[[turn]]\nmatch = \"look\"\nmatch_result = \"the-end\"\ntext = \"done\"\n\
         [[turn]]\nmatch = \"look\"\ntool_calls = [{{ name = \"bash\", arguments = {quoted} }}]\n"
    ));
    let home = Home::new("deploy_calls", Some(&provider));
    let report = home.join("calls.txt");
    let words = ["strace", "-D", "-f", "-qq", "-s", "0", "-o"].map(str::to_string);
    let wrapper: Vec<String> = words.into_iter().chain([report.display().to_string()]).collect();
    let daemon = home.serve().under(&wrapper).start();
    daemon.post("/v1/runtime/permission-mode", &json!({"mode": "bypassPermissions"}));
    daemon.create_session("s");
    let run = daemon.submit("s", "look");
    assert_eq!(daemon.wait_end(&run), "completed", "{}", daemon.run(&run));
    daemon.stop();
    let report = fs::read_to_string(report).expect("strace's report");
    let mut made = BTreeSet::new();
    for line in report.lines() {
        // `pid name(arguments) = result`; what is resumed was begun before, and what failed was allowed to fail.
        let Some(call) = line.split_whitespace().nth(1).and_then(|word| word.split_once('(')) else { continue };
        if !call.0.is_empty() && call.0.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            made.insert(call.0.to_string());
        }
    }
    assert!(made.contains("fdatasync") && made.contains("epoll_wait") && made.contains("seccomp"), "{made:?}");
    // Asked for by every worker, in vain by one without rights, who goes on all the same.
    made.remove("setgroups");
    let missing: Vec<&String> = made.iter().filter(|call| !with_namespaces.contains(*call)).collect();
    assert!(missing.is_empty(), "the filter of the drop-in refuses {missing:?}");
    // Without namespaces the sandbox is built by other means; what only makes namespaces may be refused, and is reported
    // as a missing wall.
    const OF_NAMESPACES: &[&str] =
        &["mount", "umount2", "pivot_root", "open_tree", "move_mount", "mount_setattr", "sethostname", "unshare"];
    let missing: Vec<&String> =
        made.iter().filter(|call| !plain.contains(*call) && !OF_NAMESPACES.contains(&call.as_str())).collect();
    assert!(missing.is_empty(), "the filter of the unit refuses {missing:?}");
}
