//! Event streams against clients that leave, come back, read slowly or not at all.

mod sse_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kheish_daemon::ids::Seq;
use kheish_daemon::limits::{SSE_CHAIN_RECORDS_MAX, SSE_PREVIEW_TEXT_BYTES_MAX};
use kheish_daemon::sse::{Config, Log, Preview, Scope, StreamSpec};
use kheish_daemon::worker::Worker;
use sse_support::{
    HEARTBEAT, MemoryLog, Next, PATIENCE, Random, calm, everything, id_of, open, open_watched, pair, run, session,
    start,
};

/// Some record of some kind, as traffic would make it.
fn append_any(log: &MemoryLog, random: &mut Random, runs: &mut u32) -> Seq {
    let sessions = [session("a"), session("b"), session("c")];
    // A run keeps its session: its number says which.
    let of_run = |number: u32| &sessions[number as usize % sessions.len()];
    match random.below(10) {
        0 => log.hold(random.below(2) == 0),
        1 => log.seal(),
        2 | 3 => {
            *runs += 1;
            log.accept_run(of_run(*runs), run(*runs))
        }
        _ if *runs == 0 => log.seal(),
        4 => {
            let number = 1 + random.below(u64::from(*runs)) as u32;
            let body = r#"{"submitted_at_ms":5,"started_at_ms":6}"#;
            log.append("run.started", Some(of_run(number)), Some(run(number)), body)
        }
        5 => log.append("message.appended", Some(of_run(*runs)), Some(run(*runs)), "{}"),
        6 => log.append("session.interrupted", Some(&sessions[random.below(3) as usize]), None, "{}"),
        _ => {
            let number = 1 + random.below(u64::from(*runs)) as u32;
            log.output(of_run(number), run(number), &"x".repeat(random.below(300) as usize))
        }
    }
}

#[test]
fn two_hundred_disconnects_lose_and_repeat_nothing() {
    let scopes = [everything(), Scope::Session(session("b")), Scope::Global { session: Some(session("a")), run: None }];
    for (seed, scope) in scopes.into_iter().enumerate() {
        let mut random = Random::new(seed as u64 + 1);
        let log = MemoryLog::new();
        log.accept_run(&session("b"), run(1));
        log.accept_run(&session("a"), run(2));
        // Heartbeats tell a visitor that nothing more comes for now.
        let hub = start(&log, &Config { heartbeat_ms: 5, ..calm() });
        let mut live = open(&hub, &log, scope.clone(), Some(0));
        // Each visit allows some more traffic, so that visits and traffic overlap to the end.
        let (allow, allowed) = crossbeam_channel::bounded::<u64>(4);
        let traffic = {
            let (log, hub) = (Arc::clone(&log), hub.clone());
            let mut random = Random::new(seed as u64 + 100);
            let mut runs = 2;
            Worker::spawn("traffic", move || {
                for count in allowed {
                    for _ in 0..count {
                        append_any(&log, &mut random, &mut runs);
                        hub.committed();
                    }
                }
                log.output(&session("b"), run(1), "end");
                log.output(&session("a"), run(2), "end");
                hub.committed();
            })
            .expect("a thread")
        };
        let mut seen: Vec<String> = Vec::new();
        let mut cursor = 0;
        for _ in 0..200 {
            allow.send(random.below(60)).expect("the traffic goes on");
            let mut client = open(&hub, &log, scope.clone(), Some(cursor));
            for _ in 0..random.below(60) {
                let frame = client.frame();
                if frame == HEARTBEAT {
                    break;
                }
                cursor = id_of(&frame).expect("only heartbeats have no id");
                seen.push(frame);
            }
            // Leaving may leave frames, or half of one, behind.
        }
        drop(allow);
        traffic.join().expect("the traffic ends well");
        let expected = log.expected(&scope, 0);
        assert!(expected.len() > 1_000, "seed {seed}: {} events are hardly traffic", expected.len());
        let left = expected.len() - seen.len();
        seen.extend(open(&hub, &log, scope.clone(), Some(cursor)).events(left));
        assert_eq!(seen, expected, "seed {seed}: the union of all visits");
        assert_eq!(live.events(expected.len()), expected, "seed {seed}: live and replay are the same bytes");
        hub.stop().expect("no writer panicked");
    }
}

#[test]
fn every_cursor_shows_exactly_what_follows_it_whatever_the_log_looks_like() {
    for seed in 0..120 {
        let mut random = Random::new(seed + 7_000);
        let log = MemoryLog::new();
        let mut runs = 0;
        let mut epoch = random.below(3);
        for _ in 0..1 + random.below(4) {
            if epoch > 0 {
                log.begin_epoch(epoch);
            }
            epoch += 1 + random.below(3);
            for _ in 0..1 + random.below(80) {
                append_any(&log, &mut random, &mut runs);
            }
        }
        let all = log.records();
        let position = |random: &mut Random| all[random.below(all.len() as u64) as usize].seq;
        if random.below(2) == 0 {
            log.retire_before(position(&mut random));
        }
        let hub = start(&log, &calm());
        for _ in 0..12 {
            let scope = match random.below(5) {
                0 => everything(),
                1 => Scope::Session(session("a")),
                2 => Scope::Run(run(1 + random.below(6) as u32)),
                3 => Scope::Global { session: Some(session("b")), run: Some(run(1)) },
                _ => Scope::Global { session: None, run: Some(run(2)) },
            };
            let cursor = match random.below(4) {
                0 => 0,
                1 => position(&mut random) + random.below(3),
                _ => position(&mut random),
            };
            let (gap, behind) = oracle(&log, &all, &scope, cursor);
            let mut client = open(&hub, &log, scope.clone(), Some(cursor));
            let context = format!("seed {seed}, {scope:?}, cursor {cursor}, floor {}", log.floor());
            let mut first = client.frame();
            match gap {
                Some((reason, resume_after)) => {
                    assert!(first.contains(&format!("\"reason\":\"{reason}\"")), "{context}: {first}");
                    assert_eq!(id_of(&first), Some(resume_after), "{context}");
                    first = String::new();
                }
                None if behind.is_empty() => {
                    assert_eq!(first, HEARTBEAT, "{context}");
                    first = String::new();
                }
                None => {}
            }
            let mut shown: Vec<String> = Some(first).filter(|first| !first.is_empty()).into_iter().collect();
            shown.extend((shown.len()..behind.len()).map(|_| client.frame()));
            assert_eq!(shown, behind, "{context}");
            // Then it is live: the next event in scope is the next frame.
            let number = scope.run().map_or(3, |run| run.number);
            let owner = scope.session().cloned().unwrap_or(session(["a", "b", "c"][number as usize % 3]));
            log.output(&owner, run(number), "live");
            hub.committed();
            assert_eq!(client.frame(), *log.expected(&scope, 0).last().expect("one was just made"), "{context}");
        }
        hub.stop().expect("no writer panicked");
    }
}

/// What docs/events.md promises for a cursor: the gap (reason and resume position), and the frames behind it.
fn oracle(
    log: &Arc<MemoryLog>,
    all: &[kheish_daemon::journal::Record],
    scope: &Scope,
    cursor: Seq,
) -> (Option<(&'static str, Seq)>, Vec<String>) {
    let retained: Vec<Seq> = log.records().iter().map(|record| record.seq).collect();
    let (floor, committed) = (retained[0], retained[retained.len() - 1]);
    let is_known = retained.contains(&cursor) || retained.contains(&(cursor + 1)) || cursor == committed;
    if cursor == 0 || is_known {
        return (None, log.expected(scope, cursor));
    }
    if cursor > committed {
        let reason = if cursor >> 32 == committed >> 32 { "cursor_ahead" } else { "restart_epoch" };
        return (Some((reason, committed)), Vec::new());
    }
    if cursor < floor {
        let is_scoped = scope.session().is_some() || scope.run().is_some();
        let chain_concerns = |record: &&kheish_daemon::journal::Record| match (scope.run(), scope.session()) {
            (Some(run), _) => record.run == Some(run),
            (None, session) => record.session.as_ref() == session,
        };
        let lost = all.iter().filter(chain_concerns).any(|record| record.seq > cursor && record.seq < floor);
        let gap = (!is_scoped || lost).then_some(("replay_window", floor - 1));
        return (gap, log.expected(scope, cursor));
    }
    let next = *retained.iter().find(|seq| **seq > cursor).expect("the newest is behind the cursor");
    (Some(("restart_epoch", next - 1)), log.expected(scope, cursor))
}

#[test]
fn a_gap_says_why_how_much_and_where_it_goes_on() {
    let gap = |reason: &str, skipped: u64, resume_after: Seq| {
        format!(
            "id: {resume_after}\nevent: stream_gap\ndata: {{\"type\":\"stream_gap\",\"reason\":\"{reason}\",\
             \"scope\":\"global\",\"skipped\":{skipped},\"skipped_is_estimate\":true,\
             \"resume_after_id\":\"{resume_after}\"}}\n\n"
        )
    };
    let log = MemoryLog::new();
    let at = |epoch: u64, position: u64| epoch << 32 | position;
    log.begin_epoch(10);
    for _ in 0..10 {
        log.hold(true);
    }
    log.begin_epoch(20);
    for _ in 0..5 {
        log.hold(false);
    }
    log.retire_before(at(10, 4));
    let hub = start(&log, &calm());
    // Cursor; the gap told first; the cursor whose replay follows.
    let table = [
        (0, None, 0),
        (at(10, 1), Some(gap("replay_window", 2, at(10, 3))), at(10, 3)),
        (at(10, 2), Some(gap("replay_window", 1, at(10, 3))), at(10, 3)),
        (at(10, 3), None, at(10, 3)),
        (at(10, 4), None, at(10, 4)),
        (at(10, 10), None, at(10, 10)),
        (at(3, 77), Some(gap("replay_window", 3, at(10, 3))), at(10, 3)),
        (at(10, 11), Some(gap("restart_epoch", 1, at(20, 0))), at(20, 0)),
        (at(15, 3), Some(gap("restart_epoch", 1, at(20, 0))), at(20, 0)),
        (at(20, 0), None, at(20, 0)),
        (at(20, 4), None, at(20, 4)),
        (at(20, 5), None, at(20, 5)),
        (at(20, 6), Some(gap("cursor_ahead", 1, at(20, 5))), at(20, 5)),
        (at(21, 1), Some(gap("restart_epoch", 1, at(20, 5))), at(20, 5)),
        (u64::MAX, Some(gap("restart_epoch", 1, at(20, 5))), at(20, 5)),
    ];
    let gaps = table.iter().filter(|(_, gap, _)| gap.is_some()).count() as u64;
    let mut expected_frames = 0;
    for (cursor, gap, from) in table {
        let mut expected: Vec<String> = gap.into_iter().collect();
        expected.extend(log.expected(&everything(), from));
        expected_frames += expected.len() as u64;
        let mut client = open(&hub, &log, everything(), Some(cursor));
        if expected.is_empty() {
            assert_eq!(client.frame(), HEARTBEAT, "cursor {cursor}");
        }
        let shown: Vec<String> = expected.iter().map(|_| client.frame()).collect();
        assert_eq!(shown, expected, "cursor {cursor}");
        // A client that comes back with the gap's own id is told of no second gap.
        if let Some(resume_after) = expected.first().filter(|frame| frame.contains("stream_gap")).and_then(|f| id_of(f))
        {
            let mut again = open(&hub, &log, everything(), Some(resume_after));
            let expected = log.expected(&everything(), resume_after);
            expected_frames += expected.len() as u64;
            assert_eq!(again.frame(), *expected.first().map_or(HEARTBEAT, String::as_str), "cursor {cursor}, again");
            for frame in expected.iter().skip(1) {
                assert_eq!(again.frame(), *frame);
            }
        }
    }
    let stats = hub.stats();
    assert_eq!((stats.gaps, stats.frames), (gaps, expected_frames));
}

#[test]
fn the_first_frame_is_a_replayed_one_and_a_heartbeat_where_there_is_none() {
    let log = MemoryLog::new();
    log.hold(true);
    let second = log.hold(false);
    let hub = start(&log, &calm());
    assert_eq!(open(&hub, &log, everything(), None).frame(), HEARTBEAT);
    assert_eq!(open(&hub, &log, everything(), Some(second)).frame(), HEARTBEAT);
    assert_eq!(open(&hub, &log, Scope::Run(run(9)), Some(0)).frame(), HEARTBEAT);
    assert_eq!(open(&hub, &log, everything(), Some(0)).frame(), log.expected(&everything(), 0)[0]);

    // However short the interval, a replay's heartbeats come behind its first frame.
    let eager = start(&log, &Config { heartbeat_ms: 1, ..calm() });
    let mut client = open(&eager, &log, everything(), Some(0));
    assert_eq!(client.frame(), log.expected(&everything(), 0)[0]);
    assert_eq!(client.event(), log.expected(&everything(), 0)[1]);
    assert_eq!([client.frame(), client.frame(), client.frame()], [HEARTBEAT; 3]);
    for _ in 0..100_000 {
        log.seal();
    }
    let found = log.accept_run(&session("a"), run(1));
    // Without the newest record of its scope, the replay reads all that before it finds anything.
    let (mut client, _is_closed) = open_watched(&eager, StreamSpec::new(Scope::Run(run(1)), Some(0)));
    assert_eq!([client.frame()], *log.expected(&everything(), found - 1));
}

#[test]
fn the_response_head_comes_before_the_first_frame() {
    let log = MemoryLog::new();
    let hub = start(&log, &calm());
    let (mut client, mut outlet) = pair(None);
    outlet.pending = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    hub.accept(hub.try_reserve().unwrap(), outlet, StreamSpec::new(everything(), None));
    assert_eq!(client.frame(), format!("HTTP/1.1 200 OK\r\n\r\n{HEARTBEAT}"));
}

#[test]
fn a_client_that_never_reads_is_cut_off_and_the_others_miss_nothing() {
    let log = MemoryLog::new();
    let hub = start(&log, &Config { stall_ms: 500, ..calm() });
    let (mut stuck, is_closed) = open_watched(&hub, StreamSpec::new(everything(), None));
    let mut others: Vec<_> = (0..20).map(|_| open(&hub, &log, everything(), None)).collect();
    others.push(open(&hub, &log, Scope::Session(session("a")), None));
    log.accept_run(&session("a"), run(1));
    hub.committed();
    for client in &mut others {
        assert_eq!(client.events(1), log.expected(&everything(), 0));
    }
    // Each round fills the stuck client's buffers a bit more and must reach everybody else.
    let big = "x".repeat(30_000);
    while is_closed.try_recv().is_err() {
        let before = log.committed();
        log.output(&session("a"), run(1), &big);
        hub.committed();
        let expected = log.expected(&everything(), before);
        for client in &mut others {
            assert_eq!(client.events(1), expected);
        }
    }
    // Its place is given back a moment after its connection.
    let deadline = std::time::Instant::now() + PATIENCE;
    while (hub.stats().cut_off, hub.stats().streams) != (1, 21) {
        assert!(std::time::Instant::now() < deadline, "{:?}", hub.stats());
        std::thread::yield_now();
    }
    let mut shown = 0;
    while let Next::Frame(frame) = stuck.next() {
        shown += usize::from(frame != HEARTBEAT);
    }
    assert!(shown < log.expected(&everything(), 0).len(), "the stuck client was cut off with frames outstanding");
    hub.stop().expect("no writer panicked");
}

#[test]
fn a_slow_reader_is_late_and_loses_nothing() {
    let log = MemoryLog::new();
    let hub = start(&log, &calm());
    let mut slow = open(&hub, &log, everything(), None);
    let mut quick = open(&hub, &log, everything(), None);
    log.accept_run(&session("a"), run(1));
    // Far beyond what the socket and the client's buffer hold.
    for _ in 0..200 {
        log.output(&session("a"), run(1), &"y".repeat(20_000));
        hub.committed();
    }
    let expected = log.expected(&everything(), 0);
    assert_eq!(slow.frame(), HEARTBEAT);
    assert_eq!(quick.events(expected.len()), expected);
    assert_eq!(slow.events(expected.len()), expected);
    log.hold(true);
    hub.committed();
    assert_eq!(slow.frame(), *log.expected(&everything(), 0).last().unwrap());
    assert_eq!(hub.stats().gaps, 0);
}

#[test]
fn a_run_is_replayed_along_its_own_chain_and_not_by_reading_the_log() {
    let log = MemoryLog::new();
    let (quiet, busy) = (session("quiet"), session("busy"));
    log.accept_run(&busy, run(2));
    for number in 0..30_000 {
        match number {
            10_000 => log.accept_run(&quiet, run(1)),
            15_000 | 20_000 => log.output(&quiet, run(1), "found"),
            _ => log.append("message.appended", Some(&busy), Some(run(2)), "{}"),
        };
    }
    let hub = start(&log, &calm());
    for scope in [Scope::Run(run(1)), Scope::Session(quiet.clone())] {
        let mut client = open(&hub, &log, scope.clone(), Some(0));
        assert_eq!(client.events(3), log.expected(&scope, 0));
    }
    let (reads, scanned) = (log.reads.load(Ordering::Relaxed), log.scanned.load(Ordering::Relaxed));
    assert!(reads < 100 && scanned < 100, "{reads} reads, {scanned} records scanned");
}

#[test]
fn a_chain_longer_than_what_is_remembered_of_it_is_replayed_whole() {
    let log = MemoryLog::new();
    log.accept_run(&session("a"), run(1));
    for number in 0..2 * SSE_CHAIN_RECORDS_MAX {
        log.output(&session("a"), run(1), &number.to_string());
        log.seal();
    }
    let hub = start(&log, &calm());
    let scope = Scope::Run(run(1));
    for cursor in [0, 1, 2 * SSE_CHAIN_RECORDS_MAX as Seq, log.committed() - 1] {
        let expected = log.expected(&scope, cursor);
        let mut client = open(&hub, &log, scope.clone(), Some(cursor));
        assert_eq!(client.events(expected.len()), expected, "cursor {cursor}");
    }
}

#[test]
fn a_preview_has_no_id_stays_in_scope_and_keeps_its_place() {
    let log = MemoryLog::new();
    let (a, b) = (session("a"), session("b"));
    log.accept_run(&a, run(1));
    log.accept_run(&b, run(2));
    let hub = start(&log, &calm());
    let mut global = open(&hub, &log, everything(), None);
    let mut mine = open(&hub, &log, Scope::Run(run(1)), None);
    let mut other = open(&hub, &log, Scope::Session(b.clone()), None);
    // Being shown an event proves that a client is at the tail, where previews are shown.
    log.output(&a, run(1), "before");
    log.output(&b, run(2), "before");
    hub.committed();
    let settled = log.expected(&everything(), 2);
    assert_eq!((global.frame(), mine.frame(), other.frame()), (HEARTBEAT.into(), HEARTBEAT.into(), HEARTBEAT.into()));
    assert_eq!(global.events(2), settled);
    assert_eq!((mine.frame(), other.frame()), (settled[0].clone(), settled[1].clone()));

    let mut expected = Vec::new();
    for number in 0..50 {
        let text = format!("piece {number}");
        hub.preview(Preview { session: a.clone(), run: run(1), text: text.clone() });
        let seq = log.output(&a, run(1), &text);
        hub.committed();
        expected.push(format!(
            "event: preview\ndata: {{\"type\":\"preview\",\"session_id\":\"a\",\"run_id\":\"run-1\",\"text\":\"{text}\"}}\n\n"
        ));
        expected.push(log.expected(&everything(), seq - 1)[0].clone());
    }
    assert_eq!(global.events(100), expected);
    assert_eq!(mine.events(100), expected);
    log.output(&b, run(2), "last");
    hub.committed();
    assert_eq!(other.frame(), *log.expected(&everything(), 0).last().unwrap(), "no preview of another session");

    let text = "x".repeat(SSE_PREVIEW_TEXT_BYTES_MAX + 1);
    hub.preview(Preview { session: a, run: run(1), text });
    assert_eq!(hub.stats().previews_dropped, 1);
}

#[test]
fn a_client_that_leaves_is_noticed_without_writing_to_it() {
    let log = MemoryLog::new();
    let hub = start(&log, &Config { streams_max: 1, ..calm() });
    let (client, is_closed) = open_watched(&hub, StreamSpec::new(everything(), None));
    assert!(hub.try_reserve().is_none(), "one stream is the limit here");
    drop(client);
    is_closed.recv_timeout(PATIENCE).expect("the hub let go of the connection");
    let stats = hub.stats();
    assert_eq!((stats.refused, stats.cut_off), (1, 0));
}

#[test]
fn a_seat_is_free_again_when_its_stream_ends_or_never_begins() {
    let log = MemoryLog::new();
    let hub = start(&log, &Config { streams_max: 2, writers: 1, ..calm() });
    let first = hub.try_reserve().expect("two are free");
    let second = hub.try_reserve().expect("one is free");
    assert!(hub.try_reserve().is_none());
    drop(first);
    drop(hub.try_reserve().expect("given back without a stream"));
    let (client, outlet) = pair(None);
    hub.accept(second, outlet, StreamSpec::new(everything(), None));
    drop(client);
    // The writer is alone: once it has served the next client, it has dropped the one before.
    let (mut client, is_closed) = open_watched(&hub, StreamSpec::new(everything(), None));
    assert_eq!(client.frame(), HEARTBEAT);
    drop(client);
    is_closed.recv_timeout(PATIENCE).expect("the hub let go of the connection");
    hub.stop().expect("no writer panicked");
    assert_eq!(hub.stats().streams, 0);
}

#[test]
fn stopping_ends_every_stream_and_refuses_new_ones() {
    let log = MemoryLog::new();
    let hub = start(&log, &calm());
    let mut clients: Vec<_> = (0..5).map(|_| open(&hub, &log, everything(), None)).collect();
    for client in &mut clients {
        assert_eq!(client.frame(), HEARTBEAT);
    }
    hub.stop().expect("no writer panicked");
    log.hold(true);
    hub.committed();
    for client in &mut clients {
        assert_eq!(client.next(), Next::End);
    }
    assert_eq!(open(&hub, &log, everything(), None).next(), Next::End);
    let stats = hub.stats();
    assert_eq!(stats.streams, 0);
    assert!(stats.writers.iter().all(|writer| !writer.alive));
    hub.stop().expect("stopping twice is harmless");
}

#[test]
fn a_stream_ends_with_a_word_when_its_credentials_no_longer_hold() {
    let log = MemoryLog::new();
    let hub = start(&log, &Config { credential_check_ms: 1, heartbeat_ms: 5, ..calm() });
    let holds = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&holds);
    let still_allowed: kheish_daemon::sse::StillAllowed = Arc::new(move || asked.load(Ordering::SeqCst));
    let spec = StreamSpec { still_allowed: Some(still_allowed), ..StreamSpec::new(everything(), None) };
    let (mut client, _is_closed) = open_watched(&hub, spec);
    let mut other = open(&hub, &log, everything(), None);
    assert_eq!([client.frame(), client.frame()], [HEARTBEAT; 2]);
    holds.store(false, Ordering::SeqCst);
    assert_eq!(
        client.event(),
        "event: stream_closed\ndata: {\"type\":\"stream_closed\",\"reason\":\"credentials_changed\"}\n\n"
    );
    assert_eq!(client.next(), Next::End);
    log.hold(true);
    hub.committed();
    assert_eq!(other.event(), log.expected(&everything(), 0)[0]);
    assert_eq!(hub.stats().revoked, 1);
}

#[test]
fn a_stream_is_closed_rather_than_continued_with_a_hole_when_the_log_cannot_be_read() {
    let log = MemoryLog::new();
    log.hold(true);
    let hub = start(&log, &calm());
    let mut live = open(&hub, &log, everything(), Some(0));
    assert_eq!(live.frame(), log.expected(&everything(), 0)[0]);
    // Another event proves that the client is at the tail.
    log.hold(false);
    hub.committed();
    assert_eq!(live.frame(), log.expected(&everything(), 0)[1]);
    log.break_down();
    log.hold(true);
    hub.committed();
    assert_eq!(live.next(), Next::End);
    assert_eq!(open(&hub, &log, everything(), Some(1)).next(), Next::End);
    assert_eq!(hub.stats().read_failures, 2);
    let alive: Vec<bool> = hub.stats().writers.iter().map(|writer| writer.alive).collect();
    assert_eq!(alive, [true, true]);
}

#[test]
fn retention_that_overtakes_a_replay_is_told_as_a_gap() {
    for scope in [everything(), Scope::Run(run(1))] {
        let log = MemoryLog::new();
        log.accept_run(&session("a"), run(1));
        // Ten times what the socket and the client's buffer hold.
        for _ in 0..999 {
            log.output(&session("a"), run(1), &"z".repeat(5_000));
        }
        let before = log.expected(&scope, 0);
        let hub = start(&log, &calm());
        let mut client = open(&hub, &log, scope.clone(), Some(0));
        let mut seen = vec![client.frame()];
        log.retire_before(990);
        let gap = loop {
            let frame = client.frame();
            if frame.contains("event: stream_gap") {
                break frame;
            }
            seen.push(frame);
        };
        assert_eq!(seen, before[..seen.len()], "{scope:?}");
        assert_eq!(id_of(&gap), Some(989), "{scope:?}");
        assert!(gap.contains(&format!("\"skipped\":{},", 989 - seen.len())), "{scope:?}, {} seen: {gap}", seen.len());
        let rest = log.expected(&scope, 989);
        assert_eq!(client.events(rest.len()), rest, "{scope:?}");
    }
}
