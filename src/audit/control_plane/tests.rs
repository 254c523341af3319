//! The audit file against rotation, crashes and failing disks.
//! Owns: the promises of the writer.
//! May touch: a directory of its own under the system's temporary one.
//! Never: waits for a fixed time; it waits for what it expects.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::api::testing::{TempDir, eventually};
use crate::http::{Method, Peer, RequestId};

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

fn seqs(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64().unwrap()).collect()
}

#[test]
fn a_line_has_the_published_fields_and_the_file_is_private() {
    let dir = TempDir::new("audit");
    let audit = ControlPlaneAudit::start(&dir.path().join("control-plane-auth"), AuditLimits::default()).unwrap();
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
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "{\"seq\":1,\"timestamp_ms\":1760000000000,\"event\":\"auth_failure\",\"code\":\"auth_failure\",\
         \"method\":\"GET\",\"path\":\"/v1/status/0\",\"reason\":\"invalid_token\",\"remote_addr\":\"127.0.0.1:51820\",\
         \"required_access\":\"read_only\",\"token_fingerprint\":\"0a1b2c3d\",\"request_id\":\"r-1\"}\n\
         {\"seq\":2,\"timestamp_ms\":7,\"event\":\"admin_action\",\"code\":\"admin_action\",\"method\":\"POST\",\
         \"path\":\"/v1/a\\\"b\",\"remote_addr\":\"unix\",\"status\":202,\"role\":\"admin\"}\n\
         {\"seq\":3,\"timestamp_ms\":8,\"event\":\"refusals_suppressed\",\"code\":\"refusals_suppressed\",\"suppressed\":12}\n"
    );
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
        let audit = ControlPlaneAudit::start(dir.path(), AuditLimits::default()).unwrap();
        audit.record(refusal(round));
        audit.stop().unwrap();
        let mut torn = fs::read(&path).unwrap();
        torn.extend_from_slice(b"{\"seq\":99,\"timest");
        fs::write(&path, torn).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let audit = ControlPlaneAudit::start(dir.path(), AuditLimits::default()).unwrap();
    audit.stop().unwrap();
    assert_eq!(seqs(&path), vec![1, 2, 3]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn rotation_bounds_the_files_and_loses_no_number_in_between() {
    let dir = TempDir::new("audit");
    let limits = AuditLimits { file_bytes_max: 1_000, rotated_files_max: 2 };
    for start in [0, 50] {
        let audit = ControlPlaneAudit::start(dir.path(), limits).unwrap();
        for n in start..start + 50 {
            audit.record(refusal(n));
            eventually("the line is written", || audit.stats().queue_depth == 0);
        }
        audit.stop().unwrap();
    }
    let mut names: Vec<String> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]);
    let mut kept = Vec::new();
    for name in ["audit.jsonl.2", "audit.jsonl.1", "audit.jsonl"] {
        assert!(fs::metadata(dir.path().join(name)).unwrap().len() <= 1_000, "{name}");
        kept.extend(seqs(&dir.path().join(name)));
    }
    assert!(kept.len() >= 5);
    assert_eq!(kept, (101 - kept.len() as u64..=100).collect::<Vec<_>>(), "contiguous up to the last line");
}

#[test]
fn a_file_moved_away_is_replaced_and_the_lines_go_to_the_new_one() {
    let dir = TempDir::new("audit");
    let audit = ControlPlaneAudit::start(dir.path(), AuditLimits::default()).unwrap();
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
    let audit = ControlPlaneAudit::start(dir.path(), AuditLimits::default()).unwrap();
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

#[test]
fn a_full_queue_loses_lines_and_counts_them_without_blocking() {
    let dir = TempDir::new("audit");
    let path = dir.path().join("audit.jsonl");
    let audit = ControlPlaneAudit::start(dir.path(), AuditLimits::default()).unwrap();
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
    let error = ControlPlaneAudit::start(dir.path(), AuditLimits::default()).err().expect("refused");
    assert!(matches!(error, AuditError::Open { .. }));
    assert!(error.to_string().contains("audit.jsonl: it is not a regular file; next: "), "{error}");
    fs::write(dir.path().join("file"), "").unwrap();
    assert!(ControlPlaneAudit::start(&dir.path().join("file"), AuditLimits::default()).is_err());
}
