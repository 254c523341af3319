//! The real binary across restarts, copies, damage and stops: what was accepted stays accepted, and comes to its end.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use daemon::{Daemon, Home, Provider};
use http::{Frame, is_terminal};
use kheish_daemon::limits::ENGINE_WORKERS;
use serde_json::{Value, json};

/// Answers everything at once, except the first input with "stall" in it, which it leaves without an end.
const STALLS_ONCE: &str = "[[turn]]\nmatch = \"stall\"\ntimes = 1\nfault = { kind = \"hang\" }\n";
/// Leaves every input with "hang" in it without an end.
const HANGS: &str = "[[turn]]\nmatch = \"hang\"\nfault = { kind = \"hang\" }\n";
/// What a prompt stop may take: a committed batch and a closed socket, with room for a slow machine. Without the stop the
/// run would hang for minutes.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// The text that a run has put out.
fn output_of(run: &Value) -> &str {
    assert_eq!(run["outputs"].as_array().map(Vec::len), Some(1), "{run}");
    run["outputs"][0]["content"].as_str().unwrap_or_else(|| panic!("{run}"))
}

/// Every file below `folder` with its bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let bytes = fs::read(&path).expect("a file");
            found.insert(path, bytes);
        }
    }
    found
}

/// The segment that was written last.
fn tail_segment(root: &Path) -> PathBuf {
    let names =
        files(&root.join("journal")).into_keys().filter(|path| path.extension().is_some_and(|end| end == "jsonl"));
    names.max().expect("a segment")
}

/// Bytes up to and with the last line feed: what stands before the padding.
fn written_bytes(segment: &Path) -> u64 {
    let bytes = fs::read(segment).expect("a segment");
    bytes.iter().rposition(|byte| *byte == b'\n').expect("a line") as u64 + 1
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).open(path).expect("a file");
    file.seek(SeekFrom::Start(offset)).expect("a place in it");
    file.write_all(bytes).expect("room for it");
}

/// Everything with an id that the daemon shows, up to an event made for the purpose.
fn all_frames(daemon: &Daemon, marker: &str) -> Vec<Frame> {
    let mut stream = daemon.stream("/v1/events/stream?cursor=0");
    daemon.create_session(marker);
    let mut frames = Vec::new();
    stream.until("the marker", |frame| {
        frames.extend(frame.id.is_some().then(|| frame.clone()));
        frame.event == "session_state_changed" && frame.json()["session_id"] == marker
    });
    frames
}

fn ids(frames: &[Frame]) -> BTreeSet<u64> {
    frames.iter().filter_map(|frame| frame.id).collect()
}

#[test]
fn a_second_daemon_on_a_held_root_is_refused_and_changes_nothing() {
    let home = Home::new("held", None);
    let first = home.serve().options(&["--hold"]).start();
    first.create_session("s");
    first.submit("s", "mine");
    // Whatever the first one would write meanwhile, a probe or a line of its audit file, is none of the second one's doing.
    first.freeze();
    let before = files(&home.root());

    let (code, log) = home.serve().refused();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains(&format!("is held by process {} ", first.pid())), "{log}");
    assert!(log.contains("next: "), "{log}");
    assert!(files(&home.root()) == before, "the refused daemon changed the state root");
    first.thaw();
    assert_eq!(first.try_submit("s", "still mine").status, 202);
}

/// A copy beside its original is what a careless restore makes of a backup.
#[test]
fn a_copied_root_and_its_original_never_give_the_same_id_to_new_runs_or_events() {
    let provider = Provider::start("");
    let home = Home::new("copy", Some(&provider));
    let original = home.start();
    original.create_session("s");
    let shared_run = original.submit("s", "before the copy");
    assert_eq!(original.wait_end(&shared_run), "completed");
    original.stop();
    let copy_root = home.join("copy");
    let copied = Command::new("cp").arg("-a").arg(home.root()).arg(&copy_root).status().expect("cp");
    assert!(copied.success());

    let original = home.start();
    let copy = home.serve().root(&copy_root).start();
    let new_runs = |daemon: &Daemon| -> BTreeSet<String> {
        (0..5).map(|n| daemon.submit("s", &format!("after the copy {n}"))).collect()
    };
    let (original_runs, copy_runs) = (new_runs(&original), new_runs(&copy));
    for (daemon, runs) in [(&original, &original_runs), (&copy, &copy_runs)] {
        assert_eq!(runs.len(), 5, "{runs:?}");
        assert!(runs.iter().all(|run| daemon.wait_end(run) == "completed"), "{runs:?}");
        assert_eq!(output_of(&daemon.run(&shared_run)), "before the copy");
    }
    assert!(original_runs.is_disjoint(&copy_runs), "{original_runs:?} {copy_runs:?}");

    let (original_frames, copy_frames) = (all_frames(&original, "marker"), all_frames(&copy, "marker"));
    let shared: Vec<&Frame> =
        original_frames.iter().filter(|frame| ids(&copy_frames).contains(&frame.id.expect("kept"))).collect();
    let past: Vec<&Frame> = copy_frames[..shared.len()].iter().collect();
    assert_eq!(shared, past, "an event id means the same on both sides");
    assert!(shared.iter().all(|frame| !frame.data.contains("after the copy") && !frame.data.contains("marker")));

    let newest = |frames: &[Frame]| frames.last().and_then(|frame| frame.id).expect("events");
    for (daemon, foreign) in [(&original, newest(&copy_frames)), (&copy, newest(&original_frames))] {
        let first = daemon.stream(&format!("/v1/events/stream?cursor={foreign}")).next().expect("a frame");
        let reason = first.json()["reason"].clone();
        assert_eq!((first.event.as_str(), reason.as_str()), ("stream_gap", Some("restart_epoch")), "{first:?}");
    }
}

#[test]
fn a_flipped_bit_in_the_middle_of_the_journal_refuses_the_start_and_names_file_and_offset() {
    let home = Home::new("flip", None);
    let daemon = home.serve().options(&["--hold"]).start();
    daemon.create_session("s");
    let runs: Vec<String> = (0..6).map(|n| daemon.submit("s", &format!("run number {n}"))).collect();
    daemon.kill();

    let segment = tail_segment(&home.root());
    let bytes = fs::read(&segment).expect("a segment");
    let needle = b"run number 3";
    let at = bytes.windows(needle.len()).position(|window| window == needle).expect("the third run");
    let line_start = bytes[..at].iter().rposition(|byte| *byte == b'\n').expect("an earlier line") + 1;
    overwrite(&segment, at as u64, &[bytes[at] ^ 1]);
    let damaged = files(&home.root().join("journal"));

    let (code, log) = home.serve().refused();
    assert_eq!(code, Some(1), "{log}");
    let place = format!("{} is damaged at byte {line_start}", segment.display());
    assert!(
        log.contains(&place) && log.contains("next: run 'kheish-daemon journal verify --offline'"),
        "{place}: {log}"
    );
    assert!(files(&home.root().join("journal")) == damaged, "a refused start changed the journal");

    overwrite(&segment, at as u64, &bytes[at..=at]);
    let daemon = home.serve().options(&["--hold"]).start();
    let found: Vec<String> =
        daemon.all_runs().iter().map(|run| run["run_id"].as_str().expect("an id").to_string()).collect();
    assert_eq!(found, runs);
}

#[test]
fn a_torn_tail_is_cut_and_reported_and_nothing_acknowledged_goes_with_it() {
    let home = Home::new("torn", None);
    let daemon = home.serve().options(&["--hold"]).start();
    daemon.create_session("s");
    let runs: Vec<String> = (0..3).map(|n| daemon.submit("s", &format!("run number {n}"))).collect();
    daemon.kill();

    // What a write leaves that the machine did not survive: the beginning of a batch.
    let segment = tail_segment(&home.root());
    let offset = written_bytes(&segment);
    let torn = b"{\"seq\":99,\"at_ms\":1,\"kind\":\"run.acc";
    overwrite(&segment, offset, torn);

    let daemon = home.serve().options(&["--hold"]).start();
    assert!(daemon.log().contains("the last batch was incomplete and was cut"), "{}", daemon.log());
    let found: Vec<String> =
        daemon.all_runs().iter().map(|run| run["run_id"].as_str().expect("an id").to_string()).collect();
    assert_eq!(found, runs);
    daemon.stop();
    let reports = home.records(&home.root(), &["--kind", "journal.recovered"]);
    let [report] = reports.as_slice() else { panic!("{reports:?}") };
    let body = &report["body"];
    let name = segment.file_name().and_then(|name| name.to_str()).expect("a name");
    assert_eq!((body["segment"].as_str(), body["offset"].as_u64()), (Some(name), Some(offset)), "{report}");
    assert_eq!(body["bytes"].as_u64(), Some(torn.len() as u64), "{report}");
    home.assert_journal_verifies(&home.root());
}

#[test]
fn a_run_in_flight_at_sigkill_is_resumed_and_says_what_was_found() {
    let provider = Provider::start(STALLS_ONCE);
    let home = Home::new("in-flight", Some(&provider));
    let daemon = home.start();
    daemon.create_session("s");
    let run = daemon.submit("s", "stall, then answer");
    let behind = daemon.submit("s", "behind it");
    provider.wait_asked("stall", 1);
    daemon.kill();

    let daemon = home.start();
    assert_eq!((daemon.wait_end(&run), daemon.wait_end(&behind)), ("completed".into(), "completed".into()));
    let events = ["accepted", "started", "resumed: model_call_in_flight", "output", "completed"];
    assert_eq!(daemon.events_of(&run), events);
    assert_eq!(daemon.events_of(&behind), ["accepted", "queued", "started", "output", "completed"]);
    assert_eq!(output_of(&daemon.run(&run)), "stall, then answer");
    provider.wait_asked("stall", 2);
}

#[test]
fn sigterm_in_the_middle_of_a_run_ends_cleanly_and_the_run_completes_after_the_next_start() {
    let provider = Provider::start(STALLS_ONCE);
    let home = Home::new("sigterm", Some(&provider));
    let daemon = home.start();
    daemon.create_session("s");
    let run = daemon.submit("s", "stall, then answer");
    provider.wait_asked("stall", 1);
    daemon.stop();
    home.assert_journal_verifies(&home.root());

    let daemon = home.start();
    assert_eq!(daemon.wait_end(&run), "completed");
    let events = ["accepted", "started", "resumed: model_call_in_flight", "output", "completed"];
    assert_eq!(daemon.events_of(&run), events);
}

/// More runs are active than there are engines, so that each engine that lets go of one is offered the next.
#[test]
fn sigterm_ends_cleanly_however_many_runs_hang() {
    let provider = Provider::start(HANGS);
    let home = Home::new("drain", Some(&provider));
    let sessions: Vec<String> = (0..ENGINE_WORKERS * 3).map(|n| format!("s{n}")).collect();
    let mut daemon = home.start();
    sessions.iter().for_each(|session| daemon.create_session(session));
    let runs: Vec<String> = sessions.iter().map(|session| daemon.submit(session, "hang")).collect();
    for round in 1..=4 {
        provider.wait_asked("hang", round * ENGINE_WORKERS);
        daemon.stop();
        daemon = home.start();
    }
    assert!(runs.iter().all(|run| daemon.status_of(run) == "running"));
}

#[test]
fn held_runs_stay_queued_over_restarts_until_they_are_released() {
    let provider = Provider::start("");
    let home = Home::new("hold", Some(&provider));
    let daemon = home.serve().options(&["--hold"]).start();
    let runs: Vec<String> = ["a", "b"]
        .iter()
        .flat_map(|session| {
            daemon.create_session(session);
            (0..2).map(|n| daemon.submit(session, &format!("held {session}{n}"))).collect::<Vec<_>>()
        })
        .collect();
    let statuses = |daemon: &Daemon| runs.iter().map(|run| daemon.status_of(run)).collect::<Vec<_>>();
    assert_eq!(statuses(&daemon), ["queued"; 4]);
    daemon.kill();
    // The hold is part of the state: a restart without the option must not release what an operator holds.
    for options in [&["--hold"][..], &[]] {
        let daemon = home.serve().options(options).start();
        assert_eq!(
            (statuses(&daemon), daemon.get("/v1/runtime").json()["held"].as_bool()),
            (vec!["queued".into(); 4], Some(true))
        );
        daemon.stop();
    }
    assert_eq!(provider.requests(), [], "a held run was executed");

    let daemon = home.start();
    let url = format!("http://{}", daemon.address);
    let (code, printed) = home.command(&["--base-url", &url, "--token", daemon::TOKEN, "runtime", "release"]);
    assert_eq!(code, 0, "{printed}");
    assert_eq!(runs.iter().map(|run| daemon.wait_end(run)).collect::<Vec<_>>(), ["completed"; 4]);
    assert_eq!(provider.requests().len(), 4);
}

/// Does what stops a run and waits for the run's end, which must come within [`STOP_DEADLINE`].
fn assert_ends_promptly(daemon: &Daemon, run: &str, ending: &str, stop: impl FnOnce()) {
    let mut stream = daemon.stream(&format!("/v1/runs/{run}/stream"));
    stop();
    let (told, end) = sync_channel(1);
    // Its only reader gives up after the deadline; the stream itself ends with the daemon.
    let watcher = std::thread::spawn(move || {
        let mut ended = String::new();
        stream.until("the end of a run", |frame| {
            ended = frame.run_status().map(|(_, status)| status).unwrap_or_default();
            is_terminal(&ended)
        });
        drop(told.send(ended));
    });
    let ended = end.recv_timeout(STOP_DEADLINE);
    assert_eq!(ended.as_deref(), Ok(ending));
    watcher.join().expect("it has told");
    // The engine, too, must have let go: the drain would wait for it.
    daemon::eventually("an engine to let go", || {
        (daemon.get("/v1/status").json()["runs"]["in_hand"] == 0).then_some(())
    });
}

#[test]
fn a_run_whose_provider_hangs_ends_promptly_when_cancelled_or_interrupted() {
    let provider = Provider::start(HANGS);
    let home = Home::new("stops", Some(&provider));
    let daemon = home.start();
    daemon.create_session("s");

    let cancelled = daemon.submit("s", "hang on one");
    provider.wait_asked("hang on one", 1);
    assert_ends_promptly(&daemon, &cancelled, "cancelled", || {
        let reply = daemon.post(&format!("/v1/runs/{cancelled}/cancel"), &json!({"reason": "enough"}));
        assert_eq!((reply.status, reply.json()["status"].as_str()), (200, Some("cancelled")), "{reply:?}");
    });
    let interrupted = daemon.submit("s", "hang on two");
    provider.wait_asked("hang on two", 1);
    assert_ends_promptly(&daemon, &interrupted, "interrupted", || {
        let reply = daemon.post("/v1/sessions/s/interrupt", &Value::Null);
        assert_eq!((reply.status, reply.json()["run_id"].as_str()), (200, Some(interrupted.as_str())), "{reply:?}");
    });
    // The session goes on as if nothing had happened.
    let next = daemon.submit("s", "go on");
    assert_eq!((daemon.wait_end(&next), output_of(&daemon.run(&next))), ("completed".to_string(), "go on"));
    assert_eq!(daemon.events_of(&cancelled), ["accepted", "started", "cancelled"]);
    assert_eq!(daemon.events_of(&interrupted), ["accepted", "started", "interrupted"]);
    daemon.stop();

    let daemon = home.start();
    assert_eq!(
        (daemon.status_of(&cancelled), daemon.status_of(&interrupted)),
        ("cancelled".into(), "interrupted".into())
    );
    provider.wait_asked("hang on", 2);
}

#[test]
fn ending_a_session_stops_its_run_and_cancels_its_queue_for_good() {
    let provider = Provider::start(HANGS);
    let home = Home::new("end", Some(&provider));
    let daemon = home.start();
    daemon.create_session("s");
    let active = daemon.submit("s", "hang");
    let queued: Vec<String> = (0..3).map(|n| daemon.submit("s", &format!("behind {n}"))).collect();
    provider.wait_asked("hang", 1);
    assert_ends_promptly(&daemon, &active, "interrupted", || {
        let reply = daemon.post("/v1/sessions/s/end", &json!({"reason": "done with it"}));
        let view = reply.json();
        let shown = (view["ended"].as_bool(), view["queued_run_count"].as_u64(), view["active_run_id"].as_str());
        assert_eq!((reply.status, shown), (200, (Some(true), Some(0), None)), "{reply:?}");
    });
    let statuses = |daemon: &Daemon| queued.iter().map(|run| daemon.status_of(run)).collect::<Vec<_>>();
    assert_eq!(statuses(&daemon), ["cancelled"; 3]);
    assert_eq!(daemon.try_submit("s", "too late").refusal(), (409, "session_ended".to_string()));
    daemon.kill();

    let daemon = home.start();
    assert_eq!(
        (daemon.status_of(&active), statuses(&daemon)),
        ("interrupted".into(), vec!["cancelled".to_string(); 3])
    );
    assert_eq!(daemon.try_submit("s", "too late").refusal(), (409, "session_ended".to_string()));
    assert_eq!(provider.requests().len(), 1, "a run of an ended session was executed");
}
