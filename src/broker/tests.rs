//! Tests of the broker's thread that need its insides: a hanging disk, a full mailbox, a panic.
//! Owns: nothing.
//! Never: ships.

use crossbeam_channel::bounded;

use super::store::{key, record};
use super::*;
use crate::clock::SystemClock;
use crate::state_root::StateRoot;
use crate::state_root::replace::Step;
use crate::state_root::scratch::Scratch;

fn store(scratch: &Scratch) -> (StateRoot, Store) {
    let root = StateRoot::open(&scratch.path().join("root"), true).unwrap();
    let store = Store::open(&root, Some(key())).unwrap();
    (root, store)
}

fn start(root: &StateRoot, store: Store) -> Broker {
    let (log, exchange, clock) = (BrokerLog::open(root).unwrap(), Arc::new(NoExchange), Arc::new(SystemClock));
    Broker::start(BrokerParts { store, log, foreign: Vec::new(), exchange, clock }).unwrap()
}

/// A broker whose disk hangs under a change, with a full mailbox, and a lease that was issued before.
pub(crate) struct Stalled {
    broker: Broker,
    lease: Lease,
    release: crossbeam_channel::Sender<()>,
    _root: StateRoot,
    _scratch: Scratch,
}

impl Stalled {
    pub(crate) fn new(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let (root, mut store) = store(&scratch);
        store.put(record("zero", "secret-zero")).unwrap();
        let (entered, hangs) = bounded(1);
        let (release, go_on) = bounded::<()>(1);
        let store = store.with_faults(move |step| {
            if step == Step::Sync {
                entered.send(()).unwrap();
                go_on.recv().unwrap();
            }
            Ok(())
        });
        let broker = start(&root, store);
        let handle = broker.handle();
        let request = LeaseRequest {
            subject: Subject::alone(SubjectId::daemon()),
            slot: SlotId::parse("zero").unwrap(),
            provider: Provider::OpenAi,
            use_for: Use::Route("main".to_string()),
            ttl_ms: 600_000,
        };
        let lease = handle.lease(request, SystemClock.now_ms()).unwrap();
        let writer = handle.clone();
        // It waits for the disk and then ends by itself.
        drop(Worker::spawn("writer", move || drop(writer.put(record("a", "secret-one")))).unwrap());
        hangs.recv().unwrap();
        while handle.stats().mailbox_depth < BROKER_MAILBOX_MAX {
            handle.release_id("lease-x".to_string());
        }
        Self { broker, lease, release, _root: root, _scratch: scratch }
    }

    pub(crate) fn handle(&self) -> BrokerHandle {
        self.broker.handle()
    }

    pub(crate) fn lease(&self) -> Lease {
        self.lease.clone()
    }

    /// The disk works again.
    pub(crate) fn go_on(&self) {
        self.release.send(()).unwrap();
    }
}

#[test]
fn a_full_mailbox_is_a_typed_refusal_and_readers_do_not_wait() {
    let scratch = Scratch::new("broker-full");
    let (root, store) = store(&scratch);
    let (entered, hangs) = bounded(1);
    let (release, go_on) = bounded::<()>(1);
    let store = store.with_faults(move |step| {
        if step == Step::Sync {
            entered.send(()).unwrap();
            go_on.recv().unwrap();
        }
        Ok(())
    });
    let broker = start(&root, store);
    let handle = broker.handle();

    let (reply, answer) = bounded(1);
    let writer = handle.clone();
    let writer = Worker::spawn("writer", move || reply.send(writer.put(record("a", "secret-one"))).unwrap()).unwrap();
    hangs.recv().unwrap();
    let lease = Lease {
        id: "lease-x".to_string(),
        slot: SlotId::parse("a").unwrap(),
        version: 1,
        expires_at_ms: 1,
        organization: None,
        project: None,
    };
    while handle.stats().mailbox_depth < BROKER_MAILBOX_MAX {
        handle.release(lease.clone());
    }

    assert!(matches!(handle.put(record("b", "secret-two")), Err(BrokerError::Busy)));
    assert!(matches!(handle.redeem(&lease, 1), Err(BrokerError::Busy)));
    // What is not on disk is not shown.
    assert_eq!(handle.slots().unwrap(), []);
    assert_eq!(handle.redact("a secret-one"), "a secret-one");

    release.send(()).unwrap();
    let status = answer.recv().unwrap().unwrap().status;
    writer.join().unwrap();
    assert_eq!(handle.slots().unwrap(), [status]);
    assert_eq!(handle.redact("a secret-one"), "a <redacted>");
    broker.stop().unwrap();
}

#[test]
fn a_broker_that_panicked_is_a_typed_error_and_still_redacts() {
    let scratch = Scratch::new("broker-panic");
    let (root, mut store) = store(&scratch);
    store.put(record("a", "secret-one")).unwrap();
    let broker = start(&root, store.with_faults(|_| panic!("disk driver")));
    let handle = broker.handle();
    let lease = handle
        .lease(
            LeaseRequest {
                subject: Subject::alone(SubjectId::daemon()),
                slot: SlotId::parse("a").unwrap(),
                provider: Provider::OpenAi,
                use_for: Use::Route("main".to_string()),
                ttl_ms: 60_000,
            },
            1,
        )
        .unwrap();

    assert!(matches!(handle.put(record("b", "secret-two")), Err(BrokerError::Gone)));

    assert_eq!(broker.stop().unwrap_err().message, "disk driver");
    assert!(!handle.stats().is_alive);
    assert!(matches!(handle.slots(), Err(BrokerError::Gone)));
    assert!(matches!(handle.redeem(&lease, 1), Err(BrokerError::Gone)));
    let auth = handle.route_auth(&lease.slot, Provider::OpenAi);
    assert_eq!((auth.state, auth.code), (RouteAuthState::Error, "route_auth_status_error"));
    assert_eq!(handle.redact("a secret-one"), "a <redacted>");
}
