//! `journal verify` and `journal show` on real files, without a daemon.

mod cli_support;

use std::path::Path;
use std::sync::Arc;

use cli_support::{Outcome, Scratch, kheish, kheish_with};
use kheish_daemon::audit::key::SigningKey;
use kheish_daemon::ids::{RunId, SessionId};
use kheish_daemon::journal::{Draft, Journal, Options, RealDisk, RecordRef, Restore};

const NOW_MS: u64 = 1_764_057_600_000;

struct Nothing;

impl Restore for Nothing {
    fn reset(&mut self) {}

    fn snapshot_line(&mut self, _line: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn record(&mut self, _record: &RecordRef<'_>) -> Result<(), String> {
        Ok(())
    }
}

/// A state root with a sealed journal: a session, two runs, and the key beside it.
fn state_root(scratch: &Scratch) -> String {
    let root = scratch.path().join("root");
    let disk = |name: &str| {
        std::fs::create_dir_all(root.join(name)).expect("created");
        Box::new(RealDisk::open(&root.join(name)).expect("opened"))
    };
    let key = Arc::new(SigningKey::from_seed(&[7; 32]));
    std::fs::create_dir(&root).expect("created");
    std::fs::write(root.join("audit-signing.pub.pem"), key.public().to_pem()).expect("written");
    let options = Options { segment_bytes: 64 * 1024, ..Options::default() };
    let (mut journal, _) =
        Journal::open(disk("journal"), disk("snapshots"), options, key, NOW_MS, &mut Nothing).expect("opened");
    for (kind, run) in
        [("session.created", None), ("run.accepted", Some(1)), ("run.completed", Some(1)), ("run.accepted", Some(2))]
    {
        let draft = Draft {
            seq: journal.next_seq(),
            at_ms: NOW_MS,
            kind,
            session: Some(SessionId::parse("s").expect("an id")),
            run: run.map(|number| RunId { number, epoch: 0 }),
            session_prev: 0,
            run_prev: 0,
            run_first: 0,
            by: None,
            body: b"{\"text\":\"\x7f\"}".to_vec(),
        };
        journal.append(&[draft]).expect("appended");
    }
    journal.close(NOW_MS).expect("closed");
    root.to_str().expect("UTF-8").to_string()
}

fn segment(root: &str) -> std::path::PathBuf {
    let names = std::fs::read_dir(Path::new(root).join("journal")).expect("a directory");
    names.map(|entry| entry.expect("an entry").path()).find(|path| path.extension().is_some()).expect("a segment")
}

fn verify(root: &str, more: &[&str]) -> Outcome {
    kheish(&[&["journal", "verify", "--offline", "--state-root", root, "--output", "json"], more].concat())
}

/// Kinds of the records shown.
fn kinds(root: &str, filter: &[&str]) -> Vec<String> {
    let outcome = kheish(&[&["journal", "show", "--state-root", root], filter].concat());
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{outcome:?}");
    let kind = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).expect("a document a line")["kind"]
            .as_str()
            .expect("a kind")
            .to_string()
    };
    outcome.stdout.lines().map(kind).collect()
}

#[test]
fn an_unharmed_journal_verifies_and_the_report_says_what_was_checked() {
    let scratch = Scratch::new();
    let root = state_root(&scratch);
    let outcome = verify(&root, &[]);
    let report = outcome.json();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!((&report["ok"], &report["signatures_checked"]), (&true.into(), &true.into()), "{report}");
    assert!(report["seals"].as_u64().is_some_and(|seals| seals > 0), "{report}");
    assert!(
        outcome.stderr.contains("audit-signing.pub.pem") && outcome.stderr.contains("kept elsewhere"),
        "{outcome:?}"
    );
    let key = scratch.file("kept.pem", &SigningKey::from_seed(&[7; 32]).public().to_pem());
    let elsewhere = verify(&root, &["--public-key", &key]);
    assert_eq!((elsewhere.code, elsewhere.stdout, elsewhere.stderr.as_str()), (0, outcome.stdout, ""));
}

#[test]
fn a_changed_byte_is_found_with_its_file_and_place() {
    let scratch = Scratch::new();
    let root = state_root(&scratch);
    let path = segment(&root);
    let mut bytes = std::fs::read(&path).expect("a segment");
    let at = bytes.windows(13).position(|window| window == b"run.completed").expect("the record");
    bytes[at] = b'R';
    std::fs::write(&path, bytes).expect("written");
    let outcome = verify(&root, &[]);
    assert_eq!((outcome.code, &outcome.json()["ok"]), (1, &false.into()), "{outcome:?}");
    let error = outcome.stderr.lines().last().expect("an error");
    let place = format!("Error: {} at byte ", path.display());
    assert!(error.starts_with(&place) && error.contains("next:"), "{error}");
}

#[test]
fn a_journal_signed_by_another_key_does_not_verify() {
    let scratch = Scratch::new();
    let root = state_root(&scratch);
    let key = scratch.file("other.pem", &SigningKey::from_seed(&[8; 32]).public().to_pem());
    let outcome = verify(&root, &["--public-key", &key]);
    assert_eq!((outcome.code, &outcome.json()["ok"]), (1, &false.into()), "{outcome:?}");
    let no_key = scratch.file("no.pem", "nothing");
    assert_eq!(verify(&root, &["--public-key", &no_key]).code, 1);
}

#[test]
fn without_any_key_the_report_says_that_no_signature_was_checked() {
    let scratch = Scratch::new();
    let root = state_root(&scratch);
    std::fs::remove_file(Path::new(&root).join("audit-signing.pub.pem")).expect("removed");
    let outcome = verify(&root, &[]);
    assert_eq!((outcome.code, &outcome.json()["signatures_checked"]), (0, &false.into()), "{outcome:?}");
    assert!(outcome.stderr.contains("give --public-key"), "{outcome:?}");
}

#[test]
fn records_are_shown_as_they_were_written_and_filtered_as_asked() {
    let scratch = Scratch::new();
    let root = state_root(&scratch);
    let outcome = kheish_with(&[("KHEISH_STATE_ROOT", &root)], b"", &["journal", "show"]);
    let written = std::fs::read_to_string(segment(&root)).expect("a segment");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, written.trim_end_matches('\0')), "byte for byte");
    let runs = ["run.accepted", "run.completed", "run.accepted"];
    assert_eq!(kinds(&root, &["--kind", "run."]), runs);
    assert_eq!(kinds(&root, &["--kind", "run.completed"]), ["run.completed"]);
    assert_eq!(kinds(&root, &["--run-id", "run-1"]), runs[..2]);
    assert_eq!(kinds(&root, &["--session-id", "s", "--limit", "2"]), ["session.created", "run.accepted"]);
    assert_eq!(kinds(&root, &["--session-id", "other"]), Vec::<String>::new());
    let seq = |line: Option<&str>| {
        serde_json::from_str::<serde_json::Value>(line.expect("a line")).expect("a document")["seq"].to_string()
    };
    let third = seq(written.lines().nth(2));
    assert_eq!(kinds(&root, &["--from", &third, "--to", &third]), ["run.accepted"]);
}

#[test]
fn a_filter_that_cannot_match_anything_is_refused() {
    let scratch = Scratch::new();
    let root = state_root(&scratch);
    for (option, value) in [("--run-id", "run-01"), ("--session-id", "a/b")] {
        let outcome = kheish(&["journal", "show", "--state-root", &root, option, value]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""), "{outcome:?}");
        assert!(outcome.stderr.starts_with(&format!("Error: {option}: ")), "{outcome:?}");
    }
    assert_eq!(kheish(&["journal", "show", "--state-root", "/nonexistent"]).code, 1);
}
