//! Which answers of operators were taken, so that a repeated one changes nothing.
//! Owns: the receipts and their bound; the oldest go first.
//! Never: guards the submission of runs; their keys live as long as the runs.

use std::collections::{HashMap, VecDeque};

use super::event::Idempotency;
use crate::limits::OPERATION_RECEIPTS_MAX;

/// Receipts by key, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Receipts {
    by_key: HashMap<[u8; 16], ([u8; 16], u32)>,
    order: VecDeque<[u8; 16]>,
}

impl Receipts {
    /// Fingerprint of the request that came with this key, and its run.
    pub(super) fn get(&self, key: &[u8; 16]) -> Option<([u8; 16], u32)> {
        self.by_key.get(key).copied()
    }

    pub(super) fn put(&mut self, idempotency: Idempotency, run: u32) {
        if self.by_key.insert(idempotency.key, (idempotency.fingerprint, run)).is_none() {
            self.order.push_back(idempotency.key);
        }
        if self.order.len() > OPERATION_RECEIPTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_key.remove(&oldest);
        }
    }

    /// All of them, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Idempotency, u32)> {
        self.order.iter().filter_map(|key| {
            let (fingerprint, run) = self.get(key)?;
            Some((Idempotency { key: *key, fingerprint }, run))
        })
    }
}
