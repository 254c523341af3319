//! Journal files as they were found, each beside what a start and a verification must make of it.
//!
//! `tests/data/journal/<case>.jsonl` is one segment, `<case>.expected` says what is expected. A new case is a new pair
//! of files. `cargo test --test journal_corpus -- --ignored` writes cases that do not exist yet; existing ones
//! are never rewritten, since they stand for files in the field.

mod journal_support;

use std::fs;
use std::path::{Path, PathBuf};

use journal_support::{NOW_MS, draft, open, signer};
use kheish_daemon::journal::fake_disk::FakeDisk;
use kheish_daemon::journal::{Chain, JournalError, OpenCause, verify};
use serde::{Deserialize, Serialize};

/// What a case expects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    /// Name of the segment file in a journal directory.
    segment: String,
    /// What a start does: `reopens`, `cuts`, `refuses_damage`, `refuses_format`, `refuses_record`.
    start: String,
    /// Records of the state after the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    records: Option<usize>,
    /// Where it cuts, or where the damage is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// Text that the cause contains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    /// What a verification with the public key says: `good`, `torn`, or `bad`.
    verification: String,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/journal")
}

fn cases() -> Vec<(String, Vec<u8>, Expected)> {
    let mut names: Vec<PathBuf> = fs::read_dir(directory())
        .expect("the corpus is there")
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    names.sort();
    let read = |path: PathBuf| {
        let expected = fs::read(path.with_extension("expected")).expect("each case has an .expected file");
        let expected = serde_json::from_slice(&expected).expect("the .expected file is as documented");
        (path.file_stem().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap(), expected)
    };
    names.into_iter().map(read).collect()
}

fn disk_with(segment: &str, bytes: &[u8]) -> FakeDisk {
    let disk = FakeDisk::new(1);
    disk.put(&format!("journal/{segment}"), bytes);
    disk
}

fn check_start(name: &str, bytes: &[u8], expected: &Expected) {
    let disk = disk_with(&expected.segment, bytes);
    let (start, records, offset, cause) = match open(&disk, NOW_MS) {
        Ok((_, recovery, log)) => {
            assert_eq!(recovery.cause, OpenCause::Reopened, "{name}");
            let (start, offset, cause) = match recovery.torn {
                None => ("reopens", None, String::new()),
                Some(torn) => ("cuts", Some(torn.offset), torn.cause),
            };
            (start, Some(log.entries.len()), offset, cause)
        }
        Err(error @ JournalError::FormatNewer { .. }) => ("refuses_format", None, None, error.to_string()),
        Err(JournalError::Damaged { offset, cause, .. }) => ("refuses_damage", None, Some(offset), cause),
        Err(JournalError::NotUnderstood { offset, cause, .. }) => ("refuses_record", None, Some(offset), cause),
        Err(other) => panic!("{name}: {other}"),
    };
    assert_eq!(
        (start, records, offset),
        (expected.start.as_str(), expected.records, expected.offset),
        "{name}: {cause}"
    );
    let text = expected.cause.as_deref().unwrap_or_default();
    assert!(cause.contains(text), "{name}: {cause:?} does not contain {text:?}");
    if start.starts_with("refuses") {
        let kept = disk.contents(&format!("journal/{}", expected.segment));
        assert_eq!(kept.as_deref(), Some(bytes), "{name}: a refused file was changed");
    }
}

fn check_verification(name: &str, bytes: &[u8], expected: &Expected) {
    let root = std::env::temp_dir().join(format!("kheish-corpus-{}-{name}", std::process::id()));
    fs::create_dir_all(root.join("journal")).unwrap();
    fs::write(root.join("journal").join(&expected.segment), bytes).unwrap();
    let report = verify(&root, &[signer().public().clone()], &mut |_| {});
    let found = match (&report.problem, &report.torn_tail) {
        (Some(_), _) => "bad",
        (None, Some(_)) => "torn",
        (None, None) => "good",
    };
    assert_eq!(found, expected.verification, "{name}: {report:?}");
    assert_eq!(report.ok, report.problem.is_none());
    if let Some(problem) = &report.problem {
        assert!(problem.file.ends_with(&expected.segment) && !problem.next.is_empty(), "{problem:?}");
        if expected.start != "reopens" && expected.start != "refuses_format" {
            assert_eq!(Some(problem.offset), expected.offset, "{name}: {problem:?}");
        }
    }
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn every_file_of_the_corpus_is_opened_cut_or_refused_as_expected() {
    let cases = cases();
    assert!(cases.len() >= 20, "only {} cases were found", cases.len());
    for (name, bytes, expected) in cases {
        check_start(&name, &bytes, &expected);
        check_verification(&name, &bytes, &expected);
    }
}

#[test]
fn a_copied_root_of_the_corpus_begins_a_new_epoch() {
    let (_, bytes, expected) = cases().into_iter().find(|(name, _, _)| name == "whole").unwrap();
    let copy = disk_with(&expected.segment, &bytes).copied(2);
    let (journal, recovery, log) = open(&copy, NOW_MS + 60_000).unwrap();
    assert_eq!((recovery.cause, Some(log.entries.len())), (OpenCause::Copied, expected.records));
    assert_eq!(u64::from(journal.epoch()), NOW_MS / 1_000 + 60);
}

/// Lines of a journal, so that cases can be made from it.
struct Base {
    segment: String,
    lines: Vec<Vec<u8>>,
}

impl Base {
    /// opened · 2 records · 3 records · 1 record · seal, closed cleanly.
    fn new() -> Self {
        let disk = FakeDisk::new(1);
        let (mut journal, _, _) = open(&disk, NOW_MS).unwrap();
        for count in [2, 3, 1] {
            let first = journal.next_seq();
            let drafts: Vec<_> = (first..first + count).map(|seq| draft(seq, 40)).collect();
            journal.append(&drafts).unwrap();
        }
        let segment = format!("{:020}.jsonl", journal.reader().floor());
        journal.close(NOW_MS).unwrap();
        let bytes = disk.contents(&format!("journal/{segment}")).unwrap();
        Self { segment, lines: bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect() }
    }

    fn offset(&self, line: usize) -> u64 {
        self.lines[..line].iter().map(|line| line.len() as u64).sum()
    }

    /// The lines with one text replaced by another and all chain values made good again.
    fn rechained(&self, from: &str, to: &str) -> Vec<u8> {
        let (mut chain, mut bytes) = (Chain::START, Vec::new());
        for line in &self.lines {
            let text = String::from_utf8(line.clone()).unwrap().replace(from, to);
            let covered = text.split_at(text.len() - 77).0;
            chain = chain.next(covered.as_bytes());
            bytes.extend_from_slice(format!("{covered},\"chain\":\"{chain}\"}}\n").as_bytes());
        }
        bytes
    }

    fn write(&self, name: &str, bytes: &[u8], start: &str, records: Option<usize>, rest: (Option<u64>, &str, &str)) {
        let path = directory().join(name).with_extension("jsonl");
        if path.exists() {
            return;
        }
        let (offset, cause, verification) = rest;
        let expected = Expected {
            segment: self.segment.clone(),
            start: start.to_string(),
            records,
            offset,
            cause: (!cause.is_empty()).then(|| cause.to_string()),
            verification: verification.to_string(),
        };
        fs::write(&path, bytes).unwrap();
        fs::write(path.with_extension("expected"), serde_json::to_string_pretty(&expected).unwrap() + "\n").unwrap();
    }
}

#[test]
#[ignore = "writes cases of the corpus that do not exist yet"]
fn write_missing_cases() {
    let base = Base::new();
    assert_eq!(base.lines.len(), 8);
    let whole = base.lines.concat();
    let upto = |line: usize| base.lines[..line].concat();
    let with = |line: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let mut lines = base.lines.clone();
        change(&mut lines[line]);
        lines.concat()
    };
    let padded = |mut bytes: Vec<u8>| {
        bytes.resize(bytes.len() + 4_096, 0);
        bytes
    };
    base.write("whole", &whole, "reopens", Some(6), (None, "", "good"));
    base.write("nul_padding", &padded(whole.clone()), "reopens", Some(6), (None, "", "good"));
    base.write("no_seal_yet", &padded(upto(7)), "reopens", Some(6), (None, "", "good"));

    let cut = |name: &str, bytes: &[u8], records, batch: usize, cause: &str| {
        base.write(name, bytes, "cuts", Some(records), (Some(base.offset(batch)), cause, "torn"));
    };
    let half = base.lines[6].len() / 2;
    cut("torn_in_the_middle_of_a_line", &[upto(6), base.lines[6][..half].to_vec()].concat(), 5, 6, "no end");
    cut("torn_and_padded", &padded([upto(6), base.lines[6][..half].to_vec()].concat()), 5, 6, "no end");
    let short = base.lines[6].len() - 20;
    cut("checksum_cut_short", &[upto(6), base.lines[6][..short].to_vec()].concat(), 5, 6, "no end");
    let mut newline = [upto(6), base.lines[6][..short].to_vec(), b"\n".to_vec()].concat();
    cut("checksum_cut_short_with_line_end", &newline, 5, 6, "does not end with its chain value");
    newline.clear();
    cut("last_batch_misses_its_last_line", &padded(upto(5)), 2, 3, "1 of the 3 lines of batch 3 are missing");
    let mut hole = upto(6);
    let third = base.offset(3) as usize;
    hole[third..third + base.lines[3].len()].fill(0);
    cut("last_batch_lost_its_first_sector", &padded(hole), 2, 3, "NUL bytes stand before other bytes");
    let mut inside = upto(6);
    let fifth = base.offset(5) as usize;
    inside[fifth - 40..fifth + 40].fill(0);
    cut("last_batch_lost_a_sector_inside", &padded(inside), 2, 3, "chain value");
    let garbage = [padded(upto(7)), b"left over".to_vec()].concat();
    cut("bytes_behind_padding", &garbage, 6, 7, "NUL bytes stand before other bytes");
    let wrong = |line: usize| with(line, &|line| line[60] ^= 1);
    cut("last_line_changed", &wrong(7), 6, 7, "");
    let quoted = String::from_utf8(base.lines[7].clone()).unwrap().replace('"', "\\\"").replace('\n', "\\n");
    let spoof = [upto(6), b"{\"seq\":1,\"text\":\"".to_vec(), quoted.into_bytes()].concat();
    cut("torn_text_quotes_a_later_line", &padded(spoof), 5, 6, "no end");

    let damage = |name: &str, bytes: &[u8], line: usize, cause: &str| {
        base.write(name, bytes, "refuses_damage", None, (Some(base.offset(line)), cause, "bad"));
    };
    damage("byte_changed_in_the_middle", &wrong(4), 4, "later batch");
    damage("line_end_lost_in_the_middle", &with(6, &|line| *line.last_mut().unwrap() = b' '), 6, "later batch");
    let mut lines = base.lines.clone();
    lines.remove(4);
    damage("batch_in_the_middle_misses_a_line", &lines.concat(), 4, "later batch");
    let mut lines = base.lines.clone();
    lines.remove(6);
    damage("batch_in_the_middle_is_missing", &lines.concat(), 6, "lines are missing");
    let mut nul = whole.clone();
    let third = base.offset(3) as usize;
    nul[third..base.offset(6) as usize].fill(0);
    damage("batch_in_the_middle_is_nul", &nul, 3, "later batch");
    let mut lines = base.lines.clone();
    lines.swap(1, 2);
    damage("lines_swapped", &lines.concat(), 1, "chain value");
    damage("first_line_is_missing", &base.lines[1..].concat(), 0, "later batch");
    damage("empty", b"", 0, "no record");
    damage("only_nul", &[0; 4_096], 0, "no record");
    damage("only_a_torn_first_line", &base.lines[0][..50], 0, "no record");
    damage("seal_names_another_record", &base.rechained("\"head\":", "\"head\":1"), 7, "seal names another record");

    let format = base.rechained("\"format\":2,", "\"format\":999,");
    base.write("newer_format", &format, "refuses_format", None, (None, "format 999", "bad"));
    let forged = base.rechained("\"signature\":\"", "\"signature\":\"00");
    base.write("forged_seal", &forged, "reopens", Some(6), (None, "", "bad"));
    let altered = base.rechained("xxxx", "yyyy");
    damage("history_rewritten_with_a_new_chain", &altered, 7, "seal names another record");
    let kind = base.rechained("run.note", "run.new_kind");
    let unsealed: Vec<u8> = kind.split_inclusive(|byte| *byte == b'\n').take(7).flatten().copied().collect();
    base.write("unknown_kind", &unsealed, "reopens", Some(6), (None, "", "good"));
    let body = base.rechained("\"n\":", "\"n\"=");
    base.write("body_is_not_json", &body, "refuses_record", None, (Some(base.offset(1)), "not JSON", "bad"));
}
