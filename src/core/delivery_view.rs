//! Deliveries as callers see them, and as senders take them.
//! Owns: the questions about deliveries that can be answered from memory.
//! Never: reads a text; whoever holds an item finds it in the journal.

use super::delivery::{Delivery, DeliveryFilter, DeliveryJob};
use super::delivery_table::DeliveryHold;
use super::state::State;
use crate::ids::{DeliveryId, RunId, Seq, SessionId};

/// A delivery with the names of what it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryItem {
    /// The delivery.
    pub delivery: Delivery,
    /// Its session.
    pub session: SessionId,
    /// Its run.
    pub run: RunId,
    /// The run's acceptance.
    pub run_first: Seq,
    /// The dead letter that it sends again.
    pub replayed_from: Option<DeliveryId>,
}

/// Which deliveries to list.
#[derive(Debug, Clone, Default)]
pub struct DeliveryQuery {
    /// Which.
    pub filter: DeliveryFilter,
    /// Only dead letters that nobody has dealt with.
    pub unresolved_only: bool,
    /// Only those that have not been sent again, as far as what was sent again is kept.
    pub without_replay: bool,
    /// Behind this time and number.
    pub after: Option<(u64, u32)>,
    /// How many at most.
    pub limit: usize,
}

/// One page of deliveries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliveryPage {
    /// In order of time.
    pub items: Vec<DeliveryItem>,
    /// How many match in all.
    pub total: u64,
    /// Whether another page follows.
    pub has_more: bool,
}

impl State {
    fn delivery_item(&self, row: &Delivery) -> Option<DeliveryItem> {
        let session = self.session(row.session)?.id.clone();
        let run_first = self.runs().get(row.run)?.first_seq;
        let source = self.deliveries.rows.get(&row.replayed_from);
        Some(DeliveryItem {
            delivery: row.clone(),
            session,
            run: self.run_id(row.run),
            run_first,
            replayed_from: source.map(|source| source.id),
        })
    }

    /// A delivery, if it is kept.
    pub fn delivery(&self, id: DeliveryId) -> Option<DeliveryItem> {
        let row = self.deliveries.rows.get(&id.number).filter(|row| row.id == id)?;
        self.delivery_item(row)
    }

    /// One page of deliveries.
    pub fn delivery_page(&self, query: &DeliveryQuery) -> DeliveryPage {
        let DeliveryFilter { session, run, plugin, status } = &query.filter;
        let session = match session {
            None => None,
            Some(id) => match self.session_number(id) {
                Some(number) => Some(number),
                None => return DeliveryPage { items: Vec::new(), total: 0, has_more: false },
            },
        };
        let matches = |row: &&Delivery| {
            session.is_none_or(|session| session == row.session)
                && plugin.is_none_or(|plugin| plugin == row.target.plugin)
                && status.is_none_or(|status| status == row.status)
                && (!query.unresolved_only || row.is_unresolved())
                && (!query.without_replay || !self.deliveries.rows.contains_key(&row.replay))
        };
        let mut all: Vec<&Delivery> = match run {
            None => self.deliveries.in_order(None).filter(matches).collect(),
            Some(run) => match self.run_number(*run) {
                Some(number) => self.deliveries.of_run(number).filter(matches).collect(),
                None => Vec::new(),
            },
        };
        all.sort_by_key(|row| (row.at_ms, row.id.number));
        let total = all.len() as u64;
        let mut behind =
            all.into_iter().filter(|row| query.after.is_none_or(|after| (row.at_ms, row.id.number) > after));
        let items = behind.by_ref().take(query.limit).filter_map(|row| self.delivery_item(row)).collect();
        DeliveryPage { items, total, has_more: behind.next().is_some() }
    }

    /// Takes the next delivery that may be sent now; nobody else is given it until it is settled or put back.
    pub fn take_delivery(&mut self, now_ms: u64) -> Option<DeliveryJob> {
        let number = self.deliveries.take(now_ms)?;
        let row = self.deliveries.rows.get(&number)?;
        let item = self.delivery_item(row)?;
        let DeliveryItem { delivery, session, run, run_first, .. } = item;
        let session_first = self.session(delivery.session)?.first_seq;
        Some(DeliveryJob { delivery, session, run, run_first, session_first })
    }

    /// Gives a delivery in hand back.
    pub fn put_back_delivery(&mut self, number: u32) {
        self.deliveries.put_back(number);
    }

    /// When [`State::take_delivery`] has something, if nothing else changes.
    pub fn next_delivery_ms(&self) -> Option<u64> {
        self.deliveries.next_due_ms()
    }

    /// Why nothing is sent.
    pub fn delivery_hold(&self) -> Option<&DeliveryHold> {
        self.deliveries.hold.as_ref()
    }

    /// Dead letters and waiting ones of a run, by status.
    pub fn deliveries_of_run(&self, run: RunId) -> Vec<DeliveryItem> {
        let Some(number) = self.run_number(run) else { return Vec::new() };
        self.deliveries.of_run(number).filter_map(|row| self.delivery_item(row)).collect()
    }
}
