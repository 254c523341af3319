//! The connectors in force: those of the file and those of the runtime, ready for use.
//! Owns: the table, and what of a connector is only in memory: its buckets, copies of its secrets, its figures.
//! May touch: the core's published view, the broker.
//! Never: waits for the core.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bucket::Buckets;
use super::config::{SecretRef, Settings};
use super::file::FileConnector;
use super::secrets::{SecretError, Secrets, Versioned, from_environment};
use crate::broker::{BrokerHandle, SecretReference};
use crate::commit::CoreHandle;
use crate::core::{Connector, ConnectorKind, Connectors, ConnectorsHold};
use crate::secret::Secret;

/// Where a connector was configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// In the file of `--connectors-config`; the API cannot change it.
    File,
    /// At runtime.
    Daemon,
}

/// Figures of one connector since the daemon started.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "each name says what is counted")]
pub struct Counters {
    pub accepted: AtomicU64,
    pub duplicate: AtomicU64,
    pub rejected: AtomicU64,
    pub rate_limited: AtomicU64,
    pub unauthorized: AtomicU64,
    pub restarts: AtomicU64,
    pub manifest_failures: AtomicU64,
}

impl Counters {
    /// One more.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A connector in force.
#[derive(Debug)]
pub struct Entry {
    /// Its kind.
    pub kind: ConnectorKind,
    /// Its name.
    pub name: String,
    /// Where it was configured.
    pub source: Source,
    /// Its revision; 0 for one of the file.
    pub revision: u64,
    /// When it was last put; the daemon's start for one of the file.
    pub updated_at_ms: u64,
    /// Its configuration.
    pub settings: Settings,
    /// Copies of its secrets.
    pub secrets: Secrets,
    /// Its figures.
    pub counters: Arc<Counters>,
    buckets: Mutex<Buckets>,
}

impl Entry {
    fn new(
        kind: ConnectorKind,
        name: &str,
        source: Source,
        settings: Settings,
        secrets: Secrets,
        counters: Arc<Counters>,
    ) -> Self {
        let buckets = Mutex::new(Buckets::new(settings.events_per_second()));
        let name = name.to_string();
        Self { kind, name, source, revision: 0, updated_at_ms: 0, settings, secrets, counters, buckets }
    }

    /// The present secret of a field; `None` where it has none.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn secret(
        &self,
        broker: &BrokerHandle,
        field: &str,
        source: Option<&SecretRef>,
        now_ms: u64,
    ) -> Result<Option<Versioned>, SecretError> {
        source.map(|source| self.secrets.get(broker, field, source, now_ms)).transpose()
    }

    /// Takes a token of the bucket `key`.
    ///
    /// # Errors
    /// Milliseconds until there is one.
    pub fn take_token(&self, key: &str, now_ms: u64) -> Result<(), u64> {
        self.buckets().take(key, now_ms)
    }

    /// Gives it back.
    pub fn give_token_back(&self, key: &str) {
        self.buckets().give_back(key);
    }

    fn buckets(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All connectors in force. Shared and immutable.
#[derive(Debug, Default)]
pub struct Table {
    revision: u64,
    /// Set while nothing passes.
    pub hold: Option<ConnectorsHold>,
    entries: BTreeMap<(ConnectorKind, String), Arc<Entry>>,
}

impl Table {
    /// One of them.
    pub fn get(&self, kind: ConnectorKind, name: &str) -> Option<&Arc<Entry>> {
        self.entries.get(&(kind, name.to_string()))
    }

    /// All, by kind and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values()
    }
}

/// Access to the connectors in force. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    core: CoreHandle,
    broker: BrokerHandle,
    file: Vec<Arc<Entry>>,
    table: Mutex<Option<Arc<Table>>>,
}

impl Registry {
    /// With the connectors of the file.
    pub fn new(core: CoreHandle, broker: BrokerHandle, file: Vec<FileConnector>, now_ms: u64) -> Self {
        let file = file
            .into_iter()
            .map(|connector| {
                let FileConnector { kind, name, settings, inline } = connector;
                let secrets = Secrets::new(&name, inline);
                let entry = Entry::new(kind, &name, Source::File, settings, secrets, Arc::default());
                Arc::new(Entry { updated_at_ms: now_ms, ..entry })
            })
            .collect();
        Self(Arc::new(Inner { core, broker, file, table: Mutex::default() }))
    }

    /// The table as of the last committed change.
    pub fn table(&self) -> Arc<Table> {
        let mut cached = self.0.table.lock().unwrap_or_else(PoisonError::into_inner);
        // Read inside the lock, so that no older table replaces a newer one.
        let published = self.0.core.connectors();
        if let Some(table) = cached.as_ref().filter(|table| table.revision == published.revision) {
            return table.clone();
        }
        let before = cached.take().unwrap_or_default();
        let mut table = Table { revision: published.revision, hold: published.hold.clone(), entries: BTreeMap::new() };
        for connector in published.iter() {
            let key = (connector.kind, connector.name.clone());
            let known = before.entries.get(&key).cloned();
            let kept = known.clone().filter(|entry| entry.revision == connector.revision);
            let entry = kept.or_else(|| compile(connector, known.as_deref()));
            table.entries.extend(entry.map(|entry| (key, entry)));
        }
        // What the operator wrote into a file stands above what was put while the file did not name it.
        for entry in &self.0.file {
            table.entries.insert((entry.kind, entry.name.clone()), entry.clone());
        }
        let table = Arc::new(table);
        *cached = Some(table.clone());
        table
    }

    /// One connector in force.
    pub fn get(&self, kind: ConnectorKind, name: &str) -> Option<Arc<Entry>> {
        self.table().get(kind, name).cloned()
    }

    /// Every slot that a connector names: `external connector ops-webhook (shared_token)`.
    pub fn references(&self) -> Vec<SecretReference> {
        let naming = |entry: &Arc<Entry>| {
            let (kind, name) = (entry.kind, entry.name.clone());
            let slots = entry.settings.slots().into_iter();
            slots
                .map(move |(field, slot)| {
                    SecretReference::new(slot.as_str(), format!("{kind} connector {name} ({field})"))
                })
                .collect::<Vec<_>>()
        };
        self.table().iter().flat_map(naming).collect()
    }

    /// The broker that its secrets come from.
    pub fn broker(&self) -> &BrokerHandle {
        &self.0.broker
    }

    /// The core.
    pub fn core(&self) -> &CoreHandle {
        &self.0.core
    }
}

fn settings_of(connector: &Connector) -> Result<Settings, String> {
    let value = serde_json::from_str(connector.config.get()).map_err(|error| error.to_string());
    value.and_then(|value| Settings::read(connector.kind, value))
}

/// What connectors take from the daemon's environment, for the redaction, which must know it before they are used.
pub fn environment_secrets(of_file: &[FileConnector], of_runtime: &Connectors) -> Vec<Arc<Secret>> {
    let of_runtime = of_runtime.iter().filter_map(|connector| settings_of(connector).ok());
    let all = of_file.iter().map(|connector| connector.settings.clone()).chain(of_runtime);
    all.flat_map(|settings| from_environment(&settings)).collect()
}

/// `None` for a configuration that another build wrote and this one cannot read: it is logged, and refused at ingress as
/// unknown, which is the safe side.
fn compile(connector: &Connector, before: Option<&Entry>) -> Option<Arc<Entry>> {
    let Connector { kind, name, revision, updated_at_ms, config: _ } = connector;
    let settings = match settings_of(connector) {
        Ok(settings) => settings,
        Err(error) => {
            log::error!("{kind} connector {name} cannot be used: {error}; next: put it again");
            return None;
        }
    };
    let counters = before.map(|before| before.counters.clone()).unwrap_or_default();
    let entry = Entry::new(*kind, name, Source::Daemon, settings, Secrets::new(name, BTreeMap::new()), counters);
    Some(Arc::new(Entry { revision: *revision, updated_at_ms: *updated_at_ms, ..entry }))
}
