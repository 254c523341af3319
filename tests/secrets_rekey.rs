//! `secrets rekey`: one key opens the store at every moment, and a backup that is none does not count.

mod state_root_scratch;
#[path = "support/strace.rs"]
mod strace;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kheish_daemon::broker::{FILE_NAME, Provider, Store};
use serde_json::{Value, json};
use state_root_scratch::{KEY, OTHER_KEY, Scratch, key, record};

const BINARY: &str = env!("CARGO_BIN_EXE_kheish-daemon");

struct Place {
    scratch: Scratch,
    root: PathBuf,
    new_key: PathBuf,
}

impl Place {
    /// A root with two slots under [`KEY`], the file of [`OTHER_KEY`], and a copy of the root.
    fn new() -> Self {
        let scratch = Scratch::new();
        let root = scratch.open_root();
        let mut store = Store::open(&root, key(KEY)).unwrap();
        store.put(record("openai.prod", Provider::OpenAi, "sk-secret-one")).unwrap();
        store.put(record("sidecars.hook", Provider::Generic, "a generic secret")).unwrap();
        let (root, new_key) = (scratch.root_path(), scratch.path().join("new.key"));
        private(&new_key, OTHER_KEY.as_bytes());
        let backup = scratch.path().join("backup/auth");
        fs::create_dir_all(&backup).unwrap();
        fs::copy(root.join("auth").join(FILE_NAME), backup.join(FILE_NAME)).unwrap();
        Self { scratch, root, new_key }
    }

    fn store(&self) -> PathBuf {
        self.root.join("auth").join(FILE_NAME)
    }

    fn backup(&self) -> PathBuf {
        self.scratch.path().join("backup")
    }

    fn command(&self, wrapper: &[String], old_key: &str, more: &[&str]) -> Output {
        let mut words = wrapper.iter().map(String::as_str).chain([BINARY]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(["secrets", "rekey", "--state-root"]).arg(&self.root);
        command.arg("--new-key-file").arg(&self.new_key).args(more);
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.env("KHEISH_AUTH_STORE_MASTER_KEY", old_key).output().unwrap()
    }

    fn rekey(&self, more: &[&str]) -> (Option<i32>, String, String) {
        let output = self.command(&[], KEY, more);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    fn with_backup(&self, path: &Path) -> (Option<i32>, String, String) {
        self.rekey(&["--backup", path.to_str().unwrap()])
    }

    /// Whether the old key and the new one open the store, with all that was in it.
    fn opens(&self) -> (bool, bool) {
        let root = self.scratch.open_root();
        let opens = |text| Store::open(&root, key(text)).is_ok_and(|store| store.list().len() == 2);
        (opens(KEY), opens(OTHER_KEY))
    }
}

fn private(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_store_is_encrypted_anew_and_the_tool_says_so_both_times() {
    let place = Place::new();
    let (code, stdout, stderr) = place.with_backup(&place.backup());
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let done: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (&done["rekeyed"], &done["readable_with"], &done["slots"]),
        (&json!(true), &json!("new_key"), &json!(2))
    );
    assert!(done["verified_backup"].as_str().unwrap().ends_with("backup/auth/global-slots.json"), "{done}");
    assert!(stderr.contains("readable with the new key alone"), "{stderr}");
    assert_eq!(place.opens(), (false, true));
    assert_eq!(fs::metadata(place.store()).unwrap().permissions().mode() & 0o777, 0o600);
    for text in [&stdout, &stderr] {
        assert!(!text.contains("secret") || text.contains("secrets"), "{text}");
        assert!(!text.contains(KEY) && !text.contains(OTHER_KEY), "{text}");
    }
    let (code, stdout, _) = place.with_backup(&place.backup());
    let again: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &again["rekeyed"], &again["readable_with"]), (Some(0), &json!(false), &json!("new_key")));
}

#[test]
fn without_a_verified_backup_nothing_is_changed_unless_told_so() {
    let place = Place::new();
    let before = fs::read(place.store()).unwrap();
    let elsewhere = place.scratch.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let text = elsewhere.join("text");
    fs::write(&text, "no archive at all".repeat(100)).unwrap();
    let gzip = elsewhere.join("root.tar.gz");
    fs::write(&gzip, [0x1f, 0x8b, 8, 0]).unwrap();
    let damaged = elsewhere.join(FILE_NAME);
    fs::write(&damaged, String::from_utf8(before.clone()).unwrap().replace("\"nonce\": \"", "\"nonce\": \"A")).unwrap();
    let cases = [
        (vec![], "it is not said which backup there is"),
        (vec!["--backup", "x", "--without-backup"], "it is not said which backup there is"),
        (vec!["--backup", "/nonexistent"], "cannot read backup"),
        (vec!["--backup", elsewhere.to_str().unwrap()], "cannot be read with the old key"),
        (vec!["--backup", text.to_str().unwrap()], "holds no auth/global-slots.json"),
        (vec!["--backup", gzip.to_str().unwrap()], "is compressed"),
        (vec!["--backup", place.root.to_str().unwrap()], "is the store itself"),
        (vec!["--backup", place.new_key.to_str().unwrap()], "holds no auth/global-slots.json"),
    ];
    for (options, reason) in cases {
        let (code, stdout, stderr) = place.rekey(&options);
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{options:?}: {stderr}");
        assert!(stderr.contains(reason) && stderr.contains("next: "), "{options:?}: {stderr}");
        assert_eq!(fs::read(place.store()).unwrap(), before, "{options:?}");
    }
    assert_eq!(place.rekey(&["--without-backup"]).0, Some(0));
    assert_eq!(place.opens(), (false, true));
}

#[test]
fn a_backup_from_before_the_last_change_is_stale_and_one_that_was_saved_again_is_not() {
    let place = Place::new();
    let root = place.scratch.open_root();
    let mut store = Store::open(&root, key(KEY)).unwrap();
    store.put(record("openai.prod", Provider::OpenAi, "sk-secret-two")).unwrap();
    drop((store, root));
    let (code, _, stderr) = place.with_backup(&place.backup());
    assert_eq!(code, Some(1));
    assert!(stderr.contains("slot openai.prod is missing or was another secret"), "{stderr}");
    assert_eq!(place.opens(), (true, false));
    let copy = place.scratch.path().join("copy.json");
    fs::copy(place.store(), &copy).unwrap();
    assert_eq!(place.with_backup(&copy).0, Some(0));
}

#[test]
fn the_store_is_found_in_a_tar_archive() {
    for (name, args) in [
        ("whole.tar", vec!["-cf", "whole.tar", "root"]),
        ("inner.tar", vec!["-cf", "inner.tar", "-C", "root", "./auth"]),
        ("ustar.tar", vec!["--format=ustar", "-cf", "ustar.tar", "root"]),
        ("pax.tar", vec!["--format=pax", "-cf", "pax.tar", "root"]),
    ] {
        let place = Place::new();
        let made = Command::new("tar").args(args).current_dir(place.scratch.path()).output();
        match made {
            Ok(output) if output.status.success() => {}
            other => return strace::skip::skip("the_store_is_found_in_a_tar_archive", &format!("no tar: {other:?}")),
        }
        let archive = place.scratch.path().join(name);
        let (code, stdout, stderr) = place.with_backup(&archive);
        assert_eq!(code, Some(0), "{name}: {stderr}");
        assert!(stdout.contains(&format!("{name}: ")), "{stdout}");
    }
    // Cut archives are none.
    let place = Place::new();
    let _made =
        Command::new("tar").args(["-cf", "cut.tar", "root"]).current_dir(place.scratch.path()).output().unwrap();
    let archive = place.scratch.path().join("cut.tar");
    let whole = fs::read(&archive).unwrap();
    let at = whole.windows(9).position(|window| window == b"\"salt\": \"").expect("the store is in it");
    for cut in [10, 511, 512, at] {
        fs::write(&archive, &whole[..cut]).unwrap();
        assert_eq!(place.with_backup(&archive).0, Some(1), "cut at {cut}");
    }
    assert_eq!(place.opens(), (true, false));
}

#[test]
fn wrong_keys_no_keys_and_a_running_daemon_are_refused() {
    let place = Place::new();
    let third = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU=";
    let output = place.command(&[], third, &["--without-backup"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && stderr.contains("was written with the master key of fingerprint"), "{stderr}");
    private(&place.new_key, KEY.as_bytes());
    let (code, _, stderr) = place.rekey(&["--without-backup"]);
    assert!(code == Some(1) && stderr.contains("both keys are the same"), "{stderr}");
    fs::set_permissions(&place.new_key, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, _, stderr) = place.rekey(&["--without-backup"]);
    assert!(code == Some(1) && stderr.contains("so others may use it"), "{stderr}");
    private(&place.new_key, OTHER_KEY.as_bytes());
    let lock = place.scratch.open_root();
    let (code, _, stderr) = place.rekey(&["--without-backup"]);
    assert!(code == Some(1) && stderr.contains("state root"), "{stderr}");
    drop(lock);
    assert_eq!(place.opens(), (true, false));
}

/// Killed before each system call on the store, its neighbour and their directory.
#[test]
fn a_kill_at_any_step_leaves_a_store_that_exactly_one_key_opens() {
    let test = "a_kill_at_any_step_leaves_a_store_that_exactly_one_key_opens";
    if !strace::is_usable(test) {
        return;
    }
    let wrapper = |place: &Place, call: &str, number: usize| {
        let auth = place.root.join("auth");
        let mut words: Vec<String> = ["strace", "-D", "-f", "-qq", "-o", "/dev/null"].map(String::from).into();
        words.extend(["-e".to_string(), format!("trace=?{call}")]);
        words.extend(["-e".to_string(), format!("inject=?{call}:signal=SIGKILL:when={number}")]);
        for path in [place.store(), auth.join(format!(".{FILE_NAME}.tmp")), auth] {
            words.extend(["-P".to_string(), path.display().to_string()]);
        }
        words
    };
    // strace counts each call for itself.
    let calls =
        ["openat", "read", "write", "statx", "fstat", "fsync", "fdatasync", "rename", "renameat2", "unlink", "close"];
    let (mut killed, mut seen) = (0, [0, 0]);
    for call in calls {
        for number in 1.. {
            let place = Place::new();
            let backup = place.backup().display().to_string();
            let output = place.command(&wrapper(&place, call, number), KEY, &["--backup", &backup]);
            if output.status.success() {
                assert_eq!(place.opens(), (false, true), "{call} {number}");
                break;
            }
            killed += 1;
            let (old, new) = place.opens();
            assert!(old != new, "{call} {number}: old key {old}, new key {new}: {output:?}");
            seen[usize::from(new)] += 1;
            let (code, stdout, stderr) = place.rekey(&["--backup", &backup]);
            let again: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
            assert_eq!(
                (code, &again["rekeyed"], &again["slots"]),
                (Some(0), &json!(!new), &json!(2)),
                "{call} {number}"
            );
            assert_eq!(place.opens(), (false, true), "{call} {number}");
            let left: Vec<_> =
                fs::read_dir(place.root.join("auth")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(left, [FILE_NAME], "{call} {number}");
        }
    }
    assert!(killed >= 10 && seen[0] > 0 && seen[1] > 0, "{killed} kills, {seen:?} with the old and the new key");
}
