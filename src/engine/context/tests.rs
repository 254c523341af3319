//! What a model is shown of a session, over logs written record by record.
//! Owns: a small writer of logs with the links that the core gives its records.
//! Never: goes through the core; the log alone decides.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Context, Files, assemble};
use crate::audit::key::SigningKey;
use crate::ids::{RunId, Seq, SessionId};
use crate::journal::fake_disk::FakeDisk;
use crate::journal::{Draft, Journal, Options, Reader, RecordRef, Restore};
use crate::limits::{CONTEXT_BYTES_MAX, CONTEXT_RUNS_MAX, CONTEXT_WALK_RECORDS_MAX};
use crate::providers::InputPart;
use crate::providers::{Message, Origin};

struct Nothing;

impl Restore for Nothing {
    fn reset(&mut self) {}
    fn snapshot_line(&mut self, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
    fn record(&mut self, _: &RecordRef<'_>) -> Result<(), String> {
        Ok(())
    }
}

struct Log {
    journal: Journal,
    reader: Reader,
    session_prev: Seq,
    /// First and last record of each run.
    runs: HashMap<u32, (Seq, Seq)>,
    drafts: Vec<Draft>,
}

impl Log {
    fn new() -> Self {
        let disk = FakeDisk::new(1);
        let signer = Arc::new(SigningKey::from_seed(&[7; 32]));
        let (journal, _) =
            Journal::open(disk.handle(), disk.snapshots(), Options::default(), signer, 1_000, &mut Nothing).unwrap();
        let reader = journal.reader();
        let mut log = Self { journal, reader, session_prev: 0, runs: HashMap::new(), drafts: Vec::new() };
        log.add("session.created", 0, &json!({"agent": "agent-1"}));
        log
    }

    /// Adds one record to the batch in hand; run 0 is none.
    fn add(&mut self, kind: &'static str, run: u32, body: &Value) -> Seq {
        let seq = self.journal.next_seq() + self.drafts.len() as Seq;
        let (run_first, run_prev) = self.runs.get(&run).copied().unwrap_or((0, 0));
        if run != 0 {
            self.runs.insert(run, (if run_first == 0 { seq } else { run_first }, seq));
        }
        self.drafts.push(Draft {
            seq,
            at_ms: 1_000,
            kind,
            session: Some(SessionId::parse("s").unwrap()),
            run: (run != 0).then_some(RunId { number: run, epoch: 0 }),
            session_prev: std::mem::replace(&mut self.session_prev, seq),
            run_prev,
            run_first,
            by: None,
            body: serde_json::to_vec(body).unwrap(),
        });
        seq
    }

    fn commit(&mut self) {
        self.journal.append(&std::mem::take(&mut self.drafts)).unwrap();
    }

    fn accept(&mut self, run: u32, content: &str) {
        let request = json!({"content": content, "source_plugin": "daemon"});
        self.add("run.accepted", run, &json!({"agent": "agent-1", "route": "main", "model": "m", "request": request}));
    }

    fn start(&mut self, run: u32) {
        self.add("run.started", run, &json!({"submitted_at_ms": 1}));
    }

    fn answer(&mut self, run: u32, text: &str) {
        let body = json!({"role": "assistant", "text": text, "items": [{"type": "message", "of": run}],
            "route": "main", "model": "m"});
        self.add("message.appended", run, &body);
    }

    fn end(&mut self, kind: &'static str, run: u32) {
        self.add(kind, run, &json!({"submitted_at_ms": 1}));
    }

    /// A run from its acceptance to its completion.
    fn exchange(&mut self, run: u32, content: &str, answer: &str) {
        self.accept(run, content);
        self.start(run);
        self.answer(run, answer);
        self.end("run.completed", run);
    }

    /// What the model is asked for `run`, which is active.
    fn assemble(&mut self, run: u32) -> Context {
        if !self.drafts.is_empty() {
            self.commit();
        }
        let (first, last) = self.runs[&run];
        assemble(&self.reader, &Files::new(None, true), &self.reader.read(first).unwrap(), last).unwrap()
    }
}

/// Users as `> text`, answers as `< text items`.
fn lines(transcript: &Context) -> Vec<String> {
    let main = Origin { route: "main".to_string(), model: "m".to_string() };
    let line = |message: &Message| match message {
        Message::User { parts } => match &parts[..] {
            [InputPart::Text(text)] => format!("> {text}"),
            other => panic!("{other:?}"),
        },
        Message::ToolResults { results } => panic!("{results:?}"),
        Message::Assistant { text, tool_calls, items, origin } => {
            assert_eq!(tool_calls[..], []);
            assert_eq!(*origin, main);
            let items: Vec<&str> = items.iter().map(|item| item.get()).collect();
            format!("< {text} {}", items.concat())
        }
    };
    transcript.messages.iter().map(line).collect()
}

fn item(run: u32) -> String {
    format!(r#"{{"of":{run},"type":"message"}}"#)
}

#[test]
fn runs_queued_while_another_was_active_are_shown_in_the_order_of_their_execution() {
    let mut log = Log::new();
    log.accept(1, "first");
    log.start(1);
    log.accept(2, "second");
    log.accept(3, "third");
    log.answer(1, "one");
    log.end("run.completed", 1);
    log.start(2);
    log.accept(4, "fourth");
    log.answer(2, "two");
    log.end("run.completed", 2);
    log.start(3);
    let transcript = log.assemble(3);
    let expected = [
        "> first".to_string(),
        format!("< one {}", item(1)),
        "> second".into(),
        format!("< two {}", item(2)),
        "> third".into(),
    ];
    assert_eq!(lines(&transcript), expected);
    assert_eq!((transcript.truncated, transcript.own_actions), (false, 0));
}

/// A session was broken for good once a model had asked for a tool: its call was replayed with every later input, and
/// providers refuse a call without its result. A run that did not complete has no answer.
#[test]
fn only_completed_runs_have_an_answer_and_every_started_one_its_input() {
    let mut log = Log::new();
    log.accept(1, "wants a tool");
    log.start(1);
    log.answer(1, "half");
    log.end("run.failed", 1);
    log.accept(2, "interrupted");
    log.start(2);
    log.accept(3, "cancelled in the queue");
    log.end("run.cancelled", 3);
    log.end("run.interrupted", 2);
    log.exchange(4, "good", "answer");
    log.accept(5, "now");
    log.start(5);
    let expected = ["> wants a tool", "> interrupted", "> good", &format!("< answer {}", item(4)), "> now"];
    assert_eq!(lines(&log.assemble(5)), expected);
}

/// After a restart the calls of a run were numbered from 1 again, so that two of them had one name.
#[test]
fn a_resumed_run_counts_the_calls_that_it_had_requested_before() {
    let mut log = Log::new();
    log.exchange(1, "earlier", "answer");
    log.accept(2, "resumed");
    log.start(2);
    log.add("external_action.request", 2, &json!({"action": 1}));
    log.add("external_action.response", 2, &json!({"action": 1}));
    log.add("external_action.request", 2, &json!({"action": 2, "kind": "model_provider"}));
    // What the run asked of others is no turn of the model: live, it is not counted either.
    log.add("external_action.request", 2, &json!({"action": 3, "kind": "mcp"}));
    log.add("external_action.request", 2, &json!({"action": 4, "kind": "web_fetch"}));
    log.add("run.resumed", 2, &json!({"submitted_at_ms": 1, "found": "model_call_in_flight"}));
    let transcript = log.assemble(2);
    assert_eq!(transcript.own_actions, 2);
    assert_eq!(lines(&transcript), ["> earlier", &format!("< answer {}", item(1)), "> resumed"]);
}

/// One long answer made every later run of its session fail as too long: it was taken in whole, past the bound.
#[test]
fn an_exchange_that_passes_the_bound_of_bytes_is_left_out_whole_with_all_before_it() {
    let mut log = Log::new();
    log.exchange(1, "small and old", "answer");
    log.exchange(2, "huge", &"x".repeat(CONTEXT_BYTES_MAX));
    log.exchange(3, "recent", "answer");
    // The own input does not count: without it there is no question.
    let own = "y".repeat(CONTEXT_BYTES_MAX + 1);
    log.accept(4, &own);
    log.start(4);
    let transcript = log.assemble(4);
    assert_eq!(lines(&transcript), ["> recent", &format!("< answer {}", item(3)), &format!("> {own}")]);
    assert!(transcript.truncated);
}

#[test]
fn exactly_the_bound_of_runs_is_shown_and_one_more_is_told() {
    for (runs, truncated) in [(CONTEXT_RUNS_MAX, false), (CONTEXT_RUNS_MAX + 1, true)] {
        let mut log = Log::new();
        let last = runs as u32 + 1;
        (1..last).for_each(|run| log.exchange(run, &format!("input {run}"), "answer"));
        log.accept(last, "now");
        log.start(last);
        let transcript = log.assemble(last);
        assert_eq!((transcript.messages.len(), transcript.truncated), (2 * CONTEXT_RUNS_MAX + 1, truncated));
        assert_eq!(lines(&transcript)[0], format!("> input {}", 1 + runs - CONTEXT_RUNS_MAX));
    }
}

#[test]
fn the_walk_ends_at_its_bound_of_records() {
    let mut log = Log::new();
    log.exchange(1, "far away", "answer");
    log.commit();
    for _ in 0..CONTEXT_WALK_RECORDS_MAX {
        log.add("session.interrupted", 0, &json!({}));
    }
    log.commit();
    log.accept(2, "now");
    log.start(2);
    let transcript = log.assemble(2);
    assert_eq!((lines(&transcript), transcript.truncated), (vec!["> now".to_string()], true));
}

/// A session whose older half was beyond retention could not run any more: an input that was no longer there ended the
/// run instead of the walk.
#[test]
fn what_retention_has_taken_is_left_out_also_when_it_cuts_an_exchange() {
    let mut log = Log::new();
    // Links to positions before the first one that is kept, as after a retirement.
    log.session_prev = 1;
    log.runs.insert(1, (2, 3));
    log.start(1);
    log.answer(1, "answer to what is gone");
    log.end("run.completed", 1);
    log.exchange(2, "kept", "answer");
    log.accept(3, "now");
    log.start(3);
    let expected = ["> kept", &format!("< answer {}", item(2)), "> now"];
    let transcript = log.assemble(3);
    assert_eq!((lines(&transcript), transcript.truncated), (expected.map(String::from).to_vec(), true));

    let mut log = Log::new();
    log.session_prev = 1;
    log.accept(1, "now");
    log.start(1);
    let transcript = log.assemble(1);
    assert_eq!((lines(&transcript), transcript.truncated), (vec!["> now".to_string()], true));
}
