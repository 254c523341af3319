//! What an operator can do about redaction and keys from outside the store, with the real binary, and what a panic may say.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use std::fs;
use std::process::Command;

use daemon::{Home, Provider};
use kheish_daemon::audit::key::SigningKey;
use kheish_daemon::logging::{self, Format};
use kheish_daemon::redaction;
use serde_json::json;

/// Runs the daemon with these variables.
fn with(variables: &[String]) -> Vec<String> {
    std::iter::once("env".to_string()).chain(variables.iter().cloned()).collect()
}

#[test]
fn texts_that_the_environment_names_are_masked_everywhere_and_one_that_would_not_be_refuses_the_start() {
    const ONE: &str = "canary one of the environment";
    const TWO: &str = "canary-two-of-the-file";
    let provider = Provider::start(&format!("[[turn]]\ntext = \"you said {ONE} and {TWO}\"\n"));
    let home = Home::new("redact-tokens", Some(&provider));
    let file = home.join("tokens");
    fs::write(&file, format!("{TWO}\n")).unwrap();
    let variables = [
        format!("KHEISH_DEBUG_REDACT_TOKENS={ONE},other-text"),
        format!("KHEISH_DEBUG_REDACT_TOKENS_FILE={}", file.display()),
    ];
    let daemon = home.serve().under(&with(&variables)).start();
    daemon.create_session("s");
    let run = daemon.submit("s", &format!("note {ONE}, {TWO}"));
    assert_eq!(daemon.wait_end(&run), "completed");
    let shown = String::from_utf8(daemon.get(&format!("/v1/runs/{run}/events")).body).unwrap();
    assert!(!shown.contains("canary"), "{shown}");
    let asked = provider.requests();
    assert!(asked.iter().all(|(_, body)| !body.contains("canary")), "{asked:?}");
    assert!(!daemon.stop().contains("canary"));
    let kept = home.records(&home.root(), &[]);
    let kept = kept.iter().map(ToString::to_string).collect::<String>();
    assert!(!kept.contains("canary") && kept.contains("you said <redacted> and <redacted>"), "{kept}");
    let daemon = home.serve().under(&with(&["KHEISH_DEBUG_REDACT_TOKENS=short,canary".to_string()])).refused();
    assert!(daemon.1.contains("text 1 of KHEISH_DEBUG_REDACT_TOKENS has not 8 to 4096 bytes"), "{}", daemon.1);
    assert!(!daemon.1.contains("canary"));
}

#[test]
fn a_signing_key_file_named_by_a_flag_silences_the_key_in_the_environment_and_two_variables_contradict_each_other() {
    let home = Home::new("flag-over-inline", None);
    let path = home.join("flag.key");
    let key = SigningKey::create(&path, &ring::rand::SystemRandom::new()).unwrap();
    let inline = SigningKey::from_seed(&[9; 32]);
    let seed: String = [9_u8; 32].iter().map(|byte| format!("{byte:02x}")).collect();
    let variable = format!("KHEISH_EXTERNAL_ACTION_AUDIT_SIGNING_KEY={seed}");
    let options = ["--audit-signing-key-file", path.to_str().unwrap()];
    let key_of = |daemon: &daemon::Daemon| daemon.get("/v1/audit/public-key").json()["key_id"].clone();
    let daemon = home.serve().under(&with(std::slice::from_ref(&variable))).options(&options).start();
    assert_eq!(key_of(&daemon), json!(key.key_id()));
    let log = daemon.stop();
    assert!(log.contains("--audit-signing-key-file is given, so KHEISH_EXTERNAL_ACTION_AUDIT_SIGNING_KEY is not used"));
    assert!(!log.contains(&seed));
    let file = format!("KHEISH_EXTERNAL_ACTION_AUDIT_SIGNING_KEY_FILE={}", path.display());
    let (code, log) = home.serve().under(&with(&[variable.clone(), file])).refused();
    assert_ne!(code, Some(0));
    assert!(log.contains("next: ") && !log.contains(&seed), "{log}");
    // Without the flag the key of the environment counts, on a root of its own.
    let other = Home::new("inline-key", None);
    let daemon = other.serve().under(&with(&[variable])).start();
    assert_eq!(key_of(&daemon), json!(inline.key_id()));
    daemon.stop();
}

/// Told by [`a_panic_says_nothing_that_is_redacted`] to be the process that panics.
const PANICS: &str = "KHEISH_TEST_PANICS";

#[test]
fn a_panic_says_nothing_that_is_redacted() {
    const KNOWN: &str = "canary known to the broker";
    const SHAPED: &str = "sk-canary-0123456789abcdefghij";
    if std::env::var_os(PANICS).is_some() {
        logging::init(Format::Json, log::LevelFilter::Info).unwrap();
        redaction::install(|text| text.replace(KNOWN, redaction::MARK));
        let thread = std::thread::Builder::new().name("careless".to_string());
        let panicked = thread.spawn(|| panic!("cannot use {KNOWN} nor {SHAPED} here")).unwrap().join();
        assert!(panicked.is_err());
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_panic_says_nothing_that_is_redacted", "--nocapture"])
        .env(PANICS, "1")
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(shown.contains("thread careless panicked at"), "{shown}");
    assert!(shown.contains("cannot use <redacted> nor <redacted> here"), "{shown}");
    assert!(!shown.contains("canary known") && !shown.contains("sk-canary"), "{shown}");
}
