//! The signed ledger of external actions, with the real binary: what it records, that its bytes never change, that an
//! auditor needs nothing but the public key, and that every kind of tampering is found where it was done.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
#[path = "support/skip.rs"]
mod skip;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use daemon::{Daemon, Home, Provider};
use kheish_daemon::audit::checkpoint::Checkpoint;
use kheish_daemon::audit::key::{PublicKey, SigningKey};
use kheish_daemon::audit::verify::verify;
use kheish_daemon::core::{RECORD_TAIL_BYTES, SignedRecord, record_hash};
use kheish_daemon::hex::to_hex;
use kheish_daemon::journal::Chain;
use serde_json::Value;
use serde_json::value::RawValue;

/// Answers everything, except the first input with "stall" in it, which it leaves without an end.
const STALLS_ONCE: &str = "[[turn]]\nmatch = \"stall\"\ntimes = 1\nfault = { kind = \"hang\" }\n";

fn actions_of(daemon: &Daemon, run: &str) -> Vec<u8> {
    let reply = daemon.get(&format!("/v1/runs/{run}/external-actions"));
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    reply.body
}

fn values(bytes: &[u8]) -> Vec<Value> {
    serde_json::from_slice(bytes).expect("a list")
}

fn copy_tree(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp");
    assert!(status.success());
}

/// A state root with three finished runs, stopped; and the copy of its public key that an auditor keeps.
fn recorded(test: &str) -> (Home, Provider, PathBuf) {
    let provider = Provider::start("");
    let home = Home::new(test, Some(&provider));
    let daemon = home.start();
    daemon.create_session("ops");
    for text in ["one", "two", "three"] {
        let run = daemon.submit("ops", text);
        assert_eq!(daemon.wait_end(&run), "completed");
    }
    daemon.stop();
    let kept = home.join("kept.pem");
    fs::copy(home.root().join("audit-signing.pub.pem"), &kept).expect("a public key");
    (home, provider, kept)
}

fn audit(home: &Home, root: &Path, more: &[&str]) -> (i32, String) {
    let root = root.to_str().expect("UTF-8");
    home.command(&[&["audit", "verify", "--offline", "--state-root", root], more].concat())
}

#[test]
fn a_runs_actions_are_signed_and_byte_stable_over_restart_and_restore() {
    let provider = Provider::start("");
    let home = Home::new("ledger-stable", Some(&provider));
    let daemon = home.start();
    daemon.create_session("ops");
    let run = daemon.submit("ops", "hello");
    assert_eq!(daemon.wait_end(&run), "completed");
    let before = actions_of(&daemon, &run);
    let records = values(&before);
    let phases: Vec<&str> = records.iter().filter_map(|record| record["phase"].as_str()).collect();
    assert_eq!(phases, ["request", "response"]);
    assert_eq!(records[0]["action_id"], records[1]["action_id"], "one id joins the two");
    assert_eq!(records[1]["prev_hash"], records[0]["record_hash"]);
    assert_eq!((&records[0]["kind"], &records[1]["outcome"]), (&"model_provider".into(), &"succeeded".into()));
    let key = PublicKey::parse_pem(daemon.get("/v1/audit/public-key").json()["public_key"].as_str().expect("PEM"));
    let key = key.expect("a key").remove(0);
    for raw in serde_json::from_slice::<Vec<&RawValue>>(&before).expect("a list") {
        let record = SignedRecord::split(raw.get()).expect("signed");
        assert_eq!(record_hash(record.signed.as_bytes()), record.record_hash);
        assert!(key.verify(record.signed.as_bytes(), &record.signature), "{raw}");
    }
    let page = daemon.get(&format!("/v1/runs/{run}/external-actions?page=true&limit=1")).json();
    assert_eq!((page["items"][0].clone(), page["pagination"]["total_count"].clone()), (records[0].clone(), 2.into()));
    let cursor = page["pagination"]["next_cursor"].as_str().expect("more").to_string();
    let page = daemon.get(&format!("/v1/runs/{run}/external-actions?cursor={cursor}&limit=1")).json();
    assert_eq!((page["items"][0].clone(), page["pagination"]["has_more"].clone()), (records[1].clone(), false.into()));
    assert_eq!(daemon.get("/v1/runs/run-99/external-actions").status, 404);
    daemon.stop();

    let restarted = home.start();
    assert_eq!(actions_of(&restarted, &run), before, "after a restart");
    restarted.stop();
    let restored = home.join("restored");
    copy_tree(&home.root(), &restored);
    let elsewhere = home.serve().root(&restored).start();
    assert_eq!(actions_of(&elsewhere, &run), before, "after a restore");
    elsewhere.stop();
    let (code, report) = audit(&home, &restored, &[]);
    assert_eq!(code, 0, "{report}");
}

#[test]
fn a_call_in_flight_at_a_crash_has_an_unknown_outcome_and_is_asked_again_under_a_new_id() {
    let provider = Provider::start(STALLS_ONCE);
    let home = Home::new("ledger-crash", Some(&provider));
    let daemon = home.start();
    daemon.create_session("ops");
    let run = daemon.submit("ops", "stall please");
    provider.wait_asked("stall", 1);
    daemon.kill();
    let daemon = home.start();
    assert_eq!(daemon.wait_end(&run), "completed");
    let records = values(&actions_of(&daemon, &run));
    let told: Vec<(&str, &str)> = records
        .iter()
        .map(|record| (record["phase"].as_str().expect("a phase"), record["outcome"].as_str().unwrap_or("-")))
        .collect();
    assert_eq!(told, [("request", "-"), ("response", "unknown"), ("request", "-"), ("response", "succeeded")]);
    assert_eq!(records[1]["cause"], "restart");
    assert_eq!(records[0]["action_id"], records[1]["action_id"]);
    assert_ne!(records[0]["action_id"], records[2]["action_id"]);
    assert_eq!(records[0]["request_digest"], records[2]["request_digest"], "the same request");
    daemon.stop();
    let (code, report) = audit(&home, &home.root(), &[]);
    assert_eq!(code, 0, "{report}");
}

#[test]
fn a_copied_root_verifies_with_the_public_key_alone_and_a_foreign_key_does_not_pass() {
    let (home, _provider, kept) = recorded("ledger-copy");
    let copy = home.join("copy");
    copy_tree(&home.root(), &copy);
    for secret in ["audit-signing.key", "audit-signing.pub.pem", "auth", "daemon.lock"] {
        let path = copy.join(secret);
        let _absent = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    }
    let kept = kept.to_str().expect("UTF-8");
    let (code, report) = audit(&home, &copy, &["--public-key", kept, "--output", "json"]);
    assert_eq!(code, 0, "{report}");
    let report: Value = serde_json::from_str(report.lines().next().expect("a document")).expect("JSON");
    assert_eq!(report["actions"]["requests"], 3);
    assert_eq!(report["actions"]["outcomes"]["succeeded"], 3);
    assert_eq!(report["control_intents_open"], serde_json::json!([]));
    let foreign = home.join("foreign.pem");
    fs::write(&foreign, SigningKey::from_seed(&[9; 32]).public().to_pem()).expect("written");
    let (code, report) = audit(&home, &copy, &["--public-key", foreign.to_str().expect("UTF-8")]);
    assert_eq!(code, 1, "{report}");
    assert!(report.contains("which does not count here") || report.contains("which was not given"), "{report}");
}

#[test]
fn openssl_checks_a_record_by_the_documented_commands() {
    let is_there = Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_ok_and(|it| it.success());
    if !is_there {
        return skip::skip("openssl_checks_a_record_by_the_documented_commands", "openssl is not installed");
    }
    let (home, _provider, kept) = recorded("ledger-openssl");
    let daemon = home.start();
    let actions = actions_of(&daemon, "run-2");
    daemon.stop();
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/audit.md")).expect("docs/audit.md");
    let script = document.split("```sh\n# check-record").nth(1).and_then(|rest| rest.split("```").next());
    let script = script.expect("the documented commands");
    assert!(document.contains(&format!("exactly {RECORD_TAIL_BYTES} bytes")), "the documented length");
    let records: Vec<&RawValue> = serde_json::from_slice(&actions).expect("a list");
    let check = |record: &str| {
        let file = home.join("record.json");
        fs::write(&file, record).expect("written");
        let mut shell = Command::new("sh");
        shell.arg("-ec").arg(script).env("RECORD", &file).env("PUBLIC_KEY", &kept).current_dir(home.join(""));
        shell.output().expect("sh")
    };
    for record in &records {
        let output = check(record.get());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let altered = records[0].get().replacen("\"run-2\"", "\"run-3\"", 1);
    assert!(!check(&altered).status.success(), "an altered record passes");
}

#[test]
fn a_cut_tail_is_found_against_a_checkpoint_that_was_kept_elsewhere() {
    let (home, _provider, kept) = recorded("ledger-checkpoint");
    let daemon = home.start();
    let run = daemon.submit("ops", "four");
    assert_eq!(daemon.wait_end(&run), "completed");
    let online = daemon.get("/v1/audit/checkpoint").body;
    daemon.stop();
    let root = home.root();
    let path = root.to_str().expect("UTF-8");
    let (code, offline) = home.command(&["audit", "checkpoint", "--offline", "--state-root", path, "--output", "json"]);
    assert_eq!(code, 0, "{offline}");
    let keys = PublicKey::parse_pem(&fs::read_to_string(&kept).expect("a key")).expect("a key");
    for checkpoint in [online.as_slice(), offline.trim().as_bytes()] {
        let checkpoint = Checkpoint::parse(checkpoint).expect("a checkpoint");
        assert_eq!(checkpoint.check(&keys), Ok(()));
        let report = verify(&root, &keys, Some(&checkpoint));
        assert!(report.ok, "{report:?}");
        // The last batches are gone and nothing else tells: without the checkpoint this is a good journal.
        let cut = home.join("cut");
        copy_tree(&root, &cut);
        fs::remove_dir_all(cut.join("snapshots")).expect("removed");
        let segment = last_segment(&cut);
        let text = fs::read_to_string(&segment).expect("text");
        let keep: Vec<&str> = text.lines().take_while(|line| seq_of(line) < checkpoint.head).collect();
        let at = keep.iter().rposition(|line| line.contains("\"batch\":")).expect("a batch");
        fs::write(&segment, keep[..at].iter().map(|line| format!("{line}\n")).collect::<String>()).expect("written");
        assert!(verify(&cut, &keys, None).ok, "the cut journal is whole in itself");
        let report = verify(&cut, &keys, Some(&checkpoint));
        let problem = report.problem.expect("found");
        assert_eq!(problem.seq, Some(checkpoint.head));
        assert!(problem.reason.contains("the checkpoint vouches for records up to"), "{problem:?}");
        fs::remove_dir_all(&cut).expect("removed");
    }
    let (code, report) = audit(&home, &root, &["--checkpoint", kept.to_str().expect("UTF-8")]);
    assert_eq!(code, 1, "a file that is no checkpoint: {report}");
}

#[test]
fn a_rotated_key_is_followed_from_the_first_public_key_and_a_cut_off_rotation_is_finished() {
    let (home, _provider, kept) = recorded("ledger-rotate");
    let root = home.root();
    let path = root.to_str().expect("UTF-8").to_string();
    let key_file = root.join("audit-signing.key");
    let first = SigningKey::read(&key_file).expect("a key").key_id();
    let (code, report) = home.command(&["audit", "rotate-key", "--state-root", &path]);
    assert_eq!(code, 0, "{report}");
    let second = SigningKey::read(&key_file).expect("a key").key_id();
    assert_ne!(first, second);

    let daemon = home.start();
    let run = daemon.submit("ops", "after");
    assert_eq!(daemon.wait_end(&run), "completed");
    assert_eq!(values(&actions_of(&daemon, &run))[0]["key_id"], second.as_str());
    let view = daemon.get("/v1/audit/public-key").json();
    assert_eq!(view["key_id"], second.as_str());
    assert_eq!(view["earlier_public_keys"].as_array().map(Vec::len), Some(1));
    daemon.stop();
    let kept = kept.to_str().expect("UTF-8");
    let (code, report) = audit(&home, &root, &["--public-key", kept]);
    assert_eq!(code, 0, "the first public key is enough: {report}");

    // A rotation that was cut off before it reached the journal: no daemon starts, and the command finishes it.
    let waiting = root.join("audit-signing.key.next");
    SigningKey::create(&waiting, &ring::rand::SystemRandom::new()).expect("created");
    let third = SigningKey::read(&waiting).expect("a key").key_id();
    let (_, log) = home.serve().refused();
    assert!(log.contains("a rotation of the audit signing key was cut off; next: run kheish-daemon audit rotate-key"));
    let (code, report) = home.command(&["audit", "rotate-key", "--state-root", &path, "--output", "json"]);
    assert_eq!(code, 0, "{report}");
    assert!(report.contains("\"resumed\":true"), "{report}");
    assert!(!waiting.exists());
    assert_eq!(SigningKey::read(&key_file).expect("a key").key_id(), third);
    // Cut off behind the journal and before the rename.
    fs::copy(&key_file, &waiting).expect("copied");
    let (code, report) = home.command(&["audit", "rotate-key", "--state-root", &path]);
    assert_eq!(code, 0, "{report}");
    home.start().stop();
    let (code, report) = audit(&home, &root, &["--public-key", kept]);
    assert_eq!(code, 0, "{report}");
}

#[test]
fn a_key_that_has_handed_over_signs_nothing_that_passes() {
    let (home, _provider, kept) = recorded("ledger-retired");
    let root = home.root();
    let path = root.to_str().expect("UTF-8").to_string();
    let stolen = home.join("stolen.key");
    fs::copy(root.join("audit-signing.key"), &stolen).expect("copied");
    assert_eq!(home.command(&["audit", "rotate-key", "--state-root", &path]).0, 0);
    home.serve().options(&["--audit-signing-key-file", stolen.to_str().expect("UTF-8")]).start().stop();
    let (code, report) = audit(&home, &root, &["--public-key", kept.to_str().expect("UTF-8")]);
    assert_eq!(code, 1, "{report}");
    assert!(report.contains("which had handed over before"), "{report}");
}

#[test]
fn a_key_is_moved_out_of_the_state_root_only_after_its_copy_was_read_back() {
    let (home, _provider, _) = recorded("ledger-relocate");
    let root = home.root();
    let path = root.to_str().expect("UTF-8").to_string();
    let key_file = root.join("audit-signing.key");
    let id = SigningKey::read(&key_file).expect("a key").key_id();
    let relocate = |to: &Path| {
        home.command(&["audit", "relocate-key", "--state-root", &path, "--to", to.to_str().expect("UTF-8")])
    };
    let (code, report) = relocate(&root.join("elsewhere.key"));
    assert!(code == 1 && report.contains("lies in the state root; next: "), "{report}");
    let taken = home.join("taken.key");
    SigningKey::create(&taken, &ring::rand::SystemRandom::new()).expect("created");
    let (code, report) = relocate(&taken);
    assert!(code == 1 && report.contains("holds another key; next: "), "{report}");
    assert!(key_file.exists(), "nothing was removed");

    let target = home.join("moved.key");
    let (code, report) = relocate(&target);
    assert_eq!(code, 0, "{report}");
    assert!(!key_file.exists());
    assert_eq!(SigningKey::read(&target).expect("a key").key_id(), id);
    let (_, log) = home.serve().refused();
    assert!(log.contains("is missing and this state root holds signed records; next: "), "{log}");
    home.serve().options(&["--audit-signing-key-file", target.to_str().expect("UTF-8")]).start().stop();
    let (code, report) = audit(&home, &root, &[]);
    assert_eq!(code, 0, "{report}");
}

fn last_segment(root: &Path) -> PathBuf {
    let names = fs::read_dir(root.join("journal")).expect("a folder").map(|entry| entry.expect("an entry").path());
    names.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).max().expect("a segment")
}

fn seq_of(line: &str) -> u64 {
    serde_json::from_str::<Value>(line).expect("a line")["seq"].as_u64().expect("a position")
}

/// Lines of a journal under attack. The attacker knows everything but the private key.
#[derive(Clone)]
struct Lines(Vec<String>);

impl Lines {
    /// Recomputes every chain value, and the heads that seals name, as an attacker would.
    fn rechained(&self) -> Self {
        let (mut chain, mut lines) = (Chain::START, Vec::new());
        for line in &self.0 {
            let mut covered = line[..line.rfind(",\"chain\":\"").expect("a chain")].to_string();
            if covered.contains("\"kind\":\"journal.seal\"") {
                let at = covered.find("\"chain\":\"").expect("a seal names a chain") + 9;
                covered.replace_range(at..at + 64, &chain.to_string());
            }
            chain = chain.next(covered.as_bytes());
            lines.push(format!("{covered},\"chain\":\"{chain}\"}}"));
        }
        Self(lines)
    }

    fn write(&self, segment: &Path) {
        let mut file = fs::File::create(segment).expect("created");
        for line in &self.0 {
            writeln!(file, "{line}").expect("written");
        }
    }

    /// Where the records of a kind stand.
    fn places(&self, kind: &str) -> Vec<usize> {
        let kind = format!("\"kind\":\"{kind}\"");
        (0..self.0.len()).filter(|place| self.0[*place].contains(&kind)).collect()
    }
}

/// Where a tampering must be found: at its place, or at the latest at the next seal.
enum Found {
    Here,
    BySeal,
}

#[test]
fn every_kind_of_tampering_at_every_position_is_located() {
    let (home, _provider, kept) = recorded("ledger-tamper");
    let root = home.root();
    fs::remove_dir_all(root.join("snapshots")).expect("removed");
    let segment = last_segment(&root);
    let text = fs::read_to_string(&segment).expect("text");
    let good = Lines(text.lines().map(str::to_string).collect());
    let keys = PublicKey::parse_pem(&fs::read_to_string(&kept).expect("a key")).expect("a key");
    // The last batch alone could also have been torn by a crash; a checkpoint kept elsewhere tells the two apart.
    let path = root.to_str().expect("UTF-8");
    let (_, checkpoint) = home.command(&["audit", "checkpoint", "--offline", "--state-root", path, "--output", "json"]);
    let checkpoint = Checkpoint::parse(checkpoint.trim().as_bytes()).expect("a checkpoint");
    assert!(verify(&root, &keys, Some(&checkpoint)).ok);
    assert_eq!(good.rechained().0, good.0, "the attacker's arithmetic is the journal's");
    let (requests, responses) = (good.places("external_action.request"), good.places("external_action.response"));
    let actions: Vec<usize> = (0..good.0.len()).filter(|at| requests.contains(at) || responses.contains(at)).collect();
    let seals = good.places("journal.seal");
    let any: Vec<usize> = (0..good.0.len()).collect();
    // A repeated last line is bytes behind the end, which a start cuts: nothing was taken from the trail.
    let last = |places: &[usize]| places[..places.len() - 1].to_vec();
    let forged_key = SigningKey::from_seed(&[1; 32]);

    type Attack<'a> = Box<dyn Fn(&mut Vec<String>, usize) + 'a>;
    let flip = |line: &mut String, what: &str, with: &str| {
        assert!(line.contains(what), "{what} in {line}");
        *line = line.replacen(what, with, 1);
    };
    let resign = |line: &mut String, key: &SigningKey| {
        let at = line.find("\"body\":").expect("a body") + 7;
        let end = line.rfind(",\"chain\":\"").expect("a chain");
        let signed = SignedRecord::split(&line[at..end]).expect("signed").signed.to_string();
        let (hash, signature) = (record_hash(signed.as_bytes()), to_hex(&key.sign(signed.as_bytes())));
        line.replace_range(at..end, &format!("{signed},\"record_hash\":\"{hash}\",\"signature\":\"{signature}\"}}"));
    };
    let attacks: Vec<(&str, bool, Vec<usize>, Found, Attack<'_>)> = vec![
        (
            "1 a byte of a line flipped",
            false,
            any.clone(),
            Found::Here,
            Box::new(|lines, at| {
                flip(&mut lines[at], "\"at_ms\":1", "\"at_ms\":2");
            }),
        ),
        ("2 a line removed", false, any.clone(), Found::Here, Box::new(|lines, at| drop(lines.remove(at)))),
        (
            "3 a line repeated",
            false,
            last(&any),
            Found::Here,
            Box::new(|lines, at| lines.insert(at, lines[at].clone())),
        ),
        ("4 two lines swapped", false, last(&any), Found::Here, Box::new(|lines, at| lines.swap(at, at + 1))),
        (
            "5 a chain value replaced",
            false,
            any.clone(),
            Found::Here,
            Box::new(|lines, at| {
                let from = lines[at].len() - 66;
                lines[at].replace_range(from..from + 64, &"0".repeat(64));
            }),
        ),
        (
            "6 an action's content altered, chain recomputed",
            true,
            actions.clone(),
            Found::Here,
            Box::new(|lines, at| {
                flip(&mut lines[at], "\"session_id\":\"ops\"", "\"session_id\":\"oqs\"");
            }),
        ),
        (
            "7 an action's hash recomputed too",
            true,
            actions.clone(),
            Found::Here,
            Box::new(|lines, at| {
                flip(&mut lines[at], "\"phase\":\"re", "\"tampered\":true,\"phase\":\"re");
                let body = lines[at].find("\"body\":").expect("a body") + 7;
                let signed_end = lines[at].find(",\"record_hash\":\"").expect("a hash");
                let hash = record_hash(&lines[at].as_bytes()[body..signed_end]);
                lines[at].replace_range(signed_end + 16..signed_end + 80, &hash);
            }),
        ),
        (
            "8 a signature taken from another record",
            true,
            actions.clone(),
            Found::Here,
            Box::new(|lines, at| {
                let other = if at == actions[0] { actions[1] } else { actions[0] };
                let of = |line: &str| line.find("\"signature\":\"").expect("a signature") + 13;
                let (to, from) = (of(&lines[at]), of(&lines[other]));
                let signature = lines[other][from..from + 128].to_string();
                lines[at].replace_range(to..to + 128, &signature);
            }),
        ),
        (
            "9 an action signed anew with a key of the attacker's",
            true,
            actions.clone(),
            Found::Here,
            Box::new(|lines, at| {
                resign(&mut lines[at], &forged_key);
            }),
        ),
        (
            "10 a signature taken away",
            true,
            actions.clone(),
            Found::Here,
            Box::new(|lines, at| {
                let from = lines[at].find(",\"record_hash\":\"").expect("a hash");
                let to = lines[at].rfind("},\"chain\":\"").expect("a chain");
                lines[at].replace_range(from..to, "");
            }),
        ),
        (
            "11 an action turned into its opposite phase",
            true,
            requests.clone(),
            Found::Here,
            Box::new(|lines, at| {
                flip(&mut lines[at], "external_action.request", "external_action.response");
            }),
        ),
        (
            "12 an action moved to another run's line",
            true,
            requests.clone(),
            Found::Here,
            Box::new(|lines, at| {
                let run = lines[at]
                    .split("\"run\":\"")
                    .nth(1)
                    .and_then(|rest| rest.split('"').next())
                    .expect("a run")
                    .to_string();
                flip(&mut lines[at], &format!("\"run\":\"{run}\""), "\"run\":\"run-77\"");
            }),
        ),
        (
            "13 another record altered, chain recomputed",
            true,
            good.places("run.accepted"),
            Found::BySeal,
            Box::new(|lines, at| {
                flip(&mut lines[at], "\"model\":\"scripted\"", "\"model\":\"scripteD\"");
            }),
        ),
        (
            "14 a caller replaced, chain recomputed",
            true,
            good.places("run.accepted"),
            Found::BySeal,
            Box::new(|lines, at| {
                flip(&mut lines[at], "\"role\":\"admin\"", "\"role\":\"read_only\"");
            }),
        ),
        (
            "15 a seal signed with a key of the attacker's",
            true,
            seals.clone(),
            Found::Here,
            Box::new(|lines, at| {
                let key_id = lines[at].find("\"key_id\":\"").expect("a key id") + 10;
                lines[at].replace_range(key_id..key_id + 16, &forged_key.key_id());
            }),
        ),
    ];
    let mut tried = 0;
    for (name, rechain, places, found, attack) in &attacks {
        assert!(!places.is_empty(), "{name}: nowhere to try");
        for at in places {
            let mut lines = good.clone();
            attack(&mut lines.0, *at);
            let lines = if *rechain { lines.rechained() } else { lines };
            lines.write(&segment);
            let report = verify(&root, &keys, Some(&checkpoint));
            let problem = report.problem.unwrap_or_else(|| panic!("{name} at line {at}: not found"));
            let seq = problem.seq.unwrap_or_else(|| panic!("{name} at line {at}: not located: {problem:?}"));
            let latest = match found {
                Found::Here => seq_of(&good.0[(*at + 1).min(good.0.len() - 1)]),
                Found::BySeal => seq_of(&good.0[*seals.iter().find(|seal| *seal > at).expect("a later seal")]),
            };
            let place = seq_of(&good.0[*at]);
            assert!(
                (place..=latest).contains(&seq),
                "{name} at line {at}: found at {seq}, not in {place}..={latest}: {problem:?}"
            );
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried} cases");
    good.write(&segment);
    assert!(verify(&root, &keys, None).ok);
}
