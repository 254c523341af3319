//! Secret canaries, with the real binary: unique secrets of several classes are put where people and models put them, and
//! then looked for in everything that the daemon leaves behind, in every encoding in which they could stand there.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use daemon::{Home, Provider, TOKEN, pause};
use kheish_daemon::hex::to_hex;
use serde_json::json;

/// Of a routes file: a key that stands inline, which the broker knows.
const INLINE: &str = "inline-route-key-canary-0f3a9";
/// What nobody told the daemon about; its shape alone gives it away.
const SHAPED: [&str; 3] = [
    "sk-proj-canaryABCDEFGHIJKLMNOP0123",
    "ghp_canaryABCDEFGHIJKLMNOPQRSTUVWXYZ01",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.canarySflKxwRJSMeKKF2QT4fwpM",
];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// The byte sequences that give a secret away: raw, hexadecimal, base64, percent-encoded.
fn spellings(secret: &str) -> Vec<String> {
    let percent: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
    vec![
        secret.to_string(),
        to_hex(secret.as_bytes()),
        STANDARD_NO_PAD.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
        percent,
    ]
}

fn assert_clean(what: &str, text: &str, canaries: &[&str]) {
    for canary in canaries {
        for spelling in spellings(canary) {
            assert!(!text.contains(&spelling), "{what} holds {canary} as {spelling}");
        }
    }
}

#[test]
fn no_canary_reaches_the_state_root_the_log_a_stream_a_view_or_a_process_list() {
    // The model repeats what it was told, and says a key of its own.
    let said = format!("you said {INLINE} and {}; base64 {}", SHAPED[0], STANDARD_NO_PAD.encode(INLINE));
    let script = format!(
        "[[turn]]\ntext = \"{said}\"\ntimes = 1\n[[turn]]\nmatch = \"fail\"\nfault = {{ kind = \"failed\" }}\n"
    );
    let provider = Provider::start(&script);
    let home = Home::new("canaries", Some(&provider));
    let routes = fs::read_to_string(home.join("routes.toml")).expect("routes");
    fs::write(home.join("routes.toml"), format!("{routes}api_key = \"{INLINE}\"\n")).expect("routes");
    let daemon = home.start();
    let mut stream = daemon.stream("/v1/events/stream");
    daemon.create_session("ops");
    let prompt = format!(
        "my keys: {} {} {}; route key {INLINE}, also {}",
        SHAPED[0],
        SHAPED[1],
        SHAPED[2],
        to_hex(INLINE.as_bytes())
    );
    let run = daemon.submit("ops", &prompt);
    assert_eq!(daemon.wait_end(&run), "completed");
    let mut seen = String::new();
    stream.until("the end", |frame| {
        seen.push_str(&frame.data);
        frame.run_status().is_some_and(|(_, status)| status == "completed")
    });
    let failing = daemon.submit("ops", &format!("fail {INLINE}"));
    daemon.wait_end(&failing);
    for reason in [INLINE, SHAPED[1]] {
        daemon.post("/v1/runtime/hold", &json!({"held": true, "reason": format!("because {reason}")}));
        daemon.post("/v1/runtime/hold", &json!({"held": false, "reason": format!("because {reason}")}));
    }
    daemon.get(&format!("/v1/runs/{INLINE}"));
    daemon.post("/v1/sessions/ops/runs", &json!({"content": "x", "metadata": {"key": INLINE}, "actor_id": SHAPED[1]}));

    let mut canaries = vec![INLINE];
    canaries.extend(SHAPED);
    assert_clean("the stream", &seen, &canaries);
    for target in [
        format!("/v1/runs/{run}"),
        format!("/v1/runs/{run}/events"),
        format!("/v1/runs/{run}/external-actions"),
        "/v1/sessions/ops/events".to_string(),
        "/v1/runs".to_string(),
        "/v1/status".to_string(),
        "/v1/runtime".to_string(),
    ] {
        assert_clean(&target, &String::from_utf8_lossy(&daemon.get(&target).body), &canaries);
    }
    let process = |file: &str| fs::read(format!("/proc/{}/{file}", daemon.pid())).unwrap_or_default();
    for file in ["cmdline", "environ"] {
        assert_clean(file, &String::from_utf8_lossy(&process(file)), &[INLINE, TOKEN]);
    }
    // What the model was asked the second time holds no more than the journal.
    let asked = provider.requests();
    assert!(asked.len() >= 2, "{asked:?}");
    for (number, body) in &asked {
        assert_clean(&format!("request {number}"), body, &canaries);
    }
    pause(std::time::Duration::from_millis(1));
    let log = daemon.log();
    daemon.stop();
    assert_clean("the log", &log, &canaries);
    canaries.push(TOKEN);
    let mut left = Vec::new();
    files(&home.root(), &mut left);
    assert!(left.len() > 5, "{left:?}");
    for path in left {
        let bytes = fs::read(&path).expect("a file");
        assert_clean(&path.display().to_string(), &String::from_utf8_lossy(&bytes), &canaries);
    }
}

#[test]
fn a_submission_that_holds_a_secret_is_told_apart_by_its_raw_text_and_kept_without_it() {
    let provider = Provider::start("");
    let home = Home::new("canary-repeat", Some(&provider));
    let daemon = home.start();
    daemon.create_session("ops");
    let submit = |text: &str| daemon.post("/v1/sessions/ops/runs", &json!({"content": text, "idempotency_key": "k"}));
    let first = submit(&format!("use {}", SHAPED[0]));
    assert_eq!(first.status, 202);
    let again = submit(&format!("use {}", SHAPED[0]));
    assert_eq!(again.json()["run_id"], first.json()["run_id"], "the same request");
    let other = submit(&format!("use {}", SHAPED[1]));
    assert_eq!(
        (other.status, other.refusal().1.as_str()),
        (409, "idempotency_conflict"),
        "both read the same once redacted"
    );
    let run = first.json()["run_id"].as_str().expect("a run").to_string();
    assert_eq!(daemon.wait_end(&run), "completed");
    daemon.stop();
    let accepted = &home.records(&home.root(), &["--kind", "run.accepted"])[0];
    assert_eq!(accepted["body"]["request"]["content"], "use <redacted>");
}
