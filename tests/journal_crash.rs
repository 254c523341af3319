//! Power cuts at every call that changes the disk: nothing acknowledged is lost, nothing is half visible, a replay
//! equals the live state, no position is used twice. Replay one seed with KHEISH_SIM_SEED.

mod journal_support;

use journal_support::{Action, Entry, Log, NOW_MS, Promises, actions, draft, open, seeds};
use kheish_daemon::journal::fake_disk::FakeDisk;
use kheish_daemon::journal::{Draft, Journal, JournalError};

struct World {
    disk: FakeDisk,
    now_ms: u64,
    journal: Option<Journal>,
    log: Log,
    promises: Promises,
}

impl World {
    fn new(disk: FakeDisk) -> Self {
        Self { disk, now_ms: NOW_MS, journal: None, log: Log::default(), promises: Promises::default() }
    }

    /// Opens and holds the state against what was promised; an error is the power cut's.
    fn boot(&mut self) -> Result<(), JournalError> {
        self.now_ms += 1_000;
        let (journal, _, log) = open(&self.disk, self.now_ms)?;
        self.powered()?;
        let checked = self.promises.check(&log, &journal.reader());
        checked.unwrap_or_else(|broken| panic!("{broken}"));
        (self.log, self.journal) = (log, Some(journal));
        Ok(())
    }

    /// Upkeep after a commit and the reserve of an opening may meet the cut without failing the call.
    fn powered(&self) -> Result<(), JournalError> {
        match self.disk.is_off() {
            true => Err(JournalError::Poisoned { reason: "the power was cut".to_string() }),
            false => Ok(()),
        }
    }

    fn act(&mut self, action: Action) -> Result<(), JournalError> {
        self.now_ms += 700;
        let journal = self.journal.as_mut().expect("booted");
        match action {
            Action::Append { records, body_bytes } => {
                let first = journal.next_seq();
                let drafts: Vec<Draft> = (first..first + records).map(|seq| draft(seq, body_bytes)).collect();
                self.promises.open = drafts.iter().map(Entry::of_draft).collect();
                journal.append(&drafts)?;
                self.log.entries.append(&mut self.promises.open.clone());
                self.promises.acknowledged.append(&mut self.promises.open);
                Ok(())
            }
            Action::Maintain => journal.maintain(self.now_ms).map(drop),
            Action::Snapshot => {
                let writer = journal.snapshot_writer();
                writer.write(&journal.head(), self.now_ms, &mut self.log.lines())
            }
            Action::CloseAndOpen => {
                self.journal.take().expect("booted").close(self.now_ms)?;
                self.boot()
            }
            Action::KillAndOpen => {
                self.journal = None;
                self.disk.restart();
                self.boot()
            }
        }
    }

    /// What was acknowledged last is what a reader sees.
    fn newest_is_readable(&mut self) {
        let (Some(journal), Some(newest)) = (&self.journal, self.promises.acknowledged.last()) else { return };
        let record = journal.reader().read(newest.seq).expect("an acknowledged record is readable");
        assert_eq!(&Entry::of_record(&record), newest);
        self.promises.visible.insert(newest.seq, newest.clone());
    }

    /// Runs until the power is cut or the actions end.
    fn run(&mut self, actions: &[Action]) -> Result<(), JournalError> {
        self.boot()?;
        for action in actions {
            self.act(*action)?;
            self.powered()?;
            self.newest_is_readable();
        }
        Ok(())
    }
}

/// Runs the workload of `seed` with a power cut in its `cut`th call, then boots through further cuts until an
/// opening succeeds, and goes on for a while. Returns whether the cut came.
fn cut_at(seed: u64, cut: u64, workload: &[Action]) -> bool {
    let disk = FakeDisk::new(seed.wrapping_mul(1_000_003) ^ cut);
    let mut world = World::new(disk.clone());
    disk.crash_at(cut);
    let outcome = world.run(workload);
    if !disk.is_off() {
        outcome.expect("without a power cut nothing fails");
        return false;
    }
    // A cut during the second opening as well, at a call that depends on the first.
    world.journal = None;
    disk.crash();
    disk.crash_at(1 + cut % 9);
    let reopened = world.boot();
    if disk.is_off() {
        world.journal = None;
        disk.crash();
        world.boot().expect("a power cut never makes a state root unreadable");
    } else {
        reopened.expect("a power cut never makes a state root unreadable");
    }
    disk.crash_at(u64::MAX / 2);
    for action in &workload[..6] {
        world.act(*action).expect("after a recovery everything works");
    }
    world.journal = None;
    disk.crash();
    world.boot().expect("what a recovery left survives the next cut");
    true
}

/// Runs `test` so that a failure names the seed and the call.
fn named(seed: u64, cut: u64, test: impl FnOnce() -> bool + std::panic::UnwindSafe) -> bool {
    std::panic::catch_unwind(test).unwrap_or_else(|_| {
        panic!("seed {seed}, power cut in call {cut}; replay with KHEISH_SIM_SEED={seed}");
    })
}

/// The number of calls of a workload without a cut.
fn calls_of(seed: u64, workload: &[Action]) -> u64 {
    let disk = FakeDisk::new(seed);
    World::new(disk.clone()).run(workload).expect("without a power cut nothing fails");
    disk.calls()
}

#[test]
fn no_acknowledged_record_is_lost_at_any_call_of_a_long_run() {
    let seed = 1;
    let workload = actions(seed, 25);
    let calls = calls_of(seed, &workload);
    assert!(calls > 80, "the workload has only {calls} calls");
    for cut in 1..=calls {
        assert!(named(seed, cut, || cut_at(seed, cut, &workload)), "call {cut} of {calls} did not come");
    }
}

#[test]
fn no_acknowledged_record_is_lost_over_many_seeds() {
    let one_seed = std::env::var("KHEISH_SIM_SEED").is_ok();
    for seed in seeds(200) {
        let workload = actions(seed, 14);
        let calls = calls_of(seed, &workload);
        let step = if one_seed { 1 } else { 1 + calls / 3 };
        for cut in (1 + seed % step..=calls).step_by(step as usize) {
            assert!(named(seed, cut, || cut_at(seed, cut, &workload)), "call {cut} of {calls} did not come");
        }
    }
}
