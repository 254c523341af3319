//! Tests of the store that need its insides: faults at each step of a save.
//! Owns: the key and records that the broker's own tests use as well.
//! Never: ships.

use super::*;
use crate::broker::slot::Provider;
use crate::limits::SECRET_BYTES_MAX;
use crate::state_root::scratch::Scratch;

pub(in crate::broker) const KEY: &[u8] = b"0123456789abcdef0123456789ABCDEF";

impl Store {
    pub(in crate::broker) fn with_faults(
        mut self,
        before_step: impl FnMut(Step) -> io::Result<()> + Send + 'static,
    ) -> Self {
        self.before_step = Box::new(before_step);
        self
    }
}

pub(in crate::broker) fn key() -> MasterKey {
    MasterKey::parse(KEY, "test").unwrap()
}

pub(in crate::broker) fn record(id: &str, secret: &str) -> SlotRecord {
    let secret = Secret::new(secret.as_bytes().to_vec());
    SlotRecord::new(SlotId::parse(id).unwrap(), Provider::OpenAi, secret, None, None, 7).unwrap()
}

/// Ids, versions and secrets: everything that a store holds.
fn contents(store: &Store) -> Vec<(String, u64, String)> {
    let plain = |entry: &Entry| String::from_utf8(entry.record.usable().expose().to_vec()).unwrap();
    store.slots.iter().map(|(id, entry)| (id.to_string(), entry.version, plain(entry))).collect()
}

fn is_renamed(store: &Store, step: Step) -> bool {
    assert_eq!(store.is_poisoned, step == Step::SyncDirectory);
    store.is_poisoned
}

#[test]
fn a_failing_step_of_a_save_leaves_memory_as_it_was_and_the_file_old_or_new() {
    for step in Step::ALL {
        let scratch = Scratch::new("store-fault");
        let root = StateRoot::open(&scratch.path().join("root"), true).unwrap();
        let mut store = Store::open(&root, Some(key())).unwrap();
        store.put(record("a", "secret-one")).unwrap();
        let before = contents(&store);
        let mut store =
            store.with_faults(move |at| if at == step { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) });

        for _ in 0..2 {
            assert!(store.put(record("a", "secret-two")).is_err());
            assert_eq!(contents(&store), before, "{step:?}");
        }
        assert!(store.delete(&SlotId::parse("a").unwrap()).is_err());
        assert_eq!((contents(&store), store.next_version), (before.clone(), 2), "{step:?}");

        if is_renamed(&store, step) {
            // Neither state is certain, so nothing more is accepted from this process.
            let mut store = store.with_faults(|_| Ok(()));
            assert!(matches!(store.put(record("b", "secret-two")), Err(StoreError::EarlierFailure { .. })));
            drop(store);
            let reopened = contents(&Store::open(&root, Some(key())).unwrap());
            assert_eq!(reopened, [("a".to_string(), 2, "secret-two".to_string())]);
        } else {
            let mut store = store.with_faults(|_| Ok(()));
            store.put(record("b", "secret-two")).unwrap();
            let after = contents(&store);
            drop(store);
            assert_eq!(contents(&Store::open(&root, Some(key())).unwrap()), after, "{step:?}");
        }
    }
}

#[test]
fn a_version_is_never_used_twice_not_even_after_a_deletion_and_a_restart() {
    let scratch = Scratch::new("store-versions");
    let root = StateRoot::open(&scratch.path().join("root"), true).unwrap();
    let id = SlotId::parse("a").unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut store = Store::open(&root, Some(key())).unwrap();
        store.put(record("a", "secret-one")).unwrap();
        seen.push(store.entry(&id).unwrap().version);
        assert!(store.delete(&id).unwrap());
    }
    assert_eq!(seen, [1, 2, 3]);
}

#[test]
fn a_full_store_refuses_one_more_slot_and_still_takes_an_overwrite() {
    let scratch = Scratch::new("store-full");
    let root = StateRoot::open(&scratch.path().join("root"), true).unwrap();
    let mut store = Store::open(&root, Some(key())).unwrap();
    for number in 0..SLOTS_MAX {
        let record = record(&format!("slot-{number}"), "secret-one");
        store.slots.insert(record.id().clone(), Entry { version: 1, record });
    }
    assert!(matches!(store.put(record("one-more", "secret-one")), Err(StoreError::Full)));
    assert!(store.put(record("slot-0", "secret-two")).is_ok());

    // The bytes are bounded as well as the number.
    store.slots.clear();
    let large = "x".repeat(SECRET_BYTES_MAX);
    let generic = |number: usize| {
        let secret = Secret::new(large.clone().into_bytes());
        SlotRecord::new(SlotId::parse(&format!("g{number}")).unwrap(), Provider::Generic, secret, None, None, 7)
            .unwrap()
    };
    let few = AUTH_STORE_PLAINTEXT_BYTES_MAX / SECRET_BYTES_MAX - 2;
    for number in 0..few {
        let record = generic(number);
        store.slots.insert(record.id().clone(), Entry { version: 1, record });
    }
    assert!(store.put(generic(few)).is_ok());
    assert!(matches!(store.put(generic(few + 1)), Err(StoreError::Full)));
    drop(store);
    assert_eq!(Store::open(&root, Some(key())).unwrap().slots.len(), few + 1);
}
