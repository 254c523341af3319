//! Token files rotated under load, with the real binary and over HTTP: a valid token is never refused, an old one is
//! accepted for at most a second, and one role's mistake does not touch the other.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use daemon::{Daemon, Home, TOKEN, eventually, pause};
use http::Client;

const READ: &str = "read-only-token-of-a-test-0123456789";
/// Time after the rename from which the old token must not be accepted.
const OLD_TOKEN_MAX: Duration = Duration::from_secs(1);
/// 100 requests a second of each kind.
const REQUEST_INTERVAL: Duration = Duration::from_millis(10);
const ROTATIONS: usize = 12;

/// As the runbook does it: a new file with mode 600, renamed over the old one.
fn rotate(home: &Home, name: &str, token: &str) {
    let fresh = home.join(&format!("{name}.new"));
    let _absent = fs::remove_file(&fresh);
    let mut options = fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600);
    std::io::Write::write_all(&mut options.open(&fresh).expect("created"), token.as_bytes()).expect("written");
    fs::rename(&fresh, home.join(name)).expect("renamed");
}

fn start(home: &Home) -> Daemon {
    rotate(home, "read.token", READ);
    let read: &Path = &home.join("read.token");
    home.serve().options(&["--http-readonly-token-file", read.to_str().expect("UTF-8")]).start()
}

fn status(client: &mut Client, target: &str) -> u16 {
    client.request("GET", target, &[], "").expect("an answer").status
}

fn client(daemon: &Daemon, token: &str) -> Client {
    Client::connect(daemon.address, Box::leak(token.to_string().into_boxed_str())).expect("the daemon accepts")
}

#[test]
fn under_a_hundred_requests_a_second_no_valid_token_is_refused_and_no_old_one_outlives_a_second() {
    let home = Home::new("auth-load", None);
    let daemon = start(&home);
    let (done, requests, old_accepted) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    // The token that is valid now, and old ones with the time of the rename that replaced them.
    let valid = Mutex::new(TOKEN.to_string());
    let old: Mutex<Vec<(String, Instant)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        // The role that is not touched.
        scope.spawn(|| {
            let mut reader = client(&daemon, READ);
            while !done.load(Ordering::SeqCst) {
                assert_eq!(status(&mut reader, "/v1/status"), 200, "the read-only token was refused");
                requests.fetch_add(1, Ordering::SeqCst);
                pause(REQUEST_INTERVAL);
            }
        });
        // Whoever has the newest token, from the moment of its rename on.
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                // Held over the request, so that no rename happens between the choice and the answer.
                let token = valid.lock().expect("the lock");
                assert_eq!(
                    status(&mut client(&daemon, &token), "/v1/runtime/secrets"),
                    200,
                    "the new token was refused"
                );
                requests.fetch_add(1, Ordering::SeqCst);
                drop(token);
                pause(REQUEST_INTERVAL);
            }
        });
        // Whoever still has an old one.
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let tried = old.lock().expect("the lock").clone();
                for (token, since) in tried.iter().rev().take(3) {
                    let age = since.elapsed();
                    // So many failures of one address are limited; either answer is a refusal.
                    let accepted = !matches!(status(&mut client(&daemon, token), "/v1/status"), 401 | 429);
                    assert!(!accepted || age < OLD_TOKEN_MAX, "an old token was accepted after {age:?}");
                    old_accepted.fetch_add(u64::from(accepted), Ordering::SeqCst);
                    requests.fetch_add(1, Ordering::SeqCst);
                }
                pause(REQUEST_INTERVAL);
            }
        });
        for round in 0..ROTATIONS {
            pause(Duration::from_millis(150));
            let new = format!("admin-token-of-round-{round:04}-0123456789");
            let mut valid = valid.lock().expect("the lock");
            rotate(&home, "admin.token", &new);
            old.lock().expect("the lock").push((std::mem::replace(&mut *valid, new), Instant::now()));
        }
        pause(OLD_TOKEN_MAX);
        // Fewer requests are no load; a busy machine takes longer for them.
        eventually("300 requests", || (requests.load(Ordering::SeqCst) > 300).then_some(()));
        done.store(true, Ordering::SeqCst);
    });
    println!("{old_accepted:?} times an old token was accepted within a second of its end");
}

#[test]
fn a_read_only_file_that_is_given_the_admin_token_loses_its_role_and_the_admin_keeps_working() {
    let home = Home::new("auth-equal", None);
    let daemon = start(&home);
    rotate(&home, "read.token", TOKEN);
    // Requests that follow each other closely share one look at the files.
    eventually("equal tokens are seen", || {
        (daemon.get("/v1/status").json()["control_plane"]["auth_duplicate_token"] == true).then_some(())
    });
    assert_eq!(status(&mut client(&daemon, READ), "/v1/status"), 401);
    assert_eq!(daemon.get("/v1/runtime/secrets").status, 200, "still admin");
    rotate(&home, "read.token", READ);
    assert_eq!(status(&mut client(&daemon, READ), "/v1/status"), 200);
    let read: &Path = &home.join("read.token");
    daemon.stop();
    rotate(&home, "read.token", TOKEN);
    let options = ["--http-readonly-token-file", read.to_str().expect("UTF-8")];
    let (code, log) = home.serve().options(&options).refused();
    assert_ne!(code, Some(0));
    assert!(log.contains("the admin and the read-only token are equal; next: "), "{log}");
}

#[test]
fn a_stream_ends_when_its_token_is_rotated_away() {
    let home = Home::new("auth-stream", None);
    let daemon = start(&home);
    let mut stream = daemon.stream("/v1/events/stream");
    let ended = std::thread::scope(|scope| {
        let watcher = scope.spawn(move || {
            let began = Instant::now();
            while stream.next().is_ok() {}
            began.elapsed()
        });
        rotate(&home, "admin.token", "admin-token-of-somebody-else-0123456789");
        eventually("the stream ends", || watcher.is_finished().then_some(()));
        watcher.join().expect("no panic")
    });
    assert!(ended < 5 * OLD_TOKEN_MAX, "it took {ended:?}");
}

#[test]
fn a_flood_of_wrong_tokens_from_one_address_locks_no_valid_token_out() {
    let home = Home::new("auth-flood", None);
    let daemon = start(&home);
    let mut wrong = client(&daemon, "wrong-token-of-a-test-0123456789");
    let mut limited = 0;
    for _ in 0..200 {
        limited += u32::from(status(&mut wrong, "/v1/status") == 429);
    }
    assert!(limited > 100, "{limited} of 200 were limited");
    assert_eq!(daemon.get("/v1/status").status, 200, "from the same address");
    let lines = fs::read_to_string(home.root().join("control-plane-auth/audit.jsonl")).unwrap_or_default();
    let lines = eventually("the flood's one line", || {
        let text = fs::read_to_string(home.root().join("control-plane-auth/audit.jsonl")).unwrap_or(lines.clone());
        text.contains("\"event\":\"auth_rate_limited\",\"code\":\"auth_rate_limited\"").then_some(text)
    });
    assert_eq!(lines.matches("\"event\":\"auth_rate_limited\"").count(), 1, "{lines}");
    daemon.stop();
}
