//! Calls that fail with EIO or ENOSPC, once and for good, at every place: no panic, nothing acknowledged is lost,
//! a refused batch never comes back, a failed sync ends writing, a full disk does not.

mod journal_support;

use journal_support::{Action, Entry, Log, NOW_MS, Promises, actions, draft, open, options, seeds, signer};
use kheish_daemon::journal::fake_disk::{FakeDisk, FaultMode, Op};
use kheish_daemon::journal::{Draft, Journal, JournalError, Restore};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

struct World {
    disk: FakeDisk,
    now_ms: u64,
    journal: Option<Journal>,
    log: Log,
    promises: Promises,
    /// Power cuts instead of mere restarts after a failure.
    cuts: bool,
}

impl World {
    /// Starts again until it works; the fault is healed after the first refusal.
    fn boot(&mut self) {
        for _ in 0..4 {
            self.now_ms += 1_000;
            match open(&self.disk, self.now_ms) {
                Ok((journal, _, log)) => {
                    let checked = self.promises.check(&log, &journal.reader());
                    checked.unwrap_or_else(|broken| panic!("{broken}"));
                    (self.log, self.journal) = (log, Some(journal));
                    return;
                }
                Err(JournalError::Damaged { .. } | JournalError::SnapshotContradicts { .. }) => {
                    panic!("a failed call was taken for damage");
                }
                Err(_) => self.restart(),
            }
        }
        panic!("the journal did not open after the fault was healed");
    }

    fn restart(&mut self) {
        self.journal = None;
        self.disk.heal();
        match self.cuts {
            true => self.disk.crash(),
            false => self.disk.restart(),
        }
    }

    fn append(&mut self, records: u64, body_bytes: usize) {
        let journal = self.journal.as_mut().expect("booted");
        let first = journal.next_seq();
        let drafts: Vec<Draft> = (first..first + records).map(|seq| draft(seq, body_bytes)).collect();
        let entries: Vec<Entry> = drafts.iter().map(Entry::of_draft).collect();
        match journal.append(&drafts) {
            Ok(()) => {
                self.log.entries.extend(entries.clone());
                self.promises.acknowledged.extend(entries);
            }
            Err(JournalError::Full { .. } | JournalError::WriteFailed { .. }) => {
                assert_eq!(journal.next_seq(), first, "a refused batch uses no position");
            }
            Err(JournalError::Poisoned { .. }) => {
                self.promises.open = entries;
                let again = journal.append(&drafts);
                assert!(matches!(again, Err(JournalError::Poisoned { .. })), "a poisoned journal went on: {again:?}");
                assert!(journal.poisoned().is_some());
                self.restart();
                self.boot();
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn act(&mut self, action: Action) {
        self.now_ms += 700;
        match action {
            Action::Append { records, body_bytes } => return self.append(records, body_bytes),
            Action::Maintain => {
                // Its failures show in the next append.
                drop(self.journal.as_mut().expect("booted").maintain(self.now_ms));
                return;
            }
            Action::Snapshot => {
                let journal = self.journal.as_ref().expect("booted");
                // A failed snapshot costs time at the next start, nothing else.
                drop(journal.snapshot_writer().write(&journal.head(), self.now_ms, &mut self.log.lines()));
                return;
            }
            Action::CloseAndOpen => drop(self.journal.take().expect("booted").close(self.now_ms)),
            Action::KillAndOpen => {
                self.journal = None;
                self.disk.restart();
            }
        }
        self.boot();
    }
}

fn sweep_one(seed: u64, n: u64, errno: i32, mode: FaultMode, workload: &[Action]) {
    let disk = FakeDisk::new(seed ^ n << 8);
    disk.fail_at(n, errno, mode);
    let (log, promises, cuts) = (Log::default(), Promises::default(), n.is_multiple_of(2));
    let mut world = World { disk, now_ms: NOW_MS, journal: None, log, promises, cuts };
    world.boot();
    for action in workload {
        world.act(*action);
    }
    world.disk.heal();
    for _ in 0..2 {
        world.append(2, 100);
    }
    let acknowledged = world.promises.acknowledged.len();
    world.journal = None;
    world.disk.crash();
    world.boot();
    assert_eq!(world.promises.acknowledged.len(), acknowledged, "a refused batch came back");
}

#[test]
fn a_failing_call_loses_nothing_acknowledged_and_brings_nothing_refused_back() {
    for seed in seeds(8) {
        let workload = actions(seed, 14);
        let mut calls = FakeDisk::new(seed).calls();
        {
            let disk = FakeDisk::new(seed);
            let (log, promises) = (Log::default(), Promises::default());
            let mut world = World { disk, now_ms: NOW_MS, journal: None, log, promises, cuts: false };
            world.boot();
            workload.iter().for_each(|action| world.act(*action));
            calls += world.disk.calls();
        }
        for n in (1 + seed % 3..=calls).step_by(3) {
            for errno in [EIO, ENOSPC] {
                for mode in [FaultMode::Once, FaultMode::ForGood] {
                    let run = || sweep_one(seed, n, errno, mode, &workload);
                    std::panic::catch_unwind(run).unwrap_or_else(|_| {
                        panic!("seed {seed}, call {n} of {calls}, errno {errno}, {mode:?}; KHEISH_SIM_SEED={seed}");
                    });
                }
            }
        }
    }
}

fn batch(journal: &Journal, records: u64) -> Vec<Draft> {
    let first = journal.next_seq();
    (first..first + records).map(|seq| draft(seq, 300)).collect()
}

#[test]
fn a_failed_write_is_cut_back_and_the_next_append_succeeds() {
    for errno in [EIO, ENOSPC] {
        let disk = FakeDisk::new(1);
        let (mut journal, _, _) = open(&disk, NOW_MS).unwrap();
        journal.append(&batch(&journal, 2)).unwrap();
        disk.fail_ops_at(&[Op::Write], 1, errno, FaultMode::Once);
        let refused = batch(&journal, 5);
        let error = journal.append(&refused).expect_err("the write failed");
        assert_eq!(matches!(error, JournalError::Full { .. }), errno == ENOSPC, "{error}");
        assert!(error.to_string().contains("next: "), "{error}");
        journal.append(&batch(&journal, 1)).expect("the disk works again");
        let committed = journal.reader().committed();
        disk.crash();
        let (journal, _, log) = open(&disk, NOW_MS).unwrap();
        assert_eq!((log.entries.len(), log.entries[2].seq), (3, committed));
        drop(journal);
    }
}

#[test]
fn a_refused_batch_does_not_come_back_after_a_power_cut() {
    for seed in 0..100 {
        let disk = FakeDisk::new(seed);
        let (mut journal, _, _) = open(&disk, NOW_MS).unwrap();
        journal.append(&batch(&journal, 2)).unwrap();
        disk.fail_ops_at(&[Op::Write], 1, EIO, FaultMode::Once);
        journal.append(&batch(&journal, 1)).expect_err("the write failed");
        drop(journal);
        disk.crash();
        assert_eq!(open(&disk, NOW_MS).unwrap().2.entries.len(), 2, "seed {seed}");
    }
}

#[test]
fn a_failed_sync_poisons_until_a_restart_whatever_its_error() {
    for errno in [EIO, ENOSPC] {
        let disk = FakeDisk::new(2);
        let (mut journal, _, _) = open(&disk, NOW_MS).unwrap();
        let committed = journal.reader().committed();
        disk.fail_ops_at(&[Op::Sync], 1, errno, FaultMode::Once);
        let drafts = batch(&journal, 2);
        assert!(matches!(journal.append(&drafts), Err(JournalError::Poisoned { .. })));
        assert!(matches!(journal.append_from_reserve(&drafts), Err(JournalError::Poisoned { .. })));
        assert!(matches!(journal.maintain(NOW_MS * 2), Err(JournalError::Poisoned { .. })));
        assert!(journal.poisoned().is_some_and(|reason| reason.contains("sync")));
        assert_eq!(journal.reader().committed(), committed, "a batch of unknown fate is not shown");
        assert!(matches!(journal.close(NOW_MS), Err(JournalError::Poisoned { .. })));
        disk.restart();
        // The process restarts without a power cut: reads show the batch, although the medium may not have it.
        let (journal, _, log) = open(&disk, NOW_MS).unwrap();
        assert_eq!(log.entries.len(), 2, "a whole batch that can be read is accepted");
        drop(journal);
        disk.crash();
        let (_, _, log) = open(&disk, NOW_MS).unwrap();
        assert_eq!(log.entries.len(), 2, "what a recovery showed is on the medium");
    }
}

#[test]
fn without_space_for_a_fresh_file_the_tail_is_made_safe_where_it_is() {
    // A batch of unknown fate, read back after a restart on a disk where nothing can be created.
    let disk = FakeDisk::new(6);
    let (mut journal, _, _) = open(&disk, NOW_MS).unwrap();
    journal.append(&batch(&journal, 2)).unwrap();
    disk.fail_ops_at(&[Op::Sync], 1, EIO, FaultMode::Once);
    assert!(journal.append(&batch(&journal, 3)).is_err());
    drop(journal);
    disk.restart();
    disk.fail_ops_at(&[Op::Create], 1, ENOSPC, FaultMode::ForGood);
    let (journal, recovery, log) = open(&disk, NOW_MS).unwrap();
    assert_eq!((log.entries.len(), recovery.reserve_is_intact), (5, false));
    drop(journal);
    disk.crash();
    assert_eq!(open(&disk, NOW_MS).unwrap().2.entries.len(), 5, "what a recovery showed is on the medium");
}

#[test]
fn a_torn_tail_that_is_cut_in_place_leaves_nothing_behind_it() {
    for seed in 0..40 {
        let disk = FakeDisk::new(seed);
        let (mut journal, _, _) = open(&disk, NOW_MS).unwrap();
        journal.append(&batch(&journal, 2)).unwrap();
        let drafts = batch(&journal, 12);
        disk.crash_at(1);
        assert!(journal.append(&drafts).is_err());
        drop(journal);
        disk.crash();
        disk.fail_ops_at(&[Op::Create], 1, ENOSPC, FaultMode::ForGood);
        let (mut journal, _, log) = open(&disk, NOW_MS).unwrap();
        let (found, segment) = (log.entries.len(), journal.reader().segments()[0]);
        assert!(found == 2 || found == 14, "a part of a batch is visible");
        let bytes = disk.contents(&format!("journal/{:020}.jsonl", segment.first)).unwrap();
        assert!(
            bytes[segment.bytes as usize..].iter().all(|byte| *byte == 0),
            "seed {seed}: bytes stay behind the tail"
        );
        // A torn batch at this place must again be a torn batch.
        let drafts = batch(&journal, 1);
        disk.crash_at(1);
        assert!(journal.append_from_reserve(&drafts).is_err());
        drop(journal);
        disk.crash();
        let (_, _, log) = open(&disk, NOW_MS).unwrap();
        assert!(log.entries.len() == found || log.entries.len() == found + 1);
    }
}

#[test]
fn an_append_costs_one_write_and_one_sync() {
    let disk = FakeDisk::new(7);
    let (mut journal, _, _) = open(&disk, NOW_MS).unwrap();
    for records in 1..5 {
        let before = disk.calls();
        journal.append(&batch(&journal, records)).unwrap();
        let trace = disk.trace();
        let [.., write, sync] = trace.as_slice() else { panic!("{trace:?}") };
        assert_eq!(disk.calls() - before, 2, "{trace:?}");
        assert!(write.contains(" Write ") && sync.contains(" Sync "), "{trace:?}");
    }
}

#[test]
fn a_batch_larger_than_any_may_be_is_refused_and_leaves_nothing() {
    let disk = FakeDisk::new(8);
    let (mut journal, _, _) = open(&disk, NOW_MS).unwrap();
    let (calls, first) = (disk.calls(), journal.next_seq());
    let drafts: Vec<Draft> = (first..first + 3).map(|seq| draft(seq, 30_000_000)).collect();
    assert!(matches!(journal.append(&drafts), Err(JournalError::TooLarge { .. })));
    assert_eq!((disk.calls(), journal.next_seq()), (calls, first));
    journal.append(&batch(&journal, 1)).unwrap();
}

#[test]
fn a_full_disk_refuses_normal_work_serves_containment_and_heals_by_itself() {
    let disk = FakeDisk::new(3);
    let (mut journal, _, _) = open(&disk, NOW_MS).unwrap();
    disk.limit_bytes(Some(disk.used_bytes() + 50_000));
    let mut appended = 0;
    let full = loop {
        match journal.append(&batch(&journal, 4)) {
            Ok(()) => appended += 4,
            Err(error) => break error,
        }
        assert!(appended < 10_000, "the disk never filled up");
    };
    assert!(matches!(full, JournalError::Full { .. }), "{full}");
    assert!(!journal.reserve_is_intact());
    journal.maintain(NOW_MS).expect("a full disk is no failure of the upkeep");
    let reader = journal.reader();
    let newest = reader.read(reader.committed()).expect("reads go on");
    assert!(newest.seq > 0);
    for _ in 0..5 {
        journal.append_from_reserve(&batch(&journal, 1)).expect("the reserve serves containment");
        appended += 1;
        assert!(matches!(journal.append(&batch(&journal, 1)), Err(JournalError::Full { .. })));
    }
    // A restart on the full disk works as well, and still refuses.
    drop(journal);
    disk.crash();
    let (mut journal, recovery, log) = open(&disk, NOW_MS).unwrap();
    assert_eq!((log.entries.len(), recovery.torn), (appended, None));
    assert!(!recovery.reserve_is_intact);
    assert!(matches!(journal.append(&batch(&journal, 1)), Err(JournalError::Full { .. })));
    journal.append_from_reserve(&batch(&journal, 1)).expect("the reserve serves containment after a restart");
    disk.limit_bytes(None);
    journal.append(&batch(&journal, 1)).expect("service resumes by itself");
    assert!(journal.reserve_is_intact());
    journal.close(NOW_MS).unwrap();
    assert_eq!(open(&disk, NOW_MS).unwrap().2.entries.len(), appended + 2);
}

#[test]
fn a_full_disk_is_used_up_to_the_last_byte_without_harm() {
    let disk = FakeDisk::new(4);
    let (mut journal, _, _) = open(&disk, NOW_MS).unwrap();
    disk.limit_bytes(Some(disk.used_bytes()));
    let mut appended = 0;
    while journal.append_from_reserve(&batch(&journal, 1)).is_ok() {
        appended += 1;
        assert!(appended < 10_000, "the disk never filled up");
    }
    assert_eq!(journal.poisoned(), None, "a lack of space never poisons");
    journal.close(NOW_MS).unwrap();
    disk.crash();
    // Not one byte is left: the start says so, and works once there is space.
    match open(&disk, NOW_MS) {
        Ok((_, _, log)) => assert_eq!(log.entries.len(), appended),
        Err(error) => assert!(matches!(error, JournalError::Full { .. }), "{error}"),
    }
    disk.limit_bytes(None);
    disk.crash();
    assert_eq!(open(&disk, NOW_MS).unwrap().2.entries.len(), appended);
}

#[test]
fn a_failed_snapshot_leaves_the_one_before() {
    let disk = FakeDisk::new(5);
    let (mut journal, _, mut log) = open(&disk, NOW_MS).unwrap();
    journal.append(&batch(&journal, 3)).unwrap();
    log.reset();
    let writer = journal.snapshot_writer();
    let before = journal.head();
    writer.write(&before, NOW_MS, &mut [b"{\"state\":1}".to_vec()].into_iter()).unwrap();
    journal.append(&batch(&journal, 3)).unwrap();
    for n in 1..=4 {
        disk.fail_at(n, EIO, FaultMode::Once);
        let lines = &mut [b"{\"state\":2}".to_vec()].into_iter();
        let error = writer.write(&journal.head(), NOW_MS, lines).expect_err("one of its calls failed");
        assert!(error.to_string().contains("next: "), "{error}");
        disk.heal();
    }
    disk.restart();
    struct Lines(Vec<Vec<u8>>);
    impl Restore for Lines {
        fn reset(&mut self) {
            self.0.clear();
        }
        fn snapshot_line(&mut self, line: &[u8]) -> Result<(), String> {
            self.0.push(line.to_vec());
            Ok(())
        }
        fn record(&mut self, _: &kheish_daemon::journal::RecordRef<'_>) -> Result<(), String> {
            Ok(())
        }
    }
    let mut lines = Lines(Vec::new());
    let opened = Journal::open(disk.handle(), disk.snapshots(), options(), signer(), NOW_MS, &mut lines);
    let (_, recovery) = opened.unwrap();
    assert!(recovery.snapshot.is_some_and(|seq| seq >= before.seq), "{recovery:?}");
    assert_eq!(lines.0.len(), 1);
}
