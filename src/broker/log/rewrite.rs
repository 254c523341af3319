//! Rewriting the broker's log when it has grown: what still matters, in the same lines, in a new file.
//! Owns: which entries reproduce a ledger, and the order of the steps.
//! May touch: the log, its temporary neighbour and its predecessor.
//! Never: drops a revocation; loses the old file before the new one is durable.

use std::fs::{self, OpenOptions};
use std::io;

use super::{
    BROKER_LOG_BYTES_MAX, BROKER_LOG_RESERVE_BYTES, BROKER_LOG_STEP_BYTES, BrokerLog, Chain, Entry, FORMAT,
    LOG_FILE_NAME, LOG_PREVIOUS_FILE_NAME, Ledger, Step, line, replace_with, sys, to_hex,
};

impl BrokerLog {
    /// Rewrites the file when it has outgrown its bound. A failure is logged and tried again later: the old file goes on.
    pub(in crate::broker) fn rewrite_if_grown(&mut self, ledger: &Ledger) {
        if self.written < self.rewrite_at || self.poisoned.is_some() {
            return;
        }
        self.flush();
        if let Err(error) = self.rewrite(ledger) {
            log::warn!("broker log {} was not rewritten and grows on: {error}", self.path.display());
            self.rewrite_at = self.written + BROKER_LOG_BYTES_MAX;
        }
    }

    fn rewrite(&mut self, ledger: &Ledger) -> io::Result<()> {
        let (bytes, chain) = lines(ledger, &self.written_chain);
        let reserved = (bytes.len() as u64 + BROKER_LOG_RESERVE_BYTES).next_multiple_of(BROKER_LOG_STEP_BYTES);
        let temporary = self.path.with_file_name(format!(".{LOG_FILE_NAME}.tmp"));
        let previous = self.path.with_file_name(LOG_PREVIOUS_FILE_NAME);
        let (path, can_reserve) = (self.path.clone(), self.can_reserve);
        let mut before = |step| {
            if step == Step::Rename {
                // A new file without its reserve would be worse than an old one that is too long.
                if can_reserve {
                    sys::reserve_blocks(&OpenOptions::new().write(true).open(&temporary)?, reserved)?;
                }
                let _none_there = fs::remove_file(&previous);
                fs::hard_link(&path, &previous)?;
            }
            Ok(())
        };
        if let Err(error) = replace_with(&self.path, &bytes, &mut before) {
            if error.is_renamed() {
                // The new file is visible and may yet be lost with whatever were appended to it.
                self.poisoned = Some(error.to_string());
            }
            return Err(io::Error::other(error.to_string()));
        }
        self.file = match OpenOptions::new().read(true).write(true).open(&self.path) {
            Ok(file) => file,
            Err(error) => {
                self.poisoned = Some(format!("the rewritten file cannot be opened: {error}"));
                return Err(error);
            }
        };
        self.written = bytes.len() as u64;
        self.reserved = if can_reserve { reserved } else { self.written };
        (self.written_chain, self.chain) = (chain, chain);
        self.rewrite_at = BROKER_LOG_BYTES_MAX.max(2 * self.written);
        log::info!("broker log rewritten: {} bytes", self.written);
        Ok(())
    }
}

/// The lines from which `ledger` can be folded again.
fn lines(ledger: &Ledger, previous: &Chain) -> (Vec<u8>, Chain) {
    let (mut bytes, mut chain) = (Vec::new(), Chain::default());
    let mut add = |at_ms: u64, entry: &Entry| {
        let (line, after) = line(at_ms, entry, &chain);
        bytes.extend_from_slice(&line);
        chain = after;
    };
    let previous = Some(to_hex(previous));
    add(0, &Entry::LogOpened { format: FORMAT, previous, version_max: ledger.version_max() });
    for (slot, mark) in ledger.slot_marks() {
        let slot = || slot.clone();
        if mark.leased_version > 0 {
            add(0, &Entry::SlotLeased { slot: slot(), version: mark.leased_version });
        }
        if let Some(version) = mark.fresh_version {
            add(0, &Entry::SlotSet { slot: slot(), version });
        }
        if let Some(block) = &mark.block {
            let (blocked_version, order) = (Some(block.version), block.order.clone());
            add(block.at_ms, &Entry::SlotRevoked { slot: slot(), blocked_version, order });
        }
    }
    for (subject, mark) in ledger.subjects() {
        let (subject, epoch, known, order) = (subject.clone(), mark.epoch, mark.known, mark.order.clone());
        match mark.revoked_at_ms {
            Some(at_ms) => add(at_ms, &Entry::SubjectRevoked { subject, epoch, known, order }),
            None => add(0, &Entry::SubjectReinstated { subject, epoch, order }),
        }
    }
    let mut ended: Vec<_> = ledger.all_ended().collect();
    ended.reverse();
    for ended in ended {
        add(ended.lease.issued_at_ms, &Entry::LeaseIssued(ended.lease.clone()));
        add(ended.at_ms, &Entry::LeaseEnded { lease: ended.lease.id.clone(), reason: ended.reason });
    }
    let mut alive: Vec<_> = ledger.all_alive().collect();
    alive.sort_unstable_by(|one, other| (one.issued_at_ms, &one.id).cmp(&(other.issued_at_ms, &other.id)));
    for lease in alive {
        add(lease.issued_at_ms, &Entry::LeaseIssued(lease.clone()));
    }
    (bytes, chain)
}
