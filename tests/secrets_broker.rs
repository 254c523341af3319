//! What the broker promises: no secret without a live lease, no reply before the disk has it.

mod state_root_scratch;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kheish_daemon::broker::{
    Broker, BrokerError, BrokerHandle, Lease, LeaseRequest, Provider, RouteAuth, SecretReference, SlotId, SlotRecord,
    Store, StoreError, Subject, SubjectId, Use,
};
use kheish_daemon::secret::Secret;
use kheish_daemon::state_root::StateRoot;
use serde_json::json;
use state_root_scratch::{KEY, Scratch, id, key, record, start_broker, store_path};

const NOW: u64 = 1_767_225_600_000;

fn start(root: &StateRoot) -> Broker {
    start_broker(root, Store::open(root, key(KEY)).unwrap())
}

fn request(slot: &SlotId, ttl_ms: u64) -> LeaseRequest {
    LeaseRequest {
        subject: Subject::alone(SubjectId::session("a")),
        slot: slot.clone(),
        provider: Provider::OpenAi,
        use_for: Use::Route("main".to_string()),
        ttl_ms,
    }
}

fn lease(handle: &BrokerHandle, slot: &SlotId) -> Lease {
    handle.lease(request(slot, 60_000), NOW).unwrap()
}

fn plain(handle: &BrokerHandle, lease: &Lease, now_ms: u64) -> Result<String, BrokerError> {
    handle.redeem(lease, now_ms).map(|credential| String::from_utf8(credential.secret.expose().to_vec()).unwrap())
}

#[test]
fn a_lease_brings_the_secret_with_its_organization_until_it_expires() {
    let scratch = Scratch::new();
    let root = scratch.open_root();
    let broker = start(&root);
    let handle = broker.handle();
    let slot = id("openai.prod");
    let secret = Secret::new(b"sk-secret-one".to_vec());
    let (organization, project) = (Some("org-1".to_string()), Some("proj-1".to_string()));
    handle
        .put(
            SlotRecord::new(slot.clone(), Provider::OpenAi, secret, organization.clone(), project.clone(), NOW)
                .unwrap(),
        )
        .unwrap();

    let lease = lease(&handle, &slot);
    let credential = handle.redeem(&lease, NOW).unwrap();
    assert_eq!(credential.secret.expose(), b"sk-secret-one");
    assert_eq!((&lease.organization, &lease.project), (&organization, &project));
    assert!(!format!("{credential:?} {lease:?}").contains("sk-secret"));
    // A second attempt of the same call redeems again.
    assert_eq!(plain(&handle, &lease, lease.expires_at_ms).unwrap(), "sk-secret-one");
    assert!(matches!(plain(&handle, &lease, lease.expires_at_ms + 1), Err(BrokerError::LeaseExpired { .. })));
    assert_eq!(handle.stats().lease_count, 0);
}

#[test]
fn an_overwrite_or_a_deletion_ends_every_lease_of_the_slot_and_of_no_other() {
    let scratch = Scratch::new();
    let root = scratch.open_root();
    let broker = start(&root);
    let handle = broker.handle();
    let (slot, other) = (id("openai.prod"), id("openai.other"));
    handle.put(record("openai.prod", Provider::OpenAi, "sk-secret-one")).unwrap();
    handle.put(record("openai.other", Provider::OpenAi, "sk-secret-other")).unwrap();
    let kept = lease(&handle, &other);

    let first = lease(&handle, &slot);
    handle.put(record("openai.prod", Provider::OpenAi, "sk-secret-two")).unwrap();
    assert!(matches!(plain(&handle, &first, NOW), Err(BrokerError::LeaseRevoked { .. })));

    let second = lease(&handle, &slot);
    assert_eq!(plain(&handle, &second, NOW).unwrap(), "sk-secret-two");
    handle.delete(&slot).unwrap();
    assert!(matches!(plain(&handle, &second, NOW), Err(BrokerError::LeaseRevoked { .. })));
    assert!(matches!(handle.lease(request(&slot, 60_000), NOW), Err(BrokerError::SlotMissing { .. })));

    // Set again, even to the same value, is another version.
    handle.put(record("openai.prod", Provider::OpenAi, "sk-secret-one")).unwrap();
    for dead in [&first, &second] {
        assert!(matches!(plain(&handle, dead, NOW), Err(BrokerError::LeaseRevoked { .. })));
    }
    assert_eq!(plain(&handle, &kept, NOW).unwrap(), "sk-secret-other");
    handle.release(kept.clone());
    assert!(matches!(plain(&handle, &kept, NOW), Err(BrokerError::LeaseUnknown { .. })));
    broker.stop().unwrap();
}

#[test]
fn a_lease_of_one_broker_is_worth_nothing_to_the_next() {
    let scratch = Scratch::new();
    let root = scratch.open_root();
    let broker = start(&root);
    let slot = id("openai.prod");
    broker.handle().put(record("openai.prod", Provider::OpenAi, "sk-secret-one")).unwrap();
    let old = lease(&broker.handle(), &slot);
    let gone = broker.handle();
    broker.stop().unwrap();
    assert!(matches!(gone.redeem(&old, NOW), Err(BrokerError::Gone)));
    assert!(matches!(gone.slots(), Err(BrokerError::Gone)));

    let broker = start(&root);
    assert!(matches!(plain(&broker.handle(), &old, NOW), Err(BrokerError::LeaseUnknown { .. })));
    assert_eq!(plain(&broker.handle(), &lease(&broker.handle(), &slot), NOW).unwrap(), "sk-secret-one");
}

/// Writers set ascending secrets while readers redeem old and new leases: once a write was answered, nobody
/// gets an older secret.
#[test]
fn nobody_gets_a_secret_older_than_the_last_answered_write() {
    let scratch = Scratch::new();
    let root = scratch.open_root();
    let broker = start(&root);
    let slot = id("openai.prod");
    let answered = AtomicU64::new(0);
    let put = |handle: &BrokerHandle, number: u64| {
        handle.put(record("openai.prod", Provider::OpenAi, &format!("sk-secret-{number:04}"))).unwrap();
        answered.store(number, Ordering::SeqCst);
    };
    put(&broker.handle(), 0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let handle = broker.handle();
            let (slot, answered) = (&slot, &answered);
            scope.spawn(move || {
                let mut held = lease(&handle, slot);
                while answered.load(Ordering::SeqCst) < 50 {
                    let least = answered.load(Ordering::SeqCst);
                    match plain(&handle, &held, NOW) {
                        Ok(secret) => {
                            let number: u64 = secret.strip_prefix("sk-secret-").unwrap().parse().unwrap();
                            assert!(number >= least, "{number} after write {least} was answered");
                        }
                        Err(BrokerError::LeaseRevoked { .. }) => held = lease(&handle, slot),
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
        let handle = broker.handle();
        (1..=50).for_each(|number| put(&handle, number));
    });
    broker.stop().unwrap();
}

#[test]
fn a_write_is_on_disk_before_it_is_answered() {
    let scratch = Scratch::new();
    let root = scratch.open_root();
    let broker = start(&root);
    let copies = Scratch::new();
    let copy_root = copies.open_root();
    for number in 0..5 {
        let status =
            broker.handle().put(record("openai.prod", Provider::OpenAi, &format!("sk-secret-{number}"))).unwrap();
        fs::copy(store_path(&root), store_path(&copy_root)).unwrap();
        assert_eq!(Store::open(&copy_root, key(KEY)).unwrap().list(), [status.status]);
    }
    broker.handle().delete(&id("openai.prod")).unwrap();
    fs::copy(store_path(&root), store_path(&copy_root)).unwrap();
    assert_eq!(Store::open(&copy_root, key(KEY)).unwrap().list(), []);
}

#[test]
fn a_write_that_cannot_be_persisted_changes_nothing_and_works_again_when_the_cause_is_gone() {
    let scratch = Scratch::new();
    let root = scratch.open_root();
    let broker = start(&root);
    let handle = broker.handle();
    let slot = id("openai.prod");
    handle.put(record("openai.prod", Provider::OpenAi, "sk-secret-one")).unwrap();
    let (before, held) = (handle.slots().unwrap(), lease(&handle, &slot));
    let auth = store_path(&root).parent().unwrap().to_path_buf();
    let away = scratch.path().join("away");

    fs::rename(&auth, &away).unwrap();
    for outcome in [
        handle.put(record("openai.prod", Provider::OpenAi, "sk-secret-two")).map(drop),
        handle.put(record("openai.more", Provider::OpenAi, "sk-secret-two")).map(drop),
        handle.delete(&slot).map(drop),
    ] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, BrokerError::Store(_)), "{error}");
        assert!(!format!("{error} {error:?}").contains("sk-secret"), "{error}");
    }
    assert_eq!(handle.slots().unwrap(), before);
    assert_eq!(plain(&handle, &held, NOW).unwrap(), "sk-secret-one");

    fs::rename(&away, &auth).unwrap();
    handle.put(record("openai.prod", Provider::OpenAi, "sk-secret-two")).unwrap();
    assert!(matches!(plain(&handle, &held, NOW), Err(BrokerError::LeaseRevoked { .. })));
}

#[test]
fn a_daemon_without_a_key_runs_and_refuses_writes() {
    let scratch = Scratch::new();
    let root = scratch.open_root();
    let broker = start_broker(&root, Store::open(&root, None).unwrap());
    let handle = broker.handle();
    assert_eq!(handle.slots().unwrap(), []);
    let error = handle.put(record("a", Provider::OpenAi, "sk-secret-one")).unwrap_err();
    assert!(matches!(error, BrokerError::Store(StoreError::KeyMissingForWrite)), "{error}");
}

#[test]
fn a_slot_in_use_is_not_deleted_and_a_missing_one_is_named() {
    let scratch = Scratch::new();
    let root = scratch.open_root();
    let broker = start(&root);
    let handle = broker.handle();
    let slot = id("openai.prod");
    handle.put(record("openai.prod", Provider::OpenAi, "sk-secret-one")).unwrap();
    // Two rooms name slots; what they name changes while the broker runs.
    let names = |slots: &[&str], by: &str| slots.iter().map(|slot| SecretReference::new(*slot, by)).collect::<Vec<_>>();
    handle.references().add(move || names(&["openai.prod", "openai.missing"], "route main"));
    let hooks = Arc::new(AtomicBool::new(true));
    let is_named = hooks.clone();
    handle
        .references()
        .add(move || names(if is_named.load(Ordering::SeqCst) { &["openai.prod"] } else { &[] }, "hook g"));
    let error = handle.delete(&slot).unwrap_err();
    assert!(error.to_string().contains("route main, hook g"), "{error}");
    hooks.store(false, Ordering::SeqCst);
    let error = handle.delete(&slot).unwrap_err();
    assert!(error.to_string().contains("route main;") || error.to_string().ends_with("route main"), "{error}");
    assert_eq!(handle.slots().unwrap().len(), 1);
    let other = id("openai.other");
    handle.put(record("openai.other", Provider::OpenAi, "sk-secret-two")).unwrap();
    handle.delete(&other).unwrap();
    let error = handle.delete(&id("openai.missing")).unwrap_err();
    assert!(matches!(error, BrokerError::SlotMissing { .. }), "{error}");
    assert_eq!(handle.slot(&other).unwrap(), None);
}

#[test]
fn a_lease_is_refused_for_the_wrong_provider_and_for_texts_out_of_bounds() {
    let scratch = Scratch::new();
    let root = scratch.open_root();
    let broker = start(&root);
    let handle = broker.handle();
    let slot = id("anthropic.prod");
    handle.put(record("anthropic.prod", Provider::Anthropic, "sk-secret-one")).unwrap();
    let error = handle.lease(request(&slot, 60_000), NOW).unwrap_err();
    assert!(
        matches!(error, BrokerError::ProviderMismatch { has: Provider::Anthropic, needs: Provider::OpenAi, .. }),
        "{error}"
    );
    let good = LeaseRequest { provider: Provider::Anthropic, ..request(&slot, 60_000) };
    for bad in [
        LeaseRequest { subject: Subject::agent_of("a", "x".repeat(257)), ..good.clone() },
        LeaseRequest { use_for: Use::Route("x".repeat(257)), ..good.clone() },
        LeaseRequest { use_for: Use::Route(String::new()), ..good.clone() },
    ] {
        assert!(matches!(handle.lease(bad, NOW), Err(BrokerError::LeaseText)));
    }
    assert!(handle.lease(good, NOW).is_ok());
}

#[test]
fn readiness_has_the_documented_code_for_each_case() {
    let scratch = Scratch::new();
    let root = scratch.open_root();
    let broker = start(&root);
    let handle = broker.handle();
    handle.put(record("openai.prod", Provider::OpenAi, "sk-secret-one")).unwrap();
    let shown = |auth: RouteAuth| serde_json::to_value(auth).unwrap();

    let ready = shown(handle.route_auth(&id("openai.prod"), Provider::OpenAi));
    let expected = json!({"state": "ok", "code": "route_auth_ready", "message": "slot openai.prod is usable",
                          "auth_mode": "api_key", "auth_summary": "api_key", "auth_updated_at_ms": NOW});
    assert_eq!(ready, expected);

    let missing = shown(handle.route_auth(&id("openai.none"), Provider::OpenAi));
    let expected = json!({"state": "error", "code": "route_auth_ref_missing",
                          "message": "slot openai.none does not exist",
                          "action": "kheish-daemon secrets set openai.none --provider openai"});
    assert_eq!(missing, expected);

    let mismatch = handle.route_auth(&id("openai.prod"), Provider::XAi);
    assert_eq!(mismatch.code, "route_auth_provider_mismatch");
    assert!(mismatch.action.unwrap().contains("--provider xai"));

    broker.stop().unwrap();
    assert_eq!(handle.route_auth(&id("openai.prod"), Provider::OpenAi).code, "route_auth_status_error");
    assert_eq!(RouteAuth::inline().code, "inline_credentials_configured");
}

#[test]
fn present_and_replaced_secrets_are_redacted() {
    let scratch = Scratch::new();
    let root = scratch.open_root();
    let broker = start(&root);
    let handle = broker.handle();
    handle.put(record("openai.prod", Provider::OpenAi, "sk-secret-one")).unwrap();
    handle.put(record("openai.prod", Provider::OpenAi, "sk-secret-two")).unwrap();
    handle.put(record("openai.gone", Provider::OpenAi, "sk-secret-three")).unwrap();
    handle.delete(&id("openai.gone")).unwrap();
    let text = "Incorrect API key provided: sk-secret-one, sk-secret-two, sk-secret-three, c2stc2VjcmV0LXR3bw==";
    let expected = "Incorrect API key provided: <redacted>, <redacted>, <redacted>, <redacted>==";
    assert_eq!(handle.redact(text), expected);
    broker.stop().unwrap();

    // Secrets of the store are known from the start; replaced ones are not kept over a restart.
    let broker = start(&root);
    assert_eq!(broker.handle().redact("sk-secret-two sk-secret-one"), "<redacted> sk-secret-one");
}

#[test]
fn no_secret_shows_in_any_view_error_or_debug_text() {
    let scratch = Scratch::new();
    let root = scratch.open_root();
    let broker = start(&root);
    let handle = broker.handle();
    let slot = id("openai.prod");
    let status = handle.put(record("openai.prod", Provider::OpenAi, "canary-canary")).unwrap().status;
    handle.references().add(|| vec![SecretReference::new("openai.prod", "route main")]);
    let held = lease(&handle, &slot);
    handle.put(record("openai.prod", Provider::OpenAi, "canary-canary-2")).unwrap();
    let mut shown = vec![
        format!("{status:?} {}", serde_json::to_string(&status).unwrap()),
        format!("{:?} {}", handle.slots(), serde_json::to_string(&handle.slots().unwrap()).unwrap()),
        format!("{:?} {:?}", handle.route_auth(&slot, Provider::OpenAi), handle.stats()),
        format!("{held:?}"),
    ];
    for error in [
        handle.redeem(&held, NOW).unwrap_err(),
        handle.redeem(&held, NOW * 2).unwrap_err(),
        handle.delete(&slot).unwrap_err(),
        handle.lease(LeaseRequest { provider: Provider::XAi, ..request(&slot, 1) }, NOW).unwrap_err(),
    ] {
        assert!(error.to_string().contains("; next: "), "{error}");
        shown.push(format!("{error} {error:?}"));
    }
    for text in shown {
        assert!(!text.contains("canary"), "{text}");
    }
}
