//! The real binary on a disk whose calls fail: once and for good, at the n-th call, with EIO and ENOSPC. No panic,
//! nothing acknowledged is lost, nothing refused comes back, and the daemon says what is wrong.
//! Needs strace. `KHEISH_FAULTS=full` (`make test-faults`) fails every call in turn until there is none left to fail; the
//! default takes a few.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
#[path = "support/strace.rs"]
mod strace;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use daemon::{Daemon, Home, Provider, Serve, assert_no_panic, eventually};
use http::Reply;
use kheish_daemon::limits::JOURNAL_SEGMENT_BYTES_MIN;
use serde_json::{Value, json};
use strace::{Fault, injected, is_usable};

/// A full sweep ends by itself; this many calls in one thread would mean that it does not.
const CALLS_MAX: usize = 400;
/// Calls that fail in a short sweep: those of the start, and some of the life after it.
const CALLS_SHORT: [usize; 4] = [1, 2, 4, 7];
/// Cases before a fresh state root: a sweep whose every case adds a file would never catch up with the calls for them.
const CASES_PER_ROOT: usize = 16;
/// Submissions against each fault. With this much text they fill more than one segment, so that each case rotates.
const SUBMISSIONS: usize = 8;
const TEXT_BYTES: usize = 4 * 1024;

/// Everything below `folder`, and `folder` itself.
fn paths_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_path_buf()];
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(paths_below(&path)) } else { found.push(path) }
    }
    found
}

/// Last segment of the journal: the one that is written to after the next start.
fn tail_segment(root: &Path) -> PathBuf {
    let paths = paths_below(&root.join("journal")).into_iter();
    paths.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).max().expect("a segment")
}

/// The name at the beginning of an input.
fn name_of(text: &str) -> &str {
    text.split(':').next().expect("split gives one at least")
}

/// What became of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// 202: the run must be there for ever.
    Run(String),
    /// Refused without a trace: it must not be there.
    Refused,
    /// The sync failed: only the restart finds out.
    Unknown,
}

/// A state root that goes from fault to fault, and what was said about it.
struct World {
    provider: Provider,
    home: Home,
    report: PathBuf,
    fates: BTreeMap<String, Fate>,
    /// Provider requests counted so far.
    provider_seen: u64,
    /// Number of the newest case.
    case: usize,
}

impl World {
    /// `None`, which has been said aloud, where no fault can be injected.
    fn new(test: &str) -> Option<Self> {
        if !is_usable(test) {
            return None;
        }
        let provider = Provider::start("");
        let home = Home::new("faults", Some(&provider));
        let report = home.join("strace.txt");
        let mut world = Self { provider, home, report, fates: BTreeMap::new(), provider_seen: 0, case: 0 };
        world.renew();
        Some(world)
    }

    /// Begins with a fresh state root that has a journal which a fault could harm.
    fn renew(&mut self) {
        self.home = Home::new("faults", Some(&self.provider));
        self.report = self.home.join("strace.txt");
        self.fates.clear();
        self.serve().start().stop();
    }

    fn serve(&self) -> Serve<'_> {
        self.home.serve().segment_bytes(JOURNAL_SEGMENT_BYTES_MIN)
    }

    /// Every file there is, and those that the next start will make first.
    fn paths(&self) -> Vec<PathBuf> {
        let mut paths = paths_below(&self.home.root());
        paths.push(tail_segment(&self.home.root()).with_extension("jsonl.rewrite"));
        paths
    }

    fn under(&self, fault: &Fault) -> Serve<'_> {
        self.serve().under(&fault.wrapper(&self.report))
    }

    /// Submits one input and notes what it was told.
    fn submit(&mut self, daemon: &Daemon, text: &str) -> Reply {
        let name = name_of(text);
        let body = json!({"content": text, "idempotency_key": name});
        let session = name.rsplit_once('-').expect("a case and a number").0;
        let reply = daemon.post(&format!("/v1/sessions/{session}/runs"), &body);
        let fate = match reply.status {
            202 => Fate::Run(reply.json()["run_id"].as_str().expect("a run id").to_string()),
            404 | 507 => Fate::Refused,
            _ if reply.refusal().1 == "service_unavailable" => Fate::Refused,
            _ => Fate::Unknown,
        };
        self.fates.insert(text.to_string(), fate);
        reply
    }

    /// Every run that was promised is there, and nothing that was refused.
    fn check(&self, daemon: &Daemon) {
        let shown: BTreeMap<String, String> = daemon
            .all_runs()
            .iter()
            .map(|run| {
                let (id, end) = (run["run_id"].as_str().expect("an id"), run["status"].as_str().expect("a status"));
                let answered = run["outputs"][0]["content"].as_str().unwrap_or_default().to_string();
                assert!(end == "completed" || answered.is_empty(), "{run}");
                (id.to_string(), answered)
            })
            .collect();
        for (text, fate) in &self.fates {
            match fate {
                Fate::Run(id) => assert_eq!(shown.get(id), Some(text), "{id}"),
                Fate::Refused => {
                    assert!(!shown.values().any(|shown| shown == text), "{text:.20} was refused and is a run")
                }
                Fate::Unknown => {}
            }
        }
    }
}

/// What a daemon whose disk fails may answer to a change, and what it must then say about itself.
fn assert_honest(daemon: &Daemon, fault: &Fault, reply: &Reply) {
    let (status, code) = if reply.status < 300 { (reply.status, String::new()) } else { reply.refusal() };
    match (status, code.as_str()) {
        (200..=202, "") | (404, "session_not_found") => {}
        (503, "journal_poisoned") => assert_poisoned(daemon),
        (507, "storage_full") => assert_eq!(fault.errno, "ENOSPC", "{reply:?}"),
        (503, "service_unavailable") => assert_eq!(fault.errno, "EIO", "{reply:?}"),
        _ => panic!("{reply:?}"),
    }
}

/// Fail closed, and say so; reads go on.
fn assert_poisoned(daemon: &Daemon) {
    assert_eq!(daemon.get("/readyz").refusal(), (503, "journal_poisoned".to_string()));
    assert_eq!(daemon.get("/healthz").status, 200);
    let status = daemon.get("/v1/status");
    let (code, document) = (status.status, status.json());
    let journal = &document["journal"];
    assert_eq!(
        (code, journal["poisoned"].as_bool(), document["ready"].as_bool()),
        (200, Some(true), Some(false)),
        "{document}"
    );
    let reason = journal["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("could not") && reason.contains(".jsonl") && reason.contains("; next: "), "{document}");
    let change = daemon.post("/v1/sessions", &json!({"session_id": "never"}));
    assert_eq!(change.refusal(), (503, "journal_poisoned".to_string()));
    assert_eq!(daemon.get("/v1/runs?limit=1").status, 200);
}

impl World {
    /// One daemon's life against one fault, and a clean one after it. Returns what was made to fail.
    fn one_case(&mut self, number: usize, fault: &Fault) -> Vec<String> {
        let mut poisoned = false;
        match self.under(fault).spawn().listening() {
            Err((status, log)) => {
                assert_no_panic(&log);
                assert_eq!(status.code(), Some(1), "{fault:?}: {log}");
                assert!(log.contains("next: "), "{fault:?}: {log}");
            }
            Ok(daemon) => {
                // A session of its own keeps the transcripts short. It may be refused, and then so is the rest.
                let session = daemon.post("/v1/sessions", &json!({"session_id": format!("case-{number}")}));
                assert_honest(&daemon, fault, &session);
                for n in 0..SUBMISSIONS {
                    let text = format!("case-{number}-{n}: {}", "x".repeat(TEXT_BYTES));
                    let reply = self.submit(&daemon, &text);
                    assert_honest(&daemon, fault, &reply);
                    poisoned |= reply.status == 503 && reply.refusal().1 == "journal_poisoned";
                    assert!(!poisoned || reply.status == 503, "a poisoned journal took something: {reply:?}");
                    if let Some(Fate::Run(id)) = self.fates.get(&text) {
                        let _readable = daemon.run(id);
                    }
                }
                let is_over = !fault.when.ends_with('+');
                if is_over && !poisoned && daemon.get("/readyz").status == 200 {
                    // What is accepted after a fault that has passed must not wait for a restart.
                    eventually("all runs to end", || {
                        let status = daemon.get("/v1/status").json();
                        let left = status["runs"]["queued"] == 0 && status["runs"]["running"] == 0;
                        (left || status["journal"]["poisoned"] == true).then_some(())
                    });
                }
                if number.is_multiple_of(2) { daemon.kill() } else { daemon.stop_on_a_faulty_disk() }
            }
        }
        let failed = injected(&self.report);

        let daemon = self.serve().start();
        daemon.create_session(&format!("case-{number}"));
        for text in self.fates.clone().into_iter().filter(|(_, fate)| *fate == Fate::Unknown).map(|(text, _)| text) {
            // Whether it has become a run or not, its key gives exactly one.
            assert_eq!(self.submit(&daemon, &text).status, 202);
        }
        eventually("all runs to end", || {
            let runs = &daemon.get("/v1/status").json()["runs"];
            (runs["queued"] == 0 && runs["running"] == 0).then_some(())
        });
        self.check(&daemon);
        let shown = daemon.get("/v1/status").json()["runs"]["total"].as_u64().expect("a number") as usize;
        let owed = self.fates.values().filter(|fate| matches!(fate, Fate::Run(_))).count();
        assert_eq!(shown, owed, "{fault:?}: an input became two runs, or a refused one came back");
        daemon.stop();
        self.home.assert_journal_verifies(&self.home.root());
        self.assert_audited(number);
        failed
    }

    /// No audit line, no action: every request that reached the provider had been recorded before.
    fn assert_audited(&mut self, number: usize) {
        let filter = ["--session-id", &format!("case-{number}"), "--kind", "external_action.request"];
        let mut recorded: BTreeMap<String, usize> = BTreeMap::new();
        for record in self.home.records(&self.home.root(), &filter) {
            *recorded.entry(record["run"].as_str().expect("a run").to_string()).or_default() += 1;
        }
        let mut asked: BTreeMap<String, usize> = BTreeMap::new();
        for (request, body) in self.provider.requests() {
            if request <= self.provider_seen {
                continue;
            }
            assert_eq!(request, self.provider_seen + 1, "requests were forgotten before they were counted");
            self.provider_seen = request;
            let text = &body[body.rfind("case-").unwrap_or_else(|| panic!("no input in {body}"))..];
            *asked.entry(name_of(text).to_string()).or_default() += 1;
        }
        for (name, count) in asked {
            let fate = self.fates.iter().find(|(text, _)| name_of(text) == name).map(|(_, fate)| fate);
            let Some(Fate::Run(run)) = fate else { panic!("the provider was asked for {name}, which is {fate:?}") };
            let recorded = recorded.get(run).copied().unwrap_or(0);
            assert!(count <= recorded, "{name}: {count} requests, {recorded} of them recorded first");
        }
    }

    /// Lets `calls` fail, at one place after the other.
    fn sweep(&mut self, calls: &'static str, only_on_our_paths: bool) {
        let is_full = std::env::var("KHEISH_FAULTS").is_ok_and(|how| how == "full");
        let mut failed_total = 0;
        for (index, (errno, suffix)) in
            [("EIO", ""), ("ENOSPC", "+"), ("ENOSPC", ""), ("EIO", "+")].into_iter().enumerate()
        {
            let numbers: Vec<usize> = if is_full {
                (1..CALLS_MAX).collect()
            } else {
                CALLS_SHORT.into_iter().skip(index % 2).step_by(2).collect()
            };
            let mut is_over = !is_full;
            for n in numbers {
                self.case += 1;
                if self.case.is_multiple_of(CASES_PER_ROOT) {
                    self.renew();
                }
                let paths = if only_on_our_paths { self.paths() } else { Vec::new() };
                let fault = Fault { calls, errno, when: format!("{n}{suffix}"), paths };
                let failed = self.one_case(self.case, &fault).len();
                failed_total += failed;
                if failed == 0 && is_full {
                    is_over = true;
                    break;
                }
            }
            assert!(is_over, "{calls}: {CALLS_MAX} calls were not enough to meet one of each");
        }
        assert!(failed_total > 0, "no {calls} was ever made to fail");
        println!("{calls}: {failed_total} calls failed");
    }
}

#[test]
fn a_failing_write_is_refused_and_leaves_nothing_behind() {
    let Some(mut world) = World::new("a_failing_write_is_refused_and_leaves_nothing_behind") else { return };
    world.sweep("pwrite64", false);
    world.sweep("write", true);
}

#[test]
fn a_failing_sync_loses_nothing_acknowledged() {
    let Some(mut world) = World::new("a_failing_sync_loses_nothing_acknowledged") else { return };
    world.sweep("fdatasync", false);
    world.sweep("fsync", false);
}

#[test]
fn a_failing_preallocation_or_truncation_loses_nothing_acknowledged() {
    let Some(mut world) = World::new("a_failing_preallocation_or_truncation_loses_nothing_acknowledged") else {
        return;
    };
    world.sweep("fallocate", false);
    world.sweep("ftruncate", false);
}

#[test]
fn a_failing_open_rename_or_removal_loses_nothing_acknowledged() {
    let Some(mut world) = World::new("a_failing_open_rename_or_removal_loses_nothing_acknowledged") else { return };
    world.sweep("openat", true);
    world.sweep("/^rename", false);
    world.sweep("/^unlink", false);
}

/// The core's third sync of the tail fails, once. The disk is well afterwards, and that proves nothing about the batch.
#[test]
fn one_failed_sync_ends_all_changes_until_a_restart_and_is_reported() {
    let Some(world) = World::new("one_failed_sync_ends_all_changes_until_a_restart_and_is_reported") else { return };
    let tail = tail_segment(&world.home.root());
    let fault = Fault { calls: "fdatasync", errno: "EIO", when: "3".to_string(), paths: vec![tail.clone()] };
    let daemon = world.under(&fault).options(&["--hold"]).start();
    // The first sync is that of the hold, the second that of the session.
    daemon.create_session("s");
    let reply = daemon.try_submit("s", "unlucky");
    assert_eq!(reply.refusal(), (503, "journal_poisoned".to_string()));
    assert_eq!(injected(&world.report).len(), 1);

    let reason = format!("it could not sync {}: Input/output error", tail.display());
    for (method, target, body) in [
        ("POST", "/v1/sessions", json!({"session_id": "t"})),
        ("POST", "/v1/sessions/s/runs", json!({"content": "next"})),
        ("POST", "/v1/sessions/s/end", Value::Null),
        ("POST", "/v1/runtime/hold", json!({"held": false})),
        ("GET", "/readyz", Value::Null),
    ] {
        let reply = if method == "GET" { daemon.get(target) } else { daemon.post(target, &body) };
        assert_eq!(reply.refusal(), (503, "journal_poisoned".to_string()), "{target}");
        assert!(reply.json()["detail"].as_str().is_some_and(|detail| detail.contains(&reason)), "{target}: {reply:?}");
    }
    assert_poisoned(&daemon);
    let status = daemon.get("/v1/status").json();
    let warnings = status["health"]["warnings"].as_array().expect("warnings");
    assert!(warnings.iter().any(|warning| warning["code"] == "journal_poisoned"), "{status}");
    assert_eq!(status["health"]["ok"], false);
    // Reads show what is known to be on disk: the session, and not the run whose sync failed.
    assert_eq!(daemon.get("/v1/sessions/s").json()["run_count"], 0);
    assert_eq!(daemon.all_runs(), Vec::<Value>::new());
    let first = daemon.stream("/v1/events/stream?cursor=0").next().expect("a frame");
    assert_eq!(first.event, "runtime_updated", "{first:?}");
    daemon.stop();

    let daemon = world.serve().start();
    assert_eq!(daemon.get("/v1/status").json()["journal"]["poisoned"], false);
    daemon.submit("s", "after the restart");
    daemon.stop();
    world.home.assert_journal_verifies(&world.home.root());
}

/// The core's third write to the tail fails, once, and is cut back.
#[test]
fn one_failed_write_refuses_one_change_and_nothing_after_it() {
    let Some(world) = World::new("one_failed_write_refuses_one_change_and_nothing_after_it") else { return };
    let fault =
        Fault { calls: "pwrite64", errno: "EIO", when: "3".to_string(), paths: vec![tail_segment(&world.home.root())] };
    let daemon = world.under(&fault).options(&["--hold"]).start();
    // The first write is that of the hold, the second that of the session.
    daemon.create_session("s");
    let reply = daemon.try_submit("s", "unlucky");
    assert_eq!(reply.refusal(), (503, "service_unavailable".to_string()));
    assert!(reply.headers.contains(&("retry-after".to_string(), "1".to_string())), "{reply:?}");
    assert_eq!(injected(&world.report).len(), 1);
    let run = daemon.submit("s", "lucky");
    assert_eq!(daemon.get("/readyz").status, 200);
    let journal = daemon.get("/v1/status").json()["journal"].clone();
    assert_eq!((journal["poisoned"].as_bool(), journal["reason"].as_str()), (Some(false), None), "{journal}");
    let previews = |daemon: &Daemon| -> Vec<Value> {
        daemon.all_runs().iter().map(|run| json!([run["run_id"], run["request"]["text_preview"]])).collect()
    };
    assert_eq!(previews(&daemon), [json!([run, "lucky"])]);
    daemon.kill();
    let daemon = world.serve().options(&["--hold"]).start();
    assert_eq!(previews(&daemon), [json!([run, "lucky"])]);
}

/// The disk is full for the reserve's next attempts, as it is when other files took the space; then it is not.
#[test]
fn a_full_disk_refuses_work_serves_reads_and_stops_and_service_resumes_by_itself() {
    let Some(world) = World::new("a_full_disk_refuses_work_serves_reads_and_stops_and_service_resumes_by_itself")
    else {
        return;
    };
    let daemon = world.serve().options(&["--hold"]).start();
    daemon.create_session("s");
    let runs: Vec<String> = (0..3).map(|n| daemon.submit("s", &format!("before {n}"))).collect();
    daemon.stop();

    let spare = world.home.root().join("journal/spare");
    // Idle engines that report for work make the core try again too, hence so many.
    let fault = Fault { calls: "fallocate", errno: "ENOSPC", when: "1..100".to_string(), paths: vec![spare] };
    let daemon = world.under(&fault).start();
    assert_eq!(daemon.try_submit("s", "too much").refusal(), (507, "storage_full".to_string()));
    let status = daemon.get("/v1/status").json();
    let warnings = status["health"]["warnings"].as_array().expect("warnings");
    assert!(warnings.iter().any(|warning| warning["code"] == "storage_full"), "{status}");
    assert_eq!(status["journal"]["poisoned"], false);
    let texts = |daemon: &Daemon| {
        daemon.all_runs().iter().map(|run| run["request"]["text_preview"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(texts(&daemon), ["before 0", "before 1", "before 2"]);
    let cancelled = daemon.post(&format!("/v1/runs/{}/cancel", runs[1]), &Value::Null);
    assert_eq!((cancelled.status, cancelled.json()["status"].as_str()), (200, Some("cancelled")), "{cancelled:?}");

    let healed = eventually("service to resume", || {
        let reply = daemon.try_submit("s", "after");
        if reply.status == 202 {
            return Some(reply.json()["run_id"].clone());
        }
        assert_eq!(reply.refusal(), (507, "storage_full".to_string()));
        None
    });
    assert_eq!(daemon.get("/readyz").status, 200);
    assert!(daemon.get("/v1/status").json()["journal"]["reason"].is_null());
    assert!(!injected(&world.report).is_empty());
    daemon.kill();
    let daemon = world.serve().start();
    assert_eq!(texts(&daemon), ["before 0", "before 1", "before 2", "after"]);
    let statuses: Vec<String> = runs.iter().map(|run| daemon.status_of(run)).collect();
    assert_eq!(statuses, ["queued", "cancelled", "queued"]);
    assert_eq!(daemon.status_of(healed.as_str().expect("a run id")), "queued");
}
