//! The real binary on a disk whose calls fail: once and for good, at the n-th call, with EIO and ENOSPC. No panic,
//! nothing acknowledged is lost, nothing refused comes back, and the daemon says what is wrong.
//! Needs strace. `KHEISH_FAULTS=full` fails every call until one run of the sweep meets none; the default takes a few.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
#[path = "support/strace.rs"]
mod strace;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use daemon::{Daemon, Home, Provider, Serve, assert_no_panic, eventually};
use http::Reply;
use kheish_daemon::limits::JOURNAL_SEGMENT_BYTES_MIN;
use serde_json::{Value, json};
use strace::{Fault, injected, is_usable};

/// A full sweep ends by itself; this many calls in one thread would mean that it does not.
const CALLS_MAX: usize = 400;
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
    cancelled: BTreeSet<String>,
}

impl World {
    fn new(test: &str) -> Self {
        let provider = Provider::start("");
        let home = Home::new(test, Some(&provider));
        let report = home.join("strace.txt");
        let world = Self { provider, home, report, fates: BTreeMap::new(), cancelled: BTreeSet::new() };
        let daemon = world.serve().start();
        daemon.create_session("s");
        daemon.create_session("held");
        daemon.stop();
        world
    }

    fn serve(&self) -> Serve<'_> {
        self.home.serve().segment_bytes(JOURNAL_SEGMENT_BYTES_MIN)
    }

    fn under(&self, fault: &Fault) -> Serve<'_> {
        self.serve().under(&fault.wrapper(&self.report))
    }

    /// Submits one input and notes what it was told.
    fn submit(&mut self, daemon: &Daemon, text: &str) -> Reply {
        let body = json!({"content": text, "idempotency_key": text[..text.find(':').expect("a name")]});
        let reply = daemon.post("/v1/sessions/s/runs", &body);
        let fate = match reply.status {
            202 => Fate::Run(reply.json()["run_id"].as_str().expect("a run id").to_string()),
            507 => Fate::Refused,
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
                Fate::Run(id) if self.cancelled.contains(id) => assert_eq!(daemon.status_of(id), "cancelled"),
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
        (200..=202, "") => {}
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
                if number % 2 == 0 { daemon.kill() } else { drop(daemon.stop()) }
            }
        }
        let failed = injected(&self.report);

        let daemon = self.serve().start();
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
        failed
    }
}

#[test]
fn explore() {
    let mut world = World::new("explore");
    let _ = (&world.provider, Value::Null);
    let mut number = 0;
    let filter = std::env::var("F").unwrap_or_default();
    for calls in ["pwrite64", "fdatasync", "fsync", "/^rename", "fallocate", "ftruncate", "openat", "write"] {
        if !filter.is_empty() && !calls.contains(&filter) {
            continue;
        }
        for errno in ["EIO", "ENOSPC"] {
            for for_good in [false, true] {
                for n in 1..CALLS_MAX {
                    number += 1;
                    let paths =
                        if ["openat", "write"].contains(&calls) { paths_below(&world.home.root()) } else { vec![] };
                    let fault =
                        Fault { calls, errno, when: if for_good { format!("{n}+") } else { n.to_string() }, paths };
                    let t = std::time::Instant::now();
                    let failed = world.one_case(number, &fault);
                    eprintln!(
                        "{number} {calls} {errno} {} -> {} {:?} {:?}",
                        fault.when,
                        failed.len(),
                        t.elapsed(),
                        failed.first().map(|l| l.chars().take(150).collect::<String>())
                    );
                    if failed.is_empty() {
                        break;
                    }
                    if n > 6 {
                        break;
                    }
                }
            }
        }
    }
    assert!(is_usable("x"));
    let _ = tail_segment(&world.home.root());
}
