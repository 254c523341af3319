//! Backups that are altered, cut, forged or meant for somebody else: each is told from a good one, with the place, and nothing of
//! it is written anywhere. Made once by the real binary, checked in this process.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use std::fs;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use daemon::Home;
use kheish_daemon::backup::{self, BackupError, BackupKey, Checks, OfflineGate, Report, Request, Target};
use kheish_daemon::broker::MasterKey;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// A stopped state root with a run, a secret and a workspace.
struct World {
    home: Home,
}

impl World {
    fn new(test: &str) -> Self {
        let home = Home::with_slot(test, None);
        let daemon = home.serve().options(&["--hold"]).start();
        daemon.set_key("sk-test-of-a-hostile-backup");
        daemon.create_session("s");
        daemon.submit("s", "a run that waits");
        daemon.stop();
        fs::create_dir_all(home.join("workspace/d")).unwrap();
        fs::write(home.join("workspace/d/marker.txt"), vec![b'm'; 70_000]).unwrap();
        Self { home }
    }

    fn key_file(&self, name: &str, first: u8) -> PathBuf {
        let path = self.home.join(name);
        let bytes: Vec<u8> = (first..first + 32).collect();
        let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        std::io::Write::write_all(&mut file.unwrap(), &bytes).unwrap();
        path
    }

    fn key(&self) -> BackupKey {
        BackupKey::from_file(&self.key_file("backup.key", 100)).unwrap()
    }

    fn make(&self, name: &str, key: Option<BackupKey>) -> PathBuf {
        let (out, root, workspace) = (self.home.join(name), self.home.root(), self.home.join("workspace"));
        let request = Request {
            out: &out,
            state_root: &root,
            workspace: Some(&workspace),
            key,
            bytes_per_s: 0,
            now_ms: 1_764_057_600_000,
        };
        let mut gate = OfflineGate::new(&root).unwrap();
        backup::create(&request, &mut gate).unwrap();
        out
    }

    /// A copy of a backup, to be broken.
    fn copy(&self, of: &Path, name: &str) -> PathBuf {
        let copy = self.home.join(name);
        drop(fs::remove_dir_all(&copy));
        fs::create_dir(&copy).unwrap();
        for entry in fs::read_dir(of).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
        }
        copy
    }

    /// Restoring it must fail, write nothing, and leave no directory; how it failed.
    fn refused(&self, from: &Path, key: Option<BackupKey>, checks: Checks) -> BackupError {
        let (root, workspace) = (self.home.join("never"), self.home.join("never-workspace"));
        let target = Target { state_root: &root, workspace: Some(&workspace) };
        let error = backup::restore(from, &target, key, checks).map(|_| ()).expect_err("it must be refused");
        assert!(!root.exists() && !workspace.exists(), "something was written: {error}");
        assert!(error.to_string().contains("next: "), "{error}");
        error
    }
}

fn check(from: &Path, key: Option<BackupKey>) -> Result<Report, BackupError> {
    backup::verify(from, key, Checks::default()).map(|(_, report)| report)
}

/// Codes, files and members of what a check finds, whichever way it tells.
fn found(outcome: Result<Report, BackupError>) -> Vec<(String, String, Option<u64>, Option<String>)> {
    let problems = match outcome {
        Ok(report) => report.problems,
        Err(BackupError::Damaged { problems, .. }) => problems,
        Err(other) => return vec![(other.code().to_string(), String::new(), None, None)],
    };
    problems.into_iter().map(|p| (p.code.to_string(), p.file, p.offset, p.member)).collect()
}

fn entries(backup: &Path) -> Value {
    serde_json::from_slice(&fs::read(backup.join("manifest.json")).unwrap()).unwrap()
}

/// Forges a plain backup's manifest and everything that vouches for it inside the backup.
fn forge(backup: &Path, change: impl FnOnce(&mut Value)) {
    let mut manifest = entries(backup);
    change(&mut manifest);
    let text = serde_json::to_vec(&manifest).unwrap();
    fs::write(backup.join("manifest.json"), &text).unwrap();
    revouch(backup);
}

/// Makes `backup.json` tell the truth about the files beside it.
fn revouch(backup: &Path) {
    let mut head: Value = serde_json::from_slice(&fs::read(backup.join("backup.json")).unwrap()).unwrap();
    for file in head["files"].as_array_mut().unwrap() {
        let bytes = fs::read(backup.join(file["name"].as_str().unwrap())).unwrap();
        file["bytes"] = json!(bytes.len());
        file["sha256"] = json!(sha256(&bytes));
    }
    fs::write(backup.join("backup.json"), serde_json::to_vec(&head).unwrap()).unwrap();
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn every_way_of_altering_or_cutting_a_plain_backup_is_located_and_nothing_of_it_is_restored() {
    let world = World::new("backup-hostile");
    let good = world.make("good", None);
    let report = check(&good, None).unwrap();
    assert!(report.ok && report.files > 5 && report.audit.is_some_and(|audit| audit.ok), "{:?}", report.problems);

    // One flipped bit anywhere: in a header, a content, padding, the manifest.
    for name in ["state.tar", "workspace.tar", "manifest.json"] {
        let length = fs::metadata(good.join(name)).unwrap().len();
        for round in 0..12u64 {
            let bad = world.copy(&good, "bad");
            let at = ((round * 0x9e37_79b9 + 11) % length) as usize;
            flip(&bad.join(name), at);
            let problems = found(check(&bad, None));
            assert!(
                !problems.is_empty() && problems.iter().all(|(_, file, ..)| file == name),
                "{name} {at}: {problems:?}"
            );
            if name != "manifest.json" {
                let place = problems.iter().find_map(|(_, _, offset, _)| *offset);
                assert!(place.is_none_or(|offset| offset <= at as u64), "{name} {at}: {problems:?}");
                let is_told = problems.iter().any(|(_, _, offset, member)| offset.is_some() || member.is_some());
                assert!(is_told, "{name} {at}: nothing but the digest: {problems:?}");
            }
            world.refused(&bad, None, Checks::default());
        }
        for cut in [0, 1, 511, 512, 1024, length / 2, length - 1] {
            let bad = world.copy(&good, "bad");
            fs::OpenOptions::new().write(true).open(bad.join(name)).unwrap().set_len(cut).unwrap();
            assert!(!found(check(&bad, None)).is_empty(), "{name} cut to {cut}");
            world.refused(&bad, None, Checks::default());
        }
        let bad = world.copy(&good, "bad");
        fs::remove_file(bad.join(name)).unwrap();
        assert!(!found(check(&bad, None)).is_empty(), "{name} removed");
        world.refused(&bad, None, Checks::default());
        // A link is not the file, whatever it leads to.
        symlink(good.join(name), bad.join(name)).unwrap();
        assert!(!found(check(&bad, None)).is_empty(), "{name} is a link");
    }
    // Members that were exchanged with their headers: same bytes, another order.
    let bad = world.copy(&good, "bad");
    let mut archive = fs::read(bad.join("state.tar")).unwrap();
    let (one, two) = (archive[..512].to_vec(), archive[512..1024].to_vec());
    archive[..512].copy_from_slice(&two);
    archive[512..1024].copy_from_slice(&one);
    fs::write(bad.join("state.tar"), archive).unwrap();
    revouch(&bad);
    let problems = found(check(&bad, None));
    assert_eq!(problems[0].0, "backup_altered");
    assert_eq!((problems[0].2, problems[1].2), (Some(0), Some(512)), "{problems:?}");

    // Something more beside it.
    let bad = world.copy(&good, "bad");
    fs::write(bad.join("extra"), "x").unwrap();
    assert_eq!(found(check(&bad, None))[0].0, "backup_extra");
    world.refused(&bad, None, Checks::default());

    // A digest that was kept elsewhere tells of a backup that was made anew as a whole.
    let checks = Checks { sha256: Some("0".repeat(64)), ..Checks::default() };
    let problems = backup::verify(&good, None, checks).unwrap().1.problems;
    assert_eq!((problems.len(), problems[0].code, problems[0].file.as_str()), (1, "backup_altered", "backup.json"));
}

#[test]
fn a_forged_archive_with_an_altered_journal_is_told_by_its_chain_even_when_every_digest_was_made_anew() {
    let world = World::new("backup-forged");
    let good = world.make("good", None);
    let manifest = entries(&good);
    let state = manifest["archives"][0]["entries"].as_array().unwrap();
    let segment = state.iter().find(|e| e["path"].as_str().unwrap().starts_with("journal/0")).unwrap();
    let bad = world.copy(&good, "bad");
    // In the run's text: the line stays well-formed.
    let mut archive = fs::read(bad.join("state.tar")).unwrap();
    let needle = b"a run that waits";
    let at = archive.windows(needle.len()).position(|window| window == needle).expect("the run's record");
    archive[at] = b'A';
    fs::write(bad.join("state.tar"), &archive).unwrap();
    let bytes = segment["bytes"].as_u64().unwrap() as usize;
    let name = segment["path"].as_str().unwrap().as_bytes();
    let begin = archive.windows(name.len()).position(|window| window == name).unwrap() + 512;
    let digest = sha256(&archive[begin..begin + bytes]);
    let path = segment["path"].clone();
    forge(&bad, |manifest| {
        let entries = manifest["archives"][0]["entries"].as_array_mut().unwrap();
        let entry = entries.iter_mut().find(|entry| entry["path"] == path).unwrap();
        entry["sha256"] = json!(digest);
    });
    let problems = found(check(&bad, None));
    assert_eq!((problems.len(), problems[0].0.as_str()), (1, "backup_journal_damaged"), "{problems:?}");
    world.refused(&bad, None, Checks::default());
}

#[test]
fn no_name_kind_or_link_in_a_forged_manifest_leads_anywhere() {
    let world = World::new("backup-names");
    let good = world.make("good", None);
    let file = |path: &str| json!({"path": path, "kind": "file", "bytes": 0, "mode": 384, "sha256": sha256(b"")});
    let link = |path: &str| json!({"path": path, "kind": "link", "bytes": 0, "mode": 511, "target": "/etc"});
    let state: Vec<(&str, Vec<Value>)> = vec![
        ("out of the root", vec![file("../outside")]),
        ("absolute", vec![file("/tmp/outside")]),
        ("through a parent", vec![file("blobs/../../outside")]),
        ("twice", vec![file("FORMAT")]),
        ("a link in a state root", vec![link("blobs/link")]),
        ("a link and a file below it", vec![link("debug/x"), file("debug/x/passwd")]),
        ("below a file", vec![file("FORMAT/x")]),
        ("a NUL byte", vec![file("a\0b")]),
        ("an empty part", vec![file("a//b")]),
        ("a setuid bit", vec![json!({"path": "a", "kind": "file", "bytes": 0, "mode": 2541, "sha256": sha256(b"")})]),
        ("an unknown kind", vec![json!({"path": "a", "kind": "device", "bytes": 0, "mode": 384})]),
        ("an unknown member", vec![json!({"path": "a", "kind": "directory", "bytes": 0, "mode": 448, "owner": 0})]),
        (
            "a size that overflows",
            vec![json!({"path": "a", "kind": "file", "bytes": u64::MAX, "mode": 384, "sha256": sha256(b"")})],
        ),
    ];
    for (what, more) in state {
        let bad = world.copy(&good, "bad");
        forge(&bad, |manifest| {
            manifest["archives"][0]["entries"].as_array_mut().unwrap().extend(more);
        });
        // By the manifest itself, before an archive is looked at.
        let error = world.refused(&bad, None, Checks::default());
        let BackupError::Damaged { problems, .. } = error else { panic!("{what}: {error}") };
        assert_eq!((problems.len(), problems[0].file.as_str()), (1, "manifest.json"), "{what}: {problems:?}");
    }
    // In a workspace links are somebody's own, and nothing is written through them.
    let bad = world.copy(&good, "bad");
    forge(&bad, |manifest| {
        manifest["archives"][1]["entries"].as_array_mut().unwrap().extend([link("l"), file("l/passwd")]);
    });
    let error = world.refused(&bad, None, Checks::default());
    assert!(error.to_string().contains("manifest.json"), "{error}");
}

#[test]
fn a_newer_format_a_foreign_directory_and_a_taken_place_are_refused_before_anything_is_written() {
    let world = World::new("backup-refused");
    let good = world.make("good", None);
    let newer = world.copy(&good, "newer");
    fs::write(newer.join("backup.json"), r#"{"type":"kheish-backup","format":2,"what":"ever"}"#).unwrap();
    assert!(matches!(world.refused(&newer, None, Checks::default()), BackupError::Newer { found: 2, .. }));
    let journal_newer = world.copy(&good, "journal-newer");
    forge(&journal_newer, |manifest| manifest["journal_format"] = json!(99));
    assert!(matches!(world.refused(&journal_newer, None, Checks::default()), BackupError::Newer { found: 99, .. }));
    for text in ["", "{}", "[]", r#"{"format":0}"#, r#"{"format":-1}"#, r#"{"format":1}"#, "\0"] {
        let other = world.copy(&good, "other");
        fs::write(other.join("backup.json"), text).unwrap();
        let error = world.refused(&other, None, Checks::default());
        assert!(matches!(error, BackupError::NotABackup { .. }), "{text}: {error}");
    }
    // A state root of a newer format in a backup of this one.
    let root_newer = world.copy(&good, "root-newer");
    let mut archive = fs::read(root_newer.join("state.tar")).unwrap();
    let at = archive.len() - 1024 - 512;
    assert_eq!(&archive[at..at + 2], b"1\n", "FORMAT is the last file");
    archive[at] = b'9';
    fs::write(root_newer.join("state.tar"), &archive).unwrap();
    forge(&root_newer, |manifest| {
        let entries = manifest["archives"][0]["entries"].as_array_mut().unwrap();
        entries.last_mut().unwrap()["sha256"] = json!(sha256(b"9\n"));
    });
    assert!(matches!(world.refused(&root_newer, None, Checks::default()), BackupError::Newer { found: 9, .. }));

    // A wrong master key, and none.
    let wrong = MasterKey::parse(b"abcdefghijklmnopqrstuvwxyz012345", "X").unwrap();
    let checks = Checks { master_key: Some(Some(wrong)), ..Checks::default() };
    let error = world.refused(&good, None, checks);
    assert!(matches!(error, BackupError::MasterKey(_)) && error.to_string().contains("fingerprint"), "{error}");
    let checks = Checks { master_key: Some(None), ..Checks::default() };
    assert!(matches!(world.refused(&good, None, checks), BackupError::MasterKey(_)));

    // A place that holds something, is a file, or a link.
    let workspace = world.home.join("restored-workspace");
    let taken = world.home.join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("mine"), "mine").unwrap();
    let file = world.home.join("file");
    fs::write(&file, "mine").unwrap();
    let to_nowhere = world.home.join("to-nowhere");
    symlink(world.home.join("nowhere"), &to_nowhere).unwrap();
    for place in [&taken, &file, &to_nowhere] {
        let target = Target { state_root: place, workspace: Some(&workspace) };
        let error = backup::restore(&good, &target, None, Checks::default()).map(|_| ()).unwrap_err();
        assert_eq!(error.code(), "restore_target_unusable", "{error}");
        let target = Target { state_root: &workspace, workspace: Some(place) };
        let error = backup::restore(&good, &target, None, Checks::default()).map(|_| ()).unwrap_err();
        assert_eq!(error.code(), "restore_target_unusable", "{error}");
    }
    assert!(!workspace.exists() && fs::read_dir(&taken).unwrap().count() == 1);

    // And what is good is restored into an empty directory.
    let root = world.home.join("restored");
    fs::create_dir(&root).unwrap();
    let right = MasterKey::from_file(world.home.master_key_file()).unwrap();
    let checks = Checks { master_key: Some(Some(right)), ..Checks::default() };
    let target = Target { state_root: &root, workspace: Some(&workspace) };
    let restored = backup::restore(&good, &target, None, checks).unwrap();
    assert_eq!((restored.ok, restored.backup.slots), (true, Some(1)));
    let (code, told) = world.home.command(&["journal", "verify", "--offline", "--state-root", root.to_str().unwrap()]);
    assert_eq!(code, 0, "{told}");
}

#[test]
fn an_encrypted_backup_opens_with_its_key_only_and_no_chunk_of_it_can_be_moved_cut_or_altered() {
    let world = World::new("backup-sealed");
    let good = world.make("sealed", Some(world.key()));
    assert!(check(&good, Some(world.key())).unwrap().ok);
    for name in ["state.tar.sealed", "workspace.tar.sealed", "manifest.json.sealed"] {
        let bytes = fs::read(good.join(name)).unwrap();
        for plain in [b"a run that waits".as_slice(), b"\"path\"", b"mmmmmmmm", b"journal/", b"ustar"] {
            assert!(!bytes.windows(plain.len()).any(|window| window == plain), "{name} shows its plaintext");
        }
    }
    assert!(matches!(world.refused(&good, None, Checks::default()), BackupError::KeyMissing { .. }));
    let other = BackupKey::from_file(&world.key_file("other.key", 10)).unwrap();
    assert!(matches!(world.refused(&good, Some(other), Checks::default()), BackupError::WrongKey { .. }));
    let plain = world.make("plain", None);
    assert!(matches!(world.refused(&plain, Some(world.key()), Checks::default()), BackupError::KeyNeedless { .. }));

    const CHUNK: usize = 64 * 1024 + 16;
    for name in ["state.tar.sealed", "workspace.tar.sealed", "manifest.json.sealed"] {
        let bytes = fs::read(good.join(name)).unwrap();
        let chunks: Vec<&[u8]> = bytes.chunks(CHUNK).collect();
        let mut broken: Vec<(String, Vec<u8>)> = Vec::new();
        for index in 0..chunks.len() {
            for at in [index * CHUNK, index * CHUNK + chunks[index].len() - 1] {
                let mut flipped = bytes.clone();
                flipped[at] ^= 0x80;
                broken.push((format!("chunk {index} flipped at {at}"), flipped));
            }
            broken.push((format!("cut before chunk {index}"), bytes[..index * CHUNK].to_vec()));
            let left_out: Vec<&[u8]> =
                chunks.iter().enumerate().filter(|(at, _)| *at != index).map(|(_, c)| *c).collect();
            broken.push((format!("chunk {index} left out"), left_out.concat()));
            if index > 0 {
                let mut swapped = chunks.clone();
                swapped.swap(index - 1, index);
                broken.push((format!("chunks {} and {index} swapped", index - 1), swapped.concat()));
            }
        }
        broken.push(("one byte short".to_string(), bytes[..bytes.len() - 1].to_vec()));
        for (how, bytes) in broken {
            let bad = world.copy(&good, "bad");
            fs::write(bad.join(name), &bytes).unwrap();
            assert!(!found(check(&bad, Some(world.key()))).is_empty(), "{name}: {how}");
            // The same when whoever did it also made backup.json anew.
            revouch(&bad);
            let problems = found(check(&bad, Some(world.key())));
            assert!(problems.iter().any(|(_, file, ..)| file == name), "{name}: {how}: {problems:?}");
            world.refused(&bad, Some(world.key()), Checks::default());
        }
    }
    // Files of one backup in another one with the same key.
    let second = world.make("second", Some(world.key()));
    for name in ["state.tar.sealed", "workspace.tar.sealed", "manifest.json.sealed"] {
        let bad = world.copy(&good, "bad");
        fs::copy(second.join(name), bad.join(name)).unwrap();
        revouch(&bad);
        assert!(!found(check(&bad, Some(world.key()))).is_empty(), "{name} of another backup");
        world.refused(&bad, Some(world.key()), Checks::default());
    }
    let root = world.home.join("restored");
    let target = Target { state_root: &root, workspace: None };
    backup::restore(&good, &target, Some(world.key()), Checks::default()).unwrap();
}

#[test]
fn a_signing_key_kept_elsewhere_is_named_as_missing_and_a_full_target_leaves_nothing() {
    let world = World::new("backup-relocated");
    let elsewhere = world.home.join("kept.key");
    let root = world.home.root();
    let arguments =
        ["audit", "relocate-key", "--state-root", root.to_str().unwrap(), "--to", elsewhere.to_str().unwrap()];
    let (code, told) = world.home.command(&arguments);
    assert_eq!(code, 0, "{told}");
    let good = world.make("good", None);
    let manifest = entries(&good);
    assert_eq!(manifest["audit_key"]["included"], json!(false));
    assert_eq!(manifest["missing"][0]["name"], json!("audit-signing.key"));
    assert!(check(&good, None).unwrap().ok, "its public half is enough to check it");
    // What is neither copied nor missed.
    let paths: Vec<&str> =
        manifest["archives"][0]["entries"].as_array().unwrap().iter().map(|e| e["path"].as_str().unwrap()).collect();
    assert!(paths.contains(&"auth/global-slots.json") && paths.contains(&"control-plane-auth/audit.jsonl"));
    assert!(!paths.contains(&"daemon.lock") && !paths.contains(&"journal/spare"), "{paths:?}");
    assert_eq!(paths.last(), Some(&"FORMAT"));

    // It counts as the backup that a change of the master key asks for.
    let new_key = world.home.join("new-master.key");
    let text = kheish_daemon::broker::master_key::generate().unwrap();
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new_key);
    std::io::Write::write_all(&mut file.unwrap(), text.as_bytes()).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_kheish-daemon"))
        .env_clear()
        .env("KHEISH_AUTH_STORE_MASTER_KEY_FILE", world.home.master_key_file())
        .args(["secrets", "rekey", "--state-root"])
        .arg(&root)
        .arg("--new-key-file")
        .arg(&new_key)
        .arg("--backup")
        .arg(&good)
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // The limit of a file's size stands for a disk that is full.
    let binary = env!("CARGO_BIN_EXE_kheish-daemon");
    let out = world.home.join("full");
    let script = format!(
        "trap '' XFSZ; ulimit -f 8; exec {binary} backup create --offline --state-root {} --out {}",
        root.display(),
        out.display()
    );
    let output = std::process::Command::new("bash").args(["-c", &script]).output().expect("bash");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && told.contains("cannot write") && told.contains("next: "), "{told}");
    assert!(!out.exists() && !world.home.join(".full.partial").exists(), "{told}");
    let target = world.home.join("full-restore");
    let script = format!(
        "trap '' XFSZ; ulimit -f 1; exec {binary} backup restore --skip-master-key-check --from {} --state-root {}",
        good.display(),
        target.display()
    );
    let output = std::process::Command::new("bash").args(["-c", &script]).output().expect("bash");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && told.contains("cannot write"), "{told}");
    assert!(!target.exists(), "a half-made restore is left");
}
