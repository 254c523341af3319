//! Verification and showing on real files: read-only, on a copy, with the public key alone, while the daemon runs.

mod journal_support;

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use journal_support::{Entry, Log, NOW_MS, draft, options, signer};
use kheish_daemon::audit::key::SigningKey;
use kheish_daemon::ids::{RunId, SessionId};
use kheish_daemon::journal::{
    Draft, Journal, Options, RealDisk, ShowFilter, Shown, is_empty, show, verify, verify_beside,
};

fn root(name: &str) -> PathBuf {
    let root = std::env::temp_dir().join(format!("kheish-offline-{name}-{}", std::process::id()));
    drop(fs::remove_dir_all(&root));
    for directory in ["journal", "snapshots"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    root
}

fn open(root: &Path) -> (Journal, Log) {
    let mut log = Log::default();
    let disk = |name| Box::new(RealDisk::open(&root.join(name)).unwrap());
    let opened = Journal::open(disk("journal"), disk("snapshots"), options(), signer(), NOW_MS, &mut log);
    (opened.unwrap().0, log)
}

fn fill(journal: &mut Journal, batches: u64) -> Vec<Entry> {
    let mut entries = Vec::new();
    for index in 0..batches {
        let first = journal.next_seq();
        let drafts: Vec<Draft> = (first..first + 1 + index % 3)
            .map(|seq| Draft { run: RunId::parse(if seq % 2 == 0 { "run-1" } else { "run-2" }), ..draft(seq, 700) })
            .collect();
        journal.append(&drafts).unwrap();
        entries.extend(drafts.iter().map(Entry::of_draft));
    }
    entries
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn set_mode(directory: &Path, directory_mode: u32, file_mode: u32) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => set_mode(&path, directory_mode, file_mode),
            false => fs::set_permissions(&path, fs::Permissions::from_mode(file_mode)).unwrap(),
        }
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(directory_mode)).unwrap();
}

#[test]
fn a_read_only_copy_is_verified_with_the_public_key_alone() {
    let root = root("verify");
    assert!(is_empty(&root.join("journal")).unwrap());
    assert!(verify(&root, &[], &mut |_| {}).problem.is_some_and(|problem| problem.reason.contains("no segment")));
    let (mut journal, mut log) = open(&root);
    log.entries.extend(fill(&mut journal, 30));
    journal.snapshot_writer().write(&journal.head(), NOW_MS, &mut log.lines()).unwrap();
    let head = journal.close(NOW_MS).unwrap();
    assert!(!is_empty(&root.join("journal")).unwrap());
    let elsewhere = root.join("elsewhere");
    copy(&root.join("journal"), &elsewhere.join("journal"));
    copy(&root.join("snapshots"), &elsewhere.join("snapshots"));
    set_mode(&elsewhere, 0o555, 0o444);
    let report = verify(&elsewhere, &[signer().public().clone()], &mut |_| {});
    assert_eq!(report.problem, None);
    assert!(report.ok && report.signatures_checked && report.segments > 1 && report.seals > 1, "{report:?}");
    assert_eq!((report.seq_last, report.chain), (head.seq, Some(head.chain)));
    assert_eq!((report.sealed_through, report.records_unsealed), (head.seq - 1, 0));
    assert_eq!(report.key_ids, vec![signer().key_id()]);
    assert_eq!((report.snapshots.len(), report.snapshots[0].problem.as_deref()), (1, None));
    // The journal directory alone will do, and so will no key.
    let report = verify(&elsewhere.join("journal"), &[], &mut |_| {});
    assert!(report.ok && !report.signatures_checked, "{report:?}");
    // Another key's owner did not sign this.
    let other = SigningKey::from_seed(&[9; 32]);
    let report = verify(&elsewhere, &[other.public().clone()], &mut |_| {});
    let problem = report.problem.expect("the signature is another's");
    assert!(problem.reason.contains(&signer().key_id()), "{problem:?}");
    set_mode(&elsewhere, 0o755, 0o644);
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn the_first_bad_record_is_named_with_file_offset_and_position() {
    let root = root("damage");
    let (mut journal, _) = open(&root);
    let entries = fill(&mut journal, 30);
    journal.close(NOW_MS).unwrap();
    let mut names: Vec<PathBuf> =
        fs::read_dir(root.join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let bytes = fs::read(&names[0]).unwrap();
    let marker = format!("{{\"n\":{},", entries[4].seq);
    let text = String::from_utf8(bytes.clone()).unwrap();
    let at = text.find(&marker).unwrap() + marker.len() + 20;
    let line = text[..at].rfind('\n').unwrap() + 1;
    let mut damaged = bytes.clone();
    damaged[at] ^= 1;
    fs::write(&names[0], &damaged).unwrap();
    let problem = verify(&root, &[signer().public().clone()], &mut |_| {}).problem.unwrap();
    assert_eq!((problem.file, problem.offset, problem.seq), (names[0].clone(), line as u64, Some(entries[4].seq)));
    assert!(problem.next.contains("backup"), "{}", problem.next);
    fs::remove_dir_all(root).unwrap();
}

/// Seen: `journal verify` told of damage beside a busy daemon, since a batch was written between two looks at the newest segment:
/// first NUL bytes where it then stood, or half of it. What is whole at a second look was not damaged.
#[test]
fn a_journal_that_is_being_written_is_never_called_damaged_and_damage_in_it_is() {
    const BATCHES: u64 = 1_000;
    let root = root("beside");
    let disk = |name| Box::new(RealDisk::open(&root.join(name)).unwrap());
    // A long rest behind the last batch takes a while to be looked through; a short segment is soon followed by another.
    for segment_bytes in [4 * 1024 * 1024, 64 * 1024] {
        let options = Options { segment_bytes, ..options() };
        let (mut journal, _) =
            Journal::open(disk("journal"), disk("snapshots"), options, signer(), NOW_MS, &mut Log::default()).unwrap();
        let verifications = std::thread::scope(|scope| {
            let writer = scope.spawn(|| drop(fill(&mut journal, BATCHES)));
            let mut verifications = 0;
            while !writer.is_finished() || verifications == 0 {
                let report = verify_beside(&root, &[signer().public().clone()]);
                assert_eq!(report.problem, None, "verification {verifications}");
                verifications += 1;
            }
            verifications
        });
        println!("{verifications} verifications of segments of {segment_bytes} bytes");
        journal.close(NOW_MS).unwrap();
    }
    let oldest = fs::read_dir(root.join("journal")).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
    let mut bytes = fs::read(&oldest).unwrap();
    let at = bytes.windows(5).position(|window| window == b"{\"n\":").unwrap() + 10;
    bytes[at] ^= 1;
    fs::write(&oldest, bytes).unwrap();
    let problem = verify_beside(&root, &[signer().public().clone()]).problem.expect("it is damaged");
    assert_eq!(problem.file, oldest);
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn a_running_journal_can_be_shown_and_filtered() {
    let root = root("show");
    let (mut journal, _) = open(&root);
    let entries = fill(&mut journal, 40);
    let collect = |filter: &ShowFilter| {
        let mut found = Vec::new();
        let shown = show(&root, filter, &mut |record, line| {
            assert!(line.ends_with(b"\"}\n"));
            found.push(Entry::of_record(&record.to_record()));
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(shown, Shown { records: found.len() as u64, unfinished: None });
        found
    };
    let kind = ShowFilter { kind: Some("run.".to_string()), ..ShowFilter::default() };
    assert_eq!(collect(&kind), entries);
    let exact = ShowFilter { kind: Some("run.not".to_string()), ..ShowFilter::default() };
    assert_eq!(collect(&exact), Vec::new());
    let run = ShowFilter { run: RunId::parse("run-2"), ..ShowFilter::default() };
    let expected: Vec<Entry> = entries.iter().filter(|entry| entry.run == run.run).cloned().collect();
    assert_eq!(collect(&run), expected);
    let session = ShowFilter { session: SessionId::parse("none").ok(), ..ShowFilter::default() };
    assert_eq!(collect(&session), Vec::new());
    for index in [0, 7, entries.len() - 1] {
        let (from, to) = (entries[index].seq, entries[(index + 5).min(entries.len() - 1)].seq);
        let range = ShowFilter { from: Some(from), to: Some(to), ..kind.clone() };
        let expected: Vec<Entry> = entries.iter().filter(|entry| (from..=to).contains(&entry.seq)).cloned().collect();
        assert_eq!(collect(&range), expected);
        let limited = ShowFilter { limit: Some(2), ..range };
        assert_eq!(collect(&limited), expected[..2.min(expected.len())]);
    }
    drop(journal);
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn a_seal_is_checked_by_openssl_and_a_chain_value_by_sha256sum() {
    let tools = ["openssl", "sha256sum", "xxd", "sh"];
    let present = |tool: &&str| {
        Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().is_ok_and(|o| o.status.success())
    };
    if !tools.iter().all(present) {
        eprintln!("skipped: {tools:?} are not all installed");
        return;
    }
    let root = root("openssl");
    let (mut journal, _) = open(&root);
    fill(&mut journal, 3);
    journal.close(NOW_MS).unwrap();
    fs::write(root.join("audit-signing.pub.pem"), signer().public().to_pem()).unwrap();
    // The commands of docs/journal-format.md, word for word.
    let documentation =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/journal-format.md")).unwrap();
    let scripts: Vec<&str> =
        documentation.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(scripts.len(), 2, "one script for the chain and one for a seal");
    for (script, expected) in scripts.iter().zip(["chain good", "Signature Verified Successfully"]) {
        let output = Command::new("sh").args(["-eu", "-c", script]).current_dir(&root).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(expected), "{script}\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    fs::remove_dir_all(root).unwrap();
}
