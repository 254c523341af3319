//! Throw-away state roots for the tests of the state root and of the secrets in it.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kheish_daemon::broker::{
    Broker, BrokerLog, BrokerParts, MasterKey, NoExchange, Provider, SlotId, SlotRecord, Store, StoreError,
};
use kheish_daemon::clock::SystemClock;
use kheish_daemon::secret::Secret;
use kheish_daemon::state_root::{Directory, StateRoot};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A fresh directory, 0700, removed on drop.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kheish-root-{}-{number}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where the state root is, or will be.
    pub fn root_path(&self) -> PathBuf {
        self.0.join("root")
    }

    pub fn open_root(&self) -> StateRoot {
        StateRoot::open(&self.root_path(), true).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlBQkNERUY=";
pub const OTHER_KEY: &str = "YWJjZGVmMDEyMzQ1Njc4OUFCQ0RFRjAxMjM0NTY3ODk=";

pub fn key(text: &str) -> Option<MasterKey> {
    Some(MasterKey::parse(text.as_bytes(), "test").unwrap())
}

pub fn store_path(root: &StateRoot) -> PathBuf {
    root.directory(Directory::Auth).join(kheish_daemon::broker::FILE_NAME)
}

pub fn id(raw: &str) -> SlotId {
    SlotId::parse(raw).unwrap()
}

pub fn record(slot: &str, provider: Provider, secret: &str) -> SlotRecord {
    SlotRecord::new(id(slot), provider, Secret::new(secret.as_bytes().to_vec()), None, None, 1_767_225_600_000).unwrap()
}

/// `Store` has no `Debug`, so `unwrap_err` does not apply.
pub fn refusal(result: Result<Store, StoreError>) -> StoreError {
    match result {
        Ok(_) => panic!("the store was opened"),
        Err(error) => error,
    }
}

/// A broker on the store, with the log of `root` and nobody to exchange tokens with.
pub fn start_broker(root: &StateRoot, store: Store) -> Broker {
    start_broker_with(root, store, Vec::new())
}

/// As above, with secrets that live elsewhere.
pub fn start_broker_with(root: &StateRoot, store: Store, foreign: Vec<Arc<Secret>>) -> Broker {
    let (log, exchange, clock) = (BrokerLog::open(root).unwrap(), Arc::new(NoExchange), Arc::new(SystemClock));
    Broker::start(BrokerParts { store, log, foreign, exchange, clock }).unwrap()
}
