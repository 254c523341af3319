//! The audit file against rotation, crashes and failing disks.
//! Owns: the promises of the writer.
//! May touch: a directory of its own under the system's temporary one.
//! Never: waits for a fixed time; it waits for what it expects.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::api::testing::{TempDir, eventually};
use crate::core::record_hash;
use crate::http::{Method, Peer, RequestId};
use crate::limits::AUDIT_BATCH_LINES_MAX;

fn refusal(n: u64) -> AuditLine {
    AuditLine {
        method: Some(Method::Get),
        path: Some(format!("/v1/status/{n}")),
        reason: Some("invalid_token"),
        peer: Some(Peer::Tcp("127.0.0.1:51820".parse().unwrap())),
        required_access: Some("read_only"),
        token_fingerprint: Some("0a1b2c3d".to_string()),
        request_id: RequestId::parse("r-1"),
        ..AuditLine::new(1_760_000_000_000 + n, AuditEvent::AuthFailure)
    }
}

/// Numbers of the refusals in a file.
fn seqs(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64().unwrap()).collect()
}

#[test]
fn a_line_has_the_published_fields_and_the_file_is_private() {
    let dir = TempDir::new("audit");
    let audit = ControlPlaneAudit::start(&dir.path().join("control-plane-auth"), AuditLimits::default(), None).unwrap();
    audit.record(refusal(0));
    audit.record(AuditLine {
        method: Some(Method::Post),
        path: Some("/v1/a\"b".to_string()),
        status: Some(202),
        role: Some("admin"),
        peer: Some(Peer::Unix),
        ..AuditLine::new(7, AuditEvent::AdminAction)
    });
    audit.record(AuditLine { suppressed: Some(12), ..AuditLine::new(8, AuditEvent::RefusalsSuppressed) });
    audit.stop().unwrap();
    let path = dir.path().join("control-plane-auth/audit.jsonl");
    let none = "0".repeat(64);
    let chained = |line: String| {
        let chain = record_hash(line.as_bytes());
        (format!("{line},\"chain\":\"{chain}\"}}\n"), chain)
    };
    let (refusal, first) = chained(format!(
        "{{\"seq\":1,\"book\":\"refusals\",\"timestamp_ms\":1760000000000,\"event\":\"auth_failure\",\"code\":\"auth_failure\",\
         \"method\":\"GET\",\"path\":\"/v1/status/0\",\"reason\":\"invalid_token\",\"remote_addr\":\"127.0.0.1:51820\",\
         \"required_access\":\"read_only\",\"token_fingerprint\":\"0a1b2c3d\",\"request_id\":\"r-1\",\"prev\":\"{none}\""
    ));
    let (act, _) = chained(format!(
        "{{\"seq\":1,\"book\":\"acts\",\"timestamp_ms\":7,\"event\":\"admin_action\",\"code\":\"admin_action\",\"method\":\"POST\",\
         \"path\":\"/v1/a\\\"b\",\"remote_addr\":\"unix\",\"status\":202,\"role\":\"admin\",\"prev\":\"{none}\""
    ));
    let (summary, _) = chained(format!(
        "{{\"seq\":2,\"book\":\"refusals\",\"timestamp_ms\":8,\"event\":\"refusals_suppressed\",\
         \"code\":\"refusals_suppressed\",\"suppressed\":12,\"prev\":\"{first}\""
    ));
    let text = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    // The books come by queues of their own.
    lines.sort_by_key(|line| line.contains("\"book\":\"acts\""));
    assert_eq!(lines, [refusal, summary, act]);
    let report = check(path.parent().unwrap()).unwrap();
    assert_eq!((report.refusals, report.acts, report.problem), (2, 1, None));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    let stats = audit.stats();
    assert_eq!((stats.written_count, stats.dropped_count, stats.queue_depth, stats.error), (3, 0, 0, None));
}

#[test]
fn numbers_go_on_over_restarts_and_a_torn_line_is_cut() {
    let dir = TempDir::new("audit");
    let path = dir.path().join("audit.jsonl");
    for round in 0..3u64 {
        let audit = ControlPlaneAudit::start(dir.path(), AuditLimits::default(), None).unwrap();
        audit.record(refusal(round));
        audit.stop().unwrap();
        let mut torn = fs::read(&path).unwrap();
        torn.extend_from_slice(b"{\"seq\":99,\"timest");
        fs::write(&path, torn).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let audit = ControlPlaneAudit::start(dir.path(), AuditLimits::default(), None).unwrap();
    audit.stop().unwrap();
    assert_eq!(seqs(&path), vec![1, 2, 3]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

fn act(n: u64) -> AuditLine {
    AuditLine { act: Some(format!("act-{n}")), ..AuditLine::new(n, AuditEvent::AdminAction) }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

#[test]
fn a_flood_of_refusals_rotates_refusals_away_and_no_act_and_every_chain_goes_on() {
    let dir = TempDir::new("audit");
    let limits = AuditLimits { file_bytes_max: 2_000, rotated_files_max: 2 };
    for start in [0, 50] {
        let audit = ControlPlaneAudit::start(dir.path(), limits, None).unwrap();
        for n in start..start + 50 {
            if n % 25 == 0 {
                audit.record(act(n));
            }
            audit.record(refusal(n));
            eventually("the line is written", || audit.stats().queue_depth == 0);
        }
        audit.stop().unwrap();
        let report = check(dir.path()).unwrap();
        assert_eq!(report.problem, None);
        assert_eq!(report.acts, start / 25 + 2, "no act was pushed out");
    }
    let kept = names(dir.path());
    assert_eq!(kept.iter().filter(|name| name.starts_with("audit.refusals.")).count(), 2, "{kept:?}");
    assert_eq!(kept.iter().filter(|name| name.starts_with("audit.acts.")).count(), 1, "{kept:?}");
    assert_eq!(kept.len(), 4, "{kept:?}");
    for name in &kept {
        let metadata = fs::metadata(dir.path().join(name)).unwrap();
        assert!(metadata.len() <= 2_000 && metadata.permissions().mode() & 0o777 == 0o600, "{name}");
    }
}

#[test]
fn a_rotation_cut_off_anywhere_is_finished_without_a_line_lost_or_twice() {
    for cut in 0..4 {
        let dir = TempDir::new("audit");
        let limits = AuditLimits { file_bytes_max: 1_000_000, rotated_files_max: 3 };
        let audit = ControlPlaneAudit::start(dir.path(), limits, None).unwrap();
        for n in 0..20 {
            audit.record(refusal(n));
            audit.record(act(n));
        }
        audit.stop().unwrap();
        let (current, full) = (dir.path().join("audit.jsonl"), dir.path().join("audit.jsonl.rotating"));
        fs::rename(&current, &full).unwrap();
        let text = fs::read_to_string(&full).unwrap();
        let of_book = |book: &str| -> Vec<&str> {
            text.split_inclusive('\n').filter(|line| line.contains(&format!("\"book\":\"{book}\""))).collect()
        };
        if cut >= 1 {
            // Half of the refusals have moved, the last of them in part.
            let mut moved = of_book("refusals")[..10].concat();
            moved.truncate(moved.len() - 30);
            fs::write(dir.path().join(format!("audit.refusals.{:020}.jsonl", 1)), moved).unwrap();
        }
        if cut >= 2 {
            let moved = of_book("refusals").concat();
            fs::write(dir.path().join(format!("audit.refusals.{:020}.jsonl", 1)), moved).unwrap();
        }
        if cut >= 3 {
            fs::write(dir.path().join(format!("audit.acts.{:020}.jsonl", 1)), of_book("acts").concat()).unwrap();
        }
        let audit = ControlPlaneAudit::start(dir.path(), limits, None).unwrap();
        audit.record(refusal(99));
        audit.record(act(99));
        audit.stop().unwrap();
        assert!(!full.exists(), "cut {cut}");
        let report = check(dir.path()).unwrap();
        assert_eq!(
            (report.refusals, report.acts, report.refusals_lost, report.problem),
            (21, 21, 0, None),
            "cut {cut}"
        );
    }
}

#[test]
fn a_changed_removed_or_moved_line_is_named() {
    let dir = TempDir::new("audit");
    let audit = ControlPlaneAudit::start(dir.path(), AuditLimits::default(), None).unwrap();
    for n in 0..6 {
        audit.record(act(n));
    }
    audit.stop().unwrap();
    let path = dir.path().join("audit.jsonl");
    let good = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = good.split_inclusive('\n').collect();
    let with = |text: String| {
        fs::write(&path, text).unwrap();
        check(dir.path()).unwrap().problem.map(|problem| problem.line)
    };
    assert_eq!(with(good.clone()), None);
    assert_eq!(with(good.replace("act-3", "act-9")), Some(4));
    assert_eq!(with([&lines[..2], &lines[3..]].concat().concat()), Some(3));
    assert_eq!(with([&lines[..3], &lines[2..]].concat().concat()), Some(4));
    let swapped = [lines[0], lines[2], lines[1], lines[3]].concat();
    assert_eq!(with(swapped), Some(2));
}

#[test]
fn a_pipe_in_place_of_the_file_bounds_the_wait_for_a_line_and_nothing_else_waits() {
    let dir = TempDir::new("audit");
    let path = dir.path().join("audit.jsonl");
    let audit = ControlPlaneAudit::start(dir.path(), AuditLimits::default(), None).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let limit = Duration::from_millis(200);
    assert_eq!(audit.record_durably(act(1), limit), Err(NotRecorded));
    audit.record(refusal(1));
    assert_eq!(audit.stats().error.as_deref(), Some("cannot write: it is not a regular file"));
    fs::remove_file(&path).unwrap();
    assert_eq!(audit.record_durably(act(2), Duration::from_secs(60)), Ok(()), "without a restart");
    audit.stop().unwrap();
    let report = check(dir.path()).unwrap();
    assert_eq!((report.acts, report.refusals, report.problem), (2, 1, None));
}

#[test]
fn a_file_moved_away_is_replaced_and_the_lines_go_to_the_new_one() {
    let dir = TempDir::new("audit");
    let audit = ControlPlaneAudit::start(dir.path(), AuditLimits::default(), None).unwrap();
    audit.record(refusal(1));
    eventually("the first line is written", || audit.stats().written_count == 1);
    fs::rename(dir.path().join("audit.jsonl"), dir.path().join("taken-away")).unwrap();
    audit.record(refusal(2));
    audit.stop().unwrap();
    assert_eq!(seqs(&dir.path().join("taken-away")), vec![1]);
    assert_eq!(seqs(&dir.path().join("audit.jsonl")), vec![2]);
}

#[test]
fn lines_wait_while_the_disk_refuses_and_are_written_when_it_takes_them_again() {
    let dir = TempDir::new("audit");
    let path = dir.path().join("audit.jsonl");
    let audit = ControlPlaneAudit::start(dir.path(), AuditLimits::default(), None).unwrap();
    audit.record(refusal(1));
    eventually("the first line is written", || audit.stats().written_count == 1);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    for n in 2..=10 {
        audit.record(refusal(n));
    }
    eventually("the failure shows", || audit.stats().error.is_some());
    let stats = audit.stats();
    assert!(stats.failed_attempt_count >= 1 && stats.queue_depth == 9, "{stats:?}");
    assert_eq!(stats.error.as_deref(), Some("cannot write: it is not a regular file"));
    fs::remove_dir(&path).unwrap();
    eventually("the lines are written", || audit.stats().written_count == 10);
    audit.stop().unwrap();
    assert_eq!(audit.stats().error, None);
    let times: Vec<u64> = fs::read_to_string(&path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["timestamp_ms"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs(&path), (2..=10).collect::<Vec<u64>>(), "waiting is no loss");
    assert_eq!(times, (1_760_000_000_002..=1_760_000_000_010).collect::<Vec<u64>>());
}

/// A directory that takes no change is what a file system mounted read-only, or one that an operator has locked, looks like
/// to the writer.
#[test]
fn lines_wait_while_the_directory_is_read_only_and_none_is_lost_or_twice_afterwards() {
    let dir = TempDir::new("audit");
    let limits = AuditLimits { file_bytes_max: 2_000, rotated_files_max: 9 };
    let audit = ControlPlaneAudit::start(dir.path(), limits, None).unwrap();
    audit.record(refusal(1));
    eventually("the first line is written", || audit.stats().written_count == 1);
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).unwrap();
    if fs::write(dir.path().join("probe"), "").is_ok() {
        fs::remove_file(dir.path().join("probe")).unwrap();
        let why = "SKIPPED: lines_wait_while_the_directory_is_read_only_and_none_is_lost_or_twice_afterwards: modes do not \
                   bind this user\n";
        std::io::Write::write_all(&mut std::io::stderr(), why.as_bytes()).unwrap();
        return;
    }
    // One file's worth goes into the open file; then it must be rotated, which the directory refuses.
    for n in 2..=30 {
        audit.record(if n % 10 == 0 { act(n) } else { refusal(n) });
    }
    eventually("the failure shows", || audit.stats().error.is_some());
    assert_eq!(audit.record_durably(act(31), Duration::from_millis(100)), Err(NotRecorded), "a bounded wait");
    let stats = audit.stats();
    assert!(stats.failed_attempt_count >= 1 && stats.queue_depth >= 1 && stats.dropped_count == 0, "{stats:?}");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(audit.record_durably(act(32), Duration::from_secs(60)), Ok(()), "without a restart");
    audit.stop().unwrap();
    let report = check(dir.path()).unwrap();
    assert_eq!((report.acts, report.refusals, report.problem), (5, 27, None));
}

#[test]
fn a_full_queue_loses_lines_and_counts_them_without_blocking() {
    let dir = TempDir::new("audit");
    let path = dir.path().join("audit.jsonl");
    let audit = ControlPlaneAudit::start(dir.path(), AuditLimits::default(), None).unwrap();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let sent = (AUDIT_QUEUE_MAX + AUDIT_BATCH_LINES_MAX + 100) as u64;
    for n in 0..sent {
        audit.record(refusal(n));
    }
    assert!(audit.stats().dropped_count >= 100, "{:?}", audit.stats());
    fs::remove_dir(&path).unwrap();
    audit.stop().unwrap();
    let stats = audit.stats();
    assert_eq!(stats.written_count + stats.dropped_count, sent);
    let numbers = seqs(&path);
    assert_eq!(numbers.len() as u64, stats.written_count);
    assert_eq!(*numbers.last().unwrap(), sent, "the gaps in the numbers are the lost lines");
    audit.record(refusal(0));
    assert!(!audit.is_alive());
    assert!(audit.stop().is_ok(), "stopping twice is harmless");
}

#[test]
fn start_is_refused_where_the_file_cannot_be_one() {
    let dir = TempDir::new("audit");
    fs::create_dir(dir.path().join("audit.jsonl")).unwrap();
    let error = ControlPlaneAudit::start(dir.path(), AuditLimits::default(), None).err().expect("refused");
    assert!(matches!(error, AuditError::Open { .. }));
    assert!(error.to_string().contains("audit.jsonl: it is not a regular file; next: "), "{error}");
    fs::write(dir.path().join("file"), "").unwrap();
    assert!(ControlPlaneAudit::start(&dir.path().join("file"), AuditLimits::default(), None).is_err());
}
