//! Tests of the log's file: every cut, every flipped byte, a full disk, a rewriting.
//! Owns: a log with one entry of each kind.
//! Never: ships.

use super::*;
use crate::broker::entry::{EndReason, Order};
use crate::broker::ledger::{lease, slot};
use crate::broker::subject::{Subject, SubjectId};
use crate::state_root::scratch::Scratch;

fn root(scratch: &Scratch) -> StateRoot {
    StateRoot::open(&scratch.path().join("root"), true).unwrap()
}

fn path(scratch: &Scratch) -> PathBuf {
    scratch.path().join("root/auth").join(LOG_FILE_NAME)
}

fn order(reason: &str) -> Order {
    Order { reason: Some(reason.to_string()), by: Some(serde_json::json!({"role": "admin"})) }
}

fn entries() -> Vec<Entry> {
    let agent = |number: u32| Subject::agent_of(format!("agent-{number}"), format!("s{number}"));
    let id = || slot("openai.prod");
    vec![
        Entry::DaemonStarted,
        Entry::SlotSet { slot: id(), version: 1 },
        Entry::SlotSet { slot: slot("other"), version: 2 },
        Entry::SlotLeased { slot: id(), version: 1 },
        Entry::LeaseIssued(lease("lease-1", agent(1), 1)),
        Entry::LeaseIssued(lease("lease-2", agent(2), 1)),
        Entry::LeaseIssued(lease("lease-3", agent(3), 1)),
        Entry::LeaseEnded { lease: "lease-1".to_string(), reason: EndReason::Released },
        Entry::LeaseRevoked { lease: "lease-2".to_string(), order: order("lost \"laptop\"\n") },
        Entry::SubjectRevoked { subject: SubjectId::session("s4"), epoch: 1, known: false, order: order("why") },
        Entry::SubjectReinstated { subject: SubjectId::session("s4"), epoch: 1, order: Order::default() },
        Entry::SubjectRevoked { subject: SubjectId::session("s5"), epoch: 2, known: true, order: Order::default() },
        Entry::AccountRefreshed { slot: slot("mcp.oauth.docs"), outcome: "success".to_string() },
        Entry::SlotRevoked { slot: slot("other"), blocked_version: Some(2), order: order("leaked") },
    ]
}

/// A log with the entries above, each at its own time; where each line ends, and the file's bytes.
fn written(scratch: &Scratch) -> (Vec<usize>, Vec<u8>) {
    let root = root(scratch);
    let mut log = BrokerLog::open(&root).unwrap();
    for (at_ms, entry) in entries().iter().enumerate() {
        if entry.is_durable() { log.append(at_ms as u64, entry).unwrap() } else { log.push(at_ms as u64, entry) }
    }
    log.flush();
    let bytes = fs::read(path(scratch)).unwrap();
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    (ends, bytes)
}

fn folded(entries: &[Entry]) -> Ledger {
    let mut ledger = Ledger::default();
    for (at_ms, entry) in entries.iter().enumerate() {
        ledger.apply(at_ms as u64, entry);
    }
    ledger
}

fn assert_same(one: &Ledger, other: &Ledger) {
    assert_eq!(one.version_max(), other.version_max());
    assert_eq!(one.slot_marks().collect::<Vec<_>>(), other.slot_marks().collect::<Vec<_>>());
    assert_eq!(one.subjects().collect::<Vec<_>>(), other.subjects().collect::<Vec<_>>());
    assert_eq!(one.all_ended().collect::<Vec<_>>(), other.all_ended().collect::<Vec<_>>());
    let alive = |ledger: &Ledger| {
        let mut alive: Vec<_> = ledger.all_alive().cloned().collect();
        alive.sort_by(|one, other| one.id.cmp(&other.id));
        alive
    };
    assert_eq!(alive(one), alive(other));
}

fn verified(bytes: &[u8]) -> Result<Found, BrokerLogError> {
    verify(bytes, Path::new("broker.jsonl"))
}

#[test]
fn every_entry_comes_back_as_it_was_written() {
    let scratch = Scratch::new("broker-log");
    let (ends, bytes) = written(&scratch);
    assert_eq!(ends.len(), entries().len() + 1);
    assert_same(&verified(&bytes).unwrap().ledger, &folded(&entries()));
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.starts_with("{\"chain\":\"") && !text.contains("token_digest"), "{text}");
}

#[test]
fn a_log_that_was_cut_anywhere_goes_on_from_its_last_whole_line() {
    let scratch = Scratch::new("broker-log-cut");
    let (ends, bytes) = written(&scratch);
    for cut in 0..=bytes.len() {
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let found = verified(&bytes[..cut]).unwrap();
        assert_eq!(found.good, ends[..whole].last().map_or(0, |end| *end as u64), "cut at {cut}");
        assert_same(&found.ledger, &folded(&entries()[..whole.saturating_sub(1)]));
    }
    // A cut file is opened, and what is appended then verifies.
    for cut in [0, 10, ends[0], ends[3] + 5, bytes.len() - 1] {
        fs::write(path(&scratch), &bytes[..cut]).unwrap();
        let mut log = BrokerLog::open(&root(&scratch)).unwrap();
        log.append(7, &Entry::SlotLeased { slot: slot("later"), version: 9 }).unwrap();
        let found = verified(&fs::read(path(&scratch)).unwrap()).unwrap();
        assert_eq!(found.ledger.version_max(), 9, "cut at {cut}");
    }
}

#[test]
fn a_flipped_byte_is_found_wherever_it_is() {
    let scratch = Scratch::new("broker-log-flip");
    let (ends, bytes) = written(&scratch);
    for at in 0..bytes.len() {
        for mask in [0x01, 0x20, 0x80] {
            let mut damaged = bytes.clone();
            damaged[at] ^= mask;
            let line = ends.iter().filter(|end| **end <= at).count() as u64 + 1;
            match verified(&damaged) {
                Err(BrokerLogError::Damaged { line: found, .. } | BrokerLogError::Newer { line: found, .. }) => {
                    assert_eq!(found, line, "byte {at}");
                }
                Err(other) => panic!("byte {at}: {other}"),
                // The last line end alone: the line is taken for one that was not completed.
                Ok(found) => assert_eq!((at, found.good), (bytes.len() - 1, ends[ends.len() - 2] as u64)),
            }
        }
    }
}

#[test]
fn missing_and_exchanged_lines_are_found() {
    let scratch = Scratch::new("broker-log-lines");
    let (ends, bytes) = written(&scratch);
    let line = |number: usize| &bytes[if number == 0 { 0 } else { ends[number - 1] }..ends[number]];
    let all: Vec<&[u8]> = (0..ends.len()).map(line).collect();
    for number in 0..all.len() - 1 {
        let mut missing = all.clone();
        missing.remove(number);
        assert!(matches!(verified(&missing.concat()), Err(BrokerLogError::Damaged { .. })), "line {number} missing");
        let mut exchanged = all.clone();
        exchanged.swap(number, number + 1);
        assert!(
            matches!(verified(&exchanged.concat()), Err(BrokerLogError::Damaged { .. })),
            "line {number} exchanged"
        );
        let mut twice = all.clone();
        twice.insert(number, all[number]);
        assert!(matches!(verified(&twice.concat()), Err(BrokerLogError::Damaged { .. })), "line {number} twice");
    }
}

#[test]
fn lost_pages_at_the_end_are_a_crash_and_before_a_revocation_they_are_damage() {
    let scratch = Scratch::new("broker-log-zeros");
    let (ends, bytes) = written(&scratch);
    // The fifth and sixth line were never synced by themselves; what follows them was.
    let mut lost = bytes.clone();
    lost[ends[4]..ends[5]].fill(0);
    assert!(matches!(verified(&lost), Err(BrokerLogError::Damaged { line: 6, .. })));
    let tail = &lost[..ends[7]];
    assert_eq!(verified(tail).unwrap().good, ends[4] as u64, "leases alone stand behind the hole");
}

#[test]
fn a_newer_entry_or_format_is_named_as_such() {
    let newer = |entry: &str| {
        let chain = next(&Chain::default(), entry.as_bytes());
        verified(format!("{{\"chain\":\"{}\",\"entry\":{entry}}}\n", to_hex(&chain)).as_bytes())
    };
    for entry in [
        r#"{"at_ms":1,"kind":"log.opened","format":2,"version_max":0}"#,
        r#"{"at_ms":1,"kind":"lease.blessed","lease":"x"}"#,
    ] {
        assert!(matches!(newer(entry), Err(BrokerLogError::Newer { line: 1, .. })), "{entry}");
    }
    assert!(matches!(newer(r#"{"at_ms":1,"kind":"daemon.started"}"#), Err(BrokerLogError::Damaged { .. })));
}

#[test]
fn a_full_disk_drops_leases_and_takes_revocations_from_the_reserve() {
    let scratch = Scratch::new("broker-log-full");
    let root = root(&scratch);
    let mut log = BrokerLog::open(&root).unwrap();
    assert!(log.stats().reserved_bytes >= BROKER_LOG_RESERVE_BYTES, "{:?}", log.stats());
    log.faults.reserve = Some(ENOSPC);
    let mut ledger = folded(&[]);
    let (mut revoked, mut at_ms) = (0, 0);
    let refused = loop {
        at_ms += 1;
        let issued = Entry::LeaseIssued(lease(&format!("lease-{at_ms}"), Subject::alone(SubjectId::daemon()), 1));
        log.push(at_ms, &issued);
        let entry = Entry::SubjectRevoked {
            subject: SubjectId::session(at_ms),
            epoch: 1,
            known: false,
            order: order("contained"),
        };
        match log.append(at_ms, &entry) {
            Ok(()) => {
                ledger.apply(at_ms, &entry);
                revoked += 1;
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, BrokerLogError::Full { .. }), "{refused}");
    assert!(revoked >= 900, "{revoked}");
    let stats = log.stats();
    assert!(stats.unrecorded_count >= 900 && stats.poisoned.is_none(), "{revoked} {stats:?}");
    // Space comes back, and with it everything; what was recorded is all there.
    log.faults.reserve = None;
    log.append(1, &Entry::SlotLeased { slot: slot("a"), version: 1 }).unwrap();
    let found = verified(&fs::read(path(&scratch)).unwrap()).unwrap();
    assert_eq!(found.ledger.subjects().collect::<Vec<_>>(), ledger.subjects().collect::<Vec<_>>());
}

#[test]
fn a_file_system_that_cannot_reserve_is_written_to_as_usual() {
    const EOPNOTSUPP: i32 = 95;
    let scratch = Scratch::new("broker-log-plain");
    let mut log = BrokerLog::open(&root(&scratch)).unwrap();
    (log.faults.reserve, log.reserved) = (Some(EOPNOTSUPP), log.written);
    let leased = |version| Entry::SlotLeased { slot: slot("a"), version };
    log.push(1, &Entry::DaemonStarted);
    log.append(1, &leased(1)).unwrap();
    log.push(1, &Entry::DaemonStarted);
    log.flush();
    assert_eq!((log.stats().unrecorded_count, log.stats().reserved_bytes), (0, 0));
    log.faults.write = Some(ENOSPC);
    assert!(matches!(log.append(1, &leased(2)), Err(BrokerLogError::Full { .. })));
    log.faults.write = Some(5);
    assert!(matches!(log.append(1, &leased(2)), Err(BrokerLogError::Io { .. })));
    log.faults.write = None;
    log.append(1, &leased(3)).unwrap();
    assert_eq!(verified(&fs::read(path(&scratch)).unwrap()).unwrap().ledger.version_max(), 3);
}

#[test]
fn after_a_failed_sync_nothing_more_is_recorded() {
    let scratch = Scratch::new("broker-log-sync");
    let mut log = BrokerLog::open(&root(&scratch)).unwrap();
    let leased = |version| Entry::SlotLeased { slot: slot("a"), version };
    log.append(1, &leased(1)).unwrap();
    log.faults.sync = Some(5);
    assert!(matches!(log.append(1, &leased(2)), Err(BrokerLogError::Io { action: "sync", .. })));
    log.faults.sync = None;
    assert!(matches!(log.append(1, &leased(3)), Err(BrokerLogError::Poisoned { .. })));
    log.push(1, &Entry::DaemonStarted);
    log.flush();
    assert_eq!(log.stats().unrecorded_count, 1);
    assert!(log.stats().poisoned.is_some());
}

#[test]
fn a_rewritten_log_tells_the_same_and_leaves_its_predecessor() {
    let scratch = Scratch::new("broker-log-rewrite");
    let (_, before) = written(&scratch);
    let mut log = BrokerLog::open(&root(&scratch)).unwrap();
    let ledger = log.take_ledger();
    log.rewrite_at = 1;
    log.rewrite_if_grown(&ledger);
    let after = fs::read(path(&scratch)).unwrap();
    assert_ne!(before, after);
    assert_same(&verified(&after).unwrap().ledger, &ledger);
    assert_eq!(fs::read(path(&scratch).with_file_name(LOG_PREVIOUS_FILE_NAME)).unwrap(), before);
    let first: serde_json::Value = serde_json::from_slice(after.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    let last: serde_json::Value =
        serde_json::from_slice(before[..before.len() - 1].rsplit(|b| *b == b'\n').next().unwrap()).unwrap();
    assert_eq!(first["entry"]["previous"], last["chain"], "the chain goes on");
    // It is appended to, and rewritten once more over the predecessor.
    log.append(1, &Entry::SlotLeased { slot: slot("later"), version: 9 }).unwrap();
    log.rewrite_at = 1;
    log.rewrite_if_grown(&ledger);
    assert!(log.stats().poisoned.is_none() && log.stats().reserved_bytes >= BROKER_LOG_RESERVE_BYTES);
    assert_same(&verified(&fs::read(path(&scratch)).unwrap()).unwrap().ledger, &ledger);
}

#[test]
fn a_log_that_is_not_ours_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new("broker-log-foreign");
    drop(BrokerLog::open(&root(&scratch)).unwrap());
    let path = path(&scratch);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(BrokerLog::open(&root(&scratch)), Err(BrokerLogError::NotOurs { .. })));
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    assert!(matches!(BrokerLog::open(&root(&scratch)), Err(BrokerLogError::NotOurs { .. })));
}
