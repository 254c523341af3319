//! Debug capture by itself: levels, bounds, encryption, ages, holds, and what a crash or a hand leaves behind.
//! Owns: the checks of `debug_capture` as engines and the API use it. Never: talks to a daemon.

#[path = "support/scratch.rs"]
mod scratch;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use kheish_daemon::broker::MasterKey;
use kheish_daemon::clock::Clock;
use kheish_daemon::core::DebugLevel;
use kheish_daemon::debug_capture::{
    CaptureConfig, CaptureConfigError, CaptureKey, CaptureLimits, DebugCapture, Kind, Standing, Store, StoreError,
    Surroundings,
};
use kheish_daemon::ids::RunId;
use kheish_daemon::worker::Worker;
use scratch::Scratch;

const SECRET: &str = "hunter2-hunter2";
const KEY_TEXT: &str = "0123456789abcdef0123456789abcdef";

struct Hands {
    level: AtomicU8,
    now_ms: AtomicU64,
    held: AtomicBool,
    /// Runs that have not ended.
    active: Mutex<Vec<u32>>,
}

struct SetClock(Arc<Hands>);

impl Clock for SetClock {
    fn now_ms(&self) -> u64 {
        self.0.now_ms.load(Ordering::SeqCst)
    }
}

const LEVELS: [DebugLevel; 4] = [DebugLevel::Off, DebugLevel::On, DebugLevel::Redacted, DebugLevel::Full];

struct World {
    capture: DebugCapture,
    hands: Arc<Hands>,
    worker: Option<Worker>,
    scratch: Scratch,
}

impl World {
    fn new(name: &str, config: CaptureConfig) -> Self {
        Self::within(Scratch::new(&format!("debug-{name}")), config)
    }

    fn within(scratch: Scratch, config: CaptureConfig) -> Self {
        let hands = Arc::new(Hands {
            level: AtomicU8::new(0),
            // The age of a file is that of the file system's clock.
            now_ms: AtomicU64::new(unix_ms()),
            held: AtomicBool::new(false),
            active: Mutex::default(),
        });
        let (of_level, of_standing) = (hands.clone(), hands.clone());
        let surroundings = Surroundings {
            level: Box::new(move || LEVELS[usize::from(of_level.level.load(Ordering::SeqCst))]),
            redact: Box::new(|text| text.replace(SECRET, "<redacted>")),
            standing: Box::new(move |run| {
                if of_standing.held.load(Ordering::SeqCst) {
                    Standing::Held
                } else if of_standing.active.lock().expect("unpoisoned").contains(&run.number) {
                    Standing::Active
                } else {
                    Standing::Ended
                }
            }),
            clock: Arc::new(SetClock(hands.clone())),
        };
        let store = Store::open(scratch.path().to_path_buf(), config);
        let (capture, worker) = DebugCapture::start(store, surroundings).expect("a thread");
        Self { capture, hands, worker: Some(worker), scratch }
    }

    fn level(&self, level: DebugLevel) {
        let at = LEVELS.iter().position(|known| *known == level).expect("known");
        self.hands.level.store(at as u8, Ordering::SeqCst);
    }

    fn capture(&self, number: u32, text: &str) {
        self.capture.capture(run(number), Kind::ProviderRequest, || text.as_bytes().to_vec());
        self.capture.settle();
    }

    fn bodies(&self, number: u32) -> Vec<String> {
        let Ok(artifacts) = self.capture.store().list(run(number)) else { return Vec::new() };
        let read = |id: &str| self.capture.store().read(run(number), id).expect("readable");
        artifacts.iter().map(|artifact| String::from_utf8(read(&artifact.artifact_id)).expect("UTF-8")).collect()
    }

    /// Ends the thread and gives the directory to the next one.
    fn stop(mut self) -> Scratch {
        self.capture.stop();
        self.worker.take().expect("once").join().expect("no panic");
        std::mem::replace(&mut self.scratch, Scratch::new("debug-empty"))
    }
}

fn unix_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

fn run(number: u32) -> RunId {
    RunId { number, epoch: 0 }
}

fn limits(change: impl FnOnce(&mut CaptureLimits)) -> CaptureConfig {
    let mut limits = CaptureLimits::default();
    change(&mut limits);
    CaptureConfig { limits, key: None }
}

fn key() -> CaptureKey {
    CaptureKey::new(&MasterKey::parse(KEY_TEXT.as_bytes(), "a test").expect("a key"))
}

#[test]
fn while_it_is_off_nothing_is_even_asked_for() {
    let world = World::new("off", CaptureConfig::default());
    world.capture.capture(run(1), Kind::ToolRequest, || panic!("nobody wants these bytes"));
    world.capture.settle();
    assert!(!world.capture.is_on());
    assert!(matches!(world.capture.store().list(run(1)), Err(StoreError::NoRun(_))));
    assert!(fs::read_dir(world.scratch.path()).expect("there").next().is_none(), "no directory either");
    world.stop();
}

#[test]
fn each_level_keeps_its_part_and_no_level_keeps_a_secret() {
    let world = World::new("levels", CaptureConfig::default());
    let text = format!(r#"{{"prompt":"say {SECRET} {}","api_key":"k","n":1}}"#, "and more ".repeat(100));
    for level in [DebugLevel::On, DebugLevel::Redacted, DebugLevel::Full] {
        world.level(level);
        world.capture(1, &text);
    }
    let bodies = world.bodies(1);
    assert_eq!(bodies.len(), 3);
    assert!(bodies[0].contains("sha256") && !bodies[0].contains("say"));
    assert!(bodies[1].contains("bytes cut]") && bodies[2].contains(&"and more ".repeat(100)));
    for entry in
        fs::read_dir(world.scratch.path().join("run-1")).expect("there").map(|entry| entry.expect("entry").path())
    {
        let file = fs::read(&entry).expect("readable");
        assert!(!String::from_utf8_lossy(&file).contains("hunter2"), "{}", entry.display());
        assert_eq!(fs::metadata(&entry).expect("there").permissions().mode() & 0o777, 0o600);
    }
    let directory = fs::metadata(world.scratch.path().join("run-1")).expect("there");
    assert_eq!(directory.permissions().mode() & 0o777, 0o700);
    let artifacts = world.capture.store().list(run(1)).expect("three");
    let ids: Vec<&str> = artifacts.iter().map(|artifact| artifact.artifact_id.as_str()).collect();
    assert_eq!(ids, ["00001-provider_request", "00002-provider_request", "00003-provider_request"]);
    assert_eq!(artifacts.iter().map(|artifact| artifact.level).collect::<Vec<_>>(), LEVELS[1..]);
    world.stop();
}

#[test]
fn what_waits_when_the_level_goes_down_is_not_kept_at_the_old_one() {
    let world = World::new("down", CaptureConfig::default());
    world.level(DebugLevel::Full);
    let gate = Arc::new(AtomicBool::new(false));
    // The bytes are made while the level is full; it is off before the thread can have them.
    let (level, seen) = (world.hands.clone(), gate.clone());
    world.capture.capture(run(1), Kind::ToolResponse, move || {
        level.level.store(0, Ordering::SeqCst);
        seen.store(true, Ordering::SeqCst);
        b"{\"late\":true}".to_vec()
    });
    world.capture.settle();
    assert!(gate.load(Ordering::SeqCst));
    assert_eq!(world.bodies(1), Vec::<String>::new());
    world.stop();
}

#[test]
fn a_run_keeps_its_newest_artifacts_within_both_bounds() {
    let by_count = World::new("count", limits(|limits| limits.run_artifacts_max = 3));
    by_count.level(DebugLevel::Full);
    for n in 0..10 {
        by_count.capture(1, &format!("{{\"n\":{n}}}"));
    }
    assert_eq!(by_count.bodies(1), ["{\"n\":7}", "{\"n\":8}", "{\"n\":9}"]);
    by_count.stop();

    let by_bytes = World::new("bytes", limits(|limits| limits.run_bytes_max = 10));
    by_bytes.level(DebugLevel::Full);
    by_bytes.capture(1, "{\"n\":1}");
    by_bytes.capture(1, &format!("\"{}\"", "x ".repeat(500)));
    assert_eq!(by_bytes.bodies(1).len(), 1, "never without the newest, whatever its size");
    by_bytes.stop();

    let by_size = World::new("size", limits(|limits| limits.artifact_bytes_max = 600));
    by_size.level(DebugLevel::Full);
    by_size.capture(1, &format!("\"{}\"", "x ".repeat(5_000)));
    let artifact = by_size.capture.store().list(run(1)).expect("one").remove(0);
    assert!(artifact.truncated && artifact.plaintext_bytes <= 600 && artifact.original_bytes > Some(10_000));
    by_size.stop();
}

#[test]
fn encrypted_bodies_open_with_their_key_alone_and_no_byte_may_change() {
    let world = World::new("sealed", CaptureConfig { limits: CaptureLimits::default(), key: Some(key()) });
    world.level(DebugLevel::Full);
    world.capture(1, "{\"plain\":\"words in the clear\"}");
    let artifact = world.capture.store().list(run(1)).expect("one").remove(0);
    assert!(artifact.encrypted && artifact.encryption_key_id.as_deref() == Some(key().id()));
    assert_eq!(world.bodies(1), ["{\"plain\":\"words in the clear\"}"]);
    let path = world.scratch.path().join("run-1").join(&artifact.artifact_id);
    let file = fs::read(&path).expect("readable");
    assert!(!String::from_utf8_lossy(&file).contains("words in the clear"));
    let id = artifact.artifact_id;
    let scratch = world.stop();

    let other = MasterKey::parse(b"ffeeddccbbaa99887766554433221100", "a test").expect("a key");
    for (key, cause) in [(None, "does not have"), (Some(CaptureKey::new(&other)), "does not have")] {
        let store = Store::open(scratch.path().to_path_buf(), CaptureConfig { limits: CaptureLimits::default(), key });
        let error = store.read(run(1), &id).expect_err("another key").to_string();
        assert!(error.contains(cause) && error.contains("next: "), "{error}");
    }
    let store =
        Store::open(scratch.path().to_path_buf(), CaptureConfig { limits: CaptureLimits::default(), key: Some(key()) });
    for at in 0..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 1;
        fs::write(&path, &changed).expect("writable");
        assert!(store.read(run(1), &id).is_err(), "byte {at} was changed and nobody noticed");
    }
    fs::write(&path, &file[..file.len() - 1]).expect("writable");
    assert!(matches!(store.read(run(1), &id), Err(StoreError::Unreadable { .. })));
    fs::write(&path, &file).expect("writable");
    assert!(store.read(run(1), &id).is_ok());
}

#[test]
fn an_artifact_in_the_clear_is_compared_with_its_digest() {
    let world = World::new("digest", CaptureConfig::default());
    world.level(DebugLevel::Full);
    world.capture(1, "{\"a\":1}");
    let path = world.scratch.path().join("run-1/00001-provider_request");
    let file = fs::read_to_string(&path).expect("readable");
    fs::write(&path, file.replace("{\"a\":1}", "{\"a\":2}")).expect("writable");
    assert!(matches!(world.capture.store().read(run(1), "00001-provider_request"), Err(StoreError::Unreadable { .. })));
    world.stop();
}

#[test]
fn no_id_leads_out_of_the_runs_directory() {
    let world = World::new("ids", CaptureConfig::default());
    world.level(DebugLevel::Full);
    world.capture(1, "{}");
    fs::write(world.scratch.path().join("outside"), "x").expect("writable");
    for id in
        ["", ".", "..", "../outside", "/etc/passwd", "00001-provider_request/..", "a b", "A", "\0", &"a".repeat(65)]
    {
        assert!(matches!(world.capture.store().read(run(1), id), Err(StoreError::NoArtifact(_))), "{id:?}");
    }
    world.stop();
}

#[test]
fn old_artifacts_of_ended_runs_go_and_those_of_active_or_held_runs_stay() {
    let config = || limits(|limits| limits.ttl_ms = 60_000);
    let world = World::new("ttl", config());
    world.level(DebugLevel::Full);
    for number in 1..=3 {
        world.capture(number, "{}");
    }
    let left =
        |world: &World| world.capture.store().bundles().iter().map(|bundle| bundle.run_id.number).collect::<Vec<_>>();
    assert_eq!(left(&world), [1, 2, 3]);
    let scratch = world.stop();

    // Each start looks at once. The first one happens within the age.
    let world = World::within(scratch, config());
    world.capture.settle();
    assert_eq!(left(&world), [1, 2, 3]);
    let scratch = world.stop();

    let aged = |name: &str, scratch: Scratch, held: bool, active: Vec<u32>| {
        // The thread begins to look as soon as it starts, so what it is told must stand before.
        let hands = Arc::new(Hands {
            level: AtomicU8::new(0),
            now_ms: AtomicU64::new(unix_ms() + 120_000),
            held: AtomicBool::new(held),
            active: Mutex::new(active),
        });
        let of_standing = hands.clone();
        let surroundings = Surroundings {
            level: Box::new(|| DebugLevel::Off),
            redact: Box::new(str::to_string),
            standing: Box::new(move |run| match run.number {
                _ if of_standing.held.load(Ordering::SeqCst) => Standing::Held,
                number if of_standing.active.lock().expect("unpoisoned").contains(&number) => Standing::Active,
                _ => Standing::Ended,
            }),
            clock: Arc::new(SetClock(hands)),
        };
        let store = Store::open(scratch.path().to_path_buf(), config());
        let (capture, worker) = DebugCapture::start(store, surroundings).expect("a thread");
        capture.settle();
        let left: Vec<u32> = capture.store().bundles().iter().map(|bundle| bundle.run_id.number).collect();
        capture.stop();
        worker.join().expect(name);
        (left, scratch)
    };
    let (left, scratch) = aged("held", scratch, true, Vec::new());
    assert_eq!(left, [1, 2, 3], "held");
    let (left, scratch) = aged("active", scratch, false, vec![2]);
    assert_eq!(left, [2], "one is active");
    let (left, _scratch) = aged("ended", scratch, false, Vec::new());
    assert_eq!(left, Vec::<u32>::new());
}

#[test]
fn the_whole_store_is_bounded_and_the_oldest_run_goes_first() {
    let world = World::new("store", limits(|limits| limits.store_bytes_max = 40_000));
    world.level(DebugLevel::Full);
    for number in 1..=20 {
        world.capture(number, &format!("\"{}\"", "x ".repeat(2_500)));
    }
    let bundles = world.capture.store().bundles();
    let bytes: u64 = bundles.iter().map(|bundle| bundle.bytes).sum();
    // One look for each eighth of the bound that is written.
    assert!(bytes <= 40_000 + 2 * 6_000, "{bytes}");
    assert_eq!(bundles.last().map(|bundle| bundle.run_id.number), Some(20));
    assert!(!bundles.iter().any(|bundle| bundle.run_id.number == 1));
    world.stop();
}

#[test]
fn a_mailbox_that_is_full_drops_and_says_so() {
    let world = World::new("full", CaptureConfig::default());
    world.level(DebugLevel::Full);
    let huge = vec![b'x'; 65 * 1024 * 1024];
    world.capture.capture(run(1), Kind::ToolResponse, move || huge);
    world.capture.settle();
    assert_eq!(world.capture.stats().artifacts_dropped, 1);
    world.capture(1, "{}");
    assert_eq!((world.capture.stats().artifacts_written, world.bodies(1).len()), (1, 1), "the room is given back");
    world.stop();
}

#[test]
fn what_cannot_be_written_is_counted_and_hurts_nobody() {
    let world = World::new("unwritable", CaptureConfig::default());
    world.level(DebugLevel::Full);
    // A file stands where the run's directory should.
    fs::write(world.scratch.path().join("run-1"), "x").expect("writable");
    world.capture(1, "{}");
    world.capture(2, "{}");
    let stats = world.capture.stats();
    assert_eq!((stats.debug_artifact_persist_failures, stats.artifacts_written), (1, 1));
    world.stop();
}

#[test]
fn what_a_crash_left_half_written_is_removed_and_never_listed() {
    let world = World::new("crash", CaptureConfig::default());
    world.level(DebugLevel::Full);
    world.capture(1, "{}");
    let half = world.scratch.path().join("run-1/.00002-tool_request");
    fs::write(&half, "half").expect("writable");
    fs::write(world.scratch.path().join("run-1/00003-tool_request"), "no artifact").expect("writable");
    assert_eq!(world.bodies(1), ["{}"]);
    let scratch = world.stop();
    let world = World::within(scratch, CaptureConfig::default());
    assert!(!half.exists());
    world.level(DebugLevel::Full);
    world.capture(1, "{\"n\":2}");
    let ids: Vec<String> =
        world.capture.store().list(run(1)).expect("two").into_iter().map(|artifact| artifact.artifact_id).collect();
    assert_eq!(ids, ["00001-provider_request", "00004-provider_request"], "numbers go on");
    world.stop();
}

#[test]
fn settings_come_from_the_environment_and_bad_ones_are_refused() {
    let read = |variables: &[(&str, &str)], master: Option<&MasterKey>| {
        let get = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into());
        CaptureConfig::from_variables(get, master)
    };
    let defaults = read(&[("KHEISH_DEBUG_TTL_MS", "")], None).expect("empty is unset");
    assert_eq!(defaults.limits, CaptureLimits::default());
    assert!(defaults.key.is_none());
    let set = read(&[("KHEISH_DEBUG_MAX_ARTIFACT_BYTES", "512"), ("KHEISH_DEBUG_TTL_MS", "0")], None).expect("legal");
    assert_eq!((set.limits.artifact_bytes_max, set.limits.ttl_ms), (512, 0));
    for (name, value) in [
        ("KHEISH_DEBUG_MAX_ARTIFACT_BYTES", "511"),
        ("KHEISH_DEBUG_MAX_ARTIFACT_BYTES", "67108865"),
        ("KHEISH_DEBUG_MAX_RUN_BYTES", "-1"),
        ("KHEISH_DEBUG_MAX_ARTIFACTS_PER_RUN", "0"),
        ("KHEISH_DEBUG_GC_INTERVAL_MS", "1"),
        ("KHEISH_DEBUG_TTL_MS", "7d"),
    ] {
        let error = read(&[(name, value)], None).expect_err(name).to_string();
        assert!(error.starts_with(name) && error.contains("next: "), "{error}");
    }
    let master = MasterKey::parse(KEY_TEXT.as_bytes(), "a test").expect("a key");
    let of_store = read(&[("KHEISH_DEBUG_CAPTURE_ENCRYPT", "auth-store")], Some(&master)).expect("legal");
    assert_eq!(of_store.key.expect("a key").id(), key().id());
    assert_eq!(
        read(&[("KHEISH_DEBUG_CAPTURE_ENCRYPT", "auth-store")], None).expect_err("no key"),
        CaptureConfigError::NoMasterKey
    );
    assert_eq!(
        read(&[("KHEISH_DEBUG_CAPTURE_ENCRYPT", "yes")], Some(&master)).expect_err("no such value"),
        CaptureConfigError::Encrypt
    );
    assert!(read(&[("KHEISH_DEBUG_CAPTURE_KEY", KEY_TEXT)], None).expect("legal").key.is_some());
    for variables in [
        &[("KHEISH_DEBUG_CAPTURE_KEY", "short")][..],
        &[("KHEISH_DEBUG_CAPTURE_KEY", KEY_TEXT), ("KHEISH_DEBUG_CAPTURE_KEY_FILE", "/nowhere")],
        &[("KHEISH_DEBUG_CAPTURE_KEY_FILE", "/nowhere/at/all")],
    ] {
        let error = read(variables, None).expect_err("unusable").to_string();
        assert!(error.contains("KHEISH_DEBUG_CAPTURE_KEY") && !error.contains("AUTH_STORE"), "{error}");
        assert!(!error.contains(KEY_TEXT), "{error}");
    }
}
