//! A cut of a journal that is being written: its bytes never change, end with a seal, and are a journal of their own.

mod journal_support;

use journal_support::{Entry, NOW_MS, draft, open, options, signer};
use kheish_daemon::journal::fake_disk::{FakeDisk, FaultMode, Op};
use kheish_daemon::journal::{Cut, Journal, JournalError, OpenCause, RESTORED, RecordRef, cut_of, segment_file};

fn append(journal: &mut Journal, records: u64) -> Vec<Entry> {
    let first = journal.next_seq();
    let drafts: Vec<_> = (first..first + records).map(|seq| draft(seq, 700)).collect();
    journal.append(&drafts).unwrap();
    drafts.iter().map(Entry::of_draft).collect()
}

/// The bytes that a cut names, by file name.
fn bytes_of(disk: &FakeDisk, cut: &Cut) -> Vec<(String, Vec<u8>)> {
    let of = |first, bytes: u64| {
        let name = segment_file(first);
        let content = disk.contents(&format!("journal/{name}")).expect("a segment of the cut");
        (name, content[..bytes as usize].to_vec())
    };
    cut.segments.iter().map(|segment| of(segment.first, segment.bytes)).collect()
}

/// A disk with nothing but these files.
fn copy(files: &[(String, Vec<u8>)]) -> FakeDisk {
    let disk = FakeDisk::new(99);
    for (name, bytes) in files {
        disk.put(&format!("journal/{name}"), bytes);
    }
    disk.put(&format!("journal/{RESTORED}"), b"");
    disk
}

#[test]
fn what_a_cut_names_never_changes_and_is_a_journal_that_ends_with_its_seal() {
    let disk = FakeDisk::new(1);
    let (mut journal, _, _) = open(&disk, NOW_MS).unwrap();
    let mut entries = Vec::new();
    for round in 0..25 {
        entries.extend(append(&mut journal, 1 + round % 5));
        let cut = journal.cut(NOW_MS).unwrap();
        assert!(cut.is_consistent());
        assert_eq!(
            (cut.seq, cut.sealed_seq),
            (journal.head().seq, journal.head().seq - 1),
            "it ends with its own seal"
        );
        // A second one finds nothing that is not sealed.
        assert_eq!(journal.cut(NOW_MS).unwrap(), cut);
        let files = bytes_of(&disk, &cut);
        let before = entries.clone();

        // Written on, over a rotation now and then; on some rounds a restart rewrites the tail.
        entries.extend(append(&mut journal, 4));
        if round % 6 == 5 {
            journal.close(NOW_MS).unwrap();
            journal = open(&disk, NOW_MS).unwrap().0;
        }
        assert_eq!(bytes_of(&disk, &cut), files, "round {round}");

        let copied = copy(&files);
        assert_eq!(cut_of(&*copied.handle()).unwrap(), Some(cut.clone()), "round {round}");
        let (_, recovery, log) = open(&copied, NOW_MS + 5_000_000).unwrap();
        assert_eq!((recovery.cause, recovery.torn), (OpenCause::Copied, None));
        assert_eq!(log.entries, before, "round {round}");
    }
    assert!(journal.cut(NOW_MS).unwrap().segments.len() > 2, "the workload fills several segments");
}

#[test]
fn the_cut_of_a_stopped_journal_leaves_out_what_was_torn() {
    let disk = FakeDisk::new(2);
    let (mut journal, _, _) = open(&disk, NOW_MS).unwrap();
    append(&mut journal, 3);
    let cut = journal.cut(NOW_MS).unwrap();
    drop(journal);
    let name = format!("journal/{}", segment_file(cut.segments.last().unwrap().first));
    let mut bytes = disk.contents(&name).unwrap();
    let end = cut.segments.last().unwrap().bytes as usize;
    let torn = br#"{"seq":1,"at_ms":"#;
    bytes[end..end + torn.len()].copy_from_slice(torn);
    disk.put(&name, &bytes);
    assert_eq!(cut_of(&*disk.handle()).unwrap(), Some(cut));
    assert_eq!(cut_of(&*FakeDisk::new(3).handle()).unwrap(), None);
}

#[test]
fn a_restored_journal_begins_a_new_epoch_even_where_every_identity_is_the_same() {
    let disk = FakeDisk::new(4);
    let (mut journal, first, _) = open(&disk, NOW_MS).unwrap();
    let entries = append(&mut journal, 2);
    journal.close(NOW_MS).unwrap();
    disk.put(&format!("journal/{RESTORED}"), b"");
    // It is looked for until the new epoch is durable, and then gone.
    let (journal, recovery, log) = open(&disk, NOW_MS + 5_000_000).unwrap();
    assert_eq!((recovery.cause, log.entries), (OpenCause::Copied, entries));
    assert!(recovery.epoch > first.epoch);
    assert!(disk.contents(&format!("journal/{RESTORED}")).is_none());
    journal.close(NOW_MS).unwrap();
    let (_, again, _) = open(&disk, NOW_MS + 6_000_000).unwrap();
    assert_eq!((again.cause, again.epoch), (OpenCause::Reopened, recovery.epoch));
}

#[test]
fn a_poisoned_journal_gives_no_cut() {
    struct Nothing;
    impl kheish_daemon::journal::Restore for Nothing {
        fn reset(&mut self) {}
        fn snapshot_line(&mut self, _: &[u8]) -> Result<(), String> {
            Ok(())
        }
        fn record(&mut self, _: &RecordRef<'_>) -> Result<(), String> {
            Ok(())
        }
    }
    let disk = FakeDisk::new(5);
    let (mut journal, _) =
        Journal::open(disk.handle(), disk.snapshots(), options(), signer(), NOW_MS, &mut Nothing).unwrap();
    append(&mut journal, 1);
    disk.fail_ops_at(&[Op::Sync], 1, 5, FaultMode::Once);
    assert!(matches!(journal.cut(NOW_MS), Err(JournalError::Poisoned { .. })));
    assert!(matches!(journal.cut(NOW_MS), Err(JournalError::Poisoned { .. })));
}
