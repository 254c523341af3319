//! `doctor --offline` on state roots that a real daemon made, whole and then spoilt in one place each.
//! Owns: code, exit status and advice of each finding of the files.
//! Never: changes a root that a daemon is using, but for the one that proves that reading beside it is quiet.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use daemon::{Home, Provider};
use serde_json::{Value, json};

const KEY: &str = "sk-doctor-offline-0123456789";

struct Outcome {
    code: i32,
    report: Value,
    stderr: String,
}

impl Outcome {
    fn errors(&self) -> Vec<&str> {
        let checks = self.report["checks"].as_array().unwrap_or_else(|| panic!("{}", self.stderr)).iter();
        let mut codes: Vec<&str> =
            checks.filter(|check| check["severity"] == "error").map(|check| check["code"].as_str().unwrap()).collect();
        codes.dedup();
        codes
    }
}

fn offline(root: &Path, master_key: Option<&Path>, args: &[&str]) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kheish-daemon"));
    command.env_clear().args(["--output", "json", "doctor", "--offline", "--state-root"]).arg(root).args(args);
    command.envs(master_key.map(|path| ("KHEISH_AUTH_STORE_MASTER_KEY_FILE", path)));
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    Outcome {
        code: output.status.code().expect("an exit code"),
        report: serde_json::from_slice(&output.stdout).unwrap_or_default(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A used state root: a slot, a run, a clean stop.
fn used(test: &str) -> Home {
    let provider = Provider::start("[default]\ntext = \"an answer\"\n");
    let home = Home::with_slot(test, Some(&provider));
    let daemon = home.start();
    daemon.set_key(KEY);
    daemon.create_session("s");
    let run = daemon.submit("s", "hello");
    assert_eq!(daemon.wait_end(&run), "completed");
    let beside = offline(&home.root(), Some(home.master_key_file()), &["--scan-secrets"]);
    assert_eq!((beside.code, beside.errors()), (0, vec![]), "beside a daemon: {}", beside.report);
    let pid = format!("pid={}", daemon.pid());
    assert!(beside.report["lock_holder"].as_str().is_some_and(|holder| holder.starts_with(&pid)), "{}", beside.report);
    daemon.stop();
    home
}

/// A copy of a state root, to be spoilt.
fn copy(from: &Path, to: PathBuf) -> PathBuf {
    let status = Command::new("cp").arg("-a").arg(from).arg(&to).status().expect("cp");
    assert!(status.success());
    to
}

#[test]
fn a_whole_root_passes_and_tells_its_head_and_its_key() {
    let home = used("offline-whole");
    let whole = offline(&home.root(), Some(home.master_key_file()), &["--scan-secrets"]);
    assert_eq!((whole.code, whole.errors()), (0, vec![]), "{}", whole.report);
    assert_eq!(whole.report["lock_holder"], Value::Null);
    assert_eq!((&whole.report["format"], &whole.report["slot_count"]), (&json!(1), &json!(1)));
    let shown =
        home.command(&["audit", "public-key", "--offline", "--state-root", home.root().to_str().expect("UTF-8")]);
    assert_eq!(shown.0, 0, "{shown:?}");
    assert_eq!(whole.report["journal"]["key_ids"][0], whole.report["audit_key_id"], "{}", whole.report);
    assert_eq!(whole.report["journal"]["records_unsealed"], 0, "a clean stop seals");
    assert_eq!(whole.report["journal"]["signed_actions"], 2);
    assert!(whole.report["scan"]["files"].as_u64().is_some_and(|files| files > 5), "{}", whole.report);
    // Without the key everything else is still examined, but a scan that cannot be made is no pass.
    let keyless = offline(&home.root(), None, &[]);
    assert_eq!((keyless.code, keyless.errors()), (0, vec![]), "{}", keyless.report);
    let keyless = offline(&home.root(), None, &["--scan-secrets"]);
    assert_eq!((keyless.code, keyless.errors()), (1, vec!["secret_scan_failed"]), "{}", keyless.report);
    assert!(keyless.stderr.contains("KHEISH_AUTH_STORE_MASTER_KEY_FILE"), "{}", keyless.stderr);
}

#[test]
fn each_spoilt_thing_is_named_with_its_advice() {
    let home = used("offline-spoilt");
    let segment = |root: &Path| {
        let mut segments: Vec<PathBuf> = fs::read_dir(root.join("journal"))
            .expect("a journal")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        segments.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
        segments.sort();
        segments.remove(0)
    };
    type Spoil<'a> = Box<dyn Fn(&Path) + 'a>;
    let cases: Vec<(&str, Spoil<'_>, &[&str], &str)> = vec![
        (
            "lock",
            Box::new(|root| fs::remove_file(root.join("daemon.lock")).unwrap()),
            &["offline_lock_missing"],
            "make sure that no daemon runs",
        ),
        (
            "format",
            Box::new(|root| fs::write(root.join("FORMAT"), "2\n").unwrap()),
            &["offline_format_unknown"],
            "newer kheish-daemon",
        ),
        (
            "format-gone",
            Box::new(|root| fs::remove_file(root.join("FORMAT")).unwrap()),
            &["offline_format_unknown"],
            "backup",
        ),
        (
            "mode",
            Box::new(|root| {
                fs::set_permissions(root.join("auth/broker.jsonl"), fs::Permissions::from_mode(0o640)).unwrap()
            }),
            &["offline_mode_open"],
            "chmod -R go-rwx ",
        ),
        (
            "link",
            Box::new(|root| symlink("/etc/hostname", root.join("blobs/link")).unwrap()),
            &["offline_link"],
            "move it away",
        ),
        (
            "journal",
            Box::new(|root| {
                let path = segment(root);
                let text = fs::read_to_string(&path).unwrap();
                fs::write(&path, text.replacen("\"session\":\"s\"", "\"session\":\"t\"", 1)).unwrap();
            }),
            &["offline_journal_damaged"],
            "next: ",
        ),
        (
            "key-gone",
            Box::new(|root| fs::remove_file(root.join("audit-signing.key")).unwrap()),
            &["offline_key_missing"],
            "restore audit-signing.key",
        ),
        (
            "key-open",
            Box::new(|root| {
                fs::set_permissions(root.join("audit-signing.key"), fs::Permissions::from_mode(0o644)).unwrap()
            }),
            &["offline_mode_open", "offline_key_unusable"],
            "chmod -R go-rwx ",
        ),
        (
            "key-other",
            Box::new(|root| fs::write(root.join("audit-signing.key"), "7".repeat(64)).unwrap()),
            &["offline_key_mismatch"],
            "of one backup",
        ),
        (
            "store",
            Box::new(|root| {
                let mut file = OpenOptions::new().append(true).open(root.join("auth/global-slots.json")).unwrap();
                file.write_all(b"x").unwrap();
            }),
            &["offline_store_unusable"],
            "global-slots.json",
        ),
        (
            "secret",
            Box::new(|root| fs::write(root.join("blobs/left"), format!("before {KEY} behind")).unwrap()),
            &["offline_mode_open", "secret_found"],
            "chmod",
        ),
    ];
    for (name, spoil, expected, advice) in cases {
        let root = copy(&home.root(), home.join(name));
        spoil(&root);
        let scan: &[&str] = if name == "secret" { &["--scan-secrets"] } else { &[] };
        let outcome = offline(&root, Some(home.master_key_file()), scan);
        assert_eq!((outcome.code, outcome.errors()), (1, expected.to_vec()), "{name}: {}", outcome.report);
        let line = outcome.stderr.lines().last().unwrap_or_default();
        assert!(line.contains(expected[0]) && line.contains("; next: ") && line.contains(advice), "{name}: {line}");
        assert!(!outcome.report.to_string().contains(KEY) && !line.contains(KEY), "{name}");
    }
    let nowhere = offline(&home.join("nowhere"), None, &[]);
    assert_eq!((nowhere.code, nowhere.errors()), (1, vec!["offline_root_unusable"]), "{}", nowhere.report);
}

#[test]
fn a_stored_secret_is_found_in_every_spelling_and_place_and_never_shown() {
    use base64::Engine;
    let home = used("offline-scan");
    let hex: String = KEY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let base64 = base64::engine::general_purpose::STANDARD.encode(KEY);
    let root = copy(&home.root(), home.join("planted"));
    let mut expected = Vec::new();
    for (name, text) in [
        ("blobs/raw", KEY.to_string()),
        ("debug/hex", hex.clone()),
        ("shell-tasks/task-1.out", format!("key={base64}")),
        ("control-plane-auth/old.jsonl", format!("{}{KEY}", "x".repeat(1024 * 1024 - 9))),
    ] {
        let path = root.join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
        expected.push(path.display().to_string());
    }
    let outcome = offline(&root, Some(home.master_key_file()), &["--scan-secrets"]);
    assert_eq!((outcome.code, outcome.errors()), (1, vec!["secret_found"]), "{}", outcome.report);
    let found =
        outcome.report["checks"].as_array().expect("checks").iter().filter(|check| check["code"] == "secret_found");
    let mut found: Vec<String> = found.map(|check| check["related_id"].as_str().expect("a path").to_string()).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    let everything = format!("{}{}", outcome.report, outcome.stderr);
    assert!(![KEY, &hex, &base64].iter().any(|secret| everything.contains(*secret)));
    assert!(outcome.stderr.contains("rotate the secret"), "{}", outcome.stderr);
}

#[test]
fn options_that_need_each_other_are_refused_apart() {
    let home = Home::new("offline-options", None);
    for (args, expected) in [
        (&["doctor", "--offline"][..], "add --state-root DIR"),
        (&["doctor", "--scan-secrets"], "add --offline"),
        (&["doctor", "--offline", "--state-root", "x", "--cors-origin", "http://localhost"], "leave --offline out"),
    ] {
        let (code, text) = home.command(args);
        assert!(code == 1 && text.contains(expected), "{args:?}: {code} {text}");
    }
}
