//! The thread that writes the audit file.
//! Owns: the lines on their way, and how far the journal's acts have their lines.
//! May touch: the file of its room; the journal, for reading.
//! Never: makes anybody wait who did not ask for it; loses an act that the journal has.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};

use super::Counters;
use super::derive::Picker;
use super::file::AuditFile;
use super::line::{AuditEvent, AuditLine};
use crate::http::RequestId;
use crate::ids::Seq;
use crate::journal::{Place, Reader};
use crate::limits::{
    AUDIT_BATCH_LINES_MAX, AUDIT_CATCH_UP_BYTES, AUDIT_RETRY_MS, AUDIT_SYNC_INTERVAL_MS, AUDIT_TOLD_REQUESTS_MAX,
};
use crate::pause::Standstill;

/// A line of an act on its way.
pub(super) struct Entry {
    pub(super) line: Box<AuditLine>,
    /// Who waits for it to be on disk.
    pub(super) written: Option<Sender<()>>,
}

impl Entry {
    pub(super) fn of(line: AuditLine) -> Self {
        Self { line: Box::new(line), written: None }
    }
}

/// Somebody wants the files to stay as they are for a moment.
pub(super) struct Halt {
    pub(super) standstill: Standstill,
    /// Told once everything accepted is written.
    pub(super) halted: Sender<()>,
}

/// What reaches the writer.
pub(super) struct Inboxes {
    pub(super) refusals: Receiver<Box<AuditLine>>,
    pub(super) acts: Receiver<Entry>,
    pub(super) halts: Receiver<Halt>,
    pub(super) stopped: Receiver<()>,
}

pub(super) struct Writer {
    file: AuditFile,
    refusals: Receiver<Box<AuditLine>>,
    acts: Receiver<Entry>,
    halts: Receiver<Halt>,
    stopped: Receiver<()>,
    counters: Arc<Counters>,
    journal: Option<Reader>,
    /// The next journal record to look at while lines are made up for; `None` while every act arrives by itself.
    behind: Option<Seq>,
    /// Acts up to this record have their lines, written or pending.
    derived: Seq,
    picker: Picker,
    /// Requests whose acts have their lines already, newest last: the front tells of each mutation as well, since it does
    /// not know which of them changed something.
    told: VecDeque<RequestId>,
    /// Lines taken from the queues and not written yet; while there are any, none are taken, so that a full
    /// disk costs nothing but waiting until a queue overflows.
    pending: Vec<AuditLine>,
    waiting: Vec<Sender<()>>,
    /// Of `pending`, those that came by a queue.
    pending_accepted: u64,
    /// Lost refusals that the numbers in the file already account for.
    dropped_before: u64,
    /// When the file was last known to be on disk; `None` while it is.
    synced_at: Option<Instant>,
}

impl Writer {
    pub(super) fn new(file: AuditFile, inboxes: Inboxes, counters: Arc<Counters>, journal: Option<Reader>) -> Self {
        let Inboxes { refusals, acts, halts, stopped } = inboxes;
        let derived = file.derived_through();
        let behind = journal.as_ref().map(|_| derived + 1);
        let picker = Picker::after(file.last());
        Self {
            file,
            refusals,
            acts,
            halts,
            stopped,
            counters,
            journal,
            behind,
            derived,
            picker,
            told: VecDeque::new(),
            pending: Vec::new(),
            waiting: Vec::new(),
            pending_accepted: 0,
            dropped_before: 0,
            synced_at: None,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            if let Ok(halt) = self.halts.try_recv() {
                self.halt(halt);
            }
            if !self.pending.is_empty() {
                select! {
                    recv(self.stopped) -> _ => break,
                    default(Duration::from_millis(AUDIT_RETRY_MS)) => {}
                }
            } else if self.behind.is_some() {
                if self.stopped.try_recv().is_err_and(|error| error.is_disconnected()) {
                    break;
                }
                self.catch_up();
                self.take_waiting();
            } else {
                select! {
                    recv(self.refusals) -> line => match line {
                        Ok(line) => self.take_refusal(*line),
                        Err(_) => break,
                    },
                    recv(self.acts) -> entry => match entry {
                        Ok(entry) => self.take_act(entry),
                        Err(_) => break,
                    },
                    recv(self.halts) -> halt => match halt {
                        Ok(halt) => self.halt(halt),
                        Err(_) => break,
                    },
                    recv(self.stopped) -> _ => break,
                    default(Duration::from_millis(AUDIT_SYNC_INTERVAL_MS)) => {}
                }
                crate::worker::beat();
                self.take_waiting();
                if self.counters.acts_missed.swap(false, Relaxed) && self.journal.is_some() {
                    self.behind = Some(self.derived + 1);
                }
            }
            self.write_pending();
            self.sync(Duration::from_millis(AUDIT_SYNC_INTERVAL_MS));
        }
        self.finish();
    }

    /// Writes what was accepted and leaves the files alone until the pause is over. Without the one there is no other.
    fn halt(&mut self, Halt { standstill, halted }: Halt) {
        self.take_waiting();
        if !self.write_pending() {
            return;
        }
        self.sync(Duration::ZERO);
        if self.synced_at.is_none() {
            // Whoever gave up has let go of the pause as well.
            let _gave_up = halted.try_send(());
            standstill.wait();
        }
    }

    fn room(&self) -> usize {
        AUDIT_BATCH_LINES_MAX.saturating_sub(self.pending.len())
    }

    fn take_waiting(&mut self) {
        while self.room() > 0 {
            let Ok(entry) = self.acts.try_recv() else { break };
            self.take_act(entry);
        }
        while self.room() > 0 {
            let Ok(line) = self.refusals.try_recv() else { break };
            self.take_refusal(*line);
        }
    }

    fn take_refusal(&mut self, line: AuditLine) {
        self.pending_accepted += 1;
        self.pending.push(line);
    }

    fn take_act(&mut self, Entry { line, written }: Entry) {
        let is_known = line.journal_seq.is_some_and(|seq| {
            // While lines are made up for, the journal is read up to here and beyond.
            self.behind.is_some() || seq <= self.derived
        });
        let is_told = line.act.is_none()
            && line.status.is_some_and(|status| status < 300)
            && line.request_id.is_some_and(|request| self.told.contains(&request));
        if is_known || is_told {
            self.counters.written.fetch_add(1, Relaxed);
            return;
        }
        self.derived = self.derived.max(line.journal_seq.unwrap_or(0));
        if let Some(request) = line.request_id.filter(|_| line.act.is_some()) {
            if self.told.len() == AUDIT_TOLD_REQUESTS_MAX {
                self.told.pop_front();
            }
            self.told.push_back(request);
        }
        self.waiting.extend(written);
        self.pending_accepted += 1;
        self.pending.push(*line);
    }

    /// Makes lines for the acts of the next stretch of the journal.
    fn catch_up(&mut self) {
        let (Some(journal), Some(from)) = (&self.journal, self.behind) else { return };
        let committed = journal.committed();
        let from = match journal.place(from) {
            Place::Retired => journal.floor(),
            // The file has seen more than this journal: another copy's. Nothing to make up for.
            Place::Ahead => committed + 1,
            Place::Here | Place::Foreign => from,
        };
        if from > committed {
            self.derived = self.derived.max(committed);
            self.behind = None;
            self.tell_derived();
            return;
        }
        match journal.scan(from, AUDIT_CATCH_UP_BYTES) {
            Ok(records) => {
                let Some(last) = records.last().map(|record| record.seq) else {
                    self.behind = None;
                    return;
                };
                let lines: Vec<AuditLine> = records.iter().filter_map(|record| self.picker.of_record(record)).collect();
                self.pending.extend(lines);
                self.derived = self.derived.max(last);
                self.behind = Some(last + 1);
            }
            Err(error) => {
                log::error!("acts cannot be read back from the journal: {error}; their audit lines are missing");
                self.behind = None;
            }
        }
    }

    /// One last attempt for everything that was accepted.
    fn finish(&mut self) {
        loop {
            self.take_waiting();
            if self.pending.is_empty() || !self.write_pending() {
                break;
            }
        }
        let is_complete = self.pending.is_empty() && self.behind.is_none() && !self.counters.acts_missed.load(Relaxed);
        if let Some(journal) = self.journal.as_ref().filter(|_| is_complete)
            && self.file.derived_through() < journal.committed()
        {
            // Saves the next start from reading what it need not.
            let now_ms = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64);
            let complete = AuditLine::new(now_ms, AuditEvent::ActsComplete);
            self.pending.push(AuditLine { journal_seq: Some(journal.committed()), ..complete });
            self.write_pending();
        }
        self.sync(Duration::ZERO);
    }

    /// Whether nothing is left to write.
    fn write_pending(&mut self) -> bool {
        if self.pending.is_empty() {
            self.tell_derived();
            return true;
        }
        let dropped = self.counters.dropped.load(Relaxed);
        match self.file.append(&self.pending, dropped - self.dropped_before) {
            Ok(()) => {
                self.dropped_before = dropped;
                self.counters.written.fetch_add(std::mem::take(&mut self.pending_accepted), Relaxed);
                self.pending.clear();
                self.synced_at.get_or_insert_with(Instant::now);
                self.tell_derived();
                if self.counters.set_error(None).is_some() {
                    log::info!("the control-plane audit file can be written again");
                }
                self.confirm();
                true
            }
            Err(error) => {
                self.failed("write", &error);
                false
            }
        }
    }

    /// Syncs at once for those who wait for it.
    fn confirm(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        self.sync(Duration::ZERO);
        if self.synced_at.is_none() {
            for waiting in self.waiting.drain(..) {
                let _gave_up = waiting.try_send(());
            }
        }
    }

    fn tell_derived(&self) {
        self.counters.derived_through.store(self.derived, Relaxed);
    }

    fn sync(&mut self, age_max: Duration) {
        if self.synced_at.is_some_and(|since| since.elapsed() >= age_max) {
            match self.file.sync() {
                Ok(()) => self.synced_at = None,
                Err(error) => {
                    self.synced_at = Some(Instant::now());
                    self.failed("sync", &error);
                }
            }
        }
    }

    fn failed(&self, what: &str, error: &io::Error) {
        self.counters.failed_attempts.fetch_add(1, Relaxed);
        let text = format!("cannot {what}: {error}");
        if self.counters.set_error(Some(text.clone())).is_none() {
            log::error!("control-plane audit file: {text}; next: check the space and the rights of the state root");
        }
    }
}
