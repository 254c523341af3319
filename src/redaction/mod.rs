//! Keeping secrets out of what people and programs read: texts with the shape of a key, and those the broker knows.
//! Owns: the shapes, and the one way by which log lines reach the broker's knowledge.
//! May touch: the text it is given.
//! Never: tells what was found; fails. A text that cannot be judged is shown with its keys masked, never raw.

mod patterns;
pub mod redact_tokens;

use std::sync::OnceLock;

pub use patterns::{mask_keys, mask_line, settled};

/// What stands in place of a secret.
pub const MARK: &str = "<redacted>";

/// Masks what the broker knows.
type Known = Box<dyn Fn(&str) -> String + Send + Sync>;

static KNOWN: OnceLock<Known> = OnceLock::new();

/// What of a text in pieces can be kept, and how many of its bytes that stands for.
type Settled = Box<dyn Fn(&str) -> (String, usize) + Send + Sync>;

static STREAMED: OnceLock<Settled> = OnceLock::new();

/// From now on log lines, panic messages and callers' words are checked against what `known` masks as well. Once for each process; a
/// second call changes nothing.
pub fn install(known: impl Fn(&str) -> String + Send + Sync + 'static) {
    let _only_once = KNOWN.set(Box::new(known));
}

/// As [`install`], for texts that arrive in pieces.
pub fn install_stream(known: impl Fn(&str) -> (String, usize) + Send + Sync + 'static) {
    let _only_once = STREAMED.set(Box::new(known));
}

/// As [`text`], for a text that arrives in pieces: what of it can be kept now, and how many of its bytes that stands for. The
/// others may be the beginning of a secret and wait for the next piece.
pub fn stream(text: &str) -> (String, usize) {
    match STREAMED.get() {
        Some(known) => known(text),
        None => {
            let settled = settled(text);
            (mask_keys(&text[..settled]), settled)
        }
    }
}

/// `text` of a caller without known secrets and keys, for a record.
pub fn text(text: &str) -> String {
    match KNOWN.get() {
        Some(known) => known(text),
        None => mask_keys(text),
    }
}

/// `line` for the log: without known secrets, and without anything that looks like one.
pub fn log_line(line: &str) -> String {
    match KNOWN.get() {
        Some(known) => mask_line(&known(line)),
        None => mask_line(line),
    }
}
