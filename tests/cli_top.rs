//! The live view at a real terminal: it draws, follows the window, quits by key and signal, and leaves the terminal as it was.
//! Owns: both ends of a pseudo-terminal. Never: looks at more than what is written to it.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use daemon::{Daemon, Home, TOKEN, eventually};
use kheish_daemon::sys::terminal::{echoes, pair, set_size};

/// A person's end of a terminal in which `top` runs.
struct Sitting {
    child: Child,
    person: File,
    program: OwnedFd,
    shown: Arc<Mutex<String>>,
}

impl Sitting {
    fn start(url: &str) -> Self {
        let (person, program) = pair().expect("a pseudo-terminal");
        set_size(&program, 100, 40).expect("a terminal");
        let stdio = || Stdio::from(program.try_clone().expect("a descriptor"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_kheish-daemon"));
        command.env_clear().args(["--base-url", url, "--token", TOKEN, "top", "--interval", "200ms"]);
        let child = command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().expect("it runs");
        let person = File::from(person);
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut screen, sink) = (person.try_clone().expect("a descriptor"), shown.clone());
        // Ends when the last descriptor of the other end is closed.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                sink.lock().expect("no panic").push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Self { child, person, program, shown }
    }

    fn shown(&self) -> String {
        self.shown.lock().expect("no panic").clone()
    }

    fn sees(&self, text: &str) {
        eventually(&format!("{text:?} on the screen"), || self.shown().contains(text).then_some(()));
    }

    /// Waits for its end; the terminal must be as it was.
    fn ended(mut self) -> Option<i32> {
        let status = eventually("the end of top", || self.child.try_wait().expect("a child of ours"));
        assert!(echoes(&self.program).expect("a terminal"), "the terminal was left changed");
        self.sees("\u{1b}[?25h\u{1b}[?1049l");
        status.code()
    }
}

fn daemon_with_a_session(test: &str) -> (Home, Daemon) {
    let home = Home::new(test, None);
    let daemon = home.start();
    daemon.create_session("s");
    (home, daemon)
}

#[test]
fn it_draws_follows_the_window_and_quits_by_a_key() {
    let (_home, daemon) = daemon_with_a_session("top-quits");
    for key in [b"q", b"\x03"] {
        let mut top = Sitting::start(&daemon.base_url());
        top.sees("\u{1b}[?1049h");
        for text in ["RUNS", "sessions 1", "WAITING FOR PEOPLE", "SIGNALS", "HEALTH", "q quits"] {
            top.sees(text);
        }
        assert!(!echoes(&top.program).expect("a terminal"));
        set_size(&top.program, 30, 8).expect("a terminal");
        top.sees("lines are below");
        top.person.write_all(b"x").and_then(|()| top.person.write_all(key)).expect("typed");
        assert_eq!(top.ended(), Some(0));
    }
    daemon.stop();
}

#[test]
fn a_signal_ends_it_cleanly_and_a_daemon_that_is_gone_is_shown() {
    let (_home, daemon) = daemon_with_a_session("top-signal");
    let top = Sitting::start(&daemon.base_url());
    top.sees("sessions 1");
    daemon.kill();
    top.sees("cannot reach the daemon");
    kheish_daemon::sys::kill(top.child.id(), 15).expect("a child of ours");
    assert_eq!(top.ended(), Some(0));
}

#[test]
fn without_a_terminal_it_refuses_and_says_what_to_use() {
    let (home, daemon) = daemon_with_a_session("top-refuses");
    let (code, stdout, stderr) = home.cli(&daemon, &["top"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("there is no terminal to draw on; next: run it at a terminal"), "{stderr}");
    daemon.stop();
}
