//! What a start makes of what it finds: torn tails are cut, damage is refused, snapshots are checked, a copy begins
//! a new epoch.

mod journal_support;

use journal_support::{Entry, Log, NOW_MS, draft, everything, open, options, signer};
use kheish_daemon::audit::key::SigningKey;
use kheish_daemon::ids::Seq;
use kheish_daemon::journal::fake_disk::{FakeDisk, Random};
use kheish_daemon::journal::{Journal, JournalError, OpenCause, Place, ReadError, Recovered};

/// A journal of several segments, closed; returns what was appended.
fn filled(disk: &FakeDisk, batches: u64) -> Vec<Entry> {
    let (mut journal, _, log) = open(disk, NOW_MS).unwrap();
    let mut entries = log.entries;
    for batch in 0..batches {
        append(&mut journal, 1 + batch % 4, 900, &mut entries);
    }
    journal.close(NOW_MS).unwrap();
    entries
}

fn append(journal: &mut Journal, records: u64, body_bytes: usize, entries: &mut Vec<Entry>) {
    let first = journal.next_seq();
    let drafts: Vec<_> = (first..first + records).map(|seq| draft(seq, body_bytes)).collect();
    journal.append(&drafts).unwrap();
    entries.extend(drafts.iter().map(Entry::of_draft));
}

fn segments(disk: &FakeDisk) -> Vec<String> {
    let mut names: Vec<String> =
        disk.handle().list().unwrap().into_iter().filter(|name| name.ends_with(".jsonl")).collect();
    names.sort();
    names
}

fn path(name: &str) -> String {
    format!("journal/{name}")
}

fn change(disk: &FakeDisk, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = disk.contents(&path(name)).unwrap();
    change(&mut bytes);
    disk.put(&path(name), &bytes);
}

fn refusal(disk: &FakeDisk) -> (String, u64, String) {
    match open(disk, NOW_MS) {
        Err(JournalError::Damaged { path, offset, cause, .. }) => (path.display().to_string(), offset, cause),
        Err(other) => panic!("{other}"),
        Ok((_, recovery, _)) => panic!("damage went unnoticed: {recovery:?}"),
    }
}

#[test]
fn a_clean_close_leaves_plain_jsonl_without_padding() {
    let disk = FakeDisk::new(1);
    filled(&disk, 12);
    assert!(segments(&disk).len() > 1, "the workload fills several segments");
    for name in segments(&disk) {
        let text = String::from_utf8(disk.contents(&path(&name)).unwrap()).unwrap();
        assert!(text.ends_with("\"}\n"), "{name} ends with a whole line");
        for line in text.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(value["seq"].is_u64() && value["body"].is_object() && value["chain"].is_string());
        }
    }
    let (_, recovery, _) = open(&disk, NOW_MS).unwrap();
    assert_eq!((recovery.cause, recovery.torn), (OpenCause::Reopened, None));
}

#[test]
fn every_length_of_a_torn_last_batch_is_cut_and_reported() {
    let disk = FakeDisk::new(2);
    let (mut journal, _, _) = open(&disk, NOW_MS).unwrap();
    let mut entries = Vec::new();
    append(&mut journal, 2, 50, &mut entries);
    let start = journal.reader().segments()[0].bytes as usize;
    let mut torn = Vec::new();
    append(&mut journal, 2, 50, &mut torn);
    let end = journal.reader().segments()[0].bytes as usize;
    drop(journal);
    let name = segments(&disk)[0].clone();
    let whole = disk.contents(&path(&name)).unwrap();
    for length in start..end {
        let mut bytes = whole.clone();
        bytes[length..end].fill(0);
        let disk = FakeDisk::new(2);
        // Same identities as on the machine that wrote it.
        let (journal, _, _) = open(&disk, NOW_MS).unwrap();
        drop(journal);
        disk.put(&path(&name), &bytes);
        let (journal, recovery, log) = open(&disk, NOW_MS).unwrap();
        assert_eq!(log.entries, entries, "cut to {length} of {start}..{end}");
        let expected = (length > start).then_some((name.clone(), start as u64, (length - start) as u64));
        let reported = recovery.torn.clone().map(|torn| (torn.segment, torn.offset, torn.bytes));
        assert_eq!(reported, expected);
        let records = everything(&journal.reader());
        let written: Option<Recovered> = records
            .iter()
            .find(|entry| entry.kind == "journal.recovered")
            .map(|entry| serde_json::from_str(&entry.body).unwrap());
        assert_eq!(written, recovery.torn, "the cut is on record");
    }
}

#[test]
fn a_byte_changed_anywhere_before_the_last_batch_is_refused_with_its_file_and_offset() {
    let disk = FakeDisk::new(3);
    filled(&disk, 10);
    let names = segments(&disk);
    let sizes: Vec<usize> = names.iter().map(|name| disk.contents(&path(name)).unwrap().len()).collect();
    let mut random = Random(3);
    for round in 0..200 {
        let index = random.below(names.len() as u64) as usize;
        let bytes = disk.contents(&path(&names[index])).unwrap();
        // The last line of the last segment is its closing seal, whose damage cannot be told from a torn write.
        let bound = match index + 1 == names.len() {
            true => bytes[..sizes[index] - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1,
            false => sizes[index],
        };
        let at = random.below(bound as u64) as usize;
        let line = bytes[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << random.below(8);
        disk.put(&path(&names[index]), &damaged);
        let (file, offset, cause) = refusal(&disk);
        assert_eq!(file, path(&names[index]), "round {round}: {cause}");
        assert_eq!(offset, line as u64, "round {round}, byte {at}: {cause}");
        disk.put(&path(&names[index]), &bytes);
    }
    open(&disk, NOW_MS).expect("nothing was changed by the refusals");
}

#[test]
fn a_missing_or_shortened_segment_is_refused() {
    let disk = FakeDisk::new(4);
    filled(&disk, 24);
    let names = segments(&disk);
    assert!(names.len() >= 3);
    for name in &names[..names.len() - 1] {
        let bytes = disk.contents(&path(name)).unwrap();
        disk.handle().remove(name).unwrap();
        let (file, offset, cause) = refusal(&disk);
        assert_ne!(file, path(name));
        assert_eq!(offset, 0, "{cause}");
        disk.put(&path(name), &bytes);
        let shorter = bytes.len() - 700;
        change(&disk, name, |bytes| bytes.truncate(shorter));
        refusal(&disk);
        disk.put(&path(name), &[]);
        refusal(&disk);
        disk.put(&path(name), &bytes);
    }
    // Put back they count as restored, and nothing else is wrong.
    assert_eq!(open(&disk, NOW_MS).unwrap().1.torn, None);
}

#[test]
fn a_copy_begins_a_new_epoch_and_uses_no_position_of_the_original() {
    let disk = FakeDisk::new(6);
    let entries = filled(&disk, 9);
    let copy = disk.copied(7);
    let later = NOW_MS + 10_000;
    let (mut journal, recovery, log) = open(&copy, later).unwrap();
    assert_eq!((recovery.cause, &log.entries), (OpenCause::Copied, &entries));
    assert_eq!(u64::from(journal.epoch()), later / 1_000);
    assert_eq!(u64::from(journal.home_epoch()), NOW_MS / 1_000);
    assert_eq!(journal.next_seq() >> 32, later / 1_000);
    let mut own = entries.clone();
    append(&mut journal, 3, 10, &mut own);
    // The original goes on as well.
    let (mut original, recovery, _) = open(&disk, later).unwrap();
    assert_eq!(recovery.cause, OpenCause::Reopened);
    let mut others = entries.clone();
    append(&mut original, 3, 10, &mut others);
    let theirs = everything(&original.reader());
    let shared_to = entries.last().unwrap().seq;
    for entry in everything(&journal.reader()) {
        let clash = theirs.iter().find(|other| other.seq == entry.seq && **other != entry);
        assert!(clash.is_none() || entry.seq <= shared_to, "{entry:?} and {clash:?}");
    }
    // Cursors: positions of the other branch are recognised as foreign, the hole is skipped by a scan.
    let reader = journal.reader();
    assert_eq!(reader.place(original.reader().committed()), Place::Foreign);
    assert_eq!(reader.place(entries[0].seq), Place::Here);
    assert_eq!(reader.place(0), Place::Retired);
    assert_eq!(reader.place(reader.committed() + 1), Place::Ahead);
    let hole = original.reader().committed();
    assert_eq!(reader.scan(hole, 1).unwrap()[0].seq, u64::from(journal.epoch()) << 32 | 1);
    assert!(matches!(reader.read(hole), Err(ReadError::Absent { .. })));
    drop((journal, reader));
    copy.crash();
    // The copy stays where it is: no further epoch.
    let (journal, recovery, log) = open(&copy, later + 60_000).unwrap();
    assert_eq!((recovery.cause, &log.entries), (OpenCause::Reopened, &own));
    assert_eq!(u64::from(journal.epoch()), later / 1_000);
}

#[test]
fn two_copies_within_one_second_and_a_clock_set_back_still_move_forward() {
    let disk = FakeDisk::new(8);
    filled(&disk, 2);
    let mut epochs = vec![(NOW_MS / 1_000) as u32];
    let mut current = disk;
    for round in 0..4 {
        current = current.copied(round);
        let (journal, _, _) = open(&current, NOW_MS - 1_000_000 * round).unwrap();
        assert!(journal.epoch() > *epochs.last().unwrap());
        epochs.push(journal.epoch());
        journal.close(NOW_MS).unwrap();
    }
}

#[test]
fn files_restored_into_the_same_directory_begin_a_new_epoch_too() {
    let disk = FakeDisk::new(9);
    filled(&disk, 3);
    let name = segments(&disk).pop().unwrap();
    let bytes = disk.contents(&path(&name)).unwrap();
    let (mut journal, _, mut log) = open(&disk, NOW_MS).unwrap();
    append(&mut journal, 2, 10, &mut log.entries);
    journal.close(NOW_MS).unwrap();
    disk.handle().remove(&name).unwrap();
    disk.put(&path(&name), &bytes);
    let (_, recovery, _) = open(&disk, NOW_MS + 5_000).unwrap();
    assert_eq!(recovery.cause, OpenCause::Copied, "positions given out after the backup must not be given out again");
}

fn snapshot(journal: &Journal, log: &Log) -> Seq {
    let head = journal.head();
    journal.snapshot_writer().write(&head, NOW_MS, &mut log.lines()).unwrap();
    head.seq
}

#[test]
fn a_start_from_a_snapshot_equals_one_from_the_whole_journal() {
    for batches in [0, 1, 5, 30] {
        let disk = FakeDisk::new(10 + batches);
        let (mut journal, _, mut log) = open(&disk, NOW_MS).unwrap();
        for batch in 0..20 {
            append(&mut journal, 1 + batch % 70, 60, &mut log.entries);
        }
        let seq = snapshot(&journal, &log);
        for _ in 0..batches {
            append(&mut journal, 3, 800, &mut log.entries);
        }
        let before = everything(&journal.reader());
        drop(journal);
        disk.crash();
        let (journal, recovery, from_snapshot) = open(&disk, NOW_MS).unwrap();
        assert_eq!(recovery.snapshot, Some(seq), "{recovery:?}");
        assert!(recovery.records_replayed < before.len() as u64);
        assert_eq!(from_snapshot, log);
        assert_eq!(everything(&journal.reader())[..before.len()], before);
        drop(journal);
        for name in disk.snapshots().list().unwrap() {
            disk.snapshots().remove(&name).unwrap();
        }
        let (_, recovery, from_journal) = open(&disk, NOW_MS).unwrap();
        assert_eq!((recovery.snapshot, from_journal), (None, log));
    }
}

#[test]
fn a_damaged_foreign_or_forged_snapshot_is_passed_over_with_its_reason() {
    let disk = FakeDisk::new(20);
    let (mut journal, _, mut log) = open(&disk, NOW_MS).unwrap();
    append(&mut journal, 5, 60, &mut log.entries);
    let older = snapshot(&journal, &log);
    append(&mut journal, 5, 60, &mut log.entries);
    let newer = snapshot(&journal, &log);
    journal.close(NOW_MS).unwrap();
    let name = format!("snapshots/{newer:020}.json");
    let good = disk.contents(&name).unwrap();
    let mut random = Random(20);
    for _ in 0..150 {
        let mut bytes = good.clone();
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << random.below(8);
        disk.put(&name, &bytes);
        let (journal, recovery, found) = open(&disk, NOW_MS).unwrap();
        assert_eq!((recovery.snapshot, &found), (Some(older), &log), "byte {at}: {recovery:?}");
        assert_eq!(recovery.snapshots_skipped.len(), 1);
        drop(journal);
        disk.restart();
    }
    for length in [0, 1, good.len() / 2, good.len() - 1] {
        disk.put(&name, &good[..length]);
        assert_eq!(open(&disk, NOW_MS).unwrap().1.snapshot, Some(older), "cut to {length} bytes");
    }
    // Whole and well signed, by a key that is not ours.
    disk.put(&name, &good);
    let mut found = Log::default();
    let other = std::sync::Arc::new(SigningKey::from_seed(&[9; 32]));
    let opened = Journal::open(disk.handle(), disk.snapshots(), options(), other, NOW_MS, &mut found);
    let (_, recovery) = opened.unwrap();
    assert_eq!((recovery.snapshot, recovery.snapshots_skipped.len(), found), (None, 2, log));
}

#[test]
fn a_snapshot_of_records_that_the_journal_lacks_is_refused_and_in_a_copy_passed_over() {
    let disk = FakeDisk::new(21);
    let (mut journal, _, mut log) = open(&disk, NOW_MS).unwrap();
    append(&mut journal, 5, 60, &mut log.entries);
    let kept = journal.reader().segments()[0].bytes as usize;
    append(&mut journal, 5, 60, &mut log.entries);
    snapshot(&journal, &log);
    drop(journal);
    let name = segments(&disk)[0].clone();
    change(&disk, &name, |bytes| bytes[kept..].fill(0));
    match open(&disk, NOW_MS) {
        Err(JournalError::SnapshotContradicts { cause, .. }) => assert!(cause.contains("missing"), "{cause}"),
        other => panic!("{:?}", other.map(|(_, recovery, _)| recovery)),
    }
    // A backup taken file by file from a running daemon can look like this.
    let (_, recovery, found) = open(&disk.copied(1), NOW_MS).unwrap();
    assert_eq!((recovery.cause, recovery.snapshot), (OpenCause::Copied, None));
    assert_eq!(found.entries, log.entries[..5]);
}

#[test]
fn snapshots_without_a_journal_are_not_a_first_start() {
    let disk = FakeDisk::new(22);
    let (journal, _, log) = open(&disk, NOW_MS).unwrap();
    snapshot(&journal, &log);
    journal.close(NOW_MS).unwrap();
    for name in disk.handle().list().unwrap() {
        disk.handle().remove(&name).unwrap();
    }
    assert!(matches!(open(&disk, NOW_MS), Err(JournalError::SnapshotContradicts { .. })));
}

#[test]
fn the_two_newest_snapshots_are_kept() {
    let disk = FakeDisk::new(23);
    let (mut journal, _, mut log) = open(&disk, NOW_MS).unwrap();
    let mut written = Vec::new();
    for _ in 0..4 {
        append(&mut journal, 1, 10, &mut log.entries);
        written.push(snapshot(&journal, &log));
    }
    let mut names = disk.snapshots().list().unwrap();
    names.sort();
    assert_eq!(names, written[2..].iter().map(|seq| format!("{seq:020}.json")).collect::<Vec<_>>());
}

#[test]
fn a_record_that_the_state_does_not_understand_ends_the_start() {
    struct Picky;
    impl kheish_daemon::journal::Restore for Picky {
        fn reset(&mut self) {}
        fn snapshot_line(&mut self, _: &[u8]) -> Result<(), String> {
            Ok(())
        }
        fn record(&mut self, record: &kheish_daemon::journal::RecordRef<'_>) -> Result<(), String> {
            if record.kind == "run.note" { Err("unknown kind".to_string()) } else { Ok(()) }
        }
    }
    let disk = FakeDisk::new(24);
    let entries = filled(&disk, 1);
    let opened = Journal::open(disk.handle(), disk.snapshots(), options(), signer(), NOW_MS, &mut Picky);
    match opened.err().unwrap() {
        JournalError::NotUnderstood { seq, cause, .. } => {
            assert_eq!((seq, cause.as_str()), (entries[0].seq, "unknown kind"))
        }
        other => panic!("{other}"),
    }
}

#[test]
fn records_are_found_by_position_whatever_their_size_and_batch() {
    let disk = FakeDisk::new(25);
    let (mut journal, _, mut log) = open(&disk, NOW_MS).unwrap();
    let mut random = Random(25);
    for _ in 0..40 {
        let body_bytes = [5, 300, 40_000, 700_000][random.below(20).saturating_sub(16) as usize];
        append(&mut journal, 1 + random.below(90), body_bytes / 20, &mut log.entries);
    }
    append(&mut journal, 1, 3_000_000, &mut log.entries);
    append(&mut journal, 1, 1, &mut log.entries);
    let reader = journal.reader();
    for entry in &log.entries {
        assert_eq!(&Entry::of_record(&reader.read(entry.seq).unwrap()), entry);
    }
    let all = everything(&reader);
    let own: Vec<Entry> = all.iter().filter(|entry| !entry.is_journals_own()).cloned().collect();
    assert_eq!(own, log.entries);
    for bytes_max in [0, 1, 5_000] {
        let from = all[all.len() / 2].seq;
        let some = reader.scan(from, bytes_max).unwrap();
        assert!(!some.is_empty() && some[0].seq == from);
    }
    assert!(reader.scan(reader.committed() + 1, 1_000).unwrap().is_empty());
    assert!(matches!(reader.scan(1, 1_000), Err(ReadError::Retired { floor }) if floor == reader.floor()));
    assert!(matches!(reader.read(reader.committed() + 1), Err(ReadError::Absent { .. })));
}

#[test]
fn a_scrub_finds_what_changed_in_a_segment_behind_the_tail() {
    let disk = FakeDisk::new(26);
    let (mut journal, _, mut log) = open(&disk, NOW_MS).unwrap();
    while journal.reader().segments().len() < 3 {
        append(&mut journal, 2, 900, &mut log.entries);
    }
    let reader = journal.reader();
    for segment in reader.segments() {
        reader.rehash(segment.first).unwrap();
    }
    let name = segments(&disk)[0].clone();
    change(&disk, &name, |bytes| bytes[1_000] ^= 1);
    let first = reader.segments()[0].first;
    assert!(matches!(reader.rehash(first), Err(ReadError::Damaged { .. })));
}
