//! What is shipped beside the binary: inventory, completions, manual, installation, archives, and the auditors' walk.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
#[path = "support/skip.rs"]
mod skip;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use daemon::Place;
use serde_json::Value;
use skip::skip;

const BINARY: &str = env!("CARGO_BIN_EXE_kheish-daemon");

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn run(words: &[&str]) -> String {
    let output = Command::new(BINARY).env_clear().args(words).output().expect("it runs");
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// A program that may be missing; `None`, and a line that says so, where it is.
fn program(test: &str, command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            skip(test, &format!("{}: {error}", command.get_program().display()));
            None
        }
    }
}

fn success(output: &Output, what: &str) {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{stdout}\n{stderr}", output.status);
}

#[test]
fn the_packages_in_the_binary_are_those_of_the_lock_file() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("the lock file");
    let field = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim_matches('"').to_string())
    };
    let locked: BTreeMap<String, Option<String>> = lock
        .split("[[package]]")
        .skip(1)
        .map(|block| {
            let name = field(block, "name = ").expect("a name");
            (format!("{name}@{}", field(block, "version = ").expect("a version")), field(block, "checksum = "))
        })
        .filter(|(id, _)| !id.starts_with("kheish-daemon@"))
        .collect();
    let listed: Value = serde_json::from_str(&run(&["--output", "json", "version", "--deps"])).expect("JSON");
    let text = |package: &Value, name: &str| package[name].as_str().map(str::to_string);
    let listed: BTreeMap<String, Option<String>> = listed
        .as_array()
        .expect("a list")
        .iter()
        .map(|package| {
            let id =
                format!("{}@{}", text(package, "name").expect("a name"), text(package, "version").expect("a version"));
            (id, text(package, "sha256"))
        })
        .collect();
    assert_eq!(listed, locked);
    let build: Value = serde_json::from_str(&run(&["version"])).expect("JSON");
    assert_eq!(build["version"], env!("CARGO_PKG_VERSION"));
    let both = Command::new(BINARY).env_clear().args(["version", "--deps", "--sbom"]).output().expect("it runs");
    assert_eq!(both.status.code(), Some(1), "{both:?}");
}

/// What may follow the words of a line, by the completion of one shell.
fn completed(shell: &str, line: &[&str]) -> Option<BTreeSet<String>> {
    let place = Place::new("release_completions");
    let script = place.join("completion");
    fs::write(&script, run(&["completions", shell])).expect("a file");
    let script = script.display();
    let words: Vec<String> = line.iter().map(|word| format!("'{word}'")).collect();
    let words = words.join(" ");
    let test = "completions_offer_what_the_parser_takes_and_nothing_else";
    let mut command = Command::new(shell);
    match shell {
        "bash" => command.args(["--norc", "-c"]).arg(format!(
            "source {script}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _kheish_daemon; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )),
        // The system around completions is stood in for: `_describe` prints the words that it is given, before the colon.
        "zsh" => command.args(["-f", "-c"]).arg(format!(
            "compdef() {{ :; }}; _files() {{ print -l -- FILES; }}; \
             _describe() {{ local list=${{@[-1]}}; print -l -- ${{${{(P)list}}%%:*}}; }}; \
             source {script}; words=({words}); CURRENT=$#words; _kheish_daemon"
        )),
        "fish" => {
            command.args(["--no-config", "-c"]).arg(format!("source {script}; complete -C \"{}\"", line.join(" ")))
        }
        other => panic!("{other}"),
    };
    let output = program(test, command.env("HOME", place.join("home")).env("XDG_CONFIG_HOME", place.join("home")))?;
    success(&output, shell);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let first = |line: &str| line.split('\t').next().unwrap_or_default().to_string();
    Some(text.lines().map(first).filter(|word| !word.is_empty()).collect())
}

#[test]
fn completions_offer_what_the_parser_takes_and_nothing_else() {
    let set = |words: &[&str]| words.iter().map(|word| (*word).to_string()).collect::<BTreeSet<String>>();
    let journal = set(&["verify", "show"]);
    for shell in ["bash", "zsh", "fish"] {
        let Some(after_group) = completed(shell, &["kheish-daemon", "journal", ""]) else { continue };
        assert_eq!(after_group, journal, "{shell}");
        let complete = |line: &[&str]| completed(shell, line).expect("it ran a moment ago");
        // Options before the group, with and without their values, do not lead astray.
        let with_options = complete(&["kheish-daemon", "--base-url", "http://localhost", "journal", ""]);
        assert_eq!(with_options, journal, "{shell}");
        let nested = complete(&["kheish-daemon", "mcp", "oauth", ""]);
        assert_eq!(nested, set(&["login", "status", "refresh", "logout"]), "{shell}");
        let options = complete(&["kheish-daemon", "journal", "verify", "--"]);
        for wanted in ["--state-root", "--offline", "--public-key", "--output"] {
            assert!(options.contains(wanted), "{shell}: {wanted}: {options:?}");
        }
        assert!(!options.contains("--limit"), "{shell}: an option of another command: {options:?}");
        let top = complete(&["kheish-daemon", ""]);
        for wanted in ["serve", "sessions", "version"] {
            assert!(top.contains(wanted), "{shell}: {wanted}: {top:?}");
        }
    }
}

#[test]
fn every_manual_page_is_one_that_groff_sets_without_a_warning() {
    let test = "every_manual_page_is_one_that_groff_sets_without_a_warning";
    let place = Place::new("release_man");
    let pages = place.join("man1");
    run(&["man", "--out", &pages.display().to_string()]);
    let names: BTreeSet<String> = fs::read_dir(&pages)
        .expect("pages")
        .map(|entry| entry.expect("a page").file_name().display().to_string())
        .collect();
    for wanted in ["kheish-daemon.1", "kheish-daemon-serve.1", "kheish-daemon-sessions-input.1", "kheish-daemon-man.1"]
    {
        assert!(names.contains(wanted), "{wanted}");
    }
    let paths = names.iter().map(|name| pages.join(name));
    let mut command = Command::new("groff");
    command.args(["-man", "-Tutf8", "-ww", "-rLL=100n"]).args(paths);
    let Some(output) = program(test, &mut command) else { return };
    success(&output, "groff");
    let warned = String::from_utf8_lossy(&output.stderr);
    // Lines of the command line's own width: a reader scrolls or wraps.
    let warned: Vec<&str> = warned.lines().filter(|line| !line.contains("break")).collect();
    assert!(warned.is_empty(), "{warned:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("--http-admin-token-file") || text.contains("http"), "options are shown");
}

#[test]
fn an_installation_is_whole_and_touches_nothing_outside_its_destination() {
    let place = Place::new("release_install");
    let destination = place.join("destination");
    let output = Command::new("make")
        .current_dir(root())
        .args(["install", "PREFIX=/opt/kheish"])
        .arg(format!("DESTDIR={}", destination.display()))
        .arg(format!("KHEISH_BINARY={BINARY}"))
        .output()
        .expect("make is there, since the tests are started by it");
    success(&output, "make install");
    let installed = destination.join("opt/kheish");
    for file in [
        "bin/kheish-daemon",
        "share/man/man1/kheish-daemon.1",
        "share/bash-completion/completions/kheish-daemon",
        "share/zsh/site-functions/_kheish-daemon",
        "share/fish/vendor_completions.d/kheish-daemon.fish",
        "share/kheish-daemon/namespaces.conf",
        "lib/systemd/system/kheish-daemon.service",
        "lib/systemd/system/kheish-daemon.socket",
        "lib/sysusers.d/kheish-daemon.conf",
    ] {
        assert!(installed.join(file).is_file(), "{file}");
    }
    let unit = fs::read_to_string(installed.join("lib/systemd/system/kheish-daemon.service")).expect("the unit");
    assert!(unit.contains("\nExecStart=/opt/kheish/bin/kheish-daemon serve "), "{unit}");
    let entries = |path: &Path| -> Vec<String> {
        fs::read_dir(path)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().display().to_string())
            .collect()
    };
    assert_eq!((entries(&destination), entries(&destination.join("opt"))), (vec!["opt".into()], vec!["kheish".into()]));
    let missing = Command::new("make")
        .current_dir(root())
        .args(["install", "KHEISH_BINARY=/nowhere/kheish-daemon"])
        .arg(format!("DESTDIR={}", destination.display()))
        .output()
        .expect("make");
    assert!(
        !missing.status.success() && String::from_utf8_lossy(&missing.stderr).contains("next: make build"),
        "{missing:?}"
    );
}

/// The tree as an unpacked source archive, with a stand-in for its dependencies.
fn source_archive(place: &Path) {
    fs::create_dir_all(place).expect("a folder");
    let copy = "tar -C \"$1\" --exclude=./target --exclude=./.git --exclude=./.kheish-daemon --exclude=./.tmp --exclude=./src \
                --exclude=./tests -cf - . | tar -C \"$2\" -xf -";
    let output = Command::new("sh").args(["-c", copy, "sh"]).arg(root()).arg(place).output().expect("tar");
    success(&output, "a copy of the tree");
    fs::create_dir_all(place.join("vendor/one-1.0.0")).expect("a folder");
    fs::write(place.join("vendor/one-1.0.0/lib.rs"), "").expect("a file");
    fs::write(place.join("COMMIT"), "0123456789abcdef\n").expect("a file");
    fs::write(place.join("SOURCE_DATE_EPOCH"), "1700000000\n").expect("a file");
}

#[test]
fn a_source_archive_depends_on_its_contents_alone_and_its_checksums_are_signed() {
    let test = "a_source_archive_depends_on_its_contents_alone_and_its_checksums_are_signed";
    let place = Place::new("release_dist");
    let key = place.join("release.key");
    let mut command = Command::new("openssl");
    command.args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&key);
    let Some(output) = program(test, &mut command) else { return };
    success(&output, "openssl genpkey");
    let mut sums = Vec::new();
    for (name, mask) in [("one", "077"), ("a-longer-name", "002")] {
        let tree = place.join(name);
        source_archive(&tree);
        let out = place.join(&format!("{name}-out"));
        // Other times and modes of the files, another umask of the builder.
        let command = format!(
            "umask {mask}; find . -exec touch -d @$RANDOM {{}} +; chmod -R go-w .; ./scripts/dist.sh --sources"
        );
        let output = Command::new("bash")
            .args(["-c", &command])
            .current_dir(&tree)
            .env("KHEISH_DIST_OUT", &out)
            .env("KHEISH_DIST_SIGNING_KEY", &key)
            .output()
            .expect("bash");
        success(&output, "dist.sh --sources");
        sums.push(fs::read_to_string(out.join("SHA256SUMS")).expect("checksums"));
    }
    assert_eq!(sums[0], sums[1]);
    assert!(sums[0].contains("-source.tar.gz"), "{}", sums[0]);
    let public = place.join("one-out/release.pub.pem");
    let output = Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&key).arg("-out").arg(&public).output();
    success(&output.expect("openssl"), "openssl pkey");
    let checked = || in_bash(&place.join("one-out"), &fence("signature"));
    success(&checked(), "the auditors' first step");
    fs::write(place.join("one-out/SHA256SUMS"), sums[0].replace(['0', '1'], "2")).expect("ours");
    assert!(!checked().status.success(), "altered checksums pass");
}

/// The commands of docs/auditing.md in the fence that is marked with `name`.
fn fence(name: &str) -> String {
    let text = fs::read_to_string(root().join("docs/auditing.md")).expect("the document");
    let (_, rest) = text.split_once(&format!("```sh {name}\n")).unwrap_or_else(|| panic!("no fence {name}"));
    rest.split_once("\n```").expect("an end").0.to_string()
}

/// Runs commands as an auditor would who stops at the first failure; `kheish-daemon` is the binary of this build.
fn in_bash(place: &Path, commands: &str) -> Output {
    let bin = place.join("bin");
    fs::create_dir_all(&bin).expect("a folder");
    // What an earlier call left there is the same link.
    let _is_there = std::os::unix::fs::symlink(BINARY, bin.join("kheish-daemon"));
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    // Whatever is still running when the commands have ended or failed is ended with them.
    let script = format!("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{commands}\n");
    Command::new("bash")
        .args(["-c", &script])
        .current_dir(place)
        .env_clear()
        .env("PATH", path)
        .env("SOURCE", root())
        .stdin(std::process::Stdio::null())
        .output()
        .expect("bash")
}

#[test]
fn the_commands_of_the_auditors_walk_work_as_they_stand() {
    let place = Place::new("release_walk");
    for name in ["inventory", "walk"] {
        let folder = place.join(name);
        fs::create_dir(&folder).expect("a folder");
        success(&in_bash(&folder, &fence(name)), name);
    }
    let walk = place.join("walk");
    let read = |name: &str| fs::read_to_string(walk.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(read("run.json").contains("\"completed\""), "{}", read("run.json"));
    assert!(read("actions.json").contains("\"record_hash\""), "{}", read("actions.json"));
    assert!(read("verified.json").contains("\"ok\": true"), "{}", read("verified.json"));
    assert!(read("tampered.json").contains("the chain value does not match"), "{}", read("tampered.json"));
    assert!(read("cut.json").contains("the checkpoint vouches for records"), "{}", read("cut.json"));
}
