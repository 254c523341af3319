//! What the auth store promises: all of it or nothing, a clear reason, and no secret anywhere else.

mod state_root_scratch;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use kheish_daemon::broker::{LeaseRequest, Provider, Store, StoreError, Subject, SubjectId, Use};
use state_root_scratch::{KEY, OTHER_KEY, Scratch, id, key, record, refusal, start_broker, store_path};

const CANARY: &str = "canary-sk-4f9d2c?~>end";

#[test]
fn slots_survive_a_reopen_and_a_deleted_one_stays_away() {
    let scratch = Scratch::new();
    let root = scratch.open_root();
    let mut store = Store::open(&root, key(KEY)).unwrap();
    for (slot, provider) in [("b", Provider::OpenAi), ("a", Provider::Generic), ("c", Provider::Anthropic)] {
        store.put(record(slot, provider, CANARY)).unwrap();
    }
    assert!(store.delete(&id("c")).unwrap());
    assert!(!store.delete(&id("c")).unwrap());
    let before = store.list();
    drop(store);

    let store = Store::open(&root, key(KEY)).unwrap();

    assert_eq!(store.list(), before);
    let ids: Vec<_> = before.iter().map(|status| status.slot_id.as_str()).collect();
    assert_eq!(ids, ["a", "b"]);
    assert_eq!((store.get(&id("b")), store.get(&id("c"))), (Some(before[1].clone()), None));
    assert_eq!(fs::metadata(store_path(&root)).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn a_wrong_key_is_told_apart_from_damage() {
    let scratch = Scratch::new();
    let root = scratch.open_root();
    Store::open(&root, key(KEY)).unwrap().put(record("a", Provider::OpenAi, CANARY)).unwrap();

    let error = refusal(Store::open(&root, key(OTHER_KEY)));
    assert!(matches!(error, StoreError::WrongKey { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("global-slots.json") && text.contains("KHEISH_AUTH_STORE_MASTER_KEY_FILE"), "{text}");

    let path = store_path(&root);
    let whole = fs::read(&path).unwrap();
    for position in 0..whole.len() {
        for flip in [0x01, 0x20, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[position] ^= flip;
            fs::write(&path, &damaged).unwrap();
            let error = refusal(Store::open(&root, key(KEY)));
            assert!(matches!(error, StoreError::Damaged { .. }), "byte {position} ^ {flip:#x}: {error}");
        }
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(Store::open(&root, key(KEY)).unwrap().list().len(), 1);
}

#[test]
fn without_a_key_an_existing_store_is_refused_and_an_absent_one_is_empty_and_not_writable() {
    let scratch = Scratch::new();
    let root = scratch.open_root();
    let mut store = Store::open(&root, None).unwrap();
    assert_eq!(store.list(), []);
    let error = store.put(record("a", Provider::OpenAi, CANARY)).unwrap_err();
    assert!(matches!(error, StoreError::KeyMissingForWrite), "{error}");
    assert_eq!(store.list(), []);
    assert!(!store_path(&root).exists());
    drop(store);

    Store::open(&root, key(KEY)).unwrap().put(record("a", Provider::OpenAi, CANARY)).unwrap();
    let error = refusal(Store::open(&root, None));
    assert!(matches!(error, StoreError::KeyMissing { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("KHEISH_AUTH_STORE_MASTER_KEY or KHEISH_AUTH_STORE_MASTER_KEY_FILE"), "{text}");
}

#[test]
fn a_file_that_is_not_an_encrypted_store_of_this_version_is_refused_and_kept() {
    let scratch = Scratch::new();
    let root = scratch.open_root();
    let path = store_path(&root);
    let plaintext = format!(r#"{{"slots":{{"a":{{"slot_id":"a","state":{{"api_key":"{CANARY}"}}}}}}}}"#);
    let newer = r#"{"version":2,"key_fingerprint":"00","salt":"","nonce":"","ciphertext":""}"#;
    let kinds = [("plaintext", plaintext.as_str()), ("newer", newer), ("damaged", ""), ("damaged", CANARY)];
    for (kind, text) in kinds {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for given in [key(KEY), None] {
            let error = refusal(Store::open(&root, given));
            let found = match &error {
                StoreError::Plaintext { .. } => "plaintext",
                StoreError::Newer { version: 2, .. } => "newer",
                StoreError::Damaged { .. } => "damaged",
                _ => "other",
            };
            assert_eq!(found, kind, "{error}");
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
            assert!(error.to_string().contains("; next: "), "{error}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn a_store_that_others_may_read_or_that_is_no_plain_file_is_refused() {
    let scratch = Scratch::new();
    let root = scratch.open_root();
    let path = store_path(&root);
    Store::open(&root, key(KEY)).unwrap().put(record("a", Provider::OpenAi, CANARY)).unwrap();
    for mode in [0o640, 0o604, 0o620, 0o666] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = refusal(Store::open(&root, key(KEY)));
        assert!(matches!(error, StoreError::ModeTooOpen { mode: found, .. } if found == mode), "{error}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let moved = scratch.path().join("elsewhere");
    fs::rename(&path, &moved).unwrap();
    symlink(&moved, &path).unwrap();
    assert!(matches!(refusal(Store::open(&root, key(KEY))), StoreError::NotAFile { .. }));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(refusal(Store::open(&root, key(KEY))), StoreError::NotAFile { .. }));
}

#[test]
fn a_save_cut_short_leaves_the_former_store_and_its_leftover_is_removed() {
    let scratch = Scratch::new();
    let root = scratch.open_root();
    let path = store_path(&root);
    let leftover = path.with_file_name(".global-slots.json.tmp");
    Store::open(&root, key(KEY)).unwrap().put(record("a", Provider::OpenAi, CANARY)).unwrap();
    let whole = fs::read(&path).unwrap();
    for length in [0, 1, whole.len() / 2, whole.len()] {
        fs::write(&leftover, &whole[..length]).unwrap();
        assert_eq!(Store::open(&root, key(KEY)).unwrap().list().len(), 1);
        assert!(!leftover.exists());
    }
}

/// An operator restores a store under a running daemon, or two programs share one: the next save must not
/// silently undo the other's work.
#[test]
fn a_store_changed_by_another_program_is_not_overwritten() {
    let scratch = Scratch::new();
    let root = scratch.open_root();
    let path = store_path(&root);
    let mut store = Store::open(&root, key(KEY)).unwrap();
    store.put(record("a", Provider::OpenAi, CANARY)).unwrap();
    let mine = fs::read(&path).unwrap();

    fs::remove_file(&path).unwrap();
    assert!(matches!(store.put(record("b", Provider::OpenAi, CANARY)), Err(StoreError::ChangedOutside { .. })));
    assert!(!path.exists());
    fs::write(&path, &mine).unwrap();
    assert!(matches!(store.delete(&id("a")), Err(StoreError::ChangedOutside { .. })));
    assert_eq!(fs::read(&path).unwrap(), mine);
    assert_eq!(store.list().len(), 1);
}

#[test]
fn no_secret_is_in_the_file_in_any_encoding() {
    let scratch = Scratch::new();
    let root = scratch.open_root();
    let mut store = Store::open(&root, key(KEY)).unwrap();
    store.put(record("a", Provider::OpenAi, CANARY)).unwrap();
    store.put(record("b", Provider::Generic, CANARY)).unwrap();
    let text = fs::read_to_string(store_path(&root)).unwrap().to_lowercase();
    let hex: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    for needle in [CANARY, "canary", &hex, "y2fuyxj5", "slot_id", "openai"] {
        assert!(!text.contains(needle), "{needle}");
    }
    let shown = serde_json::to_string(&store.list()).unwrap() + &format!("{:?}", store.list());
    assert!(!shown.contains("canary"), "{shown}");
}

/// The file was written by the first build of this format. It must stay readable for as long as version 1 is.
#[test]
fn a_store_of_the_first_build_is_still_read() {
    let scratch = Scratch::new();
    let root = scratch.open_root();
    fs::write(store_path(&root), include_bytes!("data/secrets/global-slots.v1.json")).unwrap();
    fs::set_permissions(store_path(&root), fs::Permissions::from_mode(0o600)).unwrap();
    let broker = start_broker(&root, Store::open(&root, key(KEY)).unwrap());
    let handle = broker.handle();

    let shown = serde_json::to_value(handle.slots().unwrap()).unwrap();
    let expected = serde_json::json!([
        {"slot_id": "anthropic.prod", "provider": "anthropic", "mode": "api_key", "summary": "api_key",
         "updated_at_ms": 1_767_225_600_000u64},
        {"slot_id": "openai.prod", "provider": "open_ai", "mode": "api_key", "summary": "api_key",
         "updated_at_ms": 1_767_225_600_001u64},
        {"slot_id": "sidecars.webhook.routes", "provider": "generic", "mode": "opaque_secret",
         "summary": "opaque_secret", "updated_at_ms": 1_767_225_600_002u64},
    ]);
    assert_eq!(shown, expected);
    let request = LeaseRequest {
        subject: Subject::alone(SubjectId::parse("daemon").unwrap()),
        slot: id("openai.prod"),
        provider: Provider::OpenAi,
        use_for: Use::Route("main".to_string()),
        ttl_ms: 60_000,
    };
    let lease = handle.lease(request, 1).unwrap();
    assert_eq!(lease.version, 4);
    let credential = handle.redeem(&lease, 1).unwrap();
    assert_eq!(credential.secret.expose(), b"sk-sample-openai");
    assert_eq!((lease.organization.as_deref(), lease.project.as_deref()), (Some("org-sample"), None));
}
