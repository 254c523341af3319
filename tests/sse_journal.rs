//! Event streams over the real journal: restarts, rotation, and copies of a state root.

mod sse_support;

use std::sync::Arc;

use kheish_daemon::api::events::Events;
use kheish_daemon::audit::key::SigningKey;
use kheish_daemon::ids::Seq;
use kheish_daemon::journal::fake_disk::FakeDisk;
use kheish_daemon::journal::{Draft, Journal, Options, RecordRef, Restore};
use kheish_daemon::sse::{Hub, Log, Render, Scope, StreamSpec, encode};
use sse_support::{HEARTBEAT, Random, calm, everything, id_of, open_watched, run, session};

struct Forget;

impl Restore for Forget {
    fn reset(&mut self) {}
    fn snapshot_line(&mut self, _line: &[u8]) -> Result<(), String> {
        Ok(())
    }
    fn record(&mut self, _record: &RecordRef<'_>) -> Result<(), String> {
        Ok(())
    }
}

/// A daemon's journal and its streams, and where the one run in it stands.
struct Daemon {
    journal: Journal,
    hub: Hub,
    log: Arc<dyn Log>,
    first: Seq,
    last: Seq,
}

impl Daemon {
    fn start(disk: &FakeDisk, now_ms: u64, (first, last): (Seq, Seq)) -> Self {
        // Small segments, so that streams cross their borders.
        let options = Options { segment_bytes: 64 * 1024, ..Options::default() };
        let signer = Arc::new(SigningKey::from_seed(&[7; 32]));
        let (journal, _) =
            Journal::open(disk.handle(), disk.snapshots(), options, signer, now_ms, &mut Forget).expect("it opens");
        let log: Arc<dyn Log> = Arc::new(journal.reader());
        let events = Arc::new(Events::new(Arc::clone(&log)));
        let hub = Hub::start(Arc::clone(&log), events, &calm()).expect("the hub starts");
        Self { journal, hub, log, first, last }
    }

    fn write(&mut self, outputs: usize, content: &str) {
        for _ in 0..outputs {
            let (kind, body) = match self.first {
                0 => (
                    "run.accepted",
                    r#"{"agent":"agent-1","kind":"input","position":0,"route":"r","model":"m","request":{"content":"hi"}}"#
                        .to_string(),
                ),
                _ => ("run.output", format!(r#"{{"output":{{"content":"{content}"}}}}"#)),
            };
            let seq = self.journal.next_seq();
            let draft = Draft {
                seq,
                at_ms: 1_000,
                kind,
                session: Some(session("s")),
                run: Some(run(1)),
                session_prev: self.last,
                run_prev: self.last,
                run_first: self.first,
                by: None,
                body: body.into_bytes(),
            };
            self.journal.append(&[draft]).expect("the disk works");
            self.hub.committed();
            self.first = if self.first == 0 { seq } else { self.first };
            self.last = seq;
        }
    }

    fn stop(self) -> (Seq, Seq) {
        self.hub.stop().expect("no writer panicked");
        self.journal.close(5_000).expect("the disk works");
        (self.first, self.last)
    }

    /// Every frame behind `cursor`, as made from the log.
    fn frames(&self, cursor: Seq) -> Vec<String> {
        let events = Events::new(Arc::clone(&self.log));
        let mut frames = Vec::new();
        let mut next = (cursor + 1).max(self.log.floor());
        while next <= self.log.committed() {
            for record in self.log.scan(next, 64 * 1024).expect("readable") {
                next = record.seq + 1;
                if let Some(frame) = events.frame(&record) {
                    frames.push(String::from_utf8(encode(record.seq, &frame).to_vec()).expect("frames are text"));
                }
            }
        }
        frames
    }

    fn open(&self, scope: Scope, cursor: Option<Seq>) -> sse_support::Client {
        open_watched(&self.hub, StreamSpec { last: Some(self.last), ..StreamSpec::new(scope, cursor) }).0
    }
}

#[test]
fn a_cursor_holds_across_restarts_and_segments() {
    for scope in [everything(), Scope::Session(session("s")), Scope::Run(run(1))] {
        let disk = FakeDisk::new(1);
        let mut random = Random::new(3);
        let mut place = (0, 0);
        let mut cursor = 0;
        let mut seen = Vec::new();
        for round in 0..6 {
            let mut daemon = Daemon::start(&disk, 1_700_000_000_000, place);
            let mut client = daemon.open(scope.clone(), Some(cursor));
            daemon.write(150, &format!("round {round} {}", "x".repeat(200)));
            // Each visit takes a part; the next one, after a restart, begins where it ended.
            for _ in 0..random.below(140) {
                let frame = client.event();
                cursor = id_of(&frame).expect("events have ids");
                seen.push(frame);
            }
            place = daemon.stop();
            disk.restart();
        }
        let daemon = Daemon::start(&disk, 1_700_000_000_000, place);
        let all = daemon.frames(0);
        assert_eq!(all.len(), 6 * 150);
        let left = all.len() - seen.len();
        seen.extend(daemon.open(scope, Some(cursor)).events(left));
        assert_eq!(seen, all);
        assert!(daemon.journal.reader().segments().len() > 3, "the log was meant to span segments");
    }
}

#[test]
fn a_copy_knows_the_cursors_that_it_cannot_continue() {
    let disk = FakeDisk::new(2);
    let mut original = Daemon::start(&disk, 1_700_000_000_000, (0, 0));
    original.write(10, "shared");
    let (shared, place) = (original.last, (original.first, original.last));
    let copied = disk.copied(3);
    original.write(5, "original only");
    let diverged = original.last;
    original.stop();

    let mut copy = Daemon::start(&copied, 1_700_000_500_000, place);
    let epoch = u64::from(copy.journal.epoch());
    assert_eq!(epoch, 1_700_000_500);
    copy.write(4, "copy only");
    let of_the_copy = copy.frames(shared);
    assert_eq!(of_the_copy.len(), 4);
    assert!(of_the_copy.iter().all(|frame| id_of(frame).is_some_and(|id| id > diverged)), "no id is used twice");

    // What both have continues exactly; what only the original had is told as a gap, and then continues too.
    for scope in [everything(), Scope::Run(run(1))] {
        assert_eq!(copy.open(scope.clone(), Some(shared)).events(4), of_the_copy);
        let mut client = copy.open(scope, Some(diverged));
        let gap = client.frame();
        assert!(gap.contains("event: stream_gap\n") && gap.contains("\"reason\":\"restart_epoch\""), "{gap}");
        assert_eq!(id_of(&gap), Some(epoch << 32));
        assert_eq!(client.events(4), of_the_copy);
    }
    // The copy's own cursors mean nothing to the original.
    let original = Daemon::start(&disk, 1_700_000_900_000, (place.0, diverged));
    let mut client = original.open(everything(), Some(copy.last));
    let gap = client.frame();
    assert!(gap.contains("\"reason\":\"restart_epoch\""), "{gap}");
    assert_eq!(id_of(&gap), Some(original.log.committed()));
    assert_eq!(original.open(everything(), Some(diverged)).frame(), HEARTBEAT);
}
