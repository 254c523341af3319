//! What the resource handlers work with.
//! Owns: nothing; it bundles handles.
//! Never: holds state of its own.

use std::sync::Arc;

use crate::audit::key::SigningKey;
use crate::backup::barrier::Barrier;
use crate::blobs::Blobs;
use crate::broker::BrokerHandle;
use crate::clock::Clock;
use crate::commit::CoreHandle;
use crate::config::Config;
use crate::connectors::{Registry, Sidecars};
use crate::debug_capture::DebugCapture;
use crate::engine::Stops;
use crate::hooks::Hooks;
use crate::http::problem::Problem;
use crate::ids::Seq;
use crate::journal::{Reader, Record};
use crate::limits::RUN_RECORDS_MAX;
use crate::mcp::Mcp;
use crate::providers::Routes;
use crate::sse::Hub;
use crate::tasks::Tasks;

use super::builtin::Builtin;
use super::openapi;
use super::readiness::not_ready;
use super::request_mac::RequestMac;
use super::resource_schemas;
use super::routes;
use super::status::Facts;
use super::telegram_poll::Polls;

/// Handles of the running daemon.
pub struct Api {
    /// Durable state.
    pub core: CoreHandle,
    /// The log.
    pub reader: Reader,
    /// The audit key: signs checkpoints; its public half is shown.
    pub signer: Arc<SigningKey>,
    /// Makes fingerprints of requests.
    pub request_mac: RequestMac,
    /// Secrets.
    pub broker: BrokerHandle,
    /// Event streams.
    pub hub: Hub,
    /// What is kept for debugging.
    pub capture: DebugCapture,
    /// Runs in hand.
    pub stops: Stops,
    /// Background commands and to-do items.
    pub tasks: Tasks,
    /// MCP servers.
    pub mcp: Mcp,
    /// Large contents beside the journal.
    pub blobs: Blobs,
    /// Connectors in force.
    pub connectors: Registry,
    /// Hooks in force.
    pub hooks: Hooks,
    /// The processes behind some of them.
    pub sidecars: Sidecars,
    /// Telegram connectors that are polled.
    pub polls: Polls,
    /// Model routes, if a routes file was given.
    pub routes: Option<Arc<Routes>>,
    /// What holds.
    pub config: Config,
    /// Stands for a moment when a backup begins.
    pub barrier: Barrier,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// What status shows of the rest of the daemon.
    pub facts: Facts,
}

impl Api {
    /// A run's records, oldest first, from its newest one backwards. Of a run with very many the oldest are left out, but
    /// for its acceptance.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn run_records(&self, last: Seq) -> Result<Vec<Record>, Problem> {
        let mut records: Vec<Record> = Vec::new();
        let mut seq = last;
        while seq != 0 && records.len() < RUN_RECORDS_MAX {
            let record = self.reader.read(seq)?;
            seq = record.run_prev;
            records.push(record);
        }
        if seq != 0
            && let Some(oldest) = records.last()
        {
            let first = oldest.run_first;
            records.push(self.reader.read(first)?);
        }
        records.reverse();
        Ok(records)
    }
}

impl Builtin for Api {
    fn readiness(&self) -> Result<(), Problem> {
        not_ready(self).map_or(Ok(()), Err)
    }

    fn openapi(&self) -> Vec<u8> {
        openapi::document(routes::ROUTES, resource_schemas::ALL)
    }
}
