//! A repeated submission is told by its fingerprint, over upgrades too: runs of earlier versions have one without a key.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use std::sync::Arc;

use daemon::{Home, Provider};
use kheish_daemon::api::request_mac::RequestMac;
use kheish_daemon::api::submit::{SubmitInput, idempotency_hashes, unkeyed_fingerprint};
use kheish_daemon::audit::key::{KeySources, SigningKey};
use kheish_daemon::clock::{Clock, SystemClock};
use kheish_daemon::commit::{CommitLoop, Effects, Parts, Restored, Snapshotter};
use kheish_daemon::core::{Command, Decision, IdempotencyKey};
use kheish_daemon::ids::SessionId;
use kheish_daemon::journal::{Journal, Options, RealDisk};
use kheish_daemon::state_root::{Directory, StateRoot};
use kheish_daemon::worker::Worker;
use serde_json::json;

/// A state root as an earlier version leaves it: one session, and one run whose fingerprint has no key.
fn leave_older_root(home: &Home, session: &str, key: &str, body: &str) {
    let root = StateRoot::open(&home.root(), true).unwrap();
    let sources = KeySources { state_root: root.path(), inline: None, file: None, nothing_signed: true };
    let signer = Arc::new(SigningKey::load_or_create(sources, &ring::rand::SystemRandom::new()).unwrap().0);
    let disk = |directory| Box::new(RealDisk::open(&root.directory(directory)).unwrap());
    let options = Options { segment_bytes: 1024 * 1024, ..Options::default() };
    let mut restored = Restored::default();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (segments, states) = (disk(Directory::Journal), disk(Directory::Snapshots));
    let (journal, _) = Journal::open(segments, states, options, signer, clock.now_ms(), &mut restored).unwrap();
    let mut state = restored.state;
    state.open_epoch(journal.epoch());
    state.finish_replay();
    let (_snapshotter, snapshots) = Snapshotter::new();
    let (core_loop, core) = CommitLoop::new(Parts {
        state,
        journal,
        clock,
        effects: Effects {
            committed: Box::new(|| {}),
            stopped: Box::new(|_| {}),
            stop_task: Box::new(|_, _| {}),
            acted: Box::new(|_| {}),
        },
        answers: None,
        snapshots,
        snapshot_interval_records: u64::MAX,
        records_since_snapshot: 0,
    });
    let thread = Worker::spawn("core", move || core_loop.run().unwrap()).unwrap();
    let session = SessionId::parse(session).unwrap();
    core.execute(Command::CreateSession { id: session.clone(), thread_id: None }).unwrap();
    let submission = serde_json::from_str::<SubmitInput>(body).unwrap().check(None).unwrap();
    let fingerprint = unkeyed_fingerprint(&submission);
    // The key itself was hashed then as it is now.
    let mac = RequestMac::new(b"of no consequence");
    let key = idempotency_hashes(&mac, &session, key, &submission).key;
    let command = Command::SubmitRun {
        session,
        request: submission.request,
        route: "main".to_string(),
        model: "scripted".to_string(),
        idempotency: Some(IdempotencyKey { key, fingerprint }),
    };
    assert!(matches!(core.execute(command).unwrap(), Decision::Accepted { .. }));
    core.stop();
    thread.join().unwrap();
}

#[test]
fn a_submission_that_an_earlier_version_took_is_the_same_run_and_another_text_under_its_key_is_refused() {
    let provider = Provider::start("");
    let home = Home::new("older-fingerprints", Some(&provider));
    leave_older_root(&home, "ops", "key-1", r#"{"content":"deploy the service"}"#);
    let daemon = home.start();
    let submit =
        |text: &str| daemon.post("/v1/sessions/ops/runs", &json!({"content": text, "idempotency_key": "key-1"}));
    let again = submit("deploy the service");
    assert_eq!((again.status, again.json()["run_id"].as_str()), (202, daemon.all_runs()[0]["run_id"].as_str()));
    assert_eq!(submit("deploy another service").refusal(), (409, "idempotency_conflict".to_string()));
    assert_eq!(daemon.all_runs().len(), 1, "one run, however often it is asked for");
    let run = again.json()["run_id"].as_str().unwrap().to_string();
    assert_eq!(daemon.wait_end(&run), "completed");
    assert_eq!(submit("deploy the service").json()["run_id"], again.json()["run_id"], "after its end as well");
    daemon.stop();
}
