//! What `StateRoot::open` promises: one process, one format, nobody else's directory, nobody else's eyes.

mod state_root_scratch;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Barrier;

use kheish_daemon::state_root::replace::Step;
use kheish_daemon::state_root::{Directory, Holder, StateRoot, StateRootError};
use kheish_daemon::sys;
use state_root_scratch::Scratch;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Every entry below `path` with its mode, and what plain files hold.
fn listing(path: &Path) -> Vec<(String, u32, Vec<u8>)> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let bytes = if path.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        entries.push((path.file_name().unwrap().to_string_lossy().into_owned(), mode(&path), bytes));
    }
    entries.sort();
    entries
}

fn lock_value(root: &StateRoot, key: &str) -> String {
    let text = fs::read_to_string(root.path().join("daemon.lock")).unwrap();
    text.lines().find_map(|line| line.strip_prefix(&format!("{key}="))).unwrap().to_string()
}

#[test]
fn a_new_root_is_private_complete_and_says_who_holds_it() {
    let scratch = Scratch::new();
    let nested = scratch.path().join("a/b/root");
    let root = StateRoot::open(&nested, true).unwrap();

    for path in ["a", "a/b", "a/b/root"] {
        assert_eq!(mode(&scratch.path().join(path)), 0o700, "{path}");
    }
    for directory in Directory::ALL {
        assert_eq!(mode(&root.directory(directory)), 0o700, "{directory:?}");
    }
    assert_eq!((fs::read(nested.join("FORMAT")).unwrap(), mode(&nested.join("FORMAT"))), (b"1\n".to_vec(), 0o600));
    assert_eq!(mode(&nested.join("daemon.lock")), 0o600);
    assert_eq!(lock_value(&root, "pid"), std::process::id().to_string());
    assert_eq!(lock_value(&root, "mechanism"), "flock");
    assert!(lock_value(&root, "started_at_ms").parse::<u64>().unwrap() > 1_700_000_000_000);
    assert!(!lock_value(&root, "host").is_empty());
    let lock = root.lock_watch().unwrap();
    assert!(lock.look().held);
    assert!(root.space().unwrap().total_bytes > 0);
    let path = root.path().join("daemon.lock");
    fs::rename(&path, root.path().join("elsewhere")).unwrap();
    assert!(!lock.look().held, "the lock was moved away");
    fs::write(&path, "").unwrap();
    assert!(!lock.look().held, "another file stands in its place");
}

#[test]
fn a_second_holder_is_refused_and_told_the_pid_of_the_first() {
    let scratch = Scratch::new();
    let root = scratch.open_root();

    let error = StateRoot::open(&scratch.root_path(), false).unwrap_err();

    let StateRootError::Held { holder: Some(Holder { pid, host }), .. } = &error else { panic!("{error}") };
    assert_eq!((*pid, host), (std::process::id(), &lock_value(&root, "host")));
    assert!(error.to_string().contains(&format!("process {pid}")), "{error}");
    drop(root);
    scratch.open_root();
}

#[test]
fn of_many_that_open_a_fresh_root_at_once_exactly_one_wins() {
    const RACERS: usize = 8;
    for _ in 0..20 {
        let scratch = Scratch::new();
        let (start, end) = (Barrier::new(RACERS), Barrier::new(RACERS));
        let outcomes: Vec<Result<(), String>> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..RACERS)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        let opened = StateRoot::open(&scratch.root_path(), true);
                        // The winner holds on until all have tried.
                        end.wait();
                        match opened {
                            Ok(_) => Ok(()),
                            Err(StateRootError::Held { .. }) => Err("held".to_string()),
                            Err(other) => Err(other.to_string()),
                        }
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let winners = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let losers = outcomes.iter().filter(|outcome| **outcome == Err("held".to_string())).count();
        assert_eq!((winners, losers), (1, RACERS - 1), "{outcomes:?}");
    }
}

#[test]
fn a_child_that_outlives_the_holder_does_not_keep_the_lock() {
    let scratch = Scratch::new();
    let root = scratch.open_root();
    // `cat` lives until its standard input is closed.
    let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    drop(root);

    let reopened = StateRoot::open(&scratch.root_path(), false);

    assert!(child.try_wait().unwrap().is_none(), "the child must still be alive for this to mean anything");
    reopened.unwrap();
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn what_a_dead_holder_wrote_is_replaced_whole() {
    let scratch = Scratch::new();
    drop(scratch.open_root());
    let path = scratch.root_path().join("daemon.lock");
    fs::write(&path, format!("pid=1\nhost={}\n", "x".repeat(4_000))).unwrap();
    let root = scratch.open_root();
    let text = fs::read_to_string(path).unwrap();
    assert_eq!((text.lines().count(), lock_value(&root, "pid")), (4, std::process::id().to_string()));
}

#[test]
fn a_directory_that_is_not_ours_is_refused_and_left_as_it_was() {
    let scratch = Scratch::new();
    let path = scratch.root_path();
    drop(scratch.open_root());
    fs::remove_file(path.join("FORMAT")).unwrap();
    fs::remove_file(path.join("daemon.lock")).unwrap();
    // A journal without a FORMAT is a root that lost a part, not a fresh one.
    fs::write(path.join("journal/00000000000000000001.jsonl"), b"{}\n").unwrap();
    let foreign = scratch.path().join("home");
    fs::create_dir(&foreign).unwrap();
    set_mode(&foreign, 0o700);
    fs::write(foreign.join("thesis.txt"), b"work").unwrap();

    for path in [&path, &foreign] {
        let before = listing(path);
        for create in [true, false] {
            let error = StateRoot::open(path, create).unwrap_err();
            assert!(matches!(error, StateRootError::NotAStateRoot { .. }), "{error}");
            assert_eq!(listing(path), before);
        }
    }
    let empty = scratch.path().join("empty");
    fs::create_dir(&empty).unwrap();
    set_mode(&empty, 0o700);
    let error = StateRoot::open(&empty, false).unwrap_err();
    assert!(matches!(error, StateRootError::NotAStateRoot { .. }), "{error}");
    assert_eq!(listing(&empty), []);
    let error = StateRoot::open(&scratch.path().join("absent"), false).unwrap_err();
    assert!(matches!(error, StateRootError::Missing { .. }), "{error}");
    assert!(!scratch.path().join("absent").exists());
}

#[test]
fn a_first_start_cut_short_anywhere_is_completed_by_the_next() {
    for cut in 0..=Directory::ALL.len() + 2 {
        let scratch = Scratch::new();
        let path = scratch.root_path();
        fs::create_dir(&path).unwrap();
        set_mode(&path, 0o700);
        let steps = ["daemon.lock"].into_iter().chain(Directory::ALL.map(Directory::name)).chain([".FORMAT.tmp"]);
        for name in steps.take(cut) {
            if Directory::ALL.iter().any(|directory| directory.name() == name) {
                fs::create_dir(path.join(name)).unwrap();
                set_mode(&path.join(name), 0o700);
            } else {
                fs::write(path.join(name), b"").unwrap();
                set_mode(&path.join(name), 0o600);
            }
        }
        // The mount point of a file system of its own has this one, owned by root.
        fs::create_dir(path.join("lost+found")).unwrap();

        drop(scratch.open_root());

        let names: Vec<_> = listing(&path).into_iter().map(|(name, ..)| name).collect();
        let expected = [
            "FORMAT",
            "auth",
            "blobs",
            "control-plane-auth",
            "daemon.lock",
            "debug",
            "journal",
            "lost+found",
            "probe",
            "shell-tasks",
            "snapshots",
        ];
        assert_eq!(names, expected, "cut after {cut} steps");
    }
}

#[test]
fn a_newer_format_and_a_damaged_one_are_refused_and_kept() {
    let scratch = Scratch::new();
    drop(scratch.open_root());
    let format = scratch.root_path().join("FORMAT");
    let long = "9".repeat(10_000) + "\n";
    for (text, is_newer) in [
        ("2\n", true),
        ("18446744073709551615\n", true),
        ("18446744073709551616\n", false),
        ("", false),
        ("1", false),
        ("0\n", false),
        ("01\n", false),
        ("+1\n", false),
        ("1\n\n", false),
        ("1 \n", false),
        ("x\n", false),
        (long.as_str(), false),
    ] {
        fs::write(&format, text).unwrap();
        let error = StateRoot::open(&scratch.root_path(), true).unwrap_err();
        match error {
            StateRootError::NewerFormat { found, .. } => {
                assert_eq!((is_newer, format!("{found}\n").as_str()), (true, text))
            }
            StateRootError::DamagedFormat { .. } => assert!(!is_newer, "{text:?}"),
            other => panic!("{text:?}: {other}"),
        }
        assert_eq!(fs::read_to_string(&format).unwrap(), text);
    }
    fs::write(&format, [0xff, b'\n']).unwrap();
    let error = StateRoot::open(&scratch.root_path(), true).unwrap_err();
    assert!(matches!(error, StateRootError::DamagedFormat { .. }), "{error}");
}

#[test]
fn a_used_root_without_its_journal_is_refused_and_other_directories_come_back() {
    let scratch = Scratch::new();
    drop(scratch.open_root());
    fs::remove_dir(scratch.root_path().join("snapshots")).unwrap();
    let root = scratch.open_root();
    assert_eq!(mode(&root.directory(Directory::Snapshots)), 0o700);
    drop(root);
    fs::remove_dir(scratch.root_path().join("journal")).unwrap();
    let error = StateRoot::open(&scratch.root_path(), true).unwrap_err();
    assert!(matches!(error, StateRootError::JournalMissing { .. }), "{error}");
}

#[test]
fn a_root_or_a_part_of_it_that_others_may_read_is_refused_with_the_command_that_helps() {
    let scratch = Scratch::new();
    drop(scratch.open_root());
    for name in ["", "FORMAT", "daemon.lock", "auth", "journal", "snapshots", "control-plane-auth", "probe"] {
        let path = scratch.root_path().join(name);
        let before = mode(&path);
        for extra in [0o040, 0o020, 0o010, 0o004, 0o002, 0o001] {
            set_mode(&path, before | extra);
            let error = StateRoot::open(&scratch.root_path(), false).unwrap_err();
            let StateRootError::ModeTooOpen { mode, .. } = &error else { panic!("{name}: {error}") };
            assert_eq!(*mode, before | extra, "{name}");
            assert!(error.to_string().contains("next: chmod go-rwx "), "{error}");
        }
        set_mode(&path, before);
    }
    scratch.open_root();
}

#[test]
fn a_root_of_another_user_is_refused() {
    let scratch = Scratch::new();
    drop(scratch.open_root());
    if sys::effective_user_id() != 0 {
        return; // Only root can give a directory away.
    }
    std::os::unix::fs::chown(scratch.root_path(), Some(12_345), None).unwrap();
    let error = StateRoot::open(&scratch.root_path(), true).unwrap_err();
    assert!(matches!(error, StateRootError::WrongOwner { owner: 12_345, user: 0, .. }), "{error}");
}

#[test]
fn a_linked_root_is_resolved_once_and_a_link_inside_is_refused() {
    let scratch = Scratch::new();
    drop(scratch.open_root());
    let link = scratch.path().join("link");
    symlink("root", &link).unwrap();
    let root = StateRoot::open(&link, true).unwrap();
    assert_eq!(root.path(), scratch.root_path().canonicalize().unwrap());
    // Both names are the same root and the same lock.
    assert!(matches!(StateRoot::open(&scratch.root_path(), true), Err(StateRootError::Held { .. })));
    drop(root);

    for name in ["auth", "daemon.lock", "FORMAT"] {
        let path = scratch.root_path().join(name);
        let moved = scratch.path().join(name);
        fs::rename(&path, &moved).unwrap();
        symlink(&moved, &path).unwrap();
        let error = StateRoot::open(&scratch.root_path(), true).unwrap_err();
        assert!(matches!(error, StateRootError::WrongKind { .. }), "{name}: {error}");
        fs::remove_file(&path).unwrap();
        fs::rename(&moved, &path).unwrap();
    }

    let dangling = scratch.path().join("dangling");
    symlink("nowhere", &dangling).unwrap();
    assert!(StateRoot::open(&dangling, true).is_err());
    assert!(!scratch.path().join("nowhere").exists());

    let file = scratch.path().join("file");
    fs::write(&file, b"kept").unwrap();
    for create in [true, false] {
        assert!(StateRoot::open(&file, create).is_err());
    }
    assert_eq!(fs::read(&file).unwrap(), b"kept");
}

#[test]
fn opening_sweeps_what_crashed_probes_and_replacements_left() {
    let scratch = Scratch::new();
    drop(scratch.open_root());
    for leftover in [".FORMAT.tmp", "probe/.kheish-write-probe-1-2"] {
        fs::write(scratch.root_path().join(leftover), b"x").unwrap();
    }
    let root = scratch.open_root();
    assert!(!root.path().join(".FORMAT.tmp").exists());
    assert_eq!(listing(&root.directory(Directory::Probe)), []);
    assert_eq!(Step::ALL.len(), 6, "a new step of a replacement needs a look at its leftovers");
    assert_eq!(fs::metadata(root.path()).unwrap().uid(), sys::effective_user_id());
}
