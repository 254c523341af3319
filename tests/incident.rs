//! `incident collect` and `incident verify` with the real daemon.
//! Owns: completeness, masking, the exit codes, and that nothing altered passes.
//! Never: trusts what a report says of itself; files are compared with what the daemon and `openssl` say.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
#[path = "support/skip.rs"]
mod skip;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use daemon::{Daemon, Home, Provider};
use kheish_daemon::audit::incident::LABEL;
use kheish_daemon::incident::manifest::{parse, sha256, sha256_hex};
use serde_json::{Value, json};
use skip::skip;

const KEY: &str = "sk-incident-0123456789abcdef";
const SHAPED: &str = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789";

struct World {
    daemon: Daemon,
    home: Home,
    run: String,
}

fn world(test: &str) -> World {
    let provider = Provider::start("[default]\ntext = \"an answer\"\n");
    let home = Home::with_slot(test, Some(&provider));
    let daemon = home.start();
    daemon.set_key(KEY);
    daemon.create_session("suspect");
    let run = daemon.submit("suspect", &format!("my key is {KEY} and theirs {SHAPED}"));
    assert_eq!(daemon.wait_end(&run), "completed");
    World { daemon, home, run }
}

impl World {
    /// Exit code, report, standard error.
    fn incident(&self, args: &[&str]) -> (i32, Value, String) {
        let (code, stdout, stderr) = self.home.cli(&self.daemon, &[&["--output", "json", "incident"], args].concat());
        (code, serde_json::from_str(&stdout).unwrap_or_default(), stderr)
    }

    fn collect(&self, name: &str, args: &[&str]) -> (PathBuf, Value) {
        let out = self.home.join(name);
        let (code, report, stderr) = self.incident(&[&["collect", "--out", text(&out)], args].concat());
        assert_eq!(code, 0, "{report} {stderr}");
        (out, report)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn json_of(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files_below(root: &Path) -> BTreeSet<String> {
    let (mut names, mut directories) = (BTreeSet::new(), vec![root.to_path_buf()]);
    while let Some(directory) = directories.pop() {
        let mode = fs::metadata(&directory).expect("a directory").permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{}", directory.display());
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let mode = fs::metadata(&path).expect("a file").permissions().mode() & 0o777;
                assert_eq!(mode, 0o600, "{}", path.display());
                names.insert(text(path.strip_prefix(root).expect("below")).to_string());
            }
        }
    }
    names
}

#[test]
fn everything_is_collected_masked_and_signed() {
    let world = world("incident-whole");
    let (out, report) = world.collect("evidence", &["--session", "suspect"]);
    let names = files_below(&out);
    let run = |name: &str| format!("runs/{}/{name}.json", world.run);
    for name in [
        "status.json",
        "doctor.json",
        "doctor-routes-check-auth.json",
        "doctor-routes-check-references.json",
        "runs.json",
        "sessions.json",
        "runtime.json",
        "secrets.json",
        "auth-leases.json",
        "auth-subjects.json",
        "audit-checkpoint.json",
        "audit-public-key.json",
        &run("run"),
        &run("events"),
        &run("external-actions"),
        "sessions/suspect/session.json",
        "sessions/suspect/events.json",
        "sessions/suspect/tasks.json",
        "state-root/control-plane-auth/audit.jsonl",
        "state-root/inventory.jsonl",
        "state-root/doctor.json",
        "state-root/audit-verify.json",
        "collection.json",
        "MANIFEST.sha256",
        "MANIFEST.signature.json",
    ] {
        assert!(names.contains(name), "{name} is not among {names:?}");
    }
    // What is kept is what the daemon says.
    let served = world.daemon.get(&format!("/v1/runs/{}/external-actions", world.run)).json();
    assert_eq!(json_of(&out.join(run("external-actions"))), served);
    assert_eq!(json_of(&out.join(run("run"))), world.daemon.run(&world.run));
    assert_eq!(json_of(&out.join("doctor.json"))["ok"], true);
    // Neither a stored secret nor the shape of a key, in any file.
    for name in &names {
        let bytes = fs::read(out.join(name)).expect("a file");
        let found = String::from_utf8_lossy(&bytes);
        assert!(!found.contains(KEY) && !found.contains(SHAPED), "{name}");
    }
    // The manifest covers every file but itself and the signature.
    let manifest = fs::read_to_string(out.join("MANIFEST.sha256")).expect("a manifest");
    let mut listed: BTreeSet<String> =
        parse(&manifest).expect("well-formed").into_iter().map(|line| line.path).collect();
    listed.extend(["MANIFEST.sha256".to_string(), "MANIFEST.signature.json".to_string()]);
    assert_eq!(listed, names);
    assert_eq!(report["manifest_sha256"], sha256_hex(manifest.as_bytes()));
    // The inventory names every file of the state root with its digest.
    let inventory = fs::read_to_string(out.join("state-root/inventory.jsonl")).expect("an inventory");
    let entries: Vec<Value> = inventory.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let key = entries.iter().find(|entry| entry["path"] == "audit-signing.key").expect("the key is a file of it");
    let bytes = fs::read(world.home.root().join("audit-signing.key")).expect("the key");
    assert_eq!(
        (&key["sha256"], &key["size"], &key["mode"]),
        (&json!(sha256_hex(&bytes)), &json!(bytes.len()), &json!("0600"))
    );
    assert!(entries.iter().filter(|entry| entry["kind"] == "file").all(|entry| entry["sha256"].is_string()));
    // Each step of the timeline has its time, and the act of signing is on record.
    let collection = json_of(&out.join("collection.json"));
    let timeline = collection["timeline"].as_array().expect("a timeline");
    assert!(timeline.len() > 20 && timeline.iter().all(|step| step["at_ms"].is_u64() && step["source"].is_string()));
    assert!(collection["operator"]["uid"].is_u64() && collection["operator"]["host"].is_string(), "{collection}");
    let audit = world.home.root().join("control-plane-auth/audit.jsonl");
    daemon::eventually("the line of the signature", || {
        fs::read_to_string(&audit).ok()?.contains("/v1/audit/incident-signature").then_some(())
    });
    let (code, checked, stderr) = world.incident(&["verify", text(&out)]);
    assert_eq!((code, &checked["ok"]), (0, &json!(true)), "{checked} {stderr}");
    assert_eq!(checked["signed_by"], report["signed_by"]);
    world.daemon.stop();
}

#[test]
fn sha256sum_and_openssl_agree() {
    let world = world("incident-openssl");
    let (out, _) = world.collect("evidence", &[]);
    let sums = Command::new("sha256sum").args(["-c", "--quiet", "MANIFEST.sha256"]).current_dir(&out).status();
    assert!(sums.expect("sha256sum").success());
    if Command::new("openssl").arg("version").output().is_err() {
        return skip("sha256sum_and_openssl_agree", "openssl is not installed");
    }
    let digest = sha256(&fs::read(out.join("MANIFEST.sha256")).expect("a manifest"));
    let signature = json_of(&out.join("MANIFEST.signature.json"));
    let signature =
        kheish_daemon::hex::parse_hex(signature["signature"].as_str().expect("hex").as_bytes()).expect("hex");
    let key = json_of(&out.join("audit-public-key.json"));
    let path = |name: &str, bytes: &[u8]| {
        let path = world.home.join(name);
        fs::write(&path, bytes).expect("a file");
        path
    };
    let message = path("signed.bin", &[LABEL, &digest].concat());
    let signature = path("signature.bin", &signature);
    let key = path("key.pem", key["public_key"].as_str().expect("PEM").as_bytes());
    let output = Command::new("openssl")
        .args(["pkeyutl", "-verify", "-pubin", "-rawin", "-inkey", text(&key), "-in", text(&message), "-sigfile"])
        .arg(&signature)
        .output()
        .expect("openssl");
    assert!(output.status.success(), "{output:?}");
    world.daemon.stop();
}

#[test]
fn nothing_that_was_altered_passes() {
    let world = world("incident-altered");
    let (out, _) = world.collect("evidence", &["--run", &world.run]);
    let key = world.home.join("daemon.pub.pem");
    fs::write(&key, world.home.cli(&world.daemon, &["audit", "public-key"]).1).expect("a file");
    let verify = |dir: &Path, args: &[&str]| world.incident(&[&["verify", text(dir)], args].concat());
    assert_eq!(verify(&out, &["--public-key", text(&key)]).0, 0);
    let copy = |name: &str| {
        let to = world.home.join(name);
        assert!(Command::new("cp").arg("-a").arg(&out).arg(&to).status().expect("cp").success());
        to
    };
    let expect = |dir: &Path, args: &[&str], code: &str| {
        let (exit, report, stderr) = verify(dir, args);
        assert_eq!((exit, &report["ok"]), (1, &json!(false)), "{code}: {report} {stderr}");
        assert!(stderr.contains(code) && stderr.contains("; next: "), "{code}: {stderr}");
    };
    let names: Vec<String> = files_below(&out).into_iter().filter(|name| !name.starts_with("MANIFEST")).collect();
    for (at, name) in names.iter().enumerate() {
        let dir = copy(&format!("altered-{at}"));
        let mut bytes = fs::read(dir.join(name)).expect("a file");
        match bytes.first_mut() {
            Some(first) => *first ^= 1,
            None => bytes.push(b' '),
        }
        fs::write(dir.join(name), bytes).expect("a file");
        expect(&dir, &[], "evidence_altered");
    }
    let dir = copy("removed");
    fs::remove_file(dir.join("status.json")).expect("a file");
    expect(&dir, &[], "evidence_missing");
    let dir = copy("linked");
    fs::rename(dir.join("status.json"), world.home.join("status.json")).expect("a file");
    symlink(world.home.join("status.json"), dir.join("status.json")).expect("a link");
    expect(&dir, &[], "evidence_missing");
    let dir = copy("added");
    fs::write(dir.join("runs/more.json"), "{}").expect("a file");
    expect(&dir, &[], "evidence_extra");
    let dir = copy("unsigned");
    fs::remove_file(dir.join("MANIFEST.signature.json")).expect("a file");
    expect(&dir, &[], "signature_invalid");
    // A manifest that was made to fit again is not the signed one.
    let dir = copy("resealed");
    fs::write(dir.join("status.json"), "{}").expect("a file");
    let manifest = fs::read_to_string(dir.join("MANIFEST.sha256")).expect("a manifest");
    let old = sha256_hex(&fs::read(out.join("status.json")).expect("a file"));
    fs::write(dir.join("MANIFEST.sha256"), manifest.replace(&old, &sha256_hex(b"{}"))).expect("a file");
    expect(&dir, &[], "signature_invalid");
    // A forger with a key of his own is seen by whoever kept the daemon's.
    let other = self::world("incident-forger");
    let (forged, _) = other.collect("evidence", &[]);
    assert_eq!(verify(&forged, &[]).0, 0, "its own key fits");
    expect(&forged, &["--public-key", text(&key)], "signature_invalid");
    other.daemon.stop();
    let (code, _, stderr) = verify(&world.home.join("nowhere"), &[]);
    assert!(code == 1 && stderr.contains("MANIFEST.sha256"), "{code} {stderr}");
    world.daemon.stop();
}

#[test]
fn what_is_missing_decides_the_exit_code_and_the_rest_is_kept() {
    let world = world("incident-missing");
    let out = world.home.join("partly");
    let args = ["collect", "--out", text(&out), "--run", "run-999", "--session", "nobody"];
    let (code, report, stderr) = world.incident(&args);
    assert_eq!((code, &report["ok"]), (1, &json!(false)), "{report}");
    let missing: Vec<&str> =
        report["missing"].as_array().expect("a list").iter().map(|one| one["name"].as_str().expect("a name")).collect();
    assert!(
        missing.contains(&"runs/run-999/run.json") && missing.contains(&"sessions/nobody/session.json"),
        "{missing:?}"
    );
    assert!(stderr.contains("is missing") && stderr.contains("; next: "), "{stderr}");
    let (code, checked, _) = world.incident(&["verify", text(&out)]);
    assert_eq!((code, &checked["ok"]), (0, &json!(true)), "what was had is whole: {checked}");
    assert_eq!(checked["not_collected"].as_array().map(Vec::len), Some(missing.len()));
    // A directory that holds something is left alone.
    let (code, _, stderr) = world.incident(&["collect", "--out", text(&out)]);
    assert!(code == 1 && stderr.contains("not empty"), "{code} {stderr}");
    // A state root that cannot be read is named, and the rest is kept.
    let elsewhere = world.home.join("elsewhere");
    let (code, report, _) = world.incident(&["collect", "--out", text(&elsewhere), "--state-root", "/nonexistent"]);
    assert_eq!(code, 1);
    assert!(report["missing"].to_string().contains("state-root/inventory.jsonl"), "{report}");
    world.daemon.stop();
    let nobody = world.home.join("nobody");
    let (code, text) =
        world.home.command(&["--base-url", "http://127.0.0.1:9", "incident", "collect", "--out", text(&nobody)]);
    assert!(code == 1 && text.contains("status.json") && text.contains("signature"), "{code} {text}");
    assert!(nobody.join("doctor.json").is_file(), "even then the diagnosis is kept");
}

#[test]
fn the_daemon_signs_a_digest_and_nothing_else() {
    let world = world("incident-sign");
    let sign = |body: Value| world.daemon.post("/v1/audit/incident-signature", &body);
    let good = sign(json!({"manifest_sha256": "ab".repeat(32)}));
    assert_eq!((good.status, good.json()["manifest_sha256"].as_str()), (200, Some("ab".repeat(32).as_str())));
    for bad in [
        json!({}),
        json!({"manifest_sha256": "ab".repeat(31)}),
        json!({"manifest_sha256": "ab".repeat(33)}),
        json!({"manifest_sha256": "AB".repeat(32)}),
        json!({"manifest_sha256": "zz".repeat(32)}),
        json!({"manifest_sha256": 7}),
        json!({"manifest_sha256": "ab".repeat(32), "label": "kheish-audit-checkpoint-v1"}),
        json!({"message": "anything"}),
    ] {
        let refused = sign(bad.clone());
        assert!(matches!(refused.status, 400 | 422), "{bad}: {refused:?}");
    }
    world.daemon.stop();
}
