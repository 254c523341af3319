//! `journal`, `events` and `broker` of the status.
//! Owns: their shapes.
//! Never: reads the log.

use serde::Serialize;

use crate::api::context::Api;
use crate::broker::LogStats;
use crate::commit::CoreView;
use crate::sse::HubStats;

/// The log and the thread that writes it.
#[derive(Debug, Serialize)]
pub struct JournalView {
    /// Decimal text: sequence numbers exceed what JSON numbers hold exactly.
    committed_seq: String,
    /// Its chain value.
    committed_chain: String,
    epoch: u32,
    segment_count: usize,
    bytes: u64,
    /// The newest sealed record of this life; absent until the first seal, a minute after start at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    sealed_head: Option<SealedView>,
    unsealed_record_count: u64,
    reserve_is_intact: bool,
    batch_count: u64,
    record_count: u64,
    last_commit_us: u64,
    slowest_commit_us: u64,
    /// Age of the pass that the core is at.
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_age_ms: Option<u64>,
    core_queue_depth: usize,
    core_last_progress_ms: u64,
    poisoned: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// A position that a signature vouches for.
#[derive(Debug, Serialize)]
struct SealedView {
    seq: String,
    chain: String,
    sealed_at_ms: u64,
    key_id: String,
}

/// The journal, as of the last batch.
pub fn journal(api: &Api, view: &CoreView) -> JournalView {
    let segments = api.reader.segments();
    JournalView {
        committed_seq: view.committed.to_string(),
        committed_chain: view.chain.to_string(),
        epoch: api.reader.epoch(),
        segment_count: segments.len(),
        bytes: segments.iter().map(|segment| segment.bytes).sum(),
        sealed_head: view.sealed.map(|sealed| SealedView {
            seq: sealed.seq.to_string(),
            chain: sealed.chain.to_string(),
            sealed_at_ms: sealed.at_ms,
            key_id: api.signer.key_id(),
        }),
        unsealed_record_count: view.unsealed_records,
        reserve_is_intact: view.reserve_is_intact,
        batch_count: view.batches,
        record_count: view.records,
        last_commit_us: view.last_commit_us,
        slowest_commit_us: view.slowest_commit_us,
        batch_age_ms: api.core.batch_age_ms(),
        core_queue_depth: api.core.queue_depth(),
        core_last_progress_ms: view.last_progress_ms,
        poisoned: view.poisoned.is_some(),
        reason: view.poisoned.clone().or_else(|| view.refusing.as_ref().map(ToString::to_string)),
    }
}

/// Event streams. Events are the journal's records, so nothing is evicted and a slow client loses nothing: the fields
/// that tell of it are there for clients that look for them, and stay zero.
#[derive(Debug, Serialize)]
pub struct EventsView {
    /// 0: no bound.
    history_capacity: u64,
    /// Positions from the oldest to the newest record that is kept.
    retained_event_count: u64,
    subscriber_count: usize,
    oldest_event_id: String,
    newest_event_id: String,
    next_event_id: String,
    /// Newest event id: a cursor for "from now on".
    tail_event_id_cursor: String,
    scope_eviction_floor_id: String,
    replay_buffer_utilization_percent: u8,
    evicted_event_count: u64,
    /// `stream_gap` frames since start.
    replay_gap_count: u64,
    stream_lagged_event_count: u64,
    evicted_session_scope_count: u64,
    evicted_run_scope_count: u64,
    #[serde(flatten)]
    streams: HubStats,
}

/// The streams, as of now.
pub fn events(api: &Api, view: &CoreView) -> EventsView {
    let (floor, streams) = (api.reader.floor(), api.hub.stats());
    EventsView {
        history_capacity: 0,
        retained_event_count: (view.committed + 1).saturating_sub(floor) & u64::from(u32::MAX),
        subscriber_count: streams.streams,
        oldest_event_id: floor.to_string(),
        newest_event_id: view.committed.to_string(),
        next_event_id: (view.committed + 1).to_string(),
        tail_event_id_cursor: view.committed.to_string(),
        scope_eviction_floor_id: floor.saturating_sub(1).to_string(),
        replay_buffer_utilization_percent: 0,
        evicted_event_count: 0,
        replay_gap_count: streams.gaps,
        stream_lagged_event_count: 0,
        evicted_session_scope_count: 0,
        evicted_run_scope_count: 0,
        streams,
    }
}

/// The broker's thread and its log.
#[derive(Debug, Serialize)]
pub struct BrokerView {
    alive: bool,
    mailbox_depth: usize,
    handled_count: u64,
    lease_count: u64,
    blocked_slot_count: usize,
    revoked_subject_count: usize,
    log: LogStats,
}

/// The broker, as of now.
pub fn broker(api: &Api) -> BrokerView {
    let broker = api.broker.stats();
    BrokerView {
        alive: broker.is_alive,
        mailbox_depth: broker.mailbox_depth,
        handled_count: broker.handled_count,
        lease_count: broker.lease_count,
        blocked_slot_count: broker.blocked_slot_count,
        revoked_subject_count: broker.revoked_subject_count,
        log: broker.log,
    }
}
