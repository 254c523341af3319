//! What the journal's tests share: a state that is simply the list of its records, and a seeded workload whose
//! oracle is that list.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use kheish_daemon::audit::key::SigningKey;
use kheish_daemon::ids::{RunId, Seq, SessionId};
use kheish_daemon::journal::fake_disk::{FakeDisk, Random};
use kheish_daemon::journal::{Draft, Journal, JournalError, Options, Reader, Record, RecordRef, Recovery, Restore};

/// 2025-11-25T08:00:00Z.
pub const NOW_MS: u64 = 1_764_057_600_000;

/// A record as the oracle keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub seq: Seq,
    pub kind: String,
    pub session: Option<String>,
    pub run: Option<RunId>,
    pub links: [Seq; 3],
    pub body: String,
}

impl Entry {
    pub fn of_draft(draft: &Draft) -> Self {
        Self {
            seq: draft.seq,
            kind: draft.kind.to_string(),
            session: draft.session.as_ref().map(|session| session.as_str().to_string()),
            run: draft.run,
            links: [draft.session_prev, draft.run_prev, draft.run_first],
            body: String::from_utf8(draft.body.clone()).unwrap(),
        }
    }

    pub fn of_record(record: &Record) -> Self {
        Self {
            seq: record.seq,
            kind: record.kind.clone(),
            session: record.session.as_ref().map(|session| session.as_str().to_string()),
            run: record.run,
            links: [record.session_prev, record.run_prev, record.run_first],
            body: record.body.get().to_string(),
        }
    }

    pub fn is_journals_own(&self) -> bool {
        self.kind.starts_with("journal.")
    }
}

/// The state: every record but the journal's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    pub entries: Vec<Entry>,
}

impl Log {
    pub fn lines(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.entries.iter().map(|entry| {
            let run = entry.run.map(|run| run.to_string());
            serde_json::to_vec(&(entry.seq, &entry.kind, &entry.session, run, entry.links, &entry.body)).unwrap()
        })
    }
}

impl Restore for Log {
    fn reset(&mut self) {
        self.entries.clear();
    }

    fn snapshot_line(&mut self, line: &[u8]) -> Result<(), String> {
        type Row = (Seq, String, Option<String>, Option<String>, [Seq; 3], String);
        let row: Row = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let (seq, kind, session, run, links, body) = row;
        let run = run.map(|run| RunId::parse(&run).expect("written by lines()"));
        self.entries.push(Entry { seq, kind, session, run, links, body });
        Ok(())
    }

    fn record(&mut self, record: &RecordRef<'_>) -> Result<(), String> {
        let entry = Entry::of_record(&record.to_record());
        if !entry.is_journals_own() {
            if self.entries.last().is_some_and(|last| last.seq >= entry.seq) {
                return Err(format!("record {} was shown twice or out of order", entry.seq));
            }
            self.entries.push(entry);
        }
        Ok(())
    }
}

pub fn signer() -> Arc<SigningKey> {
    Arc::new(SigningKey::from_seed(&[7; 32]))
}

/// Small segments and frequent seals, so that edges come often.
pub fn options() -> Options {
    Options { segment_bytes: 20 * 1024, seal_interval_ms: 5_000, seal_interval_records: 12, version: "test" }
}

pub fn open(disk: &FakeDisk, now_ms: u64) -> Result<(Journal, Recovery, Log), JournalError> {
    let mut log = Log::default();
    let (journal, recovery) = Journal::open(disk.handle(), disk.snapshots(), options(), signer(), now_ms, &mut log)?;
    Ok((journal, recovery, log))
}

/// Everything that a reader can see.
pub fn everything(reader: &Reader) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let from = entries.last().map_or_else(|| reader.floor(), |last| last.seq + 1);
        let records = reader.scan(from, 100_000).expect("committed records are readable");
        if records.is_empty() {
            return entries;
        }
        entries.extend(records.iter().map(Entry::of_record));
    }
}

pub fn draft(seq: Seq, body_bytes: usize) -> Draft {
    Draft {
        seq,
        at_ms: NOW_MS,
        kind: "run.note",
        session: Some(SessionId::parse("s\"1").unwrap()),
        run: RunId::parse("run-1"),
        session_prev: seq.saturating_sub(1),
        run_prev: 0,
        run_first: 3,
        by: None,
        body: format!("{{\"n\":{seq},\"text\":\"{}\"}}", "x".repeat(body_bytes)).into_bytes(),
    }
}

/// The seeds of a simulation: a fixed range, or the one in KHEISH_SIM_SEED.
pub fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("KHEISH_SIM_SEED") {
        Ok(seed) => vec![seed.parse().expect("KHEISH_SIM_SEED is a number")],
        Err(_) => (1..=count).collect(),
    }
}

/// What a run of the workload has been promised, to be held against what a restart shows.
#[derive(Debug, Default, Clone)]
pub struct Promises {
    /// Acknowledged batches, in order.
    pub acknowledged: Vec<Entry>,
    /// A batch whose outcome nobody was told: it may be there as a whole or not at all.
    pub open: Vec<Entry>,
    /// Batches that were refused for good.
    pub refused: Vec<Entry>,
    /// Everything that was ever visible, by position.
    pub visible: BTreeMap<Seq, Entry>,
}

impl Promises {
    /// Notes what a reader sees; nothing that was visible before may differ or be gone.
    pub fn observe(&mut self, reader: &Reader) -> Result<(), String> {
        let now: BTreeMap<Seq, Entry> = everything(reader).into_iter().map(|entry| (entry.seq, entry)).collect();
        for (seq, entry) in &self.visible {
            match now.get(seq) {
                Some(same) if same == entry => {}
                Some(other) => return Err(format!("position {seq} was {entry:?} and is {other:?}")),
                None => return Err(format!("position {seq}, {entry:?}, is gone")),
            }
        }
        self.visible = now;
        Ok(())
    }

    /// Holds a restart's state against what was promised.
    pub fn check(&mut self, log: &Log, reader: &Reader) -> Result<(), String> {
        self.observe(reader)?;
        let from_reader: Vec<Entry> = self.visible.values().filter(|entry| !entry.is_journals_own()).cloned().collect();
        if from_reader != log.entries {
            return Err("state and reader differ".to_string());
        }
        let (kept, more) = log.entries.split_at(self.acknowledged.len().min(log.entries.len()));
        if kept != self.acknowledged {
            return Err(format!("{} acknowledged, {} found", self.acknowledged.len(), log.entries.len()));
        }
        if !more.is_empty() && more != self.open {
            return Err(format!("{} records appeared that nobody was promised", more.len()));
        }
        self.acknowledged = log.entries.clone();
        self.open.clear();
        Ok(())
    }
}

/// One step of the workload.
#[derive(Debug, Clone, Copy)]
pub enum Action {
    Append { records: u64, body_bytes: usize },
    Maintain,
    Snapshot,
    CloseAndOpen,
    KillAndOpen,
}

/// The workload of a seed.
pub fn actions(seed: u64, count: usize) -> Vec<Action> {
    let mut random = Random(seed);
    let mut action = || match random.below(20) {
        0 | 1 => Action::Maintain,
        2 => Action::Snapshot,
        3 => Action::CloseAndOpen,
        4 => Action::KillAndOpen,
        // Few large bodies fill a segment, many small ones fill the index.
        5..=12 => Action::Append { records: 1 + random.below(3), body_bytes: 800 + random.below(3_000) as usize },
        _ => Action::Append { records: 1 + random.below(20), body_bytes: random.below(100) as usize },
    };
    (0..count).map(|_| action()).collect()
}
